//! Fetches on raw content, before or without a parsed message.

use std::borrow::Cow;

use crate::rule::cx::Content;
use crate::rule::expr::Outcome;
use crate::rule::sample::Sample;

/// `req.payload(offset,len)`; `len` 0 = all from the offset on.
pub(super) fn payload<'a>(content: &Content<'a>, offset: u32, len: u32) -> Outcome<'a> {
    let (offset, len) = (offset as usize, len as usize);
    let end = if len == 0 {
        content.bytes.len().max(offset)
    } else {
        offset.saturating_add(len)
    };
    match content.bytes.get(offset..end) {
        Some(bytes) => Outcome::Value(Sample::Bin(Cow::Borrowed(bytes))),
        None if content.is_final => Outcome::Missing,
        None => Outcome::NotYet,
    }
}
