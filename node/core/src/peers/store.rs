//! What a hub needs from tables. One small seam, so that tests can put something between the two.

use super::batch::{BadBatch, BatchWriter, Budget, ColumnDef, Columns};
use crate::table::{Key, Lineage, TableId, TableSpec};

/// Access to the tables of the process by their position.
pub trait Stores: Send + Sync {
    /// The replicated part of a table; `None` if there is no such table, or it is not replicated.
    fn store(&self, table: TableId) -> Option<&dyn Store>;
}

/// What became of a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The journal's newest number.
    pub newest: u64,
    /// Entries that were given a number.
    pub stamped: usize,
    /// The budget was used up: call again.
    pub more: bool,
}

/// What a batch of the journal covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalRead {
    /// Every key whose newest change has a number up to this one is in this batch or was in an earlier one.
    pub upto: u64,
    /// The journal's end was reached: nothing up to `upto` is missing.
    pub whole: bool,
    /// The budget was used up: there is more.
    pub more: bool,
}

/// Which cells a walk shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All there are, with registers and edicts.
    All,
    /// Those of one lineage that changed after a number, and what else it assigned.
    Lineage {
        /// Whose.
        lineage: Lineage,
        /// Cells with a higher version only.
        after: u64,
    },
}

/// How far a walk through a table has come.
pub type WalkCursor = crate::table::Cursor;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows that changed something.
    pub merged: usize,
    /// Rows that were known already, or came too late to matter.
    pub ignored: usize,
    /// Rows for which there was no room.
    pub refused: usize,
    /// Keys to ask the sender about: it holds shares of others that are not known here. Bounded.
    pub wants: Vec<Key>,
    /// Keys to tell the sender about: it seems to have lost shares that are known here. Bounded.
    pub offers: Vec<Key>,
}

/// A table that is shared between nodes, as a hub uses it. See the replica layer of the table for what each call does.
pub trait Store {
    /// As configured.
    fn spec(&self) -> &TableSpec;
    /// Columns in the order of rows.
    fn columns(&self) -> Vec<ColumnDef>;
    /// Wall clock minus monotonic clock, milliseconds.
    fn set_wall_offset(&self, ms: i64);
    /// Whether something changed here since the last flush.
    fn is_dirty(&self) -> bool;
    /// Gives journal numbers to what changed here, about `budget` entries.
    fn collect(&self, now_ms: u64, budget: usize) -> Collected;
    /// The journal's newest number.
    fn newest(&self) -> u64;
    /// Rows of the own lineage after a number, oldest first.
    fn read_journal(
        &self,
        after: u64,
        budget: Budget,
        now_ms: u64,
        out: &mut BatchWriter,
    ) -> JournalRead;
    /// About how many entries the journal holds after a number.
    fn lag(&self, after: u64) -> usize;
    /// A slice of a walk. Returns whether the walk is complete.
    fn read_walk(
        &self,
        cursor: &mut WalkCursor,
        which: Which,
        budget: Budget,
        now_ms: u64,
        out: &mut BatchWriter,
    ) -> bool;
    /// All that is known of these keys.
    fn read_keys(&self, keys: &[Key], now_ms: u64, out: &mut BatchWriter);
    /// Merges a batch, or nothing of it.
    fn apply(
        &self,
        batch: &Columns,
        sender: &[ColumnDef],
        from: Lineage,
        shift_ms: u32,
        acked_to_sender: u64,
        now_ms: u64,
    ) -> Result<Applied, BadBatch>;
    /// The highest version held of a lineage; 0: none.
    fn highest(&self, lineage: Lineage) -> u64;
    /// The number that every other node has acknowledged, connected or not; `u64::MAX` when there is none.
    fn set_acked_by_all(&self, number: u64);
}
