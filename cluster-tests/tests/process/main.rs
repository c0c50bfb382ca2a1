//! The real program under real clients: one module per area. Every test starts its own proxy on its own ports, so they run
//! side by side. `CLUSTER_TESTS_PROXY=haproxy` points them at HAProxy to check an expectation against the original.

mod certificates;
mod common;
mod house;

mod acls;
mod admin_endpoint;
mod admin_endpoint_life;
mod bad_config;
mod bad_traffic;
mod ban_across_sites;
mod cli;
mod cli_random;
mod cli_tables;
mod command_line;
mod differential;
mod examples;
mod handover;
mod handover_again;
mod handover_faults;
mod handover_tables;
mod http_connections;
mod http_rules;
mod logs;
mod metrics_oracle;
mod mistakes;
mod peers_cli;
mod peers_options;
mod peers_wire;
mod real_clients;
mod regressions;
mod reload_drain;
mod reload_faults;
mod reload_hard;
mod reload_metrics;
mod reload_soak;
mod reload_tables;
mod servers;
mod supervisor;
mod supervisor_life;
mod supervisor_upgrade;
mod tcp_mode;
mod tcp_rules;
mod throttle;
mod timeouts;
mod tracking;
