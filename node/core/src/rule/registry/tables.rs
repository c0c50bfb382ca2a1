//! Rows of the table family: every reader in all its spellings (`sc_X`, `sc0_X`-`sc2_X`, `src_X`, `table_X`), from one
//! list. (reference: stick-tables 7.3)

use super::ArgKind::{Int, Table};
use super::{
    ArgKind, Args, Converter, ConverterInfo, ConverterMaker, Fetch, FetchInfo, FetchMaker,
};
use super::{Needs, wrong};
use crate::rule::fetch::{KeySource, TableFetch, TableRead};
use crate::rule::sample::SampleType::{self, Any, Bool, Int as Sint};
use crate::table::{DataType, TableId};

/// A reader of the list: its name without prefix, what it does, and in which families it exists.
#[derive(Clone, Copy)]
struct Reader {
    name: &'static str,
    read: Read,
    families: u8,
}

/// As [`TableRead`], before an index or default is known.
#[derive(Clone, Copy)]
enum Read {
    Value(DataType),
    KBytes(DataType),
    /// Index given first: `sc_get_gpc(i,sc)`.
    Element(DataType),
    /// Element 0 or 1 of `gpc`, also stored as `gpc0`/`gpc1`.
    Increment(u16),
    IncrementElement,
    Clear(u16),
    ClearElement,
    UpdateConnCnt,
    Key,
    Tracked,
    Trackers,
    Expire,
    Idle,
    InTable,
}

/// `sc_X`, and `sc0_X`-`sc2_X` unless an index comes first.
const S: u8 = 1;
/// `src_X`
const R: u8 = 2;
/// `table_X`
const T: u8 = 4;

const READERS: &[Reader] = {
    use DataType::*;
    const fn v(name: &'static str, what: DataType) -> Reader {
        r(name, Read::Value(what), S | R | T)
    }
    const fn r(name: &'static str, read: Read, families: u8) -> Reader {
        Reader {
            name,
            read,
            families,
        }
    }
    &[
        v("bytes_in_rate", BytesInRate),
        v("bytes_out_rate", BytesOutRate),
        r("kbytes_in", Read::KBytes(BytesInCnt), S | R | T),
        r("kbytes_out", Read::KBytes(BytesOutCnt), S | R | T),
        v("conn_cnt", ConnCnt),
        v("conn_cur", ConnCur),
        v("conn_rate", ConnRate),
        v("sess_cnt", SessCnt),
        v("sess_rate", SessRate),
        v("http_req_cnt", HttpReqCnt),
        v("http_req_rate", HttpReqRate),
        v("http_err_cnt", HttpErrCnt),
        v("http_err_rate", HttpErrRate),
        v("http_fail_cnt", HttpFailCnt),
        v("http_fail_rate", HttpFailRate),
        v("glitch_cnt", GlitchCnt),
        v("glitch_rate", GlitchRate),
        v("gpc0_rate", Gpc0Rate),
        v("gpc1_rate", Gpc1Rate),
        r("gpc_rate", Read::Element(GpcRate), S | R | T),
        r("get_gpc0", Read::Value(Gpc0), S | R),
        r("get_gpc1", Read::Value(Gpc1), S | R),
        r("get_gpt0", Read::Value(Gpt0), S | R),
        r("gpc0", Read::Value(Gpc0), T),
        r("gpc1", Read::Value(Gpc1), T),
        r("gpt0", Read::Value(Gpt0), T),
        r("get_gpc", Read::Element(Gpc), S | R),
        r("get_gpt", Read::Element(Gpt), S | R),
        r("gpc", Read::Element(Gpc), T),
        r("gpt", Read::Element(Gpt), T),
        r("inc_gpc0", Read::Increment(0), S | R | T),
        r("inc_gpc1", Read::Increment(1), S | R | T),
        r("inc_gpc", Read::IncrementElement, S | R | T),
        r("clr_gpc0", Read::Clear(0), S | R | T),
        r("clr_gpc1", Read::Clear(1), S | R | T),
        r("clr_gpc", Read::ClearElement, S | R | T),
        r("updt_conn_cnt", Read::UpdateConnCnt, R),
        r("key", Read::Key, S),
        r("tracked", Read::Tracked, S),
        r("trackers", Read::Trackers, S | T),
        r("server_id", Read::Value(ServerId), T),
        r("expire", Read::Expire, T),
        r("idle", Read::Idle, T),
    ]
};

