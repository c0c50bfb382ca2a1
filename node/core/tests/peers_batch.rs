//! The columnar codec: what is written is read, whatever else arrives is refused without harm, and rows are small.

use proptest::prelude::*;
use remora_core::peers::batch::{
    BadBatch, BatchReader, BatchWriter, ColumnDef, ColumnKind, Columns, EdictRow, LINEAGES_MAX,
    ROWS_MAX, RowFlags, RowHead, columns_of, unzigzag, zigzag,
};
use remora_core::table::{DataType, Lineage, Stamp, Stored};

fn stored(data_type: DataType, elements: u16, period_ms: u32) -> Stored {
    Stored {
        data_type,
        elements,
        period_ms,
    }
}

/// One of each kind, deliberately not in wire order.
fn mixed() -> Vec<ColumnDef> {
    columns_of(&[
        stored(DataType::ServerKey, 1, 0),
        stored(DataType::Gpt, 2, 0),
        stored(DataType::ServerId, 1, 0),
        stored(DataType::HttpReqRate, 1, 10_000),
        stored(DataType::BytesInCnt, 1, 0),
        stored(DataType::ConnCur, 1, 0),
        stored(DataType::GpcRate, 2, 60_000),
    ])
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(u64),
    Rate(Option<(u32, u32, u32)>),
    Register(Option<(u32, Stamp)>),
    Text(Option<(Vec<u8>, Stamp)>),
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    key: Vec<u8>,
    head: RowHead,
    edicts: Vec<EdictRow>,
    values: Vec<Value>,
}

fn write(columns: &[ColumnDef], rows: &[Row]) -> Columns {
    let mut out = BatchWriter::new(columns);
    write_into(&mut out, rows);
    out.finish()
}

fn write_into(out: &mut BatchWriter, rows: &[Row]) {
    for row in rows {
        out.row(&row.key, &row.head, &row.edicts);
        for value in &row.values {
            match value {
                Value::Number(n) => out.counter(*n),
                Value::Rate(None) => out.rate_idle(),
                Value::Rate(Some((age, cur, prev))) => out.rate(*age, *cur, *prev),
                Value::Register(None) => out.register(0, None),
                Value::Register(Some((value, stamp))) => out.register(*value, Some(*stamp)),
                Value::Text(text) => out.text(text.as_ref().map(|(t, s)| (&t[..], *s))),
            }
        }
    }
}

fn read(mut batch: BatchReader<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    while let Some((key, head, edicts)) = batch.next_row() {
        let values = batch.columns().iter().map(|column| match column.kind {
            ColumnKind::Counter | ColumnKind::Gauge => Value::Number(batch.counter()),
            ColumnKind::Rate => Value::Rate(batch.rate()),
            ColumnKind::Register => Value::Register(batch.register()),
            ColumnKind::ServerKey => Value::Text(batch.text().map(|(t, s)| (t.to_vec(), s))),
        });
        rows.push(Row {
            key: key.to_vec(),
            head,
            values: values.collect(),
            edicts: edicts.collect(),
        });
    }
    rows
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(0), 0..300u64, any::<u64>()]
}
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 0..300u32, any::<u32>()]
}
fn lineage() -> impl Strategy<Value = Lineage> {
    prop_oneof![
        Just(Lineage(7)),
        Just(Lineage(u64::MAX)),
        (1..20u64).prop_map(Lineage)
    ]
}
fn stamp() -> impl Strategy<Value = Stamp> {
    let ms = prop_oneof![1_790_000_000_000..1_790_000_100_000u64, any::<u64>()];
    (ms, lineage()).prop_map(|(ms, lineage)| Stamp { ms, lineage })
}
fn flags() -> impl Strategy<Value = RowFlags> {
    use RowFlags as F;
    let all = [F::HOLDS_OTHERS, F::FRESH, F::HELD, F::TOMB, F::NO_CELL];
    prop::collection::vec(any::<bool>(), 5).prop_map(move |set| {
        all.iter()
            .zip(set)
            .fold(F::NONE, |f, (flag, on)| f.with_if(on, *flag))
    })
}
fn value(kind: ColumnKind) -> BoxedStrategy<Value> {
    use prop::option::of;
    match kind {
        ColumnKind::Counter | ColumnKind::Gauge => number().prop_map(Value::Number).boxed(),
        ColumnKind::Rate => of((word(), word(), word())).prop_map(Value::Rate).boxed(),
        ColumnKind::Register => of((word(), stamp())).prop_map(Value::Register).boxed(),
        ColumnKind::ServerKey => of((prop::collection::vec(any::<u8>(), 0..20), stamp()))
            .prop_map(Value::Text)
            .boxed(),
    }
}
fn row(columns: &[ColumnDef]) -> impl Strategy<Value = Row> + use<> {
    let key = prop_oneof![
        Just(b"abcd".to_vec()),
        prop::collection::vec(any::<u8>(), 4),
        prop::collection::vec(any::<u8>(), 0..9)
    ];
    let count = columns.len();
    let edict = (prop::option::of(0..count), stamp())
        .prop_map(|(column, stamp)| EdictRow { column, stamp });
    let edicts = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(edict, 0..3)];
    let values: Vec<_> = columns.iter().map(|c| value(c.kind)).collect();
    let head = (
        flags(),
        lineage(),
        number(),
        word(),
        prop::option::of(stamp()),
    );
    (key, head, edicts, values).prop_map(|(key, head, edicts, values)| {
        let (flags, lineage, version, touch_age_ms, epoch) = head;
        let first = if flags.contains(RowFlags::FRESH) {
            version / 2
        } else {
            0
        };
        Row {
            key,
            head: RowHead {
                flags,
                lineage,
                version,
                first,
                touch_age_ms,
                born_age_ms: touch_age_ms.saturating_add(version as u32 >> 8),
                epoch,
            },
            edicts,
            values,
        }
    })
}
fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec(row(&mixed()), 0..20)
}

