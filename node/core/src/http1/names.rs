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

/// Length of the run of token characters at the start, four at a time.
#[inline]
pub(crate) fn token_len(text: &[u8]) -> usize {
    let mut len = 0;
    while let Some([a, b, c, d]) = text.get(len..).and_then(|rest| rest.first_chunk::<4>()) {
        if !(is_token_char(*a) & is_token_char(*b) & is_token_char(*c) & is_token_char(*d)) {
            break;
        }
        len += 4;
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

const TOKEN: [bool; 256] = {
    let mut t = [false; 256];
    let mut c = 0usize;
    while c < 256 {
        let b = c as u8;
        t[c] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        c += 1;
    }
    t
};

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
