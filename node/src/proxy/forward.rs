//! An HTTP request on its way to a server, and the response on its way back.

use remora_config::plan::Options;
use remora_core::http1::{Framing, RequestFacts, RequestForward, ResponseForward};
use remora_core::rule::action::{Verdict, render_error_page};
use remora_core::rule::cx::Msgs;
use remora_core::rule::proxy::{after_response_phase, response_phase};
use remora_core::rule::track;
use remora_core::world::ProxyId;
use tokio::net::TcpStream;

use crate::proxy::accept;
use crate::proxy::client::{Client, has_left};
use crate::proxy::counters::add;
use crate::proxy::exchange::Exchange;
use crate::proxy::forwarded;
use crate::proxy::http::After;
use crate::proxy::local::{self, LocalEnd};
use crate::proxy::relay::body::{JOIN_MAX, Pump};
use crate::proxy::talk::{Heard, Talk};
use crate::proxy::upstream::attach::{NoServer, Place, UpConn, Wish, attach};
use crate::proxy::work::Work;

/// How the two configurations that a request belongs to want its connections treated; the stricter one wins.
#[derive(Clone, Copy)]
struct Manners {
    server_close: bool,
    client_close: bool,
    abort_on_close: bool,
}

/// Forwards a request whose rules have passed.
pub(crate) async fn run(
    client: &Client,
    sock: &mut TcpStream,
    work: &mut Work,
    mut x: Exchange<'_>,
    facts: RequestFacts,
) -> After {
    let th = &client.th;
    let Some(backend) = x.backend() else {
        return After::Close;
    };
    let front_plan = client.plan();
    let back_plan = &th.shared.plan.proxies[usize::from(backend.0)];
    let either =
        |option: fn(&Options) -> bool| option(&front_plan.options) || option(&back_plan.options);
    let manners = Manners {
        server_close: either(|options| options.http_server_close || options.httpclose),
        client_close: either(|options| options.httpclose),
        abort_on_close: either(|options| options.abortonclose),
    };
    forwarded::add_header(
        client,
        &mut work.req,
        front_plan.forwardfor.as_ref(),
        back_plan.forwardfor.as_ref(),
    );
    let framing = work.req.request_framing();
    let Ok(prepared) = work.req.prepare_request_for_server(&RequestForward {
        keep_alive: !manners.server_close,
    }) else {
        x.term = *b"PR";
        return local::error(client, sock, work, x, 500).await;
    };
    add(
        &th.shared.world.proxies[usize::from(backend.0)].back.req_tot,
        1,
    );
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
        let now = th.clock.ms();
        track::count_http_error(&th.shared.world, &client.conn, Some(&work.stream), now);
        return local::error(client, sock, work, x, 400).await;
    }
    pump.join(&mut ways.from_client, &mut ways.to_server, JOIN_MAX);
    // While the server thinks, others use this memory: the less there is of it, the more of it is in the caches.
    th.buffers.give_back(&mut ways.from_client);

    let mut talk = Talk::new(
        client,
        sock,
        work,
        &mut x,
        pump,
        front_plan.timeouts.client,
        back_plan.timeouts.server,
    );
    let (heard, up, place) = match converse(&mut talk, backend, &facts, manners).await {
        Ok(conversation) => conversation,
        Err(why) => {
            let sending = talk.give_up();
            drop(talk);
            x.term = why.0;
            if why.0[0] == b'C' {
                x.finish(&work.stream, &work.request_line, true);
                return After::Close;
            }
            let end = LocalEnd::on_the_way(client, &work.req, sending);
            return local::error_with(client, sock, work, x, 503, end).await;
        }
    };
    let framing = match heard {
        Heard::Head(framing) => framing,
        failed => {
            let sending = talk.give_up();
            drop((talk, up, place));
            return fail(client, sock, work, x, failed, sending).await;
        }
    };
    talk.x.response_ms = th.clock.ms();
    talk.x.server_status = talk.work.res.status();
    if let Some(keep) = answer_instead(&mut talk, backend, &facts, manners) {
        let sending = talk.give_up();
        drop((talk, up, place));
        return finish_instead(client, sock, work, x, keep, sending).await;
    }
    let server_keeps =
        talk.work.res.keep_alive() && !prepared.close && framing != Framing::UntilClose;
    let Some(prepared) = prepare_response(&mut talk, backend, &facts, framing, manners) else {
        talk.give_up();
        drop((talk, up, place));
        x.term = *b"PH";
        x.response_failed();
        return local::error_with(client, sock, work, x, 502, LocalEnd::closing(true)).await;
    };
    let mut up = up;
    if framing == Framing::Tunnel {
        let end = talk.tunnel(&mut up).await;
        drop((talk, up, place));
        x.term = end;
        x.finish(&work.stream, &work.request_line, true);
        return After::Close;
    }
    let end = talk
        .relay_response(&mut up, framing, prepared.dechunk)
        .await;
    if end == *b"PH" {
        // The body was found to be wrong before anything of the answer was sent.
        talk.give_up();
        drop((talk, up, place));
        x.term = end;
        return local::error_with(client, sock, work, x, 502, LocalEnd::closing(true)).await;
    }
    let request_done = talk.request_done;
    let request_read = talk.pump.all_read();
    drop(talk);
    x.term = end;
    if end == *b"SD" {
        x.response_failed();
    }
    let whole = end == *b"--";
    if whole && request_done && server_keeps && work.ways.from_server.is_empty() && !th.draining() {
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
        (true, false) if request_done => After::Keep,
        (true, _) if !request_read => After::Linger,
        _ => After::Close,
    }
}

