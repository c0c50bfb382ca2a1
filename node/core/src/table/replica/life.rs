//! How entries of replicated tables begin and end.
//!
//! A *hidden* entry is absent for all who ask, but not gone: an expired one in its *grace*, which a touch timed before its
//! deadline revives whole, or a *tombstone*, which remembers an edict on a key that nothing is left of. *Lent* entries are
//! visible although their time is over here, for another node holds them. All three are out of the touch order, in lists of
//! their own through the same links.

use super::state::{ReplicaShard, count, flags, hash};
use super::{EXPIRED_GRACE_MS, TOMBSTONE_MIN_MS, TOMBSTONE_UNEXPIRING_MS};
use crate::table::rate::age_ms;
use crate::table::schema::{
    BORN, CELL_NEXT, CHAIN, FLAGS, NEXT, PREV, Schema, TOUCHED, USES, VERSION, rate, set_rate,
    set_wide, set_word, word,
};
use crate::table::shard::{HELD, Shard, Swept, date};
use crate::table::slab::{NIL, Slab};
use std::sync::atomic::Ordering::Relaxed;

/// How often lent entries are looked through: what their holders' release does not tell, because they died.
const LENT_CHECK_MS: u64 = 1_000;

/// A list of entries beside the touch order, in the order of their coming.
#[derive(Debug)]
pub(in crate::table) struct Hidden {
    head: u32,
    tail: u32,
}

impl Hidden {
    pub const EMPTY: Hidden = Hidden {
        head: NIL,
        tail: NIL,
    };
    pub fn first(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }
    fn push(&mut self, slab: &mut Slab, slot: u32) {
        let record = slab.record_mut(slot);
        set_word(record, PREV, self.tail);
        set_word(record, NEXT, NIL);
        if self.tail == NIL {
            self.head = slot;
        } else {
            set_word(slab.record_mut(self.tail), NEXT, slot);
        }
        self.tail = slot;
    }
    fn remove(&mut self, slab: &mut Slab, slot: u32) {
        let record = slab.record(slot);
        let (prev, next) = (word(record, PREV), word(record, NEXT));
        if prev == NIL {
            self.head = next;
        } else {
            set_word(slab.record_mut(prev), NEXT, next);
        }
        if next == NIL {
            self.tail = prev;
        } else {
            set_word(slab.record_mut(next), PREV, prev);
        }
    }
}

/// How long a tombstone is kept.
pub(super) fn tombstone_ms(schema: &Schema) -> u32 {
    schema.lifetime.map_or(TOMBSTONE_UNEXPIRING_MS, |lifetime| {
        lifetime.max(TOMBSTONE_MIN_MS)
    })
}

