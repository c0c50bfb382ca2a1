//! One node: plain maps, absolute times, no sharing, no bytes. What happens to it locally; `merge` has the rest.

use super::window::Window;
use std::collections::{BTreeMap, BTreeSet};

/// What the keys count. Positions are the columns of [`Values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Counter,
    Gauge,
    Rate(i64),
}
pub const COLUMNS: [Column; 8] = [
    Column::Gauge,       // conn_cur
    Column::Counter,     // conn_cnt
    Column::Counter,     // http_req_cnt
    Column::Rate(1_000), // http_req_rate
    Column::Counter,     // gpc[0]
    Column::Counter,     // gpc[1]
    Column::Rate(700),   // gpc_rate[0]
    Column::Rate(700),   // gpc_rate[1]
];
pub const REGISTERS: usize = 2; // gpt[0], gpt[1]
/// How long an expired entry is remembered.
pub const GRACE: i64 = 3_000;
/// How long an entry that began blank says so at least after all have heard it.
pub const FRESH_MIN: i64 = 5_000;

pub type Stamp = (u64, u64); // wall ms, lineage
pub type KeyNumber = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Count(u64),
    Rate(Option<Window>),
}
pub type Values = [Value; COLUMNS.len()];

pub fn zero(column: usize) -> Value {
    match COLUMNS[column] {
        Column::Rate(_) => Value::Rate(None),
        _ => Value::Count(0),
    }
}
fn blank() -> Values {
    std::array::from_fn(zero)
}

#[derive(Clone, Debug)]
pub struct Cell {
    pub version: u64,
    pub epoch: Option<Stamp>,
    pub held: bool,
    pub values: Values,
}
impl Cell {
    /// Windows that read 0 for good are as good as none.
    pub fn settle(&mut self, now: i64) {
        for (value, column) in self.values.iter_mut().zip(COLUMNS) {
            if let (Value::Rate(Some(w)), Column::Rate(period)) = (&value, column)
                && now - w.start > 2 * period
            {
                *value = Value::Rate(None);
            }
        }
    }
    pub fn is_zero(&self) -> bool {
        self.values.iter().all(|value| match value {
            Value::Count(n) => *n == 0,
            Value::Rate(window) => window.is_none_or(Window::is_zero),
        })
    }
}

/// `None` is ALL.
pub type Scope = Option<usize>;

#[derive(Clone, Debug)]
pub struct Entry {
    pub own: Cell,
    pub cells: BTreeMap<u64, Cell>,
    pub edicts: BTreeMap<Scope, Stamp>,
    pub registers: [(u32, Option<Stamp>); REGISTERS],
    pub touched: i64,
    pub born: i64,
    pub fresh: bool,
    pub first: u64,
    pub dirty: bool,
    pub uses: u32,
    /// Since when it is a tombstone.
    pub tomb: Option<i64>,
}

/// A node. `size` bounds its visible entries.
#[derive(Clone, Debug)]
pub struct ModelNode {
    pub lineage: u64,
    pub expire: Option<i64>,
    pub size: usize,
    pub entries: BTreeMap<KeyNumber, Entry>,
    pub newest: u64,
    pub journal: BTreeMap<u64, KeyNumber>,
    /// Rows per batch.
    pub budget: usize,
    /// What all have had for a while; and what was reported since then.
    pub acked_by_all: u64,
    pub acked_lately: (u64, i64),
    pub alive: BTreeSet<u64>,
    /// The greatest version met of each lineage.
    pub highest: BTreeMap<u64, u64>,
}

