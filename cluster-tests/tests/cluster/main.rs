//! Clusters of real processes on real sockets, and what can happen to them: one module per kind of fault. After each, every
//! node's dump equals the others' and the true number of events.

mod clocks;
mod counting;
mod deaths;
mod differences;
mod discovery;
mod edicts;
mod expiry;
mod harness;
mod impostor;
mod links;
mod metrics;
mod newcomers;
mod reloads;
mod restarts;
mod slow_links;
mod strangers;
mod types;
