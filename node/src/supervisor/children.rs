//! Starting programs and learning how they ended.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitOptions};

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

/// The next child that has ended, if any; process 1 also gets those of others.
pub fn reap() -> Option<(u32, Status)> {
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok()??;
    let status = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Status::Exit(code),
        (None, Some(signal)) => Status::Signal(signal),
        (None, None) => return reap(),
    };
    Some((pid.as_raw_nonzero().get().unsigned_abs(), status))
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
