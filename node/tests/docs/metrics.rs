//! `docs/metrics.md` is what the tables of metrics say: every family that a page may have is documented, and no other.
//! `REMORA_WRITE_DOCS=1` writes the file.

use std::fmt::Write as _;

use remora::metrics::families;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

const INTRODUCTION: &str = "\
# Health and metrics

<!-- Made by node/tests/docs/metrics.rs: REMORA_WRITE_DOCS=1 cargo test -p remora --test docs -->

```haproxy
global
  admin bind 127.0.0.1:8404
  admin bind unix@/run/remora/admin.sock mode 600
```

`admin bind` opens an HTTP/1.1 endpoint with three pages. It is off unless configured, and has no authentication: bind it
to the loopback address or a UNIX socket, or let a firewall decide who reaches it. It runs on a thread of its own, so a
scrape does not hold up traffic. Each bind serves 32 connections at a time, one request each; a request may have 8 KiB and
64 header lines and 5 seconds to arrive, an answer 25 more to be read.

| page | answer |
|---|---|
| `/livez` | 200 while the worker threads answer; 503 with a line for each that has not for 30 seconds |
| `/readyz` | 200 while the process accepts connections; 503 and the reason: it starts, it learns its tables from peers, it is paused, it drains |
| `/metrics` | the metrics below |

A reload (`-W`) is not seen here: the old worker answers until the new one accepts connections, which then takes over the
endpoint's sockets too. A worker that drains afterwards is not asked any more.

## Probes

`remora --probe ready|live PATH` asks the UNIX socket of an `admin bind` and exits with 0 for 200 and 1 for everything
else, within 5 seconds. What it was told is printed. `remora --probe ready -f FILE` takes the path from the first such line
of a configuration.

```yaml
readinessProbe:
  exec:
    command: [remora, --probe, ready, /run/remora/admin.sock]
```

With a UNIX socket in a directory of the pod itself the answer is always this pod's. A port may be another's: pods on the
host network share their node's addresses.

## Metrics

```yaml
scrape_configs:
  - job_name: remora
    static_configs: [{targets: ['127.0.0.1:8404']}]
```

A scraper gets OpenMetrics 1.0 if it asks for it, else Prometheus text 0.0.4. `/metrics?scope=NAME` gives one part of the
page: `global`, `frontend`, `backend`, `server`, `sticktable`, `rule`, `peers`; it may be repeated. `no-maint` leaves
servers in maintenance out.

The page is also a service for rules, which is what HAProxy users have in their files. There it is subject to all rules
above it, and to `timeout client`:

```haproxy
frontend stats
  bind 127.0.0.1:8405
  mode http
  timeout client 10s
  http-request use-service prometheus-exporter if { path /metrics }
```

**Dashboards and alerts made for HAProxy's exporter** work once `haproxy_` is replaced by `remora_` in their expressions:
where HAProxy has a metric, the name, the labels and the meaning are the same. Differences: a value that does not exist (the
limit of an unlimited server) has no sample, where HAProxy shows `NaN`; there is nothing about TLS, HTTP compression,
caches, health checks and average times, because Remora does not have them; CPU time is in
`remora_process_cpu_seconds_total`, not in `haproxy_process_idle_time_percent`.

Counters go on across reloads, but for CPU time, which is the process's own. They begin at 0 with any other start, and
`clear counters all` on the CLI sets those of the process, its proxies and servers to 0. How many series a page has follows from the configuration alone: no label holds anything that
clients choose.
";

/// Prefix, heading, labels and remarks of each group.
const GROUPS: &[(&str, &str)] = &[
    (
        "process",
        "### The process\n\nWithout labels. What `/proc` tells is missing inside a `chroot` that has none.\n",
    ),
    (
        "",
        "### Reloads and hand-offs\n\nWithout labels of its own. Alert on `remora_last_reload_ok == 0`: the old \
         configuration goes on, and the reason is in the\nmessages and in what `reload` and `show startup-logs` of the \
         master CLI answer. A worker that replaces a crashed one\nbegins with zeros, but for \
         the first three here, which its supervisor tells it.\n",
    ),
    ("frontend", "### Frontends\n\nLabel `proxy`.\n"),
    ("backend", "### Backends\n\nLabel `proxy`.\n"),
    ("server", "### Servers\n\nLabels `proxy` and `server`.\n"),
    (
        "sticktable",
        "### Tables\n\nLabels `name` and `type`. Alert on `remora_sticktable_used / remora_sticktable_size > 0.9`, and on \
         any increase of\nevictions or refusals: from there on something is not counted. What begins with \"edicts\" or is about lives and\n\
         shares is there for tables that nodes share.\n",
    ),
    (
        "rule",
        "### Rules\n\nLabels `proxy`, `ruleset`, `action`, `file` and `line`. Every rule of every set is counted, also \
         those that only set a\nvariable. `tcp-request content` rules that wait for more of a request run again when it \
         comes, from the first of\ntheir set.\n",
    ),
    (
        "peers",
        "### Peers sections\n\nLabel `peers`: the section's name.\n",
    ),
    (
        "discovery",
        "### Names of peers\n\nLabels `peers` and `name`: what a `discover` line follows.\n",
    ),
    (
        "peer",
        "### Peers\n\nLabels `peers` and `peer`: the name of a `server` line, or a discovered address. A node that dials \
         this one without being\ndialed has no series of its own; `remora_peers_undialed` counts it.\n",
    ),
    (
        "certificate",
        "### Certificates of peers\n\nLabels `peers` and `file`. Read at every scrape, since files are renewed while the \
         process runs; a file that cannot be\nread, as inside a `chroot`, has no sample.\n",
    ),
];

/// The group of a family; without a prefix, those that begin with none of the others'.
fn group(name: &str) -> &'static str {
    let begins = |prefix: &str| name.starts_with(&format!("remora_{prefix}_"));
    let found = GROUPS
        .iter()
        .find(|(prefix, _)| !prefix.is_empty() && begins(prefix));
    found.map_or("", |(prefix, _)| prefix)
}

fn expected() -> String {
    let mut text = INTRODUCTION.to_owned();
    let all = families();
    let mut described = 0;
    for (prefix, heading) in GROUPS {
        let _ = write!(
            text,
            "\n{heading}\n| metric | type | meaning |\n|---|---|---|\n"
        );
        for f in all.iter().filter(|f| group(&f.name) == *prefix) {
            described += 1;
            let label = f.label.map_or(String::new(), |l| format!(" by `{l}`"));
            let kind = f.kind.word();
            let _ = writeln!(text, "| `{}`{label} | {kind} | {} |", f.name, f.help);
        }
    }
    assert_eq!(described, all.len(), "a group has no chapter");
    text
}

#[test]
fn every_metric_is_documented() {
    let expected = expected();
    if std::env::var_os("REMORA_WRITE_DOCS").is_some() {
        std::fs::write(FILE, &expected).expect("docs/metrics.md can be written");
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        written == expected,
        "docs/metrics.md is out of date: run this test with REMORA_WRITE_DOCS=1"
    );
}
