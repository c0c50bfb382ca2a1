//! The main thread after start-up: signals, table upkeep, and the end (reference: reload-and-peers 1.1).

mod begin;
mod caught;
mod parting;
mod report;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use remora_core::table::Lineages;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{error, warn};

use remora_config::plan::CliLevel;

use crate::admin;
use crate::boot::LOG_PATIENCE;
use crate::handoff::Frame;
use crate::handoff::channel::Channel;
use crate::handoff::directory;
use crate::handoff::giver::{self, Giver, Wish};
use crate::handoff::inherited::Offer;
use crate::handoff::succession::{self, Leaving};
use crate::handoff::tables::{self, Heritage, Teacher};
use crate::handoff::taker::Taker;
use crate::handoff::worker::{self, Errand, Link, Order};
use crate::peers;
use crate::proxy::clock;
use crate::proxy::control::{Ask, Successor};
use crate::shared::Shared;
use begin::{Beginning, accept, hold, make_way};
pub use caught::postpone;
use caught::{Caught, Signals};
use parting::{Parting, parted};
use report::{dump_state, report_stopped};

/// A process whose threads run.
pub struct Running {
    /// What they share.
    pub shared: Arc<Shared>,
    /// The worker threads.
    pub threads: Vec<JoinHandle<()>>,
    /// The CLI's thread.
    pub console: admin::Control,
    /// Everything it listens on, for whoever takes over.
    pub offer: Offer,
    /// The channel to the supervisor, if there is one: then nothing is accepted before it says so.
    pub supervisor: Option<worker::Start>,
    /// Whom it takes over from.
    pub taker: Taker,
    /// The socket on which others may take over.
    pub handoff: Option<(Arc<OwnedFd>, PathBuf)>,
    /// What the process before has shown.
    pub learned: Option<tables::Learned>,
    /// What peers need to be started, once the process before has let go of its lineage.
    pub peers_later: Option<(peers::Open, Arc<Lineages>)>,
}

/// Waits for the end and returns the exit code: 0 after a soft stop, 128 plus the signal's number after a hard one
/// (what a shell reports for HAProxy, which dies from the signal), 1 if a worker thread died.
pub fn wait(running: Running) -> u8 {
    let shared = Arc::clone(&running.shared);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(serve(running)),
        Err(e) => {
            error!("cannot start the main event loop: {e}");
            1
        }
    };
    shared.logs.finish(LOG_PATIENCE);
    code
}

async fn serve(running: Running) -> u8 {
    let shared = Arc::clone(&running.shared);
    let mut teacher = None;
    let mut link = None;
    let code = serve_until(running, &mut teacher, &mut link).await;
    if let Some(teacher) = &teacher {
        let teacher: &Arc<Teacher> = teacher;
        let clean = shared.world.process.curr_conns.load(Relaxed) == 0;
        tokio::select! {
            () = teacher.finish(clean) => {}
            () = redirect(teacher, link.as_deref()) => {}
        }
    }
    code
}

/// While the last counts are being told, another worker may take over from the one that hears them, or everything may be
/// told to end. Never completes.
async fn redirect(teacher: &Teacher, link: Option<&Link>) {
    let mut orphaned = false;
    let mut signals = Signals::new().ok();
    loop {
        let signal = async {
            match &mut signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = next_order(link, orphaned) => match order {
                Order::Tables(Errand::Heir, channel) => teacher.heir(channel),
                Order::Tables(Errand::TeachAgain, channel) => teacher.again(channel),
                Order::Gone => {
                    orphaned = true;
                    teacher.last();
                }
                _ => {}
            },
            Caught::Term | Caught::Int | Caught::Usr1 = signal => teacher.last(),
            else => {}
        }
    }
}

