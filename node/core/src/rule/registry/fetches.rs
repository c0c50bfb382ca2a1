//! Rows of the fetches about constants, the process, the connection, proxies and servers.

use super::ArgKind::{Backend, Env, Frontend, Int, Ipv4, Ipv6, Server, Str, Var};
use super::{Arg, ArgKind, Args, Fetch, FetchInfo, FetchMaker, Needs, wrong};
use crate::rule::cond::MatchMethod;
use crate::rule::fetch::{ConnField, DateUnit, ProcessField, ProxyField, ServerField};
use crate::rule::sample::SampleType::{self, Addr, Any, Bool, Int as Sint, Str as Text};

const NOTHING: Needs = Needs::NOTHING;
const CONN: Needs = Needs::CONN;
const STREAM: Needs = Needs::CONN.and(Needs::STREAM);

pub(super) fn row(
    name: &'static str,
    args: &'static [ArgKind],
    required: usize,
    output: SampleType,
    needs: Needs,
    make: fn(&Args<'_>) -> Result<Fetch, String>,
    help: &'static str,
) -> FetchInfo {
    FetchInfo {
        name,
        args,
        required,
        output,
        needs,
        acl_match: None,
        acl_only: false,
        help,
        maker: FetchMaker::Plain(make),
    }
}

/// A row whose plain name carries a method in ACLs.
pub(super) fn with_match(mut info: FetchInfo, method: MatchMethod) -> FetchInfo {
    info.acl_match = Some(method);
    info
}

/// All rows of this file.
#[rustfmt::skip] // one row per line reads as the table it is
pub(super) fn rows() -> Vec<FetchInfo> {
    macro_rules! conn {
        ($name:literal, $output:ident, $needs:ident, $field:ident, $help:literal) => {
            row($name, &[], 0, $output, $needs, |_| Ok(Fetch::Conn(ConnField::$field)), $help)
        };
    }
    macro_rules! process {
        ($name:literal, $output:ident, $field:ident, $help:literal) => {
            row($name, &[], 0, $output, NOTHING, |_| Ok(Fetch::Process(ProcessField::$field)), $help)
        };
    }
    macro_rules! proxy {
        ($name:literal, $arg:ident, $field:ident, $help:literal) => {
            row($name, &[$arg], 0, Sint, NOTHING, |a| Ok(Fetch::Proxy { field: ProxyField::$field, proxy: a.proxy(0)? }), $help)
        };
    }
    macro_rules! server {
        ($name:literal, $output:ident, $field:ident, $help:literal) => {
            row($name, &[Server], 1, $output, NOTHING, |a| server(a, ServerField::$field), $help)
        };
    }
    vec![
        row("always_true", &[], 0, Bool, NOTHING, |_| Ok(Fetch::Bool(true)), "true"),
        row("always_false", &[], 0, Bool, NOTHING, |_| Ok(Fetch::Bool(false)), "false"),
        row("bool", &[ArgKind::Bool], 1, Bool, NOTHING, bool_, "a constant: 0, 1, true, false"),
        row("int", &[Int], 1, Sint, NOTHING, |a| Ok(Fetch::Int(a.need_int(0)?)), "a constant"),
        row("str", &[Str], 1, Text, NOTHING, |a| Ok(Fetch::Text(a.need_str(0)?)), "a constant"),
        row("ipv4", &[Ipv4], 1, SampleType::Ipv4, NOTHING, constant_ip, "a constant"),
        row("ipv6", &[Ipv6], 1, SampleType::Ipv6, NOTHING, constant_ip, "a constant"),
        row("env", &[Env], 1, Text, NOTHING, env, "an environment variable, as at start-up"),
        row("var", &[Var, Str], 1, Any, NOTHING, var, "a variable, or the default"),
        row("date", &[Int, Str], 0, Sint, NOTHING, date, "wall clock in s (ms, us), plus an offset"),
        row("rand", &[Int], 0, Sint, NOTHING, rand, "a random number below N (2^32)"),
        row("uuid", &[Int], 0, Text, NOTHING, uuid, "a random UUID, version 4"),
        process!("date_us", Sint, DateUs, "microseconds part of the wall clock"),
        process!("hostname", Text, Hostname, "name of this host"),
        process!("pid", Sint, Pid, "process id"),
        process!("thread", Sint, Thread, "number of this thread, from 0"),
        process!("nbproc", Sint, NbProc, "always 1"),
        process!("nbthread", Sint, NbThread, "number of worker threads"),
        process!("stopping", Bool, Stopping, "a soft stop is in progress"),
        process!("act_conn", Sint, ActConn, "connections of the whole process"),
        conn!("src", Addr, CONN, Src, "client address"),
        conn!("src_port", Sint, CONN, SrcPort, "client port"),
        conn!("dst", Addr, CONN, Dst, "address the client connected to"),
        conn!("dst_port", Sint, CONN, DstPort, "port the client connected to"),
        conn!("fc_src", Addr, CONN, FcSrc, "peer address of the true connection"),
        conn!("fc_src_port", Sint, CONN, FcSrcPort, "peer port of the true connection"),
        conn!("fc_dst", Addr, CONN, FcDst, "local address of the true connection"),
        conn!("fc_dst_port", Sint, CONN, FcDstPort, "local port of the true connection"),
        conn!("src_is_local", Bool, CONN, SrcIsLocal, "the client address is one of this host"),
        conn!("dst_is_local", Bool, CONN, DstIsLocal, "the destination is an address of this host"),
        conn!("dst_conn", Sint, CONN, DstConn, "connections on the same listener"),
        conn!("fc_rcvd_proxy", Bool, CONN, FcRcvdProxy, "the connection began with a PROXY header"),
        conn!("fc_http_major", Sint, CONN, FcHttpMajor, "HTTP version on the client side: 1"),
        conn!("ssl_fc", Bool, CONN, SslFc, "the client side is TLS"),
        conn!("so_name", Text, CONN, SoName, "name of the listener"),
        conn!("so_id", Sint, CONN, SoId, "number of the listener in its frontend"),
        conn!("fe_name", Text, CONN, FeName, "frontend"),
        conn!("fe_id", Sint, CONN, FeId, "numeric id of the frontend"),
        conn!("fe_defbe", Text, CONN, FeDefBe, "default backend of the frontend"),
        conn!("http_first_req", Bool, STREAM, HttpFirstReq, "first request of its connection"),
        conn!("be_name", Text, STREAM, BeName, "backend"),
        conn!("be_id", Sint, STREAM, BeId, "numeric id of the backend"),
        conn!("srv_name", Text, STREAM, SrvName, "server"),
        conn!("srv_id", Sint, STREAM, SrvId, "numeric id of the server"),
        proxy!("fe_conn", Frontend, FeConn, "connections of a frontend"),
        proxy!("fe_sess_rate", Frontend, FeSessRate, "new sessions per second"),
        proxy!("fe_req_rate", Frontend, FeReqRate, "requests per second"),
        proxy!("be_conn", Backend, BeConn, "sessions of a backend"),
        proxy!("be_conn_free", Backend, BeConnFree, "free slots of a backend's servers"),
        proxy!("be_sess_rate", Backend, BeSessRate, "new sessions per second"),
        proxy!("nbsrv", Backend, NbSrv, "usable servers"),
        proxy!("queue", Backend, Queue, "requests waiting in the backend and its servers"),
        proxy!("avg_queue", Backend, AvgQueue, "the same, per usable server"),
        proxy!("connslots", Backend, ConnSlots, "free slots and queue places of the servers"),
        server!("srv_conn", Sint, Conn, "requests in progress on a server"),
        server!("srv_conn_free", Sint, ConnFree, "free slots of a server"),
        server!("srv_queue", Sint, Queue, "requests waiting for a server"),
        server!("srv_is_up", Bool, IsUp, "the server takes traffic"),
        server!("srv_sess_rate", Sint, SessRate, "new sessions per second"),
        server!("srv_weight", Sint, Weight, "effective weight"),
        server!("srv_iweight", Sint, InitialWeight, "configured weight"),
        server!("srv_uweight", Sint, Weight, "weight set by the user"),
    ]
}

fn bool_(a: &Args<'_>) -> Result<Fetch, String> {
    match a.get(0) {
        Some(Arg::Bool(b)) => Ok(Fetch::Bool(*b)),
        _ => Err(wrong(0, "a boolean")),
    }
}

fn constant_ip(a: &Args<'_>) -> Result<Fetch, String> {
    a.ip(0)?
        .map(Fetch::Addr)
        .ok_or_else(|| wrong(0, "an address"))
}

fn env(a: &Args<'_>) -> Result<Fetch, String> {
    match a.get(0) {
        Some(Arg::Env(Some(value))) => Ok(Fetch::Text(value.as_slice().into())),
        Some(Arg::Env(None)) => Ok(Fetch::Missing),
        _ => Err(wrong(0, "the name of an environment variable")),
    }
}

fn var(a: &Args<'_>) -> Result<Fetch, String> {
    Ok(Fetch::Var {
        var: a.need_var(0)?,
        default: a.owned(1)?,
    })
}

fn date(a: &Args<'_>) -> Result<Fetch, String> {
    let unit = match a.str(1)? {
        None | Some(b"s") => DateUnit::Seconds,
        Some(b"ms") => DateUnit::Millis,
        Some(b"us") => DateUnit::Micros,
        Some(other) => {
            return Err(format!(
                "expects 's', 'ms' or 'us', got '{}'",
                String::from_utf8_lossy(other)
            ));
        }
    };
    Ok(Fetch::Date {
        offset: a.int(0)?.unwrap_or(0),
        unit,
    })
}

fn rand(a: &Args<'_>) -> Result<Fetch, String> {
    match a.int(0)? {
        None => Ok(Fetch::Rand(1 << 32)),
        Some(n) => u32::try_from(n)
            .ok()
            .filter(|n| *n > 0)
            .map(|n| Fetch::Rand(u64::from(n)))
            .ok_or_else(|| "the range must be between 1 and 4294967295".to_string()),
    }
}

fn uuid(a: &Args<'_>) -> Result<Fetch, String> {
    match a.int(0)? {
        None | Some(4) => Ok(Fetch::Uuid),
        Some(v) => Err(format!("unsupported UUID version {v}, only 4 is")),
    }
}

fn server(a: &Args<'_>, field: ServerField) -> Result<Fetch, String> {
    match a.get(0) {
        Some(Arg::Server(proxy, server)) => Ok(Fetch::Server {
            field,
            proxy: *proxy,
            server: *server,
        }),
        _ => Err(wrong(0, "a server name")),
    }
}
