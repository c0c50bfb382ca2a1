//! The keyword table of proxy sections, and what each keyword does.

use remora_core::balance::Algorithm;

use super::{LogEntry, Section, no_more, options, rule_lines};
use crate::ast::{Prefix, SectionKind, Statement, shown};
use crate::known::{self, Kind};
use crate::parse::name_char;
use crate::plan::Mode;
use crate::scope::unsupported;
use crate::values::{self, Unit};
use crate::{listen, logs, servers};

/// Where a keyword makes sense.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
    Both,
}

/// Whether `defaults` may hold it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InDefaults {
    Yes,
    /// Only in sections with a name.
    Named,
    No,
}

type Handler = fn(&mut Section<'_, '_>, &Statement) -> Result<(), String>;

/// A row per keyword.
struct Keyword {
    name: &'static str,
    side: Side,
    defaults: InDefaults,
    run: Handler,
}

const fn row(name: &'static str, side: Side, defaults: InDefaults, run: Handler) -> Keyword {
    Keyword {
        name,
        side,
        defaults,
        run,
    }
}

const KEYWORDS: &[Keyword] = {
    use InDefaults::{Named, No, Yes};
    use Side::{Back, Both, Front};
    &[
        row("acl", Both, Named, acl),
        row("backlog", Front, Yes, backlog),
        row("balance", Back, Yes, balance),
        row("bind", Front, No, bind),
        row("default-server", Back, Yes, default_server),
        row("default_backend", Front, Yes, default_backend),
        row("description", Both, No, description),
        row("disabled", Both, Yes, disabled),
        row("enabled", Both, Yes, enabled),
        row("errorfile", Both, Yes, errorfile),
        row("fullconn", Back, Yes, fullconn),
        row(
            "http-after-response",
            Both,
            Named,
            rule_lines::http_after_response,
        ),
        row("http-request", Both, Named, rule_lines::http_request),
        row("http-response", Both, Named, rule_lines::http_response),
        row("id", Both, No, id),
        row("log", Both, Yes, log),
        row("log-tag", Both, Yes, log_tag),
        row("maxconn", Front, Yes, maxconn),
        row("mode", Both, Yes, mode),
        row("option", Both, Yes, options::option),
        row("redirect", Both, No, rule_lines::redirect),
        row("retries", Back, Yes, retries),
        row("server", Back, No, server),
        // Tables are known before the first rule is compiled: see `compile`.
        row("stick-table", Both, No, |_, _| Ok(())),
        row("tcp-request", Both, Named, rule_lines::tcp_request),
        row("tcp-response", Both, Named, rule_lines::tcp_response),
        row("timeout", Both, Yes, timeout),
        row("use_backend", Front, No, rule_lines::use_backend),
    ]
};

/// Carries out one statement of a proxy section or of `defaults`.
pub(crate) fn apply(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let name = s.keyword();
    let word = sec.kind.word();
    let Some(row) = KEYWORDS.iter().find(|k| k.name == name) else {
        if let Some((_, new)) = OLD_TIMEOUTS.iter().find(|(old, _)| *old == name) {
            return Err(format!(
                "'{name}' is no longer a keyword, please use '{new}' instead."
            ));
        }
        if known::is_known(Kind::Proxy, &name) {
            return Err(unsupported(&with_subject(&name, s)));
        }
        let hint = known::hint(&name, Kind::Proxy);
        let elsewhere = if hint.is_empty() && known::is_known(Kind::Global, &name) {
            "; it belongs into 'global'"
        } else {
            ""
        };
        return Err(format!(
            "unknown keyword '{name}' in '{word}' section{hint}{elsewhere}"
        ));
    };
    if sec.is_defaults() {
        match row.defaults {
            InDefaults::Yes => {}
            InDefaults::No => return Err(format!("'{name}' not allowed in 'defaults' section.")),
            InDefaults::Named if sec.name.is_empty() => {
                let what = match (name.as_str(), s.arg(0)) {
                    ("tcp-request" | "tcp-response", set) if !set.is_empty() => {
                        format!("{name} {set}")
                    }
                    _ => name,
                };
                return Err(format!(
                    "{what} is not allowed in anonymous 'defaults' sections"
                ));
            }
            InDefaults::Named => {}
        }
    } else {
        let missing = match row.side {
            Side::Front if !sec.front() => Some("frontend"),
            Side::Back if !sec.back() => Some("backend"),
            _ => None,
        };
        if let Some(missing) = missing {
            let title = sec.title();
            if name == "server" {
                return Err(format!(
                    "'server' not allowed because {title} has no backend capability."
                ));
            }
            let instead = match name.as_str() {
                "maxconn" => " Its counterpart here is 'fullconn'.",
                "fullconn" => " Its counterpart here is 'maxconn'.",
                _ => "",
            };
            sec.scope.warn(format!(
                "'{name}' ignored because {title} has no {missing} capability.{instead}"
            ));
            return Ok(());
        }
    }
    (row.run)(sec, s)
}

