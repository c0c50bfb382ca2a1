//! From the last connection that is accepted to the last word.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use super::caught::{Caught, Signals};
use super::life::{Exit, Life, Phase, next_order};
use super::report::report_stopped;
use crate::admin;
use crate::handoff::Frame;
use crate::handoff::directory;
use crate::handoff::succession::{self, Leaving};
use crate::handoff::tables::Teacher;
use crate::handoff::worker::{Errand, Link, Order};
use crate::peers;
use crate::proxy::control::{Ask, Successor};

impl Life {
    /// Accepts no more and finishes what runs; or ends that sooner, if nobody goes on now.
    pub(super) fn drain(&mut self, successor: Successor) {
        if self.phase >= Phase::Drains {
            if matches!(successor, Successor::None) {
                self.finish_soon();
            }
            return;
        }
        self.phase = Phase::Drains;
        if let Some(ends) = &mut self.giving.ends_by {
            *ends = Instant::now();
        }
        let leaving = self.giving.leaving.take();
        let hands_over = leaving.is_some();
        if let (Some(leaving), Successor::Process { orphans }) = (leaving, &successor) {
            self.hand_over(leaving, orphans);
        }
        self.shared.health.drains(match &successor {
            Successor::None => None,
            Successor::Process { orphans } => Some(Arc::clone(orphans)),
        });
        let patience = self.shared.plan.global.hard_stop_after_ms;
        self.hard_stop = patience.map(|ms| Instant::now() + Duration::from_millis(u64::from(ms)));
        drop(self.offer.take());
        self.stop_giving(hands_over);
        self.ask_all(|| Ask::Drain(successor.clone()));
    }

    /// A process of somebody else has taken over.
    fn hand_over(&self, leaving: Leaving, orphans: &Arc<[u64]>) {
        warn!("another process has taken over: finishing what runs.");
        if let Some(teacher) = &self.teacher {
            teacher.release();
        }
        let door = if self.lingers {
            self.shared.health.retires();
            admin::Door::Left(Arc::clone(orphans))
        } else {
            admin::Door::Closed
        };
        self.console.door.send_replace(door);
        peers::leave(&self.shared);
        // In a directory it is this process's own, and it gives nothing any more.
        let handoff = self.shared.plan.global.handoff.as_deref();
        if let Some(path) = &self.giving.socket
            && handoff.is_some_and(directory::is_directory)
        {
            let _ = std::fs::remove_file(path);
        }
        if let Some(way) = leaving.settle(true)
            && let Some(teacher) = &self.teacher
        {
            // Its supervisor hears it even if the process that was told has died.
            let _ = way.try_send(&Frame::Yours.into());
            tokio::spawn(succession::follow(way, Arc::clone(teacher)));
        }
    }

    fn stop_giving(&mut self, hands_over: bool) {
        let Some(task) = self.giving.task.take() else {
            return;
        };
        if !hands_over {
            // Whoever was about to take over must hear that this process still has what it counted.
            self.giving.cancel.send_replace("it is about to end");
        }
        self.giving.stopped = Some(tokio::spawn(async move {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            task.abort();
            // It has the sockets, too.
            let _ = task.await;
        }));
    }

    /// Everything is to end now, also connections that only might bring another request.
    fn finish_soon(&self) {
        if let Some(teacher) = &self.teacher {
            teacher.last();
        }
        self.ask_all(|| Ask::Drain(Successor::None));
    }

    /// Cuts what runs, and lets it say its last.
    pub(super) fn cut(&mut self) {
        self.hard_stop = None;
        self.killed = Some(Instant::now() + KILL_PATIENCE);
        self.ask_all(|| Ask::Kill);
    }

    pub(super) async fn has_been_cut(&mut self) {
        self.killed = None;
        if self.phase < Phase::Over {
            if self.phase < Phase::Waits {
                report_stopped(&self.shared);
            }
            let _ = timeout(LAST_WORDS, self.shared.heritage.childless()).await;
        }
        self.conclude(false).await;
    }

