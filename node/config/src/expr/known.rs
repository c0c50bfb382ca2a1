//! Names that HAProxy has: telling "unsupported" from "unknown", and suggestions for misspelt ones.

use remora_core::rule::registry;

use super::{Fail, hint};
use crate::known::{Kind, is_known};
use crate::scope::unsupported;

/// What to say about a fetch that is not in the registry. `in_acl`: ACL spellings are known names, too.
pub(super) fn no_fetch(name: &str, in_acl: bool, context: &str) -> Fail {
    if listed(Kind::Fetch, name) && (in_acl || registry::fetch(name).is_none()) {
        return Fail::Whole(unsupported(name));
    }
    let names = registry::fetches()
        .iter()
        .filter(|f| in_acl || !f.acl_only)
        .map(|f| f.name);
    let hint = hint(name, names);
    Fail::detail(suggested(
        format!("unknown fetch method '{name}'{context}"),
        &hint,
    ))
}

/// What to say about a converter that is not in the registry.
pub(super) fn no_converter(name: &str, context: &str) -> Fail {
    if listed(Kind::Converter, name) {
        return Fail::Whole(unsupported(name));
    }
    let hint = hint(name, registry::converters().iter().map(|c| c.name));
    Fail::detail(suggested(
        format!("unknown converter '{name}'{context}"),
        &hint,
    ))
}

/// `text` alone, or as a sentence with the suggestion after it.
pub(crate) fn suggested(text: String, hint: &str) -> String {
    if hint.is_empty() {
        text
    } else {
        format!("{text}.{hint}")
    }
}

/// Whether HAProxy has this name. Whatever scripts register is known by its prefix.
fn listed(kind: Kind, name: &str) -> bool {
    is_known(kind, name) || name.starts_with("lua.")
}
