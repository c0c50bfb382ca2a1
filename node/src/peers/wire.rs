//! Messages of the wire to messages of the core and back. The only place that knows both.
//!
//! What arrives is taken as it is: whether it makes sense is the core's business. Only what cannot be expressed is
//! decided here: kinds, data types and reasons of later versions.

use remora_core::peers::batch::{ColumnDef, ColumnKind, Columns};
use remora_core::peers::messages::{
    Batch, BatchKind, Estate, Held, Hello, Holdings, Push, Refusal, Reply, TableAnswer, TableDef,
    Welcome,
};
use remora_core::table::{DataType, Key, KeyType, Lineage};
use remora_proto::peers::v1::{self as proto, batch::Source, push_message, reply_message};

/// For the wire.
pub(super) fn push_message(push: Push) -> proto::PushMessage {
    use push_message::Kind;
    let kind = match push {
        Push::Hello(hello) => Kind::Hello(proto::Hello {
            version: hello.version,
            cluster: hello.cluster,
            node: hello.node,
            lineage: hello.lineage.0,
            newcomer: hello.newcomer,
            mono_ms: hello.mono_ms,
            wall_ms: hello.wall_ms,
            tables: hello.tables.into_iter().map(table_out).collect(),
            more: false,
        }),
        Push::Batch(batch) => Kind::Batch(batch_out(batch)),
        Push::Taught { table, holdings } => Kind::Taught(proto::Taught {
            table,
            holdings: holdings_out(holdings),
        }),
        Push::Holdings { table, holdings } => Kind::Holdings(proto::HoldingsReport {
            table,
            holdings: holdings
                .into_iter()
                .map(|held| proto::Held {
                    lineage: held.lineage.0,
                    known: held.known,
                    highest: held.highest,
                    revision: held.revision,
                })
                .collect(),
        }),
        Push::Heartbeat {
            mono_ms,
            wall_ms,
            vouched,
            over,
        } => Kind::Heartbeat(proto::PushHeartbeat {
            mono_ms,
            wall_ms,
            vouched: vouched.into_iter().map(|lineage| lineage.0).collect(),
            over: over.into_iter().map(|lineage| lineage.0).collect(),
        }),
        Push::Goodbye { numbers, heir } => Kind::Goodbye(proto::PushGoodbye {
            numbers: numbers_out(numbers),
            heir,
        }),
    };
    proto::PushMessage { kind: Some(kind) }
}

/// From the wire; `None`: a kind of a later version.
pub(super) fn push(message: proto::PushMessage) -> Option<Push> {
    use push_message::Kind;
    Some(match message.kind? {
        Kind::MoreTables(_) => return None, // a part is no message: see `greeting`
        Kind::Hello(hello) => Push::Hello(Hello {
            version: hello.version,
            cluster: hello.cluster,
            node: hello.node,
            lineage: Lineage(hello.lineage),
            newcomer: hello.newcomer,
            mono_ms: hello.mono_ms,
            wall_ms: hello.wall_ms,
            tables: hello.tables.into_iter().map(table_in).collect(),
        }),
        Kind::Batch(batch) => Push::Batch(batch_in(batch)?),
        Kind::Taught(taught) => Push::Taught {
            table: taught.table,
            holdings: holdings_in(taught.holdings),
        },
        Kind::Holdings(report) => Push::Holdings {
            table: report.table,
            holdings: report
                .holdings
                .into_iter()
                .map(|held| Held {
                    lineage: Lineage(held.lineage),
                    known: held.known,
                    highest: held.highest,
                    revision: held.revision,
                })
                .collect(),
        },
        Kind::Heartbeat(beat) => Push::Heartbeat {
            mono_ms: beat.mono_ms,
            wall_ms: beat.wall_ms,
            vouched: beat.vouched.into_iter().map(Lineage).collect(),
            over: beat.over.into_iter().map(Lineage).collect(),
        },
        Kind::Goodbye(goodbye) => Push::Goodbye {
            numbers: numbers_in(goodbye.numbers),
            heir: goodbye.heir,
        },
    })
}

