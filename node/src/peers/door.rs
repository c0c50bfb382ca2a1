//! The side that is dialed: sockets that listen for peers, and streams that carry a peer's pushes.

use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use remora_config::plan::PeersBind;
use remora_proto::peers::v1 as proto;
use remora_proto::peers::v1::peers_server::{Peers, PeersServer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status, Streaming};

use super::dial::{self, root, said};
use super::greeting::{Joined, Joiner};
use super::outbox::{Outbox, Outflow, Responses};
use super::section::{self, Section};
use super::sniff::{Expected, Head, Sniffed};
use super::socket;
use super::tls::{self, Reread};
use super::{CLOSE_PATIENCE, HANDSHAKE_PATIENCE, MESSAGE_BYTES_MAX, WINDOW_BYTES, plain, wire};
use crate::handoff::Inherited;
use crate::handoff::inherited::Offer;
use crate::observe::log::Severity;

/// An open listening socket of a section.
pub(super) struct Door {
    socket: OwnedFd,
    is_unix: bool,
    tls: Option<Arc<Tls>>,
    /// What is wrong, though it is open.
    warning: Option<String>,
}

struct Tls {
    settings: Reread<ServerConfig>,
    /// Names one of which a client's certificate has to carry; any will do when there is none.
    names: Vec<ServerName<'static>>,
}

impl Door {
    /// Opens the socket of a `bind` line, or takes it from `pool`, and adds it to `offer`. `names`: what clients are
    /// verified by if the line itself does not say.
    ///
    /// # Errors
    /// What is wrong with the address or the certificates.
    pub(super) fn open(
        bind: &PeersBind,
        names: &[ServerName<'static>],
        allow_plaintext: bool,
        pool: &mut Inherited,
        offer: &mut Offer,
    ) -> Result<Door, String> {
        let tls = match &bind.tls {
            None => None,
            Some(options) => Some(Arc::new(Tls {
                settings: tls::for_bind(options)?,
                names: match &options.verifyhost {
                    Some(_) => tls::expected_names(std::iter::once(options))?,
                    None => names.to_vec(),
                },
            })),
        };
        let (socket, is_unix, warning) = socket::open(bind, pool, offer)?;
        if tls.is_none() && !allow_plaintext && !socket::stays_here(&socket) {
            // An inherited descriptor: other addresses are judged when the configuration is read.
            return Err("it listens beyond this host without 'ssl': add 'ssl', or 'allow-plaintext' to the section".into());
        }
        Ok(Door {
            socket,
            is_unix,
            tls,
            warning,
        })
    }

    /// Accepts until another process does.
    pub(super) async fn serve(self, section: Arc<Section>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        if let Some(warning) = &self.warning {
            section.log(Severity::Warning, format_args!("{warning}"));
        }
        let mut listener = match Listener::new(self.socket, self.is_unix) {
            Ok(listener) => listener,
            Err(e) => {
                let text = format_args!("cannot listen for peers: {e}");
                return section.log(Severity::Alert, text);
            }
        };
        let mut paused = false;
        loop {
            use section::Door::{Closed, Open, Paused};
            let acts = |door| matches!(door, Open | Closed) || door == Paused && !paused;
            match section.becomes(acts).await {
                Closed => return,
                Paused => {
                    paused = listener.pause();
                    section.becomes(|door| door != Paused).await;
                    continue;
                }
                _ if paused => match listener.go_on() {
                    Ok(again) => {
                        listener = again;
                        paused = false;
                    }
                    Err(e) => {
                        let text = format_args!("cannot listen for peers again: {}", plain(&e));
                        section.log(Severity::Warning, text);
                        sleep(GO_ON_PAUSE).await;
                        continue;
                    }
                },
                _ => {}
            }
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = section.becomes(|door| door != Open) => continue,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    section.log(
                        Severity::Warning,
                        format_args!("cannot accept: {}", plain(&e)),
                    );
                    sleep(STARVED_PAUSE).await;
                    continue;
                }
            };
            section.counters.accepted.fetch_add(1, Relaxed);
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                let why = format_args!("too many at a time");
                section.stranger(&section.counters.crowded, &remote, why);
                continue;
            };
            let (section, tls) = (Arc::clone(&section), self.tls.clone());
            spawn_local(async move {
                let visit = async {
                    match stream {
                        Stream::Tcp(stream) => {
                            let _ = stream.set_nodelay(true);
                            enter(&section, tls.as_deref(), stream, &remote).await;
                        }
                        Stream::Unix(stream) => {
                            enter(&section, tls.as_deref(), stream, &remote).await;
                        }
                    }
                };
                tokio::select! {
                    () = visit => {}
                    // The peer dials again, and reaches the process that takes over.
                    () = section.left() => {}
                }
                drop(place);
            });
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    fn new(socket: OwnedFd, is_unix: bool) -> std::io::Result<Listener> {
        Ok(if is_unix {
            Listener::Unix(UnixListener::from_std(socket.into())?)
        } else {
            Listener::Tcp(TcpListener::from_std(socket.into())?)
        })
    }
    /// Gives the address free, if it is one that only one process can have. Whether it did.
    fn pause(&self) -> bool {
        match self {
            Listener::Tcp(listener) => {
                rustix::net::shutdown(listener, rustix::net::Shutdown::Read).is_ok()
            }
            Listener::Unix(_) => false,
        }
    }
    /// Listens again, behind a new descriptor: for the event loop the one that was shut down is at its end for good.
    fn go_on(&self) -> std::io::Result<Listener> {
        let (fd, is_unix) = match self {
            Listener::Tcp(listener) => (listener.as_fd(), false),
            Listener::Unix(listener) => (listener.as_fd(), true),
        };
        let fd = fd.try_clone_to_owned()?;
        rustix::net::listen(&fd, socket::BACKLOG)?;
        Listener::new(fd, is_unix)
    }
    async fn accept(&self) -> std::io::Result<(Stream, String)> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                (Stream::Tcp(stream), remote.to_string())
            }
            Listener::Unix(listener) => {
                (Stream::Unix(listener.accept().await?.0), "unix".to_owned())
            }
        })
    }
}

