//! Options, exit codes, and signals.

use std::os::unix::process::ExitStatusExt;

use cluster_tests::locate::{kind_under_test, program};
use cluster_tests::server::Gate;
use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Gone, Launch, Output, Server, get, tools};
use rustix::process::Signal;

use crate::common::{haproxy_lacks, site};

const GOOD: &str = "defaults\n  mode http\n  timeout client 5s\nfrontend fe\n  bind 127.0.0.1:{{port:fe}}\n  http-request return status 200 content-type text/plain string ok\n";

fn plain(args: &[&str]) -> Output {
    tools::run(std::process::Command::new(program(kind_under_test())).args(args))
}

#[test]
fn check_says_nothing_unless_asked() {
    let done = Launch::new(GOOD).check();
    if haproxy_lacks("says that it is valid, always") {
        return;
    }
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (Some(0), "", "")
    );
    let done = Launch::new(GOOD).arg("-V").check();
    assert_eq!(done.code, Some(0));
    assert!((done.stdout + &done.stderr).contains("Configuration file is valid"));
}

#[test]
fn versions_and_help() {
    let short = plain(&["-v"]);
    assert_eq!(short.code, Some(0));
    let long = plain(&["-vv"]);
    assert_eq!(long.code, Some(0));
    assert!(long.stdout.len() > short.stdout.len());
    if haproxy_lacks("another name, and no --help") {
        return;
    }
    assert!(
        short.stdout.to_ascii_lowercase().contains("remora")
            && short.stdout.contains(env!("CARGO_PKG_VERSION"))
    );
    let help = plain(&["--help"]);
    assert_eq!(help.code, Some(0));
    for option in [
        "-f", "-c", "-V", "-v", "-vv", "-d", "-db", "-D", "-q", "-L", "-n", "-p", "-C", "-dW",
        "-dM", "-dI", "-dr", "-cc", "-W", "-Ws", "-S", "-x", "-sf", "--watch",
    ] {
        let found = help.stdout.lines().any(|line| {
            line.split([' ', ','])
                .any(|word| word == option || word == format!("{option}[...]"))
        });
        assert!(found, "{option} is not explained:\n{}", help.stdout);
    }
    assert!(
        help.stdout.lines().all(|line| line.chars().count() <= 120),
        "lines fit a terminal"
    );
    let wrong = plain(&["--nonsense"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("--nonsense") || wrong.stdout.contains("--nonsense"));
}

#[test]
fn conditions_are_evaluated() {
    for (condition, code) in [
        ("version_atleast(1.9)", Some(0)),
        ("version_before(1.9)", Some(1)),
        ("feature(THREAD)", Some(0)),
        ("feature(NOSUCHTHING)", Some(1)),
        ("streq(a,b) || !streq(a,b) && 1", Some(0)),
        ("0", Some(1)),
    ] {
        assert_eq!(plain(&["-cc", condition]).code, code, "{condition}");
    }
    assert!(
        plain(&["-cc", "nosuchpredicate(x)"])
            .code
            .is_some_and(|code| code > 0)
    );
}

#[test]
fn several_files_and_directories_are_read_in_order() {
    let parts = |launch: Launch| {
        launch
            .file(
                "d/10-defaults.cfg",
                "defaults\n  mode http\n  timeout client 5s\n",
            )
            .file(
                "d/20-fe.cfg",
                "frontend fe\n  bind 127.0.0.1:1\n  http-request return status 200\n",
            )
            .file("d/.hidden.cfg", "this is no configuration\n")
            .file("d/notes.txt", "nor is this\n")
            .file("more.cfg", "backend more\n  balance roundrobin\n")
    };
    let done = parts(Launch::new(""))
        .arg("-c")
        .arg("-V")
        .arg("-f")
        .arg("d")
        .arg("-f")
        .arg("more.cfg")
        .run();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let done = parts(Launch::new(""))
        .arg("-C")
        .arg("{{dir}}/d")
        .arg("-c")
        .arg("-f")
        .arg("20-fe.cfg")
        .run();
    assert_eq!(
        done.code,
        Some(0),
        "-C changes the directory first: {}",
        done.stderr
    );
    let done = parts(Launch::new(""))
        .file("bad.cfg", "backend x\n  foo\n")
        .arg("-c")
        .arg("-f")
        .arg("more.cfg")
        .arg("-f")
        .arg("bad.cfg")
        .run();
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("[bad.cfg:2]"),
        "the right file is blamed: {}",
        done.stderr
    );
}

