//! Whom to dial, and when.

use super::event::{Action, Ended, Event, PeerIx, SessionId};
use super::hub::Hub;
use super::limits::{BACKOFF_MS, RETRY_SELF_MS, SILENCE_MS};
use super::messages::Refusal;
use super::push::{OutSession, Phase};
use super::report::Dropped;
use crate::table::Lineage;

/// A peer to be dialed.
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) discovered: bool,
    pub(super) dial: Dial,
    /// Attempts since a session last held.
    failures: u32,
    /// What it said the last time somebody there was asked.
    pub(super) answer: Answer,
    /// Node and lineage that answered last.
    pub(super) met: Option<(String, Lineage)>,
    pub(super) last_error: Option<String>,
    pub(super) dropped: Dropped,
    /// Since when `dial` is what it is.
    pub(super) since: u64,
    pub(super) added_at: u64,
    pub(super) dials: u64,
    unreachable_logged: bool,
    /// It is not dialed: it has lent its connection, and goes with it.
    is_guest: bool,
}

impl Peer {
    /// There may be a node, but nobody knows which.
    pub(super) fn is_stranger(&self) -> bool {
        self.met.is_none() && self.answer == Answer::None
    }
}

/// How far the session to a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// To be dialed at this time.
    Pause(u64),
    Dialing,
    Open(SessionId),
}

/// What is known of a peer's ability to teach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet, or it could not be reached.
    None,
    /// Nobody listens there, or whoever does refuses this node.
    Refused,
    /// It has nothing to teach.
    Newcomer,
    /// It has been running.
    Teacher,
    /// It is this node.
    Myself,
    /// It is a node that another address leads to.
    Duplicate,
}

impl Hub {
    /// Adds a peer to be dialed. `name`: of a static line (then it is the node's name), or made up for a discovered
    /// address. `address`: host and port, for people and to recognise who dials us.
    pub fn add_peer(&mut self, name: &str, address: &str, discovered: bool, now: u64) -> PeerIx {
        let ix = self.new_peer();
        self.peers.insert(
            ix,
            Peer {
                name: name.to_owned(),
                address: address.to_owned(),
                discovered,
                dial: Dial::Pause(now),
                failures: 0,
                answer: Answer::None,
                met: None,
                last_error: None,
                dropped: Dropped::default(),
                since: now,
                added_at: now,
                dials: 0,
                unreachable_logged: false,
                is_guest: false,
            },
        );
        ix
    }
    /// Forgets a peer and closes the session to it.
    pub fn remove_peer(&mut self, ix: PeerIx, now: u64) {
        if let Some(peer) = self.peers.get(&ix)
            && let Dial::Open(id) = peer.dial
        {
            self.end(id, Ended::Removed, now, true);
        }
        self.peers.remove(&ix);
        self.rejoining.remove(&ix);
        self.check_ready(now);
    }
    /// Discovery has answered for the first time: the peers added so far are all there are.
    pub fn discovered(&mut self, now: u64) {
        self.discovering = false;
        self.check_ready(now);
    }

    /// [`Action::Dial`] failed. `refused`: the address answered that nobody listens there.
    pub fn dial_failed(&mut self, ix: PeerIx, refused: bool, error: &str, now: u64) {
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        if peer.dial != Dial::Dialing {
            return;
        }
        peer.answer = if refused {
            Answer::Refused
        } else {
            Answer::None
        };
        self.rejoining.remove(&ix);
        let life = peer.met.as_ref().and_then(|(_, l)| self.lives.get(l));
        let stopped = life.is_some_and(|life| life.ended);
        let news = peer.last_error.as_deref() != Some(error);
        peer.last_error = Some(error.to_owned());
        if news || !peer.unreachable_logged {
            peer.unreachable_logged = true;
            let event = Event::Unreachable {
                node: peer.name.clone(),
                error: error.to_owned(),
                stopped,
            };
            self.log(event);
        }
        self.pause(ix, now);
        self.check_ready(now);
    }
    /// [`Action::Dial`] succeeded: the stream is open.
    pub fn opened_out(&mut self, ix: PeerIx, now: u64) -> SessionId {
        let id = self.new_session();
        match self.peers.get_mut(&ix) {
            Some(peer) if peer.dial == Dial::Dialing => {
                peer.dial = Dial::Open(id);
                peer.since = now;
                self.outs
                    .insert(id, OutSession::new(ix, self.tables.len(), now));
            }
            // Removed meanwhile, or not asked for.
            _ => self.act(Action::Close(id, Ended::Removed)),
        }
        id
    }

