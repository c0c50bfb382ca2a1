//! What a process in the foreground says once it runs: where it listens, and what a newcomer may try.

use remora_config::plan::{Address, CliLevel, Mode, Plan};
use remora_core::world::ProxyId;
use tracing::info;

use crate::cli::Args;

/// Notices for each listening socket, and suggestions when a person seems to have typed the command (services and
/// tests say `-db` or `-D`).
pub(super) fn show(plan: &Plan, listening: &[(ProxyId, u16, String)], args: &Args) {
    for (proxy, _, address) in listening {
        if let Some(p) = plan.proxies.get(usize::from(proxy.0)) {
            let kind = if p.is_backend { "proxy" } else { "frontend" };
            info!("listening on {address} ({kind} {})", p.name);
        }
    }
    for s in &plan.global.stats_sockets {
        let level = match s.level {
            CliLevel::User => "user",
            CliLevel::Operator => "operator",
            CliLevel::Admin => "admin",
        };
        info!("stats socket {} (level {level})", shown(&s.address));
    }
    for bind in &plan.global.admin_binds {
        info!("health and metrics on {}", shown(&bind.address));
    }
    if args.foreground || args.worker {
        return;
    }
    let http = listening.iter().find_map(|(proxy, _, address)| {
        let p = plan.proxies.get(usize::from(proxy.0))?;
        let address = address.parse::<std::net::SocketAddr>().ok()?;
        (p.mode == Mode::Http).then_some(address)
    });
    if let Some(mut address) = http {
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        info!("try: curl -i http://{address}/");
        info!(
            "try: for i in $(seq 50); do curl -s -o /dev/null -w '%{{http_code}} ' http://{address}/; done; echo"
        );
    }
    let has_tables = !plan.tables.is_empty();
    if let Some(s) = plan.global.stats_sockets.first() {
        let command = if has_tables {
            "show table"
        } else {
            "show stat"
        };
        let tool = match &s.address {
            Address::Unix(path) => format!("socat - UNIX-CONNECT:{path}"),
            Address::Ip(a) => format!("nc {} {}", a.ip(), a.port()),
            Address::Fd(_) => return,
        };
        info!("try: echo '{command}' | {tool}");
        if let Some(t) = plan.tables.first() {
            info!("try: echo 'show table {}' | {tool}", t.name);
        }
    }
}

fn shown(address: &Address) -> String {
    match address {
        Address::Unix(path) => path.clone(),
        Address::Ip(a) => a.to_string(),
        Address::Fd(n) => format!("fd@{n}"),
    }
}
