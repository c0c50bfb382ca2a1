//! `handoff DIR/`: a directory in which every process has a hand-off socket of its own. A new process finds the one before it
//! there, so both have the same configuration and command line (two pods of one node, for example).

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::{
    DirEntryExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation};
use rustix::io::Errno;
use tracing::{info, warn};

use super::channel::Channel;
use super::taker::connect;

/// Between looking for the process before and having an own socket: whoever else starts now waits, and then finds this
/// process.
#[derive(Debug)]
pub struct Search {
    dir: PathBuf,
    until: Instant,
    /// Own sockets, kept by the supervisor.
    own: Vec<PathBuf>,
    /// Somebody died here and left a socket.
    dead: Cell<bool>,
    /// Locked as long as it is open.
    _lock: File,
}

/// Whether a `handoff` address is such a directory.
pub fn is_directory(path: &str) -> bool {
    path.ends_with('/')
}

/// The address of a directory, however it was written.
pub fn normal(path: &mut String) {
    if !is_directory(path) && Path::new(path).is_dir() {
        path.push('/');
    }
}

/// Whether only trusted users can put sockets there.
///
/// # Errors
/// A message that says what to do.
pub fn check(what: &str, dir: &Path) -> Result<(), String> {
    match std::fs::metadata(dir) {
        Ok(meta) if !meta.is_dir() => Err(format!("'handoff {what}': it is not a directory.")),
        Ok(meta) if meta.mode() & 0o002 != 0 => Err(format!(
            "'handoff {what}': everybody may write to its directory, and so put another socket in its place. Take that right away (chmod o-w {}).",
            dir.display()
        )),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!(
            "'handoff {what}': there is no directory {}. Create it, writable for the user of this process.",
            dir.display()
        )),
        Err(e) => Err(format!("'handoff {what}': its directory: {e}")),
    }
}

/// What an error in the directory is followed by if it comes from the lack of a right; else nothing.
pub fn missing_right(dir: &Path) -> String {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(CWD, dir, wanted, AtFlags::EACCESS) {
        Err(Errno::ACCESS) => format!(
            " User {} needs the right to write to the directory.",
            rustix::process::geteuid().as_raw()
        ),
        _ => String::new(),
    }
}

/// The path of a socket for a new process. Later ones have greater names.
pub fn socket_in(dir: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis() as u64);
    format!(
        "{dir}{PREFIX}{ms:012x}{:04x}{SUFFIX}",
        rand::random::<u16>()
    )
}

impl Search {
    /// Waits until nobody else is between looking and having a socket. `own`: not to be looked at.
    ///
    /// # Errors
    /// A message: the directory cannot be used, or somebody else does not go on.
    pub fn begin(dir: &str, own: Vec<PathBuf>) -> Result<Search, String> {
        let path = Path::new(dir);
        check(dir, path)?;
        // Not the directory itself, which everybody could lock who may read it.
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path.join(LOCK))
            .map_err(|e| format!("'handoff {dir}': {LOCK}: {e}.{}", missing_right(path)))?;
        let since = Instant::now();
        let mut said = false;
        let until = Instant::now() + PATIENCE;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => {
                    if !said && since.elapsed() > SHORT_PATIENCE {
                        said = true;
                        info!("waiting for another process that starts in {dir}.");
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    return Err(format!(
                        "'handoff {dir}': another process that starts there has not come further for {} s.",
                        PATIENCE.as_secs()
                    ));
                }
                Err(e) => return Err(format!("'handoff {dir}': cannot lock it: {e}")),
            }
        }
        Ok(Search {
            dir: path.to_path_buf(),
            until,
            own,
            dead: Cell::new(false),
            _lock: lock,
        })
    }

    /// A connection to the newest process there that lives. What the dead have left is removed.
    ///
    /// # Errors
    /// Nobody can tell whether there is one.
    pub fn newest(&self) -> io::Result<Option<(Channel, PathBuf)>> {
        let mut all: Vec<PathBuf> = std::fs::read_dir(&self.dir)?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_socket()) && entry.ino() != 0)
            .map(|entry| entry.path())
            .filter(|path| is_ours(path) && !self.own.contains(path))
            .collect();
        all.sort_unstable();
        for path in all.into_iter().rev() {
            match connect(&path) {
                Ok(channel) => return Ok(Some((channel, path))),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    info!("{}: its process has ended.", path.display());
                    self.dead.set(true);
                    if let Err(e) = std::fs::remove_file(&path) {
                        warn!("{}: cannot remove it: {e}", path.display());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display())));
                }
            }
        }
        Ok(None)
    }

    /// Whether a process has died that had a socket here, as far as it was looked.
    pub fn found_dead(&self) -> bool {
        self.dead.get()
    }

    /// How long the process that was found may take to answer: it may be starting itself.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits a moment before looking again.
    pub fn pause(&self) {
        std::thread::sleep(PAUSE);
    }
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
}

/// After so long it is said that this process waits.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
const LOCK: &str = "remora.lock";
const PREFIX: &str = "remora-";
const SUFFIX: &str = ".sock";
/// Another process may take so long to start.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);
