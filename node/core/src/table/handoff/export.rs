//! Showing a table to the process that takes over.

use super::follow::Follow;
use super::{Definition, Slice};
use crate::peers::batch::{BatchWriter, Budget, RowFlags, RowHead, columns_of, zigzag};
use crate::table::data_type::Kind;
use crate::table::rate::age_ms;
use crate::table::schema::{Schema, TOUCHED, USES, rate, wide, word};
use crate::table::shard::Shard;
use crate::table::{Cursor, Lineage, Stamp, Table};

/// Entries looked at per call, however few of them are shown.
const SEEN_MAX: usize = 1 << 15;
/// Groups of shards in a large table; each costs a slice per round.
const STRIPES_MAX: usize = 64;
/// The stamp of a register of a table that is not replicated: it is assigned, nobody cares when.
const SOME_TIME: Stamp = Stamp {
    ms: 1,
    lineage: Lineage(0),
};

/// Reads a table out. It shows each entry with all that is known of it.
pub struct Exporter<'t> {
    table: &'t Table,
    out: BatchWriter,
    cursor: Cursor,
    slice: Slice,
    lost: bool,
}

/// What one call gave.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// May be empty.
    pub slice: Slice,
    /// The walk, or the round, is complete.
    pub done: bool,
}

/// The number of the group of shards that one belongs to: whoever takes rows over can take those of several groups at a time.
fn stripe_of(table: &Table, shard: usize) -> u32 {
    let shards = table.shards.len().max(1);
    1 + (shard * STRIPES_MAX.min(shards) / shards) as u32
}

