//! A supervisor and its workers: reloads and crashes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use cluster_tests::cli::Cli;
use cluster_tests::server::Gate;
use cluster_tests::wait::until_true;
use cluster_tests::{Client, Launch, Proxy, Server, get, ports};
use rustix::process::{Pid, Signal};

use crate::common::{HEAD, haproxy_lacks};

pub(crate) const OK: &str = "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request return status 200 content-type text/plain string one
";

/// A supervisor whose one frontend answers `one`.
pub(crate) fn supervised(head: &str) -> Launch {
    let rest = OK;
    Launch::new(&format!("{head}{rest}")).supervised()
}

pub(crate) fn master(proxy: &Proxy) -> Cli {
    Cli::new(proxy.dir().join("master.sock"))
}

/// Replaces text in the configuration, in one step: whoever watches it sees no half of it.
pub(crate) fn edit(proxy: &Proxy, from: &str, to: &str) {
    let path = proxy.dir().join("test.cfg");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{from:?} in {text}");
    let new = proxy.dir().with_extension("new");
    std::fs::write(&new, text.replace(from, to)).expect("the configuration");
    std::fs::rename(new, path).expect("the configuration");
}

/// The process id of the worker that serves.
pub(crate) fn worker(proxy: &Proxy) -> u32 {
    master(proxy).worker()
}

/// All processes of this table but the supervisor.
pub(crate) fn workers(proxy: &Proxy) -> BTreeSet<u32> {
    let table = master(proxy).ask("show proc");
    let pids = table
        .lines()
        .skip(2)
        .filter_map(|row| row.split_whitespace().next()?.parse().ok());
    pids.collect()
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it lives");
}

/// Clients that keep asking, some on one connection, some on a new one each time.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn on(fe: SocketAddr) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            answered: Arc::default(),
            failed: Arc::default(),
            threads: Vec::new(),
        };
        for keep in [false, false, true, true] {
            let (stop, answered, failed) = (
                Arc::clone(&load.stop),
                Arc::clone(&load.answered),
                Arc::clone(&load.failed),
            );
            load.threads.push(std::thread::spawn(move || {
                let mut client = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut current = client.take().unwrap_or_else(|| Client::connect(fe));
                    match current.get("/").response() {
                        Ok(answer) if answer.status == 200 => {
                            answered.fetch_add(1, Ordering::Relaxed);
                            client = (keep && !answer.closes()).then_some(current);
                        }
                        _ => {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }));
        }
        load.moves();
        load
    }

    /// Waits until clients have been served again since now.
    pub(crate) fn moves(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        until_true("clients are served", || {
            self.answered.load(Ordering::Relaxed) > before + 50
        });
    }

    pub(crate) fn failures(self) -> usize {
        self.finish().1
    }

    /// How many requests were answered, and how many were not.
    pub(crate) fn finish(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no client panics");
        }
        (
            self.answered.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
    }
}

