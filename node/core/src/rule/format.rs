//! Log-format strings: text, expressions and aliases, rendered into headers, bodies and log lines.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::convert::url::write_percent;
use super::cx::{Cx, Msgs};
use super::expr::{Expr, Outcome};
use super::fetch::net;
use super::sample::write_hex;
use crate::http1::{Head, Version};

/// A compiled log-format string (`set-header`, `redirect`, `lf-string`, `log-format`).
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Format {
    pub items: Box<[FormatItem]>,
}

/// A piece of a log-format string.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum FormatItem {
    Text(Vec<u8>),
    Expr { expr: Expr, flags: FormatFlags },
    Alias { alias: Alias, flags: FormatFlags },
}
/// `%{+Q,+X,+E}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FormatFlags {
    pub quote: bool,
    pub hex: bool,
    pub escape: bool,
}

/// Aliases that make sense while a message is processed. Those that only exist in log lines (timers, termination state)
/// are the log's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Alias {
    ClientIp,
    ClientPort,
    FrontendIp,
    FrontendPort,
    Frontend,
    /// with `~` when TLS
    FrontendTransport,
    Backend,
    Server,
    Method,
    Path,
    /// without the query
    PathOnly,
    Uri,
    Query,
    Version,
    RequestLine,
    Status,
    Pid,
    Hostname,
    /// seconds since 1970
    Timestamp,
    /// three digits
    Millis,
    /// `22/Nov/2026:21:46:06 +0000`
    DateGmt,
    ActConn,
    FeConn,
    BeConn,
    SrvConn,
    ServerQueue,
    BackendQueue,
}

impl Alias {
    /// All of them with their spelling after the percent sign.
    pub const NAMES: &'static [(&'static str, Alias)] = &[
        ("ci", Alias::ClientIp),
        ("cp", Alias::ClientPort),
        ("fi", Alias::FrontendIp),
        ("fp", Alias::FrontendPort),
        ("f", Alias::Frontend),
        ("ft", Alias::FrontendTransport),
        ("b", Alias::Backend),
        ("s", Alias::Server),
        ("HM", Alias::Method),
        ("HP", Alias::Path),
        ("HPO", Alias::PathOnly),
        ("HU", Alias::Uri),
        ("HQ", Alias::Query),
        ("HV", Alias::Version),
        ("r", Alias::RequestLine),
        ("ST", Alias::Status),
        ("pid", Alias::Pid),
        ("H", Alias::Hostname),
        ("Ts", Alias::Timestamp),
        ("ms", Alias::Millis),
        ("T", Alias::DateGmt),
        ("ac", Alias::ActConn),
        ("fc", Alias::FeConn),
        ("bc", Alias::BeConn),
        ("sc", Alias::SrvConn),
        ("sq", Alias::ServerQueue),
        ("bq", Alias::BackendQueue),
    ];

    /// The alias of that spelling.
    pub fn by_name(name: &str) -> Option<Alias> {
        Self::NAMES
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, a)| *a)
    }
}

impl Format {
    /// Appends the rendered text; a missing sample gives nothing. What expressions give is made safe for a header:
    /// control characters become `%XX`, as the reference does it, so that no client can smuggle a line break in.
    pub fn render(&self, cx: &Cx<'_>, msgs: &Msgs<'_>, out: &mut Vec<u8>) {
        for item in &self.items {
            match item {
                FormatItem::Text(text) => out.extend_from_slice(text),
                FormatItem::Expr { expr, flags } => {
                    let start = out.len();
                    if let Outcome::Value(sample) = expr.eval(cx, msgs) {
                        sample.write_display(out);
                    }
                    finish(out, start, *flags);
                }
                FormatItem::Alias { alias, flags } => {
                    let start = out.len();
                    alias.write(cx, msgs, flags.hex, out);
                    finish(out, start, *flags);
                }
            }
        }
    }

    /// Whether it renders to nothing.
    pub(super) fn is_empty(&self, cx: &Cx<'_>, msgs: &Msgs<'_>) -> bool {
        let mut out = Vec::new();
        self.render(cx, msgs, &mut out);
        out.is_empty()
    }
}

/// Encodes what was appended since `start`, and applies quotes and escapes.
fn finish(out: &mut Vec<u8>, start: usize, flags: FormatFlags) {
    let added = out.get(start..).unwrap_or_default();
    let unsafe_byte = |b: &u8| b.is_ascii_control() && *b != b'\t';
    let escaped_byte = |b: &u8| flags.escape && matches!(b, b'"' | b'\\' | b']');
    if added.iter().any(|b| unsafe_byte(b) || escaped_byte(b)) {
        let raw = out.split_off(start);
        for b in &raw {
            if unsafe_byte(b) {
                write_percent(*b, out);
            } else {
                if escaped_byte(b) {
                    out.push(b'\\');
                }
                out.push(*b);
            }
        }
    }
    if flags.quote {
        out.insert(start, b'"');
        out.push(b'"');
    }
}

