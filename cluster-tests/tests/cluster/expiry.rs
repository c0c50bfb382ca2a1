//! Entries that expire, are evicted, or find no room.

use std::time::{Duration, Instant};

use cluster_tests::cluster::{AGREE, COUNTS, Cluster, Spec};
use cluster_tests::dump::{Expected, compare};
use cluster_tests::hits::{Hits, Tally};
use cluster_tests::relay::Relay;
use cluster_tests::wait::{until, until_true, until_within};

fn brief(store: &str, expire: &str) -> String {
    format!("type string len 32 size 10k expire {expire} store {store}")
}

/// The sum of `key` everywhere, if all nodes show the same.
fn agreed(cluster: &Cluster, key: &str) -> Option<i64> {
    let values: Vec<i64> = (0..cluster.len())
        .map(|node| cluster.node(node).value(key, "http_req_cnt"))
        .collect();
    values
        .windows(2)
        .all(|pair| pair[0] == pair[1])
        .then(|| values[0])
}

/// A partition that lasts longer than entries live. Keys that somebody touched all the time keep all their counts, also those
/// of nodes where the entry had expired meanwhile and of nodes that counted long ago; keys nobody touched are gone, and start
/// anew.
#[track_caller]
fn a_partition_longer_than_entries_live(nodes: usize) {
    assert!(
        (0..5).any(|_| partition(nodes)),
        "it stalls for as long as entries live, or does not agree in time"
    );
}

/// Entries that are to live are touched at least so often, and what is seen of those that nobody touches is seen that soon. Where
/// the machine stalls for longer, nothing can be said.
const STEADY: Duration = Duration::from_secs(2);

/// `false` when the machine stalled.
fn partition(nodes: usize) -> bool {
    let cluster = Spec::of(nodes)
        .relayed()
        .table(&brief("http_req_cnt,gpc0", "3s"))
        .start();
    let (here, there) = (0, nodes / 2);
    let keys = ["both", "one", "none"];
    let mut tally = Tally::default();
    let mut touched = Instant::now();
    for node in 0..nodes {
        for key in keys {
            cluster.node(node).hit(key, 10, &mut tally);
        }
    }
    let all = until_within(STEADY, || {
        (keys.map(|key| agreed(&cluster, key)) == [Some(10 * nodes as i64); 3]).then_some(())
    });
    if all.is_none() || touched.elapsed() > STEADY {
        return false;
    }
    for a in 0..there {
        for b in there..nodes {
            cluster.between(a, b).into_iter().for_each(Relay::cut);
        }
    }
    // One node of each side is hit; the shares of the others do not change.
    let mut stalled = false;
    let mut touch = |tally: &mut Tally| {
        let begun = Instant::now();
        cluster.node(here).hit("both", 1, tally);
        cluster.node(there).hit("both", 1, tally);
        cluster.node(here).hit("one", 1, tally);
        stalled |= touched.elapsed() > STEADY;
        touched = begun;
    };
    let gone = until_within(AGREE, || {
        touch(&mut tally);
        let left = [
            cluster.node(here).value("none", "gpc0"),
            cluster.node(there).value("none", "gpc0"),
            cluster.node(there).value("one", "gpc0"),
        ];
        (left == [0; 3]).then_some(())
    });
    assert_eq!(gone, Some(()), "entries nobody touches expire");
    cluster.relays().for_each(Relay::heal);
    let exact = until_within(AGREE, || {
        touch(&mut tally);
        let wanted = ["both", "one"].map(|key| Some(tally.get(key) as i64));
        until_within(Duration::from_millis(500), || {
            (["both", "one"].map(|key| agreed(&cluster, key)) == wanted).then_some(())
        })
    });
    if stalled {
        return false;
    }
    let have = ["both", "one"].map(|key| {
        (0..nodes)
            .map(|node| cluster.node(node).value(key, "gpc0"))
            .collect::<Vec<_>>()
    });
    assert_eq!(
        exact,
        Some(()),
        "both and one on all nodes: {have:?}, the truth is {} and {}",
        tally.get("both"),
        tally.get("one")
    );
    assert_eq!(agreed(&cluster, "none"), Some(0));
    let mut anew = Tally::default();
    cluster.node(there).hit("none", 2, &mut anew);
    // A new life starts at nothing.
    let anew = until_within(STEADY, || {
        (agreed(&cluster, "none") == Some(2)).then_some(())
    });
    anew.is_some()
}

