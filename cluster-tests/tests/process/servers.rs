//! Choosing a server, waiting for one, and what happens when there is none.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluster_tests::server::Gate;
use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Launch, Proxy, Server, get, get_from};

use crate::common::{config, haproxy_lacks, site};

fn farm(backend: &str, servers: &[&Server]) -> Launch {
    let launch = config(&format!(
        "
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
  default_backend be
backend be
{backend}
"
    ));
    servers
        .iter()
        .enumerate()
        .fold(launch, |launch, (i, server)| {
            launch.set(&format!("s{}", i + 1), server.addr())
        })
}

fn names(proxy: &Proxy, count: usize) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for _ in 0..count {
        *names
            .entry(get(proxy.addr("fe"), "/name").expect("an answer").text())
            .or_default() += 1;
    }
    names
}

fn counts(list: &[(&str, usize)]) -> BTreeMap<String, usize> {
    list.iter()
        .map(|&(name, count)| (name.to_owned(), count))
        .collect()
}

#[test]
fn round_robin_follows_the_weights() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let lines = "  balance roundrobin\n  server a {{s1}} weight 3\n  server b {{s2}}\n  server c {{s2}} weight 0";
    let proxy = farm(lines, &[&a, &b]).start();
    assert_eq!(names(&proxy, 40), counts(&[("a", 30), ("b", 10)]));
}

#[test]
fn least_connections_avoids_the_busy_one() {
    let gate = Gate::default();
    let held = gate.clone();
    let a = Server::with(move |request, peer| {
        if request.target == "/hang" {
            held.wait();
        }
        peer.serve("a", request)
    });
    let b = Server::named("b");
    let proxy = farm(
        "  balance leastconn\n  server a {{s1}}\n  server b {{s2}}",
        &[&a, &b],
    )
    .start();
    let mut hung: Vec<Client> = Vec::new();
    let hanging = |server: &Server| {
        let asked = server.requests();
        asked.iter().filter(|r| r.target == "/hang").count()
    };
    until("a request hangs on a", || {
        // One after the other: each counts for its server before the next is asked.
        if hanging(&a) + hanging(&b) == hung.len() && hanging(&a) == 0 {
            let mut client = Client::connect(proxy.addr("fe"));
            client.get("/hang");
            hung.push(client);
        }
        (hanging(&a) > 0).then_some(())
    });
    for _ in 0..10 {
        // A connection counts until the proxy has seen its end, a moment after the client has.
        until_true("b is free again", || {
            proxy.cli().stat("be", "b", "scur") == "0"
        });
        assert_eq!(names(&proxy, 1), counts(&[("b", 1)]));
    }
    gate.open();
    for client in &mut hung {
        assert_eq!(client.response().map(|r| r.status), Ok(200));
    }
}

#[test]
fn source_keeps_a_client_on_its_server_and_random_spreads() {
    let servers = [Server::named("a"), Server::named("b"), Server::named("c")];
    let all: Vec<&Server> = servers.iter().collect();
    let lines = "  server a {{s1}}\n  server b {{s2}}\n  server c {{s3}}";
    let proxy = farm(&format!("  balance source\n{lines}"), &all).start();
    let mut used = BTreeMap::new();
    for last in 1..30 {
        let client = Ipv4Addr::new(127, 0, 0, last);
        let name = || {
            get_from(client, proxy.addr("fe"), "/name")
                .expect("an answer")
                .text()
        };
        let first = name();
        assert_eq!(name(), first);
        *used.entry(first).or_insert(0) += 1;
    }
    assert!(used.len() > 1, "{used:?}");
    let proxy = farm(&format!("  balance random\n{lines}"), &all).start();
    assert_eq!(names(&proxy, 60).len(), 3);
}

#[test]
fn backups_serve_when_nobody_else_can_and_disabled_ones_never() {
    let (a, b, c) = (Server::named("a"), Server::named("b"), Server::named("c"));
    let lines = "  balance roundrobin\n  server a {{s1}}\n  server b {{s2}} backup\n  server c {{s3}} disabled";
    let proxy = farm(lines, &[&a, &b, &c]).start();
    assert_eq!(names(&proxy, 6), counts(&[("a", 6)]));
    let lines = "  balance roundrobin\n  server a {{s1}} disabled\n  server b {{s2}} backup\n  server c {{s3}} backup";
    let proxy = farm(lines, &[&a, &b, &c]).start();
    assert_eq!(
        names(&proxy, 6),
        counts(&[("b", 6)]),
        "the first backup alone serves"
    );
    let proxy = farm("  server a {{s1}} disabled", &[&a]).start();
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(503));
    let line = proxy.log_line("of the refusal", |line| line.contains(" 503 "));
    assert!(
        line.contains(" be/<NOSRV> ") && line.contains(" SC--"),
        "{line}"
    );
}

