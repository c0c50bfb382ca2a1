//! Listening sockets: at least one per worker thread and `bind` address, all opened, or taken over from the process
//! before, ahead of the first thread.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use remora_config::plan::{Address, Bind, Plan, Proxy};
use remora_core::rule::action::Action;
use remora_core::world::ProxyId;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::handoff::inherited::{self, Offer};
use crate::handoff::{Inherited, ListenerInfo, Purpose, Where};

/// A listening socket of one thread.
#[derive(Debug)]
pub struct Listener {
    /// Whose it is.
    pub frontend: ProxyId,
    /// Position of the `bind` among the frontend's.
    pub bind: u16,
    /// Where it listens, unless it is a UNIX socket.
    pub address: Option<SocketAddr>,
    /// Accepted sockets are born with `SO_LINGER 0`, so that closing a refused one resets it without another system call;
    /// those that pass have to undo it.
    pub born_to_reset: bool,
    /// They are not, but the process before wanted them to be: some that it left in the queue are.
    pub mixed: AtomicBool,
    /// Connections that wait in the kernel.
    pub backlog: i32,
    /// [`ListenerInfo::id`]
    pub id: u64,
    /// The socket, non-blocking.
    pub fd: Arc<OwnedFd>,
}

impl Listener {
    /// Sets what depends on this process's configuration. Sockets are shared with the process before, so this waits
    /// until that one accepts nothing any more, or knows that it cannot rely on its own settings.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn settle(&self) -> std::io::Result<()> {
        // Before `listen`: a connection takes it over when its handshake ends, not when it is accepted.
        let linger = self.born_to_reset.then_some(Duration::ZERO);
        if linger.is_none() && sockopt::socket_linger(&self.fd)?.is_some() {
            self.mixed.store(true, Relaxed);
        }
        sockopt::set_socket_linger(&self.fd, linger)?;
        Ok(net::listen(&self.fd, self.backlog)?)
    }
}

/// All listening sockets of the process, by thread.
#[derive(Debug)]
pub struct Listeners {
    threads: Vec<Vec<Listener>>,
    addresses: Vec<(ProxyId, u16, String)>,
    offer: Offer,
}

