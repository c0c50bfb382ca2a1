//! Commands about backends and servers. (reference: admin-cli 4.4, 4.5, 5)

use std::sync::atomic::Ordering::Relaxed;

use remora_config::plan::Address;
use remora_core::world::{ProxyId, ProxyState, ServerState};

use super::stat::{DRAIN, MAINT};
use super::{Answer, err};
use crate::admin::line::Words;
use crate::admin::session::Context;
use crate::observe::log::Severity;
use crate::proxy::clock;
use crate::proxy::upstream::servers_changed;
use crate::shared::Shared;

/// Positions of the proxy and server written `BACKEND/SERVER`, either of them also as `#ID`.
pub(super) fn find(shared: &Shared, text: &str) -> Result<(usize, usize), &'static str> {
    let (backend, server) = text
        .split_once('/')
        .filter(|(b, s)| !b.is_empty() && !s.is_empty())
        .ok_or("Require 'backend/server'.")?;
    let proxies = &shared.world.proxies;
    let at = proxies
        .iter()
        .position(|p| p.is_backend && named(backend, &p.name, p.id))
        .ok_or("No such backend.")?;
    let servers = proxies.get(at).map_or(&[][..], |p| &p.servers);
    let number = servers
        .iter()
        .position(|s| named(server, &s.name, s.id))
        .ok_or("No such server.")?;
    Ok((at, number))
}

fn named(text: &str, name: &str, id: u32) -> bool {
    name == text || text.strip_prefix('#').is_some_and(|n| n.parse() == Ok(id))
}

/// What [`find`] found.
pub(super) fn state(
    shared: &Shared,
    proxy: usize,
    server: usize,
) -> Option<(&ProxyState, &ServerState)> {
    let p = shared.world.proxies.get(proxy)?;
    Some((p, p.servers.get(server)?))
}

/// Runs `f` on the server named by word `i`.
fn on_server(
    cx: &Context,
    words: &Words,
    i: usize,
    f: impl FnOnce(&Shared, usize, &ProxyState, &ServerState) -> Answer,
) -> Answer {
    match find(&cx.shared, &words.text(i)) {
        Ok((proxy, server)) => match state(&cx.shared, proxy, server) {
            Some((p, s)) => {
                let answer = f(&cx.shared, proxy, p, s);
                // Requests that wait may find a place now.
                servers_changed(&cx.shared, ProxyId(proxy as u16));
                answer
            }
            None => err("No such server."),
        },
        Err(text) => err(text),
    }
}

pub(in crate::admin) fn disable(cx: &mut Context, words: &Words) -> Answer {
    on_server(cx, words, 2, |shared, at, p, s| {
        change_admin(shared, at, p, s, MAINT)
    })
}

pub(in crate::admin) fn enable(cx: &mut Context, words: &Words) -> Answer {
    on_server(cx, words, 2, |shared, at, p, s| {
        let rest = s.stats.admin.load(Relaxed) & !MAINT;
        change_admin(shared, at, p, s, rest)
    })
}

pub(in crate::admin) fn set(cx: &mut Context, words: &Words) -> Answer {
    on_server(cx, words, 2, |shared, at, p, s| match words.at(3) {
        b"state" => match words.at(4) {
            b"ready" => change_admin(shared, at, p, s, 0),
            b"drain" => change_admin(shared, at, p, s, DRAIN),
            b"maint" => change_admin(shared, at, p, s, MAINT),
            _ => err("'set server <srv> state' expects 'ready', 'drain' and 'maint'."),
        },
        b"weight" => change_weight(s, &words.text(4)),
        b"addr" | b"agent" | b"agent-addr" | b"agent-port" | b"agent-send" | b"check-addr"
        | b"check-port" | b"fqdn" | b"health" | b"name" | b"ssl" => err(format!(
            "'set server {}' is a HAProxy command that Remora does not support.",
            words.text(3)
        )),
        _ => err("usage: set server <backend>/<server> state | weight"),
    })
}

pub(in crate::admin) fn set_weight(cx: &mut Context, words: &Words) -> Answer {
    on_server(cx, words, 2, |_, _, _, s| change_weight(s, &words.text(3)))
}

pub(in crate::admin) fn get_weight(cx: &mut Context, words: &Words) -> Answer {
    on_server(cx, words, 2, |_, _, _, s| {
        let text = format!(
            "{} (initial {})",
            s.stats.weight.load(Relaxed),
            s.weight_initial
        );
        Answer::Text(text.into())
    })
}

pub(in crate::admin) fn set_maxconn(cx: &mut Context, words: &Words) -> Answer {
    on_server(cx, words, 3, |_, _, _, s| {
        let text = words.text(4);
        if text.is_empty() {
            return err("Require <maxconn>.");
        }
        match text.parse() {
            Ok(n) => {
                s.maxconn.store(n, Relaxed);
                Answer::Empty
            }
            Err(_) => err("maxconn string empty or preceded by garbage"),
        }
    })
}

