//! A message head that owns its bytes: accessors and edits.

use super::framing::Facts;
use super::names::{HeaderId, is_ctl, is_token};
use super::parse::Progress;
use super::values::trim;
use super::{Version, target};

/// Byte range in a [`Head`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub(crate) off: u32,
    pub(crate) len: u32,
}

impl Span {
    pub(crate) fn of<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let start = self.off as usize;
        bytes
            .get(start..start + self.len as usize)
            .unwrap_or_default()
    }
}

/// A header line: places of name and value, 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name_off: u32,
    pub(crate) value_off: u32,
    pub(crate) value_len: u32,
    pub(crate) name_len: u16,
    pub(crate) id: HeaderId,
    pub(crate) flags: u8,
}

impl Field {
    /// The bytes of the line are exactly `name: value CR LF`, so it can be copied as it is.
    pub(crate) const CANONICAL: u8 = 1;
    /// Added after parsing, by a rule or the proxy: its sender is us.
    pub(crate) const OWN: u8 = 2;

    pub(crate) fn name<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        Span {
            off: self.name_off,
            len: u32::from(self.name_len),
        }
        .of(bytes)
    }

    pub(crate) fn value<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        Span {
            off: self.value_off,
            len: self.value_len,
        }
        .of(bytes)
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A parsed message head that owns a copy of its bytes, so that the socket buffer is free for the body and rules can
/// edit it. Meant to be reused: `clear` keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The head as received, then the text of edits.
    pub(crate) bytes: Vec<u8>,
    pub(crate) fields: Vec<Field>,
    pub(crate) progress: Progress,
    pub(crate) is_response: bool,
    pub(crate) version: Version,
    pub(crate) method: Span,
    pub(crate) target: Span,
    /// The target in origin form (path and query); the target itself for `*` and authority-form.
    pub(crate) origin: Span,
    /// Length of the path at the start of `origin`; the query follows after a `?`, if `origin` is longer.
    pub(crate) path_len: u32,
    /// Authority of an absolute-form or authority-form target.
    pub(crate) authority: Span,
    pub(crate) status: u16,
    pub(crate) reason: Span,
    pub(crate) facts: Facts,
    /// Well-known headers that occur, or did until they were removed: [`HeaderId::bit`].
    pub(crate) present: u32,
    /// A rule added a `Connection` line.
    pub(crate) own_connection: bool,
    /// Prepared for sending: what says how the message and its connection end must stay as it is.
    pub(crate) sealed: bool,
}

