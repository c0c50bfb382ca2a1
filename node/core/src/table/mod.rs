//! Stick tables: bounded maps from a key to counters, rates and tags.
//!
//! A table is a set of shards, each behind its own short lock (`shard`): an index over fixed-size records
//! (`schema`, `slab`). Nothing here reads a clock: time comes with every call, in milliseconds of a clock that never
//! goes back; callers on different threads may differ by what one batch of events takes.

mod data_type;
mod entry;
mod handoff;
mod key;
mod lineage;
mod rate;
mod replica;
mod room;
mod schema;
mod servers;
mod shard;
mod slab;
mod spec;
mod walk;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::rule::sample::Sample;
use room::Supply;
use schema::Schema;
use shard::Shard;

pub use data_type::{
    ArgForm, COUNT, DATA_TYPES, DataType, DataTypeInfo, ELEMENTS_MAX, ElementName, Kind,
};
pub use entry::{Entry, EntryMut};
pub use handoff::{
    Definition, Delta, Exporter, Importer, Ledger, Op, Settled, Share, Slice, Step, disown,
};
pub use key::{Key, KeyType, key_sample, v6_to_v4, write_key};
pub use lineage::{LINEAGES_MAX, Lineage, Lineages, Rest, Stamp};
pub use rate::{Rate, age_ms};
pub use replica::{
    Applied, Collected, EXPIRED_GRACE_MS, JournalRead, OFFERS_MAX, Origin, Replica,
    ReplicaCounters, STAMP_AHEAD_MAX_MS, TOMBSTONE_MIN_MS, TOMBSTONE_UNEXPIRING_MS, Tag, WANTS_MAX,
    Which,
};
pub use servers::SERVER_KEYS_MAX;
pub use shard::Events;
pub use spec::{Stored, TableId, TableSpec};
pub use walk::{Cursor, Removal};

/// An entry that its holder pinned (`use` count): valid until [`Table::untrack`] or [`Table::unpin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef {
    shard: u16,
    slot: u32,
}

/// Why a new key was not let in: the table is full and nothing can be evicted (all in use, or `nopurge`). Counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("table full")]
pub struct Refused;

/// Tables below this size have a single shard: there, oldest-first is exact.
const SINGLE_SHARD_BELOW: usize = 4096;
/// Entries per shard that a full table should have.
const SHARD_ENTRIES: usize = 2048;
/// More shards would only cost memory.
const SHARDS_MAX: usize = 512;
/// Expired entries dropped when one is added.
const SWEEP_PER_INSERT: usize = 2;

/// A shard on cache lines of its own, so that threads do not disturb each other's locks.
#[repr(align(128))]
struct Padded(Mutex<Shard>);

impl Padded {
    fn lock(&self) -> parking_lot::MutexGuard<'_, Shard> {
        self.0.lock()
    }
}

/// See [`Table::counts`].
fn counted(schema: &Schema) -> u32 {
    let stored = |what: DataType| schema.cell(what, 0).is_some();
    let counts = |what: &DataType| stored(*what) || what.info().rate.is_some_and(stored);
    DataType::all()
        .filter(counts)
        .fold(0, |bits, what| bits | what.bit())
}

/// A stick table. Shared by all threads; every method locks at most one shard at a time, for a short time.
pub struct Table {
    spec: TableSpec,
    seed: u64,
    schema: Schema,
    shards: Box<[Padded]>,
    /// Entries, living or expired, plus places reserved for those being inserted.
    count: AtomicUsize,
    /// No entry that nobody holds expires before this date.
    next_expiry: AtomicU64,
    sweeping: Mutex<()>,
    /// Whether a search through all shards could find anything to evict: see [`Supply`].
    supply: AtomicU8,
    servers: servers::Servers,
    upkeep: Mutex<Cursor>,
    /// See [`Table::counts`].
    counts: u32,
    /// Of a replicated table: shared with its shards.
    shared: Option<Arc<replica::Shared>>,
}

