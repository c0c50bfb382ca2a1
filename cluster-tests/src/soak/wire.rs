//! A client connection that counts its bytes and allocates nothing for an answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::net::{AddressFamily, SocketType};

use crate::wait::PATIENCE;

/// How an exchange went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The connection was not made.
    Connect,
    /// Closed in good order, with no byte of an answer.
    Closed,
    /// Reset.
    Reset,
    /// The answer ended too early.
    Cut,
    /// Nothing came for a long time.
    Silent,
    /// Not the status that was expected.
    Status,
    /// Other bytes than those that were sent.
    Bytes,
}

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "not connected",
            Self::Closed => "closed without an answer",
            Self::Reset => "reset",
            Self::Cut => "answer cut",
            Self::Silent => "no answer",
            Self::Status => "wrong status",
            Self::Bytes => "wrong bytes",
        }
    }
}

/// What is of interest in the head of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    pub(super) status: u16,
    /// `Content-Length`; without it, chunks come (or a tunnel).
    pub(super) length: u64,
    pub(super) chunked: bool,
    /// The connection ends with it.
    pub(super) closes: bool,
    /// Which configuration answered.
    pub(super) round: u64,
    /// What the rules saw of the key's count.
    pub(super) count: u64,
}

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    got: Vec<u8>,
    /// Bytes before this were used.
    used: usize,
    /// All bytes.
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Wire {
    pub(super) fn open(source: Ipv4Addr, to: SocketAddr) -> Result<Self, Fault> {
        let connect = || -> std::io::Result<TcpStream> {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
            rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
            rustix::net::connect(&socket, &to)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect().map_err(|_| Fault::Connect)?;
        Ok(Self {
            stream,
            got: Vec::with_capacity(4096),
            used: 0,
            sent: 0,
            received: 0,
        })
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self.stream.write_all(bytes) {
            Ok(()) => {
                self.sent += bytes.len() as u64;
                Ok(())
            }
            // A peer that has closed already: what it said before still counts.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Fault::Closed),
            Err(_) => Err(Fault::Reset),
        }
    }

    pub(super) fn head(&mut self) -> Result<Head, Fault> {
        let end = loop {
            let fresh = &self.got[self.used..];
            if let Some(at) = fresh.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.used + at + 4;
            }
            let begun = !fresh.is_empty();
            self.more(begun)?;
        };
        let text = &self.got[self.used..end];
        let head = read_head(text).ok_or(Fault::Bytes)?;
        self.used = end;
        Ok(head)
    }

    /// The next bytes, at most so many.
    pub(super) fn some(&mut self, most: usize) -> Result<&[u8], Fault> {
        if self.used == self.got.len() {
            self.more(true)?;
        }
        let from = self.used;
        self.used = self.got.len().min(from.saturating_add(most));
        Ok(&self.got[from..self.used])
    }

    /// A line without its end.
    pub(super) fn line(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            let fresh = &self.got[self.used..];
            if let Some(at) = fresh.windows(2).position(|two| two == b"\r\n") {
                let line = fresh[..at].to_vec();
                self.used += at + 2;
                return Ok(line);
            }
            self.more(true)?;
        }
    }

    fn more(&mut self, begun: bool) -> Result<(), Fault> {
        self.got.drain(..self.used);
        self.used = 0;
        let mut piece = [0; 16_384];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) if begun => return Err(Fault::Cut),
                Ok(0) => return Err(Fault::Closed),
                Ok(count) => {
                    self.received += count as u64;
                    self.got.extend_from_slice(&piece[..count]);
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(Fault::Silent),
                    _ => return Err(Fault::Reset),
                },
            }
        }
    }
}

fn read_head(text: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut head = Head {
        status,
        ..Head::default()
    };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.parse().ok()?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("x-round") {
            head.round = value.parse().ok()?;
        } else if name.eq_ignore_ascii_case("x-count") {
            head.count = value.parse().ok()?;
        }
    }
    Some(head)
}
