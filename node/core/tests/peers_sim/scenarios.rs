//! Single situations, each with a mutant that must fail in it where there is one.

use remora_core::table::{DataType, Key, KeyType, Stored, TableSpec};

use crate::stores::Mutant;
use crate::world::{LEARN_TIMEOUT, World};

pub fn spec(size: usize) -> TableSpec {
    let stored = |data_type, period_ms| Stored {
        data_type,
        elements: 1,
        period_ms,
    };
    TableSpec {
        name: "t".into(),
        key_type: KeyType::Integer,
        key_len: 4,
        size,
        expire_ms: Some(600_000),
        nopurge: false,
        store: vec![
            stored(DataType::Gpc0, 0),
            stored(DataType::ConnCur, 0),
            stored(DataType::HttpReqRate, 1_000),
        ],
        brates_factor: 1,
        write_to: None,
        recv_only: false,
        srvkey_addr: false,
        peers: Some(0),
    }
}

/// Nodes that know each other, with tables of these sizes whose entries live for 8 s.
pub fn short_lived(sizes: &[usize]) -> World {
    let mut world = World::new(7, (1, 3), Mutant::None);
    for &size in sizes {
        let mut spec = spec(size);
        spec.expire_ms = Some(8_000);
        world.add_node(vec![spec], 0);
    }
    for node in 0..sizes.len() {
        world.start(node);
    }
    world.pass(3_000);
    world
}
/// Whether anything passes between two nodes.
pub fn cut(world: &mut World, a: usize, b: usize, parted: bool) {
    world.cut(a, b, parted);
}
pub fn read(world: &mut World, node: usize, key: u32, what: DataType) -> u64 {
    world.read(node, key, what)
}

fn world(nodes: usize, delay: u64, mutant: Mutant) -> World {
    let mut world = World::new(7, (delay, delay), mutant);
    for _ in 0..nodes {
        world.add_node(vec![spec(4_000)], 0);
    }
    world
}

impl World {
    pub fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        self.run_until(until);
    }
    pub fn count(&mut self, node: usize, key: u32) {
        let mono = self.mono(node);
        let stores = self.life(node).stores.clone();
        let key = Key::from_stored(&key.to_be_bytes());
        stores.tables[0]
            .table
            .upsert(&key, mono, |mut e| {
                e.inc(DataType::Gpc0, 0, 1, mono);
                e.add(DataType::HttpReqRate, 0, 1, mono);
            })
            .unwrap();
        self.pump(node);
    }
    fn read(&mut self, node: usize, key: u32, what: DataType) -> u64 {
        let mono = self.mono(node);
        let stores = self.life(node).stores.clone();
        let key = Key::from_stored(&key.to_be_bytes());
        let table = &stores.tables[0].table;
        let value = table.peek(&key, mono, |e| e.get_exact(what, 0, mono).unwrap_or(0));
        value.unwrap_or(0)
    }
    /// Nothing passes between two nodes.
    fn cut(&mut self, a: usize, b: usize, parted: bool) {
        self.parted[a][b] = parted;
        self.parted[b][a] = parted;
        if !parted {
            self.flow_again();
        }
    }
    fn ready_ms(&self, node: usize) -> Option<u64> {
        let life = self.nodes[node].life.as_ref()?;
        Some(life.ready_at? - life.started_at)
    }
}

/// A batch that was held up does not bring a finished period back to life.
fn late_windows(mutant: Mutant) -> (u64, u64) {
    let mut world = world(2, 1, mutant);
    world.start(0);
    world.start(1);
    world.pass(3_000);
    world.cut(0, 1, true);
    world.count(0, 1);
    world.pass(3_500);
    world.cut(0, 1, false);
    world.pass(60);
    (
        world.read(1, 1, DataType::Gpc0),
        world.read(1, 1, DataType::HttpReqRate),
    )
}

#[test]
fn late_batches_carry_finished_periods() {
    assert_eq!(late_windows(Mutant::None), (1, 0));
    assert_eq!(late_windows(Mutant::IgnoresDelay), (1, 1), "the mutant");
}

