//! Server choice: exact sequences, shares, backups, administrative states, limits.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;
use remora_core::balance::{Algorithm, Ask, Balancer, Choice, release_slot, take_slot};
use remora_core::stats::ServerStats;
use remora_core::world::ServerState;

fn server(weight: u32) -> ServerState {
    let stats = ServerStats::default();
    stats.weight.store(weight, Relaxed);
    ServerState {
        name: String::new(),
        id: 1,
        weight_initial: weight,
        backup: false,
        maxconn: AtomicU32::new(0),
        maxqueue: 0,
        stats,
    }
}

fn backup(weight: u32) -> ServerState {
    ServerState {
        backup: true,
        ..server(weight)
    }
}

fn servers(weights: &[u32]) -> Vec<ServerState> {
    weights.iter().map(|&w| server(w)).collect()
}

fn pick(balancer: &Balancer, servers: &[ServerState]) -> Choice {
    pick_from(balancer, servers, None, None)
}

fn pick_from(
    balancer: &Balancer,
    servers: &[ServerState],
    src: Option<[u8; 4]>,
    avoid: Option<u16>,
) -> Choice {
    let rng = Cell::new(1);
    balancer.pick(
        servers,
        &Ask {
            src: src.map(|a| IpAddr::V4(Ipv4Addr::from(a))),
            avoid,
            rng: &rng,
        },
    )
}

/// `n` choices as letters.
fn sequence(balancer: &Balancer, servers: &[ServerState], n: usize) -> String {
    (0..n)
        .map(|_| match pick(balancer, servers) {
            Choice::Server(i) => char::from(b'a' + i as u8),
            Choice::Full => '.',
            Choice::None => '-',
        })
        .collect()
}

#[test]
fn round_robin_sequences() {
    for (weights, expected) in [
        (&[1][..], "aaaa"),
        (&[1, 1, 1], "abcabcabc"),
        (&[5, 5], "abababab"),
        (&[1, 2], "abbabb"),
        (&[2, 1], "abaaba"),
        (&[1, 2, 4], "abccbccabccbcc"),
        (&[5, 1, 1], "abcaaaaabcaaaa"),
        (&[0, 1, 0, 1], "bdbdbd"),
        (&[0, 0], "--"),
        (&[], "--"),
    ] {
        let servers = servers(weights);
        let balancer = Balancer::new(Algorithm::RoundRobin, false, servers.len());
        assert_eq!(
            sequence(&balancer, &servers, expected.len()),
            expected,
            "{weights:?}"
        );
    }
}

#[test]
fn missed_turns_are_not_made_up_for() {
    let servers = servers(&[1, 1]);
    let balancer = Balancer::new(Algorithm::RoundRobin, false, 2);
    servers[1].stats.admin.store(1, Relaxed);
    assert_eq!(sequence(&balancer, &servers, 1000), "a".repeat(1000));
    servers[1].stats.admin.store(0, Relaxed);
    let after = sequence(&balancer, &servers, 6);
    assert!(after == "bababa" || after == "ababab", "{after}");
}

#[test]
fn a_raised_weight_counts_at_once() {
    let servers = servers(&[1, 1]);
    let balancer = Balancer::new(Algorithm::RoundRobin, false, 2);
    sequence(&balancer, &servers, 20);
    servers[1].stats.weight.store(9, Relaxed);
    let share = sequence(&balancer, &servers, 100).matches('b').count();
    assert!((88..=92).contains(&share), "{share}");
}

#[test]
fn administrative_states() {
    let servers = servers(&[1, 1, 1]);
    let balancer = Balancer::new(Algorithm::RoundRobin, false, 3);
    servers[0].stats.admin.store(1, Relaxed); // maintenance
    servers[1].stats.admin.store(8, Relaxed); // drain
    assert_eq!(sequence(&balancer, &servers, 3), "ccc");
    servers[2].stats.weight.store(0, Relaxed);
    assert_eq!(sequence(&balancer, &servers, 2), "--");
    for algorithm in [
        Algorithm::LeastConn,
        Algorithm::Source,
        Algorithm::Random(2),
    ] {
        let balancer = Balancer::new(algorithm, false, 3);
        assert_eq!(
            pick_from(&balancer, &servers, Some([1, 2, 3, 4]), None),
            Choice::None
        );
        servers[1].stats.admin.store(0, Relaxed);
        assert_eq!(
            pick_from(&balancer, &servers, Some([1, 2, 3, 4]), None),
            Choice::Server(1)
        );
        servers[1].stats.admin.store(8, Relaxed);
    }
}

