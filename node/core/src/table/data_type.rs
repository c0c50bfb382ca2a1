//! THE list of data types a table may store: one row each. The configuration parser, the record layout, the CLI, the
//! documentation and (by bit number) the peers protocol all derive from [`DATA_TYPES`].

use std::fmt;

/// What a table may store per key. Discriminants are the print order and the bit positions of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // each variant is described by its row in `DATA_TYPES`
pub enum DataType {
    ServerId = 0,
    Gpt0,
    Gpc0,
    Gpc0Rate,
    ConnCnt,
    ConnRate,
    ConnCur,
    SessCnt,
    SessRate,
    HttpReqCnt,
    HttpReqRate,
    HttpErrCnt,
    HttpErrRate,
    BytesInCnt,
    BytesInRate,
    BytesOutCnt,
    BytesOutRate,
    Gpc1,
    Gpc1Rate,
    ServerKey,
    HttpFailCnt,
    HttpFailRate,
    Gpt,
    Gpc,
    GpcRate,
    GlitchCnt,
    GlitchRate,
}

/// How a data type is stored and what adding to it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Events, 32 bits, stops at its maximum.
    Counter32,
    /// Bytes, 64 bits, stops at its maximum.
    Counter64,
    /// Goes up and down, never below 0.
    Gauge,
    /// Events per period: three words.
    Rate,
    /// Assigned, not counted.
    Tag,
    /// Numeric id of a server, signed.
    ServerId,
    /// Name or address of a server: index into the table's dictionary.
    ServerKey,
}

impl Kind {
    /// Bytes of one element in a record.
    pub const fn width(self) -> usize {
        match self {
            Kind::Counter32 | Kind::Gauge | Kind::Tag | Kind::ServerId | Kind::ServerKey => 4,
            Kind::Counter64 => 8,
            Kind::Rate => 12,
        }
    }
    /// Whether sums over nodes make sense: only what is *not* arithmetic follows `write-to`.
    pub const fn is_arithmetic(self) -> bool {
        matches!(
            self,
            Kind::Counter32 | Kind::Counter64 | Kind::Gauge | Kind::Rate
        )
    }
}

/// Arguments in parentheses after the name in `store`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgForm {
    /// `conn_cnt`
    None,
    /// `conn_rate(10s)`: a time of at least 1 ms.
    Period,
    /// `gpc(4)`: 1 to [`ELEMENTS_MAX`] elements.
    Elements,
    /// `gpc_rate(4,10s)`
    ElementsAndPeriod,
}

impl ArgForm {
    /// Whether a number of elements is expected.
    pub const fn has_elements(self) -> bool {
        matches!(self, Elements | ElementsAndPeriod)
    }
    /// Whether a period is expected.
    pub const fn has_period(self) -> bool {
        matches!(self, Period | ElementsAndPeriod)
    }
}

/// Greatest number of elements of an array type.
pub const ELEMENTS_MAX: u16 = 100;

/// A row of the registry.
#[derive(Debug)]
pub struct DataTypeInfo {
    /// The variant this row describes.
    pub data_type: DataType,
    /// Name in `store`, on the CLI and in dumps.
    pub name: &'static str,
    /// Older spellings, accepted wherever the name is.
    pub aliases: &'static [&'static str],
    /// Storage and arithmetic.
    pub kind: Kind,
    /// Arguments in `store`.
    pub args: ArgForm,
    /// Data types that may not be stored beside it.
    pub excludes: &'static [DataType],
    /// Where rules find it when it is not stored itself: this element of that array.
    pub element_of: Option<(DataType, u16)>,
    /// The rate that moves by the same events.
    pub rate: Option<DataType>,
    /// What moves it, one line.
    pub help: &'static str,
}

