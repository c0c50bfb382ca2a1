//! What the main thread knows, and the loop in which it reacts to what happens.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle as Task;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tracing::{error, warn};

use super::Running;
use super::begin::{Beginning, accept, hold};
use super::caught::{Caught, Signals};
use super::parting::{Parting, parted};
use super::report::dump_state;
use crate::admin;
use crate::handoff::channel::Channel;
use crate::handoff::giver::{self, Giver, Wish};
use crate::handoff::inherited::Offer;
use crate::handoff::succession::Leaving;
use crate::handoff::tables::Teacher;
use crate::handoff::taker::Taker;
use crate::handoff::worker::{self, Link, Order};
use crate::peers;
use crate::proxy::clock;
use crate::proxy::control::Successor;
use crate::shared::Shared;

/// How far a process has come. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It serves, or is about to.
    Serves,
    /// It finishes what runs.
    Drains,
    /// All threads have ended; others that drain may still count here.
    Waits,
    /// All has been counted, and peers have been told.
    Over,
}

/// A process, as its main thread sees it.
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) console: admin::Control,
    pub(super) phase: Phase,
    /// It has handed over, but answers who asks until it is told to end.
    pub(super) lingers: bool,
    /// Resolves when all worker threads have ended.
    pub(super) threads: oneshot::Receiver<bool>,
    /// What runs is cut at this time.
    pub(super) hard_stop: Option<Instant>,
    /// It was cut, and has until then to say its last.
    pub(super) killed: Option<Instant>,

    /// The channel to the supervisor.
    pub(super) link: Option<Arc<Link>>,
    /// The supervisor is gone.
    pub(super) orphaned: bool,
    /// Whom it takes over from, until it has begun to.
    pub(super) taker: Option<Taker>,
    pub(super) beginning: Arc<Beginning>,
    /// What it listens on; let go of when it stops listening.
    pub(super) offer: Option<Offer>,

    /// Shows the tables to the process that is to take over, and then tells it what is still counted.
    pub(super) teacher: Option<Arc<Teacher>>,
    /// That process is not of this supervisor.
    pub(super) teaches_stranger: bool,
    pub(super) giving: Giving,

    signals: Signals,
    wishes: UnboundedReceiver<Wish>,
    upkeep: Interval,
}

/// What concerns processes of somebody else that want to take over.
pub(super) struct Giving {
    /// The task that listens for them.
    pub(super) task: Option<Task<()>>,
    /// Completes when that has ended for good.
    pub(super) stopped: Option<Task<()>>,
    /// Tells them why they cannot now.
    pub(super) cancel: watch::Sender<&'static str>,
    /// Where it listens.
    pub(super) socket: Option<PathBuf>,
    /// One wants to take over, and the supervisor has been asked, or this process has decided.
    pub(super) leaving: Option<Leaving>,
    /// It may, and has not begun to accept yet.
    pub(super) parting: Option<Parting>,
    /// A soft stop was asked for meanwhile.
    pub(super) stops_next: bool,
    /// The supervisor wants everything to end: as soon as the other process has everything, at this time at the latest.
    pub(super) ends_by: Option<Instant>,
    /// To processes that drain, if there is no supervisor to keep these.
    pub(super) ways: Vec<Channel>,
}

/// What the main thread reacts to.
enum Happened {
    /// All worker threads have ended, well or not.
    Joined(bool),
    /// No older process counts here any more.
    Childless,
    Upkeep,
    HardStop,
    /// What was cut has had its time.
    Killed,
    /// This process cannot become what it should.
    Failed,
    /// The end has waited long enough for the process that takes over.
    Ends,
    Signal(Caught),
    Order(Order),
    Wish(Wish),
    /// Whoever may take over has begun to accept; or this process goes on.
    Parted(bool),
}

/// The process is to end, with this exit code.
pub(super) struct Exit(pub(super) u8);

