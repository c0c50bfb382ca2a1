//! The main thread after start-up: signals, table upkeep, and the end (reference: reload-and-peers 1.1).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use remora_core::table::Lineages;
use remora_core::world::{ProxyId, ProxyState};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{error, info, warn};

use remora_config::plan::CliLevel;

use crate::admin;
use crate::boot::LOG_PATIENCE;
use crate::handoff::Frame;
use crate::handoff::giver::{self, Wish};
use crate::handoff::inherited::Offer;
use crate::handoff::tables::{self, Heritage, Teacher};
use crate::handoff::taker::Taker;
use crate::handoff::worker::{self, Errand, Link, Order};
use crate::observe::log::Severity;
use crate::peers;
use crate::proxy::clock;
use crate::proxy::control::{Ask, Successor};
use crate::shared::Shared;

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
    pub handoff: Option<Arc<OwnedFd>>,
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
            () = redirect(teacher, link.as_deref()), if link.is_some() => {}
        }
    }
    code
}

/// While the last counts are being told, another worker may take over from the one that hears them. Completes when the
/// supervisor is gone: then there will never be another one.
async fn redirect(teacher: &Teacher, link: Option<&Link>) {
    loop {
        match next_order(link, false).await {
            Order::Tables(Errand::Heir, channel) => teacher.heir(channel),
            Order::Gone => return,
            _ => {}
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
    if let Some((open, lineages)) = running.peers_later {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
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
    if link.is_none() {
        let begin = accept(Arc::clone(&shared), console.clone());
        tokio::spawn(take_over(taker.take(), offer.clone(), begin));
    }
    let (to_wishes, mut wishes) = unbounded_channel();
    let mut giver = running
        .handoff
        .zip(offer.clone())
        .map(|(fd, offer)| tokio::spawn(giver::serve(fd, offer, to_wishes.clone())));
    let mut upkeep = interval(UPKEEP_PERIOD);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = false;
    let mut orphaned = false;
    let mut hard_stop = None::<Instant>;
    let mut killed = None::<Instant>;
    loop {
        let told = tokio::select! {
            fine = &mut ended => {
                if draining {
                    report_stopped(&shared);
                    peers::stop(&shared).await;
                }
                return if matches!(fine, Ok(true)) && draining {
                    0
                } else {
                    error!("a worker thread ended unexpectedly.");
                    1
                };
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
                report_stopped(&shared);
                peers::stop(&shared).await;
                return 0;
            }
            () = shared.heritage.failed() => return 1,
            signal = signals.next() => Told::Signal(signal),
            order = next_order(link.as_deref(), orphaned) => Told::Order(order),
            Some(wish) = wishes.recv() => Told::Wish(wish),
        };
        let successor = match told {
            Told::Signal(Caught::Term) => {
                cut_off(&shared, &mut ended).await;
                return 128 + 15;
            }
            Told::Signal(Caught::Int) if draining => {
                cut_off(&shared, &mut ended).await;
                return 128 + 2;
            }
            Told::Signal(Caught::Int | Caught::Usr1) => Successor::None,
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
                if let Some(teacher) = teacher.take() {
                    // Nobody took over.
                    teacher.resume();
                }
                let begin = accept(Arc::clone(&shared), console.clone());
                let begin = take_over(taker.take(), offer.clone(), begin);
                let link = link.clone();
                let served = Arc::clone(&shared);
                tokio::spawn(async move {
                    begin.await;
                    report_learned(&served, learned);
                    if let Some(link) = link {
                        link.served().await;
                    }
                });
                continue;
            }
            Told::Order(Order::Hold) => {
                let held_ms = clock::read().mono_ms;
                let hold = hold(Arc::clone(&shared), Some(console.clone()), false);
                let link = link.clone();
                let teacher = teacher.clone();
                tokio::spawn(async move {
                    hold.await;
                    if let Some(teacher) = teacher {
                        teacher.seal(held_ms).await;
                    }
                    if let Some(link) = link {
                        link.tell(Frame::Held).await;
                    }
                });
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
                    (Errand::Teach, _) => Teacher::start(&shared, channel).map(|started| {
                        *teacher = Some(Arc::new(started));
                    }),
                    (Errand::Child, _) => Heritage::adopt(&shared, channel),
                    (Errand::Heir, Some(teacher)) => {
                        teacher.heir(channel);
                        Ok(())
                    }
                    // What was never handed over stays here.
                    (Errand::Heir, None) => Ok(()),
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
            Told::Wish(Wish::Hold(done)) => {
                let hold = hold(Arc::clone(&shared), Some(console.clone()), false);
                tokio::spawn(async move {
                    hold.await;
                    let _ = done.send(());
                });
                continue;
            }
            Told::Wish(Wish::Resume) => {
                if !draining {
                    tokio::spawn(accept(Arc::clone(&shared), console.clone()));
                }
                continue;
            }
            Told::Wish(Wish::Drain { orphans }) => {
                warn!("another process has taken over: finishing what runs.");
                console.door.send_replace(admin::Door::Closed);
                if let Some(link) = link.clone() {
                    // Not the supervisor's doing: it must not replace this process.
                    let _ = timeout(LEAVE_PATIENCE, link.tell(Frame::Left)).await;
                }
                Successor::Process {
                    orphans: orphans.into(),
                }
            }
            Told::Order(Order::Gone) => {
                orphaned = true;
                warn!("the supervisor is gone: finishing what runs.");
                Successor::None
            }
        };
        if draining {
            continue;
        }
        draining = true;
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
            giver.abort();
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
}

/// Begins to accept when the process before has stopped, which then finishes.
async fn take_over(taker: Option<Taker>, offer: Option<Offer>, begin: impl Future<Output = ()>) {
    let Some(mut taker) = taker.filter(|t| !t.is_idle()) else {
        return begin.await;
    };
    taker.hold().await;
    begin.await;
    taker.take(&offer.unwrap_or_default());
}

async fn next_order(link: Option<&Link>, orphaned: bool) -> Order {
    match link {
        Some(link) if !orphaned => link.next().await,
        _ => std::future::pending().await,
    }
}

/// A hard stop. With peers, nothing may be counted any more while they are told the last of it.
async fn cut_off(shared: &Shared, ended: &mut oneshot::Receiver<bool>) {
    if shared.peers.get().is_none_or(Vec::is_empty) {
        return;
    }
    let nobody = Successor::Process {
        orphans: Arc::default(),
    };
    for worker in &shared.workers {
        let _ = worker.ask.send(Ask::Drain(nobody.clone()));
        let _ = worker.ask.send(Ask::Kill);
    }
    if timeout(KILL_PATIENCE, ended).await.is_err() {
        warn!("some connections do not end: what they still count is told to nobody.");
    }
    peers::stop(shared).await;
}

/// Opens all doors; done when every thread accepts.
async fn accept(shared: Arc<Shared>, console: admin::Control) {
    if shared.world.process.stopping.load(Relaxed) {
        return;
    }
    console.door.send_replace(admin::Door::Open);
    peers::accept(&shared);
    // Until the tables have been learned, connections wait in the kernel's queue.
    shared.heritage.complete().await;
    shared.ready.wait().await;
    everyone(&shared, |done| Ask::Accept { done }).await;
    shared.health.accepts();
}

/// Closes all doors, but keeps the sockets; done when no thread accepts any more. `pause`: clients are refused.
async fn hold(shared: Arc<Shared>, console: Option<admin::Control>, pause: bool) {
    if let Some(console) = console {
        console.door.send_replace(admin::Door::Held);
        peers::hold(&shared);
    }
    if pause {
        shared.health.pauses();
    } else {
        shared.health.holds();
    }
    everyone(&shared, |done| Ask::Hold { pause, done }).await;
}

async fn everyone(shared: &Shared, ask: impl Fn(oneshot::Sender<()>) -> Ask) {
    let mut answers = Vec::new();
    for worker in &shared.workers {
        let (done, answer) = oneshot::channel();
        let _ = worker.ask.send(ask(done));
        answers.push(answer);
    }
    for answer in answers {
        // A thread that died is reported elsewhere.
        let _ = answer.await;
    }
}

/// After this process has begun to accept in the place of another one.
fn report_learned(shared: &Shared, learned: Option<tables::Learned>) {
    let (Some(learned), Some(held_ms)) = (learned, shared.heritage.held_ms()) else {
        return;
    };
    info!(
        "hand-off: {} entries of {} tables in {} ms, accept gap {} ms.",
        learned.entries,
        learned.tables,
        learned.ms,
        clock::read().mono_ms.saturating_sub(held_ms)
    );
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

struct Signals {
    term: Signal,
    int: Signal,
    usr1: Signal,
    hup: Signal,
    ttin: Signal,
    ttou: Signal,
}

enum Caught {
    Term,
    Int,
    Usr1,
    Hup,
    Ttin,
    Ttou,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            hup: signal(SignalKind::hangup())?,
            ttin: signal(SignalKind::from_raw(rustix::process::Signal::TTIN.as_raw()))?,
            ttou: signal(SignalKind::from_raw(rustix::process::Signal::TTOU.as_raw()))?,
        })
    }

    async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.term.recv() => Caught::Term,
            _ = self.int.recv() => Caught::Int,
            _ = self.usr1.recv() => Caught::Usr1,
            _ = self.hup.recv() => Caught::Hup,
            _ = self.ttin.recv() => Caught::Ttin,
            _ = self.ttou.recv() => Caught::Ttou,
        }
    }
}

