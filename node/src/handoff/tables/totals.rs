//! Counters, so that monitoring never sees a total go back, and what was set at run time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use remora_config::plan::Plan;
use remora_core::rule::hits::RuleHits;
use remora_core::table::{Events, Table};
use remora_core::world::{ProxyState, World};
use tracing::info;
use twox_hash::XxHash64;

use crate::admin::MAINT;
use crate::handoff::frames::tables::{Setting, Total};
use crate::peers;
use crate::shared::Shared;

/// Counters that belong together. Each has a fixed place in its list.
enum Counters<'w> {
    Many(Vec<&'w AtomicU64>),
    Rule(u32),
    Table(&'w Table),
    /// Of what nodes share.
    Shared(Vec<&'w AtomicU64>),
}

impl Counters<'_> {
    fn read(&self, hits: &RuleHits) -> Vec<u64> {
        match self {
            Counters::Many(all) | Counters::Shared(all) => {
                all.iter().map(|c| c.load(Relaxed)).collect()
            }
            Counters::Rule(number) => vec![hits.of(*number)],
            Counters::Table(table) => {
                let events = table.events();
                vec![events.refusals, events.evictions, events.expirations]
            }
        }
    }

    fn add(&self, hits: &RuleHits, values: &[u64]) {
        match self {
            Counters::Many(all) | Counters::Shared(all) => {
                for (counter, value) in all.iter().zip(values) {
                    counter.fetch_add(*value, Relaxed);
                }
            }
            Counters::Rule(number) => {
                let matches = values.first().copied().unwrap_or(0);
                hits.add(*number, matches);
            }
            Counters::Table(table) => {
                if let [refusals, evictions, expirations, ..] = *values {
                    table.add_events(Events {
                        refusals,
                        evictions,
                        expirations,
                    });
                }
            }
        }
    }
}

/// Shows every list of counters, with what makes its name; always in the same order.
fn each<'w>(shared: &'w Shared, mut f: impl FnMut(&dyn Fn() -> String, Counters<'w>)) {
    let world = &shared.world;
    let process = Counters::Many(world.process.totals().collect());
    f(&|| String::from("process"), process);
    for p in &world.proxies {
        if p.is_frontend {
            let all = Counters::Many(p.front.totals().collect());
            f(&|| format!("frontend {}", p.name), all);
        }
        if p.is_backend {
            let all = Counters::Many(p.back.totals().collect());
            f(&|| format!("backend {}", p.name), all);
            for s in &p.servers {
                let all = Counters::Many(s.stats.totals().collect());
                f(&|| format!("server {}/{}", p.name, s.name), all);
            }
        }
        for (set, rules) in p.rules.sets() {
            for rule in &rules.rules {
                // As the series of the metrics page are told apart; its parts may be longer than a frame.
                let name = || {
                    let (file, line) = rule.place;
                    let file = shared.plan.files.get(usize::from(file));
                    let whole = format!(
                        "{}\n{set}\n{}\n{}\n{line}",
                        p.name,
                        rule.action.name(),
                        file.map_or("", String::as_str)
                    );
                    format!("rule {:016x}", XxHash64::oneshot(0, whole.as_bytes()))
                };
                f(&name, Counters::Rule(rule.number));
            }
        }
    }
    for table in &world.tables {
        let name = || format!("table {}", table.spec().name);
        f(&name, Counters::Table(table));
        if let Some(replica) = table.replica() {
            let name = || format!("replica {}", table.spec().name);
            f(&name, Counters::Shared(replica.totals()));
        }
    }
    if let Some(replica) = world.tables.iter().find_map(Table::replica) {
        let refused = vec![replica.lineages().refused_total()];
        f(&|| String::from("lineages"), Counters::Shared(refused));
    }
}

/// Counters as last told, in the order of [`each`].
#[derive(Default)]
pub struct Told {
    values: Vec<Vec<u64>>,
    /// Those of `peers` sections.
    peers: peers::Totals,
    /// This process serves no more: what happens to its tables concerns nobody.
    draining: bool,
}

impl Told {
    /// What was added since the last call, of at most `most` lists.
    pub fn news(&mut self, shared: &Shared, most: usize) -> Vec<Total> {
        let mut news = Vec::new();
        let mut at = 0;
        each(shared, |name, counters| {
            if self.values.len() == at {
                self.values.push(Vec::new());
            }
            let before = self.values.get_mut(at);
            at += 1;
            let of_tables = matches!(counters, Counters::Table(_) | Counters::Shared(_));
            let idle = self.draining && of_tables;
            let Some(before) = before.filter(|_| !idle && news.len() < most) else {
                return;
            };
            let now = counters.read(&shared.world.process.rule_hits);
            if let Some(values) = added(before, now) {
                let name = name();
                news.push(Total { name, values });
            }
        });
        // The hubs of a process that drains are silent.
        if !self.draining {
            for (name, now) in peers::totals(shared) {
                let before = self.peers.entry(name.clone()).or_default();
                if let Some(values) = added(before, now) {
                    news.push(Total { name, values });
                }
            }
        }
        news
    }

    /// From now on this process drains.
    pub fn drains(&mut self) {
        self.draining = true;
    }
}

/// What has come since `before`, which becomes `now`; `None`: nothing.
fn added(before: &mut Vec<u64>, now: Vec<u64>) -> Option<Vec<u64>> {
    if *before == now || before.is_empty() && now.iter().all(|n| *n == 0) {
        return None;
    }
    // A counter that was cleared by hand adds what it shows.
    let added = now.iter().enumerate().map(|(i, now)| {
        let before = before.get(i).copied().unwrap_or(0);
        now.checked_sub(before).unwrap_or(*now)
    });
    let added = added.collect();
    *before = now;
    Some(added)
}

/// Adds what another process has counted. What is not configured here any more is left out.
pub fn add(shared: &Shared, totals: &[Total]) {
    let by_name: BTreeMap<&str, &[u64]> = totals
        .iter()
        .map(|total| (total.name.as_str(), total.values.as_slice()))
        .collect();
    if by_name.is_empty() {
        return;
    }
    let of_peers = totals.iter().filter(|total| {
        let mut kinds = ["door ", "hub ", "peer "].into_iter();
        kinds.any(|kind| total.name.starts_with(kind))
    });
    let of_peers: peers::Totals = of_peers
        .map(|total| (total.name.clone(), total.values.clone()))
        .collect();
    if !of_peers.is_empty() {
        peers::inherit_totals(shared, &of_peers);
    }
    each(shared, |name, counters| {
        if let Some(values) = by_name.get(name().as_str()) {
            counters.add(&shared.world.process.rule_hits, values);
        }
    });
}

/// What differs from the configuration.
pub fn settings(world: &World, plan: &Plan) -> Vec<Setting> {
    let differs = |now: &AtomicU32, configured: u32| {
        let now = now.load(Relaxed);
        (now != configured).then_some(now)
    };
    let mut all = vec![Setting {
        maxconn: differs(&world.process.maxconn, plan.global.maxconn),
        ..Setting::default()
    }];
    for (p, configured) in world.proxies.iter().zip(&plan.proxies) {
        all.push(Setting {
            proxy: p.name.clone(),
            maxconn: differs(&p.maxconn, configured.maxconn),
            ..Setting::default()
        });
        for (s, configured) in p.servers.iter().zip(&configured.servers) {
            all.push(Setting {
                proxy: p.name.clone(),
                server: s.name.clone(),
                admin: differs(&s.stats.admin, u32::from(configured.disabled)),
                weight: differs(&s.stats.weight, configured.weight),
                maxconn: differs(&s.maxconn, configured.maxconn),
            });
        }
    }
    all.retain(|s| s.admin.is_some() || s.weight.is_some() || s.maxconn.is_some());
    all
}

/// Sets what another process had set at run time, and says where that differs from the configuration: whoever has just
/// edited a value that stays as it is would look for the reason.
pub fn set(world: &World, settings: &[Setting]) {
    let mut kept = Vec::new();
    for setting in settings {
        let mut put = |to: &AtomicU32, what: &str, value: Option<u32>| {
            let Some(value) = value else { return };
            let configured = to.swap(value, Relaxed);
            if configured != value {
                kept.push(override_line(setting, what, value, configured));
            }
        };
        if setting.proxy.is_empty() {
            put(&world.process.maxconn, "maxconn", setting.maxconn);
            continue;
        }
        let named = |p: &&ProxyState| p.name == setting.proxy;
        for p in world.proxies.iter().filter(named) {
            if setting.server.is_empty() {
                put(&p.maxconn, "maxconn", setting.maxconn);
                continue;
            }
            for s in p.servers.iter().filter(|s| s.name == setting.server) {
                put(&s.stats.admin, "state", setting.admin);
                put(&s.stats.weight, "weight", setting.weight);
                put(&s.maxconn, "maxconn", setting.maxconn);
            }
        }
    }
    if kept.is_empty() {
        return;
    }
    let more = kept.len().saturating_sub(OVERRIDES_NAMED);
    kept.truncate(OVERRIDES_NAMED);
    let mut text = kept.join(", ");
    if more > 0 {
        text.push_str(&format!(", and {more} more"));
    }
    info!("set at run time, and so kept: {text}.");
}

fn override_line(setting: &Setting, what: &str, value: u32, configured: u32) -> String {
    let of = match (setting.proxy.as_str(), setting.server.as_str()) {
        ("", _) => "the process".to_owned(),
        (proxy, "") => proxy.to_owned(),
        (proxy, server) => format!("{proxy}/{server}"),
    };
    if what == "state" {
        let state = match value {
            0 => "ready",
            v if v & MAINT != 0 => "maint",
            _ => "drain",
        };
        return format!("state {state} of {of}");
    }
    format!("{what} {value} of {of} (configured: {configured})")
}

/// Of the values that override the configuration, so many are named.
const OVERRIDES_NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_counters_add_up_whatever_their_length() {
        let hits = RuleHits::default();
        let [a, b] = [AtomicU64::new(1), AtomicU64::new(2)];
        let counters = Counters::Many(vec![&a, &b]);
        // One side knows fewer counters than the other.
        counters.add(&hits, &[5]);
        counters.add(&hits, &[1, 1, 9]);
        assert_eq!(counters.read(&hits), [7, 3]);
    }
}
