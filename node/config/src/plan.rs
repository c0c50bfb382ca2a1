//! The compiled configuration: what the process runs. Built once, then only read.

mod peers;

use remora_core::balance::Algorithm;
use remora_core::rule::proxy::ProxyRules;
use remora_core::table::{TableId, TableSpec};
use remora_core::world::{ErrorPages, ProxyId, StatusSet};
use std::net::SocketAddr;

pub use peers::{
    Discover, PeerAddress, PeersBind, PeersSection, PeersServer, PeersTls, Verify, is_loopback,
};

/// Everything.
#[allow(missing_docs)]
pub struct Plan {
    pub global: Global,
    pub proxies: Vec<Proxy>,
    /// In order of declaration; `TableId` is the index.
    pub tables: Vec<TableSpec>,
    /// In order of declaration; `TableSpec::peers` is the index.
    pub peers: Vec<PeersSection>,
    /// Names of the configuration files (`last_rule_file`).
    pub files: Vec<String>,
    /// Interned variable names.
    pub var_names: Vec<String>,
}

/// `global`. (owner: config adds fields; every accepted keyword that has an effect is a field here)
#[allow(missing_docs)]
pub struct Global {
    pub maxconn: u32,
    pub nbthread: u16,
    pub stats_sockets: Vec<StatsSocket>,
    /// `admin bind`: where health and metrics are answered over HTTP. Their `level` means nothing.
    pub admin_binds: Vec<StatsSocket>,
    pub stats_timeout_ms: u32,
    pub stats_maxconn: u32,
    pub logs: Vec<LogTarget>,
    pub log_tag: Option<String>,
    pub log_send_hostname: Option<String>,
    pub node: String,
    pub description: Option<String>,
    pub daemon: bool,
    /// As `-W`.
    pub master_worker: bool,
    /// `handoff`: path of the socket on which another process may take over, or a directory (`/` at the end) for the
    /// sockets of all.
    pub handoff: Option<String>,
    /// Workers that survived more reloads are stopped.
    pub mworker_max_reloads: u32,
    pub pidfile: Option<String>,
    pub hard_stop_after_ms: Option<u32>,
    pub grace_ms: u32,
    pub close_spread_time_ms: u32,
    pub bufsize: usize,
    pub maxrewrite: usize,
    pub maxhdr: usize,
    pub stick_counters: u16,
    pub http_err_codes: StatusSet,
    pub http_fail_codes: StatusSet,
    pub zero_warning: bool,
    pub quiet: bool,
    /// `setenv`/`presetenv`/`unsetenv` results that the process should also export (`None`: unset).
    pub environment: Vec<(String, Option<String>)>,
    /// `hostname`, else the machine's: logs, the `hostname` fetch.
    pub hostname: String,
    /// `localpeer`, `-L`, else the host name.
    pub localpeer: String,
    /// `user`, `group`: names that the shell looks up before it drops privileges; `uid`/`gid` win over them.
    pub user: Option<String>,
    pub group: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub chroot: Option<String>,
    /// Soft limit of open files to set before anything else.
    pub ulimit_n: Option<u64>,
    /// Directories of relative `ca-file`s, and of relative `crt`s and `key`s.
    pub ca_base: Option<String>,
    pub crt_base: Option<String>,
}

/// An address to listen on or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Address {
    Ip(SocketAddr),
    Unix(String),
    Fd(i32),
}

/// `stats socket`, `admin bind`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct StatsSocket {
    pub address: Address,
    pub level: CliLevel,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Names for the shell to look up.
    pub user: Option<String>,
    pub group: Option<String>,
    pub place: Place,
    /// as written
    pub text: String,
}

/// Connections to one `admin bind` at a time.
pub const ADMIN_CONNECTIONS_MAX: u16 = 32;

/// Rights on the CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum CliLevel {
    User,
    Operator,
    Admin,
}

/// File and line of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Place {
    pub file: u16,
    pub line: u32,
}

