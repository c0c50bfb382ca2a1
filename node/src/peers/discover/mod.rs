//! `discover dns`: the nodes behind a DNS name, asked for again and again.
//!
//! * A, AAAA or SRV records, as often as their TTL says, and at least once per interval.
//! * An address that answers contain is a member at once. One that they lack goes after three intervals of answers
//!   without it: a restarting node or a lazy server costs nobody a connection.
//! * Servers that fail remove nobody, however long: they are no answer. Nor do those that know of no address at all: so
//!   does one that was started without its data, or a Service that is just being made anew.
//! * What the process before knew of the name counts as an answer of its own until servers give one ([`Book`]).

mod lookup;
mod members;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use remora_config::plan::Discover;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use members::{Answer, Members};

pub use lookup::keep_files;
pub use members::MEMBERS_MAX;

/// Intervals for which answers must lack an address before it is gone.
pub const GRACE_INTERVALS: u32 = 3;
/// Shorter TTLs do not make it ask more often than this, if the interval is not shorter itself.
const TTL_MIN: Duration = Duration::from_secs(1);

/// News of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The name has this address. One of them is this node's own, as a rule.
    Added(SocketAddr),
    /// It had this address when the process before knew it. Said before anybody has been asked.
    Kept(SocketAddr),
    /// It has lost this address, and the grace time is over.
    Gone(SocketAddr),
    /// The servers answered for the first time: what was added up to here, so many addresses, is all there is.
    Listed(usize),
    /// The servers do not answer any more, in full or at all, and why. Members stay.
    Failing(String),
    /// The answer is that there is no address, while some were known, or has been for the grace time. Members stay.
    Empty,
    /// They do again, and there is one.
    Answering,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Added(address) => write!(f, "{address} found"),
            Change::Kept(address) => write!(f, "{address} is known from the process before"),
            Change::Gone(address) => write!(f, "{address} is gone"),
            Change::Listed(n) => write!(f, "has {n} addresses"),
            Change::Failing(why) => {
                write!(f, "can not be looked up ({why}); those known stay")
            }
            Change::Empty => f.write_str(
                "has no address, say the servers; those known stay, and without any this node counts alone",
            ),
            Change::Answering => f.write_str("is looked up again"),
        }
    }
}

/// The addresses of a name, for the process that goes on: since when answers lack one of them, if they do.
#[derive(Clone, Debug, Default)]
pub struct Book(Arc<Mutex<Known>>);

type Known = Vec<(SocketAddr, Option<Instant>)>;

impl Book {
    /// As the process before had it: for how many milliseconds answers had lacked an address, if they did.
    pub fn new(known: &[(SocketAddr, Option<u64>)]) -> Book {
        let now = Instant::now();
        let since = |ms: &u64| now.checked_sub(Duration::from_millis(*ms)).unwrap_or(now);
        let all = known.iter();
        let all = all.map(|(address, lacking)| (*address, lacking.as_ref().map(since)));
        Book(Arc::new(Mutex::new(all.collect())))
    }

    /// What is in it, in the same terms.
    pub fn known(&self) -> Vec<(SocketAddr, Option<u64>)> {
        let all = self.0.lock();
        let all = all.iter();
        all.map(|(address, since)| (*address, since.map(|since| millis(since.elapsed()))))
            .collect()
    }
}

/// Follows a name until the receiver of `changes` is dropped. Every change is logged too. What is in the book is known from
/// the start; the book is kept up to date.
pub async fn watch(spec: Discover, book: Book, changes: Sender<Change>) {
    let every = Duration::from_millis(spec.every_ms.into());
    let grace = every * GRACE_INTERVALS;
    let mut state = State {
        members: Members::new(millis(grace)),
        listed: false,
        trouble: None,
        empty_since: None,
        crowded: false,
    };
    let known = book.0.lock().clone();
    let started = known.iter().filter_map(|(_, since)| *since).min();
    let started = started.unwrap_or_else(Instant::now);
    for (address, since) in known {
        let missing = since.map(|since| millis(since.duration_since(started)));
        if !state.members.keep(address, missing) {
            continue;
        }
        let change = Change::Kept(address);
        info!("discover dns {}: {change}", spec.name);
        if let Err(SendError(_)) = changes.send(change).await {
            return;
        }
    }
    loop {
        let asked = tokio::select! {
            asked = lookup::ask(&spec) => asked,
            () = changes.closed() => return,
        };
        let news = state.learn(&asked.answer, asked.failure, millis(started.elapsed()));
        let members = state.members.all();
        let at = |ms| started.checked_add(Duration::from_millis(ms));
        *book.0.lock() = members
            .map(|(address, missing)| (address, missing.and_then(at)))
            .collect();
        if state.crowded_now(&news) {
            warn!(
                "discover dns {}: more than {MEMBERS_MAX} addresses, the others are left out",
                spec.name
            );
        }
        for change in news.changes {
            match &change {
                Change::Failing(why) if state.members.len() == 0 => warn!(
                    "discover dns {}: can not be looked up ({why}), and it has led to nobody yet",
                    spec.name
                ),
                Change::Failing(_) | Change::Empty => warn!("discover dns {}: {change}", spec.name),
                _ => info!("discover dns {}: {change}", spec.name),
            }
            if let Err(SendError(_)) = changes.send(change).await {
                return;
            }
        }
        tokio::select! {
            () = sleep(pause(every, asked.ttl, rand::random())) => {}
            () = changes.closed() => return,
        }
    }
}

