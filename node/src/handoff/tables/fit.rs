//! Which tables of the process before go on here, and what of them has no place.

use remora_core::peers::Inheritance;
use remora_core::table::{Importer, Lineage, Table, TableId};
use tracing::{info, warn};

use super::convert;
use super::heritage::OnceShared;
use crate::handoff::frames::tables::Tables;
use crate::shared::Shared;

/// One for each table there that fits one here; says what does not.
pub(super) fn importers<'w>(
    shared: &'w Shared,
    there: &Tables,
    positions: &[Option<TableId>],
    again: bool,
) -> Vec<Option<Importer<'w>>> {
    let mut all = Vec::new();
    for (at, (info, here)) in there.tables.iter().zip(positions).enumerate() {
        let table = here.and_then(|TableId(at)| shared.world.tables.get(usize::from(at)));
        let Some(table) = table else {
            let lost = match there.entries.get(at) {
                Some(0) | None => String::new(),
                Some(1) => ": its entry is dropped".into(),
                Some(many) => format!(": its {many} entries are dropped"),
            };
            let mut here = shared.world.tables.iter();
            let named = here.find(|t| t.spec().name == info.name);
            match named.and_then(|table| convert::differs(table, info)) {
                Some(how) => warn!("table '{}' begins empty, because {how}{lost}.", info.name),
                None => info!("table '{}' is not configured any more{lost}.", info.name),
            }
            all.push(None);
            continue;
        };
        let mut replaces = None;
        if !info.replicated {
            let how = convert::once_shared(there.shared_as.get(at));
            match (table.replica(), how) {
                (None, Some(how)) => {
                    let how = if again { OnceShared::Lost } else { how };
                    if let Some(here) = here {
                        shared.heritage.was_shared(*here, how);
                    }
                }
                (Some(_), Some(OnceShared::As(lineage, newest)))
                    if !again && lineage.0 == there.lineage =>
                {
                    replaces = Some(newest);
                }
                // The process that has died may have told its peers already.
                (Some(_), how) if again || how.is_some() => {
                    warn!(
                        "table '{}' begins empty: its peers may have a part of what it counted, which would count twice.",
                        info.name
                    );
                    all.push(None);
                    continue;
                }
                _ => {}
            }
        }
        let definition = convert::definition(info, Lineage(there.lineage));
        let importer = definition
            .ok_or_else(|| String::from("its keys are of an unknown type"))
            .and_then(|definition| Importer::new(table, definition));
        match importer {
            Ok(mut importer) => {
                if let Some(newest) = replaces {
                    importer.replace(newest);
                }
                let size = table.spec().size as u64;
                let entries = there.entries.get(at).copied().unwrap_or(0);
                // An older process tells no size.
                let room = there.sizes.get(at).copied().unwrap_or(entries);
                if room > size {
                    importer.shrinks();
                }
                table.expect(usize::try_from(entries).unwrap_or(usize::MAX));
                let dropped = importer.dropped();
                if !dropped.is_empty() {
                    warn!(
                        "table '{}': not stored any more, or not in the same way: {}.",
                        info.name,
                        dropped.join(", ")
                    );
                }
                all.push(Some(importer));
            }
            Err(why) => {
                warn!("table '{}' begins empty: {why}.", info.name);
                all.push(None);
            }
        }
    }
    all
}

/// What of all that was shown has no place here.
pub(super) fn report_lost(
    tables: &[Table],
    there: &Tables,
    positions: &[Option<TableId>],
    importers: &[Option<Importer<'_>>],
) {
    for ((info, here), importer) in there.tables.iter().zip(positions).zip(importers) {
        let table = here.and_then(|TableId(at)| tables.get(usize::from(at)));
        let (Some(table), Some(importer)) = (table, importer) else {
            continue;
        };
        let spec = table.spec();
        let entries = |many: u64| if many == 1 { "entry" } else { "entries" };
        let many = importer.too_long();
        if many > 0 {
            warn!(
                "table '{}': its keys are at most {} bytes long now, and were {}: {many} {} with longer ones dropped.",
                spec.name,
                spec.key_len,
                info.key_len,
                entries(many)
            );
        }
        let many = importer.evicted();
        if many > 0 {
            warn!(
                "table '{}' is smaller now: {many} {} dropped, refreshed before the {} that are kept.",
                spec.name,
                entries(many),
                table.count()
            );
        }
    }
}

/// Whether the table here holds all that the process before had read of its peers, and whether that is all that this one would
/// have read. Sizes are those of the table there and here; 0: not told.
pub(super) fn holds(
    inheritance: &Inheritance,
    importer: Option<&Importer<'_>>,
    before: u64,
    size: u64,
) -> bool {
    let Some(importer) = importer else {
        return false; // it begins empty
    };
    let fewer = before > size && importer.is_short();
    let more = (1..size).contains(&before) && inheritance.crowded;
    !(inheritance.lacks || importer.has_gained() || fewer || more)
}