/// Reads to the end; what comes out is checked for nothing but its number.
fn read_hostile(columns: &Columns, defs: &[ColumnDef]) {
    let Ok(batch) = BatchReader::new(columns, defs) else {
        return;
    };
    let left = batch.rows_left();
    assert_eq!(read(batch).len(), left);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_round_trip(first in rows(), second in rows()) {
        let defs = mixed();
        let mut writer = BatchWriter::new(&defs[..]);
        for rows in [first, second] {
            write_into(&mut writer, &rows);
            prop_assert_eq!(writer.rows(), rows.len());
            let columns = writer.finish();
            prop_assert!(writer.is_empty());
            prop_assert_eq!(&columns, &write(&defs, &rows), "a used writer is as good as new");
            let batch = BatchReader::new(&columns, &defs).expect("sound");
            prop_assert_eq!(read(batch), rows);
        }
    }

    #[test]
    fn values_and_edicts_that_nobody_reads_are_passed_over(rows in rows(), every in 1..4usize) {
        let defs = mixed();
        let columns = write(&defs, &rows);
        let mut batch = BatchReader::new(&columns, &defs).expect("sound");
        for (i, row) in rows.iter().enumerate() {
            let (key, head, edicts) = batch.next_row().expect("as many rows");
            prop_assert_eq!((key, head), (&row.key[..], row.head));
            if i % every == 0 {
                prop_assert_eq!(edicts.collect::<Vec<_>>(), row.edicts.clone());
                prop_assert_eq!(Value::Number(batch.counter()), row.values[0].clone());
            }
        }
        prop_assert!(batch.next_row().is_none());
    }

    #[test]
    fn every_truncation_is_refused(rows in prop::collection::vec(row(&mixed()), 1..8), cut in any::<prop::sample::Index>()) {
        let defs = mixed();
        let whole = write(&defs, &rows);
        let streams = 3 + whole.values.len();
        for at in 0..streams {
            let mut columns = whole.clone();
            let stream = stream(&mut columns, at);
            if stream.is_empty() {
                continue;
            }
            // A stream cut down to nothing means something else; 1 byte of several does not.
            stream.truncate(1 + cut.index(stream.len()));
            if *stream == *self::stream(&mut whole.clone(), at) {
                stream.push(0);
            }
            prop_assert!(BatchReader::new(&columns, &defs).is_err(), "stream {}", at);
        }
    }

    #[test]
    fn damage_never_panics(
        rows in rows(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        (count, width) in (prop::option::of(word()), prop::option::of(word())),
    ) {
        let defs = mixed();
        let mut columns = write(&defs, &rows);
        for (which, at, byte) in damage {
            let streams = 3 + columns.values.len();
            let stream = stream(&mut columns, which.index(streams));
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        columns.rows = count.unwrap_or(columns.rows);
        columns.key_width = width.unwrap_or(columns.key_width);
        read_hostile(&columns, &defs);
    }

    #[test]
    fn garbage_never_panics(
        rows in 0..200u32,
        key_width in 0..9u32,
        streams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 11),
        lineages in prop::collection::vec(any::<u64>(), 0..4),
        stamp_base in any::<u64>(),
    ) {
        let defs = mixed();
        let mut streams = streams.into_iter();
        let mut next = || streams.next().unwrap_or_default();
        let columns = Columns {
            rows, key_width, lineages, stamp_base,
            keys: next(), key_lengths: next(), heads: next(),
            values: defs.iter().map(|c| (c.number(), next())).collect(),
        };
        read_hostile(&columns, &defs);
    }

    #[test]
    fn server_ids_are_small_near_zero(n in any::<i32>()) {
        prop_assert_eq!(unzigzag(zigzag(n)), n);
        prop_assert!(zigzag(n % 64) < 128);
    }
}

fn stream(columns: &mut Columns, at: usize) -> &mut Vec<u8> {
    match at {
        0 => &mut columns.keys,
        1 => &mut columns.key_lengths,
        2 => &mut columns.heads,
        _ => &mut columns.values[at - 3].1,
    }
}

fn plain(key: [u8; 4], version: u64, touch_age_ms: u32) -> (Vec<u8>, RowHead) {
    let head = RowHead {
        lineage: Lineage(0x1234_5678_9abc_def0),
        version,
        touch_age_ms,
        born_age_ms: touch_age_ms,
        ..RowHead::default()
    };
    (key.to_vec(), head)
}

#[test]
fn columns_come_in_wire_order_and_number_their_elements() {
    let names: Vec<_> = mixed()
        .iter()
        .map(|c| c.data_type.element_name(c.index).to_string())
        .collect();
    let expected = [
        "conn_cur",
        "http_req_rate",
        "bytes_in_cnt",
        "gpc0_rate",
        "gpc1_rate",
        "server_id",
        "server_key",
        "gpt0",
        "gpt1",
    ];
    assert_eq!(names, expected);
    let numbers: Vec<_> = mixed().iter().map(ColumnDef::number).collect();
    assert_eq!(
        numbers,
        [
            6 << 7,
            10 << 7,
            13 << 7,
            24 << 7,
            (24 << 7) + 1,
            0,
            19 << 7,
            22 << 7,
            (22 << 7) + 1
        ]
    );
    assert_eq!(mixed()[3].period_ms, 60_000);
    assert_eq!(mixed()[2].period_ms, 0);
}

#[test]
fn what_is_zero_everywhere_does_not_travel() {
    let defs = mixed();
    let mut out = BatchWriter::new(&defs[..]);
    for i in 0..100 {
        let (key, head) = plain([10, 0, 0, i], u64::from(i) + 1, 0);
        out.row(&key, &head, &[]);
        out.counter(0);
        out.rate_idle();
        out.counter(u64::from(i == 50)); // the rest of the row is left out
    }
    let columns = out.finish();
    assert_eq!(columns.values.len(), 1, "{:?}", columns.values);
    let mut batch = BatchReader::new(&columns, &defs).expect("sound");
    for i in 0..100 {
        batch.next_row().expect("row");
        batch.skip();
        batch.skip();
        assert_eq!(batch.counter(), u64::from(i == 50));
        assert_eq!(batch.rate(), None);
    }
}

/// A row of two rates and two counters under an IPv4 key, as a flush of a busy node has them: keys in no order, ages
/// within one flush, windows of 10 s and 60 s, counts of some hundreds.
#[test]
fn a_typical_row_takes_at_most_20_bytes() {
    let defs = columns_of(&[
        stored(DataType::ConnCnt, 1, 0),
        stored(DataType::ConnRate, 1, 10_000),
        stored(DataType::HttpReqCnt, 1, 0),
        stored(DataType::HttpReqRate, 1, 60_000),
    ]);
    let mut out = BatchWriter::new(&defs[..]);
    let mut seed = 88_172_645_463_325_252u64;
    for i in 0..1_000u64 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let random = seed as u32;
        let (key, head) = plain(
            random.to_be_bytes(),
            5_000_000 + i + i / 7,
            20 - (i / 50) as u32,
        );
        let head = RowHead {
            flags: RowFlags::HOLDS_OTHERS,
            ..head
        };
        out.row(&key, &head, &[]);
        out.counter(u64::from(random % 200));
        out.rate(random % 10_000, random % 100, random % 110);
        out.counter(u64::from(random % 900));
        out.rate(random % 60_000, random % 200, random % 150);
    }
    assert_eq!(out.rows(), 1_000);
    let written = out.bytes();
    let columns = out.finish();
    let each = columns.bytes() as f64 / 1_000.0;
    assert!(each <= 20.0, "{each} bytes a row");
    assert!(written <= columns.bytes() && written > columns.bytes() - 40);
}

