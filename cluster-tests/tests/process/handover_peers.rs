//! Unrelated processes of a node with peers: what others tell meanwhile, and a process that dies half-way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::{Hits, Tally};
use cluster_tests::middleman::{self, Passed, Passing};
use cluster_tests::wait::{until, until_true};
use cluster_tests::{Launch, Proxy};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::haproxy_lacks;

fn two_nodes() -> (Cluster, Tally) {
    let handoff = "  handoff {{dir}}/handoff.sock";
    let cluster = Spec::of(2).one_clock().global(handoff).start();
    let mut tally = Tally::default();
    for index in 0..2 {
        cluster.node(index).hit("same", 20, &mut tally);
        cluster
            .node(index)
            .hit(&format!("of{index}"), 5, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    (cluster, tally)
}

/// Another process takes over from node 0, and what they say is seen.
fn take_over(
    cluster: &Cluster,
    before: impl FnMut(&mut Passing) + Send + 'static,
    after: impl FnMut(&Passed<'_>) + Send + 'static,
) -> Proxy {
    let dir = cluster.node(0).proxy().dir();
    let path = dir.join("relay.sock");
    middleman::listen(&path, &dir.join("handoff.sock"), before, after);
    Launch::new("")
        .arg("-L")
        .arg("node0")
        .arg("-x")
        .arg(&path.to_string_lossy())
        .arg("-f")
        .arg(&dir.join("test.cfg").to_string_lossy())
        .spawn()
}

fn serves(cluster: &Cluster, pid: u32) -> bool {
    let cli = cluster.node(0).proxy().cli();
    cli.try_open().is_ok() && cli.info("Pid") == Some(pid.to_string())
}

/// Between the first entry that is shown and the word that it may serve, the peer counts on: what it tells the old process too
/// late, it tells the new one.
#[test]
fn what_a_peer_pushes_during_the_teaching_is_not_lost() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    const FRAMES: [&str; 7] = [
        "Pass/Rows",
        "Pass/Walked",
        "Hold",
        "Pass/Sealed",
        "Held",
        "Drain",
        "Yours",
    ];
    let (cluster, tally) = two_nodes();
    let tally = Arc::new(Mutex::new(tally));
    let (counts, seen) = (Arc::clone(&tally), Arc::new(Mutex::new(Vec::new())));
    let passed = Arc::clone(&seen);
    let peer = cluster.node(1).entrance();
    let second = take_over(
        &cluster,
        move |passing| {
            let mut passed = passed.lock().expect("no panic");
            let name = passing.name.clone();
            if FRAMES.contains(&name.as_str()) && !passed.contains(&name) {
                let mut tally = counts.lock().expect("no panic");
                let mut hits = Hits::open(&peer).expect("the peer accepts");
                for (key, count) in [("same", 7), (name.as_str(), 3)] {
                    hits.send(key, count).expect("every request is answered");
                    tally.add(key, count);
                }
                passed.push(name);
            }
        },
        |_| {},
    );
    until_true("the second one serves", || serves(&cluster, second.pid()));
    assert_eq!(seen.lock().expect("no panic").len(), FRAMES.len());
    let mut tally = tally.lock().expect("no panic");
    cluster.settled(&Expected::of(&tally));
    for index in 0..2 {
        cluster.node(index).hit("same", 4, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    let said = second.stderr();
    assert!(!said.contains("WARNING"), "{said}");
}

/// What the dead one had shown, and what it had told its peer, are the same counts.
#[test]
fn a_node_whose_process_dies_half_way_counts_nothing_twice() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    for frame in ["Take", "Pass/Ask", "Pass/Rows", "Pass/Walked", "Hold"] {
        let (cluster, mut tally) = two_nodes();
        let old = Pid::from_raw(cluster.node(0).proxy().pid() as i32).expect("a pid");
        let killed = Arc::<AtomicBool>::default();
        let once = Arc::clone(&killed);
        let mut second = take_over(
            &cluster,
            |_| {},
            move |passed| {
                if passed.name == frame && !once.swap(true, Ordering::SeqCst) {
                    let _ = kill_process(old, Signal::KILL);
                }
            },
        );
        let serves = until("the second one serves", || {
            if second.try_wait().is_some() {
                // It has been given nothing yet, and a killed process closes its sockets a moment later.
                let said = second.stderr();
                let early = frame == "Take" && said.contains("Address already in use");
                assert!(early, "{frame}: {said}");
                return Some(false);
            }
            (killed.load(Ordering::SeqCst) && serves(&cluster, second.pid())).then_some(true)
        });
        if !serves {
            continue;
        }
        cluster.settled(&Expected::of(&tally));
        for index in 0..2 {
            cluster.node(index).hit("same", 4, &mut tally);
            cluster.node(index).hit("later", 1, &mut tally);
        }
        cluster.settled(&Expected::of(&tally));
    }
}
