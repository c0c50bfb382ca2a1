//! Answers of our own, and how a connection goes on or ends after them.

use std::task::Poll;

use remora_core::http1::{Body, Framing, Head, Version};
use remora_core::rule::action;
use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;

use crate::proxy::buffers::Buf;
use crate::proxy::client::Client;
use crate::proxy::exchange::Exchange;
use crate::proxy::http::After;
use crate::proxy::relay::body::Outbox;
use crate::proxy::streams::Info;
use crate::proxy::work::Work;

/// Sends an error page of the proxy and ends the exchange with it. The request's body has not been looked at.
pub(crate) async fn error(
    client: &Client,
    sock: &mut TcpStream,
    work: &mut Work,
    mut x: Exchange<'_>,
    status: u16,
) -> After {
    let wanted = work.req.keep_alive();
    let end = LocalEnd::new(client, &work.req, &mut work.ways.from_client, wanted);
    x.took(end.taken as u64);
    error_with(client, sock, work, x, status, end).await
}

/// See [`error`]; `end` says what became of the request's body.
pub(crate) async fn error_with(
    client: &Client,
    sock: &mut TcpStream,
    work: &mut Work,
    mut x: Exchange<'_>,
    status: u16,
    end: LocalEnd,
) -> After {
    let th = &client.th;
    let world = &th.shared.world;
    let head_only = work.req.method() == b"HEAD";
    let page_of = x
        .backend()
        .filter(|backend| {
            world
                .proxy(*backend)
                .is_some_and(|proxy| proxy.error_pages.get(status).is_some())
        })
        .unwrap_or(client.conn.frontend);
    let out = &mut work.ways.to_client;
    out.clear();
    action::render_error_page(world, page_of, status, head_only, !end.keep, &mut out.bytes);
    x.status = i32::from(status);
    x.gave(send(client, sock, out).await);
    x.finish(&work.stream, &work.request_line, true);
    drop(x);
    work.stream.reset(world, th.clock.now());
    end.settle(client, sock, &mut work.ways.from_client).await
}

/// How the client connection goes on after an answer of our own: depends on the rest of the request body.
pub(crate) struct LocalEnd {
    pub(crate) keep: bool,
    rest: Rest,
    /// Body bytes dealt with.
    pub(crate) taken: usize,
}

enum Rest {
    None,
    Small(Box<Body>),
    Large,
}

impl LocalEnd {
    /// Drops what the buffer holds of the request's body and looks at what is missing.
    pub(crate) fn new(client: &Client, req: &Head, buf: &mut Buf, wanted: bool) -> LocalEnd {
        let framing = req.request_framing();
        let mut body = Body::new(framing, false);
        let mut rest = Rest::None;
        let mut taken = 0;
        if !body.is_done() {
            match body.advance(buf.filled()) {
                Ok(n) => {
                    taken = n;
                    buf.consume(n);
                    if !body.is_done() {
                        let small = match framing {
                            Framing::Sized(_) => body.contiguous() <= BODY_REST_MAX,
                            _ => true,
                        };
                        rest = if small && !req.expects_continue() {
                            Rest::Small(Box::new(body))
                        } else {
                            Rest::Large
                        };
                    }
                }
                Err(_) => rest = Rest::Large,
            }
        }
        let keep = !matches!(rest, Rest::Large) && may_keep(client, req, wanted);
        LocalEnd { keep, rest, taken }
    }

    /// After a request that was on its way to a server. `sending`: the client is not done with it.
    pub(crate) fn on_the_way(client: &Client, req: &Head, sending: bool) -> LocalEnd {
        let mut end = LocalEnd::closing(sending);
        end.keep = !sending && may_keep(client, req, req.keep_alive());
        end
    }

    /// The connection ends after the answer; `sending`: the client is not done with its request.
    pub(crate) fn closing(sending: bool) -> LocalEnd {
        LocalEnd {
            keep: false,
            rest: if sending { Rest::Large } else { Rest::None },
            taken: 0,
        }
    }

