//! HTTP/1 on the client side: reads requests, runs the rules, answers by itself or hands over to `forward`.

use remora_core::http1::{Body, Head, Limits, ParseError, Version};
use remora_core::rule::action::{self, Service, Verdict};
use remora_core::rule::cx::{Content, Msgs};
use remora_core::rule::proxy::{Progress, RequestOutcome, request_phase};
use remora_core::rule::track;
use tokio::net::TcpStream;

use crate::endpoint::exporter;
use crate::proxy::accept;
use crate::proxy::buffers::Buf;
use crate::proxy::client::Client;
use crate::proxy::counters::add;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward;
use crate::proxy::local::{self, LocalEnd};
use crate::proxy::work::{Lease, Work};

/// How long a connection keeps its working memory after a request. One that sends its next request in time allocates
/// nothing for it; one that does not shrinks to what a silent connection needs.
const WARM_MS: u64 = 1000;

/// What becomes of the connection.
pub(crate) enum Next {
    /// Nothing to do for a while.
    Idle,
    Close,
}

/// What becomes of the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    Close,
    /// Close, but the client is still sending.
    Linger,
}

/// When a connection that waits for its next request has waited long enough, ms; 0 = never.
pub(crate) fn idle_until(client: &Client) -> u64 {
    let timeouts = &client.plan().timeouts;
    let limit = if client.conn.requests.get() == 0 {
        timeouts.http_request.or(timeouts.client)
    } else {
        timeouts
            .http_keep_alive
            .or(timeouts.http_request)
            .or(timeouts.client)
    };
    let until = limit.map_or(0, |limit| client.idle_since.get() + u64::from(limit));
    match client.th.drain_idle_until(client.idle_since.get()) {
        Some(drain) if until == 0 || drain < until => drain,
        _ => until,
    }
}

/// Serves requests as long as they come quickly one after the other.
pub(crate) async fn busy(client: &Client, sock: &mut TcpStream) -> Next {
    let th = &client.th;
    let woken = th.clock.ms();
    // A first request says nothing about a second; a connection that brings several in a row is worth staying ready for.
    let warm = woken < client.idle_since.get() + WARM_MS && client.conn.requests.get() > 0;
    let mut lease = Lease::take(th);
    loop {
        let after = request(client, sock, &mut lease).await;
        th.streams.end(&lease.info);
        match after {
            After::Keep => {}
            After::Close => return Next::Close,
            After::Linger => {
                local::linger(client, sock, &mut lease.ways.from_client).await;
                return Next::Close;
            }
        }
        client.idle_since.set(th.clock.ms());
        if !lease.ways.from_client.is_empty() {
            // Who sends requests without end and gets them answered here would never wait for anything.
            tokio::task::coop::consume_budget().await;
            continue;
        }
        th.buffers.give_back(&mut lease.ways.from_client);
        if client.at_end.get() {
            return Next::Close;
        }
        if !warm {
            return Next::Idle;
        }
        let warm_until = client.idle_since.get() + WARM_MS;
        let until = match idle_until(client) {
            0 => warm_until,
            until => until.min(warm_until),
        };
        match client
            .alarm
            .within(&th.clock, until, |cx| sock.poll_read_ready(cx))
            .await
        {
            Some(Ok(())) => {}
            Some(Err(_)) => return Next::Close,
            // Whether that was all the time it has is for the cold wait to say.
            None => return Next::Idle,
        }
    }
}

/// Why there is no request.
enum NoHead {
    /// The client closed between requests, or broke the connection.
    Quiet,
    /// The client closed in the middle of a head.
    Cut,
    TooLong,
    Bad(ParseError),
}

fn limits(client: &Client) -> Limits {
    let global = &client.th.shared.plan.global;
    Limits {
        head_bytes_max: global.bufsize.saturating_sub(global.maxrewrite),
        headers_max: global.maxhdr,
    }
}

