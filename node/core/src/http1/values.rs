//! Reading inside values: comma-separated lists, cookies, query parameters, `base`. What rules fetch; nothing here
//! allocates unless it says so.

use super::head::Head;

/// Elements of a comma-separated value, without surrounding blanks. Commas in quoted strings do not separate; empty
/// elements are elements.
pub fn list(value: &[u8]) -> List<'_> {
    List { rest: Some(value) }
}

/// Iterator of [`list`].
#[derive(Clone, Debug)]
pub struct List<'v> {
    rest: Option<&'v [u8]>,
}

impl<'v> Iterator for List<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        let rest = self.rest?;
        let (element, tail) = rest.split_at(element_end(rest, b',', b','));
        self.rest = tail.get(1..);
        Some(trim(element))
    }
}

/// Position of the first separator outside of quotes, or the length.
fn element_end(value: &[u8], separator: u8, other: u8) -> usize {
    // the usual case has no quotes before the first separator
    match memchr::memchr3(separator, other, b'"', value) {
        None => return value.len(),
        Some(at) if value.get(at) != Some(&b'"') => return at,
        Some(_) => {}
    }
    let (mut quoted, mut escaped) = (false, false);
    for (i, &c) in value.iter().enumerate() {
        match c {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            c if (c == separator || c == other) && !quoted => return i,
            _ => {}
        }
    }
    value.len()
}

impl Head {
    /// Values of one name over all its lines, split at commas, in order.
    pub fn header_values<'h>(&'h self, name: &'h [u8]) -> impl Iterator<Item = &'h [u8]> + Clone {
        self.header_lines(name).flat_map(list)
    }

    /// One of the comma-separated values of a name: `nth` counts from 1 at the start, or from -1 at the end.
    pub fn header_value<'h>(&'h self, name: &'h [u8], nth: i32) -> Option<&'h [u8]> {
        pick(nth, self.header_values(name))
    }

    /// One of the whole lines of a name, counted like [`Head::header_value`].
    pub fn header_line<'h>(&'h self, name: &'h [u8], nth: i32) -> Option<&'h [u8]> {
        pick(nth, self.header_lines(name))
    }

    /// All cookies of the request, in order, over all `Cookie` lines.
    pub fn cookies(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.header_lines(b"cookie").flat_map(cookie_pairs)
    }

    /// Cookies that the response sets: name and value of each `Set-Cookie` line, attributes left out.
    pub fn set_cookies(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.header_lines(b"set-cookie")
            .filter_map(|line| cookie_pairs(line).next())
    }

    /// Appends `base`: `Host` as it is, then the path.
    pub fn write_base(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.host().unwrap_or_default());
        out.extend_from_slice(self.path());
    }

    /// Value of a parameter of the query in the request target, as [`query_param`].
    pub fn url_param(
        &self,
        name: Option<&[u8]>,
        delimiter: u8,
        ignore_case: bool,
    ) -> Option<&[u8]> {
        url_params(self.target(), delimiter)
            .find_map(|(n, value)| name_matches(n, name, ignore_case).then_some(value))
    }
}

fn pick<T>(nth: i32, values: impl Iterator<Item = T> + Clone) -> Option<T> {
    let skip = match usize::try_from(nth) {
        Ok(n) => n.checked_sub(1)?,
        Err(_) => values
            .clone()
            .count()
            .checked_sub(nth.unsigned_abs() as usize)?,
    };
    values.into_iter().nth(skip)
}

/// `name=value` pairs of a `Cookie` value. Pairs are separated by semicolons or commas outside of quotes; blanks around
/// names and values do not belong to them; quotes around a value do. Pieces without `=` are not cookies.
pub fn cookie_pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    let mut rest = Some(line);
    let pieces = std::iter::from_fn(move || {
        let (piece, tail) = rest?.split_at(element_end(rest?, b';', b','));
        rest = tail.get(1..);
        Some(piece)
    });
    pieces.filter_map(|piece| {
        let eq = memchr::memchr(b'=', piece)?;
        let (name, value) = piece.split_at(eq);
        Some((trim(name), trim(value.get(1..)?)))
    })
}

/// Parameters after the first `delimiter` in a request target: `name=value`, separated by `&`, `;` or the delimiter,
/// undecoded. Pieces without `=` are no parameters.
pub fn url_params(target: &[u8], delimiter: u8) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    let query = memchr::memchr(delimiter, target)
        .and_then(|at| target.get(at + 1..))
        .unwrap_or_default();
    params(query, delimiter)
}

/// The same for text that is all query (`a=1&b=2`), such as a form body.
pub fn query_params(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    params(query, b'&')
}

fn params(query: &[u8], delimiter: u8) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    query
        .split(move |&c| c == b'&' || c == b';' || c == delimiter)
        .filter_map(|piece| {
            let eq = memchr::memchr(b'=', piece)?;
            let (name, value) = piece.split_at(eq);
            Some((name, value.get(1..)?))
        })
}

/// First value of a parameter in a query; `name` `None` means the first parameter of any name.
pub fn query_param<'q>(
    query: &'q [u8],
    name: Option<&[u8]>,
    ignore_case: bool,
) -> Option<&'q [u8]> {
    query_params(query).find_map(|(n, value)| name_matches(n, name, ignore_case).then_some(value))
}

fn name_matches(name: &[u8], wanted: Option<&[u8]>, ignore_case: bool) -> bool {
    wanted.is_none_or(|w| {
        if ignore_case {
            name.eq_ignore_ascii_case(w)
        } else {
            name == w
        }
    })
}

/// Without blanks (SP, HTAB) around it.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

pub(crate) fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', tail @ ..] = text {
        text = tail;
    }
    text
}

pub(crate) fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [front @ .., b' ' | b'\t'] = text {
        text = front;
    }
    text
}
