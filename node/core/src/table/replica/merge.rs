//! Merging batches: for every row the newer version wins, whatever the order of arrival and however often it arrives.
//!
//! Order within a row: is it of this life of the entry? then edicts, visibility, registers, touch, and the cell last.

use smallvec::SmallVec;

use super::cells::{CELL_HELD, CELL_PARTIAL};
use super::edicts::{Ext, NEVER, register_stamp, set_register};
use super::state::{ReplicaShard, count, flags};
use super::{Applied, EXPIRED_GRACE_MS, OFFERS_MAX, Replica, STAMP_AHEAD_MAX_MS, Tag, WANTS_MAX};
use crate::peers::batch::{
    BadBatch, BatchReader, ColumnKind, EdictRow, RowFlags, RowHead, unzigzag,
};
use crate::table::data_type::Kind;
use crate::table::lineage::{Lineage, Stamp};
use crate::table::rate::{Rate, age_ms};
use crate::table::schema::{
    BORN, CELL_DATA, CELL_LINEAGE, CELL_VERSION, Cell, FLAGS, VERSION, rate, set_rate, set_wide,
    set_word, wide, word,
};
use crate::table::shard::{Shard, date};
use crate::table::{Key, Table};
use std::sync::atomic::Ordering::{Relaxed, Release};

/// Versions above are refused: no node stamps that often, and numbers must be able to go on from here.
pub(super) const VERSION_MAX: u64 = 1 << 62;

/// A row as this table understands it.
struct Row<'a> {
    key: &'a [u8],
    head: RowHead,
    /// Index of its lineage.
    lineage: u16,
    /// When the entry was last touched, and when this life of it began, as the sender knows.
    touched: u64,
    born: u64,
    /// Its lineage lives and has trackers, which keep renewing the entry.
    is_held: bool,
    /// The entry's life was over for so long when the row came that not even a grace is left.
    is_dead: bool,
    edicts: SmallVec<[EdictRow; 4]>,
    registers: SmallVec<[(usize, u32, Stamp); 4]>,
    /// What the row says of edicts on all columns.
    all: Stamp,
}

impl Row<'_> {
    fn has_cell(&self) -> bool {
        !self.is(RowFlags::NO_CELL) && self.head.version > 0
    }
    fn is(&self, flag: RowFlags) -> bool {
        self.head.flags.contains(flag)
    }
    /// The newest edict of the row that concerns a column.
    fn edict_on(&self, column: Option<u16>) -> Stamp {
        self.edicts
            .iter()
            .filter(|edict| edict.column.is_none() || edict.column == column.map(usize::from))
            .fold(NEVER, |newest, edict| newest.max(edict.stamp))
    }
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Merged,
    Ignored,
    Refused,
}

/// Merging one batch.
struct Merger<'a> {
    replica: &'a Replica<'a>,
    table: &'a Table,
    now_ms: u64,
    /// Later stamps are absurd.
    stamp_max_ms: u64,
    acked_to_sender: u64,
    /// The sender lacks columns of this table: cells that it relays are incomplete.
    partial: bool,
    /// The row's cell.
    cell: Vec<u8>,
    applied: Applied,
    dropped: u64,
}

