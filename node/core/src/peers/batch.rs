//! The columnar form in which rows of a replicated table travel.
//!
//! A batch keeps keys, heads and every data column in byte streams of their own, mostly of LEB128 varints, so that a
//! thousand rows cost a dozen allocations and a small number costs one byte. Rows of one table and of any lineage may
//! be mixed; repeated keys are free, versions and ages are differences, lineages are indices into the batch's
//! dictionary, and a column in which every row is zero is left out.
//!
//! A column is named by its *number* ([`ColumnDef::number`]), which depends on nothing but its data type and element:
//! a receiver skips numbers it does not know, and newer versions may add streams freely.
//!
//! Reading trusts nothing: [`BatchReader::new`] walks the whole batch once before it gives out the first row.
//!
//! Streams in detail (varints are unsigned LEB128, *zz* means zigzag-coded difference):
//!
//! | stream | per row |
//! |---|---|
//! | `keys` | the key's bytes, nothing with `SAME_KEY` |
//! | `key_lengths` | empty when all keys are `key_width` long; else one varint for each key in `keys` |
//! | `heads` | flags; with `NEW_LINEAGE` the dictionary index; zz version, from the last one of that lineage; zz touch age, from the last row's; with `LIVED` age of the entry's life - touch age; with `FRESH` version - `first`; with `EPOCH` a stamp; with `EDICTS` their number, then for each 0 (all) or column number + 1, and a stamp |
//! | counter, gauge | the value |
//! | rate | 0 when idle, else age + 1, current, previous |
//! | register | 0 when never assigned, else a stamp and the value |
//! | server key | 0 when never assigned, else a stamp, the length, the bytes |
//!
//! Flags this version does not know are ignored: what needs more bytes than a flag gets a stream of its own.
//!
//! A stamp is its lineage's dictionary index (+ 1 where 0 has another meaning) and zz milliseconds from `stamp_base`.

mod read;
mod varint;
mod write;

use crate::table::{DataType, Kind, Lineage, Stamp, Stored};

pub use read::{BatchReader, Edicts};
pub use write::BatchWriter;

/// Most rows a reader accepts in one batch; writers are held far below by their [`Budget`].
pub const ROWS_MAX: usize = 1 << 16;
/// Most lineages (of rows and stamps together) a reader accepts in one batch.
pub const LINEAGES_MAX: usize = 4096;
/// Most bytes of one key or one server key a reader accepts.
pub const TEXT_MAX: usize = 1 << 16;

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// Events or bytes: one number.
    Counter,
    /// Goes up and down: one number.
    Gauge,
    /// Events per period: age of the period in progress, its events, those of the period before.
    Rate,
    /// Assigned 32 bits: a tag, or a server's id by [`zigzag`].
    Register,
    /// Assigned text: a server's name or address.
    ServerKey,
}

impl ColumnKind {
    /// How a data type travels.
    pub fn of(data_type: DataType) -> ColumnKind {
        match data_type.info().kind {
            Kind::Counter32 | Kind::Counter64 => ColumnKind::Counter,
            Kind::Gauge => ColumnKind::Gauge,
            Kind::Rate => ColumnKind::Rate,
            Kind::Tag | Kind::ServerId => ColumnKind::Register,
            Kind::ServerKey => ColumnKind::ServerKey,
        }
    }
    /// Whether values of several lineages are summed; else the highest stamp wins.
    pub fn is_arithmetic(self) -> bool {
        matches!(
            self,
            ColumnKind::Counter | ColumnKind::Gauge | ColumnKind::Rate
        )
    }
}

/// One element of one data type, as a column of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnDef {
    /// Which data type.
    pub data_type: DataType,
    /// Element of an array type, else 0.
    pub index: u16,
    /// Period of a rate in milliseconds, else 0.
    pub period_ms: u32,
    /// Bytes per counted unit of a rate of bytes (`brates-factor`), else 1: what is counted in different units is not
    /// summed.
    pub factor: u32,
    /// How its values are written.
    pub kind: ColumnKind,
}

impl ColumnDef {
    /// The column's name in batches: the data type's bit position times 128 plus the element.
    pub fn number(&self) -> u32 {
        (self.data_type as u32) << 7 | u32::from(self.index)
    }
}

/// The columns of a table that stores these types, in the order of rows: what is summed first, registers after it, each
/// in bit order; rates of bytes in bytes.
pub fn columns_of(store: &[Stored]) -> Vec<ColumnDef> {
    let mut sorted: Vec<&Stored> = store.iter().collect();
    sorted.sort_by_key(|s| (!s.data_type.info().kind.is_arithmetic(), s.data_type));
    sorted.dedup_by_key(|s| s.data_type);
    let elements = |s: &Stored| {
        let row = s.data_type.info();
        let (data_type, period_ms) = (s.data_type, s.period_ms.max(1));
        let count = if row.args.has_elements() {
            s.elements.max(1)
        } else {
            1
        };
        (0..count).map(move |index| ColumnDef {
            data_type,
            index,
            period_ms: if row.args.has_period() { period_ms } else { 0 },
            factor: 1,
            kind: ColumnKind::of(data_type),
        })
    };
    sorted.into_iter().flat_map(elements).collect()
}

