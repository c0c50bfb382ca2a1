//! What is known of whom, and closing the gaps that dead or unreachable nodes leave.
//!
//! A node that is killed may have reached one survivor and not another. Every node tells the others what it holds of third
//! parties; who may lack something, and has no session that would bring it, asks, once for each such claim.

use std::collections::BTreeMap;

use super::event::{Ended, SessionId};
use super::hub::Hub;
use super::learn::{Lack, Learn};
use super::limits::{GAP_PAUSE, HEARTBEAT_MS, LEASE_MS, REVISIONS_MAX, TEACH_FROM};
use super::messages::{Held, Holdings, Reply};
use super::receive::{Asked, InSession};
use super::shared::{Filled, Known, Shared};
use super::store::Store;
use crate::table::{EXPIRED_GRACE_MS, LINEAGES_MAX, Lineage};

impl Shared {
    pub(super) fn known(&self, lineage: Lineage) -> Known {
        self.known.get(&lineage).copied().unwrap_or_default()
    }
    /// Where to resume a lineage's own journal.
    pub(super) fn resume(&self, lineage: Lineage) -> u64 {
        self.known(lineage).resume
    }
    /// A batch of a lineage's own journal was merged.
    pub(super) fn follow(&mut self, lineage: Lineage, upto: u64, whole: bool) {
        let known = self.known.entry(lineage).or_default();
        known.resume = known.resume.max(upto);
        if whole {
            known.raise(upto);
            if std::mem::take(&mut known.again) {
                known.revision = known.revision.wrapping_add(1); // who was shown less should look again
            }
        }
    }
    /// Something of a lineage came and was not taken.
    pub(super) fn left(&mut self, lineage: Lineage, version: u64) {
        let known = self.known.entry(lineage).or_default();
        let limit = version.saturating_sub(1);
        known.limit = Some(known.limit.map_or(limit, |known| known.min(limit)));
    }
    /// A lineage's cells above [`Known::all`] were shown again: only what was not taken this time limits it.
    pub(super) fn was_shown(&mut self, lineage: Lineage, left: &[(Lineage, u64)]) {
        if let Some(known) = self.known.get_mut(&lineage) {
            known.limit = None;
        }
        for (_, version) in left.iter().filter(|(of, _)| *of == lineage) {
            self.left(lineage, *version);
        }
    }
    /// See [`Known::all`]: the caller vouches for it that nothing is missing up to there.
    /// `resume`: that lineage's journal may also be resumed there.
    fn raise(&mut self, lineage: Lineage, number: u64, resume: bool) {
        let known = self.known.entry(lineage).or_default();
        known.raise(number);
        if resume {
            known.resume = known.resume.max(number);
        }
    }
    /// A lineage's journal comes again after a long break. Entries may be gone there that its trackers hold here, and
    /// gone here although its trackers hold them there: it has to say everything again.
    pub(super) fn read_again(&mut self, lineage: Lineage) {
        if let Some(known) = self.known.get_mut(&lineage) {
            known.resume = 0;
            known.limit = None;
            known.again = true;
        }
    }
    /// Cells of a lineage that was taken for gone may have been forgotten here, with trackers that count again: it has to
    /// say everything again, or whoever hears it.
    pub(super) fn unlearn(&mut self, lineage: Lineage) {
        if let Some(known) = self.known.get_mut(&lineage) {
            known.all = 0;
        }
        self.read_again(lineage);
        self.filled.retain(|(_, of), _| *of != lineage);
        self.pauses.remove(&lineage);
        self.shown_at.remove(&lineage);
    }
    /// A walk about a lineage has ended: how long to wait before the next one. See [`GAP_PAUSE`].
    fn pause(&mut self, lineage: Lineage, took: u64, news: bool, now: u64, jitter: u64) {
        let (times, longest) = GAP_PAUSE;
        let (until, last) = self.pauses.entry(lineage).or_default();
        let next = if news {
            took.saturating_mul(times)
        } else {
            last.saturating_mul(2).max(HEARTBEAT_MS)
        };
        *last = next.min(longest);
        // A quarter more or less, so that nodes do not ask in step.
        *until = now + *last - *last / 4 + *last / 2 * jitter / 100;
    }
    /// A walk because of a claim has ended.
    fn was_filled(&mut self, pusher: Lineage, claim: Held) {
        let place = (pusher, claim.lineage);
        let before = self.filled.get(&place).filter(|filled| {
            (filled.claim.known, filled.claim.highest) == (claim.known, claim.highest)
        });
        let times = before.map_or(1, |filled| filled.times.saturating_add(1));
        self.filled.insert(place, Filled { claim, times });
    }
    /// Whether a claim need not be followed up (again).
    fn is_filled(&self, pusher: Lineage, claim: &Held) -> bool {
        self.filled
            .get(&(pusher, claim.lineage))
            .is_some_and(|filled| {
                filled.claim == *claim
                    || (filled.times >= REVISIONS_MAX
                        && (filled.claim.known, filled.claim.highest)
                            == (claim.known, claim.highest))
            })
    }
    /// Cells of third parties came otherwise than by a walk: whoever was through with what this node holds of them, although
    /// that is not proven to be all, should look again.
    pub(super) fn holds_more(
        &mut self,
        store: &dyn Store,
        from: Lineage,
        own: Lineage,
        lineages: &[u64],
    ) {
        for lineage in lineages.iter().map(|id| Lineage(*id)) {
            if lineage == from || lineage == own {
                continue;
            }
            let known = self.known.entry(lineage).or_default();
            if store.highest(lineage) > known.all {
                known.revision = known.revision.wrapping_add(1);
            }
        }
    }
    /// What to tell others about a lineage.
    pub(super) fn held(&self, store: &dyn Store, lineage: Lineage) -> Held {
        let known = self.known(lineage);
        Held {
            lineage,
            known: known.all,
            highest: store.highest(lineage).max(known.all),
            revision: known.revision,
        }
    }
}

