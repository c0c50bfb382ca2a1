//! What went wrong once: aborts, leftovers and counts at the seams between exchanges.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cluster_tests::server::Gate;
use cluster_tests::wait::until_true;
use cluster_tests::{Client, Proxy, Server, get};

use crate::common::{config, haproxy_lacks, site};

/// A client that sends a request and can vanish with a reset.
fn caller(addr: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("the proxy listens");
    stream
        .write_all(request.as_bytes())
        .expect("the proxy reads");
    stream
}

fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option");
    drop(stream);
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A server that keeps `/hold...` waiting.
fn holding() -> (Server, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |request, peer| {
        if request.target.starts_with("/hold") {
            held.wait();
        }
        peer.serve("s1", request)
    });
    (server, gate)
}

fn number(proxy: &Proxy, service: &str, column: &str) -> u32 {
    let text = proxy.cli().stat("be", service, column);
    text.parse().unwrap_or(0)
}

#[test]
fn what_a_refused_answer_leaves_behind_answers_nobody() {
    let hidden = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET";
    let server = Server::with(move |request, peer| match request.target.as_str() {
        "/garbage" => peer.write(format!("no HTTP at all\r\n\r\n{hidden}")),
        "/denied" => peer.reply(200, "X-Deny: 1\r\n", hidden),
        "/cut" => {
            peer.write("HTTP/1.1 200 OK\r\nX-Part: ");
            false
        }
        _ => peer.serve("", request),
    });
    let deny = "  http-response deny if { res.hdr(x-deny) -m found }";
    let proxy = site("", deny, &server).start();
    for bad in ["/garbage", "/denied", "/cut"] {
        let mut client = Client::connect(proxy.addr("fe"));
        client.get(bad);
        assert_eq!(client.response().map(|r| r.status), Ok(502), "{bad}");
        let next = client.get("/good").response().expect("an answer");
        assert_eq!((next.status, next.text().as_str()), (200, "hello"), "{bad}");
    }
}

#[test]
fn an_error_after_a_long_wait_is_answered_logged_and_counted() {
    let server = Server::with(|_, peer| {
        peer.body();
        peer.wait_closed();
        false
    });
    let frontend = "  http-request track-sc0 src table be";
    let backend = "  timeout server 1500ms\n  stick-table type ip size 100 expire 1m store bytes_in_cnt,bytes_out_cnt";
    let proxy = site(frontend, backend, &server).start();
    let body = "x".repeat(5000);
    let head = "POST /late HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n";
    let mut client = Client::connect(proxy.addr("fe"));
    client.send(format!("{head}{body}"));
    assert_eq!(client.response().map(|r| r.status), Ok(504));
    let line = proxy.log_line("of the failure", |line| line.contains("/late"));
    assert!(line.contains("sH--"), "{line}");
    // HAProxy counts its own form of the head.
    let sent = (head.len() + body.len()) as i64;
    let about = sent..=sent + if proxy.is_haproxy() { 20 } else { 0 };
    until_true("what was sent is counted", || {
        let entry = proxy.cli().entry("be", "127.0.0.1").expect("an entry");
        about.contains(&i64::from(number(&proxy, "BACKEND", "bin")))
            && about.contains(&entry.get("bytes_in_cnt"))
    });
    assert!(!proxy.stderr().contains("panic"));
}

#[test]
fn a_raised_maxconn_lets_all_in_that_fit() {
    let (server, gate) = holding();
    let lines = "  timeout queue 30s\n  server s1 {{s1}} maxconn 1";
    let proxy = config(&format!(
        "frontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  default_backend be\nbackend be\n{lines}\n"
    ))
    .set("s1", server.addr())
    .start();
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(proxy.addr("fe"))).collect();
    for client in &mut clients {
        client.get("/hold");
    }
    let waiting = || number(&proxy, "BACKEND", "qcur") + number(&proxy, "s1", "qcur");
    until_true("one is served", || {
        server.requests().len() == 1 && waiting() >= 5
    });
    proxy.ask("set maxconn server be/s1 4");
    until_true("four are served", || {
        // HAProxy looks at its queue when the next request ends.
        if proxy.is_haproxy() {
            gate.open_once();
        }
        server.requests().len() >= 4
    });
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().map(|r| r.status), Ok(200));
    }
}

