//! Starting programs and learning how they ended.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use nix::sys::wait::{Id, WaitPidFlag};
use parking_lot::Mutex;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus};

use super::machine::{self, Status};
use crate::cli::{DETACHED, RESUMED, WORKER};
use crate::messages;

/// How to start this program again.
#[derive(Clone, Debug)]
pub struct Program {
    /// The path it was started by, absolute: what is there now is what a reload starts.
    pub path: PathBuf,
    /// What was there when this process was started.
    pub file: FileId,
}

/// Tells whether a path leads to the same content as before.
pub type FileId = (u64, u64, u64, i64, i64);

impl Program {
    /// This process's own.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn this() -> io::Result<Program> {
        let running = std::env::current_exe()?;
        let file = file_id(Path::new("/proc/self/exe"))?;
        let named = std::env::args_os().next().and_then(|name| find(&name));
        // The name is what an upgrade replaces, often a symbolic link; but it may be anything.
        let path = named
            .filter(|path| file_id(path).is_ok_and(|id| id == file))
            .unwrap_or(running);
        Ok(Program { path, file })
    }

    /// This process after it has executed the program at `path`.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn executed(path: PathBuf) -> io::Result<Program> {
        let file = file_id(Path::new("/proc/self/exe"))?;
        Ok(Program { path, file })
    }

    /// Whether another program is at the path now.
    pub fn is_replaced(&self) -> bool {
        file_id(&self.path).is_ok_and(|now| now != self.file)
    }

    /// Starts a worker whose descriptor 0 is `channel`. Its process id.
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn spawn_worker(&self, channel: OwnedFd) -> io::Result<u32> {
        let mut command = self.command(WORKER);
        command.stdin(Stdio::from(channel));
        // It is reaped by its number, as everything that ends up here.
        command.spawn().map(|child| child.id())
    }

    /// Becomes the program at the path, which takes over the state that can be read from `state`. Returns only if that
    /// failed.
    pub fn execute(&self, state: OwnedFd) -> io::Error {
        messages::settle();
        self.command(RESUMED).stdin(Stdio::from(state)).exec()
    }

    /// With the arguments of this process, and a mark in front: behind `--` everything is a file name.
    fn command(&self, mark: &str) -> Command {
        let mut args = std::env::args_os();
        let mut command = Command::new(&self.path);
        if let Some(name) = args.next() {
            command.arg0(name);
        }
        let mut plain = true;
        command.arg(mark).args(args.filter(move |arg| {
            plain &= arg != "--";
            let marks = [DETACHED, RESUMED, WORKER].map(OsString::from);
            !(plain && marks.contains(arg))
        }));
        command
    }
}

/// The program that a shell would have found.
fn find(name: &OsString) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 || path.is_absolute() {
        return std::path::absolute(path).ok();
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(path))
        .find(|path| path.is_file())
}

fn file_id(path: &Path) -> io::Result<FileId> {
    let meta = std::fs::metadata(path)?;
    Ok((
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
    ))
}

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It has ended.
    Ended(Status),
    /// This signal has stopped it.
    Stopped(i32),
    /// It goes on.
    Continued,
}

/// What became of this child, which is not let go of by that: who has ended stays until [`Reaper::release`].
pub fn look(pid: u32) -> Option<News> {
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    if let Some(status) = wait(pid, ended) {
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Status::Exit(code),
            (None, signal) => Status::Signal(signal.unwrap_or_default()),
        };
        return Some(News::Ended(status));
    }
    let moved = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
    let status = wait(pid, moved)?;
    Some(match status.stopping_signal() {
        Some(signal) => News::Stopped(signal),
        None => News::Continued,
    })
}

fn wait(pid: u32, options: WaitIdOptions) -> Option<WaitIdStatus> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    rustix::process::waitid(WaitId::Pid(pid), options).ok()?
}

