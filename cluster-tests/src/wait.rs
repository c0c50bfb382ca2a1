//! Polling with a deadline: the only place of the harness that pauses.

use std::time::{Duration, Instant};

/// How long [`until`] waits before the test fails. Generous, because CI machines stall; nothing depends on it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(45);

const PAUSE: Duration = Duration::from_millis(3);

/// Calls `probe` until it yields something, and fails the test with `what` after [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    match until_within(PATIENCE, probe) {
        Some(found) => found,
        None => panic!("gave up after {PATIENCE:?}: {what}"),
    }
}

/// As [`until`], for conditions without a value.
#[track_caller]
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) {
    until(what, || probe().then_some(()));
}

/// Calls `probe` until it yields something or `patience` is over.
pub fn until_within<T>(patience: Duration, probe: impl FnMut() -> Option<T>) -> Option<T> {
    poll(PAUSE, patience, probe)
}

/// As [`until_within`], with `pause` between two probes: for what is measured more finely, or must be asked less often.
pub fn poll<T>(
    pause: Duration,
    patience: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if start.elapsed() >= patience {
            return None;
        }
        pass(pause);
    }
}

/// Lets `span` pass, for load that keeps a pace or is measured for so long. Never to wait for an event.
pub fn pace(span: Duration) {
    if !span.is_zero() {
        pass(span);
    }
}

/// Lets `span` pass. For the few things that can only be observed over a stretch of time (CPU use, a timer that must not
/// fire); never to wait for an event.
pub fn observe_for(span: Duration) {
    pass(span);
}

#[allow(clippy::disallowed_methods)] // everything that pauses comes by here
fn pass(span: Duration) {
    std::thread::sleep(span);
}
