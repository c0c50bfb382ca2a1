//! What nodes say, against what happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Plan;
use super::origin::Origin;
use super::site::Site;
use super::tally::{Counts, Sort};
use crate::locate::Kind;
use crate::wait::until_within;

/// Who says a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The server behind the nodes.
    Server,
    /// A table.
    Table,
    /// `show stat`, `show info`.
    Totals,
}

/// A number that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Who says it.
    pub source: Source,
    /// Where.
    pub what: String,
    /// The least and the most that would be right; they differ where requests failed.
    pub right: (u64, u64),
    /// What is there.
    pub found: u64,
}

impl Difference {
    /// How far it is from being right.
    pub fn by(&self) -> u64 {
        let (low, high) = self.right;
        low.saturating_sub(self.found)
            .max(self.found.saturating_sub(high))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.right;
        write!(f, "{} is {}, not {low}", self.what, self.found)?;
        if high > low {
            write!(f, " to {high}")?;
        }
        Ok(())
    }
}

/// Totals of a node before there was load.
pub(super) type Base = BTreeMap<String, u64>;

/// Statistics of a node by name.
pub(super) fn totals(site: &Site) -> Base {
    let mut all = Base::new();
    let stat = site.proxy.ask("show stat");
    let mut lines = stat.lines();
    let head = lines.next().unwrap_or_default().trim_start_matches("# ");
    let columns: Vec<&str> = head.split(',').collect();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let [proxy, service, ..] = fields.as_slice() else {
            continue;
        };
        for (column, value) in columns.iter().zip(&fields) {
            if let Ok(value) = value.parse() {
                all.insert(format!("{proxy}/{service} {column}"), value);
            }
        }
    }
    let info = site.proxy.ask("show info");
    for line in info.lines() {
        if let Some((name, value)) = line.split_once(": ")
            && let Ok(value) = value.parse()
        {
            all.insert(name.to_owned(), value);
        }
    }
    all
}

/// Everything that is wrong, once nodes have had time to agree.
pub(super) fn all(plan: &Plan, sites: &[Site], bases: &[Base], origin: &Origin) -> Vec<Difference> {
    let mut last = Vec::new();
    let patience = match plan.kind {
        Kind::Remora => AGREE,
        // What is missing does not come any more.
        Kind::Haproxy => AGREE_HAPROXY,
    };
    until_within(patience, || {
        last = small(plan, sites, bases, origin);
        last.is_empty().then_some(())
    });
    last.extend(big(plan, sites));
    last
}

/// The sum of something over nodes.
fn sum(sites: &[Site], sort: Sort, of: impl Fn(&Counts) -> &AtomicU64) -> u64 {
    sites
        .iter()
        .map(|site| of(site.tally.of(sort)).load(Relaxed))
        .sum()
}

