//! Metrics of `peers` sections, from what a section's hub reports.

use std::sync::atomic::Ordering::Relaxed;

use remora_core::peers::{PeerReport, PeerState, Report, Traffic};

use super::family::{Each, Family, families};
use super::text::{Labels, Value};
use crate::peers::{Discovery, Section};
use crate::shared::Shared;

/// What a section says now.
pub(super) struct Now {
    name: String,
    report: Report,
    discoveries: Vec<Discovery>,
    accepted: u64,
    crowded: u64,
    tls_failed: u64,
    strangers: u64,
    skipped: u64,
    unreported: u64,
}

impl Now {
    fn of(section: &Section) -> Now {
        let n = &section.counters;
        Now {
            name: section.name().to_owned(),
            report: section.report(),
            discoveries: section.discoveries(),
            accepted: n.accepted.load(Relaxed),
            crowded: n.crowded.load(Relaxed),
            tls_failed: n.tls_failed.load(Relaxed),
            strangers: n.strangers.load(Relaxed),
            skipped: n.skipped.load(Relaxed),
            unreported: n.unreported.load(Relaxed),
        }
    }

    fn up(&self) -> usize {
        let peers = self.report.peers.iter();
        peers.filter(|p| p.state == Some(PeerState::Up)).count()
    }

    /// Over sessions that have ended and those that are open.
    fn all(
        &self,
        of: (Traffic, fn(&PeerReport) -> Traffic),
        what: fn(Traffic) -> u64,
    ) -> Option<Value> {
        let (ended, open) = of;
        let open: u64 = self.report.peers.iter().map(|p| what(open(p))).sum();
        Some((what(ended) + open).into())
    }
    fn sent(&self) -> (Traffic, fn(&PeerReport) -> Traffic) {
        (self.report.counters.sent, |p| p.sent)
    }
    fn received(&self) -> (Traffic, fn(&PeerReport) -> Traffic) {
        (self.report.counters.received, |p| p.received)
    }
}

/// All sections that run.
pub(super) fn now(shared: &Shared) -> Vec<Now> {
    let sections = shared.peers.get().map_or(&[][..], Vec::as_slice);
    sections.iter().map(|s| Now::of(s)).collect()
}

/// Peers with a session in either direction, and in the direction of this node's counts: the process's own numbers.
pub(super) fn connected(shared: &Shared) -> (usize, usize) {
    let all = now(shared);
    let any = |p: &&PeerReport| p.state == Some(PeerState::Up) || p.incoming_ms.is_some();
    let either = all.iter().flat_map(|n| &n.report.peers).filter(any).count();
    (either, all.iter().map(Now::up).sum())
}

pub(super) fn sections(all: &[Now]) -> Vec<(Labels, &Now)> {
    all.iter()
        .map(|now| (Labels::new(&[("peers", &now.name)]), now))
        .collect()
}

/// Names that are followed.
pub(super) fn names(sections: &[Now]) -> Vec<(Labels, &Discovery)> {
    let mut all = Vec::new();
    for now in sections {
        for known in &now.discoveries {
            let labels = Labels::new(&[("peers", &now.name), ("name", &known.name)]);
            all.push((labels, known));
        }
    }
    all
}

/// Peers that are dialed. Others are only counted: their names are chosen elsewhere, and labels must stay few.
pub(super) fn peers(sections: &[Now]) -> Vec<(Labels, &PeerReport)> {
    let mut all = Vec::new();
    for now in sections {
        for peer in now.report.peers.iter().filter(|p| p.peer.is_some()) {
            all.push((
                Labels::new(&[("peers", &now.name), ("peer", &peer.name)]),
                peer,
            ));
        }
    }
    all
}

fn seconds(ms: u64) -> Value {
    Value::Float(ms as f64 / 1000.0)
}

