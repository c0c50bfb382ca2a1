//! Whether this process accepts and will go on: half of what `/readyz` says. The rest is in [`crate::shared::Shared`].

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Set by the main thread, read by others.
#[derive(Debug, Default)]
pub struct Health {
    accepting: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// Whether connections are accepted now.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Relaxed);
    }

    /// What was set last; at first, `false`.
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Relaxed)
    }

    /// From now on the process finishes what runs and ends.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether it does.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}
