//! Nodes that are stopped cleanly and started again: what they counted stays, to the last event.

use std::time::{Duration, Instant};

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::{Done, Tally, Traffic};
use cluster_tests::locate::{Kind, kind_under_test};
use cluster_tests::tools;
use cluster_tests::wait::{until, until_true};
use rustix::process::Signal;

/// How often a process is replaced.
const ROUNDS: usize = 4;
/// Nobody need wait for a lease to end.
const SOON: Duration = Duration::from_secs(4);

/// One request at a time: what is not answered has not been read.
fn traffic(cluster: &Cluster, node: usize) -> Traffic {
    let own = format!("own{node}");
    let entrance = cluster.node(node).entrance();
    Traffic::start(entrance, &[&own, "all"], 1, Duration::from_millis(1))
}

fn count(cluster: &Cluster, node: usize, key: &str) -> i64 {
    cluster.node(node).value(key, "gpc0")
}

/// Three nodes under traffic, each stopped (SIGUSR1) and started five times.
#[test]
fn every_node_in_turn_is_restarted_under_traffic() {
    let mut cluster = Spec::of(3).peers("  learn-timeout 10m").start();
    let traffics: Vec<Traffic> = (0..3).map(|node| traffic(&cluster, node)).collect();
    for _ in 0..5 {
        for node in 0..3 {
            let key = format!("own{node}");
            let before = count(&cluster, node, &key);
            until_true("traffic flows", || {
                count(&cluster, node, &key) >= before + 10
            });
            cluster.node_mut(node).stop();
            // The very first thing that the next process shows is everything.
            let other = (node + 1) % 3;
            let kept = count(&cluster, other, &key);
            assert!(kept >= before + 10, "{kept} of more than {before}");
            cluster.node_mut(node).start();
            let taught = count(&cluster, node, &key);
            assert!(taught >= kept, "it accepts with {taught} of {kept}");
        }
    }
    let mut tally = Tally::default();
    for traffic in traffics {
        let Done { answered, .. } = traffic.stop();
        tally.merge(&answered);
    }
    cluster.settled(&Expected::of(&tally));
    if kind_under_test() == Kind::Haproxy {
        return;
    }
    // Processes go on under the lineage of one before, unless it took too long to prove that they may.
    let goes_on = |node: usize| {
        cluster
            .node(node)
            .proxy()
            .stderr()
            .contains("continues lineage")
    };
    let origins = cluster.node(0).ask("show table t key all origins");
    let shares = origins.lines().filter(|l| l.contains("lineage=")).count();
    assert!(
        shares < 18 && (shares > 3 || (0..3).all(goes_on)),
        "{origins}"
    );
}

/// A process is replaced by one that was started beside it, and learned while it went on: the last that it counted reaches
/// everybody, that one too, and at once.
#[test]
fn a_replaced_process_tells_its_successor_the_last_of_it() {
    if kind_under_test() == Kind::Haproxy {
        return;
    }
    // A path can be taken over while the process before still uses it; a port cannot.
    let dir = tempfile::tempdir().expect("a directory");
    let mut cluster = Spec::of(3).prepare();
    let ports: Vec<u16> = (0..3).map(|node| cluster.node(node).peers_port()).collect();
    for node in 0..3 {
        cluster.node_mut(node).reconfigure(|mut config| {
            for (of, port) in ports.iter().enumerate() {
                let path = format!("unix@{}/{of}", dir.path().display());
                config = config.replace(&format!("127.0.0.1:{port}"), &path);
            }
            config
        });
    }
    (0..3).for_each(|node| cluster.node_mut(node).spawn());
    (0..3).for_each(|node| cluster.node_mut(node).ready());
    let steady: Vec<Traffic> = (0..2).map(|node| traffic(&cluster, node)).collect();
    let mut tally = Tally::default();
    // A machine that stalls is late once.
    let mut late = 0;
    for _ in 0..ROUNDS {
        let own = traffic(&cluster, 2);
        let before = count(&cluster, 2, "own2");
        until_true("traffic flows", || count(&cluster, 2, "own2") > before + 10);
        let mut old = cluster.node_mut(2).replace();
        old.wait();
        tally.merge(&own.stop().answered);
        let sum = tally.get("own2") as i64;
        let begun = Instant::now();
        until_true("everybody has the last of it", || {
            (0..3).all(|node| count(&cluster, node, "own2") == sum)
        });
        late += usize::from(begun.elapsed() > SOON);
    }
    assert!(late < 2, "late in {late} of {ROUNDS} rounds");
    for traffic in steady {
        tally.merge(&traffic.stop().answered);
    }
    cluster.settled(&Expected::of(&tally));
}

