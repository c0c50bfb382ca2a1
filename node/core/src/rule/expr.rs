//! Sample expressions: a fetch and its converters.

pub use super::format::{Alias, Format, FormatFlags, FormatItem};

use super::cx::{Cx, Msgs};
use super::registry::{Converter, Fetch};
use super::sample::{Sample, SampleType};

/// A compiled expression.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Expr {
    pub fetch: Fetch,
    pub converters: Box<[Converter]>,
    /// Type of the result as far as known at compile time.
    pub output: SampleType,
    /// As written, for messages.
    pub text: String,
}

/// What an expression gave.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Outcome<'a> {
    Value(Sample<'a>),
    /// No sample.
    Missing,
    /// Content has not arrived yet; asking again later may give a value.
    NotYet,
}

impl Expr {
    /// Evaluates it. Multi-valued fetches give their expression value (last header or cookie, first parameter).
    pub fn eval<'a>(&'a self, cx: &Cx<'a>, msgs: &'a Msgs<'_>) -> Outcome<'a> {
        match self.fetch.eval(cx, msgs) {
            Outcome::Value(sample) => self.converted(cx, sample),
            none => none,
        }
    }

    /// For ACLs: calls `f` for each occurrence of a multi-valued fetch until it returns true; once for other fetches, and
    /// when there is nothing to look in.
    pub fn any<'a>(
        &'a self,
        cx: &Cx<'a>,
        msgs: &'a Msgs<'_>,
        mut f: impl FnMut(Outcome<'a>) -> bool,
    ) {
        if !self.fetch.is_multi() {
            f(self.eval(cx, msgs));
            return;
        }
        let each = self
            .fetch
            .each(msgs, &mut |sample| f(self.converted(cx, sample)));
        if let Err(none) = each {
            f(none);
        }
    }

    fn converted<'a>(&'a self, cx: &Cx<'a>, mut sample: Sample<'a>) -> Outcome<'a> {
        for converter in &self.converters {
            match converter.apply(cx, sample) {
                Some(next) => sample = next,
                None => return Outcome::Missing,
            }
        }
        Outcome::Value(sample)
    }
}
