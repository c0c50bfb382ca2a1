//! `docs/expressions.md` is written from the registry. This test fails when it is out of date; with `REMORA_WRITE_DOCS=1`
//! in the environment it writes the file anew.

use std::fmt::Write as _;

use remora_core::rule::registry::{ArgKind, Needs, converters, fetches};
use remora_core::rule::sample::SampleType;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/expressions.md");

const INTRODUCTION: &str = "\
# Fetches and converters

Written from Remora's own registry; `REMORA_WRITE_DOCS=1 cargo test -p remora-config --test expressions` brings it up
to date. `FETCH[(arguments)][,CONVERTER[(arguments)]]…` is an expression; arguments in brackets may be left out.

A fetch can be used where its information exists: *anywhere*, on any client *connection*, in a *stream* (from
`tcp-request content` on), with the *request*, or with the *response*.

";

const FETCH_NOTES: &str = "\
Spellings that the table leaves out:

- `sc0_X`, `sc1_X`, `sc2_X` are `sc_X` of slot 0, 1 and 2, with the table as their only argument.
- In ACLs, `_beg`, `_dir`, `_dom`, `_end`, `_len`, `_reg` and `_sub` behind a name of the families `path`, `url`, `base`,
  `hdr`, `cook`, `scook`, `shdr` and `urlp` bring their match method with them: `path_beg /img` is `path -m beg /img`.

| fetch | gives | where | what it is |
|---|---|---|---|
";

const CONVERTER_NOTES: &str = "
## Converters

What goes in is cast to the type a converter takes. *same*: it gives what it got.

| converter | takes | gives | what it does |
|---|---|---|---|
";

fn signature(name: &str, args: &[ArgKind], required: usize) -> String {
    let words: Vec<&str> = args
        .iter()
        .map(|kind| match kind {
            ArgKind::Str => "string",
            ArgKind::Int => "integer",
            ArgKind::Time => "time",
            ArgKind::Table => "table",
            ArgKind::Frontend => "frontend",
            ArgKind::Backend => "backend",
            ArgKind::Server => "backend/server",
            ArgKind::Var => "variable",
            ArgKind::Ipv4Mask => "mask4",
            ArgKind::Ipv6Mask => "mask6",
            ArgKind::Ipv4 => "address4",
            ArgKind::Ipv6 => "address6",
            ArgKind::Regex => "regex",
            ArgKind::IntOrVar => "integer or variable",
            ArgKind::Bool => "boolean",
            ArgKind::Env => "environment variable",
        })
        .collect();
    let (needed, optional) = words.split_at(required.min(words.len()));
    let mut list = needed.join(", ");
    for (i, word) in optional.iter().enumerate() {
        let comma = if i == 0 && needed.is_empty() {
            ""
        } else {
            ", "
        };
        let _ = write!(list, "[{comma}{word}");
    }
    list.push_str(&"]".repeat(optional.len()));
    if list.is_empty() {
        format!("`{name}`")
    } else if needed.is_empty() {
        format!(
            "`{name}[({})]`",
            list.trim_start_matches('[').replacen(']', "", 1)
        )
    } else {
        format!("`{name}({list})`")
    }
}

fn kind(output: SampleType) -> &'static str {
    match output {
        SampleType::Any => "any",
        SampleType::Bool => "boolean",
        SampleType::Int => "integer",
        SampleType::Addr => "address",
        SampleType::Ipv4 => "IPv4 address",
        SampleType::Ipv6 => "IPv6 address",
        SampleType::Str => "string",
        SampleType::Bin => "binary",
        SampleType::Method => "method",
    }
}

fn place(needs: Needs) -> &'static str {
    let has = |what: Needs| needs.0 & what.0 != 0;
    if has(Needs::REQ_HEAD) || has(Needs::REQ_CONTENT) {
        "request"
    } else if has(Needs::RES_HEAD) || has(Needs::RES_CONTENT) {
        "response"
    } else if has(Needs::STREAM) {
        "stream"
    } else if has(Needs::CONN) {
        "connection"
    } else {
        "anywhere"
    }
}

fn expected() -> String {
    let mut text = INTRODUCTION.to_owned() + FETCH_NOTES;
    let numbered = |name: &str| ["sc0_", "sc1_", "sc2_"].iter().any(|p| name.starts_with(p));
    for row in fetches() {
        if row.acl_only || numbered(row.name) {
            continue;
        }
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            signature(row.name, row.args, row.required),
            kind(row.output),
            place(row.needs),
            row.help
        );
    }
    text.push_str(CONVERTER_NOTES);
    for row in converters() {
        let gives = if row.output == SampleType::Any {
            "same"
        } else {
            kind(row.output)
        };
        let _ = writeln!(
            text,
            "| {} | {} | {gives} | {} |",
            signature(row.name, row.args, row.required),
            kind(row.input),
            row.help
        );
    }
    text
}

#[test]
fn the_documentation_is_what_the_registry_says() {
    let expected = expected();
    if std::env::var_os("REMORA_WRITE_DOCS").is_some() {
        std::fs::write(FILE, &expected).expect("docs/expressions.md can be written");
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        written == expected,
        "docs/expressions.md is out of date: run this test with REMORA_WRITE_DOCS=1"
    );
}
