//! Building a table from what the process before shows.

mod room;
mod row;
mod settle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::{Mutex, MutexGuard};

use super::{Definition, Slice};
use crate::peers::batch::{
    BadBatch, BatchReader, ColumnDef, ColumnKind, EdictRow, RowFlags, RowHead,
};
use crate::table::replica::Late;
use crate::table::schema::{Cell, PREV, TOUCHED, USES, word};
use crate::table::shard::{HELD, Shard};
use crate::table::{Lineage, Lineages, Table};
use room::Room;

/// Fills a table that nobody uses yet.
pub struct Importer<'t> {
    table: &'t Table,
    columns: Vec<ColumnDef>,
    /// Where each of the sender's columns is here.
    targets: Vec<Option<Cell>>,
    /// Whose rows are the sender's own.
    own: Option<Lineage>,
    /// While there is room, new entries are put into their order at the end.
    sorted: bool,
    /// The journal has been built; what came since.
    late: Option<Late>,
    /// A cell of another lineage.
    cell: Vec<u8>,
    /// Rows that had no place.
    refused: u64,
    /// See [`Importer::shrinks`].
    shrinks: Option<Shrinks>,
    /// See [`Importer::too_long`].
    too_long: u64,
    /// All has been shown once.
    shown: bool,
    /// No number of the sender's lineage was given to content above this one.
    newest: Option<u64>,
    /// Entries had to go to make room for others. Of all [forks](Importer::fork).
    evicted: Arc<AtomicBool>,
    /// Held by the fork that makes room.
    turn: Arc<Mutex<()>>,
    /// Whose cells come.
    others: Others<'t>,
    /// The sender does not replicate its table, but its rows hold all that was told of it before.
    whole: bool,
    /// The highest number of each lineage, if they will not be told otherwise.
    highest: Option<BTreeMap<Lineage, u64>>,
    /// This table has columns that the sender's has not; among them some that are summed.
    gained: bool,
    gained_sums: bool,
}

/// A part of what [`Importer::settle`] does.
#[derive(Debug)]
pub struct Settled(Late);

/// The place of the other lineage whose cell came last: mostly it is that of the next one, too.
struct Others<'t> {
    lineages: Option<&'t Lineages>,
    last: Option<(Lineage, u16)>,
}

impl Others<'_> {
    /// `None`: there is no place for it.
    fn index(&mut self, lineage: Lineage) -> Option<u16> {
        if let Some((last, index)) = self.last
            && last == lineage
        {
            return Some(index);
        }
        let lineages = self.lineages?;
        let index = lineages.hold(lineage)?;
        if let Some((_, before)) = self.last.replace((lineage, index)) {
            lineages.let_go(before);
        }
        Some(index)
    }
}

impl Drop for Others<'_> {
    fn drop(&mut self) {
        if let (Some((_, index)), Some(lineages)) = (self.last, self.lineages) {
            lineages.let_go(index);
        }
    }
}

/// Shard and slot of an entry.
type Place = (usize, u32);

/// The sender's table has room for more entries than this one.
#[derive(Default)]
struct Shrinks {
    /// Entries that had to go.
    dropped: u64,
    /// Of each shard that is sorted, a date: no entry that nobody holds was touched before it.
    oldest: Vec<u64>,
    /// Entries that the sender holds: marked as held until all is sealed, so that they stay.
    held: Vec<Place>,
}

/// The shard whose entries come: as long as they follow each other, it is locked once for all of them.
struct Open<'t> {
    table: &'t Table,
    shard: Option<(usize, MutexGuard<'t, Shard>)>,
}

impl Open<'_> {
    fn at(&mut self, home: usize) -> Option<&mut Shard> {
        if self.shard.as_ref().is_none_or(|(known, _)| *known != home) {
            // Never two at a time.
            self.shard = None;
            self.shard = Some((home, self.table.shards.get(home)?.lock()));
        }
        self.shard.as_mut().map(|(_, shard)| &mut **shard)
    }
    fn close(&mut self) {
        self.shard = None;
    }
}