impl Entry {
    pub fn new(born: i64) -> Entry {
        Entry {
            own: Cell {
                version: 0,
                epoch: None,
                held: false,
                values: blank(),
            },
            cells: BTreeMap::new(),
            edicts: BTreeMap::new(),
            registers: Default::default(),
            touched: born,
            born,
            fresh: true,
            first: 0,
            dirty: false,
            uses: 0,
            tomb: None,
        }
    }
    pub fn all(&self) -> Option<Stamp> {
        self.edicts.get(&None).copied()
    }
    pub fn newest_edict(&self) -> Option<Stamp> {
        self.edicts.values().max().copied()
    }
    pub fn newest_stamp(&self) -> u64 {
        let registers = self.registers.iter().filter_map(|r| r.1);
        let stamps = self.edicts.values().copied().chain(registers);
        stamps.map(|s| s.0).max().unwrap_or(0)
    }
    /// Whether the counts of a cell of that epoch are void.
    pub fn voids(&self, column: usize, epoch: Option<Stamp>) -> bool {
        COLUMNS[column] != Column::Gauge
            && (epoch < self.all() || epoch < self.edicts.get(&Some(column)).copied())
    }
    pub fn void(&self, cell: &Cell) -> Cell {
        let mut cell = cell.clone();
        for (column, value) in cell.values.iter_mut().enumerate() {
            if self.voids(column, cell.epoch) {
                *value = zero(column);
            }
        }
        cell
    }
    pub fn is_blank(&self) -> bool {
        self.own.is_zero()
            && self.cells.values().all(Cell::is_zero)
            && self.registers.iter().all(|r| r.1.is_none())
    }
    /// Applies an edict; whether it was news.
    pub fn learn_edict(&mut self, scope: Scope, stamp: Stamp) -> bool {
        if self.all() >= Some(stamp) || self.edicts.get(&scope) >= Some(&stamp) {
            return false;
        }
        self.edicts.insert(scope, stamp);
        let before = self.own.values;
        match scope {
            Some(column) => self.own.values[column] = zero(column),
            None => {
                self.edicts.retain(|s, at| s.is_none() || *at > stamp);
                for (column, kind) in COLUMNS.iter().enumerate() {
                    let newer = self.edicts.contains_key(&Some(column));
                    if !newer && *kind != Column::Gauge {
                        self.own.values[column] = zero(column);
                    }
                }
                for register in &mut self.registers {
                    if register.1 < Some(stamp) {
                        *register = (0, None);
                    }
                }
            }
        }
        self.dirty |= before != self.own.values;
        let voided: BTreeMap<_, _> = self.cells.iter().map(|(l, c)| (*l, self.void(c))).collect();
        self.cells = voided;
        true
    }
}