    /// Reads a small rest of the body; says what becomes of the connection.
    pub(crate) async fn settle(
        self,
        client: &Client,
        sock: &mut TcpStream,
        buf: &mut Buf,
    ) -> After {
        match self.rest {
            Rest::Large => After::Linger,
            Rest::None if self.keep => After::Keep,
            Rest::None => After::Close,
            Rest::Small(_) if !self.keep => After::Linger,
            Rest::Small(mut body) => {
                let th = &client.th;
                let until = th.clock.ms() + LINGER_MS;
                while !body.is_done() {
                    th.buffers.fill(buf);
                    let received = client
                        .alarm
                        .within(&th.clock, until, |cx| buf.poll_recv(sock, cx))
                        .await;
                    if !matches!(received, Some(Ok(1..))) || body.taken() > BODY_REST_MAX {
                        return After::Close;
                    }
                    match body.advance(buf.filled()) {
                        Ok(n) => buf.consume(n),
                        Err(_) => return After::Close,
                    }
                }
                After::Keep
            }
        }
    }
}

/// Whether the connection may go on after an answer of our own, as far as the request's body does not forbid it. Our
/// answers do not know HTTP/1.0's `keep-alive`.
pub(crate) fn may_keep(client: &Client, req: &Head, wanted: bool) -> bool {
    wanted
        && req.version() == Version::Http11
        && !client.th.draining()
        && !client.plan().options.httpclose
}

/// Sends what is in the outbox within `timeout client`; gives the number of bytes sent.
pub(crate) async fn send(client: &Client, sock: &mut TcpStream, out: &mut Outbox) -> u64 {
    if out.is_empty() {
        return 0;
    }
    let th = &client.th;
    let until = client
        .plan()
        .timeouts
        .client
        .map_or(0, |limit| th.clock.ms() + u64::from(limit));
    let _ = client
        .alarm
        .within(&th.clock, until, |cx| out.poll_send(sock, cx))
        .await;
    let sent = out.sent as u64;
    out.clear();
    sent
}

/// Waits, throwing away what the client sends. `false`: the client has left.
pub(crate) async fn hold_back(
    client: &Client,
    sock: &mut TcpStream,
    buf: &mut Buf,
    info: &Info,
    until: u64,
) -> bool {
    let th = &client.th;
    let ended = client
        .alarm
        .within(&th.clock, until, |cx| {
            if info.is_killed() {
                return Poll::Ready(());
            }
            loop {
                match sock.poll_read_ready(cx) {
                    Poll::Pending => {
                        th.buffers.give_back(buf);
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {}
                }
                th.buffers.discard(buf);
                th.buffers.fill(buf);
                match buf.poll_recv(sock, cx) {
                    Poll::Ready(Ok(1..)) => buf.clear(),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    ended.is_none()
}

/// Tells the client that no more will come and lets it finish sending, within bounds.
pub(crate) async fn linger(client: &Client, sock: &mut TcpStream, buf: &mut Buf) {
    let th = &client.th;
    if shutdown(&*sock, Shutdown::Write).is_err() {
        return;
    }
    let until = th.clock.ms() + LINGER_MS;
    let mut total = 0;
    loop {
        th.buffers.discard(buf);
        th.buffers.fill(buf);
        match client
            .alarm
            .within(&th.clock, until, |cx| buf.poll_recv(sock, cx))
            .await
        {
            Some(Ok(n @ 1..)) => total += n as u64,
            _ => return,
        }
        if total > LINGER_BYTES_MAX {
            return;
        }
    }
}

/// Status in the first line of a rendered answer.
pub(crate) fn status_of(message: &[u8]) -> i32 {
    message
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(-1)
}

/// Rest of a request body that is read and thrown away to save the connection.
const BODY_REST_MAX: u64 = 16 * 1024;

/// How long and how much a client may go on sending after it got an answer that ends the connection: closing at once
/// would reset the connection and might take the answer away.
const LINGER_MS: u64 = 2000;
const LINGER_BYTES_MAX: u64 = 1024 * 1024;
