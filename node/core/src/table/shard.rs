//! One shard: an index over a slab, and the order in which entries were last touched.
//!
//! An entry is in exactly one of these places, told by its `PREV` word:
//! - *held* by trackers (and so out of the order: 15,000 of them must not slow an eviction down);
//! - in the *touch list*, oldest first: what eviction and expiry look at;
//! - *aside*: an entry that its last holder left without refreshing it belongs somewhere in the middle of that list;
//!   when that place is not within a few steps of the tail, a sorted set keeps it, so that oldest-first stays exact. Whole
//!   tables come that way when they are learned, so what comes aside is only noted, and sorted when somebody asks for the
//!   oldest.
//!
//! Entries of replicated tables may also be *hidden*: out of that order, but not gone yet (`replica::life`).
//!
//! Nothing here knows about other shards, the table's total or its clock.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use super::handoff::Follow;
use super::rate::age_ms;
use super::replica::ReplicaShard;
use super::schema::{NEXT, PREV, Schema, TOUCHED, USES, set_word, word};
use super::slab::{FREE, NIL, SLOTS_MAX, Slab};

/// Indices smaller than this grow as they like.
const GROW_FROM: usize = 64;
const ASIDE: u32 = u32::MAX - 2;
pub(super) const HELD: u32 = u32::MAX - 3;
/// Steps back from the tail before an entry is put aside; fewer where they lately led nowhere, as each is a record that has to
/// come from memory.
const STEPS_BACK_MAX: u32 = 8;
/// An entry so much older than one that it should come before is put aside at once.
const FAR_BACK_MS: u64 = 2_000;

/// Bits of a slot number in [`aside_key`].
const SLOT_BITS: u32 = SLOTS_MAX.trailing_ones();
const SLOT_MASK: u32 = SLOTS_MAX;
/// More notes than slots and this many are sorted.
const LOOSE_SPARE: usize = 64;
/// Memory of an entry in the sorted set: a word, and what is empty in a tree that grew in random order.
const ASIDE_BYTES: usize = 12;

/// The entries aside.
#[derive(Debug)]
struct Aside {
    /// In order.
    sorted: BTreeSet<u64>,
    /// Noted since that was brought up to date. Some may have been taken out again.
    loose: Vec<u64>,
    /// None of `loose` comes before this.
    least: u64,
}

impl Aside {
    const EMPTY: Aside = Aside {
        sorted: BTreeSet::new(),
        loose: Vec::new(),
        least: u64::MAX,
    };
    fn note(&mut self, key: u64) {
        self.loose.push(key);
        self.least = self.least.min(key);
    }
    /// None comes before this.
    fn bound(&self) -> Option<u64> {
        let sorted = self.sorted.first().copied();
        let loose = (!self.loose.is_empty()).then_some(self.least);
        sorted.into_iter().chain(loose).min()
    }
    fn bytes(&self) -> usize {
        self.sorted.len() * ASIDE_BYTES + self.loose.capacity() * size_of::<u64>()
    }
}

/// Sorts by date, then by slot. 40 bits of milliseconds are 34 years.
fn aside_key(date: u64, slot: u32) -> u64 {
    date.min(u64::MAX >> SLOT_BITS) << SLOT_BITS | u64::from(slot & SLOT_MASK)
}

/// What became of entries and of those who were not let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// New keys refused because the table was full and nothing could be evicted.
    pub refusals: u64,
    /// Entries removed before their time to make room.
    pub evictions: u64,
    /// Entries whose lifetime ended.
    pub expirations: u64,
}

#[derive(Debug)]
pub(super) struct Shard {
    index: HashTable<u32>,
    /// As many entries as fall to this shard in a full table.
    share: usize,
    pub slab: Slab,
    head: u32,
    tail: u32,
    aside: Aside,
    /// See [`STEPS_BACK_MAX`].
    steps_back: u32,
    pub events: Events,
    /// Of a replicated table.
    pub replica: Option<Box<ReplicaShard>>,
    /// While another process takes over.
    pub follow: Option<Box<Follow>>,
}

/// What [`Shard::drop_expired`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Swept {
    /// Entries whose place is free now.
    pub removed: usize,
    /// Entries dealt with: as many as allowed means that there may be more.
    pub seen: usize,
}

/// The full date of a 32-bit stamp that is near `now`.
pub(super) fn date(now: u64, stamp: u32) -> u64 {
    let ahead = stamp.wrapping_sub(now as u32);
    match age_ms(now as u32, stamp) {
        0 => now.saturating_add(u64::from(ahead)),
        age => now.saturating_sub(u64::from(age)),
    }
}

