//! What all threads of the process share.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use remora_config::plan::Plan;
use remora_core::world::World;

use crate::endpoint::exporter::Exporter;
use crate::handoff::frames::Reloads;
use crate::handoff::tables::Heritage;
use crate::health::Health;
use crate::observe::log::Logs;
use crate::observe::peaks::Peaks;
use crate::peers::{Readiness, Section};
use crate::proxy::DataPlane;
use crate::proxy::control::WorkerHandle;

/// Built once by `boot`, then handed to every thread in an `Arc`.
#[allow(missing_docs)]
pub struct Shared {
    pub plan: Plan,
    pub world: World,
    pub logs: Logs,
    /// Highest rates seen.
    pub peaks: Peaks,
    /// One per worker thread.
    pub workers: Vec<WorkerHandle>,
    /// What worker threads share with each other: [`DataPlane::new`].
    pub plane: DataPlane,
    /// Traffic waits for this.
    pub ready: Readiness,
    /// What was taken over from the process before.
    pub heritage: Heritage,
    /// Running `peers` sections; set once, when they are started.
    pub peers: OnceLock<Vec<Arc<Section>>>,
    /// Whether this process should get traffic.
    pub health: Health,
    /// What the supervisor has said of reloads; nothing without one.
    pub reloads: Mutex<Option<Reloads>>,
    /// Makes metrics pages for workers.
    pub exporter: Exporter,
}

impl Shared {
    /// Reasons for which this process should get no traffic, a line each; none: it is ready.
    pub fn not_ready(&self) -> Vec<String> {
        if self.health.is_retired() {
            return vec!["retired: another process has taken over".into()];
        }
        if self.health.is_draining() {
            return vec!["draining: it finishes what runs and will end".into()];
        }
        if !self.ready.is_ready() {
            return vec!["learning: peers have not taught the tables yet".into()];
        }
        if !self.health.is_accepting() {
            return vec!["starting or paused: it does not accept connections".into()];
        }
        Vec::new()
    }
}
