//! Who is alive. A lineage's gauges count while somebody hears it: this node, or a node that this one hears.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Action, Ended, Event, SessionId};
use super::hub::Hub;
use super::limits::{
    BROKEN_MAX, FORGET_LINEAGE_MS, LEASE_MS, LEND_MS, LINEAGES_MANY, MISMATCHES_SAID_MAX,
    ONE_WAY_MS, RENEWAL_MS, REST_MS, SHORT_BREAK_MS, SILENCE_MS,
};
use super::peer::Peer;
use super::receive::InSession;
use crate::table::{LINEAGES_MAX, Lineage, Rest, TOMBSTONE_MIN_MS};

/// What is known of another lineage.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// Name of its node; empty while it is only known from hearsay.
    pub(super) node: String,
    /// When something came from it directly.
    pub(super) heard_at: Option<u64>,
    /// It is heard, here or by somebody who is heard here.
    pub(super) is_known: bool,
    /// Until when it counts as alive because the process before this one heard it. That is no reason to vouch for it.
    pub(super) inherited_until: u64,
    /// Its silence was forgiven since it was last heard: see [`Hub::excuse`].
    excused: bool,
    /// It said goodbye: only a new session proves that it is back.
    pub(super) ended: bool,
    /// A later process of its node says that it has died, whoever heard it a moment ago; the same proves the contrary.
    over: bool,
    pub(super) alive: bool,
    /// When it was alive last, be it that others said so: who was never met here may come back with old counts all the same.
    alive_at: Option<u64>,
    /// Since when no session brings its journal; `None`: one does.
    pub(super) unfed_since: Option<u64>,
    /// Since when its journal has come without a long break; 0: since it began. `None`: it never came.
    pub(super) fed_since: Option<u64>,
    pub(super) met_at: u64,
    /// Tables that differ there, and how, as far as that was said: both sessions find the same.
    mismatches: BTreeSet<(String, String)>,
}

impl Life {
    /// It is there, or was not long ago and did not say goodbye.
    pub(super) fn may_return(&self, now: u64) -> bool {
        !self.ended
            && !self.over
            && (self.alive || self.alive_at.is_some_and(|at| now < at + FORGET_LINEAGE_MS))
    }
    /// Its journal has not come for so long that it was not asked what others were asked meanwhile.
    pub(super) fn comes_anew(&self, now: u64) -> bool {
        self.unfed_since.is_some_and(|at| now > at + SHORT_BREAK_MS) || self.fed_since.is_none()
    }
    /// A session that brings its journal begins. `from_start`: nothing of it was missed. Returns whether it comes after a
    /// long break, be it that others told of it long ago and it never came.
    pub(super) fn feeds(&mut self, from_start: bool, now: u64) -> bool {
        let Some(unfed_since) = self.unfed_since.take() else {
            return false;
        };
        let short = now <= unfed_since + SHORT_BREAK_MS;
        let whole = from_start && self.fed_since.is_none();
        self.fed_since = Some(match self.fed_since {
            None if from_start => 0,
            Some(since) if short => since,
            _ => now,
        });
        !short && !whole
    }
    /// Its journal has come without a long break since that time, or since it began.
    pub(super) fn fed_since(&self, time: u64, now: u64) -> bool {
        self.fed_since.is_some_and(|since| since <= time)
            && self.unfed_since.is_none_or(|at| now <= at + SHORT_BREAK_MS)
    }
    /// Something came from it.
    fn hear(&mut self, now: u64) {
        self.heard_at = Some(now);
        self.excused = false;
    }
    /// Whether it counts as alive because of the process before this one.
    fn is_inherited(&self, now: u64) -> bool {
        !self.ended && !self.over && now < self.inherited_until
    }
    /// It was heard here within the lease.
    pub(super) fn is_heard(&self, now: u64) -> bool {
        let heard = self.heard_at.is_some_and(|at| now < at + LEASE_MS);
        heard && !self.ended && !self.over
    }
}

