//! Wall clocks that are wrong and jump. Counts do not care; assignments are ordered all the same.

use cluster_tests::clocks::WallClock;
use cluster_tests::cluster::{COUNTS, Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::scrape::{samples, scrape};
use cluster_tests::wait::until_true;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

fn with_clocks(offsets: &[i64]) -> Option<(Vec<WallClock>, Cluster)> {
    let mut spec = Spec::of(offsets.len())
        .table(&format!(
            "type string len 32 size 10k expire 1h store gpt0,{COUNTS}"
        ))
        .global("  admin bind unix@{{dir}}/admin.sock\n");
    let mut clocks = Vec::new();
    for (node, offset) in offsets.iter().enumerate() {
        let clock = WallClock::new()?;
        clock.shift(*offset);
        for (name, value) in clock.env() {
            spec = spec.env_on(node, name, &value);
        }
        clocks.push(clock);
    }
    Some((clocks, spec.start()))
}

/// Each node in turn counts, sets and clears, having seen what the one before it did: the later one wins everywhere,
/// whatever their clocks say.
#[track_caller]
fn the_later_wins(cluster: &Cluster, tally: &mut Tally, round: u64) {
    for node in 0..cluster.len() {
        let value = round * 10 + node as u64;
        for node in 0..cluster.len() {
            cluster.node(node).hit("tag", 1, tally);
            cluster.node(node).hit("cleared", 1, tally);
            cluster.node(node).hit("plain", 5, tally);
        }
        let tag = |wanted: u64| {
            (0..cluster.len()).all(|node| cluster.node(node).value("tag", "gpt0") == wanted as i64)
        };
        cluster
            .node(node)
            .order(&format!("set table t key tag data.gpt0 {value}"));
        until_true("the tag reaches everyone", || tag(value));
        // Requests that end touch what they counted: not after the clear.
        cluster.settled(&Expected::of(tally).with("tag", "gpt0", value as i64));
        cluster.node(node).order("clear table t key cleared");
        tally.forget("cleared");
        cluster.settled(&Expected::of(tally).with("tag", "gpt0", value as i64));
    }
}

#[test]
fn clocks_ten_minutes_apart() {
    let Some((_clocks, cluster)) = with_clocks(&[10 * MINUTE, 0, -10 * MINUTE]) else {
        return;
    };
    let mut tally = Tally::default();
    the_later_wins(&cluster, &mut tally, 1);
    the_later_wins(&cluster, &mut tally, 2);
}

#[test]
fn clocks_that_jump_by_a_day() {
    let Some((clocks, cluster)) = with_clocks(&[0, 0]) else {
        return;
    };
    let mut tally = Tally::default();
    the_later_wins(&cluster, &mut tally, 1);
    let jumps = [[DAY, 0], [DAY, -DAY], [0, DAY], [-DAY, 0]];
    for (round, offsets) in jumps.iter().enumerate() {
        for (clock, offset) in clocks.iter().zip(offsets) {
            clock.shift(*offset);
        }
        the_later_wins(&cluster, &mut tally, 2 + round as u64);
    }
}

/// A clock that is years ahead would win every assignment for years: what it stamps is refused, and both is shown.
#[test]
fn a_clock_years_ahead_is_shown_and_not_believed() {
    let Some((_clocks, cluster)) = with_clocks(&[3 * 365 * DAY, 0]) else {
        return;
    };
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 3, &mut tally);
    cluster.node(1).hit("a", 4, &mut tally);
    cluster.settled(&Expected::of(&tally));
    cluster.node(0).order("set table t key a data.gpt0 7");
    cluster.node(1).order("set table t key b data.gpt0 8");
    let refused = |node: usize| {
        let shown = cluster.node(node).ask("show peers dict");
        let count = shown.split("stamps_refused=").nth(1);
        let count = count.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        count.unwrap_or_else(|| panic!("{shown}"))
    };
    until_true("it is refused", || refused(1) > 0);
    assert_eq!(refused(0), 0, "the past is no reason");
    until_true("what the other one says is believed", || {
        cluster.node(0).value("b", "gpt0") == 8
    });
    assert_eq!(cluster.node(1).value("a", "gpt0"), 0);
    assert_eq!(
        cluster.node(1).value("a", "gpc0"),
        7,
        "counts need no clock"
    );
    let page = scrape(&cluster.node(1).proxy().dir().join("admin.sock"));
    let value = |name: &str| {
        let samples = samples(&page);
        *samples
            .get(name)
            .unwrap_or_else(|| panic!("{name} in\n{page}"))
    };
    let counted = value("remora_sticktable_stamps_refused_total{name=\"t\",type=\"string\"}");
    assert!(counted > 0.0, "{page}");
    let ahead = value("remora_peer_clock_skew_seconds{peers=\"p\",peer=\"node0\"}");
    assert!((ahead - (3 * 365 * DAY) as f64).abs() < 3_600.0, "{ahead}");
    let shown = cluster.node(1).ask("show peers");
    let skew = shown.split("skew_ms=").nth(1);
    let skew = skew.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    let skew = skew.unwrap_or_else(|| panic!("{shown}"));
    assert!((skew / 1000 - 3 * 365 * DAY).abs() < 3_600, "{shown}");
}
