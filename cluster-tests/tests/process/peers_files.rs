//! What `peers` sections need of the file system: certificates that belong together, and what can be seen below a `chroot`.

use cluster_tests::Launch;
use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::tools;
use cluster_tests::wait::until_true;
use rustix::process::Signal;

use crate::certificates::{Authority, TLS, says};
use crate::common::{HEAD, haproxy_lacks};

/// A node `a` with such lines in its section.
fn node(global: &str, lines: &str) -> Launch {
    let head = HEAD.replacen("global\n", &format!("global\n{global}"), 1);
    let text = format!(
        "{head}peers p\n  bind 127.0.0.1:{{{{port:p}}}} {lines}\n  server a\n  server b unix@/nowhere/b.peer\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  stick-table type ip size 1k store gpc0 peers p\n"
    );
    Launch::new(&text).arg("-L").arg("a")
}

/// Keys of other certificates and certificates that are over are found by `-c`, as by a start.
#[test]
fn certificates_that_are_no_good() {
    if haproxy_lacks("names the line in other words") {
        return;
    }
    let Some(authority) = Authority::new() else {
        return;
    };
    let (certificate, _) = authority.certificate_of("peers.test", &[]);
    let (_, key) = authority.certificate_of("peers.test", &[]);
    let launch = || {
        node("", TLS)
            .file("node.pem", format!("{certificate}{key}"))
            .file("ca.pem", authority.authority())
    };
    let runs = [launch().check(), launch().run(), launch().arg("-W").run()];
    let apart = node(
        "",
        &TLS.replace("node.pem", "node.pem key {{dir}}/other.key"),
    );
    let apart = apart
        .file("node.pem", &certificate)
        .file("other.key", &key)
        .file("ca.pem", authority.authority());
    for done in runs.into_iter().chain([apart.check()]) {
        let said = &done.stderr;
        assert_eq!(done.code, Some(1), "{said}");
        assert!(
            said.contains("test.cfg:12] : peers section 'p', bind '127.0.0.1:"),
            "{said}"
        );
        assert!(
            said.contains("' belongs to another certificate than "),
            "{said}"
        );
        assert!(!said.contains("KeyMismatch"), "{said}");
    }
    let Some(old) = authority.old_certificate("peers.test", 40) else {
        return;
    };
    let launch = || {
        node("", TLS)
            .file("node.pem", &old)
            .file("ca.pem", authority.authority())
    };
    let done = launch().check();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let line = done
        .stderr
        .lines()
        .find(|line| line.contains("test.cfg:12]"));
    let line = line.unwrap_or_else(|| panic!("{}", done.stderr));
    assert!(line.contains("WARNING"), "{line}");
    assert!(line.contains("node.pem' expired on 20"), "{line}");
    let done = launch().arg("-dW").check();
    assert_eq!(done.code, Some(1), "warnings are fatal: {}", done.stderr);
}

/// An authority's certificate that another authority has issued is nobody's mistake but its owner's.
#[test]
fn certificates_of_authorities() {
    if haproxy_lacks("it accepts them") {
        return;
    }
    let Some(authority) = Authority::new() else {
        return;
    };
    let check = |pem: String| {
        let launch = node("", TLS).file("node.pem", pem);
        launch.file("ca.pem", authority.authority()).check()
    };
    let done = check(authority.certificate("peers.test\nbasicConstraints=critical,CA:TRUE"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let mut lines = done.stderr.lines();
    let line = lines.find(|line| line.contains("test.cfg:12]"));
    let line = line.unwrap_or_else(|| panic!("{}", done.stderr));
    assert!(line.contains("WARNING"), "{line}");
    assert!(
        line.contains("node.pem' is a CA certificate (CA:TRUE): nodes accept it only if"),
        "{line}"
    );
    // One that has issued itself is accepted by those who trust it, or by nobody.
    let done = check(authority.itself());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(!done.stderr.contains("CA:TRUE"), "{}", done.stderr);
}

/// Started twice by mistake: on a UNIX path nobody is refused, so it is said.
#[test]
fn a_path_on_which_somebody_listens() {
    if haproxy_lacks("says nothing") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.peer").display().to_string();
    let head = HEAD;
    let text = format!(
        "{head}peers p\n  server a unix@{path}\n  server b unix@{path}.b\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  stick-table type ip size 1k store gpc0 peers p\n"
    );
    let start = || Launch::new(&text).arg("-L").arg("a").start();
    let first = start();
    assert!(
        !first.stderr().contains("was listening on"),
        "{}",
        first.stderr()
    );
    let second = start();
    let text = format!(
        "another process (process {}) was listening on '{path}', and is not found there",
        first.pid()
    );
    until_true("the second one says so", || {
        let said = second.stderr();
        let line = said.lines().find(|line| line.contains(&text));
        line.is_some_and(|line| line.contains("WARNING"))
    });
    // What the dead have left is nobody's.
    for mut process in [first, second] {
        process.signal(Signal::KILL);
        process.wait();
    }
    let third = start();
    let said = third.stderr();
    assert!(!said.contains("was listening on"), "{said}");
}

/// Below a `chroot`, peers are met at UNIX sockets that are seen from there, and by names that were looked up before.
/// Certificates stay in use though their files cannot be seen any more.
#[test]
fn below_a_chroot() {
    if haproxy_lacks("it resolves names at the start, and speaks another protocol") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tools::lacks_as_root("chroot");
    }
    let Some(authority) = Authority::new() else {
        return;
    };
    let done = node("  chroot {{dir}}/root\n", "")
        .file("root/.keep", "")
        .check();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for part in [
        "test.cfg:15] : peers section 'p', peer 'b': the process runs below 'chroot ",
        "when it connects to '/nowhere/b.peer', and there is no directory '",
        "/root/nowhere'.",
    ] {
        assert!(done.stderr.contains(part), "{part} in {}", done.stderr);
    }

    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().to_str().expect("a path").to_owned();
    let mut cluster = Spec::of(3)
        .global(&format!("  chroot {path}\n"))
        .options(TLS, &format!("{TLS} verifyhost peers.test"))
        .file("node.pem", authority.certificate("peers.test"))
        .file("ca.pem", authority.authority())
        .prepare();
    // Node 2 is met by its host's name, the others at their sockets.
    let ports = [0, 1, 2].map(|node| cluster.node(node).peers_port());
    for number in 0..3 {
        cluster.node_mut(number).reconfigure(|config| {
            let mut config = config;
            for (other, port) in ports.iter().enumerate() {
                let address = format!("127.0.0.1:{port} ");
                let (bind, server) = match other {
                    2 => (address.clone(), format!("localhost:{port} ")),
                    _ => (
                        format!("unix@{path}/{other}.peer "),
                        format!("unix@/{other}.peer "),
                    ),
                };
                config = config
                    .replace(&format!("bind {address}"), &format!("bind {bind}"))
                    .replace(
                        &format!("server node{other} {address}"),
                        &format!("server node{other} {server}"),
                    );
            }
            config
        });
    }
    for number in 0..3 {
        cluster.node_mut(number).spawn();
    }
    let mut tally = Tally::default();
    for number in 0..3 {
        cluster.node_mut(number).ready();
        cluster.node(number).hit("a", 10, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    // A new session, by the certificates of before.
    cluster.node_mut(0).kill();
    cluster.node_mut(0).start();
    cluster.node(0).hit("a", 10, &mut tally);
    cluster.settled(&Expected::of(&tally));
    for number in 0..3 {
        says(cluster.node(number), "session to peer node");
        let said = cluster.node(number).proxy().stderr();
        assert!(!said.contains("certificates have changed"), "{said}");
    }
}
