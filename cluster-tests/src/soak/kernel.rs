//! What the kernel counted of this network namespace: a connection that takes a second or three may have been dropped and
//! tried again.

/// Numbers of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections, or first packets of some, that a listening socket had no room for.
    pub dropped: u64,
    /// First packets of connections that were sent again.
    pub repeated: u64,
}

impl Counts {
    /// So far.
    pub fn now() -> Self {
        let text = std::fs::read_to_string("/proc/net/netstat").unwrap_or_default();
        Self::of(&text)
    }

    fn of(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return Self::default();
        };
        let of = |name: &str| {
            let mut all = names.split(' ').zip(values.split(' '));
            let found = all.find(|(known, _)| *known == name);
            found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        Self {
            // Each drop is one, whether the queue was full or something else was.
            dropped: of("ListenDrops"),
            repeated: of("TCPSynRetrans"),
        }
    }

    /// Those since then.
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            dropped: self.dropped.saturating_sub(before.dropped),
            repeated: self.repeated.saturating_sub(before.repeated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_values() {
        let text = "TcpExt: A ListenDrops TCPSynRetrans\nTcpExt: 1 7 9\nIpExt: X\nIpExt: 5\n";
        let counts = Counts::of(text);
        assert_eq!((counts.dropped, counts.repeated), (7, 9));
        assert_eq!(Counts::of(""), Counts::default());
    }
}
