//! What the supervisor wants.

use std::sync::Arc;

use remora_config::plan::CliLevel;
use tracing::warn;

use super::begin::{closed, make_way};
use super::life::{Life, Phase};
use super::parting::Parting;
use crate::admin;
use crate::handoff::Frame;
use crate::handoff::channel::Channel;
use crate::handoff::succession;
use crate::handoff::tables::{Heritage, Teacher};
use crate::handoff::worker::{Errand, Order};
use crate::peers;
use crate::proxy::control::Successor;

impl Life {
    pub(super) fn on_order(&mut self, order: Order) {
        match order {
            Order::Accept => self.serve(),
            Order::Hold => self.seal_for_worker(),
            Order::Reloads(reloads) => *self.shared.reloads.lock() = Some(reloads),
            Order::Cut => self.cut(),
            Order::Console { level, fd } => {
                let level = match level {
                    0 => CliLevel::User,
                    1 => CliLevel::Operator,
                    _ => CliLevel::Admin,
                };
                let _ = self.console.visitors.send((fd, level));
            }
            Order::Tables(errand, channel) => {
                if let Err(e) = self.on_errand(errand, channel) {
                    warn!("cannot talk to another worker: {e}");
                }
            }
            Order::Drain { orphans } => self.drain_for_worker(orphans),
            Order::Kin(way) => {
                if let Some(teacher) = &self.teacher {
                    tokio::spawn(succession::follow(way, Arc::clone(teacher)));
                }
            }
            Order::Retire { orphans } => {
                self.lingers = !self.giving.stops_next;
                self.giving.parting = Some(Parting::new(orphans, true));
            }
            Order::Gone => self.on_orphaned(),
        }
    }

    /// Serves; or serves on, since whoever was to take over did not.
    fn serve(&mut self) {
        if let Some(leaving) = self.giving.leaving.take() {
            leaving.settle(false);
        }
        if let Some(teacher) = self.teacher.take() {
            teacher.resume();
        }
        self.begin_to_accept();
    }

    /// Another worker is ready: it gets the rest of the tables.
    fn seal_for_worker(&self) {
        make_way(&self.shared, &self.console);
        let (link, teacher) = (self.link.clone(), self.teacher.clone());
        tokio::spawn(async move {
            if let Some(teacher) = teacher {
                teacher.seal(None).await;
            }
            if let Some(link) = link {
                link.tell(Frame::Held).await;
            }
        });
    }

    fn on_errand(&mut self, errand: Errand, channel: Channel) -> std::io::Result<()> {
        match (errand, &self.teacher) {
            // The supervisor will hear that nobody is left to teach.
            (Errand::Teach, _) if self.giving.leaving.is_some() || self.phase >= Phase::Drains => {}
            (Errand::Teach, _) => self.teach_worker(channel)?,
            (Errand::Child, _) => Heritage::adopt(&self.shared, channel)?,
            (Errand::Heir, Some(teacher)) => teacher.heir(channel),
            (Errand::TeachAgain, Some(teacher)) if self.phase >= Phase::Drains => {
                teacher.again(channel);
            }
            // What was never handed over stays here.
            (Errand::Heir | Errand::TeachAgain, _) => {}
        }
        Ok(())
    }

    /// Another worker begins. It comes before processes of somebody else.
    fn teach_worker(&mut self, channel: Channel) -> std::io::Result<()> {
        self.giving
            .cancel
            .send_replace("it reloads its configuration");
        let before = self.teacher.take();
        self.teaches_stranger = false;
        let teacher = Teacher::start(&self.shared, channel, before, None)?;
        self.teacher = Some(Arc::new(teacher));
        Ok(())
    }

    /// Another worker serves.
    fn drain_for_worker(&mut self, orphans: Vec<u64>) {
        if let Some(teacher) = &self.teacher {
            teacher.release();
        }
        self.console.door.send_replace(admin::Door::Closed);
        peers::leave(&self.shared);
        self.drain(Successor::Process {
            orphans: orphans.into(),
        });
        let (shared, link) = (Arc::clone(&self.shared), self.link.clone());
        let giving = self.giving.stopped.take();
        tokio::spawn(async move {
            if let Some(giving) = giving {
                let _ = giving.await;
            }
            closed(&shared).await;
            if let Some(link) = link {
                link.tell(Frame::Closed).await;
            }
        });
    }

    /// The supervisor is gone: finishes what runs.
    fn on_orphaned(&mut self) {
        self.orphaned = true;
        self.lingers = false;
        warn!("the supervisor is gone: finishing what runs.");
        if let Some(Parting { orphans, .. }) = self.giving.parting.take() {
            return self.drain(Successor::Process { orphans });
        }
        if let Some(teacher) = self.teacher.as_ref().filter(|_| self.phase < Phase::Drains) {
            // Nobody will say any more what becomes of a hand-over. A worker of the same supervisor that has everything
            // ends too, after this one; a stranger gives up.
            if self.teaches_stranger {
                teacher.resume();
            } else {
                teacher.release();
                teacher.last();
            }
        }
        self.drain(Successor::None);
    }
}
