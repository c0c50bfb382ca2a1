//! A worker dies soon after it has taken over: who handed over to it shows its tables once more to the one in its place.

use std::time::{Duration, Instant};

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::server::Gate;
use cluster_tests::wait::until_true;
use cluster_tests::{Client, Server};
use rustix::process::Signal;

use crate::common::haproxy_lacks;
use crate::house::{self, HALF, House, MASTER, killed, serve_supervised, settled};
use crate::reload_tables::reload;
use crate::supervisor::{Load, edit, kill, master, worker, workers};

/// The file is edited wrongly while the one that serves dies: whoever starts when it is right again gets what is there.
#[test]
fn a_mistake_in_the_file_costs_no_table() {
    if haproxy_lacks("its tables go with the worker") {
        return;
    }
    let house = House::new("{{dir}}/handoff.sock", &MASTER);
    let _client = house.download();
    house.get(5);
    house.becomes("fe", "http_req_cnt", 6);
    let now = reload(&house.first);
    edit(&house.first, "global\n", "global\n  nonsense\n");
    kill(now, Signal::KILL);
    house.first.says_times(5, "Failed to load worker");
    edit(&house.first, "global\n  nonsense\n", "global\n");
    settled(&house.first, now);
    assert_eq!(house.value("fe", "http_req_cnt"), 6);
    house.becomes("conns", "conn_cur", 1);
}

/// Nothing holds the old worker but the doubt about its successor.
#[test]
fn what_a_reload_passed_on_outlives_the_worker_that_got_it() {
    if haproxy_lacks("loses its tables") {
        return;
    }
    assert!((0..5).any(|_| outlives()), "it stalls all the time");
}

/// A worker has proved itself after two seconds: nothing can be said where the machine stalls for so long.
const DOUBT: Duration = Duration::from_millis(1_500);

/// `false` when the machine stalled.
fn outlives() -> bool {
    let house = House::new("{{dir}}/handoff.sock", &MASTER);
    house.get(5);
    house.becomes("fe", "conn_cur", 0);
    let bytes = house.value("fe", "bytes_out_cnt");
    house.cli().ask("set server be/s1 weight 3");
    let mut begun = Instant::now();
    let mut now = reload(&house.first);
    // More than once, and with what the dead counted gone with it.
    for _ in 0..3 {
        house.get(1);
        kill(now, Signal::KILL);
        if begun.elapsed() > DOUBT {
            return false;
        }
        begun = Instant::now();
        now = settled(&house.first, now);
        assert_eq!(house.value("fe", "http_req_cnt"), 5);
        assert_eq!(house.value("fe", "gpc0"), 5);
        assert_eq!(house.value("fe", "bytes_out_cnt"), bytes);
        assert_eq!(house.cli().stat("fe", "FRONTEND", "req_tot"), "5");
        assert_eq!(house.cli().stat("be", "s1", "weight"), "3");
        house.becomes("fe", "conn_cur", 0);
    }
    house.first.says("has died; the one before it has shown");
    // Then the old one ends, and the next reload loses nothing.
    until_true("the old worker ends", || {
        house.first.stderr().contains("Former worker")
    });
    let last = reload(&house.first);
    assert_eq!(house.value("fe", "http_req_cnt"), 5);
    // Whoever took over from a process that is gone again has nobody to ask.
    until_true("the old worker ends", || {
        house.first.stderr().matches("Former worker").count() > 1
    });
    killed(&house.first, last);
    assert_eq!(house.value("fe", "http_req_cnt"), -1);
    true
}

/// Several workers drain: each counts what runs in it, once, whoever is taught by whom.
#[test]
fn workers_that_drain_count_on_in_the_one_that_was_taught_again() {
    if haproxy_lacks("loses its tables") {
        return;
    }
    let house = House::new("{{dir}}/handoff.sock", &MASTER);
    let mut now = house.serving(0);
    let mut clients = Vec::new();
    for i in 0..3 {
        clients.push(house.download());
        house.becomes("conns", "conn_cur", i + 1);
        house.get(3);
        now = reload(&house.first);
    }
    for _ in 0..2 {
        let mut lost = house.download();
        house.becomes("conns", "conn_cur", 4);
        now = killed(&house.first, now);
        assert!(lost.response().is_err(), "it was cut");
        house.becomes("conns", "conn_cur", 3);
        house.becomes("fe", "conn_cur", 3);
        house.becomes("fe", "http_req_cnt", 12);
        assert_eq!(house.value("conns", "conn_cnt"), 12);
    }
    drop(clients.remove(0));
    house.becomes("conns", "conn_cur", 2);
    house.completes(clients);
    house.becomes("conns", "conn_cur", 0);
    house.becomes("fe", "conn_cur", 0);
    // Two and a half answers, with their heads, once.
    let bytes = house.value("fe", "bytes_out_cnt") - 5 * HALF as i64;
    assert!((0..300).contains(&bytes), "{bytes} too many");
    assert_eq!(house.value("fe", "http_req_cnt"), 12);
}

