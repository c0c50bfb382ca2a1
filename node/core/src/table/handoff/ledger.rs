//! What the process that took over holds on behalf of one that still drains.

use std::collections::BTreeMap;

use super::{Delta, Op};
use crate::table::{DataType, EntryRef, Key, Refused, Table, TableId};

/// Trackers of another process on one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many there are. While there is one, the entry is pinned here.
    pub uses: u32,
    /// What they make of the gauge (`conn_cur`), which is part of this process's own.
    pub gauge: u32,
    pin: Option<EntryRef>,
}

/// All trackers of one draining process.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    shares: BTreeMap<(TableId, Key), Share>,
}

impl Ledger {
    /// Nothing held.
    pub fn new() -> Ledger {
        Ledger::default()
    }
    /// Entries with a share.
    pub fn len(&self) -> usize {
        self.shares.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }
    /// All shares.
    pub fn iter(&self) -> impl Iterator<Item = (TableId, &Key, Share)> {
        self.shares
            .iter()
            .map(|((table, key), share)| (*table, key, *share))
    }
    /// Notes what the other process holds of an entry, before [`Ledger::pin`].
    pub fn set(&mut self, table: TableId, key: &[u8], uses: u32, gauge: u32) {
        if uses == 0 && self.shares.is_empty() {
            return;
        }
        let place = (table, Key::from_stored(key));
        if uses == 0 {
            self.shares.remove(&place);
        } else {
            let pin = None;
            self.shares.insert(place, Share { uses, gauge, pin });
        }
    }
    /// Adds what another thread has noted of other keys.
    pub fn extend(&mut self, other: Ledger) {
        self.shares.extend(other.shares);
    }
    /// Takes out what a third process holds: the other one held it only on its behalf, as one user of the entry.
    pub fn subtract(&mut self, third: &Ledger) {
        for (place, theirs) in &third.shares {
            if theirs.uses == 0 {
                continue;
            }
            if let Some(share) = self.shares.get_mut(place) {
                share.uses = share.uses.saturating_sub(1);
                share.gauge = share.gauge.saturating_sub(theirs.gauge);
                if share.uses == 0 {
                    self.shares.remove(place);
                }
            }
        }
    }
    /// Pins all entries.
    pub fn pin(&mut self, tables: &[Table], now_ms: u64) {
        for ((table, key), share) in &mut self.shares {
            if share.uses > 0
                && share.pin.is_none()
                && let Some(table) = tables.get(usize::from(table.0))
            {
                share.pin = table.pin(key, now_ms);
            }
        }
    }
    /// Adds what the other process has counted. A key that has no form here is left out.
    ///
    /// # Errors
    /// The table is full.
    pub fn apply(
        &mut self,
        tables: &[Table],
        id: TableId,
        key: &Key,
        delta: &Delta,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let Some(table) = tables.get(usize::from(id.0)) else {
            return Ok(());
        };
        if !table.fits(key) {
            return Ok(());
        }
        table.apply_delta(key, delta, now_ms)?;
        let gauge = delta.ops.iter().fold(0, |sum, (what, _, op)| match op {
            Op::Add(n) if *what == DataType::ConnCur => n.saturating_add(sum),
            _ => sum,
        });
        if delta.uses == 0 && gauge == 0 {
            return Ok(());
        }
        let place = (id, key.clone());
        let share = self.shares.entry(place.clone()).or_default();
        share.uses = changed(share.uses, delta.uses);
        share.gauge = changed(share.gauge, gauge);
        if share.uses > 0 {
            if share.pin.is_none() {
                share.pin = table.pin(key, now_ms);
            }
        } else {
            if let Some(pin) = share.pin.take() {
                table.unpin(pin, now_ms);
            }
            if share.gauge == 0 {
                self.shares.remove(&place);
            }
        }
        Ok(())
    }
    /// The other process is gone: so are its trackers.
    pub fn end(&mut self, tables: &[Table], now_ms: u64) {
        for ((id, key), share) in std::mem::take(&mut self.shares) {
            let Some(table) = tables.get(usize::from(id.0)) else {
                continue;
            };
            let gauge = Delta {
                ops: vec![(DataType::ConnCur, 0, Op::Add(-i64::from(share.gauge)))],
                ..Delta::default()
            };
            if share.gauge > 0 && table.peek(&key, now_ms, |_| ()).is_some() {
                // It exists: nothing can be refused.
                let _ = table.apply_delta(&key, &gauge, now_ms);
            }
            if let Some(pin) = share.pin {
                table.unpin(pin, now_ms);
            }
        }
    }
}

fn changed(n: u32, by: i64) -> u32 {
    let n = i64::from(n).saturating_add(by).max(0);
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Table {
    /// Adds what another process has counted for one entry, which is made if it is gone.
    ///
    /// # Errors
    /// The table is full.
    pub fn apply_delta(&self, key: &Key, delta: &Delta, now_ms: u64) -> Result<(), Refused> {
        self.enter(key, now_ms, |shard, at| {
            if delta.touched {
                shard.refresh(&self.schema, at.slot, now_ms);
            }
            let mut entry = self.entry_mut(shard, at);
            for (what, index, op) in &delta.ops {
                let (what, index) = (*what, *index);
                match op {
                    Op::Add(n) if *n >= 0 => {
                        entry.add(what, index, n.unsigned_abs(), now_ms);
                    }
                    Op::Add(n) => {
                        entry.sub(what, index, n.unsigned_abs());
                    }
                    Op::Set(v) => {
                        entry.set(what, index, *v, now_ms);
                    }
                    Op::Name(name) if name.is_empty() => {
                        entry.set(DataType::ServerKey, 0, 0, now_ms);
                    }
                    Op::Name(name) => {
                        entry.set_server_key(name);
                    }
                }
            }
        })
    }
}