#[test]
fn use_backend_takes_the_first_match() {
    let (a, b, c) = (Server::named("a"), Server::named("b"), Server::named("c"));
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  acl is_a path_beg /a
  use_backend a if is_a
  use_backend b if { path_beg /a } or { path_beg /b } { hdr(host) -i TEST }
  use_backend %[path,field(3,/)] if { path_beg /dyn/ }
  default_backend c
backend a
  server s {{s1}}
  http-request set-path /name
backend b
  server s {{s2}}
  http-request set-path /name
backend c
  server s {{s3}}
  http-request set-path /name
"
        .replace("  http-request set-path /name\n", "")
        .as_str(),
    )
    .set("s1", a.addr())
    .set("s2", b.addr())
    .set("s3", c.addr())
    .start();
    let served = |path: &str| {
        get(proxy.addr("fe"), path)
            .expect("an answer")
            .header("x-server")
            .map(str::to_owned)
    };
    assert_eq!(served("/a1"), Some("a".to_owned()));
    assert_eq!(served("/b1"), Some("b".to_owned()));
    assert_eq!(served("/x"), Some("c".to_owned()));
    assert_eq!(served("/dyn/b"), Some("b".to_owned()));
    assert_eq!(
        served("/dyn/nope"),
        Some("c".to_owned()),
        "an unknown name goes to the next rule"
    );
}

#[test]
fn no_backend_is_a_503() {
    let server = Server::http();
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  use_backend be if { path /yes }
backend be
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    assert_eq!(get(proxy.addr("fe"), "/yes").map(|r| r.status), Ok(200));
    assert_eq!(get(proxy.addr("fe"), "/no").map(|r| r.status), Ok(503));
    proxy.log_line("of the refusal", |line| {
        line.contains(" fe/<NOSRV> ") && line.contains(" SC--")
    });
}

/// A server whose requests wait at a gate; it records how many were in flight at most.
fn gated() -> (Server, Gate, Arc<AtomicUsize>) {
    let (gate, most, now) = (
        Gate::default(),
        Arc::new(AtomicUsize::new(0)),
        AtomicUsize::new(0),
    );
    let (held, seen) = (gate.clone(), Arc::clone(&most));
    let server = Server::with(move |request, peer| {
        let flying = now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.fetch_max(flying, Ordering::SeqCst);
        held.wait();
        now.fetch_sub(1, Ordering::SeqCst);
        peer.serve("", request)
    });
    (server, gate, most)
}

#[test]
fn maxconn_queues_and_serves_in_turn() {
    let (server, gate, most) = gated();
    let proxy = farm(
        "  timeout queue 20s\n  server s1 {{s1}} maxconn 2",
        &[&server],
    )
    .start();
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(proxy.addr("fe"))).collect();
    for client in &mut clients {
        client.get("/");
    }
    until_true("two are served, four wait", || {
        server.requests().len() == 2
            && proxy
                .cli()
                .stat("be", "BACKEND", "qcur")
                .parse::<u32>()
                .unwrap_or(0)
                + proxy
                    .cli()
                    .stat("be", "s1", "qcur")
                    .parse::<u32>()
                    .unwrap_or(0)
                >= 4
    });
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().map(|r| r.status), Ok(200));
    }
    assert_eq!(
        most.load(Ordering::SeqCst),
        2,
        "never more than maxconn at once"
    );
    // The last one in the line was the fourth; whoever did not wait says 0.
    for queues in [" 0/0 ", " 0/1 ", " 0/4 "] {
        proxy.log_line("of the queue", |line| line.contains(queues));
    }
}

