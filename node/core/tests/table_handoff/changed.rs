//! What passes to a table that is smaller, has shorter keys, or has heard of peers already.

use std::collections::BTreeSet;
use std::sync::Arc;

use remora_core::table::{
    DataType as D, Exporter, Importer, Key, KeyType, Ledger, Lineage, Lineages, Table,
};

use crate::table_common::{Build, Steps, number, spec, table, text_of};
use crate::{TABLE, contents, finish};

fn pass(old: &Table, new: &Table, shrinks: bool, now: u64) -> (Ledger, u64, u64) {
    old.follow(true);
    let mut exporter = Exporter::new(old);
    let mut importer = Importer::new(new, exporter.definition()).unwrap();
    if shrinks {
        importer.shrinks();
    }
    let mut ledger = Ledger::new();
    // All of it at first, then the rest.
    loop {
        let step = exporter.walk(crate::BUDGET, now);
        importer
            .take(&step.slice, 0, |key, uses, gauge| {
                ledger.set(TABLE, key, uses, gauge);
            })
            .unwrap();
        if step.done {
            break;
        }
    }
    importer.settle(now);
    let (evicted, too_long) = (importer.evicted(), importer.too_long());
    finish(old, &mut exporter, importer, &mut ledger, || now);
    (ledger, evicted, too_long)
}

#[test]
fn a_smaller_table_keeps_what_is_held_and_what_was_touched_last() {
    const NOW: u64 = 500_000;
    const MANY: u32 = 20_000;
    for (size, nopurge, shared) in [
        (50, false, false),
        (5_000, true, false),
        (9_000, false, true),
    ] {
        let build = |size| {
            let build = spec("integer").store("http_req_cnt,conn_cur").size(size);
            if nopurge { build.nopurge() } else { build }
        };
        let make = |build: Build, seed| {
            if shared {
                let lineages = Arc::new(Lineages::new(Lineage(7)));
                Table::new_replicated(build.spec(), seed, lineages)
            } else {
                Table::new(build.spec(), seed)
            }
        };
        let old = make(build(30_000), 5);
        // In an order that has nothing to do with their places.
        let mut steps = Steps(size as u64);
        let mut dates: Vec<(u64, u32)> = (0..MANY).map(|n| (steps.next(400_000), n)).collect();
        for (date, n) in &dates {
            let at = 10_000 + date;
            let used = old.upsert(&number(*n), at, |mut e| {
                e.inc(D::HttpReqCnt, 0, 1, at);
            });
            used.unwrap();
        }
        dates.sort_unstable();
        // The oldest of all are held.
        let held: Vec<u32> = dates.iter().take(20).map(|(_, n)| *n).collect();
        let trackers: Vec<_> = held
            .iter()
            .map(|n| old.track(&number(*n), 10_000).unwrap())
            .collect();
        if let Some(replica) = old.replica() {
            replica.collect(NOW, usize::MAX);
        }
        let new = make(build(size), 6);
        let (mut ledger, evicted, _) = pass(&old, &new, true, NOW);
        ledger.pin(std::slice::from_ref(&new), NOW);
        let kept: BTreeSet<u32> = contents(&new, NOW)
            .keys()
            .map(|key| key.parse().unwrap())
            .collect();
        let newest = dates.iter().rev().take(size - held.len());
        let wanted: BTreeSet<u32> = newest
            .map(|(_, n)| *n)
            .chain(held.iter().copied())
            .collect();
        assert!(
            kept == wanted,
            "{:?}",
            kept.symmetric_difference(&wanted).count()
        );
        let gone = u64::from(MANY) - size as u64;
        assert_eq!((new.events().evictions, evicted), (gone, gone));
        assert_eq!(ledger.len(), held.len());
        // They go when their trackers have, and the table is as good as any other.
        ledger.end(std::slice::from_ref(&new), NOW);
        assert_eq!(trackers.len(), held.len());
        for n in MANY..MANY + 30 {
            assert_eq!(new.upsert(&number(n), NOW, |_| ()).is_ok(), !nopurge);
        }
        assert!(new.count() <= size);
    }
}

#[test]
fn evictions_of_a_full_table_count_once() {
    let build = || spec("integer").store("gpc0").size(100);
    let (old, new) = (table(build()), table(build()));
    let enter = |t: &Table, n: u32| {
        let now = 1_000 + u64::from(n);
        t.upsert(&number(n), now, |mut e| {
            e.inc(D::Gpc0, 0, 1, now);
        })
        .unwrap();
    };
    for n in 0..100 {
        enter(&old, n);
    }
    old.follow(true);
    let mut exporter = Exporter::new(&old);
    let mut importer = Importer::new(&new, exporter.definition()).unwrap();
    let step = exporter.walk(crate::BUDGET, 2_000);
    importer.take(&step.slice, 0, |_, _, _| {}).unwrap();
    for n in 100..130 {
        enter(&old, n);
    }
    finish(&old, &mut exporter, importer, &mut Ledger::new(), || 2_000);
    assert_eq!(contents(&new, 2_000), contents(&old, 2_000));
    assert_eq!((old.events().evictions, new.events().evictions), (30, 0));
}

