//! The replica layer of a table: what makes its reads sums over the cluster.
//!
//! An entry holds the *own cell* (the counters, rates and gauges of its record) and a chain of *cells* of other lineages;
//! only its own lineage ever changes a cell, and the newer version of a cell wins. A read is the sum over cells. Tags and
//! sticky servers are *registers*: the highest stamp wins. *Edicts* void counts. Changed entries are stamped with journal
//! numbers ([`Replica::collect`]), read out as rows of batches (`rows`), and merged elsewhere ([`Replica::apply`]).
//!
//! Everything here happens under the shard locks that requests take anyway. The journal has a lock of its own that no
//! request ever waits for.

mod cells;
mod edicts;
mod epitaphs;
mod held;
mod inherit;
mod journal;
mod life;
mod mend;
mod merge;
mod rows;
mod state;
mod succeed;
mod tombs;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::lineage::{Lineage, Lineages};
use super::schema::{ReplicaLayout, VERSION, wide};
use super::{Cursor, DataType, Entry, Key, Table};
use crate::peers::batch::{BadBatch, BatchReader, BatchWriter, Budget, ColumnDef};

pub(in crate::table) use cells::RemoteCell;
pub(in crate::table) use edicts::register_stamp;
pub(in crate::table) use inherit::Late;
pub(in crate::table) use state::{ReplicaShard, Shared};

/// An expired entry of a replicated table is invisible at once, but kept for this long: a touch timed before its deadline
/// that arrives late revives it whole.
pub const EXPIRED_GRACE_MS: u32 = 3_000;
/// A removed entry is remembered for its table's `expire`, but at least for this long.
pub const TOMBSTONE_MIN_MS: u32 = 60_000;
/// The same in a table without `expire`, and, in any, at most while somebody is away who may have counts of it.
pub const TOMBSTONE_UNEXPIRING_MS: u32 = 3_600_000;
/// Most keys that one batch makes its receiver ask for; more are counted and left out.
pub const WANTS_MAX: usize = crate::peers::batch::ROWS_MAX;
/// Most keys that one batch makes its receiver offer; more are counted and left out.
pub const OFFERS_MAX: usize = crate::peers::batch::ROWS_MAX;
/// Stamps further ahead of the wall clock are refused: no clock is that wrong.
pub const STAMP_AHEAD_MAX_MS: u64 = 366 * 86_400_000;

/// What [`Replica::collect`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The journal's last number.
    pub newest: u64,
    /// Entries that got a number.
    pub stamped: usize,
    /// Those of them that had got their last one in or after the collection before.
    pub again: usize,
    /// The budget was used up and something is left.
    pub more: bool,
}

/// How far [`Replica::read_journal`] got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalRead {
    /// Read on from here. Changes with numbers up to this one are in this batch or earlier ones, or will come with a newer
    /// number because their entry changed again.
    pub upto: u64,
    /// There is more.
    pub more: bool,
    /// The journal's end was reached: nothing up to `upto` is still to come.
    pub whole: bool,
}

/// Which cells a walk shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those of all lineages, with edicts and registers.
    All,
    /// Those of one lineage with a version above `after`, and the edicts and registers that it issued.
    Lineage {
        /// Whose.
        lineage: Lineage,
        /// What the reader has.
        after: u64,
    },
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows that changed something, or might have.
    pub merged: usize,
    /// Rows that were known, or of a life of the entry that is over.
    pub ignored: usize,
    /// Rows for which there was no room, or whose lineage had none.
    pub refused: usize,
    /// Cells, edicts and registers that changed something: without later touches, whose times creep at every relay.
    pub news: usize,
    /// Edicts and registers that were refused for their time.
    pub misdated: usize,
    /// Keys of which the sender knows more.
    pub wants: Vec<Key>,
    /// Keys whose life here began in ignorance of an older one: every node may know something of them.
    pub wants_of_all: Vec<Key>,
    /// Keys that were alive elsewhere before this row made them known here, and of which the sender has said all: after a
    /// break, others may have more of them.
    pub unsure: Vec<Key>,
    /// Keys of which the sender seems to have lost something that is known here.
    pub offers: Vec<Key>,
    /// Lineages with news in this batch that was not taken, be it that the life it belongs to seemed to be over, be it that
    /// an older share is kept for its owner; and the lowest version of that. It proves nothing about what is held.
    pub untaken: Vec<(Lineage, u64)>,
    /// Of a table with `write-to`: what rows assign, for [`Table::write_tags`] of the other table.
    pub tags: Vec<(Key, Vec<Tag>)>,
}