/// A session that broke, which is to be said.
pub(super) struct Broken {
    pub(super) at: u64,
    lineage: Lineage,
    node: String,
    incoming: bool,
    why: Ended,
}

impl Hub {
    /// The entry of a lineage that a session named. `None`: there is no place for another one.
    pub(super) fn meet(&mut self, lineage: Lineage, node: &str, now: u64) -> Option<&mut Life> {
        self.config.lineages.index(lineage)?;
        let life = self.lives.entry(lineage).or_insert_with(|| Life {
            node: String::new(),
            heard_at: None,
            is_known: false,
            inherited_until: 0,
            excused: false,
            ended: false,
            over: false,
            alive: false,
            alive_at: None,
            unfed_since: Some(now),
            fed_since: None,
            met_at: now,
            mismatches: BTreeSet::new(),
        });
        if !node.is_empty() {
            node.clone_into(&mut life.node);
        }
        Some(life)
    }

    /// A session was agreed on: whatever was thought of that lineage, it lives.
    pub(super) fn greeted(&mut self, lineage: Lineage, node: &str, now: u64) -> Option<()> {
        let life = self.meet(lineage, node, now)?;
        life.ended = false;
        life.over = false;
        life.hear(now);
        self.refresh_lives(now);
        Some(())
    }
    /// A table differs from that lineage's. Said once.
    pub(super) fn mismatched(&mut self, lineage: Lineage, table: &str, texts: &[String]) {
        for text in texts {
            let Some(life) = self.lives.get_mut(&lineage) else {
                return;
            };
            let news = (table.to_owned(), text.clone());
            if life.mismatches.len() < MISMATCHES_SAID_MAX && life.mismatches.insert(news) {
                let event = Event::Mismatch {
                    node: life.node.clone(),
                    table: table.to_owned(),
                    text: text.clone(),
                };
                self.log(event);
            }
        }
    }
    /// Something came from a lineage.
    pub(super) fn hear(&mut self, lineage: Lineage, now: u64) {
        let Some(life) = self.lives.get_mut(&lineage) else {
            return;
        };
        life.hear(now);
        if !life.alive && !life.ended {
            self.refresh_lives(now);
        }
    }
    /// A lineage said goodbye.
    pub(super) fn farewell(&mut self, lineage: Lineage, now: u64) {
        if let Some(life) = self.lives.get_mut(&lineage) {
            life.ended = true;
        }
        for shared in &mut self.tables {
            shared.acked.remove(&lineage);
            shared.offers.retain(|(to, _)| *to != lineage);
        }
        self.refresh_lives(now);
    }

    /// These lineages of this node are over: the processes have died, whoever heard them a moment ago. What they held and still is
    /// held has become this process's. To be called before there are sessions.
    pub fn succeed_dead(&mut self, lineages: &[Lineage]) {
        self.over = lineages.to_vec();
    }
    /// Whether all that was here when this process began has been sent in a session.
    pub(super) fn has_told_all(&self, id: SessionId) -> bool {
        let Some(out) = self.outs.get(&id).filter(|out| out.is_up()) else {
            return false;
        };
        let mut tables = out.tables.iter().zip(&self.tables);
        tables.all(|(table, shared)| {
            let told = |first: u64| table.started && table.sent >= first;
            !table.agreed || shared.first.is_some_and(told)
        })
    }
    /// A node says that lineages of its former processes are over. So is every other one of its name that nobody is connected
    /// with: it may have been too short-lived for the next one to know of it.
    pub(super) fn are_over(&mut self, id: SessionId, over: &[Lineage], now: u64) {
        let Some(session) = self.ins.get(&id) else {
            return;
        };
        let fed: BTreeSet<Lineage> = self.ins.values().filter_map(InSession::pusher).collect();
        let mut changed = false;
        for (lineage, life) in &mut self.lives {
            let namesake = life.node == session.node && !fed.contains(lineage);
            if over.contains(lineage) || namesake {
                changed |= !std::mem::replace(&mut life.over, true);
            }
        }
        if changed {
            self.refresh_lives(now);
        }
    }

