//! `http-request use-service prometheus-exporter`: the worker asks the endpoint's thread for the page, so that a large
//! configuration's page does not hold up the traffic of that worker.

use std::io::Write as _;

use remora_core::http1::Head;
use remora_core::rule::action::render_error_page;
use remora_core::world::ProxyId;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::text::Format;
use crate::metrics::{self, Query};
use crate::shared::Shared;

/// Where pages are asked for.
#[derive(Clone, Debug)]
pub struct Exporter {
    asks: mpsc::Sender<Ask>,
}

/// What is asked for; the other end of an [`Exporter`].
pub type Asks = mpsc::Receiver<Ask>;

/// A page somebody waits for.
#[derive(Debug)]
pub struct Ask {
    query: Query,
    format: Format,
    page: oneshot::Sender<Vec<u8>>,
}

/// Pages waited for at a time; more are answered with 503.
const ASKS_MAX: usize = 16;

/// Both ends.
pub fn channel() -> (Exporter, Asks) {
    let (asks, queue) = mpsc::channel(ASKS_MAX);
    (Exporter { asks }, queue)
}

/// Answers one after the other, for as long as the process lives.
pub(super) async fn serve(shared: &Shared, mut asks: Asks) {
    while let Some(ask) = asks.recv().await {
        let page = metrics::page(shared, &ask.query, ask.format);
        // Whoever asked may have gone.
        let _ = ask.page.send(page);
    }
}

/// Appends the whole answer to a request.
pub(crate) async fn answer(
    shared: &Shared,
    proxy: ProxyId,
    req: &Head,
    head_only: bool,
    close: bool,
    out: &mut Vec<u8>,
) {
    let query = String::from_utf8_lossy(req.query().unwrap_or_default());
    let format = Format::negotiate(req.header(b"accept").unwrap_or_default());
    let page = match Query::parse(&query) {
        Some(query) => page(&shared.exporter, query, format).await.ok_or(503),
        None => Err(400),
    };
    let page = match page {
        Ok(page) => page,
        Err(status) => {
            return render_error_page(&shared.world, proxy, status, head_only, close, out);
        }
    };
    // Writing to a vector does not fail.
    let _ = write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncache-control: no-cache\r\ncontent-type: {}\r\n{}\r\n",
        page.len(),
        format.content_type(),
        if close { "connection: close\r\n" } else { "" },
    );
    if !head_only {
        out.extend_from_slice(&page);
    }
}

async fn page(exporter: &Exporter, query: Query, format: Format) -> Option<Vec<u8>> {
    let (page, made) = oneshot::channel();
    let ask = Ask {
        query,
        format,
        page,
    };
    exporter.asks.try_send(ask).ok()?;
    made.await.ok()
}
