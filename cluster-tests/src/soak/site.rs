//! A node that runs, seen from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Signal;

use super::tally::Tally;
use super::{Plan, config};
use crate::cli::Cli;
use crate::hits::{Entrance, Hits};
use crate::ports::Port;
use crate::process::{Launch, Proxy};
use crate::wait::{until_true, until_within};

/// One node and its clients.
pub(super) struct Site {
    pub(super) proxy: Proxy,
    pub(super) tally: Arc<Tally>,
    index: usize,
    round: u64,
}

/// Starts all nodes.
pub(super) fn start(plan: &Plan, origin: SocketAddr) -> (Vec<Site>, Vec<Port>) {
    let ports: Vec<Port> = (0..plan.nodes).map(|_| Port::claim()).collect();
    let peers: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{}", port.number()))
        .collect();
    let launched: Vec<Proxy> = (0..plan.nodes)
        .map(|index| {
            let mut launch = Launch::of(plan.kind, &config::of(plan, index, &peers))
                .set("s1", origin)
                .supervised()
                .tethered()
                .arg("-L")
                .arg(&format!("node{index}"));
            if let Some(program) = &plan.program {
                launch = launch.program(program);
            }
            launch.spawn()
        })
        .collect();
    let sites = launched.into_iter().enumerate().map(|(index, proxy)| {
        let proxy = proxy.ready().unwrap_or_else(|why| panic!("{why}"));
        let site = Site {
            proxy,
            tally: Arc::default(),
            index,
            round: 0,
        };
        until_true("the node answers", || {
            let fill = Entrance::Tcp(site.proxy.addr("fill").port());
            Hits::probe(&fill, crate::wait::PATIENCE)
        });
        site
    });
    (sites.collect(), ports)
}

impl Site {
    pub(super) fn name(&self) -> String {
        format!("node{}", self.index)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.proxy.addr("fe")
    }

    fn master(&self) -> Cli {
        Cli::new(self.proxy.dir().join("master.sock"))
    }

    /// Counts each key of the big table once.
    pub(super) fn fill(&self, entries: u32) {
        let keys: Vec<String> = (0..entries)
            .map(|n| {
                let [_, a, b, c] = n.to_be_bytes();
                format!("10.{a}.{b}.{c}")
            })
            .collect();
        let fill = Entrance::Tcp(self.proxy.addr("fill").port());
        let mut hits = Hits::open(&fill).expect("the node accepts");
        hits.send_each(keys.iter().map(String::as_str))
            .expect("every request is answered");
    }

    /// Entries of the big table.
    pub(super) fn used(&self) -> u64 {
        let tables = self.proxy.ask("show table");
        let line = tables.lines().find(|line| line.contains(" big,"));
        line.and_then(|line| line.rsplit("used:").next()?.trim().parse().ok())
            .unwrap_or(0)
    }

    /// `http_req_cnt` over all entries of the big table.
    pub(super) fn sum_of_big(&self) -> u64 {
        let dump = self.proxy.ask("show table big");
        let counts = dump.lines().filter_map(|line| {
            let (_, rest) = line.split_once(" http_req_cnt=")?;
            rest.split(' ').next()?.parse::<u64>().ok()
        });
        counts.sum()
    }

    /// Changes the configuration and signals; the round, and when the signal was sent.
    pub(super) fn reload(&mut self) -> (u64, Instant) {
        let path = self.proxy.dir().join("test.cfg");
        let text = std::fs::read_to_string(&path).expect("the configuration");
        let (before, after) = (
            config::round_line(self.round),
            config::round_line(self.round + 1),
        );
        self.round += 1;
        let text = text.replacen(&before, &after, 1);
        let fresh = self.proxy.dir().join("fresh");
        std::fs::write(&fresh, text).expect("the configuration");
        std::fs::rename(fresh, path).expect("the configuration");
        (self.round, self.signal())
    }

    /// Signals; when.
    pub(super) fn signal(&self) -> Instant {
        let now = Instant::now();
        self.tally.signalled(now);
        self.proxy.signal(Signal::USR2);
        now
    }

    /// Worker processes, old ones included. A supervisor that executes itself does not answer for a moment.
    pub(super) fn workers(&self) -> Option<usize> {
        let table = softly(&self.master(), "show proc")?;
        let rows = table.lines().filter(|row| !row.starts_with('#'));
        let workers = rows.filter(|row| row.split_whitespace().nth(1) == Some("worker"));
        Some(workers.count())
    }

    /// Waits until only one worker is left; whether that came true.
    pub(super) fn settles(&self) -> bool {
        until_within(SETTLE, || (self.workers() == Some(1)).then_some(())).is_some()
    }

    /// What it has said about hand-offs: milliseconds for the tables, and for the gap.
    pub(super) fn hand_offs(&self) -> Vec<(u64, u64)> {
        let said = self.proxy.stderr();
        let number = |text: &str| text.split(' ').next()?.parse::<u64>().ok();
        said.lines()
            .filter_map(|line| {
                let (_, rest) = line.split_once("hand-off: ")?;
                let (tables, gap) = rest.split_once(" ms, accept gap ")?;
                let tables = tables.rsplit(' ').next()?.parse().ok()?;
                Some((tables, number(gap)?))
            })
            .collect()
    }
}

/// The answer, if somebody is there to answer.
pub(super) fn softly(cli: &Cli, line: &str) -> Option<String> {
    let mut session = cli.try_open().ok()?;
    session.send(&format!("{line}\n"));
    session.half_close();
    let answer = session.rest();
    (!answer.is_empty()).then_some(answer)
}

/// How long old workers may take to end once their clients are gone.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(60);
