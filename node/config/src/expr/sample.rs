//! Sample expressions: a fetch, then converters, with types and places checked. (reference: config-dialect 4.1)

use remora_core::rule::expr::Expr;
use remora_core::rule::registry::{self, Arg, ArgKind, ConverterInfo, FetchInfo, Needs};
use remora_core::rule::registry::{Converter, Fetch};
use remora_core::rule::sample::SampleType;

use super::args::{self, ArgFail, Owner};
use super::context::{Site, Use, missing};
use super::readers::{self, Reader, Source};
use super::{Fail, known};
use crate::lexer::Word;
use crate::scope::Scope;

/// An expression that must fill the whole text.
pub(super) fn whole_sample(text: &[u8], site: Site, scope: &mut Scope<'_>) -> Result<Expr, Fail> {
    let (parsed, end) = chain(text, site, scope)?;
    match text.get(end) {
        None => parsed.finish(text, site, scope),
        Some(_) => Err(trailing(&parsed)),
    }
}

/// The criterion of an ACL. It may stand anywhere: what matters is where the ACL is used.
pub(super) fn acl_sample(text: &[u8], site: Site, scope: &mut Scope<'_>) -> Result<Parsed, Fail> {
    let (parsed, end) = chain(text, site, scope)?;
    match text.get(end) {
        None => Ok(parsed),
        Some(_) => Err(trailing(&parsed)),
    }
}

/// An expression at the beginning of a longer text (`%[…]`): gives the compiled form and where it ended.
pub(super) fn prefix_sample(
    text: &[u8],
    site: Site,
    scope: &mut Scope<'_>,
) -> Result<(Parsed, usize), Fail> {
    chain(text, site, scope)
}

/// An expression that begins at a word. Following words that are converters belong to it (`src lower`, `src, lower`), as
/// they always did. Gives the number of words taken.
pub(crate) fn sample_in_words(
    words: &[Word],
    site: Site,
    scope: &mut Scope<'_>,
) -> Result<(Expr, usize), Fail> {
    let Some(first) = words.first() else {
        return Err(Fail::detail("missing fetch method"));
    };
    let mut text = first.bytes.clone();
    let mut taken = 1;
    while let Some(next) = words.get(taken) {
        let (name, _) = name_at(&next.bytes, 0);
        if name.is_empty() || registry::converter(&name).is_none() {
            break;
        }
        if !text.ends_with(b",") {
            text.push(b',');
        }
        text.extend_from_slice(&next.bytes);
        taken += 1;
    }
    // A comma at the very end is forgiven.
    while text.ends_with(b",") && !text.ends_with(b"\\,") {
        text.pop();
    }
    let (parsed, end) = chain(&text, site, scope)?;
    if text.get(end).is_some() {
        return Err(trailing(&parsed));
    }
    Ok((parsed.finish(&text, site, scope)?, taken))
}

fn trailing(parsed: &Parsed) -> Fail {
    Fail::detail(match parsed.last_converter {
        Some(name) => format!("missing comma after converter '{name}'"),
        None => format!("missing comma after fetch keyword '{}'", parsed.info.name),
    })
}

/// A parsed chain whose place has not been checked yet.
pub(super) struct Parsed {
    pub(super) info: &'static FetchInfo,
    pub(super) last_converter: Option<&'static str>,
    /// Everything the chain was parsed from.
    pub(super) text: String,
    fetch: Fetch,
    converters: Vec<Converter>,
    output: SampleType,
}

impl Parsed {
    /// What the fetch takes its information from, if that is not available at a place.
    pub(super) fn missing(&self, site: Site, scope: &Scope<'_>) -> Option<&'static str> {
        missing(self.info, site, scope)
    }
    /// Type of the result.
    pub(super) fn output(&self) -> SampleType {
        self.output
    }
    /// The expression, wherever it stands.
    pub(super) fn build(self) -> Expr {
        Expr {
            fetch: self.fetch,
            converters: self.converters.into_boxed_slice(),
            output: self.output,
            text: self.text,
        }
    }
    /// The expression, if its fetch can work at this place.
    fn finish(self, text: &[u8], site: Site, scope: &Scope<'_>) -> Result<Expr, Fail> {
        match self.missing(site, scope) {
            None => Ok(self.build()),
            Some(source) => Err(Fail::detail(format!(
                "fetch method '{}' extracts information from '{source}', none of which is available here",
                String::from_utf8_lossy(text)
            ))),
        }
    }
}

/// What a compiled expression's fetch needs, found again by its name.
pub(crate) fn needs_of(expr: &Expr) -> Needs {
    let (name, _) = name_at(expr.text.as_bytes(), 0);
    registry::fetch(&name).map_or(Needs::NOTHING, |f| f.needs)
}

/// The longest run of name characters at `at`, and where it ends.
pub(super) fn name_at(text: &[u8], at: usize) -> (String, usize) {
    let rest = text.get(at..).unwrap_or_default();
    let len = rest
        .iter()
        .position(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'.' | b'_' | b'-' | b'+' | b':'))
        .unwrap_or(rest.len());
    let name = rest.get(..len).unwrap_or_default();
    (String::from_utf8_lossy(name).into_owned(), at + len)
}

