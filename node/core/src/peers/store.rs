//! What a hub needs from tables. One small seam, so that tests can put something between the two.

use super::batch::{BadBatch, BatchReader, BatchWriter, Budget, ColumnDef, Columns};
pub use crate::table::{Applied, Collected, JournalRead, Which};
use crate::table::{Key, Lineage, Table, TableId, TableSpec, Tag};
use crate::world::World;

/// Access to the tables of the process by their position.
pub trait Stores: Send + Sync {
    /// The replicated part of a table; `None` if there is no such table, or it is not replicated.
    fn store(&self, table: TableId) -> Option<&dyn Store>;
    /// Assigns in a table, replicated or not, what peers have assigned in one that has `write-to` it.
    fn write_tags(&self, table: TableId, tags: &[(Key, Vec<Tag>)], now_ms: u64);
}

/// How far a walk through a table has come.
pub type WalkCursor = crate::table::Cursor;

/// A table that is shared between nodes, as a hub uses it. See the replica layer of the table for what each call does.
pub trait Store {
    /// As configured.
    fn spec(&self) -> &TableSpec;
    /// How many entries there are.
    fn entries(&self, _now_ms: u64) -> usize {
        0
    }
    /// About so many entries will be learned: room for them is made at once, as far as the table may grow.
    fn expect_entries(&self, _entries: usize) {}
    /// Entries had to go, or did not come in, for lack of room, here or in a process before this one.
    fn is_crowded(&self) -> bool {
        false
    }
    /// Columns in the order of rows.
    fn columns(&self) -> Vec<ColumnDef>;
    /// Wall clock minus monotonic clock, milliseconds.
    fn set_wall_offset(&self, ms: i64);
    /// The wall clock was set back by about so much: what is stamped too far ahead of it is, too. Returns how many entries
    /// that were.
    fn mend_stamps(&self, _back_ms: u64, _now_ms: u64) -> usize {
        0
    }
    /// Whether something was refused for its time that would be taken now. Says so once.
    fn takes_what_it_refused(&self, _now_ms: u64) -> bool {
        false
    }
    /// Whether something changed here since the last flush.
    fn is_dirty(&self) -> bool;
    /// Whether a flush comes soon by itself: nobody need be woken for one.
    fn expect_flush(&self, comes: bool);
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
    /// Merges a batch, or nothing of it. `acked_to_sender`: see the table; `None`: it leads to no questions and offers.
    fn apply(
        &self,
        batch: &Columns,
        sender: &[ColumnDef],
        from: Lineage,
        shift_ms: u32,
        acked_to_sender: Option<u64>,
        now_ms: u64,
    ) -> Result<Applied, BadBatch>;
    /// The highest version held of a lineage; 0: none.
    fn highest(&self, lineage: Lineage) -> u64;
    /// How far that lineage's own journal was read here, without what changed since.
    fn set_followed(&self, _lineage: Lineage, _number: u64) {}
    /// Takes every tracker of a lineage for gone until its rows say otherwise, even rows of versions that are known.
    fn forget_held(&self, lineage: Lineage);
    /// Whether this table could go on under a lineage of which it has cells: they are whole.
    fn can_succeed(&self, _of: Lineage) -> bool {
        false
    }
    /// Goes on under that lineage, whose last number this is: its cells become the own ones.
    fn succeed(&self, _of: Lineage, _newest: u64, _now_ms: u64) {}
    /// The number that every other node has acknowledged, connected or not; `u64::MAX` when there is none.
    fn set_acked_by_all(&self, number: u64, now_ms: u64);
    /// Whether a node is away that may come back and has not heard of what was removed lately.
    fn set_someone_away(&self, away: bool);
}

impl Stores for World {
    fn store(&self, table: TableId) -> Option<&dyn Store> {
        let table = self.tables.get(usize::from(table.0))?;
        table.replica()?;
        Some(table)
    }
    fn write_tags(&self, table: TableId, tags: &[(Key, Vec<Tag>)], now_ms: u64) {
        if let Some(table) = self.tables.get(usize::from(table.0)) {
            table.write_tags(tags, now_ms);
        }
    }
}

