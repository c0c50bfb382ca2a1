//! The main thread's part in hand-overs between unrelated processes: taking over, leaving, and what keeps those that drain
//! in touch with whoever serves.
//!
//! A process that drains tells what it still counts to the one that serves. Within one supervisor that one makes the
//! connections. Everybody else who takes over gives the process before a *way* to itself, or better to its supervisor; over it
//! comes a new connection whenever another process serves ([`Frame::Heir`]). Whoever leaves passes on all ways that it has.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::channel::{Channel, Line, Packet};
use super::frames::Frame;
use super::giver::Leave;
use super::inherited::Offer;
use super::tables::{Heritage, Teacher};
use super::taker::Taker;
use super::worker::Link;
use crate::shared::Shared;

/// The decision whether another process takes over has been asked for.
#[derive(Debug)]
pub struct Leaving {
    /// Nobody replaces the process that takes over.
    alone: bool,
    kin: Option<Channel>,
    decided: oneshot::Sender<bool>,
}

impl Leaving {
    /// Leaves the decision to the supervisor.
    pub async fn ask(leave: Leave, supervisor: &Link) -> Leaving {
        let Leave {
            orphans,
            alone,
            kin,
            to,
            decided,
        } = leave;
        let left = Packet::with(Frame::Left { orphans }, to.into());
        supervisor.tell(left).await;
        Leaving {
            alone,
            kin,
            decided,
        }
    }

    /// Decides it here. `ways`: to processes that drain. Fails if the other process is gone.
    pub fn decide(leave: Leave, ways: &mut Vec<Channel>) -> Result<(Leaving, Vec<u64>), io::Error> {
        // Who has ended needs no way any more.
        ways.retain(lives);
        let leaving = Leaving {
            alone: leave.alone,
            kin: leave.kin,
            decided: leave.decided,
        };
        let mut told = Ok(());
        for way in ways.iter() {
            let way = way.as_fd().try_clone_to_owned();
            told = told.and_then(|()| leave.to.try_send(&Packet::with(Frame::Kin, way?)));
        }
        match told.and_then(|()| leave.to.try_send(&Frame::Yours.into())) {
            Ok(()) => Ok((leaving, leave.orphans)),
            Err(e) => {
                leaving.settle(false);
                Err(e)
            }
        }
    }

    /// Whether the process that takes over has said that it has no supervisor.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// To be called when the process that takes over has ended before it accepted: whether somebody will replace it, which
    /// shows in the way, whose other end lives as long as its supervisor, or as long as itself.
    pub async fn will_be_replaced(&self) -> bool {
        let Some(way) = &self.kin else { return false };
        let until = Instant::now() + END_PATIENCE;
        while Instant::now() < until {
            if way.is_over() {
                return false;
            }
            sleep(END_PAUSE).await;
        }
        true
    }

    /// Whether it takes over. Returns the way over which this process will hear who serves.
    pub fn settle(self, taken: bool) -> Option<Channel> {
        let _ = self.decided.send(taken);
        self.kin.filter(|_| taken)
    }
}

/// This process is ready to accept; when this has succeeded, it may. Returns the ways to processes that drain, if it
/// has no supervisor to keep them.
///
/// # Errors
/// The process before goes on.
pub async fn take_over(
    taker: &mut Taker,
    offer: &Offer,
    shared: &Arc<Shared>,
    supervisor: Option<&Link>,
) -> io::Result<Vec<Channel>> {
    let mut ways = Vec::new();
    if !taker.follows() {
        return Ok(ways);
    }
    // The process before serves as long as this one has to learn from peers.
    shared.ready.wait().await;
    let (ours, theirs) = Channel::pair()?;
    match supervisor {
        Some(link) => {
            let taking = Frame::Taking { sure: false };
            link.tell(Packet::with(taking, ours.into())).await;
        }
        None => ways.push(ours),
    }
    let alone = supervisor.is_none();
    let arrived = shared.heritage.arrived();
    let relatives = taker.take(offer, theirs, alone, arrived).await?;
    if !shared.heritage.arrived().await && !shared.heritage.bereave().await {
        return Err(io::Error::other("its tables have not arrived completely"));
    }
    if let Some(link) = supervisor {
        link.tell(Frame::Taking { sure: true }).await;
    }
    for fd in relatives {
        match supervisor {
            Some(link) => link.tell(Packet::with(Frame::Kin, fd)).await,
            None => match adopt(shared, fd) {
                Ok(way) => ways.push(way),
                Err(e) => warn!("cannot hear what a process that drains still counts: {e}"),
            },
        }
    }
    Ok(ways)
}

/// Whether there is still a process at the other end.
fn lives(way: &Channel) -> bool {
    loop {
        match way.try_recv() {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// Tells a process that drains that this one serves.
fn adopt(shared: &Arc<Shared>, fd: OwnedFd) -> io::Result<Channel> {
    let way = Channel::new(fd)?;
    let (ours, theirs) = Channel::pair()?;
    way.try_send(&Packet::with(Frame::Heir, theirs))?;
    Heritage::adopt(shared, ours)?;
    Ok(way)
}

/// Passes on what comes over a way: who serves.
pub async fn follow(way: Channel, teacher: Arc<Teacher>) {
    let Ok(line) = Line::new(way) else { return };
    while let Ok(Some((frame, mut fds))) = line.recv().await {
        let Some(Ok(channel)) = fds.pop().map(Channel::new) else {
            continue;
        };
        match frame {
            Frame::Heir => teacher.heir(channel),
            Frame::TeachAgain => teacher.again(channel),
            _ => {}
        }
    }
}

/// The descriptors of a process that has ended are closed one after the other.
const END_PATIENCE: Duration = Duration::from_millis(500);
const END_PAUSE: Duration = Duration::from_millis(10);
