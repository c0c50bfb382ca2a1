//! A short run of what `reload-soak` does for hours.

use std::time::Duration;

use cluster_tests::locate::Kind;
use cluster_tests::soak::Plan;

use crate::common::haproxy_lacks;

fn short(nodes: usize, rounds: usize) -> Plan {
    Plan {
        rounds,
        nodes,
        clients: 2,
        think: Duration::from_millis(1),
        calm: Duration::ZERO,
        ..Plan::of(Kind::Remora)
    }
}

#[test]
fn reloads_under_load_lose_nothing() {
    if haproxy_lacks("loses connections and counts") {
        return;
    }
    let outcome = short(1, 8).run();
    assert_eq!(outcome.losses(), [""; 0], "{:?}", outcome.stories);
    assert!(outcome.answers > 100 && outcome.gauges > 8);
}

#[test]
fn reloads_of_peering_nodes_under_load_lose_nothing() {
    if haproxy_lacks("loses connections and counts") {
        return;
    }
    let outcome = short(3, 6).run();
    assert_eq!(outcome.losses(), [""; 0], "{:?}", outcome.stories);
}