impl ModelNode {
    pub fn new(lineage: u64, expire: Option<i64>, size: usize) -> ModelNode {
        ModelNode {
            lineage,
            expire,
            size,
            entries: BTreeMap::new(),
            newest: 0,
            journal: BTreeMap::new(),
            budget: 1_000,
            acked_by_all: 0,
            acked_lately: (0, 0),
            alive: BTreeSet::from([lineage]),
            highest: BTreeMap::new(),
        }
    }
    pub fn deadline(&self, date: i64) -> i64 {
        self.expire.map_or(i64::MAX, |expire| date + expire)
    }
    pub fn is_held(&self, entry: &Entry) -> bool {
        let alive = |(lineage, cell): (&u64, &Cell)| cell.held && self.alive.contains(lineage);
        entry.uses > 0 || entry.cells.iter().any(alive)
    }
    /// When it was last touched; what is held is renewed each time its date passes.
    pub fn touched(&self, entry: &Entry, now: i64) -> i64 {
        match self.expire {
            Some(expire) if self.is_held(entry) && now - entry.touched >= expire => {
                now - (now - entry.touched) % expire
            }
            _ => entry.touched,
        }
    }
    pub fn is_expired(&self, entry: &Entry, now: i64) -> bool {
        self.deadline(self.touched(entry, now)) <= now
    }
    pub fn is_visible(&self, entry: &Entry, now: i64) -> bool {
        entry.tomb.is_none() && !self.is_expired(entry, now)
    }
    pub fn tombstone_time(&self) -> i64 {
        self.expire.map_or(3_600_000, |expire| expire.max(60_000))
    }
    /// Drops what is over: expired for longer than the grace, tombstones whose time is up.
    pub fn settle(&mut self, now: i64) {
        let gone: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, e)| match e.tomb {
                Some(since) => now >= since + self.tombstone_time(),
                None => {
                    self.is_expired(e, now)
                        && now >= self.deadline(self.touched(e, now)).saturating_add(GRACE)
                }
            })
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.entries.remove(&key);
        }
        for entry in self.entries.values_mut() {
            entry.own.settle(now);
            entry.cells.values_mut().for_each(|cell| cell.settle(now));
        }
        let held: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, e)| e.uses > 0)
            .map(|(key, e)| (*key, self.touched(e, now)))
            .collect();
        for (key, touched) in held {
            self.entries.get_mut(&key).unwrap().touched = touched;
        }
    }
    /// Makes room for one more entry.
    pub fn make_room(&mut self, now: i64) {
        self.settle(now);
        while self.entries.len() >= self.size {
            let order = |e: &Entry| (e.tomb.is_none(), !self.is_expired(e, now), e.touched);
            let victim = self
                .entries
                .iter()
                .filter(|(_, e)| e.uses == 0)
                .min_by_key(|(_, e)| order(e))
                .map(|(key, _)| *key);
            match victim {
                Some(key) => self.entries.remove(&key),
                None => break,
            };
        }
    }
    /// An entry touched here and now, for changing it.
    pub fn touch(&mut self, key: KeyNumber, now: i64) -> &mut Entry {
        self.settle(now);
        let state = self
            .entries
            .get(&key)
            .map(|e| e.tomb.is_none() && self.is_expired(e, now));
        match state {
            None => {
                self.make_room(now);
                self.entries.insert(key, Entry::new(now));
            }
            Some(true) => drop(self.entries.insert(key, Entry::new(now))),
            Some(false) => {}
        }
        let entry = self.entries.get_mut(&key).unwrap();
        if entry.tomb.take().is_some() {
            entry.born = now;
        }
        entry.touched = now;
        entry.dirty = true;
        entry
    }
    pub fn stamp(&self, key: KeyNumber, wall: u64) -> Stamp {
        let known = self.entries.get(&key).map_or(0, Entry::newest_stamp);
        (wall.max(known + 1), self.lineage)
    }
    /// `clear table`: nothing if unknown or in use here.
    pub fn clear(&mut self, key: KeyNumber, now: i64, wall: u64) {
        self.settle(now);
        let stamp = self.stamp(key, wall);
        let lapsed = |e: &Entry| e.tomb.is_none() && self.is_expired(e, now);
        if self.entries.get(&key).is_none_or(lapsed) {
            return;
        }
        let entry = self.entries.get_mut(&key).unwrap();
        if entry.uses == 0 {
            entry.dirty = true;
            self.learn(key, None, stamp, now);
        }
    }
    /// An edict, and what it does to visibility.
    pub fn learn(&mut self, key: KeyNumber, scope: Scope, stamp: Stamp, now: i64) {
        let mut entry = self.entries.remove(&key).unwrap();
        let news = entry.learn_edict(scope, stamp);
        entry.dirty |= news && stamp.1 == self.lineage;
        if news && scope.is_none() {
            if entry.tomb.is_some() || (!self.is_held(&entry) && entry.is_blank()) {
                entry.tomb = Some(now);
            } else {
                entry.tomb = None;
                entry.dirty = true;
            }
        }
        self.entries.insert(key, entry);
    }

    /// Gives a changed entry a number of its own.
    pub fn number(&mut self, key: KeyNumber) {
        let entry = self.entries.get_mut(&key).unwrap();
        if !entry.dirty {
            return;
        }
        entry.dirty = false;
        self.newest += 1;
        self.journal.remove(&entry.own.version);
        self.journal.insert(self.newest, key);
        let entry = self.entries.get_mut(&key).unwrap();
        entry.own.version = self.newest;
        entry.own.epoch = entry.newest_edict();
        entry.own.held = entry.uses > 0;
        let acked = entry.first <= self.acked_by_all;
        if entry.first == 0 {
            entry.first = self.newest;
        } else if acked {
            entry.fresh = false;
        }
    }
    /// What all others have acked: it counts after a while.
    pub fn note_acked(&mut self, number: u64, now: i64) {
        let (reported, since) = self.acked_lately;
        let reported = reported.min(number);
        self.acked_by_all = self.acked_by_all.min(number);
        self.acked_lately = (reported, since);
        if now >= since + FRESH_MIN {
            self.acked_by_all = self.acked_by_all.max(reported);
            self.acked_lately = (number, now);
        }
    }
    pub fn collect(&mut self, now: i64) {
        self.settle(now);
        for key in self.entries.keys().copied().collect::<Vec<_>>() {
            self.number(key);
        }
    }
    /// What a visible entry reads: columns, then registers.
    pub fn read(&self, key: KeyNumber, now: i64) -> Option<Vec<u64>> {
        let entry = self.entries.get(&key).filter(|e| self.is_visible(e, now))?;
        let cells = entry.cells.iter();
        let cells: Vec<_> = std::iter::once((&self.lineage, &entry.own))
            .chain(cells)
            .collect();
        let mut values: Vec<u64> = (0..COLUMNS.len())
            .map(|column| {
                let rates = cells
                    .iter()
                    .filter_map(|(_, cell)| match cell.values[column] {
                        Value::Rate(window) => window,
                        Value::Count(_) => None,
                    });
                match COLUMNS[column] {
                    Column::Rate(period) => Window::sum(rates, now, period),
                    kind => cells
                        .iter()
                        .filter(|(l, _)| kind != Column::Gauge || self.alive.contains(l))
                        .map(|(_, cell)| match cell.values[column] {
                            Value::Count(n) => n,
                            Value::Rate(_) => 0,
                        })
                        .sum::<u64>()
                        .min(u32::MAX.into()),
                }
            })
            .collect();
        values.extend(entry.registers.iter().map(|r| u64::from(r.0)));
        Some(values)
    }
}
