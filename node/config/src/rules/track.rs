//! `track-scN KEY [table T]`. (reference: stick-tables 6)

use remora_core::rule::action::Action;
use remora_core::table::TableId;

use super::Words;
use crate::expr::{Fail, Use, sample_in_words};
use crate::scope::Scope;

pub(super) fn parse(words: &mut Words<'_>, scope: &mut Scope<'_>) -> Result<Action, Fail> {
    let action = words.action();
    let slot = slot(&action, scope)?;
    if words.peek().is_none() {
        return Err(Fail::detail("missing fetch method"));
    }
    let site = words.site().with(Use::Track);
    let (key, taken) = sample_in_words(words.rest(), site, scope)?;
    words.skip(taken);
    let table = table(words, &action, scope)?;
    let spec = scope.spec(table);
    if let Some(spec) = spec
        && !key.output.castable_to_key(spec.key_type)
    {
        return Err(Fail::Whole(format!(
            "Proxy '{}': stick-table '{}' uses a type incompatible with the '{action}' rule.",
            scope.section_name(),
            spec.name
        )));
    }
    scope.note_track(slot, table, key.text == "src");
    Ok(Action::Track { slot, key, table })
}

/// The number after `track-sc`.
fn slot(action: &str, scope: &Scope<'_>) -> Result<u8, Fail> {
    let digits = action.strip_prefix("track-sc").unwrap_or("");
    let wrong = || Fail::Detail(format!("Wrong track-sc number '{digits}'"));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let n: u64 = digits.parse().map_err(|_| wrong())?;
    if n >= u64::from(scope.stick_counters) {
        return Err(match scope.stick_counters.checked_sub(1) {
            Some(max) => Fail::Detail(format!(
                "{n} track-sc number exceeding {max} (tune.stick-counters-1) value"
            )),
            None => Fail::detail("track-sc not usable: tune.stick-counters is 0"),
        });
    }
    u8::try_from(n).map_err(|_| wrong())
}

fn table(words: &mut Words<'_>, action: &str, scope: &Scope<'_>) -> Result<TableId, Fail> {
    let named = words.peek().is_some_and(|w| *w == "table");
    let (name, found) = if named {
        words.skip(1);
        let name = words
            .take_value()
            .map_or(String::new(), |w| w.text().into_owned());
        let found = scope.table(&name);
        (name, found)
    } else {
        (scope.section_name().to_owned(), scope.own_table())
    };
    found.ok_or_else(|| {
        Fail::Whole(format!(
            "Proxy '{}': unable to find table '{name}' referenced by {action}.",
            scope.section_name()
        ))
    })
}
