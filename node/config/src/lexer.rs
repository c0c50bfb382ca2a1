//! Lines to words: quoting, escapes, comments and environment variables (config-dialect 1.1-1.3).
//!
//! Never panics and never allocates more than a small multiple of the line.

use std::borrow::Cow;
use std::fmt;

/// One word of a line after unquoting.
#[derive(Clone, PartialEq, Eq)]
pub struct Word {
    /// Its bytes; `\xNN` may give any value.
    pub bytes: Vec<u8>,
    /// Byte offset in the raw line where the word begins, from 0.
    pub col: usize,
}

impl Word {
    /// A word that stands at no particular column.
    pub fn new(text: impl Into<Vec<u8>>) -> Word {
        Word {
            bytes: text.into(),
            col: 0,
        }
    }
    /// The word as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.text(), self.col)
    }
}
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}
impl PartialEq<str> for Word {
    fn eq(&self, other: &str) -> bool {
        self.bytes == other.as_bytes()
    }
}
impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        self.bytes == other.as_bytes()
    }
}

/// Where variables of a line get their values.
pub trait Variables {
    /// Value of an environment variable, or of a pseudo-variable (`.FILE`, `.LINE`, `.SECTION`).
    fn value(&self, name: &str) -> Option<String>;
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LexError {
    /// Kind of mistake.
    pub kind: LexErrorKind,
    /// Byte offset in the line, from 0.
    pub at: usize,
}

/// Kinds of mistakes inside a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexErrorKind {
    /// A quote is never closed.
    Quote,
    /// `${NAME` without `}`.
    Brace,
    /// `$` is followed by something that cannot begin a name.
    VarName,
    /// `\x` without two hex digits.
    Hex,
    /// `${NAME[` not followed by `*]`.
    Expansion,
    /// The word with this number (the statement itself is 0) is empty.
    EmptyWord(usize),
}

impl LexError {
    /// The message, ending where the line and its caret follow.
    pub fn message(&self) -> String {
        let at = self.at.saturating_add(1);
        match self.kind {
            LexErrorKind::Quote => format!("unmatched quote at position {at}:"),
            LexErrorKind::Brace => {
                format!("unmatched brace in environment variable name at position {at}:")
            }
            LexErrorKind::VarName => {
                format!("forbidden first char in environment variable name at position {at}:")
            }
            LexErrorKind::Hex => {
                format!("truncated or invalid hexadecimal sequence at position {at}:")
            }
            LexErrorKind::Expansion => {
                format!("truncated or invalid word expansion sequence at position {at}:")
            }
            LexErrorKind::EmptyWord(n) => format!(
                "argument number {n} at position {at} is empty and marks the end of the argument list:"
            ),
        }
    }
}

/// Shows the line and a caret under the byte at offset `at`. Control characters become blanks and a very long line is
/// cut around the place, so that the terminal shows something useful.
pub fn caret(line: &[u8], at: usize) -> String {
    const BEFORE: usize = 60;
    const WIDTH: usize = 120;
    let at = at.min(line.len());
    let from = if line.len() > WIDTH {
        at.saturating_sub(BEFORE)
    } else {
        0
    };
    let to = line.len().min(from.saturating_add(WIDTH));
    let shown = line.get(from..to).unwrap_or_default();
    let mut text = String::new();
    for c in String::from_utf8_lossy(shown).chars() {
        text.push(if c.is_control() { ' ' } else { c });
    }
    let lead = String::from_utf8_lossy(line.get(from..at).unwrap_or_default())
        .chars()
        .count();
    let (mark, lead) = if from > 0 {
        ("...", lead.saturating_add(3))
    } else {
        ("", lead)
    };
    format!("  {mark}{text}\n  {:lead$}^", "")
}

/// Splits a line (without its LF) into words. A comment or a line of blanks gives none.
pub fn words(line: &[u8], vars: &dyn Variables) -> Result<Vec<Word>, LexError> {
    Lexer {
        line,
        pos: 0,
        word: Vec::new(),
        start: None,
        out: Vec::new(),
    }
    .run(vars)
}

/// The first word of a line that cannot be split, or need not be: enough to find the end of a condition block.
pub fn first_word(line: &[u8]) -> Option<Word> {
    let col = line.iter().position(|b| !is_blank(*b))?;
    let rest = line.get(col..)?;
    let len = rest
        .iter()
        .position(|b| is_blank(*b) || matches!(b, b'#' | 0))
        .unwrap_or(rest.len());
    let bytes = rest.get(..len)?.to_vec();
    (!bytes.is_empty()).then_some(Word { bytes, col })
}

struct Lexer<'l> {
    line: &'l [u8],
    pos: usize,
    word: Vec<u8>,
    /// Column of the word being built, `None` between words.
    start: Option<usize>,
    out: Vec<Word>,
}

