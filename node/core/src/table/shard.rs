//! One shard: an index over a slab, and the order in which entries were last touched (`order`).
//!
//! Nothing here knows about other shards, the table's total or its clock.

mod order;

use hashbrown::HashTable;

use super::handoff::Follow;
use super::rate::age_ms;
use super::replica::ReplicaShard;
use super::schema::{PREV, Schema, TOUCHED, USES, set_word, word};
use super::slab::{FREE, NIL, Slab};
use order::{Aside, STEPS_BACK_MAX};

pub(super) use order::date;

/// Indices smaller than this grow as they like.
const GROW_FROM: usize = 64;
/// `PREV` of an entry that is held by trackers, and so in no list.
pub(super) const HELD: u32 = u32::MAX - 3;

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

    /// When the next entry expires, or a time before that; `None`: nothing here can.
    pub fn next_expiry(&self, schema: &Schema, now: u64) -> Option<u64> {
        let lifetime = u64::from(schema.lifetime?);
        let expires = |slot| date(now, self.word(slot, TOUCHED)).saturating_add(lifetime);
        let listed = (self.head != NIL).then(|| expires(self.head));
        let aside = self.aside.first_date();
        let aside = aside.map(|date| date.saturating_add(lifetime));
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
