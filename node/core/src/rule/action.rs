//! Actions, rule sets and their verdicts.

use std::borrow::Cow;
use std::sync::Arc;

use super::cond::Cond;
use super::expr::{Expr, Format};
use super::vars::VarRef;
use crate::table::TableId;

/// A compiled action.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Action {
    /// `accept`, `allow`: stop this set, let pass.
    Allow,
    Deny(Box<Reply>),
    Tarpit(Box<Reply>),
    Return(Box<Reply>),
    Redirect(Box<Redirect>),
    /// `use-service NAME`
    UseService(Service),
    Reject,
    SilentDrop {
        rst_ttl: u8,
    },
    Track {
        slot: u8,
        key: Expr,
        table: TableId,
    },
    /// `sc-inc-gpc(i,sc)`, and the old spellings as index 0/1.
    IncGpc {
        index: u16,
        slot: u8,
    },
    AddGpc {
        index: u16,
        slot: u8,
        value: Operand,
    },
    SetGpt {
        index: u16,
        slot: u8,
        value: Operand,
    },
    SetVar {
        var: VarRef,
        conditions: VarConditions,
        value: Expr,
    },
    /// `set-var-fmt(V[,…]) FMT`
    SetVarFmt {
        var: VarRef,
        conditions: VarConditions,
        value: Format,
    },
    UnsetVar {
        var: VarRef,
    },
    SetHeader {
        name: Vec<u8>,
        value: Format,
    },
    AddHeader {
        name: Vec<u8>,
        value: Format,
    },
    DelHeader {
        matches: HeaderMatch,
    },
}

/// Services that answer requests by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `prometheus-exporter`: the metrics page.
    PrometheusExporter,
}

impl Action {
    /// How it is written, without arguments: `deny`, `track-sc0`.
    pub fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Action::Allow => "allow",
            Action::Deny(_) => "deny",
            Action::Tarpit(_) => "tarpit",
            Action::Return(_) => "return",
            Action::Redirect(_) => "redirect",
            Action::UseService(_) => "use-service",
            Action::Reject => "reject",
            Action::SilentDrop { .. } => "silent-drop",
            Action::Track { slot, .. } => return Cow::Owned(format!("track-sc{slot}")),
            Action::IncGpc { .. } => "sc-inc-gpc",
            Action::AddGpc { .. } => "sc-add-gpc",
            Action::SetGpt { .. } => "sc-set-gpt",
            Action::SetVar { .. } => "set-var",
            Action::SetVarFmt { .. } => "set-var-fmt",
            Action::UnsetVar { .. } => "unset-var",
            Action::SetHeader { .. } => "set-header",
            Action::AddHeader { .. } => "add-header",
            Action::DelHeader { .. } => "del-header",
        })
    }
}

/// `N | EXPR`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Operand {
    Int(u32),
    Expr(Expr),
}

pub use super::vars::VarConditions;

/// Names that `del-header` takes away.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum HeaderMatch {
    Str(Vec<u8>),
    Beg(Vec<u8>),
    End(Vec<u8>),
    Sub(Vec<u8>),
    Reg(Box<regex::bytes::Regex>),
}

/// A local answer (`deny`, `tarpit`, `return`).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Reply {
    pub status: u16,
    pub body: ReplyBody,
    pub content_type: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Format)>,
}

/// Where the body of a local answer comes from.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum ReplyBody {
    /// `return` without a body.
    Empty,
    /// The proxy's error page for the status (errorfile or built in).
    ErrorPage,
    /// `errorfile F`: a whole raw HTTP message.
    Raw(Arc<[u8]>),
    /// `string`, `file`.
    Bytes(Arc<[u8]>),
    /// `lf-string`, `lf-file`.
    Format(Format),
}

pub use super::reply::{PAGE_STATUSES, reason, render_error_page, render_error_page_of};

/// A compiled `redirect`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Redirect {
    pub kind: RedirectKind,
    pub target: Format,
    pub code: u16,
    pub drop_query: bool,
    pub append_slash: bool,
    pub ignore_empty: bool,
    /// `set-cookie NAME[=V]` / `clear-cookie NAME[=]`, as the header value to send.
    pub set_cookie: Option<Vec<u8>>,
}
/// First word of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RedirectKind {
    Location,
    Prefix,
    Scheme,
}

/// A rule with its place in the configuration.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Rule {
    pub action: Action,
    pub cond: Option<Cond>,
    /// File index and line, for messages.
    pub place: (u16, u32),
    /// Its number among the rules of the process, for [`super::hits::RuleHits`]: see
    /// [`super::proxy::ProxyRules::number`].
    pub number: u32,
}

impl Rule {
    /// The number of a rule that has none: its matches are not counted.
    pub const UNNUMBERED: u32 = u32::MAX;

    /// A rule without a number.
    pub fn new(action: Action, cond: Option<Cond>, place: (u16, u32)) -> Rule {
        Rule {
            action,
            cond,
            place,
            number: Rule::UNNUMBERED,
        }
    }
}

/// One set of rules (say, a frontend's `http-request`).
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct RuleSet {
    pub rules: Box<[Rule]>,
}

/// What a rule set decided.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Verdict<'p> {
    /// Fell off the end, or accept/allow.
    Pass,
    /// Needs content that has not arrived: run the set again when there is more.
    Wait,
    Deny(&'p Reply),
    Tarpit(&'p Reply),
    Return(&'p Reply),
    Redirect(&'p Redirect),
    /// The service makes the answer.
    Service(Service),
    /// Close without an answer.
    Reject,
    /// An edit could not be made safely (`set-header` with a line break …): 500, in a response 502.
    EditFailed,
    /// Vanish: no FIN, no RST reaches the client (`rst_ttl`: TTL of the RST if TCP_REPAIR is not permitted).
    SilentDrop {
        rst_ttl: u8,
    },
}
