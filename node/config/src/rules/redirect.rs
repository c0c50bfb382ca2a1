//! `redirect location|prefix|scheme V [code N] [drop-query] [append-slash] [ignore-empty] [set-cookie …] [clear-cookie …]`.

use remora_core::rule::action::{Action, Redirect, RedirectKind};
use remora_core::rule::expr::{Format, FormatItem};

use super::Words;
use crate::expr::{Fail, Use, format};
use crate::scope::{Scope, Where};

/// `formatted`: values are log-format strings (the action), not plain text (the statement).
pub(super) fn parse(
    words: &mut Words<'_>,
    formatted: bool,
    scope: &mut Scope<'_>,
) -> Result<Action, Fail> {
    let mut target = None;
    let mut code = 302;
    let (mut drop_query, mut append_slash, mut ignore_empty) = (false, false, false);
    let mut set_cookie = None;
    while let Some(word) = words.take_value() {
        let name = word.text();
        match name.as_ref() {
            "location" | "prefix" | "scheme" => {
                let kind = match name.as_ref() {
                    "location" => RedirectKind::Location,
                    "prefix" => RedirectKind::Prefix,
                    _ => RedirectKind::Scheme,
                };
                let value = value(words, &name)?;
                target = Some((kind, value));
            }
            "code" => {
                let text = String::from_utf8_lossy(value(words, &name)?).into_owned();
                code = match text.as_str() {
                    "301" => 301,
                    "302" => 302,
                    "303" => 303,
                    "307" => 307,
                    "308" => 308,
                    _ => {
                        return Err(Fail::Detail(format!(
                            "'code': unsupported HTTP code '{text}' (must be one of 301, 302, 303, 307 or 308)"
                        )));
                    }
                };
            }
            "set-cookie" => {
                set_cookie = Some([value(words, &name)?, b"; path=/;"].concat());
            }
            "clear-cookie" => {
                set_cookie = Some([value(words, &name)?, b"; path=/; Max-Age=0;"].concat());
            }
            "drop-query" => drop_query = true,
            "append-slash" => append_slash = true,
            "ignore-empty" => ignore_empty = true,
            other => {
                return Err(Fail::Detail(format!(
                    "expects 'code', 'prefix', 'location', 'scheme', 'set-cookie', 'clear-cookie', 'drop-query', 'ignore-empty' or 'append-slash' (was '{other}')"
                )));
            }
        }
    }
    let Some((kind, text)) = target else {
        return Err(Fail::detail(
            "redirection type expected ('prefix', 'location', or 'scheme')",
        ));
    };
    if words.at == Where::HttpResponse && kind != RedirectKind::Location {
        return Err(Fail::detail(
            "response only supports redirect type 'location'",
        ));
    }
    let target = if formatted {
        format(text, words.site().with(Use::Redirect), scope)?
    } else {
        Format {
            items: Box::new([FormatItem::Text(text.to_vec())]),
        }
    };
    Ok(Action::Redirect(Box::new(Redirect {
        kind,
        target,
        code,
        drop_query,
        append_slash,
        ignore_empty,
        set_cookie,
    })))
}

fn value<'w>(words: &mut Words<'w>, name: &str) -> Result<&'w [u8], Fail> {
    match words.take() {
        Some(word) => Ok(&word.bytes),
        None => Err(Fail::Detail(format!("missing argument for '{name}'"))),
    }
}
