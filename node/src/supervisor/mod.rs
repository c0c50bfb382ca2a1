//! The supervisor (`-W`): starts a worker, keeps duplicates of everything it listens on, replaces it when it crashes,
//! and reloads by starting another one beside it. Decisions are in [`machine`]; here they are carried out, in one thread.
//! (reference: reload-and-peers section 1, admin-cli section 6)

mod children;
mod hear;
mod links;
pub mod machine;
mod master;
mod notify;
mod open;
mod outcome;
mod show;
pub mod signals;
mod state;
mod upgrade;
mod watch;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use remora_config::plan::CliLevel;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::cli::Args;
use crate::handoff::channel::Packet;
use crate::handoff::frames::{Frame, Reloads, SeenFile};
use crate::handoff::inherited::Offer;
use crate::messages;
use children::{News, Program, Reaper};
use links::{Incoming, Link};
use machine::{Action, Event, Id, Machine, Status};
use master::{Ask, Target};
use notify::Notify;
use open::Door;
use signals::Signals;
use watch::Watch;

/// Version of the state that a supervisor hands to itself across the execution of a new program.
pub const STATE_VERSION: u8 = 2;
/// The oldest that this build can take over: it knows of no processes of somebody else.
pub const STATE_VERSION_MIN: u8 = 1;

/// What a supervisor is started with.
pub struct Start<'a> {
    /// The command line.
    pub args: &'a Args,
    /// `pidfile` of the configuration or `-p`.
    pub pidfile: Option<String>,
    /// Its workers let go of the terminal.
    pub detach: bool,
}

/// Supervises until the end. Returns the exit code.
pub fn run(start: Start<'_>) -> u8 {
    in_loop(|| Supervisor::new(start))
}

/// The same after executing a new program: the state comes from descriptor 0.
pub fn resume(args: &Args) -> u8 {
    in_loop(|| Supervisor::resume(args))
}

fn in_loop<'a>(make: impl FnOnce() -> Result<Supervisor<'a>, String>) -> u8 {
    match Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime.block_on(async {
            match make() {
                Ok(supervisor) => supervisor.run().await,
                Err(why) => {
                    error!("{why}");
                    1
                }
            }
        }),
        Err(e) => {
            error!("cannot start the supervisor's event loop: {e}");
            1
        }
    }
}

/// What is known of a worker beside its state.
#[derive(Default)]
struct Known {
    link: Option<Link>,
    /// What it listens on, as far as it has said.
    offer: Offer,
    /// The numbers of what it listened on when another worker took over.
    left_behind: Vec<u64>,
    /// What it said while it started.
    said: String,
    /// What it has read.
    files: Vec<SeenFile>,
    /// It understands the state of this supervisor.
    can_resume: bool,
    /// Its channel has ended.
    ended: bool,
    /// Whose tables it learned; that one tells it what it still counts without being asked.
    taught_by: Option<Id>,
    /// It has ended, but its last words may not have been read.
    reaped: Option<Status>,
}

/// A process of somebody else that drains, and hears from this one who serves.
struct Relative {
    way: Link,
    /// The worker that it is in touch with.
    tells: Option<Id>,
}

/// See [`Supervisor`].
#[derive(Default)]
struct Parked {
    watch: Option<Watch>,
    relatives: BTreeMap<Id, Relative>,
}