#[test]
fn quiet_is_quiet_and_unresolvable_servers_may_be_let_pass() {
    let done = Launch::new("backend be\n  mode http\n  foo\n")
        .arg("-q")
        .check();
    assert_eq!(done.code, Some(1));
    let unresolvable = "defaults\n  mode http\n  timeout connect 1s\n  timeout server 1s\n  timeout client 1s\n  mode http\nfrontend fe\n  bind 127.0.0.1:1\n  default_backend be\nbackend be\n  server s nosuch.invalid:80\n";
    assert_eq!(Launch::new(unresolvable).check().code, Some(1));
    let done = Launch::new(unresolvable).arg("-dr").check();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}

#[test]
fn options_without_effect_here_are_accepted() {
    for option in [
        vec!["-dM"],
        vec!["-dI"],
        vec!["-n", "100"],
        vec!["-L", "here"],
        vec!["-d"],
    ] {
        let launch = option
            .iter()
            .fold(Launch::new(GOOD), |launch, arg| launch.arg(arg));
        let proxy = launch.start();
        assert_eq!(
            get(proxy.addr("fe"), "/").map(|r| r.status),
            Ok(200),
            "{option:?}"
        );
    }
}

#[test]
fn the_connection_limit_is_shown() {
    let text = format!("global\n  stats socket {{{{cli}}}} level admin\n{GOOD}");
    let proxy = Launch::new(&text).arg("-n").arg("123").start();
    assert_eq!(proxy.cli().info("Maxconn").as_deref(), Some("123"));
}

#[test]
fn a_daemon_outlives_its_starter_and_is_stopped_by_its_pid() {
    let text = format!("global\n  stats socket {{{{cli}}}} level admin\n{GOOD}");
    let mut starter = Launch::new(&text)
        .arg("-D")
        .arg("-p")
        .arg("{{dir}}/pid")
        .arg("-f")
        .arg("test.cfg")
        .spawn();
    assert_eq!(starter.wait().code(), Some(0), "{}", starter.stderr());
    let written = until("the pid file", || {
        std::fs::read_to_string(starter.dir().join("pid"))
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    let pid: i32 = written.trim().parse().expect("a number");
    let daemon = Daemon(rustix::process::Pid::from_raw(pid).expect("a pid"));
    assert_ne!(pid as u32, starter.pid(), "another process");
    assert_eq!(
        get(starter.addr("fe"), "/").map(|r| r.text()),
        Ok("ok".to_owned())
    );
    assert_eq!(starter.cli().info("Pid"), Some(pid.to_string()));
    rustix::process::kill_process(daemon.0, Signal::TERM).expect("it lives");
    until_true("it ends", || {
        !cluster_tests::ports::is_listening(starter.addr("fe").port())
    });
}

/// A daemon is nobody's child: it must be killed by hand if the test fails.
struct Daemon(rustix::process::Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _gone = rustix::process::kill_process(self.0, Signal::KILL);
        }
    }
}

#[test]
fn sigterm_stops_at_once_even_under_load() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf");
        held.wait();
        false
    });
    let mut proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    until_true("a download runs", || server.requests().len() == 1);
    proxy.signal(Signal::TERM);
    let status = proxy.wait();
    assert!(
        status.code() == Some(0) || status.code() == Some(143) || status.signal() == Some(15),
        "{status:?}"
    );
    assert!(client.response().is_err(), "the download was cut");
    gate.open();
}

