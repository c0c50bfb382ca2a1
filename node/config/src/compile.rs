//! Sections to a plan: names first, then everything that may use them.

use std::collections::HashMap;
use std::sync::Arc;

use remora_core::rule::cond::{Acl, AclLine};
use remora_core::world::ProxyId;

use crate::ast::{Section as AstSection, SectionKind, Statement};
use crate::checks;
use crate::diag::{Diags, Level};
use crate::env::Env;
use crate::names;
use crate::plan::{Global, LogFormat, Mode, Place, Plan, Proxy};
use crate::proxy::{self, LogEntry, LogKind, Own, RawRule, Section, Set, Settings};
use crate::rulesets::Compiled;
use crate::scope::{NamedAcl, Scope};
use crate::{Loader, Options, addresses, expr, global, peers};

/// A defaults section once read.
struct Defaults {
    name: String,
    place: Place,
    settings: Settings,
    acls: Vec<Statement>,
    rules: Vec<RawRule>,
    /// Named by a `from`, and used without one: the reference warns about both.
    explicit: bool,
    implicit: bool,
    /// Sides of the proxies that inherit its rules.
    fronts: bool,
    backs: bool,
}

impl Defaults {
    fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }
}

/// Compiles everything. `None` when there was an error.
pub(crate) fn compile(
    sections: &[AstSection],
    env: Env,
    options: &Options,
    loader: &mut dyn Loader,
    diags: &mut Diags,
) -> Option<Plan> {
    let mut global = global::defaults(options);
    let mut cx = global::Cx::new(&mut global, options, loader);
    let mut above_peers = true;
    for section in sections {
        above_peers &= section.kind != SectionKind::Peers;
        if section.kind != SectionKind::Global {
            continue;
        }
        for s in &section.statements {
            if !above_peers && s.keyword() == "localpeer" {
                let text = "'localpeer' stands below a 'peers' section, where HAProxy ignores it: move it above the first one.";
                diags.alert(s.place, text);
            }
            if let Err(text) = cx.statement(s) {
                diags.alert(s.place, &text);
            }
        }
    }
    for (place, text) in cx.finish(&env) {
        diags.warn(place, &text);
    }

    let mut scope = Scope {
        tables: Vec::new(),
        proxies: Vec::new(),
        var_names: Vec::new(),
        acls: HashMap::new(),
        proxy: None,
        section: (String::new(), String::new()),
        place: Place { file: 0, line: 0 },
        stick_counters: global.stick_counters,
        bufsize: global.bufsize,
        mode: Mode::Tcp,
        options,
        loader,
        environment: env,
        diags,
        tracked: Vec::new(),
        slot_reads: Vec::new(),
    };
    let names::Found { parents, shared } = names::collect(sections, &mut scope);
    let mut defaults = Vec::new();
    let mut proxies = Vec::new();
    let mut clusters = Vec::new();
    for (section, parent) in sections.iter().zip(&parents) {
        match section.kind {
            SectionKind::Global => {}
            SectionKind::Defaults => {
                let d = read_defaults(section, *parent, &mut defaults, &mut scope);
                defaults.push(d);
            }
            SectionKind::Peers => {
                let own = shared.iter().filter(|(_, s)| *s == clusters.len());
                let tables = own.map(|(id, _)| *id).collect();
                clusters.push(peers::build(section, tables, &global, &mut scope));
            }
            _ => {
                let built = build(section, *parent, &mut defaults, &global, &mut scope);
                proxies.push(built);
            }
        }
    }
    unused_defaults(&mut defaults, &mut scope);
    checks::all(&mut proxies, &mut scope);
    addresses::check(&proxies, &clusters, &global, &mut scope);
    if scope.diags.any(Level::Alert) {
        return None;
    }
    let files = scope.diags.files().to_vec();
    Some(Plan {
        proxies: proxies.into_iter().map(|b| b.proxy).collect(),
        tables: scope.tables,
        peers: clusters,
        var_names: scope.var_names,
        files,
        global,
    })
}

fn read_defaults(
    section: &AstSection,
    parent: Option<usize>,
    all: &mut [Defaults],
    scope: &mut Scope<'_>,
) -> Defaults {
    let mut settings = Settings::default();
    if let Some(parent) = parent.and_then(|p| all.get_mut(p)) {
        parent.explicit = true;
        settings = parent.settings.clone();
        if parent.has_rules() {
            let at = scope.diags.at(parent.place);
            let text = format!(
                "a defaults section cannot inherit from a defaults section defining TCP/HTTP rules ({at})."
            );
            scope.diags.alert(section.place, &text);
        }
    }
    let mut own = Own::default();
    scope.proxy = None;
    run_statements(section, &mut settings, &mut own, scope);
    Defaults {
        name: section.name.clone(),
        place: section.place,
        settings,
        acls: own.acls,
        rules: own.rules,
        explicit: false,
        implicit: false,
        fronts: false,
        backs: false,
    }
}

