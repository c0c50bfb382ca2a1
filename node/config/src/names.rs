//! First pass: what other statements may refer to by name.

use remora_core::table::TableId;

use crate::ast::{Section, SectionKind};
use crate::diag::Level;
use crate::plan::{Mode, Place};
use crate::scope::{ProxyInfo, Scope};
use crate::{proxy, table};

/// Most proxies and tables: their ids are 16 bits.
const IDS_MAX: usize = u16::MAX as usize;

/// First pass: names, sides and modes of proxies, their tables and servers; and for every section the index of the
/// defaults section it inherits from.
pub(crate) fn collect(sections: &[Section], scope: &mut Scope<'_>) -> Vec<Option<usize>> {
    // Index of the section, mode, in order.
    let mut known: Vec<(usize, Mode)> = Vec::new();
    let mut parents = Vec::new();
    let mut write_to = Vec::new();
    let mut table_places = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let parent = find_parent(section, sections, &known, scope);
        parents.push(parent);
        let inherited = parent
            .and_then(|p| known.get(p))
            .map_or(Mode::Tcp, |(_, m)| *m);
        let mode = section
            .statements
            .iter()
            .filter(|s| s.keyword() == "mode")
            .filter_map(|s| proxy::parse_mode(&s.arg(0)).ok())
            .next_back()
            .unwrap_or(inherited);
        match section.kind {
            SectionKind::Global => {}
            SectionKind::Defaults => known.push((index, mode)),
            kind => {
                same_name(section, scope);
                let id = scope.proxies.len();
                if id == IDS_MAX {
                    scope.diags.alert(
                        section.place,
                        &format!("too many proxies, at most {IDS_MAX}."),
                    );
                }
                scope.place = section.place;
                let table = collect_table(section, scope, &mut write_to, &mut table_places);
                let servers = section
                    .statements
                    .iter()
                    .filter(|s| s.keyword() == "server" && s.args().len() >= 2)
                    .map(|s| s.arg(0));
                scope.proxies.push(ProxyInfo {
                    name: section.name.clone(),
                    is_frontend: kind != SectionKind::Backend,
                    is_backend: kind != SectionKind::Frontend,
                    mode,
                    table,
                    servers: servers.collect(),
                    place: section.place,
                });
            }
        }
    }
    for (table, text) in table::resolve_write_to(&mut scope.tables, &write_to) {
        if let Some(place) = table_places.get(table) {
            scope.diags.alert(*place, &text);
        }
    }
    parents
}

/// The `known` index of the defaults section that this one inherits from.
fn find_parent(
    section: &Section,
    sections: &[Section],
    known: &[(usize, Mode)],
    scope: &mut Scope<'_>,
) -> Option<usize> {
    let Some(from) = &section.from else {
        return match section.kind {
            SectionKind::Global | SectionKind::Defaults => None,
            _ => known.len().checked_sub(1),
        };
    };
    let named: Vec<usize> = (0..known.len())
        .filter(|k| {
            known
                .get(*k)
                .and_then(|(i, _)| sections.get(*i))
                .is_some_and(|s| s.name == *from)
        })
        .collect();
    let word = section.kind.word();
    let name = &section.name;
    match named.as_slice() {
        [one] => Some(*one),
        [] => {
            scope.diags.alert(
                section.place,
                &format!("defaults section '{from}' not found for {word} '{name}'."),
            );
            None
        }
        [first, .., last] => {
            let at = |k: &usize| {
                known
                    .get(*k)
                    .and_then(|(i, _)| sections.get(*i))
                    .map_or_else(String::new, |s| scope.diags.at(s.place))
            };
            let text = format!(
                "ambiguous defaults section name '{from}' referenced by {word} '{name}' exists at least at {} and {}.",
                at(first),
                at(last)
            );
            scope.diags.alert(section.place, &text);
            Some(*last)
        }
    }
}

fn same_name(section: &Section, scope: &mut Scope<'_>) {
    let Some(other) = scope.proxies.iter().find(|p| p.name == section.name) else {
        return;
    };
    let kind = match (other.is_frontend, other.is_backend) {
        (true, true) => "listen",
        (true, false) => "frontend",
        _ => "backend",
    };
    let at = scope.diags.at(other.place);
    let text = format!(
        "{} '{}' has the same name as {kind} '{}' declared at {at}.",
        section.kind.word(),
        section.name,
        other.name
    );
    scope.diags.alert(section.place, &text);
}

fn collect_table(
    section: &Section,
    scope: &mut Scope<'_>,
    write_to: &mut Vec<(usize, String)>,
    places: &mut Vec<Place>,
) -> Option<TableId> {
    let mut own: Option<(TableId, Place)> = None;
    for s in section
        .statements
        .iter()
        .filter(|s| s.keyword() == "stick-table")
    {
        let parsed = match table::parse(&section.name, s.args()) {
            Ok(parsed) => parsed,
            Err(errors) => {
                for e in errors {
                    scope.diags.alert(s.place, &format!("stick-table: {e}"));
                }
                continue;
            }
        };
        for w in &parsed.warnings {
            scope.diags.warn(s.place, &format!("stick-table: {w}"));
        }
        if let Some((_, first)) = own {
            let at = scope.diags.at(first);
            let (word, name) = (section.kind.word(), &section.name);
            let text = format!(
                "stick-table name '{name}' conflicts with table declared in {word} '{name}' at {at}."
            );
            scope.diags.alert(s.place, &text);
            continue;
        }
        if let Some(peers) = &parsed.peers {
            let text = format!(
                "Proxy '{}': unable to find sync peers '{peers}'.",
                section.name
            );
            scope.diags.push_global(Level::Alert, &text);
        }
        let index = scope.tables.len();
        let Ok(id) = u16::try_from(index) else {
            scope
                .diags
                .alert(s.place, &format!("too many tables, at most {IDS_MAX}."));
            continue;
        };
        if let Some(target) = parsed.write_to {
            write_to.push((index, target));
        }
        scope.tables.push(parsed.spec);
        places.push(s.place);
        own = Some((TableId(id), s.place));
    }
    own.map(|o| o.0)
}