    /// All worker threads have ended: older processes that finish count here, and peers hear of it from here.
    pub(super) fn threads_ended(&mut self, fine: bool) -> Option<Exit> {
        if !fine || self.phase < Phase::Drains {
            error!("a worker thread ended unexpectedly.");
            return Some(Exit(1));
        }
        self.phase = Phase::Waits;
        report_stopped(&self.shared);
        None
    }

    /// Nothing is counted here any more: peers are told the last of it. `clean`: all connections ended by themselves.
    pub(super) async fn conclude(&mut self, clean: bool) {
        if self.phase < Phase::Over {
            peers::stop(&self.shared).await;
            self.phase = Phase::Over;
        }
        if let Some(teacher) = self.teacher.clone().filter(|_| self.lingers) {
            tokio::spawn(async move { teacher.finish(clean).await });
        }
    }

    /// A hard stop.
    pub(super) async fn end_at_once(&mut self) -> Exit {
        self.giving.ends_by = None;
        self.hand_over_at_once();
        self.cut_off().await;
        Exit(128 + 15)
    }

    /// Whoever learns is to see that this process is dead, or, if it has the word already, to go on.
    fn hand_over_at_once(&mut self) {
        if let Some(task) = self.giving.task.take() {
            task.abort();
        }
        if let Some(teacher) = self
            .teacher
            .as_ref()
            .filter(|_| self.giving.parting.is_some())
        {
            teacher.release();
        }
    }

    /// A hard stop. With peers, or another process that serves, nothing may be counted any more while they are told the last of
    /// it, here or in older processes that end at the same time.
    pub(super) async fn cut_off(&mut self) {
        let shared = &self.shared;
        if let Some(teacher) = &self.teacher {
            teacher.last();
        }
        // Somebody else hears of the last of it, too.
        let heard = self.teacher.as_ref().is_some_and(|t| !t.is_over());
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
        let runs = self.phase < Phase::Waits;
        if runs && timeout(KILL_PATIENCE, &mut self.threads).await.is_err() {
            warn!("some connections do not end: what they still count is told to nobody.");
        }
        let _ = timeout(LAST_WORDS, shared.heritage.childless()).await;
        peers::stop(shared).await;
    }

    fn ask_all(&self, ask: impl Fn() -> Ask) {
        for worker in &self.shared.workers {
            let _ = worker.ask.send(ask());
        }
    }

    /// Lets go of everything but what it takes to tell the process that serves the last of what was counted here.
    pub(super) fn into_last_words(self) -> Option<LastWords> {
        Some(LastWords {
            clean: self.shared.world.process.curr_conns.load(Relaxed) == 0,
            teacher: self.teacher?,
            link: self.link,
        })
    }
}

/// What a process that has ended still has to say.
pub(super) struct LastWords {
    teacher: Arc<Teacher>,
    link: Option<Arc<Link>>,
    /// All connections ended by themselves.
    clean: bool,
}

impl LastWords {
    pub(super) async fn say(self) {
        tokio::select! {
            () = self.teacher.finish(self.clean) => {}
            () = self.redirect() => {}
        }
    }

    /// Meanwhile another worker may take over from the one that hears them, or everything may be told to end. Never completes.
    async fn redirect(&self) {
        let teacher = &self.teacher;
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
                order = next_order(self.link.as_deref(), orphaned) => match order {
                    Order::Tables(Errand::Heir, channel) => teacher.heir(channel),
                    Order::Tables(Errand::TeachAgain, channel) => teacher.again(channel),
                    Order::Gone => {
                        orphaned = true;
                        teacher.last();
                    }
                    _ => {}
                },
                // All of them: a pattern that does not fit would make this process deaf to the others.
                signal = signal => match signal {
                    Caught::Term | Caught::Int | Caught::Usr1 => teacher.last(),
                    _ => {}
                },
            }
        }
    }
}

/// How long killed streams may take to write their log lines.
const KILL_PATIENCE: Duration = Duration::from_millis(500);
/// How long a hard stop waits for what older processes, which end at the same time, still say.
const LAST_WORDS: Duration = Duration::from_millis(1500);
