//! The row's cell: newer versions replace older ones; shares that their owner lost are kept, offered and taken back.

use super::super::EXPIRED_GRACE_MS;
use super::super::cells::{CELL_HELD, CELL_PARTIAL};
use super::super::edicts::{NEVER, register_stamp};
use super::super::state::{ReplicaShard, count, flags};
use super::{Merger, Row, ext};
use crate::peers::batch::RowFlags;
use crate::table::data_type::Kind;
use crate::table::rate::{Rate, age_ms};
use crate::table::schema::{
    BORN, CELL_DATA, CELL_LINEAGE, CELL_VERSION, Cell, FLAGS, VERSION, rate, set_rate, set_wide,
    set_word, wide, word,
};
use crate::table::shard::{Shard, date};

impl Merger<'_> {
    /// The first cell of an entry that has just begun, of a plain row.
    pub(super) fn first_cell(&self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let (record, Some(replica)) = shard.parts(slot) else {
            return false;
        };
        let Some(at) = replica.add_cell(record, row.lineage) else {
            return false;
        };
        write(
            replica.cells.record_mut(at),
            row.cell.unwrap_or(&self.cell),
            row,
            row.is(RowFlags::PARTIAL),
            row.head.version,
        );
        true
    }
    /// Merges another lineage's cell.
    pub(super) fn cell(&mut self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let layout = self.replica.layout;
        let now = self.now_ms;
        if let Some(cell) = row.cell {
            self.cell.copy_from_slice(cell);
        }
        let epoch = row.head.epoch.unwrap_or(NEVER);
        if let Some(ext) = ext(shard, slot) {
            ReplicaShard::void_by_epoch(ext, layout, &mut self.cell, epoch, row.is(RowFlags::HELD));
        }
        let (record, Some(replica)) = shard.parts(slot) else {
            return false;
        };
        let old = replica.find_cell(record, row.lineage);
        let mut partial = row.is(RowFlags::PARTIAL);
        let mut version = row.head.version;
        if let Some(old) = old {
            let kept_for_adoption =
                old.version() < row.head.first && !layout.is_blank(old.bytes, now);
            let newer = row.head.version > old.version();
            partial |= old.is_partial() && !newer;
            let completes = old.is_partial() && row.head.version == old.version();
            if kept_for_adoption {
                count(&replica.shared.counts.rows_kept_back);
                self.leave(row);
                return false;
            }
            if !(newer || old.is_partial()) {
                return false;
            }
            version = version.max(old.version());
            if partial && completes && !row.is(RowFlags::PARTIAL) {
                partial = false;
            } else if partial {
                // Columns that one of the two lacks are those of the other.
                let before = old.bytes.get(CELL_DATA..).unwrap_or_default().to_vec();
                for column in layout.summed() {
                    join(column, &mut self.cell, old.bytes, newer);
                }
                if !newer && self.cell.get(CELL_DATA..) == Some(&before[..]) {
                    return false;
                }
            }
        }
        let rest = replica.shared.lineages.rest(row.lineage);
        let at = match old.map(|old| old.slot) {
            Some(at) => at,
            // It would be forgotten again.
            None if layout.may_go(rest, &self.cell, row.is(RowFlags::HELD), now) => return false,
            None => match replica.add_cell(record, row.lineage) {
                Some(at) => at,
                None => return false,
            },
        };
        write(
            replica.cells.record_mut(at),
            &self.cell,
            row,
            partial,
            version,
        );
        if epoch > NEVER || word(record, FLAGS) & flags::EXT != 0 {
            set_word(record, FLAGS, word(record, FLAGS) | flags::EXT);
            replica.ext_or_new(slot).set_epoch(row.lineage, epoch);
        }
        true
    }
    /// Whether the sender of a fresh row has lost something that only comes when told.
    pub(super) fn should_offer(&self, shard: &Shard, slot: u32, row: &Row<'_>) -> bool {
        let Some(replica) = shard.replica.as_deref() else {
            return false;
        };
        let record = shard.record(slot);
        let held = replica.find_cell(record, row.lineage);
        let known = held.map_or(0, |cell| cell.version());
        if !row.has_cell() || row.head.version <= known {
            return false; // no news: offers are fresh rows themselves, and must not be answered by offers for ever
        }
        let older_share = known < row.head.first
            && held.is_some_and(|cell| !self.replica.layout.is_blank(cell.bytes, self.now_ms));
        let newer_edict = || {
            ext(shard, slot).is_some_and(|ext| {
                ext.all > row.all
                    || ext
                        .columns
                        .iter()
                        .any(|(column, stamp)| *stamp > row.edict_on(Some(*column)))
            })
        };
        let newer_register = || {
            let start = self.replica.layout.arithmetic;
            let registers = self.replica.layout.registers().iter();
            registers.enumerate().any(|(at, register)| {
                let theirs = row
                    .registers
                    .iter()
                    .find(|(column, ..)| *column == start + at);
                let theirs = theirs.map_or(NEVER, |(_, _, stamp)| *stamp);
                register_stamp(record, register) > theirs.max(row.all)
            })
        };
        let lacks_all = || {
            let own = wide(record, VERSION);
            let dead = |cell: super::super::RemoteCell<'_>| {
                !replica.shared.lineages.is_alive(cell.lineage())
            };
            !row.is(RowFlags::HOLDS_OTHERS)
                && ((own > 0 && own <= self.acked_to_sender) || replica.chain(record).any(dead))
        };
        // It was over there, or made room for others, and was begun anew: who counted it before may have nothing of it left
        // to tell, where entries live for different times.
        let begun_late = || {
            let ahead = row
                .born
                .saturating_sub(date(self.now_ms, word(record, BORN)));
            let mut cells = replica.chain(record);
            ahead >= u64::from(EXPIRED_GRACE_MS)
                && cells.any(|cell| {
                    cell.lineage() != row.lineage
                        && !self.replica.layout.is_blank(cell.bytes, self.now_ms)
                })
        };
        older_share || begun_late() || newer_edict() || newer_register() || lacks_all()
    }

    /// Takes back an own share that was lost here: it is added, for what was counted since is not in it.
    pub(super) fn adopt(&mut self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let layout = self.replica.layout;
        if let Some(ext) = ext(shard, slot) {
            let epoch = row.head.epoch.unwrap_or(NEVER);
            ReplicaShard::void_by_epoch(ext, layout, &mut self.cell, epoch, row.is(RowFlags::HELD));
        }
        let (record, Some(replica)) = shard.parts(slot) else {
            return false;
        };
        let version = wide(record, VERSION);
        let bits = word(record, FLAGS);
        if row.head.version == version && bits & flags::DIRTY == 0 {
            // The same state of the cell: what is missing here was in columns that this node had dropped for a while. Those
            // that have changed since then are gone everywhere.
            let mut regained = false;
            for column in layout.summed() {
                regained |= regain(column, record, &self.cell);
            }
            if regained {
                count(&replica.shared.counts.adopted);
            }
            return regained;
        }
        if bits & flags::FRESH == 0
            || (version > 0 && row.head.version >= super::super::journal::first(record, version))
        {
            return false;
        }
        for column in layout.summed() {
            add(column, record, &self.cell, self.now_ms);
        }
        set_word(record, FLAGS, bits & !flags::FRESH);
        count(&replica.shared.counts.adopted);
        replica.mark(record, slot);
        true
    }
}

