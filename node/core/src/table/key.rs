//! Keys: their types, how samples and typed text become keys, how keys are shown (reference: stick-tables 2).

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

use crate::rule::sample::{Sample, SampleType};

/// Type of a table's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// IPv4 address, 4 bytes (`ip`, `ipv4`).
    Ip,
    /// IPv6 address, 16 bytes.
    Ipv6,
    /// Unsigned 32-bit integer.
    Integer,
    /// Text, at most `key_len` bytes.
    String,
    /// Exactly `key_len` bytes.
    Binary,
}

impl KeyType {
    /// The type written so after `type`.
    pub fn from_name(name: &str) -> Option<KeyType> {
        Some(match name {
            "ip" | "ipv4" => KeyType::Ip,
            "ipv6" => KeyType::Ipv6,
            "integer" => KeyType::Integer,
            "string" => KeyType::String,
            "binary" => KeyType::Binary,
            _ => return None,
        })
    }
    /// Its name in dumps.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::Ip => "ip",
            KeyType::Ipv6 => "ipv6",
            KeyType::Integer => "integer",
            KeyType::String => "string",
            KeyType::Binary => "binary",
        }
    }
    /// Bytes of a key when no `len` is given. 31 for strings, not 32: HAProxy's default counts a terminator, and
    /// keys must be cut in the same place.
    pub fn default_len(self) -> usize {
        match self {
            KeyType::Ip | KeyType::Integer => 4,
            KeyType::Ipv6 => 16,
            KeyType::String => 31,
            KeyType::Binary => 32,
        }
    }
    /// Whether `len N` may follow.
    pub fn takes_len(self) -> bool {
        matches!(self, KeyType::String | KeyType::Binary)
    }
    /// Whether samples of this type can ever become keys of this one: what is refused when the configuration is read.
    pub fn accepts(self, from: SampleType) -> bool {
        use SampleType as S;
        match self {
            KeyType::Ip | KeyType::Ipv6 => {
                matches!(from, S::Any | S::Addr | S::Ipv4 | S::Ipv6 | S::Int | S::Str)
            }
            KeyType::Integer => {
                matches!(from, S::Any | S::Addr | S::Ipv4 | S::Int | S::Bool | S::Str)
            }
            KeyType::String | KeyType::Binary => true,
        }
    }
}

/// A key in a table's stored form (4 bytes big-endian for addresses v4 and integers, 16 for v6, text cut to `key_len`,
/// binary padded to `key_len`). Inline up to 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(SmallVec<[u8; 32]>);

impl Key {
    /// A key from what [`Key::as_bytes`] or `Entry::key` gave, for a table of the same type and length.
    pub fn from_stored(bytes: &[u8]) -> Key {
        Key(SmallVec::from_slice(bytes))
    }
    /// The stored form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Casts a sample to a key of that type and length. `None`: there is no key.
    pub fn from_sample(sample: &Sample<'_>, key_type: KeyType, key_len: usize) -> Option<Key> {
        match key_type {
            KeyType::Ip => sample_to_v4(sample).map(Key::from_v4),
            KeyType::Ipv6 => sample_to_v6(sample).map(Key::from_v6),
            KeyType::Integer => sample_to_integer(sample).map(Key::from_u32),
            KeyType::String => Some(sample_to_text(sample, key_len)),
            KeyType::Binary => Some(sample_to_binary(sample, key_len)),
        }
    }

    /// Casts an address to a key of that type and length.
    pub fn from_addr(addr: IpAddr, key_type: KeyType, key_len: usize) -> Option<Key> {
        match (key_type, addr) {
            (KeyType::Ip, IpAddr::V4(a)) => Some(Key::from_v4(a)),
            (KeyType::Ipv6, IpAddr::V6(a)) => Some(Key::from_v6(a)),
            (_, IpAddr::V4(a)) => Key::from_sample(&Sample::Ipv4(a), key_type, key_len),
            (_, IpAddr::V6(a)) => Key::from_sample(&Sample::Ipv6(a), key_type, key_len),
        }
    }

