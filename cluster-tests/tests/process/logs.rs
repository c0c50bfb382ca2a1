//! Log lines: where they go, their shape, and the termination codes.

use std::net::UdpSocket;

use cluster_tests::wait::{PATIENCE, until_true};
use cluster_tests::{Client, Launch, Server, get};

use crate::common::{config, haproxy_lacks, site};

/// Whether `text` has the shape of `pattern`, in which `#` stands for digits and everything else for itself.
fn shaped(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    for (i, literal) in pattern.split('#').enumerate() {
        if i > 0 {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 {
                return false;
            }
            rest = &rest[digits..];
        }
        match rest.strip_prefix(literal) {
            Some(more) => rest = more,
            None => return false,
        }
    }
    rest.is_empty()
}

/// The line without the name of the month, which is the only word in it that a pattern of digits cannot match.
fn without_month(line: &str) -> String {
    let (before, after) = line.split_once('/').expect("a date");
    let (_month, after) = after.split_once('/').expect("a date");
    format!("{before}/Mon/{after}")
}

#[test]
fn httplog_lines_have_the_documented_shape() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    assert_eq!(
        get(proxy.addr("fe"), "/size/100?q=\"x\"").map(|r| r.status),
        Ok(200)
    );
    let line = without_month(&proxy.log_line("of the request", |line| line.contains("/size/100")));
    let pattern = "127.0.0.1:# [#/Mon/#:#:#:#.#] fe be/s1 #/#/#/#/# 200 # - - ---- #/#/#/#/# #/# \"GET /size/100?q=";
    let head: String = line
        .chars()
        .take(line.find("?q=").expect("the query") + 3)
        .collect();
    assert!(shaped(&head, pattern), "{line}");
    assert!(line.ends_with("HTTP/1.1\""), "{line}");
}

