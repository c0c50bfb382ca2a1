//! Entries that are removed right after their last tracker ended, before anybody was told: what is left of them is a line
//! in the journal that says so. Without it, others would count that tracker, and keep the entry, for good.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::cells::CELL_HELD;
use super::journal::Item;
use super::state::{ReplicaShard, Shared, count, flags};
use crate::table::data_type::Kind;
use crate::table::schema::{CELL_LINEAGE, FLAGS, ReplicaLayout, Schema, set_word, word};
use crate::table::shard::Shard;

/// The slot of a journal's item that is an epitaph.
pub(super) const EPITAPH: u32 = u32::MAX;
/// Epitaphs kept per table until everyone has read them; older ones are dropped and counted.
const EPITAPHS_MAX: usize = 16_384;

/// Keys by number.
#[derive(Debug, Default)]
pub(super) struct Epitaphs(VecDeque<(u64, Box<[u8]>)>);

impl Epitaphs {
    /// The number of the oldest one.
    pub fn oldest(&self) -> Option<u64> {
        self.0.front().map(|(number, _)| *number)
    }
    /// The key of this one, if it is still there.
    pub fn key(&self, number: u64) -> Option<&[u8]> {
        let at = self.0.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        self.0.get(at).map(|(_, key)| &**key)
    }
    /// Drops what everyone has, and what is too much. Returns how many of either.
    fn trim(&mut self, acked: u64) -> (usize, usize) {
        let before = self.0.len();
        while self.oldest().is_some_and(|number| number <= acked) {
            self.0.pop_front();
        }
        let read = before - self.0.len();
        let excess = self.0.len().saturating_sub(EPITAPHS_MAX);
        self.0.drain(..excess);
        (read, excess)
    }
    pub fn bytes(&self) -> usize {
        let keys: usize = self.0.iter().map(|(_, key)| key.len()).sum();
        self.0.capacity() * size_of::<(u64, Box<[u8]>)>() + keys
    }
}

impl Shared {
    fn write_epitaph(&self, shard: u16, key: &[u8]) {
        let mut journal = self.journal.lock();
        let number = journal.push(shard, EPITAPH);
        journal.epitaphs.0.push_back((number, key.into()));
        let (read, dropped) = journal.epitaphs.trim(self.acked_by_all.load(Relaxed));
        self.newest.store(number, Release);
        drop(journal);
        self.holes.fetch_add(read + dropped, Relaxed);
        (0..dropped).for_each(|_| count(&self.counts.releases_dropped));
        self.shard_is_dirty(shard);
    }
}

impl ReplicaShard {
    /// Before a record is forgotten or begins another life: if others were told that it is held here, they will be told
    /// that it no longer is.
    pub fn say_released(&self, schema: &Schema, record: &mut [u8]) {
        let bits = word(record, FLAGS);
        if bits & flags::TOLD_HELD == 0 {
            return;
        }
        set_word(record, FLAGS, bits & !flags::TOLD_HELD);
        self.shared.write_epitaph(self.number, schema.key(record));
    }
}

impl Shard {
    /// Another lineage had no trackers of this entry any more when it gave that number. Returns whether that is news.
    pub(super) fn released(
        &mut self,
        layout: &ReplicaLayout,
        slot: u32,
        lineage: u16,
        number: u64,
    ) -> bool {
        let (record, Some(replica)) = self.parts(slot) else {
            return false;
        };
        let found = replica.find_cell(record, lineage);
        let Some(at) = found
            .filter(|cell| cell.version() < number)
            .map(|cell| cell.slot)
        else {
            return false;
        };
        let cell = replica.cells.record_mut(at);
        let head = word(cell, CELL_LINEAGE);
        let mut changed = head & CELL_HELD != 0;
        set_word(cell, CELL_LINEAGE, head & !CELL_HELD);
        for gauge in layout.summed().iter().filter(|c| c.kind == Kind::Gauge) {
            changed |= word(cell, gauge.remote) > 0;
            set_word(cell, gauge.remote, 0);
        }
        changed
    }
}

/// Whether an item is an epitaph that may still have to be read.
pub(super) fn is_kept(item: Item, oldest: Option<u64>) -> bool {
    item.slot == EPITAPH && oldest.is_some_and(|oldest| item.number >= oldest)
}
