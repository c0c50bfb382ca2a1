//! What a supervisor tells itself across the execution of a new program: a blob in memory (`memfd`) and descriptors, read
//! again from descriptor 0. The process, its children and its blocked signals stay what they are.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use rustix::fs::MemfdFlags;

use super::machine::{Counts, Phase, Worker};
use crate::handoff::channel::{Channel, Packet};
use crate::handoff::frames::{self, Frame, SeenFile};
use crate::handoff::inherited::Offer;

/// The part without descriptors. A field is only ever added together with a new version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct State {
    pub(super) version: u8,
    /// Path of the program.
    pub(super) program: Vec<u8>,
    pub(super) started_ms: u64,
    pub(super) reloads: u32,
    pub(super) failed: u32,
    pub(super) max_reloads: u32,
    pub(super) startup_logs: String,
    pub(super) detach: bool,
    pub(super) files: Vec<SeenFile>,
    pub(super) workers: Vec<Process>,
    /// Text and rights of the master CLI's sockets.
    pub(super) doors: Vec<(String, u8)>,
}

/// A worker; its channel is among the descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Process {
    id: u32,
    pid: u32,
    /// It serves; else it leaves.
    serves: bool,
    started_ms: u64,
    reloads: u32,
    version: String,
}

impl Process {
    pub(super) fn of(w: &Worker) -> Process {
        Process {
            id: w.id,
            pid: w.pid,
            serves: w.phase == Phase::Serving,
            started_ms: w.started_ms,
            reloads: w.reloads,
            version: w.version.clone(),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn worker(self) -> Worker {
        Worker {
            id: self.id,
            pid: self.pid,
            phase: if self.serves {
                Phase::Serving
            } else {
                Phase::Draining
            },
            started_ms: self.started_ms,
            reloads: self.reloads,
            version: self.version,
            fault: None,
        }
    }
}

impl State {
    pub(super) fn counts(&self) -> Counts {
        Counts {
            reloads: self.reloads,
            failed: self.failed,
            last_failed: false,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsStr::from_bytes(&self.program))
    }
}

/// Puts everything into a channel and returns the end to read it from. `fds`: the workers' channels, then the master CLI's
/// sockets, in the order of the state, then ways to processes of others (since version 2).
pub(super) fn pack(
    state: &State,
    fds: Vec<Arc<OwnedFd>>,
    listeners: &Offer,
) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("remora-supervisor", MemfdFlags::CLOEXEC)?;
    let mut memory = File::from(memory);
    memory.write_all(&frames::pack(state)?)?;
    memory.rewind()?;
    let (ours, theirs) = Channel::pair()?;
    let mut all = vec![Arc::new(OwnedFd::from(memory))];
    all.extend(fds);
    ours.try_send(&Packet {
        frame: Frame::State,
        fds: all,
    })?;
    // Nobody reads meanwhile: it has to fit into the kernel's queue, which takes at least ten frames.
    for packet in Packet::listeners(listeners) {
        ours.try_send(&packet)?;
    }
    Ok(theirs)
}

/// Reads what [`pack`] wrote from descriptor 0.
pub(super) fn unpack() -> io::Result<(State, Vec<OwnedFd>, Offer)> {
    let channel = Channel::from_stdin()?;
    let mut found = None;
    let mut listeners = Offer::new();
    while let Some((frame, mut fds)) = channel.recv(PATIENCE)? {
        match frame {
            Frame::State if !fds.is_empty() => {
                let mut memory = File::from(fds.remove(0));
                let mut bytes = Vec::new();
                memory.read_to_end(&mut bytes)?;
                found = Some((frames::unpack::<State>(&bytes)?, fds));
            }
            Frame::Listeners(infos) => {
                listeners.extend(infos.into_iter().zip(fds.into_iter().map(Arc::new)));
            }
            other => return Err(io::Error::other(format!("unexpected {other:?}"))),
        }
    }
    let (state, fds) = found.ok_or(io::ErrorKind::UnexpectedEof)?;
    if fds.len() < state.workers.len() + state.doors.len() {
        return Err(io::Error::other("descriptors are missing"));
    }
    Ok((state, fds, listeners))
}

/// Everything is there already.
const PATIENCE: Duration = Duration::from_secs(5);
