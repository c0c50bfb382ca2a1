//! Clients: one thread each, one connection at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Plan;
use super::origin::{PIECE, pattern};
use super::tally::{Sort, Tally};
use super::wire::{Fault, Head, Wire};
use crate::wait::pace;

/// Starts all clients of a node that come and go.
pub(super) fn start(plan: &Plan, to: SocketAddr, tally: &Arc<Tally>) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    for (sort, many) in [
        (Sort::Keep, 2 * plan.clients),
        (Sort::Close, plan.clients),
        (Sort::Tunnel, plan.clients),
        (Sort::Slow, plan.clients),
    ] {
        if !plan.sorts.contains(sort.key()) {
            continue;
        }
        for number in 0..many {
            let mut client = Client::new(plan, sort, number, to, tally);
            threads.push(std::thread::spawn(move || client.run()));
        }
    }
    threads
}

/// Starts the two that stay, and waits until both have an answer.
pub(super) fn start_long(plan: &Plan, to: SocketAddr, tally: &Arc<Tally>) -> Vec<JoinHandle<()>> {
    if !plan.sorts.contains(Sort::Long.key()) {
        return Vec::new();
    }
    let mut threads = Vec::new();
    for number in 0..LONG {
        let mut client = Client::new(plan, Sort::Long, number, to, tally);
        threads.push(std::thread::spawn(move || {
            let done = if number == 0 {
                client.endless()
            } else {
                client.tunnel(None)
            };
            client.note(done);
        }));
    }
    crate::wait::until_true("the long connections are answered", || {
        tally.of(Sort::Long).answers.load(Relaxed) == LONG as u64
    });
    threads
}

/// How many connections stay, at each node.
pub(super) const LONG: usize = 2;

struct Client {
    sort: Sort,
    to: SocketAddr,
    tally: Arc<Tally>,
    think: Duration,
    entries: u32,
    random: u64,
}

