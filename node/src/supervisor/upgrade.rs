//! A supervisor follows its worker: it executes a new program that has proved itself, and goes on from its own state.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use super::children::Program;
use super::links::Link;
use super::machine::{Machine, Phase};
use super::open::Door;
use super::state::{self, Process, State};
use super::{Known, STATE_VERSION, Start, Supervisor, now_ms};
use crate::cli::Args;
use crate::handoff::channel::Channel;
use crate::handoff::frames::Reloads;

impl<'a> Supervisor<'a> {
    /// The supervisor of which this process was one before it executed this program.
    pub(super) fn resume(args: &'a Args) -> Result<Supervisor<'a>, String> {
        let (state, fds, listeners) =
            state::unpack().map_err(|e| format!("cannot take over the supervisor's state: {e}"))?;
        let start = Start {
            args,
            pidfile: None,
            detach: state.detach,
        };
        let program = Program::executed(state.path())
            .map_err(|e| format!("cannot find out which program this is: {e}"))?;
        let mut fds = fds.into_iter();
        let channels: Vec<OwnedFd> = fds.by_ref().take(state.workers.len()).collect();
        let doors = state
            .doors
            .iter()
            .zip(fds.by_ref())
            .map(|((text, level), fd)| Door::resumed(text.clone(), *level, fd))
            .collect();
        let children = state.workers.iter().map(Process::pid).collect();
        let mut this = Supervisor::with(start, program, doors, children)?;
        for way in fds {
            this.relate(way, None);
        }
        let mut workers = Vec::new();
        for (process, fd) in state.workers.iter().cloned().zip(channels) {
            let worker = process.worker();
            let link = Channel::new(fd)
                .and_then(|c| Link::open(worker.id, c, this.to_inbox.clone()))
                .map_err(|e| format!("cannot take over the channel to a worker: {e}"))?;
            let known = Known {
                link: Some(link),
                offer: if worker.phase == Phase::Serving {
                    listeners.clone()
                } else {
                    Vec::new()
                },
                ..Known::default()
            };
            this.known.insert(worker.id, known);
            workers.push(worker);
        }
        this.machine = Machine::resumed(workers, state.counts(), state.max_reloads);
        this.duplicates = listeners;
        this.started_ms = state.started_ms;
        this.startup_logs = state.startup_logs;
        this.reloads = Reloads {
            done: state.reloads.saturating_sub(state.failed),
            failed: state.failed,
            ..Reloads::default()
        };
        if let Some(watch) = &mut this.watch {
            watch.follow(state.files, now_ms());
        }
        this.say(
            false,
            &format!("Version {} supervises now.", crate::VERSION),
        );
        Ok(this)
    }

    /// Executes the new program that has proved itself as a worker, once nothing is on its way any more.
    pub(super) fn execute(&mut self) {
        let idle = |k: &Known| k.reaped.is_none() && k.link.as_ref().is_none_or(Link::is_idle);
        let ways_idle = self.relatives.values().all(|r| r.way.is_idle());
        let all_idle = ways_idle && self.known.values().all(idle);
        if !self.machine.is_calm() || !self.inbox.is_empty() || !all_idle {
            self.execute_ms = (!self.machine.is_stopping()).then(|| now_ms() + EXECUTE_RETRY_MS);
            return;
        }
        self.execute_ms = None;
        let why = match self.packed() {
            Ok(state) => self.program.execute(state),
            Err(e) => e,
        };
        let path = self.program.path.display().to_string();
        self.say(
            true,
            &format!("Cannot execute {path} ({why}); the supervisor stays the old version."),
        );
    }

    fn packed(&self) -> std::io::Result<OwnedFd> {
        let mut fds = Vec::new();
        let mut workers = Vec::new();
        for w in &self.machine.workers {
            let link = self.known.get(&w.id).and_then(|k| k.link.as_ref());
            if let Some(link) = link {
                fds.push(Arc::new(link.channel().as_fd().try_clone_to_owned()?));
                workers.push(Process::of(w));
            }
        }
        fds.extend(self.doors.iter().map(|d| Arc::clone(&d.fd)));
        for relative in self.relatives.values() {
            fds.push(Arc::new(
                relative.way.channel().as_fd().try_clone_to_owned()?,
            ));
        }
        let state = State {
            version: STATE_VERSION,
            program: self.program.path.as_os_str().as_bytes().to_vec(),
            started_ms: self.started_ms,
            reloads: self.machine.counts.reloads,
            failed: self.machine.counts.failed,
            max_reloads: self.machine.max_reloads(),
            startup_logs: self.startup_logs.clone(),
            detach: self.start.detach,
            files: self
                .watch
                .as_ref()
                .map_or(Vec::new(), |w| w.files().to_vec()),
            workers,
            doors: self
                .doors
                .iter()
                .map(|d| (d.text.clone(), d.level as u8))
                .collect(),
        };
        state::pack(&state, fds, &self.duplicates)
    }

    /// After a reload: if the worker runs another program than this process, this process follows it.
    pub(super) fn plan_execution(&mut self) {
        if !self.program.is_replaced() {
            return;
        }
        let current = self.machine.current().map(|w| w.id);
        if current
            .and_then(|id| self.known.get(&id))
            .is_some_and(|k| k.can_resume)
        {
            // Answers are on their way to those who asked for the reload.
            self.execute_ms = Some(now_ms() + EXECUTE_PAUSE_MS);
        } else {
            self.say(
                true,
                "The new version cannot take over from this supervisor, which stays; start the service anew for a new one.",
            );
        }
    }
}

/// How long a supervisor goes on after a reload before it executes the new program, and how long it waits for calm.
const EXECUTE_PAUSE_MS: u64 = 200;
const EXECUTE_RETRY_MS: u64 = 50;