async fn serve_until(
    running: Running,
    teacher: &mut Option<Arc<Teacher>>,
    supervisor: &mut Option<Arc<Link>>,
) -> u8 {
    let shared = running.shared;
    let console = running.console;
    // Let go of when this process stops listening.
    let mut offer = Some(running.offer);
    let learned = running.learned;
    // Between unrelated processes only the word of the one before makes this one its heir.
    let heir = watch::Sender::new(!running.taker.follows());
    if let Some((open, lineages)) = running.peers_later {
        let shared = Arc::clone(&shared);
        let mut heir = heir.subscribe();
        tokio::spawn(async move {
            let _ = heir.wait_for(|is| *is).await;
            shared.heritage.released().await;
            if let Err(e) = peers::start(&shared, open, &lineages, true) {
                error!("cannot start the thread of the peers: {e}");
                shared.heritage.fail();
            }
        });
    }
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => {
            error!("cannot catch signals: {e}");
            return 1;
        }
    };
    let mut ended = join_all(running.threads);
    let link = match running.supervisor.map(worker::Start::link).transpose() {
        Ok(link) => link.map(Arc::new),
        Err(e) => {
            error!("cannot listen to the supervisor: {e}");
            return 1;
        }
    };
    supervisor.clone_from(&link);
    let mut taker = Some(running.taker);
    let (to_wishes, mut wishes) = unbounded_channel();
    let beginning = Beginning {
        shared: Arc::clone(&shared),
        console: console.clone(),
        link: link.clone(),
        heir,
        wishes: to_wishes.clone(),
        learned,
    };
    let beginning = Arc::new(beginning);
    if link.is_none() {
        let taking = taker.take().zip(offer.clone());
        tokio::spawn(Arc::clone(&beginning).begin(taking));
    }
    let cancel = watch::Sender::new("");
    let own_socket = running.handoff.as_ref().map(|(_, path)| path.clone());
    let mut giver = running.handoff.zip(offer.clone()).map(|((fd, _), offer)| {
        tokio::spawn(giver::serve(Giver {
            fd,
            offer,
            guarded: link.is_some(),
            wishes: to_wishes.clone(),
            cancelled: cancel.subscribe(),
            turns: shared.health.turns(),
        }))
    });
    // Another process wants to take over, and the supervisor has been asked.
    let mut leaving = None::<Leaving>;
    // It may, and has not begun to accept yet.
    let mut parting = None::<Parting>;
    // The one that learns is not of this supervisor.
    let mut teaches_stranger = false;
    // A soft stop was asked for meanwhile.
    let mut stops_next = false;
    // To processes that drain.
    let mut ways = Vec::<Channel>::new();
    let mut upkeep = interval(UPKEEP_PERIOD);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = false;
    let mut orphaned = false;
    let mut hard_stop = None::<Instant>;
    let mut killed = None::<Instant>;
    // All threads have ended.
    let mut joined = false;
    // And nobody else's counts are waited for.
    let mut idle = false;
    // Another process has taken over, but this one answers who asks until it is told to end.
    let mut lingers = false;
    loop {
        if idle && !lingers {
            return 0;
        }
        let told = tokio::select! {
            fine = &mut ended, if !joined && !idle => {
                if !matches!(fine, Ok(true)) || !draining {
                    error!("a worker thread ended unexpectedly.");
                    return 1;
                }
                joined = true;
                report_stopped(&shared);
                continue;
            }
            // Older processes that finish count here, and peers hear of it from here.
            () = shared.heritage.childless(), if joined && !idle => {
                peers::stop(&shared).await;
                idle = true;
                if let Some(teacher) = teacher.clone().filter(|_| lingers) {
                    tokio::spawn(async move { teacher.finish(true).await });
                }
                continue;
            }
            _ = upkeep.tick() => {
                let now_ms = clock::read().mono_ms;
                shared.peaks.look(&shared.world, now_ms);
                shared.heritage.tidy(&shared.world.tables);
                for table in &shared.world.tables {
                    for _ in 0..UPKEEP_ROUNDS_MAX {
                        if !table.maintain(now_ms, UPKEEP_RECORDS) {
                            break;
                        }
                    }
                }
                continue;
            }
            () = sleep_until(hard_stop.unwrap_or_else(Instant::now)), if hard_stop.is_some() => {
                warn!("soft-stop running for too long, performing a hard-stop.");
                hard_stop = None;
                killed = Some(Instant::now() + KILL_PATIENCE);
                for worker in &shared.workers {
                    let _ = worker.ask.send(Ask::Kill);
                }
                continue;
            }
            () = sleep_until(killed.unwrap_or_else(Instant::now)), if killed.is_some() => {
                killed = None;
                if !idle {
                    if !joined {
                        report_stopped(&shared);
                    }
                    let _ = timeout(LAST_WORDS, shared.heritage.childless()).await;
                    peers::stop(&shared).await;
                    idle = true;
                }
                if let Some(teacher) = teacher.clone().filter(|_| lingers) {
                    tokio::spawn(async move { teacher.finish(false).await });
                }
                continue;
            }
            () = shared.heritage.failed() => return 1,
            signal = signals.next() => Told::Signal(signal),
            order = next_order(link.as_deref(), orphaned) => Told::Order(order),
            Some(wish) = wishes.recv() => Told::Wish(wish),
            accepts = parted(&parting, teacher.as_deref(), leaving.as_ref()) => Told::Parted(accepts),
        };
        let successor = match told {
            Told::Signal(Caught::Term) => {
                if let Some(giver) = giver.take() {
                    // Whoever learns sees that this process is dead.
                    giver.abort();
                }
                if let Some(teacher) = teacher.as_ref().filter(|_| parting.is_some()) {
                    teacher.release();
                }
                let ended = (!joined).then_some(&mut ended);
                cut_off(&shared, ended, teacher.as_deref()).await;
                return 128 + 15;
            }
            Told::Signal(Caught::Int) if draining => {
                let ended = (!joined).then_some(&mut ended);
                cut_off(&shared, ended, teacher.as_deref()).await;
                return 128 + 2;
            }
            Told::Signal(Caught::Int | Caught::Usr1)
                if !draining
                    && !stops_next
                    && teaches_stranger
                    && teacher.as_ref().is_some_and(|t| !t.is_over()) =>
            {
                stops_next = true;
                warn!("another process is taking over: soft-stop as soon as it has.");
                continue;
            }
            Told::Signal(Caught::Int | Caught::Usr1) => {
                lingers = false;
                Successor::None
            }
            Told::Signal(Caught::Hup) => {
                dump_state(&shared);
                continue;
            }
            Told::Signal(Caught::Ttou) => {
                tokio::spawn(hold(Arc::clone(&shared), None, true));
                continue;
            }
            Told::Signal(Caught::Ttin) => {
                tokio::spawn(accept(Arc::clone(&shared), console.clone()));
                continue;
            }
            Told::Order(Order::Accept) => {
                if let Some(leaving) = leaving.take() {
                    leaving.settle(false);
                }
                if let Some(teacher) = teacher.take() {
                    // Nobody took over.
                    teacher.resume();
                }
                let taking = taker.take().zip(offer.clone());
                tokio::spawn(Arc::clone(&beginning).begin(taking));
                continue;
            }
            Told::Order(Order::Hold) => {
                make_way(&shared, &console);
                let link = link.clone();
                let teacher = teacher.clone();
                tokio::spawn(async move {
                    if let Some(teacher) = teacher {
                        teacher.seal(None).await;
                    }
                    if let Some(link) = link {
                        link.tell(Frame::Held).await;
                    }
                });
                continue;
            }
            Told::Order(Order::Reloads(reloads)) => {
                *shared.reloads.lock() = Some(reloads);
                continue;
            }
            Told::Order(Order::Cut) => {
                hard_stop = None;
                killed = Some(Instant::now() + KILL_PATIENCE);
                for worker in &shared.workers {
                    let _ = worker.ask.send(Ask::Kill);
                }
                continue;
            }
            Told::Order(Order::Console { level, fd }) => {
                let level = match level {
                    0 => CliLevel::User,
                    1 => CliLevel::Operator,
                    _ => CliLevel::Admin,
                };
                let _ = console.visitors.send((fd, level));
                continue;
            }
            Told::Order(Order::Tables(errand, channel)) => {
                let done = match (errand, &teacher) {
                    // The supervisor will hear that nobody is left to teach.
                    (Errand::Teach, _) if leaving.is_some() || draining => Ok(()),
                    (Errand::Teach, _) => {
                        cancel.send_replace("it reloads its configuration");
                        let before = teacher.take();
                        teaches_stranger = false;
                        Teacher::start(&shared, channel, before, None).map(|started| {
                            *teacher = Some(Arc::new(started));
                        })
                    }
                    (Errand::Child, _) => Heritage::adopt(&shared, channel),
                    (Errand::Heir, Some(teacher)) => {
                        teacher.heir(channel);
                        Ok(())
                    }
                    (Errand::TeachAgain, Some(teacher)) if draining => {
                        teacher.again(channel);
                        Ok(())
                    }
                    // What was never handed over stays here.
                    (Errand::Heir | Errand::TeachAgain, _) => Ok(()),
                };
                if let Err(e) = done {
                    warn!("cannot talk to another worker: {e}");
                }
                continue;
            }
            Told::Order(Order::Drain { orphans }) => {
                if let Some(teacher) = &teacher {
                    teacher.release();
                }
                console.door.send_replace(admin::Door::Closed);
                peers::leave(&shared);
                Successor::Process {
                    orphans: orphans.into(),
                }
            }
            Told::Order(Order::Kin(way)) => {
                if let Some(teacher) = &teacher {
                    tokio::spawn(succession::follow(way, Arc::clone(teacher)));
                }
                continue;
            }
            Told::Wish(Wish::Teach(channel, answer)) => {
                let busy = leaving.is_some() || teacher.as_ref().is_some_and(|t| !t.is_over());
                let (over, when) = oneshot::channel();
                teaches_stranger |= !(busy || draining);
                let _ = answer.send(if busy || draining {
                    Err(String::from("it is handing over to another process"))
                } else {
                    Teacher::start(&shared, channel, teacher.take(), Some(over))
                        .map(|started| {
                            *teacher = Some(Arc::new(started));
                            when
                        })
                        .map_err(|e| e.to_string())
                });
                continue;
            }
            Told::Wish(Wish::Hold(done)) => {
                let held = match &teacher {
                    Some(_) => {
                        make_way(&shared, &console);
                        None
                    }
                    // Nobody would say when it is time to stop accepting.
                    None => Some(hold(Arc::clone(&shared), Some(console.clone()), false)),
                };
                let teacher = teacher.clone();
                tokio::spawn(async move {
                    if let Some(held) = held {
                        held.await;
                    }
                    if let Some(teacher) = teacher {
                        teacher.seal(None).await;
                    }
                    let _ = done.send(());
                });
                continue;
            }
            Told::Wish(Wish::Resume { held }) => {
                if !draining {
                    // A reload that has begun meanwhile has its own.
                    if let Some(teacher) = teacher.take_if(|_| teaches_stranger) {
                        teacher.resume();
                    }
                    if held {
                        tokio::spawn(accept(Arc::clone(&shared), console.clone()));
                    }
                }
                if draining || !std::mem::take(&mut stops_next) {
                    continue;
                }
                lingers = false;
                Successor::None
            }
            Told::Wish(Wish::Ways(more)) => {
                ways.extend(more);
                continue;
            }
            Told::Wish(Wish::Leave(_)) if draining => continue,
            Told::Wish(Wish::Leave(leave)) => match &link {
                // Only the supervisor can leave and not replace this process in one step.
                Some(link) => {
                    leaving = Some(Leaving::ask(leave, link).await);
                    continue;
                }
                None => match Leaving::decide(leave, &mut ways) {
                    Ok((leaves, orphans)) => {
                        leaving = Some(leaves);
                        // Whoever starts it again when it ends would have it take over in turn.
                        let stays = shared.plan.global.handoff.as_deref();
                        lingers = !stops_next && stays.is_some_and(directory::is_directory);
                        parting = Some(Parting::new(orphans, false));
                        continue;
                    }
                    Err(e) => {
                        warn!("the process that wanted to take over is gone: {e}");
                        continue;
                    }
                },
            },
            Told::Order(Order::Retire { orphans }) => {
                lingers = !stops_next;
                parting = Some(Parting::new(orphans, true));
                continue;
            }
            Told::Parted(accepts) => {
                let Some(Parting { orphans, .. }) = parting.take() else {
                    continue;
                };
                if !accepts {
                    // What follows from it comes as `Wish::Resume`.
                    lingers = false;
                    warn!(
                        "the process that took over has ended before it accepted: this one goes on."
                    );
                    if let Some(leaving) = leaving.take() {
                        leaving.settle(false);
                    }
                    continue;
                }
                Successor::Process { orphans }
            }
            Told::Order(Order::Gone) if parting.is_some() => {
                orphaned = true;
                lingers = false;
                warn!("the supervisor is gone: finishing what runs.");
                let orphans = parting.take().map_or_else(Arc::default, |p| p.orphans);
                Successor::Process { orphans }
            }
            Told::Order(Order::Gone) => {
                orphaned = true;
                lingers = false;
                warn!("the supervisor is gone: finishing what runs.");
                if let Some(teacher) = teacher.as_ref().filter(|_| !draining) {
                    // Nobody will say any more what becomes of a hand-over. A worker of the same supervisor that has everything
                    // ends too, after this one; a stranger gives up.
                    if teaches_stranger {
                        teacher.resume();
                    } else {
                        teacher.release();
                        teacher.last();
                    }
                }
                Successor::None
            }
        };
        if draining {
            if matches!(successor, Successor::None) {
                if let Some(teacher) = &teacher {
                    teacher.last();
                }
                // Now everything is to end, also connections that only might bring another request.
                for worker in &shared.workers {
                    let _ = worker.ask.send(Ask::Drain(Successor::None));
                }
            }
            continue;
        }
        draining = true;
        let hands_over = leaving.is_some();
        if let Some(leaving) = leaving.take()
            && let Successor::Process { orphans } = &successor
        {
            warn!("another process has taken over: finishing what runs.");
            if let Some(teacher) = &teacher {
                teacher.release();
            }
            let door = if lingers {
                shared.health.retires();
                admin::Door::Left(Arc::clone(orphans))
            } else {
                admin::Door::Closed
            };
            console.door.send_replace(door);
            peers::leave(&shared);
            // In a directory it is this process's own, and it gives nothing any more.
            let handoff = shared.plan.global.handoff.as_deref();
            if let Some(path) = &own_socket
                && handoff.is_some_and(directory::is_directory)
            {
                let _ = std::fs::remove_file(path);
            }
            if let Some(way) = leaving.settle(true)
                && let Some(teacher) = &teacher
            {
                // Its supervisor hears it even if the process that was told has died.
                let _ = way.try_send(&Frame::Yours.into());
                tokio::spawn(succession::follow(way, Arc::clone(teacher)));
            }
        }
        shared.health.drains(match &successor {
            Successor::None => None,
            Successor::Process { orphans } => Some(Arc::clone(orphans)),
        });
        hard_stop = shared
            .plan
            .global
            .hard_stop_after_ms
            .map(|ms| Instant::now() + Duration::from_millis(u64::from(ms)));
        drop(offer.take());
        if let Some(giver) = giver.take() {
            if !hands_over {
                // Whoever was about to take over must hear that this process still has what it counted.
                cancel.send_replace("it is about to end");
            }
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                giver.abort();
            });
        }
        for worker in &shared.workers {
            let _ = worker.ask.send(Ask::Drain(successor.clone()));
        }
    }
}

