//! One running `peers` section: its hub, who may talk to it, and the loop that lets time pass for it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use remora_config::plan::PeerAddress;
use remora_core::peers::{Action, Ended, Hub, PeerIx, PeerReport, PeerState, Report, SessionId};
use remora_proto::peers::v1 as proto;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::alarm::Alarm;
use super::dial::{self, Target};
use super::discover::Book;
use super::outbox::{Outbox, Outgoing};
use super::said::severity;
use super::strangers::Strangers;
use crate::handoff::frames::tables::Found;
use crate::handoff::tables::Hubs;
use crate::observe::log::Severity;
use crate::proxy::clock;
use crate::shared::Shared;

/// What the network side of a section counts.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Counters {
    /// Connections that were accepted from peers, or whoever dialed.
    pub accepted: AtomicU64,
    /// Closed at once: too many at a time.
    pub crowded: AtomicU64,
    /// Accepted ones that failed in the TLS handshake.
    pub tls_failed: AtomicU64,
    /// Accepted ones that did not speak the protocol, or opened no stream in time.
    pub strangers: AtomicU64,
    /// Messages of kinds that this version does not know, which were skipped.
    pub skipped: AtomicU64,
    /// Of those that were crowded, failed in the handshake or did not speak the protocol, those that no log line tells of.
    pub unreported: AtomicU64,
}

impl Counters {
    /// Always in the same order; later ones are appended.
    fn all(&self) -> [&AtomicU64; 6] {
        [
            &self.accepted,
            &self.crowded,
            &self.tls_failed,
            &self.strangers,
            &self.skipped,
            &self.unreported,
        ]
    }
}

/// A name that is followed, by `discover`.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// As it is written.
    pub name: String,
    /// Addresses that it has.
    pub addresses: usize,
    /// It cannot be looked up now, or has no address: those known stay.
    pub failing: bool,
    /// Why it could not be relied on, now or last.
    pub last_error: Option<String>,
    /// The addresses, for the process that goes on.
    pub book: Book,
    /// Where nodes are dialed beside: the name does not lead there yet, or not any more.
    pub guests: Vec<SocketAddr>,
}

/// What sections have counted, by name: for the process that goes on.
pub type Totals = BTreeMap<String, Vec<u64>>;

/// Adds a list of totals to one that may be longer or shorter.
pub(super) fn add(to: &mut Vec<u64>, more: &[u64]) {
    to.resize(to.len().max(more.len()), 0);
    for (total, more) in to.iter_mut().zip(more) {
        *total = total.saturating_add(*more);
    }
}

/// See the module's head. Everything but [`Section::report`] and the counters belongs to the thread of the peers.
pub struct Section {
    name: String,
    /// Position among the plan's sections.
    index: usize,
    hub: Mutex<Hub>,
    bell: Arc<Notify>,
    /// Actions that were asked for between two turns of the loop.
    wanted: Mutex<Vec<Action>>,
    streams: Mutex<Streams>,
    targets: Mutex<BTreeMap<PeerIx, Arc<Target>>>,
    /// What its network side counts.
    pub counters: Counters,
    shared: Arc<Shared>,
    stopped: watch::Sender<bool>,
    door: watch::Sender<Door>,
    /// Peers' sessions that have begun.
    met: watch::Sender<u64>,
    /// What the process before counted of peers that this one does not dial yet.
    before: Mutex<Totals>,
    discoveries: Mutex<Vec<Discovery>>,
    pub(super) strangers: Mutex<Strangers>,
}

/// Whether a section accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// Not now.
    Held,
    /// Not now, and another process may have the address.
    Paused,
    /// Not now, and whoever has come in is to come again: that is for another process.
    Aside,
    /// Never again: another process has the sockets.
    Closed,
}

#[derive(Default)]
struct Streams {
    outs: BTreeMap<SessionId, Arc<Outbox<proto::PushMessage>>>,
    ins: BTreeMap<SessionId, Arc<Outbox<proto::ReplyMessage>>>,
}

