//! What can only be judged when everything is known (config-dialect 10). Warnings are those of the reference and no
//! others, since `-dW` makes them fatal; Remora's own remarks are notices.

use remora_core::rule::proxy::BackendRef;
use remora_core::table::{KeyType, TableId};
use remora_core::world::ProxyId;

use crate::ast::SectionKind;
use crate::compile::Built;
use crate::diag::Level;
use crate::plan::{Address, Mode, Place};
use crate::proxy::{LogKind, title};
use crate::rules;
use crate::scope::Scope;

/// All checks, and the values that follow from several proxies (`fullconn`, ids).
pub(crate) fn all(proxies: &mut [Built], scope: &mut Scope<'_>) {
    ids(proxies, scope);
    fullconn(proxies);
    for b in proxies.iter() {
        if b.proxy.disabled {
            continue;
        }
        frontend(b, scope);
        missing_timeouts(b, scope);
        http_in_tcp(b, scope);
        content_tracking(b, scope);
        backends_fit(b, proxies, scope);
    }
    slot_readers(scope);
    ipv6_into_ipv4(proxies, scope);
}

fn warn(scope: &mut Scope<'_>, text: &str) {
    scope.diags.push_global(Level::Warning, text);
}
fn alert(scope: &mut Scope<'_>, text: &str) {
    scope.diags.push_global(Level::Alert, text);
}

/// Proxies without `id` get the lowest free number from 2 (1 is the statistics').
fn ids(proxies: &mut [Built], scope: &mut Scope<'_>) {
    let mut taken: Vec<(u32, usize)> = Vec::new();
    for (i, b) in proxies.iter().enumerate() {
        let id = b.proxy.id;
        if id == 0 {
            continue;
        }
        match taken.iter().find(|(n, _)| *n == id) {
            Some((_, first)) => {
                let first = proxies.get(*first).map_or_else(String::new, |f| {
                    let kind = f.kind.word();
                    let at = scope.diags.at(f.proxy.place);
                    format!("{kind} '{}' ({at})", f.proxy.name)
                });
                let text = format!(
                    "{} '{}': custom id {id} is already used by {first}.",
                    b.kind.word(),
                    b.proxy.name
                );
                scope.diags.alert(b.proxy.place, &text);
            }
            None => taken.push((id, i)),
        }
    }
    let mut next = 2;
    for b in proxies.iter_mut().filter(|b| b.proxy.id == 0) {
        while taken.iter().any(|(n, _)| *n == next) {
            next += 1;
        }
        b.proxy.id = next;
        next += 1;
    }
}

/// Default of `fullconn`: a tenth of what the frontends in front of it may bring.
fn fullconn(proxies: &mut [Built]) {
    const SHARE: u64 = 10;
    let mut sums = vec![0u64; proxies.len()];
    for (i, b) in proxies
        .iter()
        .enumerate()
        .filter(|(_, b)| b.proxy.is_frontend)
    {
        let rules = &b.proxy.rules;
        let mut targets: Vec<usize> = rules
            .use_backend
            .iter()
            .filter_map(|u| match u.target {
                BackendRef::Static(id) => Some(usize::from(id.0)),
                BackendRef::Dynamic(_) => None,
            })
            .collect();
        targets.extend(rules.default_backend.map(|id| usize::from(id.0)));
        if b.proxy.is_backend {
            targets.push(i);
        }
        targets.sort_unstable();
        targets.dedup();
        for t in targets {
            if let Some(sum) = sums.get_mut(t) {
                *sum = sum.saturating_add(u64::from(b.proxy.maxconn));
            }
        }
    }
    for (b, sum) in proxies.iter_mut().zip(sums) {
        if !b.has_fullconn {
            b.proxy.fullconn = u32::try_from(sum.div_ceil(SHARE)).unwrap_or(u32::MAX);
        }
    }
}

fn frontend(b: &Built, scope: &mut Scope<'_>) {
    let p = &b.proxy;
    let named = title(b.kind, &p.name);
    if p.is_frontend && p.binds.is_empty() {
        warn(
            scope,
            &format!(
                "{} '{}' has no 'bind' directive, so nothing can reach it. A section that only holds a table or rules is better a backend.",
                b.kind.word(),
                p.name
            ),
        );
    }
    if !p.is_frontend {
        return;
    }
    if b.settings.log_kind == LogKind::Http
        && p.mode == Mode::Tcp
        && let Some(place) = b.settings.log_kind_place
    {
        scope.diags.warn(
            place,
            &format!(
                "'option httplog' not usable with {named} (needs 'mode http'): it logs as 'option tcplog' does."
            ),
        );
    }
    // Inherited formats are nobody's mistake.
    let own = b
        .settings
        .log_kind_place
        .is_some_and(|at| at.file == p.place.file && at.line > p.place.line);
    if own && b.settings.log_kind != LogKind::Default && b.settings.logs.is_empty() {
        warn(
            scope,
            &format!("log format ignored for {named}: it has no 'log' target."),
        );
    }
}

