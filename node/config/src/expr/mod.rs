//! Samples, ACLs, conditions and log formats: text to compiled form.
//!
//! Everything here works on words that the lexer has already unquoted; arguments in parentheses go through a second
//! tokenizer of their own (`args`). Nothing panics on any text, and nothing is skipped: what HAProxy knows and Remora
//! does not is refused by name. (reference: config-dialect 1.4 and 4)

mod acl;
mod args;
mod cond;
mod context;
mod format;
mod known;
mod patterns;
mod predefined;
mod readers;
mod sample;

use std::fmt;

use remora_core::rule::cond::{AclLine, Cond};
use remora_core::rule::expr::{Expr, Format};

use crate::lexer::Word;
use crate::scope::{Scope, Where};

pub(crate) use args::regex;
pub(crate) use cond::{condition, warn_conflicts};
pub(crate) use context::{Site, Use};
pub(crate) use format::format;
pub(crate) use sample::{needs_of, sample_in_words, slot_out_of_range};

/// Why something was refused. The two kinds differ in how the message is built around the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    /// A detail: callers put "error detected while parsing …" in front of it.
    Detail(String),
    /// A complete sentence that names its own place, such as a table that does not exist.
    Whole(String),
}

impl Fail {
    /// A detail.
    pub(crate) fn detail(text: impl Into<String>) -> Fail {
        Fail::Detail(text.into())
    }
    /// Changes the text of a detail.
    pub(crate) fn map(self, f: impl FnOnce(&str) -> String) -> Fail {
        match self {
            Fail::Detail(text) => Fail::Detail(f(&text)),
            whole => whole,
        }
    }
}

impl From<String> for Fail {
    fn from(text: String) -> Fail {
        Fail::Detail(text)
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fail::Detail(text) | Fail::Whole(text) => f.write_str(text),
        }
    }
}

impl From<Fail> for String {
    fn from(fail: Fail) -> String {
        match fail {
            Fail::Detail(text) | Fail::Whole(text) => text,
        }
    }
}

/// A sentence ends with one full stop (or with the question mark of a suggestion).
pub(crate) fn sentence(mut text: String) -> String {
    if !text.ends_with(['.', '?', ':']) {
        text.push('.');
    }
    text
}

/// ` Did you mean 'X' maybe ?` or nothing.
pub(crate) fn hint<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    match crate::known::closest(word, candidates) {
        Some(c) => format!(" Did you mean '{c}' maybe ?"),
        None => String::new(),
    }
}

/// A sample expression in one word: `FETCH[(args)][,CONVERTER[(args)]]…`.
pub fn parse_sample(text: &[u8], at: Where, scope: &mut Scope<'_>) -> Result<Expr, String> {
    Ok(sample::whole_sample(text, Site::expr(at), scope)?)
}

/// A log-format string.
pub fn parse_format(text: &[u8], at: Where, scope: &mut Scope<'_>) -> Result<Format, String> {
    Ok(format(text, Site::expr(at), scope)?)
}

/// The words after `acl`: `NAME CRITERION [FLAGS] [OPERATOR] [VALUE]…`. Gives the name and the line; lines of one name are
/// ORed by the caller.
pub fn parse_acl(args: &[Word], scope: &mut Scope<'_>) -> Result<(String, AclLine), String> {
    Ok(acl::declaration(args, scope)?)
}

/// A condition, from its `if` or `unless` on. Warns about ACLs that cannot match there.
pub fn parse_cond(args: &[Word], at: Where, scope: &mut Scope<'_>) -> Result<Cond, String> {
    let site = Site::expr(at);
    let cond = condition(args, scope)?;
    warn_conflicts(&cond, site, "", scope);
    Ok(cond)
}
