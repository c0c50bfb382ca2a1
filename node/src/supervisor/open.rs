//! Opening the master CLI's sockets.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use remora_config::plan::{Address, CliLevel, StatsSocket};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::spawn_local;

use super::master::{self, Ask, Listener};
use crate::proxy::listen::{Aside, unix_socket_aside};

/// A listening socket of the master CLI.
#[derive(Debug)]
pub(super) struct Door {
    /// As written.
    pub(super) text: String,
    pub(super) level: CliLevel,
    pub(super) fd: Arc<OwnedFd>,
    /// Somebody still answers at its path. Only who serves takes that away: a start by mistake must not.
    pub(super) aside: Option<Aside>,
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
            aside: None,
        }
    }

    /// The path leads here from now on.
    pub(super) fn put_in_place(&mut self) -> Result<(), String> {
        let Some(aside) = self.aside.take() else {
            return Ok(());
        };
        aside
            .put_in_place()
            .map_err(|e| format!("the master CLI ('-S {}'): {e}", self.text))
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
    let opened = match &socket.address {
        Address::Unix(path) => unix(Path::new(path), &socket),
        Address::Ip(address) => tcp(*address).map(plain).map_err(|e| e.to_string()),
        Address::Fd(n) => crate::fds::adopt(*n).map(plain).map_err(|e| e.to_string()),
    };
    let (fd, aside) =
        opened.map_err(|e| format!("the master CLI ('-S {text}') cannot listen: {e}"))?;
    Ok(Door {
        text: text.split(',').next().unwrap_or(text).to_owned(),
        level: socket.level,
        fd: Arc::new(fd),
        aside,
    })
}

fn plain(fd: OwnedFd) -> (OwnedFd, Option<Aside>) {
    (fd, None)
}

fn unix(path: &Path, socket: &StatsSocket) -> Result<(OwnedFd, Option<Aside>), String> {
    let (fd, aside) = unix_socket_aside(
        SocketType::STREAM,
        path,
        socket.mode,
        socket.uid,
        socket.gid,
        BACKLOG,
    )?;
    if aside.is_taken() {
        return Ok((fd, Some(aside)));
    }
    aside.put_in_place()?;
    Ok((fd, None))
}

fn tcp(address: std::net::SocketAddr) -> std::io::Result<OwnedFd> {
    Ok(TcpListener::bind(address)?.into())
}

/// Serves them within the current event loop.
pub(super) fn serve(doors: &mut [Door], asks: &UnboundedSender<Ask>) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(master::SESSIONS_MAX));
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
