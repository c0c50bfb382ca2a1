//! `set-var(V[,CONDITION…]) EXPR`, `set-var-fmt(V[,CONDITION…]) FMT`, `unset-var(V)`.

use remora_core::rule::action::{Action, VarConditions};
use remora_core::rule::vars::{Scope as VarScope, VarRef};

use super::Words;
use crate::expr::{Fail, format, sample_in_words};
use crate::scope::{Scope, Where};

pub(super) fn set_var(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let (var, conditions) = target(words, scope)?;
    if words.peek().is_none() {
        return Err(Fail::detail("missing fetch method"));
    }
    let (value, taken) = sample_in_words(words.rest(), words.site(), scope)?;
    words.skip(taken);
    Ok(Action::SetVar {
        var,
        conditions,
        value,
    })
}

pub(super) fn set_var_fmt(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let (var, conditions) = target(words, scope)?;
    let Some(text) = words.take_value() else {
        return Err(Fail::detail("missing format string"));
    };
    let value = format(&text.bytes, words.site(), scope)?;
    Ok(Action::SetVarFmt {
        var,
        conditions,
        value,
    })
}

pub(super) fn unset_var(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let (var, conditions) = target(words, scope)?;
    if conditions != VarConditions::default() {
        return Err(Fail::detail(
            "'unset-var' takes no conditions in parentheses",
        ));
    }
    Ok(Action::UnsetVar { var })
}

/// `(V[,CONDITION…])` of the action's own word.
fn target(words: &Words<'_>, scope: &mut Scope<'_>) -> Result<(VarRef, VarConditions), Fail> {
    let action = words.action();
    let Some((kind, inside)) = action.split_once('(') else {
        return Err(Fail::Detail(format!(
            "invalid or incomplete action '{action}'. Expects '{action}(<var-name>)'"
        )));
    };
    let Some(inside) = inside.strip_suffix(')') else {
        return Err(Fail::Detail(format!(
            "incomplete argument after action '{action}'. Expects '{kind}(<var-name>)'"
        )));
    };
    let mut parts = inside.split(',');
    let name = parts.next().unwrap_or("").trim();
    if name.is_empty() {
        return Err(Fail::detail("Empty variable name cannot be accepted"));
    }
    let var = scope.var(name)?;
    let mut conditions = VarConditions::default();
    for part in parts {
        let one = VarConditions::by_name(part.trim())
            .ok_or_else(|| Fail::Detail(format!("unknown condition \"{part}\"")))?;
        conditions.0 |= one.0;
    }
    let no_request = matches!(words.at, Where::TcpConnection | Where::TcpSession);
    if no_request && !matches!(var.scope, VarScope::Proc | VarScope::Sess) {
        // HAProxy is silent here, so this must not become fatal with warnings.
        scope.notice(format!(
            "variable '{name}' cannot be set yet: there is no request, only 'proc' and 'sess' variables exist here."
        ));
    }
    Ok((var, conditions))
}
