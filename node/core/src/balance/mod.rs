//! Server choice over [`crate::world::ServerState`].
//!
//! A [`Balancer`] is shared by all threads and holds nothing but atomics; a choice allocates nothing and takes no lock.
//! It reads the servers' counters but does not change them: the caller takes a slot ([`take_slot`]) on the server it
//! got, and asks again or queues if another thread was faster.
//!
//! What all algorithms have in common:
//! - Servers in maintenance or drain and servers of weight 0 get no new traffic.
//! - Backup servers are considered only when no other server is usable: the first usable one alone, or with
//!   `option allbackups` all of them. A server that is merely full is usable.
//! - A server to avoid (it just failed, and the request is dispatched again) is chosen only if there is no other, or if
//!   the algorithm passes over full servers and all others are full.
//! - Round robin and leastconn pass over servers that are full or have requests queued; if all are, the request belongs
//!   into the backend's queue ([`Choice::Full`]). Random looks at load but not at limits while it draws; if the winner
//!   is full, the request goes to the backend's queue. Source sticks to its server even if that is full: the request
//!   waits in that server's queue. All this as HAProxy does.

mod pick;
mod rotation;
mod slots;

pub use pick::{Ask, Balancer, Choice};
pub use slots::{has_slot, release_slot, take_slot};

/// `balance`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Each server in turn, as often as its weight says, evenly spread.
    #[default]
    RoundRobin,
    /// The server with the fewest requests in progress or queued, in relation to its weight; among equals round robin.
    LeastConn,
    /// Always the same server for a client address, as long as the set of usable servers and their weights stay.
    Source,
    /// The least loaded of so many servers drawn at random by weight (default 2).
    Random(u32),
}
