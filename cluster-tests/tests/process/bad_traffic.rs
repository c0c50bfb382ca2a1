//! Clients and servers that break the rules, or just leave.

use std::time::Duration;

use cluster_tests::server::Gate;
use cluster_tests::wait::{observe_for, until, until_true};
use cluster_tests::{Client, Gone, Server, get};
use rustix::process::{Resource, Rlimit};

use crate::common::{config, haproxy_lacks, site};

#[test]
fn an_unreachable_server_is_503_s_c() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  default_backend be
backend be
  retries 1
  server s1 {{gone}}
",
    )
    .set("gone", Server::absent())
    .start();
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(503));
    let line = proxy.log_line("of the failure", |line| line.contains(" 503 "));
    assert!(
        line.contains(" fe be/s1 ") && line.contains(" SC-- "),
        "{line}"
    );
}

#[test]
fn a_server_whose_queue_is_full_is_503_small_s_c() {
    // A listener nobody accepts from: once its queue is full, connecting times out.
    let full = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .expect("a socket");
    rustix::net::bind(&full, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    rustix::net::listen(&full, 0).expect("a listener");
    let listener = std::net::TcpListener::from(full);
    let addr = listener.local_addr().expect("an address");
    let mut fillers = Vec::new();
    while let Ok(filler) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
        fillers.push(filler);
        assert!(fillers.len() < 100, "the queue never fills");
    }
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  default_backend be
backend be
  retries 0
  timeout connect 200ms
  server s1 {{full}}
",
    )
    .set("full", addr)
    .start();
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(503));
    let line = proxy.log_line("of the failure", |line| line.contains(" 503 "));
    assert!(line.contains(" sC-- "), "{line}");
}

#[test]
fn a_slow_server_is_504_small_s_h() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, _| {
        held.wait();
        false
    });
    let lines = "  stick-table type ip size 1k store http_fail_cnt\n  http-request track-sc0 src";
    let proxy = site(lines, "  timeout server 200ms", &server).start();
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(504));
    let line = proxy.log_line("of the failure", |line| line.contains(" 504 "));
    assert!(line.contains(" sH-- "), "{line}");
    until("it is the server's failure", || {
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .filter(|e| e.get("http_fail_cnt") == 1)
    });
    gate.open();
}

#[test]
fn a_server_that_stalls_in_the_body_is_small_s_d() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        held.wait();
        false
    });
    let proxy = site("", "  timeout server 200ms", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    assert!(matches!(
        client.get("/").response(),
        Err(Gone::Cut(_) | Gone::Reset)
    ));
    let line = proxy.log_line("of the failure", |line| line.contains("GET /"));
    assert!(line.contains(" sD-- "), "{line}");
    gate.open();
}

#[test]
fn a_server_that_dies_in_the_body_is_s_d() {
    for head in [
        "Content-Length: 100\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let server = Server::with(move |_, peer| {
            peer.write(format!("HTTP/1.1 200 OK\r\n{head}"));
            false
        });
        let proxy = site("", "", &server).start();
        let mut client = Client::connect(proxy.addr("fe"));
        assert!(
            client.get("/").response().is_err(),
            "a cut answer must not look complete: {head:?}"
        );
        let line = proxy.log_line("of the failure", |line| line.contains("GET /"));
        assert!(line.contains(" SD-- "), "{line}");
    }
}

#[test]
fn a_server_that_answers_garbage_is_502() {
    for garbage in [
        "complete nonsense\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nNo colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: twelve\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "\x16\x03\x01\x02\0\x01",
        "",
    ] {
        if garbage.contains('\0') && haproxy_lacks("passes NUL on") {
            continue;
        }
        let server = Server::with(move |_, peer| {
            peer.write(garbage);
            false
        });
        let lines =
            "  stick-table type ip size 1k store http_fail_cnt\n  http-request track-sc0 src";
        let proxy = site(lines, "  retries 0", &server).start();
        assert_eq!(
            get(proxy.addr("fe"), "/").map(|r| r.status),
            Ok(502),
            "{garbage:?}"
        );
        let line = proxy.log_line("of the failure", |line| line.contains(" 502 "));
        assert!(
            line.contains(" SH-- ") || line.contains(" PH-- "),
            "{garbage:?}: {line}"
        );
        until("it is the server's failure", || {
            proxy
                .cli()
                .entry("fe", "127.0.0.1")
                .filter(|e| e.get("http_fail_cnt") == 1)
        });
    }
}

#[test]
fn a_header_block_from_the_server_that_is_too_large_is_502() {
    let server =
        Server::with(|_, peer| peer.reply(200, &format!("X-Big: {}\r\n", "v".repeat(40_000)), "x"));
    let proxy = site("", "  retries 0", &server).start();
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(502));
}

