//! The journal: in which order entries changed here. It is the only queue towards peers: each reads on from its own
//! number, and whoever is slow costs nothing but its own lag.
//!
//! An entry is at one position, that of its newest number. Older positions are *holes*, told by the record's version;
//! slots are used again, but numbers never are. Holes are swept out piece by piece.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Collected;
use super::epitaphs::{Epitaphs, is_kept};
use super::state::{ReplicaShard, Shared, flags};
use crate::table::schema::{FIRST, FLAGS, USES, VERSION, set_wide, set_word, wide, word};
use crate::table::shard::Shard;
use crate::table::{Padded, Table};

/// Items of a piece.
const CHUNK: usize = 1024;
/// Entries stamped per lock of a shard.
const STAMP_SLICE: usize = 256;
/// More holes than live items plus this many are swept out.
const HOLES_SPARE: usize = 1024;
/// Pieces swept per collection.
const CHUNKS_PER_SWEEP: usize = 4;
/// A fresh own cell stays so for at least this long after everyone has heard of it: an offer of an older share may be
/// under way.
pub(super) const FRESH_MIN_MS: u32 = 5_000;

/// A position of the journal.
#[derive(Clone, Copy, Debug)]
pub(in crate::table) struct Item {
    pub number: u64,
    pub slot: u32,
    pub shard: u16,
}

/// Items by number. See the module's head.
#[derive(Debug, Default)]
pub(in crate::table) struct Journal {
    /// None is empty.
    chunks: VecDeque<Vec<Item>>,
    len: usize,
    newest: u64,
    /// Piece that the sweep looks at next, counted from the oldest.
    sweep_at: usize,
    /// Emptied pieces, to use their memory again.
    spare: Option<Vec<Item>>,
    pub(super) epitaphs: Epitaphs,
}

impl Journal {
    pub fn newest(&self) -> u64 {
        self.newest
    }
    /// Forgets all positions.
    pub fn clear(&mut self) {
        *self = Journal {
            newest: self.newest,
            ..Journal::default()
        };
    }
    /// Never gives out numbers up to this one (again).
    pub fn raise(&mut self, number: u64) {
        self.newest = self.newest.max(number);
    }
    /// Appends; returns the number.
    pub(super) fn push(&mut self, shard: u16, slot: u32) -> u64 {
        self.newest = self.newest.saturating_add(1);
        let item = Item {
            number: self.newest,
            slot,
            shard,
        };
        match self.chunks.back_mut() {
            Some(last) if last.len() < CHUNK => last.push(item),
            _ => {
                let mut chunk = self.spare.take().unwrap_or_default();
                chunk.clear();
                chunk.push(item);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
        self.newest
    }
    /// Position of the first item with a number above `after`: piece, and place in it.
    fn position(&self, after: u64) -> (usize, usize) {
        let piece = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(|item| item.number <= after));
        let place = self.chunks.get(piece).map_or(0, |chunk| {
            chunk.partition_point(|item| item.number <= after)
        });
        (piece, place)
    }
    /// Copies items with numbers above `after`, at most `most`.
    pub fn copy(&self, after: u64, most: usize, to: &mut Vec<Item>) {
        let (piece, place) = self.position(after);
        let mut skip = place;
        for chunk in self.chunks.range(piece.min(self.chunks.len())..) {
            let items = chunk.get(skip..).unwrap_or_default();
            skip = 0;
            let room = most.saturating_sub(to.len());
            to.extend_from_slice(items.get(..room).unwrap_or(items));
            if to.len() >= most {
                return;
            }
        }
    }
    /// Items with numbers above `after`, holes included.
    pub fn count_after(&self, after: u64) -> usize {
        let (piece, place) = self.position(after);
        let total: usize = self
            .chunks
            .range(piece.min(self.chunks.len())..)
            .map(Vec::len)
            .sum();
        total - place.min(total)
    }
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum::<usize>() * size_of::<Item>()
            + self.epitaphs.bytes()
    }

