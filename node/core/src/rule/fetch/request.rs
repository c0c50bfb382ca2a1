//! Fetches on message heads: the request line, headers, cookies, parameters.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{CookieFetch, HeaderAs, HeaderFetch, ParamFetch, ReqField, Side};
use crate::http1::{Head, Version};
use crate::rule::convert::hash;
use crate::rule::cx::Cx;
use crate::rule::sample::{Sample, text_to_int};

pub(super) fn field<'a>(cx: &Cx<'a>, head: &'a Head, field: ReqField) -> Option<Sample<'a>> {
    Some(match field {
        ReqField::Version => version(head),
        ReqField::Method => Sample::Method(Cow::Borrowed(head.method())),
        ReqField::Path => borrowed(non_empty(head.path())?),
        ReqField::PathQ => borrowed(non_empty(head.path_and_query())?),
        ReqField::Query => borrowed(head.query()?),
        ReqField::Url => borrowed(head.target()),
        ReqField::Base => Sample::Str(Cow::Owned(joined(head, head.path()))),
        ReqField::BaseQ => Sample::Str(Cow::Owned(joined(head, head.path_and_query()))),
        ReqField::Base32 => Sample::Int(i64::from(base_hash(head, head.path()))),
        ReqField::Url32 => Sample::Int(i64::from(base_hash(head, head.path_and_query()))),
        ReqField::Base32Src => with_src(cx, base_hash(head, head.path()))?,
        ReqField::Url32Src => with_src(cx, base_hash(head, head.path_and_query()))?,
        ReqField::UrlIp => Sample::addr(authority(head)?.0),
        ReqField::UrlPort => Sample::Int(i64::from(authority(head)?.1)),
    })
}

pub(super) fn version(head: &Head) -> Sample<'static> {
    let text: &[u8] = match head.version() {
        Version::Http10 => b"1.0",
        Version::Http11 => b"1.1",
    };
    Sample::Str(Cow::Borrowed(text))
}

/// Host and what follows it.
fn joined(head: &Head, rest: &[u8]) -> Vec<u8> {
    let host = head.host().unwrap_or_default();
    let mut out = Vec::with_capacity(host.len() + rest.len());
    out.extend_from_slice(host);
    out.extend_from_slice(rest);
    out
}

/// `base32`, `url32`: SDBM over host and path with signed bytes (as the reference computes it), then the avalanche.
fn base_hash(head: &Head, rest: &[u8]) -> u32 {
    let host = head.host().unwrap_or_default();
    let sum = host.iter().chain(rest).fold(0u32, |hash, &b| {
        (i32::from(b as i8) as u32)
            .wrapping_add(hash << 6)
            .wrapping_add(hash << 16)
            .wrapping_sub(hash)
    });
    hash::avalanche(sum)
}

fn with_src<'a>(cx: &Cx<'_>, hash: u32) -> Option<Sample<'a>> {
    let mut out = hash.to_be_bytes().to_vec();
    match cx.conn.src.get()?.ip() {
        IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
    }
    Some(Sample::Bin(Cow::Owned(out)))
}

/// Address and port (0 if it says none) of an absolute URL that holds an address.
fn authority(head: &Head) -> Option<(IpAddr, u16)> {
    let text = std::str::from_utf8(head.authority()?).ok()?;
    if let Ok(full) = text.parse::<std::net::SocketAddr>() {
        return Some((full.ip(), full.port()));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    Some((bare.parse().ok()?, 0))
}

// --- headers

/// The occurrence asked for, the last one by default.
pub(super) fn header<'a>(head: &'a Head, h: &'a HeaderFetch) -> Option<Sample<'a>> {
    let occurrence = if h.occurrence == 0 { -1 } else { h.occurrence };
    let value = if h.whole {
        head.header_line(&h.name, occurrence)
    } else {
        head.header_value(&h.name, occurrence)
    };
    as_sample(value?, h.get)
}

pub(super) fn each_header<'a>(
    head: &'a Head,
    h: &'a HeaderFetch,
    f: &mut dyn FnMut(Sample<'a>) -> bool,
) {
    let mut one = |value: &'a [u8]| as_sample(value, h.get).is_some_and(&mut *f);
    if h.whole {
        head.header_lines(&h.name).any(&mut one);
    } else {
        head.header_values(&h.name).any(&mut one);
    }
}

pub(super) fn header_count(head: &Head, name: Option<&[u8]>, whole: bool) -> usize {
    match (name, whole) {
        (Some(name), true) => head.header_lines(name).count(),
        (Some(name), false) => head.header_values(name).count(),
        (None, true) => head.headers().count(),
        (None, false) => head
            .headers()
            .map(|(_, value)| crate::http1::values::list(value).count())
            .sum(),
    }
}

/// Names in lower case, each as often as it occurs.
pub(super) fn header_names<'a>(head: &Head, delimiter: u8) -> Option<Sample<'a>> {
    let mut out = Vec::new();
    for (i, (name, _)) in head.headers().enumerate() {
        if i > 0 {
            out.push(delimiter);
        }
        out.extend(name.iter().map(u8::to_ascii_lowercase));
    }
    Some(Sample::Str(Cow::Owned(out)))
}

/// `hdr_ip` accepts an IPv4 address with a port; `hdr_val` the leading digits (0 without any).
fn as_sample(value: &[u8], get: HeaderAs) -> Option<Sample<'_>> {
    match get {
        HeaderAs::Text => Some(borrowed(value)),
        HeaderAs::Val => Some(Sample::Int(text_to_int(value).unwrap_or(0))),
        HeaderAs::Ip => {
            let text = std::str::from_utf8(value).ok()?;
            let ip = match text.parse::<IpAddr>() {
                Ok(ip) => ip,
                Err(_) => IpAddr::V4(*text.parse::<std::net::SocketAddrV4>().ok()?.ip()),
            };
            Some(Sample::addr(ip))
        }
    }
}

