//! `peers` sections as compiled: who shares which tables, over which addresses, and how they prove who they are.

use std::net::{IpAddr, SocketAddr};

use remora_core::table::TableId;

use super::{Address, LogTarget, Place};

/// One `peers` section.
#[derive(Clone, Debug)]
pub struct PeersSection {
    /// As written after `peers`; tables name it.
    pub name: String,
    /// What all members must agree on when they greet each other: `cluster NAME`, else the section's name.
    pub cluster: String,
    /// Its first line.
    pub place: Place,
    /// `disabled`: nothing listens, nobody is dialed, and its tables are this process's own.
    pub disabled: bool,
    /// This node's name: that of its own `server` or `peer` line, or of the process when only `discover` is used.
    pub local: String,
    /// Where this node listens for its peers: the `bind` lines, or the address on its own `server` line.
    pub binds: Vec<PeersBind>,
    /// The other nodes that are listed by name, disabled ones included.
    pub servers: Vec<PeersServer>,
    /// `discover` lines.
    pub discover: Vec<Discover>,
    /// `log` lines.
    pub logs: Vec<LogTarget>,
    /// How long a starting node waits to be taught before it accepts traffic, in milliseconds.
    pub learn_timeout_ms: u32,
    /// Plain text may leave this host.
    pub allow_plaintext: bool,
    /// Tables it shares: its own `table` lines and those of proxies that name it.
    pub tables: Vec<TableId>,
}

/// An address to listen on for peers.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct PeersBind {
    pub address: Address,
    /// IPv6 sockets: whether IPv4 clients are let in too, or kept out.
    pub v4v6: bool,
    pub v6only: bool,
    /// UNIX sockets: permissions and owner.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Names for the shell to look up.
    pub user: Option<String>,
    pub group: Option<String>,
    /// `None`: plain text. `crt` and `key` are always there, and `ca_file` unless nothing is verified.
    pub tls: Option<PeersTls>,
    pub place: Place,
    /// the address as written
    pub text: String,
}

/// Another node, listed by name.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct PeersServer {
    pub name: String,
    pub address: PeerAddress,
    pub disabled: bool,
    /// `None`: plain text. `crt` and `key` when this node shows a certificate of its own.
    pub tls: Option<PeersTls>,
    pub place: Place,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// An address and a port, never 0.
    Ip(SocketAddr),
    /// A UNIX socket.
    Unix(String),
    /// A name to look up before every attempt to connect, so that a node that moves is found again.
    Host {
        /// The name.
        host: String,
        /// The port, never 0.
        port: u16,
    },
}

/// `discover dns NAME[:PORT]`.
#[derive(Clone, Debug)]
pub struct Discover {
    /// The DNS name; SRV records are asked for when it begins with `_`, else A and AAAA.
    pub name: String,
    /// The port to dial. `None` only for SRV names: that of the record.
    pub port: Option<u16>,
    /// `every T`: longest time between two lookups, in milliseconds.
    pub every_ms: u32,
    /// `nameserver IP:PORT`; `None`: those of `/etc/resolv.conf`.
    pub nameserver: Option<SocketAddr>,
    /// How to talk to the nodes found. `verifyhost` is set (the name itself unless `verifyhost` says otherwise) when
    /// certificates are verified.
    pub tls: Option<PeersTls>,
    /// Its line.
    pub place: Place,
}

impl Discover {
    /// Whether SRV records are asked for.
    pub fn is_srv(&self) -> bool {
        self.name.starts_with('_')
    }
}

/// `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The other side is not asked who it is.
    None,
    /// `bind` lines: a client may do without a certificate, but a wrong one is refused.
    Optional,
    /// The other side shows a certificate of `ca_file`, or the connection ends.
    Required,
}

/// TLS options of one line, its defaults included. Paths are those that could be read when the configuration was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersTls {
    /// PEM file with this node's certificate and its chain.
    pub crt: Option<String>,
    /// PEM file with its private key: often the same file.
    pub key: Option<String>,
    /// PEM file with the certificates that the other side's must descend from.
    pub ca_file: Option<String>,
    /// Whether the other side is verified; never `Required` without `ca_file`.
    pub verify: Verify,
    /// Name that the other side's certificate must carry; `None`: every certificate of `ca_file` will do.
    pub verifyhost: Option<String>,
    /// Server name to send; `None`: `verifyhost`, else the host name that is dialed, else none.
    pub sni: Option<String>,
}

/// Whether what is sent there stays on this host.
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
