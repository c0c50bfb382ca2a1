//! What systemd wants to know of a service with `Type=notify` (`sd_notify(3)`): datagrams to `$NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// Where to; nowhere without `-Ws` or without the variable.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<SocketAddr>,
}

impl Notify {
    /// The socket of the environment.
    pub fn from_env() -> Notify {
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let name = name.into_encoded_bytes();
            let address = match name.split_first() {
                Some((b'@', name)) => SocketAddr::from_abstract_name(name),
                _ => {
                    use std::os::unix::ffi::OsStrExt as _;
                    SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(&name))
                }
            };
            address
                .inspect_err(|e| warn!("NOTIFY_SOCKET is not usable: {e}"))
                .ok()
        });
        Notify { to }
    }

    /// It serves.
    pub fn ready(&self, status: &str) {
        self.say(&format!(
            "READY=1\nMAINPID={}\nSTATUS={status}",
            std::process::id()
        ));
    }

    /// A reload begins.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!(
            "RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=Reloading."
        ));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=Stopping.");
    }

    fn say(&self, text: &str) {
        let Some(to) = &self.to else { return };
        let sent = UnixDatagram::unbound().and_then(|s| {
            s.set_nonblocking(true)?;
            s.send_to_addr(text.as_bytes(), to)
        });
        if let Err(e) = sent {
            warn!("cannot notify systemd: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let there = UnixDatagram::bind(&path).unwrap();
        let notify = Notify {
            to: Some(SocketAddr::from_pathname(&path).unwrap()),
        };
        let mut buffer = [0; 200];
        let mut next = || {
            let n = there.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        };
        notify.ready("Ready.");
        assert_eq!(
            next(),
            format!("READY=1\nMAINPID={}\nSTATUS=Ready.", std::process::id())
        );
        notify.reloading();
        let text = next();
        let us = text.lines().find_map(|l| l.strip_prefix("MONOTONIC_USEC="));
        assert!(text.starts_with("RELOADING=1\n") && us.unwrap().parse::<u64>().unwrap() > 0);
        Notify::default().stopping();
    }
}
