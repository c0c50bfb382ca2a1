//! The decisions of a supervisor, without any I/O: events and times in, actions out.
//!
//! At most one worker serves and at most one more starts. A starting worker becomes ready, then the serving one is held
//! (it keeps its sockets), then the new one is told to go; only when it serves is the old one told to drain. Until then
//! every failure leads back to the old one.

mod ending;
mod patience;
mod types;

use std::collections::VecDeque;

use ending::Ends;
use patience::Stopped;
pub use patience::*;
pub use types::{Action, Counts, Event, Id, Phase, Signal, Status, Worker};

/// See the head of this module.
#[derive(Debug, Default)]
pub struct Machine {
    /// In order of their start.
    pub workers: Vec<Worker>,
    /// Counters.
    pub counts: Counts,
    next: Id,
    /// The reload in progress: its number and whether old workers are killed.
    reload: Option<(u32, bool)>,
    /// The new worker of it serves, and this one has until then to close what nobody took over.
    closing: Option<(Id, u64)>,
    /// Another reload was asked for meanwhile.
    again: Option<bool>,
    /// A crashed worker is replaced at this time.
    restart_ms: Option<u64>,
    /// How often in a row a worker ended soon after its start.
    crashes: u32,
    max_reloads: u32,
    /// Some worker has served already.
    started: bool,
    /// The first one takes over from a process of somebody else; whether that one has let go.
    taking: Option<bool>,
    /// A process of somebody else has taken over: no worker is started any more.
    left: bool,
    stopping: Option<u8>,
    /// A hard stop: since when it counts, and when whoever is left is killed.
    ends: Option<Ends>,
    /// The worker on its way to serve, if a signal has stopped it.
    stopped: Option<Stopped>,
    /// Workers that were told to cut what runs, and when they are killed if they do not.
    cut: Vec<(Id, u64)>,
    out: VecDeque<Action>,
}

/// Pauses before a crashed worker is replaced: none, then doubling.
const BACKOFF_FIRST_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 10_000;
/// A worker that served so long begins with a clean record.
const GOOD_RECORD_MS: u64 = 10_000;

