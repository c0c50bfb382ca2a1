//! Layout of a table's records, computed once from its specification.
//!
//! A record is a fixed number of bytes: header, key, then only the data types that were declared, in bit order.
//! Replicated tables need links and stamps too: those go into the header of *their* records and behind *their* registers,
//! so that other tables pay nothing.

use siphasher::sip::SipHasher13;

use super::data_type::{COUNT, DataType, ELEMENTS_MAX, Kind};
use super::key::{KeyType, until_nul};
use super::rate::Rate;
use super::slab::NIL;
use super::{Stored, TableSpec};
use crate::peers::batch::{ColumnDef, columns_of};

/// Header: when the entry was last refreshed (ms modulo 2^32).
pub(super) const TOUCHED: usize = 0;
/// Header: number of holders.
pub(super) const USES: usize = 4;
/// Header: previous in touch order, or the entry's state (see `shard.rs`).
pub(super) const PREV: usize = 8;
/// Header: next in touch order, or next free slot.
pub(super) const NEXT: usize = 12;
/// Where the key begins in a table that is not replicated.
const KEY_PLAIN: usize = 16;

/// Header of replicated tables, two words: number of the own cell's last stamped state, 0 = never.
pub(super) const VERSION: usize = 16;
/// Header of replicated tables: first cell of other lineages.
pub(super) const CHAIN: usize = 24;
/// Header of replicated tables: when this life of the entry began (ms modulo 2^32).
pub(super) const BORN: usize = 28;
/// Header of replicated tables: see `replica::flags`.
pub(super) const FLAGS: usize = 32;
/// Header of replicated tables: while the entry is fresh, the low half of the first number its own cell got.
pub(super) const FIRST: usize = 36;
/// Where the key begins in a replicated table.
const KEY_REPLICATED: usize = 40;

/// A cell of another lineage begins with the next one's slot.
pub(super) const CELL_NEXT: usize = 0;
/// Of a cell: index of its lineage (low half) and its flags (high half).
pub(super) const CELL_LINEAGE: usize = 4;
/// Of a cell, two words: its version.
pub(super) const CELL_VERSION: usize = 8;
/// Where a cell's columns begin.
pub(super) const CELL_DATA: usize = 16;

/// Bytes of a register in a replicated table: the value, milliseconds and lineage of its stamp.
const REGISTER_WIDTH: usize = 4 + 8 + 8;

/// Where one data type lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    offset: usize,
    /// Bytes of one element.
    width: usize,
    /// Offset in cells of other lineages.
    remote: usize,
    /// Number of its first element among the columns of a replicated table.
    number: u16,
    elements: u16,
    kind: Kind,
    period: u32,
    factor: u32,
}

/// One element of a column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub at: usize,
    /// Where it is in a cell of another lineage, if it is arithmetic and the table replicated.
    pub remote: usize,
    /// Its position among the columns of a replicated table.
    pub number: u16,
    pub kind: Kind,
    /// Of a rate, in ms.
    pub period: u32,
    /// `brates-factor` for byte rates, 1 for all else.
    pub factor: u32,
}

impl Column {
    fn cell(&self, index: u16) -> Option<Cell> {
        (index < self.elements).then(|| Cell {
            at: self.offset + usize::from(index) * self.width,
            remote: self.remote + usize::from(index) * self.kind.width(),
            number: self.number + index,
            kind: self.kind,
            period: self.period,
            factor: self.factor,
        })
    }
}

#[derive(Debug)]
pub(super) struct Schema {
    /// Bytes of a record, a multiple of 4.
    pub stride: usize,
    /// `expire`.
    pub lifetime: Option<u32>,
    /// What only replicated tables need.
    pub replica: Option<ReplicaLayout>,
    key_at: usize,
    key_width: usize,
    key_is_text: bool,
    /// Types as declared.
    exact: [Option<Column>; COUNT],
    /// The same, plus `gpc0`, `gpc1`, `gpt0` and their rates found in arrays.
    for_rules: [Option<Column>; COUNT],
    rates: Box<[Cell]>,
    /// All elements, in the order of rows of batches.
    columns: Box<[Cell]>,
    /// A record before anything was counted.
    blank: Box<[u8]>,
    hasher: SipHasher13,
}

/// Columns as peers see them, and the layout of cells of other lineages.
#[derive(Debug)]
pub(super) struct ReplicaLayout {
    /// In the order of rows of batches.
    pub defs: Box<[ColumnDef]>,
    /// Where they are.
    pub columns: Box<[Cell]>,
    /// This many at the beginning are summed, the others are registers.
    pub arithmetic: usize,
    /// A cell in which nothing was counted.
    pub blank_cell: Box<[u8]>,
}