/// A row that is being read.
struct Row<'a> {
    key: &'a [u8],
    head: RowHead,
    edicts: Vec<EdictRow>,
}

impl<'t> Importer<'t> {
    /// For tables of this definition.
    ///
    /// # Errors
    /// Their keys are different (`TableSpec::differs`).
    pub fn new(table: &'t Table, sender: Definition) -> Result<Importer<'t>, String> {
        let spec = &table.spec;
        if let Some(how) = spec.differs(sender.key_type, sender.key_len) {
            return Err(how);
        }
        let own = crate::peers::batch::columns_of(&spec.store);
        let targets: Vec<Option<Cell>> = sender
            .columns
            .iter()
            .map(|column| {
                let at = own.iter().position(|here| here == column)?;
                let cell = *table.schema.columns().get(at)?;
                let same_unit = cell.factor == 1 || sender.brates_factor == spec.brates_factor;
                same_unit.then_some(cell)
            })
            .collect();
        let gained = |cell: &Cell| {
            let mut known = targets.iter().flatten();
            !known.any(|target| target.number == cell.number)
        };
        let columns = own.iter().zip(table.schema.columns());
        let gained: Vec<ColumnKind> = columns
            .filter(|(_, cell)| gained(cell))
            .map(|(column, _)| column.kind)
            .collect();
        let sums = |kind: &ColumnKind| {
            use ColumnKind::{Counter, Gauge, Rate};
            matches!(kind, Counter | Gauge | Rate)
        };
        let layout = table.schema.replica.as_ref();
        Ok(Importer {
            cell: layout.map_or_else(Vec::new, |layout| layout.blank_cell.to_vec()),
            table,
            columns: sender.columns,
            targets,
            own: sender.lineage,
            sorted: false,
            late: None,
            refused: 0,
            shrinks: None,
            too_long: 0,
            shown: false,
            newest: None,
            evicted: Arc::default(),
            turn: Arc::default(),
            others: Others {
                lineages: table.shared.as_deref().map(|shared| &*shared.lineages),
                last: None,
            },
            whole: false,
            highest: None,
            gained: !gained.is_empty(),
            gained_sums: gained.iter().any(sums),
        })
    }
    /// Whether several threads may take slices at the same time: not if the table [shrinks](Importer::shrinks).
    pub fn is_divisible(&self) -> bool {
        self.shrinks.is_none() && self.highest.is_none()
    }
    /// Another one for the same table, to be used at the same time. All slices of one [stripe](Slice::stripe) must be given to the
    /// same one, and [`Importer::join`] comes before [`Importer::settle`]. `None`: it [is not divisible](Importer::is_divisible).
    pub fn fork(&self) -> Option<Importer<'t>> {
        self.is_divisible().then(|| Importer {
            table: self.table,
            columns: self.columns.clone(),
            targets: self.targets.clone(),
            own: self.own,
            sorted: self.sorted,
            late: None,
            cell: self.cell.clone(),
            refused: 0,
            shrinks: None,
            too_long: 0,
            shown: false,
            newest: self.newest,
            evicted: Arc::clone(&self.evicted),
            turn: Arc::clone(&self.turn),
            others: Others {
                lineages: self.others.lineages,
                last: None,
            },
            whole: self.whole,
            highest: None,
            gained: self.gained,
            gained_sums: self.gained_sums,
        })
    }
    /// The other one will not be used any more.
    pub fn join(&mut self, fork: &Importer<'t>) {
        self.refused += fork.refused;
        self.too_long += fork.too_long;
    }
    /// What the sender has and this table has not, as `store` names it.
    pub fn dropped(&self) -> Vec<String> {
        let columns = self.columns.iter().zip(&self.targets);
        let mut names: Vec<String> = columns
            .filter(|(_, target)| target.is_none())
            .map(|(column, _)| {
                let name = column.data_type.info().name;
                let same = |other: &&ColumnDef| other.data_type == column.data_type;
                let element = match self.columns.iter().filter(same).count() {
                    0 | 1 => String::new(),
                    _ => format!("[{}]", column.index),
                };
                match column.period_ms {
                    0 => format!("{name}{element}"),
                    ms => format!("{name}{element}({ms}ms)"),
                }
            })
            .collect();
        names.dedup();
        names
    }
    /// The sender's table is larger. While entries come for which there is no place, those that were not touched for the
    /// longest time go, whichever came first, and count as evicted.
    pub fn shrinks(&mut self) {
        self.shrinks = Some(Shrinks::default());
    }
    /// Entries for which there is no place any more, so far: see [`Importer::shrinks`].
    pub fn evicted(&self) -> u64 {
        self.shrinks.as_ref().map_or(0, |shrinks| shrinks.dropped)
    }
    /// Entries that were left out because their keys are longer than those of this table, when all had been shown once.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }
    /// The sender's lineage went on in a process that has died, from this number: what the sender has counted since gets it,
    /// so that whatever anybody has heard from that process is newer.
    pub fn limit(&mut self, newest: u64) {
        self.newest = Some(newest);
    }
    /// The sender replicated this table once, under the lineage that goes on here, and its journal had come to `newest`: its
    /// rows replace what others have of this lineage.
    pub fn replace(&mut self, newest: u64) {
        self.whole = true;
        if let Some(replica) = self.table.replica() {
            replica.inherit(newest, &[]);
        }
    }
    /// The sender's numbers of lineages will not come: those of its rows stand for them.
    pub(super) fn note_highest(&mut self) {
        self.highest = Some(BTreeMap::new());
    }
    /// Whether this table has columns that the sender's has not, or not in the same way: what others counted in them was
    /// read and not kept there.
    pub fn has_gained(&self) -> bool {
        self.gained
    }
    /// Whether entries were left out for lack of room.
    pub fn is_short(&self) -> bool {
        self.evicted() > 0 || self.refused > 0
    }
    /// Rows for which there was no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes over a slice. `shift_ms`: this clock minus the sender's. `held` is told how many trackers the sender has on an
    /// entry and what its own gauge is, for every entry of the slice of which it may have heard before or that has any.
    ///
    /// # Errors
    /// The slice is not sound; nothing of it was used.
    pub fn take(
        &mut self,
        slice: &Slice,
        shift_ms: i64,
        mut held: impl FnMut(&[u8], u32, u32),
    ) -> Result<usize, BadBatch> {
        let columns = std::mem::take(&mut self.columns);
        let result = self.take_rows(slice, &columns, shift_ms, &mut held);
        self.columns = columns;
        result
    }