impl Alias {
    fn write(self, cx: &Cx<'_>, msgs: &Msgs<'_>, hex: bool, out: &mut Vec<u8>) {
        let conn = cx.conn;
        let req = msgs.req.as_deref();
        match self {
            Alias::ClientIp => ip(conn.src.get(), hex, out),
            Alias::ClientPort => port(conn.src.get(), hex, out),
            Alias::FrontendIp => ip(conn.dst.get(), hex, out),
            Alias::FrontendPort => port(conn.dst.get(), hex, out),
            Alias::Frontend | Alias::FrontendTransport => {
                name(net::frontend(cx).map(|p| &p.name), out);
            }
            Alias::Backend => name(net::backend(cx).map(|p| &p.name), out),
            Alias::Server => match net::server(cx) {
                Some(server) => out.extend_from_slice(server.name.as_bytes()),
                None => out.extend_from_slice(b"<NOSRV>"),
            },
            Alias::Method => out.extend_from_slice(req.map_or(b"<BADREQ>", |r| r.method())),
            Alias::Path => out.extend_from_slice(req.map_or(b"<BADREQ>", |r| {
                let target = r.target();
                let end = memchr::memchr(b'?', target).unwrap_or(target.len());
                target.get(..end).unwrap_or_default()
            })),
            Alias::PathOnly => out.extend_from_slice(req.map_or(b"<BADREQ>", |r| r.path())),
            Alias::Uri => out.extend_from_slice(req.map_or(b"<BADREQ>", |r| r.target())),
            Alias::Query => {
                if let Some(query) = req.and_then(|r| r.query()) {
                    out.push(b'?');
                    out.extend_from_slice(query);
                }
            }
            Alias::Version => out.extend_from_slice(req.map_or(b"<BADREQ>", http_version)),
            Alias::RequestLine => match req {
                None => out.extend_from_slice(b"<BADREQ>"),
                Some(r) => {
                    out.extend_from_slice(r.method());
                    out.push(b' ');
                    out.extend_from_slice(r.target());
                    out.push(b' ');
                    out.extend_from_slice(http_version(r));
                }
            },
            Alias::Status => {
                number(
                    msgs.res.as_deref().map_or(0, |r| u64::from(r.status())),
                    out,
                );
            }
            Alias::Pid if hex => push(out, format_args!("{:04X}", cx.world.process.pid)),
            Alias::Pid => number(u64::from(cx.world.process.pid), out),
            Alias::Hostname => name(Some(&cx.world.process.hostname), out),
            Alias::Timestamp => number(cx.now.wall_us / 1_000_000, out),
            Alias::Millis => push(out, format_args!("{:03}", cx.now.wall_us / 1_000 % 1_000)),
            Alias::DateGmt => date(cx.now.wall_us / 1_000_000, out),
            Alias::ActConn => count(&cx.world.process.curr_conns, out),
            Alias::FeConn => optional_count(net::frontend(cx).map(|p| &p.front.scur), out),
            Alias::BeConn => optional_count(net::backend(cx).map(|p| &p.back.scur), out),
            Alias::BackendQueue => optional_count(net::backend(cx).map(|p| &p.back.qcur), out),
            Alias::SrvConn => optional_count(net::server(cx).map(|s| &s.stats.scur), out),
            Alias::ServerQueue => optional_count(net::server(cx).map(|s| &s.stats.qcur), out),
        }
    }
}

fn http_version(head: &Head) -> &'static [u8] {
    match head.version() {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
    }
}

fn ip(addr: Option<SocketAddr>, hex: bool, out: &mut Vec<u8>) {
    match addr.map(|a| a.ip()) {
        None => {}
        Some(IpAddr::V4(a)) if hex => write_hex(&a.octets(), out),
        Some(IpAddr::V6(a)) if hex => write_hex(&a.octets(), out),
        Some(other) => push(out, format_args!("{other}")),
    }
}

fn port(addr: Option<SocketAddr>, hex: bool, out: &mut Vec<u8>) {
    match addr {
        None => {}
        Some(addr) if hex => push(out, format_args!("{:04X}", addr.port())),
        Some(addr) => number(u64::from(addr.port()), out),
    }
}

fn name(text: Option<&String>, out: &mut Vec<u8>) {
    if let Some(text) = text {
        out.extend_from_slice(text.as_bytes());
    }
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn count(counter: &AtomicU32, out: &mut Vec<u8>) {
    number(u64::from(counter.load(Relaxed)), out);
}

fn optional_count(counter: Option<&AtomicU32>, out: &mut Vec<u8>) {
    match counter {
        Some(counter) => count(counter, out),
        None => out.push(b'0'),
    }
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = out.write_fmt(text); // writing to memory cannot fail
}

/// `22/Nov/2026:21:46:06 +0000`.
fn date(seconds: u64, out: &mut Vec<u8>) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, with years that begin in March so that the leap day is the last day of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    push(
        out,
        format_args!(
            "{day:02}/{}/{year:04}:{:02}:{:02}:{:02} +0000",
            MONTHS.get(month as usize).copied().unwrap_or("Jan"),
            of_day / 3_600,
            of_day / 60 % 60,
            of_day % 60,
        ),
    );
}
