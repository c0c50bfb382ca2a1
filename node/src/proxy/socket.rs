//! One system call per message: receiving and sending on a stream that the reactor watches.
//!
//! tokio's own `poll_read` and `poll_write` go through libc, whose `recv` and `send` are cancellation points: in a process
//! with threads each call costs two more locked instructions. Here the system call is made directly, and the reactor is
//! asked only when there is nothing to do at once.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::net::{self, RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Receives what is there, `Ok(0)` at the end of the stream. `bytes` must not be empty.
///
/// # Errors
/// `WouldBlock`: nothing is there, and whoever wants to know when there is asks `poll_read_ready`. It costs no system call
/// where the reactor knows already.
pub(crate) fn try_recv(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    let tried = stream.try_io(Interest::READABLE, || {
        got = net::recv(stream, &mut *bytes, RecvFlags::empty())?.0;
        drained(got, bytes.len())
    });
    settle(tried, got)
}

/// Sends as much of `bytes`, which must not be empty, as the socket takes.
///
/// # Errors
/// `WouldBlock`: it takes nothing now; `poll_write_ready` says when.
pub(crate) fn try_send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    let tried = stream.try_io(Interest::WRITABLE, || {
        sent = net::send(stream, bytes, SendFlags::NOSIGNAL)?;
        drained(sent, bytes.len())
    });
    settle(tried, sent)
}

/// Ready when the reactor takes the stream for readable; else a place in its queue. Nearly free when it does, and does not
/// use up the task's budget, see [`poll_recv`].
pub(crate) fn poll_readable(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    if stream.try_io(Interest::READABLE, || Ok(())).is_ok() {
        return Poll::Ready(Ok(()));
    }
    stream.poll_read_ready(cx)
}

/// [`try_recv`], or a place in the queue of the reactor. It does not use up the task's budget as tokio's methods do: a
/// loop that may go on for as long as the peer sends must give way to others by itself.
pub(crate) fn poll_recv(
    stream: &TcpStream,
    bytes: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        match try_recv(stream, bytes) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                ready!(stream.poll_read_ready(cx))?;
            }
            result => return Poll::Ready(result),
        }
    }
}

/// [`try_send`], or a place in the queue of the reactor.
pub(crate) fn poll_send(
    stream: &TcpStream,
    bytes: &[u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        match try_send(stream, bytes) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                ready!(stream.poll_write_ready(cx))?;
            }
            result => return Poll::Ready(result),
        }
    }
}

/// A transfer that falls short shows that the socket's buffer is empty, or full: the reactor, which reports changes only,
/// is to take the socket for not ready until the next one. That spares the next attempt, which would be in vain.
fn drained(moved: usize, asked: usize) -> io::Result<()> {
    if 0 < moved && moved < asked {
        Err(io::ErrorKind::WouldBlock.into())
    } else {
        Ok(())
    }
}

/// What moved, however the reactor was told about it.
fn settle(tried: io::Result<()>, moved: usize) -> io::Result<usize> {
    match tried {
        Err(err) if moved == 0 => Err(err),
        _ => Ok(moved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::{Read, Write};

    /// A stream under test and its peer, which blocks.
    fn pair() -> io::Result<(TcpStream, std::net::TcpStream)> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let peer = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok((TcpStream::from_std(stream)?, peer))
    }

    fn run<T>(test: impl Future<Output = io::Result<T>>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        runtime
            .and_then(|runtime| runtime.block_on(test))
            .expect("sockets of the loopback work")
    }

    #[test]
    fn receives_in_pieces_whatever_came_before_and_sees_the_end() {
        run(async {
            let (stream, mut peer) = pair()?;
            let mut bytes = [0; 4];
            let mut all = Vec::new();
            // Shorter than the room, exactly as long, longer.
            for piece in ["ab", "cdef", "ghijkl"] {
                peer.write_all(piece.as_bytes())?;
                let mut left = piece.len();
                while left > 0 {
                    let n = poll_fn(|cx| poll_recv(&stream, &mut bytes, cx)).await?;
                    all.extend_from_slice(&bytes[..n]);
                    left -= n;
                }
            }
            assert_eq!(all, b"abcdefghijkl");
            assert!(
                try_recv(&stream, &mut bytes).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
            );
            peer.write_all(b"z")?;
            drop(peer);
            assert_eq!(poll_fn(|cx| poll_recv(&stream, &mut bytes, cx)).await?, 1);
            assert_eq!(poll_fn(|cx| poll_recv(&stream, &mut bytes, cx)).await?, 0);
            Ok(())
        });
    }

    #[test]
    fn goes_on_sending_when_the_peer_has_made_room() {
        run(async {
            let (stream, mut peer) = pair()?;
            let block = vec![7; 1 << 20];
            let mut sent = poll_fn(|cx| poll_send(&stream, &block, cx)).await?;
            loop {
                match try_send(&stream, &block) {
                    Ok(n) => sent += n,
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                    Err(err) => return Err(err),
                }
            }
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).map(|_| all.len())
            });
            sent += poll_fn(|cx| poll_send(&stream, &block, cx)).await?;
            drop(stream);
            assert_eq!(reader.join().expect("the reader lives")?, sent);
            Ok(())
        });
    }
}