#[test]
fn backups_serve_only_when_nobody_else_can() {
    let servers = vec![backup(1), server(1), backup(1), backup(0), backup(2)];
    for (allbackups, without_active) in [(false, "aaaaaa"), (true, "aceeac")] {
        let balancer = Balancer::new(Algorithm::RoundRobin, allbackups, servers.len());
        assert_eq!(sequence(&balancer, &servers, 3), "bbb");
        // full is not unusable
        servers[1].maxconn.store(1, Relaxed);
        assert!(take_slot(&servers[1]));
        assert_eq!(sequence(&balancer, &servers, 2), "..");
        release_slot(&servers[1]);
        servers[1].stats.admin.store(1, Relaxed);
        assert_eq!(sequence(&balancer, &servers, 6), without_active);
        if !allbackups {
            servers[0].stats.admin.store(1, Relaxed);
            assert_eq!(sequence(&balancer, &servers, 2), "cc");
            servers[0].stats.admin.store(0, Relaxed);
        }
        servers[1].stats.admin.store(0, Relaxed);
    }
}

#[test]
fn full_servers_are_passed_over() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConn] {
        let servers = servers(&[1, 1, 1]);
        let balancer = Balancer::new(algorithm, false, 3);
        for s in &servers {
            s.maxconn.store(2, Relaxed);
        }
        let mut taken = [0; 3];
        for _ in 0..6 {
            let Choice::Server(i) = pick(&balancer, &servers) else {
                panic!("slots are left")
            };
            assert!(take_slot(&servers[i as usize]));
            taken[i as usize] += 1;
        }
        assert_eq!(taken, [2, 2, 2]);
        assert_eq!(pick(&balancer, &servers), Choice::Full);
        release_slot(&servers[1]);
        assert_eq!(pick(&balancer, &servers), Choice::Server(1));
        // those who wait come first
        servers[1].stats.qcur.store(1, Relaxed);
        assert_eq!(pick(&balancer, &servers), Choice::Full);
    }
}

#[test]
fn slots_are_bounded_and_never_negative() {
    let one = server(1);
    one.maxconn.store(2, Relaxed);
    assert!(take_slot(&one) && take_slot(&one) && !take_slot(&one));
    assert_eq!(
        (one.stats.scur.load(Relaxed), one.stats.smax.load(Relaxed)),
        (2, 2)
    );
    for _ in 0..3 {
        release_slot(&one);
    }
    assert_eq!(
        (one.stats.scur.load(Relaxed), one.stats.smax.load(Relaxed)),
        (0, 2)
    );
}

#[test]
fn least_loaded_by_weight() {
    let servers = servers(&[1, 2, 1]);
    let balancer = Balancer::new(Algorithm::LeastConn, false, 3);
    for (busy, expected) in [
        ([3, 3, 3], 1),
        ([1, 4, 2], 0),
        ([5, 8, 4], 1),
        ([0, 0, 1], 0),
        ([2, 5, 1], 2),
    ] {
        for (s, n) in servers.iter().zip(busy) {
            s.stats.scur.store(n, Relaxed);
        }
        let Choice::Server(i) = pick(&balancer, &servers) else {
            panic!("all have slots")
        };
        // idle servers are equals, so their turn decides
        if busy == [0, 0, 1] {
            assert!(i < 2);
        } else {
            assert_eq!(i, expected, "{busy:?}");
        }
    }
}

#[test]
fn least_loaded_takes_turns_among_equals() {
    let servers = servers(&[1, 1, 1]);
    let balancer = Balancer::new(Algorithm::LeastConn, false, 3);
    assert_eq!(sequence(&balancer, &servers, 6), "abcabc");
}

#[test]
fn source_sticks() {
    let servers = servers(&[1, 1, 1]);
    let balancer = Balancer::new(Algorithm::Source, false, 3);
    let of = |last| pick_from(&balancer, &servers, Some([127, 0, 0, last]), None);
    for last in 0..=255u8 {
        // the address modulo the number of servers, as in HAProxy's map for equal weights
        let expected = (0x7f00_0000 + u32::from(last)) % 3;
        assert_eq!(of(last), Choice::Server(expected as u16));
    }
    // equal weights of any size give the same map
    for s in &servers {
        s.stats.weight.store(100, Relaxed);
    }
    assert_eq!(of(1), Choice::Server((0x7f00_0001u32 % 3) as u16));
    // a full server keeps its clients
    let Choice::Server(mine) = of(1) else {
        panic!("usable")
    };
    servers[mine as usize].maxconn.store(1, Relaxed);
    assert!(take_slot(&servers[mine as usize]));
    assert_eq!(of(1), Choice::Server(mine));
    // one that failed does not
    assert_ne!(
        pick_from(&balancer, &servers, Some([127, 0, 0, 1]), Some(mine)),
        Choice::Server(mine)
    );
}

#[test]
fn source_shares_follow_weights() {
    let servers = servers(&[1, 3]);
    let balancer = Balancer::new(Algorithm::Source, false, 2);
    let second = (0..=255u8)
        .filter(|&last| {
            pick_from(&balancer, &servers, Some([10, 0, 0, last]), None) == Choice::Server(1)
        })
        .count();
    assert_eq!(second, 192);
}

