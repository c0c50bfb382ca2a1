//! Where a row belongs: a new entry, a new life of one, or one that lives; and what concerns the entry as a whole.

use super::super::edicts::{NEVER, register_stamp, set_register};
use super::super::state::{ReplicaShard, count, flags};
use super::super::{EXPIRED_GRACE_MS, OFFERS_MAX, Tag, WANTS_MAX};
use super::{Merger, Outcome, Row, ext, push};
use crate::peers::batch::{ColumnKind, RowFlags};
use crate::table::Key;
use crate::table::lineage::Stamp;
use crate::table::schema::{BORN, VERSION, wide};
use crate::table::shard::{Shard, date};
use std::sync::atomic::Ordering::Relaxed;

impl Merger<'_> {
    /// Finds or makes the entry and merges.
    pub(super) fn row(&mut self, row: &Row<'_>) -> Outcome {
        let table = self.table;
        let schema = &table.schema;
        let hash = schema.hash(row.key);
        let number = table.shard_of(hash);
        let Some(home) = table.shards.get(number) else {
            return Outcome::Refused;
        };
        let mut reserved = false;
        loop {
            let mut shard = home.lock();
            let found = shard.find(schema, hash, row.key);
            let found = found.filter(|slot| !self.forget_tombstone(&mut shard, *slot, row));
            if let Some(slot) = found {
                if reserved {
                    table.forget(1);
                }
                return self.known(&mut shard, slot, row);
            }
            if row.is_dead && row.all == NEVER {
                if reserved {
                    table.forget(1);
                }
                self.leave(row);
                return Outcome::Ignored;
            }
            if self.now_ms >= table.next_expiry.load(Relaxed) {
                let swept = shard.drop_expired(schema, self.now_ms, crate::table::SWEEP_PER_INSERT);
                table.forget(swept.removed);
            }
            // Nothing that lives makes room for a tombstone.
            let minor = row.is_dead || row.is(RowFlags::TOMB);
            let room = reserved
                || table.reserve()
                || if minor {
                    shard.reclaim(schema, self.now_ms)
                } else {
                    table.replace(&mut shard, self.now_ms)
                };
            if room {
                return self.enter(&mut shard, hash, row);
            }
            drop(shard);
            if minor {
                count(&self.replica.shared.counts.edicts_dropped);
                return Outcome::Refused;
            }
            if !table.make_room(number, self.now_ms) {
                return Outcome::Refused;
            }
            reserved = true;
        }
    }
    /// The same for a plain row, in its locked shard; `None`: that may need other shards.
    pub(super) fn quick(&mut self, shard: &mut Shard, hash: u64, row: &Row<'_>) -> Option<Outcome> {
        let table = self.table;
        let schema = &table.schema;
        if let Some(slot) = shard.find(schema, hash, row.key) {
            if shard.flags(slot) & flags::TOMB != 0 {
                return None;
            }
            return Some(self.known(shard, slot, row));
        }
        if row.is_dead
            || self.now_ms >= table.next_expiry.load(Relaxed)
            || !(table.reserve() || table.replace(shard, self.now_ms))
        {
            return None;
        }
        Some(self.enter(shard, hash, row))
    }
    /// Makes the entry, for which a place was reserved, and merges.
    fn enter(&mut self, shard: &mut Shard, hash: u64, row: &Row<'_>) -> Outcome {
        let schema = &self.table.schema;
        let Some(slot) = shard.insert(schema, hash, row.key, row.touched, self.now_ms) else {
            self.table.forget(1);
            return Outcome::Refused;
        };
        shard.set_word(slot, BORN, row.born as u32);
        let outcome = self.begun(shard, slot, row);
        self.table.note_added(self.deadline(row.touched));
        outcome
    }
    /// The trackers of an entry have ended where it is gone already.
    pub(super) fn release(&mut self, row: &Row<'_>) -> Outcome {
        let schema = &self.table.schema;
        let hash = schema.hash(row.key);
        let home = self.table.shards.get(self.table.shard_of(hash));
        let Some(mut shard) = home.map(|home| home.lock()) else {
            return Outcome::Ignored;
        };
        let Some(slot) = shard.find(schema, hash, row.key) else {
            return Outcome::Ignored;
        };
        let layout = self.replica.layout;
        if !shard.released(layout, slot, row.lineage, row.head.version) {
            return Outcome::Ignored;
        }
        shard.note(slot);
        self.applied.news += 1;
        if shard.flags(slot) & flags::LENT != 0 && !shard.is_held_elsewhere(slot) {
            shard.take_out(slot, self.now_ms);
            shard.place(schema, slot, self.now_ms);
            let date = self.deadline(shard.touched(slot, self.now_ms));
            self.table.note_added(date);
        }
        Outcome::Merged
    }
    /// When an entry touched then expires.
    pub(super) fn deadline(&self, touched: u64) -> u64 {
        let lifetime = self.table.schema.lifetime;
        lifetime.map_or(u64::MAX, |lifetime| {
            touched.saturating_add(u64::from(lifetime))
        })
    }
    /// Forgets a tombstone whose time is over, or that is old and meets first counts whose lineage does not know of it:
    /// everyone forgets tombstones, at slightly different times, and those counts must not be voided; nor must those of a
    /// life that began when the removed one would have been over.
    fn forget_tombstone(&self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let schema = &self.table.schema;
        if shard.flags(slot) & flags::TOMB == 0 {
            return false;
        }
        let ignorant = row.is(RowFlags::FRESH) && row.lineage != 0 && row.all == NEVER;
        let other_life = || self.deadline(shard.touched(slot, self.now_ms)) <= row.born;
        let forgotten = shard.is_tomb_over(schema, slot, self.now_ms)
            || (ignorant && (shard.is_tomb_old(schema, slot, self.now_ms) || other_life()));
        if forgotten {
            shard.remove(schema, slot, self.now_ms);
            self.table.forget(1);
        }
        forgotten
    }

    /// Merges into an entry that exists, visible or hidden.
    fn known(&mut self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> Outcome {
        let now = self.now_ms;
        let schema = &self.table.schema;
        shard.note(slot);
        let tomb = shard.flags(slot) & flags::TOMB != 0;
        // A touch after the deadline does not mean that the life ended in between: what counts is when the row's began.
        if !tomb && self.deadline(shard.renewed(schema, slot, now)) <= row.born {
            if row.is_dead && row.all == NEVER {
                self.leave(row);
                return Outcome::Ignored;
            }
            let stamped = wide(shard.record(slot), VERSION) > 0;
            shard.new_life(schema, slot, row.touched, now);
            shard.set_word(slot, BORN, row.born as u32);
            if stamped {
                self.mark(shard, slot); // whoever still has the old share hears that it is gone
            }
            let outcome = self.begun(shard, slot, row);
            self.table.note_added(self.deadline(row.touched));
            return outcome;
        }
        let born = date(now, shard.word(slot, BORN));
        if !row.is_held && self.deadline(row.touched) <= born {
            if self.is_news(shard, slot, row) {
                self.leave(row);
            }
            return Outcome::Ignored; // an older life
        }
        // Lives of one key that are that far apart did not begin with the same events: the one here began in ignorance.
        let apart = schema.lifetime.map_or(u64::MAX, |ms| u64::from(ms) / 2);
        if born.saturating_sub(row.born) >= apart {
            push(
                &mut self.applied.wants_of_all,
                row.key,
                WANTS_MAX,
                &mut self.dropped,
            );
            self.speak(shard, slot); // others may have this birth from here
        } else if row.born.saturating_sub(born) >= apart && self.is_news(shard, slot, row) {
            self.speak(shard, slot); // whoever began it there lacks what came before, and others have it from there
        }
        if self.curious
            && row.is(RowFlags::FRESH)
            && row.lineage != 0
            && self.should_offer(shard, slot, row)
        {
            push(
                &mut self.applied.offers,
                row.key,
                OFFERS_MAX,
                &mut self.dropped,
            );
        }
        let was_aside = ReplicaShard::is_aside(shard.record(slot));
        let expired = !tomb && shard.is_expired(schema, slot, now);
        let mut changed = self.edicts(shard, slot, row);
        self.applied.news += usize::from(changed);
        changed |= self.content(shard, slot, row);
        if expired && !shard.is_expired(schema, slot, now) {
            // Who read the journal meanwhile took the own row for dead on arrival; and others may have dropped it.
            self.speak(shard, slot);
        }
        if was_aside && !ReplicaShard::is_aside(shard.record(slot)) {
            self.table
                .note_added(self.deadline(shard.touched(slot, now)));
        }
        if changed {
            Outcome::Merged
        } else {
            Outcome::Ignored
        }
    }
    /// Merges into an entry that this row has just made, or begun again.
    fn begun(&mut self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> Outcome {
        if !self.curious {
        } else if row.is(RowFlags::HOLDS_OTHERS) && !row.is_dead {
            push(
                &mut self.applied.wants,
                row.key,
                WANTS_MAX,
                &mut self.dropped,
            );
        } else if self.now_ms.saturating_sub(row.born) >= u64::from(EXPIRED_GRACE_MS)
            && self.table.schema.lifetime.is_some()
            && !row.is_dead
        {
            push(
                &mut self.applied.unsure,
                row.key,
                WANTS_MAX,
                &mut self.dropped,
            );
        }
        if row.is_plain() && !row.is_dead && shard.flags(slot) & flags::EXT == 0 {
            // Most rows, when a table is learned.
            let added = self.first_cell(shard, slot, row);
            self.applied.news += usize::from(added);
            return Outcome::Merged;
        }
        self.applied.news += usize::from(self.edicts(shard, slot, row));
        if row.is_dead {
            // Only a tombstone is worth keeping.
            if shard.flags(slot) & flags::TOMB == 0 {
                shard.remove(&self.table.schema, slot, self.now_ms);
                self.table.forget(1);
                self.leave(row);
                return Outcome::Ignored;
            }
            return Outcome::Merged;
        }
        self.content(shard, slot, row);
        Outcome::Merged
    }

    /// Notes that a row's cell was not taken, although it may be missed one day.
    pub(super) fn leave(&mut self, row: &Row<'_>) {
        if !row.has_cell() || row.lineage == 0 {
            return;
        }
        let (lineage, version) = (row.head.lineage, row.head.version);
        let untaken = &mut self.applied.untaken;
        match untaken.iter_mut().find(|(known, _)| *known == lineage) {
            Some((_, lowest)) => *lowest = version.min(*lowest),
            None => untaken.push((lineage, version)),
        }
    }
    /// Has an entry told to all, if there is anything to tell: also where nothing was counted here, so that those who do
    /// not know what is held here, or since when, hear of it and ask.
    fn speak(&self, shard: &mut Shard, slot: u32) {
        let (record, Some(replica)) = shard.parts(slot) else {
            return;
        };
        let layout = self.replica.layout;
        let mut cells = replica.chain(record);
        if wide(record, VERSION) > 0 || cells.any(|cell| !layout.is_blank(cell.bytes, self.now_ms))
        {
            replica.mark(record, slot);
        }
    }
    /// Whether the row's cell is newer than what is known of its lineage.
    fn is_news(&self, shard: &Shard, slot: u32, row: &Row<'_>) -> bool {
        let Some(replica) = shard.replica.as_deref() else {
            return false;
        };
        let known = replica.find_cell(shard.record(slot), row.lineage);
        row.lineage != 0
            && row.has_cell()
            && known.is_none_or(|cell| row.head.version > cell.version())
    }

    fn mark(&self, shard: &mut Shard, slot: u32) {
        if let (record, Some(replica)) = shard.parts(slot) {
            replica.mark(record, slot);
        }
    }
    /// Learns the row's edicts; an edict on all decides about visibility, and for the same one visible wins.
    fn edicts(&self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let own = self.replica.shared.lineages.own();
        let schema = &self.table.schema;
        let now = self.now_ms;
        let mut changed = false;
        for edict in &row.edicts {
            let (record, Some(replica)) = shard.parts(slot) else {
                return changed;
            };
            let column = edict.column.map(|column| column as u16);
            if !replica.learn_edict(self.replica.layout, record, slot, column, edict.stamp) {
                continue;
            }
            changed = true;
            count(&replica.shared.counts.edicts_applied);
            if edict.stamp.lineage == own {
                replica.mark(record, slot); // said here and forgotten: say it again
            }
            if column.is_none() && !shard.bury(schema, slot, now) {
                // Something is left: the others must hear of it.
                if shard.flags(slot) & flags::TOMB != 0 {
                    self.reveal(shard, slot, row.born);
                }
                self.mark(shard, slot);
            }
        }
        if !row.is(RowFlags::TOMB)
            && row.all > NEVER
            && shard.flags(slot) & flags::TOMB != 0
            && ext(shard, slot).is_some_and(|ext| ext.all == row.all)
        {
            self.reveal(shard, slot, row.touched);
            changed = true;
        }
        changed
    }
    /// Makes a tombstone a living entry again.
    fn reveal(&self, shard: &mut Shard, slot: u32, born: u64) {
        shard.take_out(slot, self.now_ms);
        shard.set_word(slot, BORN, born as u32);
        shard.place(&self.table.schema, slot, self.now_ms);
    }

    /// Merges dates, registers and the cell. Returns whether anything changed.
    fn content(&mut self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let now = self.now_ms;
        let mut changed = false;
        let touched = shard.refresh_at(&self.table.schema, slot, row.touched, now);
        if row.born < date(now, shard.word(slot, BORN)) {
            shard.set_word(slot, BORN, row.born as u32);
        }
        if !row.registers.is_empty() {
            changed |= self.registers(shard, slot, row);
        }
        if row.has_cell() {
            changed |= if row.lineage == 0 {
                self.adopt(shard, slot, row)
            } else {
                self.cell(shard, slot, row)
            };
        }
        // Held by the lineage of this cell, it lives although its date is over; released by it, it no longer does.
        let schema = &self.table.schema;
        let bits = shard.flags(slot);
        let regained = bits & flags::GRACED != 0 && !shard.is_expired(schema, slot, now);
        let released = bits & flags::LENT != 0 && !shard.is_held_elsewhere(slot);
        if regained || released {
            shard.take_out(slot, now);
            shard.place(schema, slot, now);
        }
        self.applied.news += usize::from(changed);
        changed || touched
    }
    fn registers(&mut self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        if self.table.spec.write_to.is_some() {
            self.tags(row);
        }
        let own = self.replica.shared.lineages.own();
        let all = ext(shard, slot).map_or(NEVER, |ext| ext.all);
        let mut changed = false;
        for (column, value, stamp) in &row.registers {
            let (record, Some(replica)) = shard.parts(slot) else {
                return changed;
            };
            let Some(register) = self.replica.layout.columns.get(*column) else {
                continue;
            };
            if *stamp > register_stamp(record, register) && *stamp > all {
                set_register(record, register, *value, *stamp);
                if stamp.lineage == own {
                    replica.mark(record, slot);
                }
                changed = true;
            }
        }
        changed
    }

    /// For `write-to`: what the row assigns goes to another table too.
    fn tags(&mut self, row: &Row<'_>) {
        let value = |(at, number, _): &(usize, u32, Stamp)| {
            let def = self.replica.layout.defs.get(*at)?;
            let server = match def.kind {
                ColumnKind::ServerKey => Some(self.table.servers.read().name(*number)?),
                _ => None,
            };
            Some(Tag {
                data_type: def.data_type,
                index: def.index,
                number: *number,
                server,
            })
        };
        let tags: Vec<Tag> = row.registers.iter().filter_map(value).collect();
        if !tags.is_empty() {
            self.applied.tags.push((Key::from_stored(row.key), tags));
        }
    }
}