impl DataType {
    /// All data types, in bit and print order.
    pub fn all() -> impl Iterator<Item = DataType> {
        DATA_TYPES.iter().map(|row| row.data_type)
    }
    /// Its row.
    pub fn info(self) -> &'static DataTypeInfo {
        &DATA_TYPES[self as usize]
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        self.info().name
    }
    /// The data type of that name or old spelling.
    pub fn from_name(name: &str) -> Option<DataType> {
        DATA_TYPES
            .iter()
            .find(|row| row.name == name || row.aliases.contains(&name))
            .map(|row| row.data_type)
    }
    /// Its bit in the data type masks of the peers protocol.
    pub fn bit(self) -> u32 {
        1 << (self as u8)
    }
    /// Name of one element as dumps print it: arrays are flattened (`gpc3`, `gpc3_rate`).
    pub fn element_name(self, index: u16) -> ElementName {
        ElementName(self, index)
    }
    /// Whether both may not be stored in one table (`gpt` and `gpt0`, …).
    pub fn excludes(self, other: DataType) -> bool {
        self.info().excludes.contains(&other)
    }
}

/// Displays the name of an element; see [`DataType::element_name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementName(DataType, u16);

impl fmt::Display for ElementName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DataType::Gpt => write!(f, "gpt{}", self.1),
            DataType::Gpc => write!(f, "gpc{}", self.1),
            DataType::GpcRate => write!(f, "gpc{}_rate", self.1),
            other => f.write_str(other.name()),
        }
    }
}

/// Number of data types.
pub const COUNT: usize = 27;

use ArgForm::{Elements, ElementsAndPeriod, Period};
use DataType as D;

const fn row(data_type: D, name: &'static str, kind: Kind, help: &'static str) -> DataTypeInfo {
    let args = if matches!(kind, Kind::Rate) {
        Period
    } else {
        ArgForm::None
    };
    DataTypeInfo {
        data_type,
        name,
        aliases: &[],
        kind,
        args,
        excludes: &[],
        element_of: None,
        rate: None,
        help,
    }
}
impl DataTypeInfo {
    const fn rate(mut self, rate: D) -> Self {
        self.rate = Some(rate);
        self
    }
    const fn scalar_of(mut self, array: &'static [D; 1], index: u16) -> Self {
        self.excludes = array;
        self.element_of = Some((array[0], index));
        self
    }
    const fn array(mut self, args: ArgForm, excludes: &'static [D]) -> Self {
        self.args = args;
        self.excludes = excludes;
        self
    }
    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }
}

