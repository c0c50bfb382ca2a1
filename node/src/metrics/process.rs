//! Metrics of the process, its tables and its rules.

use std::sync::atomic::Ordering::Relaxed;

use remora_core::table::{Events, ReplicaCounters, Table};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::family::{Each, Family, families};
use super::text::{Labels, Value};
use crate::handoff::frames::Reloads;
use crate::handoff::tables::Learned;
use crate::proxy::clock;
use crate::shared::Shared;

/// The process now.
pub(super) struct Process<'a> {
    shared: &'a Shared,
    now_ms: u64,
    listeners: u64,
    peers: (usize, usize),
    system: System,
}

/// What the kernel says of it; nothing of it inside a `chroot` without `/proc`.
#[derive(Default)]
struct System {
    threads: Option<u64>,
    resident_bytes: Option<u64>,
    files: Option<u64>,
}

impl System {
    fn read() -> System {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        System {
            threads: field("Threads:"),
            resident_bytes: field("VmRSS:").map(|kib| kib * 1024),
            files: open_files(),
        }
    }
}

/// Since Linux 6.2 the size of the directory is the number of its entries; before, it is 0 and they have to be counted.
fn open_files() -> Option<u64> {
    let dir = "/proc/self/fd";
    match std::fs::metadata(dir).ok()?.len() {
        0 => Some(std::fs::read_dir(dir).ok()?.count().saturating_sub(1) as u64),
        n => Some(n),
    }
}

pub(super) fn process(shared: &Shared) -> Vec<(Labels, Process<'_>)> {
    let global = &shared.plan.global;
    let binds = shared.plan.proxies.iter().filter(|p| !p.disabled);
    let listeners = binds.map(|p| p.binds.len()).sum::<usize>()
        + global.stats_sockets.len()
        + global.admin_binds.len();
    let process = Process {
        shared,
        now_ms: clock::read().mono_ms,
        listeners: listeners as u64,
        peers: super::peers::connected(shared),
        system: System::read(),
    };
    vec![(Labels::default(), process)]
}

type ProcessFamily = Family<fn(&Process<'_>) -> Option<Value>, fn(&Process<'_>, Each<'_>)>;

#[rustfmt::skip]
pub(super) static PROCESS: &[ProcessFamily] = families! {
    info "build_info" by "version" "Version of the program." (|_, each| each(crate::VERSION, true.into()));
    gauge "ready" "1 if /readyz says so." (|p| Some(p.shared.not_ready().is_empty().into()));
    gauge "stopping" "1 while a soft stop is in progress." (|p| Some(p.shared.world.process.stopping.load(Relaxed).into()));
    gauge "start_time_seconds" "When the process started, seconds since 1970." (|p| Some((p.shared.world.process.start_wall_us as f64 / 1e6).into()));
    gauge "uptime_seconds" "Seconds since then." (|p| Some((p.now_ms.saturating_sub(p.shared.world.process.start_ms) / 1000).into()));
    gauge "nbthread" "Worker threads (nbthread)." (|p| Some(u64::from(p.shared.world.process.nbthread).into()));
    gauge "threads" "All threads." (|p| p.system.threads.map(Value::Int));
    counter "cpu_seconds_total" "CPU time of all threads, user and system." (|_| {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        Some((used.tv_sec as f64 + used.tv_nsec as f64 / 1e9).into())
    });
    gauge "resident_memory_bytes" "Memory that is in use and not swapped out." (|p| p.system.resident_bytes.map(Value::Int));
    gauge "open_fds" "Open descriptors." (|p| p.system.files.map(Value::Int));
    gauge "max_fds" "Limit of open descriptors." (|_| getrlimit(Resource::Nofile).current.map(Value::Int));
    gauge "max_connections" "Limit of connections (maxconn)." (|p| Some(p.shared.world.process.maxconn.load(Relaxed).into()));
    gauge "hard_max_connections" "Limit of connections at start." (|p| Some(p.shared.plan.global.maxconn.into()));
    gauge "current_connections" "Client connections now." (|p| Some(p.shared.world.process.curr_conns.load(Relaxed).into()));
    counter "connections_total" "Client connections." (|p| Some(p.shared.world.process.cum_conns.load(Relaxed).into()));
    counter "connections_limited_total" "Times max_connections was reached." (|p| Some(p.shared.world.process.maxconn_reached.load(Relaxed).into()));
    counter "requests_total" "Requests." (|p| Some(p.shared.world.process.cum_reqs.load(Relaxed).into()));
    gauge "current_connection_rate" "Connections over the last second." (|p| Some(p.shared.world.process.conn_rate.rate(p.now_ms).into()));
    gauge "max_connection_rate" "Highest number of connections per second." (|p| Some(p.shared.world.process.conn_rate.rate(p.now_ms).max(p.shared.peaks.conn_rate()).into()));
    gauge "current_session_rate" "Sessions over the last second." (|p| Some(p.shared.world.process.sess_rate.rate(p.now_ms).into()));
    gauge "max_session_rate" "Highest number of sessions per second." (|p| Some(p.shared.world.process.sess_rate.rate(p.now_ms).max(p.shared.peaks.sess_rate()).into()));
    gauge "listeners" "Listening addresses." (|p| Some(p.listeners.into()));
    gauge "jobs" "Connections and listeners." (|p| Some((u64::from(p.shared.world.process.curr_conns.load(Relaxed)) + p.listeners).into()));
    gauge "connected_peers" "Peers with a session from or to this node." (|p| Some(p.peers.0.into()));
    gauge "active_peers" "Peers that the session of this node is up to." (|p| Some(p.peers.1.into()));
    counter "lost_messages_total" "Messages lost because standard error was not read." (|_| Some(crate::messages::lost().into()));
    counter "dropped_logs_total" "Log lines lost." (|p| Some((p.shared.world.process.dropped_logs.load(Relaxed) + p.shared.logs.lost()).into()));
    counter "bytes_out_total" "Bytes sent." (|p| Some(p.shared.world.process.bytes_out.load(Relaxed).into()));
    counter "spliced_bytes_out_total" "Bytes sent through a kernel pipe." (|p| Some(p.shared.world.process.spliced_bytes_out.load(Relaxed).into()));
};

/// How processes follow each other.
pub(super) struct Succession<'a> {
    shared: &'a Shared,
    /// What the supervisor has said, if there is one.
    reloads: Option<Reloads>,
    /// How this process took over, and for how many milliseconds nobody accepted.
    taken: Option<(Learned, u64)>,
}

