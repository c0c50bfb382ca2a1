//! Taking over from an unrelated process (`-x PATH`, `-sf`, `-st`): the new process asks, and the old one goes on until
//! this one accepts.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};
use tracing::warn;

use super::channel::{Channel, Line};
use super::frames::Frame;
use super::inherited::{Inherited, Offer};

/// The connection to the process before, and the processes to be stopped.
#[derive(Debug, Default)]
pub struct Taker {
    channel: Option<Channel>,
    /// Numbers of what that process listens on.
    there: Vec<u64>,
    finish: Vec<Pid>,
    terminate: Vec<Pid>,
}

impl Taker {
    /// Connects to the socket, if one is given, and receives what is listened on there.
    ///
    /// # Errors
    /// Nobody offers sockets there, or not to this user, or not in a version that is understood.
    pub fn begin(
        path: Option<&str>,
        finish: &[i32],
        terminate: &[i32],
        pool: &mut Inherited,
    ) -> io::Result<Taker> {
        let pids = |all: &[i32]| all.iter().filter_map(|pid| Pid::from_raw(*pid)).collect();
        let mut this = Taker {
            channel: None,
            there: Vec::new(),
            finish: pids(finish),
            terminate: pids(terminate),
        };
        let Some(path) = path else { return Ok(this) };
        let channel = connect(Path::new(path))?;
        channel.send(&Frame::hello().into(), PATIENCE)?;
        channel.send(&Frame::Take.into(), PATIENCE)?;
        loop {
            match channel.recv(PATIENCE)? {
                Some((Frame::Hello(hello), _)) => {
                    hello.agree().map_err(io::Error::other)?;
                }
                Some((Frame::Listeners(infos), fds)) => {
                    this.there.extend(infos.iter().map(|info| info.id));
                    pool.accompanied = true;
                    pool.add(infos, fds);
                }
                Some((Frame::Begin(_), _)) => break,
                Some((other, _)) => return Err(io::Error::other(format!("unexpected {other:?}"))),
                None => {
                    return Err(io::Error::other(
                        "it hung up: another user's, on its way out, or busy with another process",
                    ));
                }
            }
        }
        this.channel = Some(channel);
        Ok(this)
    }

    /// Whether there is anybody to follow.
    pub fn is_idle(&self) -> bool {
        self.channel.is_none() && self.finish.is_empty() && self.terminate.is_empty()
    }

    /// Whether addresses that are taken may become free when processes are asked: they give no sockets.
    pub fn can_ask_for_room(&self) -> bool {
        self.channel.is_none() && !self.is_idle()
    }

    /// Asks the processes that are to be stopped to refuse connections, or to accept them again: without `-x` their
    /// addresses are not free otherwise.
    pub fn ask_for_room(&self, yes: bool) {
        for pid in self.finish.iter().chain(&self.terminate) {
            let _ =
                rustix::process::kill_process(*pid, if yes { Signal::TTOU } else { Signal::TTIN });
        }
    }

    /// This process is ready: the other one stops accepting.
    pub async fn hold(&mut self) {
        let Some(channel) = self.channel.take() else {
            return;
        };
        let held = async {
            let line = Line::new(channel.try_clone()?)?;
            line.send(&Frame::Hold.into()).await?;
            match line.recv().await? {
                Some((Frame::Held, _)) => Ok(()),
                other => Err(io::Error::other(format!("unexpected {other:?}"))),
            }
        };
        match tokio::time::timeout(PATIENCE, held).await {
            Ok(Ok(())) => {}
            // Its sockets are shared: both accept until it is told to drain.
            Ok(Err(e)) => warn!("the process before does not stop accepting: {e}"),
            Err(_) => warn!("the process before does not answer; this one begins."),
        }
        self.channel = Some(channel);
    }

    /// This process accepts: the others finish, or end. `offer`: what this process listens on.
    pub fn take(self, offer: &Offer) {
        if let Some(channel) = &self.channel {
            let mut orphans = self.there.clone();
            orphans.sort_unstable();
            orphans.dedup();
            orphans.retain(|id| !offer.iter().any(|(info, _)| info.id == *id));
            if let Err(e) = channel.send(&Frame::Drain { orphans }.into(), PATIENCE) {
                warn!("the process before cannot be told to finish: {e}");
            }
        }
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

fn connect(path: &Path) -> io::Result<Channel> {
    let fd: OwnedFd = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    match rustix::net::connect(&fd, &SocketAddrUnix::new(path)?) {
        Ok(()) => Channel::new(fd),
        Err(rustix::io::Errno::PROTOTYPE) => Err(io::Error::other(
            "this is not the 'handoff' socket of a Remora process (a 'stats socket' does not serve)",
        )),
        Err(e) => Err(e.into()),
    }
}

/// How long the other process may take for one step.
const PATIENCE: Duration = Duration::from_secs(5);
