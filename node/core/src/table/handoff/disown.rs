//! A process that was shown only a part of another one's tables goes on by itself.

use super::{Definition, Exporter, Importer, Slice};
use crate::peers::batch::Budget;
use crate::table::{Lineage, Table};

/// This process has continued the lineage of another one, which has ended before it had shown everything, and which may have
/// told peers more than it has shown. So that lineage has ended: in replicated tables what was shown of it becomes cells of
/// that lineage, of which peers may have newer ones, and this process is a new life, `fresh`. To be called before
/// anybody counts or hears of these tables; all of them share their lineages. Returns whether there was a place for one more.
pub fn disown(tables: &[Table], fresh: Lineage, now_ms: u64) -> bool {
    let replicated = || tables.iter().filter(|table| table.shared.is_some());
    let Some(lineages) = replicated()
        .find_map(Table::replica)
        .map(|r| r.lineages().clone())
    else {
        return true;
    };
    let ended = lineages.own();
    let shown: Vec<Vec<Slice>> = replicated().map(|table| all(table, now_ms)).collect();
    if !lineages.become_lineage(fresh) {
        return false;
    }
    for (table, slices) in replicated().zip(shown) {
        let definition = Definition::of(&table.spec, Some(ended));
        // It is the table's own.
        let Ok(mut importer) = Importer::new(table, definition) else {
            continue;
        };
        importer.note_highest();
        for slice in slices {
            // They were written a moment ago.
            let _ = importer.take(&slice, 0, |_, _, _| ());
        }
        importer.seal(now_ms);
    }
    true
}

fn all(table: &Table, now_ms: u64) -> Vec<Slice> {
    let mut exporter = Exporter::new(table);
    let mut slices = Vec::new();
    loop {
        let step = exporter.walk(BUDGET, now_ms);
        slices.push(step.slice);
        if step.done {
            return slices;
        }
    }
}

/// They stay in this process.
const BUDGET: Budget = Budget {
    rows: 10_000,
    bytes: 1 << 20,
};
