//! A server's slots: what `maxconn` limits.

use std::sync::atomic::Ordering::Relaxed;

use crate::world::ServerState;

/// Takes one of the server's slots unless all `maxconn` are taken. Counts `scur` and `smax`.
pub fn take_slot(server: &ServerState) -> bool {
    let maxconn = server.maxconn.load(Relaxed);
    let taken = server.stats.scur.fetch_update(Relaxed, Relaxed, |scur| {
        (maxconn == 0 || scur < maxconn)
            .then(|| scur.checked_add(1))
            .flatten()
    });
    match taken {
        Ok(before) => {
            // most of the time the maximum stands: look before writing to a line that all threads share
            if server.stats.smax.load(Relaxed) <= before {
                server.stats.smax.fetch_max(before + 1, Relaxed);
            }
            true
        }
        Err(_) => false,
    }
}

/// Gives a slot back.
pub fn release_slot(server: &ServerState) {
    let _ = server
        .stats
        .scur
        .fetch_update(Relaxed, Relaxed, |scur| scur.checked_sub(1));
}

/// The server has a free slot and nobody waits for one.
pub fn has_slot(server: &ServerState) -> bool {
    let maxconn = server.maxconn.load(Relaxed);
    server.stats.qcur.load(Relaxed) == 0
        && (maxconn == 0 || server.stats.scur.load(Relaxed) < maxconn)
}
