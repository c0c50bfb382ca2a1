//! A configuration as written: sections of statements, with their places.

use crate::lexer::Word;
use crate::plan::Place;

/// Sections that Remora knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SectionKind {
    Global,
    Defaults,
    Frontend,
    Backend,
    Listen,
    Peers,
}

impl SectionKind {
    /// The word that begins it.
    pub fn word(self) -> &'static str {
        match self {
            SectionKind::Global => "global",
            SectionKind::Defaults => "defaults",
            SectionKind::Frontend => "frontend",
            SectionKind::Backend => "backend",
            SectionKind::Listen => "listen",
            SectionKind::Peers => "peers",
        }
    }
    /// The section that this word begins.
    pub fn of(word: &str) -> Option<SectionKind> {
        [
            SectionKind::Global,
            SectionKind::Defaults,
            SectionKind::Frontend,
            SectionKind::Backend,
            SectionKind::Listen,
            SectionKind::Peers,
        ]
        .into_iter()
        .find(|k| k.word() == word)
    }
}

/// A prefix of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Prefix {
    None,
    /// `no`
    No,
    /// `default`
    Default,
}

/// One statement.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its line.
    pub place: Place,
    /// `no` or `default` in front of it.
    pub prefix: Prefix,
    /// The keyword and its arguments; never empty.
    pub words: Vec<Word>,
}

impl Statement {
    /// The first word.
    pub fn keyword(&self) -> String {
        self.words.first().map(shown).unwrap_or_default()
    }
    /// The words behind the first.
    pub fn args(&self) -> &[Word] {
        self.words.get(1..).unwrap_or_default()
    }
    /// An argument as text, `""` when there is none.
    pub fn arg(&self, i: usize) -> String {
        self.args()
            .get(i)
            .map(|w| w.text().into_owned())
            .unwrap_or_default()
    }
}

/// A section and what it holds.
#[derive(Clone, Debug)]
pub struct Section {
    /// What begins it.
    pub kind: SectionKind,
    /// Its name; empty for `global` and anonymous `defaults`.
    pub name: String,
    /// `from NAME`
    pub from: Option<String>,
    /// The line of its first word.
    pub place: Place,
    /// Its statements.
    pub statements: Vec<Statement>,
}

/// A word to take apart: whole, but with control characters escaped, so that messages may quote any part of it.
pub fn whole(word: &Word) -> String {
    let mut out = String::new();
    for c in word.text().chars() {
        if c.is_control() || c == char::REPLACEMENT_CHARACTER {
            out.push_str(&c.escape_default().to_string());
        } else {
            out.push(c);
        }
    }
    out
}

/// A word in a message: as [`whole`], and a long one is cut.
pub fn shown(word: &Word) -> String {
    const SHOWN_MAX: usize = 100;
    let mut out = whole(word);
    if let Some((at, _)) = out.char_indices().nth(SHOWN_MAX) {
        out.truncate(at);
        out.push_str("...");
    }
    out
}
