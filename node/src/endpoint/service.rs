//! What the admin endpoint answers.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::pulse::Pulse;
use crate::metrics::text::Format;
use crate::metrics::{self, Query};
use crate::proxy::clock;
use crate::shared::Shared;

/// Answers requests of all `admin bind`s.
pub(super) struct Service {
    shared: Arc<Shared>,
    pulse: Pulse,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>) -> Service {
        Service {
            shared,
            pulse: Pulse::default(),
        }
    }

    /// One answer. Bodies of requests are not read. `handed_over`: another process serves this socket now.
    pub(super) fn answer<B>(
        &self,
        request: &Request<B>,
        handed_over: bool,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/livez" | "/readyz" | "/metrics") {
            return text(
                StatusCode::NOT_FOUND,
                "there are /livez, /readyz and /metrics\n".into(),
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(ALLOW, allowed);
            return refusal;
        }
        match path {
            "/livez" => self.live(),
            // It would not have taken over if it were not ready.
            "/readyz" if handed_over => verdict("ready", &[]),
            "/readyz" => verdict("ready", &self.shared.not_ready()),
            _ => self.metrics(request),
        }
    }

    fn live(&self) -> Response<Full<Bytes>> {
        let stuck = self
            .pulse
            .stuck(&self.shared.workers, clock::read().mono_ms);
        // What remains to be done before the end may keep a worker busy.
        let draining = self.shared.health.is_draining();
        let why: Vec<String> = stuck
            .iter()
            .filter(|_| !draining)
            .map(|i| format!("worker thread {i} does not answer"))
            .collect();
        verdict("live", &why)
    }

    fn metrics<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let Some(query) = Query::parse(request.uri().query().unwrap_or_default()) else {
            return text(StatusCode::BAD_REQUEST, "there is no such scope\n".into());
        };
        let accept = request.headers().get(ACCEPT);
        let format = Format::negotiate(accept.map_or(b"", HeaderValue::as_bytes));
        let page = metrics::page(&self.shared, &query, format);
        response(StatusCode::OK, page, format.content_type())
    }
}

/// 200 with a word, or 503 with the reasons, a line each.
fn verdict(fine: &str, why_not: &[String]) -> Response<Full<Bytes>> {
    if why_not.is_empty() {
        return text(StatusCode::OK, format!("{fine}\n"));
    }
    let mut lines = why_not.join("\n");
    lines.push('\n');
    text(StatusCode::SERVICE_UNAVAILABLE, lines)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, body.into_bytes(), "text/plain; charset=utf-8")
}

fn response(status: StatusCode, body: Vec<u8>, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