impl ReplicaShard {
    /// Makes a record blank, with that key, born at `touched`. Whether the slot is in the list of changed entries outlives
    /// the entry before.
    pub fn initialize(schema: &Schema, record: &mut [u8], key: &[u8], touched: u64) {
        let listed = word(record, FLAGS) & flags::LISTED;
        schema.initialize(record, key);
        set_word(record, FLAGS, listed | flags::FRESH);
        set_word(record, BORN, touched as u32);
    }
    /// When lent entries should be looked through, if there are any.
    pub fn next_look_at_lent(&self) -> Option<u64> {
        self.lent.first()?;
        Some(self.lent_checked_ms.saturating_add(LENT_CHECK_MS))
    }
    /// Forgets what belongs to an entry that is being removed.
    pub fn forget(&mut self, record: &mut [u8], slot: u32) {
        self.drop_cells(record);
        let bits = word(record, FLAGS);
        if bits & flags::EXT != 0 {
            self.drop_ext(slot);
        }
        if bits & flags::JOURNALED != 0 {
            self.shared.holes.fetch_add(1, Relaxed);
        }
        set_word(record, FLAGS, bits & flags::LISTED);
    }
    /// An entry goes with most others: [`ReplicaShard::keep_only`] follows. What it leaves behind elsewhere is settled here.
    pub fn part_with(&mut self, schema: &Schema, record: &mut [u8]) {
        let shared = &self.shared;
        for cell in self.chain(record) {
            shared.lineages.let_go(cell.lineage());
        }
        let bits = word(record, FLAGS);
        if bits & flags::JOURNALED != 0 {
            shared.holes.fetch_add(1, Relaxed);
        }
        if bits & (flags::TOMB | flags::GRACED) != 0 {
            shared.hidden.fetch_sub(1, Relaxed);
        }
        if bits & flags::TOMB != 0 {
            shared.counts.tombstones.fetch_sub(1, Relaxed);
        }
        self.say_released(schema, record);
    }
    /// Forgets what belongs to other slots than these, which are in order and hold entries that are visible.
    pub fn keep_only(&mut self, records: &Slab, kept: &[u32]) {
        let chains = kept.iter().map(|slot| self.chain(records.record(*slot)));
        let mut cells: Vec<u32> = chains.flatten().map(|cell| cell.slot).collect();
        cells.sort_unstable();
        self.cells.keep_only(&cells);
        self.exts
            .retain(|ext| kept.binary_search(&ext.slot).is_ok());
        self.exts.shrink_to_fit(|ext| hash(ext.slot));
        (self.graced, self.tombs, self.lent) = (Hidden::EMPTY, Hidden::EMPTY, Hidden::EMPTY);
        self.dirty = Vec::new();
    }
    /// Periodic upkeep: no 32-bit stamp may become ambiguous, and the dead are not remembered for nothing.
    pub fn settle(&mut self, schema: &Schema, record: &mut [u8], slot: u32, now: u64) {
        const LONG_MS: u32 = 1 << 31;
        if let Some(layout) = &schema.replica {
            self.drop_remains(layout, record, slot, now);
        }
        let mut limit = |at| {
            if age_ms(now as u32, word(record, at)) > LONG_MS {
                set_word(record, at, (now as u32).wrapping_sub(LONG_MS));
            }
        };
        limit(BORN);
        if schema.lifetime.is_none() {
            limit(TOUCHED);
        }
        let mut next = word(record, CHAIN);
        while next != NIL {
            let cell = self.cells.record_mut(next);
            if cell.is_empty() {
                return;
            }
            next = word(cell, CELL_NEXT);
            for column in schema.rates() {
                let mut window = rate(cell, column.remote);
                if window.settle(now as u32, column.period) {
                    set_rate(cell, column.remote, window);
                }
            }
        }
    }
}

impl Shard {
    pub(super) fn flags(&self, slot: u32) -> u32 {
        self.word(slot, FLAGS)
    }
    pub(super) fn age(&self, slot: u32, now: u64) -> u32 {
        age_ms(now as u32, self.word(slot, TOUCHED))
    }
    /// Date of the last touch.
    pub(super) fn touched(&self, slot: u32, now: u64) -> u64 {
        date(now, self.word(slot, TOUCHED))
    }
    /// The same, for an entry that is held: its time begins again whenever it ends.
    pub(super) fn renewed(&self, schema: &Schema, slot: u32, now: u64) -> u64 {
        let touched = self.touched(slot, now);
        match schema.lifetime {
            Some(lifetime)
                if self.age(slot, now) >= lifetime
                    && (self.word(slot, USES) > 0 || self.is_held_elsewhere(slot)) =>
            {
                now - u64::from(self.age(slot, now) % lifetime)
            }
            _ => touched,
        }
    }
    /// Puts an entry beside the touch order: as a tombstone, in its grace, or lent.
    pub(super) fn hide(&mut self, slot: u32, as_what: u32, now: u64) {
        self.take_out(slot, now);
        let Some(replica) = &mut self.replica else {
            return;
        };
        let record = self.slab.record_mut(slot);
        set_word(record, FLAGS, word(record, FLAGS) | as_what);
        let list = match as_what {
            flags::TOMB => {
                count(&replica.shared.counts.tombstones);
                if let Some(ext) = replica.ext_mut(slot) {
                    ext.since = now as u32;
                }
                &mut replica.tombs
            }
            flags::LENT => return replica.lent.push(&mut self.slab, slot),
            _ => &mut replica.graced,
        };
        list.push(&mut self.slab, slot);
        replica.shared.hidden.fetch_add(1, Relaxed);
    }
    /// Takes an entry out of such a list. The caller removes it, or puts it into the touch order.
    pub fn unlink(&mut self, slot: u32) {
        let Some(replica) = &mut self.replica else {
            return;
        };
        let record = self.slab.record_mut(slot);
        let bits = word(record, FLAGS);
        set_word(
            record,
            FLAGS,
            bits & !(flags::TOMB | flags::GRACED | flags::LENT),
        );
        if bits & flags::LENT != 0 {
            return replica.lent.remove(&mut self.slab, slot);
        }
        if bits & flags::TOMB != 0 {
            replica.tombs.remove(&mut self.slab, slot);
            replica.shared.counts.tombstones.fetch_sub(1, Relaxed);
        } else {
            replica.graced.remove(&mut self.slab, slot);
        }
        replica.shared.hidden.fetch_sub(1, Relaxed);
    }
    /// Restarts the time a tombstone is kept: it has learned a newer edict.
    pub(super) fn keep_longer(&mut self, slot: u32, now: u64) {
        self.take_out(slot, now);
        // `hide` takes the entry out of wherever it is: it must be somewhere.
        self.set_word(slot, PREV, HELD);
        self.hide(slot, flags::TOMB, now);
    }

