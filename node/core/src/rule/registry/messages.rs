//! Rows of the fetches about messages: request line, headers, cookies, parameters, raw content, response.

use super::ArgKind::{Int, Str};
use super::fetches::{row, with_match};
use super::{Args, Fetch, FetchInfo, Needs, wrong};
use crate::rule::cond::MatchMethod;
use crate::rule::fetch::{CookieFetch, HeaderAs, HeaderFetch, ParamFetch, ReqField, Side};
use crate::rule::sample::SampleType::{Addr, Bin, Bool, Int as Sint, Method, Str as Text};

const REQ: Needs = Needs::REQ_HEAD;
const RES: Needs = Needs::RES_HEAD;
const CONTENT: Needs = Needs::REQ_CONTENT;

/// All rows of this file.
pub(super) fn rows() -> Vec<FetchInfo> {
    let mut rows = line_rows();
    rows.extend(header_rows());
    rows.extend(cookie_rows());
    rows.extend(param_rows());
    rows
}

#[rustfmt::skip] // one row per line reads as the table it is
fn line_rows() -> Vec<FetchInfo> {
    macro_rules! req {
        ($name:literal, $output:ident, $field:ident, $help:literal) => {
            row($name, &[], 0, $output, REQ, |_| Ok(Fetch::Req(ReqField::$field)), $help)
        };
    }
    vec![
        req!("req.ver", Text, Version, "request version, as 1.1"),
        with_match(req!("req_ver", Text, Version, "request version, as 1.1"), MatchMethod::Str),
        with_match(req!("method", Method, Method, "request method"), MatchMethod::Method),
        req!("path", Text, Path, "path without the query"),
        req!("pathq", Text, PathQ, "path with the query"),
        req!("query", Text, Query, "query, after the ?"),
        req!("url", Text, Url, "request target as received"),
        req!("base", Text, Base, "host and path"),
        req!("baseq", Text, BaseQ, "host, path and query"),
        req!("base32", Sint, Base32, "hash of base"),
        req!("base32+src", Bin, Base32Src, "hash of base, then the client address"),
        req!("url32", Sint, Url32, "hash of host, path and query"),
        req!("url32+src", Bin, Url32Src, "hash of url32, then the client address"),
        req!("url_ip", Addr, UrlIp, "address in an absolute URL"),
        req!("url_port", Sint, UrlPort, "port in an absolute URL, 0 without"),
        row("status", &[], 0, Sint, RES, |_| Ok(Fetch::Status), "response status"),
        row("txn.status", &[], 0, Sint, RES, |_| Ok(Fetch::Status), "response status"),
        row("res.ver", &[], 0, Text, RES, |_| Ok(Fetch::ResVer), "response version, as 1.1"),
        with_match(row("resp_ver", &[], 0, Text, RES, |_| Ok(Fetch::ResVer), "response version, as 1.1"), MatchMethod::Str),
        row("req.len", &[], 0, Sint, CONTENT, |_| Ok(Fetch::ReqLen), "request bytes seen so far"),
        row("req_len", &[], 0, Sint, CONTENT, |_| Ok(Fetch::ReqLen), "request bytes seen so far"),
        row("req.payload", &[Int, Int], 2, Bin, CONTENT, payload, "bytes of the request"),
        with_match(row("payload", &[Int, Int], 2, Bin, CONTENT, payload, "bytes of the request"), MatchMethod::Bin),
        row("req.proto_http", &[], 0, Bool, CONTENT, |_| Ok(Fetch::ReqProtoHttp), "the content is an HTTP request"),
        row("req_proto_http", &[], 0, Bool, CONTENT, |_| Ok(Fetch::ReqProtoHttp), "the content is an HTTP request"),
        row("wait_end", &[], 0, Bool, Needs::NOTHING, |_| Ok(Fetch::WaitEnd), "true once nothing more is waited for"),
    ]
}

#[rustfmt::skip]
fn header_rows() -> Vec<FetchInfo> {
    const VALUE: &str = "a header's value, the last one unless said otherwise";
    const COUNT: &str = "number of values (of lines for fhdr_cnt)";
    const NAMES: &str = "names of all headers";
    macro_rules! value {
        ($name:literal, $side:ident, $needs:ident, $whole:literal, $as:ident, $output:ident) => {
            row($name, &[Str, Int], 1, $output, $needs, |a| header(a, Side::$side, $whole, HeaderAs::$as), VALUE)
        };
    }
    macro_rules! count {
        ($name:literal, $side:ident, $needs:ident, $whole:literal) => {
            row($name, &[Str], 0, Sint, $needs, |a| Ok(Fetch::HeaderCount { side: Side::$side, name: a.owned(0)?, whole: $whole }), COUNT)
        };
    }
    vec![
        value!("req.hdr", Req, REQ, false, Text, Text),
        value!("hdr", Req, REQ, false, Text, Text),
        value!("req.fhdr", Req, REQ, true, Text, Text),
        value!("req.hdr_ip", Req, REQ, false, Ip, Addr),
        value!("hdr_ip", Req, REQ, false, Ip, Addr),
        value!("req.hdr_val", Req, REQ, false, Val, Sint),
        value!("hdr_val", Req, REQ, false, Val, Sint),
        value!("res.hdr", Res, RES, false, Text, Text),
        value!("shdr", Res, RES, false, Text, Text),
        value!("res.fhdr", Res, RES, true, Text, Text),
        value!("res.hdr_ip", Res, RES, false, Ip, Addr),
        value!("shdr_ip", Res, RES, false, Ip, Addr),
        value!("res.hdr_val", Res, RES, false, Val, Sint),
        value!("shdr_val", Res, RES, false, Val, Sint),
        count!("req.hdr_cnt", Req, REQ, false),
        count!("hdr_cnt", Req, REQ, false),
        count!("req.fhdr_cnt", Req, REQ, true),
        count!("res.hdr_cnt", Res, RES, false),
        count!("shdr_cnt", Res, RES, false),
        count!("res.fhdr_cnt", Res, RES, true),
        row("req.hdr_names", &[Str], 0, Text, REQ, |a| header_names(a, Side::Req), NAMES),
        row("res.hdr_names", &[Str], 0, Text, RES, |a| header_names(a, Side::Res), NAMES),
    ]
}

