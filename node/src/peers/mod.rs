//! The network side of `peers` sections: streams between nodes, and a thread that carries messages between them and the
//! hubs of the core. What messages mean is decided there; here are sockets, TLS, timers and log lines.
//!
//! All sections share one thread and one runtime, apart from the workers': no request ever waits for a peer. A stream asks
//! its hub for the next message when it has room for one (`outbox`), so a slow peer costs nothing but its own lag.

mod alarm;
mod check;
mod dial;
pub mod discover;
mod door;
pub(crate) mod expiry;
mod follow;
mod greeting;
mod outbox;
mod pinned;
mod ready;
mod said;
mod section;
mod sniff;
mod socket;
mod start;
mod strangers;
mod tls;
mod wire;

use std::io;
use std::time::Duration;

pub use check::check;
pub use ready::Readiness;
pub use section::{Counters, Discovery, Section, Totals};
pub use start::{
    Open, accept, found, hold, inherit_totals, leave, open, pause, resume, start, step_aside, stop,
    suspend, totals, wait_until_ready,
};

/// One message at most: a batch of 128 KiB, or a hello of many tables.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What may be on its way to a node that has not yet read it, per stream: more than the hub lets be unacknowledged.
const WINDOW_BYTES: u32 = 2 << 20;
/// How long connecting, each handshake, and the first answer may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stream that is to be closed may take to send what it has been given.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// An error without the system's number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
