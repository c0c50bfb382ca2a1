//! Rates: events per period, in three 32-bit words, read lazily (reference: stick-tables 4).
//!
//! Words are milliseconds modulo 2^32, so every difference goes through [`age_ms`]. `Table::maintain` clears windows
//! whose two periods are over long before a difference could become ambiguous.

/// A clock reading may be this much older than a stamp it is compared with: threads read the clock once per batch of
/// events. Such a stamp counts as "now".
const SKEW_MS: u32 = 1 << 16;

/// Milliseconds from `then` to `now`, both modulo 2^32; 0 when `then` is slightly in the future.
pub fn age_ms(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX - SKEW_MS { 0 } else { age }
}

/// State of one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// When the current period began: ms modulo 2^32, even. The lowest bit set means that nothing was counted for
    /// (at least) two periods, or ever.
    pub start: u32,
    /// Events since `start`.
    pub cur: u32,
    /// Events in the period before.
    pub prev: u32,
}

impl Rate {
    /// Nothing counted.
    pub const IDLE: Rate = Rate {
        start: 1,
        cur: 0,
        prev: 0,
    };

    /// A window that begins now with `cur` events: what assigning a rate means.
    pub fn starting(now: u32, cur: u32) -> Rate {
        Rate {
            start: now & !1,
            cur,
            prev: 0,
        }
    }

    /// Adds `n` events at `now`; the word stops at its maximum. `period` 0 is taken as 1.
    pub fn add(&mut self, n: u32, now: u32, period: u32) {
        let period = period.max(1);
        if self.start & 1 != 0 {
            *self = Rate::starting(now, n);
            return;
        }
        let age = age_ms(now, self.start);
        if age < period {
            self.cur = self.cur.saturating_add(n);
            return;
        }
        self.prev = self.cur;
        self.cur = n;
        self.start = self.start.wrapping_add(period);
        if age - period >= period {
            self.prev = 0;
            self.start = now;
        }
        self.start &= !1;
    }

    /// Events per period as of `now`: the current period plus the part of the previous one that has not faded yet.
    pub fn read(&self, now: u32, period: u32) -> u64 {
        if self.start & 1 != 0 {
            return 0;
        }
        let period = i64::from(period.max(1));
        let mut left = period - i64::from(age_ms(now, self.start));
        let (past, now) = if left < 0 {
            left += period;
            (if left >= 0 { self.cur } else { 0 }, 0)
        } else {
            (self.prev, self.cur)
        };
        if now == 0 && past <= 1 {
            return u64::from(past); // a lone event reads 1 for two periods and never flaps
        }
        // All factors are below 2^32 and `left <= period`, so the sum stays below 2^64.
        let (left, period) = (left.max(0) as u64, period as u64);
        (u64::from(past) * left + u64::from(now) * period) / period
    }

    /// Events of the period in progress (0 once it is over).
    pub fn current(&self, now: u32, period: u32) -> u32 {
        if self.start & 1 == 0 && age_ms(now, self.start) < period.max(1) {
            self.cur
        } else {
            0
        }
    }

    /// Whether it reads 0 now and will go on to, unless something is added.
    pub fn is_over(&self, now: u32, period: u32) -> bool {
        if self.start & 1 != 0 || (self.cur == 0 && self.prev == 0) {
            return true;
        }
        let (age, period) = (age_ms(now, self.start), period.max(1));
        age > period && age - period > period
    }

    /// Keeps `start` close enough to the clock for [`age_ms`] to be right: clears a window that reads 0 for good, and
    /// moves those of more than six days forward (which may shift where their next period begins, nothing else).
    /// Returns whether anything changed.
    pub fn settle(&mut self, now: u32, period: u32) -> bool {
        const LONG_MS: u32 = 1 << 29;
        let period = period.max(1);
        if self.start & 1 != 0 {
            return false;
        }
        let age = age_ms(now, self.start);
        if age > period && age - period > period {
            *self = Rate::IDLE;
        } else if age >= period && period > LONG_MS {
            self.add(0, now, period);
        } else {
            return false;
        }
        true
    }
}

/// The rate of what several lineages counted in windows of their own: their numerators are added and divided once, and
/// the rule for lone events looks at the totals. So 50 nodes with one event each read 50 until the events fade together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateSum {
    past_left: u128,
    past: u64,
    now: u64,
}