impl Section {
    pub(super) fn new(name: String, index: usize, hub: Hub, shared: Arc<Shared>) -> Arc<Section> {
        Arc::new(Section {
            name,
            index,
            hub: Mutex::new(hub),
            bell: Arc::new(Notify::new()),
            wanted: Mutex::default(),
            streams: Mutex::default(),
            targets: Mutex::default(),
            counters: Counters::default(),
            shared,
            stopped: watch::Sender::new(false),
            door: watch::Sender::new(Door::Open),
            met: watch::Sender::new(0),
            before: Mutex::default(),
            discoveries: Mutex::default(),
            strangers: Mutex::default(),
        })
    }

    /// As written after `peers`.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The state of its peers, for people and metrics.
    pub fn report(&self) -> Report {
        self.hub.lock().report(clock::read().mono_ms)
    }
    /// The names it follows.
    pub fn discoveries(&self) -> Vec<Discovery> {
        self.discoveries.lock().clone()
    }
    /// Where the names it follows lead, for the process that goes on.
    pub(super) fn found(&self) -> Vec<Found> {
        let all = self.discoveries.lock();
        let found = all.iter().map(|known| {
            let guests = known.guests.iter().map(|at| (*at, None));
            Found {
                peers: self.name.clone(),
                name: known.name.clone(),
                addresses: known.book.known().into_iter().chain(guests).collect(),
            }
        });
        found.filter(|f| !f.addresses.is_empty()).collect()
    }
    /// Where this name led, as the process before knew it.
    pub(super) fn known_before(&self, name: &str) -> Vec<(SocketAddr, Option<u64>)> {
        let hubs = self.shared.heritage.hubs.lock();
        let mut all = hubs.found.iter();
        let found = all.find(|f| f.peers == self.name && f.name == name);
        found.map(|f| f.addresses.clone()).unwrap_or_default()
    }
    /// Something became known about a name.
    pub(super) fn note_discovery(&self, name: &str, what: impl FnOnce(&mut Discovery)) {
        let mut all = self.discoveries.lock();
        if let Some(known) = all.iter_mut().find(|d| d.name == name) {
            return what(known);
        }
        let mut new = Discovery {
            name: name.to_owned(),
            ..Discovery::default()
        };
        what(&mut new);
        all.push(new);
    }
    /// Says so if there is nobody left to share anything with.
    pub(super) fn warn_if_alone(&self) {
        let report = self.report();
        let other = |p: &PeerReport| p.state != Some(PeerState::Myself);
        if !report.peers.iter().any(other) {
            self.log(
                Severity::Warning,
                format_args!("counts alone: no other node is known"),
            );
        }
    }
    /// What it has counted, for the process that goes on: names that [`Section::inherit`] knows, and values.
    pub(super) fn totals(&self, to: &mut Totals) {
        let report = self.report();
        let door = self.counters.all().map(|n| n.load(Relaxed)).to_vec();
        to.insert(format!("door {}", self.name), door);
        to.insert(format!("hub {}", self.name), report.totals());
        let prefix = self.prefix();
        let before = self.before.lock();
        for (name, totals) in before.iter().take(BEFORE_MAX) {
            to.insert(format!("{prefix}{name}"), totals.clone());
        }
        for peer in report.peers.iter().filter(|p| p.peer.is_some()) {
            to.insert(format!("{prefix}{}", peer.name), peer.totals());
        }
    }
    /// Adds what the process before has counted; may be repeated with more.
    pub(super) fn inherit(&self, totals: &Totals) {
        if let Some(door) = totals.get(&format!("door {}", self.name)) {
            for (total, before) in self.counters.all().into_iter().zip(door) {
                total.fetch_add(*before, Relaxed);
            }
        }
        let mut hub = self.hub.lock();
        if let Some(before) = totals.get(&format!("hub {}", self.name)) {
            hub.inherit_totals(before);
        }
        let prefix = self.prefix();
        let mut before = self.before.lock();
        for (name, more) in totals {
            let Some(name) = name.strip_prefix(&prefix) else {
                continue;
            };
            let targets = self.targets.lock();
            match targets.iter().find(|(_, target)| target.name == name) {
                Some((ix, _)) => hub.inherit_peer_totals(*ix, more),
                None => add(before.entry(name.to_owned()).or_default(), more),
            }
        }
    }
    fn prefix(&self) -> String {
        format!("peer {} ", self.name)
    }
    /// Rings when there is something to do; for wakers of tables.
    pub(super) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Changes whenever a peer's session to this node begins.
    pub(super) fn meetings(&self) -> watch::Receiver<u64> {
        self.met.subscribe()
    }
    /// One has.
    pub(super) fn has_met(&self) {
        self.met.send_modify(|met| *met = met.wrapping_add(1));
    }
    /// Whether a peer other than `but` is dialed at this address, at whatever port. Names of hosts are not looked up.
    pub(super) fn dials(&self, ip: IpAddr, but: Option<PeerIx>) -> bool {
        let targets = self.targets.lock();
        let mut others = targets.iter().filter(|(ix, _)| Some(**ix) != but);
        others.any(|(_, target)| match &target.address {
            PeerAddress::Ip(at) => at.ip().to_canonical() == ip,
            PeerAddress::Host { .. } | PeerAddress::Unix(_) => false,
        })
    }

