//! Plain rows, nearly all there are, go into the table shard by shard.
//!
//! Keys of a batch are spread over all shards, and with each row another one's lock, counters and newest records would have to
//! come into the cache. So rows are put aside as they are read, and merged in the order of shards. What a lock's rows look up is
//! fetched before the first of them is merged, so that the processor waits for all of it at once.

use smallvec::SmallVec;

use super::super::edicts::NEVER;
use super::{Merger, Row};
use crate::peers::batch::{RowFlags, RowHead};
use crate::table::Lineage;

/// Rows put aside at a time: what they take up should stay in the processor's cache.
const ROWS: usize = 4096;
/// Rows merged under one lock, which requests wait for.
const ROWS_PER_LOCK: usize = 16;
/// Fewer rows are merged as they come.
const ROWS_SORTED: usize = 16;

/// Plain rows that were read and not merged.
#[derive(Default)]
pub(super) struct Aside<'a> {
    rows: Vec<Plain<'a>>,
    /// Their cells, one after the other.
    cells: Vec<u8>,
    /// The cell of a row that comes after them.
    next: Vec<u8>,
    /// By shard; kept for their memory.
    starts: Vec<u32>,
    order: Vec<u32>,
}

/// A row without edicts, registers and epoch.
#[derive(Clone, Copy)]
struct Plain<'a> {
    hash: u64,
    key: &'a [u8],
    id: Lineage,
    version: u64,
    first: u64,
    touched: u64,
    born: u64,
    lineage: u16,
    flags: RowFlags,
    is_held: bool,
    is_dead: bool,
}

impl<'a> Plain<'a> {
    fn row<'r>(&self, cell: &'r [u8]) -> Row<'r>
    where
        'a: 'r,
    {
        Row {
            cell: Some(cell),
            key: self.key,
            head: RowHead {
                flags: self.flags,
                lineage: self.id,
                version: self.version,
                first: self.first,
                ..RowHead::default()
            },
            lineage: self.lineage,
            touched: self.touched,
            born: self.born,
            is_held: self.is_held,
            is_dead: self.is_dead,
            edicts: SmallVec::new(),
            registers: SmallVec::new(),
            all: NEVER,
        }
    }
}

impl Aside<'_> {
    /// With room for a batch of so many rows, whose cells have this width.
    pub(super) fn for_rows(rows: usize, width: usize) -> Self {
        let rows = rows.min(ROWS);
        Aside {
            rows: Vec::with_capacity(rows),
            cells: Vec::with_capacity(rows * width),
            ..Aside::default()
        }
    }
}

impl<'a> Merger<'a> {
    /// Puts a plain row and its cell aside.
    #[inline]
    pub(super) fn put_aside(&mut self, row: &Row<'a>) {
        self.aside.rows.push(Plain {
            hash: self.table.schema.hash(row.key),
            key: row.key,
            id: row.head.lineage,
            version: row.head.version,
            first: row.head.first,
            touched: row.touched,
            born: row.born,
            lineage: row.lineage,
            flags: row.head.flags,
            is_held: row.is_held,
            is_dead: row.is_dead,
        });
        self.aside.cells.extend_from_slice(&self.cell);
        if self.aside.rows.len() >= ROWS {
            self.merge_aside();
        }
    }

    /// Merges what was put aside. To be called before a row that is not: rows of one key stay in order.
    pub(super) fn merge_aside(&mut self) {
        if self.aside.rows.is_empty() {
            return;
        }
        let mut aside = std::mem::take(&mut self.aside);
        aside.next.clone_from(&self.cell);
        aside.sort(self.table.shards.len(), |hash| self.table.shard_of(hash));
        let width = self.cell.len();
        let mut rest = &aside.order[..];
        while let Some(first) = rest.first().and_then(|at| aside.rows.get(*at as usize)) {
            let number = self.table.shard_of(first.hash);
            let run = rest.iter().take(ROWS_PER_LOCK).take_while(|at| {
                let row = aside.rows.get(**at as usize);
                row.is_some_and(|row| self.table.shard_of(row.hash) == number)
            });
            let (run, others) = rest.split_at(run.count());
            rest = others;
            self.run(number, run, &aside.rows, &aside.cells, width);
        }
        aside.rows.clear();
        aside.cells.clear();
        self.cell.copy_from_slice(&aside.next);
        self.aside = aside;
    }

