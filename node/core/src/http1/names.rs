//! Header names that the proxy itself must know, recognised once while parsing, and the character classes of heads.

/// Well-known header names. Everything else is `Other` and compared by text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // each is the header it is named after
pub enum HeaderId {
    #[default]
    Other,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    SetCookie,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
}

impl HeaderId {
    /// The id of a name, in any case. `name` should be a token.
    #[inline]
    pub fn of(name: &[u8]) -> HeaderId {
        // Length first: most names end here. Then one comparison, or three.
        macro_rules! among {
            ($($text:literal $id:ident),+) => {{
                let name = folded(name);
                $(if name == const { folded($text) } {
                    return HeaderId::$id;
                })+
                HeaderId::Other
            }};
        }
        match name.len() {
            2 => among!(b"te" Te),
            4 => among!(b"host" Host),
            6 => among!(b"cookie" Cookie, b"expect" Expect),
            7 => among!(b"upgrade" Upgrade, b"trailer" Trailer),
            10 => {
                among!(b"connection" Connection, b"keep-alive" KeepAlive, b"set-cookie" SetCookie)
            }
            14 => among!(b"content-length" ContentLength, b"http2-settings" Http2Settings),
            15 => among!(b"x-forwarded-for" XForwardedFor),
            16 => among!(b"proxy-connection" ProxyConnection),
            // too long for the folded form
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => HeaderId::TransferEncoding,
            _ => HeaderId::Other,
        }
    }

    /// Its place in [`super::Head`]'s set of headers that occur.
    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Up to 16 bytes of text as a number, upper and lower case alike: the first eight and the last eight bytes, which
/// overlap in shorter text. Equal for two texts of equal length exactly if they differ at most in case, provided that
/// both are made of letters, digits and hyphens, or one is and the other has no control characters.
#[inline]
pub(crate) const fn folded(text: &[u8]) -> u128 {
    const CASE: u64 = 0x2020_2020_2020_2020;
    let (first, last) = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
            (Some(first), Some(last)) => (
                u32::from_le_bytes(*first) as u64,
                u32::from_le_bytes(*last) as u64,
            ),
            _ => match text {
                [] => (0, 0),
                [a] => (*a as u64, 0),
                [a, b] => (*a as u64, *b as u64),
                [a, b, c, ..] => (*a as u64 | (*b as u64) << 8, *c as u64),
            },
        },
    };
    ((first | CASE) as u128) << 64 | (last | CASE) as u128
}

/// Names that a `Connection` header cannot take away from the recipient: they are meant for the end of the chain, or
/// proxies put them there on purpose, so a sender that lists them is wrong or up to something.
/// (RFC 9110 section 7.6.1: fields intended for all recipients must not be listed.)
pub(crate) fn is_end_to_end(name: &[u8]) -> bool {
    let id = HeaderId::of(name);
    if matches!(
        id,
        HeaderId::ContentLength
            | HeaderId::Cookie
            | HeaderId::Expect
            | HeaderId::Host
            | HeaderId::SetCookie
            | HeaderId::Trailer
            | HeaderId::TransferEncoding
            | HeaderId::XForwardedFor
    ) {
        return true;
    }
    const PREFIXES: &[&[u8]] = &[
        b"accept",
        b"access-control-",
        b"content-",
        b"if-",
        b"sec-",
        b"x-forwarded-",
        b"x-auth",
        b"x-remote-",
    ];
    const NAMES: &[&[u8]] = &[
        b"age",
        b"allow",
        b"authorization",
        b"cache-control",
        b"date",
        b"etag",
        b"expires",
        b"forwarded",
        b"from",
        b"last-modified",
        b"location",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"range",
        b"referer",
        b"retry-after",
        b"server",
        b"strict-transport-security",
        b"traceparent",
        b"tracestate",
        b"true-client-ip",
        b"user-agent",
        b"vary",
        b"via",
        b"www-authenticate",
        b"x-client-ip",
        b"x-forwarded",
        b"x-real-ip",
        b"x-request-id",
    ];
    PREFIXES.iter().any(|p| {
        name.get(..p.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(p))
    }) || NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// RFC 9110 section 5.6.2 `tchar`.
#[inline]
pub fn is_token_char(c: u8) -> bool {
    TOKEN[c as usize]
}

/// Length of the run of token characters at the start, eight at a time while they are the usual ones.
#[inline]
pub(crate) fn token_len(text: &[u8]) -> usize {
    let mut len = 0;
    for chunk in text.as_chunks::<8>().0 {
        let unusual = unusual_in_names(u64::from_le_bytes(*chunk));
        if unusual != 0 {
            len += unusual.trailing_zeros() as usize / 8;
            break;
        }
        len += 8;
    }
    while text.get(len).is_some_and(|&c| is_token_char(c)) {
        len += 1;
    }
    len
}

/// A non-empty run of token characters.
pub fn is_token(s: &[u8]) -> bool {
    !s.is_empty() && token_len(s) == s.len()
}

/// Control characters that no part of a head may contain: all but HTAB below 0x20, and DEL.
#[inline]
pub(crate) fn is_ctl(c: u8) -> bool {
    (c < 0x20 && c != b'\t') || c == 0x7f
}

/// The places of control characters, HTAB apart, one after the other.
#[derive(Debug)]
pub(crate) struct Controls<'t> {
    rest: &'t [u8],
    /// Where `rest` begins.
    at: usize,
    /// Where the eight bytes before it began, and those among them that were found and not given out yet.
    base: usize,
    found: u64,
}