/// Lets go of children that have ended, in a thread of its own: the kernel first drops what it knows of the process in `/proc`,
/// and as long as somebody who looks at that holds it (a monitor that has no processor for the moment), waits in a loop. That
/// took seconds, in which no signal was read.
#[derive(Debug)]
pub struct Reaper {
    /// Those that nobody but [`Reaper::release`] may let go of.
    known: Arc<Mutex<BTreeSet<u32>>>,
    ended: mpsc::Sender<Option<u32>>,
}

impl Reaper {
    /// Starts the thread; `known` are children already. Signals that the caller has blocked are blocked there.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(known: BTreeSet<u32>) -> io::Result<Reaper> {
        let known = Arc::new(Mutex::new(known));
        let (ended, queue) = mpsc::channel::<Option<u32>>();
        let theirs = Arc::clone(&known);
        std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || {
                for pid in queue {
                    if let Some(pid) = pid {
                        let _ = wait(pid, WaitIdOptions::EXITED);
                    }
                    release_strangers(&theirs);
                }
            })?;
        Ok(Reaper { known, ended })
    }

    /// Runs what starts a child. Its process id is known before anybody can take it for a stranger's.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn adopt(&self, start: impl FnOnce() -> io::Result<u32>) -> io::Result<u32> {
        let mut known = self.known.lock();
        let pid = start()?;
        known.insert(pid);
        Ok(pid)
    }

    /// This child has ended, and how has been noticed.
    pub fn release(&self, pid: u32) {
        self.known.lock().remove(&pid);
        let _ = self.ended.send(Some(pid));
    }

    /// Some child may have ended that is not known: process 1 inherits those of others.
    pub fn look_around(&self) {
        let _ = self.ended.send(None);
    }
}

fn release_strangers(known: &Mutex<BTreeSet<u32>>) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    loop {
        // Nothing is being started meanwhile.
        let guard = known.lock();
        let ended = nix::sys::wait::waitid(Id::All, flags).ok();
        let pid = ended.and_then(|status| status.pid());
        let pid = pid.and_then(|pid| u32::try_from(pid.as_raw()).ok());
        // A known one is looked at first by whoever knows it.
        let Some(pid) = pid.filter(|pid| !guard.contains(pid)) else {
            return;
        };
        drop(guard);
        let _ = wait(pid, WaitIdOptions::EXITED);
    }
}

/// Sends a signal to a worker. One that has gone does not matter.
pub fn kill(pid: u32, signal: machine::Signal) {
    let signal = match signal {
        machine::Signal::Usr1 => rustix::process::Signal::USR1,
        machine::Signal::Term => rustix::process::Signal::TERM,
        machine::Signal::Kill => rustix::process::Signal::KILL,
        machine::Signal::Ttin => rustix::process::Signal::TTIN,
        machine::Signal::Ttou => rustix::process::Signal::TTOU,
    };
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until there is such news.
    fn comes(mut news: impl FnMut() -> bool) {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !news() {
            assert!(std::time::Instant::now() < until);
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_has_ended_is_looked_at_and_let_go_of_by_two() {
        let reaper = Reaper::start(BTreeSet::new()).unwrap();
        let sleeps = || Ok(Command::new("sleep").arg("600").spawn()?.id());
        let pid = reaper.adopt(sleeps).unwrap();
        assert_eq!(look(pid), None);
        let raw = Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(raw, rustix::process::Signal::STOP).unwrap();
        comes(|| look(pid) == Some(News::Stopped(19)));
        assert_eq!(look(pid), None, "news is told once");
        rustix::process::kill_process(raw, rustix::process::Signal::CONT).unwrap();
        comes(|| look(pid) == Some(News::Continued));
        kill(pid, machine::Signal::Kill);
        let ended = Some(News::Ended(Status::Signal(9)));
        comes(|| look(pid) == ended);
        // Only a look: it is there until it is released.
        reaper.look_around();
        let stranger = sleeps().unwrap();
        kill(stranger, machine::Signal::Kill);
        comes(|| look(stranger).is_some());
        assert_eq!(look(pid), ended);
        reaper.release(pid);
        comes(|| look(pid).is_none());
        comes(|| look(stranger).is_none());
    }
}