impl<'t> Exporter<'t> {
    /// Of a table that is followed: [`Table::follow`].
    pub fn new(table: &'t Table) -> Exporter<'t> {
        Exporter {
            out: BatchWriter::new(columns_of(&table.spec.store)),
            table,
            cursor: Cursor::default(),
            slice: Slice::default(),
            lost: false,
        }
    }
    /// So many entries were removed by hand at once that the receiver cannot be told of all: it must not serve.
    pub fn has_lost(&self) -> bool {
        self.lost
    }
    /// What the receiver must know first.
    pub fn definition(&self) -> Definition {
        let lineage = self.table.shared.as_ref().map(|s| s.lineages.own());
        Definition::of(&self.table.spec, lineage)
    }

    /// Goes on with the walk over all entries.
    pub fn walk(&mut self, budget: Budget, now_ms: u64) -> Step {
        let table = self.table;
        let mut cursor = self.cursor;
        let mut seen = 0;
        let (mut stripe, mut next) = (0, None);
        let done = table.walk_while(&mut cursor, |shard, at| {
            let of = stripe_of(table, at.shard.into());
            if of != stripe && self.out.rows() > 0 {
                next = Some(at);
                return false;
            }
            stripe = of;
            seen += 1;
            if let Some(Follow::Marks(marks)) = shard.follow.as_deref_mut() {
                marks.unset(at.slot);
            }
            self.entry(shard, at.slot, now_ms);
            !self.out.is_full(budget) && seen < SEEN_MAX
        });
        if let Some(at) = next {
            cursor.shard = at.shard.into();
            cursor.slot = at.slot;
        }
        self.cursor = cursor;
        self.slice.stripe = stripe;
        self.finish(now_ms, done && next.is_none())
    }

    /// Begins a round over what has changed.
    pub fn rewind(&mut self) {
        self.cursor = Cursor::default();
    }
    /// Goes on with a round. `last`: each shard that has no more changes to show notes deltas from then on.
    pub fn changes(&mut self, budget: Budget, now_ms: u64, last: bool) -> Step {
        let table = self.table;
        while let Some(padded) = table.shards.get(self.cursor.shard) {
            let stripe = stripe_of(table, self.cursor.shard);
            if !last && stripe != self.slice.stripe {
                if self.out.rows() > 0 || !self.slice.removed.is_empty() {
                    return self.finish(now_ms, false);
                }
                self.slice.stripe = stripe;
            }
            let mut shard = padded.lock();
            self.removed(&mut shard);
            let mut from = 0;
            loop {
                if self.out.is_full(budget) || self.slice.removed.len() >= budget.rows {
                    return self.finish(now_ms, false);
                }
                let Some(Follow::Marks(marks)) = shard.follow.as_deref_mut() else {
                    break;
                };
                let Some(slot) = marks.next(from) else {
                    break;
                };
                marks.unset(slot);
                from = slot + 1;
                if shard.is_taken(slot) {
                    self.entry(&mut shard, slot, now_ms);
                }
            }
            if last {
                shard.follow = Some(Box::new(Follow::Deltas(Default::default())));
            }
            drop(shard);
            self.cursor.shard += 1;
        }
        self.finish(now_ms, true)
    }

    fn finish(&mut self, now_ms: u64, done: bool) -> Step {
        let mut slice = std::mem::take(&mut self.slice);
        slice.now_ms = now_ms;
        slice.columns = self.out.finish();
        Step { slice, done }
    }

    fn removed(&mut self, shard: &mut Shard) {
        let schema = &self.table.schema;
        let Some(Follow::Marks(marks)) = shard.follow.as_deref_mut() else {
            return;
        };
        self.lost |= marks.overrun;
        for key in std::mem::take(&mut marks.removed) {
            match shard.find(schema, schema.hash(key.as_bytes()), key.as_bytes()) {
                // Its rows replace what the receiver has.
                Some(slot) => shard.note(slot),
                None => self.slice.removed.push(key.as_bytes().to_vec()),
            }
        }
    }

    fn entry(&mut self, shard: &mut Shard, slot: u32, now_ms: u64) {
        let schema = &self.table.schema;
        let first = self.out.rows();
        if let Some(replica) = self.table.replica() {
            replica.export(shard, slot, now_ms, &mut self.out);
            if let Some(age) = shard.tomb_age_of(slot, now_ms)
                && self.out.rows() > first
            {
                self.slice.tombs.push((first as u32, age));
            }
        } else if !shard.is_expired(schema, slot, now_ms) {
            self.plain(schema, shard.record(slot), now_ms);
        }
        let uses = word(shard.record(slot), USES);
        if uses > 0 && self.out.rows() > first {
            self.slice.held.push((first as u32, uses));
        }
    }

    fn plain(&mut self, schema: &Schema, record: &[u8], now_ms: u64) {
        let now = now_ms as u32;
        let age = age_ms(now, word(record, TOUCHED));
        let touch_age_ms = match schema.lifetime {
            // It is held: its time began again whenever it ended.
            Some(lifetime) => age % lifetime,
            None => age,
        };
        let head = RowHead {
            flags: RowFlags::NONE,
            touch_age_ms,
            born_age_ms: touch_age_ms,
            ..RowHead::default()
        };
        self.out.row(schema.key(record), &head, &[]);
        for cell in schema.columns() {
            match cell.kind {
                Kind::Counter64 => self.out.counter(wide(record, cell.at)),
                Kind::Counter32 | Kind::Gauge => {
                    self.out.counter(u64::from(word(record, cell.at)));
                }
                Kind::Rate => {
                    let rate = rate(record, cell.at);
                    if rate.is_over(now, cell.period) {
                        self.out.rate_idle();
                    } else {
                        self.out.rate(age_ms(now, rate.start), rate.cur, rate.prev);
                    }
                }
                Kind::Tag | Kind::ServerId => {
                    let value = word(record, cell.at);
                    let value = if cell.kind == Kind::ServerId {
                        zigzag(value as i32)
                    } else {
                        value
                    };
                    self.out.register(value, (value != 0).then_some(SOME_TIME));
                }
                Kind::ServerKey => {
                    let name = self.table.servers.read().name(word(record, cell.at));
                    self.out.text(name.as_deref().map(|name| (name, SOME_TIME)));
                }
            }
        }
    }
}
