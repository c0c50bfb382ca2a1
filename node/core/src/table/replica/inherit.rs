//! Taking over the entries of another process of this node, state for state: nothing is merged, all is replaced.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::cells::{CELL_HELD, CELL_PARTIAL};
use super::edicts::{NEVER, set_register};
use super::journal::Item;
use super::state::{ReplicaShard, flags};
use super::{Replica, merge};
use crate::peers::batch::{EdictRow, RowFlags, RowHead};
use crate::table::lineage::{Lineage, Stamp};
use crate::table::schema::{
    BORN, CELL_DATA, CELL_LINEAGE, CELL_VERSION, FIRST, FLAGS, Schema, VERSION, set_wide, set_word,
    wide, word,
};
use crate::table::shard::Shard;

/// Own cells that got a number after the journal was built, by the shard they are in.
pub(in crate::table) type Late = Vec<Item>;

impl Shard {
    /// Makes an entry that is nowhere in the order as if nothing were known of it but its key. Returns the version its own
    /// cell had in the journal.
    pub fn wipe(&mut self, schema: &Schema, slot: u32) -> Option<u64> {
        let (record, Some(replica)) = self.parts(slot) else {
            schema.blank_data(self.slab.record_mut(slot));
            return None;
        };
        let bits = word(record, FLAGS);
        let known = (bits & flags::JOURNALED != 0).then(|| wide(record, VERSION));
        replica.drop_cells(record);
        if bits & flags::EXT != 0 {
            replica.drop_ext(slot);
        }
        set_word(record, FLAGS, (bits & flags::LISTED) | flags::FRESH);
        set_wide(record, VERSION, 0);
        schema.blank_data(record);
        known
    }
    /// Whether an entry is a tombstone, or expired and kept for what arrives late.
    pub fn is_hidden(&self, slot: u32) -> bool {
        self.replica.is_some()
            && word(self.record(slot), FLAGS) & (flags::TOMB | flags::GRACED) != 0
    }
    /// Says that an own cell came from a process that did not replicate: nobody has heard of it. `whole`: what anybody has of
    /// this lineage is in it, and must not be added to it again.
    pub fn publish(&mut self, slot: u32, whole: bool) {
        if let (record, Some(replica)) = self.parts(slot) {
            if whole {
                set_word(record, FLAGS, word(record, FLAGS) & !flags::FRESH);
            }
            replica.mark(record, slot);
        }
    }
    /// What an entry's first row says beside the cell.
    pub fn inherit_entry(&mut self, schema: &Schema, slot: u32, born: u32, edicts: &[EdictRow]) {
        let (record, Some(replica)) = self.parts(slot) else {
            return;
        };
        set_word(record, BORN, born);
        if let Some(layout) = &schema.replica {
            for edict in edicts {
                let column = edict.column.map(|column| column as u16);
                replica.learn_edict(layout, record, slot, column, edict.stamp);
            }
        }
    }
    /// The head of the own cell. `known`: the version it had in this journal. Returns the item to put into the journal.
    pub fn inherit_own(&mut self, slot: u32, head: &RowHead, known: Option<u64>) -> Option<Item> {
        let (record, Some(replica)) = self.parts(slot) else {
            return None;
        };
        let fresh = head.flags.contains(RowFlags::FRESH);
        let bits = word(record, FLAGS) & !flags::FRESH;
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let held = bit(head.flags.contains(RowFlags::HELD), flags::TOLD_HELD);
        let bits = (bits & !flags::TOLD_HELD) | bit(fresh, flags::FRESH) | held;
        set_word(record, FLAGS, bits | flags::JOURNALED);
        set_wide(record, VERSION, head.version);
        if fresh {
            set_word(record, FIRST, head.first as u32);
        }
        if let Some(epoch) = head.epoch {
            set_word(record, FLAGS, word(record, FLAGS) | flags::EXT);
            replica.ext_or_new(slot).own_epoch = epoch;
        }
        if known == Some(head.version) {
            return None;
        }
        if known.is_some() {
            replica.shared.holes.fetch_add(1, Relaxed);
        }
        Some(Item {
            number: head.version,
            slot,
            shard: replica.number,
        })
    }
    /// An entry whose own cell is not stamped any more leaves a hole in the journal.
    pub fn inherit_nothing(&mut self, known: Option<u64>) {
        if let (Some(_), Some(replica)) = (known, &self.replica) {
            replica.shared.holes.fetch_add(1, Relaxed);
        }
    }
    /// Another lineage's cell; `index` is that lineage's, which somebody holds. `data`: its columns, laid out as in cells.
    pub fn inherit_cell(&mut self, slot: u32, head: &RowHead, index: u16, data: &[u8]) -> bool {
        let (record, Some(replica)) = self.parts(slot) else {
            return false;
        };
        let Some(at) = replica.add_cell(record, index) else {
            return false;
        };
        let cell = replica.cells.record_mut(at);
        if let (Some(to), Some(from)) = (cell.get_mut(CELL_DATA..), data.get(CELL_DATA..)) {
            to.copy_from_slice(from);
        }
        let bit = |flag, bit| if head.flags.contains(flag) { bit } else { 0 };
        let bits = bit(RowFlags::HELD, CELL_HELD) | bit(RowFlags::PARTIAL, CELL_PARTIAL);
        set_word(cell, CELL_LINEAGE, u32::from(index) | bits);
        set_wide(cell, CELL_VERSION, head.version);
        if let Some(epoch) = head.epoch.filter(|epoch| *epoch > NEVER) {
            set_word(record, FLAGS, word(record, FLAGS) | flags::EXT);
            replica.ext_or_new(slot).set_epoch(index, epoch);
        }
        true
    }
    /// Assigns a register with its stamp.
    pub fn inherit_register(
        &mut self,
        slot: u32,
        register: &crate::table::schema::Cell,
        value: u32,
        stamp: Stamp,
    ) {
        set_register(self.slab.record_mut(slot), register, value, stamp);
    }
    /// Makes an entry that is nowhere a tombstone, which it has been for `age` already.
    pub fn inherit_tomb(&mut self, slot: u32, age: u32, now: u64) {
        self.hide(slot, flags::TOMB, now);
        if let Some(ext) = self.replica.as_mut().and_then(|r| r.ext_mut(slot)) {
            ext.since = (now as u32).wrapping_sub(age);
        }
    }
    /// The item of an own cell for a journal that is built anew.
    pub fn journal_item(&self, slot: u32) -> Option<Item> {
        let record = self.record(slot);
        let replica: &ReplicaShard = self.replica.as_deref()?;
        (word(record, FLAGS) & flags::JOURNALED != 0).then(|| Item {
            number: wide(record, VERSION),
            slot,
            shard: replica.number,
        })
    }
}

impl Replica<'_> {
    /// Puts own cells into the journal in the order of their numbers.
    pub(in crate::table) fn journal_inherited(&self, mut items: Late) {
        // Mostly they are some sorted lists, one after the other.
        items.sort_by_key(|item| item.number);
        let mut journal = self.shared.journal.lock();
        let newest = journal.put_in(items);
        self.shared.newest.store(newest, Release);
    }
    /// The highest version merged of every other lineage.
    pub fn highest_of_all(&self) -> Vec<(Lineage, u64)> {
        let highest = self.shared.highest.lock();
        highest.iter().map(|(lineage, n)| (*lineage, *n)).collect()
    }
    /// Continues another process's table: the last number of its journal, and what [`Replica::highest_of_all`] gave there.
    pub fn inherit(&self, newest: u64, highest: &[(Lineage, u64)]) {
        self.resume_from(newest.min(merge::VERSION_MAX));
        let mut known = self.shared.highest.lock();
        for (lineage, version) in highest {
            let known = known.entry(*lineage).or_insert(0);
            *known = (*known).max(*version);
        }
    }
}
