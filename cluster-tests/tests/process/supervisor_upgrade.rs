//! A supervisor whose program, or whose configuration files, are replaced.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cluster_tests::locate::{Kind, program};
use cluster_tests::wait::{until_true, until_within};
use cluster_tests::{Launch, get};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::house::{House, MASTER, killed, settled};
use crate::supervisor::{Load, OK, edit, kill, master, supervised, worker};

/// Puts a copy of the program at `path`, with a few bytes more behind it, in one step.
fn install(path: &Path, more: &[u8]) {
    let mut bytes = std::fs::read(program(Kind::Remora)).expect("the program");
    bytes.extend_from_slice(more);
    replace(path, &bytes);
}

/// Another process writes the file: what this one has open for writing, a child that a test beside this one just forks has
/// open, too, and such a file cannot be executed.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    let script = "cat >\"$1\" && chmod 755 \"$1\" && mv \"$1\" \"$2\"";
    let mut shell = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&new, path])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut input = shell.stdin.take().expect("piped");
    input.write_all(bytes).expect("it reads");
    drop(input);
    assert!(shell.wait().expect("it ends").success());
}

#[test]
fn a_new_program_takes_over_supervisor_and_workers() {
    if haproxy_lacks("what is tested is the path of our own program") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("remora");
    install(&path, b"");
    let mut proxy = supervised(HEAD).program(&path).start();
    let supervisor = proxy.pid();
    let executed = || std::fs::read_link(format!("/proc/{supervisor}/exe")).expect("it lives");
    let load = Load::on(proxy.addr("fe"));
    for round in 1..4_u8 {
        install(&path, &vec![b'x'; usize::from(round)]);
        until_true("the old file is gone", || {
            executed().to_string_lossy().ends_with("(deleted)")
        });
        let said = master(&proxy).ask("reload");
        assert!(said.starts_with("Success=1\n"), "{said}");
        until_true("the supervisor follows its worker", || executed() == path);
        load.moves();
        let table = master(&proxy).ask("show proc");
        assert!(
            table.contains(&format!("\n{supervisor} ")),
            "the same process: {table}"
        );
        assert!(table.contains(&format!(" {round} [failed: 0]")), "{table}");
    }
    assert_eq!(load.failures(), 0);
    // Its workers are its own still: noticed when they end, and reached.
    let pid = worker(&proxy);
    assert!(
        master(&proxy)
            .ask("@1 show info")
            .contains(&format!("\nPid: {pid}\n"))
    );
    kill(pid, Signal::KILL);
    until_true("another worker serves", || worker(&proxy) != pid);
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_program_that_is_none_changes_nothing() {
    if haproxy_lacks("what is tested is the path of our own program") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("remora");
    install(&path, b"");
    let proxy = supervised(HEAD).program(&path).start();
    let before = worker(&proxy);
    let fails = |what: &str| {
        let said = master(&proxy).ask("reload");
        assert!(said.starts_with("Success=0\n"), "{what}: {said}");
        assert_eq!(worker(&proxy), before, "{what}");
        assert_eq!(
            get(proxy.addr("fe"), "/").map(|r| r.status),
            Ok(200),
            "{what}"
        );
    };
    replace(&path, b"#!/bin/sh\nexit 0\n");
    fails("a program that ends at once");
    replace(&path, b"no program at all");
    fails("something that cannot be executed");
    std::fs::remove_file(&path).expect("it is there");
    fails("nothing");
    install(&path, b"x");
    assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
}

#[test]
fn signals_are_not_lost_while_the_new_program_is_executed() {
    if haproxy_lacks("what is tested is the path of our own program") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("remora");
    install(&path, b"");
    let mut proxy = supervised(HEAD).program(&path).start();
    install(&path, b"x");
    assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
    let supervisor = proxy.pid();
    // Until it has happened, and some more.
    let executed =
        || std::fs::read_link(format!("/proc/{supervisor}/exe")).is_ok_and(|exe| exe == path);
    let mut after = 0;
    until_true("it follows", || {
        proxy.signal(Signal::USR2);
        after += u32::from(executed());
        after > 20
    });
    assert!(proxy.try_wait().is_none(), "no signal killed it");
    until_true("the last reload is over", || {
        let before = worker(&proxy);
        until_within(std::time::Duration::from_millis(300), || {
            (worker(&proxy) != before).then_some(())
        })
        .is_none()
    });
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn changed_files_are_followed() {
    if haproxy_lacks("--watch") {
        return;
    }
    let config = HEAD.to_owned()
        + "frontend fe\n  bind 127.0.0.1:{{port:fe}}\n  http-request return status 200 content-type text/plain file body.txt\n";
    let proxy = Launch::new(&config)
        .file("body.txt", "one")
        .supervised()
        .arg("--watch")
        .start();
    let fe = proxy.addr("fe");
    let says = |what: &str| {
        until_true(what, || {
            get(fe, "/").is_ok_and(|answer| answer.text().trim() == what)
        });
    };
    says("one");
    // A file that the configuration names.
    std::fs::write(proxy.dir().join("body.txt"), "two").expect("a file");
    says("two");
    // A mistake is reported, once, and changes nothing.
    edit(&proxy, "bind ", "bnid ");
    until_true("it is reported", || {
        master(&proxy).ask("show proc").contains("[failed: 1]")
    });
    says("two");
    edit(&proxy, "bnid ", "bind ");
    until_true("it is corrected", || {
        let mut session = master(&proxy).open();
        session.send("prompt\nquit\n");
        session.rest().contains("master> ")
    });
    // As Kubernetes replaces a ConfigMap: the file is a link through a link, which is exchanged.
    let dir = proxy.dir();
    let fill = |version: &str, body: &str| {
        std::fs::create_dir(dir.join(version)).expect("a directory");
        std::fs::write(dir.join(version).join("body.txt"), body).expect("a file");
        std::os::unix::fs::symlink(version, dir.join("..data_tmp")).expect("a link");
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).expect("a link");
    };
    fill("..1", "two");
    std::os::unix::fs::symlink("..data/body.txt", dir.join("body.tmp")).expect("a link");
    std::fs::rename(dir.join("body.tmp"), dir.join("body.txt")).expect("a link");
    for (version, body) in [("..2", "three"), ("..3", "four")] {
        fill(version, body);
        says(body);
    }
    // Nothing more happens when nothing has changed: writing the same is no change.
    until_true("the reload is over", || {
        let table = master(&proxy).ask("show proc");
        !table.contains("# new workers") && !table.contains("# old workers")
    });
    let before = worker(&proxy);
    replace(&dir.join("..3/body.txt"), b"four");
    cluster_tests::wait::observe_for(std::time::Duration::from_millis(600));
    assert_eq!(worker(&proxy), before);
}

#[test]
fn a_directory_under_a_relative_name_is_followed_and_does_not_always_look_changed() {
    if haproxy_lacks("--watch") {
        return;
    }
    let proxy = Launch::new(&format!("{HEAD}{OK}"))
        .arg("-W")
        .arg("--watch")
        .arg("-S")
        .arg("{{dir}}/master.sock")
        .arg("-f")
        .arg(".")
        .start();
    let fe = proxy.addr("fe");
    let before = worker(&proxy);
    // A look is taken a quarter of a second after the start.
    cluster_tests::wait::observe_for(std::time::Duration::from_millis(800));
    assert_eq!(worker(&proxy), before);
    edit(&proxy, "string one", "string two");
    until_true("the change is followed", || {
        get(fe, "/").is_ok_and(|answer| answer.text() == "two")
    });
}

/// A worker that the supervisor knows from its former life shows its tables once more.
#[test]
fn tables_outlive_a_worker_that_dies_after_the_program_was_executed() {
    if haproxy_lacks("what is tested is the path of our own program") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("remora");
    install(&path, b"");
    let house = House::of(&path, "{{dir}}/handoff.sock", &MASTER, "");
    let client = house.download();
    house.get(5);
    house.becomes("fe", "http_req_cnt", 6);
    let supervisor = house.first.pid();
    install(&path, b"x");
    let before = worker(&house.first);
    assert!(
        master(&house.first)
            .ask("reload")
            .starts_with("Success=1\n")
    );
    until_true("the supervisor follows", || {
        std::fs::read_link(format!("/proc/{supervisor}/exe")).is_ok_and(|exe| exe == path)
    });
    let mut now = settled(&house.first, before);
    for _ in 0..2 {
        now = killed(&house.first, now);
        house.becomes("fe", "http_req_cnt", 6);
        house.becomes("conns", "conn_cur", 1);
        assert_eq!(house.value("fe", "gpc0"), 6);
    }
    house.completes([client]);
    house.becomes("conns", "conn_cur", 0);
}

/// All that can ask for a reload does at the same moment: the last configuration is served, and nobody notices.
#[test]
fn everything_asks_for_a_reload_at_once() {
    if haproxy_lacks("--watch") {
        return;
    }
    let proxy = supervised(HEAD).arg("--watch").start();
    let load = Load::on(proxy.addr("fe"));
    let mut before = "string one".to_owned();
    for round in 0..4 {
        let now = format!("string number{round}");
        edit(&proxy, &before, &now);
        proxy.signal(Signal::HUP);
        proxy.signal(Signal::USR2);
        let said = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| master(&proxy).ask("reload")))
                .collect();
            asked
                .into_iter()
                .map(|thread| thread.join().expect("an answer"))
                .collect::<Vec<_>>()
        });
        for said in said {
            assert!(said.starts_with("Success=1\n"), "{said}");
        }
        let answer = get(proxy.addr("fe"), "/").expect("an answer");
        assert_eq!(answer.text(), format!("number{round}"));
        load.moves();
        before = now;
    }
    assert_eq!(load.failures(), 0);
    until_true("all of them are over", || {
        let table = master(&proxy).ask("show proc");
        !table.contains("# new workers") && !table.contains("# old workers")
    });
    let table = master(&proxy).ask("show proc");
    assert!(table.contains("[failed: 0]"), "{table}");
    // Those that come together are one: in each round one that runs, one that waits, and one that was looked for, or a few more
    // where the machine keeps them apart; but not all six.
    let all = proxy.stderr().matches("Reloading.").count();
    assert!((4..4 * 6).contains(&all), "{all}");
}
