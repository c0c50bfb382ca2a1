//! Going through a whole table in slices: dumps, clearing, upkeep. A slice holds one shard's lock for at most
//! [`LOCK_SLICE`] entries; the table may change between slices.

use super::entry::Entry;
use super::shard::Shard;
use super::{EntryRef, Key, Table};

/// Records looked at per lock.
const LOCK_SLICE: u32 = 256;

/// How far a walk has come. Entries that live through the whole walk are met exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub(super) shard: usize,
    pub(super) slot: u32,
}

/// What became of an entry that should be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// There was none.
    Absent,
    /// Someone holds it.
    InUse,
}

impl Table {
    /// Shows living entries to `f`, from where `cursor` stands, looking at no more than about `budget` records.
    /// Returns whether the walk is complete. `f` runs under a shard's lock: it must be short and must not use tables.
    pub fn dump(
        &self,
        cursor: &mut Cursor,
        now_ms: u64,
        budget: usize,
        mut f: impl FnMut(Entry<'_>),
    ) -> bool {
        self.walk(cursor, budget, |shard, at| {
            if !shard.is_expired(&self.schema, at.slot, now_ms) {
                f(self.entry(shard, at));
            }
        })
    }

    /// Removes the entries that `f` picks and nobody holds, in slices like [`Table::dump`]. From a replicated table they are
    /// removed on all nodes; where a node holds one, what it has counted is voided. Returns whether the walk is complete.
    pub fn clear(
        &self,
        cursor: &mut Cursor,
        now_ms: u64,
        budget: usize,
        mut f: impl FnMut(Entry<'_>) -> bool,
    ) -> bool {
        self.walk(cursor, budget, |shard, at| {
            let entry = self.entry(shard, at);
            if entry.uses() > 0 {
                return;
            }
            let expired = shard.is_expired(&self.schema, at.slot, now_ms);
            if !expired && !f(entry) {
                return;
            }
            if shard.replica.is_some() {
                if !expired {
                    shard.clear_entry(&self.schema, at.slot, now_ms);
                }
                return;
            }
            if expired {
                shard.events.expirations += 1;
            }
            shard.note_removed(&self.schema, at.slot);
            shard.remove(&self.schema, at.slot, now_ms);
            self.forget(1);
        })
    }

    /// Removes one entry if nobody holds it. From a replicated table it is removed on all nodes; where a node holds it, what
    /// it has counted is voided.
    pub fn remove(&self, key: &Key, now_ms: u64) -> Removal {
        let hash = self.schema.hash(key.as_bytes());
        let Some(shard) = self.shards.get(self.shard_of(hash)) else {
            return Removal::Absent;
        };
        let mut shard = shard.lock();
        let Some(slot) = shard.find(&self.schema, hash, key.as_bytes()) else {
            return Removal::Absent;
        };
        let expired = shard.is_expired(&self.schema, slot, now_ms);
        if super::schema::word(shard.record(slot), super::schema::USES) > 0 {
            return Removal::InUse;
        }
        if shard.replica.is_some() {
            let tomb = super::replica::ReplicaShard::is_tomb(shard.record(slot));
            if tomb || !expired {
                // A tombstone again: what others have counted since goes too.
                shard.clear_entry(&self.schema, slot, now_ms);
            }
        } else {
            if expired {
                shard.events.expirations += 1;
            }
            shard.note_removed(&self.schema, slot);
            shard.remove(&self.schema, slot, now_ms);
            self.forget(1);
        }
        if expired {
            Removal::Absent
        } else {
            Removal::Removed
        }
    }

    /// Upkeep, to be called about once per second: drops up to about `budget` expired entries, then looks at about
    /// `budget` records to clear rates that read 0 for good and to renew entries in use whose date has passed. Returns
    /// whether expired entries may be left: then call again soon.
    ///
    /// A whole round must not take more than 12 days, or 32-bit stamps become ambiguous: a budget of 1,000 per second is
    /// enough for a thousand million entries.
    pub fn maintain(&self, now_ms: u64, budget: usize) -> bool {
        let budget = budget.max(1);
        let expired = self.sweep(now_ms, budget);
        if let Some(replica) = self.replica() {
            replica.note_time(now_ms);
            replica.forget_tombstones(now_ms);
        }
        let mut cursor = *self.upkeep.lock();
        if self.walk(&mut cursor, budget, |shard, at| {
            shard.settle(&self.schema, at.slot, now_ms);
        }) {
            cursor = Cursor::default();
        }
        *self.upkeep.lock() = cursor;
        expired == budget
    }

    fn walk(
        &self,
        cursor: &mut Cursor,
        budget: usize,
        mut f: impl FnMut(&mut Shard, EntryRef),
    ) -> bool {
        let mut budget = u32::try_from(budget).unwrap_or(u32::MAX).max(1);
        while cursor.shard < self.shards.len() {
            if budget == 0 {
                return false;
            }
            let from = cursor.slot;
            let slice = self.walk_slice(cursor, budget.min(LOCK_SLICE), |shard, at| {
                f(shard, at);
                true
            });
            budget -= slice.unwrap_or(from).saturating_sub(from).clamp(1, budget);
        }
        true
    }

    /// Goes on until `f` says `false` or all have been met. Returns whether the walk is complete.
    pub(super) fn walk_while(
        &self,
        cursor: &mut Cursor,
        mut f: impl FnMut(&mut Shard, EntryRef) -> bool,
    ) -> bool {
        let mut go_on = true;
        while cursor.shard < self.shards.len() {
            if !go_on {
                return false;
            }
            self.walk_slice(cursor, LOCK_SLICE, |shard, at| {
                go_on = f(shard, at);
                go_on
            });
        }
        true
    }

    /// Shows entries of one shard to `f` until it says `false`, among at most `slice` records, and advances the cursor.
    /// Returns the slot reached.
    fn walk_slice(
        &self,
        cursor: &mut Cursor,
        slice: u32,
        mut f: impl FnMut(&mut Shard, EntryRef) -> bool,
    ) -> Option<u32> {
        let mut shard = self.shards.get(cursor.shard)?.lock();
        let to = shard.slots().min(cursor.slot.saturating_add(slice));
        let mut slot = cursor.slot;
        while slot < to {
            let at = EntryRef {
                shard: cursor.shard as u16,
                slot,
            };
            slot += 1;
            if shard.is_taken(at.slot) && !f(&mut shard, at) {
                break;
            }
        }
        if slot >= shard.slots() {
            *cursor = Cursor {
                shard: cursor.shard + 1,
                slot: 0,
            };
        } else {
            cursor.slot = slot;
        }
        Some(slot)
    }
}
