//! A worker's side of the channel to its supervisor, which is its descriptor 0: blocking while it starts, then part of
//! the main thread's event loop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::warn;

use super::channel::{Channel, Line, Packet};
use super::frames::{Begin, Frame, Reloads, SeenFile, Settings};
use super::inherited::{Inherited, Offer};
use crate::messages;

/// The channel of a worker that starts.
#[derive(Debug)]
pub struct Start {
    channel: Arc<Channel>,
    /// What it was told.
    pub begin: Begin,
    /// The listening sockets it was given.
    pub pool: Inherited,
    /// The channel to the worker that serves, to learn its tables.
    pub learn: Option<Channel>,
    /// That worker served before the one that has died.
    pub again: bool,
}

/// What a worker is told once it runs.
#[derive(Debug)]
pub enum Order {
    /// [`Frame::Go`], [`Frame::Resume`]
    Accept,
    /// [`Frame::Hold`]
    Hold,
    /// [`Frame::Drain`]
    Drain {
        /// Listening sockets that nobody took over.
        orphans: Vec<u64>,
    },
    /// [`Frame::Console`]
    Console {
        /// 0 user, 1 operator, 2 admin.
        level: u8,
        /// The connection.
        fd: OwnedFd,
    },
    /// [`Frame::Teach`], [`Frame::TeachAgain`], [`Frame::Heir`], [`Frame::Child`]
    Tables(Errand, Channel),
    /// [`Frame::Kin`]
    Kin(Channel),
    /// [`Frame::Retire`]
    Retire {
        /// Listening sockets that nobody took over.
        orphans: Vec<u64>,
    },
    /// [`Frame::Reloads`]
    Reloads(Reloads),
    /// [`Frame::Cut`]
    Cut,
    /// The supervisor is gone.
    Gone,
}

/// What a channel to another worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Show the tables to a new worker.
    Teach,
    /// Show them once more: the worker that took over has died.
    TeachAgain,
    /// Tell the worker there what is still counted here.
    Heir,
    /// The worker there tells what it still counts.
    Child,
}

