//! Processes that continue the lineage of another: newcomers that of a node that ended, and new processes that of the one
//! before.

use std::collections::BTreeMap;
use std::sync::Arc;

use remora_core::peers::Inheritance;
use remora_core::peers::batch::Budget;
use remora_core::table::{DataType, Exporter, Importer, Key, Lineage, Lineages, TableId};

use super::World;
use crate::stores::Mutant;

const SLICE: Budget = Budget {
    rows: 3,
    bytes: 48 << 10,
};

impl World {
    /// A newcomer goes on under the lineage of a node that ended: what that counted is what this one has counted.
    pub(super) fn succeeds(&mut self, node: usize, heir: Lineage) {
        self.log(|| format!("node{node} continues {:016x}", heir.0));
        self.successions += 1;
        let mut counted = self.dead.remove(&heir).map(|dead| dead.counted);
        let others = self.running().into_iter().filter(|other| *other != node);
        for other in others {
            let life = self.life(other);
            if life.lineage == heir {
                // It has given all of it to its heir, and tells others the last of it still.
                assert!(life.stopping, "node{other} has that lineage");
                counted = Some(std::mem::take(&mut life.counted));
            }
        }
        let life = self.life(node);
        life.lineage = heir;
        for (place, n) in counted.into_iter().flatten() {
            *life.counted.entry(place).or_insert(0) += n;
        }
    }

    /// A new process takes over while the old one goes on for `between` ms, and counts what `late` says after that.
    pub fn reload(&mut self, node: usize, between: u64, late: &[(usize, Vec<u8>, u64)]) {
        let lineage = self.life(node).lineage;
        if !self.life(node).ready || self.life(node).stopping {
            return;
        }
        self.log(|| format!("reload node{node}, {lineage}"));
        let lineages = Arc::new(Lineages::new(lineage));
        let old = self.life(node).stores.clone();
        let seed = self.rng.next();
        let new = self.make_stores(node, &lineages, seed);
        let tables = || {
            old.tables
                .iter()
                .zip(&new.tables)
                .map(|(a, b)| (&a.table, &b.table))
        };
        let mut ways: Vec<_> = tables()
            .map(|(old, new)| {
                old.follow(true);
                let exporter = Exporter::new(old);
                let importer = Importer::new(new, exporter.definition()).unwrap();
                (exporter, importer)
            })
            .collect();
        // Pieces of the walk, with life in between.
        for piece in 0.. {
            let mono = self.mono(node);
            let mut done = true;
            for (exporter, importer) in &mut ways {
                let step = exporter.walk(SLICE, mono);
                importer.take(&step.slice, 0, |_, _, _| {}).unwrap();
                done &= step.done;
            }
            let until = self.now + if piece == 0 { between } else { 1 };
            self.run_until(until);
            if done {
                break;
            }
        }
        let mono = self.mono(node);
        for (table, _, at) in std::mem::take(&mut self.life(node).trackers) {
            old.tables[table].table.untrack(at, mono);
        }
        // From here on nothing is confirmed to anybody.
        let mut known: Vec<(TableId, Inheritance)> = self.life(node).hub.suspend();
        if self.mutant == Mutant::InheritsTooMuch {
            let read = known.iter_mut().flat_map(|(_, table)| &mut table.known);
            for (_, all, resume, _) in read {
                (*all, *resume) = (*all + 2, *resume + 2);
            }
        }
        let lives = self.life(node).hub.lives();
        self.pump(node);
        for ((_, importer), (_, known)) in ways.iter().zip(&mut known) {
            if importer.has_gained() {
                known.void();
            }
        }
        for ((mut exporter, mut importer), (old, new)) in ways.into_iter().zip(tables()) {
            importer.settle(mono);
            exporter.rewind();
            loop {
                let step = exporter.changes(SLICE, mono, true);
                importer.take(&step.slice, 0, |_, _, _| {}).unwrap();
                if step.done {
                    break;
                }
            }
            importer.seal(mono);
            let (old, new) = (old.replica().unwrap(), new.replica().unwrap());
            new.inherit(old.newest(), &old.highest_of_all());
        }
        let Some(life) = self.nodes[node].life.take() else {
            return;
        };
        self.reloads += 1;
        self.begin(node, &lineages, new.clone(), false, seed);
        let successor = self.life(node);
        successor.counted = life.counted;
        for (table, inheritance) in &known {
            successor.hub.inherit(*table, inheritance);
        }
        successor.hub.inherit_lives(&lives, mono);
        // What the old one counts while it drains.
        for (table, key, n) in late {
            let Some(old) = old.tables.get(*table) else {
                continue;
            };
            let key = Key::from_stored(key);
            let counted = old
                .table
                .upsert(&key, mono, |mut e| e.inc(DataType::Gpc0, 0, *n, mono));
            if counted.is_ok() {
                let counted = &mut self.life(node).counted;
                for what in [DataType::Gpc0, DataType::Gpc0Rate] {
                    if old.table.stores_exact(what, 0) {
                        *counted
                            .entry((*table, key.as_bytes().to_vec(), (what, 0)))
                            .or_insert(0) += n;
                    }
                }
            }
        }
        for (old, new) in tables() {
            let mut deltas = BTreeMap::new();
            old.take_deltas(usize::MAX, &mut deltas);
            for (key, delta) in deltas {
                // A table that is full refuses; that is the only reason.
                let _ = new.apply_delta(&key, &delta, mono);
            }
        }
        self.pump(node);
    }
}
