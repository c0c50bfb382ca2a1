//! Addresses of `bind`, `server`, `log` and `stats socket` (config-dialect 3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Loader;
use crate::plan::{Address, PeerAddress};
use crate::scope::unsupported;

/// Which family a prefix asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

/// An address taken apart, before names are looked up.
enum Parts<'a> {
    Done(Address),
    Host {
        family: Family,
        host: &'a str,
        port: Option<&'a str>,
    },
}

/// Prefixes that HAProxy knows and Remora does not.
const FOREIGN: [&str; 14] = [
    "abns@",
    "abnsz@",
    "sockpair@",
    "quic4@",
    "quic6@",
    "quic@",
    "rhttp@",
    "rev@",
    "mptcp@",
    "mptcp4@",
    "mptcp6@",
    "ring@",
    "buffer@",
    "backend@",
];

fn split<'a>(text: &'a str, what: &str) -> Result<Parts<'a>, String> {
    let mut rest = text;
    for prefix in FOREIGN {
        if rest.starts_with(prefix) {
            return Err(unsupported(&format!("{what} {prefix}")));
        }
    }
    for prefix in ["stream+", "dgram+"] {
        if let Some(r) = rest.strip_prefix(prefix) {
            let wanted = if what == "log" { "dgram+" } else { "stream+" };
            if prefix != wanted {
                return Err(unsupported(&format!("{what} {prefix}")));
            }
            rest = r;
        }
    }
    if let Some(n) = rest.strip_prefix("fd@") {
        return match n.parse::<i32>() {
            Ok(fd) if fd >= 0 => Ok(Parts::Done(Address::Fd(fd))),
            _ => Err(format!(
                "file descriptor '{n}' is not a valid integer in '{text}'"
            )),
        };
    }
    if let Some(path) = rest.strip_prefix("unix@") {
        return unix(path, text);
    }
    if rest.starts_with('/') {
        return unix(rest, text);
    }
    let mut family = Family::Any;
    for (prefix, f) in [
        ("ipv4@", Family::V4),
        ("ipv6@", Family::V6),
        ("tcp4@", Family::V4),
        ("tcp6@", Family::V6),
        ("tcp@", Family::Any),
        ("udp4@", Family::V4),
        ("udp6@", Family::V6),
        ("udp@", Family::Any),
    ] {
        if let Some(r) = rest.strip_prefix(prefix) {
            if prefix.starts_with("udp") != (what == "log") && !prefix.starts_with("ip") {
                return Err(unsupported(&format!("{what} {prefix}")));
            }
            (rest, family) = (r, f);
            break;
        }
    }
    // The last colon separates the port, except inside brackets or when the whole is an IPv6 address in brackets.
    let (host, port) = match (rest.rfind(':'), rest.rfind(']')) {
        (Some(colon), Some(bracket)) if colon < bracket => (rest, None),
        (Some(colon), _) => (rest.get(..colon).unwrap_or_default(), rest.get(colon + 1..)),
        (None, _) => (rest, None),
    };
    Ok(Parts::Host { family, host, port })
}

fn unix<'a>(path: &str, text: &str) -> Result<Parts<'a>, String> {
    /// sun_path, less the terminator.
    const PATH_MAX: usize = 107;
    if path.is_empty() {
        return Err(format!("invalid UNIX socket path in '{text}'"));
    }
    if path.len() > PATH_MAX {
        return Err(format!(
            "socket path '{path}' too long (max {PATH_MAX} bytes)"
        ));
    }
    Ok(Parts::Done(Address::Unix(path.to_owned())))
}

fn port_number(text: &str) -> Result<u16, String> {
    // `parse` would take a sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("invalid port '{text}'"))
}

/// An address literal; empty and `*` are the wildcard. `None`: a name.
fn literal(host: &str, family: Family) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if bare.is_empty() || bare == "*" {
        return Some(match family {
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        });
    }
    bare.parse().ok()
}

