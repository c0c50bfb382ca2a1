//! Fetches: where samples come from.

mod content;
pub(super) mod counters;
mod kinds;
pub(super) mod net;
pub(super) mod request;
pub(super) mod table;

pub use kinds::*;

use std::borrow::Cow;

use super::cond::Ternary;
use super::cx::{Cx, Msgs};
use super::expr::Outcome;
use super::sample::Sample;
use super::vars;
use crate::http1::Head;
use crate::table::{DataType, TableId};

impl Fetch {
    /// The sample, or one of several: the last header value, the first cookie or parameter.
    pub(super) fn eval<'a>(&'a self, cx: &Cx<'a>, msgs: &'a Msgs<'_>) -> Outcome<'a> {
        match self {
            Fetch::Missing => Outcome::Missing,
            Fetch::Bool(b) => Outcome::Value(Sample::Bool(*b)),
            Fetch::Int(i) => Outcome::Value(Sample::Int(*i)),
            Fetch::Text(text) => Outcome::Value(Sample::Str(Cow::Borrowed(text))),
            Fetch::Addr(addr) => Outcome::Value(Sample::addr(*addr)),
            Fetch::Var { var, default } => match vars::read(cx, *var, Sample::clone) {
                Some(value) => Outcome::Value(value),
                None => text(default.as_deref()),
            },
            Fetch::Date { offset, unit } => {
                Outcome::Value(Sample::Int(net::date(cx, *offset, *unit)))
            }
            Fetch::Rand(below) => Outcome::Value(Sample::Int(net::rand(cx, *below))),
            Fetch::Uuid => Outcome::Value(Sample::Str(Cow::Owned(net::uuid(cx)))),
            Fetch::Process(field) => Outcome::Value(net::process(cx, *field)),
            Fetch::Conn(field) => value(net::conn(cx, *field)),
            Fetch::Req(ReqField::Method) if msgs.res.is_some() => {
                let head = msgs.req.as_deref();
                value(head.and_then(|head| request::field(cx, head, ReqField::Method)))
            }
            Fetch::Req(field) => match req_head(msgs) {
                Ok(head) => value(request::field(cx, head, *field)),
                Err(none) => none,
            },
            Fetch::Status => match res_head(msgs) {
                Ok(head) => Outcome::Value(Sample::Int(i64::from(head.status()))),
                Err(none) => none,
            },
            Fetch::ResVer => match res_head(msgs) {
                Ok(head) => Outcome::Value(request::version(head)),
                Err(none) => none,
            },
            Fetch::Header(h) => match head(msgs, h.side) {
                Ok(head) => value(request::header(head, h)),
                Err(none) => none,
            },
            Fetch::HeaderCount { side, name, whole } => match head(msgs, *side) {
                Ok(head) => int(request::header_count(head, name.as_deref(), *whole)),
                Err(none) => none,
            },
            Fetch::HeaderNames { side, delimiter } => match head(msgs, *side) {
                Ok(head) => value(request::header_names(head, *delimiter)),
                Err(none) => none,
            },
            Fetch::Cookie(c) => match head(msgs, c.side) {
                Ok(head) => value(request::cookie(head, c)),
                Err(none) => none,
            },
            Fetch::CookieCount { side, name } => match head(msgs, *side) {
                Ok(head) => int(request::cookie_count(head, *side, name.as_deref())),
                Err(none) => none,
            },
            Fetch::Param(p) => match req_head(msgs) {
                Ok(head) => value(request::param(head, p)),
                Err(none) => none,
            },
            Fetch::ReqLen => int(msgs.req_content.bytes.len()),
            Fetch::ReqPayload { offset, len } => content::payload(&msgs.req_content, *offset, *len),
            // Of a request that has been answered nothing is known, in HAProxy too.
            Fetch::ReqProtoHttp => match req_head(msgs) {
                Ok(_) => Outcome::Value(Sample::Bool(true)),
                Err(none) => none,
            },
            Fetch::WaitEnd if msgs.req_content.is_final => Outcome::Value(Sample::Bool(true)),
            Fetch::WaitEnd => Outcome::NotYet,
            Fetch::Table(t) => value(table::fetch(cx, t)),
            Fetch::TableSize { table, free } => value(table::size(cx, *table, *free)),
            Fetch::Proxy { field, proxy } => value(counters::proxy(cx, *field, *proxy)),
            Fetch::Server {
                field,
                proxy,
                server,
            } => value(counters::server(cx, *field, *proxy, *server)),
            Fetch::Acl(terms) => {
                let mut all = Ternary::True;
                for term in terms {
                    all = all.and(term.eval(cx, msgs));
                    if all == Ternary::False {
                        break;
                    }
                }
                match all {
                    Ternary::True => Outcome::Value(Sample::Bool(true)),
                    Ternary::False => Outcome::Value(Sample::Bool(false)),
                    Ternary::Unknown => Outcome::NotYet,
                }
            }
        }
    }

