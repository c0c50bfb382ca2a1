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

/// A clock that is years ahead would win every assignment for years: what it stamps is refused, and both is shown. Once it is right
/// again, what it stamped counts as if it had been right all the time.
#[test]
fn a_clock_years_ahead_is_shown_and_not_believed() {
    let Some((clocks, cluster)) = with_clocks(&[3 * 365 * DAY, 0]) else {
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
    // Whole days, cut off: a message that was some milliseconds on its way makes one of 1095 days 1094.
    for (node, other) in [(0, "node1 is 109"), (1, "node0 is 109")] {
        let line = format!("clocks are more than a year apart: that of peer {other}");
        let said = cluster.node(node).proxy().says(&line);
        assert_eq!(said.matches("year apart").count(), 1, "{said}");
        let way = ["days behind this node's", "days ahead of this node's"][node];
        assert!(said.contains(way), "{said}");
    }
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

    cluster.node(0).hit("c", 5, &mut tally);
    cluster.node(1).hit("c", 5, &mut tally);
    // Nobody is connected any more: an end that comes after the clear would touch the key and make it anew.
    until_true("both count, and all requests have ended", || {
        (0..2).all(|node| {
            let value = |column: &str| cluster.node(node).value("c", column);
            value("gpc0") == 10 && value("conn_cur") == 0
        })
    });
    let before = refused(1);
    cluster.node(0).order("clear table t key c");
    until_true("it is obeyed by nobody else", || refused(1) > before);
    clocks[0].shift(0);
    tally.forget("c");
    let both = Expected::of(&tally)
        .with("a", "gpt0", 7)
        .with("b", "gpt0", 8);
    cluster.settled(&both);
    for node in 0..2 {
        cluster.node(node).proxy().says("is near this node's again");
    }
    cluster.node(0).order("clear table t key b");
    the_later_wins(&cluster, &mut tally, 1);
}

/// A machine that starts in 1970 refuses what the others say of today, until its clock is set.
#[test]
fn a_clock_years_behind_is_set() {
    let Some((clocks, cluster)) = with_clocks(&[0, -50 * 365 * DAY]) else {
        return;
    };
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("a", 3, &mut tally);
        cluster.node(node).hit("b", 3, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    cluster.node(0).order("set table t key a data.gpt0 7");
    cluster.node(0).order("clear table t key b");
    for (node, how) in [(0, "node1 is 182"), (1, "node0 is 182")] {
        let line = format!("clocks are more than a year apart: that of peer {how}");
        let said = cluster.node(node).proxy().says(&line);
        let way = ["days behind this node's", "days ahead of this node's"][node];
        assert!(said.contains(way), "{said}");
    }
    clocks[1].shift(0);
    tally.forget("b");
    cluster.settled(&Expected::of(&tally).with("a", "gpt0", 7));
    the_later_wins(&cluster, &mut tally, 1);
}