/// Of a table that is not replicated (which [`Stores::store`] never gives out) nothing is known.
impl Store for Table {
    fn spec(&self) -> &TableSpec {
        self.spec()
    }
    fn entries(&self, now_ms: u64) -> usize {
        self.used(now_ms)
    }
    fn expect_entries(&self, entries: usize) {
        self.expect_shares(entries);
    }
    fn is_crowded(&self) -> bool {
        let events = self.events();
        events.evictions + events.refusals > 0
    }
    fn columns(&self) -> Vec<ColumnDef> {
        self.replica().map_or(Vec::new(), |r| r.columns().to_vec())
    }
    fn set_wall_offset(&self, ms: i64) {
        self.set_wall_offset(ms);
    }
    fn mend_stamps(&self, back_ms: u64, now_ms: u64) -> usize {
        self.replica()
            .map_or(0, |replica| replica.mend_stamps(back_ms, now_ms))
    }
    fn takes_what_it_refused(&self, now_ms: u64) -> bool {
        self.replica()
            .is_some_and(|replica| replica.takes_what_it_refused(now_ms))
    }
    fn is_dirty(&self) -> bool {
        self.replica().is_some_and(|r| r.is_dirty())
    }
    fn expect_flush(&self, comes: bool) {
        if let Some(replica) = self.replica() {
            replica.expect(comes);
        }
    }
    fn collect(&self, now_ms: u64, budget: usize) -> Collected {
        self.replica()
            .map_or(Collected::default(), |r| r.collect(now_ms, budget))
    }
    fn newest(&self) -> u64 {
        self.replica().map_or(0, |r| r.newest())
    }
    fn read_journal(
        &self,
        after: u64,
        budget: Budget,
        now_ms: u64,
        out: &mut BatchWriter,
    ) -> JournalRead {
        self.replica().map_or(JournalRead::default(), |r| {
            r.read_journal(after, budget, now_ms, out)
        })
    }
    fn lag(&self, after: u64) -> usize {
        self.replica().map_or(0, |r| r.lag(after))
    }
    fn read_walk(
        &self,
        cursor: &mut WalkCursor,
        which: Which,
        budget: Budget,
        now_ms: u64,
        out: &mut BatchWriter,
    ) -> bool {
        self.replica()
            .is_none_or(|r| r.read_walk(cursor, which, budget, now_ms, out))
    }
    fn read_keys(&self, keys: &[Key], now_ms: u64, out: &mut BatchWriter) {
        if let Some(replica) = self.replica() {
            replica.read_keys(keys, now_ms, out);
        }
    }
    fn apply(
        &self,
        batch: &Columns,
        sender: &[ColumnDef],
        from: Lineage,
        shift_ms: u32,
        acked_to_sender: Option<u64>,
        now_ms: u64,
    ) -> Result<Applied, BadBatch> {
        let batch = BatchReader::new(batch, sender)?;
        let Some(replica) = self.replica() else {
            return Ok(Applied::default());
        };
        match acked_to_sender {
            Some(acked) => replica.apply(&batch, from, shift_ms, acked, now_ms),
            None => replica.apply_shown(&batch, from, shift_ms, now_ms),
        }
    }
    fn highest(&self, lineage: Lineage) -> u64 {
        self.replica().map_or(0, |r| r.highest(lineage))
    }
    fn set_followed(&self, lineage: Lineage, number: u64) {
        if let Some(replica) = self.replica() {
            replica.set_followed(lineage, number);
        }
    }
    fn forget_held(&self, lineage: Lineage) {
        if let Some(replica) = self.replica() {
            replica.forget_held(lineage);
        }
    }
    fn can_succeed(&self, of: Lineage) -> bool {
        self.replica().is_some_and(|r| r.can_succeed(of))
    }
    fn succeed(&self, of: Lineage, newest: u64, now_ms: u64) {
        if let Some(replica) = self.replica() {
            replica.succeed(of, newest, now_ms);
        }
    }
    fn set_acked_by_all(&self, number: u64, now_ms: u64) {
        if let Some(replica) = self.replica() {
            replica.set_acked_by_all(number, now_ms);
        }
    }
    fn set_someone_away(&self, away: bool) {
        if let Some(replica) = self.replica() {
            replica.set_someone_away(away);
        }
    }
}