type SectionFamily = Family<fn(&&Now) -> Option<Value>, fn(&&Now, Each<'_>)>;

#[rustfmt::skip]
pub(super) static SECTION: &[SectionFamily] = families! {
    gauge "ready" "1 if its tables have been learned from a peer, or nobody was there to learn from." (|r| Some(r.report.ready.into()));
    gauge "untaught" "1 if this process accepts traffic because `learn-timeout` was over, or its teacher gone, before all its tables were learned: its limits did not know everything." (|r| Some(r.report.untaught.into()));
    gauge "tables" "Tables that are shared." (|r| Some(r.report.tables.len().into()));
    gauge "tables_learned" "Tables that peers have taught this process since it started." (|r| Some(r.report.tables.iter().filter(|t| t.taught).count().into()));
    gauge "entries_learned" "Entries that these tables had when they were learned." (|r| Some(r.report.entries_learned.into()));
    gauge "rows_learned" "Rows that its teachers have shown this process, also of tables that are not learned yet: as long as it grows, learning goes on." (|r| Some(r.report.rows_learned.into()));
    gauge "teachers" "Peers that teach this process now." (|r| Some(r.report.teachers.len().into()));
    gauge "configured" "Peers that are dialed: configured or discovered." (|r| Some(r.report.peers.iter().filter(|p| p.peer.is_some()).count().into()));
    gauge "up" "Peers that the session of this node is up to." (|r| Some(r.up().into()));
    gauge "undialed" "Nodes that have a session to this one and are not among those it dials." (|r| Some(r.report.peers.iter().filter(|p| p.peer.is_none()).count().into()));
    gauge "lineages" "Lives of other nodes that are known, ended ones included." (|r| Some(r.report.lineages.len().into()));
    gauge "lineage_places_held" "Of 1,024 places for lives of nodes, those that are taken: by nodes that are alive, and by any others whose counts are part of a sum. Past that, new ones are refused." (|r| Some(r.report.places_held.into()));
    counter "accepted_total" "Connections that were accepted." (|r| Some(r.accepted.into()));
    counter "crowded_total" "Connections closed at once because there were too many." (|r| Some(r.crowded.into()));
    counter "tls_failed_total" "Accepted connections that failed in the TLS handshake." (|r| Some(r.tls_failed.into()));
    counter "strangers_total" "Accepted connections that did not speak the protocol." (|r| Some(r.strangers.into()));
    counter "strangers_unreported_total" "Of connections that were too many, failed in the TLS handshake or did not speak the protocol, those that no log line tells of: of each address a few are told, then every power of two." (|r| Some(r.unreported.into()));
    counter "skipped_messages_total" "Messages of kinds that this version does not know." (|r| Some(r.skipped.into()));
    counter "sessions_closed_total" "Sessions that this node ended." (|r| Some(r.report.counters.sessions_closed.into()));
    counter "sessions_refused_total" "Sessions of peers that were refused." (|r| Some(r.report.counters.sessions_refused.into()));
    counter "protocol_errors_total" "Messages that made no sense." (|r| Some(r.report.counters.protocol_errors.into()));
    counter "bad_batches_total" "Batches that made no sense; nothing of them was taken." (|r| Some(r.report.counters.bad_batches.into()));
    counter "rows_merged_total" "Rows received that changed something." (|r| Some(r.report.counters.rows_merged.into()));
    counter "rows_ignored_total" "Rows received that were known." (|r| Some(r.report.counters.rows_ignored.into()));
    counter "rows_refused_total" "Rows received for which the table had no room." (|r| Some(r.report.counters.rows_refused.into()));
    counter "resyncs_total" "Walks asked for because a peer had more of a third node." (|r| Some(r.report.counters.gaps_asked.into()));
    counter "keys_wanted_total" "Keys this node asked its peers about." (|r| Some(r.report.counters.keys_wanted.into()));
    counter "keys_offered_total" "Keys offered to peers that seemed to have lost counts." (|r| Some(r.report.counters.keys_offered.into()));
    counter "keys_dropped_total" "Keys that could be neither asked about nor offered for lack of room." (|r| Some((r.report.counters.wants_dropped + r.report.counters.offers_dropped).into()));
    counter "sent_rows_total" "Rows sent." (|r| r.all(r.sent(), |t| t.rows));
    counter "sent_bytes_total" "Bytes of batches sent, before framing and encryption." (|r| r.all(r.sent(), |t| t.bytes));
    counter "received_rows_total" "Rows received." (|r| r.all(r.received(), |t| t.rows));
    counter "received_bytes_total" "Bytes of batches received, before framing and encryption." (|r| r.all(r.received(), |t| t.bytes));
};

type PeerFamily = Family<fn(&&PeerReport) -> Option<Value>, fn(&&PeerReport, Each<'_>)>;

#[rustfmt::skip]
pub(super) static PEER: &[PeerFamily] = families! {
    gauge "up" "1 while the session to it is up." (|p| Some((p.state == Some(PeerState::Up)).into()));
    gauge "incoming_up" "1 while its session to this node is up." (|p| Some(p.incoming_ms.is_some().into()));
    gauge "lent" "1 while the session to it is on a connection that it opened, since it is not reached otherwise." (|p| Some(p.lent.into()));
    gauge "lag_entries" "Entries it has not acknowledged yet, about; of one that was never met, all that were counted here." (|p| Some(p.lag_entries.into()));
    gauge "lag_seconds" "How far it is behind: for how long it has lacked the oldest change that it has not acknowledged, with a session or without." (|p| Some(seconds(p.lag_ms)));
    gauge "heard_seconds" "Seconds since anything was heard of it; never: no sample." (|p| p.heard_ms.map(seconds));
    gauge "mismatches" "Differences between its tables and this node's." (|p| Some(p.mismatches.len().into()));
    gauge "clock_skew_seconds" "How far its wall clock is ahead; unknown: no sample." (|p| p.skew_ms.map(|ms| Value::Float(ms as f64 / 1000.0)));
    counter "dropped_rows_total" "Rows of it for which the table, or the bound of lineages, had no room." (|p| Some(p.dropped.rows.into()));
    counter "dropped_messages_total" "Messages of it of kinds that only a later version knows." (|p| Some(p.dropped.messages.into()));
    counter "dropped_keys_total" "Keys that it could be neither asked about nor offered for lack of room." (|p| Some((p.dropped.wants + p.dropped.offers).into()));
    counter "dials_total" "Attempts to connect to it." (|p| Some(p.dials.into()));
};

type NameFamily = Family<fn(&&Discovery) -> Option<Value>, fn(&&Discovery, Each<'_>)>;

#[rustfmt::skip]
pub(super) static NAME: &[NameFamily] = families! {
    gauge "addresses" "Addresses that the name has." (|d| Some(d.addresses.into()));
    gauge "failing" "1 while it cannot be looked up, or is said to have no address: who is known stays." (|d| Some(d.failing.into()));
};

type CertificateFamily = Family<fn(&i64) -> Option<Value>, fn(&i64, Each<'_>)>;

#[rustfmt::skip]
pub(super) static CERTIFICATE: &[CertificateFamily] = families! {
    gauge "expiry_seconds" "When the first certificate of a `crt` file, or the last authority of a `ca-file`, runs out: seconds since 1970." (|at| Some((*at).into()));
};
