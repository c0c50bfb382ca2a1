//! One node can be dialed and cannot dial: it pushes on the connection that the other one lends it. Over TLS, behind a firewall that
//! drops attempts to connect, and while either of the two reloads.

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::netns::Net;
use cluster_tests::ports::Port;
use cluster_tests::wait::until_true;
use rustix::process::Signal;

use crate::certificates::{Authority, tls_nodes};
use crate::common::haproxy_lacks;
use crate::house::serve_supervised;

/// Whether node 1 pushes on the connection of node 0, and both are up.
fn is_lent(cluster: &Cluster) -> bool {
    let lines = |node: usize, what: [&str; 2]| {
        let shown = cluster.node(node).ask("show peers");
        shown
            .lines()
            .any(|line| what.iter().all(|w| line.contains(w)))
    };
    lines(1, ["status=UP", " lent=1 "]) && lines(0, ["status=UP", " lent=0 "])
}

fn all_count(cluster: &Cluster, tally: &mut Tally) {
    for node in 0..2 {
        cluster.node(node).hit("a", 10, tally);
    }
    cluster.settled(&Expected::of(tally));
}

/// Both reload under traffic: what is counted meanwhile arrives, once, and the connection is lent again.
fn survives_reloads(cluster: &Cluster, tally: &mut Tally) {
    for node in [0, 1, 0] {
        let proxy = cluster.node(node).proxy();
        let handed = || proxy.stderr().matches("hand-off: ").count();
        let before = handed();
        proxy.signal(Signal::USR2);
        until_true(
            "another worker serves, and the connection is lent again",
            || {
                for node in 0..2 {
                    // A connection each: one that is kept would be ended after an answer of the old worker.
                    for key in ["a", "a", ["own0", "own1"][node]] {
                        cluster.node(node).hit(key, 1, tally);
                    }
                }
                handed() > before && is_lent(cluster)
            },
        );
        cluster.settled(&Expected::of(tally));
    }
}

#[test]
fn over_tls_and_across_reloads() {
    let Some(authority) = Authority::new() else {
        return;
    };
    if haproxy_lacks("every node has to dial") {
        return;
    }
    let mut cluster = tls_nodes(2, &authority, "peers.test").prepare();
    let nobody = Port::claim(); // where nobody listens
    let port = cluster.node(0).peers_port();
    cluster.node_mut(1).reconfigure(|config| {
        let (theirs, closed) = (format!("node0 127.0.0.1:{port} "), nobody.number());
        config.replace(&theirs, &format!("node0 127.0.0.1:{closed} "))
    });
    serve_supervised(&mut cluster, &[0, 1]);
    let mut tally = Tally::default();
    all_count(&cluster, &mut tally);
    until_true("the connection is lent", || is_lent(&cluster));
    survives_reloads(&cluster, &mut tally);
    // Who is taught over it.
    cluster.node_mut(0).kill();
    cluster.node_mut(0).start();
    all_count(&cluster, &mut tally);
    for node in 0..2 {
        let said = cluster.node(node).proxy().stderr();
        assert!(!said.contains("does not reach this node"), "{said}");
        assert!(!said.contains("protocol error"), "{said}");
    }
}

#[test]
fn behind_a_firewall() {
    if haproxy_lacks("every node has to dial") || !Net::possible() {
        return;
    }
    let mut cluster = Spec::of(2)
        .isolated()
        .peers("  allow-plaintext\n  learn-timeout 10m")
        .prepare();
    cluster.net().bar(0, 1);
    serve_supervised(&mut cluster, &[0, 1]);
    let mut tally = Tally::default();
    all_count(&cluster, &mut tally);
    until_true("the connection is lent", || is_lent(&cluster));
    survives_reloads(&cluster, &mut tally);
    // Either is killed and taught.
    for node in [1, 0] {
        cluster.node_mut(node).kill();
        cluster.node_mut(node).start();
        let known = cluster.node(node).value("a", "gpc0");
        assert_eq!(known, tally.get("a") as i64, "taught before it accepts");
        all_count(&cluster, &mut tally);
        until_true("the connection is lent again", || is_lent(&cluster));
    }
    // The firewall lets everything pass: nothing changes, whoever dials first.
    cluster.net().heal();
    all_count(&cluster, &mut tally);
    let said = cluster.node(0).proxy().stderr();
    assert!(!said.contains("does not reach this node"), "{said}");
}
