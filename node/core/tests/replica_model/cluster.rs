//! A naive cluster: nodes that push their journals to each other over ordered links which delay, break and heal.
//! It does what sessions must do, in the simplest way, so that the rules of merging can be judged alone.

use super::Dice;
use super::node::{KeyNumber, ModelNode};
use super::op::Op;
use super::row::{Applied, Row};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the cluster asks of a node: the model, or a real table behind the codec.
pub trait Node: 'static {
    type Batch: Clone + std::fmt::Debug;
    fn act(&mut self, op: Op, now: i64, wall: u64);
    fn collect(&mut self, now: i64);
    fn newest(&self) -> u64;
    /// Rows; the number to go on from, and whether nothing up to it is missing.
    fn read_journal(&mut self, after: u64, now: i64) -> (Self::Batch, u64, bool);
    fn read_keys(&mut self, keys: &BTreeSet<KeyNumber>, now: i64) -> Self::Batch;
    fn read_lineage(&mut self, lineage: u64, after: u64, now: i64) -> Self::Batch;
    fn read_all(&mut self, now: i64) -> Self::Batch;
    /// The greatest version of a cell of that lineage that was ever met.
    fn highest(&self, lineage: u64) -> u64;
    /// `sent`: when the batch was read.
    fn apply(&mut self, batch: &Self::Batch, from: u64, sent: i64, acked: u64, now: i64)
    -> Applied;
    fn set_alive(&mut self, lineage: u64, alive: bool);
    fn set_acked_by_all(&mut self, number: u64, now: i64);
    fn read(&self, key: KeyNumber, now: i64) -> Option<Vec<u64>>;
    fn maintain(&mut self, now: i64);
    fn set_budget(&mut self, rows: usize);
}

impl Node for ModelNode {
    type Batch = Vec<Row>;
    fn act(&mut self, op: Op, now: i64, wall: u64) {
        ModelNode::act(self, op, now, wall);
    }
    fn collect(&mut self, now: i64) {
        ModelNode::collect(self, now);
    }
    fn newest(&self) -> u64 {
        self.newest
    }
    fn read_journal(&mut self, after: u64, now: i64) -> (Vec<Row>, u64, bool) {
        ModelNode::read_journal(self, after, now)
    }
    fn read_keys(&mut self, keys: &BTreeSet<KeyNumber>, now: i64) -> Vec<Row> {
        keys.iter()
            .flat_map(|key| self.read_key(*key, now))
            .collect()
    }
    fn read_lineage(&mut self, lineage: u64, after: u64, now: i64) -> Vec<Row> {
        ModelNode::read_lineage(self, lineage, after, now)
    }
    fn read_all(&mut self, now: i64) -> Vec<Row> {
        let keys = self.entries.keys().copied().collect();
        self.read_keys(&keys, now)
    }
    fn highest(&self, lineage: u64) -> u64 {
        self.highest.get(&lineage).copied().unwrap_or(0)
    }
    fn apply(&mut self, batch: &Vec<Row>, _: u64, _: i64, acked: u64, now: i64) -> Applied {
        let mut applied = Applied::default();
        for row in batch {
            ModelNode::apply(self, row, acked, now, &mut applied);
        }
        applied
    }
    fn set_alive(&mut self, lineage: u64, alive: bool) {
        if alive {
            self.alive.insert(lineage);
        } else {
            self.alive.remove(&lineage);
        }
    }
    fn set_acked_by_all(&mut self, number: u64, now: i64) {
        self.note_acked(number, now);
    }
    fn read(&self, key: KeyNumber, now: i64) -> Option<Vec<u64>> {
        ModelNode::read(self, key, now)
    }
    fn maintain(&mut self, now: i64) {
        self.settle(now);
    }
    fn set_budget(&mut self, rows: usize) {
        self.budget = rows;
    }
}

/// The true wall clock minus the monotonic one.
pub const WALL: i64 = 1_000_000_000_000;
/// A session that is not heard of for that long is over. Below the grace of expired entries.
const DELAY_MAX: i64 = 2500;

/// `REMORA_TRACE` shows what happens, for a history that fails.
fn tracing() -> bool {
    std::env::var_os("REMORA_TRACE").is_some()
}

enum Message<B> {
    /// Up to a number; whether nothing up to it is missing.
    Journal(B, u64, bool, i64),
    Answer(B, BTreeSet<KeyNumber>, i64),
    /// A lineage's cells: the highest one met, and up to where they are complete.
    Lineage(B, u64, u64, u64, i64),
}
enum Reply {
    Ack(u64),
    Offered(BTreeSet<KeyNumber>),
    Want(BTreeSet<KeyNumber>),
}

