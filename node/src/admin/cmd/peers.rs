//! `show peers`: what each section knows of its peers, and with `dict` of lineages and tables.

use std::fmt::Write as _;

use remora_core::peers::{PeerReport, PeerState, Report, Traffic};
use remora_core::table::Table;

use super::filter::extra_words;
use super::{Answer, err};
use crate::admin::line::Words;
use crate::admin::session::Context;
use crate::peers::Section;
use crate::shared::Shared;

/// `show peers [dict|-] [<section>]`
pub(in crate::admin) fn show(cx: &mut Context, words: &Words) -> Answer {
    let dict = words.at(2) == b"dict";
    let named = if dict || words.at(2) == b"-" { 3 } else { 2 };
    if words.len() > named + 1 {
        return err(extra_words(words, named + 1));
    }
    let shared = &cx.shared;
    let name = words.at(named);
    if !name.is_empty() && !shared.plan.peers.iter().any(|s| s.name.as_bytes() == name) {
        return err("No such peers");
    }
    let mut out = String::new();
    for plan in &shared.plan.peers {
        if !name.is_empty() && plan.name.as_bytes() != name {
            continue;
        }
        let running = shared.peers.get().into_iter().flatten();
        match running.into_iter().find(|s| s.name() == plan.name) {
            Some(section) => one(shared, section, dict, &mut out),
            None => {
                let _ = writeln!(out, "id={} disabled=1", plan.name);
            }
        }
    }
    Answer::Text(out.into_bytes())
}

/// Writing to a `String` cannot fail, so results of `writeln!` are dropped here and below.
fn one(shared: &Shared, section: &Section, dict: bool, out: &mut String) {
    let report = section.report();
    let counted = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
    let c = &section.counters;
    let _ = writeln!(
        out,
        "id={} disabled=0 cluster={} node={} lineage={} ready={} untaught={} accepted={} crowded={} tls_failed={} strangers={} \
         skipped={} unreported={}",
        section.name(),
        report.cluster,
        report.node,
        report.lineage,
        u8::from(report.ready),
        u8::from(report.untaught),
        counted(&c.accepted),
        counted(&c.crowded),
        counted(&c.tls_failed),
        counted(&c.strangers),
        counted(&c.skipped),
        counted(&c.unreported),
    );
    let teachers: Vec<String> = report
        .teachers
        .iter()
        .map(|(node, rows)| format!("{node}:{rows}"))
        .collect();
    let _ = writeln!(
        out,
        "  learned: tables={} of={} entries={} rows={} teachers={}",
        report.tables.iter().filter(|t| t.taught).count(),
        report.tables.len(),
        report.entries_learned,
        report.rows_learned,
        if teachers.is_empty() {
            "-".to_owned()
        } else {
            teachers.join(",")
        },
    );
    for name in section.discoveries() {
        let _ = writeln!(
            out,
            "  discover={} status={} addresses={} last_error={}",
            name.name,
            if name.failing { "FAILING" } else { "OK" },
            name.addresses,
            error(name.last_error.as_deref()),
        );
    }
    for peer in &report.peers {
        self::peer(peer, out);
    }
    let _ = writeln!(
        out,
        "  id={}(local,{})",
        report.node,
        if report.ready { "active" } else { "inactive" }
    );
    if dict {
        lineages(shared, &report, out);
        tables(shared, &report, out);
    } else {
        out.push_str("  Lineages and tables not shown (use \"show peers dict\")\n");
    }
}

