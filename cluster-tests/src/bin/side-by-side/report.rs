//! The table of medians and ratios.

use std::fmt::Write as _;

use crate::contest::Machine;
use crate::measures::{Aim, Row};

/// All values so far.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    unit: &'static str,
    aim: Option<Aim>,
    values: Vec<(&'static str, f64)>,
}

impl Report {
    /// Notes a value of a side.
    pub(crate) fn add(&mut self, row: &Row, side: &'static str, value: f64) {
        match self.lines.iter_mut().find(|line| line.name == row.name) {
            Some(line) => line.values.push((side, value)),
            None => self.lines.push(Line {
                name: row.name,
                unit: row.unit,
                aim: row.aim,
                values: vec![(side, value)],
            }),
        }
    }

    /// The table, in Markdown.
    pub(crate) fn table(&self, machine: &Machine) -> String {
        let mut out = format!("\n{}\n", machine.versions());
        let names: Vec<&str> = machine.sides().iter().map(|side| side.name).collect();
        let head = names.join(" | ");
        let _infallible = writeln!(
            out,
            "| median of the rounds | {head} | ratio | spread of the ratio | aim |"
        );
        let _infallible = writeln!(out, "|---|{}---|---|---|", "---|".repeat(names.len()));
        for line in &self.lines {
            let columns: Vec<Vec<f64>> = names.iter().map(|name| line.of(name)).collect();
            let medians: Vec<f64> = columns.iter().map(|values| median(values)).collect();
            let cells: Vec<String> = medians.iter().map(|value| number(*value)).collect();
            // Neighbours in time are compared, so that a machine that slows down slows both.
            let ratios: Vec<f64> = match columns.as_slice() {
                [own, other] => own.iter().zip(other).map(|(a, b)| a / b).collect(),
                _ => Vec::new(),
            };
            let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let high = ratios.iter().copied().fold(0.0, f64::max);
            let aim = match line.aim {
                None => "-".to_owned(),
                Some(Aim::Ratio(most)) => format!("ratio <= {most:.2}"),
                Some(Aim::Value(most)) => format!("<= {} {}", number(most), line.unit),
            };
            let ratio = median(&ratios);
            let ratio = if ratio.is_finite() {
                format!("{ratio:.2} | {low:.2}-{high:.2}")
            } else {
                "- | -".to_owned()
            };
            let _infallible = writeln!(
                out,
                "| {} ({}) | {} | {ratio} | {aim} |",
                line.name,
                line.unit,
                cells.join(" | "),
            );
        }
        out
    }
}

impl Line {
    fn of(&self, side: &str) -> Vec<f64> {
        self.values
            .iter()
            .filter(|(name, _)| *name == side)
            .map(|(_, value)| *value)
            .collect()
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}
