//! The conversation with a server about one request: the request goes out, the response head comes in, both bodies move.

use std::task::{Context, Poll};

use remora_core::http1::{Framing, Limits, ParseError, RequestFacts, ResponseForward, Version};
use tokio::net::TcpStream;

use crate::proxy::client::{Client, has_left};
use crate::proxy::counters::add;
use crate::proxy::exchange::Exchange;
use crate::proxy::relay::body::{Fault, JOIN_MAX, Pump};
use crate::proxy::relay::tunnel;
use crate::proxy::socket;
use crate::proxy::upstream::attach::UpConn;
use crate::proxy::work::Work;

/// Rounds of receiving from a server that answers without end before other connections get a turn.
const MOVES_MAX: u32 = 32;

/// What came of talking to a server until its response head was there.
pub(super) enum Heard {
    /// A final response head is in `work.res`.
    Head(Framing),
    /// The server closed or broke the connection; whether it had sent anything before.
    Dead {
        silent: bool,
    },
    /// A connection from the pool was dead and the request cannot be sent twice: the client connection is closed
    /// without an answer, as if it had met the end of an idle connection.
    Stale,
    /// What it sent is no HTTP response.
    Garbage,
    ServerTimeout,
    /// The client left, or stopped sending its body.
    ClientGone([u8; 2]),
    ClientTimeout,
    BadBody(ParseError),
    Killed,
}

/// Everything a running conversation moves.
pub(super) struct Talk<'a, 'c> {
    pub(super) client: &'a Client,
    pub(super) sock: &'a mut TcpStream,
    pub(super) work: &'a mut Work,
    pub(super) x: &'a mut Exchange<'c>,
    pub(super) pump: Pump,
    pub(super) request_done: bool,
    /// The server no longer takes the request; it may still answer.
    request_broken: bool,
    /// Request head bytes, response head bytes: what the pumps do not count.
    head_len: u64,
    response_head_len: u64,
    sent_before: u64,
    /// Last activity, ms.
    client_ms: u64,
    server_ms: u64,
    client_limit: Option<u32>,
    server_limit: Option<u32>,
}

impl<'a, 'c> Talk<'a, 'c> {
    /// About a request whose head is in the outbox to the server and whose body `pump` moves.
    pub(super) fn new(
        client: &'a Client,
        sock: &'a mut TcpStream,
        work: &'a mut Work,
        x: &'a mut Exchange<'c>,
        pump: Pump,
        client_limit: Option<u32>,
        server_limit: Option<u32>,
    ) -> Talk<'a, 'c> {
        Talk {
            head_len: x.bytes_in(),
            sent_before: x.given(),
            client,
            sock,
            work,
            x,
            pump,
            request_done: false,
            request_broken: false,
            response_head_len: 0,
            client_ms: 0,
            server_ms: 0,
            client_limit,
            server_limit,
        }
    }

    /// Back to the beginning of the request, for another connection.
    pub(super) fn rewind(&mut self) {
        self.work.ways.to_server.sent = 0;
        self.request_done = false;
        self.request_broken = false;
    }

    /// The request goes no further: counts what came, and drops what was read of its body, which must never be taken
    /// for the next request. Says whether the client is still sending it.
    pub(super) fn give_up(&mut self) -> bool {
        self.pump.forget(&mut self.work.ways.from_client);
        self.count(None, self.client.th.clock.ms());
        !self.pump.all_read()
    }
}

impl Talk<'_, '_> {
    /// Bytes that came from the client and from the server so far.
    pub(super) fn totals(&self, response: Option<&Pump>) -> (u64, u64) {
        (
            self.head_len + self.pump.taken(),
            self.response_head_len + response.map_or(0, Pump::taken),
        )
    }

    /// Posts what moved; when to do so next (0 = nothing to post).
    pub(super) fn count(&mut self, response: Option<&Pump>, now: u64) -> u64 {
        let (from_client, from_server) = self.totals(response);
        let to_client = self.sent_before + response.map_or(0, |pump| pump.sent);
        self.x
            .moved(&self.work.stream, from_client, from_server, to_client, now)
    }

