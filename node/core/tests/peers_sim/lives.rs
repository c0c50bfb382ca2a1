//! Lives of entries and trackers across breaks that are longer than `expire`.

use remora_core::table::{DataType, EntryRef, Key};

use crate::rng::Rng;
use crate::scenarios::{cut, read, short_lived, spec};
use crate::stores::Mutant;
use crate::world::{World, keys};

impl World {
    /// Lets time pass as a process does, with upkeep.
    pub fn live(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.run_until((self.now + 500).min(until));
            for node in self.running() {
                let mono = self.mono(node);
                for table in &self.life(node).stores.tables {
                    table.table.maintain(mono, 1_000);
                }
            }
        }
    }
    fn track(&mut self, node: usize, key: u32) -> EntryRef {
        let mono = self.mono(node);
        let table = &self.life(node).stores.clone().tables[0].table;
        let at = table.track(&Key::from_stored(&key.to_be_bytes()), mono);
        self.pump(node);
        at.unwrap()
    }
    fn untrack(&mut self, node: usize, at: EntryRef) {
        let mono = self.mono(node);
        self.life(node).stores.clone().tables[0]
            .table
            .untrack(at, mono);
        self.pump(node);
    }
    fn hit(&mut self, node: usize, key: u32) {
        let mono = self.mono(node);
        let table = &self.life(node).stores.clone().tables[0].table;
        let key = Key::from_stored(&key.to_be_bytes());
        table
            .upsert(&key, mono, |mut e| {
                e.inc(DataType::Gpc0, 0, 1, mono).is_some()
            })
            .unwrap();
        self.pump(node);
    }
    fn all(&mut self, key: u32, what: DataType) -> Vec<u64> {
        let running = self.running();
        running.iter().map(|n| read(self, *n, key, what)).collect()
    }
    fn has(&mut self, node: usize) -> usize {
        let mono = self.mono(node);
        keys(&self.life(node).stores.clone().tables[0].table, mono).len()
    }
}

/// For twice as long as an entry lives.
fn keep_alive(world: &mut World, node: usize) {
    for _ in 0..8 {
        world.hit(node, 5);
        world.live(2_000);
    }
}

/// A tracker that ended while its node was alone is told as living by a third node, after its own node has said all that
/// is left there.
#[test]
fn a_tracker_that_ended_meanwhile_is_not_believed_of_others() {
    let mut world = short_lived(&[100; 3]);
    let at = world.track(0, 5);
    world.live(200);
    assert_eq!(world.all(5, DataType::ConnCur), [1, 1, 1]);
    cut(&mut world, 0, 1, true);
    cut(&mut world, 0, 2, true);
    cut(&mut world, 1, 2, true);
    world.live(1_000);
    world.untrack(0, at);
    keep_alive(&mut world, 2);
    assert_eq!((world.has(0), world.has(1)), (0, 0), "expired and dropped");
    // Node 1 hears all there is from node 0, and only then node 2, which has not heard it.
    cut(&mut world, 0, 1, false);
    keep_alive(&mut world, 2);
    cut(&mut world, 1, 2, false);
    keep_alive(&mut world, 2);
    assert_eq!(read(&mut world, 1, 5, DataType::ConnCur), 0, "of hearsay");
    cut(&mut world, 0, 2, false);
    keep_alive(&mut world, 2);
    assert_eq!(world.all(5, DataType::ConnCur), [0, 0, 0]);
    world.live(20_000);
    for node in 0..3 {
        assert_eq!(world.has(node), 0, "node {node} keeps what nobody holds");
    }
}

/// What a node counted and dropped lives on at one that never counted it, and so never spoke of it. A third one begins it
/// anew, and nobody who did count it knows any more.
#[test]
fn what_a_silent_node_holds_is_told() {
    let mut world = short_lived(&[100, 100, 100, 1]);
    world.hit(0, 5);
    world.live(200);
    for (a, b) in [(0, 1), (0, 3), (2, 1), (2, 3)] {
        cut(&mut world, a, b, true);
    }
    keep_alive(&mut world, 3);
    world.hit(3, 6);
    world.live(200);
    let kept: Vec<usize> = (0..3).map(|node| world.has(node)).collect();
    assert_eq!(kept, [0, 2, 0]);
    world.hit(2, 5);
    world.live(200);
    for (a, b) in [(0, 1), (0, 3), (2, 1), (2, 3)] {
        cut(&mut world, a, b, false);
    }
    world.live(6_000);
    assert_eq!(world.all(5, DataType::Gpc0), [10; 4]);
}

