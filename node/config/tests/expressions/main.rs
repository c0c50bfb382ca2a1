//! Expressions, conditions, formats and rules: which texts are accepted, what they compile to, and what comes of them.

mod support;

mod acls;
mod docs;
mod fetches;
mod formats;
mod never_panics;
mod rules_end_to_end;
mod rules_messages;
mod rules_structure;
