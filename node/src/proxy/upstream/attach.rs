//! From "this backend" to an open connection: choice, place, queue, idle connection or a new one, retries.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use remora_core::balance::{Ask, Choice};
use remora_core::world::ProxyId;
use tokio::net::TcpStream;

use super::queue::Ticket;
use super::{ServerId, connect, give_place_back, pool, take_place};
use crate::proxy::client::Client;
use crate::proxy::counters::{add, raise, tick};
use crate::proxy::worker::Thread;

/// Between two attempts on one server that refused at once, as long as `timeout connect` is not shorter.
const TURN_AROUND_MS: u64 = 1000;
/// A request that must not be sent twice takes no connection that has been idle for longer: the server may be about to
/// close it.
const FRESH_MS: u64 = 1000;

/// An open connection to a server, with the place on it.
pub(crate) struct Attached {
    pub(crate) place: Place,
    pub(crate) conn: UpConn,
    /// It served other exchanges before.
    pub(crate) reused: bool,
}

/// A place on a server (`maxconn`), given back when dropped.
pub(crate) struct Place {
    th: Rc<Thread>,
    pub(crate) id: ServerId,
}

impl Drop for Place {
    fn drop(&mut self) {
        give_place_back(
            &self.th.shared.world,
            &self.th.shared.plane.upstreams,
            self.id,
        );
    }
}

/// A connection to a server. Dropping it closes it.
pub(crate) struct UpConn {
    th: Rc<Thread>,
    id: ServerId,
    stream: Option<TcpStream>,
}

impl UpConn {
    /// The socket.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.stream
            .as_mut()
            .expect("there until the connection is given up")
    }

    /// Keeps it for another exchange.
    pub(crate) fn keep(mut self) {
        if let Some(stream) = self.stream.take() {
            pool::keep(&self.th, self.id, stream);
        }
    }
}

impl Drop for UpConn {
    fn drop(&mut self) {
        if self.stream.take().is_some() {
            pool::closed(&self.th, self.id);
        }
    }
}

/// What happened on the way to a server, for the log and for timeouts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    pub(crate) server: Option<u16>,
    pub(crate) retries: u32,
    pub(crate) redispatched: bool,
    pub(crate) srv_queue: u32,
    pub(crate) be_queue: u32,
    /// When the place was there, and when the connection was; 0 = never.
    pub(crate) queued_ms: u64,
    pub(crate) connected_ms: u64,
}

/// Why there is no connection: termination letters; the answer is always 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoServer(pub(crate) [u8; 2]);

/// How a connection may be had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// An idle connection will do.
    pub(crate) reuse: bool,
    /// The request may be sent twice.
    pub(crate) repeatable: bool,
}

