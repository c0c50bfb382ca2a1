//! The dialing side: from a peer's address to an open stream that carries this node's pushes.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use remora_config::plan::{PeerAddress, PeersTls};
use remora_core::peers::PeerIx;
use remora_proto::peers::v1::peers_client::PeersClient;
use remora_proto::peers::v1::{PushMessage, ReplyMessage};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status, Streaming};

use super::door;
use super::greeting::{Joined, Joiner};
use super::outbox::{Outbox, Outflow, Requests};
use super::section::Section;
use super::sniff::{Expected, Head, Sniffed};
use super::tls::{self, Reread};
use super::{CLOSE_PATIENCE, HANDSHAKE_PATIENCE, MESSAGE_BYTES_MAX, WINDOW_BYTES, wire};
use crate::observe::log::Severity;

/// A peer as the section's lines or discovery know it.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) address: PeerAddress,
    /// A `server` line, not discovered.
    pub(super) is_line: bool,
    /// Addresses of a host whose name cannot be looked up any more.
    pins: Vec<SocketAddr>,
    tls: Option<Tls>,
}

struct Tls {
    settings: Arc<Reread<ClientConfig>>,
    /// What to call the server. What its certificate is compared with is the settings' business.
    name: ServerName<'static>,
}

impl Target {
    /// # Errors
    /// Certificates that cannot be read, or names that are none.
    pub(super) fn new(
        name: String,
        address: PeerAddress,
        tls: Option<&PeersTls>,
    ) -> Result<Target, String> {
        let settings = tls.map(|tls| Ok::<_, String>((tls, Arc::new(tls::for_server(tls)?))));
        Target::sharing(name, address, settings.transpose()?)
    }

    /// The same, with settings that several peers have in common.
    pub(super) fn sharing(
        name: String,
        address: PeerAddress,
        tls: Option<(&PeersTls, Arc<Reread<ClientConfig>>)>,
    ) -> Result<Target, String> {
        let tls = match tls {
            None => None,
            Some((tls, settings)) => Some(Tls {
                settings,
                name: called(tls, &address)?,
            }),
        };
        Ok(Target {
            name,
            address,
            is_line: false,
            pins: Vec::new(),
            tls,
        })
    }
}

impl Target {
    /// Looks the name of a host up for good, if there is nothing below `root`, the directory of a `chroot` that is still to
    /// come, to look it up by.
    ///
    /// # Errors
    /// There is no such host, or nobody says so.
    pub(super) fn pinned(mut self, root: Option<&Path>) -> Result<Target, String> {
        let (Some(root), PeerAddress::Host { host, port }) = (root, &self.address) else {
            return Ok(self);
        };
        let names = ["etc/resolv.conf", "etc/hosts"];
        if names.iter().any(|name| root.join(name).exists()) {
            return Ok(self);
        }
        let found = (host.as_str(), *port).to_socket_addrs();
        self.pins = found
            .map_err(|e| format!("cannot resolve '{host}': {}", crate::peers::plain(&e)))?
            .collect();
        Ok(self)
    }

    /// Its address, for people and to recognise who dials this node.
    pub(super) fn shown(&self) -> String {
        match &self.address {
            PeerAddress::Ip(address) => address.to_string(),
            PeerAddress::Unix(path) => path.clone(),
            PeerAddress::Host { host, port } => format!("{host}:{port}"),
        }
    }
}

/// `sni`, else `verifyhost`, else what is dialed. Addresses are not sent.
fn called(tls: &PeersTls, address: &PeerAddress) -> Result<ServerName<'static>, String> {
    let name = tls.sni.as_ref().or(tls.verifyhost.as_ref());
    let name = name.cloned().unwrap_or_else(|| match address {
        PeerAddress::Ip(address) => address.ip().to_string(),
        PeerAddress::Host { host, .. } => host.clone(),
        PeerAddress::Unix(_) => IpAddr::V4(Ipv4Addr::LOCALHOST).to_string(),
    });
    ServerName::try_from(name.clone()).map_err(|_| format!("'{name}' cannot be a server's name"))
}

/// Connects, opens a stream and carries messages until one side has had enough.
pub(super) async fn dial(section: Arc<Section>, ix: PeerIx, target: Arc<Target>) {
    match connect(&section, &target).await {
        Ok(line) => line.run(&section, ix, &target.shown()).await,
        Err(Failed { refused, text }) => {
            section.with_hub(|hub, now| hub.dial_failed(ix, refused, &text, now));
        }
    }
}

struct Failed {
    /// The address answered that nobody listens there.
    refused: bool,
    text: String,
}

