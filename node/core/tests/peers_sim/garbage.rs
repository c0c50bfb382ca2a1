//! Peers that talk nonsense: nothing panics, nothing of it is merged, and the session ends with a reason.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use remora_core::peers::batch::{BatchWriter, ColumnDef, Columns, RowFlags, RowHead, columns_of};
use remora_core::peers::limits::{
    KEPT_KEYS_MAX, KEY_BYTES, WANT_KEYS, WANTED_BYTES_MAX, WANTS_OPEN, WINDOW_MAX,
};
use remora_core::peers::messages::{
    Batch, BatchKind, Estate, Held, Hello, Push, Reply, TableAnswer, TableDef, VERSION, Welcome,
};
use remora_core::peers::{Action, Ended, Hub, HubConfig, SessionId};
use remora_core::table::{
    DataType, Key, KeyType, Lineage, Lineages, Stored, Table, TableId, TableSpec,
};

use crate::rng::Rng;
use crate::stores::{Mutant, SimStores, SimTable};
use crate::world::keys;

struct Victim {
    hub: Hub,
    stores: Arc<SimStores>,
    now: u64,
    closed: Vec<(SessionId, Ended)>,
}

impl Victim {
    fn new(seed: u64) -> Victim {
        let lineages = Arc::new(Lineages::new(Lineage(1)));
        let spec = TableSpec {
            name: "t".to_owned(),
            key_type: KeyType::Integer,
            key_len: 4,
            size: 100,
            expire_ms: Some(60_000),
            nopurge: false,
            store: vec![
                Stored {
                    data_type: DataType::Gpc0,
                    elements: 1,
                    period_ms: 0,
                },
                Stored {
                    data_type: DataType::HttpReqRate,
                    elements: 1,
                    period_ms: 10_000,
                },
            ],
            brates_factor: 1,
            write_to: None,
            recv_only: false,
            srvkey_addr: false,
            peers: Some(0),
        };
        let stores = Arc::new(SimStores {
            tables: vec![SimTable {
                table: Table::new_replicated(spec, seed, lineages.clone()),
                mutant: Mutant::None,
                calls: AtomicU64::new(0),
            }],
        });
        let config = HubConfig {
            cluster: "c".into(),
            node: "victim".into(),
            lineages,
            newcomer: false,
            discovers: false,
            learn_timeout_ms: 5_000,
            sole: true,
            seed,
        };
        let hub = Hub::new(config, stores.clone(), &[TableId(0)], 1_000);
        let mut victim = Victim {
            hub,
            stores,
            now: 1_000,
            closed: Vec::new(),
        };
        let key = Key::from_stored(&7_u32.to_be_bytes());
        let now = victim.now;
        victim.stores.tables[0]
            .table
            .upsert(&key, now, |mut e| {
                e.inc(DataType::Gpc0, 0, 5, now);
            })
            .unwrap();
        victim.step(0);
        victim
    }
    fn step(&mut self, ms: u64) {
        self.now += ms;
        self.hub.tick(self.now, 1_700_000_000_000 + self.now);
        while let Some(action) = self.hub.poll_action(self.now) {
            if let Action::Close(id, why) = action {
                self.closed.push((id, why));
            }
        }
    }
    fn columns(&self) -> Vec<ColumnDef> {
        columns_of(&self.stores.tables[0].table.spec().store)
    }
    fn def(&self) -> TableDef {
        TableDef {
            name: "t".into(),
            key_type: KeyType::Integer,
            key_len: 4,
            size: 100,
            expire_ms: Some(60_000),
            columns: self.columns(),
            entries: u64::MAX,
            later: Vec::new(),
        }
    }
    fn hello(&self, rng: &mut Rng) -> Hello {
        let odd = rng.percent(20);
        Hello {
            version: if odd && rng.percent(30) { 9 } else { VERSION },
            cluster: if odd && rng.percent(30) { "x" } else { "c" }.into(),
            node: "liar".into(),
            lineage: Lineage(if odd && rng.percent(30) { 1 } else { 2 }),
            newcomer: rng.percent(30),
            mono_ms: number(rng),
            wall_ms: number(rng),
            tables: vec![self.def(); rng.below(3) as usize],
        }
    }
    fn dump(&self) -> Vec<Vec<u8>> {
        keys(&self.stores.tables[0].table, self.now)
    }
}

