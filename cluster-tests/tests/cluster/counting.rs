//! Several nodes are hit at the same time.

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::{Hits, Tally};

/// Hits all nodes at once: `shared` keys that all count, and as many of each node's own. Returns the truth.
fn hit_all(cluster: &Cluster, keys: usize, rounds: u64, burst: u64) -> Tally {
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..cluster.len())
            .map(|node| {
                let entrance = cluster.node(node).entrance();
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    let mut hits = Hits::open(&entrance).expect("the frontend accepts");
                    for _ in 0..rounds {
                        for key in 0..keys {
                            for key in [format!("all{key}"), format!("own{node}-{key}")] {
                                hits.send(&key, burst).expect("every request is answered");
                                tally.add(&key, burst);
                            }
                        }
                    }
                    tally
                })
            })
            .collect();
        for client in clients {
            tally.merge(&client.join().expect("a client"));
        }
    });
    tally
}

/// The sums are exact for one hot key and for many, whoever counts them.
#[track_caller]
fn sums_are_exact(cluster: &Cluster, rounds: u64) {
    let mut tally = hit_all(cluster, 1, rounds, 20);
    cluster.settled(&Expected::of(&tally));
    tally.merge(&hit_all(cluster, 50, 2, 3));
    cluster.settled(&Expected::of(&tally));
    // And once more after a pause, in which everything was acknowledged.
    tally.merge(&hit_all(cluster, 1, 1, 1));
    cluster.settled(&Expected::of(&tally));
}

#[test]
fn two_nodes_at_once() {
    sums_are_exact(&Spec::of(2).start(), 100);
}

#[test]
fn three_nodes_at_once() {
    sums_are_exact(&Spec::of(3).start(), 60);
}

#[test]
fn eight_nodes_at_once() {
    sums_are_exact(&Spec::of(8).start(), 15);
}

#[test]
fn three_nodes_with_delays_of_5_ms_and_more() {
    let cluster = Spec::of(3).relayed().start();
    for (number, relay) in cluster.relays().enumerate() {
        relay.delay(Duration::from_millis(5 + 7 * number as u64));
    }
    sums_are_exact(&cluster, 40);
}

#[test]
fn several_worker_threads_count_one_key() {
    let cluster = Spec::of(2).global("  nbthread 2").start();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let entrance = cluster.node(client % 2).entrance();
            scope.spawn(move || {
                let mut hits = Hits::open(&entrance).expect("the frontend accepts");
                hits.send("a", 1000).expect("every request is answered");
            });
        }
    });
    tally.add("a", 8000);
    cluster.settled(&Expected::of(&tally));
}