    fn take_rows(
        &mut self,
        slice: &Slice,
        columns: &[ColumnDef],
        shift_ms: i64,
        held: &mut impl FnMut(&[u8], u32, u32),
    ) -> Result<usize, BadBatch> {
        let mut reader = BatchReader::new(&slice.columns, columns)?;
        let table = self.table;
        let width = table.schema.exact_width();
        if width.is_none() {
            // They may be too long for this table.
            reader.check_keys(|key| !key.contains(&0))?;
        } else if reader.key_width() != width {
            reader.check_keys(|key| table.schema.fits(key))?;
        }
        let mut open = Open { table, shard: None };
        let now_ms = slice.now_ms.saturating_add_signed(shift_ms);
        for key in slice.removed.iter().filter(|key| table.schema.fits(key)) {
            self.remove(key, now_ms);
            held(key, 0, 0);
        }
        let mut entries = 0;
        let mut number = 0;
        let mut last: Option<(&[u8], Option<Place>)> = None;
        let mut known = false;
        let mut helds = slice.held.iter().peekable();
        let mut tombs = slice.tombs.iter().peekable();
        while let Some((key, mut head, edicts)) = reader.next_row() {
            if let Some(newest) = self.newest.filter(|_| Some(head.lineage) == self.own) {
                head.version = head.version.min(newest);
            }
            if let Some(highest) = &mut self.highest {
                let known = highest.entry(head.lineage).or_default();
                *known = head.version.max(*known);
            }
            let first = last.is_none_or(|(before, _)| before != key);
            let at = number;
            number += 1;
            while helds.peek().is_some_and(|(row, _)| *row < at) {
                helds.next();
            }
            while tombs.peek().is_some_and(|(row, _)| *row < at) {
                tombs.next();
            }
            let uses = helds.peek().filter(|(row, _)| *row == at);
            let uses = uses.map_or(0, |(_, uses)| *uses);
            let tomb = tombs.peek().filter(|(row, _)| *row == at);
            let tomb = tomb.map(|(_, age)| *age);
            let row = Row {
                key,
                head,
                edicts: edicts.collect(),
            };
            let place = if first && !table.schema.fits(key) {
                self.too_long += u64::from(!self.shown);
                None
            } else if first {
                entries += 1;
                let found = self.place_of(&row, uses > 0, now_ms, &mut open);
                known = found.is_some_and(|(_, known)| known);
                found.map(|(place, _)| place)
            } else {
                last.and_then(|(_, place)| place)
            };
            last = Some((key, place));
            let Some((home, slot)) = place else {
                continue;
            };
            let Some(shard) = open.at(home) else {
                continue;
            };
            let gauge = self.row(shard, slot, &row, &mut reader, now_ms);
            if first {
                if let Some(age) = tomb.filter(|_| table.shared.is_some()) {
                    shard.take_out(slot, now_ms);
                    shard.set_word(slot, PREV, HELD);
                    shard.inherit_tomb(slot, age, now_ms);
                }
                self.hold(shard, (home, slot), uses > 0, now_ms);
                if self.sorted {
                    table.note_evictable(shard, now_ms);
                }
                if uses > 0 || known || self.evicted.load(Relaxed) {
                    held(key, uses, gauge);
                }
            }
        }
        Ok(entries)
    }

