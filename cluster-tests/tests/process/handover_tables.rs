//! What an unrelated process counted is there after the next one has taken over, through a path or a shared directory.

use std::path::Path;

use cluster_tests::wait::{PATIENCE, until_true, until_within};
use cluster_tests::{Launch, Proxy, middleman, ports};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::handover::answers;
use crate::house::{HALF, House, MASTER, killed, settled};
use crate::reload_tables::{TABLES, reload};
use crate::supervisor::Load;

/// Three processes, one after the other, while downloads of each go on.
fn chain(kinds: [&[&str]; 3]) {
    let house = House::new("{{dir}}/handoff.sock", kinds[0]);
    let socket = house.first.dir().join("handoff.sock");
    let socket = socket.to_string_lossy().into_owned();
    let mut clients = Vec::new();
    let mut later: Vec<Proxy> = Vec::new();
    let mut before = 0;
    for (i, kind) in kinds.into_iter().enumerate() {
        if i > 0 {
            let args = [kind, &["-x", &socket]].concat();
            let next = house.next(&args);
            house.taken_over(&next);
            later.push(next);
        }
        before = house.serving(before);
        let known = clients.len() as i64;
        // All of it is there at once.
        assert_eq!(house.value("fe", "http_req_cnt").max(0), 8 * i as i64);
        assert_eq!(house.value("conns", "conn_cur").max(0), known);
        clients.push(house.download());
        house.get(7);
        house.becomes("conns", "conn_cur", known + 1);
        house.becomes("fe", "conn_cur", known + 1);
        // Some may have been served by the process before, which tells it.
        house.becomes("fe", "http_req_cnt", 8 * (i as i64 + 1));
    }
    house.becomes("fe", "gpc0", 24);
    house.becomes("fe", "http_req_rate", 24);
    let requests = |column| {
        let all = [(column, "24")];
        house.cli().stat_becomes("fe", "FRONTEND", &all);
    };
    requests("req_tot");
    // The oldest one's client goes: the newest hears of it.
    drop(clients.remove(0));
    house.becomes("conns", "conn_cur", 2);
    let gone = house.value("fe", "bytes_out_cnt");
    house.gate.open();
    for client in &mut clients {
        let answer = client.response().expect("the whole answer");
        assert_eq!(answer.body.len(), 2 * HALF);
    }
    drop(clients);
    house.becomes("conns", "conn_cur", 0);
    house.becomes("fe", "conn_cur", 0);
    assert_eq!(house.value("conns", "conn_cnt"), 24);
    // Everything once: the answers, heads and the 21 short ones included, are some hundred bytes each.
    let bytes = house.value("fe", "bytes_out_cnt");
    let (least, most) = (4 * HALF as i64, 6 * HALF as i64 + 24 * 300);
    assert!((least..=most).contains(&bytes) && bytes >= gone, "{bytes}");
    until_true("the totals arrive, too", || {
        house.cli().stat("be", "BACKEND", "bout").parse() == Ok(bytes)
    });
    requests("hrsp_2xx");
    for process in &later {
        process.says("accept gap 0 ms");
    }
    let House { first, .. } = house;
    let all = std::iter::once(first).chain(later);
    for (mut process, kind) in all.zip(kinds).take(2) {
        if kind.is_empty() {
            assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
        } else {
            process.signal(Signal::USR1);
            assert_eq!(process.wait().code(), Some(0), "{}", process.stderr());
        }
    }
}

#[test]
fn tables_go_from_supervisor_to_supervisor() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    chain([&["-W"], &["-W"], &["-W"]]);
}

#[test]
fn tables_go_from_plain_process_to_plain_process() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    chain([&[], &[], &[]]);
}

#[test]
fn tables_go_from_a_supervisor_to_a_plain_process_and_back() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    chain([&["-W"], &[], &["-W"]]);
}

/// A reload of the second supervisor, and a crash of its worker, while the first one still drains.
#[test]
fn a_process_that_drains_hears_of_every_later_one() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    let house = House::new("{{dir}}/handoff.sock", &MASTER);
    let socket = house.first.dir().join("handoff.sock");
    // An old worker of the first supervisor drains, too.
    let mut clients = vec![house.download()];
    house.becomes("conns", "conn_cur", 1);
    let reloaded = reload(&house.first);
    clients.push(house.download());
    house.becomes("conns", "conn_cur", 2);
    let second = house.next(&[&MASTER[..], &["-x", &socket.to_string_lossy()]].concat());
    settled(&second, reloaded);
    clients.push(house.download());
    house.becomes("conns", "conn_cur", 3);
    let again = reload(&second);
    house.becomes("conns", "conn_cur", 3);
    assert_eq!(house.value("conns", "conn_cnt"), 3);
    killed(&second, again);
    // Its tables begin empty, but what still runs is counted.
    house.becomes("conns", "conn_cur", 3);
    house.becomes("fe", "conn_cur", 3);
    house.gate.open();
    for client in &mut clients {
        let answer = client.response().expect("the whole answer");
        assert_eq!(answer.body.len(), 2 * HALF);
    }
    drop(clients);
    house.becomes("conns", "conn_cur", 0);
    let rest = 3 * HALF as i64;
    until_true("what they still counted arrives", || {
        (rest..2 * rest + 1000).contains(&house.value("fe", "bytes_out_cnt"))
    });
}