#[test]
fn random_shares_follow_weights_and_load() {
    let servers = servers(&[1, 3]);
    let rng = Cell::new(7);
    let ask = Ask {
        src: None,
        avoid: None,
        rng: &rng,
    };
    let count = |balancer: &Balancer| {
        (0..10_000)
            .filter(|_| balancer.pick(&servers, &ask) == Choice::Server(1))
            .count()
    };
    let blind = Balancer::new(Algorithm::Random(1), false, 2);
    let seen = count(&blind);
    assert!((7300..7700).contains(&seen), "{seen}");
    // two draws: the busy server is taken only if drawn twice
    servers[1].stats.scur.store(50, Relaxed);
    let seeing = Balancer::new(Algorithm::Random(2), false, 2);
    let seen = count(&seeing);
    assert!((5400..5850).contains(&seen), "{seen}");
    // the winner is full: to the queue
    for s in &servers {
        s.maxconn.store(1, Relaxed);
        s.stats.scur.store(1, Relaxed);
    }
    assert_eq!(seeing.pick(&servers, &ask), Choice::Full);
}

#[test]
fn the_server_that_failed_is_avoided() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::LeastConn,
        Algorithm::Source,
        Algorithm::Random(2),
    ] {
        let servers = servers(&[1, 1]);
        let balancer = Balancer::new(algorithm.clone(), false, 2);
        for last in 0..20 {
            assert_eq!(
                pick_from(&balancer, &servers, Some([1, 1, 1, last]), Some(0)),
                Choice::Server(1)
            );
        }
        servers[1].stats.admin.store(1, Relaxed);
        assert_eq!(
            pick_from(&balancer, &servers, Some([1, 1, 1, 1]), Some(0)),
            Choice::Server(0),
            "{algorithm:?}"
        );
    }
    let servers = servers(&[1, 1]);
    servers[1].maxconn.store(1, Relaxed);
    servers[1].stats.scur.store(1, Relaxed);
    let balancer = Balancer::new(Algorithm::RoundRobin, false, 2);
    assert_eq!(
        pick_from(&balancer, &servers, None, Some(0)),
        Choice::Server(0),
        "the other one is full"
    );
}

#[test]
fn threads_share_one_rotation() {
    let servers = servers(&[1, 2, 3]);
    let balancer = Balancer::new(Algorithm::RoundRobin, false, 3);
    let counts: [AtomicUsize; 3] = Default::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..6000 {
                    let Choice::Server(i) = pick(&balancer, &servers) else {
                        panic!("usable")
                    };
                    counts[i as usize].fetch_add(1, Relaxed);
                }
            });
        }
    });
    let counts: Vec<usize> = counts.iter().map(|c| c.load(Relaxed)).collect();
    assert_eq!(counts.iter().sum::<usize>(), 24_000);
    // Whole rounds are exact however the threads were interrupted.
    assert_eq!(counts, [4000, 8000, 12_000]);
}

proptest! {
    /// In every stretch as long as the sum of weights each server comes as often as its weight says, give or take one
    /// at the edges; and exactly so in whole rounds.
    #[test]
    fn shares_are_exact(weights in prop::collection::vec(0u32..=16, 1..8), start in 0usize..50) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let servers = servers(&weights);
        let balancer = Balancer::new(Algorithm::RoundRobin, false, servers.len());
        let round = total as usize;
        let seen = sequence(&balancer, &servers, start + 3 * round);
        for (i, &w) in weights.iter().enumerate() {
            let letter = char::from(b'a' + i as u8);
            let first = seen[..round].matches(letter).count();
            prop_assert_eq!(first, w as usize, "{}", &seen[..round]);
            let later = seen[start..start + round].matches(letter).count();
            prop_assert!(later.abs_diff(w as usize) <= 1, "{}", &seen);
        }
    }

    /// No weights, states or limits make it choose a server that may not be chosen.
    #[test]
    fn never_an_unusable_one(
        spec in prop::collection::vec((0u32..4, any::<bool>(), prop::sample::select(vec![0u32, 1, 8]), 0u32..3), 0..6),
        algorithm in prop::sample::select(vec![Algorithm::RoundRobin, Algorithm::LeastConn, Algorithm::Source, Algorithm::Random(3)]),
        allbackups in any::<bool>(),
        src in any::<[u8; 4]>(),
        avoid in prop::option::of(0u16..7),
    ) {
        let servers: Vec<ServerState> = spec
            .iter()
            .map(|&(weight, backup, admin, busy)| {
                let s = ServerState { backup, maxconn: AtomicU32::new(2), ..server(weight) };
                s.stats.admin.store(admin, Relaxed);
                s.stats.scur.store(busy, Relaxed);
                s
            })
            .collect();
        let balancer = Balancer::new(algorithm.clone(), allbackups, servers.len());
        let active = servers.iter().any(|s| s.usable() && !s.backup);
        match pick_from(&balancer, &servers, Some(src), avoid) {
            Choice::Server(i) => {
                let chosen = &servers[i as usize];
                prop_assert!(chosen.usable());
                prop_assert_eq!(chosen.backup, !active);
                prop_assert!(algorithm == Algorithm::Source || chosen.stats.scur.load(Relaxed) < 2);
            }
            Choice::Full => prop_assert!(servers.iter().any(|s| s.usable() && s.stats.scur.load(Relaxed) >= 2)),
            Choice::None => prop_assert!(!servers.iter().any(ServerState::usable)),
        }
    }
}
