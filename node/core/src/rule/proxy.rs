//! A proxy's rule sets and the order in which they run on a request and on a response: everything between "head
//! parsed" and "send it there", without I/O. (reference: config-dialect section 5)

use super::action::{RuleSet, Verdict};
use super::cond::{Cond, Ternary};
use super::cx::{Cx, Msgs};
use super::expr::Format;
use super::run::Phase;
use super::track;
use crate::world::{ProxyId, ProxyState};

/// All rules of one proxy.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct ProxyRules {
    pub tcp_connection: RuleSet,
    pub tcp_session: RuleSet,
    pub tcp_content: RuleSet,
    pub tcp_response: RuleSet,
    pub http_request: RuleSet,
    pub http_response: RuleSet,
    pub http_after_response: RuleSet,
    pub redirects: RuleSet,
    /// `tcp-request inspect-delay`, milliseconds, 0 = none.
    pub inspect_delay_ms: u32,
    pub use_backend: Box<[UseBackend]>,
    pub default_backend: Option<ProxyId>,
}

impl ProxyRules {
    /// All sets with the words that select them, in the order in which they run.
    pub fn sets(&self) -> [(&'static str, &RuleSet); 8] {
        [
            ("tcp-request connection", &self.tcp_connection),
            ("tcp-request session", &self.tcp_session),
            ("tcp-request content", &self.tcp_content),
            ("http-request", &self.http_request),
            ("redirect", &self.redirects),
            ("tcp-response content", &self.tcp_response),
            ("http-response", &self.http_response),
            ("http-after-response", &self.http_after_response),
        ]
    }

    /// Numbers the rules from `next` on, which moves along.
    pub fn number(&mut self, next: &mut u32) {
        for set in [
            &mut self.tcp_connection,
            &mut self.tcp_session,
            &mut self.tcp_content,
            &mut self.http_request,
            &mut self.redirects,
            &mut self.tcp_response,
            &mut self.http_response,
            &mut self.http_after_response,
        ] {
            for rule in &mut set.rules {
                rule.number = *next;
                *next = next.saturating_add(1);
            }
        }
    }
}

/// One `use_backend` line.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct UseBackend {
    pub target: BackendRef,
    /// `true`: written as `unless`, which the condition itself has applied.
    pub cond: Option<(bool, Cond)>,
}
/// Target of `use_backend`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum BackendRef {
    Static(ProxyId),
    Dynamic(Format),
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum RequestOutcome<'p> {
    /// Call again with more content (or with `is_final` once the delay is over). `inspect_delay_ms` of the waiting proxy.
    Wait { inspect_delay_ms: u32 },
    /// Forward to this backend.
    Forward(ProxyId),
    /// A final verdict other than Pass/Wait, and the proxy whose rule it was (error pages, dreq).
    Final(ProxyId, Verdict<'p>),
    /// No backend: 503.
    NoBackend,
}
/// How far a request got, so that a set that waited restarts from its first rule and finished sets are not run again.
/// One per stream, `default()` at its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    step: Step,
    /// Request slots that were in use before the backend's content rules ran.
    before_backend: u128,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    FrontContent,
    BackContent(ProxyId),
    Done(ProxyId),
}

/// Runs a request (mode http) through its rules: the frontend's `tcp-request content`, `http-request`, redirects and
/// `use_backend`, then the backend's (reference: config-dialect 5, steps 6-13). Counts the request on trackers at the
/// right moments, and `http_err` for deny and tarpit. Sets `stream.backend`. The caller counts `dreq` and the like,
/// renders what is final, and calls again with the same `progress` after [`RequestOutcome::Wait`].
pub fn request_phase<'p>(
    cx: &Cx<'p>,
    msgs: &mut Msgs<'_>,
    progress: &mut Progress,
) -> RequestOutcome<'p> {
    phase(cx, msgs, progress, true)
}

/// The same for a TCP session (mode tcp): `tcp-request content`, `use_backend`, the backend's `tcp-request content`.
/// `msgs.req` is the head if the content happens to parse as HTTP.
pub fn tcp_phase<'p>(
    cx: &Cx<'p>,
    msgs: &mut Msgs<'_>,
    progress: &mut Progress,
) -> RequestOutcome<'p> {
    phase(cx, msgs, progress, false)
}

