//! What came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::kernel::Counts;
use super::{Difference, Memory, Plan, Source};

/// Lengths of time, sorted.
#[derive(Clone, Debug, Default)]
pub struct Spans(Vec<Duration>);

impl Spans {
    pub(super) fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// The length that so many percent of them do not exceed; zero without any.
    pub fn at(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0
            .get(last * percent / 100)
            .copied()
            .unwrap_or_default()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn cell(&self) -> String {
        if self.0.is_empty() {
            return "-".to_owned();
        }
        let ms = |percent| {
            let ms = self.at(percent).as_secs_f64() * 1e3;
            if ms < 10.0 {
                format!("{ms:.1}")
            } else {
                format!("{ms:.0}")
            }
        };
        format!("{} / {} / {}", ms(50), ms(99), ms(100))
    }
}

/// See the fields.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Reloads asked for, and those after which no new configuration answered in time.
    pub reloads: usize,
    /// See `reloads`.
    pub failed_reloads: usize,
    /// Requests sent, answers received, connections made.
    pub requests: u64,
    /// See `requests`.
    pub answers: u64,
    /// See `requests`.
    pub connections: u64,
    /// How long there was load.
    pub took: Duration,
    /// Failures of clients by their kind.
    pub faults: BTreeMap<String, u64>,
    /// The first of them.
    pub stories: Vec<String>,
    /// What took a second or more.
    pub delays: Vec<String>,
    /// What the kernel counted meanwhile.
    pub kernel: Counts,
    /// Where what a node says differs from what happened.
    pub differences: Vec<Difference>,
    /// Looks at `conn_cur` of the connections that stayed, and how many of them saw another number.
    pub gauges: usize,
    /// See `gauges`.
    pub wrong_gauges: usize,
    /// Old workers that did not end with their connections.
    pub stuck: usize,
    /// From the signal to the first answer under the new configuration.
    pub ready: Spans,
    /// For how long meanwhile one of the threads, the unluckiest, was ready to run and got no processor.
    pub starved: Spans,
    /// The longest that connecting and an answer took, around each reload.
    pub gap: Spans,
    /// The same for stretches of time without a reload.
    pub calm_gap: Spans,
    /// What nodes themselves say: how long the tables took.
    pub own_tables: Spans,
    /// What nodes themselves say: for how long nobody accepted.
    pub own_gap: Spans,
    /// Answers under rules that saw less than nine tenths of a key's count.
    pub blind: u64,
    /// From the signal to the last of these, where there were any.
    pub blind_for: Spans,
    /// Of the first node.
    pub memory: Memory,
}

impl Outcome {
    /// Whether anything was lost, in words; empty if not.
    pub fn losses(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.failed_reloads > 0 {
            all.push(format!("{} reloads failed", self.failed_reloads));
        }
        if self.wrong_gauges > 0 {
            all.push(format!("conn_cur was wrong {} times", self.wrong_gauges));
        }
        if self.stuck > 0 {
            all.push(format!("{} nodes kept old workers", self.stuck));
        }
        all.extend(self.faults.iter().map(|(what, n)| format!("{n} {what}")));
        all.extend(self.differences.iter().map(Difference::to_string));
        all
    }

    /// How many counts of a source differ, and by how much in all.
    fn differing(&self, source: Source) -> String {
        let some = self.differences.iter().filter(|d| d.source == source);
        let by: Vec<u64> = some.map(Difference::by).collect();
        match by.as_slice() {
            [] => "0".to_owned(),
            all => format!("{} (by {} in all)", all.len(), all.iter().sum::<u64>()),
        }
    }
}

