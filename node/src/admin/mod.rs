//! The admin CLI (`stats socket`). Runs on a thread and runtime of its own: a dump never delays traffic.
//! (reference: admin-cli)

mod cmd;
mod line;
mod registry;
mod session;
mod similar;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use remora_config::plan::{Address, CliLevel, Plan, StatsSocket};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::LocalOptions;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tracing::warn;

use crate::fds;
use crate::proxy::listen::unix_listener;
use crate::shared::Shared;
use session::Session;

/// A CLI socket that is open, and what connections to it may do.
#[derive(Debug)]
pub struct Console {
    listener: Listening,
    level: CliLevel,
}

#[derive(Debug)]
enum Listening {
    Unix(OwnedFd),
    Tcp(OwnedFd),
}

/// Opens every `stats socket`.
///
/// # Errors
/// One message per socket that could not be opened.
pub fn open(plan: &Plan) -> Result<Vec<Console>, Vec<String>> {
    let mut consoles = Vec::new();
    let mut errors = Vec::new();
    for s in &plan.global.stats_sockets {
        match open_one(s) {
            Ok(listener) => consoles.push(Console {
                listener,
                level: s.level,
            }),
            Err(why) => {
                let file = plan.files.get(usize::from(s.place.file));
                errors.push(format!(
                    "Binding [{}:{}] for the stats socket: {why} for [{}]",
                    file.map_or("?", String::as_str),
                    s.place.line,
                    s.text
                ));
            }
        }
    }
    if errors.is_empty() {
        Ok(consoles)
    } else {
        Err(errors)
    }
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
    Ok(if sockopt::socket_domain(&fd)? == AddressFamily::UNIX {
        Listening::Unix(fd)
    } else {
        Listening::Tcp(fd)
    })
}

/// Starts the thread that serves them. It ends with the process.
///
/// # Errors
/// The thread could not be started.
pub fn start(shared: &Arc<Shared>, consoles: Vec<Console>) -> io::Result<()> {
    if consoles.is_empty() {
        return Ok(());
    }
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("remora-cli".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(serve(shared, consoles)),
                Err(e) => warn!("the CLI is not available: {e}"),
            }
        })?;
    Ok(())
}

async fn serve(shared: Arc<Shared>, consoles: Vec<Console>) {
    let most = shared.plan.global.stats_maxconn.max(1) as usize;
    // One for all sockets: `stats maxconn` is about the process.
    let places = Arc::new(Semaphore::new(most));
    let sessions = Rc::new(session::Registry::default());
    let mut loops = Vec::new();
    for console in consoles {
        loops.push(spawn_local(accept(
            Arc::clone(&shared),
            console,
            Arc::clone(&places),
            Rc::clone(&sessions),
        )));
    }
    for task in loops {
        let _ = task.await;
    }
}

/// Accepts, and serves when there is room: one connection per socket waits here, others in the kernel's queue.
async fn accept(
    shared: Arc<Shared>,
    console: Console,
    places: Arc<Semaphore>,
    sessions: Rc<session::Registry>,
) {
    let level = console.level;
    let listener = match Listener::new(console.listener) {
        Ok(listener) => listener,
        Err(e) => {
            warn!("a stats socket cannot be served: {e}");
            return;
        }
    };
    loop {
        let Ok(stream) = listener.accept().await else {
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

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

impl Listener {
    fn new(from: Listening) -> io::Result<Listener> {
        Ok(match from {
            Listening::Unix(fd) => Listener::Unix(UnixListener::from_std(fd.into())?),
            Listening::Tcp(fd) => Listener::Tcp(TcpListener::from_std(fd.into())?),
        })
    }

    async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Listener::Unix(l) => Stream::Unix(l.accept().await?.0),
            Listener::Tcp(l) => Stream::Tcp(l.accept().await?.0),
        })
    }
}

const BACKLOG: i32 = 128;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
