//! What a replicated table keeps beside its records: per shard the cells of other lineages, edicts and the list of
//! changed entries; per table the journal, clocks and counters.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Relaxed, SeqCst},
};

use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};

use super::edicts::Ext;
use super::journal::{FRESH_MIN_MS, Journal};
use super::life::Hidden;
use crate::table::lineage::{Lineage, Lineages, Stamp};
use crate::table::schema::{FLAGS, ReplicaLayout, set_word, word};
use crate::table::slab::Slab;

/// Bits of a record's [`FLAGS`] word.
pub(in crate::table) mod flags {
    /// Changed or touched here since the own cell was last stamped.
    pub const DIRTY: u32 = 1;
    /// The slot is in its shard's list of changed entries, or is just being taken from it. Outlives the entry.
    pub const LISTED: u32 = 1 << 1;
    /// The own cell began blank and nobody has confirmed that there is no older share of it elsewhere.
    pub const FRESH: u32 = 1 << 2;
    /// There are edicts or epochs: see `Ext`.
    pub const EXT: u32 = 1 << 3;
    /// Removed by an edict, kept to void what arrives late. Invisible.
    pub const TOMB: u32 = 1 << 4;
    /// Expired and out of the touch order, kept for touches that arrive late. Invisible.
    pub const GRACED: u32 = 1 << 5;
    /// Its time is over, but another node holds it: visible, out of the touch order.
    pub const LENT: u32 = 1 << 7;
    /// The journal has an item for its version.
    pub const JOURNALED: u32 = 1 << 6;
    /// When it was last stamped, it was held here: others must be told when that ends.
    pub const TOLD_HELD: u32 = 1 << 8;
}
use flags::{DIRTY, LISTED};

/// Called once when a table has something to collect.
pub(super) type Waker = Arc<dyn Fn() + Send + Sync>;

/// Events of the replica layer since the table was made.
#[derive(Debug, Default)]
pub(in crate::table) struct Counts {
    pub edicts_issued: AtomicU64,
    pub edicts_applied: AtomicU64,
    pub edicts_dropped: AtomicU64,
    pub stamps_refused: AtomicU64,
    pub wants: AtomicU64,
    pub offers: AtomicU64,
    pub questions_dropped: AtomicU64,
    pub adopted: AtomicU64,
    pub rows_kept_back: AtomicU64,
    pub releases_dropped: AtomicU64,
    pub rows_merged: AtomicU64,
    pub rows_ignored: AtomicU64,
    pub rows_refused: AtomicU64,
    pub tombstones: AtomicU64,
    pub cells_forgotten: AtomicU64,
}

impl Counts {
    /// Those that only grow, always in the same order; later ones are appended.
    pub fn totals(&self) -> [&AtomicU64; 14] {
        [
            &self.edicts_issued,
            &self.edicts_applied,
            &self.edicts_dropped,
            &self.stamps_refused,
            &self.wants,
            &self.offers,
            &self.questions_dropped,
            &self.adopted,
            &self.rows_kept_back,
            &self.releases_dropped,
            &self.rows_merged,
            &self.rows_ignored,
            &self.rows_refused,
            &self.cells_forgotten,
        ]
    }
}

/// One more.
pub(in crate::table) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Shared by all shards of a replicated table.
pub(in crate::table) struct Shared {
    pub lineages: Arc<Lineages>,
    /// Entries that hold a place but are invisible: expired ones in their grace, tombstones.
    pub hidden: AtomicUsize,
    pub counts: Counts,
    /// Locked after a shard, never before one.
    pub journal: Mutex<Journal>,
    /// Locked while a collection runs; the last number given before the latest one.
    pub collecting: Mutex<u64>,
    /// The last number given, as `journal` has it.
    pub newest: AtomicU64,
    /// Positions of the journal whose entry was stamped again or is gone.
    pub holes: AtomicUsize,
    /// Number of the own journal that every node known to the cluster has had for [`FRESH_MIN_MS`].
    pub acked_by_all: AtomicU64,
    /// The same, reported since that time.
    acked_lately: Mutex<(u64, u64)>,
    /// Highest version merged, by lineage.
    pub highest: Mutex<std::collections::BTreeMap<Lineage, u64>>,
    /// Up to which number another lineage's own journal was read here, if that was said: see [`super::held::is_over`].
    pub followed: Mutex<std::collections::BTreeMap<Lineage, u64>>,
    /// Somebody who may come back has not heard of what was removed lately.
    pub someone_away: AtomicBool,
    wall_offset: AtomicI64,
    /// The earliest stamp that was refused because it was too far ahead, or 0 where others may have lost against one that is
    /// gone; `u64::MAX`: none.
    pub refused_ms: AtomicU64,
    /// A recent reading of the monotonic clock, for assignments that come without one.
    latest_ms: AtomicU64,
    /// A bit per shard with changed entries.
    dirty_shards: Box<[AtomicU64]>,
    dirty: AtomicBool,
    /// Whoever collects comes by itself.
    expects: AtomicBool,
    pub waker: RwLock<Option<Waker>>,
}

