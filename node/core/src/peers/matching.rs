//! Which tables of two nodes are the same, and what differs.

use super::batch::ColumnDef;
use super::messages::{TableAnswer, TableDef};

/// A node and its table of the name in question.
pub(super) type Side<'a> = (&'a str, &'a TableDef);

/// Compares the dialer's table with ours of the same name. What differs is said in the same words whoever dials.
pub(super) fn compare(theirs: Side<'_>, ours: (&str, Option<&TableDef>)) -> TableAnswer {
    let (our_name, Some(our_table)) = ours else {
        return TableAnswer {
            matched: false,
            mismatches: vec![format!("only {} has it", theirs.0)],
        };
    };
    let mut sides = [theirs, (our_name, our_table)];
    sides.sort_by_key(|(name, _)| *name);
    let [(one, a), (other, b)] = sides;
    if (a.key_type, a.key_len) != (b.key_type, b.key_len) {
        let key = |t: &TableDef| format!("{} of {} bytes", t.key_type.name(), t.key_len);
        let text = format!("keys: {} at {one}, {} at {other}", key(a), key(b));
        return TableAnswer {
            matched: false,
            mismatches: vec![text],
        };
    }
    let mut mismatches = Vec::new();
    for (name, mine, other) in [(one, a, b), (other, b, a)] {
        let only = lacking(&other.columns, &mine.columns);
        if !only.is_empty() {
            let columns: Vec<String> = only.iter().map(|c| column_name(c)).collect();
            mismatches.push(format!("only {name} stores {}", columns.join(", ")));
        }
    }
    if a.expire_ms != b.expire_ms {
        let text = |ms: Option<u32>| ms.map_or("never".to_owned(), |ms| format!("{ms} ms"));
        mismatches.push(format!(
            "expire: {} at {one}, {} at {other}",
            text(a.expire_ms),
            text(b.expire_ms)
        ));
    }
    if a.size != b.size {
        mismatches.push(format!("size: {} at {one}, {} at {other}", a.size, b.size));
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
