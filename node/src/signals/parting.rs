//! Between the word that another process may take over and the moment when it accepts. Until then this one does, so that
//! there is no time in which nobody accepts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::handoff::succession::Leaving;
use crate::handoff::tables::{Fate, Teacher};

/// The word has been given.
pub(super) struct Parting {
    /// Sockets that nobody took over.
    pub(super) orphans: Arc<[u64]>,
    /// By the supervisor.
    is_final: bool,
    until: Instant,
}

impl Parting {
    /// From now on.
    pub(super) fn new(orphans: Vec<u64>, is_final: bool) -> Parting {
        Parting {
            orphans: orphans.into(),
            is_final,
            until: Instant::now() + ACCEPT_MAX,
        }
    }
}

/// Completes when this process has to leave (`true`), or to go on after all: the other one has ended, and nobody replaces it.
pub(super) async fn parted(
    parting: &Option<Parting>,
    teacher: Option<&Teacher>,
    leaving: Option<&Leaving>,
) -> bool {
    let Some(parting) = parting else {
        return std::future::pending().await;
    };
    // Without tables, nothing is accepted here since it was asked to make way.
    let Some(teacher) = teacher else { return true };
    match timeout_at(parting.until, teacher.fate()).await {
        Ok(Fate::Accepts) => true,
        Ok(Fate::Gone) => match leaving {
            // A supervisor that has heard the word replaces it at once, and asks nobody any more.
            Some(leaving) if parting.is_final && !leaving.is_alone() => true,
            Some(leaving) => leaving.will_be_replaced().await,
            None => true,
        },
        Err(_) => {
            warn!("the process that takes over does not say that it accepts.");
            true
        }
    }
}

/// It has nothing left to do before it accepts.
const ACCEPT_MAX: Duration = Duration::from_secs(10);