/// A hard stop (SIGTERM) right behind the last answer: that is counted too, and connections that were open are not
/// counted by anybody a moment later.
#[test]
fn a_hard_stop_tells_the_last_of_it() {
    if kind_under_test() == Kind::Haproxy {
        tools::skip("it says nothing to its peers");
        return;
    }
    let held = "frontend held\n  bind 127.0.0.1:{{port:held}}\n  timeout client 1h\n  \
                tcp-request connection track-sc0 str(x) table t\n  http-request return status 200\n";
    let mut cluster = Spec::of(3)
        .append(held)
        .peers("  learn-timeout 10m")
        .start();
    let mut tally = Tally::default();
    for round in 0..3 {
        let victim = round % 3;
        let open = std::net::TcpStream::connect(cluster.node(victim).proxy().addr("held"));
        let open = open.expect("the frontend accepts");
        let others = [(victim + 1) % 3, (victim + 2) % 3];
        until_true("the others count its connection", || {
            others
                .iter()
                .all(|&node| cluster.node(node).value("x", "conn_cur") == 1)
        });
        cluster.node(victim).hit("a", 500, &mut tally);
        let before = [0, 1, 2].map(|node| cluster.node(node).proxy().stderr().len());
        let said = cluster.node_mut(victim).end_with(Signal::TERM);
        let complains = |said: &str| {
            let mut lines = said.lines();
            lines.any(|l| l.starts_with("[WARNING]") && l.contains("peers p:"))
        };
        assert!(!complains(&said[before[victim]..]), "{said}");
        for node in others {
            let values = ["http_req_cnt", "gpc0"].map(|c| cluster.node(node).value("a", c));
            assert_eq!(values, [tally.get("a") as i64; 2], "at node{node}");
            // It has said goodbye, so this is not what a lease ends.
            let goodbye = format!("session from peer node{victim} ended: peer stops");
            cluster.node(node).proxy().says(&goodbye);
            until_true("its connection is not counted", || {
                cluster.node(node).value("x", "conn_cur") == 0
            });
            let said = until("it is missed, as one who has stopped", || {
                let said = cluster.node(node).proxy().stderr()[before[node]..].to_owned();
                let missed = format!("peer node{victim} has stopped, and is not back yet: ");
                said.contains(&missed).then_some(said)
            });
            assert!(!complains(&said), "{said}");
        }
        drop(open);
        cluster.node_mut(victim).start();
        assert_eq!(
            cluster.node(victim).value("a", "gpc0"),
            tally.get("a") as i64
        );
        assert_eq!(cluster.node(victim).value("x", "conn_cur"), 0);
    }
}

/// Nobody is there to keep what was counted: that is said.
#[test]
fn who_stops_alone_says_what_is_lost() {
    if kind_under_test() == Kind::Haproxy {
        tools::skip("it says nothing of its peers");
        return;
    }
    let mut cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 5, &mut tally);
    cluster.settled(&Expected::of(&tally));
    cluster.node_mut(1).kill();
    cluster.node(0).hit("a", 5, &mut tally);
    let said = cluster.node_mut(0).end_with(Signal::USR1);
    assert!(
        said.contains("stops before node1 (up to ") && said.contains("and no other peer has it"),
        "{said}"
    );
}
