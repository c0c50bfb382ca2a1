//! Nodes found by DNS come and go as peers of a section.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use remora_config::plan::{Discover, PeerAddress};
use remora_core::peers::{Hub, PeerIx};
use tokio::sync::mpsc::channel;
use tokio::task::spawn_local;
use tokio_rustls::rustls::ClientConfig;

use super::dial::Target;
use super::discover::{Change, watch};
use super::section::Section;
use super::tls::{self, Reread};
use crate::observe::log::Severity;

/// A `discover` line, with its certificates read.
pub(super) struct Followed {
    line: Discover,
    settings: Option<Arc<Reread<ClientConfig>>>,
}

impl Followed {
    /// # Errors
    /// Certificates that cannot be read.
    pub(super) fn new(line: &Discover) -> Result<Followed, String> {
        let settings = line.tls.as_ref().map(tls::for_server).transpose()?;
        Ok(Followed {
            line: line.clone(),
            settings: settings.map(Arc::new),
        })
    }

    /// Follows the name for ever. `unlisted`: lines of the section whose name has not been answered yet; the last of them
    /// tells the hub that it knows everybody.
    pub(super) async fn follow(self, section: Arc<Section>, unlisted: Rc<Cell<usize>>) {
        let mut peers: BTreeMap<SocketAddr, PeerIx> = BTreeMap::new();
        let (changes, mut news) = channel(CHANGES_WAITING);
        spawn_local(watch(self.line.clone(), changes));
        while let Some(change) = news.recv().await {
            match change {
                Change::Added(address) => match self.target(address) {
                    Ok(target) => {
                        if let Some(before) = peers.insert(address, section.add_peer(target, true))
                        {
                            section.remove_peer(before);
                        }
                    }
                    Err(why) => section.log(
                        Severity::Warning,
                        format_args!("{address} cannot be dialed: {why}"),
                    ),
                },
                Change::Gone(address) => {
                    if let Some(ix) = peers.remove(&address) {
                        section.remove_peer(ix);
                    }
                }
                Change::Listed(_) => {
                    unlisted.set(unlisted.get().saturating_sub(1));
                    if unlisted.get() == 0 {
                        section.with_hub(Hub::discovered);
                    }
                }
                Change::Failing(_) | Change::Answering => {} // has been logged
            }
        }
    }

    fn target(&self, address: SocketAddr) -> Result<Target, String> {
        let tls = self.line.tls.as_ref().zip(self.settings.clone());
        Target::sharing(address.to_string(), PeerAddress::Ip(address), tls)
    }
}

/// Changes that may wait while others are worked on.
const CHANGES_WAITING: usize = 16;