#[test]
fn tcplog_lines_have_the_documented_shape() {
    let server = Server::raw(|mut peer| {
        peer.write("bye");
    });
    let proxy = config(
        "
listen tcp
  mode tcp
  option tcplog
  bind 127.0.0.1:{{port:tcp}}
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    assert_eq!(Client::connect(proxy.addr("tcp")).rest(), b"bye");
    let line = without_month(&proxy.log_line("of the connection", |line| line.contains(" tcp ")));
    let pattern = "127.0.0.1:# [#/Mon/#:#:#:#.#] tcp tcp/s1 #/#/# 3 -- #/#/#/#/# #/#";
    assert!(shaped(&line, pattern), "{line}");
}

fn udp_log(target: &str, rest: &str) -> (UdpSocket, Launch) {
    let sink = UdpSocket::bind("127.0.0.1:0").expect("a port");
    sink.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let addr = sink.local_addr().expect("an address");
    let launch = Launch::new(&format!(
        "
global
  log {addr} {target}
defaults
  mode http
  log global
  timeout client 5s
  timeout connect 5s
  timeout server 5s
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
{rest}
  http-request return status 200
"
    ));
    (sink, launch)
}

fn datagram(sink: &UdpSocket, wanted: &str) -> String {
    let mut buf = [0; 65536];
    loop {
        let (count, _) = sink.recv_from(&mut buf).expect("a datagram");
        let text = String::from_utf8_lossy(&buf[..count]).into_owned();
        if text.contains(wanted) {
            return text;
        }
    }
}

#[test]
fn syslog_over_udp_in_both_formats() {
    let (sink, launch) = udp_log("local3", "  option httplog");
    let proxy = launch.start();
    assert_eq!(get(proxy.addr("fe"), "/old").map(|r| r.status), Ok(200));
    let text = datagram(&sink, "/old");
    let name = if proxy.is_haproxy() {
        "haproxy"
    } else {
        "remora"
    };
    // local3 is facility 19, a request is of level info: 19 * 8 + 6.
    assert!(text.starts_with("<158>"), "{text}");
    assert!(
        text.contains(&format!("{name}[{}]: 127.0.0.1:", proxy.pid())),
        "{text}"
    );

    // No host name is sent unless 'log-send-hostname' is written: the receiver knows who sent it.
    let header = text.split(name).next().unwrap_or_default();
    assert_eq!(header.split_whitespace().count(), 3, "{text}");

    let (sink, launch) = udp_log("format rfc5424 local0 info", "  option httplog");
    let proxy = launch.start();
    assert_eq!(get(proxy.addr("fe"), "/new").map(|r| r.status), Ok(200));
    let text = datagram(&sink, "/new");
    assert!(text.starts_with("<134>1 "), "{text}");
    assert!(
        text.contains(&format!(" {name} {} - - 127.0.0.1:", proxy.pid())),
        "{text}"
    );
}

#[test]
fn a_level_limit_and_no_log_silence() {
    let (sink, launch) = udp_log("local0 notice", "  option httplog");
    let proxy = launch.start();
    assert_eq!(get(proxy.addr("fe"), "/quiet").map(|r| r.status), Ok(200));
    sink.set_nonblocking(true).expect("an option");
    let mut buf = [0; 4096];
    // A later event that is logged would come after; none of the requests may.
    drop(proxy);
    while let Ok((count, _)) = sink.recv_from(&mut buf) {
        let text = String::from_utf8_lossy(&buf[..count]).into_owned();
        assert!(!text.contains("/quiet"), "{text}");
    }
    let server = Server::http();
    let proxy = site("  no log", "", &server).start();
    assert_eq!(get(proxy.addr("fe"), "/quiet").map(|r| r.status), Ok(200));
    proxy
        .cli()
        .stat_becomes("fe", "FRONTEND", &[("req_tot", "1")]);
    assert!(!proxy.stdout().contains("/quiet"));
}

#[test]
fn dontlognull_leaves_out_connections_without_data() {
    let server = Server::http();
    for (option, logged) in [("", true), ("  option dontlognull", false)] {
        let proxy = site(option, "", &server).start();
        drop(Client::connect(proxy.addr("fe")));
        until_true("the empty connection has ended", || {
            proxy.cli().stat("fe", "FRONTEND", "scur") == "0"
                && proxy.cli().stat("fe", "FRONTEND", "stot") != "0"
        });
        assert_eq!(get(proxy.addr("fe"), "/after").map(|r| r.status), Ok(200));
        proxy.log_line("of the request", |line| line.contains("/after"));
        let empty = |line: &str| line.contains("<BADREQ>") || line.contains(" 400 ");
        if logged {
            proxy.log_line("of the empty connection", empty);
        } else {
            assert!(!proxy.stdout().lines().any(empty), "{}", proxy.stdout());
        }
    }
}

#[test]
fn request_headers_reach_the_response_rules_through_variables() {
    let server = Server::http();
    let lines = "  http-request set-var(txn.ua) req.hdr(user-agent)
  http-response set-header X-Ua %[var(txn.ua)]";
    let proxy = site(lines, "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: tester/1\r\n\r\n");
    assert!(
        client
            .response()
            .is_ok_and(|r| r.header("x-ua") == Some("tester/1"))
    );
}

#[test]
fn log_lines_go_to_stderr_and_carry_a_tag() {
    if haproxy_lacks("nothing, but its standard error is not captured the same way") {
        return;
    }
    let proxy = Launch::new(
        "
global
  log stderr format short daemon
  log-tag mine
defaults
  mode http
  log global
  option httplog
  timeout client 5s
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request return status 200
",
    )
    .start();
    assert_eq!(get(proxy.addr("fe"), "/x").map(|r| r.status), Ok(200));
    until_true("the line comes", || {
        proxy.stderr().lines().any(|line| {
            line.starts_with("<6>127.0.0.1:") && line.contains("GET /x")
                || line.starts_with("<6>") && line.contains("GET /x")
        })
    });
}