    /// Starts a new life, touched first at `touched`, for a hidden or expired entry: own counts, cells, registers and edicts
    /// are dropped; a tombstone keeps its edicts, there is nothing else.
    pub fn new_life(&mut self, schema: &Schema, slot: u32, touched: u64, now: u64) {
        let was_tomb = self.flags(slot) & flags::TOMB != 0;
        let keep_edicts = was_tomb && !self.is_tomb_over(schema, slot, now);
        self.take_out(slot, now);
        self.place_at(schema, slot, touched, now);
        let Some(replica) = &mut self.replica else {
            return;
        };
        let record = self.slab.record_mut(slot);
        set_word(record, BORN, touched as u32);
        if keep_edicts {
            return;
        }
        if !was_tomb {
            self.events.expirations += 1;
        }
        replica.say_released(schema, record);
        replica.drop_cells(record);
        replica.drop_ext(slot);
        let bits = word(record, FLAGS);
        if bits & flags::JOURNALED != 0 {
            replica.shared.holes.fetch_add(1, Relaxed);
        }
        set_word(
            record,
            FLAGS,
            (bits & (flags::DIRTY | flags::LISTED)) | flags::FRESH,
        );
        set_wide(record, VERSION, 0);
        schema.blank_data(record);
    }
    fn place_at(&mut self, schema: &Schema, slot: u32, touched: u64, now: u64) {
        self.set_word(slot, TOUCHED, touched as u32);
        self.place(schema, slot, now);
    }
    /// Restarts the lifetime as of `touched`, if that is later than what is known. Returns whether it is.
    pub(super) fn refresh_at(
        &mut self,
        schema: &Schema,
        slot: u32,
        touched: u64,
        now: u64,
    ) -> bool {
        if age_ms(now as u32, touched as u32) >= self.age(slot, now) {
            return false;
        }
        if self.word(slot, PREV) == HELD || self.flags(slot) & flags::TOMB != 0 {
            self.set_word(slot, TOUCHED, touched as u32);
        } else {
            self.take_out(slot, now);
            self.place_at(schema, slot, touched, now);
        }
        true
    }

