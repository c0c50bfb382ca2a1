//! `use_backend NAME|FMT [if|unless …]`.

use remora_core::rule::proxy::{BackendRef, UseBackend};

use crate::expr::{self, Fail, Site, sentence};
use crate::lexer::Word;
use crate::plan::Mode;
use crate::scope::{Scope, Where};

pub(super) fn parse(args: &[Word], scope: &mut Scope<'_>) -> Result<UseBackend, Fail> {
    let Some((name, rest)) = args.split_first() else {
        return Err(Fail::detail("'use_backend' expects a backend name."));
    };
    let site = Site::expr(Where::UseBackend);
    let cond = match rest.first() {
        None => None,
        Some(w) if super::is_cond_word(w) => {
            let cond = expr::condition(rest, scope).map_err(|f| {
                f.map(|d| sentence(format!("error detected while parsing switching rule : {d}")))
            })?;
            expr::warn_conflicts(&cond, site, "", scope);
            Some((cond.negated, cond))
        }
        Some(other) => {
            return Err(Fail::Detail(format!(
                "unexpected keyword '{}' after switching rule, only 'if' and 'unless' are allowed.",
                other.text()
            )));
        }
    };
    let target = if name.bytes.contains(&b'%') {
        let format = expr::format(&name.bytes, site, scope).map_err(|f| {
            f.map(|d| {
                sentence(format!(
                    "failed to parse use_backend rule '{}' : {d}",
                    name.text()
                ))
            })
        })?;
        BackendRef::Dynamic(format)
    } else {
        BackendRef::Static(backend(&name.text(), scope)?)
    };
    Ok(UseBackend { target, cond })
}

fn backend(name: &str, scope: &mut Scope<'_>) -> Result<remora_core::world::ProxyId, Fail> {
    let Some(id) = scope.backend(name) else {
        return Err(Fail::Whole(format!(
            "Proxy '{}': unable to find required use_backend: '{name}'.",
            scope.section_name()
        )));
    };
    let places = scope
        .current()
        .zip(scope.info(id))
        .filter(|(from, to)| from.mode == Mode::Http && to.mode == Mode::Tcp)
        .map(|(from, to)| (scope.diags.at(from.place), scope.diags.at(to.place)));
    if let Some((from, to)) = places {
        return Err(Fail::Whole(format!(
            "http {} '{}' ({from}) tries to use incompatible tcp backend '{name}' ({to}) in a 'use_backend' rule (see 'mode').",
            scope.section.0, scope.section.1
        )));
    }
    Ok(id)
}
