//! Time for a worker thread: read once per batch of events, not once per question.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use remora_core::time::Now;
use rustix::time::{ClockId, clock_gettime};

thread_local! {
    /// Set by the runtime each time it comes back from waiting for events.
    static STALE: Cell<bool> = const { Cell::new(true) };
}

/// How long the distance between the two clocks is taken for constant.
const WALL_REFRESH_MS: u64 = 100;

/// Added to the machine's monotonic clock, which begins near 0 when the machine does: what peers tell may be older than
/// this machine has been up, and its age has to be subtracted from the time. 32-bit times do not notice.
const ORIGIN_MS: u64 = 1 << 32;

/// Questions answered from one reading at most: a thread that never goes to sleep still sees time pass.
const READING_USES_MAX: u8 = 48;

/// Marks this thread's reading as old. Called from the runtime's unpark hook.
pub fn invalidate() {
    STALE.set(true);
}

/// Reads both clocks now. The monotonic origin is the machine's, so all threads agree.
pub fn read() -> Now {
    let mono = clock_gettime(ClockId::Monotonic);
    // Through libc, so that a test can preload another wall clock.
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        mono_ms: ORIGIN_MS + (mono.tv_sec as u64) * 1000 + (mono.tv_nsec as u64) / 1_000_000,
        wall_us: wall.as_micros() as u64,
    }
}

/// The cached reading of one thread.
#[derive(Debug)]
pub struct Clock {
    now: Cell<Now>,
    uses: Cell<u8>,
    /// The last reading of both clocks: microseconds of the monotonic one, and the wall clock's.
    base: Cell<(u64, u64)>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock {
            now: Cell::new(read()),
            uses: Cell::new(READING_USES_MAX),
            base: Cell::new((0, 0)),
        }
    }
}

impl Clock {
    /// The time, at most one batch of events old.
    #[inline]
    pub fn now(&self) -> Now {
        let uses = self.uses.get();
        if uses >= READING_USES_MAX || STALE.get() {
            return self.refresh();
        }
        self.uses.set(uses + 1);
        self.now.get()
    }

    #[cold]
    fn refresh(&self) -> Now {
        STALE.set(false);
        self.uses.set(0);
        self.now.set(self.read());
        self.now.get()
    }

    /// One clock call instead of two, most of the time.
    fn read(&self) -> Now {
        let mono = clock_gettime(ClockId::Monotonic);
        let mono_us = (mono.tv_sec as u64) * 1_000_000 + (mono.tv_nsec as u64) / 1000;
        let (base_us, wall_us) = self.base.get();
        if mono_us - base_us < WALL_REFRESH_MS * 1000 {
            return Now {
                mono_ms: ORIGIN_MS + mono_us / 1000,
                wall_us: wall_us + (mono_us - base_us),
            };
        }
        let now = read();
        self.base.set((mono_us, now.wall_us));
        now
    }

    /// Monotonic milliseconds, see [`Clock::now`].
    #[inline]
    pub fn ms(&self) -> u64 {
        self.now().mono_ms
    }
}
