//! The configuration of a node.

use super::Plan;
use crate::locate::Kind;

const RULES: &str = "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  tcp-request connection track-sc1 src table conns
  http-request track-sc0 url_param(k) table reqs
  http-request track-sc2 url_param(u) table big
  http-request sc-inc-gpc0(0)
  http-response set-header X-Round 0
  http-response set-header X-Count %[sc0_http_req_cnt]
  default_backend be
frontend fill
  bind 127.0.0.1:{{port:fill}}
  http-request track-sc0 url_param(k) table big
  http-request return status 200
backend be
  server s1 {{s1}}
";

/// The line that tells configurations apart.
pub(super) fn round_line(round: u64) -> String {
    format!("  http-response set-header X-Round {round}\n")
}

/// Of one node. `peers`: the address of each.
pub(super) fn of(plan: &Plan, index: usize, peers: &[String]) -> String {
    let shared = plan.nodes > 1 || plan.kind == Kind::Haproxy;
    let mut text = format!(
        "global
  nbthread 2
  maxconn 8000
  mworker-max-reloads {max}
  stats socket {{{{cli}}}} level admin
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
",
        max = plan.rounds + 10,
    );
    if shared {
        text.push_str("peers p\n");
        for (node, address) in peers.iter().enumerate() {
            if node == index {
                text.push_str(&format!("  bind {address}\n  server node{node}\n"));
            } else {
                text.push_str(&format!("  server node{node} {address}\n"));
            }
        }
    }
    text.push_str(RULES);
    let big = plan.entries + plan.entries / 8 + 1000;
    for (name, key, size, store) in [
        (
            "reqs",
            "string len 16",
            1000,
            "http_req_cnt,gpc0,conn_cur,bytes_out_cnt",
        ),
        ("conns", "ip", 1000, "conn_cnt,conn_cur,bytes_out_cnt"),
        (
            "big",
            "ip",
            big,
            "conn_rate(10s),http_req_rate(10s),http_req_cnt,http_err_cnt",
        ),
    ] {
        let peers = if shared { " peers p" } else { "" };
        text.push_str(&format!(
            "backend {name}\n  stick-table type {key} size {size} expire 2h store {store}{peers}\n"
        ));
    }
    text
}
