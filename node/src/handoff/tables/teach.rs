//! The worker that serves shows its tables to the new one.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use remora_core::peers::batch::Budget;
use remora_core::table::{Exporter, Ledger, Lineage, Replica, Slice, Table, TableId};
use tokio::sync::{oneshot, watch};
use tracing::warn;

use super::drain::Drainer;
use super::totals::{self, Told};
use super::{convert, hear, say};
use crate::handoff::channel::Channel;
use crate::handoff::frames::tables::{Numbers, Pass, Shares, Tables};
use crate::peers;
use crate::proxy::clock;
use crate::proxy::control::Ask;
use crate::shared::Shared;

/// What the main thread tells the one that teaches.
pub(super) enum Command {
    /// Another one is to accept: send the rest, and say when that is done.
    Seal {
        held_ms: Option<u64>,
        done: oneshot::Sender<()>,
    },
    /// This process serves on.
    Resume,
    /// The new one serves.
    Release,
    /// Another one serves.
    Heir(Channel),
    /// The one that served has died: show everything once more.
    Again(Channel),
    /// Everything is about to end: hardly another one will.
    Last,
    /// Everything has ended here: send the rest.
    Finish {
        /// All connections ended by themselves.
        clean: bool,
        done: oneshot::Sender<()>,
    },
}

/// The thread that talks to the successor.
pub struct Teacher {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
    fate: watch::Receiver<Option<Fate>>,
}

/// What a successor has come to that was given everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It accepts, and this process does not any more.
    Accepts,
    /// It ended before.
    Gone,
}

impl Teacher {
    /// Begins to teach the process at the other end, once `before` has given up. `over` is dropped when this one has.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        shared: &Arc<Shared>,
        channel: Channel,
        before: Option<Arc<Teacher>>,
        over: Option<oneshot::Sender<()>>,
    ) -> io::Result<Teacher> {
        let (commands, orders) = mpsc::channel();
        let (known, fate) = watch::channel(None);
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("remora-teach".into())
            .spawn(move || {
                if let Some(before) = before {
                    before.resume();
                    // Its last steps would undo this one's first.
                    while !before.thread.is_finished() {
                        std::thread::sleep(BEFORE_PAUSE);
                    }
                }
                run(&shared, channel, &orders, &known);
                drop(over);
            })?;
        Ok(Teacher {
            commands,
            thread,
            fate,
        })
    }
    /// It has given up.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
    /// Another one is to accept; completes when the successor has been sent everything, or will not be. `held_ms`: since when
    /// nothing is accepted here; `None`: that goes on until the successor accepts.
    pub async fn seal(&self, held_ms: Option<u64>) {
        let (done, when) = oneshot::channel();
        let _ = self.commands.send(Command::Seal { held_ms, done });
        let _ = when.await;
    }
    /// Completes when it is known whether the successor, which has everything, accepts.
    pub async fn fate(&self) -> Fate {
        let mut fate = self.fate.clone();
        // The thread ends without a word if there is no successor any more.
        let known = fate.wait_for(Option::is_some).await;
        known.ok().and_then(|fate| *fate).unwrap_or(Fate::Gone)
    }
    /// This process serves on.
    pub fn resume(&self) {
        let _ = self.commands.send(Command::Resume);
    }
    /// The successor serves.
    pub fn release(&self) {
        let _ = self.commands.send(Command::Release);
    }
    /// Another one serves.
    pub fn heir(&self, channel: Channel) {
        let _ = self.commands.send(Command::Heir(channel));
    }
    /// The process that took over has died: everything is shown once more to the one at the other end, when that asks.
    pub fn again(&self, channel: Channel) {
        let _ = self.commands.send(Command::Again(channel));
    }
    /// Everything is about to end: who does not hear of another successor soon will never.
    pub fn last(&self) {
        let _ = self.commands.send(Command::Last);
    }
    /// Everything has ended here; completes when the rest has been sent, or it took too long, and nobody will need the tables
    /// once more. `clean`: all connections ended by themselves.
    pub async fn finish(&self, clean: bool) {
        let (done, when) = oneshot::channel();
        let _ = self.commands.send(Command::Finish { clean, done });
        // The thread knows how long it may take.
        let _ = when.await;
    }
}

