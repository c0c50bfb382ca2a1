//! Commands about the connection itself, and small ones about the process.

use std::time::Duration;

use remora_config::plan::{Address, CliLevel};

use super::{Answer, err};
use crate::admin::line::Words;
use crate::admin::session::{Context, Mode, SeverityOutput};
use crate::observe::log::Severity;

pub(in crate::admin) fn prompt(cx: &mut Context, words: &Words) -> Answer {
    if words.len() == 1 {
        cx.mode = if cx.mode == Mode::Prompt {
            Mode::Once
        } else {
            Mode::Prompt
        };
        return Answer::Empty;
    }
    for word in words.from(1) {
        match word.as_slice() {
            b"n" => cx.mode = Mode::Once,
            b"i" => cx.mode = Mode::Interactive,
            b"p" => cx.mode = Mode::Prompt,
            b"timed" => {
                cx.timed = !cx.timed;
                cx.mode = Mode::Prompt;
            }
            _ => {
                return Answer::Message(
                    Severity::Info,
                    "Usage: prompt [n | i | p | timed]*\n\
                     \x20 n      one line of commands, then disconnect\n\
                     \x20 i      stay connected, without a prompt\n\
                     \x20 p      stay connected, with a prompt\n\
                     \x20 timed  show the time since start in the prompt, or no longer\n\
                     Without an argument: with a prompt, or back to one line.\n"
                        .into(),
                );
            }
        }
    }
    Answer::Empty
}

pub(in crate::admin) fn quit(_cx: &mut Context, _words: &Words) -> Answer {
    Answer::Quit
}

pub(in crate::admin) fn operator(cx: &mut Context, _words: &Words) -> Answer {
    lower(cx, CliLevel::Operator)
}

pub(in crate::admin) fn user(cx: &mut Context, _words: &Words) -> Answer {
    lower(cx, CliLevel::User)
}

fn lower(cx: &mut Context, to: CliLevel) -> Answer {
    if cx.level < to {
        return err("Permission denied");
    }
    cx.level = to;
    Answer::Empty
}

pub(in crate::admin) fn echo(_cx: &mut Context, words: &Words) -> Answer {
    Answer::Text(words.from(1).join(&b' '))
}

pub(in crate::admin) fn show_level(cx: &mut Context, _words: &Words) -> Answer {
    Answer::Text(level_name(cx.level).into())
}

pub(in crate::admin) fn show_version(_cx: &mut Context, _words: &Words) -> Answer {
    Answer::Text(crate::VERSION.into())
}

pub(in crate::admin) fn show_sockets(cx: &mut Context, _words: &Words) -> Answer {
    let mut text = String::from("# socket lvl processes\n");
    for s in &cx.shared.plan.global.stats_sockets {
        let address = match &s.address {
            Address::Unix(path) => format!("unix@{path}"),
            Address::Ip(a) if a.is_ipv4() => format!("ipv4@{a}"),
            Address::Ip(a) => format!("ipv6@{a}"),
            Address::Fd(n) => format!("sockpair@{n}"),
        };
        text.push_str(&format!("{address} {} all\n", level_name(s.level)));
    }
    Answer::Text(text.into())
}

fn level_name(level: CliLevel) -> &'static str {
    match level {
        CliLevel::User => "user",
        CliLevel::Operator => "operator",
        CliLevel::Admin => "admin",
    }
}

pub(in crate::admin) fn show_env(cx: &mut Context, words: &Words) -> Answer {
    // What the configuration set or unset, over what the process inherited.
    let mut all: std::collections::BTreeMap<String, String> = std::env::vars_os()
        .map(|(k, v)| {
            (
                k.to_string_lossy().into_owned(),
                v.to_string_lossy().into_owned(),
            )
        })
        .collect();
    for (name, value) in &cx.shared.plan.global.environment {
        match value {
            Some(v) => all.insert(name.clone(), v.clone()),
            None => all.remove(name),
        };
    }
    if words.len() > 2 {
        let name = words.text(2);
        return match all.get(name.as_ref()) {
            Some(value) => Answer::Text(format!("{name}={value}").into()),
            None => err("Variable not found"),
        };
    }
    let mut text = String::new();
    for (name, value) in all {
        // No answer may hold an empty line.
        text.push_str(&format!("{name}={}\n", value.replace('\n', "\\n")));
    }
    Answer::Text(text.into())
}

pub(in crate::admin) fn severity_output(cx: &mut Context, words: &Words) -> Answer {
    cx.severity = match words.at(2) {
        b"none" => SeverityOutput::None,
        b"number" => SeverityOutput::Number,
        b"string" => SeverityOutput::String,
        _ => return err("one of 'none', 'number', 'string' is a required argument"),
    };
    Answer::Empty
}

pub(in crate::admin) fn set_timeout(cx: &mut Context, words: &Words) -> Answer {
    if words.at(2) != b"cli" {
        return err("'set timeout' only supports 'cli'.");
    }
    match delay_s(&words.text(3)) {
        Some(limit) => {
            cx.timeout = (!limit.is_zero()).then_some(limit);
            Answer::Empty
        }
        None => err("Invalid timeout value."),
    }
}

/// A time whose unit, if none is written, is the second.
fn delay_s(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let n: u64 = number.parse().ok()?;
    let ms = match unit {
        "us" => n / 1000,
        "ms" => n,
        "s" | "" => n.checked_mul(1000)?,
        "m" => n.checked_mul(60_000)?,
        "h" => n.checked_mul(3_600_000)?,
        "d" => n.checked_mul(86_400_000)?,
        _ => return None,
    };
    (ms <= i32::MAX as u64).then(|| Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        for (text, expected_ms) in [
            ("3", Some(3000)),
            ("3s", Some(3000)),
            ("250ms", Some(250)),
            ("2m", Some(120_000)),
            ("0", Some(0)),
            ("3x", None),
            ("", None),
            ("25d", None),
        ] {
            assert_eq!(
                delay_s(text),
                expected_ms.map(Duration::from_millis),
                "{text}"
            );
        }
    }
}