fn phase<'p>(
    cx: &Cx<'p>,
    msgs: &mut Msgs<'_>,
    progress: &mut Progress,
    http: bool,
) -> RequestOutcome<'p> {
    let world = cx.world;
    let frontend = cx.conn.frontend;
    let now = cx.now.mono_ms;
    let stream = cx.stream;
    let slots_in_use = || stream.map_or(0, |s| s.slots.in_use());
    if progress.step == Step::FrontContent {
        let Some(front) = world.proxy(frontend) else {
            return RequestOutcome::NoBackend;
        };
        let cx = Cx {
            proxy: frontend,
            ..*cx
        };
        match content(&front.rules, &cx, msgs) {
            Verdict::Pass => {}
            Verdict::Wait => return wait(&front.rules),
            verdict => return RequestOutcome::Final(frontend, verdict),
        }
        if http {
            // Trackers of the connection and of the content rules; later ones count when they start.
            track::count_http_request(world, cx.conn, cx.stream, now);
            match request_rules(&front.rules, &cx, msgs) {
                Verdict::Pass => {}
                verdict => return RequestOutcome::Final(frontend, verdict),
            }
        }
        let Some(backend) = choose_backend(front, frontend, &cx, msgs, http) else {
            return RequestOutcome::NoBackend;
        };
        if let Some(stream) = cx.stream {
            stream.backend.set(Some(backend));
        }
        progress.step = if backend == frontend {
            Step::Done(backend) // a listen section: its rules have just run
        } else {
            progress.before_backend = slots_in_use();
            Step::BackContent(backend)
        };
    }
    let backend = match progress.step {
        Step::FrontContent => return RequestOutcome::NoBackend,
        Step::Done(backend) => return RequestOutcome::Forward(backend),
        Step::BackContent(backend) => backend,
    };
    let Some(back) = world.proxy(backend) else {
        return RequestOutcome::NoBackend;
    };
    let cx = Cx {
        proxy: backend,
        ..*cx
    };
    match content(&back.rules, &cx, msgs) {
        Verdict::Pass => {}
        Verdict::Wait => return wait(&back.rules),
        verdict => return RequestOutcome::Final(backend, verdict),
    }
    if http {
        if let Some(stream) = cx.stream
            && !back.rules.tcp_content.rules.is_empty()
        {
            let own = slots_in_use() & !progress.before_backend;
            track::count_http_request_of(world, stream, own, now);
        }
        match request_rules(&back.rules, &cx, msgs) {
            Verdict::Pass => {}
            verdict => return RequestOutcome::Final(backend, verdict),
        }
    }
    progress.step = Step::Done(backend);
    RequestOutcome::Forward(backend)
}

/// `tcp-request content`. Without an inspect-delay nothing is waited for.
fn content<'p>(rules: &'p ProxyRules, cx: &Cx<'_>, msgs: &mut Msgs<'_>) -> Verdict<'p> {
    let was_final = msgs.req_content.is_final;
    msgs.req_content.is_final |= rules.inspect_delay_ms == 0;
    let verdict = rules.tcp_content.run_in(Phase::Content, cx, msgs);
    msgs.req_content.is_final = was_final;
    verdict
}

fn wait<'p>(rules: &ProxyRules) -> RequestOutcome<'p> {
    RequestOutcome::Wait {
        inspect_delay_ms: rules.inspect_delay_ms,
    }
}

/// `http-request`, then `redirect`. Denying is a client's error, and counted as one.
fn request_rules<'p>(rules: &'p ProxyRules, cx: &Cx<'_>, msgs: &mut Msgs<'_>) -> Verdict<'p> {
    let verdict = match rules.http_request.run_in(Phase::HttpRequest, cx, msgs) {
        Verdict::Pass => rules.redirects.run_in(Phase::HttpRequest, cx, msgs),
        verdict => verdict,
    };
    if matches!(verdict, Verdict::Deny(_) | Verdict::Tarpit(_)) {
        track::count_http_error(cx.world, cx.conn, cx.stream, cx.now.mono_ms);
    }
    verdict
}

