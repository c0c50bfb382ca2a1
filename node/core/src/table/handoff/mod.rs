//! Passing a table on to the process that takes over, without missing an event and without counting one twice.
//!
//! 1. The old process *follows* its table: every change of an entry from now on sets a mark ([`Table::follow`]).
//! 2. It shows all entries ([`Exporter::walk`]), then again and again those with marks ([`Exporter::changes`]).
//! 3. In the last round each shard goes over, under one lock, from marks to *deltas*: what is counted before is in the rows,
//!    what is counted afterwards in the deltas ([`Table::take_deltas`]), which the new process adds to what it has
//!    ([`Ledger::apply`]).
//!
//! The new process builds its table from the rows ([`Importer`]) and remembers which trackers of the old one it stands for
//! ([`Ledger`]).

mod disown;
mod export;
mod follow;
mod import;
mod ledger;

use std::sync::Arc;

use super::{DataType, KeyType, Lineage, TableSpec};
use crate::peers::batch::{ColumnDef, Columns, columns_of};

pub use disown::disown;
pub use export::{Exporter, Step};
pub(super) use follow::Follow;
pub use import::{Importer, Settled};
pub use ledger::{Ledger, Share};

/// A table as another process has it: what the receiver of its rows must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its full name.
    pub name: String,
    /// Type of its keys.
    pub key_type: KeyType,
    /// Bytes of a key.
    pub key_len: usize,
    /// Columns in the order of rows.
    pub columns: Vec<ColumnDef>,
    /// `brates-factor`
    pub brates_factor: u32,
    /// Of a replicated table, the lineage whose rows are its own.
    pub lineage: Option<Lineage>,
}

impl Definition {
    /// That of a table with this specification.
    pub fn of(spec: &TableSpec, lineage: Option<Lineage>) -> Definition {
        Definition {
            name: spec.name.clone(),
            key_type: spec.key_type,
            key_len: spec.key_len,
            columns: columns_of(&spec.store),
            brates_factor: spec.brates_factor.max(1),
            lineage,
        }
    }
}

/// Some rows, and what batches have no place for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The monotonic clock that ages are counted from, in milliseconds.
    pub now_ms: u64,
    /// Keys that were removed by hand. They come before the rows.
    pub removed: Vec<Vec<u8>>,
    /// The rows; those of one entry follow each other and replace all that is known of it.
    pub columns: Columns,
    /// Position of an entry's first row, and how many trackers hold it; entries that nobody holds are not mentioned.
    pub held: Vec<(u32, u32)>,
    /// Position of a tombstone's first row, and for how many milliseconds it has been one.
    pub tombs: Vec<(u32, u32)>,
    /// All slices that show one key have the same number here, or 0: any keys.
    pub stripe: u32,
}

impl Slice {
    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.columns.rows == 0 && self.removed.is_empty()
    }
}

/// What happened to one entry since the table was handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Change of the number of holders.
    pub uses: i64,
    /// Its lifetime was restarted.
    pub touched: bool,
    /// Changes of its data.
    pub ops: Vec<(DataType, u16, Op)>,
}

/// What happened to one element of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// So much was added (bytes, not words, for byte rates).
    Add(i64),
    /// It was assigned.
    Set(u64),
    /// A server's name or address was remembered.
    Name(Arc<[u8]>),
}

impl Op {
    /// This, and then that.
    fn then(&mut self, next: Op) {
        *self = match (&self, next) {
            (Op::Add(a), Op::Add(b)) => Op::Add(a.saturating_add(b)),
            (Op::Set(a), Op::Add(b)) => Op::Set(a.saturating_add_signed(b)),
            (_, next) => next,
        };
    }
}

impl Delta {
    /// Adds what happened to an element.
    pub fn push(&mut self, what: DataType, index: u16, op: Op) {
        let same = |known: &&mut (DataType, u16, Op)| (known.0, known.1) == (what, index);
        match self.ops.iter_mut().find(same) {
            Some((_, _, known)) => known.then(op),
            None => self.ops.push((what, index, op)),
        }
    }
    /// Adds what happened later.
    pub fn then(&mut self, later: Delta) {
        self.uses += later.uses;
        self.touched |= later.touched;
        for (what, index, op) in later.ops {
            self.push(what, index, op);
        }
    }
    /// Leaves out holders and what they make of the gauge.
    pub fn forget_holders(&mut self) {
        self.uses = 0;
        self.ops.retain(|(what, ..)| *what != DataType::ConnCur);
    }
    /// Adds to the gauge.
    pub fn push_gauge(&mut self, n: i64) {
        if n != 0 {
            self.push(DataType::ConnCur, 0, Op::Add(n));
        }
    }
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.uses == 0 && !self.touched && self.ops.iter().all(|(_, _, op)| *op == Op::Add(0))
    }
}
