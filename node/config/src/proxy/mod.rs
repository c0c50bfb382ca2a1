//! Statements of `defaults`, `frontend`, `backend` and `listen`: one row per keyword, settings that are inherited and
//! those that are not.

mod options;
mod rule_lines;
mod statements;

use remora_core::balance::Algorithm;
use remora_core::world::ErrorPages;

use crate::ast::{SectionKind, Statement, shown};
use crate::plan::{self, Bind, ForwardFor, LogTarget, Mode, Place, Server, Timeouts};
use crate::scope::Scope;
use crate::servers;

pub(crate) use statements::{apply, parse_mode};

/// What a `defaults` section hands down to the proxies below it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) timeouts: Timeouts,
    pub(crate) options: plan::Options,
    pub(crate) log_kind: LogKind,
    /// Where `option httplog` or `tcplog` stands.
    pub(crate) log_kind_place: Option<Place>,
    pub(crate) logs: Vec<LogEntry>,
    pub(crate) log_tag: Option<String>,
    pub(crate) maxconn: Option<u32>,
    pub(crate) fullconn: Option<u32>,
    pub(crate) backlog: Option<u32>,
    pub(crate) balance: Algorithm,
    pub(crate) retries: u32,
    pub(crate) redispatch: bool,
    pub(crate) default_backend: Option<(String, Place)>,
    pub(crate) error_pages: ErrorPages,
    pub(crate) forwardfor: Option<ForwardFor>,
    pub(crate) server: servers::Defaults,
    pub(crate) disabled: bool,
    pub(crate) inspect_delay_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Tcp,
            timeouts: Timeouts::default(),
            options: plan::Options::default(),
            log_kind: LogKind::Default,
            log_kind_place: None,
            logs: Vec::new(),
            log_tag: None,
            maxconn: None,
            fullconn: None,
            backlog: None,
            balance: Algorithm::RoundRobin,
            retries: 3,
            redispatch: false,
            default_backend: None,
            error_pages: ErrorPages::default(),
            forwardfor: None,
            server: servers::Defaults::default(),
            disabled: false,
            inspect_delay_ms: 0,
        }
    }
}

/// Which traffic line was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    Default,
    Tcp,
    Http,
}

/// A `log` line.
#[derive(Clone, Debug)]
pub(crate) enum LogEntry {
    /// `log global`
    Global,
    Target(LogTarget),
}

/// What belongs to one proxy alone.
#[derive(Debug, Default)]
pub(crate) struct Own {
    pub(crate) id: Option<u32>,
    pub(crate) description: Option<String>,
    pub(crate) binds: Vec<Bind>,
    /// With each: whether it has an `id` of its own.
    pub(crate) servers: Vec<(Server, bool)>,
    pub(crate) acls: Vec<Statement>,
    pub(crate) rules: Vec<RawRule>,
}

/// The sets that rules go to, in the order in which they run on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Set {
    TcpConnection,
    TcpSession,
    TcpContent,
    HttpRequest,
    Redirect,
    UseBackend,
    TcpResponse,
    HttpResponse,
    HttpAfterResponse,
}

impl Set {
    /// As the configuration writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Set::TcpConnection => "tcp-request connection",
            Set::TcpSession => "tcp-request session",
            Set::TcpContent => "tcp-request content",
            Set::HttpRequest => "http-request",
            Set::Redirect => "redirect",
            Set::UseBackend => "use_backend",
            Set::TcpResponse => "tcp-response content",
            Set::HttpResponse => "http-response",
            Set::HttpAfterResponse => "http-after-response",
        }
    }
    pub(crate) fn is_http(self) -> bool {
        matches!(
            self,
            Set::HttpRequest | Set::Redirect | Set::HttpResponse | Set::HttpAfterResponse
        )
    }
}

/// A rule before it is compiled.
#[derive(Clone, Debug)]
pub(crate) struct RawRule {
    pub(crate) set: Set,
    pub(crate) statement: Statement,
    /// Words in front of the action.
    pub(crate) skip: usize,
}

/// The section being read.
pub(crate) struct Section<'s, 'a> {
    pub(crate) scope: &'s mut Scope<'a>,
    pub(crate) settings: &'s mut Settings,
    pub(crate) own: &'s mut Own,
    pub(crate) kind: SectionKind,
    pub(crate) name: &'s str,
}

impl Section<'_, '_> {
    fn is_defaults(&self) -> bool {
        self.kind == SectionKind::Defaults
    }
    pub(crate) fn front(&self) -> bool {
        matches!(self.kind, SectionKind::Frontend | SectionKind::Listen)
    }
    pub(crate) fn back(&self) -> bool {
        matches!(self.kind, SectionKind::Backend | SectionKind::Listen)
    }
    /// `backend 'b'`, `proxy 'l'`.
    pub(crate) fn title(&self) -> String {
        title(self.kind, self.name)
    }
}

/// `frontend 'web'`; a `listen` is called a proxy.
pub(crate) fn title(kind: SectionKind, name: &str) -> String {
    match kind {
        SectionKind::Listen => format!("proxy '{name}'"),
        _ => format!("{} '{name}'", kind.word()),
    }
}

/// Refuses arguments past the first `max`.
pub(crate) fn no_more(s: &Statement, max: usize) -> Result<(), String> {
    match s.args().get(max) {
        Some(extra) => {
            let lead = s
                .words
                .iter()
                .take(1 + usize::from(matches!(s.keyword().as_str(), "stats" | "option")))
                .map(shown)
                .collect::<Vec<_>>()
                .join(" ");
            Err(format!(
                "'{lead}' cannot handle unexpected argument '{}'.",
                shown(extra)
            ))
        }
        None => Ok(()),
    }
}
