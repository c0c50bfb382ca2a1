//! Statements of `global` (config-dialect 6.1).

use remora_core::world::StatusSet;

use crate::ast::{Prefix, Statement, whole};
use crate::env::Env;
use crate::known::{self, Kind};
use crate::plan::{ADMIN_CONNECTIONS_MAX, Global, Place};
use crate::scope::unsupported;
use crate::values::{self, Unit};
use crate::{Loader, Options, listen, logs};

/// What is known before the first statement.
pub(crate) fn defaults(options: &Options) -> Global {
    Global {
        maxconn: 0,
        nbthread: options.cpus.max(1),
        stats_sockets: Vec::new(),
        admin_binds: Vec::new(),
        stats_timeout_ms: 10_000,
        stats_maxconn: 10,
        logs: Vec::new(),
        log_tag: None,
        log_send_hostname: None,
        node: options.hostname.clone(),
        description: None,
        daemon: false,
        master_worker: false,
        handoff: None,
        mworker_max_reloads: MWORKER_MAX_RELOADS,
        pidfile: None,
        hard_stop_after_ms: None,
        grace_ms: 0,
        close_spread_time_ms: 0,
        bufsize: 16_384,
        maxrewrite: 1_024,
        maxhdr: 101,
        stick_counters: 3,
        http_err_codes: StatusSet::client_errors(),
        http_fail_codes: StatusSet::server_failures(),
        zero_warning: false,
        quiet: false,
        environment: Vec::new(),
        hostname: options.hostname.clone(),
        localpeer: options
            .localpeer
            .clone()
            .unwrap_or_else(|| options.hostname.clone()),
        user: None,
        group: None,
        uid: None,
        gid: None,
        chroot: None,
        ulimit_n: None,
        ca_base: None,
        crt_base: None,
    }
}

/// Default of `mworker-max-reloads`.
const MWORKER_MAX_RELOADS: u32 = 50;
/// Greatest number of threads (as in the reference).
const THREADS_MAX: u64 = 64;
/// Bounds of `tune.bufsize`: what the parser's offsets and the per-thread pools can hold.
const BUFSIZE: std::ops::RangeInclusive<usize> = 2_048..=16 * 1024 * 1024;
/// Error and failure codes have room for these.
const STATUSES: std::ops::RangeInclusive<u16> = 100..=599;

/// What compiling `global` needs beside the plan's part.
pub(crate) struct Cx<'c> {
    pub(crate) global: &'c mut Global,
    pub(crate) options: &'c Options,
    pub(crate) loader: &'c mut dyn Loader,
    pub(crate) log_hostname_default: bool,
    pub(crate) warnings: Vec<(Place, String)>,
    seen_maxconn: bool,
}

impl<'c> Cx<'c> {
    pub(crate) fn new(
        global: &'c mut Global,
        options: &'c Options,
        loader: &'c mut dyn Loader,
    ) -> Self {
        Cx {
            global,
            options,
            loader,
            log_hostname_default: false,
            warnings: Vec::new(),
            seen_maxconn: false,
        }
    }

    /// Values that follow from others.
    pub(crate) fn finish(self, env: &Env) -> Vec<(Place, String)> {
        let g = self.global;
        if self.log_hostname_default {
            g.log_send_hostname.get_or_insert(g.hostname.clone());
        }
        if let Some(n) = self.options.maxconn {
            g.maxconn = n;
        }
        if g.maxconn == 0 {
            let files = g.ulimit_n.unwrap_or(self.options.fd_limit);
            let admin = g.admin_binds.len() as u64 * u64::from(ADMIN_CONNECTIONS_MAX);
            g.maxconn = computed_maxconn(files.saturating_sub(admin));
        }
        g.maxrewrite = g.maxrewrite.min(g.bufsize / 2);
        g.environment = env.changes();
        self.warnings
    }