impl Life {
    /// Begins to accept, unless a supervisor says when.
    ///
    /// # Errors
    /// A message.
    pub(super) fn begin(running: Running) -> Result<Life, String> {
        let Running {
            shared,
            threads,
            console,
            offer,
            supervisor,
            taker,
            handoff,
            learned,
            peers_later,
        } = running;
        // Between unrelated processes only the word of the one before makes this one its heir.
        let heir = watch::Sender::new(!taker.follows());
        if let Some((open, lineages)) = peers_later {
            let shared = Arc::clone(&shared);
            let mut heir = heir.subscribe();
            tokio::spawn(async move {
                let _ = heir.wait_for(|is| *is).await;
                let continues = shared.heritage.released().await;
                if let Err(e) = peers::start(&shared, open, &lineages, continues) {
                    error!("cannot start the thread of the peers: {e}");
                    shared.heritage.fail();
                }
            });
        }
        let signals = Signals::new().map_err(|e| format!("cannot catch signals: {e}"))?;
        let threads = join_all(threads);
        let link = supervisor
            .map(worker::Start::link)
            .transpose()
            .map_err(|e| format!("cannot listen to the supervisor: {e}"))?
            .map(Arc::new);
        let (to_wishes, wishes) = unbounded_channel();
        let cancel = watch::Sender::new("");
        let socket = handoff.as_ref().map(|(_, path)| path.clone());
        let task = handoff.map(|(fd, _)| {
            tokio::spawn(giver::serve(Giver {
                fd,
                offer: offer.clone(),
                guarded: link.is_some(),
                wishes: to_wishes.clone(),
                cancelled: cancel.subscribe(),
                turns: shared.health.turns(),
            }))
        });
        let beginning = Beginning {
            shared: Arc::clone(&shared),
            console: console.clone(),
            link: link.clone(),
            heir,
            wishes: to_wishes,
            learned,
        };
        let mut upkeep = interval(UPKEEP_PERIOD);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut life = Life {
            shared,
            console,
            phase: Phase::Serves,
            lingers: false,
            threads,
            hard_stop: None,
            killed: None,
            link,
            orphaned: false,
            taker: Some(taker),
            beginning: Arc::new(beginning),
            offer: Some(offer),
            teacher: None,
            teaches_stranger: false,
            giving: Giving {
                task,
                stopped: None,
                cancel,
                socket,
                leaving: None,
                parting: None,
                stops_next: false,
                ends_by: None,
                ways: Vec::new(),
            },
            signals,
            wishes,
            upkeep,
        };
        if life.link.is_none() {
            life.begin_to_accept();
        }
        Ok(life)
    }

    /// Reacts to everything until the end. Returns the exit code.
    pub(super) async fn live(mut self) -> u8 {
        let code = loop {
            if self.phase == Phase::Over && !self.lingers {
                break 0;
            }
            let happened = self.next().await;
            if let Some(Exit(code)) = self.react(happened).await {
                break code;
            }
        };
        if let Some(last_words) = self.into_last_words() {
            last_words.say().await;
        }
        code
    }

    async fn next(&mut self) -> Happened {
        let Life { shared, phase, .. } = self;
        let due = |at: Option<Instant>| sleep_until(at.unwrap_or_else(Instant::now));
        let giving = &self.giving;
        tokio::select! {
            fine = &mut self.threads, if *phase < Phase::Waits => Happened::Joined(matches!(fine, Ok(true))),
            () = shared.heritage.childless(), if *phase == Phase::Waits => Happened::Childless,
            _ = self.upkeep.tick() => Happened::Upkeep,
            () = due(self.hard_stop), if self.hard_stop.is_some() => Happened::HardStop,
            () = due(self.killed), if self.killed.is_some() => Happened::Killed,
            () = shared.heritage.failed() => Happened::Failed,
            () = due(giving.ends_by), if giving.ends_by.is_some() => Happened::Ends,
            signal = self.signals.next() => Happened::Signal(signal),
            order = next_order(self.link.as_deref(), self.orphaned) => Happened::Order(order),
            Some(wish) = self.wishes.recv() => Happened::Wish(wish),
            accepts = parted(&giving.parting, self.teacher.as_deref(), giving.leaving.as_ref()) => {
                Happened::Parted(accepts)
            }
        }
    }

