//! A family of metrics is one row of a table: name, kind, help, and how it is read. Pages, documentation and tests all
//! go by these tables.

use super::text::{Kind, Labels, Page, Value};

/// A row. `One` and `Many` are functions from a subject (a frontend, a table …) to its value or values.
pub(super) struct Family<One, Many> {
    /// Without the prefix `remora_` and the group's.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) read: Read<One, Many>,
}

/// How a row is read.
pub(super) enum Read<One, Many> {
    /// One value, or none where the subject has no such thing.
    One(One),
    /// One value for each value of this label.
    Many(&'static str, Many),
}

/// Takes the values of a [`Read::Many`].
pub(super) type Each<'e> = &'e mut dyn FnMut(&str, Value);

/// A row about a subject.
type FamilyOf<S> = Family<fn(&S) -> Option<Value>, fn(&S, Each<'_>)>;

/// Rows that begin with `prefix`, over all their subjects.
pub(super) fn write<S>(
    page: &mut Page,
    prefix: &str,
    families: &[FamilyOf<S>],
    subjects: &[(Labels, S)],
) {
    for family in families {
        page.family(full_name(prefix, family.name), family.kind, family.help);
        for (labels, subject) in subjects {
            match &family.read {
                Read::One(read) => {
                    if let Some(value) = read(subject) {
                        page.sample(labels, None, value);
                    }
                }
                Read::Many(label, read) => read(subject, &mut |name, value| {
                    page.sample(labels, Some((label, name)), value);
                }),
            }
        }
    }
}

/// What a family is called on the page. Without a prefix it is about processes that follow each other, not about one.
pub(super) fn full_name(prefix: &str, name: &str) -> String {
    match prefix {
        "" => format!("remora_{name}"),
        prefix => format!("remora_{prefix}_{name}"),
    }
}

/// What is told about a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its whole name.
    pub name: String,
    /// What its samples are.
    pub kind: Kind,
    /// The label that its samples of one subject differ in.
    pub label: Option<&'static str>,
    /// Its meaning.
    pub help: &'static str,
}

/// The rows of a group, described.
pub(super) fn describe<One, Many>(prefix: &str, families: &[Family<One, Many>]) -> Vec<Described> {
    families
        .iter()
        .map(|f| Described {
            name: full_name(prefix, f.name),
            kind: f.kind,
            label: match f.read {
                Read::One(_) => None,
                Read::Many(label, _) => Some(label),
            },
            help: f.help,
        })
        .collect()
}

/// Rows: `counter|gauge|info "name" "help" (read)`, or `counter|gauge "name" by "label" "help" (read)`.
macro_rules! families {
    (@kind counter) => { $crate::metrics::text::Kind::Counter };
    (@kind gauge) => { $crate::metrics::text::Kind::Gauge };
    (@kind info) => { $crate::metrics::text::Kind::Info };
    (@row $kind:ident $name:literal $help:literal ($read:expr)) => {
        $crate::metrics::family::Family {
            name: $name,
            kind: families!(@kind $kind),
            help: $help,
            read: $crate::metrics::family::Read::One($read),
        }
    };
    (@row $kind:ident $name:literal by $label:literal $help:literal ($read:expr)) => {
        $crate::metrics::family::Family {
            name: $name,
            kind: families!(@kind $kind),
            help: $help,
            read: $crate::metrics::family::Read::Many($label, $read),
        }
    };
    ($($kind:ident $name:literal $(by $label:literal)? $help:literal ($read:expr);)*) => {
        &[$(families!(@row $kind $name $(by $label)? $help ($read))),*]
    };
}
pub(super) use families;
