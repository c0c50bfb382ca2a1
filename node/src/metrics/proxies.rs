//! Metrics of frontends, backends and servers. Names, labels and meanings are those of HAProxy's exporter wherever it has
//! the same thing, so that a dashboard is taken over by replacing the prefix.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use remora_core::world::{ProxyState, ServerState};

use super::family::{Each, Family, families};
use super::text::{Labels, Value};
use crate::observe::peaks::ProxyRates;
use crate::proxy::clock;
use crate::shared::Shared;

/// A frontend now.
pub(super) struct Front<'a> {
    p: &'a ProxyState,
    peaks: ProxyRates,
    now_ms: u64,
    stopping: bool,
}

/// A backend now.
pub(super) struct Back<'a> {
    p: &'a ProxyState,
    peaks: ProxyRates,
    now_ms: u64,
}

/// A server now.
pub(super) struct Srv<'a> {
    s: &'a ServerState,
    http: bool,
    peak: u32,
    now_ms: u64,
}

/// Proxies that are not disabled, with their positions.
fn enabled(shared: &Shared) -> impl Iterator<Item = (usize, &ProxyState)> {
    let proxies = shared.world.proxies.iter().zip(&shared.plan.proxies);
    proxies
        .enumerate()
        .filter_map(|(i, (state, plan))| (!plan.disabled).then_some((i, state)))
}

pub(super) fn fronts(shared: &Shared) -> Vec<(Labels, Front<'_>)> {
    let now_ms = clock::read().mono_ms;
    let stopping = shared.world.process.stopping.load(Relaxed);
    enabled(shared)
        .filter(|(_, p)| p.is_frontend)
        .map(|(i, p)| {
            let front = Front {
                p,
                peaks: shared.peaks.proxy(i),
                now_ms,
                stopping,
            };
            (Labels::new(&[("proxy", &p.name)]), front)
        })
        .collect()
}

pub(super) fn backs(shared: &Shared) -> Vec<(Labels, Back<'_>)> {
    let now_ms = clock::read().mono_ms;
    enabled(shared)
        .filter(|(_, p)| p.is_backend)
        .map(|(i, p)| {
            let back = Back {
                p,
                peaks: shared.peaks.proxy(i),
                now_ms,
            };
            (Labels::new(&[("proxy", &p.name)]), back)
        })
        .collect()
}

/// Servers; `no_maint`: without those in maintenance.
pub(super) fn servers(shared: &Shared, no_maint: bool) -> Vec<(Labels, Srv<'_>)> {
    let now_ms = clock::read().mono_ms;
    let mut all = Vec::new();
    for (i, p) in enabled(shared).filter(|(_, p)| p.is_backend) {
        for (j, s) in p.servers.iter().enumerate() {
            if no_maint && s.stats.admin.load(Relaxed) & MAINT != 0 {
                continue;
            }
            let srv = Srv {
                s,
                http: p.mode_http,
                peak: shared.peaks.server(i, j),
                now_ms,
            };
            all.push((Labels::new(&[("proxy", &p.name), ("server", &s.name)]), srv));
        }
    }
    all
}

