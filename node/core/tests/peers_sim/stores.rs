//! The tables of a simulated process, and ways to break them: a simulation that does not notice these proves nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use remora_core::peers::batch::{BadBatch, BatchWriter, Budget, ColumnDef, Columns};
use remora_core::peers::store::{
    Applied, Collected, JournalRead, Store, Stores, WalkCursor, Which,
};
use remora_core::table::{Key, Lineage, Table, TableId, TableSpec, Tag};

/// One way in which a node could be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// Acknowledges now and then without merging.
    AckWithoutApply,
    /// Leaves out an entry of the journal now and then.
    SkipsJournal,
    /// Claims that nothing is missing although more of the journal is to come.
    AlwaysWhole,
    /// Ends walks at once.
    EmptyWalks,
    /// What was stamped far ahead stays so, and what was refused is not asked for.
    NeverMends,
    /// Does not say what it holds of others.
    HidesHighest,
    /// Takes late messages for fresh ones.
    IgnoresDelay,
    /// Merges every batch twice.
    MergesTwice,
    /// Asks nobody about what others hold.
    NeverWants,
    /// Continues a lineage without its counts and numbers.
    SucceedsInName,
    /// A process that takes over reads on after what its predecessor had read of others.
    InheritsTooMuch,
}

pub struct SimStores {
    pub tables: Vec<SimTable>,
}

pub struct SimTable {
    pub table: Table,
    pub mutant: Mutant,
    pub calls: AtomicU64,
}

impl SimTable {
    /// Every third call.
    fn now_and_then(&self) -> bool {
        self.calls.fetch_add(1, Relaxed) % 3 == 2
    }
}

impl Stores for SimStores {
    fn store(&self, table: TableId) -> Option<&dyn Store> {
        self.tables
            .get(usize::from(table.0))
            .map(|table| table as &dyn Store)
    }
    fn write_tags(&self, table: TableId, tags: &[(Key, Vec<Tag>)], now_ms: u64) {
        if let Some(table) = self.tables.get(usize::from(table.0)) {
            table.table.write_tags(tags, now_ms);
        }
    }
}

impl Store for SimTable {
    fn spec(&self) -> &TableSpec {
        Store::spec(&self.table)
    }
    fn expect_entries(&self, entries: usize) {
        self.table.expect_entries(entries);
    }
    fn columns(&self) -> Vec<ColumnDef> {
        self.table.columns()
    }
    fn set_wall_offset(&self, ms: i64) {
        Store::set_wall_offset(&self.table, ms);
    }
    fn mend_stamps(&self, back_ms: u64, now_ms: u64) -> usize {
        if self.mutant == Mutant::NeverMends {
            return 0;
        }
        self.table.mend_stamps(back_ms, now_ms)
    }
    fn takes_what_it_refused(&self, now_ms: u64) -> bool {
        self.mutant != Mutant::NeverMends && self.table.takes_what_it_refused(now_ms)
    }
    fn is_dirty(&self) -> bool {
        self.table.is_dirty()
    }
    fn expect_flush(&self, comes: bool) {
        self.table.expect_flush(comes);
    }
    fn collect(&self, now_ms: u64, budget: usize) -> Collected {
        self.table.collect(now_ms, budget)
    }
    fn newest(&self) -> u64 {
        self.table.newest()
    }
    fn read_journal(
        &self,
        after: u64,
        budget: Budget,
        now_ms: u64,
        out: &mut BatchWriter,
    ) -> JournalRead {
        let after = if self.mutant == Mutant::SkipsJournal && self.now_and_then() {
            after + 1
        } else {
            after
        };
        // Small budgets make big tables of small ones.
        let budget = Budget {
            rows: budget.rows.min(2),
            ..budget
        };
        let mut read = self.table.read_journal(after, budget, now_ms, out);
        if self.mutant == Mutant::AlwaysWhole {
            read.whole = true;
        }
        read
    }
    fn lag(&self, after: u64) -> usize {
        self.table.lag(after)
    }
    fn read_walk(
        &self,
        cursor: &mut WalkCursor,
        which: Which,
        budget: Budget,
        now_ms: u64,
        out: &mut BatchWriter,
    ) -> bool {
        if self.mutant == Mutant::EmptyWalks {
            return true;
        }
        let budget = Budget {
            rows: budget.rows.min(2),
            ..budget
        };
        self.table.read_walk(cursor, which, budget, now_ms, out)
    }
    fn read_keys(&self, keys: &[Key], now_ms: u64, out: &mut BatchWriter) {
        self.table.read_keys(keys, now_ms, out);
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
        if self.mutant == Mutant::AckWithoutApply && self.now_and_then() {
            return Ok(Applied::default());
        }
        let shift_ms = if self.mutant == Mutant::IgnoresDelay {
            0
        } else {
            shift_ms
        };
        let apply = || {
            self.table
                .apply(batch, sender, from, shift_ms, acked_to_sender, now_ms)
        };
        if self.mutant == Mutant::MergesTwice {
            apply()?;
        }
        let mut applied = apply()?;
        if self.mutant == Mutant::NeverWants {
            applied.wants.clear();
        }
        Ok(applied)
    }
    fn highest(&self, lineage: Lineage) -> u64 {
        if self.mutant == Mutant::HidesHighest {
            return 0;
        }
        self.table.highest(lineage)
    }
    fn set_followed(&self, lineage: Lineage, number: u64) {
        self.table.set_followed(lineage, number);
    }
    fn forget_held(&self, lineage: Lineage) {
        self.table.forget_held(lineage);
    }
    fn can_succeed(&self, of: Lineage) -> bool {
        self.table.can_succeed(of)
    }
    fn succeed(&self, of: Lineage, newest: u64, now_ms: u64) {
        if self.mutant != Mutant::SucceedsInName {
            self.table.succeed(of, newest, now_ms);
        }
    }
    fn set_acked_by_all(&self, number: u64, now_ms: u64) {
        self.table.set_acked_by_all(number, now_ms);
    }
    fn set_someone_away(&self, away: bool) {
        self.table.set_someone_away(away);
    }
}
