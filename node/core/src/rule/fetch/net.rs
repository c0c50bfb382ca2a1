//! Fetches about the process, the connection and its listener.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;

use super::{ConnField, DateUnit, ProcessField};
use crate::rule::cx::Cx;
use crate::rule::sample::Sample;
use crate::world::{ProxyState, ServerState};

pub(super) fn date(cx: &Cx<'_>, offset: i64, unit: DateUnit) -> i64 {
    let us = i64::try_from(cx.now.wall_us).unwrap_or(i64::MAX);
    let now = match unit {
        DateUnit::Seconds => us / 1_000_000,
        DateUnit::Millis => us / 1_000,
        DateUnit::Micros => us,
    };
    now.saturating_add(offset)
}

/// The next number of the thread's generator (splitmix64: one addition of state, so that a `Cell` is enough).
fn random(cx: &Cx<'_>) -> u64 {
    let state = cx.rng.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    cx.rng.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `below` (at most 2^32).
pub(super) fn rand(cx: &Cx<'_>, below: u64) -> i64 {
    // The upper half of the product of a 32-bit number and the range: no division, and even enough.
    let wide = (random(cx) >> 32).saturating_mul(below);
    (wide >> 32) as i64
}

/// A version 4 UUID.
pub(super) fn uuid(cx: &Cx<'_>) -> Vec<u8> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random(cx).to_be_bytes());
    bytes[8..].copy_from_slice(&random(cx).to_be_bytes());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut out = Vec::with_capacity(36);
    for (i, b) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        let _ = write!(out, "{b:02x}"); // writing to memory cannot fail
    }
    out
}

pub(super) fn process<'a>(cx: &Cx<'a>, field: ProcessField) -> Sample<'a> {
    let process = &cx.world.process;
    match field {
        ProcessField::DateUs => Sample::Int((cx.now.wall_us % 1_000_000) as i64),
        ProcessField::Hostname => text(&process.hostname),
        ProcessField::Pid => Sample::Int(i64::from(process.pid)),
        ProcessField::Thread => Sample::Int(i64::from(cx.thread)),
        ProcessField::NbProc => Sample::Int(1),
        ProcessField::NbThread => Sample::Int(i64::from(process.nbthread)),
        ProcessField::Stopping => Sample::Bool(process.stopping.load(Relaxed)),
        ProcessField::ActConn => Sample::Int(i64::from(process.curr_conns.load(Relaxed))),
    }
}

pub(super) fn conn<'a>(cx: &Cx<'a>, field: ConnField) -> Option<Sample<'a>> {
    let conn = cx.conn;
    Some(match field {
        ConnField::Src => addr(conn.src.get())?,
        ConnField::SrcPort => port(conn.src.get())?,
        ConnField::Dst => addr(conn.dst.get())?,
        ConnField::DstPort => port(conn.dst.get())?,
        ConnField::FcSrc => addr(true_addrs(cx).0)?,
        ConnField::FcSrcPort => port(true_addrs(cx).0)?,
        ConnField::FcDst => addr(true_addrs(cx).1)?,
        ConnField::FcDstPort => port(true_addrs(cx).1)?,
        ConnField::SrcIsLocal => Sample::Bool(is_local(cx, conn.src.get()?.ip())),
        ConnField::DstIsLocal => Sample::Bool(is_local(cx, conn.dst.get()?.ip())),
        ConnField::DstConn => Sample::Int(i64::from(
            frontend(cx)?
                .bind_conns
                .get(usize::from(conn.bind))?
                .load(Relaxed),
        )),
        ConnField::FcRcvdProxy => Sample::Bool(conn.got_proxy_header.get()),
        ConnField::FcHttpMajor => Sample::Int(1),
        ConnField::SslFc => Sample::Bool(false),
        ConnField::SoName => {
            let name = frontend(cx)?.binds.get(usize::from(conn.bind))?;
            if name.is_empty() {
                return None;
            }
            text(name)
        }
        ConnField::SoId => Sample::Int(i64::from(conn.bind) + 1),
        ConnField::FeName => text(&frontend(cx)?.name),
        ConnField::FeId => Sample::Int(i64::from(frontend(cx)?.id)),
        ConnField::FeDefBe => text(&cx.world.proxy(frontend(cx)?.rules.default_backend?)?.name),
        ConnField::HttpFirstReq => Sample::Bool(conn.requests.get() <= 1),
        ConnField::BeName => text(&backend(cx)?.name),
        ConnField::BeId => Sample::Int(i64::from(backend(cx)?.id)),
        ConnField::SrvName => text(&server(cx)?.name),
        ConnField::SrvId => Sample::Int(i64::from(server(cx)?.id)),
    })
}

pub(in crate::rule) fn frontend<'a>(cx: &Cx<'a>) -> Option<&'a ProxyState> {
    cx.world.proxy(cx.conn.frontend)
}

/// The chosen backend; the frontend until one is chosen.
pub(in crate::rule) fn backend<'a>(cx: &Cx<'a>) -> Option<&'a ProxyState> {
    let chosen = cx.stream.and_then(|s| s.backend.get());
    cx.world.proxy(chosen.unwrap_or(cx.conn.frontend))
}

pub(in crate::rule) fn server<'a>(cx: &Cx<'a>) -> Option<&'a ServerState> {
    let stream = cx.stream?;
    let backend = cx.world.proxy(stream.backend.get()?)?;
    backend.servers.get(usize::from(stream.server.get()?))
}

/// Peer and local address of the true connection.
fn true_addrs(cx: &Cx<'_>) -> (Option<SocketAddr>, Option<SocketAddr>) {
    match &cx.conn.true_addrs {
        Some(pair) => (Some(pair.0), Some(pair.1)),
        None => (cx.conn.src.get(), cx.conn.dst.get()),
    }
}

/// An address of this host: loopback, on an interface, or the one the client reached us at.
fn is_local(cx: &Cx<'_>, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback()
        || cx.world.process.local_addrs.contains(&ip)
        || true_addrs(cx)
            .1
            .is_some_and(|own| own.ip().to_canonical() == ip)
}

fn addr<'a>(addr: Option<SocketAddr>) -> Option<Sample<'a>> {
    addr.map(|a| Sample::addr(a.ip()))
}

fn port<'a>(addr: Option<SocketAddr>) -> Option<Sample<'a>> {
    addr.map(|a| Sample::Int(i64::from(a.port())))
}

fn text(text: &str) -> Sample<'_> {
    Sample::Str(Cow::Borrowed(text.as_bytes()))
}
