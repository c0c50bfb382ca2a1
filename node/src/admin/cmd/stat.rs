//! `show stat`. Columns are in the order of the reference (admin-cli 4.2); a cell is empty where a row has no such value.

use std::io::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use remora_config::plan::{Address, CliLevel, Proxy};
use remora_core::balance::Algorithm;
use remora_core::world::{ProxyState, ServerState};

use super::typed::{self, Field, Form, Tags, Value};
use super::{Answer, err};
use crate::admin::line::Words;
use crate::admin::session::Context;
use crate::proxy::clock;
use crate::shared::Shared;

pub(in crate::admin) fn show(cx: &mut Context, words: &Words) -> Answer {
    let request = match Request::parse(cx, words) {
        Ok(request) => request,
        Err(text) => return err(text),
    };
    let mut next_proxy = 0;
    let mut first = true;
    // One proxy per slice: a configuration may have thousands.
    Answer::Slices(Box::new(move |shared, out| {
        if next_proxy == 0 {
            request.begin(out);
        }
        let index = next_proxy;
        next_proxy += 1;
        if index < shared.world.proxies.len() {
            for row in rows(shared, index, &request) {
                request.row(&row, first, out);
                first = false;
            }
            return false;
        }
        if request.form == Form::Json {
            out.extend_from_slice(b"]\n");
        }
        true
    }))
}

/// What is asked for.
struct Request {
    /// Only this proxy.
    proxy: Option<usize>,
    /// Bits: 1 frontends, 2 backends, 4 servers.
    types: u32,
    /// Only this server.
    server: Option<u32>,
    form: Form,
    description: bool,
    /// Only servers that are up, or not in maintenance.
    only_up: bool,
    no_maint: bool,
    /// Addresses and algorithms too.
    private: bool,
}

impl Request {
    fn parse(cx: &Context, words: &Words) -> Result<Request, &'static str> {
        let mut request = Request {
            proxy: None,
            types: u32::MAX,
            server: None,
            form: Form::Plain,
            description: false,
            only_up: false,
            no_maint: false,
            private: cx.level >= CliLevel::Operator,
        };
        let mut at = 2;
        if words.at(at) == b"domain" {
            if words.at(at + 1) != b"proxy" {
                return Err("Invalid statistics domain.");
            }
            at += 2;
        }
        let number = |i: usize| words.text(i).parse::<i64>().ok();
        if let (Some(types), Some(server)) = (number(at + 1), number(at + 2)) {
            let name = words.text(at);
            let proxies = &cx.shared.world.proxies;
            if name != "-1" {
                let found = proxies.iter().position(|p| p.name == name).or_else(|| {
                    let id: u32 = name.trim_start_matches('#').parse().ok()?;
                    proxies.iter().position(|p| p.id == id)
                });
                request.proxy = Some(found.ok_or("No such proxy.")?);
            }
            request.types = types as u32;
            request.server = (server >= 0).then(|| u32::try_from(server).unwrap_or(u32::MAX));
            at += 3;
        }
        for word in words.from(at) {
            match word.as_slice() {
                b"typed" => request.form = Form::Typed,
                b"json" => request.form = Form::Json,
                b"desc" => request.description = true,
                b"up" => request.only_up = true,
                b"no-maint" => request.no_maint = true,
                _ => {
                    return Err(
                        "'show stat' only supports a proxy with a type and a server number, 'desc', 'json', \
                         'no-maint', 'typed' and 'up'.",
                    );
                }
            }
        }
        Ok(request)
    }

    fn begin(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Plain => {
                out.extend_from_slice(b"# ");
                for (name, _) in COLUMNS {
                    out.extend_from_slice(name.as_bytes());
                    out.push(b',');
                }
                out.push(b'\n');
            }
            Form::Typed => {}
            Form::Json => out.push(b'['),
        }
    }

    fn row(&self, row: &Row, first: bool, out: &mut Vec<u8>) {
        match self.form {
            Form::Plain => {
                for cell in &row.cells {
                    if let Some((_, value)) = cell {
                        value.write(out);
                    }
                    out.push(b',');
                }
                out.push(b'\n');
            }
            Form::Typed => {
                for field in row.fields() {
                    let _ = write!(out, "{}.{}.{}.", row.kind.letter(), row.proxy_id, row.id);
                    typed::write_typed(&field, self.description, out);
                }
            }
            Form::Json => {
                if !first {
                    out.push(b',');
                }
                out.push(b'[');
                let about = format!(
                    "\"objType\":\"{}\",\"proxyId\":{},\"id\":{},",
                    row.kind.name(),
                    row.proxy_id,
                    row.id
                );
                for (i, field) in row.fields().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    typed::write_json(&field, &about, self.description, out);
                }
                out.push(b']');
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Frontend,
    Backend,
    Server,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Kind::Frontend => 'F',
            Kind::Backend => 'B',
            Kind::Server => 'S',
        }
    }
    fn name(self) -> &'static str {
        match self {
            Kind::Frontend => "Frontend",
            Kind::Backend => "Backend",
            Kind::Server => "Server",
        }
    }
}