/// Statements that are one keyword with several faces are named with the face.
fn with_subject(name: &str, s: &Statement) -> String {
    let second = s.arg(0);
    match name {
        "stats" | "monitor" | "stick" | "capture" | "declare" | "filter" | "compression"
        | "http-check" | "tcp-check"
            if !second.is_empty() && second.chars().all(name_char) =>
        {
            format!("{name} {second}")
        }
        _ => name.to_owned(),
    }
}

/// The argument that must be there.
pub(super) fn required(s: &Statement, missing: &str) -> Result<String, String> {
    match s.args().first() {
        Some(w) => Ok(w.text().into_owned()),
        None => Err(format!("'{}' {missing}", s.keyword())),
    }
}

fn integer(s: &Statement) -> Result<u32, String> {
    let text = required(s, "expects an integer argument.")?;
    no_more(s, 1)?;
    text.parse().map_err(|_| {
        format!(
            "'{}' expects an integer argument (got '{text}').",
            s.keyword()
        )
    })
}

fn mode(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let text = s.arg(0);
    no_more(s, 1)?;
    sec.settings.mode = parse_mode(&text)?;
    Ok(())
}

/// `mode WORD`; also used by the first pass.
pub(crate) fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "tcp" => Ok(Mode::Tcp),
        "http" => Ok(Mode::Http),
        "log" | "spop" | "haterm" | "health" | "cli" | "peers" => {
            Err(unsupported(&format!("mode {text}")))
        }
        _ => Err(format!("unknown proxy mode '{text}'.")),
    }
}

fn maxconn(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    // 0 means the process-wide limit.
    sec.settings.maxconn = Some(integer(s)?).filter(|n| *n > 0);
    Ok(())
}

fn fullconn(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    sec.settings.fullconn = Some(integer(s)?).filter(|n| *n > 0);
    Ok(())
}

fn backlog(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    sec.settings.backlog = Some(integer(s)?).filter(|n| *n > 0);
    Ok(())
}

fn retries(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    sec.settings.retries = integer(s)?;
    Ok(())
}

fn id(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let text = required(s, "expects an integer argument.")?;
    no_more(s, 1)?;
    sec.own.id = Some(
        text.parse()
            .ok()
            .filter(|n| *n > 0 && *n <= i32::MAX as u32)
            .ok_or("custom id has to be > 0.")?,
    );
    Ok(())
}

fn description(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    required(s, "expects a string argument.")?;
    sec.own.description = Some(crate::global::joined(s));
    Ok(())
}

fn disabled(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    no_more(s, 0)?;
    sec.settings.disabled = true;
    Ok(())
}

fn enabled(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    no_more(s, 0)?;
    sec.settings.disabled = false;
    Ok(())
}

fn log_tag(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let tag = required(s, "expects a tag for use in syslog.")?;
    no_more(s, 1)?;
    sec.settings.log_tag = Some(tag);
    Ok(())
}

fn log(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    if s.prefix != Prefix::None {
        if !s.args().is_empty() {
            return Err("log : 'no log' does not expect arguments".to_owned());
        }
        sec.settings.logs.clear();
        return Ok(());
    }
    let entry = if s.arg(0) == "global" {
        no_more(s, 1)?;
        LogEntry::Global
    } else {
        LogEntry::Target(logs::parse(s.args(), false, sec.scope.loader)?)
    };
    sec.settings.logs.push(entry);
    Ok(())
}

fn default_backend(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let name = required(s, "expects a backend name.")?;
    no_more(s, 1)?;
    sec.settings.default_backend = Some((name, s.place));
    Ok(())
}