fn number(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::from(u32::MAX) + rng.below(3),
        3 => rng.next(),
        _ => rng.below(20),
    }
}
fn lineage(rng: &mut Rng) -> Lineage {
    Lineage(number(rng))
}
fn held(rng: &mut Rng) -> Held {
    Held {
        lineage: lineage(rng),
        known: number(rng),
        highest: number(rng),
        revision: number(rng) as u32,
    }
}
fn some_keys(rng: &mut Rng) -> Vec<Key> {
    (0..rng.below(70))
        .map(|_| {
            let bytes: Vec<u8> = (0..rng.below(9)).map(|_| rng.next() as u8).collect();
            Key::from_stored(&bytes)
        })
        .collect()
}

/// A sound batch about one key that the victim does not have, or one in which something was changed.
fn batch(rng: &mut Rng, columns: &[ColumnDef], spoil: bool) -> Columns {
    let mut writer = BatchWriter::new(columns.to_vec());
    for _ in 0..rng.between(1, 3) {
        let head = RowHead {
            flags: RowFlags::NONE
                .with_if(rng.percent(20), RowFlags::FRESH)
                .with_if(rng.percent(20), RowFlags::HOLDS_OTHERS)
                .with_if(rng.percent(20), RowFlags::HELD),
            lineage: lineage(rng),
            version: number(rng),
            touch_age_ms: number(rng) as u32,
            ..RowHead::default()
        };
        writer.row(&99_u32.to_be_bytes(), &head, &[]);
        writer.counter(number(rng));
        writer.rate(number(rng) as u32, number(rng) as u32, number(rng) as u32);
    }
    let mut columns = writer.finish();
    if spoil {
        match rng.below(6) {
            0 => columns.rows = number(rng) as u32,
            1 => columns.key_width = number(rng) as u32,
            2 => columns.keys.truncate(rng.below(4) as usize),
            3 => columns.heads.truncate(rng.below(3) as usize),
            4 => columns.lineages.clear(),
            _ => columns.values.push((number(rng) as u32, vec![0xff; 30])),
        }
    }
    columns
}

fn push(rng: &mut Rng, victim: &Victim) -> Push {
    match rng.below(8) {
        0 => Push::Hello(victim.hello(rng)),
        1..=3 => {
            let spoil = rng.percent(60);
            Push::Batch(Batch {
                table: if rng.percent(70) {
                    0
                } else {
                    number(rng) as u32
                },
                mono_ms: number(rng),
                kind: match rng.below(4) {
                    0 => BatchKind::Walk,
                    1 => BatchKind::Answer,
                    2 => BatchKind::Offer,
                    _ => BatchKind::Journal {
                        upto: number(rng),
                        whole: rng.percent(50),
                    },
                },
                columns: batch(rng, &victim.columns(), spoil),
            })
        }
        4 => Push::Taught {
            table: number(rng) as u32,
            holdings: (0..rng.below(4))
                .map(|_| (lineage(rng), number(rng)))
                .collect(),
        },
        5 => Push::Holdings {
            table: if rng.percent(70) {
                0
            } else {
                number(rng) as u32
            },
            holdings: (0..rng.below(4)).map(|_| held(rng)).collect(),
        },
        6 => Push::Heartbeat {
            mono_ms: number(rng),
            wall_ms: number(rng),
            vouched: (0..rng.below(4)).map(|_| lineage(rng)).collect(),
            over: (0..rng.below(2)).map(|_| lineage(rng)).collect(),
        },
        _ => Push::Goodbye {
            numbers: vec![(number(rng) as u32, number(rng))],
            heir: rng.percent(50),
        },
    }
}

fn reply(rng: &mut Rng) -> Reply {
    let table = if rng.percent(70) {
        0
    } else {
        number(rng) as u32
    };
    match rng.below(9) {
        0 => Reply::Welcome(Welcome {
            version: VERSION,
            cluster: "c".into(),
            node: "liar".into(),
            lineage: Lineage(number(rng)),
            newcomer: rng.percent(30),
            mono_ms: number(rng),
            wall_ms: number(rng),
            estate: rng.percent(20).then(|| Estate {
                lineage: lineage(rng),
                numbers: vec![(0, number(rng))],
            }),
            tables: vec![
                TableAnswer {
                    matched: true,
                    mismatches: Vec::new(),
                };
                rng.pick(&[0, 1, 1, 1, 2])
            ],
        }),
        1 => Reply::Start {
            table,
            after: number(rng),
        },
        2 => Reply::Teach { table },
        3 => Reply::Gap {
            table,
            after: (0..rng.below(4))
                .map(|_| (lineage(rng), number(rng)))
                .collect(),
        },
        4 => Reply::Want {
            table,
            keys: some_keys(rng),
        },
        5 => Reply::Ack {
            table,
            upto: number(rng),
        },
        6 => Reply::Heartbeat {
            mono_ms: number(rng),
            wall_ms: number(rng),
        },
        7 => Reply::Goodbye,
        _ => Reply::Refuse {
            why: remora_core::peers::messages::Refusal::Other,
            text: "no".into(),
        },
    }
}

