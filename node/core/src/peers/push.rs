//! The side of a session that sends what was counted here.
//!
//! Nothing is queued: what is sent next is read from the tables when the shell asks for it, so that a slow peer costs no
//! memory, only its own lag.

use std::collections::{BTreeMap, VecDeque};

use super::event::{PeerIx, SessionId};
use super::hub::Hub;
use super::limits::{
    BATCH, HEARTBEAT_MS, KEPT_KEYS_MAX, KEY_BYTES, LEND_MS, SILENCE_MS, WALK_SLICES, WANT_KEYS,
    WANTED_BYTES_MAX, WANTS_PENDING_MAX, WINDOW, WINDOW_BYTES, WINDOW_MAX,
};
use super::messages::{Batch, BatchKind, Held, Holdings, Push};
use super::report::Traffic;
use super::store::{WalkCursor, Which};
use crate::table::{Key, Lineage};

/// A stream that this node dialed.
pub(super) struct OutSession {
    pub(super) peer: PeerIx,
    pub(super) opened_at: u64,
    pub(super) heard_at: u64,
    pub(super) phase: Phase,
    pub(super) remote: Option<Remote>,
    pub(super) tables: Vec<OutTable>,
    /// Batches that were not acknowledged, oldest first.
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    pub(super) walks: VecDeque<Walk>,
    /// Keys that the peer asked about, by question, and what they take up.
    wanted: VecDeque<(usize, Vec<Key>)>,
    wanted_bytes: usize,
    /// Keys to offer, and how many they are.
    offers: VecDeque<(usize, Vec<Key>)>,
    offered_keys: usize,
    /// Messages that are not rows, in order.
    control: VecDeque<Push>,
    pub(super) heartbeat_at: u64,
    /// It was said which lineages are over.
    over_told: bool,
    /// The table whose turn it is.
    turn: usize,
    /// A walk goes before the journal.
    walk_first: bool,
    /// A walk stopped for others to have their turn.
    yielded: bool,
    goodbye_sent: bool,
    /// Since when the peer has had no session to this node; that it was warned about.
    pub(super) one_way_since: u64,
    pub(super) one_way_told: bool,
    /// When it is lent the connection, if it has no session to this node then.
    pub(super) lend_at: u64,
    /// The peer dialed, and has lent its connection.
    pub(super) lent: bool,
    pub(super) skew_ms: Option<i64>,
    pub(super) traffic: Traffic,
}

/// The node at the other end.
pub(super) struct Remote {
    pub(super) node: String,
    pub(super) lineage: Lineage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opened,
    HelloSent,
    Up,
    /// This node goes on under another lineage: only the goodbye is still to be sent.
    Left,
}

/// One of our tables as the peer has it.
#[derive(Clone, Debug, Default)]
pub(super) struct OutTable {
    /// The peer has it.
    pub(super) agreed: bool,
    pub(super) started: bool,
    pub(super) sent: u64,
    pub(super) acked: u64,
    pub(super) mismatches: Vec<String>,
    /// What was last said about other lineages.
    holdings: BTreeMap<Lineage, Held>,
}

pub(super) struct InFlight {
    pub(super) table: usize,
    pub(super) upto: u64,
    bytes: usize,
    /// Keys that it offered.
    offered: Vec<Key>,
}

/// A walk that the peer asked for.
pub(super) struct Walk {
    pub(super) table: usize,
    /// `None`: all.
    pub(super) lineages: Option<VecDeque<(Lineage, u64)>>,
    pub(super) cursor: WalkCursor,
    /// What was held when it began.
    pub(super) holdings: Option<Holdings>,
}

