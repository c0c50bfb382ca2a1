//! A client that says exactly what it is told and reports exactly what came back.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use crate::wait::{PATIENCE, until_within};

/// How a connection ended without a complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Closed in good order before the first byte.
    Closed,
    /// Reset.
    Reset,
    /// Ended in the middle of an answer; these bytes had come.
    Cut(Vec<u8>),
    /// Nothing more came within the patience; these bytes had come.
    Silent(Vec<u8>),
}

/// One HTTP/1 response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The status line and the header lines, as received, without the empty line.
    pub head: String,
    /// Names as received, values trimmed.
    pub headers: Vec<(String, String)>,
    /// Decoded body.
    pub body: Vec<u8>,
}

/// Values of the headers of this name (any case).
pub(crate) fn named<'h>(
    headers: &'h [(String, String)],
    name: &str,
) -> impl Iterator<Item = &'h str> {
    headers
        .iter()
        .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.as_str())
}

impl Response {
    /// First header of this name (any case).
    pub fn header(&self, name: &str) -> Option<&str> {
        named(&self.headers, name).next()
    }

    /// All headers of this name (any case).
    pub fn all(&self, name: &str) -> Vec<&str> {
        named(&self.headers, name).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the server announced that it closes the connection.
    pub fn closes(&self) -> bool {
        self.all("connection")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("close"))
    }
}

trait Stream: Read + Write + Send {
    fn shut(&self, how: Shutdown) -> std::io::Result<()>;
    fn patience(&self, span: Duration) -> std::io::Result<()>;
}

impl Stream for TcpStream {
    fn shut(&self, how: Shutdown) -> std::io::Result<()> {
        self.shutdown(how)
    }
    fn patience(&self, span: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(span))
    }
}

impl Stream for UnixStream {
    fn shut(&self, how: Shutdown) -> std::io::Result<()> {
        self.shutdown(how)
    }
    fn patience(&self, span: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(span))
    }
}

/// A connection that was reset before it could be used.
struct Dead;

impl Read for Dead {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(ErrorKind::ConnectionReset.into())
    }
}

