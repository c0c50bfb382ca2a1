//! What a node does to meet its peers.

pub mod discover;