fn balance(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    sec.settings.balance = match s.args().first() {
        None => Algorithm::RoundRobin,
        Some(word) => {
            let text = shown(word);
            let (name, arg) = match text.split_once('(') {
                Some((name, rest)) => (name, Some(rest)),
                None => (text.as_str(), None),
            };
            match (name, arg) {
                ("roundrobin", None) => Algorithm::RoundRobin,
                ("leastconn", None) => Algorithm::LeastConn,
                ("source", None) => Algorithm::Source,
                ("random", arg) => Algorithm::Random(draws(arg)?),
                _ if known::is_known(Kind::Balance, name) => {
                    return Err(unsupported(&format!("balance {name}")));
                }
                _ => {
                    return Err(
                        "balance only supports 'roundrobin', 'leastconn', 'source' and 'random[(draws)]'."
                            .to_owned(),
                    );
                }
            }
        }
    };
    no_more(s, 1)
}

fn draws(arg: Option<&str>) -> Result<u32, String> {
    const DEFAULT: u32 = 2;
    const MAX: u32 = 1_000;
    let Some(arg) = arg else { return Ok(DEFAULT) };
    let Some(text) = arg.strip_suffix(')') else {
        return Err("balance random : missing ')' after the number of draws.".to_owned());
    };
    if text.is_empty() {
        return Ok(DEFAULT);
    }
    match text.parse() {
        Ok(0) => Err("balance random : number of draws must be at least 1.".to_owned()),
        Ok(n @ 1..=MAX) => Ok(n),
        _ => match text.chars().find(|c| !c.is_ascii_digit()) {
            Some(c) => Err(format!(
                "balance random : unexpected character '{c}' after argument."
            )),
            None => Err(format!(
                "balance random : number of draws must be at most {MAX}."
            )),
        },
    }
}

fn bind(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let word = sec.kind.word();
    let binds = listen::bind(s.args(), word, s.place, sec.scope.loader)?;
    for b in binds {
        if let Some(id) = b.id
            && let Some(other) = sec.own.binds.iter().find(|o| o.id == Some(id))
        {
            let at = sec.scope.diags.at(other.place);
            return Err(format!(
                "'bind {}' in section '{word}' : 'id' : custom id {id} already used at {at} ('bind {}')",
                b.text, other.text
            ));
        }
        sec.own.binds.push(b);
    }
    Ok(())
}

fn default_server(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    servers::default_server(s.args(), &mut sec.settings.server)
}

fn server(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let defaults = sec.settings.server;
    let parsed = servers::server(s.args(), sec.name, defaults, s.place, sec.scope.loader)?;
    if let Some(text) = parsed.notice {
        sec.scope.notice(text);
    }
    let new = &parsed.server;
    if let Some((other, _)) = sec.own.servers.iter().find(|(o, _)| o.name == new.name) {
        return Err(format!(
            "{}, another server named '{}' was already defined at line {}, please use a distinct name.",
            sec.title(),
            new.name,
            other.place.line
        ));
    }
    if parsed.has_id
        && let Some((other, _)) = sec
            .own
            .servers
            .iter()
            .find(|(o, own)| *own && o.id == new.id)
    {
        return Err(format!(
            "{}, server '{}': custom id {} already used by server '{}' at line {}.",
            sec.title(),
            new.name,
            new.id,
            other.name,
            other.place.line
        ));
    }
    sec.own.servers.push((parsed.server, parsed.has_id));
    Ok(())
}

/// Statuses that can have an error file.
const ERROR_STATUSES: [u16; 22] = [
    200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 414, 421, 422, 425, 429, 431, 500, 501, 502,
    503, 504, 505,
];

