//! Live counters of proxies and servers.

use std::sync::atomic::Ordering::Relaxed;

use super::{ProxyField, ServerField};
use crate::rule::cx::Cx;
use crate::rule::sample::Sample;
use crate::world::{ProxyId, ProxyState, ServerState};

pub(super) fn proxy<'a>(
    cx: &Cx<'a>,
    field: ProxyField,
    named: Option<ProxyId>,
) -> Option<Sample<'a>> {
    let proxy = match (named, field) {
        (Some(id), _) => cx.world.proxy(id)?,
        (None, ProxyField::FeConn | ProxyField::FeSessRate | ProxyField::FeReqRate) => {
            cx.world.proxy(cx.conn.frontend)?
        }
        // A backend's own rules mean that backend; a frontend's mean the one chosen so far.
        (None, _) => match cx.world.proxy(cx.proxy)? {
            own if own.is_backend => own,
            _ => super::net::backend(cx)?,
        },
    };
    let now = cx.now.mono_ms;
    Some(Sample::Int(match field {
        ProxyField::FeConn => i64::from(proxy.front.scur.load(Relaxed)),
        ProxyField::FeSessRate => i64::from(proxy.front.sess_rate.rate(now)),
        ProxyField::FeReqRate => i64::from(proxy.front.req_rate.rate(now)),
        ProxyField::BeConn => i64::from(proxy.back.scur.load(Relaxed)),
        ProxyField::BeSessRate => i64::from(proxy.back.sess_rate.rate(now)),
        ProxyField::BeConnFree => free_slots(proxy, false),
        ProxyField::ConnSlots => free_slots(proxy, true),
        ProxyField::NbSrv => usable_servers(proxy),
        ProxyField::Queue => queued(proxy),
        ProxyField::AvgQueue => {
            let usable = usable_servers(proxy);
            let queued = queued(proxy);
            if usable > 0 {
                (queued + usable - 1) / usable
            } else {
                // nobody takes from the queue: the reference doubles it, so that a threshold still works
                queued.saturating_mul(2)
            }
        }
    }))
}

pub(super) fn server<'a>(
    cx: &Cx<'a>,
    field: ServerField,
    proxy: ProxyId,
    server: u16,
) -> Option<Sample<'a>> {
    let server = cx.world.proxy(proxy)?.servers.get(usize::from(server))?;
    let stats = &server.stats;
    Some(Sample::Int(match field {
        ServerField::IsUp => return Some(Sample::Bool(is_up(server))),
        ServerField::Conn => i64::from(stats.scur.load(Relaxed)),
        ServerField::ConnFree => match server.maxconn.load(Relaxed) {
            0 => -1, // unlimited
            most => (i64::from(most) - i64::from(stats.scur.load(Relaxed))).max(0),
        },
        ServerField::Queue => i64::from(stats.qcur.load(Relaxed)),
        ServerField::SessRate => i64::from(stats.sess_rate.rate(cx.now.mono_ms)),
        ServerField::Weight => i64::from(stats.weight.load(Relaxed)),
        ServerField::InitialWeight => i64::from(server.weight_initial),
    }))
}

/// Servers that take new traffic; backups only if no other does.
pub(in crate::rule) fn usable_servers(proxy: &ProxyState) -> i64 {
    let (mut active, mut backups) = (0, 0);
    for server in proxy.servers.iter().filter(|s| s.usable()) {
        if server.backup {
            backups += 1;
        } else {
            active += 1;
        }
    }
    match (active, proxy.allbackups) {
        (0, true) => backups,
        (0, false) => backups.min(1),
        _ => active,
    }
}

/// Not in maintenance; draining servers are up.
fn is_up(server: &ServerState) -> bool {
    const MAINTENANCE: u32 = 1;
    server.stats.admin.load(Relaxed) & MAINTENANCE == 0
}

fn queued(proxy: &ProxyState) -> i64 {
    let servers: i64 = proxy
        .servers
        .iter()
        .map(|s| i64::from(s.stats.qcur.load(Relaxed)))
        .sum();
    servers.saturating_add(i64::from(proxy.back.qcur.load(Relaxed)))
}

/// Free connection slots of the servers that are up (backups only if nothing else is), -1 if one of them has no limit.
/// `with_queue` adds the free places in their queues.
fn free_slots(proxy: &ProxyState, with_queue: bool) -> i64 {
    let up = || proxy.servers.iter().filter(|s| is_up(s));
    let backups_count = with_queue || up().all(|s| s.backup);
    let mut free = 0i64;
    for server in up().filter(|s| !s.backup || backups_count) {
        let most = server.maxconn.load(Relaxed);
        if most == 0 || with_queue && server.maxqueue == 0 {
            return -1;
        }
        free += (i64::from(most) - i64::from(server.stats.scur.load(Relaxed))).max(0);
        if with_queue {
            let waiting = i64::from(server.stats.qcur.load(Relaxed));
            free += (i64::from(server.maxqueue) - waiting).max(0);
        }
    }
    free
}