/// What was removed while a node was away stays removed when that comes back, however long it was away, up to an hour.
#[test]
fn a_clear_outlasts_a_long_partition() {
    let mut world = short_lived(&[100; 2]);
    world.hit(0, 5);
    world.hit(1, 5);
    world.live(500); // for the acknowledgements, too
    cut(&mut world, 0, 1, true);
    world.live(1_000);
    let mono = world.mono(0);
    let stores = world.life(0).stores.clone();
    stores.tables[0]
        .table
        .remove(&Key::from_stored(&5_u32.to_be_bytes()), mono);
    world.pump(0);
    for _ in 0..10 {
        keep_alive(&mut world, 1);
    }
    assert_eq!(world.all(5, DataType::Gpc0), [0, 82]);
    cut(&mut world, 0, 1, false);
    world.live(6_000);
    assert_eq!(world.all(5, DataType::Gpc0), [0, 0]);
    world.hit(1, 5);
    world.live(200);
    assert_eq!(world.all(5, DataType::Gpc0), [1, 1]);
    // And nobody remembers it for ever.
    world.live(180_000);
    let mono = world.mono(0);
    let left = stores.tables[0].table.replica().unwrap().counters();
    assert_eq!((left.tombstones, stores.tables[0].table.used(mono)), (0, 0));
}

/// A node is killed more often than a process has places for lineages. Nobody continues a life that was killed: it goes with
/// the entries that it counted.
#[test]
fn killed_lives_go_with_their_entries() {
    let mut world = short_lived(&[100; 2]);
    for life in 0..1_200_u32 {
        world.hit(1, 5 + life % 20);
        world.live(100);
        world.kill(1, false);
        world.live(400);
        world.start(1);
        world.live(500);
    }
    world.hit(0, 1);
    world.live(200);
    assert_eq!(world.all(1, DataType::Gpc0), [1, 1], "it still takes part");
    let stores = world.life(0).stores.clone();
    let left = stores.tables[0].table.replica().unwrap().counters();
    assert_eq!(left.lineages_refused, 0);
    world.live(20_000);
    let mono = world.mono(0);
    assert_eq!(stores.tables[0].table.used(mono), 0);
    let report = world.life(0).hub.report(mono);
    assert!(
        report.lineages.len() <= remora_core::table::LINEAGES_MAX,
        "{} are remembered",
        report.lineages.len()
    );
}

/// How many cells a node has of a key, its own included.
pub fn cells(world: &mut World, node: usize, key: u32) -> usize {
    let mono = world.mono(node);
    let stores = world.life(node).stores.clone();
    let replica = stores.tables[0].table.replica().unwrap();
    let mut cells = 0;
    replica.origins(&Key::from_stored(&key.to_be_bytes()), mono, |_| cells += 1);
    cells
}

/// A key that is never idle, in a table where nothing expires, is counted by more lives than a process has places for: of
/// the killed ones, rates fade and trackers do not count, and then nobody need know of them.
#[test]
fn killed_lives_leave_keys_that_live_on() {
    let mut world = World::new(7, (1, 3), Mutant::None);
    for _ in 0..2 {
        let mut spec = spec(1_000);
        spec.expire_ms = None;
        spec.store.retain(|s| s.data_type != DataType::Gpc0);
        world.add_node(vec![spec], 0);
        world.start(world.nodes.len() - 1);
    }
    world.live(2_000);
    for life in 0..1_200_u32 {
        world.track(1, 5);
        world.count(1, 5);
        if life % 8 == 0 {
            world.count(0, 5);
            world.count(1, 1_000 + life);
        }
        world.live(40);
        world.kill(1, false);
        world.live(100);
        world.start(1);
        world.live(160);
    }
    world.live(20_000);
    world.count(1, 5);
    world.live(200);
    assert_eq!(world.all(5, DataType::HttpReqRate), [1, 1]);
    assert_eq!(world.all(5, DataType::ConnCur), [0, 0]);
    let stores = world.life(0).stores.clone();
    let left = stores.tables[0].table.replica().unwrap().counters();
    assert_eq!(left.lineages_refused, 0);
    assert!(left.cells_forgotten > 1_000, "{left:?}");
    assert_eq!(cells(&mut world, 0, 5), 2);
    // Keys are there as they were, also for who comes later.
    world.kill(1, false);
    world.start(1);
    world.live(4_000);
    assert_eq!((world.has(0), world.has(1)), (151, 151));
}

