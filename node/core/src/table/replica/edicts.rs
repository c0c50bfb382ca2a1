//! Edicts: assignments that void earlier counts, whatever arrives later.
//!
//! An edict says "what was counted up to here is void", of one column of a key or of all. Each cell has an *epoch*, the
//! newest edict its lineage knew when it was stamped: an edict voids cells of older epochs only. Stored cells are kept in
//! *normal form*, voided columns zeroed at once, so that reading never looks at edicts or epochs. What is left of a key is
//! then a pure function of the newest cells and the newest edicts, whatever the order in which they came.

use smallvec::SmallVec;

use super::cells::{CELL_HELD, zero};
use super::state::{ReplicaShard, count, flags, hash};
use crate::table::data_type::Kind;
use crate::table::lineage::Stamp;
use crate::table::schema::{
    CELL_LINEAGE, CELL_NEXT, CHAIN, Cell, FLAGS, ReplicaLayout, USES, set_wide, set_word, wide,
    word,
};
use crate::table::slab::NIL;

/// No edict: before all stamps.
pub(super) const NEVER: Stamp = Stamp {
    ms: 0,
    lineage: crate::table::lineage::Lineage(0),
};

/// Edicts on one entry and epochs of its cells. Few entries have one.
#[derive(Debug)]
pub(in crate::table) struct Ext {
    pub slot: u32,
    /// Newest edict on all columns.
    pub all: Stamp,
    /// Newer ones on single columns.
    pub columns: SmallVec<[(u16, Stamp); 1]>,
    /// Epoch of the own cell as last stamped.
    pub own_epoch: Stamp,
    /// Of a tombstone: since when it is one (ms modulo 2^32).
    pub since: u32,
    /// Epochs of other cells, by index of lineage.
    pub epochs: SmallVec<[(u16, Stamp); 1]>,
}

impl Ext {
    pub fn new(slot: u32) -> Ext {
        Ext {
            slot,
            all: NEVER,
            columns: SmallVec::new(),
            own_epoch: NEVER,
            since: 0,
            epochs: SmallVec::new(),
        }
    }
    pub fn bytes(&self) -> usize {
        let spilled = |n: usize| if n > 1 { n * 32 } else { 0 };
        size_of::<Ext>() + spilled(self.columns.capacity()) + spilled(self.epochs.capacity())
    }
    /// The newest edict of all.
    pub fn newest(&self) -> Stamp {
        self.columns
            .iter()
            .fold(self.all, |newest, (_, stamp)| newest.max(*stamp))
    }
    /// The newest edict that concerns this column.
    pub fn on(&self, column: u16) -> Stamp {
        self.columns
            .iter()
            .find(|(other, _)| *other == column)
            .map_or(self.all, |(_, stamp)| *stamp)
    }
    pub fn epoch_of(&self, lineage: u16) -> Stamp {
        self.epochs
            .iter()
            .find(|(other, _)| *other == lineage)
            .map_or(NEVER, |(_, epoch)| *epoch)
    }
    pub fn set_epoch(&mut self, lineage: u16, epoch: Stamp) {
        match self.epochs.iter_mut().find(|(other, _)| *other == lineage) {
            Some((_, old)) => *old = epoch,
            None if epoch > NEVER => self.epochs.push((lineage, epoch)),
            None => {}
        }
    }
    /// Learns an edict. Returns whether it voids anything that was not void before.
    fn raise(&mut self, column: Option<u16>, stamp: Stamp) -> bool {
        match column {
            None if stamp > self.all => {
                self.all = stamp;
                self.columns.retain(|(_, on_column)| *on_column > stamp);
                true
            }
            Some(column) if stamp > self.on(column) => {
                self.columns.retain(|(other, _)| *other != column);
                self.columns.push((column, stamp));
                true
            }
            _ => false,
        }
    }
}

/// The stamp of a register; `NEVER`: not assigned.
pub(in crate::table) fn register_stamp(record: &[u8], cell: &Cell) -> Stamp {
    Stamp {
        ms: wide(record, cell.at + 4),
        lineage: crate::table::lineage::Lineage(wide(record, cell.at + 12)),
    }
}

/// Assigns a register.
pub(super) fn set_register(record: &mut [u8], cell: &Cell, value: u32, stamp: Stamp) {
    set_word(record, cell.at, value);
    set_wide(record, cell.at + 4, stamp.ms);
    set_wide(record, cell.at + 12, stamp.lineage.0);
}

