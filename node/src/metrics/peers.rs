//! Metrics of `peers` sections, from what a section's hub reports.

use remora_core::peers::{PeerReport, PeerState, Report, Traffic};

use super::family::{Each, Family, families};
use super::text::{Labels, Value};

/// What a section says now: its name and its report.
pub type Section = (String, Report);

pub(super) fn sections(reports: &[Section]) -> Vec<(Labels, &Report)> {
    reports
        .iter()
        .map(|(name, report)| (Labels::new(&[("peers", name)]), report))
        .collect()
}

/// Peers that are dialed. Others are only counted: their names are chosen elsewhere, and labels must stay few.
pub(super) fn peers(reports: &[Section]) -> Vec<(Labels, &PeerReport)> {
    let mut all = Vec::new();
    for (name, report) in reports {
        for peer in report.peers.iter().filter(|p| p.peer.is_some()) {
            all.push((Labels::new(&[("peers", name), ("peer", &peer.name)]), peer));
        }
    }
    all
}

fn seconds(ms: u64) -> Value {
    Value::Float(ms as f64 / 1000.0)
}

/// Over sessions that have ended and those that are open.
fn all(
    ended: Traffic,
    report: &Report,
    of: fn(&PeerReport) -> Traffic,
    what: fn(Traffic) -> u64,
) -> Option<Value> {
    let open: u64 = report.peers.iter().map(|p| what(of(p))).sum();
    Some((what(ended) + open).into())
}

type SectionFamily = Family<fn(&&Report) -> Option<Value>, fn(&&Report, Each<'_>)>;

#[rustfmt::skip]
pub(super) static SECTION: &[SectionFamily] = families! {
    gauge "ready" "1 if its tables have been learned from a peer, or nobody was there to learn from." (|r| Some(r.ready.into()));
    gauge "configured" "Peers that are dialed: configured or discovered." (|r| Some(r.peers.iter().filter(|p| p.peer.is_some()).count().into()));
    gauge "up" "Peers that the session of this node is up to." (|r| Some(r.peers.iter().filter(|p| p.state == Some(PeerState::Up)).count().into()));
    gauge "undialed" "Nodes that have a session to this one and are not among those it dials." (|r| Some(r.peers.iter().filter(|p| p.peer.is_none()).count().into()));
    gauge "lineages" "Lives of nodes whose counts are known, this one's included." (|r| Some(r.lineages.len().into()));
    counter "sessions_closed_total" "Sessions that this node ended." (|r| Some(r.counters.sessions_closed.into()));
    counter "sessions_refused_total" "Sessions of peers that were refused." (|r| Some(r.counters.sessions_refused.into()));
    counter "protocol_errors_total" "Messages that made no sense." (|r| Some(r.counters.protocol_errors.into()));
    counter "bad_batches_total" "Batches that made no sense; nothing of them was taken." (|r| Some(r.counters.bad_batches.into()));
    counter "rows_merged_total" "Rows received that changed something." (|r| Some(r.counters.rows_merged.into()));
    counter "rows_ignored_total" "Rows received that were known." (|r| Some(r.counters.rows_ignored.into()));
    counter "rows_refused_total" "Rows received for which the table had no room." (|r| Some(r.counters.rows_refused.into()));
    counter "resyncs_total" "Walks asked for because a peer had more of a third node." (|r| Some(r.counters.gaps_asked.into()));
    counter "keys_wanted_total" "Keys this node asked its peers about." (|r| Some(r.counters.keys_wanted.into()));
    counter "keys_offered_total" "Keys offered to peers that seemed to have lost counts." (|r| Some(r.counters.keys_offered.into()));
    counter "keys_dropped_total" "Keys that could be neither asked about nor offered for lack of room." (|r| Some((r.counters.wants_dropped + r.counters.offers_dropped).into()));
    counter "sent_rows_total" "Rows sent." (|r| all(r.counters.sent, r, |p| p.sent, |t| t.rows));
    counter "sent_bytes_total" "Bytes of batches sent, before framing and encryption." (|r| all(r.counters.sent, r, |p| p.sent, |t| t.bytes));
    counter "received_rows_total" "Rows received." (|r| all(r.counters.received, r, |p| p.received, |t| t.rows));
    counter "received_bytes_total" "Bytes of batches received, before framing and encryption." (|r| all(r.counters.received, r, |p| p.received, |t| t.bytes));
};

type PeerFamily = Family<fn(&&PeerReport) -> Option<Value>, fn(&&PeerReport, Each<'_>)>;

#[rustfmt::skip]
pub(super) static PEER: &[PeerFamily] = families! {
    gauge "up" "1 while the session to it is up." (|p| Some((p.state == Some(PeerState::Up)).into()));
    gauge "incoming_up" "1 while its session to this node is up." (|p| Some(p.incoming_ms.is_some().into()));
    gauge "lag_entries" "Entries it has not acknowledged yet, about." (|p| Some(p.lag_entries.into()));
    gauge "lag_seconds" "For how long the oldest batch has not been acknowledged." (|p| Some(seconds(p.lag_ms)));
    gauge "heard_seconds" "Seconds since anything was heard of it; never: no sample." (|p| p.heard_ms.map(seconds));
    gauge "mismatches" "Differences between its tables and this node's." (|p| Some(p.mismatches.len().into()));
    gauge "clock_skew_seconds" "How far its wall clock is ahead; unknown: no sample." (|p| p.skew_ms.map(|ms| Value::Float(ms as f64 / 1000.0)));
    counter "dials_total" "Attempts to connect to it." (|p| Some(p.dials.into()));
};