/// The first `use_backend` whose condition holds and whose target exists, else the default, else (listen) itself.
fn choose_backend(
    front: &ProxyState,
    frontend: ProxyId,
    cx: &Cx<'_>,
    msgs: &mut Msgs<'_>,
    http: bool,
) -> Option<ProxyId> {
    let was_final = msgs.req_content.is_final;
    msgs.req_content.is_final = true;
    let chosen = front
        .rules
        .use_backend
        .iter()
        .find_map(|rule| {
            if let Some((_, cond)) = &rule.cond
                && cond.eval(cx, msgs) != Ternary::True
            {
                return None;
            }
            match &rule.target {
                BackendRef::Static(backend) => Some(*backend),
                BackendRef::Dynamic(format) => {
                    let mut name = Vec::new();
                    format.render(cx, msgs, &mut name);
                    let backend = cx.world.backend_named(&name)?;
                    let proxy = cx.world.proxy(backend)?;
                    (proxy.mode_http == http).then_some(backend)
                }
            }
        })
        .or(front.rules.default_backend)
        .or(front.is_backend.then_some(frontend));
    msgs.req_content.is_final = was_final;
    chosen
}

/// Runs a server's response head through `tcp-response content` of the backend and `http-response` of the backend, then
/// of the frontend; counts `http_err`/`http_fail` by its status first. Gives the proxy whose rule decided. Never `Wait`.
/// Not for interim (1xx) responses but 101.
pub fn response_phase<'p>(cx: &Cx<'p>, msgs: &mut Msgs<'_>) -> (ProxyId, Verdict<'p>) {
    let world = cx.world;
    if let Some(res) = msgs.res.as_deref() {
        let (status, now) = (res.status(), cx.now.mono_ms);
        if world.process.http_err_codes.contains(status) {
            track::count_http_error(world, cx.conn, cx.stream, now);
        }
        if world.process.http_fail_codes.contains(status) {
            track::count_http_failure(world, cx.conn, cx.stream, now);
        }
    }
    let (backend, frontend) = sides(cx);
    if let Some(back) = world.proxy(backend) {
        let cx = Cx {
            proxy: backend,
            ..*cx
        };
        match back.rules.tcp_response.run_in(Phase::Response, &cx, msgs) {
            Verdict::Pass => {}
            verdict => return (backend, verdict),
        }
    }
    if msgs.res.is_some() {
        for proxy in both(backend, frontend) {
            let Some(state) = world.proxy(proxy) else {
                continue;
            };
            let cx = Cx { proxy, ..*cx };
            match state.rules.http_response.run_in(Phase::Response, &cx, msgs) {
                Verdict::Pass => {}
                verdict => return (proxy, verdict),
            }
        }
    }
    (frontend, Verdict::Pass)
}

/// Runs `http-after-response` of the backend, then of the frontend, on any response, also locally made ones.
pub fn after_response_phase(cx: &Cx<'_>, msgs: &mut Msgs<'_>) {
    let (backend, frontend) = sides(cx);
    for proxy in both(backend, frontend) {
        if let Some(state) = cx.world.proxy(proxy) {
            let cx = Cx { proxy, ..*cx };
            // Only edits are possible in this set; an edit that fails leaves the response as it is.
            state
                .rules
                .http_after_response
                .run_in(Phase::Response, &cx, msgs);
        }
    }
}

/// Backend and frontend; the frontend twice while no backend is chosen.
fn sides(cx: &Cx<'_>) -> (ProxyId, ProxyId) {
    let frontend = cx.conn.frontend;
    let backend = cx.stream.and_then(|s| s.backend.get());
    (backend.unwrap_or(frontend), frontend)
}

fn both(backend: ProxyId, frontend: ProxyId) -> impl Iterator<Item = ProxyId> {
    let second = (backend != frontend).then_some(frontend);
    std::iter::once(backend).chain(second)
}