struct Row {
    kind: Kind,
    proxy_id: u32,
    id: u32,
    cells: Vec<Option<(Tags, Value)>>,
}

impl Row {
    fn new(kind: Kind, proxy_id: u32, id: u32) -> Row {
        Row {
            kind,
            proxy_id,
            id,
            cells: vec![None; COLUMNS.len()],
        }
    }

    fn set(&mut self, name: &str, tags: Tags, value: Value) {
        let at = COLUMNS.iter().position(|(n, _)| *n == name);
        debug_assert!(at.is_some(), "no column {name}");
        if let Some(cell) = at.and_then(|at| self.cells.get_mut(at)) {
            *cell = Some((tags, value));
        }
    }

    fn fields(&self) -> impl Iterator<Item = Field> {
        self.cells.iter().zip(COLUMNS).enumerate().filter_map(
            |(position, (cell, (name, description)))| {
                let (tags, value) = cell.clone()?;
                Some(Field {
                    position,
                    name,
                    tags,
                    value,
                    description,
                })
            },
        )
    }
}

/// The rows of one proxy, as far as they are asked for.
fn rows(shared: &Shared, index: usize, request: &Request) -> Vec<Row> {
    let mut rows = Vec::new();
    let (Some(p), Some(plan)) = (
        shared.world.proxies.get(index),
        shared.plan.proxies.get(index),
    ) else {
        return rows;
    };
    if request.proxy.is_some_and(|only| only != index) || plan.disabled {
        return rows;
    }
    let server_wanted = |id| request.server.is_none_or(|only| only == id);
    if p.is_frontend && request.types & 1 != 0 && server_wanted(0) {
        rows.push(frontend(shared, index, p, plan, request));
    }
    if p.is_backend && request.types & 4 != 0 {
        for (i, s) in p.servers.iter().enumerate() {
            let maint = s.stats.admin.load(Relaxed) & MAINT != 0;
            if !server_wanted(s.id)
                || (request.only_up && !s.usable())
                || (request.no_maint && maint)
            {
                continue;
            }
            rows.push(server(shared, (index, i), p, s, plan, request));
        }
    }
    if p.is_backend && request.types & 2 != 0 && server_wanted(0) {
        rows.push(backend(shared, index, p, plan, request));
    }
    rows
}

use Value::{S32, Str, U32, U64};

