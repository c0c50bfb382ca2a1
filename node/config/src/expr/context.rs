//! Where an expression stands: which fetches can work there, and how messages call the place.

use remora_core::rule::registry::{FetchInfo, Needs};

use crate::scope::{Scope, Where};

/// What an expression is used as; messages about unresolved names say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A rule's own expression or format.
    Plain,
    /// The key of `track-sc`.
    Track,
    /// The criterion of an ACL.
    Acl,
    /// The target of a `redirect`.
    Redirect,
}

/// A place in the configuration, as far as expressions care.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// The rule set.
    pub(crate) at: Where,
    /// The role.
    pub(crate) role: Use,
}

impl Site {
    /// A rule's own expression.
    pub(crate) fn expr(at: Where) -> Site {
        Site {
            at,
            role: Use::Plain,
        }
    }
    /// The same place in another role.
    pub(crate) fn with(self, role: Use) -> Site {
        Site { role, ..self }
    }
    /// Whether a response is being processed, and with it no request headers any more.
    pub(crate) fn is_response(self) -> bool {
        matches!(
            self.at,
            Where::TcpResponse | Where::HttpResponse | Where::HttpAfterResponse
        )
    }
    /// `sample fetch keyword 'NAME' in http-request expression` and its like, for names that do not resolve.
    pub(crate) fn keyword(self, name: &str) -> String {
        let place = match (self.role, self.at) {
            (Use::Acl, _) => return format!("ACL keyword '{name}'"),
            (Use::Track, _) => " in tracking rule",
            (Use::Redirect, _) => " in redirect format string",
            (_, Where::TcpConnection) => " in tcp-request connection expression",
            (_, Where::TcpSession) => " in tcp-request session expression",
            (_, Where::TcpContent) => " in tcp-request content expression",
            (_, Where::TcpResponse) => " in tcp-response content expression",
            (_, Where::HttpRequest) => " in http-request expression",
            (_, Where::HttpResponse) => " in http-response expression",
            (_, Where::HttpAfterResponse) => " in http-after-response expression",
            (_, Where::UseBackend) => " in use_backend expression",
            (_, Where::Log) => " in log-format string",
            (_, Where::Config | Where::Anywhere) => "",
        };
        format!("sample fetch keyword '{name}'{place}")
    }
    /// What the rule set is called in warnings: `frontend http-request header rule`.
    pub(crate) fn rule_kind(self, scope: &Scope<'_>) -> String {
        let side = match scope.current() {
            Some(p) if !p.is_frontend => "backend",
            _ => "frontend",
        };
        let kind = match self.at {
            Where::TcpConnection => "tcp-request connection rule",
            Where::TcpSession => "tcp-request session rule",
            Where::TcpContent => "tcp-request content rule",
            Where::TcpResponse => "tcp-response content rule",
            Where::HttpRequest => "http-request header rule",
            Where::UseBackend => "use-backend rule",
            Where::HttpResponse | Where::HttpAfterResponse => "http-response header rule",
            Where::Log => return "logs".to_owned(),
            Where::Config | Where::Anywhere => return "configuration parser".to_owned(),
        };
        format!("{side} {kind}")
    }
}

/// What a fetch takes its information from, if that is not available at a place. The reference's list of places goes
/// beyond what must exist technically: backend and server are known late.
pub(super) fn missing(info: &FetchInfo, site: Site, scope: &Scope<'_>) -> Option<&'static str> {
    let name = info.name;
    if site.at == Where::Anywhere {
        return None;
    }
    let late = site.is_response() || site.at == Where::Log;
    let in_backend = scope.current().is_some_and(|p| p.is_backend);
    match name {
        "be_id" | "be_name" if !late && !in_backend => return Some("backend"),
        // The method outlives the request's headers; the other is let through by HAProxy too, and never matches.
        "method" | "req.proto_http" | "req_proto_http" if late => return None,
        "srv_id" | "srv_name" if !late => return Some("server"),
        _ => {}
    }
    let missing = info.needs.0 & !site.at.available().0;
    (missing != 0).then(|| source_name(name, Needs(missing)))
}

/// What a fetch takes its information from, as messages call it.
fn source_name(fetch: &str, missing: Needs) -> &'static str {
    let has = |n: Needs| missing.0 & n.0 != 0;
    if has(Needs::REQ_HEAD) {
        // The request line outlives the headers in the reference, which therefore tells them apart.
        match fetch {
            "method" | "http_first_req" | "req.ver" | "req_ver" => "HTTP request",
            "hdr" | "hdr_cnt" | "hdr_ip" | "hdr_val" => {
                "HTTP request headers,HTTP response headers"
            }
            _ => "HTTP request headers",
        }
    } else if has(Needs::RES_HEAD) {
        match fetch {
            "status" | "res.ver" | "resp_ver" => "HTTP response",
            _ => "HTTP response headers",
        }
    } else if has(Needs::REQ_CONTENT) {
        "request buffer"
    } else if has(Needs::RES_CONTENT) {
        "response buffer"
    } else if has(Needs::STREAM) {
        if fetch.starts_with("be_") {
            "backend"
        } else if fetch.starts_with("srv_") {
            "server"
        } else {
            "internal state,stream"
        }
    } else {
        "client-side connection"
    }
}
