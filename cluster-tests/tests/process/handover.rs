//! Taking over from an unrelated process: `-x`, `-sf`, `-st`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use cluster_tests::server::Gate;
use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Launch, Proxy, Server, get, ports};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::supervisor::{Load, edit, master};

const FE: &str = "frontend fe\n  bind 127.0.0.1:{{port:fe}}\n  http-request return status 200 content-type text/plain string one\n";

/// A proxy that others may take over from, and its directory.
fn offering(args: &[&str]) -> Proxy {
    let head = HEAD.replacen("global\n", "global\n  handoff {{dir}}/handoff.sock\n", 1);
    let launch = Launch::new(&format!("{head}{FE}"));
    let launch = args.iter().fold(launch, |launch, arg| launch.arg(arg));
    launch.arg("-f").arg("test.cfg").start()
}

/// Another process with the same configuration as the first, as it is now.
fn successor(first: &Proxy, args: &[&str]) -> Proxy {
    let config = first.dir().join("test.cfg");
    let launch = args
        .iter()
        .fold(Launch::new(""), |launch, arg| launch.arg(arg));
    launch.arg("-f").arg(&config.to_string_lossy()).spawn()
}

/// Whether a request is served; a refusal is an answer, too.
pub(crate) fn answers(fe: SocketAddr, path: &str) -> bool {
    TcpStream::connect(fe).is_ok() && get(fe, path).is_ok_and(|answer| answer.status == 200)
}

/// Waits until the CLI, which both share in turn, is that of this process.
fn serves(first: &Proxy, pid: impl Fn(u32) -> bool) -> u32 {
    until("the other process serves", || {
        let now = first
            .cli()
            .try_open()
            .ok()
            .and_then(|_| first.cli().info("Pid"))?;
        now.parse().ok().filter(|now| pid(*now))
    })
}

#[test]
fn a_process_takes_over_the_sockets_of_another() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    let mut first = offering(&[]);
    let socket = first
        .dir()
        .join("handoff.sock")
        .to_string_lossy()
        .into_owned();
    let load = Load::on(first.addr("fe"));
    edit(&first, "string one", "string two");
    let mut second = successor(&first, &["-x", &socket]);
    assert_eq!(
        first.wait().code(),
        Some(0),
        "it finishes: {}",
        first.stderr()
    );
    assert_eq!(serves(&first, |pid| pid == second.pid()), second.pid());
    load.moves();
    assert_eq!(
        get(first.addr("fe"), "/").map(|r| r.text()),
        Ok("two".into())
    );
    // The socket has gone over, too: a third process uses it.
    let third = successor(&first, &["-x", &socket]);
    assert_eq!(second.wait().code(), Some(0), "{}", second.stderr());
    serves(&first, |pid| pid == third.pid());
    load.moves();
    assert_eq!(load.failures(), 0);
}

#[test]
fn a_process_that_does_not_come_up_takes_nothing() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    let first = offering(&[]);
    let socket = first
        .dir()
        .join("handoff.sock")
        .to_string_lossy()
        .into_owned();
    let load = Load::on(first.addr("fe"));
    edit(
        &first,
        "frontend fe\n",
        "frontend fe\n  bind /nonexistent/dir/s\n",
    );
    let mut second = successor(&first, &["-x", &socket]);
    assert_eq!(second.wait().code(), Some(1));
    load.moves();
    assert_eq!(load.failures(), 0);
    // Nor does one that finds nobody, or the wrong socket.
    let cli = first.dir().join("cli.sock").to_string_lossy().into_owned();
    for (path, why) in [
        ("/nonexistent/s", "cannot take over"),
        (&cli, "'handoff' socket"),
    ] {
        let mut second = successor(&first, &["-x", path]);
        assert_eq!(second.wait().code(), Some(1));
        assert!(second.stderr().contains(why), "{}", second.stderr());
    }
}

#[test]
fn a_supervisor_whose_worker_handed_over_stays_until_it_is_told_to_end() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    let head = HEAD.replacen(
        "global\n",
        "global\n  handoff {{dir}}/handoff.sock\n  admin bind unix@{{dir}}/admin.sock\n",
        1,
    );
    let mut first = Launch::new(&format!("{head}{FE}"))
        .arg("-W")
        .arg("-S")
        .arg("{{dir}}/master.sock")
        .arg("-f")
        .arg("test.cfg")
        .start();
    let before = serves(&first, |_| true);
    let socket = first
        .dir()
        .join("handoff.sock")
        .to_string_lossy()
        .into_owned();
    let load = Load::on(first.addr("fe"));
    // The second one has other sockets for whoever manages it, as in a container of its own.
    let config = std::fs::read_to_string(first.dir().join("test.cfg")).expect("it is there");
    let place = first.dir().to_string_lossy().into_owned();
    let config = config
        .replace(&format!("{place}/admin.sock"), "{{dir}}/admin.sock")
        .replace(&format!("{place}/cli.sock"), "{{cli}}");
    let second = Launch::new(&config)
        .arg("-W")
        .arg("-x")
        .arg(&socket)
        .arg("-f")
        .arg("test.cfg")
        .start();
    until_true("the first one's worker has left", || {
        first.stderr().contains("another process has taken over")
    });
    load.moves();
    let now = serves(&second, |pid| pid != before);
    // Nothing restarts it, and whoever watches it sees that it lives.
    let health = |path: &str| {
        Client::connect_unix(&first.dir().join("admin.sock"))
            .get(path)
            .response()
            .map(|answer| (answer.status, answer.text()))
    };
    until_true("it is not ready any more", || {
        health("/readyz").is_ok_and(|(status, text)| status == 503 && text.contains("taken over"))
    });
    until_true("its connections have ended", || {
        first.cli().info("CurrConns") == Some("0".into())
    });
    assert_eq!(health("/livez").map(|(status, _)| status), Ok(200));
    assert_eq!(first.cli().info("Pid"), Some(before.to_string()));
    let said = master(&first).ask("reload");
    assert!(
        said.starts_with("Success=0\n") && said.contains("another process has taken over"),
        "{said}"
    );
    // The next worker of the second one is not told to take over again.
    second.signal(Signal::USR2);
    serves(&second, |pid| pid != now);
    load.moves();
    assert_eq!(load.failures(), 0);
    assert!(first.try_wait().is_none());
    first.signal(Signal::USR1);
    assert_eq!(first.wait().code(), Some(0), "{}", first.stderr());
}

