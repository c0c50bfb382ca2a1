//! A node that ends leaves its lineage to a successor, so that restarts do not leave ever more lineages behind, of which
//! entries that never expire would keep a cell each.
//!
//! Three things make that safe. Who ends has stopped counting, has had everything acknowledged, and leaves its lineage to
//! *one* peer; that peer gives it to *one* newcomer; and the newcomer continues it only if whoever taught it every table had
//! all of that lineage, and before it has counted anything itself. If any of this fails, nobody continues it, as after a
//! death. What follows is what happens at a reload: the same lineage, cells and numbers, in another process.

use super::event::{Ended, Event, ReadyWhy, SessionId};
use super::hub::Hub;
use super::limits::ESTATES_MAX;
use super::messages::{self, Holdings, Reply};
use super::push::Phase;
use super::store::Store;
use crate::table::Lineage;

/// A lineage that was left here.
#[derive(Clone, Debug)]
pub(super) struct Estate {
    pub(super) lineage: Lineage,
    /// Name of its node.
    node: String,
    /// Our number of the table, last number of its journal.
    numbers: Vec<(usize, u64)>,
}

/// The lineage that a newcomer may continue.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    lineage: Lineage,
    /// Who offers it: nobody is a better teacher.
    pub(super) from: Lineage,
    /// Per table the last number of its journal, and whether the teacher had everything up to there.
    tables: Vec<(u64, bool)>,
}

impl Hub {
    /// Whether this node's lineage may be left to that peer: nobody has it yet, and the peer has everything.
    pub(super) fn leaves_to(&self, id: SessionId) -> bool {
        let Some(out) = self.outs.get(&id) else {
            return false;
        };
        let complete = |(number, shared): (usize, &super::shared::Shared)| {
            let newest = self.store(shared).map(Store::newest);
            out.acked(number).is_some() && out.acked(number) == newest
        };
        self.config.sole
            && self.ready
            && !self.left
            && !self.tables.is_empty()
            && self.tables.iter().enumerate().all(complete)
    }

    /// A peer ends and leaves its lineage to this node.
    pub(super) fn bequeathed(&mut self, id: SessionId, numbers: &[(u32, u64)]) {
        let Some(session) = self.ins.get(&id) else {
            return;
        };
        let Some(lineage) = session.pusher() else {
            return;
        };
        let mut known = Vec::with_capacity(self.tables.len());
        for (own, shared) in self.tables.iter().enumerate() {
            let Some(theirs) = session.theirs(own) else {
                return;
            };
            let number = numbers.iter().find(|(table, _)| *table == theirs);
            let Some((_, number)) = number.filter(|(_, n)| *n <= shared.known(lineage).all) else {
                return;
            };
            known.push((own, *number));
        }
        let node = session.node.clone();
        self.estates.retain(|estate| estate.lineage != lineage);
        if self.estates.len() >= ESTATES_MAX {
            self.estates.remove(0);
        }
        self.estates.push(Estate {
            lineage,
            node,
            numbers: known,
        });
    }

    /// What the newcomer of that name gets, if anything was left here: of a node of that name if possible. `theirs`: its number of each of
    /// our tables.
    pub(super) fn estate_for(
        &mut self,
        node: &str,
        theirs: &[Option<u32>],
    ) -> Option<messages::Estate> {
        let same = self.estates.iter().position(|e| e.node == node);
        let at = same.or((!self.estates.is_empty()).then_some(0))?;
        let numbers = self.estates.get(at)?.numbers.iter().map(|(own, number)| {
            let theirs = theirs.get(*own).copied().flatten()?;
            Some((theirs, *number))
        });
        let numbers: Option<Vec<(u32, u64)>> = numbers.collect();
        let numbers = numbers?;
        let estate = self.estates.remove(at);
        Some(messages::Estate {
            lineage: estate.lineage,
            numbers,
        })
    }

    /// The peer of lineage `from` offers a lineage to this newcomer.
    pub(super) fn offered(&mut self, from: Lineage, estate: &messages::Estate) {
        let lineage = estate.lineage;
        if !self.config.sole || !self.is_newcomer() || self.claim.is_some() || lineage == self.own {
            return;
        }
        let number = |own: usize| {
            let found = estate
                .numbers
                .iter()
                .find(|(table, _)| *table as usize == own);
            found.map(|(_, number)| (*number, *number == 0))
        };
        let tables: Option<Vec<(u64, bool)>> = (0..self.tables.len()).map(number).collect();
        match tables {
            Some(tables) => {
                self.claim = Some(Claim {
                    lineage,
                    from,
                    tables,
                });
            }
            None => {
                let why = "it had other tables";
                self.log(Event::BeginsAnew { lineage, why });
            }
        }
    }
    /// The teacher of a table is through. `complete`: it had cells of others whole.
    pub(super) fn prove(&mut self, own: usize, holdings: &Holdings, complete: bool) {
        let Some(claim) = &mut self.claim else {
            return;
        };
        let held = holdings
            .iter()
            .find(|(lineage, _)| *lineage == claim.lineage);
        if let Some((number, proven)) = claim.tables.get_mut(own) {
            *proven |= complete && held.is_some_and(|(_, held)| held >= number);
        }
    }

    /// All tables are learned, and nothing has been counted: continues the lineage that was left to this node, if there is
    /// one and nothing of it is missing.
    pub(super) fn succeed(&mut self, why: ReadyWhy, now: u64) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        let heir = claim.lineage;
        let alive = self.lives.get(&heir).is_some_and(|life| life.alive);
        let proven = claim.tables.iter().all(|(_, proven)| *proven);
        let blank = self.tables.iter().all(|shared| {
            self.store(shared)
                .is_some_and(|store| store.newest() == 0 && store.can_succeed(heir))
        });
        let obstacle = if why != ReadyWhy::Taught {
            Some("not all tables were learned")
        } else if alive {
            Some("it is alive")
        } else if !proven {
            Some("who taught this node had not all of it")
        } else if !blank {
            Some(
                "something was counted before all was learned, or what was learned of it is not whole",
            )
        } else {
            None
        };
        if let Some(why) = obstacle {
            return self.log(Event::BeginsAnew { lineage: heir, why });
        }
        for (shared, (number, _)) in self.tables.iter_mut().zip(&claim.tables) {
            let Some(store) = self.stores.store(shared.id) else {
                continue;
            };
            store.succeed(heir, *number, now);
            shared.flushed = store.newest();
            shared.ages.note(shared.flushed, now);
            shared.known.remove(&heir);
            shared
                .filled
                .retain(|(from, of), _| *from != heir && *of != heir);
        }
        if !self.config.lineages.become_lineage(heir) {
            // No place for it, though its cells had one: it cannot be.
            let why = "all places for lives of nodes are taken";
            return self.log(Event::BeginsAnew { lineage: heir, why });
        }
        self.before = Some(std::mem::replace(&mut self.own, heir));
        self.lives.remove(&heir);
        self.log(Event::Succeeds(heir));
        // Everybody is to know under which name this node goes on.
        let mut unheard = Vec::new();
        for (id, out) in &mut self.outs {
            match out.phase {
                Phase::Up => {
                    self.rejoining.insert(out.peer);
                    out.leave();
                }
                Phase::HelloSent => unheard.push(*id),
                Phase::Opened | Phase::Left => {}
            }
        }
        for id in unheard {
            self.end(id, Ended::Restarted, now, true);
        }
        for session in self.ins.values_mut().filter(|s| s.is_up()) {
            // The pusher comes again.
            session.replies.push_back(Reply::Goodbye);
            session.ending = Some(Ended::Renamed);
        }
        self.refresh_lives(now);
    }
}
