use super::*;
use crate::peers::batch::{RowFlags, RowHead};
use crate::table::lineage::Stamp;
use crate::table::{KeyType, Refused, Stored, TableSpec};
use DataType as D;

struct Node {
    table: Table,
    lineage: Lineage,
    /// Own number that each other node has confirmed.
    acked: Vec<u64>,
}

const BUDGET: Budget = Budget {
    rows: 1_000,
    bytes: 1 << 16,
};

fn spec(size: usize, expire_ms: Option<u32>) -> TableSpec {
    let stored = |data_type, elements, period_ms| Stored {
        data_type,
        elements,
        period_ms,
    };
    TableSpec {
        size,
        expire_ms,
        store: vec![
            stored(D::ServerId, 1, 0),
            stored(D::ConnCur, 1, 0),
            stored(D::HttpReqCnt, 1, 0),
            stored(D::HttpReqRate, 1, 10_000),
            stored(D::BytesInCnt, 1, 0),
            stored(D::ServerKey, 1, 0),
            stored(D::Gpt, 2, 0),
            stored(D::Gpc, 2, 0),
            stored(D::GpcRate, 2, 10_000),
        ],
        ..TableSpec::new("t", KeyType::Integer)
    }
}

fn cluster(n: u64, size: usize, expire_ms: Option<u32>) -> Vec<Node> {
    (0..n)
        .map(|i| {
            let lineages = Arc::new(Lineages::new(Lineage(100 + i)));
            for other in 0..n {
                let index = lineages.index(Lineage(100 + other)).unwrap();
                lineages.set_alive(index, true);
            }
            let table = Table::new_replicated(spec(size, expire_ms), i, lineages);
            table.set_wall_offset(1_000_000);
            Node {
                table,
                lineage: Lineage(100 + i),
                acked: vec![0; n as usize],
            }
        })
        .collect()
}

fn key(n: u32) -> Key {
    Key::from_stored(&n.to_be_bytes())
}

/// Delivers a batch and answers what comes of it.
fn deliver(nodes: &[Node], from: usize, to: usize, out: &mut BatchWriter, now: u64) -> Applied {
    let (source, target) = (nodes[from].table.replica().unwrap(), &nodes[to]);
    let columns = out.finish();
    let reader = BatchReader::new(&columns, source.columns()).unwrap();
    let replica = target.table.replica().unwrap();
    let applied = replica
        .apply(&reader, nodes[from].lineage, 0, target.acked[from], now)
        .unwrap();
    for (keys, from, to) in [(&applied.wants, from, to), (&applied.offers, to, from)] {
        if !keys.is_empty() {
            let source = nodes[from].table.replica().unwrap();
            source.read_keys(keys, now, out);
            let columns = out.finish();
            let reader = BatchReader::new(&columns, source.columns()).unwrap();
            let replica = nodes[to].table.replica().unwrap();
            let acked = nodes[to].acked[from];
            replica
                .apply(&reader, nodes[from].lineage, 0, acked, now)
                .unwrap();
        }
    }
    applied
}

fn push(nodes: &mut [Node], from: usize, to: usize, now: u64) -> usize {
    let mut out = BatchWriter::new(nodes[from].table.replica().unwrap().columns());
    nodes[from]
        .table
        .replica()
        .unwrap()
        .collect(now, usize::MAX);
    let mut rows = 0;
    loop {
        let after = nodes[from].acked[to];
        let replica = nodes[from].table.replica().unwrap();
        let read = replica.read_journal(after, BUDGET, now, &mut out);
        rows += out.rows();
        deliver(nodes, from, to, &mut out, now);
        nodes[from].acked[to] = read.upto;
        if !read.more {
            return rows;
        }
    }
}

/// Everybody pushes to everybody, until nothing is left.
fn settle(nodes: &mut [Node], now: u64) {
    for _ in 0..4 {
        for from in 0..nodes.len() {
            for to in 0..nodes.len() {
                if from != to {
                    push(nodes, from, to, now);
                }
            }
        }
    }
}

fn count(node: &Node, k: u32, n: u64, now: u64) -> Result<Option<u64>, Refused> {
    node.table
        .upsert(&key(k), now, |mut e| e.inc(D::HttpReqCnt, 0, n, now))
}

fn get(node: &Node, k: u32, what: D, now: u64) -> Option<u64> {
    node.table
        .peek(&key(k), now, |e| e.get(what, 0, now).unwrap())
}

