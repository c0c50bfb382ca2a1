//! Messages as version 1 wrote them are still read, and still written in the same bytes.
//!
//! `v1.txt` is the capture: one line per message, `push|reply NAME HEX`. Lines are only ever added: a change that makes
//! an old line fail breaks clusters in the middle of an upgrade.

use std::collections::BTreeSet;

use prost::Message;
use remora_proto::peers::v1::push_message::Kind as Push;
use remora_proto::peers::v1::reply_message::Kind as Reply;
use remora_proto::peers::v1::*;

const CAPTURE: &str = include_str!("v1.txt");

fn captured(stream: &str, name: &str) -> Vec<u8> {
    let line = CAPTURE
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{stream} {name} ")));
    let hex = line.unwrap_or_else(|| panic!("'{stream} {name}' is not in the capture"));
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

const LINEAGE: u64 = 0x0102_0304_0506_0708;

fn table() -> TableDef {
    TableDef {
        name: "web".into(),
        key_type: KeyType::Ipv4 as i32,
        key_len: 4,
        size: 100_000,
        expire_ms: Some(600_000),
        columns: vec![
            ColumnDef {
                number: 9 << 7,
                period_ms: 0,
                name: "http_req_cnt".into(),
                factor: 0,
            },
            ColumnDef {
                number: 10 << 7,
                period_ms: 10_000,
                name: "http_req_rate".into(),
                factor: 0,
            },
        ],
        entries: 0,
    }
}

fn holdings() -> Vec<Holding> {
    vec![Holding {
        lineage: LINEAGE,
        number: 300,
    }]
}

fn journal() -> batch::Source {
    batch::Source::Journal(JournalSource {
        upto: 300,
        whole: true,
    })
}

fn batch(source: batch::Source) -> Push {
    Push::Batch(Batch {
        table: 1,
        mono_ms: 5_000_000,
        source: Some(source),
        rows: 2,
        key_width: 4,
        keys: vec![192, 0, 2, 1, 192, 0, 2, 2],
        key_lengths: vec![],
        heads: vec![0, 2, 10, 0, 2, 0],
        lineages: vec![LINEAGE],
        stamp_base: 1_790_000_000_000,
        values: vec![Values {
            number: 9 << 7,
            data: vec![7, 8],
        }],
    })
}

/// A hello with a table of rates in units of their own.
fn hello_factor() -> Push {
    let mut table = table();
    table.columns.push(ColumnDef {
        number: 14 << 7,
        period_ms: 60_000,
        name: "bytes_in_rate".into(),
        factor: 1_024,
    });
    Push::Hello(Hello {
        version: 1,
        cluster: "mesh".into(),
        node: "a".into(),
        lineage: LINEAGE,
        newcomer: false,
        mono_ms: 5_000_000,
        wall_ms: 1_790_000_000_000,
        tables: vec![table],
        more: false,
    })
}

fn pushes() -> Vec<(&'static str, Push)> {
    let hello = Hello {
        version: 1,
        cluster: "mesh".into(),
        node: "a".into(),
        lineage: LINEAGE,
        newcomer: true,
        mono_ms: 5_000_000,
        wall_ms: 1_790_000_000_000,
        tables: vec![table()],
        more: false,
    };
    let heartbeat = PushHeartbeat {
        mono_ms: 5_000_000,
        wall_ms: 1_790_000_000_000,
        vouched: vec![LINEAGE],
        over: Vec::new(),
    };
    vec![
        ("hello", Push::Hello(hello)),
        ("batch-journal", batch(journal())),
        ("batch-walk", batch(batch::Source::Walk(WalkSource {}))),
        (
            "batch-answer",
            batch(batch::Source::Answer(AnswerSource {})),
        ),
        ("batch-offer", batch(batch::Source::Offer(OfferSource {}))),
        (
            "taught",
            Push::Taught(Taught {
                table: 1,
                holdings: holdings(),
            }),
        ),
        (
            "holdings",
            Push::Holdings(HoldingsReport {
                table: 1,
                holdings: vec![Held {
                    lineage: LINEAGE,
                    known: 300,
                    highest: 310,
                    revision: 2,
                }],
            }),
        ),
        ("heartbeat", Push::Heartbeat(heartbeat)),
        (
            "goodbye",
            Push::Goodbye(PushGoodbye {
                numbers: vec![TableNumber {
                    table: 1,
                    number: 300,
                }],
                heir: false,
            }),
        ),
        ("hello-factor", hello_factor()),
        (
            "goodbye-heir",
            Push::Goodbye(PushGoodbye {
                numbers: vec![TableNumber {
                    table: 1,
                    number: 300,
                }],
                heir: true,
            }),
        ),
        ("hello-more", hello_more()),
        (
            "more-tables",
            Push::MoreTables(MoreTables {
                tables: vec![table()],
                more: true,
            }),
        ),
    ]
}

/// A hello of which more follows.
fn hello_more() -> Push {
    match hello_factor() {
        Push::Hello(hello) => Push::Hello(Hello {
            more: true,
            ..hello
        }),
        other => other,
    }
}

fn replies() -> Vec<(&'static str, Reply)> {
    let welcome = Welcome {
        version: 1,
        cluster: "mesh".into(),
        node: "b".into(),
        lineage: LINEAGE,
        newcomer: false,
        mono_ms: 5_000_000,
        wall_ms: 1_790_000_000_000,
        tables: vec![TableAnswer {
            matched: true,
            mismatches: vec!["size 10".into()],
        }],
        estate: None,
        more: false,
    };
    let refuse = Refuse {
        why: Refusal::Cluster as i32,
        text: "other cluster".into(),
    };
    let want = Want {
        table: 1,
        keys: vec![vec![192, 0, 2, 1]],
    };
    vec![
        ("welcome", Reply::Welcome(welcome.clone())),
        ("refuse", Reply::Refuse(refuse)),
        (
            "start",
            Reply::Start(Start {
                table: 1,
                after: 300,
            }),
        ),
        ("teach", Reply::Teach(Teach { table: 1 })),
        (
            "gap",
            Reply::Gap(Gap {
                table: 1,
                after: holdings(),
            }),
        ),
        ("want", Reply::Want(want)),
        (
            "ack",
            Reply::Ack(Ack {
                table: 1,
                upto: 300,
            }),
        ),
        (
            "heartbeat",
            Reply::Heartbeat(ReplyHeartbeat {
                mono_ms: 5_000_000,
                wall_ms: 1_790_000_000_000,
            }),
        ),
        ("goodbye", Reply::Goodbye(ReplyGoodbye {})),
        (
            "welcome-estate",
            Reply::Welcome(Welcome {
                estate: Some(Estate {
                    lineage: LINEAGE + 1,
                    numbers: vec![TableNumber {
                        table: 1,
                        number: 300,
                    }],
                }),
                ..welcome.clone()
            }),
        ),
        (
            "more-answers",
            Reply::MoreAnswers(MoreAnswers {
                tables: welcome.tables.clone(),
                more: true,
            }),
        ),
        (
            "welcome-more",
            Reply::Welcome(Welcome {
                more: true,
                ..welcome
            }),
        ),
    ]
}

#[test]
fn every_kind_of_push_is_read_and_written_as_captured() {
    for (name, kind) in pushes() {
        let message = PushMessage { kind: Some(kind) };
        let written = message.encode_to_vec();
        let line = format!("push {name} {}", hex(&written));
        assert_eq!(written, captured("push", name), "now written: {line}");
        let read = PushMessage::decode(&captured("push", name)[..]).expect("sound");
        assert_eq!(read, message, "{name}");
    }
}

#[test]
fn every_kind_of_reply_is_read_and_written_as_captured() {
    for (name, kind) in replies() {
        let message = ReplyMessage { kind: Some(kind) };
        let written = message.encode_to_vec();
        let line = format!("reply {name} {}", hex(&written));
        assert_eq!(written, captured("reply", name), "now written: {line}");
        let read = ReplyMessage::decode(&captured("reply", name)[..]).expect("sound");
        assert_eq!(read, message, "{name}");
    }
}

#[test]
fn the_capture_has_nothing_else() {
    let mut names: Vec<String> = pushes().iter().map(|(n, _)| format!("push {n}")).collect();
    names.extend(replies().iter().map(|(n, _)| format!("reply {n}")));
    names.extend(["push later-kind", "push later-fields", "reply later-kind"].map(String::from));
    let lines = CAPTURE.lines().filter(|line| !line.starts_with('#'));
    let in_file: BTreeSet<&str> = lines
        .filter_map(|l| l.rsplit_once(' ').map(|(n, _)| n))
        .collect();
    assert_eq!(in_file, names.iter().map(String::as_str).collect());
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let read = PushMessage::decode(&captured("push", "later-kind")[..]).expect("sound");
    assert_eq!(read.kind, None);
    let read = ReplyMessage::decode(&captured("reply", "later-kind")[..]).expect("sound");
    assert_eq!(read.kind, None);
    // The journal batch with a field 100 in the message, 101 in the batch and 102 in its column.
    let read = PushMessage::decode(&captured("push", "later-fields")[..]).expect("sound");
    assert_eq!(read.kind, Some(batch(journal())));
}