type FrontFamily = Family<fn(&Front<'_>) -> Option<Value>, fn(&Front<'_>, Each<'_>)>;

#[rustfmt::skip]
pub(super) static FRONTEND: &[FrontFamily] = families! {
    gauge "current_sessions" "Connections now." (|f| now(&f.p.front.scur));
    gauge "max_sessions" "Most connections ever at a time." (|f| now(&f.p.front.smax));
    gauge "limit_sessions" "Limit of connections (maxconn)." (|f| now(&f.p.maxconn));
    counter "sessions_total" "Connections that became sessions." (|f| sum(&f.p.front.stot));
    counter "bytes_in_total" "Bytes received from clients." (|f| sum(&f.p.front.bin));
    counter "bytes_out_total" "Bytes sent to clients." (|f| sum(&f.p.front.bout));
    counter "requests_denied_total" "Requests refused by rules." (|f| sum(&f.p.front.dreq));
    counter "responses_denied_total" "Responses refused by rules." (|f| sum(&f.p.front.dresp));
    counter "request_errors_total" "Invalid requests." (|f| sum(&f.p.front.ereq));
    gauge "status" by "state" "State: 1 for the one it is in, 0 for the other." (|f, each| {
        each("DOWN", f.stopping.into());
        each("UP", (!f.stopping).into());
    });
    gauge "max_session_rate" "Highest number of sessions per second." (|f| peak(f.peaks.front_sess, f.p.front.sess_rate.rate(f.now_ms)));
    counter "http_responses_total" by "code" "Responses by class of status." (|f, each| codes(f.p.mode_http, &f.p.front.hrsp, each));
    gauge "http_requests_rate_max" "Highest number of requests per second." (|f| http(f.p, peak(f.peaks.req, f.p.front.req_rate.rate(f.now_ms))));
    counter "http_requests_total" "Requests." (|f| http(f.p, sum(&f.p.front.req_tot)));
    gauge "connections_rate_max" "Highest number of connections per second." (|f| peak(f.peaks.conn, f.p.front.conn_rate.rate(f.now_ms)));
    counter "connections_total" "Connections, refused ones included." (|f| sum(&f.p.front.conn_tot));
    counter "intercepted_requests_total" "Requests answered by the proxy itself." (|f| http(f.p, sum(&f.p.front.intercepted)));
    counter "denied_connections_total" "Connections refused by 'tcp-request connection'." (|f| sum(&f.p.front.dcon));
    counter "denied_sessions_total" "Connections refused by 'tcp-request session'." (|f| sum(&f.p.front.dses));
};

type BackFamily = Family<fn(&Back<'_>) -> Option<Value>, fn(&Back<'_>, Each<'_>)>;

#[rustfmt::skip]
pub(super) static BACKEND: &[BackFamily] = families! {
    gauge "current_queue" "Requests that wait for any server now." (|b| now(&b.p.back.qcur));
    gauge "max_queue" "Most requests that ever waited." (|b| now(&b.p.back.qmax));
    gauge "current_sessions" "Sessions now." (|b| now(&b.p.back.scur));
    gauge "max_sessions" "Most sessions ever at a time." (|b| now(&b.p.back.smax));
    gauge "limit_sessions" "Number of sessions that counts as full (fullconn)." (|b| Some(b.p.fullconn.into()));
    counter "sessions_total" "Sessions." (|b| sum(&b.p.back.stot));
    counter "bytes_in_total" "Bytes received from clients." (|b| sum(&b.p.back.bin));
    counter "bytes_out_total" "Bytes sent to clients." (|b| sum(&b.p.back.bout));
    counter "requests_denied_total" "Requests refused by rules." (|b| sum(&b.p.back.dreq));
    counter "responses_denied_total" "Responses refused by rules." (|b| sum(&b.p.back.dresp));
    counter "connection_errors_total" "Failed connections to servers." (|b| sum(&b.p.back.econ));
    counter "response_errors_total" "Invalid or broken responses." (|b| sum(&b.p.back.eresp));
    counter "retry_warnings_total" "Connections tried again." (|b| sum(&b.p.back.wretr));
    counter "redispatch_warnings_total" "Requests sent to another server after a failure." (|b| sum(&b.p.back.wredis));
    gauge "status" by "state" "State: 1 for the one it is in, 0 for the other. It is UP while any server takes traffic." (|b, each| {
        let up = b.p.servers.is_empty() || b.p.servers.iter().any(ServerState::usable);
        each("DOWN", (!up).into());
        each("UP", up.into());
    });
    gauge "weight" "Sum of the weights of the servers that take traffic." (|b| Some(weight(b.p).into()));
    gauge "active_servers" "Servers that take traffic, backup servers apart." (|b| Some(usable(b.p, false).into()));
    gauge "backup_servers" "Backup servers that would take traffic." (|b| Some(usable(b.p, true).into()));
    counter "loadbalanced_total" "Requests that a server was chosen for." (|b| sum(&b.p.back.lbtot));
    gauge "max_session_rate" "Highest number of sessions per second." (|b| peak(b.peaks.back_sess, b.p.back.sess_rate.rate(b.now_ms)));
    counter "http_responses_total" by "code" "Responses by class of status." (|b, each| codes(b.p.mode_http, &b.p.back.hrsp, each));
    counter "http_requests_total" "Requests." (|b| http(b.p, sum(&b.p.back.req_tot)));
    counter "client_aborts_total" "Transfers that the client broke off." (|b| sum(&b.p.back.cli_abrt));
    counter "server_aborts_total" "Transfers that the server broke off." (|b| sum(&b.p.back.srv_abrt));
    gauge "last_session_seconds" "Seconds since the last session; none yet: no sample." (|b| ago(&b.p.back.last_sess_ms, b.now_ms));
    counter "connection_attempts_total" "Connections opened to servers." (|b| sum(&b.p.back.connect));
    counter "connection_reuses_total" "Requests sent over connections that were open already." (|b| sum(&b.p.back.reuse));
    gauge "uweight" "The same as weight." (|b| Some(weight(b.p).into()));
    gauge "agg_server_status" by "state" "Servers by state." (|b, each| {
        for state in STATES {
            each(state, b.p.servers.iter().filter(|s| server_state(s) == state).count().into());
        }
    });
};

type ServerFamily = Family<fn(&Srv<'_>) -> Option<Value>, fn(&Srv<'_>, Each<'_>)>;

#[rustfmt::skip]
pub(super) static SERVER: &[ServerFamily] = families! {
    gauge "current_queue" "Requests that wait for this server now." (|s| now(&s.s.stats.qcur));
    gauge "max_queue" "Most requests that ever waited." (|s| now(&s.s.stats.qmax));
    gauge "current_sessions" "Requests or TCP sessions in progress." (|s| now(&s.s.stats.scur));
    gauge "max_sessions" "Most ever in progress at a time." (|s| now(&s.s.stats.smax));
    gauge "limit_sessions" "Limit of them (maxconn); unlimited: no sample." (|s| limit(s.s.maxconn.load(Relaxed)));
    counter "sessions_total" "Requests or TCP sessions." (|s| sum(&s.s.stats.stot));
    counter "bytes_in_total" "Bytes sent to the server." (|s| sum(&s.s.stats.bin));
    counter "bytes_out_total" "Bytes received from the server." (|s| sum(&s.s.stats.bout));
    counter "responses_denied_total" "Responses refused by rules." (|s| sum(&s.s.stats.dresp));
    counter "connection_errors_total" "Failed connections." (|s| sum(&s.s.stats.econ));
    counter "response_errors_total" "Invalid or broken responses." (|s| sum(&s.s.stats.eresp));
    counter "retry_warnings_total" "Connections tried again." (|s| sum(&s.s.stats.wretr));
    counter "redispatch_warnings_total" "Requests that left for another server after a failure." (|s| sum(&s.s.stats.wredis));
    gauge "status" by "state" "State: 1 for the one it is in, 0 for the others. Without health checks it is never DOWN." (|s, each| {
        for state in STATES {
            each(state, (server_state(s.s) == state).into());
        }
    });
    gauge "weight" "Weight in effect; 0 while it takes no new traffic." (|s| Some(if s.s.usable() { s.s.stats.weight.load(Relaxed) } else { 0 }.into()));
    gauge "queue_limit" "Limit of its queue (maxqueue); unlimited: no sample." (|s| limit(s.s.maxqueue));
    counter "loadbalanced_total" "Requests that it was chosen for." (|s| sum(&s.s.stats.lbtot));
    gauge "max_session_rate" "Highest number of sessions per second." (|s| peak(s.peak, s.s.stats.sess_rate.rate(s.now_ms)));
    counter "http_responses_total" by "code" "Responses by class of status." (|s, each| codes(s.http, &s.s.stats.hrsp, each));
    counter "http_requests_total" "Requests." (|s| sum(&s.s.stats.req_tot).filter(|_| s.http));
    counter "client_aborts_total" "Transfers that the client broke off." (|s| sum(&s.s.stats.cli_abrt));
    counter "server_aborts_total" "Transfers that the server broke off." (|s| sum(&s.s.stats.srv_abrt));
    gauge "last_session_seconds" "Seconds since the last session; none yet: no sample." (|s| ago(&s.s.stats.last_sess_ms, s.now_ms));
    counter "connection_attempts_total" "Connections opened." (|s| sum(&s.s.stats.connect));
    counter "connection_reuses_total" "Requests sent over connections that were open already." (|s| sum(&s.s.stats.reuse));
    gauge "idle_connections_current" "Idle connections now." (|s| now(&s.s.stats.idle));
    gauge "used_connections_current" "Connections in use now." (|s| now(&s.s.stats.scur));
    gauge "uweight" "Weight as set by the user." (|s| now(&s.s.stats.weight));
};

fn now(n: &AtomicU32) -> Option<Value> {
    Some(n.load(Relaxed).into())
}

fn sum(n: &AtomicU64) -> Option<Value> {
    Some(n.load(Relaxed).into())
}

fn http(p: &ProxyState, value: Option<Value>) -> Option<Value> {
    value.filter(|_| p.mode_http)
}

/// The highest rate; the observer looks once per second, so the current one may be higher.
fn peak(seen: u32, current: u32) -> Option<Value> {
    Some(seen.max(current).into())
}

fn limit(n: u32) -> Option<Value> {
    (n > 0).then(|| n.into())
}

fn ago(then_ms: &AtomicU64, now_ms: u64) -> Option<Value> {
    let then = then_ms.load(Relaxed);
    (then > 0).then(|| (now_ms.saturating_sub(then) / 1000).into())
}

fn codes(http: bool, counts: &[AtomicU64; 6], each: Each<'_>) {
    if http {
        for (class, n) in ["1xx", "2xx", "3xx", "4xx", "5xx", "other"]
            .iter()
            .zip(counts)
        {
            each(class, n.load(Relaxed).into());
        }
    }
}

fn usable(p: &ProxyState, backup: bool) -> usize {
    p.servers
        .iter()
        .filter(|s| s.backup == backup && s.usable())
        .count()
}

/// Backups count only when nothing else is left.
fn weight(p: &ProxyState) -> u32 {
    let backup = usable(p, false) == 0;
    p.servers
        .iter()
        .filter(|s| s.backup == backup && s.usable())
        .map(|s| s.stats.weight.load(Relaxed))
        .sum()
}

fn server_state(s: &ServerState) -> &'static str {
    match s.stats.admin.load(Relaxed) {
        admin if admin & MAINT != 0 => "MAINT",
        admin if admin & DRAIN != 0 => "DRAIN",
        _ => "UP",
    }
}

/// In the order and spelling of HAProxy's exporter.
const STATES: [&str; 5] = ["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];

/// Bits of `ServerStats::admin`.
const MAINT: u32 = 1;
const DRAIN: u32 = 8;