#[rustfmt::skip]
fn frontend(shared: &Shared, index: usize, p: &ProxyState, plan: &Proxy, request: &Request) -> Row {
    let mut r = Row::new(Kind::Frontend, p.id, 0);
    let now_ms = clock::read().mono_ms;
    let f = &p.front;
    let peak = shared.peaks.proxy(index);
    let maxconn = p.maxconn.load(Relaxed);
    let stopping = shared.world.process.stopping.load(Relaxed);
    let status = if stopping { "STOP" } else if f.scur.load(Relaxed) >= maxconn { "FULL" } else { "OPEN" };
    identity(&mut r, &p.name, "FRONTEND");
    r.set("scur", b"MGP", U32(f.scur.load(Relaxed)));
    r.set("smax", b"MMP", U32(f.smax.load(Relaxed)));
    r.set("slim", b"CLP", U32(maxconn));
    r.set("stot", b"MCP", U64(f.stot.load(Relaxed)));
    r.set("bin", b"MCP", U64(f.bin.load(Relaxed)));
    r.set("bout", b"MCP", U64(f.bout.load(Relaxed)));
    r.set("dreq", b"MCP", U64(f.dreq.load(Relaxed)));
    r.set("dresp", b"MCP", U64(f.dresp.load(Relaxed)));
    r.set("ereq", b"MCP", U64(f.ereq.load(Relaxed)));
    r.set("status", b"SGP", Str(status.into()));
    r.set("type", b"CGS", U32(0));
    let sess_rate = f.sess_rate.rate(now_ms);
    r.set("rate", b"MRP", U32(sess_rate));
    r.set("rate_lim", b"CLP", U32(0));
    r.set("rate_max", b"MMP", U32(peak.front_sess.max(sess_rate)));
    if p.mode_http {
        for (name, n) in HRSP.iter().zip(&f.hrsp) {
            r.set(name, b"MCP", U64(n.load(Relaxed)));
        }
        r.set("intercepted", b"MCP", U64(f.intercepted.load(Relaxed)));
    }
    let req_rate = f.req_rate.rate(now_ms);
    r.set("req_rate", b"MRP", U32(req_rate));
    r.set("req_rate_max", b"MMP", U32(peak.req.max(req_rate)));
    r.set("req_tot", b"MCP", U64(f.req_tot.load(Relaxed)));
    r.set("mode", b"CGS", Str(mode(p)));
    let conn_rate = f.conn_rate.rate(now_ms);
    r.set("conn_rate", b"MRP", U32(conn_rate));
    r.set("conn_rate_max", b"MMP", U32(peak.conn.max(conn_rate)));
    r.set("conn_tot", b"MCP", U64(f.conn_tot.load(Relaxed)));
    r.set("dcon", b"MCP", U64(f.dcon.load(Relaxed)));
    r.set("dses", b"MCP", U64(f.dses.load(Relaxed)));
    if request.private && let Some(bind) = plan.binds.first().filter(|_| plan.binds.len() == 1) {
        r.set("addr", b"CGS", Str(address(&bind.address)));
    }
    r
}

#[rustfmt::skip]
fn backend(shared: &Shared, index: usize, p: &ProxyState, plan: &Proxy, request: &Request) -> Row {
    let mut r = Row::new(Kind::Backend, p.id, 0);
    let now = clock::read();
    let b = &p.back;
    let usable = |backup: bool| p.servers.iter().filter(move |s| s.backup == backup && s.usable());
    let (active, backups) = (usable(false).count() as u32, usable(true).count() as u32);
    let up_servers = active + backups;
    let up = up_servers > 0 || p.servers.is_empty();
    // As HAProxy: the weight of those that take traffic, backups only when nothing else is left.
    let weight: u32 = usable(active == 0).map(|s| s.stats.weight.load(Relaxed)).sum();
    let status = match (up, request.only_up) {
        (true, true) => format!("UP ({up_servers}/{})", p.servers.len()),
        (true, false) => "UP".into(),
        (false, _) => "DOWN".into(),
    };
    identity(&mut r, &p.name, "BACKEND");
    r.set("qcur", b"MGP", U32(b.qcur.load(Relaxed)));
    r.set("qmax", b"MMP", U32(b.qmax.load(Relaxed)));
    r.set("scur", b"MGP", U32(b.scur.load(Relaxed)));
    r.set("smax", b"MMP", U32(b.smax.load(Relaxed)));
    r.set("slim", b"CLP", U32(p.fullconn));
    r.set("stot", b"MCP", U64(b.stot.load(Relaxed)));
    r.set("bin", b"MCP", U64(b.bin.load(Relaxed)));
    r.set("bout", b"MCP", U64(b.bout.load(Relaxed)));
    r.set("dreq", b"MCP", U64(b.dreq.load(Relaxed)));
    r.set("dresp", b"MCP", U64(b.dresp.load(Relaxed)));
    r.set("econ", b"MCP", U64(b.econ.load(Relaxed)));
    r.set("eresp", b"MCP", U64(b.eresp.load(Relaxed)));
    r.set("wretr", b"MCP", U64(b.wretr.load(Relaxed)));
    r.set("wredis", b"MCP", U64(b.wredis.load(Relaxed)));
    r.set("status", b"SGP", Str(status));
    r.set("weight", b"MaP", U32(weight));
    r.set("act", b"MGP", U32(active));
    r.set("bck", b"MGP", U32(backups));
    r.set("chkdown", b"MCP", U64(0));
    r.set("lastchg", b"MAP", U32(since_start_s(shared)));
    r.set("downtime", b"MCP", U32(0));
    r.set("lbtot", b"MCP", U64(b.lbtot.load(Relaxed)));
    r.set("type", b"CGS", U32(1));
    let rate = b.sess_rate.rate(now.mono_ms);
    r.set("rate", b"MGP", U32(rate));
    r.set("rate_max", b"MGP", U32(shared.peaks.proxy(index).back_sess.max(rate)));
    if p.mode_http {
        for (name, n) in HRSP.iter().zip(&b.hrsp) {
            r.set(name, b"MCP", U64(n.load(Relaxed)));
        }
        r.set("req_tot", b"MCP", U64(b.req_tot.load(Relaxed)));
    }
    r.set("cli_abrt", b"MCP", U64(b.cli_abrt.load(Relaxed)));
    r.set("srv_abrt", b"MCP", U64(b.srv_abrt.load(Relaxed)));
    r.set("lastsess", b"MAP", S32(ago_s(b.last_sess_ms.load(Relaxed), now.mono_ms)));
    r.set("mode", b"CGS", Str(mode(p)));
    if request.private {
        r.set("algo", b"CGS", Str(algorithm(&plan.balance).into()));
    }
    r.set("connect", b"MCP", U64(b.connect.load(Relaxed)));
    r.set("reuse", b"MCP", U64(b.reuse.load(Relaxed)));
    r.set("uweight", b"MaP", U32(weight));
    r
}

