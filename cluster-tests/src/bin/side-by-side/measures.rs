//! What is measured, and how.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::{Client, Proxy};

use crate::contest::{Machine, Side};
use crate::load;

/// A line of the report.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) aim: Option<Aim>,
}

/// What is hoped for.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    /// At most this part of what HAProxy needs.
    Ratio(f64),
    /// At most this.
    Value(f64),
}

/// Something that is measured; yields one value for each of its rows.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) rows: &'static [Row],
    /// Repeating what does not vary is a waste of time.
    pub(crate) rounds_max: usize,
    pub(crate) run: fn(&Machine, &Side) -> Result<Vec<f64>>,
}

const fn cpu(name: &'static str, aim: Option<Aim>) -> Row {
    Row {
        name,
        unit: "us",
        aim,
    }
}

/// All measures in the order of the report.
pub(crate) const ALL: &[Measure] = &[
    Measure {
        name: "small",
        rows: &[cpu("CPU, small keep-alive request", Some(Aim::Ratio(0.80)))],
        rounds_max: usize::MAX,
        run: |machine, side| requests(machine, side, "/small", 64, &[]),
    },
    Measure {
        name: "chunked",
        rows: &[cpu("CPU, chunked answer of 1000 bytes", None)],
        rounds_max: usize::MAX,
        run: |machine, side| requests(machine, side, "/chunked.html", 64, &[]),
    },
    Measure {
        name: "close",
        rows: &[cpu("CPU, a connection per request", None)],
        rounds_max: usize::MAX,
        run: |machine, side| requests(machine, side, "/small", 64, &["Connection: close"]),
    },
    Measure {
        name: "refused",
        rows: &[cpu("CPU, refused TCP connection", Some(Aim::Ratio(0.85)))],
        rounds_max: usize::MAX,
        run: refused,
    },
    Measure {
        name: "64k",
        rows: &[cpu("CPU, answer of 64 KiB", Some(Aim::Ratio(0.70)))],
        rounds_max: usize::MAX,
        run: |machine, side| requests(machine, side, "/64k", 32, &[]),
    },
    Measure {
        name: "1m",
        rows: &[cpu("CPU, answer of 1 MiB", Some(Aim::Ratio(0.70)))],
        rounds_max: usize::MAX,
        run: |machine, side| requests(machine, side, "/1m", 16, &[]),
    },
    Measure {
        name: "idle",
        rows: &[Row {
            name: "memory, idle keep-alive connection",
            unit: "bytes",
            aim: Some(Aim::Ratio(1.0)),
        }],
        rounds_max: 3,
        run: idle_connections,
    },
    Measure {
        name: "entry",
        rows: &[Row {
            name: "memory, table entry (ip, 2 rates, 2 counters)",
            unit: "bytes",
            aim: Some(Aim::Ratio(0.40)),
        }],
        rounds_max: 1,
        run: table_entries,
    },
    Measure {
        name: "flood",
        rows: &[
            Row {
                name: "good traffic during a flood, p50",
                unit: "us",
                aim: None,
            },
            Row {
                name: "good traffic during a flood, p99",
                unit: "us",
                aim: None,
            },
            Row {
                name: "refused connections during that flood",
                unit: "/s",
                aim: None,
            },
        ],
        rounds_max: usize::MAX,
        run: flood,
    },
];

fn requests(
    machine: &Machine,
    side: &Side,
    path: &str,
    connections: u32,
    headers: &[&str],
) -> Result<Vec<f64>> {
    let addr = side.proxy.addr("fe");
    let before = cpu_time(&side.proxy)?;
    let count = load::wrk(addr, path, connections, machine.seconds, headers)?;
    Ok(vec![per(cpu_time(&side.proxy)? - before, count)])
}