/// Any messages in any order, on streams of both directions.
#[test]
fn nonsense_ends_sessions() {
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let mut victim = Victim::new(seed);
        let ix = victim.hub.add_peer("liar", "liar:1", false, victim.now);
        victim.step(0);
        for _ in 0..4 {
            let now = victim.now;
            let incoming = victim.hub.opened_in("liar:9".into(), now);
            let outgoing = victim.hub.opened_out(ix, now);
            if rng.percent(80) {
                let hello = Push::Hello(victim.hello(&mut rng));
                victim.hub.handle_push(incoming, hello, now);
            }
            for _ in 0..rng.between(1, 12) {
                let now = victim.now;
                let message = push(&mut rng, &victim);
                victim.hub.handle_push(incoming, message, now);
                let message = reply(&mut rng);
                victim.hub.handle_reply(outgoing, message, now);
                while victim.hub.poll_push(outgoing, now).is_some() {}
                while victim.hub.poll_reply(incoming, now).is_some() {}
                victim.step(rng.below(2_000));
            }
            let now = victim.now;
            victim.hub.closed(incoming, "gone", now);
            victim.hub.closed(outgoing, "gone", now);
            victim.step(rng.below(10_000));
        }
        victim.hub.report(victim.now);
    }
}

/// A batch with a mistake leaves no trace.
#[test]
fn nothing_of_a_bad_batch_is_merged() {
    let mut refused = 0;
    for seed in 0..2_000 {
        let mut rng = Rng::new(seed);
        let mut victim = Victim::new(seed);
        let now = victim.now;
        let id = victim.hub.opened_in("liar:9".into(), now);
        let hello = Hello {
            version: VERSION,
            cluster: "c".into(),
            node: "liar".into(),
            lineage: Lineage(2),
            newcomer: false,
            mono_ms: 5,
            wall_ms: 5,
            tables: vec![victim.def()],
        };
        victim.hub.handle_push(id, Push::Hello(hello), now);
        while victim.hub.poll_reply(id, now).is_some() {}
        let before = victim.dump();
        let columns = batch(&mut rng, &victim.columns(), true);
        let push = Push::Batch(Batch {
            table: 0,
            mono_ms: 5,
            kind: BatchKind::Journal {
                upto: 1,
                whole: true,
            },
            columns,
        });
        victim.hub.handle_push(id, push, now);
        victim.step(0);
        if let Some((_, why)) = victim.closed.first() {
            refused += 1;
            assert!(matches!(why, Ended::Batch(_)), "{why}");
            assert_eq!(victim.dump(), before, "seed {seed}");
            assert_eq!(victim.hub.poll_reply(id, now), None, "no ack");
        }
    }
    assert!(refused > 1_000, "{refused} of 2000 were refused");
}

impl Victim {
    /// A session from the liar, which has said hello and was told where to start.
    fn pushed_by_liar(&mut self) -> SessionId {
        let id = self.hub.opened_in("liar:9".into(), self.now);
        let hello = Hello {
            version: VERSION,
            cluster: "c".into(),
            node: "liar".into(),
            lineage: Lineage(2),
            newcomer: false,
            mono_ms: 5,
            wall_ms: 5,
            tables: vec![self.def()],
        };
        self.hub.handle_push(id, Push::Hello(hello), self.now);
        while self.hub.poll_reply(id, self.now).is_some() {}
        id
    }
    /// A session to the liar, which has said welcome.
    fn pushes_to_liar(&mut self) -> SessionId {
        let ix = self.hub.add_peer("liar", "liar:1", false, self.now);
        while self.hub.poll_action(self.now).is_some() {}
        let id = self.hub.opened_out(ix, self.now);
        assert!(self.hub.poll_push(id, self.now).is_some());
        let welcome = Welcome {
            version: VERSION,
            cluster: "c".into(),
            node: "liar".into(),
            lineage: Lineage(2),
            newcomer: false,
            mono_ms: 5,
            wall_ms: 5,
            tables: vec![TableAnswer {
                matched: true,
                mismatches: Vec::new(),
            }],
            estate: None,
        };
        self.hub.handle_reply(id, Reply::Welcome(welcome), self.now);
        id
    }
    /// The liar's journal goes on with rows of these keys, fresh ones from that number on.
    fn journal(&mut self, id: SessionId, keys: std::ops::Range<u32>, number: u64, first: u64) {
        let flags = RowFlags::HOLDS_OTHERS.with_if(first > 0, RowFlags::FRESH);
        let mut writer = BatchWriter::new(self.columns());
        for key in keys {
            let head = RowHead {
                flags,
                lineage: Lineage(2),
                version: number,
                first,
                ..RowHead::default()
            };
            writer.row(&key.to_be_bytes(), &head, &[]);
            writer.counter(3);
            writer.rate_idle();
        }
        let kind = BatchKind::Journal {
            upto: number,
            whole: true,
        };
        let batch = Batch {
            table: 0,
            mono_ms: 5,
            kind,
            columns: writer.finish(),
        };
        self.hub.handle_push(id, Push::Batch(batch), self.now);
        // It reads what it is asked, and is silent.
        while self.hub.poll_reply(id, self.now).is_some() {}
    }
    fn counters(&self) -> remora_core::peers::HubCounters {
        self.hub.report(self.now).counters
    }
}