fn fits(addr: &IpAddr, family: Family) -> bool {
    match family {
        Family::Any => true,
        Family::V4 => addr.is_ipv4(),
        Family::V6 => addr.is_ipv6(),
    }
}

fn lookup(
    host: &str,
    family: Family,
    text: &str,
    loader: &mut dyn Loader,
) -> Result<IpAddr, String> {
    let invalid = || format!("invalid address: '{host}' in '{text}'");
    match literal(host, family) {
        Some(addr) if fits(&addr, family) => Ok(addr),
        Some(_) => Err(invalid()),
        None => loader
            .resolve(host)
            .map_err(|_| invalid())?
            .into_iter()
            .find(|a| fits(a, family))
            .ok_or_else(invalid),
    }
}

/// Addresses of one comma-separated item of a `bind` or `stats socket` line: a port range gives several. With them, the
/// text that describes each.
pub(crate) fn listen(
    text: &str,
    what: &str,
    loader: &mut dyn Loader,
) -> Result<Vec<(Address, String)>, String> {
    let (family, host, port) = match split(text, what)? {
        Parts::Done(address) => return Ok(vec![(address, text.to_owned())]),
        Parts::Host { family, host, port } => (family, host, port),
    };
    let Some(port) = port else {
        return Err(format!("missing port specification in '{text}'"));
    };
    let (low, high) = match port.split_once('-') {
        Some((low, high)) if !low.is_empty() => (port_number(low)?, port_number(high)?),
        _ => {
            let p = port_number(port)?;
            (p, p)
        }
    };
    if low > high {
        return Err(format!("invalid port range '{port}'"));
    }
    if low == 0 && low != high {
        return Err(format!("invalid port range '{port}'"));
    }
    let addr = lookup(host, family, text, loader)?;
    let front = text.strip_suffix(port).unwrap_or(text);
    Ok((low..=high)
        .map(|p| {
            let shown = if low == high {
                text.to_owned()
            } else {
                format!("{front}{p}")
            };
            (Address::Ip(SocketAddr::new(addr, p)), shown)
        })
        .collect())
}

/// Where a server is.
pub(crate) struct ServerAddress {
    /// With port 0 when only an offset is given.
    pub(crate) address: Address,
    /// Added to the client's port.
    pub(crate) port_offset: Option<i32>,
}

/// Why a server's address is not usable.
pub(crate) enum ServerError {
    /// It says something wrong.
    Bad(String),
    /// The name has no address; what is known without it.
    Unresolved(String, ServerAddress),
}

/// The address of a `server`.
pub(crate) fn server(text: &str, loader: &mut dyn Loader) -> Result<ServerAddress, ServerError> {
    let bad = ServerError::Bad;
    let (family, host, port) = match split(text, "server").map_err(bad)? {
        Parts::Done(Address::Fd(_)) => return Err(bad(unsupported("server fd@"))),
        Parts::Done(address) => {
            return Ok(ServerAddress {
                address,
                port_offset: None,
            });
        }
        Parts::Host { family, host, port } => (family, host, port),
    };
    let (port, port_offset) = match port {
        None => (0, Some(0)),
        Some(p) if p.starts_with(['+', '-']) => {
            let n: i32 = p.parse().map_err(|_| bad(format!("invalid port '{p}'")))?;
            if n.unsigned_abs() > 65_535 {
                return Err(bad(format!("invalid port '{p}'")));
            }
            (0, Some(n))
        }
        Some(p) => (port_number(p).map_err(bad)?, None),
    };
    let at = |addr: IpAddr| ServerAddress {
        address: Address::Ip(SocketAddr::new(addr, port)),
        port_offset,
    };
    let addr = match literal(host, family) {
        Some(a) if a.is_unspecified() => {
            return Err(bad(format!(
                "{} (an unspecified address means the one the client connected to)",
                unsupported(&format!("server {text}"))
            )));
        }
        Some(a) if fits(&a, family) => a,
        Some(_) => return Err(bad(format!("invalid address: '{host}' in '{text}'"))),
        None => match loader.resolve(host) {
            Ok(list) => match list.into_iter().find(|a| fits(a, family)) {
                Some(a) => a,
                None => {
                    let none = at(Ipv4Addr::UNSPECIFIED.into());
                    return Err(ServerError::Unresolved(host.to_owned(), none));
                }
            },
            Err(_) => return Err(bad(format!("could not resolve address '{host}'."))),
        },
    };
    Ok(at(addr))
}

