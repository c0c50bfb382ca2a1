//! What this process holds on behalf of those that drain, and how far its own taking over has come.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use remora_core::peers::Inheritance;
use remora_core::table::{Key, Ledger, Lineage, Table, TableId};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::{FOR_EVER, Learned, convert, hear, say, totals};
use crate::handoff::channel::Channel;
use crate::handoff::frames::Frame;
use crate::handoff::frames::tables::{Drain, Found, Pass};
use crate::peers::Totals;
use crate::proxy::clock;
use crate::shared::Shared;

/// How far a process has come in taking over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It follows nobody.
    Alone,
    /// Another process still counts.
    Learning,
    /// It has everything, and may accept.
    Sealed,
    /// The other one will not come back.
    Released,
    /// It will never have everything. The other one, which nobody replaces, may serve on or be dead.
    Broken,
    /// That one is dead: what this process has must do.
    Bereft,
    /// This process cannot become what it should.
    Failed,
}

/// Shared by the threads that talk to other workers.
#[derive(Debug)]
pub struct Heritage {
    /// This process's number, once it drains.
    pub child: u64,
    state: Mutex<State>,
    /// The phase has changed.
    turned: Condvar,
    /// A process that drained has ended, or tells another one now.
    gone: Notify,
    stage: watch::Sender<Stage>,
    /// When the process before stopped accepting, if it has before this one began; until it was asked for.
    held_ms: Mutex<Option<Option<u64>>>,
    /// The process before, if it accepts until this one says that it does.
    before: Mutex<Option<Channel>>,
    /// It accepts no more.
    quiet: Notify,
    /// How it took over, and for how long nobody accepted.
    taken_over: OnceLock<(Learned, u64)>,
    /// What the hubs of the process before knew.
    pub hubs: Mutex<Hubs>,
    /// Lineages of this node that have ended with their processes.
    pub over: Mutex<Vec<Lineage>>,
    /// Tables that are not replicated here but were.
    once_shared: Mutex<BTreeMap<TableId, OnceShared>>,
}

/// How a table was replicated that is not any more. Peers keep what it told them: when it is replicated again, its entries,
/// which hold that too, have to replace it. So the lineage goes on, with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnceShared {
    /// Under this lineage, whose journal had come to this number.
    As(Lineage, u64),
    /// Under a lineage that has gone on elsewhere.
    Lost,
}

/// See [`Heritage::hubs`].
#[derive(Debug, Default)]
pub struct Hubs {
    /// By table.
    pub known: Vec<(TableId, Inheritance)>,
    /// Lineages that were alive, with the names of their nodes.
    pub lives: Vec<(Lineage, String)>,
    /// What they had counted.
    pub totals: Totals,
    /// Where names led that their sections follow.
    pub found: Vec<Found>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    children: BTreeMap<u64, Child>,
    connections: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// What draining processes tell is counted here.
    #[default]
    Counting,
    /// It is being passed on.
    Frozen,
    /// It belongs to another process.
    Gone,
}

/// A process that drains.
#[derive(Debug)]
struct Child {
    /// The last message that was counted.
    seq: u64,
    ledger: Ledger,
    /// Its connection; 0 = it has not come yet, since then.
    connection: u64,
    since: Instant,
}

