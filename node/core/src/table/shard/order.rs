//! The order in which the entries of a shard were last touched.
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

use std::collections::BTreeSet;

use super::{HELD, Shard};
use crate::table::rate::age_ms;
use crate::table::replica::ReplicaShard;
use crate::table::schema::{NEXT, PREV, Schema, TOUCHED};
use crate::table::slab::{FREE, NIL, SLOTS_MAX};

/// `PREV` of an entry aside.
const ASIDE: u32 = u32::MAX - 2;
/// Steps back from the tail before an entry is put aside; fewer where they lately led nowhere, as each is a record that has to
/// come from memory.
pub(super) const STEPS_BACK_MAX: u32 = 8;
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
pub(super) struct Aside {
    /// In order.
    sorted: BTreeSet<u64>,
    /// Noted since that was brought up to date. Some may have been taken out again.
    loose: Vec<u64>,
    /// None of `loose` comes before this.
    least: u64,
}

impl Aside {
    pub(super) const EMPTY: Aside = Aside {
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
    /// None has a date before this.
    pub(super) fn first_date(&self) -> Option<u64> {
        self.bound().map(|key| key >> SLOT_BITS)
    }
    pub(super) fn bytes(&self) -> usize {
        self.sorted.len() * ASIDE_BYTES + self.loose.capacity() * size_of::<u64>()
    }
}

/// Sorts by date, then by slot. 40 bits of milliseconds are 34 years.
fn aside_key(date: u64, slot: u32) -> u64 {
    date.min(u64::MAX >> SLOT_BITS) << SLOT_BITS | u64::from(slot & SLOT_MASK)
}

/// The full date of a 32-bit stamp that is near `now`.
pub(in crate::table) fn date(now: u64, stamp: u32) -> u64 {
    let ahead = stamp.wrapping_sub(now as u32);
    match age_ms(now as u32, stamp) {
        0 => now.saturating_add(u64::from(ahead)),
        age => now.saturating_sub(u64::from(age)),
    }
}

impl Shard {
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