/// One proxy: frontend, backend, or both.
#[allow(missing_docs)]
pub struct Proxy {
    pub name: String,
    pub id: u32,
    pub place: Place,
    pub is_frontend: bool,
    pub is_backend: bool,
    pub mode: Mode,
    pub disabled: bool,
    /// Frontend: greatest number of concurrent connections.
    pub maxconn: u32,
    pub fullconn: u32,
    pub backlog: Option<u32>,
    pub binds: Vec<Bind>,
    pub servers: Vec<Server>,
    pub balance: Algorithm,
    pub timeouts: Timeouts,
    pub retries: u32,
    pub redispatch: bool,
    pub options: Options,
    pub forwardfor: Option<ForwardFor>,
    pub logs: Vec<LogTarget>,
    pub log_format: LogFormat,
    pub log_tag: Option<String>,
    pub table: Option<TableId>,
    pub rules: ProxyRules,
    pub error_pages: ErrorPages,
    pub description: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
/// `mode`.
pub enum Mode {
    Tcp,
    Http,
}

/// One address of a `bind` line (a line with several addresses gives several).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Bind {
    pub address: Address,
    pub name: Option<String>,
    pub id: Option<u32>,
    pub maxconn: Option<u32>,
    pub backlog: Option<u32>,
    pub accept_proxy: bool,
    pub v6only: bool,
    pub v4v6: bool,
    /// UNIX sockets: permissions and owner.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Names for the shell to look up.
    pub user: Option<String>,
    pub group: Option<String>,
    pub place: Place,
    /// the address as written
    pub text: String,
}

/// `server`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Server {
    pub name: String,
    pub id: u32,
    pub address: Address,
    /// Port relative to the client's (`+N`, `-N`, or omitted = Some(0)).
    pub port_offset: Option<i32>,
    pub weight: u32,
    pub maxconn: u32,
    pub maxqueue: u32,
    pub backup: bool,
    pub disabled: bool,
    pub place: Place,
}

/// `timeout NAME`, milliseconds; `None` = infinite / fall back as the reference says (the consumer applies fallbacks).
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Timeouts {
    pub client: Option<u32>,
    pub server: Option<u32>,
    pub connect: Option<u32>,
    pub queue: Option<u32>,
    pub http_request: Option<u32>,
    pub http_keep_alive: Option<u32>,
    pub tarpit: Option<u32>,
    pub tunnel: Option<u32>,
    pub client_fin: Option<u32>,
    pub server_fin: Option<u32>,
    pub client_hs: Option<u32>,
    pub check: Option<u32>,
}

/// `option NAME` switches that take no argument. (owner: config adds)
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Options {
    pub dontlognull: bool,
    pub http_server_close: bool,
    pub httpclose: bool,
    pub abortonclose: bool,
    pub allbackups: bool,
    pub contstats: bool,
    pub http_ignore_probes: bool,
    pub http_buffer_request: bool,
}

/// `option forwardfor`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ForwardFor {
    pub header: String,
    pub except: Option<(std::net::IpAddr, u8)>,
    pub if_none: bool,
}

/// `log` target.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct LogTarget {
    pub sink: LogSink,
    pub format: LogWire,
    pub facility: u8,
    /// syslog level numbers 0-7
    pub level_max: u8,
    pub level_min: u8,
    pub len: usize,
}
/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogSink {
    Stdout,
    Stderr,
    Udp(SocketAddr),
    UnixDgram(String),
    Fd(i32),
}
/// `format` of a log target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogWire {
    /// None is written: as `Rfc3164` if `log-send-hostname` is, else as `Local`.
    Default,
    Raw,
    Short,
    Timed,
    Iso,
    Local,
    Rfc3164,
    Rfc5424,
    Priority,
}
/// What a traffic line contains.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub enum LogFormat {
    /// HAProxy's minimal line ("Connect from …")
    #[default]
    Default,
    Tcp,
    Http,
}

/// Which proxies are there by name; handy for messages.
#[allow(missing_docs)]
pub fn proxy_named<'p>(plan: &'p Plan, name: &str) -> Option<(ProxyId, &'p Proxy)> {
    plan.proxies
        .iter()
        .enumerate()
        .find(|(_, p)| p.name == name)
        .map(|(i, p)| (ProxyId(i as u16), p))
}
