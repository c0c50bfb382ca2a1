//! What a section says in the log: how serious the events of its hub are, and how it stood when it stopped.

use remora_core::peers::messages::Refusal;
use remora_core::peers::{Ended, Event, PeerReport, ReadyWhy};

use super::section::Section;
use crate::observe::log::Severity;

impl Section {
    /// After a stop: says who does not have what was counted here, and whether anybody does. `is_complete`: everybody who
    /// is connected does.
    pub(super) fn report_stop(&self, is_complete: bool) {
        let report = self.report();
        let counted = report.tables.iter().any(|table| table.newest > 0);
        if self.with_hub(|hub, _| hub.is_suspended()) || !counted || report.peers.is_empty() {
            return; // another process of this node has it all, or nobody is to have anything
        }
        // Who was never met, and may not be there at all, is named only by its absence.
        let behind = |peer: &&PeerReport| peer.lag_entries > 0 && peer.lineage.is_some();
        let lacking: Vec<String> = report
            .peers
            .iter()
            .filter(behind)
            .map(|peer| {
                let name = peer.node.as_deref().unwrap_or(&peer.name);
                format!("{name} (up to {} entries)", peer.lag_entries)
            })
            .collect();
        // Who lives and lacks nothing: who was never met, or has stopped itself, is no help.
        let lives = |peer: &PeerReport| {
            let mut lineages = report.lineages.iter();
            lineages.any(|l| Some(l.lineage) == peer.lineage && l.alive && !l.ended)
        };
        let someone = report.peers.iter().any(|p| lives(p) && p.lag_entries == 0);
        let names = lacking.join(", ");
        if someone && lacking.is_empty() {
            let text = format_args!("stops: every peer that was met has all that was counted here");
            self.log(Severity::Notice, text);
        } else if someone {
            let text = format_args!(
                "stops before {names} had the last of what was counted here; other peers have it and pass it on"
            );
            self.log(Severity::Notice, text);
        } else if !lacking.is_empty() {
            let text = format_args!(
                "stops before {names} had the last of what was counted here, and no other peer has it: it is lost"
            );
            self.log(Severity::Warning, text);
        } else {
            let text = format_args!("stops, and no peer was there to keep what was counted here");
            self.log(Severity::Warning, text);
        }
        if !is_complete {
            let text = format_args!("stops before every peer has confirmed the goodbye");
            self.log(Severity::Notice, text);
        }
    }
}

/// How serious an event is.
pub(super) fn severity(event: &Event) -> Severity {
    match event {
        // In the course of things.
        Event::Down { why, .. } => match why {
            Ended::Refused(Refusal::Myself | Refusal::Stopping, _)
            | Ended::ByPeer
            | Ended::Duplicate
            | Ended::HandedOver
            | Ended::PeerStops
            | Ended::Removed
            | Ended::Renamed
            | Ended::Replaced
            | Ended::Stopping => Severity::Notice,
            _ => Severity::Warning,
        },
        Event::Unreachable { stopped: false, .. }
        | Event::Misnamed { .. }
        | Event::OneWay { .. }
        | Event::Skewed { is_far: true, .. }
        | Event::Misdated { .. }
        | Event::Crowd(_)
        | Event::Ready {
            why: ReadyWhy::TimedOut | ReadyWhy::Forsaken,
            ..
        }
        | Event::Mismatch { .. }
        | Event::Dropped(_) => Severity::Warning,
        _ => Severity::Notice,
    }
}