pub(super) fn apply(
    replica: &Replica<'_>,
    batch: &BatchReader<'_>,
    from: Lineage,
    shift_ms: u32,
    acked_to_sender: u64,
    now_ms: u64,
) -> Result<Applied, BadBatch> {
    let table: &Table = replica.table;
    batch.check_keys(|key| table.schema.fits(key))?;
    replica.shared.note_time(now_ms);
    let layout = replica.layout;
    // Position here of each of the sender's columns.
    let mapped: Vec<Option<usize>> = batch
        .columns()
        .iter()
        .map(|column| layout.defs.iter().position(|own| own == column))
        .collect();
    let mut merger = Merger {
        replica,
        table,
        now_ms,
        stamp_max_ms: replica
            .shared
            .wall_ms(now_ms)
            .saturating_add(STAMP_AHEAD_MAX_MS),
        acked_to_sender,
        partial: (0..layout.arithmetic).any(|at| !mapped.contains(&Some(at))),
        cell: layout.blank_cell.to_vec(),
        applied: Applied::default(),
        dropped: 0,
    };
    let mut reader = batch.clone();
    let own = replica.shared.lineages.own();
    // Index and highest version of the lineage of the last rows.
    let mut known: Option<(Lineage, Option<u16>, u64)> = None;
    while let Some((key, head, edicts)) = reader.next_row() {
        let index = match known {
            Some((lineage, index, _)) if lineage == head.lineage => index,
            _ => {
                merger.note_highest(known.take());
                let index = if head.lineage == own {
                    Some(0)
                } else {
                    replica.shared.lineages.hold(head.lineage)
                };
                known = Some((head.lineage, index, 0));
                index
            }
        };
        let ago = |age: u32| now_ms.saturating_sub(u64::from(age.saturating_add(shift_ms)));
        let mut row = Row {
            key,
            head,
            lineage: index.unwrap_or(0),
            touched: ago(head.touch_age_ms),
            born: ago(head.born_age_ms.max(head.touch_age_ms)),
            is_held: false,
            is_dead: false,
            edicts: SmallVec::new(),
            registers: SmallVec::new(),
            all: NEVER,
        };
        row.is_held = row.is(RowFlags::HELD) && replica.shared.lineages.is_alive(row.lineage);
        let over = merger.deadline(row.touched);
        row.is_dead = !row.is_held && over.saturating_add(u64::from(EXPIRED_GRACE_MS)) <= now_ms;
        for edict in edicts {
            merger.edict(&mut row, edict, &mapped);
        }
        merger.values(&mut reader, &mut row, &mapped, shift_ms);
        if index.is_none() || head.version > VERSION_MAX {
            merger.outcome(Outcome::Refused);
            continue;
        }
        if merger.partial && head.lineage != from {
            row.head.flags = row.head.flags.with(RowFlags::PARTIAL);
        }
        if let Some((_, _, highest)) = &mut known {
            *highest = (*highest).max(row.head.version);
        }
        let outcome = merger.row(&row);
        merger.outcome(outcome);
    }
    merger.note_highest(known);
    Ok(merger.finish())
}

impl<'a> Merger<'a> {
    fn outcome(&mut self, outcome: Outcome) {
        let counts = &self.replica.shared.counts;
        let (place, counter) = match outcome {
            Outcome::Merged => (&mut self.applied.merged, &counts.rows_merged),
            Outcome::Ignored => (&mut self.applied.ignored, &counts.rows_ignored),
            Outcome::Refused => (&mut self.applied.refused, &counts.rows_refused),
        };
        *place += 1;
        count(counter);
    }
    fn finish(self) -> Applied {
        let counts = &self.replica.shared.counts;
        let wants = self.applied.wants.len() + self.applied.wants_of_all.len();
        counts.wants.fetch_add(wants as u64, Relaxed);
        counts
            .offers
            .fetch_add(self.applied.offers.len() as u64, Relaxed);
        counts.questions_dropped.fetch_add(self.dropped, Relaxed);
        self.applied
    }
    /// After the last row in a row of one lineage: remembers its highest version and gives its index free.
    fn note_highest(&self, known: Option<(Lineage, Option<u16>, u64)>) {
        let Some((lineage, Some(index), version)) = known else {
            return;
        };
        let shared = self.replica.shared;
        if index == 0 {
            // Numbers of this lineage that were given in the past must not be given again.
            let mut journal = shared.journal.lock();
            journal.raise(version);
            shared.newest.store(journal.newest(), Release);
            return;
        }
        shared.lineages.let_go(index);
        let mut highest = shared.highest.lock();
        let known = highest.entry(lineage).or_insert(0);
        *known = (*known).max(version);
    }

