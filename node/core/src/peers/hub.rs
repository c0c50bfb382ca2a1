//! The hub: everything that one node says to and hears from the other nodes of a cluster, as a state machine.
//!
//! `handle_*` and `opened_*` tell it what happened, `poll_*` ask it what to do. It knows no sockets and no clock; a
//! simulation runs the same code. Its parts: `shared` (what it keeps of each table), `peer` (whom to dial, when), `push` (the side that sends what was counted
//! here), `receive` (the side that merges what others send), `learn` (catching up after a start), `holdings` (what is
//! known of whom, and closing gaps), `greet` (agreeing with who dials us), `live` (who is alive), `report`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::estate::{Claim, Estate};
use super::event::{Action, Ended, Event, PeerIx, SessionId};
use super::learn::Lesson;
use super::limits::{COLLECT, EVENTS_MAX, HEARTBEAT_MS, STALL_MS, next_pause};
use super::live::{Broken, Life};
use super::messages::{Hello, TableDef, VERSION};
use super::peer::Peer;
use super::push::OutSession;
use super::receive::InSession;
use super::report::HubCounters;
use super::shared::Shared;
use super::store::{Store, Stores};
use crate::table::{Collected, Lineage, Lineages, TableId};

/// How a hub is set up.
pub struct HubConfig {
    /// Name of the `peers` section.
    pub cluster: String,
    /// Name of this node.
    pub node: String,
    /// The lineages of the process; its own one first.
    pub lineages: Arc<Lineages>,
    /// This process starts with empty tables and should be taught before it accepts traffic. `false`: it continues a
    /// process that was, and is ready at once.
    pub newcomer: bool,
    /// Peers are also discovered: until [`Hub::discovered`] is called, that no peer is known proves nothing.
    pub discovers: bool,
    /// Longest wait for a teacher.
    pub learn_timeout_ms: u64,
    /// No other hub of the process has tables: its lineage may be left to a successor, and another one continued.
    pub sole: bool,
    /// Seed of the jitter.
    pub seed: u64,
}

/// See the module's head.
pub struct Hub {
    pub(super) config: HubConfig,
    pub(super) own: Lineage,
    pub(super) stores: Arc<dyn Stores>,
    pub(super) tables: Vec<Shared>,
    pub(super) peers: BTreeMap<PeerIx, Peer>,
    pub(super) outs: BTreeMap<SessionId, OutSession>,
    pub(super) ins: BTreeMap<SessionId, InSession>,
    pub(super) lives: BTreeMap<Lineage, Life>,
    /// That there are many lineages was said.
    pub(super) crowd_told: bool,
    /// Lineages that are not alive and were never met, and since when they are known from their cells.
    pub(super) strangers: BTreeMap<Lineage, u64>,
    /// Lineages of this node whose processes have died: see [`Hub::succeed_dead`].
    pub(super) over: Vec<Lineage>,
    /// Lineages that are heard here directly, in order: what heartbeats carry.
    pub(super) vouching: Vec<Lineage>,
    pub(super) counters: HubCounters,
    /// Who was turned away last, and why: it comes again and again, and need not be told of each time.
    pub(super) turned_away: BTreeMap<String, String>,
    /// Sessions that broke lately, in order.
    pub(super) broken: VecDeque<Broken>,
    actions: VecDeque<Action>,
    events_waiting: usize,
    events_dropped: u64,
    next_peer: u32,
    next_session: u64,
    random: u64,
    pub(super) started_at: u64,
    /// [`Hub::tick`] has been called.
    pub(super) ticked: bool,
    /// While there is somebody to watch, [`Hub::tick`] is to be called by then: being late means that the process stood
    /// still.
    pulse_at: u64,
    /// When a teacher that had missed nothing was through.
    pub(super) taught_at: Option<u64>,
    /// What peers teach now.
    pub(super) lessons: BTreeMap<SessionId, Lesson>,
    /// Entries of the tables that were taught, as they were then.
    pub(super) entries_learned: u64,
    /// Rows that teachers have shown, also of tables that are not learned yet.
    pub(super) rows_learned: u64,
    /// A teacher went away before it was through.
    pub(super) forsaken: bool,
    /// Batches that were acknowledged.
    pub(super) confirmed: u64,
    /// It is ready although not all was learned.
    pub(super) untaught: bool,
    /// When it was looked at last who is alive.
    pub(super) refreshed_at: u64,
    /// When holdings are compared next.
    pub(super) beat_at: u64,
    /// Until then somebody counts as away: see [`Store::set_someone_away`].
    pub(super) away_until: u64,
    pub(super) wall_offset_ms: i64,
    /// By how much the wall clock was set back in all, while nobody was there to say which of the two was right.
    pub(super) set_back_ms: i64,
    /// Whose clock is so far away that stamps are refused; it was said.
    pub(super) skewed: BTreeSet<Lineage>,
    /// Whose batches had stamps that were refused; it was said.
    pub(super) misdated: BTreeSet<Lineage>,
    pub(super) discovering: bool,
    pub(super) ready: bool,
    pub(super) stopping: bool,
    /// Lineages that were left here, to be given to newcomers.
    pub(super) estates: Vec<Estate>,
    /// The lineage that this newcomer may continue.
    pub(super) claim: Option<Claim>,
    /// Peers that do not know yet under which lineage this node goes on: it is not ready before they do, or cannot be reached.
    pub(super) rejoining: BTreeSet<PeerIx>,
    /// The lineage before that, if there was one.
    pub(super) before: Option<Lineage>,
    /// This node has left its own to one of its peers.
    pub(super) left: bool,
    /// Another process continues this lineage: nothing is sent, merged or stamped.
    pub(super) suspended: bool,
}