impl Hub {
    /// The end of a walk that was asked for.
    pub(super) fn taught(
        &mut self,
        id: SessionId,
        theirs: u32,
        holdings: Holdings,
        now: u64,
    ) -> Result<(), Ended> {
        let jitter = (self.own.0 ^ now) % 101;
        let session = self.ins.get_mut(&id);
        let Some((pusher, table)) = session.and_then(|s| Some((s.pusher()?, s.table_mut(theirs)?)))
        else {
            return Err(Ended::Protocol("end of a walk of no table"));
        };
        let Some((own, asked)) = table.own.zip(table.asked.take()) else {
            return Err(Ended::Protocol("end of a walk nobody asked for"));
        };
        let Some(shared) = self.tables.get_mut(own) else {
            return Ok(());
        };
        let took = now.saturating_sub(asked.at);
        if asked.all {
            shared.lack = match shared.lack {
                Lack::Nothing => Lack::Nothing,
                _ if table.partial => Lack::Columns,
                _ => Lack::Nothing,
            };
        }
        for claim in asked.claims {
            shared.pause(claim.lineage, took, asked.news, now, jitter);
            shared.was_shown(claim.lineage, &asked.left);
            // Whatever came is all there is. Without this, two nodes that both lack the same would ask for ever.
            shared.was_filled(pusher, claim);
            if asked.news {
                let known = shared.known.entry(claim.lineage).or_default();
                known.revision = known.revision.wrapping_add(1);
            }
        }
        // See `is_steady`.
        let steady =
            table.claims.is_empty() || holdings.iter().any(|(lineage, _)| *lineage != pusher);
        let teacher = shared.learn == Learn::From(id);
        let whole = !table.partial;
        let taught = teacher.then(|| holdings.clone());
        for (lineage, number) in holdings {
            // A table that lacks some of our columns has cells of third parties only in part.
            let complete = lineage == pusher || !table.partial;
            if complete && lineage != self.own && self.config.lineages.index(lineage).is_some() {
                let alive = self.lives.get(&lineage).is_some_and(|life| life.alive);
                shared.raise(lineage, number, alive || shared.def.expire_ms.is_none());
                shared.shown_at.insert(lineage, now);
            }
        }
        if teacher && steady {
            // What the teacher had not missed is not missed here.
            self.taught_at = Some(now);
            let started_at = self.started_at;
            for life in self.lives.values_mut() {
                if life.fed_since.is_some_and(|at| at >= started_at) {
                    life.fed_since = Some(0);
                }
            }
        }
        if let Some(holdings) = taught {
            self.prove(own, &holdings, whole);
        }
        self.was_taught(id, own, now);
        self.learn_again(now);
        self.ask_for_gaps_in(own, now);
        Ok(())
    }