#[rustfmt::skip]
fn cookie_rows() -> Vec<FetchInfo> {
    macro_rules! value {
        ($name:literal, $side:ident, $needs:ident, $as:ident, $output:ident) => {
            row($name, &[Str], 0, $output, $needs, |a| cookie(a, Side::$side, HeaderAs::$as), "a cookie, the last one of that name")
        };
    }
    macro_rules! count {
        ($name:literal, $side:ident, $needs:ident) => {
            row($name, &[Str], 0, Sint, $needs, |a| Ok(Fetch::CookieCount { side: Side::$side, name: a.owned(0)? }), "number of cookies")
        };
    }
    vec![
        value!("req.cook", Req, REQ, Text, Text),
        value!("cook", Req, REQ, Text, Text),
        value!("req.cook_val", Req, REQ, Val, Sint),
        value!("cook_val", Req, REQ, Val, Sint),
        value!("res.cook", Res, RES, Text, Text),
        value!("scook", Res, RES, Text, Text),
        value!("res.cook_val", Res, RES, Val, Sint),
        value!("scook_val", Res, RES, Val, Sint),
        count!("req.cook_cnt", Req, REQ),
        count!("cook_cnt", Req, REQ),
        count!("res.cook_cnt", Res, RES),
        count!("scook_cnt", Res, RES),
    ]
}

#[rustfmt::skip]
fn param_rows() -> Vec<FetchInfo> {
    const HELP: &str = "a parameter of the query, first match, not decoded";
    vec![
        row("urlp", &[Str, Str, Str], 0, Text, REQ, |a| param(a, HeaderAs::Text), HELP),
        row("url_param", &[Str, Str, Str], 0, Text, REQ, |a| param(a, HeaderAs::Text), HELP),
        row("urlp_val", &[Str, Str, Str], 0, Sint, REQ, |a| param(a, HeaderAs::Val), HELP),
    ]
}

fn cookie(a: &Args<'_>, side: Side, get: HeaderAs) -> Result<Fetch, String> {
    let name = a.owned(0)?;
    Ok(Fetch::Cookie(CookieFetch { side, name, get }))
}

fn payload(a: &Args<'_>) -> Result<Fetch, String> {
    let size = |at: usize| {
        a.need_int(at)
            .and_then(|v| u32::try_from(v).map_err(|_| wrong(at, "a number from 0")))
    };
    Ok(Fetch::ReqPayload {
        offset: size(0)?,
        len: size(1)?,
    })
}

fn header(a: &Args<'_>, side: Side, whole: bool, get: HeaderAs) -> Result<Fetch, String> {
    let occurrence = a.int(1)?.unwrap_or(0);
    // The reference keeps ten occurrences from the end at most; any bound works, this one is only a sanity check.
    let occurrence =
        i32::try_from(occurrence).map_err(|_| "the occurrence is out of range".to_string())?;
    Ok(Fetch::Header(HeaderFetch {
        side,
        name: a.need_str(0)?,
        occurrence,
        whole,
        get,
    }))
}

fn header_names(a: &Args<'_>, side: Side) -> Result<Fetch, String> {
    Ok(Fetch::HeaderNames {
        side,
        delimiter: a.str(0)?.and_then(|d| d.first().copied()).unwrap_or(b','),
    })
}

fn param(a: &Args<'_>, get: HeaderAs) -> Result<Fetch, String> {
    let delimiter = match a.str(1)? {
        None | Some([]) => b'?',
        Some([one]) => *one,
        Some(_) => return Err("the delimiter must be a single character".to_string()),
    };
    let ignore_case = match a.str(2)? {
        None | Some([]) => false,
        Some(b"i") => true,
        Some(_) => return Err("the only flag is 'i' (ignore case)".to_string()),
    };
    Ok(Fetch::Param(ParamFetch {
        name: a.owned(0)?,
        delimiter,
        ignore_case,
        get,
    }))
}
