//! What a cluster is to be: one configuration per node, from the few things tests vary.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::{COUNTS, Cluster, Node};
use crate::locate::{self, Kind};
use crate::netns::Net;
use crate::ports::Port;
use crate::relay::Relay;
use crate::tools;

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
    shares: Shares,
    wrapper: Option<Vec<String>>,
}

/// What table `t` has to do with the peers section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shares {
    Named,
    Unnamed,
    NoSection,
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
            shares: Shares::Named,
            wrapper: None,
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

    /// As [`Spec::wrapper`], of one node, instead of that of all.
    pub fn wrapper_on(self, node: usize, words: &[&str]) -> Self {
        self.one(node, |node| {
            node.wrapper = Some(words.iter().map(|&word| word.to_owned()).collect());
        })
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
        self.every(|node| node.shares = Shares::NoSection)
    }

    /// There is a peers section, and table `t` does not name it.
    pub fn unnamed(self) -> Self {
        self.every(|node| node.shares = Shares::Unnamed)
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
            let mut wrapper = spec.wrapper.clone().unwrap_or_else(|| self.wrapper.clone());
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
    if spec.shares != Shares::NoSection {
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
    let peers = if spec.shares == Shares::Named {
        "peers p"
    } else {
        ""
    };
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
            tools::lacks_as_root(
                "no time namespaces: all nodes share the machine's monotonic clock",
            );
        }
        possible
    })
}
