//! Following the configuration's files (`--watch`). The directories that lead to them are watched, symbolic links
//! included: that is how Kubernetes replaces a mounted ConfigMap (`..data` becomes a link to another directory). What
//! counts is the content: a worker says what it has read, and only a difference from that is a change.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

use crate::boot::sources;
use crate::handoff::frames::SeenFile;

/// The files of the configuration that was tried last.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: OwnedFd,
    /// The same, read like a pipe.
    events: Receiver,
    files: Vec<SeenFile>,
    /// When something happened first and last since the last look (ms).
    stirred: Option<(u64, u64)>,
}

impl Watch {
    /// Within an event loop.
    pub(super) fn open() -> io::Result<Watch> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let events = Receiver::from_owned_fd_unchecked(inotify.try_clone()?)?;
        Ok(Watch {
            inotify,
            events,
            files: Vec::new(),
            stirred: None,
        })
    }

    /// From now on these are the files. They may have changed since they were read, so a look is due.
    pub(super) fn follow(&mut self, files: Vec<SeenFile>, now_ms: u64) {
        if !files.is_empty() {
            self.files = files;
        }
        self.watch_places();
        self.stir(now_ms);
    }

    /// What is followed.
    pub(super) fn files(&self) -> &[SeenFile] {
        &self.files
    }

    /// Waits until something happens in one of the directories. May be dropped at any time.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut happened = false;
        loop {
            let mut events = [0; 4096];
            match self.events.try_read(&mut events) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => happened = true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if happened {
                        return Ok(());
                    }
                    self.events.readable().await?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Notes that something happened.
    pub(super) fn stir(&mut self, now_ms: u64) {
        let first = self.stirred.map_or(now_ms, |(first, _)| first);
        self.stirred = Some((first, now_ms));
    }

    /// When to look: once things have been quiet for a moment, or after a while of unrest.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.stirred
            .map(|(first, last)| (last + QUIET_MS).min(first + UNREST_MAX_MS))
    }

    /// Looks whether a file differs from what was tried last; what there is now then counts as tried, even if no worker
    /// comes to say what it has read.
    pub(super) fn look(&mut self) -> Option<String> {
        self.stirred = None;
        // Directories may have been replaced by others.
        self.watch_places();
        let mut first = None;
        for file in &mut self.files {
            let content = sources::see(&file.path);
            if content != file.content {
                file.content = content;
                first.get_or_insert_with(|| file.path.clone());
            }
        }
        first
    }

    fn watch_places(&self) {
        let places: BTreeSet<PathBuf> = self
            .files
            .iter()
            .flat_map(|f| places(Path::new(&f.path)))
            .collect();
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF;
        for place in places {
            if let Err(e) = inotify::add_watch(&self.inotify, &place, what) {
                tracing::warn!("cannot watch {}: {e}", place.display());
            }
        }
    }
}

/// The directories in which a change may give `path` another content.
fn places(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        // A directory itself, for what is in it; else the closest that is there.
        let home = path.ancestors().find(|dir| dir.is_dir());
        found.extend(home.map(Path::to_path_buf));
        let parent = path.parent();
        found.extend(parent.filter(|dir| dir.is_dir()).map(Path::to_path_buf));
        // The outermost link on the way: follow it, and look again.
        let link = path
            .ancestors()
            .filter(|part| part.is_symlink())
            .last()
            .map(Path::to_path_buf);
        let Some(link) = link else { break };
        let (Some(dir), Ok(target)) = (link.parent(), std::fs::read_link(&link)) else {
            break;
        };
        found.insert(dir.to_path_buf());
        let rest = path.strip_prefix(&link).unwrap_or(Path::new("")).to_owned();
        path = dir.join(target);
        if !rest.as_os_str().is_empty() {
            path = path.join(rest);
        }
    }
    found
}

/// A file counts as complete when nothing has happened around it for so long.
const QUIET_MS: u64 = 250;
/// But a directory in which something happens all the time is looked at, too.
const UNREST_MAX_MS: u64 = 2_000;
/// As many symbolic links as the kernel follows.
const LINKS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn all_directories_on_the_way_through_links_are_places() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        // As Kubernetes mounts a ConfigMap.
        std::fs::create_dir_all(root.join("mount/..2026_01")).unwrap();
        std::fs::write(root.join("mount/..2026_01/a.cfg"), "").unwrap();
        symlink("..2026_01", root.join("mount/..data")).unwrap();
        symlink("..data/a.cfg", root.join("mount/a.cfg")).unwrap();
        symlink("mount/a.cfg", root.join("outside.cfg")).unwrap();
        let found = places(&root.join("outside.cfg"));
        for place in ["", "mount", "mount/..2026_01"] {
            let place = root.join(place);
            assert!(
                found.iter().any(|p| p.canonicalize().unwrap() == place),
                "{place:?}: {found:?}"
            );
        }
        // Not there yet: the closest directory that is.
        let found = places(&root.join("mount/not/yet.cfg"));
        assert!(found.contains(&root.join("mount")), "{found:?}");
        // A directory is a place itself.
        assert!(places(&root.join("mount")).contains(&root.join("mount")));
        // Links in a circle come to an end.
        symlink("loop", root.join("loop")).unwrap();
        places(&root.join("loop"));
    }
}
