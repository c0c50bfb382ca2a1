//! The channels to the workers: one task reads, another writes, so that neither side can block the other.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;

use super::machine::Id;
use crate::handoff::channel::{Channel, Line, Packet};
use crate::handoff::frames::Frame;

/// What comes from a worker.
#[derive(Debug)]
pub enum Incoming {
    /// A frame.
    Frame(Frame, Vec<OwnedFd>),
    /// It closed its end.
    End,
    /// It does not speak the protocol.
    Broken(String),
}

/// The way to a worker. Its queue is short: a handful of frames for each reload.
#[derive(Debug)]
pub struct Link {
    out: UnboundedSender<Packet>,
    /// Frames that are not sent yet.
    unsent: Rc<Cell<usize>>,
    channel: Rc<Line>,
}

impl Link {
    /// Serves a channel within the current event loop; what comes is sent to `inbox` under this number.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn open(
        id: Id,
        channel: Channel,
        inbox: UnboundedSender<(Id, Incoming)>,
    ) -> io::Result<Link> {
        let channel = Rc::new(Line::new(channel)?);
        let (out, queue) = unbounded_channel();
        spawn_local(read(id, Rc::clone(&channel), inbox));
        let unsent = Rc::new(Cell::new(0));
        spawn_local(write(Rc::clone(&channel), queue, Rc::clone(&unsent)));
        Ok(Link {
            out,
            unsent,
            channel,
        })
    }

    /// Sends, in order. A worker that is gone is noticed elsewhere.
    pub fn send(&self, packet: impl Into<Packet>) {
        self.unsent.set(self.unsent.get() + 1);
        let _ = self.out.send(packet.into());
    }

    /// Whether everything has been sent.
    pub fn is_idle(&self) -> bool {
        self.unsent.get() == 0
    }

    /// The channel itself, for passing it on.
    pub fn channel(&self) -> &Channel {
        self.channel.channel()
    }
}

async fn read(id: Id, channel: Rc<Line>, inbox: UnboundedSender<(Id, Incoming)>) {
    loop {
        let incoming = match channel.recv().await {
            Ok(Some((frame, fds))) => Incoming::Frame(frame, fds),
            // A process that died with frames unread resets the channel.
            Ok(None) => Incoming::End,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Incoming::End,
            Err(e) => Incoming::Broken(e.to_string()),
        };
        let last = !matches!(incoming, Incoming::Frame(..));
        if inbox.send((id, incoming)).is_err() || last {
            return;
        }
    }
}

async fn write(channel: Rc<Line>, mut queue: UnboundedReceiver<Packet>, unsent: Rc<Cell<usize>>) {
    let mut broken = false;
    while let Some(packet) = queue.recv().await {
        broken = broken || channel.send(&packet).await.is_err();
        unsent.set(unsent.get().saturating_sub(1));
    }
}
