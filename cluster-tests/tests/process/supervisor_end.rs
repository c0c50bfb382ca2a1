//! Workers that do not end when they should, and some that have ended and do not look so.

use std::time::{Duration, Instant};

use cluster_tests::cluster::Spec;
use cluster_tests::server::Gate;
use cluster_tests::tools::lacks_as_root;
use cluster_tests::wait::{PATIENCE, observe_for, until, until_true, until_within};
use cluster_tests::{Client, Launch, Server, get};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};

use crate::common::{HEAD, alive, haproxy_lacks};
use crate::house::{self, serve_supervised};
use crate::reload_tables::reload;
use crate::supervisor::{kill, master, supervised, worker, workers};

#[test]
fn a_second_order_ends_a_frozen_worker() {
    if haproxy_lacks("waits for ever") {
        return;
    }
    // The same within a second is the same order. Nothing can be said where the machine stalls for as long.
    let (mut proxy, first) = until("two orders come at once", || {
        let mut proxy = supervised(HEAD).start();
        let first = worker(&proxy);
        kill(first, Signal::STOP);
        let begun = Instant::now();
        proxy.signal(Signal::TERM);
        proxy.signal(Signal::TERM);
        observe_for(Duration::from_millis(300));
        let goes_on = proxy.try_wait().is_none();
        let stalled = begun.elapsed() > Duration::from_millis(900);
        assert!(stalled || goes_on, "{}", proxy.stderr());
        goes_on.then_some((proxy, first))
    });
    let ended = until_within(PATIENCE, || {
        let ended = proxy.try_wait();
        if ended.is_none() {
            proxy.signal(Signal::TERM);
        }
        ended
    });
    let status = ended.expect("the second one ends it");
    assert_eq!(status.code(), Some(0), "{}", proxy.stderr());
    let said = proxy.stderr();
    assert!(
        said.contains(&format!("Worker ({first}) does not end: killed.")),
        "{said}"
    );
}

/// Whoever holds a dead worker's end of the channel does not make it look alive.
#[test]
fn the_end_of_a_process_is_its_exit_status() {
    if haproxy_lacks("this channel") {
        return;
    }
    let mut proxy = supervised(HEAD).start();
    for last in [false, true] {
        let pid = worker(&proxy);
        let process = Pid::from_raw(pid as i32).expect("a pid");
        let process = pidfd_open(process, PidfdFlags::empty()).expect("it lives");
        let held = match pidfd_getfd(process, 0, PidfdGetfdFlags::empty()) {
            Ok(held) => held,
            Err(e) => return lacks_as_root(&format!("no descriptors of other processes: {e}")),
        };
        if last {
            proxy.signal(Signal::USR1);
            assert_eq!(proxy.wait().code(), Some(0));
        } else {
            kill(pid, Signal::KILL);
            until_true("another one serves", || worker(&proxy) != pid);
            assert_eq!(get(proxy.addr("fe"), "/").map(|a| a.status), Ok(200));
            until_true("it is gone", || !workers(&proxy).contains(&pid));
        }
        drop(held);
    }
}

/// Several workers have something to finish when everything is to end at once: what they had sent is counted, and known to the
/// peer.
#[test]
fn workers_that_drain_end_with_the_others() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    const MANY: i64 = 3;
    let gate = Gate::default();
    let server = Server::half_a_download(&gate);
    let mut cluster = Spec::of(2).append(&house::downloads(&server)).prepare();
    serve_supervised(&mut cluster, &[0]);
    let entry = |name| {
        let entry = cluster.node(1).proxy().cli().entry("downs", "down");
        entry.map_or(-1, |entry| entry.get(name))
    };
    let mut clients = Vec::new();
    for many in 1..=MANY {
        let path = cluster.node(0).proxy().dir().join("down.sock");
        let mut client = Client::connect_unix(&path);
        client.get("/long");
        clients.push(client);
        until_true("the peer hears of it", || {
            entry("conn_cur") == many && entry("bytes_out_cnt") > many * 100_000
        });
        reload(cluster.node(0).proxy());
    }
    let bytes = entry("bytes_out_cnt");
    let all = workers(cluster.node(0).proxy());
    assert_eq!(
        all.len() as i64,
        MANY + 1,
        "{}",
        master(cluster.node(0).proxy()).ask("show proc")
    );
    let said = cluster.node_mut(0).end_with(Signal::TERM);
    assert!(said.contains("All workers exited"), "{said}");
    assert!(!said.contains("does not end"), "{said}");
    for pid in all {
        // Whoever has ended may wait for whoever adopted it.
        assert!(!alive(pid), "{pid}");
    }
    for mut client in clients {
        assert!(client.response().is_err(), "it was cut");
    }
    let entry = |name| {
        let entry = cluster.node(1).proxy().cli().entry("downs", "down");
        entry.map_or(-1, |entry| entry.get(name))
    };
    until_true("nothing is open any more", || entry("conn_cur") == 0);
    assert_eq!(entry("http_req_cnt"), MANY);
    assert!(entry("bytes_out_cnt") >= bytes);
}