    /// Sets everybody's alive bit, and sends heartbeats at once if those heard here are others than before.
    pub(super) fn refresh_lives(&mut self, now: u64) {
        self.refreshed_at = now;
        let heard: Vec<Lineage> = self
            .lives
            .iter()
            .filter(|(_, life)| life.is_heard(now))
            .map(|(lineage, _)| *lineage)
            .collect();
        let mut vouched: Vec<Lineage> = self
            .ins
            .values()
            .filter(|session| {
                session
                    .pusher()
                    .is_some_and(|p| heard.binary_search(&p).is_ok())
            })
            .flat_map(|session| session.vouched.iter().copied())
            .collect();
        vouched.sort_unstable();
        vouched.dedup();
        for lineage in &vouched {
            if *lineage != self.own
                && Some(*lineage) != self.before
                && !self.over.contains(lineage)
                && !self.lives.contains_key(lineage)
            {
                self.meet(*lineage, "", now);
            }
        }
        let mut changed = Vec::new();
        let mut back = Vec::new();
        for (lineage, life) in &mut self.lives {
            life.is_known = !life.ended
                && !life.over
                && (heard.binary_search(lineage).is_ok() || vouched.binary_search(lineage).is_ok());
            let alive = life.is_known || life.is_inherited(now);
            if alive {
                life.alive_at = Some(now);
            }
            if alive != life.alive {
                life.alive = alive;
                // The register may have given the place of a dead one to another.
                let index = if alive {
                    self.config.lineages.index(*lineage)
                } else {
                    self.config.lineages.find(*lineage)
                };
                if let Some(index) = index {
                    if self.config.lineages.rest(index) == Rest::Trackers {
                        back.push(*lineage);
                    }
                    self.config.lineages.set_alive(index, alive);
                }
                changed.push(Event::Alive {
                    node: life.node.clone(),
                    lineage: *lineage,
                    alive,
                    ended: life.ended,
                });
            }
        }
        for lineage in back {
            for shared in &mut self.tables {
                shared.unlearn(lineage);
            }
        }
        for event in changed {
            self.log(event);
        }
        if heard != self.vouching {
            self.vouching = heard;
            for out in self.outs.values_mut() {
                out.heartbeat_at = now;
            }
        }
    }

    /// When a lease ends next, of those that were running when that was looked at last.
    pub(super) fn next_lapse(&self) -> u64 {
        let lapses = self
            .vouching
            .iter()
            .filter_map(|lineage| Some(self.lives.get(lineage)?.heard_at? + LEASE_MS));
        let inherited = self.lives.values().filter(|life| life.alive);
        let inherited = inherited.map(|life| life.inherited_until);
        let coming = |at: &u64| *at > self.refreshed_at;
        let inherited = inherited.filter(coming).min();
        lapses.chain(inherited).min().unwrap_or(u64::MAX)
    }

    /// Closes sessions on which nothing came for too long.
    pub(super) fn close_silent(&mut self, now: u64) {
        let silent = |heard_at: u64| now >= heard_at + SILENCE_MS;
        let outs = self.outs.iter().filter(|(_, s)| silent(s.heard_at));
        let ins = self.ins.iter().filter(|(_, s)| silent(s.heard_at));
        let ids: Vec<_> = outs
            .map(|(id, _)| *id)
            .chain(ins.map(|(id, _)| *id))
            .collect();
        for id in ids {
            self.end(id, Ended::Silent, now, true);
        }
    }

