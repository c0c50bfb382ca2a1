//! ACLs and conditions, three-valued.

use std::net::IpAddr;
use std::sync::Arc;

use super::cx::{Cx, Msgs};
use super::expr::{Expr, Outcome};
use super::matcher::Matcher;

/// Result of a criterion or condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Ternary {
    False,
    True,
    /// Needs content that has not arrived.
    Unknown,
}

impl MatchMethod {
    /// The word after `-m`.
    pub fn by_name(name: &str) -> Option<MatchMethod> {
        Some(match name {
            "found" => MatchMethod::Found,
            "bool" => MatchMethod::Bool,
            "int" => MatchMethod::Int,
            "ip" => MatchMethod::Ip,
            "str" => MatchMethod::Str,
            "sub" => MatchMethod::Sub,
            "beg" => MatchMethod::Beg,
            "end" => MatchMethod::End,
            "dir" => MatchMethod::Dir,
            "dom" => MatchMethod::Dom,
            "reg" => MatchMethod::Reg,
            "len" => MatchMethod::Len,
            "bin" => MatchMethod::Bin,
            _ => return None,
        })
    }
}

/// `-m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MatchMethod {
    Found,
    Bool,
    Int,
    Ip,
    Str,
    Sub,
    Beg,
    End,
    Dir,
    Dom,
    Reg,
    Len,
    Bin,
    /// method names
    Method,
}

/// Values of one ACL line as the parser gives them.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Patterns {
    /// `found`, `bool`; also a line without values, which never matches.
    None,
    /// Inclusive ranges (also for `len`).
    Int(Box<[(i64, i64)]>),
    /// Networks: (address, prefix length), v4 and v6.
    Ip(Box<[(IpAddr, u8)]>),
    /// Texts or raw bytes for str, sub, beg, end, dir, dom, bin, method; case does not matter when `ignore_case`.
    Bytes(Box<[Vec<u8>]>),
    Regex(Box<[regex::bytes::Regex]>),
}

/// One `acl` line: a criterion, its method and values. Made by [`AclLine::new`].
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AclLine {
    pub expr: Expr,
    pub method: MatchMethod,
    pub ignore_case: bool,
    matcher: Matcher,
}

impl AclLine {
    /// Compiles the values into the shape that is fast to search. Values that do not suit the method never match.
    pub fn new(expr: Expr, method: MatchMethod, patterns: Patterns, ignore_case: bool) -> AclLine {
        AclLine {
            matcher: Matcher::new(method, patterns, ignore_case),
            expr,
            method,
            ignore_case,
        }
    }
}

/// All lines of one ACL name, ORed. Shared by the conditions that use it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Acl {
    pub name: String,
    pub lines: Vec<AclLine>,
}

/// A possibly negated ACL in a condition.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Term {
    pub negated: bool,
    pub acl: Arc<Acl>,
}

/// A compiled `if`/`unless` condition: OR of ANDs of possibly negated ACLs, left to right, stopping as soon as decided.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Cond {
    pub any_of: Box<[Box<[Term]>]>,
    /// `unless`
    pub negated: bool,
}

impl Ternary {
    /// Both must hold.
    pub fn and(self, other: Ternary) -> Ternary {
        match (self, other) {
            (Ternary::False, _) | (_, Ternary::False) => Ternary::False,
            (Ternary::Unknown, _) | (_, Ternary::Unknown) => Ternary::Unknown,
            _ => Ternary::True,
        }
    }
    /// One is enough.
    pub fn or(self, other: Ternary) -> Ternary {
        match (self, other) {
            (Ternary::True, _) | (_, Ternary::True) => Ternary::True,
            (Ternary::Unknown, _) | (_, Ternary::Unknown) => Ternary::Unknown,
            _ => Ternary::False,
        }
    }
    /// The opposite, if `yes`; what is unknown stays so.
    pub fn negated_if(self, yes: bool) -> Ternary {
        match self {
            Ternary::False if yes => Ternary::True,
            Ternary::True if yes => Ternary::False,
            same => same,
        }
    }
}

impl AclLine {
    /// Evaluates the criterion and compares. No sample: False (`!` of it is True).
    pub fn eval(&self, cx: &Cx<'_>, msgs: &Msgs<'_>) -> Ternary {
        let mut result = Ternary::False;
        self.expr.any(cx, msgs, |outcome| match outcome {
            Outcome::Value(sample) => {
                let matches = self.matcher.matches(&sample);
                if matches {
                    result = Ternary::True;
                }
                matches
            }
            Outcome::Missing => false,
            Outcome::NotYet => {
                result = Ternary::Unknown;
                false
            }
        });
        // What grows (`req.len`) may match later.
        if result == Ternary::False && self.expr.fetch.may_change() && !msgs.req_content.is_final {
            return Ternary::Unknown;
        }
        result
    }
}

impl Term {
    /// Its ACL's lines in order until one matches, then the `!`.
    pub(super) fn eval(&self, cx: &Cx<'_>, msgs: &Msgs<'_>) -> Ternary {
        let mut any = Ternary::False;
        for line in &self.acl.lines {
            any = any.or(line.eval(cx, msgs));
            if any == Ternary::True {
                break;
            }
        }
        any.negated_if(self.negated)
    }
}

impl Cond {
    /// Evaluates it, `unless` applied; side effects of terms happen in order, and stop as soon as the outcome is decided.
    pub fn eval(&self, cx: &Cx<'_>, msgs: &Msgs<'_>) -> Ternary {
        let mut any = Ternary::False;
        for group in &self.any_of {
            let mut all = Ternary::True;
            for term in group {
                all = all.and(term.eval(cx, msgs));
                if all == Ternary::False {
                    break;
                }
            }
            any = any.or(all);
            if any == Ternary::True {
                break;
            }
        }
        any.negated_if(self.negated)
    }
}
