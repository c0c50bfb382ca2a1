//! Nodes that are restarted cleanly continue a lineage: a thousand restarts leave nothing behind.

use std::sync::Arc;

use remora_core::peers::store::{Store, Stores};
use remora_core::peers::{Action, Hub, HubConfig, PeerIx, SessionId};
use remora_core::table::{
    DataType as D, Key, KeyType, Lineage, Lineages, Stored, Table, TableId, TableSpec, Tag,
};

struct One(Table);

impl Stores for One {
    fn store(&self, table: TableId) -> Option<&dyn Store> {
        (table.0 == 0).then_some(&self.0 as &dyn Store)
    }
    fn write_tags(&self, _: TableId, _: &[(Key, Vec<Tag>)], _: u64) {}
}

fn spec(expire_ms: Option<u32>) -> TableSpec {
    let stored = |data_type, period_ms| Stored {
        data_type,
        elements: 1,
        period_ms,
    };
    TableSpec {
        name: "t".into(),
        key_type: KeyType::Integer,
        key_len: 4,
        size: 1_000,
        expire_ms,
        nopurge: false,
        store: vec![
            stored(D::Gpc0, 0),
            stored(D::ConnCur, 0),
            stored(D::HttpReqRate, 10_000),
        ],
        brates_factor: 1,
        write_to: None,
        recv_only: false,
        srvkey_addr: false,
        peers: None,
    }
}

struct Node {
    hub: Hub,
    stores: Arc<One>,
    lineages: Arc<Lineages>,
    ready: bool,
    said: Vec<String>,
    /// Which node each peer is.
    peers: Vec<(PeerIx, usize)>,
}

struct Cluster {
    nodes: Vec<Option<Node>>,
    /// Dialer and its session, answerer and its session.
    links: Vec<(usize, SessionId, usize, SessionId)>,
    now: u64,
    lives: u64,
    expire_ms: Option<u32>,
    sole: bool,
}

