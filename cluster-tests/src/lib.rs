//! Everything the process tests and the benchmark driver share: starting a real proxy or a cluster of them, servers and
//! clients that misbehave on request, links that fail, the runtime CLI, and polling with a deadline.
//!
//! The harness speaks to the proxy only from outside (sockets, signals, files), so the same test can be pointed at
//! HAProxy: set `CLUSTER_TESTS_PROXY=haproxy`. Everything stays on loopback, and nothing outlives its owner: processes and
//! servers end when their handles are dropped.

mod capture;
pub mod cli;
pub mod client;
pub mod clocks;
pub mod cluster;
pub mod dump;
pub mod hits;
pub mod locate;
pub mod middleman;
pub mod netns;
pub mod options;
pub mod ports;
pub mod process;
pub mod relay;
pub mod scrape;
pub mod server;
pub mod soak;
pub mod tools;
pub mod wait;

pub use client::{Client, Gone, Response, get, get_from};
pub use process::{Launch, Output, Proxy};
pub use server::{Request, Server};
pub use wait::{until, until_within};