    fn is_absurd(&self, stamp: Stamp) -> bool {
        let absurd = stamp.ms > self.stamp_max_ms || stamp <= NEVER;
        if absurd {
            count(&self.replica.shared.counts.stamps_refused);
        }
        absurd
    }
    fn edict(&self, row: &mut Row<'_>, edict: EdictRow, mapped: &[Option<usize>]) {
        let column = match edict.column {
            None => None,
            Some(at) => match mapped.get(at).copied().flatten() {
                Some(column) => Some(column),
                None => return,
            },
        };
        if self.is_absurd(edict.stamp) {
            return;
        }
        if column.is_none() {
            row.all = row.all.max(edict.stamp);
        }
        row.edicts.push(EdictRow {
            column,
            stamp: edict.stamp,
        });
    }
    /// Reads the row's values: what is summed into `cell`, registers into the row.
    fn values(
        &mut self,
        reader: &mut BatchReader<'_>,
        row: &mut Row<'_>,
        mapped: &[Option<usize>],
        shift_ms: u32,
    ) {
        let layout = self.replica.layout;
        self.cell.copy_from_slice(&layout.blank_cell);
        for (column, at) in reader.columns().iter().zip(mapped) {
            let Some((at, cell)) = at.and_then(|at| Some((at, layout.columns.get(at)?))) else {
                reader.skip();
                continue;
            };
            match column.kind {
                ColumnKind::Counter | ColumnKind::Gauge => {
                    let value = reader.counter();
                    if cell.kind == Kind::Counter64 {
                        set_wide(&mut self.cell, cell.remote, value);
                    } else {
                        let value = u32::try_from(value).unwrap_or(u32::MAX);
                        set_word(&mut self.cell, cell.remote, value);
                    }
                }
                ColumnKind::Rate => {
                    if let Some((age, cur, prev)) = reader.rate() {
                        let age = age.saturating_add(shift_ms);
                        let window = window(age, cur, prev, self.now_ms, cell.period);
                        set_rate(&mut self.cell, cell.remote, window);
                    }
                }
                ColumnKind::Register => {
                    if let Some((value, stamp)) = reader.register() {
                        let value = if cell.kind == Kind::ServerId {
                            unzigzag(value) as u32
                        } else {
                            value
                        };
                        if !self.is_absurd(stamp) {
                            row.registers.push((at, value, stamp));
                        }
                    }
                }
                ColumnKind::ServerKey => {
                    let Some((name, stamp)) = reader.text() else {
                        continue;
                    };
                    let number = if name.is_empty() {
                        Some(0)
                    } else {
                        self.table.servers.number(name)
                    };
                    if let Some(number) = number
                        && !self.is_absurd(stamp)
                    {
                        row.registers.push((at, number, stamp));
                    }
                }
            }
        }
    }