impl OutSession {
    pub(super) fn new(peer: PeerIx, tables: usize, now: u64) -> OutSession {
        OutSession {
            peer,
            opened_at: now,
            heard_at: now,
            phase: Phase::Opened,
            remote: None,
            tables: vec![OutTable::default(); tables],
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            walks: VecDeque::new(),
            wanted: VecDeque::new(),
            wanted_bytes: 0,
            offers: VecDeque::new(),
            offered_keys: 0,
            control: VecDeque::new(),
            heartbeat_at: u64::MAX,
            over_told: false,
            turn: 0,
            walk_first: false,
            yielded: false,
            goodbye_sent: false,
            one_way_since: now,
            one_way_told: false,
            lend_at: now + LEND_MS.0,
            lent: false,
            skew_ms: None,
            traffic: Traffic::default(),
        }
    }
    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }
    /// Says goodbye under the name this node has had so far.
    pub(super) fn leave(&mut self) {
        self.phase = Phase::Left;
        self.goodbye_sent = true;
        self.control.clear();
        self.control.push_back(Push::Goodbye {
            numbers: Vec::new(),
            heir: false,
        });
    }
    pub(super) fn said_goodbye(&self) -> bool {
        self.goodbye_sent
    }
    /// What the peer has acknowledged of this table; `None` if it does not take part in it.
    pub(super) fn acked(&self, table: usize) -> Option<u64> {
        let table = self.tables.get(table).filter(|t| t.agreed)?;
        Some(table.acked)
    }
    pub(super) fn next_deadline(&self, now: u64) -> u64 {
        let at = if self.yielded { now } else { u64::MAX };
        let heartbeat_at = if self.is_up() {
            self.heartbeat_at
        } else {
            u64::MAX
        };
        at.min(heartbeat_at).min(self.heard_at + SILENCE_MS)
    }
    pub(super) fn leads_to(&self, lineage: Lineage) -> bool {
        self.is_up() && self.remote.as_ref().is_some_and(|r| r.lineage == lineage)
    }
    /// Whether as much is on its way as may be. Many small batches are as good as a few large ones: how fast a peer that is far
    /// away can be taught must not depend on what else it is told.
    fn is_window_full(&self) -> bool {
        let batches = self.in_flight.len();
        batches >= WINDOW_MAX || (batches >= WINDOW && self.in_flight_bytes >= WINDOW_BYTES)
    }
    fn sent(&mut self, table: usize, upto: u64, bytes: usize, offered: Vec<Key>) {
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight {
            table,
            upto,
            bytes,
            offered,
        });
    }
    /// The oldest batch was acknowledged.
    pub(super) fn arrived(&mut self) -> Option<InFlight> {
        let batch = self.in_flight.pop_front()?;
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(batch.bytes);
        Some(batch)
    }
    /// Takes keys whose cells the peer should get. Returns how many were dropped: too many wait already.
    pub(super) fn offer(&mut self, table: usize, keys: &[Key]) -> u64 {
        let room = KEPT_KEYS_MAX.saturating_sub(self.offered_keys);
        let (kept, dropped) = keys.split_at(room.min(keys.len()));
        let chunks = kept.chunks(WANT_KEYS).map(|keys| (table, keys.to_vec()));
        self.offers.extend(chunks);
        self.offered_keys += kept.len();
        dropped.len() as u64
    }
    fn next_offer(&mut self) -> Option<(usize, Vec<Key>)> {
        let (table, keys) = self.offers.pop_front()?;
        self.offered_keys = self.offered_keys.saturating_sub(keys.len());
        Some((table, keys))
    }
    /// Takes a question of the peer's. Returns whether there was room.
    pub(super) fn asked(&mut self, table: usize, keys: Vec<Key>) -> bool {
        let bytes = self.wanted_bytes + bytes_of(&keys);
        let room = self.wanted.len() < WANTS_PENDING_MAX && bytes <= WANTED_BYTES_MAX;
        if room {
            self.wanted_bytes = bytes;
            self.wanted.push_back((table, keys));
        }
        room
    }
    fn next_question(&mut self) -> Option<(usize, Vec<Key>)> {
        let (table, keys) = self.wanted.pop_front()?;
        self.wanted_bytes = self.wanted_bytes.saturating_sub(bytes_of(&keys));
        Some((table, keys))
    }
    /// Offers that were not acknowledged.
    pub(super) fn open_offers(&self) -> impl Iterator<Item = (usize, &[Key])> {
        let sent = self.in_flight.iter().map(|b| (b.table, &b.offered[..]));
        let waiting = self.offers.iter().map(|(table, keys)| (*table, &keys[..]));
        sent.chain(waiting)
    }
}

/// What keys of a question take up.
fn bytes_of(keys: &[Key]) -> usize {
    keys.iter()
        .map(|key| key.as_bytes().len() + KEY_BYTES)
        .sum()
}

