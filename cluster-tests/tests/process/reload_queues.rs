//! What waits in the queue of a listening socket that a reload removes, or a stop closes.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster_tests::wait::until_true;
use cluster_tests::{Client, Launch, get, ports};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::reload_tables::reload;
use crate::supervisor::{Load, edit, master, workers};

/// Threads share a UNIX socket: when it is closed, each may find that another one was faster.
#[test]
fn threads_that_share_a_socket_close_it_together() {
    if haproxy_lacks("what waits in a queue is reset") {
        return;
    }
    let head = HEAD.replacen("global\n", "global\n  nbthread 2\n", 1);
    let proxy = Launch::new(&format!(
        "{head}
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
  bind unix@{{{{dir}}}}/a.sock mode 600
  http-request return status 200
"
    ))
    .supervised()
    .start();
    let path = proxy.dir().join("a.sock");
    let stop = Arc::<AtomicBool>::default();
    let stops = Arc::clone(&stop);
    let visitor = std::thread::spawn(move || {
        while !stops.load(Ordering::Relaxed) {
            let _ = UnixStream::connect(&path);
        }
    });
    for round in 0..12 {
        let (from, to) = match round % 2 {
            0 => ("mode 600", "mode 666"),
            _ => ("mode 666", "mode 600"),
        };
        edit(&proxy, from, to);
        let said = master(&proxy).ask("reload");
        assert!(said.starts_with("Success=1\n"), "{said}");
    }
    stop.store(true, Ordering::Relaxed);
    visitor.join().expect("no panic");
    until_true("old workers end", || workers(&proxy).len() == 1);
}

/// There is no place for who waits in the queue as long as another client stays, who has to be told that it is time to go.
#[test]
fn who_waits_for_a_place_does_not_keep_others_from_leaving() {
    if haproxy_lacks("what waits in a queue is reset") {
        return;
    }
    let head = HEAD.replacen("global\n", "global\n  nbthread 1\n", 1);
    for removed in [true, false] {
        let mut proxy = Launch::new(&format!(
            "{head}
frontend fe
  maxconn 1
  bind 127.0.0.1:{{{{port:b}}}}
  http-request return status 200
frontend other
  bind 127.0.0.1:{{{{port:other}}}}
  http-request return status 200
"
        ))
        .supervised()
        .start();
        let b = proxy.addr("b");
        let mut inside = Client::connect(b);
        assert!(!inside.get("/").response().expect("an answer").closes());
        let mut waiting = Client::connect(b);
        waiting.get("/");
        if removed {
            edit(&proxy, &format!("bind {b}"), "bind 127.0.0.1:0");
            let said = master(&proxy).ask("reload");
            assert!(said.starts_with("Success=1\n"), "{said}");
        } else {
            proxy.signal(Signal::USR1);
        }
        until_true("the port refuses", || !ports::is_listening(b.port()));
        let mut closes = false;
        until_true("it is told to go", || {
            closes = closes || inside.get("/").response().map_or(true, |a| a.closes());
            closes
        });
        drop(inside);
        let answer = waiting.response().expect("it has waited in the queue");
        assert_eq!(answer.status, 200);
        drop(waiting);
        if removed {
            until_true("the old worker ends", || workers(&proxy).len() == 1);
            let answer = get(proxy.addr("other"), "/");
            assert_eq!(answer.map(|a| a.status), Ok(200));
        } else {
            assert_eq!(proxy.wait().code(), Some(0));
        }
    }
}

/// A process that cannot have as many descriptors as it takes says so; a reload that cannot changes nothing.
#[test]
fn descriptors_that_are_scarce_cost_nothing_that_serves() {
    if haproxy_lacks("a reload of this kind") {
        return;
    }
    let binds = |many: usize| -> String {
        (0..many)
            .map(|i| format!("  bind unix@{{{{dir}}}}/{i}.sock\n"))
            .collect()
    };
    let config = |many| {
        let head = HEAD.replacen("global\n", "global\n  nbthread 2\n  maxconn 10\n", 1);
        let binds = binds(many);
        format!(
            "{head}\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n{binds}  http-request return status 200\n"
        )
    };
    let limited = ["prlimit", "--nofile=200:200", "--"];
    if cluster_tests::tools::find("prlimit").is_none() {
        return cluster_tests::tools::lacks("no prlimit: descriptors are not made scarce");
    }
    let mut proxy = Launch::new(&config(60))
        .wrapper(&limited)
        .supervised()
        .spawn();
    assert_eq!(proxy.wait().code(), Some(1), "{}", proxy.stderr());
    assert!(
        proxy.stderr().contains("too low to listen"),
        "{}",
        proxy.stderr()
    );
    // As many as it takes once, but not for two at a time.
    let proxy = Launch::new(&config(40))
        .wrapper(&limited)
        .supervised()
        .start();
    for _ in 0..3 {
        let before = proxy.cli().info("Pid");
        let said = master(&proxy).ask("reload");
        let served = said.starts_with("Success=1\n");
        assert!(served || said.starts_with("Success=0\n"), "{said}");
        assert!(served || proxy.cli().info("Pid") == before, "{said}");
        let answer = get(proxy.addr("fe"), "/");
        assert_eq!(answer.map(|a| a.status), Ok(200), "{said}");
    }
}

/// Whoever has heard of a reload meets nothing that it removed.
#[test]
fn a_removed_port_refuses_as_soon_as_the_reload_is_over() {
    if haproxy_lacks("says so before") {
        return;
    }
    let proxy = Launch::new(&format!(
        "{HEAD}
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
  http-request return status 200
frontend other
  bind 127.0.0.1:{{{{port:other}}}}
  http-request return status 200
"
    ))
    .supervised()
    .start();
    let fe = proxy.addr("fe");
    let load = Load::on(proxy.addr("other"));
    for round in 0..10 {
        let (from, to) = (format!("bind {fe}"), "bind 127.0.0.1:0");
        edit(&proxy, &from, to);
        let said = master(&proxy).ask("reload");
        assert!(said.starts_with("Success=1\n"), "{said}");
        assert!(TcpStream::connect(fe).is_err(), "{round}");
        edit(&proxy, to, &from);
        let said = master(&proxy).ask("reload");
        assert!(said.starts_with("Success=1\n"), "{said}");
        assert_eq!(get(fe, "/").map(|a| a.status), Ok(200));
    }
    assert_eq!(load.failures(), 0);
}

/// A supervisor holds what two workers listen on, and starts them with its own limit.
#[test]
fn a_low_soft_limit_of_descriptors_is_raised() {
    if haproxy_lacks("this is about our own supervisor") {
        return;
    }
    if cluster_tests::tools::find("prlimit").is_none() {
        cluster_tests::tools::lacks("no prlimit: descriptors are not limited");
        return;
    }
    let head = HEAD.replacen("global\n", "global\n  nbthread 8\n", 1);
    let binds: String = (0..6)
        .map(|i| format!("  bind 127.0.0.1:{{{{port:b{i}}}}}\n"))
        .collect();
    let config = format!("{head}\nfrontend fe\n{binds}  http-request return status 200\n");
    let proxy = Launch::new(&config)
        .supervised()
        .wrapper(&["prlimit", "--nofile=80:", "--"])
        .start();
    for _ in 0..2 {
        reload(&proxy);
        assert_eq!(get(proxy.addr("b5"), "/").expect("an answer").status, 200);
    }
}
