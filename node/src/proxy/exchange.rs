//! One request and its response as counters and logs see them.

use std::sync::atomic::Ordering;

use remora_core::rule::cx::StreamState;
use remora_core::rule::track;
use remora_core::time::Now;
use remora_core::world::ProxyId;

use crate::observe::log::Access;
use crate::proxy::client::Client;
use crate::proxy::counters::{add, tick};
use crate::proxy::upstream::attach::{Way, backend_begins, backend_ends};

/// Bytes after which what moved is posted to the tables though no second has passed.
const POST_BYTES: u64 = 1024 * 1024;
/// Time after which what moved is posted to the tables.
const POST_MS: u64 = 1000;

/// Facts of a running exchange. Dropping it takes the exchange off its backend.
pub(crate) struct Exchange<'a> {
    client: &'a Client,
    backend: Option<ProxyId>,
    /// Time of the first byte of the request, and when its head was complete (0 = never).
    begun: Now,
    pub(crate) head_ms: u64,
    pub(crate) way: Way,
    /// When the response head arrived; 0 = never.
    pub(crate) response_ms: u64,
    /// Status sent to the client; -1 = none.
    pub(crate) status: i32,
    /// Status of the server's response, which rules may have turned into another; 0 = none.
    pub(crate) server_status: u16,
    /// Termination letters.
    pub(crate) term: [u8; 2],
    bytes_in: u64,
    bytes_from_server: u64,
    bytes_out: u64,
    posted: Posted,
    in_backend: bool,
}

/// What the tables, frontends and backends know already.
#[derive(Default)]
struct Posted {
    bytes_in: u64,
    bytes_from_server: u64,
    bytes_out: u64,
    at_ms: u64,
}

