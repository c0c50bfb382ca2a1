//! What the nodes of the simulated world hold, of the living and of the dead.

use std::collections::BTreeMap;

use remora_core::table::{Cursor, Key, Lineage, Table};

use super::{Counted, World};

impl World {
    /// What survivors hold of the dead now is what must still be there at the end.
    pub(super) fn set_floors(&mut self) {
        for dead in self.dead.values_mut() {
            dead.floor = Counted::new();
        }
        for node in 0..self.nodes.len() {
            for (lineage, cells) in self.all_cells(node) {
                let Some(dead) = self.dead.get_mut(&lineage) else {
                    continue;
                };
                for (place, value) in cells {
                    let most = dead.floor.entry(place).or_insert(0);
                    *most = (*most).max(value);
                }
            }
        }
    }
    /// What a node's tables hold of a lineage, what is 0 left out.
    pub fn cells(&self, node: usize, lineage: Lineage) -> Counted {
        self.all_cells(node).remove(&lineage).unwrap_or_default()
    }
    /// The same of all lineages.
    pub fn all_cells(&self, node: usize) -> BTreeMap<Lineage, Counted> {
        let mut cells: BTreeMap<Lineage, Counted> = BTreeMap::new();
        let Some(life) = &self.nodes[node].life else {
            return cells;
        };
        let mono = self.now - self.nodes[node].mono_offset;
        for (t, table) in life.stores.tables.iter().enumerate() {
            let replica = table.table.replica().unwrap();
            for key in keys(&table.table, mono) {
                replica.origins(&Key::from_stored(&key), mono, |origin| {
                    for stored in &table.table.spec().store {
                        for index in 0..stored.elements {
                            let what = (stored.data_type, index);
                            let value = origin.get(what.0, what.1, mono).unwrap_or(0);
                            if value > 0 {
                                let of = cells.entry(origin.lineage).or_default();
                                of.insert((t, key.clone(), what), value);
                            }
                        }
                    }
                });
            }
        }
        cells
    }

    /// Cells of the dead that the running nodes have forgotten.
    pub fn forgotten(&self) -> u64 {
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        let tables = lives.flat_map(|life| &life.stores.tables);
        tables
            .map(|t| t.table.replica().unwrap().counters().cells_forgotten)
            .sum()
    }
}

/// Keys of the living entries of a table, in order.
pub fn keys(table: &Table, mono: u64) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut cursor = Cursor::default();
    while !table.dump(&mut cursor, mono, 1_000, |entry| {
        keys.push(entry.key().to_vec());
    }) {}
    keys.sort();
    keys
}