#[test]
fn reloads_under_load_fail_no_request() {
    if haproxy_lacks("resets keep-alive connections") {
        return;
    }
    let proxy = supervised(HEAD).start();
    let load = Load::on(proxy.addr("fe"));
    let mut seen = BTreeSet::from([worker(&proxy)]);
    for round in 0..20 {
        if round % 2 == 0 {
            let said = master(&proxy).ask("reload");
            assert!(said.starts_with("Success=1\n--\n"), "{said}");
        } else {
            let before = worker(&proxy);
            proxy.signal(if round % 4 == 1 {
                Signal::USR2
            } else {
                Signal::HUP
            });
            until_true("another worker serves", || worker(&proxy) != before);
        }
        load.moves();
        seen.insert(worker(&proxy));
    }
    assert_eq!(seen.len(), 21, "a new process each time");
    assert_eq!(load.failures(), 0);
    until_true("old workers end", || workers(&proxy).len() == 1);
    assert!(master(&proxy).ask("show proc").contains(" 20 [failed: 0] "));
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let proxy = supervised(HEAD).start();
    let before = worker(&proxy);
    edit(&proxy, "bind ", "bnid 1\n  bind ");
    let said = master(&proxy).ask("reload");
    assert!(
        said.starts_with("Success=0\n--\n") && said.contains("unknown keyword 'bnid'"),
        "{said}"
    );
    assert!(said.contains("[test.cfg:"), "the place is named: {said}");
    assert_eq!(worker(&proxy), before);
    let table = master(&proxy).ask("show proc");
    assert!(table.contains(" 1 [failed: 1] "), "{table}");
    assert_eq!(
        get(proxy.addr("fe"), "/").map(|r| r.text()),
        Ok("one".into())
    );
    let mut session = master(&proxy).open();
    session.send("prompt\n");
    session.read_until("master[ReloadFailed]> ");
    assert!(master(&proxy).ask("show startup-logs").contains("bnid"));
    edit(&proxy, "bnid 1\n  ", "");
    edit(&proxy, "string one", "string two");
    assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
    session.send("\n");
    session.read_until("master> ");
    assert_eq!(
        get(proxy.addr("fe"), "/").map(|r| r.text()),
        Ok("two".into())
    );
}

#[test]
fn a_killed_worker_is_replaced_and_nobody_is_refused() {
    if haproxy_lacks("ends with its worker") {
        return;
    }
    let proxy = supervised(HEAD).start();
    let fe = proxy.addr("fe");
    let mut held = Client::connect(fe);
    assert_eq!(held.get("/").response().map(|r| r.status), Ok(200));
    // More often than the first, immediate replacement.
    for _ in 0..3 {
        let before = worker(&proxy);
        kill(before, Signal::KILL);
        // Whether a new one is there already or not: the connection waits.
        for _ in 0..20 {
            assert_eq!(get(fe, "/").map(|r| r.status), Ok(200));
        }
        assert_ne!(worker(&proxy), before);
    }
    assert!(held.get("/").response().is_err(), "its process is gone");
    proxy.says("(killed by signal 9)");
}

#[test]
fn a_worker_that_dies_before_it_is_ready_fails_the_reload() {
    let proxy = supervised(HEAD).start();
    let before = worker(&proxy);
    // Everything is in order but a socket that cannot be opened.
    edit(&proxy, "bind ", "bind /nonexistent/dir/sock\n  bind ");
    let said = master(&proxy).ask("reload");
    assert!(
        said.starts_with("Success=0\n") && said.contains("/nonexistent/dir/sock"),
        "{said}"
    );
    assert_eq!(worker(&proxy), before);
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
}

#[test]
fn binds_come_go_and_change() {
    let config = format!("{HEAD}{}", OK);
    let proxy = Launch::new(&config.replace(
        "  bind 127.0.0.1:{{port:fe}}\n",
        "  bind 127.0.0.1:{{port:fe}}\n  bind 127.0.0.1:{{port:more}}\n",
    ))
    .supervised()
    .start();
    let (fe, more) = (proxy.addr("fe"), proxy.addr("more"));
    let more_line = format!("  bind {more}\n");
    let load = Load::on(fe);
    let reload = || {
        let said = master(&proxy).ask("reload");
        assert!(said.starts_with("Success=1\n"), "{said}");
    };
    // Removed: the port refuses, although a client of it keeps the old worker busy.
    let mut held = Client::connect(more);
    assert_eq!(held.get("/").response().map(|r| r.status), Ok(200));
    edit(&proxy, &more_line, "");
    reload();
    until_true("the port refuses", || {
        std::net::TcpStream::connect(more).is_err()
    });
    assert!(!ports::is_listening(more.port()));
    // Added.
    edit(
        &proxy,
        "  http-request",
        &format!("{more_line}  http-request"),
    );
    reload();
    assert_eq!(get(more, "/").map(|r| r.status), Ok(200));
    assert_eq!(load.failures(), 0);
    // The same port under another address, there and back. A handshake that is going on while the old socket closes is
    // lost, so only what comes afterwards must be served.
    for (from, to) in [
        (format!("bind {fe}"), format!("bind *:{}", fe.port())),
        (format!("bind *:{}", fe.port()), format!("bind {fe}")),
    ] {
        edit(&proxy, &from, &to);
        reload();
        // The old worker closes the old socket a moment after the answer.
        until_true("it is served", || get(fe, "/").map(|r| r.status) == Ok(200));
        let served = |_| get(fe, "/").map(|r| r.status) == Ok(200);
        until_true("it is served steadily", || (0..20).all(served));
        for _ in 0..20 {
            assert_eq!(get(fe, "/").map(|r| r.status), Ok(200));
        }
    }
}

