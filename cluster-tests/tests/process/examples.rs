//! The shipped examples, run as they stand but for addresses and paths, and shorter times where a test would wait.

use std::time::{Duration, Instant};

use cluster_tests::locate::{self, Kind};
use cluster_tests::wait::{until, until_true};
use cluster_tests::{Launch, Server, get, tools};

use crate::common::haproxy_lacks;

fn shipped(name: &str) -> String {
    let path = format!("{}/../docs/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Replaces what must be there: an example that changed must not leave its test behind.
fn replaced(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(
            text.contains(from),
            "the example does not say {from:?} any more"
        );
        text.replace(from, to)
    })
}

/// `throttle.cfg` with the test's addresses and a ban of a second and a half.
fn throttle() -> Launch {
    let text = shipped("throttle.cfg");
    let socket = text
        .split("stats socket ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect("a stats socket");
    let pairs = [
        (socket, "{{cli}}"),
        ("bind :8080", "bind 127.0.0.1:{{port:web}}"),
        ("127.0.0.1:8081", "127.0.0.1:{{port:files}}"),
        ("expire 30s store gpc0", "expire 1500ms store gpc0"),
        ("_rate(10s)", "_rate(1s)"),
    ];
    Launch::new(&replaced(&text, &pairs)).file("throttle.cfg", "x".repeat(6000))
}

/// Within the first period a rate counts everything; nothing can be said where the machine stalls for longer.
const STEADY: Duration = Duration::from_millis(900);

#[test]
fn throttle_slows_down_then_bans_then_forgives() {
    assert!((0..10).any(|_| bans()), "it stalls all the time");
}

/// `false` when the machine stalled.
fn bans() -> bool {
    let proxy = throttle().start();
    let web = proxy.addr("web");
    let ask = || get(web, "/").expect("an answer");
    let begun = Instant::now();
    let first = ask();
    let mut statuses = vec![first.status];
    until_true("a ban", || {
        statuses.push(ask().status);
        statuses.last() == Some(&403)
    });
    let key = "::ffff:127.0.0.1";
    let [abuser, client] = ["abusers", "per_ip"].map(|table| proxy.cli().entry(table, key));
    let refused = ask().text();
    if begun.elapsed() > STEADY {
        return false;
    }
    assert_eq!(
        (first.status, first.header("content-type")),
        (200, Some("text/plain"))
    );
    statuses.dedup();
    assert_eq!(statuses, [200, 429, 403]);
    // Both tables tell why.
    assert_eq!(abuser.expect("an entry").get("gpc0"), 1);
    assert!(client.expect("an entry").get("http_req_rate") > 30);
    assert!(
        refused.starts_with("Banned."),
        "and it goes on being refused"
    );
    until_true("the ban ends by itself, while it is knocked at", || {
        ask().status == 200
    });
    true
}

#[test]
fn throttle_limits_bytes_and_an_operator_can_forgive() {
    assert!((0..10).any(|_| limits_bytes()), "it stalls all the time");
}

/// `false` when the machine stalled.
fn limits_bytes() -> bool {
    let proxy = throttle().start();
    let web = proxy.addr("web");
    let begun = Instant::now();
    let mut fetched = 0;
    let refused = until("the bytes run out", || {
        let answer = get(web, "/big").expect("an answer");
        fetched += u32::from(answer.status == 200);
        (answer.status != 200).then_some(answer)
    });
    if begun.elapsed() > STEADY {
        return false;
    }
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("10"))
    );
    assert!(
        (2..=3).contains(&fetched),
        "10 kB are two of them, but {fetched} were served"
    );

    until_true("a ban", || get(web, "/").map(|r| r.status) == Ok(403));
    proxy.cli().released("abusers");
    proxy.cli().released("per_ip");
    assert_eq!(proxy.ask("clear table abusers"), "\n");
    assert_eq!(proxy.ask("clear table per_ip"), "\n");
    assert_eq!(get(web, "/").map(|r| r.status), Ok(200));
    true
}

#[test]
fn ban_across_sites_is_shipped_as_documented_and_bans() {
    let server = Server::http();
    let text = shipped("ban-across-sites.cfg");
    let pairs = [
        ("bind :8081", "bind 127.0.0.1:{{port:web}}"),
        ("127.0.0.1:8000", "{{s1}}"),
    ];
    let proxy = Launch::new(&replaced(&text, &pairs))
        .set("s1", server.addr())
        .file("503-slow-down.http", shipped("503-slow-down.http"))
        .start();
    let outcomes: Vec<Option<u16>> = (0..8)
        .map(|_| get(proxy.addr("web"), "/").ok().map(|r| r.status))
        .collect();
    assert_eq!(outcomes[..4], [Some(200), Some(200), Some(200), None]);
    assert_eq!(outcomes[4..], [Some(503); 4]);
}

/// A node of `cluster.cfg`, with the test's addresses, and a rate that does not fall while the test runs.
fn cluster_node(name: &str, dir: &std::path::Path) -> Launch {
    let text = shipped("cluster.cfg");
    let peer = format!("{}/", dir.display());
    let pairs = [
        (
            "\"/tmp/remora-${USER-demo}-$HAPROXY_LOCALPEER.sock\"",
            "{{cli}}",
        ),
        ("unix@/tmp/remora-${USER-demo}-", &format!("unix@{peer}")),
        ("127.0.0.1:$WEB", "127.0.0.1:{{port:web}}"),
        ("_rate(10s)", "_rate(1h)"),
    ];
    Launch::new(&replaced(&text, &pairs)).arg("-L").arg(name)
}

#[test]
fn cluster_limits_what_all_nodes_get_together() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let one = cluster_node("node1", dir.path()).start();
    let two = cluster_node("node2", dir.path()).start();
    for (node, name) in [(&one, "node1"), (&two, "node2")] {
        for _ in 0..10 {
            let answer = get(node.addr("web"), "/").expect("an answer");
            assert_eq!(answer.status, 200);
            assert_eq!(answer.text(), format!("Hello from {name}.\n"));
        }
    }
    for node in [&one, &two] {
        until_true("both know of all requests", || {
            node.ask("show table web").contains("http_req_cnt=20 ")
        });
    }
    for node in [&one, &two] {
        assert_eq!(
            get(node.addr("web"), "/").expect("an answer").status,
            429,
            "the sum is above 20"
        );
    }
    let shares = one.ask("show table web key 127.0.0.1 origins");
    assert_eq!(shares.matches("lineage=").count(), 2, "{shares}");
    two.cli().released("web");
    two.ask("clear table web");
    until_true("node1 answers again", || {
        get(one.addr("web"), "/").expect("an answer").status == 200
    });
}

#[test]
fn the_unit_for_systemd_is_valid() {
    if haproxy_lacks("this unit") {
        return;
    }
    let Some(mut analyze) = tools::tool("systemd-analyze") else {
        return;
    };
    let program = locate::program(Kind::Remora);
    let unit = shipped("remora.service");
    let unit = replaced(
        &unit,
        &[("/usr/local/bin/remora", &program.to_string_lossy())],
    );
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("remora.service");
    std::fs::write(&path, unit).expect("a file");
    let done = tools::run(analyze.args(["verify", "--man=no"]).arg(&path));
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (Some(0), "", "")
    );
}