    fn remove(&self, key: &[u8], now_ms: u64) {
        let table = self.table;
        let hash = table.schema.hash(key);
        let Some(padded) = table.shards.get(table.shard_of(hash)) else {
            return;
        };
        let mut shard = padded.lock();
        if let Some(slot) = shard.find(&table.schema, hash, key)
            && word(shard.record(slot), USES) == 0
        {
            shard.remove(&table.schema, slot, now_ms);
            table.forget(1);
        }
    }

    /// Finds or makes the entry of a first row, and makes what the row replaces blank. Tells also whether it was there.
    fn place_of(
        &mut self,
        row: &Row<'_>,
        held: bool,
        now_ms: u64,
        open: &mut Open<'t>,
    ) -> Option<(Place, bool)> {
        let table = self.table;
        let schema = &table.schema;
        let replicated = table.shared.is_some();
        if !replicated && (row.head.flags.contains(RowFlags::TOMB) || !self.is_own(&row.head)) {
            return None; // what other nodes counted belongs to replicated tables
        }
        let hash = schema.hash(row.key);
        let home = table.shard_of(hash);
        let touched = (now_ms as u32).wrapping_sub(row.head.touch_age_ms);
        let mut reserved = false;
        loop {
            let shard = open.at(home)?;
            let known = shard.find(schema, hash, row.key);
            if known.is_some() && reserved {
                table.forget(1);
            }
            let room = known.is_some() || reserved || table.reserve();
            if !room {
                open.close();
                // Whoever is full needs the order to know who goes.
                self.sort(now_ms);
                match self.make_room(home, (!held).then_some(touched), now_ms) {
                    Room::Made => {}
                    Room::Older => return None,
                    Room::None => {
                        self.refused += 1;
                        return None;
                    }
                }
                reserved = true;
                self.evicted.store(true, Relaxed);
                continue;
            }
            let mut told = false;
            let slot = match known {
                Some(slot) => {
                    told = replicated && self.own.is_none() && !shard.is_hidden(slot);
                    shard.take_out(slot, now_ms);
                    shard.set_word(slot, PREV, HELD);
                    slot
                }
                None => {
                    let Some(slot) =
                        shard.insert_nowhere(schema, hash, row.key, u64::from(touched))
                    else {
                        table.forget(1);
                        return None;
                    };
                    slot
                }
            };
            if told {
                // Peers may have told of it, of whom the sender knows nothing: only what was counted here is replaced.
                let age = |touched| crate::table::age_ms(now_ms as u32, touched);
                if age(touched) < age(shard.word(slot, TOUCHED)) {
                    shard.set_word(slot, TOUCHED, touched);
                }
                self.settle_in(shard, slot, now_ms);
                return Some(((home, slot), true));
            }
            let journaled = known.and_then(|slot| shard.wipe(schema, slot));
            shard.set_word(slot, TOUCHED, touched);
            let born = (now_ms as u32).wrapping_sub(row.head.born_age_ms);
            shard.inherit_entry(schema, slot, born, &self.mapped(&row.edicts));
            if self.has_own_cell(row) {
                if let Some(item) = shard.inherit_own(slot, &row.head, journaled)
                    && let Some(late) = &mut self.late
                {
                    late.push(item);
                }
            } else {
                shard.inherit_nothing(journaled);
            }
            self.settle_in(shard, slot, now_ms);
            self.note_oldest(home, touched, now_ms);
            return Some(((home, slot), known.is_some()));
        }
    }
    /// Puts an entry that is nowhere into the order, if there is one yet.
    fn settle_in(&self, shard: &mut Shard, slot: u32, now_ms: u64) {
        // Entries in use are put into their order when their users go.
        if self.sorted && word(shard.record(slot), USES) == 0 {
            shard.place_by_date(slot, now_ms);
        }
    }
    /// Remembers whether the sender holds an entry.
    fn hold(&mut self, shard: &mut Shard, (home, slot): Place, is_held: bool, now_ms: u64) {
        let Some(shrinks) = &mut self.shrinks else {
            return;
        };
        let was_held = word(shard.record(slot), USES) > 0;
        if is_held && !was_held {
            shard.take_out(slot, now_ms);
            shard.set_word(slot, PREV, HELD);
            shard.set_word(slot, USES, 1);
            shrinks.held.push((home, slot));
        } else if was_held && !is_held {
            shard.set_word(slot, USES, 0);
            self.settle_in(shard, slot, now_ms);
            let touched = shard.word(slot, TOUCHED);
            self.note_oldest(home, touched, now_ms);
        }
    }
    /// All entries are held only by whom they will be from now on.
    fn let_go(&mut self, now_ms: u64) {
        let held = self.shrinks.as_mut().map(|s| std::mem::take(&mut s.held));
        for (home, slot) in held.unwrap_or_default() {
            let Some(padded) = self.table.shards.get(home) else {
                continue;
            };
            let mut shard = padded.lock();
            if shard.is_taken(slot) && word(shard.record(slot), USES) > 0 {
                shard.set_word(slot, USES, 0);
                self.settle_in(&mut shard, slot, now_ms);
                self.table.note_evictable(&shard, now_ms);
            }
        }
    }
    fn is_own(&self, head: &RowHead) -> bool {
        let here = self.table.shared.as_ref().map(|s| s.lineages.own());
        let own = match (self.own, here) {
            (None, _) => true,
            (Some(sender), None) => head.lineage == sender,
            (Some(sender), Some(here)) => sender == here && head.lineage == sender,
        };
        own && !head.flags.contains(RowFlags::NO_CELL)
    }
    /// Whether the row's cell becomes this process's own with its number.
    fn has_own_cell(&self, row: &Row<'_>) -> bool {
        self.table.shared.is_some()
            && self.own.is_some()
            && self.is_own(&row.head)
            && row.head.version > 0
    }
}