#[rustfmt::skip]
fn server(shared: &Shared, (index, number): (usize, usize), p: &ProxyState, s: &ServerState, plan: &Proxy, request: &Request) -> Row {
    let mut r = Row::new(Kind::Server, p.id, s.id);
    let now = clock::read();
    let st = &s.stats;
    let admin = st.admin.load(Relaxed);
    let status = if admin & MAINT != 0 { "MAINT" } else if admin & DRAIN != 0 { "DRAIN" } else { "no check" };
    let weight = st.weight.load(Relaxed);
    let effective = if s.usable() { weight } else { 0 };
    let spec = plan.servers.get(number);
    identity(&mut r, &p.name, &s.name);
    r.set("qcur", b"MGP", U32(st.qcur.load(Relaxed)));
    r.set("qmax", b"MMP", U32(st.qmax.load(Relaxed)));
    r.set("scur", b"MGP", U32(st.scur.load(Relaxed)));
    r.set("smax", b"MMP", U32(st.smax.load(Relaxed)));
    let maxconn = s.maxconn.load(Relaxed);
    if maxconn > 0 {
        r.set("slim", b"CLP", U32(maxconn));
    }
    r.set("stot", b"MCP", U64(st.stot.load(Relaxed)));
    r.set("bin", b"MCP", U64(st.bin.load(Relaxed)));
    r.set("bout", b"MCP", U64(st.bout.load(Relaxed)));
    r.set("dresp", b"MCP", U64(st.dresp.load(Relaxed)));
    r.set("econ", b"MCP", U64(st.econ.load(Relaxed)));
    r.set("eresp", b"MCP", U64(st.eresp.load(Relaxed)));
    r.set("wretr", b"MCP", U64(st.wretr.load(Relaxed)));
    r.set("wredis", b"MCP", U64(st.wredis.load(Relaxed)));
    r.set("status", b"SGP", Str(status.into()));
    r.set("weight", b"MaP", U32(effective));
    r.set("act", b"SGP", U32(u32::from(!s.backup)));
    r.set("bck", b"SGP", U32(u32::from(s.backup)));
    r.set("lastchg", b"MAP", U32(since_start_s(shared)));
    if let Some(limit) = spec.map(|s| s.maxqueue).filter(|n| *n > 0) {
        r.set("qlimit", b"CLS", U32(limit));
    }
    r.set("lbtot", b"MCP", U64(st.lbtot.load(Relaxed)));
    r.set("type", b"CGS", U32(2));
    let rate = st.sess_rate.rate(now.mono_ms);
    r.set("rate", b"MRP", U32(rate));
    r.set("rate_max", b"MMP", U32(shared.peaks.server(index, number).max(rate)));
    if p.mode_http {
        for (name, n) in HRSP.iter().zip(&st.hrsp) {
            r.set(name, b"MCP", U64(n.load(Relaxed)));
        }
        r.set("req_tot", b"MCP", U64(st.req_tot.load(Relaxed)));
    }
    r.set("cli_abrt", b"MCP", U64(st.cli_abrt.load(Relaxed)));
    r.set("srv_abrt", b"MCP", U64(st.srv_abrt.load(Relaxed)));
    r.set("lastsess", b"MAP", S32(ago_s(st.last_sess_ms.load(Relaxed), now.mono_ms)));
    r.set("mode", b"CGS", Str(mode(p)));
    if request.private && let Some(spec) = spec {
        r.set("addr", b"CGS", Str(address(&spec.address)));
    }
    r.set("connect", b"MCP", U64(st.connect.load(Relaxed)));
    r.set("reuse", b"MCP", U64(st.reuse.load(Relaxed)));
    r.set("srv_icur", b"MGP", U32(st.idle.load(Relaxed)));
    r.set("idle_conn_cur", b"MGP", U32(st.idle.load(Relaxed)));
    r.set("used_conn_cur", b"MGP", U32(st.scur.load(Relaxed)));
    r.set("uweight", b"MaP", U32(weight));
    r
}

