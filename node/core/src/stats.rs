//! Counters of proxies, servers and the process: relaxed atomics, read by rules (`fe_conn`, `nbsrv`), `show stat`,
//! `show info`.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use parking_lot::Mutex;

use crate::table::{Rate, age_ms};

/// Frontend side of a proxy. (owner: rule/stats; fields are added as needed, named after the `show stat` columns)
#[derive(Debug, Default)]
#[repr(align(128))]
#[allow(missing_docs)]
pub struct FrontStats {
    /// Current connections (`scur`).
    pub scur: AtomicU32,
    pub smax: AtomicU32,
    /// Connections counted as sessions (`stot`).
    pub stot: AtomicU64,
    pub bin: AtomicU64,
    pub bout: AtomicU64,
    pub dreq: AtomicU64,
    pub dresp: AtomicU64,
    pub ereq: AtomicU64,
    pub dcon: AtomicU64,
    pub dses: AtomicU64,
    pub conn_tot: AtomicU64,
    pub req_tot: AtomicU64,
    pub intercepted: AtomicU64,
    /// hrsp_1xx … hrsp_5xx, hrsp_other.
    pub hrsp: [AtomicU64; 6],
    pub conn_rate: FreqCounter,
    pub sess_rate: FreqCounter,
    pub req_rate: FreqCounter,
}

/// Backend side of a proxy.
#[derive(Debug, Default)]
#[repr(align(128))]
#[allow(missing_docs)]
pub struct BackStats {
    pub scur: AtomicU32,
    pub smax: AtomicU32,
    pub qcur: AtomicU32,
    pub qmax: AtomicU32,
    pub stot: AtomicU64,
    pub bin: AtomicU64,
    pub bout: AtomicU64,
    pub dreq: AtomicU64,
    pub dresp: AtomicU64,
    pub econ: AtomicU64,
    pub eresp: AtomicU64,
    pub wretr: AtomicU64,
    pub wredis: AtomicU64,
    pub lbtot: AtomicU64,
    pub cli_abrt: AtomicU64,
    pub srv_abrt: AtomicU64,
    pub req_tot: AtomicU64,
    pub connect: AtomicU64,
    pub reuse: AtomicU64,
    pub hrsp: [AtomicU64; 6],
    pub sess_rate: FreqCounter,
    pub last_sess_ms: AtomicU64,
}

/// A server: its counters and its live state.
#[derive(Debug, Default)]
#[repr(align(128))]
#[allow(missing_docs)]
pub struct ServerStats {
    /// Requests or TCP sessions in progress (`scur`): what `maxconn` limits.
    pub scur: AtomicU32,
    pub smax: AtomicU32,
    pub qcur: AtomicU32,
    pub qmax: AtomicU32,
    pub stot: AtomicU64,
    pub bin: AtomicU64,
    pub bout: AtomicU64,
    pub dresp: AtomicU64,
    pub econ: AtomicU64,
    pub eresp: AtomicU64,
    pub wretr: AtomicU64,
    pub wredis: AtomicU64,
    pub lbtot: AtomicU64,
    pub cli_abrt: AtomicU64,
    pub srv_abrt: AtomicU64,
    pub req_tot: AtomicU64,
    pub connect: AtomicU64,
    pub reuse: AtomicU64,
    pub idle: AtomicU32,
    pub hrsp: [AtomicU64; 6],
    pub sess_rate: FreqCounter,
    pub last_sess_ms: AtomicU64,
    /// Effective weight 0-256.
    pub weight: AtomicU32,
    /// Administrative state bits: 1 = maintenance, 8 = drain (values as in `show servers state`).
    pub admin: AtomicU32,
}

/// Gives a `totals` method: everything of it that only ever grows.
macro_rules! totals {
    ($whose:ident: $($counter:ident)*) => {
        impl $whose {
            /// What only ever grows, in an order that two versions of the program agree on: new ones go to the end.
            pub fn totals(&self) -> impl Iterator<Item = &AtomicU64> {
                [$(&self.$counter),*].into_iter().chain(&self.hrsp)
            }
        }
    };
}
totals!(FrontStats: stot bin bout dreq dresp ereq dcon dses conn_tot req_tot intercepted);
totals!(BackStats: stot bin bout dreq dresp econ eresp wretr wredis lbtot cli_abrt srv_abrt req_tot connect reuse);
totals!(ServerStats: stot bin bout dresp econ eresp wretr wredis lbtot cli_abrt srv_abrt req_tot connect reuse);

/// Events per second with the reference's rate formula (stick-tables 4) and a fixed period of one second. Adding and
/// reading never wait, but for the one event per second that begins a new period.
///
/// Time is kept modulo 2^32 ms: a counter that rests for 49.7 days may show its last second once more.
#[derive(Debug, Default)]
pub struct FreqCounter {
    /// High word: start of the current period in ms, even, with the lowest bit telling which `prev` belongs to it. Low
    /// word: events of the current period. All zero: nothing was ever counted.
    start_and_cur: AtomicU64,
    /// Events of the period before, for each value of that bit. The other one is prepared before the bit changes, so
    /// readers never see a new period with an old past.
    prev: [AtomicU32; 2],
    rotating: Mutex<()>,
}

