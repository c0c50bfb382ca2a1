//! What may happen to a cluster: traffic, breaks, partitions, frozen, killed and restarted nodes, jumping clocks.

use remora_core::table::{DataType, Key};

use super::{History, Kind};

const YEAR_MS: i64 = 366 * 86_400_000;

impl History {
    pub(super) fn step(&mut self) {
        let running = self.world.running();
        let awake: Vec<usize> = running
            .iter()
            .copied()
            .filter(|&n| !self.world.nodes[n].frozen && !self.world.life(n).stopping)
            .collect();
        if self.continues && !awake.is_empty() && self.rng.percent(6) {
            let node = self.rng.pick(&awake);
            return self.go_on(node);
        }
        match self.rng.below(100) {
            0..=64 => {
                if awake.is_empty() {
                    return;
                }
                let node = self.rng.pick(&awake);
                for _ in 0..self.rng.between(1, 6) {
                    self.traffic(node);
                }
                self.world.pump(node);
            }
            65..=70 => {
                let ids: Vec<u64> = self.world.conns.keys().copied().collect();
                if !ids.is_empty() {
                    let id = self.rng.pick(&ids);
                    self.world.sever(id);
                }
            }
            71..=75 => self.part(),
            76..=79 => self.rejoin(),
            80..=82 => {
                if let (false, true) = (awake.is_empty(), awake.len() > 1) {
                    let node = self.rng.pick(&awake);
                    self.world.log(|| format!("freeze node{node}"));
                    self.world.nodes[node].frozen = true;
                }
            }
            83..=85 => {
                for node in running {
                    self.world.thaw(node);
                }
            }
            86..=89 => {
                if running.len() > 1 && self.rng.percent(60) {
                    let node = self.rng.pick(&running);
                    let silent = self.rng.percent(30);
                    self.world.kill(node, silent);
                    self.tally.kills += 1;
                    if self.rng.percent(40) {
                        let wait = self.rng.between(0, 50);
                        self.pass(wait);
                        self.world.start(node);
                    }
                }
            }
            90..=93 => {
                let down: Vec<usize> = (0..self.world.nodes.len())
                    .filter(|&n| self.world.nodes[n].life.is_none())
                    .collect();
                if !down.is_empty() {
                    let node = self.rng.pick(&down);
                    self.world.start(node);
                }
            }
            94 => {
                if awake.len() > 1 {
                    let node = self.rng.pick(&awake);
                    self.world.stop(node);
                }
            }
            95..=96 => {
                let n = self.world.nodes.len() as u64;
                let (a, b) = (self.rng.below(n) as usize, self.rng.below(n) as usize);
                let blocked = &mut self.world.undialable[a][b];
                *blocked = !*blocked;
            }
            97..=98 => {
                let node = self.rng.below(self.world.nodes.len() as u64) as usize;
                let jump = self
                    .rng
                    .pick(&[-86_400_000, -600_000, -1_000, 1_000, 600_000]);
                self.world.nodes[node].wall_offset += jump;
            }
            _ => {
                let wait = self.rng.between(1_000, 8_000);
                self.pass(wait);
            }
        }
    }
    /// A node's clock is years away. Only one at a time: see [`History::find_clock`].
    pub(super) fn lose_clock(&mut self) {
        let node = self.rng.below(self.world.nodes.len() as u64) as usize;
        if self.lost_clock.is_none() && self.world.now >= self.clocks_rest_until {
            let years = self.rng.pick(&[-2, 2, 2]);
            let away = years * YEAR_MS;
            self.world
                .log(|| format!("clock of node{node} is {years} years off"));
            self.world.nodes[node].wall_offset += away;
            self.lost_clock = Some((node, away));
        }
    }
    /// It is set right.
    pub(super) fn find_clock(&mut self) {
        if let Some((node, away)) = self.lost_clock.take() {
            self.world.log(|| format!("clock of node{node} is right"));
            self.world.nodes[node].wall_offset -= away;
            self.clocks_rest_until = self.world.now + 5_000;
        }
    }
    /// A node is reloaded, or ends in good order and comes back.
    fn go_on(&mut self, node: usize) {
        if self.rng.percent(50) {
            let between = self.rng.between(0, 200);
            let tables = self.world.life(node).stores.tables.len() as u64;
            let late: Vec<_> = (0..self.rng.below(3))
                .map(|_| {
                    let key = (self.rng.below(self.keys) as u32).to_be_bytes().to_vec();
                    (self.rng.below(tables) as usize, key, self.rng.between(1, 3))
                })
                .collect();
            return self.world.reload(node, between, &late);
        }
        self.world.stop(node);
        let wait = self.rng.between(0, 3_000);
        self.pass(wait);
        if self.world.nodes[node].life.is_none() {
            self.world.start(node);
        }
    }
    fn part(&mut self) {
        let n = self.world.nodes.len();
        let side: Vec<bool> = (0..n).map(|_| self.rng.percent(50)).collect();
        let one_way = self.rng.percent(15);
        self.world
            .log(|| format!("part {side:?} one way {one_way}"));
        for a in 0..n {
            for b in 0..n {
                if side[a] != side[b] && !(one_way && side[a]) {
                    self.world.parted[a][b] = true;
                }
            }
        }
    }
    fn rejoin(&mut self) {
        self.world.log(|| "rejoin".to_owned());
        for row in &mut self.world.parted {
            row.fill(false);
        }
        self.world.flow_again();
    }
    pub(super) fn heal(&mut self) {
        self.find_clock();
        self.world.log(|| "heal".to_owned());
        self.rejoin();
        for row in &mut self.world.undialable {
            row.fill(false);
        }
        for node in self.world.running() {
            self.world.thaw(node);
        }
        // Who was asked to stop may do so.
        for _ in 0..8 {
            self.pass(1_000);
        }
        for node in self.world.running() {
            if self.world.life(node).stopping {
                self.world.kill(node, false);
            }
        }
        if self.world.running().is_empty() {
            self.world.start(0);
        }
    }

