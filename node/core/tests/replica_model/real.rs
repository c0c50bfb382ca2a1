//! A real table behind the codec, in the place of the model.

use super::cluster::{Node, WALL};
use super::node::{COLUMNS, KeyNumber, REGISTERS};
use super::op::{GPC, Op};
use super::row::Applied;
use crate::table_common::{number, spec};
use remora_core::peers::batch::{BatchReader, BatchWriter, Budget, ColumnDef, Columns};
use remora_core::table::{Cursor, DataType as D, EntryRef, Key, Lineage, Lineages, Table, Which};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where each column of the model is in the table.
const PLACES: [(D, u16); COLUMNS.len() + REGISTERS] = [
    (D::ConnCur, 0),
    (D::ConnCnt, 0),
    (D::HttpReqCnt, 0),
    (D::HttpReqRate, 0),
    (D::Gpc, 0),
    (D::Gpc, 1),
    (D::GpcRate, 0),
    (D::GpcRate, 1),
    (D::Gpt, 0),
    (D::Gpt, 1),
];
const STORE: &str =
    "conn_cur,conn_cnt,http_req_cnt,http_req_rate(1000),gpc(2),gpc_rate(2,700),gpt(2)";

pub struct RealNode {
    pub table: Table,
    pub lineages: Arc<Lineages>,
    held: BTreeMap<KeyNumber, Vec<EntryRef>>,
    /// Rows per batch.
    pub budget: usize,
}

/// What goes over the wire.
#[derive(Clone)]
pub struct Wire {
    columns: Vec<ColumnDef>,
    batches: Vec<Columns>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for batch in &self.batches {
            let Ok(mut reader) = BatchReader::new(batch, &self.columns) else {
                return write!(f, "unreadable");
            };
            while let Some((key, head, edicts)) = reader.next_row() {
                write!(f, "\n      k{} {head:?}", key.last().unwrap_or(&0))?;
                for edict in edicts {
                    write!(f, " {edict:?}")?;
                }
                for column in &self.columns {
                    use remora_core::peers::batch::ColumnKind as K;
                    match column.kind {
                        K::Counter | K::Gauge => write!(f, " {}", reader.counter())?,
                        K::Rate => write!(f, " {:?}", reader.rate())?,
                        K::Register => write!(f, " {:?}", reader.register())?,
                        K::ServerKey => write!(f, " {:?}", reader.text())?,
                    }
                }
            }
        }
        Ok(())
    }
}

impl RealNode {
    pub fn new(lineage: u64, expire: Option<i64>, size: usize) -> RealNode {
        let lineages = Arc::new(Lineages::new(Lineage(lineage)));
        let mut build = spec("integer").size(size).store(STORE);
        if let Some(expire) = expire {
            build = build.expire(expire as u32);
        }
        let table = Table::new_replicated(build.spec(), 0x5eed, lineages.clone());
        table.set_wall_offset(WALL);
        RealNode {
            table,
            lineages,
            held: BTreeMap::new(),
            budget: 1_000,
        }
    }
    fn replica(&self) -> remora_core::table::Replica<'_> {
        self.table.replica().unwrap()
    }
    fn wire(&self, batches: Vec<Columns>) -> Wire {
        Wire {
            columns: self.replica().columns().to_vec(),
            batches,
        }
    }
    fn budget(&self) -> Budget {
        Budget {
            rows: self.budget,
            bytes: 64 << 10,
        }
    }
    fn walk(&self, which: Which, now: i64) -> Wire {
        let mut out = BatchWriter::new(self.replica().columns().to_vec());
        let mut cursor = Cursor::default();
        let mut batches = Vec::new();
        loop {
            let done =
                self.replica()
                    .read_walk(&mut cursor, which, self.budget(), now as u64, &mut out);
            if !out.is_empty() {
                batches.push(out.finish());
            }
            out.clear();
            if done {
                return self.wire(batches);
            }
        }
    }
}

fn key_number(key: &Key) -> KeyNumber {
    u32::from_be_bytes(key.as_bytes().try_into().unwrap())
}

