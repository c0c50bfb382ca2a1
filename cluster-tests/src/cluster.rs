//! Several nodes that share tables: started together, hit, cut off from each other, killed, restarted and compared.
//!
//! Every node has a frontend `fe` that counts each request under the key in its query string (`/?k=KEY`) in table `t`, and
//! answers by itself: a test says exactly how many events there were, and [`Cluster::settled`] compares every node's dump
//! with that number and with the other nodes' dumps.
//!
//! Where the machine allows it, every node gets a monotonic clock of its own (a time namespace): on one host all clocks
//! agree, and a program that compares the clocks of two machines would pass.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;

use crate::dump::{Dump, Expected};
use crate::hits::{Entrance, Hits, Tally};
use crate::locate::{self, Kind};
use crate::netns::Net;
use crate::ports::{self, Port};
use crate::process::{Launch, Proxy};
use crate::relay::Relay;
use crate::tools;
use crate::wait::until_within;

/// How long nodes may take to agree before a test fails. Generous: CI machines stall, and eight nodes share two cores.
pub const AGREE: Duration = Duration::from_secs(30);

/// What table `t` stores unless a test says otherwise; all of these count requests.
pub const COUNTS: &str = "http_req_cnt,http_req_rate(1h),conn_cnt,gpc0,gpc0_rate(1h),conn_cur";

/// A cluster to be started.
#[derive(Debug)]
pub struct Spec {
    kind: Kind,
    program: Option<PathBuf>,
    wrapper: Vec<String>,
    nodes: Vec<NodeSpec>,
    relayed: bool,
    isolated: bool,
    own_clocks: bool,
    files: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Debug)]
struct NodeSpec {
    table: String,
    rules: String,
    global: String,
    peers: String,
    bind_options: String,
    server_options: String,
    append: String,
    env: Vec<(String, String)>,
    absent: Vec<usize>,
    shares: bool,
}

impl Spec {
    /// `count` nodes named `node0`, `node1`, … of the program under test.
    pub fn of(count: usize) -> Self {
        let node = NodeSpec {
            table: format!("type string len 32 size 10k expire 1h store {COUNTS}"),
            rules: "  http-request sc-inc-gpc0(0)".to_owned(),
            global: String::new(),
            peers: String::new(),
            bind_options: String::new(),
            server_options: String::new(),
            append: String::new(),
            env: Vec::new(),
            absent: Vec::new(),
            shares: true,
        };
        Self {
            kind: locate::kind_under_test(),
            program: None,
            wrapper: Vec::new(),
            nodes: vec![node; count],
            relayed: false,
            isolated: false,
            own_clocks: true,
            files: Vec::new(),
        }
    }

    /// Another program than the one under test.
    pub fn program(mut self, kind: Kind, path: Option<PathBuf>) -> Self {
        self.kind = kind;
        self.program = path;
        self
    }

    /// Starts the nodes through a command (`taskset -c 0`).
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Every link goes through a [`Relay`] of its own.
    pub fn relayed(mut self) -> Self {
        self.relayed = true;
        self
    }

    /// Every node lives in a network namespace of its own; see [`Net::possible`].
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// All nodes share the machine's monotonic clock.
    pub fn one_clock(mut self) -> Self {
        self.own_clocks = false;
        self
    }

    /// The arguments of `stick-table` of table `t`, without `peers`.
    pub fn table(self, args: &str) -> Self {
        self.every(|node| args.clone_into(&mut node.table))
    }

    /// As [`Spec::table`], of one node.
    pub fn table_on(self, node: usize, args: &str) -> Self {
        self.one(node, |node| args.clone_into(&mut node.table))
    }

    /// Rules of frontend `fe` after the tracking and before the answer.
    pub fn rules(self, lines: &str) -> Self {
        self.every(|node| lines.clone_into(&mut node.rules))
    }

    /// Lines of `global`.
    pub fn global(self, lines: &str) -> Self {
        self.every(|node| lines.clone_into(&mut node.global))
    }

