//! Idle connections to servers, kept per thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::net::TcpStream;

use super::ServerId;
use crate::proxy::socket;
use crate::proxy::worker::Thread;

/// Idle connections kept per server and thread.
const KEPT_MAX: usize = 512;
/// How long a connection may stay idle.
const IDLE_MS_MAX: u64 = 5_000;
/// How often the reaper looks.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// An idle connection.
pub(crate) struct Idle {
    pub(crate) stream: TcpStream,
    pub(crate) since_ms: u64,
}

impl Idle {
    /// The server has neither closed it nor sent anything nobody asked for. Mostly the reactor knows already and this
    /// costs no system call; only what it reported before the last bytes were taken has to be looked at again.
    fn is_quiet(&self) -> bool {
        socket::try_recv(&self.stream, &mut [0])
            .is_err_and(|err| err.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// The most recently used idle connection of this thread to a server, if one is usable and was used within the last
/// `age_ms_max`.
pub(crate) fn take(th: &Thread, id: ServerId, age_ms_max: u64) -> Option<TcpStream> {
    let upstream = th.shared.plane.upstreams.server(id);
    let mine = &upstream.idle[usize::from(th.index)];
    loop {
        let idle = {
            let mut list = mine.lock();
            let last = list.last()?;
            if th.clock.ms().saturating_sub(last.since_ms) > age_ms_max {
                return None;
            }
            list.pop()?
        };
        left(th, id);
        if idle.is_quiet() {
            return Some(idle.stream);
        }
        closed(th, id);
    }
}

/// An idle connection of another thread, moved to this thread's reactor.
pub(crate) fn take_over(th: &Thread, id: ServerId) -> Option<TcpStream> {
    let upstream = th.shared.plane.upstreams.server(id);
    for (thread, list) in upstream.idle.iter().enumerate() {
        if thread == usize::from(th.index) {
            continue;
        }
        loop {
            let Some(idle) = list.lock().pop() else {
                break;
            };
            left(th, id);
            if idle.is_quiet()
                && let Ok(stream) = idle.stream.into_std()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                return Some(stream);
            }
            closed(th, id);
        }
    }
    None
}

/// Closes one idle connection to a server, of any thread, to make room for a new one.
pub(crate) fn close_one(th: &Thread, id: ServerId) -> bool {
    let upstream = th.shared.plane.upstreams.server(id);
    for list in &upstream.idle {
        let idle = list.lock().pop();
        if idle.is_some() {
            drop(idle);
            left(th, id);
            closed(th, id);
            return true;
        }
    }
    false
}

/// Keeps a connection for later, or closes it when there are enough.
pub(crate) fn keep(th: &Thread, id: ServerId, stream: TcpStream) {
    let upstream = th.shared.plane.upstreams.server(id);
    let mut list = upstream.idle[usize::from(th.index)].lock();
    if list.len() >= KEPT_MAX || th.draining() {
        drop(list);
        drop(stream);
        closed(th, id);
        return;
    }
    list.push(Idle {
        stream,
        since_ms: th.clock.ms(),
    });
    th.reaper.rouse();
    id.state(&th.shared.world)
        .stats
        .idle
        .fetch_add(1, Ordering::Relaxed);
}

fn left(th: &Thread, id: ServerId) {
    id.state(&th.shared.world)
        .stats
        .idle
        .fetch_sub(1, Ordering::Relaxed);
}

/// A connection to a server is no more: it no longer counts against the server's `maxconn`.
pub(crate) fn closed(th: &Thread, id: ServerId) {
    th.shared
        .plane
        .upstreams
        .server(id)
        .conns
        .fetch_sub(1, Ordering::Relaxed);
}

/// When the reaper of a thread works.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    /// It sleeps for good, as there was nothing idle; whoever makes a connection idle wakes it.
    asleep: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Reaper {
    fn rouse(&self) {
        if self.asleep.get()
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }
}

/// Closes idle connections that are too old or that the server closed. One task per thread; without idle connections it
/// has no tick.
pub(crate) async fn reap(th: Rc<Thread>) {
    loop {
        if reap_once(&th) {
            tokio::time::sleep(REAP_EVERY).await;
            continue;
        }
        th.reaper.asleep.set(true);
        let mut first = true;
        poll_fn(|cx| {
            if !std::mem::take(&mut first) {
                return Poll::Ready(());
            }
            *th.reaper.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        th.reaper.asleep.set(false);
    }
}

fn reap_once(th: &Thread) -> bool {
    let now = th.clock.ms();
    let mut any = false;
    for (proxy, state) in th.shared.world.proxies.iter().enumerate() {
        for server in 0..state.servers.len() as u16 {
            let id = ServerId {
                backend: remora_core::world::ProxyId(proxy as u16),
                server,
            };
            let list = &th.shared.plane.upstreams.server(id).idle[usize::from(th.index)];
            let mut dead = Vec::new();
            {
                let mut list = list.lock();
                let mut at = 0;
                while at < list.len() {
                    let idle = &list[at];
                    if now.saturating_sub(idle.since_ms) > IDLE_MS_MAX
                        || th.draining()
                        || !idle.is_quiet()
                    {
                        dead.push(list.remove(at));
                    } else {
                        at += 1;
                    }
                }
                any |= !list.is_empty();
            }
            for idle in dead {
                drop(idle);
                left(th, id);
                closed(th, id);
            }
        }
    }
    any
}
