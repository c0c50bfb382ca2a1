//! The journal of a replicated table, and its sums, under many readers and many threads.

mod table_common;

use remora_core::peers::batch::{BatchReader, BatchWriter, Budget, Columns};
use remora_core::table::{Cursor, DataType as D, Lineage, Lineages, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use table_common::{Steps, number, spec};

const STORE: &str = "conn_cnt,conn_cur,http_req_cnt,http_req_rate(10s),gpc(2)";

fn replicated(lineage: u64, size: usize) -> (Table, Arc<Lineages>) {
    let lineages = Arc::new(Lineages::new(Lineage(lineage)));
    let build = spec("integer").size(size).store(STORE);
    let table = Table::new_replicated(build.spec(), 0x5eed, lineages.clone());
    (table, lineages)
}

fn budget(rows: usize) -> Budget {
    Budget {
        rows,
        bytes: 64 << 10,
    }
}

/// A peer that only remembers what it was told: key -> (version, requests).
#[derive(Default)]
struct Peer {
    after: u64,
    known: BTreeMap<u32, (u64, u64)>,
}

impl Peer {
    /// One batch; returns whether the end of the journal was reached.
    fn read(&mut self, table: &Table, rows: usize, now: u64) -> bool {
        let replica = table.replica().unwrap();
        let mut out = BatchWriter::new(replica.columns().to_vec());
        let read = replica.read_journal(self.after, budget(rows), now, &mut out);
        assert!(read.upto >= self.after && (read.whole || read.upto > self.after));
        self.after = read.upto;
        let batch = out.finish();
        let mut reader = BatchReader::new(&batch, replica.columns()).unwrap();
        let requests = replica
            .columns()
            .iter()
            .position(|column| column.data_type == D::HttpReqCnt)
            .unwrap();
        while let Some((key, head, _)) = reader.next_row() {
            let key = u32::from_be_bytes(key.try_into().unwrap());
            for _ in 0..requests {
                reader.skip();
            }
            let count = reader.counter();
            let known = self.known.entry(key).or_default();
            assert!(
                head.version != known.0 || count == known.1,
                "one number, two contents"
            );
            *known = (*known).max((head.version, count));
        }
        read.whole
    }
}

/// Whoever reads the journal, from wherever, in whatever portions, and starts again from any position that it has
/// acknowledged, ends with everything.
#[test]
fn no_reader_misses_anything() {
    for (seed, size) in [(1, 1_000), (2, 1_000), (3, 20_000), (4, 20_000)] {
        let mut steps = Steps(seed);
        let (table, _) = replicated(1, size);
        let replica = table.replica().unwrap();
        let mut truth: BTreeMap<u32, u64> = BTreeMap::new();
        let mut peers: Vec<Peer> = (0..4).map(|_| Peer::default()).collect();
        let mut acked: Vec<u64> = vec![0; peers.len()];
        let keys = if size > 4_096 { 3_000 } else { 100 };
        for step in 0..8_000 {
            let now = 1_000 + step;
            match steps.next(10) {
                0..7 => {
                    // Some keys are much hotter than others.
                    let below = if steps.next(2) == 0 { 5 } else { keys };
                    let key = steps.next(below) as u32;
                    *truth.entry(key).or_default() += 1;
                    table
                        .upsert(&number(key), now, |mut e| e.inc(D::HttpReqCnt, 0, 1, now))
                        .unwrap();
                }
                7 => drop(replica.collect(now, 1 + steps.next(50) as usize)),
                8 => {
                    let which = steps.next(4) as usize;
                    // The last one never reads while others do.
                    if which < 3 {
                        let rows = 1 + steps.next(40) as usize;
                        peers[which].read(&table, rows, now);
                        if steps.next(3) == 0 {
                            acked[which] = peers[which].after;
                        }
                    }
                }
                _ => {
                    // A new session goes on from what was acknowledged.
                    let which = steps.next(3) as usize;
                    if steps.next(20) == 0 {
                        peers[which].after = acked[which];
                    }
                }
            }
        }
        let now = 100_000;
        while replica.collect(now, 1_000).more {}
        for peer in &mut peers {
            while !peer.read(&table, 17, now) {}
            let known: BTreeMap<u32, u64> = peer.known.iter().map(|(k, v)| (*k, v.1)).collect();
            assert!(known == truth, "seed {seed}");
            assert_eq!(replica.lag(peer.after), 0);
        }
    }
}

/// A key that changes all the time costs one place in the journal, not one per change.
#[test]
fn a_hot_key_does_not_grow_the_journal() {
    let touches: u64 = if cfg!(debug_assertions) {
        2_000_000
    } else {
        10_000_000
    };
    let (table, _) = replicated(1, 1_000);
    let replica = table.replica().unwrap();
    for key in 0..100 {
        table.upsert(&number(key), 0, |_| ()).unwrap();
    }
    replica.collect(0, 1_000);
    let hot = table.track(&number(7), 0).unwrap();
    let (mut lag, mut bytes) = (0, 0);
    for i in 0..touches {
        let now = i / 1_000;
        table.write(hot, |mut e| e.inc(D::HttpReqCnt, 0, 1, now));
        if i % 20 == 0 {
            replica.collect(now, 1_000);
            lag = lag.max(replica.lag(0));
        }
        if i == touches / 10 {
            bytes = table.memory_bytes();
        }
    }
    assert!(lag <= 100 + 1 + 2_048, "{lag} places for 100 keys");
    assert!(table.memory_bytes() <= bytes + 4_096);
    let mut peer = Peer::default();
    while !peer.read(&table, 10, touches) {}
    assert_eq!(peer.known[&7].1, touches);
    assert_eq!(peer.known.len(), 100);
}

/// Entries that come and go leave nothing behind: neither in the journal nor among cells and lists.
#[test]
fn churn_leaves_nothing_behind() {
    let (table, _) = replicated(1, 500);
    let (other, _) = replicated(2, 500);
    let mut bytes = (0, 0);
    for round in 0..200_u64 {
        let now = round * 20;
        for i in 0..500 {
            let key = number((round * 500 + i) as u32);
            table
                .upsert(&key, now, |mut e| e.inc(D::HttpReqCnt, 0, 1, now))
                .unwrap();
        }
        exchange(&table, &other, &AtomicU64::new(0), now);
        if round == 20 {
            bytes = (table.memory_bytes(), other.memory_bytes());
        }
    }
    assert!(table.memory_bytes() <= bytes.0 + 4_096);
    assert!(other.memory_bytes() <= bytes.1 + 4_096);
    assert!(table.replica().unwrap().lag(0) <= 500 + 500 + 1_024);
    assert_eq!((table.used(4_000), other.used(4_000)), (500, 500));
}

/// Pushes what one table has after a position to another, and moves the position. What the receiver wants to know more
/// about is told it.
fn exchange(from: &Table, to: &Table, after: &AtomicU64, now: u64) {
    let (source, target) = (from.replica().unwrap(), to.replica().unwrap());
    while source.collect(now, 500).more {}
    let bound = source.newest();
    let mut out = BatchWriter::new(source.columns().to_vec());
    let apply = |batch: &Columns| {
        let reader = BatchReader::new(batch, source.columns()).unwrap();
        let lineage = source.lineages().own();
        target.apply(&reader, lineage, 0, 0, now).unwrap()
    };
    while after.load(SeqCst) < bound {
        let read = source.read_journal(after.load(SeqCst), budget(200), now, &mut out);
        let applied = apply(&out.finish());
        out.clear();
        if !applied.wants.is_empty() {
            source.read_keys(&applied.wants, now, &mut out);
            apply(&out.finish());
            out.clear();
        }
        after.store(read.upto, SeqCst);
    }
}

/// Threads count on both tables while others collect, exchange and read: in the end both read the sum.
#[test]
fn threads_lose_nothing() {
    for size in [1_000_usize, 50_000] {
        let keys = size as u64 / 2;
        let rounds = 15_000_u64;
        let tables: Vec<_> = [1, 2].map(|l| replicated(l, size)).into();
        for (one, other) in [(0, 1_u64), (1, 0)] {
            let lineages = &tables[one].1;
            let index = lineages.index(Lineage(other + 1)).unwrap();
            lineages.set_alive(index, true);
        }
        let after = [AtomicU64::new(0), AtomicU64::new(0)];
        let working = AtomicUsize::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (tables, working) = (&tables, &working);
                scope.spawn(move || {
                    let table = &tables[thread as usize % 2].0;
                    let mut steps = Steps(thread + 1);
                    let mut held = Vec::new();
                    for i in 0..rounds {
                        let now = 1_000 + i / 10;
                        let hot = steps.next(2) == 0;
                        let key = number(steps.next(if hot { 10 } else { keys }) as u32);
                        match steps.next(3) {
                            0 => {
                                let at = table.track(&key, now).unwrap();
                                table.write(at, |mut e| e.inc(D::Gpc, 1, 1, now));
                                held.push(at);
                            }
                            _ => {
                                table
                                    .upsert(&key, now, |mut e| {
                                        e.inc(D::HttpReqCnt, 0, 1, now);
                                        e.inc(D::Gpc, 1, 1, now);
                                    })
                                    .unwrap();
                            }
                        }
                        if held.len() > 10 {
                            table.untrack(held.swap_remove(steps.next(10) as usize), now);
                        }
                    }
                    held.into_iter().for_each(|at| table.untrack(at, 3_000));
                    working.fetch_sub(1, SeqCst);
                });
            }
            for (from, to) in [(0, 1), (1, 0)] {
                let (tables, after, working) = (&tables, &after[from], &working);
                scope.spawn(move || {
                    let mut now = 1_000;
                    while working.load(SeqCst) > 0 {
                        exchange(&tables[from].0, &tables[to].0, after, now);
                        // A reader of sums never sees more than there can be.
                        tables[to].0.peek(&number(3), now, |e| {
                            assert!(e.get(D::Gpc, 1, now).unwrap() <= 4 * rounds);
                        });
                        now += 1;
                    }
                });
            }
        });
        for _ in 0..2 {
            exchange(&tables[0].0, &tables[1].0, &after[0], 3_000);
            exchange(&tables[1].0, &tables[0].0, &after[1], 3_000);
        }
        let mut dumps = Vec::new();
        for (table, _) in &tables {
            let mut dump = BTreeMap::new();
            let mut cursor = Cursor::default();
            let what = [D::ConnCnt, D::HttpReqCnt, D::ConnCur];
            while !table.dump(&mut cursor, 3_000, 1_000, |e| {
                let values = what.map(|what| e.get(what, 0, 3_000).unwrap());
                dump.insert(e.key().to_vec(), (values, e.get(D::Gpc, 1, 3_000)));
            }) {}
            let events: u64 = dump.values().map(|(v, _)| v[0] + v[1]).sum();
            let tagged: u64 = dump.values().map(|(_, gpc)| gpc.unwrap()).sum();
            assert_eq!((events, tagged), (4 * rounds, 4 * rounds), "size {size}");
            assert!(dump.values().all(|(v, _)| v[2] == 0), "nobody is left");
            dumps.push(dump);
        }
        assert!(dumps[0] == dumps[1]);
    }
}
