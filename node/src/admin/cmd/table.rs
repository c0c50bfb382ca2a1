//! `show table`, `set table`, `clear table`. (reference: admin-cli section 3; its texts are part of the interface)

use std::io::Write as _;

use remora_config::plan::CliLevel;
use remora_core::table::{Cursor, DataType, Entry, Key, Kind, Removal, Table, TableId};

use super::filter::{Filter, extra_words, indexed, integer};
use super::{Answer, err};
use crate::admin::line::Words;
use crate::admin::session::Context;
use crate::proxy::clock;
use crate::shared::Shared;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Show,
    Set,
    Clear,
}

pub(in crate::admin) fn show(cx: &mut Context, words: &Words) -> Answer {
    if words.len() == 2 {
        return list(&cx.shared);
    }
    request(cx, words, Action::Show)
}

pub(in crate::admin) fn set(cx: &mut Context, words: &Words) -> Answer {
    request(cx, words, Action::Set)
}

pub(in crate::admin) fn clear(cx: &mut Context, words: &Words) -> Answer {
    request(cx, words, Action::Clear)
}

/// One head line per table, the last declared first.
fn list(shared: &Shared) -> Answer {
    let now_ms = clock::read().mono_ms;
    let mut out = Vec::new();
    for table in shared.world.tables.iter().rev() {
        head(table, now_ms, &mut out);
    }
    Answer::Text(out)
}

fn request(cx: &mut Context, words: &Words, action: Action) -> Answer {
    if words.len() <= 2 {
        return required(action);
    }
    let name = words.at(2);
    let tables = &cx.shared.world.tables;
    let Some(at) = tables.iter().position(|t| t.spec().name.as_bytes() == name) else {
        return err("No such table");
    };
    let (Some(table), Ok(id)) = (tables.get(at), u16::try_from(at).map(TableId)) else {
        return err("No such table");
    };
    match words.at(3) {
        b"key" => one(cx, table, words, action, key_typed(table, words, action)),
        b"ptr" => one(cx, table, words, action, key_at(table, words)),
        first if first.starts_with(b"data.") => match action {
            Action::Set => err(
                "content-based lookup is only supported with the \"show\" and \"clear\" actions",
            ),
            _ => match Filter::parse(table, words) {
                Ok(filters) => whole(cx, table, id, action, filters),
                Err(text) => err(text),
            },
        },
        // A bare `set table T` erases the table in HAProxy. Here it is incomplete.
        b"" if action != Action::Set => whole(cx, table, id, action, Vec::new()),
        _ => required(action),
    }
}

fn required(action: Action) -> Answer {
    err(match action {
        Action::Show => {
            "Optional argument only supports \"data.<store_data_type>\" <operator> <value> or key <key> or ptr <ptr>"
        }
        Action::Clear => {
            "Required arguments: <table> \"data.<store_data_type>\" <operator> <value> or <table> key <key> or \
             <table> ptr <ptr>"
        }
        Action::Set => {
            "Required arguments: <table> key <key> [data.<store_data_type> <value>]* or <table> ptr <ptr> \
             [data.<store_data_type> <value>]*"
        }
    })
}

/// The key behind `key`.
fn key_typed(table: &Table, words: &Words, action: Action) -> Result<Key, &'static str> {
    if words.len() <= 4 {
        return Err("Key value expected");
    }
    if table.spec().key_type == remora_core::table::KeyType::Binary {
        return Err(match action {
            Action::Show => {
                "Showing keys from tables of type other than ip, ipv6, string and integer is not supported"
            }
            Action::Clear => {
                "Removing keys from tables of type other than ip, ipv6, string and integer is not supported"
            }
            Action::Set => {
                "Inserting keys into tables of type other than ip, ipv6, string and integer is not supported"
            }
        });
    }
    table.key_of_text(words.at(4)).ok_or("Invalid key")
}

/// The key of the entry behind `ptr`.
fn key_at(table: &Table, words: &Words) -> Result<Key, &'static str> {
    let text = words.text(4);
    let ptr = text
        .strip_prefix("0x")
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .ok_or("Pointer expected (0xffff notation)")?;
    table
        .entry_by_ptr(ptr, clock::read().mono_ms)
        .ok_or("No entry can be found matching ptr.")
}