/// Gets a server and talks to it until it has answered or failed for good.
async fn converse(
    talk: &mut Talk<'_, '_>,
    backend: ProxyId,
    facts: &RequestFacts,
    manners: Manners,
) -> Result<(Heard, UpConn, Place), NoServer> {
    let client = talk.client;
    let world = &client.th.shared.world;
    let idempotent = facts.method.is_idempotent();
    // A pooled connection may turn out to be dead. Then the request is sent once more if that is harmless; otherwise
    // only the client can do that, and it knows to if its own connection was in use before. (RFC 9112 section 9.3.1)
    let not_first = client.conn.requests.get() > 1;
    let repeatable = idempotent && talk.pump.is_all_kept();
    let mut reuse = !manners.server_close && (repeatable || not_first);
    loop {
        let mut way = talk.x.way;
        let wish = Wish { reuse, repeatable };
        let sock = &*talk.sock;
        let info = &talk.work.info;
        let got = attach(client, backend, &mut way, wish, |cx| {
            info.is_killed() || has_left(sock, manners.abort_on_close, cx)
        })
        .await;
        talk.x.way = way;
        let mut attached = got?;
        let server = attached.place.id.server;
        talk.work.stream.server.set(Some(server));
        talk.work.info.server.set(Some(server));
        let heard = talk
            .until_head(&mut attached.conn, facts, manners.abort_on_close)
            .await;
        let state = attached.place.id.state(world);
        // A connection from the pool may have been closed by the server while the request was on its way: that says
        // nothing about the request. It is sent once more, on a new connection, if it is all still here and doing it
        // twice does no harm.
        if let Heard::Dead { silent: true } = heard
            && attached.reused
            && talk.pump.can_repeat()
            && (idempotent || talk.pump.sent == 0)
        {
            talk.rewind();
            reuse = false;
            add(&state.stats.wretr, 1);
            add(&world.proxies[usize::from(backend.0)].back.wretr, 1);
            continue;
        }
        let heard = match heard {
            Heard::Head(framing) => {
                add(&state.stats.req_tot, 1);
                Heard::Head(framing)
            }
            Heard::Dead { silent: true } if attached.reused && not_first => Heard::Stale,
            heard => heard,
        };
        return Ok((heard, attached.conn, attached.place));
    }
}

/// Ends an exchange for which the server gave no response head.
async fn fail(
    client: &Client,
    sock: &mut TcpStream,
    work: &mut Work,
    mut x: Exchange<'_>,
    why: Heard,
    sending: bool,
) -> After {
    let world = &client.th.shared.world;
    let now = client.th.clock.ms();
    let (status, term) = match &why {
        Heard::Dead { .. } => (502, *b"SH"),
        Heard::Stale => (0, *b"SH"),
        Heard::Garbage => (502, *b"PH"),
        Heard::ServerTimeout => (504, *b"sH"),
        Heard::ClientTimeout => (408, *b"cD"),
        Heard::BadBody(err) => (err.status(), *b"PR"),
        Heard::ClientGone(term) => (0, *term),
        Heard::Killed | Heard::Head(_) => (0, *b"KD"),
    };
    x.term = term;
    match status {
        0 => {
            x.finish(&work.stream, &work.request_line, true);
            return After::Close;
        }
        502 | 504 => {
            x.response_failed();
            track::count_http_failure(world, &client.conn, Some(&work.stream), now);
        }
        408 => {}
        _ => {
            add(&client.front().front.ereq, 1);
            track::count_http_error(world, &client.conn, Some(&work.stream), now);
        }
    }
    let end = if matches!(status, 502 | 504) {
        LocalEnd::on_the_way(client, &work.req, sending)
    } else {
        LocalEnd::closing(true)
    };
    local::error_with(client, sock, work, x, status, end).await
}

