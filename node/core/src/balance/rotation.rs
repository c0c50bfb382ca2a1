//! Smooth weighted round robin without a lock.
//!
//! Every server has a *due time* on a virtual clock; the server that is due first is next, and its due time moves by
//! `ROUND / weight`. So in any stretch of `ROUND` each server comes exactly `weight` times, evenly spread. Servers that
//! could not be chosen for a while are due at once when they return, but do not get the turns back that they missed.
//!
//! Threads take turns in exactly that order, too: due times only grow, so what looked smallest and has not changed since
//! still is the smallest, and the clock is never ahead of any of them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// Due times of a backend's servers. The virtual clock wraps around; only differences count.
#[derive(Debug)]
pub(super) struct Rotation {
    due: Box<[AtomicU64]>,
    clock: AtomicU64,
}

/// A server's turn as it was seen: [`Rotation::take`] succeeds if nobody took it since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    server: usize,
    seen: u64,
    next: u64,
    clock: u64,
    /// How far in the future it is: the smallest goes first.
    pub(super) wait: u64,
}

impl Rotation {
    pub(super) fn new(servers: usize) -> Rotation {
        Rotation {
            due: (0..servers).map(|_| AtomicU64::new(0)).collect(),
            clock: AtomicU64::new(0),
        }
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock.load(Acquire)
    }

    /// When it is a server's turn, seen from `clock`. `weight` must not be 0.
    pub(super) fn turn(&self, server: usize, weight: u32, clock: u64) -> Option<Turn> {
        let seen = self.due.get(server)?.load(Acquire);
        let step = ROUND / u64::from(weight.max(1));
        // In the past (or nonsense after the clock wrapped): due now. Further away than a step: the weight was raised.
        let wait = match seen.wrapping_sub(clock) {
            ahead if ahead <= ROUND => ahead.min(step),
            _ => 0,
        };
        let next = clock.wrapping_add(wait).wrapping_add(step);
        Some(Turn {
            server,
            seen,
            next,
            clock,
            wait,
        })
    }

    /// Takes a turn. `false`: another thread was faster.
    pub(super) fn take(&self, turn: &Turn) -> bool {
        let Some(due) = self.due.get(turn.server) else {
            return false;
        };
        // What was seen may be long ago if this thread was interrupted: look again as late as possible.
        if self.clock() != turn.clock {
            return false;
        }
        // The clock goes first. Nobody is due before `at`, so it does no harm if the turn is lost; but a due time that is
        // further ahead of the clock than a step must never be seen, for it would be taken for one of a lower weight.
        if turn.wait > 0 {
            // never backwards: another thread may have got further meanwhile
            let at = turn.clock.wrapping_add(turn.wait);
            let _ = self.clock.fetch_update(AcqRel, Acquire, |clock| {
                (at.wrapping_sub(clock) as i64 > 0).then_some(at)
            });
        }
        due.compare_exchange(turn.seen, turn.next, AcqRel, Acquire)
            .is_ok()
    }
}

/// Virtual time in which a server of weight 1 has one turn. Divisible by all weights up to 16 and many others, so that
/// their ratios are exact for ever; with other weights, they are off by less than 10^-9.
const ROUND: u64 = 720_720 << 20;
