//! Servers behind the proxy: well-behaved by default, scripted when a test wants trouble. Each connection has a thread.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::client::named;
use crate::wait::PATIENCE;

/// A request as it arrived at the server.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Request target as received.
    pub target: String,
    /// `HTTP/1.1` or the like.
    pub version: String,
    /// Names as received, values trimmed.
    pub headers: Vec<(String, String)>,
    /// Decoded body, as far as it came.
    pub body: Vec<u8>,
    /// Which connection of this server it came on, from 0.
    pub connection: usize,
}

impl Request {
    /// First header of this name (any case).
    pub fn header(&self, name: &str) -> Option<&str> {
        named(&self.headers, name).next()
    }

    /// All headers of this name (any case).
    pub fn all(&self, name: &str) -> Vec<&str> {
        named(&self.headers, name).collect()
    }
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    bytes: Mutex<Vec<u8>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    stop: AtomicBool,
}

/// A listening server; stops listening when dropped.
pub struct Server {
    addr: SocketAddr,
    seen: Arc<Seen>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// The well-behaved server: see [`Peer::serve`] for its paths.
    pub fn http() -> Self {
        Self::named("")
    }

    /// The well-behaved server with a name, which it tells in `X-Server` and at `/name`.
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::with(move |request, peer| peer.serve(&name, request))
    }

    /// A server whose every request is handled by `handler`, which may read the body and write what it likes. It returns
    /// whether the connection goes on.
    pub fn with(handler: impl Fn(&Request, &mut Peer) -> bool + Send + Sync + 'static) -> Self {
        Self::raw(move |mut peer| {
            while let Some(request) = peer.request() {
                if !handler(&request, &mut peer) {
                    return;
                }
                peer.finish_body();
            }
        })
    }

    /// A server that sends 200,000 bytes, one half only once `gate` is open.
    pub fn half_a_download(gate: &Gate) -> Self {
        let held = gate.clone();
        Self::with(move |_, peer| {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n");
            peer.write(vec![b'x'; 100_000]);
            held.wait();
            peer.write(vec![b'x'; 100_000])
        })
    }

    /// A server that hands every connection to `handler`.
    pub fn raw(handler: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let handler = Arc::new(handler);
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&shared));
                std::thread::spawn(move || {
                    let _timeouts = stream.set_read_timeout(Some(2 * PATIENCE));
                    let _nodelay = stream.set_nodelay(true);
                    let _counted = Open(Arc::clone(&seen));
                    handler(Peer {
                        stream,
                        number,
                        seen,
                        kept: Vec::new(),
                        left: Body::None,
                        current: None,
                    });
                });
            }
        });
        Self { addr, seen }
    }

    /// An address nobody listens on.
    pub fn absent() -> SocketAddr {
        let port = crate::ports::Port::claim();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The requests whose heads have arrived so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen
            .requests
            .lock()
            .expect("no handler panics with the lock")
            .clone()
    }

    /// All bytes received so far, over all connections.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen
            .bytes
            .lock()
            .expect("no handler panics with the lock")
            .clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose handler still runs.
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::SeqCst);
        let _wake = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
    }
}

struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy)]
enum Body {
    None,
    Sized(usize),
    Chunked,
}

/// The server's end of one connection.
pub struct Peer {
    stream: TcpStream,
    number: usize,
    seen: Arc<Seen>,
    kept: Vec<u8>,
    left: Body,
    current: Option<usize>,
}