impl Hub {
    /// A hub for these tables (those that are not replicated are left out).
    pub fn new(config: HubConfig, stores: Arc<dyn Stores>, tables: &[TableId], now: u64) -> Hub {
        let newcomer = config.newcomer;
        let shared = tables.iter().filter_map(|&id| {
            let store = stores.store(id)?;
            store.expect_flush(false);
            Some(Shared::new(id, store, newcomer))
        });
        let mut tables: Vec<Shared> = shared.collect();
        for shared in &mut tables {
            // What the process before gave is not younger than this one.
            shared.ages.note(shared.flushed, now);
        }
        let mut hub = Hub {
            own: config.lineages.own(),
            random: config.seed | 1,
            discovering: config.discovers,
            config,
            stores,
            tables,
            peers: BTreeMap::new(),
            outs: BTreeMap::new(),
            ins: BTreeMap::new(),
            lives: BTreeMap::new(),
            crowd_told: false,
            strangers: BTreeMap::new(),
            over: Vec::new(),
            vouching: Vec::new(),
            counters: HubCounters::default(),
            turned_away: BTreeMap::new(),
            broken: VecDeque::new(),
            actions: VecDeque::new(),
            events_waiting: 0,
            events_dropped: 0,
            next_peer: 0,
            next_session: 0,
            started_at: now,
            ticked: false,
            pulse_at: u64::MAX,
            taught_at: None,
            lessons: BTreeMap::new(),
            entries_learned: 0,
            rows_learned: 0,
            forsaken: false,
            confirmed: 0,
            untaught: false,
            refreshed_at: now,
            beat_at: now + HEARTBEAT_MS,
            away_until: 0,
            wall_offset_ms: 0,
            set_back_ms: 0,
            skewed: BTreeSet::new(),
            misdated: BTreeSet::new(),
            ready: false,
            stopping: false,
            estates: Vec::new(),
            claim: None,
            rejoining: BTreeSet::new(),
            before: None,
            left: false,
            suspended: false,
        };
        if !newcomer {
            hub.become_ready(super::event::ReadyWhy::Continues, now);
        }
        hub
    }

    /// The next thing to do, if any. To be called until there is none after every other call.
    pub fn poll_action(&mut self, now: u64) -> Option<Action> {
        self.dial_due(now);
        let action = self.actions.pop_front()?;
        if matches!(action, Action::Log(_)) {
            self.events_waiting -= 1;
            if self.events_waiting == 0 && self.events_dropped > 0 {
                let dropped = std::mem::take(&mut self.events_dropped);
                self.log(Event::Dropped(dropped));
            }
        }
        Some(action)
    }