impl Shared {
    pub fn new(lineages: Arc<Lineages>, shards: usize) -> Shared {
        Shared {
            lineages,
            hidden: AtomicUsize::new(0),
            counts: Counts::default(),
            journal: Mutex::default(),
            collecting: Mutex::default(),
            newest: AtomicU64::new(0),
            holes: AtomicUsize::new(0),
            acked_by_all: AtomicU64::new(0),
            acked_lately: Mutex::default(),
            highest: Mutex::default(),
            followed: Mutex::default(),
            someone_away: AtomicBool::new(false),
            wall_offset: AtomicI64::new(0),
            refused_ms: AtomicU64::new(u64::MAX),
            latest_ms: AtomicU64::new(0),
            dirty_shards: (0..shards.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            dirty: AtomicBool::new(false),
            expects: AtomicBool::new(false),
            waker: RwLock::new(None),
        }
    }
    /// Learns what every other node has acknowledged by now. It counts once it has been true for a while: an offer of an
    /// older share, made by one of them, may be on its way on another stream.
    pub fn note_acked(&self, number: u64, now_ms: u64) {
        let mut lately = self.acked_lately.lock();
        let (reported, since) = &mut *lately;
        *reported = number.min(*reported);
        self.acked_by_all.fetch_min(number, Relaxed);
        if now_ms >= since.saturating_add(u64::from(FRESH_MIN_MS)) {
            self.acked_by_all.fetch_max(*reported, Relaxed);
            *lately = (number, now_ms);
        }
    }
    /// Learns what time it is.
    pub fn note_time(&self, now_ms: u64) {
        self.latest_ms.fetch_max(now_ms, Relaxed);
    }
    pub fn set_wall_offset(&self, ms: i64) {
        self.wall_offset.store(ms, Relaxed);
    }
    /// The wall clock at that time of the monotonic one; 0 = whenever that was last read.
    pub fn wall_ms(&self, now_ms: u64) -> u64 {
        let now_ms = if now_ms == 0 {
            self.latest_ms.load(Relaxed)
        } else {
            now_ms
        };
        now_ms.saturating_add_signed(self.wall_offset.load(Relaxed))
    }
    /// A stamp for an assignment made now, later than `newest`. `now_ms` 0: now is when the clock was last read.
    pub fn new_stamp(&self, newest: Stamp, now_ms: u64) -> Stamp {
        Stamp {
            ms: self.wall_ms(now_ms).max(newest.ms.saturating_add(1)),
            lineage: self.lineages.own(),
        }
    }

    /// Called under the shard's lock when its list gets its first entry.
    pub(super) fn shard_is_dirty(&self, shard: u16) {
        if let Some(word) = self.dirty_shards.get(usize::from(shard) / 64) {
            word.fetch_or(1 << (shard % 64), AcqRel);
        }
        // Whoever collects clears this flag before the bits, so that a bit set too late for it wakes it again.
        if !self.dirty.swap(true, SeqCst)
            && !self.expects.load(SeqCst)
            && let Some(wake) = &*self.waker.read()
        {
            wake();
        }
    }
    /// The same without waking: for what a collection leaves over.
    pub fn stays_dirty(&self, shard: u16) {
        if let Some(word) = self.dirty_shards.get(usize::from(shard) / 64) {
            word.fetch_or(1 << (shard % 64), AcqRel);
        }
        self.dirty.store(true, Relaxed);
    }
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(SeqCst)
    }
    /// See [`super::Replica::expect`].
    pub fn expect(&self, collection: bool) {
        self.expects.store(collection, SeqCst);
    }
    pub fn clear_dirty(&self) {
        self.dirty.swap(false, AcqRel);
    }
    /// Takes the bits of 64 shards.
    pub fn take_dirty_shards(&self, word: usize) -> Option<u64> {
        Some(self.dirty_shards.get(word)?.swap(0, AcqRel))
    }
}