impl Client {
    fn new(plan: &Plan, sort: Sort, number: usize, to: SocketAddr, tally: &Arc<Tally>) -> Self {
        let seed = (u64::from(to.port()) << 32) + ((sort as u64) << 16) + number as u64 + 1;
        Self {
            sort,
            to,
            tally: Arc::clone(tally),
            think: plan.think,
            entries: plan.entries.max(1),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn run(&mut self) {
        let mut kept = None;
        while !self.tally.stop.load(Relaxed) {
            let done = match self.sort {
                Sort::Keep => self.keep(&mut kept),
                Sort::Close => self.close(),
                Sort::Slow => self.slow(),
                Sort::Tunnel | Sort::Long => {
                    let span = Duration::from_millis(200 + self.below(2500));
                    self.tunnel(Some(span))
                }
            };
            self.note(done);
            pace(self.think);
        }
        if let Some(wire) = kept {
            self.leave(&wire);
        }
    }

    fn note(&mut self, done: Result<(), Fault>) {
        if let Err(fault) = done {
            self.tally.fault(self.sort, fault);
            // Whatever is wrong may last for a moment.
            pace(FAULT_PAUSE);
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn open(&self) -> Result<Wire, Fault> {
        let wire = Wire::open(self.sort.address(), self.to)?;
        let counts = self.tally.of(self.sort);
        counts.connections.fetch_add(1, Relaxed);
        Ok(wire)
    }

    fn leave(&self, wire: &Wire) {
        let counts = self.tally.of(self.sort);
        counts.sent.fetch_add(wire.sent, Relaxed);
        counts.received.fetch_add(wire.received, Relaxed);
    }

    /// Does something on a connection that ends with it, if it does.
    fn on<T>(
        &mut self,
        mut wire: Wire,
        work: impl FnOnce(&mut Self, &mut Wire) -> Result<T, Fault>,
    ) -> Result<(T, Wire), Fault> {
        match work(self, &mut wire) {
            Ok(done) => Ok((done, wire)),
            Err(fault) => {
                self.leave(&wire);
                Err(fault)
            }
        }
    }

    fn ask(&mut self, wire: &mut Wire, path: &str, more: &str) -> Result<Head, Fault> {
        let key = self.sort.key();
        let [_, a, b, c] = self.below(u64::from(self.entries)).to_be_bytes()[4..] else {
            return Err(Fault::Bytes);
        };
        let request =
            format!("GET {path}?k={key}&u=10.{a}.{b}.{c} HTTP/1.1\r\nHost: soak\r\n{more}\r\n");
        let tally = Arc::clone(&self.tally);
        let counts = tally.of(self.sort);
        let before = counts.answers.load(Relaxed);
        counts.requests.fetch_add(1, Relaxed);
        wire.send(request.as_bytes())?;
        let head = wire.head()?;
        tally.answered_by(head.round);
        tally.saw(head.count, before);
        Ok(head)
    }

    fn small(&mut self, wire: &mut Wire, more: &str) -> Result<Head, Fault> {
        let head = self.ask(wire, "/", more)?;
        if head.status != 200 {
            return Err(Fault::Status);
        }
        let mut got = 0;
        while got < 5 {
            let piece = wire.some(5 - got)?;
            if !b"hello"[got..].starts_with(piece) {
                return Err(Fault::Bytes);
            }
            got += piece.len();
        }
        self.whole();
        Ok(head)
    }

    fn whole(&self) {
        let counts = self.tally.of(self.sort);
        counts.answers.fetch_add(1, Relaxed);
        counts.whole.fetch_add(1, Relaxed);
    }

    fn keep(&mut self, kept: &mut Option<Wire>) -> Result<(), Fault> {
        let wire = match kept.take() {
            Some(wire) => wire,
            None => self.open()?,
        };
        let (head, wire) = self.on(wire, |this, wire| this.small(wire, ""))?;
        if head.closes {
            self.leave(&wire);
        } else {
            *kept = Some(wire);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let begun = Instant::now();
        let wire = self.open()?;
        let connect = begun.elapsed();
        let (head, mut wire) =
            self.on(wire, |this, wire| this.small(wire, "Connection: close\r\n"))?;
        self.tally.took(connect, begun.elapsed(), head.round);
        // The node closes first, so that its side keeps the port for a while and not this one.
        let _end = wire.some(1);
        self.leave(&wire);
        Ok(())
    }

    fn slow(&mut self) -> Result<(), Fault> {
        let pieces = 4 + self.below(100) as usize;
        let wire = self.open()?;
        let (_, wire) = self.on(wire, |this, wire| {
            let head = this.ask(wire, &format!("/slow/{pieces}"), "")?;
            if head.status != 200 || head.length != (pieces * PIECE) as u64 {
                return Err(Fault::Status);
            }
            let mut at = 0;
            while at < pieces * PIECE {
                at += piece(wire, at, pieces * PIECE - at)?;
            }
            this.whole();
            Ok(())
        })?;
        self.leave(&wire);
        Ok(())
    }

    fn endless(&mut self) -> Result<(), Fault> {
        let wire = self.open()?;
        let (_, wire) = self.on(wire, |this, wire| {
            let head = this.ask(wire, "/endless", "")?;
            if head.status != 200 || !head.chunked {
                return Err(Fault::Status);
            }
            this.whole();
            // Where one chunk ends and the next begins is the proxy's affair.
            let mut at = 0;
            loop {
                let line = String::from_utf8(wire.line()?).map_err(|_| Fault::Bytes)?;
                let mut left = usize::from_str_radix(&line, 16).map_err(|_| Fault::Bytes)?;
                if left == 0 {
                    break;
                }
                while left > 0 {
                    let count = piece(wire, at, left)?;
                    at += count;
                    left -= count;
                }
                if !wire.line()?.is_empty() {
                    return Err(Fault::Bytes);
                }
            }
            wire.line().map(drop)
        })?;
        self.leave(&wire);
        Ok(())
    }

    /// For so long, or until the long ones have to stop.
    fn tunnel(&mut self, span: Option<Duration>) -> Result<(), Fault> {
        const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        let begun = Instant::now();
        let wire = self.open()?;
        let (_, wire) = self.on(wire, |this, wire| {
            if this.ask(wire, "/ws", UPGRADE)?.status != 101 {
                return Err(Fault::Status);
            }
            this.tally.of(this.sort).answers.fetch_add(1, Relaxed);
            let goes_on = |this: &Self| match span {
                Some(span) => begun.elapsed() < span && !this.tally.stop.load(Relaxed),
                None => !this.tally.stop_long.load(Relaxed),
            };
            while goes_on(this) {
                let length = 1 + this.below(600) as usize;
                let said = [this.random as u8; 600];
                wire.send(&said[..length])?;
                let mut back = 0;
                while back < length {
                    let some = wire.some(length - back)?;
                    if some.iter().any(|byte| *byte != said[0]) {
                        return Err(Fault::Bytes);
                    }
                    back += some.len();
                }
                pace(TUNNEL_PAUSE);
            }
            Ok(())
        })?;
        self.leave(&wire);
        Ok(())
    }
}

/// Some of a download, beginning at `at`: at most `most` bytes. Returns how many.
fn piece(wire: &mut Wire, at: usize, most: usize) -> Result<usize, Fault> {
    let wanted = pattern(at / PIECE);
    let wanted = &wanted[at % PIECE..];
    let some = wire.some(most.min(wanted.len()))?;
    if wanted.starts_with(some) {
        Ok(some.len())
    } else {
        Err(Fault::Bytes)
    }
}

const FAULT_PAUSE: Duration = Duration::from_millis(2);
const TUNNEL_PAUSE: Duration = Duration::from_millis(10);