/// Node 2 has a change that node 1 has only read past: the key changed again, and the newer change never arrived.
fn holes(mutant: Mutant) -> (u64, u64) {
    let mut world = world(3, 50, mutant);
    for node in 0..3 {
        // Where entries expire, whoever was parted asks for everything: that would hide the mistake.
        world.nodes[node].specs[0].expire_ms = None;
        world.start(node);
    }
    world.pass(3_000);
    world.cut(0, 1, true);
    world.cut(1, 2, true);
    world.pass(7_000);
    world.count(0, 777);
    world.pass(200);
    assert_eq!(world.read(2, 777, DataType::Gpc0), 1);
    world.cut(0, 2, true);
    world.pass(7_000);
    for key in 0..60 {
        world.count(0, key);
    }
    world.count(0, 777);
    world.pass(1_000);
    // No long break for those two, so that the journal is resumed: it is the last part of it that never comes.
    world.cut(0, 1, false);
    let mut waited = 0;
    while world.read(1, 20, DataType::Gpc0) == 0 {
        world.pass(5);
        waited += 5;
        assert!(waited < 20_000, "node 1 gets nothing");
    }
    assert_eq!(world.read(1, 777, DataType::Gpc0), 0, "too late for this");
    let ids: Vec<u64> = world.conns.keys().copied().collect();
    for id in ids {
        world.sever_all(id);
    }
    world.kill(0, true);
    world.cut(1, 2, false);
    world.pass(20_000);
    (
        world.read(1, 777, DataType::Gpc0),
        world.read(2, 777, DataType::Gpc0),
    )
}

#[test]
fn what_was_only_read_past_is_asked_for() {
    assert_eq!(holes(Mutant::None), (1, 1));
    assert_eq!(holes(Mutant::AlwaysWhole), (0, 1), "the mutant");
}

/// Node 0 dies while node 2 has a part of what it told, with a hole before it, and node 1 has nothing of it.
fn cut_short(mutant: Mutant) -> (u64, u64) {
    let mut world = world(3, 50, mutant);
    for node in 0..3 {
        world.start(node);
    }
    world.pass(3_000);
    world.cut(0, 1, true);
    world.cut(0, 2, true);
    world.pass(7_000);
    world.count(0, 777);
    world.pass(200);
    for key in 0..60 {
        world.count(0, key);
    }
    world.count(0, 777);
    world.pass(1_000);
    world.cut(0, 2, false);
    let mut waited = 0;
    while world.read(2, 20, DataType::Gpc0) == 0 {
        world.pass(5);
        waited += 5;
        assert!(waited < 20_000, "node 2 gets nothing");
    }
    assert_eq!(world.read(2, 777, DataType::Gpc0), 0, "too late for this");
    let ids: Vec<u64> = world.conns.keys().copied().collect();
    for id in ids {
        world.sever_all(id);
    }
    world.kill(0, true);
    world.pass(20_000);
    (
        world.read(1, 20, DataType::Gpc0),
        world.read(2, 20, DataType::Gpc0),
    )
}

#[test]
fn what_came_in_part_is_passed_on() {
    assert_eq!(cut_short(Mutant::None), (1, 1));
    assert_eq!(cut_short(Mutant::HidesHighest), (0, 1), "the mutant");
}

#[test]
fn ready_at_once_when_there_is_nobody_to_ask() {
    let mut alone = world(1, 1, Mutant::None);
    alone.start(0);
    alone.pass(100); // it may have its own address among its peers
    assert!(alone.ready_ms(0).is_some_and(|ms| ms < 20));

    let mut first = world(3, 1, Mutant::None);
    first.start(0); // both others refuse
    first.pass(100);
    assert!(first.ready_ms(0).is_some_and(|ms| ms < 20));

    let mut together = world(4, 1, Mutant::None);
    for node in 0..4 {
        together.start(node);
    }
    together.pass(1_000);
    for node in 0..4 {
        assert!(together.ready_ms(node).is_some_and(|ms| ms < 200), "{node}");
    }
}

#[test]
fn ready_after_the_learn_timeout_when_nobody_answers() {
    let mut world = world(2, 1, Mutant::None);
    world.start(1);
    world.pass(1_000);
    world.cut(0, 1, true);
    world.start(0);
    world.pass(LEARN_TIMEOUT - 10);
    assert_eq!(world.ready_ms(0), None);
    world.pass(20);
    assert_eq!(world.ready_ms(0), Some(LEARN_TIMEOUT));
}

