//! Taking over from an unrelated process (`-x PATH`, `-sf`, `-st`): the new process asks, and the old one goes on until
//! this one accepts.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};
use tracing::{info, warn};

use super::channel::{Channel, Line, Packet};
use super::directory::Search;
use super::frames::{Frame, Purpose};
use super::giver::stranger;
use super::inherited::{Inherited, Offer};

/// The connection to the process before, and the processes to be stopped.
#[derive(Debug, Default)]
pub struct Taker {
    channel: Option<Channel>,
    /// Over which that one shows its tables.
    tables: Option<Channel>,
    /// Somebody replaces that one when it dies.
    guarded: bool,
    /// Numbers of what that process listens on.
    there: Vec<u64>,
    finish: Vec<Pid>,
    terminate: Vec<Pid>,
    /// The one that was asked, or should have been, has ended.
    gone: bool,
    /// These make room.
    asked: AtomicBool,
}

impl Taker {
    /// Of a process that is to stop these.
    pub fn new(finish: &[i32], terminate: &[i32]) -> Taker {
        let pids = |all: &[i32]| all.iter().filter_map(|pid| Pid::from_raw(*pid)).collect();
        let mut taker = Taker::default();
        taker.finish = pids(finish);
        taker.terminate = pids(terminate);
        taker
    }

    /// Receives what the process at this socket listens on. `handoff`: its hand-off socket, too.
    ///
    /// # Errors
    /// Nobody offers sockets there, or not to this user, or not in a version that is understood.
    pub fn ask(&mut self, path: &Path, pool: &mut Inherited, handoff: bool) -> io::Result<()> {
        let asked = self.ask_at(path, pool, handoff);
        self.gone |= asked.is_ok() && self.channel.is_none();
        asked
    }

