//! Nodes with peers whose reloads fail, or whose workers die when nobody else is there.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::locate::{Kind, program};
use cluster_tests::wait::until_true;
use rustix::process::Signal;

use crate::common::haproxy_lacks;
use crate::house::{killed, serve_supervised};
use crate::reload_tables::reload;
use crate::supervisor::{master, worker};

/// The worker that serves had fallen silent for the new one, which dies: it goes on with its peers, and no event is lost or
/// counted twice.
#[test]
fn sums_stay_exact_when_the_new_worker_dies() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("remora");
    let real = program(Kind::Remora);
    symlink(&real, &path).expect("a link");
    let mut cluster = Spec::of(2)
        .program(Kind::Remora, Some(path.clone()))
        .prepare();
    serve_supervised(&mut cluster, &[0]);
    std::fs::remove_file(&path).expect("a link");
    symlink(PathBuf::from(env!("CARGO_BIN_EXE_between-workers")), &path).expect("a link");
    let mut tally = Tally::default();
    let first = worker(cluster.node(0).proxy());
    for frame in [
        "Pass/Walked",
        "Pass/Sealed",
        "Go",
        "Pass/Accepting",
        "Pass/Quiet",
    ] {
        for index in 0..2 {
            let node = cluster.node(index);
            node.hit("same", 10, &mut tally);
            node.hit(&format!("{index}"), 3, &mut tally);
        }
        let orders = format!("{}\n{frame}\n0", real.display());
        std::fs::write(dir.path().join("between.conf"), orders).expect("a file");
        std::fs::write(dir.path().join("seen"), "").expect("a file");
        let proxy = cluster.node(0).proxy();
        let said = master(proxy).ask("reload");
        assert!(said.starts_with("Success=0\n"), "{frame}: {said}");
        assert_eq!(worker(proxy), first);
        for index in 0..2 {
            let node = cluster.node(index);
            node.hit("same", 5, &mut tally);
            node.hit(&format!("{frame}{index}"), 2, &mut tally);
        }
        cluster.settled(&Expected::of(&tally));
    }
    let said = cluster.node(1).proxy().stderr();
    assert!(!said.contains("taken for dead"), "{said}");
}

/// Nobody else is left who knows what the dead node counted: the process before shows it.
#[test]
fn what_a_lost_peer_counted_outlives_a_worker_that_dies() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(2).prepare();
    serve_supervised(&mut cluster, &[0]);
    let mut tally = Tally::default();
    for index in 0..2 {
        cluster.node(index).hit("same", 10, &mut tally);
        cluster
            .node(index)
            .hit(&format!("of{index}"), 3, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    cluster.node_mut(1).kill();
    let mut serving = reload(cluster.node(0).proxy());
    for _ in 0..2 {
        let node = cluster.node(0);
        // Known to nobody else: lost with the worker.
        node.hit("same", 4, &mut Tally::default());
        serving = killed(node.proxy(), serving);
        node.proxy().says("the one before it has shown");
        cluster.settled(&Expected::of(&tally));
    }
    cluster.node(0).hit("same", 1, &mut tally);
    cluster.node(0).hit("new", 1, &mut tally);
    // Whoever comes back learns all of it.
    cluster.node_mut(1).start();
    cluster.node(1).hit("same", 1, &mut tally);
    cluster.settled(&Expected::of(&tally));
    until_true("they have met", || {
        cluster
            .node(1)
            .said()
            .contains("session from peer node0 is up")
    });
    cluster.settled(&Expected::of(&tally));
    cluster.node_mut(0).end_with(Signal::TERM);
    cluster.settled(&Expected::of(&tally));
}