#[test]
fn a_backup_takes_nobody_from_the_queue_while_others_serve() {
    let (server, gate) = holding();
    let backup = Server::named("backup");
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  default_backend be
backend be
  timeout queue 30s
  server s1 {{s1}} maxconn 1
  server s2 {{s2}} backup
",
    )
    .set("s1", server.addr())
    .set("s2", backup.addr())
    .start();
    let mut first = Client::connect(proxy.addr("fe"));
    first.get("/hold");
    until_true("one is served", || server.requests().len() == 1);
    let mut second = Client::connect(proxy.addr("fe"));
    second.get("/name");
    until_true("one waits", || {
        number(&proxy, "BACKEND", "qcur") + number(&proxy, "s1", "qcur") == 1
    });
    gate.open();
    assert_eq!(first.response().map(|r| r.status), Ok(200));
    assert_eq!(second.response().map(|r| r.text()), Ok("s1".to_owned()));
    assert_eq!(backup.accepted(), 0);
}

#[test]
fn a_reset_ends_waiting_in_the_queue_and_for_the_rest_of_an_answer() {
    if haproxy_lacks("a reset is noticed with the next byte only") {
        return;
    }
    let server = Server::with(|request, peer| match request.target.as_str() {
        "/half" => {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            peer.wait_closed();
            false
        }
        _ => peer.serve("", request),
    });
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request track-sc0 src table be
  default_backend be
backend be
  stick-table type ip size 100 expire 1m store conn_cur
  timeout queue 30s
  server s1 {{s1}} maxconn 1
",
    )
    .set("s1", server.addr())
    .start();
    let first = caller(proxy.addr("fe"), &request("/half"));
    until_true("one is served", || server.requests().len() == 1);
    let second = caller(proxy.addr("fe"), &request("/queued"));
    until_true("one waits", || number(&proxy, "BACKEND", "qcur") == 1);
    reset(second);
    until_true("its place in the queue is free", || {
        number(&proxy, "BACKEND", "qcur") == 0
    });
    until_true("it is not tracked any more", || {
        let entry = proxy.cli().entry("be", "127.0.0.1");
        entry.is_some_and(|entry| entry.get("conn_cur") == 1)
    });
    reset(first);
    until_true("the server's place is free", || {
        number(&proxy, "s1", "scur") == 0
    });
    assert_eq!(get(proxy.addr("fe"), "/next").map(|r| r.status), Ok(200));
    let targets: Vec<String> = server.requests().iter().map(|r| r.target.clone()).collect();
    assert_eq!(targets, ["/half", "/next"]);
    until_true("nobody is tracked", || {
        let entry = proxy.cli().entry("be", "127.0.0.1");
        entry.is_some_and(|entry| entry.get("conn_cur") == 0)
    });
}

#[test]
fn a_body_that_was_not_sent_is_no_request() {
    let inner = "GET /inner HTTP/1.1\r\nHost: test\r\n\r\n";
    let body = inner.repeat(6000 / inner.len());
    let head = format!(
        "POST /outer HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request return status 200 content-type text/plain string inner if { path /inner }
  http-request return status 200 content-type text/plain string next if { path /next }
  default_backend be
backend be
  retries 0
  server s1 {{s1}}
",
    )
    .set("s1", Server::absent())
    .start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send(format!("{head}{body}{}", request("/next")));
    assert_eq!(client.response().map(|r| r.status), Ok(503));
    if let Ok(next) = client.response() {
        assert_eq!(next.text(), "next");
    }
    assert!(!proxy.stdout().contains("/inner"));
}

#[test]
fn a_dead_pooled_connection_is_the_clients_to_retry_or_nobodys() {
    // Every connection serves one request and dies with the second.
    let server = Server::raw(|mut peer| {
        let one = peer.request().is_some() && peer.body().is_some();
        if one && peer.reply(200, "", "once") && peer.request().is_some() {
            peer.body();
        }
    });
    let proxy = site("", "", &server).start();
    let post = "POST /post HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nab";
    let mut used = Client::connect(proxy.addr("fe"));
    assert_eq!(used.get("/first").response().map(|r| r.status), Ok(200));
    // A client's first request meets no dead connection.
    let mut fresh = Client::connect(proxy.addr("fe"));
    assert_eq!(fresh.send(post).response().map(|r| r.status), Ok(200));
    // Later ones may; the client then sees the end of its connection, not an error.
    assert!(used.send(post).response().is_err());
    let posts = server
        .requests()
        .iter()
        .filter(|r| r.method == "POST")
        .count();
    assert_eq!(posts, 2, "one each, none repeated");
}