fn reads(nodes: &[Node], k: u32, what: D, now: u64) -> Vec<Option<u64>> {
    nodes.iter().map(|node| get(node, k, what, now)).collect()
}

#[test]
fn every_node_reads_the_sum() {
    let mut nodes = cluster(3, 100, Some(60_000));
    for (i, node) in nodes.iter().enumerate() {
        for _ in 0..=i {
            count(node, 1, 10, 1_000).unwrap();
        }
    }
    settle(&mut nodes, 1_100);
    assert_eq!(reads(&nodes, 1, D::HttpReqCnt, 1_100), [Some(60); 3]);
    assert_eq!(reads(&nodes, 1, D::HttpReqRate, 1_100), [Some(60); 3]);
    assert_eq!(count(&nodes[0], 1, 5, 1_200), Ok(Some(65)));
    settle(&mut nodes, 1_200);
    assert_eq!(reads(&nodes, 1, D::HttpReqCnt, 1_200), [Some(65); 3]);
    assert_eq!(push(&mut nodes, 0, 1, 1_300), 0, "nothing is sent twice");
    let mut shares = Vec::new();
    nodes[1]
        .table
        .replica()
        .unwrap()
        .origins(&key(1), 1_300, |o| {
            shares.push((o.lineage, o.get(D::HttpReqCnt, 0, 1_300)));
        });
    shares.sort();
    let expected = [(100, 15), (101, 20), (102, 30)].map(|(l, n)| (Lineage(l), Some(n)));
    assert_eq!(shares, expected);
}

#[test]
fn gauges_count_while_their_lineage_lives() {
    let mut nodes = cluster(2, 100, Some(10_000));
    let held = nodes[0].table.track(&key(1), 1_000).unwrap();
    settle(&mut nodes, 1_000);
    assert_eq!(reads(&nodes, 1, D::ConnCur, 1_000), [Some(1); 2]);
    assert_eq!(nodes[1].table.used(60_000), 1, "held elsewhere");
    assert_eq!(get(&nodes[1], 1, D::ConnCur, 60_000), Some(1));
    let lineages = Arc::clone(nodes[1].table.replica().unwrap().lineages());
    let index = lineages.find(Lineage(100)).unwrap();
    lineages.set_alive(index, false);
    assert_eq!(get(&nodes[1], 1, D::ConnCur, 60_000), None);
    lineages.set_alive(index, true);
    assert_eq!(get(&nodes[1], 1, D::ConnCur, 60_000), Some(1));
    nodes[0].table.untrack(held, 61_000);
    settle(&mut nodes, 61_000);
    assert_eq!(reads(&nodes, 1, D::ConnCur, 61_000), [Some(0); 2]);
    assert_eq!(reads(&nodes, 1, D::ConnCur, 71_000), [None; 2]);
}

/// A gauge that was assigned goes with the entry; trackers do not.
#[test]
fn a_gauge_that_was_assigned_is_cleared() {
    for (assigned, cleared, held) in [
        (0, 0, None),
        (0, 1, None),
        (1, 0, None),
        (0, 1, Some(0)),
        (2, 1, Some(0)),
    ] {
        let mut nodes = cluster(3, 100, None);
        let entry = held.map(|at: usize| (at, nodes[at].table.track(&key(1), 1_000).unwrap()));
        nodes[assigned]
            .table
            .upsert(&key(1), 1_000, |mut entry| {
                assert!(entry.set_exact(D::ConnCur, 0, 5, 1_000));
            })
            .unwrap();
        settle(&mut nodes, 1_000);
        let before = 5 + u64::from(held.is_some_and(|at| at != assigned));
        assert_eq!(reads(&nodes, 1, D::ConnCur, 1_000), [Some(before); 3]);
        nodes[cleared].table.remove(&key(1), 2_000);
        settle(&mut nodes, 2_000);
        // What was assigned where it is held cannot be told from trackers.
        let left = held.map(|at| if at == assigned { 5 } else { 1 });
        assert_eq!(
            reads(&nodes, 1, D::ConnCur, 2_000),
            [left; 3],
            "{assigned} {cleared} {held:?}"
        );
        if let Some((at, entry)) = entry {
            nodes[at].table.untrack(entry, 3_000);
        }
    }
}