impl Cluster {
    fn new(count: usize, expire_ms: Option<u32>, sole: bool) -> Cluster {
        let mut cluster = Cluster {
            nodes: (0..count).map(|_| None).collect(),
            links: Vec::new(),
            now: 1_000_000,
            lives: 0,
            expire_ms,
            sole,
        };
        for node in 0..count {
            cluster.start(node);
        }
        cluster.until(|c| c.nodes.iter().flatten().all(|n| n.ready));
        cluster
    }
    fn start(&mut self, index: usize) {
        self.lives += 1;
        let lineages = Arc::new(Lineages::new(Lineage(1_000 + self.lives)));
        let table = Table::new_replicated(spec(self.expire_ms), self.lives, Arc::clone(&lineages));
        let stores = Arc::new(One(table));
        let config = HubConfig {
            cluster: "c".into(),
            node: format!("n{index}"),
            lineages: Arc::clone(&lineages),
            newcomer: true,
            discovers: false,
            learn_timeout_ms: 5_000,
            sole: self.sole,
            seed: self.lives,
        };
        let mut hub = Hub::new(
            config,
            Arc::clone(&stores) as Arc<dyn Stores>,
            &[TableId(0)],
            self.now,
        );
        let others = (0..self.nodes.len()).filter(|other| *other != index);
        let peers = others
            .map(|other| {
                (
                    hub.add_peer(
                        &format!("n{other}"),
                        &format!("h{other}:1"),
                        false,
                        self.now,
                    ),
                    other,
                )
            })
            .collect();
        self.nodes[index] = Some(Node {
            hub,
            stores,
            lineages,
            ready: false,
            said: Vec::new(),
            peers,
        });
    }
    fn node(&mut self, index: usize) -> &mut Node {
        self.nodes[index].as_mut().unwrap()
    }
    fn count(&mut self, index: usize, key: i64) {
        let now = self.now;
        let key = Key::from_typed(key.to_string().as_bytes(), KeyType::Integer, 4).unwrap();
        let done = self.node(index).stores.0.upsert(&key, now, |mut e| {
            e.inc(D::Gpc0, 0, 1, now);
            e.inc(D::HttpReqRate, 0, 1, now);
        });
        assert!(done.is_ok());
    }
    fn value(&mut self, index: usize, key: i64, what: D) -> Option<u64> {
        let now = self.now;
        let key = Key::from_typed(key.to_string().as_bytes(), KeyType::Integer, 4).unwrap();
        self.node(index)
            .stores
            .0
            .peek(&key, now, |e| e.get(what, 0, now))
            .flatten()
    }
    fn cells(&mut self, index: usize, key: i64) -> usize {
        let now = self.now;
        let key = Key::from_typed(key.to_string().as_bytes(), KeyType::Integer, 4).unwrap();
        let mut cells = 0;
        let node = self.node(index);
        node.stores
            .0
            .replica()
            .unwrap()
            .origins(&key, now, |_| cells += 1);
        cells
    }
    fn act(&mut self, index: usize) -> bool {
        let now = self.now;
        let Some(node) = &mut self.nodes[index] else {
            return false;
        };
        let Some(action) = node.hub.poll_action(now) else {
            return false;
        };
        match action {
            Action::Ready => node.ready = true,
            Action::Lend(_) => {}
            Action::Log(event) => node.said.push(event.to_string()),
            Action::Dial(ix) => {
                let to = node.peers.iter().find(|(peer, _)| *peer == ix).unwrap().1;
                if self.nodes[to].is_none() {
                    self.node(index).hub.dial_failed(ix, true, "refused", now);
                } else {
                    let out = self.node(index).hub.opened_out(ix, now);
                    let into = self.node(to).hub.opened_in(format!("h{index}:9"), now);
                    self.links.push((index, out, to, into));
                }
            }
            Action::Close(id, _) => self.cut(
                |l| (l.0, l.1) == (index, id) || (l.2, l.3) == (index, id),
                Some(index),
            ),
        }
        true
    }
    /// Streams end; whoever did it knows.
    fn cut(
        &mut self,
        which: impl Fn(&(usize, SessionId, usize, SessionId)) -> bool,
        by: Option<usize>,
    ) {
        let now = self.now;
        let (gone, kept) = std::mem::take(&mut self.links)
            .into_iter()
            .partition(|l| which(l));
        self.links = kept;
        let gone: Vec<(usize, SessionId, usize, SessionId)> = gone;
        for (from, out, to, into) in gone {
            for (index, id) in [(from, out), (to, into)] {
                if by != Some(index)
                    && let Some(node) = &mut self.nodes[index]
                {
                    node.hub.closed(id, "the peer ended the stream", now);
                }
            }
        }
    }
    fn step(&mut self) {
        self.now += 10;
        let now = self.now;
        for node in self.nodes.iter_mut().flatten() {
            node.hub.tick(now, 1_800_000_000_000 + now);
            node.stores.0.maintain(now, 100);
        }
        for _ in 0..10_000 {
            let mut busy = false;
            for index in 0..self.nodes.len() {
                while self.act(index) {
                    busy = true;
                }
            }
            for (from, out, to, into) in self.links.clone() {
                if let Some(push) = self.nodes[from]
                    .as_mut()
                    .and_then(|n| n.hub.poll_push(out, now))
                {
                    busy = true;
                    self.node(to).hub.handle_push(into, push, now);
                }
                if let Some(reply) = self.nodes[to]
                    .as_mut()
                    .and_then(|n| n.hub.poll_reply(into, now))
                {
                    busy = true;
                    self.node(from).hub.handle_reply(out, reply, now);
                }
            }
            if !busy {
                return;
            }
        }
        panic!("they never fall silent");
    }
    fn until(&mut self, done: impl Fn(&Cluster) -> bool) {
        for _ in 0..2_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        let said: Vec<_> = self.nodes.iter().flatten().map(|n| &n.said).collect();
        panic!("not in time: {said:#?}");
    }
    fn stop(&mut self, index: usize) {
        let now = self.now;
        self.node(index).hub.stop(now);
        self.until(|c| c.nodes[index].as_ref().unwrap().hub.is_stopped());
        self.kill(index);
    }
    fn kill(&mut self, index: usize) {
        self.nodes[index] = None;
        self.cut(|l| l.0 == index || l.2 == index, Some(index));
    }
    fn restart(&mut self, index: usize) {
        self.stop(index);
        self.start(index);
        self.until(|c| c.nodes[index].as_ref().unwrap().ready);
    }
    fn own(&mut self, index: usize) -> Lineage {
        self.node(index).lineages.own()
    }
}

