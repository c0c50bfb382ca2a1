//! `sc-inc-gpc*`, `sc-add-gpc`, `sc-set-gpt*`. (reference: stick-tables 6.1)

use remora_core::rule::action::{Action, Operand};
use remora_core::rule::sample::SampleType;

use super::Words;
use crate::expr::{Fail, sample_in_words, slot_out_of_range};
use crate::scope::Scope;

/// Elements of an array type.
const ELEMENTS_MAX: u16 = 100;

pub(super) fn inc_gpc(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let (index, slot) = element(&words.action(), "sc-inc-gpc", "gpc", scope)?;
    Ok(Action::IncGpc { index, slot })
}

pub(super) fn inc_old(
    words: &mut Words<'_>,
    scope: &mut Scope<'_>,
    index: u16,
) -> Result<Action, Fail> {
    let slot = only_slot(&words.action(), scope)?;
    Ok(Action::IncGpc { index, slot })
}

pub(super) fn add_gpc(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let (index, slot) = element(&words.action(), "sc-add-gpc", "gpc", scope)?;
    let value = operand(words, scope)?;
    Ok(Action::AddGpc { index, slot, value })
}

pub(super) fn set_gpt(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let (index, slot) = element(&words.action(), "sc-set-gpt", "gpt", scope)?;
    let value = operand(words, scope)?;
    Ok(Action::SetGpt { index, slot, value })
}

pub(super) fn set_gpt0(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let slot = only_slot(&words.action(), scope)?;
    let value = operand(words, scope)?;
    Ok(Action::SetGpt {
        index: 0,
        slot,
        value,
    })
}

/// What stands between the parentheses, `None` without any.
fn inside(word: &str) -> Option<&str> {
    let (_, rest) = word.split_once('(')?;
    Some(rest.strip_suffix(')').unwrap_or(rest))
}

/// `(SLOT)`, slot 0 when nothing is written.
fn only_slot(word: &str, scope: &Scope<'_>) -> Result<u8, Fail> {
    let name = word.split('(').next().unwrap_or("");
    let text = match inside(word) {
        None | Some("") => "0",
        Some(text) => text,
    };
    let n = digits(text).ok_or_else(|| {
        Fail::Detail(format!(
            "invalid stick table track ID '{word}'. Expects {name}(<Track ID>)"
        ))
    })?;
    checked_slot(n, word, scope)
}

/// `(INDEX,SLOT)`.
fn element(word: &str, name: &str, what: &str, scope: &Scope<'_>) -> Result<(u16, u8), Fail> {
    let upper = what.to_ascii_uppercase();
    let usage = format!("Expects {name}(<{upper} ID>,<Track ID>)");
    let Some(inside) = inside(word).filter(|t| !t.is_empty()) else {
        return Err(Fail::Detail(format!("invalid {what} ID '{word}'. {usage}")));
    };
    let missing = || Fail::Detail(format!("Missing {what} ID '{word}'. {usage}"));
    let (index, slot) = inside.split_once(',').ok_or_else(missing)?;
    let index = digits(index.trim()).ok_or_else(missing)?;
    let slot = digits(slot.trim())
        .ok_or_else(|| Fail::Detail(format!("invalid stick table track ID '{word}'. {usage}")))?;
    let slot = checked_slot(slot, word, scope)?;
    match u16::try_from(index).ok().filter(|i| *i < ELEMENTS_MAX) {
        Some(index) => Ok((index, slot)),
        None => Err(Fail::Detail(format!(
            "invalid {what} ID '{word}'. The max allowed ID is {}",
            ELEMENTS_MAX - 1
        ))),
    }
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

fn checked_slot(n: u64, word: &str, scope: &Scope<'_>) -> Result<u8, Fail> {
    if n >= u64::from(scope.stick_counters) {
        return Err(Fail::Detail(slot_out_of_range(word, scope)));
    }
    u8::try_from(n).map_err(|_| Fail::Detail(slot_out_of_range(word, scope)))
}

/// `N | EXPR`; both are cut to 32 bits.
fn operand(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Operand, Fail> {
    let Some(word) = words.peek().filter(|w| !super::is_cond_word(w)) else {
        return Err(Fail::Detail(format!(
            "'{}' expects an integer or an expression",
            words.action()
        )));
    };
    if let Some(n) = digits(&word.text()) {
        words.skip(1);
        return Ok(Operand::Int(n as u32));
    }
    let (expr, taken) = sample_in_words(words.rest(), words.site(), scope)?;
    words.skip(taken);
    if !expr.output.castable(SampleType::Int) {
        return Err(Fail::Detail(format!(
            "'{}' expects an expression that gives an integer, unlike '{}'",
            words.action(),
            expr.text
        )));
    }
    Ok(Operand::Expr(expr))
}