struct Supervisor<'a> {
    start: Start<'a>,
    machine: Machine,
    program: Program,
    reaper: Reaper,
    known: HashMap<Id, Known>,
    /// By numbers from [`RELATIVES`] on.
    relatives: BTreeMap<Id, Relative>,
    /// How many workers have failed that this one has shown its tables to.
    in_vain: BTreeMap<Id, u8>,
    /// Duplicates of everything that is listened on.
    duplicates: Offer,
    doors: Vec<Door>,
    signals: Signals,
    notify: Notify,
    started_ms: u64,
    startup_logs: String,
    /// What this process said since the reload began.
    remarks: String,
    /// Who waits for the outcome of which reload.
    waiting: Vec<(u32, oneshot::Sender<(bool, String)>)>,
    inbox: UnboundedReceiver<(Id, Incoming)>,
    to_inbox: UnboundedSender<(Id, Incoming)>,
    watch: Option<Watch>,
    /// What is wanted again if a process that was to take over does not.
    parked: Parked,
    /// When to execute the new program.
    execute_ms: Option<u64>,
    /// What has become of reloads; the worker that serves is told.
    reloads: Reloads,
    /// When the one in progress began.
    reload_ms: u64,
}

impl<'a> Supervisor<'a> {
    fn new(start: Start<'a>) -> Result<Supervisor<'a>, String> {
        let program =
            Program::this().map_err(|e| format!("cannot find out which program this is: {e}"))?;
        signals::block().map_err(|e| format!("cannot block signals: {e}"))?;
        let doors = open::doors(&start.args.master_sockets)?;
        Supervisor::with(start, program, doors, BTreeSet::new())
    }

    fn with(
        start: Start<'a>,
        program: Program,
        doors: Vec<Door>,
        children: BTreeSet<u32>,
    ) -> Result<Supervisor<'a>, String> {
        signals::block().map_err(|e| format!("cannot block signals: {e}"))?;
        let signals = Signals::open().map_err(|e| format!("cannot read signals: {e}"))?;
        messages::in_background().map_err(|e| format!("cannot start the messages' thread: {e}"))?;
        let reaper = Reaper::start(children).map_err(|e| format!("cannot start a thread: {e}"))?;
        let watch = match start.args.watch.then(Watch::open).transpose() {
            Ok(watch) => watch,
            Err(e) => return Err(format!("cannot watch files: {e}")),
        };
        let (to_inbox, inbox) = unbounded_channel();
        Ok(Supervisor {
            machine: Machine::default(),
            program,
            reaper,
            known: HashMap::new(),
            relatives: BTreeMap::new(),
            in_vain: BTreeMap::new(),
            duplicates: Vec::new(),
            doors,
            signals,
            notify: if start.args.notify {
                Notify::from_env()
            } else {
                Notify::default()
            },
            watch,
            parked: Parked::default(),
            started_ms: now_ms(),
            startup_logs: String::new(),
            remarks: String::new(),
            waiting: Vec::new(),
            execute_ms: None,
            reloads: Reloads::default(),
            reload_ms: 0,
            inbox,
            to_inbox,
            start,
        })
    }

    async fn run(mut self) -> u8 {
        let (to_asks, mut asks) = unbounded_channel();
        if let Err(why) = open::serve(&mut self.doors, &to_asks) {
            error!("{why}");
            return 1;
        }
        if self.machine.workers.is_empty() {
            self.machine.handle(Event::Start, now_ms());
        }
        // Of children that ended while no program was there to read about it.
        self.reap();
        loop {
            while let Some(action) = self.machine.poll() {
                if let Some(code) = self.perform(action) {
                    return code;
                }
            }
            let deadline = [
                self.machine.deadline(),
                self.watch.as_ref().and_then(Watch::due_ms),
                self.execute_ms,
            ];
            let deadline = deadline.into_iter().flatten().min();
            tokio::select! {
                biased;
                Some((id, incoming)) = self.inbox.recv() => self.incoming(id, incoming),
                // About to execute a new program: what comes now is for that one.
                signal = self.signals.next(), if self.execute_ms.is_none() || !self.machine.is_calm() => match signal {
                    Ok(signal) => self.signal(signal),
                    Err(e) => {
                        error!("cannot read signals any more: {e}");
                        return 1;
                    }
                },
                Some(ask) = asks.recv() => self.asked(ask),
                happened = stirred(self.watch.as_ref()) => self.stirred(happened),
                () = until(deadline), if deadline.is_some() => self.tick(),
            }
        }
    }