    /// Lets time pass: flushes, leases, pauses that are over. To be called when [`Hub::next_deadline`] is reached;
    /// earlier is harmless. `wall_ms`: milliseconds since 1970.
    pub fn tick(&mut self, now: u64, wall_ms: u64) {
        if self.suspended {
            return;
        }
        let offset = i64::try_from(i128::from(wall_ms) - i128::from(now)).unwrap_or(0);
        self.follow_clock(offset, now);
        let stalled = now.saturating_sub(self.pulse_at);
        if stalled > STALL_MS {
            // Nobody could be heard while this process did not run: what they sent may be waiting.
            self.excuse(stalled, now);
        }
        self.ticked = true;
        self.collect(now);
        self.close_silent(now);
        self.refresh_lives(now);
        self.report_broken(now);
        if now >= self.beat_at {
            self.beat_at = now + HEARTBEAT_MS;
            self.learn_again(now);
            self.ask_for_gaps(now);
            self.ask_again(now);
            self.report_acks(now);
            self.report_away(now);
            self.report_clocks();
            self.lend(now);
            self.lay_to_rest(now);
            self.forget_lineages(now);
        }
        self.check_ready(now);
        let watching = !(self.vouching.is_empty() && self.outs.is_empty() && self.ins.is_empty());
        self.pulse_at = if watching {
            now + HEARTBEAT_MS
        } else {
            u64::MAX
        };
    }

    /// Flushes what changed, as far as it is due: at once when the last flush is longer ago than its pause, which
    /// `limits::next_pause` rules.
    pub fn collect(&mut self, now: u64) {
        if self.suspended {
            return;
        }
        for shared in &mut self.tables {
            let Some(store) = self.stores.store(shared.id) else {
                continue;
            };
            if now < shared.flush_at {
                continue;
            }
            if shared.is_busy && !store.is_dirty() {
                shared.is_busy = false;
                store.expect_flush(false);
            }
            if !store.is_dirty() {
                shared.first.get_or_insert(shared.flushed);
                continue;
            }
            let follows = shared.is_busy;
            if !follows {
                shared.is_busy = true;
                store.expect_flush(true);
            }
            let Collected {
                newest,
                stamped,
                again,
                more,
            } = store.collect(now, COLLECT);
            shared.flushed = newest;
            if more {
                shared.flush_at = now;
            } else {
                shared.first.get_or_insert(newest);
                shared.pause = next_pause(shared.pause, follows, stamped, again);
                shared.flush_at = now + shared.pause;
            }
            shared.ages.note(newest, now);
        }
    }

    /// When [`Hub::tick`] wants to be called next, if nothing else happens; never before `now`. `u64::MAX`: never. A table's
    /// waker makes it earlier: ask again after it.
    pub fn next_deadline(&self, now: u64) -> u64 {
        self.next_flush().min(self.next_duty(now)).max(now)
    }
    /// When [`Hub::collect`] has something to do; `u64::MAX`: not before a table's waker is called.
    pub fn next_flush(&self) -> u64 {
        if self.suspended {
            return u64::MAX;
        }
        let mut at = u64::MAX;
        for shared in &self.tables {
            if shared.is_busy || self.store(shared).is_some_and(Store::is_dirty) {
                at = at.min(shared.flush_at);
            }
        }
        at
    }
    /// When [`Hub::tick`] has more to do than [`Hub::collect`]; never before `now`. `u64::MAX`: never.
    pub fn next_duty(&self, now: u64) -> u64 {
        if self.suspended {
            return u64::MAX;
        }
        let mut at = if self.ticked { u64::MAX } else { now };
        if !self.ins.is_empty() || !self.outs.is_empty() {
            at = at.min(self.beat_at);
        }
        at = at.min(self.pulse_at);
        at = at.min(self.next_dial());
        at = at.min(self.next_lapse());
        at = at.min(self.broken.front().map_or(u64::MAX, |broken| broken.at));
        for out in self.outs.values() {
            at = at.min(out.next_deadline(now));
        }
        for session in self.ins.values() {
            at = at.min(session.next_deadline(now));
        }
        if !self.ready {
            at = at.min(self.started_at + self.config.learn_timeout_ms);
        }
        at.max(now)
    }

