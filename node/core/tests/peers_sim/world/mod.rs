//! Nodes with the shipped hub and tables, streams between them, and a clock that only this file moves.
//!
//! Streams are like TCP: in order, with a delay; they stall while their ends are parted or the reader is frozen, and
//! when they break, what was on its way is lost from some point on.

mod holds;
mod links;
mod reload;

pub use holds::keys;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use remora_core::peers::messages::{Push, Reply};
use remora_core::peers::{Action, Event, Hub, HubConfig, PeerIx, SessionId};
use remora_core::table::{DataType, EntryRef, Lineage, Lineages, Table, TableId, TableSpec};

use crate::rng::Rng;
use crate::stores::{Mutant, SimStores, SimTable};

/// Messages that a stream holds before its writer has to wait.
const STREAM_MESSAGES: usize = 8;
/// Milliseconds until somebody who dials without an answer gives up.
const DIAL_PATIENCE: u64 = 3_000;
/// When worlds begin.
const START: u64 = 1 << 33;
pub const LEARN_TIMEOUT: u64 = 5_000;

/// What one lineage counted of one column of one key of one table.
pub type Counted = BTreeMap<(usize, Vec<u8>, (DataType, u16)), u64>;

pub struct World {
    pub now: u64,
    pub rng: Rng,
    seq: u64,
    events: BinaryHeap<Reverse<(u64, u64, EventKey)>>,
    pub nodes: Vec<Node>,
    pub conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    /// `parted[a][b]`: nothing passes from a to b.
    pub parted: Vec<Vec<bool>>,
    /// `undialable[a][b]`: a cannot open streams to b.
    pub undialable: Vec<Vec<bool>>,
    pub delay: (u64, u64),
    /// Lineages of processes that are gone, with what they had counted and what survivors must still know.
    pub dead: BTreeMap<Lineage, Dead>,
    /// Messages that are neither heartbeats nor holdings.
    pub busy_messages: u64,
    pub messages: u64,
    pub mutant: Mutant,
    pub trace: bool,
    /// Nodes that end leave their lineages, and newcomers continue them.
    pub sole: bool,
    /// Lineages that were continued: by newcomers, and by reloads.
    pub successions: u64,
    pub reloads: u64,
}

