//! Kernel pipes for `splice(2)`: bytes that nobody looks at need not be copied into this process.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe shall hold; the kernel may grant less.
const PIPE_BYTES: usize = 256 * 1024;
/// Free pipes kept per thread.
const KEPT: usize = 16;

/// A pipe with what is on its way.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    len: usize,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Fails when the user's share of pipe memory is used up; the default size works too.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Pipe {
            read,
            write,
            len: 0,
        })
    }

    /// Bytes inside.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Moves up to `max` bytes from a socket into the (empty) pipe; 0 is the end of the stream.
    pub(crate) fn poll_in(
        &mut self,
        stream: &TcpStream,
        max: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(PIPE_BYTES);
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let moved = stream.try_io(Interest::READABLE, || {
                splice(stream, None, &self.write, None, max, flags()).map_err(io::Error::from)
            });
            match moved {
                Ok(n) => {
                    self.len += n;
                    return Poll::Ready(Ok(n));
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
    }

    /// Moves what is inside into a socket.
    pub(crate) fn poll_out(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let moved = stream.try_io(Interest::WRITABLE, || {
                splice(&self.read, None, stream, None, self.len, flags()).map_err(io::Error::from)
            });
            match moved {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.len = self.len.saturating_sub(n);
                    return Poll::Ready(Ok(n));
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

/// Free pipes of one thread.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    free: RefCell<Vec<Pipe>>,
}

impl Pipes {
    /// An empty pipe; `None` when no descriptors are left.
    pub(crate) fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self.free.borrow_mut().pop() {
            return Some(pipe);
        }
        Pipe::new().ok()
    }

    /// Gives a pipe back; one with bytes inside is closed instead.
    pub(crate) fn give_back(&self, pipe: Pipe) {
        let mut free = self.free.borrow_mut();
        if pipe.len == 0 && free.len() < KEPT {
            free.push(pipe);
        }
    }
}
