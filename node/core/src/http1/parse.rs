//! The head parser: line by line, resumable, strict.
//!
//! Every complete line is parsed once and every byte is searched for line ends once, however slowly a head drips in. The
//! search stops at every control character, so what it passes over holds none, and a line is judged only then.
//!
//! The outcome does not depend on how the input was split: of several faults, control characters are reported before
//! others of the same line or of later ones, and lines are judged in order.

use memchr::memchr;

use super::error::{ErrorKind, ParseError};
use super::framing::{self, MethodKind};
use super::head::{Field, Head, Span};
use super::names::{Controls, HeaderId, is_token, token_len};
use super::values::{trim_end, trim_start};
use super::{Limits, Version, target};

/// How far the parser got. Offsets count from the start of the input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of empty lines before the start line.
    skip: usize,
    /// Start of the first line that is not complete yet.
    line: usize,
    /// Where the search for that line's end goes on: up to here there are no stray control characters.
    searched: usize,
    /// The start line is done.
    has_start: bool,
    pub(crate) complete: bool,
}

/// A fault and its place in the input.
type Fault = (ErrorKind, usize);

impl Head {
    /// Tries to parse a request head at the start of `input`. `Ok(Some(n))`: complete, n bytes long; `Ok(None)`: more
    /// needed. Then call again with the same bytes and more behind them: what was seen is not looked at again. A head
    /// that is complete is cleared first. A few empty lines before the request line are skipped (and count in n).
    pub fn parse_request(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ParseError> {
        self.parse(input, limits, false)
    }

    /// The same for a response head. No empty lines are tolerated before it.
    pub fn parse_response(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ParseError> {
        self.parse(input, limits, true)
    }

    fn parse(
        &mut self,
        input: &[u8],
        limits: &Limits,
        is_response: bool,
    ) -> Result<Option<usize>, ParseError> {
        if self.progress.complete
            || self.is_response != is_response
            || input.len() < self.progress.searched
        {
            self.clear();
        }
        self.is_response = is_response;
        self.advance(input, limits)
            .map_err(|(kind, at)| ParseError {
                kind,
                offset: at as u64,
                from_server: is_response,
            })
    }

    fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Fault> {
        let max = limits.head_bytes_max.min(HEAD_BYTES_MAX);
        let window = input.get(..max).unwrap_or(input);
        let mut controls = Controls::new(window, self.progress.searched);
        loop {
            let start = self.progress.line;
            let Some(end) = controls.next() else {
                return self.incomplete(window, window.len(), max);
            };
            match (window.get(end), window.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    controls.next(); // the LF
                }
                // At the very end: it may still get its LF.
                (Some(b'\r'), None) => return self.incomplete(window, end, max),
                (Some(b'\r'), _) => return Err((ErrorKind::BareCr, end)),
                (Some(b'\n'), _) => return Err((ErrorKind::BareLf, end)),
                _ => return Err((ErrorKind::ControlCharacter, end)),
            }
            let line = window.get(start..end).unwrap_or_default();
            self.progress.line = end + 2;
            self.progress.searched = end + 2;
            if line.is_empty() {
                if self.progress.has_start {
                    return self.finish(window, end + 2).map(Some);
                }
                self.leading_line(start)?;
            } else if self.progress.has_start {
                self.field_line(line, start, limits.headers_max)?;
            } else {
                self.progress.skip = start;
                self.progress.has_start = true;
                if self.is_response {
                    self.status_line(line, start)?;
                } else {
                    self.request_line(line, start)?;
                }
            }
        }
    }

    /// No line end in sight: more is needed, unless there is too much already.
    fn incomplete(
        &mut self,
        window: &[u8],
        searched: usize,
        max: usize,
    ) -> Result<Option<usize>, Fault> {
        self.progress.searched = searched;
        if window.len() < max {
            return Ok(None);
        }
        let kind = if self.progress.has_start {
            ErrorKind::HeadTooLarge
        } else {
            ErrorKind::TargetTooLong
        };
        Err((kind, max))
    }

    /// All lines are there: keep a copy, then judge the head as a whole.
    fn finish(&mut self, window: &[u8], end: usize) -> Result<usize, Fault> {
        let skip = self.progress.skip;
        self.bytes.clear();
        self.bytes
            .extend_from_slice(window.get(skip..end).unwrap_or_default());
        let judged = if self.is_response {
            self.judge_response()
        } else {
            self.judge_request()
        };
        judged.map_err(|(kind, at)| (kind, at + skip))?;
        self.progress.complete = true;
        Ok(end)
    }

    fn leading_line(&mut self, start: usize) -> Result<(), Fault> {
        if self.is_response || start >= 2 * LEADING_LINES_MAX {
            return Err((ErrorKind::LeadingEmptyLines, start));
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8], at: usize) -> Result<(), Fault> {
        let method_len = memchr(b' ', line).ok_or((ErrorKind::StartLine, at))?;
        let (method, rest) = line.split_at(method_len);
        if !is_token(method) {
            return Err((ErrorKind::Method, at));
        }
        let rest = rest.get(1..).unwrap_or_default();
        let target_len = rest
            .len()
            .checked_sub(9)
            .ok_or((ErrorKind::StartLine, at + method_len))?;
        let (target, version) = rest.split_at(target_len);
        self.version = match version {
            b" HTTP/1.1" => Version::Http11,
            b" HTTP/1.0" => Version::Http10,
            [b' ', v @ ..] if is_version(v) => {
                return Err((ErrorKind::Version, at + line.len() - 8));
            }
            _ => return Err((ErrorKind::StartLine, at + method_len)),
        };
        if target.is_empty() || target.contains(&b' ') {
            return Err((ErrorKind::StartLine, at + method_len));
        }
        if let Some(bad) = target::first_unclean(target) {
            return Err((ErrorKind::Target, at + method_len + 1 + bad));
        }
        self.method = Span {
            off: 0,
            len: method_len as u32,
        };
        self.target = Span {
            off: method_len as u32 + 1,
            len: target_len as u32,
        };
        self.facts.method = MethodKind::of(method);
        Ok(())
    }

    fn status_line(&mut self, line: &[u8], at: usize) -> Result<(), Fault> {
        let version = line.get(..9).or(line.get(..8)).unwrap_or_default();
        self.version = match version {
            b"HTTP/1.1 " => Version::Http11,
            b"HTTP/1.0 " => Version::Http10,
            [v @ .., b' '] if is_version(v) => return Err((ErrorKind::Version, at)),
            _ => return Err((ErrorKind::StartLine, at)),
        };
        let digits = line.get(9..12).unwrap_or_default();
        let number = digits.iter().try_fold(0u16, |n, d| {
            d.is_ascii_digit().then(|| n * 10 + u16::from(d - b'0'))
        });
        self.status = match (digits.len(), number) {
            (3, Some(n)) if n >= 100 => n,
            _ => return Err((ErrorKind::Status, at + 9)),
        };
        let reason_off = match line.get(12) {
            None => 12, // many servers leave the blank out when there is no reason
            Some(b' ') => 13,
            Some(_) => return Err((ErrorKind::Status, at + 12)),
        };
        self.reason = Span {
            off: reason_off as u32,
            len: (line.len() - reason_off) as u32,
        };
        Ok(())
    }

    fn field_line(&mut self, line: &[u8], at: usize, headers_max: usize) -> Result<(), Fault> {
        let name_len = token_len(line);
        let (name, rest) = line.split_at(name_len);
        match (name_len, rest.first()) {
            (0, Some(b' ' | b'\t')) => return Err((ErrorKind::ObsFold, at)),
            (0, Some(b':')) => return Err((ErrorKind::EmptyName, at)),
            (_, Some(b':')) => {}
            (_, None) => return Err((ErrorKind::NoColon, at + name_len)),
            (_, Some(b' ' | b'\t')) => {
                let blanks = rest
                    .iter()
                    .take_while(|&&c| c == b' ' || c == b'\t')
                    .count();
                let kind = if rest.get(blanks) == Some(&b':') {
                    ErrorKind::BlankBeforeColon
                } else {
                    ErrorKind::HeaderName
                };
                return Err((kind, at + name_len));
            }
            (_, Some(_)) => return Err((ErrorKind::HeaderName, at + name_len)),
        }
        if self.fields.len() >= headers_max {
            return Err((ErrorKind::TooManyHeaders, at));
        }
        let id = HeaderId::of(name);
        let (value, blanks, canonical) = match rest {
            // nearly always: one blank before, none behind
            [b':', b' ', value @ ..] if is_bare(value) => (value, 1, true),
            _ => {
                let raw = rest.get(1..).unwrap_or_default();
                let value = trim_start(raw);
                (trim_end(value), raw.len() - value.len(), false)
            }
        };
        let value_at = at + name_len + 1 + blanks;
        self.fields.push(Field {
            name_off: (at - self.progress.skip) as u32,
            value_off: (value_at - self.progress.skip) as u32,
            value_len: value.len() as u32,
            name_len: u16::try_from(name_len).map_err(|_| (ErrorKind::HeadTooLarge, at))?,
            id,
            flags: if canonical { Field::CANONICAL } else { 0 },
        });
        if id == HeaderId::Other {
            return Ok(());
        }
        self.present |= id.bit();
        framing::note(&mut self.facts, id, value).map_err(|kind| (kind, value_at))
    }
}

/// Not empty, and no blank at either end.
#[inline]
fn is_bare(value: &[u8]) -> bool {
    let blank = |c: Option<&u8>| matches!(c, None | Some(b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last())
}

/// `HTTP/` digit `.` digit.
fn is_version(v: &[u8]) -> bool {
    matches!(v, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Empty lines tolerated before a request line. (RFC 9112 section 2.2 asks for at least one: old clients send one after
/// a request body.)
const LEADING_LINES_MAX: usize = 4;

/// Heads are never larger than this, whatever the limits say, so that offsets fit 32 bits.
const HEAD_BYTES_MAX: usize = 1 << 28;