impl Heritage {
    /// Of a process that will follow another one or not.
    pub fn new(follows: bool) -> Heritage {
        Heritage {
            child: rand::random(),
            state: Mutex::default(),
            turned: Condvar::new(),
            gone: Notify::new(),
            stage: watch::Sender::new(if follows {
                Stage::Learning
            } else {
                Stage::Alone
            }),
            held_ms: Mutex::default(),
            before: Mutex::default(),
            quiet: Notify::new(),
            taken_over: OnceLock::new(),
            hubs: Mutex::default(),
            over: Mutex::default(),
            once_shared: Mutex::default(),
        }
    }
    /// A table is not replicated here, but was.
    pub(super) fn was_shared(&self, table: TableId, how: OnceShared) {
        self.once_shared.lock().insert(table, how);
    }
    /// How a table was replicated that is not any more; `None`: never.
    pub(super) fn once_shared(&self, table: TableId) -> Option<OnceShared> {
        self.once_shared.lock().get(&table).copied()
    }
    /// The lineage to go on with if no table is replicated.
    pub(super) fn last_lineage(&self) -> Option<Lineage> {
        let shared = self.once_shared.lock();
        shared.values().find_map(|how| match how {
            OnceShared::As(lineage, _) => Some(*lineage),
            OnceShared::Lost => None,
        })
    }
    /// When the process before stopped accepting (monotonic clock), `None`: when this one began; only the first call after
    /// there was one tells.
    pub fn held_ms(&self) -> Option<Option<u64>> {
        self.held_ms.lock().take()
    }
    pub(super) fn sealed(&self, held_ms: u64, before: Option<Channel>) {
        *self.before.lock() = before;
        *self.held_ms.lock() = Some((held_ms != 0).then_some(held_ms));
        self.reach(Stage::Sealed);
    }

    /// To be called when this process accepts; completes when the one before does not any more, or does not answer.
    pub async fn hush(&self) {
        let Some(before) = self.before.lock().take() else {
            return;
        };
        let accepting = Frame::Pass(Box::new(Pass::Accepting));
        if before.try_send(&accepting.into()).is_ok() {
            let _ = timeout(HUSH_PATIENCE, self.quiet.notified()).await;
        }
    }
    /// This process serves in the place of another one. For so long nobody accepted.
    pub fn taken_over(&self, learned: Learned, gap_ms: u64) {
        // It does so once.
        let _ = self.taken_over.set((learned, gap_ms));
    }
    /// How this process took over from another one, and for how many milliseconds nobody accepted.
    pub fn took_over(&self) -> Option<(Learned, u64)> {
        self.taken_over.get().copied()
    }

