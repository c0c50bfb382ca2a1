//! Reloads in which one worker is killed after each frame that is said: each has one right outcome.

use std::fmt::Display;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cluster_tests::Client;
use cluster_tests::locate::{Kind, program};
use cluster_tests::wait::{PATIENCE, until_true, until_within};
use rustix::process::Signal;

use crate::common::haproxy_lacks;
use crate::house::{House, MASTER, PROBE, Probe, serving};
use crate::supervisor::{master, workers};

/// All that is said over the channels of a worker that takes over, in about this order.
const FRAMES: [&str; 19] = [
    "Hello",
    "Listeners",
    "Learn",
    "Begin",
    "Files",
    "Pass/Ask",
    "Pass/Tables",
    "Pass/Rows",
    "Pass/Walked",
    "Ready",
    "Pass/Totals",
    "Pass/Sealed",
    "Go",
    "Opens",
    "Open",
    "Pass/Accepting",
    "Pass/Quiet",
    "Serving",
    "Pass/Released",
];

/// A supervisor whose next workers are started through the program in between.
struct Stage {
    house: House,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("remora");
        let real = program(Kind::Remora);
        symlink(&real, &path).expect("a link");
        let house = House::of(&path, "{{dir}}/handoff.sock", &MASTER, PROBE);
        let between = PathBuf::from(env!("CARGO_BIN_EXE_between-workers"));
        std::fs::remove_file(&path).expect("a link");
        symlink(between, &path).expect("a link");
        Stage { house, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn order(&self, frame: &str, victim: impl Display) {
        let real = program(Kind::Remora);
        let orders = format!("{}\n{frame}\n{victim}", real.display());
        std::fs::write(self.file("between.conf"), orders).expect("a file");
        std::fs::write(self.file("seen"), "").expect("a file");
    }

    /// Reloads; one side is killed after this frame. `victim`: 0 = the new worker.
    fn reload(&self, frame: &str, victim: u32) -> String {
        self.order(frame, victim);
        let said = master(&self.house.first).ask("reload");
        // The last frame comes after the answer.
        let fired = || read(&self.file("seen")).lines().any(|line| line == "fired");
        if until_within(PATIENCE, || fired().then_some(())).is_none() {
            panic!("{frame} was not seen: {said}\n{}", read(&self.file("seen")));
        }
        said
    }

    /// The process that serves now.
    fn serving(&self, not: Option<u32>) -> u32 {
        let mut now = None;
        until_true("somebody serves", || {
            now = serving(&self.house);
            now.is_some() && now != not
        });
        now.expect("somebody serves")
    }

    /// A client that will have the rest of its answer, or not.
    fn download(&self) -> Client {
        let client = self.house.download();
        self.house.becomes("conns", "conn_cur", 1);
        client
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

#[test]
fn a_new_worker_may_die_after_each_frame() {
    if haproxy_lacks("a hand-over") {
        return;
    }
    // After the last two it has taken over: for these, there is a house each.
    let [before @ .., serving, released] = FRAMES;
    new_dies_after(&[&before[..], &[serving]].concat());
    new_dies_after(&[released]);
}

fn new_dies_after(frames: &[&str]) {
    let stage = Stage::new();
    let house = &stage.house;
    let probe = Probe::of(house);
    house.get(5);
    let client = stage.download();
    let first = stage.serving(None);
    for frame in frames {
        let said = stage.reload(frame, 0);
        // Before it served nothing has changed; afterwards a third one has learned from the first.
        let served = ["Serving", "Pass/Released"].contains(frame);
        if served {
            assert!(said.starts_with("Success=1\n"), "{frame}: {said}");
            stage.serving(Some(first));
            let told = "has died; the one before it has shown";
            until_true("it has learned", || house.first.stderr().contains(told));
        } else {
            assert!(said.starts_with("Success=0\n"), "{frame}: {said}");
            until_true("the first one serves", || serving(house) == Some(first));
        }
        assert_eq!(house.value("fe", "http_req_cnt"), 6, "{frame}");
        assert_eq!(house.value("fe", "gpc0"), 6, "{frame}");
        house.becomes("conns", "conn_cur", 1);
        house.becomes("fe", "conn_cur", 1);
    }
    assert_eq!(probe.finish(), 0);
    house.completes([client]);
    house.becomes("conns", "conn_cur", 0);
}

#[test]
fn the_worker_that_serves_may_die_after_each_frame() {
    if haproxy_lacks("a hand-over") {
        return;
    }
    let stage = Stage::new();
    let house = &stage.house;
    let probe = Probe::of(house);
    for frame in FRAMES {
        let before = stage.serving(None);
        house.cli().released("fe");
        house.cli().ask("clear table fe");
        house.get(5);
        let client = stage.download();
        let said = stage.reload(frame, before);
        let now = stage.serving(Some(before));
        // The new one goes on if it has heard everything, and else knows nothing: as after every crash.
        let sealed = FRAMES.iter().position(|name| *name == "Pass/Sealed");
        let all = FRAMES.iter().position(|name| *name == frame) >= sealed;
        assert_eq!(said.starts_with("Success=1\n"), all, "{frame}: {said}");
        house.becomes("conns", "conn_cur", if all { 0 } else { -1 });
        let count = house.value("fe", "http_req_cnt");
        assert_eq!(count, if all { 6 } else { -1 }, "{frame}");
        until_true("it is gone", || workers(&house.first).len() == 1);
        assert_eq!(serving(house), Some(now), "{frame}");
        drop(client);
    }
    assert_eq!(probe.finish(), 0);
    house.first.signal(Signal::TERM);
}

/// A new worker that serves, and cannot say so for longer than anybody would expect, is not given up for it: what it served would
/// be counted nowhere.
#[test]
fn a_new_worker_that_is_late_loses_nothing() {
    if haproxy_lacks("a hand-over") {
        return;
    }
    let stage = Stage::new();
    let house = &stage.house;
    house.get(5);
    let client = stage.download();
    let first = stage.serving(None);
    stage.order("Serving", "hold");
    let cli = master(&house.first);
    let reload = std::thread::spawn(move || cli.ask("reload"));
    until_true("it accepts", || read(&stage.file("seen")).contains("held"));
    house.get(7);
    house
        .first
        .says("was told to accept and does not say that it does");
    house.get(2);
    std::fs::write(stage.file("release"), "").expect("a file");
    let said = reload.join().expect("an answer");
    assert!(said.starts_with("Success=1\n"), "{said}");
    stage.serving(Some(first));
    house.becomes("fe", "http_req_cnt", 15);
    house.becomes("fe", "gpc0", 15);
    house.becomes("conns", "conn_cur", 1);
    house.completes([client]);
    house.becomes("conns", "conn_cur", 0);
    assert_eq!(house.value("fe", "http_req_cnt"), 15);
}

/// The program was replaced by one of another minor version of the hand-off, newer or older: workers hand over to each other, and what
/// the old ones still count is counted.
#[test]
fn workers_of_other_minor_versions_take_over() {
    if haproxy_lacks("a hand-over") {
        return;
    }
    for minor in ["newer", "older"] {
        let stage = Stage::new();
        let house = &stage.house;
        house.get(5);
        let client = stage.download();
        let mut now = stage.serving(None);
        stage.order("-", minor);
        // The second time both workers are that other build, as the supervisor sees it.
        for count in 6..8 {
            let said = master(&house.first).ask("reload");
            assert!(said.starts_with("Success=1\n"), "{minor}: {said}");
            now = stage.serving(Some(now));
            assert_eq!(house.value("fe", "http_req_cnt"), count, "{minor}");
            house.becomes("conns", "conn_cur", 1);
            house.get(1);
        }
        let seen = read(&stage.file("seen"));
        let asks = seen.contains("Opens");
        assert_eq!(asks, minor == "newer", "an older one does not ask: {seen}");
        house.completes([client]);
        house.becomes("conns", "conn_cur", 0);
        house.becomes("fe", "http_req_cnt", 8);
        let said = house.first.stderr();
        assert!(!said.contains("not expected"), "{said}");
    }
}
