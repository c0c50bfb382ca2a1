//! What a shard notes while another process takes over.

use std::collections::BTreeMap;

use super::{Delta, Op};
use crate::table::schema::{Schema, USES, word};
use crate::table::shard::Shard;
use crate::table::{DataType, Key, Table};

/// First marks, then deltas.
#[derive(Debug)]
pub(in crate::table) enum Follow {
    /// Before the other process has taken over: which entries changed.
    Marks(Marks),
    /// Since then: what was counted.
    Deltas(BTreeMap<Key, Delta>),
}

/// Entries that changed since they were shown.
#[derive(Debug, Default)]
pub(in crate::table) struct Marks {
    /// A bit per slot.
    bits: Vec<u64>,
    count: usize,
    /// Keys removed by hand. What expires or is evicted here is the other process's own business.
    pub removed: Vec<Key>,
    /// There were too many of them: they are not all known.
    pub overrun: bool,
}

/// Keys that may be removed by hand between two rounds, in one shard.
const REMOVED_MAX: usize = 1 << 18;

impl Marks {
    fn set(&mut self, slot: u32) {
        let at = slot as usize / 64;
        if at >= self.bits.len() {
            self.bits.resize(at + 1, 0);
        }
        if let Some(word) = self.bits.get_mut(at) {
            let bit = 1 << (slot % 64);
            self.count += usize::from(*word & bit == 0);
            *word |= bit;
        }
    }
    pub fn unset(&mut self, slot: u32) {
        if let Some(word) = self.bits.get_mut(slot as usize / 64) {
            let bit = 1 << (slot % 64);
            self.count -= usize::from(*word & bit != 0);
            *word &= !bit;
        }
    }
    /// The first marked slot at or after that one.
    pub fn next(&self, from: u32) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let first = from as usize / 64;
        self.bits
            .get(first..)?
            .iter()
            .enumerate()
            .find_map(|(i, word)| {
                let word = if i == 0 {
                    word & (u64::MAX << (from % 64))
                } else {
                    *word
                };
                (word != 0).then(|| ((first + i) * 64) as u32 + word.trailing_zeros())
            })
    }
    pub fn len(&self) -> usize {
        self.count + self.removed.len()
    }
}

impl Follow {
    /// An entry changes, or may.
    #[inline]
    pub fn mark(&mut self, slot: u32) {
        if let Follow::Marks(marks) = self {
            marks.set(slot);
        }
    }
    /// An entry's lifetime is restarted.
    pub fn touch(&mut self, schema: &Schema, record: &[u8], slot: u32) {
        match self {
            Follow::Marks(marks) => marks.set(slot),
            Follow::Deltas(deltas) => delta(deltas, schema, record).touched = true,
        }
    }
    /// An entry gets or loses a holder.
    pub fn uses(&mut self, schema: &Schema, record: &[u8], slot: u32, change: i64) {
        match self {
            Follow::Marks(marks) => marks.set(slot),
            Follow::Deltas(deltas) => delta(deltas, schema, record).uses += change,
        }
    }
    /// Data of an entry changes, which is marked already.
    pub fn op(
        &mut self,
        schema: &Schema,
        record: &[u8],
        (what, index): (DataType, u16),
        op: impl FnOnce() -> Op,
    ) {
        if let Follow::Deltas(deltas) = self {
            // Under the name it was declared with, so that one element has one place.
            let (what, index) = schema.declared(what, index);
            delta(deltas, schema, record).push(what, index, op());
        }
    }
}

fn delta<'d>(
    deltas: &'d mut BTreeMap<Key, Delta>,
    schema: &Schema,
    record: &[u8],
) -> &'d mut Delta {
    deltas
        .entry(Key::from_stored(schema.key(record)))
        .or_default()
}

impl Shard {
    /// An entry is being removed by hand.
    pub fn note_removed(&mut self, schema: &Schema, slot: u32) {
        if let Some(Follow::Marks(marks)) = self.follow.as_deref_mut() {
            if marks.removed.len() >= REMOVED_MAX {
                marks.overrun = true;
                marks.removed = Vec::new();
            } else if !marks.overrun {
                let key = Key::from_stored(schema.key(self.slab.record(slot)));
                marks.removed.push(key);
            }
        }
    }
}

impl Table {
    /// Begins to note which entries change, for an [`Exporter`](super::Exporter), or ends all noting and forgets what was noted.
    pub fn follow(&self, on: bool) {
        for shard in &self.shards {
            shard.lock().follow = on.then(|| Box::new(Follow::Marks(Marks::default())));
        }
    }
    /// Notes what is counted from now on, and forgets what was noted: whoever was to hear of it is gone.
    pub fn note_deltas(&self) {
        for shard in &self.shards {
            shard.lock().follow = Some(Box::new(Follow::Deltas(BTreeMap::new())));
        }
    }
    /// Entries that changed since they were shown.
    pub fn changes(&self) -> usize {
        let of = |shard: &super::super::Padded| match shard.lock().follow.as_deref() {
            Some(Follow::Marks(marks)) => marks.len(),
            _ => 0,
        };
        self.shards.iter().map(of).sum()
    }
    /// After the table was handed over, to a process that knows of no trackers here: deltas say how many there are, instead
    /// of how many more or less.
    pub fn restate_holders(&self) {
        let gauge = self.schema.cell(DataType::ConnCur, 0);
        for padded in &self.shards {
            let mut shard = padded.lock();
            let Some(mut follow) = shard.follow.take() else {
                continue;
            };
            if let Follow::Deltas(deltas) = &mut *follow {
                for delta in deltas.values_mut() {
                    delta.forget_holders();
                }
                let held = (0..shard.slots())
                    .filter(|slot| shard.is_taken(*slot) && shard.word(*slot, USES) > 0);
                for slot in held {
                    let record = shard.record(slot);
                    let delta = delta(deltas, &self.schema, record);
                    delta.uses = i64::from(word(record, USES));
                    delta.push_gauge(gauge.map_or(0, |cell| i64::from(word(record, cell.at))));
                }
            }
            shard.follow = Some(follow);
        }
    }
    /// Takes out what was counted since the last round of [`Exporter::changes`](super::Exporter::changes), of about `most`
    /// entries, and adds it to `to`. Returns whether there is more.
    pub fn take_deltas(&self, most: usize, to: &mut BTreeMap<Key, Delta>) -> bool {
        let mut taken = 0;
        for shard in &self.shards {
            if taken >= most {
                return true;
            }
            let all = match shard.lock().follow.as_deref_mut() {
                Some(Follow::Deltas(deltas)) if !deltas.is_empty() => std::mem::take(deltas),
                _ => continue,
            };
            taken += all.len();
            for (key, delta) in all {
                to.entry(key).or_default().then(delta);
            }
        }
        false
    }
}