impl Start {
    /// Takes descriptor 0, agrees with the supervisor and receives what it hands over. Messages of this process go to
    /// it, too, until [`Link::served`].
    ///
    /// # Errors
    /// Descriptor 0 is no such channel, or the supervisor has no version in common.
    pub fn open() -> io::Result<Start> {
        let channel = Arc::new(Channel::from_stdin()?);
        channel.send(&Frame::hello().into(), PATIENCE)?;
        let mut pool = Inherited::default();
        let mut learn = None;
        let mut again = false;
        let begin = loop {
            match channel.recv(PATIENCE)? {
                Some((Frame::Hello(hello), _)) => {
                    hello.agree().map_err(io::Error::other)?;
                }
                Some((Frame::Listeners(infos), fds)) => {
                    pool.accompanied = true;
                    pool.add(infos, fds);
                }
                Some((frame @ (Frame::Learn | Frame::LearnAgain), mut fds)) => {
                    again = frame == Frame::LearnAgain;
                    learn = fds.pop().map(Channel::new).transpose()?;
                }
                Some((Frame::Begin(begin), _)) => break begin,
                Some((other, _)) => {
                    return Err(io::Error::other(format!("unexpected {other:?}")));
                }
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        let copies = Arc::clone(&channel);
        messages::copy_to(Some(Box::new(move |text| {
            let _ = copies.send(&Frame::said(text).into(), PATIENCE);
        })));
        Ok(Start {
            channel,
            begin,
            pool,
            learn,
            again,
        })
    }

    /// Reports the files that the configuration was read from.
    pub fn files(&self, files: &[SeenFile]) -> io::Result<()> {
        for some in files.chunks(FILES_PER_FRAME) {
            self.channel
                .send(&Frame::Files(some.to_vec()).into(), PATIENCE)?;
        }
        Ok(())
    }

    /// Reports what this process listens on: its configuration is in order. What goes wrong from here on may be the fault of who
    /// shows it tables.
    ///
    /// # Errors
    /// The supervisor is gone, or does not read.
    pub fn listens(&self, offer: &Offer) -> io::Result<()> {
        for packet in Packet::listeners(offer) {
            self.channel.send(&packet, PATIENCE)?;
        }
        Ok(())
    }

    /// Reports that this process is ready to accept.
    ///
    /// # Errors
    /// The supervisor is gone, or does not read.
    pub fn ready(&self, settings: Settings) -> io::Result<()> {
        self.channel.send(&Frame::Ready(settings).into(), PATIENCE)
    }

    /// The channel as part of an event loop, which must be entered.
    pub fn link(self) -> io::Result<Link> {
        Ok(Link {
            line: Line::new(self.channel.try_clone()?)?,
            detach: self.begin.detach,
            asks: self.begin.asks,
            opened: Notify::new(),
        })
    }
}

/// The channel of a worker that runs.
#[derive(Debug)]
pub struct Link {
    line: Line,
    detach: bool,
    asks: bool,
    /// The answer has come.
    opened: Notify,
}

impl Link {
    /// The next order. May be dropped at any time.
    pub async fn next(&self) -> Order {
        loop {
            return match self.line.recv().await {
                Ok(Some((Frame::Go | Frame::Resume, _))) => Order::Accept,
                Ok(Some((Frame::Open, _))) => {
                    self.opened.notify_one();
                    continue;
                }
                Ok(Some((Frame::Hold, _))) => Order::Hold,
                Ok(Some((Frame::Drain { orphans, .. }, _))) => Order::Drain { orphans },
                Ok(Some((Frame::Cut, _))) => Order::Cut,
                Ok(Some((Frame::Retire { orphans }, _))) => Order::Retire { orphans },
                Ok(Some((Frame::Kin, mut fds))) => match fds.pop().map(Channel::new) {
                    Some(Ok(channel)) => Order::Kin(channel),
                    _ => continue,
                },
                Ok(Some((Frame::Reloads(reloads), _))) => Order::Reloads(reloads),
                Ok(Some((Frame::Console { level }, mut fds))) => match fds.pop() {
                    Some(fd) => Order::Console { level, fd },
                    None => continue,
                },
                Ok(Some((
                    frame @ (Frame::Teach | Frame::TeachAgain | Frame::Heir | Frame::Child),
                    mut fds,
                ))) => {
                    let errand = match frame {
                        Frame::Teach => Errand::Teach,
                        Frame::TeachAgain => Errand::TeachAgain,
                        Frame::Heir => Errand::Heir,
                        _ => Errand::Child,
                    };
                    match fds.pop().map(Channel::new) {
                        Some(Ok(channel)) => Order::Tables(errand, channel),
                        _ => continue,
                    }
                }
                Ok(Some((other, _))) => {
                    warn!("the supervisor says {other:?}, which is not expected now.");
                    continue;
                }
                Ok(None) => Order::Gone,
                Err(e) => {
                    warn!("the channel to the supervisor fails: {e}");
                    Order::Gone
                }
            };
        }
    }

    /// To be called once, when this process has all that it needs: completes when it may accept, while [`Link::next`] is waited
    /// for. A supervisor that is tired of waiting kills it before that, but not any more when it may have served.
    pub async fn opens(&self) {
        if self.asks {
            self.tell(Frame::Opens).await;
            self.opened.notified().await;
        }
    }

    /// Reports that this process accepts. The first time also ends its start: messages are its own from now on.
    pub async fn served(&self) {
        messages::copy_to(None);
        if self.detach {
            let null = std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null");
            messages::settle();
            if let Ok(null) = null {
                let _ = rustix::stdio::dup2_stdout(&null);
                let _ = rustix::stdio::dup2_stderr(&null);
            }
        }
        self.tell(Frame::Serving).await;
    }

    /// Says something. A supervisor that is gone is noticed by [`Link::next`].
    pub async fn tell(&self, what: impl Into<Packet>) {
        let _ = self.line.send(&what.into()).await;
    }
}

/// How long the supervisor may take for one step. It only passes messages on.
const PATIENCE: Duration = Duration::from_secs(30);
/// Paths of at most 4,096 bytes each fit into a frame.
const FILES_PER_FRAME: usize = 15;
