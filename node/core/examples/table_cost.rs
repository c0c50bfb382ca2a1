//! Prints what table entries cost: memory per entry of a full table of IPv4 keys with two rates and two counters, and
//! time per operation on random keys. `cargo run --release -p remora-core --example table_cost [ENTRIES]`
#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods
)] // a measuring tool
#![allow(missing_docs)]

use remora_core::table::{DataType as D, Key, KeyType, Stored, Table, TableSpec};
use std::hint::black_box;
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

fn timed(what: &str, n: u64, mut f: impl FnMut(u64)) {
    let start = Instant::now();
    (0..n).for_each(&mut f);
    println!(
        "{what:44} {:7.1} ns",
        start.elapsed().as_nanos() as f64 / n as f64
    );
}

fn main() {
    let n: u64 = std::env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(1_000_000);
    let stored = |data_type, period_ms| Stored {
        data_type,
        elements: 1,
        period_ms,
    };
    let t = Table::new(
        TableSpec {
            name: "cost".into(),
            key_type: KeyType::Ip,
            key_len: 4,
            size: n as usize,
            expire_ms: Some(600_000),
            nopurge: false,
            store: vec![
                stored(D::ConnCnt, 0),
                stored(D::ConnRate, 10_000),
                stored(D::HttpReqCnt, 0),
                stored(D::HttpReqRate, 10_000),
            ],
            brates_factor: 1,
            write_to: None,
            recv_only: false,
            srvkey_addr: false,
            peers: None,
        },
        0x1234_5678,
    );
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
    timed("peek", n, |i| {
        black_box(t.peek(&key(random(i)), now, |e| e.get(D::ConnRate, 0, now)));
    });
    timed("upsert http_req_cnt and _rate", n, |i| {
        let _ = t.upsert(&key(random(i)), now, |mut e| {
            e.inc(D::HttpReqCnt, 0, 1, now)
        });
    });
    timed("track, write, read, untrack", n, |i| {
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
