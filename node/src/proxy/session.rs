//! A client connection from its first byte to its last. What waits while nothing happens is here, and it is small; what
//! works on messages is boxed and lives only meanwhile.

use std::task::Poll;
use std::time::Duration;

use remora_core::rule::action::Verdict;
use remora_core::rule::cx::Msgs;
use remora_core::rule::track;
use rustix::net::sockopt;
use tokio::net::TcpStream;

use crate::proxy::client::Client;
use crate::proxy::counters::{add, tick};
use crate::proxy::http::{self, Next};
use crate::proxy::{accept, proxy_protocol, tcp};

/// Serves an accepted connection until it ends.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would hold its arguments twice"
)]
// Not an `async fn`: that would hold its arguments twice, and every idle connection is one of these.
pub(crate) fn serve(mut client: Client, mut stream: TcpStream) -> impl Future<Output = ()> {
    async move {
        if client.bind().accept_proxy
            && !Box::pin(proxy_protocol::receive(&mut client, &mut stream)).await
        {
            return;
        }
        if !begin(&client, &stream) {
            return;
        }
        if !client.front().mode_http {
            Box::pin(tcp::run(&client, &mut stream)).await;
            return;
        }
        loop {
            match wait_for_request(&client, &stream).await {
                Waited::Data => {}
                Waited::TooLong if client.conn.requests.get() == 0 => {
                    Box::pin(http::nothing_came(&client, &mut stream)).await;
                    return;
                }
                Waited::TooLong | Waited::Broken => return,
            }
            match Box::pin(http::busy(&client, &mut stream)).await {
                Next::Idle => {}
                Next::Close => return,
            }
        }
    }
}

/// `tcp-request session`, and the connection becomes a session.
fn begin(client: &Client, stream: &TcpStream) -> bool {
    let th = &client.th;
    let world = &th.shared.world;
    let front = client.front();
    let rules = &front.rules.tcp_session;
    if !rules.rules.is_empty() {
        let cx = th.cx(&client.conn, None, client.conn.frontend);
        match rules.run(&cx, &mut Msgs::default()) {
            Verdict::Pass | Verdict::Wait => {}
            verdict => {
                if let Verdict::SilentDrop { rst_ttl } = verdict {
                    accept::vanish(stream, rst_ttl, client.conn.src.get());
                } else {
                    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                }
                add(&front.front.dses, 1);
                return false;
            }
        }
    }
    let now = th.clock.ms();
    track::count_session(world, &client.conn, now);
    add(&front.front.stot, 1);
    tick(&front.front.sess_rate, now);
    tick(&world.process.sess_rate, now);
    true
}

enum Waited {
    Data,
    TooLong,
    Broken,
}

/// Waits for the first byte of the next request, holding no buffer.
fn wait_for_request<'a>(
    client: &'a Client,
    stream: &'a TcpStream,
) -> impl Future<Output = Waited> + 'a {
    std::future::poll_fn(move |cx| {
        let th = &client.th;
        match stream.poll_read_ready(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Waited::Data),
            Poll::Ready(Err(_)) => return Poll::Ready(Waited::Broken),
            Poll::Pending => {}
        }
        let until = http::idle_until(client);
        if until == 0 {
            client.alarm.unset(cx);
        } else if th.clock.ms() >= until {
            return Poll::Ready(Waited::TooLong);
        } else {
            client.alarm.set(until, cx);
        }
        Poll::Pending
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        fn size<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let serve = size(serve);
        // With the runtime's own 100 bytes it still fits three cache lines of 128.
        assert!(serve <= 280, "{serve} bytes");
    }
}