    fn tick(&mut self) {
        let now = now_ms();
        self.machine.handle(Event::Tick, now);
        if self.execute_ms.is_some_and(|at| now >= at) {
            self.execute();
        }
        let Some(watch) = &mut self.watch else { return };
        if watch.due_ms().is_none_or(|at| now < at) {
            return;
        }
        if !self.machine.is_calm() {
            watch.stir(now);
        } else if let Some(path) = watch.look() {
            self.say(false, &format!("{path} has changed."));
            self.machine.handle(Event::Reload { hard: false }, now);
        }
    }

    fn stirred(&mut self, happened: std::io::Result<()>) {
        match (happened, &mut self.watch) {
            (Ok(()), Some(watch)) => watch.stir(now_ms()),
            (Err(e), _) => {
                self.watch = None;
                self.say(true, &format!("Files are not watched any more: {e}"));
            }
            (Ok(()), None) => {}
        }
    }

    /// Looks at all workers. Who has ended is let go of by a thread of its own: see there.
    fn reap(&mut self) {
        let buried = |id: &Id| self.known.get(id).is_some_and(|k| k.reaped.is_some());
        let workers = self.machine.workers.iter();
        let workers = workers.filter(|w| w.pid != 0 && !buried(&w.id));
        for pid in workers.map(|w| w.pid).collect::<Vec<_>>() {
            let event = match children::look(pid) {
                Some(News::Ended(status)) => {
                    self.reaper.release(pid);
                    self.reaped(pid, status);
                    continue;
                }
                Some(News::Stopped(signal)) => Event::Stopped { pid, signal },
                Some(News::Continued) => Event::Continued { pid },
                None => continue,
            };
            self.machine.handle(event, now_ms());
        }
        self.reaper.look_around();
    }

