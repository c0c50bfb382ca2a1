//! `show info`. Names and positions are HAProxy's; only those that mean something here are shown.
//! (reference: admin-cli 4.1)

use std::sync::atomic::Ordering::Relaxed;

use rustix::process::{Resource, getrlimit};

use super::typed::{self, Field, Form, Tags, Value};
use super::{Answer, err};
use crate::admin::line::Words;
use crate::admin::session::Context;
use crate::proxy::clock;
use crate::shared::Shared;

pub(in crate::admin) fn show(cx: &mut Context, words: &Words) -> Answer {
    let (mut form, mut description) = (Form::Plain, false);
    for word in words.from(2) {
        match word.as_slice() {
            b"typed" => form = Form::Typed,
            b"json" => form = Form::Json,
            b"desc" => description = true,
            // All values are integers or text.
            b"float" => {}
            _ => return err("'show info' only supports 'desc', 'float', 'json' and 'typed'."),
        }
    }
    let fields = fields(&cx.shared);
    let mut out = Vec::new();
    if form == Form::Json {
        out.push(b'[');
    }
    for (i, field) in fields.iter().enumerate() {
        match form {
            Form::Plain => {
                out.extend_from_slice(field.name.as_bytes());
                out.extend_from_slice(b": ");
                field.value.write(&mut out);
                typed::write_description(field, description, &mut out);
                out.push(b'\n');
            }
            Form::Typed => typed::write_typed(field, description, &mut out),
            Form::Json => {
                if i > 0 {
                    out.push(b',');
                }
                typed::write_json(field, "", description, &mut out);
            }
        }
    }
    if form == Form::Json {
        out.extend_from_slice(b"]\n");
    }
    Answer::Text(out)
}

#[rustfmt::skip]
fn fields(shared: &Shared) -> Vec<Field> {
    use Value::{Str, U32, U64};
    let p = &shared.world.process;
    let plan = &shared.plan;
    let now = clock::read();
    let up_s = now.mono_ms.saturating_sub(p.start_ms) / 1000;
    let up = format!("{}d {}h{:02}m{:02}s", up_s / 86_400, up_s / 3600 % 24, up_s / 60 % 60, up_s % 60);
    let files = u32::try_from(getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u32::MAX))).unwrap_or(u32::MAX);
    let maxconn = p.maxconn.load(Relaxed);
    let listeners: usize = plan.proxies.iter().filter(|x| !x.disabled).map(|x| x.binds.len()).sum::<usize>() + plan.global.stats_sockets.len();
    let current = p.curr_conns.load(Relaxed);
    let peaks = &shared.peaks;
    let lost = p.dropped_logs.load(Relaxed) + shared.logs.lost();
    let rows: Vec<(usize, &'static str, Tags, Value, &'static str)> = vec![
        (0, "Name", b"POS", Str("Remora".into()), "Name of the product"),
        (1, "Version", b"POS", Str(crate::VERSION.into()), "Version of the product"),
        (3, "Nbthread", b"CGS", U32(u32::from(p.nbthread)), "Worker threads (nbthread)"),
        (4, "Nbproc", b"CGS", U32(1), "Worker processes, always 1"),
        (5, "Process_num", b"KGP", U32(1), "Number of this process, always 1"),
        (6, "Pid", b"SGP", U32(p.pid), "Process id"),
        (7, "Uptime", b"MDP", Str(up), "Time since start, in days, hours, minutes and seconds"),
        (8, "Uptime_sec", b"MDP", U32(u32::try_from(up_s).unwrap_or(u32::MAX)), "Time since start, in seconds"),
        (9, "Memmax_MB", b"CLP", U32(0), "Memory limit in MB, 0 = none"),
        (13, "Ulimit-n", b"CLP", U32(files), "Limit of open files"),
        (14, "Maxsock", b"CLP", U32(files), "Limit of open sockets"),
        (15, "Maxconn", b"CLP", U32(maxconn), "Limit of connections"),
        (16, "Hard_maxconn", b"CLP", U32(plan.global.maxconn), "Limit of connections at start"),
        (17, "CurrConns", b"MGP", U32(current), "Client connections now"),
        (18, "CumConns", b"MCP", U64(p.cum_conns.load(Relaxed)), "Client connections since start"),
        (19, "CumReq", b"MCP", U64(p.cum_reqs.load(Relaxed)), "Requests since start"),
        (26, "ConnRate", b"MRP", U32(p.conn_rate.rate(now.mono_ms)), "Connections over the last second"),
        (27, "ConnRateLimit", b"CLP", U32(0), "Limit of ConnRate, 0 = none"),
        (28, "MaxConnRate", b"MMP", U32(peaks.conn_rate().max(p.conn_rate.rate(now.mono_ms))), "Highest ConnRate seen, looked at once per second"),
        (29, "SessRate", b"MRP", U32(p.sess_rate.rate(now.mono_ms)), "Sessions over the last second"),
        (30, "SessRateLimit", b"CLP", U32(0), "Limit of SessRate, 0 = none"),
        (31, "MaxSessRate", b"MMP", U32(peaks.sess_rate().max(p.sess_rate.rate(now.mono_ms))), "Highest SessRate seen, looked at once per second"),
        (50, "node", b"COS", Str(plan.global.node.clone()), "Name of the node (node)"),
        (51, "description", b"COS", Str(plan.global.description.clone().unwrap_or_default()), "Description (description)"),
        (52, "Stopping", b"MGP", U32(u32::from(p.stopping.load(Relaxed))), "1 while a soft stop is in progress"),
        (53, "Jobs", b"MGP", U32(current.saturating_add(listeners as u32)), "Connections and listeners"),
        (54, "Unstoppable Jobs", b"MGP", U32(0), "Jobs that a soft stop does not end"),
        (55, "Listeners", b"MGP", U32(listeners as u32), "Listening addresses, the CLI's too"),
        (56, "ActivePeers", b"MGP", U32(0), "Peers connected and verified"),
        (57, "ConnectedPeers", b"MGP", U32(0), "Peers connected"),
        (58, "DroppedLogs", b"MGP", U64(lost), "Log lines lost since start"),
        (59, "BusyPolling", b"MGP", U32(0), "1 with busy polling"),
        (60, "FailedResolutions", b"MGP", U32(0), "Failed name resolutions while running"),
        (61, "TotalBytesOut", b"MGP", U64(p.bytes_out.load(Relaxed)), "Bytes sent since start"),
        (62, "TotalSplicedBytesOut", b"MGP", U64(p.spliced_bytes_out.load(Relaxed)), "Bytes sent through a kernel pipe since start"),
        (66, "Build info", b"POS", Str(crate::VERSION.into()), "Version it was built from"),
        (67, "Memmax_bytes", b"CLP", U32(0), "Memory limit in bytes, 0 = none"),
        (70, "Start_time_sec", b"MDP", U32(u32::try_from(p.start_wall_us / 1_000_000).unwrap_or(u32::MAX)), "Time of start, seconds since 1970"),
        (71, "Tainted", b"SGP", Str("0".into()), "Experimental features in use"),
        (73, "MaxconnReached", b"MCP", U64(p.maxconn_reached.load(Relaxed)), "Times Maxconn was reached since start"),
    ];
    rows.into_iter()
        // HAProxy too leaves the description out when there is none.
        .filter(|row| row.1 != "description" || plan.global.description.is_some())
        .map(|(position, name, tags, value, description)| Field { position, name, tags, value, description })
        .collect()
}
