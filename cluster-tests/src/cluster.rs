//! Several nodes that share tables: started together, hit, cut off from each other, killed, restarted and compared.
//!
//! Every node has a frontend `fe` that counts each request under the key in its query string (`/?k=KEY`) in table `t`, and
//! answers by itself: a test says exactly how many events there were, and [`Cluster::settled`] compares every node's dump
//! with that number and with the other nodes' dumps.
//!
//! Where the machine allows it, every node gets a monotonic clock of its own (a time namespace): on one host all clocks
//! agree, and a program that compares the clocks of two machines would pass.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::dump::{Dump, Expected};
use crate::hits::{Entrance, Hits, Tally};
use crate::locate::Kind;
use crate::netns::Net;
use crate::ports::Port;
use crate::process::{Launch, Proxy};
use crate::relay::Relay;
use crate::wait::until_within;

mod spec;

pub use spec::Spec;

/// How long nodes may take to agree before a test fails. Generous: CI machines stall, and eight nodes share two cores.
pub const AGREE: Duration = Duration::from_secs(90);

/// What table `t` stores unless a test says otherwise; all of these count requests.
pub const COUNTS: &str = "http_req_cnt,http_req_rate(1h),conn_cnt,gpc0,gpc0_rate(1h),conn_cur";

/// Nodes that run, each on ports of its own that survive its restarts.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    relays: BTreeMap<(usize, usize), Relay>,
    net: Option<Net>,
    _ports: Vec<Port>,
}

impl Cluster {
    /// How many nodes there are, running or not.
    #[expect(clippy::len_without_is_empty, reason = "a cluster has nodes")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A node.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// A node, to be stopped or started.
    pub fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// The relay on the link that `from` dials to `to`.
    ///
    /// # Panics
    /// When the cluster is not [`Spec::relayed`].
    pub fn relay(&self, from: usize, to: usize) -> &Relay {
        &self.relays[&(from, to)]
    }

    /// The relays of both links between two nodes.
    pub fn between(&self, a: usize, b: usize) -> [&Relay; 2] {
        [self.relay(a, b), self.relay(b, a)]
    }

    /// All relays.
    pub fn relays(&self) -> impl Iterator<Item = &Relay> {
        self.relays.values()
    }

    /// The network namespaces.
    ///
    /// # Panics
    /// When the cluster is not [`Spec::isolated`].
    pub fn net(&self) -> &Net {
        self.net.as_ref().expect("an isolated cluster")
    }

    /// Does something with all nodes, then waits until all that run accept requests.
    fn all(mut self, change: impl Fn(&mut Node)) -> Self {
        self.nodes.iter_mut().for_each(change);
        self.nodes.iter_mut().for_each(Node::ready);
        self
    }

    /// Waits until every running node's table `t` holds exactly what `expected` says, each entry the same everywhere.
    ///
    /// # Panics
    /// When they do not agree in time; the differences are shown.
    #[track_caller]
    pub fn settled(&self, expected: &Expected) -> Vec<Dump> {
        self.settled_in("t", expected)
    }

    /// As [`Cluster::settled`], for another table.
    #[track_caller]
    pub fn settled_in(&self, table: &str, expected: &Expected) -> Vec<Dump> {
        let running: Vec<&Node> = self.nodes.iter().filter(|node| node.runs()).collect();
        let mut last = String::new();
        let done = until_within(AGREE, || {
            let dumps: Vec<Dump> = running.iter().map(|node| node.dump(table)).collect();
            match crate::dump::compare(&dumps, expected) {
                Ok(()) => Some(dumps),
                Err(why) => {
                    last = why;
                    None
                }
            }
        });
        done.unwrap_or_else(|| {
            let names: Vec<String> = running.iter().map(|node| node.name()).collect();
            panic!(
                "after {AGREE:?} the dumps of {} differ:\n{last}",
                names.join(", ")
            )
        })
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    index: usize,
    kind: Kind,
    program: Option<PathBuf>,
    config: String,
    wrapper: Vec<String>,
    env: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    entrance: Option<Port>,
    peers: u16,
    proxy: Option<Proxy>,
}

impl Node {
    /// `nodeN`.
    pub fn name(&self) -> String {
        format!("node{}", self.index)
    }

    /// Whether its process has been started and not been stopped.
    pub fn runs(&self) -> bool {
        self.proxy.is_some()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a running node")
    }

    /// The port it listens on for its peers.
    pub fn peers_port(&self) -> u16 {
        self.peers
    }

