//! Several threads take rows over at the same time.

use remora_core::peers::batch::BatchWriter;
use remora_core::table::{DataType as D, Exporter, Importer, Ledger, Replica, Slice, Table};

use crate::strip::{ENTRIES, NOW, filled, order, tables};
use crate::table_common::number;
use crate::{BUDGET, TABLE, contents};

const FORKS: usize = 3;

/// The last fork does all that it has to before any other begins: as far apart as threads can be.
fn take(importer: &mut Importer<'_>, ledger: &mut Ledger, slices: &[Slice]) {
    for fork in (0..FORKS).rev() {
        let mut by = importer.fork().unwrap();
        let mut held = Ledger::new();
        let of = |slice: &&Slice| slice.stripe as usize % FORKS == fork;
        for slice in slices.iter().filter(of) {
            assert_ne!(slice.stripe, 0);
            by.take(slice, 0, |key, uses, gauge| {
                held.set(TABLE, key, uses, gauge);
            })
            .unwrap();
        }
        ledger.extend(held);
        importer.join(&by);
    }
}

fn round(exporter: &mut Exporter<'_>, last: bool) -> Vec<Slice> {
    let mut slices = Vec::new();
    exporter.rewind();
    loop {
        let step = exporter.changes(BUDGET, NOW, last);
        slices.push(step.slice);
        if step.done {
            slices.retain(|slice| !slice.is_empty());
            return slices;
        }
    }
}

fn count(t: &Table, keys: impl Iterator<Item = u32>) {
    for n in keys {
        t.upsert(&number(n), NOW, |mut e| {
            e.inc(D::HttpReqCnt, 0, 1, NOW);
        })
        .unwrap();
    }
}

/// Rows that a peer gets that has nothing yet.
fn journal(replica: &Replica<'_>) -> usize {
    let mut out = BatchWriter::new(replica.columns());
    let (mut upto, mut rows) = (0, 0);
    loop {
        let read = replica.read_journal(upto, BUDGET, NOW, &mut out);
        rows += out.finish().rows as usize;
        upto = read.upto;
        if !read.more {
            return rows;
        }
    }
}

#[test]
fn rows_of_a_key_are_never_taken_in_another_order() {
    for seed in [5, 6] {
        for (old, new) in tables(5).into_iter().zip(tables(seed)) {
            filled(&old);
            let held = old.track(&number(7), NOW).unwrap();
            old.follow(true);
            let mut exporter = Exporter::new(&old);
            let mut importer = Importer::new(&new, exporter.definition()).unwrap();
            let mut slices = Vec::new();
            for i in 0.. {
                // Entries change, come and go on the way.
                count(&old, (i * 40..i * 40 + 80).map(|n| n % ENTRIES));
                old.remove(&number(ENTRIES - 1 - i), NOW);
                let step = exporter.walk(BUDGET, NOW);
                slices.push(step.slice);
                if step.done {
                    break;
                }
            }
            slices.retain(|slice| !slice.is_empty());
            slices.extend(round(&mut exporter, false));
            old.untrack(held, NOW);
            let late = old.track(&number(9), NOW).unwrap();
            count(&old, (0..ENTRIES).step_by(5));
            slices.extend(round(&mut exporter, false));
            let mut ledger = Ledger::new();
            take(&mut importer, &mut ledger, &slices);
            let parts = (0..FORKS).map(|part| importer.settle_part(part, FORKS, NOW));
            let parts = parts.collect();
            importer.settled(parts);
            count(&old, (0..ENTRIES).step_by(77));
            for slice in round(&mut exporter, true) {
                importer
                    .take(&slice, 0, |key, uses, gauge| {
                        ledger.set(TABLE, key, uses, gauge);
                    })
                    .unwrap();
            }
            assert_eq!(importer.refused(), 0);
            importer.seal(NOW);
            assert_eq!(contents(&new, NOW), contents(&old, NOW));
            let keys: Vec<_> = ledger
                .iter()
                .map(|(_, key, share)| (key, share.uses))
                .collect();
            assert_eq!(keys, [(&number(9), 1)]);
            if let (Some(before), Some(after)) = (old.replica(), new.replica()) {
                assert_eq!(after.newest(), before.newest());
                assert_eq!(journal(&after), journal(&before));
            }
            if seed == 5 {
                old.untrack(late, NOW);
                assert_eq!(order(&new).len(), order(&old).len());
            }
        }
    }
}
