//! A supervisor and its workers: reloads, crashes, signals, the master CLI.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use cluster_tests::cli::Cli;
use cluster_tests::server::Gate;
use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Launch, Proxy, Server, get, ports};
use rustix::process::{Pid, Signal};

use crate::common::{HEAD, haproxy_lacks};

const OK: &str = "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request return status 200 content-type text/plain string one
";

/// A supervisor whose one frontend answers `one`.
pub(crate) fn supervised(head: &str) -> Launch {
    let rest = OK;
    Launch::new(&format!("{head}{rest}"))
        .arg("-W")
        .arg("-S")
        .arg("{{dir}}/master.sock")
        .arg("-f")
        .arg("test.cfg")
}

pub(crate) fn master(proxy: &Proxy) -> Cli {
    Cli::new(proxy.dir().join("master.sock"))
}

/// Replaces text in the configuration.
pub(crate) fn edit(proxy: &Proxy, from: &str, to: &str) {
    let path = proxy.dir().join("test.cfg");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{from:?} in {text}");
    std::fs::write(path, text.replace(from, to)).expect("the configuration");
}

/// The process id of the worker that serves.
pub(crate) fn worker(proxy: &Proxy) -> u32 {
    until("a worker serves", || {
        let table = master(proxy).ask("show proc");
        let row = table.split("# workers\n").nth(1)?.lines().next()?;
        row.split_whitespace().next()?.parse().ok()
    })
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
    assert!(
        proxy.stderr().contains("(killed by signal 9)"),
        "{}",
        proxy.stderr()
    );
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
    .arg("-W")
    .arg("-S")
    .arg("{{dir}}/master.sock")
    .arg("-f")
    .arg("test.cfg")
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
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n");
        peer.write(vec![b'x'; 100_000]);
        held.wait();
        peer.write(vec![b'x'; 100_000])
    });
    let rest = format!(
        "{HEAD}\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  default_backend be\nbackend be\n  server s {}\n",
        server.addr()
    );
    let proxy = Launch::new(&rest)
        .arg("-W")
        .arg("-S")
        .arg("{{dir}}/master.sock")
        .arg("-f")
        .arg("test.cfg")
        .start();
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
    let proxy = Launch::new(&rest)
        .arg("-W")
        .arg("-S")
        .arg("{{dir}}/master.sock")
        .arg("-f")
        .arg("test.cfg")
        .start();
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
        assert_eq!(workers(&proxy).len(), 2, "one reload may be survived");
        assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
        assert!(client.response().is_err(), "the second one may not");
    }
    gate.open();
}

#[test]
fn the_master_cli_reaches_its_workers() {
    let proxy = supervised(HEAD).start();
    let m = master(&proxy);
    let pid = worker(&proxy);
    assert!(m.ask("@1 show info").contains(&format!("\nPid: {pid}\n")));
    assert!(m.ask("@1 show info").contains("\nProcess_num: 1\n"));
    assert!(
        m.ask(&format!("@!{pid} show info"))
            .contains(&format!("\nPid: {pid}\n"))
    );
    for wrong in ["@2 show info", "@!999999 show info", "@x y"] {
        let prefix = wrong.split(' ').next().unwrap();
        assert!(
            m.ask(wrong).contains(&format!(
                "Can't find the target PID matching the prefix '{prefix}'"
            )),
            "{wrong}"
        );
    }
    let help = m.ask("help");
    assert!(
        help.contains("  @!<pid> ") && help.contains("  reload "),
        "{help}"
    );
    assert_eq!(m.ask("show cli level"), "admin\n\n");
    assert_eq!(m.ask("@master show cli level"), "admin\n\n");
    // Levels go along.
    let lowered = m.ask("user;reload;@1 shutdown session x");
    assert_eq!(
        lowered.matches("Permission denied").count(),
        2 - usize::from(proxy.is_haproxy()),
        "{lowered}"
    );
    let mut session = m.open();
    session.send("prompt\n");
    session.read_until("master> ");
    session.send("@1\n");
    session.read_until(&format!("{pid}> "));
    session.send("show info\n");
    session.read_until(&format!("\nPid: {pid}\n"));
    session.send("@master\n");
    session.read_until("master> ");
    session.send("quit\n");
    session.rest();
}

