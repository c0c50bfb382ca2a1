//! A thread's deadlines: one coarse wheel for all connections instead of a timer per read.
//!
//! Setting a deadline writes a stamp. A slot sits in at most one live place of the wheel; when that place comes up and
//! the stamp has moved on, the slot is put back further on. So a busy connection that moves its deadline with every
//! message costs a store per message, and a thread without deadlines has no tick.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::proxy::clock::{self, Clock};

/// Width of a bucket in milliseconds: how late a deadline may fire.
const TICK_MS: u64 = 8;
/// Buckets; deadlines further away than the whole wheel are put back once per round.
const BUCKETS: usize = 1024;
/// A wheel that is turned so much too late does not judge before sockets have been looked at.
const LATE_MS: u64 = 50;
/// How often they are looked at; each time brings 1,024 of them at most.
const CATCH_UP: usize = 16;

#[derive(Debug, Default)]
struct Slot {
    /// Deadline in ms; 0 = none.
    at: u64,
    /// Tick of the bucket that holds this slot; 0 = in none. Other places that still name the slot are stale.
    queued: u64,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Slot>,
    free: Vec<u32>,
    buckets: Box<[Vec<(u32, u64)>]>,
    occupied: [u64; BUCKETS / 64],
    /// Ticks up to here have been handled.
    done: u64,
}

/// The wheel of one thread.
#[derive(Debug)]
pub struct Wheel {
    inner: RefCell<Inner>,
    /// The driver sleeps until this tick (`u64::MAX`: for good).
    sleeping_until: Cell<u64>,
    driver: RefCell<Option<Waker>>,
}

impl Wheel {
    /// An empty wheel that starts at `now_ms`.
    pub fn new(now_ms: u64) -> Rc<Wheel> {
        Rc::new(Wheel {
            inner: RefCell::new(Inner {
                slots: Vec::new(),
                free: Vec::new(),
                buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
                occupied: [0; BUCKETS / 64],
                done: now_ms / TICK_MS,
            }),
            sleeping_until: Cell::new(u64::MAX),
            driver: RefCell::new(None),
        })
    }

    /// A new alarm, not set.
    pub fn alarm(self: &Rc<Wheel>) -> Alarm {
        let mut inner = self.inner.borrow_mut();
        let slot = match inner.free.pop() {
            Some(slot) => slot,
            None => {
                inner.slots.push(Slot::default());
                (inner.slots.len() - 1) as u32
            }
        };
        Alarm {
            wheel: Rc::clone(self),
            slot,
        }
    }

    fn set(&self, slot: u32, at: u64, waker: &Waker) {
        let mut inner = self.inner.borrow_mut();
        let done = inner.done;
        let entry = &mut inner.slots[slot as usize];
        match &entry.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => entry.waker = Some(waker.clone()),
        }
        entry.at = at;
        if at == 0 {
            return;
        }
        let tick = at
            .div_ceil(TICK_MS)
            .clamp(done + 1, done + BUCKETS as u64 - 1);
        if entry.queued != 0 && entry.queued <= tick {
            return;
        }
        entry.queued = tick;
        inner.put(slot, tick);
        drop(inner);
        if tick < self.sleeping_until.get() {
            self.wake_driver();
        }
    }

    fn wake_driver(&self) {
        if let Some(waker) = self.driver.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Wakes the holders of all deadlines that are over.
    pub fn advance(&self, now_ms: u64) {
        let target = now_ms / TICK_MS;
        loop {
            let mut inner = self.inner.borrow_mut();
            let Some(tick) = inner.next_tick() else {
                inner.done = inner.done.max(target);
                return;
            };
            if tick > target {
                inner.done = inner.done.max(target);
                return;
            }
            inner.done = tick;
            let index = (tick % BUCKETS as u64) as usize;
            inner.occupied[index / 64] &= !(1 << (index % 64));
            let mut nodes = std::mem::take(&mut inner.buckets[index]);
            for (slot, queued) in nodes.drain(..) {
                let entry = &mut inner.slots[slot as usize];
                if entry.queued != queued {
                    continue;
                }
                entry.queued = 0;
                if entry.at == 0 {
                    continue;
                }
                if entry.at > now_ms {
                    let again = entry
                        .at
                        .div_ceil(TICK_MS)
                        .clamp(tick + 1, tick + BUCKETS as u64 - 1);
                    entry.queued = again;
                    inner.put(slot, again);
                    continue;
                }
                entry.at = 0;
                if let Some(waker) = &entry.waker {
                    waker.wake_by_ref();
                }
            }
            // Keep the bucket's memory unless a put during the walk gave it a new vector.
            if inner.buckets[index].is_empty() && nodes.capacity() <= 4096 {
                inner.buckets[index] = nodes;
            }
        }
    }

    /// When the next bucket is due, in ms.
    fn next_ms(&self) -> Option<u64> {
        self.inner.borrow().next_tick().map(|tick| tick * TICK_MS)
    }

    /// Turns the wheel for ever. One task per thread.
    pub async fn drive(self: Rc<Wheel>, clock_origin_ms: u64) {
        let origin = tokio::time::Instant::now();
        let sleep = tokio::time::sleep_until(origin);
        tokio::pin!(sleep);
        loop {
            let next = self.next_ms();
            self.sleeping_until
                .set(next.map_or(u64::MAX, |ms| ms / TICK_MS));
            if let Some(ms) = next {
                let after = ms.saturating_sub(clock_origin_ms);
                sleep
                    .as_mut()
                    .reset(origin + std::time::Duration::from_millis(after + 1));
            }
            let mut polled = false;
            poll_fn(|cx: &mut Context<'_>| {
                if std::mem::replace(&mut polled, true) {
                    return Poll::Ready(());
                }
                let mut driver = self.driver.borrow_mut();
                match driver.as_ref() {
                    Some(known) if known.will_wake(cx.waker()) => {}
                    _ => *driver = Some(cx.waker().clone()),
                }
                if next.is_some() {
                    use std::future::Future;
                    if sleep.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending
            })
            .await;
            let mut now = clock::read().mono_ms;
            if next.is_some_and(|ms| now > ms + LATE_MS) {
                // This thread did not run for a while. What came in meanwhile came in time: it is looked at first.
                for _ in 0..CATCH_UP {
                    tokio::task::yield_now().await;
                }
                now = clock::read().mono_ms;
            }
            self.advance(now);
        }
    }
}

