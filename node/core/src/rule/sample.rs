//! Typed values that expressions produce, and the casts between their types. (reference: stick-tables 2.1)

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::table::KeyType;

/// A value. Text is bytes: nothing on the wire promises UTF-8.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Sample<'a> {
    Bool(bool),
    Int(i64),
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
    Str(Cow<'a, [u8]>),
    Bin(Cow<'a, [u8]>),
    /// A request method.
    Method(Cow<'a, [u8]>),
}

/// Types known when the configuration is compiled. `Addr` is v4 or v6; `Any` takes or gives whatever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SampleType {
    Any,
    Bool,
    Int,
    Addr,
    Ipv4,
    Ipv6,
    Str,
    Bin,
    Method,
}

impl SampleType {
    /// Whether a sample of this type can be cast to `to`. A cast that is possible here may still fail on a value (text
    /// that is no address).
    pub fn castable(self, to: SampleType) -> bool {
        use SampleType::{Addr, Any, Bin, Bool, Int, Ipv4, Ipv6, Method, Str};
        match (self, to) {
            (Any, _) | (_, Any | Str) => true,
            (a, b) if a == b => true,
            (Bool, Int | Bin) | (Int, Bool) => true,
            (Int, Addr | Ipv4 | Ipv6 | Bin) => true,
            (Addr, Ipv4 | Ipv6 | Int | Bin) => true,
            (Ipv4, Addr | Ipv6 | Int | Bin) => true,
            (Ipv6, Addr | Ipv4 | Bin) => true,
            (Str, Int | Bool | Addr | Ipv4 | Ipv6 | Bin | Method) => true,
            (Method, Bin) => true,
            _ => false,
        }
    }

    /// Whether a sample of this type can become a key of a table of type `to`; `false` is refused at start-up.
    pub fn castable_to_key(self, to: KeyType) -> bool {
        use SampleType::{Addr, Any, Bin, Bool, Int, Ipv4, Ipv6, Method, Str};
        match to {
            KeyType::Ip | KeyType::Ipv6 => matches!(self, Any | Addr | Ipv4 | Ipv6 | Int | Str),
            KeyType::Integer => matches!(self, Any | Addr | Ipv4 | Int | Bool | Str),
            KeyType::String => true,
            KeyType::Binary => matches!(
                self,
                Any | Addr | Ipv4 | Ipv6 | Int | Bool | Str | Bin | Method
            ),
        }
    }
}

/// Text of a sample, without the allocator where it is short.
pub type Text = smallvec::SmallVec<[u8; 64]>;

impl<'a> Sample<'a> {
    /// Its type.
    pub fn kind(&self) -> SampleType {
        match self {
            Sample::Bool(_) => SampleType::Bool,
            Sample::Int(_) => SampleType::Int,
            Sample::Ipv4(_) => SampleType::Ipv4,
            Sample::Ipv6(_) => SampleType::Ipv6,
            Sample::Str(_) => SampleType::Str,
            Sample::Bin(_) => SampleType::Bin,
            Sample::Method(_) => SampleType::Method,
        }
    }

    /// An address sample.
    pub fn addr(addr: IpAddr) -> Sample<'a> {
        match addr {
            IpAddr::V4(a) => Sample::Ipv4(a),
            IpAddr::V6(a) => Sample::Ipv6(a),
        }
    }

    /// The same value, owning its bytes.
    pub fn into_owned(self) -> Sample<'static> {
        match self {
            Sample::Bool(b) => Sample::Bool(b),
            Sample::Int(i) => Sample::Int(i),
            Sample::Ipv4(a) => Sample::Ipv4(a),
            Sample::Ipv6(a) => Sample::Ipv6(a),
            Sample::Str(s) => Sample::Str(Cow::Owned(s.into_owned())),
            Sample::Bin(s) => Sample::Bin(Cow::Owned(s.into_owned())),
            Sample::Method(s) => Sample::Method(Cow::Owned(s.into_owned())),
        }
    }

    /// Casts; `None` when the value cannot be expressed in that type.
    pub fn cast(self, to: SampleType) -> Option<Sample<'a>> {
        match to {
            SampleType::Any => Some(self),
            SampleType::Bool => self.to_int().map(|i| Sample::Bool(i != 0)),
            SampleType::Int => self.to_int().map(Sample::Int),
            SampleType::Addr => self.to_addr().map(Sample::addr),
            SampleType::Ipv4 => match self.to_addr()? {
                IpAddr::V4(a) => Some(Sample::Ipv4(a)),
                IpAddr::V6(a) => v6_to_v4(a).map(Sample::Ipv4),
            },
            SampleType::Ipv6 => match self.to_addr()? {
                IpAddr::V4(a) => Some(Sample::Ipv6(a.to_ipv6_mapped())),
                IpAddr::V6(a) => Some(Sample::Ipv6(a)),
            },
            SampleType::Str => self.into_text().map(Sample::Str),
            SampleType::Method => self.into_text().map(Sample::Method),
            SampleType::Bin => self.into_bytes().map(Sample::Bin),
        }
    }

    /// As an integer: booleans 0/1, IPv4 in host order, text by its leading decimal digits (0 without any; empty: none).
    pub fn to_int(&self) -> Option<i64> {
        match self {
            Sample::Bool(b) => Some(i64::from(*b)),
            Sample::Int(i) => Some(*i),
            Sample::Ipv4(a) => Some(i64::from(u32::from(*a))),
            Sample::Str(s) => text_to_int(s),
            Sample::Ipv6(_) | Sample::Bin(_) | Sample::Method(_) => None,
        }
    }

    /// As an address: integers are IPv4 numbers, text is parsed.
    pub fn to_addr(&self) -> Option<IpAddr> {
        match self {
            Sample::Ipv4(a) => Some(IpAddr::V4(*a)),
            Sample::Ipv6(a) => Some(IpAddr::V6(*a)),
            Sample::Int(i) => Some(IpAddr::V4(Ipv4Addr::from(*i as u32))), // low 32 bits, as keys are cut
            Sample::Str(s) => std::str::from_utf8(s).ok()?.parse().ok(),
            Sample::Bool(_) | Sample::Bin(_) | Sample::Method(_) => None,
        }
    }

    /// As text. Binary is text up to its first NUL.
    pub fn into_text(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Sample::Str(s) | Sample::Method(s) => Some(s),
            Sample::Bin(Cow::Borrowed(s)) => Some(Cow::Borrowed(before_nul(s))),
            Sample::Bin(Cow::Owned(mut s)) => {
                s.truncate(before_nul(&s).len());
                Some(Cow::Owned(s))
            }
            other => {
                let mut text = Text::new();
                other.write_text(&mut text);
                Some(Cow::Owned(text.into_vec()))
            }
        }
    }

    /// As raw bytes: addresses in network order, integers as 8 bytes big-endian.
    pub fn into_bytes(self) -> Option<Cow<'a, [u8]>> {
        Some(match self {
            Sample::Bool(b) => Cow::Owned(i64::from(b).to_be_bytes().to_vec()),
            Sample::Int(i) => Cow::Owned(i.to_be_bytes().to_vec()),
            Sample::Ipv4(a) => Cow::Owned(a.octets().to_vec()),
            Sample::Ipv6(a) => Cow::Owned(a.octets().to_vec()),
            Sample::Str(s) | Sample::Bin(s) | Sample::Method(s) => s,
        })
    }

    /// Calls `f` with the value's text, without allocating for short values.
    pub fn with_text<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Sample::Str(s) | Sample::Bin(s) | Sample::Method(s) => f(s),
            other => {
                let mut text = Text::new();
                other.write_text(&mut text);
                f(&text)
            }
        }
    }

    /// Appends the value as a log-format string shows it: decimal numbers, booleans as 0/1, binary up to its first NUL.
    pub fn write_display(&self, out: &mut Vec<u8>) {
        match self {
            Sample::Bin(bytes) => out.extend_from_slice(before_nul(bytes)),
            Sample::Str(s) | Sample::Method(s) => out.extend_from_slice(s),
            other => {
                let mut text = Text::new();
                other.write_text(&mut text);
                out.extend_from_slice(&text);
            }
        }
    }

    fn write_text(&self, out: &mut Text) {
        match self {
            Sample::Bool(b) => out.push(if *b { b'1' } else { b'0' }),
            Sample::Int(i) => out.extend_from_slice(itoa::Buffer::new().format(*i).as_bytes()),
            // Writing to memory cannot fail.
            Sample::Ipv4(a) => drop(write!(Sink(out), "{a}")),
            Sample::Ipv6(a) => drop(write!(Sink(out), "{a}")),
            Sample::Str(s) | Sample::Bin(s) | Sample::Method(s) => out.extend_from_slice(s),
        }
    }
}

fn before_nul(bytes: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default()
}

struct Sink<'t>(&'t mut Text);

impl fmt::Write for Sink<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible or 6to4; others have none. (reference: stick-tables 2.2)
pub fn v6_to_v4(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    let o = addr.octets();
    if o[..10] == [0; 10] && (o[10..12] == [0xff, 0xff] || o[10..12] == [0, 0]) {
        return Some(Ipv4Addr::new(o[12], o[13], o[14], o[15]));
    }
    (o[..2] == [0x20, 0x02]).then(|| Ipv4Addr::new(o[2], o[3], o[4], o[5]))
}

/// Leading decimal digits of a text, with an optional sign; 0 when there are none, `None` for an empty text. Saturates.
pub fn text_to_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [] => return None,
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut value: i64 = 0;
    for b in digits.iter().take_while(|b| b.is_ascii_digit()) {
        let digit = i64::from(b - b'0');
        value = value.saturating_mul(10);
        value = if negative {
            value.saturating_sub(digit)
        } else {
            value.saturating_add(digit)
        };
    }
    Some(value)
}

/// Appends upper-case hexadecimal digits.
pub fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len() * 2);
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)]);
        out.push(DIGITS[usize::from(b & 15)]);
    }
}