    /// Lines of section `peers p`.
    pub fn peers(self, lines: &str) -> Self {
        self.every(|node| lines.clone_into(&mut node.peers))
    }

    /// As [`Spec::peers`], of one node.
    pub fn peers_on(self, node: usize, lines: &str) -> Self {
        self.one(node, |node| lines.clone_into(&mut node.peers))
    }

    /// Options of the `bind` and the `server` lines of section `peers p`.
    pub fn options(self, bind: &str, server: &str) -> Self {
        self.every(|node| {
            bind.clone_into(&mut node.bind_options);
            server.clone_into(&mut node.server_options);
        })
    }

    /// As [`Spec::options`], of one node.
    pub fn options_on(self, node: usize, bind: &str, server: &str) -> Self {
        self.one(node, |node| {
            bind.clone_into(&mut node.bind_options);
            server.clone_into(&mut node.server_options);
        })
    }

    /// More sections.
    pub fn append(self, lines: &str) -> Self {
        self.every(|node| lines.clone_into(&mut node.append))
    }

    /// As [`Spec::append`], of one node.
    pub fn append_on(self, node: usize, lines: &str) -> Self {
        self.one(node, |node| lines.clone_into(&mut node.append))
    }

    /// An environment variable of one node.
    pub fn env_on(self, node: usize, name: &str, value: &str) -> Self {
        self.one(node, |node| {
            node.env.push((name.to_owned(), value.to_owned()));
        })
    }

    /// The node does not list that other one.
    pub fn unaware(self, node: usize, of: usize) -> Self {
        self.one(node, |node| node.absent.push(of))
    }

    /// Table `t` names no peers section, and there is none.
    pub fn unshared(self) -> Self {
        self.every(|node| node.shares = false)
    }

    /// A file in every node's directory.
    pub fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.files
            .push((name.to_owned(), content.as_ref().to_vec()));
        self
    }

    fn every(mut self, change: impl Fn(&mut NodeSpec)) -> Self {
        self.nodes.iter_mut().for_each(change);
        self
    }

    fn one(mut self, node: usize, change: impl FnOnce(&mut NodeSpec)) -> Self {
        change(&mut self.nodes[node]);
        self
    }

    /// Starts all nodes and waits until each accepts requests.
    ///
    /// # Panics
    /// When one ends or is not ready in time.
    #[track_caller]
    pub fn start(self) -> Cluster {
        let cluster = self.prepare();
        cluster.all(Node::spawn)
    }

    /// Claims addresses; no node runs yet.
    ///
    /// # Panics
    /// When namespaces were asked for and cannot be made.
    #[track_caller]
    pub fn prepare(self) -> Cluster {
        let count = self.nodes.len();
        let net = self
            .isolated
            .then(|| Net::new(count).expect("network namespaces"));
        let ports: Vec<Port> = (0..count).map(|_| Port::claim()).collect();
        let address = |node: usize| match &net {
            Some(net) => format!("{}:{}", net.address(node), ports[node].number()),
            None => format!("127.0.0.1:{}", ports[node].number()),
        };
        let mut relays = BTreeMap::new();
        if self.relayed {
            for from in 0..count {
                for to in (0..count).filter(|&to| to != from) {
                    let target = address(to).parse().expect("an address");
                    relays.insert((from, to), Relay::to(target));
                }
            }
        }
        let mut nodes = Vec::new();
        for (index, spec) in self.nodes.iter().enumerate() {
            let others = (0..count).filter(|&to| to != index && !spec.absent.contains(&to));
            let servers: Vec<(usize, String)> = others
                .map(|to| {
                    let relay = relays.get(&(index, to));
                    (
                        to,
                        relay.map_or_else(|| address(to), |relay| relay.addr().to_string()),
                    )
                })
                .collect();
            let entrance = net.is_none().then(Port::claim);
            let mut wrapper = self.wrapper.clone();
            if let Some(net) = &net {
                wrapper.extend(net.enter(index));
            }
            if self.own_clocks && own_clocks() {
                // Far apart, in both directions of the test's own clock.
                let offset = [40_000, 3, 7_000_000, 86_400, 1, 500, 12_345, 99_999][index % 8];
                wrapper.extend(["unshare".into(), "-T".into(), "--monotonic".into()]);
                wrapper.extend([offset.to_string(), "--".into()]);
            }
            nodes.push(Node {
                index,
                kind: self.kind,
                program: self.program.clone(),
                config: config(index, spec, &address(index), &servers, entrance.as_ref()),
                wrapper,
                env: spec.env.clone(),
                files: self.files.clone(),
                entrance,
                peers: ports[index].number(),
                proxy: None,
            });
        }
        Cluster {
            nodes,
            relays,
            net,
            _ports: ports,
        }
    }
}