fn run_statements(
    section: &AstSection,
    settings: &mut Settings,
    own: &mut Own,
    scope: &mut Scope<'_>,
) {
    scope.section = (section.kind.word().to_owned(), section.name.clone());
    scope.mode = settings.mode;
    for s in &section.statements {
        scope.place = s.place;
        let mut sec = Section {
            scope: &mut *scope,
            settings,
            own,
            kind: section.kind,
            name: &section.name,
        };
        if let Err(text) = proxy::apply(&mut sec, s) {
            scope.alert(text);
        }
    }
}

/// A proxy and what the checks need to know beside it.
pub(crate) struct Built {
    pub(crate) proxy: Proxy,
    pub(crate) kind: SectionKind,
    pub(crate) settings: Settings,
    /// HTTP rules that were written, by set name.
    pub(crate) http_sets: Vec<&'static str>,
    /// `fullconn` was written.
    pub(crate) has_fullconn: bool,
}

fn build(
    section: &AstSection,
    parent: Option<usize>,
    all: &mut [Defaults],
    global: &Global,
    scope: &mut Scope<'_>,
) -> Built {
    let id = current_id(section, scope);
    scope.proxy = Some(id);
    let mut settings = Settings::default();
    let mut inherited = (Vec::new(), Vec::new());
    if let Some(parent) = parent.and_then(|p| all.get_mut(p)) {
        settings = parent.settings.clone();
        inherit_rules(section, parent, scope);
        inherited = (parent.acls.clone(), parent.rules.clone());
    }
    let mut own = Own::default();
    run_statements(section, &mut settings, &mut own, scope);
    scope.mode = settings.mode;

    let mut compiled = Compiled::default();
    for (acls, rules) in [inherited, (own.acls, own.rules)] {
        scope.acls = compile_acls(&acls, scope);
        for rule in rules {
            scope.place = rule.statement.place;
            if let Err(text) = compiled.add(&rule, scope) {
                scope.alert(text);
            }
        }
    }
    scope.acls = HashMap::new();
    let http_sets = compiled.http_sets();
    if settings.mode == Mode::Tcp {
        compiled.drop_http();
    }
    let default_backend = match &settings.default_backend {
        // A default that the frontend side uses; a backend inherits it for nothing.
        Some((name, _)) if section.kind != SectionKind::Backend => {
            let found = scope.backend(name);
            if found.is_none() {
                let text = format!(
                    "Proxy '{}': unable to find required default_backend: '{name}'.",
                    section.name
                );
                scope.diags.push_global(Level::Alert, &text);
            }
            found
        }
        _ => None,
    };
    let rules = compiled.finish(settings.inspect_delay_ms, default_backend);
    let logs = settings
        .logs
        .iter()
        .flat_map(|l| match l {
            LogEntry::Global => global.logs.clone(),
            LogEntry::Target(t) => vec![t.clone()],
        })
        .collect();
    let proxy = Proxy {
        name: section.name.clone(),
        id: own.id.unwrap_or(0),
        place: section.place,
        is_frontend: section.kind != SectionKind::Backend,
        is_backend: section.kind != SectionKind::Frontend,
        mode: settings.mode,
        disabled: settings.disabled,
        maxconn: settings.maxconn.unwrap_or(global.maxconn),
        fullconn: settings.fullconn.unwrap_or(0),
        backlog: settings.backlog,
        binds: own.binds,
        servers: number_servers(own.servers),
        balance: settings.balance.clone(),
        timeouts: settings.timeouts,
        retries: settings.retries,
        redispatch: settings.redispatch,
        options: settings.options,
        forwardfor: settings.forwardfor.clone(),
        logs,
        log_format: match (settings.log_kind, settings.mode) {
            (LogKind::Default, _) => LogFormat::Default,
            (LogKind::Http, Mode::Http) => LogFormat::Http,
            _ => LogFormat::Tcp,
        },
        log_tag: settings.log_tag.clone(),
        table: scope.own_table(),
        rules,
        error_pages: settings.error_pages.clone(),
        description: own.description,
    };
    scope.proxy = None;
    Built {
        has_fullconn: settings.fullconn.is_some(),
        proxy,
        kind: section.kind,
        settings,
        http_sets,
    }
}

