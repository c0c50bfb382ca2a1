//! A SEQPACKET socket that carries frames and descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tracing::warn;

use super::frames::ListenerInfo;
use super::frames::{DESCRIPTORS_MAX, FRAME_MAX, Frame};

/// One end of a connection. Non-blocking; closed on `exec`.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

/// A frame on its way, with descriptors that others may hold too.
#[derive(Clone, Debug)]
pub struct Packet {
    /// What is said.
    pub frame: Frame,
    /// What goes along.
    pub fds: Vec<Arc<OwnedFd>>,
}

impl From<Frame> for Packet {
    fn from(frame: Frame) -> Packet {
        Packet {
            frame,
            fds: Vec::new(),
        }
    }
}

impl Packet {
    /// A frame and the one descriptor that belongs to it.
    pub fn with(frame: Frame, fd: OwnedFd) -> Packet {
        Packet {
            frame,
            fds: vec![Arc::new(fd)],
        }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.fd
    }
}

impl Packet {
    /// Any number of listening sockets, in as many frames as they need.
    pub fn listeners(all: &[(ListenerInfo, Arc<OwnedFd>)]) -> Vec<Packet> {
        all.chunks(DESCRIPTORS_MAX)
            .map(|some| Packet {
                frame: Frame::Listeners(some.iter().map(|(info, _)| info.clone()).collect()),
                fds: some.iter().map(|(_, fd)| Arc::clone(fd)).collect(),
            })
            .collect()
    }
}