fn config(
    index: usize,
    spec: &NodeSpec,
    own: &str,
    servers: &[(usize, String)],
    entrance: Option<&Port>,
) -> String {
    let mut out = format!(
        "global\n  stats socket {{{{cli}}}} level admin\n  log stdout format raw local0\n{}\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n",
        spec.global
    );
    if spec.shares {
        let _infallible = write!(
            out,
            "peers p\n{}\n  bind {own} {}\n  server node{index}\n",
            spec.peers, spec.bind_options
        );
        for (to, address) in servers {
            let _infallible = writeln!(out, "  server node{to} {address} {}", spec.server_options);
        }
    }
    let bind = entrance.map_or_else(
        || "unix@{{dir}}/fe.sock".to_owned(),
        |port| format!("127.0.0.1:{}", port.number()),
    );
    let peers = if spec.shares { "peers p" } else { "" };
    let _infallible = write!(
        out,
        "frontend fe\n  bind {bind}\n  http-request track-sc0 url_param(k) table t\n{}\n  http-request return status 200\nbackend t\n  stick-table {} {peers}\n{}\n",
        spec.rules, spec.table, spec.append
    );
    out
}

/// Whether processes here may have monotonic clocks of their own.
fn own_clocks() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let Some(unshare) = tools::find("unshare") else {
            return false;
        };
        let mut command = std::process::Command::new(unshare);
        command.args(["-T", "--monotonic", "7", "--", "true"]);
        let possible = tools::run(&mut command).code == Some(0);
        if !possible {
            tools::skip("no time namespaces: all nodes share the machine's monotonic clock");
        }
        possible
    })
}

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
        assert!(!self.runs(), "{} runs already", self.name());
        let mut launch = Launch::of(self.kind, &self.config)
            .arg("-L")
            .arg(&self.name());
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
        let accepts = until_within(AGREE, || {
            let ended = proxy.try_wait().is_some();
            let accepts = match &self.entrance {
                Some(port) => ports::is_listening(port.number()),
                None => {
                    std::os::unix::net::UnixStream::connect(proxy.dir().join("fe.sock")).is_ok()
                }
            };
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

    /// Whether its frontend listens at this moment.
    pub fn accepts(&self) -> bool {
        match &self.entrance {
            Some(port) => ports::is_listening(port.number()),
            None => {
                std::os::unix::net::UnixStream::connect(self.proxy().dir().join("fe.sock")).is_ok()
            }
        }
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
        self.end(Signal::KILL);
    }

    /// Asks it to stop (SIGUSR1) and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.end(Signal::USR1);
    }

    fn end(&mut self, signal: Signal) {
        let mut proxy = self.proxy.take().expect("a running node");
        proxy.signal(signal);
        proxy.wait();
    }

    /// Where its requests go in.
    pub fn entrance(&self) -> Entrance {
        match &self.entrance {
            Some(port) => Entrance::Tcp(port.number()),
            None => Entrance::Unix(self.proxy().dir().join("fe.sock")),
        }
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
