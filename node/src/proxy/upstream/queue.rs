//! Requests waiting for a place on a server: one line per backend, first come first served, across threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use remora_core::world::{ProxyId, World};

use super::{ServerId, Upstreams, give_place_back, take_place};
use crate::proxy::counters;

/// The line of one backend.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: AtomicU32,
    line: Mutex<VecDeque<Arc<Waiter>>>,
}

struct Waiter {
    /// Only this server will do.
    wants: Option<u16>,
    state: Mutex<State>,
}

enum State {
    Waiting(Option<Waker>),
    /// This server's place is the waiter's now.
    Served(u16),
    Gone,
}

impl Queue {
    /// Hands free places of a server to those who wait for it.
    pub(crate) fn serve(&self, world: &World, upstreams: &Upstreams, id: ServerId) {
        let may_serve = || {
            let servers = &world.proxies[usize::from(id.backend.0)].servers;
            upstreams.balancer(id.backend).may_take(servers, id.server)
        };
        while self.waiting.load(Ordering::SeqCst) > 0 {
            let mut line = self.line.lock();
            let Some(at) = line
                .iter()
                .position(|waiter| waiter.wants.is_none_or(|wanted| wanted == id.server))
            else {
                return;
            };
            // A backup server takes nobody from the line while others can serve it.
            if !may_serve() || !take_place(world, id) {
                return;
            }
            let Some(waiter) = line.remove(at) else {
                return;
            };
            self.left(world, id.backend, waiter.wants);
            drop(line);
            let old = std::mem::replace(&mut *waiter.state.lock(), State::Served(id.server));
            match old {
                State::Waiting(waker) => {
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                // It gave up in this very moment: the place goes to the next one.
                State::Gone | State::Served(_) => {
                    id.state(world).stats.scur.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    }

    fn left(&self, world: &World, backend: ProxyId, wants: Option<u16>) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        let state = &world.proxies[usize::from(backend.0)];
        state.back.qcur.fetch_sub(1, Ordering::Relaxed);
        if let Some(server) = wants.and_then(|server| state.servers.get(usize::from(server))) {
            server.stats.qcur.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether anybody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }
}

/// A place in the line. Leaves it when dropped; a place on a server it was given meanwhile is given back.
pub(crate) struct Ticket<'a> {
    world: &'a World,
    upstreams: &'a Upstreams,
    backend: ProxyId,
    waiter: Arc<Waiter>,
    taken: bool,
    /// Requests in the line before this one: of the server's, and of the backend's.
    pub(crate) ahead: (u32, u32),
}

impl<'a> Ticket<'a> {
    /// Joins the line of a backend, for one server or for any.
    pub(crate) fn join(
        world: &'a World,
        upstreams: &'a Upstreams,
        backend: ProxyId,
        wants: Option<u16>,
    ) -> Ticket<'a> {
        let queue = upstreams.queue(backend);
        let waiter = Arc::new(Waiter {
            wants,
            state: Mutex::new(State::Waiting(None)),
        });
        let state = &world.proxies[usize::from(backend.0)];
        let ahead;
        {
            let mut line = queue.line.lock();
            queue.waiting.fetch_add(1, Ordering::SeqCst);
            let in_backend = state.back.qcur.fetch_add(1, Ordering::Relaxed);
            counters::raise(&state.back.qmax, in_backend + 1);
            let in_server = match wants.and_then(|server| state.servers.get(usize::from(server))) {
                Some(server) => {
                    let before = server.stats.qcur.fetch_add(1, Ordering::Relaxed);
                    counters::raise(&server.stats.qmax, before + 1);
                    before
                }
                None => 0,
            };
            ahead = (in_server, in_backend);
            line.push_back(Arc::clone(&waiter));
        }
        // A place may have become free between the failed try and joining; whoever freed it saw nobody waiting.
        for server in 0..state.servers.len() as u16 {
            queue.serve(world, upstreams, ServerId { backend, server });
        }
        Ticket {
            world,
            upstreams,
            backend,
            waiter,
            taken: false,
            ahead,
        }
    }

    /// Ready with the server whose place the holder has now.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<u16> {
        let mut state = self.waiter.state.lock();
        match &mut *state {
            State::Served(server) => {
                self.taken = true;
                Poll::Ready(*server)
            }
            State::Waiting(waker) => {
                match waker {
                    Some(known) if known.will_wake(cx.waker()) => {}
                    _ => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            State::Gone => Poll::Pending,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let queue = self.upstreams.queue(self.backend);
        {
            let mut line = queue.line.lock();
            if let Some(at) = line
                .iter()
                .position(|waiter| Arc::ptr_eq(waiter, &self.waiter))
            {
                line.remove(at);
                queue.left(self.world, self.backend, self.waiter.wants);
            }
        }
        let old = std::mem::replace(&mut *self.waiter.state.lock(), State::Gone);
        if let State::Served(server) = old {
            give_place_back(
                self.world,
                self.upstreams,
                ServerId {
                    backend: self.backend,
                    server,
                },
            );
        }
    }
}