/// Runs the response's rules. If they decide on another answer, or on none, it is in the outbox afterwards; `Some`
/// says whether the client connection may go on. Nothing of the server's response has been sent at that point.
fn answer_instead(
    talk: &mut Talk<'_, '_>,
    backend: ProxyId,
    facts: &RequestFacts,
    manners: Manners,
) -> Option<bool> {
    let client = talk.client;
    let th = &client.th;
    let Work {
        req,
        res,
        stream,
        ways,
        ..
    } = &mut *talk.work;
    let cx = th.cx(&client.conn, Some(stream), backend);
    let mut msgs = Msgs {
        req: Some(&mut *req),
        res: Some(&mut *res),
        ..Msgs::default()
    };
    let (proxy, verdict) = response_phase(&cx, &mut msgs);
    if matches!(verdict, Verdict::Pass | Verdict::Wait) {
        return None;
    }
    let head_only = req.method() == b"HEAD";
    let keep = talk.request_done
        && !manners.client_close
        && local::may_keep(client, req, facts.keep_alive);
    let msgs = Msgs {
        req: Some(req),
        res: Some(res),
        ..Msgs::default()
    };
    let cx = th.cx(&client.conn, Some(stream), proxy);
    let out = &mut ways.to_client.bytes;
    let x = &mut *talk.x;
    x.term = match verdict {
        Verdict::Return(_) | Verdict::Redirect(_) => *b"LH",
        _ => *b"PH",
    };
    match verdict {
        Verdict::Return(reply) => reply.render(&cx, &msgs, head_only, !keep, out),
        Verdict::Redirect(redirect) => {
            redirect.render(&cx, &msgs, head_only, !keep, out);
        }
        Verdict::Deny(reply) | Verdict::Tarpit(reply) => {
            x.response_denied();
            reply.render(&cx, &msgs, head_only, !keep, out);
        }
        Verdict::EditFailed => {
            x.response_failed();
            render_error_page(&th.shared.world, proxy, 502, head_only, !keep, out);
        }
        Verdict::SilentDrop { rst_ttl } => {
            x.response_denied();
            accept::vanish(&*talk.sock, rst_ttl, client.conn.src.get());
        }
        // A service answers requests only.
        Verdict::Pass | Verdict::Wait | Verdict::Reject | Verdict::Service(_) => {
            x.response_denied();
        }
    }
    Some(keep)
}

/// Sends what [`answer_instead`] left and ends the exchange.
async fn finish_instead(
    client: &Client,
    sock: &mut TcpStream,
    work: &mut Work,
    mut x: Exchange<'_>,
    keep: bool,
    sending: bool,
) -> After {
    let out = &mut work.ways.to_client;
    let answered = !out.is_empty();
    if answered {
        x.status = local::status_of(out.pending());
    }
    x.gave(local::send(client, sock, out).await);
    x.finish(&work.stream, &work.request_line, true);
    drop(x);
    client.th.buffers.discard(&mut work.ways.from_server);
    let th = &client.th;
    work.stream.reset(&th.shared.world, th.clock.now());
    match (answered, keep, sending) {
        (true, true, _) => After::Keep,
        (true, false, true) => After::Linger,
        _ => After::Close,
    }
}

/// Makes the response head ready and puts it into the outbox. `None`: it cannot be sent safely.
fn prepare_response(
    talk: &mut Talk<'_, '_>,
    backend: ProxyId,
    facts: &RequestFacts,
    framing: Framing,
    manners: Manners,
) -> Option<remora_core::http1::ResponseSent> {
    let client = talk.client;
    let th = &client.th;
    let Work {
        req,
        res,
        stream,
        ways,
        ..
    } = &mut *talk.work;
    // Before the head is made ready: a rule may still ask to close, and what was made ready stays.
    let cx = th.cx(&client.conn, Some(stream), backend);
    let mut msgs = Msgs {
        req: Some(req),
        res: Some(res),
        ..Msgs::default()
    };
    after_response_phase(&cx, &mut msgs);
    let prepared = res
        .prepare_response_for_client(&ResponseForward {
            request: *facts,
            framing,
            keep_alive: talk.request_done && !manners.client_close && !th.draining(),
        })
        .ok()?;
    talk.x.status = i32::from(res.status());
    res.write(&mut ways.to_client.bytes);
    Some(prepared)
}
