//! Reading and changing one entry while its shard is locked.

use std::sync::Arc;

use super::data_type::{DataType, Kind};
use super::handoff::{Follow, Op};
use super::key::{Key, key_sample, write_key};
use super::rate::{Rate, age_ms};
use super::replica::ReplicaShard;
use super::schema::{
    CHAIN, Cell, PREV, TOUCHED, USES, rate, set_rate, set_wide, set_word, wide, word,
};
use super::slab::NIL;
use super::{EntryRef, Table, shard};
use crate::rule::sample::Sample;

/// Read access to one entry while its shard is locked: the closure that gets it must be short and must not use tables.
#[derive(Clone, Copy)]
pub struct Entry<'t> {
    pub(super) table: &'t Table,
    pub(super) record: &'t [u8],
    pub(super) at: EntryRef,
    /// Of a replicated table.
    pub(super) replica: Option<&'t ReplicaShard>,
}

/// Write access to one entry while its shard is locked: the closure that gets it must be short and must not use tables.
pub struct EntryMut<'t> {
    pub(super) table: &'t Table,
    pub(super) record: &'t mut [u8],
    pub(super) at: EntryRef,
    /// Of a replicated table.
    pub(super) replica: Option<&'t mut ReplicaShard>,
    /// While another process takes over.
    pub(super) follow: Option<&'t mut Follow>,
}

impl<'t> Entry<'t> {
    /// A value: counters as they are, rates computed at `now_ms`, byte rates times the factor, `server_id` sign-extended,
    /// `server_key` as its number in the dictionary (0 = none). Of a replicated table, the sum over all nodes. `None`: not
    /// stored.
    pub fn get(&self, what: DataType, index: u16, now_ms: u64) -> Option<u64> {
        self.table
            .schema
            .cell(what, index)
            .map(|cell| self.value(cell, now_ms))
    }
    /// [`Entry::get`] for those who must name a type as declared: `gpc0` is not `gpc[0]` on the CLI.
    pub fn get_exact(&self, what: DataType, index: u16, now_ms: u64) -> Option<u64> {
        self.table
            .schema
            .cell_exact(what, index)
            .map(|cell| self.value(cell, now_ms))
    }
    fn value(&self, cell: Cell, now_ms: u64) -> u64 {
        match self.replica {
            Some(replica) if word(self.record, CHAIN) != NIL && cell.kind.is_arithmetic() => {
                replica.sum(self.record, cell, now_ms)
            }
            _ => own_value(self.record, cell.at, cell, now_ms),
        }
    }
    /// A byte counter in KiB, rounded down (`kbytes_in`, `kbytes_out`). `None`: not stored.
    pub fn kbytes(&self, what: DataType) -> Option<u64> {
        self.get(what, 0, 0).map(|bytes| bytes / 1024)
    }
    /// The three words of a rate as counted here, for tests. `None`: not a stored rate.
    pub fn window(&self, what: DataType, index: u16) -> Option<Rate> {
        let cell = self.table.schema.cell(what, index)?;
        (cell.kind == Kind::Rate).then(|| rate(self.record, cell.at))
    }
    /// Name or address of the sticky server. `None`: not stored, or none set.
    pub fn server_key(&self) -> Option<Arc<[u8]>> {
        let number = self.get(DataType::ServerKey, 0, 0)?;
        self.table.servers.read().name(u32::try_from(number).ok()?)
    }
    /// The key in stored form (text without padding).
    pub fn key(&self) -> &'t [u8] {
        self.table.schema.key(self.record)
    }
    /// The key, to keep.
    pub fn to_key(&self) -> Key {
        Key::from_stored(self.key())
    }
    /// The key as a sample of the table's type.
    pub fn key_sample(&self) -> Sample<'t> {
        key_sample(self.key(), self.table.spec.key_type)
    }
    /// Appends the key as `show table` prints it.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        write_key(self.key(), self.table.spec.key_type, out);
    }
    /// Current trackers and other holders.
    pub fn uses(&self) -> u32 {
        word(self.record, USES)
    }
    /// Milliseconds until it expires; 0 when the table has no `expire`.
    pub fn expires_in_ms(&self, now_ms: u64) -> u32 {
        let Some(lifetime) = self.table.schema.lifetime else {
            return 0;
        };
        let age = self.age_ms(now_ms);
        if self.uses() > 0 || (age >= lifetime && self.is_held_elsewhere()) {
            lifetime - age % lifetime
        } else {
            lifetime.saturating_sub(age)
        }
    }
    /// Milliseconds since its lifetime was last restarted (lifetime - time left; without `expire`, since the last
    /// refresh).
    pub fn idle_ms(&self, now_ms: u64) -> u32 {
        match self.table.schema.lifetime {
            Some(lifetime) => lifetime - self.expires_in_ms(now_ms),
            None => self.age_ms(now_ms),
        }
    }
    fn is_held_elsewhere(&self) -> bool {
        self.replica
            .is_some_and(|replica| replica.is_held_elsewhere(self.record))
    }
    fn age_ms(&self, now_ms: u64) -> u32 {
        age_ms(now_ms as u32, word(self.record, TOUCHED))
    }
    /// What dumps show as a pointer; finds the entry again as long as it lives ([`Table::entry_by_ptr`]).
    pub fn ptr(&self) -> u64 {
        ((u64::from(self.at.shard) + 1) << 32) | u64::from(self.at.slot)
    }
    /// Number of its shard.
    pub fn shard(&self) -> u16 {
        self.at.shard
    }
}

