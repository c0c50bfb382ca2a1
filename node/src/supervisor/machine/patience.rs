//! What takes too long.

use super::{Action, Id, Machine, Phase, Signal, Worker};

/// How long a worker may take to read its configuration and to open its sockets.
pub const START_PATIENCE_MS: u64 = 120_000;
/// How long the serving worker may take to stop accepting; it is a matter of microseconds.
pub const HOLD_PATIENCE_MS: u64 = 2_000;
/// How long a worker that is ready may take until it has all that it needs to accept.
pub const GO_PATIENCE_MS: u64 = 10_000;
/// How long it may then take to accept before that is said; it is a matter of microseconds.
pub const OPEN_PATIENCE_MS: u64 = 3_000;
/// As [`GO_PATIENCE_MS`] if it first has to agree with somebody else's process.
pub const TAKE_PATIENCE_MS: u64 = 60_000;
/// How long a worker that drains may take to close its sockets; it is a matter of microseconds.
pub const CLOSE_PATIENCE_MS: u64 = 1_000;
/// How long a worker may take to cut its connections, and to say what it counted last.
pub const CUT_PATIENCE_MS: u64 = 5_000;
/// How long everything may take to end at once: a worker that answers needs less, even when its peers are slow.
pub const STOP_PATIENCE_MS: u64 = 20_000;
/// A second order to end at once means it only so long after the first: one that is sent to a whole group of processes, and passed
/// on by another one, comes twice.
pub const STOP_AGAIN_MS: u64 = 1_000;
/// How long a worker on its way to serve may be stopped by a signal (`SIGSTOP`, or a terminal's): nobody who means it well
/// stops one, and until it is given up no other reload can begin.
pub const STOPPED_PATIENCE_MS: u64 = 5_000;

/// The worker on its way to serve does not run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    pub(super) id: Id,
    signal: i32,
    /// It is killed if it still does not run.
    until_ms: u64,
}

impl Machine {
    /// When [`Event::Tick`](super::Event::Tick) is due.
    pub fn deadline(&self) -> Option<u64> {
        let patience = self.workers.iter().filter_map(|w| match w.phase {
            Phase::Starting { until_ms }
            | Phase::Ready { until_ms }
            | Phase::Going { until_ms }
            | Phase::Opening { until_ms } => Some(until_ms),
            _ => None,
        });
        let cut = self.cut.iter().map(|(_, at)| *at);
        let end = self.ends.map(|ends| ends.until_ms);
        let closed = self.closing.map(|(_, until_ms)| until_ms);
        let all = patience.chain(self.restart_ms).chain(cut);
        let stopped = self.stopped.map(|s| s.until_ms);
        all.chain(end).chain(closed).chain(stopped).min()
    }

    pub(super) fn tick(&mut self, now_ms: u64) {
        if self.restart_ms.is_some_and(|at| now_ms >= at) {
            self.spawn(now_ms);
        }
        self.cut.retain(|(id, at)| {
            if now_ms >= *at {
                self.out.push_back(Action::Kill {
                    id: *id,
                    signal: Signal::Kill,
                });
            }
            now_ms < *at
        });
        self.end_of_patience(now_ms);
        self.end_of_stop(now_ms);
        if self.closing.is_some_and(|(_, until)| now_ms >= until) {
            self.reloaded(now_ms);
        }
        let Some(w) = self.candidate().cloned() else {
            return;
        };
        match w.phase {
            Phase::Starting { until_ms } | Phase::Going { until_ms } if now_ms >= until_ms => {
                let why = if matches!(w.phase, Phase::Going { .. }) {
                    "was ready but did not begin to accept in time and has been killed; reload again".into()
                } else {
                    let s = START_PATIENCE_MS / 1000;
                    format!(
                        "was not ready within {s} s and has been killed; see what its start waits for (slow files, names to \
                        be resolved), then reload again"
                    )
                };
                self.broken(w.id, why);
                if let Some(w) = self.worker(w.id) {
                    // Not again for the same; its end is what counts.
                    w.phase = Phase::Starting { until_ms: u64::MAX };
                }
            }
            Phase::Opening { until_ms } if now_ms >= until_ms => {
                if let Some(w) = self.worker(w.id) {
                    w.phase = Phase::Opening { until_ms: u64::MAX };
                }
                self.say(
                    true,
                    format!(
                        "Worker ({}) was told to accept and does not say that it does. It may have served already, so it is \
                        waited for; 'hard-reload' gives it up, with what it counted.",
                        w.pid
                    ),
                );
            }
            Phase::Ready { until_ms } if now_ms >= until_ms => {
                self.say(
                    true,
                    "The old worker does not answer; the new one begins.".into(),
                );
                self.go(now_ms);
            }
            _ => {}
        }
    }

