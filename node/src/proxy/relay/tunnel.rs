//! Both directions at once until both are done: TCP mode, CONNECT, upgraded connections.

use std::future::poll_fn;
use std::task::Poll;

use remora_core::http1::Framing;
use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;

use super::body::{Fault, Outbox, Pump};
use crate::proxy::buffers::Buf;
use crate::proxy::deadline::Alarm;
use crate::proxy::worker::Thread;

/// Inactivity limits of a tunnel, milliseconds; `None` = for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) client: Option<u32>,
    pub(crate) server: Option<u32>,
    /// Replaces both while both directions are open.
    pub(crate) tunnel: Option<u32>,
    /// Replaces `client` once the client has been told that no more will come.
    pub(crate) client_fin: Option<u32>,
    pub(crate) server_fin: Option<u32>,
}

/// How a tunnel ended: termination letters as in logs.
pub(crate) type End = [u8; 2];

/// The buffers of both directions. What they hold is sent first.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    pub(crate) from_client: Buf,
    pub(crate) to_server: Outbox,
    pub(crate) from_server: Buf,
    pub(crate) to_client: Outbox,
}

/// Relays until the end. `count(received from the client, received from the server, sent to the client)` gets what
/// moved since it was called last, and the time; it returns when it would like to be called at the latest (0 = when
/// something moves), or `None` to end the tunnel (killed).
pub(crate) async fn run(
    th: &Thread,
    alarm: &Alarm,
    client: &mut TcpStream,
    server: &mut TcpStream,
    ways: &mut Ways,
    limits: Limits,
    mut count: impl FnMut(u64, u64, u64, u64) -> Option<u64>,
) -> End {
    let mut up = Pump::new(Framing::Tunnel, false, false);
    let mut down = Pump::new(Framing::Tunnel, true, false);
    let (mut up_done, mut down_done) = (false, false);
    let mut seen = [0u64; 4];
    let mut client_at = th.clock.ms();
    let mut server_at = client_at;
    let (mut counted_in, mut counted_out, mut counted_sent) = (0, 0, 0);
    if up
        .absorb(&mut ways.from_client, &mut ways.to_server)
        .is_err()
        || down
            .absorb(&mut ways.from_server, &mut ways.to_client)
            .is_err()
    {
        return *b"ID";
    }
    let end = poll_fn(|cx| {
        if !up_done {
            match up.poll(
                th,
                client,
                server,
                &mut ways.from_client,
                &mut ways.to_server,
                cx,
            ) {
                Poll::Ready(Ok(())) => {
                    up_done = true;
                    let _ = shutdown(&*server, Shutdown::Write);
                }
                Poll::Ready(Err(Fault::Sink(_))) => return Poll::Ready(*b"SD"),
                Poll::Ready(Err(_)) => return Poll::Ready(*b"CD"),
                Poll::Pending => {}
            }
        }
        if !down_done {
            match down.poll(
                th,
                server,
                client,
                &mut ways.from_server,
                &mut ways.to_client,
                cx,
            ) {
                Poll::Ready(Ok(())) => {
                    down_done = true;
                    let _ = shutdown(&*client, Shutdown::Write);
                }
                Poll::Ready(Err(Fault::Sink(_))) => return Poll::Ready(*b"CD"),
                Poll::Ready(Err(_)) => return Poll::Ready(*b"SD"),
                Poll::Pending => {}
            }
        }
        let now = th.clock.ms();
        if up.received + down.sent != seen[0] {
            seen[0] = up.received + down.sent;
            client_at = now;
        }
        if down.received + up.sent != seen[1] {
            seen[1] = down.received + up.sent;
            server_at = now;
        }
        if up_done && down_done {
            return Poll::Ready(*b"--");
        }
        let Some(count_at) = count(
            up.received - counted_in,
            down.received - counted_out,
            down.sent - counted_sent,
            now,
        ) else {
            return Poll::Ready(*b"KD");
        };
        (counted_in, counted_out, counted_sent) = (up.received, down.received, down.sent);
        let both_open = !up_done && !down_done;
        let tunnel = limits.tunnel;
        let client_limit = match (down_done, limits.client_fin) {
            (true, Some(fin)) => Some(fin),
            _ if tunnel.is_some() && both_open => tunnel,
            _ => limits.client,
        };
        let server_limit = match (up_done, limits.server_fin) {
            (true, Some(fin)) => Some(fin),
            _ if tunnel.is_some() && both_open => tunnel,
            _ => limits.server,
        };
        let mut next = count_at;
        let mut consider = |at: u64| {
            if next == 0 || at < next {
                next = at;
            }
        };
        if let Some(limit) = client_limit {
            let at = client_at + u64::from(limit);
            if now >= at {
                return Poll::Ready(*b"cD");
            }
            consider(at);
        }
        if let Some(limit) = server_limit {
            let at = server_at + u64::from(limit);
            if now >= at {
                return Poll::Ready(*b"sD");
            }
            consider(at);
        }
        if next == 0 {
            alarm.unset(cx);
        } else {
            alarm.set(next, cx);
        }
        Poll::Pending
    })
    .await;
    let _ = count(
        up.received - counted_in,
        down.received - counted_out,
        down.sent - counted_sent,
        th.clock.ms(),
    );
    up.release(th);
    down.release(th);
    th.buffers.discard(&mut ways.from_client);
    th.buffers.discard(&mut ways.from_server);
    end
}
