//! Cells of other lineages: chains of fixed-size records in a slab of the shard, and the sums over them.

use smallvec::SmallVec;

use super::state::{ReplicaShard, count, flags};
use crate::table::data_type::Kind;
use crate::table::lineage::Rest;
use crate::table::rate::RateSum;
use crate::table::schema::{
    CELL_LINEAGE, CELL_NEXT, CELL_VERSION, CHAIN, Cell, FLAGS, ReplicaLayout, rate, set_rate,
    set_wide, set_word, wide, word,
};
use crate::table::slab::{NIL, Slab};

/// In a cell: its lineage has live trackers of the key.
pub(super) const CELL_HELD: u32 = 1 << 16;
/// In a cell: it came through a table that lacks some of the columns.
pub(super) const CELL_PARTIAL: u32 = 1 << 17;

/// The cells of an entry.
pub(in crate::table) struct Chain<'a> {
    cells: &'a Slab,
    next: u32,
}

impl<'a> Iterator for Chain<'a> {
    type Item = RemoteCell<'a>;

    #[inline]
    fn next(&mut self) -> Option<RemoteCell<'a>> {
        if self.next == NIL {
            return None;
        }
        let slot = self.next;
        let bytes = self.cells.record(slot);
        self.next = if bytes.is_empty() {
            NIL
        } else {
            word(bytes, CELL_NEXT)
        };
        Some(RemoteCell { slot, bytes })
    }
}

/// What another lineage has counted.
#[derive(Clone, Copy)]
pub(in crate::table) struct RemoteCell<'a> {
    pub slot: u32,
    pub bytes: &'a [u8],
}

impl RemoteCell<'_> {
    #[inline]
    pub fn lineage(&self) -> u16 {
        word(self.bytes, CELL_LINEAGE) as u16
    }
    pub fn is_held(&self) -> bool {
        word(self.bytes, CELL_LINEAGE) & CELL_HELD != 0
    }
    pub fn is_partial(&self) -> bool {
        word(self.bytes, CELL_LINEAGE) & CELL_PARTIAL != 0
    }
    pub fn version(&self) -> u64 {
        wide(self.bytes, CELL_VERSION)
    }
}

/// Whether a column, which begins at `at`, has counted nothing that could still be read.
pub(super) fn is_zero(cell: &Cell, bytes: &[u8], at: usize, now_ms: u64) -> bool {
    match cell.kind {
        Kind::Counter64 => wide(bytes, at) == 0,
        Kind::Rate => rate(bytes, at).is_over(now_ms as u32, cell.period),
        _ => word(bytes, at) == 0,
    }
}

/// Voids a column, which begins at `at`. Returns whether it had counted anything.
pub(super) fn zero(cell: &Cell, bytes: &mut [u8], at: usize) -> bool {
    match cell.kind {
        Kind::Counter64 => {
            let old = wide(bytes, at);
            set_wide(bytes, at, 0);
            old != 0
        }
        Kind::Rate => {
            let old = rate(bytes, at);
            set_rate(bytes, at, crate::table::rate::Rate::IDLE);
            old.start & 1 == 0 && (old.cur, old.prev) != (0, 0)
        }
        _ => {
            let old = word(bytes, at);
            set_word(bytes, at, 0);
            old != 0
        }
    }
}

impl ReplicaLayout {
    /// Whether a cell shows nothing.
    pub(super) fn is_blank(&self, cell: &[u8], now_ms: u64) -> bool {
        self.summed()
            .iter()
            .all(|column| is_zero(column, cell, column.remote, now_ms))
    }
    /// Whether nothing is lost with a cell of which this may be forgotten.
    pub(super) fn may_go(&self, rest: Rest, cell: &[u8], held: bool, now_ms: u64) -> bool {
        match rest {
            Rest::Nothing => false,
            Rest::Blank => !held && self.is_blank(cell, now_ms),
            Rest::Trackers => self
                .summed()
                .iter()
                .filter(|column| column.kind != Kind::Gauge)
                .all(|column| is_zero(column, cell, column.remote, now_ms)),
        }
    }
    /// The same of the own cell, which is part of the record.
    pub(super) fn is_own_blank(&self, record: &[u8], now_ms: u64) -> bool {
        self.summed()
            .iter()
            .all(|column| is_zero(column, record, column.at, now_ms))
    }
}