/// Reads until a request head is complete; it stays in the buffer. Gives its length.
async fn read_head(
    client: &Client,
    sock: &mut TcpStream,
    head: &mut Head,
    buf: &mut Buf,
) -> Result<usize, NoHead> {
    let th = &client.th;
    let limits = limits(client);
    let timeouts = &client.plan().timeouts;
    let since = if client.conn.requests.get() == 0 {
        client.conn.accepted_ms
    } else {
        th.clock.ms()
    };
    let until = timeouts
        .http_request
        .or(timeouts.client)
        .map_or(0, |limit| since + u64::from(limit));
    head.clear();
    th.buffers.fill(buf);
    loop {
        if !buf.is_empty() {
            match head.parse_request(buf.filled(), &limits) {
                Ok(Some(n)) => return Ok(n),
                Ok(None) => {}
                Err(err) => return Err(NoHead::Bad(err)),
            }
        }
        if buf.room() == 0 {
            buf.compact();
        }
        let received = client
            .alarm
            .within(&th.clock, until, |cx| buf.poll_recv(sock, cx))
            .await;
        match received {
            None => return Err(NoHead::TooLong),
            Some(Ok(0)) if buf.is_empty() => return Err(NoHead::Quiet),
            Some(Ok(0)) => return Err(NoHead::Cut),
            Some(Ok(_)) => {}
            Some(Err(_)) if buf.is_empty() => return Err(NoHead::Quiet),
            Some(Err(_)) => return Err(NoHead::Cut),
        }
    }
}

/// A connection on which no request came in time: 408, unless the client is known to open connections ahead.
pub(crate) async fn nothing_came(client: &Client, sock: &mut TcpStream) {
    if client.th.draining() {
        return;
    }
    let mut lease = Lease::take(&client.th);
    let x = Exchange::new(client, client.accepted());
    no_request(client, sock, &mut lease, x, NoHead::TooLong).await;
}

/// Answers what is no request, counts and logs it.
async fn no_request(
    client: &Client,
    sock: &mut TcpStream,
    work: &mut Work,
    mut x: Exchange<'_>,
    why: NoHead,
) -> After {
    let th = &client.th;
    let world = &th.shared.world;
    let now = th.clock.ms();
    let received = work.ways.from_client.len() as u64;
    let first = client.conn.requests.get() == 0;
    let (status, term) = match &why {
        // Between requests that is how connections end.
        NoHead::Quiet if !first => return After::Close,
        NoHead::Quiet | NoHead::Cut => (400, *b"CR"),
        NoHead::TooLong => (408, *b"cR"),
        NoHead::Bad(err) => (err.status(), *b"PR"),
    };
    if received == 0 && client.plan().options.http_ignore_probes {
        return After::Close;
    }
    if received > 0 {
        add(&client.front().front.ereq, 1);
        add(&client.front().front.req_tot, 1);
        track::count_http_request(world, &client.conn, None, now);
        if matches!(status, 400 | 414 | 431) {
            track::count_http_error(world, &client.conn, None, now);
        }
    }
    let out = &mut work.ways.to_client;
    out.clear();
    action::render_error_page(
        world,
        client.conn.frontend,
        status,
        false,
        true,
        &mut out.bytes,
    );
    x.status = i32::from(status);
    x.term = term;
    x.took(received);
    x.gave(local::send(client, sock, out).await);
    x.finish(&work.stream, b"<BADREQ>", true);
    if matches!(why, NoHead::Bad(_)) {
        After::Linger
    } else {
        After::Close
    }
}