    /// How long a tombstone has been one.
    fn tomb_age(&self, slot: u32, now: u64) -> u32 {
        let ext = self.replica.as_ref().and_then(|replica| replica.ext(slot));
        ext.map_or(u32::MAX, |ext| age_ms(now as u32, ext.since))
    }
    /// How long an entry has been a tombstone, if it is one.
    pub fn tomb_age_of(&self, slot: u32, now: u64) -> Option<u32> {
        (self.flags(slot) & flags::TOMB != 0).then(|| self.tomb_age(slot, now))
    }
    /// Whether a tombstone has been kept for its time.
    pub(super) fn is_tomb_over(&self, schema: &Schema, slot: u32, now: u64) -> bool {
        let away = self
            .replica
            .as_ref()
            .is_some_and(|r| r.shared.someone_away.load(Relaxed));
        let least = if away { TOMBSTONE_UNEXPIRING_MS } else { 0 };
        self.tomb_age(slot, now) >= tombstone_ms(schema).max(least)
    }
    /// Whether a tombstone is past half its time.
    pub(super) fn is_tomb_old(&self, schema: &Schema, slot: u32, now: u64) -> bool {
        self.tomb_age(slot, now) >= tombstone_ms(schema) / 2
    }
    /// Removes up to `most` tombstones whose time is over; returns how many.
    pub(super) fn drop_tombs(&mut self, schema: &Schema, now: u64, most: usize) -> usize {
        let mut dropped = 0;
        while dropped < most
            && let Some(slot) = self.replica.as_ref().and_then(|r| r.tombs.first())
            && self.is_tomb_over(schema, slot, now)
        {
            self.remove(schema, slot, now);
            dropped += 1;
        }
        dropped
    }

    /// Deals with an entry whose time is over: lent, in its grace, or gone. Returns whether it is gone.
    fn retire(&mut self, slot: u32, gone_ms: u32, schema: &Schema, now: u64) -> bool {
        if self.is_held_elsewhere(slot) {
            self.hide(slot, flags::LENT, now);
        } else if self.age(slot, now) >= gone_ms {
            self.remove(schema, slot, now);
            return true;
        } else {
            self.hide(slot, flags::GRACED, now);
        }
        false
    }
    /// Hides entries that have expired and removes those whose grace is over.
    pub fn retire_expired(&mut self, schema: &Schema, now: u64, most: usize) -> Swept {
        let mut swept = Swept::default();
        let Some(lifetime) = schema.lifetime else {
            return swept;
        };
        let gone = lifetime.saturating_add(EXPIRED_GRACE_MS);
        self.take_back_lent(schema, now);
        while swept.seen < most {
            let graced = self.replica.as_ref().and_then(|r| r.graced.first());
            let graced = graced.filter(|slot| self.age(*slot, now) >= gone);
            let expired = || {
                self.oldest(now)
                    .filter(|slot| self.age(*slot, now) >= lifetime)
            };
            let Some(slot) = graced.or_else(expired) else {
                break;
            };
            swept.removed += usize::from(self.retire(slot, gone, schema, now));
            swept.seen += 1;
        }
        self.events.expirations += swept.removed as u64;
        swept
    }
    /// Now and then, puts lent entries that nobody holds any more back into the touch order.
    fn take_back_lent(&mut self, schema: &Schema, now: u64) {
        let Some(replica) = &mut self.replica else {
            return;
        };
        if replica.next_look_at_lent().is_none_or(|date| now < date) {
            return;
        }
        replica.lent_checked_ms = now;
        let mut next = replica.lent.first();
        while let Some(slot) = next {
            let after = self.word(slot, NEXT);
            next = (after != NIL).then_some(after);
            if !self.is_held_elsewhere(slot) {
                self.take_out(slot, now);
                self.place(schema, slot, now);
            }
        }
    }
    pub(super) fn is_held_elsewhere(&self, slot: u32) -> bool {
        self.replica
            .as_ref()
            .is_some_and(|replica| replica.is_held_elsewhere(self.record(slot)))
    }
    /// Removes a hidden or expired entry because its place is needed. Returns whether there was one.
    pub fn reclaim(&mut self, schema: &Schema, now: u64) -> bool {
        let Some(replica) = &self.replica else {
            return false;
        };
        if let Some(slot) = replica.tombs.first() {
            if !self.is_tomb_over(schema, slot, now) {
                count(&replica.shared.counts.edicts_dropped);
            }
            self.remove(schema, slot, now);
            return true;
        }
        let graced = replica.graced.first();
        let expired = |shard: &mut Shard| {
            let slot = shard.oldest(now)?;
            let expired = shard.age(slot, now) >= schema.lifetime?;
            (expired && !shard.is_held_elsewhere(slot)).then_some(slot)
        };
        if let Some(slot) = graced.or_else(|| expired(self)) {
            self.events.expirations += 1;
            self.remove(schema, slot, now);
            return true;
        }
        false
    }
}
