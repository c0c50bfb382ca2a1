//! Cluster-wide sums: what nodes tell each other about their tables. No sockets here: the shell carries the messages.

pub mod batch;
pub mod messages;
