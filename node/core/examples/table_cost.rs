//! Prints what table entries cost: memory per entry of a full table of IPv4 keys with two rates and two counters, and
//! CPU time per operation on random keys; then the same of replicated tables with several lineages.
//! `cargo run --release -p remora-core --example table_cost [ENTRIES]`
#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods
)] // a measuring tool

use remora_core::peers::batch::{BatchReader, BatchWriter, Budget, Columns};
use remora_core::table::{
    Cursor, DataType as D, Key, KeyType, Lineage, Lineages, Stored, Table, TableSpec, Which,
};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0)
        * 4096
}

fn key(i: u64) -> Key {
    Key::from_stored(&((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32).to_be_bytes())
}

/// CPU time of the main thread: other processes do not count.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    ns.unwrap_or(0)
}

fn timed(what: &str, n: u64, mut f: impl FnMut(u64)) {
    let start = cpu_ns();
    (0..n).for_each(&mut f);
    report(what, n, start);
}

/// The same for what can be done again: often enough for a clock that ticks.
fn repeated(what: &str, n: u64, mut f: impl FnMut(u64)) {
    let rounds = (3_000_000 / n).max(1);
    let start = cpu_ns();
    for _ in 0..rounds {
        (0..n).for_each(&mut f);
    }
    report(what, n * rounds, start);
}

fn report(what: &str, n: u64, start: u64) {
    println!("{what:44} {:7.1} ns", (cpu_ns() - start) as f64 / n as f64);
}

fn main() {
    let n: u64 = std::env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(1_000_000);
    if std::env::args().nth(2).is_some_and(|only| only == "teach") {
        for _ in 0..5 {
            let lineages = Arc::new(Lineages::new(Lineage(2)));
            teach(&Table::new_replicated(spec(n), 2, lineages), n);
        }
        return;
    }
    plain(n);
    replicated(n);
}

fn spec(n: u64) -> TableSpec {
    let stored = |data_type, period_ms| Stored {
        data_type,
        elements: 1,
        period_ms,
    };
    TableSpec {
        size: n as usize,
        expire_ms: Some(600_000),
        store: vec![
            stored(D::ConnCnt, 0),
            stored(D::ConnRate, 10_000),
            stored(D::HttpReqCnt, 0),
            stored(D::HttpReqRate, 10_000),
        ],
        ..TableSpec::new("cost", KeyType::Ip)
    }
}

fn plain(n: u64) {
    let t = Table::new(spec(n), 0x1234_5678);
    let before = resident_bytes();
    timed("insert by tracking, then release", n, |i| {
        if let Ok(e) = t.track(&key(i), i / 1000) {
            t.untrack(e, i / 1000);
        }
    });
    let used = t.used(n / 1000);
    println!("entries {used}, record {} bytes", t.record_bytes());
    println!(
        "bytes per entry: {:.1} counted, {:.1} resident",
        t.memory_bytes() as f64 / used as f64,
        (resident_bytes() - before) as f64 / used as f64
    );
    let random = |i: u64| i.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(7) % n;
    let now = n / 1000;
    repeated("peek", n, |i| {
        black_box(t.peek(&key(random(i)), now, |e| e.get(D::ConnRate, 0, now)));
    });
    repeated("upsert http_req_cnt and _rate", n, |i| {
        let _ = t.upsert(&key(random(i)), now, |mut e| {
            e.inc(D::HttpReqCnt, 0, 1, now)
        });
    });
    repeated("track, write, read, untrack", n, |i| {
        if let Ok(e) = t.track(&key(random(i)), now) {
            t.write(e, |mut e| {
                e.inc(D::HttpReqCnt, 0, 1, now);
                e.touch(now);
            });
            black_box(t.read(e, |e| e.get(D::HttpReqRate, 0, now)));
            t.untrack(e, now);
        }
    });
    timed("insert into the full table (evicts)", n, |i| {
        let _ = t.upsert(&key(n + i), now, |_| ());
    });
    let held: Vec<_> = (0..15_000.min(n - 1))
        .filter_map(|i| t.track(&key(2 * n + i), now).ok())
        .collect();
    timed("the same with 15,000 entries held", n, |i| {
        let _ = t.upsert(&key(3 * n + i), now, |_| ());
    });
    held.into_iter().for_each(|e| t.untrack(e, now));
    for threads in [2, 4] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let t = &t;
                scope.spawn(move || {
                    for i in 0..n / 4 {
                        let _ = t.upsert(&key(random(i * 4 + thread)), now, |mut e| {
                            e.inc(D::ConnCnt, 0, 1, now)
                        });
                    }
                });
            }
        });
        let each = start.elapsed().as_nanos() as f64 / (n / 4) as f64;
        println!(
            "{:44} {each:7.1} ns",
            format!("upsert, {threads} threads at once")
        );
    }
    println!("{:?}, {} used", t.events(), t.used(now));
}

const NOW: u64 = 2_000;
/// As the hub has them.
const BUDGET: Budget = Budget {
    rows: 4_000,
    bytes: 128 << 10,
};