impl Failed {
    fn other(text: impl Into<String>) -> Failed {
        Failed {
            refused: false,
            text: text.into(),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        Failed {
            refused: matches!(error.kind(), ConnectionRefused | NotFound),
            text: crate::peers::plain(&error),
        }
    }
}

async fn connect(section: &Section, target: &Target) -> Result<Line, Failed> {
    let patience = timeout(HANDSHAKE_PATIENCE, async {
        match &target.address {
            PeerAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                secure(section, target, stream).await
            }
            PeerAddress::Ip(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                secure(section, target, stream).await
            }
            PeerAddress::Host { host, port } => {
                let found: Vec<SocketAddr> = if target.pins.is_empty() {
                    let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                    let why = |e| Failed::other(format!("cannot resolve '{host}': {e}"));
                    found.map_err(why)?.collect()
                } else {
                    target.pins.clone()
                };
                let mut last = Failed::other(format!("'{host}' has no address"));
                for address in found {
                    match TcpStream::connect(address).await {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return secure(section, target, stream).await;
                        }
                        Err(error) => last = error.into(),
                    }
                }
                Err(last)
            }
        }
    });
    patience
        .await
        .unwrap_or_else(|_| Err(Failed::other("no answer to the attempt to connect")))
}

async fn secure<S>(section: &Section, target: &Target, stream: S) -> Result<Line, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (stream, head) = Sniffed::new(stream);
    let Some(tls) = &target.tls else {
        return Line::open(stream, head).await;
    };
    let settings = tls.settings.current(|text| {
        section.log(
            Severity::Warning,
            format_args!("peer {}: {text}", target.name),
        );
    });
    let connector = TlsConnector::from(settings);
    let failed = |error: &io::Error| {
        Failed::other(match head.stranger(Expected::Tls) {
            Some(what) => what,
            None => format!("TLS: {}", tls::reason(error)),
        })
    };
    let stream = connector.connect(tls.name.clone(), stream).await;
    let mut stream = BufReader::new(stream.map_err(|e| failed(&e))?);
    // The handshake is over for this side before the server has looked at its certificate. HTTP/2 servers speak first:
    // with that, or with the server's complaint, all is known.
    if stream.fill_buf().await.map_err(|e| failed(&e))?.is_empty() {
        return Err(Failed::other(
            "TLS: the peer closed the connection after the handshake; its log says why",
        ));
    }
    let (stream, head) = Sniffed::new(stream);
    Line::open(stream, head).await
}

/// A connection on which streams can be opened.
struct Line {
    requests: SendRequest<Body>,
    connection: JoinHandle<Result<(), hyper::Error>>,
    head: Head,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Line {
    async fn open<S>(stream: S, head: Head) -> Result<Line, Failed>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buf_size(MESSAGE_BYTES_MAX)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|e| Failed::other(root(&e)))?;
        Ok(Line {
            requests,
            connection: tokio::spawn(connection),
            head,
        })
    }

    async fn run(mut self, section: &Arc<Section>, ix: PeerIx, remote: &str) {
        let outbox = section.opened_out(ix);
        let flow = Outflow {
            section: Arc::clone(section),
            outbox: Arc::clone(&outbox),
        };
        let service = Http2(self.requests.clone());
        let mut exchange = pin!(exchange(section, &outbox, service, flow));
        let reason = loop {
            tokio::select! {
                reason = &mut exchange => break reason,
                () = outbox.is_to_lend() => {
                    let service = Http2(self.requests.clone());
                    // Ends with the connection.
                    spawn_local(lend(Arc::clone(section), service, remote.to_owned()));
                }
                () = outbox.closed() => {
                    // What was polled before is still to be written, and the peer then ends the stream.
                    let _ = timeout(CLOSE_PATIENCE, exchange).await;
                    return;
                }
            }
        };
        let Over {
            text,
            other_service,
        } = reason;
        let Some(text) = text else {
            return section.closed(outbox.id(), None);
        };
        let text = self.explain(text).await;
        if other_service || self.head.refuses_http2() {
            section.closed_by_stranger(outbox.id(), &text);
        } else {
            section.closed(outbox.id(), Some(&text));
        }
    }

    /// The connection knows better than the stream on it why it ended.
    async fn explain(&mut self, reason: String) -> String {
        let ended = timeout(ERROR_PATIENCE, &mut self.connection).await;
        match (self.head.stranger(Expected::Http2Server), ended) {
            (Some(what), _) => what,
            (None, Ok(Ok(Err(error)))) => root(&error),
            _ => reason,
        }
    }
}

/// Why a stream is over.
struct Over {
    /// `None`: the peer has ended it in good order.
    text: Option<String>,
    /// Whoever answered has no such service: there is nothing to be learned from it.
    other_service: bool,
}

