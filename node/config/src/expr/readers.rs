//! The naming scheme of the table family: which data types a reader reads and which arguments hold its slot and table.
//! (reference: stick-tables 7)

use remora_core::table::DataType;

/// What the name of a table reader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    /// Where its entry comes from.
    pub(super) source: Source,
    /// It is of use when the table stores at least one of these. Empty: it needs none (`trackers`, `idle` …).
    pub(super) any_of: &'static [DataType],
    /// Its first argument is an array index.
    pub(super) indexed: bool,
}

/// Where the entry of a reader comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// `sc_X(N…)`: the slot is an argument.
    Slot,
    /// `sc0_X`, `sc1_X`, `sc2_X`.
    FixedSlot(u8),
    /// `src_X`.
    Src,
    /// `KEY,table_X`, and `in_table`.
    Key,
}

impl Reader {
    /// Which argument holds the slot number, from 0.
    pub(super) fn slot_arg(self) -> Option<usize> {
        (self.source == Source::Slot).then_some(usize::from(self.indexed))
    }
}

/// The scheme applied to the name of a fetch or converter; `None` when it is not a table reader.
pub(super) fn reader(name: &str) -> Option<Reader> {
    let (source, what) = if let Some(what) = name.strip_prefix("sc_") {
        (Source::Slot, what)
    } else if let Some(what) = name.strip_prefix("src_") {
        (Source::Src, what)
    } else if let Some(what) = name.strip_prefix("table_") {
        (Source::Key, what)
    } else {
        let rest = name.strip_prefix("sc")?;
        let (digit, what) = rest.split_once('_')?;
        let slot = match digit {
            "0" => 0,
            "1" => 1,
            "2" => 2,
            _ => return None,
        };
        (Source::FixedSlot(slot), what)
    };
    let (any_of, indexed) = data_types(what)?;
    Some(Reader {
        source,
        any_of,
        indexed,
    })
}

fn data_types(what: &str) -> Option<(&'static [DataType], bool)> {
    use DataType as D;
    let any_of: &'static [DataType] = match what {
        "bytes_in_rate" => &[D::BytesInRate],
        "bytes_out_rate" => &[D::BytesOutRate],
        "kbytes_in" => &[D::BytesInCnt],
        "kbytes_out" => &[D::BytesOutCnt],
        "conn_cnt" | "updt_conn_cnt" => &[D::ConnCnt],
        "conn_cur" => &[D::ConnCur],
        "conn_rate" => &[D::ConnRate],
        "sess_cnt" => &[D::SessCnt],
        "sess_rate" => &[D::SessRate],
        "http_req_cnt" => &[D::HttpReqCnt],
        "http_req_rate" => &[D::HttpReqRate],
        "http_err_cnt" => &[D::HttpErrCnt],
        "http_err_rate" => &[D::HttpErrRate],
        "http_fail_cnt" => &[D::HttpFailCnt],
        "http_fail_rate" => &[D::HttpFailRate],
        "glitch_cnt" => &[D::GlitchCnt],
        "glitch_rate" => &[D::GlitchRate],
        "gpc0_rate" => &[D::Gpc0Rate],
        "gpc1_rate" => &[D::Gpc1Rate],
        "get_gpc0" | "gpc0" => &[D::Gpc0],
        "get_gpc1" | "gpc1" => &[D::Gpc1],
        "get_gpt0" | "gpt0" => &[D::Gpt0],
        // Incrementing works on a rate alone and then returns its current period.
        "inc_gpc0" | "clr_gpc0" => &[D::Gpc0, D::Gpc0Rate],
        "inc_gpc1" | "clr_gpc1" => &[D::Gpc1, D::Gpc1Rate],
        "server_id" => &[D::ServerId],
        "gpc_rate" => return Some((&[D::GpcRate], true)),
        "get_gpc" | "gpc" => return Some((&[D::Gpc], true)),
        "get_gpt" | "gpt" => return Some((&[D::Gpt], true)),
        "inc_gpc" | "clr_gpc" => return Some((&[D::Gpc, D::GpcRate], true)),
        "key" | "tracked" | "trackers" | "expire" | "idle" => &[],
        _ => return None,
    };
    Some((any_of, false))
}

/// The word for a data type after `store`.
pub(super) fn store_name(t: DataType) -> &'static str {
    match t {
        DataType::ServerId => "server_id",
        DataType::Gpt0 => "gpt0",
        DataType::Gpc0 => "gpc0",
        DataType::Gpc0Rate => "gpc0_rate",
        DataType::ConnCnt => "conn_cnt",
        DataType::ConnRate => "conn_rate",
        DataType::ConnCur => "conn_cur",
        DataType::SessCnt => "sess_cnt",
        DataType::SessRate => "sess_rate",
        DataType::HttpReqCnt => "http_req_cnt",
        DataType::HttpReqRate => "http_req_rate",
        DataType::HttpErrCnt => "http_err_cnt",
        DataType::HttpErrRate => "http_err_rate",
        DataType::BytesInCnt => "bytes_in_cnt",
        DataType::BytesInRate => "bytes_in_rate",
        DataType::BytesOutCnt => "bytes_out_cnt",
        DataType::BytesOutRate => "bytes_out_rate",
        DataType::Gpc1 => "gpc1",
        DataType::Gpc1Rate => "gpc1_rate",
        DataType::ServerKey => "server_key",
        DataType::HttpFailCnt => "http_fail_cnt",
        DataType::HttpFailRate => "http_fail_rate",
        DataType::Gpt => "gpt",
        DataType::Gpc => "gpc",
        DataType::GpcRate => "gpc_rate",
        DataType::GlitchCnt => "glitch_cnt",
        DataType::GlitchRate => "glitch_rate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(
            reader("sc1_inc_gpc0"),
            Some(Reader {
                source: Source::FixedSlot(1),
                any_of: &[DataType::Gpc0, DataType::Gpc0Rate],
                indexed: false
            })
        );
        assert_eq!(reader("sc_get_gpc").and_then(Reader::slot_arg), Some(1));
        assert_eq!(reader("sc_conn_rate").and_then(Reader::slot_arg), Some(0));
        assert_eq!(reader("src_conn_rate").and_then(Reader::slot_arg), None);
        for not in ["src", "src_port", "sc7_conn_rate", "table_cnt", "scook"] {
            assert_eq!(reader(not), None, "{not}");
        }
    }
}
