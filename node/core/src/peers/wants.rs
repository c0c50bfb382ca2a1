//! Questions about single keys, and offers: how shares that one node lost come back from another.
//!
//! A question is asked until it is answered: if its session ends, again when that peer is back, or of another one when
//! it is dead. An offer is made until it is acknowledged.

use super::event::{Ended, SessionId};
use super::hub::Hub;
use super::limits::{KEPT_KEYS_MAX, WANT_BYTES, WANT_KEYS, WANTS_OPEN};
use super::messages::Reply;
use super::push::OutSession;
use super::receive::InSession;
use super::report::Dropped;
use crate::table::{Key, Lineage};

/// A key to ask about.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    key: Key,
    /// The others are asked too: what this one says can be said by nobody else.
    of_that_one: bool,
}

impl Wanted {
    /// One that whoever is there may answer.
    pub(super) fn of_anyone(key: Key) -> Wanted {
        Wanted {
            key,
            of_that_one: false,
        }
    }
}

impl InSession {
    /// Notes keys to ask the pusher about, of one of its tables: see [`InSession::ask`]. Returns how many were dropped: it
    /// has been asked about more than it answers.
    pub(super) fn want(&mut self, theirs: u32, keys: impl IntoIterator<Item = Wanted>) -> u64 {
        let Some(table) = self.table_mut(theirs) else {
            return 0;
        };
        let mut dropped = 0;
        for key in keys {
            if table.wants.len() < KEPT_KEYS_MAX {
                table.wants.push_back(key);
            } else {
                dropped += 1;
            }
        }
        dropped
    }
    /// Asks about as many of them as may be asked at a time.
    pub(super) fn ask(&mut self, theirs: u32) {
        let Some(table) = self.table_mut(theirs) else {
            return;
        };
        let mut replies = Vec::new();
        while table.asked_keys.len() < WANTS_OPEN && !table.wants.is_empty() {
            // One question fits a message, however long the keys are.
            let mut bytes = 0;
            let fits = |wanted: &&Wanted| {
                bytes += wanted.key.as_bytes().len();
                bytes <= WANT_BYTES
            };
            let count = table.wants.iter().take(WANT_KEYS).take_while(fits).count();
            let asked: Vec<Wanted> = table.wants.drain(..count.max(1)).collect();
            let keys = asked.iter().map(|wanted| wanted.key.clone()).collect();
            table.asked_keys.push_back(asked);
            replies.push(Reply::Want {
                table: theirs,
                keys,
            });
        }
        for reply in replies {
            self.replies.push_back(reply);
        }
    }
    /// An answer came.
    pub(super) fn answered(&mut self, theirs: u32) -> Result<(), Ended> {
        let asked = self
            .table_mut(theirs)
            .and_then(|table| table.asked_keys.pop_front());
        if asked.is_none() {
            return Err(Ended::Protocol("an answer to no question"));
        }
        self.ask(theirs);
        Ok(())
    }
}

impl Hub {
    /// Keys that a lineage could not be asked about.
    fn wants_dropped(&mut self, of: Lineage, wants: u64) {
        self.counters.wants_dropped += wants;
        let dropped = Dropped {
            wants,
            ..Dropped::default()
        };
        self.note_dropped(of, dropped);
    }
    /// Keys that a lineage could not be offered.
    fn offers_dropped(&mut self, to: Lineage, offers: u64) {
        self.counters.offers_dropped += offers;
        let dropped = Dropped {
            offers,
            ..Dropped::default()
        };
        self.note_dropped(to, dropped);
    }

