//! What people are shown: per peer, per lineage, and counters of the hub.

use super::batch::Columns;
use super::event::{Ended, PeerIx, SessionId};
use super::hub::Hub;
use super::learn::Learn;
use super::peer::{Answer, Dial, Peer};
use super::push::OutSession;
use super::receive::InSession;
use super::store::Applied;
use crate::table::{Lineage, TableId};

/// What went over one or more sessions in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages of the side that counts, heartbeats too: what one side has sent the other has received.
    pub messages: u64,
    /// Batches.
    pub batches: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of their streams, before framing and encryption.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn batch(&mut self, columns: &Columns) {
        self.batches += 1;
        self.rows += u64::from(columns.rows);
        self.bytes += columns.bytes() as u64;
    }
    fn add(&mut self, other: &Traffic) {
        self.messages += other.messages;
        self.batches += other.batches;
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// What was to be said to a peer, or came from it, and went nowhere for lack of room. Nothing else is ever dropped: what a peer
/// has not been sent yet is its lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Rows received for which the table, or the bound of lineages, had no room.
    pub rows: u64,
    /// Messages received of kinds that only a later version knows.
    pub messages: u64,
    /// Keys that it could not be asked about, as too many were waiting.
    pub wants: u64,
    /// Keys that it could not be offered, as too many were waiting.
    pub offers: u64,
}

impl Dropped {
    pub(super) fn add(&mut self, other: Dropped) {
        self.rows += other.rows;
        self.messages += other.messages;
        self.wants += other.wants;
        self.offers += other.offers;
    }
}

/// Counts since the hub was made, and those of the processes before it that it goes on with. Sessions that are open are in
/// [`PeerReport`] until they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubCounters {
    /// Sessions that this node ended.
    pub sessions_closed: u64,
    /// Sessions of peers that were refused.
    pub sessions_refused: u64,
    /// Messages that made no sense; each ended its session.
    pub protocol_errors: u64,
    /// Batches that made no sense; each ended its session.
    pub bad_batches: u64,
    /// Rows that changed something.
    pub rows_merged: u64,
    /// Rows that were known.
    pub rows_ignored: u64,
    /// Rows for which there was no room.
    pub rows_refused: u64,
    /// Walks asked for because a peer seemed to have more of a third party.
    pub gaps_asked: u64,
    /// Keys asked about.
    pub keys_wanted: u64,
    /// Keys that peers asked about.
    pub keys_wanted_by_peers: u64,
    /// Keys offered to peers that seemed to have lost counts.
    pub keys_offered: u64,
    /// Keys that could not be asked about for lack of room.
    pub wants_dropped: u64,
    /// Keys that could not be offered for lack of room.
    pub offers_dropped: u64,
    /// Sent in sessions that ended.
    pub sent: Traffic,
    /// Received in sessions that ended.
    pub received: Traffic,
}

impl HubCounters {
    /// Always in the same order; later ones are appended.
    fn all(&mut self) -> [&mut u64; 21] {
        [
            &mut self.sessions_closed,
            &mut self.sessions_refused,
            &mut self.protocol_errors,
            &mut self.bad_batches,
            &mut self.rows_merged,
            &mut self.rows_ignored,
            &mut self.rows_refused,
            &mut self.gaps_asked,
            &mut self.keys_wanted,
            &mut self.keys_wanted_by_peers,
            &mut self.keys_offered,
            &mut self.wants_dropped,
            &mut self.offers_dropped,
            &mut self.sent.messages,
            &mut self.sent.batches,
            &mut self.sent.rows,
            &mut self.sent.bytes,
            &mut self.received.messages,
            &mut self.received.batches,
            &mut self.received.rows,
            &mut self.received.bytes,
        ]
    }
    pub(super) fn note_fault(&mut self, why: &Ended) {
        match why {
            Ended::Protocol(_) => self.protocol_errors += 1,
            Ended::Batch(_) => self.bad_batches += 1,
            _ => {}
        }
    }
    pub(super) fn note_applied(&mut self, applied: &Applied) {
        self.rows_merged += applied.merged as u64;
        self.rows_ignored += applied.ignored as u64;
        self.rows_refused += applied.refused as u64;
    }
    pub(super) fn add_sent(&mut self, traffic: &Traffic) {
        self.sent.add(traffic);
    }
    pub(super) fn add_received(&mut self, traffic: &Traffic) {
        self.received.add(traffic);
    }
}

/// State of the session that this node dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// To be dialed again in so many milliseconds.
    Pausing(u64),
    /// Being dialed.
    Dialing,
    /// Connected; the peer has not agreed yet.
    Greeting,
    /// Agreed on.
    Up,
    /// The address leads to this very node.
    Myself,
    /// Another address leads to the same node.
    Duplicate,
}

