//! Room for an entry in a table that is smaller than the one before: the oldest that nobody holds goes.

use super::Importer;
use crate::table::schema::TOUCHED;
use crate::table::shard::{Shard, date as shard_date};

impl Importer<'_> {
    /// Finds a place in a full table for an entry that was touched then; `None`: it must have one.
    pub(super) fn make_room(&mut self, home: usize, touched: Option<u32>, now_ms: u64) -> Room {
        let table = self.table;
        let Some(shrinks) = &mut self.shrinks else {
            // The sender is as full, and has evicted the same one. It counts that.
            let _turn = self.turn.lock();
            let before = table.events().evictions;
            let made = table.make_room(home, now_ms);
            table.forget_evictions(table.events().evictions - before);
            return if made { Room::Made } else { Room::None };
        };
        if table.find_room(home, now_ms) {
            return Room::Made;
        }
        loop {
            let oldest = shrinks.oldest.iter().copied().enumerate();
            let Some((at, date)) = oldest.min_by_key(|(_, date)| *date) else {
                return Room::None;
            };
            let older = touched.is_some_and(|touched| shard_date(now_ms, touched) <= date);
            let Some(padded) = table.shards.get(if older { home } else { at }) else {
                return Room::None;
            };
            let mut shard = padded.lock();
            if older {
                shard.events.evictions += 1;
                shrinks.dropped += 1;
                return Room::Older;
            }
            if date == u64::MAX {
                return Room::None; // all are in use
            }
            let known = oldest_of(&mut shard, now_ms);
            if let Some(date) = shrinks.oldest.get_mut(at) {
                *date = known;
            }
            if known == date && shard.evict(&table.schema, now_ms) {
                shrinks.dropped += 1;
                return Room::Made;
            }
        }
    }

    /// An entry that was touched then is in the order now.
    pub(super) fn note_oldest(&mut self, home: usize, touched: u32, now_ms: u64) {
        if let Some(shrinks) = &mut self.shrinks
            && let Some(oldest) = shrinks.oldest.get_mut(home)
        {
            *oldest = (*oldest).min(shard_date(now_ms, touched));
        }
    }
}

/// See [`Importer::make_room`].
pub(super) enum Room {
    Made,
    /// All others were touched later.
    Older,
    None,
}

/// When the entry of a shard that goes first was touched; the end of time if all are in use.
pub(super) fn oldest_of(shard: &mut Shard, now_ms: u64) -> u64 {
    let lent = shard.replica.as_ref().and_then(|r| r.lent.first());
    let oldest = lent.or_else(|| shard.oldest(now_ms));
    oldest.map_or(u64::MAX, |slot| {
        shard_date(now_ms, shard.word(slot, TOUCHED))
    })
}