    /// A key typed by a person. Addresses may be of either family and are then cast; binary keys cannot be typed.
    pub fn from_typed(text: &[u8], key_type: KeyType, key_len: usize) -> Option<Key> {
        match key_type {
            KeyType::Ip | KeyType::Ipv6 => {
                let addr = std::str::from_utf8(text).ok()?.parse::<IpAddr>().ok()?;
                Key::from_addr(addr, key_type, key_len)
            }
            KeyType::Integer => text_to_i64(text).map(|n| Key::from_u32(n as u32)),
            KeyType::String => Some(Key::from_text(text, key_len)),
            KeyType::Binary => None,
        }
    }

    fn from_v4(addr: Ipv4Addr) -> Key {
        Key(SmallVec::from_slice(&addr.octets()))
    }
    fn from_v6(addr: Ipv6Addr) -> Key {
        Key(SmallVec::from_slice(&addr.octets()))
    }
    fn from_u32(n: u32) -> Key {
        Key(SmallVec::from_slice(&n.to_be_bytes()))
    }
    fn from_text(text: &[u8], len: usize) -> Key {
        let text = until_nul(text);
        Key(SmallVec::from_slice(text.get(..len).unwrap_or(text)))
    }
    fn from_binary(bytes: &[u8], len: usize) -> Key {
        let mut key = SmallVec::from_slice(bytes.get(..len).unwrap_or(bytes));
        key.resize(len, 0);
        Key(key)
    }
}

/// Bytes before the first NUL.
pub(super) fn until_nul(text: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// The IPv4 address inside an IPv6 one: mapped (`::ffff:0:0/96`), compatible (`::/96`) or 6to4 (`2002::/16`).
pub fn v6_to_v4(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    match addr.octets() {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

fn text_to_addr(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

fn sample_to_v4(sample: &Sample<'_>) -> Option<Ipv4Addr> {
    match sample {
        Sample::Ipv4(a) => Some(*a),
        Sample::Ipv6(a) => v6_to_v4(*a),
        Sample::Int(n) => Some(Ipv4Addr::from_bits(*n as u32)),
        Sample::Str(s) => text_to_addr(s)?.parse().ok(),
        Sample::Bool(_) | Sample::Bin(_) | Sample::Method(_) => None,
    }
}

fn sample_to_v6(sample: &Sample<'_>) -> Option<Ipv6Addr> {
    match sample {
        Sample::Ipv6(a) => Some(*a),
        Sample::Str(s) => match text_to_addr(s)?.parse().ok()? {
            IpAddr::V4(a) => Some(a.to_ipv6_mapped()),
            IpAddr::V6(a) => Some(a),
        },
        Sample::Ipv4(_) | Sample::Int(_) => sample_to_v4(sample).map(|a| a.to_ipv6_mapped()),
        Sample::Bool(_) | Sample::Bin(_) | Sample::Method(_) => None,
    }
}

fn sample_to_integer(sample: &Sample<'_>) -> Option<u32> {
    match sample {
        Sample::Int(n) => Some(*n as u32), // the low 32 bits
        Sample::Bool(b) => Some(u32::from(*b)),
        Sample::Ipv4(a) => Some(a.to_bits()),
        Sample::Str(s) => text_to_i64(s).map(|n| n as u32),
        Sample::Ipv6(_) | Sample::Bin(_) | Sample::Method(_) => None,
    }
}

/// Leading decimal digits with an optional sign, stopping at the limits of 64 bits; text without digits is 0,
/// empty text is no number.
fn text_to_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [] => return None,
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut n: i64 = 0;
    for c in digits {
        let digit = c.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        let digit = i64::from(digit);
        n = n.saturating_mul(10);
        n = if negative {
            n.saturating_sub(digit)
        } else {
            n.saturating_add(digit)
        };
    }
    Some(n)
}

/// Room for the text of any number or address.
type Short = SmallVec<[u8; 48]>;

/// Appends without allocating as long as `Short` has room.
struct Append<'a>(&'a mut Short);

impl std::fmt::Write for Append<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn formatted(value: impl std::fmt::Display) -> Short {
    let mut out = Short::new();
    // Appending cannot fail.
    let _ = std::fmt::write(&mut Append(&mut out), format_args!("{value}"));
    out
}

fn sample_to_text(sample: &Sample<'_>, len: usize) -> Key {
    match sample {
        Sample::Str(s) | Sample::Method(s) | Sample::Bin(s) => Key::from_text(s, len),
        Sample::Bool(b) => Key::from_text(if *b { b"1" } else { b"0" }, len),
        Sample::Int(n) => Key::from_text(&formatted(n), len),
        Sample::Ipv4(a) => Key::from_text(&formatted(a), len),
        Sample::Ipv6(a) => Key::from_text(&formatted(V6Text(*a)), len),
    }
}

fn sample_to_binary(sample: &Sample<'_>, len: usize) -> Key {
    match sample {
        Sample::Str(s) | Sample::Method(s) | Sample::Bin(s) => Key::from_binary(s, len),
        Sample::Bool(b) => Key::from_binary(&i64::from(*b).to_be_bytes(), len),
        Sample::Int(n) => Key::from_binary(&n.to_be_bytes(), len),
        Sample::Ipv4(a) => Key::from_binary(&a.octets(), len),
        Sample::Ipv6(a) => Key::from_binary(&a.octets(), len),
    }
}

/// RFC 5952 text, with the last 32 bits dotted for IPv4-compatible addresses too, as C libraries print them.
struct V6Text(Ipv6Addr);

impl std::fmt::Display for V6Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.octets() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if (a, b) != (0, 0) => {
                write!(f, "::{a}.{b}.{c}.{d}")
            }
            _ => self.0.fmt(f),
        }
    }
}

