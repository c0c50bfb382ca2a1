//! Whether this process accepts and will go on: what `/readyz` says apart from the peers (see
//! [`crate::shared::Shared::not_ready`]), and which process answers on an admin socket that is handed from one to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::watch;

/// Whose turn it is to answer on sockets that another process served before, or will serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// Still, or again, the other one's.
    #[default]
    Others,
    /// This process's.
    Own,
    /// For good the other one's, but for sockets with these ids, which nobody took over.
    Gone(Arc<[u64]>),
}

/// Set by the main thread, read by others.
#[derive(Debug, Default)]
pub struct Health {
    accepting: AtomicBool,
    draining: AtomicBool,
    retired: AtomicBool,
    /// How often accepting was to stop.
    stops: AtomicU64,
    turn: watch::Sender<Turn>,
    paused: watch::Sender<bool>,
}

impl Health {
    /// All threads accept connections.
    pub fn accepts(&self) {
        self.accepting.store(true, Relaxed);
        self.paused.send_replace(false);
        self.turn.send_replace(Turn::Own);
    }

    /// How often accepting was to stop so far. Who waits before it accepts compares.
    pub fn stops(&self) -> u64 {
        self.stops.load(Relaxed)
    }

    /// Accepting is to stop.
    pub fn stop(&self) {
        self.stops.fetch_add(1, Relaxed);
    }

    /// Clients are refused until further notice.
    pub fn pauses(&self) {
        self.accepting.store(false, Relaxed);
        self.paused.send_replace(true);
    }

    /// Follows whether clients are refused for a while.
    pub fn pausing(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    /// Another process is about to take over. This one is as ready as it was for whoever asked before.
    pub fn holds(&self) {
        self.turn.send_replace(Turn::Others);
    }

    /// From now on the process finishes what runs and ends. `orphans`: another one has taken over all sockets but these.
    pub fn drains(&self, orphans: Option<Arc<[u64]>>) {
        // In this order: nobody who asked before the change may hear of the draining.
        if let Some(orphans) = orphans {
            self.turn.send_replace(Turn::Gone(orphans));
        }
        self.draining.store(true, Relaxed);
    }

    /// From now on nothing is left to do but to answer who asks, until somebody ends the process.
    pub fn retires(&self) {
        self.retired.store(true, Relaxed);
    }

    /// Whether another process, which does not belong to this one's supervisor, has taken over for good.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// Whether connections are accepted.
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Relaxed)
    }

    /// Whether the process will end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Follows the turns.
    pub fn turns(&self) -> watch::Receiver<Turn> {
        self.turn.subscribe()
    }
}
