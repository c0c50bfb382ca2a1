//! A process between two that hand over to each other: it passes every frame on, with descriptors, in both directions and on
//! both of their channels (orders, and tables), and lets a test look at each, spoil it, or hold it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::Pid;

/// A frame on its way.
#[derive(Debug)]
pub struct Passing {
    /// 1, 2, …: over both channels and directions.
    pub number: usize,
    /// From the process that takes over, or to it.
    pub from_new: bool,
    /// `Hold`, or `Pass/Rows`.
    pub name: String,
    /// The process that takes over.
    pub new: Pid,
    /// The bytes, which may be changed.
    pub bytes: Vec<u8>,
    /// Frames that go first.
    pub before: Vec<Vec<u8>>,
}

impl Passing {
    /// Makes it what a build of the next minor version might say: with a field more, and after frames that are not known here.
    pub fn renew(&mut self) {
        self.bytes[2] += 1;
        let head = self.bytes[..3].to_vec();
        self.before.push([&head[..], &[200, 1, 2]].concat());
        self.before.push([&head[..], &[PASS, 200, 1]].concat());
        self.bytes.extend([1, 2, 3]);
    }

    /// Makes it what a build of the minor version before would say: without the field that is new in some.
    pub fn age(&mut self) {
        self.bytes[2] -= 1;
        if ["Begin", "Ready"].contains(&self.name.as_str()) {
            self.bytes.pop();
        }
    }
}

/// A frame that has been passed on.
#[derive(Debug)]
pub struct Passed<'a> {
    /// See [`Passing::number`].
    pub number: usize,
    /// See [`Passing::name`].
    pub name: &'a str,
    /// The process that takes over.
    pub new: Pid,
}