/// TLS, if there is any, then HTTP/2.
async fn enter<S>(section: &Arc<Section>, tls: Option<&Tls>, stream: S, remote: &str)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (stream, head) = Sniffed::new(stream);
    let Some(tls) = tls else {
        return serve(section, stream, remote, head).await;
    };
    let settings = tls
        .settings
        .current(|text| section.log(Severity::Warning, format_args!("bind: {text}")));
    let shaken = timeout(
        HANDSHAKE_PATIENCE,
        TlsAcceptor::from(settings).accept(stream),
    );
    let failed = match shaken.await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates();
            match tls::client_is_one_of(certificate.and_then(|c| c.first()), &tls.names) {
                Ok(()) => {
                    let (stream, head) = Sniffed::new(stream);
                    return serve(section, stream, remote, head).await;
                }
                Err(why) => why,
            }
        }
        Ok(Err(error)) => match head.stranger(Expected::Tls) {
            Some(what) => what,
            None => tls::reason(&error),
        },
        Err(_) => "no handshake in time".into(),
    };
    let why = format_args!("TLS: {failed}");
    section.stranger(&section.counters.tls_failed, remote, why);
}

async fn serve<S>(section: &Arc<Section>, stream: S, remote: &str, head: Head)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let visit = Arc::new(Visit::default());
    let service = PeersServer::new(Reception {
        section: Arc::clone(section),
        remote: remote.to_owned(),
        visit: Arc::clone(&visit),
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let seen = Arc::clone(&visit);
    let service = service_fn(move |request: http::Request<Incoming>| {
        if !PATHS.contains(&request.uri().path()) {
            seen.asks_for_something_else(&request);
        }
        service.clone().call(request)
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(MESSAGE_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);

    let opened = async {
        let opened = timeout(HANDSHAKE_PATIENCE, visit.opened.notified()).await;
        match opened {
            Ok(()) => std::future::pending().await,
            Err(_) => "it opened no stream in time".to_owned(),
        }
    };
    let reason = tokio::select! {
        ended = &mut connection => match ended {
            Ok(()) => "the peer closed the connection".to_owned(),
            Err(error) => root(&error),
        },
        reason = opened => reason,
        () = visit.closed() => {
            // What was polled before is still to be written.
            connection.as_mut().graceful_shutdown();
            let _ = timeout(CLOSE_PATIENCE, connection).await;
            return;
        }
    };
    let outbox = visit.outbox.lock().clone();
    match outbox {
        Some(outbox) => section.closed(outbox.id(), Some(&reason)),
        None => {
            let what = head.stranger(Expected::Http2Client);
            let what = what.or_else(|| visit.asked.lock().take());
            let what = what.unwrap_or(reason);
            section.stranger(&section.counters.strangers, remote, format_args!("{what}"));
        }
    }
}

/// What a connection and the stream on it know of each other.
#[derive(Default)]
struct Visit {
    outbox: Mutex<Option<Arc<Outbox<proto::ReplyMessage>>>>,
    opened: Notify,
    told: Notify,
    /// What it asked for, if that was not the peers' service.
    asked: Mutex<Option<String>>,
}

impl Visit {
    fn asks_for_something_else(&self, request: &http::Request<Incoming>) {
        let mut path: String = request.uri().path().chars().take(PATH_SHOWN).collect();
        if path.len() < request.uri().path().len() {
            path.push_str("...");
        }
        let what = format!(
            "it speaks HTTP/2, but asks for {} {}, and not for the service of peers",
            request.method(),
            path.escape_debug()
        );
        self.asked.lock().get_or_insert(what);
    }
    /// Completes once the hub has closed the session.
    async fn closed(&self) {
        self.told.notified().await;
        let outbox = self.outbox.lock().clone();
        if let Some(outbox) = outbox {
            outbox.closed().await;
        }
    }
}

/// The service on one connection.
struct Reception {
    section: Arc<Section>,
    remote: String,
    visit: Arc<Visit>,
}

#[tonic::async_trait]
impl Peers for Reception {
    type PushStream = Responses<proto::ReplyMessage>;
    type PushBackStream = Responses<proto::PushMessage>;

    async fn push(
        &self,
        request: Request<Streaming<proto::PushMessage>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let outbox = {
            let mut place = self.visit.outbox.lock();
            if place.is_some() {
                return Err(Status::resource_exhausted("one stream per connection"));
            }
            let outbox = self.section.opened_in(&self.remote);
            *place = Some(Arc::clone(&outbox));
            outbox
        };
        self.visit.opened.notify_one();
        self.visit.told.notify_one();
        let section = Arc::clone(&self.section);
        tokio::spawn(receive(
            Arc::clone(&section),
            Arc::clone(&outbox),
            request.into_inner(),
        ));
        Ok(Response::new(Responses(Outflow { section, outbox })))
    }

    async fn push_back(
        &self,
        request: Request<Streaming<proto::ReplyMessage>>,
    ) -> Result<Response<Self::PushBackStream>, Status> {
        let theirs = self.visit.outbox.lock().clone();
        let outbox = theirs.and_then(|theirs| self.section.opened_back(theirs.id()));
        let Some(outbox) = outbox else {
            return Err(Status::failed_precondition("no stream back is needed"));
        };
        let section = Arc::clone(&self.section);
        tokio::spawn(push_back(
            Arc::clone(&section),
            Arc::clone(&outbox),
            request.into_inner(),
        ));
        Ok(Response::new(Responses(Outflow { section, outbox })))
    }
}

/// Hands the replies on a lent connection to the hub until there are no more.
async fn push_back(
    section: Arc<Section>,
    outbox: Arc<Outbox<proto::PushMessage>>,
    mut replies: Streaming<proto::ReplyMessage>,
) {
    let mut over = pin!(dial::listen(&section, &outbox, &mut replies));
    let over = tokio::select! {
        over = &mut over => over,
        () = outbox.closed() => {
            // What was polled before is still to be written, and the peer then ends the stream.
            let _ = timeout(CLOSE_PATIENCE, over).await;
            return;
        }
    };
    section.closed(outbox.id(), over.as_deref());
    outbox.close();
}

/// Hands a peer's pushes to the hub until there are no more.
pub(super) async fn receive(
    section: Arc<Section>,
    outbox: Arc<Outbox<proto::ReplyMessage>>,
    mut pushes: Streaming<proto::PushMessage>,
) {
    let mut is_new = true;
    let mut joiner = Joiner::default();
    let reason = loop {
        let message = match pushes.message().await {
            Ok(Some(message)) => match joiner.take(message) {
                Joined::Whole(message) => Ok(Some(message)),
                Joined::Partial => continue,
                Joined::Wrong(why) => break Some(why.to_owned()),
            },
            other => other,
        };
        match message {
            Ok(Some(message)) => match wire::push(message) {
                Some(push) => {
                    section.with_hub(|hub, now| hub.handle_push(outbox.id(), push, now));
                    if std::mem::take(&mut is_new) {
                        section.has_met();
                    }
                    // Merging a batch takes a while, and more may have arrived: others get their turn.
                    yield_now().await;
                }
                None => {
                    section.counters.skipped.fetch_add(1, Relaxed);
                    section.with_hub(|hub, _| hub.skipped(outbox.id()));
                }
            },
            Ok(None) => break None,
            Err(status) => break Some(said(&status)),
        }
    };
    section.closed(outbox.id(), reason.as_deref());
    outbox.close();
}

/// The methods that peers call.
const PATHS: [&str; 2] = [
    "/remora.peers.v1.Peers/Push",
    "/remora.peers.v1.Peers/PushBack",
];
/// As much of another path is shown.
const PATH_SHOWN: usize = 60;
/// Connections per `bind` line at a time, those of strangers included.
const CONNECTIONS_MAX: usize = 1024;
/// Streams that a peer may open on a connection; all but one are refused in words.
const STREAMS_MAX: u32 = 4;
/// How long accepting pauses when descriptors or memory have run out.
const STARVED_PAUSE: Duration = Duration::from_millis(100);
/// Between attempts to listen again after a pause.
const GO_ON_PAUSE: Duration = Duration::from_secs(1);
