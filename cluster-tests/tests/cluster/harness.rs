//! The harness itself, on faults that any program that shares tables survives: these tests also pass on HAProxy, as long as
//! only one node counts a key.

use std::time::Duration;

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::locate::{Kind, kind_under_test};
use cluster_tests::netns::Net;
use cluster_tests::relay::Relay;
use cluster_tests::tools;
use cluster_tests::wait::until_true;

/// What one node counts, all others show.
#[test]
fn one_node_counts_and_all_see() {
    let cluster = Spec::of(3).start();
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 100, &mut tally);
    cluster.node(1).hit("b", 33, &mut tally);
    cluster.settled(&Expected::of(&tally).except("conn_cur"));
}

/// What was counted while the links were down arrives when they are up again, in whatever way they were down.
#[test]
fn links_that_stall_and_break_lose_nothing() {
    let cluster = Spec::of(2).relayed().start();
    let mut tally = Tally::default();
    for relay in cluster.relays() {
        relay.delay(Duration::from_millis(5));
    }
    cluster.node(0).hit("a", 10, &mut tally);
    cluster.settled(&Expected::of(&tally).except("conn_cur"));

    cluster.relays().for_each(Relay::hold);
    cluster.node(0).hit("a", 10, &mut tally);
    cluster.relays().for_each(Relay::release);
    cluster.settled(&Expected::of(&tally).except("conn_cur"));

    if kind_under_test() == Kind::Haproxy {
        tools::skip(
            "HAProxy 2.6: the side that was behind may overwrite the other after a reconnect",
        );
        return;
    }
    cluster.relays().for_each(Relay::cut);
    cluster.node(0).hit("a", 10, &mut tally);
    cluster.relays().for_each(Relay::heal);
    cluster.settled(&Expected::of(&tally).except("conn_cur"));
}

/// Nodes on hosts of their own; packets between them are lost for a while.
#[test]
fn packets_that_are_lost_are_sent_again() {
    if !Net::possible() {
        return;
    }
    let words = match kind_under_test() {
        Kind::Haproxy => "",
        Kind::Remora => "  allow-plaintext",
    };
    let cluster = Spec::of(2).isolated().peers(words).start();
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 10, &mut tally);
    cluster.settled(&Expected::of(&tally).except("conn_cur"));
    cluster.net().split(&[0], &[1]);
    cluster.node(0).hit("a", 10, &mut tally);
    cluster.net().heal();
    cluster.settled(&Expected::of(&tally).except("conn_cur"));
}

/// A node that was killed is taught what it had counted.
#[test]
fn a_killed_node_is_taught() {
    let mut cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 10, &mut tally);
    cluster.settled(&Expected::of(&tally).except("conn_cur"));
    cluster.node_mut(0).kill();
    cluster.node_mut(0).start();
    cluster.settled(&Expected::of(&tally).except("conn_cur"));
    until_true("the frontend is open", || cluster.node(0).accepts());
}
