//! Remora's I/O shell: sockets, threads, signals, logs and the admin CLI around `remora-core`.

pub mod admin;
pub mod boot;
pub mod cli;
pub mod endpoint;
pub mod fds;
pub mod handoff;
pub mod health;
pub mod messages;
pub mod metrics;
pub mod observe;
pub mod peers;
pub mod probe;
pub mod proxy;
pub mod shared;
pub mod signals;
pub mod supervisor;

/// The program's own version; configurations compare with the dialect's version instead.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `-v` and `-vv` print.
pub fn version_text(details: bool) -> String {
    let mut text = format!("Remora version {VERSION}\n");
    if details {
        text.push_str(&format!(
            "Target: {}-{}, {}\n\
             Configuration dialect: HAProxy's\n\
             Threads: yes. Polling: epoll. Splice: yes. TLS: between peers. HTTP: 1.0, 1.1. Peers: yes.\n\
             Unsafe code: none.\n",
            std::env::consts::ARCH,
            std::env::consts::OS,
            if cfg!(debug_assertions) {
                "debug build"
            } else {
                "release build"
            },
        ));
    }
    text
}
