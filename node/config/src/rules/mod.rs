//! Rules: an action, its arguments and its condition. (reference: config-dialect 6.7, 6.8)
//!
//! `args` are the words after the rule set's name (`http-request`, `tcp-request content`): the action first. Errors are
//! the text after `parsing [FILE:LINE] : `.

mod actions;
mod counters;
mod headers;
mod redirect;
mod reply;
mod switching;
mod track;
mod variables;

use remora_core::rule::action::{Action, Rule};
use remora_core::rule::cond::Cond;
use remora_core::rule::proxy::UseBackend;
use remora_core::rule::registry::Needs;

use crate::expr::{self, Fail, Site, sentence};
use crate::lexer::Word;
use crate::scope::{Scope, Where, unsupported};

/// `tcp-request connection|session|content ACTION …` and `tcp-response content ACTION …`; `at` says which.
pub fn tcp_rule(at: Where, args: &[Word], scope: &mut Scope<'_>) -> Result<Rule, String> {
    let set = set_name(at);
    let Some(word) = args.first().map(|w| w.text().into_owned()) else {
        return Err(expected_tcp(at, "", scope));
    };
    if at == Where::TcpResponse && scope.mode == crate::plan::Mode::Tcp {
        return Err(unsupported("tcp-response content (in mode tcp)"));
    }
    let Some(row) = actions::find(&word, at) else {
        return Err(
            actions::known_elsewhere(set, &word).unwrap_or_else(|| expected_tcp(at, &word, scope))
        );
    };
    let mut words = Words::new(args, at);
    let action = (row.parse)(&mut words, scope).map_err(|fail| match fail {
        Fail::Detail(d) if row.names_itself => d,
        Fail::Detail(d) => format!("'{set} {word}' : {d}"),
        Fail::Whole(d) => d,
    })?;
    let cond = match words.rest().first() {
        None => None,
        Some(w) if is_cond_word(w) => {
            let kind = w.text();
            let cond = expr::condition(words.rest(), scope).map_err(|fail| {
                String::from(fail.map(|d| {
                    format!(
                        "'{set} {word}' : error detected in {} '{}' while parsing '{kind}' condition : {d}",
                        scope.section.0, scope.section.1
                    )
                }))
            })?;
            expr::warn_conflicts(&cond, Site::expr(at), &format!(" in '{set}'"), scope);
            Some(cond)
        }
        Some(other) => {
            return Err(format!(
                "'{set} {word}' only accepts 'if' or 'unless', in {} '{}' (got '{}')",
                scope.section.0,
                scope.section.1,
                other.text()
            ));
        }
    };
    Ok(rule(action, cond, scope))
}

/// `http-request|http-response|http-after-response ACTION …`; `at` says which.
pub fn http_rule(at: Where, args: &[Word], scope: &mut Scope<'_>) -> Result<Rule, String> {
    let set = set_name(at);
    if at == Where::HttpAfterResponse {
        // Answers made here do not pass through this set yet, and half of the responses would be a surprise.
        return Err(unsupported(set));
    }
    let word = args.first().map(|w| w.text().into_owned());
    let word = word.unwrap_or_default();
    let Some(row) = actions::find(&word, at) else {
        return Err(actions::known_elsewhere(set, &word).unwrap_or_else(|| {
            let list = actions::expected(at);
            let hint = expr::hint(&word, actions::names(at));
            let missing = if word.is_empty() {
                " (missing argument)"
            } else {
                ""
            };
            format!("'{set}' expects {list}, but got '{word}'{missing}.{hint}")
        }));
    };
    let mut words = Words::new(args, at);
    let action = (row.parse)(&mut words, scope).map_err(|fail| {
        String::from(fail.map(|d| {
            sentence(format!(
                "error detected in {} '{}' while parsing '{set} {word}' rule : {d}",
                scope.section.0, scope.section.1
            ))
        }))
    })?;
    let cond = match words.rest().first() {
        None => None,
        Some(w) if is_cond_word(w) => {
            let cond = expr::condition(words.rest(), scope).map_err(|fail| {
                String::from(fail.map(|d| {
                    sentence(format!(
                        "error detected while parsing an '{set} {word}' condition : {d}"
                    ))
                }))
            })?;
            expr::warn_conflicts(&cond, Site::expr(at), "", scope);
            Some(cond)
        }
        Some(other) => {
            return Err(format!(
                "'{set} {word}' expects either 'if' or 'unless' followed by a condition but found '{}'.",
                other.text()
            ));
        }
    };
    Ok(rule(action, cond, scope))
}