#[test]
fn assignments_beat_counts_everywhere() {
    let mut nodes = cluster(3, 100, None);
    for node in &nodes {
        count(node, 1, 10, 1_000).unwrap();
    }
    settle(&mut nodes, 1_000);
    nodes[1]
        .table
        .upsert(&key(1), 2_000, |mut e| {
            assert!(e.set_exact(D::HttpReqCnt, 0, 7, 2_000));
            assert!(e.set_exact(D::Gpt, 1, 9, 2_000));
            assert!(e.set_server_key(b"s1"));
        })
        .unwrap();
    settle(&mut nodes, 2_000);
    assert_eq!(reads(&nodes, 1, D::HttpReqCnt, 2_000), [Some(7); 3]);
    assert_eq!(reads(&nodes, 1, D::HttpReqRate, 2_000), [Some(30); 3]);
    for node in &nodes {
        let (gpt, server) = node
            .table
            .peek(&key(1), 2_000, |e| (e.get(D::Gpt, 1, 0), e.server_key()))
            .unwrap();
        assert_eq!((gpt, server.as_deref()), (Some(9), Some(&b"s1"[..])));
    }
    count(&nodes[2], 1, 1, 2_100).unwrap();
    settle(&mut nodes, 2_100);
    assert_eq!(reads(&nodes, 1, D::HttpReqCnt, 2_100), [Some(8); 3]);
    nodes[0].table.remove(&key(1), 3_000);
    settle(&mut nodes, 3_000);
    assert_eq!(reads(&nodes, 1, D::HttpReqCnt, 3_000), [None; 3]);
    assert_eq!(nodes.iter().map(|n| n.table.used(3_000)).sum::<usize>(), 0);
    count(&nodes[2], 1, 4, 3_100).unwrap();
    settle(&mut nodes, 3_100);
    assert_eq!(reads(&nodes, 1, D::HttpReqCnt, 3_100), [Some(4); 3]);
    assert_eq!(reads(&nodes, 1, D::Gpt, 3_100), [Some(0); 3]);
}

#[test]
fn a_share_that_was_evicted_comes_back() {
    let mut nodes = cluster(2, 2, None);
    count(&nodes[0], 1, 10, 1_000).unwrap();
    count(&nodes[1], 1, 5, 1_000).unwrap();
    settle(&mut nodes, 1_000);
    for k in 2..4 {
        count(&nodes[0], k, 1, 1_100).unwrap();
    }
    assert_eq!(get(&nodes[0], 1, D::HttpReqCnt, 1_100), None);
    count(&nodes[0], 1, 3, 1_200).unwrap();
    push(&mut nodes, 0, 1, 1_200);
    nodes[0].table.replica().unwrap().collect(1_200, usize::MAX);
    assert_eq!(get(&nodes[0], 1, D::HttpReqCnt, 1_200), Some(18));
    assert_eq!(nodes[0].table.replica().unwrap().counters().adopted, 1);
}

#[test]
fn late_touches_revive_and_later_ones_begin_again() {
    let mut nodes = cluster(2, 100, Some(10_000));
    count(&nodes[0], 1, 10, 1_000).unwrap();
    settle(&mut nodes, 1_000);
    count(&nodes[0], 1, 1, 10_900).unwrap();
    assert_eq!(
        get(&nodes[1], 1, D::HttpReqCnt, 11_050),
        None,
        "expired here"
    );
    assert_eq!(nodes[1].table.used(11_050), 0);
    push(&mut nodes, 0, 1, 11_100);
    assert_eq!(get(&nodes[1], 1, D::HttpReqCnt, 11_100), Some(11));
    assert_eq!(nodes[1].table.used(11_100), 1);
    count(&nodes[1], 1, 5, 21_000).unwrap();
    settle(&mut nodes, 21_050);
    assert_eq!(reads(&nodes, 1, D::HttpReqCnt, 21_050), [Some(5); 2]);
}

#[test]
fn a_newcomer_learns_by_a_walk() {
    let mut nodes = cluster(3, 10_000, Some(60_000));
    for k in 0..5_000 {
        count(&nodes[k as usize % 2], k, 2, 1_000).unwrap();
    }
    push(&mut nodes, 0, 1, 1_000);
    nodes[0].table.remove(&key(0), 1_500);
    push(&mut nodes, 0, 1, 1_500);
    push(&mut nodes, 1, 0, 1_500);
    let source = nodes[1].table.replica().unwrap();
    let mut out = BatchWriter::new(source.columns());
    let mut cursor = Cursor::default();
    while !source.read_walk(&mut cursor, Which::All, BUDGET, 2_000, &mut out) {
        deliver(&nodes, 1, 2, &mut out, 2_000);
    }
    deliver(&nodes, 1, 2, &mut out, 2_000);
    assert_eq!(nodes[2].table.used(2_000), 4_999);
    assert_eq!(nodes[2].table.replica().unwrap().counters().tombstones, 1);
    assert_eq!(reads(&nodes, 8, D::HttpReqCnt, 2_000), [Some(2); 3]);
    assert!(!nodes[2].table.replica().unwrap().is_dirty());
}

