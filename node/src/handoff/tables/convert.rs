//! Between what is sent and what the core works with.

use std::collections::BTreeMap;
use std::sync::Arc;

use remora_core::peers::Inheritance;
use remora_core::peers::batch::{ColumnDef, ColumnKind, Columns, columns_of};
use remora_core::table::{
    DataType, Definition, Delta, Key, KeyType, Lineage, Op, Slice, Table, TableId,
};

use super::heritage::OnceShared;
use crate::handoff::frames::tables as frames;
use frames::{Change, Rows, TableInfo};

/// Of a table of this process.
pub fn info(table: &Table) -> TableInfo {
    let spec = table.spec();
    let columns = columns_of(&spec.store);
    let columns = columns
        .iter()
        .map(|c| (c.data_type as u8, c.index, c.period_ms));
    TableInfo {
        name: spec.name.clone(),
        key_type: spec.key_type.name().to_owned(),
        key_len: u32::try_from(spec.key_len).unwrap_or(u32::MAX),
        columns: columns.collect(),
        brates_factor: spec.brates_factor,
        replicated: table.replica().is_some(),
    }
}

/// Of all tables of this process, in parts that fit into frames. The last one may be empty.
pub fn infos(tables: &[Table]) -> Vec<(Vec<TableInfo>, bool)> {
    let mut parts: Vec<(Vec<TableInfo>, bool)> = vec![Default::default()];
    let mut bytes = 0;
    for table in tables {
        let info = info(table);
        bytes += INFO_BYTES + info.name.len() + COLUMN_BYTES * info.columns.len();
        if bytes > PART_BYTES {
            bytes = 0;
            if let Some((_, more)) = parts.last_mut() {
                *more = true;
            }
            parts.push(Default::default());
        }
        if let Some((part, _)) = parts.last_mut() {
            part.push(info);
        }
    }
    parts
}

/// At most so many bytes go over the channel for a table beside its name and columns, seed, numbers, size and former lineage
/// included, and for a column.
const INFO_BYTES: usize = 90;
const COLUMN_BYTES: usize = 9;
/// So many fit easily into a frame, one more table included.
const PART_BYTES: usize = 32 * 1024;

/// Of a table of the process with this lineage. `None`: there is no such type of keys here.
pub fn definition(info: &TableInfo, lineage: Lineage) -> Option<Definition> {
    let columns = info.columns.iter().filter_map(|(bit, index, period_ms)| {
        let data_type = data_type(*bit)?;
        Some(ColumnDef {
            data_type,
            index: *index,
            period_ms: *period_ms,
            factor: 1, // told for the whole table
            kind: ColumnKind::of(data_type),
        })
    });
    Some(Definition {
        name: info.name.clone(),
        key_type: KeyType::from_name(&info.key_type)?,
        key_len: info.key_len as usize,
        columns: columns.collect(),
        brates_factor: info.brates_factor,
        lineage: info.replicated.then_some(lineage),
    })
}

/// Where tables of another process are here, by their position there: those with the same name and keys that may be looked up.
pub fn positions(tables: &[Table], there: &[TableInfo]) -> Vec<Option<TableId>> {
    let same = |info: &TableInfo| {
        let at = tables
            .iter()
            .position(|table| table.spec().name == info.name && differs(table, info).is_none())?;
        u16::try_from(at).ok().map(TableId)
    };
    there.iter().map(same).collect()
}

/// What keeps a table here from taking over entries of that one.
pub fn differs(table: &Table, info: &TableInfo) -> Option<String> {
    match KeyType::from_name(&info.key_type) {
        Some(key_type) => table.spec().differs(key_type, info.key_len as usize),
        None => Some(format!("its keys were of type {}", info.key_type)),
    }
}

fn data_type(bit: u8) -> Option<DataType> {
    DataType::all().nth(usize::from(bit))
}