impl Machine {
    /// Of a supervisor that takes over its own state after executing a new program.
    pub fn resumed(workers: Vec<Worker>, counts: Counts, max_reloads: u32) -> Machine {
        Machine {
            next: workers.iter().map(|w| w.id + 1).max().unwrap_or(0),
            workers,
            counts,
            max_reloads,
            started: true,
            ..Machine::default()
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    /// The number that a reload asked for now will be answered with.
    pub fn reload_number(&self) -> u32 {
        self.counts.reloads + u32::from(self.again.is_some())
    }

    /// The worker that the CLI reaches as `@1`: the one that serves, or else the newest that once did.
    pub fn current(&self) -> Option<&Worker> {
        let served = |w: &&Worker| matches!(w.phase, Phase::Serving | Phase::Old);
        self.workers.iter().rev().find(served)
    }

    /// Whether nothing is in progress.
    pub fn is_calm(&self) -> bool {
        self.started
            && self.reload.is_none()
            && self.again.is_none()
            && self.restart_ms.is_none()
            && self.stopping.is_none()
            && !self.left
            && self.candidate().is_none()
    }

    /// `mworker-max-reloads` of the worker that serves.
    pub fn max_reloads(&self) -> u32 {
        self.max_reloads
    }

    /// Whether the next worker is to take over from somebody else's process, if it should at all.
    pub fn is_first(&self) -> bool {
        !self.started && self.taking != Some(true)
    }

    /// Whether a reload is in progress that old workers do not survive.
    pub fn is_hard(&self) -> bool {
        self.reload.is_some_and(|(_, hard)| hard)
    }

    /// Whether a process of somebody else has taken over.
    pub fn has_left(&self) -> bool {
        self.left
    }

    /// Whether everything is about to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event, now_ms: u64) {
        match event {
            Event::Start => self.spawn(now_ms),
            Event::Spawned { id, pid } => {
                if let Some(w) = self.worker(id) {
                    w.pid = pid;
                }
            }
            Event::NotSpawned { id, why } => {
                self.workers.retain(|w| w.id != id);
                self.candidate_failed(format!("cannot start a worker: {why}"), 1, false, now_ms);
            }
            Event::Hello { id, version } => {
                if let Some(w) = self.worker(id) {
                    w.version = version;
                }
            }
            Event::Ready { id, max_reloads } => self.ready(id, max_reloads, now_ms),
            Event::Held { id } => {
                if self.worker(id).is_some_and(|w| w.phase == Phase::Old) {
                    self.go(now_ms);
                }
            }
            Event::Opens { id } => self.open(id, now_ms),
            Event::Serving { id } => self.serving(id, now_ms),
            Event::Closed { id } => {
                if self.closing.is_some_and(|(closing, _)| closing == id) {
                    self.reloaded(now_ms);
                }
            }
            Event::Left { id } => self.left(id),
            Event::Back { id } => self.back(id),
            Event::Taken => {
                if self.taking.is_some() {
                    self.taking = Some(true);
                }
            }
            Event::Taking { id, sure } => {
                if let Some(w) = self.worker(id) {
                    // The other process has its own idea of what takes too long.
                    w.phase = Phase::Going {
                        until_ms: now_ms + TAKE_PATIENCE_MS,
                    };
                    self.taking = Some(sure);
                }
            }
            Event::Broken { id, why } => self.broken(id, why),
            Event::Exited { pid, status } => self.exited(pid, status, now_ms),
            Event::Stopped { pid, signal } => self.stopped(pid, signal, now_ms),
            Event::Continued { pid } => self.continued(pid),
            Event::Reload { hard } => self.reload(hard, now_ms),
            Event::Term => self.end(0, now_ms),
            Event::Unfit => self.end(1, now_ms),
            Event::Int => self.end(128 + 2, now_ms),
            Event::SoftStop => self.stop(0, Signal::Usr1),
            Event::PassOn(signal) => self.kill_all(signal),
            Event::Tick => self.tick(now_ms),
        }
    }

    fn worker(&mut self, id: Id) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|w| w.id == id)
    }

    /// The worker that is on its way to serve.
    fn candidate(&self) -> Option<&Worker> {
        self.workers.iter().find(|w| {
            matches!(
                w.phase,
                Phase::Starting { .. }
                    | Phase::Ready { .. }
                    | Phase::Going { .. }
                    | Phase::Opening { .. }
            )
        })
    }

    fn in_phase(&self, phase: Phase) -> Option<Id> {
        self.workers.iter().find(|w| w.phase == phase).map(|w| w.id)
    }

    fn say(&mut self, warn: bool, text: String) {
        self.out.push_back(Action::Say { warn, text });
    }

    fn spawn(&mut self, now_ms: u64) {
        let id = self.next;
        self.next += 1;
        self.restart_ms = None;
        self.workers.push(Worker {
            id,
            pid: 0,
            phase: Phase::Starting {
                until_ms: now_ms + START_PATIENCE_MS,
            },
            started_ms: now_ms,
            reloads: 0,
            version: String::new(),
            fault: None,
        });
        self.out.push_back(Action::Spawn { id });
    }

    fn ready(&mut self, id: Id, max_reloads: u32, now_ms: u64) {
        let until_ms = now_ms + HOLD_PATIENCE_MS;
        let Some(w) = self.worker(id) else { return };
        if !matches!(w.phase, Phase::Starting { .. }) {
            return;
        }
        w.phase = Phase::Ready { until_ms };
        self.max_reloads = max_reloads;
        match self.in_phase(Phase::Serving) {
            Some(serving) => {
                if let Some(w) = self.worker(serving) {
                    w.phase = Phase::Old;
                }
                self.out.push_back(Action::Hold { id: serving });
            }
            None => self.go(now_ms),
        }
    }

    /// Nobody accepts: the worker that is ready may.
    fn go(&mut self, now_ms: u64) {
        let until_ms = now_ms + GO_PATIENCE_MS;
        let ready = self
            .workers
            .iter_mut()
            .find(|w| matches!(w.phase, Phase::Ready { .. }));
        if let Some(w) = ready {
            w.phase = Phase::Going { until_ms };
            let id = w.id;
            self.out.push_back(Action::Go { id });
        }
    }

    /// From here on it may have served, and what it served is counted nowhere else: only its own end leads back.
    fn open(&mut self, id: Id, now_ms: u64) {
        let until_ms = now_ms + OPEN_PATIENCE_MS;
        if let Some(w) = self.worker(id)
            && matches!(w.phase, Phase::Going { .. })
        {
            w.phase = Phase::Opening { until_ms };
            self.stopped = self.stopped.filter(|s| s.id != id);
            self.out.push_back(Action::Open { id });
        }
    }

    fn serving(&mut self, id: Id, now_ms: u64) {
        let Some(w) = self.worker(id) else { return };
        // An older one does not ask before it accepts.
        if !matches!(w.phase, Phase::Going { .. } | Phase::Opening { .. }) {
            return;
        }
        w.phase = Phase::Serving;
        let hard = self.reload.is_some_and(|(_, hard)| hard);
        // First: which sockets nobody took over depends on it.
        self.out.push_back(Action::Adopt { id });
        let mut old = Vec::new();
        let mut remarks = Vec::new();
        for w in &mut self.workers {
            match w.phase {
                Phase::Old => {
                    w.phase = Phase::Draining;
                    self.closing = Some((w.id, now_ms + CLOSE_PATIENCE_MS));
                    // Also one that is to end at once: what it counted belongs to the new one.
                    old.push(Action::Drain { id: w.id });
                    if hard {
                        old.push(Action::Cut { id: w.id });
                    }
                }
                Phase::Draining => {}
                _ => continue,
            }
            if self.reload.is_some() {
                w.reloads += 1;
                if w.reloads > self.max_reloads {
                    if !hard && !self.cut.iter().any(|(known, _)| *known == w.id) {
                        remarks.push(format!(
                            "Former worker ({}) has survived {} reloads ('mworker-max-reloads'): its connections are cut.",
                            w.pid, self.max_reloads
                        ));
                    }
                    old.push(Action::Cut { id: w.id });
                }
            }
        }
        for action in &old {
            if let Action::Cut { id } = action
                && !self.cut.iter().any(|(known, _)| known == id)
            {
                self.cut.push((*id, now_ms + CUT_PATIENCE_MS));
            }
        }
        self.out.extend(old);
        for text in remarks {
            self.say(true, text);
        }
        if !self.started {
            self.started = true;
            self.out.push_back(Action::Started);
        }
        if self.reload.is_none() || self.closing.is_none() {
            self.reloaded(now_ms);
        }
    }

    /// Whoever asked for the reload meets nothing but the new configuration from now on.
    fn reloaded(&mut self, now_ms: u64) {
        self.report_reload();
        self.next_reload(now_ms);
    }

    fn report_reload(&mut self) {
        self.closing = None;
        if let Some((number, _)) = self.reload.take() {
            self.counts.last_failed = false;
            self.out.push_back(Action::Reloaded {
                number,
                outcome: Ok(()),
            });
        }
    }

    fn left(&mut self, id: Id) {
        if let Some(w) = self.worker(id) {
            w.phase = Phase::Draining;
        }
        if self.stopping.is_some() {
            return;
        }
        self.left = true;
        self.say(
            false,
            "Another process has taken over; this one answers until it is told to end.".into(),
        );
        // Its sockets are the other one's.
        self.out.push_back(Action::CloseDuplicates);
        self.end_candidate();
        self.finish_reloads("another process has taken over");
    }

    /// The other process has ended before it accepted.
    fn back(&mut self, id: Id) {
        match self.worker(id) {
            Some(w) => w.phase = Phase::Serving,
            None => return,
        }
        self.left = false;
        self.say(
            true,
            "The process that took over has ended before it accepted: serving on.".into(),
        );
    }

    fn exited(&mut self, pid: u32, status: Status, now_ms: u64) {
        let Some(at) = self.workers.iter().position(|w| w.pid == pid && pid != 0) else {
            return;
        };
        let w = self.workers.remove(at);
        let id = w.id;
        self.cut.retain(|(cut, _)| *cut != id);
        self.stopped = self.stopped.filter(|s| s.id != id);
        match self.closing {
            Some((closing, _)) if closing == id => self.reloaded(now_ms),
            // It has served.
            Some(_) if w.phase == Phase::Serving => self.report_reload(),
            _ => {}
        }
        let crashed = w.fault.is_none() && matches!(status, Status::Signal(_));
        let how = w.fault.unwrap_or_else(|| status.describe());
        if self.stopping.is_some() {
            let text = format!("Worker ({pid}) {how}");
            self.say(!matches!(status, Status::Exit(0)), text);
            // It had shown its tables to the one that has ended, and waits for what becomes of that.
            if let Some(id) = self.in_phase(Phase::Old) {
                if let Some(old) = self.worker(id) {
                    old.phase = Phase::Draining;
                }
                self.out.push_back(Action::Resume { id });
            }
            self.exit_if_empty();
            return;
        }
        match w.phase {
            Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Going { .. }
            | Phase::Opening { .. } => {
                self.out.push_back(Action::Forget { id });
                self.candidate_failed(
                    format!("Failed to load worker ({pid}) {how}"),
                    status.shell_code(),
                    crashed,
                    now_ms,
                );
            }
            Phase::Draining | Phase::Dying => {
                self.say(false, format!("Former worker ({pid}) {how}"));
            }
            Phase::Serving | Phase::Old => {
                self.say(true, format!("Current worker ({pid}) {how}"));
                if now_ms.saturating_sub(w.started_ms) >= GOOD_RECORD_MS {
                    self.crashes = 0;
                }
                match self.candidate().map(|c| c.phase) {
                    // Its successor is on its way already.
                    Some(Phase::Ready { .. }) => self.go(now_ms),
                    Some(_) => {}
                    None => self.plan_restart(now_ms),
                }
            }
        }
    }

    fn plan_restart(&mut self, now_ms: u64) {
        let pause_ms = match self.crashes {
            0 => 0,
            n => (BACKOFF_FIRST_MS << (n - 1).min(10)).min(BACKOFF_MAX_MS),
        };
        self.crashes = self.crashes.saturating_add(1);
        if pause_ms == 0 {
            self.say(
                false,
                "Starting another worker; new connections wait.".into(),
            );
            self.spawn(now_ms);
        } else {
            self.say(
                false,
                format!("Starting another worker in {pause_ms} ms; new connections wait."),
            );
            self.restart_ms = Some(now_ms + pause_ms);
        }
    }

    /// The worker that should have served will not.
    fn candidate_failed(&mut self, why: String, code: u8, died: bool, now_ms: u64) {
        if self.stopping.is_some() {
            self.exit_if_empty();
            return;
        }
        self.say(true, why.clone());
        if self.left {
            return;
        }
        if !self.started {
            match self.taking {
                // The other one has let go, or might have: nobody else has the sockets.
                Some(sure) if sure || died => {
                    // If it has, it will say so in a moment.
                    self.crashes = self.crashes.max(1);
                    self.plan_restart(now_ms);
                }
                _ => self.out.push_back(Action::Exit { code: code.max(1) }),
            }
            return;
        }
        match self.in_phase(Phase::Old) {
            Some(id) => {
                if let Some(w) = self.worker(id) {
                    w.phase = Phase::Serving;
                }
                self.out.push_back(Action::Resume { id });
            }
            None if self.in_phase(Phase::Serving).is_none() => self.plan_restart(now_ms),
            None => {}
        }
        if let Some((number, _)) = self.reload.take() {
            self.counts.failed += 1;
            self.counts.last_failed = true;
            self.out.push_back(Action::Reloaded {
                number,
                outcome: Err(why),
            });
        }
        self.next_reload(now_ms);
    }

    fn reload(&mut self, hard: bool, now_ms: u64) {
        if self.stopping.is_some() || self.left {
            let why = if self.left {
                "another process has taken over"
            } else {
                "everything is about to stop"
            };
            self.out.push_back(Action::Reloaded {
                number: u32::MAX,
                outcome: Err(why.into()),
            });
            return;
        }
        if self.candidate().is_some() || self.closing.is_some() {
            self.give_up_late(hard);
            // That one may have read the configuration already.
            self.again = Some(hard || self.again == Some(true));
            return;
        }
        self.counts.reloads += 1;
        self.reload = Some((self.counts.reloads, hard));
        self.crashes = 0;
        self.out.push_back(Action::Reloading);
        self.spawn(now_ms);
    }

    /// Begins the reload that was asked for during the last one.
    fn next_reload(&mut self, now_ms: u64) {
        if self.candidate().is_none()
            && self.reload.is_none()
            && let Some(hard) = self.again.take()
        {
            self.reload(hard, now_ms);
        }
    }
}

#[cfg(test)]
mod tests;