impl ReplicaLayout {
    /// What is summed.
    pub fn summed(&self) -> &[Cell] {
        self.columns.get(..self.arithmetic).unwrap_or_default()
    }
    /// What is assigned.
    pub fn registers(&self) -> &[Cell] {
        self.columns.get(self.arithmetic..).unwrap_or_default()
    }
}

/// Numbers the columns and lays out cells.
fn replica_layout(spec: &TableSpec, exact: &mut [Option<Column>; COUNT]) -> ReplicaLayout {
    let mut defs: Vec<ColumnDef> = Vec::new();
    let mut columns: Vec<Cell> = Vec::new();
    let mut end = CELL_DATA;
    let mut arithmetic = 0;
    for mut def in columns_of(&spec.store) {
        let Some(column) = exact
            .get_mut(def.data_type as usize)
            .and_then(Option::as_mut)
        else {
            continue;
        };
        def.factor = column.factor;
        if def.index == 0 {
            column.number = columns.len() as u16;
            if column.kind.is_arithmetic() {
                column.remote = end;
                end += usize::from(column.elements) * column.kind.width();
            }
        }
        let Some(cell) = column.cell(def.index) else {
            continue;
        };
        arithmetic += usize::from(column.kind.is_arithmetic());
        defs.push(def);
        columns.push(cell);
    }
    let mut blank_cell = vec![0; end].into_boxed_slice();
    for cell in columns.iter().filter(|cell| cell.kind == Kind::Rate) {
        set_rate(&mut blank_cell, cell.remote, Rate::IDLE);
    }
    ReplicaLayout {
        defs: defs.into(),
        columns: columns.into(),
        arithmetic,
        blank_cell,
    }
}

impl Schema {
    pub fn new(spec: &TableSpec, seed: u64, replicated: bool) -> Schema {
        let key_width = match spec.key_type {
            KeyType::Ip | KeyType::Integer => 4,
            KeyType::Ipv6 => 16,
            KeyType::String | KeyType::Binary => spec.key_len.max(1),
        };
        let key_at = if replicated {
            KEY_REPLICATED
        } else {
            KEY_PLAIN
        };
        let mut end = key_at + key_width.next_multiple_of(4);
        let mut exact = [None; COUNT];
        let mut rates = Vec::new();
        for Stored {
            data_type,
            elements,
            period_ms,
        } in &spec.store
        {
            let row = data_type.info();
            let Some(column) = exact.get_mut(*data_type as usize).filter(|c| c.is_none()) else {
                continue;
            };
            let byte_rate = matches!(data_type, DataType::BytesInRate | DataType::BytesOutRate);
            let new = Column {
                offset: end,
                width: if replicated && !row.kind.is_arithmetic() {
                    REGISTER_WIDTH
                } else {
                    row.kind.width()
                },
                remote: 0,
                number: 0,
                elements: if row.args.has_elements() {
                    (*elements).clamp(1, ELEMENTS_MAX)
                } else {
                    1
                },
                kind: row.kind,
                period: (*period_ms).max(1),
                factor: if byte_rate {
                    spec.brates_factor.max(1)
                } else {
                    1
                },
            };
            end += usize::from(new.elements) * new.width;
            *column = Some(new);
        }
        let replica = replicated.then(|| replica_layout(spec, &mut exact));
        for column in exact.iter().flatten().filter(|c| c.kind == Kind::Rate) {
            rates.extend((0..column.elements).filter_map(|i| column.cell(i)));
        }
        let columns = columns_of(&spec.store);
        let columns = columns.iter().filter_map(|def| {
            let column = exact.get(def.data_type as usize)?.as_ref()?;
            column.cell(def.index)
        });
        let columns = columns.collect();
        let mut for_rules = exact;
        for data_type in DataType::all() {
            let Some((array, index)) = data_type.info().element_of else {
                continue;
            };
            let element = exact[array as usize].and_then(|column| {
                let cell = column.cell(index)?;
                Some(Column {
                    offset: cell.at,
                    remote: cell.remote,
                    number: cell.number,
                    elements: 1,
                    ..column
                })
            });
            let own = &mut for_rules[data_type as usize];
            *own = own.or(element);
        }
        let mut blank = vec![0; end].into_boxed_slice();
        for cell in &rates {
            set_rate(&mut blank, cell.at, Rate::IDLE);
        }
        if replicated {
            set_word(&mut blank, CHAIN, NIL);
        }
        Schema {
            replica,
            key_at,
            stride: end,
            lifetime: spec.expire_ms.map(|ms| ms.max(1)),
            key_width,
            key_is_text: spec.key_type == KeyType::String,
            exact,
            for_rules,
            rates: rates.into(),
            columns,
            blank,
            hasher: SipHasher13::new_with_keys(seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15),
        }
    }

