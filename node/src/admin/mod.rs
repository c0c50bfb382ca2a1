//! The admin CLI (`stats socket`). Runs on a thread and runtime of its own: a dump never delays traffic.
//! (reference: admin-cli)

mod cmd;
mod line;
mod registry;
mod session;
mod similar;

pub(crate) use cmd::stat::MAINT;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use remora_config::plan::{Address, CliLevel, Plan, StatsSocket};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::LocalOptions;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_local;
use tracing::warn;

use crate::fds;
use crate::handoff::inherited::{self, Offer};
use crate::handoff::{Inherited, ListenerInfo, Purpose, Where};
use crate::proxy::listen::unix_listener;
use crate::shared::Shared;
use session::Session;

/// A CLI socket that is open, and what connections to it may do.
#[derive(Debug)]
pub struct Console {
    listener: Listening,
    /// [`ListenerInfo::id`]
    id: u64,
    level: CliLevel,
}

/// A listening socket of the process itself, non-blocking.
#[derive(Debug)]
pub(crate) enum Listening {
    Unix(OwnedFd),
    Tcp(OwnedFd),
}

/// Whether the CLI's listening sockets are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// Connections are accepted.
    Open,
    /// Not now.
    Held,
    /// Another process may have TCP addresses, where clients are refused.
    Paused,
    /// The sockets are closed: another process has them.
    Closed,
    /// The same, but for sockets with these ids, which nobody has taken over.
    Left(Arc<[u64]>),
}

/// How other threads talk to the CLI's.
#[derive(Clone, Debug)]
pub struct Control {
    /// Whether it accepts.
    pub door: watch::Sender<Door>,
    /// Connections that come from elsewhere, with their rights.
    pub visitors: mpsc::UnboundedSender<(OwnedFd, CliLevel)>,
}

/// Opens every `stats socket`, or takes it from `pool`. What is open is added to `offer`.
///
/// # Errors
/// One message per socket that could not be opened.
pub fn open(
    plan: &Plan,
    pool: &mut Inherited,
    offer: &mut Offer,
) -> Result<Vec<Console>, Vec<String>> {
    let all = Own {
        sockets: &plan.global.stats_sockets,
        purpose: Purpose::Console,
        name: "the stats socket",
    };
    open_all(plan, &all, pool, offer, |s, opened| Console {
        listener: opened.listening,
        id: opened.id,
        level: s.level,
    })
}

/// Listening sockets of the process itself.
pub(crate) struct Own<'p> {
    pub(crate) sockets: &'p [StatsSocket],
    pub(crate) purpose: Purpose,
    /// What messages call them.
    pub(crate) name: &'static str,
}

/// Opens all of them, or takes them from `pool`. What is open is added to `offer`.
///
/// # Errors
/// One message per socket that could not be opened.
pub(crate) fn open_all<T>(
    plan: &Plan,
    own: &Own<'_>,
    pool: &mut Inherited,
    offer: &mut Offer,
    made: impl Fn(&StatsSocket, Opened) -> T,
) -> Result<Vec<T>, Vec<String>> {
    let mut all = Vec::new();
    let mut errors = Vec::new();
    for s in own.sockets {
        match adopt_or_open(s, own.purpose, pool, offer) {
            Ok(opened) => all.push(made(s, opened)),
            Err(why) => {
                let file = plan.files.get(usize::from(s.place.file));
                errors.push(format!(
                    "Binding [{}:{}] for {}: {why} for [{}]",
                    file.map_or("?", String::as_str),
                    s.place.line,
                    own.name,
                    s.text
                ));
            }
        }
    }
    if errors.is_empty() {
        Ok(all)
    } else {
        Err(errors)
    }
}

/// A listening socket of the process itself.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) listening: Listening,
    /// [`ListenerInfo::id`]
    pub(crate) id: u64,
    /// Another process has served it until now.
    pub(crate) taken: bool,
}