/// For the wire.
pub(super) fn reply_message(reply: Reply) -> proto::ReplyMessage {
    use reply_message::Kind;
    let kind = match reply {
        Reply::Welcome(welcome) => Kind::Welcome(proto::Welcome {
            version: welcome.version,
            cluster: welcome.cluster,
            node: welcome.node,
            lineage: welcome.lineage.0,
            newcomer: welcome.newcomer,
            mono_ms: welcome.mono_ms,
            wall_ms: welcome.wall_ms,
            tables: welcome
                .tables
                .into_iter()
                .map(|table| proto::TableAnswer {
                    matched: table.matched,
                    mismatches: table.mismatches,
                })
                .collect(),
            estate: welcome.estate.map(|estate| proto::Estate {
                lineage: estate.lineage.0,
                numbers: numbers_out(estate.numbers),
            }),
            more: false,
        }),
        Reply::Refuse { why, text } => Kind::Refuse(proto::Refuse {
            why: refusal_out(why) as i32,
            text,
        }),
        Reply::Start { table, after } => Kind::Start(proto::Start { table, after }),
        Reply::Teach { table } => Kind::Teach(proto::Teach { table }),
        Reply::Gap { table, after } => Kind::Gap(proto::Gap {
            table,
            after: holdings_out(after),
        }),
        Reply::Want { table, keys } => Kind::Want(proto::Want {
            table,
            keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
        }),
        Reply::Ack { table, upto } => Kind::Ack(proto::Ack { table, upto }),
        Reply::Heartbeat { mono_ms, wall_ms } => {
            Kind::Heartbeat(proto::ReplyHeartbeat { mono_ms, wall_ms })
        }
        Reply::Goodbye => Kind::Goodbye(proto::ReplyGoodbye {}),
    };
    proto::ReplyMessage { kind: Some(kind) }
}

/// From the wire; `None`: a kind of a later version.
pub(super) fn reply(message: proto::ReplyMessage) -> Option<Reply> {
    use reply_message::Kind;
    Some(match message.kind? {
        Kind::MoreAnswers(_) => return None, // a part is no message: see `greeting`
        Kind::Welcome(welcome) => Reply::Welcome(Welcome {
            version: welcome.version,
            cluster: welcome.cluster,
            node: welcome.node,
            lineage: Lineage(welcome.lineage),
            newcomer: welcome.newcomer,
            mono_ms: welcome.mono_ms,
            wall_ms: welcome.wall_ms,
            tables: welcome
                .tables
                .into_iter()
                .map(|table| TableAnswer {
                    matched: table.matched,
                    mismatches: table.mismatches,
                })
                .collect(),
            estate: welcome.estate.map(|estate| Estate {
                lineage: Lineage(estate.lineage),
                numbers: numbers_in(estate.numbers),
            }),
        }),
        Kind::Refuse(refuse) => Reply::Refuse {
            why: refusal_in(refuse.why()),
            text: refuse.text,
        },
        Kind::Start(start) => Reply::Start {
            table: start.table,
            after: start.after,
        },
        Kind::Teach(teach) => Reply::Teach { table: teach.table },
        Kind::Gap(gap) => Reply::Gap {
            table: gap.table,
            after: holdings_in(gap.after),
        },
        Kind::Want(want) => Reply::Want {
            table: want.table,
            keys: want.keys.iter().map(|key| Key::from_stored(key)).collect(),
        },
        Kind::Ack(ack) => Reply::Ack {
            table: ack.table,
            upto: ack.upto,
        },
        Kind::Heartbeat(beat) => Reply::Heartbeat {
            mono_ms: beat.mono_ms,
            wall_ms: beat.wall_ms,
        },
        Kind::Goodbye(proto::ReplyGoodbye {}) => Reply::Goodbye,
    })
}

fn batch_out(batch: Batch) -> proto::Batch {
    let columns = batch.columns;
    proto::Batch {
        table: batch.table,
        mono_ms: batch.mono_ms,
        source: Some(match batch.kind {
            BatchKind::Journal { upto, whole } => {
                Source::Journal(proto::JournalSource { upto, whole })
            }
            BatchKind::Walk => Source::Walk(proto::WalkSource {}),
            BatchKind::Answer => Source::Answer(proto::AnswerSource {}),
            BatchKind::Offer => Source::Offer(proto::OfferSource {}),
        }),
        rows: columns.rows,
        key_width: columns.key_width,
        keys: columns.keys,
        key_lengths: columns.key_lengths,
        heads: columns.heads,
        lineages: columns.lineages,
        stamp_base: columns.stamp_base,
        values: columns
            .values
            .into_iter()
            .map(|(number, data)| proto::Values { number, data })
            .collect(),
    }
}

/// `None`: rows from a source that only a later version knows.
fn batch_in(batch: proto::Batch) -> Option<Batch> {
    Some(Batch {
        table: batch.table,
        mono_ms: batch.mono_ms,
        kind: match batch.source? {
            Source::Journal(proto::JournalSource { upto, whole }) => {
                BatchKind::Journal { upto, whole }
            }
            Source::Walk(proto::WalkSource {}) => BatchKind::Walk,
            Source::Answer(proto::AnswerSource {}) => BatchKind::Answer,
            Source::Offer(proto::OfferSource {}) => BatchKind::Offer,
        },
        columns: Columns {
            rows: batch.rows,
            key_width: batch.key_width,
            keys: batch.keys,
            key_lengths: batch.key_lengths,
            heads: batch.heads,
            lineages: batch.lineages,
            stamp_base: batch.stamp_base,
            values: batch
                .values
                .into_iter()
                .map(|column| (column.number, column.data))
                .collect(),
        },
    })
}