#[test]
fn the_journal_stays_as_long_as_what_is_alive() {
    let nodes = cluster(1, 10_000, None);
    let replica = nodes[0].table.replica().unwrap();
    let woken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let wake = Arc::clone(&woken);
    replica.set_waker(Arc::new(move || {
        wake.fetch_add(1, Relaxed);
    }));
    for round in 0..100 {
        for k in 0..500 {
            count(&nodes[0], k, 1, round).unwrap();
        }
        assert_eq!(woken.load(Relaxed), round as usize + 1);
        let collected = replica.collect(round, 300);
        assert_eq!((collected.stamped, collected.more), (300, true));
        let collected = replica.collect(round, 300);
        assert_eq!((collected.stamped, collected.more), (200, false));
        assert!(!replica.is_dirty());
    }
    assert_eq!(replica.newest(), 50_000);
    replica.expect(true);
    count(&nodes[0], 1, 1, 101).unwrap();
    assert_eq!((woken.load(Relaxed), replica.is_dirty()), (100, true));
    assert_eq!(replica.collect(101, 300).stamped, 1);
    replica.expect(false);
    count(&nodes[0], 1, 1, 102).unwrap();
    assert_eq!(woken.load(Relaxed), 101);
    assert_eq!(replica.collect(102, 300).stamped, 1);
    assert!(replica.lag(0) < 500 + 2 * 1024 + 1024, "{}", replica.lag(0));
    assert_eq!(replica.lag(50_002), 0);
    let mut out = BatchWriter::new(replica.columns());
    let read = replica.read_journal(0, BUDGET, 200, &mut out);
    assert_eq!((read.upto, read.more, read.whole), (50_002, false, true));
    assert_eq!(out.rows(), 500);
}

#[test]
fn hidden_entries_make_room_first() {
    let nodes = cluster(1, 4, Some(10_000));
    let table = &nodes[0].table;
    for k in 0..4 {
        count(&nodes[0], k, 1, 1_000 + u64::from(k)).unwrap();
    }
    table.remove(&key(0), 1_100);
    assert_eq!(table.used(1_100), 3);
    count(&nodes[0], 10, 1, 1_200).unwrap();
    assert_eq!((table.used(1_200), table.events().evictions), (4, 0));
    assert_eq!(table.replica().unwrap().counters().edicts_dropped, 1);
    assert_eq!(table.used(11_010), 1, "three in their grace");
    for k in 20..23 {
        count(&nodes[0], k, 1, 11_020).unwrap();
    }
    assert_eq!((table.used(11_030), table.events().evictions), (4, 0));
    count(&nodes[0], 30, 1, 11_040).unwrap();
    assert_eq!((table.used(11_040), table.events().evictions), (4, 1));
    assert_eq!(table.used(40_000), 0);
    assert_eq!(table.events().expirations, 7);
}

