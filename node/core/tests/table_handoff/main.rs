//! A table passes from one process to the next while it is in use: nothing is lost, nothing counts twice.

mod changed;
mod forks;
mod replicated;
mod strip;
#[path = "../table_common/mod.rs"]
mod table_common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use remora_core::peers::batch::Budget;
use remora_core::table::{
    Cursor, DataType as D, Definition, EntryRef, Exporter, Importer, Key, Ledger, Slice, Table,
    TableId,
};
use table_common::{Build, Steps, ip, number, spec, table, text_of};

const BUDGET: Budget = Budget {
    rows: 100,
    bytes: 48 * 1024,
};
const TABLE: TableId = TableId(0);

/// Every value of every living entry.
fn contents(t: &Table, now: u64) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut cursor = Cursor::default();
    while !t.dump(&mut cursor, now, 500, |e| {
        let mut values = vec![format!("idle={}", e.idle_ms(now))];
        for stored in &t.spec().store {
            for index in 0..stored.elements {
                let name = stored.data_type.info().name;
                match e.get(stored.data_type, index, now) {
                    _ if stored.data_type == D::ServerKey => {
                        values.push(format!("{name}={:?}", e.server_key()));
                    }
                    value => values.push(format!("{name}[{index}]={value:?}")),
                }
                if let Some(rate) = e.window(stored.data_type, index)
                    && !rate.is_over(now as u32, stored.period_ms)
                {
                    values.push(format!("{rate:?}"));
                }
            }
        }
        all.insert(text_of(t, e.key()), values);
    }) {}
    all
}

/// The rest of a hand-over, after `importer` has got some slices already.
fn finish(
    old: &Table,
    exporter: &mut Exporter<'_>,
    mut importer: Importer<'_>,
    ledger: &mut Ledger,
    now: impl Fn() -> u64,
) {
    let mut take = |importer: &mut Importer<'_>, slice: &Slice| {
        importer
            .take(slice, 0, |key, uses, gauge| {
                ledger.set(TABLE, key, uses, gauge);
            })
            .unwrap();
    };
    loop {
        let step = exporter.walk(BUDGET, now());
        take(&mut importer, &step.slice);
        if step.done {
            break;
        }
    }
    importer.settle(now());
    for round in 0..5 {
        exporter.rewind();
        let last = round == 4;
        loop {
            let step = exporter.changes(BUDGET, now(), last);
            take(&mut importer, &step.slice);
            if step.done {
                break;
            }
        }
    }
    assert_eq!(old.changes(), 0);
    importer.seal(now());
}

fn hand_over(old: &Table, new: &Table, now: u64) -> Ledger {
    old.follow(true);
    let mut exporter = Exporter::new(old);
    let importer = Importer::new(new, exporter.definition()).unwrap();
    let mut ledger = Ledger::new();
    finish(old, &mut exporter, importer, &mut ledger, || now);
    ledger
}

const RICH: &str = "server_id,gpt0,gpc0,gpc0_rate(1s),conn_cnt,conn_cur,http_req_cnt,http_req_rate(10s),bytes_in_cnt,bytes_out_rate(500),gpt(3),gpc(4),gpc_rate(4,2s),server_key";

#[test]
fn every_value_arrives_as_it_was() {
    for build in [
        || spec("ip").store(RICH).expire(60_000),
        || spec("ip").store(RICH).size(9_000).factor(16),
    ] as [fn() -> Build; 2]
    {
        let (old, new) = (table(build()), Table::new(build().spec(), 77));
        let mut steps = Steps(5);
        let mut now = (1 << 32) - 30_000; // the clock's low word wraps on the way
        let types: Vec<_> = old.spec().store.clone();
        for i in 0..20_000_u64 {
            now += steps.next(5);
            let key = ip(&format!("10.0.{}.{}", steps.next(7), steps.next(250)));
            let stored = types[steps.next(types.len() as u64) as usize];
            let index = steps.next(u64::from(stored.elements)) as u16;
            old.upsert(&key, now, |mut e| match stored.data_type {
                D::ServerKey => {
                    e.set_server_key(format!("srv{}", i % 3).as_bytes());
                }
                D::ServerId => {
                    e.set(D::ServerId, 0, (-(i as i64 % 5)) as u64, now);
                }
                what => {
                    e.add(what, index, steps.next(1000), now);
                }
            })
            .unwrap();
        }
        hand_over(&old, &new, now);
        let wanted = contents(&old, now);
        assert!(wanted.len() > 900, "{}", wanted.len());
        assert_eq!(contents(&new, now), wanted);
        // The order of expiry and eviction is the same, too.
        for later in [now + 20_000, now + 59_900, now + 61_000] {
            assert_eq!(contents(&new, later), contents(&old, later));
            assert_eq!(new.used(later), old.used(later));
        }
    }
}

