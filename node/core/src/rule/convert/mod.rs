//! Converters: what is made of a sample.

pub(super) mod hash;
mod kinds;
mod text;
pub(super) mod url;

pub use kinds::*;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;

use super::cx::Cx;
use super::fetch;
use super::sample::{Sample, write_hex};
use super::vars;
use crate::table::{DataType, TableId};

impl Converter {
    /// Applies it, casting the input to the type it takes; `None`: no sample.
    pub(super) fn apply<'a>(&'a self, cx: &Cx<'a>, input: Sample<'a>) -> Option<Sample<'a>> {
        Some(match self {
            Converter::Lower => map_text(input, u8::to_ascii_lowercase)?,
            Converter::Upper => map_text(input, u8::to_ascii_uppercase)?,
            Converter::Length => {
                Sample::Int(input.with_text(|t| i64::try_from(t.len()).unwrap_or(i64::MAX)))
            }
            Converter::Reverse => {
                let mut bytes = input.into_text()?.into_owned();
                bytes.reverse();
                Sample::Str(Cow::Owned(bytes))
            }
            Converter::Bytes { offset, len } => {
                let offset = usize::try_from(offset.value(cx)?).ok()?;
                let len = match len {
                    Some(len) => usize::try_from(len.value(cx)?).ok()?,
                    None => usize::MAX,
                };
                let bytes = input.into_bytes()?;
                let end = offset.saturating_add(len).min(bytes.len());
                Sample::Bin(text::cut(bytes, offset.min(end), end))
            }
            Converter::Split(split) => {
                let bytes = input.into_text()?;
                let (start, end) = split.find(&bytes)?;
                Sample::Str(text::cut(bytes, start, end))
            }
            Converter::Concat { before, var, after } => {
                let mut out = input.into_text()?.into_owned();
                out.extend_from_slice(before);
                if let Some(var) = var {
                    vars::read(cx, *var, |v| v.with_text(|t| out.extend_from_slice(t)));
                }
                out.extend_from_slice(after);
                Sample::Str(Cow::Owned(out))
            }
            Converter::StrCmp(var) => {
                let order = input.with_text(|left| {
                    vars::read(cx, *var, |v| v.with_text(|right| left.cmp(right)))
                })?;
                Sample::Int(order as i64)
            }
            Converter::Arith(op, number) => {
                Sample::Int(op.compute(input.to_int()?, number.value(cx)?))
            }
            Converter::Neg => Sample::Int(input.to_int()?.checked_neg().unwrap_or(i64::MAX)),
            Converter::Cpl => Sample::Int(!input.to_int()?),
            Converter::Not => Sample::Bool(input.to_int()? == 0),
            Converter::Bool => Sample::Bool(input.to_int()? != 0),
            Converter::Even => Sample::Bool(input.to_int()? & 1 == 0),
            Converter::Odd => Sample::Bool(input.to_int()? & 1 == 1),
            Converter::Iif { yes, no } => {
                let chosen = if input.to_int()? != 0 { yes } else { no };
                Sample::Str(Cow::Borrowed(chosen))
            }
            Converter::IpMask { v4, v6 } => Sample::addr(masked(input.to_addr()?, *v4, *v6)?),
            Converter::Hex => {
                let mut out = Vec::new();
                write_hex(&input.into_bytes()?, &mut out);
                Sample::Str(Cow::Owned(out))
            }
            Converter::Hex2i => Sample::Int(input.with_text(text::hex_to_int)?),
            Converter::Base64 => {
                let bytes = input.into_bytes()?;
                let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
                Sample::Str(Cow::Owned(encoded.into_bytes()))
            }
            Converter::Base64Decode => {
                let text = input.into_text()?;
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                Sample::Bin(Cow::Owned(decoded.ok()?))
            }
            Converter::Hash(hash, argument) => {
                Sample::Int(hash.compute(&input.into_bytes()?, *argument))
            }
            Converter::Sha1 => {
                use sha1::Digest as _;
                let digest = sha1::Sha1::digest(input.into_bytes()?);
                Sample::Bin(Cow::Owned(digest.to_vec()))
            }
            Converter::UrlDecode { form } => Sample::Str(url::decode(input.into_text()?, *form)?),
            Converter::UrlEncode(UrlForm::Query) => Sample::Str(url::encode(input.into_text()?)),
            Converter::RegSub {
                regex,
                replacement,
                all,
            } => Sample::Str(text::regsub(input.into_text()?, regex, replacement, *all)),
            Converter::HostOnly => {
                let bytes = input.into_text()?;
                let end = text::port_colon(&bytes).unwrap_or(bytes.len());
                // Host names have no case, and this is a key more often than not.
                map_text(
                    Sample::Str(text::cut(bytes, 0, end)),
                    u8::to_ascii_lowercase,
                )?
            }
            Converter::PortOnly => Sample::Int(input.with_text(text::port)),
            Converter::TrimEnd(set) => {
                let bytes = input.into_text()?;
                let end = bytes
                    .iter()
                    .rposition(|b| !set.contains(b))
                    .map_or(0, |last| last + 1);
                Sample::Str(text::cut(bytes, 0, end))
            }
            Converter::TrimStart(set) => {
                let bytes = input.into_text()?;
                let start = bytes.iter().position(|b| !set.contains(b));
                let (start, end) = (start.unwrap_or(bytes.len()), bytes.len());
                Sample::Str(text::cut(bytes, start, end))
            }
            Converter::SetVar { var, conditions } => {
                vars::set(cx, *var, *conditions, input.clone().into_owned());
                input
            }
            Converter::UnsetVar(var) => {
                vars::change(cx, var.scope, |vars| vars.unset(var.name));
                input
            }
            Converter::NbSrv => {
                let backend = input.with_text(|name| cx.world.backend_named(name))?;
                Sample::Int(fetch::counters::usable_servers(cx.world.proxy(backend)?))
            }
            Converter::SrvQueue => Sample::Int(input.with_text(|name| server_queue(cx, name))?),
            Converter::FeExists => Sample::Bool(input.with_text(|name| {
                let named =
                    |p: &crate::world::ProxyState| p.is_frontend && p.name.as_bytes() == name;
                cx.world.proxies.iter().any(named)
            })),
            Converter::Table { table, read } => {
                return fetch::table::convert(cx, &input, *table, *read);
            }
        })
    }

    /// What the table of a `table_*` converter must store for it to be of use.
    pub fn table_need(&self) -> Option<(TableId, DataType, u16)> {
        let Converter::Table { table, read } = self else {
            return None;
        };
        let (what, index) = read.stored()?;
        Some((*table, what, index))
    }
}

