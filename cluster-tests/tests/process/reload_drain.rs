//! How old processes end: what keeps them, what they keep, and for how long.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cluster_tests::server::Gate;
use cluster_tests::wait::{observe_for, until_true};
use cluster_tests::{Client, Launch, Proxy, Server, get, ports};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::reload_tables::{becomes, reload, value};
use crate::supervisor::{Load, OK, edit, master, supervised, worker, workers};

/// A server that writes so many pieces of 1,000 bytes, each after the gate has opened once more.
fn pieces(many: usize, gate: &Gate) -> Server {
    let held = gate.clone();
    Server::with(move |_, peer| {
        peer.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            many * 1_000
        ));
        for _ in 0..many {
            held.wait();
            peer.write(vec![b'x'; 1_000]);
        }
        true
    })
}

const COUNTED: &str = "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  stick-table type ip size 10k expire 10m store conn_cnt,conn_cur,http_req_cnt,bytes_out_cnt
  tcp-request connection track-sc0 src
  http-request track-sc1 url_param(k) table many
  http-request return status 200 content-type text/plain string one if { path / }
  default_backend be
backend many
  stick-table type integer size 100k expire 10m store http_req_cnt,conn_cur
backend be
  server s1 {{s1}}
";

fn counted(server: &Server, global: &str) -> Proxy {
    let head = HEAD.replacen("global\n", &format!("global\n{global}"), 1);
    Launch::new(&format!("{head}{COUNTED}"))
        .set("s1", server.addr())
        .arg("-W")
        .arg("-S")
        .arg("{{dir}}/master.sock")
        .arg("-f")
        .arg("test.cfg")
        .start()
}

/// Entries that a worker, also one that drains, has in a table.
fn used(proxy: &Proxy, pid: u32, table: &str) -> u32 {
    let said = master(proxy).ask(&format!("@!{pid} show table {table}"));
    let head = said.lines().next().unwrap_or_default();
    let number = head.rsplit("used:").next().unwrap_or_default();
    number.trim().parse().unwrap_or_else(|_| panic!("{said}"))
}

#[test]
fn fifty_reloads_during_one_download_count_it_once() {
    if haproxy_lacks("loses counts without peers") {
        return;
    }
    const RELOADS: usize = 50;
    let gate = Gate::default();
    let server = pieces(RELOADS, &gate);
    let proxy = counted(&server, "  mworker-max-reloads 100\n");
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/long?k=1");
    until_true("the download runs", || server.requests().len() == 1);
    let first = worker(&proxy);
    let mut asked = 1;
    for round in 0..RELOADS {
        reload(&proxy);
        gate.open_once();
        assert_eq!(value(&proxy, "fe", "conn_cur"), 1, "after reload {round}");
        if round % 10 == 9 {
            asked += 1;
            assert_eq!(get(proxy.addr("fe"), "/?k=2").map(|r| r.status), Ok(200));
            becomes(&proxy, "fe", "conn_cur", 1);
        }
    }
    assert!(workers(&proxy).contains(&first));
    let answer = client.response().expect("the whole answer");
    assert_eq!(answer.body.len(), RELOADS * 1_000);
    drop(client);
    until_true("old workers end", || workers(&proxy).len() == 1);
    becomes(&proxy, "fe", "conn_cur", 0);
    assert_eq!(value(&proxy, "fe", "conn_cnt"), asked);
    let all = value(&proxy, "fe", "bytes_out_cnt");
    assert!((50_000..51_500).contains(&all), "{all}");
    let entry = |key| proxy.cli().entry("many", key).expect("an entry");
    assert_eq!(entry("1").get("http_req_cnt"), 1);
    assert_eq!(entry("1").get("conn_cur"), 0);
    assert_eq!(entry("2").get("http_req_cnt"), asked - 1);
}

/// For a moment both accept; that is over when the reload is reported.
#[test]
fn after_a_reload_only_the_new_configuration_serves() {
    if haproxy_lacks("says nothing about it") {
        return;
    }
    let proxy = supervised(HEAD).start();
    let load = Load::on(proxy.addr("fe"));
    let mut before = "string one".to_owned();
    for round in 0..15 {
        let next = format!("string round{round}");
        edit(&proxy, &before, &next);
        reload(&proxy);
        for _ in 0..5 {
            let answer = get(proxy.addr("fe"), "/").expect("an answer");
            assert_eq!(answer.text(), format!("round{round}"));
        }
        before = next;
    }
    assert_eq!(load.failures(), 0);
}