impl Table {
    /// A new, empty table. `seed` seeds the key hash.
    pub fn new(spec: TableSpec, seed: u64) -> Table {
        Table::make(spec, seed, None)
    }
    /// A new, empty table whose counts are summed over the nodes of a cluster: see [`Table::replica`].
    pub fn new_replicated(spec: TableSpec, seed: u64, lineages: Arc<Lineages>) -> Table {
        Table::make(spec, seed, Some(lineages))
    }
    fn make(spec: TableSpec, seed: u64, lineages: Option<Arc<Lineages>>) -> Table {
        let size = spec.size.max(1);
        let shards = if size < SINGLE_SHARD_BELOW {
            1
        } else {
            (1_usize << (size / SHARD_ENTRIES).ilog2()).min(SHARDS_MAX)
        };
        let schema = Schema::new(&spec, seed, lineages.is_some());
        let shared = lineages.map(|lineages| Arc::new(replica::Shared::new(lineages, shards)));
        let shard = |number| {
            let replica = shared.as_ref().zip(schema.replica.as_ref());
            let replica = replica.map(|(shared, layout)| {
                let shared = Arc::clone(shared);
                Box::new(replica::ReplicaShard::new(
                    shared,
                    layout,
                    number as u16,
                    size,
                    size / shards,
                ))
            });
            Padded(Mutex::new(Shard::new(&schema, size, shards, replica)))
        };
        Table {
            shards: (0..shards).map(shard).collect(),
            spec,
            seed,
            counts: counted(&schema),
            schema,
            count: AtomicUsize::new(0),
            next_expiry: AtomicU64::new(u64::MAX),
            sweeping: Mutex::new(()),
            supply: AtomicU8::new(Supply::UNKNOWN),
            servers: servers::Servers::default(),
            upkeep: Mutex::new(Cursor::default()),
            shared,
        }
    }
    /// What its key hash was seeded with: a table of the same size and seed has its entries in the same shards.
    pub fn seed(&self) -> u64 {
        self.seed
    }
    /// Entries, living, expired or hidden.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }
    /// Makes room for about so many entries at once, as far as the table may grow, so that its indices need not grow step by
    /// step.
    pub fn expect(&self, entries: usize) {
        let each = entries.min(self.spec.size) / self.shards.len();
        for shard in &self.shards {
            shard.lock().expect(&self.schema, each);
        }
    }
    /// The same for entries that others have counted: their shares need room, too.
    pub fn expect_shares(&self, entries: usize) {
        self.expect(entries);
        let each = entries.min(self.spec.size) / self.shards.len();
        for shard in &self.shards {
            if let Some(replica) = &mut shard.lock().replica {
                replica.cells.expect(each);
            }
        }
    }
    /// Forgets all entries but those that somebody holds, and those with these keys, and gives the memory back: what is
    /// counted from now on is counted for another process ([`Table::take_deltas`]), which has them all. It cannot be taught or
    /// handed over again.
    pub fn strip(&self, keep: &[Key], now_ms: u64) {
        let kept: Vec<EntryRef> = keep
            .iter()
            .filter_map(|key| self.pin(key, now_ms))
            .collect();
        for padded in &self.shards {
            let removed = padded.lock().strip(&self.schema);
            self.forget(removed);
        }
        if let Some(shared) = &self.shared {
            shared.journal.lock().clear();
        }
        for at in kept {
            self.unpin(at, now_ms);
        }
    }
    /// The configuration it was made from.
    pub fn spec(&self) -> &TableSpec {
        &self.spec
    }
    /// Casts a sample to a key (reference: stick-tables 2.1, 2.2). `None`: no key, nothing to track or look up.
    pub fn key(&self, sample: &Sample<'_>) -> Option<Key> {
        Key::from_sample(sample, self.spec.key_type, self.spec.key_len)
    }
    /// Casts an address without going through a sample.
    pub fn key_of_addr(&self, addr: IpAddr) -> Option<Key> {
        Key::from_addr(addr, self.spec.key_type, self.spec.key_len)
    }
    /// Parses a key typed on the CLI (unescaped text). Addresses of either family are cast; binary keys cannot be typed.
    pub fn key_of_text(&self, text: &[u8]) -> Option<Key> {
        Key::from_typed(text, self.spec.key_type, self.spec.key_len)
    }
    /// Whether the table stores this data type (array element `index`; 0 for scalars). `gpc0` asked of a table with the
    /// `gpc` array means element 0, and so on (reference: stick-tables 3).
    pub fn stores(&self, what: DataType, index: u16) -> bool {
        self.schema.cell(what, index).is_some()
    }
    /// Whether the table was declared with this very data type and has that element: what the CLI asks.
    pub fn stores_exact(&self, what: DataType, index: u16) -> bool {
        self.schema.cell_exact(what, index).is_some()
    }

    /// The counters of which an event would change something here, for one of them or its rate is stored:
    /// [`DataType::bit`]s.
    pub fn counts(&self) -> u32 {
        self.counts
    }

