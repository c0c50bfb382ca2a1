//! Storage of fixed-size records in chunks: growing never copies, memory stays close to what is used.
//!
//! Chunks of large slabs are pages of their own, so that what is let go of goes back to the system, whatever else the process
//! has allocated meanwhile.

use memmap2::{Advice, MmapMut, MmapOptions};

use super::schema::{NEXT, PREV, set_word, word};

/// No slot.
pub(super) const NIL: u32 = u32::MAX;
/// In a record's `PREV`: the slot is free and `NEXT` is the next free one.
pub(super) const FREE: u32 = u32::MAX - 1;
/// Slots a shard can have. Low enough to share a word with a date, and numbers above are marks.
pub(super) const SLOTS_MAX: u32 = (1 << 24) - 1;
/// Bytes a chunk aims at.
const CHUNK_BYTES: usize = 4096;
/// Records of a chunk where there will be several of them, as in every table of more than one shard: whole pages, since records
/// are whole words.
const PAGES_RECORDS: usize = 1024;
const PAGE: usize = 4096;

#[derive(Debug)]
enum Chunk {
    Heap(Box<[u8]>),
    /// Costs memory as far as it is in use.
    Pages(MmapMut),
    /// It was let go of. Its slots are never used again.
    Gone,
}

impl Chunk {
    /// `filled`: all of it will be used at once, which costs a third less if the pages come together.
    fn new(bytes: usize, pages: bool, filled: bool) -> Chunk {
        let mut options = MmapOptions::new();
        options.len(bytes);
        if filled {
            options.populate();
        }
        if pages && let Ok(pages) = options.map_anon() {
            // Neighbours look like one area, of which huge pages would take more than is used.
            let _ = pages.advise(Advice::NoHugePage);
            return Chunk::Pages(pages);
        }
        Chunk::Heap(vec![0; bytes].into_boxed_slice())
    }
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Heap(bytes) => bytes,
            Chunk::Pages(bytes) => bytes,
            Chunk::Gone => &[],
        }
    }
    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Chunk::Heap(bytes) => bytes,
            Chunk::Pages(bytes) => bytes,
            Chunk::Gone => &mut [],
        }
    }
}

#[derive(Debug)]
pub(super) struct Slab {
    chunks: Vec<Chunk>,
    stride: usize,
    /// log2 of records per chunk.
    shift: u32,
    /// Slots ever handed out.
    len: u32,
    free: u32,
    /// Slots below will be used soon.
    expected: usize,
}