/// Acts on one entry.
fn one(
    cx: &Context,
    table: &Table,
    words: &Words,
    action: Action,
    key: Result<Key, &'static str>,
) -> Answer {
    let key = match key {
        Ok(key) => key,
        Err(text) => return err(text),
    };
    if cx.level < CliLevel::Operator {
        return err("Permission denied");
    }
    if action == Action::Show && words.at(5) == b"origins" && words.len() == 6 {
        return origins(&cx.shared, table, &key);
    }
    if action != Action::Set && words.len() > 5 {
        // Acting on less than what was asked for could remove too much.
        return err(extra_words(words, 5));
    }
    let now_ms = clock::read().mono_ms;
    match action {
        Action::Show => {
            let mut out = Vec::new();
            let mut line = Vec::new();
            let printer = Printer::new(table);
            if table
                .peek(&key, now_ms, |e| printer.entry(&e, now_ms, &mut line))
                .is_some()
            {
                head(table, now_ms, &mut out);
                out.extend_from_slice(&line);
            }
            Answer::Text(out)
        }
        Action::Clear => match table.remove(&key, now_ms) {
            Removal::InUse => err("Entry currently in use, cannot remove"),
            Removal::Removed | Removal::Absent => Answer::Empty,
        },
        Action::Set => assign(table, &key, words, now_ms),
    }
}

/// `show table T key K origins`: the line of the entry, then each lineage's share of what is summed.
fn origins(shared: &Shared, table: &Table, key: &Key) -> Answer {
    let Some(replica) = table.replica() else {
        return err("Not a table with peers: all of it was counted here");
    };
    // Names first: nothing else may be locked while the entry is.
    let nodes: Vec<_> = (shared.peers.get().into_iter().flatten())
        .flat_map(|section| section.report().lineages)
        .map(|l| (l.lineage, l.node))
        .collect();
    let now_ms = clock::read().mono_ms;
    let printer = Printer::new(table);
    let mut out = Vec::new();
    head(table, now_ms, &mut out);
    let before = out.len();
    table.peek(key, now_ms, |e| printer.entry(&e, now_ms, &mut out));
    replica.origins(key, now_ms, |origin| {
        let node = nodes.iter().find(|(id, _)| *id == origin.lineage);
        let node = match node {
            _ if origin.own => "(here)",
            Some((_, name)) if !name.is_empty() => name,
            _ => "-",
        };
        let _ = write!(
            out,
            "  lineage={} node={node} alive={} held={} version={}",
            origin.lineage,
            u8::from(origin.alive),
            u8::from(origin.held),
            origin.version
        );
        for (what, index, name) in &printer.columns {
            if let Some(value) = origin.get(*what, *index, now_ms) {
                let _ = write!(out, "{name}{value}");
            }
        }
        out.push(b'\n');
    });
    if out.len() == before {
        out.clear();
    }
    Answer::Text(out)
}

/// `set table T key K [data.TYPE V]…`: assigns from left to right; what comes before a mistake stays.
fn assign(table: &Table, key: &Key, words: &Words, now_ms: u64) -> Answer {
    let Ok(mistake) = table.upsert(key, now_ms, |mut entry| {
        let mut i = 5;
        while i < words.len() {
            let name = words.text(i);
            let Some(name) = name.strip_prefix("data.") else {
                return Some("\"data.<type>\" followed by a value expected");
            };
            let Some((name, index)) = indexed(name) else {
                return Some("Unknown data type");
            };
            let Some(what) = DataType::from_name(name) else {
                return Some("Unknown data type");
            };
            if !table.stores_exact(what, 0) {
                return Some("Data type not stored in this table");
            }
            if !table.stores_exact(what, index) {
                return Some("index out of range in this data array");
            }
            let value = words.at(i + 1);
            if what.info().kind == Kind::ServerKey {
                if value.is_empty() {
                    return Some("Require a valid integer value to store");
                }
                entry.set_server_key(value);
            } else {
                let Some(value) = integer(value) else {
                    return Some("Require a valid integer value to store");
                };
                let value = match what.info().kind {
                    Kind::Counter64 => value as u64,
                    // Cut to the width.
                    _ => u64::from(value as u32),
                };
                entry.set_exact(what, index, value, now_ms);
            }
            i += 2;
        }
        None
    }) else {
        return err("Unable to allocate a new entry");
    };
    mistake.map_or(Answer::Empty, err)
}

