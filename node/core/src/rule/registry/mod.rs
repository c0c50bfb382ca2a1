//! One row per fetch and converter: name, arguments, types, where it is valid, how it is built. The configuration
//! parser, its messages and the keyword lists derive from it.
//!
//! Rows are data; evaluation is in [`super::fetch`] and [`super::convert`]. The table family and the ACL spellings are
//! generated from one rule each (`tables`, `derived`).

mod converters;
mod derived;
mod fetches;
mod messages;
mod tables;

use std::sync::OnceLock;

use super::cond::MatchMethod;
pub use super::convert::Converter;
pub use super::fetch::Fetch;
use super::sample::SampleType;
use super::vars::VarRef;
use crate::table::{DataType, TableId};
use crate::world::ProxyId;

/// Kind of an argument in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ArgKind {
    Str,
    Int,
    /// time with units, in ms
    Time,
    Table,
    /// frontend name
    Frontend,
    Backend,
    /// `[backend/]server`
    Server,
    Var,
    /// dotted mask or prefix length, resolved to the mask as an address ([`Arg::Ip`])
    Ipv4Mask,
    Ipv6Mask,
    Ipv4,
    Ipv6,
    Regex,
    /// integer or variable
    IntOrVar,
    Bool,
    /// name of an environment variable, resolved by the parser to [`Arg::Env`]
    Env,
}

/// A resolved argument.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Arg {
    Str(Vec<u8>),
    Int(i64),
    Table(TableId),
    Proxy(ProxyId),
    Server(ProxyId, u16),
    Var(VarRef),
    Ip(std::net::IpAddr),
    Regex(Box<regex::bytes::Regex>),
    Bool(bool),
    /// Value of an environment variable, `None` if it is not set.
    Env(Option<Vec<u8>>),
}

/// What must exist for a fetch to work (the reference's contexts), as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs(pub u16);
impl Needs {
    /// Nothing: constants, tables by key, process facts.
    pub const NOTHING: Needs = Needs(0);
    /// A client connection.
    pub const CONN: Needs = Needs(1);
    /// A stream: request-level slots and variables, request bytes.
    pub const STREAM: Needs = Needs(2);
    /// Parsed request head.
    pub const REQ_HEAD: Needs = Needs(4);
    /// Parsed response head.
    pub const RES_HEAD: Needs = Needs(8);
    /// Raw request content (`req.len`, `req.payload`).
    pub const REQ_CONTENT: Needs = Needs(16);
    /// Raw response content.
    pub const RES_CONTENT: Needs = Needs(32);
    /// Both.
    pub const fn and(self, other: Needs) -> Needs {
        Needs(self.0 | other.0)
    }
    /// Whether a place that offers `self` satisfies everything in `wanted`.
    pub const fn satisfies(self, wanted: Needs) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// A row of the fetch registry.
pub struct FetchInfo {
    /// Name as written.
    pub name: &'static str,
    /// Arguments in parentheses, by position.
    pub args: &'static [ArgKind],
    /// How many of them must be given.
    pub required: usize,
    /// Type of its sample.
    pub output: SampleType,
    /// Where it can be used.
    pub needs: Needs,
    /// Method it carries in an ACL (derived keywords: `path_beg` is `path` with `Beg`).
    pub acl_match: Option<MatchMethod>,
    /// An ACL spelling (`path_beg`): unknown outside ACLs.
    pub acl_only: bool,
    /// One line for help.
    pub help: &'static str,
    maker: FetchMaker,
}

impl FetchInfo {
    /// Builds it from resolved arguments (`None`: not given; missing trailing ones may be left out). `own_table`: the
    /// current proxy's table, the default of `src_*`.
    pub fn build(&self, args: &[Option<Arg>], own_table: Option<TableId>) -> Result<Fetch, String> {
        let args = Args(args);
        match self.maker {
            FetchMaker::Plain(make) => make(&args),
            FetchMaker::Table(row) => row.fetch(&args, own_table),
        }
    }
}

#[derive(Clone, Copy)]
enum FetchMaker {
    Plain(fn(&Args<'_>) -> Result<Fetch, String>),
    Table(tables::FetchRow),
}

/// A row of the converter registry.
pub struct ConverterInfo {
    /// Name as written.
    pub name: &'static str,
    /// Arguments in parentheses.
    pub args: &'static [ArgKind],
    /// How many of them must be given.
    pub required: usize,
    /// Type it takes (input is cast to it).
    pub input: SampleType,
    /// Type it gives; `Any` = same as its input.
    pub output: SampleType,
    /// One line for help.
    pub help: &'static str,
    maker: ConverterMaker,
}

impl ConverterInfo {
    /// Builds it, as [`FetchInfo::build`] does; `own_table` is the default of `table_*`.
    pub fn build(
        &self,
        args: &[Option<Arg>],
        own_table: Option<TableId>,
    ) -> Result<Converter, String> {
        let args = Args(args);
        match self.maker {
            ConverterMaker::Plain(make) => make(&args),
            ConverterMaker::Table(row) => row.converter(&args, own_table),
        }
    }
}

#[derive(Clone, Copy)]
enum ConverterMaker {
    Plain(fn(&Args<'_>) -> Result<Converter, String>),
    Table(tables::ConverterRow),
}

/// The data type a table must store for a reader to be of use: (table, data type, array index). `None` for slots
/// without an explicit table (their table is known only when tracking starts) and for what is no table reader.
pub type TableNeed = Option<(TableId, DataType, u16)>;

/// The fetch of that name (also ACL spellings such as `path_beg`).
pub fn fetch(name: &str) -> Option<&'static FetchInfo> {
    let rows = fetches();
    rows.binary_search_by(|row| row.name.cmp(name))
        .ok()
        .and_then(|i| rows.get(i))
}

/// All fetches, sorted by name.
pub fn fetches() -> &'static [FetchInfo] {
    static ROWS: OnceLock<Vec<FetchInfo>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let mut rows = fetches::rows();
        rows.extend(messages::rows());
        rows.extend(tables::fetch_rows());
        let derived = derived::rows(&mut rows);
        rows.extend(derived);
        rows.sort_by_key(|row| row.name);
        rows
    })
}

/// The converter of that name.
pub fn converter(name: &str) -> Option<&'static ConverterInfo> {
    let rows = converters();
    rows.binary_search_by(|row| row.name.cmp(name))
        .ok()
        .and_then(|i| rows.get(i))
}