impl ReplicaShard {
    /// The cells of an entry.
    #[inline]
    pub fn chain(&self, record: &[u8]) -> Chain<'_> {
        Chain {
            cells: &self.cells,
            next: word(record, CHAIN),
        }
    }
    pub fn find_cell(&self, record: &[u8], lineage: u16) -> Option<RemoteCell<'_>> {
        self.chain(record).find(|cell| cell.lineage() == lineage)
    }
    /// Adds a cell that holds anything; `None`: numbers ran out.
    pub fn add_cell(&mut self, record: &mut [u8], lineage: u16) -> Option<u32> {
        let slot = self.cells.take()?;
        let cell = self.cells.record_mut(slot);
        set_word(cell, CELL_NEXT, word(record, CHAIN));
        set_word(cell, CELL_LINEAGE, u32::from(lineage));
        set_word(record, CHAIN, slot);
        self.shared.lineages.hold_index(lineage);
        Some(slot)
    }
    /// Has the cells of an entry replaced by complete rows, be they of the same version.
    pub fn doubt_cells(&mut self, record: &[u8]) {
        let mut next = word(record, CHAIN);
        while next != NIL {
            let cell = self.cells.record_mut(next);
            if cell.is_empty() {
                return;
            }
            next = word(cell, CELL_NEXT);
            set_word(cell, CELL_LINEAGE, word(cell, CELL_LINEAGE) | CELL_PARTIAL);
        }
    }
    /// Forgets all cells of an entry.
    pub fn drop_cells(&mut self, record: &mut [u8]) {
        let mut next = word(record, CHAIN);
        set_word(record, CHAIN, NIL);
        while next != NIL {
            let slot = next;
            let cell = self.cells.record(slot);
            if cell.is_empty() {
                return;
            }
            next = word(cell, CELL_NEXT);
            self.shared.lineages.let_go(word(cell, CELL_LINEAGE) as u16);
            self.cells.give_back(slot);
        }
    }
    /// Forgets the cell of one lineage.
    pub fn drop_cell(&mut self, record: &mut [u8], lineage: u16) {
        let mut before = NIL;
        let mut next = word(record, CHAIN);
        while next != NIL {
            let slot = next;
            let cell = self.cells.record(slot);
            if cell.is_empty() {
                return;
            }
            next = word(cell, CELL_NEXT);
            if word(cell, CELL_LINEAGE) as u16 != lineage {
                before = slot;
                continue;
            }
            if before == NIL {
                set_word(record, CHAIN, next);
            } else {
                set_word(self.cells.record_mut(before), CELL_NEXT, next);
            }
            self.shared.lineages.let_go(lineage);
            self.cells.give_back(slot);
            return;
        }
    }
    /// Forgets cells of lineages that are gone, as far as nothing is read of them any more. Others may do so earlier or
    /// later: a cell that holds nothing reads like none. Returns whether there were any.
    pub fn drop_remains(
        &mut self,
        layout: &ReplicaLayout,
        record: &mut [u8],
        slot: u32,
        now_ms: u64,
    ) -> bool {
        let mut gone: SmallVec<[u16; 4]> = SmallVec::new();
        for cell in self.chain(record) {
            let rest = self.shared.lineages.rest(cell.lineage());
            if layout.may_go(rest, cell.bytes, cell.is_held(), now_ms) {
                gone.push(cell.lineage());
            }
        }
        for lineage in &gone {
            self.drop_cell(record, *lineage);
            count(&self.shared.counts.cells_forgotten);
        }
        if !gone.is_empty()
            && word(record, FLAGS) & flags::EXT != 0
            && let Some(ext) = self.ext_mut(slot)
        {
            // The index may be another lineage's one day.
            ext.epochs.retain(|(of, _)| !gone.contains(of));
        }
        !gone.is_empty()
    }
    /// Whether a living lineage has trackers of this entry.
    pub fn is_held_elsewhere(&self, record: &[u8]) -> bool {
        self.chain(record)
            .any(|cell| cell.is_held() && self.shared.lineages.is_alive(cell.lineage()))
    }
    /// Whether the entry is in one of the lists beside the touch order.
    pub fn is_aside(record: &[u8]) -> bool {
        word(record, FLAGS) & (flags::TOMB | flags::GRACED | flags::LENT) != 0
    }
    /// Whether the entry is a tombstone.
    pub fn is_tomb(record: &[u8]) -> bool {
        word(record, FLAGS) & flags::TOMB != 0
    }

    /// What all lineages have counted, for an entry with cells; counters stop at their width.
    pub fn sum(&self, record: &[u8], cell: Cell, now_ms: u64) -> u64 {
        let now = now_ms as u32;
        let chain = self.chain(record);
        let at = cell.remote;
        match cell.kind {
            Kind::Counter64 => chain.fold(wide(record, cell.at), |sum, other| {
                sum.saturating_add(wide(other.bytes, at))
            }),
            Kind::Gauge => {
                let lineages = &self.shared.lineages;
                let sum = chain
                    .filter(|other| lineages.is_alive(other.lineage()))
                    .fold(u64::from(word(record, cell.at)), |sum, other| {
                        sum + u64::from(word(other.bytes, at))
                    });
                sum.min(u64::from(u32::MAX))
            }
            Kind::Rate => {
                let mut sum = RateSum::default();
                sum.add(rate(record, cell.at), now, cell.period);
                for other in chain {
                    sum.add(rate(other.bytes, at), now, cell.period);
                }
                sum.read(cell.period).saturating_mul(u64::from(cell.factor))
            }
            _ => chain
                .fold(u64::from(word(record, cell.at)), |sum, other| {
                    sum + u64::from(word(other.bytes, at))
                })
                .min(u64::from(u32::MAX)),
        }
    }
    /// Events of the periods in progress of all lineages, for an entry with cells.
    pub fn sum_current(&self, record: &[u8], cell: Cell, now_ms: u64) -> u64 {
        let now = now_ms as u32;
        let own = u64::from(rate(record, cell.at).current(now, cell.period));
        let sum = self.chain(record).fold(own, |sum, other| {
            sum + u64::from(rate(other.bytes, cell.remote).current(now, cell.period))
        });
        sum.saturating_mul(u64::from(cell.factor))
    }
}
