//! How far a peer is behind: as long as what it lacks is old, whatever the state of its session.

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
}

/// Entries that node 1 lacks of node 0, and for how many milliseconds.
fn lag(cluster: &mut Cluster) -> (u64, u64) {
    let now = cluster.now;
    let report = cluster.node(0).hub.report(now);
    let peer = report.peers.first().unwrap();
    (peer.lag_entries, peer.lag_ms)
}

/// With a session or without.
#[test]
fn a_peer_is_as_far_behind_as_what_it_lacks_is_old() {
    let mut cluster = Cluster::new(2, None, true);
    let steps = |cluster: &mut Cluster, n: u32| (0..n).for_each(|_| cluster.step());
    let is_old = |lag: (u64, u64), entries: u64, age: u64| {
        assert_eq!(lag.0, entries);
        assert!((age - 40..=age).contains(&lag.1), "{lag:?}, not {age}");
    };
    cluster.count(0, 1);
    steps(&mut cluster, 100);
    assert_eq!(lag(&mut cluster), (0, 0));

    // There is a session, and nothing is heard on it.
    let begun = cluster.now;
    cluster.count(0, 2);
    for key in 3..100 {
        cluster.now += 10;
        let now = cluster.now;
        cluster.count(0, key);
        cluster.node(0).hub.tick(now, 1_800_000_000_000 + now);
    }
    let age = cluster.now - begun;
    is_old(lag(&mut cluster), 98, age);
    // Acknowledgements are held back for a quarter of a second.
    steps(&mut cluster, 40);
    assert_eq!(lag(&mut cluster), (0, 0));

    // There is none, for longer than anybody waits for it.
    cluster.kill(1);
    steps(&mut cluster, 100);
    assert_eq!(lag(&mut cluster), (0, 0), "it lacks nothing");
    let begun = cluster.now;
    cluster.count(0, 2);
    steps(&mut cluster, 1_000);
    cluster.count(0, 3);
    steps(&mut cluster, 10);
    let age = cluster.now - begun;
    is_old(lag(&mut cluster), 2, age);
    cluster.start(1);
    cluster.until(|c| c.nodes[1].as_ref().unwrap().ready);
    // Acknowledgements are held back for a quarter of a second.
    steps(&mut cluster, 40);
    assert_eq!(lag(&mut cluster), (0, 0));

    // Who ended in good order will be taught when it is back.
    cluster.stop(1);
    cluster.count(0, 4);
    steps(&mut cluster, 100);
    assert_eq!(lag(&mut cluster), (0, 0));

    // Nobody has been met.
    cluster.kill(0);
    cluster.start(0);
    cluster.until(|c| c.nodes[0].as_ref().unwrap().ready);
    let begun = cluster.now;
    cluster.count(0, 1);
    steps(&mut cluster, 100);
    let age = cluster.now - begun;
    is_old(lag(&mut cluster), 1, age);
}