fn run(
    shared: &Shared,
    channel: Channel,
    orders: &mpsc::Receiver<Command>,
    fate: &watch::Sender<Option<Fate>>,
) {
    let mut begun = false;
    let (told, newest) = match teach(shared, &channel, orders, &mut begun) {
        Ok(Some(sealed)) => sealed,
        other => {
            go_on(shared);
            if begun {
                broken(shared);
            }
            if let Err(e) = other {
                warn!("the new process could not be given the tables: {e}");
            }
            return;
        }
    };
    // Until the new one serves, everything can go back.
    match verdict(shared, &channel, orders, fate) {
        Ok(Command::Release) => {
            shared.heritage.leave();
            let _ = say(&channel, Pass::Released);
            Drainer::new(shared, told, channel, newest).run(orders);
        }
        _ => {
            go_on(shared);
            broken(shared);
        }
    }
}

/// What becomes of the hand-over. Meanwhile the new process may begin to accept; then this one stops.
fn verdict(
    shared: &Shared,
    channel: &Channel,
    orders: &mpsc::Receiver<Command>,
    fate: &watch::Sender<Option<Fate>>,
) -> Result<Command, mpsc::RecvError> {
    loop {
        match orders.try_recv() {
            Ok(command) => return Ok(command),
            Err(mpsc::TryRecvError::Disconnected) => return Err(mpsc::RecvError),
            Err(mpsc::TryRecvError::Empty) => {}
        }
        match hear(channel, VERDICT_PAUSE) {
            Ok(Some(Pass::Accepting)) => {
                stop_accepting(shared);
                let _ = say(channel, Pass::Quiet);
                fate.send_replace(Some(Fate::Accepts));
            }
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {}
            // Who has given it the channel will say what that means.
            _ => {
                if fate.borrow().is_none() {
                    fate.send_replace(Some(Fate::Gone));
                }
                return orders.recv();
            }
        }
    }
}

/// All sockets are kept.
fn stop_accepting(shared: &Shared) {
    let mut answers = Vec::new();
    for worker in &shared.workers {
        let (done, answer) = oneshot::channel();
        let _ = worker.ask.send(Ask::Hold { pause: false, done });
        answers.push(answer);
    }
    for answer in answers {
        // A thread that died is reported elsewhere.
        let _ = answer.blocking_recv();
    }
}

fn broken(shared: &Shared) {
    let count = &shared.world.process.handoffs_broken;
    count.fetch_add(1, Relaxed);
}

/// Nobody took over: this process goes on as if nothing had been.
fn go_on(shared: &Shared) {
    follow(shared, false);
    shared.heritage.thaw();
    peers::resume(shared);
}

fn follow(shared: &Shared, on: bool) {
    for table in &shared.world.tables {
        table.follow(on);
    }
}