/// What the CLI at a TCP address says of its process.
fn pid_at(address: SocketAddr) -> Option<u32> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"show info\n").ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    let pid = said.lines().find_map(|line| line.strip_prefix("Pid: "))?;
    pid.parse().ok()
}

#[test]
fn processes_make_room_for_their_successor() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        held.wait();
        peer.reply(200, "", "done")
    });
    let config = format!(
        "global\n  localpeer me\n  stats socket ipv4@127.0.0.1:{{{{port:cli}}}}\n  admin bind 127.0.0.1:{{{{port:adm}}}}\npeers p\n  server me 127.0.0.1:{{{{port:pe}}}}\ndefaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  timeout connect 5s\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  http-request return status 200 if {{ path /up }}\n  default_backend be\nbackend be\n  server s {}\n",
        server.addr(),
    );
    let mut first = Launch::new(&config).start();
    let fe = first.addr("fe");
    let pid = first.pid().to_string();
    let mut busy = Client::connect(fe);
    busy.get("/");
    until_true("a request runs", || server.requests().len() == 1);
    // One that fails for another reason gives the addresses back.
    edit(
        &first,
        "frontend fe\n",
        "frontend fe\n  bind /nonexistent/dir/s\n",
    );
    let mut failing = successor(&first, &["-sf", &pid]);
    assert_eq!(failing.wait().code(), Some(1));
    until_true("the first one accepts again", || answers(fe, "/up"));
    let own = ["pe", "cli", "adm"].map(|name| first.addr(name));
    let listens = || own.iter().all(|at| ports::is_listening(at.port()));
    until_true("peers, the CLI and the endpoint, too", listens);
    until_true("the CLI answers", || pid_at(own[1]) == Some(first.pid()));
    until_true("the endpoint answers", || answers(own[2], "/readyz"));
    edit(
        &first,
        "frontend fe\n  bind /nonexistent/dir/s\n",
        "frontend fe\n",
    );
    let second = successor(&first, &["-sf", &pid]);
    until_true("the second one serves", || answers(fe, "/up"));
    assert!(first.try_wait().is_none(), "it finishes first");
    gate.open();
    assert_eq!(busy.response().map(|r| r.text()), Ok("done".into()));
    drop(busy);
    assert_eq!(first.wait().code(), Some(0));
    until_true("all of it is there", listens);
    assert_eq!(pid_at(own[1]), Some(second.pid()));
    until_true("it is ready", || answers(own[2], "/readyz"));
    // `-st` does not wait.
    let pid = second.pid().to_string();
    let third = successor(&first, &["-st", &pid]);
    let mut second = second;
    assert_ne!(second.wait().code(), Some(0));
    assert_eq!(get(fe, "/up").map(|r| r.status), Ok(200));
    until_true("its CLI answers", || pid_at(own[1]) == Some(third.pid()));
    until_true("it is ready", || answers(own[2], "/readyz"));
}

/// The process to take over from was killed a moment ago, and its sockets are not closed yet: here, somebody else has the port.
#[test]
fn addresses_of_a_process_that_was_just_killed_are_waited_for() {
    if haproxy_lacks("this patience") {
        return;
    }
    let head = HEAD.replacen("global\n", "global\n  handoff {{dir}}/hand/\n", 1);
    for in_a_directory in [false, true] {
        let head = if in_a_directory { &head } else { HEAD };
        let mut first = Launch::new(&format!("{head}{FE}"))
            .file("hand/.keep", "")
            .arg("-f")
            .arg("test.cfg")
            .start();
        let (fe, pid) = (first.addr("fe"), first.pid().to_string());
        first.signal(Signal::KILL);
        first.wait();
        let port = TcpListener::bind(fe).expect("its port");
        let args = ["-sf", &pid];
        let second = successor(&first, if in_a_directory { &[] } else { &args });
        second.says("is taken, and the process to take over from has ended");
        drop(port);
        until_true("it serves", || answers(fe, "/"));
        assert_eq!(pid_of(&first), Some(second.pid()));
    }
}

fn pid_of(proxy: &Proxy) -> Option<u32> {
    proxy.cli().info("Pid")?.parse().ok()
}

#[test]
fn listening_is_paused_and_resumed() {
    let proxy = Launch::new(&format!("{HEAD}{FE}")).start();
    let fe = proxy.addr("fe");
    for _ in 0..2 {
        proxy.signal(Signal::TTOU);
        until_true("the port refuses", || !ports::is_listening(fe.port()));
        proxy.signal(Signal::TTIN);
        until_true("it is served", || answers(fe, "/"));
    }
}