#[test]
fn repeated_keys_and_idle_rates_are_nearly_free() {
    let defs = columns_of(&[stored(DataType::ConnRate, 1, 10_000)]);
    let mut out = BatchWriter::new(&defs[..]);
    for i in 0..100 {
        let (key, mut head) = plain([1, 2, 3, 4], 100, 5);
        head.lineage = Lineage(i % 4);
        out.row(&key, &head, &[]);
        if i == 0 {
            out.rate(1, 1, 1);
        } else {
            out.rate_idle();
        }
    }
    let columns = out.finish();
    assert_eq!(columns.keys, [1, 2, 3, 4]);
    assert_eq!(columns.key_lengths, []);
    assert_eq!(columns.values[0].1.len(), 3 + 99);
    // Flags, dictionary index, version, age.
    assert!(columns.heads.len() <= 400 + 4, "{}", columns.heads.len());
}

#[test]
fn columns_and_edicts_of_later_versions_are_skipped() {
    let theirs = mixed();
    let known: Vec<_> = theirs
        .iter()
        .filter(|c| c.kind == ColumnKind::Rate)
        .copied()
        .collect();
    let (key, head) = plain([9; 4], 3, 1);
    let stamp = Stamp {
        ms: 5,
        lineage: Lineage(6),
    };
    let edicts = [0, 1, 2].map(|at| EdictRow {
        column: Some(at),
        stamp,
    });
    let mut out = BatchWriter::new(&theirs[..]);
    out.row(&key, &head, &edicts);
    out.counter(1);
    out.rate(2, 3, 4);
    let mut columns = out.finish();
    columns.values.push((999_999, vec![0xff; 3]));
    let mut batch = BatchReader::new(&columns, &known).expect("sound as far as it is known");
    let (_, _, edicts) = batch.next_row().expect("row");
    assert_eq!(
        edicts.collect::<Vec<_>>(),
        [EdictRow {
            column: Some(0),
            stamp
        }]
    );
    assert_eq!(batch.rate(), Some((2, 3, 4)));
}

