//! Conditions: `if`/`unless`, ACL names, anonymous ACLs, `or`, `!`. (reference: config-dialect 4.2)

use std::sync::Arc;

use remora_core::rule::cond::{Acl, AclLine, Cond, Term};
use remora_core::rule::registry;

use super::context::{Site, missing};
use super::sample::name_at;
use super::{Fail, acl, predefined};
use crate::lexer::Word;
use crate::scope::{Scope, unsupported};

/// A condition, from its `if` or `unless` on.
pub(crate) fn condition(args: &[Word], scope: &mut Scope<'_>) -> Result<Cond, Fail> {
    let negated = match args.first() {
        Some(w) if *w == "if" => false,
        Some(w) if *w == "unless" => true,
        _ => {
            return Err(Fail::detail(
                "a condition begins with either 'if' or 'unless'",
            ));
        }
    };
    let mut any_of: Vec<Box<[Term]>> = Vec::new();
    let mut all_of: Vec<Term> = Vec::new();
    let mut not = false;
    let mut words = args.get(1..).unwrap_or_default();
    while let Some((word, rest)) = words.split_first() {
        words = rest;
        let mut text: &[u8] = &word.bytes;
        // Any number of exclamation marks may stand alone or before their term.
        while let Some(after) = text.strip_prefix(b"!") {
            not = !not;
            text = after;
        }
        if text.is_empty() {
            continue;
        }
        if text.eq_ignore_ascii_case(b"or") || text == b"||" {
            if !all_of.is_empty() {
                any_of.push(std::mem::take(&mut all_of).into_boxed_slice());
            }
            not = false;
            continue;
        }
        let acl = if text == b"{" {
            let Some(end) = words.iter().position(|w| *w == "}") else {
                return Err(Fail::detail("missing closing '}' in condition"));
            };
            let (inside, after) = words.split_at(end);
            words = after.get(1..).unwrap_or_default();
            Arc::new(Acl {
                name: ANONYMOUS.to_owned(),
                lines: vec![acl::line(inside, scope)?],
            })
        } else {
            named(&String::from_utf8_lossy(text), scope)?
        };
        all_of.push(Term { negated: not, acl });
        not = false;
    }
    if !all_of.is_empty() {
        any_of.push(all_of.into_boxed_slice());
    }
    Ok(Cond {
        any_of: any_of.into_boxed_slice(),
        negated,
    })
}

/// What anonymous ACLs are called inside.
const ANONYMOUS: &str = ".noname";

fn named(name: &str, scope: &mut Scope<'_>) -> Result<Arc<Acl>, Fail> {
    if let Some(acl) = scope.acl(name) {
        return Ok(acl);
    }
    if let Some(words) = predefined::criterion(name) {
        let words: Vec<Word> = words.iter().map(|w| Word::new(*w)).collect();
        return Ok(Arc::new(Acl {
            name: name.to_owned(),
            lines: vec![acl::line(&words, scope)?],
        }));
    }
    if predefined::UNSUPPORTED.contains(&name) {
        return Err(Fail::Whole(unsupported(name)));
    }
    if let Some(later) = scope.acls.get(name) {
        let place = scope.diags.at(later.first);
        return Err(Fail::Detail(format!(
            "no such ACL : '{name}'. It is declared further down, at {place}"
        )));
    }
    let known = scope.acls.keys().map(String::as_str);
    let known = known.chain(predefined::PREDEFINED.iter().map(|(n, _)| *n));
    let hint = super::hint(name, known);
    Err(Fail::Detail(super::known::suggested(
        format!("no such ACL : '{name}'"),
        &hint,
    )))
}

/// Warns about ACLs that cannot match where a condition stands. `rule`: ` in 'tcp-request connection'` or nothing.
pub(crate) fn warn_conflicts(cond: &Cond, site: Site, rule: &str, scope: &mut Scope<'_>) {
    let terms = || cond.any_of.iter().flat_map(|all| all.iter());
    // The keyword of a line that cannot match here.
    let misplaced = |line: &AclLine| {
        let (name, _) = name_at(line.expr.text.as_bytes(), 0);
        let info = registry::fetch(&name)?;
        missing(info, site, scope).map(|_| info.name)
    };
    let conflict = |acl: &Acl| acl.lines.iter().filter_map(misplaced).count();
    let keyword = |acl: &Acl| acl.lines.iter().find_map(misplaced).unwrap_or_default();
    let kind = site.rule_kind(scope);
    // One remark per condition, the worst first: an ACL none of whose lines can match.
    let hopeless =
        terms().find(|t| conflict(&t.acl) == t.acl.lines.len() && !t.acl.lines.is_empty());
    if let Some(term) = hopeless {
        let name = &term.acl.name;
        scope.warn(if name == ANONYMOUS {
            format!(
                "anonymous acl will never match{rule} because it uses keyword '{}' which is incompatible with '{kind}'",
                keyword(&term.acl)
            )
        } else {
            format!(
                "acl '{name}' will never match{rule} because it only involves keywords that are incompatible with '{kind}'"
            )
        });
    } else if let Some(term) = terms().find(|t| conflict(&t.acl) > 0) {
        scope.warn(format!(
            "acl '{}' involves keywords '{}' which is incompatible with '{kind}'",
            term.acl.name,
            keyword(&term.acl)
        ));
    }
}
