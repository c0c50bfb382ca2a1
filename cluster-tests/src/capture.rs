//! What a child process writes, kept for whoever asks.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// A pipe that a thread empties, so that nobody waits for whoever reads it; and whoever asks for the text empties it first, so
/// that what was written before is in it.
#[derive(Debug)]
pub(crate) struct Capture {
    pipe: Arc<OwnedFd>,
    got: Arc<Mutex<Got>>,
}

#[derive(Debug, Default)]
struct Got {
    bytes: Vec<u8>,
    ended: bool,
}

impl Got {
    /// Takes all that is in the pipe now.
    fn drain(&mut self, pipe: &OwnedFd) {
        let mut piece = [0; 16_384];
        while !self.ended {
            match rustix::io::read(pipe, &mut piece) {
                Ok(count @ 1..) => self.bytes.extend_from_slice(&piece[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => self.ended = true,
            }
        }
    }
}

impl Capture {
    pub(crate) fn of(pipe: impl Into<OwnedFd>) -> Self {
        let pipe: OwnedFd = pipe.into();
        // Of this end only.
        rustix::io::ioctl_fionbio(&pipe, true).expect("a pipe");
        let capture = Self {
            pipe: Arc::new(pipe),
            got: Arc::default(),
        };
        let (pipe, got) = (Arc::clone(&capture.pipe), Arc::clone(&capture.got));
        std::thread::spawn(move || {
            loop {
                let _interrupted = poll(&mut [PollFd::new(&*pipe, PollFlags::IN)], None);
                let mut got = got.lock().expect("nobody panics with the lock");
                got.drain(&pipe);
                if got.ended {
                    return;
                }
            }
        });
        capture
    }

    /// Whether nobody can write to it any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.got.lock().expect("nobody panics with the lock").ended
    }

    pub(crate) fn text(&self) -> String {
        let mut got = self.got.lock().expect("nobody panics with the lock");
        got.drain(&self.pipe);
        String::from_utf8_lossy(&got.bytes).into_owned()
    }
}