#[test]
fn a_thousand_restarts_leave_nothing_behind() {
    let mut cluster = Cluster::new(3, None, true);
    let mut total = 0;
    let mut memory = 0;
    for round in 0..1_000 {
        let victim = round % 3;
        for node in 0..3 {
            cluster.count(node, 7);
            total += 1;
        }
        let before = cluster.own(victim);
        cluster.restart(victim);
        assert_eq!(cluster.own(victim), before, "round {round}");
        // At once, not only after a while.
        assert_eq!(
            cluster.value(victim, 7, D::Gpc0),
            Some(total),
            "round {round}"
        );
        cluster.count(victim, 7);
        total += 1;
        for _ in 0..10 {
            cluster.step();
        }
        for node in 0..3 {
            assert_eq!(
                cluster.value(node, 7, D::Gpc0),
                Some(total),
                "round {round}, node {node}"
            );
            assert_eq!(cluster.value(node, 7, D::ConnCur), Some(0));
            assert_eq!(cluster.cells(node, 7), 3, "round {round}, node {node}");
        }
        if round == 20 {
            memory = cluster.node(0).stores.0.memory_bytes();
        }
    }
    let now = cluster.node(0).stores.0.memory_bytes();
    assert!(
        now <= memory + memory / 4,
        "{memory} bytes after 20 rounds, {now} after 1,000"
    );
    for node in 0..3 {
        assert_eq!(cluster.node(node).lineages.refused(), 0);
    }
}

/// Where nobody continues lineages (here: as if there were two sections), dead ones go with entries that expire.
#[test]
fn cells_of_the_dead_expire_with_their_entries() {
    let mut cluster = Cluster::new(2, Some(1_000), false);
    for round in 0..1_200 {
        let victim = round % 2;
        cluster.count(victim, i64::from(round as u32));
        cluster.restart(victim);
        for _ in 0..10 {
            cluster.step();
        }
    }
    for node in 0..2 {
        let of = cluster.node(node);
        assert_eq!(of.lineages.refused(), 0);
        assert!(of.stores.0.memory_bytes() < 1 << 20);
    }
}

/// A lineage that a node was killed under is not continued; nor is one whose heir is gone.
#[test]
fn the_dead_are_not_succeeded() {
    let mut cluster = Cluster::new(3, None, true);
    cluster.count(0, 7);
    for _ in 0..10 {
        cluster.step();
    }
    let before = cluster.own(0);
    cluster.kill(0);
    cluster.start(0);
    cluster.until(|c| c.nodes[0].as_ref().unwrap().ready);
    assert_ne!(cluster.own(0), before);
    let before = cluster.own(1);
    cluster.count(1, 7);
    cluster.stop(1);
    // One of the two has it; who goes as well takes it along.
    cluster.stop(0);
    cluster.stop(2);
    cluster.start(0);
    cluster.start(1);
    cluster.until(|c| [0, 1].iter().all(|n| c.nodes[*n].as_ref().unwrap().ready));
    assert_ne!(cluster.own(1), before);
    assert_eq!(cluster.value(1, 7, D::Gpc0), None, "all were gone");
}

/// Each lineage is given to one newcomer only, of whatever name.
#[test]
fn one_lineage_one_successor() {
    let mut cluster = Cluster::new(4, None, true);
    for node in 0..4 {
        cluster.count(node, 7);
    }
    for _ in 0..10 {
        cluster.step();
    }
    let mut owned: Vec<Lineage> = (0..4).map(|n| cluster.own(n)).collect();
    cluster.stop(0);
    cluster.stop(1);
    cluster.start(1);
    cluster.start(0);
    cluster.until(|c| c.nodes.iter().flatten().all(|n| n.ready));
    for node in 0..4 {
        cluster.count(node, 7);
    }
    for _ in 0..100 {
        cluster.step();
    }
    let mut now: Vec<Lineage> = (0..4).map(|n| cluster.own(n)).collect();
    for node in 0..4 {
        assert_eq!(cluster.value(node, 7, D::Gpc0), Some(8));
    }
    owned.sort_unstable();
    now.sort_unstable();
    now.dedup();
    assert_eq!(now.len(), 4, "nobody shares one");
}