#[test]
fn the_number_of_threads_changes() {
    if haproxy_lacks("resets keep-alive connections") {
        return;
    }
    let head = HEAD.replacen("global\n", "global\n  nbthread 4\n", 1);
    let proxy = supervised(&head).start();
    let load = Load::on(proxy.addr("fe"));
    let mut threads = 4;
    for next in [1, 3, 2, 6] {
        edit(
            &proxy,
            &format!("nbthread {threads}"),
            &format!("nbthread {next}"),
        );
        threads = next;
        assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
        assert_eq!(proxy.cli().info("Nbthread"), Some(next.to_string()));
        load.moves();
    }
    assert_eq!(load.failures(), 0);
}

#[test]
fn a_download_survives_reloads() {
    let gate = Gate::default();
    let server = Server::half_a_download(&gate);
    let rest = format!(
        "{HEAD}\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  default_backend be\nbackend be\n  server s {}\n",
        server.addr()
    );
    let proxy = Launch::new(&rest).supervised().start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    until_true("the download runs", || server.requests().len() == 1);
    let first = worker(&proxy);
    for n in 1..=5 {
        assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
        let table = master(&proxy).ask("show proc");
        let old = table.split("# old workers\n").nth(1).unwrap_or_default();
        let row = old.lines().find(|row| row.starts_with(&first.to_string()));
        let reloads = row.and_then(|row| row.split_whitespace().nth(2).map(str::to_owned));
        assert_eq!(reloads, Some(n.to_string()), "{table}");
    }
    // The leaving one is reached by its process id only.
    let old = master(&proxy).ask(&format!("@!{first} show info"));
    assert!(old.contains(&format!("\nPid: {first}\n")), "{old}");
    assert_ne!(proxy.cli().info("Pid"), Some(first.to_string()));
    gate.open();
    assert_eq!(client.response().map(|r| r.body.len()), Ok(200_000));
    drop(client);
    until_true("old workers end", || workers(&proxy).len() == 1);
}

#[test]
fn a_hard_reload_cuts_and_old_workers_are_limited() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, _| {
        held.wait();
        false
    });
    let head = HEAD.replacen("global\n", "global\n  mworker-max-reloads 1\n", 1);
    let rest = format!(
        "{head}\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  default_backend be\nbackend be\n  server s {}\n",
        server.addr()
    );
    let proxy = Launch::new(&rest).supervised().start();
    let busy = |count: usize| {
        let mut client = Client::connect(proxy.addr("fe"));
        client.get("/");
        until_true("a request runs", || server.requests().len() == count);
        client
    };
    if !haproxy_lacks("hard-reload") {
        let mut client = busy(1);
        assert!(master(&proxy).ask("hard-reload").starts_with("Success=1\n"));
        assert!(client.response().is_err(), "it was cut");
        let mut client = busy(2);
        assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
        // That of the first one only waits a moment for its successor to prove itself.
        until_true("one reload may be survived", || workers(&proxy).len() == 2);
        assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
        assert!(client.response().is_err(), "the second one may not");
    }
    gate.open();
}