    /// Its configuration, placeholders included.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Changes its configuration for the next start.
    pub fn reconfigure(&mut self, change: impl FnOnce(String) -> String) {
        self.config = change(std::mem::take(&mut self.config));
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// When it runs already.
    #[track_caller]
    pub fn spawn(&mut self) {
        self.spawn_with(&[]);
    }

    /// Starts another process beside it that ends it in good order (`-sf`) once it accepts itself, and waits for that.
    /// Returns the one before.
    #[track_caller]
    pub fn replace(&mut self) -> Proxy {
        let old = self.proxy.take().expect("a running node");
        self.spawn_with(&["-sf", &old.pid().to_string()]);
        self.ready();
        old
    }

    #[track_caller]
    fn spawn_with(&mut self, args: &[&str]) {
        assert!(!self.runs(), "{} runs already", self.name());
        let mut launch = Launch::of(self.kind, &self.config)
            .arg("-L")
            .arg(&self.name());
        for arg in args {
            launch = launch.arg(arg);
        }
        if self.config.contains("  master-worker\n") {
            launch = launch.arg("-S").arg("{{dir}}/master.sock");
        }
        if let Some(program) = &self.program {
            launch = launch.program(program);
        }
        for (name, content) in &self.files {
            launch = launch.file(name, content);
        }
        for (name, value) in &self.env {
            launch = launch.env(name, value);
        }
        if !self.wrapper.is_empty() {
            let words: Vec<&str> = self.wrapper.iter().map(String::as_str).collect();
            launch = launch.wrapper(&words);
        }
        self.proxy = Some(launch.spawn());
    }

    /// Waits until it accepts requests, if it was spawned.
    ///
    /// # Panics
    /// When it ends or is not ready in time; its messages are shown.
    #[track_caller]
    pub fn ready(&mut self) {
        let Some(proxy) = self.proxy.take() else {
            return;
        };
        let mut proxy = proxy
            .ready()
            .unwrap_or_else(|why| panic!("{}: {why}", self.name()));
        let entrance = self.entrance_of(&proxy);
        let accepts = until_within(AGREE, || {
            let ended = proxy.try_wait().is_some();
            let accepts = Hits::probe(&entrance, Duration::from_millis(300));
            (accepts || ended).then_some(accepts)
        });
        assert!(
            accepts == Some(true),
            "{} does not accept requests:\n{}",
            self.name(),
            proxy.stderr()
        );
        self.proxy = Some(proxy);
    }

    /// Whether its frontend answers requests at this moment.
    pub fn accepts(&self) -> bool {
        Hits::probe(&self.entrance(), Duration::from_millis(300))
    }

    /// Starts it and waits until it accepts requests.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn();
        self.ready();
    }

    /// Ends it with SIGKILL.
    #[track_caller]
    pub fn kill(&mut self) {
        self.end_with(Signal::KILL);
    }

    /// Asks it to stop (SIGUSR1) and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.end_with(Signal::USR1);
    }

    /// Ends it with that signal and waits for its end. Returns what it has said on standard error.
    #[track_caller]
    pub fn end_with(&mut self, signal: Signal) -> String {
        let mut proxy = self.proxy.take().expect("a running node");
        proxy.signal(signal);
        proxy.wait();
        proxy.stderr()
    }

    /// Where its requests go in.
    pub fn entrance(&self) -> Entrance {
        match &self.entrance {
            Some(port) => Entrance::Tcp(port.number()),
            None => self.entrance_of(self.proxy()),
        }
    }

    fn entrance_of(&self, proxy: &Proxy) -> Entrance {
        match &self.entrance {
            Some(port) => Entrance::Tcp(port.number()),
            None => Entrance::Unix(proxy.dir().join("fe.sock")),
        }
    }

    /// What it has said about its peers, on its CLI and in its messages.
    pub fn said(&self) -> String {
        let proxy = self.proxy();
        proxy.ask("show peers") + &proxy.stdout() + &proxy.stderr()
    }

    /// Sends exactly `count` requests with this key, counts them in `tally` and waits for the answers.
    ///
    /// # Panics
    /// When one is not answered with 200.
    #[track_caller]
    pub fn hit(&self, key: &str, count: u64, tally: &mut Tally) {
        let mut hits = Hits::open(&self.entrance()).expect("the frontend accepts");
        hits.send(key, count).expect("every request is answered");
        tally.add(key, count);
    }

    /// All of a table.
    #[track_caller]
    pub fn dump(&self, table: &str) -> Dump {
        Dump::read(&self.proxy().cli(), table)
    }

    /// A CLI command.
    #[track_caller]
    pub fn ask(&self, line: &str) -> String {
        self.proxy().ask(line)
    }

    /// A CLI command that must be answered with nothing.
    ///
    /// # Panics
    /// When it is answered with something.
    #[track_caller]
    pub fn order(&self, line: &str) {
        let said = self.ask(line);
        assert!(said.trim().is_empty(), "{line}: {said}");
    }

    /// The value of a column of table `t` for a key, 0 if there is no such entry.
    #[track_caller]
    pub fn value(&self, key: &str, column: &str) -> i64 {
        let entry = self.proxy().cli().entry("t", key);
        entry.map_or(0, |entry| entry.get(column))
    }
}
