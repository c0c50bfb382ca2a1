//! Reading rows out: for peers that follow the journal, that are taught by a walk, that asked for keys.

use smallvec::SmallVec;

use super::cells::RemoteCell;
use super::edicts::{Ext, NEVER, register_stamp};
use super::epitaphs::EPITAPH;
use super::journal::{Item, first, is_live};
use super::state::{ReplicaShard, flags};
use super::{JournalRead, Replica, Which};
use crate::peers::batch::{BatchWriter, Budget, EdictRow, RowFlags, RowHead, zigzag};
use crate::table::data_type::Kind;
use crate::table::lineage::Rest;
use crate::table::rate::age_ms;
use crate::table::schema::{BORN, Cell, FLAGS, TOUCHED, USES, VERSION, rate, wide, word};
use crate::table::shard::Shard;
use crate::table::{Cursor, Key, Table};

/// Items of the journal copied per look at it.
const ITEMS: usize = 256;
/// Entries that one call of a walk looks at, however few it shows.
const SEEN_MAX: usize = 1 << 15;
/// Rows read while a shard stays locked.
const ROWS_PER_LOCK: usize = 64;

/// Under a shard's lock: writes rows of one entry.
struct RowWriter<'a> {
    replica: Replica<'a>,
    now_ms: u64,
    out: &'a mut BatchWriter,
}

