//! How messages are delimited and whether their connection persists: facts gathered while parsing, and what follows
//! from them. (RFC 9112 sections 6 and 9)

use super::error::{ErrorKind, ParseError};
use super::head::Head;
use super::names::{HeaderId, folded};
use super::values::list;
use super::{Framing, Version};

/// Methods that the proxy treats in special ways or that rules name often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // each is the method it is named after
pub enum MethodKind {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other token, `get` included: methods are case-sensitive.
    #[default]
    Other,
}

impl MethodKind {
    /// The kind of a method as written.
    pub fn of(method: &[u8]) -> MethodKind {
        match method {
            b"GET" => MethodKind::Get,
            b"HEAD" => MethodKind::Head,
            b"POST" => MethodKind::Post,
            b"PUT" => MethodKind::Put,
            b"DELETE" => MethodKind::Delete,
            b"CONNECT" => MethodKind::Connect,
            b"OPTIONS" => MethodKind::Options,
            b"TRACE" => MethodKind::Trace,
            b"PATCH" => MethodKind::Patch,
            _ => MethodKind::Other,
        }
    }

    /// Sending the request twice has the effect of sending it once, so it may be retried on another connection.
    /// (RFC 9110 section 9.2.2)
    pub fn is_idempotent(self) -> bool {
        !matches!(
            self,
            MethodKind::Post | MethodKind::Patch | MethodKind::Connect | MethodKind::Other
        )
    }
}

/// What a head says about framing and connection, as received: edits do not change it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) method: MethodKind,
    pub(crate) content_length: Option<u64>,
    pub(crate) is_chunked: bool,
    pub(crate) has_host: bool,
    /// `Connection: close`.
    pub(crate) close: bool,
    /// `Connection: keep-alive`.
    pub(crate) keep_alive: bool,
    /// `Connection: upgrade`.
    pub(crate) upgrade_token: bool,
    /// `Connection` lists something else than close, keep-alive, upgrade and te.
    pub(crate) other_tokens: bool,
    /// Elements of `Connection`, all lines together.
    pub(crate) connection_options: u16,
    /// `Upgrade` names a protocol other than h2c.
    pub(crate) upgrade_protocol: bool,
    pub(crate) expect_continue: bool,
}

/// What the response side must remember of a request: enough to delimit its response and to answer its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// Its method.
    pub method: MethodKind,
    /// Its version.
    pub version: Version,
    /// Its client would like to keep the connection.
    pub keep_alive: bool,
    /// It asks to switch protocols, so that 101 is a possible answer.
    pub upgrade: bool,
}

impl Head {
    /// How the body of this request is delimited.
    pub fn request_framing(&self) -> Framing {
        if self.facts.is_chunked {
            Framing::Chunked
        } else {
            self.facts
                .content_length
                .map_or(Framing::None, Framing::Sized)
        }
    }

    /// How the body of this response to that request is delimited. Fails on a 101 that was not asked for.
    pub fn response_framing(&self, request: &RequestFacts) -> Result<Framing, ParseError> {
        Ok(match self.status {
            101 if request.upgrade => Framing::Tunnel,
            101 => {
                return Err(ParseError {
                    kind: ErrorKind::UnexpectedSwitch,
                    offset: 0,
                    from_server: true,
                });
            }
            200..=299 if request.method == MethodKind::Connect => Framing::Tunnel,
            100..=199 | 204 | 304 => Framing::None,
            _ if request.method == MethodKind::Head => Framing::None,
            _ if self.facts.is_chunked => Framing::Chunked,
            _ => self
                .facts
                .content_length
                .map_or(Framing::UntilClose, Framing::Sized),
        })
    }

    /// An interim response: another one follows for the same request. (1xx but 101)
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// What the response side must remember of this request.
    pub fn request_facts(&self) -> RequestFacts {
        RequestFacts {
            method: self.facts.method,
            version: self.version,
            keep_alive: self.keep_alive(),
            upgrade: self.wants_upgrade(),
        }
    }

    /// The method as received.
    pub fn method_kind(&self) -> MethodKind {
        self.facts.method
    }

    /// The sender of this head is willing to use the connection for another exchange: HTTP/1.1 without
    /// `Connection: close`, or HTTP/1.0 with `Connection: keep-alive`. `Proxy-Connection` does not count.
    pub fn keep_alive(&self) -> bool {
        !self.facts.close && (self.version == Version::Http11 || self.facts.keep_alive)
    }

    /// The client waits for `100 Continue` before it sends the body (and no rule took its `Expect` away).
    pub fn expects_continue(&self) -> bool {
        self.facts.expect_continue
            && self.first_of(HeaderId::Expect).is_some()
            && self.version == Version::Http11
            && !matches!(self.request_framing(), Framing::None | Framing::Sized(0))
    }

    /// The request asks to switch protocols and the proxy is ready to follow: HTTP/1.1, `Connection: upgrade`, a
    /// protocol other than `h2c` (a way around the proxy's rules), no body (whose end would have to be awaited first), `Upgrade` not taken away by a rule.
    /// Otherwise `Upgrade` is not forwarded, which makes the server answer in plain HTTP.
    pub fn wants_upgrade(&self) -> bool {
        self.facts.upgrade_token
            && self.facts.upgrade_protocol
            && self.first_of(HeaderId::Upgrade).is_some()
            && self.version == Version::Http11
            && self.facts.method != MethodKind::Connect
            && matches!(self.request_framing(), Framing::None | Framing::Sized(0))
    }

