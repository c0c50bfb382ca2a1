//! What a rule can see. Interior mutability (`Cell`, `RefCell`) so that expressions may borrow messages while
//! conditions count, set variables and track.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use super::track::Slots;
use super::vars::Vars;
use crate::http1::Head;
#[cfg(doc)]
use crate::table::Table;
use crate::time::Now;
use crate::world::{ProxyId, World};

/// What belongs to a client connection for its whole life. Kept small: an idle connection owns one.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct ConnState {
    /// Source as rules see it (`src`): after PROXY header and set-src. `None` on UNIX sockets.
    pub src: Cell<Option<SocketAddr>>,
    pub dst: Cell<Option<SocketAddr>>,
    /// Addresses of the true connection (`fc_src`, `fc_dst`) when they differ, boxed to stay small.
    pub true_addrs: Option<Box<(SocketAddr, SocketAddr)>>,
    pub frontend: ProxyId,
    /// Index of the `bind` among the frontend's (so_id - 1).
    pub bind: u16,
    pub slots: Slots,
    /// What the tables of its slots count, together (see [`Table::counts`]): most events concern none of them.
    pub(super) counted: Cell<u32>,
    /// `sess.*`; allocated on first use.
    pub vars: RefCell<Option<Box<Vars>>>,
    /// Requests begun on this connection.
    pub requests: Cell<u32>,
    pub accepted_ms: u64,
    pub got_proxy_header: Cell<bool>,
}

/// What belongs to one request/response exchange (a *stream*).
#[derive(Debug)]
#[allow(missing_docs)]
pub struct StreamState {
    pub slots: Slots,
    /// What the tables of its slots count, together (see [`Table::counts`]).
    pub(super) counted: Cell<u32>,
    pub txn: RefCell<Vars>,
    pub req: RefCell<Vars>,
    pub res: RefCell<Vars>,
    pub backend: Cell<Option<ProxyId>>,
    /// Index of the chosen server in the backend.
    pub server: Cell<Option<u16>>,
}

impl ConnState {
    /// A fresh connection. `stick_counters`: `tune.stick-counters`.
    pub fn new(
        frontend: ProxyId,
        bind: u16,
        src: Option<SocketAddr>,
        dst: Option<SocketAddr>,
        stick_counters: u16,
        now: Now,
    ) -> ConnState {
        ConnState {
            src: Cell::new(src),
            dst: Cell::new(dst),
            true_addrs: None,
            frontend,
            bind,
            slots: Slots::new(usize::from(stick_counters)),
            counted: Cell::new(0),
            vars: RefCell::new(None),
            requests: Cell::new(0),
            accepted_ms: now.mono_ms,
            got_proxy_header: Cell::new(false),
        }
    }
}

impl StreamState {
    /// A fresh stream.
    pub fn new(stick_counters: u16) -> StreamState {
        StreamState {
            slots: Slots::new(usize::from(stick_counters)),
            counted: Cell::new(0),
            txn: RefCell::default(),
            req: RefCell::default(),
            res: RefCell::default(),
            backend: Cell::new(None),
            server: Cell::new(None),
        }
    }

    /// Makes it ready for the next exchange of the connection: ends its tracking, forgets its variables, keeps memory.
    pub fn reset(&self, world: &World, now: Now) {
        self.slots.release(world, now.mono_ms);
        self.counted.set(0);
        self.txn.borrow_mut().clear();
        self.req.borrow_mut().clear();
        self.res.borrow_mut().clear();
        self.backend.set(None);
        self.server.set(None);
    }
}

/// Raw bytes for content inspection. The default is "nothing came, and nothing will": who can still receive says so.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// What arrived so far.
    pub bytes: &'a [u8],
    /// Nothing more will come before rules must decide (end, buffer full, inspect-delay over): `unknown` becomes false.
    pub is_final: bool,
    /// The bytes cannot be an HTTP message (the data plane tried to parse them); HTTP fetches have no sample then.
    pub not_http: bool,
}

impl Default for Content<'_> {
    fn default() -> Self {
        Content {
            bytes: &[],
            is_final: true,
            not_http: false,
        }
    }
}

/// The messages rules look at and edit; borrowed apart from [`Cx`] so that samples can borrow from them.
#[derive(Default)]
#[allow(missing_docs)]
pub struct Msgs<'a> {
    pub req: Option<&'a mut Head>,
    pub res: Option<&'a mut Head>,
    pub req_content: Content<'a>,
    pub res_content: Content<'a>,
}

/// Everything else: shared state, the connection, the stream, the time.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Cx<'a> {
    pub world: &'a World,
    pub now: Now,
    pub conn: &'a ConnState,
    pub stream: Option<&'a StreamState>,
    /// The proxy whose rules are running (its own table is the default of `src_*`).
    pub proxy: ProxyId,
    /// State of the thread's generator for `rand`, `uuid`, `balance random`; seeded by the shell.
    pub rng: &'a Cell<u64>,
    /// Worker thread number from 0.
    pub thread: u16,
}
