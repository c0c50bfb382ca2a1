//! A worker thread: its runtime, its context, and the loop that answers other threads.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

use remora_core::rule::cx::{ConnState, Cx, StreamState};
use remora_core::world::ProxyId;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle as JoinTask, spawn_local};

use crate::proxy::accept;
use crate::proxy::buffers::Buffers;
use crate::proxy::clock::{self, Clock};
use crate::proxy::control::{Ask, Successor};
use crate::proxy::deadline::Wheel;
use crate::proxy::listen::Listener;
use crate::proxy::relay::splice::Pipes;
use crate::proxy::streams::Streams;
use crate::proxy::upstream::pool::Reaper;
use crate::proxy::work::Works;
use crate::shared::Shared;

/// Tasks polled between two looks at the sockets: with hundreds of ready connections one `epoll_wait` serves a whole
/// round of them.
const TASKS_PER_ROUND: u32 = 256;

/// How long an idle keep-alive connection may still bring a request once the process has begun to end, when no
/// `close-spread-time` says otherwise.
const DRAIN_IDLE_MS: u64 = 1000;

/// It drains since the beginning of time: nothing has any left.
const CUT: u64 = 1;

/// What the connections of one thread share. Never leaves the thread.
pub(crate) struct Thread {
    pub(crate) index: u16,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Clock,
    pub(crate) rng: Cell<u64>,
    pub(crate) wheel: Rc<Wheel>,
    pub(crate) buffers: Buffers,
    pub(crate) pipes: Pipes,
    pub(crate) works: Works,
    pub(crate) streams: Streams,
    pub(crate) reaper: Reaper,
    /// Since when (ms) this thread drains; 0 = it does not; [`CUT`].
    drain_since: Cell<u64>,
    /// Rings when everything is to end at once.
    cut: Notify,
    /// Meanwhile another process serves, and connections without a request have all the time they always had: closing one
    /// while its next request is on the way would lose that.
    idle_stays: Cell<bool>,
    /// A soft stop waits, or has waited, for `grace`.
    graced: Cell<bool>,
    conns: Cell<u32>,
    main: RefCell<Option<Waker>>,
}

impl Thread {
    fn new(index: u16, shared: Arc<Shared>) -> Rc<Thread> {
        let clock = Clock::default();
        let wheel = Wheel::new(clock.ms());
        let buffers = Buffers::new(shared.plan.global.bufsize);
        Rc::new(Thread {
            index,
            clock,
            rng: Cell::new(rand::random::<u64>() | 1),
            wheel,
            buffers,
            pipes: Pipes::default(),
            works: Works::default(),
            streams: Streams::default(),
            reaper: Reaper::default(),
            drain_since: Cell::new(0),
            cut: Notify::new(),
            idle_stays: Cell::new(false),
            graced: Cell::new(false),
            conns: Cell::new(0),
            main: RefCell::new(None),
            shared,
        })
    }

    /// What rules see besides messages.
    pub(crate) fn cx<'a>(
        &'a self,
        conn: &'a ConnState,
        stream: Option<&'a StreamState>,
        proxy: ProxyId,
    ) -> Cx<'a> {
        Cx {
            world: &self.shared.world,
            now: self.clock.now(),
            conn,
            stream,
            proxy,
            rng: &self.rng,
            thread: self.index,
        }
    }

    /// Soft stop in progress: finish what runs, keep no connection.
    pub(crate) fn draining(&self) -> bool {
        self.drain_since.get() != 0
    }

    /// When an idle keep-alive connection has to go because of draining; `None` while there is no draining.
    /// `idle_since`: it waits since then.
    pub(crate) fn drain_idle_until(&self, idle_since: u64) -> Option<u64> {
        let since = match self.drain_since.get() {
            known @ (0 | CUT) => known,
            // It may have come in later, from a queue.
            since => since.max(idle_since),
        };
        let spread = u64::from(self.shared.plan.global.close_spread_time_ms);
        (since != 0 && !(self.idle_stays.get() && spread == 0)).then(|| {
            if spread == 0 {
                since + DRAIN_IDLE_MS
            } else {
                since + self.random() % spread
            }
        })
    }

    /// Completes when everything is to end at once.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }

    /// A pseudo-random number (xorshift64*), for choices that nobody should be able to line up with.
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.rng.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.rng.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn conn_begins(&self) {
        self.conns.set(self.conns.get() + 1);
    }

    pub(crate) fn conn_ends(&self) {
        self.conns.set(self.conns.get().saturating_sub(1));
        if self.conns.get() == 0
            && self.draining()
            && let Some(main) = self.main.borrow().as_ref()
        {
            main.wake_by_ref();
        }
    }
}

/// Starts worker thread `index` with its listeners. The thread ends when it has drained, or when `asks` is closed.
///
/// # Errors
/// The thread could not be started.
pub fn spawn(
    index: u16,
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    asks: UnboundedReceiver<Ask>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || run(index, shared, listeners, asks))
}

fn run(index: u16, shared: Arc<Shared>, listeners: Vec<Listener>, asks: UnboundedReceiver<Ask>) {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(TASKS_PER_ROUND)
        .on_thread_unpark(clock::invalidate)
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(serve(Thread::new(index, shared), listeners, asks)),
        Err(err) => tracing::error!("worker {index}: cannot start its event loop: {err}"),
    }
}