    /// Moves the request on. Says what went wrong on the client's side.
    fn push_request(
        &mut self,
        up: &mut TcpStream,
        cx: &mut Context<'_>,
        now: u64,
    ) -> Result<(), Heard> {
        if self.request_done || self.request_broken {
            return Ok(());
        }
        let ways = &mut self.work.ways;
        if self.pump.send_at_once(up, &mut ways.to_server) {
            self.request_done = true;
            self.server_ms = now;
            return Ok(());
        }
        let (received, sent) = (self.pump.received, self.pump.sent);
        let polled = self.pump.poll(
            &self.client.th,
            self.sock,
            up,
            &mut ways.from_client,
            &mut ways.to_server,
            cx,
        );
        if self.pump.received != received {
            self.client_ms = now;
        }
        if self.pump.sent != sent {
            self.server_ms = now;
        }
        match polled {
            Poll::Ready(Ok(())) => {
                self.request_done = true;
                self.server_ms = now;
            }
            Poll::Ready(Err(Fault::Sink(_))) => self.request_broken = true,
            Poll::Ready(Err(Fault::Invalid(err))) => return Err(Heard::BadBody(err)),
            Poll::Ready(Err(Fault::Source(_) | Fault::SourceEnded)) => {
                return Err(Heard::ClientGone(*b"CD"));
            }
            Poll::Pending => {}
        }
        Ok(())
    }

    /// The request waits for the client rather than for the server.
    fn waits_for_client(&self) -> bool {
        !self.request_done
            && !self.request_broken
            && !self.pump.is_stuck_on_sink(&self.work.ways.to_server)
    }

