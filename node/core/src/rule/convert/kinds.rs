//! What a converter is made of: the compiled forms, plain data.

use regex::bytes::Regex;

use crate::rule::fetch::TableRead;
use crate::rule::vars::{VarConditions, VarRef};
use crate::table::TableId;

/// A compiled converter. Made by [`crate::rule::registry::ConverterInfo::build`].
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Converter {
    Lower,
    Upper,
    Length,
    Reverse,
    Bytes {
        offset: Number,
        len: Option<Number>,
    },
    Split(Split),
    Concat {
        before: Box<[u8]>,
        var: Option<VarRef>,
        after: Box<[u8]>,
    },
    StrCmp(VarRef),
    Arith(Arith, Number),
    Neg,
    Cpl,
    Not,
    Bool,
    Even,
    Odd,
    Iif {
        yes: Box<[u8]>,
        no: Box<[u8]>,
    },
    IpMask {
        v4: u32,
        v6: Option<u128>,
    },
    Hex,
    Hex2i,
    Base64,
    Base64Decode,
    /// With the avalanche flag (or seed, for xxHash).
    Hash(Hash, i64),
    Sha1,
    UrlDecode {
        /// `+` is a space from the start on, not only after `?`.
        form: bool,
    },
    UrlEncode(UrlForm),
    RegSub {
        regex: Box<Regex>,
        replacement: Box<[u8]>,
        all: bool,
    },
    HostOnly,
    PortOnly,
    TrimEnd(Box<[u8]>),
    TrimStart(Box<[u8]>),
    SetVar {
        var: VarRef,
        conditions: VarConditions,
    },
    UnsetVar(VarRef),
    NbSrv,
    SrvQueue,
    FeExists,
    Table {
        table: TableId,
        read: TableRead,
    },
}

/// An integer argument that may be a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Number {
    Int(i64),
    Var(VarRef),
}

/// Two-operand arithmetic. Results saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
}

/// Hashes for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hash {
    Crc32,
    Crc32c,
    Djb2,
    Sdbm,
    Wt6,
    Xxh32,
    Xxh64,
}

/// What may stay as it is when encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum UrlForm {
    /// Everything but RFC 3986's unreserved characters is encoded.
    Query,
}

/// `field` and `word`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Split {
    /// From 1, or from -1 at the end.
    pub index: i64,
    pub delimiters: Box<[u8]>,
    /// Fields to take, 0 = all the rest.
    pub count: u32,
    /// Delimiters in a row count once.
    pub words: bool,
}