async fn serve(th: Rc<Thread>, listeners: Vec<Listener>, mut asks: UnboundedReceiver<Ask>) {
    spawn_local(Rc::clone(&th.wheel).drive(clock::read().mono_ms));
    spawn_local(crate::proxy::upstream::pool::reap(Rc::clone(&th)));
    let mut doors = Doors {
        listeners: listeners.into_iter().map(Rc::new).collect(),
        loops: Vec::new(),
        paused: false,
    };
    loop {
        let ask = poll_fn(|cx| {
            *th.main.borrow_mut() = Some(cx.waker().clone());
            if th.draining() && th.conns.get() == 0 {
                return Poll::Ready(None);
            }
            asks.poll_recv(cx)
        })
        .await;
        match ask {
            None => return,
            Some(Ask::Accept { done }) => {
                if !th.draining() {
                    doors.open(&th);
                }
                let _ = done.send(());
            }
            Some(Ask::Hold { pause, done }) => {
                doors.hold(pause).await;
                let _ = done.send(());
            }
            Some(Ask::Drain(Successor::None)) if th.has_grace() => {
                th.graced.set(true);
                spawn_local(th.grace());
            }
            Some(Ask::Drain(successor)) if !th.draining() => {
                th.shared
                    .world
                    .process
                    .stopping
                    .store(true, Ordering::Relaxed);
                th.idle_stays
                    .set(matches!(successor, Successor::Process { .. }));
                th.drain_since.set(th.clock.ms().max(1));
                doors.close(&th, &successor).await;
                th.wheel.ring_all();
            }
            Some(ask) => th.answer(ask),
        }
    }
}

/// The listening sockets of a thread, and the tasks that accept on them.
struct Doors {
    listeners: Vec<Rc<Listener>>,
    loops: Vec<JoinTask<()>>,
    /// The kernel refuses.
    paused: bool,
}

impl Doors {
    fn open(&mut self, th: &Rc<Thread>) {
        let closed = self.loops.is_empty();
        self.paused = false;
        for listener in &self.listeners {
            // Also where this thread never stopped: a process that failed to take over may have changed the socket.
            if let Err(err) = listener.settle() {
                tracing::error!("cannot prepare a listening socket: {err}");
            }
            if closed {
                self.loops
                    .push(spawn_local(accept::run(Rc::clone(th), Rc::clone(listener))));
            }
        }
    }

    async fn hold(&mut self, pause: bool) {
        self.stop_accepting().await;
        if pause && !self.paused {
            self.paused = true;
            for listener in &self.listeners {
                // A socket that cannot do it stays open, and whoever wants its address will say so.
                let _ = rustix::net::shutdown(&listener.fd, rustix::net::Shutdown::Both);
            }
        }
    }

    async fn stop_accepting(&mut self) {
        for accept in self.loops.drain(..) {
            accept.abort();
            // It holds the socket.
            let _ = accept.await;
        }
    }

    /// Closes the sockets; what waits in the queues of those that nobody else serves is served.
    async fn close(&mut self, th: &Rc<Thread>, successor: &Successor) {
        self.stop_accepting().await;
        for listener in self.listeners.drain(..) {
            let orphan = match successor {
                Successor::None => !self.paused,
                Successor::Process { orphans } => orphans.contains(&listener.id),
            };
            if let Some(listener) = Rc::into_inner(listener).filter(|_| orphan) {
                accept::empty_queue(th, listener);
            }
        }
    }
}

impl Thread {
    /// A soft stop that is asked for now begins later.
    fn has_grace(&self) -> bool {
        self.shared.plan.global.grace_ms > 0 && !self.graced.get() && !self.draining()
    }
    /// Asks for it once more when the time has come. Meanwhile the thread goes on as always.
    fn grace(&self) -> impl Future<Output = ()> + use<> {
        let shared = Arc::clone(&self.shared);
        let index = usize::from(self.index);
        async move {
            let grace = std::time::Duration::from_millis(shared.plan.global.grace_ms.into());
            tokio::time::sleep(grace).await;
            if let Some(worker) = shared.workers.get(index) {
                let _ = worker.ask.send(Ask::Drain(Successor::None));
            }
        }
    }

    fn answer(&self, ask: Ask) {
        match ask {
            Ask::Sessions {
                after,
                limit,
                answer,
            } => {
                let world = &self.shared.world;
                let lines = self
                    .streams
                    .list(world, self.index, after, limit, self.clock.ms());
                let _ = answer.send(lines);
            }
            Ask::Clients { answer } => {
                // Whoever asked may have lost patience.
                let _ = answer.send(self.streams.clients(self.conns.get()));
            }
            Ask::Shutdown { id, answer } => {
                let _ = answer.send(self.streams.kill(id, &self.wheel));
            }
            Ask::Kill => {
                self.streams.kill_all(&self.wheel);
                if self.draining() {
                    // Connections between two requests have no stream.
                    self.idle_stays.set(false);
                    self.drain_since.set(CUT);
                    self.wheel.ring_all();
                }
                self.cut.notify_waiters();
            }
            Ask::Drain(Successor::None) if self.idle_stays.get() => {
                self.idle_stays.set(false);
                self.drain_since.set(self.clock.ms().max(1));
                self.wheel.ring_all();
            }
            Ask::Drain(_) | Ask::Accept { .. } | Ask::Hold { .. } => {}
        }
    }
}
