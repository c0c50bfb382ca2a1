//! Whole configurations that must compile, and what they compile to.

use crate::support::{World, good};
use remora_config::plan::{Address, LogFormat, Mode};
use remora_config::{Source, load};
use remora_core::balance::Algorithm;
use remora_core::rule::proxy::BackendRef;
use remora_core::table::{DataType, KeyType};
use remora_core::world::ProxyId;

const BAN_ACROSS_SITES: &str = include_str!("../../../../docs/examples/ban-across-sites.cfg");

#[test]
fn ban_across_sites_compiles_without_a_word() {
    let plan = good(BAN_ACROSS_SITES);
    let names: Vec<_> = plan.proxies.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["web", "shop", "penalty"]);
    let [web, shop, penalty] = &plan.proxies[..] else {
        panic!()
    };
    assert!(plan.proxies.iter().all(|p| p.mode == Mode::Http));
    assert_eq!((web.id, shop.id, penalty.id), (2, 3, 4));
    assert_eq!(
        web.binds[0].address,
        Address::Ip("0.0.0.0:8081".parse().unwrap())
    );
    assert_eq!(web.rules.tcp_connection.rules.len(), 1);
    assert_eq!(web.rules.default_backend, Some(ProxyId(1)));
    assert!(matches!(
        web.rules.use_backend[0].target,
        BackendRef::Static(ProxyId(2))
    ));
    assert_eq!(shop.rules.tcp_content.rules.len(), 3);
    assert_eq!(
        shop.servers[0].address,
        Address::Ip("127.0.0.1:8000".parse().unwrap())
    );
    assert_eq!(penalty.error_pages.files[0].0, 503);
    assert_eq!(web.timeouts.client, Some(30_000));
    assert_eq!(shop.timeouts.connect, Some(5_000));
    let table = &plan.tables[web.table.unwrap().0 as usize];
    assert_eq!(
        (table.name.as_str(), table.key_type, table.size),
        ("web", KeyType::Ip, 204_800)
    );
    let table = &plan.tables[shop.table.unwrap().0 as usize];
    let stored: Vec<_> = table
        .store
        .iter()
        .map(|s| (s.data_type, s.period_ms))
        .collect();
    assert_eq!(
        stored,
        [
            (DataType::ConnRate, 100_000),
            (DataType::BytesOutRate, 60_000)
        ]
    );
    // 20100 descriptors, less the reserve, two per connection.
    assert_eq!(plan.global.maxconn, 10_000);
    assert_eq!(shop.fullconn, 1_000);
}

#[test]
fn throttle_with_a_built_in_answer_compiles() {
    let plan = good(
        r#"
global
    stats socket /tmp/remora.sock mode 600 level admin
    stats timeout 30s
    log stdout format raw local0
    nbthread 2
    maxconn 2000

defaults
    mode http
    log global
    option httplog
    option dontlognull
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-request 10s

frontend web
    bind 127.0.0.1:8080,[::1]:8080 name main
    stick-table type ipv6 size 100k expire 30s store http_req_rate(10s),bytes_out_rate(10s),gpc0
    http-request track-sc0 src
    acl fast sc0_http_req_rate gt 20
    http-request deny deny_status 429 hdr Retry-After 10 content-type text/plain string "slow down\n" if fast
    http-request deny deny_status 429 if { sc0_bytes_out_rate gt 1000000 }
    http-request return status 200 content-type text/plain lf-string "hello %[src]\n"
"#,
    );
    let web = &plan.proxies[0];
    assert_eq!(web.binds.len(), 2);
    assert_eq!(web.binds[1].name.as_deref(), Some("main"));
    assert_eq!(web.logs.len(), 1);
    assert!(matches!(web.log_format, LogFormat::Http));
    assert_eq!(web.rules.http_request.rules.len(), 4);
    assert_eq!(web.maxconn, 2000);
    assert_eq!(plan.global.stats_sockets[0].mode, Some(0o600));
    assert_eq!(plan.global.stats_timeout_ms, 30_000);
    assert_eq!(plan.global.nbthread, 2);
}

#[test]
fn settings_come_from_the_right_defaults() {
    let plan = good(
        "defaults tcpish\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n balance leastconn\n retries 7\n\
         defaults\n mode http\n timeout client 2s\n timeout server 2s\n timeout connect 2s\n maxconn 77\n\
         defaults third from tcpish\n timeout client 3s\n option redispatch\n\
         frontend a\n bind :1\n\
         frontend b from tcpish\n bind :2\n\
         listen c\n bind :3\n server s 127.0.0.1:1\n balance random(3)\n\
         backend d from tcpish\n server s 127.0.0.1:1\n",
    );
    let by = |n: &str| plan.proxies.iter().find(|p| p.name == n).unwrap();
    // No `from`: the last defaults above, which started from built-in values plus its own parent's.
    assert_eq!(
        (by("a").mode, by("a").timeouts.client),
        (Mode::Tcp, Some(3_000))
    );
    assert_eq!(by("a").retries, 7);
    assert_eq!(
        (by("b").timeouts.client, by("b").maxconn),
        (Some(1_000), 10_000)
    );
    assert!(by("c").redispatch && !by("d").redispatch);
    assert_eq!(by("c").balance, Algorithm::Random(3));
    assert_eq!(by("d").balance, Algorithm::LeastConn);
    assert_eq!(by("c").timeouts.client, Some(3_000));
}

