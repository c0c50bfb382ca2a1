//! What an entry that is sent or learned costs, and what peers cost a request.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::hits::Entrance;
use cluster_tests::relay::Relay;

use super::load;
use crate::contest::{Machine, Side};
use crate::load::wrk;
use crate::measures::{cpu_time, per};

/// Entries that change while the link is down, and are sent in one go when it is up again.
const ENTRIES: u32 = 200_000;

/// The cost of an entry when there is nothing else to do: no requests to either node, and batches as full as they get.
pub(crate) fn push(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let cluster = load::spec(machine, side, 2, ENTRIES + 1000)
        .relayed()
        .start();
    load::linked(&cluster)?;
    cluster.relays().for_each(Relay::cut);
    let first = 10;
    load::fill(&cluster.node(0).entrance(), first..first + ENTRIES)?;
    let (from, to) = (cluster.node(0).proxy(), cluster.node(1).proxy());
    let before = (cpu_time(from)?, cpu_time(to)?, passed(&cluster));
    cluster.relays().for_each(Relay::heal);
    // Asking would be work of its own while nothing happens yet.
    load::wait("the link", || {
        (passed(&cluster) > before.2 + 100_000).then_some(())
    })?;
    load::wait("the entries", || {
        (load::used(cluster.node(1)) >= u64::from(ENTRIES)).then_some(())
    })?;
    let count = u64::from(ENTRIES);
    Ok(vec![
        per(cpu_time(from)? - before.0, count),
        per(cpu_time(to)? - before.1, count),
        (passed(&cluster) - before.2) as f64 / f64::from(ENTRIES),
    ])
}

/// Bytes over all links so far.
fn passed(cluster: &Cluster) -> u64 {
    cluster
        .relays()
        .map(|relay| relay.bytes().iter().sum::<u64>())
        .sum()
}

/// The cost at a steady 20,000 changes a second of as many keys as can be.
pub(crate) fn paced(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    const RATE: u32 = 20_000;
    let keys = 100_000;
    let run = |cluster: &Cluster| -> Result<(f64, f64, u64)> {
        let entrance = cluster.node(0).entrance();
        load::fill(&entrance, 0..keys)?;
        let learner = (cluster.len() > 1).then(|| cluster.node(1).proxy());
        if learner.is_some() {
            load::wait("the entries", || {
                (load::used(cluster.node(1)) >= u64::from(keys)).then_some(())
            })?;
        }
        let spent = |cluster: &Cluster| -> Result<_> {
            Ok((
                cpu_time(cluster.node(0).proxy())?,
                learner.map(cpu_time).transpose()?.unwrap_or_default(),
            ))
        };
        let before = spent(cluster)?;
        let mut number = 0;
        let next = || {
            number = (number + 1) % keys;
            number
        };
        let count = load::for_seconds(machine.seconds, |stop| {
            load::paced(&entrance, RATE, next, stop)
        })?;
        let after = spent(cluster)?;
        Ok((
            per(after.0 - before.0, count),
            per(after.1 - before.1, count),
            count,
        ))
    };
    let alone = run(&load::spec(machine, side, 1, keys + 1000).unshared().start())?;
    let shared = load::spec(machine, side, 2, keys + 1000).start();
    load::linked(&shared)?;
    let both = run(&shared)?;
    drop(shared);
    let relayed = load::spec(machine, side, 2, keys + 1000).relayed().start();
    load::linked(&relayed)?;
    load::fill(&relayed.node(0).entrance(), 0..keys)?;
    load::wait("the entries", || {
        (load::used(relayed.node(1)) >= u64::from(keys)).then_some(())
    })?;
    let before = passed(&relayed);
    let (_, _, count) = run(&relayed)?;
    // The run refreshes every key once before it counts.
    let bytes = (passed(&relayed) - before) as f64 / (count as f64 + f64::from(keys));
    Ok(vec![both.1, both.0 - alone.0, bytes])
}

/// What 1 and 7 peers add to a request when one key takes them all. The peers run beside the load, not beside the node.
pub(crate) fn hot(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let (mut full, mut paced) = (Vec::new(), Vec::new());
    for nodes in [1, 2, 8] {
        let mut spec = load::spec(machine, side, nodes, 1000);
        for other in 1..nodes {
            spec = spec.wrapper_on(other, &[]);
        }
        let cluster = if nodes == 1 {
            spec.unshared().start()
        } else {
            let cluster = spec.start();
            load::linked(&cluster)?;
            cluster
        };
        full.push(loaded(machine, &cluster)?);
        let proxy = cluster.node(0).proxy();
        let before = cpu_time(proxy)?;
        let entrance = cluster.node(0).entrance();
        let count = load::for_seconds(machine.seconds, |stop| {
            load::paced(&entrance, 5000, || 99, stop)
        })?;
        paced.push(per(cpu_time(proxy)? - before, count));
    }
    Ok(vec![
        full[0],
        full[1] - full[0],
        full[2] - full[0],
        paced[1] - paced[0],
        paced[2] - paced[0],
    ])
}

/// CPU per request of node 0 under all the load wrk can make.
fn loaded(machine: &Machine, cluster: &Cluster) -> Result<f64> {
    let Entrance::Tcp(port) = cluster.node(0).entrance() else {
        bail!("not a port");
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let path = format!("/?k={}", load::key(99));
    let proxy = cluster.node(0).proxy();
    let before = cpu_time(proxy)?;
    let count = wrk(addr, &path, 64, machine.seconds, &[])?;
    Ok(per(cpu_time(proxy)? - before, count))
}

/// What a tracked request costs when nothing is shared, in three ways.
pub(crate) fn none(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let ways: [fn(Spec) -> Spec; 3] = [Spec::unshared, Spec::unnamed, |spec| spec];
    let mut values = Vec::new();
    for way in ways {
        // Of two nodes only one is started.
        let mut cluster = way(load::spec(machine, side, 2, 1000)).prepare();
        cluster.node_mut(0).start();
        values.push(loaded(machine, &cluster)?);
    }
    Ok(values)
}