    /// This process stood still: nobody's silence during that time counts, as what they said may be waiting. Once: who is not
    /// heard when the process runs again is not there, and one that is starved stands still again and again.
    pub(super) fn excuse(&mut self, stalled_ms: u64, now: u64) {
        for life in self.lives.values_mut() {
            if !std::mem::replace(&mut life.excused, true) {
                life.heard_at = life.heard_at.map(|at| now.min(at + stalled_ms));
            }
        }
        for out in self.outs.values_mut() {
            out.heard_at = now.min(out.heard_at + stalled_ms);
        }
        for session in self.ins.values_mut() {
            session.heard_at = now.min(session.heard_at + stalled_ms);
        }
    }

    /// Tells the tables what all others have, whether there are sessions to them now or not: every lineage that may come
    /// back as it was.
    pub(super) fn report_acks(&mut self, now: u64) {
        let strangers = self.peers.values().any(Peer::is_stranger);
        let lives = &self.lives;
        let names = alive_names(lives);
        for (table, shared) in self.tables.iter_mut().enumerate() {
            let Some(store) = self.stores.store(shared.id) else {
                continue;
            };
            shared.acked.retain(|lineage, _| {
                lives.get(lineage).is_some_and(|life| {
                    let recent = life.alive_at.is_some_and(|at| now < at + FORGET_LINEAGE_MS);
                    recent && !superseded(&names, life)
                })
            });
            let waiting = self.outs.values().filter_map(|out| out.acked(table));
            let known = shared.acked.values().copied();
            let all = waiting.chain(known).min().unwrap_or(u64::MAX);
            store.set_acked_by_all(if strangers { 0 } else { all }, now);
        }
    }

    /// Whether a node that was alive may come back.
    pub(super) fn is_anyone_away(&self, now: u64) -> bool {
        let names = alive_names(&self.lives);
        self.lives.values().any(|life| {
            life.may_return(now)
                && !life.is_heard(now)
                && !life.is_inherited(now)
                && !superseded(&names, life)
        })
    }
    /// Tells the tables whether somebody is away: who was alive, here or by hearsay, and may come back. Who has come back gets some time to
    /// hear everything.
    pub(super) fn report_away(&mut self, now: u64) {
        if self.is_anyone_away(now) {
            self.away_until = now + u64::from(TOMBSTONE_MIN_MS);
        }
        for shared in &self.tables {
            if let Some(store) = self.stores.store(shared.id) {
                store.set_someone_away(now < self.away_until);
            }
        }
    }

    /// Peers that this node reaches and that do not reach it are lent its connections. Warns of those that do not take them:
    /// what they count does not come here directly. Once for each session.
    pub(super) fn lend(&mut self, now: u64) {
        let mut silent = Vec::new();
        let mut lends = Vec::new();
        for (id, out) in self.outs.iter_mut().filter(|(_, out)| out.is_up()) {
            let Some(remote) = &out.remote else {
                continue;
            };
            let dials = |s: &InSession| s.pusher() == Some(remote.lineage);
            if self.ins.values().any(dials) {
                out.one_way_since = now;
                out.lend_at = now + LEND_MS.0;
                continue;
            }
            if now >= out.lend_at && !self.stopping {
                out.lend_at = now + LEND_MS.1;
                lends.push(*id);
            }
            if now >= out.one_way_since + ONE_WAY_MS && !out.one_way_told {
                out.one_way_told = true;
                silent.push(remote.node.clone());
            }
        }
        for id in lends {
            self.act(Action::Lend(id));
        }
        for node in silent {
            self.log(Event::OneWay { node });
        }
    }