impl Read {
    fn indexed(self) -> bool {
        matches!(
            self,
            Read::Element(_) | Read::IncrementElement | Read::ClearElement
        )
    }

    fn output(self) -> SampleType {
        match self {
            Read::Key => Any,
            Read::Tracked | Read::InTable => Bool,
            _ => Sint,
        }
    }

    fn help(self) -> &'static str {
        match self {
            Read::Value(_) | Read::KBytes(_) | Read::Element(_) => "a value stored in a table",
            Read::Increment(_) | Read::IncrementElement => "increments, then gives the new value",
            Read::Clear(_) | Read::ClearElement => "sets to 0 and gives the old value",
            Read::UpdateConnCnt => "conn_cnt+1, gives the new value",
            Read::Key => "the tracked key",
            Read::Tracked => "the slot tracks something",
            Read::Trackers => "current trackers of the entry",
            Read::Expire => "milliseconds until the entry expires",
            Read::Idle => "milliseconds since the entry was refreshed",
            Read::InTable => "the key is in the table",
        }
    }

    /// Completes it with the index (already checked) and the default of `expire`/`idle`.
    fn with(self, index: u16, default: Option<i64>) -> TableRead {
        match self {
            Read::Value(what) => TableRead::Value { what, index: 0 },
            Read::Element(what) => TableRead::Value { what, index },
            Read::KBytes(what) => TableRead::KBytes(what),
            Read::Increment(index) => TableRead::Increment {
                index,
                old_names: true,
            },
            Read::IncrementElement => TableRead::Increment {
                index,
                old_names: false,
            },
            Read::Clear(index) => TableRead::Clear {
                index,
                old_names: true,
            },
            Read::ClearElement => TableRead::Clear {
                index,
                old_names: false,
            },
            Read::UpdateConnCnt => TableRead::UpdateConnCnt,
            Read::Key => TableRead::Key,
            Read::Tracked => TableRead::Tracked,
            Read::Trackers => TableRead::Trackers,
            Read::Expire => TableRead::Expire { default },
            Read::Idle => TableRead::Idle { default },
            Read::InTable => TableRead::InTable,
        }
    }
}

/// How a generated fetch row finds its entry.
#[derive(Clone, Copy)]
enum Family {
    /// `sc_X(sc[,T])`
    Sc,
    /// `sc0_X([T])` …
    ScFixed(u8),
    /// `src_X([T])`
    Src,
}

/// What a generated fetch row needs to build itself.
#[derive(Clone, Copy)]
pub(super) struct FetchRow(FetchKind);

#[derive(Clone, Copy)]
enum FetchKind {
    Entry(Read, Family),
    /// `table_cnt`, `table_avl`
    Size {
        free: bool,
    },
}

/// What a generated converter row needs to build itself.
#[derive(Clone, Copy)]
pub(super) struct ConverterRow(Read);

pub(super) fn fetch_rows() -> Vec<FetchInfo> {
    let mut rows = Vec::new();
    for reader in READERS {
        let read = reader.read;
        if reader.families & S != 0 {
            let (args, required): (&'static [ArgKind], usize) = if read.indexed() {
                (&[Int, Int, Table], 2)
            } else {
                (&[Int, Table], 1)
            };
            let name = format!("sc_{}", reader.name);
            rows.push(fetch_row(
                name,
                args,
                required,
                Needs::CONN,
                read,
                Family::Sc,
            ));
            for slot in 0..3 {
                let (args, required): (&'static [ArgKind], usize) = if read.indexed() {
                    continue;
                } else {
                    (&[Table], 0)
                };
                let name = format!("sc{slot}_{}", reader.name);
                let family = Family::ScFixed(slot);
                rows.push(fetch_row(name, args, required, Needs::CONN, read, family));
            }
        }
        if reader.families & R != 0 {
            let (args, required): (&'static [ArgKind], usize) = if read.indexed() {
                (&[Int, Table], 1)
            } else {
                (&[Table], 0)
            };
            let name = format!("src_{}", reader.name);
            rows.push(fetch_row(
                name,
                args,
                required,
                Needs::CONN,
                read,
                Family::Src,
            ));
        }
    }
    for (name, free, help) in [
        ("table_cnt", false, "entries of a table"),
        ("table_avl", true, "free entries of a table"),
    ] {
        rows.push(FetchInfo {
            name,
            args: &[Table],
            required: 0,
            output: Sint,
            needs: Needs::NOTHING,
            acl_match: None,
            acl_only: false,
            help,
            maker: FetchMaker::Table(FetchRow(FetchKind::Size { free })),
        });
    }
    rows
}

