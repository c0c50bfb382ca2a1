//! Sockets that listen for peers: new ones, those of the process before, and descriptors from elsewhere.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use remora_config::plan::{Address, PeersBind, is_loopback};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use socket2::{Domain, Socket, Type};

use super::plain;
use crate::fds;
use crate::handoff::inherited::{self, Offer};
use crate::handoff::{Inherited, ListenerInfo, Purpose, Where};
use crate::proxy::listen::unix_listener;

/// The socket of a line, whether it is a UNIX one, and what is wrong with it though it can be used.
pub(super) fn open(
    bind: &PeersBind,
    pool: &mut Inherited,
    offer: &mut Offer,
) -> Result<(OwnedFd, bool, Option<String>), String> {
    let mut at = match &bind.address {
        Address::Unix(path) => Where::Unix {
            path: path.clone(),
            file: (0, 0),
            rights: (bind.mode, bind.uid, bind.gid),
        },
        Address::Ip(address) => Where::Inet {
            address: *address,
            v6only: (address.is_ipv6() && (bind.v6only || bind.v4v6)).then_some(bind.v6only),
        },
        Address::Fd(n) => Where::Fd(*n),
    };
    let adopted = pool.adopt(Purpose::Peers, &at);
    let id = adopted.as_ref().map_or_else(inherited::fresh_id, |a| a.id);
    let mut warning = None;
    let (fd, is_unix) = match adopted.and_then(|mut a| a.fds.pop()) {
        Some(fd) => {
            listening(fd).map_err(|e| format!("cannot take over the socket ({})", plain(&e)))?
        }
        None => {
            let has_predecessor = pool.accompanied || pool.replaces;
            if let (Address::Unix(path), false) = (&bind.address, has_predecessor) {
                warning = ousted(path);
            }
            open_new(bind)?
        }
    };
    if let Where::Unix { path, file, .. } = &mut at {
        *file = inherited::file_of(Path::new(path)).unwrap_or_default();
    }
    let copy = fd
        .try_clone()
        .map_err(|e| format!("cannot duplicate the socket ({})", plain(&e)))?;
    let info = ListenerInfo {
        id,
        purpose: Purpose::Peers,
        at,
    };
    offer.push((info, Arc::new(copy)));
    Ok((fd, is_unix, warning))
}

/// Whether somebody listens at this path, who will then be reached no more: a port would be refused.
fn ousted(path: &str) -> Option<String> {
    let kind = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, kind, None).ok()?;
    let address = SocketAddrUnix::new(path).ok()?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::AGAIN) => {} // whose queue is full listens, too
        Err(_) => return None,
    }
    let owner = sockopt::socket_peercred(&socket).ok();
    let owner = owner.map(|owner| format!(" (process {})", owner.pid));
    Some(format!(
        "another process{} was listening on '{path}', and is not found there by other nodes any more: if it is a node, give one of the two another name",
        owner.unwrap_or_default()
    ))
}

/// Whether only this host reaches a socket.
pub(super) fn stays_here(socket: &OwnedFd) -> bool {
    let address = rustix::net::getsockname(socket);
    match address.ok().and_then(|any| SocketAddr::try_from(any).ok()) {
        Some(address) => is_loopback(address.ip()),
        None => true, // a UNIX socket
    }
}

fn open_new(bind: &PeersBind) -> Result<(OwnedFd, bool), String> {
    match &bind.address {
        Address::Unix(path) => {
            let path = Path::new(path);
            let socket = unix_listener(path, bind.mode, bind.uid, bind.gid, BACKLOG)?;
            Ok((socket, true))
        }
        Address::Ip(address) => {
            let socket = listen_tcp(*address, bind);
            let socket = socket.map_err(|e| format!("cannot bind socket ({})", plain(&e)))?;
            Ok((socket, false))
        }
        Address::Fd(n) => fds::adopt(*n)
            .and_then(listening)
            .map_err(|e| format!("cannot use descriptor {n} ({})", plain(&e))),
    }
}

fn listen_tcp(address: SocketAddr, bind: &PeersBind) -> std::io::Result<OwnedFd> {
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && (bind.v6only || bind.v4v6) {
        socket.set_only_v6(bind.v6only)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket from elsewhere, made to listen, and whether it is a UNIX one.
fn listening(fd: OwnedFd) -> std::io::Result<(OwnedFd, bool)> {
    if sockopt::socket_type(&fd)? != SocketType::STREAM {
        return Err(std::io::Error::other("not a stream socket"));
    }
    if !sockopt::socket_acceptconn(&fd)? {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    rustix::io::ioctl_fionbio(&fd, true)?;
    let is_unix = sockopt::socket_domain(&fd)? == AddressFamily::UNIX;
    Ok((fd, is_unix))
}

/// Connections that wait to be accepted.
pub(super) const BACKLOG: i32 = 128;
