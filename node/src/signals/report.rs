//! What is said about proxies and servers at the end and on SIGHUP.

use std::sync::atomic::Ordering::Relaxed;

use remora_core::world::{ProxyId, ProxyState};
use tracing::warn;

use crate::observe::log::Severity;
use crate::shared::Shared;

/// `Proxy web stopped (cumulated conns: FE: 3, BE: 0).`, on standard error and in the proxy's logs.
pub(super) fn report_stopped(shared: &Shared) {
    for (i, p) in shared.world.proxies.iter().enumerate() {
        let text = format!(
            "Proxy {} stopped (cumulated conns: FE: {}, BE: {}).",
            p.name,
            p.front.conn_tot.load(Relaxed),
            p.back.stot.load(Relaxed)
        );
        warn!("{text}");
        event(shared, i, Severity::Warning, &text);
    }
}

/// SIGHUP: the state of every proxy and server.
pub(super) fn dump_state(shared: &Shared) {
    for (i, p) in shared.world.proxies.iter().enumerate() {
        for line in state_lines(p) {
            warn!("{line}");
            event(shared, i, Severity::Notice, &line);
        }
    }
}

fn event(shared: &Shared, proxy: usize, severity: Severity, text: &str) {
    if let Ok(id) = u16::try_from(proxy) {
        shared
            .logs
            .event(Some(ProxyId(id)), severity, format_args!("{text}"));
    }
}

fn state_lines(p: &ProxyState) -> Vec<String> {
    let mut lines = Vec::new();
    for s in &p.servers {
        lines.push(format!(
            "SIGHUP: Server {}/{} is {}. Conn: {} act, {} pend, {} tot.",
            p.name,
            s.name,
            if s.usable() { "UP" } else { "DOWN" },
            s.stats.scur.load(Relaxed),
            s.stats.qcur.load(Relaxed),
            s.stats.stot.load(Relaxed)
        ));
    }
    let usable = |backup| {
        p.servers
            .iter()
            .filter(|s| s.backup == backup && s.usable())
            .count()
    };
    let (active, backup) = (usable(false), usable(true));
    let conns = format!(
        "Conn: act(FE+BE): {}+{}, {} pend ({} unass), tot(FE+BE): {}+{}.",
        p.front.scur.load(Relaxed),
        p.back.scur.load(Relaxed),
        p.back.qcur.load(Relaxed),
        p.back.qcur.load(Relaxed),
        p.front.conn_tot.load(Relaxed),
        p.back.stot.load(Relaxed)
    );
    lines.push(if p.servers.is_empty() {
        format!("SIGHUP: Proxy {} has no servers. {conns}", p.name)
    } else if active > 0 {
        format!(
            "SIGHUP: Proxy {} has {active} active servers and {backup} backup servers available. {conns}",
            p.name
        )
    } else if backup > 0 {
        format!(
            "SIGHUP: Proxy {} is running on backup servers ! {conns}",
            p.name
        )
    } else {
        format!("SIGHUP: Proxy {} has no server available ! {conns}", p.name)
    });
    lines
}