/// All converters, sorted by name.
pub fn converters() -> &'static [ConverterInfo] {
    static ROWS: OnceLock<Vec<ConverterInfo>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let mut rows = converters::rows();
        rows.extend(tables::converter_rows());
        rows.sort_by_key(|row| row.name);
        rows
    })
}

/// Arguments by position, with typed access. A wrong kind is the parser's mistake and becomes an error text.
struct Args<'a>(&'a [Option<Arg>]);

impl Args<'_> {
    fn get(&self, at: usize) -> Option<&Arg> {
        self.0.get(at).and_then(Option::as_ref)
    }
    fn given(&self) -> usize {
        self.0.iter().filter(|a| a.is_some()).count()
    }
    fn str(&self, at: usize) -> Result<Option<&[u8]>, String> {
        match self.get(at) {
            None => Ok(None),
            Some(Arg::Str(s)) => Ok(Some(s)),
            Some(_) => Err(wrong(at, "a string")),
        }
    }
    fn owned(&self, at: usize) -> Result<Option<Box<[u8]>>, String> {
        Ok(self.str(at)?.map(Box::from))
    }
    fn int(&self, at: usize) -> Result<Option<i64>, String> {
        match self.get(at) {
            None => Ok(None),
            Some(Arg::Int(i)) => Ok(Some(*i)),
            Some(_) => Err(wrong(at, "an integer")),
        }
    }
    fn need_int(&self, at: usize) -> Result<i64, String> {
        self.int(at)?.ok_or_else(|| wrong(at, "an integer"))
    }
    fn need_str(&self, at: usize) -> Result<Box<[u8]>, String> {
        self.owned(at)?.ok_or_else(|| wrong(at, "a string"))
    }
    fn var(&self, at: usize) -> Result<Option<VarRef>, String> {
        match self.get(at) {
            None => Ok(None),
            Some(Arg::Var(v)) => Ok(Some(*v)),
            Some(_) => Err(wrong(at, "a variable name")),
        }
    }
    fn need_var(&self, at: usize) -> Result<VarRef, String> {
        self.var(at)?.ok_or_else(|| wrong(at, "a variable name"))
    }
    fn ip(&self, at: usize) -> Result<Option<std::net::IpAddr>, String> {
        match self.get(at) {
            None => Ok(None),
            Some(Arg::Ip(a)) => Ok(Some(*a)),
            Some(_) => Err(wrong(at, "an address or mask")),
        }
    }
    fn proxy(&self, at: usize) -> Result<Option<ProxyId>, String> {
        match self.get(at) {
            None => Ok(None),
            Some(Arg::Proxy(p)) => Ok(Some(*p)),
            Some(_) => Err(wrong(at, "a proxy name")),
        }
    }
    fn table(&self, at: usize) -> Result<Option<TableId>, String> {
        match self.get(at) {
            None => Ok(None),
            Some(Arg::Table(t)) => Ok(Some(*t)),
            Some(_) => Err(wrong(at, "a table name")),
        }
    }
}

fn wrong(at: usize, expected: &str) -> String {
    format!("expected {expected} as argument {}", at + 1)
}
