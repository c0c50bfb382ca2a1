//! Starting, watching and stopping a proxy.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::capture::Capture;
use crate::cli::Cli;
use crate::locate::{self, Kind};
use crate::ports::{self, Port};
use crate::tools;
use crate::wait::{PATIENCE, until_within};

/// How long the children of a process that has ended are waited for: some have clients that stay.
const CHILDREN: Duration = Duration::from_secs(10);

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code, `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// A proxy to be started.
///
/// In the configuration text `{{port:NAME}}` becomes a free port (the same for the same name), `{{cli}}` the path of a
/// CLI socket, `{{dir}}` the directory of the files given with [`Launch::file`] (also the working directory), and
/// `{{NAME}}` what [`Launch::set`] said.
#[derive(Debug)]
pub struct Launch {
    kind: Kind,
    config: Vec<u8>,
    args: Vec<String>,
    vars: BTreeMap<String, String>,
    files: Vec<(String, Vec<u8>)>,
    env: Vec<(String, String)>,
    inherit: Option<(OwnedFd, u32)>,
    program: Option<PathBuf>,
    wrapper: Vec<String>,
    tethered: bool,
}

impl Launch {
    /// The program under test with this configuration.
    pub fn new(config: &str) -> Self {
        Self::of(locate::kind_under_test(), config)
    }

    /// A program of this kind with this configuration.
    pub fn of(kind: Kind, config: &str) -> Self {
        Self {
            kind,
            config: config.as_bytes().to_vec(),
            args: Vec::new(),
            vars: BTreeMap::new(),
            files: Vec::new(),
            env: Vec::new(),
            inherit: None,
            program: None,
            wrapper: Vec::new(),
            tethered: false,
        }
    }

    /// The program under test with a configuration that need not be text. Nothing is replaced in it.
    pub fn bytes(config: &[u8]) -> Self {
        let mut launch = Self::new("");
        launch.config = config.to_vec();
        launch
    }

    /// Adds lines at the end of the configuration.
    pub fn append(mut self, lines: &str) -> Self {
        self.config.extend_from_slice(lines.as_bytes());
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Runs a program of this kind, whichever is under test.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Runs it under a supervisor that reads the configuration again at every reload; its CLI is `{{dir}}/master.sock`.
    pub fn supervised(self) -> Self {
        ["-W", "-S", "{{dir}}/master.sock", "-f", "test.cfg"]
            .into_iter()
            .fold(self, Self::arg)
    }

    /// Replaces `{{name}}`.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.vars.insert(name.to_owned(), value.to_string());
        self
    }

    /// Puts a file into `{{dir}}`.
    pub fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.files
            .push((name.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts this file instead of the one of its kind.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_path_buf());
        self
    }

    /// Starts it through a command that executes its arguments (`taskset -c 0`).
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Ends it (SIGTERM) when the thread that starts it is gone, also if that is killed: for programs of many minutes, which
    /// somebody may lose patience with.
    pub fn tethered(mut self) -> Self {
        self.tethered = true;
        self
    }

    /// Passes a descriptor on as number `number`.
    pub fn inherit(mut self, fd: impl Into<OwnedFd>, number: u32) -> Self {
        self.inherit = Some((fd.into(), number));
        self
    }

    /// Starts it and waits until every `{{port:…}}` listens and `{{cli}}` answers.
    ///
    /// # Panics
    /// When it ends or is not ready in time; its messages are shown.
    #[track_caller]
    pub fn start(self) -> Proxy {
        match self.spawn().ready() {
            Ok(proxy) => proxy,
            Err(why) => panic!("{why}"),
        }
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// When the program cannot be executed at all.
    #[track_caller]
    pub fn spawn(self) -> Proxy {
        let dir = tempfile::Builder::new()
            .prefix("ct-")
            .tempdir()
            .expect("a temporary directory");
        for (name, content) in &self.files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, content).expect("a file");
        }
        let mut held = BTreeMap::new();
        let config = match std::str::from_utf8(&self.config) {
            Ok(text) => fill(text, &self.vars, dir.path(), &mut held).into_bytes(),
            Err(_) => self.config.clone(),
        };
        let file = dir.path().join("test.cfg");
        std::fs::write(&file, config).expect("a file");

        let mut command = self.command();
        if !self.args.iter().any(|arg| arg == "-f" || arg == "-D") {
            command.arg("-db").arg("-f").arg("test.cfg");
        }
        for arg in &self.args {
            command.arg(fill(arg, &self.vars, dir.path(), &mut held));
        }
        command
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in &self.env {
            command.env(name, fill(value, &self.vars, dir.path(), &mut held));
        }
        match self.inherit {
            Some((fd, _)) => command.stdin(Stdio::from(fd)),
            None => command.stdin(Stdio::null()),
        };
        let mut child = command.spawn().expect("the proxy can be executed");
        let stdout = Capture::of(child.stdout.take().expect("piped"));
        let stderr = Capture::of(child.stderr.take().expect("piped"));
        let waits_cli = String::from_utf8_lossy(&self.config).contains("{{cli}}");
        Proxy {
            kind: self.kind,
            child,
            dir,
            held,
            stdout,
            stderr,
            waits_cli,
            detaches: self.args.iter().any(|arg| arg == "-D"),
            supervised: self.args.iter().any(|arg| arg == "-W")
                || String::from_utf8_lossy(&self.config).contains("\n  master-worker"),
            wrapped: !self.wrapper.is_empty(),
            gone: None,
        }
    }

    /// Runs it to its own end (`-c`, or a configuration that must be refused).
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn run(self) -> Output {
        let mut proxy = self.spawn();
        let status = proxy.wait();
        Output {
            code: status.code(),
            stdout: proxy.stdout(),
            stderr: proxy.stderr(),
        }
    }

    /// `-c`: checks the configuration only.
    #[track_caller]
    pub fn check(self) -> Output {
        self.arg("-c").run()
    }

    fn command(&self) -> Command {
        let program = self
            .program
            .clone()
            .unwrap_or_else(|| locate::program(self.kind));
        if let Some((first, rest)) = self.wrapper.split_first() {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            return command;
        }
        // As the shell below: it executes the program, which keeps its process id and, across all that it executes in turn, this.
        if self.tethered
            && let Some(setpriv) = tools::find("setpriv")
        {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            return command;
        }
        let Some((_, number)) = self.inherit.as_ref().filter(|(_, number)| *number != 0) else {
            return Command::new(program);
        };
        // The shell does what would need unsafe code between fork and exec.
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("exec \"$0\" \"$@\" {number}<&0 </dev/null"))
            .arg(program);
        command
    }
}

fn fill(
    text: &str,
    vars: &BTreeMap<String, String>,
    dir: &Path,
    held: &mut BTreeMap<String, Port>,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("a placeholder ends");
        out.push_str(before);
        if let Some(port) = name.strip_prefix("port:") {
            let port = held.entry(port.to_owned()).or_insert_with(Port::claim);
            out.push_str(&port.number().to_string());
        } else if name == "dir" {
            out.push_str(&dir.to_string_lossy());
        } else if name == "cli" {
            out.push_str(&cli_path(dir).to_string_lossy());
        } else {
            let value = vars
                .get(name)
                .unwrap_or_else(|| panic!("nothing was set for {{{{{name}}}}}"));
            out.push_str(value);
        }
        rest = after;
    }
    out + rest
}

fn cli_path(dir: &Path) -> PathBuf {
    dir.join("cli.sock")
}

/// A started proxy; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    kind: Kind,
    child: Child,
    dir: TempDir,
    held: BTreeMap<String, Port>,
    stdout: Capture,
    stderr: Capture,
    waits_cli: bool,
    supervised: bool,
    wrapped: bool,
    detaches: bool,
    gone: Option<ExitStatus>,
}

impl Proxy {
    /// Waits until every `{{port:…}}` listens and `{{cli}}` answers.
    ///
    /// # Errors
    /// When it ends or is not ready in time: its messages.
    pub fn ready(mut self) -> Result<Self, String> {
        let ready = until_within(PATIENCE, || {
            if self.try_wait().is_some() {
                return Some(false);
            }
            let ports = self
                .held
                .values()
                .all(|port| ports::is_listening(port.number()));
            let answers = ports && (!self.waits_cli || self.cli().try_open().is_ok());
            (answers && self.is_settled()).then_some(true)
        });
        match ready {
            Some(true) => Ok(self),
            Some(false) => Err(format!(
                "the proxy ended ({:?}):\n{}",
                self.gone,
                self.stderr()
            )),
            None => Err(format!(
                "the proxy is not ready in time:\n{}",
                self.stderr()
            )),
        }
    }

    /// It listens a moment before its supervisor knows that it serves.
    fn is_settled(&self) -> bool {
        // A wrapper may have sent elsewhere what is said.
        self.is_haproxy()
            || !self.supervised
            || self.stderr().contains("Loading success.")
            || self.wrapped && self.dir().join("master.sock").exists()
    }

    /// Which program this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether this is HAProxy, whose 2.6 differs from the reference here and there.
    pub fn is_haproxy(&self) -> bool {
        self.kind == Kind::Haproxy
    }

    /// The address of `{{port:name}}` on 127.0.0.1.
    ///
    /// # Panics
    /// When the configuration had no such port.
    #[track_caller]
    pub fn addr(&self, name: &str) -> SocketAddr {
        let port = self
            .held
            .get(name)
            .unwrap_or_else(|| panic!("no {{{{port:{name}}}}} in the configuration"));
        SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()))
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its CLI socket, for configurations that name `{{cli}}`.
    pub fn cli(&self) -> Cli {
        Cli::new(cli_path(self.dir.path()))
    }

    /// One CLI command, see [`Cli::ask`].
    #[track_caller]
    pub fn ask(&self, line: &str) -> String {
        self.cli().ask(line)
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far. Messages are written by a thread of their own, a moment after what they
    /// tell of: see [`Proxy::says`].
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until it has written `text` to standard error so many times at least. Returns all that it has written.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn says_times(&self, times: usize, text: &str) -> String {
        let said = until_within(PATIENCE, || {
            Some(self.stderr()).filter(|said| said.matches(text).count() >= times)
        });
        said.unwrap_or_else(|| panic!("it does not say {text:?} ({times}):\n{}", self.stderr()))
    }

    /// Waits until it has written `text` to standard error. Returns all that it has written.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn says(&self, text: &str) -> String {
        self.says_times(1, text)
    }

    /// Waits for a line of standard output that `wanted` accepts (log lines, when the configuration logs there).
    ///
    /// # Panics
    /// When none comes in time.
    #[track_caller]
    pub fn log_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let found = until_within(PATIENCE, || {
            self.stdout()
                .lines()
                .find(|line| wanted(line))
                .map(str::to_owned)
        });
        found.unwrap_or_else(|| {
            panic!(
                "no log line {what}; stdout:\n{}\nstderr:\n{}",
                self.stdout(),
                self.stderr()
            )
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if self.gone.is_none() {
            let pid = Pid::from_child(&self.child);
            rustix::process::kill_process(pid, signal).expect("the process is ours");
        }
    }

    /// The exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.gone.is_none() {
            self.gone = self.child.try_wait().expect("the process is ours");
        }
        self.gone
    }

    /// Waits for its end, and a while for that of its children: workers of a supervisor that was killed still listen.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let Some(status) = until_within(2 * PATIENCE, || self.try_wait()) else {
            panic!("the proxy does not end; stderr:\n{}", self.stderr());
        };
        if !self.detaches {
            until_within(CHILDREN, || {
                (self.stdout.has_ended() && self.stderr.has_ended()).then_some(())
            });
        }
        status
    }

    /// The signal that ended it, if one did.
    pub fn death(&mut self) -> Option<i32> {
        self.wait().signal()
    }

    /// CPU time used so far, user and system, all threads.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.pid())
    }
}

/// CPU time a process has used so far, user and system, all threads. Resolution 10 ms.
///
/// # Panics
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let after = stat.rsplit_once(')').expect("the format of proc(5)").1;
    let ticks: u64 = after
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

impl Drop for Proxy {
    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what its proxy said"
    )]
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- proxy stdout\n{}\n--- proxy stderr\n{}\n---",
                self.stdout(),
                self.stderr()
            );
        }
    }
}
