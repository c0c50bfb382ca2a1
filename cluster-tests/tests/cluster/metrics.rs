//! What nodes tell about each other on their metrics pages.

use std::path::PathBuf;

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::scrape::{documented, families, lint, samples, scrape};
use cluster_tests::wait::{PATIENCE, until_true, until_within};

fn page(cluster: &Cluster, node: usize) -> String {
    let path: PathBuf = cluster.node(node).proxy().dir().join("admin.sock");
    scrape(&path)
}

fn value(cluster: &Cluster, node: usize, name: &str) -> f64 {
    let page = page(cluster, node);
    *samples(&page)
        .get(name)
        .unwrap_or_else(|| panic!("{name} in\n{page}"))
}

#[test]
fn peers_that_come_and_go_show() {
    let mut cluster = Spec::of(2)
        .global("  admin bind unix@{{dir}}/admin.sock\n")
        .peers("  learn-timeout 10m")
        .start();
    let up = "remora_peer_up{peers=\"p\",peer=\"node1\"}";
    until_true("the peer is up", || value(&cluster, 0, up) == 1.0);
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 20, &mut tally);
    cluster.node(1).hit("b", 30, &mut tally);
    cluster.settled(&Expected::of(&tally));
    until_true("everything is acknowledged", || {
        value(
            &cluster,
            0,
            "remora_peer_lag_entries{peers=\"p\",peer=\"node1\"}",
        ) == 0.0
    });
    let wanted = [
        ("remora_peers_ready{peers=\"p\"}", 1.0),
        ("remora_peers_untaught{peers=\"p\"}", 0.0),
        ("remora_peers_tables{peers=\"p\"}", 1.0),
        ("remora_peers_configured{peers=\"p\"}", 1.0),
        ("remora_peers_up{peers=\"p\"}", 1.0),
        ("remora_peers_undialed{peers=\"p\"}", 0.0),
        ("remora_peers_bad_batches_total{peers=\"p\"}", 0.0),
        ("remora_peer_incoming_up{peers=\"p\",peer=\"node1\"}", 1.0),
        ("remora_peer_mismatches{peers=\"p\",peer=\"node1\"}", 0.0),
        ("remora_process_active_peers", 1.0),
        ("remora_process_connected_peers", 1.0),
    ];
    // There are two sessions, and the second one may come up a moment later.
    let mut shown = page(&cluster, 0);
    let all = until_within(PATIENCE, || {
        shown = page(&cluster, 0);
        let got = samples(&shown);
        let mut wanted = wanted.iter();
        wanted
            .all(|(name, value)| got.get(name) == Some(value))
            .then_some(())
    });
    assert!(all.is_some(), "{wanted:?} in\n{shown}");
    lint(&shown);
    let got = samples(&shown);
    for name in [
        "sent_rows",
        "sent_bytes",
        "received_rows",
        "received_bytes",
        "rows_merged",
    ] {
        let name = format!("remora_peers_{name}_total{{peers=\"p\"}}");
        assert!(got[name.as_str()] > 0.0, "{name} in\n{shown}");
    }
    // A certificate is what these nodes do not have; servers neither.
    let families = families(&shown);
    let missing: Vec<&str> = documented()
        .into_iter()
        .filter(|name| name.starts_with("remora_peer") || name.starts_with("remora_sticktable"))
        .filter(|name| !families.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?} in\n{shown}");
    cluster.node_mut(1).kill();
    until_true("the peer is down", || value(&cluster, 0, up) == 0.0);
    until_true("it is no active one", || {
        value(&cluster, 0, "remora_process_active_peers") == 0.0
    });
    cluster.node(0).hit("a", 5, &mut Tally::default());
    until_true("there is something to be sent", || {
        value(
            &cluster,
            0,
            "remora_peer_lag_entries{peers=\"p\",peer=\"node1\"}",
        ) > 0.0
    });
    // There is no session, and it falls behind all the same.
    let lag = "remora_peer_lag_seconds{peers=\"p\",peer=\"node1\"}";
    let before = value(&cluster, 0, lag);
    until_true("it falls behind", || {
        value(&cluster, 0, lag) > before + 0.5 && value(&cluster, 0, up) == 0.0
    });
    cluster.node_mut(1).start();
    until_true("the peer is up again", || value(&cluster, 0, up) == 1.0);
    until_true("it is no more behind", || value(&cluster, 0, lag) == 0.0);
    // It was taught, and says so once.
    for (name, expected) in [
        ("remora_peers_tables_learned{peers=\"p\"}", 1.0),
        ("remora_peers_entries_learned{peers=\"p\"}", 2.0),
        ("remora_peers_untaught{peers=\"p\"}", 0.0),
    ] {
        until_true(name, || value(&cluster, 1, name) == expected);
    }
    let line = "learned 1 table with 2 entries from peer node0 in ";
    let said = cluster.node(1).proxy().says("peers p: ready: ");
    assert_eq!(said.matches(line).count(), 1, "{said}");
    assert_eq!(
        said.matches("learn").count(),
        2,
        "and that it is ready: {said}"
    );
}