fn errorfile(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let (Some(code), Some(file)) = (s.args().first(), s.args().get(1)) else {
        return Err("errorfile : expects <status_code> and <file> as arguments.".to_owned());
    };
    no_more(s, 2)?;
    let (code, file) = (shown(code), file.text().into_owned());
    let status = code
        .parse()
        .ok()
        .filter(|c| ERROR_STATUSES.contains(c))
        .ok_or_else(|| format!("errorfile : status code '{code}' not handled."))?;
    let bytes = sec
        .scope
        .read(&file)
        .map_err(|e| format!("errorfile : error opening file '{file}'. ({e})"))?;
    if bytes.len() > sec.scope.bufsize {
        return Err(format!(
            "errorfile : '{file}': {} bytes do not fit into a buffer of {} (tune.bufsize).",
            bytes.len(),
            sec.scope.bufsize
        ));
    }
    if !bytes.is_empty() && !looks_like_http(&bytes) {
        return Err(format!(
            "errorfile : '{file}': unable to parse headers (an error file is a whole HTTP message, from its status line on)."
        ));
    }
    let pages = &mut sec.settings.error_pages.files;
    pages.retain(|(s, _)| *s != status);
    pages.push((status, bytes.into()));
    Ok(())
}

fn looks_like_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let digits = line.get(9..12).unwrap_or_default();
    line.starts_with(b"HTTP/1.")
        && line.get(8) == Some(&b' ')
        && digits.len() == 3
        && digits.iter().all(u8::is_ascii_digit)
}

/// Spellings of long ago.
const OLD_TIMEOUTS: [(&str, &str); 3] = [
    ("clitimeout", "timeout client"),
    ("contimeout", "timeout connect"),
    ("srvtimeout", "timeout server"),
];

/// Names of timeouts in the order of the message.
const TIMEOUTS: [&str; 12] = [
    "client",
    "server",
    "connect",
    "check",
    "queue",
    "http-keep-alive",
    "http-request",
    "tunnel",
    "tarpit",
    "client-fin",
    "server-fin",
    "client-hs",
];
/// A time without unit below this was probably meant in seconds.
const SMALL_MS: u32 = 100;

fn timeout(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    let name = s.arg(0);
    let t = &mut sec.settings.timeouts;
    let (slot, side) = match name.as_str() {
        "client" => (&mut t.client, Side::Front),
        "server" => (&mut t.server, Side::Back),
        "connect" => (&mut t.connect, Side::Back),
        "queue" => (&mut t.queue, Side::Back),
        "http-request" => (&mut t.http_request, Side::Front),
        "http-keep-alive" => (&mut t.http_keep_alive, Side::Both),
        "tarpit" => (&mut t.tarpit, Side::Both),
        "tunnel" => (&mut t.tunnel, Side::Back),
        "client-fin" => (&mut t.client_fin, Side::Front),
        "server-fin" => (&mut t.server_fin, Side::Back),
        "client-hs" => (&mut t.client_hs, Side::Front),
        "check" => (&mut t.check, Side::Back),
        _ => {
            let list = TIMEOUTS
                .iter()
                .map(|t| format!("'{t}'"))
                .collect::<Vec<_>>()
                .join(", ");
            return Err(format!("'timeout' supports {list} (got '{name}')"));
        }
    };
    let what = format!("timeout {name}");
    let Some(value) = s.args().get(1).map(shown) else {
        return Err(format!(
            "'{what}' expects an integer value (in milliseconds)"
        ));
    };
    if let Some(extra) = s.args().get(2) {
        return Err(format!(
            "'{what}' : unexpected extra argument '{}' after value '{value}'.",
            shown(extra)
        ));
    }
    let ms = values::time_ms(&value, Unit::Ms).map_err(|e| e.message(&value, &what))?;
    let missing = match side {
        _ if sec.kind == SectionKind::Defaults => None,
        Side::Front if !matches!(sec.kind, SectionKind::Frontend | SectionKind::Listen) => {
            Some("frontend")
        }
        Side::Back if !matches!(sec.kind, SectionKind::Backend | SectionKind::Listen) => {
            Some("backend")
        }
        _ => None,
    };
    *slot = Some(ms).filter(|ms| *ms > 0);
    if let Some(missing) = missing {
        let title = sec.title();
        sec.scope.warn(format!(
            "'{what}' ignored because {title} has no {missing} capability."
        ));
    }
    if ms > 0 && ms < SMALL_MS && value.bytes().all(|b| b.is_ascii_digit()) {
        sec.scope.warn(format!(
            "'{what} {value}' is suspiciously small for a value in milliseconds. Write the unit ('{value}s' or '{value}ms') to say which one is meant."
        ));
    }
    Ok(())
}

fn acl(sec: &mut Section<'_, '_>, s: &Statement) -> Result<(), String> {
    sec.own.acls.push(s.clone());
    Ok(())
}