impl ReplicaShard {
    /// The newest stamp known for an entry: of any edict or register.
    fn newest_stamp(&self, layout: &ReplicaLayout, record: &[u8], slot: u32) -> Stamp {
        let edicts = if word(record, FLAGS) & flags::EXT != 0 {
            self.ext(slot).map_or(NEVER, Ext::newest)
        } else {
            NEVER
        };
        layout.registers().iter().fold(edicts, |newest, register| {
            newest.max(register_stamp(record, register))
        })
    }
    /// A stamp that is newer than all that is known for the entry.
    pub fn next_stamp(
        &self,
        layout: &ReplicaLayout,
        record: &[u8],
        slot: u32,
        now_ms: u64,
    ) -> Stamp {
        let newest = self.newest_stamp(layout, record, slot);
        if now_ms == 0 {
            self.shared.note_time(self.latest_ms);
        }
        self.shared.new_stamp(newest, now_ms)
    }
    /// Assigns a register here and now.
    pub fn assign_register(
        &mut self,
        layout: &ReplicaLayout,
        record: &mut [u8],
        slot: u32,
        cell: &Cell,
        value: u32,
        now_ms: u64,
    ) {
        let stamp = self.next_stamp(layout, record, slot, now_ms);
        set_register(record, cell, value, stamp);
    }
    /// Issues an edict on a column, or on all, here and now.
    pub fn issue_edict(
        &mut self,
        layout: &ReplicaLayout,
        record: &mut [u8],
        slot: u32,
        column: Option<u16>,
        now_ms: u64,
    ) {
        let stamp = self.next_stamp(layout, record, slot, now_ms);
        self.learn_edict(layout, record, slot, column, stamp);
        count(&self.shared.counts.edicts_issued);
        self.mark(record, slot);
    }

    /// Voids what an edict says, unless it is known. The own cell becomes dirty if that took something from it. Returns
    /// whether the edict was news.
    pub fn learn_edict(
        &mut self,
        layout: &ReplicaLayout,
        record: &mut [u8],
        slot: u32,
        column: Option<u16>,
        stamp: Stamp,
    ) -> bool {
        if !self.ext_or_new(slot).raise(column, stamp) {
            set_word(record, FLAGS, word(record, FLAGS) | flags::EXT);
            return false;
        }
        set_word(record, FLAGS, word(record, FLAGS) | flags::EXT);
        let Some(ext) = self.exts.find(hash(slot), |ext| ext.slot == slot) else {
            return false;
        };
        // After the edict was learned, it is the newest one exactly on the columns that it voids. Trackers are never voided; where
        // there are none, a gauge was assigned by somebody.
        let voided = |cell: &&Cell, is_held: bool| {
            (cell.kind != Kind::Gauge || (column.is_none() && !is_held))
                && column.is_none_or(|column| column == cell.number)
                && ext.on(cell.number) == stamp
        };
        let mut lost = false;
        let is_held = word(record, USES) > 0;
        for cell in layout.summed().iter().filter(|c| voided(c, is_held)) {
            lost |= zero(cell, record, cell.at);
        }
        let mut next = word(record, CHAIN);
        while next != NIL {
            let other = self.cells.record_mut(next);
            if other.is_empty() {
                break;
            }
            next = word(other, CELL_NEXT);
            let head = word(other, CELL_LINEAGE);
            if ext.epoch_of(head as u16) < stamp {
                let is_held = head & CELL_HELD != 0;
                for cell in layout.summed().iter().filter(|c| voided(c, is_held)) {
                    zero(cell, other, cell.remote);
                }
            }
        }
        if column.is_none() {
            for register in layout.registers() {
                if register_stamp(record, register) < stamp {
                    set_register(record, register, 0, NEVER);
                }
            }
        }
        if lost {
            self.mark(record, slot);
        }
        true
    }

    /// Voids the columns of a cell just received on which a newer edict than its epoch is known. `is_held`: it has trackers.
    pub fn void_by_epoch(
        ext: &Ext,
        layout: &ReplicaLayout,
        cell: &mut [u8],
        epoch: Stamp,
        is_held: bool,
    ) {
        if ext.newest() <= epoch {
            return;
        }
        for column in layout.summed() {
            let may_be = column.kind != Kind::Gauge || !is_held;
            if may_be && ext.on(column.number) > epoch {
                zero(column, cell, column.remote);
            }
        }
    }

    /// Whether an edict on all columns has left nothing: then the entry is gone unless someone holds it.
    pub fn nothing_left(&self, layout: &ReplicaLayout, record: &[u8], now_ms: u64) -> bool {
        layout.is_own_blank(record, now_ms)
            && self
                .chain(record)
                .all(|cell| layout.is_blank(cell.bytes, now_ms))
            && layout
                .registers()
                .iter()
                .all(|register| register_stamp(record, register) == NEVER)
    }
}
