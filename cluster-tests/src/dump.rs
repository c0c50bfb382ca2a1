//! Tables as maps, and what they ought to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::cli::{Cli, Entry};
use crate::hits::Tally;

/// What of an entry is each node's own affair.
const LOCAL: [&str; 4] = ["key", "use", "exp", "shard"];

/// How many differences a message shows.
const SHOWN: usize = 12;

/// A table at one moment: key to column (as printed, `http_req_rate(10000)`) to value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The entries.
    pub entries: BTreeMap<String, BTreeMap<String, String>>,
}

impl Dump {
    /// Reads `show table NAME`.
    #[track_caller]
    pub fn read(cli: &Cli, table: &str) -> Self {
        Self::of(&cli.entries(table))
    }

    /// From entries.
    pub fn of(entries: &[Entry]) -> Self {
        let entries = entries.iter().map(|entry| {
            let columns = entry
                .fields()
                .iter()
                .filter(|(name, _)| !LOCAL.contains(&name.as_str()))
                .cloned();
            (entry.key().to_owned(), columns.collect())
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// A number, named with or without its `(period)`; `None` without such an entry or column.
    pub fn get(&self, key: &str, column: &str) -> Option<i64> {
        let entry = self.entries.get(key)?;
        let found = entry
            .iter()
            .find(|(name, _)| base(name) == column || name.as_str() == column)?;
        found.1.parse().ok()
    }

    /// The sum of a column over all entries.
    pub fn sum(&self, column: &str) -> i64 {
        self.entries
            .keys()
            .filter_map(|key| self.get(key, column))
            .sum()
    }
}

fn base(column: &str) -> &str {
    column.split('(').next().unwrap_or(column)
}

/// What every node's dump must hold.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Key to column (without period) to the range of values that are right.
    entries: BTreeMap<String, BTreeMap<String, (i64, i64)>>,
    /// Other keys may be there.
    open: bool,
    /// Columns that are not compared between nodes: rates move while one looks.
    moving: BTreeSet<String>,
}

/// Columns that count requests as the harness sends them.
const COUNTING: [&str; 6] = [
    "http_req_cnt",
    "http_req_rate",
    "conn_cnt",
    "conn_rate",
    "gpc0",
    "gpc0_rate",
];

impl Expected {
    /// Exactly these events, and nothing in progress: in the columns of [`crate::cluster::COUNTS`].
    pub fn of(tally: &Tally) -> Self {
        let mut expected = Self::default();
        for (key, count) in tally.iter() {
            let columns = [
                "http_req_cnt",
                "http_req_rate",
                "conn_cnt",
                "gpc0",
                "gpc0_rate",
            ];
            for column in columns {
                expected = expected.with(key, column, count as i64);
            }
            expected = expected.with(key, "conn_cur", 0);
        }
        expected
    }

    /// These events in the named columns only.
    pub fn counted_in(tally: &Tally, columns: &[&str]) -> Self {
        let mut expected = Self::default();
        for (key, count) in tally.iter() {
            for column in columns {
                expected = expected.with(key, column, count as i64);
            }
        }
        expected
    }

    /// An empty table.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// A value.
    pub fn with(self, key: &str, column: &str, value: i64) -> Self {
        self.within(key, column, value, value)
    }

    /// A value between two, both right.
    pub fn within(mut self, key: &str, column: &str, low: i64, high: i64) -> Self {
        self.entries
            .entry(key.to_owned())
            .or_default()
            .insert(column.to_owned(), (low, high));
        self
    }

    /// The key counts between `low` and `high` events, in all columns that count.
    pub fn doubtful(mut self, key: &str, low: u64, high: u64) -> Self {
        for column in COUNTING {
            if self
                .entries
                .get(key)
                .is_none_or(|columns| columns.contains_key(column))
            {
                self = self.within(key, column, low as i64, high as i64);
            }
        }
        self
    }

    /// Takes a column out of every expectation and comparison.
    pub fn except(mut self, column: &str) -> Self {
        for columns in self.entries.values_mut() {
            columns.remove(column);
        }
        self.moving.insert(column.to_owned());
        self
    }

    /// The table stores these columns only, of those that are expected.
    pub fn storing(mut self, stored: &[&str]) -> Self {
        for columns in self.entries.values_mut() {
            columns.retain(|column, _| stored.contains(&column.as_str()));
        }
        self
    }

    /// Other keys may be there, as long as all nodes have the same.
    pub fn and_others(mut self) -> Self {
        self.open = true;
        self
    }
}

/// Whether every dump is as expected and all are the same; else the differences.
pub fn compare(dumps: &[Dump], expected: &Expected) -> Result<(), String> {
    let mut wrong = Vec::new();
    let keys: BTreeSet<&String> = dumps
        .iter()
        .flat_map(|dump| dump.entries.keys())
        .chain(expected.entries.keys())
        .collect();
    for key in keys {
        let columns: BTreeSet<&str> = dumps
            .iter()
            .filter_map(|dump| dump.entries.get(key))
            .flat_map(|entry| entry.keys().map(String::as_str))
            .collect();
        let wanted = expected.entries.get(key);
        let present: Vec<bool> = dumps
            .iter()
            .map(|dump| dump.entries.contains_key(key))
            .collect();
        let all = present.iter().all(|&is| is);
        let none = !present.iter().any(|&is| is);
        if wanted.is_none() && !expected.open && !none {
            let held = dumps.iter().map(|dump| dump.entries.get(key));
            let held: Vec<String> = held.map(|entry| format!("{entry:?}")).collect();
            wrong.push(format!(
                "{key}: not expected, but there: {}",
                held.join("; ")
            ));
            continue;
        }
        if !all {
            wrong.push(format!("{key}: present {present:?}"));
            continue;
        }
        let is_there = |wanted: &str| columns.iter().any(|column| base(column) == wanted);
        for column in wanted.iter().flat_map(|columns| columns.keys()) {
            if !is_there(column) && !expected.moving.contains(column) {
                wrong.push(format!("{key} {column}: no table has that column"));
            }
        }
        for column in columns {
            if expected.moving.contains(base(column)) {
                continue;
            }
            let values: Vec<&str> = dumps
                .iter()
                .map(|dump| dump.entries[key].get(column).map_or("-", String::as_str))
                .collect();
            let range = wanted.and_then(|columns| columns.get(base(column)));
            let fits = |value: &&str| {
                range.is_none_or(|&(low, high)| {
                    value
                        .parse()
                        .is_ok_and(|number: i64| (low..=high).contains(&number))
                })
            };
            let same = values.windows(2).all(|pair| pair[0] == pair[1]);
            if !same || !values.iter().all(fits) {
                let mut line = format!("{key} {column}: {}", values.join(" "));
                if let Some((low, high)) = range {
                    let _infallible = write!(line, ", expected {low}");
                    if low != high {
                        let _infallible = write!(line, " to {high}");
                    }
                }
                wrong.push(line);
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let more = wrong.len().saturating_sub(SHOWN);
    wrong.truncate(SHOWN);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    Err(wrong.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(lines: &[&str]) -> Dump {
        let entries: Vec<Entry> = lines.iter().map(|line| Entry::parse(line)).collect();
        Dump::of(&entries)
    }

    #[test]
    fn differences_are_found_between_nodes_and_from_the_truth() {
        let stored = ["gpc0", "http_req_rate"];
        let five = dump(&["0x1: key=a use=0 exp=9 shard=0 gpc0=5 http_req_rate(10)=5"]);
        let other = dump(&["0x2: key=a use=1 exp=7 shard=0 gpc0=5 http_req_rate(10)=4"]);
        let mut tally = Tally::default();
        tally.add("a", 5);
        let lacks = compare(std::slice::from_ref(&five), &Expected::of(&tally));
        assert!(lacks.is_err_and(|why| why.contains("a conn_cnt: no table has that column")));
        let expected = Expected::of(&tally).storing(&stored);
        assert_eq!(compare(&[five.clone(), five.clone()], &expected), Ok(()));
        assert!(compare(&[five.clone(), other.clone()], &expected).is_err());
        let calm = expected.clone().except("http_req_rate");
        assert_eq!(compare(&[five.clone(), other], &calm), Ok(()));
        assert!(compare(&[five.clone(), Dump::default()], &expected).is_err());
        assert!(compare(std::slice::from_ref(&five), &Expected::nothing()).is_err());
        tally.add("a", 1);
        let short = compare(
            &[five.clone(), five.clone()],
            &Expected::of(&tally).storing(&stored),
        );
        assert!(short.is_err_and(|why| why.contains("expected 6")));
        let range = Expected::nothing().doubtful("a", 4, 5).storing(&stored);
        assert_eq!(compare(&[five], &range), Ok(()));
    }
}