    /// Whether a `server` line dials exactly this address.
    pub(super) fn has_line_to(&self, address: SocketAddr) -> bool {
        let targets = self.targets.lock();
        targets
            .values()
            .any(|t| t.is_line && t.address == PeerAddress::Ip(address))
    }

    /// Asks or tells the hub something, and does what it wants done.
    pub(super) fn with_hub<R>(&self, call: impl FnOnce(&mut Hub, u64) -> R) -> R {
        let now = clock::read().mono_ms;
        let result = call(&mut self.hub.lock(), now);
        self.bell.notify_one();
        result
    }

    /// The next message for a stream that has room for one. Rings only if the hub wants something done: streams ask all the
    /// time.
    pub(super) fn next_message<M: Outgoing>(&self, id: SessionId) -> Option<M> {
        let now = clock::read().mono_ms;
        let mut hub = self.hub.lock();
        let message = M::poll(&mut hub, id, now);
        if message.is_none()
            && let Some(action) = hub.poll_action(now)
        {
            self.wanted.lock().push(action);
            self.bell.notify_one();
        }
        message
    }

    /// Adds a peer that is to be dialed from now on.
    pub(super) fn add_peer(&self, mut target: Target, discovered: bool) -> PeerIx {
        target.is_line = !discovered;
        let (name, address) = (target.name.clone(), target.shown());
        let before = self.before.lock().remove(&name).unwrap_or_default();
        let ix = self.with_hub(|hub, now| {
            let ix = hub.add_peer(&name, &address, discovered, now);
            hub.inherit_peer_totals(ix, &before);
            ix
        });
        self.targets.lock().insert(ix, Arc::new(target));
        ix
    }
    /// Forgets it again.
    pub(super) fn remove_peer(&self, ix: PeerIx) {
        self.targets.lock().remove(&ix);
        self.with_hub(|hub, now| hub.remove_peer(ix, now));
    }