fn numbers_out(numbers: Vec<(u32, u64)>) -> Vec<proto::TableNumber> {
    let out = |(table, number)| proto::TableNumber { table, number };
    numbers.into_iter().map(out).collect()
}

fn numbers_in(numbers: Vec<proto::TableNumber>) -> Vec<(u32, u64)> {
    numbers.into_iter().map(|n| (n.table, n.number)).collect()
}

fn holdings_out(holdings: Holdings) -> Vec<proto::Holding> {
    holdings
        .into_iter()
        .map(|(lineage, number)| proto::Holding {
            lineage: lineage.0,
            number,
        })
        .collect()
}

fn holdings_in(holdings: Vec<proto::Holding>) -> Holdings {
    holdings
        .into_iter()
        .map(|held| (Lineage(held.lineage), held.number))
        .collect()
}

/// Columns of a later version that are named to people, and how much of their names.
const LATER_MAX: usize = 32;
const LATER_NAME_MAX: usize = 40;

fn table_out(table: TableDef) -> proto::TableDef {
    proto::TableDef {
        name: table.name,
        key_type: match table.key_type {
            KeyType::Ip => proto::KeyType::Ipv4,
            KeyType::Ipv6 => proto::KeyType::Ipv6,
            KeyType::Integer => proto::KeyType::Integer,
            KeyType::String => proto::KeyType::String,
            KeyType::Binary => proto::KeyType::Binary,
        } as i32,
        key_len: table.key_len,
        size: table.size,
        expire_ms: table.expire_ms,
        columns: table.columns.iter().map(column_out).collect(),
        entries: table.entries,
    }
}

fn table_in(table: proto::TableDef) -> TableDef {
    let (key_type, key_len) = match table.key_type() {
        proto::KeyType::Ipv4 => (KeyType::Ip, table.key_len),
        proto::KeyType::Ipv6 => (KeyType::Ipv6, table.key_len),
        proto::KeyType::Integer => (KeyType::Integer, table.key_len),
        proto::KeyType::String => (KeyType::String, table.key_len),
        proto::KeyType::Binary => (KeyType::Binary, table.key_len),
        // Of a later version. No table has keys without bytes, so it matches none.
        proto::KeyType::Unspecified => (KeyType::Binary, 0),
    };
    let later = table.columns.iter().filter(|c| column_in(c).is_none());
    TableDef {
        key_type,
        key_len,
        size: table.size,
        expire_ms: table.expire_ms,
        columns: table.columns.iter().filter_map(column_in).collect(),
        entries: table.entries,
        later: later.take(LATER_MAX).map(later_name).collect(),
        name: table.name,
    }
}

/// What a later version calls a column, fit to be shown.
fn later_name(column: &proto::ColumnDef) -> String {
    let shown = |c: &char| c.is_ascii_alphanumeric() || "_[]-.".contains(*c);
    let name: String = column
        .name
        .chars()
        .filter(shown)
        .take(LATER_NAME_MAX)
        .collect();
    if name.is_empty() {
        return format!("column {}", column.number);
    }
    name
}

fn column_out(column: &ColumnDef) -> proto::ColumnDef {
    proto::ColumnDef {
        number: column.number(),
        period_ms: column.period_ms,
        name: column.data_type.element_name(column.index).to_string(),
        factor: if column.factor > 1 { column.factor } else { 0 },
    }
}

/// `None`: a data type of a later version.
fn column_in(column: &proto::ColumnDef) -> Option<ColumnDef> {
    let data_type = DataType::all().nth((column.number >> 7) as usize)?;
    Some(ColumnDef {
        data_type,
        index: (column.number & 0x7f) as u16,
        period_ms: column.period_ms,
        factor: column.factor.max(1),
        kind: ColumnKind::of(data_type),
    })
}

fn refusal_out(why: Refusal) -> proto::Refusal {
    match why {
        Refusal::Myself => proto::Refusal::Myself,
        Refusal::Cluster => proto::Refusal::Cluster,
        Refusal::Version => proto::Refusal::Version,
        Refusal::Lineages => proto::Refusal::Lineages,
        Refusal::Stopping => proto::Refusal::Stopping,
        Refusal::Duplicate => proto::Refusal::Duplicate,
        Refusal::Other => proto::Refusal::Unspecified,
    }
}