    fn ask_at(&mut self, path: &Path, pool: &mut Inherited, handoff: bool) -> io::Result<()> {
        match connect(path) {
            Ok(channel) => match self.ask_over(channel, path, pool, handoff, PATIENCE) {
                // Its socket is in this process's hands: nobody else is there to answer.
                Err(e)
                    if e.kind() == io::ErrorKind::TimedOut && pool.handoffs().next().is_some() =>
                {
                    warn!(
                        "{}: {e}; beginning with the sockets that it gave.",
                        path.display()
                    );
                    Ok(())
                }
                Err(e) if is_end(&e) && nobody_answers(path) => {
                    warn!("{}: {e}; beginning without it.", path.display());
                    Ok(())
                }
                asked => asked,
            },
            Err(e) if is_gone(&e) && !pool.is_empty() => {
                warn!(
                    "{}: {e}; beginning with the sockets that it gave.",
                    path.display()
                );
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// The same for the newest process of a directory, if there is one.
    ///
    /// # Errors
    /// As there.
    pub fn find(&mut self, search: &Search, pool: &mut Inherited) -> io::Result<()> {
        loop {
            let (channel, path) = match search.newest() {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.gone |= search.found_dead();
                    return Ok(());
                }
                Err(e) if is_passing(&e) && !search.left().is_zero() => {
                    search.pause();
                    continue;
                }
                Err(e) => return Err(e),
            };
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
            if channel.waits(SHORT_PATIENCE).map_err(named)? {
                info!("waiting for the process at {}.", path.display());
            }
            match self.ask_over(channel, &path, pool, false, search.left()) {
                Ok(()) => {
                    info!("taking over from the process at {}.", path.display());
                    return Ok(());
                }
                // Another process was faster, or it ends, or it is reloading.
                Err(e) if is_passing(&e) && !search.left().is_zero() => {
                    self.gone |= is_end(&e);
                    search.pause();
                }
                Err(e) => return Err(named(e)),
            }
        }
    }

    fn ask_over(
        &mut self,
        channel: Channel,
        path: &Path,
        pool: &mut Inherited,
        handoff: bool,
        patience: Duration,
    ) -> io::Result<()> {
        if let Some(who) = stranger(channel.as_fd())? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("this socket belongs to {who}"),
            ));
        }
        let (tables, theirs) = Channel::pair()?;
        for packet in [Frame::hello().into(), Packet::with(Frame::Take, theirs)] {
            match channel.send(&packet, PATIENCE) {
                // It may have said why before it hung up.
                Err(e) if is_passing(&e) => {}
                other => other?,
            }
        }
        let mut all = Vec::new();
        let begin = loop {
            match channel.recv(patience) {
                Ok(Some((Frame::Hello(hello), _))) => {
                    hello.agree().map_err(io::Error::other)?;
                }
                Ok(Some((Frame::Listeners(infos), fds))) => all.extend(infos.into_iter().zip(fds)),
                Ok(Some((Frame::Begin(begin), _))) => break Some(begin),
                Ok(Some(other)) => return Err(refusal(Some(other))),
                // Whether somebody replaces it was not said.
                Ok(None) if all.is_empty() || !nobody_answers(path) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "it hung up: another user's, or on its way out",
                    ));
                }
                Ok(None) => break None,
                Err(e) if is_end(&e) && !all.is_empty() && nobody_answers(path) => break None,
                Err(e) => return Err(e),
            }
        };
        self.there = all.iter().map(|(info, _)| info.id).collect();
        all.retain(|(info, _)| handoff || info.purpose != Purpose::HandOff);
        let (infos, fds) = all.into_iter().unzip();
        pool.accompanied = true;
        pool.add(infos, fds);
        match begin {
            Some(begin) => {
                self.guarded = begin.guarded;
                self.channel = Some(channel);
                self.tables = Some(tables);
            }
            None => {
                warn!("the process before has ended: beginning with the sockets that it gave.");
            }
        }
        Ok(())
    }

    /// Whether there is anybody to follow.
    pub fn is_idle(&self) -> bool {
        self.channel.is_none() && self.finish.is_empty() && self.terminate.is_empty()
    }

    /// Whether addresses that are taken may become free when processes are asked: they give no sockets.
    pub fn can_ask_for_room(&self) -> bool {
        self.channel.is_none() && !self.is_idle()
    }

    /// Whether a process that this one should have taken over from, or should stop, has ended, and nobody gives sockets: those of the
    /// dead become free when the kernel, or its workers, have let go of them.
    pub fn is_bereft(&self) -> bool {
        let mut all = self.finish.iter().chain(&self.terminate);
        let ended =
            |pid: &Pid| rustix::process::test_kill_process(*pid) == Err(rustix::io::Errno::SRCH);
        self.channel.is_none() && (self.gone || all.any(ended))
    }

    /// Asks the processes that are to be stopped to refuse connections: without `-x` their addresses are not free otherwise.
    /// They are asked to accept them again if this process goes before it has stopped them.
    pub fn ask_for_room(&self) {
        self.asked.store(true, Relaxed);
        self.signal_others(Signal::TTOU);
    }

    fn signal_others(&self, signal: Signal) {
        for pid in self.finish.iter().chain(&self.terminate) {
            let _ = rustix::process::kill_process(*pid, signal);
        }
    }

    /// Takes out the channel over which the other process shows its tables.
    pub fn tables(&mut self) -> Option<Channel> {
        self.tables.take()
    }

    /// Whether nobody replaces the process that gives its sockets, should it die.
    pub fn is_unguarded(&self) -> bool {
        self.channel.is_some() && !self.guarded
    }

    /// To be called when the tables of an unguarded process do not come any more: if it is dead, this one follows nobody from
    /// here on.
    ///
    /// # Errors
    /// It lives, or may do so.
    pub fn bury(&mut self) -> io::Result<()> {
        let Some(channel) = &self.channel else {
            return Ok(());
        };
        match channel.recv(PATIENCE) {
            Ok(None) if !self.guarded => {}
            Err(e) if is_end(&e) && !self.guarded => {}
            Ok(other) => return Err(refusal(other)),
            Err(e) => return Err(e),
        }
        self.channel = None;
        Ok(())
    }

    /// Whether a process gives its sockets, and goes on if this one does not take them.
    pub fn follows(&self) -> bool {
        self.channel.is_some()
    }

    /// This process is ready, and will accept when this has succeeded: the other one hands over the rest
    /// of its tables, and then everything. `complete`: what it knows has arrived. `kin`: goes to the other process.
    /// `alone`: nobody replaces this one. If that one
    /// is found dead and nobody replaces it, this succeeds, too, whether everything has arrived or not.
    ///
    /// # Errors
    /// The other process goes on, or may do so: this one must not accept.
    pub async fn take(
        &mut self,
        offer: &Offer,
        kin: OwnedFd,
        alone: bool,
        complete: impl Future<Output = bool>,
    ) -> io::Result<Vec<OwnedFd>> {
        let Some(channel) = self.channel.take() else {
            return Ok(Vec::new());
        };
        let mut orphans = std::mem::take(&mut self.there);
        orphans.sort_unstable();
        orphans.dedup();
        orphans.retain(|id| !offer.iter().any(|(info, _)| info.id == *id));
        let line = Line::new(channel.try_clone()?)?;
        let steps = async {
            line.send(&Packet::with(Frame::Hold, kin)).await?;
            expect(&line, &Frame::Held).await?;
            if !complete.await {
                // If that is because it is dead, this shows here; otherwise it says why.
                line.recv().await.and_then(|answer| Err(refusal(answer)))?;
            }
            line.send(&Frame::Drain { orphans, alone }.into()).await
        };
        match tokio::time::timeout(STEP_PATIENCE, steps)
            .await
            .unwrap_or_else(|_| Err(silent()))
        {
            Err(e) if is_end(&e) && !self.guarded => return self.dead(&line).await,
            done => done?,
        }
        let mut relatives = Vec::new();
        let answer = tokio::time::timeout(STEP_PATIENCE, async {
            loop {
                match line.recv().await {
                    Ok(Some((Frame::Kin, fds))) => relatives.extend(fds),
                    other => break other,
                }
            }
        })
        .await;
        let answer = answer.unwrap_or_else(|_| {
            // From here on it cannot say it any more; it may just have.
            channel.shut();
            loop {
                match channel.try_recv() {
                    Ok(Some((Frame::Kin, fds))) => relatives.extend(fds),
                    Ok(None) => break Err(silent()),
                    other => break other,
                }
            }
        });
        match answer {
            Ok(Some((Frame::Yours, _))) => Ok(relatives),
            // Dead, and nobody will stand in for it: this process knows all that it knew.
            Ok(None) if !self.guarded => Ok(relatives),
            Err(e) if is_end(&e) && !self.guarded => Ok(relatives),
            Ok(other) => Err(refusal(other)),
            Err(e) => Err(e),
        }
    }

    /// It is, unless it has said something else before it hung up.
    async fn dead(&self, line: &Line) -> io::Result<Vec<OwnedFd>> {
        match line.recv().await {
            Ok(None) => Ok(Vec::new()),
            Err(e) if is_end(&e) => Ok(Vec::new()),
            Ok(other) => Err(refusal(other)),
            Err(e) => Err(e),
        }
    }

    /// This process accepts: those who were to be stopped finish, or end.
    pub fn stop_others(&self) {
        self.asked.store(false, Relaxed);
        for (pids, signal) in [
            (&self.finish, Signal::USR1),
            (&self.terminate, Signal::TERM),
        ] {
            for pid in pids {
                if let Err(e) = rustix::process::kill_process(*pid, signal)
                    && e != rustix::io::Errno::SRCH
                {
                    warn!("cannot stop process {}: {e}", pid.as_raw_nonzero());
                }
            }
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        if *self.asked.get_mut() {
            self.signal_others(Signal::TTIN);
        }
    }
}

