//! Trackers of a lineage that was away for long.

use super::Replica;
use super::cells::{CELL_HELD, CELL_PARTIAL};
use super::state::flags;
use crate::table::data_type::Kind;
use crate::table::lineage::Lineage;
use crate::table::schema::{CELL_LINEAGE, FLAGS, set_word, word};
use crate::table::{Cursor, Table};

/// Takes every tracker of a lineage for gone. While it was away, it may have released and dropped entries, and no row
/// will ever say so. What is left of its cells is marked as partial, so that rows of the same version bring back the
/// trackers that are still there.
pub(super) fn forget(replica: &Replica<'_>, lineage: Lineage) {
    let Some(index) = replica.shared.lineages.find(lineage).filter(|i| *i > 0) else {
        return;
    };
    let table: &Table = replica.table;
    let gauges: Vec<usize> = replica
        .layout
        .summed()
        .iter()
        .filter(|column| column.kind == Kind::Gauge)
        .map(|column| column.remote)
        .collect();
    let mut cursor = Cursor::default();
    table.walk_while(&mut cursor, |shard, at| {
        let (record, Some(cells)) = shard.parts(at.slot) else {
            return true;
        };
        if word(record, FLAGS) & flags::TOMB != 0 {
            return true;
        }
        let Some(slot) = cells.find_cell(record, index).map(|cell| cell.slot) else {
            return true;
        };
        let cell = cells.cells.record_mut(slot);
        let head = word(cell, CELL_LINEAGE);
        let counted = gauges.iter().any(|at| word(cell, *at) > 0);
        if head & CELL_HELD != 0 || counted {
            set_word(cell, CELL_LINEAGE, (head & !CELL_HELD) | CELL_PARTIAL);
            for at in &gauges {
                set_word(cell, *at, 0);
            }
        }
        true
    });
}
