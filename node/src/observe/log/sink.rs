//! Where log lines go. Streams are written in batches, datagrams one per line. A target that fails loses its lines and
//! they are counted; it is tried again with the next line.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use remora_config::plan::LogSink;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fds;

/// The open targets, each once however many `log` lines name it.
#[derive(Default)]
pub(super) struct Sinks {
    open: Vec<(LogSink, Sink)>,
}

impl Sinks {
    /// Position of the sink, opened if it was not yet.
    pub(super) fn open(&mut self, what: &LogSink) -> Result<usize, String> {
        if let Some(at) = self.open.iter().position(|(s, _)| s == what) {
            return Ok(at);
        }
        let sink = Sink::open(what).map_err(|e| format!("cannot open log target {what:?}: {e}"))?;
        self.open.push((what.clone(), sink));
        Ok(self.open.len() - 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Hands a complete line over; returns how many lines were lost doing so.
    pub(super) fn send(&mut self, sink: usize, line: &[u8]) -> u64 {
        self.open.get_mut(sink).map_or(1, |(_, s)| s.send(line))
    }

    /// Writes what streams have gathered; returns how many lines were lost.
    pub(super) fn flush(&mut self) -> u64 {
        self.open.iter_mut().map(|(_, s)| s.flush()).sum()
    }
}

enum Sink {
    Stream { fd: Stream, gathered: Vec<u8> },
    Udp { socket: UdpSocket, to: SocketAddr },
    Unix { socket: UnixDatagram, path: String },
}

enum Stream {
    Stdout,
    Stderr,
    Owned(OwnedFd),
}

impl Sink {
    fn open(what: &LogSink) -> io::Result<Sink> {
        let stream = |fd| Sink::Stream {
            fd,
            gathered: Vec::new(),
        };
        Ok(match what {
            LogSink::Stdout => stream(Stream::Stdout),
            LogSink::Stderr => stream(Stream::Stderr),
            LogSink::Fd(n) => stream(Stream::Owned(fds::adopt(*n)?)),
            LogSink::Udp(to) => {
                let any: SocketAddr = match to {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                // Not connected: a syslog server that is down would answer with errors for lines sent before.
                Sink::Udp { socket, to: *to }
            }
            LogSink::UnixDgram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                // A failure is not one of start-up: the syslog daemon may come later.
                let _ = socket.connect(path);
                Sink::Unix {
                    socket,
                    path: path.clone(),
                }
            }
        })
    }

    fn send(&mut self, line: &[u8]) -> u64 {
        let sent = match self {
            Sink::Stream { gathered, .. } => {
                gathered.extend_from_slice(line);
                return if gathered.len() >= GATHER_BYTES {
                    self.flush()
                } else {
                    0
                };
            }
            Sink::Udp { socket, to } => socket.send_to(line, *to).is_ok(),
            Sink::Unix { socket, path } => {
                // The connected form survives a chroot; the named one a restart of the syslog daemon.
                socket.send(line).is_ok()
                    || (socket.connect(&*path).is_ok() && socket.send(line).is_ok())
            }
        };
        u64::from(!sent)
    }

    fn flush(&mut self) -> u64 {
        let Sink::Stream { fd, gathered } = self else {
            return 0;
        };
        if gathered.is_empty() {
            return 0;
        }
        let written = write_all(fd.borrow(), gathered);
        let lost = gathered
            .get(written..)
            .unwrap_or_default()
            .iter()
            .filter(|b| **b == b'\n')
            .count() as u64;
        gathered.clear();
        lost
    }
}

impl Stream {
    fn borrow(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Stdout => rustix::stdio::stdout(),
            Stream::Stderr => rustix::stdio::stderr(),
            Stream::Owned(fd) => fd.as_fd(),
        }
    }
}

/// Writes as much as the descriptor takes; waits a moment for one that somebody made non-blocking.
fn write_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> usize {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
        match rustix::io::write(fd, rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut wait = [PollFd::new(&fd, PollFlags::OUT)];
                if !matches!(poll(&mut wait, Some(&PATIENCE)), Ok(n) if n > 0) {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    done
}

/// A stream is written when so much has gathered, or when the queue is empty.
const GATHER_BYTES: usize = 64 * 1024;
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
