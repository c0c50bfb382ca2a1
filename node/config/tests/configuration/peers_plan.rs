//! What `peers` sections compile to.

use crate::support::{World, good, options};
use remora_config::plan::{Address, LogSink, PeerAddress, PeersSection, PeersTls, Plan, Verify};
use remora_config::{Options, Source, load};
use remora_core::table::{KeyType, TableId};

/// Section `p` of the node `a`.
fn section(lines: &str) -> PeersSection {
    let plan = good(&format!("global\n localpeer a\npeers p\n{lines}"));
    plan.peers.into_iter().next().expect("a section")
}

/// With the name that the command line gives.
fn with_name(text: &str, localpeer: &str) -> Plan {
    let source = Source {
        name: "t.cfg".into(),
        text: text.into(),
    };
    let options = Options {
        localpeer: Some(localpeer.to_owned()),
        ..options()
    };
    let loaded = load(&[source], &options, &mut World);
    loaded.plan.unwrap_or_else(|| panic!("{:?}", loaded.diags))
}

#[test]
fn defaults() {
    let p = section(" bind 127.0.0.1:1000\n server a\n server b 127.0.0.1:1001\n");
    assert_eq!((p.name.as_str(), p.cluster.as_str()), ("p", "p"));
    assert_eq!((p.local.as_str(), p.place.line), ("a", 3));
    assert_eq!((p.learn_timeout_ms, p.allow_plaintext), (5_000, false));
    assert!(!p.disabled && p.discover.is_empty() && p.logs.is_empty() && p.tables.is_empty());
    assert_eq!(p.binds.len(), 1);
    let bind = &p.binds[0];
    assert_eq!(bind.address, Address::Ip("127.0.0.1:1000".parse().unwrap()));
    assert_eq!((bind.text.as_str(), bind.place.line), ("127.0.0.1:1000", 4));
    assert!(bind.tls.is_none());
    assert_eq!(p.servers.len(), 1, "the others only");
    let b = &p.servers[0];
    assert_eq!((b.name.as_str(), b.disabled, b.place.line), ("b", false, 6));
    assert_eq!(
        b.address,
        PeerAddress::Ip("127.0.0.1:1001".parse().unwrap())
    );
}

#[test]
fn one_file_serves_all_nodes() {
    let text = "peers p\n peer a 127.0.0.1:1\n peer b 127.0.0.1:2\n peer c unix@/run/c mode 600\n";
    // Owner and permissions of the socket are the listener's business.
    let text = text.replace("c mode 600", "c");
    for (name, own, others) in [
        ("a", Address::Ip("127.0.0.1:1".parse().unwrap()), ["b", "c"]),
        ("b", Address::Ip("127.0.0.1:2".parse().unwrap()), ["a", "c"]),
        ("c", Address::Unix("/run/c".to_owned()), ["a", "b"]),
    ] {
        let p = &with_name(&text, name).peers[0];
        assert_eq!(p.local, name);
        assert_eq!(p.binds.len(), 1);
        assert_eq!(p.binds[0].address, own);
        let names: Vec<&str> = p.servers.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, others);
    }
}

#[test]
fn everything_plain() {
    let p = section(
        " enabled\n cluster edge\n learn-timeout 12s\n allow-plaintext\n log 10.0.0.9 local0\n log stdout local1\n \
         no log\n log global\n log stderr local2\n default-bind mode 660 group www\n bind unix@/run/p,:::5 v6only name x id 7\n \
         bind fd@7\n server a\n server b node-b.example:5 id 3\n default-server disabled\n server c ipv6@::1:5\n \
         server d [::1]:6 enabled\n",
    );
    assert_eq!(p.cluster, "edge");
    assert_eq!(p.learn_timeout_ms, 12_000);
    assert!(p.allow_plaintext);
    let sinks: Vec<_> = p.logs.iter().map(|l| l.sink.clone()).collect();
    assert_eq!(sinks, [LogSink::Stderr]);
    let binds: Vec<_> = p
        .binds
        .iter()
        .map(|b| (b.text.as_str(), b.mode, b.group.as_deref(), b.v6only))
        .collect();
    assert_eq!(
        binds,
        [
            ("unix@/run/p", Some(0o660), Some("www"), true),
            (":::5", Some(0o660), Some("www"), true),
            ("fd@7", Some(0o660), Some("www"), false),
        ]
    );
    let servers: Vec<_> = p
        .servers
        .iter()
        .map(|s| (s.name.as_str(), s.address.clone(), s.disabled))
        .collect();
    let ip = |a: &str| PeerAddress::Ip(a.parse().unwrap());
    let host = PeerAddress::Host {
        host: "node-b.example".into(),
        port: 5,
    };
    assert_eq!(
        servers,
        [
            ("b", host, false),
            ("c", ip("[::1]:5"), true),
            ("d", ip("[::1]:6"), false)
        ]
    );
}