/// Another node that has counted all keys, and its whole journal.
fn peer(n: u64, lineage: u64, print: bool) -> Vec<Columns> {
    let t = Table::new_replicated(spec(n), lineage, Arc::new(Lineages::new(Lineage(lineage))));
    let touch = |i| {
        if let Ok(e) = t.track(&key(i), NOW) {
            t.untrack(e, NOW);
        }
    };
    let before = resident_bytes();
    if print {
        timed("insert by tracking, then release", n, touch);
    } else {
        (0..n).for_each(touch);
    }
    let replica = t.replica().expect("replicated");
    let start = cpu_ns();
    replica.collect(NOW, usize::MAX);
    if print {
        report("collect", n, start);
        println!("record {} bytes", t.record_bytes());
        println!(
            "bytes per entry, no other lineage: {:.1} counted, {:.1} resident",
            t.memory_bytes() as f64 / n as f64,
            (resident_bytes() - before) as f64 / n as f64
        );
    }
    let mut out = BatchWriter::new(replica.columns());
    let mut batches = Vec::new();
    let mut after = 0;
    let start = cpu_ns();
    loop {
        let read = replica.read_journal(after, BUDGET, NOW, &mut out);
        batches.push(out.finish());
        after = read.upto;
        if !read.more {
            break;
        }
    }
    if print {
        report("read the journal", n, start);
        let bytes: usize = batches.iter().map(Columns::bytes).sum();
        println!("bytes per row: {:.1}", bytes as f64 / n as f64);
        let random = |i: u64| i.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(7) % n;
        timed("upsert http_req_cnt and _rate, first", n, |i| {
            let _ = t.upsert(&key(random(i)), NOW, |mut e| {
                e.inc(D::HttpReqCnt, 0, 1, NOW)
            });
        });
        repeated("the same, already dirty", n, |i| {
            let _ = t.upsert(&key(random(i)), NOW, |mut e| {
                e.inc(D::HttpReqCnt, 0, 1, NOW)
            });
        });
        repeated("track, write, read, untrack", n, |i| {
            if let Ok(e) = t.track(&key(random(i)), NOW) {
                t.write(e, |mut e| {
                    e.inc(D::HttpReqCnt, 0, 1, NOW);
                    e.touch(NOW);
                });
                black_box(t.read(e, |e| e.get(D::HttpReqRate, 0, NOW)));
                t.untrack(e, NOW);
            }
        });
        let mut cursor = Cursor::default();
        let start = cpu_ns();
        while !replica.read_walk(&mut cursor, Which::All, BUDGET, NOW, &mut out) {
            black_box(out.finish());
        }
        report("walk", n, start);
        teach(&t, n);
    }
    batches
}

/// What a newcomer pays for a table whose entries were touched in the course of a minute.
fn teach(t: &Table, n: u64) {
    for i in 0..n {
        let _ = t.upsert(&key(i), NOW + i * 60_000 / n, |_| ());
    }
    let now = NOW + 60_000;
    let source = t.replica().expect("replicated");
    let mut out = BatchWriter::new(source.columns());
    let mut cursor = Cursor::default();
    let mut batches = Vec::new();
    let mut done = false;
    while !done {
        done = source.read_walk(&mut cursor, Which::All, BUDGET, now, &mut out);
        batches.push(out.finish());
    }
    let newcomer = Table::new_replicated(spec(n), 77, Arc::new(Lineages::new(Lineage(77))));
    let target = newcomer.replica().expect("replicated");
    let before = resident_bytes();
    let start = cpu_ns();
    for columns in &batches {
        let batch = BatchReader::new(columns, target.columns()).expect("sound");
        black_box(
            target
                .apply_shown(&batch, Lineage(2), 0, now)
                .expect("fits"),
        );
    }
    report("learn by a walk", n, start);
    println!(
        "bytes per entry learned: {:.1} counted, {:.1} resident",
        newcomer.memory_bytes() as f64 / n as f64,
        (resident_bytes() - before) as f64 / n as f64
    );
}

fn replicated(n: u64) {
    println!("replicated:");
    let lineages = Arc::new(Lineages::new(Lineage(1)));
    let t = Table::new_replicated(spec(n), 0x1234_5678, Arc::clone(&lineages));
    let replica = t.replica().expect("replicated");
    let random = |i: u64| i.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(7) % n;
    let mut others = 0;
    for upto in [1, 2, 7] {
        while others < upto {
            others += 1;
            let batches = peer(n, 1 + others, others == 1);
            let before = resident_bytes();
            let start = cpu_ns();
            for columns in &batches {
                let batch = BatchReader::new(columns, replica.columns()).expect("sound");
                let applied = replica.apply(&batch, Lineage(1 + others), 0, 0, NOW);
                black_box(applied.expect("fits"));
            }
            report(&format!("apply, lineage {others}"), n, start);
            if others == 1 {
                let grown = (resident_bytes() - before) as f64 / n as f64;
                println!("bytes per entry resident: {grown:.1}");
            }
        }
        println!(
            "bytes per entry, {others} lineages: {:.1} counted",
            t.memory_bytes() as f64 / n as f64,
        );
        repeated(&format!("peek, {others} lineages"), n, |i| {
            black_box(t.peek(&key(random(i)), NOW, |e| e.get(D::ConnRate, 0, NOW)));
        });
    }
}