impl RowWriter<'_> {
    /// Stamps the own cell if it changed since it was stamped, so that no number has two contents. Returns whether it did.
    fn settle(&self, shard: &mut Shard, slot: u32) -> bool {
        let (record, Some(replica)) = shard.parts(slot) else {
            return false;
        };
        if word(record, FLAGS) & flags::DIRTY == 0 {
            return false;
        }
        let shared = std::sync::Arc::clone(&replica.shared);
        replica.stamp(&mut shared.journal.lock(), record, slot);
        true
    }

    /// Flags, and ages of the entry's last touch and of its life.
    fn head(&self, record: &[u8], replica: &ReplicaShard) -> RowHead {
        let now = self.now_ms as u32;
        let age = age_ms(now, word(record, TOUCHED));
        let lifetime = self.replica.table.schema.lifetime;
        let touch_age_ms = match lifetime {
            // Its time began again whenever it ended.
            Some(lifetime)
                if age >= lifetime
                    && (word(record, USES) > 0 || replica.is_held_elsewhere(record)) =>
            {
                age % lifetime
            }
            _ => age,
        };
        let lived = lifetime.map_or(0, |_| age_ms(now, word(record, BORN)));
        RowHead {
            flags: RowFlags::NONE.with_if(ReplicaShard::is_tomb(record), RowFlags::TOMB),
            lineage: replica.shared.lineages.own(),
            touch_age_ms,
            born_age_ms: lived.max(touch_age_ms),
            ..RowHead::default()
        }
    }
    fn own_head(&self, record: &[u8], replica: &ReplicaShard, ext: Option<&Ext>) -> RowHead {
        let version = wide(record, VERSION);
        let fresh = word(record, FLAGS) & flags::FRESH != 0;
        let head = self.head(record, replica);
        RowHead {
            flags: head
                .flags
                .with_if(fresh, RowFlags::FRESH)
                .with_if(word(record, USES) > 0, RowFlags::HELD),
            version,
            first: if fresh { first(record, version) } else { 0 },
            epoch: ext.map(|ext| ext.own_epoch).filter(|epoch| *epoch > NEVER),
            ..head
        }
    }

    /// The row of the own cell, with edicts and registers.
    fn own(&mut self, shard: &Shard, slot: u32, say_others: bool) {
        let Some(replica) = shard.replica.as_deref() else {
            return;
        };
        let record = shard.record(slot);
        let ext = ext(replica, record, slot);
        let mut head = self.own_head(record, replica, ext);
        if say_others {
            let holds = replica
                .chain(record)
                .any(|cell| !self.replica.layout.is_blank(cell.bytes, self.now_ms));
            head.flags = head.flags.with_if(holds, RowFlags::HOLDS_OTHERS);
        }
        self.begin(record, &head, ext);
        for column in self.replica.layout.summed() {
            self.value(record, column.at, column);
        }
        self.registers(record);
    }
    /// The row of another lineage's cell; with edicts and registers if it is the entry's first.
    fn other(&mut self, shard: &Shard, slot: u32, cell: &RemoteCell<'_>, first: bool) {
        let Some(replica) = shard.replica.as_deref() else {
            return;
        };
        let record = shard.record(slot);
        let ext = ext(replica, record, slot);
        let head = self.head(record, replica);
        let head = RowHead {
            flags: head
                .flags
                .with_if(cell.is_held(), RowFlags::HELD)
                .with_if(cell.is_partial(), RowFlags::PARTIAL),
            lineage: replica.shared.lineages.id(cell.lineage()),
            version: cell.version(),
            epoch: ext
                .map(|ext| ext.epoch_of(cell.lineage()))
                .filter(|epoch| *epoch > NEVER),
            ..head
        };
        self.begin(record, &head, ext.filter(|_| first));
        for column in self.replica.layout.summed() {
            self.value(cell.bytes, column.remote, column);
        }
        if first {
            self.registers(record);
        }
    }
    fn begin(&mut self, record: &[u8], head: &RowHead, ext: Option<&Ext>) {
        let edicts = ext.map(edict_rows).unwrap_or_default();
        let key = self.replica.table.schema.key(record);
        self.out.row(key, head, &edicts);
    }
    #[inline]
    fn value(&mut self, bytes: &[u8], at: usize, column: &Cell) {
        match column.kind {
            Kind::Counter64 => self.out.counter(wide(bytes, at)),
            Kind::Rate => {
                let (rate, now) = (rate(bytes, at), self.now_ms as u32);
                if rate.is_over(now, column.period) {
                    self.out.rate_idle();
                } else {
                    self.out.rate(age_ms(now, rate.start), rate.cur, rate.prev);
                }
            }
            _ => self.out.counter(u64::from(word(bytes, at))),
        }
    }
    fn registers(&mut self, record: &[u8]) {
        for register in self.replica.layout.registers() {
            let value = word(record, register.at);
            let stamp = register_stamp(record, register);
            let stamp = (stamp > NEVER).then_some(stamp);
            match register.kind {
                Kind::ServerKey => {
                    let name = self.replica.table.servers.read().name(value);
                    // Assigned and then reset reads as an empty name.
                    self.out
                        .text(stamp.map(|stamp| (name.as_deref().unwrap_or_default(), stamp)));
                }
                Kind::ServerId => self.out.register(zigzag(value as i32), stamp),
                _ => self.out.register(value, stamp),
            }
        }
    }

    /// All rows of an entry.
    fn all(&mut self, shard: &mut Shard, slot: u32) {
        self.settle(shard, slot);
        let Some(replica) = shard.replica.as_deref() else {
            return;
        };
        let record = shard.record(slot);
        let mut first = true;
        if wide(record, VERSION) > 0 {
            self.own(shard, slot, false);
            first = false;
        }
        for cell in replica.chain(record) {
            self.other(shard, slot, &cell, first);
            first = false;
        }
        // Also one of which nothing is left but that it is there.
        if first && (self.is_assigned(record) || !ReplicaShard::is_tomb(record)) {
            self.assigned(shard, slot);
        }
    }
    /// Whether there are edicts or registers.
    fn is_assigned(&self, record: &[u8]) -> bool {
        let registers = self.replica.layout.registers();
        word(record, FLAGS) & flags::EXT != 0
            || registers
                .iter()
                .any(|register| register_stamp(record, register) > NEVER)
    }
    /// Whether an entry has no cell at all.
    fn is_bare(&self, record: &[u8], replica: &ReplicaShard) -> bool {
        wide(record, VERSION) == 0
            && !ReplicaShard::is_tomb(record)
            && replica.chain(record).next().is_none()
    }
    fn is_gone(&self, lineage: Option<u16>) -> bool {
        let lineages = &self.replica.shared.lineages;
        lineage.is_none_or(|index| lineages.rest(index) != Rest::Nothing)
    }
    /// The rows of an entry that a lineage walk shows.
    fn of_lineage(&mut self, shard: &mut Shard, slot: u32, of: crate::table::Lineage, after: u64) {
        let lineages = &self.replica.shared.lineages;
        if of == lineages.own() {
            self.settle(shard, slot);
            if wide(shard.record(slot), VERSION) > after {
                self.own(shard, slot, false);
            }
            return;
        }
        let Some(replica) = shard.replica.as_deref() else {
            return;
        };
        let record = shard.record(slot);
        let index = lineages.find(of);
        let cell = index.and_then(|index| replica.find_cell(record, index));
        let edicts = ext(replica, record, slot).is_some_and(|ext| {
            ext.all.lineage == of && ext.all > NEVER
                || ext.columns.iter().any(|(_, stamp)| stamp.lineage == of)
        });
        let registers = self.replica.layout.registers().iter().any(|register| {
            let stamp = register_stamp(record, register);
            stamp > NEVER && stamp.lineage == of
        });
        match cell {
            Some(cell) if cell.version() > after || edicts || registers => {
                self.other(shard, slot, &cell, true);
            }
            None if edicts || registers => self.assigned(shard, slot),
            // Its cell may have been forgotten here: then this is what is left of it.
            None if self.is_bare(record, replica) && self.is_gone(index) => {
                self.assigned(shard, slot);
            }
            _ => {}
        }
    }
    /// Says that an entry is gone which others were told is held here: a row without a cell, but with a number.
    fn epitaph(&mut self, number: u64) {
        let shared = self.replica.shared;
        let journal = shared.journal.lock();
        let Some(key) = journal.epitaphs.key(number) else {
            return;
        };
        let head = RowHead {
            flags: RowFlags::NO_CELL,
            lineage: shared.lineages.own(),
            version: number,
            ..RowHead::default()
        };
        self.out.row(key, &head, &[]);
        let layout = self.replica.layout;
        for column in layout.summed() {
            match column.kind {
                Kind::Rate => self.out.rate_idle(),
                _ => self.out.counter(0),
            }
        }
        for register in layout.registers() {
            match register.kind {
                Kind::ServerKey => self.out.text(None),
                _ => self.out.register(0, None),
            }
        }
    }
    /// A row without a cell.
    fn assigned(&mut self, shard: &Shard, slot: u32) {
        let Some(replica) = shard.replica.as_deref() else {
            return;
        };
        let record = shard.record(slot);
        let ext = ext(replica, record, slot);
        let head = self.head(record, replica);
        let head = RowHead {
            flags: head.flags.with(RowFlags::NO_CELL),
            ..head
        };
        self.begin(record, &head, ext);
        for column in self.replica.layout.summed() {
            self.value(&self.replica.layout.blank_cell, column.remote, column);
        }
        self.registers(record);
    }
}

