//! How often each rule matched. Every worker thread counts on cache lines of its own, so that a flood that matches one
//! rule on all threads does not make them wait for each other.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Matches of all rules of a process. The default counts nothing.
#[derive(Debug, Default)]
pub struct RuleHits {
    threads: Box<[Box<[Line]>]>,
    /// What other processes counted.
    others: Box<[Line]>,
}

/// Counters of one thread that share a pair of cache lines (processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; Line::LEN]);

impl Line {
    const LEN: usize = 16;
}

impl RuleHits {
    /// All zero, for rules numbered below `rules` and threads below `threads`.
    pub fn new(threads: u16, rules: u32) -> RuleHits {
        let lines = (rules as usize).div_ceil(Line::LEN);
        let lines = || (0..lines).map(|_| Line::default()).collect();
        RuleHits {
            threads: (0..threads).map(|_| lines()).collect(),
            others: lines(),
        }
    }

    /// Counts one match. Only the thread of that number may call this for it.
    #[inline]
    pub(super) fn count(&self, thread: u16, rule: u32) {
        let line = self
            .threads
            .get(usize::from(thread))
            .and_then(|t| t.get(rule as usize / Line::LEN));
        if let Some(line) = line {
            // One writer: no locked instruction is needed.
            let counter = &line.0[rule as usize % Line::LEN];
            counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Adds matches that another process has counted.
    pub fn add(&self, rule: u32, matches: u64) {
        if let Some(line) = self.others.get(rule as usize / Line::LEN) {
            line.0[rule as usize % Line::LEN].fetch_add(matches, Relaxed);
        }
    }

    /// Matches of a rule since the process began, with those it was told of; 0 for a number that does not exist.
    pub fn of(&self, rule: u32) -> u64 {
        self.threads
            .iter()
            .chain([&self.others])
            .filter_map(|t| t.get(rule as usize / Line::LEN))
            .map(|line| line.0[rule as usize % Line::LEN].load(Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_threads() {
        let hits = RuleHits::new(3, 17);
        for (thread, rule, times) in [(0, 0, 2), (1, 0, 3), (2, 16, 1)] {
            for _ in 0..times {
                hits.count(thread, rule);
            }
        }
        hits.count(3, 0);
        hits.count(0, u32::MAX);
        assert_eq!([0, 1, 16, 99].map(|rule| hits.of(rule)), [5, 0, 1, 0]);
        hits.add(16, 4);
        hits.add(99, 4);
        assert_eq!([0, 1, 16, 99].map(|rule| hits.of(rule)), [5, 0, 5, 0]);
        assert_eq!(RuleHits::default().of(0), 0);
    }
}