    /// Puts in items, sorted by number, which may be in between. Returns the greatest number.
    pub fn put_in(&mut self, mut more: Vec<Item>) -> u64 {
        let Some(first) = more.first().map(|item| item.number) else {
            return self.newest;
        };
        // What is above the first of them is taken out, and comes back in order.
        while let Some(chunk) = self.chunks.back_mut()
            && chunk.last().is_some_and(|item| item.number >= first)
        {
            let keep = chunk.partition_point(|item| item.number < first);
            more.extend(chunk.drain(keep..));
            if chunk.is_empty() {
                self.chunks.pop_back();
            }
        }
        more.sort_unstable_by_key(|item| item.number);
        more.dedup_by_key(|item| item.number);
        self.chunks.extend(more.chunks(CHUNK).map(<[Item]>::to_vec));
        self.len = self.chunks.iter().map(Vec::len).sum();
        self.newest = self.newest.max(more.last().map_or(0, |item| item.number));
        self.newest
    }

    /// Takes holes out of some pieces, if there are too many. `is_hole` may lock shards: nothing that holds a shard's lock
    /// may wait for this.
    fn take_piece(&mut self) -> Option<(usize, Vec<Item>)> {
        if self.sweep_at >= self.chunks.len() {
            self.sweep_at = 0;
        }
        let chunk = self.chunks.get(self.sweep_at)?.clone();
        Some((self.sweep_at, chunk))
    }
    /// Puts a swept piece back; returns how many items went.
    fn put_piece(&mut self, at: usize, first: u64, kept: Vec<Item>) -> usize {
        // Between the two, items may have been appended to the last piece: that one is never swept.
        let Some(chunk) = self.chunks.get_mut(at) else {
            return 0;
        };
        if chunk.first().map(|item| item.number) != Some(first) {
            return 0;
        }
        let gone = chunk.len() - kept.len().min(chunk.len());
        self.len -= gone;
        *chunk = kept;
        let len = chunk.len();
        if len == 0 {
            self.spare = self.chunks.remove(at);
        } else if at > 0
            && self
                .chunks
                .get(at - 1)
                .is_some_and(|before| before.len() + len <= CHUNK)
        {
            let moved = self.chunks.remove(at).unwrap_or_default();
            if let Some(before) = self.chunks.get_mut(at - 1) {
                before.extend_from_slice(&moved);
            }
        } else {
            self.sweep_at = at + 1;
        }
        gone
    }
}

impl Shared {
    /// Whether the journal holds more holes than it should.
    fn is_sparse(&self, journal: &Journal) -> bool {
        let holes = self.holes.load(Relaxed);
        holes > journal.len.saturating_sub(holes) + HOLES_SPARE
    }
}

impl ReplicaShard {
    /// Gives the own cell the next number and the journal's last position: its content is now that of this version.
    pub fn stamp(&mut self, journal: &mut Journal, record: &mut [u8], slot: u32) -> u64 {
        let number = journal.push(self.number, slot);
        let mut bits = word(record, FLAGS);
        if bits & flags::JOURNALED != 0 {
            self.shared.holes.fetch_add(1, Relaxed);
        }
        if bits & flags::FRESH != 0 {
            if wide(record, VERSION) == 0 {
                set_word(record, FIRST, number as u32);
            } else if first(record, number) <= self.shared.acked_by_all.load(Relaxed) {
                bits &= !flags::FRESH;
            }
        }
        set_wide(record, VERSION, number);
        bits &= !(flags::DIRTY | flags::TOLD_HELD);
        if word(record, USES) > 0 {
            bits |= flags::TOLD_HELD;
        }
        set_word(record, FLAGS, bits | flags::JOURNALED);
        if bits & flags::EXT != 0
            && let Some(ext) = self.ext_mut(slot)
        {
            ext.own_epoch = ext.newest();
        }
        self.shared.newest.store(number, Release);
        number
    }
}

/// The first number of a fresh own cell whose version is `version`.
pub(super) fn first(record: &[u8], version: u64) -> u64 {
    let ahead = (version as u32).wrapping_sub(word(record, FIRST));
    version.saturating_sub(u64::from(ahead))
}

/// Whether this item is where its entry is.
pub(super) fn is_live(shard: &Shard, item: Item) -> bool {
    if !shard.is_taken(item.slot) {
        return false;
    }
    let record = shard.record(item.slot);
    word(record, FLAGS) & flags::JOURNALED != 0 && wide(record, VERSION) == item.number
}

