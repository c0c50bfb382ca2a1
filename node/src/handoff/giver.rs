//! Offering this process's listening sockets to the next one (`handoff PATH` in `global`).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::net::{SocketFlags, SocketType};
use rustix::process::geteuid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

use super::channel::{Channel, Line, Packet};
use super::frames::{Begin, Frame, ListenerInfo, Purpose, Where};
use super::inherited::{self, Inherited, Offer};
use crate::proxy::listen::unix_socket;

/// What a successor asks for.
#[derive(Debug)]
pub enum Wish {
    /// Stop accepting; say when.
    Hold(oneshot::Sender<()>),
    /// It did not take over: accept again.
    Resume,
    /// It accepts.
    Drain {
        /// Listening sockets that nobody took over.
        orphans: Vec<u64>,
    },
}

/// Opens the socket, or takes it from `pool`, and adds it to `offer`.
///
/// # Errors
/// A message: it cannot be opened, or anybody could put another one in its place.
pub fn open(path: &str, pool: &mut Inherited, offer: &mut Offer) -> Result<Arc<OwnedFd>, String> {
    let place = |file| Where::Unix {
        path: path.to_owned(),
        file,
        rights: (Some(MODE), None, None),
    };
    let dir = Path::new(path)
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    let mode = std::fs::metadata(dir).map(|m| std::os::unix::fs::MetadataExt::mode(&m));
    match mode {
        Ok(mode) if mode & 0o002 != 0 => {
            return Err(format!(
                "'handoff {path}': everybody may write to its directory, and so put another socket in its place."
            ));
        }
        Ok(_) => {}
        Err(e) => return Err(format!("'handoff {path}': its directory: {e}")),
    }
    let adopted = pool.adopt(Purpose::HandOff, &place((0, 0)));
    let id = adopted.as_ref().map_or_else(inherited::fresh_id, |a| a.id);
    let fd = match adopted.and_then(|mut a| a.fds.pop()) {
        Some(fd) => fd,
        None => unix_socket(
            SocketType::SEQPACKET,
            Path::new(path),
            Some(MODE),
            None,
            None,
            BACKLOG,
        )
        .map_err(|e| format!("'handoff {path}': {e}"))?,
    };
    let fd = Arc::new(fd);
    let info = ListenerInfo {
        id,
        purpose: Purpose::HandOff,
        at: place(inherited::file_of(Path::new(path)).unwrap_or_default()),
    };
    offer.push((info, Arc::clone(&fd)));
    Ok(fd)
}

/// Accepts and serves successors, one at a time, until dropped. Must run in an event loop.
pub async fn serve(fd: Arc<OwnedFd>, offer: Offer, wishes: UnboundedSender<Wish>) {
    let readiness = rustix::io::fcntl_dupfd_cloexec(&fd, 3)
        .map_err(io::Error::from)
        .and_then(|fd| UnixStream::from_std(fd.into()));
    let readiness = match readiness {
        Ok(readiness) => readiness,
        Err(e) => {
            warn!("the 'handoff' socket cannot be served: {e}");
            return;
        }
    };
    loop {
        let accept = || {
            rustix::net::accept_with(&fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
                .map_err(io::Error::from)
        };
        let served = match readiness.async_io(Interest::READABLE, accept).await {
            Ok(fd) => successor(fd, &offer, &wishes).await,
            Err(e) => Err(e),
        };
        if let Err(e) = served {
            warn!("a hand-over failed: {e}");
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }
}

async fn successor(fd: OwnedFd, offer: &Offer, wishes: &UnboundedSender<Wish>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&fd)?;
    if peer.uid != geteuid() && !peer.uid.is_root() {
        return Err(io::Error::other(format!(
            "process {} of user {} must not take over",
            peer.pid.as_raw_nonzero(),
            peer.uid.as_raw()
        )));
    }
    let line = Line::new(Channel::new(fd)?)?;
    line.send(&Frame::hello().into()).await?;
    let held = AtomicBool::new(false);
    let done = talk(&line, offer, wishes, &held).await;
    if held.load(Relaxed) && !matches!(done, Ok(true)) {
        info!("the process that wanted to take over is gone; this one goes on.");
        let _ = wishes.send(Wish::Resume);
    }
    done.map(drop)
}

/// Whether the other process has taken over.
async fn talk(
    line: &Line,
    offer: &Offer,
    wishes: &UnboundedSender<Wish>,
    held: &AtomicBool,
) -> io::Result<bool> {
    loop {
        // Reading its configuration takes time; between `Hold` and `Drain` nobody accepts.
        let patience = if held.load(Relaxed) {
            STEP_MAX
        } else {
            START_MAX
        };
        let Some((frame, _)) = timeout(patience, line.recv()).await.map_err(|_| {
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
                for packet in Packet::listeners(offer) {
                    line.send(&packet).await?;
                }
                line.send(&Frame::Begin(Begin::default()).into()).await?;
            }
            Frame::Hold => {
                held.store(true, Relaxed);
                let (done, when) = oneshot::channel();
                let _ = wishes.send(Wish::Hold(done));
                let _ = when.await;
                line.send(&Frame::Held.into()).await?;
            }
            Frame::Drain { orphans } => {
                let _ = wishes.send(Wish::Drain { orphans });
                return Ok(true);
            }
            other => return Err(io::Error::other(format!("unexpected {other:?}"))),
        }
    }
}

/// Only its owner and root may connect.
const MODE: u32 = 0o600;
const BACKLOG: i32 = 4;
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
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
        let fd = open(
            path.to_str().unwrap(),
            &mut Inherited::default(),
            &mut offer,
        )
        .unwrap();
        let (to_wishes, wishes) = unbounded_channel();
        tokio::spawn(serve(fd, offer, to_wishes));
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
        assert!(matches!(next(&mut wishes).await, Wish::Resume));
    }

    #[tokio::test]
    async fn a_successor_that_has_taken_over_may_go() {
        let (_dir, channel, mut wishes) = offered();
        let line = Line::new(channel).unwrap();
        takes(&line).await;
        line.send(&Frame::Drain { orphans: vec![3] }.into())
            .await
            .unwrap();
        assert!(matches!(next(&mut wishes).await, Wish::Drain { orphans } if orphans == [3]));
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
