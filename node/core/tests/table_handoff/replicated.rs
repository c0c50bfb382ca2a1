//! Tables of a `peers` section: everything that other nodes told is passed on as well.

use std::sync::Arc;

use remora_core::peers::batch::{BatchReader, BatchWriter, ColumnDef, ColumnKind, Columns};
use remora_core::table::{
    Cursor, DataType as D, Exporter, Importer, Ledger, Lineage, Lineages, Table, Which, disown,
};

use crate::table_common::{number, spec};
use crate::{BUDGET, Steps, contents, finish};

/// Everything a replicated table would tell a newcomer, row by row.
fn told(t: &Table, now: u64) -> Vec<String> {
    let replica = t.replica().unwrap();
    let columns = replica.columns().to_vec();
    let mut rows = Vec::new();
    let mut cursor = Cursor::default();
    loop {
        let mut out = BatchWriter::new(columns.clone());
        let done = replica.read_walk(&mut cursor, Which::All, BUDGET, now, &mut out);
        rows.extend(texts(&out.finish(), &columns));
        if done {
            break;
        }
    }
    rows.sort();
    rows
}

fn texts(batch: &Columns, columns: &[ColumnDef]) -> Vec<String> {
    let mut reader = BatchReader::new(batch, columns).unwrap();
    let mut rows = Vec::new();
    while let Some((key, head, edicts)) = reader.next_row() {
        let mut edicts: Vec<_> = edicts.collect();
        edicts.sort_by_key(|e| (e.column, e.stamp));
        let mut text = format!("{key:?} {head:?}");
        // Which row of an entry says it does not matter.
        let mut assigned: Vec<_> = edicts.iter().map(|edict| format!("{edict:?}")).collect();
        for column in columns {
            match column.kind {
                ColumnKind::Counter | ColumnKind::Gauge => {
                    text += &format!(" {}", reader.counter());
                }
                ColumnKind::Rate => text += &format!(" {:?}", reader.rate()),
                ColumnKind::Register => {
                    assigned.extend(reader.register().map(|value| format!("{value:?}")));
                }
                ColumnKind::ServerKey => {
                    assigned.extend(reader.text().map(|value| format!("{value:?}")));
                }
            }
        }
        rows.push(text);
        rows.extend(assigned.iter().map(|text| format!("{key:?} {text}")));
    }
    rows
}

/// Shows only where they differ.
fn same(got: &[String], wanted: &[String]) {
    let pairs = got.iter().zip(wanted);
    let different: Vec<_> = pairs.filter(|(a, b)| a != b).take(3).collect();
    assert!(different.is_empty(), "{different:#?}");
    assert_eq!(got.len(), wanted.len());
}

/// The own journal from a number on.
fn journal(t: &Table, after: u64, now: u64) -> Vec<String> {
    let replica = t.replica().unwrap();
    let columns = replica.columns().to_vec();
    let (mut after, mut rows) = (after, Vec::new());
    loop {
        let mut out = BatchWriter::new(columns.clone());
        let read = replica.read_journal(after, BUDGET, now, &mut out);
        rows.extend(texts(&out.finish(), &columns));
        after = read.upto;
        if !read.more {
            return rows;
        }
    }
}

pub(crate) fn pass(from: &Table, to: &Table, after: &mut u64, lineage: Lineage, now: u64) {
    let replica = from.replica().unwrap();
    let columns = replica.columns().to_vec();
    replica.collect(now, 10_000);
    loop {
        let mut out = BatchWriter::new(columns.clone());
        let read = replica.read_journal(*after, BUDGET, now, &mut out);
        let batch = out.finish();
        let reader = BatchReader::new(&batch, &columns).unwrap();
        to.replica()
            .unwrap()
            .apply(&reader, lineage, 0, 0, now)
            .unwrap();
        *after = read.upto;
        if !read.more {
            return;
        }
    }
}

