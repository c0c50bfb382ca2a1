//! Small helpers around the shared atomic counters.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Adds to a counter that nothing is decided upon.
#[inline]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Raises a maximum.
#[inline]
pub(crate) fn raise(maximum: &AtomicU32, value: u32) {
    if maximum.load(Ordering::Relaxed) < value {
        maximum.fetch_max(value, Ordering::Relaxed);
    }
}

/// Takes a place if fewer than `limit` are taken; returns the number taken now.
#[inline]
pub(crate) fn take_place(places: &AtomicU32, limit: u32) -> Option<u32> {
    let now = places.fetch_add(1, Ordering::SeqCst) + 1;
    if now > limit {
        places.fetch_sub(1, Ordering::SeqCst);
        return None;
    }
    Some(now)
}

/// One event on a rate.
#[inline]
pub(crate) fn tick(rate: &remora_core::stats::FreqCounter, now_ms: u64) {
    rate.add(1, now_ms);
}
