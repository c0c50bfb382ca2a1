//! Local answers: the arguments of `deny`, `tarpit` and `return`; `silent-drop`. (reference: config-dialect 6.8)

use std::sync::Arc;

use remora_core::rule::action::{Action, Reply, ReplyBody, Service};

use super::Words;
use super::headers::checked_name;
use crate::expr::{Fail, format};
use crate::scope::{Scope, Where, unsupported};

/// Statuses that have an error page.
const PAGES: &[u16] = &[
    200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 414, 421, 422, 425, 429, 431, 500, 501, 502,
    503, 504,
];

pub(super) fn deny(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let status = if words.at == Where::HttpResponse {
        502
    } else {
        403
    };
    Ok(Action::Deny(Box::new(reply(words, scope, status, true)?)))
}

pub(super) fn tarpit(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    Ok(Action::Tarpit(Box::new(reply(words, scope, 500, true)?)))
}

pub(super) fn return_(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    Ok(Action::Return(Box::new(reply(words, scope, 200, false)?)))
}

pub(super) fn silent_drop(words: &mut Words<'_>, _scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let mut rst_ttl = 1;
    if words.peek().is_some_and(|w| *w == "rst-ttl") {
        words.skip(1);
        let text = words
            .take_value()
            .map_or(String::new(), |w| w.text().into_owned());
        rst_ttl = text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
            Fail::Detail(format!(
                "'rst-ttl' expects an integer between 1 and 255, got '{text}'"
            ))
        })?;
    }
    Ok(Action::SilentDrop { rst_ttl })
}

/// `use-service NAME`.
pub(super) fn use_service(words: &mut Words<'_>, _scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let name = words
        .take_value()
        .map_or(String::new(), |w| w.text().into_owned());
    match name.as_str() {
        "prometheus-exporter" => Ok(Action::UseService(Service::PrometheusExporter)),
        "" => Err(Fail::detail("'use-service' expects a service name.")),
        lua if lua.starts_with("lua.") => Err(Fail::Whole(unsupported(&format!(
            "http-request use-service {lua}"
        )))),
        other => Err(Fail::Detail(format!(
            "unknown service '{other}'; the only one is 'prometheus-exporter'."
        ))),
    }
}

/// `is_error`: deny and tarpit, which send an error page when nothing else is said.
fn reply(
    words: &mut Words<'_>,
    scope: &mut Scope<'_>,
    default_status: u16,
    is_error: bool,
) -> Result<Reply, Fail> {
    let mut status = default_status;
    let mut content_type: Option<Vec<u8>> = None;
    // The word that chose the body, for messages, and the body.
    let mut body: Option<(String, ReplyBody)> = None;
    let mut headers = Vec::new();
    while let Some(word) = words.peek() {
        let name = word.text().into_owned();
        match name.as_str() {
            "status" | "deny_status" if name == "status" || is_error => {
                words.skip(1);
                status = parse_status(words)?;
            }
            "content-type" => {
                words.skip(1);
                content_type = Some(argument(words, &name, "<ctype>")?.to_vec());
            }
            "hdr" => {
                words.skip(1);
                let (Some(n), Some(v)) = (words.take_value(), words.take()) else {
                    return Err(Fail::detail(
                        "'hdr' expects <name> and <value> as arguments",
                    ));
                };
                checked_name(&n.bytes)?;
                headers.push((n.bytes.clone(), format(&v.bytes, words.site(), scope)?));
            }
            "default-errorfiles" | "errorfile" | "errorfiles" | "file" | "lf-file" | "string"
            | "lf-string" => {
                words.skip(1);
                if let Some((before, _)) = &body {
                    return Err(Fail::Detail(format!(
                        "unexpected '{name}' argument, '{before}' already defined"
                    )));
                }
                let new = parse_body(words, &name, scope)?;
                body = Some((name, new));
            }
            _ => break,
        }
    }
    let body = match body {
        Some((_, body)) => body,
        // Own headers ask for an answer of one's own, without a body; else errors have a page.
        None if is_error && headers.is_empty() => ReplyBody::ErrorPage,
        None => ReplyBody::Empty,
    };
    check(status, &body, content_type.as_deref(), &mut headers, scope)?;
    Ok(Reply {
        status,
        body,
        content_type,
        headers,
    })
}

fn parse_status(words: &mut Words<'_>) -> Result<u16, Fail> {
    let text = String::from_utf8_lossy(argument(words, "status", "<status_code>")?).into_owned();
    match text.parse::<u16>() {
        Ok(n) if (200..600).contains(&n) => Ok(n),
        _ => Err(Fail::Detail(format!("Unexpected status code '{text}'"))),
    }
}

