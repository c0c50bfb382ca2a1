//! The values of an ACL: one parser per match method. (reference: config-dialect 4.2)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use remora_core::rule::cond::{MatchMethod, Patterns};

use super::args::{mask4, mask6, regex};
use super::known::suggested;
use super::{Fail, hint};
use crate::scope::Scope;

/// Words after `-m`.
pub(super) const METHODS: &[(&str, MatchMethod)] = &[
    ("found", MatchMethod::Found),
    ("bool", MatchMethod::Bool),
    ("int", MatchMethod::Int),
    ("ip", MatchMethod::Ip),
    ("bin", MatchMethod::Bin),
    ("len", MatchMethod::Len),
    ("str", MatchMethod::Str),
    ("beg", MatchMethod::Beg),
    ("sub", MatchMethod::Sub),
    ("dir", MatchMethod::Dir),
    ("dom", MatchMethod::Dom),
    ("end", MatchMethod::End),
    ("reg", MatchMethod::Reg),
];

/// The method that a word after `-m` names.
pub(super) fn method(word: &str) -> Result<MatchMethod, Fail> {
    if let Some((_, m)) = METHODS.iter().find(|(n, _)| *n == word) {
        return Ok(*m);
    }
    let hint = hint(word, METHODS.iter().map(|(n, _)| *n));
    Err(Fail::Detail(suggested(
        format!("unknown matching method '{word}' when parsing ACL expression"),
        &hint,
    )))
}

/// The word for a method.
pub(super) fn method_name(method: MatchMethod) -> &'static str {
    METHODS
        .iter()
        .find(|(_, m)| *m == method)
        .map_or("method", |(n, _)| n)
}

/// One value and where it came from.
pub(super) struct Value {
    pub(super) text: Vec<u8>,
    /// ` at line N of file 'F'`, empty for values on the line itself.
    pub(super) origin: String,
}

/// Compiles the values of one ACL line.
pub(super) fn compile(
    values: &[Value],
    method: MatchMethod,
    ignore_case: bool,
    resolve_names: bool,
    scope: &mut Scope<'_>,
) -> Result<Patterns, Fail> {
    match method {
        MatchMethod::Found | MatchMethod::Bool => Ok(Patterns::None),
        MatchMethod::Int | MatchMethod::Len => integers(values),
        MatchMethod::Ip => {
            let mut networks = Vec::with_capacity(values.len());
            for v in values {
                networks.extend(network(v, resolve_names, scope)?);
            }
            Ok(Patterns::Ip(networks.into_boxed_slice()))
        }
        MatchMethod::Reg => {
            let mut all = Vec::with_capacity(values.len());
            for v in values {
                let regex = regex(&v.text, ignore_case)
                    .map_err(|e| Fail::Detail(format!("{e}{}", v.origin)))?;
                all.push(regex);
            }
            Ok(Patterns::Regex(all.into_boxed_slice()))
        }
        MatchMethod::Bin => {
            let mut all = Vec::with_capacity(values.len());
            for v in values {
                all.push(hex(&v.text).map_err(|e| Fail::Detail(format!("{e}{}", v.origin)))?);
            }
            Ok(Patterns::Bytes(all.into_boxed_slice()))
        }
        MatchMethod::Str
        | MatchMethod::Sub
        | MatchMethod::Beg
        | MatchMethod::End
        | MatchMethod::Dir
        | MatchMethod::Dom
        | MatchMethod::Method => Ok(Patterns::Bytes(
            values.iter().map(|v| v.text.clone()).collect(),
        )),
    }
}

