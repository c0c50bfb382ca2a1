//! Requests at a pace, and tables filled through them: a `set table` would be an assignment, which nodes treat otherwise
//! than a count.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::cluster::{Cluster, Node, Spec};
use cluster_tests::hits::{Entrance, Hits};
use cluster_tests::wait::{pace, until_within};

use crate::contest::{Machine, Side};

/// The table of the costs: an IPv4 key, two rates, two counters.
pub(crate) fn table(size: u32) -> String {
    format!(
        "type ip size {size} expire 1h store http_req_cnt,http_req_rate(10s),conn_rate(10s),gpc0"
    )
}

/// A cluster with that table.
pub(crate) fn spec(machine: &Machine, side: &Side, nodes: usize, size: u32) -> Spec {
    machine.cluster(side, nodes).table(&table(size))
}

/// The key of a number.
pub(crate) fn key(number: u32) -> String {
    Ipv4Addr::from(0x0a00_0000 + number).to_string()
}

/// Counts one request for each key of a range.
pub(crate) fn fill(entrance: &Entrance, keys: std::ops::Range<u32>) -> Result<()> {
    let mut hits = Hits::open(entrance)?;
    let mut batch = Vec::with_capacity(1024);
    for start in keys.clone().step_by(1024) {
        batch.clear();
        batch.extend((start..keys.end.min(start + 1024)).map(key));
        hits.send_each(batch.iter().map(String::as_str))?;
    }
    Ok(())
}

/// Sends `rate` requests a second, a piece each millisecond, with the keys that `next` yields, until `stop`. Returns how many
/// there were.
pub(crate) fn paced(
    entrance: &Entrance,
    rate: u32,
    mut next: impl FnMut() -> u32,
    stop: &AtomicBool,
) -> Result<u64> {
    let mut hits = Hits::open(entrance)?;
    let start = Instant::now();
    let mut sent = 0;
    let mut batch = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        let now = due.saturating_sub(sent).min(1000);
        batch.clear();
        batch.extend((0..now).map(|_| key(next())));
        sent += hits.send_each(batch.iter().map(String::as_str))?;
        pace(Duration::from_millis(1));
    }
    // One that cannot keep the pace would be measured at another.
    let due = start.elapsed().as_secs_f64() * f64::from(rate);
    ensure!(
        sent as f64 > 0.8 * due,
        "{sent} requests instead of {due:.0}"
    );
    Ok(sent)
}

/// Lets `work` run for `seconds` in this thread's stead.
pub(crate) fn for_seconds<T: Send>(
    seconds: u64,
    work: impl FnOnce(&AtomicBool) -> Result<T> + Send,
) -> Result<T> {
    crate::load::for_seconds(seconds, work)?
}

/// Waits until every node sees what every other counts.
pub(crate) fn linked(cluster: &Cluster) -> Result<()> {
    for node in 0..cluster.len() {
        fill(&cluster.node(node).entrance(), node as u32..node as u32 + 1)?;
    }
    wait("the nodes to hear each other", || {
        (0..cluster.len())
            .all(|node| used(cluster.node(node)) >= cluster.len() as u64)
            .then_some(())
    })
}

/// How many entries table `t` has. Cheap: the table itself is not read.
pub(crate) fn used(node: &Node) -> u64 {
    let said = node.ask("show table");
    said.lines()
        .find(|line| line.contains("table: t,"))
        .and_then(|line| line.rsplit("used:").next())
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// Polls rarely: what is polled is measured.
pub(crate) fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let mut next = Instant::now();
    until_within(Duration::from_secs(120), || {
        if Instant::now() < next {
            return None;
        }
        next = Instant::now() + Duration::from_millis(20);
        probe()
    })
    .with_context(|| format!("waited in vain for {what}"))
}