/// What is shown of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// Its number; `None` for a node that dialed us and that we do not dial.
    pub peer: Option<PeerIx>,
    /// Name of the static line or discovered address.
    pub name: String,
    /// Address that is dialed; for a node that dialed us, where it came from.
    pub address: String,
    /// It was discovered, not configured.
    pub discovered: bool,
    /// State of our session to it; `None` for a node that we do not dial.
    pub state: Option<PeerState>,
    /// Since how many milliseconds.
    pub since_ms: u64,
    /// Since how many milliseconds the peer's session to us is up.
    pub incoming_ms: Option<u64>,
    /// Our session to it is on a connection that it opened.
    pub lent: bool,
    /// Name that the node gave.
    pub node: Option<String>,
    /// Its lineage.
    pub lineage: Option<Lineage>,
    /// Since how many milliseconds nothing was heard of it.
    pub heard_ms: Option<u64>,
    /// About how many of our entries it has not acknowledged.
    pub lag_entries: u64,
    /// How far it is behind, in milliseconds: since when it lacks the oldest of those, whether there is a session or not. At
    /// most since this process knows it.
    pub lag_ms: u64,
    /// Attempts to dial it.
    pub dials: u64,
    /// Sent in the session that is open.
    pub sent: Traffic,
    /// Received in the session that is open.
    pub received: Traffic,
    /// What was dropped since this node has known it; of one that is not dialed, in the session that is open.
    pub dropped: Dropped,
    /// Why the last session or attempt failed.
    pub last_error: Option<String>,
    /// Name of a table and what differs.
    pub mismatches: Vec<(String, String)>,
    /// How far its wall clock is ahead of ours, in milliseconds; the delay of messages counts against it.
    pub skew_ms: Option<i64>,
}

/// What is shown of one lineage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineageReport {
    /// Which.
    pub lineage: Lineage,
    /// Name of its node; empty if it is only known from hearsay.
    pub node: String,
    /// Its gauges count.
    pub alive: bool,
    /// It said goodbye.
    pub ended: bool,
    /// Since how many milliseconds nothing came from it directly.
    pub heard_ms: Option<u64>,
    /// Since how many milliseconds it has been known.
    pub met_ms: u64,
    /// Per table: everything up to the first number is held, and something up to the second one.
    pub known: Vec<(TableId, u64, u64)>,
}

/// What is shown of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedReport {
    /// Which.
    pub id: TableId,
    /// Name by which nodes recognise it.
    pub name: String,
    /// Last number of our journal.
    pub newest: u64,
    /// It has been learned, or there was nobody to learn it from.
    pub learned: bool,
    /// A peer has taught it.
    pub taught: bool,
}

/// What is shown of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this node.
    pub node: String,
    /// Its lineage.
    pub lineage: Lineage,
    /// See [`Hub::is_ready`].
    pub ready: bool,
    /// It became so because it had waited for long enough, and had not learned everything.
    pub untaught: bool,
    /// Entries of tables that peers have taught, as they were then.
    pub entries_learned: u64,
    /// Rows that teachers have shown since this process started, also of tables that are not learned yet.
    pub rows_learned: u64,
    /// Peers that teach this process now, with the rows that have come of the table under way.
    pub teachers: Vec<(String, u64)>,
    /// Peers that are dialed, then nodes that dialed us and are not dialed.
    pub peers: Vec<PeerReport>,
    /// Lineages, in order.
    pub lineages: Vec<LineageReport>,
    /// Lineages that hold one of the [`LINEAGES_MAX`](crate::table::LINEAGES_MAX) places: this one, those that are alive, and
    /// those that tables hold counts of.
    pub places_held: usize,
    /// Tables.
    pub tables: Vec<SharedReport>,
    /// Counts since the hub was made.
    pub counters: HubCounters,
}

impl PeerReport {
    /// Counts since it was added, for [`Hub::inherit_peer_totals`] of another process.
    pub fn totals(&self) -> Vec<u64> {
        // Later ones are appended.
        let dropped = self.dropped;
        vec![
            self.dials,
            dropped.rows,
            dropped.messages,
            dropped.wants,
            dropped.offers,
        ]
    }
}

impl Report {
    /// Counts since the hub was made, open sessions included, for [`Hub::inherit_totals`] of another process.
    pub fn totals(&self) -> Vec<u64> {
        let mut all = self.counters;
        for peer in &self.peers {
            all.add_sent(&peer.sent);
            all.add_received(&peer.received);
        }
        all.all().map(|n| *n).to_vec()
    }
}