fn peer(peer: &PeerReport, out: &mut String) {
    let up = peer.state == Some(PeerState::Up);
    let _ = write!(
        out,
        "  id={}(remote,{}) addr={} status=",
        peer.name,
        if up { "active" } else { "inactive" },
        peer.address
    );
    let status = match peer.state {
        None => "NOT-DIALED",
        Some(PeerState::Pausing(ms)) => {
            let _ = write!(out, "PAUSE retry={ms}ms");
            ""
        }
        Some(PeerState::Dialing) => "DIALING",
        Some(PeerState::Greeting) => "GREETING",
        Some(PeerState::Up) => "UP",
        Some(PeerState::Myself) => "SELF",
        Some(PeerState::Duplicate) => "DUPLICATE",
    };
    let _ = writeln!(
        out,
        "{status} since={} incoming={} lent={} heard={} discovered={} node={} lineage={}",
        time(Some(peer.since_ms)),
        time(peer.incoming_ms),
        u8::from(peer.lent),
        time(peer.heard_ms),
        u8::from(peer.discovered),
        peer.node.as_deref().unwrap_or("-"),
        peer.lineage
            .map_or_else(|| "-".to_owned(), |l| l.to_string()),
    );
    let _ = writeln!(
        out,
        "        lag_entries={} lag_ms={} dials={} skew_ms={}",
        peer.lag_entries,
        peer.lag_ms,
        peer.dials,
        peer.skew_ms
            .map_or_else(|| "-".to_owned(), |ms| ms.to_string()),
    );
    traffic("sent", &peer.sent, out);
    traffic("received", &peer.received, out);
    let _ = writeln!(
        out,
        "        dropped: rows={} messages={} keys_wanted={} keys_offered={}",
        peer.dropped.rows, peer.dropped.messages, peer.dropped.wants, peer.dropped.offers
    );
    let _ = writeln!(
        out,
        "        last_error={}",
        error(peer.last_error.as_deref())
    );
    for (table, text) in &peer.mismatches {
        let _ = writeln!(out, "        mismatch table={table}: {text}");
    }
}

fn error(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| format!("\"{}\"", quoted(text)))
}

/// Between double quotes only those, backslashes and what cannot be printed need escaping.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

fn traffic(name: &str, t: &Traffic, out: &mut String) {
    let _ = writeln!(
        out,
        "        {name}: messages={} batches={} rows={} bytes={}",
        t.messages, t.batches, t.rows, t.bytes
    );
}

/// `12s`, `350ms`, or `-` for never.
fn time(ms: Option<u64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10_000 => format!("{ms}ms"),
        Some(ms) => format!("{}s", ms / 1000),
    }
}

fn lineages(shared: &Shared, report: &Report, out: &mut String) {
    out.push_str("  lineages:\n");
    for l in &report.lineages {
        let _ = write!(
            out,
            "    lineage={} node={} alive={} ended={} heard={} known_for={}",
            l.lineage,
            if l.node.is_empty() { "-" } else { &l.node },
            u8::from(l.alive),
            u8::from(l.ended),
            time(l.heard_ms),
            time(Some(l.met_ms)),
        );
        for (id, known, highest) in &l.known {
            if let Some(table) = shared.world.table(*id) {
                let _ = write!(out, " {}={known}/{highest}", table.spec().name);
            }
        }
        out.push('\n');
    }
    let c = &report.counters;
    let _ = writeln!(
        out,
        "  totals: sessions_closed={} sessions_refused={} protocol_errors={} bad_batches={} rows_merged={} \
         rows_ignored={} rows_refused={} gaps_asked={} keys_wanted={} keys_wanted_by_peers={} keys_offered={} \
         wants_dropped={} offers_dropped={}",
        c.sessions_closed,
        c.sessions_refused,
        c.protocol_errors,
        c.bad_batches,
        c.rows_merged,
        c.rows_ignored,
        c.rows_refused,
        c.gaps_asked,
        c.keys_wanted,
        c.keys_wanted_by_peers,
        c.keys_offered,
        c.wants_dropped,
        c.offers_dropped,
    );
}

fn tables(shared: &Shared, report: &Report, out: &mut String) {
    out.push_str("  tables:\n");
    for t in &report.tables {
        let table = shared.world.table(t.id);
        let _ = write!(
            out,
            "    table={} shared_as={} newest={} learned={} taught={}",
            table.map_or("-", |t| t.spec().name.as_str()),
            t.name,
            t.newest,
            u8::from(t.learned),
            u8::from(t.taught),
        );
        if let Some(c) = table.and_then(Table::replica).map(|r| r.counters()) {
            let _ = write!(
                out,
                " edicts_issued={} edicts_applied={} edicts_dropped={} tombstones={} stamps_refused={} wants={} \
                 offers={} questions_dropped={} adopted={} rows_kept_back={} releases_dropped={} rows_merged={} rows_ignored={} rows_refused={} cells_forgotten={} \
                 lineages={} lineages_refused={}",
                c.edicts_issued,
                c.edicts_applied,
                c.edicts_dropped,
                c.tombstones,
                c.stamps_refused,
                c.wants,
                c.offers,
                c.questions_dropped,
                c.adopted,
                c.rows_kept_back,
                c.releases_dropped,
                c.rows_merged,
                c.rows_ignored,
                c.rows_refused,
                c.cells_forgotten,
                c.lineages,
                c.lineages_refused,
            );
        }
        out.push('\n');
    }
}