    /// Something happens at a node that changes its tables.
    fn traffic(&mut self, node: usize) {
        let mono = self.world.mono(node);
        let kind = self.kind;
        let rng = &mut self.rng;
        let Some(life) = &mut self.world.nodes[node].life else {
            return;
        };
        // A node that is not ready does not accept, but what it runs itself may count.
        if !life.ready && !rng.percent(10) {
            return;
        }
        let t = rng.below(life.stores.tables.len() as u64) as usize;
        let bytes = (rng.below(self.keys) as u32).to_be_bytes().to_vec();
        let key = Key::from_stored(&bytes);
        let stores = life.stores.clone();
        let table = &stores.tables[t].table;
        let mut count = |what: DataType, n: u64| {
            if table.stores_exact(what, 0) {
                *life
                    .counted
                    .entry((t, bytes.clone(), (what, 0)))
                    .or_insert(0) += n;
            }
        };
        self.tally.events += 1;
        match rng.below(20) {
            0..=6 => {
                let n = rng.between(1, 3);
                let done = table.upsert(&key, mono, |mut e| {
                    e.inc(DataType::Gpc0, 0, n, mono);
                });
                if done.is_ok() {
                    count(DataType::Gpc0, n);
                    count(DataType::Gpc0Rate, n);
                }
            }
            7..=11 => {
                let n = rng.between(1, 5_000);
                let done = table.upsert(&key, mono, |mut e| {
                    e.inc(DataType::HttpReqCnt, 0, 1, mono);
                    e.add(DataType::BytesInCnt, 0, n, mono);
                });
                if done.is_ok() {
                    count(DataType::HttpReqCnt, 1);
                    if table.stores_exact(DataType::BytesInCnt, 0) {
                        count(DataType::BytesInCnt, n);
                    }
                }
            }
            12..=14 => {
                if life.trackers.len() < 4
                    && let Ok(at) = table.track(&key, mono)
                {
                    count(DataType::ConnCnt, 1);
                    life.trackers.push((t, bytes, at));
                }
            }
            15..=17 => {
                if !life.trackers.is_empty() {
                    let at = rng.below(life.trackers.len() as u64) as usize;
                    let (t, _, entry) = life.trackers.swap_remove(at);
                    stores.tables[t].table.untrack(entry, mono);
                }
            }
            18 => {
                let value = rng.below(1_000);
                let _ = table.upsert(&key, mono, |mut e| e.set(DataType::Gpt0, 0, value, mono));
            }
            _ if !matches!(kind, Kind::Edicts | Kind::Clocks) => {}
            _ => match rng.below(4) {
                0 | 1 => {
                    table.remove(&key, mono);
                }
                2 => {
                    let value = rng.below(100);
                    let _ = table.upsert(&key, mono, |mut e| e.set(DataType::Gpc0, 0, value, mono));
                }
                _ => {
                    let _ = table.upsert(&key, mono, |mut e| e.clr(DataType::HttpReqCnt, 0));
                }
            },
        }
    }
}