#[test]
fn a_long_partition_of_two_nodes() {
    a_partition_longer_than_entries_live(2);
}

#[test]
fn a_long_partition_of_four_nodes() {
    a_partition_longer_than_entries_live(4);
}

/// An entry lives as long as its latest touch anywhere, without any partition.
#[test]
fn touched_anywhere_it_lives_everywhere() {
    assert!(
        (0..5).any(|_| touched()),
        "it stalls for as long as entries live, or loses what was counted"
    );
}

/// `false` when the machine stalled.
fn touched() -> bool {
    let steady = Duration::from_secs(1);
    let cluster = Spec::of(2)
        .table(&brief("http_req_cnt,gpc0", "1500"))
        .start();
    let mut tally = Tally::default();
    let mut touched = Instant::now();
    cluster.node(1).hit("old", 3, &mut tally);
    cluster.node(1).hit("a", 3, &mut tally);
    // Both see it.
    let both = until_within(steady, || (agreed(&cluster, "a") == Some(3)).then_some(()));
    if both.is_none() {
        return false;
    }
    let mut stalled = false;
    let mut touch = |tally: &mut Tally| {
        let begun = Instant::now();
        cluster.node(0).hit("a", 1, tally);
        stalled |= touched.elapsed() > steady;
        touched = begun;
    };
    // Kept alive by the other node for longer than it would live by itself.
    until("the one that nobody touches is gone", || {
        touch(&mut tally);
        (agreed(&cluster, "old") == Some(0)).then_some(())
    });
    touch(&mut tally);
    if stalled {
        return false;
    }
    // Nothing of it was lost.
    let sum = Some(tally.get("a") as i64);
    let exact = until_within(steady, || (agreed(&cluster, "a") == sum).then_some(()));
    until_true("left alone it goes everywhere", || {
        agreed(&cluster, "a") == Some(0)
    });
    exact.is_some()
}

/// One node's table is too small for what the others count: it forgets most of it, its own shares included. It never makes
/// the others' sums wrong, and what it counts again after having forgotten it adds to what it had counted before.
#[test]
fn a_table_too_small() {
    let cluster = Spec::of(3)
        .table_on(
            2,
            &format!("type string len 32 size 50 expire 1h store {COUNTS}"),
        )
        .start();
    let mut tally = Tally::default();
    let keys: Vec<String> = (0..400).map(|number| format!("key{number}")).collect();
    for round in 0..3 {
        for node in 0..2 {
            let mut hits = Hits::open(&cluster.node(node).entrance()).expect("accepts");
            let sent = hits.send_each(keys.iter().map(String::as_str));
            assert_eq!(sent.ok(), Some(400), "round {round} on node {node}");
            keys.iter().for_each(|key| tally.add(key, 1));
        }
        large_tables_are_exact(&cluster, &tally);
        // As many of its own as it has room for.
        for key in &keys[..20] {
            cluster.node(2).hit(key, 1, &mut tally);
        }
        large_tables_are_exact(&cluster, &tally);
    }
    let small = cluster.node(2).dump("t");
    assert!(small.entries.len() <= 50, "{} entries", small.entries.len());
    for key in small.entries.keys() {
        let counted = small.get(key, "gpc0").expect("a counter");
        let truth = tally.get(key) as i64;
        assert!(counted <= truth, "{key}: {counted}, but there were {truth}");
    }
    // What is counted there next is right again: it learns what it had forgotten.
    cluster.node(2).hit("key1", 1, &mut tally);
    until_true("the small table is right about what it counts", || {
        (0..3).all(|node| cluster.node(node).value("key1", "gpc0") == tally.get("key1") as i64)
    });
}

#[track_caller]
fn large_tables_are_exact(cluster: &Cluster, tally: &Tally) {
    let expected = Expected::of(tally);
    let mut last = String::new();
    let exact = until_within(AGREE, || {
        let dumps = [0, 1].map(|node| cluster.node(node).dump("t"));
        compare(&dumps, &expected).map_err(|why| last = why).ok()
    });
    assert!(exact.is_some(), "the large tables differ:\n{last}");
}
