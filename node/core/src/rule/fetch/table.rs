//! Readers of table entries: what a slot tracks, what `src` has, what a converter's input has.
//! (reference: stick-tables 7)

use super::{KeySource, TableFetch, TableRead};
use crate::rule::cx::Cx;
use crate::rule::sample::Sample;
use crate::rule::track::{self, Tracker};
use crate::table::{DataType, Entry, EntryMut, Key, Table, TableId};

/// `sc*` and `src_*`.
pub(super) fn fetch<'a>(cx: &Cx<'a>, f: &TableFetch) -> Option<Sample<'a>> {
    match f.key {
        KeySource::Slot(slot) => {
            let tracker = track::find(cx, slot);
            if f.read == TableRead::Tracked {
                return Some(Sample::Bool(tracked(cx, tracker, f.table)));
            }
            let tracker = tracker?;
            match f.table {
                Some(other) if other != tracker.table => in_other_table(cx, tracker, other, f.read),
                _ => of_tracker(cx, tracker, f.read),
            }
        }
        KeySource::Src => {
            let table = cx.world.table(f.table?)?;
            let key = cx
                .conn
                .src
                .get()
                .and_then(|addr| table.key_of_addr(addr.ip()));
            match key {
                Some(key) => by_key(cx, table, &key, f.read, true),
                None => no_key(f.read),
            }
        }
    }
}

/// `table_*` and `in_table` on a converter's input.
pub(in crate::rule) fn convert<'a>(
    cx: &Cx<'a>,
    input: &Sample<'_>,
    table: TableId,
    read: TableRead,
) -> Option<Sample<'a>> {
    let table = cx.world.table(table)?;
    match table.key(input) {
        Some(key) => by_key(cx, table, &key, read, true),
        None => no_key(read),
    }
}

/// `table_cnt`, `table_avl`.
pub(super) fn size<'a>(cx: &Cx<'a>, table: TableId, free: bool) -> Option<Sample<'a>> {
    let table = cx.world.table(table)?;
    let used = table.used(cx.now.mono_ms);
    let value = if free {
        table.spec().size.saturating_sub(used)
    } else {
        used
    };
    Some(int(value as u64))
}

impl TableRead {
    /// Whether it changes the entry.
    fn writes(self) -> bool {
        matches!(
            self,
            TableRead::Increment { .. } | TableRead::Clear { .. } | TableRead::UpdateConnCnt
        )
    }

    /// The data type that must be stored for it to give anything.
    pub(in crate::rule) fn stored(self) -> Option<(DataType, u16)> {
        match self {
            TableRead::Value { what, index } => Some((what, index)),
            TableRead::KBytes(what) => Some((what, 0)),
            TableRead::UpdateConnCnt => Some((DataType::ConnCnt, 0)),
            // an increment is satisfied by the counter or its rate, the rest by any entry
            _ => None,
        }
    }
}

fn of_tracker<'a>(cx: &Cx<'a>, tracker: Tracker, read: TableRead) -> Option<Sample<'a>> {
    let table = cx.world.table(tracker.table)?;
    let now = cx.now.mono_ms;
    if read.writes() {
        table.write(tracker.entry, |entry| change(entry, read, now))
    } else {
        table.read(tracker.entry, |entry| look(&entry, read, now))
    }
}

/// `sc_X(sc,T)` with another table: the tracked key looked up there. Never creates; absent is 0.
fn in_other_table<'a>(
    cx: &Cx<'a>,
    tracker: Tracker,
    other: TableId,
    read: TableRead,
) -> Option<Sample<'a>> {
    let (own, other) = (cx.world.table(tracker.table)?, cx.world.table(other)?);
    if !same_keys(own, other) {
        return None;
    }
    let key = own.read(tracker.entry, |entry| entry.to_key());
    by_key(cx, other, &key, read, false)
}