#[test]
fn a_replicated_table_goes_on_under_its_lineage() {
    let build = || {
        spec("integer")
            .store("gpc0,gpt0,conn_cur,http_req_rate(10s),server_key")
            .size(9_000)
            .expire(20_000)
    };
    let ids = [Lineage(71), Lineage(72), Lineage(73)];
    let make = |own: usize| {
        let lineages = Arc::new(Lineages::new(ids[own]));
        for id in ids {
            let index = lineages.index(id).unwrap();
            lineages.set_alive(index, true);
        }
        Table::new_replicated(build().spec(), 5 + own as u64, lineages)
    };
    let nodes: Vec<Table> = (0..3).map(make).collect();
    for node in &nodes {
        node.set_wall_offset(1_000_000_000_000);
    }
    let mut steps = Steps(11);
    let mut sent = [[0_u64; 3]; 3];
    let mut now = 50_000;
    let mut act = |nodes: &[Table], now: &mut u64, many: u64| {
        for _ in 0..many {
            *now += steps.next(20);
            let node = &nodes[steps.next(nodes.len() as u64) as usize];
            let key = number(steps.next(900) as u32);
            match steps.next(12) {
                0 => drop(node.remove(&key, *now)),
                1 => drop(node.upsert(&key, *now, |mut e| e.clr(D::Gpc0, 0))),
                2 => drop(node.upsert(&key, *now, |mut e| e.set(D::Gpt0, 0, 7, *now))),
                3 => drop(node.upsert(&key, *now, |mut e| e.set_server_key(b"s1"))),
                _ => drop(node.upsert(&key, *now, |mut e| {
                    e.inc(D::Gpc0, 0, 1, *now);
                    e.add(D::HttpReqRate, 0, 1, *now);
                })),
            }
        }
    };
    let mut exchange = |nodes: &[Table], now: u64| -> [u64; 3] {
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                let after = &mut sent[from][to];
                pass(&nodes[from], &nodes[to], after, ids[from], now);
            }
        }
        [sent[0][1], sent[1][0], sent[2][0]]
    };
    for _ in 0..20 {
        act(&nodes, &mut now, 300);
        exchange(&nodes, now);
    }
    let acked = exchange(&nodes, now)[0];
    // Node 0 is replaced while everybody goes on.
    let new = make(0);
    new.set_wall_offset(1_000_000_000_000);
    let old = &nodes[0];
    old.follow(true);
    let mut exporter = Exporter::new(old);
    let mut importer = Importer::new(&new, exporter.definition()).unwrap();
    let mut sent_to_old = [0; 3];
    for _ in 0..5 {
        let step = exporter.walk(BUDGET, now);
        importer.take(&step.slice, 0, |_, _, _| {}).unwrap();
        act(&nodes, &mut now, 50);
        sent_to_old = exchange(&nodes, now);
    }
    finish(old, &mut exporter, importer, &mut Ledger::new(), || now);
    let replica = old.replica().unwrap();
    new.replica()
        .unwrap()
        .inherit(replica.newest(), &replica.highest_of_all());
    assert!(told(old, now).len() > 900);
    same(&told(&new, now), &told(old, now));
    for after in [0, acked / 2, acked.saturating_sub(3), acked] {
        same(&journal(&new, after, now), &journal(old, after, now));
    }
    assert_eq!(
        new.replica().unwrap().newest(),
        old.replica().unwrap().newest()
    );
    for lineage in ids {
        assert_eq!(
            new.replica().unwrap().highest(lineage),
            old.replica().unwrap().highest(lineage)
        );
    }
    assert_eq!(contents(&new, now), contents(old, now));
    assert_eq!(new.used(now), old.used(now));
    // From here on both see the same, and must tell the same.
    let mut after = [[sent_to_old[1]; 2], [sent_to_old[2]; 2]];
    for _ in 0..10 {
        let mut more = Steps(now);
        for _ in 0..200 {
            now += more.next(20);
            let key = number(more.next(900) as u32);
            let which = more.next(5);
            for node in [old, &new] {
                match which {
                    0 => drop(node.remove(&key, now)),
                    1 => drop(node.upsert(&key, now, |mut e| e.clr(D::Gpc0, 0))),
                    _ => drop(node.upsert(&key, now, |mut e| e.inc(D::Gpc0, 0, 1, now))),
                }
            }
            let other = &nodes[1 + more.next(2) as usize];
            let _ = other.upsert(&key, now, |mut e| e.inc(D::Gpc0, 0, 1, now));
        }
        for node in [old, &new] {
            // The same order on both.
            node.replica().unwrap().collect(now, 10_000);
        }
        for from in [1, 2] {
            for (node, after) in [old, &new].into_iter().zip(&mut after[from - 1]) {
                pass(&nodes[from], node, after, ids[from], now);
            }
        }
    }
    assert_eq!(contents(&new, now), contents(old, now));
}

