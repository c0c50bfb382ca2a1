//! One random history: what happens to a cluster (`steps`), and what must be true afterwards (`checks`).

mod checks;
mod steps;

use remora_core::table::{DataType, KeyType, Stored, TableSpec};

use crate::rng::Rng;
use crate::stores::Mutant;
use crate::world::{World, keys};

/// What kind of histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counting only: nothing may be missing at the end.
    Exact,
    /// Values are also assigned and cleared: the nodes must agree.
    Edicts,
    /// The same, and now and then the clock of a node is years away for a while.
    Clocks,
    /// Tables of nodes store different things.
    Mixed,
    /// Entries expire: the nodes must agree, and nothing may stay for ever.
    Expiring,
    /// Tables are too small: sums may fall short, but nodes must come to rest.
    Small,
}

/// What happened, for whoever counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub events: u64,
    pub messages: u64,
    pub kills: u64,
    pub successions: u64,
    pub reloads: u64,
    pub forgotten: u64,
}

const SETTLE: u64 = 16_000;

struct History {
    world: World,
    rng: Rng,
    kind: Kind,
    keys: u64,
    /// Lineages are continued: after clean stops, and by reloads.
    continues: bool,
    /// Whose clock is years away, and by how much.
    lost_clock: Option<(usize, i64)>,
    /// Before that no clock changes by years again: nobody has one that does so all the time.
    clocks_rest_until: u64,
    tally: Tally,
}

/// Lives through the history of a seed. `Err`: what went wrong. `continues`: nodes also stop and come back cleanly, and are
/// reloaded.
pub fn run(
    kind: Kind,
    continues: bool,
    seed: u64,
    mutant: Mutant,
    trace: bool,
) -> Result<Tally, String> {
    let mut rng = Rng::new(seed ^ 0xA5A5_0000);
    let nodes = match rng.below(20) {
        0..=8 => 2,
        9..=14 => 3,
        15..=17 => 4,
        18 => rng.between(5, 6),
        _ => rng.between(7, 8),
    } as usize;
    let delay = rng.pick(&[(0, 1), (1, 3), (5, 15), (20, 120)]);
    let mut world = World::new(seed, delay, mutant);
    world.trace = trace;
    world.sole = continues;
    for _ in 0..nodes {
        let wall = match rng.below(4) {
            0 => 0,
            1 => rng.below(1_200_000) as i64 - 600_000,
            2 => rng.below(2_000) as i64 - 1_000,
            _ => rng.below(172_800_000) as i64 - 86_400_000,
        };
        let specs = specs(kind, &mut rng);
        world.add_node(specs, wall);
    }
    let keys = match kind {
        Kind::Small => rng.between(3, 40),
        _ => rng.between(1, 8),
    };
    let mut history = History {
        world,
        rng,
        kind,
        keys,
        continues,
        lost_clock: None,
        clocks_rest_until: 0,
        tally: Tally::default(),
    };
    let result = history.live();
    history.tally.messages = history.world.messages;
    history.tally.successions = history.world.successions;
    history.tally.reloads = history.world.reloads;
    history.tally.forgotten = history.world.forgotten();
    result.map(|()| history.tally)
}

fn specs(kind: Kind, rng: &mut Rng) -> Vec<TableSpec> {
    let stored = |data_type, period_ms| Stored {
        data_type,
        elements: 1,
        period_ms,
    };
    let mut store = vec![
        stored(DataType::Gpt0, 0),
        stored(DataType::Gpc0, 0),
        stored(DataType::Gpc0Rate, 600_000),
        stored(DataType::ConnCnt, 0),
        stored(DataType::ConnCur, 0),
        stored(DataType::HttpReqCnt, 0),
        stored(DataType::HttpReqRate, 2_000),
        stored(DataType::BytesInCnt, 0),
    ];
    if kind == Kind::Mixed {
        store.retain(|s| s.data_type == DataType::Gpc0 || rng.percent(75));
        if rng.percent(20) {
            for s in store
                .iter_mut()
                .filter(|s| s.data_type == DataType::Gpc0Rate)
            {
                s.period_ms = 700_000;
            }
        }
    }
    let spec = |name: &str, store: Vec<Stored>, size, expire_ms| TableSpec {
        name: name.to_owned(),
        key_type: KeyType::Integer,
        key_len: 4,
        size,
        expire_ms,
        nopurge: false,
        store,
        brates_factor: 1,
        write_to: None,
        recv_only: false,
        srvkey_addr: false,
        peers: Some(0),
    };
    let size = if kind == Kind::Small {
        rng.between(1, 12) as usize
    } else {
        100
    };
    let expire = (kind == Kind::Expiring).then_some(8_000);
    let mut specs = vec![spec("t", store, size, expire)];
    if kind != Kind::Mixed || rng.percent(70) {
        specs.push(spec(
            "p/second",
            vec![stored(DataType::Gpc0, 0)],
            size,
            expire,
        ));
    }
    specs
}

impl History {
    fn live(&mut self) -> Result<(), String> {
        let nodes = self.world.nodes.len();
        let together = self.rng.percent(50);
        for node in 0..nodes {
            if together || self.rng.percent(70) {
                self.world.start(node);
                if !together {
                    let wait = self.rng.between(0, 3_000);
                    self.pass(wait);
                }
            }
        }
        if self.world.running().is_empty() {
            self.world.start(0);
        }
        for round in 0..self.rng.between(1, 2) {
            let until = self.world.now + self.rng.between(1_000, 25_000);
            while self.world.now < until {
                if self.kind == Kind::Clocks && self.rng.percent(10) {
                    if self.lost_clock.is_some() {
                        self.find_clock();
                    } else {
                        self.lose_clock();
                    }
                }
                self.step();
                let wait = match self.rng.below(10) {
                    0..=4 => self.rng.between(0, 10),
                    5..=8 => self.rng.between(10, 300),
                    _ => self.rng.between(300, 4_000),
                };
                self.pass(wait);
            }
            self.heal();
            self.pass(SETTLE);
            self.check().map_err(|e| format!("round {round}: {e}"))?;
        }
        if matches!(self.kind, Kind::Edicts | Kind::Clocks) {
            self.assign_in_step()?;
        }
        if self.kind == Kind::Expiring {
            self.pass(12_000);
            for node in self.world.running() {
                let mono = self.world.mono(node);
                for table in &self.world.life(node).stores.clone().tables {
                    let left = keys(&table.table, mono);
                    if !left.is_empty() && !self.is_held() {
                        return Err(format!("node{node} still has {left:?}"));
                    }
                }
            }
        }
        Ok(())
    }
    fn is_held(&self) -> bool {
        let held = |n: &crate::world::Node| n.life.as_ref().is_some_and(|l| !l.trackers.is_empty());
        self.world.nodes.iter().any(held)
    }
    fn pass(&mut self, ms: u64) {
        let until = self.world.now + ms;
        while until > self.world.now + 1_000 {
            self.pass(1_000);
        }
        self.world.run_until(until);
        // Upkeep, about as often as a process does it.
        for node in self.world.running() {
            if !self.world.nodes[node].frozen {
                let mono = self.world.mono(node);
                for table in &self.world.life(node).stores.tables {
                    table.table.maintain(mono, 1_000);
                }
            }
        }
        // A process that has said all goodbyes ends.
        for node in self.world.running() {
            let life = self.world.life(node);
            if life.stopping && life.hub.is_stopped() {
                self.world.kill(node, false);
            }
        }
    }
}
