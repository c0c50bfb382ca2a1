//! HTTP/1.1 without I/O: strict heads, body framing, serializer. (RFC 9110, RFC 9112)
//!
//! The shell reads bytes and asks [`Head::parse_request`] or [`Head::parse_response`] whether a head is complete; the
//! head keeps a copy of its bytes, so the socket buffer is free for the body. Rules read and edit the head.
//! [`Head::prepare_request_for_server`] and [`Head::prepare_response_for_client`] turn what was received into what is
//! sent on the other side; [`Head::write`] serializes it. [`Body`] follows the body's framing over arbitrary pieces.
//!
//! Whatever two implementations could read in two ways is refused, never repaired: how a message is delimited is
//! decided once, while parsing, and no later edit of the head can change it.
//!
//! Stricter than HAProxy 2.6 with its default options, which accepts these: repeated `Content-Length` and `Host` with
//! equal values, `Content-Length` beside `Transfer-Encoding`, `Transfer-Encoding` in HTTP/1.0, folded lines, bare line
//! feeds, control characters in values, HTTP/1.1 without `Host`, `*` with methods other than `OPTIONS`, and other
//! versions than 1.0 and 1.1. Kinder than it: HTTP/1.0 clients get chunked responses without the chunks. Different:
//! hop-by-hop headers, those listed in `Connection` included, are not forwarded (RFC 9110 section 7.6.1); absolute-form
//! targets are sent to servers in origin form; responses always say HTTP/1.1; names keep their case.

mod body;
mod error;
mod forward;
mod framing;
mod head;
mod names;
mod parse;
mod serialize;
mod target;
pub mod values;

pub use body::{Body, Piece};
pub use error::{ErrorKind, ParseError};
pub use forward::{RequestForward, RequestSent, ResponseForward, ResponseSent};
pub use framing::{MethodKind, RequestFacts};
pub use head::{BadHeader, Head, Span};
pub use names::{HeaderId, is_token, is_token_char};

/// Limits for heads.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Greatest head in bytes (`tune.bufsize - tune.maxrewrite`), empty lines before it included.
    pub head_bytes_max: usize,
    /// Greatest number of header lines (`tune.http.maxhdr`).
    pub headers_max: usize,
}

impl Default for Limits {
    /// What HAProxy's default `tune.bufsize`, `tune.maxrewrite` and `tune.http.maxhdr` give.
    fn default() -> Self {
        Limits {
            head_bytes_max: 16384 - 1024,
            headers_max: 101,
        }
    }
}

/// HTTP version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// Exactly so many bytes.
    Sized(u64),
    /// Chunked.
    Chunked,
    /// Until the connection closes (responses only).
    UntilClose,
    /// No more HTTP on this connection (101, CONNECT 2xx).
    Tunnel,
}