    /// A hard reload does not wait for a worker that is late with accepting.
    pub(super) fn give_up_late(&mut self, hard: bool) {
        let late = |w: &&Worker| w.phase == Phase::Opening { until_ms: u64::MAX };
        if let Some(id) = self.candidate().filter(late).map(|w| w.id)
            && hard
        {
            let why =
                "did not say that it accepts; 'hard-reload' has given it up, with what it counted";
            self.broken(id, why.into());
        }
    }

    /// Kills who did not end in time, once.
    fn end_of_patience(&mut self, now_ms: u64) {
        let Some(ends) = self.ends.as_mut().filter(|e| now_ms >= e.until_ms) else {
            return;
        };
        ends.until_ms = u64::MAX;
        for w in self.workers.clone() {
            self.say(true, format!("Worker ({}) does not end: killed.", w.pid));
            self.out.push_back(Action::Kill {
                id: w.id,
                signal: Signal::Kill,
            });
        }
    }

    /// It has to go; its end is what counts.
    pub(super) fn broken(&mut self, id: Id, why: String) {
        let Some(w) = self.worker(id) else { return };
        // One that ends anyway closes its channel, too; a served one without a channel can only be replaced.
        if matches!(w.phase, Phase::Draining | Phase::Dying) {
            return;
        }
        w.fault.get_or_insert(why);
        self.out.push_back(Action::Kill {
            id,
            signal: Signal::Kill,
        });
    }

    /// A signal has stopped this process.
    pub(super) fn stopped(&mut self, pid: u32, signal: i32, now_ms: u64) {
        let Some(id) = self.by_pid(pid) else { return };
        let mut text = format!("Worker ({pid}) is stopped by signal {signal}.");
        let may_go = |w: &&Worker| w.id == id && !matches!(w.phase, Phase::Opening { .. });
        if self.candidate().filter(may_go).is_some() {
            self.stopped = Some(Stopped {
                id,
                signal,
                until_ms: now_ms + STOPPED_PATIENCE_MS,
            });
            text.push_str(" If it does not go on, it is given up.");
        }
        self.say(true, text);
    }

    /// This process goes on.
    pub(super) fn continued(&mut self, pid: u32) {
        let Some(id) = self.by_pid(pid) else { return };
        if self.stopped.is_some_and(|s| s.id == id) {
            self.stopped = None;
        }
        self.say(false, format!("Worker ({pid}) goes on."));
    }

    fn by_pid(&self, pid: u32) -> Option<Id> {
        let mut all = self.workers.iter();
        all.find(|w| w.pid == pid && pid != 0).map(|w| w.id)
    }

    /// Gives up the worker that does not run.
    fn end_of_stop(&mut self, now_ms: u64) {
        let Some(stopped) = self.stopped.filter(|s| now_ms >= s.until_ms) else {
            return;
        };
        self.stopped = None;
        if self.candidate().is_some_and(|w| w.id == stopped.id) {
            let why = format!(
                "was stopped by signal {} for {} s and has been killed; see who stops it, then reload again",
                stopped.signal,
                STOPPED_PATIENCE_MS / 1000
            );
            self.broken(stopped.id, why);
        }
    }
}