/// A signed number as an unsigned one, small when it is near 0: how a server's id travels in a register.
pub fn zigzag(n: i32) -> u32 {
    ((n << 1) ^ (n >> 31)) as u32
}
/// The inverse of [`zigzag`].
pub fn unzigzag(n: u32) -> i32 {
    (n >> 1) as i32 ^ -((n & 1) as i32)
}

/// When to stop adding rows to a batch: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Rows.
    pub rows: usize,
    /// Bytes of all streams together; the last row may go over it.
    pub bytes: usize,
}

/// What is said of a row beside its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowFlags(u16);

impl RowFlags {
    /// Nothing to say.
    pub const NONE: RowFlags = RowFlags(0);
    /// The pusher also holds cells of other lineages of this key.
    pub const HOLDS_OTHERS: RowFlags = RowFlags(1 << 1);
    /// The lineage created this entry from nothing and nobody has confirmed that it held no older share of it.
    pub const FRESH: RowFlags = RowFlags(1 << 2);
    /// The lineage has live trackers of this key.
    pub const HELD: RowFlags = RowFlags(1 << 3);
    /// The entry was removed by an edict and is kept to tell so.
    pub const TOMB: RowFlags = RowFlags(1 << 7);
    /// The row carries edicts or registers, and no cell of its lineage.
    pub const NO_CELL: RowFlags = RowFlags(1 << 8);
    /// The cell went through a table that lacks some of its columns: a complete row of the same version replaces it.
    pub const PARTIAL: RowFlags = RowFlags(1 << 10);

    // Set by the writer, seen by the reader only.
    const SAME_KEY: u16 = 1 << 0;
    const NEW_LINEAGE: u16 = 1 << 4;
    const EPOCH: u16 = 1 << 5;
    const LIVED: u16 = 1 << 6;
    const EDICTS: u16 = 1 << 9;
    const PUBLIC: u16 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 10;

    /// Whether all of these are set.
    pub fn contains(self, flags: RowFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
    /// These as well.
    #[must_use]
    pub fn with(self, flags: RowFlags) -> RowFlags {
        RowFlags(self.0 | flags.0)
    }
    /// Not these.
    #[must_use]
    pub fn without(self, flags: RowFlags) -> RowFlags {
        RowFlags(self.0 & !flags.0)
    }
    /// Sets or leaves these.
    #[must_use]
    pub fn with_if(self, condition: bool, flags: RowFlags) -> RowFlags {
        if condition { self.with(flags) } else { self }
    }
}

/// A row's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowHead {
    /// See [`RowFlags`].
    pub flags: RowFlags,
    /// Whose cell this is.
    pub lineage: Lineage,
    /// That lineage's journal number of the cell's state; 0 = never.
    pub version: u64,
    /// Of a fresh row, the first number that the lineage gave to this cell, at most `version`; else 0. What the receiver
    /// holds of that lineage with lower versions belongs to counts that the lineage has lost.
    pub first: u64,
    /// How long ago the entry was last touched, in milliseconds of the batch's sending.
    pub touch_age_ms: u32,
    /// How long ago this life of the entry began, at least `touch_age_ms`.
    pub born_age_ms: u32,
    /// Stamp of the newest edict that lineage had applied when it last changed the cell.
    pub epoch: Option<Stamp>,
}

/// An assignment that voids earlier counts of the row's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdictRow {
    /// Position of the column among the sender's; `None` = all of them.
    pub column: Option<usize>,
    /// Counts up to here are void.
    pub stamp: Stamp,
}

/// The streams of one batch: plain data that a message carries as it is. See the module's head for their content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Number of rows.
    pub rows: u32,
    /// Length of every key when `key_lengths` is empty.
    pub key_width: u32,
    /// Keys one after the other.
    pub keys: Vec<u8>,
    /// Their lengths, when they differ.
    pub key_lengths: Vec<u8>,
    /// Heads one after the other.
    pub heads: Vec<u8>,
    /// The dictionary of lineages: rows start with the first.
    pub lineages: Vec<u64>,
    /// Milliseconds from which stamps are counted.
    pub stamp_base: u64,
    /// Number and stream of each column in which some row is not zero.
    pub values: Vec<(u32, Vec<u8>)>,
}

impl Columns {
    /// Bytes of all streams together.
    pub fn bytes(&self) -> usize {
        let values: usize = self.values.iter().map(|(_, bytes)| bytes.len()).sum();
        self.keys.len()
            + self.key_lengths.len()
            + self.heads.len()
            + 8 * self.lineages.len()
            + values
    }
}

/// Why a batch was refused: nothing of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    /// A stream ends inside a row, or before the last one.
    #[error("stream '{0}' ends early")]
    Short(&'static str),
    /// Bytes are left after the last row.
    #[error("stream '{0}' goes on after the last row")]
    Long(&'static str),
    /// A number does not fit its field.
    #[error("number out of range in stream '{0}'")]
    Range(&'static str),
    /// More rows, lineages or bytes in a text than the bounds of this module allow.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A lineage that is not in the dictionary.
    #[error("unknown lineage index in stream '{0}'")]
    Lineage(&'static str),
    /// The first row cannot repeat a key.
    #[error("the first row repeats a key")]
    NoKey,
    /// A column occurs twice.
    #[error("column {0} occurs twice")]
    Twice(u32),
    /// A key cannot be one of this table.
    #[error("a key does not fit the table")]
    Key,
}