    /// Sends the request and reads until a final response head is there; passes interim responses on.
    pub(super) async fn until_head(
        &mut self,
        up: &mut UpConn,
        facts: &RequestFacts,
        abort_on_close: bool,
    ) -> Heard {
        let th = &self.client.th;
        let global = &th.shared.plan.global;
        let limits = Limits {
            head_bytes_max: global.bufsize,
            headers_max: global.maxhdr,
        };
        self.client_ms = th.clock.ms();
        self.server_ms = self.client_ms;
        self.work.res.clear();
        let mut silent = true;
        let mut watch_client = true;
        let mut server_ended = false;
        std::future::poll_fn(|cx| {
            let now = th.clock.ms();
            self.work.info.called();
            if self.work.info.is_killed() {
                return Poll::Ready(Heard::Killed);
            }
            let up = up.stream();
            if let Err(heard) = self.push_request(up, cx, now) {
                return Poll::Ready(heard);
            }
            let mut moves = 0;
            loop {
                moves += 1;
                if moves > MOVES_MAX {
                    cx.waker().wake_by_ref();
                    break;
                }
                // Interim responses first: the client may wait for them.
                if !self.work.ways.to_client.is_empty() {
                    match self.work.ways.to_client.poll_send(self.sock, cx) {
                        Poll::Ready(Ok(())) => {
                            self.sent_before += self.work.ways.to_client.bytes.len() as u64;
                            self.work.ways.to_client.clear();
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Heard::ClientGone(*b"CH")),
                        Poll::Pending => break,
                    }
                }
                let buf = &mut self.work.ways.from_server;
                if !buf.is_empty() {
                    match self.work.res.parse_response(buf.filled(), &limits) {
                        Err(_) => return Poll::Ready(Heard::Garbage),
                        Ok(Some(n)) => {
                            buf.consume(n);
                            self.response_head_len += n as u64;
                            if !self.work.res.is_interim() {
                                return Poll::Ready(match self.work.res.response_framing(facts) {
                                    Ok(framing) => Heard::Head(framing),
                                    Err(_) => Heard::Garbage,
                                });
                            }
                            if facts.version == Version::Http11 {
                                let res = &mut self.work.res;
                                let prepared = res.prepare_response_for_client(&ResponseForward {
                                    request: *facts,
                                    framing: Framing::None,
                                    keep_alive: true,
                                });
                                if prepared.is_err() {
                                    return Poll::Ready(Heard::Garbage);
                                }
                                res.write(&mut self.work.ways.to_client.bytes);
                            }
                            self.work.res.clear();
                            continue;
                        }
                        Ok(None) => {}
                    }
                }
                if server_ended {
                    return Poll::Ready(Heard::Dead { silent });
                }
                match socket::poll_readable(up, cx) {
                    Poll::Pending => {
                        th.buffers.give_back(buf);
                        break;
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Heard::Dead { silent }),
                }
                th.buffers.fill(buf);
                if buf.room() == 0 {
                    buf.compact();
                    if buf.room() == 0 {
                        return Poll::Ready(Heard::Garbage);
                    }
                }
                match buf.poll_recv(up, cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(0)) => server_ended = true,
                    Poll::Ready(Ok(_)) => {
                        silent = false;
                        self.server_ms = now;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Heard::Dead { silent }),
                }
            }
            if self.request_done && watch_client && !self.client.at_end.get() {
                match self.watch_client(cx) {
                    Watched::Quiet => {}
                    Watched::Busy => watch_client = false,
                    Watched::Ended if abort_on_close => {
                        return Poll::Ready(Heard::ClientGone(*b"CH"));
                    }
                    Watched::Ended => {}
                    Watched::Gone => return Poll::Ready(Heard::ClientGone(*b"CH")),
                }
            }
            let next = self.count(None, now);
            let client_waits = self.waits_for_client();
            if client_waits {
                if over(self.client_ms, self.client_limit, now) {
                    return Poll::Ready(Heard::ClientTimeout);
                }
                self.sleep(next, [(self.client_ms, self.client_limit), (0, None)], cx);
            } else {
                if over(self.server_ms, self.server_limit, now) {
                    return Poll::Ready(Heard::ServerTimeout);
                }
                self.sleep(next, [(self.server_ms, self.server_limit), (0, None)], cx);
            }
            Poll::Pending
        })
        .await
    }

    /// Looks whether the client left while its answer is awaited; keeps what it sends ahead.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Watched {
        match self.sock.poll_read_ready(cx) {
            Poll::Pending => return Watched::Quiet,
            Poll::Ready(Err(_)) => return Watched::Gone,
            Poll::Ready(Ok(())) => {}
        }
        let buf = &mut self.work.ways.from_client;
        self.client.th.buffers.fill(buf);
        if buf.room() == 0 {
            return Watched::Busy;
        }
        let received = buf.poll_recv(self.sock, cx);
        match received {
            Poll::Ready(Ok(0)) => {
                self.client.at_end.set(true);
                self.client.th.buffers.give_back(buf);
                Watched::Ended
            }
            Poll::Ready(Ok(_)) => match self.sock.poll_read_ready(cx) {
                Poll::Pending => Watched::Quiet,
                Poll::Ready(_) => Watched::Busy,
            },
            Poll::Ready(Err(_)) => Watched::Gone,
            Poll::Pending => {
                self.client.th.buffers.give_back(buf);
                Watched::Quiet
            }
        }
    }

    /// Sets the alarm to the nearest of the given times.
    fn sleep(&self, at: u64, limits: [(u64, Option<u32>); 2], cx: &Context<'_>) {
        let mut next = at;
        for (since, limit) in limits {
            if let Some(limit) = limit {
                let at = since + u64::from(limit);
                if next == 0 || at < next {
                    next = at;
                }
            }
        }
        if next == 0 {
            self.client.alarm.unset(cx);
        } else {
            self.client.alarm.set(next, cx);
        }
    }

    /// Sends the response head and relays the body; gives the termination letters.
    pub(super) async fn relay_response(
        &mut self,
        up: &mut UpConn,
        framing: Framing,
        dechunk: bool,
    ) -> [u8; 2] {
        let th = &self.client.th;
        let mut body = Pump::new(framing, true, dechunk);
        {
            let ways = &mut self.work.ways;
            if body
                .absorb(&mut ways.from_server, &mut ways.to_client)
                .is_err()
            {
                self.x.response_failed();
                return *b"PH";
            }
            body.join(&mut ways.from_server, &mut ways.to_client, JOIN_MAX);
        }
        if self.request_done && body.send_at_once(self.sock, &mut self.work.ways.to_client) {
            self.work.info.called();
            self.count(Some(&body), th.clock.ms());
            return *b"--";
        }
        let end = std::future::poll_fn(|cx| {
            let now = th.clock.ms();
            self.work.info.called();
            if self.work.info.is_killed() {
                return Poll::Ready(*b"KD");
            }
            let up = up.stream();
            if self.push_request(up, cx, now).is_err() {
                // The rest of the request does not come; the answer may be whole without it.
                self.request_broken = true;
            }
            let (received, sent) = (body.received, body.sent);
            let ways = &mut self.work.ways;
            let polled = body.poll(
                th,
                up,
                self.sock,
                &mut ways.from_server,
                &mut ways.to_client,
                cx,
            );
            if body.received != received {
                self.server_ms = now;
            }
            if body.sent != sent {
                self.client_ms = now;
            }
            match polled {
                Poll::Ready(Ok(())) => return Poll::Ready(*b"--"),
                Poll::Ready(Err(Fault::Sink(_))) => return Poll::Ready(*b"CD"),
                Poll::Ready(Err(Fault::Source(_) | Fault::SourceEnded)) => {
                    return Poll::Ready(*b"SD");
                }
                Poll::Ready(Err(Fault::Invalid(_))) => {
                    self.x.response_failed();
                    return Poll::Ready(*b"PD");
                }
                Poll::Pending => {}
            }
            let next = self.count(Some(&body), now);
            if body.is_stuck_on_sink(&self.work.ways.to_client) {
                if over(self.client_ms, self.client_limit, now) {
                    return Poll::Ready(*b"cD");
                }
                self.sleep(next, [(self.client_ms, self.client_limit), (0, None)], cx);
            } else {
                // A server that is silent for long would not notice that nobody listens any more.
                if has_left(self.sock, false, cx) {
                    return Poll::Ready(*b"CD");
                }
                if over(self.server_ms, self.server_limit, now) {
                    return Poll::Ready(*b"sD");
                }
                self.sleep(next, [(self.server_ms, self.server_limit), (0, None)], cx);
            }
            Poll::Pending
        })
        .await;
        body.release(th);
        if body.spliced > 0 {
            add(&th.shared.world.process.spliced_bytes_out, body.spliced);
        }
        self.count(Some(&body), th.clock.ms());
        end
    }

    /// Sends the head of an accepted upgrade or CONNECT and relays until both sides are done.
    pub(super) async fn tunnel(&mut self, up: &mut UpConn) -> [u8; 2] {
        let client = self.client;
        let th = &client.th;
        let backend = self.x.backend().unwrap_or(client.conn.frontend);
        let timeouts = &th.shared.plan.proxies[usize::from(backend.0)].timeouts;
        let own = &client.plan().timeouts;
        let limits = tunnel::Limits {
            client: own.client,
            server: timeouts.server,
            tunnel: timeouts.tunnel,
            client_fin: own.client_fin,
            server_fin: timeouts.server_fin,
        };
        self.work.ways.to_server.clear();
        let (mut from_client, mut from_server) = self.totals(None);
        let mut to_client = self.sent_before;
        let Work {
            ways, stream, info, ..
        } = &mut *self.work;
        let x = &mut *self.x;
        // What came behind the heads has been read already.
        from_client += ways.from_client.len() as u64;
        from_server += ways.from_server.len() as u64;
        tunnel::run(
            th,
            &client.alarm,
            self.sock,
            up.stream(),
            ways,
            limits,
            |a, b, c, now| {
                from_client += a;
                from_server += b;
                to_client += c;
                info.called();
                (!info.is_killed())
                    .then(|| x.moved(stream, from_client, from_server, to_client, now))
            },
        )
        .await
    }
}

enum Watched {
    Quiet,
    /// It sends ahead more than the buffer takes.
    Busy,
    /// It has closed its sending side.
    Ended,
    /// The connection is broken.
    Gone,
}

fn over(since: u64, limit: Option<u32>, now: u64) -> bool {
    limit.is_some_and(|limit| now >= since + u64::from(limit))
}