    /// Judges a request whose lines are all there. Offsets count from the head's start.
    pub(crate) fn judge_request(&mut self) -> Result<(), (ErrorKind, usize)> {
        self.judge_length()?;
        if self.facts.method == MethodKind::Connect
            && !matches!(self.request_framing(), Framing::None | Framing::Sized(0))
        {
            return Err((ErrorKind::ConnectBody, 0));
        }
        if !self.facts.has_host && self.version == Version::Http11 {
            return Err((ErrorKind::HostMissing, 0));
        }
        let target_at = self.target.off as usize;
        self.judge_target().map_err(|kind| (kind, target_at))
    }

    /// The same for a response.
    pub(crate) fn judge_response(&mut self) -> Result<(), (ErrorKind, usize)> {
        self.judge_length()
    }

    fn judge_length(&self) -> Result<(), (ErrorKind, usize)> {
        if !self.facts.is_chunked {
            return Ok(());
        }
        let fault = if self.facts.content_length.is_some() {
            ErrorKind::LengthAndEncoding
        } else if self.version == Version::Http10 {
            ErrorKind::EncodingIn10
        } else {
            return Ok(());
        };
        let at = self
            .fields
            .iter()
            .find(|f| f.id == HeaderId::TransferEncoding)
            .map_or(0, |f| f.name_off as usize);
        Err((fault, at))
    }
}

/// Takes note of a well-known header while it is parsed.
pub(crate) fn note(facts: &mut Facts, id: HeaderId, value: &[u8]) -> Result<(), ErrorKind> {
    match id {
        HeaderId::Host => {
            if facts.has_host {
                return Err(ErrorKind::HostRepeated);
            }
            if !super::target::is_host(value) {
                return Err(ErrorKind::HostInvalid);
            }
            facts.has_host = true;
        }
        HeaderId::ContentLength => {
            if facts.content_length.is_some() {
                return Err(ErrorKind::ContentLengthRepeated);
            }
            facts.content_length = Some(length(value).ok_or(ErrorKind::ContentLength)?);
        }
        HeaderId::TransferEncoding => {
            if facts.is_chunked {
                return Err(ErrorKind::TransferEncoding);
            }
            encoding(value)?;
            facts.is_chunked = true;
        }
        HeaderId::Connection => match value.len() {
            // by far the most frequent ones need no splitting
            10 if folded(value) == folded(b"keep-alive") => facts.keep_alive = true,
            5 if folded(value) == folded(b"close") => facts.close = true,
            _ => return connection_options(facts, value),
        },
        HeaderId::Upgrade => {
            facts.upgrade_protocol |=
                list(value).any(|p| !p.is_empty() && !p.eq_ignore_ascii_case(b"h2c"));
        }
        HeaderId::Expect => facts.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
        _ => {}
    }
    Ok(())
}

/// A `Connection` value with several options, or a rare one.
fn connection_options(facts: &mut Facts, value: &[u8]) -> Result<(), ErrorKind> {
    for token in list(value) {
        match token.len() {
            0 => {}
            2 if token.eq_ignore_ascii_case(b"te") => {}
            5 if token.eq_ignore_ascii_case(b"close") => facts.close = true,
            7 if token.eq_ignore_ascii_case(b"upgrade") => facts.upgrade_token = true,
            10 if token.eq_ignore_ascii_case(b"keep-alive") => facts.keep_alive = true,
            _ => facts.other_tokens = true,
        }
        facts.connection_options += 1;
        if facts.connection_options > CONNECTION_OPTIONS_MAX {
            return Err(ErrorKind::ConnectionOptions);
        }
    }
    Ok(())
}

/// `Content-Length`: digits, at most 2^63-1, so that sums of lengths cannot overflow.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let n = value.iter().try_fold(0u64, |n, d| {
        d.is_ascii_digit().then(|| n * 10 + u64::from(d - b'0'))
    })?;
    (n <= i64::MAX as u64).then_some(n)
}

/// `Transfer-Encoding` must be `chunked` and nothing else: other codings would have to be decoded to be forwarded.
fn encoding(value: &[u8]) -> Result<(), ErrorKind> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|&c| c == b',').map(<[u8]>::trim_ascii);
    let ends_chunked = codings
        .next_back()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    if ends_chunked && codings.clone().next().is_some() && codings.all(is_known_coding) {
        return Err(ErrorKind::TransferCoding);
    }
    Err(ErrorKind::TransferEncoding)
}

fn is_known_coding(coding: &[u8]) -> bool {
    const KNOWN: &[&[u8]] = &[
        b"gzip",
        b"x-gzip",
        b"deflate",
        b"compress",
        b"x-compress",
        b"br",
        b"zstd",
    ];
    KNOWN.iter().any(|known| coding.eq_ignore_ascii_case(known))
}

/// Elements of `Connection` that are looked at: each costs a walk over the header lines.
const CONNECTION_OPTIONS_MAX: u16 = 64;