/// Whether this can be a name that the DNS or the hosts file knows.
pub(crate) fn is_host_name(text: &str) -> bool {
    /// RFC 1035, section 2.3.4.
    const NAME_MAX: usize = 253;
    const LABEL_MAX: usize = 63;
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |l: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !l.is_empty() && l.len() <= LABEL_MAX && l.chars().all(fine)
    };
    name.len() <= NAME_MAX && name.split('.').all(label)
}

/// The port of a peer: one that can be dialed.
pub(crate) fn peer_port(text: &str) -> Result<u16, String> {
    match port_number(text)? {
        0 => Err(format!("invalid port '{text}'")),
        port => Ok(port),
    }
}

/// The address of another node. Names are not looked up: they are whenever it is dialed.
pub(crate) fn peer(text: &str) -> Result<PeerAddress, String> {
    let (family, host, port) = match split(text, "server")? {
        Parts::Done(Address::Unix(path)) => return Ok(PeerAddress::Unix(path)),
        Parts::Done(_) => return Err(unsupported("server fd@")),
        Parts::Host { family, host, port } => (family, host, port),
    };
    let port = match port {
        None => return Err(format!("missing port specification in '{text}'")),
        Some(p) => peer_port(p)?,
    };
    match literal(host, family) {
        Some(addr) if addr.is_unspecified() => Err(format!(
            "'{text}' is an address to listen on, but not one to connect to"
        )),
        Some(addr) if fits(&addr, family) => Ok(PeerAddress::Ip(SocketAddr::new(addr, port))),
        None if family == Family::Any && is_host_name(host) => Ok(PeerAddress::Host {
            host: host.to_owned(),
            port,
        }),
        _ => Err(format!("invalid address: '{host}' in '{text}'")),
    }
}