    /// Begins a clean stop: nothing is dialed or accepted any more, what was counted is sent, then every peer is told
    /// goodbye. The shell goes on polling until [`Hub::is_stopped`], or until it has waited long enough.
    pub fn stop(&mut self, now: u64) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.report_broken(now);
        for shared in &mut self.tables {
            shared.flush_at = now;
        }
        self.collect(now);
        self.say_goodbye_to_pushers();
    }
    /// Whether every peer that can be reached has acknowledged everything, was told goodbye, and has ended its stream in
    /// answer to that: then it has read it.
    pub fn is_stopped(&self) -> bool {
        let waits = || {
            self.outs.values().any(OutSession::is_up)
                || self.peers.values().any(|p| self.is_owed(p))
        };
        self.stopping && (self.suspended || !waits())
    }
    /// About how many entries peers that are connected have not acknowledged: as long as this falls, waiting helps.
    pub fn unacknowledged(&self) -> usize {
        let ups = self.outs.values().filter(|out| out.is_up());
        let lags = ups.flat_map(|out| {
            let tables = self.tables.iter().enumerate();
            tables.filter_map(|(number, shared)| {
                let acked = out.acked(number)?;
                Some(self.store(shared)?.lag(acked))
            })
        });
        lags.sum()
    }
    /// Batches that peers have acknowledged, rows that they are taught among them: as long as this grows, waiting helps, too.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }
    /// How many tables there are.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }
    /// Whether [`Action::Ready`] was given out, or is about to be.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// A stream ended by itself or by the peer's doing. Unknown sessions are ignored: the hub may have closed it already.
    pub fn closed(&mut self, id: SessionId, reason: &str, now: u64) {
        self.end(id, Ended::Broken(reason.to_owned()), now, false);
    }

    /// The same, when the peer ended the stream in good order.
    pub fn closed_by_peer(&mut self, id: SessionId, now: u64) {
        self.end(id, Ended::ByPeer, now, false);
    }

    /// The same for a stream that this node opened, when whoever answered is no peer: there is nothing to be learned from it.
    pub fn closed_by_stranger(&mut self, id: SessionId, reason: &str, now: u64) {
        self.end(id, Ended::Stranger(reason.to_owned()), now, false);
    }

    /// Ends a session of either kind. `ours`: the shell does not know yet.
    pub(super) fn end(&mut self, id: SessionId, why: Ended, now: u64, ours: bool) {
        let theirs = matches!(why, Ended::Broken(_) | Ended::ByPeer);
        let why = if theirs && self.has_left(id) {
            Ended::PeerStops // as announced
        } else if self.outs.get(&id).is_some_and(OutSession::said_goodbye) {
            Ended::Stopping // answered
        } else if self.suspended && (theirs || matches!(why, Ended::Stranger(_))) {
            Ended::HandedOver // as it should, also where nothing was said any more
        } else if theirs && self.stopping && self.ins.contains_key(&id) {
            Ended::Stopping // who pushes to us has been told that this is in vain
        } else {
            why
        };
        let known = if let Some(out) = self.outs.remove(&id) {
            self.ended_out(out, &why, now);
            true
        } else if let Some(session) = self.ins.remove(&id) {
            self.ended_in(session, &why, now, id);
            true
        } else {
            false
        };
        if ours && known {
            self.counters.sessions_closed += 1;
            self.act(Action::Close(id, why));
        }
    }

    /// Whether the node at the other end said goodbye.
    fn has_left(&self, id: SessionId) -> bool {
        let lineage = match self.outs.get(&id) {
            Some(out) => match &out.remote {
                Some(remote) => Some(remote.lineage),
                // Who answers may be on its way out still.
                None => self
                    .peers
                    .get(&out.peer)
                    .and_then(|p| Some(p.met.as_ref()?.1)),
            },
            None => self.ins.get(&id).and_then(InSession::pusher),
        };
        let life = lineage.and_then(|lineage| self.lives.get(&lineage));
        life.is_some_and(|life| life.ended)
    }

    pub(super) fn hello(&self, now: u64) -> Hello {
        Hello {
            version: VERSION,
            cluster: self.config.cluster.clone(),
            node: self.config.node.clone(),
            lineage: self.own,
            newcomer: self.is_newcomer(),
            mono_ms: now,
            wall_ms: self.wall_ms(now),
            tables: self
                .tables
                .iter()
                .map(|shared| TableDef {
                    entries: self.store(shared).map_or(0, |s| s.entries(now) as u64),
                    ..shared.def.clone()
                })
                .collect(),
        }
    }
    pub(super) fn wall_ms(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.wall_offset_ms)
    }
    pub(super) fn store(&self, shared: &Shared) -> Option<&dyn Store> {
        self.stores.store(shared.id)
    }
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }
    /// Bounded: peers can cause log lines.
    pub(super) fn log(&mut self, event: Event) {
        if self.events_waiting < EVENTS_MAX {
            self.events_waiting += 1;
            self.actions.push_back(Action::Log(event));
        } else {
            self.events_dropped += 1;
        }
    }
    pub(super) fn new_session(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }
    pub(super) fn new_peer(&mut self) -> PeerIx {
        self.next_peer += 1;
        PeerIx(self.next_peer)
    }
    /// 0 to `below` - 1. Only ever used for pauses.
    pub(super) fn random(&mut self, below: u64) -> u64 {
        // xorshift64: short, and good enough to keep nodes from dialing in step.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }
}