#[test]
fn a_header_block_too_large_is_431() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let expected = if proxy.is_haproxy() { 400 } else { 431 };
    for request in [
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n",
            "v".repeat(40_000)
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X-Many: of these there are a lot\r\n".repeat(90).repeat(10)
        ),
    ] {
        let mut client = Client::connect(proxy.addr("fe"));
        assert_eq!(
            client.send(request).response().map(|r| r.status),
            Ok(expected)
        );
    }
    let mut client = Client::connect(proxy.addr("fe"));
    let long = client
        .send(format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "x".repeat(40_000)
        ))
        .response();
    assert!(
        matches!(long.as_ref().map(|r| r.status), Ok(400 | 414 | 431)),
        "{long:?}"
    );
    assert!(server.requests().is_empty());
    let fits = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n",
        "v".repeat(12_000)
    );
    assert_eq!(
        Client::connect(proxy.addr("fe"))
            .send(fits)
            .response()
            .map(|r| r.status),
        Ok(200)
    );
}

#[test]
fn ten_thousand_headers_are_refused_cheaply() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let many: String = (0..10_000).map(|i| format!("h{i}:\r\n")).collect();
    let mut client = Client::connect(proxy.addr("fe"));
    let answer = client
        .send(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"))
        .response();
    assert!(
        matches!(answer.as_ref().map(|r| r.status), Ok(400 | 431)),
        "{answer:?}"
    );
    assert!(client.is_closed());
    let few: String = (0..102).map(|i| format!("h{i}: x\r\n")).collect();
    let answer = Client::connect(proxy.addr("fe"))
        .send(format!("GET / HTTP/1.1\r\nHost: a\r\n{few}\r\n"))
        .response();
    assert!(
        matches!(answer.as_ref().map(|r| r.status), Ok(400 | 431)),
        "more than tune.http.maxhdr: {answer:?}"
    );
    assert!(server.requests().is_empty());
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
}

#[test]
fn a_request_that_never_finishes_is_408() {
    let server = Server::http();
    let lines = "  timeout http-request 300ms
  stick-table type ip size 1k store http_req_cnt,http_err_cnt
  tcp-request connection track-sc0 src";
    let proxy = site(lines, "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    assert_eq!(client.response().map(|r| r.status), Ok(408));
    assert!(client.is_closed());
    let line = proxy.log_line("of the time-out", |line| line.contains(" 408 "));
    assert!(
        line.contains(" fe fe/<NOSRV> ")
            && line.contains(" cR-- ")
            && line.contains("\"<BADREQ>\""),
        "{line}"
    );
    // Trickling bytes does not prolong it.
    let mut drip = Client::connect(proxy.addr("fe"));
    drip.send("GET / HTTP/1.1\r\n");
    drip.patience(Duration::from_millis(20));
    let answer = until("an end to the trickle", || {
        drip.send("X: y\r\n");
        match drip.response() {
            Err(Gone::Silent(_)) => None,
            done => Some(done.map(|r| r.status)),
        }
    });
    assert!(matches!(answer, Ok(408) | Err(Gone::Reset)), "{answer:?}");
    assert!(server.requests().is_empty());
    until("both are requests, not errors", || {
        let entry = proxy.cli().entry("fe", "127.0.0.1")?;
        (entry.get("http_req_cnt") == 2 && entry.get("http_err_cnt") == 0).then_some(())
    });
}

/// Each must be answered with 400 and closed, and not one byte may reach the server.
const SMUGGLING: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nContent-Length: 5\r\n\r\nhello!",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX-Space : x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
    "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.x\r\nHost: a\r\n\r\n",
    "GET / HTTQ/1.1\r\nHost: a\r\n\r\n",
    "GET nopath HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// Ambiguities that HAProxy still repairs or accepts, and this project refuses.
const STRICTER: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nabcd",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
];

#[test]
fn smuggling_attempts_are_400_and_nothing_is_forwarded() {
    let server = Server::http();
    let lines =
        "  stick-table type ip size 1k store http_err_cnt\n  tcp-request connection track-sc0 src";
    let proxy = site(lines, "", &server).start();
    let strict: &[&str] = if proxy.is_haproxy() { &[] } else { STRICTER };
    let mut wrong = Vec::new();
    for attempt in SMUGGLING.iter().chain(strict) {
        let mut client = Client::connect(proxy.addr("fe"));
        client.send(attempt);
        let answer = client.response().map(|r| r.status);
        let closed = client.is_closed();
        if answer != Ok(400) || !closed {
            wrong.push(format!(
                "{attempt:?} was answered {answer:?}, closed: {closed}"
            ));
        }
        // A second request after the attempt must not be served either: the framing is lost.
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        String::from_utf8_lossy(&server.bytes()),
        "",
        "nothing was forwarded"
    );
    let count = SMUGGLING.len() + strict.len();
    until("each is counted", || {
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .filter(|entry| entry.get("http_err_cnt") == count as i64)
    });
    let line = proxy.log_line("of an attempt", |line| line.contains("<BADREQ>"));
    assert!(line.contains(" 400 ") && line.contains(" PR-- "), "{line}");
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
}