/// Threads count on both nodes while others exchange: nothing is lost or counted twice. A second table, too small for its
/// keys, makes slots change hands under the journal's feet.
#[test]
fn events_and_exchange_at_once() {
    const KEYS: u32 = 500;
    const EVENTS: u32 = 20_000;
    for size in [20_000, 64] {
        let mut nodes = cluster(2, size, Some(600_000));
        let done = &std::sync::atomic::AtomicUsize::new(0);
        let tables = &nodes;
        std::thread::scope(|scope| {
            for (i, node) in tables.iter().enumerate() {
                for thread in 0..2_u32 {
                    scope.spawn(move || {
                        for n in 0..EVENTS {
                            let k = (n * 7 + thread + i as u32) % KEYS;
                            if let Ok(at) = node.table.track(&key(k), 1_000) {
                                node.table.write(at, |mut e| {
                                    e.inc(D::HttpReqCnt, 0, 1, 1_000);
                                });
                                node.table.untrack(at, 1_000);
                            }
                        }
                        done.fetch_add(1, Relaxed);
                    });
                }
            }
            for (from, to) in [(0, 1), (1, 0)] {
                scope.spawn(move || {
                    let replica = tables[from].table.replica().unwrap();
                    let mut out = BatchWriter::new(replica.columns());
                    let mut after = 0;
                    while done.load(Relaxed) < 4 {
                        replica.collect(1_000, 5_000);
                        let read = replica.read_journal(after, BUDGET, 1_000, &mut out);
                        deliver(tables, from, to, &mut out, 1_000);
                        assert!(read.upto >= after);
                        after = read.upto;
                    }
                });
            }
        });
        settle(&mut nodes, 1_000);
        for node in &nodes {
            assert!(node.table.used(1_000) <= size);
            let replica = node.table.replica().unwrap();
            let live = node.table.used(1_000);
            assert!(replica.lag(0) <= 2 * live + 3_100, "{}", replica.lag(0));
            assert!(!replica.is_dirty());
        }
        if size > KEYS as usize {
            let total = |k| get(&nodes[0], k, D::HttpReqCnt, 1_000).unwrap();
            assert_eq!((0..KEYS).map(total).sum::<u64>(), 4 * u64::from(EVENTS));
            for k in 0..KEYS {
                assert_eq!(get(&nodes[1], k, D::HttpReqCnt, 1_000), Some(total(k)));
                assert_eq!(get(&nodes[1], k, D::ConnCur, 1_000), Some(0));
            }
        }
    }
}

#[test]
fn tags_go_to_another_table_as_well() {
    let mut nodes = cluster(2, 100, Some(60_000));
    let lineages = Arc::clone(nodes[1].table.replica().unwrap().lineages());
    let mut with_target = spec(100, Some(60_000));
    with_target.write_to = Some(crate::table::TableId(1));
    nodes[1].table = Table::new_replicated(with_target, 5, lineages);
    let target = Table::new(spec(100, Some(60_000)), 6);
    nodes[0]
        .table
        .upsert(&key(1), 1_000, |mut e| {
            e.inc(D::HttpReqCnt, 0, 3, 1_000);
            e.set_exact(D::Gpt, 1, 7, 1_000);
            e.set_exact(D::ServerId, 0, 4, 1_000);
            e.set_server_key(b"s4");
        })
        .unwrap();
    count(&nodes[0], 2, 1, 1_000).unwrap();
    let source = nodes[0].table.replica().unwrap();
    source.collect(1_000, usize::MAX);
    let mut out = BatchWriter::new(source.columns());
    source.read_journal(0, BUDGET, 1_000, &mut out);
    let applied = deliver(&nodes, 0, 1, &mut out, 1_000);
    target.write_tags(&applied.tags, 1_000);
    let read = target.peek(&key(1), 1_000, |e| {
        let get = |what, index| e.get(what, index, 1_000).unwrap();
        let numbers = [
            get(D::Gpt, 0),
            get(D::Gpt, 1),
            get(D::ServerId, 0),
            get(D::HttpReqCnt, 0),
        ];
        (numbers, e.server_key().unwrap())
    });
    assert_eq!(read, Some(([0, 7, 4, 0], Arc::from(&b"s4"[..]))));
    assert_eq!(target.used(1_000), 1);
}

/// Flags and edicts of the own row of a key.
fn own_row(node: &Node, k: u32, now: u64) -> (RowHead, Vec<Stamp>) {
    let replica = node.table.replica().unwrap();
    let mut out = BatchWriter::new(replica.columns());
    replica.read_keys(&[key(k)], now, &mut out);
    let columns = out.finish();
    let mut reader = BatchReader::new(&columns, replica.columns()).unwrap();
    let (_, head, edicts) = reader.next_row().unwrap();
    assert_eq!(head.lineage, node.lineage);
    (head, edicts.map(|edict| edict.stamp).collect())
}

