//! The PROXY protocol header (versions 1 and 2) in front of a connection, for `accept-proxy`.
//! (haproxy.org, "The PROXY protocol", 2020/03/05)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Poll, ready};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::proxy::client::Client;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest version 1 line, CR LF included.
const V1_BYTES_MAX: usize = 107;
/// Longest version 2 header that is read; the protocol allows for more, nobody sends it.
const V2_BYTES_MAX: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxied {
    /// The connection is the sender's own (`LOCAL`), or of a kind that has no addresses (`UNKNOWN`).
    Own,
    Addresses(SocketAddr, SocketAddr),
}

/// Not a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Parses the start of a connection: `Ok(None)` = more is needed, else what it says and how long it is.
pub(crate) fn parse(input: &[u8]) -> Result<Option<(Proxied, usize)>, Malformed> {
    let sure = input.len().min(V2_SIGNATURE.len());
    if input[..sure] == V2_SIGNATURE[..sure] && sure > 0 {
        return parse_v2(input);
    }
    let sure = input.len().min(6);
    if input[..sure] != b"PROXY "[..sure] {
        return Err(Malformed);
    }
    let window = &input[..input.len().min(V1_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() >= V1_BYTES_MAX {
            Err(Malformed)
        } else {
            Ok(None)
        };
    };
    let line = std::str::from_utf8(&window[6..end]).map_err(|_| Malformed)?;
    Ok(Some((parse_v1(line)?, end + 2)))
}

fn parse_v1(line: &str) -> Result<Proxied, Malformed> {
    let mut words = line.split(' ');
    let family = words.next().ok_or(Malformed)?;
    if family == "UNKNOWN" {
        return Ok(Proxied::Own);
    }
    let mut word = || words.next().ok_or(Malformed);
    let (src, dst) = (word()?, word()?);
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        match family {
            "TCP4" => text
                .parse::<Ipv4Addr>()
                .map(IpAddr::V4)
                .map_err(|_| Malformed),
            "TCP6" => text
                .parse::<Ipv6Addr>()
                .map(IpAddr::V6)
                .map_err(|_| Malformed),
            _ => Err(Malformed),
        }
    };
    let (src, dst) = (address(src)?, address(dst)?);
    let port = |text: &str| text.parse::<u16>().map_err(|_| Malformed);
    let (src_port, dst_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(Malformed);
    }
    Ok(Proxied::Addresses(
        SocketAddr::new(src, src_port),
        SocketAddr::new(dst, dst_port),
    ))
}

fn parse_v2(input: &[u8]) -> Result<Option<(Proxied, usize)>, Malformed> {
    let Some(&[version_command, family, len_high, len_low]) = input.get(12..16) else {
        return Ok(None);
    };
    if version_command >> 4 != 2 {
        return Err(Malformed);
    }
    let len = 16 + usize::from(u16::from_be_bytes([len_high, len_low]));
    if len > V2_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(addresses) = input.get(16..len) else {
        return Ok(None);
    };
    let proxied = match (version_command & 15, family) {
        (0, _) => Proxied::Own,
        (1, 0x11) => {
            let bytes: &[u8; 12] = addresses.first_chunk().ok_or(Malformed)?;
            let [a, b, c, d, e, f, g, h, p, q, r, s] = *bytes;
            Proxied::Addresses(
                SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([p, q])),
                SocketAddr::new(Ipv4Addr::new(e, f, g, h).into(), u16::from_be_bytes([r, s])),
            )
        }
        (1, 0x21) => {
            let bytes: &[u8; 36] = addresses.first_chunk().ok_or(Malformed)?;
            let ip = |at: usize| -> IpAddr {
                let mut octets = [0; 16];
                octets.copy_from_slice(&bytes[at..at + 16]);
                Ipv6Addr::from(octets).into()
            };
            let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            Proxied::Addresses(
                SocketAddr::new(ip(0), port(32)),
                SocketAddr::new(ip(16), port(34)),
            )
        }
        // Datagrams and UNIX sockets have no addresses that rules could use.
        (1, _) => Proxied::Own,
        _ => return Err(Malformed),
    };
    Ok(Some((proxied, len)))
}