impl Shard {
    pub fn new(
        schema: &Schema,
        most: usize,
        shards: usize,
        replica: Option<Box<ReplicaShard>>,
    ) -> Shard {
        Shard {
            share: most / shards.max(1),
            replica,
            follow: None,
            index: HashTable::new(),
            slab: Slab::new(schema.stride, most, most / shards.max(1)),
            head: NIL,
            tail: NIL,
            aside: Aside::EMPTY,
            steps_back: STEPS_BACK_MAX,
            events: Events::default(),
        }
    }
    #[inline]
    pub fn record(&self, slot: u32) -> &[u8] {
        self.slab.record(slot)
    }
    /// A record to change, with what its shard keeps for replication.
    #[inline]
    pub fn parts(&mut self, slot: u32) -> (&mut [u8], Option<&mut ReplicaShard>) {
        (self.slab.record_mut(slot), self.replica.as_deref_mut())
    }
    /// The same, with what the shard notes for another process.
    #[inline]
    pub fn all_parts(
        &mut self,
        slot: u32,
    ) -> (&mut [u8], Option<&mut ReplicaShard>, Option<&mut Follow>) {
        (
            self.slab.record_mut(slot),
            self.replica.as_deref_mut(),
            self.follow.as_deref_mut(),
        )
    }
    /// Notes that an entry changed, or will, for another process that follows.
    #[inline]
    pub fn note(&mut self, slot: u32) {
        if let Some(follow) = &mut self.follow {
            follow.mark(slot);
        }
    }
    /// Slots are below this number.
    pub fn slots(&self) -> u32 {
        self.slab.len()
    }
    /// Whether this slot holds an entry (living or expired).
    pub fn is_taken(&self, slot: u32) -> bool {
        let record = self.slab.record(slot);
        slot < self.slab.len() && !record.is_empty() && word(record, PREV) != FREE
    }
    pub fn bytes(&self) -> usize {
        size_of::<Shard>()
            + self.slab.bytes()
            + self.index.allocation_size()
            + self.aside.bytes()
            + self.replica.as_ref().map_or(0, |replica| replica.bytes())
    }
    pub fn word(&self, slot: u32, at: usize) -> u32 {
        word(self.slab.record(slot), at)
    }
    pub fn set_word(&mut self, slot: u32, at: usize, value: u32) {
        set_word(self.slab.record_mut(slot), at, value);
    }

    /// The slot of a key, living or expired.
    #[inline]
    pub fn find(&self, schema: &Schema, hash: u64, key: &[u8]) -> Option<u32> {
        self.index
            .find(hash, |slot| schema.is_key(self.slab.record(*slot), key))
            .copied()
    }
    /// What [`Shard::place`] looks at first, to have it fetched ahead of time.
    #[inline]
    pub fn next_word(&self) -> u32 {
        word(self.slab.record(self.tail), TOUCHED)
    }
    /// The same for so many new entries with a share of another lineage each.
    #[inline]
    pub fn look_ahead(&self, entries: usize) -> u32 {
        let cells = self.replica.as_ref().map(|r| r.cells.look_ahead(entries));
        self.slab.look_ahead(entries) | cells.unwrap_or(0)
    }
    /// Whether the entry's lifetime is over, so that it is absent for all who ask. Held entries start another one instead.
    #[inline]
    pub fn is_expired(&self, schema: &Schema, slot: u32, now: u64) -> bool {
        let record = self.slab.record(slot);
        if self.replica.is_some() && ReplicaShard::is_tomb(record) {
            return true;
        }
        let Some(lifetime) = schema.lifetime else {
            return false;
        };
        word(record, USES) == 0
            && age_ms(now as u32, word(record, TOUCHED)) >= lifetime
            && !self
                .replica
                .as_ref()
                .is_some_and(|replica| replica.is_held_elsewhere(record))
    }

