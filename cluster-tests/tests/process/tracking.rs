//! What moves which counter, and when.

use std::net::Ipv4Addr;

use cluster_tests::server::Gate;
use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Server, get, get_from};

use crate::common::{config, haproxy_lacks, site};

const STORE: &str = "conn_cnt,conn_cur,conn_rate(1h),sess_cnt,http_req_cnt,http_err_cnt,http_fail_cnt,bytes_in_cnt,bytes_out_cnt";

fn table(rest: &str) -> String {
    format!("  stick-table type ip size 1k expire 1h store {STORE}\n{rest}")
}

#[test]
fn connection_trackers_count_connections_and_their_requests() {
    let server = Server::http();
    let proxy = site(
        &table("  tcp-request connection track-sc0 src"),
        "",
        &server,
    )
    .start();
    let mut client = Client::connect(proxy.addr("fe"));
    for _ in 0..3 {
        assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
    }
    let entry = proxy.cli().entry("fe", "127.0.0.1").expect("tracked");
    let all = [
        "conn_cnt",
        "conn_cur",
        "conn_rate",
        "sess_cnt",
        "http_req_cnt",
    ]
    .map(|name| entry.get(name));
    assert_eq!(all, [1, 1, 1, 1, 3]);
    assert_eq!(entry.get("use"), 1);
    drop(client);
    until("conn_cur back to 0", || {
        let entry = proxy.cli().entry("fe", "127.0.0.1")?;
        (entry.get("conn_cur") == 0 && entry.get("use") == 0).then_some(())
    });
}

#[test]
fn request_trackers_count_requests_as_connections() {
    let server = Server::http();
    let proxy = site(&table("  http-request track-sc0 src"), "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    for _ in 0..3 {
        assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
    }
    let entry = until("the last request ends", || {
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .filter(|entry| entry.get("conn_cur") == 0)
    });
    let all = ["conn_cnt", "conn_rate", "sess_cnt", "http_req_cnt"].map(|name| entry.get(name));
    assert_eq!(all, [3, 3, 0, 3]);
}

#[test]
fn errors_are_the_clients_and_failures_the_servers() {
    let server = Server::http();
    let proxy = site(&table("  tcp-request connection track-sc0 src\n  http-request deny if { path /deny }\n  http-request return status 400 if { path /return }"), "", &server).start();
    let fe = proxy.addr("fe");
    let counts = || {
        let entry = proxy.cli().entry("fe", "127.0.0.1").expect("tracked");
        ["http_req_cnt", "http_err_cnt", "http_fail_cnt"].map(|name| entry.get(name))
    };
    let mut expected = [0, 0, 0];
    for (path, status, add) in [
        ("/", 200, [1, 0, 0]),
        ("/status/404", 404, [1, 1, 0]),
        ("/status/499", 499, [1, 1, 0]),
        ("/status/500", 500, [1, 0, 1]),
        ("/status/501", 501, [1, 0, 0]),
        ("/status/503", 503, [1, 0, 1]),
        ("/status/505", 505, [1, 0, 0]),
        ("/status/302", 302, [1, 0, 0]),
        ("/deny", 403, [1, 1, 0]),
        ("/return", 400, [1, 0, 0]),
    ] {
        assert_eq!(get(fe, path).map(|r| r.status), Ok(status), "{path}");
        for (sum, more) in expected.iter_mut().zip(add) {
            *sum += more;
        }
        until_true(&format!("counts are {expected:?} after {path}"), || {
            counts() == expected
        });
    }
    // A request that does not parse counts for the connection's tracker although no rule ran.
    assert_eq!(
        Client::connect(fe)
            .send("GET / HTTP/1.1\r\nBad Header: x\r\n\r\n")
            .response()
            .map(|r| r.status),
        Ok(400)
    );
    until("the malformed request counts", || {
        (counts() == [expected[0] + 1, expected[1] + 1, expected[2]]).then_some(())
    });
}

#[test]
fn a_server_that_does_not_answer_is_a_failure() {
    let server = Server::raw(|mut peer| {
        let _request = peer.request();
    });
    let proxy = site(&table("  http-request track-sc0 src"), "", &server).start();
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(502));
    until("it counts as a failure", || {
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .filter(|entry| entry.get("http_fail_cnt") == 1)
    });
}

#[test]
fn bytes_move_while_a_long_download_runs() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n";
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        peer.write(HEAD);
        peer.write(vec![b'x'; 400_000]);
        held.wait();
        peer.write(vec![b'x'; 100_000])
    });
    let proxy = site(
        &table("  option contstats\n  http-request track-sc0 src"),
        "",
        &server,
    )
    .start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    let live = || {
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .map_or(0, |entry| entry.get("bytes_out_cnt"))
    };
    if proxy.is_haproxy() {
        return; // counts at the end only: the weak spot this project mends
    }
    until("most of the bytes count before the end", || {
        (live() >= 400_000).then_some(())
    });
    gate.open();
    assert_eq!(client.response().map(|r| r.body.len()), Ok(500_000));
    until("all bytes count, once", || {
        (live() == 500_000 + HEAD.len() as i64).then_some(())
    });
}

