//! Load: wrk for requests, own clients for connections that are refused and for latencies.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_tests::wait::pace;
use cluster_tests::{Client, tools};

/// Runs wrk and returns how many requests were answered well.
pub(crate) fn wrk(
    addr: SocketAddr,
    path: &str,
    connections: u32,
    seconds: u64,
    headers: &[&str],
) -> Result<u64> {
    let mut command = Command::new(tools::find("wrk").context("wrk is not installed")?);
    command.args([
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        "--timeout",
        "10s",
    ]);
    for header in headers {
        command.args(["-H", header]);
    }
    let done = tools::run(command.arg(format!("http://{addr}{path}")));
    ensure!(
        done.code == Some(0),
        "wrk failed: {}{}",
        done.stdout,
        done.stderr
    );
    if done.stdout.contains("Non-2xx") {
        bail!("answers other than 2xx: {}", done.stdout);
    }
    let line = done
        .stdout
        .lines()
        .find(|line| line.contains(" requests in "))
        .context("the count of wrk")?;
    let count = line
        .split_ascii_whitespace()
        .next()
        .unwrap_or_default()
        .parse()?;
    ensure!(count > 0, "not one answer: {}", done.stdout);
    Ok(count)
}

/// How many connections a client of [`refused_connections`] opens before it looks what became of them: a flood does not
/// wait for each answer, and a proxy that is woken for every single one cannot show what refusing costs.
const BURST: usize = 64;

/// Connects as fast as it can with `threads` threads until `stop` says so. Returns how many connections the proxy closed.
pub(crate) fn refused_connections(addr: SocketAddr, threads: usize, stop: &AtomicBool) -> u64 {
    let count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // Lowest priority of its core: a latency measured beside it must not be a wait for the processor.
                let _refused = rustix::process::nice(19);
                let mut open = Vec::with_capacity(BURST);
                while !stop.load(Ordering::Relaxed) {
                    let mut closed = 0;
                    for _ in 0..BURST {
                        match TcpStream::connect(addr) {
                            Ok(stream) => open.push(stream),
                            // The reset may be faster than the system call.
                            Err(error) if error.kind() == ErrorKind::ConnectionReset => closed += 1,
                            Err(_) => {}
                        }
                    }
                    for mut stream in open.drain(..) {
                        closed += u64::from(!matches!(stream.read(&mut [0; 64]), Ok(1..)));
                    }
                    count.fetch_add(closed, Ordering::Relaxed);
                }
            });
        }
    });
    count.into_inner()
}

/// Lets `work` run in another thread for `seconds`, then raises its flag and returns its result.
pub(crate) fn for_seconds<T: Send>(
    seconds: u64,
    work: impl FnOnce(&AtomicBool) -> T + Send,
) -> Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| work(&stop));
        pace(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        running
            .join()
            .map_err(|_| anyhow::anyhow!("a load thread panicked"))
    })
}

/// Latencies of one polite client (one request each two milliseconds on one connection), sorted.
pub(crate) fn latencies(addr: SocketAddr, stop: &AtomicBool) -> Vec<Duration> {
    let mut taken = Vec::new();
    let mut client = Client::connect(addr);
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        match client.get("/small").response() {
            Ok(answer) if answer.status == 200 => taken.push(start.elapsed()),
            _ => client = Client::connect(addr),
        }
        pace(Duration::from_millis(2));
    }
    taken.sort_unstable();
    taken
}
