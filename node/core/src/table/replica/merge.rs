//! Merging batches: for every row the newer version wins, whatever the order of arrival and however often it arrives.
//!
//! Order within a row: is it of this life of the entry? then edicts, visibility, registers, touch, and the cell last.

mod cell;
mod entry;
mod plain;

pub(super) use cell::add;

use smallvec::SmallVec;

use super::edicts::{Ext, NEVER};
use super::state::{Shared, count, flags};
use super::{Applied, EXPIRED_GRACE_MS, Replica, STAMP_AHEAD_MAX_MS, held};
use crate::peers::batch::{
    BadBatch, BatchReader, ColumnKind, EdictRow, RowFlags, RowHead, unzigzag,
};
use crate::table::data_type::Kind;
use crate::table::lineage::{LINEAGES_MAX, Lineage, Stamp};
use crate::table::rate::Rate;
use crate::table::schema::{set_rate, set_wide, set_word};
use crate::table::shard::Shard;
use crate::table::{Key, Table};
use std::sync::atomic::Ordering::{Relaxed, Release};

/// Versions above are refused: no node stamps that often, and numbers must be able to go on from here.
pub(super) const VERSION_MAX: u64 = 1 << 62;
/// Numbers of the own lineage further ahead than this are refused: nobody has lost that many, and a lie must not use them
/// up.
const OWN_AHEAD_MAX: u64 = 1 << 40;

/// A row as this table understands it.
struct Row<'a> {
    /// Its cell, if that is not the merger's.
    cell: Option<&'a [u8]>,
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
    /// It says that its lineage has no trackers of this key, and no entry either.
    fn is_release(&self) -> bool {
        self.is(RowFlags::NO_CELL) && self.head.version > 0 && self.lineage != 0
    }
    /// It is another lineage's counts and nothing else.
    fn is_plain(&self) -> bool {
        self.lineage != 0
            && self.has_cell()
            && self.edicts.is_empty()
            && self.registers.is_empty()
            && self.head.epoch.is_none()
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
    /// Keys to ask about or to offer are noted.
    curious: bool,
    /// The sender lacks columns of this table: cells that it relays are incomplete.
    partial: bool,
    /// The row's cell.
    cell: Vec<u8>,
    aside: plain::Aside<'a>,
    applied: Applied,
    dropped: u64,
}

pub(super) fn apply<'a>(
    replica: &'a Replica<'a>,
    batch: &BatchReader<'a>,
    from: Lineage,
    shift_ms: u32,
    acked_to_sender: u64,
    now_ms: u64,
    curious: bool,
) -> Result<Applied, BadBatch> {
    let table: &Table = replica.table;
    match (batch.key_width(), table.schema.exact_width()) {
        (Some(theirs), Some(ours)) if theirs == ours => {}
        _ => batch.check_keys(|key| table.schema.fits(key))?,
    }
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
        curious,
        partial: (0..layout.arithmetic).any(|at| !mapped.contains(&Some(at))),
        cell: layout.blank_cell.to_vec(),
        aside: plain::Aside::for_rows(batch.rows_left(), layout.blank_cell.len()),
        applied: Applied::default(),
        dropped: 0,
    };
    let mut reader = batch.clone();
    let own = replica.shared.lineages.own();
    let mut met = Met::default();
    let mut voided = None;
    while let Some((key, head, edicts)) = reader.next_row() {
        let at = met.position(replica.shared, head.lineage, own);
        let index = met.0.get(at).and_then(|met| met.index);
        let ago = |age: u32| now_ms.saturating_sub(u64::from(age.saturating_add(shift_ms)));
        let mut row = Row {
            cell: None,
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
        if row.is(RowFlags::HELD)
            && head.lineage != from
            && met
                .0
                .get(at)
                .is_some_and(|met| head.version <= met.followed)
            && held::is_over(replica, row.lineage, key)
        {
            // Should it have them after all, a row of its own brings them back.
            let flags = row.head.flags.without(RowFlags::HELD);
            row.head.flags = flags.with(RowFlags::PARTIAL);
        }
        row.is_held = row.is(RowFlags::HELD) && replica.shared.lineages.is_alive(row.lineage);
        let over = merger.deadline(row.touched);
        row.is_dead = !row.is_held && over.saturating_add(u64::from(EXPIRED_GRACE_MS)) <= now_ms;
        if row.head.epoch.is_some_and(|e| e.ms > merger.stamp_max_ms) {
            merger.undate(&mut row);
        }
        let misdated = merger.applied.misdated;
        for edict in edicts {
            merger.edict(&mut row, edict, &mapped);
        }
        if merger.applied.misdated > misdated {
            voided = Some(key);
        }
        // What the sender has of the key was voided by an edict that is refused.
        if voided == Some(key) {
            row.head.flags = row.head.flags.with(RowFlags::PARTIAL);
        }
        merger.values(&mut reader, &mut row, &mapped, shift_ms);
        let most = match index {
            Some(0) => replica.newest().saturating_add(OWN_AHEAD_MAX),
            Some(_) => VERSION_MAX,
            None => 0,
        };
        if index.is_none() || head.version > most {
            merger.outcome(Outcome::Refused);
            continue;
        }
        if merger.partial && head.lineage != from {
            row.head.flags = row.head.flags.with(RowFlags::PARTIAL);
        }
        if let Some(met) = met.0.get_mut(at) {
            met.highest = met.highest.max(row.head.version);
        }
        if row.is_plain() {
            merger.put_aside(&row);
            continue;
        }
        merger.merge_aside();
        let outcome = if row.is_release() {
            merger.release(&row)
        } else {
            merger.row(&row)
        };
        merger.outcome(outcome);
    }
    merger.merge_aside();
    met.finish(replica.shared);
    Ok(merger.finish())
}