    /// One statement.
    pub(crate) fn statement(&mut self, s: &Statement) -> Result<(), String> {
        let keyword = s.keyword();
        let k = keyword.as_str();
        match k {
            // Done while the file was read.
            "setenv" | "presetenv" | "unsetenv" | "resetenv" => {}
            "maxconn" => {
                let n = self.one(s, "expects an integer argument.")?;
                if self.seen_maxconn {
                    return Err("'maxconn' already specified. Continuing.".to_owned());
                }
                self.seen_maxconn = true;
                self.global.maxconn = n.parse().map_err(|_| {
                    format!("cannot parse 'maxconn' value '{n}', an integer is expected.")
                })?;
            }
            "nbthread" => {
                let n = s.arg(0);
                self.no_more(s, 1)?;
                let count: u64 = n.parse().map_err(|_| {
                    format!("'nbthread' passed a missing or unparsable integer value in '{n}'")
                })?;
                if !(1..=THREADS_MAX).contains(&count) {
                    return Err(format!(
                        "'nbthread' value must be between 1 and {THREADS_MAX} (was {count})"
                    ));
                }
                self.global.nbthread = count as u16;
            }
            "thread-groups" => {
                let n = self.one(s, "expects an integer argument.")?;
                if n != "1" {
                    return Err(match n.parse::<u32>() {
                        Ok(2..=16) => unsupported(&format!("thread-groups {n}")),
                        _ => format!("'thread-groups' value must be between 1 and 1 (was {n})"),
                    });
                }
            }
            "stats" => self.stats(s)?,
            "admin" => match s.arg(0).as_str() {
                "bind" => {
                    let args = s.args().get(1..).unwrap_or_default();
                    let bind = listen::admin_bind(args, s.place, self.loader)?;
                    self.global.admin_binds.push(bind);
                }
                other => return Err(format!("'admin' only supports 'bind' (got '{other}')")),
            },
            "log" => match s.prefix {
                Prefix::None if s.arg(0) == "global" => {
                    return Err(
                        "log : expects <address> and <facility> as arguments; 'global' only makes sense in a proxy"
                            .to_owned(),
                    );
                }
                Prefix::None => {
                    let target = logs::parse(s.args(), true, self.loader)?;
                    self.global.logs.push(target);
                }
                _ if s.args().is_empty() => self.global.logs.clear(),
                _ => return Err("log : 'no log' does not expect arguments".to_owned()),
            },
            "log-tag" => {
                let tag = self.one(s, "expects a tag for use in syslog.")?;
                self.global.log_tag = Some(tag);
            }
            "log-send-hostname" => {
                self.no_more(s, 1)?;
                match s.arg(0) {
                    name if name.is_empty() => self.log_hostname_default = true,
                    name => self.global.log_send_hostname = Some(name),
                }
            }
            "hostname" => {
                self.global.hostname = self.one(s, "expects a name as an argument.")?;
            }
            "node" => {
                let name = s.arg(0);
                let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                if name.is_empty() || !name.chars().all(ok) {
                    return Err(format!(
                        "'node' requires valid node name made of letters, digits, '.', '-' and '_' (got '{name}')."
                    ));
                }
                self.no_more(s, 1)?;
                self.global.node = name;
            }
            "description" => {
                if s.args().is_empty() {
                    return Err("'description' expects a string argument.".to_owned());
                }
                self.global.description = Some(joined(s));
            }
            "daemon" => {
                self.no_more(s, 0)?;
                self.global.daemon = true;
            }
            "master-worker" => {
                self.no_more(s, 1)?;
                match s.arg(0).as_str() {
                    // A worker that ends is always started again, so the option asks for what happens anyway.
                    "" | "no-exit-on-failure" => self.global.master_worker = true,
                    other => {
                        return Err(format!(
                            "'master-worker' only supports 'no-exit-on-failure' option (got '{other}')."
                        ));
                    }
                }
            }
            // Remora's own.
            "handoff" => {
                let path = self.one(s, "expects the path of a socket.")?;
                if self.global.handoff.is_some() {
                    return Err("'handoff' already specified: a process has one.".to_owned());
                }
                self.global.handoff = Some(path);
            }
            "mworker-max-reloads" => {
                let n = self.one(s, "expects an integer argument.")?;
                self.global.mworker_max_reloads = n.parse().map_err(|_| {
                    format!("'mworker-max-reloads' : invalid value '{n}', must be >= 0")
                })?;
            }
            "quiet" => {
                self.no_more(s, 0)?;
                self.global.quiet = true;
            }
            "zero-warning" => {
                self.no_more(s, 0)?;
                self.global.zero_warning = true;
            }
            "pidfile" => {
                self.global.pidfile = Some(self.one(s, "expects a file name as an argument.")?);
            }
            "chroot" => {
                self.global.chroot = Some(self.one(s, "expects a directory as an argument.")?);
            }
            "ca-base" => {
                self.global.ca_base = Some(self.one(s, "expects a directory as an argument.")?);
            }
            "crt-base" => {
                self.global.crt_base = Some(self.one(s, "expects a directory as an argument.")?);
            }
            "user" => {
                self.global.user = Some(self.one(s, "expects a user name as an argument.")?);
            }
            "group" => {
                self.global.group = Some(self.one(s, "expects a group name as an argument.")?);
            }
            "uid" | "gid" => {
                let n = self.one(s, "expects an integer argument.")?;
                let named = if k == "uid" { "user" } else { "group" };
                let n: u32 = n.parse().map_err(|_| {
                    format!("{k}: string '{n}' is not a number; names go with '{named}'.")
                })?;
                if k == "uid" {
                    self.global.uid = Some(n);
                } else {
                    self.global.gid = Some(n);
                }
            }
            "ulimit-n" => {
                let n = self.one(s, "expects an integer argument.")?;
                self.global.ulimit_n =
                    Some(n.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                        format!("'ulimit-n' expects a positive integer (got '{n}').")
                    })?);
            }
            "hard-stop-after" => self.global.hard_stop_after_ms = Some(self.time(s)?),
            "grace" => self.global.grace_ms = self.time(s)?,
            "close-spread-time" => {
                // An infinite spread is the longest there is.
                self.global.close_spread_time_ms = if s.arg(0) == "infinite" {
                    self.no_more(s, 1)?;
                    values::TIME_MAX_MS as u32
                } else {
                    self.time(s)?
                };
            }
            "localpeer" => {
                let name = self.one(s, "expects a name as an argument.")?;
                if self.options.localpeer.is_some() {
                    let text = "'localpeer' ignored since it is already set by using the '-L' command line argument.";
                    self.warnings.push((s.place, text.to_owned()));
                } else {
                    self.global.localpeer = name;
                }
            }
            "tune.stick-counters" => {
                let n = self.one(s, "expects a numeric value.")?;
                self.global.stick_counters =
                    n.parse().ok().filter(|n| *n <= 100).ok_or_else(|| {
                        format!(
                            "'tune.stick-counters' expects a number between 0 and 100 (got '{n}')."
                        )
                    })?;
            }
            "tune.bufsize" => {
                let n = self.positive(s)?;
                if !BUFSIZE.contains(&n) {
                    return Err(format!(
                        "'tune.bufsize' must be between {} and {} (was {n}).",
                        BUFSIZE.start(),
                        BUFSIZE.end()
                    ));
                }
                self.global.bufsize = n;
            }
            "tune.maxrewrite" => self.global.maxrewrite = self.positive(s)?,
            "tune.http.maxhdr" => {
                let n = self.one(s, "expects a numeric value between 1 and 32767")?;
                self.global.maxhdr = n
                    .parse()
                    .ok()
                    .filter(|n| (1..=32_767).contains(n))
                    .ok_or("'tune.http.maxhdr' expects a numeric value between 1 and 32767")?;
            }
            "http-err-codes" => codes(s, &mut self.global.http_err_codes)?,
            "http-fail-codes" => codes(s, &mut self.global.http_fail_codes)?,
            // Permissions for what Remora does not do anyway.
            "expose-experimental-directives"
            | "expose-deprecated-directives"
            | "insecure-fork-wanted" => {
                self.no_more(s, 0)?;
            }
            // The old process manager's setting that every modern file may still carry.
            "nbproc" => match self.one(s, "expects an integer argument.")?.as_str() {
                "1" => {}
                n => return Err(unsupported(&format!("nbproc {n}"))),
            },
            _ if known::is_known(Kind::Global, k) => return Err(unsupported(k)),
            _ => {
                let hint = known::hint(k, Kind::Global);
                return Err(format!(
                    "unknown keyword '{keyword}' in 'global' section{hint}"
                ));
            }
        }
        Ok(())
    }

    fn stats(&mut self, s: &Statement) -> Result<(), String> {
        match s.arg(0).as_str() {
            "socket" => {
                let args = s.args().get(1..).unwrap_or_default();
                let socket = listen::stats_socket(args, s.place, self.loader)?;
                self.global.stats_sockets.push(socket);
            }
            "timeout" => {
                let v = s.arg(1);
                self.no_more(s, 2)?;
                self.global.stats_timeout_ms = match values::time_ms(&v, Unit::Ms) {
                    Ok(0) | Err(_) if v.is_empty() || v == "0" => {
                        return Err("'stats timeout' expects a positive value".to_owned());
                    }
                    Ok(ms) => ms,
                    Err(e) => {
                        return Err(format!(
                            "'stats timeout' : {}",
                            e.message(&v, "stats timeout")
                        ));
                    }
                };
            }
            "maxconn" => {
                self.no_more(s, 2)?;
                self.global.stats_maxconn = s
                    .arg(1)
                    .parse()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or("'stats maxconn' expects a positive value")?;
            }
            "bind-process" => return Err(unsupported("stats bind-process")),
            other => {
                return Err(format!(
                    "'stats' only supports 'socket', 'maxconn', 'bind-process' and 'timeout' (got '{other}')"
                ));
            }
        }
        Ok(())
    }

    /// The only argument of a statement.
    fn one(&self, s: &Statement, missing: &str) -> Result<String, String> {
        self.no_more(s, 1)?;
        match s.args().first() {
            Some(w) => Ok(w.text().into_owned()),
            None => Err(format!("'{}' {missing}", s.keyword())),
        }
    }
    fn no_more(&self, s: &Statement, max: usize) -> Result<(), String> {
        crate::proxy::no_more(s, max)
    }
    fn positive(&self, s: &Statement) -> Result<usize, String> {
        let wrong = "expects a positive integer argument.";
        let text = self.one(s, wrong)?;
        values::size(&text)
            .ok()
            .filter(|n| *n > 0)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| format!("'{}' {wrong}", s.keyword()))
    }
    fn time(&self, s: &Statement) -> Result<u32, String> {
        let k = s.keyword();
        let v = self.one(s, "expects <time> as argument.")?;
        values::time_ms(&v, Unit::Ms).map_err(|e| match e {
            values::TimeError::Unexpected(c) => {
                format!("unexpected character '{c}' in argument to <{k}>.")
            }
            e @ values::TimeError::Overflow => e.message(&v, &k),
        })
    }
}

