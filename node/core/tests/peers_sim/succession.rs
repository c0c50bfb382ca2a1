//! Nodes that are restarted cleanly continue a lineage: a thousand restarts leave nothing behind.

use remora_core::table::{DataType, LINEAGES_MAX, Lineage};

use crate::lives::cells;
use crate::scenarios::{read, spec};
use crate::stores::Mutant;
use crate::world::World;

/// Nodes that are ready, without delays (see [`restarts_with_delays`]). `sole`: they leave their lineages to successors.
fn cluster(nodes: usize, expire_ms: Option<u32>, sole: bool) -> World {
    let mut world = World::new(11, (0, 0), Mutant::None);
    world.sole = sole;
    for _ in 0..nodes {
        let mut spec = spec(5_000);
        spec.expire_ms = expire_ms;
        world.add_node(vec![spec], 0);
    }
    for node in 0..nodes {
        world.start(node);
    }
    world.live(1_000);
    world
}

fn stop(world: &mut World, node: usize) {
    world.stop(node);
    for _ in 0..1_000 {
        if world.life(node).hub.is_stopped() {
            return world.kill(node, false);
        }
        world.live(10);
    }
    panic!("node{node} does not end");
}

fn start(world: &mut World, node: usize) {
    world.start(node);
    for _ in 0..1_000 {
        if world.life(node).ready {
            return;
        }
        world.live(10);
    }
    panic!("node{node} does not become ready");
}

fn own(world: &mut World, node: usize) -> Lineage {
    world.life(node).lineage
}

fn refused(world: &mut World, node: usize) -> u64 {
    let stores = world.life(node).stores.clone();
    let replica = stores.tables[0].table.replica().unwrap();
    replica.counters().lineages_refused
}

/// With delays the one that teaches may be another than the one that has all of the lineage, and then the newcomer begins one of
/// its own. That is rare, since who offers the lineage is preferred, and nothing is missed by it.
#[test]
fn restarts_with_delays() {
    let mut world = World::new(11, (1, 3), Mutant::None);
    world.sole = true;
    for _ in 0..3 {
        let mut spec = spec(5_000);
        spec.expire_ms = None;
        world.add_node(vec![spec], 0);
    }
    (0..3).for_each(|node| world.start(node));
    world.live(1_000);
    let mut total = 0;
    for round in 0..300 {
        for node in 0..3 {
            world.count(node, 7);
            total += 1;
        }
        world.live(50);
        stop(&mut world, round % 3);
        start(&mut world, round % 3);
        world.live(300);
    }
    assert!(world.successions >= 290, "{}", world.successions);
    // A lease later, at the latest: then it is asked for what is missing of the ended.
    world.live(10_000);
    let sums = [0, 1, 2].map(|node| read(&mut world, node, 7, DataType::Gpc0));
    assert_eq!(sums, [total; 3]);
}

#[test]
fn a_thousand_restarts_leave_nothing_behind() {
    let mut world = cluster(3, None, true);
    let mut total = 0;
    for round in 0..1_000 {
        let victim = round % 3;
        for node in 0..3 {
            world.count(node, 7);
            total += 1;
        }
        world.live(50); // what was counted last is known to whoever teaches
        let before = own(&mut world, victim);
        stop(&mut world, victim);
        start(&mut world, victim);
        assert_eq!(own(&mut world, victim), before, "round {round}");
        // At once, not only after a while.
        let sum = read(&mut world, victim, 7, DataType::Gpc0);
        assert_eq!(sum, total, "round {round}");
        world.count(victim, 7);
        total += 1;
        world.live(100);
        for node in 0..3 {
            let sum = read(&mut world, node, 7, DataType::Gpc0);
            assert_eq!(sum, total, "round {round}, node{node}");
            assert_eq!(cells(&mut world, node, 7), 3, "round {round}, node{node}");
        }
    }
    assert_eq!(world.successions, 1_000);
    for node in 0..3 {
        assert_eq!(refused(&mut world, node), 0);
    }
}

/// Where nobody continues lineages (as with two sections), those that ended go with entries that expire.
#[test]
fn cells_of_the_ended_expire_with_their_entries() {
    let mut world = cluster(2, Some(1_000), false);
    for round in 0..LINEAGES_MAX + 100 {
        let victim = round % 2;
        world.count(victim, round as u32);
        stop(&mut world, victim);
        start(&mut world, victim);
        world.live(100);
    }
    for node in 0..2 {
        assert_eq!(refused(&mut world, node), 0);
    }
}

/// A lineage that a node was killed under is not continued; nor is one whose heir is gone.
#[test]
fn the_dead_are_not_succeeded() {
    let mut world = cluster(3, None, true);
    world.count(0, 7);
    world.live(100);
    let before = own(&mut world, 0);
    world.kill(0, false);
    start(&mut world, 0);
    assert_ne!(own(&mut world, 0), before);
    let before = own(&mut world, 1);
    world.count(1, 7);
    // One of the two has it; who goes as well takes it along.
    for node in [1, 0, 2] {
        stop(&mut world, node);
    }
    world.start(0);
    start(&mut world, 1);
    assert_ne!(own(&mut world, 1), before);
    let left = read(&mut world, 1, 7, DataType::Gpc0);
    assert_eq!(left, 0, "all were gone");
}

/// Each lineage is given to one newcomer only, of whatever name.
#[test]
fn one_lineage_one_successor() {
    let mut world = cluster(4, None, true);
    for node in 0..4 {
        world.count(node, 7);
    }
    world.live(100);
    stop(&mut world, 0);
    stop(&mut world, 1);
    world.start(1);
    start(&mut world, 0);
    world.live(1_000);
    for node in 0..4 {
        world.count(node, 7);
    }
    world.live(1_000);
    let mut owned: Vec<Lineage> = (0..4).map(|node| own(&mut world, node)).collect();
    for node in 0..4 {
        assert_eq!(read(&mut world, node, 7, DataType::Gpc0), 8);
    }
    owned.sort_unstable();
    owned.dedup();
    assert_eq!(owned.len(), 4, "nobody shares one");
}