impl Slab {
    /// `most` = greatest number of records that will ever be needed; `share` = how many are to be expected.
    pub fn new(stride: usize, most: usize, share: usize) -> Slab {
        let records = if share > PAGES_RECORDS {
            PAGES_RECORDS
        } else {
            (CHUNK_BYTES / stride.max(1)).clamp(1, 256)
        };
        let records = records.min(most.max(1).next_power_of_two());
        Slab {
            chunks: Vec::new(),
            stride,
            shift: records.ilog2(),
            len: 0,
            free: NIL,
            expected: 0,
        }
    }
    /// So many records come soon, one after the other.
    pub fn expect(&mut self, records: usize) {
        self.expected = records;
    }
    /// Slots ever handed out: valid slots are below.
    pub fn len(&self) -> u32 {
        self.len
    }
    pub fn bytes(&self) -> usize {
        let full = self.stride << self.shift;
        let used = |(at, chunk): (usize, &Chunk)| match chunk {
            Chunk::Heap(bytes) => bytes.len(),
            Chunk::Pages(_) => {
                let records = (self.len as usize).saturating_sub(at << self.shift);
                (records * self.stride).min(full).next_multiple_of(PAGE)
            }
            Chunk::Gone => 0,
        };
        let chunks = self.chunks.iter().enumerate().map(used);
        chunks.sum::<usize>() + self.chunks.len() * size_of::<Chunk>()
    }
    /// Gives every slot back but these, which are in order, and lets go of chunks in which none of them is, without a look at
    /// what is there.
    pub fn keep_only(&mut self, kept: &[u32]) {
        let mut kept = kept.iter().copied().peekable();
        self.free = NIL;
        for at in 0..self.chunks.len() {
            let first = (at << self.shift) as u32;
            let end = (first + (1 << self.shift)).min(self.len);
            if kept.peek().is_none_or(|slot| *slot >= end) {
                if let Some(chunk) = self.chunks.get_mut(at) {
                    *chunk = Chunk::Gone;
                }
                continue;
            }
            for slot in first..end {
                if kept.next_if_eq(&slot).is_none() {
                    self.give_back(slot);
                }
            }
        }
        // The last one may have slots that were never handed out.
        if matches!(self.chunks.last(), Some(Chunk::Gone)) {
            self.len = (self.chunks.len() as u32) << self.shift;
        }
    }
    /// A slot whose record holds anything. `None`: numbers ran out.
    pub fn take(&mut self) -> Option<u32> {
        if self.free != NIL {
            let slot = self.free;
            self.free = word(self.record(slot), NEXT);
            return Some(slot);
        }
        if self.len == SLOTS_MAX {
            return None;
        }
        let slot = self.len;
        if (slot >> self.shift) as usize == self.chunks.len() {
            let pages = 1 << self.shift == PAGES_RECORDS;
            let filled = (self.chunks.len() + 1) << self.shift <= self.expected;
            let bytes = self.stride << self.shift;
            self.chunks.push(Chunk::new(bytes, pages, filled));
        }
        self.len += 1;
        Some(slot)
    }
    /// Looks at the records of so many slots that will be handed out next, to have them fetched ahead of time, where that is known
    /// to be of use: what was never written costs a second fault of the page if it is read first.
    #[inline]
    pub fn look_ahead(&self, slots: usize) -> u32 {
        let end = (self.len as usize + slots).min(self.expected >> self.shift << self.shift);
        if self.free != NIL {
            return 0;
        }
        let ahead = (self.len..end as u32).map(|slot| {
            let record = self.record(slot);
            let last = record.last().copied().unwrap_or(0);
            record.first().map_or(0, |first| u32::from(*first | last))
        });
        ahead.fold(0, |sum, part| sum | part)
    }
    pub fn give_back(&mut self, slot: u32) {
        let next = self.free;
        let record = self.record_mut(slot);
        set_word(record, PREV, FREE);
        set_word(record, NEXT, next);
        self.free = slot;
    }
    #[inline]
    pub fn record(&self, slot: u32) -> &[u8] {
        let at = (slot as usize & ((1 << self.shift) - 1)) * self.stride;
        self.chunks
            .get((slot >> self.shift) as usize)
            .and_then(|chunk| chunk.bytes().get(at..at + self.stride))
            .unwrap_or_default()
    }
    #[inline]
    pub fn record_mut(&mut self, slot: u32) -> &mut [u8] {
        let at = (slot as usize & ((1 << self.shift) - 1)) * self.stride;
        self.chunks
            .get_mut((slot >> self.shift) as usize)
            .and_then(|chunk| chunk.bytes_mut().get_mut(at..at + self.stride))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_use_is_let_go_of() {
        for share in [1, 10_000] {
            let mut slab = Slab::new(64, 10_000, share);
            let slots: Vec<u32> = (0..5_000).map(|_| slab.take().unwrap()).collect();
            for slot in &slots {
                set_word(slab.record_mut(*slot), 0, slot + 7);
            }
            let before = slab.bytes();
            for slot in slots
                .iter()
                .filter(|slot| *slot % 2 == 0 && **slot != 1_234)
            {
                slab.give_back(*slot);
            }
            slab.keep_only(&[1_234]);
            assert!(slab.bytes() < before / 4, "{} of {before}", slab.bytes());
            assert_eq!(word(slab.record(1_234), 0), 1_241);
            assert!(slab.record(0).is_empty());
            // Slots are handed out again, but only those that have a place.
            for _ in 0..3_000 {
                let slot = slab.take().unwrap();
                assert_ne!(slot, 1_234);
                assert_eq!(slab.record(slot).len(), 64);
            }
            slab.keep_only(&[1_234]);
            assert_eq!(word(slab.record(1_234), 0), 1_241);
            slab.keep_only(&[]);
            assert!(slab.record(1_234).is_empty());
            let slot = slab.take().unwrap();
            assert_eq!(slab.record(slot).len(), 64);
        }
    }
}