    /// An element as rules address it.
    #[inline]
    pub fn cell(&self, what: DataType, index: u16) -> Option<Cell> {
        self.for_rules[what as usize].as_ref()?.cell(index)
    }
    /// An element of a type that was itself declared.
    pub fn cell_exact(&self, what: DataType, index: u16) -> Option<Cell> {
        self.exact[what as usize].as_ref()?.cell(index)
    }
    /// All elements, in the order of rows of batches.
    pub fn columns(&self) -> &[Cell] {
        &self.columns
    }
    /// The name by which an element was declared: `gpc0` may be the first of the array `gpc`.
    pub fn declared(&self, what: DataType, index: u16) -> (DataType, u16) {
        match what.info().element_of {
            Some(element) if self.exact[what as usize].is_none() => element,
            _ => (what, index),
        }
    }
    /// All rates of a record.
    pub fn rates(&self) -> &[Cell] {
        &self.rates
    }

    /// Keyed hash: who sends requests chooses keys, and must not be able to make them collide.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }
    /// Whether a key has the form this table stores.
    pub fn fits(&self, key: &[u8]) -> bool {
        if self.key_is_text {
            key.len() <= self.key_width && !key.contains(&0)
        } else {
            key.len() == self.key_width
        }
    }
    /// The key of a record, as `Key` has it.
    #[inline]
    pub fn key<'r>(&self, record: &'r [u8]) -> &'r [u8] {
        let key = record
            .get(self.key_at..self.key_at + self.key_width)
            .unwrap_or_default();
        if self.key_is_text {
            until_nul(key)
        } else {
            key
        }
    }
    /// Whether this is the record's key.
    #[inline]
    pub fn is_key(&self, record: &[u8], key: &[u8]) -> bool {
        match (key, self.key_is_text) {
            // IPv4 addresses and integers: a call costs more than the comparison.
            ([a, b, c, d], false) if self.key_width == 4 => {
                word(record, self.key_at) == u32::from_ne_bytes([*a, *b, *c, *d])
            }
            _ => self.key(record) == key,
        }
    }
    /// Bytes of every key, if all have as many.
    pub fn exact_width(&self) -> Option<usize> {
        (!self.key_is_text).then_some(self.key_width)
    }
    /// Makes a record blank, with that key.
    pub fn initialize(&self, record: &mut [u8], key: &[u8]) {
        record.copy_from_slice(&self.blank);
        self.set_key(record, key);
    }
    fn set_key(&self, record: &mut [u8], key: &[u8]) {
        if let Some(to) = record.get_mut(self.key_at..self.key_at + key.len().min(self.key_width)) {
            to.copy_from_slice(key.get(..to.len()).unwrap_or_default());
        }
    }
    /// Forgets all data of a record, keeping header and key.
    pub fn blank_data(&self, record: &mut [u8]) {
        let data = self.key_at + self.key_width.next_multiple_of(4);
        if let (Some(to), Some(from)) = (record.get_mut(data..), self.blank.get(data..)) {
            to.copy_from_slice(from);
        }
    }
}

#[inline]
pub(super) fn word(record: &[u8], at: usize) -> u32 {
    record
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |b| u32::from_ne_bytes(*b))
}
#[inline]
pub(super) fn set_word(record: &mut [u8], at: usize, value: u32) {
    if let Some(to) = record.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *to = value.to_ne_bytes();
    }
}
/// Two words.
#[inline]
pub(super) fn wide(record: &[u8], at: usize) -> u64 {
    record
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |b| u64::from_ne_bytes(*b))
}
#[inline]
pub(super) fn set_wide(record: &mut [u8], at: usize, value: u64) {
    if let Some(to) = record.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *to = value.to_ne_bytes();
    }
}
#[inline]
pub(super) fn rate(record: &[u8], at: usize) -> Rate {
    Rate {
        start: word(record, at),
        cur: word(record, at + 4),
        prev: word(record, at + 8),
    }
}
#[inline]
pub(super) fn set_rate(record: &mut [u8], at: usize, rate: Rate) {
    set_word(record, at, rate.start);
    set_word(record, at + 4, rate.cur);
    set_word(record, at + 8, rate.prev);
}
