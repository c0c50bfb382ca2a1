//! Passing listening sockets from one Remora process to the next on the same host: between a supervisor and its workers,
//! and between unrelated processes over a socket path. Frames go over SEQPACKET sockets, so each keeps its boundaries and
//! the descriptors that belong to it.
//!
//! The process that has the sockets is asked and answers; it never starts anything by itself. It keeps all until it is
//! told to drain, so whoever takes over may die at any moment before that.

pub mod channel;
pub mod directory;
pub mod frames;
pub mod giver;
pub mod inherited;
pub mod prepare;
pub mod succession;
pub mod tables;
pub mod taker;
pub mod worker;

pub use channel::{Channel, Packet};
pub use frames::{Frame, ListenerInfo, Purpose, Where};
pub use inherited::Inherited;