#[test]
fn removals_and_returns_during_the_walk() {
    let build = || spec("integer").store("gpc0").size(10_000);
    let (old, new) = (table(build()), table(build()));
    for n in 0..3_000 {
        old.upsert(&number(n), 1, |mut e| e.inc(D::Gpc0, 0, u64::from(n), 1))
            .unwrap();
    }
    old.follow(true);
    let mut exporter = Exporter::new(&old);
    let mut importer = Importer::new(&new, exporter.definition()).unwrap();
    let mut steps = Steps(3);
    for _ in 0..8 {
        let step = exporter.walk(BUDGET, 2);
        importer.take(&step.slice, 0, |_, _, _| {}).unwrap();
        for _ in 0..400 {
            let key = number(steps.next(3_000) as u32);
            match steps.next(3) {
                0 => drop(old.remove(&key, 2)),
                _ => drop(
                    old.upsert(&key, 2, |mut e| e.inc(D::Gpc0, 0, 7, 2))
                        .unwrap(),
                ),
            }
        }
    }
    finish(&old, &mut exporter, importer, &mut Ledger::new(), || 2);
    assert_eq!(contents(&new, 2), contents(&old, 2));
}

/// One process after the other, each with trackers of its own that outlive several successors.
#[test]
fn events_of_threads_count_once_across_processes() {
    const PROCESSES: usize = 4;
    const KEYS: u64 = 3_000;
    let build = || {
        spec("integer")
            .store("gpc0,conn_cnt,conn_cur,http_req_cnt,bytes_out_cnt,http_req_rate(1000000s)")
            .size(5_000)
            .expire(2_000_000_000)
    };
    let all: Vec<Vec<Table>> = (0..PROCESSES).map(|_| vec![table(build())]).collect();
    let clock = AtomicU64::new(1_000);
    let now = || clock.load(Relaxed);
    let counted: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    // Ledgers of draining processes by number, as the newest process has them.
    let mut ledgers: BTreeMap<usize, Ledger> = BTreeMap::new();
    let mut pending: BTreeMap<usize, BTreeMap<Key, remora_core::table::Delta>> = BTreeMap::new();
    std::thread::scope(|scope| {
        let mut stops = Vec::new();
        for (i, tables) in all.iter().enumerate() {
            let t = &tables[0];
            let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
            let mut threads = Vec::new();
            for thread in 0..3_u64 {
                let (counted, clock) = (&counted, &clock);
                threads.push(scope.spawn(move || {
                    let mut steps = Steps(i as u64 * 10 + thread + 1);
                    let mut tracked: Vec<EntryRef> = Vec::new();
                    let mut left = 2_000;
                    while !stop.load(Relaxed) || left > 0 {
                        left -= u64::from(stop.load(Relaxed)).min(left);
                        let now = clock.fetch_add(u64::from(steps.next(64) == 0), Relaxed);
                        let n = steps.next(KEYS);
                        match steps.next(4) {
                            0 if tracked.len() < 40 => {
                                tracked.push(t.track(&number(n as u32), now).unwrap());
                            }
                            1 if !tracked.is_empty() => {
                                let at = steps.next(tracked.len() as u64) as usize;
                                t.untrack(tracked.swap_remove(at), now);
                            }
                            2 if !tracked.is_empty() => {
                                let at = steps.next(tracked.len() as u64) as usize;
                                let n = t.write(tracked[at], |mut e| {
                                    e.inc(D::HttpReqCnt, 0, 1, now);
                                    e.add(D::BytesOutCnt, 0, 10, now);
                                    e.touch(now);
                                    u32::from_be_bytes(e.entry().key().try_into().unwrap())
                                });
                                counted[n as usize].fetch_add(1, Relaxed);
                            }
                            _ => {
                                t.upsert(&number(n as u32), now, |mut e| {
                                    e.inc(D::HttpReqCnt, 0, 1, now);
                                    e.add(D::BytesOutCnt, 0, 10, now);
                                })
                                .unwrap();
                                counted[n as usize].fetch_add(1, Relaxed);
                            }
                        }
                    }
                    for entry in tracked {
                        t.untrack(entry, clock.load(Relaxed));
                    }
                }));
            }
            stops.push((stop, threads));
            let until = now() + 60;
            while now() < until {
                std::thread::yield_now();
            }
            // Deltas of the older ones arrive meanwhile.
            deltas(&all, i, &mut ledgers, &mut pending, now());
            if let Some(before) = i.checked_sub(1) {
                // What it counted was handed over twice: nobody will ask for it again.
                all[before][0].strip(&[], now());
            }
            let Some(next) = all.get(i + 1) else { break };
            t.follow(true);
            let mut exporter = Exporter::new(t);
            let importer = Importer::new(&next[0], exporter.definition()).unwrap();
            let mut ledger = Ledger::new();
            finish(t, &mut exporter, importer, &mut ledger, now);
            for (_, third) in ledgers.iter_mut() {
                ledger.subtract(third);
                // What is pinned in the process before means nothing here.
                let mut copy = Ledger::new();
                for (id, key, share) in third.iter() {
                    copy.set(id, key.as_bytes(), share.uses, share.gauge);
                }
                *third = copy;
            }
            ledgers.insert(i, ledger);
            for ledger in ledgers.values_mut() {
                ledger.pin(next, now());
            }
        }
        for (stop, threads) in stops {
            stop.store(true, Relaxed);
            for thread in threads {
                thread.join().unwrap();
            }
        }
    });
    let last = PROCESSES - 1;
    deltas(&all, last, &mut ledgers, &mut pending, now());
    let newest = &all[last][0];
    for (n, counted) in counted.iter().enumerate() {
        let key = number(n as u32);
        let counted = counted.load(Relaxed);
        let got = newest.peek(&key, now(), |e| {
            assert_eq!(e.uses(), 0, "key {n}");
            assert_eq!(e.get(D::ConnCur, 0, 0), Some(0), "key {n}");
            assert_eq!(e.get(D::BytesOutCnt, 0, 0), Some(counted * 10), "key {n}");
            assert_eq!(e.get(D::HttpReqRate, 0, now()), Some(counted), "key {n}");
            e.get(D::HttpReqCnt, 0, 0).unwrap()
        });
        assert_eq!(got.unwrap_or(0), counted, "key {n}");
    }
    assert!(ledgers.values().all(Ledger::is_empty));
}

