//! The two proxies, the server behind them, and who runs on which core.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use cluster_tests::cluster::Spec;
use cluster_tests::locate::{self, Kind};
use cluster_tests::ports::{Port, is_listening};
use cluster_tests::wait::until_within;
use cluster_tests::{Launch, Proxy, tools};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use crate::args::Args;

/// The rules both proxies run: one tracker and one deny rule for requests, one tracker and one reject for connections.
const RULES: &str = "
global
  nbthread 1
  maxconn 9000
  stats socket {{cli}} level admin
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend fe
  bind 127.0.0.1:{{port:fe}}
  stick-table type ip size 100k expire 1m store http_req_rate(10s)
  http-request track-sc0 src
  http-request deny deny_status 429 if { sc0_http_req_rate gt 1000000000 }
  default_backend be
frontend refuse
  bind 127.0.0.1:{{port:refuse}}
  stick-table type ip size 100k expire 1m store conn_rate(10s)
  tcp-request connection track-sc0 src
  tcp-request connection reject if { sc0_conn_rate gt 10 }
  default_backend be
backend be
  server s1 {{s1}}
backend entries
  stick-table type ip size {{entries}} expire 1h store conn_rate(10s),http_req_rate(10s),gpc0,http_err_cnt
";

/// One of the two.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    program: PathBuf,
    /// Runs all the time, so that a round of one directly follows a round of the other.
    pub(crate) proxy: Proxy,
}

/// Everything a measurement needs.
pub(crate) struct Machine {
    sides: Vec<Side>,
    nginx: Nginx,
    proxy_core: Option<String>,
    pub(crate) seconds: u64,
    pub(crate) connections: usize,
    pub(crate) entries: u32,
    versions: String,
}

impl Machine {
    /// Finds the programs, divides the cores, starts the server and both proxies.
    pub(crate) fn prepare(args: &Args) -> Result<Self> {
        let remora = args
            .remora
            .clone()
            .unwrap_or_else(|| locate::build("release"));
        let found = |given: &Option<PathBuf>, name: &str| {
            given
                .clone()
                .or_else(|| tools::find(name))
                .with_context(|| format!("{name} is not installed"))
        };
        let (haproxy, nginx) = (
            found(&args.haproxy, "haproxy")?,
            found(&args.nginx, "nginx")?,
        );
        ensure!(tools::find("wrk").is_some(), "wrk is not installed");
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let wanted = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        rustix::process::setrlimit(Resource::Nofile, wanted)
            .context("raising the descriptor limit")?;

        let cores = std::thread::available_parallelism()?.get();
        let proxy_core = (cores > 1 && tools::find("taskset").is_some()).then(|| "0".to_owned());
        if proxy_core.is_some() {
            let mut others = CpuSet::new();
            (1..cores).for_each(|core| others.set(core));
            sched_setaffinity(None, &others).context("leaving core 0 to the proxies")?;
        }
        let mut versions = String::new();
        for (name, program, flag) in [
            ("remora", &remora, "-v"),
            ("haproxy", &haproxy, "-v"),
            ("nginx", &nginx, "-v"),
        ] {
            let said = tools::run(Command::new(program).arg(flag));
            let text = said.stdout + &said.stderr;
            writeln!(
                versions,
                "{name}: {}",
                text.lines().next().unwrap_or_default()
            )?;
        }
        let mut machine = Self {
            sides: Vec::new(),
            nginx: Nginx::start(&nginx)?,
            proxy_core,
            seconds: args.seconds,
            connections: args.connections,
            entries: args.entries,
            versions,
        };
        for (name, kind, program) in [
            ("remora", Kind::Remora, remora),
            ("haproxy", Kind::Haproxy, haproxy),
        ] {
            let program = std::path::absolute(program)?;
            let proxy = machine.start(kind, &program);
            machine.sides.push(Side {
                name,
                kind,
                program,
                proxy,
            });
        }
        Ok(machine)
    }

    /// Remora first, then HAProxy.
    pub(crate) fn sides(&self) -> &[Side] {
        &self.sides
    }

    /// The versions of everything taking part, one a line.
    pub(crate) fn versions(&self) -> &str {
        &self.versions
    }

    /// A cluster of a side, all of whose nodes run on the proxies' core.
    pub(crate) fn cluster(&self, side: &Side, nodes: usize) -> Spec {
        let spec = Spec::of(nodes)
            .program(side.kind, Some(side.program.clone()))
            .global("  nbthread 1\n  maxconn 9000")
            .one_clock();
        match &self.proxy_core {
            Some(core) => spec.wrapper(&["taskset", "-c", core]),
            None => spec,
        }
    }

    /// A second process of a side, with nothing in its memory yet.
    pub(crate) fn fresh(&self, side: &Side) -> Proxy {
        self.start(side.kind, &side.program)
    }

    fn start(&self, kind: Kind, program: &Path) -> Proxy {
        let launch = Launch::of(kind, RULES)
            .program(program)
            .set("s1", self.nginx.addr)
            .set("entries", self.entries + self.entries / 8);
        match &self.proxy_core {
            Some(core) => launch.wrapper(&["taskset", "-c", core]).start(),
            None => launch.start(),
        }
    }
}

/// The server behind the proxies.
struct Nginx {
    child: Child,
    addr: SocketAddr,
    _port: Port,
    _dir: TempDir,
}

impl Nginx {
    fn start(program: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sbs-").tempdir()?;
        let port = Port::claim();
        let root = dir.path().display();
        for (name, size) in [("64k", 65_536), ("1m", 1_048_576), ("chunked.html", 1000)] {
            std::fs::write(dir.path().join(name), vec![b'x'; size])?;
        }
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {root}/pid; error_log {root}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
  client_body_temp_path {root}/t; proxy_temp_path {root}/t; fastcgi_temp_path {root}/t; uwsgi_temp_path {root}/t; scgi_temp_path {root}/t;
  open_file_cache max=100; default_type text/plain; types {{ text/html html; }}
  server {{
    listen 127.0.0.1:{port}; root {root};
    location = /small {{ return 200 hello; }}
    location = /chunked.html {{ ssi on; }}
  }}
}}
",
            port = port.number()
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config)?;
        // A server started by root would drop to a user that cannot read the directory.
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        let mut child = Command::new(program)
            .args(["-p", &root.to_string(), "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting nginx")?;
        let ready = until_within(cluster_tests::wait::PATIENCE, || {
            (is_listening(port.number()) || child.try_wait().is_ok_and(|gone| gone.is_some()))
                .then_some(())
        });
        let lives = child.try_wait()?.is_none();
        let addr = SocketAddr::from(([127, 0, 0, 1], port.number()));
        let nginx = Self {
            child,
            addr,
            _port: port,
            _dir: dir,
        };
        ensure!(ready.is_some() && lives, "nginx does not start");
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
