//! Events in exact numbers: requests that are counted when, and only when, they are answered.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait::PATIENCE;

/// How many requests are sent before the first answer is read.
const PIPELINED: u64 = 32;

/// How many requests there were for each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts.
    pub fn add(&mut self, key: &str, count: u64) {
        *self.counts.entry(key.to_owned()).or_default() += count;
    }

    /// Counts all of another.
    pub fn merge(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            self.add(key, *count);
        }
    }

    /// Forgets a key: it was cleared, or has expired.
    pub fn forget(&mut self, key: &str) {
        self.counts.remove(key);
    }

    /// The count of a key.
    pub fn get(&self, key: &str) -> u64 {
        self.counts.get(key).copied().unwrap_or(0)
    }

    /// All keys and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts
            .iter()
            .map(|(key, count)| (key.as_str(), *count))
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Where requests go in.
#[derive(Clone, Debug)]
pub enum Entrance {
    /// A port of 127.0.0.1.
    Tcp(u16),
    /// A unix socket.
    Unix(PathBuf),
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// A keep-alive connection that sends requests.
pub struct Hits {
    stream: Box<dyn Wire>,
    got: Vec<u8>,
}

impl std::fmt::Debug for Hits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hits").finish_non_exhaustive()
    }
}

impl Hits {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(entrance: &Entrance) -> std::io::Result<Self> {
        let stream: Box<dyn Wire> = match entrance {
            Entrance::Tcp(port) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Entrance::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(Self {
            stream,
            got: Vec::new(),
        })
    }

    /// Whether a request that counts nothing is answered within `patience`: a listening socket alone does not mean that
    /// anybody accepts from it.
    pub fn probe(entrance: &Entrance, patience: Duration) -> bool {
        let asked = match entrance {
            Entrance::Tcp(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port))
                .and_then(|stream| ask(&stream, stream.set_read_timeout(Some(patience)))),
            Entrance::Unix(path) => UnixStream::connect(path)
                .and_then(|stream| ask(&stream, stream.set_read_timeout(Some(patience)))),
        };
        asked.unwrap_or(false)
    }

    /// The request that counts `key`: its bytes are what `bytes_in_cnt` counts.
    pub fn request(key: &str) -> String {
        format!("GET /?k={key} HTTP/1.1\r\nHost: t\r\n\r\n")
    }

    /// Sends `count` requests with this key and reads all answers.
    ///
    /// # Errors
    /// When the connection breaks or an answer is not 200.
    pub fn send(&mut self, key: &str, count: u64) -> std::io::Result<()> {
        let request = Self::request(key);
        let mut left = count;
        while left > 0 {
            let now = left.min(PIPELINED);
            self.stream
                .write_all(request.repeat(now as usize).as_bytes())?;
            self.answers(now)?;
            left -= now;
        }
        Ok(())
    }

    /// Sends one request for each key and reads all answers.
    ///
    /// # Errors
    /// As [`Hits::send`].
    pub fn send_each<'a>(
        &mut self,
        mut keys: impl Iterator<Item = &'a str>,
    ) -> std::io::Result<u64> {
        let mut sent = 0;
        let mut text = String::new();
        loop {
            let mut now = 0;
            text.clear();
            for key in keys.by_ref().take(PIPELINED as usize) {
                text.push_str(&Self::request(key));
                now += 1;
            }
            if now == 0 {
                return Ok(sent);
            }
            self.stream.write_all(text.as_bytes())?;
            self.answers(now)?;
            sent += now;
        }
    }

    /// Reads `count` answers.
    fn answers(&mut self, count: u64) -> std::io::Result<()> {
        let mut piece = [0; 16_384];
        for _ in 0..count {
            let end = loop {
                if let Some(at) = self.got.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
                match self.stream.read(&mut piece)? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    some => self.got.extend_from_slice(&piece[..some]),
                }
            };
            let head = &self.got[..end];
            if !head.starts_with(b"HTTP/1.1 200") {
                return Err(Error::other(String::from_utf8_lossy(head).into_owned()));
            }
            // `return status 200` has no body.
            self.got.drain(..end);
        }
        Ok(())
    }
}

fn ask<S>(mut stream: &S, ready: std::io::Result<()>) -> std::io::Result<bool>
where
    for<'a> &'a S: Read + Write,
{
    ready?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")?;
    Ok(stream.read(&mut [0; 64])? > 0)
}

/// What traffic has done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Requests that were answered.
    pub answered: Tally,
    /// Requests that were sent and never answered: counted or not.
    pub doubtful: Tally,
    /// When each burst was answered, and the tally's total then.
    pub when: Vec<(Instant, u64)>,
}

impl Done {
    /// How many requests had been answered at that time.
    pub fn answered_before(&self, instant: Instant) -> u64 {
        let after = self.when.partition_point(|(when, _)| *when < instant);
        after.checked_sub(1).map_or(0, |last| self.when[last].1)
    }
}

/// Requests that go on in the background until they are stopped, also across the death of the node.
#[derive(Debug)]
pub struct Traffic {
    stop: Sender<()>,
    thread: JoinHandle<Done>,
}

impl Traffic {
    /// Sends bursts of `burst` requests with the keys of `keys`, one key a burst and in turn, with a pause between bursts.
    pub fn start(entrance: Entrance, keys: &[&str], burst: u64, pause: Duration) -> Self {
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || run(&entrance, &keys, burst, pause, &stopped));
        Self { stop, thread }
    }

    /// Ends it after the burst in progress.
    ///
    /// # Panics
    /// When its thread did.
    pub fn stop(self) -> Done {
        // It may have ended by itself: then nobody listens.
        let _sent = self.stop.send(());
        self.thread.join().expect("the traffic does not panic")
    }
}

fn run(
    entrance: &Entrance,
    keys: &[String],
    burst: u64,
    pause: Duration,
    stopped: &Receiver<()>,
) -> Done {
    let mut done = Done::default();
    let mut hits = None;
    for key in keys.iter().cycle() {
        if hits.is_none() {
            hits = Hits::open(entrance).ok();
        }
        if let Some(open) = &mut hits {
            match open.send(key, burst) {
                Ok(()) => {
                    done.answered.add(key, burst);
                    done.when.push((Instant::now(), done.answered.total()));
                }
                Err(_) => {
                    done.doubtful.add(key, burst);
                    hits = None;
                }
            }
        }
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    done
}