/// Time until the next question: when the TTL ends, at most an interval, and up to a tenth less, so that nodes that
/// started together do not ask together for ever.
fn pause(every: Duration, ttl: Option<Duration>, jitter: u8) -> Duration {
    let full = match ttl {
        Some(ttl) => ttl.max(TTL_MIN).min(every),
        None => every,
    };
    full - full / 10 * u32::from(jitter) / u32::from(u8::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What one look-up changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    changes: Vec<Change>,
    /// Addresses past the bound.
    refused: usize,
}

struct State {
    members: Members,
    listed: bool,
    /// What was said last.
    trouble: Option<Trouble>,
    /// Since when answers hold no address at all.
    empty_since: Option<u64>,
    /// Too many addresses, which has been said.
    crowded: bool,
}

/// Why a name is of no use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Failing,
    Empty,
}

impl State {
    fn learn(&mut self, answer: &Answer, failure: Option<String>, now_ms: u64) -> News {
        let moves = self.members.learn(answer, now_ms);
        let mut changes: Vec<Change> = moves.added.into_iter().map(Change::Added).collect();
        changes.extend(moves.gone.into_iter().map(Change::Gone));
        let trouble = match &failure {
            Some(_) => Some(Trouble::Failing),
            None if self.is_empty(answer, now_ms) => Some(Trouble::Empty),
            None => None,
        };
        if trouble != self.trouble {
            changes.push(match (trouble, &failure) {
                (Some(Trouble::Empty), _) => Change::Empty,
                (_, Some(why)) => Change::Failing(why.clone()),
                _ => Change::Answering,
            });
        }
        self.trouble = trouble;
        if !self.listed && failure.is_none() {
            self.listed = true;
            changes.push(Change::Listed(self.members.len()));
        }
        News {
            changes,
            refused: moves.refused,
        }
    }

    /// Whether an answer without any address is worth a word: one that comes first may be early.
    fn is_empty(&mut self, answer: &Answer, now_ms: u64) -> bool {
        if !answer.found.is_empty() {
            self.empty_since = None;
            return false;
        }
        let since = *self.empty_since.get_or_insert(now_ms);
        self.members.len() > 0 || now_ms.saturating_sub(since) >= self.members.grace_ms()
    }

    /// Whether there are too many since this look-up.
    fn crowded_now(&mut self, news: &News) -> bool {
        let before = std::mem::replace(&mut self.crowded, news.refused > 0);
        self.crowded && !before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_ask_again() {
        let s = Duration::from_secs;
        let ms = Duration::from_millis;
        for (every, ttl, expected) in [
            (s(5), None, s(5)),
            (s(5), Some(s(30)), s(5)),
            (s(5), Some(s(2)), s(2)),
            (s(5), Some(s(0)), s(1)),
            (ms(100), Some(s(0)), ms(100)),
            (ms(100), Some(s(30)), ms(100)),
        ] {
            assert_eq!(pause(every, ttl, 0), expected);
            assert_eq!(pause(every, ttl, u8::MAX), expected - expected / 10);
        }
    }

    fn state() -> State {
        State {
            members: Members::new(30),
            listed: false,
            trouble: None,
            empty_since: None,
            crowded: false,
        }
    }
    fn answer(addresses: &[SocketAddr]) -> Answer {
        Answer {
            found: addresses.iter().copied().collect(),
            v4: true,
            v6: true,
        }
    }

    #[test]
    fn trouble_is_said_once() {
        let mut state = state();
        let a: SocketAddr = "10.0.0.1:5".parse().expect("an address");
        let (nothing, some) = (Answer::default(), answer(&[a]));
        let why = || Some("no answer".to_owned());
        let failing = || Change::Failing("no answer".into());
        let mut learn = |answer: &Answer, failure, now| state.learn(answer, failure, now).changes;
        assert_eq!(learn(&nothing, why(), 0), [failing()]);
        assert_eq!(learn(&nothing, why(), 10), []);
        assert_eq!(
            learn(&some, None, 20),
            [Change::Added(a), Change::Answering, Change::Listed(1)]
        );
        assert_eq!(learn(&some, None, 30), []);
        assert_eq!(learn(&nothing, why(), 1_000), [failing()]);
        assert_eq!(learn(&some, None, 1_010), [Change::Answering]);
        // A server that knows of nobody is another trouble than one that fails.
        assert_eq!(learn(&answer(&[]), None, 2_000), [Change::Empty]);
        assert_eq!(learn(&answer(&[]), None, 9_000), []);
        assert_eq!(learn(&nothing, why(), 9_010), [failing()]);
        assert_eq!(learn(&answer(&[]), None, 9_020), [Change::Empty]);
        assert_eq!(learn(&some, None, 9_030), [Change::Answering]);
    }

    #[test]
    fn a_name_that_nobody_has_yet_may_be_early() {
        let mut state = state();
        let a: SocketAddr = "10.0.0.1:5".parse().expect("an address");
        let mut learn = |answer: &Answer, now| state.learn(answer, None, now).changes;
        assert_eq!(learn(&answer(&[]), 0), [Change::Listed(0)]);
        assert_eq!(learn(&answer(&[]), 29), []);
        assert_eq!(learn(&answer(&[]), 30), [Change::Empty]);
        assert_eq!(learn(&answer(&[]), 40), []);
        assert_eq!(
            learn(&answer(&[a]), 50),
            [Change::Added(a), Change::Answering]
        );
    }
}
