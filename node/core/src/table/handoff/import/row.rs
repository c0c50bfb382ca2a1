//! One row: its cell, registers and edicts go where they belong.

use super::{Importer, Row};
use crate::peers::batch::{BatchReader, ColumnKind, EdictRow, RowFlags, unzigzag};
use crate::table::Stamp;
use crate::table::data_type::Kind;
use crate::table::rate::Rate;
use crate::table::replica::register_stamp;
use crate::table::schema::{Cell, set_rate, set_wide, set_word};
use crate::table::shard::Shard;

impl Importer<'_> {
    /// Edicts on the columns that this table has.
    pub(super) fn mapped(&self, edicts: &[EdictRow]) -> Vec<EdictRow> {
        let here = |edict: &EdictRow| match edict.column {
            None => Some(*edict),
            Some(at) => {
                let cell = (*self.targets.get(at)?)?;
                let column = Some(usize::from(cell.number));
                Some(EdictRow { column, ..*edict })
            }
        };
        edicts.iter().filter_map(here).collect()
    }

    /// Reads the values of a row into its entry. Returns the own gauge.
    pub(super) fn row(
        &mut self,
        shard: &mut Shard,
        slot: u32,
        row: &Row<'_>,
        reader: &mut BatchReader<'_>,
        now_ms: u64,
    ) -> u32 {
        let replicated = self.table.shared.is_some();
        let own = self.is_own(&row.head);
        if let Some(layout) = &self.table.schema.replica {
            self.cell.copy_from_slice(&layout.blank_cell);
        }
        let mut gauge = 0;
        for (column, target) in reader.columns().iter().zip(&self.targets) {
            let Some(cell) = target else {
                reader.skip();
                continue;
            };
            match column.kind {
                ColumnKind::Counter | ColumnKind::Gauge => {
                    let value = reader.counter();
                    let senders = own || self.own == Some(row.head.lineage);
                    if column.kind == ColumnKind::Gauge && senders {
                        gauge = u32::try_from(value).unwrap_or(u32::MAX);
                    }
                    let (bytes, at) = home(shard, slot, &mut self.cell, cell, own);
                    if cell.kind == Kind::Counter64 {
                        set_wide(bytes, at, value);
                    } else {
                        set_word(bytes, at, u32::try_from(value).unwrap_or(u32::MAX));
                    }
                }
                ColumnKind::Rate => {
                    let Some((age, cur, prev)) = reader.rate() else {
                        continue;
                    };
                    let window = Rate {
                        start: (now_ms as u32).wrapping_sub(age) & !1,
                        cur,
                        prev,
                    };
                    let (bytes, at) = home(shard, slot, &mut self.cell, cell, own);
                    set_rate(bytes, at, window);
                }
                ColumnKind::Register => {
                    let Some((value, stamp)) = reader.register() else {
                        continue;
                    };
                    let value = if cell.kind == Kind::ServerId {
                        unzigzag(value) as u32
                    } else {
                        value
                    };
                    self.register(shard, slot, cell, value, stamp);
                }
                ColumnKind::ServerKey => {
                    let Some((name, stamp)) = reader.text() else {
                        continue;
                    };
                    if let Some(number) = self.table.servers.number_or_none(name) {
                        self.register(shard, slot, cell, number, stamp);
                    }
                }
            }
        }
        if replicated && own && !self.has_own_cell(row) {
            shard.publish(slot, self.whole);
        }
        if replicated && !own && row.head.version > 0 && !row.head.flags.contains(RowFlags::NO_CELL)
        {
            let mut head = row.head;
            if self.gained_sums {
                // Whoever has the rest of it brings it, with the same version.
                head.flags = head.flags.with(RowFlags::PARTIAL);
            }
            let index = self.others.index(head.lineage);
            let kept = index.map(|index| shard.inherit_cell(slot, &head, index, &self.cell));
            self.refused += u64::from(kept != Some(true));
        }
        gauge
    }

    pub(super) fn register(
        &self,
        shard: &mut Shard,
        slot: u32,
        cell: &Cell,
        value: u32,
        stamp: Stamp,
    ) {
        if self.table.shared.is_some() {
            if self.own.is_some() || stamp >= register_stamp(shard.record(slot), cell) {
                shard.inherit_register(slot, cell, value, stamp);
            }
        } else {
            let (record, _) = shard.parts(slot);
            set_word(record, cell.at, value);
        }
    }
}

/// Where a value goes: into the record, or into the cell that is being read.
fn home<'a>(
    shard: &'a mut Shard,
    slot: u32,
    cell: &'a mut [u8],
    column: &Cell,
    own: bool,
) -> (&'a mut [u8], usize) {
    if own {
        (shard.parts(slot).0, column.at)
    } else {
        (cell, column.remote)
    }
}