/// `Proxy web stopped (cumulated conns: FE: 3, BE: 0).`, on standard error and in the proxy's logs.
fn report_stopped(shared: &Shared) {
    for (i, p) in shared.world.proxies.iter().enumerate() {
        let text = format!(
            "Proxy {} stopped (cumulated conns: FE: {}, BE: {}).",
            p.name,
            p.front.conn_tot.load(Relaxed),
            p.back.stot.load(Relaxed)
        );
        warn!("{text}");
        event(shared, i, Severity::Warning, &text);
    }
}

/// SIGHUP: the state of every proxy and server.
fn dump_state(shared: &Shared) {
    for (i, p) in shared.world.proxies.iter().enumerate() {
        for line in state_lines(p) {
            warn!("{line}");
            event(shared, i, Severity::Notice, &line);
        }
    }
}

fn event(shared: &Shared, proxy: usize, severity: Severity, text: &str) {
    if let Ok(id) = u16::try_from(proxy) {
        shared
            .logs
            .event(Some(ProxyId(id)), severity, format_args!("{text}"));
    }
}

fn state_lines(p: &ProxyState) -> Vec<String> {
    let mut lines = Vec::new();
    for s in &p.servers {
        lines.push(format!(
            "SIGHUP: Server {}/{} is {}. Conn: {} act, {} pend, {} tot.",
            p.name,
            s.name,
            if s.usable() { "UP" } else { "DOWN" },
            s.stats.scur.load(Relaxed),
            s.stats.qcur.load(Relaxed),
            s.stats.stot.load(Relaxed)
        ));
    }
    let usable = |backup| {
        p.servers
            .iter()
            .filter(|s| s.backup == backup && s.usable())
            .count()
    };
    let (active, backup) = (usable(false), usable(true));
    let conns = format!(
        "Conn: act(FE+BE): {}+{}, {} pend ({} unass), tot(FE+BE): {}+{}.",
        p.front.scur.load(Relaxed),
        p.back.scur.load(Relaxed),
        p.back.qcur.load(Relaxed),
        p.back.qcur.load(Relaxed),
        p.front.conn_tot.load(Relaxed),
        p.back.stot.load(Relaxed)
    );
    lines.push(if p.servers.is_empty() {
        format!("SIGHUP: Proxy {} has no servers. {conns}", p.name)
    } else if active > 0 {
        format!(
            "SIGHUP: Proxy {} has {active} active servers and {backup} backup servers available. {conns}",
            p.name
        )
    } else if backup > 0 {
        format!(
            "SIGHUP: Proxy {} is running on backup servers ! {conns}",
            p.name
        )
    } else {
        format!("SIGHUP: Proxy {} has no server available ! {conns}", p.name)
    });
    lines
}

/// How often tables drop what has expired, and how many records they look at besides.
const UPKEEP_PERIOD: Duration = Duration::from_secs(1);
const UPKEEP_RECORDS: usize = 2_000;
/// How often that is repeated at once while expired entries are left: 200,000 a second go without anybody asking.
const UPKEEP_ROUNDS_MAX: usize = 100;
/// How long killed streams may take to write their log lines.
const KILL_PATIENCE: Duration = Duration::from_millis(500);
/// How long the supervisor may take to hear that another process has taken over.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