    /// Starts tracking: looks up or creates the entry, pins it, counts conn_cnt, conn_rate, conn_cur, refreshes.
    pub fn track(&self, key: &Key, now_ms: u64) -> Result<EntryRef, Refused> {
        self.track_and_count(key, None, now_ms)
    }
    /// The same, and counts one event of `also` while the shard is locked.
    pub fn track_and_count(
        &self,
        key: &Key,
        also: Option<DataType>,
        now_ms: u64,
    ) -> Result<EntryRef, Refused> {
        self.enter(key, now_ms, |shard, at| {
            shard.hold(&self.schema, at.slot, now_ms);
            shard.refresh(&self.schema, at.slot, now_ms);
            let mut entry = self.entry_mut(shard, at);
            entry.inc(DataType::ConnCnt, 0, 1, now_ms);
            entry.add(DataType::ConnCur, 0, 1, now_ms);
            if let Some(also) = also
                && entry.inc(also, 0, 1, now_ms).is_some()
            {
                entry.touch(now_ms);
            }
            at
        })
    }
    /// Ends tracking: conn_cur-1, refresh if stored, unpins.
    pub fn untrack(&self, entry: EntryRef, now_ms: u64) {
        self.release(entry, now_ms, true);
    }
    /// Pins a living entry without counting or refreshing.
    pub fn pin(&self, key: &Key, now_ms: u64) -> Option<EntryRef> {
        self.find(key, now_ms, |shard, at| {
            shard.hold(&self.schema, at.slot, now_ms);
            at
        })
    }
    /// Undoes [`Table::pin`].
    pub fn unpin(&self, entry: EntryRef, now_ms: u64) {
        self.release(entry, now_ms, false);
    }
    fn release(&self, at: EntryRef, now_ms: u64, tracked: bool) {
        let Some(shard) = self.shards.get(usize::from(at.shard)) else {
            return;
        };
        let mut shard = shard.lock();
        if tracked && self.entry_mut(&mut shard, at).sub(DataType::ConnCur, 0, 1) {
            shard.refresh(&self.schema, at.slot, now_ms);
        }
        if shard.release(&self.schema, at.slot, now_ms) {
            self.note_evictable(&shard, now_ms);
        }
    }