    /// A session with this lineage broke. That is said once it is known whether there is another one.
    pub(super) fn broke(
        &mut self,
        lineage: Lineage,
        node: String,
        incoming: bool,
        why: Ended,
        now: u64,
    ) {
        if self.broken.len() >= BROKEN_MAX || self.stopping {
            return self.log(Event::Down {
                node,
                incoming,
                why,
            });
        }
        self.broken.push_back(Broken {
            at: now + RENEWAL_MS,
            lineage,
            node,
            incoming,
            why,
        });
    }
    /// Says what became of sessions that broke.
    pub(super) fn report_broken(&mut self, now: u64) {
        if self.suspended {
            // The process that goes on meets them again, and says what there is to say.
            self.broken.clear();
            return;
        }
        let is_due = |broken: &Broken| now >= broken.at || self.stopping;
        let due = self.broken.iter().take_while(|b| is_due(b)).count();
        let due: Vec<Broken> = self.broken.drain(..due).collect();
        for broken in due {
            let Broken {
                lineage,
                node,
                incoming,
                why,
                ..
            } = broken;
            let renewed = if incoming {
                self.ins.values().any(|s| s.pusher() == Some(lineage))
            } else {
                self.outs.values().any(|out| out.leads_to(lineage))
            };
            self.log(if renewed {
                Event::Renewed {
                    node,
                    incoming,
                    why,
                }
            } else {
                Event::Down {
                    node,
                    incoming,
                    why,
                }
            });
        }
    }

    /// Says what tables may forget of those who have been silent for long. Who was never met, because it was gone before
    /// this node came, is silent from when its cells came.
    pub(super) fn lay_to_rest(&mut self, now: u64) {
        let lineages = &self.config.lineages;
        let (lives, strangers) = (&self.lives, &mut self.strangers);
        for index in 1..lineages.len() {
            let index = index as u16;
            if lineages.is_alive(index) {
                continue;
            }
            let lineage = lineages.id(index);
            let (since, rest) = match lives.get(&lineage) {
                Some(life) if life.ended => (life.alive_at, Rest::Blank),
                Some(life) => (life.alive_at.or(Some(life.met_at)), Rest::Trackers),
                None => (
                    Some(*strangers.entry(lineage).or_insert(now)),
                    Rest::Trackers,
                ),
            };
            if since.is_none_or(|at| now >= at + REST_MS) {
                lineages.set_rest(index, rest);
            }
        }
        let unmet = |lineage: &Lineage| !lives.contains_key(lineage);
        strangers.retain(|lineage, _| unmet(lineage) && lineages.find(*lineage).is_some());
        let held = lineages.held();
        if held < LINEAGES_MANY / 2 {
            self.crowd_told = false;
        } else if held >= LINEAGES_MANY && !std::mem::replace(&mut self.crowd_told, true) {
            self.log(Event::Crowd(held));
        }
    }

    /// Drops what is remembered of lineages past the bound: the dead ones of which no table holds anything.
    pub(super) fn forget_lineages(&mut self, now: u64) {
        if self.lives.len() <= LINEAGES_MAX {
            return;
        }
        let lineages = &self.config.lineages;
        self.lives.retain(|lineage, life| {
            life.alive || life.is_heard(now) || lineages.find(*lineage).is_some()
        });
        let lives = &self.lives;
        for shared in &mut self.tables {
            shared
                .known
                .retain(|lineage, _| lives.contains_key(lineage));
            shared
                .shown_at
                .retain(|lineage, _| lives.contains_key(lineage));
            shared
                .pauses
                .retain(|lineage, _| lives.contains_key(lineage));
            shared
                .filled
                .retain(|(from, of), _| lives.contains_key(from) && lives.contains_key(of));
            shared.wants.retain(|(from, _)| lives.contains_key(from));
            shared.offers.retain(|(to, _)| lives.contains_key(to));
        }
    }
}

/// Names of nodes that are alive.
fn alive_names(lives: &BTreeMap<Lineage, Life>) -> BTreeSet<&str> {
    let alive = lives.values().filter(|life| life.alive);
    alive.map(|life| &life.node[..]).collect()
}

/// Whether a later lineage of the same node has been heard since: then this one will not come back.
fn superseded(names: &BTreeSet<&str>, life: &Life) -> bool {
    !life.alive && !life.node.is_empty() && names.contains(&life.node[..])
}