    /// The peer of this session, which it dialed, lends its connection: a stream back is open, on which this node pushes as on
    /// one that it dialed. `None`: it need not, or must not.
    pub fn opened_back(&mut self, session: SessionId, now: u64) -> Option<SessionId> {
        let session = self.ins.get(&session)?;
        let lineage = session.pusher()?;
        let served = self
            .outs
            .values()
            .any(|out| out.remote.as_ref().is_some_and(|r| r.lineage == lineage));
        if served || self.stopping || self.suspended {
            return None;
        }
        let (node, remote) = (session.node.clone(), session.remote.clone());
        let is_it = |peer: &Peer| {
            if let Dial::Open(id) = peer.dial
                && let Some(out) = self.outs.get(&id)
                && out.remote.as_ref().is_some_and(|r| r.lineage != lineage)
            {
                return false; // it is somebody else, whatever its name
            }
            let unknown = peer.met.is_none() && same_host(&peer.address, &remote);
            peer.name == node || peer.met.as_ref().is_some_and(|(met, _)| *met == node) || unknown
        };
        let is_another = |peer: &Peer| matches!(peer.answer, Answer::Myself | Answer::Duplicate);
        let mut peers = self.peers.iter();
        let found = peers.find(|(_, peer)| is_it(peer) && !is_another(peer));
        if found.is_some_and(|(_, peer)| matches!(peer.dial, Dial::Open(_))) {
            return None; // it is being greeted
        }
        let found = found.map(|(ix, _)| *ix);
        let ix = found.unwrap_or_else(|| self.add_peer(&node, &remote, true, now));
        let id = self.new_session();
        let peer = self.peers.get_mut(&ix)?;
        peer.is_guest = found.is_none();
        peer.dial = Dial::Open(id);
        peer.since = now;
        let mut out = OutSession::new(ix, self.tables.len(), now);
        out.lent = true;
        self.outs.insert(id, out);
        Some(id)
    }

    /// Gives out [`Action::Dial`] for every peer whose pause is over; of a node that stops, only for those that lack something.
    pub(super) fn dial_due(&mut self, now: u64) {
        if self.suspended {
            return;
        }
        let is_due = |peer: &Peer| matches!(peer.dial, Dial::Pause(at) if at <= now);
        let due: Vec<PeerIx> = self
            .peers
            .iter()
            .filter(|(_, peer)| is_due(peer) && (!self.stopping || self.is_owed(peer)))
            .map(|(ix, _)| *ix)
            .collect();
        for ix in due {
            if let Some(peer) = self.peers.get_mut(&ix) {
                peer.dial = Dial::Dialing;
                peer.since = now;
                peer.dials += 1;
            }
            self.act(Action::Dial(ix));
        }
    }
    pub(super) fn next_dial(&self) -> u64 {
        let pauses = self.peers.values().filter_map(|peer| match peer.dial {
            Dial::Pause(at) if !self.stopping || self.is_owed(peer) => Some(at),
            _ => None,
        });
        pauses.min().unwrap_or(u64::MAX)
    }
    /// Whether a peer that lives has not acknowledged all that was counted here.
    pub(super) fn is_owed(&self, peer: &Peer) -> bool {
        let Some((_, lineage)) = &peer.met else {
            return false;
        };
        let lives = self.lives.get(lineage).is_some_and(|l| l.alive && !l.ended);
        lives
            && self.tables.iter().any(|shared| {
                let acked = shared.acked.get(lineage);
                acked.is_some_and(|acked| {
                    self.store(shared)
                        .is_some_and(|s| s.is_dirty() || *acked < s.newest())
                })
            })
    }

    /// A session to a peer was agreed on.
    pub(super) fn peer_answered(&mut self, ix: PeerIx, node: &str, lineage: Lineage, new: bool) {
        self.rejoining.remove(&ix);
        if let Some(peer) = self.peers.get_mut(&ix) {
            peer.answer = if new {
                Answer::Newcomer
            } else {
                Answer::Teacher
            };
            let met = peer.met.replace((node.to_owned(), lineage));
            peer.last_error = None;
            peer.unreachable_logged = false;
            if !peer.discovered && peer.name != node && met.is_none_or(|(met, _)| met != node) {
                let event = Event::Misnamed {
                    peer: peer.name.clone(),
                    address: peer.address.clone(),
                    node: node.to_owned(),
                };
                self.log(event);
            }
        }
    }

