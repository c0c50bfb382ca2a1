//! A proxy's rules on their way into its sets.

use std::collections::HashMap;

use remora_core::rule::action::{Rule, RuleSet};
use remora_core::rule::proxy::{ProxyRules, UseBackend};
use remora_core::world::ProxyId;

use crate::proxy::{RawRule, Set};
use crate::rules;
use crate::scope::{Scope, Where};

/// Compiled rules, still in the order of their lines.
#[derive(Default)]
pub(crate) struct Compiled {
    sets: Vec<(Set, Rule)>,
    use_backend: Vec<UseBackend>,
}

impl Compiled {
    pub(crate) fn add(&mut self, raw: &RawRule, scope: &mut Scope<'_>) -> Result<(), String> {
        let args = raw.statement.words.get(raw.skip..).unwrap_or_default();
        let at = match raw.set {
            Set::TcpConnection => Where::TcpConnection,
            Set::TcpSession => Where::TcpSession,
            Set::TcpContent => Where::TcpContent,
            Set::TcpResponse => Where::TcpResponse,
            Set::HttpRequest => Where::HttpRequest,
            Set::HttpResponse => Where::HttpResponse,
            Set::HttpAfterResponse => Where::HttpAfterResponse,
            Set::Redirect | Set::UseBackend => Where::UseBackend,
        };
        let rule = match raw.set {
            Set::UseBackend => {
                self.use_backend.push(rules::use_backend(args, scope)?);
                return Ok(());
            }
            Set::Redirect => rules::redirect(args, scope)?,
            set if set.is_http() => rules::http_rule(at, args, scope)?,
            _ => rules::tcp_rule(at, args, scope)?,
        };
        self.sets.push((raw.set, rule));
        Ok(())
    }

    /// Names of the sets of mode http that have rules.
    pub(crate) fn http_sets(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Vec::new();
        for (set, _) in &self.sets {
            if set.is_http() && !names.contains(&set.name()) {
                names.push(set.name());
            }
        }
        names
    }
    /// In mode tcp they are never run.
    pub(crate) fn drop_http(&mut self) {
        self.sets.retain(|(s, _)| !s.is_http());
    }

    pub(crate) fn finish(
        self,
        inspect_delay_ms: u32,
        default_backend: Option<ProxyId>,
    ) -> ProxyRules {
        let mut sets: HashMap<&'static str, Vec<Rule>> = HashMap::new();
        for (set, rule) in self.sets {
            sets.entry(set.name()).or_default().push(rule);
        }
        let mut take = |set: Set| RuleSet {
            rules: sets.remove(set.name()).unwrap_or_default().into(),
        };
        ProxyRules {
            tcp_connection: take(Set::TcpConnection),
            tcp_session: take(Set::TcpSession),
            tcp_content: take(Set::TcpContent),
            tcp_response: take(Set::TcpResponse),
            http_request: take(Set::HttpRequest),
            http_response: take(Set::HttpResponse),
            http_after_response: take(Set::HttpAfterResponse),
            redirects: take(Set::Redirect),
            inspect_delay_ms,
            use_backend: self.use_backend.into(),
            default_backend,
        }
    }
}
