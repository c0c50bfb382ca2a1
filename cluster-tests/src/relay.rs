//! A relay on a link between two nodes: delays, holds, cuts or spoils what passes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pieces in flight in one direction of a stream; a sender further ahead is made to wait.
const PIECES: usize = 4096;

/// What passes at a time, so that a slow link goes on all the time.
const PART: usize = 2048;

/// Forwards TCP connections to one target.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    delay: Duration,
    /// Bytes that pass in a second, in each direction of each stream.
    speed: Option<u32>,
    held: bool,
    cut: bool,
    closed: bool,
    /// Both ends of every stream that passes, dialer first.
    streams: Vec<(TcpStream, TcpStream)>,
    /// Passed from the dialer to the target, and back.
    bytes: [u64; 2],
    accepted: u64,
}

impl Relay {
    /// Listens on a port of loopback and forwards to `target`.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &own));
        Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Delays everything from now on, in each direction.
    pub fn delay(&self, by: Duration) {
        self.shared.state().delay = by;
    }

    /// Lets only so many bytes a second pass from now on, in each direction of each connection; `None`: all.
    pub fn slow(&self, bytes: Option<u32>) {
        self.shared.state().speed = bytes;
        self.shared.changed.notify_all();
    }

    /// Holds everything back: connections stay open and nothing passes, as when packets are lost. Other links go on, so
    /// what is released later arrives in another order than it was sent.
    pub fn hold(&self) {
        self.shared.state().held = true;
    }

    /// Lets everything that was held back pass.
    pub fn release(&self) {
        self.shared.state().held = false;
        self.shared.changed.notify_all();
    }

    /// Closes all connections and refuses new ones; what was on its way is lost.
    pub fn cut(&self) {
        let mut state = self.shared.state();
        state.cut = true;
        state.hang_up();
    }

    /// Closes all connections; new ones are let through.
    pub fn hang_up(&self) {
        self.shared.state().hang_up();
    }

    /// Ends [`Relay::cut`].
    pub fn heal(&self) {
        self.shared.state().cut = false;
    }

    /// Slips bytes into every stream, towards the target.
    pub fn inject(&self, bytes: &[u8]) {
        for (_, target) in &self.shared.state().streams {
            // A stream that has ended takes nothing.
            let _gone = (&*target).write_all(bytes);
        }
    }

    /// Bytes passed so far: from the dialer to the target, and back.
    pub fn bytes(&self) -> [u64; 2] {
        self.shared.state().bytes
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.closed = true;
            state.hang_up();
        }
        self.shared.changed.notify_all();
        // Wakes the acceptor, which then sees that it is over.
        let _woken = TcpStream::connect(self.addr);
        let _joined = self.acceptor.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }

    /// Waits for as long as so many bytes take. `false`: the relay has ended.
    fn take_time(&self, bytes: usize) -> bool {
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            let time = state.speed.map_or(Duration::ZERO, |speed| {
                Duration::from_secs_f64(bytes as f64 / f64::from(speed))
            });
            let left = time.saturating_sub(begun.elapsed());
            if state.closed || left.is_zero() {
                return !state.closed;
            }
            let (again, _) = self
                .changed
                .wait_timeout(state, left)
                .expect("nobody panics with the lock");
            state = again;
        }
    }

    /// Waits until a piece may pass. `false`: the relay has ended.
    fn may_pass(&self, due: Instant) -> bool {
        let mut state = self.state();
        loop {
            if state.closed {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if !state.held && left.is_zero() {
                return true;
            }
            let pause = if state.held {
                Duration::from_secs(1)
            } else {
                left
            };
            let (again, _) = self
                .changed
                .wait_timeout(state, pause)
                .expect("nobody panics with the lock");
            state = again;
        }
    }
}

impl State {
    fn hang_up(&mut self) {
        for (dialer, target) in self.streams.drain(..) {
            let _gone = dialer.shutdown(Shutdown::Both);
            let _gone = target.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for dialer in listener.incoming() {
        let Ok(dialer) = dialer else { continue };
        {
            let mut state = shared.state();
            if state.closed {
                return;
            }
            if state.cut {
                continue;
            }
            state.accepted += 1;
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || forward(dialer, &shared));
    }
}

fn forward(dialer: TcpStream, shared: &Arc<Shared>) {
    // A held link does not even connect.
    if !shared.may_pass(Instant::now()) {
        return;
    }
    let Ok(target) = TcpStream::connect(shared.target) else {
        return;
    };
    let twin = |stream: &TcpStream| {
        // Small pieces must not wait for each other: the delay is ours to say.
        stream.set_nodelay(true).and_then(|()| stream.try_clone())
    };
    let (Ok(dialer_in), Ok(target_in)) = (twin(&dialer), twin(&target)) else {
        return;
    };
    {
        let mut state = shared.state();
        if state.cut || state.closed {
            let _gone = dialer.shutdown(Shutdown::Both);
            return;
        }
        let (Ok(one), Ok(two)) = (twin(&dialer), twin(&target)) else {
            return;
        };
        // Those that have ended by themselves need no hanging up.
        state
            .streams
            .retain(|(dialer, _)| dialer.peer_addr().is_ok());
        state.streams.push((one, two));
    }
    pump(dialer_in, target, shared, 0);
    pump(target_in, dialer, shared, 1);
}

/// One direction: a thread that reads and a thread that writes when the time has come.
fn pump(from: TcpStream, to: TcpStream, shared: &Arc<Shared>, way: usize) {
    let (send, receive) = sync_channel(PIECES);
    let reading = Arc::clone(shared);
    std::thread::spawn(move || read(from, &send, &reading));
    let writing = Arc::clone(shared);
    std::thread::spawn(move || write(to, &receive, &writing, way));
}

fn read(mut from: TcpStream, send: &SyncSender<(Instant, Vec<u8>)>, shared: &Shared) {
    let mut piece = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let due = Instant::now() + shared.state().delay;
        if send.send((due, piece[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn write(mut to: TcpStream, receive: &Receiver<(Instant, Vec<u8>)>, shared: &Shared, way: usize) {
    'open: while let Ok((due, piece)) = receive.recv() {
        for part in piece.chunks(PART) {
            if !shared.may_pass(due) || !shared.take_time(part.len()) || to.write_all(part).is_err()
            {
                break 'open;
            }
            shared.state().bytes[way] += part.len() as u64;
        }
    }
    let _gone = to.shutdown(Shutdown::Write);
}
