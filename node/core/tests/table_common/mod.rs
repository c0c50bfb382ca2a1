//! Shared by the table tests: building tables and keys from text.
#![allow(dead_code)] // each test uses a part

use remora_core::table::{
    DataType, Key, KeyType, Lineage, Lineages, Stored, Table, TableSpec, write_key,
};
use std::sync::Arc;

pub struct Build(TableSpec);

/// A table of 1000 entries without expiry.
pub fn spec(key_type: &str) -> Build {
    let key_type = KeyType::from_name(key_type).unwrap();
    Build(TableSpec {
        size: 1000,
        ..TableSpec::new("t", key_type)
    })
}

impl Build {
    pub fn spec(self) -> TableSpec {
        self.0
    }
    pub fn size(mut self, size: usize) -> Build {
        self.0.size = size;
        self
    }
    pub fn len(mut self, len: usize) -> Build {
        self.0.key_len = len;
        self
    }
    pub fn expire(mut self, ms: u32) -> Build {
        self.0.expire_ms = Some(ms);
        self
    }
    pub fn nopurge(mut self) -> Build {
        self.0.nopurge = true;
        self
    }
    pub fn factor(mut self, factor: u32) -> Build {
        self.0.brates_factor = factor;
        self
    }
    /// `conn_cnt,http_req_rate(10s),gpc(2),gpc_rate(2,500)`
    pub fn store(mut self, list: &str) -> Build {
        let mut rest = list;
        while !rest.is_empty() {
            let end = rest.find([',', '(']).unwrap_or(rest.len());
            let data_type = DataType::from_name(&rest[..end]).unwrap();
            rest = &rest[end..];
            let mut args = "";
            if let Some(inner) = rest.strip_prefix('(') {
                (args, rest) = inner.split_once(')').unwrap();
            }
            rest = rest.strip_prefix(',').unwrap_or(rest);
            let form = data_type.info().args;
            let mut args = args.split(',');
            let elements = if form.has_elements() {
                args.next().unwrap().parse().unwrap()
            } else {
                1
            };
            let period_ms = if form.has_period() {
                period(args.next().unwrap())
            } else {
                0
            };
            self.0.store.push(Stored {
                data_type,
                elements,
                period_ms,
            });
        }
        self.0.store.sort_by_key(|s| s.data_type);
        self
    }
}

fn period(text: &str) -> u32 {
    match text.strip_suffix('s') {
        Some(seconds) => seconds.parse::<u32>().unwrap() * 1000,
        None => text.parse().unwrap(),
    }
}

/// A table; in the tests of `table_replicated`, which includes those of plain tables, a replicated one without peers.
pub fn table(build: Build) -> Table {
    if module_path!().starts_with("table_replicated::") {
        let lineages = Arc::new(Lineages::new(Lineage(1)));
        Table::new_replicated(build.0, 0x5eed, lineages)
    } else {
        Table::new(build.0, 0x5eed)
    }
}

pub fn ip(text: &str) -> Key {
    Key::from_addr(text.parse().unwrap(), KeyType::Ip, 4).unwrap()
}

pub fn number(n: u32) -> Key {
    Key::from_stored(&n.to_be_bytes())
}

pub fn text_of(table: &Table, key: &[u8]) -> String {
    let mut out = Vec::new();
    write_key(key, table.spec().key_type, &mut out);
    String::from_utf8(out).unwrap()
}

/// Steps of a fixed pseudo-random sequence.
pub struct Steps(pub u64);
impl Steps {
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}
