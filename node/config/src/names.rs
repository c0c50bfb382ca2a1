//! First pass: what other statements may refer to by name.

use std::collections::BTreeMap;

use remora_core::table::TableId;

use crate::ast::{Section, SectionKind, Statement, shown};
use crate::known;
use crate::parse::name_char;
use crate::plan::{Mode, Place};
use crate::scope::{ProxyInfo, Scope};
use crate::{proxy, table};

/// Most proxies and tables: their ids are 16 bits.
const IDS_MAX: usize = u16::MAX as usize;

/// What the first pass finds beside what goes into the [`Scope`].
pub(crate) struct Found {
    /// For every section the index of the defaults section it inherits from.
    pub(crate) parents: Vec<Option<usize>>,
    /// Tables that a `peers` section shares, with its position among them.
    pub(crate) shared: Vec<(TableId, usize)>,
}

/// Tables as they are collected.
#[derive(Default)]
struct Tables {
    /// `write-to`: index of the table, name of the target.
    write_to: Vec<(usize, String)>,
    /// Where each was declared.
    places: Vec<Place>,
    /// Those of `peers` sections, with the section's position.
    shared: Vec<(TableId, usize)>,
    /// `peers NAME` of a proxy's table.
    wanted: Vec<(TableId, String)>,
    /// Names of those that could not be read.
    wrong: Vec<String>,
}

/// First pass: names, sides and modes of proxies, their servers, and all tables.
pub(crate) fn collect(sections: &[Section], scope: &mut Scope<'_>) -> Found {
    // Index of the section, mode, in order.
    let mut known: Vec<(usize, Mode)> = Vec::new();
    let mut parents = Vec::new();
    let mut tables = Tables::default();
    let mut peers: Vec<&Section> = Vec::new();
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
            SectionKind::Peers => {
                if let Some(other) = peers.iter().find(|p| p.name == section.name) {
                    let text = format!(
                        "peers section '{}' has the same name as another peers section declared at {}.",
                        section.name,
                        scope.diags.at(other.place)
                    );
                    scope.diags.alert(section.place, &text);
                }
                peers_tables(section, peers.len(), scope, &mut tables);
                peers.push(section);
            }
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
                let table = collect_table(section, scope, &mut tables);
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
    // Whether the keys are the same is not known of a table that could not be read.
    let wrong = std::mem::take(&mut tables.wrong);
    tables.write_to.retain(|(_, to)| !wrong.contains(to));
    for (table, text) in table::resolve_write_to(&mut scope.tables, &tables.write_to) {
        if let Some(place) = tables.places.get(table) {
            scope.diags.alert(*place, &text);
        }
    }
    resolve_peers(&peers, scope, &mut tables);
    Found {
        parents,
        shared: tables.shared,
    }
}

/// Which section shares which table.
fn resolve_peers(peers: &[&Section], scope: &mut Scope<'_>, tables: &mut Tables) {
    for (id, name) in std::mem::take(&mut tables.wanted) {
        let table = usize::from(id.0);
        if let Some(found) = peers.iter().position(|p| p.name == name) {
            tables.shared.push((id, found));
            continue;
        }
        let (Some(spec), Some(place)) = (scope.tables.get(table), tables.places.get(table)) else {
            continue;
        };
        let near = known::closest(&name, peers.iter().map(|p| p.name.as_str()));
        let hint = match near {
            Some(near) => format!("; did you mean '{near}' maybe ?"),
            None => ".".to_owned(),
        };
        let text = format!(
            "Proxy '{}': unable to find sync peers '{name}'{hint}",
            spec.name
        );
        scope.diags.alert(*place, &text);
    }
    let disabled: Vec<bool> = peers.iter().map(|p| crate::peers::is_disabled(p)).collect();
    for (id, section) in &tables.shared {
        let switched_off = disabled.get(*section).is_none_or(|disabled| *disabled);
        if let Some(spec) = scope.tables.get_mut(usize::from(id.0))
            && !switched_off
        {
            spec.peers = u16::try_from(*section).ok();
        }
    }
}

/// The `table` lines of a `peers` section.
fn peers_tables(section: &Section, index: usize, scope: &mut Scope<'_>, tables: &mut Tables) {
    let mut own: BTreeMap<String, Place> = BTreeMap::new();
    for s in section.statements.iter().filter(|s| s.keyword() == "table") {
        let name = s.arg(0);
        if name.is_empty() {
            let text = "'table' expects a name, and then what 'stick-table' takes.";
            scope.diags.alert(s.place, text);
            continue;
        }
        if let Some(c) = name.chars().find(|c| !name_char(*c)) {
            let text = format!(
                "table: character '{}' is not permitted in table name '{}'.",
                c.escape_default(),
                s.words.get(1).map(shown).unwrap_or_default()
            );
            scope.diags.alert(s.place, &text);
            continue;
        }
        if let Some(first) = own.get(&name) {
            let text = format!(
                "table: '{name}' was already declared at {}.",
                scope.diags.at(*first)
            );
            scope.diags.alert(s.place, &text);
            continue;
        }
        own.insert(name.clone(), s.place);
        let full = format!("{}/{name}", section.name);
        if let Some((id, peers)) = add_table("table", &full, s, 1, scope, tables) {
            if peers.is_some() {
                let text = "table: unknown argument 'peers': a table of a 'peers' section is shared by that section.";
                scope.diags.alert(s.place, text);
            }
            tables.shared.push((id, index));
        }
    }
}

/// Parses a table after its first `skip` arguments and adds it; with its id, the `peers` it names.
fn add_table(
    what: &str,
    name: &str,
    s: &Statement,
    skip: usize,
    scope: &mut Scope<'_>,
    tables: &mut Tables,
) -> Option<(TableId, Option<String>)> {
    let (spec, write_to, peers) = match table::parse(name, s.args().get(skip..).unwrap_or_default())
    {
        Ok(parsed) => {
            for w in &parsed.warnings {
                scope.diags.warn(s.place, &format!("{what}: {w}"));
            }
            (parsed.spec, parsed.write_to, parsed.peers)
        }
        Err((errors, stand_in)) => {
            for e in errors {
                scope.diags.alert(s.place, &format!("{what}: {e}"));
            }
            tables.wrong.push(stand_in.name.clone());
            (stand_in, None, None)
        }
    };
    let index = scope.tables.len();
    let Ok(id) = u16::try_from(index) else {
        scope
            .diags
            .alert(s.place, &format!("too many tables, at most {IDS_MAX}."));
        return None;
    };
    if let Some(target) = write_to {
        tables.write_to.push((index, target));
    }
    scope.tables.push(spec);
    tables.places.push(s.place);
    Some((TableId(id), peers))
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

fn collect_table(section: &Section, scope: &mut Scope<'_>, tables: &mut Tables) -> Option<TableId> {
    let mut own: Option<(TableId, Place)> = None;
    for s in section
        .statements
        .iter()
        .filter(|s| s.keyword() == "stick-table")
    {
        if let Some((_, first)) = own {
            let at = scope.diags.at(first);
            let (word, name) = (section.kind.word(), &section.name);
            let text = format!(
                "stick-table name '{name}' conflicts with table declared in {word} '{name}' at {at}."
            );
            scope.diags.alert(s.place, &text);
            continue;
        }
        if let Some((id, peers)) = add_table("stick-table", &section.name, s, 0, scope, tables) {
            if let Some(peers) = peers {
                tables.wanted.push((id, peers));
            }
            own = Some((id, s.place));
        }
    }
    own.map(|o| o.0)
}
