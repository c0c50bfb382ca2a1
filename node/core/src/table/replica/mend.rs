//! What bears the time of a clock that was far ahead, once that clock is right again.
//!
//! Other nodes have refused such stamps, and go on refusing whatever is stamped above them. So they are set back by as much as
//! the clock was: to about when they were made. Nodes whose clocks were ahead together, and came back together, do the same to
//! the same stamps, so what they agreed on stays what it was.

use super::Replica;
use super::STAMP_AHEAD_MAX_MS;
use super::edicts::{Ext, NEVER, register_stamp, set_register};
use super::state::flags;
use crate::table::lineage::Stamp;
use crate::table::schema::{FLAGS, word};
use crate::table::{Cursor, Table};

impl Ext {
    fn stamps(&mut self) -> impl Iterator<Item = &mut Stamp> {
        let columns = self.columns.iter_mut().map(|(_, stamp)| stamp);
        let epochs = self.epochs.iter_mut().map(|(_, epoch)| epoch);
        columns
            .chain(epochs)
            .chain([&mut self.all, &mut self.own_epoch])
    }
}

/// Where the stamps of one entry that are too far ahead go.
struct Setting {
    limit_ms: u64,
    back_ms: u64,
    wall_ms: u64,
    /// The newest of the others.
    floor_ms: u64,
}

impl Setting {
    fn set(&self, stamp: Stamp) -> Stamp {
        if stamp.ms <= self.limit_ms {
            return stamp;
        }
        let mut ms = stamp.ms.saturating_sub(self.back_ms);
        if ms > self.limit_ms {
            ms = self.wall_ms;
        }
        Stamp {
            ms: ms.max(self.floor_ms.saturating_add(1)),
            lineage: stamp.lineage,
        }
    }
}

/// Sets back all stamps that are too far ahead of the wall clock, and has the entries told to others. Returns how many.
pub(super) fn mend(replica: &Replica<'_>, back_ms: u64, now_ms: u64) -> usize {
    let table: &Table = replica.table;
    let layout = replica.layout;
    let wall_ms = replica.shared.wall_ms(now_ms);
    let limit_ms = wall_ms.saturating_add(STAMP_AHEAD_MAX_MS);
    let mut mended = 0;
    let mut cursor = Cursor::default();
    table.walk_while(&mut cursor, |shard, at| {
        let (record, Some(replica)) = shard.parts(at.slot) else {
            return true;
        };
        let has_ext = word(record, FLAGS) & flags::EXT != 0;
        let (mut is_ahead, mut floor_ms) = (false, 0);
        let mut look = |stamp: Stamp| {
            if stamp.ms > limit_ms {
                is_ahead = true;
            } else {
                floor_ms = floor_ms.max(stamp.ms);
            }
        };
        for register in layout.registers() {
            look(register_stamp(record, register));
        }
        if has_ext && let Some(ext) = replica.ext_mut(at.slot) {
            ext.stamps().for_each(|stamp| look(*stamp));
        }
        if !is_ahead {
            return true;
        }
        let setting = Setting {
            limit_ms,
            back_ms,
            wall_ms,
            floor_ms,
        };
        for register in layout.registers() {
            let stamp = register_stamp(record, register);
            if stamp > NEVER {
                let value = word(record, register.at);
                set_register(record, register, value, setting.set(stamp));
            }
        }
        if has_ext && let Some(ext) = replica.ext_mut(at.slot) {
            for stamp in ext.stamps() {
                *stamp = setting.set(*stamp);
            }
        }
        // They may have been voided by a stamp that was not for them.
        replica.doubt_cells(record);
        replica.mark(record, at.slot);
        mended += 1;
        true
    });
    mended
}
