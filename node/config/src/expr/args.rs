//! Arguments in parentheses: the second tokenizer and the resolution of what they name. (reference: config-dialect 1.4)
//!
//! The lexer has already removed one level of quotes; what reaches this point may hold quotes of its own, which protect
//! `,` and `)` here. Blanks are ordinary characters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use remora_core::rule::matcher::compile_regex;
use remora_core::rule::registry::{Arg, ArgKind};
use remora_core::world::ProxyId;

use super::Fail;
use super::context::Site;
use crate::scope::Scope;

/// An unquoted argument, or what is wrong in the parentheses.
type Raw = Result<RawArgs, (usize, String)>;

/// The arguments of one fetch or converter before they are given a meaning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawArgs {
    /// Unquoted texts, at most as many as there are kinds.
    pub(super) texts: Vec<Vec<u8>>,
    /// Offset just after the closing parenthesis (or where it was called when there is none to open).
    pub(super) end: usize,
}

/// Splits `(a,b)` at `text[from..]`. At most `kinds` arguments are taken; anything more is an error, as is a missing
/// parenthesis. The error carries the number of the argument it is about, from 1.
pub(super) fn split(text: &[u8], from: usize, kinds: &[ArgKind], required: usize) -> Raw {
    if text.get(from) != Some(&b'(') {
        // A mandatory argument that is not written is an empty one: kinds that need text refuse it later.
        let texts = if required > 0 {
            vec![Vec::new()]
        } else {
            Vec::new()
        };
        return Ok(RawArgs { texts, end: from });
    }
    let mut at = from + 1;
    let mut texts: Vec<Vec<u8>> = Vec::new();
    if !kinds.is_empty() && (required > 0 || text.get(at) != Some(&b')')) {
        loop {
            let (one, end) = unquote(text, at);
            texts.push(one);
            at = end;
            if text.get(at) != Some(&b',') || texts.len() == kinds.len() {
                break;
            }
            at += 1;
        }
    }
    if text.get(at) == Some(&b')') {
        return Ok(RawArgs { texts, end: at + 1 });
    }
    let number = texts.len().max(1);
    let message = match text.get(at..) {
        Some(rest) if !rest.is_empty() => {
            format!("expected ')' before '{}'", String::from_utf8_lossy(rest))
        }
        _ => "expected ')'".to_owned(),
    };
    Err((number, message))
}

/// One argument from `at` up to an unprotected `,` or `)` or the end: unquoted text and where it stopped.
fn unquote(text: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let (mut single, mut double) = (false, false);
    let mut out = Vec::new();
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' if !single => double = !double,
            b'\'' if !double => single = !single,
            b'\\' if !single && at + 1 < text.len() => {
                let escaped = match text.get(at + 1) {
                    Some(&c @ (b'\\' | b' ' | b'"' | b'\'')) => Some(c),
                    Some(b'r') => Some(b'\r'),
                    Some(b'n') => Some(b'\n'),
                    Some(b't') => Some(b'\t'),
                    _ => None,
                };
                // Anything else after a backslash keeps it, so that regular expressions need no doubling.
                match escaped {
                    Some(c) => {
                        out.push(c);
                        at += 1;
                    }
                    None => out.push(b'\\'),
                }
            }
            b',' | b')' if !single && !double => break,
            _ => out.push(byte),
        }
        at += 1;
    }
    (out, at)
}

/// What an argument belongs to, for messages about names that do not resolve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'o> {
    /// Name of the fetch.
    pub(super) fetch: &'o str,
    /// Name of the converter, if it is one's argument.
    pub(super) converter: Option<&'o str>,
    /// Where the expression stands.
    pub(super) site: Site,
}

impl Owner<'_> {
    /// `ACL keyword 'src_conn_rate'`, `conversion keyword 'table_gpc0' for sample fetch keyword 'src' in …`.
    fn describe(&self) -> String {
        let fetch = self.site.keyword(self.fetch);
        match self.converter {
            Some(c) => format!("conversion keyword '{c}' for {fetch}"),
            None => fetch,
        }
    }
    /// `referenced in arg N of …`.
    pub(super) fn referenced(&self, number: usize, scope: &Scope<'_>) -> String {
        format!(
            "referenced in arg {number} of {} in proxy '{}'.",
            self.describe(),
            scope.section_name()
        )
    }
}