/// A stored key as a sample of the table's type (`sc_key`).
pub fn key_sample(key: &[u8], key_type: KeyType) -> Sample<'_> {
    match key_type {
        KeyType::Ip => Sample::Ipv4(Ipv4Addr::from_bits(number(key))),
        KeyType::Ipv6 => Sample::Ipv6(address_v6(key)),
        KeyType::Integer => Sample::Int(i64::from(number(key))),
        KeyType::String => Sample::Str(Cow::Borrowed(key)),
        KeyType::Binary => Sample::Bin(Cow::Borrowed(key)),
    }
}

/// Appends a stored key as `show table` prints it: address text, unsigned decimal, escaped text, upper-case hex.
pub fn write_key(key: &[u8], key_type: KeyType, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = match key_type {
        KeyType::Ip => write!(out, "{}", Ipv4Addr::from_bits(number(key))),
        KeyType::Ipv6 => write!(out, "{}", V6Text(address_v6(key))),
        KeyType::Integer => write!(out, "{}", number(key)),
        KeyType::String => {
            escape(key, out);
            Ok(())
        }
        KeyType::Binary => key.iter().try_for_each(|b| write!(out, "{b:02X}")),
    };
}

fn number(key: &[u8]) -> u32 {
    key.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}

fn address_v6(key: &[u8]) -> Ipv6Addr {
    key.first_chunk::<16>()
        .map_or(Ipv6Addr::UNSPECIFIED, |b| Ipv6Addr::from(*b))
}

/// Escapes so that one key is one word of the CLI: backslash before blank, backslash and `=`; `\t`, `\n`, `\r`, `\e`; hex
/// for all else that is not printable ASCII.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &c in text {
        match c {
            b' ' | b'\\' | b'=' => out.extend_from_slice(&[b'\\', c]),
            0x21..=0x7e => out.push(c),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x1b => out.extend_from_slice(b"\\e"),
            _ => {
                let _ = write!(out, "\\x{c:02X}");
            }
        }
    }
}