/// Until everything is sealed. `None`: the other process is gone, or not wanted any more. `begun`: it had asked.
fn teach(
    shared: &Shared,
    channel: &Channel,
    orders: &mpsc::Receiver<Command>,
    begun: &mut bool,
) -> io::Result<Option<(Told, Newest)>> {
    // It reads its configuration first.
    loop {
        match hear(channel, ASK_PAUSE) {
            Ok(Some(Pass::Ask)) => break,
            Ok(Some(other)) => return Err(io::Error::other(format!("unexpected {other:?}"))),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {}
            // It says itself what went wrong.
            Ok(None) | Err(_) => return Ok(None),
        }
        match orders.try_recv() {
            Err(mpsc::TryRecvError::Empty) => {}
            Ok(Command::Seal { done, .. } | Command::Finish { done, .. }) => {
                let _ = done.send(());
                return Ok(None);
            }
            _ => return Ok(None),
        }
    }
    *begun = true;
    if lineage(shared).is_none() {
        // The new process has no lineage to go on with, so it does not wait until this one falls silent, but asks its peers at
        // once for what they know. They answer by dialing sockets that both processes listen on.
        peers::step_aside(shared);
    }
    introduce(shared, channel, true)?;
    let mut told = Told::default();
    let mut exporters = walk(shared, channel, &mut told)?;
    loop {
        match orders.recv_timeout(ROUND_PAUSE) {
            Ok(Command::Seal { held_ms, done }) => {
                let sealed = seal(shared, channel, &mut exporters, &mut told, held_ms);
                let _ = done.send(());
                return sealed.map(|newest| Some((told, newest)));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // It has nothing to say now; this is how its end is noticed.
                match channel.try_recv() {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return Ok(None),
                }
                round(channel, &mut exporters, false)?;
            }
            Ok(Command::Finish { done, .. }) => {
                let _ = done.send(());
                return Ok(None);
            }
            _ => return Ok(None),
        }
    }
}

/// Which lineage the new process goes on with.
fn lineage(shared: &Shared) -> Option<Lineage> {
    let replica = shared.world.tables.iter().find_map(Table::replica);
    let lineage = replica.map(|replica| replica.lineages().own());
    lineage.or_else(|| shared.heritage.last_lineage())
}

/// Who this is, and what there is. `shows`: the entries, too.
fn introduce(shared: &Shared, channel: &Channel, shows: bool) -> io::Result<()> {
    let tables = &shared.world.tables;
    let heritage = &shared.heritage;
    let lineage = lineage(shared);
    let shared_as = |at| {
        let how = heritage.once_shared(TableId(at));
        convert::shared_as(how.filter(|_| shows))
    };
    let count = |table: &Table| if shows { table.count() as u64 } else { 0 };
    let mut shared_as = (0..=u16::MAX).map(shared_as);
    let mut described = tables.iter();
    for (tables, more) in convert::infos(tables) {
        let these: Vec<&Table> = described.by_ref().take(tables.len()).collect();
        let hello = Tables {
            seeds: these.iter().map(|table| table.seed()).collect(),
            entries: these.iter().map(|table| count(table)).collect(),
            sizes: these.iter().map(|t| t.spec().size as u64).collect(),
            child: heritage.child,
            shared_as: shared_as.by_ref().take(these.len()).collect(),
            lineage: lineage.map_or(0, |lineage| lineage.0),
            mono_ms: clock::read().mono_ms,
            tables,
            more,
        };
        say(channel, Pass::Tables(hello))?;
    }
    Ok(())
}

/// All entries, and what has changed until there is little of it.
fn walk<'s>(
    shared: &'s Shared,
    channel: &Channel,
    told: &mut Told,
) -> io::Result<Vec<Exporter<'s>>> {
    let tables = &shared.world.tables;
    follow(shared, true);
    let mut exporters: Vec<Exporter<'_>> = tables.iter().map(Exporter::new).collect();
    for (at, exporter) in exporters.iter_mut().enumerate() {
        loop {
            let step = exporter.walk(BUDGET, clock::read().mono_ms);
            send(channel, at, step.slice)?;
            if step.done {
                break;
            }
        }
    }
    for _ in 0..ROUNDS_MAX {
        if tables.iter().map(Table::changes).sum::<usize>() <= FEW {
            break;
        }
        round(channel, &mut exporters, false)?;
    }
    // Most of them now, so that there are few when nobody accepts.
    totals(shared, channel, told)?;
    say(channel, Pass::Walked)?;
    Ok(exporters)
}

