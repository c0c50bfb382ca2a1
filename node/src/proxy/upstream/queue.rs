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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::testing;

    fn poll(ticket: &mut Ticket<'_>) -> Option<u16> {
        match ticket.poll_turn(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(server) => Some(server),
            Poll::Pending => None,
        }
    }

    fn id(server: u16) -> ServerId {
        ServerId {
            backend: ProxyId(0),
            server,
        }
    }

    #[test]
    fn places_go_to_those_who_wait_in_order() {
        let (world, upstreams) = testing::backend(&[1, 1]);
        assert!(take_place(&world, id(0)) && take_place(&world, id(1)));
        assert!(!take_place(&world, id(0)));
        let mut any = Ticket::join(&world, &upstreams, ProxyId(0), None);
        let mut second_only = Ticket::join(&world, &upstreams, ProxyId(0), Some(1));
        let mut last = Ticket::join(&world, &upstreams, ProxyId(0), None);
        assert_eq!(
            (any.ahead, second_only.ahead, last.ahead),
            ((0, 0), (0, 1), (0, 2))
        );
        assert_eq!(poll(&mut any), None);

        give_place_back(&world, &upstreams, id(1));
        assert_eq!(poll(&mut any), Some(1));
        assert_eq!(poll(&mut second_only), None);

        // The first server's place is not for the one who wants the second.
        give_place_back(&world, &upstreams, id(0));
        assert_eq!((poll(&mut second_only), poll(&mut last)), (None, Some(0)));

        give_place_back(&world, &upstreams, id(1));
        assert_eq!(poll(&mut second_only), Some(1));
        assert!(upstreams.queue(ProxyId(0)).is_empty());
        assert_eq!(testing::scur(&world), [1, 1]);
    }

    #[test]
    fn a_place_freed_just_before_joining_is_not_missed() {
        let (world, upstreams) = testing::backend(&[1]);
        let mut ticket = Ticket::join(&world, &upstreams, ProxyId(0), None);
        assert_eq!(poll(&mut ticket), Some(0));
    }

    #[test]
    fn who_leaves_the_line_keeps_nothing() {
        let (world, upstreams) = testing::backend(&[1]);
        assert!(take_place(&world, id(0)));
        let gave_up = Ticket::join(&world, &upstreams, ProxyId(0), None);
        let served_unseen = Ticket::join(&world, &upstreams, ProxyId(0), None);
        let mut third = Ticket::join(&world, &upstreams, ProxyId(0), None);
        drop(gave_up);
        give_place_back(&world, &upstreams, id(0));
        // Its turn came, but it was dropped before it looked.
        drop(served_unseen);
        assert_eq!(poll(&mut third), Some(0));
        assert_eq!(testing::scur(&world), [1]);
        assert!(upstreams.queue(ProxyId(0)).is_empty());
    }

    #[test]
    fn servers_out_of_service_serve_nobody_until_they_are_back() {
        let (world, upstreams) = testing::backend(&[1]);
        let server = &world.proxies[0].servers[0];
        server.stats.admin.store(1, Ordering::Relaxed);
        let mut ticket = Ticket::join(&world, &upstreams, ProxyId(0), None);
        assert_eq!(poll(&mut ticket), None);
        server.stats.admin.store(0, Ordering::Relaxed);
        upstreams.queue(ProxyId(0)).serve(&world, &upstreams, id(0));
        assert_eq!(poll(&mut ticket), Some(0));
    }

    #[test]
    fn many_threads_never_exceed_the_limit_and_all_get_their_turn() {
        let (world, upstreams) = testing::backend(&[2, 1]);
        let most = AtomicU32::new(0);
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let mut ticket = Ticket::join(&world, &upstreams, ProxyId(0), None);
                        let server = loop {
                            match poll(&mut ticket) {
                                Some(server) => break server,
                                None => std::thread::yield_now(),
                            }
                        };
                        drop(ticket);
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        give_place_back(&world, &upstreams, id(server));
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(testing::scur(&world), [0, 0]);
        assert!(upstreams.queue(ProxyId(0)).is_empty());
    }
}