/// Signals that ask for room reach whoever serves. One that drains ends as it would without them.
#[test]
fn pauses_do_not_keep_workers_that_drain() {
    if haproxy_lacks("this text") {
        return;
    }
    let gate = Gate::default();
    let server = Server::half_a_download(&gate);
    for (at, pause) in [Signal::TTOU, Signal::TTIN].into_iter().enumerate() {
        let head = format!(
            "{HEAD}\nlisten down\n  bind 127.0.0.1:{{{{port:down}}}}\n  server s1 {}\n",
            server.addr()
        );
        let mut proxy = supervised(&head).start();
        let first = worker(&proxy);
        let mut client = Client::connect(proxy.addr("down"));
        client.get("/long");
        until_true("it is asked for", || server.requests().len() > at);
        let said = master(&proxy).ask("reload");
        assert!(said.starts_with("Success=1\n"), "{said}");
        assert_eq!(workers(&proxy).len(), 2);
        proxy.signal(pause);
        kill(first, pause);
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.wait().code(), Some(0));
        let said = proxy.stderr();
        assert!(!said.contains("does not end"), "{said}");
    }
}

/// A new worker that is stopped before it serves is given up; a reload that was asked for meanwhile is another one.
#[test]
fn a_new_worker_that_is_stopped_is_given_up() {
    if haproxy_lacks("waits for it") {
        return;
    }
    let body = "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request return status 200 content-type text/plain file {{dir}}/body
";
    let config = format!("{HEAD}{body}");
    let proxy = Launch::new(&config)
        .file("body", "one")
        .supervised()
        .start();
    let says = || get(proxy.addr("fe"), "/").map(|answer| answer.text());
    let first = worker(&proxy);
    // It will wait for somebody to write to this.
    let path = proxy.dir().join("body");
    std::fs::remove_file(&path).expect("a file");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
    let ask = || master(&proxy).ask("reload");
    std::thread::scope(|scope| {
        let fails = scope.spawn(ask);
        let new = until("another worker starts", || {
            let all = format!("/proc/{0}/task/{0}/children", proxy.pid());
            let all = std::fs::read_to_string(all).ok()?;
            let mut all = all.split_whitespace().filter_map(|pid| pid.parse().ok());
            let new = all.find(|pid| *pid != first)?;
            // While it is not executed yet, its parent waits for that.
            let line = std::fs::read_to_string(format!("/proc/{new}/cmdline")).ok()?;
            line.contains("--worker").then_some(new)
        });
        kill(new, Signal::STOP);
        std::fs::remove_file(&path).expect("a pipe");
        std::fs::write(&path, "two").expect("a file");
        let goes_well = scope.spawn(ask);
        assert_eq!(says(), Ok("one".into()));
        let said = fails.join().expect("an answer");
        assert!(said.starts_with("Success=0\n"), "{said}");
        let why = format!("worker ({new}) was stopped by signal 19 for 5 s");
        assert!(said.contains(&why), "{said}");
        let said = goes_well.join().expect("an answer");
        assert!(said.starts_with("Success=1\n"), "{said}");
    });
    assert_eq!(says(), Ok("two".into()));
}
