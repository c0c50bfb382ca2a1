//! Building a batch row by row.

use std::collections::BTreeMap;

use super::varint::{put, put_difference};
use super::{Budget, ColumnDef, ColumnKind, Columns, EdictRow, RowFlags, RowHead};
use crate::table::{Lineage, Stamp};

/// Builds batches of one table. After [`finish`](BatchWriter::finish) it is empty and ready for the next.
#[derive(Debug)]
pub struct BatchWriter {
    columns: Vec<ColumnDef>,
    streams: Vec<Values>,
    rows: usize,
    bytes: usize,
    /// Which column the next value belongs to.
    at: usize,
    key_width: usize,
    keys: Vec<u8>,
    /// Where the last key begins.
    last_key: usize,
    keys_written: usize,
    key_lengths: Vec<u8>,
    heads: Vec<u8>,
    dictionary: Dictionary,
    /// Lineage (its index) and touch age of the last row.
    lineage: usize,
    touch_age_ms: u32,
    stamp_base: Option<u64>,
}

/// The stream of a column. Zeros before the first other value are only counted.
#[derive(Debug, Default)]
struct Values {
    bytes: Vec<u8>,
    zeros: usize,
}

impl Values {
    #[inline]
    fn zero(&mut self) {
        if self.bytes.is_empty() {
            self.zeros += 1;
        } else {
            self.bytes.push(0);
        }
    }
    #[inline]
    fn some(&mut self) -> &mut Vec<u8> {
        if self.zeros > 0 {
            self.bytes.resize(self.zeros, 0);
            self.zeros = 0;
        }
        &mut self.bytes
    }
    fn len(&self) -> usize {
        self.bytes.len()
    }
    fn finish(&mut self) -> Option<Vec<u8>> {
        self.zeros = 0;
        let full = std::mem::take(&mut self.bytes);
        (!full.is_empty()).then(|| {
            self.bytes.reserve(full.len());
            full
        })
    }
}

/// Lineages of a batch, each with the version its last row had.
#[derive(Debug, Default)]
struct Dictionary {
    ids: Vec<u64>,
    versions: Vec<u64>,
    index: BTreeMap<u64, usize>,
}

impl Dictionary {
    #[inline]
    fn index(&mut self, lineage: Lineage, near: usize) -> usize {
        if self.ids.get(near) == Some(&lineage.0) {
            return near;
        }
        let next = self.ids.len();
        let index = *self.index.entry(lineage.0).or_insert(next);
        if index == next {
            self.ids.push(lineage.0);
            self.versions.push(0);
        }
        index
    }
}

impl BatchWriter {
    /// For a table with these columns, in the order in which rows will give their values.
    pub fn new(columns: impl Into<Vec<ColumnDef>>) -> BatchWriter {
        let columns = columns.into();
        BatchWriter {
            streams: columns.iter().map(|_| Values::default()).collect(),
            columns,
            rows: 0,
            bytes: 0,
            at: 0,
            key_width: 0,
            keys: Vec::new(),
            last_key: 0,
            keys_written: 0,
            key_lengths: Vec::new(),
            heads: Vec::new(),
            dictionary: Dictionary::default(),
            lineage: 0,
            touch_age_ms: 0,
            stamp_base: None,
        }
    }

    /// Forgets the rows written since the last `finish`.
    pub fn clear(&mut self) {
        self.finish();
    }
    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Bytes of all streams so far, up to the last complete row.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
    /// Whether the budget is used up.
    pub fn is_full(&self, budget: Budget) -> bool {
        self.rows >= budget.rows || self.bytes >= budget.bytes
    }

    /// Begins a row; one value per column has to follow, in order. Values left out at its end are zero.
    #[inline]
    pub fn row(&mut self, key: &[u8], head: &RowHead, edicts: &[EdictRow]) {
        self.end_row();
        let index = self.dictionary.index(head.lineage, self.lineage);
        let mut flags = head.flags.0 & RowFlags::PUBLIC;
        let lived = head.born_age_ms.saturating_sub(head.touch_age_ms);
        let same = self.rows > 0 && self.keys.get(self.last_key..) == Some(key);
        for (condition, flag) in [
            (same, RowFlags::SAME_KEY),
            (index != self.lineage, RowFlags::NEW_LINEAGE),
            (head.epoch.is_some(), RowFlags::EPOCH),
            (!edicts.is_empty(), RowFlags::EDICTS),
            (lived > 0, RowFlags::LIVED),
        ] {
            if condition {
                flags |= flag;
            }
        }
        let before = self.keys.len() + self.heads.len();
        if !same {
            self.key(key);
        }
        put(&mut self.heads, u64::from(flags));
        if index != self.lineage {
            put(&mut self.heads, index as u64);
            self.lineage = index;
        }
        if let Some(last) = self.dictionary.versions.get_mut(index) {
            put_difference(&mut self.heads, head.version, *last);
            *last = head.version;
        }
        put_difference(
            &mut self.heads,
            u64::from(head.touch_age_ms),
            u64::from(self.touch_age_ms),
        );
        self.touch_age_ms = head.touch_age_ms;
        if lived > 0 {
            put(&mut self.heads, u64::from(lived));
        }
        if head.flags.contains(RowFlags::FRESH) {
            put(&mut self.heads, head.version.saturating_sub(head.first));
        }
        if let Some(stamp) = head.epoch {
            let (lineage, base) = self.stamp(stamp);
            put(&mut self.heads, lineage);
            put_difference(&mut self.heads, stamp.ms, base);
        }
        if !edicts.is_empty() {
            self.edicts(edicts);
        }
        self.bytes += self.keys.len() + self.heads.len() - before;
        self.rows += 1;
        self.at = 0;
    }