/// All arguments with a blank between.
pub(crate) fn joined(s: &Statement) -> String {
    s.args()
        .iter()
        .map(|w| w.text())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Connections that fit into so many descriptors: two each, and some for listeners, logs and files.
fn computed_maxconn(fd_limit: u64) -> u32 {
    const RESERVED: u64 = 100;
    const MOST: u64 = 1_000_000;
    let n = (fd_limit.saturating_sub(RESERVED) / 2).clamp(10, MOST);
    n as u32
}

/// `http-err-codes` and `http-fail-codes`: items `CODE` or `LO-HI`, with `+` or `-` in front; the first item without
/// either replaces the set. Separated by commas or blanks.
fn codes(s: &Statement, set: &mut StatusSet) -> Result<(), String> {
    let k = s.keyword();
    let all: Vec<String> = s.args().iter().map(whole).collect();
    let items: Vec<&str> = all
        .iter()
        .flat_map(|w| w.split(','))
        .filter(|i| !i.is_empty())
        .collect();
    if items.is_empty() {
        return Err(format!("'{k}' expects one or several status codes."));
    }
    let mut replaced = false;
    for item in items {
        let (sign, range) = match item.chars().next() {
            Some(c @ ('+' | '-')) => (Some(c), item.get(1..).unwrap_or_default()),
            _ => (None, item),
        };
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let code = |t: &str| t.parse::<u16>().ok().filter(|c| STATUSES.contains(c));
        let (Some(low), Some(high)) = (code(low), code(high)) else {
            return Err(format!(
                "'{k}' : invalid status code or range '{item}', codes are {} to {}.",
                STATUSES.start(),
                STATUSES.end()
            ));
        };
        if low > high {
            return Err(format!("'{k}' : '{item}' ends before it begins."));
        }
        match sign {
            Some('-') => set.remove(low, high),
            Some(_) => set.insert(low, high),
            None => {
                if !replaced {
                    *set = StatusSet::EMPTY;
                    replaced = true;
                }
                set.insert(low, high);
            }
        }
    }
    Ok(())
}
