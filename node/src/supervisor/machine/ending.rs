//! Everything is to end, or whoever waits for reloads is to know that none comes any more.

use super::{Action, Machine, Phase, STOP_AGAIN_MS, STOP_PATIENCE_MS, Signal, Worker};

/// See [`Machine`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) since_ms: u64,
    pub(super) until_ms: u64,
}

impl Machine {
    /// A hard stop. Whoever does not end is killed: after a while, or when this is asked for again.
    pub(super) fn end(&mut self, code: u8, now_ms: u64) {
        let ends = self.ends.get_or_insert(Ends {
            since_ms: now_ms,
            until_ms: now_ms + STOP_PATIENCE_MS,
        });
        if now_ms >= ends.since_ms + STOP_AGAIN_MS {
            ends.until_ms = now_ms;
            self.tick(now_ms);
        } else {
            self.stop(code, Signal::Term);
        }
    }

    pub(super) fn stop(&mut self, code: u8, signal: Signal) {
        if self.stopping.is_none() {
            self.out.push_back(Action::Stopping);
            self.finish_reloads("everything is about to stop");
        }
        self.stopping = Some(code);
        self.restart_ms = None;
        if signal == Signal::Usr1 {
            self.end_candidate();
        }
        self.kill_all(signal);
        // A port that nobody serves must refuse.
        self.out.push_back(Action::CloseDuplicates);
        self.exit_if_empty();
    }

    /// A worker that has not served yet has nothing to finish.
    pub(super) fn end_candidate(&mut self) {
        let unserved = |w: &&Worker| !matches!(w.phase, Phase::Opening { .. });
        if let Some(id) = self.candidate().filter(unserved).map(|w| w.id) {
            if let Some(w) = self.worker(id) {
                w.phase = Phase::Dying;
            }
            self.out.push_back(Action::Kill {
                id,
                signal: Signal::Term,
            });
        }
    }

    pub(super) fn finish_reloads(&mut self, why: &str) {
        self.again = None;
        self.reload = None;
        self.closing = None;
        self.out.push_back(Action::Reloaded {
            number: u32::MAX,
            outcome: Err(why.to_owned()),
        });
    }

    pub(super) fn kill_all(&mut self, signal: Signal) {
        for w in &self.workers {
            // One that drains has nothing to do with them any more, and one that starts gets the sockets as they are.
            let catches = matches!(w.phase, Phase::Serving | Phase::Old | Phase::Opening { .. });
            let asks = matches!(signal, Signal::Ttin | Signal::Ttou);
            if w.pid != 0 && w.phase != Phase::Dying && (catches || !asks) {
                self.out.push_back(Action::Kill { id: w.id, signal });
            }
        }
    }

    pub(super) fn exit_if_empty(&mut self) {
        if let (Some(code), true) = (self.stopping, self.workers.is_empty()) {
            self.say(false, format!("All workers exited. Exiting... ({code})"));
            self.out.push_back(Action::Exit { code });
        }
    }
}