/// One direction between two nodes.
struct Link<B> {
    up: bool,
    sent: u64,
    acked: u64,
    /// Keys to be offered, until acked.
    offers: BTreeSet<KeyNumber>,
    /// Keys that the receiver asked for and has not got.
    wanted: BTreeSet<KeyNumber>,
    /// Up to which version the receiver was told all about a dead lineage.
    taught: BTreeMap<u64, u64>,
    pushes: VecDeque<Message<B>>,
    replies: VecDeque<Reply>,
}

impl<B> Link<B> {
    fn new(after: u64) -> Link<B> {
        Link {
            up: true,
            sent: after,
            acked: after,
            offers: BTreeSet::new(),
            wanted: BTreeSet::new(),
            taught: BTreeMap::new(),
            pushes: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }
}

pub struct Member<N> {
    pub node: N,
    pub lineage: u64,
    /// Wall clock ahead of the true one, in ms.
    pub skew: i64,
    /// Up to where nothing is missing of each lineage.
    known: BTreeMap<u64, u64>,
}

pub struct Cluster<N: Node> {
    pub now: i64,
    pub members: BTreeMap<u64, Member<N>>,
    links: BTreeMap<(u64, u64), Link<N::Batch>>,
    dead: BTreeSet<u64>,
    /// Nodes whose tables are too small: they may not know a key, but what they know is right.
    pub small: BTreeSet<u64>,
    make: Box<dyn Fn(u64) -> N>,
    next_lineage: u64,
}

impl<N: Node> Cluster<N> {
    pub fn new(now: i64, count: u64, make: impl Fn(u64) -> N + 'static) -> Cluster<N> {
        let mut cluster = Cluster {
            now,
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            dead: BTreeSet::new(),
            small: BTreeSet::new(),
            make: Box::new(make),
            next_lineage: 1,
        };
        for _ in 0..count {
            cluster.join();
        }
        cluster
    }
    pub fn lineages(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }
    /// A newcomer, taught by the first member it can ask.
    pub fn join(&mut self) -> u64 {
        let lineage = self.next_lineage;
        self.next_lineage += 1;
        let mut node = (self.make)(lineage);
        for peer in self.members.values_mut() {
            peer.node.set_alive(lineage, true);
            node.set_alive(peer.lineage, true);
        }
        let mut known = BTreeMap::new();
        let now = self.now;
        if let Some(teacher) = self.members.values_mut().next() {
            teacher.node.collect(now);
            known = teacher.known.clone();
            known.insert(teacher.lineage, teacher.node.newest());
            let taught = teacher.node.read_all(now);
            node.apply(&taught, teacher.lineage, now, 0, now);
        }
        for peer in self.members.keys() {
            let after = known.get(peer).copied().unwrap_or(0);
            self.links.insert((*peer, lineage), Link::new(after));
            self.links.insert((lineage, *peer), Link::new(0));
        }
        let member = Member {
            node,
            lineage,
            skew: 0,
            known,
        };
        self.members.insert(lineage, member);
        lineage
    }
    pub fn act(&mut self, lineage: u64, op: Op) {
        let now = self.now;
        if tracing() {
            eprintln!("{now} {lineage}: {op:?}");
        }
        let member = self.members.get_mut(&lineage).unwrap();
        member.node.act(op, now, (now + WALL + member.skew) as u64);
    }
    pub fn cut(&mut self, a: u64, b: u64) {
        if tracing() {
            eprintln!("{} cut {a} {b}", self.now);
        }
        for pair in [(a, b), (b, a)] {
            let link = self.links.get_mut(&pair).unwrap();
            link.up = false;
            link.pushes.clear();
            link.replies.clear();
            link.sent = link.acked;
        }
    }
    pub fn heal(&mut self, a: u64, b: u64) {
        if tracing() {
            eprintln!("{} heal {a} {b}", self.now);
        }
        for pair in [(a, b), (b, a)] {
            let link = self.links.get_mut(&pair).unwrap();
            if !link.up && !link.wanted.is_empty() {
                link.replies.push_back(Reply::Want(link.wanted.clone()));
            }
            link.up = true;
        }
    }
    /// Links on which something has been under way for longer than sessions live break.
    pub fn pass_time(&mut self, ms: i64) {
        self.now += ms;
        let stuck = |link: &Link<N::Batch>| {
            let oldest = link.pushes.front().map(|push| match push {
                Message::Journal(.., sent)
                | Message::Answer(.., sent)
                | Message::Lineage(.., sent) => *sent,
            });
            oldest.is_some_and(|sent| self.now - sent >= DELAY_MAX)
        };
        let links = self.links.iter().filter(|(_, link)| stuck(link));
        for (a, b) in links.map(|(pair, _)| *pair).collect::<Vec<_>>() {
            self.cut(a, b);
            self.heal(a, b);
        }
        for member in self.members.values_mut() {
            member.node.maintain(self.now);
        }
    }
    /// Killed; what it had sent may still arrive.
    pub fn kill(&mut self, lineage: u64, dice: &mut Dice) {
        for peer in self.lineages() {
            if peer != lineage {
                for _ in 0..dice.roll(4) {
                    self.deliver(lineage, peer);
                }
                self.cut(lineage, peer);
            }
        }
        if tracing() {
            eprintln!("{} {lineage} is dead", self.now);
        }
        for peer in self.lineages() {
            // What it was asked for, the others are asked for.
            let wanted = match self.links.get(&(lineage, peer)) {
                Some(link) if !link.wanted.is_empty() => link.wanted.clone(),
                _ => continue,
            };
            let links = self.links.iter_mut();
            for (_, link) in links.filter(|(pair, _)| pair.1 == peer && pair.0 != lineage) {
                link.wanted.extend(&wanted);
                if link.up {
                    link.replies.push_back(Reply::Want(wanted.clone()));
                }
            }
        }
        self.members.remove(&lineage);
        self.links
            .retain(|(a, b), _| *a != lineage && *b != lineage);
        self.dead.insert(lineage);
        for peer in self.members.values_mut() {
            peer.node.set_alive(lineage, false);
        }
    }