/// Why arguments were refused.
#[derive(Debug)]
pub(super) enum ArgFail {
    /// Wrong spelling of argument number `.0`.
    Spelling(usize, String),
    /// Right spelling, wrong meaning.
    Meaning(String),
    /// A complete sentence.
    Whole(String),
}

/// Gives unquoted arguments their meaning: one entry per kind, `None` for those not given.
pub(super) fn resolve(
    texts: &[Vec<u8>],
    kinds: &[ArgKind],
    required: usize,
    owner: Owner<'_>,
    scope: &mut Scope<'_>,
) -> Result<Vec<Option<Arg>>, ArgFail> {
    let mut args = Vec::with_capacity(kinds.len());
    for (i, kind) in kinds.iter().enumerate() {
        let arg = match texts.get(i) {
            None => None,
            // `date()` says nothing more than `date`.
            Some(t) if t.is_empty() && texts.len() == 1 && i >= required => None,
            Some(t) => one(t, *kind, i + 1, i < required, owner, scope)?,
        };
        args.push(arg);
    }
    if texts.len() < required {
        let kind = kinds.get(texts.len()).copied().unwrap_or(ArgKind::Str);
        return Err(ArgFail::Spelling(
            (texts.len() + 1).max(1),
            format!(
                "missing arguments (got {}/{required}), type '{}' expected",
                texts.len(),
                kind_name(kind)
            ),
        ));
    }
    Ok(args)
}

fn one(
    raw: &[u8],
    kind: ArgKind,
    number: usize,
    required: bool,
    owner: Owner<'_>,
    scope: &mut Scope<'_>,
) -> Result<Option<Arg>, ArgFail> {
    let text = String::from_utf8_lossy(raw);
    let needs_text = !matches!(
        kind,
        ArgKind::Str
            | ArgKind::Table
            | ArgKind::Frontend
            | ArgKind::Backend
            | ArgKind::Server
            | ArgKind::Regex
            | ArgKind::Var
            | ArgKind::IntOrVar
            | ArgKind::Env
    );
    if needs_text && raw.is_empty() {
        let name = kind_name(kind);
        return Err(ArgFail::Spelling(
            number,
            format!("expected type '{name}' at position {number}, but got nothing"),
        ));
    }
    let spelling = || {
        ArgFail::Spelling(
            number,
            format!(
                "failed to parse '{text}' as type '{}' at position {number}",
                kind_name(kind)
            ),
        )
    };
    let arg = match kind {
        ArgKind::Str => Arg::Str(raw.to_vec()),
        ArgKind::Int => Arg::Int(integer(&text).ok_or_else(spelling)?),
        ArgKind::Time => Arg::Int(time_ms(&text).ok_or_else(spelling)?),
        ArgKind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Arg::Bool(true),
            "false" | "0" => Arg::Bool(false),
            _ => {
                return Err(ArgFail::Meaning(
                    "Expects 'true', 'false', '0' or '1'".to_owned(),
                ));
            }
        },
        ArgKind::Ipv4 => Arg::Ip(IpAddr::V4(text.parse().map_err(|_| spelling())?)),
        ArgKind::Ipv6 => Arg::Ip(IpAddr::V6(text.parse().map_err(|_| spelling())?)),
        ArgKind::Ipv4Mask => Arg::Ip(IpAddr::V4(mask4(&text).ok_or_else(spelling)?)),
        ArgKind::Ipv6Mask => Arg::Ip(IpAddr::V6(mask6(&text).ok_or_else(spelling)?)),
        ArgKind::Var => {
            if raw.is_empty() && !required {
                return Ok(None);
            }
            Arg::Var(variable(&text, scope).map_err(ArgFail::Meaning)?)
        }
        ArgKind::IntOrVar => match integer(&text) {
            Some(n) => Arg::Int(n),
            None if raw.is_empty() && !required => return Ok(None),
            None => match scope.var(&text) {
                Ok(v) => Arg::Var(v),
                Err(_) => {
                    return Err(ArgFail::Meaning(
                        "expects an integer or a variable name".to_owned(),
                    ));
                }
            },
        },
        ArgKind::Env => Arg::Env(scope.env(&text).map(String::into_bytes)),
        ArgKind::Regex => match regex(raw, false) {
            Ok(r) => Arg::Regex(Box::new(r)),
            Err(why) => {
                return Err(ArgFail::Whole(format!(
                    "error in regex '{text}' in arg {number} of {} in proxy '{}' : {why}.",
                    owner.describe(),
                    scope.section_name()
                )));
            }
        },
        ArgKind::Table => return table(&text, number, owner, scope),
        ArgKind::Frontend => return proxy(&text, number, true, owner, scope),
        ArgKind::Backend => return proxy(&text, number, false, owner, scope),
        ArgKind::Server => return server(&text, number, owner, scope).map(Some),
    };
    Ok(Some(arg))
}