#[test]
fn a_body_wrong_from_its_start_is_502() {
    let server = Server::with(|_, peer| {
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n")
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    assert_eq!(client.get("/").response().map(|r| r.status), Ok(502));
    let line = proxy.log_line("of the failure", |line| line.contains(" 502 "));
    assert!(line.contains("PH--"), "{line}");
}

#[test]
fn statistics_tell_failures_as_haproxy_does() {
    let server = Server::with(|request, peer| match request.target.as_str() {
        "/dies" => false,
        "/cut" => {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut");
            false
        }
        _ => peer.serve("", request),
    });
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  timeout tarpit 20s
  http-request tarpit if { path /tarpit }
  use_backend none if { path /none }
  default_backend be
backend be
  retries 0
  server s1 {{s1}}
backend none
",
    )
    .set("s1", server.addr())
    .start();
    let stat = |proxy_name: &str, service: &str, column: &str| {
        let text = proxy.cli().stat(proxy_name, service, column);
        text.parse::<u32>().unwrap_or(0)
    };
    assert_eq!(get(proxy.addr("fe"), "/dies").map(|r| r.status), Ok(502));
    until_true("a request without a response does not count", || {
        stat("be", "s1", "eresp") == 1 && stat("be", "s1", "req_tot") == 0
    });
    assert!(get(proxy.addr("fe"), "/cut").is_err());
    until_true("a cut body is a failed response", || {
        stat("be", "s1", "eresp") == 2
            && stat("be", "s1", "srv_abrt") == 1
            && stat("be", "s1", "req_tot") == 1
    });
    assert_eq!(get(proxy.addr("fe"), "/none").map(|r| r.status), Ok(503));
    until_true("a backend without servers has a failed connection", || {
        stat("none", "BACKEND", "econ") == 1
    });
    if haproxy_lacks("a client that leaves a tarpit is noticed at its end only") {
        return;
    }
    // Of the one that died, and of the one without servers.
    until_true("both answers are counted", || {
        stat("fe", "FRONTEND", "hrsp_5xx") == 2
    });
    drop(caller(proxy.addr("fe"), &request("/tarpit")));
    let line = proxy.log_line("of the tarpit", |line| line.contains("/tarpit"));
    assert!(line.contains(" 500 ") && line.contains("PT--"), "{line}");
    until_true("the third one is counted", || {
        stat("fe", "FRONTEND", "hrsp_5xx") == 3
    });
}

#[test]
fn a_client_is_told_to_continue_once() {
    let server = Server::http();
    let proxy = site("  option http-buffer-request", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    let head =
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.send(head);
    assert_eq!(client.response().map(|r| r.status), Ok(100));
    let answer = client.send("hello").response().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
}

#[test]
fn tunnels_count_what_came_with_the_heads() {
    let server = Server::with(|_, peer| {
        peer.write("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nwelcome");
        peer.take(5);
        false
    });
    let frontend = "  tcp-request connection track-sc0 src table be";
    let backend = "  stick-table type ip size 100 expire 1m store bytes_in_cnt,bytes_out_cnt";
    let proxy = site(frontend, backend, &server).start();
    if proxy.is_haproxy() {
        return;
    }
    let head = "GET /up HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let mut client = Client::connect(proxy.addr("fe"));
    client.send(format!("{head}hello"));
    assert!(client.rest().ends_with(b"welcome"));
    client.leave();
    proxy.log_line("of the tunnel", |line| line.contains("/up"));
    let answer = "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nwelcome";
    let wanted = [head.len() as i64 + 5, answer.len() as i64];
    until_true("all bytes are counted, once", || {
        let entry = proxy.cli().entry("be", "127.0.0.1").expect("an entry");
        ["bytes_in_cnt", "bytes_out_cnt"].map(|name| entry.get(name)) == wanted
    });
}