/// The statement `redirect location|prefix|scheme …`; args follow `redirect`. Its values are plain text.
pub fn redirect(args: &[Word], scope: &mut Scope<'_>) -> Result<Rule, String> {
    let at = Where::HttpRequest;
    let wrap = |d: &str, scope: &Scope<'_>| {
        sentence(format!(
            "error detected in {} '{}' while parsing redirect rule : {d}",
            scope.section.0, scope.section.1
        ))
    };
    let mut words = Words {
        words: args,
        next: 0,
        at,
    };
    let action = redirect::parse(&mut words, false, scope)
        .map_err(|f| String::from(f.map(|d| wrap(d, scope))))?;
    let cond = if words.rest().is_empty() {
        None
    } else {
        let cond = expr::condition(words.rest(), scope).map_err(|f| {
            String::from(f.map(|d| wrap(&format!("error in condition: {d}"), scope)))
        })?;
        expr::warn_conflicts(&cond, Site::expr(at), "", scope);
        Some(cond)
    };
    Ok(rule(action, cond, scope))
}

/// The statement `use_backend NAME|FMT [if|unless …]`; args follow `use_backend`.
pub fn use_backend(args: &[Word], scope: &mut Scope<'_>) -> Result<UseBackend, String> {
    Ok(switching::parse(args, scope)?)
}

/// For a rule that tracks: whether its key comes from the content of the request, so that the rule may have to wait for
/// it (`tcp-request inspect-delay`). `None` for other rules.
pub fn track_needs_content(rule: &Rule) -> Option<bool> {
    match &rule.action {
        Action::Track { key, .. } => {
            let content = Needs::REQ_HEAD.0 | Needs::REQ_CONTENT.0;
            Some(expr::needs_of(key).0 & content != 0)
        }
        _ => None,
    }
}

fn rule(action: Action, cond: Option<Cond>, scope: &Scope<'_>) -> Rule {
    Rule::new(action, cond, (scope.place.file, scope.place.line))
}

fn expected_tcp(at: Where, word: &str, scope: &Scope<'_>) -> String {
    format!(
        "'{}' expects {} in {} '{}' (got '{word}').{}",
        set_name(at),
        actions::expected(at),
        scope.section.0,
        scope.section.1,
        expr::hint(word, actions::names(at))
    )
}

/// What a rule set is called in the configuration.
fn set_name(at: Where) -> &'static str {
    match at {
        Where::TcpConnection => "tcp-request connection",
        Where::TcpSession => "tcp-request session",
        Where::TcpContent => "tcp-request content",
        Where::TcpResponse => "tcp-response content",
        Where::HttpResponse => "http-response",
        Where::HttpAfterResponse => "http-after-response",
        Where::HttpRequest | Where::UseBackend | Where::Log | Where::Config | Where::Anywhere => {
            "http-request"
        }
    }
}

fn is_cond_word(word: &Word) -> bool {
    *word == "if" || *word == "unless"
}

/// The words of a rule, taken from the front. The action itself is already taken.
struct Words<'w> {
    words: &'w [Word],
    next: usize,
    at: Where,
}

impl<'w> Words<'w> {
    fn new(words: &'w [Word], at: Where) -> Words<'w> {
        Words { words, next: 1, at }
    }
    /// The action as written, parentheses included.
    fn action(&self) -> String {
        self.words
            .first()
            .map_or(String::new(), |w| w.text().into_owned())
    }
    /// What has not been taken yet.
    fn rest(&self) -> &'w [Word] {
        self.words.get(self.next..).unwrap_or_default()
    }
    /// The next word, which stays.
    fn peek(&self) -> Option<&'w Word> {
        self.words.get(self.next)
    }
    /// Takes the next word.
    fn take(&mut self) -> Option<&'w Word> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }
    /// Takes the next word unless it begins the condition.
    fn take_value(&mut self) -> Option<&'w Word> {
        if self.peek().is_some_and(is_cond_word) {
            return None;
        }
        self.take()
    }
    fn skip(&mut self, count: usize) {
        self.next = self.next.saturating_add(count);
    }
    fn site(&self) -> Site {
        Site::expr(self.at)
    }
}
