//! From what was received to what is sent on: hop-by-hop headers go, the connection's own are written anew, framing is
//! restated. (RFC 9110 section 7.6.1)
//!
//! Headers that rules added are the proxy's own words: a client cannot take them away by listing their names in its
//! `Connection` header, and a `Connection: close` that a rule adds closes.

use super::framing::RequestFacts;
use super::head::{BadHeader, Field, Head};
use super::names::{HeaderId, is_end_to_end};
use super::values::list;
use super::{Framing, Version};

/// How a request shall be sent.
#[derive(Clone, Copy, Debug)]
pub struct RequestForward {
    /// The server connection is meant to be used again (no `option httpclose` or `http-server-close`).
    pub keep_alive: bool,
}

/// What was decided while preparing a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSent {
    /// The server was told to close after its response.
    pub close: bool,
}

/// How a response shall be sent.
#[derive(Clone, Copy, Debug)]
pub struct ResponseForward {
    /// The request it answers.
    pub request: RequestFacts,
    /// From [`Head::response_framing`].
    pub framing: Framing,
    /// The proxy is willing to keep the client connection: not draining, no `option httpclose`, request body read to
    /// its end. The client's own wish is in `request`.
    pub keep_alive: bool,
}

/// What was decided while preparing a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSent {
    /// The client connection ends after this response, and the client was told so.
    pub close: bool,
    /// The body arrives chunked but is sent plain, ended by the close: use [`super::Body::decode`].
    pub dechunk: bool,
}

impl Head {
    /// Makes a parsed request ready to be sent to a server. Call once, after all rules: from
    /// then on edits cannot touch `Connection`, `Content-Length` and `Transfer-Encoding`. Fails only when a head grows
    /// past any sane size.
    ///
    /// The version stays the client's: a 1.0 client's server must not answer with what 1.0 lacks.
    pub fn prepare_request_for_server(
        &mut self,
        how: &RequestForward,
    ) -> Result<RequestSent, BadHeader> {
        let upgrade = self.wants_upgrade();
        let framing = self.request_framing();
        let close = !(how.keep_alive || upgrade) || self.own_close();
        let te_trailers = self.version == Version::Http11 && self.te_has_trailers();
        self.drop_listed();
        let upgrade_line = if upgrade { 0 } else { HeaderId::Upgrade.bit() };
        let expect_line = if self.version == Version::Http11 {
            0
        } else {
            HeaderId::Expect.bit()
        };
        self.remove_ids(HOP_BY_HOP | upgrade_line | expect_line);
        self.restate_framing(framing)?;
        if self.authority.len > 0
            && self.host().is_none()
            && self.facts.method != super::MethodKind::Connect
        {
            let authority = self.authority().unwrap_or_default().to_vec();
            self.push_own(HeaderId::Host, b"Host", &authority)?;
        }
        if te_trailers {
            self.push_own(HeaderId::Te, b"TE", b"trailers")?;
        }
        let token: &[u8] = match (upgrade, close, te_trailers, self.version) {
            (true, ..) => b"upgrade",
            (_, true, false, Version::Http11) => b"close",
            (_, true, true, _) => b"close, TE",
            (_, false, true, Version::Http11) => b"TE",
            (_, false, _, Version::Http10) => b"keep-alive",
            (_, true, false, Version::Http10) => b"close",
            (_, false, false, Version::Http11) => b"",
        };
        if !token.is_empty() {
            self.push_own(HeaderId::Connection, b"connection", token)?;
        }
        self.sealed = true;
        Ok(RequestSent { close })
    }