/// An empty table name means the proxy's own, which the fetch itself falls back to.
fn table(
    text: &str,
    number: usize,
    owner: Owner<'_>,
    scope: &mut Scope<'_>,
) -> Result<Option<Arg>, ArgFail> {
    if text.is_empty() {
        return Ok(None);
    }
    match scope.table(text) {
        Some(id) => Ok(Some(Arg::Table(id))),
        None => Err(ArgFail::Whole(format!(
            "unable to find table '{text}' {}",
            owner.referenced(number, scope)
        ))),
    }
}

fn proxy(
    text: &str,
    number: usize,
    frontend: bool,
    owner: Owner<'_>,
    scope: &mut Scope<'_>,
) -> Result<Option<Arg>, ArgFail> {
    // Without a name the current proxy is meant, if it has the right side.
    let name = if text.is_empty() {
        scope.section_name().to_owned()
    } else {
        text.to_owned()
    };
    let (found, side): (Option<ProxyId>, _) = if frontend {
        (scope.frontend(&name), "frontend")
    } else {
        (scope.backend(&name), "backend")
    };
    match found {
        Some(id) => Ok(Some(Arg::Proxy(id))),
        None => Err(ArgFail::Whole(format!(
            "unable to find {side} '{name}' {}",
            owner.referenced(number, scope)
        ))),
    }
}

fn server(
    text: &str,
    number: usize,
    owner: Owner<'_>,
    scope: &mut Scope<'_>,
) -> Result<Arg, ArgFail> {
    let (proxy_name, name) = match text.rsplit_once('/') {
        Some((p, s)) => (p.to_owned(), s),
        None => (scope.section_name().to_owned(), text),
    };
    let Some(id) = scope.backend(&proxy_name).or(scope.any_proxy(&proxy_name)) else {
        return Err(ArgFail::Whole(format!(
            "unable to find proxy '{proxy_name}' {}",
            owner.referenced(number, scope)
        )));
    };
    match scope.server(id, name) {
        Some(index) => Ok(Arg::Server(id, index)),
        None => Err(ArgFail::Whole(format!(
            "unable to find server '{name}' in proxy '{proxy_name}', {}",
            owner.referenced(number, scope)
        ))),
    }
}

/// A variable, with the reference's word for an empty name.
pub(super) fn variable(
    text: &str,
    scope: &mut Scope<'_>,
) -> Result<remora_core::rule::vars::VarRef, String> {
    if text.is_empty() {
        return Err("Empty variable name cannot be accepted".to_owned());
    }
    scope.var(text)
}

/// Compiles a regular expression as ACLs and converters use it.
pub(crate) fn regex(pattern: &[u8], ignore_case: bool) -> Result<regex::bytes::Regex, String> {
    let text = String::from_utf8_lossy(pattern);
    let exact = std::str::from_utf8(pattern)
        .map_err(|_| format!("regex '{text}' is invalid (error=not UTF-8 text)"))?;
    compile_regex(exact, ignore_case).map_err(|picture| {
        // The library draws a picture; its last line says what is wrong.
        let last = picture.lines().last().unwrap_or("").trim();
        let reason = last.strip_prefix("error: ").unwrap_or(last);
        format!("regex '{text}' is invalid (error={reason})")
    })
}

/// A signed decimal number that fills the whole text.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Beyond 64 bits the reference saturates.
    Some(text.parse().unwrap_or(if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    }))
}

/// A time in milliseconds, default unit ms. (reference: config-dialect 3)
fn time_ms(text: &str) -> Option<i64> {
    let end = text
        .bytes()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    let n: u64 = digits.parse().ok()?;
    let ms = match unit {
        "us" => n.div_ceil(1000),
        "" | "ms" => n,
        "s" => n.checked_mul(1000)?,
        "m" => n.checked_mul(60_000)?,
        "h" => n.checked_mul(3_600_000)?,
        "d" => n.checked_mul(86_400_000)?,
        _ => return None,
    };
    (ms <= 2_147_483_647).then_some(ms as i64)
}