/// Takes what the processes before number `newest` have counted to it.
fn deltas(
    all: &[Vec<Table>],
    newest: usize,
    ledgers: &mut BTreeMap<usize, Ledger>,
    pending: &mut BTreeMap<usize, BTreeMap<Key, remora_core::table::Delta>>,
    now: u64,
) {
    for (child, tables) in all.iter().enumerate().take(newest) {
        let pending = pending.entry(child).or_default();
        while tables[0].take_deltas(50, pending) {}
        let ledger = ledgers.entry(child).or_default();
        for (key, delta) in std::mem::take(pending) {
            ledger
                .apply(&all[newest], TABLE, &key, &delta, now)
                .unwrap();
        }
    }
}

#[test]
fn trackers_of_a_process_that_died_end() {
    let build = || spec("ip").store("conn_cur,conn_cnt").expire(1_000);
    let old = table(build());
    let new = vec![table(build())];
    let (a, b) = (ip("10.0.0.1"), ip("10.0.0.2"));
    old.track(&a, 10).unwrap();
    let second = old.track(&a, 10).unwrap();
    old.track(&b, 10).unwrap();
    let mut ledger = hand_over(&old, &new[0], 20);
    ledger.pin(&new, 20);
    let cur = |key: &Key, now| new[0].peek(key, now, |e| e.get(D::ConnCur, 0, 0).unwrap());
    let mine = new[0].track(&a, 30).unwrap();
    assert_eq!((cur(&a, 30), cur(&b, 30)), (Some(3), Some(1)));
    // Held entries do not expire, whoever holds them.
    assert_eq!((cur(&a, 5_000), cur(&b, 5_000)), (Some(3), Some(1)));
    old.untrack(second, 5_000);
    let mut all = BTreeMap::new();
    old.take_deltas(100, &mut all);
    for (key, delta) in &all {
        ledger.apply(&new, TABLE, key, delta, 5_000).unwrap();
    }
    assert_eq!((cur(&a, 5_000), cur(&b, 5_000)), (Some(2), Some(1)));
    ledger.end(&new, 6_000);
    assert_eq!((cur(&a, 6_000), cur(&b, 6_000)), (Some(1), Some(0)));
    assert_eq!(cur(&b, 9_000), None);
    new[0].untrack(mine, 9_000);
    assert_eq!(cur(&a, 9_500), Some(0));
    assert_eq!(cur(&a, 10_100), None);
}