pub struct Dead {
    pub counted: Counted,
    pub floor: Counted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EventKey {
    Tick {
        node: usize,
        life: u64,
    },
    Arrive {
        conn: u64,
        up: bool,
    },
    Dialed {
        node: usize,
        life: u64,
        ix: u32,
        to: usize,
    },
    Notice {
        conn: u64,
        dialer: bool,
    },
}

pub struct Node {
    pub name: String,
    pub specs: Vec<TableSpec>,
    /// True time minus this is its monotonic clock.
    pub mono_offset: u64,
    /// Its wall clock minus the true one.
    pub wall_offset: i64,
    pub frozen: bool,
    pub lives: u64,
    pub life: Option<Life>,
}

/// A process.
pub struct Life {
    pub number: u64,
    pub hub: Hub,
    pub stores: Arc<SimStores>,
    pub lineage: Lineage,
    pub counted: Counted,
    pub trackers: Vec<(usize, Vec<u8>, EntryRef)>,
    sessions: BTreeMap<SessionId, (u64, bool)>,
    peers: BTreeMap<PeerIx, usize>,
    pub ready: bool,
    pub started_at: u64,
    pub ready_at: Option<u64>,
    tick_at: u64,
    pub stopping: bool,
}

impl Life {
    /// Says where an address leads that was added by hand.
    pub fn leads_to(&mut self, ix: PeerIx, node: usize) {
        self.peers.insert(ix, node);
    }
}

enum Item<T> {
    Message(T),
    End,
}

/// One direction of a stream.
struct Pipe<T> {
    items: VecDeque<(u64, Item<T>)>,
    last_at: u64,
    closed: bool,
}

impl<T> Pipe<T> {
    fn new() -> Pipe<T> {
        Pipe {
            items: VecDeque::new(),
            last_at: 0,
            closed: false,
        }
    }
    fn push(&mut self, at: u64, item: Item<T>) -> u64 {
        self.last_at = self.last_at.max(at);
        self.items.push_back((self.last_at, item));
        self.last_at
    }
    fn has_room(&self) -> bool {
        !self.closed && self.items.len() < STREAM_MESSAGES
    }
}

struct End {
    node: usize,
    life: u64,
    session: Option<SessionId>,
}

pub struct Conn {
    dialer: End,
    acceptor: End,
    up: Pipe<Push>,
    down: Pipe<Reply>,
}

impl World {
    pub fn new(seed: u64, delay: (u64, u64), mutant: Mutant) -> World {
        World {
            now: START,
            rng: Rng::new(seed),
            seq: 0,
            events: BinaryHeap::new(),
            nodes: Vec::new(),
            conns: BTreeMap::new(),
            next_conn: 0,
            parted: Vec::new(),
            undialable: Vec::new(),
            delay,
            dead: BTreeMap::new(),
            busy_messages: 0,
            messages: 0,
            mutant,
            trace: false,
            sole: false,
            successions: 0,
            reloads: 0,
        }
    }
    pub fn add_node(&mut self, specs: Vec<TableSpec>, wall_offset: i64) {
        let n = self.nodes.len();
        self.nodes.push(Node {
            name: format!("node{n}"),
            specs,
            mono_offset: 0,
            wall_offset,
            frozen: false,
            lives: 0,
            life: None,
        });
        for row in &mut self.parted {
            row.push(false);
        }
        for row in &mut self.undialable {
            row.push(false);
        }
        self.parted.push(vec![false; n + 1]);
        self.undialable.push(vec![false; n + 1]);
    }
    fn at(&mut self, time: u64, key: EventKey) {
        self.seq += 1;
        self.events.push(Reverse((time, self.seq, key)));
    }
    pub fn log(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>8} {}", self.now - START, text());
        }
    }

    /// Starts a process of a node, with empty tables and a lineage of its own.
    pub fn start(&mut self, node: usize) {
        let lineage = Lineage(self.rng.next() | 1);
        let lineages = Arc::new(Lineages::new(lineage));
        // A new process counts from a new origin: it may even be below that of the last one. As real ones do, clocks begin
        // far enough above 0 for ages to be subtracted.
        let mono_offset = self.now - (1 << 32) - self.rng.below(100_000);
        let seed = self.rng.next();
        let it = &mut self.nodes[node];
        assert!(it.life.is_none());
        it.mono_offset = mono_offset;
        let stores = self.make_stores(node, &lineages, seed);
        self.begin(node, &lineages, stores, true, seed);
        self.log(|| format!("start node{node} as {:016x}", lineage.0));
        self.pump(node);
    }
    /// Empty tables.
    fn make_stores(&self, node: usize, lineages: &Arc<Lineages>, seed: u64) -> Arc<SimStores> {
        let make = |spec: &TableSpec| SimTable {
            table: Table::new_replicated(spec.clone(), seed, lineages.clone()),
            mutant: self.mutant,
            calls: AtomicU64::new(0),
        };
        let tables = self.nodes[node].specs.iter().map(make).collect();
        Arc::new(SimStores { tables })
    }
    /// A process with these tables.
    fn begin(
        &mut self,
        node: usize,
        lineages: &Arc<Lineages>,
        stores: Arc<SimStores>,
        newcomer: bool,
        seed: u64,
    ) {
        let n = self.nodes.len();
        let it = &mut self.nodes[node];
        it.lives += 1;
        let ids: Vec<TableId> = (0..it.specs.len() as u16).map(TableId).collect();
        let lineage = lineages.own();
        let config = HubConfig {
            cluster: "sim".into(),
            node: it.name.clone(),
            lineages: lineages.clone(),
            newcomer,
            discovers: false,
            learn_timeout_ms: LEARN_TIMEOUT,
            sole: self.sole,
            seed,
        };
        let mono = self.now - it.mono_offset;
        let mut hub = Hub::new(config, stores.clone(), &ids, mono);
        let mut peers = BTreeMap::new();
        for to in 0..n {
            // Its own address is among them once in a while, as discovery would have it.
            if to != node || seed.is_multiple_of(4) {
                let ix = hub.add_peer(
                    &format!("node{to}"),
                    &format!("host{to}:1"),
                    to == node,
                    mono,
                );
                peers.insert(ix, to);
            }
        }
        let number = it.lives;
        it.life = Some(Life {
            number,
            hub,
            stores,
            lineage,
            counted: Counted::new(),
            trackers: Vec::new(),
            sessions: BTreeMap::new(),
            peers,
            ready: false,
            started_at: self.now,
            ready_at: None,
            tick_at: u64::MAX,
            stopping: false,
        });
    }

    /// The process is gone at once. `silent`: nobody is told, as when its host loses power.
    pub fn kill(&mut self, node: usize, silent: bool) {
        let Some(life) = self.nodes[node].life.take() else {
            return;
        };
        self.log(|| format!("kill node{node} {:016x} silent={silent}", life.lineage.0));
        self.nodes[node].frozen = false;
        // Somebody may go on under its lineage already.
        let mut lives = self.nodes.iter_mut().filter_map(|node| node.life.as_mut());
        if let Some(other) = lives.find(|l| l.lineage == life.lineage) {
            other.counted.extend(life.counted);
        } else {
            let dead = Dead {
                counted: life.counted,
                floor: Counted::new(),
            };
            self.dead.insert(life.lineage, dead);
        }
        let lost = self.rng.percent(50);
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            let Some(conn) = self.conns.get_mut(&id) else {
                continue;
            };
            let dials = conn.dialer.node == node && conn.dialer.life == life.number;
            let accepts = conn.acceptor.node == node && conn.acceptor.life == life.number;
            if !dials && !accepts {
                continue;
            }
            // What is on its way from the process may arrive, up to some point.
            if dials {
                if lost {
                    let keep = self.rng.below(conn.up.items.len() as u64 + 1) as usize;
                    conn.up.items.truncate(keep);
                }
                conn.up.closed = true;
                conn.down.items.clear();
                conn.down.closed = true;
                conn.dialer.session = None;
            } else {
                if lost {
                    let keep = self.rng.below(conn.down.items.len() as u64 + 1) as usize;
                    conn.down.items.truncate(keep);
                }
                conn.down.closed = true;
                conn.up.items.clear();
                conn.up.closed = true;
                conn.acceptor.session = None;
            }
            if !silent {
                let at = self.now + self.rng.between(0, 200);
                if dials {
                    let at = conn.up.push(at, Item::End);
                    self.at(at, EventKey::Arrive { conn: id, up: true });
                } else {
                    let at = conn.down.push(at, Item::End);
                    self.at(
                        at,
                        EventKey::Arrive {
                            conn: id,
                            up: false,
                        },
                    );
                }
            }
        }
        self.set_floors();
    }

    /// Begins a clean stop.
    pub fn stop(&mut self, node: usize) {
        let mono = self.mono(node);
        if let Some(life) = &mut self.nodes[node].life {
            life.stopping = true;
            for (table, _, at) in std::mem::take(&mut life.trackers) {
                life.stores.tables[table].table.untrack(at, mono);
            }
            life.hub.stop(mono);
        }
        self.log(|| format!("stop node{node}"));
        self.pump(node);
    }

    pub fn mono(&self, node: usize) -> u64 {
        self.now - self.nodes[node].mono_offset
    }
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&n| self.nodes[n].life.is_some())
            .collect()
    }
    fn is_live(&self, node: usize, life: u64) -> bool {
        self.nodes[node]
            .life
            .as_ref()
            .is_some_and(|l| l.number == life)
    }

    /// Lets a node do whatever it wants to.
    pub fn pump(&mut self, node: usize) {
        if self.nodes[node].frozen || self.nodes[node].life.is_none() {
            return;
        }
        let mono = self.mono(node);
        let wall = (1_700_000_000_000 + self.now as i64 + self.nodes[node].wall_offset) as u64;
        let hub = &mut self.life(node).hub;
        if hub.next_duty(mono) <= mono {
            hub.tick(mono, wall);
        } else {
            hub.collect(mono);
        }
        loop {
            let mut moved = false;
            while let Some(action) = self.life(node).hub.poll_action(mono) {
                moved = true;
                self.act(node, action);
            }
            let sessions: Vec<(SessionId, (u64, bool))> = self
                .life(node)
                .sessions
                .iter()
                .map(|(id, conn)| (*id, *conn))
                .collect();
            for (session, (conn, dialer)) in sessions {
                while self.has_room(conn, dialer) && self.poll(node, session, conn, dialer, mono) {
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let now = self.now;
        let offset = self.nodes[node].mono_offset;
        let life = self.life(node);
        let deadline = life.hub.next_deadline(mono);
        if deadline < u64::MAX {
            let at = (deadline + offset).max(now + 1);
            if at < life.tick_at || life.tick_at <= now {
                life.tick_at = at;
                let life = life.number;
                self.at(at, EventKey::Tick { node, life });
            }
        }
    }
    pub fn life(&mut self, node: usize) -> &mut Life {
        self.nodes[node].life.as_mut().unwrap()
    }
    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Dial(ix) => {
                let life = self.life(node);
                let (number, to) = (life.number, life.peers[&ix]);
                let blocked = self.parted[node][to] || self.parted[to][node];
                let unanswered = blocked || self.undialable[node][to] || self.nodes[to].frozen;
                let wait = if unanswered {
                    DIAL_PATIENCE
                } else {
                    2 * self.rng.between(self.delay.0, self.delay.1)
                };
                let at = self.now + wait;
                self.at(
                    at,
                    EventKey::Dialed {
                        node,
                        life: number,
                        ix: ix.0,
                        to,
                    },
                );
            }
            Action::Lend(session) => self.lend(node, session),
            Action::Close(session, why) => {
                self.log(|| format!("node{node} closes {session:?}: {why}"));
                if let Some((conn, dialer)) = self.life(node).sessions.remove(&session) {
                    self.shut(conn, dialer);
                }
            }
            Action::Ready => {
                let now = self.now;
                let life = self.life(node);
                life.ready = true;
                life.ready_at = Some(now);
            }
            Action::Log(Event::Succeeds(heir)) => self.succeeds(node, heir),
            Action::Log(event) => self.log(|| format!("node{node} log: {event}")),
        }
    }
    /// Lets time pass until then.
    pub fn run_until(&mut self, until: u64) {
        while let Some(Reverse((time, _, _))) = self.events.peek() {
            if *time > until {
                break;
            }
            let Some(Reverse((time, _, key))) = self.events.pop() else {
                break;
            };
            self.now = self.now.max(time);
            self.handle(key);
        }
        self.now = until;
    }
    fn handle(&mut self, key: EventKey) {
        match key {
            EventKey::Tick { node, life } => {
                if self.is_live(node, life)
                    && !self.nodes[node].frozen
                    && self.life(node).tick_at == self.now
                {
                    self.life(node).tick_at = u64::MAX;
                    self.pump(node);
                }
            }
            EventKey::Arrive { conn, up } => self.arrive(conn, up),
            EventKey::Dialed { node, life, ix, to } => self.dialed(node, life, PeerIx(ix), to),
            EventKey::Notice { conn, dialer } => self.notice(conn, dialer),
        }
    }
    pub fn thaw(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].frozen) {
            self.log(|| format!("thaw node{node}"));
            if self.nodes[node].life.is_some() {
                self.pump(node);
            }
            self.flow_again();
        }
    }
}

fn brief(message: &impl std::fmt::Debug) -> String {
    let mut text = format!("{message:?}");
    if let Some(at) = text.find(", columns: Columns") {
        let rest: String = text[at..].chars().take(40).collect();
        text.truncate(at);
        text += &rest;
    }
    text.truncate(400);
    text
}