impl Hub {
    /// The next message for a stream that this node dialed; `None`: nothing for now. To be called, until there is none,
    /// whenever the stream can take one: what is polled is on its way.
    pub fn poll_push(&mut self, id: SessionId, now: u64) -> Option<Push> {
        if self.suspended {
            return None;
        }
        let push = self.next_push(id, now)?;
        if let Some(out) = self.outs.get_mut(&id) {
            out.traffic.messages += 1;
            if let Push::Batch(batch) = &push {
                out.traffic.batch(&batch.columns);
            }
        }
        Some(push)
    }
    fn next_push(&mut self, id: SessionId, now: u64) -> Option<Push> {
        let out = self.outs.get_mut(&id)?;
        match out.phase {
            Phase::Opened => {
                out.phase = Phase::HelloSent;
                return Some(Push::Hello(self.hello(now)));
            }
            Phase::HelloSent => return None,
            Phase::Left => return out.control.pop_front(),
            Phase::Up => {}
        }
        out.yielded = false;
        if let Some(push) = out.control.pop_front() {
            return Some(push);
        }
        if out.goodbye_sent {
            return None;
        }
        if now >= out.heartbeat_at {
            return Some(self.heartbeat(id, now));
        }
        if let Some(batch) = self.next_batch(id, now) {
            return Some(Push::Batch(batch));
        }
        let waits = self.outs.get(&id).is_some_and(|out| !out.over_told);
        if waits && !self.over.is_empty() && self.has_told_all(id) {
            // Meanwhile trackers count twice there.
            return Some(self.heartbeat(id, now));
        }
        let out = self.outs.get_mut(&id)?;
        if let Some(push) = out.control.pop_front() {
            return Some(push); // the end of a walk
        }
        self.goodbye(id)
    }

    fn heartbeat(&mut self, id: SessionId, now: u64) -> Push {
        let told = self.has_told_all(id);
        if let Some(out) = self.outs.get_mut(&id) {
            out.heartbeat_at = now + HEARTBEAT_MS;
            out.over_told |= told;
        }
        self.queue_holdings(id);
        Push::Heartbeat {
            mono_ms: now,
            wall_ms: self.wall_ms(now),
            vouched: self.vouching.clone(),
            over: if told { self.over.clone() } else { Vec::new() },
        }
    }

    /// Says what is held of third parties where that changed.
    fn queue_holdings(&mut self, id: SessionId) {
        let Some(out) = self.outs.get_mut(&id) else {
            return;
        };
        let peer = out.remote.as_ref().map(|r| r.lineage);
        for (number, (table, shared)) in out.tables.iter_mut().zip(&self.tables).enumerate() {
            let Some(store) = self.stores.store(shared.id).filter(|_| table.agreed) else {
                continue;
            };
            let mut news = Vec::new();
            for index in 1..self.config.lineages.len() {
                let lineage = self.config.lineages.id(index as u16);
                let held = shared.held(store, lineage);
                if Some(lineage) != peer
                    && held.highest > 0
                    && table.holdings.get(&lineage) != Some(&held)
                {
                    table.holdings.insert(lineage, held);
                    news.push(held);
                }
            }
            if !news.is_empty() {
                out.control.push_back(Push::Holdings {
                    table: number as u32,
                    holdings: news,
                });
            }
        }
    }

    fn next_batch(&mut self, id: SessionId, now: u64) -> Option<Batch> {
        let out = self.outs.get_mut(&id)?;
        if out.is_window_full() {
            return None;
        }
        if let Some((table, keys)) = out.next_question() {
            return self.read_keys(id, table, keys, BatchKind::Answer, now);
        }
        if let Some((table, keys)) = out.next_offer() {
            return self.read_keys(id, table, keys, BatchKind::Offer, now);
        }
        // A walk and the journal take turns: neither may starve the other.
        let walk_first = self.outs.get(&id)?.walk_first;
        let batch = if walk_first {
            self.read_walk(id, now)
                .or_else(|| self.read_journal(id, now))
        } else {
            self.read_journal(id, now)
                .or_else(|| self.read_walk(id, now))
        };
        self.outs.get_mut(&id)?.walk_first = !walk_first;
        batch
    }

    fn read_keys(
        &mut self,
        id: SessionId,
        table: usize,
        keys: Vec<Key>,
        kind: BatchKind,
        now: u64,
    ) -> Option<Batch> {
        let shared = self.tables.get_mut(table)?;
        let store = self.stores.store(shared.id)?;
        store.read_keys(&keys, now, &mut shared.writer);
        let offered = if kind == BatchKind::Offer {
            keys
        } else {
            Vec::new()
        };
        self.batch(id, table, kind, offered, now)
    }

    fn read_journal(&mut self, id: SessionId, now: u64) -> Option<Batch> {
        let out = self.outs.get_mut(&id)?;
        let count = out.tables.len();
        for step in 0..count {
            let number = (out.turn + step) % count;
            let (Some(table), Some(shared)) =
                (out.tables.get_mut(number), self.tables.get_mut(number))
            else {
                continue;
            };
            if !table.started || table.sent >= shared.flushed {
                continue;
            }
            let Some(store) = self.stores.store(shared.id) else {
                continue;
            };
            let read = store.read_journal(table.sent, BATCH, now, &mut shared.writer);
            // Even without rows it is worth telling: the peer then knows that it lacks nothing.
            table.sent = read.upto.max(table.sent);
            let upto = table.sent;
            out.turn = number + 1;
            let kind = BatchKind::Journal {
                upto,
                whole: read.whole,
            };
            return self.batch(id, number, kind, Vec::new(), now);
        }
        None
    }

