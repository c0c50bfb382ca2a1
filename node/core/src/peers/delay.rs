//! How much later than usual a message arrived, from the sender's clock and ours.
//!
//! The clocks have different origins, so only differences mean something: the smallest (received - sent) of a session is
//! taken for its usual delay, and what a message took longer makes the ages it carries higher. Clocks also run at
//! slightly different speeds; so the usual delay may rise by one part in a thousand, far more than any quartz drifts.

/// The usual delay of one session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delay {
    /// Smallest (received - sent) in microseconds, and when that was adjusted last (our milliseconds).
    usual: Option<(i128, u64)>,
}

impl Delay {
    /// Notes a message that was sent at `sent_ms` of the peer's clock and received at `now_ms` of ours. Returns by how
    /// many milliseconds it was later than usual.
    pub(super) fn excess_ms(&mut self, sent_ms: u64, now_ms: u64) -> u32 {
        let delta = (i128::from(now_ms) - i128::from(sent_ms)) * 1000;
        let usual = match self.usual {
            None => delta,
            Some((usual, at)) => delta.min(usual + i128::from(now_ms.saturating_sub(at))),
        };
        self.usual = Some((usual, now_ms));
        u32::try_from((delta - usual) / 1000).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Delay;

    #[test]
    fn excess_is_what_was_later_than_usual() {
        let mut delay = Delay::default();
        assert_eq!(delay.excess_ms(1_000, 500_005), 0);
        assert_eq!(delay.excess_ms(2_000, 501_003), 0);
        assert_eq!(delay.excess_ms(3_000, 532_003), 29_969); // a freeze of 30 s lifts the usual by 30 ms
        assert_eq!(delay.excess_ms(33_000, 532_003), 0);
    }

    #[test]
    fn drift_is_not_delay() {
        let mut delay = Delay::default();
        // Ten days at 100 parts in a million: 86 s.
        for second in 0..864_000_u64 {
            assert_eq!(
                delay.excess_ms(second * 1_000, second * 1_000 + second / 10),
                0
            );
        }
    }

    #[test]
    fn nonsense_does_not_panic() {
        let mut delay = Delay::default();
        assert_eq!(delay.excess_ms(u64::MAX, 0), 0);
        assert_eq!(delay.excess_ms(0, u64::MAX), u32::MAX);
        assert_eq!(delay.excess_ms(u64::MAX, 5), 0);
    }
}
