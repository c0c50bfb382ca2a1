//! Merging one row into a node: the rules, one after the other.

use super::node::{COLUMNS, Cell, Column, Entry, GRACE, ModelNode, Value};
use super::row::{Applied, Row};
use super::window::Window;

impl ModelNode {
    /// Merges a row pushed by `from`, which has acked this node's journal up to `acked`.
    pub fn apply(&mut self, row: &Row, acked: u64, now: i64, applied: &mut Applied) {
        self.settle(now);
        let mine = row.lineage == self.lineage;
        if let Some(cell) = &row.cell {
            let highest = self.highest.entry(row.lineage).or_default();
            *highest = cell.version.max(*highest);
            if mine {
                self.newest = self.newest.max(cell.version);
            }
        }
        self.yield_old_tombstone(row, row.first > 0 && !mine, now);
        // Who holds an entry renews it, also while this row was on its way.
        let held = row.cell.as_ref().is_some_and(|c| c.held) && self.alive.contains(&row.lineage);
        let over = self.deadline(row.touched).saturating_add(GRACE);
        let dead = !held && over <= now;
        let lapsed =
            |e: &Entry| e.tomb.is_none() && self.deadline(self.touched(e, now)) <= row.born;
        let absent = self.entries.get(&row.key).is_none_or(lapsed);
        let decrees = row.edicts.contains_key(&None);
        if absent {
            if dead && !decrees {
                return;
            }
            if !self.entries.contains_key(&row.key) {
                self.make_room(now);
            }
            let mut entry = Entry::new(row.born);
            entry.touched = row.touched;
            if let Some(old) = self.entries.get(&row.key) {
                entry.dirty = old.own.version > 0; // whoever still has that share hears of it
            }
            self.entries.insert(row.key, entry);
            if row.holds_others && !dead {
                applied.wants.insert(row.key);
            } else if self.expire.is_some() && !dead && now - row.born >= GRACE {
                applied.unsure.insert(row.key); // it may have been known here once
            }
        }
        let entry = &self.entries[&row.key];
        if !held && self.deadline(row.touched) <= entry.born {
            return; // an older life
        }
        // Lives of one key that are that far apart did not begin with the same events: ours began in ignorance.
        let apart = self.expire.map_or(i64::MAX, |expire| expire / 2);
        let known = entry.cells.get(&row.lineage).map_or(0, |c| c.version);
        let news = !mine && row.cell.as_ref().is_some_and(|c| c.version > known);
        if entry.born.saturating_sub(row.born) >= apart {
            applied.wants_of_all.insert(row.key);
            self.speak(row.key); // others may have learned of it from us
        } else if news && row.born.saturating_sub(entry.born) >= apart {
            self.speak(row.key); // theirs did, and others may have learned of it from there
        }
        let entry = &self.entries[&row.key];
        let was_over = entry.tomb.is_none() && !absent && self.is_expired(entry, now);
        if row.first > 0 && !mine && !absent && self.should_offer(entry, row, acked) {
            applied.offers.insert(row.key);
        }
        self.merge_edicts(row, now);
        if absent && dead {
            if self.entries[&row.key].tomb.is_none() {
                self.entries.remove(&row.key); // only a tombstone would have been worth keeping
            }
            return;
        }
        let mut entry = self.entries.remove(&row.key).unwrap();
        entry.touched = entry.touched.max(row.touched);
        entry.born = entry.born.min(row.born);
        for (own, new) in entry.registers.iter_mut().zip(row.registers) {
            if new.1 > own.1 && new.1 > entry.edicts.get(&None).copied() {
                *own = new;
                // What was said here and forgotten comes home: say it again.
                entry.dirty |= new.1.is_some_and(|stamp| stamp.1 == self.lineage);
            }
        }
        if let Some(cell) = &row.cell {
            let mut cell = entry.void(cell);
            cell.settle(now);
            if mine {
                Self::adopt(&mut entry, &cell, now);
            } else {
                Self::take(&mut entry, row, cell);
            }
        }
        self.entries.insert(row.key, entry);
        if was_over && !self.is_expired(&self.entries[&row.key], now) {
            self.speak(row.key); // revived: others may have dropped it, or taken the own row for dead
        }
    }
    /// Has an entry told to all, if anything is known of it.
    fn speak(&mut self, key: super::node::KeyNumber) {
        let entry = self.entries.get_mut(&key).unwrap();
        entry.dirty |= entry.own.version > 0 || entry.cells.values().any(|c| !c.is_zero());
    }
    fn yield_old_tombstone(&mut self, row: &Row, fresh: bool, now: i64) {
        let half = self.tombstone_time() / 2;
        let other_life = |e: &Entry| self.deadline(e.touched) <= row.born;
        let old = |e: &Entry| {
            e.tomb
                .is_some_and(|since| now - since >= half || other_life(e))
        };
        let knows_nothing = fresh && !row.edicts.contains_key(&None);
        if knows_nothing && self.entries.get(&row.key).is_some_and(old) {
            self.entries.remove(&row.key);
        }
    }
    /// Whether the pusher of a fresh row lacks something that only comes when told.
    fn should_offer(&self, entry: &Entry, row: &Row, acked: u64) -> bool {
        let held = entry.cells.get(&row.lineage);
        let known = held.map_or(0, |c| c.version);
        if row.cell.as_ref().is_none_or(|c| c.version <= known) {
            return false; // no news
        }
        let older_share = known < row.first && held.is_some_and(|c| !c.is_zero());
        let theirs = row.edicts.get(&None).copied();
        let newer_edict = entry
            .edicts
            .iter()
            .any(|(scope, stamp)| theirs < Some(*stamp) && row.edicts.get(scope) < Some(stamp));
        let mut registers = entry.registers.iter().zip(row.registers);
        let newer_register = registers.any(|(own, row)| own.1 > row.1.max(theirs));
        let dead = |lineage: &u64| !self.alive.contains(lineage);
        let lacks_all = !row.holds_others
            && ((1..=acked).contains(&entry.own.version) || entry.cells.keys().any(dead));
        older_share || newer_edict || newer_register || lacks_all
    }
    fn merge_edicts(&mut self, row: &Row, now: i64) {
        for (scope, stamp) in &row.edicts {
            self.learn(row.key, *scope, *stamp, now);
        }
        let entry = self.entries.get_mut(&row.key).unwrap();
        let theirs = row.edicts.get(&None).copied();
        if theirs.is_some() && theirs == entry.all() && !row.tomb && entry.tomb.is_some() {
            entry.tomb = None;
            entry.born = row.touched;
            entry.touched = entry.touched.max(row.touched);
        }
    }
    fn adopt(entry: &mut Entry, old: &Cell, now: i64) {
        if !entry.fresh || (entry.first > 0 && old.version >= entry.first) {
            return;
        }
        entry.fresh = false;
        entry.dirty = true;
        let own = entry.own.values.iter_mut().zip(&old.values);
        for (column, (own, old)) in own.enumerate() {
            match (own, old, COLUMNS[column]) {
                (Value::Count(own), Value::Count(old), Column::Counter) => *own += old,
                (Value::Rate(own), Value::Rate(old), Column::Rate(period)) => {
                    Window::adopt(own, *old, now, period);
                }
                _ => {}
            }
        }
    }
    fn take(entry: &mut Entry, row: &Row, cell: Cell) {
        if let Some(known) = entry.cells.get(&row.lineage) {
            let kept_for_adoption = known.version < row.first && !known.is_zero();
            if cell.version <= known.version || kept_for_adoption {
                return;
            }
        }
        entry.cells.insert(row.lineage, cell);
    }
}