/// Everything once more, for a process that begins in the place of the successor, which has died: as it is now, with what
/// was counted here since the tables were sealed. Its lineage is that process's for good: here it went on after `newest`, and
/// this is the `time`th time (1, 2, …) that anybody is taught again, so it is told which numbers cannot be that process's.
pub(super) fn again(
    shared: &Shared,
    channel: &Channel,
    newest: &Newest,
    time: u64,
) -> io::Result<Told> {
    introduce(shared, channel, true)?;
    for (at, table) in shared.world.tables.iter().enumerate() {
        let (Some(replica), Some(newest)) = (table.replica(), newest.get(at)) else {
            continue;
        };
        numbers(channel, at, replica, newest + time.min(AGAIN_MAX))?;
    }
    let mut told = Told::default();
    let mut exporters = walk(shared, channel, &mut told)?;
    // They tell themselves what they hold; what is held for them here is out of date.
    for shares in shares(|f| shared.heritage.show(f)) {
        say(channel, Pass::Shares(shares))?;
    }
    round(channel, &mut exporters, true)?;
    totals(shared, channel, &mut told)?;
    settings(shared, channel)?;
    found(shared, channel)?;
    let held_ms = clock::read().mono_ms;
    say(channel, Pass::Sealed { held_ms })?;
    say(channel, Pass::Released)?;
    Ok(told)
}

/// The same where the tables are not kept any more: which lineage is over, and that nothing is shown.
pub(super) fn remind(shared: &Shared, channel: &Channel) -> io::Result<()> {
    introduce(shared, channel, false)?;
    say(channel, Pass::Walked)?;
    found(shared, channel)?;
    let held_ms = clock::read().mono_ms;
    say(channel, Pass::Sealed { held_ms })?;
    say(channel, Pass::Released)
}

