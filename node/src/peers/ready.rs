//! When a node may accept traffic: once every `peers` section has learned what the others know.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use tokio::sync::watch;

/// Counts sections that are not ready. Shared by all threads.
#[derive(Debug)]
pub struct Readiness {
    waiting_for: AtomicUsize,
    ready: watch::Sender<bool>,
}

impl Readiness {
    /// So many have to become ready.
    pub fn of(sections: usize) -> Readiness {
        Readiness {
            waiting_for: AtomicUsize::new(sections),
            ready: watch::Sender::new(sections == 0),
        }
    }
    /// None is any more: so many have to become ready, which have not been started yet.
    pub fn begin_again(&self, sections: usize) {
        self.waiting_for.store(sections, SeqCst);
        self.ready.send_replace(sections == 0);
    }
    /// One more is.
    pub(super) fn one_more(&self) {
        // Sections that continue another process's are not waited for.
        if !self.is_ready() && self.waiting_for.fetch_sub(1, SeqCst) == 1 {
            self.ready.send_replace(true);
        }
    }
    /// Whether all are.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }
    /// Completes when all are.
    pub async fn wait(&self) {
        // Cannot fail: the sender is alive as long as `self`.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}
