//! A client connection's long-lived state, and the guard that gives everything back when it ends, however it ends.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use remora_config::plan::{Bind, Proxy};
use remora_core::rule::cx::ConnState;
use remora_core::time::Now;
use remora_core::world::{ProxyId, ProxyState};

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::proxy::deadline::Alarm;
use crate::proxy::worker::Thread;

/// An accepted connection. Dropping it releases its trackers and its places.
pub(crate) struct Client {
    pub(crate) th: Rc<Thread>,
    pub(crate) conn: ConnState,
    pub(crate) alarm: Alarm,
    accepted_wall_us: u64,
    /// End of the last exchange, ms; the time of acceptance before the first.
    pub(crate) idle_since: Cell<u64>,
    /// The client will send no more.
    pub(crate) at_end: Cell<bool>,
}

impl Client {
    pub(crate) fn new(th: Rc<Thread>, conn: ConnState, accepted: Now) -> Client {
        th.conn_begins();
        Client {
            alarm: th.wheel.alarm(),
            conn,
            accepted_wall_us: accepted.wall_us,
            idle_since: Cell::new(accepted.mono_ms),
            at_end: Cell::new(false),
            th,
        }
    }

    /// When it was accepted.
    pub(crate) fn accepted(&self) -> Now {
        Now {
            mono_ms: self.conn.accepted_ms,
            wall_us: self.accepted_wall_us,
        }
    }

    /// Its frontend's configuration.
    pub(crate) fn plan(&self) -> &Proxy {
        &self.th.shared.plan.proxies[usize::from(self.conn.frontend.0)]
    }

    /// The `bind` it came through.
    pub(crate) fn bind(&self) -> &Bind {
        &self.plan().binds[usize::from(self.conn.bind)]
    }

    /// Its frontend.
    pub(crate) fn front(&self) -> &ProxyState {
        &self.th.shared.world.proxies[usize::from(self.conn.frontend.0)]
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.conn
            .slots
            .release(&self.th.shared.world, self.th.clock.ms());
        give_places_back(&self.th, self.conn.frontend, self.conn.bind);
        self.th.conn_ends();
    }
}

/// The client has gone altogether (reset), or closed its sending side if that counts as leaving. Asked while the
/// connection waits for something else; registers for being asked again when that changes. Data that the client sends
/// ahead is not looked at.
pub(crate) fn has_left(sock: &TcpStream, closing_counts: bool, cx: &mut Context<'_>) -> bool {
    if sock.poll_read_ready(cx).is_pending() {
        return false;
    }
    // A reset closes both sides. Ready at once: the reading side is.
    let ready = sock.ready(Interest::READABLE | Interest::WRITABLE);
    tokio::pin!(ready);
    matches!(
        ready.poll(cx),
        Poll::Ready(Ok(ready)) if ready.is_write_closed() || closing_counts && ready.is_read_closed()
    )
}

/// Gives a connection's places within the limits back and lets waiting accept loops go on.
pub(crate) fn give_places_back(th: &Thread, frontend: ProxyId, bind: u16) {
    let shared = &th.shared;
    let front = shared.plane.front(frontend);
    let proxy = &shared.world.proxies[usize::from(frontend.0)];
    proxy.bind_conns[usize::from(bind)].fetch_sub(1, Ordering::SeqCst);
    proxy.front.scur.fetch_sub(1, Ordering::SeqCst);
    shared
        .world
        .process
        .curr_conns
        .fetch_sub(1, Ordering::SeqCst);
    front.gate.open();
    shared.plane.process_gate.open();
}
