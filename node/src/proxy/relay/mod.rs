//! Moving bytes from one socket to another: bodies by their framing, tunnels until both sides are done.

pub(crate) mod body;
pub(crate) mod splice;
pub(crate) mod tunnel;
