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
    shard: usize,
    slot: u32,
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
                f(Entry {
                    table: self,
                    record: shard.record(at.slot),
                    at,
                });
            }
        })
    }

    /// Removes the entries that `f` picks and nobody holds, in slices like [`Table::dump`]. Returns whether the walk is
    /// complete.
    pub fn clear(
        &self,
        cursor: &mut Cursor,
        now_ms: u64,
        budget: usize,
        mut f: impl FnMut(Entry<'_>) -> bool,
    ) -> bool {
        self.walk(cursor, budget, |shard, at| {
            let entry = Entry {
                table: self,
                record: shard.record(at.slot),
                at,
            };
            if entry.uses() > 0 {
                return;
            }
            if shard.is_expired(&self.schema, at.slot, now_ms) {
                shard.events.expirations += 1;
            } else if !f(entry) {
                return;
            }
            shard.remove(&self.schema, at.slot, now_ms);
            self.forget(1);
        })
    }

    /// Removes one entry if nobody holds it.
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
        if expired {
            shard.events.expirations += 1;
        }
        shard.remove(&self.schema, slot, now_ms);
        self.forget(1);
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
        while let Some(shard) = self.shards.get(cursor.shard) {
            if budget == 0 {
                return false;
            }
            let mut shard = shard.lock();
            let from = cursor.slot;
            let to = shard
                .slots()
                .min(from.saturating_add(budget.min(LOCK_SLICE)));
            for slot in from..to {
                if shard.is_taken(slot) {
                    f(
                        &mut shard,
                        EntryRef {
                            shard: cursor.shard as u16,
                            slot,
                        },
                    );
                }
            }
            budget -= to.saturating_sub(from).max(1);
            if to >= shard.slots() {
                *cursor = Cursor {
                    shard: cursor.shard + 1,
                    slot: 0,
                };
            } else {
                cursor.slot = to;
            }
        }
        true
    }
}
