//! What travels between two nodes, as plain data. The shell translates it to and from the wire.
//!
//! Every node dials every peer. On the stream that a node dialed it sends [`Push`]es: what it has counted. The other
//! side's [`Reply`]s come back on the same stream: how far it has got, what it lacks. Tables are named by their position
//! in the dialer's [`Hello`], in both directions.

use super::batch::{ColumnDef, Columns};
use crate::table::{Key, KeyType, Lineage};

/// Version of the protocol. A peer of another one is refused; smaller changes are unknown fields, which are skipped.
pub const VERSION: u32 = 1;

/// A table as its node declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDef {
    /// Name by which nodes recognise it as the same table (`TableSpec::shared_name`).
    pub name: String,
    /// Type of its keys. Must be equal on both sides.
    pub key_type: KeyType,
    /// Bytes of a key as stored. Must be equal on both sides.
    pub key_len: u32,
    /// Greatest number of entries. A difference is reported.
    pub size: u64,
    /// Lifetime of an entry in milliseconds; `None`: until evicted. A difference is reported.
    pub expire_ms: Option<u32>,
    /// Its columns in the order of rows.
    pub columns: Vec<ColumnDef>,
    /// About how many entries it has when it is told; 0: that is not said.
    pub entries: u64,
    /// Names of columns that only a later version knows, for people: they are not shared.
    pub later: Vec<String>,
}

/// First message of a dialer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the `peers` section: nodes of different clusters do not mix by accident.
    pub cluster: String,
    /// Name of the dialing node, for people.
    pub node: String,
    /// Its lineage.
    pub lineage: Lineage,
    /// It has just started and has not been taught: it cannot teach others.
    pub newcomer: bool,
    /// Its monotonic clock, milliseconds of an origin of its own.
    pub mono_ms: u64,
    /// Its wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// Its tables.
    pub tables: Vec<TableDef>,
}

/// First answer to a [`Hello`] that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// [`VERSION`].
    pub version: u32,
    /// As in [`Hello`].
    pub cluster: String,
    /// Name of the answering node.
    pub node: String,
    /// Its lineage.
    pub lineage: Lineage,
    /// As in [`Hello`].
    pub newcomer: bool,
    /// As in [`Hello`].
    pub mono_ms: u64,
    /// As in [`Hello`].
    pub wall_ms: u64,
    /// One for each table of the [`Hello`], in its order.
    pub tables: Vec<TableAnswer>,
    /// To a newcomer: the lineage of a node that has ended, which it may continue.
    pub estate: Option<Estate>,
}

/// A lineage whose node has ended, everything sent. Offered to one newcomer, which continues it once it has been taught
/// all of it: so nodes that are restarted do not leave ever more lineages behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Estate {
    /// Which.
    pub lineage: Lineage,
    /// Position of the table in the dialer's [`Hello`], last number of its journal.
    pub numbers: Vec<(u32, u64)>,
}

/// What the answering node makes of one of the dialer's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableAnswer {
    /// It has such a table: they will be synchronised.
    pub matched: bool,
    /// What differs, for people. Can be filled for a matched table too.
    pub mismatches: Vec<String>,
}

/// Where a batch's rows come from, which decides what they prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// The dialer's own journal, continuing where the batch before it ended: to be resumed after `upto`.
    Journal {
        /// Every key whose newest change has a number up to this one was in this batch or an earlier one.
        upto: u64,
        /// The journal's end was reached. Only then does the receiver have *every* change up to `upto`: further back,
        /// a key that changed again has left its place and comes later.
        whole: bool,
    },
    /// Part of a walk through the table: proves nothing until [`Push::Taught`] says so.
    Walk,
    /// All that is known of some keys: one for each [`Reply::Want`], in order. Never leads to another question.
    Answer,
    /// All that is known of some keys, unasked: the receiver seems to have lost counts. Never leads to a question.
    Offer,
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Position of the table in the dialer's [`Hello`].
    pub table: u32,
    /// The dialer's monotonic clock when the rows were read: ages count back from here.
    pub mono_ms: u64,
    /// See [`BatchKind`].
    pub kind: BatchKind,
    /// The rows.
    pub columns: Columns,
}

