//! Passing tables, counters and run-time settings to the worker that takes over.
//!
//! The old worker *teaches* in a thread of its own ([`Teacher`]): all entries, then what changed meanwhile, again and again;
//! when the new one is ready, the last changes, and *Sealed*. It accepts until the new one says that it does, and tells every
//! few milliseconds what it still counts, until its last connection is gone. The new one *learns* before it says that it is
//! ready ([`learn`]), and keeps a ledger of what each draining process holds ([`Heritage`]): when one dies, its trackers end.
//!
//! Every message of a draining process has a number and is acknowledged; what is not, is sent again to whoever serves then.
//! The ledgers, with the numbers, are passed on at the next reload. So each event is counted once, in the process that
//! serves, whichever that is.

mod convert;
mod crew;
mod drain;
mod fit;
mod heritage;
mod learn;
mod teach;
mod totals;

use std::io;
use std::time::Duration;

pub use heritage::{Heritage, Hubs, Stage};
pub use learn::{Learned, Learner, learn};
pub use teach::{Fate, Teacher};

use super::channel::Channel;
use super::frames::Frame;
use super::frames::tables::Pass;

/// Says something. Waits for the other side while it reads.
fn say(channel: &Channel, what: Pass) -> io::Result<()> {
    channel.send(&Frame::Pass(Box::new(what)).into(), PATIENCE)
}

/// What the other side says; `None` at the end.
fn hear(channel: &Channel, patience: Duration) -> io::Result<Option<Pass>> {
    match channel.recv(patience)? {
        Some((Frame::Pass(pass), _)) => Ok(Some(*pass)),
        Some((other, _)) => Err(io::Error::other(format!("unexpected {other:?}"))),
        None => Ok(None),
    }
}

/// How long the other side may take before it reads or says the next thing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Never is far away.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);
