//! Lines that add a rule to one of a proxy's sets.

use super::statements::required;
use super::{Own, RawRule, Section, Set, no_more};
use crate::ast::{Statement, shown};
use crate::scope::unsupported;
use crate::values::{self, TimeError, Unit};

/// Adds a rule, warning if it stands behind rules that run later.
fn rule(sec: &mut Section<'_, '_>, s: &Statement, set: Set, skip: usize) {
    if set <= Set::UseBackend
        && let Some(later) = first_later(sec.own, set)
    {
        sec.scope.warn(format!(
            "a '{}' rule placed after {} '{}' rule will still be processed before.",
            set.name(),
            if later == Set::HttpRequest { "an" } else { "a" },
            later.name()
        ));
    }
    sec.own.rules.push(RawRule {
        set,
        statement: s.clone(),
        skip,
    });
}

fn first_later(own: &Own, set: Set) -> Option<Set> {
    own.rules
        .iter()
        .map(|r| r.set)
        .filter(|s| *s > set && *s <= Set::UseBackend)
        .min()
}

pub(super) fn http_request(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    rule(sec, s, Set::HttpRequest, 1);
    Ok(())
}
pub(super) fn http_response(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    rule(sec, s, Set::HttpResponse, 1);
    Ok(())
}
pub(super) fn http_after_response(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    rule(sec, s, Set::HttpAfterResponse, 1);
    Ok(())
}
pub(super) fn redirect(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    rule(sec, s, Set::Redirect, 1);
    Ok(())
}

pub(super) fn use_backend(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    required(s, "expects a backend name.")?;
    if let Some(word) = s.args().get(1)
        && !matches!(word.bytes.as_slice(), b"if" | b"unless")
    {
        return Err(format!(
            "unexpected keyword '{}' after switching rule, only 'if' and 'unless' are allowed.",
            shown(word)
        ));
    }
    rule(sec, s, Set::UseBackend, 1);
    Ok(())
}

fn inspect_delay(sec: &mut Section<'_, '_>, s: &Statement) -> Result<u32, String> {
    let name = s.keyword();
    let value = s.arg(1);
    no_more(s, 2)?;
    values::time_ms(&value, Unit::Ms).map_err(|e| {
        let detail = match e {
            TimeError::Unexpected('\0') => "the value is missing".to_owned(),
            TimeError::Unexpected(c) => format!("unexpected character '{c}'"),
            TimeError::Overflow => e.message(&value, "inspect-delay"),
        };
        format!(
            "'{name} inspect-delay' expects a positive delay in milliseconds, in {} ({detail})",
            sec.title()
        )
    })
}

pub(super) fn tcp_request(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let set = match s.arg(0).as_str() {
        "inspect-delay" => {
            sec.settings.inspect_delay_ms = inspect_delay(sec, s)?;
            return Ok(());
        }
        "connection" => Set::TcpConnection,
        "session" => Set::TcpSession,
        "content" => Set::TcpContent,
        other => {
            return Err(format!(
                "'tcp-request' expects 'inspect-delay', 'connection', 'session' or 'content' in {} (got '{other}')",
                sec.title()
            ));
        }
    };
    if set != Set::TcpContent && !sec.is_defaults() && !sec.front() {
        return Err(format!(
            "{} is not allowed because {} is not a frontend",
            set.name(),
            sec.title()
        ));
    }
    rule(sec, s, set, 2);
    Ok(())
}

pub(super) fn tcp_response(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    match s.arg(0).as_str() {
        // Remora has no response content that would be worth waiting for.
        "inspect-delay" => {
            inspect_delay(sec, s)?;
            Err(unsupported("tcp-response inspect-delay"))
        }
        "content" => {
            if !sec.is_defaults() && !sec.back() {
                return Err(
                    "tcp-response content is only allowed in 'backend' sections or 'defaults' section with a name"
                        .to_owned(),
                );
            }
            rule(sec, s, Set::TcpResponse, 2);
            Ok(())
        }
        other => Err(format!(
            "'tcp-response' expects 'inspect-delay' or 'content' in {} (got '{other}')",
            sec.title()
        )),
    }
}
