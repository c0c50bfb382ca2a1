//! `set-header`, `add-header`, `del-header`.

use remora_core::rule::action::{Action, HeaderMatch};
use remora_core::rule::expr::Format;

use super::Words;
use crate::expr::{Fail, format, regex};
use crate::scope::Scope;

pub(super) fn set(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let (name, value) = name_and_value(words, scope)?;
    Ok(Action::SetHeader { name, value })
}

pub(super) fn add(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let (name, value) = name_and_value(words, scope)?;
    Ok(Action::AddHeader { name, value })
}

fn name_and_value(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<(Vec<u8>, Format), Fail> {
    let (Some(name), Some(value)) = (words.take(), words.take()) else {
        return Err(Fail::detail("expects exactly 2 arguments"));
    };
    checked_name(&name.bytes)?;
    let value = format(&value.bytes, words.site(), scope)?;
    Ok((name.bytes.clone(), value))
}

/// A header name is a token (RFC 9110 5.1): anything else would let a rule write a message nobody can read.
pub(super) fn checked_name(name: &[u8]) -> Result<(), Fail> {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    if !name.is_empty() && name.iter().all(is_token) {
        return Ok(());
    }
    Err(Fail::Detail(format!(
        "'{}' is not a valid header name",
        String::from_utf8_lossy(name)
    )))
}

pub(super) fn del(words: &mut Words<'_>, _scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let Some(name) = words.take() else {
        return Err(Fail::detail("expects at least 1 argument"));
    };
    let name = &name.bytes;
    let mut method = "str".to_owned();
    if words.peek().is_some_and(|w| *w == "-m") {
        words.skip(1);
        let Some(word) = words.take() else {
            return Err(Fail::detail("-m flag expects exactly 1 argument"));
        };
        method = word.text().into_owned();
    }
    let matches = match method.as_str() {
        "str" => HeaderMatch::Str(name.clone()),
        "beg" => HeaderMatch::Beg(name.clone()),
        "end" => HeaderMatch::End(name.clone()),
        "sub" => HeaderMatch::Sub(name.clone()),
        // Names of headers have no case.
        "reg" => HeaderMatch::Reg(Box::new(regex(name, true)?)),
        other => {
            return Err(Fail::Detail(format!(
                "-m with unsupported matching method '{other}'"
            )));
        }
    };
    Ok(Action::DelHeader { matches })
}