    /// Notes what a pusher says it holds of others.
    pub(super) fn claimed(
        &mut self,
        id: SessionId,
        theirs: u32,
        holdings: Vec<Held>,
    ) -> Result<(), Ended> {
        let Some(table) = self.ins.get_mut(&id).and_then(|s| s.table_mut(theirs)) else {
            return Err(Ended::Protocol("holdings of no table"));
        };
        for held in holdings {
            if held.lineage != self.own {
                table.claims.insert(held.lineage, held);
            }
            // A walk that begins after this was said covers it.
            if let Some(asked) = table.asked.as_mut().filter(|asked| !asked.begun) {
                let claim = asked.claims.iter_mut().find(|c| c.lineage == held.lineage);
                match claim {
                    Some(claim) => *claim = held,
                    None if asked.all => asked.claims.push(held),
                    None => {}
                }
            }
            if table.claims.len() > 2 * LINEAGES_MAX {
                return Err(Ended::Protocol("holdings of too many lineages"));
            }
        }
        Ok(())
    }

    /// Asks those who have more of a lineage than we do, where no session of that lineage's own will bring it.
    pub(super) fn ask_for_gaps(&mut self, now: u64) {
        for own in 0..self.tables.len() {
            self.ask_for_gaps_in(own, now);
        }
    }
    fn ask_for_gaps_in(&mut self, own: usize, now: u64) {
        // What was known of them may be gone here, with entries that live on there.
        let steady = self.is_steady(own, now);
        for (id, claims) in self.gaps(own, now) {
            let (Some(shared), Some(session)) = (self.tables.get_mut(own), self.ins.get_mut(&id))
            else {
                continue;
            };
            let Some(theirs) = session.theirs(own) else {
                continue;
            };
            let reply = if claims.len() >= TEACH_FROM {
                session.ask_for_all(own, now);
                Reply::Teach { table: theirs }
            } else {
                let after = claims
                    .iter()
                    .map(|claim| {
                        let known = shared.known(claim.lineage).all;
                        (claim.lineage, if steady { known } else { 0 })
                    })
                    .collect();
                if let Some(table) = session.table_mut(theirs) {
                    table.asked = Some(Asked {
                        all: false,
                        claims,
                        at: now,
                        begun: false,
                        left: Vec::new(),
                        news: false,
                    });
                }
                Reply::Gap {
                    table: theirs,
                    after,
                }
            };
            session.replies.push_back(reply);
            self.counters.gaps_asked += 1;
        }
    }