#[test]
fn shorter_keys_keep_those_that_fit() {
    let key = |text: &str, len| Key::from_typed(text.as_bytes(), KeyType::String, len).unwrap();
    let build = |len| spec("string").len(len).store("gpc0,conn_cur");
    let (old, new) = (table(build(12)), table(build(8)));
    for text in ["short", "12345678", "123456789", "a-longer-key"] {
        old.upsert(&key(text, 12), 1, |mut e| {
            e.inc(D::Gpc0, 0, 3, 1);
        })
        .unwrap();
    }
    let held = old.track(&key("a-longer-key", 12), 1).unwrap();
    let (mut ledger, _, too_long) = pass(&old, &new, false, 2);
    assert_eq!(too_long, 2);
    let kept: Vec<String> = contents(&new, 2).into_keys().collect();
    assert_eq!(kept, ["12345678", "short"]);
    assert!(ledger.is_empty());
    // What the old process still counts for the others has no place either.
    old.upsert(&key("a-longer-key", 12), 3, |mut e| {
        e.inc(D::Gpc0, 0, 1, 3);
    })
    .unwrap();
    old.untrack(held, 3);
    let mut deltas = std::collections::BTreeMap::new();
    old.take_deltas(100, &mut deltas);
    assert!(!deltas.is_empty());
    for (key, delta) in &deltas {
        let tables = std::slice::from_ref(&new);
        ledger.apply(tables, TABLE, key, delta, 4).unwrap();
    }
    assert_eq!((new.count(), new.events().refusals), (2, 0));
    // Longer ones keep all.
    let longer = table(build(40));
    let (_, _, too_long) = pass(&old, &longer, false, 5);
    assert_eq!((longer.count(), too_long), (4, 0));
    // Binary keys are padded: another length makes others of them.
    let binary = |len| spec("binary").len(len).store("gpc0");
    let (old, new) = (table(binary(12)), table(binary(8)));
    let why = Importer::new(&new, Exporter::new(&old).definition()).err();
    let why = why.unwrap();
    assert_eq!(why, "its keys are 8 bytes long now, and were 12");
}

/// The process before had no peers; this one has learned from them already.
#[test]
fn what_peers_told_stays_beside_what_was_counted_here() {
    let build = || spec("integer").store("gpc0,gpt0");
    let lineages = |own| {
        let lineages = Arc::new(Lineages::new(Lineage(own)));
        for id in [71, 72] {
            let index = lineages.index(Lineage(id)).unwrap();
            lineages.set_alive(index, true);
        }
        lineages
    };
    let peer = Table::new_replicated(build().spec(), 1, lineages(71));
    let new = Table::new_replicated(build().spec(), 2, lineages(72));
    for t in [&peer, &new] {
        t.set_wall_offset(1_000_000_000_000);
    }
    let count = |t: &Table, n: u32, times: u64, now: u64| {
        t.upsert(&number(n), now, |mut e| {
            e.inc(D::Gpc0, 0, times, now);
        })
        .unwrap();
    };
    count(&peer, 1, 5, 10);
    count(&peer, 2, 5, 10);
    peer.upsert(&number(1), 10, |mut e| {
        e.set(D::Gpt0, 0, 9, 10);
    })
    .unwrap();
    crate::replicated::pass(&peer, &new, &mut 0, Lineage(71), 20);
    let old = table(build());
    count(&old, 1, 1, 15);
    count(&old, 3, 1, 15);
    old.upsert(&number(1), 16, |mut e| {
        e.set(D::Gpt0, 0, 4, 16);
    })
    .unwrap();
    old.follow(true);
    let mut exporter = Exporter::new(&old);
    let mut importer = Importer::new(&new, exporter.definition()).unwrap();
    let step = exporter.walk(crate::BUDGET, 30);
    importer.take(&step.slice, 0, |_, _, _| {}).unwrap();
    // It is shown again, in another state.
    count(&old, 1, 2, 31);
    finish(&old, &mut exporter, importer, &mut Ledger::new(), || 40);
    let value = |t: &Table, n: u32, what| t.peek(&number(n), 50, |e| e.get(what, 0, 50).unwrap());
    assert_eq!(value(&new, 1, D::Gpc0), Some(8), "5 there, 3 here");
    assert_eq!(value(&new, 1, D::Gpt0), Some(9), "with a date");
    assert_eq!(value(&new, 2, D::Gpc0), Some(5));
    assert_eq!(value(&new, 3, D::Gpc0), Some(1));
    // The peer hears of what was counted here.
    crate::replicated::pass(&new, &peer, &mut 0, Lineage(72), 60);
    for (n, sum) in [(1, 8), (2, 5), (3, 1)] {
        assert_eq!(
            value(&peer, n, D::Gpc0),
            Some(sum),
            "{}",
            text_of(&peer, number(n).as_bytes())
        );
    }
}

/// Removals by hand are noted, but not without bound: the receiver must not serve if it cannot be told of all.
#[test]
fn too_many_removals_spoil_a_hand_over() {
    let old = table(spec("integer").store("gpc0"));
    let new = table(spec("integer").store("gpc0"));
    for (many, lost) in [(1 << 18, false), ((1 << 18) + 1, true)] {
        old.follow(true);
        let mut exporter = Exporter::new(&old);
        let mut importer = Importer::new(&new, exporter.definition()).unwrap();
        let step = exporter.walk(crate::BUDGET, 1);
        importer.take(&step.slice, 0, |_, _, _| {}).unwrap();
        for _ in 0..many {
            old.upsert(&number(7), 2, |_| ()).unwrap();
            let _removed = old.remove(&number(7), 2);
        }
        exporter.rewind();
        while !exporter.changes(crate::BUDGET, 3, false).done {}
        assert_eq!(exporter.has_lost(), lost);
        // The next one begins anew.
        old.follow(false);
    }
}
