//! What clients did and saw.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::wire::Fault;

/// Sorts of clients. Each has a key and an address of its own, the same at all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    /// Requests on one connection as long as it lasts.
    Keep,
    /// A connection for each request.
    Close,
    /// A WebSocket for some seconds.
    Tunnel,
    /// A download for some seconds.
    Slow,
    /// A download and a WebSocket, from before the first reload to after the last.
    Long,
}

impl Sort {
    pub(super) const ALL: [Self; 5] = [
        Self::Keep,
        Self::Close,
        Self::Tunnel,
        Self::Slow,
        Self::Long,
    ];

    /// Its key in the table of requests.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Close => "close",
            Self::Tunnel => "tunnel",
            Self::Slow => "slow",
            Self::Long => "long",
        }
    }

    pub(super) fn of(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.key() == key)
    }

    /// Its key in the table of connections.
    pub(super) fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 77, 10 + self as u8)
    }
}

/// Of one sort at one node, and what the server saw of them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) answers: AtomicU64,
    /// Answers other than 101.
    pub(super) whole: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// Everything about one node's clients.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: [Counts; Sort::ALL.len()],
    faults: Mutex<BTreeMap<(Sort, Fault), u64>>,
    /// The first faults, in words.
    stories: Mutex<Vec<String>>,
    /// The newest configuration that answered, and when it did first.
    newest: Mutex<(u64, Option<Instant>)>,
    turned: Condvar,
    newest_seen: AtomicU64,
    /// The longest time that connecting and an answer took since the last look, in microseconds.
    worst_us: AtomicU64,
    /// What took long, in words.
    delays: Mutex<Vec<String>>,
    /// When the last signal was sent.
    signalled: Mutex<Option<Instant>>,
    /// Answers under rules that saw far too small a count, and when the last one came.
    pub(super) blind: AtomicU64,
    blind_at: Mutex<Option<Instant>>,
    pub(super) stop: AtomicBool,
    pub(super) stop_long: AtomicBool,
}

impl Tally {
    pub(super) fn of(&self, sort: Sort) -> &Counts {
        &self.counts[sort as usize]
    }

    pub(super) fn fault(&self, sort: Sort, fault: Fault) {
        let mut faults = self.faults.lock().expect("nobody panics with the lock");
        *faults.entry((sort, fault)).or_default() += 1;
        drop(faults);
        let mut stories = self.stories.lock().expect("nobody panics with the lock");
        if stories.len() < STORIES_MAX {
            let newest = self.newest_seen.load(Relaxed);
            stories.push(format!(
                "{}: {} while round {newest} was the newest",
                sort.key(),
                fault.name()
            ));
        }
    }

    pub(super) fn faults(&self) -> BTreeMap<(Sort, Fault), u64> {
        self.faults
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    pub(super) fn stories(&self) -> Vec<String> {
        self.stories
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    /// A configuration answered.
    pub(super) fn answered_by(&self, round: u64) {
        if round <= self.newest_seen.fetch_max(round, Relaxed) {
            return;
        }
        let now = Instant::now();
        let mut newest = self.newest.lock().expect("nobody panics with the lock");
        if round > newest.0 {
            *newest = (round, Some(now));
            self.turned.notify_all();
        }
    }

    /// When that configuration, or a newer one, answered first; waits for it.
    pub(super) fn first_answer(&self, round: u64, patience: Duration) -> Option<Instant> {
        let newest = self.newest.lock().expect("nobody panics with the lock");
        let waited = self
            .turned
            .wait_timeout_while(newest, patience, |newest| newest.0 < round);
        let (newest, late) = waited.expect("nobody panics with the lock");
        newest.1.filter(|_| !late.timed_out())
    }

    /// A connection for one request took so long, of which connecting took so long; this configuration answered.
    pub(super) fn took(&self, connect: Duration, span: Duration, round: u64) {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.worst_us.fetch_max(us, Relaxed);
        if span >= LONG {
            let signalled = *self.signalled.lock().expect("nobody panics with the lock");
            let since = signalled.map_or(Duration::ZERO, |at| at.elapsed());
            self.delayed(format!(
                "an answer of round {round} took {span:.0?}, connecting {connect:.0?} of them, until {since:.0?} after the last signal"
            ));
        }
    }

    /// Something took long.
    pub(super) fn delayed(&self, what: String) {
        let mut delays = self.delays.lock().expect("nobody panics with the lock");
        if delays.len() < STORIES_MAX {
            delays.push(what);
        }
    }

    pub(super) fn delays(&self) -> Vec<String> {
        self.delays
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    /// The configuration is to be reloaded.
    pub(super) fn signalled(&self, at: Instant) {
        *self.signalled.lock().expect("nobody panics with the lock") = Some(at);
    }

    /// The longest time since the last call.
    pub(super) fn worst(&self) -> Duration {
        Duration::from_micros(self.worst_us.swap(0, Relaxed))
    }

    /// A rule saw this count of a key that had `answers` answers before the request was sent.
    pub(super) fn saw(&self, count: u64, answers: u64) {
        if answers >= BLIND_FROM && count < answers / 10 * 9 {
            self.blind.fetch_add(1, Relaxed);
            *self.blind_at.lock().expect("nobody panics with the lock") = Some(Instant::now());
        }
    }

    /// When a rule saw too little last, since the last call.
    pub(super) fn blind_at(&self) -> Option<Instant> {
        self.blind_at
            .lock()
            .expect("nobody panics with the lock")
            .take()
    }
}

/// Below that a tenth is nothing.
const BLIND_FROM: u64 = 1000;
const STORIES_MAX: usize = 12;
/// What takes so long is told.
pub(super) const LONG: Duration = Duration::from_secs(1);