fn fetch_row(
    name: String,
    args: &'static [ArgKind],
    required: usize,
    needs: Needs,
    read: Read,
    family: Family,
) -> FetchInfo {
    FetchInfo {
        // Built once per process and kept for its life, like the literal names.
        name: String::leak(name),
        args,
        required,
        output: read.output(),
        needs,
        acl_match: None,
        acl_only: false,
        help: read.help(),
        maker: FetchMaker::Table(FetchRow(FetchKind::Entry(read, family))),
    }
}

pub(super) fn converter_rows() -> Vec<ConverterInfo> {
    let mut rows = vec![converter_row("in_table".to_string(), Read::InTable)];
    for reader in READERS.iter().filter(|r| r.families & T != 0) {
        rows.push(converter_row(format!("table_{}", reader.name), reader.read));
    }
    rows
}

fn converter_row(name: String, read: Read) -> ConverterInfo {
    let (args, required): (&'static [ArgKind], usize) = match read {
        Read::Expire | Read::Idle => (&[Table, Int], 0),
        _ if read.indexed() => (&[Int, Table], 1),
        _ => (&[Table], 0),
    };
    ConverterInfo {
        name: String::leak(name),
        args,
        required,
        input: Any,
        output: read.output(),
        help: read.help(),
        maker: ConverterMaker::Table(ConverterRow(read)),
    }
}

impl FetchRow {
    pub(super) fn fetch(self, a: &Args<'_>, own: Option<TableId>) -> Result<Fetch, String> {
        let (read, family) = match self.0 {
            FetchKind::Size { free } => {
                let table = need_table(a, 0, own)?;
                return Ok(Fetch::TableSize { table, free });
            }
            FetchKind::Entry(read, family) => (read, family),
        };
        let mut at = 0;
        let index = if read.indexed() {
            at = 1;
            index(a, 0)?
        } else {
            0
        };
        let (key, table) = match family {
            Family::Sc => {
                let slot = u8::try_from(a.need_int(at)?)
                    .ok()
                    .filter(|slot| *slot < 100)
                    .ok_or_else(|| wrong(at, "a tracker number"))?;
                (KeySource::Slot(slot), a.table(at + 1)?)
            }
            Family::ScFixed(slot) => (KeySource::Slot(slot), a.table(at)?),
            Family::Src => (KeySource::Src, Some(need_table(a, at, own)?)),
        };
        Ok(Fetch::Table(TableFetch {
            key,
            table,
            read: read.with(index, None),
        }))
    }
}

impl ConverterRow {
    pub(super) fn converter(self, a: &Args<'_>, own: Option<TableId>) -> Result<Converter, String> {
        let read = self.0;
        let (index, at) = if read.indexed() {
            (index(a, 0)?, 1)
        } else {
            (0, 0)
        };
        let default = match read {
            Read::Expire | Read::Idle => a.int(1)?,
            _ => None,
        };
        Ok(Converter::Table {
            table: need_table(a, at, own)?,
            read: read.with(index, default),
        })
    }
}

/// Array index: 0-99.
fn index(a: &Args<'_>, at: usize) -> Result<u16, String> {
    u16::try_from(a.need_int(at)?)
        .ok()
        .filter(|i| *i < 100)
        .ok_or_else(|| wrong(at, "an index from 0 to 99"))
}

fn need_table(a: &Args<'_>, at: usize, own: Option<TableId>) -> Result<TableId, String> {
    a.table(at)?
        .or(own)
        .ok_or_else(|| "no table is named and the proxy has none of its own".to_string())
}