/// Lineages of a batch. Their indices are held meanwhile.
#[derive(Default)]
struct Met(SmallVec<[MetLineage; 8]>);

struct MetLineage {
    lineage: Lineage,
    /// Here, if there was a place.
    index: Option<u16>,
    /// The highest version met.
    highest: u64,
    /// How far its own journal was read here.
    followed: u64,
}

impl Met {
    #[inline]
    fn position(&mut self, shared: &Shared, lineage: Lineage, own: Lineage) -> usize {
        let known = self.0.iter().position(|met| met.lineage == lineage);
        known.unwrap_or_else(|| self.meet(shared, lineage, own))
    }
    fn meet(&mut self, shared: &Shared, lineage: Lineage, own: Lineage) -> usize {
        let index = if lineage == own {
            Some(0)
        } else {
            shared.lineages.hold(lineage)
        };
        let followed = shared.followed.lock().get(&lineage).copied();
        self.0.push(MetLineage {
            lineage,
            index,
            highest: 0,
            followed: followed.unwrap_or(0),
        });
        self.0.len() - 1
    }
    fn finish(self, shared: &Shared) {
        let mut highest = shared.highest.lock();
        for met in self.0 {
            let Some(index) = met.index else {
                continue;
            };
            if index == 0 {
                // Numbers of this lineage that were given in the past must not be given again.
                let mut journal = shared.journal.lock();
                journal.raise(met.highest);
                shared.newest.store(journal.newest(), Release);
                continue;
            }
            shared.lineages.let_go(index);
            let known = highest.entry(met.lineage).or_insert(0);
            *known = (*known).max(met.highest);
        }
        if highest.len() > LINEAGES_MAX {
            // Others have got the places of some.
            highest.retain(|lineage, _| shared.lineages.find(*lineage).is_some());
        }
    }
}

impl<'a> Merger<'a> {
    fn outcome(&mut self, outcome: Outcome) {
        let applied = &mut self.applied;
        *match outcome {
            Outcome::Merged => &mut applied.merged,
            Outcome::Ignored => &mut applied.ignored,
            Outcome::Refused => &mut applied.refused,
        } += 1;
    }
    fn finish(self) -> Applied {
        let counts = &self.replica.shared.counts;
        for (counter, rows) in [
            (&counts.rows_merged, self.applied.merged),
            (&counts.rows_ignored, self.applied.ignored),
            (&counts.rows_refused, self.applied.refused),
        ] {
            counter.fetch_add(rows as u64, Relaxed);
        }
        let wants = self.applied.wants.len() + self.applied.wants_of_all.len();
        counts.wants.fetch_add(wants as u64, Relaxed);
        counts
            .offers
            .fetch_add(self.applied.offers.len() as u64, Relaxed);
        counts.questions_dropped.fetch_add(self.dropped, Relaxed);
        self.applied
    }
    fn is_absurd(&mut self, stamp: Stamp) -> bool {
        let absurd = stamp.ms > self.stamp_max_ms || stamp <= NEVER;
        if absurd {
            let shared = self.replica.shared;
            count(&shared.counts.stamps_refused);
            if stamp > NEVER {
                shared.refused_ms.fetch_min(stamp.ms, Relaxed);
                self.applied.misdated += 1;
            }
        }
        absurd
    }
    /// The cell was stamped knowing an edict that is refused: it is taken, but not for good.
    fn undate(&mut self, row: &mut Row<'_>) {
        if let Some(epoch) = row.head.epoch.take() {
            let refused = &self.replica.shared.refused_ms;
            refused.fetch_min(epoch.ms, Relaxed);
            row.head.flags = row.head.flags.with(RowFlags::PARTIAL);
        }
    }
    fn edict(&mut self, row: &mut Row<'_>, edict: EdictRow, mapped: &[Option<usize>]) {
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
                    if let Some(number) = self.table.servers.number_or_none(name)
                        && !self.is_absurd(stamp)
                    {
                        row.registers.push((at, number, stamp));
                    }
                }
            }
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