/// Paths, verification and name of a TLS line.
fn tls(tls: &Option<PeersTls>) -> [String; 5] {
    let t = tls.as_ref().expect("TLS");
    let text = |o: &Option<String>| o.clone().unwrap_or_default();
    let verify = match t.verify {
        Verify::None => "none",
        Verify::Optional => "optional",
        Verify::Required => "required",
    };
    [
        text(&t.crt),
        text(&t.key),
        text(&t.ca_file),
        verify.to_owned(),
        text(&t.verifyhost),
    ]
}

#[test]
fn tls_options_and_where_they_come_from() {
    let p = section(
        " default-bind ssl crt both.pem\n default-server ssl ca-file crt.pem\n \
         bind 10.0.0.1:5 ca-file crt.pem verify required ssl-min-ver TLSv1.2 no-tlsv10 ciphers X\n server a\n \
         server b 10.0.0.2:5\n server c node-c:5 crt crt.pem verifyhost Node-C.example. sni str(x)\n \
         server d 10.0.0.4:5 crt alone.pem key k.pem\n server e 10.0.0.5:5 key k.pem crt alone.pem verify none\n \
         server f 127.0.0.1:5 no-ssl\n discover dns Nodes.Example:5\n discover dns _peers._tcp.nodes.example. every 1m \
         nameserver 127.0.0.1 verifyhost other\n discover dns off:5 disabled\n",
    );
    assert_eq!(
        tls(&p.binds[0].tls),
        ["both.pem", "both.pem", "crt.pem", "required", ""]
    );
    let servers: Vec<_> = p.servers[..4].iter().map(|s| tls(&s.tls)).collect();
    assert_eq!(
        servers,
        [
            // What the node listens with, where nothing else is named.
            ["both.pem", "both.pem", "crt.pem", "required", ""],
            [
                "crt.pem",
                "crt.pem.key",
                "crt.pem",
                "required",
                "node-c.example"
            ],
            ["alone.pem", "k.pem", "crt.pem", "required", ""],
            ["alone.pem", "k.pem", "crt.pem", "none", ""],
        ]
    );
    assert!(p.servers[4].tls.is_none());
    let sni = p.servers[1].tls.as_ref().and_then(|t| t.sni.as_deref());
    assert_eq!(sni, Some("x"));
    let [a, srv] = p.discover.as_slice() else {
        panic!("{:?}", p.discover)
    };
    assert_eq!(
        (a.name.as_str(), a.port, a.every_ms, a.nameserver),
        ("nodes.example", Some(5), 5_000, None)
    );
    assert!(!a.is_srv() && srv.is_srv());
    assert_eq!(tls(&a.tls)[4], "nodes.example");
    assert_eq!(
        (srv.name.as_str(), srv.port, srv.every_ms),
        ("_peers._tcp.nodes.example.", None, 60_000)
    );
    assert_eq!(srv.nameserver, Some("127.0.0.1:53".parse().unwrap()));
    assert_eq!(tls(&srv.tls)[4], "other");
    let bare = section(
        " default-server ssl ca-file crt.pem\n bind 127.0.0.1:5\n discover dns _peers._tcp.nodes.example\n",
    );
    assert_eq!(
        tls(&bare.discover[0].tls),
        ["", "", "crt.pem", "required", "nodes.example"]
    );
}

