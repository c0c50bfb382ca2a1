//! Time-outs that are not the fault of anybody in particular: idle tunnels, idle CLI sessions, drains that take too long.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use cluster_tests::server::Gate;
use cluster_tests::wait::{observe_for, pace, until, until_true};
use cluster_tests::{Client, Gone, Launch, Server, get};
use rustix::process::Signal;

use crate::common::{config, site};

fn echo() -> Server {
    Server::raw(|mut peer| {
        while let Some(piece) = peer.some() {
            peer.write(piece);
        }
    })
}

#[test]
fn a_tunnel_has_its_own_time_out() {
    let server = echo();
    let proxy = config(
        "
listen tcp
  mode tcp
  option tcplog
  timeout client 20s
  timeout server 20s
  timeout tunnel 2s
  bind 127.0.0.1:{{port:tcp}}
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    let mut client = Client::connect(proxy.addr("tcp"));
    assert_eq!(client.send("ping").take(4), Ok(b"ping".to_vec()));
    assert!(matches!(client.ending().1, Gone::Closed | Gone::Reset));
    drop(client);
    let line = proxy.log_line("of the tunnel", |line| line.contains(" tcp/s1 "));
    assert!(line.contains(" cD ") || line.contains(" sD "), "{line}");
}

#[test]
fn activity_keeps_a_tunnel_open() {
    let server = echo();
    let proxy = config(
        "
listen tcp
  mode tcp
  timeout client 2s
  timeout server 2s
  bind 127.0.0.1:{{port:tcp}}
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    // Twice the time-out in steps far below it. Nothing can be said where the machine stalls for as long.
    let stays_open = || {
        let mut client = Client::connect(proxy.addr("tcp"));
        let mut last = Instant::now();
        for _ in 0..16 {
            let echoed = client.send("x").take(1);
            let stalled = last.elapsed() > Duration::from_secs(1);
            assert!(stalled || echoed == Ok(b"x".to_vec()), "{echoed:?}");
            if stalled {
                return false;
            }
            last = Instant::now();
            pace(Duration::from_millis(200));
        }
        true
    };
    assert!((0..10).any(|_| stays_open()), "it stalls all the time");
}

#[test]
fn idle_cli_sessions_are_closed() {
    let proxy = Launch::new(
        "
global
  stats socket {{cli}} level admin
  stats timeout 2s
frontend fe
  mode http
  timeout client 5s
  bind 127.0.0.1:{{port:fe}}
  http-request return
",
    )
    .start();
    let mut session = proxy.cli().open();
    session.send("prompt\n");
    assert_eq!(session.read_until("> "), "\n> ");
    session.rest();
}

#[test]
fn a_drain_is_cut_off_when_told_so() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, _| {
        held.wait();
        false
    });
    let mut proxy = Launch::new(
        "
global
  hard-stop-after 300ms
defaults
  mode http
  log stdout format raw local0
  option httplog
  timeout client 60s
  timeout server 60s
  timeout connect 5s
listen fe
  bind 127.0.0.1:{{port:fe}}
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    until_true("the request runs", || server.requests().len() == 1);
    proxy.signal(Signal::USR1);
    proxy.wait();
    gate.open();
    // What was cut off is told.
    let log = proxy.stdout();
    assert!(
        log.lines()
            .any(|line| line.contains(" fe/s1 ") && line.contains(" K")),
        "{log}"
    );
}

#[test]
fn requests_arriving_during_a_drain_are_answered_and_closed() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |request, peer| {
        if request.target == "/hold" {
            held.wait();
        }
        peer.serve("", request)
    });
    let mut proxy = site("", "", &server).start();
    let fe = proxy.addr("fe");
    let mut client = Client::connect(fe);
    client.get("/hold");
    until_true("the request runs", || server.requests().len() == 1);
    proxy.signal(Signal::USR1);
    until_true("it does not listen any more", || {
        !cluster_tests::ports::is_listening(fe.port())
    });
    gate.open();
    let answer = client.response().expect("the answer");
    assert_eq!(answer.status, 200);
    if !proxy.is_haproxy() {
        assert!(
            answer.closes(),
            "the client is told not to come back on this connection"
        );
    }
    drop(client);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn clients_of_both_families_have_the_keys_the_table_type_allows() {
    if TcpListener::bind("[::1]:0").is_err() {
        cluster_tests::tools::skip("no IPv6 on this machine");
        return;
    }
    let proxy = config(
        "
frontend fe
  bind [::]:{{port:fe}} v4v6
  tcp-request connection track-sc0 src table four
  tcp-request connection track-sc1 src table six
  http-request return status 200 content-type text/plain lf-string %[src]
backend four
  stick-table type ip size 100 store conn_cnt
backend six
  stick-table type ipv6 size 100 store conn_cnt
",
    );
    let proxy = proxy.start();
    let four = proxy.addr("fe");
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, four.port()));
    assert!(get(four, "/").is_ok_and(|r| r.text().ends_with("127.0.0.1")));
    assert_eq!(get(six, "/").map(|r| r.text()), Ok("::1".to_owned()));
    let keys = |table: &str| {
        let mut keys: Vec<String> = proxy
            .cli()
            .entries(table)
            .iter()
            .map(|e| e.key().to_owned())
            .collect();
        keys.sort();
        keys
    };
    if crate::common::haproxy_lacks("keys for IPv4-compatible addresses") {
        return;
    }
    // ::1 is of the IPv4-compatible kind, so even the IPv4 table has a key for it.
    assert_eq!(keys("four"), ["0.0.0.1", "127.0.0.1"]);
    assert_eq!(keys("six"), ["::1", "::ffff:127.0.0.1"]);
}

/// A paused virtual machine, a container without its share of the processor.
#[test]
fn what_came_in_while_the_process_stood_still_came_in_time() {
    let proxy = config(
        "
frontend fe
  timeout http-keep-alive 1s
  bind 127.0.0.1:{{port:fe}}
  http-request return status 200
",
    )
    .start();
    // Nothing can be said where the machine itself has stalled before.
    let mut clients = until("all have been served in time", || {
        let begun = Instant::now();
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(proxy.addr("fe"))).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
        }
        proxy.signal(Signal::STOP);
        if begun.elapsed() < Duration::from_millis(700) {
            return Some(clients);
        }
        proxy.signal(Signal::CONT);
        None
    });
    for client in &mut clients {
        client.get("/");
    }
    observe_for(Duration::from_millis(1500));
    proxy.signal(Signal::CONT);
    for client in &mut clients {
        assert_eq!(client.response().map(|r| r.status), Ok(200));
    }
}