fn identity(r: &mut Row, proxy: &str, name: &str) {
    let (proxy_id, id) = (r.proxy_id, r.id);
    r.set("pxname", b"KNS", Str(proxy.into()));
    r.set("svname", b"KNS", Str(name.into()));
    r.set("pid", b"KGP", U32(1));
    r.set("iid", b"KGS", U32(proxy_id));
    r.set("sid", b"KGS", U32(id));
}

fn mode(p: &ProxyState) -> String {
    if p.mode_http { "http" } else { "tcp" }.into()
}

fn algorithm(a: &Algorithm) -> &'static str {
    match a {
        Algorithm::RoundRobin => "roundrobin",
        Algorithm::LeastConn => "leastconn",
        Algorithm::Source => "source",
        Algorithm::Random(_) => "random",
    }
}

fn address(a: &Address) -> String {
    match a {
        Address::Ip(a) => a.to_string(),
        Address::Unix(_) => "unix".into(),
        Address::Fd(n) => format!("fd@{n}"),
    }
}

fn since_start_s(shared: &Shared) -> u32 {
    let ms = clock::read()
        .mono_ms
        .saturating_sub(shared.world.process.start_ms);
    u32::try_from(ms / 1000).unwrap_or(u32::MAX)
}

/// Seconds since `then_ms`, -1 for never.
fn ago_s(then_ms: u64, now_ms: u64) -> i32 {
    if then_ms == 0 {
        return -1;
    }
    i32::try_from(now_ms.saturating_sub(then_ms) / 1000).unwrap_or(i32::MAX)
}

/// Bits of `ServerStats::admin`.
pub(crate) const MAINT: u32 = 1;
pub(super) const DRAIN: u32 = 8;

const HRSP: [&str; 6] = [
    "hrsp_1xx",
    "hrsp_2xx",
    "hrsp_3xx",
    "hrsp_4xx",
    "hrsp_5xx",
    "hrsp_other",
];

