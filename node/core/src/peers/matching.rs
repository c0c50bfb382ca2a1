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
        let known = only.iter().map(|column| column_name(column));
        let columns: Vec<String> = known.chain(mine.later.iter().cloned()).collect();
        if !columns.is_empty() {
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

/// Columns of `wanted` that are not among `present`: the data type, the element, the period and the unit count.
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
    if column.factor > 1 {
        name = format!("{name} in units of {} bytes", column.factor);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::batch::columns_of;
    use crate::table::{DataType, KeyType, Stored};

    fn table(factor: u32, later: &[&str]) -> TableDef {
        let mut columns = columns_of(&[Stored {
            data_type: DataType::BytesInRate,
            elements: 1,
            period_ms: 10_000,
        }]);
        columns[0].factor = factor;
        TableDef {
            name: "t".into(),
            key_type: KeyType::Ip,
            key_len: 4,
            size: 100,
            expire_ms: None,
            columns,
            entries: 0,
            later: later.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// Rates of bytes in different units are not summed, and what a later version stores is not passed over in silence.
    #[test]
    fn differences_have_names() {
        for (theirs, ours, expected) in [
            (table(1, &[]), table(1, &[]), vec![]),
            (
                table(1, &[]),
                table(1024, &[]),
                vec![
                    "only a stores bytes_in_rate(10000 ms)",
                    "only b stores bytes_in_rate(10000 ms) in units of 1024 bytes",
                ],
            ),
            (
                table(1, &["new_cnt", "new_rate"]),
                table(1, &[]),
                vec!["only a stores new_cnt, new_rate"],
            ),
        ] {
            let answer = compare(("a", &theirs), ("b", Some(&ours)));
            assert_eq!(
                (answer.matched, answer.mismatches),
                (
                    true,
                    expected.iter().map(|text| (*text).to_owned()).collect()
                )
            );
        }
    }
}