impl Inner {
    fn put(&mut self, slot: u32, tick: u64) {
        let index = (tick % BUCKETS as u64) as usize;
        self.buckets[index].push((slot, tick));
        self.occupied[index / 64] |= 1 << (index % 64);
    }

    /// The first tick after `done` whose bucket holds something.
    fn next_tick(&self) -> Option<u64> {
        let start = ((self.done + 1) % BUCKETS as u64) as usize;
        let words = BUCKETS / 64;
        for step in 0..=words {
            let word_index = (start / 64 + step) % words;
            let mut word = self.occupied[word_index];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let index = word_index * 64 + word.trailing_zeros() as usize;
                let ahead = (index + BUCKETS - start) % BUCKETS;
                return Some(self.done + 1 + ahead as u64);
            }
        }
        None
    }
}

/// A place in the wheel: "wake my task at T". The task compares its own deadlines with the time when it is polled.
#[derive(Debug)]
pub struct Alarm {
    wheel: Rc<Wheel>,
    slot: u32,
}

impl Alarm {
    /// Wakes the task of `cx` at `at_ms`, or a little later. Replaces what was set before.
    pub fn set(&self, at_ms: u64, cx: &Context<'_>) {
        self.wheel.set(self.slot, at_ms.max(1), cx.waker());
    }

    /// Nothing to wait for, but `cx`'s task is who to wake if somebody asks ([`Alarm::ring`]).
    pub fn unset(&self, cx: &Context<'_>) {
        self.wheel.set(self.slot, 0, cx.waker());
    }

    /// Names the alarm, so that others on this thread can wake its task.
    pub fn id(&self) -> u32 {
        self.slot
    }

    /// Completes with `Some` when `f` does, or `None` once `at_ms` (0 = never) has come.
    pub async fn within<T>(
        &self,
        clock: &Clock,
        at_ms: u64,
        mut f: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(value) = f(cx) {
                return Poll::Ready(Some(value));
            }
            if at_ms == 0 {
                self.unset(cx);
            } else if clock.ms() >= at_ms {
                return Poll::Ready(None);
            } else {
                self.set(at_ms, cx);
            }
            Poll::Pending
        })
        .await
    }
}

impl Wheel {
    /// Wakes every task that has an alarm.
    pub fn ring_all(&self) {
        let inner = self.inner.borrow();
        for waker in inner.slots.iter().filter_map(|slot| slot.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }

    /// Wakes the task behind an alarm.
    pub fn ring(&self, id: u32) {
        let inner = self.inner.borrow();
        if let Some(waker) = inner
            .slots
            .get(id as usize)
            .and_then(|slot| slot.waker.as_ref())
        {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut inner = self.wheel.inner.borrow_mut();
        let slot = self.slot;
        inner.slots[slot as usize] = Slot::default();
        inner.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicU32);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn fires_once_not_before_its_time_and_soon_after() {
        for delay in [1, 7, 8, 9, 100, 8_191, 8_192, 8_193, 30_000, 100_000] {
            let wheel = Wheel::new(1_000_003);
            let alarm = wheel.alarm();
            let (count, waker) = counted();
            let at = 1_000_003 + delay;
            alarm.set(at, &Context::from_waker(&waker));
            for now in 1_000_003..at {
                wheel.advance(now);
            }
            assert_eq!(count.0.load(Ordering::Relaxed), 0, "delay {delay}");
            for now in at..at + 20_000 {
                wheel.advance(now);
                if now == at + TICK_MS {
                    assert_eq!(count.0.load(Ordering::Relaxed), 1, "delay {delay}");
                }
            }
            assert_eq!(count.0.load(Ordering::Relaxed), 1, "delay {delay}");
        }
    }

    #[test]
    fn moving_a_deadline_keeps_only_the_last() {
        let wheel = Wheel::new(50_000);
        let alarm = wheel.alarm();
        let (count, waker) = counted();
        let cx = Context::from_waker(&waker);
        alarm.set(60_000, &cx);
        alarm.set(51_000, &cx);
        alarm.set(55_000, &cx);
        wheel.advance(54_999);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        wheel.advance(55_016);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        wheel.advance(90_000);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_dropped_alarm_is_silent_and_its_slot_is_used_again() {
        let wheel = Wheel::new(0);
        let (count, waker) = counted();
        let alarm = wheel.alarm();
        alarm.set(100, &Context::from_waker(&waker));
        let id = alarm.id();
        drop(alarm);
        let next = wheel.alarm();
        assert_eq!(next.id(), id);
        wheel.advance(1_000);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert_eq!(wheel.next_ms(), None);
    }

    #[test]
    fn a_long_pause_of_the_thread_fires_everything_due() {
        let wheel = Wheel::new(0);
        let (count, waker) = counted();
        let alarms: Vec<Alarm> = (0..100).map(|_| wheel.alarm()).collect();
        for (i, alarm) in alarms.iter().enumerate() {
            alarm.set(10 + i as u64 * 313, &Context::from_waker(&waker));
        }
        wheel.advance(1_000_000);
        assert_eq!(count.0.load(Ordering::Relaxed), 100);
    }
}
