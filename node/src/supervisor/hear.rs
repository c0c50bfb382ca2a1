//! What workers say, and that they have ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::links::Incoming;
use super::machine::{Event, Id, Status};
use super::{RELATIVES, SAID_MAX, STATE_VERSION, Supervisor, now_ms};
use crate::handoff::frames::Frame;

impl Supervisor<'_> {
    /// A child has ended. What it said last is read first: it tells why.
    pub(super) fn reaped(&mut self, pid: u32, status: Status) {
        let Some(id) = self.id_of(pid) else { return };
        let known = self.known.entry(id).or_default();
        known.reaped = Some(status);
        if known.ended || known.link.is_none() {
            return self.buried(id);
        }
        // Somebody else may hold the other end, who keeps it open: all that was said is there already.
        let inbox = self.to_inbox.clone();
        spawn_local(async move {
            sleep(LAST_WORDS).await;
            // The supervisor itself may be about to end.
            let _ = inbox.send((id, Incoming::End));
        });
    }

    pub(super) fn buried(&mut self, id: Id) {
        let Some(status) = self.known.get_mut(&id).and_then(|k| k.reaped.take()) else {
            return;
        };
        let pid = self
            .machine
            .workers
            .iter()
            .find(|w| w.id == id)
            .map(|w| w.pid);
        if let Some(pid) = pid {
            self.machine.handle(Event::Exited { pid, status }, now_ms());
        }
        // Kept until the failure has been reported.
        if let Some(known) = self.known.get_mut(&id) {
            known.link = None;
        }
    }

    pub(super) fn id_of(&self, pid: u32) -> Option<Id> {
        self.machine
            .workers
            .iter()
            .find(|w| w.pid == pid)
            .map(|w| w.id)
    }

    pub(super) fn incoming(&mut self, id: Id, incoming: Incoming) {
        let now = now_ms();
        if id >= RELATIVES {
            match incoming {
                Incoming::Frame(Frame::Yours, _) => self.machine.handle(Event::Taken, now),
                Incoming::Frame(..) => {}
                Incoming::End | Incoming::Broken(_) => {
                    self.relatives.remove(&id);
                    self.parked.relatives.remove(&id);
                }
            }
            return;
        }
        let (frame, mut fds) = match incoming {
            Incoming::Frame(frame, fds) => (frame, fds),
            Incoming::End => {
                if let Some(known) = self.known.get_mut(&id) {
                    known.ended = true;
                    self.buried(id);
                }
                return;
            }
            Incoming::Broken(why) => {
                if let Some(known) = self.known.get_mut(&id) {
                    known.ended = true;
                }
                self.machine.handle(Event::Broken { id, why }, now);
                self.buried(id);
                return;
            }
        };
        match frame {
            Frame::Hello(hello) => match hello.agree() {
                Ok(_) => {
                    if let Some(known) = self.known.get_mut(&id) {
                        let range = hello.state_min..=hello.state_max;
                        known.can_resume = range.contains(&STATE_VERSION);
                    }
                    let version = hello.program;
                    self.machine.handle(Event::Hello { id, version }, now);
                }
                Err(why) => self.machine.handle(Event::Broken { id, why }, now),
            },
            Frame::Said(text) => {
                if let Some(known) = self.known.get_mut(&id)
                    && known.said.len() < SAID_MAX
                {
                    known.said.push_str(&text);
                }
            }
            Frame::Listeners(infos) => {
                if let Some(known) = self.known.get_mut(&id) {
                    let fds = fds.into_iter().map(Arc::new);
                    known.offer.extend(infos.into_iter().zip(fds));
                }
            }
            Frame::Ready(settings) => {
                let max_reloads = settings.max_reloads;
                if settings.untaught
                    && let Some(known) = self.known.get_mut(&id)
                {
                    // That one is told who serves like all others that drain.
                    let silent = known.taught_by.take();
                    self.forget_taught(silent);
                    for relative in self.relatives.values_mut() {
                        relative.tells = relative.tells.filter(|tells| *tells != id);
                    }
                }
                self.machine.handle(Event::Ready { id, max_reloads }, now);
            }
            Frame::Held => self.machine.handle(Event::Held { id }, now),
            Frame::Opens => self.machine.handle(Event::Opens { id }, now),
            Frame::Closed => self.machine.handle(Event::Closed { id }, now),
            Frame::Serving => self.machine.handle(Event::Serving { id }, now),
            Frame::Left { orphans } => self.leave(id, orphans, fds.pop()),
            Frame::Back => self.come_back(id),
            Frame::Taking { sure } => {
                if let Some(known) = self.known.get(&id) {
                    // If it dies now, its sockets must stay.
                    self.duplicates = known.offer.clone();
                }
                if let Some(fd) = fds.pop() {
                    self.relate(fd, Some(id));
                }
                self.machine.handle(Event::Taking { id, sure }, now);
            }
            Frame::Kin => {
                if let Some(number) = fds.pop().and_then(|fd| self.relate(fd, None)) {
                    self.introduce(number, id);
                }
            }
            Frame::Files(files) => {
                if let Some(known) = self.known.get_mut(&id) {
                    known.files.extend(files);
                }
            }
            other => {
                let why = format!("said {other:?}, which is not a worker's to say");
                self.machine.handle(Event::Broken { id, why }, now);
            }
        }
    }
}

/// How long it takes to read what a process that has ended had said.
const LAST_WORDS: Duration = Duration::from_millis(200);