    /// The session to a peer is over: when to try again.
    pub(super) fn ended_out(&mut self, out: OutSession, why: &Ended, now: u64) {
        self.counters.add_sent(&out.traffic);
        self.keep_offers(&out);
        let is_duplicate = matches!(
            why,
            Ended::Duplicate | Ended::Refused(Refusal::Duplicate, _)
        );
        let ix = out.peer;
        let Some(peer) = self.peers.get_mut(&ix) else {
            return;
        };
        let node = peer.name.clone();
        let text = why.to_string();
        // A peer that refuses every attempt says the same each time.
        let is_news = out.is_up() || peer.last_error.as_ref() != Some(&text);
        peer.last_error = Some(text);
        if out.is_up() && now.saturating_sub(out.opened_at) >= SILENCE_MS {
            peer.failures = 0; // it held: what happened is news
        }
        let mistaken = matches!(why, Ended::Refused(Refusal::Myself, _))
            && !peer.discovered
            && peer.answer != Answer::Myself;
        let address = peer.address.clone();
        match why {
            Ended::Refused(Refusal::Myself, _) => {
                peer.answer = Answer::Myself;
                peer.last_error = None;
                self.pause_until(ix, now, now + RETRY_SELF_MS);
            }
            Ended::Duplicate | Ended::Refused(Refusal::Duplicate, _) => {
                peer.answer = Answer::Duplicate;
                self.pause_until(ix, now, now + RETRY_SELF_MS);
            }
            _ if out.phase == Phase::Left => self.pause_until(ix, now, now),
            Ended::Restarted => self.pause_until(ix, now, now),
            Ended::Refused(..) | Ended::Stranger(_) => {
                peer.answer = Answer::Refused;
                self.rejoining.remove(&ix);
                self.pause(ix, now);
            }
            _ => self.pause(ix, now),
        }
        if let Some(remote) = &out.remote {
            // Other addresses of the same node are no longer superfluous.
            let lineage = remote.lineage;
            for other in self.peers.values_mut() {
                if other.answer == Answer::Duplicate
                    && other.met.as_ref().is_some_and(|(_, met)| *met == lineage)
                    && let Dial::Pause(at) = &mut other.dial
                    && !is_duplicate
                {
                    *at = (*at).min(now);
                }
            }
        }
        let expected = matches!(why, Ended::Refused(Refusal::Myself, _) | Ended::Removed)
            || out.phase == Phase::Left;
        if mistaken {
            let own = self.config.node.clone();
            self.log(Event::Misnamed {
                peer: node.clone(),
                address,
                node: own,
            });
        }
        if let (Ended::Broken(_), Some(remote), true) = (why, &out.remote, is_news) {
            self.broke(remote.lineage, node, false, why.clone(), now);
        } else if is_news && !expected && !is_duplicate {
            self.log(Event::Down {
                node,
                incoming: false,
                why: why.clone(),
            });
        }
        if self.peers.get(&ix).is_some_and(|peer| peer.is_guest) {
            self.peers.remove(&ix);
        }
        self.check_ready(now);
    }

    /// Pauses twice as long as the last time, with jitter: half of it is left to chance.
    fn pause(&mut self, ix: PeerIx, now: u64) {
        let Some(failures) = self.peers.get_mut(&ix).map(|peer| {
            peer.failures = peer.failures.saturating_add(1);
            peer.failures
        }) else {
            return;
        };
        let (first, longest) = BACKOFF_MS;
        let full = (first << (failures - 1).min(16)).min(longest);
        let pause = full / 2 + self.random(full / 2 + 1);
        self.pause_until(ix, now, now + pause);
    }
    fn pause_until(&mut self, ix: PeerIx, now: u64, at: u64) {
        if let Some(peer) = self.peers.get_mut(&ix) {
            peer.dial = Dial::Pause(at);
            peer.since = now;
        }
    }

    /// Somebody dialed us: we should have a session to it as well. If a peer that may be it is pausing, it is dialed
    /// now; if our session leads to a process of that name that was before, it is replaced.
    pub(super) fn dial_back(
        &mut self,
        node: &str,
        lineage: Lineage,
        newcomer: bool,
        remote: &str,
        now: u64,
    ) {
        let there = |out: &OutSession| out.remote.as_ref().is_some_and(|r| r.lineage == lineage);
        if self.outs.values().any(there) {
            return;
        }
        let known = |peer: &Peer| {
            peer.name == node
                || peer.met.as_ref().is_some_and(|(met, _)| met == node)
                || same_host(&peer.address, remote)
        };
        let mut found = false;
        for peer in self.peers.values_mut() {
            let strange = peer.discovered && peer.met.is_none();
            if let Dial::Pause(at) = &mut peer.dial
                && peer.answer != Answer::Myself
                && *at > now
            {
                if peer.name == node
                    || peer.met.as_ref().is_some_and(|(met, _)| met == node)
                    || same_host(&peer.address, remote)
                    || strange
                {
                    *at = now;
                    found = true;
                }
            } else if peer.dial == Dial::Dialing && known(peer) {
                found = true;
            }
        }
        if found || !newcomer {
            return;
        }
        let stale: Vec<SessionId> = self
            .outs
            .iter()
            .filter(|(_, out)| out.remote.as_ref().is_some_and(|r| r.node == node))
            .map(|(id, _)| *id)
            .collect();
        for id in stale {
            self.end(id, Ended::Restarted, now, true);
        }
    }
}

/// Whether an address with a port names the same host as the remote end of a connection.
fn same_host(address: &str, remote: &str) -> bool {
    let host = |text: &str| text.rsplit_once(':').map(|(host, _)| host.to_owned());
    matches!((host(address), host(remote)), (Some(a), Some(b)) if !a.is_empty() && a == b)
}
