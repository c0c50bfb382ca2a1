//! Rows of all converters but the table family.

use super::ArgKind::{Int, IntOrVar, Ipv4Mask, Ipv6Mask, Str, Var};
use super::{Arg, ArgKind, Args, Converter, ConverterInfo, ConverterMaker, wrong};
use crate::rule::convert::{Arith, Hash, Number, Split, UrlForm};
use crate::rule::matcher::compile_regex;
use crate::rule::sample::SampleType::{self, Addr, Any, Bin, Bool, Int as Sint, Str as Text};
use crate::rule::vars::VarConditions;

type Make = fn(&Args<'_>) -> Result<Converter, String>;

fn row(
    name: &'static str,
    args: &'static [ArgKind],
    required: usize,
    input: SampleType,
    output: SampleType,
    make: Make,
    help: &'static str,
) -> ConverterInfo {
    ConverterInfo {
        name,
        args,
        required,
        input,
        output,
        help,
        maker: ConverterMaker::Plain(make),
    }
}

/// All plain rows.
#[rustfmt::skip] // one row per line reads as the table it is
pub(super) fn rows() -> Vec<ConverterInfo> {
    macro_rules! arith {
        ($name:literal, $op:ident, $help:literal) => {
            row($name, &[IntOrVar], 1, Sint, Sint, |a| Ok(Converter::Arith(Arith::$op, number(a, 0)?)), $help)
        };
    }
    macro_rules! hash {
        ($name:literal, $hash:ident, $help:literal) => {
            row($name, &[Int], 0, Bin, Sint, |a| Ok(Converter::Hash(Hash::$hash, a.int(0)?.unwrap_or(0))), $help)
        };
    }
    macro_rules! plain {
        ($name:literal, $input:ident, $output:ident, $variant:ident, $help:literal) => {
            row($name, &[], 0, $input, $output, |_| Ok(Converter::$variant), $help)
        };
    }
    vec![
        plain!("lower", Text, Text, Lower, "lower case"),
        plain!("upper", Text, Text, Upper, "upper case"),
        plain!("length", Text, Sint, Length, "length in bytes"),
        plain!("reverse", Text, Text, Reverse, "the bytes in reverse order"),
        row("bytes", &[IntOrVar, IntOrVar], 1, Bin, Bin, bytes, "len bytes from an offset"),
        row("field", &[Int, Str, Int], 2, Text, Text, |a| split(a, false), "the n-th field, empty ones count"),
        row("word", &[Int, Str, Int], 2, Text, Text, |a| split(a, true), "the n-th word, delimiters in a row count once"),
        row("concat", &[Str, Var, Str], 0, Text, Text, concat, "appends a text, a variable, a text"),
        row("strcmp", &[Var], 1, Text, Sint, |a| Ok(Converter::StrCmp(a.need_var(0)?)), "compares with a variable: -1, 0, 1"),
        arith!("add", Add, "adds"),
        arith!("sub", Sub, "subtracts"),
        arith!("mul", Mul, "multiplies"),
        arith!("div", Div, "divides; by 0: 9223372036854775807"),
        arith!("mod", Mod, "remainder; by 0: 0"),
        arith!("and", And, "bitwise and"),
        arith!("or", Or, "bitwise or"),
        arith!("xor", Xor, "bitwise exclusive or"),
        plain!("neg", Sint, Sint, Neg, "negates"),
        plain!("cpl", Sint, Sint, Cpl, "bitwise complement"),
        plain!("not", Sint, Bool, Not, "true for 0"),
        plain!("bool", Sint, Bool, Bool, "true unless 0"),
        plain!("even", Sint, Bool, Even, "true for even numbers"),
        plain!("odd", Sint, Bool, Odd, "true for odd numbers"),
        row("iif", &[Str, Str], 2, Bool, Text, iif, "one text for true, the other for false"),
        row("ipmask", &[Ipv4Mask, Ipv6Mask], 1, Addr, Addr, ipmask, "network of an address"),
        plain!("hex", Bin, Text, Hex, "upper-case hexadecimal digits"),
        plain!("hex2i", Text, Sint, Hex2i, "number written in hexadecimal"),
        plain!("base64", Bin, Text, Base64, "base64"),
        plain!("b64dec", Text, Bin, Base64Decode, "decodes base64"),
        hash!("crc32", Crc32, "CRC-32"),
        hash!("crc32c", Crc32c, "CRC-32C"),
        hash!("djb2", Djb2, "DJB2 hash"),
        hash!("sdbm", Sdbm, "SDBM hash"),
        hash!("wt6", Wt6, "WT6 hash"),
        hash!("xxh32", Xxh32, "xxHash, 32 bits"),
        hash!("xxh64", Xxh64, "xxHash, 64 bits, as a signed number"),
        plain!("sha1", Bin, Bin, Sha1, "SHA-1, 20 bytes"),
        row("url_dec", &[Int], 0, Text, Text, |a| Ok(Converter::UrlDecode { form: a.int(0)?.unwrap_or(0) != 0 }), "decodes %XX (and + as space)"),
        row("url_enc", &[Str], 0, Text, Text, url_enc, "encodes as %XX"),
        row("regsub", &[Str, Str, Str], 2, Text, Text, regsub, "replaces what a regular expression matches"),
        plain!("host_only", Text, Text, HostOnly, "host without the port"),
        plain!("port_only", Text, Sint, PortOnly, "port of a host header, 0 without"),
        row("rtrim", &[Str], 1, Text, Text, |a| Ok(Converter::TrimEnd(a.need_str(0)?)), "removes characters at the end"),
        row("ltrim", &[Str], 1, Text, Text, |a| Ok(Converter::TrimStart(a.need_str(0)?)), "removes characters at the start"),
        row("set-var", &[Var, Str, Str, Str, Str], 1, Any, Any, set_var, "stores the sample in a variable"),
        row("unset-var", &[Var], 1, Any, Any, |a| Ok(Converter::UnsetVar(a.need_var(0)?)), "forgets a variable"),
        plain!("nbsrv", Text, Sint, NbSrv, "usable servers of the backend of that name"),
        plain!("srv_queue", Text, Sint, SrvQueue, "requests waiting for [backend/]server"),
        plain!("fe_exists", Text, Bool, FeExists, "there is a frontend of that name"),
    ]
}

fn number(a: &Args<'_>, at: usize) -> Result<Number, String> {
    match a.get(at) {
        Some(Arg::Int(i)) => Ok(Number::Int(*i)),
        Some(Arg::Var(v)) => Ok(Number::Var(*v)),
        _ => Err(wrong(at, "an integer or a variable")),
    }
}

fn bytes(a: &Args<'_>) -> Result<Converter, String> {
    Ok(Converter::Bytes {
        offset: number(a, 0)?,
        len: match a.get(1) {
            None => None,
            Some(_) => Some(number(a, 1)?),
        },
    })
}

fn split(a: &Args<'_>, words: bool) -> Result<Converter, String> {
    let index = a.need_int(0)?;
    if index == 0 {
        return Err("the index starts at 1, or at -1 from the end".to_string());
    }
    Ok(Converter::Split(Split {
        index,
        delimiters: a.need_str(1)?,
        count: match a.int(2)? {
            None => 1,
            Some(n) => u32::try_from(n).map_err(|_| wrong(2, "a number from 0"))?,
        },
        words,
    }))
}

fn concat(a: &Args<'_>) -> Result<Converter, String> {
    Ok(Converter::Concat {
        before: a.owned(0)?.unwrap_or_default(),
        var: a.var(1)?,
        after: a.owned(2)?.unwrap_or_default(),
    })
}

fn iif(a: &Args<'_>) -> Result<Converter, String> {
    Ok(Converter::Iif {
        yes: a.owned(0)?.unwrap_or_default(),
        no: a.owned(1)?.unwrap_or_default(),
    })
}

fn ipmask(a: &Args<'_>) -> Result<Converter, String> {
    use std::net::IpAddr;
    let v4 = match a.ip(0)? {
        Some(IpAddr::V4(mask)) => u32::from(mask),
        _ => return Err(wrong(0, "an IPv4 mask")),
    };
    let v6 = match a.ip(1)? {
        None => None,
        Some(IpAddr::V6(mask)) => Some(u128::from(mask)),
        Some(IpAddr::V4(_)) => return Err(wrong(1, "an IPv6 mask")),
    };
    Ok(Converter::IpMask { v4, v6 })
}

fn url_enc(a: &Args<'_>) -> Result<Converter, String> {
    match a.str(0)? {
        None | Some([] | b"query") => Ok(Converter::UrlEncode(UrlForm::Query)),
        Some(other) => Err(format!(
            "unknown encoding '{}', only 'query' is",
            String::from_utf8_lossy(other)
        )),
    }
}

fn regsub(a: &Args<'_>) -> Result<Converter, String> {
    let flags = a.str(2)?.unwrap_or_default();
    if let Some(bad) = flags.iter().find(|f| !matches!(f, b'g' | b'i')) {
        return Err(format!(
            "unknown flag '{}', only 'g' and 'i' are",
            *bad as char
        ));
    }
    let pattern = a.need_str(0)?;
    let pattern = std::str::from_utf8(&pattern)
        .map_err(|_| "the regular expression is not valid UTF-8".to_string())?;
    Ok(Converter::RegSub {
        regex: Box::new(compile_regex(pattern, flags.contains(&b'i'))?),
        replacement: a.need_str(1)?,
        all: flags.contains(&b'g'),
    })
}

fn set_var(a: &Args<'_>) -> Result<Converter, String> {
    let mut conditions = VarConditions::default();
    for at in 1..a.given() {
        let name = a.str(at)?.unwrap_or_default();
        let one = std::str::from_utf8(name)
            .ok()
            .and_then(VarConditions::by_name)
            .ok_or_else(|| format!("unknown condition '{}'", String::from_utf8_lossy(name)))?;
        conditions.0 |= one.0;
    }
    Ok(Converter::SetVar {
        var: a.need_var(0)?,
        conditions,
    })
}
