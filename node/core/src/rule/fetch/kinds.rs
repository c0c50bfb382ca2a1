//! What a fetch is made of: the compiled forms, plain data.

use std::net::IpAddr;

use crate::rule::cond::Term;
use crate::rule::vars::VarRef;
use crate::table::{DataType, TableId};
use crate::world::ProxyId;

/// A compiled fetch: one variant per family, arguments inside. Made by [`crate::rule::registry::FetchInfo::build`].
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Fetch {
    /// Never a sample (`env` of an unset variable).
    Missing,
    Bool(bool),
    Int(i64),
    Text(Box<[u8]>),
    Addr(IpAddr),
    Var {
        var: VarRef,
        default: Option<Box<[u8]>>,
    },
    Date {
        offset: i64,
        unit: DateUnit,
    },
    /// A number below this one.
    Rand(u64),
    Uuid,
    Process(ProcessField),
    Conn(ConnField),
    Req(ReqField),
    Status,
    ResVer,
    Header(HeaderFetch),
    HeaderCount {
        side: Side,
        name: Option<Box<[u8]>>,
        whole: bool,
    },
    HeaderNames {
        side: Side,
        delimiter: u8,
    },
    Cookie(CookieFetch),
    CookieCount {
        side: Side,
        name: Option<Box<[u8]>>,
    },
    Param(ParamFetch),
    ReqLen,
    ReqPayload {
        offset: u32,
        /// 0 = the rest
        len: u32,
    },
    ReqProtoHttp,
    WaitEnd,
    Table(TableFetch),
    TableSize {
        table: TableId,
        free: bool,
    },
    Proxy {
        field: ProxyField,
        /// `None`: the proxy whose rules run.
        proxy: Option<ProxyId>,
    },
    Server {
        field: ServerField,
        proxy: ProxyId,
        server: u16,
    },
    /// `acl(N[,[!]M]…)`: true if all hold. Built by the parser, which knows the ACLs of the proxy.
    Acl(Box<[Term]>),
}

/// Unit of `date`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DateUnit {
    Seconds,
    Millis,
    Micros,
}

/// Facts about the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ProcessField {
    DateUs,
    Hostname,
    Pid,
    Thread,
    NbProc,
    NbThread,
    Stopping,
    ActConn,
}

/// Facts about the connection, its listener and where its traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ConnField {
    Src,
    SrcPort,
    Dst,
    DstPort,
    FcSrc,
    FcSrcPort,
    FcDst,
    FcDstPort,
    SrcIsLocal,
    DstIsLocal,
    DstConn,
    FcRcvdProxy,
    FcHttpMajor,
    SslFc,
    SoName,
    SoId,
    FeName,
    FeId,
    FeDefBe,
    HttpFirstReq,
    BeName,
    BeId,
    SrvName,
    SrvId,
}

/// Parts of the request line, and what is computed from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReqField {
    Version,
    Method,
    Path,
    PathQ,
    Query,
    Url,
    Base,
    BaseQ,
    Base32,
    Base32Src,
    Url32,
    Url32Src,
    UrlIp,
    UrlPort,
}

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Side {
    Req,
    Res,
}

/// What is made of the text of a header, cookie or parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HeaderAs {
    Text,
    Ip,
    Val,
}

/// `req.hdr` and its family.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct HeaderFetch {
    pub side: Side,
    pub name: Box<[u8]>,
    /// 0 = not given: the last one, and each one in an ACL; from 1: from the first; below 0: from the last.
    pub occurrence: i32,
    /// Whole lines (`fhdr`) rather than comma-separated values.
    pub whole: bool,
    pub get: HeaderAs,
}

/// `req.cook` and its family.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CookieFetch {
    pub side: Side,
    /// `None`: any.
    pub name: Option<Box<[u8]>>,
    pub get: HeaderAs,
}

/// `urlp` and its family.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ParamFetch {
    /// `None`: any.
    pub name: Option<Box<[u8]>>,
    /// What the parameters start after.
    pub delimiter: u8,
    pub ignore_case: bool,
    pub get: HeaderAs,
}

/// A reader of a table entry.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct TableFetch {
    pub key: KeySource,
    /// `None`: the table the slot tracks in.
    pub table: Option<TableId>,
    pub read: TableRead,
}

/// Whose entry is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeySource {
    Slot(u8),
    Src,
}

/// What is read from an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TableRead {
    Value {
        what: DataType,
        index: u16,
    },
    /// A byte counter divided by 1024.
    KBytes(DataType),
    /// `old_names`: `gpc0`/`gpc1` or else the array; without: the array only.
    Increment {
        index: u16,
        old_names: bool,
    },
    Clear {
        index: u16,
        old_names: bool,
    },
    UpdateConnCnt,
    Key,
    Tracked,
    Trackers,
    Expire {
        default: Option<i64>,
    },
    Idle {
        default: Option<i64>,
    },
    InTable,
}

/// Live counters of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ProxyField {
    FeConn,
    FeSessRate,
    FeReqRate,
    BeConn,
    BeConnFree,
    BeSessRate,
    NbSrv,
    Queue,
    AvgQueue,
    ConnSlots,
}

/// Live counters of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ServerField {
    Conn,
    ConnFree,
    Queue,
    IsUp,
    SessRate,
    Weight,
    InitialWeight,
}
