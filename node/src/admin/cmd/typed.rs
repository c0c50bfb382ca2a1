//! Values with their tags, and the three forms in which `show info` and `show stat` print them. (reference: admin-cli 4.1)

use std::io::Write as _;

/// A number or text of `show info` or `show stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    U32(u32),
    S32(i32),
    U64(u64),
    Str(String),
}

impl Value {
    fn type_name(&self) -> &'static str {
        match self {
            Value::U32(_) => "u32",
            Value::S32(_) => "s32",
            Value::U64(_) => "u64",
            Value::Str(_) => "str",
        }
    }

    /// As the plain form prints it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let _ = match self {
            Value::U32(n) => write!(out, "{n}"),
            Value::S32(n) => write!(out, "{n}"),
            Value::U64(n) => write!(out, "{n}"),
            Value::Str(s) => {
                // No answer may hold an empty line.
                out.extend(s.bytes().map(|b| if b == b'\n' { b' ' } else { b }));
                Ok(())
            }
        };
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Value::Str(s) => json_string(s, out),
            _ => self.write(out),
        }
    }
}

/// Origin, nature and scope, a letter each.
pub(super) type Tags = &'static [u8; 3];

/// A named value.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) position: usize,
    pub(super) name: &'static str,
    pub(super) tags: Tags,
    pub(super) value: Value,
    pub(super) description: &'static str,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Typed,
    Json,
}

/// `POSITION.NAME.1:TAGS:TYPE:VALUE`, the part of a typed line that both commands share.
pub(super) fn write_typed(field: &Field, description: bool, out: &mut Vec<u8>) {
    let tags = String::from_utf8_lossy(field.tags);
    let _ = write!(
        out,
        "{}.{}.1:{tags}:{}:",
        field.position,
        field.name,
        field.value.type_name()
    );
    field.value.write(out);
    write_description(field, description, out);
    out.push(b'\n');
}

/// `:"text"` if asked for.
pub(super) fn write_description(field: &Field, description: bool, out: &mut Vec<u8>) {
    if description {
        let _ = write!(out, ":\"{}\"", field.description);
    }
}

/// A JSON object; `about` says whose field it is (`"objType":…,`).
pub(super) fn write_json(field: &Field, about: &str, description: bool, out: &mut Vec<u8>) {
    let _ = write!(
        out,
        "{{{about}\"field\":{{\"pos\":{},\"name\":",
        field.position
    );
    json_string(field.name, out);
    if description {
        out.extend_from_slice(b",\"desc\":");
        json_string(field.description, out);
    }
    let [origin, nature, scope] = field.tags;
    let _ = write!(
        out,
        "}},\"processNum\":1,\"tags\":{{\"origin\":\"{}\",\"nature\":\"{}\",\"scope\":\"{}\"}},\
         \"value\":{{\"type\":\"{}\",\"value\":",
        origin_name(*origin),
        nature_name(*nature),
        scope_name(*scope),
        field.value.type_name()
    );
    field.value.write_json(out);
    out.extend_from_slice(b"}}");
}

fn origin_name(letter: u8) -> &'static str {
    match letter {
        b'M' => "Metric",
        b'S' => "Status",
        b'K' => "Key",
        b'C' => "Config",
        _ => "Product",
    }
}

fn nature_name(letter: u8) -> &'static str {
    match letter {
        b'G' => "Gauge",
        b'L' => "Limit",
        b'M' => "Max",
        b'R' => "Rate",
        b'C' => "Counter",
        b'D' => "Duration",
        b'A' => "Age",
        b'T' => "Time",
        b'N' => "Name",
        b'a' => "Avg",
        _ => "Output",
    }
}

fn scope_name(letter: u8) -> &'static str {
    match letter {
        b'S' => "Service",
        b'C' => "Cluster",
        _ => "Process",
    }
}

fn json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            c if u32::from(c) < 0x20 => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "{c}"),
        };
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let field = Field {
            position: 0,
            name: "Name",
            tags: b"POS",
            value: Value::Str("Remora".into()),
            description: "Product name",
        };
        let mut out = Vec::new();
        write_typed(&field, false, &mut out);
        write_typed(&field, true, &mut out);
        write_json(&field, "", false, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "0.Name.1:POS:str:Remora\n0.Name.1:POS:str:Remora:\"Product name\"\n\
             {\"field\":{\"pos\":0,\"name\":\"Name\"},\"processNum\":1,\"tags\":{\"origin\":\"Product\",\
             \"nature\":\"Output\",\"scope\":\"Service\"},\"value\":{\"type\":\"str\",\"value\":\"Remora\"}}"
        );
    }
}
