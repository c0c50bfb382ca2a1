//! `stick-table`: its arguments and data types (stick-tables 1.1, 3).

use remora_core::table::{DataType, ELEMENTS_MAX, KeyType, Stored, TableId, TableSpec};

use crate::ast::whole;
use crate::lexer::Word;
use crate::values::{self, TimeError, Unit};

/// Longest key that is accepted.
const KEY_LEN_MAX: u64 = 16_384;
/// `brates-factor`
const FACTOR_MAX: u32 = 1024;

/// A table as parsed; names in it are resolved later.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) spec: TableSpec,
    /// `write-to NAME`
    pub(crate) write_to: Option<String>,
    /// `peers SECTION`
    pub(crate) peers: Option<String>,
    /// Warnings, without the `stick-table: ` in front.
    pub(crate) warnings: Vec<String>,
}

/// Parses the words after `stick-table`. All errors of the line are given, each to be prefixed by `stick-table: `, with a
/// table that stands in for it: whoever refers to it is not wrong for that.
pub(crate) fn parse(name: &str, args: &[Word]) -> Result<Parsed, (Vec<String>, TableSpec)> {
    let mut p = Parser {
        key: None,
        size: None,
        spec: TableSpec::new(name, KeyType::Ip),
        write_to: None,
        peers: None,
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    p.run(args);
    match (p.size, p.key) {
        (None, _) if p.errors.is_empty() => p.errors.push("missing size.".to_owned()),
        (_, None) if p.errors.is_empty() => p.errors.push("missing type.".to_owned()),
        _ => {}
    }
    p.exclusions();
    if !p.errors.is_empty() {
        let one_of_each = |data_type: DataType| Stored {
            data_type,
            elements: 1,
            period_ms: u32::from(data_type.info().args.has_period()),
        };
        p.spec.store = DataType::all().map(one_of_each).collect();
        return Err((p.errors, p.spec));
    }
    p.spec.store.sort_by_key(|s| s.data_type);
    Ok(Parsed {
        spec: p.spec,
        write_to: p.write_to,
        peers: p.peers,
        warnings: p.warnings,
    })
}

struct Parser {
    spec: TableSpec,
    key: Option<()>,
    size: Option<()>,
    write_to: Option<String>,
    peers: Option<String>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Parser {
    fn run(&mut self, args: &[Word]) {
        let mut rest = args.iter().peekable();
        while let Some(word) = rest.next() {
            let name = whole(word);
            let needs_value = matches!(
                name.as_str(),
                "size" | "expire" | "store" | "peers" | "srvkey" | "write-to" | "brates-factor"
            );
            let mut value = String::new();
            if needs_value {
                match rest.next() {
                    Some(v) => value = v.text().into_owned(),
                    None => {
                        self.errors
                            .push(format!("missing argument after '{name}'."));
                        return;
                    }
                }
            }
            let result = match name.as_str() {
                "type" => {
                    let kind = rest.next().map(whole).unwrap_or_default();
                    let len = match rest.peek() {
                        Some(w) if **w == "len" && matches!(kind.as_str(), "string" | "binary") => {
                            rest.next();
                            Some(rest.next().map(whole).unwrap_or_default())
                        }
                        _ => None,
                    };
                    self.key_type(&kind, len)
                }
                "size" => self.size(&value),
                "expire" => self.expire(&value),
                "nopurge" => {
                    self.spec.nopurge = true;
                    Ok(())
                }
                "recv-only" => {
                    self.spec.recv_only = true;
                    self.warnings.push("'recv-only' has no effect: open connections are summed over all nodes, and what others count is never taken for this node's own.".to_owned());
                    Ok(())
                }
                "store" => self.store(&value),
                "peers" => {
                    self.peers = Some(value);
                    Ok(())
                }
                "srvkey" => match value.as_str() {
                    "name" | "addr" => {
                        self.spec.srvkey_addr = value == "addr";
                        Ok(())
                    }
                    _ => Err("srvkey expects either 'name' or 'addr'.".to_owned()),
                },
                "write-to" => {
                    self.write_to = Some(value);
                    Ok(())
                }
                "brates-factor" => match value.parse() {
                    Ok(f @ 1..=FACTOR_MAX) => {
                        self.spec.brates_factor = f;
                        Ok(())
                    }
                    _ => Err(format!(
                        "argument of 'brates-factor' must be an integer between 1 and {FACTOR_MAX}."
                    )),
                },
                _ => Err(format!("unknown argument '{name}'.")),
            };
            if let Err(e) = result {
                self.errors.push(e);
            }
        }
    }

    fn key_type(&mut self, kind: &str, len: Option<String>) -> Result<(), String> {
        let key_type = KeyType::from_name(kind).ok_or_else(|| format!("unknown type '{kind}'."))?;
        self.key = Some(());
        self.spec.key_type = key_type;
        self.spec.key_len = key_type.default_len();
        if let Some(len) = len {
            match values::size(&len) {
                Ok(n @ 1..=KEY_LEN_MAX) => self.spec.key_len = n as usize,
                _ => {
                    return Err(format!(
                        "invalid key length '{len}': a number of bytes between 1 and {KEY_LEN_MAX} is expected after 'len'."
                    ));
                }
            }
        }
        Ok(())
    }

    fn size(&mut self, value: &str) -> Result<(), String> {
        // Remembered before it is checked, so that a bad size is not a missing one as well.
        match values::size(value) {
            Ok(0) => Ok(()),
            Ok(n) => {
                self.size = Some(());
                match usize::try_from(n) {
                    Ok(n) if u32::try_from(n).is_ok() => {
                        self.spec.size = n;
                        Ok(())
                    }
                    _ => Err(format!(
                        "argument of 'size' is too large ('{value}'), at most {} entries.",
                        u32::MAX
                    )),
                }
            }
            Err(c) => {
                self.size = Some(());
                Err(format!("unexpected character '{c}' in argument of 'size'."))
            }
        }
    }

    fn expire(&mut self, value: &str) -> Result<(), String> {
        match values::time_ms(value, Unit::Ms) {
            // As in the reference, 0 is "never".
            Ok(0) => {
                self.spec.expire_ms = None;
                Ok(())
            }
            Ok(ms) => {
                self.spec.expire_ms = Some(ms);
                Ok(())
            }
            Err(e) => Err(time_error(&e, value, "expire")),
        }
    }

    fn store(&mut self, list: &str) -> Result<(), String> {
        for item in split_list(list) {
            if item.is_empty() {
                continue;
            }
            let (name, argument) = match item.split_once('(') {
                Some((name, rest)) => (name, Some(rest.strip_suffix(')').unwrap_or(rest))),
                None => (item, None),
            };
            let Some(data_type) = DataType::from_name(name) else {
                self.errors.push(format!("unknown store option '{name}'."));
                continue;
            };
            match stored(name, data_type, argument) {
                Err(e) => self.errors.push(e),
                Ok(stored) => {
                    if self.spec.store.iter().any(|s| s.data_type == data_type) {
                        self.warnings
                            .push(format!("store option '{name}' already enabled, ignored."));
                    } else {
                        self.spec.store.push(stored);
                    }
                }
            }
        }
        Ok(())
    }

    /// The array forms replace the numbered ones.
    fn exclusions(&mut self) {
        let has = |t| self.spec.store.iter().any(|s| s.data_type == t);
        for array in DataType::all().filter(|t| t.info().args.has_elements() && has(*t)) {
            for other in array.info().excludes.iter().filter(|t| has(**t)) {
                let (array, other) = (array.name(), other.name());
                self.errors.push(format!(
                    "'{array}' and '{other}' can not be stored together: '{array}' replaces it."
                ));
            }
        }
    }
}

/// Splits at commas that stand outside parentheses.
fn split_list(list: &str) -> Vec<&str> {
    let mut depth = 0usize;
    list.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn time_error(e: &TimeError, value: &str, what: &str) -> String {
    match e {
        TimeError::Unexpected(c) => {
            format!(
                "unexpected character '{}' in argument of '{what}'.",
                c.escape_default()
            )
        }
        TimeError::Overflow => format!(
            "timer overflow in argument <{value}> to <{what}>, maximum value is {} ms (~24.8 days).",
            values::TIME_MAX_MS
        ),
    }
}

fn stored(name: &str, data_type: DataType, argument: Option<&str>) -> Result<Stored, String> {
    let takes = data_type.info().args;
    let mut stored = Stored {
        data_type,
        elements: 1,
        period_ms: 0,
    };
    if !takes.has_elements() && !takes.has_period() {
        return match argument {
            Some(_) => Err(format!("unexpected argument to store option '{name}'.")),
            None => Ok(stored),
        };
    }
    let missing = || format!("missing argument to store option '{name}'.");
    let mut args = argument
        .filter(|a| !a.is_empty())
        .ok_or_else(missing)?
        .split(',');
    if takes.has_elements() {
        let n = args.next().unwrap_or_default();
        match n.parse::<u64>() {
            Ok(n) if (1..=u64::from(ELEMENTS_MAX)).contains(&n) => stored.elements = n as u16,
            Ok(_) => {
                return Err(format!(
                    "array size is out of allowed range (1-{ELEMENTS_MAX}) for store option '{name}'."
                ));
            }
            Err(_) => {
                return Err(format!(
                    "'{n}' is not a valid array size for store option '{name}'."
                ));
            }
        }
    }
    if takes.has_period() {
        let period = args.next().filter(|p| !p.is_empty()).ok_or_else(missing)?;
        stored.period_ms = match values::time_ms(period, Unit::Ms) {
            Ok(0) => {
                return Err(format!(
                    "the period of store option '{name}' must be at least 1 ms."
                ));
            }
            Ok(ms) => ms,
            Err(e) => return Err(time_error(&e, period, name)),
        };
    }
    if args.next().is_some() {
        return Err(format!("too many arguments to store option '{name}'."));
    }
    Ok(stored)
}

/// Resolves `write-to`: the target must hold the same keys and must not write on itself.
pub(crate) fn resolve_write_to(
    tables: &mut [TableSpec],
    wanted: &[(usize, String)],
) -> Vec<(usize, String)> {
    let mut errors = Vec::new();
    for (from, name) in wanted {
        let Some(to) = tables.iter().position(|t| t.name == *name) else {
            errors.push((
                *from,
                format!("stick-table: unable to find table '{name}' referenced by 'write-to'."),
            ));
            continue;
        };
        let (a, b) = (&tables[*from], &tables[to]);
        if a.key_type != b.key_type || a.key_len != b.key_len {
            errors.push((
                *from,
                format!("stick-table: cannot 'write-to' table '{name}': its key type or length is different."),
            ));
        } else if wanted.iter().any(|(f, _)| *f == to) {
            errors.push((
                *from,
                format!(
                    "stick-table: cannot 'write-to' table '{name}': it has a 'write-to' of its own."
                ),
            ));
        } else if let Ok(to) = u16::try_from(to) {
            tables[*from].write_to = Some(TableId(to));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use remora_core::table::ArgForm;

    use super::*;

    fn parse_line(line: &str) -> Result<Parsed, Vec<String>> {
        let words: Vec<Word> = line
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(Word::new)
            .collect();
        parse("t", &words).map_err(|(errors, _)| errors)
    }

    #[test]
    fn a_long_list_is_read_whole() {
        let all: Vec<&str> = DataType::all()
            .map(DataType::name)
            .filter(|n| n.ends_with("_cnt") || n.ends_with("_rate") && *n != "gpc_rate")
            .collect();
        let list: Vec<String> = all
            .iter()
            .map(|n| match n.ends_with("_rate") {
                true => format!("{n}(1h)"),
                false => (*n).to_owned(),
            })
            .collect();
        let parsed = parse_line(&format!("type ip size 5 store {}", list.join(","))).expect("fine");
        assert_eq!(parsed.spec.store.len(), all.len());
    }

    #[test]
    fn errors() {
        for (line, expected) in [
            ("", "missing size."),
            ("type", "unknown type ''."),
            ("type foo size 5", "unknown type 'foo'."),
            ("type ip", "missing size."),
            ("size 5", "missing type."),
            ("type ip size 0", "missing size."),
            (
                "type ip size x",
                "unexpected character 'x' in argument of 'size'.",
            ),
            (
                "type ip size 5z",
                "unexpected character 'z' in argument of 'size'.",
            ),
            ("type ip size 5 expire", "missing argument after 'expire'."),
            (
                "type ip size 5 expire 5x",
                "unexpected character 'x' in argument of 'expire'.",
            ),
            (
                "type ip size 5 expire 30d",
                "timer overflow in argument <30d> to <expire>, maximum value is 2147483647 ms (~24.8 days).",
            ),
            ("type ip size 5 store", "missing argument after 'store'."),
            ("type ip size 5 store foo", "unknown store option 'foo'."),
            (
                "type ip size 5 store conn_rate",
                "missing argument to store option 'conn_rate'.",
            ),
            (
                "type ip size 5 store conn_rate()",
                "missing argument to store option 'conn_rate'.",
            ),
            (
                "type ip size 5 store conn_cnt(5)",
                "unexpected argument to store option 'conn_cnt'.",
            ),
            (
                "type ip size 5 store gpc(101)",
                "array size is out of allowed range (1-100) for store option 'gpc'.",
            ),
            (
                "type ip size 5 store gpt(0)",
                "array size is out of allowed range (1-100) for store option 'gpt'.",
            ),
            (
                "type ip size 5 store gpc",
                "missing argument to store option 'gpc'.",
            ),
            (
                "type ip size 5 store gpc_rate(3)",
                "missing argument to store option 'gpc_rate'.",
            ),
            ("type ip size 5 foo", "unknown argument 'foo'."),
            ("type ip len 5 size 5", "unknown argument 'len'."),
        ] {
            let errors = parse_line(line).map(|p| p.spec).unwrap_err();
            assert_eq!(errors[0], expected, "{line}");
        }
        for line in [
            "type ip size 5 store gpc(3),gpc0",
            "type ip size 5 store gpc1 store gpc(3)",
            "type ip size 5 store gpt(3),gpt0",
            "type ip size 5 store gpc_rate(3,1s),gpc1_rate(1s)",
            "type string len 0 size 5",
            "type ip size 5 brates-factor 1025",
            "type ip size 5 brates-factor 0",
            "type ip size 5 srvkey foo",
            "type ip size 5 store gpc_rate(3,5s,6)",
            "type ip size 5 store http_req_rate(0)",
        ] {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }

    #[test]
    fn everything() {
        let p = parse_line(
            "store conn_cnt,conn_rate(3s) nopurge type string len 64 expire 30s size 1m srvkey addr recv-only \
             brates-factor 16 store gpc_rate(4,1m),gpt(2),conn_cnt,server_name write-to other",
        )
        .unwrap();
        let s = p.spec;
        assert_eq!((s.key_type, s.key_len), (KeyType::String, 64));
        assert_eq!((s.size, s.expire_ms), (1 << 20, Some(30_000)));
        assert!(s.nopurge && s.recv_only && s.srvkey_addr);
        assert_eq!(s.brates_factor, 16);
        assert_eq!(p.write_to.as_deref(), Some("other"));
        assert!(p.warnings[0].starts_with("'recv-only' has no effect"));
        assert_eq!(
            p.warnings[1..],
            ["store option 'conn_cnt' already enabled, ignored."]
        );
        let stored: Vec<_> = s
            .store
            .iter()
            .map(|s| (s.data_type, s.elements, s.period_ms))
            .collect();
        assert_eq!(
            stored,
            [
                (DataType::ConnCnt, 1, 0),
                (DataType::ConnRate, 1, 3_000),
                (DataType::ServerKey, 1, 0),
                (DataType::Gpt, 2, 0),
                (DataType::GpcRate, 4, 60_000),
            ]
        );
        for (line, kind, len) in [
            ("type ip size 1", KeyType::Ip, 4),
            ("type ipv4 size 1", KeyType::Ip, 4),
            ("type ipv6 size 1", KeyType::Ipv6, 16),
            ("type integer size 1", KeyType::Integer, 4),
            ("type string size 1", KeyType::String, 31),
            ("type binary size 1", KeyType::Binary, 32),
            ("type binary len 20 size 1", KeyType::Binary, 20),
        ] {
            let s = parse_line(line).unwrap().spec;
            assert_eq!((s.key_type, s.key_len), (kind, len), "{line}");
        }
        for name in DataType::all().map(DataType::name).chain(["server_name"]) {
            let arg = match DataType::from_name(name).unwrap().info().args {
                ArgForm::None => "",
                ArgForm::Period => "(10s)",
                ArgForm::Elements => "(5)",
                ArgForm::ElementsAndPeriod => "(5,10s)",
            };
            assert!(
                parse_line(&format!("type ip size 1 store {name}{arg}")).is_ok(),
                "{name}"
            );
        }
    }
}