pub(super) fn succession(shared: &Shared) -> Vec<(Labels, Succession<'_>)> {
    let succession = Succession {
        shared,
        reloads: shared.reloads.lock().clone(),
        taken: shared.heritage.took_over(),
    };
    vec![(Labels::default(), succession)]
}

type SuccessionFamily = Family<fn(&Succession<'_>) -> Option<Value>, fn(&Succession<'_>, Each<'_>)>;

fn seconds(ms: u64) -> Value {
    Value::from(ms as f64 / 1e3)
}

#[rustfmt::skip]
pub(super) static SUCCESSION: &[SuccessionFamily] = families! {
    counter "reloads_total" by "outcome" "Reloads; one that failed has changed nothing. Without a supervisor (-W): no sample, as with the next two." (|s, each| {
        if let Some(reloads) = &s.reloads {
            each("ok", u64::from(reloads.done).into());
            each("failed", u64::from(reloads.failed).into());
        }
    });
    gauge "last_reload_ok" "1 unless the last reload failed." (|s| s.reloads.as_ref().map(|r| r.fault.is_none().into()));
    gauge "last_reload_duration_seconds" "How long the last reload took, from its beginning to its outcome; none yet: no sample." (|s| s.reloads.as_ref().filter(|r| r.took_ms > 0).map(|r| seconds(r.took_ms.into())));
    counter "handoffs_total" by "outcome" "Times a process took over tables, counters and sockets from the one before it, or had begun to." (|s, each| {
        let p = &s.shared.world.process;
        each("ok", p.handoffs_done.load(Relaxed).into());
        each("failed", p.handoffs_broken.load(Relaxed).into());
    });
    gauge "handoff_duration_seconds" "How long it took until this process had been shown all entries of the one before; it follows none: no sample, as with the next two." (|s| s.taken.map(|(learned, _)| seconds(learned.ms as u64)));
    gauge "handoff_entries" "Entries it was shown, each time they were." (|s| s.taken.map(|(learned, _)| learned.entries.into()));
    gauge "handoff_accept_gap_seconds" "For how long nobody accepted; connections waited in the kernel's queue." (|s| s.taken.map(|(_, gap_ms)| seconds(gap_ms)));
};

/// A table now.
pub(super) struct Stick<'a> {
    table: &'a Table,
    events: Events,
    /// Of a table that nodes share.
    replica: Option<ReplicaCounters>,
    now_ms: u64,
}