    fn read_walk(&mut self, id: SessionId, now: u64) -> Option<Batch> {
        let table = self.outs.get(&id)?.walks.front()?.table;
        let steady = self.may_vouch(table, now);
        for _ in 0..WALK_SLICES {
            let out = self.outs.get_mut(&id)?;
            let walk = out.walks.front_mut()?;
            if walk.table != table {
                break;
            }
            let shared = self.tables.get_mut(table)?;
            let store = self.stores.store(shared.id)?;
            if walk.holdings.is_none() {
                let mut holdings = Holdings::new();
                if steady {
                    let lives = &self.lives;
                    let alive = |of| lives.get(of).is_some_and(|life| life.alive);
                    let known = shared.known.iter();
                    holdings.extend(known.map(|(l, k)| (*l, k.vouched(alive(l)))));
                }
                holdings.push((self.own, store.newest()));
                if let Some(asked) = &walk.lineages {
                    holdings.retain(|(lineage, _)| asked.iter().any(|(l, _)| l == lineage));
                }
                walk.holdings = Some(holdings);
            }
            let which = match &walk.lineages {
                None => Some(Which::All),
                Some(list) => list
                    .front()
                    .map(|&(lineage, after)| Which::Lineage { lineage, after }),
            };
            let through = match which {
                None => true,
                Some(which) => {
                    store.read_walk(&mut walk.cursor, which, BATCH, now, &mut shared.writer)
                }
            };
            if through {
                let more = walk.lineages.as_mut().is_some_and(|list| {
                    list.pop_front();
                    !list.is_empty()
                });
                walk.cursor = WalkCursor::default();
                if !more {
                    let holdings = walk.holdings.take().unwrap_or_default();
                    out.walks.pop_front();
                    out.control.push_back(Push::Taught {
                        table: table as u32,
                        holdings,
                    });
                }
            }
            if !shared.writer.is_empty() {
                return self.batch(id, table, BatchKind::Walk, Vec::new(), now);
            }
            if through && !out.control.is_empty() {
                return None;
            }
        }
        if let Some(out) = self.outs.get_mut(&id) {
            out.yielded = true;
        }
        None
    }

    /// Closes the batch that was written for a table.
    fn batch(
        &mut self,
        id: SessionId,
        table: usize,
        kind: BatchKind,
        offered: Vec<Key>,
        now: u64,
    ) -> Option<Batch> {
        let shared = self.tables.get_mut(table)?;
        let columns = shared.writer.finish();
        let upto = match kind {
            BatchKind::Journal { upto, .. } => upto,
            _ => 0,
        };
        let out = self.outs.get_mut(&id)?;
        out.sent(table, upto, columns.bytes(), offered);
        Some(Batch {
            table: table as u32,
            mono_ms: now,
            kind,
            columns,
        })
    }

    /// When this node stops and the peer has everything, says so.
    fn goodbye(&mut self, id: SessionId) -> Option<Push> {
        if !self.stopping {
            return None;
        }
        let out = self.outs.get(&id)?;
        let mut numbers = Vec::new();
        for (number, (table, shared)) in out.tables.iter().zip(&mut self.tables).enumerate() {
            let store = self.stores.store(shared.id)?;
            // Entries that were read while they changed got numbers of their own.
            shared.flushed = store.newest();
            if !table.agreed {
                continue;
            }
            if store.is_dirty() || (table.started && table.sent < shared.flushed) {
                return None;
            }
            numbers.push((number as u32, shared.flushed));
        }
        // Who is being taught may have it from nobody else.
        if !out.in_flight.is_empty() || !out.walks.is_empty() {
            return None;
        }
        let heir = self.leaves_to(id);
        self.left |= heir;
        self.outs.get_mut(&id)?.goodbye_sent = true;
        Some(Push::Goodbye { numbers, heir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_one_of_bytes_for_small_batches() {
        let fill = |bytes: usize| {
            let mut out = OutSession::new(PeerIx(1), 0, 0);
            while !out.is_window_full() {
                out.sent(0, 0, bytes, Vec::new());
            }
            let most = out.in_flight.len();
            out.arrived();
            assert!(!out.is_window_full(), "one place is free");
            while out.arrived().is_some() {}
            assert_eq!(out.in_flight_bytes, 0);
            most
        };
        assert_eq!(fill(WINDOW_BYTES), WINDOW);
        assert_eq!(fill(WINDOW_BYTES / 32), 32);
        assert_eq!(fill(10), WINDOW_MAX);
    }
}
