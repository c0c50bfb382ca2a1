//! Limits and counters.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use remora_config::plan::CliLevel;
use remora_core::world::{ProxyState, World};

use super::{Answer, err};
use crate::admin::line::Words;
use crate::admin::session::Context;
use crate::shared::Shared;

pub(in crate::admin) fn maxconn_frontend(cx: &mut Context, words: &Words) -> Answer {
    let name = words.text(3);
    if name.is_empty() {
        return err("A frontend name is expected.");
    }
    let proxies = &cx.shared.world.proxies;
    let Some(at) = proxies.iter().position(|p| p.is_frontend && p.name == name) else {
        return err("No such frontend.");
    };
    let text = words.text(4);
    if text.is_empty() {
        return err("Integer value expected.");
    }
    let most = cx.shared.plan.global.maxconn;
    match text.parse::<u32>() {
        Ok(n) if n <= most => {
            // As HAProxy: 0 is the process's limit.
            let n = if n == 0 { most } else { n };
            if let Some(p) = proxies.get(at) {
                p.maxconn.store(n, SeqCst);
            }
            // Accept loops that wait at the old limit look again.
            if let Some(front) = cx.shared.plane.frontends.get(at) {
                front.gate.open();
            }
            Answer::Empty
        }
        _ => err("Value out of range."),
    }
}

pub(in crate::admin) fn maxconn_global(cx: &mut Context, words: &Words) -> Answer {
    let text = words.text(3);
    if text.is_empty() {
        return err("Expects an integer value.");
    }
    let most = cx.shared.plan.global.maxconn;
    match text.parse::<u32>() {
        Ok(n) if n <= most => {
            let n = if n == 0 { most } else { n };
            cx.shared.world.process.maxconn.store(n, SeqCst);
            cx.shared.plane.process_gate.open();
            Answer::Empty
        }
        _ => err("Value out of range."),
    }
}

pub(in crate::admin) fn clear_counters(cx: &mut Context, words: &Words) -> Answer {
    match words.at(2) {
        b"" => clear_maxima(&cx.shared),
        b"all" => {
            if cx.level < CliLevel::Admin {
                return err("Permission denied");
            }
            clear_maxima(&cx.shared);
            clear_totals(&cx.shared.world);
        }
        _ => return err("'clear counters' only supports 'all'."),
    }
    Answer::Empty
}

fn clear_maxima(shared: &Shared) {
    shared.peaks.clear();
    for p in &shared.world.proxies {
        // The highest value since now is what there is now.
        let level = |most: &AtomicU32, now: &AtomicU32| most.store(now.load(Relaxed), Relaxed);
        level(&p.front.smax, &p.front.scur);
        level(&p.back.smax, &p.back.scur);
        level(&p.back.qmax, &p.back.qcur);
        for s in &p.servers {
            level(&s.stats.smax, &s.stats.scur);
            level(&s.stats.qmax, &s.stats.qcur);
        }
    }
}

fn clear_totals(world: &World) {
    let proxies = world.proxies.iter().flat_map(ProxyState::totals);
    for n in world.process.totals().chain(proxies) {
        n.store(0, Relaxed);
    }
}