/// A row: what, and how to read it.
type Row = (&'static str, fn(&Outcome) -> String);

const ROWS: &[Row] = &[
    ("reloads", |o| o.reloads.to_string()),
    ("reloads that failed, or signals not noticed", |o| {
        o.failed_reloads.to_string()
    }),
    ("connections", |o| o.connections.to_string()),
    ("requests", |o| o.requests.to_string()),
    ("requests a second", |o| {
        format!("{:.0}", o.requests as f64 / o.took.as_secs_f64().max(0.001))
    }),
    ("connections not made", |o| of_kind(o, "not connected")),
    ("requests failed", |o| {
        let all: u64 = o.faults.values().sum();
        let connects: u64 = o
            .faults
            .iter()
            .filter(|(what, _)| what.contains("not connected"))
            .map(|(_, n)| n)
            .sum();
        (all - connects).to_string()
    }),
    ("counts at the server that differ", |o| {
        o.differing(Source::Server)
    }),
    ("counts in tables that differ", |o| {
        o.differing(Source::Table)
    }),
    ("totals that differ", |o| o.differing(Source::Totals)),
    ("looks at conn_cur that saw a wrong number", |o| {
        format!("{} of {}", o.wrong_gauges, o.gauges)
    }),
    ("answers on less than 90 % of a count", |o| {
        o.blind.to_string()
    }),
    ("signal to the last of these, ms", |o| o.blind_for.cell()),
    ("signal to the new process answering, ms", |o| {
        o.ready.cell()
    }),
    (
        "meanwhile the unluckiest thread waited for a processor for, ms",
        |o| o.starved.cell(),
    ),
    ("longest connect and answer around a reload, ms", |o| {
        o.gap.cell()
    }),
    ("the same without reloads, ms", |o| o.calm_gap.cell()),
    (
        "connections dropped for lack of room, first packets sent again",
        |o| format!("{}, {}", o.kernel.dropped, o.kernel.repeated),
    ),
    ("tables handed over in, by its own account, ms", |o| {
        o.own_tables.cell()
    }),
    ("nobody accepted for, by its own account, ms", |o| {
        o.own_gap.cell()
    }),
    ("memory of all processes before, MiB", |o| {
        mib(o.memory.steady)
    }),
    ("memory of all processes at most, MiB", |o| {
        mib(o.memory.peak)
    }),
    ("ratio of the two", |o| {
        format!(
            "{:.2}",
            o.memory.peak as f64 / o.memory.steady.max(1) as f64
        )
    }),
    ("processes at most", |o| o.memory.processes.to_string()),
];

fn of_kind(outcome: &Outcome, kind: &str) -> String {
    let some = outcome
        .faults
        .iter()
        .filter(|(what, _)| what.contains(kind));
    some.map(|(_, n)| n).sum::<u64>().to_string()
}

fn mib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1_048_576.0)
}

/// All outcomes side by side, in Markdown; spans are median / 99 % / maximum.
pub(super) fn table(plan: &Plan, all: &[(&str, &Outcome)]) -> String {
    let mut out = format!(
        "{} node(s), {} entries, clients of the sorts {}, {} of each per node\n\n",
        plan.nodes, plan.entries, plan.sorts, plan.clients
    );
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let _infallible = writeln!(out, "| p50 / p99 / max | {} |", names.join(" | "));
    let _infallible = writeln!(out, "|---|{}", "---|".repeat(names.len()));
    for (what, read) in ROWS {
        let cells: Vec<String> = all.iter().map(|(_, outcome)| read(outcome)).collect();
        let _infallible = writeln!(out, "| {what} | {} |", cells.join(" | "));
    }
    for (name, outcome) in all {
        for (what, count) in &outcome.faults {
            let _infallible = writeln!(out, "{name}: {count} {what}");
        }
        for story in &outcome.stories {
            let _infallible = writeln!(out, "{name}: {story}");
        }
        for what in &outcome.delays {
            let _infallible = writeln!(out, "{name}: {what}");
        }
        for difference in &outcome.differences {
            let _infallible = writeln!(out, "{name}: {difference}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_by_percent() {
        let spans = Spans::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(spans.cell(), "100 / 198 / 200");
        assert_eq!(Spans::default().cell(), "-");
    }

    #[test]
    fn whatever_is_missing_is_a_loss() {
        let mut outcome = Outcome::default();
        assert_eq!(outcome.losses(), [""; 0]);
        outcome.differences.push(Difference {
            source: Source::Table,
            what: "n".to_owned(),
            right: (5, 6),
            found: 3,
        });
        outcome.faults.insert("reset".to_owned(), 2);
        assert_eq!(outcome.losses(), ["2 reset", "n is 3, not 5 to 6"]);
        assert_eq!(outcome.differing(Source::Table), "1 (by 2 in all)");
        assert_eq!(outcome.differing(Source::Totals), "0");
    }
}
