//! Nodes found by DNS come and go as peers of a section.
//!
//! Names lag behind: a resolver's cache may hide a new node for half a minute, and a new node that nobody dials is taught
//! nothing. So a node whose session has been accepted is dialed where it came from, whether its name is there already or not.
//! They also run ahead: a node that drains, or whose Service is being made anew, has no name any more and goes on counting. So
//! one that has a session stays until it has none, and only then is it a leaver.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use remora_config::plan::{Discover, PeerAddress};
use remora_core::peers::{Hub, PeerIx, PeerReport, PeerState, Report};
use tokio::sync::mpsc::channel;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_rustls::rustls::ClientConfig;

use super::dial::Target;
use super::discover::{Book, Change, GRACE_INTERVALS, MEMBERS_MAX, watch};
use super::section::{Discovery, Section};
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
        let book = Book::new(&section.known_before(&self.line.name));
        spawn_local(watch(self.line.clone(), book.clone(), changes));
        section.note_discovery(&self.line.name, |known| known.book = book);
        loop {
            let change = tokio::select! {
                change = news.recv() => change,
                Ok(()) = met.changed() => {
                    if let Some(port) = self.guests_at {
                        self.welcome(&section, port, &peers, &mut guests);
                        self.note_guests(&section, &guests);
                    }
                    continue;
                }
                () = sleep(every), if !guests.0.is_empty() => {
                    for ix in guests.left(&section.report(), |ip, ix| section.dials(ip, Some(ix))) {
                        section.remove_peer(ix);
                        section.warn_if_alone();
                    }
                    self.note_guests(&section, &guests);
                    continue;
                }
            };
            let Some(change) = change else {
                return;
            };
            section.note_discovery(&self.line.name, |known| note(known, &change));
            match change {
                Change::Added(address) | Change::Kept(address) => match guests.0.remove(&address) {
                    Some(guest) => {
                        peers.insert(address, guest.ix);
                    }
                    None => self.add(&section, address, &mut peers),
                },
                Change::Gone(address) => {
                    if let Some(ix) = peers.remove(&address) {
                        self.lose(&section, address, ix, &mut guests);
                    }
                }
                Change::Listed(_) => {
                    unlisted.set(unlisted.get().saturating_sub(1));
                    if unlisted.get() == 0 {
                        section.with_hub(Hub::discovered);
                    }
                }
                // Has been logged; what it means for this node, if it knows of nobody.
                Change::Failing(_) | Change::Empty => section.warn_if_alone(),
                Change::Answering => {}
            }
            self.note_guests(&section, &guests);
        }
    }

    /// For the process that goes on.
    fn note_guests(&self, section: &Section, guests: &Guests) {
        section.note_discovery(&self.line.name, |known| {
            if !known.guests.iter().eq(guests.0.keys()) {
                known.guests = guests.0.keys().copied().collect();
            }
        });
    }

    /// The name does not lead there any more.
    fn lose(&self, section: &Section, address: SocketAddr, ix: PeerIx, guests: &mut Guests) {
        let report = section.report();
        let seen = report.peers.iter().find(|p| p.peer == Some(ix));
        if seen.is_some_and(is_here) {
            section.log(
                Severity::Notice,
                format_args!(
                    "{address} stays as long as it has a session, though {} does not lead there any more",
                    self.line.name
                ),
            );
            guests.0.insert(address, Guest { ix, silent: 0 });
        } else {
            section.remove_peer(ix);
            section.warn_if_alone();
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

/// Nodes that are dialed though the name does not lead to them: they came by themselves, or it did once.
#[derive(Default)]
struct Guests(BTreeMap<SocketAddr, Guest>);

struct Guest {
    ix: PeerIx,
    /// Looks in a row that found no session with it.
    silent: u32,
}

impl Guests {
    /// Those who have not had a session with this node for a while, or whom another line has come to dial; they are forgotten.
    fn left(&mut self, report: &Report, is_dialed: impl Fn(IpAddr, PeerIx) -> bool) -> Vec<PeerIx> {
        let mut left = Vec::new();
        self.0.retain(|at, guest| {
            let seen = report.peers.iter().find(|p| p.peer == Some(guest.ix));
            guest.silent = if seen.is_some_and(is_here) {
                0
            } else {
                guest.silent + 1
            };
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

/// Whether there is a session in either direction, and not only at another address of the same node.
fn is_here(peer: &PeerReport) -> bool {
    match peer.state {
        Some(PeerState::Up) => true,
        Some(PeerState::Myself | PeerState::Duplicate) => false,
        _ => peer.incoming_ms.is_some(),
    }
}

/// What a change says about its name.
fn note(known: &mut Discovery, change: &Change) {
    match change {
        Change::Added(_) | Change::Kept(_) => known.addresses += 1,
        Change::Gone(_) => known.addresses = known.addresses.saturating_sub(1),
        Change::Listed(_) => {}
        Change::Failing(_) | Change::Empty => {
            known.failing = true;
            known.last_error = Some(match change {
                Change::Failing(why) => why.clone(),
                _ => "it has no address".to_owned(),
            });
        }
        Change::Answering => known.failing = false,
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