/// A tag or sticky server that a row assigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    data_type: DataType,
    index: u16,
    number: u32,
    /// Of a `server_key`.
    server: Option<Arc<[u8]>>,
}

/// Events of a replicated table since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // names say it
pub struct ReplicaCounters {
    pub edicts_issued: u64,
    pub edicts_applied: u64,
    /// Tombstones that had to make room before everyone knew of them.
    pub edicts_dropped: u64,
    /// Edicts and registers from more than a year ahead.
    pub stamps_refused: u64,
    pub wants: u64,
    pub offers: u64,
    /// Wants and offers beyond the bound of a batch.
    pub questions_dropped: u64,
    /// Own shares that were lost here and came back from a peer.
    pub adopted: u64,
    /// Rows that did not replace an older share of their lineage, which was offered to it instead. Many of them: a node's
    /// table is too small for its keys, and what it counts is forgotten before it can be joined with what it forgot before.
    pub rows_kept_back: u64,
    /// Entries that went right after their last tracker, of which some peer may not have been told: it counts that tracker
    /// until its session breaks.
    pub releases_dropped: u64,
    pub rows_merged: u64,
    pub rows_ignored: u64,
    pub rows_refused: u64,
    /// Lineages known to the process.
    pub lineages: usize,
    /// Lineages for which there was no place.
    pub lineages_refused: u64,
    /// Tombstones held.
    pub tombstones: u64,
    /// Cells of lineages that are gone, forgotten because nothing was left to be read of them.
    pub cells_forgotten: u64,
}

/// One lineage's share of an entry.
#[derive(Clone, Copy)]
pub struct Origin<'t> {
    /// Whose it is.
    pub lineage: Lineage,
    /// Whether it is this process's.
    pub own: bool,
    /// Whether its gauges count.
    pub alive: bool,
    /// Its version: the lineage's journal number; 0 = not stamped yet.
    pub version: u64,
    /// Whether the lineage has trackers of this key.
    pub held: bool,
    entry: Entry<'t>,
    cell: Option<RemoteCell<'t>>,
}

impl Origin<'_> {
    /// This lineage's part of a value, named as declared; `None`: not stored, or not summed.
    pub fn get(&self, what: DataType, index: u16, now_ms: u64) -> Option<u64> {
        let column = self.entry.table.schema.cell_exact(what, index)?;
        if !column.kind.is_arithmetic() {
            return None;
        }
        Some(match self.cell {
            Some(cell) => super::entry::own_value(cell.bytes, column.remote, column, now_ms),
            None => super::entry::own_value(self.entry.record, column.at, column, now_ms),
        })
    }
}

/// The replica layer of a replicated table: [`Table::replica`].
#[derive(Clone, Copy)]
pub struct Replica<'t> {
    table: &'t Table,
    shared: &'t Arc<Shared>,
    layout: &'t ReplicaLayout,
}

impl Table {
    /// Its replica layer; `None` for a table made by [`Table::new`].
    pub fn replica(&self) -> Option<Replica<'_>> {
        Some(Replica {
            table: self,
            shared: self.shared.as_ref()?,
            layout: self.schema.replica.as_ref()?,
        })
    }
    /// Wall clock minus monotonic clock: what stamps of edicts and registers are made with. To be called often enough to
    /// follow a clock that is being set. Nothing for a table that is not replicated.
    pub fn set_wall_offset(&self, ms: i64) {
        if let Some(shared) = &self.shared {
            shared.set_wall_offset(ms);
        }
    }
}

impl Table {
    /// Assigns what another table's peers have assigned there (`write-to`), as far as this table stores it.
    pub fn write_tags(&self, tags: &[(Key, Vec<Tag>)], now_ms: u64) {
        for (key, tags) in tags {
            // A full table refuses; it counts that.
            let _ = self.upsert(key, now_ms, |mut entry| {
                for tag in tags {
                    if let Some(name) = &tag.server {
                        if entry.entry().server_key().as_ref() != Some(name) {
                            entry.set_server_key(name);
                        }
                        continue;
                    }
                    let number = u64::from(tag.number);
                    let known = entry.entry().get_exact(tag.data_type, tag.index, now_ms);
                    if known.is_some_and(|known| known as u32 != tag.number) {
                        entry.set_exact(tag.data_type, tag.index, number, now_ms);
                    }
                }
            });
        }
    }
}

