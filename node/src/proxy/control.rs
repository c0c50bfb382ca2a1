//! How other threads talk to a worker thread: a bounded-size message at a time, answered from the worker's own loop, so
//! that the request path shares nothing for their sake.

/// What a worker can be asked.
#[allow(missing_docs)]
pub enum Ask {
    /// Describe the live streams, in id order, at most `limit` after `after`.
    Sessions {
        after: u64,
        limit: usize,
        answer: tokio::sync::oneshot::Sender<Vec<SessionLine>>,
    },
    /// Tell whom there are connections with.
    Clients {
        answer: std::sync::mpsc::Sender<Clients>,
    },
    /// End the stream with that id (`shutdown session`); answers whether it existed.
    Shutdown {
        id: u64,
        answer: tokio::sync::oneshot::Sender<bool>,
    },
    /// Accept connections; answers when it does. A thread begins without accepting.
    Accept {
        done: tokio::sync::oneshot::Sender<()>,
    },
    /// Accept nothing more, but keep the listening sockets; answers when it is so. `pause`: also make the kernel refuse.
    Hold {
        pause: bool,
        done: tokio::sync::oneshot::Sender<()>,
    },
    /// Soft stop: close the listening sockets, `Connection: close`, finish what runs; the thread ends when the last
    /// connection is gone.
    Drain(Successor),
    /// End all streams now, each with its log line (`hard-stop-after`).
    Kill,
}

/// The connections of a thread.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// Some wait for their first request, or for the next one.
    pub idle: bool,
    /// Where the others come from.
    pub addresses: Vec<std::net::IpAddr>,
}

/// Who goes on when a thread drains.
#[derive(Clone, Debug)]
pub enum Successor {
    /// Nobody: `grace` applies.
    None,
    /// A process that has the listening sockets, except those of these numbers: what waits in their queues is served.
    Process {
        /// [`crate::handoff::ListenerInfo::id`]
        orphans: std::sync::Arc<[u64]>,
    },
}

/// A worker thread as others see it.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct WorkerHandle {
    pub ask: tokio::sync::mpsc::UnboundedSender<Ask>,
}

/// One line of `show sess`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SessionLine {
    pub id: u64,
    pub proto: &'static str,
    pub src: String,
    pub frontend: String,
    pub backend: Option<String>,
    pub server: Option<String>,
    pub age_ms: u64,
    pub calls: u64,
    pub thread: u16,
    pub uri: Option<String>,
}
