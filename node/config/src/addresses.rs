//! One address used for two things: a section or a line that was copied and not changed. On a UNIX path the second
//! listener would take the place of the first without a word.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::compile::Built;
use crate::plan::{Address, Global, PeerAddress, PeersSection, Place};
use crate::scope::Scope;

/// Reports every address that is used again.
pub(crate) fn check(
    proxies: &[Built],
    sections: &[PeersSection],
    global: &Global,
    scope: &mut Scope<'_>,
) {
    let mut uses = Vec::new();
    for (keyword, sockets) in [
        ("stats socket", &global.stats_sockets),
        ("admin bind", &global.admin_binds),
    ] {
        for socket in sockets {
            let what = format!("'{keyword} {}'", socket.text);
            uses.extend(Use::listener(&socket.address, what, socket.place));
        }
    }
    for built in proxies.iter().filter(|b| !b.proxy.disabled) {
        for bind in &built.proxy.binds {
            let what = format!(
                "'bind {}' of {} '{}'",
                bind.text,
                built.kind.word(),
                built.proxy.name
            );
            uses.extend(Use::listener(&bind.address, what, bind.place));
        }
    }
    for (section, peers) in sections.iter().enumerate().filter(|(_, s)| !s.disabled) {
        let name = &peers.name;
        for bind in &peers.binds {
            let what = format!("listening on '{}' in peers section '{name}'", bind.text);
            let used = Use::listener(&bind.address, what, bind.place);
            uses.extend(used.map(|used| used.of(section)));
        }
        for server in peers.servers.iter().filter(|s| !s.disabled) {
            let what = format!("peer '{}' of peers section '{name}'", server.name);
            let root = global.chroot.as_deref();
            let used = Use::peer(&server.address, root, what, server.place);
            uses.extend(used.map(|used| used.of(section)));
        }
    }
    uses.sort_by_key(|used| (used.place.file, used.place.line));
    let mut first: BTreeMap<Spot, Use> = BTreeMap::new();
    for used in uses {
        let Some(before) = first.get(&used.spot) else {
            first.insert(used.spot.clone(), used);
            continue;
        };
        // What a section says about its own addresses is judged with it.
        if used.section.is_some() && used.section == before.section {
            continue;
        }
        let text = format!(
            "{} : this address is used already, for {} ({}). Each needs one of its own.",
            used.what,
            before.what,
            scope.diags.at(before.place)
        );
        scope.diags.alert(used.place, &text);
    }
}

/// Where something listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Spot {
    Ip(SocketAddr),
    /// Compared by its parts: `//` and `/./` are `/`.
    Unix(PathBuf),
}

struct Use {
    spot: Spot,
    what: String,
    place: Place,
    /// The `peers` section that it belongs to.
    section: Option<usize>,
}

impl Use {
    fn listener(address: &Address, what: String, place: Place) -> Option<Use> {
        let spot = match address {
            // Port 0 is another one each time.
            Address::Ip(at) if at.port() != 0 => Spot::ip(*at),
            Address::Unix(path) => Spot::Unix(PathBuf::from(path)),
            Address::Ip(_) | Address::Fd(_) => return None,
        };
        Some(Use::at(spot, what, place))
    }
    /// `root`: below it the paths of `server` lines are looked for, when those of listeners have been opened.
    fn peer(address: &PeerAddress, root: Option<&str>, what: String, place: Place) -> Option<Use> {
        let spot = match address {
            PeerAddress::Ip(at) => Spot::ip(*at),
            PeerAddress::Unix(path) => Spot::Unix(match root {
                Some(root) => Path::new(root).join(path.trim_start_matches('/')),
                None => PathBuf::from(path),
            }),
            PeerAddress::Host { .. } => return None,
        };
        Some(Use::at(spot, what, place))
    }
    fn at(spot: Spot, what: String, place: Place) -> Use {
        let section = None;
        Use {
            spot,
            what,
            place,
            section,
        }
    }
    fn of(self, section: usize) -> Use {
        Use {
            section: Some(section),
            ..self
        }
    }
}

impl Spot {
    fn ip(at: SocketAddr) -> Spot {
        Spot::Ip(SocketAddr::new(at.ip().to_canonical(), at.port()))
    }
}