#[test]
fn bytes_in_count_requests_and_their_bodies() {
    let server = Server::http();
    let proxy = site(&table("  http-request track-sc0 src"), "", &server).start();
    let head = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 50000\r\n\r\n";
    let mut client = Client::connect(proxy.addr("fe"));
    client.send(head).send(vec![b'y'; 50_000]);
    assert_eq!(client.response().map(|r| r.body.len()), Ok(50_000));
    until("head and body count", || {
        let entry = proxy.cli().entry("fe", "127.0.0.1")?;
        let counted = entry.get("bytes_in_cnt") - 50_000;
        // HAProxy counts the head in the form it keeps inside, a little longer or shorter than what came.
        let slack = if proxy.is_haproxy() { 30 } else { 0 };
        ((counted - head.len() as i64).abs() <= slack).then_some(())
    });
}

#[test]
fn conn_cur_returns_to_zero_after_every_kind_of_abort() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |request, peer| {
        if request.target == "/hang" {
            held.wait();
        }
        peer.serve("", request)
    });
    let rules = "  tcp-request connection track-sc0 src
  tcp-request content track-sc1 src table other
  tcp-request content reject if { src 127.0.0.9 }
  http-request track-sc2 src table third";
    let extra = "\nbackend other\n  stick-table type ip size 1k store conn_cur\nbackend third\n  stick-table type ip size 1k store conn_cur\n";
    let proxy = site(&table(rules), "", &server);
    let proxy = { proxy.append(extra) }.start();
    let fe = proxy.addr("fe");

    drop(Client::connect(fe)); // says nothing
    Client::connect(fe).send("GET / HT").leave(); // leaves inside the head
    Client::connect(fe)
        .send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        .leave(); // inside the body
    Client::connect(fe).get("/hang").leave(); // while the server thinks
    Client::connect(fe).get("/size/20000000").leave(); // inside the answer
    let _malformed = Client::connect(fe).send("nonsense\r\n\r\n").response();
    let _rejected = get_from(Ipv4Addr::new(127, 0, 0, 9), fe, "/");
    let mut idle = Client::connect(fe);
    assert_eq!(idle.get("/").response().map(|r| r.status), Ok(200));
    gate.open();
    drop(idle);

    until_true("every tracker is released", || {
        ["fe", "other", "third"].iter().all(|table| {
            let entries = proxy.cli().entries(table);
            entries
                .iter()
                .all(|entry| entry.get("conn_cur") == 0 && entry.get("use") == 0)
        })
    });
    assert!(
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .expect("tracked")
            .get("conn_cnt")
            >= 7
    );
}

#[test]
fn the_first_track_on_a_slot_wins() {
    if haproxy_lacks("sc0_key") {
        return;
    }
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  stick-table type string len 20 size 1k expire 1h store conn_cnt,http_req_cnt
  tcp-request connection track-sc0 src if { src 127.0.0.2 }
  http-request track-sc0 path
  http-request track-sc0 method
  http-request return status 200 hdr Key %[sc0_key] hdr Tracked %[sc0_tracked] hdr Other %[sc1_tracked]
",
    )
    .start();
    let fe = proxy.addr("fe");
    let answer = get(fe, "/a").expect("an answer");
    let headers = ["key", "tracked", "other"].map(|name| answer.header(name));
    assert_eq!(headers, [Some("/a"), Some("1"), Some("0")]);
    // The connection's slot beats the request's rules.
    let answer = get_from(Ipv4Addr::new(127, 0, 0, 2), fe, "/b").expect("an answer");
    assert_eq!(answer.header("key"), Some("127.0.0.2"));
    let keys: Vec<String> = proxy
        .cli()
        .entries("fe")
        .iter()
        .map(|entry| entry.key().to_owned())
        .collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
}

#[test]
fn keys_of_every_type_are_cast_and_shown() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request track-sc0 src table t_ip6
  http-request track-sc1 hdr(x-int) table t_int
  http-request track-sc2 hdr(x-str) table t_str
  http-request return status 200
frontend fe2
  bind 127.0.0.1:{{port:fe2}}
  http-request track-sc0 hdr(x-bin) table t_bin
  http-request track-sc1 hdr(x-ip) table t_ip
  http-request track-sc2 src table t_str
  http-request return status 200 hdr Tracked %[sc1_tracked]
backend t_ip6
  stick-table type ipv6 size 10 store conn_cnt
backend t_int
  stick-table type integer size 10 store conn_cnt
backend t_str
  stick-table type string len 8 size 10 store conn_cnt
backend t_bin
  stick-table type binary len 4 size 10 store conn_cnt
backend t_ip
  stick-table type ip size 10 store conn_cnt
