//! Network namespaces: every node on a host of its own, with a switch between them whose ports can be blocked.
//!
//! Unlike a relay that holds bytes back, a blocked port loses packets, connection attempts included: what a broken switch or
//! a firewall does.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::tools;

/// Hosts `10.77.0.1`, `10.77.0.2`, … on one switch; gone when dropped.
#[derive(Debug)]
pub struct Net {
    prefix: String,
    count: usize,
}

impl Net {
    /// Whether namespaces can be made here; prints that the test is skipped and why if not.
    pub fn possible() -> bool {
        static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
        let found = POSSIBLE.get_or_init(|| {
            for tool in ["ip", "nft"] {
                if tools::find(tool).is_none() {
                    return Err(format!("{tool} is not installed"));
                }
            }
            if !rustix::process::geteuid().is_root() {
                return Err("needs root".to_owned());
            }
            let net = Self::new(1)?;
            net.block_rule(0, Ipv4Addr::LOCALHOST)
        });
        if let Err(why) = found {
            tools::lacks_as_root(&format!("no network namespaces: {why}"));
        }
        found.is_ok()
    }

    /// Makes `count` hosts.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn new(count: usize) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let net = Self {
            prefix: format!("ct{}-{number}", std::process::id()),
            count,
        };
        let hub = net.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add br0 type bridge"))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        for node in 0..count {
            let host = net.host(node);
            ip(&format!("netns add {host}"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!(
                "-n {hub} link add port{node} type veth peer name eth0 netns {host}"
            ))?;
            ip(&format!("-n {hub} link set port{node} master br0 up"))?;
            ip(&format!(
                "-n {host} addr add {}/24 dev eth0",
                net.address(node)
            ))?;
            ip(&format!("-n {host} link set eth0 up"))?;
        }
        Ok(net)
    }

    /// The address of a host.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, node as u8 + 1)
    }

    /// The words before a command that is to run on a host. The process keeps its id.
    pub fn enter(&self, node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.host(node)]
            .map(str::to_owned)
            .to_vec()
    }

    /// Loses every packet between the two groups.
    ///
    /// # Panics
    /// When the filter cannot be set.
    pub fn split(&self, one: &[usize], other: &[usize]) {
        for (&a, &b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            for (host, from) in [(a, b), (b, a)] {
                self.block_rule(host, self.address(from)).expect("nft");
            }
        }
    }

    /// Loses what arrives at `to` from `from`; the other way stays open.
    ///
    /// # Panics
    /// When the filter cannot be set.
    pub fn deafen(&self, to: usize, from: usize) {
        self.block_rule(to, self.address(from)).expect("nft");
    }

    /// Loses attempts of `from` to connect to `to`, as a firewall does; what `to` connects passes.
    ///
    /// # Panics
    /// When the filter cannot be set.
    pub fn bar(&self, to: usize, from: usize) {
        let opening = "tcp flags & (syn | ack) == syn";
        let rule = format!("ip saddr {} {opening} drop", self.address(from));
        self.rule(to, &rule).expect("nft");
    }

    /// Ends all that [`Net::split`], [`Net::deafen`] and [`Net::bar`] did.
    ///
    /// # Panics
    /// When the filter cannot be changed.
    pub fn heal(&self) {
        for node in 0..self.count {
            self.nft(node, "flush ruleset").expect("nft");
        }
    }

    fn block_rule(&self, host: usize, from: Ipv4Addr) -> Result<(), String> {
        self.rule(host, &format!("ip saddr {from} drop"))
    }

    fn rule(&self, host: usize, rule: &str) -> Result<(), String> {
        self.nft(host, "add table ip harness")?;
        self.nft(
            host,
            "add chain ip harness in { type filter hook input priority 0 ; }",
        )?;
        self.nft(host, &format!("add rule ip harness in {rule}"))
    }

    fn nft(&self, host: usize, rule: &str) -> Result<(), String> {
        let mut command = Command::new(tools::find("ip").ok_or("no ip")?);
        command.args(["netns", "exec", &self.host(host)]);
        command.arg(tools::find("nft").ok_or("no nft")?);
        command.args(rule.split_ascii_whitespace());
        say(&mut command)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn host(&self, node: usize) -> String {
        format!("{}-{node}", self.prefix)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in 0..self.count {
            let _gone = ip(&format!("netns del {}", self.host(node)));
        }
        let _gone = ip(&format!("netns del {}", self.hub()));
    }
}

fn ip(words: &str) -> Result<(), String> {
    let mut command = Command::new(tools::find("ip").ok_or("ip is not installed")?);
    say(command.args(words.split_ascii_whitespace()))
}

fn say(command: &mut Command) -> Result<(), String> {
    let done = tools::run(command);
    if done.code == Some(0) {
        return Ok(());
    }
    Err(format!("{command:?}: {}", done.stderr.trim()))
}
