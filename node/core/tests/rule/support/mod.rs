//! A small world for rule tests: tables, proxies, a connection, a stream, and a reader for expressions and conditions
//! as users write them (no quoting, no named ACLs: the real parser is the configuration's business).

#![allow(dead_code, unused_imports)] // the configuration's tests borrow a part

mod client;
mod reader;

pub use client::*;
pub use reader::*;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use parking_lot::Mutex;
pub use remora_core::http1::{Head, Limits};
pub use remora_core::rule::action::{Action, Reply, ReplyBody, Rule, RuleSet, Verdict};
pub use remora_core::rule::cond::{Acl, AclLine, Cond, MatchMethod, Patterns, Term, Ternary};
pub use remora_core::rule::cx::{ConnState, Content, Cx, Msgs, StreamState};
pub use remora_core::rule::expr::{Expr, Format, FormatFlags, FormatItem, Outcome};
use remora_core::rule::matcher::compile_regex;
pub use remora_core::rule::proxy::{
    BackendRef, Progress, ProxyRules, RequestOutcome, UseBackend, request_phase, response_phase,
    tcp_phase,
};
use remora_core::rule::registry::{self, Arg, ArgKind};
use remora_core::rule::sample::{Sample, SampleType};
pub use remora_core::rule::track;
use remora_core::rule::vars::{Scope, VarRef, Vars};
pub use remora_core::table::{DataType, KeyType, Stored, Table, TableId, TableSpec};
use remora_core::time::Now;
pub use remora_core::world::{
    ErrorPages, ProcessState, ProxyId, ProxyState, ServerState, StatusSet, World,
};

/// `"NAME type T size N expire MS store a,b(period_ms),c(n)"`
pub fn table(text: &str) -> Table {
    let mut words = text.split_whitespace();
    let mut spec = TableSpec {
        size: 100,
        ..TableSpec::new(words.next().expect("name"), KeyType::Ip)
    };
    while let Some(word) = words.next() {
        match word {
            "type" => {
                (spec.key_type, spec.key_len) = match words.next().expect("type") {
                    "ip" => (KeyType::Ip, 4),
                    "ipv6" => (KeyType::Ipv6, 16),
                    "integer" => (KeyType::Integer, 4),
                    "string" => (KeyType::String, 31),
                    "binary" => (KeyType::Binary, 32),
                    other => panic!("{other}"),
                };
            }
            "size" => spec.size = words.next().expect("size").parse().expect("size"),
            "expire" => spec.expire_ms = Some(words.next().expect("ms").parse().expect("ms")),
            "nopurge" => spec.nopurge = true,
            "store" => {
                for item in top_level(words.next().expect("list")) {
                    let (name, args) = call(item);
                    let data_type = DataType::all()
                        .find(|d| d.name() == name)
                        .unwrap_or_else(|| panic!("data type {name}"));
                    let numbers: Vec<u32> = args
                        .split(',')
                        .filter(|a| !a.is_empty())
                        .map(|a| a.parse().expect(a))
                        .collect();
                    let (elements, period_ms) = match (name, numbers.as_slice()) {
                        ("gpc_rate", [n, period]) => (*n as u16, *period),
                        ("gpc" | "gpt", [n]) => (*n as u16, 0),
                        (_, [period]) => (1, *period),
                        _ => (1, 0),
                    };
                    spec.store.push(Stored {
                        data_type,
                        elements,
                        period_ms,
                    });
                }
            }
            other => panic!("{other}"),
        }
    }
    spec.store.sort_by_key(|s| s.data_type);
    Table::new(spec, 7)
}

/// A proxy without rules. `kind`: `frontend`, `backend` or `listen`.
pub fn proxy(name: &str, kind: &str, table: Option<u16>) -> ProxyState {
    ProxyState {
        name: name.to_string(),
        id: 2,
        is_frontend: kind != "backend",
        is_backend: kind != "frontend",
        mode_http: true,
        table: table.map(TableId),
        rules: ProxyRules::default(),
        error_pages: ErrorPages::default(),
        front: Default::default(),
        back: Default::default(),
        servers: Box::default(),
        binds: Box::new([String::new()]),
        bind_conns: Box::new([AtomicU32::new(0)]),
        maxconn: AtomicU32::new(1000),
        fullconn: 100,
        allbackups: false,
    }
}