impl Listeners {
    /// The share of one thread; a second call gives nothing.
    pub fn take(&mut self, thread: usize) -> Vec<Listener> {
        self.threads
            .get_mut(thread)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Where the process listens: frontend, position of the `bind`, address (the true port when the configuration said
    /// 0; a path for UNIX sockets).
    pub fn addresses(&self) -> &[(ProxyId, u16, String)] {
        &self.addresses
    }

    /// All sockets, for whoever takes over one day; a second call gives nothing.
    pub fn offer(&mut self) -> Offer {
        std::mem::take(&mut self.offer)
    }
}

/// Opens every `bind` of every enabled frontend, at least one socket per thread; those in `pool` are taken from there.
/// `takeover`: another process may want to share the sockets one day, and with another number of threads.
///
/// # Errors
/// One message per address that could not be opened, ready to be shown as an alert.
pub fn open(plan: &Plan, pool: &mut Inherited, takeover: bool) -> Result<Listeners, Vec<String>> {
    let threads = usize::from(plan.global.nbthread.max(1));
    let mut listeners = Listeners {
        threads: (0..threads).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
        offer: Vec::new(),
    };
    let mut errors = Vec::new();
    for (index, proxy) in plan.proxies.iter().enumerate() {
        if !proxy.is_frontend || proxy.disabled {
            continue;
        }
        for (bind_index, bind) in proxy.binds.iter().enumerate() {
            let frontend = ProxyId(index as u16);
            let backlog = backlog(plan, proxy, bind);
            let ways = Ways {
                threads,
                backlog,
                share: threads > 1 || takeover,
            };
            match open_bind(bind, &ways, pool) {
                Ok(opened) => {
                    let address = opened.sockets.first().and_then(local_address);
                    let text = match (&bind.address, address) {
                        (_, Some(address)) => address.to_string(),
                        (Address::Unix(path), None) => path.clone(),
                        (_, None) => bind.text.clone(),
                    };
                    listeners
                        .addresses
                        .push((frontend, bind_index as u16, text));
                    let sockets: Vec<_> = opened.sockets.into_iter().map(Arc::new).collect();
                    for fd in &sockets {
                        let info = ListenerInfo {
                            id: opened.id,
                            purpose: Purpose::Bind,
                            at: opened.at.clone(),
                        };
                        listeners.offer.push((info, Arc::clone(fd)));
                    }
                    // More sockets than threads: the process before had more. Each has a queue that must be served.
                    // Fewer: some threads share one.
                    for i in 0..sockets.len().max(threads) {
                        let (Some(share), Some(fd)) = (
                            listeners.threads.get_mut(i % threads),
                            sockets.get(i % sockets.len()),
                        ) else {
                            continue;
                        };
                        share.push(Listener {
                            frontend,
                            bind: bind_index as u16,
                            address,
                            born_to_reset: refuses(proxy) && matches!(bind.address, Address::Ip(_)),
                            mixed: AtomicBool::new(false),
                            backlog,
                            id: opened.id,
                            fd: Arc::clone(fd),
                        });
                    }
                }
                Err(why) => errors.push(format!(
                    "Binding [{}:{}] for {} {}: {why} for [{}]",
                    plan.files
                        .get(usize::from(bind.place.file))
                        .map_or("?", String::as_str),
                    bind.place.line,
                    if proxy.is_backend {
                        "proxy"
                    } else {
                        "frontend"
                    },
                    proxy.name,
                    shown(bind),
                )),
            }
        }
    }
    if errors.is_empty() {
        Ok(listeners)
    } else {
        Err(errors)
    }
}

/// Whether `tcp-request connection` may reject.
fn refuses(proxy: &Proxy) -> bool {
    let rules = &proxy.rules.tcp_connection.rules;
    rules
        .iter()
        .any(|rule| matches!(rule.action, Action::Reject))
}

fn shown(bind: &Bind) -> String {
    match &bind.address {
        Address::Ip(address) => address.to_string(),
        Address::Unix(path) => path.clone(),
        Address::Fd(fd) => format!("fd@{fd}"),
    }
}

fn local_address(fd: &OwnedFd) -> Option<SocketAddr> {
    net::getsockname(fd)
        .ok()
        .and_then(|any| SocketAddr::try_from(any).ok())
}

fn backlog(plan: &Plan, proxy: &Proxy, bind: &Bind) -> i32 {
    let n = bind
        .backlog
        .or(proxy.backlog)
        .unwrap_or(proxy.maxconn.min(plan.global.maxconn));
    i32::try_from(n).unwrap_or(i32::MAX).max(16)
}

/// How sockets are opened.
struct Ways {
    threads: usize,
    backlog: i32,
    /// With `SO_REUSEPORT`.
    share: bool,
}

/// The sockets of one `bind` address.
struct Opened {
    id: u64,
    at: Where,
    sockets: Vec<OwnedFd>,
}

fn open_bind(bind: &Bind, ways: &Ways, pool: &mut Inherited) -> Result<Opened, String> {
    let mut at = place_of(&bind.address, bind);
    let adopted = pool.adopt(Purpose::Bind, &at);
    let id = adopted.as_ref().map_or_else(inherited::fresh_id, |a| a.id);
    let adopted = adopted.map(|a| a.fds).unwrap_or_default();
    let sockets = match &bind.address {
        Address::Ip(address) => open_inet(*address, bind, ways, adopted, pool.accompanied)?,
        Address::Unix(path) => {
            let sockets = if adopted.is_empty() {
                vec![open_unix(Path::new(path), bind, ways.backlog)?]
            } else {
                adopted
            };
            if let Where::Unix { file, .. } = &mut at {
                *file = inherited::file_of(Path::new(path)).unwrap_or_default();
            }
            sockets
        }
        Address::Fd(_) if !adopted.is_empty() => adopted,
        Address::Fd(number) => {
            let fd = crate::fds::adopt(*number)
                .map_err(|err| format!("cannot adopt inherited descriptor {number} ({err})"))?;
            match sockopt::socket_type(&fd) {
                Ok(SocketType::STREAM) => {}
                Ok(_) => return Err("the inherited descriptor is no stream socket".into()),
                Err(err) => return Err(format!("cannot use the inherited descriptor ({err})")),
            }
            if !sockopt::socket_acceptconn(&fd).unwrap_or(false) {
                net::listen(&fd, ways.backlog).map_err(|err| format!("cannot listen ({err})"))?;
            }
            // Several threads behind one address: accepted sockets inherit the option, and it does no harm on UNIX ones.
            let _ = sockopt::set_tcp_nodelay(&fd, true);
            rustix::io::ioctl_fionbio(&fd, true)
                .map_err(|err| format!("cannot set the descriptor non-blocking ({err})"))?;
            vec![fd]
        }
    };
    Ok(Opened { id, at, sockets })
}

/// How an address is described to another process.
fn place_of(address: &Address, bind: &Bind) -> Where {
    match address {
        Address::Ip(address) => Where::Inet {
            address: *address,
            v6only: (address.is_ipv6() && (bind.v6only || bind.v4v6)).then_some(bind.v6only),
        },
        Address::Unix(path) => Where::Unix {
            path: path.clone(),
            file: (0, 0),
            rights: (bind.mode, bind.uid, bind.gid),
        },
        Address::Fd(n) => Where::Fd(*n),
    }
}

fn open_inet(
    mut address: SocketAddr,
    bind: &Bind,
    ways: &Ways,
    adopted: Vec<OwnedFd>,
    accompanied: bool,
) -> Result<Vec<OwnedFd>, String> {
    let mut sockets = adopted;
    match sockets.first() {
        Some(first) => {
            // One more socket can share the port only if the first one does.
            if !sockopt::socket_reuseport(first).unwrap_or(false) {
                return Ok(sockets);
            }
            address = local_address(first).unwrap_or(address);
        }
        None if ways.share => {
            // Sockets that share the port would also let another program, or a second `bind` line, share it unnoticed. A
            // socket that does not share finds out. Beside the process before it may find that one, which has the port
            // under another address (`:80` instead of `127.0.0.1:80`); then only sharing tells.
            match bound_inet(address, bind, false) {
                Err(why) if !accompanied => return Err(why),
                _ => {}
            }
        }
        None => {}
    }
    // Beside others that listen, one more gets its share of connections as soon as it does: they would wait until this
    // process accepts, which may take as long as it takes to learn the tables. So it listens when it accepts.
    let listens = sockets.is_empty();
    while sockets.len() < ways.threads {
        let fd = bound_inet(address, bind, ways.share)?;
        if listens {
            net::listen(&fd, ways.backlog)
                .map_err(|err| format!("cannot listen to socket ({})", message(err)))?;
        }
        if address.port() == 0 {
            // All threads share the port that the kernel chose for the first.
            address.set_port(local_address(&fd).map_or(0, |chosen| chosen.port()));
        }
        sockets.push(fd);
    }
    Ok(sockets)
}

fn stream_socket(family: AddressFamily) -> Result<OwnedFd, String> {
    socket(family, SocketType::STREAM)
}

fn socket(family: AddressFamily, kind: SocketType) -> Result<OwnedFd, String> {
    net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|err| format!("cannot create listening socket ({err})"))
}

fn bound_inet(address: SocketAddr, bind: &Bind, share: bool) -> Result<OwnedFd, String> {
    let fd = stream_socket(match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    })?;
    let option = |result: rustix::io::Result<()>| {
        result.map_err(|err| format!("cannot set a socket option ({err})"))
    };
    option(sockopt::set_socket_reuseaddr(&fd, true))?;
    if share {
        option(sockopt::set_socket_reuseport(&fd, true))?;
    }
    if address.is_ipv6() && (bind.v6only || bind.v4v6) {
        option(sockopt::set_ipv6_v6only(&fd, bind.v6only))?;
    }
    // Accepted sockets inherit it: one system call less for each of them.
    option(sockopt::set_tcp_nodelay(&fd, true))?;
    net::bind(&fd, &address).map_err(|err| format!("cannot bind socket ({})", message(err)))?;
    Ok(fd)
}

