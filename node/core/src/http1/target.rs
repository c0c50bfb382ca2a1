//! Request targets and hosts. (RFC 9112 section 3.2, RFC 9110 section 7.2, RFC 3986)

use super::error::ErrorKind;
use super::framing::MethodKind;
use super::head::{Head, Span};
use super::names::{HeaderId, alphanumeric_and};

impl Head {
    /// Splits the target of a complete request and compares it with `Host`.
    pub(crate) fn judge_target(&mut self) -> Result<(), ErrorKind> {
        let target = self.target;
        let text = target.of(&self.bytes);
        self.origin = target;
        if self.facts.method == MethodKind::Connect {
            let (host, port) = split_host(text).ok_or(ErrorKind::Target)?;
            if host.is_empty() || port.is_none_or(<[u8]>::is_empty) {
                return Err(ErrorKind::Target);
            }
            self.authority = target;
            return self.judge_authority(None);
        }
        match text.first() {
            Some(b'/') => {
                self.path_len = path_len(text);
                Ok(())
            }
            Some(b'*') if text.len() == 1 && self.facts.method == MethodKind::Options => Ok(()),
            _ => self.judge_absolute(),
        }
    }

    /// `http://authority/path?query`. Other schemes would lose their meaning in origin form.
    fn judge_absolute(&mut self) -> Result<(), ErrorKind> {
        let text = self.target.of(&self.bytes);
        let (skip, default_port) = match text {
            t if starts_with_ignoring_case(t, b"http://") => (7, 80),
            t if starts_with_ignoring_case(t, b"https://") => (8, 443),
            _ => return Err(ErrorKind::Target),
        };
        let rest = text.get(skip..).unwrap_or_default();
        let authority_len = rest
            .iter()
            .position(|&c| c == b'/' || c == b'?')
            .unwrap_or(rest.len());
        let (authority, origin) = rest.split_at(authority_len);
        match split_host(authority) {
            Some((host, _)) if !host.is_empty() => {}
            _ => return Err(ErrorKind::Target),
        }
        let off = self.target.off + skip as u32;
        self.authority = Span {
            off,
            len: authority_len as u32,
        };
        if origin.first() == Some(&b'/') {
            self.path_len = path_len(origin);
            self.origin = Span {
                off: off + authority_len as u32,
                len: origin.len() as u32,
            };
        } else if origin.is_empty() && self.facts.method == MethodKind::Options {
            self.origin = self.append(b"*").map_err(|_| ErrorKind::HeadTooLarge)?;
        } else {
            let mut rooted = Vec::with_capacity(origin.len() + 1);
            rooted.push(b'/');
            rooted.extend_from_slice(origin);
            self.path_len = 1;
            self.origin = self.append(&rooted).map_err(|_| ErrorKind::HeadTooLarge)?;
        }
        self.judge_authority(Some(default_port))
    }

    /// `Host`, if there is one, must name the target's authority. A port that is the scheme's default may be left out
    /// on either side; for `CONNECT` (no scheme) 80 and 443 may.
    fn judge_authority(&self, default_port: Option<u32>) -> Result<(), ErrorKind> {
        let Some(host) = self.first_of(HeaderId::Host) else {
            return Ok(()); // only HTTP/1.0 gets here without one
        };
        let (a, b) = (split_host(self.authority.of(&self.bytes)), split_host(host));
        let (Some((a_host, a_port)), Some((b_host, b_port))) = (a, b) else {
            return Err(ErrorKind::HostInvalid);
        };
        let a_port = a_port.and_then(port_number).or(default_port);
        let b_port = b_port.and_then(port_number).or(default_port);
        let ports_agree = a_port == b_port
            || (default_port.is_none() && b_port.is_none() && matches!(a_port, Some(80 | 443)));
        if a_host.eq_ignore_ascii_case(b_host) && ports_agree {
            Ok(())
        } else {
            Err(ErrorKind::HostMismatch)
        }
    }
}

/// Length of the path at the start of a target in origin form.
pub(crate) fn path_len(origin: &[u8]) -> u32 {
    if origin.first() != Some(&b'/') {
        return 0;
    }
    memchr::memchr(b'?', origin).unwrap_or(origin.len()) as u32
}

/// First character that no request target may contain. Visible ASCII passes: browsers send more of it than RFC 3986
/// allows. `#` does not: fragments stay with the client, and parsers disagree on whether it ends the path.
pub(crate) fn first_unclean(target: &[u8]) -> Option<usize> {
    let unclean = |c: u8| !(0x21..=0x7e).contains(&c) || c == b'#';
    // one branch-free pass first: it becomes vector code
    if !target.iter().fold(false, |bad, &c| bad | unclean(c)) {
        return None;
    }
    target.iter().position(|&c| unclean(c))
}

/// May serve as a request target.
pub(crate) fn is_clean(target: &[u8]) -> bool {
    !target.is_empty() && first_unclean(target).is_none()
}

/// `Host` values: `uri-host [":" port]`, possibly empty.
pub(crate) fn is_host(value: &[u8]) -> bool {
    split_host(value).is_some()
}

/// Splits `host[:port]` after checking both. Accepts registered names without commas (a list of hosts is no host),
/// bracketed IPv6 literals, and an empty port. User information is refused.
fn split_host(value: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (host, port) = if value.first() == Some(&b'[') {
        let close = memchr::memchr(b']', value)?;
        let (literal, rest) = value.split_at(close + 1);
        let inside = literal.get(1..close)?;
        let valid = inside.contains(&b':')
            && inside
                .iter()
                .all(|c| c.is_ascii_hexdigit() || matches!(c, b':' | b'.'));
        if !valid {
            return None;
        }
        match rest {
            [] => (literal, None),
            [b':', port @ ..] => (literal, Some(port)),
            _ => return None,
        }
    } else {
        let end = value
            .iter()
            .position(|&c| !is_host_char(c))
            .unwrap_or(value.len());
        let (name, rest) = value.split_at(end);
        if !matches!(rest.first(), None | Some(b':')) {
            return None;
        }
        (name, rest.get(1..))
    };
    if let Some(port) = port
        && !port.is_empty()
    {
        port_number(port)?;
    }
    Some((host, port))
}

/// RFC 3986 `reg-name` without the comma.
fn is_host_char(c: u8) -> bool {
    HOST[c as usize]
}

const HOST: [bool; 256] = alphanumeric_and(b"-._~%!$&'()*+;=");

/// Digits, at most 65535.
fn port_number(port: &[u8]) -> Option<u32> {
    if port.is_empty() || port.len() > 5 {
        return None;
    }
    let n = port.iter().try_fold(0u32, |n, d| {
        d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0'))
    })?;
    (n <= 65535).then_some(n)
}

fn starts_with_ignoring_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len())
        .is_some_and(|t| t.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "",
            "a",
            "a.b:80",
            "A_b-c.d.",
            "[::1]",
            "[::1]:8080",
            "a:",
            "1.2.3.4:65535",
            "xn--a",
            "a%20b",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b", "a,b", "a/b", "a@b", "a:b", "a:65536", "a:-1", "a:80:80", "[::1", "::1", "[]",
            "[x]", "[::1]a", "a\\b", "a?", "a#", "é", "a:+80", "a:000080",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn unclean_targets() {
        assert_eq!(first_unclean(b"/a?b=c&d=%00|{}\"<>\\^`"), None);
        assert_eq!(first_unclean(b"/a#b"), Some(2));
        assert_eq!(first_unclean("/é".as_bytes()), Some(1));
        assert_eq!(first_unclean(b"/a\x7f"), Some(2));
    }
}
