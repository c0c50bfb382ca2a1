//! What must be true once a cluster has had time to settle.

use remora_core::table::{DataType, Key, TableSpec};

use super::{History, Kind};
use crate::world::{Counted, LEARN_TIMEOUT};

impl History {
    pub(super) fn check(&mut self) -> Result<(), String> {
        let running = self.world.running();
        for &node in &running {
            let now = self.world.now;
            let life = self.world.life(node);
            if !life.ready && now > life.started_at + LEARN_TIMEOUT {
                return Err(format!("node{node} is not ready"));
            }
            let counters = life.hub.report(0).counters;
            if counters.protocol_errors + counters.bad_batches > 0 {
                return Err(format!("node{node} met errors: {counters:?}"));
            }
        }
        let before = self.world.busy_messages;
        self.pass(3_000);
        if self.world.busy_messages > before {
            let n = self.world.busy_messages - before;
            return Err(format!("{n} messages though nothing happens"));
        }
        if self.kind == Kind::Small {
            return Ok(());
        }
        self.check_agreement(&running)?;
        if matches!(self.kind, Kind::Exact | Kind::Mixed) {
            self.check_truth(&running)?;
        }
        Ok(())
    }
    /// Every node reads the same.
    fn check_agreement(&mut self, running: &[usize]) -> Result<(), String> {
        let mut seen: Counted = Counted::new();
        let mut by: std::collections::BTreeMap<_, usize> = std::collections::BTreeMap::new();
        for &node in running {
            let mono = self.world.mono(node);
            let stores = self.world.life(node).stores.clone();
            for table in &stores.tables {
                let name = usize::from(table.table.spec().name != "t");
                for stored in &table.table.spec().store {
                    for key in 0..self.keys {
                        let key = (key as u32).to_be_bytes().to_vec();
                        let read = table.table.peek(&Key::from_stored(&key), mono, |e| {
                            (
                                e.get_exact(stored.data_type, 0, mono).unwrap_or(0),
                                e.expires_in_ms(mono),
                            )
                        });
                        let (value, left) = read.unwrap_or((0, 0));
                        let present = u64::from(read.is_some());
                        if self.kind == Kind::Expiring && left < 1_000 && present == 1 {
                            continue;
                        }
                        // Which period was stored belongs to the name of what is compared.
                        let what = (stored.data_type, (stored.period_ms / 1_000) as u16);
                        let place = (name, key.clone(), what);
                        let value = if self.kind == Kind::Expiring {
                            value
                        } else {
                            value * 2 + present
                        };
                        let first = *seen.entry(place.clone()).or_insert(value);
                        let who = *by.entry(place.clone()).or_insert(node);
                        if first != value {
                            let shares = [who, node].map(|n| self.shares(n, name, &key));
                            return Err(format!(
                                "{place:?}: node{who} reads {first}, node{node} reads {value}\n  {}\n  {}",
                                shares[0], shares[1]
                            ));
                        }
                    }
                }
            }
        }
        Ok(())
    }
    /// What a node holds of a key, lineage by lineage.
    fn shares(&mut self, node: usize, name: usize, key: &[u8]) -> String {
        let mono = self.world.mono(node);
        let stores = self.world.life(node).stores.clone();
        let named = |t: &&crate::stores::SimTable| (t.table.spec().name != "t") == (name == 1);
        let mut text = format!("node{node}:");
        let table = stores.tables.iter().find(named);
        let replica = table.and_then(|t| t.table.replica());
        if let (Some(table), Some(replica)) = (table, replica) {
            replica.origins(&Key::from_stored(key), mono, |origin| {
                text += &format!(" {:016x} v{}", origin.lineage.0, origin.version);
                for stored in &table.table.spec().store {
                    let value = origin.get(stored.data_type, 0, mono).unwrap_or(0);
                    if value > 0 {
                        text += &format!(" {:?}={value}", stored.data_type);
                    }
                }
                text += ";";
            });
        }
        text
    }
    /// What is read is what happened, of each lineage.
    fn check_truth(&mut self, running: &[usize]) -> Result<(), String> {
        let mut lineages: Vec<_> = self.world.dead.keys().copied().collect();
        lineages.extend(running.iter().map(|&n| self.world.life(n).lineage));
        for &node in running {
            for &lineage in &lineages {
                let held = self.world.cells(node, lineage);
                let alive = running
                    .iter()
                    .find(|&&n| self.world.nodes[n].life.as_ref().unwrap().lineage == lineage);
                let stores = self.world.life(node).stores.clone();
                let specs: Vec<&TableSpec> = stores.tables.iter().map(|t| t.table.spec()).collect();
                let (most, least) = match alive {
                    Some(&n) => {
                        let counted = &self.world.nodes[n].life.as_ref().unwrap().counted;
                        (counted, counted)
                    }
                    None => {
                        let dead = &self.world.dead[&lineage];
                        (&dead.counted, &dead.floor)
                    }
                };
                let both = |what: DataType| {
                    !matches!(
                        what,
                        DataType::ConnCur | DataType::HttpReqRate | DataType::Gpt0
                    )
                };
                // In mixed tables, what this node does not store in the same way it cannot know.
                let here = |t: usize, what: DataType| {
                    let period = |spec: &TableSpec| {
                        let of = spec.store.iter().find(|s| s.data_type == what);
                        of.map(|s| s.period_ms)
                    };
                    let theirs = self
                        .world
                        .nodes
                        .iter()
                        .find(|n| n.life.as_ref().is_some_and(|l| l.lineage == lineage));
                    let same = match theirs.and_then(|n| n.specs.get(t)) {
                        Some(spec) => specs.get(t).and_then(|s| period(s)) == period(spec),
                        None => self.kind != Kind::Mixed || what != DataType::Gpc0Rate,
                    };
                    same && specs.get(t).is_some_and(|s| period(s).is_some())
                };
                for (place, least) in least {
                    let (t, _, (what, _)) = place;
                    if !both(*what) || !here(*t, *what) {
                        continue;
                    }
                    let value = held.get(place).copied().unwrap_or(0);
                    if value < *least {
                        return Err(format!(
                            "node{node} has {value} of {place:?} of {:016x}, but {least} were counted (alive {})",
                            lineage.0,
                            alive.is_some()
                        ));
                    }
                }
                for (place, value) in &held {
                    let (_, _, (what, _)) = place;
                    let most = most.get(place).copied().unwrap_or(0);
                    if both(*what) && *value > most {
                        return Err(format!(
                            "node{node} has {value} of {place:?} of {:016x}, but only {most} were counted",
                            lineage.0
                        ));
                    }
                }
            }
            self.check_gauges(node, running)?;
        }
        Ok(())
    }
    /// Concurrent connections are those of running nodes; finished periods read 0.
    fn check_gauges(&mut self, node: usize, running: &[usize]) -> Result<(), String> {
        let mono = self.world.mono(node);
        let stores = self.world.life(node).stores.clone();
        for (t, table) in stores.tables.iter().enumerate() {
            if !table.table.stores_exact(DataType::ConnCur, 0) {
                continue;
            }
            for key in 0..self.keys {
                let key = (key as u32).to_be_bytes().to_vec();
                let held: usize = running
                    .iter()
                    .filter(|&&n| {
                        let spec = self.world.nodes[n].specs.get(t);
                        spec.is_some_and(|s| {
                            s.store.iter().any(|s| s.data_type == DataType::ConnCur)
                        })
                    })
                    .map(|&n| {
                        let trackers = &self.world.nodes[n].life.as_ref().unwrap().trackers;
                        trackers
                            .iter()
                            .filter(|(table, k, _)| *table == t && *k == key)
                            .count()
                    })
                    .sum();
                let (gauge, rate) = table
                    .table
                    .peek(&Key::from_stored(&key), mono, |e| {
                        (
                            e.get_exact(DataType::ConnCur, 0, mono).unwrap_or(0),
                            e.get_exact(DataType::HttpReqRate, 0, mono).unwrap_or(0),
                        )
                    })
                    .unwrap_or((0, 0));
                if gauge != held as u64 {
                    let shares = self.shares(node, usize::from(t > 0), &key);
                    return Err(format!(
                        "node{node}: conn_cur {gauge} of {key:?}, true {held}\n  {shares}"
                    ));
                }
                if rate != 0 {
                    return Err(format!("node{node}: a finished period reads {rate}"));
                }
            }
        }
        Ok(())
    }
    /// In quiet times an assignment means what it says.
    pub(super) fn assign_in_step(&mut self) -> Result<(), String> {
        let key = Key::from_stored(&0_u32.to_be_bytes());
        let mut want = None;
        for _ in 0..self.rng.between(1, 4) {
            let running = self.world.running();
            let node = self.rng.pick(&running);
            let mono = self.world.mono(node);
            let stores = self.world.life(node).stores.clone();
            let table = &stores.tables[0].table;
            match self.rng.below(3) {
                0 => {
                    table.remove(&key, mono);
                    let held = running.iter().any(|&n| {
                        let trackers = &self.world.nodes[n].life.as_ref().unwrap().trackers;
                        trackers
                            .iter()
                            .any(|(t, k, _)| *t == 0 && k[..] == *key.as_bytes())
                    });
                    // The CLI refuses to remove what is in use here; in use elsewhere, the counts are void.
                    let held_here = !self.world.life(node).trackers.is_empty();
                    want = (!held || !held_here).then_some(0);
                }
                1 => {
                    let value = self.rng.below(50);
                    let _ = table.upsert(&key, mono, |mut e| e.set(DataType::Gpc0, 0, value, mono));
                    want = Some(value);
                }
                _ => {
                    let _ = table.upsert(&key, mono, |mut e| e.inc(DataType::Gpc0, 0, 1, mono));
                    want = want.map(|n| n + 1);
                }
            }
            self.world.pump(node);
            self.pass(2_000);
            for node in self.world.running() {
                let mono = self.world.mono(node);
                let stores = self.world.life(node).stores.clone();
                let read = stores.tables[0]
                    .table
                    .peek(&key, mono, |e| {
                        e.get_exact(DataType::Gpc0, 0, mono).unwrap_or(0)
                    })
                    .unwrap_or(0);
                if want.is_some_and(|want| want != read) {
                    return Err(format!(
                        "node{node} reads {read} in step, expected {want:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
