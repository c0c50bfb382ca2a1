//! From the kernel's queue to a session: limits, `accept4`, `tcp-request connection`, and only then a task and a place
//! in the reactor. What the rules refuse never gets either.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use remora_core::rule::action::Verdict;
use remora_core::rule::cx::{ConnState, Msgs};
use remora_core::world::ProxyId;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{self, SocketFlags, sockopt};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::proxy::client::{self, Client};
use crate::proxy::counters::{self, add};
use crate::proxy::listen::Listener;
use crate::proxy::worker::Thread;
use crate::proxy::{mentions, session};

/// Connections taken before the others on this thread get a turn.
const BATCH: usize = 64;
/// Connections of a round before which the queue is asked whether it is empty.
const SPARSE: usize = 3;
/// Connections taken from a queue before it is closed.
const QUEUE_MAX: usize = 64 * BATCH;
/// How long accepting pauses when descriptors or memory have run out.
const STARVED_PAUSE: Duration = Duration::from_millis(100);

/// What every accepted connection of a listener needs to know.
struct Door {
    th: Rc<Thread>,
    frontend: ProxyId,
    /// Position of the `bind`.
    bind: u16,
    /// See [`Listener::born_to_reset`].
    born_to_reset: bool,
    /// `None`: it is closed already.
    listener: Option<Rc<Listener>>,
    /// The address clients connect to is the listener's own.
    fixed_dst: Option<SocketAddr>,
    /// Connection rules look at the destination address.
    rules_want_dst: bool,
}

/// Accepts on one listener for ever. Aborted when the thread stops accepting.
pub(crate) async fn run(th: Rc<Thread>, listener: Rc<Listener>) {
    let Some((door, socket)) = open(th, listener) else {
        return;
    };
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        if door.take_batch(&socket).await {
            tokio::task::yield_now().await;
        }
    }
}