/// The first teacher dies in the middle; the second one teaches the rest.
#[test]
fn another_teacher_takes_over() {
    let mut world = world(3, 20, Mutant::None);
    world.start(0);
    world.start(1);
    world.pass(1_000);
    for key in 0..300 {
        world.count(0, key);
        world.count(1, key);
    }
    world.pass(3_000);
    world.start(2);
    while world.read(2, 5, DataType::Gpc0) == 0 && world.read(2, 250, DataType::Gpc0) == 0 {
        world.pass(5);
    }
    assert_eq!(world.ready_ms(2), None, "not taught yet");
    world.kill(0, false);
    world.pass(15_000);
    assert!(world.ready_ms(2).is_some());
    for key in 0..300 {
        assert_eq!(world.read(2, key, DataType::Gpc0), 2, "{key}");
        assert_eq!(world.read(1, key, DataType::Gpc0), 2, "{key}");
    }
}

/// Who is asked to end while it teaches goes on with that first; who is killed leaves a newcomer that says what it lacks.
#[test]
fn a_teacher_that_ends() {
    for killed in [false, true] {
        let mut world = world(2, 20, Mutant::None);
        world.start(0);
        world.pass(1_000);
        for key in 0..3_000 {
            world.count(0, key);
        }
        world.pass(1_000);
        world.start(1);
        let taught = |world: &mut World| {
            let keys = 0..3_000;
            keys.map(|key| world.read(1, key, DataType::Gpc0))
                .sum::<u64>()
        };
        while taught(&mut world) == 0 {
            world.pass(5);
        }
        assert_eq!(world.ready_ms(1), None, "not taught yet");
        if !killed {
            world.stop(0);
            while !world.life(0).hub.is_stopped() {
                world.pass(10);
            }
        }
        world.kill(0, false);
        world.pass(1_000);
        assert!(world.ready_ms(1).is_some());
        assert_eq!(taught(&mut world) == 3_000, !killed);
        let now = world.mono(1);
        assert_eq!(world.life(1).hub.report(now).untaught, killed);
    }
}

/// A column that a node drops and takes back: all have the same sums again, though nothing is counted any more. What has
/// changed at that node meanwhile is gone everywhere.
#[test]
fn a_column_that_goes_and_comes_back() {
    let mut world = world(3, 5, Mutant::None);
    for node in 0..3 {
        world.start(node);
    }
    world.pass(3_000);
    for key in 0..200 {
        world.count(0, key);
        world.count(1, key);
    }
    world.pass(1_000);
    let gpc0 = |world: &mut World, key| [0, 1, 2].map(|node| world.read(node, key, DataType::Gpc0));
    let all = world.nodes[0].specs[0].store.clone();
    world.nodes[0].specs[0]
        .store
        .retain(|column| column.data_type != DataType::Gpc0);
    world.reload(0, 5, &[]);
    world.pass(2_000);
    world.count(0, 3);
    world.count(1, 5);
    world.pass(1_000);
    assert_eq!(gpc0(&mut world, 5), [0, 3, 3]);
    world.nodes[0].specs[0].store = all;
    world.reload(0, 5, &[]);
    world.pass(5_000);
    for key in 0..200 {
        let expected = match key {
            3 => 1,
            5 => 3,
            _ => 2,
        };
        assert_eq!(gpc0(&mut world, key), [expected; 3], "{key}");
    }
    // It goes on from there.
    world.count(0, 7);
    world.pass(1_000);
    assert_eq!(gpc0(&mut world, 7), [3; 3]);
}

/// A newcomer is taught while the journal moves on.
#[test]
fn taught_under_traffic() {
    let mut world = world(3, 1, Mutant::None);
    world.start(0);
    world.start(1);
    world.pass(1_000);
    for key in 0..2_000 {
        world.count((key % 2) as usize, key);
    }
    world.pass(1_000);
    world.start(2);
    for key in 0..2_000_u32 {
        world.count(0, key.wrapping_mul(7919) % 2_000);
        world.count(1, 5);
        world.pass(1);
    }
    world.pass(5_000);
    assert!(world.ready_ms(2).is_some_and(|ms| ms < LEARN_TIMEOUT));
    let sums = [0, 1, 2].map(|node| {
        (0..2_000)
            .map(|key| world.read(node, key, DataType::Gpc0))
            .sum::<u64>()
    });
    assert_eq!(sums, [6_000; 3]);
}