impl<'t> Replica<'t> {
    /// Columns in the order of rows: what is summed first, then registers.
    pub fn columns(&self) -> &'t [ColumnDef] {
        &self.layout.defs
    }
    /// The lineages that this table's cells refer to.
    pub fn lineages(&self) -> &'t Arc<Lineages> {
        &self.shared.lineages
    }
    /// Sets what is called when there is something to collect: at most once until the next collection, under a shard's
    /// lock, from any thread. It must be short and must not use tables.
    pub fn set_waker(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        *self.shared.waker.write() = Some(wake);
    }
    /// Whether a collection comes soon by itself: then the waker is not called, which spares the counting thread a system
    /// call. After `false`, look whether the table [is dirty](Replica::is_dirty).
    pub fn expect(&self, collection: bool) {
        self.shared.expect(collection);
    }
    /// Whether there is something to collect.
    pub fn is_dirty(&self) -> bool {
        self.shared.is_dirty()
    }
    /// Gives journal numbers to at most about `budget` entries that changed or were touched here since their last one.
    pub fn collect(&self, now_ms: u64, budget: usize) -> Collected {
        journal::collect(self.table, self.shared, now_ms, budget)
    }
    /// The last number of the own journal.
    pub fn newest(&self) -> u64 {
        self.shared.newest.load(Acquire)
    }
    /// Continues a lineage: numbers up to this one have been given before.
    pub fn resume_from(&self, newest: u64) {
        let mut journal = self.shared.journal.lock();
        journal.raise(newest.min(merge::VERSION_MAX));
        self.shared
            .newest
            .store(journal.newest(), std::sync::atomic::Ordering::Release);
    }
    /// Whether every cell of a lineage is whole, and nothing was ever published under the own one: see
    /// [`Replica::succeed`].
    pub fn can_succeed(&self, of: Lineage) -> bool {
        succeed::can(self, of)
    }
    /// Continues the lineage of a node that has ended, in place of the own one, under which nothing was published: its
    /// cells become the own ones with their numbers, of which `newest` was the last.
    /// [`Lineages::become_lineage`] has to follow, once all tables have done this.
    pub fn succeed(&self, of: Lineage, newest: u64, now_ms: u64) {
        succeed::take(self, of, newest, now_ms);
    }
    /// The number that every node known to the cluster has, connected or not; `u64::MAX` when there is no other.
    pub fn set_acked_by_all(&self, number: u64, now_ms: u64) {
        self.shared.note_acked(number, now_ms);
    }
    /// The highest version merged of that lineage, 0 if none: some cell may have it although lower ones are still missing.
    pub fn highest(&self, lineage: Lineage) -> u64 {
        if lineage == self.shared.lineages.own() {
            return self.newest();
        }
        let highest = self.shared.highest.lock();
        highest.get(&lineage).copied().unwrap_or(0)
    }
    /// Up to which number that lineage's own journal was read here, without what changed since: of what others still say
    /// that it held then, it has said itself what became of it.
    pub fn set_followed(&self, lineage: Lineage, number: u64) {
        held::set_followed(self.shared, lineage, number);
    }
    /// Takes every tracker of a lineage for gone until its rows say otherwise: rows of known versions too. For a lineage
    /// that comes back after it was away for long.
    pub fn forget_held(&self, lineage: Lineage) {
        held::forget(self, lineage);
    }
    /// Own rows with numbers above `after`, oldest first, until the budget is used up or the journal ends. An entry that
    /// changed since it was stamped is stamped again on the spot: a number never has two contents.
    pub fn read_journal(
        &self,
        after: u64,
        budget: Budget,
        now_ms: u64,
        out: &mut BatchWriter,
    ) -> JournalRead {
        rows::read_journal(self, after, budget, now_ms, out)
    }
    /// Positions of the journal after that number: an upper bound of how many entries a peer lags behind.
    pub fn lag(&self, after: u64) -> usize {
        if after >= self.newest() {
            return 0;
        }
        self.shared.journal.lock().count_after(after)
    }
    /// Continues a walk over all entries. Returns whether it is complete.
    pub fn read_walk(
        &self,
        cursor: &mut Cursor,
        which: Which,
        budget: Budget,
        now_ms: u64,
        out: &mut BatchWriter,
    ) -> bool {
        rows::read_walk(self, cursor, which, budget, now_ms, out)
    }
    /// All that is known of these keys.
    pub fn read_keys(&self, keys: &[Key], now_ms: u64, out: &mut BatchWriter) {
        rows::read_keys(self, keys, now_ms, out);
    }
    /// Merges a batch that the lineage `from` sent, which may hold cells of others too. `shift_ms` is how much later than
    /// possible it arrived, and is added to all ages; `acked_to_sender` is the own number that the sender has confirmed.
    /// The whole batch is checked before anything is merged.
    pub fn apply(
        &self,
        batch: &BatchReader<'_>,
        from: Lineage,
        shift_ms: u32,
        acked_to_sender: u64,
        now_ms: u64,
    ) -> Result<Applied, BadBatch> {
        merge::apply(self, batch, from, shift_ms, acked_to_sender, now_ms, true)
    }
    /// The same, for a batch that leads to no questions and offers about single keys, except to
    /// [`Applied::wants_of_all`]: who is shown everything need not ask.
    pub fn apply_shown(
        &self,
        batch: &BatchReader<'_>,
        from: Lineage,
        shift_ms: u32,
        now_ms: u64,
    ) -> Result<Applied, BadBatch> {
        merge::apply(self, batch, from, shift_ms, 0, now_ms, false)
    }
    /// Shows each lineage's share of a living entry, the own one first. Returns whether there is such an entry. `f` runs
    /// under a shard's lock: it must be short and must not use tables.
    pub fn origins(&self, key: &Key, now_ms: u64, mut f: impl FnMut(Origin<'_>)) -> bool {
        let lineages = &self.shared.lineages;
        self.table
            .peek(key, now_ms, |entry| {
                f(Origin {
                    lineage: lineages.own(),
                    own: true,
                    alive: true,
                    version: wide(entry.record, VERSION),
                    held: entry.uses() > 0,
                    entry,
                    cell: None,
                });
                let Some(replica) = entry.replica else {
                    return;
                };
                for cell in replica.chain(entry.record) {
                    f(Origin {
                        lineage: lineages.id(cell.lineage()),
                        own: false,
                        alive: lineages.is_alive(cell.lineage()),
                        version: cell.version(),
                        held: cell.is_held(),
                        entry,
                        cell: Some(cell),
                    });
                }
            })
            .is_some()
    }
    /// Whether some node is away that may come back with counts of what was removed meanwhile: tombstones are kept for it,
    /// up to [`TOMBSTONE_UNEXPIRING_MS`].
    pub fn set_someone_away(&self, away: bool) {
        self.shared.someone_away.store(away, Relaxed);
    }
    /// The wall clock was set back by about `back_ms`: what is stamped too far ahead of it ([`STAMP_AHEAD_MAX_MS`]) is set back
    /// as much. Returns how many entries had such stamps; what others said of these lost against them.
    pub fn mend_stamps(&self, back_ms: u64, now_ms: u64) -> usize {
        let mended = mend::mend(self, back_ms, now_ms);
        if mended > 0 {
            self.shared.refused_ms.store(0, Relaxed);
        }
        mended
    }
    /// Whether something was refused for its time that would be taken now. Says so once.
    pub fn takes_what_it_refused(&self, now_ms: u64) -> bool {
        let limit_ms = self
            .shared
            .wall_ms(now_ms)
            .saturating_add(STAMP_AHEAD_MAX_MS);
        let refused = &self.shared.refused_ms;
        refused.load(Relaxed) <= limit_ms && refused.swap(u64::MAX, Relaxed) <= limit_ms
    }
    /// For assignments that come without a time: see `Shared::wall_ms`.
    pub(super) fn note_time(&self, now_ms: u64) {
        self.shared.note_time(now_ms);
    }
    /// Drops tombstones that have been kept long enough. Returns how many. `Table::maintain` does it too, in passing.
    pub fn forget_tombstones(&self, now_ms: u64) -> usize {
        tombs::forget(self.table, now_ms)
    }
    /// Counters of events, for another process that goes on with them: always in the same order; later ones are appended.
    pub fn totals(&self) -> Vec<&'t AtomicU64> {
        self.shared.counts.totals().to_vec()
    }
    /// Counters for people.
    pub fn counters(&self) -> ReplicaCounters {
        let c = &self.shared.counts;
        ReplicaCounters {
            edicts_issued: c.edicts_issued.load(Relaxed),
            edicts_applied: c.edicts_applied.load(Relaxed),
            edicts_dropped: c.edicts_dropped.load(Relaxed),
            stamps_refused: c.stamps_refused.load(Relaxed),
            wants: c.wants.load(Relaxed),
            offers: c.offers.load(Relaxed),
            questions_dropped: c.questions_dropped.load(Relaxed),
            adopted: c.adopted.load(Relaxed),
            rows_kept_back: c.rows_kept_back.load(Relaxed),
            releases_dropped: c.releases_dropped.load(Relaxed),
            rows_merged: c.rows_merged.load(Relaxed),
            rows_ignored: c.rows_ignored.load(Relaxed),
            rows_refused: c.rows_refused.load(Relaxed),
            lineages: self.shared.lineages.len(),
            lineages_refused: self.shared.lineages.refused(),
            tombstones: c.tombstones.load(Relaxed),
            cells_forgotten: c.cells_forgotten.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