/// What the main thread reacts to.
enum Told {
    Signal(Caught),
    Order(Order),
    Wish(Wish),
    /// Whoever may take over has begun to accept; or this process goes on.
    Parted(bool),
}

async fn next_order(link: Option<&Link>, orphaned: bool) -> Order {
    match link {
        Some(link) if !orphaned => link.next().await,
        _ => std::future::pending().await,
    }
}

/// A hard stop. With peers, or another process that serves, nothing may be counted any more while they are told the last of it, here or in older processes
/// that end at the same time. `ended`: of threads that run.
async fn cut_off(
    shared: &Shared,
    ended: Option<&mut oneshot::Receiver<bool>>,
    teacher: Option<&Teacher>,
) {
    if let Some(teacher) = teacher {
        teacher.last();
    }
    // Somebody else hears of the last of it, too.
    let heard = teacher.is_some_and(|teacher| !teacher.is_over());
    if !heard && shared.peers.get().is_none_or(Vec::is_empty) {
        return;
    }
    let nobody = Successor::Process {
        orphans: Arc::default(),
    };
    for worker in &shared.workers {
        let _ = worker.ask.send(Ask::Drain(nobody.clone()));
        let _ = worker.ask.send(Ask::Kill);
    }
    if let Some(ended) = ended
        && timeout(KILL_PATIENCE, ended).await.is_err()
    {
        warn!("some connections do not end: what they still count is told to nobody.");
    }
    let _ = timeout(LAST_WORDS, shared.heritage.childless()).await;
    peers::stop(shared).await;
}

/// Resolves when all threads have ended: whether none of them panicked.
fn join_all(threads: Vec<JoinHandle<()>>) -> oneshot::Receiver<bool> {
    let (done, ended) = oneshot::channel();
    let waiter = std::thread::Builder::new()
        .name("remora-join".into())
        .spawn(move || {
            // All of them, also after one that panicked.
            let died = threads
                .into_iter()
                .map(JoinHandle::join)
                .filter(Result::is_err)
                .count();
            let _ = done.send(died == 0);
        });
    if let Err(e) = waiter {
        // The receiver then resolves with an error, and the process ends.
        error!("cannot watch the worker threads: {e}");
    }
    ended
}

/// How often tables drop what has expired, and how many records they look at besides.
const UPKEEP_PERIOD: Duration = Duration::from_secs(1);
const UPKEEP_RECORDS: usize = 2_000;
/// How often that is repeated at once while expired entries are left: 200,000 a second go without anybody asking.
const UPKEEP_ROUNDS_MAX: usize = 100;
/// How long killed streams may take to write their log lines.
const KILL_PATIENCE: Duration = Duration::from_millis(500);
/// How long a hard stop waits for what older processes, which end at the same time, still say.
const LAST_WORDS: Duration = Duration::from_millis(1500);
