//! `acl` lines and anonymous ACLs: criterion, flags, operator, values. (reference: config-dialect 4.2)

use remora_core::rule::cond::{AclLine, MatchMethod};
use remora_core::rule::sample::SampleType;

use super::context::{Site, Use};
use super::patterns::{self, Value};
use super::sample::acl_sample;
use super::{Fail, sentence};
use crate::lexer::Word;
use crate::scope::{Scope, Where, unsupported};

/// The words after `acl`: a name and a criterion.
pub(super) fn declaration(args: &[Word], scope: &mut Scope<'_>) -> Result<(String, AclLine), Fail> {
    let Some((name, criterion)) = args.split_first() else {
        return Err(Fail::detail("'acl' expects a name and a criterion."));
    };
    let name = name.text().into_owned();
    if let Some(c) = name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | ':' | '-'))
    {
        return Err(Fail::Whole(format!(
            "character '{c}' is not permitted in acl name '{name}'."
        )));
    }
    if name.eq_ignore_ascii_case("or") {
        return Err(Fail::Whole(format!(
            "acl name '{name}' will never match. 'or' is used to express a disjunctive condition."
        )));
    }
    if matches!(name.as_str(), "if" | "unless") {
        return Err(Fail::Whole(format!(
            "acl name '{name}' is reserved: it begins a condition."
        )));
    }
    let line = line(criterion, scope).map_err(|f| {
        f.map(|d| sentence(format!("error detected while parsing ACL '{name}' : {d}")))
    })?;
    Ok((name, line))
}

/// A criterion with its flags and values.
pub(super) fn line(words: &[Word], scope: &mut Scope<'_>) -> Result<AclLine, Fail> {
    let site = Site::expr(Where::Anywhere).with(Use::Acl);
    let criterion = words.first().map_or(&b""[..], |w| &w.bytes);
    let sample = acl_sample(criterion, site, scope)?;
    let keyword = String::from_utf8_lossy(criterion).into_owned();
    let output = sample.output();
    // A converter may change what the keyword's own method was made for, so it is dropped.
    let default = match sample.last_converter {
        None => sample.info.acl_match.or_else(|| method_of(output)),
        Some(_) => method_of(output),
    };
    let mut rest = words.get(1..).unwrap_or_default();
    if rest.is_empty() && output != SampleType::Bool && default.is_some() {
        scope.warn(format!(
            "parsing acl keyword '{keyword}' : no pattern is given, so this ACL never matches ('-m found' asks whether there is a sample, '-m bool' whether a number is not 0, '--' says that it is meant)."
        ));
    }
    let flags = Flags::take(&mut rest, scope)?;
    let Some(method) = flags.method.or(default) else {
        return Err(Fail::Detail(format!(
            "matching method must be specified first (using '-m') when using a sample fetch of this type ('{}')",
            sample.info.name
        )));
    };
    let wanted = match method {
        MatchMethod::Found => SampleType::Any,
        MatchMethod::Bool => SampleType::Bool,
        MatchMethod::Int => SampleType::Int,
        MatchMethod::Ip => SampleType::Addr,
        MatchMethod::Bin => SampleType::Bin,
        MatchMethod::Method => SampleType::Method,
        _ => SampleType::Str,
    };
    let castable = output.castable(wanted)
        || (method == MatchMethod::Bool && output.castable(SampleType::Int));
    if !castable {
        return Err(Fail::Detail(format!(
            "matching method '{}' cannot be used with fetch keyword '{keyword}'",
            patterns::method_name(method)
        )));
    }
    let mut values = flags.values;
    values.extend(rest.iter().map(|w| Value {
        text: w.bytes.clone(),
        origin: String::new(),
    }));
    let patterns = patterns::compile(&values, method, flags.ignore_case, !flags.no_names, scope)?;
    Ok(AclLine::new(
        sample.build(),
        method,
        patterns,
        flags.ignore_case,
    ))
}

#[derive(Default)]
struct Flags {
    ignore_case: bool,
    no_names: bool,
    method: Option<MatchMethod>,
    /// Values of `-f` files.
    values: Vec<Value>,
}

impl Flags {
    /// Takes the flags off the front of `words`.
    fn take(words: &mut &[Word], scope: &mut Scope<'_>) -> Result<Flags, Fail> {
        let mut flags = Flags::default();
        let mut has_file = false;
        while let Some((word, rest)) = words.split_first() {
            if word.bytes.first() != Some(&b'-') {
                break;
            }
            *words = rest;
            let flag = word.text();
            match flag.as_ref() {
                "-i" => flags.ignore_case = true,
                "-n" => flags.no_names = true,
                "-M" => return Err(Fail::Whole(unsupported("acl -M"))),
                "-u" => {
                    // The number only serves to name the ACL on the CLI.
                    let id = take_word(words);
                    if id.parse::<u32>().is_err() {
                        return Err(Fail::Detail(format!(
                            "The argument of -u must be a positive integer, got '{id}'"
                        )));
                    }
                }
                "-f" => {
                    let file = take_word(words);
                    read_file(&file, &mut flags.values, scope)?;
                    has_file = true;
                }
                "-m" => {
                    if has_file {
                        return Err(Fail::detail(
                            "'-m' must only be specified before patterns and files in parsing ACL expression",
                        ));
                    }
                    flags.method = Some(patterns::method(&take_word(words))?);
                }
                "--" => break,
                other => {
                    return Err(Fail::Detail(format!(
                        "'{other}' is not a valid ACL option. Please use '--' before any pattern beginning with a '-'"
                    )));
                }
            }
        }
        Ok(flags)
    }
}

fn take_word(words: &mut &[Word]) -> String {
    match words.split_first() {
        Some((word, rest)) => {
            *words = rest;
            word.text().into_owned()
        }
        None => String::new(),
    }
}

/// Reads a pattern file: a value per line, `#` at the start of a line comments it out, blank lines do not count.
fn read_file(path: &str, values: &mut Vec<Value>, scope: &mut Scope<'_>) -> Result<(), Fail> {
    let bare = match path.split_once('@') {
        Some(("virt" | "opt", _)) => {
            return Err(Fail::Whole(unsupported(&format!("acl -f {path}"))));
        }
        Some(("file", bare)) => bare,
        _ => path,
    };
    let failed = || Fail::Detail(format!("failed to open pattern file <{path}>"));
    if bare.is_empty() {
        return Err(failed());
    }
    let text = scope.read(bare).map_err(|_| failed())?;
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        values.push(Value {
            text: line.to_vec(),
            origin: format!(" at line {} of file '{path}'", i + 1),
        });
    }
    Ok(())
}

/// The method a type implies.
fn method_of(output: SampleType) -> Option<MatchMethod> {
    match output {
        SampleType::Bool => Some(MatchMethod::Bool),
        SampleType::Int => Some(MatchMethod::Int),
        SampleType::Addr | SampleType::Ipv4 | SampleType::Ipv6 => Some(MatchMethod::Ip),
        SampleType::Str | SampleType::Method => Some(MatchMethod::Str),
        SampleType::Bin | SampleType::Any => None,
    }
}
