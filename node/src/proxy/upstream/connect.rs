//! Opening a connection to a server.

use std::io;
use std::net::SocketAddr;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpStream;

use super::{Target, Upstream};

/// Starts connecting; the socket becomes writable when it is done. `client_port` serves servers whose port is relative
/// to the client's.
///
/// # Errors
/// No descriptor left, no route, nothing to connect to; a UNIX socket that does not accept.
pub(crate) fn start(upstream: &Upstream, client_port: Option<u16>) -> io::Result<TcpStream> {
    let fd = match &upstream.target {
        Target::Ip(address) => {
            let mut address = *address;
            if let Some(offset) = upstream.port_offset {
                let port = i32::from(client_port.unwrap_or(0)) + offset;
                address.set_port(u16::try_from(port).unwrap_or(0));
            }
            let fd = socket(match address {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            })?;
            sockopt::set_tcp_nodelay(&fd, true)?;
            match net::connect(&fd, &address) {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => fd,
                Err(err) => return Err(err.into()),
            }
        }
        Target::Unix(path) => {
            let fd = socket(AddressFamily::UNIX)?;
            net::connect(&fd, &net::SocketAddrUnix::new(path.as_str())?)?;
            fd
        }
        Target::None => return Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    TcpStream::from_std(fd.into())
}

fn socket(family: AddressFamily) -> io::Result<rustix::fd::OwnedFd> {
    Ok(net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}
