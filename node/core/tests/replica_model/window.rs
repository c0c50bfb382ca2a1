//! A rate as the reference defines it, in absolute time: no 32-bit words, no wrapping, no idle flag.

/// One lineage's window of one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: i64,
    pub cur: i64,
    pub prev: i64,
}

impl Window {
    pub fn starting(now: i64, cur: i64) -> Window {
        Window {
            start: now - now % 2,
            cur,
            prev: 0,
        }
    }
    pub fn is_zero(self) -> bool {
        self.cur == 0 && self.prev == 0
    }
    /// `n` events at `now`, into what may be nothing yet.
    pub fn add(this: &mut Option<Window>, n: i64, now: i64, period: i64) {
        let Some(w) = this else {
            *this = Some(Window::starting(now, n));
            return;
        };
        if now - w.start < period {
            w.cur += n;
            return;
        }
        w.prev = w.cur;
        w.cur = n;
        w.start += period;
        if now - w.start >= period {
            w.prev = 0;
            w.start = now;
        }
        w.start -= w.start % 2;
    }
    /// Events of the past period, how much of it is left, events of this one.
    fn parts(self, now: i64, period: i64) -> (i128, i128, i128) {
        let age = (now - self.start).max(0);
        if age <= period {
            (self.prev.into(), (period - age).into(), self.cur.into())
        } else if age <= 2 * period {
            (self.cur.into(), (2 * period - age).into(), 0)
        } else {
            (0, 0, 0)
        }
    }
    /// The sum of windows: added up, then divided once; a lone event reads 1 for two periods.
    pub fn sum(windows: impl Iterator<Item = Window>, now: i64, period: i64) -> u64 {
        let (mut past, mut weighted, mut current) = (0, 0, 0);
        for window in windows {
            let (p, left, c) = window.parts(now, period);
            past += p;
            weighted += p * left;
            current += c;
        }
        let sum = if current == 0 && past <= 1 {
            past
        } else {
            (weighted + current * i128::from(period)) / i128::from(period)
        };
        u64::try_from(sum).unwrap()
    }
    /// Adopting an older share of one's own: one window for what was counted in two.
    pub fn adopt(this: &mut Option<Window>, old: Option<Window>, now: i64, period: i64) {
        let old = old.filter(|old| !old.is_zero());
        let (Some(mut own), Some(mut old)) = (this.filter(|own| !own.is_zero()), old) else {
            *this = old.or(*this);
            return;
        };
        for window in [&mut own, &mut old] {
            let mut present = Some(*window);
            Window::add(&mut present, 0, now, period);
            *window = present.unwrap_or(*window);
        }
        *this = Some(if old.start <= own.start && own.prev == 0 {
            old.cur += own.cur; // the own one began in the old one's period
            old
        } else {
            own.prev += Window::sum(std::iter::once(old), own.start, period) as i64;
            own
        });
    }
}