fn ext<'a>(replica: &'a ReplicaShard, record: &[u8], slot: u32) -> Option<&'a Ext> {
    if word(record, FLAGS) & flags::EXT == 0 {
        return None;
    }
    replica.ext(slot)
}

fn edict_rows(ext: &Ext) -> SmallVec<[EdictRow; 4]> {
    let all = (ext.all > NEVER).then_some(EdictRow {
        column: None,
        stamp: ext.all,
    });
    let columns = ext.columns.iter().map(|(column, stamp)| EdictRow {
        column: Some(usize::from(*column)),
        stamp: *stamp,
    });
    all.into_iter().chain(columns).collect()
}

pub(super) fn read_journal(
    replica: &Replica<'_>,
    after: u64,
    budget: Budget,
    now_ms: u64,
    out: &mut BatchWriter,
) -> JournalRead {
    // Entries stamped on the way go to the end: without an end of its own, a reader would meet a hot key for ever.
    let end = replica.newest();
    let mut rows = RowWriter {
        replica: *replica,
        now_ms,
        out,
    };
    let mut items = Vec::with_capacity(ITEMS);
    let mut upto = after;
    let mut stamped = 0;
    while upto < end {
        items.clear();
        replica.shared.journal.lock().copy(upto, ITEMS, &mut items);
        if items.is_empty() {
            break;
        }
        let mut next = 0;
        while let Some(item) = items.get(next).copied() {
            if item.number > end {
                break;
            }
            if rows.out.is_full(budget) {
                return JournalRead {
                    upto,
                    more: true,
                    whole: false,
                };
            }
            let run = run_of(items.get(next..).unwrap_or_default(), end);
            let Some(shard) = replica.table.shards.get(usize::from(item.shard)) else {
                return JournalRead::default();
            };
            let mut shard = shard.lock();
            for item in run {
                if rows.out.is_full(budget) {
                    break;
                }
                next += 1;
                upto = item.number;
                if item.slot == EPITAPH {
                    rows.epitaph(item.number);
                } else if is_live(&shard, *item) {
                    stamped += u64::from(rows.settle(&mut shard, item.slot));
                    rows.own(&shard, item.slot, true);
                }
            }
        }
        if items.get(next).is_some() {
            break; // beyond the end
        }
    }
    // If nobody else stamped meanwhile, all that follows was just written.
    let newest = replica.newest();
    let upto = if newest == end.saturating_add(stamped) {
        newest
    } else {
        end
    };
    JournalRead {
        upto: upto.max(after),
        more: newest > upto.max(after),
        whole: true,
    }
}

