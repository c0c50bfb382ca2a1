//! Whether the sums are right, and how soon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::Client;
use cluster_tests::cluster::Cluster;
use cluster_tests::wait::{pace, poll};

use super::load;
use crate::contest::{Machine, Side};

/// Requests a second to each node.
const RATE: u32 = 2000;
/// More questions would keep the node busy with being asked.
const ASKED_EVERY: Duration = Duration::from_micros(100);

/// The share of counts that is missing at the end, when 2, 3 and 4 nodes count one key at once; without and with delay.
pub(crate) fn lost(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let mut values = Vec::new();
    for delay in [0, 5] {
        for nodes in 2..=4 {
            let spec = load::spec(machine, side, nodes, 1000);
            let cluster = if delay == 0 {
                spec.start()
            } else {
                let cluster = spec.relayed().start();
                for relay in cluster.relays() {
                    relay.delay(Duration::from_millis(delay));
                }
                cluster
            };
            load::linked(&cluster)?;
            values.push(lost_by(&cluster, machine.seconds)?);
        }
    }
    Ok(values)
}

fn lost_by(cluster: &Cluster, seconds: u64) -> Result<f64> {
    const KEY: u32 = 1000;
    let sent = load::for_seconds(seconds, |stop| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..cluster.len())
                .map(|node| {
                    let entrance = cluster.node(node).entrance();
                    scope.spawn(move || load::paced(&entrance, RATE, || KEY, stop))
                })
                .collect();
            let mut sent = 0;
            for client in clients {
                sent += client
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            Ok(sent)
        })
    })?;
    // Over when nothing has changed for a second.
    let key = load::key(KEY);
    let values = || -> Vec<i64> {
        (0..cluster.len())
            .map(|node| cluster.node(node).value(&key, "http_req_cnt"))
            .collect()
    };
    let mut last = values();
    let mut since = Instant::now();
    load::wait("the counts to settle", || {
        let now = values();
        if now != last {
            last = now;
            since = Instant::now();
        }
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    })?;
    let best = last.into_iter().max().unwrap_or(0);
    Ok(100.0 * (sent as f64 - best as f64) / sent as f64)
}

/// The time from a request on one node to its count in another node's answers.
pub(crate) fn latency(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let cluster = load::spec(machine, side, 2, 100_000)
        .append(
            "frontend look\n  bind 127.0.0.1:{{port:look}}\n  http-request return status 200 hdr x-n %[url_param(k),table_http_req_cnt(t)]\n",
        )
        .start();
    load::linked(&cluster)?;
    let mut values = percentiles(sample(&cluster, machine.seconds)?)?;
    let stop = AtomicBool::new(false);
    let busy = std::thread::scope(|scope| {
        let entrance = cluster.node(0).entrance();
        let stop = &stop;
        let load = scope.spawn(move || {
            let mut number = 0;
            let next = || {
                number = (number + 1) % 50_000;
                number + 10
            };
            load::paced(&entrance, 5000, next, stop)
        });
        let sampled = sample(&cluster, machine.seconds);
        stop.store(true, Ordering::Relaxed);
        load.join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))??;
        sampled
    })?;
    values.extend(percentiles(busy)?);
    Ok(values)
}

fn sample(cluster: &Cluster, seconds: u64) -> Result<Vec<Duration>> {
    let entrance = cluster.node(0).entrance();
    let mut hits = cluster_tests::hits::Hits::open(&entrance)?;
    let mut look = Client::connect(cluster.node(1).proxy().addr("look"));
    let key = load::key(99_999);
    let mut seen = || -> u64 {
        let answer = look.get(&format!("/?k={key}")).response();
        let text = answer
            .ok()
            .and_then(|answer| answer.header("x-n").map(str::to_owned));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let mut count = seen();
    let mut taken = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let start = Instant::now();
        hits.send(&key, 1)?;
        count += 1;
        let arrived = poll(ASKED_EVERY, Duration::from_secs(10), || {
            (seen() >= count).then_some(())
        });
        ensure!(arrived.is_some(), "never seen");
        taken.push(start.elapsed());
        // At rest again, and not in step with any timer.
        pace(Duration::from_micros(
            23_000 + (taken.len() as u64 * 7919) % 20_000,
        ));
    }
    Ok(taken)
}

fn percentiles(mut times: Vec<Duration>) -> Result<Vec<f64>> {
    ensure!(times.len() > 10, "hardly anything was seen");
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    Ok(vec![at(50), at(99)])
}
