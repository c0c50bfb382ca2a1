//! The shared state that rules see: tables, proxies with their rules and counters, process facts.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use crate::rule::hits::RuleHits;
use crate::rule::proxy::ProxyRules;
use crate::rule::vars::Vars;
use crate::stats::{BackStats, FreqCounter, FrontStats, ServerStats};
use crate::table::{Table, TableId};

/// Position of a proxy in [`World::proxies`] (order of declaration).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProxyId(pub u16);

/// Shared by all threads for the life of the process.
#[allow(missing_docs)]
pub struct World {
    pub tables: Box<[Table]>,
    pub proxies: Box<[ProxyState]>,
    pub proc_vars: Mutex<Vars>,
    pub process: ProcessState,
}

/// A proxy as rules and counters see it.
#[allow(missing_docs)]
pub struct ProxyState {
    pub name: String,
    /// `id N` or the default numbering from 2 (1 is reserved).
    pub id: u32,
    pub is_frontend: bool,
    pub is_backend: bool,
    pub mode_http: bool,
    /// Its own `stick-table`.
    pub table: Option<TableId>,
    pub rules: ProxyRules,
    pub error_pages: ErrorPages,
    pub front: FrontStats,
    pub back: BackStats,
    pub servers: Box<[ServerState]>,
    /// Names of its `bind` lines, in order (`so_name`).
    pub binds: Box<[String]>,
    /// Current connections of each of them (`dst_conn`).
    pub bind_conns: Box<[AtomicU32]>,
    /// Frontend `maxconn`.
    pub maxconn: AtomicU32,
    pub fullconn: u32,
    /// `option allbackups`: all backup servers serve when no other does, not only the first.
    pub allbackups: bool,
}

/// A server as rules, balance and counters see it.
#[allow(missing_docs)]
pub struct ServerState {
    pub name: String,
    /// `id N` or numbering from 1.
    pub id: u32,
    pub weight_initial: u32,
    pub backup: bool,
    /// 0 = unlimited
    pub maxconn: AtomicU32,
    /// Places in its queue, 0 = unlimited.
    pub maxqueue: u32,
    pub stats: ServerStats,
}

impl ServerState {
    /// May take new traffic.
    pub fn usable(&self) -> bool {
        self.stats.admin.load(std::sync::atomic::Ordering::Relaxed) == 0
            && self.stats.weight.load(std::sync::atomic::Ordering::Relaxed) > 0
    }
}

/// Raw error files by status (`errorfile`): whole HTTP messages, sent as they are.
#[derive(Clone, Debug, Default)]
pub struct ErrorPages {
    #[allow(missing_docs)]
    pub files: Vec<(u16, std::sync::Arc<[u8]>)>,
}

/// Process-wide facts and counters.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct ProcessState {
    pub pid: u32,
    pub hostname: String,
    pub nbthread: u16,
    pub start_ms: u64,
    pub start_wall_us: u64,
    /// Soft stop in progress (`stopping`).
    pub stopping: AtomicBool,
    pub maxconn: AtomicU32,
    pub curr_conns: AtomicU32,
    pub cum_conns: AtomicU64,
    pub cum_reqs: AtomicU64,
    pub maxconn_reached: AtomicU64,
    pub conn_rate: FreqCounter,
    pub sess_rate: FreqCounter,
    pub bytes_out: AtomicU64,
    pub spliced_bytes_out: AtomicU64,
    pub dropped_logs: AtomicU64,
    /// Times a process took over from the one before it.
    pub handoffs_done: AtomicU64,
    /// Times a process had begun to take over and did not.
    pub handoffs_broken: AtomicU64,
    /// Matches of rules, by their numbers.
    pub rule_hits: RuleHits,
    /// Status codes that count as client errors / server failures: bit per code 0-599.
    pub http_err_codes: StatusSet,
    pub http_fail_codes: StatusSet,
    /// `tune.stick-counters`.
    pub stick_counters: u16,
    /// Addresses of this host's interfaces (`src_is_local`).
    pub local_addrs: Vec<std::net::IpAddr>,
}

impl ProcessState {
    /// What only ever grows, in an order that two versions of the program agree on: new ones go to the end.
    pub fn totals(&self) -> impl Iterator<Item = &AtomicU64> {
        [
            &self.cum_conns,
            &self.cum_reqs,
            &self.maxconn_reached,
            &self.bytes_out,
            &self.spliced_bytes_out,
            &self.dropped_logs,
            &self.handoffs_done,
            &self.handoffs_broken,
        ]
        .into_iter()
    }
}

impl ProxyState {
    /// The totals of its sides and its servers.
    pub fn totals(&self) -> impl Iterator<Item = &AtomicU64> {
        let servers = self.servers.iter().flat_map(|s| s.stats.totals());
        self.front.totals().chain(self.back.totals()).chain(servers)
    }
}

impl World {
    /// The proxy with that id.
    pub fn proxy(&self, id: ProxyId) -> Option<&ProxyState> {
        self.proxies.get(usize::from(id.0))
    }
    /// The table with that id.
    pub fn table(&self, id: TableId) -> Option<&Table> {
        self.tables.get(usize::from(id.0))
    }
    /// The backend of that name.
    pub fn backend_named(&self, name: &[u8]) -> Option<ProxyId> {
        self.proxies
            .iter()
            .position(|p| p.is_backend && p.name.as_bytes() == name)
            .and_then(|i| u16::try_from(i).ok())
            .map(ProxyId)
    }
}

impl ErrorPages {
    /// The file for a status.
    pub fn get(&self, status: u16) -> Option<&std::sync::Arc<[u8]>> {
        self.files
            .iter()
            .find(|(s, _)| *s == status)
            .map(|(_, f)| f)
    }
}

/// A set of status codes 100-599.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(pub [u64; 8]);

impl StatusSet {
    /// No code at all.
    pub const EMPTY: StatusSet = StatusSet([0; 8]);

    /// The default of `http-err-codes`: 400-499.
    pub fn client_errors() -> StatusSet {
        let mut set = StatusSet::EMPTY;
        set.insert(400, 499);
        set
    }
    /// The default of `http-fail-codes`: 500-599 without 501 and 505.
    pub fn server_failures() -> StatusSet {
        let mut set = StatusSet::EMPTY;
        set.insert(500, 599);
        set.remove(501, 501);
        set.remove(505, 505);
        set
    }
    /// Adds `from` to `to`; codes outside 100-599 are no statuses and ignored.
    pub fn insert(&mut self, from: u16, to: u16) {
        for code in from..=to {
            if let Some((word, bit)) = Self::place(code) {
                self.0[word] |= bit;
            }
        }
    }
    /// Takes `from` to `to` out.
    pub fn remove(&mut self, from: u16, to: u16) {
        for code in from..=to {
            if let Some((word, bit)) = Self::place(code) {
                self.0[word] &= !bit;
            }
        }
    }
    /// Whether the code is in the set.
    pub fn contains(&self, code: u16) -> bool {
        Self::place(code).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }
    fn place(code: u16) -> Option<(usize, u64)> {
        (100..600)
            .contains(&code)
            .then(|| (usize::from(code - 100) / 64, 1 << ((code - 100) % 64)))
    }
}

impl Default for StatusSet {
    fn default() -> Self {
        StatusSet::EMPTY
    }
}