/// Takes what waits in the queue of a listener and closes it, as closing alone would reset what waits. It is served in a task
/// of its own, as places become free.
pub(crate) fn empty_queue(th: &Rc<Thread>, listener: Listener) {
    let mut waiting = Vec::new();
    // Never waits: another thread may listen on the same socket, and be faster.
    while waiting.len() < QUEUE_MAX {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match net::acceptfrom_with(&listener.fd, flags) {
            Ok((fd, address)) => {
                waiting.push((fd, address.and_then(|any| SocketAddr::try_from(any).ok())));
            }
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(Errno::AGAIN) => break,
            Err(err) => {
                let text = io::Error::from(err);
                tracing::warn!("what waits at a socket that is closed is not served: {text}");
                break;
            }
        }
    }
    let door = Door::new(Rc::clone(th), &listener, None);
    drop(listener);
    if waiting.is_empty() {
        return;
    }
    // The thread does not end meanwhile.
    let stay = Stay::new(th);
    tokio::task::spawn_local(async move {
        for (served, (fd, src)) in waiting.into_iter().enumerate() {
            while !door.take_places() {
                tokio::select! {
                    () = door.wait_for_places() => {}
                    () = stay.0.cut() => return,
                }
            }
            if !door.admit(fd, src) {
                door.give_places_back();
            }
            if served % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
    });
}

/// Something that its thread waits for before it ends.
struct Stay(Rc<Thread>);

impl Stay {
    fn new(th: &Rc<Thread>) -> Stay {
        th.conn_begins();
        Stay(Rc::clone(th))
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.conn_ends();
    }
}

fn open(th: Rc<Thread>, listener: Rc<Listener>) -> Option<(Door, TcpStream)> {
    // A listening socket behind tokio's stream type: what matters is the readiness, and it costs no `epoll_ctl` per
    // accepted connection.
    let socket = rustix::io::fcntl_dupfd_cloexec(&listener.fd, 3)
        .map_err(io::Error::from)
        .and_then(|fd| TcpStream::from_std(fd.into()));
    let socket = match socket {
        Ok(socket) => socket,
        Err(err) => {
            tracing::error!("cannot listen: {err}");
            return None;
        }
    };
    let door = Door::new(th, &listener, Some(Rc::clone(&listener)));
    Some((door, socket))
}

impl Door {
    fn new(th: Rc<Thread>, of: &Listener, listener: Option<Rc<Listener>>) -> Door {
        let rules = &th.shared.world.proxies[usize::from(of.frontend.0)].rules;
        let rules_want_dst = mentions::rules(&rules.tcp_connection, "dst");
        let fixed_dst = of.address.filter(|address| !address.ip().is_unspecified());
        Door {
            th,
            frontend: of.frontend,
            bind: of.bind,
            born_to_reset: of.born_to_reset,
            listener,
            fixed_dst,
            rules_want_dst,
        }
    }

    /// Accepts until the queue is empty or the batch is full (`true`).
    async fn take_batch(&self, socket: &TcpStream) -> bool {
        // A refused connection leaves its place to the next one: a flood does not touch the shared counters.
        let mut has_place = false;
        for taken in 0..BATCH {
            if (1..=SPARSE).contains(&taken) && self.is_queue_empty(socket) {
                if has_place {
                    self.give_places_back();
                }
                return false;
            }
            if !has_place {
                if !self.take_places() {
                    self.wait_for_places().await;
                    continue;
                }
                has_place = true;
            }
            let accepted = socket.try_io(Interest::READABLE, || {
                net::acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
                    .map_err(io::Error::from)
            });
            match accepted {
                Ok((fd, address)) => {
                    let src = address.and_then(|any| SocketAddr::try_from(any).ok());
                    has_place = !self.admit(fd, src);
                }
                // Compared by kind: the error may be tokio's own, without a number.
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    self.give_places_back();
                    return false;
                }
                Err(err) => {
                    // Others died in the queue; the next one may be fine.
                    if let Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) =
                        Errno::from_io_error(&err)
                    {
                        self.give_places_back();
                        has_place = false;
                        self.starve(&err).await;
                    }
                }
            }
        }
        if has_place {
            self.give_places_back();
        }
        true
    }

    /// Asks without accepting: an `accept4` in vain makes and destroys a whole socket, and while few connections come
    /// at a time, every round ends with one.
    fn is_queue_empty(&self, socket: &TcpStream) -> bool {
        let empty = socket.try_io(Interest::READABLE, || {
            let mut fds = [PollFd::new(socket, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
                Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        empty.is_err()
    }

    /// A place within each of the three limits: process, frontend, bind.
    fn take_places(&self) -> bool {
        let shared = &self.th.shared;
        let process = &shared.world.process;
        let limit = limit(process.maxconn.load(Ordering::Relaxed));
        if counters::take_place(&process.curr_conns, limit).is_none() {
            return false;
        }
        let proxy = &shared.world.proxies[usize::from(self.frontend.0)];
        let limit = self::limit(proxy.maxconn.load(Ordering::Relaxed));
        match counters::take_place(&proxy.front.scur, limit) {
            Some(now) => counters::raise(&proxy.front.smax, now),
            None => {
                process.curr_conns.fetch_sub(1, Ordering::SeqCst);
                // Another thread may have found the process full because of the place taken in passing.
                shared.plane.process_gate.open();
                return false;
            }
        }
        let limit = self.bind_limit().unwrap_or(u32::MAX);
        if counters::take_place(self.bind_conns(), limit).is_none() {
            proxy.front.scur.fetch_sub(1, Ordering::SeqCst);
            process.curr_conns.fetch_sub(1, Ordering::SeqCst);
            shared.plane.front(self.frontend).gate.open();
            shared.plane.process_gate.open();
            return false;
        }
        true
    }

    fn bind_limit(&self) -> Option<u32> {
        let proxy = &self.th.shared.plan.proxies[usize::from(self.frontend.0)];
        proxy.binds[usize::from(self.bind)].maxconn
    }

    fn bind_conns(&self) -> &std::sync::atomic::AtomicU32 {
        &self.th.shared.world.proxies[usize::from(self.frontend.0)].bind_conns
            [usize::from(self.bind)]
    }

    /// Another process that shares the socket, or did, may have wanted it.
    fn may_be_born_to_reset(&self) -> bool {
        let mixed = |listener: &Rc<Listener>| listener.mixed.load(Ordering::Relaxed);
        self.born_to_reset
            || self.listener.as_ref().is_none_or(mixed)
            || self.th.shared.plane.yields.load(Ordering::Relaxed)
    }

    fn give_places_back(&self) {
        client::give_places_back(&self.th, self.frontend, self.bind);
    }

    /// Connections stay in the kernel's queue until there is room.
    async fn wait_for_places(&self) {
        let shared = &self.th.shared;
        let process = &shared.world.process;
        let proxy = &shared.world.proxies[usize::from(self.frontend.0)];
        let process_full = || {
            process.curr_conns.load(Ordering::SeqCst)
                >= limit(process.maxconn.load(Ordering::Relaxed))
        };
        if process_full() {
            add(&process.maxconn_reached, 1);
            shared.plane.process_gate.wait(|| !process_full()).await;
            return;
        }
        shared
            .plane
            .front(self.frontend)
            .gate
            .wait(|| {
                proxy.front.scur.load(Ordering::SeqCst)
                    < limit(proxy.maxconn.load(Ordering::Relaxed))
                    && self
                        .bind_limit()
                        .is_none_or(|limit| self.bind_conns().load(Ordering::SeqCst) < limit)
            })
            .await;
    }

    /// Descriptors or memory have run out: one warning, and a pause instead of a spin.
    async fn starve(&self, err: &io::Error) {
        let starved = &self.th.shared.plane.starved;
        if !starved.swap(true, Ordering::Relaxed) {
            tracing::warn!("accepting connections pauses: {err}");
        }
        tokio::time::sleep(STARVED_PAUSE).await;
    }

    /// Runs the connection rules on a fresh connection and either lets it in, with the place that was taken for it, or
    /// gets rid of it (`false`).
    fn admit(&self, fd: OwnedFd, src: Option<SocketAddr>) -> bool {
        let th = &self.th;
        let shared = &th.shared;
        let now = th.clock.now();
        let world = &shared.world;
        if shared.plane.starved.load(Ordering::Relaxed)
            && shared.plane.starved.swap(false, Ordering::Relaxed)
        {
            tracing::warn!("accepting connections goes on");
        }
        let proxy = &world.proxies[usize::from(self.frontend.0)];
        add(&world.process.cum_conns, 1);
        counters::tick(&world.process.conn_rate, now.mono_ms);
        add(&proxy.front.conn_tot, 1);
        counters::tick(&proxy.front.conn_rate, now.mono_ms);

        let mut dst = self.fixed_dst;
        if dst.is_none() && self.rules_want_dst {
            dst = local_address(&fd);
        }
        let conn = ConnState::new(
            self.frontend,
            self.bind,
            src,
            dst,
            world.process.stick_counters,
            now,
        );
        let rules = &proxy.rules.tcp_connection;
        if !rules.rules.is_empty() {
            let cx = th.cx(&conn, None, self.frontend);
            let verdict = rules.run(&cx, &mut Msgs::default());
            let refused = match verdict {
                Verdict::Pass | Verdict::Wait => false,
                Verdict::SilentDrop { rst_ttl } => {
                    vanish(&fd, rst_ttl, src);
                    true
                }
                _ => {
                    if !self.born_to_reset {
                        let _ = sockopt::set_socket_linger(&fd, Some(Duration::ZERO));
                    }
                    true
                }
            };
            if refused {
                add(&proxy.front.dcon, 1);
                drop(fd);
                conn.slots.release(world, now.mono_ms);
                return false;
            }
        }
        if self.may_be_born_to_reset() {
            let _ = sockopt::set_socket_linger(&fd, None);
        }
        if conn.dst.get().is_none() {
            conn.dst.set(local_address(&fd));
        }
        let client = Client::new(Rc::clone(th), conn, now);
        match TcpStream::from_std(fd.into()) {
            Ok(stream) => {
                tokio::task::spawn_local(session::serve(client, stream));
            }
            // Dropping the client gives its place back.
            Err(err) => tracing::warn!("cannot watch an accepted connection: {err}"),
        }
        true
    }
}

fn limit(maxconn: u32) -> u32 {
    if maxconn == 0 { u32::MAX } else { maxconn }
}

fn local_address(fd: &OwnedFd) -> Option<SocketAddr> {
    net::getsockname(fd)
        .ok()
        .and_then(|any| SocketAddr::try_from(any).ok())
}

/// Makes closing this connection invisible to the client, or nearly so: with `TCP_REPAIR` nothing is sent at all;
/// where that is not permitted, a reset that does not survive its first hop.
pub(crate) fn vanish(fd: &impl std::os::fd::AsFd, rst_ttl: u8, src: Option<SocketAddr>) {
    use nix::sys::socket::{setsockopt, sockopt::TcpRepair};
    if setsockopt(&fd.as_fd(), TcpRepair, &1).is_ok() {
        return;
    }
    let ttl = rst_ttl.max(1);
    let _ = match src {
        Some(SocketAddr::V6(_)) => sockopt::set_ipv6_unicast_hops(fd, Some(ttl)),
        _ => sockopt::set_ip_ttl(fd, u32::from(ttl)),
    };
    let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}