    /// Adds an entry for a key that is not there, refreshed at `touched` and not held. `None`: slot numbers ran out.
    pub fn insert(
        &mut self,
        schema: &Schema,
        hash: u64,
        key: &[u8],
        touched: u64,
        now: u64,
    ) -> Option<u32> {
        let slot = self.insert_nowhere(schema, hash, key, touched)?;
        self.place(schema, slot, now);
        Some(slot)
    }
    /// The same, but the caller puts the entry somewhere at once.
    pub fn insert_nowhere(
        &mut self,
        schema: &Schema,
        hash: u64,
        key: &[u8],
        touched: u64,
    ) -> Option<u32> {
        let slot = self.slab.take()?;
        self.note(slot);
        let record = self.slab.record_mut(slot);
        if self.replica.is_some() {
            ReplicaShard::initialize(schema, record, key, touched);
        } else {
            schema.initialize(record, key);
        }
        set_word(record, TOUCHED, touched as u32);
        set_word(record, PREV, HELD);
        let slab = &self.slab;
        let rehash = |other: &u32| schema.hash(schema.key(slab.record(*other)));
        let entries = self.index.len();
        if entries == self.index.capacity() && entries >= GROW_FROM {
            // Growing means a look at every record: so three times at once, and all the way when that is near.
            let more = if 6 * entries < self.share {
                3 * entries
            } else {
                self.share
            };
            let most = more.max(entries + 1);
            self.index.reserve(most - entries, rehash);
        }
        self.index.insert_unique(hash, slot, rehash);
        Some(slot)
    }
    /// Makes room in the index for so many entries, and some more: a hash does not give all shards the same number.
    pub fn expect(&mut self, schema: &Schema, entries: usize) {
        self.slab.expect(entries);
        let slab = &self.slab;
        let more = (entries + entries / 16).saturating_sub(self.index.len());
        self.index
            .reserve(more, |slot| schema.hash(schema.key(slab.record(*slot))));
    }
    /// Removes an entry that nobody holds.
    pub fn remove(&mut self, schema: &Schema, slot: u32, now: u64) {
        self.take_out(slot, now);
        let hash = schema.hash(schema.key(self.slab.record(slot)));
        if let Ok(found) = self.index.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        if let Some(replica) = &mut self.replica {
            replica.say_released(schema, self.slab.record_mut(slot));
            replica.forget(self.slab.record_mut(slot), slot);
        }
        self.slab.give_back(slot);
    }
    /// Removes all entries that nobody holds, and gives their memory back. Returns how many there were. Nothing is looked for
    /// or taken out of anything: what is left is put together anew, and most of what goes is only read once.
    pub fn strip(&mut self, schema: &Schema) -> usize {
        let (mut kept, mut removed) = (Vec::new(), 0);
        for slot in 0..self.slab.len() {
            if !self.is_taken(slot) {
                continue;
            }
            if self.word(slot, USES) > 0 {
                kept.push(slot); // and in no order
                continue;
            }
            removed += 1;
            if let (record, Some(replica)) = self.parts(slot) {
                replica.part_with(schema, record);
            }
        }
        (self.head, self.tail) = (NIL, NIL);
        self.aside = Aside::EMPTY;
        if let Some(replica) = &mut self.replica {
            replica.keep_only(&self.slab, &kept);
        }
        self.slab.keep_only(&kept);
        let slab = &self.slab;
        let hash = |slot: &u32| schema.hash(schema.key(slab.record(*slot)));
        self.index = HashTable::with_capacity(kept.len());
        for slot in kept {
            self.index.insert_unique(hash(&slot), slot, hash);
        }
        removed
    }
    /// Starts a new life for an expired entry of the same key.
    pub fn renew(&mut self, schema: &Schema, slot: u32, now: u64) {
        if self.replica.is_some() {
            self.new_life(schema, slot, now, now);
            return self.refresh(schema, slot, now);
        }
        self.events.expirations += 1;
        schema.blank_data(self.slab.record_mut(slot));
        self.refresh(schema, slot, now);
    }
    /// Restarts the lifetime.
    pub fn refresh(&mut self, schema: &Schema, slot: u32, now: u64) {
        if let (record, _, Some(follow)) = self.all_parts(slot) {
            follow.touch(schema, record, slot);
        }
        if let (record, Some(replica)) = self.parts(slot) {
            replica.mark(record, slot);
        }
        if self.word(slot, PREV) == HELD {
            touch(self.slab.record_mut(slot), now);
            return;
        }
        if slot != self.tail {
            self.take_out(slot, now);
            touch(self.slab.record_mut(slot), now);
            self.place(schema, slot, now);
        } else {
            touch(self.slab.record_mut(slot), now);
        }
    }
    /// Adds a holder.
    pub fn hold(&mut self, schema: &Schema, slot: u32, now: u64) {
        if let (record, _, Some(follow)) = self.all_parts(slot) {
            follow.uses(schema, record, slot, 1);
        }
        let uses = self.word(slot, USES);
        if uses == 0 {
            self.take_out(slot, now);
            self.set_word(slot, PREV, HELD);
            if let (record, Some(replica)) = self.parts(slot) {
                replica.mark(record, slot);
            }
        }
        self.set_word(slot, USES, uses.saturating_add(1));
    }
    /// Removes a holder. Returns whether it was the last one.
    pub fn release(&mut self, schema: &Schema, slot: u32, now: u64) -> bool {
        if let (record, _, Some(follow)) = self.all_parts(slot) {
            follow.uses(schema, record, slot, -1);
        }
        let record = self.slab.record_mut(slot);
        let uses = word(record, USES).saturating_sub(1);
        set_word(record, USES, uses);
        if uses > 0 || word(record, PREV) != HELD {
            return false;
        }
        settle_lifetime(schema, record, now);
        if let Some(replica) = &mut self.replica {
            replica.mark(record, slot);
        }
        self.place(schema, slot, now);
        true
    }