#[test]
fn files_are_looked_for_where_global_says_and_beside_the_configuration() {
    let plan = good(
        "global\n localpeer a\n crt-base /tls\n ca-base /tls\npeers p\n bind :5 ssl crt both.pem ca-file ca.pem verify required\n server a\n",
    );
    assert_eq!(
        tls(&plan.peers[0].binds[0].tls),
        [
            "/tls/both.pem",
            "/tls/both.pem",
            "/tls/ca.pem",
            "required",
            ""
        ]
    );
    let source = Source {
        name: "/etc/site/t.cfg".into(),
        text:
            "peers p\n bind 127.0.0.1:5\n server host1\n server b 10.0.0.1:5 ssl ca-file ca.pem\n"
                .into(),
    };
    let loaded = load(&[source], &options(), &mut World);
    let plan = loaded.plan.unwrap_or_else(|| panic!("{:?}", loaded.diags));
    assert_eq!(tls(&plan.peers[0].servers[0].tls)[2], "/etc/site/ca.pem");
}

#[test]
fn tables_belong_to_sections() {
    let plan = good(
        "global\n localpeer a\nbackend own\n stick-table type ip size 1k\nbackend shared\n stick-table type ip size 1k peers q\n\
         peers p\n bind 127.0.0.1:5\n server a\n table rates type ipv6 size 1m expire 1h store http_req_rate(10s)\n table other type string len 20 size 5\n\
         peers q\n bind 127.0.0.1:6\n server a\n\
         peers off\n disabled\n enabled\n disabled\n table t type ip size 1k\n\
         backend lonely\n stick-table type ip size 1k peers off\n",
    );
    let tables: Vec<_> = plan
        .tables
        .iter()
        .map(|t| (t.name.as_str(), t.shared_name(), t.peers))
        .collect();
    assert_eq!(
        tables,
        [
            ("own", "own", None),
            ("shared", "shared", Some(1)),
            ("p/rates", "/rates", Some(0)),
            ("p/other", "/other", Some(0)),
            // Nothing is shared through a section that is switched off.
            ("off/t", "/t", None),
            ("lonely", "lonely", None),
        ]
    );
    let sections: Vec<_> = plan.peers.iter().map(|p| p.tables.clone()).collect();
    assert_eq!(
        sections,
        [
            vec![TableId(2), TableId(3)],
            vec![TableId(1)],
            vec![TableId(4), TableId(5)]
        ]
    );
    assert_eq!(plan.tables[2].key_type, KeyType::Ipv6);
    assert!(plan.peers[2].disabled);
}

#[test]
fn rules_name_tables_of_sections() {
    let plan = good(
        "global\n localpeer a\ndefaults\n mode http\n timeout client 1s\nfrontend f\n bind :1\n \
         http-request track-sc0 src table p/t\n http-request deny if { sc0_http_req_rate gt 5 }\n \
         http-request deny if { src_http_req_rate(p/t) gt 3 }\n http-request deny if { src,table_http_req_rate(p/t) gt 3 }\n\
         peers p\n bind 127.0.0.1:5\n server a\n table t type ip size 1k store http_req_rate(10s)\n",
    );
    assert_eq!(plan.proxies[0].rules.http_request.rules.len(), 4);
}

#[test]
fn the_command_line_names_the_node() {
    let text = "global\n localpeer b\n node \"$HAPROXY_LOCALPEER\"\npeers p\n bind 127.0.0.1:5\n server a\n server b 127.0.0.1:1\n";
    let plan = with_name(text, "a");
    assert_eq!(
        (plan.global.localpeer.as_str(), plan.global.node.as_str()),
        ("a", "a")
    );
    assert_eq!(plan.peers[0].local, "a");
    let plan = good("global\n localpeer b\n node \"$HAPROXY_LOCALPEER\"\n");
    assert_eq!(plan.global.node, "b");
}

#[test]
fn discovery_needs_no_names() {
    let p = section(
        " bind 127.0.0.1:5\n allow-plaintext\n discover dns nodes:5\n server z 10.0.0.1:5\n",
    );
    assert_eq!((p.local.as_str(), p.servers.len()), ("a", 1));
    let plan = good("peers p\n bind 127.0.0.1:5\n allow-plaintext\n discover dns nodes:5\n");
    assert_eq!(plan.peers[0].local, "host1");
}