/// `N`, `A:B`, `A:`, `:B`, each possibly under an operator that an earlier word set.
fn integers(values: &[Value]) -> Result<Patterns, Fail> {
    let mut ranges = Vec::with_capacity(values.len());
    let mut operator: Option<Operator> = None;
    for v in values {
        let text = String::from_utf8_lossy(&v.text);
        if let Some(op) = Operator::by_name(&text) {
            operator = Some(op);
            continue;
        }
        let range = match operator {
            None | Some(Operator::Eq) => range(&text)
                .map_err(|kind| Fail::Detail(format!("'{text}' is not a {kind}{}", v.origin)))?,
            Some(op) => match text.parse::<i64>() {
                Ok(n) => op.range(n),
                Err(_) => {
                    return Err(Fail::Detail(format!(
                        "'{text}' is neither a number nor a supported operator{}",
                        v.origin
                    )));
                }
            },
        };
        // An empty range (`gt` the greatest number) matches nothing and needs no place.
        if range.0 <= range.1 {
            ranges.push(range);
        }
    }
    Ok(Patterns::Int(ranges.into_boxed_slice()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Eq,
    Ge,
    Gt,
    Le,
    Lt,
}

impl Operator {
    fn by_name(word: &str) -> Option<Operator> {
        Some(match word {
            "eq" => Operator::Eq,
            "ge" => Operator::Ge,
            "gt" => Operator::Gt,
            "le" => Operator::Le,
            "lt" => Operator::Lt,
            _ => return None,
        })
    }
    /// The numbers it admits, inclusive; first above last when there is none.
    fn range(self, n: i64) -> (i64, i64) {
        match self {
            Operator::Eq => (n, n),
            Operator::Ge => (n, i64::MAX),
            Operator::Le => (i64::MIN, n),
            Operator::Gt => n.checked_add(1).map_or((1, 0), |n| (n, i64::MAX)),
            Operator::Lt => n.checked_sub(1).map_or((1, 0), |n| (i64::MIN, n)),
        }
    }
}

fn range(text: &str) -> Result<(i64, i64), &'static str> {
    let number = |t: &str| t.parse::<i64>().map_err(|_| "number");
    let Some((low, high)) = text.split_once(':') else {
        return number(text).map(|n| (n, n));
    };
    if low.is_empty() && high.is_empty() {
        return Err("number");
    }
    let low = if low.is_empty() {
        i64::MIN
    } else {
        number(low)?
    };
    let high = if high.is_empty() {
        i64::MAX
    } else {
        number(high)?
    };
    if low > high {
        return Err("valid number range");
    }
    Ok((low, high))
}

/// `ADDRESS[/LENGTH|/MASK]`; a host name gives all its addresses.
fn network(
    value: &Value,
    resolve_names: bool,
    scope: &mut Scope<'_>,
) -> Result<Vec<(IpAddr, u8)>, Fail> {
    let text = String::from_utf8_lossy(&value.text).into_owned();
    let invalid = || {
        Fail::Detail(format!(
            "'{text}' is not a valid IPv4 or IPv6 address{}",
            value.origin
        ))
    };
    let (address, mask) = match text.split_once('/') {
        Some((a, m)) => (a, Some(m)),
        None => (text.as_str(), None),
    };
    if let Ok(v4) = address.parse::<Ipv4Addr>() {
        return network4(v4, mask, &text)
            .ok_or_else(invalid)?
            .map(|n| vec![n]);
    }
    if let Ok(v6) = address.parse::<Ipv6Addr>() {
        let mask = match mask {
            Some(m) => mask6(m).ok_or_else(invalid)?,
            None => Ipv6Addr::from(u128::MAX),
        };
        let bits = u128::from(mask);
        let len = bits.leading_ones();
        if bits.count_ones() != len {
            return Err(gaps(&text));
        }
        let base = Ipv6Addr::from(u128::from(v6) & bits);
        return Ok(vec![(IpAddr::V6(base), len as u8)]);
    }
    if !resolve_names || address.is_empty() {
        return Err(invalid());
    }
    // The system's resolver takes abbreviated addresses: the last number fills the rest.
    if let Some(v4) = short_v4(address) {
        return network4(v4, mask, &text)
            .ok_or_else(invalid)?
            .map(|n| vec![n]);
    }
    let found = scope.loader.resolve(address).map_err(|_| invalid())?;
    let mut networks = Vec::with_capacity(found.len());
    for ip in found {
        let network = match ip {
            IpAddr::V4(v4) => network4(v4, mask, &text).ok_or_else(invalid)??,
            v6 => (v6, 128),
        };
        networks.push(network);
    }
    if networks.is_empty() {
        return Err(invalid());
    }
    Ok(networks)
}

/// `None`: the mask is no mask.
fn network4(
    address: Ipv4Addr,
    mask: Option<&str>,
    text: &str,
) -> Option<Result<(IpAddr, u8), Fail>> {
    let mask = match mask {
        Some(m) => mask4(m)?,
        None => Ipv4Addr::BROADCAST,
    };
    let bits = u32::from(mask);
    let len = bits.leading_ones();
    if bits.count_ones() != len {
        return Some(Err(gaps(text)));
    }
    let base = Ipv4Addr::from(u32::from(address) & bits);
    Some(Ok((IpAddr::V4(base), len as u8)))
}

fn gaps(text: &str) -> Fail {
    Fail::Whole(crate::scope::unsupported(&format!(
        "{text}: a network mask with gaps"
    )))
}

/// `10.1` is 10.0.0.1.
fn short_v4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let all_digits = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    if parts.len() > 3 || !parts.iter().all(all_digits) {
        return None;
    }
    let (last, head) = parts.split_last()?;
    let last: u32 = last.parse().ok()?;
    let free_bits = 32 - 8 * head.len() as u32;
    if free_bits < 32 && last >> free_bits != 0 {
        return None;
    }
    let mut bits = last;
    for (i, part) in head.iter().enumerate() {
        let byte: u8 = part.parse().ok()?;
        bits |= u32::from(byte) << (24 - 8 * i as u32);
    }
    Some(Ipv4Addr::from(bits))
}

fn hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    if let Some(bad) = text.iter().find(|b| digit(**b).is_none()) {
        return Err(format!(
            "an hex digit is expected (found '{}')",
            char::from(*bad)
        ));
    }
    if !text.len().is_multiple_of(2) {
        return Err("an even number of hex digit is expected".to_owned());
    }
    Ok(text
        .chunks_exact(2)
        .map(|pair| {
            pair.iter()
                .fold(0u8, |acc, b| acc.wrapping_mul(16) | digit(*b).unwrap_or(0))
        })
        .collect())
}
