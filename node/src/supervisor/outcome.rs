//! Whoever has to know is told how a reload ended: who asked for it, systemd, the worker that serves (its metrics say so).

use tracing::error;

use super::machine::Event;
use super::open::Door;
use super::{Supervisor, now_ms};
use crate::boot::daemon;
use crate::handoff::frames::Frame;

impl Supervisor<'_> {
    pub(super) fn reloaded(&mut self, number: u32, outcome: Result<(), String>) {
        let fine = outcome.is_ok();
        self.note(number, &outcome);
        match &outcome {
            Ok(()) => {
                self.say(false, "Loading success.");
                self.plan_execution();
            }
            Err(why) if self.machine.is_stopping() || self.machine.has_left() => {
                self.remarks.push_str(why);
                self.remarks.push('\n');
            }
            Err(_) => self.say(true, "Loading failure; the worker that served goes on."),
        }
        if self.machine.has_left() {
            self.notify.ready("Another process has taken over.");
        } else if !self.machine.is_stopping() {
            self.notify.ready(if fine {
                "Ready."
            } else {
                "Reload failed; the worker that served goes on."
            });
        }
        let text = format!("{}{}", self.startup_logs, self.remarks);
        let (done, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(wanted, _)| *wanted <= number);
        self.waiting = rest;
        for (_, answer) in done {
            let _ = answer.send((fine, text.clone()));
        }
    }

    /// Tells the worker that serves how a reload ended.
    pub(super) fn note(&mut self, number: u32, outcome: &Result<(), String>) {
        if number > self.machine.counts.reloads {
            return; // It was refused before it began.
        }
        let took_ms = now_ms().saturating_sub(self.reload_ms);
        self.reloads.took_ms = u32::try_from(took_ms).unwrap_or(u32::MAX);
        match outcome {
            Ok(()) => self.reloads.done += 1,
            Err(_) => self.reloads.failed += 1,
        }
        self.reloads.fault = outcome.clone().err();
        if let Some(id) = self.machine.current().map(|w| w.id) {
            self.tell(id, Frame::reloads(&self.reloads));
        }
    }

    /// The first worker serves: everybody who waited may know.
    pub(super) fn started(&mut self) -> Result<(), u8> {
        if let Err(why) = self.show_itself() {
            error!("{why}");
            self.machine.handle(Event::Unfit, now_ms());
            return Ok(());
        }
        self.say(false, "Loading success.");
        self.notify.ready("Ready.");
        if self.start.args.detached
            && let Err(e) = daemon::report_ready()
        {
            error!("cannot let go of the terminal: {e}");
            return Err(1);
        }
        Ok(())
    }
    /// Others find this process from now on.
    fn show_itself(&mut self) -> Result<(), String> {
        if let Some(path) = &self.start.pidfile {
            crate::boot::write_pidfile(path)?;
        }
        self.doors.iter_mut().try_for_each(Door::put_in_place)
    }
}
