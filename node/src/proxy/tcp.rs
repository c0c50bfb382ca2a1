//! TCP mode: content inspection, then bytes in both directions.

use remora_core::http1::{Head, Limits};
use remora_core::rule::action::Verdict;
use remora_core::rule::cx::{Content, Msgs};
use remora_core::rule::proxy::{Progress, RequestOutcome, tcp_phase};
use tokio::net::TcpStream;

use crate::proxy::accept;
use crate::proxy::client::{Client, has_left};
use crate::proxy::exchange::Exchange;
use crate::proxy::relay::tunnel;
use crate::proxy::upstream::attach::{Wish, attach};
use crate::proxy::work::{Lease, Work};

/// Serves a TCP session until it ends.
pub(crate) async fn run(client: &Client, sock: &mut TcpStream) {
    let th = &client.th;
    let mut lease = Lease::take(th);
    let work = &mut *lease;
    let mut x = Exchange::new(client, client.accepted());
    th.streams.begin(
        &work.info,
        th.index,
        &client.conn,
        client.alarm.id(),
        th.clock.ms(),
    );
    session(client, sock, work, &mut x).await;
    x.finish(&work.stream, b"", false);
}

async fn session(client: &Client, sock: &mut TcpStream, work: &mut Work, x: &mut Exchange<'_>) {
    let th = &client.th;
    let global = &th.shared.plan.global;
    let limits = Limits {
        head_bytes_max: global.bufsize.saturating_sub(global.maxrewrite),
        headers_max: global.maxhdr,
    };
    let mut progress = Progress::default();
    let mut is_final = false;
    let mut client_left = false;
    let started = th.clock.ms();
    let Work {
        req,
        ways,
        stream,
        info,
        ..
    } = &mut *work;
    let outcome = loop {
        let not_http = !try_http(req, ways.from_client.filled(), &limits);
        let cx = th.cx(&client.conn, Some(stream), client.conn.frontend);
        let mut msgs = Msgs {
            req: if req.is_complete() { Some(req) } else { None },
            req_content: Content {
                bytes: ways.from_client.filled(),
                is_final,
                not_http,
            },
            ..Msgs::default()
        };
        match tcp_phase(&cx, &mut msgs, &mut progress) {
            RequestOutcome::Wait { inspect_delay_ms } => {
                th.buffers.fill(&mut ways.from_client);
                let until = started + u64::from(inspect_delay_ms);
                let received = client
                    .alarm
                    .within(&th.clock, until, |cx| ways.from_client.poll_recv(sock, cx))
                    .await;
                match received {
                    Some(Ok(1..)) => is_final = ways.from_client.room() == 0,
                    Some(Ok(0)) => {
                        client.at_end.set(true);
                        is_final = true;
                    }
                    Some(Err(_)) => client_left = true,
                    None => is_final = true,
                }
                if client_left {
                    break RequestOutcome::NoBackend;
                }
            }
            outcome => break outcome,
        }
    };
    if let Some(backend) = stream.backend.get() {
        x.enter(backend);
        info.backend.set(Some(backend));
    }
    let seen = ways.from_client.len() as u64;
    x.moved(stream, seen, 0, 0, th.clock.ms());
    if client_left {
        x.term = *b"CR";
        return;
    }
    let backend = match outcome {
        RequestOutcome::Forward(backend) => backend,
        RequestOutcome::Final(_, verdict) => {
            x.denied();
            x.term = *b"PR";
            if let Verdict::SilentDrop { rst_ttl } = verdict {
                accept::vanish(&*sock, rst_ttl, client.conn.src.get());
            }
            return;
        }
        RequestOutcome::NoBackend | RequestOutcome::Wait { .. } => {
            x.term = *b"SC";
            return;
        }
    };
    x.enter(backend);
    info.backend.set(Some(backend));
    let abort_on_close = client.plan().options.abortonclose
        || th.shared.plan.proxies[usize::from(backend.0)]
            .options
            .abortonclose;
    let mut way = x.way;
    let wish = Wish {
        reuse: false,
        repeatable: false,
    };
    let attached = attach(client, backend, &mut way, wish, |cx| {
        info.is_killed() || has_left(sock, abort_on_close, cx)
    })
    .await;
    x.way = way;
    let mut attached = match attached {
        Ok(attached) => attached,
        Err(why) => {
            x.term = why.0;
            return;
        }
    };
    let server = attached.place.id.server;
    stream.server.set(Some(server));
    info.server.set(Some(server));
    let own = &client.plan().timeouts;
    let timeouts = &th.shared.plan.proxies[usize::from(backend.0)].timeouts;
    let limits = tunnel::Limits {
        client: own.client,
        server: timeouts.server,
        tunnel: timeouts.tunnel,
        client_fin: own.client_fin,
        server_fin: timeouts.server_fin,
    };
    let (mut from_client, mut from_server, mut to_client) = (seen, 0, 0);
    x.term = tunnel::run(
        th,
        &client.alarm,
        sock,
        attached.conn.stream(),
        ways,
        limits,
        |a, b, c, now| {
            from_client += a;
            from_server += b;
            to_client += c;
            info.called();
            (!info.is_killed()).then(|| x.moved(stream, from_client, from_server, to_client, now))
        },
    )
    .await;
}

/// Looks whether the content so far is, or may become, an HTTP request head.
fn try_http(head: &mut Head, content: &[u8], limits: &Limits) -> bool {
    if head.is_complete() || content.is_empty() {
        return true;
    }
    head.parse_request(content, limits).is_ok()
}