/// A worker whose successor has been succeeded needs its tables for nothing but its own connections.
#[test]
fn old_workers_keep_only_what_their_connections_need() {
    if haproxy_lacks("keeps everything") {
        return;
    }
    const KEYS: u32 = 300;
    let gate = Gate::default();
    let server = pieces(1, &gate);
    let proxy = counted(&server, "");
    let mut idle = Client::connect(proxy.addr("fe"));
    for key in 0..KEYS {
        idle.get(&format!("/?k={key}"));
        assert_eq!(idle.response().map(|r| r.status), Ok(200));
    }
    let mut long = Client::connect(proxy.addr("fe"));
    long.get("/long?k=7");
    until_true("the download runs", || server.requests().len() == 1);
    let first = worker(&proxy);
    for _ in 0..2 {
        reload(&proxy);
    }
    // Rules of a request that may come yet can ask for any entry.
    observe_for(Duration::from_millis(1_500));
    assert_eq!(used(&proxy, first, "many"), KEYS);
    assert!(idle.get("/?k=8").response().is_ok_and(|r| r.closes()));
    // No other request will: the tracked key stays, and where the client comes from.
    until_true("the rest is let go of", || used(&proxy, first, "many") == 1);
    until_true("of the client's own, too", || {
        used(&proxy, first, "fe") == 1
    });
    assert_eq!(used(&proxy, worker(&proxy), "many"), KEYS);
    reload(&proxy);
    becomes(&proxy, "fe", "conn_cur", 1);
    gate.open();
    let answer = long.response().expect("the whole answer");
    assert_eq!(answer.body.len(), 1_000);
    drop(long);
    until_true("old workers end", || workers(&proxy).len() == 1);
    let entry = |key| proxy.cli().entry("many", key).expect("an entry");
    for (key, count) in [("7", 2), ("8", 2), ("9", 1)] {
        assert_eq!(entry(key).get("http_req_cnt"), count, "key {key}");
        assert_eq!(entry(key).get("conn_cur"), 0, "key {key}");
    }
    becomes(&proxy, "fe", "conn_cur", 0);
    assert_eq!(
        value(&proxy, "fe", "http_req_cnt"),
        i64::from(KEYS) + 2,
        "{}",
        proxy.stderr()
    );
}

#[test]
fn idle_connections_end_within_the_time_they_are_spread_over() {
    if haproxy_lacks("closes idle connections at once where an answer has been given") {
        return;
    }
    let head = HEAD.replacen("global\n", "global\n  close-spread-time 400ms\n", 1);
    let proxy = supervised(&head).start();
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(proxy.addr("fe"))).collect();
    for client in &mut clients {
        assert!(client.get("/").response().is_ok_and(|r| !r.closes()));
    }
    reload(&proxy);
    for client in &mut clients {
        until_true("it is closed", || client.is_closed());
    }
    until_true("the old worker ends", || workers(&proxy).len() == 1);

    // The time is long: nobody is hurried by the end of the service either.
    edit(&proxy, "close-spread-time 400ms", "close-spread-time 10h");
    reload(&proxy);
    let mut client = Client::connect(proxy.addr("fe"));
    assert!(client.get("/").response().is_ok_and(|r| !r.closes()));
    proxy.signal(Signal::USR1);
    let port = proxy.addr("fe").port();
    until_true("nobody listens any more", || !ports::is_listening(port));
    observe_for(Duration::from_millis(1_500));
    assert!(client.get("/").response().is_ok_and(|r| r.closes()));
}

#[test]
fn a_grace_goes_before_a_soft_stop_and_not_before_a_reload() {
    if haproxy_lacks("has forgotten what it means") {
        return;
    }
    let refused = |at: SocketAddr| TcpStream::connect(at).is_err();
    for grace in ["10h", "300ms"] {
        let head = HEAD.replacen("global\n", &format!("global\n  grace {grace}\n"), 1);
        let mut proxy = supervised(&head).start();
        let fe = proxy.addr("fe");
        let before = worker(&proxy);
        reload(&proxy);
        until_true("the old worker ends at once", || {
            workers(&proxy) == [worker(&proxy)].into()
        });
        assert_ne!(worker(&proxy), before);
        proxy.signal(Signal::USR1);
        if grace == "10h" {
            observe_for(Duration::from_millis(500));
            let mut client = Client::connect(fe);
            assert!(client.get("/").response().is_ok_and(|r| !r.closes()));
            // Nothing else waits for it.
            let said = proxy.ask("show sess");
            assert!(!said.contains("Unknown"), "{said}");
            proxy.signal(Signal::TERM);
        }
        assert!(proxy.wait().success());
        assert!(refused(fe));
    }
}

/// The bind of one frontend moves to another port while both of its sides are busy.
#[test]
fn a_bind_moves_under_load() {
    if haproxy_lacks("resets keep-alive connections") {
        return;
    }
    let other = ports::Port::claim();
    let moved = SocketAddr::from(([127, 0, 0, 1], other.number()));
    let more = "
frontend moves
  bind 127.0.0.1:{{port:from}}
  http-request return status 200 content-type text/plain string two
";
    let config = format!("{HEAD}{OK}{more}");
    let proxy = Launch::new(&config)
        .arg("-W")
        .arg("-S")
        .arg("{{dir}}/master.sock")
        .arg("-f")
        .arg("test.cfg")
        .start();
    let load = Load::on(proxy.addr("fe"));
    let mut at = proxy.addr("from");
    for to in [moved, at] {
        let mut kept: Vec<Client> = (0..20).map(|_| Client::connect(at)).collect();
        for client in &mut kept {
            assert!(client.get("/").response().is_ok_and(|r| r.text() == "two"));
        }
        let mut fresh: Vec<Client> = (0..20).map(|_| Client::connect(at)).collect();
        edit(&proxy, &format!("bind {at}"), &format!("bind {to}"));
        reload(&proxy);
        assert_eq!(get(to, "/").map(|r| r.text()), Ok("two".to_owned()));
        // Whoever had connected is served.
        for client in kept.iter_mut().chain(&mut fresh) {
            let answer = client.get("/").response().expect("an answer");
            assert!(answer.text() == "two" && answer.closes());
        }
        until_true("the old port refuses", || TcpStream::connect(at).is_err());
        load.moves();
        at = to;
    }
    assert_eq!(load.failures(), 0);
    until_true("old workers end", || workers(&proxy).len() == 1);
}
