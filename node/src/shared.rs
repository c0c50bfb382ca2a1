//! What all threads of the process share.

use std::sync::{Arc, OnceLock};

use remora_config::plan::Plan;
use remora_core::world::World;

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
    /// Running `peers` sections; set once, when they are started.
    pub peers: OnceLock<Vec<Arc<Section>>>,
}