    /// Reads a pinned entry.
    pub fn read<R>(&self, entry: EntryRef, f: impl FnOnce(Entry<'_>) -> R) -> R {
        let shard = self.shards[usize::from(entry.shard)].lock();
        f(self.entry(&shard, entry))
    }
    /// Changes a pinned entry. The closure calls `touch` if the event refreshes.
    pub fn write<R>(&self, entry: EntryRef, f: impl FnOnce(EntryMut<'_>) -> R) -> R {
        let mut shard = self.shards[usize::from(entry.shard)].lock();
        f(self.entry_mut(&mut shard, entry))
    }
    /// Reads an entry by key without refreshing it; `None` when absent or expired.
    pub fn peek<R>(&self, key: &Key, now_ms: u64, f: impl FnOnce(Entry<'_>) -> R) -> Option<R> {
        self.find(key, now_ms, |shard, at| f(self.entry(shard, at)))
    }
    /// Changes an entry by key, creating and refreshing it.
    pub fn upsert<R>(
        &self,
        key: &Key,
        now_ms: u64,
        f: impl FnOnce(EntryMut<'_>) -> R,
    ) -> Result<R, Refused> {
        self.enter(key, now_ms, |shard, at| {
            shard.refresh(&self.schema, at.slot, now_ms);
            f(self.entry_mut(shard, at))
        })
    }
    /// The key of the living entry that [`Entry::ptr`] named so.
    pub fn entry_by_ptr(&self, ptr: u64, now_ms: u64) -> Option<Key> {
        let at = EntryRef {
            shard: u16::try_from((ptr >> 32).checked_sub(1)?).ok()?,
            slot: ptr as u32,
        };
        let shard = self.shards.get(usize::from(at.shard))?.lock();
        let living = shard.is_taken(at.slot) && !shard.is_expired(&self.schema, at.slot, now_ms);
        living.then(|| self.entry(&shard, at).to_key())
    }

    /// Living entries. Drops all expired ones to know: when [`Table::maintain`] is called often, these are few.
    pub fn used(&self, now_ms: u64) -> usize {
        self.sweep(now_ms, usize::MAX);
        let hidden = self.shared.as_ref().map_or(0, |shared| shared.hidden());
        self.count.load(Relaxed).saturating_sub(hidden)
    }
    /// Refusals, evictions and expirations since the table was made.
    pub fn events(&self) -> Events {
        self.shards.iter().fold(Events::default(), |sum, shard| {
            let one = shard.lock().events;
            Events {
                refusals: sum.refusals + one.refusals,
                evictions: sum.evictions + one.evictions,
                expirations: sum.expirations + one.expirations,
            }
        })
    }
    /// Adds refusals, evictions and expirations of the process before.
    pub fn add_events(&self, before: Events) {
        if let Some(shard) = self.shards.first() {
            let events = &mut shard.lock().events;
            events.refusals += before.refusals;
            events.evictions += before.evictions;
            events.expirations += before.expirations;
        }
    }
    /// So many evictions were another process's, which counts them itself.
    fn forget_evictions(&self, mut n: u64) {
        for shard in &self.shards {
            if n == 0 {
                return;
            }
            let evictions = &mut shard.lock().events.evictions;
            let some = n.min(*evictions);
            *evictions -= some;
            n -= some;
        }
    }
    /// Whether a key has the form that this table stores: text that is not too long, or the right number of bytes.
    pub fn fits(&self, key: &Key) -> bool {
        self.schema.fits(key.as_bytes())
    }
    /// Bytes of memory in use for entries and index.
    pub fn memory_bytes(&self) -> usize {
        let journal = self.shared.as_ref().map_or(0, |s| s.journal.lock().bytes());
        let shards = self.shards.iter().map(|shard| shard.lock().bytes());
        shards.sum::<usize>() + journal
    }
    /// Bytes of one record, index apart.
    pub fn record_bytes(&self) -> usize {
        self.schema.stride
    }

    fn entry<'t>(&'t self, shard: &'t Shard, at: EntryRef) -> Entry<'t> {
        Entry {
            table: self,
            record: shard.record(at.slot),
            at,
            replica: shard.replica.as_deref(),
        }
    }
    fn entry_mut<'t>(&'t self, shard: &'t mut Shard, at: EntryRef) -> EntryMut<'t> {
        shard.note(at.slot);
        let (record, replica, follow) = shard.all_parts(at.slot);
        EntryMut {
            table: self,
            record,
            at,
            replica,
            follow,
        }
    }
    fn shard_of(&self, hash: u64) -> usize {
        // The index uses the lowest and the highest bits.
        (hash >> 32) as usize & (self.shards.len() - 1)
    }
    fn find<R>(
        &self,
        key: &Key,
        now_ms: u64,
        f: impl FnOnce(&mut Shard, EntryRef) -> R,
    ) -> Option<R> {
        let hash = self.schema.hash(key.as_bytes());
        let number = self.shard_of(hash);
        let mut shard = self.shards.get(number)?.lock();
        let slot = shard.find(&self.schema, hash, key.as_bytes())?;
        if shard.is_expired(&self.schema, slot, now_ms) {
            return None;
        }
        Some(f(
            &mut shard,
            EntryRef {
                shard: number as u16,
                slot,
            },
        ))
    }

    /// Looks up or creates.
    fn enter<R>(
        &self,
        key: &Key,
        now_ms: u64,
        f: impl FnOnce(&mut Shard, EntryRef) -> R,
    ) -> Result<R, Refused> {
        let key = key.as_bytes();
        let hash = self.schema.hash(key);
        let number = self.shard_of(hash);
        let home = &self.shards[number];
        let at = |slot| EntryRef {
            shard: number as u16,
            slot,
        };
        let mut reserved = false;
        loop {
            let mut shard = home.lock();
            if let Some(replica) = &mut shard.replica {
                replica.latest_ms = now_ms;
            }
            if let Some(slot) = shard.find(&self.schema, hash, key) {
                if reserved {
                    self.forget(1); // another thread was faster
                }
                if shard.is_expired(&self.schema, slot, now_ms) {
                    shard.renew(&self.schema, slot, now_ms);
                    if shard.replica.is_some() {
                        self.note_evictable(&shard, now_ms);
                    }
                }
                return Ok(f(&mut shard, at(slot)));
            }
            if !self.schema.fits(key) {
                shard.events.refusals += 1; // a key made for another table
                return Err(Refused);
            }
            if now_ms >= self.next_expiry.load(Relaxed) {
                // Something has expired somewhere: newcomers clean up a little, so that no backlog grows.
                let swept = shard.drop_expired(&self.schema, now_ms, SWEEP_PER_INSERT);
                self.forget(swept.removed);
            }
            if reserved || self.reserve() || self.replace(&mut shard, now_ms) {
                let Some(slot) = shard.insert(&self.schema, hash, key, now_ms, now_ms) else {
                    self.forget(1);
                    shard.events.refusals += 1;
                    return Err(Refused);
                };
                self.note_evictable(&shard, now_ms);
                return Ok(f(&mut shard, at(slot)));
            }
            drop(shard);
            if !self.make_room(number, now_ms) {
                home.lock().events.refusals += 1;
                return Err(Refused);
            }
            reserved = true;
        }
    }
}