    /// Finds or makes the entry and merges.
    fn row(&mut self, row: &Row<'_>) -> Outcome {
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
                let Some(slot) = shard.insert(schema, hash, row.key, row.touched, self.now_ms)
                else {
                    table.forget(1);
                    return Outcome::Refused;
                };
                shard.set_word(slot, BORN, row.born as u32);
                let outcome = self.begun(&mut shard, slot, row);
                table.note_added(self.deadline(row.touched));
                return outcome;
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
    /// When an entry touched then expires.
    fn deadline(&self, touched: u64) -> u64 {
        let lifetime = self.table.schema.lifetime;
        lifetime.map_or(u64::MAX, |lifetime| {
            touched.saturating_add(u64::from(lifetime))
        })
    }
    /// Forgets a tombstone whose time is over, or that is old and meets first counts whose lineage does not know of it:
    /// everyone forgets tombstones, at slightly different times, and those counts must not be voided.
    fn forget_tombstone(&self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let schema = &self.table.schema;
        if shard.flags(slot) & flags::TOMB == 0 {
            return false;
        }
        let ignorant = row.is(RowFlags::FRESH) && row.lineage != 0 && row.all == NEVER;
        let forgotten = shard.is_tomb_over(schema, slot, self.now_ms)
            || (ignorant && shard.is_tomb_old(schema, slot, self.now_ms));
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
            if wide(shard.record(slot), VERSION) > 0 {
                self.mark(shard, slot); // others may have this birth from here
            }
        }
        if row.is(RowFlags::FRESH) && row.lineage != 0 && self.should_offer(shard, slot, row) {
            push(
                &mut self.applied.offers,
                row.key,
                OFFERS_MAX,
                &mut self.dropped,
            );
        }
        let was_aside = ReplicaShard::is_aside(shard.record(slot));
        let mut changed = self.edicts(shard, slot, row);
        self.applied.news += usize::from(changed);
        changed |= self.content(shard, slot, row);
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
        if row.is(RowFlags::HOLDS_OTHERS) && !row.is_dead {
            push(
                &mut self.applied.wants,
                row.key,
                WANTS_MAX,
                &mut self.dropped,
            );
        }
        self.applied.news += usize::from(self.edicts(shard, slot, row));
        if row.is_dead {
            // Only a tombstone is worth keeping.
            if shard.flags(slot) & flags::TOMB == 0 {
                shard.remove(&self.table.schema, slot, self.now_ms);
                self.table.forget(1);
                return Outcome::Ignored;
            }
            return Outcome::Merged;
        }
        self.content(shard, slot, row);
        Outcome::Merged
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

    /// Merges another lineage's cell.
    fn cell(&mut self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let layout = self.replica.layout;
        let now = self.now_ms;
        let epoch = row.head.epoch.unwrap_or(NEVER);
        if let Some(ext) = ext(shard, slot) {
            ReplicaShard::void_by_epoch(ext, layout, &mut self.cell, epoch);
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
        let at = match old.map(|old| old.slot) {
            Some(at) => at,
            None => match replica.add_cell(record, row.lineage) {
                Some(at) => at,
                None => return false,
            },
        };
        let cell = replica.cells.record_mut(at);
        if let (Some(to), Some(from)) = (cell.get_mut(CELL_DATA..), self.cell.get(CELL_DATA..)) {
            to.copy_from_slice(from);
        }
        let held = if row.is(RowFlags::HELD) { CELL_HELD } else { 0 };
        let partial = if partial { CELL_PARTIAL } else { 0 };
        set_word(cell, CELL_LINEAGE, u32::from(row.lineage) | held | partial);
        set_wide(cell, CELL_VERSION, version);
        if epoch > NEVER || word(record, FLAGS) & flags::EXT != 0 {
            set_word(record, FLAGS, word(record, FLAGS) | flags::EXT);
            replica.ext_or_new(slot).set_epoch(row.lineage, epoch);
        }
        true
    }
    /// Whether the sender of a fresh row has lost something that only comes when told.
    fn should_offer(&self, shard: &Shard, slot: u32, row: &Row<'_>) -> bool {
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
            let dead =
                |cell: super::RemoteCell<'_>| !replica.shared.lineages.is_alive(cell.lineage());
            !row.is(RowFlags::HOLDS_OTHERS)
                && ((own > 0 && own <= self.acked_to_sender) || replica.chain(record).any(dead))
        };
        older_share || newer_edict() || newer_register() || lacks_all()
    }

    /// Takes back an own share that was lost here: it is added, for what was counted since is not in it.
    fn adopt(&mut self, shard: &mut Shard, slot: u32, row: &Row<'_>) -> bool {
        let layout = self.replica.layout;
        if let Some(ext) = ext(shard, slot) {
            let epoch = row.head.epoch.unwrap_or(NEVER);
            ReplicaShard::void_by_epoch(ext, layout, &mut self.cell, epoch);
        }
        let (record, Some(replica)) = shard.parts(slot) else {
            return false;
        };
        let version = wide(record, VERSION);
        let bits = word(record, FLAGS);
        if bits & flags::FRESH == 0
            || (version > 0 && row.head.version >= super::journal::first(record, version))
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
            // Which of two windows is the later one cannot be told for sure: ages creep at every relay.
            let idle = |rate: Rate| rate.start & 1 != 0;
            let (new, old) = (rate(cell, at), rate(old, at));
            if idle(new) || (!newer && !idle(old)) {
                set_rate(cell, at, old);
            }
        }
        _ => {
            let most = word(cell, at).max(word(old, at));
            set_word(cell, at, most);
        }
    }
}

fn push(keys: &mut Vec<Key>, key: &[u8], most: usize, dropped: &mut u64) {
    if keys.last().is_some_and(|last| last.as_bytes() == key) {
        return;
    }
    if keys.len() < most {
        keys.push(Key::from_stored(key));
    } else {
        *dropped += 1;
    }
}

fn ext(shard: &Shard, slot: u32) -> Option<&Ext> {
    if shard.flags(slot) & flags::EXT == 0 {
        return None;
    }
    shard.replica.as_ref()?.ext(slot)
}

/// A rate's window from its age here and now.
fn window(age: u32, cur: u32, prev: u32, now_ms: u64, period: u32) -> Rate {
    let window = Rate {
        start: (now_ms as u32).wrapping_sub(age) & !1,
        cur,
        prev,
    };
    // An age of weeks would wrap around.
    if age > period && age - period > period || window.is_over(now_ms as u32, period) {
        Rate::IDLE
    } else {
        window
    }
}

/// Adds an older share of a column to the own cell.
fn add(column: &Cell, record: &mut [u8], old: &[u8], now_ms: u64) {
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
