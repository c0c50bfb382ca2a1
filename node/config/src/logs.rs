//! `log ADDR [len N] [format F] FACILITY [MAX [MIN]]`.

use crate::ast::whole;
use crate::lexer::Word;
use crate::plan::{Address, LogSink, LogTarget, LogWire};
use crate::scope::unsupported;
use crate::{Loader, address};

/// Facilities in the order of their numbers.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2",
    "ftp", "ntp", "audit", "alert", "cron2", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
/// Levels in the order of their numbers.
const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];
const LEN_DEFAULT: usize = 1024;
const LEN_MIN: usize = 80;
const LEN_MAX: usize = 65_535;

fn level(name: &str) -> Option<u8> {
    LEVELS.iter().position(|l| *l == name).map(|i| i as u8)
}

/// Parses the words after `log` (not `log global`). Errors begin with `log : `.
pub(crate) fn parse(
    args: &[Word],
    in_global: bool,
    loader: &mut dyn Loader,
) -> Result<LogTarget, String> {
    target(args, in_global, loader).map_err(|e| {
        if e.starts_with('\'') {
            e
        } else {
            format!("log : {e}")
        }
    })
}

fn target(args: &[Word], in_global: bool, loader: &mut dyn Loader) -> Result<LogTarget, String> {
    let or_global = if in_global { "" } else { " or global" };
    let too_few = || format!("expects <address> and <facility>{or_global} as arguments");
    let mut words = args.iter().map(whole).peekable();
    let addr = words.next().ok_or_else(too_few)?;
    if words.peek().is_none() {
        return Err(too_few());
    }
    let sink = match addr.as_str() {
        "stdout" => LogSink::Stdout,
        "stderr" => LogSink::Stderr,
        _ => match address::log(&addr, loader)? {
            Address::Ip(a) => LogSink::Udp(a),
            Address::Unix(p) => LogSink::UnixDgram(p),
            Address::Fd(n) => LogSink::Fd(n),
        },
    };
    let mut target = LogTarget {
        sink,
        format: LogWire::Default,
        facility: 0,
        level_max: 7,
        level_min: 0,
        len: LEN_DEFAULT,
    };
    let facility = loop {
        let word = words.next().ok_or_else(too_few)?;
        match word.as_str() {
            "len" => {
                let n = words.next().ok_or_else(too_few)?;
                target.len = match n.parse() {
                    Ok(n @ LEN_MIN..=LEN_MAX) => n,
                    _ => {
                        return Err(format!(
                            "invalid log length '{n}', must be between {LEN_MIN} and {LEN_MAX}"
                        ));
                    }
                };
            }
            "format" => {
                let f = words.next().ok_or_else(too_few)?;
                target.format = match f.as_str() {
                    "raw" => LogWire::Raw,
                    "short" => LogWire::Short,
                    "timed" => LogWire::Timed,
                    "iso" => LogWire::Iso,
                    "local" => LogWire::Local,
                    "rfc3164" => LogWire::Rfc3164,
                    "rfc5424" => LogWire::Rfc5424,
                    "priority" => LogWire::Priority,
                    _ => return Err(format!("unknown log format '{f}'")),
                };
            }
            "sample" | "profile" => return Err(unsupported(&format!("log {word}"))),
            _ => break word,
        }
    };
    target.facility = match FACILITIES.iter().position(|f| *f == facility) {
        Some(n) => n as u8,
        None => return Err(format!("unknown log facility '{facility}'")),
    };
    if let Some(max) = words.next() {
        target.level_max =
            level(&max).ok_or_else(|| format!("unknown optional log level '{max}'"))?;
    }
    if let Some(min) = words.next() {
        target.level_min =
            level(&min).ok_or_else(|| format!("unknown optional minimum log level '{min}'"))?;
        // A minimum above the maximum means the maximum, as in the reference.
        target.level_min = target.level_min.min(target.level_max);
    }
    if let Some(extra) = words.next() {
        return Err(format!("cannot handle unexpected argument '{extra}'"));
    }
    Ok(target)
}