/// Serves one request.
async fn request(client: &Client, sock: &mut TcpStream, work: &mut Work) -> After {
    let th = &client.th;
    let mut x = Exchange::new(client, th.clock.now());
    let head_len = match read_head(client, sock, &mut work.req, &mut work.ways.from_client).await {
        Ok(n) => n,
        Err(why) => {
            if client.conn.requests.get() == 0 {
                x = Exchange::new(client, client.accepted());
            }
            return no_request(client, sock, work, x, why).await;
        }
    };
    x.request_begins();
    x.took(head_len as u64);
    th.streams.begin(
        &work.info,
        th.index,
        &client.conn,
        client.alarm.id(),
        x.head_ms,
    );
    work.info.set_uri(work.req.target());
    work.request_line.clear();
    if th.shared.logs.wanted(client.conn.frontend) {
        write_request_line(&work.req, &mut work.request_line);
    }
    let facts = work.req.request_facts();
    if client.plan().options.http_buffer_request
        && let Err(after) = buffer_body(client, sock, work, &mut x, head_len).await
    {
        return after;
    }

    let Work {
        req,
        ways,
        stream,
        request_line,
        info,
        ..
    } = &mut *work;
    let mut progress = Progress::default();
    let mut is_final = false;
    let outcome = loop {
        let cx = th.cx(&client.conn, Some(stream), client.conn.frontend);
        let mut msgs = Msgs {
            req: Some(req),
            req_content: Content {
                bytes: ways.from_client.filled(),
                is_final,
                not_http: false,
            },
            ..Msgs::default()
        };
        match request_phase(&cx, &mut msgs, &mut progress) {
            RequestOutcome::Wait { inspect_delay_ms } => {
                let until = x.head_ms + u64::from(inspect_delay_ms);
                if ways.from_client.room() == 0 {
                    ways.from_client.compact();
                }
                is_final |= ways.from_client.room() == 0
                    || !matches!(
                        client
                            .alarm
                            .within(&th.clock, until, |cx| ways.from_client.poll_recv(sock, cx))
                            .await,
                        Some(Ok(1..))
                    );
            }
            outcome => break outcome,
        }
    };
    ways.from_client.consume(head_len);
    if let Some(backend) = stream.backend.get() {
        x.enter(backend);
        info.backend.set(Some(backend));
    }
    let (proxy, verdict) = match outcome {
        RequestOutcome::Forward(backend) => {
            x.enter(backend);
            info.backend.set(Some(backend));
            let options = &th.shared.plan.proxies[usize::from(backend.0)].options;
            if options.http_buffer_request
                && !client.plan().options.http_buffer_request
                && let Err(after) = buffer_body(client, sock, work, &mut x, 0).await
            {
                return after;
            }
            return forward::run(client, sock, work, x, facts).await;
        }
        RequestOutcome::Final(proxy, verdict) => (proxy, verdict),
        RequestOutcome::NoBackend | RequestOutcome::Wait { .. } => {
            x.term = *b"SC";
            return local::error(client, sock, work, x, 503).await;
        }
    };
    let end = LocalEnd::new(client, req, &mut ways.from_client, facts.keep_alive);
    let (mut tarpit, mut serve) = (false, false);
    let cx = th.cx(&client.conn, Some(stream), proxy);
    let msgs = Msgs {
        req: Some(req),
        ..Msgs::default()
    };
    let head_only = facts.method == remora_core::http1::MethodKind::Head;
    let out = &mut ways.to_client;
    out.clear();
    match verdict {
        Verdict::Deny(reply) => {
            x.denied();
            x.term = *b"PR";
            reply.render(&cx, &msgs, head_only, !end.keep, &mut out.bytes);
        }
        Verdict::Tarpit(reply) => {
            x.denied();
            x.term = *b"PT";
            tarpit = true;
            reply.render(&cx, &msgs, head_only, true, &mut out.bytes);
        }
        Verdict::Return(reply) => {
            add(&client.front().front.intercepted, 1);
            x.term = *b"LR";
            reply.render(&cx, &msgs, head_only, !end.keep, &mut out.bytes);
        }
        Verdict::Redirect(redirect) => {
            add(&client.front().front.intercepted, 1);
            x.term = *b"LR";
            redirect.render(&cx, &msgs, head_only, !end.keep, &mut out.bytes);
        }
        Verdict::Service(Service::PrometheusExporter) => {
            add(&client.front().front.intercepted, 1);
            x.term = *b"LR";
            serve = true;
        }
        Verdict::EditFailed => {
            x.term = *b"PR";
            action::render_error_page(
                &th.shared.world,
                proxy,
                500,
                head_only,
                !end.keep,
                &mut out.bytes,
            );
        }
        Verdict::Pass | Verdict::Wait | Verdict::Reject => {
            x.denied();
            x.term = *b"PR";
        }
        Verdict::SilentDrop { rst_ttl } => {
            x.term = *b"PR";
            accept::vanish(sock, rst_ttl, client.conn.src.get());
        }
    }
    if serve {
        // Boxed, because every request's state would be larger for the sake of the few that come here.
        let out = &mut ways.to_client.bytes;
        Box::pin(exporter::answer(
            &th.shared, proxy, req, head_only, !end.keep, out,
        ))
        .await;
    }
    // What the client is told, or would have been had it waited.
    let answered = !ways.to_client.is_empty();
    if answered {
        x.status = local::status_of(ways.to_client.pending());
    }
    if tarpit {
        let timeouts = &th.shared.plan.proxies
            [usize::from(x.backend().unwrap_or(client.conn.frontend).0)]
        .timeouts;
        let hold = timeouts.tarpit.or(timeouts.connect).unwrap_or(0);
        if !local::hold_back(
            client,
            sock,
            &mut ways.from_client,
            info,
            th.clock.ms() + u64::from(hold),
        )
        .await
        {
            ways.to_client.clear();
        }
        // `Tw` is the time in the tarpit.
        x.way.queued_ms = th.clock.ms();
    }
    x.took(end.taken as u64);
    x.gave(local::send(client, sock, &mut ways.to_client).await);
    if serve {
        // A page may be large, and this buffer is used again.
        ways.to_client.bytes = Vec::new();
    }
    x.finish(stream, request_line, true);
    drop(x);
    stream.reset(&th.shared.world, th.clock.now());
    if !answered {
        return After::Close;
    }
    if tarpit {
        return After::Linger;
    }
    end.settle(client, sock, &mut ways.from_client).await
}