impl Write for Dead {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(ErrorKind::ConnectionReset.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stream for Dead {
    fn shut(&self, _: Shutdown) -> std::io::Result<()> {
        Ok(())
    }
    fn patience(&self, _: Duration) -> std::io::Result<()> {
        Ok(())
    }
}

/// One client connection.
pub struct Client {
    stream: Box<dyn Stream>,
    local: Option<SocketAddr>,
    kept: Vec<u8>,
    /// The kernel reports a reset once: if a send has taken the report, reads see a mere end.
    was_reset: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        // Other tests may have used up the source ports of this machine for a moment.
        let connected = until_within(PATIENCE, || match TcpStream::connect(addr) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => None,
            connected => Some(connected),
        });
        match connected.unwrap_or_else(|| Err(ErrorKind::AddrNotAvailable.into())) {
            Ok(stream) => Self::tcp(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Self::reset(),
            Err(error) => panic!("connect to {addr}: {error}"),
        }
    }

    /// Connects from another address of 127.0.0.0/8, so that one test can be several clients.
    ///
    /// # Panics
    /// When the address cannot be used or nobody listens.
    #[track_caller]
    pub fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> Self {
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0))
            .expect("a loopback address");
        match rustix::net::connect(&socket, &addr) {
            Ok(()) => Self::tcp(TcpStream::from(socket)),
            Err(rustix::io::Errno::CONNRESET) => Self::reset(),
            Err(error) => panic!("connect from {source} to {addr}: {error}"),
        }
    }

    /// Connects to a unix socket.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("somebody listens on the unix socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Self {
            stream: Box::new(stream),
            local: None,
            kept: Vec::new(),
            was_reset: false,
        }
    }

    /// A proxy that refuses by resetting may be faster than `connect` returns; for a test that is the same thing.
    fn reset() -> Self {
        Self {
            stream: Box::new(Dead),
            local: None,
            kept: Vec::new(),
            was_reset: false,
        }
    }

    fn tcp(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        let local = stream.local_addr().ok();
        Self {
            stream: Box::new(stream),
            local,
            kept: Vec::new(),
            was_reset: false,
        }
    }

    /// Own address and port (TCP only).
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// How long reads wait; [`PATIENCE`] unless changed.
    pub fn patience(&mut self, span: Duration) {
        self.stream.patience(span).expect("a time-out");
    }

    /// Sends. A peer that has gone is not an error here: how it ended shows in what is read next.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let sent = self.stream.write_all(bytes.as_ref());
        self.was_reset |= sent.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        self
    }

    /// Sends, and says whether all of it was taken.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends `GET path` with a Host header, keep-alive.
    pub fn get(&mut self, path: &str) -> &mut Self {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// Closes at once, whatever may still come.
    pub fn leave(&mut self) {
        self.stream = Box::new(Dead);
    }

    /// Closes the sending half.
    pub fn half_close(&mut self) -> &mut Self {
        let _gone = self.stream.shut(Shutdown::Write);
        self
    }

    /// The next response to anything but HEAD and CONNECT; interim responses are returned as any other.
    pub fn response(&mut self) -> Result<Response, Gone> {
        self.response_to("GET")
    }

    /// The next response to a request of this method.
    pub fn response_to(&mut self, method: &str) -> Result<Response, Gone> {
        let end = loop {
            if let Some(at) = find(&self.kept, b"\r\n\r\n") {
                break at;
            }
            self.more()?;
        };
        let head = String::from_utf8_lossy(&self.kept[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|word| word.parse().ok());
        let Some(status) = status else {
            return Err(Gone::Cut(std::mem::take(&mut self.kept)));
        };
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        self.kept.drain(..end + 4);
        let mut response = Response {
            status,
            head,
            headers,
            body: Vec::new(),
        };
        let bodyless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        if bodyless || (method == "CONNECT" && (200..300).contains(&status)) {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some() {
            response.body = self.chunked()?;
        } else if let Some(length) = response
            .header("content-length")
            .and_then(|value| value.parse().ok())
        {
            response.body = self.take(length)?;
        } else {
            response.body = self.rest();
        }
        Ok(response)
    }

    /// Exactly `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<Vec<u8>, Gone> {
        while self.kept.len() < count {
            self.more()?;
        }
        Ok(self.kept.drain(..count).collect())
    }

    /// Everything until the peer closes, resets or falls silent.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more().is_ok() {}
        std::mem::take(&mut self.kept)
    }

    /// How the connection ends, with what was sent before the end.
    pub fn ending(&mut self) -> (Vec<u8>, Gone) {
        let mut got = Vec::new();
        loop {
            got.append(&mut self.kept);
            match self.more() {
                Ok(()) => {}
                Err(Gone::Silent(_)) => return (got, Gone::Silent(Vec::new())),
                Err(gone) => return (got, gone),
            }
        }
    }

    /// Whether the peer has closed or reset within the patience, with nothing left to read.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.more(), Err(Gone::Closed | Gone::Reset))
    }

    fn chunked(&mut self) -> Result<Vec<u8>, Gone> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line
                .split(';')
                .next()
                .and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
            let Some(size) = size else {
                return Err(Gone::Cut(line.into_bytes()));
            };
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            self.line()?;
        }
    }

    fn line(&mut self) -> Result<String, Gone> {
        loop {
            if let Some(at) = find(&self.kept, b"\r\n") {
                let line = String::from_utf8_lossy(&self.kept[..at]).into_owned();
                self.kept.drain(..at + 2);
                return Ok(line);
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Result<(), Gone> {
        let mut piece = [0; 65536];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) if self.was_reset => return Err(Gone::Reset),
                Ok(0) if self.kept.is_empty() => return Err(Gone::Closed),
                Ok(0) => return Err(Gone::Cut(self.kept.clone())),
                Ok(count) => {
                    self.kept.extend_from_slice(&piece[..count]);
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        return Err(Gone::Silent(self.kept.clone()));
                    }
                    _ => return Err(Gone::Reset),
                },
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// One request on a connection of its own, closed afterwards.
pub fn get(addr: SocketAddr, path: &str) -> Result<Response, Gone> {
    Client::connect(addr).send(close_request(path)).response()
}

/// As [`get`], from another loopback address.
pub fn get_from(source: Ipv4Addr, addr: SocketAddr, path: &str) -> Result<Response, Gone> {
    Client::connect_from(source, addr)
        .send(close_request(path))
        .response()
}

fn close_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
}