/// Shows what has changed.
fn round(channel: &Channel, exporters: &mut [Exporter<'_>], last: bool) -> io::Result<()> {
    for (at, exporter) in exporters.iter_mut().enumerate() {
        exporter.rewind();
        loop {
            let step = exporter.changes(BUDGET, clock::read().mono_ms, last);
            send(channel, at, step.slice)?;
            if step.done {
                break;
            }
        }
    }
    if exporters.iter().any(Exporter::has_lost) {
        return Err(io::Error::other(
            "too many entries were removed by hand meanwhile",
        ));
    }
    Ok(())
}

fn send(channel: &Channel, table: usize, mut slice: Slice) -> io::Result<()> {
    let table = table as u16;
    // Keys removed by hand may be many at once.
    let mut parts = parts(std::mem::take(&mut slice.removed), KEYS_BYTES, Vec::len);
    slice.removed = parts.pop().unwrap_or_default();
    for removed in parts {
        let some = Slice {
            now_ms: slice.now_ms,
            stripe: slice.stripe,
            removed,
            ..Slice::default()
        };
        say(channel, Pass::Rows(convert::rows(table, some)))?;
    }
    if slice.is_empty() {
        return Ok(());
    }
    say(channel, Pass::Rows(convert::rows(table, slice)))
}

/// The rest.
fn seal(
    shared: &Shared,
    channel: &Channel,
    exporters: &mut [Exporter<'_>],
    told: &mut Told,
    held_ms: Option<u64>,
) -> io::Result<Newest> {
    let shares_of = shares(|f| shared.heritage.freeze(f));
    // What peers say from here on is for the new process; they keep what is not acknowledged.
    let hubs = peers::suspend(shared);
    round(channel, exporters, true)?;
    for (table, inheritance) in &hubs.known {
        say(channel, Pass::Known(convert::known(*table, inheritance)))?;
    }
    for some in hubs.lives.chunks(LIVES_MAX) {
        let some = some.iter().map(|(id, node)| (id.0, node.clone()));
        say(channel, Pass::Lives(some.collect()))?;
    }
    for shares in shares_of {
        say(channel, Pass::Shares(shares))?;
    }
    let mut all = Newest::new();
    for (at, table) in shared.world.tables.iter().enumerate() {
        let newest = table.replica().map_or(0, |replica| replica.newest());
        all.push(newest);
        if let Some(replica) = table.replica() {
            // A few are left out: see `again`.
            numbers(channel, at, replica, newest + AGAIN_MAX)?;
        }
    }
    totals(shared, channel, told)?;
    settings(shared, channel)?;
    found(shared, channel)?;
    let held_ms = held_ms.unwrap_or(0);
    say(channel, Pass::Sealed { held_ms })?;
    Ok(all)
}

/// The last number of each table's journal.
pub(super) type Newest = Vec<u64>;

fn numbers(channel: &Channel, table: usize, replica: Replica<'_>, newest: u64) -> io::Result<()> {
    let highest = replica.highest_of_all();
    let numbers = Numbers {
        table: table as u16,
        newest,
        highest: highest.iter().map(|(id, n)| (id.0, *n)).collect(),
    };
    say(channel, Pass::Numbers(numbers))
}

fn settings(shared: &Shared, channel: &Channel) -> io::Result<()> {
    for some in totals::settings(&shared.world, &shared.plan).chunks(SETTINGS_MAX) {
        say(channel, Pass::Settings(some.to_vec()))?;
    }
    Ok(())
}

/// Where names of peers lead.
fn found(shared: &Shared, channel: &Channel) -> io::Result<()> {
    for found in peers::found(shared) {
        say(channel, Pass::Found(found))?;
    }
    Ok(())
}

/// What is held here for others, as `each` shows it.
fn shares(each: impl FnOnce(&mut dyn FnMut(u64, u64, &Ledger))) -> Vec<Shares> {
    let mut shares_of: Vec<Shares> = Vec::new();
    each(&mut |child, seq, ledger| {
        let all = ledger
            .iter()
            .map(|(table, key, share)| (table.0, key.as_bytes().to_vec(), share.uses, share.gauge));
        // Also one that holds nothing is known.
        for shares in parts(all, SHARES_BYTES, |(_, key, ..)| key.len()) {
            shares_of.push(Shares { child, seq, shares });
        }
    });
    shares_of
}

/// Counters, as far as they have not been told.
fn totals(shared: &Shared, channel: &Channel, told: &mut Told) -> io::Result<()> {
    for some in told.news(shared, usize::MAX).chunks(TOTALS_MAX) {
        say(channel, Pass::Totals(some.to_vec()))?;
    }
    Ok(())
}

/// Parts of at most so many bytes, and at least one item; there is at least one part.
fn parts<T>(
    all: impl IntoIterator<Item = T>,
    bytes: usize,
    weight: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let mut parts = vec![Vec::new()];
    let mut room = bytes;
    for item in all {
        let weight = weight(&item) + ITEM_BYTES;
        if weight > room && parts.last().is_some_and(|part| !part.is_empty()) {
            parts.push(Vec::new());
            room = bytes;
        }
        room = room.saturating_sub(weight);
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
    }
    parts
}

/// Rows of one frame; a frame is at most 64 KiB long.
const BUDGET: Budget = Budget {
    rows: 2_000,
    bytes: 40 * 1024,
};
/// Rounds are repeated until so few entries changed during one, but not for ever.
const FEW: usize = 2_000;
const ROUNDS_MAX: usize = 5;
/// While the new process gets ready, changes are shown this often.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// Removed keys, and trackers, in one frame, by their bytes.
const KEYS_BYTES: usize = 12 * 1024;
const SHARES_BYTES: usize = 32 * 1024;
/// What such an item takes beside its key.
const ITEM_BYTES: usize = 16;
/// Counters and settings in one frame.
pub(super) const TOTALS_MAX: usize = 100;
const SETTINGS_MAX: usize = 200;
const LIVES_MAX: usize = 100;
/// How often it is looked for other orders while the new process reads its configuration.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked for orders while the new process begins to accept.
const VERDICT_PAUSE: Duration = Duration::from_millis(5);
/// How often it is looked whether the one before has given up.
const BEFORE_PAUSE: Duration = Duration::from_millis(1);
/// So many numbers of each journal are kept for teaching again.
const AGAIN_MAX: u64 = 64;