/// The old worker has let go of what nobody needed any more: the next one begins with empty tables, but counts what runs there.
#[test]
fn what_runs_is_counted_when_the_tables_are_gone() {
    if haproxy_lacks("loses gauges") {
        return;
    }
    let house = House::new("{{dir}}/handoff.sock", &MASTER);
    let first = house.serving(0);
    let mut clients = Vec::new();
    for i in 0..3 {
        clients.push(house.download());
        house.becomes("conns", "conn_cur", i + 1);
    }
    house.cli().ask("set table fe key 10.0.0.1 data.gpc0 1");
    let mut now = first;
    for _ in 0..2 {
        now = reload(&house.first);
    }
    let there = || master(&house.first).ask(&format!("@!{first} show table fe"));
    until_true("it has let go of its tables", || {
        let shown = there();
        shown.contains("key=127.0.0.1") && !shown.contains("key=10.0.0.1")
    });
    until_true("nobody else has them", || workers(&house.first).len() == 2);
    for _ in 0..2 {
        now = killed(&house.first, now);
        house.becomes("conns", "conn_cur", 3);
        house.becomes("fe", "conn_cur", 3);
        assert!(house.cli().entry("fe", "10.0.0.1").is_none());
    }
    drop(clients.remove(0));
    house.becomes("conns", "conn_cur", 2);
    house.completes(clients);
    house.becomes("conns", "conn_cur", 0);
    house.becomes("fe", "conn_cur", 0);
    // What they still transferred: two halves, and perhaps some of the third.
    let bytes = house.value("fe", "bytes_out_cnt") - 2 * HALF as i64;
    assert!((0..=HALF as i64).contains(&bytes), "{bytes} too many");
    until_true("old workers end", || workers(&house.first).len() == 1);
}

/// The process before belongs to another supervisor, or to none.
#[test]
fn a_process_of_somebody_else_shows_its_tables_once_more() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    for kind in [&["-W"][..], &[]] {
        let house = House::new("{{dir}}/handoff.sock", kind);
        let socket = house.first.dir().join("handoff.sock");
        let first = house.serving(0);
        let mut client = house.download();
        house.get(5);
        house.becomes("fe", "http_req_cnt", 6);
        let second = house.next(&[&MASTER[..], &["-x", &socket.to_string_lossy()]].concat());
        let mut now = settled(&second, first);
        let load = Load::on(house.first.addr("fe"));
        load.moves();
        for _ in 0..2 {
            now = killed(&second, now);
            load.moves();
        }
        let (_, _) = load.finish();
        house.gate.open();
        assert!(client.response().is_ok());
        drop(client);
        house.becomes("conns", "conn_cur", 0);
        let count = house.value("fe", "http_req_cnt");
        assert!(count > 6, "{count}: {}", second.stderr());
    }
}

/// A node with peers: the new life learns from them what the dead one had told, and from the process before it what
/// nobody else knows. Nothing is counted twice.
#[test]
fn sums_over_nodes_stay_right_when_a_new_worker_dies() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(2).prepare();
    serve_supervised(&mut cluster, &[0, 1]);
    let mut tally = Tally::default();
    for round in 0..3 {
        for index in 0..2 {
            let node = cluster.node(index);
            node.hit("same", 10, &mut tally);
            node.hit(&format!("of{index}"), 3, &mut tally);
            node.hit(&format!("round{round}"), 2, &mut tally);
        }
        cluster.settled(&Expected::of(&tally));
        let node = cluster.node(0);
        let serving = reload(node.proxy());
        node.hit("same", 4, &mut tally);
        // The peer has heard of it.
        cluster.settled(&Expected::of(&tally));
        killed(cluster.node(0).proxy(), serving);
        cluster.settled(&Expected::of(&tally));
    }
}

/// What is left of a node beside the worker that dies is not its direct predecessor: that one has ended. What runs there counts on,
/// at both nodes.
#[test]
fn an_older_worker_counts_on_in_sums_over_nodes() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let gate = Gate::default();
    let server = Server::half_a_download(&gate);
    let mut cluster = Spec::of(2).append(&house::downloads(&server)).prepare();
    serve_supervised(&mut cluster, &[0]);
    let sums = |name| {
        [0, 1].map(|index| {
            let entry = cluster.node(index).proxy().cli().entry("downs", "down");
            entry.map_or(-1, |entry| entry.get(name))
        })
    };
    let proxy = cluster.node(0).proxy();
    let mut client = Client::connect_unix(&proxy.dir().join("down.sock"));
    client.get("/long");
    until_true("half of it is known", || {
        sums("conn_cur") == [1; 2] && sums("bytes_out_cnt").iter().all(|n| *n > 100_000)
    });
    let half = sums("bytes_out_cnt");
    assert_eq!(half[0], half[1]);
    let first = worker(proxy);
    let mut serving = first;
    for _ in 0..2 {
        serving = reload(proxy);
    }
    until_true("the one between has ended", || workers(proxy).len() == 2);
    for _ in 0..2 {
        serving = killed(proxy, serving);
        until_true("what runs counts", || sums("conn_cur") == [1; 2]);
    }
    assert!(workers(proxy).contains(&first));
    gate.open();
    let answer = client.response().expect("the whole answer");
    assert_eq!(answer.body.len(), 200_000);
    drop(client);
    until_true("the rest of it is counted", || {
        sums("conn_cur") == [0; 2] && sums("bytes_out_cnt") == half.map(|half| half + 100_000)
    });
    assert_eq!(sums("http_req_cnt"), [1; 2]);
}
