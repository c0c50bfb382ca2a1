//! Whether rules look at something that costs a system call to find out.

use remora_core::rule::action::{Action, Operand, RuleSet};
use remora_core::rule::cond::Cond;
use remora_core::rule::expr::Expr;

/// Whether any condition or key of the set names a fetch that starts with `fetch` (as written in the configuration).
pub(crate) fn rules(set: &RuleSet, fetch: &str) -> bool {
    set.rules.iter().any(|rule| {
        rule.cond
            .as_ref()
            .is_some_and(|cond| condition(cond, fetch))
            || match &rule.action {
                Action::Track { key, .. } => expr(key, fetch),
                Action::SetVar { value, .. } => expr(value, fetch),
                // Formats may hold aliases of anything.
                Action::SetVarFmt { .. } => true,
                Action::AddGpc { value, .. } | Action::SetGpt { value, .. } => match value {
                    Operand::Int(_) => false,
                    Operand::Expr(value) => expr(value, fetch),
                },
                _ => false,
            }
    })
}

fn condition(cond: &Cond, fetch: &str) -> bool {
    cond.any_of
        .iter()
        .flatten()
        .flat_map(|term| &term.acl.lines)
        .any(|line| expr(&line.expr, fetch))
}

fn expr(expr: &Expr, fetch: &str) -> bool {
    expr.text.contains(fetch)
}
