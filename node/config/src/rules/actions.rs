//! The list of actions: how each is written, in which rule sets it is valid, who parses it.

use remora_core::rule::action::Action;

use super::{Words, counters, headers, redirect, reply, track, variables};
use crate::expr::Fail;
use crate::known::{Kind, is_known};
use crate::scope::{Scope, Where, unsupported};

/// How the word of an action looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `deny`
    Plain,
    /// `set-var(…)`; the parentheses may be optional, the parser knows.
    Parentheses,
    /// `track-sc0`
    Number,
}

/// A row of the list.
pub(super) struct Row {
    name: &'static str,
    shape: Shape,
    sets: u8,
    /// Its messages say which action they are about, so that TCP rule sets print them alone.
    pub(super) names_itself: bool,
    /// Parses what follows the action up to its condition.
    pub(super) parse: fn(&mut Words<'_>, &mut Scope<'_>) -> Result<Action, Fail>,
}

const CONN: u8 = 1;
const SESS: u8 = 2;
const CONT: u8 = 4;
const TRES: u8 = 8;
const HREQ: u8 = 16;
const HRES: u8 = 32;
const HAFT: u8 = 64;
const TCP: u8 = CONN | SESS | CONT | TRES;
const HTTP: u8 = HREQ | HRES | HAFT;

fn bit(at: Where) -> u8 {
    match at {
        Where::TcpConnection => CONN,
        Where::TcpSession => SESS,
        Where::TcpContent => CONT,
        Where::TcpResponse => TRES,
        Where::HttpRequest => HREQ,
        Where::HttpResponse => HRES,
        Where::HttpAfterResponse => HAFT,
        Where::Config | Where::UseBackend | Where::Log | Where::Anywhere => 0,
    }
}

const fn row(
    name: &'static str,
    shape: Shape,
    sets: u8,
    parse: fn(&mut Words<'_>, &mut Scope<'_>) -> Result<Action, Fail>,
) -> Row {
    Row {
        name,
        shape,
        sets,
        names_itself: false,
        parse,
    }
}

/// As [`row`], for actions whose messages need no prefix in TCP rule sets.
const fn own(mut row: Row) -> Row {
    row.names_itself = true;
    row
}

const ROWS: &[Row] = &[
    row("accept", Shape::Plain, TCP, |_, _| Ok(Action::Allow)),
    row("allow", Shape::Plain, HTTP, |_, _| Ok(Action::Allow)),
    row("reject", Shape::Plain, TCP | HREQ, |_, _| {
        Ok(Action::Reject)
    }),
    row("deny", Shape::Plain, HREQ | HRES, reply::deny),
    row("tarpit", Shape::Plain, HREQ, reply::tarpit),
    row("return", Shape::Plain, HREQ | HRES, reply::return_),
    row("use-service", Shape::Plain, HREQ, reply::use_service),
    row("redirect", Shape::Plain, HREQ | HRES, |words, scope| {
        redirect::parse(words, true, scope)
    }),
    row(
        "silent-drop",
        Shape::Plain,
        TCP | HREQ | HRES,
        reply::silent_drop,
    ),
    row(
        "track-sc",
        Shape::Number,
        CONN | SESS | CONT | HREQ | HRES,
        track::parse,
    ),
    own(row(
        "sc-inc-gpc",
        Shape::Parentheses,
        TCP | HTTP,
        counters::inc_gpc,
    )),
    own(row(
        "sc-inc-gpc0",
        Shape::Parentheses,
        TCP | HTTP,
        |w, s| counters::inc_old(w, s, 0),
    )),
    own(row(
        "sc-inc-gpc1",
        Shape::Parentheses,
        TCP | HTTP,
        |w, s| counters::inc_old(w, s, 1),
    )),
    own(row(
        "sc-add-gpc",
        Shape::Parentheses,
        TCP | HTTP,
        counters::add_gpc,
    )),
    own(row(
        "sc-set-gpt",
        Shape::Parentheses,
        TCP | HTTP,
        counters::set_gpt,
    )),
    own(row(
        "sc-set-gpt0",
        Shape::Parentheses,
        TCP | HTTP,
        counters::set_gpt0,
    )),
    own(row(
        "set-var",
        Shape::Parentheses,
        TCP | HTTP,
        variables::set_var,
    )),
    own(row(
        "set-var-fmt",
        Shape::Parentheses,
        TCP | HTTP,
        variables::set_var_fmt,
    )),
    own(row(
        "unset-var",
        Shape::Parentheses,
        TCP | HTTP,
        variables::unset_var,
    )),
    row("set-header", Shape::Plain, HTTP, headers::set),
    row("add-header", Shape::Plain, HTTP, headers::add),
    row("del-header", Shape::Plain, HTTP, headers::del),
];

/// The word without parentheses or number.
fn base(word: &str) -> &str {
    let word = word.split('(').next().unwrap_or("");
    match word.strip_prefix("track-sc") {
        Some(_) => "track-sc",
        None => word,
    }
}

/// The row of an action, if it is valid in a rule set.
pub(super) fn find(word: &str, at: Where) -> Option<&'static Row> {
    let base = base(word);
    ROWS.iter().find(|r| {
        r.name == base
            && r.sets & bit(at) != 0
            && (r.shape != Shape::Plain || word.len() == base.len())
    })
}

/// What to say about an action that HAProxy has in this rule set.
pub(super) fn known_elsewhere(set: &str, word: &str) -> Option<String> {
    let base = base(word);
    let full = format!("{set} {base}");
    let registered = base.starts_with("lua.") && base.len() > 4;
    (registered || is_known(Kind::Action, &full)).then(|| unsupported(&full))
}

/// Names of the actions of a rule set.
pub(super) fn names(at: Where) -> impl Iterator<Item = &'static str> {
    ROWS.iter()
        .filter(move |r| r.sets & bit(at) != 0)
        .map(|r| r.name)
}

/// `'accept', 'reject', …` as the reference lists them.
pub(super) fn expected(at: Where) -> String {
    let quoted: Vec<String> = ROWS
        .iter()
        .filter(|r| r.sets & bit(at) != 0)
        .map(|r| match r.shape {
            Shape::Plain => format!("'{}'", r.name),
            Shape::Parentheses | Shape::Number => format!("'{}(*)'", r.name),
        })
        .collect();
    quoted.join(", ")
}