/// The registry, indexed by `DataType as usize`.
#[rustfmt::skip] // a table reads best as one
pub static DATA_TYPES: [DataTypeInfo; COUNT] = [
    row(D::ServerId, "server_id", Kind::ServerId, "id of the server that stick rules chose"),
    row(D::Gpt0, "gpt0", Kind::Tag, "set by sc-set-gpt0 and the CLI").scalar_of(&[D::Gpt], 0),
    row(D::Gpc0, "gpc0", Kind::Counter32, "general purpose: sc-inc-gpc0, *_inc_gpc0, *_clr_gpc0").scalar_of(&[D::Gpc], 0).rate(D::Gpc0Rate),
    row(D::Gpc0Rate, "gpc0_rate", Kind::Rate, "increments of gpc0 per period").scalar_of(&[D::GpcRate], 0),
    row(D::ConnCnt, "conn_cnt", Kind::Counter32, "times tracking started").rate(D::ConnRate),
    row(D::ConnRate, "conn_rate", Kind::Rate, "starts of tracking per period"),
    row(D::ConnCur, "conn_cur", Kind::Gauge, "current trackers that count"),
    row(D::SessCnt, "sess_cnt", Kind::Counter32, "tracked connections accepted as sessions").rate(D::SessRate),
    row(D::SessRate, "sess_rate", Kind::Rate, "sessions per period"),
    row(D::HttpReqCnt, "http_req_cnt", Kind::Counter32, "HTTP requests").rate(D::HttpReqRate),
    row(D::HttpReqRate, "http_req_rate", Kind::Rate, "HTTP requests per period"),
    row(D::HttpErrCnt, "http_err_cnt", Kind::Counter32, "errors caused by the client").rate(D::HttpErrRate),
    row(D::HttpErrRate, "http_err_rate", Kind::Rate, "client errors per period"),
    row(D::BytesInCnt, "bytes_in_cnt", Kind::Counter64, "bytes received from the client").rate(D::BytesInRate),
    row(D::BytesInRate, "bytes_in_rate", Kind::Rate, "bytes from the client per period"),
    row(D::BytesOutCnt, "bytes_out_cnt", Kind::Counter64, "bytes received from the server").rate(D::BytesOutRate),
    row(D::BytesOutRate, "bytes_out_rate", Kind::Rate, "bytes from the server per period"),
    row(D::Gpc1, "gpc1", Kind::Counter32, "general purpose, second").scalar_of(&[D::Gpc], 1).rate(D::Gpc1Rate),
    row(D::Gpc1Rate, "gpc1_rate", Kind::Rate, "increments of gpc1 per period").scalar_of(&[D::GpcRate], 1),
    row(D::ServerKey, "server_key", Kind::ServerKey, "name or address of the server that stick rules chose").alias(&["server_name"]),
    row(D::HttpFailCnt, "http_fail_cnt", Kind::Counter32, "failures caused by the server").rate(D::HttpFailRate),
    row(D::HttpFailRate, "http_fail_rate", Kind::Rate, "server failures per period"),
    row(D::Gpt, "gpt", Kind::Tag, "array of tags: sc-set-gpt").array(Elements, &[D::Gpt0]),
    row(D::Gpc, "gpc", Kind::Counter32, "array of general purpose counters").array(Elements, &[D::Gpc0, D::Gpc1]).rate(D::GpcRate),
    row(D::GpcRate, "gpc_rate", Kind::Rate, "array: increments of gpc per period").array(ElementsAndPeriod, &[D::Gpc0Rate, D::Gpc1Rate]),
    row(D::GlitchCnt, "glitch_cnt", Kind::Counter32, "protocol misuse by the client").rate(D::GlitchRate),
    row(D::GlitchRate, "glitch_rate", Kind::Rate, "protocol misuse per period"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_bit_order_and_names_round_trip() {
        for (i, row) in DATA_TYPES.iter().enumerate() {
            assert_eq!(row.data_type as usize, i);
            assert_eq!(DataType::from_name(row.name), Some(row.data_type));
            assert_eq!(
                row.args.has_period(),
                row.kind == Kind::Rate,
                "{}",
                row.name
            );
        }
        assert_eq!(
            DataType::from_name("server_name"),
            Some(DataType::ServerKey)
        );
        assert_eq!(DataType::from_name("bogus"), None);
    }

    #[test]
    fn exclusions_are_mutual_and_rates_share_the_argument_form() {
        for row in &DATA_TYPES {
            for other in row.excludes {
                assert!(
                    other.excludes(row.data_type),
                    "{} / {}",
                    row.name,
                    other.name()
                );
            }
            if let Some((array, _)) = row.element_of {
                assert_eq!(array.info().kind, row.kind);
            }
            if let Some(rate) = row.rate {
                assert_eq!(rate.info().kind, Kind::Rate);
                assert_eq!(rate.info().args.has_elements(), row.args.has_elements());
            }
        }
    }

    #[test]
    fn elements_print_flattened() {
        for (data_type, index, expected) in [
            (D::Gpc, 0, "gpc0"),
            (D::Gpc, 99, "gpc99"),
            (D::GpcRate, 1, "gpc1_rate"),
            (D::Gpt, 2, "gpt2"),
            (D::Gpc0Rate, 0, "gpc0_rate"),
            (D::HttpReqCnt, 0, "http_req_cnt"),
        ] {
            assert_eq!(data_type.element_name(index).to_string(), expected);
        }
    }
}