/// Assignments that come without a time know it from whoever entered or kept up the table last.
#[test]
fn stamps_on_idle_tables_are_not_old() {
    const HOUR: u64 = 3_600_000;
    for tracked in [false, true] {
        let node = &cluster(1, 100, None)[0];
        let at = node.table.track(&key(1), 1_000).unwrap();
        node.table.write(at, |mut e| {
            e.inc(D::HttpReqCnt, 0, 3, 1_000);
        });
        node.table.replica().unwrap().collect(1_000, 100);
        if tracked {
            node.table.maintain(HOUR, 100);
            node.table.write(at, |mut e| e.clr(D::HttpReqCnt, 0));
        } else {
            let clear = node
                .table
                .upsert(&key(1), HOUR, |mut e| e.clr(D::HttpReqCnt, 0));
            assert_eq!(clear, Ok(Some(3)));
        }
        let (_, stamps) = own_row(node, 1, HOUR);
        let expected = Stamp {
            ms: 1_000_000 + HOUR,
            lineage: node.lineage,
        };
        assert_eq!(stamps, [expected], "tracked {tracked}");
    }
}

/// An entry stays fresh for five seconds after all have heard of it, however old a life others know of it.
#[test]
fn offers_have_time_to_arrive() {
    let mut nodes = cluster(2, 100, Some(600_000));
    let now = 100_000;
    nodes[1]
        .table
        .upsert(&key(1), now - 60_000, |_| ())
        .unwrap();
    nodes[0].table.upsert(&key(1), now, |_| ()).unwrap();
    push(&mut nodes, 1, 0, now);
    let is_fresh = |now: u64| {
        let replica = nodes[0].table.replica().unwrap();
        replica.set_acked_by_all(u64::MAX, now);
        nodes[0].table.upsert(&key(1), now, |_| ()).unwrap();
        let (head, _) = own_row(&nodes[0], 1, now);
        assert!(head.born_age_ms >= 60_000);
        head.flags.contains(RowFlags::FRESH)
    };
    assert!(is_fresh(now));
    assert!(is_fresh(now + 1_000));
    assert!(is_fresh(now + 4_999));
    assert!(!is_fresh(now + 5_000));
}

/// An entry whose tracker ended and which was removed before anybody was told: the others hear that it is held no more.
#[test]
fn a_release_is_told_although_its_entry_is_gone() {
    for expire_ms in [None, Some(10_000)] {
        let mut nodes = cluster(2, 2, expire_ms);
        nodes[1] = cluster(2, 100, expire_ms).remove(1);
        let held = |node: &Node, now| node.table.peek(&key(1), now, |e| e.get(D::ConnCur, 0, now));
        let at = nodes[0].table.track(&key(1), 1_000).unwrap();
        push(&mut nodes, 0, 1, 1_000);
        assert_eq!(held(&nodes[1], 1_000), Some(Some(1)));
        nodes[0].table.untrack(at, 1_001);
        for k in 2..4 {
            nodes[0].table.upsert(&key(k), 1_002, |_| ()).unwrap();
        }
        assert_eq!(held(&nodes[0], 1_002), None, "evicted");
        push(&mut nodes, 0, 1, 1_002);
        assert_eq!(held(&nodes[1], 1_002), Some(Some(0)));
        assert_eq!(push(&mut nodes, 0, 1, 1_003), 0, "told once");
        if let Some(ms) = expire_ms {
            let late = 1_002 + u64::from(ms);
            assert_eq!(held(&nodes[1], late), None, "nobody holds it");
        }
    }
}

/// In a new life that begins before the release of the last one was told.
#[test]
fn a_release_is_told_although_its_entry_begins_anew() {
    let mut nodes = cluster(2, 100, Some(1_000));
    let at = nodes[0].table.track(&key(1), 1_000).unwrap();
    push(&mut nodes, 0, 1, 1_000);
    nodes[0].table.untrack(at, 1_500);
    nodes[0].table.upsert(&key(1), 2_600, |_| ()).unwrap();
    push(&mut nodes, 0, 1, 2_600);
    let held = nodes[1]
        .table
        .peek(&key(1), 2_600, |e| e.get(D::ConnCur, 0, 2_600));
    assert_eq!(held, Some(Some(0)));
}

/// Nobody reads them: they are bounded, and those that were dropped are counted.
#[test]
fn untold_releases_are_bounded() {
    let node = &cluster(1, 1, None)[0];
    let replica = node.table.replica().unwrap();
    for k in 0..20_000 {
        let at = node.table.track(&key(k), 1_000).unwrap();
        replica.collect(1_000, 10);
        node.table.untrack(at, 1_000);
    }
    let dropped = replica.counters().releases_dropped;
    assert_eq!(dropped, 20_000 - 1 - 16_384);
    assert!(replica.lag(0) <= 2 * (16_384 + 1_024), "{}", replica.lag(0));
}
