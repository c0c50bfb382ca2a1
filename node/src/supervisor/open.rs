//! Opening the master CLI's sockets.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use remora_config::plan::{Address, CliLevel};
use rustix::net::{AddressFamily, sockopt};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::spawn_local;

use super::master::{self, Ask, Listener};
use crate::proxy::listen::unix_listener;

/// A listening socket of the master CLI.
#[derive(Debug)]
pub(super) struct Door {
    /// As written.
    pub(super) text: String,
    pub(super) level: CliLevel,
    pub(super) fd: Arc<OwnedFd>,
}

impl Door {
    /// One that was open before this program was executed.
    pub(super) fn resumed(text: String, level: u8, fd: OwnedFd) -> Door {
        Door {
            text,
            level: match level {
                0 => CliLevel::User,
                1 => CliLevel::Operator,
                _ => CliLevel::Admin,
            },
            fd: Arc::new(fd),
        }
    }
}

/// Opens what `-S` asks for.
pub(super) fn doors(texts: &[String]) -> Result<Vec<Door>, String> {
    texts.iter().map(|text| door(text)).collect()
}

fn door(text: &str) -> Result<Door, String> {
    let mut system = crate::boot::sources::System::default();
    let socket = remora_config::master_socket(text, &mut system)
        .map_err(|e| format!("the master CLI ('-S {text}'): {e}"))?;
    let fd = match &socket.address {
        Address::Unix(path) => unix_listener(
            Path::new(path),
            socket.mode,
            socket.uid,
            socket.gid,
            BACKLOG,
        ),
        Address::Ip(address) => tcp(*address).map_err(|e| e.to_string()),
        Address::Fd(n) => crate::fds::adopt(*n).map_err(|e| e.to_string()),
    };
    let fd = fd.map_err(|e| format!("the master CLI ('-S {text}') cannot listen: {e}"))?;
    Ok(Door {
        text: text.split(',').next().unwrap_or(text).to_owned(),
        level: socket.level,
        fd: Arc::new(fd),
    })
}

fn tcp(address: std::net::SocketAddr) -> std::io::Result<OwnedFd> {
    Ok(TcpListener::bind(address)?.into())
}

/// Serves them within the current event loop.
pub(super) fn serve(doors: &mut [Door], asks: &UnboundedSender<Ask>) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(SESSIONS_MAX));
    for door in doors {
        let listener =
            listener(door).map_err(|e| format!("the master CLI ('-S {}'): {e}", door.text))?;
        spawn_local(master::serve(
            listener,
            door.level,
            door.text.clone(),
            asks.clone(),
            Arc::clone(&places),
        ));
    }
    Ok(())
}

fn listener(door: &Door) -> std::io::Result<Listener> {
    let fd = door.fd.try_clone()?;
    if !sockopt::socket_acceptconn(&fd)? {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(if sockopt::socket_domain(&fd)? == AddressFamily::UNIX {
        Listener::Unix(tokio::net::UnixListener::from_std(fd.into())?)
    } else {
        Listener::Tcp(tokio::net::TcpListener::from_std(fd.into())?)
    })
}

const BACKLOG: i32 = 64;
/// Sessions at a time; others wait.
const SESSIONS_MAX: usize = 16;
