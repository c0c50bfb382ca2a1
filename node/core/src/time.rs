//! Time as an argument.

/// One reading of the clocks, taken by the I/O shell once per batch of events and passed down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic milliseconds since an origin the shell chose, at least 2^32 ms ago: ages that other nodes tell are
    /// subtracted from it. Everything that ages (expiry, rates, time-outs) uses this.
    pub mono_ms: u64,
    /// Wall clock, microseconds since 1970-01-01 UTC: for `date`, logs and nothing that must not jump.
    pub wall_us: u64,
}