/// The address of a UDP or datagram log target; `None` when the text does not name one (`stdout` …).
pub(crate) fn log(text: &str, loader: &mut dyn Loader) -> Result<Address, String> {
    const SYSLOG_PORT: u16 = 514;
    let (family, host, port) = match split(text, "log")? {
        Parts::Done(address) => return Ok(address),
        Parts::Host { family, host, port } => (family, host, port),
    };
    // An IPv6 address without brackets and port has colons all over.
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(Address::Ip(SocketAddr::new(addr, SYSLOG_PORT)));
    }
    let port = match port {
        Some(p) => port_number(p)?,
        None => SYSLOG_PORT,
    };
    if host.is_empty() || host == "*" {
        return Err(format!("missing address in '{text}'"));
    }
    let addr = lookup(host, family, text, loader)?;
    Ok(Address::Ip(SocketAddr::new(addr, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;
    impl Loader for Names {
        fn read(&mut self, _: &str) -> Result<Vec<u8>, String> {
            Err("no files".into())
        }
        fn resolve(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
            match name {
                "local" => Ok(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]),
                "nothing" => Ok(vec![]),
                _ => Err("unknown".into()),
            }
        }
        fn env(&self, _: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn listening() {
        for (text, expected) in [
            (":80", Ok("0.0.0.0:80")),
            ("*:80", Ok("0.0.0.0:80")),
            ("127.0.0.1:0", Ok("127.0.0.1:0")),
            ("[::1]:80", Ok("[::1]:80")),
            ("::1:80", Ok("[::1]:80")),
            (":::80", Ok("[::]:80")),
            ("ipv6@:80", Ok("[::]:80")),
            ("ipv4@*:80", Ok("0.0.0.0:80")),
            ("tcp6@::1:80", Ok("[::1]:80")),
            ("ipv4@local:80", Ok("127.0.0.1:80")),
            (
                "127.0.0.1",
                Err("missing port specification in '127.0.0.1'"),
            ),
            ("[::1]", Err("missing port specification in '[::1]'")),
            (":99999", Err("invalid port '99999'")),
            (":80-", Err("invalid port ''")),
            (":x", Err("invalid port 'x'")),
            (":+80", Err("invalid port '+80'")),
            (":90-80", Err("invalid port range '90-80'")),
            ("nosuch:80", Err("invalid address: 'nosuch' in 'nosuch:80'")),
            (
                "fd@x",
                Err("file descriptor 'x' is not a valid integer in 'fd@x'"),
            ),
            (
                "fd@-1",
                Err("file descriptor '-1' is not a valid integer in 'fd@-1'"),
            ),
            (
                "quic4@:443",
                Err("'bind quic4@' is a HAProxy feature that Remora does not support."),
            ),
        ] {
            let got = listen(text, "bind", &mut Names).map(|l| match &l[..] {
                [(Address::Ip(a), _)] => a.to_string(),
                other => format!("{other:?}"),
            });
            assert_eq!(
                got,
                expected.map(str::to_owned).map_err(str::to_owned),
                "{text}"
            );
        }
        let range = listen("10.0.0.1:80-82", "bind", &mut Names).unwrap();
        let texts: Vec<_> = range.iter().map(|r| r.1.as_str()).collect();
        assert_eq!(texts, ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.1:82"]);
        for (text, address) in [
            ("unix@/run/x", Address::Unix("/run/x".into())),
            ("unix@x", Address::Unix("x".into())),
            ("/run/x", Address::Unix("/run/x".into())),
            ("fd@3", Address::Fd(3)),
            ("stream+unix@/a", Address::Unix("/a".into())),
        ] {
            assert_eq!(listen(text, "bind", &mut Names).unwrap()[0].0, address);
        }
    }

    #[test]
    fn servers() {
        let get = |text| match server(text, &mut Names) {
            Ok(a) => format!("{:?} {:?}", a.address, a.port_offset),
            Err(ServerError::Bad(e)) => e,
            Err(ServerError::Unresolved(h, _)) => format!("unresolved {h}"),
        };
        for (text, expected) in [
            ("127.0.0.1:80", "Ip(127.0.0.1:80) None"),
            ("127.0.0.1", "Ip(127.0.0.1:0) Some(0)"),
            ("127.0.0.1:+5", "Ip(127.0.0.1:0) Some(5)"),
            ("127.0.0.1:-5", "Ip(127.0.0.1:0) Some(-5)"),
            ("[::1]:80", "Ip([::1]:80) None"),
            ("/run/s", "Unix(\"/run/s\") None"),
            ("local:80", "Ip([::1]:80) None"),
            ("nothing:80", "unresolved nothing"),
            ("127.0.0.1:70000", "invalid port '70000'"),
            (
                "nosuch.invalid:80",
                "could not resolve address 'nosuch.invalid'.",
            ),
        ] {
            assert_eq!(get(text), expected, "{text}");
        }
        assert!(get("0.0.0.0:80").contains("does not support"));
    }

    #[test]
    fn logs() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:514"),
            ("127.0.0.1:5140", "127.0.0.1:5140"),
            ("::1", "[::1]:514"),
            ("[::1]:99", "[::1]:99"),
            ("udp4@127.0.0.1:1", "127.0.0.1:1"),
        ] {
            assert_eq!(
                log(text, &mut Names),
                Ok(Address::Ip(expected.parse().unwrap())),
                "{text}"
            );
        }
        assert_eq!(
            log("/dev/log", &mut Names),
            Ok(Address::Unix("/dev/log".into()))
        );
        assert!(log("tcp@1.2.3.4:5", &mut Names).is_err());
        assert!(log("127.0.0.1:99999", &mut Names).is_err());
    }
}