impl Head {
    /// Empty it, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.progress = Progress::default();
        self.is_response = false;
        self.version = Version::Http11;
        self.method = Span::default();
        self.target = Span::default();
        self.origin = Span::default();
        self.path_len = 0;
        self.authority = Span::default();
        self.status = 0;
        self.reason = Span::default();
        self.facts = Facts::default();
        self.present = 0;
        self.own_connection = false;
        self.sealed = false;
    }

    /// Bytes of heap memory held, used or not.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// A whole head is inside (it was parsed to its end).
    pub fn is_complete(&self) -> bool {
        self.progress.complete
    }

    /// It was parsed as a response.
    pub fn is_response(&self) -> bool {
        self.is_response
    }

    /// Version on the start line.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Request method.
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.bytes)
    }

    /// Request target as received, or as last set.
    pub fn target(&self) -> &[u8] {
        self.target.of(&self.bytes)
    }

    /// Path: from the first `/`, no query. Empty if there is none (`*`, authority-form). An absolute-form target
    /// without a path has the path `/`.
    pub fn path(&self) -> &[u8] {
        Span {
            off: self.origin.off,
            len: self.path_len,
        }
        .of(&self.bytes)
    }

    /// Path and query. Empty if there is no path.
    pub fn path_and_query(&self) -> &[u8] {
        if self.path_len == 0 {
            &[]
        } else {
            self.origin.of(&self.bytes)
        }
    }

    /// Query after `?`, `None` without `?`.
    pub fn query(&self) -> Option<&[u8]> {
        if self.path_len == 0 {
            return None;
        }
        self.origin
            .of(&self.bytes)
            .get(self.path_len as usize + 1..)
    }

    /// Authority of an absolute-form or `CONNECT` target. (`Host` is [`Head::host`].)
    pub fn authority(&self) -> Option<&[u8]> {
        (self.authority.len > 0).then(|| self.authority.of(&self.bytes))
    }

    /// Value of `Host` as it is now, port included.
    pub fn host(&self) -> Option<&[u8]> {
        self.first_of(HeaderId::Host)
    }

    /// Response status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Response reason.
    pub fn reason(&self) -> &[u8] {
        self.reason.of(&self.bytes)
    }

    /// All header lines in order: (name as received, value without surrounding blanks).
    pub fn headers(
        &self,
    ) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + ExactSizeIterator + Clone {
        self.fields
            .iter()
            .map(|f| (f.name(&self.bytes), f.value(&self.bytes)))
    }

    /// Values of one name, case-insensitively, in order, whole lines.
    pub fn header_lines<'h>(
        &'h self,
        name: &'h [u8],
    ) -> impl DoubleEndedIterator<Item = &'h [u8]> + Clone {
        let id = HeaderId::of(name);
        self.fields
            .iter()
            .filter(move |f| self.field_is(f, id, name))
            .map(|f| f.value(&self.bytes))
    }

    /// First value of one name, whole line.
    pub fn header<'h>(&'h self, name: &'h [u8]) -> Option<&'h [u8]> {
        self.header_lines(name).next()
    }

    /// Adds a header line at the end. Rejects names that are no token and values with CR, LF, NUL or another control
    /// character. Also rejects what would contradict the framing of the message or make it ambiguous: any
    /// `Content-Length` or `Transfer-Encoding`, a second `Host`, and, once the head was prepared for sending, any
    /// `Connection`.
    pub fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), BadHeader> {
        let value = trim(value);
        if !is_token(name) || value.iter().any(|&c| is_ctl(c)) {
            return Err(BadHeader);
        }
        let id = HeaderId::of(name);
        if matches!(id, HeaderId::ContentLength | HeaderId::TransferEncoding)
            || self.is_fixed(id)
            || (id == HeaderId::Host && (self.host().is_some() || !target::is_host(value)))
        {
            return Err(BadHeader);
        }
        self.push_own(id, name, value)
    }

    /// Replaces all lines of that name by one at the end; the same refusals as [`Head::add_header`], and then nothing
    /// is removed.
    pub fn set_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), BadHeader> {
        let before = self.fields.len();
        let id = HeaderId::of(name);
        if id == HeaderId::Host {
            if !target::is_host(trim(value)) {
                return Err(BadHeader);
            }
            self.remove_header(name);
            return self.add_header(name, value);
        }
        self.add_header(name, value)?;
        let mut nth = 0;
        let bytes = &self.bytes;
        self.fields.retain(|f| {
            nth += 1;
            nth > before
                || !(f.id == id
                    && (id != HeaderId::Other || f.name(bytes).eq_ignore_ascii_case(name)))
        });
        Ok(())
    }

    /// Removes all lines whose name matches. Removing `Content-Length` or `Transfer-Encoding` hides them from rules,
    /// but they are sent all the same as long as they delimit a body. Once the head was prepared for sending, these and
    /// `Connection` stay.
    pub fn remove_headers(&mut self, mut matches: impl FnMut(&[u8]) -> bool) -> usize {
        let before = self.fields.len();
        let bytes = &self.bytes;
        let fixed = self.fixed();
        self.fields
            .retain(|f| f.id.bit() & fixed != 0 || !matches(f.name(bytes)));
        before - self.fields.len()
    }

    /// Removes all lines of one name.
    pub fn remove_header(&mut self, name: &[u8]) -> usize {
        let id = HeaderId::of(name);
        if self.is_fixed(id) {
            return 0;
        }
        let before = self.fields.len();
        let bytes = &self.bytes;
        self.fields.retain(|f| {
            !(f.id == id && (id != HeaderId::Other || f.name(bytes).eq_ignore_ascii_case(name)))
        });
        before - self.fields.len()
    }

    /// Replaces the method. Not to or from `CONNECT` or `HEAD`: those decide how the response is delimited.
    pub fn set_method(&mut self, method: &[u8]) -> Result<(), BadHeader> {
        let frames = |m: &[u8]| m == b"CONNECT" || m == b"HEAD";
        if !is_token(method)
            || ((frames(method) || frames(self.method())) && method != self.method())
        {
            return Err(BadHeader);
        }
        self.method = self.append(method)?;
        Ok(())
    }

    /// Replaces the whole request target; it must be in origin form, or `*`.
    pub fn set_target(&mut self, new: &[u8]) -> Result<(), BadHeader> {
        if !(new.first() == Some(&b'/') || new == b"*")
            || !target::is_clean(new)
            || self.method() == b"CONNECT"
        {
            return Err(BadHeader);
        }
        let span = self.append(new)?;
        self.target = span;
        self.origin = span;
        self.path_len = target::path_len(new);
        self.authority = Span::default();
        Ok(())
    }

    /// Replaces the path and keeps the query.
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), BadHeader> {
        let query = self.query().map(<[u8]>::to_vec);
        self.set_path_and_query(path, query.as_deref())
    }

    /// Replaces the query (without `?`; empty: takes it away) and keeps the path.
    pub fn set_query(&mut self, query: &[u8]) -> Result<(), BadHeader> {
        let path = self.path().to_vec();
        self.set_path_and_query(&path, (!query.is_empty()).then_some(query))
    }

    fn set_path_and_query(&mut self, path: &[u8], query: Option<&[u8]>) -> Result<(), BadHeader> {
        if path.contains(&b'?') {
            return Err(BadHeader);
        }
        let mut new = path.to_vec();
        if let Some(query) = query {
            new.push(b'?');
            new.extend_from_slice(query);
        }
        self.set_target(&new)
    }

    /// Replaces status and reason. Only among final statuses, and not to or from those without a body (204, 304).
    pub fn set_status(&mut self, status: u16, reason: &[u8]) -> Result<(), BadHeader> {
        let bodiless = |s: u16| s < 200 || s == 204 || s == 304;
        let same_framing = status == self.status || !(bodiless(status) || bodiless(self.status));
        if !(100..=599).contains(&status) || !same_framing || reason.iter().any(|&c| is_ctl(c)) {
            return Err(BadHeader);
        }
        self.reason = self.append(reason)?;
        self.status = status;
        Ok(())
    }

    /// First value of a well-known header.
    pub(crate) fn first_of(&self, id: HeaderId) -> Option<&[u8]> {
        if self.present & id.bit() == 0 {
            return None;
        }
        self.fields
            .iter()
            .find(|f| f.id == id)
            .map(|f| f.value(&self.bytes))
    }

    /// Appends a line of our own without checks on its meaning; name and value must be clean.
    pub(crate) fn push_own(
        &mut self,
        id: HeaderId,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), BadHeader> {
        let name_len = u16::try_from(name.len()).map_err(|_| BadHeader)?;
        self.present |= id.bit();
        self.own_connection |= id == HeaderId::Connection;
        let span = self.append_parts(&[name, b": ", value, b"\r\n"])?;
        self.fields.push(Field {
            name_off: span.off,
            value_off: span.off + u32::from(name_len) + 2,
            value_len: span.len - u32::from(name_len) - 4,
            name_len,
            id,
            flags: Field::CANONICAL | Field::OWN,
        });
        Ok(())
    }

    /// Appends text of an edit.
    pub(crate) fn append(&mut self, text: &[u8]) -> Result<Span, BadHeader> {
        self.append_parts(&[text])
    }

    fn append_parts(&mut self, parts: &[&[u8]]) -> Result<Span, BadHeader> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let off = self.bytes.len();
        if off.saturating_add(len) > BYTES_MAX {
            return Err(BadHeader);
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        Ok(Span {
            off: off as u32,
            len: len as u32,
        })
    }

    /// Headers that edits may no longer touch.
    fn fixed(&self) -> u32 {
        if !self.sealed {
            return 0;
        }
        HeaderId::Connection.bit()
            | HeaderId::ContentLength.bit()
            | HeaderId::TransferEncoding.bit()
    }

    fn is_fixed(&self, id: HeaderId) -> bool {
        id.bit() & self.fixed() != 0
    }

    fn field_is(&self, field: &Field, id: HeaderId, name: &[u8]) -> bool {
        field.id == id
            && usize::from(field.name_len) == name.len()
            && (id != HeaderId::Other || field.name(&self.bytes).eq_ignore_ascii_case(name))
    }
}

/// An edit that would have made the head unsafe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHeader;

impl std::fmt::Display for BadHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("edit would make the message unsafe to send")
    }
}

impl std::error::Error for BadHeader {}

/// Bound of a head with all its edits, so that offsets fit 32 bits: far above any configured limit.
const BYTES_MAX: usize = 1 << 30;
