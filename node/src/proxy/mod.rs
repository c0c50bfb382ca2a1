//! The data plane: accept, HTTP/1 sessions, upstream connections, TCP relay. One runtime per worker thread.

mod accept;
mod buffers;
mod client;
pub mod clock;
pub mod control;
mod counters;
mod deadline;
mod exchange;
mod forward;
mod forwarded;
mod gate;
mod http;
pub mod listen;
mod local;
mod mentions;
mod proxy_protocol;
mod relay;
mod session;
mod socket;
mod streams;
mod talk;
mod tcp;
pub mod upstream;
mod work;
pub mod worker;

use std::sync::atomic::AtomicBool;

use remora_config::plan::Plan;
use remora_core::world::ProxyId;

use gate::Gate;
use upstream::Upstreams;

/// What the worker threads share with each other beyond the world that rules see.
pub struct DataPlane {
    /// Opens when a connection of the process ends.
    pub(crate) process_gate: Gate,
    /// By proxy.
    pub(crate) frontends: Box<[FrontPlane]>,
    pub(crate) upstreams: Upstreams,
    /// Descriptors have run out; the warning has been given.
    pub(crate) starved: AtomicBool,
    /// Another worker is about to accept on the same sockets, and may set their options.
    pub(crate) yields: AtomicBool,
}

/// Shared state of one frontend.
pub(crate) struct FrontPlane {
    pub(crate) gate: Gate,
}

impl DataPlane {
    /// For `plan.global.nbthread` threads.
    pub fn new(plan: &Plan) -> DataPlane {
        DataPlane {
            process_gate: Gate::default(),
            frontends: plan
                .proxies
                .iter()
                .map(|_| FrontPlane {
                    gate: Gate::default(),
                })
                .collect(),
            upstreams: Upstreams::new(plan),
            starved: AtomicBool::new(false),
            yields: AtomicBool::new(false),
        }
    }

    pub(crate) fn front(&self, id: ProxyId) -> &FrontPlane {
        &self.frontends[usize::from(id.0)]
    }
}