#[test]
fn a_soft_stop_lets_a_download_finish() {
    for signal in [Signal::USR1, Signal::INT] {
        if signal == Signal::INT && haproxy_lacks("dies from SIGINT in the foreground") {
            continue;
        }
        let gate = Gate::default();
        let held = gate.clone();
        let server = Server::with(move |request, peer| {
            if request.target != "/long" {
                return peer.serve("", request);
            }
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n");
            peer.write(vec![b'x'; 100_000]);
            held.wait();
            peer.write(vec![b'x'; 100_000])
        });
        let mut proxy = site("", "", &server).start();
        let fe = proxy.addr("fe");
        let mut idle = Client::connect(fe);
        assert_eq!(idle.get("/").response().map(|r| r.status), Ok(200));
        let mut client = Client::connect(fe);
        client.get("/long");
        until_true("the download runs", || {
            server.requests().iter().any(|r| r.target == "/long")
        });
        proxy.signal(signal);
        until_true("it does not listen any more", || {
            !cluster_tests::ports::is_listening(fe.port())
        });
        assert!(
            proxy.try_wait().is_none(),
            "it waits for the download ({signal:?})"
        );
        gate.open();
        assert_eq!(
            client.response().map(|r| r.body.len()),
            Ok(200_000),
            "{signal:?}"
        );
        // The idle connection is either closed or served once more; it must not keep the process.
        let once_more = idle.get("/").response().map(|r| (r.status, r.closes()));
        assert!(
            matches!(once_more, Ok((200, true)) | Err(Gone::Closed | Gone::Reset)),
            "{once_more:?}"
        );
        if proxy.is_haproxy() {
            drop((client, idle));
        }
        assert_eq!(proxy.wait().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_second_signal_ends_a_drain() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, _| {
        held.wait();
        false
    });
    let mut proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    until_true("a request runs", || server.requests().len() == 1);
    proxy.signal(Signal::USR1);
    until_true("it drains", || {
        !cluster_tests::ports::is_listening(proxy.addr("fe").port())
    });
    assert!(proxy.try_wait().is_none());
    proxy.signal(Signal::TERM);
    proxy.wait();
    gate.open();
}

#[test]
fn a_proxy_that_drains_without_work_ends_at_once() {
    let mut proxy = Launch::new(GOOD).start();
    proxy.signal(Signal::USR1);
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.stderr());
    assert!(!proxy.stderr().contains("panicked"), "{}", proxy.stderr());
}

#[test]
fn a_check_finds_what_would_not_start() {
    let check = |what: &str| {
        Launch::new("")
            .file("nothing/a.cfg", "defaults\n  mode http\n")
            .file("empty/a.conf", "defaults\n  mode http\n")
            .arg("-c")
            .arg("-f")
            .arg(what)
            .run()
    };
    // As HAProxy: no error, yet no use.
    assert_eq!(check("nothing").code, Some(2));
    let empty = check("empty");
    assert_eq!(empty.code, Some(1));
    if !haproxy_lacks("a message about it") {
        assert!(empty.stderr.contains("directory empty"), "{}", empty.stderr);
    }
}

/// The shipped examples are right as they stand, from the root of the tree and from elsewhere.
#[test]
fn the_examples_are_valid() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for example in ["throttle.cfg", "ban-across-sites.cfg", "cluster.cfg"] {
        let name = format!("docs/examples/{example}");
        if haproxy_lacks("looking beside the configuration for the files it names") {
            return;
        }
        let done = plain(&["-C", root, "-c", "-dW", "-L", "node1", "-f", &name]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{name}");
        let path = format!("{root}/{name}");
        let done = plain(&["-C", "/", "-c", "-dW", "-L", "node1", "-f", &path]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{name}");
    }
}