    fn key(&mut self, key: &[u8]) {
        if self.keys_written == 0 {
            self.key_width = key.len();
        } else if self.key_lengths.is_empty() && key.len() != self.key_width {
            for _ in 0..self.keys_written {
                put(&mut self.key_lengths, self.key_width as u64);
            }
        }
        if key.len() != self.key_width || !self.key_lengths.is_empty() {
            put(&mut self.key_lengths, key.len() as u64);
        }
        self.last_key = self.keys.len();
        self.keys.extend_from_slice(key);
        self.keys_written += 1;
    }

    #[cold]
    fn edicts(&mut self, edicts: &[EdictRow]) {
        put(&mut self.heads, edicts.len() as u64);
        for edict in edicts {
            let column = edict.column.and_then(|at| self.columns.get(at));
            put(
                &mut self.heads,
                column.map_or(0, |c| u64::from(c.number()) + 1),
            );
            let (lineage, base) = self.stamp(edict.stamp);
            put(&mut self.heads, lineage);
            put_difference(&mut self.heads, edict.stamp.ms, base);
        }
    }

    /// Dictionary index of a stamp's lineage, and what its milliseconds are counted from.
    fn stamp(&mut self, stamp: Stamp) -> (u64, u64) {
        let base = *self.stamp_base.get_or_insert(stamp.ms);
        let index = self.dictionary.index(stamp.lineage, self.lineage);
        (index as u64, base)
    }

    /// The stream of the next column, if that column is of such a kind.
    #[inline]
    fn next(&mut self, fits: impl FnOnce(ColumnKind) -> bool) -> Option<&mut Values> {
        let kind = self.columns.get(self.at)?.kind;
        let stream = self.streams.get_mut(self.at)?;
        self.at += 1;
        if fits(kind) {
            return Some(stream);
        }
        debug_assert!(false, "column {} is a {kind:?}", self.at - 1);
        stream.zero();
        None
    }

    /// The next value, of a counter or a gauge.
    #[inline]
    pub fn counter(&mut self, value: u64) {
        let Some(stream) = self.next(|k| matches!(k, ColumnKind::Counter | ColumnKind::Gauge))
        else {
            return;
        };
        if value == 0 {
            return stream.zero();
        }
        put(stream.some(), value);
    }
    /// The next value, of a rate: age of the period in progress, its events, those of the period before.
    #[inline]
    pub fn rate(&mut self, age_ms: u32, cur: u32, prev: u32) {
        let Some(stream) = self.next(|k| k == ColumnKind::Rate) else {
            return;
        };
        let out = stream.some();
        put(out, u64::from(age_ms) + 1);
        put(out, u64::from(cur));
        put(out, u64::from(prev));
    }
    /// The next value, of a rate in which nothing was counted for two periods.
    #[inline]
    pub fn rate_idle(&mut self) {
        if let Some(stream) = self.next(|k| k == ColumnKind::Rate) {
            stream.zero();
        }
    }
    /// The next value, of a register; without a stamp it was never assigned and its value does not travel.
    pub fn register(&mut self, value: u32, stamp: Option<Stamp>) {
        let Some(stamp) = stamp else {
            if let Some(stream) = self.next(|k| k == ColumnKind::Register) {
                stream.zero();
            }
            return;
        };
        let (lineage, base) = self.stamp(stamp);
        if let Some(stream) = self.next(|k| k == ColumnKind::Register) {
            let out = stream.some();
            put(out, lineage + 1);
            put_difference(out, stamp.ms, base);
            put(out, u64::from(value));
        }
    }
    /// The next value, of a server key; `None`: never assigned.
    pub fn text(&mut self, value: Option<(&[u8], Stamp)>) {
        let Some((text, stamp)) = value else {
            if let Some(stream) = self.next(|k| k == ColumnKind::ServerKey) {
                stream.zero();
            }
            return;
        };
        let (lineage, base) = self.stamp(stamp);
        if let Some(stream) = self.next(|k| k == ColumnKind::ServerKey) {
            let out = stream.some();
            put(out, lineage + 1);
            put_difference(out, stamp.ms, base);
            put(out, text.len() as u64);
            out.extend_from_slice(text);
        }
    }

    /// Completes the last row.
    #[inline]
    fn end_row(&mut self) {
        if self.rows == 0 {
            return;
        }
        if let Some(missing) = self.streams.get_mut(self.at..) {
            missing.iter_mut().for_each(Values::zero);
        }
        self.at = self.streams.len();
        self.bytes = self.keys.len()
            + self.key_lengths.len()
            + self.heads.len()
            + 8 * self.dictionary.ids.len()
            + self.streams.iter().map(Values::len).sum::<usize>();
    }

    /// The batch; the writer is empty again.
    pub fn finish(&mut self) -> Columns {
        self.end_row();
        let numbers = self.columns.iter().map(ColumnDef::number);
        let values = numbers
            .zip(&mut self.streams)
            .filter_map(|(number, stream)| Some((number, stream.finish()?)))
            .collect();
        let columns = Columns {
            rows: self.rows as u32,
            key_width: self.key_width as u32,
            keys: std::mem::take(&mut self.keys),
            key_lengths: std::mem::take(&mut self.key_lengths),
            heads: std::mem::take(&mut self.heads),
            lineages: std::mem::take(&mut self.dictionary.ids),
            stamp_base: self.stamp_base.take().unwrap_or(0),
            values,
        };
        self.keys.reserve(columns.keys.len());
        self.heads.reserve(columns.heads.len());
        self.dictionary = Dictionary::default();
        self.rows = 0;
        self.bytes = 0;
        self.at = 0;
        self.key_width = 0;
        self.last_key = 0;
        self.keys_written = 0;
        self.lineage = 0;
        self.touch_age_ms = 0;
        columns
    }
}