/// Opens a socket of the process itself, or takes it from `pool`, and adds it to `offer`.
fn adopt_or_open(
    s: &StatsSocket,
    purpose: Purpose,
    pool: &mut Inherited,
    offer: &mut Offer,
) -> Result<Opened, String> {
    let mut at = match &s.address {
        Address::Unix(path) => Where::Unix {
            path: path.clone(),
            file: (0, 0),
            rights: (s.mode, s.uid, s.gid),
        },
        Address::Ip(address) => Where::Inet {
            address: *address,
            v6only: None,
        },
        Address::Fd(n) => Where::Fd(*n),
    };
    let adopted = pool.adopt(purpose, &at);
    let id = adopted.as_ref().map_or_else(inherited::fresh_id, |a| a.id);
    let taken = adopted.is_some();
    let listening = match adopted.and_then(|mut a| a.fds.pop()) {
        Some(fd) => listening(fd).map_err(|e| format!("cannot take over the socket ({e})"))?,
        None => open_one(s)?,
    };
    if let Where::Unix { path, file, .. } = &mut at {
        *file = inherited::file_of(Path::new(path)).unwrap_or_default();
    }
    let (Listening::Unix(fd) | Listening::Tcp(fd)) = &listening;
    let copy = fd
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| format!("cannot duplicate the socket ({e})"))?;
    let info = ListenerInfo { id, purpose, at };
    offer.push((info, Arc::new(copy)));
    Ok(Opened {
        listening,
        id,
        taken,
    })
}

fn open_one(s: &StatsSocket) -> Result<Listening, String> {
    match &s.address {
        Address::Unix(path) => {
            unix_listener(Path::new(path), s.mode, s.uid, s.gid, BACKLOG).map(Listening::Unix)
        }
        Address::Ip(a) => open_tcp(*a)
            .map(Listening::Tcp)
            .map_err(|e| format!("cannot listen ({e})")),
        Address::Fd(n) => adopt(*n).map_err(|e| format!("cannot use descriptor {n} ({e})")),
    }
}

fn open_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.cloexec().nonblocking(),
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// An inherited listening socket, of either family.
fn adopt(n: i32) -> io::Result<Listening> {
    let fd = fds::adopt(n)?;
    if sockopt::socket_type(&fd)? != SocketType::STREAM {
        return Err(io::Error::other("not a stream socket"));
    }
    if !sockopt::socket_acceptconn(&fd)? {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    rustix::io::ioctl_fionbio(&fd, true)?;
    listening(fd)
}

fn listening(fd: OwnedFd) -> io::Result<Listening> {
    Ok(if sockopt::socket_domain(&fd)? == AddressFamily::UNIX {
        Listening::Unix(fd)
    } else {
        Listening::Tcp(fd)
    })
}

/// Starts the thread that serves them, and begins with the door held. It ends with the process.
///
/// # Errors
/// The thread could not be started.
pub fn start(shared: &Arc<Shared>, consoles: Vec<Console>) -> io::Result<Control> {
    let (door, state) = watch::channel(Door::Held);
    let (visitors, visits) = mpsc::unbounded_channel();
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("remora-cli".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(serve(shared, consoles, state, visits)),
                Err(e) => warn!("the CLI is not available: {e}"),
            }
        })?;
    Ok(Control { door, visitors })
}

async fn serve(
    shared: Arc<Shared>,
    consoles: Vec<Console>,
    state: watch::Receiver<Door>,
    mut visits: mpsc::UnboundedReceiver<(OwnedFd, CliLevel)>,
) {
    let most = shared.plan.global.stats_maxconn.max(1) as usize;
    // One for all sockets: `stats maxconn` is about the process.
    let places = Arc::new(Semaphore::new(most));
    let sessions = Rc::new(session::Registry::default());
    for console in consoles {
        spawn_local(accept(
            Arc::clone(&shared),
            console,
            Arc::clone(&places),
            Rc::clone(&sessions),
            state.clone(),
        ));
    }
    // The supervisor counts its own.
    while let Some((fd, level)) = visits.recv().await {
        match tokio::net::UnixStream::from_std(fd.into()) {
            Ok(s) => {
                let (shared, sessions) = (Arc::clone(&shared), Rc::clone(&sessions));
                spawn_local(talk(shared, s, "unix_stream", level, sessions));
            }
            Err(e) => warn!("a connection of the master CLI cannot be served: {e}"),
        }
    }
    // The process ends.
    std::future::pending::<()>().await;
}

