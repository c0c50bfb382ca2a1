//! The admin endpoint (`admin bind`): health and metrics over HTTP/1.1, on a thread and runtime of its own. Everything a
//! client could use up has a bound: connections, the size of a request, time.

pub mod exporter;
mod pulse;
mod service;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use remora_config::plan::{ADMIN_CONNECTIONS_MAX, Plan};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::LocalOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_local;
use tracing::warn;

use crate::admin::{self, Listener, Opened, Own, Stream};
use crate::handoff::Purpose;
use crate::handoff::inherited::{Inherited, Offer};
use crate::health::Turn;
use crate::shared::Shared;
use service::Service;

/// An `admin bind` that is open.
#[derive(Debug)]
pub struct Endpoint(Opened);

/// Bytes of a request's head, and its header lines.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// How long a request's head may take to arrive.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may live: one request each, pages of some megabytes over slow links included.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(30);
/// Pause when a connection could not be accepted: descriptors are scarce.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Descriptors that connections to it may use.
pub fn connections_max(plan: &Plan) -> u64 {
    plan.global.admin_binds.len() as u64 * u64::from(ADMIN_CONNECTIONS_MAX)
}

/// Opens every `admin bind`, or takes it from `pool`. What is open is added to `offer`.
///
/// # Errors
/// One message per address that could not be opened.
pub fn open(
    plan: &Plan,
    pool: &mut Inherited,
    offer: &mut Offer,
) -> Result<Vec<Endpoint>, Vec<String>> {
    let all = Own {
        sockets: &plan.global.admin_binds,
        purpose: Purpose::Admin,
        name: "'admin bind'",
    };
    admin::open_all(plan, &all, pool, offer, |_, opened| Endpoint(opened))
}

/// Starts the thread that serves them, and the metrics pages that rules ask for. It ends with the process.
///
/// # Errors
/// The thread could not be started.
pub fn start(
    shared: &Arc<Shared>,
    endpoints: Vec<Endpoint>,
    asks: exporter::Asks,
) -> io::Result<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("remora-admin".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(serve(shared, endpoints, asks)),
                Err(e) => warn!("the admin endpoint is not available: {e}"),
            }
        })?;
    Ok(())
}

async fn serve(shared: Arc<Shared>, endpoints: Vec<Endpoint>, asks: exporter::Asks) {
    let service = Rc::new(Service::new(Arc::clone(&shared)));
    for endpoint in endpoints {
        spawn_local(accept(
            endpoint.0,
            shared.health.turns(),
            shared.health.pausing(),
            Rc::clone(&service),
        ));
    }
    exporter::serve(&shared, asks).await;
}

/// Accepts while it is this process's turn. A socket that nobody else has served is served at once, so that it can say that
/// the process is not ready yet; and one that nobody takes over, to the end.
async fn accept(
    opened: Opened,
    mut turns: watch::Receiver<Turn>,
    mut pauses: watch::Receiver<bool>,
    service: Rc<Service>,
) {
    let (id, mut own) = (opened.id, !opened.taken);
    let mut listener = match Listener::new(opened.listening) {
        Ok(listener) => listener,
        Err(e) => {
            warn!("an 'admin bind' cannot be served: {e}");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(usize::from(ADMIN_CONNECTIONS_MAX)));
    loop {
        // Another process may want the address.
        if *pauses.borrow_and_update() && listener.pause() {
            if pauses.wait_for(|paused| !paused).await.is_err() {
                return;
            }
            listener.go_on("an 'admin bind'").await;
        }
        let turn = turns.borrow_and_update().clone();
        match turn {
            Turn::Own => own = false,
            Turn::Others if own => {}
            Turn::Others => {
                tokio::select! {
                    Ok(()) = turns.changed() => {}
                    Ok(()) = pauses.changed() => {}
                    else => return,
                }
                continue;
            }
            Turn::Gone(orphans) if orphans.contains(&id) => {}
            Turn::Gone(_) => return,
        }
        let stream = tokio::select! {
            biased;
            _ = turns.changed() => continue,
            _ = pauses.changed() => continue,
            accepted = next(&listener, &places) => accepted,
        };
        let Some((stream, place)) = stream else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let service = Rc::clone(&service);
        let turns = turns.clone();
        spawn_local(async move {
            // Whoever asked before the socket was handed over hears what the successor would say.
            let left = move || matches!(&*turns.borrow(), Turn::Gone(kept) if !kept.contains(&id));
            match stream {
                Stream::Unix(s) => talk(s, service, left).await,
                Stream::Tcp(s) => talk(s, service, left).await,
            }
            drop(place);
        });
    }
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> Option<(Stream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    Some((listener.accept().await.ok()?, place))
}

/// One request and its answer.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    service: Rc<Service>,
    left: impl Fn() -> bool,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(
            TokioIo::new(io),
            hyper::service::service_fn(move |request| {
                let answer = service.answer(&request, left());
                std::future::ready(Ok::<_, std::convert::Infallible>(answer))
            }),
        );
    // Either way it is over: a client that breaks off or is too slow is nothing to tell anybody.
    let _ = tokio::time::timeout(CONNECTION_PATIENCE, connection).await;
}