/// Concurrent connections of a frozen node stop counting after the lease, and count again when it goes on.
#[test]
fn gauges_of_the_silent_lapse() {
    let mut world = world(2, 1, Mutant::None);
    world.start(0);
    world.start(1);
    world.pass(1_000);
    let mono = world.mono(0);
    let key = Key::from_stored(&1_u32.to_be_bytes());
    let stores = world.life(0).stores.clone();
    let tracked = stores.tables[0].table.track(&key, mono).unwrap();
    world.pump(0);
    world.pass(100);
    assert_eq!(world.read(1, 1, DataType::ConnCur), 1);
    world.nodes[0].frozen = true;
    world.pass(4_000);
    assert_eq!(world.read(1, 1, DataType::ConnCur), 1);
    world.pass(3_000);
    assert_eq!(world.read(1, 1, DataType::ConnCur), 0);
    world.thaw(0);
    world.pass(7_000);
    assert_eq!(world.read(1, 1, DataType::ConnCur), 1);
    let mono = world.mono(0);
    stores.tables[0].table.untrack(tracked, mono);
    world.pump(0);
    world.pass(100);
    assert_eq!(world.read(1, 1, DataType::ConnCur), 0);
}

/// Two addresses of one node, and one of its own: one session each way, and no restless dialing.
#[test]
fn duplicates_and_itself_are_left_alone() {
    let mut world = world(2, 1, Mutant::None);
    world.start(0);
    world.start(1);
    let mono = world.mono(0);
    let second = world.life(0).hub.add_peer("also1", "host1:1", true, mono);
    let itself = world.life(0).hub.add_peer("itself", "host0:1", true, mono);
    world.life(0).leads_to(second, 1);
    world.life(0).leads_to(itself, 0);
    world.pump(0);
    world.pass(50_000);
    let mono = world.mono(0);
    let report = world.life(0).hub.report(mono);
    let dials: u64 = report.peers.iter().map(|peer| peer.dials).sum();
    assert!(dials < 12, "{dials} dials: {report:#?}");
    world.count(0, 1);
    world.count(1, 1);
    world.pass(200);
    assert_eq!(world.read(0, 1, DataType::Gpc0), 2);
    assert_eq!(world.read(1, 1, DataType::Gpc0), 2);
}

/// A clean stop brings everything across, and ends the lineage at once.
#[test]
fn goodbye_comes_last() {
    let mut world = world(2, 30, Mutant::None);
    world.start(0);
    world.start(1);
    world.pass(1_000);
    for key in 0..500 {
        world.count(0, key);
    }
    world.stop(0);
    let mut waited = 0;
    while !world.life(0).hub.is_stopped() {
        world.pass(10);
        waited += 10;
        assert!(waited < 60_000);
    }
    world.pass(100);
    for key in 0..500 {
        assert_eq!(world.read(1, key, DataType::Gpc0), 1);
    }
    let mono = world.mono(1);
    let report = world.life(1).hub.report(mono);
    assert!(report.lineages.iter().all(|l| l.ended && !l.alive));
}

/// Two nodes that never reach each other share a third one: each hears the other within about a second, without a walk per
/// second where walks take long.
#[test]
fn a_relay_is_not_asked_all_the_time() {
    for (delay, most) in [(1, 33), (150, 20)] {
        let mut world = world(3, delay, Mutant::None);
        world.undialable[0][1] = true;
        world.undialable[1][0] = true;
        for node in 0..3 {
            world.start(node);
        }
        world.pass(12_000);
        // What it has of its own does not come again.
        for key in 100..130 {
            world.count(2, key);
        }
        let asked = |world: &mut World| {
            let mono = world.mono(1);
            world.life(1).hub.report(mono).counters.gaps_asked
        };
        let before = asked(&mut world);
        let mut behind = 0;
        for n in 0..120 {
            world.count(0, n % 12);
            world.pass(250);
            let sum: u64 = (0..12).map(|key| world.read(1, key, DataType::Gpc0)).sum();
            behind = behind.max(u64::from(n) + 1 - sum);
        }
        let walks = asked(&mut world) - before;
        assert!(
            walks <= most,
            "{walks} walks in 30 s, with a delay of {delay} ms"
        );
        assert!(
            behind <= if delay == 1 { 9 } else { 40 },
            "{behind} counts behind, 4 per second"
        );
        world.pass(10_000);
        let sum: u64 = (0..12).map(|key| world.read(1, key, DataType::Gpc0)).sum();
        assert_eq!(sum, 120);
    }
}