impl Peer {
    /// Which connection of the server this is, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Reads and records the next request's head; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<Request> {
        let head = loop {
            if let Some(at) = self
                .kept
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                let head = String::from_utf8_lossy(&self.kept[..at]).into_owned();
                self.kept.drain(..at + 4);
                break head;
            }
            if !self.more() {
                return None;
            }
        };
        let mut lines = head.split("\r\n");
        let mut words = lines
            .next()
            .unwrap_or_default()
            .split(' ')
            .map(str::to_owned);
        let mut request = Request {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            version: words.next().unwrap_or_default(),
            connection: self.number,
            ..Request::default()
        };
        let fields = lines.filter_map(|line| line.split_once(':'));
        request.headers = fields
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        self.left = match (
            request.header("transfer-encoding"),
            request.header("content-length"),
        ) {
            (Some(_), _) => Body::Chunked,
            (None, Some(length)) => Body::Sized(length.parse().unwrap_or(0)),
            (None, None) => Body::None,
        };
        let mut requests = self
            .seen
            .requests
            .lock()
            .expect("no handler panics with the lock");
        self.current = Some(requests.len());
        requests.push(request.clone());
        Some(request)
    }

    /// Reads the rest of the current request's body; `None` when the connection ended before it did.
    pub fn body(&mut self) -> Option<Vec<u8>> {
        let body = match std::mem::replace(&mut self.left, Body::None) {
            Body::None => Some(Vec::new()),
            Body::Sized(length) => self.take(length),
            Body::Chunked => self.chunked(),
        }?;
        if let Some(at) = self.current {
            let mut requests = self
                .seen
                .requests
                .lock()
                .expect("no handler panics with the lock");
            requests[at].body.extend_from_slice(&body);
        }
        Some(body)
    }

    fn finish_body(&mut self) {
        let _read = self.body();
    }

    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Some(body);
            }
            body.extend(self.take(size)?);
            self.line()?;
        }
    }

    /// A line up to CR LF.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.kept.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.kept[..at]).into_owned();
                self.kept.drain(..at + 2);
                return Some(line);
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Exactly `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.kept.len() < count {
            if !self.more() {
                return None;
            }
        }
        Some(self.kept.drain(..count).collect())
    }

    /// The next piece of whatever comes; `None` at the end.
    pub fn some(&mut self) -> Option<Vec<u8>> {
        if self.kept.is_empty() && !self.more() {
            return None;
        }
        Some(std::mem::take(&mut self.kept))
    }

    /// Writes as it stands; says whether the other side took it.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Closes the sending half.
    pub fn half_close(&mut self) {
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits until the other side closes or resets.
    pub fn wait_closed(&mut self) {
        while self.more() {
            self.kept.clear();
        }
    }

    /// Answers with a sized body and keeps the connection.
    pub fn reply(&mut self, status: u16, headers: &str, body: impl AsRef<[u8]>) -> bool {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.write([head.as_bytes(), body].concat())
    }

    /// The well-behaved server: `/size/N` and `/chunked/N` answer N bytes, `/until-close/N` N bytes without a length,
    /// `/status/N` that status, `/echo` the request's body, `/name` the server's name; everything else `hello`.
    pub fn serve(&mut self, name: &str, request: &Request) -> bool {
        if request.header("expect").is_some() && !self.write("HTTP/1.1 100 Continue\r\n\r\n") {
            return false;
        }
        let Some(body) = self.body() else {
            return false;
        };
        let path = request
            .target
            .split('?')
            .next()
            .unwrap_or_default()
            .trim_start_matches('/');
        let (route, argument) = path.split_once('/').unwrap_or((path, ""));
        let number: usize = argument.parse().unwrap_or(0);
        let server = format!("X-Server: {name}\r\n");
        let done = match route {
            "chunked" => {
                let mut answer =
                    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{server}\r\n")
                        .into_bytes();
                for piece in pattern(number).chunks(1000) {
                    answer.extend(format!("{:x}\r\n", piece.len()).bytes());
                    answer.extend(piece);
                    answer.extend(b"\r\n");
                }
                answer.extend(b"0\r\n\r\n");
                self.write(answer)
            }
            "until-close" => {
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{server}\r\n");
                self.write([head.as_bytes(), &pattern(number)].concat());
                return false;
            }
            "status" if matches!(number, 204 | 304) => {
                self.write(format!("HTTP/1.1 {number} Status\r\n{server}\r\n"))
            }
            "status" => self.reply(u16::try_from(number).unwrap_or(500), &server, ""),
            _ if request.method == "HEAD" => self.write(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{server}\r\n",
                number.max(5)
            )),
            "size" => self.reply(200, &server, pattern(number)),
            "echo" => self.reply(200, &server, body),
            "name" => self.reply(200, &server, name),
            _ => self.reply(200, &server, "hello"),
        };
        done && !request
            .all("connection")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("close"))
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 65536];
        match self.stream.read(&mut piece) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.kept.extend_from_slice(&piece[..count]);
                self.seen
                    .bytes
                    .lock()
                    .expect("no handler panics with the lock")
                    .extend_from_slice(&piece[..count]);
                true
            }
        }
    }
}

/// `count` bytes in which a lost, doubled or moved piece shows.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|i| b'a' + ((i / 7 + i % 11) % 26) as u8)
        .collect()
}

/// A gate a scripted server waits at until the test opens it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<usize>, Condvar)>);

impl Gate {
    /// Lets one waiter pass.
    pub fn open_once(&self) {
        *self.0.0.lock().expect("nobody panics with the lock") += 1;
        self.0.1.notify_one();
    }

    /// Lets everybody pass from now on.
    pub fn open(&self) {
        *self.0.0.lock().expect("nobody panics with the lock") = usize::MAX / 2;
        self.0.1.notify_all();
    }

    /// Waits to be let through; gives up (and passes) after twice the usual patience so that no thread stays for ever.
    pub fn wait(&self) {
        let tickets = self.0.0.lock().expect("nobody panics with the lock");
        let waited = self
            .0
            .1
            .wait_timeout_while(tickets, 2 * PATIENCE, |tickets| *tickets == 0);
        let (mut tickets, _late) = waited.expect("nobody panics with the lock");
        *tickets = tickets.saturating_sub(1);
    }
}
