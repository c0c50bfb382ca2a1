//! Cutting, splitting and replacing text.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex};

use super::Split;

/// The part `start..end`, without copying borrowed bytes. Bounds must be within the text.
pub(super) fn cut(bytes: Cow<'_, [u8]>, start: usize, end: usize) -> Cow<'_, [u8]> {
    match bytes {
        Cow::Borrowed(b) => Cow::Borrowed(b.get(start..end).unwrap_or_default()),
        Cow::Owned(mut b) => {
            b.truncate(end);
            b.drain(..start.min(end));
            Cow::Owned(b)
        }
    }
}

impl Split {
    /// Where the field or word is; `None` if there are not so many.
    pub(super) fn find(&self, text: &[u8]) -> Option<(usize, usize)> {
        let delimiters = |b: &u8| self.delimiters.contains(b);
        if self.index > 0 {
            self.scan(text.iter().map(delimiters))
        } else {
            let (start, end) = self.scan(text.iter().rev().map(delimiters))?;
            Some((text.len() - end, text.len() - start))
        }
    }

    /// Positions in the order of scanning; the end of the text is worth a delimiter.
    fn scan(&self, separators: impl Iterator<Item = bool>) -> Option<(usize, usize)> {
        if self.words {
            self.scan_words(separators)
        } else {
            self.scan_fields(separators)
        }
    }

    fn scan_fields(&self, separators: impl Iterator<Item = bool>) -> Option<(usize, usize)> {
        let wanted = self.index.unsigned_abs();
        let mut left = self.count; // 0 = all the rest
        let (mut number, mut start, mut end) = (1, 0, 0);
        for (at, separator) in separators.enumerate() {
            end = at + 1;
            if !separator {
                continue;
            }
            if number < wanted {
                number += 1;
                start = end;
            } else if left == 1 {
                return Some((start, at));
            } else {
                left = left.saturating_sub(1);
            }
        }
        (number == wanted).then_some((start, end))
    }

    fn scan_words(&self, separators: impl Iterator<Item = bool>) -> Option<(usize, usize)> {
        let wanted = self.index.unsigned_abs();
        let mut left = self.count; // 0 = all the rest
        let (mut number, mut start, mut end, mut inside) = (0, 0, 0, false);
        for (at, separator) in separators.enumerate() {
            end = at + 1;
            if separator == inside {
                if separator && number == wanted {
                    if left == 1 {
                        return Some((start, at));
                    }
                    left = left.saturating_sub(1);
                } else if !separator && number < wanted {
                    number += 1;
                    start = at;
                }
                inside = !inside;
            }
        }
        (number == wanted).then_some((start, end))
    }
}

/// Hexadecimal number; empty is 0, what does not fit wraps as in the reference, anything else is no number.
pub(super) fn hex_to_int(text: &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for &b in text {
        value = value << 4 | u64::from(char::from(b).to_digit(16)?);
    }
    Some(value as i64)
}

/// The colon before a port: the last one, unless it is inside the brackets of an IPv6 address.
pub(super) fn port_colon(host: &[u8]) -> Option<usize> {
    let colon = memchr::memrchr(b':', host)?;
    match memchr::memrchr(b']', host) {
        Some(bracket) if bracket > colon => None,
        _ => Some(colon),
    }
}

/// The port of a host, 0 without.
pub(super) fn port(host: &[u8]) -> i64 {
    port_colon(host)
        .and_then(|colon| host.get(colon + 1..))
        .and_then(crate::rule::sample::text_to_int)
        .unwrap_or(0)
}

/// Replaces the first or all matches.
pub(super) fn regsub<'a>(
    text: Cow<'a, [u8]>,
    regex: &Regex,
    replacement: &[u8],
    all: bool,
) -> Cow<'a, [u8]> {
    if !regex.is_match(&text) {
        return text;
    }
    let limit = if all { 0 } else { 1 };
    let replaced = regex.replacen(&text, limit, |captures: &Captures<'_>| {
        let mut out = Vec::new();
        expand(replacement, captures, &mut out);
        out
    });
    Cow::Owned(replaced.into_owned())
}

/// `\0`-`\9` are groups, `\xHH` a byte, `\` before anything else stands for that.
fn expand(replacement: &[u8], captures: &Captures<'_>, out: &mut Vec<u8>) {
    let mut rest = replacement;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        match tail {
            [digit @ b'0'..=b'9', tail @ ..] => {
                if let Some(group) = captures.get(usize::from(digit - b'0')) {
                    out.extend_from_slice(group.as_bytes());
                }
                rest = tail;
            }
            [b'x', high, low, tail @ ..] => {
                let digit = |b: &u8| char::from(*b).to_digit(16);
                match (digit(high), digit(low)) {
                    (Some(high), Some(low)) => {
                        out.push((high * 16 + low) as u8);
                        rest = tail;
                    }
                    _ => out.push(b'\\'),
                }
            }
            [other, tail @ ..] => {
                out.push(*other);
                rest = tail;
            }
            [] => out.push(b'\\'),
        }
    }
}