fn refused(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let addr = side.proxy.addr("refuse");
    get_refused(addr)?;
    let before = cpu_time(&side.proxy)?;
    let count = load::for_seconds(machine.seconds, |stop| {
        load::refused_connections(addr, 2, stop)
    })?;
    ensure!(count > 0, "no connection was refused");
    Ok(vec![per(cpu_time(&side.proxy)? - before, count)])
}

/// Connects until the proxy refuses.
fn get_refused(addr: SocketAddr) -> Result<()> {
    for _ in 0..1000 {
        if Client::connect(addr).get("/small").response().is_err() {
            return Ok(());
        }
    }
    anyhow::bail!("the proxy refuses nobody")
}

fn flood(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let (good, bad) = (side.proxy.addr("fe"), side.proxy.addr("refuse"));
    get_refused(bad)?;
    let (times, count) = load::for_seconds(machine.seconds, |stop| {
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| load::refused_connections(bad, 2, stop));
            let times = load::latencies(good, stop);
            stop_flag(stop);
            (times, flooding.join().unwrap_or(0))
        })
    })?;
    ensure!(times.len() > 10, "hardly any good request was answered");
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    Ok(vec![at(50), at(99), count as f64 / machine.seconds as f64])
}

fn stop_flag(stop: &AtomicBool) {
    stop.store(true, Ordering::Relaxed);
}

fn idle_connections(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let proxy = machine.fresh(side);
    let mut held = Vec::with_capacity(machine.connections);
    let mut open = |count: usize| -> Result<()> {
        for _ in 0..count {
            let mut client = Client::connect(proxy.addr("fe"));
            let answer = client.get("/small").response();
            ensure!(
                answer.is_ok_and(|answer| answer.status == 200),
                "a request failed after {} connections",
                held.len()
            );
            held.push(client);
        }
        Ok(())
    };
    // What the first connections allocate once is not theirs.
    open(100)?;
    let before = anonymous_bytes(&proxy)?;
    open(machine.connections)?;
    let after = anonymous_bytes(&proxy)?;
    Ok(vec![
        after.saturating_sub(before) as f64 / machine.connections as f64,
    ])
}

fn table_entries(machine: &Machine, side: &Side) -> Result<Vec<f64>> {
    let proxy = machine.fresh(side);
    let cli = proxy.cli();
    let fill = |from: u32, to: u32| -> Result<()> {
        // A line has to fit a buffer of 16 KiB.
        for start in (from..to).step_by(400) {
            let line: Vec<String> = (start..to.min(start + 400))
                .map(|i| format!("set table entries key {}", Ipv4Addr::from(0x0a00_0000 + i)))
                .collect();
            let said = cli.ask(&line.join(";"));
            ensure!(said.trim().is_empty(), "set table was answered: {said}");
        }
        Ok(())
    };
    fill(0, 1000)?;
    let before = anonymous_bytes(&proxy)?;
    fill(1000, machine.entries)?;
    let after = anonymous_bytes(&proxy)?;
    let tables = cli.ask("show table");
    let used = format!(
        "# table: entries, type: ip, size:{}, used:{}",
        machine.entries + machine.entries / 8,
        machine.entries
    );
    ensure!(
        tables.contains(&used),
        "not all entries are there: {tables}"
    );
    Ok(vec![
        after.saturating_sub(before) as f64 / f64::from(machine.entries - 1000),
    ])
}

/// CPU time of all threads, in the kernel's finest resolution.
pub(crate) fn cpu_time(proxy: &Proxy) -> Result<Duration> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", proxy.pid()))? {
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else {
            return Ok(proxy.cpu_time());
        };
        total += text
            .split_ascii_whitespace()
            .next()
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0);
    }
    if total == 0 {
        Ok(proxy.cpu_time())
    } else {
        Ok(Duration::from_nanos(total))
    }
}

/// User memory that belongs to the process alone.
pub(crate) fn anonymous_bytes(proxy: &Proxy) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", proxy.pid()))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .context("smaps_rollup")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

/// Microseconds per operation.
pub(crate) fn per(spent: Duration, count: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / count as f64
}
