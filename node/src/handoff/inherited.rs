//! Listening sockets that another process handed over, waiting to be adopted by the configuration's addresses.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::frames::{ListenerInfo, Purpose, Where};

/// A pool of them. What nobody adopts is closed with it.
#[derive(Debug, Default)]
pub struct Inherited {
    all: Vec<(ListenerInfo, OwnedFd)>,
    /// Another process runs with this one, so ports are shared with it.
    pub accompanied: bool,
    /// Others are to end once this process serves (`-sf`, `-st`): what they listen on may be its own.
    pub replaces: bool,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct Adopted {
    /// [`ListenerInfo::id`]
    pub id: u64,
    /// One or more.
    pub fds: Vec<OwnedFd>,
}

impl Inherited {
    /// Adds what came with a frame.
    pub fn add(&mut self, infos: Vec<ListenerInfo>, fds: Vec<OwnedFd>) {
        self.all.extend(infos.into_iter().zip(fds));
    }

    /// Takes out the sockets for this address, if it has any: of the same purpose, place and fixed options. A path must
    /// still lead to the socket.
    pub fn adopt(&mut self, purpose: Purpose, at: &Where) -> Option<Adopted> {
        let fits = |info: &ListenerInfo| info.purpose == purpose && same_place(&info.at, at);
        let id = self.all.iter().find(|(info, _)| fits(info))?.0.id;
        let (found, rest) = std::mem::take(&mut self.all)
            .into_iter()
            .partition(|(info, _)| info.id == id);
        self.all = rest;
        let fds = found.into_iter().map(|(_, fd)| fd).collect();
        Some(Adopted { id, fds })
    }

    /// The paths of hand-off sockets.
    pub fn handoffs(&self) -> impl Iterator<Item = &str> {
        let handoffs = self.all.iter();
        let handoffs = handoffs.filter(|(info, _)| info.purpose == Purpose::HandOff);
        handoffs.filter_map(|(info, _)| match &info.at {
            Where::Unix { path, .. } => Some(path.as_str()),
            _ => None,
        })
    }

    /// The path of the one in this directory, which ends in `/`.
    pub fn handoff_in(&self, dir: &str) -> Option<String> {
        let inside = |path: &&str| {
            path.strip_prefix(dir)
                .is_some_and(|name| !name.contains('/'))
        };
        self.handoffs().find(inside).map(str::to_owned)
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

fn same_place(there: &Where, wanted: &Where) -> bool {
    match (there, wanted) {
        (
            Where::Unix { path, file, rights },
            Where::Unix {
                path: wanted,
                rights: wanted_rights,
                ..
            },
        ) => path == wanted && rights == wanted_rights && file_of(Path::new(path)) == Some(*file),
        _ => there == wanted,
    }
}

/// Device and inode of a path, not following a symbolic link.
pub fn file_of(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// A number for the sockets of a new address.
pub fn fresh_id() -> u64 {
    rand::random()
}

/// Everything a process listens on, kept for handing it over: descriptions and shared descriptors.
pub type Offer = Vec<(ListenerInfo, Arc<OwnedFd>)>;

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(port: u16, v6only: Option<bool>) -> Where {
        Where::Inet {
            address: ([127, 0, 0, 1], port).into(),
            v6only,
        }
    }

    fn some_fd() -> OwnedFd {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn all_sockets_of_an_address_are_adopted_once() {
        let mut pool = Inherited::default();
        let info = |id, at: &Where| ListenerInfo {
            id,
            purpose: Purpose::Bind,
            at: at.clone(),
        };
        let (a, b) = (inet(80, None), inet(81, None));
        // Two addresses that look the same (two `bind` lines with port 0) stay apart.
        for (id, at) in [(1, &a), (2, &b), (1, &a), (3, &a)] {
            pool.add(vec![info(id, at)], vec![some_fd()]);
        }
        assert!(pool.adopt(Purpose::Console, &a).is_none());
        assert!(pool.adopt(Purpose::Bind, &inet(80, Some(true))).is_none());
        let first = pool.adopt(Purpose::Bind, &a).unwrap();
        assert_eq!((first.id, first.fds.len()), (1, 2));
        let second = pool.adopt(Purpose::Bind, &a).unwrap();
        assert_eq!((second.id, second.fds.len()), (3, 1));
        assert!(pool.adopt(Purpose::Bind, &a).is_none());
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn a_path_must_still_lead_to_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bind = || OwnedFd::from(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let fd = bind();
        let at = |file| Where::Unix {
            path: path.to_string_lossy().into_owned(),
            file,
            rights: (Some(0o600), None, None),
        };
        let mut pool = Inherited::default();
        let info = ListenerInfo {
            id: 1,
            purpose: Purpose::Bind,
            at: at(file_of(&path).unwrap()),
        };
        pool.add(vec![info], vec![fd]);
        // Another inode now has the name; the first is kept alive so that its number is not taken again.
        let kept = dir.path().join("kept");
        std::fs::rename(&path, &kept).unwrap();
        let _other = bind();
        assert!(pool.adopt(Purpose::Bind, &at((0, 0))).is_none());
        std::fs::rename(&kept, &path).unwrap();
        assert!(pool.adopt(Purpose::Bind, &at((0, 0))).is_some());
    }
}