    /// Whether ACLs try several occurrences ([`Fetch::each`]).
    pub(super) fn is_multi(&self) -> bool {
        match self {
            Fetch::Header(h) => h.occurrence == 0,
            Fetch::Cookie(_) | Fetch::Param(_) => true,
            _ => false,
        }
    }

    /// For the multi-valued: calls `f` for each occurrence until it returns true. `Err`: there is no message to look in.
    pub(super) fn each<'a>(
        &'a self,
        msgs: &'a Msgs<'_>,
        f: &mut dyn FnMut(Sample<'a>) -> bool,
    ) -> Result<(), Outcome<'a>> {
        match self {
            Fetch::Header(h) => request::each_header(head(msgs, h.side)?, h, f),
            Fetch::Cookie(c) => request::each_cookie(head(msgs, c.side)?, c, f),
            Fetch::Param(p) => request::each_param(req_head(msgs)?, p, f),
            _ => {}
        }
        Ok(())
    }

    /// The value may still change with more content, so that a comparison that fails is not the last word.
    pub(super) fn may_change(&self) -> bool {
        matches!(self, Fetch::ReqLen | Fetch::ReqPayload { len: 0, .. })
    }

    /// What a table must store for this reader to be of any use; `None` for slots without an explicit table (known only
    /// when tracking starts) and for what reads no data type.
    pub fn table_need(&self) -> Option<(TableId, DataType, u16)> {
        let Fetch::Table(t) = self else { return None };
        let (what, index) = t.read.stored()?;
        Some((t.table?, what, index))
    }
}

/// The request head, or why there is none. Once a response is there the request is gone for rules, whether or not its
/// head is still in memory: what they need of it must have been put into variables. (Its method and the aliases of the
/// request line stay.)
fn req_head<'a>(msgs: &'a Msgs<'_>) -> Result<&'a Head, Outcome<'a>> {
    match msgs.req.as_deref() {
        Some(_) if msgs.res.is_some() => Err(Outcome::Missing),
        Some(head) => Ok(head),
        None if msgs.req_content.is_final || msgs.req_content.not_http => Err(Outcome::Missing),
        None => Err(Outcome::NotYet),
    }
}

fn res_head<'a>(msgs: &'a Msgs<'_>) -> Result<&'a Head, Outcome<'a>> {
    msgs.res.as_deref().ok_or(Outcome::Missing)
}

fn head<'a>(msgs: &'a Msgs<'_>, side: Side) -> Result<&'a Head, Outcome<'a>> {
    match side {
        Side::Req => req_head(msgs),
        Side::Res => res_head(msgs),
    }
}

fn value(sample: Option<Sample<'_>>) -> Outcome<'_> {
    sample.map_or(Outcome::Missing, Outcome::Value)
}

fn text(bytes: Option<&[u8]>) -> Outcome<'_> {
    value(bytes.map(|b| Sample::Str(Cow::Borrowed(b))))
}

fn int(n: usize) -> Outcome<'static> {
    Outcome::Value(Sample::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}
