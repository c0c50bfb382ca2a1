//! Places in a table: who gets one when it is full, and who gives one up.
//!
//! A table has exactly as many as its `size` says, over all shards. Whoever adds an entry takes one first, from the count,
//! from an entry of the same shard, or from anywhere. Expired entries are swept when one of them is due.

use std::sync::atomic::Ordering::Relaxed;

use super::Table;
use super::shard::Shard;

/// Expired entries dropped per lock.
const SWEEP_SLICE: usize = 128;

/// Values of [`Table::supply`]: they spare refused keys a search through all shards when everything is in use.
pub(super) struct Supply;
impl Supply {
    /// Search.
    pub(super) const UNKNOWN: u8 = 0;
    /// Someone searches, and nothing was released since that began.
    const SEARCHING: u8 = 1;
    /// A search found nothing, and nothing was released since it began.
    const NONE: u8 = 2;
}

impl Table {
    /// Takes a place if the table is not full.
    pub(super) fn reserve(&self) -> bool {
        self.count
            .fetch_update(Relaxed, Relaxed, |n| {
                (n < self.spec.size.max(1)).then_some(n + 1)
            })
            .is_ok()
    }
    /// Gives places back.
    pub(super) fn forget(&self, n: usize) {
        if n > 0 {
            self.count.fetch_sub(n, Relaxed);
        }
    }
    /// Removes an entry of this shard, keeping its place for another: the common case of a full table.
    pub(super) fn replace(&self, shard: &mut Shard, now_ms: u64) -> bool {
        let expired = if shard.replica.is_some() {
            shard.reclaim(&self.schema, now_ms)
        } else {
            shard.drop_expired(&self.schema, now_ms, 1).removed == 1
        };
        expired
            || (!self.spec.nopurge
                && now_ms < self.next_expiry.load(Relaxed)
                && shard.evict(&self.schema, now_ms))
    }
    /// Finds a place that no living entry needs, `home` first.
    pub(super) fn find_room(&self, home: usize, now_ms: u64) -> bool {
        self.sweep(now_ms, SWEEP_SLICE);
        self.reserve()
            || self.shared.as_ref().is_some_and(|s| s.hidden() > 0)
                && self.reclaim_any(home, now_ms)
    }
    /// Finds a place anywhere, `home` first: expired entries, then the oldest one of a shard that has any to evict.
    pub(super) fn make_room(&self, home: usize, now_ms: u64) -> bool {
        if self.find_room(home, now_ms) {
            return true;
        }
        if self.spec.nopurge || self.supply.load(Relaxed) == Supply::NONE {
            return false;
        }
        self.supply.store(Supply::SEARCHING, Relaxed);
        let n = self.shards.len();
        let evicted = (home..home + n)
            .filter_map(|i| self.shards.get(i % n))
            .any(|shard| shard.lock().evict(&self.schema, now_ms));
        if evicted {
            self.supply.store(Supply::UNKNOWN, Relaxed);
        } else {
            // Unless something was released meanwhile.
            let _ = self
                .supply
                .compare_exchange(Supply::SEARCHING, Supply::NONE, Relaxed, Relaxed);
        }
        evicted
    }

    /// Removes a hidden entry of some shard, keeping its place.
    #[cold]
    fn reclaim_any(&self, home: usize, now_ms: u64) -> bool {
        let n = self.shards.len();
        (home..home + n)
            .filter_map(|i| self.shards.get(i % n))
            .any(|shard| shard.lock().reclaim(&self.schema, now_ms))
    }

    /// Called under the shard's lock when an entry was added to those that can expire and be evicted.
    pub(super) fn note_evictable(&self, shard: &Shard, now_ms: u64) {
        self.note_added(shard.next_expiry(&self.schema, now_ms).unwrap_or(u64::MAX));
    }
    /// The same, when it is known that this shard's first one does not expire before `date`, or that all that were there
    /// have been noted and the new one expires then.
    pub(super) fn note_added(&self, date: u64) {
        // A search that has passed this shard has released its lock since: its mark is visible here.
        if self.supply.load(Relaxed) != Supply::UNKNOWN {
            self.supply.store(Supply::UNKNOWN, Relaxed);
        }
        if date < self.next_expiry.load(Relaxed) {
            self.next_expiry.fetch_min(date, Relaxed);
        }
    }
    /// Deals with up to `most` entries that have expired, and learns when the next one will. Cheap when nothing has.
    /// Returns how many there were: `most` means that there may be more.
    pub(super) fn sweep(&self, now_ms: u64, most: usize) -> usize {
        if now_ms < self.next_expiry.load(Relaxed) {
            return 0;
        }
        let _one_at_a_time = self.sweeping.lock();
        if now_ms < self.next_expiry.load(Relaxed) {
            return 0;
        }
        // Whoever adds an earlier date to a shard from here on either does so before that shard is looked at below, or
        // lowers this again.
        self.next_expiry.store(u64::MAX, Relaxed);
        let mut total = 0;
        let mut next = u64::MAX;
        for shard in &self.shards {
            loop {
                let slice = SWEEP_SLICE.min(most - total);
                let mut shard = shard.lock();
                let swept = shard.drop_expired(&self.schema, now_ms, slice);
                self.forget(swept.removed);
                total += swept.seen;
                if swept.seen < slice || slice == 0 {
                    next = next.min(shard.next_expiry(&self.schema, now_ms).unwrap_or(u64::MAX));
                    break;
                }
            }
        }
        self.next_expiry.fetch_min(next, Relaxed);
        total
    }
}
