//! Nodes found by DNS come and go as peers of a section.
//!
//! Names lag behind: a resolver's cache may hide a new node for half a minute, and a new node that nobody dials is taught
//! nothing. So a node whose session has been accepted is dialed where it came from, whether its name is there already or not.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use remora_config::plan::{Discover, PeerAddress};
use remora_core::peers::{Hub, PeerIx, PeerReport, Report};
use tokio::sync::mpsc::channel;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_rustls::rustls::ClientConfig;

use super::dial::Target;
use super::discover::{Change, GRACE_INTERVALS, MEMBERS_MAX, watch};
use super::section::Section;
use super::tls::{self, Reread};
use crate::observe::log::Severity;

/// A `discover` line, with its certificates read.
pub(super) struct Followed {
    line: Discover,
    settings: Option<Arc<Reread<ClientConfig>>>,
    /// Where nodes are dialed that have come by themselves, if that is this line's business.
    guests_at: Option<u16>,
}

impl Followed {
    /// # Errors
    /// Certificates that cannot be read.
    pub(super) fn new(line: &Discover) -> Result<Followed, String> {
        let settings = line.tls.as_ref().map(tls::for_server).transpose()?;
        Ok(Followed {
            line: line.clone(),
            settings: settings.map(Arc::new),
            guests_at: None,
        })
    }

    /// Gives nodes that come by themselves to the first line that knows at which port they listen: they are dialed once, and
    /// nobody can tell which of the names will lead to them.
    pub(super) fn share_guests(lines: &mut [Followed]) {
        if let Some(first) = lines.iter_mut().find(|f| f.line.port.is_some()) {
            first.guests_at = first.line.port;
        }
    }

    /// Follows the name for ever. `unlisted`: lines of the section whose name has not been answered yet; the last of them
    /// tells the hub that it knows everybody.
    pub(super) async fn follow(self, section: Arc<Section>, unlisted: Rc<Cell<usize>>) {
        let mut peers: BTreeMap<SocketAddr, PeerIx> = BTreeMap::new();
        let mut guests = Guests::default();
        let mut met = section.meetings();
        met.mark_changed(); // who came before
        let every = Duration::from_millis(self.line.every_ms.into());
        let (changes, mut news) = channel(CHANGES_WAITING);
        spawn_local(watch(self.line.clone(), changes));
        loop {
            let change = tokio::select! {
                change = news.recv() => change,
                Ok(()) = met.changed() => {
                    if let Some(port) = self.guests_at {
                        self.welcome(&section, port, &peers, &mut guests);
                    }
                    continue;
                }
                () = sleep(every), if !guests.0.is_empty() => {
                    for ix in guests.left(&section.report(), |ip, ix| section.dials(ip, Some(ix))) {
                        section.remove_peer(ix);
                    }
                    continue;
                }
            };
            match change {
                Some(Change::Added(address)) => match guests.0.remove(&address) {
                    Some(guest) => {
                        peers.insert(address, guest.ix);
                    }
                    None => self.add(&section, address, &mut peers),
                },
                Some(Change::Gone(address)) => {
                    if let Some(ix) = peers.remove(&address) {
                        section.remove_peer(ix);
                    }
                }
                Some(Change::Listed(_)) => {
                    unlisted.set(unlisted.get().saturating_sub(1));
                    if unlisted.get() == 0 {
                        section.with_hub(Hub::discovered);
                    }
                }
                Some(Change::Failing(_) | Change::Answering) => {} // has been logged
                None => return,
            }
        }
    }

    fn add(
        &self,
        section: &Section,
        address: SocketAddr,
        peers: &mut BTreeMap<SocketAddr, PeerIx>,
    ) {
        if section.has_line_to(address) {
            return; // it is a peer already, and stays one whatever the name says
        }
        match self.target(address) {
            Ok(target) => {
                if let Some(before) = peers.insert(address, section.add_peer(target, true)) {
                    section.remove_peer(before);
                }
            }
            Err(why) => section.log(
                Severity::Warning,
                format_args!("{address} cannot be dialed: {why}"),
            ),
        }
    }

    /// Dials nodes that have come to this one and are not dialed.
    fn welcome(
        &self,
        section: &Section,
        port: u16,
        peers: &BTreeMap<SocketAddr, PeerIx>,
        guests: &mut Guests,
    ) {
        for address in came_from(&section.report()) {
            if section.dials(address, None) || peers.len() + guests.0.len() >= MEMBERS_MAX {
                continue;
            }
            let address = SocketAddr::new(address, port);
            if let Ok(target) = self.target(address) {
                section.log(
                    Severity::Notice,
                    format_args!(
                        "{address} is dialed, though {} does not lead there yet",
                        self.line.name
                    ),
                );
                let ix = section.add_peer(target, true);
                guests.0.insert(address, Guest { ix, silent: 0 });
            }
        }
    }

    fn target(&self, address: SocketAddr) -> Result<Target, String> {
        let tls = self.line.tls.as_ref().zip(self.settings.clone());
        Target::sharing(address.to_string(), PeerAddress::Ip(address), tls)
    }
}

/// Nodes that are dialed because they came by themselves.
#[derive(Default)]
struct Guests(BTreeMap<SocketAddr, Guest>);

struct Guest {
    ix: PeerIx,
    /// Looks in a row that found no session from it.
    silent: u32,
}

impl Guests {
    /// Those who have not had a session to this node for a while, or whom another line has come to dial; they are forgotten.
    fn left(&mut self, report: &Report, is_dialed: impl Fn(IpAddr, PeerIx) -> bool) -> Vec<PeerIx> {
        let mut left = Vec::new();
        self.0.retain(|at, guest| {
            let seen = report.peers.iter().find(|p| p.peer == Some(guest.ix));
            let is_here = seen.is_some_and(|p| p.incoming_ms.is_some());
            guest.silent = if is_here { 0 } else { guest.silent + 1 };
            let is_another = is_dialed(at.ip(), guest.ix) || seen.is_some_and(|p| twice(report, p));
            if guest.silent < GRACE_INTERVALS && !is_another {
                return true;
            }
            left.push(guest.ix);
            false
        });
        left
    }
}

/// Whether a `server` line leads to the same node.
fn twice(report: &Report, guest: &PeerReport) -> bool {
    let mut lines = report.peers.iter().filter(|p| !p.discovered);
    lines.any(|p| p.peer.is_some() && p.lineage.is_some() && p.lineage == guest.lineage)
}

/// Addresses of nodes that have a session to this one and are not dialed.
fn came_from(report: &Report) -> impl Iterator<Item = IpAddr> {
    let undialed = report.peers.iter().filter(|p| p.peer.is_none());
    undialed
        .filter(|p| p.incoming_ms.is_some())
        .filter_map(|p| p.address.parse().ok())
        .map(|at: SocketAddr| at.ip().to_canonical())
}

/// Changes that may wait while others are worked on.
const CHANGES_WAITING: usize = 16;