    /// Makes a parsed response ready to be sent to a client. Call once per response, interim ones included (these must
    /// not be sent to HTTP/1.0 clients at all), after all rules.
    pub fn prepare_response_for_client(
        &mut self,
        how: &ResponseForward,
    ) -> Result<ResponseSent, BadHeader> {
        let interim = self.is_interim();
        let tunnel = how.framing == Framing::Tunnel;
        let switching = self.status == 101;
        let old_client = how.request.version == Version::Http10;
        let dechunk = old_client && how.framing == Framing::Chunked;
        let close = !interim
            && !tunnel
            && (!how.keep_alive
                || !how.request.keep_alive
                || how.framing == Framing::UntilClose
                || dechunk
                || self.own_close());
        // Lengths of bodies that are not there: meaningful for HEAD and 304 only.
        let bodiless = interim || tunnel || self.status == 204;
        let announce_protocols = switching || self.status == 426;
        self.drop_listed();
        let mut gone = HOP_BY_HOP;
        if !announce_protocols {
            gone |= HeaderId::Upgrade.bit();
        }
        if dechunk {
            gone |= HeaderId::Trailer.bit();
        }
        if bodiless {
            gone |= HeaderId::ContentLength.bit();
        }
        if bodiless || old_client {
            gone |= HeaderId::TransferEncoding.bit();
        }
        self.remove_ids(gone);
        if !dechunk {
            self.restate_framing(how.framing)?;
        }
        let announced = announce_protocols && self.first_of(HeaderId::Upgrade).is_some();
        let token: &[u8] = match (close, announced) {
            (true, true) => b"close, upgrade",
            (true, false) => b"close",
            (false, true) => b"upgrade",
            (false, false) if old_client && !interim && !tunnel => b"keep-alive",
            (false, false) => b"",
        };
        if !token.is_empty() {
            self.push_own(HeaderId::Connection, b"connection", token)?;
        }
        self.sealed = true;
        Ok(ResponseSent { close, dechunk })
    }

    /// A rule added `Connection: close`.
    fn own_close(&self) -> bool {
        self.own_connection
            && self
                .fields
                .iter()
                .filter(|f| f.id == HeaderId::Connection && f.has(Field::OWN))
                .any(|f| list(f.value(&self.bytes)).any(|t| t.eq_ignore_ascii_case(b"close")))
    }

    fn te_has_trailers(&self) -> bool {
        self.first_of(HeaderId::Te).is_some()
            && self
                .header_values(b"te")
                .any(|v| v.eq_ignore_ascii_case(b"trailers"))
    }

    /// Removes the received headers that the received `Connection` header lists, except those it has no right to and
    /// the well-known ones, which the callers deal with one by one.
    fn drop_listed(&mut self) {
        if !self.facts.other_tokens {
            return;
        }
        // By index, because lines are removed while the list is read; the Connection lines themselves stay until later.
        let mut line = 0;
        while let Some(connection) = self.fields.get(line).copied() {
            line += 1;
            if connection.id != HeaderId::Connection || connection.has(Field::OWN) {
                continue;
            }
            let bytes = &self.bytes;
            let fields = &mut self.fields;
            for token in list(connection.value(bytes)) {
                if HeaderId::of(token) != HeaderId::Other || is_end_to_end(token) {
                    continue;
                }
                let mut at = 0;
                while let Some(field) = fields.get(at) {
                    let listed = usize::from(field.name_len) == token.len()
                        && field.id == HeaderId::Other
                        && !field.has(Field::OWN)
                        && field.name(bytes).eq_ignore_ascii_case(token);
                    if listed {
                        fields.remove(at);
                        line -= usize::from(at < line);
                    } else {
                        at += 1;
                    }
                }
            }
        }
    }

    /// Removes the lines of a set of well-known headers.
    fn remove_ids(&mut self, ids: u32) {
        if self.present & ids != 0 {
            self.fields.retain(|f| f.id.bit() & ids == 0);
            self.present &= !ids;
        }
    }

    /// Sees to it that the head says how its body is delimited, whatever edits removed.
    fn restate_framing(&mut self, framing: Framing) -> Result<(), BadHeader> {
        match framing {
            Framing::Chunked
                if self.first_of(HeaderId::TransferEncoding) != Some(&b"chunked"[..]) =>
            {
                self.remove_ids(HeaderId::TransferEncoding.bit());
                self.push_own(HeaderId::TransferEncoding, b"Transfer-Encoding", b"chunked")?;
            }
            Framing::Sized(n) if self.first_of(HeaderId::ContentLength).is_none() => {
                self.push_own(
                    HeaderId::ContentLength,
                    b"Content-Length",
                    itoa::Buffer::new().format(n).as_bytes(),
                )?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Headers of one connection, never passed on as they are.
const HOP_BY_HOP: u32 = HeaderId::Connection.bit()
    | HeaderId::KeepAlive.bit()
    | HeaderId::ProxyConnection.bit()
    | HeaderId::Te.bit()
    | HeaderId::Http2Settings.bit();
