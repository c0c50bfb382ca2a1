//! Load, calm, reloads, the end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::clients::{self, LONG};
use super::memory::Watcher;
use super::origin::Origin;
use super::outcome::{Outcome, Spans};
use super::processor::Waits;
use super::site::{self, Site, softly};
use super::tally::{LONG as LONG_SPAN, Sort};
use super::{Plan, compare};
use crate::locate::Kind;
use crate::wait::{pace, until_within};

pub(super) fn run(plan: &Plan) -> Outcome {
    let origin = Origin::start();
    let (mut sites, _ports) = site::start(plan, origin.addr());
    if plan.entries > 0 {
        sites[0].fill(plan.entries);
    }
    for site in &sites {
        let filled = until_within(LEARN, || {
            (site.used() >= u64::from(plan.entries)).then_some(())
        });
        assert!(filled.is_some(), "{} has not all entries", site.name());
    }
    let bases: Vec<compare::Base> = sites.iter().map(compare::totals).collect();

    let begun = Instant::now();
    let kernel = super::kernel::Counts::now();
    let watcher = Watcher::of(sites[0].proxy.pid());
    let (mut long, mut short) = (Vec::new(), Vec::new());
    for site in &sites {
        long.extend(clients::start_long(plan, site.addr(), &site.tally));
    }
    for site in &sites {
        short.extend(clients::start(plan, site.addr(), &site.tally));
    }
    let mut seen = Seen::default();
    calm(plan, &sites, &mut seen);
    watcher.reloads();
    for round in 0..plan.rounds {
        let at = round % sites.len();
        reload(plan, &mut sites, at, &mut seen);
    }
    // The last process has to have answered long enough for its faults to show.
    pace(AFTERWARDS);
    for site in &sites {
        site.tally.stop.store(true, Relaxed);
    }
    for client in short {
        client.join().expect("no client panics");
    }
    let took = begun.elapsed();
    for site in &sites {
        seen.look_at_gauge(plan, site, sites.len());
        site.tally.stop_long.store(true, Relaxed);
    }
    origin.finish();
    for client in long {
        client.join().expect("no client panics");
    }
    let stuck = sites.iter().filter(|site| !site.settles()).count();
    let differences = compare::all(plan, &sites, &bases, &origin);
    let memory = watcher.memory();
    seen.outcome(
        &sites,
        Outcome {
            reloads: plan.rounds,
            took,
            stuck,
            differences,
            memory,
            kernel: super::kernel::Counts::now().since(&kernel),
            ..Outcome::default()
        },
    )
}

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    failed: usize,
    ready: Vec<Duration>,
    starved: Vec<Duration>,
    gap: Vec<Duration>,
    calm_gap: Vec<Duration>,
    blind_for: Vec<Duration>,
    gauges: usize,
    wrong_gauges: usize,
}

fn calm(plan: &Plan, sites: &[Site], seen: &mut Seen) {
    let until = Instant::now() + plan.calm;
    for site in sites {
        site.tally.worst();
    }
    while Instant::now() < until {
        pace(STRETCH);
        seen.calm_gap
            .extend(sites.iter().map(|site| site.tally.worst()));
    }
}

fn reload(plan: &Plan, sites: &mut [Site], at: usize, seen: &mut Seen) {
    let nodes = sites.len();
    let site = &mut sites[at];
    let tally = std::sync::Arc::clone(&site.tally);
    tally.worst();
    let said = site.proxy.stderr().len();
    let waits = Waits::of(site.proxy.pid());
    let (round, mut signal) = site.reload();
    let mut answer = None;
    let patience = match plan.kind {
        Kind::Remora => RELOAD,
        Kind::Haproxy => RELOAD_HAPROXY,
    };
    for _ in 0..SIGNALS {
        answer = tally.first_answer(round, patience);
        if answer.is_some() {
            break;
        }
        // HAProxy's master misses signals while it executes itself; so that this does not end everything, once more.
        seen.failed += 1;
        signal = site.signal();
    }
    let Some(when) = answer else { return };
    let ready = when.saturating_duration_since(signal);
    let waited = waits.since();
    seen.starved.push(waited.longest());
    if ready >= LONG_SPAN && plan.kind == Kind::Remora {
        let text = site.proxy.stderr();
        let since = text.get(said..).unwrap_or_default();
        let lines: Vec<&str> = since.lines().take(LINES_MAX).collect();
        let text = lines.join("\n    ");
        tally.delayed(format!(
            "reload {round} took {ready:.1?}; waited for a processor: {waited}\n    {text}"
        ));
    }
    seen.ready.push(ready);
    seen.look_at_gauge(plan, site, nodes);
    pace(plan.pause.max(SWITCH));
    seen.gap.push(tally.worst());
    if let Some(last) = tally.blind_at() {
        seen.blind_for.push(last.saturating_duration_since(signal));
    }
}

