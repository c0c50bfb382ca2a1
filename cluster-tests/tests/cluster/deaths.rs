//! Nodes that are killed, restarted and frozen.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_tests::cluster::{AGREE, Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::{Done, Hits, Tally, Traffic};
use cluster_tests::relay::Relay;
use cluster_tests::tools;
use cluster_tests::wait::{observe_for, pace, until, until_true, until_within};
use rustix::process::{Pid, Signal, kill_process};

const PAUSE: Duration = Duration::from_millis(2);

/// What a killed node had not sent: what it counted since its last flush. The pauses between them are that long for keys that are
/// hit all the time.
const FLUSH: Duration = Duration::from_millis(50);
/// Between a count and its being on the way, threads of the node are woken three times (the flush, the stream, the connection), and the
/// client that was answered once. Each may be as late as this process's own threads are; never more late than the bound.
const WAKE_UPS: u32 = 4;
const LATE_MAX: Duration = Duration::from_millis(500);

/// How late threads are woken on this machine.
struct Lateness {
    seen: Arc<Mutex<VecDeque<(Instant, Duration)>>>,
    over: Arc<AtomicBool>,
}

impl Lateness {
    fn watch() -> Self {
        let (seen, over) = (Arc::default(), Arc::default());
        let lateness = Self { seen, over };
        let (seen, over) = (Arc::clone(&lateness.seen), Arc::clone(&lateness.over));
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                let begun = Instant::now();
                pace(PAUSE);
                let now = Instant::now();
                let mut seen = seen.lock().expect("no panic");
                seen.push_back((now, now - begun - PAUSE.min(now - begun)));
                while seen
                    .front()
                    .is_some_and(|(at, _)| now - *at > Duration::from_secs(1))
                {
                    seen.pop_front();
                }
            }
        });
        lateness
    }
    /// The worst of the last second.
    fn worst(&self) -> Duration {
        let seen = self.seen.lock().expect("no panic");
        let worst = seen.iter().map(|(_, late)| *late).max();
        worst.unwrap_or(LATE_MAX).min(LATE_MAX)
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

/// Each node in turn is killed under traffic and started again. What it had counted survives on the others, but for what
/// it had not sent yet; what the others counted is exact; and the new process sees it all before it accepts.
#[test]
fn every_node_in_turn_is_killed_under_traffic() {
    let lateness = Lateness::watch();
    let mut cluster = Spec::of(3).peers("  learn-timeout 10m").start();
    let mut low = Tally::default();
    let mut high = Tally::default();
    for victim in 0..3 {
        let keys: Vec<String> = (0..3).map(|node| format!("own{node}-{victim}")).collect();
        let traffic: Vec<Traffic> = (0..3)
            .map(|node| Traffic::start(cluster.node(node).entrance(), &[&keys[node]], 4, PAUSE))
            .collect();
        until_true("traffic flows everywhere", || {
            (0..3).all(|node| cluster.node(node).value(&keys[node], "gpc0") >= 100)
        });
        let dying = Instant::now();
        cluster.node_mut(victim).kill();
        let killed = Instant::now();
        // A wake-up that is under way is late by as much as has passed.
        let unsent_from = dying.checked_sub(FLUSH + WAKE_UPS * lateness.worst());
        let unsent_from = unsent_from.unwrap_or(dying);
        // The others go on.
        let other = (victim + 1) % 3;
        let seen = cluster.node(other).value(&keys[other], "gpc0");
        until_true("the survivors count", || {
            cluster.node(other).value(&keys[other], "gpc0") >= seen + 40
        });
        let before = victim_value(&cluster, victim, &keys[victim]);
        cluster.node_mut(victim).start();
        // Accepting means taught.
        let taught = cluster.node(victim).value(&keys[victim], "gpc0");
        assert!(
            taught >= before,
            "it accepts with {taught}, the others have {before}"
        );
        until_true("traffic flows again", || {
            cluster.node(victim).value(&keys[victim], "gpc0") >= before + 40
        });
        for (node, traffic) in traffic.into_iter().enumerate() {
            let done = traffic.stop();
            let sent = done.answered.total() + done.doubtful.total();
            let sure = if node == victim {
                done.answered.total() - unsent(&done, unsent_from, killed)
            } else {
                assert_eq!(done.doubtful.total(), 0, "a survivor failed a request");
                sent
            };
            low.add(&keys[node], sure);
            high.add(&keys[node], sent);
        }
        let mut expected = Expected::nothing();
        for (key, sent) in high.iter() {
            expected = expected.doubtful(key, low.get(key), sent);
        }
        let dumps = cluster.settled(&expected);
        // What it came to is the truth from now on.
        for key in &keys {
            let is = dumps[0].get(key, "gpc0").expect("the key") as u64;
            low.forget(key);
            high.forget(key);
            low.add(key, is);
            high.add(key, is);
        }
    }
}

/// A supervised worker is killed under traffic: nobody is refused, and on all nodes the sums are what was answered, but for what the
/// dead worker counted since its last flush ([`FLUSH`], and how late this machine is): that much may be missing, and nothing else.
#[test]
fn a_worker_is_killed_under_traffic() {
    let lateness = Lateness::watch();
    let mut cluster = Spec::of(2).peers("  learn-timeout 10m").prepare();
    for node in 0..2 {
        let supervised = "global\n  master-worker\n";
        let node = cluster.node_mut(node);
        node.reconfigure(|config| config.replacen("global\n", supervised, 1));
        node.spawn();
    }
    for node in 0..2 {
        cluster.node_mut(node).ready();
    }
    let entrance = cluster.node(0).entrance();
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let refused = std::thread::spawn(move || {
        let mut refused = 0;
        while !ends.load(Relaxed) {
            refused += usize::from(Hits::open(&entrance).is_err());
            pace(PAUSE);
        }
        refused
    });
    for round in 0..2 {
        let keys = [0, 1].map(|node| format!("own{node}-{round}"));
        let traffic = [0, 1].map(|node| {
            let key = keys[node].as_str();
            Traffic::start(cluster.node(node).entrance(), &[key], 4, PAUSE)
        });
        until_true("traffic flows everywhere", || {
            (0..2).all(|node| cluster.node(node).value(&keys[node], "gpc0") >= 100)
        });
        let pid = cluster.node(0).proxy().cli().info("Pid");
        let pid = pid.and_then(|pid| pid.parse().ok()).expect("a pid");
        let dying = Instant::now();
        kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("it lives");
        until_true("it is dead", || ended(pid));
        let killed = Instant::now();
        let unsent_from = dying.checked_sub(FLUSH + WAKE_UPS * lateness.worst());
        let before = cluster.node(1).value(&keys[0], "gpc0");
        until_true("traffic flows again", || {
            cluster.node(1).value(&keys[0], "gpc0") >= before + 40
        });
        let mut expected = Expected::nothing().and_others();
        for (node, traffic) in traffic.into_iter().enumerate() {
            let done = traffic.stop();
            let sent = done.answered.total() + done.doubtful.total();
            let sure = if node == 0 {
                done.answered.total() - unsent(&done, unsent_from.unwrap_or(dying), killed)
            } else {
                assert_eq!(done.doubtful.total(), 0, "the other failed a request");
                sent
            };
            expected = expected.doubtful(&keys[node], sure, sent);
        }
        cluster.settled(&expected);
    }
    over.store(true, Relaxed);
    assert_eq!(refused.join().expect("no panic"), 0);
}

/// Whether a process has ended, whoever has let go of it or not yet.
fn ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

/// What the survivors have of the victim's key.
fn victim_value(cluster: &Cluster, victim: usize, key: &str) -> i64 {
    let values: Vec<i64> = (0..3)
        .filter(|&node| node != victim)
        .map(|node| cluster.node(node).value(key, "gpc0"))
        .collect();
    values.into_iter().min().expect("two survivors")
}

/// How many requests were answered so shortly before the kill that they may never have been sent to a peer.
fn unsent(done: &Done, from: Instant, killed: Instant) -> u64 {
    done.answered_before(killed) - done.answered_before(from)
}

/// A node's last batch reaches one of two survivors: they make up for it between themselves.
#[test]
fn survivors_teach_each_other_what_a_dead_node_told_only_one() {
    let mut cluster = Spec::of(3).relayed().start();
    let mut tally = Tally::default();
    for node in 0..3 {
        cluster.node(node).hit("a", 10, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    cluster.relay(2, 1).hold();
    cluster.node(2).hit("a", 7, &mut tally);
    cluster.node(2).hit("late", 3, &mut tally);
    until_true("one survivor has the last batch", || {
        cluster.node(0).value("late", "gpc0") == 3 && cluster.node(0).value("a", "gpc0") == 37
    });
    assert_eq!(cluster.node(1).value("late", "gpc0"), 0);
    cluster.relay(2, 1).cut();
    cluster.node_mut(2).kill();
    cluster.settled(&Expected::of(&tally));
    // Started again it is another life of the same node, and what it counts adds to the old one.
    cluster.relay(2, 1).heal();
    cluster.relay(2, 1).release();
    cluster.node_mut(2).start();
    cluster.node(2).hit("a", 5, &mut tally);
    cluster.settled(&Expected::of(&tally));
}

/// A clean stop and a start: nothing is lost at all, not even the last milliseconds.
#[test]
fn a_clean_stop_loses_nothing() {
    let mut cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    for round in 0..3 {
        let node = round % 2;
        cluster.node(node).hit("a", 100, &mut tally);
        cluster.node_mut(node).stop();
        cluster.node(1 - node).hit("a", 1, &mut tally);
        cluster.settled(&Expected::of(&tally));
        cluster.node_mut(node).start();
        cluster.settled(&Expected::of(&tally));
    }
}

/// All nodes die and come back one after the other: who was never down teaches those who were.
#[test]
fn a_rolling_restart_keeps_everything() {
    let mut cluster = Spec::of(3).start();
    let mut tally = Tally::default();
    for node in 0..3 {
        cluster.node(node).hit("a", 10, &mut tally);
    }
    for round in 0..6 {
        let node = round % 3;
        cluster.settled(&Expected::of(&tally));
        cluster.node_mut(node).kill();
        cluster.node_mut(node).start();
        cluster.node(node).hit("a", 10, &mut tally);
        cluster.node((node + 1) % 3).hit("a", 1, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
}

/// A peer that is frozen for longer than its lease and than two periods of a rate. Meanwhile its open connections do not
/// count; afterwards they do again, nothing is lost, and rates that were over do not come back.
#[test]
fn a_frozen_node() {
    // Of the rate, and how long the freeze lasts at least.
    let (period_ms, frozen) = if tools::long() {
        (10_000, Duration::from_secs(30))
    } else {
        (2_500, Duration::ZERO)
    };
    let mut cluster = Spec::of(3)
        .relayed()
        .table(&format!(
            "type string len 32 size 10k expire 1h store http_req_cnt,http_req_rate({period_ms}),conn_cur,gpc0"
        ))
        .append(
            "frontend held\n  bind 127.0.0.1:{{port:held}}\n  timeout client 1h\n  tcp-request connection track-sc0 str(7x) table t\n  http-request return status 200\n",
        )
        .start();
    let columns = ["http_req_cnt", "gpc0"];
    let mut tally = Tally::default();
    let held: Vec<_> = (0..3)
        .map(|node| {
            std::net::TcpStream::connect(cluster.node(node).proxy().addr("held"))
                .expect("the frontend accepts")
        })
        .collect();
    until_true("all see three open connections", || {
        (0..3).all(|node| cluster.node(node).value("7x", "conn_cur") == 3)
    });
    // The last events before the freeze are on their way while it lasts.
    cluster.relays().for_each(Relay::hold);
    cluster.node(2).hit("a", 50, &mut tally);
    cluster.node(2).proxy().signal(Signal::STOP);
    let begun = Instant::now();
    cluster.relay(0, 1).release();
    cluster.relay(1, 0).release();
    cluster.node(0).hit("a", 5, &mut tally);
    let mut counted = [0; 2];
    let lapsed = until_within(AGREE, || {
        counted = [0, 1].map(|node| cluster.node(node).value("7x", "conn_cur"));
        (counted == [2, 2]).then_some(())
    });
    assert!(
        lapsed.is_some(),
        "the frozen node's connection is still counted: {counted:?}"
    );
    let over = until_within(AGREE, || {
        (cluster.node(0).value("a", "http_req_rate") == 0).then_some(())
    });
    assert!(over.is_some(), "the rate of the others is not over");
    observe_for(frozen.saturating_sub(begun.elapsed()));
    cluster.node(2).proxy().signal(Signal::CONT);
    cluster.relays().for_each(Relay::release);
    let seen = until("the late events arrive", || {
        let seen = [0, 1].map(|node| {
            (
                cluster.node(node).value("a", "http_req_cnt"),
                cluster.node(node).value("a", "http_req_rate"),
            )
        });
        seen.iter().all(|(count, _)| *count == 55).then_some(seen)
    });
    assert!(
        seen.iter().all(|(_, rate)| *rate == 0),
        "a rate that was over has come back: {seen:?}"
    );
    cluster.node(2).hit("b", 3, &mut tally);
    until_true("all see three open connections again", || {
        (0..3).all(|node| cluster.node(node).value("7x", "conn_cur") == 3)
    });
    drop(held);
    let mut expected = Expected::counted_in(&tally, &columns).except("http_req_rate");
    expected = expected.with("7x", "conn_cur", 0).and_others();
    cluster.settled(&expected);
    cluster.node_mut(2).kill();
}
