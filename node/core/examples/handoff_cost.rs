//! Prints what handing a table over costs, per entry: CPU time of the showing and of the taking side, and bytes on the way;
//! for a table of this process only, and for shared ones that this node counted, learned, or both.
//! `cargo run --release -p remora-core --example handoff_cost [ENTRIES]`
#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods
)] // a measuring tool

use remora_core::peers::batch::{BatchReader, BatchWriter, Budget, Columns};
use remora_core::table::{
    Cursor, DataType as D, Exporter, Importer, Key, KeyType, Lineage, Lineages, Stored, Table,
    TableSpec, Which,
};
use std::hint::black_box;
use std::sync::Arc;

fn main() {
    let n: u64 = std::env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(1_000_000);
    let plain = |seed| Table::new(spec(n), seed);
    let old = plain(1);
    count(&old, n);
    hand_over("plain", n, &old, &plain(2));
    hand_over("plain, same seed", n, &old, &plain(1));
    strip(&old);
    drop(old);
    let shared = |seed, lineage| {
        let lineages = Arc::new(Lineages::new(Lineage(lineage)));
        Table::new_replicated(spec(n), seed, lineages)
    };
    let other = shared(9, 9);
    count(&other, n);
    hand_over("shared, own", n, &other, &shared(2, 9));
    hand_over("shared, own, same seed", n, &other, &shared(9, 9));
    let learned = shared(3, 3);
    learn(&other, Lineage(9), &learned);
    drop(other);
    hand_over("shared, learned", n, &learned, &shared(4, 3));
    hand_over("shared, learned, same seed", n, &learned, &shared(3, 3));
    count(&learned, n);
    hand_over("shared, both", n, &learned, &shared(4, 3));
    hand_over("shared, both, same seed", n, &learned, &shared(3, 3));
    strip(&learned);
}

const NOW: u64 = 100_000;
const BUDGET: Budget = Budget {
    rows: 2_000,
    bytes: 40 * 1024,
};

fn spec(n: u64) -> TableSpec {
    let stored = |data_type, period_ms| Stored {
        data_type,
        elements: 1,
        period_ms,
    };
    TableSpec {
        size: (n + n / 8) as usize,
        expire_ms: Some(7_200_000),
        store: vec![
            stored(D::ConnRate, 10_000),
            stored(D::HttpReqCnt, 0),
            stored(D::HttpReqRate, 10_000),
            stored(D::HttpErrCnt, 0),
        ],
        ..TableSpec::new("cost", KeyType::Ip)
    }
}

fn key(i: u64) -> Key {
    Key::from_stored(&(i as u32).to_be_bytes())
}

/// Every key once, within a minute and a half.
fn count(t: &Table, n: u64) {
    for i in 0..n {
        let now = 10_000 + i * (NOW - 10_000) / n;
        if let Ok(at) = t.track(&key(i), now) {
            t.write(at, |mut e| {
                e.inc(D::HttpReqCnt, 0, 1, now);
            });
            t.untrack(at, now);
        }
    }
    if let Some(replica) = t.replica() {
        replica.collect(NOW, usize::MAX);
    }
}

/// As a newcomer does.
fn learn(from: &Table, from_own: Lineage, to: &Table) {
    let (source, target) = (
        from.replica().expect("shared"),
        to.replica().expect("shared"),
    );
    let mut out = BatchWriter::new(source.columns());
    let mut cursor = Cursor::default();
    let mut done = false;
    while !done {
        done = source.read_walk(&mut cursor, Which::All, BUDGET, NOW, &mut out);
        let columns = out.finish();
        let batch = BatchReader::new(&columns, target.columns()).expect("sound");
        target.apply(&batch, from_own, 0, 0, NOW).expect("fits");
    }
}

fn hand_over(what: &str, n: u64, old: &Table, new: &Table) {
    let each = |ns: u64| ns as f64 / n as f64;
    old.follow(true);
    let mut exporter = Exporter::new(old);
    let mut importer = Importer::new(new, exporter.definition()).expect("the same");
    new.expect(old.count());
    let (mut show, mut take, mut bytes) = (0, 0, 0);
    loop {
        let start = cpu_ns();
        let step = exporter.walk(BUDGET, NOW);
        let between = cpu_ns();
        bytes += Columns::bytes(&step.slice.columns);
        importer
            .take(&step.slice, 0, |key, uses, gauge| {
                black_box((key, uses, gauge));
            })
            .expect("sound");
        show += between - start;
        take += cpu_ns() - between;
        if step.done {
            break;
        }
    }
    let start = cpu_ns();
    importer.settle(NOW);
    let settle = cpu_ns() - start;
    println!(
        "{what:28} show {:5.0} ns, take {:5.0} ns, settle {:4.0} ns, {:3.0} bytes",
        each(show),
        each(take),
        each(settle),
        bytes as f64 / n as f64
    );
    assert_eq!(old.used(NOW), new.used(NOW));
    old.follow(false);
}

/// What is left when one entry is held.
fn strip(t: &Table) {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse::<usize>().ok());
        pages.unwrap_or(0) * 4 / 1024
    };
    let held = t.track(&key(1), NOW);
    let (before, start) = (resident(), cpu_ns());
    t.strip(&[], NOW);
    let ms = (cpu_ns() - start) / 1_000_000;
    let after = resident();
    println!("stripped in {ms} ms: {before} MiB resident, then {after}; {held:?} is left");
}

/// CPU time of the main thread: other processes do not count.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    ns.unwrap_or(0)
}