pub(super) fn tables(shared: &Shared) -> Vec<(Labels, Stick<'_>)> {
    let now_ms = clock::read().mono_ms;
    let tables = shared.world.tables.iter().map(|table| {
        let spec = table.spec();
        let labels = Labels::new(&[("name", &spec.name), ("type", spec.key_type.name())]);
        let events = table.events();
        let stick = Stick {
            table,
            events,
            replica: table.replica().map(|r| r.counters()),
            now_ms,
        };
        (labels, stick)
    });
    tables.collect()
}

type TableFamily = Family<fn(&Stick<'_>) -> Option<Value>, fn(&Stick<'_>, Each<'_>)>;

#[rustfmt::skip]
pub(super) static TABLE: &[TableFamily] = families! {
    gauge "size" "Most entries it may hold." (|t| Some(t.table.spec().size.into()));
    gauge "used" "Entries now." (|t| Some(t.table.used(t.now_ms).into()));
    gauge "memory_bytes" "Memory of its entries and index." (|t| Some(t.table.memory_bytes().into()));
    counter "expirations_total" "Entries whose time was up." (|t| Some(t.events.expirations.into()));
    counter "evictions_total" "Entries that had to go before their time because the table was full." (|t| Some(t.events.evictions.into()));
    counter "refusals_total" "Keys that were not counted because the table was full and nothing could go." (|t| Some(t.events.refusals.into()));
    gauge "tombstones" "Removed entries that are remembered for the sake of peers." (|t| t.replica.map(|r| r.tombstones.into()));
    counter "edicts_issued_total" "Changes made by hand here that hold for the whole cluster." (|t| t.replica.map(|r| r.edicts_issued.into()));
    counter "edicts_applied_total" "Such changes that came from peers." (|t| t.replica.map(|r| r.edicts_applied.into()));
    counter "edicts_dropped_total" "Tombstones that had to make room before everybody knew of them." (|t| t.replica.map(|r| r.edicts_dropped.into()));
    counter "shares_adopted_total" "Counts of this node that were lost here and came back from a peer." (|t| t.replica.map(|r| r.adopted.into()));
    counter "shares_kept_back_total" "Counts of peers that wait for what those had counted before and forgot: many, if a peer's table is too small for its keys." (|t| t.replica.map(|r| r.rows_kept_back.into()));
    counter "releases_dropped_total" "Entries that went right after their last connection ended, before a peer was told: it counts that connection until its session breaks." (|t| t.replica.map(|r| r.releases_dropped.into()));
    counter "stamps_refused_total" "Changes that came from more than a year ahead." (|t| t.replica.map(|r| r.stamps_refused.into()));
    counter "cells_forgotten_total" "Shares of nodes that are gone, forgotten because nothing was left to be read of them." (|t| t.replica.map(|r| r.cells_forgotten.into()));
    counter "lineages_refused_total" "Lives of nodes for which there was no place." (|t| t.replica.map(|r| r.lineages_refused.into()));
};

/// A rule's number.
pub(super) struct Counted<'a> {
    shared: &'a Shared,
    number: u32,
}

pub(super) fn rules(shared: &Shared) -> Vec<(Labels, Counted<'_>)> {
    let mut all = Vec::new();
    for (p, plan) in shared.world.proxies.iter().zip(&shared.plan.proxies) {
        if plan.disabled {
            continue;
        }
        for (set, rules) in p.rules.sets() {
            for rule in &rules.rules {
                let (file, line) = rule.place;
                let file = shared.plan.files.get(usize::from(file));
                let labels = Labels::new(&[
                    ("proxy", &p.name),
                    ("ruleset", set),
                    ("action", &rule.action.name()),
                    ("file", file.map_or("", String::as_str)),
                    ("line", &line.to_string()),
                ]);
                let number = rule.number;
                all.push((labels, Counted { shared, number }));
            }
        }
    }
    all
}

type RuleFamily = Family<fn(&Counted<'_>) -> Option<Value>, fn(&Counted<'_>, Each<'_>)>;

#[rustfmt::skip]
pub(super) static RULE: &[RuleFamily] = families! {
    counter "matches_total" "Times the rule's condition held and its action ran." (|r| Some(r.shared.world.process.rule_hits.of(r.number).into()));
};
