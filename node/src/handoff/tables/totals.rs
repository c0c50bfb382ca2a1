//! Counters, so that monitoring never sees a total go back, and what was set at run time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use remora_config::plan::Plan;
use remora_core::stats::{BackStats, FrontStats, ServerStats};
use remora_core::world::{ProcessState, ProxyState, World};

use crate::handoff::frames::tables::{Setting, Total};

/// Each counter has a fixed place; new ones go to the end of their list.
fn front(s: &FrontStats) -> Vec<&AtomicU64> {
    let mut all = vec![
        &s.stot,
        &s.bin,
        &s.bout,
        &s.dreq,
        &s.dresp,
        &s.ereq,
        &s.dcon,
        &s.dses,
        &s.conn_tot,
        &s.req_tot,
        &s.intercepted,
    ];
    all.extend(&s.hrsp);
    all
}

fn back(s: &BackStats) -> Vec<&AtomicU64> {
    let mut all = vec![
        &s.stot,
        &s.bin,
        &s.bout,
        &s.dreq,
        &s.dresp,
        &s.econ,
        &s.eresp,
        &s.wretr,
        &s.wredis,
        &s.lbtot,
        &s.cli_abrt,
        &s.srv_abrt,
        &s.req_tot,
        &s.connect,
        &s.reuse,
    ];
    all.extend(&s.hrsp);
    all
}

fn server(s: &ServerStats) -> Vec<&AtomicU64> {
    let mut all = vec![
        &s.stot,
        &s.bin,
        &s.bout,
        &s.dresp,
        &s.econ,
        &s.eresp,
        &s.wretr,
        &s.wredis,
        &s.lbtot,
        &s.cli_abrt,
        &s.srv_abrt,
        &s.req_tot,
        &s.connect,
        &s.reuse,
    ];
    all.extend(&s.hrsp);
    all
}

fn process(s: &ProcessState) -> Vec<&AtomicU64> {
    vec![
        &s.cum_conns,
        &s.cum_reqs,
        &s.maxconn_reached,
        &s.bytes_out,
        &s.spliced_bytes_out,
        &s.dropped_logs,
    ]
}

/// Shows every list of counters with its name.
fn each<'w>(world: &'w World, mut f: impl FnMut(String, Vec<&'w AtomicU64>)) {
    f(String::from("process"), process(&world.process));
    for p in &world.proxies {
        if p.is_frontend {
            f(format!("frontend {}", p.name), front(&p.front));
        }
        if p.is_backend {
            f(format!("backend {}", p.name), back(&p.back));
            for s in &p.servers {
                f(format!("server {}/{}", p.name, s.name), server(&s.stats));
            }
        }
    }
}

/// Counters as last told.
#[derive(Default)]
pub struct Told(BTreeMap<String, Vec<u64>>);

impl Told {
    /// What was added since the last call.
    pub fn news(&mut self, world: &World) -> Vec<Total> {
        let mut news = Vec::new();
        each(world, |name, counters| {
            let now: Vec<u64> = counters.iter().map(|c| c.load(Relaxed)).collect();
            let before = self.0.get(&name);
            if before == Some(&now) {
                return;
            }
            // A counter that was cleared by hand adds what it shows.
            let added = now.iter().enumerate().map(|(i, now)| {
                let before = before.and_then(|all| all.get(i)).copied().unwrap_or(0);
                now.checked_sub(before).unwrap_or(*now)
            });
            let values = added.collect();
            self.0.insert(name.clone(), now);
            news.push(Total { name, values });
        });
        news
    }
}

impl Told {
    /// This was not told after all.
    pub fn take_back(&mut self, total: &Total) {
        if let Some(told) = self.0.get_mut(&total.name) {
            for (told, value) in told.iter_mut().zip(&total.values) {
                *told = told.saturating_sub(*value);
            }
        }
    }
}

/// Adds what another process has counted. Proxies and servers that are not here any more are left out.
pub fn add(world: &World, totals: &[Total]) {
    let by_name: BTreeMap<&str, &[u64]> = totals
        .iter()
        .map(|total| (total.name.as_str(), total.values.as_slice()))
        .collect();
    if by_name.is_empty() {
        return;
    }
    each(world, |name, counters| {
        let Some(values) = by_name.get(name.as_str()) else {
            return;
        };
        for (counter, value) in counters.into_iter().zip(*values) {
            counter.fetch_add(*value, Relaxed);
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

/// Sets what another process had set at run time.
pub fn set(world: &World, settings: &[Setting]) {
    let put = |to: &AtomicU32, value: Option<u32>| {
        if let Some(value) = value {
            to.store(value, Relaxed);
        }
    };
    for setting in settings {
        if setting.proxy.is_empty() {
            put(&world.process.maxconn, setting.maxconn);
            continue;
        }
        let named = |p: &&ProxyState| p.name == setting.proxy;
        for p in world.proxies.iter().filter(named) {
            if setting.server.is_empty() {
                put(&p.maxconn, setting.maxconn);
                continue;
            }
            for s in p.servers.iter().filter(|s| s.name == setting.server) {
                put(&s.stats.admin, setting.admin);
                put(&s.stats.weight, setting.weight);
                put(&s.maxconn, setting.maxconn);
            }
        }
    }
}