/// A peer that has news all the time and answers nothing: what it would be asked and told is bounded, and what is left out
/// is counted.
#[test]
fn a_peer_that_never_answers_costs_little() {
    let mut victim = Victim::new(1);
    let pushed = victim.pushed_by_liar();
    let asked = WANTS_OPEN * WANT_KEYS;
    let batches = (KEPT_KEYS_MAX + asked) as u32 / 1_000 + 2;
    for thousand in 1..=batches {
        let keys = thousand * 1_000..(thousand + 1) * 1_000;
        victim.journal(pushed, keys, u64::from(thousand), 0);
    }
    let all = u64::from(batches) * 1_000;
    let counters = victim.counters();
    assert_eq!(counters.keys_wanted, all);
    assert_eq!(counters.wants_dropped, all - (KEPT_KEYS_MAX + asked) as u64);

    let pushing = victim.pushes_to_liar();
    // Every row begins anew a key of which the victim holds what was counted before: to be offered, each time.
    let first = u64::from(batches) + 1;
    let before = victim.counters();
    let last = (batches + 1) * 1_000;
    for number in first..first + (KEPT_KEYS_MAX + WINDOW_MAX * WANT_KEYS) as u64 / 50 + 20 {
        victim.journal(pushed, last - 50..last, number, number);
        while victim.hub.poll_push(pushing, victim.now).is_some() {}
    }
    let offered = victim.counters().keys_offered - before.keys_offered;
    let dropped = victim.counters().offers_dropped;
    assert!(offered > KEPT_KEYS_MAX as u64, "{offered}");
    assert!(
        dropped > 0 && offered - dropped <= (KEPT_KEYS_MAX + WINDOW_MAX * WANT_KEYS) as u64,
        "{dropped} of {offered} offers were dropped"
    );
    assert!(victim.closed.is_empty(), "{:?}", victim.closed);
}

/// Questions about keys that are as long as keys can be.
#[test]
fn questions_take_a_bounded_place() {
    let mut victim = Victim::new(1);
    let id = victim.pushes_to_liar();
    let key = Key::from_stored(&[7; 1_000]);
    let fit = WANTED_BYTES_MAX / (WANT_KEYS * (1_000 + KEY_BYTES));
    for question in 0..=fit {
        victim.step(0);
        assert!(victim.closed.is_empty(), "at question {question}");
        let want = Reply::Want {
            table: 0,
            keys: vec![key.clone(); WANT_KEYS],
        };
        victim.hub.handle_reply(id, want, victim.now);
    }
    victim.step(0);
    let why = victim.closed.first().map(|(_, why)| why);
    assert!(
        matches!(why, Some(Ended::Protocol("asks about too many keys"))),
        "{why:?}"
    );
}

/// Names are shown to people: one that could forge a line of the log, or fill it, ends the session.
#[test]
fn names_that_cannot_be_names_are_refused() {
    for (node, table) in [
        ("a\nb".into(), "t".into()),
        ("n".repeat(256), "t".into()),
        ("n".into(), "t\u{1b}".to_owned()),
    ] {
        let mut victim = Victim::new(1);
        let id = victim.hub.opened_in("liar:9".into(), victim.now);
        let mut hello = victim.hello(&mut Rng::new(3));
        (hello.version, hello.node) = (VERSION, node);
        hello.tables = vec![TableDef {
            name: table,
            ..victim.def()
        }];
        victim.hub.handle_push(id, Push::Hello(hello), victim.now);
        victim.step(0);
        let why = victim.closed.first().map(|(_, why)| why);
        assert!(
            matches!(why, Some(Ended::Protocol("a name that cannot be one"))),
            "{why:?}"
        );
    }
}