impl Seen {
    /// The connections that stay must be counted at every moment.
    fn look_at_gauge(&mut self, plan: &Plan, site: &Site, nodes: usize) {
        if !plan.sorts.contains(Sort::Long.key()) {
            return;
        }
        self.gauges += 1;
        let wanted = (LONG * nodes) as i64;
        let address = Sort::Long.address();
        let answer = softly(
            &site.proxy.cli(),
            &format!("show table conns key {address}"),
        );
        let line = answer.as_deref().unwrap_or_default();
        let entry = line.lines().find(|line| line.starts_with("0x"));
        let entry = entry.map(crate::cli::Entry::parse);
        let found = entry.map_or(0, |entry| entry.get("conn_cur"));
        if found != wanted {
            self.wrong_gauges += 1;
            let said = answer.unwrap_or_else(|| "no answer".to_owned());
            site.tally
                .delayed(format!("conn_cur is {found}, not {wanted}: {said}"));
        }
    }

    fn outcome(self, sites: &[Site], outcome: Outcome) -> Outcome {
        let mut faults: BTreeMap<String, u64> = BTreeMap::new();
        let (mut own_tables, mut own_gap) = (Vec::new(), Vec::new());
        let (mut stories, mut delays) = (Vec::new(), Vec::new());
        let (mut requests, mut answers, mut connections, mut blind) = (0, 0, 0, 0);
        for site in sites {
            let tally = &site.tally;
            for ((sort, fault), count) in tally.faults() {
                let what = format!("{} of sort {}", fault.name(), sort.key());
                *faults.entry(what).or_default() += count;
            }
            let told = tally.stories().into_iter();
            stories.extend(told.map(|story| format!("{}: {story}", site.name())));
            let told = tally.delays().into_iter();
            delays.extend(told.map(|what| format!("{}: {what}", site.name())));
            for sort in Sort::ALL {
                let counts = tally.of(sort);
                requests += counts.requests.load(Relaxed);
                answers += counts.answers.load(Relaxed);
                connections += counts.connections.load(Relaxed);
            }
            blind += tally.blind.load(Relaxed);
            for (tables, gap) in site.hand_offs() {
                own_tables.push(Duration::from_millis(tables));
                own_gap.push(Duration::from_millis(gap));
            }
        }
        Outcome {
            failed_reloads: self.failed,
            requests,
            answers,
            connections,
            faults,
            stories,
            delays,
            gauges: self.gauges,
            wrong_gauges: self.wrong_gauges,
            ready: Spans::of(self.ready),
            starved: Spans::of(self.starved),
            gap: Spans::of(self.gap),
            calm_gap: Spans::of(self.calm_gap),
            own_tables: Spans::of(own_tables),
            own_gap: Spans::of(own_gap),
            blind,
            blind_for: Spans::of(self.blind_for),
            ..outcome
        }
    }
}

/// So much of what a node said during a long reload is told.
const LINES_MAX: usize = 30;
/// How long peers may take to learn all entries.
const LEARN: Duration = Duration::from_secs(120);
/// How long a reload may take, and how often it is asked for.
const RELOAD: Duration = Duration::from_secs(60);
const RELOAD_HAPROXY: Duration = Duration::from_secs(10);
const SIGNALS: usize = 5;
/// A stretch of time without a reload that is compared with one around a reload.
const STRETCH: Duration = Duration::from_millis(200);
/// After the first answer: connections that waited are answered, too.
const SWITCH: Duration = Duration::from_millis(20);
const AFTERWARDS: Duration = Duration::from_millis(300);
