//! The live streams of a thread, for `show sess` and `shutdown session`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use remora_core::rule::cx::ConnState;
use remora_core::world::{ProxyId, World};

use crate::proxy::control::{Clients, SessionLine};
use crate::proxy::deadline::Wheel;

/// What others may know about a stream while it lives. Reused from one stream to the next.
#[derive(Debug, Default)]
pub(crate) struct Info {
    /// 0: there is no stream at the moment.
    id: Cell<u64>,
    place: Cell<usize>,
    alarm: Cell<u32>,
    since_ms: Cell<u64>,
    src: Cell<Option<std::net::SocketAddr>>,
    frontend: Cell<u16>,
    pub(crate) backend: Cell<Option<ProxyId>>,
    pub(crate) server: Cell<Option<u16>>,
    uri: RefCell<Vec<u8>>,
    killed: Cell<bool>,
    calls: Cell<u64>,
}

impl Info {
    /// Somebody asked for this stream to end.
    pub(crate) fn is_killed(&self) -> bool {
        self.killed.get()
    }
    /// The stream's task ran once more.
    pub(crate) fn called(&self) {
        self.calls.set(self.calls.get() + 1);
    }
    /// What it asks for.
    pub(crate) fn set_uri(&self, uri: &[u8]) {
        let mut text = self.uri.borrow_mut();
        text.clear();
        text.extend_from_slice(uri.get(..1024).unwrap_or(uri));
    }
}

/// The registry. Beginning and ending a stream touches nothing but its own information.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    entered: RefCell<Vec<Rc<Info>>>,
    count: Cell<u64>,
}

impl Streams {
    /// Adds a place where streams come and go.
    pub(crate) fn enter(&self, info: &Rc<Info>) {
        let mut entered = self.entered.borrow_mut();
        info.place.set(entered.len());
        entered.push(Rc::clone(info));
    }

    /// Takes it away again.
    pub(crate) fn leave(&self, info: &Rc<Info>) {
        self.end(info);
        let mut entered = self.entered.borrow_mut();
        let place = info.place.get();
        if entered
            .get(place)
            .is_some_and(|known| Rc::ptr_eq(known, info))
        {
            entered.swap_remove(place);
            if let Some(moved) = entered.get(place) {
                moved.place.set(place);
            }
        }
    }

    /// A stream begins, under a new id, unique in the process.
    pub(crate) fn begin(
        &self,
        info: &Info,
        thread: u16,
        conn: &ConnState,
        alarm: u32,
        now_ms: u64,
    ) {
        let number = self.count.get() + 1;
        self.count.set(number);
        info.id.set(number << 10 | u64::from(thread & 0x3ff));
        info.alarm.set(alarm);
        info.since_ms.set(now_ms);
        info.src.set(conn.src.get());
        info.frontend.set(conn.frontend.0);
        info.backend.set(None);
        info.server.set(None);
        info.uri.borrow_mut().clear();
        info.killed.set(false);
        info.calls.set(1);
    }

    /// The stream is over.
    pub(crate) fn end(&self, info: &Info) {
        info.id.set(0);
    }

    /// At most `limit` streams with an id above `after`, in id order.
    pub(crate) fn list(
        &self,
        world: &World,
        thread: u16,
        after: u64,
        limit: usize,
        now_ms: u64,
    ) -> Vec<SessionLine> {
        let entered = self.entered.borrow();
        let live = entered.iter().filter(|info| info.id.get() > after);
        let mut found: Vec<&Rc<Info>> = live.collect();
        found.sort_by_key(|info| info.id.get());
        found.truncate(limit);
        found
            .into_iter()
            .map(|info| {
                let backend = info.backend.get().and_then(|id| world.proxy(id));
                SessionLine {
                    id: info.id.get(),
                    proto: match info.src.get() {
                        Some(std::net::SocketAddr::V4(_)) => "tcpv4",
                        Some(std::net::SocketAddr::V6(_)) => "tcpv6",
                        None => "unix_stream",
                    },
                    src: info
                        .src
                        .get()
                        .map_or_else(|| "unix".into(), |src| src.to_string()),
                    frontend: world
                        .proxy(ProxyId(info.frontend.get()))
                        .map(|proxy| proxy.name.clone())
                        .unwrap_or_default(),
                    backend: backend.map(|proxy| proxy.name.clone()),
                    server: backend
                        .zip(info.server.get())
                        .and_then(|(proxy, server)| proxy.servers.get(usize::from(server)))
                        .map(|server| server.name.clone()),
                    age_ms: now_ms.saturating_sub(info.since_ms.get()),
                    calls: info.calls.get(),
                    thread,
                    uri: {
                        let uri = info.uri.borrow();
                        (!uri.is_empty()).then(|| String::from_utf8_lossy(&uri).into_owned())
                    },
                }
            })
            .collect()
    }

    /// Whom there are streams with, on a thread with so many connections.
    pub(crate) fn clients(&self, conns: u32) -> Clients {
        let entered = self.entered.borrow();
        let live = entered.iter().filter(|info| info.id.get() != 0);
        let sources: Vec<_> = live.map(|info| info.src.get()).collect();
        Clients {
            idle: conns as usize > sources.len(),
            addresses: sources.into_iter().flatten().map(|src| src.ip()).collect(),
        }
    }

    /// Ends all streams.
    pub(crate) fn kill_all(&self, wheel: &Wheel) {
        for info in self.entered.borrow().iter() {
            if info.id.get() != 0 {
                info.killed.set(true);
                wheel.ring(info.alarm.get());
            }
        }
    }

    /// Ends the stream with that id.
    pub(crate) fn kill(&self, id: u64, wheel: &Wheel) -> bool {
        let entered = self.entered.borrow();
        match entered.iter().find(|info| info.id.get() == id) {
            Some(info) if id != 0 => {
                info.killed.set(true);
                wheel.ring(info.alarm.get());
                true
            }
            _ => false,
        }
    }
}