    /// Merges rows of one shard.
    fn run(&mut self, number: usize, run: &[u32], rows: &[Plain<'_>], cells: &[u8], width: usize) {
        let (table, schema) = (self.table, &self.table.schema);
        let Some(home) = table.shards.get(number) else {
            return;
        };
        let mut done = 0;
        let mut shard = home.lock();
        if run.len() > 1 {
            let found = run.iter().filter_map(|at| rows.get(*at as usize));
            let found = found.filter(|row| shard.find(schema, row.hash, row.key).is_some());
            let new = run.len() - found.count();
            std::hint::black_box((shard.look_ahead(new), shard.next_word()));
        }
        for at in run {
            let at = *at as usize;
            let (Some(row), Some(cell)) = (rows.get(at), cells.get(at * width..(at + 1) * width))
            else {
                break;
            };
            let Some(outcome) = self.quick(&mut shard, row.hash, &row.row(cell)) else {
                break;
            };
            self.outcome(outcome);
            done += 1;
        }
        drop(shard);
        // What has to wait for other shards.
        for at in run.get(done..).unwrap_or_default() {
            let at = *at as usize;
            let (Some(row), Some(cell)) = (rows.get(at), cells.get(at * width..(at + 1) * width))
            else {
                break;
            };
            let outcome = self.row(&row.row(cell));
            self.outcome(outcome);
        }
    }
}

impl Aside<'_> {
    /// Puts the rows in the order of their shards, those of one shard in their own.
    fn sort(&mut self, shards: usize, shard_of: impl Fn(u64) -> usize) {
        let count = self.rows.len() as u32;
        self.order.clear();
        self.order.extend(0..count);
        if self.rows.len() < ROWS_SORTED || shards == 1 {
            return;
        }
        self.starts.clear();
        self.starts.resize(shards + 1, 0);
        for row in &self.rows {
            if let Some(next) = self.starts.get_mut(shard_of(row.hash) + 1) {
                *next += 1;
            }
        }
        let mut sum = 0;
        for start in &mut self.starts {
            sum += *start;
            *start = sum;
        }
        for (at, row) in (0..count).zip(&self.rows) {
            if let Some(start) = self.starts.get_mut(shard_of(row.hash)) {
                if let Some(place) = self.order.get_mut(*start as usize) {
                    *place = at;
                }
                *start += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::peers::batch::{BatchReader, BatchWriter, Budget};
    use crate::table::{
        Cursor, DataType as D, Key, KeyType, Lineage, Lineages, Stored, Table, TableSpec, Which,
    };

    const KEYS: u32 = 6_000;

    fn table(lineage: u64, size: usize) -> Table {
        let stored = |data_type, period_ms| Stored {
            data_type,
            elements: 1,
            period_ms,
        };
        let spec = TableSpec {
            size,
            expire_ms: Some(600_000),
            store: vec![
                stored(D::HttpReqCnt, 0),
                stored(D::HttpReqRate, 10_000),
                stored(D::Gpt0, 0),
            ],
            ..TableSpec::new("t", KeyType::Integer)
        };
        let lineages = Arc::new(Lineages::new(Lineage(lineage)));
        let table = Table::new_replicated(spec, lineage, lineages);
        table.set_wall_offset(1_000_000);
        table
    }
    fn key(number: u32) -> Key {
        Key::from_stored(&number.to_be_bytes())
    }
    fn teach(from: &Table, to: &Table, rows: usize, now: u64) {
        let source = from.replica().unwrap();
        source.collect(now, usize::MAX);
        let budget = Budget {
            rows,
            bytes: 1 << 20,
        };
        let mut out = BatchWriter::new(source.columns());
        let mut cursor = Cursor::default();
        let mut done = false;
        while !done {
            done = source.read_walk(&mut cursor, Which::All, budget, now, &mut out);
            let columns = out.finish();
            let batch = BatchReader::new(&columns, source.columns()).unwrap();
            let target = to.replica().unwrap();
            target
                .apply_shown(&batch, source.lineages().own(), 0, now)
                .unwrap();
        }
    }
    fn shares(table: &Table, number: u32) -> Vec<(Lineage, u64, Option<u64>)> {
        let mut shares = Vec::new();
        table.replica().unwrap().origins(&key(number), 9_000, |o| {
            shares.push((o.lineage, o.version, o.get(D::HttpReqCnt, 0, 9_000)));
        });
        shares.sort_unstable();
        shares
    }

    /// What the order of shards makes of large batches is what single rows do in their own: with several cells of a key, with
    /// rows in between that are not plain, with entries that are there already, and again.
    #[test]
    fn the_order_of_shards_changes_nothing() {
        let nodes = [table(1, 10_000), table(2, 10_000)];
        for number in 0..KEYS {
            for (at, node) in nodes.iter().enumerate() {
                if number % (at as u32 + 2) != 0 {
                    continue;
                }
                let touched = 1_000 + u64::from(number.wrapping_mul(2_654_435_761) % 5_000);
                let _ = node.upsert(&key(number), touched, |mut e| {
                    e.inc(D::HttpReqCnt, 0, u64::from(number + 1), touched);
                    if number % 7 == 0 {
                        e.set_exact(D::Gpt0, 0, u64::from(number), touched);
                    }
                });
            }
        }
        teach(&nodes[0], &nodes[1], 1_000, 7_000);
        for number in (0..KEYS).step_by(50) {
            nodes[1].remove(&key(number), 7_000);
        }
        let (batched, single) = (table(3, 10_000), table(4, 10_000));
        for (learner, rows) in [(&batched, 4_000), (&single, 1)] {
            let _ = learner.upsert(&key(3), 8_000, |_| ());
            teach(&nodes[0], learner, rows, 8_000);
            teach(&nodes[1], learner, rows, 8_000);
            teach(&nodes[1], learner, rows, 8_500);
        }
        assert!(batched.shards.len() > 1);
        assert_eq!(batched.used(9_000), single.used(9_000));
        for number in 0..KEYS {
            let value = |t: &Table, what| t.peek(&key(number), 9_000, |e| e.get(what, 0, 9_000));
            for what in [D::HttpReqCnt, D::HttpReqRate, D::Gpt0] {
                assert_eq!(value(&batched, what), value(&single, what), "{number}");
            }
            let remote = |t| {
                let mut shares = shares(t, number);
                shares.retain(|(lineage, ..)| lineage.0 < 3);
                shares
            };
            assert_eq!(remote(&batched), remote(&single), "{number}");
        }
        let counted = |t: &Table| t.replica().unwrap().counters();
        let (batched, single) = (counted(&batched), counted(&single));
        assert_eq!(batched.rows_merged, single.rows_merged);
        assert_eq!(batched.rows_ignored, single.rows_ignored);
        assert_eq!(batched.tombstones, single.tombstones);
    }

    /// A table that is too small takes what it can.
    #[test]
    fn a_full_table_makes_room() {
        let (source, small) = (table(1, 10_000), table(2, 4_500));
        for number in 0..KEYS {
            let _ = source.upsert(&key(number), 1_000, |mut e| {
                e.inc(D::HttpReqCnt, 0, 1, 1_000)
            });
        }
        teach(&source, &small, 4_000, 2_000);
        assert_eq!(small.used(2_000), 4_500);
        let counters = small.replica().unwrap().counters();
        let rows = counters.rows_merged + counters.rows_refused;
        assert_eq!(rows, u64::from(KEYS));
    }
}