impl Number {
    fn value(self, cx: &Cx<'_>) -> Option<i64> {
        match self {
            Number::Int(i) => Some(i),
            Number::Var(var) => vars::read(cx, var, Sample::to_int).flatten(),
        }
    }
}

impl Arith {
    /// The reference's results: saturating, division by zero gives the greatest number, remainder by zero gives 0.
    fn compute(self, a: i64, b: i64) -> i64 {
        match self {
            Arith::Add => a.saturating_add(b),
            Arith::Sub => a.saturating_sub(b),
            Arith::Mul => a.saturating_mul(b),
            Arith::Div => a.checked_div(b).unwrap_or(i64::MAX),
            Arith::Mod => a.checked_rem(b).unwrap_or(0),
            Arith::And => a & b,
            Arith::Or => a | b,
            Arith::Xor => a ^ b,
        }
    }
}

/// Text with each byte mapped; untouched (and not copied) where that changes nothing.
fn map_text<'a>(input: Sample<'a>, map: fn(&u8) -> u8) -> Option<Sample<'a>> {
    let mut bytes = input.into_text()?;
    if bytes.iter().any(|b| map(b) != *b) {
        for b in bytes.to_mut() {
            *b = map(b);
        }
    }
    Some(Sample::Str(bytes))
}

/// IPv4-mapped addresses are masked as IPv4.
fn masked(addr: IpAddr, v4: u32, v6: Option<u128>) -> Option<IpAddr> {
    match addr.to_canonical() {
        IpAddr::V4(a) => Some(Ipv4Addr::from(u32::from(a) & v4).into()),
        IpAddr::V6(a) => Some(Ipv6Addr::from(u128::from(a) & v6?).into()),
    }
}

fn server_queue(cx: &Cx<'_>, name: &[u8]) -> Option<i64> {
    let (backend, server) = match memchr::memchr(b'/', name) {
        Some(slash) => {
            let backend = cx.world.backend_named(name.get(..slash)?)?;
            (cx.world.proxy(backend)?, name.get(slash + 1..)?)
        }
        None => (cx.world.proxy(cx.proxy)?, name),
    };
    let server = backend
        .servers
        .iter()
        .find(|s| s.name.as_bytes() == server)?;
    let waiting = server.stats.qcur.load(std::sync::atomic::Ordering::Relaxed);
    Some(i64::from(waiting))
}
