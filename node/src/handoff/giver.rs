//! Offering this process's listening sockets to the next one (`handoff PATH` in `global`).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::net::{SocketFlags, SocketType};
use rustix::process::geteuid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::channel::{Channel, Line, Packet};
use super::directory;
use super::frames::{Begin, Frame, ListenerInfo, Purpose, Where};
use super::inherited::{self, Inherited, Offer};
use crate::health::Turn;
use crate::proxy::listen::unix_socket;

/// What a successor asks for, and what else comes from other processes.
#[derive(Debug)]
pub enum Wish {
    /// Show the tables over this channel. The answer: what ends when that has come to nothing, or why it cannot be now.
    Teach(
        Channel,
        oneshot::Sender<Result<oneshot::Receiver<()>, String>>,
    ),
    /// Show the rest of the tables; say when.
    Hold(oneshot::Sender<()>),
    /// It did not take over. `held`: after [`Wish::Hold`].
    Resume {
        /// See there.
        held: bool,
    },
    /// It is ready to accept.
    Leave(Leave),
    /// From elsewhere: ways to processes that drain.
    Ways(Vec<Channel>),
}

/// See [`Wish::Leave`].
#[derive(Debug)]
pub struct Leave {
    /// Listening sockets that it did not take over.
    pub orphans: Vec<u64>,
    /// Nobody replaces it if it dies.
    pub alone: bool,
    /// Over which it, or its supervisor, will say who serves.
    pub kin: Option<Channel>,
    /// Where to tell it that everything is its own.
    pub to: Channel,
    /// Whether it has been told.
    pub decided: oneshot::Sender<bool>,
}

/// Opens the socket, or takes it from `pool`, and adds it to `offer`. Returns it and its path.
///
/// # Errors
/// A message: it cannot be opened, or anybody could put another one in its place.
pub fn open(
    path: &str,
    pool: &mut Inherited,
    offer: &mut Offer,
) -> Result<(Arc<OwnedFd>, PathBuf), String> {
    let dir = if directory::is_directory(path) {
        Some(Path::new(path))
    } else {
        Path::new(path).parent()
    };
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    directory::check(path, dir)?;
    let place = |path: &str, file| Where::Unix {
        path: path.to_owned(),
        file,
        rights: (Some(MODE), None, None),
    };
    let name = match directory::is_directory(path) {
        true => pool
            .handoff_in(path)
            .unwrap_or_else(|| directory::socket_in(path)),
        false => path.to_owned(),
    };
    let adopted = pool.adopt(Purpose::HandOff, &place(&name, (0, 0)));
    let id = adopted.as_ref().map_or_else(inherited::fresh_id, |a| a.id);
    let fd = match adopted.and_then(|mut a| a.fds.pop()) {
        Some(fd) => fd,
        None => unix_socket(
            SocketType::SEQPACKET,
            Path::new(&name),
            Some(MODE),
            None,
            None,
            BACKLOG,
        )
        .map_err(|e| format!("'handoff {path}': {e}.{}", directory::missing_right(dir)))?,
    };
    let fd = Arc::new(fd);
    let info = ListenerInfo {
        id,
        purpose: Purpose::HandOff,
        at: place(
            &name,
            inherited::file_of(Path::new(&name)).unwrap_or_default(),
        ),
    };
    offer.push((info, Arc::clone(&fd)));
    Ok((fd, name.into()))
}

/// What is offered, and to whom wishes go.
#[derive(Clone, Debug)]
pub struct Giver {
    /// The `handoff` socket.
    pub fd: Arc<OwnedFd>,
    /// All listening sockets.
    pub offer: Offer,
    /// This process is replaced when it dies.
    pub guarded: bool,
    /// To the main thread.
    pub wishes: UnboundedSender<Wish>,
    /// Changes when whoever is being served must go.
    pub cancelled: watch::Receiver<&'static str>,
    /// Only while it is this process's turn it has anything to give.
    pub turns: watch::Receiver<Turn>,
}