impl<'t> Controls<'t> {
    /// Those from `from` on.
    #[inline]
    pub(crate) fn new(text: &'t [u8], from: usize) -> Controls<'t> {
        Controls {
            rest: text.get(from..).unwrap_or_default(),
            at: from,
            base: from,
            found: 0,
        }
    }
}

impl Iterator for Controls<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            self.base = self.at;
            let bytes = if let Some((chunk, rest)) = self.rest.split_first_chunk::<8>() {
                self.rest = rest;
                *chunk
            } else if self.rest.is_empty() {
                return None;
            } else {
                let mut last = [b' '; 8];
                last.iter_mut().zip(self.rest).for_each(|(to, &c)| *to = c);
                self.rest = &[];
                last
            };
            self.at += 8;
            self.found = controls(u64::from_le_bytes(bytes));
        }
        let first = self.found.trailing_zeros() as usize / 8;
        self.found &= self.found - 1;
        Some(self.base + first)
    }
}

/// A byte in all eight places.
const fn all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}
const HIGH: u64 = all(0x80);
const LOW: u64 = all(0x7f);

/// The high bit of each of eight bytes for which [`is_ctl`] holds. Sums of seven bits cannot run over into the next byte.
const fn controls(bytes: u64) -> u64 {
    let low = bytes & LOW;
    let printable = low + all(0x80 - 0x20);
    let not_tab = (low ^ all(b'\t')) + LOW;
    let del = low + all(1);
    ((!printable & not_tab) | del) & !bytes & HIGH
}

/// The high bit of each of eight bytes that is neither a letter nor a digit nor a hyphen.
const fn unusual_in_names(bytes: u64) -> u64 {
    let low = bytes & LOW;
    let folded = low | all(0x20);
    let letter = (folded + all(0x80 - b'a')) & !(folded + all(0x80 - b'z' - 1));
    let digit = (low + all(0x80 - b'0')) & !(low + all(0x80 - b'9' - 1));
    let hyphen = !((low ^ all(b'-')) + LOW);
    (!(letter | digit | hyphen) | bytes) & HIGH
}

const TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");

/// Which bytes are letters, digits or one of `more`.
pub(super) const fn alphanumeric_and(more: &[u8]) -> [bool; 256] {
    let mut t = [false; 256];
    let mut c = 0;
    while c < 256 {
        t[c] = (c as u8).is_ascii_alphanumeric();
        c += 1;
    }
    let mut i = 0;
    while i < more.len() {
        t[more[i] as usize] = true;
        i += 1;
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ignore_case() {
        for (name, id) in [
            ("Host", HeaderId::Host),
            ("hOST", HeaderId::Host),
            ("hosT2", HeaderId::Other),
            ("CONTENT-LENGTH", HeaderId::ContentLength),
            ("content_length", HeaderId::Other),
            ("TE", HeaderId::Te),
            ("Transfer-Encoding", HeaderId::TransferEncoding),
            ("", HeaderId::Other),
        ] {
            assert_eq!(HeaderId::of(name.as_bytes()), id, "{name}");
        }
    }

    #[test]
    fn eight_bytes_at_a_time_are_judged_as_one_by_one() {
        for c in 0..=u8::MAX {
            for at in 0..19 {
                for around in [b'a', b'~', b'\r', 0x80, 0xff] {
                    let mut text = [around; 19];
                    text[at] = c;
                    for from in [0, 1, at, at + 1, 19, 20] {
                        let ctl = |i: &usize| is_ctl(text[*i]);
                        let expected: Vec<usize> = (from..19).filter(ctl).collect();
                        let got: Vec<usize> = Controls::new(&text, from).collect();
                        assert_eq!(got, expected, "{text:?} from {from}");
                    }
                    let token = text.iter().take_while(|&&c| is_token_char(c)).count();
                    assert_eq!(token_len(&text), token, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn what_connection_cannot_take_away() {
        for name in [
            "Cookie",
            "content-length",
            "Content-Type",
            "X-Forwarded-Proto",
            "Authorization",
            "if-match",
        ] {
            assert!(is_end_to_end(name.as_bytes()), "{name}");
        }
        for name in ["x-foo", "Keep-Alive", "upgrade", "http2-settings", "te"] {
            assert!(!is_end_to_end(name.as_bytes()), "{name}");
        }
    }
}