    /// The entry that nobody holds and that was refreshed longest ago.
    pub fn oldest(&mut self, now: u64) -> Option<u32> {
        let listed = (self.head != NIL).then_some(self.head);
        let Some(bound) = self.aside.bound() else {
            return listed;
        };
        let first =
            listed.filter(|head| aside_key(date(now, self.word(*head, TOUCHED)), 0) <= bound);
        if first.is_some() {
            return first;
        }
        self.sort_aside(now);
        while let Some(&aside) = self.aside.sorted.first() {
            let slot = aside as u32 & SLOT_MASK;
            if self.word(slot, PREV) == ASIDE {
                let head = listed
                    .filter(|head| aside_key(date(now, self.word(*head, TOUCHED)), 0) <= aside);
                return head.or(Some(slot));
            }
            // Taken out when it was not found: a clock that jumped by weeks.
            self.aside.sorted.pop_first();
        }
        listed
    }
    /// Brings the sorted set up to date.
    fn sort_aside(&mut self, now: u64) {
        if self.aside.loose.is_empty() {
            return;
        }
        let mut loose = std::mem::take(&mut self.aside.loose);
        self.aside.least = u64::MAX;
        // Those that were taken out meanwhile are elsewhere, or here again with another date.
        loose.retain_mut(|key| {
            let slot = *key as u32 & SLOT_MASK;
            *key = aside_key(date(now, self.word(slot, TOUCHED)), slot);
            self.word(slot, PREV) == ASIDE
        });
        loose.sort_unstable();
        if self.aside.sorted.is_empty() {
            self.aside.sorted = loose.into_iter().collect();
        } else {
            self.aside.sorted.extend(loose);
        }
    }
    /// When the next entry expires, or a time before that; `None`: nothing here can.
    pub fn next_expiry(&self, schema: &Schema, now: u64) -> Option<u64> {
        let lifetime = u64::from(schema.lifetime?);
        let expires = |slot| date(now, self.word(slot, TOUCHED)).saturating_add(lifetime);
        let listed = (self.head != NIL).then(|| expires(self.head));
        let aside = self.aside.bound();
        let aside = aside.map(|key| (key >> SLOT_BITS).saturating_add(lifetime));
        let oldest = listed.into_iter().chain(aside).min();
        let hidden = self.replica.as_ref().and_then(|replica| {
            let grace = u64::from(super::replica::EXPIRED_GRACE_MS);
            let graced = replica
                .graced
                .first()
                .map(|slot| expires(slot).saturating_add(grace));
            graced.into_iter().chain(replica.next_look_at_lent()).min()
        });
        match (oldest, hidden) {
            (Some(oldest), Some(hidden)) => Some(oldest.min(hidden)),
            (one, other) => one.or(other),
        }
    }
    /// Removes expired entries, up to `most`.
    pub fn drop_expired(&mut self, schema: &Schema, now: u64, most: usize) -> Swept {
        if self.replica.is_some() {
            return self.retire_expired(schema, now, most);
        }
        let mut dropped = 0;
        while dropped < most {
            match self.oldest(now) {
                Some(slot) if self.is_expired(schema, slot, now) => self.remove(schema, slot, now),
                _ => break,
            }
            dropped += 1;
        }
        self.events.expirations += dropped as u64;
        Swept {
            removed: dropped,
            seen: dropped,
        }
    }
    /// Removes the oldest entry that nobody holds. Returns whether there was one.
    pub fn evict(&mut self, schema: &Schema, now: u64) -> bool {
        let lent = self
            .replica
            .as_ref()
            .and_then(|replica| replica.lent.first());
        let Some(slot) = lent.or_else(|| self.oldest(now)) else {
            return false;
        };
        self.remove(schema, slot, now);
        self.events.evictions += 1;
        true
    }
    /// Periodic upkeep of one entry, so that 32-bit stamps never become ambiguous.
    pub fn settle(&mut self, schema: &Schema, slot: u32, now: u64) {
        let record = self.slab.record_mut(slot);
        if word(record, PREV) == HELD {
            settle_lifetime(schema, record, now);
        }
        if let Some(replica) = &mut self.replica {
            replica.settle(schema, record, slot, now);
        }
        for cell in schema.rates() {
            let mut rate = super::schema::rate(record, cell.at);
            if rate.settle(now as u32, cell.period) {
                super::schema::set_rate(record, cell.at, rate);
            }
        }
    }