fn missing_timeouts(b: &Built, scope: &mut Scope<'_>) {
    let p = &b.proxy;
    let t = &p.timeouts;
    let front = p.is_frontend && !p.binds.is_empty() && t.client.is_none();
    let no_server = t.server.is_none() && (p.mode == Mode::Http || t.tunnel.is_none());
    let back = p.is_backend && !p.servers.is_empty() && (t.connect.is_none() || no_server);
    if front || back {
        let title = title(b.kind, &p.name);
        warn(
            scope,
            &format!(
                "missing timeouts for {title}.\n   | Without them a silent client or server keeps its connection for ever.\n   | Please set all of these to something other than zero: 'client', 'connect', 'server'."
            ),
        );
    }
}

fn http_in_tcp(b: &Built, scope: &mut Scope<'_>) {
    let p = &b.proxy;
    if p.mode == Mode::Http {
        return;
    }
    let named = title(b.kind, &p.name);
    for set in &b.http_sets {
        warn(
            scope,
            &format!("'{set}' rules ignored for {named} as they require HTTP mode."),
        );
    }
    if p.forwardfor.is_some() {
        warn(
            scope,
            &format!("'option forwardfor' ignored for {named} as it requires HTTP mode."),
        );
    }
}

/// Tracking on content that nobody waits for.
fn content_tracking(b: &Built, scope: &mut Scope<'_>) {
    let rules = &b.proxy.rules;
    if b.proxy.mode == Mode::Http || rules.inspect_delay_ms > 0 {
        return;
    }
    for rule in &rules.tcp_content.rules {
        if rules::track_needs_content(rule) == Some(true) {
            let (file, line) = rule.place;
            scope.diags.warn(
                Place { file, line },
                &format!(
                    "{} : this 'tcp-request content track-sc' rule reads contents, but without 'tcp-request inspect-delay' nothing waits for them: they may not be there yet.",
                    title(b.kind, &b.proxy.name)
                ),
            );
        }
    }
}

/// The modes of a frontend and of the backends it names must fit. `use_backend` from http to tcp is refused where it is
/// compiled.
fn backends_fit(b: &Built, all: &[Built], scope: &mut Scope<'_>) {
    let get = |ProxyId(i): ProxyId| all.get(usize::from(i));
    let rules = &b.proxy.rules;
    let default = rules.default_backend.and_then(get);
    if let Some(to) = default
        && b.proxy.mode == Mode::Http
        && to.proxy.mode == Mode::Tcp
    {
        let text = format!(
            "http {} '{}' ({}) tries to use incompatible tcp backend '{}' ({}) as its default backend (see 'mode').",
            if b.kind == SectionKind::Listen {
                "proxy"
            } else {
                "frontend"
            },
            b.proxy.name,
            scope.diags.at(b.proxy.place),
            to.proxy.name,
            scope.diags.at(to.proxy.place),
        );
        alert(scope, &text);
    }
    if b.proxy.mode == Mode::Http {
        return;
    }
    // HAProxy begins to parse HTTP in the middle of such a connection.
    let named = rules.use_backend.iter().filter_map(|u| match u.target {
        BackendRef::Static(id) => get(id),
        BackendRef::Dynamic(_) => None,
    });
    let mut said: Vec<&str> = Vec::new();
    for to in named.chain(default) {
        if to.proxy.mode == Mode::Http && !said.contains(&to.proxy.name.as_str()) {
            said.push(&to.proxy.name);
            let what = format!(
                "an http backend ('{}') behind a tcp frontend",
                to.proxy.name
            );
            scope.diags.alert(
                b.proxy.place,
                &format!("{what} is a HAProxy feature that Remora does not support."),
            );
        }
    }
}

/// `sc0_conn_rate` and its like: refused when rules track something in that slot and no table tracked there stores it.
fn slot_readers(scope: &mut Scope<'_>) {
    let reads = std::mem::take(&mut scope.slot_reads);
    for read in &reads {
        let tables: Vec<TableId> = scope
            .tracked
            .iter()
            .filter(|t| t.slot == read.slot)
            .map(|t| t.table)
            .collect();
        if tables.is_empty()
            || tables
                .iter()
                .any(|t| scope.stores(*t, read.data_type, read.index))
        {
            continue;
        }
        let mut names: Vec<&str> = tables
            .iter()
            .filter_map(|t| scope.spec(*t))
            .map(|s| s.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let text = format!(
            "'{}' can never have a value: no table tracked by sc{} ('{}') stores its data type.",
            read.name,
            read.slot,
            names.join("', '")
        );
        scope.diags.alert(read.place, &text);
    }
    scope.slot_reads = reads;
}

/// The best known trap of IPv4 tables: IPv6 clients have no key there and are not tracked.
fn ipv6_into_ipv4(proxies: &[Built], scope: &mut Scope<'_>) {
    for t in std::mem::take(&mut scope.tracked) {
        let ip_table = scope
            .spec(t.table)
            .filter(|s| t.key_is_src && s.key_type == KeyType::Ip)
            .map(|s| s.name.clone());
        let Some(table) = ip_table else { continue };
        let listener = t
            .proxy
            .and_then(|ProxyId(i)| proxies.get(usize::from(i)))
            .into_iter()
            .flat_map(|b| &b.proxy.binds)
            .find(|bind| match &bind.address {
                Address::Ip(a) => a.is_ipv6(),
                _ => false,
            });
        if let Some(bind) = listener {
            let text = format!(
                "table '{table}' has keys of type 'ip': clients that connect to '{}' by IPv6 have none and are not tracked; 'type ipv6' holds both families.",
                bind.text
            );
            scope.diags.notice(t.place, &text);
        }
    }
}
