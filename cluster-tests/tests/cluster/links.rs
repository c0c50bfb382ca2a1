//! Links that stall, break, reorder and come back.

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::{Tally, Traffic};
use cluster_tests::netns::Net;
use cluster_tests::ports::Port;
use cluster_tests::relay::Relay;
use cluster_tests::wait::{until_true, until_within};

const PAUSE: Duration = Duration::from_millis(3);

/// Traffic on all nodes, for keys all of them count and one of each node's own, while `during` runs; then the sums are
/// exact.
#[track_caller]
fn exact_after(cluster: &mut Cluster, tally: &mut Tally, during: impl FnOnce(&mut Cluster)) {
    let running: Vec<Traffic> = (0..cluster.len())
        .map(|node| {
            let own = format!("own{node}");
            Traffic::start(cluster.node(node).entrance(), &["a", "b", &own], 4, PAUSE)
        })
        .collect();
    during(cluster);
    for traffic in running {
        let done = traffic.stop();
        assert_eq!(done.doubtful.total(), 0, "a request was not answered");
        tally.merge(&done.answered);
    }
    cluster.settled(&Expected::of(tally));
}

/// Lets traffic go on until every node has counted that many more of its own.
fn let_pass(cluster: &Cluster, more: i64) {
    let own = |node: usize| cluster.node(node).value(&format!("own{node}"), "gpc0");
    let before: Vec<i64> = (0..cluster.len()).map(own).collect();
    until_true("traffic goes on", || {
        (0..cluster.len()).all(|node| own(node) >= before[node] + more)
    });
}

/// What one link delivers late overtakes and is overtaken by what others deliver.
#[test]
fn what_arrives_late_and_out_of_order_changes_nothing() {
    let mut cluster = Spec::of(3).relayed().start();
    let mut tally = Tally::default();
    for from in 0..3 {
        exact_after(&mut cluster, &mut tally, |cluster| {
            let (one, other) = ((from + 1) % 3, (from + 2) % 3);
            cluster.relay(from, one).hold();
            let_pass(cluster, 40);
            cluster.relay(other, one).hold();
            cluster.relay(from, one).release();
            let_pass(cluster, 40);
            cluster.relay(other, one).release();
        });
    }
}

/// Connections break again and again in the middle of traffic.
#[test]
fn links_that_break_again_and_again() {
    let mut cluster = Spec::of(3).relayed().start();
    let mut tally = Tally::default();
    exact_after(&mut cluster, &mut tally, |cluster| {
        for _ in 0..5 {
            cluster.relays().for_each(Relay::hang_up);
            let_pass(cluster, 20);
        }
    });
}

/// Both halves count while nothing passes between them, in whatever way nothing passes.
#[test]
fn both_sides_of_a_cut_count() {
    let mut cluster = Spec::of(4).relayed().start();
    let mut tally = Tally::default();
    let across = |cluster: &Cluster, what: fn(&Relay)| {
        for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            cluster.between(a, b).into_iter().for_each(what);
        }
    };
    exact_after(&mut cluster, &mut tally, |cluster| {
        let_pass(cluster, 8);
        across(cluster, Relay::cut);
        let_pass(cluster, 60);
        across(cluster, Relay::heal);
    });
}

/// Packets are lost between two halves for longer than a lease, connection attempts included.
#[test]
fn both_sides_of_a_partition_count() {
    if !Net::possible() {
        return;
    }
    let mut cluster = Spec::of(3).isolated().peers("  allow-plaintext").start();
    let mut tally = Tally::default();
    cluster.node(2).hit("before", 5, &mut tally);
    cluster.settled(&Expected::of(&tally));
    exact_after(&mut cluster, &mut tally, |cluster| {
        cluster.net().split(&[0], &[1, 2]);
        // Long enough for sessions to be given up, not merely for a few packets to be sent again.
        let given_up = until_within(Duration::from_secs(7), || None::<()>);
        assert_eq!(given_up, None);
        cluster.net().heal();
    });
}

/// A node that can speak and not hear: its peers see its counts or will, and nothing is counted twice.
#[test]
fn a_node_that_hears_nobody() {
    if !Net::possible() {
        return;
    }
    let mut cluster = Spec::of(3).isolated().peers("  allow-plaintext").start();
    let mut tally = Tally::default();
    exact_after(&mut cluster, &mut tally, |cluster| {
        cluster.net().deafen(0, 1);
        cluster.net().deafen(0, 2);
        let_pass(cluster, 200);
        cluster.net().heal();
    });
}

/// A link that never works: the third node does not make up for it (each teaches its own), but nothing breaks either, and
/// when it is there at last the sums are exact.
#[test]
fn a_link_that_comes_late() {
    let mut cluster = Spec::of(3).relayed().prepare();
    let mut tally = Tally::default();
    cluster.between(0, 1).into_iter().for_each(Relay::cut);
    (0..3).for_each(|node| cluster.node_mut(node).spawn());
    (0..3).for_each(|node| cluster.node_mut(node).ready());
    exact_after(&mut cluster, &mut tally, |cluster| {
        let_pass(cluster, 40);
        cluster.between(0, 1).into_iter().for_each(Relay::heal);
    });
}

/// One node can be dialed and cannot dial: behind address translation, or a firewall. It pushes on the other's connection, and
/// nothing is different for anybody.
#[test]
fn one_connection_is_enough() {
    for listed in [true, false] {
        let mut spec = Spec::of(2)
            .peers("  learn-timeout 10m")
            .global("  admin bind unix@{{dir}}/admin.sock\n");
        if !listed {
            spec = spec.unaware(1, 0);
        }
        let mut cluster = spec.prepare();
        let nobody = Port::claim(); // where nobody listens
        let port = cluster.node(0).peers_port();
        cluster.node_mut(1).reconfigure(|config| {
            let theirs = format!("server node0 127.0.0.1:{port} ");
            let closed = format!("server node0 127.0.0.1:{} ", nobody.number());
            assert_eq!(config.contains(&theirs), listed);
            config.replace(&theirs, &closed)
        });
        let mut tally = Tally::default();
        let hit = |cluster: &Cluster, tally: &mut Tally| {
            for node in 0..2 {
                cluster.node(node).hit("a", 10, tally);
            }
            cluster.settled(&Expected::of(tally));
        };
        for node in 0..2 {
            cluster.node_mut(node).start();
        }
        hit(&cluster, &mut tally);
        let shown = cluster.node(1).ask("show peers");
        assert!(shown.contains(" lent=1 "), "{shown}");
        let shown = cluster.node(0).ask("show peers");
        assert!(shown.contains(" lent=0 "), "{shown}");
        if listed {
            // Who lends its connection is taught over it.
            cluster.node_mut(0).kill();
            cluster.node_mut(0).start();
            let known = cluster.node(0).value("a", "gpc0");
            assert_eq!(known, tally.get("a") as i64, "taught before it accepts");
            hit(&cluster, &mut tally);
            // What is counted last, and the goodbye, go over it, too.
            cluster.node(1).hit("b", 100, &mut tally);
            cluster.node_mut(1).stop();
            assert_eq!(cluster.node(0).value("b", "gpc0"), 100);
            let goodbye = "session from peer node1 ended: peer stops";
            cluster.node(0).proxy().says(goodbye);
            // It is refused wherever it asks, so it does not wait.
            cluster.node_mut(1).start();
            hit(&cluster, &mut tally);
        }
        for node in 0..2 {
            let said = cluster.node(node).proxy().stderr();
            assert!(!said.contains("does not reach this node"), "{said}");
        }
    }
}