pub fn world(tables: Vec<Table>, proxies: Vec<ProxyState>) -> World {
    World {
        tables: tables.into(),
        proxies: proxies.into(),
        proc_vars: Mutex::new(Vars::default()),
        process: ProcessState {
            hostname: "box".to_string(),
            http_err_codes: StatusSet::client_errors(),
            http_fail_codes: StatusSet::server_failures(),
            stick_counters: 3,
            ..ProcessState::default()
        },
    }
}

/// A connection from `ip` to the first proxy.
pub fn conn(ip: &str, now_ms: u64) -> ConnState {
    let src = SocketAddr::new(ip.parse().expect(ip), 40_000);
    let dst = "127.0.0.1:8080".parse().ok();
    ConnState::new(ProxyId(0), 0, Some(src), dst, 3, at(now_ms))
}

pub fn at(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        wall_us: 1_795_000_000_123_456,
    }
}

/// A request head from lines joined by CR LF.
pub fn request(lines: &[&str]) -> Head {
    let mut head = Head::default();
    let text: Vec<u8> = lines
        .iter()
        .flat_map(|l| {
            l.chars()
                .map(|c| c as u8)
                .chain(*b"\r\n")
                .collect::<Vec<u8>>()
        })
        .chain(*b"\r\n")
        .collect();
    let done = head.parse_request(&text, &limits()).expect("a good head");
    assert_eq!(done, Some(text.len()), "{lines:?}");
    head
}

pub fn get(path: &str) -> Head {
    request(&[&format!("GET {path} HTTP/1.1"), "Host: h"])
}

pub fn response(status: u16) -> Head {
    let mut head = Head::default();
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
    let done = head.parse_response(text.as_bytes(), &limits());
    assert_eq!(done.expect("a good head"), Some(text.len()));
    head
}

fn limits() -> Limits {
    Limits {
        head_bytes_max: 15_360,
        headers_max: 101,
    }
}

thread_local! {
    static RNG: &'static Cell<u64> = Box::leak(Box::new(Cell::new(1)));
}

pub fn cx<'a>(
    world: &'a World,
    conn: &'a ConnState,
    stream: Option<&'a StreamState>,
    now_ms: u64,
) -> Cx<'a> {
    Cx {
        world,
        now: at(now_ms),
        conn,
        stream,
        proxy: conn.frontend,
        rng: RNG.with(|r| *r),
        thread: 0,
    }
}

/// The value's text, or `-` without a sample, `?` before its time.
pub fn show(outcome: Outcome<'_>) -> String {
    match outcome {
        Outcome::Value(sample) => {
            let mut out = Vec::new();
            sample.write_display(&mut out);
            out.iter().map(|b| *b as char).collect()
        }
        Outcome::Missing => "-".to_string(),
        Outcome::NotYet => "?".to_string(),
    }
}

/// `data=value …` of a key, in print order; `absent` without an entry.
pub fn row(world: &World, table: usize, key: &str, now_ms: u64) -> String {
    let table = &world.tables[table];
    let key = table.key_of_text(key.as_bytes()).expect("a key");
    let row = table.peek(&key, now_ms, |entry| {
        let mut cells = Vec::new();
        for stored in &table.spec().store {
            for index in 0..stored.elements {
                let value = entry.get(stored.data_type, index, now_ms).expect("stored");
                let name = stored.data_type.name();
                cells.push(if stored.elements > 1 {
                    format!("{name}[{index}]={value}")
                } else {
                    format!("{name}={value}")
                });
            }
        }
        cells.join(" ")
    });
    row.unwrap_or_else(|| "absent".to_string())
}
