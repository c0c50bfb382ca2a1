//! What a process keeps of a table that it has handed over, and in which order the other one gets it.

use std::sync::Arc;

use remora_core::table::{Cursor, DataType as D, Lineage, Lineages, Table};

use crate::hand_over;
use crate::table_common::{Build, number, spec, text_of};

pub(super) const ENTRIES: u32 = 50_000;
pub(super) const NOW: u64 = 50_000;

fn build() -> Build {
    spec("integer")
        .store("http_req_cnt,conn_cur,http_req_rate(10s)")
        .size(60_000)
        .expire(600_000)
}

/// Without peers, and with them.
pub(super) fn tables(seed: u64) -> [Table; 2] {
    let lineages = Arc::new(Lineages::new(Lineage(1)));
    [
        Table::new(build().spec(), seed),
        Table::new_replicated(build().spec(), seed, lineages),
    ]
}

pub(super) fn filled(t: &Table) {
    for n in 0..ENTRIES {
        t.upsert(&number(n), NOW, |mut e| {
            e.inc(D::HttpReqCnt, 0, 1, NOW);
        })
        .unwrap();
    }
    if let Some(replica) = t.replica() {
        replica.collect(NOW, usize::MAX);
    }
}

pub(super) fn order(t: &Table) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = Cursor::default();
    while !t.dump(&mut cursor, NOW, 1_000, |e| all.push(text_of(t, e.key()))) {}
    all
}

#[test]
fn a_table_with_the_same_seed_is_filled_shard_by_shard() {
    for (old, new) in tables(5).into_iter().zip(tables(5)) {
        filled(&old);
        new.expect(old.count());
        let expected = new.memory_bytes();
        hand_over(&old, &new, NOW);
        assert_eq!(order(&new), order(&old));
        assert!(expected < new.memory_bytes());
        assert_eq!((old.seed(), new.count()), (5, ENTRIES as usize));
    }
}

#[test]
fn what_is_held_or_wanted_stays_and_goes_on_counting() {
    for (old, new) in tables(5).into_iter().zip(tables(6)) {
        filled(&old);
        let held = old.track(&number(7), NOW).unwrap();
        let mut ledger = hand_over(&old, &new, NOW);
        ledger.pin(std::slice::from_ref(&new), NOW);
        let before = old.memory_bytes();
        old.strip(&[number(8), number(ENTRIES + 1)], NOW);
        let after = old.memory_bytes();
        assert!(after * 5 < before, "{after} of {before} bytes are left");
        let mut left = order(&old);
        left.sort();
        assert_eq!(left, ["7", "8"]);
        assert_eq!(old.used(NOW), 2);

        old.write(held, |mut e| e.inc(D::HttpReqCnt, 0, 2, NOW));
        for n in [8, 9] {
            old.upsert(&number(n), NOW, |mut e| {
                e.inc(D::HttpReqCnt, 0, 10, NOW);
            })
            .unwrap();
        }
        old.untrack(held, NOW);
        assert!(!old.maintain(NOW, 100_000));
        let mut deltas = Default::default();
        while old.take_deltas(100, &mut deltas) {}
        assert_eq!(deltas.len(), 3, "{deltas:?}");
        for (key, delta) in &deltas {
            let id = crate::TABLE;
            ledger
                .apply(std::slice::from_ref(&new), id, key, delta, NOW)
                .unwrap();
        }
        for (n, count) in [(6, 1), (7, 3), (8, 11), (9, 11)] {
            let got = new.peek(&number(n), NOW, |e| {
                (e.get(D::HttpReqCnt, 0, NOW), e.get(D::ConnCur, 0, NOW))
            });
            assert_eq!(got, Some((Some(count), Some(0))), "key {n}");
        }
        assert!(ledger.is_empty());
        // There is room again, and slots are handed out that have a place.
        filled(&old);
        assert_eq!(old.used(NOW), ENTRIES as usize);
    }
}
