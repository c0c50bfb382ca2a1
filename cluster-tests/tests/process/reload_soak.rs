//! A short run of what `reload-soak` does for hours.

use std::process::{Command, Stdio};
use std::time::Duration;

use cluster_tests::locate::{self, Kind};
use cluster_tests::soak::Plan;
use cluster_tests::tools;
use cluster_tests::wait::{until, until_true};

use crate::common::{alive, children, haproxy_lacks};

fn short(nodes: usize, rounds: usize) -> Plan {
    Plan {
        rounds,
        nodes,
        clients: 2,
        think: Duration::from_millis(1),
        calm: Duration::ZERO,
        ..Plan::of(Kind::Remora)
    }
}

#[test]
fn reloads_under_load_lose_nothing() {
    if haproxy_lacks("loses connections and counts") {
        return;
    }
    let outcome = short(1, 8).run();
    assert_eq!(outcome.losses(), [""; 0], "{:?}", outcome.stories);
    assert!(outcome.answers > 100 && outcome.gauges > 8);
}

#[test]
fn reloads_of_peering_nodes_under_load_lose_nothing() {
    if haproxy_lacks("loses connections and counts") {
        return;
    }
    let outcome = short(3, 6).run();
    assert_eq!(outcome.losses(), [""; 0], "{:?}", outcome.stories);
}

#[test]
fn nodes_end_with_a_run_that_is_killed() {
    if tools::tool("setpriv").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Command::new(env!("CARGO_BIN_EXE_reload-soak"))
        .args(["--rounds", "1000000", "--clients", "1", "--nodes", "2"])
        .arg("--program")
        .arg(locate::program(Kind::Remora))
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be executed");
    let processes = until("both nodes have workers", || {
        let nodes = children(run.id());
        let workers: Vec<Vec<u32>> = nodes.iter().map(|node| children(*node)).collect();
        let serve = nodes.len() == 2 && !workers.iter().any(Vec::is_empty);
        serve.then(|| [nodes, workers.concat()].concat())
    });
    run.kill().expect("it is ours");
    run.wait().expect("it is ours");
    for pid in processes {
        until_true("it ends", || !alive(pid));
    }
}