#[test]
fn broken_chunks_are_400_or_close_and_never_reach_the_server_as_a_request() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nx",
        "5 x\r\nhello\r\n0\r\n\r\n",
        "5;a=\0\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
    ] {
        if body.contains('\0') && haproxy_lacks("passes NUL on") {
            continue;
        }
        let mut client = Client::connect(proxy.addr("fe"));
        client
            .send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .send(body);
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.response().map(|r| r.status);
        assert!(matches!(answer, Ok(400) | Err(_)), "{body:?}: {answer:?}");
    }
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    assert!(
        !server
            .requests()
            .iter()
            .any(|request| request.target == "/smuggled")
    );
}

#[test]
fn a_client_that_vanishes_inside_its_body_is_c_d() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
    until_true("the server has the head", || server.requests().len() == 1);
    client.leave();
    let line = proxy.log_line("of the loss", |line| line.contains("POST /echo"));
    assert!(line.contains(" CD-- ") || line.contains(" CH-- "), "{line}");
    until_true("the server's connection is let go", || server.open() == 0);
    assert!(server.requests()[0].body.is_empty());
}

#[test]
fn a_client_that_vanishes_inside_the_answer_is_c_d() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n");
        held.wait();
        let piece = vec![b'x'; 100_000];
        (0..500).all(|_| peer.write(&piece))
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    until_true("the answer begins", || server.requests().len() == 1);
    client.leave();
    gate.open();
    let line = proxy.log_line("of the loss", |line| line.contains("GET /"));
    assert!(line.contains(" CD-- "), "{line}");
    until_true("the server's connection is let go", || server.open() == 0);
}

#[test]
fn a_client_that_stops_sending_its_body_is_small_c_d() {
    if haproxy_lacks("waits for the server's time-out") {
        return;
    }
    let server = Server::http();
    let proxy = site("  timeout client 300ms", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
    let answer = client.response().map(|r| r.status);
    assert!(matches!(answer, Ok(408) | Err(_)), "{answer:?}");
    let line = proxy.log_line("of the loss", |line| line.contains("POST /echo"));
    assert!(line.contains(" cD-- ") || line.contains(" cH-- "), "{line}");
    until_true("the server's connection is let go", || server.open() == 0);
}

#[test]
fn thousands_of_silent_tracked_connections_do_not_slow_the_rest() {
    let server = Server::http();
    let lines = "  timeout client 60s\n  stick-table type ip size 100k expire 1h store conn_cur,conn_rate(10s)\n  tcp-request connection track-sc0 src";
    let proxy = site(lines, "", &server).start();
    let mut held = Vec::new();
    for i in 0..1500_u32 {
        let source = std::net::Ipv4Addr::from(0x7f01_0000 + i);
        held.push(Client::connect_from(source, proxy.addr("fe")));
    }
    until("all are tracked", || {
        (proxy.cli().entries("fe").len() >= 1500).then_some(())
    });
    let before = proxy.cpu_time();
    observe_for(Duration::from_secs(1));
    let idle = proxy.cpu_time() - before;
    assert!(
        idle < Duration::from_millis(300),
        "idle connections cost {idle:?} of a second"
    );
    for _ in 0..100 {
        assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    }
    drop(held);
    until_true("all are released", || {
        proxy
            .cli()
            .entries("fe")
            .iter()
            .all(|entry| entry.get("conn_cur") == 0)
    });
}

#[test]
fn descriptors_exhausted_pause_accepting_and_it_resumes() {
    if haproxy_lacks("accepts no more than it has descriptors for") {
        return;
    }
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let fe = proxy.addr("fe");
    assert_eq!(get(fe, "/").map(|r| r.status), Ok(200));
    // Lowered while it runs: nothing the proxy does at start-up can foresee it.
    let used = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .expect("it lives")
        .count() as u64;
    let limit = Rlimit {
        current: Some(used + 10),
        maximum: Some(used + 10),
    };
    let pid = rustix::process::Pid::from_raw(proxy.pid() as i32);
    rustix::process::prlimit(pid, Resource::Nofile, limit).expect("lowering is allowed");

    let mut held: Vec<Client> = (0..30).map(|_| Client::connect(fe)).collect();
    held[0].get("/");
    let paused = |line: &str| line.to_ascii_lowercase().contains("accept");
    let said = || {
        (proxy.stderr() + &proxy.stdout())
            .lines()
            .filter(|line| paused(line))
            .count()
    };
    until_true("a warning", || said() > 0);
    let before = proxy.cpu_time();
    observe_for(Duration::from_secs(1));
    let spent = proxy.cpu_time() - before;
    assert!(
        spent < Duration::from_millis(300),
        "it spins: {spent:?} in a second"
    );
    assert!(said() < 20, "{} warnings", said());
    drop(held);
    until_true("it resumes by itself", || {
        let mut client = Client::connect(fe);
        client.patience(Duration::from_secs(2));
        client.get("/").response().is_ok_and(|r| r.status == 200)
    });
}
