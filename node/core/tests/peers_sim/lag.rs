//! How far a peer is behind: as long as what it lacks is old, whatever the state of its session.

use crate::scenarios::spec;
use crate::stores::Mutant;
use crate::world::World;

/// Entries that node 1 lacks of node 0, and for how many milliseconds.
fn lag(world: &mut World) -> (u64, u64) {
    let mono = world.mono(0);
    let report = world.life(0).hub.report(mono);
    let peer = report.peers.iter().find(|peer| peer.name == "node1");
    let peer = peer.expect("a peer");
    (peer.lag_entries, peer.lag_ms)
}

#[track_caller]
fn is_old(lag: (u64, u64), entries: u64, age: u64) {
    assert_eq!(lag.0, entries);
    assert!((age - 40..=age).contains(&lag.1), "{lag:?}, not {age}");
}

/// With a session or without.
#[test]
fn a_peer_is_as_far_behind_as_what_it_lacks_is_old() {
    let mut world = World::new(7, (1, 1), Mutant::None);
    world.sole = true;
    for node in 0..2 {
        world.add_node(vec![spec(4_000)], 0);
        world.nodes[node].specs[0].expire_ms = None;
    }
    world.start(0);
    world.start(1);
    world.pass(1_000);
    world.count(0, 1);
    world.pass(1_000);
    assert_eq!(lag(&mut world), (0, 0));

    // There is a session, and nothing is heard on it.
    world.nodes[1].frozen = true;
    let begun = world.now;
    world.count(0, 2);
    for key in 3..100 {
        world.pass(10);
        world.count(0, key);
    }
    world.pass(10);
    let age = world.now - begun;
    is_old(lag(&mut world), 98, age);
    world.thaw(1);
    // Acknowledgements are held back for a quarter of a second.
    world.pass(400);
    assert_eq!(lag(&mut world), (0, 0));

    // There is none, for longer than anybody waits for it.
    world.kill(1, false);
    world.pass(1_000);
    assert_eq!(lag(&mut world), (0, 0), "it lacks nothing");
    let begun = world.now;
    world.count(0, 2);
    world.pass(10_000);
    world.count(0, 3);
    world.pass(100);
    let age = world.now - begun;
    is_old(lag(&mut world), 2, age);
    world.start(1);
    world.pass(2_000);
    assert_eq!(lag(&mut world), (0, 0));

    // Who ended in good order will be taught when it is back.
    world.stop(1);
    world.pass(1_000);
    assert!(world.life(1).hub.is_stopped());
    world.kill(1, false);
    world.count(0, 4);
    world.pass(1_000);
    assert_eq!(lag(&mut world), (0, 0));

    // Nobody has been met.
    world.kill(0, false);
    world.start(0);
    world.pass(1_000);
    let begun = world.now;
    world.count(0, 1);
    world.pass(1_000);
    let age = world.now - begun;
    is_old(lag(&mut world), 1, age);
}