",
    )
    .start();
    for (int, text) in [
        ("42", "short"),
        ("4294967297", "muchlongerthaneight"),
        ("-1", "a b"),
        ("abc", "short"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Int: {int}\r\nX-Str: {text}\r\n\r\n");
        assert_eq!(
            Client::connect(proxy.addr("fe"))
                .send(request)
                .response()
                .map(|r| r.status),
            Ok(200)
        );
    }
    let mut tracked = Vec::new();
    for (bin, ip) in [
        ("ab", "10.1.2.3"),
        ("abcdef", "::ffff:10.1.2.4"),
        ("abcd", "2001:db8::1"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Bin: {bin}\r\nX-Ip: {ip}\r\n\r\n");
        let answer = Client::connect(proxy.addr("fe2"))
            .send(request)
            .response()
            .expect("an answer");
        tracked.push(answer.header("tracked").map(str::to_owned));
    }
    let keys = |table: &str| {
        let entries = proxy.cli().entries(table);
        let mut keys: Vec<_> = entries
            .iter()
            .map(|e| (e.key().to_owned(), e.get("conn_cnt")))
            .collect();
        keys.sort();
        keys
    };
    let own = |list: &[(&str, i64)]| {
        list.iter()
            .map(|(key, count)| ((*key).to_owned(), *count))
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("t_ip6"), own(&[("::ffff:127.0.0.1", 4)]));
    assert_eq!(
        keys("t_int"),
        own(&[("0", 1), ("1", 1), ("42", 1), ("4294967295", 1)])
    );
    assert_eq!(
        keys("t_str"),
        own(&[("127.0.0.", 3), ("a b", 1), ("muchlong", 1), ("short", 2)])
    );
    assert_eq!(keys("t_bin"), own(&[("61620000", 1), ("61626364", 2)]));
    assert_eq!(keys("t_ip"), own(&[("10.1.2.3", 1)]));
    assert_eq!(
        tracked,
        ["1", "0", "0"].map(|t| Some(t.to_owned())),
        "text that is no IPv4 address has no key in an ip table"
    );
}

#[test]
fn a_full_table_evicts_or_with_nopurge_refuses_and_fails_open() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request track-sc0 path table purge
  http-request track-sc1 path table keep
  http-request return status 200 hdr Purge %[sc0_tracked] hdr Keep %[sc1_tracked] hdr Cnt %[table_cnt(keep)] hdr Avl %[table_avl(keep)] if !{ sc1_conn_cnt gt 100 }
backend purge
  stick-table type string len 20 size 3 expire 1h store conn_cnt
backend keep
  stick-table type string len 20 size 3 expire 1h nopurge store conn_cnt
",
    )
    .start();
    for (path, kept) in [
        ("/a", "1"),
        ("/b", "1"),
        ("/c", "1"),
        ("/d", "0"),
        ("/e", "0"),
        ("/a", "1"),
    ] {
        let answer = get(proxy.addr("fe"), path).expect("an answer");
        assert_eq!(answer.status, 200, "a full table fails open");
        assert_eq!(answer.header("keep"), Some(kept), "{path}");
        assert_eq!(answer.header("purge"), Some("1"), "{path}");
        // Entries age from the moment nobody holds them, which may be a moment after the answer.
        proxy.cli().released("purge");
    }
    let answer = get(proxy.addr("fe"), "/a").expect("an answer");
    assert_eq!(
        [answer.header("cnt"), answer.header("avl")],
        [Some("3"), Some("0")]
    );
    let mut kept: Vec<_> = proxy
        .cli()
        .entries("keep")
        .iter()
        .map(|e| e.key().to_owned())
        .collect();
    kept.sort();
    assert_eq!(kept, ["/a", "/b", "/c"]);
    let mut left: Vec<_> = proxy
        .cli()
        .entries("purge")
        .iter()
        .map(|e| e.key().to_owned())
        .collect();
    left.sort();
    assert_eq!(left.len(), 3, "size is reached exactly");
    if !proxy.is_haproxy() {
        // The oldest went first: a b c, then d (a goes), e (b goes), a (c goes).
        assert_eq!(left, ["/a", "/d", "/e"]);
    }
}

#[test]
fn entries_held_by_trackers_survive_a_full_table() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  stick-table type string len 20 size 2 expire 1h store conn_cnt
  tcp-request connection track-sc0 src
  http-request return status 200 hdr Tracked %[sc0_tracked]
",
    )
    .start();
    let fe = proxy.addr("fe");
    let from = |last| Ipv4Addr::new(127, 0, 0, last);
    let mut held: Vec<Client> = (2..4)
        .map(|last| Client::connect_from(from(last), fe))
        .collect();
    for client in &mut held {
        assert_eq!(
            client
                .get("/")
                .response()
                .map(|r| r.header("tracked") == Some("1")),
            Ok(true)
        );
    }
    let refused = get_from(from(9), fe, "/").expect("it fails open");
    assert_eq!(
        (refused.status, refused.header("tracked")),
        (200, Some("0"))
    );
    drop(held.pop());
    until("the freed entry can be evicted", || {
        get_from(from(9), fe, "/")
            .ok()
            .filter(|answer| answer.header("tracked") == Some("1"))
    });
    let keys: Vec<_> = proxy
        .cli()
        .entries("fe")
        .iter()
        .map(|e| e.key().to_owned())
        .collect();
    assert!(
        keys.contains(&"127.0.0.2".to_owned()),
        "the entry in use stayed: {keys:?}"
    );
}