/// Period of a [`FreqCounter`] in milliseconds.
const SECOND_MS: u32 = 1000;

/// `start_and_cur` taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Second {
    start: u32,
    bit: u32,
    cur: u32,
}

impl Second {
    fn unpack(word: u64) -> Second {
        let high = (word >> 32) as u32;
        Second {
            start: high & !1,
            bit: high & 1,
            cur: word as u32,
        }
    }
    fn pack(self) -> u64 {
        u64::from(self.start | self.bit) << 32 | u64::from(self.cur)
    }
}

impl FreqCounter {
    /// Counts `n` events.
    pub fn add(&self, n: u32, now_ms: u64) {
        let now = now_ms as u32;
        let mut word = self.start_and_cur.load(Acquire);
        loop {
            let second = Second::unpack(word);
            if word == 0 || age_ms(now, second.start) >= SECOND_MS {
                let _one = self.rotating.lock();
                self.rotate(now);
                word = self.start_and_cur.load(Acquire);
                if word != 0 && age_ms(now, Second::unpack(word).start) >= SECOND_MS {
                    continue;
                }
            }
            let second = Second::unpack(word);
            let more = Second {
                cur: second.cur.saturating_add(n),
                ..second
            };
            match self
                .start_and_cur
                .compare_exchange_weak(word, more.pack(), AcqRel, Acquire)
            {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// Begins a new period if the current one is over. Only one thread at a time does this.
    fn rotate(&self, now: u32) {
        let mut word = self.start_and_cur.load(Acquire);
        loop {
            let old = Second::unpack(word);
            let age = age_ms(now, old.start);
            if word != 0 && age < SECOND_MS {
                return; // another thread was faster
            }
            let silent = word == 0 || age - SECOND_MS >= SECOND_MS;
            let start = if silent {
                now & !1
            } else {
                old.start.wrapping_add(SECOND_MS)
            };
            let new = Second {
                start,
                bit: old.bit ^ 1,
                cur: 0,
            };
            self.prev_of(new)
                .store(if silent { 0 } else { old.cur }, Release);
            match self
                .start_and_cur
                .compare_exchange(word, new.pack(), AcqRel, Acquire)
            {
                Ok(_) => return,
                Err(other) => word = other, // events of threads whose clock is a little behind
            }
        }
    }

    fn prev_of(&self, second: Second) -> &AtomicU32 {
        &self.prev[second.bit as usize & 1]
    }

    /// Events per second as of now.
    pub fn rate(&self, now_ms: u64) -> u32 {
        let mut word = self.start_and_cur.load(Acquire);
        loop {
            if word == 0 {
                return 0;
            }
            let second = Second::unpack(word);
            let prev = self.prev_of(second).load(Acquire);
            let again = self.start_and_cur.load(Acquire);
            let check = Second::unpack(again);
            if (check.start, check.bit) == (second.start, second.bit) {
                let rate = Rate {
                    start: check.start,
                    cur: check.cur,
                    prev,
                };
                return u32::try_from(rate.read(now_ms as u32, SECOND_MS)).unwrap_or(u32::MAX);
            }
            word = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rate_formula() {
        let counter = FreqCounter::default();
        assert_eq!(counter.rate(5_000), 0);
        for (add, now, expected) in [
            (100, 5_000, 100),
            (0, 5_999, 100),
            (50, 6_500, 100), // 50 + half of 100
            (0, 6_750, 75),
            (0, 7_000, 50),
            (1, 9_000, 1), // a whole second was silent
            (0, 10_999, 1),
        ] {
            if add > 0 {
                counter.add(add, now);
            }
            assert_eq!(counter.rate(now), expected, "at {now}");
        }
        assert_eq!(counter.rate(11_001), 0);
    }

    #[test]
    fn same_as_a_table_rate_under_any_steps() {
        let (counter, mut rate) = (FreqCounter::default(), Rate::IDLE);
        let (mut now, mut x) = (123_456_u64, 7_u64);
        for _ in 0..20_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += (x >> 33) % 700;
            let n = (x >> 50) as u32 % 9 + 1;
            counter.add(n, now);
            rate.add(n, now as u32, SECOND_MS);
            let later = now + (x >> 40) % 2_500;
            assert_eq!(
                u64::from(counter.rate(later)),
                rate.read(later as u32, SECOND_MS)
            );
        }
    }

    #[test]
    fn loses_nothing_between_threads() {
        let counter = FreqCounter::default();
        counter.add(1, 1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000_u64).for_each(|i| counter.add(1, 2_000 + i / 20)));
            }
        });
        assert_eq!(
            Second::unpack(counter.start_and_cur.load(Acquire)).cur,
            40_000
        );
    }
}