    async fn react(&mut self, happened: Happened) -> Option<Exit> {
        match happened {
            Happened::Joined(fine) => return self.threads_ended(fine),
            Happened::Childless => self.conclude(true).await,
            Happened::Upkeep => self.look_after_tables(),
            Happened::HardStop => {
                warn!("soft-stop running for too long, performing a hard-stop.");
                self.cut();
            }
            Happened::Killed => self.has_been_cut().await,
            Happened::Failed => return Some(Exit(1)),
            Happened::Ends => return Some(self.end_at_once().await),
            Happened::Signal(signal) => return self.on_signal(signal).await,
            Happened::Order(order) => self.on_order(order),
            Happened::Wish(wish) => self.on_wish(wish).await,
            Happened::Parted(accepts) => self.on_parted(accepts).await,
        }
        None
    }

    async fn on_signal(&mut self, signal: Caught) -> Option<Exit> {
        match signal {
            // Its supervisor would replace it, so the other process does not go on without it as after the death of a process
            // that has none.
            Caught::Term if self.link.is_some() && self.waits_to_end() => {
                self.giving.ends_by = Some(Instant::now() + HAND_OVER_MAX);
                warn!("another process is taking over: this one ends as soon as it has.");
            }
            Caught::Term => return Some(self.end_at_once().await),
            Caught::Int if self.phase >= Phase::Drains => {
                self.cut_off().await;
                return Some(Exit(128 + 2));
            }
            Caught::Int | Caught::Usr1 if self.is_being_taken_over() => {
                self.giving.stops_next = true;
                self.lingers = false;
                warn!("another process is taking over: soft-stop as soon as it has.");
            }
            Caught::Int | Caught::Usr1 => self.soft_stop(),
            Caught::Hup => dump_state(&self.shared),
            // Its sockets are others' business: a door opened again would keep a thread that is to end.
            Caught::Ttou | Caught::Ttin if self.phase >= Phase::Drains => {}
            Caught::Ttou => {
                peers::pause(&self.shared);
                self.console.door.send_if_modified(|door| {
                    let open = *door == admin::Door::Open;
                    if open {
                        *door = admin::Door::Paused;
                    }
                    open
                });
                tokio::spawn(hold(Arc::clone(&self.shared), None, true));
            }
            Caught::Ttin => {
                tokio::spawn(accept(Arc::clone(&self.shared), self.console.clone(), None));
            }
        }
        None
    }

    /// Accepts, the first time after taking over.
    pub(super) fn begin_to_accept(&mut self) {
        let taking = self.taker.take().zip(self.offer.clone());
        tokio::spawn(Arc::clone(&self.beginning).begin(taking));
    }

    /// Everything is to finish, and nobody goes on.
    pub(super) fn soft_stop(&mut self) {
        self.lingers = false;
        self.drain(Successor::None);
    }

    fn look_after_tables(&self) {
        let shared = &self.shared;
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
    }
}

pub(super) async fn next_order(link: Option<&Link>, orphaned: bool) -> Order {
    match link {
        Some(link) if !orphaned => link.next().await,
        _ => std::future::pending().await,
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

/// A hard stop waits so long for a process that takes over: shorter than the supervisor's patience.
const HAND_OVER_MAX: Duration = Duration::from_secs(10);
/// How often tables drop what has expired, and how many records they look at besides.
const UPKEEP_PERIOD: Duration = Duration::from_secs(1);
const UPKEEP_RECORDS: usize = 2_000;
/// How often that is repeated at once while expired entries are left: 200,000 a second go without anybody asking.
const UPKEEP_ROUNDS_MAX: usize = 100;
