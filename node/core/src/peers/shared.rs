//! What the hub keeps of each table that it shares.
//!
//! What holds at any time, and everything rests on, is what [`Known`] says of a lineage. Only two things raise it:
//! batches of that lineage's own journal, which follow each other without a gap; and the end of a walk, by the number that
//! the other side knew before the walk began. Rows of a walk by themselves prove nothing.

use std::collections::BTreeMap;

use super::ages::Ages;
use super::batch::BatchWriter;
use super::learn::{Lack, Learn};
use super::limits::FLUSH_MS;
use super::messages::{Held, TableDef};
use super::store::Store;
use super::wants::Wanted;
use crate::table::{Key, Lineage, TableId};

/// A table that this hub shares.
pub(super) struct Shared {
    pub(super) id: TableId,
    pub(super) def: TableDef,
    pub(super) writer: BatchWriter,
    /// See the module's head.
    pub(super) known: BTreeMap<Lineage, Known>,
    /// Which claims of whom about which lineage were followed up: they need not be again.
    pub(super) filled: BTreeMap<(Lineage, Lineage), Filled>,
    /// When somebody who had missed nothing was through with showing a lineage's cells.
    pub(super) shown_at: BTreeMap<Lineage, u64>,
    /// When those that are alive but come only through others are asked about again, and how long that pause is.
    pub(super) pauses: BTreeMap<Lineage, (u64, u64)>,
    /// Keys to ask about once there is a session for it, and whom.
    pub(super) wants: Vec<(Lineage, Wanted)>,
    /// Keys to offer once there is a session for it, and to whom.
    pub(super) offers: Vec<(Lineage, Key)>,
    /// What others have acknowledged of our journal, by lineage.
    pub(super) acked: BTreeMap<Lineage, u64>,
    /// The journal's newest number at the last flush: sessions read up to there, so that a key which changes all the time
    /// is not sent more often than once per flush.
    pub(super) flushed: u64,
    /// The journal's newest number when all that was here from the beginning had got one.
    pub(super) first: Option<u64>,
    /// When the journal's numbers were given.
    pub(super) ages: Ages,
    /// The next flush is not before this.
    pub(super) flush_at: u64,
    /// How long the pause before it is.
    pub(super) pause: u64,
    /// The last flush had something to send, so the next one comes by itself: nobody need be woken for what changes until
    /// then.
    pub(super) is_busy: bool,
    pub(super) learn: Learn,
    pub(super) lack: Lack,
    /// A peer was through with teaching it.
    pub(super) taught: bool,
}

impl Shared {
    /// What a hub knows of a table at the beginning. `newcomer`: it is to be taught.
    pub(super) fn new(id: TableId, store: &dyn Store, newcomer: bool) -> Shared {
        let spec = store.spec();
        let columns = store.columns();
        Shared {
            id,
            def: TableDef {
                name: spec.shared_name().to_owned(),
                key_type: spec.key_type,
                key_len: u32::try_from(spec.key_len).unwrap_or(u32::MAX),
                size: spec.size as u64,
                expire_ms: spec.expire_ms,
                columns: columns.clone(),
                entries: 0,
                later: Vec::new(),
            },
            writer: BatchWriter::new(columns),
            known: BTreeMap::new(),
            filled: BTreeMap::new(),
            shown_at: BTreeMap::new(),
            pauses: BTreeMap::new(),
            wants: Vec::new(),
            offers: Vec::new(),
            acked: BTreeMap::new(),
            flushed: store.newest(),
            first: None,
            ages: Ages::default(),
            flush_at: 0,
            pause: FLUSH_MS,
            is_busy: false,
            learn: if newcomer {
                Learn::Wanting
            } else {
                Learn::Done
            },
            lack: Lack::Nothing,
            taught: false,
        }
    }
}

/// A claim that was followed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) claim: Held,
    /// How often since more than its revision changed.
    pub(super) times: u8,
}

/// What was merged here of another lineage's journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Everything up to this number.
    pub(super) all: u64,
    /// Every key that has not changed again since, up to this number. While this node reads on, the
    /// others come with newer numbers: here its reading is resumed. Once the lineage is dead only `all` counts.
    /// 0 again after a long break, see [`Shared::read_again`].
    pub(super) resume: u64,
    /// See [`Held::revision`].
    pub(super) revision: u32,
    /// Its journal is read again from the beginning: until its end, trackers may be missing here that rows below `all` would
    /// bring.
    pub(super) again: bool,
    /// Something with the next number came and was not taken: `all` stops here, until it is asked for again.
    pub(super) limit: Option<u64>,
}

impl Known {
    /// Where another process of this node reads on: what was not taken comes to it again.
    pub(super) fn resumed_at(&self) -> u64 {
        match self.limit {
            Some(_) => self.resume.min(self.all),
            None => self.resume,
        }
    }
    /// What may be vouched for towards others: those who take it for all would never hear of trackers that are missing here.
    pub(super) fn vouched(&self, alive: bool) -> u64 {
        if alive && self.again {
            self.resume.min(self.all)
        } else {
            self.all
        }
    }
    /// Everything up to that number came, and was taken as far as the limit.
    pub(super) fn raise(&mut self, number: u64) {
        self.all = self.all.max(number.min(self.limit.unwrap_or(u64::MAX)));
    }
}
