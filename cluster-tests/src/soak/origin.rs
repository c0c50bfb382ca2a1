//! The server behind the nodes: counts what it is asked and every byte it answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::tally::Sort;
use crate::wait::pace;

/// What a slow answer consists of.
pub(super) const PIECE: usize = 16 * 1024;
const PIECE_PAUSE: Duration = Duration::from_millis(25);

#[derive(Debug, Default)]
struct Seen {
    requests: [AtomicU64; Sort::ALL.len()],
    bytes: [AtomicU64; Sort::ALL.len()],
    /// Downloads without an end come to theirs.
    finish: AtomicBool,
    stop: AtomicBool,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub(super) struct Origin {
    addr: SocketAddr,
    seen: Arc<Seen>,
}

impl Origin {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let seen = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &seen));
            }
        });
        Self { addr, seen }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn requests(&self, sort: Sort) -> u64 {
        self.seen.requests[sort as usize].load(Relaxed)
    }

    /// Bytes of answers, heads included.
    pub(super) fn bytes(&self, sort: Sort) -> u64 {
        self.seen.bytes[sort as usize].load(Relaxed)
    }

    pub(super) fn finish(&self) {
        self.seen.finish.store(true, Relaxed);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
        let _wake = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
    }
}

/// Answers one connection. Every error is the end of it: the other side knows what it got.
fn serve(mut stream: TcpStream, seen: &Seen) {
    let _nodelay = stream.set_nodelay(true);
    let mut got = Vec::with_capacity(4096);
    let mut piece = [0; 16_384];
    loop {
        let end = loop {
            if let Some(at) = got.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut piece) {
                Ok(count @ 1..) => got.extend_from_slice(&piece[..count]),
                _ => return,
            }
        };
        let Some((path, sort)) = target(&got[..end]) else {
            return;
        };
        seen.requests[sort as usize].fetch_add(1, Relaxed);
        got.drain(..end);
        let mut answer = Answer {
            stream: &mut stream,
            bytes: &seen.bytes[sort as usize],
        };
        let goes_on = match path {
            Path::Small => answer.write(SMALL),
            Path::Slow(pieces) => answer.slow(pieces),
            Path::Endless => answer.endless(&seen.finish),
            Path::Tunnel => answer.tunnel(),
        };
        if !goes_on {
            return;
        }
    }
}

enum Path {
    Small,
    Slow(usize),
    Endless,
    Tunnel,
}

/// `GET /PATH?k=SORT&… HTTP/1.1`
fn target(head: &[u8]) -> Option<(Path, Sort)> {
    let line = std::str::from_utf8(head).ok()?.split("\r\n").next()?;
    let (path, query) = line.split(' ').nth(1)?.split_once('?')?;
    let key = query
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("k="))?;
    let path = match path {
        "/" => Path::Small,
        "/endless" => Path::Endless,
        "/ws" => Path::Tunnel,
        slow => Path::Slow(slow.strip_prefix("/slow/")?.parse().ok()?),
    };
    Some((path, Sort::of(key)?))
}

const SMALL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// The acceptance belongs to the key that clients send, which is the example of RFC 6455.
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

struct Answer<'a> {
    stream: &'a mut TcpStream,
    bytes: &'a AtomicU64,
}

impl Answer<'_> {
    fn write(&mut self, bytes: &[u8]) -> bool {
        // Before the write: whoever gets the last byte may compare at once.
        self.bytes.fetch_add(bytes.len() as u64, Relaxed);
        self.stream.write_all(bytes).is_ok()
    }

    fn slow(&mut self, pieces: usize) -> bool {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            pieces * PIECE
        );
        let mut fine = self.write(head.as_bytes());
        for number in 0..pieces {
            fine = fine && self.write(&pattern(number));
            pace(PIECE_PAUSE);
        }
        fine
    }

    fn endless(&mut self, finish: &AtomicBool) -> bool {
        let mut fine = self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut number = 0;
        while fine && !finish.load(Relaxed) {
            let mut chunk = format!("{PIECE:x}\r\n").into_bytes();
            chunk.extend(pattern(number));
            chunk.extend(b"\r\n");
            fine = self.write(&chunk);
            number += 1;
            pace(PIECE_PAUSE);
        }
        fine && self.write(b"0\r\n\r\n")
    }

    /// Says again whatever is said.
    fn tunnel(&mut self) -> bool {
        let mut fine = self.write(SWITCH);
        let mut piece = [0; 16_384];
        while fine {
            match self.stream.read(&mut piece) {
                Ok(count @ 1..) => fine = self.write(&piece[..count]),
                _ => return false,
            }
        }
        fine
    }
}

/// The piece of that number: one that is lost, doubled or moved shows.
pub(super) fn pattern(number: usize) -> [u8; PIECE] {
    let mut piece = [b'a' + (number % 26) as u8; PIECE];
    for (at, byte) in number.to_be_bytes().into_iter().enumerate() {
        piece[at * 64] = byte;
    }
    piece
}