/// `24` or `255.255.255.0`.
pub(super) fn mask4(text: &str) -> Option<Ipv4Addr> {
    if text.contains('.') {
        return text.parse().ok();
    }
    let len = prefix(text, 32)?;
    let bits = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    Some(Ipv4Addr::from(bits))
}

/// `64` or `ffff:ffff::`.
pub(super) fn mask6(text: &str) -> Option<Ipv6Addr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let len = prefix(text, 128)?;
    let bits = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    Some(Ipv6Addr::from(bits))
}

fn prefix(text: &str, max: u8) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|n| *n <= max)
}

fn kind_name(kind: ArgKind) -> &'static str {
    match kind {
        ArgKind::Str => "string",
        ArgKind::Int => "integer",
        ArgKind::Time => "delay",
        ArgKind::Table => "table",
        ArgKind::Frontend => "frontend",
        ArgKind::Backend => "backend",
        ArgKind::Server => "server",
        ArgKind::Var => "variable",
        ArgKind::Ipv4Mask => "IPv4 mask",
        ArgKind::Ipv6Mask => "IPv6 mask",
        ArgKind::Ipv4 => "IPv4 address",
        ArgKind::Ipv6 => "IPv6 address",
        ArgKind::Regex => "regex",
        ArgKind::IntOrVar => "integer or variable",
        ArgKind::Bool => "boolean",
        ArgKind::Env => "string",
    }
}

impl From<ArgFail> for Fail {
    fn from(fail: ArgFail) -> Fail {
        match fail {
            ArgFail::Spelling(_, text) | ArgFail::Meaning(text) => Fail::Detail(text),
            ArgFail::Whole(text) => Fail::Whole(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, kinds: usize) -> Vec<String> {
        let kinds = vec![ArgKind::Str; kinds];
        split(text.as_bytes(), 0, &kinds, 0)
            .unwrap()
            .texts
            .iter()
            .map(|t| String::from_utf8_lossy(t).into_owned())
            .collect()
    }

    #[test]
    fn quotes_and_escapes() {
        let cases: &[(&str, &[&str])] = &[
            ("(a,b)", &["a", "b"]),
            ("(a b , c)", &["a b ", " c"]),
            ("(\"a,b\")", &["a,b"]),
            ("(\"a)b\")", &["a)b"]),
            ("('a\\b')", &["a\\b"]),
            ("('it\"s')", &["it\"s"]),
            ("(a\\ b\\\\c)", &["a b\\c"]),
            ("(\\n\\r\\t)", &["\n\r\t"]),
            ("(\\d+\\.)", &["\\d+\\."]),
            ("(\\x41)", &["\\x41"]),
            ("(a\"b,c\"d)", &["ab,cd"]),
            ("(,b)", &["", "b"]),
            ("(a,)", &["a", ""]),
            ("()", &[]),
        ];
        for (text, want) in cases {
            assert_eq!(texts(text, 2), *want, "{text}");
        }
    }

    #[test]
    fn wrong_parentheses() {
        let cases = [
            ("(a", 1, "expected ')'"),
            ("(a,b,c)", 2, "expected ')' before ',c)'"),
            ("(\"a)", 1, "expected ')'"),
        ];
        for (text, number, want) in cases {
            let got = split(text.as_bytes(), 0, &[ArgKind::Str; 2], 0);
            assert_eq!(got, Err((number, want.to_owned())), "{text}");
        }
        assert_eq!(
            split(b"(1)]", 0, &[], 0),
            Err((1, "expected ')' before '1)]'".to_owned()))
        );
    }

    #[test]
    fn masks_and_times() {
        assert_eq!(mask4("24"), Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(mask4("0"), Some(Ipv4Addr::UNSPECIFIED));
        assert_eq!(mask4("255.0.0.0"), Some(Ipv4Addr::new(255, 0, 0, 0)));
        assert_eq!(mask4("33"), None);
        assert_eq!(mask6("64"), "ffff:ffff:ffff:ffff::".parse().ok());
        assert_eq!(mask6("129"), None);
        assert_eq!(time_ms("5s"), Some(5000));
        assert_eq!(time_ms("5"), Some(5));
        assert_eq!(time_ms("25d"), None);
        assert_eq!(integer("99999999999999999999"), Some(i64::MAX));
        assert_eq!(integer("-"), None);
    }
}
