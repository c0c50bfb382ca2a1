//! Connections to servers: places, queues, idle connections, connecting.

pub(crate) mod attach;
pub(crate) mod connect;
pub(crate) mod pool;
pub(crate) mod queue;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use remora_config::plan::{Address, Plan};
use remora_core::balance::Balancer;
use remora_core::world::{ProxyId, World};

use crate::proxy::counters;
use pool::Idle;
use queue::Queue;

/// Everything the threads share about servers beyond what rules see.
pub(crate) struct Upstreams {
    /// First server of each proxy in `servers`.
    first: Box<[u32]>,
    servers: Box<[Upstream]>,
    /// By proxy.
    queues: Box<[Queue]>,
    balancers: Box<[Balancer]>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Ip(SocketAddr),
    Unix(String),
    /// Nothing to connect to (`fd@`, unresolved).
    None,
}

/// One server.
#[repr(align(128))]
pub(crate) struct Upstream {
    pub(crate) target: Target,
    pub(crate) port_offset: Option<i32>,
    /// Open connections, idle ones too. A server with a `maxconn` gets no more of them than that.
    pub(crate) conns: AtomicU32,
    /// Idle connections, by thread. Each thread uses its own; another one's only when no more may be opened.
    pub(crate) idle: Box<[Mutex<Vec<Idle>>]>,
}

impl Upstreams {
    pub(crate) fn new(plan: &Plan) -> Upstreams {
        let threads = usize::from(plan.global.nbthread.max(1));
        let mut first = Vec::with_capacity(plan.proxies.len());
        let mut servers = Vec::new();
        for proxy in &plan.proxies {
            first.push(servers.len() as u32);
            for server in &proxy.servers {
                servers.push(Upstream {
                    target: match &server.address {
                        Address::Ip(address) => Target::Ip(*address),
                        Address::Unix(path) => Target::Unix(path.clone()),
                        Address::Fd(_) => Target::None,
                    },
                    port_offset: server.port_offset,
                    conns: AtomicU32::new(0),
                    idle: (0..threads).map(|_| Mutex::new(Vec::new())).collect(),
                });
            }
        }
        Upstreams {
            first: first.into(),
            servers: servers.into(),
            queues: plan.proxies.iter().map(|_| Queue::default()).collect(),
            balancers: plan
                .proxies
                .iter()
                .map(|proxy| {
                    Balancer::new(
                        proxy.balance.clone(),
                        proxy.options.allbackups,
                        proxy.servers.len(),
                    )
                })
                .collect(),
        }
    }

    /// A server's shared state.
    pub(crate) fn server(&self, id: ServerId) -> &Upstream {
        &self.servers[self.first[usize::from(id.backend.0)] as usize + usize::from(id.server)]
    }

    pub(crate) fn balancer(&self, backend: ProxyId) -> &Balancer {
        &self.balancers[usize::from(backend.0)]
    }

    pub(crate) fn queue(&self, backend: ProxyId) -> &Queue {
        &self.queues[usize::from(backend.0)]
    }
}

/// A server by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerId {
    pub(crate) backend: ProxyId,
    pub(crate) server: u16,
}

impl ServerId {
    pub(crate) fn state(self, world: &World) -> &remora_core::world::ServerState {
        &world.proxies[usize::from(self.backend.0)].servers[usize::from(self.server)]
    }
}

/// Takes a place on a server if its `maxconn` allows.
pub(crate) fn take_place(world: &World, id: ServerId) -> bool {
    let server = id.state(world);
    let limit = match server.maxconn.load(Ordering::Relaxed) {
        0 => u32::MAX,
        limit => limit,
    };
    match counters::take_place(&server.stats.scur, limit) {
        Some(now) => {
            counters::raise(&server.stats.smax, now);
            true
        }
        None => false,
    }
}

/// Gives a place back and lets the next one in the queue have it.
pub(crate) fn give_place_back(world: &World, upstreams: &Upstreams, id: ServerId) {
    id.state(world).stats.scur.fetch_sub(1, Ordering::SeqCst);
    upstreams.queue(id.backend).serve(world, upstreams, id);
}

/// A backend's queue may go on although nobody gave a place back: a server was enabled or disabled, or its weight or
/// `maxconn` changed.
pub fn servers_changed(shared: &crate::shared::Shared, backend: ProxyId) {
    let upstreams = &shared.plane.upstreams;
    let Some(proxy) = shared.world.proxy(backend) else {
        return;
    };
    for server in 0..proxy.servers.len() as u16 {
        let id = ServerId { backend, server };
        upstreams.queue(backend).serve(&shared.world, upstreams, id);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use remora_core::world::{ProcessState, ProxyState, ServerState};

    /// One backend with servers of these `maxconn`s.
    pub(crate) fn backend(maxconn: &[u32]) -> (World, Upstreams) {
        let servers = maxconn
            .iter()
            .map(|maxconn| {
                let server = ServerState {
                    name: String::from("s"),
                    id: 1,
                    weight_initial: 1,
                    backup: false,
                    maxconn: AtomicU32::new(*maxconn),
                    maxqueue: 0,
                    stats: Default::default(),
                };
                server.stats.weight.store(1, Ordering::Relaxed);
                server
            })
            .collect();
        let proxy = ProxyState {
            name: String::from("b"),
            id: 2,
            is_frontend: false,
            is_backend: true,
            mode_http: true,
            table: None,
            rules: Default::default(),
            error_pages: Default::default(),
            front: Default::default(),
            back: Default::default(),
            servers,
            binds: Box::default(),
            bind_conns: Box::default(),
            maxconn: AtomicU32::new(0),
            fullconn: 0,
            allbackups: false,
        };
        let world = World {
            tables: Box::default(),
            proxies: Box::new([proxy]),
            proc_vars: Default::default(),
            process: ProcessState::default(),
        };
        let upstreams = Upstreams {
            first: Box::new([0]),
            servers: maxconn
                .iter()
                .map(|_| Upstream {
                    target: Target::None,
                    port_offset: None,
                    conns: AtomicU32::new(0),
                    idle: Box::default(),
                })
                .collect(),
            queues: Box::new([Queue::default()]),
            balancers: Box::new([Balancer::new(
                remora_core::balance::Algorithm::RoundRobin,
                false,
                maxconn.len(),
            )]),
        };
        (world, upstreams)
    }

    pub(crate) fn scur(world: &World) -> Vec<u32> {
        world.proxies[0]
            .servers
            .iter()
            .map(|server| server.stats.scur.load(Ordering::Relaxed))
            .collect()
    }
}