/// Accepts, and serves when there is room: one connection per socket waits here, others in the kernel's queue.
async fn accept(
    shared: Arc<Shared>,
    console: Console,
    places: Arc<Semaphore>,
    sessions: Rc<session::Registry>,
    mut state: watch::Receiver<Door>,
) {
    let (id, level) = (console.id, console.level);
    let mut listener = match Listener::new(console.listener) {
        Ok(listener) => listener,
        Err(e) => {
            warn!("a stats socket cannot be served: {e}");
            return;
        }
    };
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            Door::Open => {}
            Door::Left(kept) if kept.contains(&id) => {}
            Door::Closed | Door::Left(_) => return,
            Door::Held => {
                if state.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Door::Paused if listener.pause() => {
                if state.wait_for(|door| *door != Door::Paused).await.is_err() {
                    return;
                }
                listener.go_on("a stats socket").await;
                continue;
            }
            // It is in nobody's way.
            Door::Paused => {}
        }
        let stream = tokio::select! {
            biased;
            _ = state.changed() => continue,
            stream = listener.accept() => stream,
        };
        let Ok(stream) = stream else {
            // Descriptors are scarce: let others end before the next attempt.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (shared, sessions) = (Arc::clone(&shared), Rc::clone(&sessions));
        spawn_local(async move {
            match stream {
                Stream::Unix(s) => talk(shared, s, "unix_stream", level, sessions).await,
                Stream::Tcp(s) => talk(shared, s, "tcp", level, sessions).await,
            }
            drop(place);
        });
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    io: S,
    proto: &'static str,
    level: CliLevel,
    sessions: Rc<session::Registry>,
) {
    let listed = sessions.enter(proto);
    // An error here is a client that went away.
    let _ = Session::new(shared, io, level, Rc::clone(&sessions))
        .run()
        .await;
    drop(listed);
}

/// [`Listening`] on a runtime.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// An accepted connection.
pub(crate) enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

impl Listener {
    /// Must be called on the runtime that is to serve it.
    pub(crate) fn new(from: Listening) -> io::Result<Listener> {
        Ok(match from {
            Listening::Unix(fd) => Listener::Unix(UnixListener::from_std(fd.into())?),
            Listening::Tcp(fd) => Listener::Tcp(TcpListener::from_std(fd.into())?),
        })
    }

    /// Gives the address free, if it is one that only one process can have. Whether it did.
    pub(crate) fn pause(&self) -> bool {
        match self {
            Listener::Tcp(l) => rustix::net::shutdown(l, rustix::net::Shutdown::Read).is_ok(),
            Listener::Unix(_) => false,
        }
    }

    /// Listens again, as soon as nobody else does. What it is called in messages.
    pub(crate) async fn go_on(&mut self, name: &str) {
        let mut said = false;
        while let Err(e) = self.listen_again() {
            if !std::mem::replace(&mut said, true) {
                warn!("{name} cannot be listened on again: {e}");
            }
            tokio::time::sleep(GO_ON_PAUSE).await;
        }
    }

    /// Behind a new descriptor: for the event loop the one that was shut down is at its end for good.
    fn listen_again(&mut self) -> io::Result<()> {
        let Listener::Tcp(l) = self else {
            return Ok(());
        };
        let fd = l.as_fd().try_clone_to_owned()?;
        rustix::net::listen(&fd, BACKLOG)?;
        *self = Listener::Tcp(TcpListener::from_std(fd.into())?);
        Ok(())
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Listener::Unix(l) => Stream::Unix(l.accept().await?.0),
            Listener::Tcp(l) => Stream::Tcp(l.accept().await?.0),
        })
    }
}

const BACKLOG: i32 = 128;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between attempts to listen again after a pause.
const GO_ON_PAUSE: Duration = Duration::from_millis(100);
