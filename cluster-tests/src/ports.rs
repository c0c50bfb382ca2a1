//! Ports for configurations, which cannot say "any port, tell me which".
//!
//! Candidates lie below the kernel's range for outgoing connections, so no client's source port can collide. A port is
//! claimed by holding the UDP port of the same number: proxies listen with `SO_REUSEPORT`, so a second test process would
//! otherwise share a port in silence instead of failing.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader};
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
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| File::open(path).ok())
        .any(|table| listed(BufReader::new(table), number))
}

/// Listening sockets come first. The rest is not read: where many connections have just ended it is megabytes, and takes the
/// kernel seconds on a busy machine.
fn listed(table: impl BufRead, number: u16) -> bool {
    let rows = table.lines().skip(1).map_while(Result::ok);
    let sockets = rows.filter_map(|row| {
        let mut words = row.split_ascii_whitespace().skip(1);
        let port = words.next()?.rsplit(':').next()?.to_owned();
        let state = words.nth(1)?.to_owned();
        Some((u16::from_str_radix(&port, 16).ok()?, state))
    });
    let mut listening = sockets.take_while(|(_, state)| LISTENING.contains(&state.as_str()));
    listening.any(|(port, state)| port == number && state == LISTENING[0])
}

/// And, among them on old kernels, connections that are about to be accepted.
const LISTENING: [&str; 2] = ["0A", "03"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_among_those_that_listen() {
        let row = |number: u16, state: &str| {
            format!(
                "   0: 0100007F:{number:04X} 00000000:0000 {state} 00000000:00000000 00:00000000\n"
            )
        };
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n".to_owned()
            + &row(80, "0A")
            + &row(81, "03")
            + &row(8080, "0A")
            + &row(9000, "06")
            + &row(9001, "0A");
        let listed = |number| listed(table.as_bytes(), number);
        assert_eq!([80, 8080].map(listed), [true; 2]);
        assert_eq!([81, 9000, 9001, 0x50F].map(listed), [false; 4]);
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let number = held.local_addr().expect("bound").port();
        assert!(is_listening(number));
    }
}