impl RateSum {
    #[inline]
    pub fn add(&mut self, rate: Rate, now: u32, period: u32) {
        if rate.start & 1 != 0 {
            return;
        }
        let period = period.max(1);
        let age = age_ms(now, rate.start);
        if age <= period {
            self.now += u64::from(rate.cur);
            self.past += u64::from(rate.prev);
            self.past_left += u128::from(u64::from(rate.prev) * u64::from(period - age));
        } else if age - period <= period {
            self.past += u64::from(rate.cur);
            self.past_left +=
                u128::from(u64::from(rate.cur) * (2 * u64::from(period) - u64::from(age)));
        }
    }
    pub fn read(self, period: u32) -> u64 {
        if self.now == 0 && self.past <= 1 {
            return self.past;
        }
        let past = match u64::try_from(self.past_left) {
            Ok(narrow) => narrow / u64::from(period.max(1)),
            Err(_) => (self.past_left / u128::from(period.max(1))) as u64,
        };
        // The current periods need no division: their numerator is a multiple of the period.
        self.now.saturating_add(past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's checks: 100 events at t=0, P=10 s.
    #[test]
    fn reference_points() {
        let mut r = Rate::IDLE;
        r.add(100, 0, 10_000);
        for (t, expected) in [
            (0, 100),
            (9_900, 100),
            (10_000, 100),
            (15_000, 50),
            (19_900, 1),
            (19_999, 0),
            (20_000, 0),
            (60_000, 0),
        ] {
            assert_eq!(r.read(t, 10_000), expected, "t={t}");
        }
    }

    #[test]
    fn one_event_reads_one_for_two_periods() {
        let mut r = Rate::IDLE;
        r.add(1, 0, 10_000);
        for t in (0..=20_000).step_by(50) {
            assert_eq!(r.read(t, 10_000), 1, "t={t}");
        }
        assert_eq!(r.read(20_001, 10_000), 0);
    }

    #[test]
    fn periods_rotate_and_start_stays_even() {
        let mut r = Rate::IDLE;
        r.add(10, 1_001, 10_000);
        assert_eq!(r.start, 1_000);
        r.add(5, 12_345, 10_000);
        assert_eq!(
            r,
            Rate {
                start: 11_000,
                cur: 5,
                prev: 10
            }
        );
        r.add(7, 31_001, 10_000); // a whole period was silent
        assert_eq!(
            r,
            Rate {
                start: 31_000,
                cur: 7,
                prev: 0
            }
        );
        assert_eq!(
            Rate::starting(77, 3),
            Rate {
                start: 76,
                cur: 3,
                prev: 0
            }
        );
    }

    #[test]
    fn the_clock_may_wrap_and_threads_may_lag() {
        let mut r = Rate::IDLE;
        let start = u32::MAX - 99; // even, 100 ms before the wrap
        r.add(8, start, 1_000);
        r.add(2, start.wrapping_add(300), 1_000);
        assert_eq!((r.start, r.cur), (start, 10));
        assert_eq!(r.read(start.wrapping_add(1_500), 1_000), 5);
        assert_eq!(
            r.read(start.wrapping_sub(40), 1_000),
            10,
            "a reader slightly behind"
        );
        r.add(1, start.wrapping_sub(40), 1_000);
        assert_eq!(r.cur, 11, "a writer slightly behind");
    }

    #[test]
    fn words_stop_at_their_maximum() {
        let mut r = Rate::starting(0, u32::MAX - 1);
        r.add(5, 10, 1_000);
        assert_eq!(r.cur, u32::MAX);
        r.add(u32::MAX, 1_000, 1_000);
        assert_eq!(r.read(1_000, 1_000), 2 * u64::from(u32::MAX));
        assert_eq!(
            Rate {
                start: 0,
                cur: 1,
                prev: u32::MAX
            }
            .read(0, i32::MAX as u32),
            u64::from(u32::MAX) + 1
        );
    }

    #[test]
    fn a_sum_of_one_reads_like_the_rate_itself() {
        for (cur, prev) in [(0, 0), (1, 0), (0, 1), (7, 9), (u32::MAX, u32::MAX)] {
            let rate = Rate {
                start: 5_000,
                cur,
                prev,
            };
            for now in (5_000..26_000).step_by(7) {
                let mut sum = RateSum::default();
                sum.add(rate, now, 10_000);
                assert_eq!(
                    sum.read(10_000),
                    rate.read(now, 10_000),
                    "{rate:?} at {now}"
                );
            }
        }
    }

    #[test]
    fn many_lone_events_fade_like_as_many_events() {
        let read = |now| {
            let mut sum = RateSum::default();
            for _ in 0..50 {
                sum.add(Rate::starting(0, 1), now, 10_000);
            }
            sum.read(10_000)
        };
        assert_eq!(
            [0, 10_000, 15_000, 19_000, 19_900].map(read),
            [50, 50, 25, 5, 0]
        );
    }

    #[test]
    fn settle_clears_what_is_over() {
        let mut r = Rate::starting(0, 1);
        assert!(
            !r.settle(20_000, 10_000),
            "the anti-flap rule still shows it"
        );
        assert!(r.settle(20_001, 10_000));
        assert_eq!(r, Rate::IDLE);
        assert_eq!(r.current(20_001, 10_000), 0);
        let long = i32::MAX as u32;
        let mut r = Rate::starting(0, 90);
        let later = long + long / 2;
        let before = r.read(later, long);
        assert!(r.settle(later, long));
        assert_eq!((r.prev, r.cur), (90, 0));
        assert!(r.read(later, long).abs_diff(before) <= 1);
    }
}