impl<'a> Exchange<'a> {
    /// Begins with the first byte of a request, or with a TCP session.
    pub(crate) fn new(client: &'a Client, begun: Now) -> Exchange<'a> {
        Exchange {
            client,
            backend: None,
            begun,
            head_ms: 0,
            way: Way::default(),
            response_ms: 0,
            status: -1,
            server_status: 0,
            term: *b"--",
            bytes_in: 0,
            bytes_from_server: 0,
            bytes_out: 0,
            posted: Posted {
                at_ms: begun.mono_ms,
                ..Posted::default()
            },
            in_backend: false,
        }
    }

    /// When it began, ms.
    pub(crate) fn begun_ms(&self) -> u64 {
        self.begun.mono_ms
    }

    /// Where it goes.
    pub(crate) fn backend(&self) -> Option<ProxyId> {
        self.backend
    }

    /// The exchange belongs to a backend from here on.
    pub(crate) fn enter(&mut self, backend: ProxyId) {
        if self.backend.is_none() {
            self.backend = Some(backend);
            self.in_backend = true;
            backend_begins(&self.client.th, backend);
        }
    }

    /// Total bytes so far: from the client, from the server, to the client. Posts them to tables and counters when it
    /// is time, and says when it will be (0 = nothing to post).
    pub(crate) fn moved(
        &mut self,
        stream: &StreamState,
        from_client: u64,
        from_server: u64,
        to_client: u64,
        now_ms: u64,
    ) -> u64 {
        self.bytes_in = self.bytes_in.max(from_client);
        self.bytes_from_server = self.bytes_from_server.max(from_server);
        self.bytes_out = self.bytes_out.max(to_client);
        let fresh = (self.bytes_in - self.posted.bytes_in)
            + (self.bytes_from_server - self.posted.bytes_from_server);
        if fresh == 0 {
            return 0;
        }
        let due = self.posted.at_ms + POST_MS;
        if fresh >= POST_BYTES || now_ms >= due {
            self.post(stream, now_ms);
            return 0;
        }
        due
    }

    /// Bytes that came from the client so far.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// So many more bytes came from the client.
    pub(crate) fn took(&mut self, n: u64) {
        self.bytes_in += n;
    }

    /// Bytes that went to the client so far.
    pub(crate) fn given(&self) -> u64 {
        self.bytes_out
    }

    /// So many more bytes went to the client.
    pub(crate) fn gave(&mut self, n: u64) {
        self.bytes_out += n;
    }

    /// Tells tables and counters what has moved since the last time.
    fn post(&mut self, stream: &StreamState, now_ms: u64) {
        let shared = &self.client.th.shared;
        let world = &shared.world;
        let conn = &self.client.conn;
        let bytes_in = self.bytes_in - self.posted.bytes_in;
        let from_server = self.bytes_from_server - self.posted.bytes_from_server;
        let bytes_out = self.bytes_out - self.posted.bytes_out;
        let front = &self.client.front().front;
        if bytes_in > 0 {
            track::count_bytes_in(world, conn, Some(stream), bytes_in, now_ms);
            add(&front.bin, bytes_in);
        }
        if from_server > 0 {
            track::count_bytes_out(world, conn, Some(stream), from_server, now_ms);
        }
        if bytes_out > 0 {
            add(&front.bout, bytes_out);
            add(&world.process.bytes_out, bytes_out);
        }
        if let Some(backend) = self.backend.and_then(|id| world.proxy(id)) {
            add(&backend.back.bin, bytes_in);
            add(&backend.back.bout, bytes_out);
            if let Some(server) = self
                .way
                .server
                .and_then(|server| backend.servers.get(usize::from(server)))
            {
                add(&server.stats.bin, bytes_in);
                add(&server.stats.bout, bytes_out);
            }
        }
        self.posted = Posted {
            bytes_in: self.bytes_in,
            bytes_from_server: self.bytes_from_server,
            bytes_out: self.bytes_out,
            at_ms: now_ms,
        };
    }

    /// The request was refused by a rule of this frontend or backend.
    pub(crate) fn denied(&self) {
        add(&self.client.front().front.dreq, 1);
        if let Some(backend) = self
            .backend
            .and_then(|id| self.client.th.shared.world.proxy(id))
        {
            add(&backend.back.dreq, 1);
        }
    }

    /// The response was refused by a rule.
    pub(crate) fn response_denied(&self) {
        add(&self.client.front().front.dresp, 1);
        if let Some(backend) = self
            .backend
            .and_then(|id| self.client.th.shared.world.proxy(id))
        {
            add(&backend.back.dresp, 1);
            if let Some(server) = self
                .way
                .server
                .and_then(|server| backend.servers.get(usize::from(server)))
            {
                add(&server.stats.dresp, 1);
            }
        }
    }

    /// The server gave no or no valid response.
    pub(crate) fn response_failed(&self) {
        if let Some(backend) = self
            .backend
            .and_then(|id| self.client.th.shared.world.proxy(id))
        {
            add(&backend.back.eresp, 1);
            if let Some(server) = self
                .way
                .server
                .and_then(|server| backend.servers.get(usize::from(server)))
            {
                add(&server.stats.eresp, 1);
            }
        }
    }

    /// Counts the end and writes the log line.
    pub(crate) fn finish(&mut self, stream: &StreamState, request_line: &[u8], http: bool) {
        let client = self.client;
        let th = &client.th;
        let shared = &th.shared;
        let world = &shared.world;
        let now = th.clock.now();
        self.post(stream, now.mono_ms);
        let backend = self.backend.and_then(|id| world.proxy(id));
        let server = backend
            .zip(self.way.server)
            .and_then(|(backend, server)| backend.servers.get(usize::from(server)));
        if http && self.status > 0 {
            let class = |status: i32| match status / 100 {
                n @ 1..=5 => n as usize - 1,
                _ => 5,
            };
            add(&client.front().front.hrsp[class(self.status)], 1);
            if let Some(backend) = backend {
                add(&backend.back.hrsp[class(self.status)], 1);
            }
            if let Some(server) = server
                && self.server_status > 0
            {
                add(&server.stats.hrsp[class(i32::from(self.server_status))], 1);
            }
        }
        if let Some(backend) = backend {
            let aborted = match self.term[0] {
                b'C' | b'c' => Some((
                    &backend.back.cli_abrt,
                    server.map(|server| &server.stats.cli_abrt),
                )),
                b'S' | b's' if self.term[1] == b'D' => Some((
                    &backend.back.srv_abrt,
                    server.map(|server| &server.stats.srv_abrt),
                )),
                _ => None,
            };
            if let Some((of_backend, of_server)) = aborted {
                add(of_backend, 1);
                if let Some(of_server) = of_server {
                    add(of_server, 1);
                }
            }
        }
        // The counts of a log line do not include the exchange itself where it has left already, as in HAProxy.
        self.leave();
        if !shared.logs.wanted(client.conn.frontend) {
            return;
        }
        let span = |from: u64, to: u64| -> i64 {
            if from == 0 || to == 0 {
                -1
            } else {
                to.saturating_sub(from) as i64
            }
        };
        let place_from = if http {
            self.head_ms
        } else {
            self.begun.mono_ms
        };
        shared.logs.access(
            shared,
            &Access {
                client: client.conn.src.get(),
                local: client.conn.dst.get(),
                accept_wall_us: client.accepted().wall_us,
                request_wall_us: self.begun.wall_us,
                frontend: client.conn.frontend,
                backend: self.backend,
                server: server.map(|server| server.name.as_str()),
                tr_req: span(self.begun.mono_ms, self.head_ms),
                tw: span(place_from, self.way.queued_ms),
                tc: span(self.way.queued_ms, self.way.connected_ms),
                tr_res: span(self.way.connected_ms, self.response_ms),
                ta: span(self.begun.mono_ms, now.mono_ms),
                status: self.status,
                bytes_out: self.bytes_out,
                bytes_in: self.bytes_in,
                term: self.term,
                actconn: world.process.curr_conns.load(Ordering::Relaxed),
                feconn: client.front().front.scur.load(Ordering::Relaxed),
                beconn: backend.map_or(0, |backend| backend.back.scur.load(Ordering::Relaxed)),
                srvconn: server.map_or(0, |server| server.stats.scur.load(Ordering::Relaxed)),
                retries: self.way.retries,
                redispatched: self.way.redispatched,
                srv_queue: self.way.srv_queue,
                be_queue: self.way.be_queue,
                request_line,
            },
        );
    }

    /// The exchange no longer counts as one of its backend's.
    fn leave(&mut self) {
        if std::mem::take(&mut self.in_backend)
            && let Some(backend) = self.backend
        {
            backend_ends(&self.client.th, backend);
        }
    }

    /// A complete request head has arrived.
    pub(crate) fn request_begins(&mut self) {
        let th = &self.client.th;
        let now = th.clock.ms();
        self.head_ms = now;
        let world = &th.shared.world;
        let front = &self.client.front().front;
        add(&front.req_tot, 1);
        tick(&front.req_rate, now);
        add(&world.process.cum_reqs, 1);
        let requests = &self.client.conn.requests;
        requests.set(requests.get().saturating_add(1));
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