/// The id given in the first pass: two proxies of one name are told apart by their place.
fn current_id(section: &AstSection, scope: &Scope<'_>) -> ProxyId {
    let i = scope
        .proxies
        .iter()
        .position(|p| p.place == section.place)
        .unwrap_or_default();
    ProxyId(u16::try_from(i).unwrap_or(u16::MAX))
}

/// Notes who inherits and refuses what the rules of a defaults section do not allow.
fn inherit_rules(section: &AstSection, parent: &mut Defaults, scope: &mut Scope<'_>) {
    let explicit = section.from.is_some();
    if explicit {
        parent.explicit = true;
    } else {
        parent.implicit = true;
    }
    if parent.explicit && parent.implicit && !parent.name.is_empty() {
        let text = format!(
            "defaults section '{}' ({}) is used both explicitly by 'from' and implicitly: {} '{}' should say which one it wants.",
            parent.name,
            scope.diags.at(parent.place),
            section.kind.word(),
            section.name
        );
        scope.diags.warn(section.place, &text);
    }
    if !parent.has_rules() {
        return;
    }
    let at = scope.diags.at(parent.place);
    let text = match section.kind {
        SectionKind::Listen => {
            "a listen section cannot inherit from a defaults section defining TCP/HTTP rules."
                .to_owned()
        }
        kind => {
            let front = kind == SectionKind::Frontend;
            parent.fronts |= front;
            parent.backs |= !front;
            let early = |r: &RawRule| matches!(r.set, Set::TcpConnection | Set::TcpSession);
            let late = |r: &RawRule| r.set == Set::TcpResponse;
            if parent.fronts && parent.backs {
                format!(
                    "frontends and backends cannot inherit from the same defaults section ({at}) if it defines TCP/HTTP rules."
                )
            } else if !front && parent.rules.iter().any(early) {
                format!(
                    "a backend section cannot inherit from a defaults section ({at}) defining 'tcp-request connection' or 'tcp-request session' rules."
                )
            } else if front && parent.rules.iter().any(late) {
                format!(
                    "a frontend section cannot inherit from a defaults section ({at}) defining 'tcp-response content' rules."
                )
            } else {
                return;
            }
        }
    };
    scope.diags.alert(section.place, &text);
}

/// Rules of a defaults section that nobody inherits are still checked.
fn unused_defaults(all: &mut [Defaults], scope: &mut Scope<'_>) {
    for d in all {
        if d.explicit || d.implicit {
            continue;
        }
        scope.proxy = None;
        scope.section = ("defaults".to_owned(), d.name.clone());
        scope.mode = d.settings.mode;
        scope.acls = compile_acls(&d.acls, scope);
        let mut compiled = Compiled::default();
        for rule in &d.rules {
            scope.place = rule.statement.place;
            // Without a proxy there is no table of its own to find.
            match compiled.add(rule, scope) {
                Err(text) if !text.contains("unable to find") => scope.alert(text),
                _ => {}
            }
        }
    }
    scope.acls = HashMap::new();
}

fn compile_acls(statements: &[Statement], scope: &mut Scope<'_>) -> HashMap<String, NamedAcl> {
    let mut lines: Vec<(String, Place, Vec<AclLine>)> = Vec::new();
    for s in statements {
        scope.place = s.place;
        match expr::parse_acl(s.args(), scope) {
            Ok((name, line)) => match lines.iter_mut().find(|(n, ..)| *n == name) {
                Some((_, _, list)) => list.push(line),
                None => lines.push((name, s.place, vec![line])),
            },
            Err(text) => {
                scope.alert(text);
                // Declared all the same, so that conditions which use it are not wrong too.
                let name = s.arg(0);
                if !lines.iter().any(|(n, ..)| *n == name) {
                    lines.push((name, s.place, Vec::new()));
                }
            }
        }
    }
    lines
        .into_iter()
        .map(|(name, first, lines)| {
            let acl = Arc::new(Acl {
                name: name.clone(),
                lines,
            });
            (name, NamedAcl { acl, first })
        })
        .collect()
}

/// Servers without an `id` get the lowest number from 1 that is free.
fn number_servers(servers: Vec<(crate::plan::Server, bool)>) -> Vec<crate::plan::Server> {
    let taken: Vec<u32> = servers
        .iter()
        .filter(|(_, own)| *own)
        .map(|(s, _)| s.id)
        .collect();
    let mut next = 1;
    servers
        .into_iter()
        .map(|(mut s, own)| {
            if !own {
                while taken.contains(&next) {
                    next += 1;
                }
                s.id = next;
                next += 1;
            }
            s
        })
        .collect()
}