/// All that a table has of everybody, as a teacher shows it.
fn teach(from: &Table, to: &Table, teacher: Lineage, now: u64) {
    let replica = from.replica().unwrap();
    let columns = replica.columns().to_vec();
    let mut cursor = Cursor::default();
    loop {
        let mut out = BatchWriter::new(columns.clone());
        let done = replica.read_walk(&mut cursor, Which::All, BUDGET, now, &mut out);
        let batch = out.finish();
        let reader = BatchReader::new(&batch, &columns).unwrap();
        let here = to.replica().unwrap();
        here.apply_shown(&reader, teacher, 0, now).unwrap();
        if done {
            return;
        }
    }
}

/// The process that showed its tables died half-way: its lineage ends, and what it had shown is not counted twice.
#[test]
fn a_part_of_a_table_goes_on_under_a_new_lineage() {
    let [l, b, f] = [Lineage(71), Lineage(72), Lineage(99)];
    let make = |own: Lineage| {
        let lineages = Arc::new(Lineages::new(own));
        for id in [l, b] {
            let index = lineages.index(id).unwrap();
            lineages.set_alive(index, true);
        }
        let build = spec("integer").store("gpc0,gpt0,conn_cur,http_req_rate(10s)");
        let table = Table::new_replicated(build.size(9_000).spec(), 5, lineages);
        table.set_wall_offset(1_000_000_000_000);
        table
    };
    let now = 50_000;
    let (old, peer, new) = (make(l), make(b), make(l));
    let count = |table: &Table, n: u32, times: u64| {
        table
            .upsert(&number(n), now, |mut e| {
                e.inc(D::Gpc0, 0, times, now);
                e.add(D::HttpReqRate, 0, times, now);
            })
            .unwrap();
    };
    let gpc0 = |table: &Table, n: u32| {
        table
            .peek(&number(n), now, |e| e.get(D::Gpc0, 0, now).unwrap_or(0))
            .unwrap_or(0)
    };
    for n in 0..1_000 {
        count(&old, n, 2);
        count(&peer, n, 10);
    }
    old.upsert(&number(3), now, |mut e| e.add(D::ConnCur, 0, 5, now))
        .unwrap();
    old.upsert(&number(3), now, |mut e| e.set(D::Gpt0, 0, 7, now))
        .unwrap();
    let (mut to_peer, mut to_old) = (0, 0);
    pass(&old, &peer, &mut to_peer, l, now);
    pass(&peer, &old, &mut to_old, b, now);
    old.follow(true);
    let mut exporter = Exporter::new(&old);
    let mut importer = Importer::new(&new, exporter.definition()).unwrap();
    for _ in 0..4 {
        let step = exporter.walk(BUDGET, now);
        importer.take(&step.slice, 0, |_, _, _| {}).unwrap();
    }
    importer.settle(now);
    // The peer hears of what is not shown any more.
    for n in 0..1_000 {
        count(&old, n, 1);
    }
    pass(&old, &peer, &mut to_peer, l, now);
    drop(importer);
    let shown: Vec<u32> = (0..1_000).filter(|n| gpc0(&new, *n) > 0).collect();
    assert!((100..900).contains(&shown.len()), "{}", shown.len());
    let highest = new.replica().unwrap().newest();
    assert!(disown(std::slice::from_ref(&new), f, now));
    let replica = new.replica().unwrap();
    assert_eq!(replica.lineages().own(), f);
    assert_eq!(replica.highest(l), highest);
    assert!(replica.highest(b) > 0);
    for n in &shown {
        assert_eq!(gpc0(&new, *n), 12);
    }
    if shown.contains(&3) {
        let get = |what| new.peek(&number(3), now, |e| e.get(what, 0, now)).unwrap();
        assert_eq!(get(D::ConnCur), Some(0), "nobody holds it");
        assert_eq!(get(D::Gpt0), Some(7));
    }
    // It has said nothing of its own yet.
    assert!(journal(&new, 0, now).is_empty());
    count(&new, shown[0], 1);
    assert_eq!(gpc0(&new, shown[0]), 13);
    teach(&peer, &new, b, now);
    let mut from_new = 0;
    pass(&new, &peer, &mut from_new, f, now);
    for n in 0..1_000 {
        let wanted = 13 + u64::from(n == shown[0]);
        assert_eq!(gpc0(&new, n), wanted, "of {n}");
        assert_eq!(gpc0(&peer, n), wanted, "of {n}");
    }
}
