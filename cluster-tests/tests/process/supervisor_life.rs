//! A supervisor's own life: its CLI, signals, exit codes, systemd, the background.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;

use cluster_tests::server::Gate;
use cluster_tests::wait::{observe_for, until_true};
use cluster_tests::{Client, Launch, Server, get, ports};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use crate::common::{HEAD, alive, children, haproxy_lacks};
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

/// Whoever has seen a process listen may send it signals: what comes before it catches them waits.
#[test]
fn signals_that_come_early_are_not_deadly() {
    if haproxy_lacks("this") {
        return;
    }
    for _ in 0..5 {
        let mut proxy = Launch::new(&format!("{HEAD}{OK}"))
            .arg("-f")
            .arg("test.cfg")
            .spawn();
        let address = proxy.addr("fe");
        until_true("it listens", || TcpStream::connect(address).is_ok());
        for signal in [Signal::HUP, Signal::TTOU, Signal::TTIN, Signal::USR1] {
            proxy.signal(signal);
        }
        assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.stderr());
    }
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
    // Its first thread may be gone before the last one, and with that one the sockets.
    let port = proxy.addr("fe").port();
    until_true("nobody listens", || !ports::is_listening(port));
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
        let children = children(proxy.pid());
        proxy.signal(Signal::KILL);
        proxy.wait();
        drop(client);
        for pid in children {
            until_true("the worker ends", || !alive(pid));
        }
    }
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
    let port = starter.addr("fe").port();
    until_true("nobody listens", || !ports::is_listening(port));
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

#[test]
fn a_second_start_by_mistake_takes_nothing_away() {
    if haproxy_lacks("it keeps its master CLI") {
        return;
    }
    let proxy = supervised(HEAD).arg("-p").arg("{{dir}}/pid").start();
    let before = worker(&proxy);
    let again = std::process::Command::new(cluster_tests::locate::program(
        cluster_tests::locate::Kind::Remora,
    ))
    .current_dir(proxy.dir())
    .args(["-W", "-S", "master.sock", "-p", "pid", "-f", "test.cfg"])
    .output()
    .expect("it can be executed");
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{said}");
    assert!(said.contains("Address already in use"), "{said}");
    assert_eq!(worker(&proxy), before, "the master CLI still answers");
    let pid = std::fs::read_to_string(proxy.dir().join("pid")).expect("a pid file");
    assert_eq!(pid.trim(), proxy.pid().to_string());
    let leftover = std::fs::read_dir(proxy.dir())
        .expect("a directory")
        .any(|e| {
            let name = e.expect("an entry").file_name();
            name.to_string_lossy().ends_with(".tmp")
        });
    assert!(!leftover);
}

#[test]
fn a_pid_file_that_cannot_be_written_is_a_failed_start() {
    if haproxy_lacks("it goes on with an empty file") {
        return;
    }
    let output = supervised(HEAD).arg("-p").arg("/dev/full").run();
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(
        output.stderr.contains("Cannot create pidfile /dev/full : "),
        "{}",
        output.stderr
    );
}

/// A log shipper that is stuck, or a pager that waits for a key.
#[test]
fn nobody_waits_for_whoever_reads_standard_error() {
    if haproxy_lacks("its master waits for ever") {
        return;
    }
    let to_fifo = ["sh", "-c", r#"mkfifo err && exec "$@" 2<>err"#, "sh"];
    let mut proxy = supervised(HEAD).wrapper(&to_fifo).start();
    let flags = OFlags::RDWR | OFlags::NONBLOCK;
    let fifo = rustix::fs::open(proxy.dir().join("err"), flags, Mode::empty()).expect("a fifo");
    for size in [4096, 1] {
        while rustix::io::write(&fifo, &vec![b'x'; size]).is_ok() {}
    }
    for _ in 0..3 {
        let answer = master(&proxy).ask("reload");
        assert!(answer.starts_with("Success=1"), "{answer}");
    }
    let before = worker(&proxy);
    kill(before, Signal::KILL);
    until_true("it is replaced", || worker(&proxy) != before);
    assert_eq!(
        get(proxy.addr("fe"), "/").map(|r| r.text()),
        Ok("one".into())
    );
    // Nothing that fits into the queues is lost.
    let mut said = Vec::new();
    until_true("messages come when they are read", || {
        let mut bytes = [0; 4096];
        while let Ok(n) = rustix::io::read(&fifo, &mut bytes) {
            said.extend_from_slice(&bytes[..n]);
        }
        let said = String::from_utf8_lossy(&said);
        said.matches("Loading success.").count() == 4 && said.contains("killed by signal 9")
    });
    for size in [4096, 1] {
        while rustix::io::write(&fifo, &vec![b'x'; size]).is_ok() {}
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn the_master_cli_says_that_it_is_full() {
    if haproxy_lacks("it keeps further ones waiting") {
        return;
    }
    let proxy = supervised(HEAD).start();
    let m = master(&proxy);
    let idle: Vec<_> = (0..16)
        .map(|_| {
            let mut session = m.open();
            session.send("prompt\n");
            session.read_until("master> ");
            session
        })
        .collect();
    let answer = m.ask("show proc");
    assert!(
        answer.starts_with("Too many sessions: at most 16."),
        "{answer}"
    );
    drop(idle);
    until_true("there is room again", || {
        m.ask("show proc").starts_with("#<PID>")
    });
}