#[test]
fn assignments_after_the_seal_pass_in_order() {
    let build = || spec("ip").store("gpc0,gpc0_rate(10s),gpt0,server_key,gpc(2)");
    let old = table(build());
    let new = vec![table(build())];
    let key = ip("10.0.0.1");
    old.upsert(&key, 10, |mut e| e.inc(D::Gpc0, 0, 5, 10))
        .unwrap();
    let mut ledger = hand_over(&old, &new[0], 20);
    new[0]
        .upsert(&key, 20, |mut e| e.inc(D::Gpc0, 0, 100, 20))
        .unwrap();
    old.upsert(&key, 30, |mut e| {
        e.inc(D::Gpc0, 0, 3, 30);
        e.clr(D::Gpc0, 0);
        e.inc(D::Gpc0, 0, 2, 30);
        e.inc(D::Gpc, 1, 9, 30);
        e.set(D::Gpt0, 0, 4, 30);
        e.set_server_key(b"one");
    })
    .unwrap();
    let mut all = BTreeMap::new();
    old.take_deltas(100, &mut all);
    for (key, delta) in &all {
        ledger.apply(&new, TABLE, key, delta, 40).unwrap();
    }
    new[0].peek(&key, 40, |e| {
        assert_eq!(e.get(D::Gpc0, 0, 40), Some(2));
        assert_eq!(e.get(D::Gpc0Rate, 0, 40), Some(110));
        assert_eq!(e.get(D::Gpc, 1, 40), Some(9));
        assert_eq!(e.get(D::Gpt0, 0, 40), Some(4));
        assert_eq!(e.server_key().as_deref(), Some(&b"one"[..]));
    });
    assert!(ledger.is_empty());
}

#[test]
fn what_still_fits_survives_another_definition() {
    let old = table(spec("ip").store("gpc0,http_req_cnt,http_req_rate(10s),bytes_in_rate(1s)"));
    for n in 0..200_u64 {
        let key = ip(&format!("10.0.0.{n}"));
        old.upsert(&key, 1_000 + n, |mut e| {
            e.inc(D::HttpReqCnt, 0, n + 1, 1_000 + n);
            e.add(D::BytesInRate, 0, 64, 1_000 + n);
        })
        .unwrap();
    }
    let definition = |build: Build| Definition::of(&build.spec(), None);
    let new = table(
        spec("ip")
            .store("http_req_cnt,http_req_rate(20s),conn_cnt,bytes_in_rate(1s)")
            .factor(4)
            .size(50),
    );
    old.follow(true);
    let mut exporter = Exporter::new(&old);
    let mut importer = Importer::new(&new, exporter.definition()).unwrap();
    importer.shrinks();
    assert_eq!(
        importer.dropped(),
        ["gpc0", "http_req_rate(10000ms)", "bytes_in_rate(1000ms)"]
    );
    finish(&old, &mut exporter, importer, &mut Ledger::new(), || 2_000);
    assert_eq!(new.used(2_000), 50);
    // The newest stay.
    for n in 150..200 {
        let key = ip(&format!("10.0.0.{n}"));
        let got = new.peek(&key, 2_000, |e| e.get(D::HttpReqCnt, 0, 0).unwrap());
        assert_eq!(got, Some(n + 1), "{n}");
    }
    assert_eq!(new.events().evictions, 150);
    for other in [spec("ipv6"), spec("integer"), spec("string")] {
        assert!(Importer::new(&new, definition(other)).is_err());
    }
    let arrays = table(spec("ip").store("gpc(2)"));
    let importer = Importer::new(&arrays, definition(spec("ip").store("gpc(4)"))).unwrap();
    assert_eq!(importer.dropped(), ["gpc[2]", "gpc[3]"]);
}

#[test]
fn an_abandoned_hand_over_leaves_the_table_as_it_was() {
    let old = table(spec("ip").store("gpc0,conn_cur"));
    let key = ip("10.0.0.1");
    let held = old.track(&key, 1).unwrap();
    let new = table(spec("ip").store("gpc0,conn_cur"));
    hand_over(&old, &new, 2);
    old.upsert(&key, 3, |mut e| e.inc(D::Gpc0, 0, 1, 3))
        .unwrap();
    old.follow(false);
    let mut all = BTreeMap::new();
    assert!(!old.take_deltas(10, &mut all));
    assert!(all.is_empty());
    old.untrack(held, 4);
    old.peek(&key, 4, |e| {
        assert_eq!(e.get(D::Gpc0, 0, 4), Some(1));
        assert_eq!((e.uses(), e.get(D::ConnCur, 0, 4)), (0, Some(0)));
    });
    // And it can be tried again.
    let again = table(spec("ip").store("gpc0,conn_cur"));
    hand_over(&old, &again, 5);
    assert_eq!(contents(&again, 5), contents(&old, 5));
}