    /// Keeps what a session that is over was not answered.
    pub(super) fn keep_wants(&mut self, session: &mut InSession) {
        let Some(from) = session.pusher() else {
            return;
        };
        let mut dropped = 0;
        for (own, asked) in session.take_wants() {
            if let Some(shared) = self.tables.get_mut(own) {
                let room = KEPT_KEYS_MAX.saturating_sub(shared.wants.len());
                dropped += asked.len().saturating_sub(room) as u64;
                let kept = asked.into_iter().take(room).map(|wanted| (from, wanted));
                shared.wants.extend(kept);
            }
        }
        self.wants_dropped(from, dropped);
    }
    /// Asks a pusher about keys of which it knows more.
    pub(super) fn want(&mut self, id: SessionId, own: usize, keys: Vec<Key>, now: u64) {
        if !self.is_steady(own, now) {
            // Entries may have expired on some nodes and not on others: each may hold what no other does.
            self.want_of_all(own, &keys, now);
            return;
        }
        self.counters.keys_wanted += keys.len() as u64;
        if let Some(session) = self.ins.get_mut(&id)
            && let Some(theirs) = session.theirs(own)
        {
            let dropped = session.want(theirs, keys.into_iter().map(Wanted::of_anyone));
            session.ask(theirs);
            if let Some(of) = session.pusher() {
                self.wants_dropped(of, dropped);
            }
        }
    }
    /// Asks every other node about keys: those that are away when they are back.
    pub(super) fn want_of_all(&mut self, own: usize, keys: &[Key], now: u64) {
        let Some(shared) = self.tables.get_mut(own) else {
            return;
        };
        let mut dropped = Vec::new();
        for (lineage, life) in &self.lives {
            if !life.may_return(now) {
                continue;
            }
            self.counters.keys_wanted += keys.len() as u64;
            let wanted = |key: &Key| Wanted {
                key: key.clone(),
                of_that_one: true,
            };
            // Who is away must not use up the room of those who are there.
            let direct = |s: &&mut InSession| s.pusher() == Some(*lineage);
            if let Some(session) = self.ins.values_mut().find(direct)
                && let Some(theirs) = session.theirs(own)
            {
                match session.want(theirs, keys.iter().map(wanted)) {
                    0 => {}
                    keys => dropped.push((*lineage, keys)),
                }
                session.ask(theirs);
                continue;
            }
            let own_share = shared.wants.iter().filter(|(l, _)| l == lineage).count();
            let room = (KEPT_KEYS_MAX / 4).saturating_sub(own_share);
            let room = room.min(KEPT_KEYS_MAX.saturating_sub(shared.wants.len()));
            if keys.len() > room {
                dropped.push((*lineage, (keys.len() - room) as u64));
            }
            let kept = keys.iter().take(room).map(|key| (*lineage, wanted(key)));
            shared.wants.extend(kept);
        }
        for (of, keys) in dropped {
            self.wants_dropped(of, keys);
        }
    }
    /// Asks somebody who has come too what those were asked who have not answered, and may never: it was not known then, or
    /// away.
    pub(super) fn ask_too(&mut self, id: SessionId) {
        // Who is there will be asked itself.
        let there: Vec<Lineage> = self.ins.values().filter_map(InSession::pusher).collect();
        let Some(session) = self.ins.get_mut(&id) else {
            return;
        };
        let mut dropped = 0;
        for (own, shared) in self.tables.iter().enumerate() {
            let Some(theirs) = session.theirs(own) else {
                continue;
            };
            let mut keys: Vec<&Key> = shared
                .wants
                .iter()
                .filter(|(of, wanted)| wanted.of_that_one && !there.contains(of))
                .map(|(_, wanted)| &wanted.key)
                .collect();
            keys.sort_unstable();
            keys.dedup();
            self.counters.keys_wanted += keys.len() as u64;
            let wanted = keys.into_iter().cloned().map(Wanted::of_anyone);
            dropped += session.want(theirs, wanted);
            session.ask(theirs);
        }
        if let Some(of) = session.pusher() {
            self.wants_dropped(of, dropped);
        }
    }
    /// Asks again: whoever was asked, if it is back; if it is dead, anyone that will do.
    pub(super) fn ask_again(&mut self, now: u64) {
        for own in 0..self.tables.len() {
            let Some(shared) = self.tables.get_mut(own).filter(|t| !t.wants.is_empty()) else {
                continue;
            };
            let mut kept = Vec::new();
            let mut dropped = Vec::new();
            for (from, wanted) in std::mem::take(&mut shared.wants) {
                let life = self.lives.get(&from);
                let gone = life.is_none_or(|life| !life.may_return(now));
                let dead = !wanted.of_that_one && life.is_none_or(|life| !life.alive);
                let same = |s: &&mut InSession| s.pusher() == Some(from) && s.matches(own);
                let any = |s: &&mut InSession| dead && s.matches(own) && !s.newcomer;
                let session = match self.ins.values_mut().find(same) {
                    Some(session) => Some(session),
                    None => self.ins.values_mut().find(any),
                };
                match session.and_then(|s| Some((s.theirs(own)?, s))) {
                    Some((theirs, session)) => {
                        if session.want(theirs, Some(wanted)) > 0 {
                            dropped.push(session.pusher().unwrap_or(from));
                        }
                    }
                    None if gone && wanted.of_that_one => {}
                    None => kept.push((from, wanted)),
                }
            }
            shared.wants = kept;
            for session in self.ins.values_mut() {
                if let Some(theirs) = session.theirs(own) {
                    session.ask(theirs);
                }
            }
            for of in dropped {
                self.wants_dropped(of, 1);
            }
        }
    }

    /// Sends a peer what it seems to have lost, now or once there is a session to it.
    pub(super) fn offer(&mut self, own: usize, to: Lineage, keys: Vec<Key>) {
        self.counters.keys_offered += keys.len() as u64;
        let session = self.outs.values_mut().find(|out| out.leads_to(to));
        if let Some(out) = session.filter(|out| out.acked(own).is_some()) {
            let dropped = out.offer(own, &keys);
            self.offers_dropped(to, dropped);
        } else if let Some(shared) = self.tables.get_mut(own) {
            let room = KEPT_KEYS_MAX.saturating_sub(shared.offers.len());
            let dropped = keys.len().saturating_sub(room) as u64;
            let kept = keys.into_iter().take(room).map(|key| (to, key));
            shared.offers.extend(kept);
            self.offers_dropped(to, dropped);
        }
    }
    /// Keeps the offers that a session which is over did not get through.
    pub(super) fn keep_offers(&mut self, out: &OutSession) {
        let Some(remote) = &out.remote else {
            return;
        };
        let to = remote.lineage;
        let mut dropped = 0;
        for (own, keys) in out.open_offers() {
            if let Some(shared) = self.tables.get_mut(own) {
                let room = KEPT_KEYS_MAX.saturating_sub(shared.offers.len());
                dropped += keys.len().saturating_sub(room) as u64;
                let kept = keys.iter().take(room).map(|key| (to, key.clone()));
                shared.offers.extend(kept);
            }
        }
        self.offers_dropped(to, dropped);
    }
    /// A session to a peer was agreed on: makes the offers that were kept for it.
    pub(super) fn offer_again(&mut self, id: SessionId) {
        let Some(out) = self.outs.get_mut(&id) else {
            return;
        };
        let Some(to) = out.remote.as_ref().map(|r| r.lineage) else {
            return;
        };
        let mut dropped = 0;
        for (own, shared) in self.tables.iter_mut().enumerate() {
            if out.acked(own).is_none() {
                continue;
            }
            let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut shared.offers)
                .into_iter()
                .partition(|(lineage, _)| *lineage == to);
            shared.offers = others;
            let keys: Vec<Key> = mine.into_iter().map(|(_, key)| key).collect();
            dropped += out.offer(own, &keys);
        }
        self.offers_dropped(to, dropped);
    }
}