impl Over {
    fn because(text: &str) -> Over {
        Over {
            text: Some(text.to_owned()),
            other_service: false,
        }
    }
    fn by(status: &Status) -> Over {
        Over {
            text: Some(said(status)),
            other_service: status.code() == Code::Unimplemented,
        }
    }
}

/// Pushes out, replies in. Returns why it ended.
async fn exchange(
    section: &Section,
    outbox: &Outbox<PushMessage>,
    service: Http2,
    flow: Outflow<PushMessage>,
) -> Over {
    let mut client = client(service);
    let answered = timeout(HANDSHAKE_PATIENCE, client.push(Requests(flow))).await;
    let mut joiner = Joiner::default();
    let mut replies = match answered {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Over::by(&status),
        Err(_) => return Over::because("no answer to the stream"),
    };
    loop {
        match replies.message().await {
            Ok(Some(message)) => match joiner.take(message) {
                Joined::Whole(message) => take(section, outbox, message),
                Joined::Partial => {}
                Joined::Wrong(why) => return Over::because(why),
            },
            Ok(None) => {
                return Over {
                    text: None,
                    other_service: false,
                };
            }
            Err(status) => return Over::by(&status),
        }
    }
}

/// Replies in, on a stream that the peer opened. Returns why it ended; `None`: in good order.
pub(super) async fn listen(
    section: &Section,
    outbox: &Outbox<PushMessage>,
    replies: &mut Streaming<ReplyMessage>,
) -> Option<String> {
    let mut joiner = Joiner::default();
    loop {
        match replies.message().await {
            Ok(Some(message)) => match joiner.take(message) {
                Joined::Whole(message) => take(section, outbox, message),
                Joined::Partial => {}
                Joined::Wrong(why) => return Some(why.to_owned()),
            },
            Ok(None) => return None,
            Err(status) => return Some(said(&status)),
        }
    }
}

fn take(section: &Section, outbox: &Outbox<PushMessage>, message: ReplyMessage) {
    match wire::reply(message) {
        Some(reply) => section.with_hub(|hub, now| hub.handle_reply(outbox.id(), reply, now)),
        None => {
            section.counters.skipped.fetch_add(1, Relaxed);
            section.with_hub(|hub, _| hub.skipped(outbox.id()));
        }
    }
}

/// Lets the peer push on a stream of this node's connection to it.
async fn lend(section: Arc<Section>, service: Http2, remote: String) {
    let outbox = section.opened_in(&remote);
    let flow = Outflow {
        section: Arc::clone(&section),
        outbox: Arc::clone(&outbox),
    };
    let mut client = client(service);
    let why = match timeout(HANDSHAKE_PATIENCE, client.push_back(Requests(flow))).await {
        Ok(Ok(response)) => {
            let pushes = response.into_inner();
            let mut all = pin!(door::receive(section, Arc::clone(&outbox), pushes));
            tokio::select! {
                () = &mut all => {}
                () = outbox.closed() => {
                    let _ = timeout(CLOSE_PATIENCE, all).await;
                }
            }
            return;
        }
        Ok(Err(status)) => said(&status),
        Err(_) => "no answer to the stream".to_owned(),
    };
    section.closed(outbox.id(), Some(&why));
}

fn client(service: Http2) -> PeersClient<Http2> {
    let origin = http::Uri::from_static("http://peer");
    PeersClient::with_origin(service, origin)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The innermost error of a chain: what really happened.
pub(super) fn root(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    match inner.downcast_ref::<io::Error>() {
        Some(io) if io.get_ref().is_some() => tls::reason(io),
        Some(io) => crate::peers::plain(io),
        None => tls::plainer(inner.to_string()),
    }
}

/// What a stream's status says.
pub(super) fn said(status: &Status) -> String {
    match status.source() {
        Some(source) => root(source),
        None => match status.message().strip_prefix(NO_GRPC) {
            Some(code) => format!("it answers with HTTP status {code}, as no peer would"),
            None if status.code() == Code::Unimplemented => {
                format!("it has no service of peers ({})", status.message())
            }
            None => tls::plainer(status.message().to_owned()),
        },
    }
}

/// How tonic begins what it says of an answer from a server that does not speak gRPC.
const NO_GRPC: &str = "grpc-status header missing, mapped from HTTP status code ";

/// Hyper's client as the kind of service that generated clients call.
#[derive(Clone)]
struct Http2(SendRequest<Body>);

impl Service<http::Request<Body>> for Http2 {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// How long the error of a connection may come after that of its stream.
const ERROR_PATIENCE: Duration = Duration::from_millis(200);