    /// This process cannot go on.
    pub fn fail(&self) {
        self.reach(Stage::Failed);
    }
    /// How far it has come.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }
    pub(super) fn reach(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
    /// Completes when this process may accept.
    pub async fn complete(&self) -> Stage {
        self.wait_for(|stage| matches!(stage, Stage::Alone | Stage::Sealed | Stage::Released))
            .await
    }
    /// Completes when the process before will not come back: whether this one continues its lineage.
    pub async fn released(&self) -> bool {
        self.wait_for(|stage| matches!(stage, Stage::Alone | Stage::Released))
            .await
            == Stage::Released
    }
    /// Completes when it is known whether everything arrives: whether it did.
    pub async fn arrived(&self) -> bool {
        let stage = self.wait_for(|stage| stage != Stage::Learning).await;
        matches!(stage, Stage::Alone | Stage::Sealed | Stage::Released)
    }
    /// The process before is dead, without having shown everything: this one makes do with what it has. Completes when it can
    /// go on with that: whether it can.
    pub async fn bereave(&self) -> bool {
        self.stage.send_if_modified(|stage| {
            let broken = *stage == Stage::Broken;
            if broken {
                *stage = Stage::Bereft;
            }
            broken
        });
        let settled = |stage| !matches!(stage, Stage::Broken | Stage::Bereft);
        self.wait_for(settled).await == Stage::Alone
    }
    /// The same, blocking.
    ///
    /// # Errors
    /// No event loop could be made, or it cannot go on.
    pub fn bereave_and_wait(&self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        match runtime.block_on(self.bereave()) {
            true => Ok(()),
            false => Err(io::Error::other("what it had shown is of no use")),
        }
    }
    /// Blocks until it is known what has become of the process before, which has not shown everything: whether it is dead.
    pub(super) fn wait_until_bereft(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let known = |stage| matches!(stage, Stage::Bereft | Stage::Failed);
        runtime.is_ok_and(|runtime| runtime.block_on(self.wait_for(known)) == Stage::Bereft)
    }
    /// Blocks until everything has arrived.
    ///
    /// # Errors
    /// It will not.
    pub fn wait_until_arrived(&self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        if runtime.block_on(self.arrived()) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
    /// Completes when this process cannot become what it should.
    pub async fn failed(&self) {
        self.wait_for(|stage| stage == Stage::Failed).await;
    }
    async fn wait_for(&self, reached: impl Fn(Stage) -> bool) -> Stage {
        let mut stage = self.stage.subscribe();
        // Cannot fail: the sender is alive as long as `self`.
        let stage = stage.wait_for(|stage| reached(*stage)).await;
        stage.map_or(Stage::Failed, |stage| *stage)
    }

    /// What is held is as it is from now on, until [`Heritage::thaw`] or [`Heritage::leave`]. Shows all of it.
    pub(super) fn freeze(&self, f: &mut dyn FnMut(u64, u64, &Ledger)) {
        self.state.lock().phase = Phase::Frozen;
        // It stays so.
        self.show(f);
    }
    /// Shows what is held, which is as it was when it was passed on.
    pub(super) fn show(&self, f: &mut dyn FnMut(u64, u64, &Ledger)) {
        for (number, child) in &self.state.lock().children {
            f(*number, child.seq, &child.ledger);
        }
    }
    /// It was not passed on.
    pub(super) fn thaw(&self) {
        self.turn(Phase::Counting);
    }
    /// It was.
    pub(super) fn leave(&self) {
        self.turn(Phase::Gone);
    }
    fn turn(&self, phase: Phase) {
        self.state.lock().phase = phase;
        self.turned.notify_all();
        self.gone.notify_waiters();
    }
    /// Completes when no process that drains tells this one what it counts: they have ended, or tell another one.
    pub async fn childless(&self) {
        loop {
            let mut gone = std::pin::pin!(self.gone.notified());
            // Before the look: what ends after it must not be missed.
            gone.as_mut().enable();
            {
                let state = self.state.lock();
                if state.phase == Phase::Gone || state.children.is_empty() {
                    return;
                }
            }
            gone.await;
        }
    }
    /// Trackers that this process still holds in the name of others.
    pub(super) fn shares(&self, mut f: impl FnMut(TableId, &Key, u32)) {
        for child in self.state.lock().children.values() {
            for (table, key, share) in child.ledger.iter().filter(|(_, _, s)| s.uses > 0) {
                f(table, key, share.gauge);
            }
        }
    }

    /// Takes over what the process before held for a third one, which will connect soon.
    pub(super) fn inherit(&self, number: u64, seq: u64, ledger: Ledger) {
        let child = Child {
            seq,
            ledger,
            connection: 0,
            since: Instant::now(),
        };
        self.state.lock().children.insert(number, child);
    }
    /// To be called now and then: ends what is held for processes that did not come.
    pub fn tidy(&self, tables: &[Table]) {
        let mut state = self.state.lock();
        if state.phase != Phase::Counting || state.children.is_empty() {
            return;
        }
        let now_ms = clock::read().mono_ms;
        state.children.retain(|_, child| {
            let stay = child.connection != 0 || child.since.elapsed() < COME_PATIENCE;
            if !stay {
                child.ledger.end(tables, now_ms);
            }
            stay
        });
        self.gone.notify_waiters();
    }

    /// Listens to a process that drains, in a thread of its own.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn adopt(shared: &Arc<Shared>, channel: Channel) -> io::Result<()> {
        let shared = Arc::clone(shared);
        std::thread::Builder::new()
            .name("remora-child".into())
            .spawn(move || listen(&shared, &channel, None))
            .map(drop)
    }

    /// Counts what was told. `None`: it is no longer this process that counts.
    fn count(&self, shared: &Shared, from: &From, drain: &Drain) -> Option<()> {
        let mut state = self.state.lock();
        while state.phase == Phase::Frozen {
            self.turned.wait(&mut state);
        }
        if state.phase == Phase::Gone {
            return None;
        }
        let child = state.children.get_mut(&from.child)?;
        if drain.seq <= child.seq {
            return Some(()); // said again
        }
        let now_ms = clock::read().mono_ms;
        let tables = &shared.world.tables;
        for change in &drain.entries {
            let table = from.positions.get(usize::from(change.table));
            if let Some(table) = table.copied().flatten() {
                let key = Key::from_stored(&change.key);
                let delta = convert::delta(change);
                // A full table refuses; it counts that itself.
                let _ = child.ledger.apply(tables, table, &key, &delta, now_ms);
            }
        }
        totals::add(shared, &drain.totals);
        child.seq = drain.seq;
        Some(())
    }
    /// The process is known, or becomes so. Returns what was counted last.
    fn connect(&self, from: &mut From) -> Option<Option<u64>> {
        let mut state = self.state.lock();
        while state.phase == Phase::Frozen {
            self.turned.wait(&mut state);
        }
        if state.phase == Phase::Gone {
            return None;
        }
        state.connections += 1;
        from.connection = state.connections;
        let known = state.children.get(&from.child).map(|child| child.seq);
        let child = state.children.entry(from.child).or_insert_with(|| Child {
            seq: 0,
            ledger: Ledger::new(),
            connection: 0,
            since: Instant::now(),
        });
        child.connection = from.connection;
        Some(known)
    }
    /// It has ended, well or not.
    fn end(&self, tables: &[Table], from: &From) {
        let mut state = self.state.lock();
        while state.phase == Phase::Frozen {
            self.turned.wait(&mut state);
        }
        let current = |child: &Child| child.connection == from.connection;
        if state.phase == Phase::Gone || !state.children.get(&from.child).is_some_and(current) {
            return;
        }
        if let Some(mut child) = state.children.remove(&from.child) {
            child.ledger.end(tables, clock::read().mono_ms);
        }
        self.gone.notify_waiters();
    }
}

/// Who speaks over a channel.
pub(super) struct From {
    pub child: u64,
    pub positions: Vec<Option<TableId>>,
    pub connection: u64,
}

/// Listens until the end. `from`: it has been heard of already.
pub(super) fn listen(shared: &Shared, channel: &Channel, from: Option<From>) {
    let heritage = &shared.heritage;
    let mut from = from;
    if let Some(from) = &mut from
        && heritage.connect(from).is_none()
    {
        return;
    }
    let mut there = Vec::new();
    loop {
        match hear(channel, FOR_EVER) {
            Ok(Some(Pass::Released)) => heritage.reach(Stage::Released),
            Ok(Some(Pass::Quiet)) => heritage.quiet.notify_one(),
            Ok(Some(Pass::Child {
                child,
                tables,
                more,
            })) => {
                there.extend(tables);
                if more {
                    continue;
                }
                let there = std::mem::take(&mut there);
                let mut new = From {
                    child,
                    positions: convert::positions(&shared.world.tables, &there),
                    connection: 0,
                };
                let Some(seq) = heritage.connect(&mut new) else {
                    return;
                };
                from = Some(new);
                if say(channel, Pass::Heard { seq }).is_err() {
                    break;
                }
            }
            Ok(Some(Pass::Drain(drain))) => {
                let Some(from) = &from else { break };
                if heritage.count(shared, from, &drain).is_none() {
                    return;
                }
                if say(channel, Pass::Ack { seq: drain.seq }).is_err() {
                    break;
                }
            }
            Ok(Some(Pass::Drained)) => {
                if let Some(from) = &from {
                    heritage.end(&shared.world.tables, from);
                }
                let _ = say(channel, Pass::Ack { seq: u64::MAX });
                return;
            }
            _ => break,
        }
    }
    heritage.quiet.notify_one();
    // Whoever is gone does not come back.
    if heritage.stage() == Stage::Sealed {
        heritage.reach(Stage::Released);
    }
    if let Some(from) = &from {
        heritage.end(&shared.world.tables, from);
    }
}

/// How long the process before may take to stop accepting. Its threads finish what they are at.
const HUSH_PATIENCE: Duration = Duration::from_secs(1);
/// A draining process gets a channel to its new successor at once.
const COME_PATIENCE: Duration = Duration::from_secs(10);
