//! Trackers of other lineages: what is long past and still told of them.

use super::Replica;
use super::cells::{CELL_HELD, CELL_PARTIAL};
use super::state::{Shared, flags};
use crate::table::data_type::Kind;
use crate::table::lineage::{LINEAGES_MAX, Lineage};
use crate::table::schema::{CELL_LINEAGE, FLAGS, set_word, word};
use crate::table::{Cursor, Table};

/// See [`Replica::set_followed`].
pub(super) fn set_followed(shared: &Shared, lineage: Lineage, number: u64) {
    let mut followed = shared.followed.lock();
    followed.insert(lineage, number);
    if followed.len() > LINEAGES_MAX {
        followed.retain(|lineage, _| shared.lineages.find(*lineage).is_some());
    }
}

/// Whether what a third party says of a lineage's trackers of a key is over: that lineage's own journal was read here beyond
/// it, and left no trackers of the key. Otherwise a node that slept would bring trackers back that nobody ever ends.
pub(super) fn is_over(replica: &Replica<'_>, lineage: u16, key: &[u8]) -> bool {
    let table: &Table = replica.table;
    let hash = table.schema.hash(key);
    let Some(shard) = table.shards.get(table.shard_of(hash)) else {
        return true;
    };
    let shard = shard.lock();
    let held = || {
        let slot = shard.find(&table.schema, hash, key)?;
        let cell = shard
            .replica
            .as_deref()?
            .find_cell(shard.record(slot), lineage)?;
        Some(cell.is_held())
    };
    held() != Some(true)
}

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