/// `option http-buffer-request`: waits for the whole body, or as much as fits.
async fn buffer_body(
    client: &Client,
    sock: &mut TcpStream,
    work: &mut Work,
    x: &mut Exchange<'_>,
    head_len: usize,
) -> Result<(), After> {
    let th = &client.th;
    let mut body = Body::new(work.req.request_framing(), false);
    let timeouts = &client.plan().timeouts;
    let until = timeouts
        .http_request
        .or(timeouts.client)
        .map_or(0, |limit| x.begun_ms() + u64::from(limit));
    let mut seen = head_len;
    if work.req.expects_continue() {
        let out = &mut work.ways.to_client;
        out.clear();
        out.bytes
            .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        x.gave(local::send(client, sock, out).await);
        // It has been answered; the server need not do it again.
        work.req.remove_header(b"expect");
    }
    while !body.is_done() {
        let buf = &mut work.ways.from_client;
        th.buffers.fill(buf);
        let fresh = buf.filled().get(seen..).unwrap_or_default();
        match body.advance(fresh) {
            Ok(n) => seen += n,
            // The relay will come to the same conclusion.
            Err(_) => return Ok(()),
        }
        if buf.room() == 0 {
            // The requests before this one took the buffer's front.
            buf.compact();
        }
        if body.is_done() || buf.room() == 0 {
            return Ok(());
        }
        let received = client
            .alarm
            .within(&th.clock, until, |cx| buf.poll_recv(sock, cx))
            .await;
        let (status, term) = match received {
            Some(Ok(1..)) => continue,
            Some(_) => (400, *b"CR"),
            None => (408, *b"cR"),
        };
        x.term = term;
        let out = &mut work.ways.to_client;
        out.clear();
        action::render_error_page(
            &th.shared.world,
            client.conn.frontend,
            status,
            false,
            true,
            &mut out.bytes,
        );
        x.status = i32::from(status);
        x.took((seen - head_len) as u64);
        x.gave(local::send(client, sock, out).await);
        x.finish(&work.stream, &work.request_line, true);
        return Err(After::Close);
    }
    Ok(())
}

fn write_request_line(req: &Head, out: &mut Vec<u8>) {
    out.extend_from_slice(req.method());
    out.push(b' ');
    out.extend_from_slice(req.target());
    out.extend_from_slice(match req.version() {
        Version::Http10 => b" HTTP/1.0",
        Version::Http11 => b" HTTP/1.1",
    });
}
