//! A table as its configuration describes it.

use super::{DataType, KeyType};

/// One stored data type with its arguments, as written after `store`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which data type.
    pub data_type: DataType,
    /// Elements: 1, or 1-100 for the array types.
    pub elements: u16,
    /// Period of a rate in milliseconds, 0 for what is not a rate.
    pub period_ms: u32,
}

/// A table as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Name: the proxy's, or `SECTION/NAME` for a table of a `peers` section.
    pub name: String,
    /// Type of its keys.
    pub key_type: KeyType,
    /// Bytes of a key as stored (4, 16, 4, or `len`).
    pub key_len: usize,
    /// Greatest number of entries, at least 1.
    pub size: usize,
    /// Lifetime of an entry since its last refresh; `None`: until evicted.
    pub expire_ms: Option<u32>,
    /// A full table refuses new keys rather than evicting old ones.
    pub nopurge: bool,
    /// What is stored, in `DataType` order, each data type once.
    pub store: Vec<Stored>,
    /// `brates-factor`, 1-1024.
    pub brates_factor: u32,
    /// Non-arithmetic data received from peers for this table also goes to that one.
    pub write_to: Option<TableId>,
    /// `recv-only`.
    pub recv_only: bool,
    /// `srvkey addr` (else `name`).
    pub srvkey_addr: bool,
    /// The `peers` section that shares it between nodes, by position; `None`: it is this process's own.
    pub peers: Option<u16>,
}

impl TableSpec {
    /// A table that stores nothing yet and keeps its entries until they are evicted; `size` is still to be set.
    pub fn new(name: &str, key_type: KeyType) -> TableSpec {
        TableSpec {
            name: name.to_owned(),
            key_type,
            key_len: key_type.default_len(),
            size: 0,
            expire_ms: None,
            nopurge: false,
            store: Vec::new(),
            brates_factor: 1,
            write_to: None,
            recv_only: false,
            srvkey_addr: false,
            peers: None,
        }
    }
    /// The name by which nodes recognise it as the same table: as in the reference, one that was declared in a `peers`
    /// section is `/NAME` whatever the section is called, others have their own.
    pub fn shared_name(&self) -> &str {
        self.name
            .find('/')
            .and_then(|at| self.name.get(at..))
            .unwrap_or(&self.name)
    }
    /// What keeps a table like this one from taking over entries with such keys, if anything does. Text of another length is
    /// no obstacle: keys that are not too long stay the same.
    pub fn differs(&self, key_type: KeyType, key_len: usize) -> Option<String> {
        if key_type != self.key_type {
            let (now, before) = (self.key_type.name(), key_type.name());
            return Some(format!("its keys are of type {now} now, and were {before}"));
        }
        let same = key_len == self.key_len || key_type == KeyType::String;
        (!same).then(|| {
            format!(
                "its keys are {} bytes long now, and were {key_len}",
                self.key_len
            )
        })
    }
    /// Whether keys of one table can be looked up in the other: same type and length.
    pub fn same_keys_as(&self, other: &TableSpec) -> bool {
        self.key_type == other.key_type && self.key_len == other.key_len
    }
}

/// Position of a table in [`crate::world::World::tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u16);
