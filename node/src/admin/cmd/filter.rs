//! Filters on the contents of entries: `data.TYPE OP VALUE`. (reference: admin-cli 3.3)

use remora_core::table::{DataType, Entry, Table};

use crate::admin::line::Words;

/// `data.TYPE OP VALUE`
pub(super) struct Filter {
    what: DataType,
    index: u16,
    op: Op,
    value: i64,
}

#[derive(Clone, Copy)]
enum Op {
    Eq,
    Ne,
    Le,
    Ge,
    Lt,
    Gt,
}

impl Filter {
    /// The filters from the fourth word on.
    pub(super) fn parse(table: &Table, words: &Words) -> Result<Vec<Filter>, String> {
        let mut filters = Vec::new();
        let mut at = 3;
        while filters.len() < FILTERS_MAX && at < words.len() {
            let number = filters.len() + 1;
            let wrong = |text: &str| Err(format!("Filter entry #{number}: {text}"));
            let name = words.text(at);
            let named = name.strip_prefix("data.").and_then(indexed);
            let Some((what, index)) =
                named.and_then(|(n, i)| DataType::from_name(n).map(|what| (what, i)))
            else {
                return wrong("Unknown data type");
            };
            if !table.stores_exact(what, 0) {
                return wrong("Data type not stored in this table");
            }
            let op = match words.at(at + 1) {
                b"eq" => Op::Eq,
                b"ne" => Op::Ne,
                b"le" => Op::Le,
                b"ge" => Op::Ge,
                b"lt" => Op::Lt,
                b"gt" => Op::Gt,
                _ => {
                    return wrong(
                        "Require and operator among \"eq\", \"ne\", \"le\", \"ge\", \"lt\", \"gt\"",
                    );
                }
            };
            let Some(value) = integer(words.at(at + 2)) else {
                return wrong("Require a valid integer value to compare against");
            };
            filters.push(Filter {
                what,
                index,
                op,
                value,
            });
            at += 3;
        }
        if at < words.len() {
            return Err(extra_words(words, at));
        }
        Ok(filters)
    }

    /// Whether the entry has the element and its value now compares so.
    pub(super) fn holds(&self, entry: &Entry<'_>, now_ms: u64) -> bool {
        let Some(value) = entry.get_exact(self.what, self.index, now_ms) else {
            return false;
        };
        let order = (value as i64).cmp(&self.value);
        match self.op {
            Op::Eq => order.is_eq(),
            Op::Ne => order.is_ne(),
            Op::Le => order.is_le(),
            Op::Ge => order.is_ge(),
            Op::Lt => order.is_lt(),
            Op::Gt => order.is_gt(),
        }
    }
}

/// `gpc[1]` -> (`gpc`, 1), `conn_cnt` -> (`conn_cnt`, 0).
pub(super) fn indexed(name: &str) -> Option<(&str, u16)> {
    match name.split_once('[') {
        None => Some((name, 0)),
        Some((name, rest)) => {
            let index = rest.strip_suffix(']')?;
            // No table has that many elements.
            Some((
                name,
                index.parse::<u64>().ok()?.try_into().unwrap_or(u16::MAX),
            ))
        }
    }
}

pub(super) fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn extra_words(words: &Words, at: usize) -> String {
    format!(
        "Detected extra data in filter, {}th word of input, after '{}'",
        at + 1,
        words.text(at - 1)
    )
}

/// `STKTABLE_FILTER_LEN` of HAProxy.
const FILTERS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::table::tests::table;
    use super::*;
    use remora_core::table::KeyType;

    #[test]
    fn filters_say_what_is_wrong_in_the_words_of_the_reference() {
        let t = table(
            &[(DataType::ConnCnt, 1, 0), (DataType::Gpc, 2, 0)],
            KeyType::Ip,
        );
        let cases = [
            ("data.foo gt 1", "Filter entry #1: Unknown data type"),
            (
                "data.gpc0 ge 1",
                "Filter entry #1: Data type not stored in this table",
            ),
            (
                "data.conn_cnt xx 1",
                "Filter entry #1: Require and operator among \"eq\", \"ne\", \"le\", \"ge\", \"lt\", \"gt\"",
            ),
            (
                "data.conn_cnt gt",
                "Filter entry #1: Require a valid integer value to compare against",
            ),
            (
                "data.conn_cnt gt z",
                "Filter entry #1: Require a valid integer value to compare against",
            ),
            (
                "data.conn_cnt gt 1 data.bar lt 2",
                "Filter entry #2: Unknown data type",
            ),
            (
                "data.conn_cnt gt 1 data.conn_cnt gt 2 data.conn_cnt gt 3 data.conn_cnt gt 4 data.conn_cnt gt 5",
                "Detected extra data in filter, 16th word of input, after '4'",
            ),
        ];
        for (filter, expected) in cases {
            let words = Words::of(&format!("show table T {filter}"));
            assert_eq!(
                Filter::parse(&t, &words).err().as_deref(),
                Some(expected),
                "{filter}"
            );
        }
    }

    #[test]
    fn filters_compare_signed_and_never_match_missing_elements() {
        let t = table(
            &[(DataType::ConnCnt, 1, 0), (DataType::Gpc, 2, 0)],
            KeyType::Ip,
        );
        let key = t.key_of_text(b"10.0.0.1").unwrap();
        t.upsert(&key, 1_000, |mut e| {
            e.set_exact(DataType::ConnCnt, 0, 5, 1_000);
            e.set_exact(DataType::Gpc, 1, 7, 1_000);
        })
        .unwrap();
        for (filter, expected) in [
            ("data.conn_cnt eq 5", true),
            ("data.conn_cnt gt -1", true),
            ("data.conn_cnt lt 5", false),
            ("data.conn_cnt le 5 data.gpc[1] ge 7", true),
            ("data.conn_cnt ne 5", false),
            ("data.gpc[1] gt 6", true),
            ("data.gpc[9] ge 0", false),
        ] {
            let words = Words::of(&format!("show table T {filter}"));
            let filters = Filter::parse(&t, &words).unwrap();
            let got = t.peek(&key, 1_000, |e| filters.iter().all(|f| f.holds(&e, 1_000)));
            assert_eq!(got, Some(expected), "{filter}");
        }
    }
}