impl Channel {
    /// Two connected ends.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        Ok((Channel { fd: ours }, theirs))
    }

    /// Descriptor 0 of this process, which is replaced by `/dev/null`.
    ///
    /// # Errors
    /// It is not a SEQPACKET socket.
    pub fn from_stdin() -> io::Result<Channel> {
        let fd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let channel = Channel::new(fd)?;
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        Ok(channel)
    }

    /// A connected SEQPACKET socket.
    ///
    /// # Errors
    /// It is something else.
    pub fn new(fd: OwnedFd) -> io::Result<Channel> {
        if rustix::net::sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(io::Error::other("not a SEQPACKET socket"));
        }
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Channel { fd })
    }

    /// The descriptor, for passing the channel itself on.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Another handle of the same end.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel {
            fd: self.fd.try_clone()?,
        })
    }

    /// Sends, or fails with `WouldBlock`.
    ///
    /// # Errors
    /// The other side is gone or slow, or the frame too long.
    pub fn try_send(&self, packet: &Packet) -> io::Result<()> {
        let bytes = packet.frame.encode()?;
        let fds: Vec<BorrowedFd<'_>> = packet.fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("too many descriptors for one frame"));
        }
        rustix::net::sendmsg(
            &self.fd,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )?;
        Ok(())
    }

    /// The next frame and its descriptors (closed on `exec`), `None` at the end, or `WouldBlock`.
    ///
    /// # Errors
    /// What came is no frame, or the socket failed.
    pub fn try_recv(&self) -> io::Result<Option<(Frame, Vec<OwnedFd>)>> {
        loop {
            match self.receive()? {
                Some((None, _)) => {} // of a newer build
                Some((Some(frame), fds)) => return Ok(Some((frame, fds))),
                None => return Ok(None),
            }
        }
    }

    /// What has come before the other side hung up without reading all is still there: the first attempt only tells that it
    /// has hung up.
    fn receive(&self) -> io::Result<Option<(Option<Frame>, Vec<OwnedFd>)>> {
        match self.receive_once() {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => self.receive_once(),
            received => received,
        }
    }

    fn receive_once(&self) -> io::Result<Option<(Option<Frame>, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; FRAME_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            &self.fd,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 {
            return Ok(None);
        }
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::other("a frame was cut"));
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            // Who is told something without what belongs to it leaves it undone, and the other side notices.
            warn!("descriptors are scarce: what came over a channel is incomplete");
        }
        let frame = Frame::decode(bytes.get(..got.bytes).unwrap_or_default())?;
        if let Some(Frame::Listeners(infos)) = &frame
            && infos.len() != fds.len()
        {
            return Err(io::Error::other(
                "descriptors do not match their description; are they scarce?",
            ));
        }
        Ok(Some((frame, fds)))
    }

    /// Whether nothing has come for so long.
    ///
    /// # Errors
    /// The socket failed.
    pub fn waits(&self, patience: Duration) -> io::Result<bool> {
        let wait = Timespec::try_from(patience).unwrap_or_default();
        match rustix::event::poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&wait)) {
            Ok(n) => Ok(n == 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether nobody is at the other end any more. What has come is left there.
    pub fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::empty())];
        let now = Timespec::try_from(Duration::ZERO).unwrap_or_default();
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
    }

    /// Lets nothing more come in or go out. What has arrived can still be received.
    pub fn shut(&self) {
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }

    /// As [`Channel::try_send`], but waits for the other side.
    ///
    /// # Errors
    /// As there; `TimedOut` after `patience`.
    pub fn send(&self, packet: &Packet, patience: Duration) -> io::Result<()> {
        self.blocking(PollFlags::OUT, patience, || self.try_send(packet))
    }

    /// As [`Channel::try_recv`], but waits for a frame.
    ///
    /// # Errors
    /// As there; `TimedOut` after `patience`.
    pub fn recv(&self, patience: Duration) -> io::Result<Option<(Frame, Vec<OwnedFd>)>> {
        self.blocking(PollFlags::IN, patience, || self.try_recv())
    }

    fn blocking<T>(
        &self,
        what: PollFlags,
        patience: Duration,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let until = Instant::now() + patience;
        loop {
            match attempt() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                done => return done,
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let wait = Timespec::try_from(left).unwrap_or_default();
            match rustix::event::poll(&mut [PollFd::new(&self.fd, what)], Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// A channel within an event loop.
#[derive(Debug)]
pub struct Line {
    channel: Channel,
    /// A duplicate, for its readiness only; the loop has no type for sockets of this kind.
    readiness: UnixStream,
}

impl Line {
    /// Must be called within an event loop.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(channel: Channel) -> io::Result<Line> {
        let readiness = UnixStream::from_std(channel.fd.try_clone()?.into())?;
        Ok(Line { channel, readiness })
    }

    /// Sends, waiting for the other side.
    ///
    /// # Errors
    /// As [`Channel::try_send`].
    pub async fn send(&self, packet: &Packet) -> io::Result<()> {
        let attempt = || self.channel.try_send(packet);
        self.readiness.async_io(Interest::WRITABLE, attempt).await
    }

    /// Receives. May be dropped at any time: nothing is lost.
    ///
    /// # Errors
    /// As [`Channel::try_recv`].
    pub async fn recv(&self) -> io::Result<Option<(Frame, Vec<OwnedFd>)>> {
        let attempt = || self.channel.try_recv();
        self.readiness.async_io(Interest::READABLE, attempt).await
    }

    /// The channel itself.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::frames::{Purpose, Where};

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn descriptors_arrive_with_their_description() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let info = ListenerInfo {
            id: 1,
            purpose: Purpose::Bind,
            at: Where::Inet {
                address,
                v6only: None,
            },
        };
        let fd = Arc::new(OwnedFd::from(listener));
        let all: Vec<_> = (0..300).map(|_| (info.clone(), Arc::clone(&fd))).collect();
        for packet in Packet::listeners(&all) {
            ours.send(&packet, SOON).unwrap();
        }
        assert!(!theirs.is_over());
        drop(ours);
        assert!(theirs.is_over(), "also while something is to be read");
        let mut got = 0;
        while let Some((Frame::Listeners(infos), fds)) = theirs.recv(SOON).unwrap() {
            assert!(infos.iter().all(|i| *i == info));
            assert_eq!(infos.len(), fds.len());
            for fd in fds {
                let there = rustix::net::getsockname(&fd).unwrap();
                assert_eq!(std::net::SocketAddr::try_from(there).unwrap(), address);
                got += 1;
            }
        }
        assert_eq!(got, 300);
    }

    #[test]
    fn waiting_ends() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let error = ours.recv(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_stream_is_no_channel() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Channel::new(a.into()).is_err());
    }
}
