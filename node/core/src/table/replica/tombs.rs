//! Removing entries for the whole cluster.

use super::state::{ReplicaShard, Shared, flags};
use crate::table::Table;
use crate::table::schema::{Schema, USES};
use crate::table::shard::Shard;
use std::sync::atomic::Ordering::Relaxed;

/// Entries looked at per lock.
const SLICE: usize = 128;

impl ReplicaShard {
    /// Whether the table's own part of an entry may be removed: nobody holds it here.
    fn is_free(shard: &Shard, slot: u32) -> bool {
        shard.word(slot, USES) == 0 && !shard.is_held_elsewhere(slot)
    }
}

impl Shard {
    /// Voids everything that is known of an entry, everywhere, and turns it into a tombstone, unless someone elsewhere
    /// holds it.
    pub fn clear_entry(&mut self, schema: &Schema, slot: u32, now: u64) {
        let Some(layout) = &schema.replica else {
            return;
        };
        self.note(slot);
        let (record, Some(replica)) = self.parts(slot) else {
            return;
        };
        replica.issue_edict(layout, record, slot, None, now);
        self.bury(schema, slot, now);
    }
    /// After an edict on all columns: makes the entry a tombstone if nobody holds it and nothing is left of it. Returns
    /// whether it is one.
    pub(super) fn bury(&mut self, schema: &Schema, slot: u32, now: u64) -> bool {
        let Some(layout) = &schema.replica else {
            return false;
        };
        if self.flags(slot) & flags::TOMB != 0 {
            self.keep_longer(slot, now);
            return true;
        }
        let empty = self
            .replica
            .as_ref()
            .is_some_and(|replica| replica.nothing_left(layout, self.record(slot), now));
        let buried = empty && ReplicaShard::is_free(self, slot);
        if buried {
            self.hide(slot, flags::TOMB, now);
        }
        buried
    }
}

/// Drops tombstones whose time is over; returns how many.
pub(super) fn forget(table: &Table, now_ms: u64) -> usize {
    let mut total = 0;
    let tombstones = table.shared.as_ref().map(|s| &s.counts.tombstones);
    if tombstones.is_none_or(|n| n.load(Relaxed) == 0) {
        return 0;
    }
    for shard in &table.shards {
        loop {
            let dropped = shard.lock().drop_tombs(&table.schema, now_ms, SLICE);
            table.forget(dropped);
            total += dropped;
            if dropped < SLICE {
                break;
            }
        }
    }
    total
}

impl Shared {
    /// Entries that hold a place without being visible.
    pub fn hidden(&self) -> usize {
        self.hidden.load(Relaxed)
    }
}
