//! Cluster-wide sums: what nodes tell each other about their tables. No sockets here: the shell carries the messages.
//!
//! [`messages`] is what travels, [`batch`] the form in which rows of tables do; [`Hub`] decides what to send and what to
//! make of what comes. See its module for how it works.

mod acks;
mod ages;
pub mod batch;
mod clocks;
mod delay;
mod estate;
mod event;
mod greet;
mod holdings;
mod hub;
mod inherit;
mod learn;
pub mod limits;
mod live;
mod matching;
pub mod messages;
mod peer;
mod push;
mod receive;
mod replies;
mod report;
mod shared;
pub mod store;
#[cfg(test)]
mod tests;
mod wants;

pub use event::{Action, Ended, Event, Learned, PeerIx, ReadyWhy, SessionId};
pub use hub::{Hub, HubConfig};
pub use inherit::Inheritance;
pub use report::{
    Dropped, HubCounters, LineageReport, PeerReport, PeerState, Report, SharedReport, Traffic,
};
