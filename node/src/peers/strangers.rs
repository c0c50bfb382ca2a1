//! Of those who come to the peers' port and are no peers, each address is named a few times: a noisy one hides no other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::section::Section;
use crate::observe::log::Severity;
use crate::proxy::clock;

/// How often strangers have come, by address.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    known: BTreeMap<Option<IpAddr>, Visits>,
    /// Of all for whom there is no room.
    others: Visits,
}

#[derive(Clone, Copy, Debug, Default)]
struct Visits {
    count: u64,
    last_ms: u64,
}

/// What the log says of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Line,
    /// A line, and that there will be few from now on.
    Last,
    Nothing,
}

impl Strangers {
    fn visit(&mut self, from: Option<IpAddr>, now_ms: u64) -> Say {
        let is_quiet = |visits: &Visits| now_ms.saturating_sub(visits.last_ms) >= QUIET_MS;
        if self.known.len() >= ADDRESSES_MAX && !self.known.contains_key(&from) {
            let oldest = self.known.iter().min_by_key(|(_, visits)| visits.last_ms);
            if let Some((&oldest, _)) = oldest.filter(|(_, visits)| is_quiet(visits)) {
                self.known.remove(&oldest);
            }
        }
        let visits = if self.known.len() < ADDRESSES_MAX || self.known.contains_key(&from) {
            self.known.entry(from).or_default()
        } else {
            &mut self.others
        };
        if is_quiet(visits) {
            visits.count = 0;
        }
        let before = visits.count;
        visits.count += 1;
        visits.last_ms = now_ms;
        if before == SAID_EACH {
            Say::Last
        } else if before < SAID_EACH || before.is_power_of_two() {
            Say::Line
        } else {
            Say::Nothing
        }
    }
}

/// Whose visits are counted together: an address, a network of IPv6, or those who come through UNIX sockets (`None`).
fn place(remote: &str) -> Option<IpAddr> {
    let address = remote.parse::<SocketAddr>().ok()?;
    Some(match address.ip().to_canonical() {
        IpAddr::V6(ip) => {
            let network = ip.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        ip @ IpAddr::V4(_) => ip,
    })
}

impl Section {
    /// Counts somebody at the door who is no peer, and says so unless that was said of this address often lately.
    pub(super) fn stranger(&self, counter: &AtomicU64, remote: &str, why: fmt::Arguments<'_>) {
        counter.fetch_add(1, Relaxed);
        let say = {
            let mut strangers = self.strangers.lock();
            strangers.visit(place(remote), clock::read().mono_ms)
        };
        let text = format_args!("connection from {remote} closed: {why}");
        match say {
            Say::Line => self.log(Severity::Warning, text),
            Say::Last => self.log(
                Severity::Warning,
                format_args!(
                    "{text}; from now on only every power of two of these from this address is reported"
                ),
            ),
            Say::Nothing => {
                self.counters.unreported.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Addresses of strangers that are told apart.
const ADDRESSES_MAX: usize = 256;
/// Visits of an address that get a log line each.
const SAID_EACH: u64 = 8;
/// Who has not come for so long is a new stranger.
const QUIET_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(strangers: &mut Strangers, from: u32, visits: u64, now_ms: u64) -> usize {
        let from = Some(IpAddr::V4(from.into()));
        let said = (0..visits).filter(|_| strangers.visit(from, now_ms) != Say::Nothing);
        said.count()
    }

    #[test]
    fn a_noisy_one_hides_no_other() {
        let mut strangers = Strangers::default();
        // 8, the one that says so, and at 16, 32, … 512.
        assert_eq!(lines(&mut strangers, 1, 1_000, QUIET_MS), 9 + 6);
        assert_eq!(lines(&mut strangers, 2, 3, QUIET_MS), 3);
        assert_eq!(lines(&mut strangers, 1, 10, 2 * QUIET_MS), 9, "anew");
    }

    #[test]
    fn so_many_are_told_apart_and_no_more() {
        let mut strangers = Strangers::default();
        let all = ADDRESSES_MAX as u32 * 10;
        let said: usize = (0..all)
            .map(|from| lines(&mut strangers, from, 1, QUIET_MS))
            .sum();
        assert!(said <= ADDRESSES_MAX + 30, "{said}");
        assert_eq!(strangers.known.len(), ADDRESSES_MAX);
        // Who was not there for long makes room.
        assert_eq!(lines(&mut strangers, all, 3, 2 * QUIET_MS), 3);
        assert_eq!(strangers.known.len(), ADDRESSES_MAX);
    }

    #[test]
    fn addresses_and_networks() {
        let ip = |text: &str| text.parse().ok();
        for (remote, expected) in [
            ("192.0.2.7:99", ip("192.0.2.7")),
            ("[::ffff:192.0.2.7]:99", ip("192.0.2.7")),
            ("[2001:db8:1:2:3:4:5:6]:99", ip("2001:db8:1:2::")),
            ("unix", None),
        ] {
            assert_eq!(place(remote), expected, "{remote}");
        }
    }
}
