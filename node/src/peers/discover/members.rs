//! Who a name stands for over time: answers in, comings and goings out. Knows no DNS and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What was learnt from asking once.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Addresses that the name has.
    pub(super) found: BTreeSet<SocketAddr>,
    /// The IPv4 addresses found are all there are.
    pub(super) v4: bool,
    /// The IPv6 addresses found are all there are.
    pub(super) v6: bool,
}

impl Answer {
    /// Whether it would contain the address if the name had it.
    fn covers(&self, address: &SocketAddr) -> bool {
        match address {
            SocketAddr::V4(_) => self.v4,
            SocketAddr::V6(_) => self.v6,
        }
    }
}

/// Comings and goings by one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) added: Vec<SocketAddr>,
    pub(super) gone: Vec<SocketAddr>,
    /// Addresses past [`MEMBERS_MAX`].
    pub(super) refused: usize,
}

/// Most addresses of one name: each node dials all others.
pub const MEMBERS_MAX: usize = 256;

/// The addresses of a name.
#[derive(Debug)]
pub(super) struct Members {
    grace_ms: u64,
    /// With each, since when answers lack it.
    known: BTreeMap<SocketAddr, Option<u64>>,
}

impl Members {
    /// Nobody yet. An address that answers lack is gone `grace_ms` after the first of them.
    pub(super) fn new(grace_ms: u64) -> Members {
        Members {
            grace_ms,
            known: BTreeMap::new(),
        }
    }

    /// Takes an address that was known before, which answers have lacked since then, if they have. Whether there is room.
    pub(super) fn keep(&mut self, address: SocketAddr, missing: Option<u64>) -> bool {
        let fits = self.known.len() < MEMBERS_MAX;
        if fits {
            self.known.insert(address, missing);
        }
        fits
    }

    /// Everyone, and since when answers lack them.
    pub(super) fn all(&self) -> impl Iterator<Item = (SocketAddr, Option<u64>)> {
        self.known.iter().map(|(at, missing)| (*at, *missing))
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How long answers must lack an address before it is gone.
    pub(super) fn grace_ms(&self) -> u64 {
        self.grace_ms
    }

    /// Takes an answer. Only an answer that would contain an address says that it is missing: when nobody answers,
    /// nobody goes, nor when the answer is that there is nobody at all, which is what a server says that has lost the name.
    pub(super) fn learn(&mut self, answer: &Answer, now_ms: u64) -> Moves {
        let mut moves = Moves::default();
        let grace_ms = self.grace_ms;
        self.known.retain(|address, missing| {
            if answer.found.contains(address) {
                *missing = None;
            } else if answer.covers(address) && !answer.found.is_empty() {
                let since = *missing.get_or_insert(now_ms);
                if now_ms.saturating_sub(since) >= grace_ms {
                    moves.gone.push(*address);
                    return false;
                }
            }
            true
        });
        for address in &answer.found {
            if self.known.contains_key(address) {
                continue;
            }
            if self.known.len() >= MEMBERS_MAX {
                moves.refused += 1;
                continue;
            }
            self.known.insert(*address, None);
            moves.added.push(*address);
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split_whitespace()
            .map(|a| a.parse().expect("an address"))
            .collect()
    }

    fn answer(text: &str) -> Answer {
        Answer {
            found: addresses(text).into_iter().collect(),
            v4: true,
            v6: true,
        }
    }

    const A: &str = "10.0.0.1:5";
    const B: &str = "10.0.0.2:5";
    const V6: &str = "[2001:db8::1]:5";

    #[test]
    fn an_address_goes_after_its_grace_time() {
        let mut m = Members::new(30);
        let first = m.learn(&answer("10.0.0.1:5 10.0.0.2:5"), 0);
        assert_eq!(first.added, addresses("10.0.0.1:5 10.0.0.2:5"));
        assert_eq!(m.learn(&answer(A), 10), Moves::default());
        assert_eq!(m.learn(&answer(A), 39), Moves::default());
        assert_eq!(m.learn(&answer(A), 40).gone, addresses(B));
        assert_eq!(m.learn(&answer(A), 50), Moves::default());
        assert_eq!(
            m.learn(&answer("10.0.0.1:5 10.0.0.2:5"), 60).added,
            addresses(B)
        );
        assert_eq!(m.len(), 2);
    }

    #[test]
    fn coming_back_in_time_is_no_change() {
        let mut m = Members::new(30);
        let both = format!("{A} {B}");
        m.learn(&answer(&both), 0);
        assert_eq!(m.learn(&answer(B), 10), Moves::default());
        assert_eq!(m.learn(&answer(&both), 35), Moves::default());
        // The time counts from the answer that lacks it again.
        assert_eq!(m.learn(&answer(B), 60), Moves::default());
        assert_eq!(m.learn(&answer(B), 89), Moves::default());
        assert_eq!(m.learn(&answer(B), 90).gone, addresses(A));
    }

    #[test]
    fn who_was_known_before_stays_until_answers_lack_it() {
        let mut m = Members::new(30);
        let [a, b] = [A, B].map(|one| addresses(one)[0]);
        assert!(m.keep(a, None) && m.keep(b, Some(5)));
        assert_eq!(m.learn(&Answer::default(), 1_000), Moves::default());
        // The time in which nobody answered counts for the one that had been missing before.
        assert_eq!(m.learn(&answer(V6), 1_010).gone, addresses(B));
        let all: Vec<_> = m.all().collect();
        assert_eq!(all, [(a, Some(1_010)), (addresses(V6)[0], None)]);
        assert_eq!(m.learn(&answer(V6), 1_040).gone, addresses(A));
    }

    #[test]
    fn a_name_without_any_address_removes_nobody() {
        let mut m = Members::new(30);
        m.learn(&answer(&format!("{A} {B}")), 0);
        for now in [10, 1_000, 100_000] {
            assert_eq!(m.learn(&answer(""), now), Moves::default());
        }
        // What the answers before and after it lack has been missing all the time.
        m.learn(&answer(A), 100_010);
        m.learn(&answer(""), 100_020);
        assert_eq!(m.learn(&answer(A), 100_040).gone, addresses(B));
        assert_eq!(m.len(), 1);
    }

    #[test]
    fn silence_removes_nobody() {
        let mut m = Members::new(30);
        let both = format!("{A} {V6}");
        m.learn(&answer(&both), 0);
        for now in [10, 1_000, 100_000] {
            assert_eq!(m.learn(&Answer::default(), now), Moves::default());
        }
        // What an incomplete answer does contain counts.
        let some = Answer {
            v4: false,
            ..answer(B)
        };
        assert_eq!(m.learn(&some, 100_010).added, addresses(B));
        // The servers answer for one family only: the other stays.
        let only_v4 = Answer {
            v6: false,
            ..answer(B)
        };
        m.learn(&only_v4, 200_000);
        assert_eq!(m.learn(&only_v4, 300_000).gone, addresses(A));
        assert_eq!(m.len(), 2);
    }

    #[test]
    fn there_is_a_bound() {
        let mut m = Members::new(30);
        let many = Answer {
            found: (0..300u32)
                .map(|n| SocketAddr::from((n.to_be_bytes(), 5)))
                .collect(),
            v4: true,
            v6: true,
        };
        let moves = m.learn(&many, 0);
        assert_eq!(
            (moves.added.len(), moves.refused),
            (MEMBERS_MAX, 300 - MEMBERS_MAX)
        );
        // Those who are in stay in.
        let again = m.learn(&many, 10);
        assert_eq!(
            (again.added.len(), again.gone.len(), again.refused),
            (0, 0, 44)
        );
    }
}
