//! When a section's loop is to turn next: a timer of the kernel.
//!
//! A timer of tokio's would cost a thread that sleeps between flushes three system calls for each: setting one wakes the
//! runtime that sets it, and in one of three cases its wheel has to turn halfway.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See the module's head. It belongs to the runtime in which it was made.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// What it is set to; 0: nothing.
    at: Cell<u64>,
}

impl Alarm {
    /// # Errors
    /// No descriptor is left.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, for descriptors that change behind its back; one that is owned cannot"
    )]
    pub(super) fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm {
            timer: AsyncFd::with_interest(timer, Interest::READABLE)?,
            at: Cell::new(0),
        })
    }

    /// Makes it ring at `at`, in milliseconds of the clock that shows `now`; at once, if that is over.
    ///
    /// # Errors
    /// None that is known: the kernel takes any time.
    pub(super) fn set(&self, at: u64, now: u64) -> io::Result<()> {
        if self.at.replace(at) == at {
            return Ok(());
        }
        // 0 would switch it off.
        let wait = Duration::from_millis(at.saturating_sub(now)).max(Duration::from_nanos(1));
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(wait).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        Ok(())
    }

    /// Completes when it rings. What the timer would tell is not read: setting it again forgets that.
    pub(super) async fn rings(&self) {
        match self.timer.readable().await {
            Ok(mut ready) => {
                ready.clear_ready();
                self.at.set(0);
            }
            // The runtime ends, and everything in it.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn it_rings_as_often_as_it_is_set() {
        let alarm = Alarm::new().unwrap();
        for at in [1_005, 1_000, 900] {
            alarm.set(at, 1_000).unwrap();
            alarm.rings().await;
        }
        // Later ones replace earlier ones, and the same again is no change.
        alarm.set(u64::from(u32::MAX), 1_000).unwrap();
        alarm.set(1_001, 1_000).unwrap();
        alarm.set(1_001, 1_001).unwrap();
        alarm.rings().await;
    }
}
