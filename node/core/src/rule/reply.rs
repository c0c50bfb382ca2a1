//! Local answers as bytes: replies, redirects and error pages. (reference: config-dialect 6.8)

use std::sync::Arc;

use super::action::{Redirect, RedirectKind, Reply, ReplyBody};
use super::cx::{Cx, Msgs};
use crate::world::{ProxyId, World};

impl Reply {
    /// Appends the whole HTTP/1.1 message. Error pages are the backend's if one is chosen, else the current proxy's
    /// (`cx.proxy`), else the frontend's, else built in. `head_only`: the answer to a `HEAD`. `close`: say so.
    pub fn render(
        &self,
        cx: &Cx<'_>,
        msgs: &Msgs<'_>,
        head_only: bool,
        close: bool,
        out: &mut Vec<u8>,
    ) {
        let mut rendered = Vec::new();
        let body: &[u8] = match &self.body {
            ReplyBody::Empty => &[],
            ReplyBody::ErrorPage => {
                let backend = cx.stream.and_then(|s| s.backend.get());
                let owners = [backend, Some(cx.proxy), Some(cx.conn.frontend)];
                page(cx.world, &owners, self.status, head_only, close, out);
                return;
            }
            ReplyBody::Raw(message) => {
                raw(message, self.status, head_only, close, out);
                return;
            }
            ReplyBody::Bytes(bytes) => bytes,
            ReplyBody::Format(format) => {
                format.render(cx, msgs, &mut rendered);
                &rendered
            }
        };
        start_line(self.status, out);
        for (name, value) in &self.headers {
            let line = out.len();
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            let start = out.len();
            value.render(cx, msgs, out);
            // As HAProxy: what gives nothing is left out.
            if out.len() == start {
                out.truncate(line);
                continue;
            }
            // Literal text of the configuration is the one part that is not encoded: it must not end the line either.
            for b in out.iter_mut().skip(start) {
                if matches!(b, b'\r' | b'\n' | 0) {
                    *b = b' ';
                }
            }
            out.extend_from_slice(b"\r\n");
        }
        // 204 and 304 have no body, and 204 may not even announce one (RFC 9110 8.6).
        let bodiless = matches!(self.status, 204 | 304) || self.status < 200;
        if !bodiless {
            length(body.len(), out);
            if let Some(kind) = self.content_type.as_deref().filter(|_| !body.is_empty()) {
                header(b"content-type", kind, out);
            }
        }
        end_head(close, out);
        if !head_only && !bodiless {
            out.extend_from_slice(body);
        }
    }
}

/// Appends the proxy's page for a status (errorfile or built in), for errors the data plane makes itself (400, 408, 503 …).
pub fn render_error_page(
    world: &World,
    proxy: ProxyId,
    status: u16,
    head_only: bool,
    close: bool,
    out: &mut Vec<u8>,
) {
    page(world, &[Some(proxy)], status, head_only, close, out);
}

/// The same once a request has a backend: its page if it has one, else the frontend's, else built in.
pub fn render_error_page_of(
    world: &World,
    backend: Option<ProxyId>,
    frontend: ProxyId,
    status: u16,
    head_only: bool,
    close: bool,
    out: &mut Vec<u8>,
) {
    let owners = [backend, Some(frontend)];
    page(world, &owners, status, head_only, close, out);
}

fn page(
    world: &World,
    owners: &[Option<ProxyId>],
    status: u16,
    head_only: bool,
    close: bool,
    out: &mut Vec<u8>,
) {
    let file: Option<&Arc<[u8]>> = owners
        .iter()
        .flatten()
        .find_map(|id| world.proxy(*id)?.error_pages.get(status));
    match file {
        Some(file) => raw(file, status, head_only, close, out),
        None => built_in(status, head_only, close, out),
    }
}

impl Redirect {
    /// Appends the whole message; `false`: nothing to send (`ignore-empty`), go on with the next rule. (Rule sets check
    /// that themselves: a verdict to redirect always renders.)
    pub fn render(
        &self,
        cx: &Cx<'_>,
        msgs: &Msgs<'_>,
        _head_only: bool, // a redirect has no body
        close: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut target = Vec::new();
        self.target.render(cx, msgs, &mut target);
        if self.ignore_empty && target.is_empty() {
            return false;
        }
        start_line(self.code, out);
        length(0, out);
        header(b"location", &self.location(target, msgs), out);
        if matches!(self.code, 302 | 303 | 307) {
            header(b"cache-control", b"no-cache", out);
        }
        if let Some(cookie) = &self.set_cookie {
            header(b"set-cookie", cookie, out);
        }
        end_head(close, out);
        true
    }

