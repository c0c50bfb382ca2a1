//! `set table` and `clear table`: they reach every node and beat what was counted before them.

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::relay::Relay;
use cluster_tests::wait::until_true;

#[test]
fn clear_and_set_reach_everyone() {
    let cluster = Spec::of(3).start();
    let mut tally = Tally::default();
    for node in 0..3 {
        for key in ["a", "b", "c"] {
            cluster.node(node).hit(key, 10, &mut tally);
        }
    }
    cluster.settled(&Expected::of(&tally));
    cluster.node(0).order("clear table t key a");
    tally.forget("a");
    cluster.settled(&Expected::of(&tally));
    cluster.node(1).order("set table t key b data.gpc0 5");
    cluster.settled(&Expected::of(&tally).with("b", "gpc0", 5));
    // What is counted afterwards, anywhere, adds to it.
    for node in 0..3 {
        cluster.node(node).hit("a", 1, &mut tally);
        cluster.node(node).hit("b", 1, &mut tally);
    }
    cluster.settled(&Expected::of(&tally).with("b", "gpc0", 8));
    // A filter clears on every node what it matches here.
    cluster
        .node(2)
        .order("clear table t data.http_req_cnt gt 29");
    let mut left = Tally::default();
    left.add("a", 3);
    cluster.settled(&Expected::of(&left));
    // The whole table.
    cluster.node(0).order("clear table t");
    cluster.settled(&Expected::nothing());
    let mut fresh = Tally::default();
    cluster.node(1).hit("b", 2, &mut fresh);
    cluster.settled(&Expected::of(&fresh));
}

/// Issued on one side of a partition while the other side counts: what was counted before the two met again is void, what
/// the issuer counted since is not.
#[test]
fn clear_and_set_during_a_partition() {
    let cluster = Spec::of(3).relayed().start();
    let mut tally = Tally::default();
    for node in 0..3 {
        for key in ["cleared", "set", "kept", "both"] {
            cluster.node(node).hit(key, 10, &mut tally);
        }
    }
    cluster.settled(&Expected::of(&tally));
    let lone = |what: fn(&Relay)| {
        cluster.between(0, 1).into_iter().for_each(what);
        cluster.between(0, 2).into_iter().for_each(what);
    };
    lone(Relay::cut);
    cluster.node(0).order("clear table t key cleared");
    cluster.node(0).order("set table t key set data.gpc0 100");
    cluster.node(0).order("clear table t key both");
    cluster.node(1).order("clear table t key both");
    tally.forget("cleared");
    tally.forget("both");
    cluster.node(0).hit("cleared", 2, &mut tally);
    cluster.node(0).hit("set", 2, &mut tally);
    // The others have not heard of it: their counts of these keys from before the healing are void.
    let mut unheard = Tally::default();
    cluster.node(2).hit("cleared", 50, &mut unheard);
    cluster.node(1).hit("kept", 3, &mut tally);
    cluster.node(2).hit("kept", 3, &mut tally);
    until_true("the other side agrees on what it counted", || {
        cluster.node(1).value("cleared", "gpc0") == 80
            && cluster.node(1).value("kept", "gpc0") == 36
            && cluster.node(2).value("both", "gpc0") == 0
    });
    lone(Relay::heal);
    cluster.settled(&Expected::of(&tally).with("set", "gpc0", 102));
    // And nobody brings any of it back.
    cluster.node(1).hit("cleared", 1, &mut tally);
    cluster.node(2).hit("both", 1, &mut tally);
    cluster.settled(&Expected::of(&tally).with("set", "gpc0", 102));
}

/// A node that was away while a key was cleared does not bring it back, neither from its memory nor as a new process.
#[test]
fn what_was_cleared_stays_cleared() {
    let mut cluster = Spec::of(3).relayed().start();
    let mut tally = Tally::default();
    for node in 0..3 {
        cluster.node(node).hit("a", 10, &mut tally);
        cluster.node(node).hit("b", 10, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    cluster.node_mut(2).kill();
    cluster.node(0).order("clear table t key a");
    tally.forget("a");
    until_true("the other survivor clears it", || {
        cluster.node(1).value("a", "gpc0") == 0
    });
    cluster.node_mut(0).kill();
    cluster.node_mut(2).start();
    cluster.settled(&Expected::of(&tally));
    cluster.node_mut(0).start();
    cluster.settled(&Expected::of(&tally));
}