/// Writes a row, with these values, into a cell.
#[inline]
fn write(cell: &mut [u8], values: &[u8], row: &Row<'_>, partial: bool, version: u64) {
    if let (Some(to), Some(from)) = (cell.get_mut(CELL_DATA..), values.get(CELL_DATA..)) {
        to.copy_from_slice(from);
    }
    let held = if row.is(RowFlags::HELD) { CELL_HELD } else { 0 };
    let partial = if partial { CELL_PARTIAL } else { 0 };
    set_word(cell, CELL_LINEAGE, u32::from(row.lineage) | held | partial);
    set_wide(cell, CELL_VERSION, version);
}

/// Joins a column of two states of a cell of which one at least is partial: what is missing is 0, and counts only grow.
fn join(column: &Cell, cell: &mut [u8], old: &[u8], newer: bool) {
    let at = column.remote;
    match column.kind {
        Kind::Counter64 => {
            let most = wide(cell, at).max(wide(old, at));
            set_wide(cell, at, most);
        }
        Kind::Gauge if newer => {}
        Kind::Gauge => set_word(cell, at, word(old, at)),
        Kind::Rate => {
            let idle = |rate: Rate| rate.start & 1 != 0;
            let (mut new, old) = (rate(cell, at), rate(old, at));
            // Ages creep at every relay: windows that begin at about the same time are the same.
            let ahead = new.start.wrapping_sub(old.start) as i32;
            let slack = (column.period / 2) as i32;
            if idle(new) || (!idle(old) && ahead < -slack) {
                new = old;
            } else if !idle(old) && ahead <= slack {
                new.start = old.start;
                new.cur = new.cur.max(old.cur);
                new.prev = new.prev.max(old.prev);
            }
            set_rate(cell, at, new);
        }
        _ => {
            let most = word(cell, at).max(word(old, at));
            set_word(cell, at, most);
        }
    }
}