#[test]
fn rules_of_named_defaults_run_before_own_ones() {
    let plan = good(
        "defaults d\n mode http\n timeout client 2s\n timeout server 2s\n timeout connect 2s\n\
         \x20acl x path /a\n http-request set-header h 1 if x\n http-request track-sc0 src\n tcp-request inspect-delay 5s\n\
         defaults\n timeout client 2s\n\
         frontend f from d\n bind :1\n stick-table type ip size 5\n http-request set-header h 2\n\
         frontend g from d\n bind :2\n stick-table type ipv6 size 5\n acl x path /b\n http-request deny if x\n",
    );
    let [f, g] = &plan.proxies[..] else { panic!() };
    let lines = |p: &remora_config::plan::Proxy| -> Vec<u32> {
        p.rules
            .http_request
            .rules
            .iter()
            .map(|r| r.place.1)
            .collect()
    };
    assert_eq!(lines(f), [7, 8, 15]);
    assert_eq!(lines(g), [7, 8, 20]);
    assert_eq!(f.rules.inspect_delay_ms, 5_000);
    // `track-sc0 src` means the table of whoever inherits the rule.
    let table = |p: &remora_config::plan::Proxy| match &p.rules.http_request.rules[1].action {
        remora_core::rule::action::Action::Track { table, .. } => Some(*table),
        _ => None,
    };
    assert_eq!(table(f), f.table);
    assert_eq!(table(g), g.table);
}

#[test]
fn logs_and_options() {
    use remora_config::plan::{LogSink, LogWire};
    let plan = good(
        "global\n log 127.0.0.1:5514 len 2000 format rfc5424 local3 notice err\n log /dev/log daemon\n\
         defaults\n log global\n mode http\n timeout client 1s\n option forwardfor except 127.0.0.0/8 header X-Client if-none\n\
         frontend f\n bind :1\n log stderr format raw user\n option httplog\n option httpclose\n option contstats\n\
         frontend g\n bind :2\n no log\n no option forwardfor\n option http-server-close\n option splice-auto\n",
    );
    let [f, g] = &plan.proxies[..] else { panic!() };
    let sinks: Vec<_> = f.logs.iter().map(|l| l.sink.clone()).collect();
    assert_eq!(
        sinks,
        [
            LogSink::Udp("127.0.0.1:5514".parse().unwrap()),
            LogSink::UnixDgram("/dev/log".to_owned()),
            LogSink::Stderr
        ]
    );
    let l = &f.logs[0];
    assert_eq!(
        (l.len, l.format, l.facility, l.level_max, l.level_min),
        (2000, LogWire::Rfc5424, 19, 5, 3)
    );
    let fwd = f.forwardfor.as_ref().unwrap();
    assert_eq!((fwd.header.as_str(), fwd.if_none), ("X-Client", true));
    assert_eq!(fwd.except, Some(("127.0.0.0".parse().unwrap(), 8)));
    assert!(f.options.httpclose && f.options.contstats);
    assert!(g.logs.is_empty() && g.forwardfor.is_none() && g.options.http_server_close);
}