/// Dumps or clears all entries that match.
fn whole(cx: &Context, table: &Table, id: TableId, action: Action, filters: Vec<Filter>) -> Answer {
    if action == Action::Show {
        let mut out = Vec::new();
        head(table, clock::read().mono_ms, &mut out);
        if cx.level < CliLevel::Operator {
            out.extend_from_slice(b"# contents not dumped due to insufficient privileges\n");
            return Answer::Text(out);
        }
        let printer = Printer::new(table);
        let mut cursor = Cursor::default();
        let mut first = Some(out);
        return Answer::Slices(Box::new(move |shared, out| {
            if let Some(head) = first.take() {
                out.extend_from_slice(&head);
            }
            let Some(table) = shared.world.table(id) else {
                return true;
            };
            let now_ms = clock::read().mono_ms;
            table.dump(&mut cursor, now_ms, SLICE, |entry| {
                if filters.iter().all(|f| f.holds(&entry, now_ms)) {
                    printer.entry(&entry, now_ms, out);
                }
            })
        }));
    }
    if cx.level < CliLevel::Operator {
        return err("Permission denied");
    }
    let mut cursor = Cursor::default();
    Answer::Slices(Box::new(move |shared, _out| {
        let Some(table) = shared.world.table(id) else {
            return true;
        };
        let now_ms = clock::read().mono_ms;
        table.clear(&mut cursor, now_ms, SLICE, |entry| {
            filters.iter().all(|f| f.holds(&entry, now_ms))
        })
    }))
}

/// `# table: NAME, type: TYPE, size:N, used:N`
fn head(table: &Table, now_ms: u64, out: &mut Vec<u8>) {
    let spec = table.spec();
    let _ = writeln!(
        out,
        "# table: {}, type: {}, size:{}, used:{}",
        spec.name,
        spec.key_type.name(),
        spec.size,
        table.used(now_ms)
    );
}

/// Prints entries of one table: the names of its columns are made once.
struct Printer {
    columns: Vec<(DataType, u16, String)>,
}

impl Printer {
    fn new(table: &Table) -> Printer {
        let mut columns = Vec::new();
        for stored in &table.spec().store {
            for index in 0..stored.elements.max(1) {
                let name = stored.data_type.element_name(index);
                let text = if stored.period_ms > 0 {
                    format!(" {name}({})=", stored.period_ms)
                } else {
                    format!(" {name}=")
                };
                columns.push((stored.data_type, index, text));
            }
        }
        Printer { columns }
    }

    /// `0xHEX: key=K use=U exp=MS shard=S name=value …`. The shard is that of `peers … shards N`: 0 without.
    fn entry(&self, entry: &Entry<'_>, now_ms: u64, out: &mut Vec<u8>) {
        let _ = write!(out, "0x{:x}: key=", entry.ptr());
        entry.write_key(out);
        let _ = write!(
            out,
            " use={} exp={} shard=0",
            entry.uses(),
            entry.expires_in_ms(now_ms)
        );
        for (what, index, name) in &self.columns {
            out.extend_from_slice(name.as_bytes());
            if what.info().kind == Kind::ServerKey {
                match entry.server_key() {
                    Some(name) => out.extend_from_slice(&name),
                    None => out.push(b'-'),
                }
                continue;
            }
            let value = entry.get_exact(*what, *index, now_ms).unwrap_or(0);
            let _ = if what.info().kind == Kind::ServerId {
                write!(out, "{}", value as i64)
            } else {
                write!(out, "{value}")
            };
        }
        out.push(b'\n');
    }
}