    fn location(&self, target: Vec<u8>, msgs: &Msgs<'_>) -> Vec<u8> {
        let req = msgs.req.as_deref();
        let mut location = match self.kind {
            RedirectKind::Location => return one_line(target),
            // A prefix of "/" would double the slash the path begins with.
            RedirectKind::Prefix if target == b"/" => Vec::new(),
            RedirectKind::Prefix => target,
            RedirectKind::Scheme => {
                let mut location = target;
                location.extend_from_slice(b"://");
                let host = req.and_then(|r| r.host()).unwrap_or_default();
                location.extend_from_slice(host);
                location
            }
        };
        let path = req.map_or(&b""[..], |r| r.path());
        if self.drop_query {
            location.extend_from_slice(path);
            if self.append_slash && !path.ends_with(b"/") {
                location.push(b'/');
            }
        } else {
            location.extend_from_slice(req.map_or(&b""[..], |r| r.path_and_query()));
        }
        one_line(location)
    }
}

/// What would end a header line becomes a space; formats encode it already, literal text may hold it.
fn one_line(mut text: Vec<u8>) -> Vec<u8> {
    for b in &mut text {
        if matches!(b, b'\r' | b'\n' | 0) {
            *b = b' ';
        }
    }
    text
}

/// An errorfile: a whole message as the operator wrote it. Its head is kept but for what frames the message, which must
/// be true on this connection; bare LF lines become CR LF.
fn raw(message: &[u8], status: u16, head_only: bool, close: bool, out: &mut Vec<u8>) {
    let (head, body) = split_message(message);
    let mut lines = head
        .split(|b| *b == b'\n')
        .map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    match lines.next().and_then(|line| line.strip_prefix(b"HTTP/1.")) {
        // whatever 1.x it says, the message is framed as 1.1
        Some(rest) if rest.len() > 2 => {
            out.extend_from_slice(b"HTTP/1.1");
            out.extend_from_slice(rest.get(1..).unwrap_or_default());
            out.extend_from_slice(b"\r\n");
        }
        _ => {
            built_in(status, head_only, close, out);
            return;
        }
    }
    for line in lines.filter(|l| !l.is_empty()) {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        let framing = [
            &b"content-length"[..],
            b"transfer-encoding",
            b"connection",
            b"keep-alive",
            b"proxy-connection",
        ];
        if !framing.iter().any(|f| name.eq_ignore_ascii_case(f)) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    length(body.len(), out);
    end_head(close, out);
    if !head_only {
        out.extend_from_slice(body);
    }
}

/// At the first empty line.
fn split_message(message: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(lf) = memchr::memchr(b'\n', message.get(at..).unwrap_or_default()) {
        let next = at + lf + 1;
        let rest = message.get(next..).unwrap_or_default();
        for empty in [&b"\r\n"[..], b"\n"] {
            if let Some(body) = rest.strip_prefix(empty) {
                return (message.get(..next).unwrap_or_default(), body);
            }
        }
        at = next;
    }
    (message, &[])
}

fn built_in(status: u16, head_only: bool, close: bool, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(160);
    body.extend_from_slice(b"<!doctype html>\n<html><head><title>");
    title(status, &mut body);
    body.extend_from_slice(b"</title></head>\n<body><h1>");
    title(status, &mut body);
    body.extend_from_slice(b"</h1>\n<p>");
    body.extend_from_slice(explanation(status).as_bytes());
    body.extend_from_slice(b"</p></body></html>\n");
    start_line(status, out);
    length(body.len(), out);
    header(b"cache-control", b"no-cache", out);
    header(b"content-type", b"text/html", out);
    end_head(close, out);
    if !head_only {
        out.extend_from_slice(&body);
    }
}

fn title(status: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
}

fn start_line(status: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    title(status, out);
    out.extend_from_slice(b"\r\n");
}

fn header(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length(bytes: usize, out: &mut Vec<u8>) {
    header(
        b"content-length",
        itoa::Buffer::new().format(bytes).as_bytes(),
        out,
    );
}

fn end_head(close: bool, out: &mut Vec<u8>) {
    if close {
        header(b"connection", b"close", out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Statuses that have a page when a rule names only the status.
pub const PAGE_STATUSES: &[u16] = &[
    200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 414, 421, 422, 425, 429, 431, 500, 501, 502,
    503, 504,
];

/// Reason phrase of a status; of its class if it has none.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => match status / 100 {
            1 => "Informational",
            2 => "Success",
            3 => "Redirection",
            4 => "Client Error",
            _ => "Server Error",
        },
    }
}

fn explanation(status: u16) -> &'static str {
    match status {
        200 => "All is well.",
        400 => "This request could not be understood.",
        401 => "This needs a user name and a password.",
        403 => "A rule of this site forbids this request.",
        404 => "There is nothing here.",
        405 => "This method is not allowed here.",
        407 => "The proxy needs a user name and a password.",
        408 => "The request did not arrive in time.",
        410 => "What was here is gone for good.",
        413 => "The request is too large.",
        414 => "The address of the request is too long.",
        421 => "This host is not served here.",
        422 => "The request was understood but cannot be processed.",
        425 => "The request came too early and may be a replay.",
        429 => "Too many requests came from here. Please slow down.",
        431 => "The headers of the request are too large.",
        500 => "Something went wrong inside the proxy.",
        501 => "The proxy cannot do what the request asks for.",
        502 => "The server gave no valid answer.",
        503 => "No server is available for this request.",
        504 => "The server did not answer in time.",
        505 => "This version of HTTP is not supported.",
        _ => "The request could not be served.",
    }
}
