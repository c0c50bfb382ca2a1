//! Configurations most tests share.

use cluster_tests::locate::{Kind, kind_under_test};
use cluster_tests::{Launch, Server, tools};

/// Start of every configuration: a CLI socket, logs on standard output, HTTP mode and harmless time-outs.
pub(crate) const HEAD: &str = "\
global
  stats socket {{cli}} level admin
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 30s
  timeout server 30s
";

/// Frontend `fe` on `{{port:fe}}` and backend `be` with server `s1` at `server`, with lines added to each.
pub(crate) fn site(frontend: &str, backend: &str, server: &Server) -> Launch {
    let config = format!(
        "{HEAD}
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
{frontend}
  default_backend be

backend be
{backend}
  server s1 {{{{s1}}}}
"
    );
    Launch::new(&config).set("s1", server.addr())
}

/// Frontend `fe` whose rules track, deny and give the metrics page, and backend `be` with a server of limited capacity.
pub(crate) fn measured(head: &str, server: &Server) -> Launch {
    let config = format!(
        "{head}
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
  stick-table type ip size 1k expire 1h store http_req_cnt
  http-request track-sc0 src
  http-request deny if {{ path /deny }}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  default_backend be
backend be
  server s1 {{{{s1}}}} maxconn 10 maxqueue 10
"
    );
    Launch::new(&config).set("s1", server.addr())
}

/// Any configuration under [`HEAD`].
pub(crate) fn config(rest: &str) -> Launch {
    Launch::new(&format!("{HEAD}\n{rest}"))
}

/// Whether the test runs against HAProxy 2.6, which lacks `what` or does otherwise than the reference says.
pub(crate) fn haproxy_lacks(what: &str) -> bool {
    let is = kind_under_test() == Kind::Haproxy;
    if is {
        tools::skip(&format!("HAProxy 2.6: {what}"));
    }
    is
}

/// The children of a process (of its main thread), none when it is gone.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let all = std::fs::read_to_string(path).unwrap_or_default();
    let pids = all.split_whitespace().map(str::parse);
    pids.map(|pid| pid.expect("a process id")).collect()
}

/// Whether the process runs; one that waits to be reaped by whoever adopted it does not.
pub(crate) fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}
