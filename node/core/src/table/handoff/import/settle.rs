//! What is done when all rows have come: the order of expiry, and what a table knows of itself.

use super::room::oldest_of;
use super::{Importer, Settled};
use crate::table::replica::Late;
use crate::table::schema::{PREV, TOUCHED, USES};
use crate::table::shard::{HELD, Shard};

impl Importer<'_> {
    /// Puts all entries that have not been yet into the touch order.
    pub(super) fn sort(&mut self, now_ms: u64) {
        if self.sorted {
            return;
        }
        self.sorted = true;
        for padded in &self.table.shards {
            let mut shard = padded.lock();
            self.sort_shard(&mut shard, now_ms);
            if let Some(shrinks) = &mut self.shrinks {
                shrinks.oldest.push(oldest_of(&mut shard, now_ms));
            }
        }
    }

    pub(super) fn sort_shard(&self, shard: &mut Shard, now_ms: u64) {
        let table = self.table;
        let mut nowhere: Vec<(u32, u32)> = (0..shard.slots())
            .filter(|slot| shard.word(*slot, PREV) == HELD && shard.word(*slot, USES) == 0)
            .map(|slot| {
                let age = crate::table::age_ms(now_ms as u32, shard.word(slot, TOUCHED));
                (age, slot)
            })
            .collect();
        nowhere.sort_unstable_by(|a, b| b.cmp(a));
        for (_, slot) in nowhere {
            shard.place(&table.schema, slot, now_ms);
        }
        table.note_evictable(shard, now_ms);
    }

    /// All entries have been shown once: makes the table fit for use. What is taken over afterwards goes to its place at
    /// once.
    pub fn settle(&mut self, now_ms: u64) {
        self.sort(now_ms);
        match self.late.replace(Late::new()) {
            Some(late) => {
                if let Some(replica) = self.table.replica() {
                    replica.journal_inherited(late);
                }
            }
            None => {
                let all = self.settle_part(0, 1, now_ms);
                self.settled(vec![all]);
            }
        }
    }

    /// One of `parts` parts of that, which may be done at the same time if [`Importer::is_divisible`]; [`Importer::settled`] is
    /// the rest.
    pub fn settle_part(&self, part: usize, parts: usize, now_ms: u64) -> Settled {
        let mut items = Late::new();
        let shards = self.table.shards.iter().skip(part);
        for padded in shards.step_by(parts.max(1)) {
            let mut shard = padded.lock();
            if !self.sorted {
                self.sort_shard(&mut shard, now_ms);
            }
            if shard.replica.is_some() {
                let taken = (0..shard.slots()).filter(|slot| shard.is_taken(*slot));
                items.extend(taken.filter_map(|slot| shard.journal_item(slot)));
            }
        }
        items.sort_unstable_by_key(|item| item.number);
        Settled(items)
    }

    /// All parts have been done.
    pub fn settled(&mut self, parts: Vec<Settled>) {
        self.sorted = true;
        self.shown = true;
        self.late = Some(Late::new());
        if let Some(replica) = self.table.replica() {
            let parts = parts.into_iter().map(|Settled(items)| items);
            let all = parts.reduce(|mut all, more| {
                all.extend(more);
                all
            });
            replica.journal_inherited(all.unwrap_or_default());
        }
    }

    /// The other process has sealed its table: the last call.
    pub fn seal(mut self, now_ms: u64) {
        self.settle(now_ms);
        self.let_go(now_ms);
        if let (Some(highest), Some(replica)) = (self.highest, self.table.replica()) {
            let held = highest.into_iter().filter(|(_, number)| *number > 0);
            replica.inherit(0, &held.collect::<Vec<_>>());
        }
    }
}
