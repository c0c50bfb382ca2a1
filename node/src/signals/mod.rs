//! The main thread after start-up: signals, table upkeep, and the end (reference: reload-and-peers 1.1).
//!
//! A process *serves*; it may *teach* its tables to the one that is to take over, *make way* for it, and, once that one
//! accepts, *drain*: finish what runs. Then it *ends*: it waits for older processes that still count here, tells peers and the process
//! that serves the last of what was counted, and is over. `life::Life` is where it is on this way; `orders` are what its
//! supervisor wants, `wishes` what processes of somebody else want, and `end` what happens from draining on.

mod begin;
mod caught;
mod end;
mod life;
mod orders;
mod parting;
mod report;
mod wishes;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use remora_core::table::Lineages;
use tracing::error;

use crate::admin;
use crate::boot::LOG_PATIENCE;
use crate::handoff::inherited::Offer;
use crate::handoff::tables;
use crate::handoff::taker::Taker;
use crate::handoff::worker;
use crate::peers;
use crate::shared::Shared;
pub use caught::{obey, postpone, postpone_stops};
use life::Life;

/// A process whose threads run.
pub struct Running {
    /// What they share.
    pub shared: Arc<Shared>,
    /// The worker threads.
    pub threads: Vec<JoinHandle<()>>,
    /// The CLI's thread.
    pub console: admin::Control,
    /// Everything it listens on, for whoever takes over.
    pub offer: Offer,
    /// The channel to the supervisor, if there is one: then nothing is accepted before it says so.
    pub supervisor: Option<worker::Start>,
    /// Whom it takes over from.
    pub taker: Taker,
    /// The socket on which others may take over.
    pub handoff: Option<(Arc<OwnedFd>, PathBuf)>,
    /// What the process before has shown.
    pub learned: Option<tables::Learned>,
    /// What peers need to be started, once the process before has let go of its lineage.
    pub peers_later: Option<(peers::Open, Arc<Lineages>)>,
}

/// Waits for the end and returns the exit code: 0 after a soft stop, 128 plus the signal's number after a hard one
/// (what a shell reports for HAProxy, which dies from the signal), 1 if a worker thread died.
pub fn wait(running: Running) -> u8 {
    let shared = Arc::clone(&running.shared);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match Life::begin(running) {
                Ok(life) => life.live().await,
                Err(why) => {
                    error!("{why}");
                    1
                }
            }
        }),
        Err(e) => {
            error!("cannot start the main event loop: {e}");
            1
        }
    };
    shared.logs.finish(LOG_PATIENCE);
    code
}