/// Parses a fetch and its converters from the start of `text` and stops at the first byte that cannot go on.
fn chain(text: &[u8], site: Site, scope: &mut Scope<'_>) -> Result<(Parsed, usize), Fail> {
    let in_acl = site.role == Use::Acl;
    let context = if in_acl {
        format!(" in ACL expression '{}'", String::from_utf8_lossy(text))
    } else {
        String::new()
    };
    let (name, name_end) = name_at(text, 0);
    if name.is_empty() {
        return Err(Fail::detail(format!("missing fetch method{context}")));
    }
    let Some(info) = find_fetch(&name, site) else {
        return Err(known::no_fetch(&name, in_acl, &context));
    };
    // An ACL keyword of its own complains in its own words.
    let acl_keyword = in_acl && info.acl_match.is_some();
    let fetch_error = |detail: &str, meaning: bool| match (acl_keyword, meaning) {
        (true, _) => format!("ACL keyword '{name}' : {detail}"),
        (false, true) => format!("invalid args in fetch method '{name}' : {detail}{context}"),
        (false, false) => format!("fetch method '{name}' : {detail}{context}"),
    };
    let owner = Owner {
        fetch: &name,
        converter: None,
        site,
    };
    let raw = args::split(text, name_end, info.args, info.required)
        .map_err(|(_, detail)| Fail::Detail(fetch_error(&detail, false)))?;
    let mut end = raw.end;
    let args = args::resolve(&raw.texts, info.args, info.required, owner, scope).map_err(
        |fail| match fail {
            ArgFail::Spelling(_, d) => Fail::Detail(fetch_error(&d, false)),
            ArgFail::Meaning(d) => Fail::Detail(fetch_error(&d, true)),
            ArgFail::Whole(d) => Fail::Whole(d),
        },
    )?;
    check_own_side(info.args, &args, owner, scope)?;
    if let Some(reader) = readers::reader(&name) {
        check_reader(&name, reader, info.args, &args, owner, scope)
            .map_err(|f| f.map(|d| fetch_error(d, true)))?;
    }
    let fetch = info
        .build(&args, scope.own_table())
        .map_err(|d| Fail::Detail(fetch_error(&d, true)))?;

    let mut converters = Vec::new();
    let mut last_converter = None;
    let mut output = info.output;
    while text.get(end) == Some(&b',') {
        while text.get(end) == Some(&b',') {
            end += 1;
        }
        let (conv_name, conv_end) = name_at(text, end);
        let Some(conv) = registry::converter(&conv_name) else {
            return Err(known::no_converter(&conv_name, &context));
        };
        if !output.castable(conv.input) {
            return Err(Fail::detail(format!(
                "converter '{conv_name}' cannot be applied{context}"
            )));
        }
        let owner = Owner {
            converter: Some(conv.name),
            ..owner
        };
        let (converter, after) = one_converter(text, conv_end, conv, owner, &context, scope)?;
        converters.push(converter);
        end = after;
        last_converter = Some(conv.name);
        if conv.output != SampleType::Any {
            output = conv.output;
        } else if conv.input != SampleType::Any {
            output = conv.input;
        }
    }
    let parsed = Parsed {
        info,
        last_converter,
        text: String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned(),
        fetch,
        converters,
        output,
    };
    Ok((parsed, end))
}

fn one_converter(
    text: &[u8],
    at: usize,
    conv: &'static ConverterInfo,
    owner: Owner<'_>,
    context: &str,
    scope: &mut Scope<'_>,
) -> Result<(Converter, usize), Fail> {
    let name = conv.name;
    let meaning = |d: &str| format!("invalid args in converter '{name}' : {d}{context}");
    let spelling = |n: usize, d: &str| {
        Fail::Detail(format!(
            "invalid arg {n} in converter '{name}' : {d}{context}"
        ))
    };
    let raw = args::split(text, at, conv.args, conv.required).map_err(|(n, d)| spelling(n, &d))?;
    let args = args::resolve(&raw.texts, conv.args, conv.required, owner, scope).map_err(
        |fail| match fail {
            ArgFail::Spelling(n, d) => spelling(n, &d),
            ArgFail::Meaning(d) => Fail::Detail(meaning(&d)),
            ArgFail::Whole(d) => Fail::Whole(d),
        },
    )?;
    let reader = match readers::reader(name) {
        None if name == "in_table" => Some(Reader {
            source: Source::Key,
            any_of: &[],
            indexed: false,
        }),
        found => found,
    };
    if let Some(reader) = reader {
        check_reader(name, reader, conv.args, &args, owner, scope).map_err(|f| f.map(meaning))?;
    }
    let converter = conv
        .build(&args, scope.own_table())
        .map_err(|d| Fail::Detail(meaning(&d)))?;
    Ok((converter, raw.end))
}