fn sockets(dir: &Path) -> Vec<String> {
    let all = std::fs::read_dir(dir).expect("a directory");
    let names = all.map(|e| {
        e.expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names.filter(|name| name.ends_with(".sock")).collect()
}

#[test]
fn processes_find_each_other_in_a_directory() {
    if haproxy_lacks("a 'handoff' directory") {
        return;
    }
    let house = House::new("{{dir}}/hand/", &["-W"]);
    let dir = house.first.dir().join("hand");
    let first = house.serving(0);
    assert_eq!(sockets(&dir).len(), 1);
    // Somebody died here.
    let stale = dir.join("remora-ffffffffffff0000.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("a socket"));
    let load = Load::on(house.first.addr("fe"));
    // Two at once, with the same words as the first: one waits for the other.
    let mut second = house.next(&["-W"]);
    let third = house.next(&["-W"]);
    until_true("both have taken over", || {
        let took = |p: &Proxy| p.stderr().contains("hand-off: ");
        took(&second) && took(&third)
    });
    house.serving(first);
    load.moves();
    until_true("only the last one offers its sockets", || {
        sockets(&dir).len() == 1
    });
    assert!(!stale.exists());
    let (answered, failed) = load.finish();
    assert_eq!(failed, 0);
    house.becomes("fe", "http_req_cnt", answered as i64);
    house.becomes("fe", "conn_cur", 0);
    // Whoever has handed over stays until it is told to end.
    until_true("two have left", || {
        let left = [&house.first, &second, &third].into_iter();
        let has_left = |p: &&Proxy| p.stderr().contains("Another process has taken over");
        left.filter(has_left).count() == 2
    });
    // A reload changes nothing in the directory.
    let before = sockets(&dir);
    let last = house.serving(0);
    for process in [&second, &third] {
        process.signal(Signal::USR2);
    }
    house.serving(last);
    assert_eq!(sockets(&dir), before);
    // All are killed: the next one finds nobody, and removes what they left.
    let config = house.first.dir().join("test.cfg");
    house.first.signal(Signal::KILL);
    second.signal(Signal::KILL);
    second.wait();
    drop(third);
    until_true("nobody listens", || {
        !ports::is_listening(house.first.addr("fe").port())
    });
    let fourth = Launch::new("")
        .arg("-f")
        .arg(&config.to_string_lossy())
        .spawn();
    let serves = until_within(PATIENCE, || {
        answers(house.first.addr("fe"), "/").then_some(())
    });
    assert!(serves.is_some(), "{}", fourth.stderr());
    until_true("only it offers its sockets", || {
        let now = sockets(&dir);
        now.len() == 1 && now != before
    });
    assert_eq!(house.value("fe", "http_req_cnt"), 1);
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_by_name() {
    if haproxy_lacks("a 'handoff' directory") {
        return;
    }
    let refused = |handoff: &str, mode: &str, wrapper: &[&str]| {
        let head = HEAD.replacen("global\n", &format!("global\n  handoff {handoff}\n"), 1);
        let launch = Launch::new(&format!("{head}{TABLES}"))
            .set("s1", "127.0.0.1:1")
            .file("hand/.keep", "");
        let mut wrap = vec!["/bin/sh", "-c"];
        let script = format!(
            "chmod 777 . && chmod {mode} hand && exec {} \"$0\" \"$@\"",
            wrapper.join(" ")
        );
        wrap.push(&script);
        let output = launch.wrapper(&wrap).run();
        assert_eq!(output.code, Some(1), "{}", output.stderr);
        output.stderr
    };
    let said = refused("{{dir}}/hand/", "777", &[]);
    assert!(
        said.contains("everybody may write") && said.contains("chmod o-w"),
        "{said}"
    );
    let said = refused("{{dir}}/nowhere/", "755", &[]);
    assert!(said.contains("there is no directory"), "{said}");
    // Rights are no help where something else has the name.
    let said = refused("{{dir}}/hand/.keep", "755", &[]);
    assert!(
        said.contains("is not a socket") && !said.contains("needs the right"),
        "{said}"
    );
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--"];
    let said = refused("{{dir}}/hand/", "755", &nobody);
    assert!(
        said.contains("User 65534 needs the right to write"),
        "{said}"
    );
}

/// Whoever only connects keeps nobody from taking over.
#[test]
fn silent_connections_are_in_nobodys_way() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    let house = House::new("{{dir}}/handoff.sock", &[]);
    let first = house.serving(0);
    let socket = house.first.dir().join("handoff.sock");
    let silent: Vec<_> = (0..40)
        .filter_map(|_| middleman::connect(&socket))
        .collect();
    assert!(silent.len() > 3);
    house.get(2);
    let second = house.next(&["-x", &socket.to_string_lossy()]);
    assert_eq!(house.serving(first), second.pid());
    assert_eq!(house.value("fe", "http_req_cnt"), 2);
}

/// Somebody else's process may neither take over nor be taken over from.
#[test]
fn other_users_take_nothing() {
    if haproxy_lacks("a 'handoff' socket") || !rustix::process::geteuid().is_root() {
        return;
    }
    let house = House::new("{{dir}}/handoff.sock", &[]);
    let socket = house.first.dir().join("handoff.sock");
    let socket = socket.to_string_lossy().into_owned();
    let open = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    open(house.first.dir(), 0o755);
    open(&house.first.dir().join("test.cfg"), 0o644);
    let stranger = || {
        let config = house.first.dir().join("test.cfg");
        let mut process = Launch::new("")
            .wrapper(&["setpriv", "--reuid=65534", "--clear-groups", "--"])
            .arg("-x")
            .arg(&socket)
            .arg("-f")
            .arg(&config.to_string_lossy())
            .spawn();
        assert_eq!(process.wait().code(), Some(1));
        process.stderr()
    };
    let said = stranger();
    assert!(said.contains("Permission denied"), "{said}");
    // Even if somebody opened the door.
    open(Path::new(&socket), 0o666);
    let said = stranger();
    assert!(said.contains("of user 65534 must not take over"), "{said}");
    house.get(3);
    assert_eq!(house.value("fe", "http_req_cnt"), 3);
}