/// Adds an older share of a column to the own cell.
pub(in super::super) fn add(column: &Cell, record: &mut [u8], old: &[u8], now_ms: u64) {
    match column.kind {
        Kind::Gauge => {}
        Kind::Counter64 => {
            let sum = wide(record, column.at).saturating_add(wide(old, column.remote));
            set_wide(record, column.at, sum);
        }
        Kind::Rate => {
            let own = rate(record, column.at);
            let sum = joined(own, rate(old, column.remote), now_ms as u32, column.period);
            set_rate(record, column.at, sum);
        }
        _ => {
            let sum = word(record, column.at).saturating_add(word(old, column.remote));
            set_word(record, column.at, sum);
        }
    }
}

/// Takes a column that is blank in the own cell from another state of it. Returns whether there was anything.
fn regain(column: &Cell, record: &mut [u8], old: &[u8]) -> bool {
    match column.kind {
        Kind::Gauge => false,
        Kind::Counter64 => {
            let (own, old) = (wide(record, column.at), wide(old, column.remote));
            let takes = own == 0 && old > 0;
            if takes {
                set_wide(record, column.at, old);
            }
            takes
        }
        Kind::Rate => {
            let is_blank = |rate: Rate| (rate.cur, rate.prev) == (0, 0);
            let (own, old) = (rate(record, column.at), rate(old, column.remote));
            let takes = is_blank(own) && !is_blank(old);
            if takes {
                set_rate(record, column.at, old);
            }
            takes
        }
        _ => {
            let (own, old) = (word(record, column.at), word(old, column.remote));
            let takes = own == 0 && old > 0;
            if takes {
                set_word(record, column.at, old);
            }
            takes
        }
    }
}

/// One window for what was counted in two. Exact when the own one began in the old one's period; else the old one is
/// taken for what it read when the own one began, and fades with it.
fn joined(mut own: Rate, mut old: Rate, now: u32, period: u32) -> Rate {
    if old.is_over(now, period) {
        return own;
    }
    if own.is_over(now, period) {
        return old;
    }
    // Bring both into the present.
    own.add(0, now, period);
    old.add(0, now, period);
    let older = age_ms(now, old.start) >= age_ms(now, own.start);
    if older && own.prev == 0 {
        old.cur = old.cur.saturating_add(own.cur);
        return old;
    }
    let read = u32::try_from(old.read(own.start, period)).unwrap_or(u32::MAX);
    own.prev = own.prev.saturating_add(read);
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_join() {
        let rate = |start, cur, prev| Rate { start, cur, prev };
        for (own, old, expected) in [
            (Rate::IDLE, rate(1_000, 5, 7), rate(1_000, 5, 7)),
            (rate(2_000, 3, 0), Rate::IDLE, rate(2_000, 3, 0)),
            // Began in the old one's period.
            (rate(6_000, 3, 0), rate(1_000, 5, 7), rate(1_000, 8, 7)),
            // In the present the old one's period is over: half of its events were left when the own one began.
            (rate(16_000, 3, 0), rate(1_000, 8, 0), rate(11_000, 3, 8)),
        ] {
            assert_eq!(
                joined(own, old, 18_000.min(own.start + 3_000), 10_000),
                expected
            );
        }
    }
}