/// Finds a fetch as seen from a place: `hdr` means the message being processed; ACL spellings exist in ACLs only.
fn find_fetch(name: &str, site: Site) -> Option<&'static FetchInfo> {
    if site.role == Use::Acl {
        return registry::fetch(name);
    }
    let name = if name == "hdr" && site.is_response() {
        "res.hdr"
    } else {
        name
    };
    registry::fetch(name).filter(|f| !f.acl_only)
}

/// A counter of a proxy that is not named means the current one, which must have that side.
fn check_own_side(
    kinds: &[ArgKind],
    args: &[Option<Arg>],
    owner: Owner<'_>,
    scope: &Scope<'_>,
) -> Result<(), Fail> {
    let Some(current) = scope.current() else {
        return Ok(());
    };
    for (i, kind) in kinds.iter().enumerate() {
        let side = match kind {
            ArgKind::Frontend if !current.is_frontend => "frontend",
            ArgKind::Backend if !current.is_backend => "backend",
            _ => continue,
        };
        if !matches!(args.get(i), Some(Some(_))) {
            return Err(Fail::Whole(format!(
                "proxy '{}', {} has not {side} capability.",
                scope.section_name(),
                owner
                    .referenced(i + 1, scope)
                    .trim_end_matches('.')
                    .to_owned()
                    + ","
            )));
        }
    }
    Ok(())
}

/// Refuses readers that can never give anything: a slot that does not exist, a table that is not there or does not store
/// what is read. (reference: stick-tables 7.2)
fn check_reader(
    name: &str,
    reader: Reader,
    kinds: &[ArgKind],
    args: &[Option<Arg>],
    owner: Owner<'_>,
    scope: &mut Scope<'_>,
) -> Result<(), Fail> {
    let int_at = |at: usize| match args.get(at) {
        Some(Some(Arg::Int(n))) => Some(*n),
        _ => None,
    };
    let index = if reader.indexed {
        let n = int_at(0).unwrap_or(0);
        match u16::try_from(n).ok().filter(|n| *n < 100) {
            Some(n) => n,
            None => {
                return Err(Fail::detail(format!(
                    "invalid array index '{n}', an integer between 0 and 99 is expected"
                )));
            }
        }
    } else {
        0
    };
    let slot = match reader.source {
        Source::FixedSlot(n) => Some(i64::from(n)),
        Source::Slot => reader.slot_arg().and_then(int_at),
        Source::Src | Source::Key => None,
    };
    if let Some(n) = slot
        && !(0..i64::from(scope.stick_counters)).contains(&n)
    {
        return Err(Fail::Detail(slot_out_of_range(&n.to_string(), scope)));
    }
    let written = kinds
        .iter()
        .position(|k| *k == ArgKind::Table)
        .and_then(|at| match args.get(at) {
            Some(Some(Arg::Table(t))) => Some(*t),
            _ => None,
        });
    let table = match (written, slot) {
        (Some(t), _) => t,
        (None, Some(n)) => {
            // Which table a slot follows is known once all rules are. Readers that work on either of two data types
            // (`inc`, `clr`) are left alone.
            if let [only] = reader.any_of {
                let slot = u8::try_from(n).unwrap_or(u8::MAX);
                scope.note_slot_read(name, slot, *only, index);
            }
            return Ok(());
        }
        (None, None) => match scope.own_table() {
            Some(t) => t,
            None => {
                let number = kinds.iter().position(|k| *k == ArgKind::Table);
                return Err(Fail::Whole(format!(
                    "unable to find table '{}' {}",
                    scope.section_name(),
                    owner.referenced(number.unwrap_or(0) + 1, scope)
                )));
            }
        },
    };
    let stored = reader.any_of.is_empty()
        || reader
            .any_of
            .iter()
            .any(|what| scope.stores(table, *what, index));
    if stored {
        return Ok(());
    }
    let what = reader
        .any_of
        .first()
        .copied()
        .map_or("", readers::store_name);
    let what = if reader.indexed {
        format!("{what}[{index}]")
    } else {
        what.to_owned()
    };
    let table = scope.spec(table).map_or("", |s| s.name.as_str());
    Err(Fail::Whole(format!(
        "'{name}' reads '{what}', which table '{table}' does not store: it would never match in proxy '{}'.",
        scope.section_name()
    )))
}

/// The reference's sentence about a slot beyond `tune.stick-counters`.
pub(crate) fn slot_out_of_range(written: &str, scope: &Scope<'_>) -> String {
    match scope.stick_counters.checked_sub(1) {
        Some(max) => format!(
            "invalid stick table track ID '{written}'. The max allowed ID is {max} (tune.stick-counters)"
        ),
        None => format!(
            "invalid stick table track ID '{written}'. There is none (tune.stick-counters is 0)"
        ),
    }
}