/// Blanks between words. CR counts, which is what makes CR LF files work.
fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.line.get(self.pos.saturating_add(ahead)).copied()
    }

    fn emit(&mut self, at: usize, byte: u8) {
        self.start.get_or_insert(at);
        self.word.push(byte);
    }

    fn end_word(&mut self) {
        if let Some(col) = self.start.take() {
            self.out.push(Word {
                bytes: std::mem::take(&mut self.word),
                col,
            });
        }
    }

    fn run(mut self, vars: &dyn Variables) -> Result<Vec<Word>, LexError> {
        // The open quote and its place.
        let mut quote: Option<(u8, usize)> = None;
        while let Some(b) = self.peek(0) {
            let at = self.pos;
            let quoted_by = quote.map(|(q, _)| q);
            match (b, quoted_by) {
                (0 | b'\n', _) => break,
                (b'#', None) => break,
                (b'"' | b'\'', None) => {
                    quote = Some((b, at));
                    self.start.get_or_insert(at);
                    self.pos += 1;
                }
                (q, Some(open)) if q == open => {
                    quote = None;
                    self.pos += 1;
                }
                (b'\\', None | Some(b'"')) => self.escape(at, quoted_by)?,
                (b'$', Some(b'"')) => self.variable(vars)?,
                (b, None) if is_blank(b) => {
                    self.end_word();
                    self.pos += 1;
                }
                (b, _) => {
                    self.emit(at, b);
                    self.pos += 1;
                }
            }
        }
        if let Some((_, at)) = quote {
            return Err(LexError {
                kind: LexErrorKind::Quote,
                at,
            });
        }
        self.end_word();
        self.finish()
    }

    /// An empty word is refused, unless it is all there is on the line.
    fn finish(self) -> Result<Vec<Word>, LexError> {
        match self.out.iter().position(|w| w.bytes.is_empty()) {
            None => Ok(self.out),
            Some(0) if self.out.len() == 1 => Ok(Vec::new()),
            Some(n) => Err(LexError {
                kind: LexErrorKind::EmptyWord(n),
                at: self.out.get(n).map_or(0, |w| w.col),
            }),
        }
    }

    fn escape(&mut self, at: usize, quoted_by: Option<u8>) -> Result<(), LexError> {
        let (byte, used) = match self.peek(1) {
            Some(c @ (b' ' | b'\\' | b'#' | b'\'' | b'"')) => (c, 2),
            Some(b't') => (b'\t', 2),
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'$') if quoted_by == Some(b'"') => (b'$', 2),
            Some(b'x') => {
                let digit = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16));
                match (digit(self.peek(2)), digit(self.peek(3))) {
                    (Some(hi), Some(lo)) => ((hi * 16 + lo) as u8, 4),
                    _ => {
                        return Err(LexError {
                            kind: LexErrorKind::Hex,
                            at,
                        });
                    }
                }
            }
            // Anything else is no escape: `\.` and `\1` keep their backslash, which regexes rely on.
            _ => (b'\\', 1),
        };
        self.emit(at, byte);
        self.pos += used;
        Ok(())
    }

    /// `$NAME`, `${NAME}`, `${NAME-default}`, `${NAME[*]}`; the position is on `$`.
    fn variable(&mut self, vars: &dyn Variables) -> Result<(), LexError> {
        let err = |kind, at| Err(LexError { kind, at });
        let dollar = self.pos;
        self.pos += 1;
        let brace = (self.peek(0) == Some(b'{')).then_some(self.pos);
        if brace.is_some() {
            self.pos += 1;
        }
        let name_at = self.pos;
        let pseudo = self.peek(0) == Some(b'.');
        if pseudo {
            self.pos += 1;
        }
        match self.peek(0) {
            Some(c) if c.is_ascii_alphabetic() || c == b'_' => {}
            _ => return err(LexErrorKind::VarName, name_at),
        }
        while self
            .peek(0)
            .is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_')
        {
            self.pos += 1;
        }
        let name = String::from_utf8_lossy(self.line.get(name_at..self.pos).unwrap_or_default())
            .into_owned();
        let mut value = vars.value(&name).map(String::into_bytes);
        if pseudo && value.is_none() {
            return err(LexErrorKind::VarName, name_at);
        }
        let mut split = false;
        if let Some(brace) = brace {
            if self.peek(0) == Some(b'[') {
                if (self.peek(1), self.peek(2)) != (Some(b'*'), Some(b']')) {
                    return err(LexErrorKind::Expansion, self.pos);
                }
                split = true;
                self.pos += 3;
            }
            if self.peek(0) == Some(b'-') {
                let from = self.pos + 1;
                let rest = self.line.get(from..).unwrap_or_default();
                let Some(len) = rest.iter().position(|&b| b == b'}') else {
                    return err(LexErrorKind::Brace, brace);
                };
                if value.is_none() {
                    value = Some(rest.get(..len).unwrap_or_default().to_vec());
                }
                self.pos = from + len;
            }
            if self.peek(0) != Some(b'}') {
                return err(LexErrorKind::Brace, brace);
            }
            self.pos += 1;
        }
        let value = value.unwrap_or_default();
        if split {
            self.split_into_words(dollar, &value);
        } else {
            for b in value {
                self.emit(dollar, b);
            }
        }
        Ok(())
    }

    /// `[*]`: blanks in the value separate words; a value without anything leaves no word behind.
    fn split_into_words(&mut self, at: usize, value: &[u8]) {
        let mut parts = value
            .split(u8::is_ascii_whitespace)
            .filter(|p| !p.is_empty())
            .peekable();
        if parts.peek().is_none() {
            if self.word.is_empty() {
                self.start = None;
            }
            return;
        }
        while let Some(part) = parts.next() {
            for &b in part {
                self.emit(at, b);
            }
            if parts.peek().is_some() {
                self.end_word();
            }
        }
    }
}

/// Quotes a word so that the lexer reads it back unchanged.
pub fn quote(bytes: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/,()%@[]{}=+*!<>|&?;^~".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return bytes.to_vec();
    }
    let mut out = vec![b'"'];
    for &b in bytes {
        match b {
            b'"' | b'\\' | b'$' => out.extend_from_slice(&[b'\\', b]),
            0..=0x1f | 0x7f..=0xff => out.extend_from_slice(format!("\\x{b:02x}").as_bytes()),
            _ => out.push(b),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests;