    /// A stream to a peer is open.
    pub(super) fn opened_out(&self, ix: PeerIx) -> Arc<Outbox<proto::PushMessage>> {
        let outbox = Outbox::new(self.with_hub(|hub, now| hub.opened_out(ix, now)));
        let mut streams = self.streams.lock();
        streams.outs.insert(outbox.id(), Arc::clone(&outbox));
        outbox
    }
    /// A stream of a peer is open.
    pub(super) fn opened_in(&self, remote: &str) -> Arc<Outbox<proto::ReplyMessage>> {
        let outbox = Outbox::new(self.with_hub(|hub, now| hub.opened_in(remote.to_owned(), now)));
        let mut streams = self.streams.lock();
        streams.ins.insert(outbox.id(), Arc::clone(&outbox));
        outbox
    }
    /// The peer of this session lends its connection; `None`: that is not wanted.
    pub(super) fn opened_back(&self, id: SessionId) -> Option<Arc<Outbox<proto::PushMessage>>> {
        let outbox = Outbox::new(self.with_hub(|hub, now| hub.opened_back(id, now))?);
        let mut streams = self.streams.lock();
        streams.outs.insert(outbox.id(), Arc::clone(&outbox));
        Some(outbox)
    }
    /// A stream has ended by itself. `reason`: `None` if the peer has ended it in good order.
    pub(super) fn closed(&self, id: SessionId, reason: Option<&str>) {
        {
            let mut streams = self.streams.lock();
            streams.outs.remove(&id);
            streams.ins.remove(&id);
        }
        self.with_hub(|hub, now| match reason {
            Some(reason) => hub.closed(id, reason, now),
            None => hub.closed_by_peer(id, now),
        });
    }
    /// The same; whoever answered is no peer.
    pub(super) fn closed_by_stranger(&self, id: SessionId, reason: &str) {
        self.streams.lock().outs.remove(&id);
        self.with_hub(|hub, now| hub.closed_by_stranger(id, reason, now));
    }

    /// Says whether it accepts. [`Door::Aside`] and [`Door::Closed`] end the sessions that peers opened; the latter lets go of
    /// the sockets, and is final.
    pub(super) fn set_door(&self, to: Door) {
        self.door.send_if_modified(|door| {
            let opens_too_early = (*door, to) == (Door::Aside, Door::Open);
            let changes = *door != to && *door != Door::Closed && !opens_too_early;
            if changes {
                *door = to;
            }
            changes
        });
    }
    /// Opens a door that was [`Door::Aside`].
    pub(super) fn come_back(&self) {
        self.door.send_if_modified(|door| {
            let changes = *door == Door::Aside;
            if changes {
                *door = Door::Open;
            }
            changes
        });
    }
    /// Completes when those who came in are to go.
    pub(super) async fn left(&self) {
        self.becomes(|door| matches!(door, Door::Aside | Door::Closed))
            .await;
    }
    /// Completes when its door is such.
    pub(super) async fn becomes(&self, such: impl Fn(Door) -> bool) -> Door {
        let mut door = self.door.subscribe();
        let found = door.wait_for(|door| such(*door)).await;
        found.map_or(Door::Closed, |door| *door)
    }

    /// Falls silent: another process goes on. Adds what that one needs to know.
    pub(super) fn suspend(&self, to: &mut Hubs) {
        self.with_hub(|hub, _| {
            to.known.extend(hub.suspend());
            to.lives.extend(hub.lives());
        });
    }
    /// The other process did not.
    pub(super) fn resume(&self) {
        self.with_hub(Hub::resume);
    }