    /// Whom to ask because of which claims.
    fn gaps(&self, own: usize, now: u64) -> BTreeMap<SessionId, Vec<Held>> {
        let mut asked: BTreeMap<SessionId, Vec<Held>> = BTreeMap::new();
        let Some(shared) = self.tables.get(own).filter(|t| t.learn == Learn::Done) else {
            return asked;
        };
        // What was known of them may be gone here, with entries that live on there.
        let sure_since = self.is_steady(own, now).then_some(0);
        let sure_since = sure_since.or_else(|| self.whole_since());
        // One of several equal claims is enough, and what is on its way need not be asked for again.
        let mut under_way: Vec<Held> = Vec::new();
        for session in self.ins.values() {
            if let Some(walk) = session.table_of(own).and_then(|t| t.asked.as_ref()) {
                under_way.extend(&walk.claims);
            }
        }
        for (id, session) in &self.ins {
            let Some((pusher, table)) = session.pusher().zip(session.table_of(own)) else {
                continue;
            };
            if table.asked.is_some() {
                continue;
            }
            for claim in table.claims.values() {
                let shown_at = shared.shown_at.get(&claim.lineage).copied();
                let known = match sure_since {
                    Some(since) if shown_at.unwrap_or(0) >= since => {
                        shared.known(claim.lineage).all
                    }
                    _ => 0,
                };
                let news = claim.highest > known && !shared.is_filled(pusher, claim);
                let soon =
                    |other: &Held| other.lineage == claim.lineage && other.highest >= claim.highest;
                let pause = shared.pauses.get(&claim.lineage);
                let paused = pause.is_some_and(|(until, _)| now < *until)
                    && self.lives.get(&claim.lineage).is_some_and(|l| l.alive);
                if news
                    && !paused
                    && !under_way.iter().any(soon)
                    && !self.is_fed(claim.lineage, own, now)
                {
                    under_way.push(*claim);
                    asked.entry(*id).or_default().push(*claim);
                }
            }
        }
        asked
    }

    /// Whether what this node has merged of others is also what it holds: in a table whose entries expire, one that was
    /// parted from somebody for long may have dropped cells of entries that live on elsewhere. Then it must not vouch for
    /// numbers of third parties.
    pub(super) fn is_steady(&self, own: usize, now: u64) -> bool {
        let expire = self.tables.get(own).and_then(|t| t.def.expire_ms);
        let Some(expire) = expire else {
            return true;
        };
        let since = now.saturating_sub(u64::from(expire) + u64::from(EXPIRED_GRACE_MS));
        self.lives
            .values()
            .all(|life| !life.alive || life.fed_since(since, now))
    }

    /// Since when the journals of all that are alive have come without a break; `None`: one does not come.
    fn whole_since(&self) -> Option<u64> {
        let alive = self.lives.values().filter(|life| life.alive);
        alive
            .map(|life| life.fed_since.filter(|_| life.unfed_since.is_none()))
            .try_fold(0, |latest, since| Some(latest.max(since?)))
    }

    /// Whether this node may vouch for numbers of third parties: it is steady, and nobody it was parted from can be
    /// keeping entries alive that it has dropped.
    pub(super) fn may_vouch(&self, own: usize, now: u64) -> bool {
        let expires = self
            .tables
            .get(own)
            .is_some_and(|t| t.def.expire_ms.is_some());
        self.is_steady(own, now) && !(expires && self.is_anyone_away(now))
    }

    /// Whether every entry that lives anywhere is known here too: as [`Hub::is_steady`], and no lineage has died so
    /// recently that it may have touched, unheard here, what still lives elsewhere.
    pub(super) fn is_settled(&self, own: usize, now: u64) -> bool {
        let Some(expire) = self.tables.get(own).and_then(|t| t.def.expire_ms) else {
            return true;
        };
        let time = u64::from(expire) + u64::from(EXPIRED_GRACE_MS) + LEASE_MS;
        let mourned = |life: &super::live::Life| {
            !life.alive && !life.ended && life.unfed_since.is_some_and(|at| now < at + time)
        };
        self.is_steady(own, now) && !self.lives.values().any(mourned)
    }

    /// Whether a lineage's own journal comes, or may be expected to come soon.
    fn is_fed(&self, lineage: Lineage, own: usize, now: u64) -> bool {
        let direct = |s: &InSession| {
            s.pusher() == Some(lineage) && s.table_of(own).is_some_and(|t| t.started)
        };
        if self.ins.values().any(direct) {
            return true;
        }
        // Nobody waits for one of whom it is known that it is gone.
        self.lives.get(&lineage).is_some_and(|life| {
            life.alive && life.unfed_since.is_some_and(|at| now < at + LEASE_MS)
        })
    }
}