    /// Pushes what a node has for another.
    pub fn push(&mut self, from: u64, to: u64) {
        let link = self.links.get_mut(&(from, to)).unwrap();
        if !link.up {
            return;
        }
        let now = self.now;
        let node = &mut self.members.get_mut(&from).unwrap().node;
        if !link.offers.is_empty() {
            let batch = node.read_keys(&link.offers, now);
            link.pushes
                .push_back(Message::Answer(batch, link.offers.clone(), now));
        }
        if link.sent < node.newest() {
            let (batch, upto, whole) = node.read_journal(link.sent, now);
            assert!(upto > link.sent);
            link.sent = upto;
            link.pushes
                .push_back(Message::Journal(batch, upto, whole, now));
        }
    }
    /// Delivers the oldest push of a link; returns whether there was one.
    pub fn deliver(&mut self, from: u64, to: u64) -> bool {
        let acked = self.links[&(to, from)].acked;
        let link = self.links.get_mut(&(from, to)).unwrap();
        let Some(message) = link.pushes.pop_front() else {
            return false;
        };
        let now = self.now;
        let member = self.members.get_mut(&to).unwrap();
        let (batch, sent) = match &message {
            Message::Journal(batch, _, _, sent)
            | Message::Answer(batch, _, sent)
            | Message::Lineage(batch, _, _, _, sent) => (batch, *sent),
        };
        let mut applied = member.node.apply(batch, from, sent, acked, now);
        // Answers never lead to such questions, or two small tables could keep each other busy.
        if !matches!(message, Message::Answer(..)) {
            applied.wants_of_all.append(&mut applied.unsure);
        }
        if tracing() {
            let kind = match &message {
                Message::Journal(_, upto, ..) => format!("journal to {upto}"),
                Message::Answer(_, keys, _) => format!("answer {keys:?}"),
                Message::Lineage(_, lineage, ..) => format!("gap of {lineage}"),
            };
            eprintln!("{now} {from} -> {to}: {kind}, acked {acked}: {applied:?}\n   {batch:?}");
        }
        match message {
            Message::Journal(_, upto, whole, _) => {
                if whole {
                    member.known.insert(from, upto);
                }
                link.replies.push_back(Reply::Ack(upto));
            }
            Message::Answer(_, keys, _) => {
                link.wanted.retain(|key| !keys.contains(key));
                link.replies.push_back(Reply::Offered(keys));
            }
            Message::Lineage(_, lineage, highest, complete, _) => {
                let known = member.known.entry(lineage).or_default();
                *known = complete.max(*known);
                link.taught.insert(lineage, highest);
            }
        }
        if !applied.wants.is_empty() {
            link.wanted.extend(&applied.wants);
            link.replies.push_back(Reply::Want(applied.wants));
        }
        for (pair, link) in &mut self.links {
            if pair.1 == to && !applied.wants_of_all.is_empty() {
                link.wanted.extend(&applied.wants_of_all);
                if link.up {
                    let keys = applied.wants_of_all.clone();
                    link.replies.push_back(Reply::Want(keys));
                }
            }
        }
        let back = self.links.get_mut(&(to, from)).unwrap();
        back.offers.extend(applied.offers);
        true
    }
    /// Delivers the oldest reply on a link to its pusher.
    pub fn reply(&mut self, from: u64, to: u64) -> bool {
        let now = self.now;
        let link = self.links.get_mut(&(from, to)).unwrap();
        match link.replies.pop_front() {
            None => return false,
            Some(Reply::Ack(upto)) => {
                link.acked = upto;
                self.note_acks(from);
            }
            Some(Reply::Offered(keys)) => link.offers.retain(|key| !keys.contains(key)),
            Some(Reply::Want(keys)) => {
                let batch = self
                    .members
                    .get_mut(&from)
                    .unwrap()
                    .node
                    .read_keys(&keys, now);
                link.pushes.push_back(Message::Answer(batch, keys, now));
            }
        }
        true
    }
    fn note_acks(&mut self, from: u64) {
        let links = self.links.iter().filter(|((a, _), _)| *a == from);
        let least = links.map(|(_, link)| link.acked).min().unwrap_or(u64::MAX);
        self.members
            .get_mut(&from)
            .unwrap()
            .node
            .set_acked_by_all(least, self.now);
    }
    /// Survivors tell each other what one has seen of the dead and the other has not.
    fn fill_gaps(&mut self) {
        let now = self.now;
        let dead: Vec<_> = self.dead.iter().copied().collect();
        for (from, to) in self.links.keys().copied().collect::<Vec<_>>() {
            for lineage in &dead {
                let seen = self.members[&from].node.highest(*lineage);
                let known = self.members[&to].known.get(lineage).copied().unwrap_or(0);
                let complete = self.members[&from].known.get(lineage).copied();
                let link = self.links.get_mut(&(from, to)).unwrap();
                let taught = link.taught.get(lineage).copied().unwrap_or(0);
                if link.up && seen > known.max(taught) {
                    let node = &mut self.members.get_mut(&from).unwrap().node;
                    let batch = node.read_lineage(*lineage, known, now);
                    link.pushes.push_back(Message::Lineage(
                        batch,
                        *lineage,
                        seen,
                        complete.unwrap_or(0),
                        now,
                    ));
                }
            }
        }
    }
    /// One random step of the network.
    pub fn step(&mut self, dice: &mut Dice) {
        let pairs: Vec<_> = self.links.keys().copied().collect();
        if pairs.is_empty() {
            return;
        }
        let (from, to) = *dice.pick(&pairs);
        match dice.roll(10) {
            0..2 => self.members.get_mut(&from).unwrap().node.collect(self.now),
            2..5 => self.push(from, to),
            5..8 => drop(self.deliver(from, to)),
            _ => drop(self.reply(from, to)),
        }
    }
    /// Everything heals and arrives, at one moment.
    pub fn settle(&mut self, dice: &mut Dice) -> Result<(), String> {
        let mut pairs: Vec<_> = self.links.keys().copied().collect();
        for (from, to) in &pairs {
            self.heal(*from, *to);
        }
        for round in 0..40 {
            for member in self.members.values_mut() {
                member.node.collect(self.now);
            }
            self.fill_gaps();
            for i in (1..pairs.len()).rev() {
                pairs.swap(i, dice.roll(i as u64 + 1) as usize);
            }
            let mut quiet = true;
            for (from, to) in &pairs {
                self.push(*from, *to);
                while self.deliver(*from, *to) {
                    quiet = false;
                }
                while self.reply(*from, *to) {
                    quiet = false;
                }
            }
            if quiet && round > 1 {
                return Ok(());
            }
        }
        Err("the cluster does not come to rest".into())
    }
    /// Whether a key has expired for some only, and is the same for those who still see it.
    pub fn differs_in_expiry(&self, key: KeyNumber) -> bool {
        let reads = self.members.values().map(|m| m.node.read(key, self.now));
        let mut reads: Vec<_> = reads.collect();
        let all = reads.len();
        reads.retain(Option::is_some);
        let seen = reads.len();
        reads.dedup();
        seen < all && reads.len() == 1
    }
    /// What all nodes read of a key, if they agree.
    pub fn agreed(&self, key: KeyNumber) -> Result<Option<Vec<u64>>, String> {
        let reads: Vec<_> = self
            .members
            .values()
            .map(|m| (m.lineage, m.node.read(key, self.now)))
            .filter(|(lineage, read)| read.is_some() || !self.small.contains(lineage))
            .collect();
        if reads.iter().any(|r| r.1 != reads[0].1) {
            return Err(format!(
                "key {key} at {}: nodes disagree: {reads:?}",
                self.now
            ));
        }
        Ok(reads.into_iter().next().and_then(|r| r.1))
    }
}