    /// Begins a clean stop. [`Section::stopped`] tells when it is complete.
    pub(super) fn stop(&self) {
        self.with_hub(Hub::stop);
    }
    /// See [`Hub::confirmed`].
    pub(super) fn confirmed(&self) -> u64 {
        self.hub.lock().confirmed()
    }
    /// What connected peers have not acknowledged; see [`Hub::unacknowledged`].
    pub(super) fn unacknowledged(&self) -> usize {
        self.hub.lock().unacknowledged()
    }
    /// Completes when a clean stop has told every peer that can be reached.
    pub(super) async fn stopped(&self) {
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Lets time pass, passes messages from the hub to streams that wait for them, and does what the hub wants done. Never
    /// ends.
    pub(super) async fn run(self: Arc<Self>, alarm: Alarm) {
        let (mut tick_at, mut ticked_at) = (0, 0);
        let tables = self.hub.lock().tables();
        let pause = Duration::from_micros(if tables < MANY_TABLES {
            0
        } else {
            tables as u64
        });
        loop {
            {
                let now = clock::read();
                let mut hub = self.hub.lock();
                if now.mono_ms >= tick_at {
                    hub.tick(now.mono_ms, now.wall_us / 1000);
                    ticked_at = now.mono_ms;
                } else {
                    hub.collect(now.mono_ms);
                }
                self.fill(&mut hub, now.mono_ms);
                for action in std::mem::take(&mut *self.wanted.lock()) {
                    self.act(action);
                }
                while let Some(action) = hub.poll_action(now.mono_ms) {
                    self.act(action);
                }
                if hub.is_stopped() {
                    self.stopped.send_replace(true);
                }
                tick_at = hub.next_duty(now.mono_ms).min(ticked_at + TICK_MS);
                let at = tick_at.min(hub.next_flush());
                if let Err(e) = alarm.set(at, now.mono_ms) {
                    self.log(Severity::Alert, format_args!("cannot set a timer: {e}"));
                }
            }
            if !pause.is_zero() {
                sleep(pause.min(PAUSE_MAX)).await;
            }
            tokio::select! {
                () = self.bell.notified() => {}
                () = alarm.rings() => {}
            }
        }
    }

    fn fill(&self, hub: &mut Hub, now: u64) {
        let streams = self.streams.lock();
        for outbox in streams.outs.values() {
            outbox.fill(hub, now);
        }
        for outbox in streams.ins.values() {
            outbox.fill(hub, now);
        }
    }

    fn act(self: &Arc<Self>, action: Action) {
        match action {
            Action::Dial(ix) => {
                let target = self.targets.lock().get(&ix).cloned();
                if let Some(target) = target {
                    spawn_local(dial::dial(Arc::clone(self), ix, target));
                }
            }
            Action::Lend(id) => {
                if let Some(outbox) = self.streams.lock().outs.get(&id) {
                    outbox.lend();
                }
            }
            Action::Close(id, why) => {
                let mut streams = self.streams.lock();
                if let Some(outbox) = streams.outs.remove(&id) {
                    outbox.close();
                } else if let Some(outbox) = streams.ins.remove(&id) {
                    match why {
                        // In order, or said in a message before.
                        Ended::PeerStops
                        | Ended::Stopping
                        | Ended::Removed
                        | Ended::Renamed
                        | Ended::Refused(..)
                        | Ended::Replaced => outbox.close(),
                        _ => outbox.close_because(format!("the peer closed it: {why}")),
                    }
                }
            }
            Action::Ready => self.shared.ready.one_more(),
            Action::Log(event) => self.log(severity(&event), format_args!("{event}")),
        }
    }

    /// A line on standard error and in the section's logs.
    pub(super) fn log(&self, severity: Severity, text: fmt::Arguments<'_>) {
        if severity <= Severity::Err {
            tracing::error!("peers {}: {text}", self.name);
        } else if severity == Severity::Warning {
            tracing::warn!("peers {}: {text}", self.name);
        } else {
            tracing::info!("peers {}: {text}", self.name);
        }
        let text = format_args!("peers {}: {text}", self.name);
        self.shared.logs.peers_event(self.index, severity, text);
    }
}

/// Longest time between two ticks of the hub: tables follow a wall clock that is being set.
const TICK_MS: u64 = 1_000;
/// So many peers that were discovered once, and are not now, go along from process to process.
const BEFORE_MAX: usize = 256;
/// A turn looks at every table, and every message asks for one. With this many tables there is a pause between two turns, of a
/// microsecond for each table; streams that have room are served in between.
const MANY_TABLES: usize = 256;
const PAUSE_MAX: Duration = Duration::from_millis(20);
