//! Storage of fixed-size records in chunks: growing never copies, memory stays close to what is used.

use super::schema::{NEXT, PREV, set_word, word};

/// No slot.
pub(super) const NIL: u32 = u32::MAX;
/// In a record's `PREV`: the slot is free and `NEXT` is the next free one.
pub(super) const FREE: u32 = u32::MAX - 1;
/// Slots a shard can have. Low enough to share a word with a date, and numbers above are marks.
pub(super) const SLOTS_MAX: u32 = (1 << 24) - 1;
/// Bytes a chunk aims at.
const CHUNK_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct Slab {
    chunks: Vec<Box<[u8]>>,
    stride: usize,
    /// log2 of records per chunk.
    shift: u32,
    /// Slots ever handed out.
    len: u32,
    free: u32,
}

impl Slab {
    /// `most` = greatest number of records that will ever be needed.
    pub fn new(stride: usize, most: usize) -> Slab {
        let records = (CHUNK_BYTES / stride.max(1))
            .clamp(1, 256)
            .min(most.max(1).next_power_of_two());
        Slab {
            chunks: Vec::new(),
            stride,
            shift: records.ilog2(),
            len: 0,
            free: NIL,
        }
    }
    /// Slots ever handed out: valid slots are below.
    pub fn len(&self) -> u32 {
        self.len
    }
    pub fn bytes(&self) -> usize {
        self.chunks.len() * ((self.stride << self.shift) + size_of::<Box<[u8]>>())
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
            self.chunks
                .push(vec![0; self.stride << self.shift].into_boxed_slice());
        }
        self.len += 1;
        Some(slot)
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
            .and_then(|chunk| chunk.get(at..at + self.stride))
            .unwrap_or_default()
    }
    #[inline]
    pub fn record_mut(&mut self, slot: u32) -> &mut [u8] {
        let at = (slot as usize & ((1 << self.shift) - 1)) * self.stride;
        self.chunks
            .get_mut((slot >> self.shift) as usize)
            .and_then(|chunk| chunk.get_mut(at..at + self.stride))
            .unwrap_or_default()
    }
}
