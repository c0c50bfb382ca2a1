//! Log-format strings: text, `%%`, `%[EXPR]`, `%{FLAGS}[EXPR]`, `%ALIAS`. (reference: config-dialect 4.3)

use remora_core::rule::expr::{Alias, Format, FormatFlags, FormatItem};

use super::Fail;
use super::context::Site;
use super::sample::prefix_sample;
use crate::scope::{Scope, Where, unsupported};

/// Aliases of the reference that are not supported.
const OTHER_ALIASES: &[&str] = &[
    "B", "CC", "CS", "HPO", "ID", "OG", "ST", "T", "TR", "Ta", "Tc", "Td", "Th", "Ti", "Tl", "Tq",
    "Tr", "Ts", "Tt", "Tu", "Tw", "U", "ac", "bc", "bi", "bp", "bq", "fc", "ft", "hr", "hrl", "hs",
    "hsl", "lc", "ms", "r", "rc", "rt", "sc", "si", "sp", "sq", "sslc", "sslv", "t", "tr", "trg",
    "trl", "ts", "tsc",
];

/// Compiles a log-format string.
pub(crate) fn format(text: &[u8], site: Site, scope: &mut Scope<'_>) -> Result<Format, Fail> {
    let mut compiler = Compiler {
        items: Vec::new(),
        text: Vec::new(),
        defaults: FormatFlags::default(),
        merge_blanks: site.at == Where::Log,
    };
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte == b'%' {
            at = compiler.item(text, at, site, scope)?;
        } else {
            compiler.push(byte);
        }
    }
    compiler.flush();
    Ok(Format {
        items: compiler.items.into_boxed_slice(),
    })
}

struct Compiler {
    items: Vec<FormatItem>,
    text: Vec<u8>,
    /// Flags of items that say nothing, set by `%{+Q}o`.
    defaults: FormatFlags,
    /// In log lines several blanks in a row are one.
    merge_blanks: bool,
}

impl Compiler {
    fn push(&mut self, byte: u8) {
        if self.merge_blanks && byte == b' ' && self.text.last() == Some(&b' ') {
            return;
        }
        self.text.push(byte);
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.items
                .push(FormatItem::Text(std::mem::take(&mut self.text)));
        }
    }

    /// Compiles what follows a `%` at `at`; gives where it ended.
    fn item(
        &mut self,
        text: &[u8],
        mut at: usize,
        site: Site,
        scope: &mut Scope<'_>,
    ) -> Result<usize, Fail> {
        let mut flags = self.defaults;
        let mut flagged = None;
        match text.get(at) {
            None => return Err(Fail::detail("truncated line after '%'")),
            Some(b'%') => {
                self.push(b'%');
                return Ok(at + 1);
            }
            Some(b'(') => return Err(Fail::Whole(unsupported("%(name) in log-format"))),
            Some(b'{') => {
                let rest = text.get(at + 1..).unwrap_or_default();
                let Some(len) = rest.iter().position(|b| *b == b'}') else {
                    return Err(Fail::Detail(format!(
                        "truncated line after '{}'",
                        String::from_utf8_lossy(rest)
                    )));
                };
                let written = rest.get(..len).unwrap_or_default();
                apply_flags(written, &mut flags)?;
                flagged = Some(String::from_utf8_lossy(written).into_owned());
                at += len + 2;
            }
            Some(_) => {}
        }
        match text.get(at) {
            Some(b'[') => self.expression(text, at + 1, flags, site, scope),
            Some(b) if b.is_ascii_alphabetic() => self.alias(text, at, flags),
            Some(_) if flagged.is_some() => Err(Fail::Detail(format!(
                "parse argument modifier without variable name near '%{{{}}}'",
                flagged.unwrap_or_default()
            ))),
            None => Err(Fail::Detail(format!(
                "truncated line after '%{{{}}}'",
                flagged.unwrap_or_default()
            ))),
            Some(_) => {
                let rest = text.get(at..).unwrap_or_default();
                let first = rest.first().copied().map_or(' ', char::from);
                Err(Fail::Detail(format!(
                    "unexpected '{first}' after '%' at position {at} of '{}': a percent sign is written '%%'",
                    String::from_utf8_lossy(text)
                )))
            }
        }
    }

    fn expression(
        &mut self,
        text: &[u8],
        at: usize,
        flags: FormatFlags,
        site: Site,
        scope: &mut Scope<'_>,
    ) -> Result<usize, Fail> {
        let rest = text.get(at..).unwrap_or_default();
        let shown = String::from_utf8_lossy(rest);
        let (parsed, end) = prefix_sample(rest, site, scope).map_err(|fail| {
            fail.map(|d| format!("failed to parse sample expression <{shown}> : {d}"))
        })?;
        let name = parsed.info.name;
        match rest.get(end) {
            Some(b']') => {}
            None => return Err(Fail::Detail(format!("missing ']' after '{name}'"))),
            Some(other) => {
                return Err(Fail::Detail(format!(
                    "expected ']' after '{name}', but found '{}'",
                    char::from(*other)
                )));
            }
        }
        if let Some(source) = parsed.missing(site, scope) {
            return Err(Fail::Detail(format!(
                "sample fetch <{shown}> may not be reliably used here because it needs '{source}' which is not available here"
            )));
        }
        self.flush();
        self.items.push(FormatItem::Expr {
            expr: parsed.build(),
            flags,
        });
        Ok(at + end + 1)
    }

    fn alias(&mut self, text: &[u8], at: usize, flags: FormatFlags) -> Result<usize, Fail> {
        let rest = text.get(at..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|b| !b.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let name = String::from_utf8_lossy(rest.get(..len).unwrap_or_default()).into_owned();
        if name == "o" {
            // `%{+Q}o`: the flags of everything that follows.
            self.defaults = flags;
        } else if let Some(alias) = Alias::by_name(&name) {
            self.flush();
            self.items.push(FormatItem::Alias { alias, flags });
        } else if OTHER_ALIASES.contains(&name.as_str()) {
            return Err(Fail::Whole(unsupported(&format!("%{name}"))));
        } else {
            return Err(Fail::Detail(format!(
                "no such format alias '{name}' (a percent sign is written '%%')"
            )));
        }
        Ok(at + len)
    }
}

/// `+Q,+X,-E`.
fn apply_flags(written: &[u8], flags: &mut FormatFlags) -> Result<(), Fail> {
    let text = String::from_utf8_lossy(written);
    for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let (on, name) = match word.strip_prefix('-') {
            Some(name) => (false, name),
            None => (true, word.strip_prefix('+').unwrap_or(word)),
        };
        match name {
            "Q" => flags.quote = on,
            "X" => flags.hex = on,
            "E" => flags.escape = on,
            "M" => {} // "mandatory" only changes how logs show what is missing
            "json" | "cbor" | "bin" => {
                return Err(Fail::Whole(unsupported(&format!("%{{+{name}}}"))));
            }
            _ => {
                return Err(Fail::Detail(format!(
                    "unknown flag '{word}' in '%{{{text}}}'"
                )));
            }
        }
    }
    Ok(())
}