#[test]
fn a_queue_time_out_is_503_s_q() {
    let (server, gate, _) = gated();
    let proxy = farm(
        "  timeout queue 200ms\n  server s1 {{s1}} maxconn 1",
        &[&server],
    )
    .start();
    let mut first = Client::connect(proxy.addr("fe"));
    first.get("/first");
    until_true("the first is served", || server.requests().len() == 1);
    assert_eq!(get(proxy.addr("fe"), "/second").map(|r| r.status), Ok(503));
    let line = proxy.log_line("of the refusal", |line| line.contains("/second"));
    assert!(line.contains("sQ--"), "{line}");
    gate.open();
    assert_eq!(first.response().map(|r| r.status), Ok(200));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_client_that_leaves_the_queue_frees_its_place() {
    if haproxy_lacks("does not always notice at once") {
        return;
    }
    let (server, gate, _) = gated();
    let proxy = config(
        "
  option abortonclose
  timeout queue 20s
listen fe
  bind 127.0.0.1:{{port:fe}}
  server s1 {{s1}} maxconn 1
",
    )
    .set("s1", server.addr())
    .start();
    let mut first = Client::connect(proxy.addr("fe"));
    first.get("/first");
    until_true("the first is served", || server.requests().len() == 1);
    Client::connect(proxy.addr("fe")).get("/leaver").leave();
    until_true("the leaver is noticed", || {
        proxy.stdout().contains("/leaver")
    });
    let mut last = Client::connect(proxy.addr("fe"));
    last.get("/last");
    gate.open();
    assert_eq!(first.response().map(|r| r.status), Ok(200));
    assert_eq!(last.response().map(|r| r.status), Ok(200));
    let targets: Vec<String> = server.requests().iter().map(|r| r.target.clone()).collect();
    assert_eq!(targets, ["/first", "/last"]);
}

#[test]
fn connection_attempts_are_repeated() {
    let gone = Server::absent();
    let proxy = farm(
        "  retries 2\n  timeout connect 1s\n  server s1 {{gone}}",
        &[],
    )
    .set("gone", gone)
    .start();
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(503));
    let line = proxy.log_line("of the failure", |line| line.contains(" 503 "));
    assert!(line.contains("SC--"), "{line}");
    // ac/fc/bc/sc/retries, then the queues.
    let counts = line
        .split(' ')
        .filter(|word| word.matches('/').count() == 4)
        .nth(1)
        .expect("the counts");
    assert!(counts.ends_with("/2"), "two retries: {line}");
    let wanted = [("econ", "1"), ("wretr", "2")];
    proxy.cli().stat_becomes("be", "BACKEND", &wanted);
}

#[test]
fn redispatch_goes_to_another_server() {
    let good = Server::named("good");
    let lines = "  balance roundrobin\n  retries 1\n  option redispatch\n  timeout connect 5s\n  server gone {{gone}}\n  server good {{s1}}";
    let proxy = farm(lines, &[&good]).set("gone", Server::absent()).start();
    assert_eq!(names(&proxy, 4), counts(&[("good", 4)]));
}

#[test]
fn frontend_maxconn_leaves_the_rest_in_the_backlog() {
    let server = Server::http();
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  maxconn 2
  default_backend be
backend be
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    let mut held: Vec<Client> = (0..2).map(|_| Client::connect(proxy.addr("fe"))).collect();
    for client in &mut held {
        assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
    }
    let mut third = Client::connect(proxy.addr("fe"));
    third
        .get("/third")
        .patience(std::time::Duration::from_millis(300));
    assert!(third.response().is_err(), "it waits in the kernel's queue");
    drop(held.pop());
    third.patience(cluster_tests::wait::PATIENCE);
    assert_eq!(
        third.response().map(|r| r.status),
        Ok(200),
        "and is served when one has left"
    );
}

/// A server answers for what it said, not for what a rule made of it, and attempts to reach it count.
#[test]
fn counters_blame_the_right_one() {
    let server = Server::http();
    let proxy = site(
        "  use_backend dead if { path /dead }",
        "  http-response deny if { status 404 }",
        &server,
    )
    .append("backend dead\n  retries 0\n  server s1 127.0.0.1:1\n")
    .start();
    for (path, status) in [("/status/404", 502), ("/", 200), ("/dead", 503)] {
        assert_eq!(
            get(proxy.addr("fe"), path).map(|r| r.status),
            Ok(status),
            "{path}"
        );
    }
    let all = [
        ("stot", "2"),
        ("lbtot", "2"),
        ("hrsp_2xx", "1"),
        ("hrsp_4xx", "1"),
        ("hrsp_5xx", "0"),
        ("dresp", "1"),
    ];
    let cli = proxy.cli();
    cli.stat_becomes("be", "s1", &all);
    let all = [("stot", "1"), ("lbtot", "1"), ("econ", "1")];
    cli.stat_becomes("dead", "s1", &all);
    cli.stat_becomes("be", "BACKEND", &[("hrsp_5xx", "1")]);
}
