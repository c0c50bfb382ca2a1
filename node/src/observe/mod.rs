//! What operators see: log lines and process messages.

pub mod log;
pub mod peaks;