    /// Puts an entry that is nowhere where its date belongs.
    pub fn place(&mut self, schema: &Schema, slot: u32, now: u64) {
        // Without a lifetime it has just been touched, or its place does not matter.
        self.place_if(schema.lifetime.is_some(), slot, now);
    }
    /// As [`Shard::place`]; by its date, also without a lifetime.
    pub fn place_by_date(&mut self, slot: u32, now: u64) {
        self.place_if(true, slot, now);
    }
    fn place_if(&mut self, dated: bool, slot: u32, now: u64) {
        let mut after = self.tail;
        if dated {
            // Not ages: those of what a thread with a later clock touched are all 0, though not all the same.
            let touched = date(now, self.word(slot, TOUCHED));
            let mut steps = 0;
            while after != NIL {
                let later = date(now, self.word(after, TOUCHED));
                if later <= touched {
                    break;
                }
                if steps == self.steps_back || later - touched > FAR_BACK_MS {
                    if steps > 1 {
                        self.steps_back = steps / 2;
                    }
                    self.set_word(slot, PREV, ASIDE);
                    self.aside.note(aside_key(touched, slot));
                    if self.aside.loose.len() > self.slab.len() as usize + LOOSE_SPARE {
                        self.sort_aside(now); // entries that come and go
                    }
                    return;
                }
                steps += 1;
                after = self.word(after, PREV);
            }
            if steps > 0 && self.steps_back < STEPS_BACK_MAX {
                self.steps_back += 1;
            }
        }
        let next = if after == NIL {
            std::mem::replace(&mut self.head, slot)
        } else {
            let next = self.word(after, NEXT);
            self.set_word(after, NEXT, slot);
            next
        };
        self.set_word(slot, PREV, after);
        self.set_word(slot, NEXT, next);
        if next == NIL {
            self.tail = slot;
        } else {
            self.set_word(next, PREV, slot);
        }
    }
    /// Takes an entry out of the order. The caller puts it somewhere at once.
    pub fn take_out(&mut self, slot: u32, now: u64) {
        if self.replica.is_some() && ReplicaShard::is_aside(self.slab.record(slot)) {
            return self.unlink(slot);
        }
        let (prev, next) = (self.word(slot, PREV), self.word(slot, NEXT));
        match prev {
            HELD | FREE => return,
            ASIDE => {
                let date = date(now, self.word(slot, TOUCHED));
                // A loose one stays there until it is seen that it is not aside any more.
                let found = self.aside.sorted.remove(&aside_key(date, slot));
                if !found && self.aside.loose.is_empty() {
                    // A clock that jumped by weeks.
                    let sorted = &mut self.aside.sorted;
                    sorted.retain(|key| *key as u32 & SLOT_MASK != slot);
                }
                // The caller may put it back with the same date.
                self.set_word(slot, PREV, HELD);
                return;
            }
            NIL => self.head = next,
            _ => self.set_word(prev, NEXT, next),
        }
        if next == NIL {
            self.tail = prev;
        } else {
            self.set_word(next, PREV, prev);
        }
    }
}

/// Sets the date of the last refresh, never back.
pub(super) fn touch(record: &mut [u8], now: u64) {
    if age_ms(now as u32, word(record, TOUCHED)) > 0 {
        set_word(record, TOUCHED, now as u32);
    }
}

/// A held entry whose date passes gets a full new lifetime at that moment: advances its date by whole lifetimes.
fn settle_lifetime(schema: &Schema, record: &mut [u8], now: u64) {
    if let Some(lifetime) = schema.lifetime {
        let age = age_ms(now as u32, word(record, TOUCHED));
        if age >= lifetime {
            set_word(record, TOUCHED, (now as u32).wrapping_sub(age % lifetime));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_now() {
        for (now, stamp, expected) in [
            (1_000_u64, 400_u32, 400_u64),
            (1_000, 1_000, 1_000),
            (1_000, 1_007, 1_007),
            ((1 << 32) + 5, u32::MAX, u64::from(u32::MAX)),
            ((1 << 32) + 5, 9, (1 << 32) + 9),
        ] {
            assert_eq!(date(now, stamp), expected);
        }
    }
}
