//! From the compiled configuration to the state that all threads share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use remora_config::plan::{Mode, Plan, Proxy, Server};
use remora_core::rule::hits::RuleHits;
use remora_core::table::{Lineage, Lineages, Table, TableSpec};
use remora_core::time::Now;
use remora_core::world::{ProcessState, ProxyState, ServerState, World};

/// A new life of this node, or the one to continue.
pub(super) fn lineages(before: Option<Lineage>) -> Arc<Lineages> {
    // Zero is what fields without a lineage hold.
    let own = before.unwrap_or_else(|| Lineage(rand::random::<u64>().max(1)));
    Arc::new(Lineages::new(own))
}

/// Empty tables, zero counters, servers as configured. `seed`: what the hash of a table of that name was seeded with in the
/// process before.
pub(super) fn build(
    plan: &Plan,
    pid: u32,
    now: Now,
    lineages: &Arc<Lineages>,
    seed: impl Fn(&str) -> Option<u64>,
) -> World {
    let mut proxies: Box<[ProxyState]> = plan.proxies.iter().map(proxy).collect();
    let mut rules = 0;
    for p in &mut proxies {
        p.rules.number(&mut rules);
    }
    World {
        tables: plan
            .tables
            .iter()
            .map(|spec| {
                let seed = seed(&spec.name).unwrap_or_else(rand::random);
                table(plan, spec, lineages, seed)
            })
            .collect(),
        proxies,
        proc_vars: Default::default(),
        process: ProcessState {
            pid,
            hostname: plan.global.hostname.clone(),
            nbthread: plan.global.nbthread,
            start_ms: now.mono_ms,
            start_wall_us: now.wall_us,
            maxconn: AtomicU32::new(plan.global.maxconn),
            http_err_codes: plan.global.http_err_codes.clone(),
            http_fail_codes: plan.global.http_fail_codes.clone(),
            stick_counters: plan.global.stick_counters,
            rule_hits: RuleHits::new(plan.global.nbthread, rules),
            local_addrs: local_addresses(),
            ..ProcessState::default()
        },
    }
}

/// Shared with other nodes if its `peers` section is in use.
fn table(plan: &Plan, spec: &TableSpec, lineages: &Arc<Lineages>, seed: u64) -> Table {
    let section = spec.peers.and_then(|at| plan.peers.get(usize::from(at)));
    if section.is_some_and(|section| !section.disabled) {
        Table::new_replicated(spec.clone(), seed, Arc::clone(lineages))
    } else {
        Table::new(spec.clone(), seed)
    }
}

fn proxy(p: &Proxy) -> ProxyState {
    ProxyState {
        name: p.name.clone(),
        id: p.id,
        is_frontend: p.is_frontend,
        is_backend: p.is_backend,
        mode_http: p.mode == Mode::Http,
        table: p.table,
        rules: p.rules.clone(),
        error_pages: p.error_pages.clone(),
        front: Default::default(),
        back: Default::default(),
        servers: p.servers.iter().map(server).collect(),
        binds: p
            .binds
            .iter()
            .map(|b| b.name.clone().unwrap_or_default())
            .collect(),
        bind_conns: p.binds.iter().map(|_| AtomicU32::new(0)).collect(),
        maxconn: AtomicU32::new(p.maxconn),
        fullconn: p.fullconn,
        allbackups: p.options.allbackups,
    }
}

fn server(s: &Server) -> ServerState {
    let state = ServerState {
        name: s.name.clone(),
        id: s.id,
        weight_initial: s.weight,
        backup: s.backup,
        maxconn: AtomicU32::new(s.maxconn),
        maxqueue: s.maxqueue,
        stats: Default::default(),
    };
    state.stats.weight.store(s.weight, Relaxed);
    // "disabled" is maintenance asked for by the configuration; the CLI lifts it like its own.
    state.stats.admin.store(u32::from(s.disabled), Relaxed);
    state
}

/// Addresses of this host's interfaces, from what the kernel shows under `/proc/net`. Empty where that is not there.
fn local_addresses() -> Vec<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut all: Vec<IpAddr> = v4_of_fib_trie(&read("/proc/net/fib_trie"));
    all.extend(
        read("/proc/net/if_inet6")
            .lines()
            .filter_map(|line| u128::from_str_radix(line.split_whitespace().next()?, 16).ok())
            .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    );
    all
}

/// In the routing trie a local address is a leaf `|-- ADDR` followed by `/32 host LOCAL`.
fn v4_of_fib_trie(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in text.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            leaf = address.trim().parse().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = leaf.map(IpAddr::V4)
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_the_host_leaves() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                    +-- 127.0.0.0/8 2 0 2\n           |-- 127.0.0.1\n              /32 host LOCAL\n        \
                    |-- 127.255.255.255\n           /32 link BROADCAST\nLocal:\n     |-- 127.0.0.1\n        \
                    /32 host LOCAL\n     |-- 192.0.2.7\n        /32 host LOCAL\n";
        assert_eq!(
            v4_of_fib_trie(trie),
            ["127.0.0.1", "192.0.2.7"].map(|a| a.parse::<IpAddr>().unwrap())
        );
    }
}