/// Accepts and serves successors, one at a time, until dropped. Must run in an event loop.
pub async fn serve(mut giver: Giver) {
    let readiness = rustix::io::fcntl_dupfd_cloexec(&giver.fd, 3)
        .map_err(io::Error::from)
        .and_then(|fd| UnixStream::from_std(fd.into()));
    let readiness = match readiness {
        Ok(readiness) => readiness,
        Err(e) => {
            warn!("the 'handoff' socket cannot be served: {e}");
            return;
        }
    };
    let listening = Arc::clone(&giver.fd);
    let mut silent = Silent::default();
    loop {
        let accept = || {
            rustix::net::accept_with(&listening, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
                .map_err(io::Error::from)
        };
        if giver
            .turns
            .wait_for(|turn| *turn == Turn::Own)
            .await
            .is_err()
        {
            return;
        }
        let asks = tokio::select! {
            biased;
            Ok(()) = giver.turns.changed() => continue,
            accepted = readiness.async_io(Interest::READABLE, accept) => {
                accepted.and_then(|fd| silent.greet(fd))
            }
            channel = silent.speaks() => Ok(Some(channel)),
        };
        let served = match asks {
            Ok(Some(channel)) => giver.successor(channel).await,
            Ok(None) => continue,
            Err(e) => Err(e),
        };
        if let Err(e) = served {
            warn!("a hand-over failed: {e}");
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }
}

/// Connections that have said nothing yet: who only connects must not keep others from taking over.
#[derive(Default)]
struct Silent(Vec<(Channel, Instant)>);

impl Silent {
    /// Says the first word over a new connection. `None`: it is kept until it answers.
    fn greet(&mut self, fd: OwnedFd) -> io::Result<Option<Channel>> {
        let channel = Channel::new(fd)?;
        if let Some(why) = stranger(channel.as_fd())? {
            let why = format!("{why} must not take over");
            let _ = channel.try_send(&Frame::Sorry(why.clone()).into());
            return Err(io::Error::other(why));
        }
        channel.try_send(&Frame::hello().into())?;
        if !channel.waits(Duration::ZERO)? {
            return Ok(Some(channel));
        }
        if self.0.len() >= SILENT_MAX {
            self.0.remove(0);
        }
        self.0.push((channel, Instant::now()));
        Ok(None)
    }

    /// Completes when one speaks, or has hung up.
    async fn speaks(&mut self) -> Channel {
        loop {
            self.0.retain(|(_, since)| since.elapsed() < SILENCE_MAX);
            let speaks =
                |(channel, _): &(Channel, Instant)| !channel.waits(Duration::ZERO).unwrap_or(false);
            if let Some(at) = self.0.iter().position(speaks) {
                return self.0.remove(at).0;
            }
            if self.0.is_empty() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(SILENCE_PAUSE).await;
        }
    }
}

impl Giver {
    async fn successor(&mut self, channel: Channel) -> io::Result<()> {
        let line = Line::new(channel)?;
        // How far it has come.
        let (asked, held) = (AtomicBool::new(false), AtomicBool::new(false));
        self.cancelled.borrow_and_update();
        let mut cancelled = self.cancelled.clone();
        let done = tokio::select! {
            biased;
            Ok(()) = cancelled.changed() => Err(io::Error::other(*cancelled.borrow_and_update())),
            done = self.talk(&line, &asked, &held) => done,
        };
        if !matches!(done, Ok(true)) {
            // It must not take this end for a death.
            let why = match &done {
                Err(e) => e.to_string(),
                Ok(_) => "it could not let go".to_owned(),
            };
            let _ = line.channel().try_send(&Frame::Sorry(why).into());
        }
        if asked.load(Relaxed) && !matches!(done, Ok(true)) {
            let held = held.load(Relaxed);
            if held {
                info!("the process that wanted to take over does not; this one goes on.");
            }
            let _ = self.wishes.send(Wish::Resume { held });
        }
        done.map(drop)
    }

    /// Whether the other process has taken over.
    async fn talk(&self, line: &Line, asked: &AtomicBool, held: &AtomicBool) -> io::Result<bool> {
        let mut kin = None;
        let mut taught = None;
        loop {
            // Reading its configuration takes time; between `Hold` and `Drain` the tables are sealed.
            let patience = if held.load(Relaxed) {
                STEP_MAX
            } else {
                START_MAX
            };
            let received = tokio::select! {
                biased;
                received = timeout(patience, line.recv()) => received,
                () = over(&mut taught) => {
                    return Err(io::Error::other("it could not be given the tables"));
                }
            };
            let Some((frame, mut fds)) = received.map_err(|_| {
                io::Error::other("the process that wanted to take over does not go on")
            })??
            else {
                return Ok(false);
            };
            match frame {
                Frame::Hello(hello) => {
                    hello.agree().map_err(io::Error::other)?;
                }
                Frame::Take => {
                    asked.store(true, Relaxed);
                    if let Some(fd) = fds.pop() {
                        let (answer, answered) = oneshot::channel();
                        let _ = self.wishes.send(Wish::Teach(Channel::new(fd)?, answer));
                        let answer = answered.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                        taught = Some(answer.map_err(io::Error::other)?);
                    }
                    for packet in Packet::listeners(&self.offer) {
                        line.send(&packet).await?;
                    }
                    let begin = Begin {
                        guarded: self.guarded,
                        ..Begin::default()
                    };
                    line.send(&Frame::Begin(begin).into()).await?;
                }
                Frame::Hold => {
                    held.store(true, Relaxed);
                    kin = fds.pop().map(Channel::new).transpose()?;
                    let (done, when) = oneshot::channel();
                    let _ = self.wishes.send(Wish::Hold(done));
                    let _ = when.await;
                    line.send(&Frame::Held.into()).await?;
                }
                Frame::Drain { orphans, alone } => {
                    let (decided, when) = oneshot::channel();
                    let leave = Leave {
                        orphans,
                        alone,
                        kin: kin.take(),
                        to: line.channel().try_clone()?,
                        decided,
                    };
                    let _ = self.wishes.send(Wish::Leave(leave));
                    return match when.await {
                        Ok(true) => Ok(true),
                        _ => Ok(false),
                    };
                }
                other => return Err(io::Error::other(format!("unexpected {other:?}"))),
            }
        }
    }
}

/// Who is at the other end, unless it is root or this process's user.
///
/// # Errors
/// It is not a UNIX socket.
pub(super) fn stranger(fd: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let peer = getsockopt(&fd, PeerCredentials)?;
    if peer.uid() == geteuid().as_raw() || peer.uid() == 0 {
        return Ok(None);
    }
    // Its process id is 0 in another namespace.
    let (pid, user) = (peer.pid(), peer.uid());
    Ok(Some(format!("process {pid} of user {user}")))
}

/// Completes when the tables will not be given.
async fn over(taught: &mut Option<oneshot::Receiver<()>>) {
    match taught {
        Some(over) => {
            let _ = over.await;
        }
        None => std::future::pending().await,
    }
}

/// Only its owner and root may connect.
const MODE: u32 = 0o600;
const BACKLOG: i32 = 4;
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
/// A successor speaks at once. So many that do not are kept, for so long, and looked at so often.
const SILENT_MAX: usize = 32;
const SILENCE_MAX: Duration = Duration::from_secs(5);
const SILENCE_PAUSE: Duration = Duration::from_millis(5);
/// A successor may take so long to start, and for every step afterwards.
const START_MAX: Duration = Duration::from_secs(120);
const STEP_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    const SOON: Duration = Duration::from_secs(5);

    /// A successor's channel to a process that offers one socket.
    fn offered() -> (tempfile::TempDir, Channel, UnboundedReceiver<Wish>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut offer = Offer::new();
        let (fd, _) = open(
            path.to_str().unwrap(),
            &mut Inherited::default(),
            &mut offer,
        )
        .unwrap();
        let (to_wishes, wishes) = unbounded_channel();
        let (_, cancelled) = watch::channel("");
        tokio::spawn(serve(Giver {
            fd,
            offer,
            guarded: false,
            wishes: to_wishes,
            cancelled,
            turns: watch::Sender::new(Turn::Own).subscribe(),
        }));
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        (dir, Channel::new(socket).unwrap(), wishes)
    }

    async fn takes(line: &Line) {
        line.send(&Frame::hello().into()).await.unwrap();
        line.send(&Frame::Take.into()).await.unwrap();
        let mut listeners = 0;
        loop {
            match line.recv().await.unwrap().unwrap().0 {
                Frame::Listeners(all) => listeners += all.len(),
                Frame::Begin(_) => break,
                _ => {}
            }
        }
        assert_eq!(listeners, 1);
    }

    async fn next(wishes: &mut UnboundedReceiver<Wish>) -> Wish {
        timeout(SOON, wishes.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_successor_that_dies_leaves_everything_as_it_was() {
        let (_dir, channel, mut wishes) = offered();
        let line = Line::new(channel).unwrap();
        takes(&line).await;
        line.send(&Frame::Hold.into()).await.unwrap();
        let Wish::Hold(done) = next(&mut wishes).await else {
            panic!("it holds first");
        };
        done.send(()).unwrap();
        assert_eq!(line.recv().await.unwrap().unwrap().0, Frame::Held);
        drop(line);
        assert!(matches!(
            next(&mut wishes).await,
            Wish::Resume { held: true }
        ));
    }

    #[tokio::test]
    async fn a_successor_that_has_taken_over_may_go() {
        let (_dir, channel, mut wishes) = offered();
        let line = Line::new(channel).unwrap();
        takes(&line).await;
        line.send(
            &Frame::Drain {
                orphans: vec![3],
                alone: false,
            }
            .into(),
        )
        .await
        .unwrap();
        let Wish::Leave(leave) = next(&mut wishes).await else {
            panic!("it leaves");
        };
        assert_eq!(leave.orphans, [3]);
        leave.to.try_send(&Frame::Yours.into()).unwrap();
        leave.decided.send(true).unwrap();
        assert_eq!(line.recv().await.unwrap().unwrap().0, Frame::Yours);
        drop(line);
        assert!(
            timeout(Duration::from_millis(20), wishes.recv())
                .await
                .is_err()
        );
    }

    #[test]
    fn a_directory_for_everybody_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(dir.path(), all).unwrap();
        let path = dir.path().join("s");
        let error = open(
            path.to_str().unwrap(),
            &mut Inherited::default(),
            &mut Offer::new(),
        );
        assert!(error.unwrap_err().contains("everybody may write"));
    }
}