#[test]
fn bounds_hold_before_anything_is_read() {
    let defs = mixed();
    let with = |change: &dyn Fn(&mut Columns)| {
        let (key, head) = plain([9; 4], 3, 1);
        let mut out = BatchWriter::new(&defs[..]);
        out.row(&key, &head, &[]);
        out.counter(1);
        let mut columns = out.finish();
        change(&mut columns);
        BatchReader::new(&columns, &defs).map(|b| b.rows_left())
    };
    assert_eq!(with(&|_| {}), Ok(1));
    assert_eq!(
        with(&|c| c.rows = ROWS_MAX as u32 + 1),
        Err(BadBatch::TooMany("rows"))
    );
    assert_eq!(with(&|c| c.rows = 2), Err(BadBatch::Short("values")));
    assert_eq!(with(&|c| c.rows = 0), Err(BadBatch::Long("values")));
    assert_eq!(
        with(&|c| c.lineages = vec![0; LINEAGES_MAX + 1]),
        Err(BadBatch::TooMany("lineages"))
    );
    assert_eq!(
        with(&|c| c.lineages.clear()),
        Err(BadBatch::Lineage("heads"))
    );
    assert_eq!(
        with(&|c| c.key_width = u32::MAX),
        Err(BadBatch::TooMany("bytes of a key"))
    );
    assert_eq!(with(&|c| c.key_width = 5), Err(BadBatch::Short("keys")));
    assert_eq!(with(&|c| c.key_width = 3), Err(BadBatch::Long("keys")));
    assert_eq!(with(&|c| c.heads.push(0)), Err(BadBatch::Long("heads")));
    assert_eq!(with(&|c| c.heads[0] |= 1), Err(BadBatch::NoKey));
    assert_eq!(
        with(&|c| c.values.push(c.values[0].clone())),
        Err(BadBatch::Twice(6 << 7))
    );
    // A flag byte that claims 2^60 edicts.
    let claim = [
        0x80, 0x04, 0x06, 0x02, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10,
    ];
    assert_eq!(
        with(&|c| c.heads = claim.to_vec()),
        Err(BadBatch::Short("heads"))
    );
}

#[test]
fn keys_are_checked_by_the_table_that_is_to_take_them() {
    let defs = mixed();
    let mut out = BatchWriter::new(&defs[..]);
    for key in [&b"abcd"[..], b"abcd", b"abcde"] {
        out.row(key, &RowHead::default(), &[]);
    }
    let columns = out.finish();
    let batch = BatchReader::new(&columns, &defs).expect("sound");
    assert_eq!(batch.check_keys(|key| key.len() < 6), Ok(()));
    assert_eq!(batch.check_keys(|key| key.len() == 4), Err(BadBatch::Key));
    assert_eq!(batch.rows_left(), 3);
}