// --- cookies

/// The last one of that name. (The reference's manual says so, and so it is observed.)
pub(super) fn cookie<'a>(head: &'a Head, c: &'a CookieFetch) -> Option<Sample<'a>> {
    let mut found = None;
    each_cookie_value(head, c.side, c.name.as_deref(), &mut |value| {
        found = Some(value);
        c.name.is_none() // without a name: the first of any
    });
    as_sample(found?, c.get)
}

pub(super) fn each_cookie<'a>(
    head: &'a Head,
    c: &'a CookieFetch,
    f: &mut dyn FnMut(Sample<'a>) -> bool,
) {
    each_cookie_value(head, c.side, c.name.as_deref(), &mut |value| {
        as_sample(value, c.get).is_some_and(&mut *f)
    });
}

pub(super) fn cookie_count(head: &Head, side: Side, name: Option<&[u8]>) -> usize {
    let mut count = 0;
    each_cookie_value(head, side, name, &mut |_| {
        count += 1;
        false
    });
    count
}

/// Calls `f` with each value until it returns true.
fn each_cookie_value<'a>(
    head: &'a Head,
    side: Side,
    name: Option<&'a [u8]>,
    f: &mut dyn FnMut(&'a [u8]) -> bool,
) {
    let header: &[u8] = match side {
        Side::Req => b"cookie",
        Side::Res => b"set-cookie",
    };
    for line in head.header_lines(header) {
        let mut rest = Some(line);
        while let Some(text) = rest {
            let end = cookie_end(text);
            let piece = text.get(..end).unwrap_or_default();
            // what follows the first pair of a Set-Cookie line are attributes
            rest = match side {
                Side::Req => text.get(end + 1..),
                Side::Res => None,
            };
            let Some(eq) = memchr::memchr(b'=', piece) else {
                continue;
            };
            let (key, value) = piece.split_at(eq);
            if name.is_none_or(|n| n == key.trim_ascii())
                && f(value.get(1..).unwrap_or_default().trim_ascii())
            {
                return;
            }
        }
    }
}

/// Where a cookie ends: at a semicolon or comma outside quotes.
fn cookie_end(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (i, &c) in text.iter().enumerate() {
        match c {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' | b',' if !quoted => return i,
            _ => {}
        }
    }
    text.len()
}

// --- parameters

/// The first one.
pub(super) fn param<'a>(head: &'a Head, p: &'a ParamFetch) -> Option<Sample<'a>> {
    let mut found = None;
    each_param_value(head, p, &mut |value| {
        found = Some(value);
        true
    });
    as_sample(found?, p.get)
}

pub(super) fn each_param<'a>(
    head: &'a Head,
    p: &'a ParamFetch,
    f: &mut dyn FnMut(Sample<'a>) -> bool,
) {
    each_param_value(head, p, &mut |value| {
        as_sample(value, p.get).is_some_and(&mut *f)
    });
}

/// Parameters start after the first delimiter of the target and end at `&`, `;` or another delimiter.
fn each_param_value<'a>(head: &'a Head, p: &'a ParamFetch, f: &mut dyn FnMut(&'a [u8]) -> bool) {
    let target = head.target();
    let Some(params) = memchr::memchr(p.delimiter, target).and_then(|at| target.get(at + 1..))
    else {
        return;
    };
    for piece in params.split(|&c| c == b'&' || c == b';' || c == p.delimiter) {
        let Some(eq) = memchr::memchr(b'=', piece) else {
            continue;
        };
        let (name, value) = piece.split_at(eq);
        let wanted = p.name.as_deref().is_none_or(|wanted| {
            if p.ignore_case {
                wanted.eq_ignore_ascii_case(name)
            } else {
                wanted == name
            }
        });
        if wanted && f(value.get(1..).unwrap_or_default()) {
            return;
        }
    }
}

fn borrowed(bytes: &[u8]) -> Sample<'_> {
    Sample::Str(Cow::Borrowed(bytes))
}

fn non_empty(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}