/// The text that the C library has for an error, without the number.
fn message(err: rustix::io::Errno) -> String {
    let text = std::io::Error::from(err).to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// A UNIX socket under a temporary name, renamed over the final one: whoever connects finds either the old or the new
/// one, and stale files are replaced.
pub fn open_unix(path: &Path, bind: &Bind, backlog: i32) -> Result<OwnedFd, String> {
    unix_listener(path, bind.mode, bind.uid, bind.gid, backlog)
}

/// See [`open_unix`]; also used for sockets that are not a `bind`.
pub fn unix_listener(
    path: &Path,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    backlog: i32,
) -> Result<OwnedFd, String> {
    unix_socket(SocketType::STREAM, path, mode, uid, gid, backlog)
}

/// See [`open_unix`]; of any type.
pub fn unix_socket(
    kind: SocketType,
    path: &Path,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    backlog: i32,
) -> Result<OwnedFd, String> {
    let (fd, name) = unix_socket_aside(kind, path, mode, uid, gid, backlog)?;
    name.put_in_place()?;
    Ok(fd)
}

/// The name of a socket that listens already, but not yet where its clients look for it. Vanishes with this value.
#[derive(Debug)]
pub struct Aside {
    temporary: PathBuf,
    path: PathBuf,
}

impl Aside {
    /// Replaces what is at the path.
    ///
    /// # Errors
    /// The directory does not let it.
    pub fn put_in_place(self) -> Result<(), String> {
        std::fs::rename(&self.temporary, &self.path)
            .map_err(|err| format!("cannot put the UNIX socket in place ({err})"))
    }

    /// Whether somebody accepts connections at the path now.
    pub fn is_taken(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.path).is_ok()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone when it has been put in place.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// A listening UNIX socket that the path does not lead to yet.
///
/// # Errors
/// As [`open_unix`].
pub fn unix_socket_aside(
    kind: SocketType,
    path: &Path,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    backlog: i32,
) -> Result<(OwnedFd, Aside), String> {
    if let Ok(there) = std::fs::symlink_metadata(path)
        && !there.file_type().is_socket()
    {
        return Err("this path exists and is not a socket".to_owned());
    }
    let fd = socket(AddressFamily::UNIX, kind)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let name = Aside {
        temporary: temporary.into(),
        path: path.to_owned(),
    };
    let temporary = name.temporary.as_path();
    let _ = std::fs::remove_file(temporary);
    let address = net::SocketAddrUnix::new(temporary)
        .map_err(|err| format!("cannot use this path ({})", message(err)))?;
    net::bind(&fd, &address)
        .map_err(|err| format!("cannot bind UNIX socket ({})", message(err)))?;
    if let Some(mode) = mode {
        rustix::fs::chmod(temporary, rustix::fs::Mode::from_raw_mode(mode))
            .map_err(|err| format!("cannot change its mode ({})", message(err)))?;
    }
    if uid.is_some() || gid.is_some() {
        std::os::unix::fs::chown(temporary, uid, gid)
            .map_err(|err| format!("cannot change its owner ({err})"))?;
    }
    net::listen(&fd, backlog).map_err(|err| format!("cannot listen ({})", message(err)))?;
    Ok((fd, name))
}
