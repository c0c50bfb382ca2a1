//! When numbers of a journal were given: since when somebody lacks what he has not acknowledged.

use std::collections::VecDeque;

/// Past this, marks are thinned out.
const MARKS_MAX: usize = 512;
/// Marks are no closer to each other than this: numbers are given once per flush.
const STEP_MS: u64 = 20;
/// Marks become one when that makes a time wrong by at most this part of its age.
const PART: u64 = 8;

/// A bounded memory of when a journal grew. The older a time, the coarser it is known: earlier than the truth by an eighth
/// of its age at most, or by [`STEP_MS`].
#[derive(Debug, Default)]
pub(super) struct Ages {
    marks: VecDeque<Mark>,
}

/// Numbers that follow each other.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The greatest.
    upto: u64,
    /// When the first of them was given, and the last.
    begun: u64,
    ended: u64,
}

impl Ages {
    /// The journal's newest number is `newest` at `now`.
    pub(super) fn note(&mut self, newest: u64, now: u64) {
        match self.marks.back_mut() {
            Some(last) if last.upto >= newest => return,
            Some(last) if now < last.begun + STEP_MS => {
                (last.upto, last.ended) = (newest, now);
                return;
            }
            None if newest == 0 => return,
            _ => {}
        }
        self.marks.push_back(Mark {
            upto: newest,
            begun: now,
            ended: now,
        });
        if self.marks.len() > MARKS_MAX {
            self.thin(now);
        }
    }

    /// Since how many milliseconds there has been a number above `after`; `None`: there is none.
    pub(super) fn since(&self, after: u64, now: u64) -> Option<u64> {
        let first = self.marks.partition_point(|mark| mark.upto <= after);
        let mark = self.marks.get(first)?;
        Some(now.saturating_sub(mark.begun))
    }

    fn thin(&mut self, now: u64) {
        let mut kept: VecDeque<Mark> = VecDeque::with_capacity(MARKS_MAX + 1);
        for mark in self.marks.drain(..) {
            match kept.back_mut() {
                // All of them then pass for as old as the first.
                Some(last)
                    if mark.ended.saturating_sub(last.begun)
                        <= now.saturating_sub(mark.ended) / PART =>
                {
                    (last.upto, last.ended) = (mark.upto, mark.ended);
                }
                _ => kept.push_back(mark),
            }
        }
        // Only after ages of ages.
        while kept.len() > MARKS_MAX {
            kept.pop_front();
        }
        self.marks = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_that_is_lacking_tells() {
        let mut ages = Ages::default();
        assert_eq!(ages.since(0, 5), None);
        ages.note(0, 5);
        assert_eq!(ages.since(0, 5), None);
        ages.note(3, 100);
        ages.note(3, 150);
        ages.note(7, 200);
        ages.note(8, 210); // within a step of the one before
        for (after, expected) in [
            (0, Some(200)),
            (2, Some(200)),
            (3, Some(100)),
            (7, Some(100)),
            (8, None),
            (9, None),
        ] {
            assert_eq!(ages.since(after, 300), expected, "{after}");
        }
    }

    #[test]
    fn a_month_takes_little_room_and_stays_nearly_right() {
        let mut ages = Ages::default();
        let mut now = 0;
        let mut given = Vec::new();
        // Bursts of flushes, and pauses that grow.
        for burst in 0..2_000u64 {
            for _ in 0..20 {
                now += 20;
                given.push(now);
                ages.note(given.len() as u64, now);
            }
            now += burst * 1_000;
            assert!(ages.marks.len() <= MARKS_MAX);
        }
        for (number, at) in given.iter().enumerate() {
            let (age, said) = (now - at, ages.since(number as u64, now).expect("an age"));
            let most = age + age / PART + STEP_MS;
            assert!((age..=most).contains(&said), "{number}: {said}, not {age}");
        }
    }
}
