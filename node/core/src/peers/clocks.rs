//! Wall clocks of other nodes that are far from this one's, and this one's when it has come back from afar.

use super::event::Event;
use super::hub::Hub;
use super::learn::Lack;
use crate::table::{Lineage, STAMP_AHEAD_MAX_MS};

/// How far a clock was set back is taken for a multiple of this, the nearest one: nodes that are set together are so alike.
const STEP_MS: u64 = 3_600_000;

impl Hub {
    /// The wall clock minus the monotonic one is so much now. When it has come to what peers were refused for, they are asked
    /// for everything once more.
    pub(super) fn follow_clock(&mut self, offset_ms: i64, now: u64) {
        let back_ms = self.wall_offset_ms.saturating_sub(offset_ms);
        self.wall_offset_ms = offset_ms;
        if self.ticked {
            for session in self.ins.values_mut() {
                session.skew_ms = session.skew_ms.saturating_add(back_ms);
            }
            for skew_ms in self.outs.values_mut().filter_map(|o| o.skew_ms.as_mut()) {
                *skew_ms = skew_ms.saturating_add(back_ms);
            }
            self.set_back_ms = self.set_back_ms.saturating_add(back_ms).max(0);
        }
        for shared in &self.tables {
            if let Some(store) = self.stores.store(shared.id) {
                store.set_wall_offset(offset_ms);
            }
        }
        self.mend(now);
        for (own, shared) in self.tables.iter_mut().enumerate() {
            let Some(store) = self.stores.store(shared.id) else {
                continue;
            };
            // A walk under way may have shown some of it before.
            let tables = self.ins.values().filter_map(|s| s.table_of(own));
            let mut asked = tables.filter_map(|table| table.asked.as_ref());
            if !asked.any(|asked| asked.all) && store.takes_what_it_refused(now) {
                shared.lack = Lack::Everything;
            }
        }
    }

    /// Has the clock been set back, and do most peers think that it is right now, then what was stamped far ahead is set back, too.
    /// If they do not, it is the clock that is wrong and not the stamps.
    fn mend(&mut self, now: u64) {
        let steps = self.set_back_ms.unsigned_abs().saturating_add(STEP_MS / 2) / STEP_MS;
        if steps == 0 {
            return;
        }
        let ins = self.ins.values().filter(|session| session.is_up());
        let outs = self.outs.values().filter_map(|out| out.skew_ms);
        let skews: Vec<i64> = ins.map(|s| s.skew_ms).chain(outs).collect();
        let near = |skew_ms: &&i64| skew_ms.unsigned_abs() <= STAMP_AHEAD_MAX_MS;
        if skews.iter().filter(near).count() * 2 <= skews.len() {
            return;
        }
        self.set_back_ms = 0;
        let stores = self.tables.iter();
        let stores = stores.filter_map(|shared| self.stores.store(shared.id));
        let mended: usize = stores
            .map(|store| store.mend_stamps(steps * STEP_MS, now))
            .sum();
        if mended > 0 {
            self.log(Event::Mended(mended));
        }
    }

    /// Says whose clock is so far away that what is stamped there or here is refused, once for each until that is over.
    pub(super) fn report_clocks(&mut self) {
        let ins = self.ins.values().filter(|session| session.is_up());
        let ins = ins.map(|session| (session.lineage, &session.node, session.skew_ms));
        let outs = self.outs.values().filter_map(|out| {
            let remote = out.remote.as_ref()?;
            Some((remote.lineage, &remote.node, out.skew_ms?))
        });
        let mut events = Vec::new();
        for (lineage, node, skew_ms) in ins.chain(outs) {
            let is_far = skew_ms.unsigned_abs() > STAMP_AHEAD_MAX_MS;
            let was_far = self.skewed.contains(&lineage);
            if is_far && !was_far {
                self.skewed.insert(lineage);
            } else if was_far && !is_far {
                self.skewed.remove(&lineage);
                self.misdated.remove(&lineage);
            } else {
                continue;
            }
            events.push(Event::Skewed {
                node: node.clone(),
                skew_ms,
                is_far,
            });
        }
        for event in events {
            self.log(event);
        }
        let met = |lineage: &Lineage| self.lives.contains_key(lineage);
        self.skewed.retain(met);
        self.misdated.retain(met);
    }

    /// A batch of this peer had stamps that were refused.
    pub(super) fn note_misdated(&mut self, from: Lineage, node: String) {
        // Whose clock is known to be away needs no more words.
        if !self.skewed.contains(&from) && self.misdated.insert(from) {
            self.log(Event::Misdated { node });
        }
    }
}