impl Node for RealNode {
    type Batch = Wire;
    fn act(&mut self, op: Op, now: i64, wall: u64) {
        let key = number(op.key());
        self.table.set_wall_offset(wall as i64 - now);
        let now = now as u64;
        let t = &self.table;
        match op {
            Op::Touch(_) => t.upsert(&key, now, |_| ()).unwrap(),
            Op::Hit(_, n) => {
                t.upsert(&key, now, |mut e| {
                    e.inc(D::HttpReqCnt, 0, n.into(), now);
                })
                .unwrap();
            }
            Op::Gpc(_, index, n) => {
                t.upsert(&key, now, |mut e| {
                    e.inc(D::Gpc, index, n.into(), now);
                })
                .unwrap();
            }
            Op::Track(k) => {
                let at = t.track(&key, now).unwrap();
                self.held.entry(k).or_default().push(at);
            }
            Op::Untrack(k) => {
                if let Some(at) = self.held.get_mut(&k).and_then(Vec::pop) {
                    t.untrack(at, now);
                }
            }
            Op::ClearGpc(_, index) => {
                t.upsert(&key, now, |mut e| {
                    e.clr(D::Gpc, index);
                })
                .unwrap();
            }
            Op::Set(_, column, value) => {
                let (what, index) = PLACES[column];
                t.upsert(&key, now, |mut e| {
                    e.set(what, index, value.into(), now);
                })
                .unwrap();
            }
            Op::Tag(_, register, value) => {
                t.upsert(&key, now, |mut e| {
                    e.set(D::Gpt, register as u16, value.into(), now);
                })
                .unwrap();
            }
            Op::Clear(_) => drop(t.remove(&key, now)),
        }
        let _ = GPC;
    }
    fn collect(&mut self, now: i64) {
        while self.replica().collect(now as u64, 1_000).more {}
    }
    fn newest(&self) -> u64 {
        self.replica().newest()
    }
    fn read_journal(&mut self, after: u64, now: i64) -> (Wire, u64, bool) {
        let mut out = BatchWriter::new(self.replica().columns().to_vec());
        let read = self
            .replica()
            .read_journal(after, self.budget(), now as u64, &mut out);
        (self.wire(vec![out.finish()]), read.upto, read.whole)
    }
    fn read_keys(&mut self, keys: &BTreeSet<KeyNumber>, now: i64) -> Wire {
        let keys: Vec<Key> = keys.iter().map(|key| number(*key)).collect();
        let mut out = BatchWriter::new(self.replica().columns().to_vec());
        self.replica().read_keys(&keys, now as u64, &mut out);
        self.wire(vec![out.finish()])
    }
    fn read_lineage(&mut self, lineage: u64, after: u64, now: i64) -> Wire {
        let which = Which::Lineage {
            lineage: Lineage(lineage),
            after,
        };
        self.walk(which, now)
    }
    fn read_all(&mut self, now: i64) -> Wire {
        self.walk(Which::All, now)
    }
    fn highest(&self, lineage: u64) -> u64 {
        self.replica().highest(Lineage(lineage))
    }
    fn apply(&mut self, batch: &Wire, from: u64, sent: i64, acked: u64, now: i64) -> Applied {
        let mut all = Applied::default();
        for columns in &batch.batches {
            let reader = BatchReader::new(columns, &batch.columns).unwrap();
            let shift = (now - sent) as u32;
            let applied = self
                .replica()
                .apply(&reader, Lineage(from), shift, acked, now as u64)
                .unwrap();
            all.wants.extend(applied.wants.iter().map(key_number));
            all.wants_of_all
                .extend(applied.wants_of_all.iter().map(key_number));
            all.unsure.extend(applied.unsure.iter().map(key_number));
            all.offers.extend(applied.offers.iter().map(key_number));
        }
        all
    }
    fn set_alive(&mut self, lineage: u64, alive: bool) {
        let index = self.lineages.index(Lineage(lineage)).unwrap();
        self.lineages.set_alive(index, alive);
    }
    fn set_acked_by_all(&mut self, number: u64, now: i64) {
        self.replica().set_acked_by_all(number, now as u64);
    }
    fn read(&self, key: KeyNumber, now: i64) -> Option<Vec<u64>> {
        let now = now as u64;
        self.table.peek(&number(key), now, |e| {
            PLACES
                .iter()
                .map(|(what, index)| e.get(*what, *index, now).unwrap())
                .collect()
        })
    }
    fn maintain(&mut self, now: i64) {
        self.table.maintain(now as u64, 10_000);
    }
    fn set_budget(&mut self, rows: usize) {
        self.budget = rows;
    }
}
