//! What two workers say to each other about tables, over a channel of their own.

use std::net::SocketAddr;

use bincode::{Decode, Encode};

/// In the order in which it is said: the new process asks, the old one shows; later the old one tells what it still counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Pass {
    /// New: begin.
    Ask,
    /// Old: who it is, and what there is.
    Tables(Tables),
    /// Old: entries.
    Rows(Rows),
    /// Old: all entries have been shown once; what changes is shown again.
    Walked,
    /// Old: counters so far.
    Totals(Vec<Total>),
    /// Old: what was changed at run time.
    Settings(Vec<Setting>),
    /// Old: what it holds on behalf of a process that drains. May be repeated for one process.
    Shares(Shares),
    /// Old: numbers of a replicated table.
    Numbers(Numbers),
    /// Old: what its hub knows beside the entries of a table.
    Known(Known),
    /// Old: lineages that are alive, with the names of their nodes.
    Lives(Vec<(u64, String)>),
    /// Old: that was all; from now on it tells what it counts.
    Sealed {
        /// Since when nothing is accepted, on the monotonic clock in milliseconds; 0: it goes on until the new one accepts.
        held_ms: u64,
    },
    /// Old: it will not come back.
    Released,
    /// A process that drains, to the one that serves now: the beginning.
    Child {
        /// Its number.
        child: u64,
        /// Its tables, by position.
        tables: Vec<TableInfo>,
        /// The next frame has more of them.
        more: bool,
    },
    /// The answer: the last [`Pass::Drain`] that was counted; `None`: never heard of that process.
    Heard {
        /// Its number.
        seq: Option<u64>,
    },
    /// What was counted since the last one.
    Drain(Drain),
    /// It was counted.
    Ack {
        /// Its number.
        seq: u64,
    },
    /// Nothing more will come.
    Drained,
    /// New: it accepts. Only where the old one still does after [`Pass::Sealed`].
    Accepting,
    /// Old, in answer to that: it accepts nothing more, unless the new one dies.
    Quiet,
    /// Old: where a name leads that `discover` follows. Said before [`Pass::Sealed`].
    Found(Found),
}

/// See [`Pass::Found`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Found {
    /// The `peers` section.
    pub peers: String,
    /// The name, as it is written.
    pub name: String,
    /// Addresses in use, and for how many milliseconds answers have lacked them, if they do.
    pub addresses: Vec<(SocketAddr, Option<u64>)>,
}

/// See [`Pass::Tables`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tables {
    /// The process's number among those that drain.
    pub child: u64,
    /// Its lineage; 0 = it shares nothing.
    pub lineage: u64,
    /// Its clock.
    pub mono_ms: u64,
    /// All tables, by position.
    pub tables: Vec<TableInfo>,
    /// The next frame has more of them.
    pub more: bool,
    /// What the hashes of these tables are seeded with: who has the same seeds finds entries in the order in which they come.
    pub seeds: Vec<u64>,
    /// About how many entries they have.
    pub entries: Vec<u64>,
    /// Of these tables, if they are not replicated but were: under which lineage, and the journal's last number then. `0, 0`
    /// for all others; `0, 1` if they were, but that cannot go on.
    pub shared_as: Vec<(u64, u64)>,
    /// How many entries these tables may have.
    pub sizes: Vec<u64>,
}

/// A table's definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TableInfo {
    /// Its full name.
    pub name: String,
    /// As configured.
    pub key_type: String,
    /// Bytes.
    pub key_len: u32,
    /// Bit position of a data type, element, period.
    pub columns: Vec<(u8, u16, u32)>,
    /// `brates-factor`
    pub brates_factor: u32,
    /// It is replicated.
    pub replicated: bool,
}

/// Entries of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Rows {
    /// Its position.
    pub table: u16,
    /// The clock that ages are counted from.
    pub now_ms: u64,
    /// See `remora_core::table::Slice`.
    pub removed: Vec<Vec<u8>>,
    /// See `remora_core::peers::batch::Columns`, as all that follows.
    pub rows: u32,
    #[allow(missing_docs)]
    pub key_width: u32,
    #[allow(missing_docs)]
    pub keys: Vec<u8>,
    #[allow(missing_docs)]
    pub key_lengths: Vec<u8>,
    #[allow(missing_docs)]
    pub heads: Vec<u8>,
    #[allow(missing_docs)]
    pub lineages: Vec<u64>,
    #[allow(missing_docs)]
    pub stamp_base: u64,
    #[allow(missing_docs)]
    pub values: Vec<(u32, Vec<u8>)>,
    /// Position of an entry's first row, and its trackers.
    pub held: Vec<(u32, u32)>,
    /// Position of a tombstone's first row, and its age.
    pub tombs: Vec<(u32, u32)>,
    /// All frames that show one key have the same number here, or 0: any keys.
    pub stripe: u32,
}

/// Counters of one proxy, server or the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Total {
    /// Whose.
    pub name: String,
    /// In a fixed order; later versions append.
    pub values: Vec<u64>,
}

/// Something that was set at run time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Setting {
    /// The proxy; empty for the process.
    pub proxy: String,
    /// The server; empty for the proxy.
    pub server: String,
    /// Administrative state.
    pub admin: Option<u32>,
    /// Weight.
    pub weight: Option<u32>,
    /// `maxconn`
    pub maxconn: Option<u32>,
}

/// See [`Pass::Shares`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Shares {
    /// The process that drains.
    pub child: u64,
    /// The last [`Pass::Drain`] of it that was counted.
    pub seq: u64,
    /// Position of the table, key, trackers, gauge.
    pub shares: Vec<(u16, Vec<u8>, u32, u32)>,
}

/// See [`Pass::Numbers`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Numbers {
    /// Position.
    pub table: u16,
    /// The journal's last number.
    pub newest: u64,
    /// Highest versions by lineage.
    pub highest: Vec<(u64, u64)>,
}

/// See [`Pass::Known`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Known {
    /// Position of the table.
    pub table: u16,
    /// Lineage, and what is known of it: all up to, resume at, revision.
    pub known: Vec<(u64, u64, u64, u32)>,
    /// Lineage, and what it has acknowledged.
    pub acked: Vec<(u64, u64)>,
    /// Something that was read is not there, and peers have not been asked for it yet.
    pub lacks: bool,
    /// Entries had to go, or did not come in, for lack of room.
    pub crowded: bool,
}

/// See [`Pass::Drain`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Drain {
    /// 1, 2, …
    pub seq: u64,
    /// Changes of entries.
    pub entries: Vec<Change>,
    /// Increases of counters.
    pub totals: Vec<Total>,
}

/// What happened to an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    /// Position of its table in the sender.
    pub table: u16,
    /// Its key.
    pub key: Vec<u8>,
    /// See `remora_core::table::Delta`.
    pub uses: i64,
    /// See there.
    pub touched: bool,
    /// Bit position of the data type, element, what.
    pub ops: Vec<(u8, u16, Op)>,
}

/// What happened to an element.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Op {
    /// So much was added.
    Add(i64),
    /// It was assigned.
    Set(u64),
    /// A server's name or address was remembered.
    Name(Vec<u8>),
}