/// To send.
pub fn rows(table: u16, slice: Slice) -> Rows {
    let Slice {
        now_ms,
        removed,
        columns,
        held,
        tombs,
        stripe,
    } = slice;
    Rows {
        table,
        now_ms,
        removed,
        rows: columns.rows,
        key_width: columns.key_width,
        keys: columns.keys,
        key_lengths: columns.key_lengths,
        heads: columns.heads,
        lineages: columns.lineages,
        stamp_base: columns.stamp_base,
        values: columns.values,
        held,
        tombs,
        stripe,
    }
}

/// As received.
pub fn slice(rows: Rows) -> Slice {
    Slice {
        now_ms: rows.now_ms,
        removed: rows.removed,
        columns: Columns {
            rows: rows.rows,
            key_width: rows.key_width,
            keys: rows.keys,
            key_lengths: rows.key_lengths,
            heads: rows.heads,
            lineages: rows.lineages,
            stamp_base: rows.stamp_base,
            values: rows.values,
        },
        held: rows.held,
        tombs: rows.tombs,
        stripe: rows.stripe,
    }
}

/// To send.
pub fn change(table: u16, key: &Key, delta: &Delta) -> Change {
    let ops = delta.ops.iter().map(|(what, index, op)| {
        let op = match op {
            Op::Add(n) => frames::Op::Add(*n),
            Op::Set(v) => frames::Op::Set(*v),
            Op::Name(name) => frames::Op::Name(name.to_vec()),
        };
        (*what as u8, *index, op)
    });
    Change {
        table,
        key: key.as_bytes().to_vec(),
        uses: delta.uses,
        touched: delta.touched,
        ops: ops.collect(),
    }
}

/// As received. What is not known here is left out.
pub fn delta(change: &Change) -> Delta {
    let ops = change.ops.iter().filter_map(|(bit, index, op)| {
        let op = match op {
            frames::Op::Add(n) => Op::Add(*n),
            frames::Op::Set(v) => Op::Set(*v),
            frames::Op::Name(name) => Op::Name(Arc::from(name.as_slice())),
        };
        Some((data_type(*bit)?, *index, op))
    });
    Delta {
        uses: change.uses,
        touched: change.touched,
        ops: ops.collect(),
    }
}

/// To send.
pub fn known(table: TableId, inheritance: &Inheritance) -> frames::Known {
    let known = inheritance.known.iter();
    let acked = inheritance.acked.iter();
    frames::Known {
        table: table.0,
        known: known
            .map(|(lineage, all, resume, revision)| (lineage.0, *all, *resume, *revision))
            .collect(),
        acked: acked.map(|(lineage, n)| (lineage.0, *n)).collect(),
        lacks: inheritance.lacks,
        crowded: inheritance.crowded,
    }
}

/// As received.
pub fn inheritance(known: &frames::Known) -> Inheritance {
    let acked = known.acked.iter();
    Inheritance {
        known: known
            .known
            .iter()
            .map(|(id, all, resume, revision)| (Lineage(*id), *all, *resume, *revision))
            .collect(),
        acked: acked.map(|(id, n)| (Lineage(*id), *n)).collect(),
        lacks: known.lacks,
        crowded: known.crowded,
    }
}

/// To send.
pub fn shared_as(how: Option<OnceShared>) -> (u64, u64) {
    match how {
        None => (0, 0),
        Some(OnceShared::Lost) => (0, 1),
        Some(OnceShared::As(lineage, newest)) => (lineage.0, newest),
    }
}

/// As received, from a process that an older one may be: that tells nothing.
pub fn once_shared(told: Option<&(u64, u64)>) -> Option<OnceShared> {
    match told.copied().unwrap_or_default() {
        (0, 0) => None,
        (0, _) => Some(OnceShared::Lost),
        (lineage, newest) => Some(OnceShared::As(Lineage(lineage), newest)),
    }
}

/// What a table has counted, by key.
pub type Deltas = BTreeMap<Key, Delta>;
