//! Rows: what nodes tell each other, and how a node reads them out of its state.

use super::node::{Cell, KeyNumber, ModelNode, REGISTERS, Scope, Stamp, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A cell on its way, with all its pusher knows of the key besides cells.
#[derive(Clone)]
pub struct Row {
    pub key: KeyNumber,
    pub lineage: u64,
    /// `None`: nothing is known of that lineage.
    pub cell: Option<Cell>,
    /// If its own cell began blank, and nobody has said yet that it should not have: the first number; else 0.
    pub first: u64,
    pub tomb: bool,
    pub holds_others: bool,
    /// The life of the pusher's entry.
    pub born: i64,
    pub touched: i64,
    pub edicts: BTreeMap<Scope, Stamp>,
    pub registers: [(u32, Option<Stamp>); REGISTERS],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// To be asked of the pusher.
    pub wants: BTreeSet<KeyNumber>,
    /// To be asked of every node.
    pub wants_of_all: BTreeSet<KeyNumber>,
    /// Alive elsewhere before this row made them known here: others may have more.
    pub unsure: BTreeSet<KeyNumber>,
    /// To be told to the pusher.
    pub offers: BTreeSet<KeyNumber>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, lineage) = (self.key, self.lineage);
        write!(
            f,
            "\n      k{key} of {lineage} lives {}-{} ",
            self.born, self.touched
        )?;
        match &self.cell {
            None => write!(f, "no cell")?,
            Some(c) => {
                write!(f, "v{} ", c.version)?;
                if c.held {
                    write!(f, "held ")?;
                }
                for (column, value) in c.values.iter().enumerate() {
                    match value {
                        Value::Count(n) => write!(f, "{n} ")?,
                        Value::Rate(None) => write!(f, "- ")?,
                        Value::Rate(Some(w)) => {
                            write!(f, "{column}:{}+{}@{} ", w.prev, w.cur, w.start)?;
                        }
                    }
                }
                write!(f, "epoch {:?}", c.epoch)?;
            }
        }
        for (is, name) in [(self.tomb, "TOMB"), (self.holds_others, "OTHERS")] {
            if is {
                write!(f, " {name}")?;
            }
        }
        if self.first > 0 {
            write!(f, " from {}", self.first)?;
        }
        if !self.edicts.is_empty() {
            write!(f, " edicts {:?}", self.edicts)?;
        }
        write!(f, " tags {:?}", self.registers)
    }
}

impl ModelNode {
    fn row(&self, key: KeyNumber, lineage: u64, cell: Option<&Cell>, now: i64) -> Row {
        let entry = &self.entries[&key];
        let own = lineage == self.lineage;
        Row {
            key,
            lineage,
            cell: cell.cloned(),
            first: if own && entry.fresh { entry.first } else { 0 },
            tomb: entry.tomb.is_some(),
            holds_others: own && entry.cells.values().any(|c| !c.is_zero()),
            born: entry.born,
            touched: self.touched(entry, now),
            edicts: entry.edicts.clone(),
            registers: entry.registers,
        }
    }
    fn own_row(&mut self, key: KeyNumber, now: i64) -> Row {
        self.number(key);
        self.row(key, self.lineage, Some(&self.entries[&key].own), now)
    }
    /// What was numbered after `after`, oldest first, as far as the budget goes; where to go on from, and whether nothing
    /// up to there is missing. (An entry that changed again has moved to the end: what comes later may be older news.)
    pub fn read_journal(&mut self, after: u64, now: i64) -> (Vec<Row>, u64, bool) {
        self.settle(now);
        let newest = self.newest;
        let numbers: Vec<_> = self
            .journal
            .range(after + 1..)
            .map(|(n, k)| (*n, *k))
            .collect();
        let mut rows = Vec::new();
        for (number, key) in numbers {
            if rows.len() == self.budget {
                return (rows, number - 1, false);
            }
            if number <= newest
                && self
                    .entries
                    .get(&key)
                    .is_some_and(|e| e.own.version == number)
            {
                rows.push(self.own_row(key, now));
            }
        }
        (rows, newest, true)
    }
    /// All that is known of a key.
    pub fn read_key(&mut self, key: KeyNumber, now: i64) -> Vec<Row> {
        self.settle(now);
        let Some(entry) = self.entries.get(&key) else {
            return Vec::new();
        };
        let mut rows = Vec::new();
        if entry.own.version > 0 || entry.dirty {
            rows.push(self.own_row(key, now));
        }
        for (lineage, cell) in &self.entries[&key].cells {
            let mut row = self.row(key, *lineage, Some(cell), now);
            if !rows.is_empty() {
                // Said once per key.
                row.edicts.clear();
                row.registers = Default::default();
            }
            rows.push(row);
        }
        if rows.is_empty() {
            rows.push(self.row(key, self.lineage, None, now));
        }
        rows
    }
    /// What is known of a lineage since a number, with what it decreed.
    pub fn read_lineage(&mut self, lineage: u64, after: u64, now: i64) -> Vec<Row> {
        self.settle(now);
        let mut rows = Vec::new();
        for (key, entry) in &self.entries {
            let stamped = |s: &Stamp| s.1 == lineage;
            let decreed = entry.edicts.values().any(stamped)
                || entry
                    .registers
                    .iter()
                    .any(|r| r.1.as_ref().is_some_and(stamped));
            match entry.cells.get(&lineage) {
                Some(cell) if cell.version > after || decreed => {
                    rows.push(self.row(*key, lineage, Some(cell), now));
                }
                None if decreed => rows.push(self.row(*key, lineage, None, now)),
                _ => {}
            }
        }
        rows
    }
}