/// Sets the administrative state and tells the logs, if it is another.
fn change_admin(shared: &Shared, at: usize, p: &ProxyState, s: &ServerState, to: u32) -> Answer {
    let was = s.stats.admin.swap(to, Relaxed);
    if was == to {
        return Answer::Empty;
    }
    let what = match (was, to) {
        (_, to) if to & MAINT != 0 => "is going DOWN for maintenance",
        (_, to) if to & DRAIN != 0 => "enters drain state",
        (was, _) if was & MAINT != 0 => "is UP/READY (leaving forced maintenance)",
        _ => "is UP/READY (leaving forced drain)",
    };
    let left = |backup| {
        p.servers
            .iter()
            .filter(|s| s.backup == backup && s.usable())
            .count()
    };
    let text = format!(
        "Server {}/{} {what}. {} active and {} backup servers left. {} sessions active, 0 requeued, {} remaining in queue.",
        p.name,
        s.name,
        left(false),
        left(true),
        s.stats.scur.load(Relaxed),
        s.stats.qcur.load(Relaxed)
    );
    let id = u16::try_from(at).ok().map(ProxyId);
    tracing::warn!("{text}");
    shared
        .logs
        .event(id, Severity::Notice, format_args!("{text}"));
    if left(false) + left(true) == 0 {
        let text = format!("backend '{}' has no server available!", p.name);
        tracing::error!("{text}");
        shared
            .logs
            .event(id, Severity::Emerg, format_args!("{text}"));
    }
    Answer::Empty
}

/// `N` or `N%` of the initial weight.
fn change_weight(s: &ServerState, text: &str) -> Answer {
    match weight(text, s.weight_initial) {
        Ok(n) => {
            s.stats.weight.store(n, Relaxed);
            Answer::Empty
        }
        Err(text) => err(text),
    }
}

fn weight(text: &str, initial: u32) -> Result<u32, &'static str> {
    if text.is_empty() {
        return Err("Require <weight> or <weight%>.");
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '-')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let n: i64 = number
        .parse()
        .map_err(|_| "Empty weight string empty or preceded by garbage")?;
    let n = match rest {
        "%" if n < 0 => return Err("Relative weight must be positive."),
        "%" => n.saturating_mul(i64::from(initial)) / 100,
        "" => n,
        _ => return Err("Trailing garbage in weight string"),
    };
    u32::try_from(n)
        .ok()
        .filter(|n| *n <= 256)
        .ok_or("Absolute weight can only be between 0 and 256 inclusive.")
}

pub(in crate::admin) fn show_backend(cx: &mut Context, _words: &Words) -> Answer {
    let mut text = String::from("# name\n");
    for p in cx.shared.world.proxies.iter().filter(|p| p.is_backend) {
        text.push_str(&p.name);
        text.push('\n');
    }
    Answer::Text(text.into())
}

pub(in crate::admin) fn show_state(cx: &mut Context, words: &Words) -> Answer {
    let name = words.text(3);
    let proxies = &cx.shared.world.proxies;
    if !name.is_empty() && !proxies.iter().any(|p| p.is_backend && p.name == name) {
        return err("Can't find backend.");
    }
    let since_s = clock::read()
        .mono_ms
        .saturating_sub(cx.shared.world.process.start_ms)
        / 1000;
    let mut text = String::from(
        "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
         srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
         srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port \
         srv_check_addr srv_agent_addr srv_agent_port\n",
    );
    for (p, plan) in proxies.iter().zip(&cx.shared.plan.proxies) {
        if !p.is_backend || (!name.is_empty() && p.name != name) {
            continue;
        }
        for (s, spec) in p.servers.iter().zip(&plan.servers) {
            let (address, port) = match &spec.address {
                Address::Ip(a) => (a.ip().to_string(), a.port()),
                Address::Unix(path) => (path.clone(), 0),
                Address::Fd(_) => ("-".into(), 0),
            };
            let admin = s.stats.admin.load(Relaxed);
            let running = if admin & MAINT == 0 { 2 } else { 0 };
            text.push_str(&format!(
                "{} {} {} {} {address} {running} {admin} {} {} {since_s} 1 0 2 0 0 0 0 - {port} - 0 0 - - 0\n",
                p.id,
                p.name,
                s.id,
                s.name,
                s.stats.weight.load(Relaxed),
                s.weight_initial
            ));
        }
    }
    Answer::Text(text.into())
}

/// A time whose unit, if none is written, is the millisecond.
pub(super) fn delay_ms(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let n: u64 = number.parse().ok()?;
    let factor = match unit {
        "us" => return Some(n / 1000),
        "ms" | "" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    n.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (text, expected) in [
            ("10", Ok(10)),
            ("50%", Ok(4)),
            ("0", Ok(0)),
            ("256", Ok(256)),
            (
                "300",
                Err("Absolute weight can only be between 0 and 256 inclusive."),
            ),
            (
                "-1",
                Err("Absolute weight can only be between 0 and 256 inclusive."),
            ),
            ("x", Err("Empty weight string empty or preceded by garbage")),
            ("", Err("Require <weight> or <weight%>.")),
            ("-5%", Err("Relative weight must be positive.")),
            ("5x", Err("Trailing garbage in weight string")),
        ] {
            assert_eq!(weight(text, 8), expected, "{text}");
        }
    }

    #[test]
    fn names_and_ids() {
        assert!(named("be", "be", 3));
        assert!(named("#3", "be", 3));
        assert!(!named("#4", "be", 3));
        assert!(!named("3", "be", 3));
    }
}
