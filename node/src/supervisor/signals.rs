//! The supervisor's signals. They stay blocked all its life, also across the execution of a new program, and are read
//! from a descriptor: one that comes at any time is kept until somebody reads it.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::net::unix::pipe::Receiver;

/// Those that a supervisor reacts to.
const SIGNALS: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCHLD,
];

/// The signals, as they come.
#[derive(Debug)]
pub struct Signals {
    /// Not a pipe, but read like one.
    fd: Receiver,
}

/// Blocks them in the calling thread and those it starts.
///
/// # Errors
/// None that is known.
pub fn block() -> io::Result<()> {
    Ok(set().thread_block()?)
}

/// Undoes in a worker what it inherited.
pub fn unblock() -> io::Result<()> {
    Ok(set().thread_unblock()?)
}

fn set() -> SigSet {
    SIGNALS.into_iter().collect()
}

impl Signals {
    /// Must be called within an event loop, by a process that has them blocked.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn open() -> io::Result<Signals> {
        let fd = SignalFd::with_flags(&set(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let fd = Receiver::from_owned_fd_unchecked(fd.into())?;
        Ok(Signals { fd })
    }

    /// The next one. May be dropped at any time.
    pub async fn next(&self) -> io::Result<Signal> {
        loop {
            self.fd.readable().await?;
            // `struct signalfd_siginfo` begins with the signal's number.
            let mut record = [0; 128];
            match self.fd.try_read(&mut record) {
                Ok(n) if n == record.len() => {
                    let [a, b, c, d, ..] = record;
                    let number = i32::from_ne_bytes([a, b, c, d]);
                    if let Ok(signal) = Signal::try_from(number) {
                        return Ok(signal);
                    }
                }
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}
