//! The text of a metrics page, in the two formats that scrapers ask for. They differ in how counters are declared, in
//! units, in the last line, and in the content type.

use std::io::Write as _;

/// A text format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4, which every scraper reads.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What an `Accept` header asks for: OpenMetrics if it is named and nothing else is liked more.
    pub fn negotiate(accept: &[u8]) -> Format {
        let accept = String::from_utf8_lossy(accept);
        let (mut open, mut plain) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1000, "");
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q" | "Q", q)) => quality = thousandths(q.trim()),
                    Some(("version", v)) => version = v.trim().trim_matches('"'),
                    _ => {}
                }
            }
            match media.as_str() {
                "application/openmetrics-text" if matches!(version, "" | "1.0.0") => {
                    open = open.max(quality);
                }
                "text/plain" | "text/*" => plain = plain.max(quality),
                _ => {}
            }
        }
        if open > 0 && open >= plain {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }
}

/// A quality value (RFC 9110, 12.4.2) in thousandths; 0 if it is none.
fn thousandths(q: &str) -> u32 {
    match q.parse::<f64>() {
        Ok(q) if (0.0..=1.0).contains(&q) => (q * 1000.0) as u32,
        _ => 0,
    }
}

/// What the samples of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and begins at 0 with the process. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Facts in labels; the value is 1. Its name ends in `_info`.
    Info,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Info => "info",
        }
    }
}

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(u64),
    /// Another one: seconds.
    Float(f64),
}

impl From<u64> for Value {
    fn from(n: u64) -> Value {
        Value::Int(n)
    }
}
impl From<u32> for Value {
    fn from(n: u32) -> Value {
        Value::Int(u64::from(n))
    }
}
impl From<usize> for Value {
    fn from(n: usize) -> Value {
        Value::Int(n as u64)
    }
}
impl From<bool> for Value {
    fn from(is: bool) -> Value {
        Value::Int(u64::from(is))
    }
}
impl From<i64> for Value {
    fn from(n: i64) -> Value {
        // Dates before 1970 do not matter here.
        Value::Int(u64::try_from(n).unwrap_or(0))
    }
}
impl From<f64> for Value {
    fn from(n: f64) -> Value {
        Value::Float(n)
    }
}

/// Labels of a sample, ready to be written: `proxy="web",server="s1"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<u8>);

impl Labels {
    /// These names and values.
    pub fn new(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .fold(Labels::default(), |labels, (name, value)| {
                labels.and(name, value)
            })
    }

    /// With one more.
    pub fn and(mut self, name: &str, value: &str) -> Labels {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        label(name, value, &mut self.0);
        self
    }
}

fn label(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    for c in value.bytes() {
        match c {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            c => out.push(c),
        }
    }
    out.push(b'"');
}

/// A page in the making.
#[derive(Debug)]
pub struct Page {
    out: Vec<u8>,
    format: Format,
    /// The current family, and whether it was declared: one without samples is left out.
    name: String,
    kind: Kind,
    help: &'static str,
    declared: bool,
}

impl Page {
    /// An empty page.
    pub fn new(format: Format) -> Page {
        Page {
            out: Vec::with_capacity(16 * 1024),
            format,
            name: String::new(),
            kind: Kind::Gauge,
            help: "",
            declared: false,
        }
    }

    /// Begins the family `name`, complete with prefix and suffix.
    pub fn family(&mut self, name: String, kind: Kind, help: &'static str) {
        self.name = name;
        self.kind = kind;
        self.help = help;
        self.declared = false;
    }

    /// A sample of the current family.
    pub fn sample(&mut self, labels: &Labels, more: Option<(&str, &str)>, value: Value) {
        if !self.declared {
            self.declared = true;
            self.declare();
        }
        let out = &mut self.out;
        out.extend_from_slice(self.name.as_bytes());
        if !labels.0.is_empty() || more.is_some() {
            out.push(b'{');
            out.extend_from_slice(&labels.0);
            if let Some((name, value)) = more {
                if !labels.0.is_empty() {
                    out.push(b',');
                }
                label(name, value, out);
            }
            out.push(b'}');
        }
        // Writing to a vector does not fail.
        let _ = match value {
            Value::Int(n) => writeln!(out, " {n}"),
            Value::Float(n) => writeln!(out, " {n}"),
        };
    }

