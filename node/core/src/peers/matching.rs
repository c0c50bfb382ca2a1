//! Which tables of two nodes are the same, and what differs.

use super::batch::ColumnDef;
use super::messages::{TableAnswer, TableDef};

/// Compares the dialer's table with ours of the same name.
pub(super) fn compare(theirs: &TableDef, ours: Option<&TableDef>) -> TableAnswer {
    let mut mismatches = Vec::new();
    let Some(ours) = ours else {
        mismatches.push("only one of the two nodes has it".to_owned());
        return TableAnswer {
            matched: false,
            mismatches,
        };
    };
    if (theirs.key_type, theirs.key_len) != (ours.key_type, ours.key_len) {
        let key = |t: &TableDef| format!("{} of {} bytes", t.key_type.name(), t.key_len);
        mismatches.push(format!("keys: {} and {}", key(theirs), key(ours)));
        return TableAnswer {
            matched: false,
            mismatches,
        };
    }
    for (mine, other, side) in [
        (theirs, ours, "only the dialing node stores"),
        (ours, theirs, "only the answering node stores"),
    ] {
        let only = lacking(&other.columns, &mine.columns);
        if !only.is_empty() {
            let names: Vec<String> = only.iter().map(|c| column_name(c)).collect();
            mismatches.push(format!("{side} {}", names.join(", ")));
        }
    }
    if theirs.expire_ms != ours.expire_ms {
        let text = |ms: Option<u32>| ms.map_or("never".to_owned(), |ms| format!("{ms} ms"));
        mismatches.push(format!(
            "expire: {} and {}",
            text(theirs.expire_ms),
            text(ours.expire_ms)
        ));
    }
    if theirs.size != ours.size {
        mismatches.push(format!("size: {} and {}", theirs.size, ours.size));
    }
    TableAnswer {
        matched: true,
        mismatches,
    }
}

/// Columns of `wanted` that are not among `present`: the data type, the element and the period count.
pub(super) fn lacking<'a>(present: &[ColumnDef], wanted: &'a [ColumnDef]) -> Vec<&'a ColumnDef> {
    wanted.iter().filter(|c| !present.contains(c)).collect()
}

fn column_name(column: &ColumnDef) -> String {
    let info = column.data_type.info();
    let mut name = info.name.to_owned();
    if info.args.has_elements() {
        name = format!("{name}[{}]", column.index);
    }
    if column.period_ms > 0 {
        name = format!("{name}({} ms)", column.period_ms);
    }
    name
}
