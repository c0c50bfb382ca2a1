//! Large tables: how long teaching them takes, and how much memory they need.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::cluster::Cluster;
use cluster_tests::locate::Kind;
use cluster_tests::wait::pace;

use super::load;
use crate::contest::{Machine, Side};
use crate::measures::{anonymous_bytes, cpu_time, per};

/// Requests a second to the teacher.
const TRAFFIC: u32 = 2000;

/// A new node is taught everything while the teacher works.
pub(crate) fn teach(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let entries = machine.entries;
    let mut cluster = load::spec(machine, side, 2, entries + entries / 8)
        .relayed()
        .prepare();
    cluster.node_mut(0).start();
    load::fill(&cluster.node(0).entrance(), 0..entries)?;
    let stop = AtomicBool::new(false);
    let entrance = cluster.node(0).entrance();
    std::thread::scope(|scope| {
        let stop = &stop;
        let traffic = scope.spawn(move || {
            let mut number = 0;
            let next = || {
                number = (number + 7919) % entries;
                number
            };
            load::paced(&entrance, TRAFFIC, next, stop)
        });
        let taught = taught(&mut cluster, entries);
        stop.store(true, Ordering::Relaxed);
        traffic
            .join()
            .map_err(|_| anyhow::anyhow!("the traffic panicked"))??;
        taught
    })
}

fn taught(cluster: &mut Cluster, entries: u32) -> Result<Vec<f64>> {
    // What the traffic itself costs the teacher, per second.
    let idle = cpu_time(cluster.node(0).proxy())?;
    let since = Instant::now();
    pace(Duration::from_secs(2));
    let rate =
        (cpu_time(cluster.node(0).proxy())? - idle).as_secs_f64() / since.elapsed().as_secs_f64();

    let before = cpu_time(cluster.node(0).proxy())?;
    let start = Instant::now();
    cluster.node_mut(1).spawn();
    let learner = cluster.node(1).proxy();
    load::wait("the learner's CLI", || {
        learner.cli().try_open().ok().map(drop)
    })?;
    load::wait("everything", || {
        (load::used(cluster.node(1)) >= u64::from(entries)).then_some(())
    })?;
    let took = start.elapsed();
    let own =
        (cpu_time(cluster.node(0).proxy())? - before).as_secs_f64() - rate * took.as_secs_f64();
    let learning = cpu_time(learner)?;
    let bytes: u64 = cluster
        .relays()
        .map(|relay| relay.bytes().iter().sum::<u64>())
        .sum();
    Ok(vec![
        took.as_secs_f64(),
        own.max(0.0) * 1e6 / f64::from(entries),
        per(learning, u64::from(entries)),
        bytes as f64 / f64::from(entries),
    ])
}

/// Memory per entry of a node that counts nothing itself, by how many others have counted each entry.
pub(crate) fn memory(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let entries = machine.entries;
    let mut values = vec![];
    let (own, learned) = learned(machine, side, 1, entries)?;
    values.extend([own, learned]);
    if side.kind == Kind::Remora {
        // To HAProxy it is all the same: the last writer's values.
        values.push(self::learned(machine, side, 2, entries / 2)?.1);
        values.push(self::learned(machine, side, 7, entries / 10)?.1);
    }
    Ok(values)
}

/// Memory per entry of the first of `counting` nodes that count the same `entries`, and of one more that only learns.
fn learned(machine: &Machine, side: &Side, counting: usize, entries: u32) -> Result<(f64, f64)> {
    let cluster = load::spec(machine, side, counting + 1, entries + entries / 8).start();
    load::linked(&cluster)?;
    let learner = cluster.node(counting);
    for node in 0..counting {
        load::fill(&cluster.node(node).entrance(), 0..1000)?;
    }
    load::wait("the first entries", || {
        (load::used(learner) >= 1000).then_some(())
    })?;
    let before = [
        anonymous_bytes(cluster.node(0).proxy())?,
        anonymous_bytes(learner.proxy())?,
    ];
    for node in 0..counting {
        load::fill(&cluster.node(node).entrance(), 1000..entries)?;
    }
    let expected = if side.kind == Kind::Remora {
        counting as i64
    } else {
        1
    };
    load::wait("all entries", || {
        (load::used(learner) >= u64::from(entries)).then_some(())
    })?;
    load::wait("all counts", || {
        (1000..entries)
            .step_by(entries as usize / 50)
            .chain([entries - 1])
            .all(|number| learner.value(&load::key(number), "gpc0") >= expected)
            .then_some(())
    })?;
    let after = [
        anonymous_bytes(cluster.node(0).proxy())?,
        anonymous_bytes(learner.proxy())?,
    ];
    ensure!(entries > 1000, "too few entries");
    let each =
        |node: usize| after[node].saturating_sub(before[node]) as f64 / f64::from(entries - 1000);
    Ok((each(0), each(1)))
}