/// Reads the header that must come first and takes its addresses over. Without one the connection has to be closed,
/// which is logged.
pub(crate) async fn receive(client: &mut Client, stream: &mut TcpStream) -> bool {
    let th = client.th.clone();
    let timeouts = &client.plan().timeouts;
    let until = timeouts
        .client_hs
        .or(timeouts.client)
        .map_or(0, |limit| client.conn.accepted_ms + u64::from(limit));
    // Peeks, and takes only what belongs to the header: all of it as long as it is incomplete.
    let mut header: Vec<u8> = Vec::new();
    let found = client
        .alarm
        .within(&th.clock, until, |cx| {
            loop {
                let mut bytes = [0u8; 1024];
                let mut peeked = ReadBuf::new(&mut bytes);
                let Ok(n @ 1..) = ready!(stream.poll_peek(cx, &mut peeked)) else {
                    return Poll::Ready(Err("Connection closed while waiting for"));
                };
                let before = header.len();
                header.extend_from_slice(&bytes[..n]);
                let Ok(found) = parse(&header) else {
                    return Poll::Ready(Err("Received something which does not look like a"));
                };
                let mut left = found.map_or(n, |(_, len)| len.saturating_sub(before));
                while left > 0 {
                    match stream.try_read(&mut bytes[..left]) {
                        Ok(taken @ 1..) => left -= taken,
                        _ => return Poll::Ready(Err("Connection error while waiting for")),
                    }
                }
                if let Some((proxied, _)) = found {
                    return Poll::Ready(Ok(proxied));
                }
            }
        })
        .await
        .unwrap_or(Err("Timeout while waiting for"));
    let proxied = match found {
        Ok(proxied) => proxied,
        Err(_) if header.is_empty() && client.plan().options.dontlognull => return false,
        Err(why) => {
            let bind = client.bind();
            let name = match (&bind.name, bind.id) {
                (Some(name), _) => name.clone(),
                (None, id) => id.unwrap_or(u32::from(client.conn.bind) + 1).to_string(),
            };
            th.shared.logs.embryonic(
                &th.shared.world,
                client.conn.frontend,
                client.conn.src.get(),
                client.accepted().wall_us,
                format_args!("{name}: {why} PROXY protocol header"),
            );
            return false;
        }
    };
    client.conn.got_proxy_header.set(true);
    if let Proxied::Addresses(src, dst) = proxied {
        if let (Some(true_src), Some(true_dst)) = (client.conn.src.get(), client.conn.dst.get()) {
            client.conn.true_addrs = Some(Box::new((true_src, true_dst)));
        }
        client.conn.src.set(Some(src));
        client.conn.dst.set(Some(dst));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend((addresses.len() as u16).to_be_bytes());
        header.extend(addresses);
        header
    }

    #[test]
    fn headers_are_understood_at_any_split_and_nothing_behind_is_taken() {
        let v4: Proxied = Proxied::Addresses(
            "192.0.2.1:56324".parse().unwrap(),
            "198.51.100.2:443".parse().unwrap(),
        );
        let v6 = Proxied::Addresses(
            "[2001:db8::1]:1".parse().unwrap(),
            "[2001:db8::2]:65535".parse().unwrap(),
        );
        let mut v6_bytes = Vec::new();
        v6_bytes.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6_bytes.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        v6_bytes.extend([0, 1, 255, 255]);
        v6_bytes.extend(b"extra TLVs");
        let cases: Vec<(Vec<u8>, Proxied)> = vec![
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec(),
                v4,
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(),
                v6,
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Proxied::Own),
            (b"PROXY UNKNOWN whatever follows\r\n".to_vec(), Proxied::Own),
            (
                v2(
                    1,
                    0x11,
                    &[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb],
                ),
                v4,
            ),
            (v2(1, 0x21, &v6_bytes), v6),
            (v2(0, 0, b""), Proxied::Own),
            (v2(1, 0x31, &[0; 216]), Proxied::Own),
        ];
        for (header, expected) in cases {
            for n in 1..header.len() {
                assert_eq!(parse(&header[..n]), Ok(None), "{header:?} cut at {n}");
            }
            let mut more = header.clone();
            more.extend(b"GET / HTTP/1.1\r\n");
            assert_eq!(parse(&more), Ok(Some((expected, header.len()))));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 99999\r\n",
            b"PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
            b"PROXY SCTP 192.0.2.1 198.51.100.2 1 2\r\n",
            b"PROXX",
            b"X",
        ] {
            assert_eq!(parse(bad), Err(Malformed), "{bad:?}");
        }
        let mut endless = b"PROXY UNKNOWN ".to_vec();
        endless.resize(V1_BYTES_MAX, b'x');
        assert_eq!(parse(&endless), Err(Malformed));
        assert_eq!(parse(&v2(1, 0x11, &[1, 2, 3])), Err(Malformed));
        assert_eq!(parse(&v2(7, 0x11, &[0; 12])), Err(Malformed));
        let mut version_1 = v2(1, 0x11, &[0; 12]);
        version_1[12] = 0x11;
        assert_eq!(parse(&version_1), Err(Malformed));
    }
}