fn small(plan: &Plan, sites: &[Site], bases: &[Base], origin: &Origin) -> Vec<Difference> {
    let mut wrong = Vec::new();
    let mut check = |source: Source, what: String, low: u64, high: u64, found: u64| {
        if found < low || found > high {
            wrong.push(Difference {
                source,
                what,
                right: (low, high),
                found,
            });
        }
    };
    for sort in Sort::ALL {
        let answers = sum(sites, sort, |counts| &counts.answers);
        let requests = sum(sites, sort, |counts| &counts.requests);
        let connections = sum(sites, sort, |counts| &counts.connections);
        if requests == 0 {
            continue;
        }
        check(
            Source::Server,
            format!("requests {} at the server", sort.key()),
            answers,
            requests,
            origin.requests(sort),
        );
        for site in sites {
            let cli = site.proxy.cli();
            let reqs = cli.entry("reqs", sort.key());
            let conns = cli.entry("conns", &sort.address().to_string());
            let name = site.name();
            let of = |entry: &Option<crate::cli::Entry>, column: &str| {
                let entry = entry.as_ref().and_then(|entry| entry.text(column));
                entry.and_then(|text| text.parse().ok()).unwrap_or(0)
            };
            for column in ["http_req_cnt", "gpc0"] {
                let what = format!("{name} {column} of {}", sort.key());
                check(Source::Table, what, answers, requests, of(&reqs, column));
            }
            let faults = requests - answers;
            let opened = (connections.saturating_sub(faults), connections);
            let what = |column: &str| format!("{name} {column} of {}'s address", sort.key());
            check(
                Source::Table,
                what("conn_cnt"),
                opened.0,
                opened.1,
                of(&conns, "conn_cnt"),
            );
            check(
                Source::Table,
                what("conn_cur"),
                0,
                0,
                of(&conns, "conn_cur"),
            );
            check(
                Source::Table,
                format!("{name} conn_cur of {}", sort.key()),
                0,
                0,
                of(&reqs, "conn_cur"),
            );
            // HAProxy counts other bytes: those of its own form of a message.
            if plan.kind == Kind::Remora && faults == 0 {
                let bytes = origin.bytes(sort);
                let of_reqs = of(&reqs, "bytes_out_cnt");
                let of_conns = of(&conns, "bytes_out_cnt");
                check(
                    Source::Table,
                    format!("{name} bytes_out_cnt of {}", sort.key()),
                    bytes,
                    bytes,
                    of_reqs,
                );
                check(Source::Table, what("bytes_out_cnt"), bytes, bytes, of_conns);
            }
        }
    }
    for (site, base) in sites.iter().zip(bases) {
        let now = totals(site);
        let node = |of: fn(&Counts) -> &AtomicU64| {
            let all = Sort::ALL.into_iter();
            all.map(|sort| of(site.tally.of(sort)).load(Relaxed))
                .sum::<u64>()
        };
        let (answers, requests) = (node(|c| &c.answers), node(|c| &c.requests));
        let whole = node(|c| &c.whole);
        let switched = answers - whole;
        let (sent, received) = (node(|c| &c.sent), node(|c| &c.received));
        let faults = requests - answers;
        let connections = node(|c| &c.connections);
        let mut total = |name: &str, low: u64, high: u64| {
            let before = base.get(name).copied().unwrap_or(0);
            let after = now.get(name).copied().unwrap_or(0);
            // Where totals begin anew, everything before that is missing.
            let found = after.saturating_sub(before);
            check(
                Source::Totals,
                format!("{} {name}", site.name()),
                low,
                high,
                found,
            );
        };
        total("fe/FRONTEND req_tot", answers, requests);
        total(
            "fe/FRONTEND conn_tot",
            connections.saturating_sub(faults),
            connections,
        );
        for whose in ["fe/FRONTEND", "be/BACKEND", "be/s1"] {
            total(&format!("{whose} hrsp_2xx"), whole, whole + faults);
            total(&format!("{whose} hrsp_1xx"), switched, switched + faults);
            for bad in [
                "hrsp_4xx",
                "hrsp_5xx",
                "hrsp_other",
                "ereq",
                "econ",
                "eresp",
                "wretr",
                "wredis",
                "srv_abrt",
            ] {
                total(&format!("{whose} {bad}"), 0, faults);
            }
            if plan.kind == Kind::Remora && faults == 0 {
                total(&format!("{whose} bin"), sent, sent);
                total(&format!("{whose} bout"), received, received);
            }
        }
        total("be/BACKEND stot", answers, requests);
        total("be/s1 stot", answers, requests);
        total("be/s1 lbtot", answers, requests);
        total("CumReq", answers, requests);
        total("CumConns", connections.saturating_sub(faults), connections);
    }
    wrong
}

/// The big table: one event for each entry, and one for each request.
fn big(plan: &Plan, sites: &[Site]) -> Vec<Difference> {
    let mut wrong = Vec::new();
    let over = |of: fn(&Counts) -> &AtomicU64| -> u64 {
        Sort::ALL.into_iter().map(|sort| sum(sites, sort, of)).sum()
    };
    let fill = u64::from(plan.entries);
    let right = (fill + over(|c| &c.answers), fill + over(|c| &c.requests));
    for site in sites {
        let found = site.sum_of_big();
        if found < right.0 || found > right.1 {
            wrong.push(Difference {
                source: Source::Table,
                what: format!("{} http_req_cnt of all of table big", site.name()),
                right,
                found,
            });
        }
        if site.used() != fill {
            wrong.push(Difference {
                source: Source::Table,
                what: format!("{} entries of table big", site.name()),
                right: (fill, fill),
                found: site.used(),
            });
        }
    }
    wrong
}

/// How long nodes may take to tell each other the last of it.
const AGREE: Duration = Duration::from_secs(20);
const AGREE_HAPROXY: Duration = Duration::from_secs(2);