/// Numbers in the journals of lineages.
pub type Holdings = Vec<(Lineage, u64)>;

/// What a node holds of another lineage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub lineage: Lineage,
    /// Every change up to this number.
    pub known: u64,
    /// Some changes up to this one; not below `known`.
    pub highest: u64,
    /// Changes when something below `highest` came in later.
    pub revision: u32,
}

/// What a dialer sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// First and only once.
    Hello(Hello),
    /// Rows. Every one is answered by one [`Reply::Ack`], in order.
    Batch(Batch),
    /// The walk that was asked for ([`Reply::Teach`], [`Reply::Gap`]) is complete: with it, the receiver has every change
    /// of these lineages up to these numbers.
    Taught {
        /// Position of the table in the dialer's [`Hello`].
        table: u32,
        /// What was held before the walk began.
        holdings: Holdings,
    },
    /// What the dialer holds of other lineages, so that the receiver can ask for what it lacks.
    Holdings {
        /// Position of the table in the dialer's [`Hello`].
        table: u32,
        /// Those that changed since the last such message.
        holdings: Vec<Held>,
    },
    /// Sent every second and when `vouched` changes.
    Heartbeat {
        /// The dialer's monotonic clock.
        mono_ms: u64,
        /// Its wall clock.
        wall_ms: u64,
        /// Lineages that it hears itself.
        vouched: Vec<Lineage>,
        /// Lineages of processes of its node that have died, once it has said what is left of what they held.
        over: Vec<Lineage>,
    },
    /// The dialer stops, and has sent everything: the last journal number of each table.
    Goodbye {
        /// Position of the table in the dialer's [`Hello`], number.
        numbers: Vec<(u32, u64)>,
        /// The receiver, and nobody else, may give the lineage to a newcomer.
        heir: bool,
    },
}

/// Why a [`Hello`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The dialer reached itself.
    #[error("that is myself")]
    Myself,
    /// Another cluster.
    #[error("other cluster")]
    Cluster,
    /// A protocol version that is not spoken here.
    #[error("protocol version not supported")]
    Version,
    /// The bound on lineages is reached.
    #[error("too many lineages")]
    Lineages,
    /// The node is about to stop.
    #[error("stopping")]
    Stopping,
    /// The dialer has opened a newer stream: also said on one that was accepted, when it is given up for that reason.
    #[error("replaced by a newer session")]
    Duplicate,
    /// A reason of a later version, or a message that makes no sense.
    #[error("refused")]
    Other,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The [`Hello`] is accepted.
    Welcome(Welcome),
    /// It is not; the stream ends.
    Refuse {
        /// Why.
        why: Refusal,
        /// The same for people, with details.
        text: String,
    },
    /// Push your journal of this table from here on. Once per table.
    Start {
        /// Position of the table in the dialer's [`Hello`].
        table: u32,
        /// The last number the receiver has.
        after: u64,
    },
    /// Walk me through cells of all lineages.
    Teach {
        /// Position of the table in the dialer's [`Hello`].
        table: u32,
    },
    /// Walk me through the cells of these lineages that changed after these numbers.
    Gap {
        /// Position of the table in the dialer's [`Hello`].
        table: u32,
        /// What the asker has.
        after: Holdings,
    },
    /// Send me all you know of these keys.
    Want {
        /// Position of the table in the dialer's [`Hello`].
        table: u32,
        /// In stored form.
        keys: Vec<Key>,
    },
    /// A batch was merged.
    Ack {
        /// Position of the table in the dialer's [`Hello`].
        table: u32,
        /// `upto` of the batch; 0 if it was not of the journal.
        upto: u64,
    },
    /// Sent every second.
    Heartbeat {
        /// The receiver's monotonic clock.
        mono_ms: u64,
        /// Its wall clock.
        wall_ms: u64,
    },
    /// The receiver stops.
    Goodbye,
}