/// Records looked at between two writes to the client.
const SLICE: usize = 256;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use remora_core::table::{KeyType, Stored, TableSpec};

    pub(in crate::admin::cmd) fn table(store: &[(DataType, u16, u32)], key_type: KeyType) -> Table {
        let spec = TableSpec {
            key_len: match key_type {
                KeyType::Ip | KeyType::Integer => 4,
                KeyType::Ipv6 => 16,
                _ => 32,
            },
            size: 102_400,
            expire_ms: Some(300_000),
            store: store
                .iter()
                .map(|&(data_type, elements, period_ms)| Stored {
                    data_type,
                    elements,
                    period_ms,
                })
                .collect(),
            ..TableSpec::new("per_ip", key_type)
        };
        Table::new(spec, 7)
    }

    #[test]
    fn head_and_entry_lines_are_those_of_the_reference() {
        let t = table(
            &[
                (DataType::Gpc0, 1, 0),
                (DataType::ConnRate, 1, 10_000),
                (DataType::BytesOutCnt, 1, 0),
                (DataType::ServerKey, 1, 0),
                (DataType::Gpt, 2, 0),
            ],
            KeyType::Ip,
        );
        let key = t.key_of_text(b"127.0.0.1").unwrap();
        t.upsert(&key, 5_000, |mut e| {
            e.add(DataType::Gpc0, 0, 3, 5_000);
            e.add(DataType::ConnRate, 0, 9, 5_000);
            e.add(DataType::BytesOutCnt, 0, 1333, 5_000);
        })
        .unwrap();
        let mut out = Vec::new();
        head(&t, 5_000, &mut out);
        t.peek(&key, 5_016, |e| Printer::new(&t).entry(&e, 5_016, &mut out));
        let text = String::from_utf8(out).unwrap();
        let (head, line) = text.split_once('\n').unwrap();
        assert_eq!(head, "# table: per_ip, type: ip, size:102400, used:1");
        let (ptr, rest) = line.split_once(": ").unwrap();
        assert!(ptr.starts_with("0x"), "{ptr}");
        assert_eq!(
            rest,
            "key=127.0.0.1 use=0 exp=299984 shard=0 gpc0=3 conn_rate(10000)=9 bytes_out_cnt=1333 server_key=- \
             gpt0=0 gpt1=0\n"
        );
    }

    #[test]
    fn assignments_stop_at_the_first_mistake_and_cut_to_the_width() {
        let t = table(
            &[
                (DataType::ConnCnt, 1, 0),
                (DataType::BytesInCnt, 1, 0),
                (DataType::Gpc, 2, 0),
            ],
            KeyType::Ip,
        );
        let key = t.key_of_text(b"10.0.0.1").unwrap();
        let cases = [
            ("data.conn_cnt -1", None, 4_294_967_295),
            (
                "data.conn_cnt 3 conn_cnt 4",
                Some("\"data.<type>\" followed by a value expected"),
                3,
            ),
            ("data.conn_cnt 4 data.foo 1", Some("Unknown data type"), 4),
            (
                "data.conn_cnt 5 data.gpt0 1",
                Some("Data type not stored in this table"),
                5,
            ),
            (
                "data.conn_cnt 6 data.gpc[2] 1",
                Some("index out of range in this data array"),
                6,
            ),
            (
                "data.conn_cnt 7 data.gpc[1]",
                Some("Require a valid integer value to store"),
                7,
            ),
            ("", None, 7),
        ];
        for (data, expected, conn_cnt) in cases {
            let words = Words::of(&format!("set table T key 10.0.0.1 {data}"));
            let got = match assign(&t, &key, &words, 1_000) {
                Answer::Empty => None,
                Answer::Message(_, text) => Some(text),
                _ => panic!("unexpected answer"),
            };
            assert_eq!(got.as_deref(), expected, "{data}");
            let is = t.peek(&key, 1_000, |e| e.get(DataType::ConnCnt, 0, 1_000));
            assert_eq!(is, Some(Some(conn_cnt)), "{data}");
        }
    }
}