    fn signal(&mut self, signal: Signal) {
        let event = match signal {
            Signal::SIGTERM => Event::Term,
            Signal::SIGINT => Event::Int,
            Signal::SIGUSR1 => Event::SoftStop,
            Signal::SIGUSR2 | Signal::SIGHUP => Event::Reload { hard: false },
            Signal::SIGTTIN => Event::PassOn(machine::Signal::Ttin),
            Signal::SIGTTOU => Event::PassOn(machine::Signal::Ttou),
            _ => return self.reap(),
        };
        self.machine.handle(event, now_ms());
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Reload { hard, answer } => {
                self.machine.handle(Event::Reload { hard }, now_ms());
                self.waiting.push((self.machine.reload_number(), answer));
            }
            Ask::Processes(answer) => {
                let _ = answer.send(show::processes(&self.machine, self.started_ms, now_ms()));
            }
            Ask::StartupLogs(answer) => {
                let _ = answer.send(self.startup_logs.clone());
            }
            Ask::ReloadFailed(answer) => {
                let _ = answer.send(self.machine.counts.last_failed);
            }
            Ask::Reach {
                target,
                level,
                answer,
            } => {
                let _ = answer.send(self.reach(target, level));
            }
        }
    }

    /// Connects to the CLI of a worker.
    fn reach(&self, target: Target, level: CliLevel) -> Option<(u32, OwnedFd)> {
        let worker = match target {
            Target::Master => None,
            Target::Current => self.machine.current(),
            Target::Pid(pid) => self.machine.workers.iter().find(|w| w.pid == pid),
        }?;
        let link = self.known.get(&worker.id)?.link.as_ref()?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().ok()?;
        ours.set_nonblocking(true).ok()?;
        theirs.set_nonblocking(true).ok()?;
        link.send(Packet {
            frame: Frame::Console { level: level as u8 },
            fds: vec![Arc::new(theirs.into())],
        });
        Some((worker.pid, ours.into()))
    }

    fn tell(&self, id: Id, frame: Frame) {
        if let Some(link) = self.known.get(&id).and_then(|k| k.link.as_ref()) {
            link.send(frame);
        }
    }

    fn say(&mut self, warn: bool, text: &str) {
        let label = if warn { "WARNING]  " } else { "NOTICE]   " };
        if self.remarks.len() < SAID_MAX {
            let line = format!("[{label}({}) : {text}\n", std::process::id());
            self.remarks.push_str(&line);
        }
        if warn {
            warn!("{text}");
        } else {
            info!("{text}");
        }
    }

    /// Does it; the exit code when it was the last thing to do.
    fn perform(&mut self, action: Action) -> Option<u8> {
        match action {
            Action::Spawn { id } => {
                let event = match self.spawn(id) {
                    Ok(pid) => {
                        self.say(false, &format!("Initializing new worker ({pid})"));
                        Event::Spawned { id, pid }
                    }
                    Err(e) => Event::NotSpawned {
                        id,
                        why: format!("{}: {e}", self.program.path.display()),
                    },
                };
                self.machine.handle(event, now_ms());
            }
            Action::Go { id } => self.tell(id, Frame::Go),
            Action::Open { id } => self.tell(id, Frame::Open),
            Action::Hold { id } => self.tell(id, Frame::Hold),
            Action::Resume { id } => self.tell(id, Frame::Resume),
            Action::Drain { id } => {
                let orphans = self.orphans_of(id);
                self.tell(
                    id,
                    Frame::Drain {
                        orphans,
                        alone: false,
                    },
                );
            }
            Action::Cut { id } => self.tell(id, Frame::Cut),
            Action::Kill { id, signal } => {
                let worker = self.machine.workers.iter().find(|w| w.id == id);
                if let Some(pid) = worker.map(|w| w.pid).filter(|pid| *pid != 0) {
                    children::kill(pid, signal);
                }
            }
            Action::Adopt { id } => {
                self.in_vain.clear();
                self.adopt(id);
                self.gather(id);
                self.tell(id, Frame::reloads(&self.reloads));
            }
            Action::Forget { id } => {
                if let Some(known) = self.known.remove(&id) {
                    // One whose configuration is wrong has asked nobody for tables.
                    self.forget_taught(known.taught_by.filter(|_| !known.offer.is_empty()));
                    self.startup_logs = known.said;
                    // One of them has to be corrected.
                    if let Some(watch) = &mut self.watch {
                        watch.follow(known.files, now_ms());
                    }
                }
            }
            Action::Reloading => {
                self.remarks.clear();
                self.startup_logs.clear();
                self.reload_ms = now_ms();
                self.notify.reloading();
                self.say(false, "Reloading.");
            }
            Action::Reloaded { number, outcome } => self.reloaded(number, outcome),
            Action::Started => return self.started().err(),
            Action::Stopping => self.notify.stopping(),
            Action::CloseDuplicates => {
                self.duplicates.clear();
                for known in self.known.values_mut() {
                    known.offer.clear();
                }
            }
            Action::Say { warn, text } => self.say(warn, &text),
            Action::Exit { code } => return Some(code),
        }
        let alive = |id: &Id| self.machine.workers.iter().any(|w| w.id == *id);
        self.known.retain(|id, k| alive(id) || k.reaped.is_some());
        None
    }
}

/// Milliseconds of a clock that goes on across the execution of a new program.
fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(i128::from(now.tv_sec) * 1000 + i128::from(now.tv_nsec) / 1_000_000).unwrap_or(0)
}

async fn stirred(watch: Option<&Watch>) -> std::io::Result<()> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline_ms: Option<u64>) {
    let wait = deadline_ms.unwrap_or(0).saturating_sub(now_ms());
    sleep_until(Instant::now() + Duration::from_millis(wait)).await;
}

/// So much of what a worker says while it starts is kept.
const SAID_MAX: usize = 64 * 1024;

/// Numbers from here on are not workers.
const RELATIVES: Id = 1 << 31;