/// Finds a server of `backend` and connects to it. `gone` says whether to give up because the client has left; it is
/// asked while waiting and registers for being asked again.
pub(crate) async fn attach(
    client: &Client,
    backend: ProxyId,
    way: &mut Way,
    wish: Wish,
    mut gone: impl FnMut(&mut std::task::Context<'_>) -> bool,
) -> Result<Attached, NoServer> {
    let th = &client.th;
    let shared = &th.shared;
    let world = &shared.world;
    let proxy = &shared.plan.proxies[usize::from(backend.0)];
    let state = &world.proxies[usize::from(backend.0)];
    let mut avoid = None;
    loop {
        let place = find_place(client, backend, way, avoid, &mut gone).await?;
        let id = place.id;
        way.server = Some(id.server);
        if way.queued_ms == 0 {
            way.queued_ms = th.clock.ms();
        }
        let server = id.state(world);
        chosen(th, id, way.retries == 0 || avoid.is_some());

        if wish.reuse {
            let age_max = if wish.repeatable { u64::MAX } else { FRESH_MS };
            let idle = pool::take(th, id, age_max).or_else(|| {
                let full = server.maxconn.load(Ordering::Relaxed) != 0
                    && shared
                        .plane
                        .upstreams
                        .server(id)
                        .conns
                        .load(Ordering::Relaxed)
                        >= server.maxconn.load(Ordering::Relaxed);
                if full { pool::take_over(th, id) } else { None }
            });
            if let Some(stream) = idle {
                add(&server.stats.reuse, 1);
                add(&state.back.reuse, 1);
                way.connected_ms = th.clock.ms();
                return Ok(Attached {
                    place,
                    conn: UpConn {
                        th: Rc::clone(th),
                        id,
                        stream: Some(stream),
                    },
                    reused: true,
                });
            }
        }
        match open(client, id, proxy.timeouts.connect, &mut gone).await {
            Ok(conn) => {
                add(&server.stats.connect, 1);
                add(&state.back.connect, 1);
                way.connected_ms = th.clock.ms();
                return Ok(Attached {
                    place,
                    conn,
                    reused: false,
                });
            }
            Err(why) => {
                if matches!(why, NotOpen::ClientGone) {
                    return Err(NoServer(*b"CC"));
                }
                let exhausted = way.retries >= proxy.retries;
                if exhausted || matches!(why, NotOpen::Resources) {
                    add(&server.stats.econ, 1);
                    add(&state.back.econ, 1);
                    way.connected_ms = 0;
                    return Err(NoServer(match why {
                        NotOpen::TimedOut => *b"sC",
                        NotOpen::Resources => *b"RC",
                        _ => *b"SC",
                    }));
                }
                way.retries += 1;
                add(&server.stats.wretr, 1);
                add(&state.back.wretr, 1);
                drop(place);
                // The last retry goes to another server if that is allowed; the others wait for this one.
                if proxy.redispatch && way.retries >= proxy.retries && state.servers.len() > 1 {
                    avoid = Some(id.server);
                    way.redispatched = true;
                    add(&server.stats.wredis, 1);
                    add(&state.back.wredis, 1);
                } else if !matches!(why, NotOpen::TimedOut) {
                    let pause = proxy
                        .timeouts
                        .connect
                        .map_or(TURN_AROUND_MS, u64::from)
                        .min(TURN_AROUND_MS);
                    let until = th.clock.ms() + pause;
                    let left = client
                        .alarm
                        .within(&th.clock, until, |cx| {
                            if gone(cx) {
                                Poll::Ready(())
                            } else {
                                Poll::Pending
                            }
                        })
                        .await;
                    if left.is_some() {
                        return Err(NoServer(*b"CC"));
                    }
                }
            }
        }
    }
}

/// Counts an attempt to reach a server; `anew`: it has just been chosen, and is not only tried again.
fn chosen(th: &Thread, id: ServerId, anew: bool) {
    let now = th.clock.now();
    let world = &th.shared.world;
    let server = id.state(world);
    let state = &world.proxies[usize::from(id.backend.0)];
    add(&server.stats.stot, 1);
    if anew {
        add(&server.stats.lbtot, 1);
        add(&state.back.lbtot, 1);
    }
    server
        .stats
        .last_sess_ms
        .store(now.mono_ms, Ordering::Relaxed);
    state
        .back
        .last_sess_ms
        .store(now.mono_ms, Ordering::Relaxed);
    tick(&server.stats.sess_rate, now.mono_ms);
}

/// Chooses a server and takes a place on it, waiting in the queue if there is none.
async fn find_place(
    client: &Client,
    backend: ProxyId,
    way: &mut Way,
    avoid: Option<u16>,
    gone: &mut impl FnMut(&mut std::task::Context<'_>) -> bool,
) -> Result<Place, NoServer> {
    let th = &client.th;
    let shared = &th.shared;
    let world = &shared.world;
    let upstreams = &shared.plane.upstreams;
    let state = &world.proxies[usize::from(backend.0)];
    let ask = Ask {
        src: client.conn.src.get().map(|address| address.ip()),
        avoid,
        rng: &th.rng,
    };
    let mut wants = None;
    // Losing a race for the last place only means to choose again; a handful of times, then the queue decides.
    for _ in 0..4 {
        match upstreams.balancer(backend).pick(&state.servers, &ask) {
            Choice::None => {
                add(&state.back.econ, 1);
                return Err(NoServer(*b"SC"));
            }
            Choice::Full => {
                wants = None;
                break;
            }
            Choice::Server(server) => {
                let id = ServerId { backend, server };
                if upstreams.queue(backend).is_empty() && take_place(world, id) {
                    return Ok(Place {
                        th: Rc::clone(th),
                        id,
                    });
                }
                wants = Some(server);
            }
        }
    }
    let proxy = &shared.plan.proxies[usize::from(backend.0)];
    if !matches!(proxy.balance, remora_core::balance::Algorithm::Source) {
        wants = None;
    }
    if let Some(server) = wants {
        let limit = proxy
            .servers
            .get(usize::from(server))
            .map_or(0, |server| server.maxqueue);
        let waiting = &state.servers[usize::from(server)].stats.qcur;
        if limit > 0 && waiting.load(Ordering::Relaxed) >= limit {
            wants = None;
        }
    }
    let mut ticket = Ticket::join(world, upstreams, backend, wants);
    // Its own turn counts, as in HAProxy: not 0 means that it waited.
    let (of_server, of_backend) = ticket.ahead;
    if wants.is_some() {
        way.srv_queue = of_server + 1;
    } else {
        way.be_queue = of_backend + 1;
    }
    let until = match proxy.timeouts.queue.or(proxy.timeouts.connect) {
        Some(limit) => th.clock.ms() + u64::from(limit),
        None => 0,
    };
    let turn = client
        .alarm
        .within(&th.clock, until, |cx| {
            if let Poll::Ready(server) = ticket.poll_turn(cx) {
                return Poll::Ready(Some(server));
            }
            if gone(cx) {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
    match turn {
        Some(Some(server)) => Ok(Place {
            th: Rc::clone(th),
            id: ServerId { backend, server },
        }),
        Some(None) => Err(NoServer(*b"CQ")),
        None => {
            add(&state.back.econ, 1);
            if let Some(server) = wants.and_then(|wants| state.servers.get(usize::from(wants))) {
                add(&server.stats.econ, 1);
            }
            Err(NoServer(*b"sQ"))
        }
    }
}

enum NotOpen {
    Refused,
    TimedOut,
    /// No descriptor, no port, no memory left here.
    Resources,
    ClientGone,
}

impl From<io::Error> for NotOpen {
    fn from(err: io::Error) -> NotOpen {
        use rustix::io::Errno;
        match Errno::from_io_error(&err) {
            Some(
                Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL,
            ) => NotOpen::Resources,
            Some(Errno::TIMEDOUT) => NotOpen::TimedOut,
            _ => NotOpen::Refused,
        }
    }
}

/// Opens a new connection and waits until it stands.
async fn open(
    client: &Client,
    id: ServerId,
    timeout_ms: Option<u32>,
    gone: &mut impl FnMut(&mut std::task::Context<'_>) -> bool,
) -> Result<UpConn, NotOpen> {
    let th = &client.th;
    let upstream = th.shared.plane.upstreams.server(id);
    let open_now = upstream.conns.fetch_add(1, Ordering::Relaxed) + 1;
    let limit = id.state(&th.shared.world).maxconn.load(Ordering::Relaxed);
    if limit != 0 && open_now > limit {
        pool::close_one(th, id);
    }
    let mut conn = UpConn {
        th: Rc::clone(th),
        id,
        stream: None,
    };
    let port = client.conn.dst.get().map(|address| address.port());
    match connect::start(upstream, port) {
        Ok(stream) => conn.stream = Some(stream),
        Err(err) => {
            pool::closed(th, id);
            return Err(err.into());
        }
    }
    let until = timeout_ms.map_or(0, |limit| th.clock.ms() + u64::from(limit));
    let connected = client
        .alarm
        .within(&th.clock, until, |cx| {
            if let Poll::Ready(result) = conn.stream().poll_write_ready(cx) {
                return Poll::Ready(Some(result));
            }
            if gone(cx) {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
    match connected {
        None => Err(NotOpen::TimedOut),
        Some(None) => Err(NotOpen::ClientGone),
        Some(Some(Err(err))) => Err(err.into()),
        Some(Some(Ok(()))) => match conn.stream().take_error() {
            Ok(None) => Ok(conn),
            Ok(Some(err)) | Err(err) => Err(err.into()),
        },
    }
}

/// Counts a stream that was given to a backend.
pub(crate) fn backend_begins(th: &Thread, backend: ProxyId) {
    let state = &th.shared.world.proxies[usize::from(backend.0)];
    let now = state.back.scur.fetch_add(1, Ordering::Relaxed) + 1;
    raise(&state.back.smax, now);
    add(&state.back.stot, 1);
    tick(&state.back.sess_rate, th.clock.ms());
}

/// The stream has left the backend.
pub(crate) fn backend_ends(th: &Thread, backend: ProxyId) {
    th.shared.world.proxies[usize::from(backend.0)]
        .back
        .scur
        .fetch_sub(1, Ordering::Relaxed);
}