fn refusal(answer: Option<(Frame, Vec<OwnedFd>)>) -> io::Error {
    match answer {
        Some((Frame::Sorry(why), _)) => {
            io::Error::new(io::ErrorKind::ResourceBusy, format!("it goes on: {why}"))
        }
        Some((other, _)) => io::Error::other(format!("unexpected {other:?}")),
        None => io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"),
    }
}

/// Waits for this answer.
async fn expect(line: &Line, wanted: &Frame) -> io::Result<()> {
    match line.recv().await? {
        Some((frame, _)) if frame == *wanted => Ok(()),
        other => Err(refusal(other)),
    }
}

/// The other side has hung up.
fn is_end(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Whether no process is there to say the first word.
fn nobody_answers(path: &Path) -> bool {
    match connect(path) {
        Ok(channel) => match channel.recv(SHORT_PATIENCE) {
            Ok(None) => true,
            Ok(Some(_)) => false,
            Err(e) => is_end(&e),
        },
        Err(e) => is_gone(&e),
    }
}

/// Nobody listens there.
fn is_gone(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Another attempt may find another process, or the same in a better mood.
fn is_passing(e: &io::Error) -> bool {
    is_end(e) || e.kind() == io::ErrorKind::ResourceBusy
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}

/// Connects to a hand-off socket.
pub(super) fn connect(path: &Path) -> io::Result<Channel> {
    let fd: OwnedFd = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    match rustix::net::connect(&fd, &SocketAddrUnix::new(path)?) {
        Ok(()) => Channel::new(fd),
        Err(rustix::io::Errno::PROTOTYPE) => Err(io::Error::other(
            "this is not the 'handoff' socket of a Remora process (a 'stats socket' does not serve)",
        )),
        Err(rustix::io::Errno::AGAIN) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "others wait for it already",
        )),
        Err(e) => Err(e.into()),
    }
}

/// After so long it is said whom this process waits for.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// How long the other process may take for one step.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same when it has to stop accepting and to hand over the rest. It waits as long for this one.
const STEP_PATIENCE: Duration = Duration::from_secs(10);