/// A value as one node counted it, from words that begin at `at`.
pub(super) fn own_value(bytes: &[u8], at: usize, cell: Cell, now_ms: u64) -> u64 {
    match cell.kind {
        Kind::Counter32 | Kind::Gauge | Kind::Tag | Kind::ServerKey => u64::from(word(bytes, at)),
        Kind::ServerId => i64::from(word(bytes, at) as i32) as u64,
        Kind::Counter64 => wide(bytes, at),
        Kind::Rate => rate(bytes, at).read(now_ms as u32, cell.period) * u64::from(cell.factor),
    }
}

impl EntryMut<'_> {
    /// To be called after every change.
    #[inline]
    fn changed(&mut self) {
        if let Some(replica) = &mut self.replica {
            replica.mark(self.record, self.at.slot);
        }
    }
    /// Tells the process that has taken over.
    #[inline]
    fn tell(&mut self, what: DataType, index: u16, op: impl FnOnce() -> Op) {
        if let Some(follow) = &mut self.follow {
            follow.op(&self.table.schema, self.record, (what, index), op);
        }
    }
    /// Adds `n` events to a counter, a gauge, a tag or a rate (bytes: divided by the factor, rounded up); what is
    /// stored stops at its maximum. Nothing if not stored. Returns whether it was stored.
    pub fn add(&mut self, what: DataType, index: u16, n: u64, now_ms: u64) -> bool {
        self.add_cell(what, index, n, now_ms).is_some()
    }
    fn add_cell(&mut self, what: DataType, index: u16, n: u64, now_ms: u64) -> Option<u64> {
        let cell = self.table.schema.cell(what, index)?;
        let at = cell.at;
        if !matches!(cell.kind, Kind::Tag | Kind::ServerId | Kind::ServerKey) {
            self.tell(what, index, || {
                Op::Add(i64::try_from(n).unwrap_or(i64::MAX))
            });
        }
        let own = match cell.kind {
            Kind::Tag | Kind::ServerId | Kind::ServerKey => {
                let new = word(self.record, at).saturating_add(saturate(n));
                self.assign((what, index), cell, u64::from(new), now_ms);
                return Some(u64::from(new));
            }
            Kind::Counter32 | Kind::Gauge => {
                let new = word(self.record, at).saturating_add(saturate(n));
                set_word(self.record, at, new);
                u64::from(new)
            }
            Kind::Counter64 => {
                let new = wide(self.record, at).saturating_add(n);
                set_wide(self.record, at, new);
                new
            }
            Kind::Rate => {
                let mut rate = rate(self.record, at);
                rate.add(
                    saturate(n.div_ceil(u64::from(cell.factor))),
                    now_ms as u32,
                    cell.period,
                );
                set_rate(self.record, at, rate);
                u64::from(rate.cur) * u64::from(cell.factor)
            }
        };
        let Some(replica) = &mut self.replica else {
            return Some(own);
        };
        replica.mark(self.record, self.at.slot);
        if word(self.record, CHAIN) == NIL {
            return Some(own);
        }
        Some(if cell.kind == Kind::Rate {
            replica.sum_current(self.record, cell, now_ms)
        } else {
            replica.sum(self.record, cell, now_ms)
        })
    }
    /// Subtracts from a gauge or counter, not below 0; of a replicated table, from what this node counted. Returns whether
    /// it was stored.
    pub fn sub(&mut self, what: DataType, index: u16, n: u64) -> bool {
        let Some(cell) = self.table.schema.cell(what, index) else {
            return false;
        };
        match cell.kind {
            Kind::Rate => return false,
            Kind::Tag | Kind::ServerId | Kind::ServerKey => {
                let new = word(self.record, cell.at).saturating_sub(saturate(n));
                self.assign((what, index), cell, u64::from(new), 0);
            }
            Kind::Counter64 => {
                let old = wide(self.record, cell.at);
                let new = old.saturating_sub(n);
                self.tell(what, index, || {
                    Op::Add(i64::try_from(old - new).map_or(i64::MIN, |less| -less))
                });
                set_wide(self.record, cell.at, new);
            }
            _ => {
                let old = word(self.record, cell.at);
                let new = old.saturating_sub(saturate(n));
                self.tell(what, index, || Op::Add(-i64::from(old - new)));
                set_word(self.record, cell.at, new);
            }
        }
        self.changed();
        true
    }
    /// Counts `n` events on a counter *and* on the rate of the same events (`gpc0` and `gpc0_rate`, `http_req_cnt` and
    /// `http_req_rate`, …), whichever are stored. Returns the new counter; if only the rate is stored, the events of
    /// its current period; `None` if neither is.
    pub fn inc(&mut self, counter: DataType, index: u16, n: u64, now_ms: u64) -> Option<u64> {
        let rate = counter
            .info()
            .rate
            .and_then(|rate| self.add_cell(rate, index, n, now_ms));
        self.add_cell(counter, index, n, now_ms).or(rate)
    }
    /// Sets a counter to 0, on all nodes, and returns what it was; its rate stays. `None`: not stored.
    pub fn clr(&mut self, counter: DataType, index: u16) -> Option<u64> {
        let old = self.entry().get(counter, index, 0)?;
        if old > 0 {
            self.set(counter, index, 0, 0);
        }
        Some(old)
    }
    /// Assigns, cut to the width stored (a rate: current = v, previous = 0, the period starts now). Of a replicated table,
    /// this voids what all nodes have counted so far; a gauge is assigned here only. Returns whether it was stored.
    pub fn set(&mut self, what: DataType, index: u16, v: u64, now_ms: u64) -> bool {
        self.table
            .schema
            .cell(what, index)
            .map(|cell| self.assign((what, index), cell, v, now_ms))
            .is_some()
    }
    /// [`EntryMut::set`] for those who must name a type as declared: `gpc0` is not `gpc[0]` on the CLI.
    pub fn set_exact(&mut self, what: DataType, index: u16, v: u64, now_ms: u64) -> bool {
        self.table
            .schema
            .cell_exact(what, index)
            .map(|cell| self.assign((what, index), cell, v, now_ms))
            .is_some()
    }
    fn assign(&mut self, (what, index): (DataType, u16), cell: Cell, v: u64, now_ms: u64) {
        if self.follow.is_some() {
            let table = self.table;
            self.tell(what, index, || match cell.kind {
                Kind::ServerKey => {
                    let name = u32::try_from(v).ok();
                    let name = name.and_then(|number| table.servers.read().name(number));
                    Op::Name(name.unwrap_or_default())
                }
                _ => Op::Set(v),
            });
        }
        if let Some(layout) = &self.table.schema.replica
            && let Some(replica) = &mut self.replica
        {
            let slot = self.at.slot;
            if !cell.kind.is_arithmetic() {
                replica.assign_register(layout, self.record, slot, &cell, v as u32, now_ms);
            } else if cell.kind != Kind::Gauge {
                replica.issue_edict(layout, self.record, slot, Some(cell.number), now_ms);
            }
            replica.mark(self.record, slot);
        }
        match cell.kind {
            Kind::Counter64 => set_wide(self.record, cell.at, v),
            Kind::Rate => {
                let words = v.div_ceil(u64::from(cell.factor)) as u32;
                set_rate(self.record, cell.at, Rate::starting(now_ms as u32, words));
            }
            _ => set_word(self.record, cell.at, v as u32),
        }
    }
    /// Remembers the sticky server's name or address. Returns whether it was stored: not if the table does not, or if
    /// the table's dictionary is full.
    pub fn set_server_key(&mut self, name: &[u8]) -> bool {
        let Some(cell) = self.table.schema.cell(DataType::ServerKey, 0) else {
            return false;
        };
        let Some(number) = self.table.servers.number(name) else {
            return false;
        };
        self.assign((DataType::ServerKey, 0), cell, u64::from(number), 0);
        true
    }
    /// Restarts the lifetime. What [`Table::upsert`] gives has just been refreshed: there it does nothing.
    pub fn touch(&mut self, now_ms: u64) {
        if word(self.record, PREV) == shard::HELD {
            if let Some(follow) = &mut self.follow {
                follow.touch(&self.table.schema, self.record, self.at.slot);
            }
            shard::touch(self.record, now_ms);
            self.changed();
        }
    }
    /// Read side.
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            table: self.table,
            record: self.record,
            at: self.at,
            replica: self.replica.as_deref(),
        }
    }
}

fn saturate(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