fn parse_body(words: &mut Words<'_>, name: &str, scope: &mut Scope<'_>) -> Result<ReplyBody, Fail> {
    Ok(match name {
        "default-errorfiles" => ReplyBody::ErrorPage,
        "errorfiles" => return Err(Fail::Whole(unsupported("errorfiles"))),
        "errorfile" => {
            let path = argument(words, name, "<fmt>")?;
            let raw = read(path, scope)?;
            if !looks_like_response(&raw) {
                return Err(Fail::Detail(format!(
                    "'{}': unable to parse headers (error offset: 0)",
                    String::from_utf8_lossy(path)
                )));
            }
            ReplyBody::Raw(Arc::from(raw))
        }
        "file" => ReplyBody::Bytes(Arc::from(read(argument(words, name, "<file>")?, scope)?)),
        "lf-file" => {
            let text = read(argument(words, name, "<file>")?, scope)?;
            ReplyBody::Format(format(&text, words.site(), scope)?)
        }
        "string" => ReplyBody::Bytes(Arc::from(argument(words, name, "<str>")?)),
        _ => {
            let text = argument(words, name, "<fmt>")?;
            ReplyBody::Format(format(text, words.site(), scope)?)
        }
    })
}

/// What goes together, and the remarks about what is written in vain.
fn check(
    status: u16,
    body: &ReplyBody,
    content_type: Option<&[u8]>,
    headers: &mut Vec<(Vec<u8>, remora_core::rule::expr::Format)>,
    scope: &mut Scope<'_>,
) -> Result<(), Fail> {
    let has_payload = match body {
        ReplyBody::Bytes(b) => !b.is_empty(),
        ReplyBody::Format(f) => !f.items.is_empty(),
        _ => false,
    };
    if matches!(body, ReplyBody::ErrorPage) && !PAGES.contains(&status) {
        return Err(Fail::Detail(format!(
            "status code '{status}' not handled by default with 'default-errorfiles' argument"
        )));
    }
    if has_payload && matches!(status, 204 | 304) {
        return Err(Fail::Detail(format!(
            "No body expected for {status} responses"
        )));
    }
    if has_payload && content_type.is_none() {
        return Err(Fail::detail(
            "a content type must be defined when non-empty payload is configured",
        ));
    }
    let from_page = matches!(body, ReplyBody::ErrorPage | ReplyBody::Raw(_));
    if from_page && !headers.is_empty() {
        scope.warn("hdr parameters ignored by the http reply when used with an errorfile.");
        headers.clear();
    }
    if let Some(t) = content_type.filter(|_| !has_payload) {
        let t = String::from_utf8_lossy(t);
        scope.warn(if from_page {
            format!("content-type '{t}' ignored by the http reply when used with an errorfile.")
        } else {
            format!(
                "content-type '{t}' ignored by the http reply because neither errorfile nor payload defined."
            )
        });
    }
    Ok(())
}

fn argument<'w>(words: &mut Words<'w>, name: &str, what: &str) -> Result<&'w [u8], Fail> {
    match words.take() {
        Some(word) => Ok(&word.bytes),
        None => Err(Fail::Detail(format!("'{name}' expects {what} as argument"))),
    }
}

/// A local answer must fit one buffer.
fn read(path: &[u8], scope: &mut Scope<'_>) -> Result<Vec<u8>, Fail> {
    let path = String::from_utf8_lossy(path);
    let bytes = scope
        .read(&path)
        .map_err(|_| Fail::Detail(format!("error opening file '{path}'")))?;
    if bytes.len() > scope.bufsize {
        return Err(Fail::Detail(format!(
            "file '{path}' exceeds the buffer size ({} > {})",
            bytes.len(),
            scope.bufsize
        )));
    }
    Ok(bytes)
}

/// A status line to begin with and an end of the headers: enough to know that it is the right kind of file.
fn looks_like_response(raw: &[u8]) -> bool {
    let status_line = raw.split(|b| *b == b'\n').next().unwrap_or_default();
    let version_ok = status_line.starts_with(b"HTTP/1.0 ") || status_line.starts_with(b"HTTP/1.1 ");
    let code = status_line.get(9..12).unwrap_or_default();
    let ends = raw.windows(2).any(|w| w == b"\n\n") || raw.windows(4).any(|w| w == b"\r\n\r\n");
    version_ok && code.len() == 3 && code.iter().all(u8::is_ascii_digit) && ends
}