/// Stamps what changed. See `Replica::collect`.
pub(super) fn collect(table: &Table, shared: &Shared, now_ms: u64, budget: usize) -> Collected {
    let mut before = shared.collecting.lock();
    let since = std::mem::replace(&mut *before, shared.newest.load(Acquire));
    shared.note_time(now_ms);
    shared.clear_dirty();
    let (mut stamped, mut again) = (0, 0);
    let mut more = false;
    let mut word_at = 0;
    while let Some(mut bits) = shared.take_dirty_shards(word_at) {
        while bits != 0 {
            let number = word_at * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let Some(shard) = table.shards.get(number) else {
                continue;
            };
            if stamped >= budget {
                shared.stays_dirty(number as u16);
                more = true;
                continue;
            }
            let left = budget - stamped;
            let done = collect_shard(shard, shared, since, left);
            stamped += done.stamped;
            again += done.again;
            if !done.all {
                shared.stays_dirty(number as u16);
                more = true;
            }
        }
        word_at += 1;
    }
    sweep(table, shared);
    Collected {
        newest: shared.newest.load(Acquire),
        stamped,
        again,
        more,
    }
}

/// What was stamped of a shard.
#[derive(Default)]
struct Done {
    stamped: usize,
    /// See [`Collected::again`].
    again: usize,
    /// It was all that had changed.
    all: bool,
}

/// Stamps up to `budget` entries of a shard. `since`: the last number before the collection before this one.
fn collect_shard(padded: &Padded, shared: &Shared, since: u64, budget: usize) -> Done {
    let mut done = Done::default();
    // Slots keep their `LISTED` flag until they are looked at, so nobody lists them again meanwhile.
    let mut list = {
        let mut shard = padded.lock();
        match &mut shard.replica {
            Some(replica) => std::mem::take(&mut replica.dirty),
            None => return Done { all: true, ..done },
        }
    };
    let mut next = 0;
    while next < list.len() && done.stamped < budget {
        let mut shard = padded.lock();
        let mut journal = shared.journal.lock();
        let slice = STAMP_SLICE.min(budget - done.stamped);
        for &slot in list.iter().skip(next).take(slice) {
            next += 1;
            let (record, Some(replica)) = shard.parts(slot) else {
                continue;
            };
            let bits = word(record, FLAGS) & !flags::LISTED;
            set_word(record, FLAGS, bits);
            // A slot that was given back has lost its dirty flag.
            if bits & flags::DIRTY != 0 {
                done.again += usize::from(wide(record, VERSION) > since);
                replica.stamp(&mut journal, record, slot);
                done.stamped += 1;
            }
        }
    }
    let mut shard = padded.lock();
    if let Some(replica) = &mut shard.replica {
        list.drain(..next);
        done.all = list.is_empty();
        if replica.dirty.capacity() < list.capacity() {
            list.append(&mut replica.dirty);
            replica.dirty = list;
        } else {
            replica.dirty.append(&mut list);
        }
        return done;
    }
    Done { all: true, ..done }
}

/// Takes holes out of a few pieces of the journal, if there are too many.
fn sweep(table: &Table, shared: &Shared) {
    for _ in 0..CHUNKS_PER_SWEEP {
        let (at, mut items, epitaphs) = {
            let mut journal = shared.journal.lock();
            if !shared.is_sparse(&journal) {
                return;
            }
            // The last piece is still being filled.
            match journal.take_piece() {
                Some((at, _)) if at + 1 >= journal.chunks.len() => {
                    journal.sweep_at = 0;
                    return;
                }
                Some((at, items)) => (at, items, journal.epitaphs.oldest()),
                None => return,
            }
        };
        let Some(first) = items.first().map(|item| item.number) else {
            return;
        };
        // A hole stays one; an item found live may become a hole meanwhile and is met again.
        items.retain(|item| {
            is_kept(*item, epitaphs)
                || table
                    .shards
                    .get(usize::from(item.shard))
                    .is_some_and(|shard| is_live(&shard.lock(), *item))
        });
        let gone = shared.journal.lock().put_piece(at, first, items);
        shared.holes.fetch_sub(gone, Relaxed);
    }
}
