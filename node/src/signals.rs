//! The main thread after start-up: signals, table upkeep, and the end (reference: reload-and-peers 1.1).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use remora_core::world::{ProxyId, ProxyState};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{error, warn};

use crate::boot::LOG_PATIENCE;
use crate::observe::log::Severity;
use crate::proxy::clock;
use crate::proxy::control::Ask;
use crate::shared::Shared;

/// A process whose threads run.
pub struct Running {
    /// What they share.
    pub shared: Arc<Shared>,
    /// The worker threads.
    pub threads: Vec<JoinHandle<()>>,
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
    let shared = running.shared;
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => {
            error!("cannot catch signals: {e}");
            return 1;
        }
    };
    let mut ended = join_all(running.threads);
    let mut upkeep = interval(UPKEEP_PERIOD);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = false;
    let mut hard_stop = None::<Instant>;
    let mut killed = None::<Instant>;
    loop {
        let signal = tokio::select! {
            fine = &mut ended => {
                if draining {
                    report_stopped(&shared);
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
                return 0;
            }
            signal = signals.next() => signal,
        };
        match signal {
            Caught::Term => return 128 + 15,
            Caught::Int if draining => return 128 + 2,
            Caught::Int | Caught::Usr1 => {
                if !draining {
                    draining = true;
                    hard_stop = shared
                        .plan
                        .global
                        .hard_stop_after_ms
                        .map(|ms| Instant::now() + Duration::from_millis(u64::from(ms)));
                    for worker in &shared.workers {
                        let _ = worker.ask.send(Ask::Drain);
                    }
                }
            }
            Caught::Hup => dump_state(&shared),
        }
    }
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
}

enum Caught {
    Term,
    Int,
    Usr1,
    Hup,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.term.recv() => Caught::Term,
            _ = self.int.recv() => Caught::Int,
            _ = self.usr1.recv() => Caught::Usr1,
            _ = self.hup.recv() => Caught::Hup,
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