type Look = Box<dyn FnMut(&mut Passing) + Send>;
type Note = Box<dyn FnMut(&Passed<'_>) + Send>;

struct Shared {
    /// Is shown each frame before it goes on.
    before: Mutex<Look>,
    /// And after.
    after: Mutex<Note>,
    number: Mutex<usize>,
}

/// Listens at `path` for connections to `target`, until the process ends. `before` sees each frame before it is passed on,
/// `after` when it has been.
///
/// # Panics
/// When the socket cannot be opened.
pub fn listen(
    path: &Path,
    target: &Path,
    before: impl FnMut(&mut Passing) + Send + 'static,
    after: impl FnMut(&Passed<'_>) + Send + 'static,
) {
    let socket = open();
    let address = SocketAddrUnix::new(path).expect("a path");
    rustix::net::bind(&socket, &address).expect("a socket");
    rustix::net::listen(&socket, 8).expect("a socket");
    let target = target.to_path_buf();
    let shared = Arc::new(Shared {
        before: Mutex::new(Box::new(before)),
        after: Mutex::new(Box::new(after)),
        number: Mutex::default(),
    });
    std::thread::spawn(move || {
        while let Ok(new) = rustix::net::accept_with(&socket, SocketFlags::CLOEXEC) {
            let old = open();
            let address = SocketAddrUnix::new(&target).expect("a path");
            // A client whose target is gone is hung up on.
            if rustix::net::connect(&old, &address).is_ok() {
                // Who offers sockets speaks first: then it is this process, not its successor, that is being asked.
                let wait = Timespec::try_from(FIRST_WORD).expect("a time");
                let _ = poll(&mut [PollFd::new(&old, PollFlags::IN)], Some(&wait));
                let pid = rustix::net::sockopt::socket_peercred(&new)
                    .expect("a peer")
                    .pid;
                between(new, old, pid, &shared);
            }
        }
    });
}

/// A connection to a hand-off socket; `None` if it takes no more.
pub fn connect(path: &Path) -> Option<OwnedFd> {
    let socket = open();
    rustix::io::ioctl_fionbio(&socket, true).ok()?;
    let address = SocketAddrUnix::new(path).ok()?;
    rustix::net::connect(&socket, &address).ok()?;
    Some(socket)
}

fn open() -> OwnedFd {
    let kind = SocketType::SEQPACKET;
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .expect("a socket")
}

/// Passes on between a worker that starts, as process `pid`, and its supervisor. Returns when the worker has hung up and all that
/// it said has been passed on.
///
/// # Panics
/// When a thread cannot be started.
pub fn attend(
    worker: OwnedFd,
    supervisor: OwnedFd,
    pid: Pid,
    before: impl FnMut(&mut Passing) + Send + 'static,
    after: impl FnMut(&Passed<'_>) + Send + 'static,
) {
    let shared = Arc::new(Shared {
        before: Mutex::new(Box::new(before)),
        after: Mutex::new(Box::new(after)),
        number: Mutex::default(),
    });
    rustix::io::ioctl_fionbio(&supervisor, false).expect("a socket");
    let [from_worker, _] = between(worker, supervisor, pid, &shared);
    let _ = from_worker.join();
}

/// Two connected ends.
///
/// # Panics
/// When no descriptors are left.
pub fn pair() -> (OwnedFd, OwnedFd) {
    let kind = SocketType::SEQPACKET;
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .expect("descriptors")
}

/// Passes on between these two in threads of their own: from the first, and to it.
fn between(new: OwnedFd, old: OwnedFd, pid: Pid, shared: &Arc<Shared>) -> [JoinHandle<()>; 2] {
    let (new, old) = (Arc::new(new), Arc::new(old));
    [true, false].map(|from_new| {
        let (from, to) = if from_new { (&new, &old) } else { (&old, &new) };
        let (from, to, shared) = (Arc::clone(from), Arc::clone(to), Arc::clone(shared));
        std::thread::spawn(move || {
            while let Some((bytes, fds)) = receive(&from)
                && shared.pass(bytes, fds, from_new, &to, pid)
            {}
            // Whoever is at the other end sees the end, too.
            let _ = rustix::net::shutdown(&to, Shutdown::Both);
            let _ = rustix::net::shutdown(&from, Shutdown::Both);
        })
    })
}

impl Shared {
    fn pass(
        self: &Arc<Self>,
        bytes: Vec<u8>,
        mut fds: Vec<OwnedFd>,
        from_new: bool,
        to: &OwnedFd,
        new: Pid,
    ) -> bool {
        let number = {
            let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
            *number += 1;
            *number
        };
        let name = name_of(&bytes);
        // The channel for tables is between the two, too. Its other end is with the sender, or with a third process.
        let asks = name == "Take";
        if asks || name == "Learn" {
            fds = fds
                .into_iter()
                .map(|end| self.divert(end, asks, new))
                .collect();
        }
        let mut passing = Passing {
            number,
            from_new,
            name,
            new,
            bytes,
            before: Vec::new(),
        };
        let mut look = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        (*look)(&mut passing);
        drop(look);
        for first in &passing.before {
            if !send(to, first, &[]) {
                return false;
            }
        }
        let passed = send(to, &passing.bytes, &fds);
        let mut look = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        (*look)(&Passed {
            number,
            name: &passing.name,
            new,
        });
        passed
    }

    fn divert(self: &Arc<Self>, end: OwnedFd, is_new: bool, pid: Pid) -> OwnedFd {
        let (ours, theirs) = pair();
        rustix::io::ioctl_fionbio(&end, false).expect("a socket");
        let (new, old) = if is_new { (end, ours) } else { (ours, end) };
        between(new, old, pid, self);
        theirs
    }
}

fn receive(from: &OwnedFd) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 1 << 17];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let got = rustix::net::recvmsg(from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(got.bytes);
    (got.bytes > 0).then_some((bytes, fds))
}

fn send(to: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) -> bool {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return false;
    }
    let parts = [IoSlice::new(bytes)];
    rustix::net::sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// How long the first word may take.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// The number of the frame that carries what is said about tables.
pub const PASS: u8 = 19;

/// What a frame is, as `node/src/handoff/frames.rs` numbers them.
fn name_of(bytes: &[u8]) -> String {
    let name = |all: &[&str], at: u8| match all.get(usize::from(at)) {
        Some(name) => (*name).to_owned(),
        None => format!("#{at}"),
    };
    match bytes {
        [_, _, _, PASS, pass, ..] => format!("Pass/{}", name(&PASSES, *pass)),
        [_, _, _, frame, ..] => name(&FRAMES, *frame),
        _ => "?".to_owned(),
    }
}

const FRAMES: [&str; 34] = [
    "Hello",
    "Listeners",
    "Begin",
    "Said",
    "Files",
    "Ready",
    "Go",
    "Serving",
    "Hold",
    "Held",
    "Resume",
    "Drain",
    "Console",
    "Left",
    "Take",
    "Teach",
    "Learn",
    "Heir",
    "Child",
    "Pass",
    "State",
    "Sorry",
    "Yours",
    "Kin",
    "Taking",
    "Retire",
    "Reloads",
    "TeachAgain",
    "LearnAgain",
    "Cut",
    "Closed",
    "Back",
    "Opens",
    "Open",
];
const PASSES: [&str; 19] = [
    "Ask",
    "Tables",
    "Rows",
    "Walked",
    "Totals",
    "Settings",
    "Shares",
    "Numbers",
    "Known",
    "Lives",
    "Sealed",
    "Released",
    "Child",
    "Heard",
    "Drain",
    "Ack",
    "Drained",
    "Accepting",
    "Quiet",
];