    fn declare(&mut self) {
        let (mut name, mut kind) = (self.name.as_str(), self.kind.word());
        match (self.format, self.kind) {
            (Format::OpenMetrics, Kind::Counter) => {
                name = name.strip_suffix("_total").unwrap_or(name);
            }
            (Format::OpenMetrics, Kind::Info) => {
                name = name.strip_suffix("_info").unwrap_or(name);
            }
            // The older format has no such type.
            (Format::Prometheus, Kind::Info) => kind = "gauge",
            _ => {}
        }
        let _ = writeln!(self.out, "# HELP {name} {}", self.help);
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        if self.format == Format::OpenMetrics
            && let Some(unit) = ["seconds", "bytes"]
                .into_iter()
                .find(|unit| name.strip_suffix(unit).is_some_and(|n| n.ends_with('_')))
        {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    /// The finished text.
    pub fn finish(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.out.extend_from_slice(b"# EOF\n");
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_what_they_ask_for() {
        use Format::{OpenMetrics as O, Prometheus as P};
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            ("", P),
            ("*/*", P),
            ("text/html, application/xhtml+xml", P),
            (prometheus, O),
            ("application/openmetrics-text", O),
            ("Application/OpenMetrics-Text; version=\"1.0.0\"; q=0.2", O),
            ("application/openmetrics-text; version=2.0.0", P),
            ("application/openmetrics-text;q=0.3, text/plain;q=0.4", P),
            ("application/openmetrics-text;q=0", P),
            ("application/openmetrics-text;q=7", P),
            ("application/openmetrics-text;q=", P),
        ] {
            assert_eq!(Format::negotiate(accept.as_bytes()), expected, "{accept}");
        }
        assert_eq!(Format::negotiate(b"\xff\xfe;;;,=,\0"), P);
    }

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.family("x_bytes_total".into(), Kind::Counter, "Bytes.");
        let labels = Labels::new(&[("proxy", "a\"b\\c\nd")]);
        page.sample(&labels, Some(("code", "2xx")), 7_u64.into());
        page.sample(&Labels::default(), Some(("code", "5xx")), 0_u64.into());
        page.family("x_nothing".into(), Kind::Gauge, "Has no samples.");
        page.family("x_info".into(), Kind::Info, "Facts.");
        page.sample(&labels, None, 1_u64.into());
        page.family("x_age_seconds".into(), Kind::Gauge, "Age.");
        page.sample(&Labels::default(), None, 0.25.into());
        String::from_utf8(page.finish()).unwrap()
    }

    #[test]
    fn both_formats() {
        assert_eq!(
            page(Format::Prometheus),
            r#"# HELP x_bytes_total Bytes.
# TYPE x_bytes_total counter
x_bytes_total{proxy="a\"b\\c\nd",code="2xx"} 7
x_bytes_total{code="5xx"} 0
# HELP x_info Facts.
# TYPE x_info gauge
x_info{proxy="a\"b\\c\nd"} 1
# HELP x_age_seconds Age.
# TYPE x_age_seconds gauge
x_age_seconds 0.25
"#
        );
        assert_eq!(
            page(Format::OpenMetrics),
            r#"# HELP x_bytes Bytes.
# TYPE x_bytes counter
# UNIT x_bytes bytes
x_bytes_total{proxy="a\"b\\c\nd",code="2xx"} 7
x_bytes_total{code="5xx"} 0
# HELP x Facts.
# TYPE x info
x_info{proxy="a\"b\\c\nd"} 1
# HELP x_age_seconds Age.
# TYPE x_age_seconds gauge
# UNIT x_age_seconds seconds
x_age_seconds 0.25
# EOF
"#
        );
    }
}