/// What the dead have counted stays. Who assigns the sum has it alone, and they are forgotten.
#[test]
fn an_assigned_sum_replaces_shares_of_the_dead() {
    let mut world = short_lived(&[100; 3]);
    for _ in 0..10 {
        world.hit(1, 5);
        world.live(200);
        world.kill(1, false);
        world.live(400);
        world.start(1);
        world.live(2_000);
        world.hit(0, 5);
    }
    world.live(2_000);
    world.hit(2, 5);
    for _ in 0..8 {
        world.live(2_000);
        world.hit(0, 5);
    }
    world.live(200);
    let sum = 10 + 10 + 1 + 8;
    assert_eq!(world.all(5, DataType::Gpc0), [sum; 3]);
    assert_eq!(cells(&mut world, 2, 5), 12, "10 dead ones, 2 that live");
    let mono = world.mono(2);
    let stores = world.life(2).stores.clone();
    let table = &stores.tables[0].table;
    let key = Key::from_stored(&5_u32.to_be_bytes());
    let set = table.upsert(&key, mono, |mut e| e.set(DataType::Gpc0, 0, sum, mono));
    assert!(set.is_ok());
    world.pump(2);
    world.live(2_000);
    assert_eq!(world.all(5, DataType::Gpc0), [sum; 3]);
    world.hit(1, 5);
    world.live(2_000);
    assert_eq!(world.all(5, DataType::Gpc0), [sum + 1; 3]);
    for node in 0..3 {
        assert!(cells(&mut world, node, 5) <= 3, "node {node}");
    }
}

/// A node that was silent for so long that its cells were forgotten says what it holds when it is back, be it that only
/// others hear it.
#[test]
fn who_was_forgotten_is_heard_again() {
    for relayed in [false, true] {
        let mut world = World::new(7, (1, 3), Mutant::None);
        for node in 0..3 {
            let mut spec = spec(100);
            spec.expire_ms = None;
            world.add_node(vec![spec], 0);
            world.start(node);
        }
        world.live(2_000);
        world.hit(2, 5);
        world.track(0, 5);
        let gone = world.track(0, 6);
        world.live(200);
        for node in [1, 2] {
            assert_eq!(read(&mut world, node, 5, DataType::ConnCur), 1);
            cut(&mut world, 0, node, true);
        }
        world.live(30_000);
        assert_eq!((cells(&mut world, 1, 5), cells(&mut world, 2, 5)), (2, 1));
        world.untrack(0, gone);
        cut(&mut world, 0, 2, false);
        if !relayed {
            cut(&mut world, 0, 1, false);
        }
        world.live(10_000);
        assert_eq!(world.all(5, DataType::ConnCur), [1; 3], "{relayed}");
        assert_eq!(world.all(6, DataType::ConnCur), [0; 3], "{relayed}");
        assert_eq!(world.all(5, DataType::Gpc0), [1; 3], "{relayed}");
    }
}

/// Nodes keep entries for different times: whoever begins a key anew that lives elsewhere has the whole sum in a moment, and
/// nothing is lost or counted twice, be it that they are parted now and then.
#[test]
fn lifetimes_that_differ() {
    for seed in 0..15 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(seed, (1, 30), Mutant::None);
        let mut lifetimes = [600_000, 8_000, 8_000, 20_000];
        lifetimes.rotate_right(rng.below(4) as usize);
        for lifetime in lifetimes {
            let mut spec = spec(100);
            spec.expire_ms = Some(lifetime);
            world.add_node(vec![spec], 0);
        }
        let keeper = lifetimes.iter().position(|ms| *ms == 600_000).unwrap();
        for node in 0..4 {
            world.start(node);
        }
        world.live(3_000);
        let mut counted = [0; 3];
        for _ in 0..40 {
            let node = rng.below(4) as usize;
            let key = rng.below(3) as u32;
            if rng.percent(15) {
                // Not for so long that one forgets what nobody has heard.
                let other = (node + 1 + rng.below(3) as usize) % 4;
                cut(&mut world, node, other, true);
                world.hit(other, key);
                counted[key as usize] += 1;
                let wait = rng.pick(&[500, 1_500, 4_000]);
                world.live(wait);
                cut(&mut world, node, other, false);
                world.live(3_000);
            }
            world.hit(node, key);
            counted[key as usize] += 1;
            world.live(1_000);
            let sum = counted[key as usize];
            assert_eq!(
                (
                    read(&mut world, node, key, DataType::Gpc0),
                    read(&mut world, keeper, key, DataType::Gpc0)
                ),
                (sum, sum),
                "seed {seed}: of {key}, hit at {node}, kept at {keeper}"
            );
            let wait = rng.pick(&[0, 100, 3_000, 9_000, 25_000]);
            world.live(wait);
            for node in 0..4 {
                let read = read(&mut world, node, key, DataType::Gpc0);
                assert!(
                    read == 0 || read == sum,
                    "seed {seed}: {read} of {sum} at {node}"
                );
            }
        }
    }
}
