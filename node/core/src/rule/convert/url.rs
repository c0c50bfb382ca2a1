//! Percent encoding and decoding.

use std::borrow::Cow;

/// Decodes `%XX`; `+` is a space after the first `?` (from the start on if `form`). A broken sequence: no sample.
pub(super) fn decode(text: Cow<'_, [u8]>, form: bool) -> Option<Cow<'_, [u8]>> {
    if memchr::memchr2(b'%', b'+', &text).is_none() {
        return Some(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut in_query = form;
    let mut bytes = text.iter();
    while let Some(&b) = bytes.next() {
        match b {
            b'%' => {
                let high = char::from(*bytes.next()?).to_digit(16)?;
                let low = char::from(*bytes.next()?).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            b'+' if in_query => out.push(b' '),
            b'?' => {
                in_query = true;
                out.push(b);
            }
            _ => out.push(b),
        }
    }
    Some(Cow::Owned(out))
}

/// Encodes all but RFC 3986's unreserved characters.
pub(super) fn encode(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if text.iter().all(|b| plain(*b)) {
        return text;
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    for &b in text.iter() {
        if plain(b) {
            out.push(b);
        } else {
            write_percent(b, &mut out);
        }
    }
    Cow::Owned(out)
}

/// Appends `%XX`.
pub(in crate::rule) fn write_percent(b: u8, out: &mut Vec<u8>) {
    out.push(b'%');
    crate::rule::sample::write_hex(&[b], out);
}