fn refusal_in(why: proto::Refusal) -> Refusal {
    match why {
        proto::Refusal::Myself => Refusal::Myself,
        proto::Refusal::Cluster => Refusal::Cluster,
        proto::Refusal::Version => Refusal::Version,
        proto::Refusal::Lineages => Refusal::Lineages,
        proto::Refusal::Stopping => Refusal::Stopping,
        proto::Refusal::Duplicate => Refusal::Duplicate,
        proto::Refusal::Unspecified => Refusal::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableDef {
        let rate = ColumnDef {
            data_type: DataType::GpcRate,
            index: 3,
            period_ms: 10_000,
            factor: 512,
            kind: ColumnKind::Rate,
        };
        TableDef {
            name: "web".into(),
            key_type: KeyType::Ip,
            key_len: 4,
            size: 1_000,
            expire_ms: Some(60_000),
            columns: vec![rate],
            entries: 900,
            later: Vec::new(),
        }
    }

    fn columns() -> Columns {
        Columns {
            rows: 1,
            key_width: 4,
            keys: vec![1, 2, 3, 4],
            key_lengths: vec![5],
            heads: vec![6],
            lineages: vec![7],
            stamp_base: 8,
            values: vec![(9, vec![10])],
        }
    }

    #[test]
    fn pushes_survive_the_wire() {
        let held = Held {
            lineage: Lineage(1),
            known: 2,
            highest: 3,
            revision: 4,
        };
        let batch = |kind| {
            Push::Batch(Batch {
                table: 1,
                mono_ms: 2,
                kind,
                columns: columns(),
            })
        };
        for message in [
            Push::Hello(Hello {
                version: 1,
                cluster: "c".into(),
                node: "n".into(),
                lineage: Lineage(5),
                newcomer: true,
                mono_ms: 6,
                wall_ms: 7,
                tables: vec![table()],
            }),
            batch(BatchKind::Journal {
                upto: 3,
                whole: true,
            }),
            batch(BatchKind::Walk),
            batch(BatchKind::Answer),
            batch(BatchKind::Offer),
            Push::Taught {
                table: 1,
                holdings: vec![(Lineage(2), 3)],
            },
            Push::Holdings {
                table: 1,
                holdings: vec![held],
            },
            Push::Heartbeat {
                mono_ms: 1,
                wall_ms: 2,
                vouched: vec![Lineage(3)],
                over: vec![Lineage(4)],
            },
            Push::Goodbye {
                numbers: vec![(1, 2)],
                heir: true,
            },
        ] {
            assert_eq!(push(push_message(message.clone())), Some(message));
        }
        assert_eq!(push(proto::PushMessage { kind: None }), None);
    }

    #[test]
    fn replies_survive_the_wire() {
        let answer = TableAnswer {
            matched: true,
            mismatches: vec!["size".into()],
        };
        let mut all = vec![
            Reply::Welcome(Welcome {
                version: 1,
                cluster: "c".into(),
                node: "n".into(),
                lineage: Lineage(5),
                newcomer: false,
                mono_ms: 6,
                wall_ms: 7,
                estate: Some(Estate {
                    lineage: Lineage(9),
                    numbers: vec![(0, 7)],
                }),
                tables: vec![answer],
            }),
            Reply::Start { table: 1, after: 2 },
            Reply::Teach { table: 1 },
            Reply::Gap {
                table: 1,
                after: vec![(Lineage(2), 3)],
            },
            Reply::Want {
                table: 1,
                keys: vec![Key::from_stored(b"key")],
            },
            Reply::Ack { table: 1, upto: 2 },
            Reply::Heartbeat {
                mono_ms: 1,
                wall_ms: 2,
            },
            Reply::Goodbye,
        ];
        for why in [
            Refusal::Myself,
            Refusal::Cluster,
            Refusal::Version,
            Refusal::Lineages,
            Refusal::Stopping,
            Refusal::Other,
        ] {
            let text = "why".to_owned();
            all.push(Reply::Refuse { why, text });
        }
        for message in all {
            assert_eq!(reply(reply_message(message.clone())), Some(message));
        }
        assert_eq!(reply(proto::ReplyMessage { kind: None }), None);
    }

    #[test]
    fn what_only_later_versions_know_is_left_out() {
        let mut theirs = table_out(table());
        theirs.columns.push(proto::ColumnDef {
            number: 99 << 7,
            period_ms: 0,
            name: "later_cnt\n".into(),
            factor: 0,
        });
        let shared = TableDef {
            later: vec!["later_cnt".into()],
            ..table()
        };
        assert_eq!(table_in(theirs.clone()), shared, "but it is said");
        theirs.key_type = 77;
        assert_eq!(table_in(theirs).key_len, 0, "matches no table");
        let mut batch = batch_out(Batch {
            table: 0,
            mono_ms: 0,
            kind: BatchKind::Walk,
            columns: columns(),
        });
        batch.source = None;
        assert_eq!(batch_in(batch), None);
    }
}
