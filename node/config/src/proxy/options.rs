//! `option NAME`.

use super::{LogKind, Section};
use crate::ast::{Prefix, SectionKind, Statement, shown, whole};
use crate::known::{self, Kind};
use crate::plan::{ForwardFor, Options};
use crate::scope::unsupported;
use crate::values;

/// Sides of a proxy that an option is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
    Both,
}

/// What a switch changes.
type Flag = fn(&mut Options) -> &mut bool;

/// Options without arguments that have a field in the plan. (name, side, field)
const SWITCHES: [(&str, Side, Flag); 8] = [
    ("abortonclose", Side::Back, |o| &mut o.abortonclose),
    ("allbackups", Side::Back, |o| &mut o.allbackups),
    ("contstats", Side::Front, |o| &mut o.contstats),
    ("dontlognull", Side::Front, |o| &mut o.dontlognull),
    ("http-buffer-request", Side::Both, |o| {
        &mut o.http_buffer_request
    }),
    ("http-ignore-probes", Side::Front, |o| {
        &mut o.http_ignore_probes
    }),
    ("http-server-close", Side::Both, |o| {
        &mut o.http_server_close
    }),
    ("httpclose", Side::Both, |o| &mut o.httpclose),
];

/// Hints about system calls that change nothing a user could observe: Remora splices, acknowledges and flushes as it
/// sees fit.
const HINTS: [&str; 8] = [
    "splice-auto",
    "splice-request",
    "splice-response",
    "tcp-smart-accept",
    "tcp-smart-connect",
    "http-no-delay",
    "http-use-htx",
    "persist",
];

/// `option …`, with `no` or `default` in front.
pub(super) fn option(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let Some(name) = s.args().first().map(shown) else {
        return Err("'option' expects an option name.".to_owned());
    };
    let name = name.as_str();
    let on = s.prefix == Prefix::None;
    if let Some((_, side, flag)) = SWITCHES.iter().find(|(n, ..)| *n == name) {
        super::no_more(s, 1)?;
        // The wait for a body takes place before a backend is chosen.
        if name == "http-buffer-request" && sec.kind == SectionKind::Backend {
            return Err(unsupported("option http-buffer-request (in a backend)"));
        }
        if ignored(sec, name, *side) {
            return Ok(());
        }
        *flag(&mut sec.settings.options) = on;
        // The two closing modes and keep-alive replace each other; the last one written counts.
        match name {
            "http-server-close" if on => sec.settings.options.httpclose = false,
            "httpclose" if on => sec.settings.options.http_server_close = false,
            _ => {}
        }
        return Ok(());
    }
    if HINTS.contains(&name) {
        return super::no_more(s, 1);
    }
    match name {
        "http-keep-alive" => {
            super::no_more(s, 1)?;
            if on {
                sec.settings.options.http_server_close = false;
                sec.settings.options.httpclose = false;
            }
            Ok(())
        }
        "httplog" => {
            if let Some(extra) = s.args().get(1) {
                return Err(match shown(extra).as_str() {
                    "clf" => unsupported("option httplog clf"),
                    other => {
                        format!("'option httplog' only supports option 'clf' (got '{other}').")
                    }
                });
            }
            log_kind(sec, s, name, on, LogKind::Http)
        }
        "tcplog" => {
            if let Some(extra) = s.args().get(1) {
                return Err(match shown(extra).as_str() {
                    "clf" => unsupported("option tcplog clf"),
                    _ => super::no_more(s, 1).err().unwrap_or_default(),
                });
            }
            log_kind(sec, s, name, on, LogKind::Tcp)
        }
        "forwardfor" => {
            if !on {
                super::no_more(s, 1)?;
                sec.settings.forwardfor = None;
                return Ok(());
            }
            sec.settings.forwardfor = Some(forwardfor(s)?);
            Ok(())
        }
        "redispatch" => {
            if ignored(sec, name, Side::Back) {
                return Ok(());
            }
            if let Some(n) = s.args().get(1) {
                let n = shown(n);
                return Err(match n.parse::<i64>() {
                    // On the last retry: what it is without a number.
                    Ok(-1) => {
                        sec.settings.redispatch = on;
                        return Ok(());
                    }
                    Ok(_) => unsupported(&format!("option redispatch {n}")),
                    Err(_) => format!("invalid number of retries '{n}' after 'option redispatch'."),
                });
            }
            sec.settings.redispatch = on;
            Ok(())
        }
        _ if known::is_known(Kind::Option, name) => Err(unsupported(&format!("option {name}"))),
        _ if !on => Err(format!(
            "negation/default is not supported for option '{name}'."
        )),
        _ => {
            let hint = known::hint(name, Kind::Option);
            Err(format!("unknown option '{name}'{}", sentence(&hint)))
        }
    }
}

fn sentence(hint: &str) -> String {
    if hint.is_empty() {
        ".".to_owned()
    } else {
        hint.to_owned()
    }
}

/// Warns about an option on a side that the proxy does not have.
fn ignored(sec: &mut Section<'_, '_>, name: &str, side: Side) -> bool {
    let missing = match side {
        _ if sec.is_defaults() => return false,
        Side::Front if !sec.front() => "frontend",
        Side::Back if !sec.back() => "backend",
        _ => return false,
    };
    let title = sec.title();
    sec.scope.warn(format!(
        "'option {name}' ignored because {title} has no {missing} capability."
    ));
    true
}

fn log_kind(
    sec: &mut Section<'_, '_>,
    s: &Statement,
    name: &str,
    on: bool,
    kind: LogKind,
) -> Result<(), String> {
    if !sec.is_defaults() && !sec.front() {
        let title = sec.title();
        sec.scope.warn(format!(
            "{title} : 'option {name}' directive is ignored in backends."
        ));
        return Ok(());
    }
    sec.settings.log_kind = if on { kind } else { LogKind::Default };
    sec.settings.log_kind_place = Some(s.place);
    Ok(())
}

fn forwardfor(s: &Statement) -> Result<ForwardFor, String> {
    let mut f = ForwardFor {
        header: "X-Forwarded-For".to_owned(),
        except: None,
        if_none: false,
    };
    let words: Vec<String> = s.args().iter().skip(1).map(whole).collect();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "if-none" => f.if_none = true,
            "except" => {
                let net = words.next().unwrap_or_default();
                f.except =
                    Some(values::network(&net).ok_or(
                        "'option forwardfor except' expects <address>[/mask] as argument.",
                    )?);
            }
            "header" => {
                let name = words.next().unwrap_or_default();
                if name.is_empty() || !name.bytes().all(is_token) {
                    return Err(
                        "'option forwardfor header' expects <header_name> as argument.".to_owned(),
                    );
                }
                f.header = name;
            }
            _ => {
                return Err(
                    "'option forwardfor' only supports optional values: 'except', 'header' and 'if-none'."
                        .to_owned(),
                );
            }
        }
    }
    Ok(f)
}

/// RFC 9110 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