/// The items at the beginning that lie in one shard, as far as one lock should go.
fn run_of(items: &[Item], end: u64) -> &[Item] {
    let Some(first) = items.first() else {
        return items;
    };
    let run = items
        .iter()
        .take(ROWS_PER_LOCK)
        .take_while(|item| item.shard == first.shard && item.number <= end)
        .count();
    items.get(..run).unwrap_or(items)
}

pub(super) fn read_walk(
    replica: &Replica<'_>,
    cursor: &mut Cursor,
    which: Which,
    budget: Budget,
    now_ms: u64,
    out: &mut BatchWriter,
) -> bool {
    let table: &Table = replica.table;
    let schema = &table.schema;
    let mut rows = RowWriter {
        replica: *replica,
        now_ms,
        out,
    };
    let mut seen = 0;
    table.walk_while(cursor, |shard, at| {
        seen += 1;
        // Also what has expired here: someone else may know of a later touch.
        let is_tomb = shard.flags(at.slot) & flags::TOMB != 0;
        if !(is_tomb && shard.is_tomb_over(schema, at.slot, now_ms)) {
            match which {
                Which::All => rows.all(shard, at.slot),
                Which::Lineage { lineage, after } => {
                    rows.of_lineage(shard, at.slot, lineage, after);
                }
            }
        }
        !rows.out.is_full(budget) && seen < SEEN_MAX
    })
}

impl Replica<'_> {
    /// All rows of one entry, for another process of this node.
    pub(in crate::table) fn export(
        &self,
        shard: &mut Shard,
        slot: u32,
        now_ms: u64,
        out: &mut BatchWriter,
    ) {
        let tomb = shard.flags(slot) & flags::TOMB != 0;
        if tomb && shard.is_tomb_over(&self.table.schema, slot, now_ms) {
            return;
        }
        let mut rows = RowWriter {
            replica: *self,
            now_ms,
            out,
        };
        rows.all(shard, slot);
    }
}

pub(super) fn read_keys(replica: &Replica<'_>, keys: &[Key], now_ms: u64, out: &mut BatchWriter) {
    let table = replica.table;
    let mut rows = RowWriter {
        replica: *replica,
        now_ms,
        out,
    };
    for key in keys {
        let hash = table.schema.hash(key.as_bytes());
        let Some(shard) = table.shards.get(table.shard_of(hash)) else {
            continue;
        };
        let mut shard = shard.lock();
        let Some(slot) = shard.find(&table.schema, hash, key.as_bytes()) else {
            continue;
        };
        rows.all(&mut shard, slot);
    }
}
