//! Running a rule set: conditions, effects, verdict.

use super::action::{Action, HeaderMatch, Operand, Redirect, RuleSet, Verdict};
use super::cond::Ternary;
use super::cx::{Cx, Msgs};
use super::expr::{Expr, Format, Outcome};
use super::sample::Sample;
use super::track;
use super::vars;
use crate::http1::Head;
use crate::table::{DataType, TableId};

/// Which rule sets run: what may still arrive, which message is edited, what tracking counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// `tcp-request connection`, `tcp-request session`.
    Connection,
    /// `tcp-request content`: may wait.
    Content,
    HttpRequest,
    /// `tcp-response content`, `http-response`, `http-after-response`.
    Response,
}

impl RuleSet {
    /// Runs `tcp-request connection` or `tcp-request session` rules in order. `cx.stream` is `None`, so that what they
    /// track belongs to the connection. Never waits. (The sets of requests and responses are run by
    /// [`super::proxy::request_phase`] and its sisters.)
    pub fn run<'p>(&'p self, cx: &Cx<'_>, msgs: &mut Msgs<'_>) -> Verdict<'p> {
        self.run_in(Phase::Connection, cx, msgs)
    }

    pub(super) fn run_in<'p>(
        &'p self,
        phase: Phase,
        cx: &Cx<'_>,
        msgs: &mut Msgs<'_>,
    ) -> Verdict<'p> {
        if self.rules.is_empty() {
            return Verdict::Pass;
        }
        // Outside content rules nothing more is waited for: what has not arrived is absent.
        let was_final = msgs.req_content.is_final;
        msgs.req_content.is_final |= phase != Phase::Content;
        let verdict = self.run_final(phase, cx, msgs);
        msgs.req_content.is_final = was_final;
        verdict
    }

    fn run_final<'p>(&'p self, phase: Phase, cx: &Cx<'_>, msgs: &mut Msgs<'_>) -> Verdict<'p> {
        for rule in &self.rules {
            if let Some(cond) = &rule.cond {
                match cond.eval(cx, msgs) {
                    Ternary::True => {}
                    Ternary::False => continue,
                    Ternary::Unknown if msgs.req_content.is_final => continue,
                    Ternary::Unknown => return Verdict::Wait,
                }
            }
            let step = rule.action.run(phase, cx, msgs);
            if let Step::Stop(Verdict::Wait) = step {
                return Verdict::Wait; // it will run again
            }
            cx.world.process.rule_hits.count(cx.thread, rule.number);
            if let Step::Stop(verdict) = step {
                return verdict;
            }
        }
        Verdict::Pass
    }
}

/// What a rule means for the ones after it.
enum Step<'p> {
    Next,
    Stop(Verdict<'p>),
}

impl Action {
    fn run<'p>(&'p self, phase: Phase, cx: &Cx<'_>, msgs: &mut Msgs<'_>) -> Step<'p> {
        match self {
            Action::Allow => Step::Stop(Verdict::Pass),
            Action::Deny(reply) => Step::Stop(Verdict::Deny(reply)),
            Action::Tarpit(reply) => Step::Stop(Verdict::Tarpit(reply)),
            Action::Return(reply) => Step::Stop(Verdict::Return(reply)),
            Action::Redirect(redirect) if redirect.goes_nowhere(cx, msgs) => Step::Next,
            Action::Redirect(redirect) => Step::Stop(Verdict::Redirect(redirect)),
            Action::UseService(service) => Step::Stop(Verdict::Service(*service)),
            Action::Reject => Step::Stop(Verdict::Reject),
            Action::SilentDrop { rst_ttl } => Step::Stop(Verdict::SilentDrop { rst_ttl: *rst_ttl }),
            Action::Track { slot, key, table } => track_key(phase, cx, msgs, *slot, key, *table),
            Action::IncGpc { index, slot } => {
                change_gpc(cx, *slot, gpc(*index), *index, 1);
                Step::Next
            }
            Action::AddGpc { index, slot, value } => {
                if let Some(n) = value.number(cx, msgs) {
                    change_gpc(cx, *slot, DataType::Gpc, *index, n);
                }
                Step::Next
            }
            Action::SetGpt { index, slot, value } => {
                if let Some(n) = value.number(cx, msgs) {
                    set_gpt(cx, *slot, *index, n);
                }
                Step::Next
            }
            Action::SetVar {
                var,
                conditions,
                value,
            } => {
                if let Outcome::Value(sample) = value.eval(cx, msgs) {
                    vars::set(cx, *var, *conditions, sample.into_owned());
                }
                Step::Next
            }
            Action::SetVarFmt {
                var,
                conditions,
                value,
            } => {
                let mut text = Vec::new();
                value.render(cx, msgs, &mut text);
                vars::set(cx, *var, *conditions, Sample::Str(text.into()));
                Step::Next
            }
            Action::UnsetVar { var } => {
                vars::change(cx, var.scope, |vars| vars.unset(var.name));
                Step::Next
            }
            Action::SetHeader { name, value } => edit(phase, cx, msgs, value, |head, value| {
                head.set_header(name, value).is_ok()
            }),
            Action::AddHeader { name, value } => edit(phase, cx, msgs, value, |head, value| {
                head.add_header(name, value).is_ok()
            }),
            Action::DelHeader { matches } => {
                if let Some(head) = edited(phase, msgs) {
                    head.remove_headers(|name| matches.matches(name));
                }
                Step::Next
            }
        }
    }
}