/// The replica side of a shard.
pub(in crate::table) struct ReplicaShard {
    pub shared: Arc<Shared>,
    /// The shard's own number.
    pub number: u16,
    /// Cells of other lineages, chained from their records.
    pub cells: Slab,
    pub(super) exts: HashTable<Box<Ext>>,
    pub graced: Hidden,
    pub tombs: Hidden,
    pub lent: Hidden,
    /// When `lent` was looked through last.
    pub lent_checked_ms: u64,
    /// When an entry was last entered here: a reading of the clock that costs requests nothing. See [`Shared::wall_ms`].
    pub latest_ms: u64,
    /// Slots of entries that changed since they were last stamped; each at most once.
    pub dirty: Vec<u32>,
}

impl ReplicaShard {
    pub fn new(
        shared: Arc<Shared>,
        layout: &ReplicaLayout,
        number: u16,
        most: usize,
        share: usize,
    ) -> ReplicaShard {
        ReplicaShard {
            shared,
            number,
            cells: Slab::new(layout.blank_cell.len(), most, share),
            exts: HashTable::new(),
            graced: Hidden::EMPTY,
            tombs: Hidden::EMPTY,
            lent: Hidden::EMPTY,
            lent_checked_ms: 0,
            latest_ms: 0,
            dirty: Vec::new(),
        }
    }
    /// Bytes of memory in use beside the records.
    pub fn bytes(&self) -> usize {
        size_of::<ReplicaShard>()
            + self.cells.bytes()
            + self.exts.allocation_size()
            + self.exts.iter().map(|ext| ext.bytes()).sum::<usize>()
            + self.dirty.capacity() * size_of::<u32>()
    }

    /// Notes that an entry was changed or touched here. Next to free when that is known already.
    #[inline]
    pub fn mark(&mut self, record: &mut [u8], slot: u32) {
        let flags = word(record, FLAGS);
        if flags & DIRTY == 0 {
            self.mark_first(record, slot, flags);
        }
    }
    fn mark_first(&mut self, record: &mut [u8], slot: u32, flags: u32) {
        set_word(record, FLAGS, flags | DIRTY | LISTED);
        if flags & LISTED == 0 {
            self.dirty.push(slot);
            if self.dirty.len() == 1 {
                self.shared.shard_is_dirty(self.number);
            }
        }
    }

    /// Edicts and epochs of an entry whose `EXT` flag is set.
    pub fn ext(&self, slot: u32) -> Option<&Ext> {
        self.exts
            .find(hash(slot), |ext| ext.slot == slot)
            .map(|ext| &**ext)
    }
    pub fn ext_mut(&mut self, slot: u32) -> Option<&mut Ext> {
        self.exts
            .find_mut(hash(slot), |ext| ext.slot == slot)
            .map(|ext| &mut **ext)
    }
    /// The same, made if need be; the caller sets the `EXT` flag.
    pub fn ext_or_new(&mut self, slot: u32) -> &mut Ext {
        self.exts
            .entry(hash(slot), |ext| ext.slot == slot, |ext| hash(ext.slot))
            .or_insert_with(|| Box::new(Ext::new(slot)))
            .into_mut()
    }
    pub fn drop_ext(&mut self, slot: u32) {
        if let Ok(found) = self.exts.find_entry(hash(slot), |ext| ext.slot == slot) {
            found.remove();
        }
    }
}

/// Spreads slot numbers, which nobody chooses, over both ends of the word.
pub(super) fn hash(slot: u32) -> u64 {
    u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl std::fmt::Debug for ReplicaShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaShard")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