/// All columns with what `desc` says about them.
#[rustfmt::skip]
const COLUMNS: &[(&str, &str)] = &[
    ("pxname", "Name of the proxy"), ("svname", "FRONTEND, BACKEND, or name of the server"),
    ("qcur", "Requests queued now"), ("qmax", "Most requests ever queued"),
    ("scur", "Sessions now"), ("smax", "Most sessions ever at a time"), ("slim", "Limit of sessions"),
    ("stot", "Sessions since start"), ("bin", "Bytes from clients"), ("bout", "Bytes to clients"),
    ("dreq", "Requests refused by rules"), ("dresp", "Responses refused by rules"),
    ("ereq", "Invalid requests"), ("econ", "Failed connections to servers"), ("eresp", "Invalid or broken responses"),
    ("wretr", "Connection attempts made again"), ("wredis", "Requests sent to another server"),
    ("status", "State now"), ("weight", "Weight in effect"),
    ("act", "Active servers"), ("bck", "Backup servers"),
    ("chkfail", "Failed health checks"), ("chkdown", "Times it went down"),
    ("lastchg", "Seconds since its state changed"), ("downtime", "Seconds it was down"),
    ("qlimit", "Limit of its queue"), ("pid", "Number of the process"), ("iid", "Number of the proxy"),
    ("sid", "Number of the server"), ("throttle", "Percent of its weight during slow start"),
    ("lbtot", "Requests that balancing sent here"), ("tracked", "Server whose state it follows"),
    ("type", "0 frontend, 1 backend, 2 server, 3 listener"),
    ("rate", "Sessions over the last second"), ("rate_lim", "Limit of rate"), ("rate_max", "Highest rate"),
    ("check_status", "State of health checks"), ("check_code", "Code of the last check"),
    ("check_duration", "Milliseconds the last check took"),
    ("hrsp_1xx", "Responses with status 1xx"), ("hrsp_2xx", "Responses with status 2xx"),
    ("hrsp_3xx", "Responses with status 3xx"), ("hrsp_4xx", "Responses with status 4xx"),
    ("hrsp_5xx", "Responses with status 5xx"), ("hrsp_other", "Responses with another status"),
    ("hanafail", "Failed observations of traffic"),
    ("req_rate", "Requests over the last second"), ("req_rate_max", "Highest req_rate"), ("req_tot", "Requests since start"),
    ("cli_abrt", "Transfers that the client broke off"), ("srv_abrt", "Transfers that the server broke off"),
    ("comp_in", "Bytes into compression"), ("comp_out", "Bytes out of compression"),
    ("comp_byp", "Bytes that went past compression"), ("comp_rsp", "Responses compressed"),
    ("lastsess", "Seconds since the last session, -1 = none"),
    ("last_chk", "Text of the last check"), ("last_agt", "Text of the last agent check"),
    ("qtime", "Average queue time"), ("ctime", "Average connect time"), ("rtime", "Average response time"),
    ("ttime", "Average total time"),
    ("agent_status", "State of agent checks"), ("agent_code", "Code of the last agent check"),
    ("agent_duration", "Milliseconds the last agent check took"),
    ("check_desc", "Meaning of check_status"), ("agent_desc", "Meaning of agent_status"),
    ("check_rise", "Checks to pass to come up"), ("check_fall", "Checks to fail to go down"),
    ("check_health", "Position between fall and rise"),
    ("agent_rise", "Agent checks to come up"), ("agent_fall", "Agent checks to go down"), ("agent_health", "Position between them"),
    ("addr", "Address"), ("cookie", "Cookie value"), ("mode", "Mode of the proxy"), ("algo", "Balancing algorithm"),
    ("conn_rate", "Connections over the last second"), ("conn_rate_max", "Highest conn_rate"),
    ("conn_tot", "Connections since start"), ("intercepted", "Requests answered by the proxy itself"),
    ("dcon", "Connections refused by tcp-request connection"), ("dses", "Connections refused by tcp-request session"),
    ("wrew", "Failed header rewrites"), ("connect", "Connections opened to servers"),
    ("reuse", "Requests sent over idle connections"), ("cache_lookups", "Cache lookups"), ("cache_hits", "Cache hits"),
    ("srv_icur", "Idle connections"), ("src_ilim", "Limit of idle connections"),
    ("qtime_max", "Longest queue time"), ("ctime_max", "Longest connect time"), ("rtime_max", "Longest response time"),
    ("ttime_max", "Longest total time"), ("eint", "Internal errors"),
    ("idle_conn_cur", "Idle connections, unsafe to reuse"), ("safe_conn_cur", "Idle connections, safe to reuse"),
    ("used_conn_cur", "Connections in use"), ("need_conn_est", "Estimate of connections needed"),
    ("uweight", "Weight as set by the user"), ("agg_server_status", "Servers by state"),
    ("agg_server_check_status", "Servers by state of checks"), ("agg_check_status", "Servers by result of checks"),
    ("srid", "Revision of the server's id"), ("sess_other", "Sessions of other protocols"),
    ("h1sess", "HTTP/1 sessions"), ("h2sess", "HTTP/2 sessions"), ("h3sess", "HTTP/3 sessions"),
    ("req_other", "Requests of other protocols"), ("h1req", "HTTP/1 requests"), ("h2req", "HTTP/2 requests"), ("h3req", "HTTP/3 requests"),
    ("proto", "Protocol"), ("priv_idle_cur", "Idle private connections"),
    ("reqbin", "Request bytes received"), ("reqbout", "Request bytes sent"),
    ("resbin", "Response bytes received"), ("resbout", "Response bytes sent"),
    ("cache_hint_hits", "Cache hits by hint"), ("-", "End of the fixed columns"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_one_of_the_reference() {
        let expected = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,\
            status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,\
            rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,\
            hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,\
            lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,\
            agent_desc,check_rise,check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,\
            conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,\
            src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,\
            need_conn_est,uweight,agg_server_status,agg_server_check_status,agg_check_status,srid,sess_other,h1sess,\
            h2sess,h3sess,req_other,h1req,h2req,h3req,proto,priv_idle_cur,reqbin,reqbout,resbin,resbout,\
            cache_hint_hits,-,";
        let got: String = COLUMNS.iter().map(|(n, _)| format!("{n},")).collect();
        assert_eq!(got, expected);
    }
}
