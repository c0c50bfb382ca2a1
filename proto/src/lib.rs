//! Wire formats between Remora nodes: the generated code of `peers.proto` and nothing else.
//!
//! No message is defined in this release: nodes do not talk to each other yet.