#[test]
fn binds_and_servers() {
    let plan = good(
        "frontend f\n bind 127.0.0.1:100-102,ipv6@:200 maxconn 5 backlog 9 accept-proxy\n bind unix@/run/f.sock mode 660 user www group web uid 5\n\
         \x20bind fd@7 id 12 name x\n bind ipv6@:1 v6only\n bind ipv6@:2 v4v6\n timeout client 1s\n\
         backend b\n timeout server 1s\n timeout connect 1s\n default-server weight 10 maxconn 50\n\
         \x20server a 127.0.0.1:1 weight 20 id 2\n server b localhost:2 backup\n server c 127.0.0.1 disabled maxqueue 6\n\
         \x20server d 127.0.0.1:+10\n server e /run/s.sock\n server f lazy.invalid:80\n",
    );
    let [f, b] = &plan.proxies[..] else { panic!() };
    let texts: Vec<_> = f.binds.iter().map(|b| b.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "127.0.0.1:100",
            "127.0.0.1:101",
            "127.0.0.1:102",
            "ipv6@:200",
            "unix@/run/f.sock",
            "fd@7",
            "ipv6@:1",
            "ipv6@:2"
        ]
    );
    assert!(
        f.binds[..4]
            .iter()
            .all(|b| b.accept_proxy && b.maxconn == Some(5) && b.backlog == Some(9))
    );
    let unix = &f.binds[4];
    assert_eq!((unix.mode, unix.uid), (Some(0o660), Some(5)));
    assert_eq!(
        (unix.user.as_deref(), unix.group.as_deref()),
        (Some("www"), Some("web"))
    );
    assert_eq!(
        (f.binds[5].address.clone(), f.binds[5].id),
        (Address::Fd(7), Some(12))
    );
    assert!(f.binds[6].v6only && f.binds[7].v4v6);
    let ids: Vec<_> = b
        .servers
        .iter()
        .map(|s| (s.name.as_str(), s.id, s.weight, s.maxconn))
        .collect();
    assert_eq!(
        ids,
        [
            ("a", 2, 20, 50),
            ("b", 1, 10, 50),
            ("c", 3, 10, 50),
            ("d", 4, 10, 50),
            ("e", 5, 10, 50),
            ("f", 6, 10, 50)
        ]
    );
    assert!(b.servers[1].backup && b.servers[2].disabled && b.servers[5].disabled);
    assert_eq!(b.servers[2].maxqueue, 6);
    assert_eq!(
        (b.servers[2].port_offset, b.servers[3].port_offset),
        (Some(0), Some(10))
    );
    assert_eq!(
        b.servers[4].address,
        Address::Unix("/run/s.sock".to_owned())
    );
}

#[test]
fn status_sets() {
    let plan = good("global\n http-err-codes 220 +300-499 -300-399\n http-fail-codes -502 +404\n");
    let g = &plan.global;
    for (code, err, fail) in [
        (220, true, false),
        (300, false, false),
        (400, true, false),
        (499, true, false),
        (404, true, true),
        (500, false, true),
        (502, false, false),
        (501, false, false),
    ] {
        assert_eq!(
            (
                g.http_err_codes.contains(code),
                g.http_fail_codes.contains(code)
            ),
            (err, fail),
            "{code}"
        );
    }
}

#[test]
fn several_files_each_begin_a_new_section() {
    use remora_config::{Source, load};
    let source = |name: &str, text: &str| Source {
        name: name.to_owned(),
        text: text.as_bytes().to_vec(),
    };
    let files = [
        source("a.cfg", "defaults\n mode http\n timeout client 1s\n"),
        source("b.cfg", "frontend f\n bind :1\n"),
    ];
    let plan = load(&files, &crate::support::options(), &mut World)
        .plan
        .unwrap();
    assert_eq!(plan.files, ["a.cfg", "b.cfg"]);
    assert_eq!(
        (plan.proxies[0].mode, plan.proxies[0].place.file),
        (Mode::Http, 1)
    );
    let files = [source("a.cfg", "global\n"), source("b.cfg", "maxconn 5\n")];
    let loaded = load(&files, &crate::support::options(), &mut World);
    assert!(loaded.plan.is_none());
    assert!(
        loaded.diags[0]
            .text
            .starts_with("config : parsing [b.cfg:1] : unknown keyword 'maxconn' out of section")
    );
}

/// What a configuration names is looked for in the working directory, then beside the file that names it.
#[test]
fn files_are_found_beside_the_configuration_that_names_them() {
    let text =
        "backend b\n mode http\n errorfile 503 FILE\n acl a src -f nets\n http-request deny if a\n";
    for (config, file, found) in [
        ("/etc/site/a.cfg", "page.http", true),
        ("/etc/site/a.cfg", "503.http", true),
        ("/etc/site/a.cfg", "/page.http", false),
        ("/etc/site/a.cfg", "site/page.http", false),
        ("/etc/a.cfg", "site/page.http", true),
        ("/etc/a.cfg", "page.http", false),
        ("etc/a.cfg", "page.http", true),
        ("a.cfg", "page.http", false),
        ("/a.cfg", "etc/site/page.http", true),
    ] {
        let source = Source {
            name: config.to_owned(),
            text: text.replace("FILE", file).into_bytes(),
        };
        let first = Source {
            name: "/elsewhere/first.cfg".to_owned(),
            text: b"global\n maxconn 10\n".to_vec(),
        };
        let loaded = load(&[first, source], &crate::support::options(), &mut World);
        let errors: Vec<_> = loaded.diags.iter().map(|d| d.text.as_str()).collect();
        assert_eq!(loaded.plan.is_some(), found, "{config} {file}: {errors:?}");
        assert!(
            found || errors[0].contains(&format!("'{file}'. (No such file or directory)")),
            "{errors:?}"
        );
    }
}
