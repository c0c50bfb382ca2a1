//! An HTTP request on its way to a server, and the response on its way back.

use std::net::IpAddr;
use std::task::{Context, Poll};

use remora_config::plan::{ForwardFor, Options};
use remora_core::http1::{
    Framing, Head, Limits, ParseError, RequestFacts, RequestForward, ResponseForward, Version,
};
use remora_core::rule::action::{Verdict, render_error_page};
use remora_core::rule::cx::Msgs;
use remora_core::rule::proxy::{after_response_phase, response_phase};
use remora_core::rule::track;
use tokio::net::TcpStream;

use crate::proxy::client::{Client, has_left};
use crate::proxy::counters::add;
use crate::proxy::exchange::Exchange;
use crate::proxy::http::{self, After, LocalEnd};
use crate::proxy::relay::body::{Fault, Pump};
use crate::proxy::relay::tunnel;
use crate::proxy::upstream::attach::{UpConn, Wish, attach};
use crate::proxy::work::Work;

/// Bodies up to this many bytes are copied behind their head, so that one buffer goes into one `send`.
const JOIN_MAX: usize = 4096;

/// What came of talking to a server until its response head was there.
enum Heard {
    /// A final response head is in `work.res`.
    Head(Framing),
    /// The server closed or broke the connection; whether it had sent anything before.
    Dead {
        silent: bool,
    },
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
struct Talk<'a, 'c> {
    client: &'a Client,
    sock: &'a mut TcpStream,
    work: &'a mut Work,
    x: &'a mut Exchange<'c>,
    pump: Pump,
    request_done: bool,
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

/// Forwards a request whose rules have passed.
pub(crate) async fn run(
    client: &Client,
    sock: &mut TcpStream,
    work: &mut Work,
    mut x: Exchange<'_>,
    head_len: usize,
    facts: RequestFacts,
) -> After {
    let th = &client.th;
    let Some(backend) = x.backend() else {
        return After::Close;
    };
    let front_plan = client.plan();
    let back_plan = &th.shared.plan.proxies[usize::from(backend.0)];
    let server_close = closes_server(&front_plan.options) || closes_server(&back_plan.options);
    let client_close = front_plan.options.httpclose || back_plan.options.httpclose;
    forwarded_for(
        client,
        &mut work.req,
        front_plan.forwardfor.as_ref(),
        back_plan.forwardfor.as_ref(),
    );
    let framing = work.req.request_framing();
    let Ok(sent) = work.req.prepare_request_for_server(&RequestForward {
        keep_alive: !server_close,
    }) else {
        x.term = *b"PR";
        return http::error(client, sock, work, x, head_len, 500).await;
    };
    {
        let back = &th.shared.world.proxies[usize::from(backend.0)].back;
        add(&back.req_tot, 1);
    }
    let ways = &mut work.ways;
    ways.to_server.clear();
    ways.to_client.clear();
    // What an answer that was not passed on has left there must never be taken for the answer to this request.
    th.buffers.discard(&mut ways.from_server);
    work.req.write(&mut ways.to_server.bytes);
    let mut pump = Pump::new(framing, false, false).keeping_sent();
    if pump
        .absorb(&mut ways.from_client, &mut ways.to_server)
        .is_err()
    {
        x.term = *b"PR";
        add(&client.front().front.ereq, 1);
        track::count_http_error(
            &th.shared.world,
            &client.conn,
            Some(&work.stream),
            th.clock.ms(),
        );
        return http::error(client, sock, work, x, head_len, 400).await;
    }
    pump.join(&mut ways.from_client, &mut ways.to_server, JOIN_MAX);

    let repeatable = facts.method.is_idempotent();
    let mut reuse = !server_close;
    let abort_on_close = front_plan.options.abortonclose || back_plan.options.abortonclose;
    let mut talk = Talk {
        client,
        sock,
        work,
        x: &mut x,
        pump,
        request_done: false,
        request_broken: false,
        head_len: head_len as u64,
        response_head_len: 0,
        sent_before: 0,
        client_ms: 0,
        server_ms: 0,
        client_limit: front_plan.timeouts.client,
        server_limit: back_plan.timeouts.server,
    };
    let (heard, mut up, place) = loop {
        let mut way = talk.x.way;
        let got = {
            let sock = &mut *talk.sock;
            let info = std::rc::Rc::clone(&talk.work.info);
            attach(
                client,
                backend,
                &mut way,
                Wish { reuse, repeatable },
                |cx| info.is_killed() || has_left(sock, abort_on_close, cx),
            )
            .await
        };
        talk.x.way = way;
        let mut attached = match got {
            Ok(attached) => attached,
            Err(why) => {
                let sending = !talk.pump.all_read();
                talk.count(None, th.clock.ms());
                drop(talk);
                x.term = why.0;
                if why.0[0] == b'C' {
                    x.finish(&work.stream, &work.request_line, true);
                    return After::Close;
                }
                let end = local_end(client, work, facts.keep_alive, sending);
                return http::error_with(client, sock, work, x, head_len, 503, end).await;
            }
        };
        let server = attached.place.id.server;
        talk.work.stream.server.set(Some(server));
        talk.work.info.server.set(Some(server));
        let heard = talk
            .until_head(&mut attached.conn, &facts, abort_on_close)
            .await;
        // A connection from the pool may have been closed by the server while the request was on its way: that says
        // nothing about the request. It is sent once more, on a new connection, if it is all still here and doing it
        // twice does no harm.
        if let Heard::Dead { silent: true } = heard
            && attached.reused
            && repeatable
            && talk.pump.can_repeat()
        {
            talk.work.ways.to_server.sent = 0;
            talk.request_done = false;
            talk.request_broken = false;
            reuse = false;
            let state = attached.place.id.state(&th.shared.world);
            add(&state.stats.wretr, 1);
            add(
                &th.shared.world.proxies[usize::from(backend.0)].back.wretr,
                1,
            );
            continue;
        }
        break (heard, attached.conn, attached.place);
    };
    {
        let server = place.id.state(&th.shared.world);
        add(&server.stats.req_tot, 1);
    }

    let response_framing = match heard {
        Heard::Head(framing) => framing,
        failed => {
            let sending = !talk.pump.all_read();
            let now = th.clock.ms();
            talk.count(None, now);
            drop(talk);
            drop(up);
            let world = &th.shared.world;
            let status = match failed {
                Heard::Dead { .. } | Heard::Garbage => {
                    x.response_failed();
                    track::count_http_failure(world, &client.conn, Some(&work.stream), now);
                    x.term = if matches!(failed, Heard::Garbage) {
                        *b"PH"
                    } else {
                        *b"SH"
                    };
                    502
                }
                Heard::ServerTimeout => {
                    x.response_failed();
                    track::count_http_failure(world, &client.conn, Some(&work.stream), now);
                    x.term = *b"sH";
                    504
                }
                Heard::ClientTimeout => {
                    x.term = *b"cD";
                    408
                }
                Heard::BadBody(err) => {
                    add(&client.front().front.ereq, 1);
                    track::count_http_error(world, &client.conn, Some(&work.stream), now);
                    x.term = *b"PR";
                    err.status()
                }
                Heard::ClientGone(term) => {
                    x.term = term;
                    x.finish(&work.stream, &work.request_line, true);
                    return After::Close;
                }
                Heard::Killed | Heard::Head(_) => {
                    x.term = *b"KD";
                    x.finish(&work.stream, &work.request_line, true);
                    return After::Close;
                }
            };
            drop(place);
            let end = if matches!(status, 400 | 408) {
                LocalEnd::closing(true)
            } else {
                local_end(client, work, facts.keep_alive, sending)
            };
            return http::error_with(client, sock, work, x, head_len, status, end).await;
        }
    };

    talk.x.response_ms = th.clock.ms();
    let Work {
        req,
        res,
        stream,
        ways,
        ..
    } = &mut *talk.work;
    // Response rules; nothing of the response has been sent yet.
    {
        let cx = th.cx(&client.conn, Some(stream), backend);
        let head_only = req.method() == b"HEAD";
        let mut msgs = Msgs {
            req: Some(req),
            res: Some(res),
            ..Msgs::default()
        };
        let (proxy, verdict) = response_phase(&cx, &mut msgs);
        if !matches!(verdict, Verdict::Pass | Verdict::Wait) {
            let cx = th.cx(&client.conn, Some(stream), proxy);
            let keep = facts.keep_alive
                && facts.version == Version::Http11
                && talk.request_done
                && !client_close
                && !th.draining();
            let out = &mut ways.to_client;
            match verdict {
                Verdict::Deny(reply) | Verdict::Tarpit(reply) => {
                    talk.x.response_denied();
                    talk.x.term = *b"PH";
                    reply.render(&cx, &msgs, head_only, !keep, &mut out.bytes);
                }
                Verdict::Return(reply) => {
                    talk.x.term = *b"LH";
                    reply.render(&cx, &msgs, head_only, !keep, &mut out.bytes);
                }
                Verdict::Redirect(redirect) => {
                    talk.x.term = *b"LH";
                    redirect.render(&cx, &msgs, head_only, !keep, &mut out.bytes);
                }
                Verdict::EditFailed => {
                    talk.x.response_failed();
                    talk.x.term = *b"PH";
                    render_error_page(
                        &th.shared.world,
                        proxy,
                        502,
                        head_only,
                        !keep,
                        &mut out.bytes,
                    );
                }
                Verdict::SilentDrop { rst_ttl } => {
                    talk.x.response_denied();
                    talk.x.term = *b"PH";
                    crate::proxy::accept::vanish(&*talk.sock, rst_ttl, client.conn.src.get());
                }
                Verdict::Pass | Verdict::Wait | Verdict::Reject => {
                    talk.x.response_denied();
                    talk.x.term = *b"PH";
                }
            }
            drop(up);
            drop(place);
            let sending = !talk.request_done;
            talk.count(None, th.clock.ms());
            drop(talk);
            let answered = !work.ways.to_client.is_empty();
            if answered {
                x.status = http::status_of(work.ways.to_client.pending());
            }
            let sent = http::send(client, sock, &mut work.ways.to_client).await;
            x.answered(0, sent);
            x.finish(&work.stream, &work.request_line, true);
            drop(x);
            work.stream.reset(&th.shared.world, th.clock.now());
            return match (answered, keep, sending) {
                (false, ..) => After::Close,
                (true, true, _) => After::Keep,
                (true, false, true) => After::Linger,
                (true, false, false) => After::Close,
            };
        }
    }
    let server_keeps =
        talk.work.res.keep_alive() && !sent.close && response_framing != Framing::UntilClose;
    // Before the head is made ready: a rule may still ask to close, and what was made ready stays.
    {
        let Work {
            req, res, stream, ..
        } = &mut *talk.work;
        let cx = th.cx(&client.conn, Some(stream), backend);
        let mut msgs = Msgs {
            req: Some(req),
            res: Some(res),
            ..Msgs::default()
        };
        after_response_phase(&cx, &mut msgs);
    }
    let prepared = talk.work.res.prepare_response_for_client(&ResponseForward {
        request: facts,
        framing: response_framing,
        keep_alive: talk.request_done && !client_close && !th.draining(),
    });
    let Ok(prepared) = prepared else {
        talk.count(None, th.clock.ms());
        drop(talk);
        drop(up);
        drop(place);
        x.term = *b"PH";
        x.response_failed();
        return http::error_with(
            client,
            sock,
            work,
            x,
            head_len,
            502,
            LocalEnd::closing(true),
        )
        .await;
    };
    talk.x.status = i32::from(talk.work.res.status());
    talk.work.res.write(&mut talk.work.ways.to_client.bytes);

    if response_framing == Framing::Tunnel {
        let end = talk.tunnel(&mut up).await;
        drop(talk);
        drop(up);
        drop(place);
        x.term = end;
        x.finish(&work.stream, &work.request_line, true);
        return After::Close;
    }
    let end = talk
        .relay_response(&mut up, response_framing, prepared.dechunk)
        .await;
    let request_done = talk.request_done;
    let request_read = talk.pump.all_read();
    drop(talk);
    x.term = end;
    let whole = end == *b"--";
    let clean = whole && request_done && work.ways.from_server.is_empty();
    if clean && server_keeps && !th.draining() {
        up.keep();
    } else {
        drop(up);
    }
    drop(place);
    th.buffers.discard(&mut work.ways.from_server);
    x.finish(&work.stream, &work.request_line, true);
    drop(x);
    work.stream.reset(&th.shared.world, th.clock.now());
    match (whole, prepared.close) {
        (false, _) => After::Close,
        (true, false) if request_done => After::Keep,
        (true, _) if !request_read => After::Linger,
        (true, _) => After::Close,
    }
}

/// How the client connection goes on after an error page of our own for a request that was on its way.
fn local_end(client: &Client, work: &mut Work, wanted: bool, sending: bool) -> LocalEnd {
    if sending {
        LocalEnd::closing(true)
    } else {
        let mut end = LocalEnd::closing(false);
        end.keep = wanted
            && work.req.version() == Version::Http11
            && !client.th.draining()
            && !client.plan().options.httpclose;
        end
    }
}

fn closes_server(options: &Options) -> bool {
    options.http_server_close || options.httpclose
}

/// `option forwardfor`: the backend's header name wins; if either side lacks `if-none`, the header is added anyway.
fn forwarded_for(
    client: &Client,
    req: &mut Head,
    front: Option<&ForwardFor>,
    back: Option<&ForwardFor>,
) {
    let Some(address) = client.conn.src.get().map(|src| src.ip()) else {
        return;
    };
    let Some(rule) = back.or(front) else {
        return;
    };
    let inside = |rule: Option<&ForwardFor>| {
        rule.and_then(|rule| rule.except)
            .is_some_and(|(network, len)| is_inside(address, network, len))
    };
    if inside(front) || inside(back) {
        return;
    }
    let only_if_none =
        front.is_none_or(|rule| rule.if_none) && back.is_none_or(|rule| rule.if_none);
    let name = rule.header.as_bytes();
    if only_if_none && req.header(name).is_some() {
        return;
    }
    let mut text = [0u8; 48];
    let len = {
        use std::io::Write;
        let mut rest = &mut text[..];
        let _ = write!(rest, "{address}");
        48 - rest.len()
    };
    let _ = req.add_header(name, &text[..len]);
}

fn is_inside(address: IpAddr, network: IpAddr, len: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let shift = 32 - u32::from(len.min(32));
            (u64::from(a.to_bits()) >> shift) == (u64::from(n.to_bits()) >> shift)
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let shift = 128 - u32::from(len.min(128));
            shift == 128 || (a.to_bits() >> shift) == (n.to_bits() >> shift)
        }
        _ => false,
    }
}

impl Talk<'_, '_> {
    /// Bytes that came from the client and from the server so far.
    fn totals(&self, response: Option<&Pump>) -> (u64, u64) {
        (
            self.head_len + self.pump.taken(),
            self.response_head_len + response.map_or(0, Pump::taken),
        )
    }

    /// Posts what moved; when to do so next (0 = nothing to post).
    fn count(&mut self, response: Option<&Pump>, now: u64) -> u64 {
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
        let (received, sent) = (self.pump.received, self.pump.sent);
        let ways = &mut self.work.ways;
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
    async fn until_head(
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
            loop {
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
                match up.poll_read_ready(cx) {
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
    async fn relay_response(
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
                return *b"PD";
            }
            body.join(&mut ways.from_server, &mut ways.to_client, JOIN_MAX);
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
    async fn tunnel(&mut self, up: &mut UpConn) -> [u8; 2] {
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