#[test]
fn signals_and_exit_codes() {
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130), (Signal::USR1, 0)] {
        let mut proxy = supervised(HEAD).start();
        let pid = worker(&proxy);
        proxy.signal(signal);
        assert_eq!(
            proxy.wait().code(),
            Some(code),
            "{signal:?}: {}",
            proxy.stderr()
        );
        assert!(!ports::is_listening(proxy.addr("fe").port()));
        assert!(!alive(pid));
    }
    let bad = Launch::new("nonsense\n")
        .arg("-W")
        .arg("-f")
        .arg("test.cfg")
        .run();
    assert_eq!(bad.code, Some(1));
    assert_eq!(
        bad.stderr.matches("nonsense").count(),
        1,
        "said once: {}",
        bad.stderr
    );
}

#[test]
fn a_soft_stop_lets_workers_finish() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        held.wait();
        peer.reply(200, "", "done")
    });
    let config = format!(
        "{HEAD}\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  default_backend be\nbackend be\n  server s {}\n",
        server.addr()
    );
    let mut proxy = Launch::new(&config)
        .arg("-W")
        .arg("-f")
        .arg("test.cfg")
        .start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    until_true("a request runs", || server.requests().len() == 1);
    proxy.signal(Signal::USR1);
    until_true("the port refuses", || {
        !ports::is_listening(proxy.addr("fe").port())
    });
    assert!(proxy.try_wait().is_none());
    gate.open();
    assert_eq!(client.response().map(|r| r.text()), Ok("done".into()));
    drop(client);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn workers_end_when_their_supervisor_is_killed() {
    let mut proxy = supervised(HEAD).start();
    let pid = worker(&proxy);
    proxy.signal(Signal::KILL);
    proxy.wait();
    until_true("the worker ends", || !alive(pid));
    assert!(!ports::is_listening(proxy.addr("fe").port()));
}

/// Whether the process runs; one that waits to be reaped by whoever adopted it does not.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

#[test]
fn systemd_is_told() {
    if haproxy_lacks("-Ws without systemd support") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(cluster_tests::wait::PATIENCE))
        .expect("a time-out");
    let next = || {
        let mut buffer = [0; 400];
        let n = socket.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let mut proxy = Launch::new(&format!("{HEAD}{}", OK))
        .arg("-Ws")
        .arg("-f")
        .arg("test.cfg")
        .env("NOTIFY_SOCKET", &path.to_string_lossy())
        .spawn();
    assert_eq!(
        next(),
        format!("READY=1\nMAINPID={}\nSTATUS=Ready.", proxy.pid())
    );
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    edit(&proxy, "bind ", "bnid ");
    for outcome in ["STATUS=Reload failed", "STATUS=Ready."] {
        proxy.signal(Signal::HUP);
        let begun = next();
        assert!(begun.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{begun}");
        let done = next();
        assert!(
            done.starts_with("READY=1\n") && done.contains(outcome),
            "{done}"
        );
        if outcome.contains("failed") {
            edit(&proxy, "bnid ", "bind ");
        }
    }
    proxy.signal(Signal::TERM);
    assert!(next().starts_with("STOPPING=1\n"));
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_daemon_has_its_supervisors_pid_in_the_file() {
    let config = HEAD.replace("  log stdout format raw local0\n", "");
    let mut starter = supervised(&config)
        .arg("-D")
        .arg("-p")
        .arg("{{dir}}/pid")
        .spawn();
    assert_eq!(starter.wait().code(), Some(0), "{}", starter.stderr());
    let pid = std::fs::read_to_string(starter.dir().join("pid")).expect("a pid file");
    let pid: u32 = pid.trim().parse().expect("a number");
    assert_eq!(
        get(starter.addr("fe"), "/").map(|r| r.text()),
        Ok("one".into())
    );
    let before = worker(&starter);
    assert_ne!(before, pid);
    kill(pid, Signal::USR2);
    until_true("another worker serves", || worker(&starter) != before);
    kill(pid, Signal::TERM);
    until_true("it ends", || !alive(pid));
    assert!(!ports::is_listening(starter.addr("fe").port()));
}

#[test]
fn the_configuration_may_ask_for_a_supervisor() {
    let head = HEAD.replacen("global\n", "global\n  master-worker\n", 1);
    let mut proxy = Launch::new(&format!("{head}{}", OK)).start();
    let pid = proxy.cli().info("Pid");
    assert_ne!(pid, Some(proxy.pid().to_string()), "a worker serves");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
}