fn tracked(cx: &Cx<'_>, tracker: Option<Tracker>, other: Option<TableId>) -> bool {
    let Some(tracker) = tracker else { return false };
    match other {
        Some(other) if other != tracker.table => {
            let key = |own: &Table, other: &Table| {
                let key = own.read(tracker.entry, |entry| entry.to_key());
                other.peek(&key, cx.now.mono_ms, |_| ()).is_some()
            };
            match (cx.world.table(tracker.table), cx.world.table(other)) {
                (Some(own), Some(other)) => same_keys(own, other) && key(own, other),
                _ => false,
            }
        }
        _ => true,
    }
}

fn same_keys(a: &Table, b: &Table) -> bool {
    a.spec().key_type == b.spec().key_type && a.spec().key_len == b.spec().key_len
}

fn by_key<'a>(
    cx: &Cx<'a>,
    table: &Table,
    key: &Key,
    read: TableRead,
    creates: bool,
) -> Option<Sample<'a>> {
    let now = cx.now.mono_ms;
    if read.writes() {
        if !creates && table.peek(key, now, |_| ()).is_none() {
            return absent(read);
        }
        return match table.upsert(key, now, |entry| change(entry, read, now)) {
            Ok(value) => value,
            Err(_) => absent(read), // refused by a full table, which counts it
        };
    }
    match table.peek(key, now, |entry| look(&entry, read, now)) {
        Some(value) => value,
        None => absent(read),
    }
}

/// What a reader gives for a key that the table does not hold.
fn absent<'a>(read: TableRead) -> Option<Sample<'a>> {
    match read {
        TableRead::InTable | TableRead::Tracked => Some(Sample::Bool(false)),
        TableRead::Key => None,
        TableRead::Expire { default } | TableRead::Idle { default } => default.map(Sample::Int),
        _ => Some(Sample::Int(0)),
    }
}

/// What it gives for a sample that cannot become a key.
fn no_key<'a>(read: TableRead) -> Option<Sample<'a>> {
    absent(read)
}

fn look<'a>(entry: &Entry<'_>, read: TableRead, now: u64) -> Option<Sample<'a>> {
    match read {
        TableRead::Value { what, index } => {
            let value = entry.get(what, index, now)?;
            Some(match what {
                // stored as 32 bits, but signed
                DataType::ServerId => Sample::Int(i64::from(value as u32 as i32)),
                _ => int(value),
            })
        }
        TableRead::KBytes(what) => Some(int(entry.get(what, 0, now)? / 1024)),
        TableRead::Key => Some(entry.key_sample().into_owned()),
        TableRead::Tracked | TableRead::InTable => Some(Sample::Bool(true)),
        TableRead::Trackers => Some(Sample::Int(i64::from(entry.uses()))),
        TableRead::Expire { .. } => Some(Sample::Int(i64::from(entry.expires_in_ms(now)))),
        TableRead::Idle { .. } => Some(Sample::Int(i64::from(entry.idle_ms(now)))),
        TableRead::Increment { .. } | TableRead::Clear { .. } | TableRead::UpdateConnCnt => None,
    }
}

fn change<'a>(mut entry: EntryMut<'_>, read: TableRead, now: u64) -> Option<Sample<'a>> {
    let value = match read {
        TableRead::Increment { index, old_names } => {
            let (what, index) = gpc(index, old_names);
            entry.inc(what, index, 1, now)?
        }
        TableRead::Clear { index, old_names } => {
            let (what, index) = gpc(index, old_names);
            entry.clr(what, index)?
        }
        TableRead::UpdateConnCnt => entry.inc(DataType::ConnCnt, 0, 1, now)?,
        _ => return look(&entry.entry(), read, now),
    };
    entry.touch(now);
    Some(int(value))
}

/// `gpc0` and `gpc1` mean elements 0 and 1 where the table has the array; the array form means only the array.
fn gpc(index: u16, old_names: bool) -> (DataType, u16) {
    match (old_names, index) {
        (true, 0) => (DataType::Gpc0, 0),
        (true, 1) => (DataType::Gpc1, 0),
        _ => (DataType::Gpc, index),
    }
}

fn int<'a>(value: u64) -> Sample<'a> {
    Sample::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