/// The first tracking of a slot wins; without a key, or in a full table, nothing is tracked and the rules go on.
fn track_key<'p>(
    phase: Phase,
    cx: &Cx<'_>,
    msgs: &Msgs<'_>,
    slot: u8,
    key: &Expr,
    table: TableId,
) -> Step<'p> {
    if track::find(cx, slot).is_some() {
        return Step::Next;
    }
    let key = match key.eval(cx, msgs) {
        Outcome::Value(sample) => cx.world.table(table).and_then(|t| t.key(&sample)),
        Outcome::Missing => None,
        Outcome::NotYet if msgs.req_content.is_final => None,
        Outcome::NotYet => return Step::Stop(Verdict::Wait),
    };
    // Trackers of content rules are counted when the request is; these come after that moment.
    let also = match phase {
        Phase::HttpRequest | Phase::Response => Some(DataType::HttpReqCnt),
        Phase::Connection | Phase::Content => None,
    };
    let Some(tracker) = key.and_then(|key| track::start(cx, slot, table, &key, also)) else {
        return Step::Next;
    };
    let (world, now) = (cx.world, cx.now.mono_ms);
    if phase == Phase::Response
        && let Some(res) = msgs.res.as_deref()
    {
        if world.process.http_err_codes.contains(res.status()) {
            track::count(world, tracker, DataType::HttpErrCnt, 1, now);
        }
        if world.process.http_fail_codes.contains(res.status()) {
            track::count(world, tracker, DataType::HttpFailCnt, 1, now);
        }
    }
    Step::Next
}

/// `gpc0` and `gpc1` by their old names, which also mean the array's first elements.
fn gpc(index: u16) -> DataType {
    match index {
        0 => DataType::Gpc0,
        1 => DataType::Gpc1,
        _ => DataType::Gpc,
    }
}

fn change_gpc(cx: &Cx<'_>, slot: u8, what: DataType, index: u16, n: u32) {
    let Some(tracker) = track::find(cx, slot) else {
        return;
    };
    let Some(table) = cx.world.table(tracker.table) else {
        return;
    };
    let now = cx.now.mono_ms;
    let index = if what == DataType::Gpc { index } else { 0 };
    table.write(tracker.entry, |mut entry| {
        if entry.inc(what, index, u64::from(n), now).is_some() {
            entry.touch(now);
        }
    });
}

fn set_gpt(cx: &Cx<'_>, slot: u8, index: u16, n: u32) {
    let Some(tracker) = track::find(cx, slot) else {
        return;
    };
    let Some(table) = cx.world.table(tracker.table) else {
        return;
    };
    let now = cx.now.mono_ms;
    let what = if index == 0 {
        DataType::Gpt0
    } else {
        DataType::Gpt
    };
    table.write(tracker.entry, |mut entry| {
        if entry.set(what, index, u64::from(n), now) {
            entry.touch(now);
        }
    });
}

impl Operand {
    /// The number, an expression's result cut to 32 bits; `None`: no sample.
    fn number(&self, cx: &Cx<'_>, msgs: &Msgs<'_>) -> Option<u32> {
        match self {
            Operand::Int(n) => Some(*n),
            Operand::Expr(expr) => match expr.eval(cx, msgs) {
                Outcome::Value(sample) => sample.to_int().map(|n| n as u32),
                Outcome::Missing | Outcome::NotYet => None,
            },
        }
    }
}

/// The message that header actions change.
fn edited<'m>(phase: Phase, msgs: &'m mut Msgs<'_>) -> Option<&'m mut Head> {
    match phase {
        Phase::Response => msgs.res.as_deref_mut(),
        _ => msgs.req.as_deref_mut(),
    }
}

/// Computes the value before anything is removed, then changes the head.
fn edit<'p>(
    phase: Phase,
    cx: &Cx<'_>,
    msgs: &mut Msgs<'_>,
    value: &Format,
    change: impl FnOnce(&mut Head, &[u8]) -> bool,
) -> Step<'p> {
    let mut text = Vec::new();
    value.render(cx, msgs, &mut text);
    if edited(phase, msgs).is_none_or(|head| change(head, &text)) {
        Step::Next
    } else {
        Step::Stop(Verdict::EditFailed)
    }
}

impl HeaderMatch {
    fn matches(&self, name: &[u8]) -> bool {
        let same = |a: Option<&[u8]>, b: &[u8]| a.is_some_and(|a| a.eq_ignore_ascii_case(b));
        match self {
            HeaderMatch::Str(text) => same(Some(name), text),
            HeaderMatch::Beg(text) => same(name.get(..text.len()), text),
            HeaderMatch::End(text) => {
                let at = name.len().checked_sub(text.len());
                same(at.and_then(|at| name.get(at..)), text)
            }
            HeaderMatch::Sub(text) => {
                text.is_empty()
                    || name
                        .windows(text.len())
                        .any(|w| w.eq_ignore_ascii_case(text))
            }
            HeaderMatch::Reg(regex) => regex.is_match(name),
        }
    }
}

impl Redirect {
    /// `ignore-empty` and an empty target: the next rule is tried.
    fn goes_nowhere(&self, cx: &Cx<'_>, msgs: &Msgs<'_>) -> bool {
        self.ignore_empty && self.target.is_empty(cx, msgs)
    }
}
