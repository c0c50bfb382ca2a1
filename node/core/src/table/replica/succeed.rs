//! A process that has just been taught continues the lineage of a node that has ended.

use super::Replica;
use super::inherit::Late;
use super::journal::Item;
use super::state::flags;
use crate::table::lineage::Lineage;
use crate::table::schema::{FLAGS, ReplicaLayout, VERSION, set_wide, set_word, wide, word};
use crate::table::shard::Shard;
use crate::table::{Cursor, Table};

/// See [`Replica::can_succeed`].
pub(super) fn can(replica: &Replica<'_>, of: Lineage) -> bool {
    if replica.newest() > 0 {
        return false;
    }
    let index = replica.shared.lineages.find(of);
    let Some(index) = index.filter(|index| *index > 0) else {
        return true; // it has counted nothing that is left
    };
    let table: &Table = replica.table;
    let mut sound = true;
    table.walk_while(&mut Cursor::default(), |shard, at| {
        let record = shard.record(at.slot);
        let Some(cells) = shard.replica.as_deref() else {
            return true;
        };
        if let Some(cell) = cells.find_cell(record, index) {
            sound &= !cell.is_partial() && wide(record, VERSION) == 0;
        }
        sound
    });
    sound
}

/// See [`Replica::succeed`].
pub(super) fn take(replica: &Replica<'_>, of: Lineage, newest: u64, now_ms: u64) {
    let index = replica.shared.lineages.find(of);
    if let Some(index) = index.filter(|index| *index > 0) {
        let table: &Table = replica.table;
        let mut items = Late::new();
        table.walk_while(&mut Cursor::default(), |shard, at| {
            items.extend(shard.become_own(replica.layout, at.slot, index, now_ms));
            true
        });
        replica.journal_inherited(items);
    }
    replica.resume_from(newest);
    replica.shared.highest.lock().remove(&of);
}

impl Shard {
    /// Makes another lineage's cell the own one. Returns its place in the journal.
    fn become_own(
        &mut self,
        layout: &ReplicaLayout,
        slot: u32,
        index: u16,
        now_ms: u64,
    ) -> Option<Item> {
        let (record, replica) = self.parts(slot);
        let replica = replica?;
        let cell = replica.find_cell(record, index)?;
        let (data, version) = (cell.bytes.to_vec(), cell.version());
        for column in layout.summed() {
            super::merge::add(column, record, &data, now_ms);
        }
        replica.drop_cell(record, index);
        let bits = word(record, FLAGS) & !flags::FRESH;
        set_word(record, FLAGS, bits | flags::JOURNALED);
        set_wide(record, VERSION, version);
        if bits & flags::EXT != 0
            && let Some(ext) = replica.ext_mut(slot)
        {
            ext.own_epoch = ext.epoch_of(index);
            ext.epochs.retain(|(of, _)| *of != index);
        }
        Some(Item {
            number: version,
            slot,
            shard: replica.number,
        })
    }
}
