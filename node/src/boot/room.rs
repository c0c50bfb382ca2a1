//! Addresses that are taken: by a process that makes room for this one, or by one that has just ended.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::handoff::taker::Taker;

/// Opens something that listens. Where an address is taken, processes that are to be stopped are asked to make room, and one that
/// has just ended gets the time to let go.
///
/// # Errors
/// What `open` said last, when the time is over.
pub(super) fn with_room<T, E: Debug>(
    taker: &Taker,
    mut open: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut opened = open();
    if opened.is_ok() {
        return opened;
    }
    let asks = taker.can_ask_for_room();
    if asks {
        taker.ask_for_room();
    }
    let begun = Instant::now();
    let mut said = false;
    while let Err(why) = &opened {
        let taken = format!("{why:?}").contains(TAKEN);
        let bereft = taken && taker.is_bereft();
        let patience = match (taken, asks) {
            (true, true) => TAKEN_MAX,
            (true, false) if bereft => TAKEN_MAX,
            (false, true) => OTHER_MAX,
            (_, false) => Duration::ZERO,
        };
        if begun.elapsed() >= patience {
            break;
        }
        if bereft && !said {
            said = true;
            warn!(
                "an address is taken, and the process to take over from has ended: trying again for {} s.",
                TAKEN_MAX.as_secs()
            );
        }
        std::thread::sleep(PAUSE);
        opened = open();
    }
    opened
}

/// What the system says of an address that is taken.
const TAKEN: &str = "Address already in use";
/// How long a process may take to make room on a machine that stalls, or the system to close the sockets of one that has ended: it
/// gives memory back first, and workers whose supervisor was killed have to notice.
const TAKEN_MAX: Duration = Duration::from_secs(5);
/// How long what goes wrong for another reason may be the fault of who is about to make room.
const OTHER_MAX: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);
