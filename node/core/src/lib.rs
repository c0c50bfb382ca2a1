//! What Remora decides, without touching the world.
//!
//! Tables, rules, HTTP/1 framing and server choice live here. This crate does no I/O, reads no clock and draws no
//! random number: time ([`time::Now`]) and seeds are arguments, effects are return values. `clippy.toml` beside this
//! crate's manifest keeps it so.

pub mod balance;
pub mod http1;
pub mod peers;
pub mod rule;
pub mod stats;
pub mod table;
pub mod time;
pub mod world;