impl Hub {
    /// Adds what [`Report::totals`] gave in the process whose lineage goes on here. It may know fewer or more of them.
    pub fn inherit_totals(&mut self, before: &[u64]) {
        for (total, before) in self.counters.all().into_iter().zip(before) {
            *total = total.saturating_add(*before);
        }
    }
    /// The same with [`PeerReport::totals`].
    pub fn inherit_peer_totals(&mut self, ix: PeerIx, before: &[u64]) {
        if let Some(peer) = self.peers.get_mut(&ix) {
            let dropped = &mut peer.dropped;
            let all = [
                &mut peer.dials,
                &mut dropped.rows,
                &mut dropped.messages,
                &mut dropped.wants,
                &mut dropped.offers,
            ];
            for (total, before) in all.into_iter().zip(before) {
                *total = total.saturating_add(*before);
            }
        }
    }
    /// Everything there is to show.
    pub fn report(&self, now: u64) -> Report {
        let mut peers: Vec<PeerReport> = self
            .peers
            .keys()
            .filter_map(|ix| self.report_peer(*ix, now))
            .collect();
        let shown: Vec<Lineage> = peers.iter().filter_map(|p| p.lineage).collect();
        for session in self.ins.values().filter(|s| s.is_up()) {
            if session.pusher().is_none_or(|p| !shown.contains(&p)) {
                peers.push(self.report_stranger(session, now));
            }
        }
        let tables = self.tables.iter().map(|shared| SharedReport {
            id: shared.id,
            name: shared.def.name.clone(),
            newest: shared.flushed,
            learned: shared.learn == Learn::Done,
            taught: shared.taught,
        });
        Report {
            cluster: self.config.cluster.clone(),
            node: self.config.node.clone(),
            lineage: self.own,
            ready: self.is_ready(),
            untaught: self.untaught,
            entries_learned: self.entries_learned,
            rows_learned: self.rows_learned,
            teachers: self.teachers(),
            peers,
            lineages: self.report_lineages(now),
            places_held: self.config.lineages.held(),
            tables: tables.collect(),
            counters: self.counters,
        }
    }

