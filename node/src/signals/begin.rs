//! Beginning to accept, and stopping to.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};
use tracing::{error, info};

use crate::admin;
use crate::handoff::giver::Wish;
use crate::handoff::inherited::Offer;
use crate::handoff::succession;
use crate::handoff::tables;
use crate::handoff::taker::Taker;
use crate::handoff::worker::Link;
use crate::peers;
use crate::proxy::clock;
use crate::proxy::control::Ask;
use crate::shared::Shared;

/// What it takes to begin to accept.
pub(super) struct Beginning {
    pub(super) shared: Arc<Shared>,
    pub(super) console: admin::Control,
    pub(super) link: Option<Arc<Link>>,
    pub(super) heir: watch::Sender<bool>,
    pub(super) wishes: UnboundedSender<Wish>,
    pub(super) learned: Option<tables::Learned>,
}

impl Beginning {
    /// Accepts, when the process before has stopped. `taking`: the first time, with what this process listens on.
    pub(super) async fn begin(self: Arc<Self>, taking: Option<(Taker, Offer)>) {
        let shared = &self.shared;
        if let Some((mut taker, offer)) = taking {
            let link = self.link.as_deref();
            let taken = succession::take_over(&mut taker, &offer, shared, link).await;
            // This process may be told to close its sockets while it still accepts.
            drop(offer);
            match taken {
                Ok(ways) => {
                    let _ = self.wishes.send(Wish::Ways(ways));
                    self.heir.send_replace(true);
                }
                Err(e) => {
                    error!("the process before does not hand over: {e}");
                    return shared.heritage.fail();
                }
            }
            accept(Arc::clone(shared), self.console.clone(), self.link.clone()).await;
            taker.stop_others();
        } else {
            accept(Arc::clone(shared), self.console.clone(), None).await;
        }
        if shared.health.is_accepting() {
            shared.heritage.hush().await;
        }
        report_learned(shared, self.learned);
        if let Some(link) = &self.link {
            link.served().await;
        }
    }
}

/// Opens all doors; done when every thread accepts, or has been told not to meanwhile. `asks`: the supervisor has the last word,
/// the first time.
pub(super) async fn accept(shared: Arc<Shared>, console: admin::Control, asks: Option<Arc<Link>>) {
    if shared.world.process.stopping.load(Relaxed) {
        return;
    }
    let stops = shared.health.stops();
    shared.plane.yields.store(false, SeqCst);
    console.door.send_replace(admin::Door::Open);
    peers::accept(&shared);
    // Until the tables have been learned, connections wait in the kernel's queue.
    shared.heritage.complete().await;
    shared.ready.wait().await;
    if let Some(link) = asks {
        link.opens().await;
    }
    if shared.health.stops() != stops {
        return;
    }
    everyone(&shared, |done| Ask::Accept { done }).await;
    if shared.health.stops() == stops {
        shared.health.accepts();
    }
}

/// Another worker of the same supervisor is about to take over. Traffic is accepted until that one does, so that there is no
/// moment in which nobody does; who looks in from aside waits.
pub(super) fn make_way(shared: &Shared, console: &admin::Control) {
    shared.health.stop();
    shared.plane.yields.store(true, SeqCst);
    console.door.send_replace(admin::Door::Held);
    peers::hold(shared);
    shared.health.holds();
}

/// Closes all doors, but keeps the sockets; done when no thread accepts any more. `pause`: clients are refused.
pub(super) async fn hold(shared: Arc<Shared>, console: Option<admin::Control>, pause: bool) {
    shared.health.stop();
    if let Some(console) = console {
        console.door.send_replace(admin::Door::Held);
        peers::hold(&shared);
    }
    if pause {
        shared.health.pauses();
    } else {
        shared.health.holds();
    }
    everyone(&shared, |done| Ask::Hold { pause, done }).await;
}

/// Done when threads that were told to drain have closed the sockets that nobody took over.
pub(super) async fn closed(shared: &Shared) {
    // They answer one question after the other.
    everyone(shared, |done| Ask::Hold { pause: false, done }).await;
}

async fn everyone(shared: &Shared, ask: impl Fn(oneshot::Sender<()>) -> Ask) {
    let mut answers = Vec::new();
    for worker in &shared.workers {
        let (done, answer) = oneshot::channel();
        let _ = worker.ask.send(ask(done));
        answers.push(answer);
    }
    for answer in answers {
        // A thread that died is reported elsewhere.
        let _ = answer.await;
    }
}

/// After this process has begun to accept in the place of another one.
fn report_learned(shared: &Shared, learned: Option<tables::Learned>) {
    let (Some(learned), Some(held_ms)) = (learned, shared.heritage.held_ms()) else {
        return;
    };
    let gap_ms = held_ms.map_or(0, |held_ms| clock::read().mono_ms.saturating_sub(held_ms));
    info!(
        "hand-off: {} entries of {} tables in {} ms, accept gap {gap_ms} ms.",
        learned.entries, learned.tables, learned.ms,
    );
    shared.heritage.taken_over(learned, gap_ms);
    shared.world.process.handoffs_done.fetch_add(1, Relaxed);
}
