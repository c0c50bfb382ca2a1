//! Ports for configurations, which cannot say "any port, tell me which".
//!
//! Candidates lie below the kernel's range for outgoing connections, so no client's source port can collide. A port is
//! claimed by holding the UDP port of the same number: proxies listen with `SO_REUSEPORT`, so a second test process would
//! otherwise share a port in silence instead of failing.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

const FIRST: u16 = 10_000;
const COUNT: u64 = 20_000;

/// A TCP port of 127.0.0.1 nobody listens on; no other harness takes it while this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UdpSocket,
}

impl Port {
    /// Claims a free port.
    ///
    /// # Panics
    /// When a thousand candidates are all taken.
    pub fn claim() -> Self {
        for _ in 0..1000 {
            let random = RandomState::new().build_hasher().finish();
            let number = FIRST + (random % COUNT) as u16;
            let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Self {
                    number,
                    _claim: claim,
                };
            }
        }
        panic!("no free port among a thousand candidates");
    }

    /// The number, 10000 to 29999.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Whether some process listens on TCP port `number`, read from the kernel's tables: asking by connecting would be counted
/// by the proxy under test.
pub fn is_listening(number: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|path| {
        let table = std::fs::read_to_string(path).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let port = words.next().and_then(|local| local.rsplit(':').next());
            let state = words.nth(1);
            state == Some("0A")
                && port.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(number)
        })
    })
}
