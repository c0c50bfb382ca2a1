//! Wall clocks that are wrong and jump. Counts do not care; assignments are ordered all the same.

use cluster_tests::clocks::WallClock;
use cluster_tests::cluster::{COUNTS, Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::wait::until_true;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

fn with_clocks(offsets: &[i64]) -> Option<(Vec<WallClock>, Cluster)> {
    let mut spec = Spec::of(offsets.len()).table(&format!(
        "type string len 32 size 10k expire 1h store gpt0,{COUNTS}"
    ));
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
