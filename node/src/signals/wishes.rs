//! What processes of somebody else want that take over: tables, the rest of them, the word that they may.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use super::begin::{accept, hold, make_way};
use super::life::{Life, Phase};
use super::parting::Parting;
use crate::handoff::Frame;
use crate::handoff::channel::{Channel, Packet};
use crate::handoff::directory;
use crate::handoff::giver::{Leave, Wish};
use crate::handoff::succession::Leaving;
use crate::handoff::tables::Teacher;
use crate::proxy::control::Successor;

impl Life {
    pub(super) async fn on_wish(&mut self, wish: Wish) {
        match wish {
            Wish::Teach(channel, answer) => {
                let _ = answer.send(self.teach_stranger(channel));
            }
            Wish::Hold(done) => self.seal_for_stranger(done),
            Wish::Resume { held } => self.go_on(held),
            Wish::Ways(more) => self.giving.ways.extend(more),
            Wish::Leave(_) if self.phase >= Phase::Drains => {}
            Wish::Leave(leave) => self.leave(leave).await,
        }
    }

    /// Whether a process of somebody else is learning, or has learned, and this one serves.
    pub(super) fn is_being_taken_over(&self) -> bool {
        !self.giving.stops_next && self.shows_to_stranger()
    }

    /// Whether a hard stop should wait for such a process: the first time that one is asked for.
    pub(super) fn waits_to_end(&self) -> bool {
        self.giving.ends_by.is_none() && self.shows_to_stranger()
    }

    fn shows_to_stranger(&self) -> bool {
        self.phase < Phase::Drains
            && self.teaches_stranger
            && self.teacher.as_ref().is_some_and(|t| !t.is_over())
    }

    fn teach_stranger(&mut self, channel: Channel) -> Result<oneshot::Receiver<()>, String> {
        let teaches = self.teacher.as_ref().is_some_and(|t| !t.is_over());
        if self.giving.leaving.is_some() || teaches || self.phase >= Phase::Drains {
            return Err(String::from("it is handing over to another process"));
        }
        self.teaches_stranger = true;
        let (over, when) = oneshot::channel();
        let teacher = Teacher::start(&self.shared, channel, self.teacher.take(), Some(over));
        self.teacher = Some(Arc::new(teacher.map_err(|e| e.to_string())?));
        Ok(when)
    }

    /// It is ready: it gets the rest of the tables.
    fn seal_for_stranger(&self, done: oneshot::Sender<()>) {
        let held = match &self.teacher {
            Some(_) => {
                make_way(&self.shared, &self.console);
                None
            }
            // Nobody would say when it is time to stop accepting.
            None => Some(hold(
                Arc::clone(&self.shared),
                Some(self.console.clone()),
                false,
            )),
        };
        let teacher = self.teacher.clone();
        tokio::spawn(async move {
            if let Some(held) = held {
                held.await;
            }
            if let Some(teacher) = teacher {
                teacher.seal(None).await;
            }
            let _ = done.send(());
        });
    }

    /// It did not take over. `held`: it was on the point of it.
    fn go_on(&mut self, held: bool) {
        if self.phase >= Phase::Drains {
            return;
        }
        // A reload that has begun meanwhile has its own.
        if let Some(teacher) = self.teacher.take_if(|_| self.teaches_stranger) {
            teacher.resume();
        }
        if held {
            tokio::spawn(accept(Arc::clone(&self.shared), self.console.clone(), None));
        }
        if let Some(ends) = &mut self.giving.ends_by {
            *ends = Instant::now();
        } else if std::mem::take(&mut self.giving.stops_next) {
            self.soft_stop();
        }
    }

    /// It has everything, and asks for the word that it may accept.
    async fn leave(&mut self, leave: Leave) {
        if let Some(link) = &self.link {
            // Only the supervisor can leave and not replace this process in one step.
            self.giving.leaving = Some(Leaving::ask(leave, link).await);
            return;
        }
        match Leaving::decide(leave, &mut self.giving.ways) {
            Ok((leaving, orphans)) => {
                self.giving.leaving = Some(leaving);
                // Whoever starts it again when it ends would have it take over in turn.
                let stays = self.shared.plan.global.handoff.as_deref();
                let stays = stays.is_some_and(directory::is_directory);
                self.lingers = !self.giving.stops_next && stays;
                self.giving.parting = Some(Parting::new(orphans, false));
            }
            Err(e) => warn!("the process that wanted to take over is gone: {e}"),
        }
    }

    /// It accepts, so this process leaves; or it has ended before, and this one goes on.
    pub(super) async fn on_parted(&mut self, accepts: bool) {
        let Some(Parting { orphans, .. }) = self.giving.parting.take() else {
            return;
        };
        if accepts {
            return self.drain(Successor::Process { orphans });
        }
        if let (Some(link), Some(offer)) = (&self.link, &self.offer) {
            // It has let go of the sockets, and would start no other worker.
            for packet in Packet::listeners(offer) {
                link.tell(packet).await;
            }
            link.tell(Frame::Back).await;
        }
        // What follows from it comes as `Wish::Resume`.
        self.lingers = false;
        warn!("the process that took over has ended before it accepted: this one goes on.");
        if let Some(leaving) = self.giving.leaving.take() {
            leaving.settle(false);
        }
    }
}