    fn report_peer(&self, ix: PeerIx, now: u64) -> Option<PeerReport> {
        let peer = self.peers.get(&ix)?;
        let out = match peer.dial {
            Dial::Open(id) => self.outs.get(&id),
            _ => None,
        };
        let state = match (peer.dial, peer.answer) {
            (Dial::Pause(_), Answer::Myself) => PeerState::Myself,
            (Dial::Pause(_), Answer::Duplicate) => PeerState::Duplicate,
            (Dial::Pause(at), _) => PeerState::Pausing(at.saturating_sub(now)),
            (Dial::Dialing, _) => PeerState::Dialing,
            (Dial::Open(_), _) if out.is_some_and(OutSession::is_up) => PeerState::Up,
            (Dial::Open(_), _) => PeerState::Greeting,
        };
        let remote = out.and_then(|o| o.remote.as_ref());
        let (node, lineage) = match remote {
            Some(remote) => (Some(remote.node.clone()), Some(remote.lineage)),
            None => match &peer.met {
                Some((node, lineage)) => (Some(node.clone()), Some(*lineage)),
                None => (None, None),
            },
        };
        let incoming = match lineage {
            Some(lineage) => self.ins.values().find(|s| s.pusher() == Some(lineage)),
            None => self.ins.values().find(|s| s.is_up() && s.node == peer.name),
        };
        let mut mismatches = Vec::new();
        let (mut lag_entries, mut lag_ms) = (0, 0);
        let life = lineage.and_then(|lineage| self.lives.get(&lineage));
        let known_since = life.map_or(peer.added_at, |life| life.met_at);
        for (number, shared) in self.tables.iter().enumerate() {
            if let (Some(acked), Some(store)) =
                (self.has(peer, lineage, number), self.store(shared))
            {
                let lacks = store.lag(acked) as u64;
                lag_entries += lacks;
                if lacks > 0 {
                    let since = shared.ages.since(acked, now).unwrap_or(0);
                    lag_ms = lag_ms.max(since.min(now.saturating_sub(known_since)));
                }
            }
            if let Some(table) = out.and_then(|o| o.tables.get(number)) {
                for text in &table.mismatches {
                    mismatches.push((shared.def.name.clone(), text.clone()));
                }
            }
        }
        self.add_mismatches(incoming, &mut mismatches);
        Some(PeerReport {
            peer: Some(ix),
            name: peer.name.clone(),
            address: peer.address.clone(),
            discovered: peer.discovered,
            state: Some(state),
            since_ms: now.saturating_sub(peer.since),
            incoming_ms: incoming.map(|s| now.saturating_sub(s.opened_at)),
            lent: out.is_some_and(|out| out.lent),
            node,
            lineage,
            heard_ms: self.heard_ms(lineage, now),
            lag_entries,
            lag_ms,
            dials: peer.dials,
            sent: out.map(|o| o.traffic).unwrap_or_default(),
            received: incoming.map(|s| s.traffic).unwrap_or_default(),
            dropped: peer.dropped,
            last_error: peer.last_error.clone(),
            mismatches,
            skew_ms: incoming.map(|s| s.skew_ms).or(out.and_then(|o| o.skew_ms)),
        })
    }
    /// What a peer has of one of our tables, by number; `None`: there is nothing that it should have.
    fn has(&self, peer: &Peer, lineage: Option<Lineage>, table: usize) -> Option<u64> {
        if matches!(peer.answer, Answer::Myself | Answer::Duplicate) {
            return None;
        }
        if let Dial::Open(id) = peer.dial
            && let Some(out) = self.outs.get(&id).filter(|out| out.is_up())
        {
            let theirs = out.tables.get(table).filter(|table| table.agreed)?;
            if theirs.started {
                return Some(theirs.acked);
            }
        }
        let Some(lineage) = lineage else {
            return Some(0); // nobody was met there yet
        };
        if self.lives.get(&lineage).is_some_and(|life| life.ended) {
            return None; // who comes in its place will be another one, and be taught
        }
        let acked = &self.tables.get(table)?.acked;
        Some(acked.get(&lineage).copied().unwrap_or(0))
    }
    fn report_stranger(&self, session: &InSession, now: u64) -> PeerReport {
        let mut mismatches = Vec::new();
        self.add_mismatches(Some(session), &mut mismatches);
        PeerReport {
            peer: None,
            name: session.node.clone(),
            address: session.remote.clone(),
            discovered: false,
            state: None,
            since_ms: now.saturating_sub(session.opened_at),
            incoming_ms: Some(now.saturating_sub(session.opened_at)),
            lent: false,
            node: Some(session.node.clone()),
            lineage: session.pusher(),
            heard_ms: self.heard_ms(session.pusher(), now),
            lag_entries: 0,
            lag_ms: 0,
            dials: 0,
            sent: Traffic::default(),
            received: session.traffic,
            dropped: session.dropped,
            last_error: None,
            mismatches,
            skew_ms: Some(session.skew_ms),
        }
    }
    /// Adds what the comparison for an incoming session found, unless the other direction found the same.
    fn add_mismatches(&self, session: Option<&InSession>, to: &mut Vec<(String, String)>) {
        for (name, texts) in session.into_iter().flat_map(InSession::mismatches) {
            if !to.iter().any(|(known, _)| known == name) {
                to.extend(texts.iter().map(|text| (name.to_owned(), text.clone())));
            }
        }
    }
    /// Something that came from a lineage, or was meant for it, went nowhere.
    pub(super) fn note_dropped(&mut self, lineage: Lineage, what: Dropped) {
        if what == Dropped::default() {
            return;
        }
        let session = self.ins.values_mut();
        let session = session.into_iter().find(|s| s.pusher() == Some(lineage));
        let node = session.as_ref().map(|session| session.node.clone());
        if let Some(session) = session {
            session.dropped.add(what);
        }
        let met = |peer: &Peer| peer.met.as_ref().is_some_and(|(_, met)| *met == lineage);
        let by_name = |peer: &Peer| node.as_ref().is_some_and(|node| peer.name == *node);
        let ix = self.peers.iter().find(|(_, peer)| met(peer));
        let ix = ix.or_else(|| self.peers.iter().find(|(_, peer)| by_name(peer)));
        if let Some(ix) = ix.map(|(ix, _)| *ix)
            && let Some(peer) = self.peers.get_mut(&ix)
        {
            peer.dropped.add(what);
        }
    }
    /// A message of a kind that only a later version knows came on this session, of either kind, and was skipped.
    pub fn skipped(&mut self, id: SessionId) {
        let lineage = match self.outs.get(&id) {
            Some(out) => out.remote.as_ref().map(|remote| remote.lineage),
            None => self.ins.get(&id).and_then(InSession::pusher),
        };
        if let Some(lineage) = lineage {
            let messages = 1;
            self.note_dropped(
                lineage,
                Dropped {
                    messages,
                    ..Dropped::default()
                },
            );
        }
    }
    fn heard_ms(&self, lineage: Option<Lineage>, now: u64) -> Option<u64> {
        let at = self.lives.get(&lineage?)?.heard_at?;
        Some(now.saturating_sub(at))
    }
    fn report_lineages(&self, now: u64) -> Vec<LineageReport> {
        let report = |(lineage, life): (&Lineage, &super::live::Life)| {
            let known = self.tables.iter().filter_map(|shared| {
                let held = shared.held(self.store(shared)?, *lineage);
                Some((shared.id, held.known, held.highest))
            });
            LineageReport {
                lineage: *lineage,
                node: life.node.clone(),
                alive: life.alive,
                ended: life.ended,
                heard_ms: life.heard_at.map(|at| now.saturating_sub(at)),
                met_ms: now.saturating_sub(life.met_at),
                known: known.collect(),
            }
        };
        self.lives.iter().map(report).collect()
    }
}
