//! A supervisor's own life: its CLI, signals, exit codes, systemd, the background.

use std::os::unix::net::UnixDatagram;

use cluster_tests::server::Gate;
use cluster_tests::wait::{observe_for, until_true};
use cluster_tests::{Client, Launch, Server, get, ports};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::supervisor::{OK, edit, kill, master, supervised, worker};

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

/// At any moment of a reload, also when the old worker has sealed its tables and waits for the outcome, and while an older one
/// still counts.
#[test]
fn workers_end_when_their_supervisor_is_killed_during_a_reload() {
    for pause_ms in [1, 40, 70, 100, 130, 160] {
        let mut proxy = supervised(HEAD).start();
        let mut client = Client::connect(proxy.addr("fe"));
        assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
        assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
        proxy.signal(Signal::USR2);
        observe_for(std::time::Duration::from_millis(pause_ms));
        let path = format!("/proc/{0}/task/{0}/children", proxy.pid());
        let children = std::fs::read_to_string(path).expect("a process");
        proxy.signal(Signal::KILL);
        proxy.wait();
        drop(client);
        for pid in children.split_whitespace() {
            let pid = pid.parse().expect("a process id");
            until_true("the worker ends", || !alive(pid));
        }
    }
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
