//! The master CLI (`-S`): its own few commands, and the way to the workers' CLIs. (reference: admin-cli section 6)

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use remora_config::plan::CliLevel;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// What a session asks the supervisor.
#[derive(Debug)]
pub enum Ask {
    /// Reload, and say how it went.
    Reload {
        /// Kill the old worker instead of letting it finish.
        hard: bool,
        /// Success or not, and what was said meanwhile.
        answer: oneshot::Sender<(bool, String)>,
    },
    /// The text of `show proc`.
    Processes(oneshot::Sender<String>),
    /// What was said when the last worker started.
    StartupLogs(oneshot::Sender<String>),
    /// The last reload failed.
    ReloadFailed(oneshot::Sender<bool>),
    /// A connection to the CLI of a worker, and its process id.
    Reach {
        /// Which one.
        target: Target,
        /// With which rights.
        level: CliLevel,
        /// None: there is no such worker.
        answer: oneshot::Sender<Option<(u32, OwnedFd)>>,
    },
}

/// Whom a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The supervisor.
    Master,
    /// `@1`
    Current,
    /// `@!PID`
    Pid(u32),
}

/// A listening socket of the master CLI.
#[derive(Debug)]
pub enum Listener {
    /// A path.
    Unix(UnixListener),
    /// An address.
    Tcp(TcpListener),
}

/// Accepts for ever.
pub async fn serve(
    listener: Listener,
    level: CliLevel,
    name: String,
    asks: UnboundedSender<Ask>,
    places: Arc<Semaphore>,
) {
    loop {
        let session = Session {
            level,
            name: name.clone(),
            asks: asks.clone(),
            input: Vec::new(),
            ended: false,
            default: Target::Master,
            default_pid: 0,
            mode: Mode::Once,
        };
        let accepted = match &listener {
            Listener::Unix(l) => l
                .accept()
                .await
                .map(|(stream, _)| admit(session, stream, &places)),
            Listener::Tcp(l) => l
                .accept()
                .await
                .map(|(stream, _)| admit(session, stream, &places)),
        };
        if accepted.is_err() {
            // Descriptors are scarce: let others end before the next attempt.
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Runs a session, or turns it away: a client that waits without a word would look as if the supervisor hung.
fn admit<S>(session: Session, mut stream: S, places: &Arc<Semaphore>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let place = Arc::clone(places).try_acquire_owned();
    spawn_local(async move {
        let Ok(_place) = place else {
            let full = format!(
                "Too many sessions: at most {SESSIONS_MAX}. Idle ones end after {} s.",
                IDLE_MAX.as_secs()
            );
            let refuse = async {
                session.answer(&mut stream, &full).await?;
                session.close(stream).await
            };
            let _gone = timeout(LEFTOVER_PATIENCE, refuse).await;
            return;
        };
        let _gone = session.run(stream).await;
    });
}

/// How long a session lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Once,
    Silent,
    Prompt,
}

struct Session {
    level: CliLevel,
    name: String,
    asks: UnboundedSender<Ask>,
    input: Vec<u8>,
    /// Nothing more will come.
    ended: bool,
    default: Target,
    default_pid: u32,
    mode: Mode,
}

/// What was read.
enum Input {
    Line(Vec<u8>),
    TooLong,
    End,
}

/// What a command leads to.
enum Done {
    Answered,
    Quit,
}

impl Session {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut io: S) -> io::Result<()> {
        loop {
            let before = self.mode;
            let line = match self.line(&mut io).await? {
                Input::Line(line) => line,
                Input::TooLong => {
                    self.answer(&mut io, &too_long()).await?;
                    // No command.
                    if before == Mode::Once {
                        return self.close(io).await;
                    }
                    self.prompt(&mut io).await?;
                    continue;
                }
                Input::End => return Ok(()),
            };
            for (i, command) in commands(&line).into_iter().enumerate() {
                // A prompt comes before each further command, too.
                if i > 0 {
                    self.prompt(&mut io).await?;
                }
                if matches!(self.command(&mut io, &command).await?, Done::Quit) {
                    return self.close(io).await;
                }
            }
            if before == Mode::Once && self.mode == Mode::Once {
                return self.close(io).await;
            }
            self.prompt(&mut io).await?;
        }
    }

    /// Ends the connection so that the client certainly gets the answer: closing a socket that holds unread input
    /// would reset it.
    async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut io: S) -> io::Result<()> {
        io.shutdown().await?;
        let drain = async {
            let mut left = LEFTOVER_MAX;
            while left > 0 && !self.ended {
                self.input.clear();
                self.input.reserve(READ_SIZE);
                let n = io.read_buf(&mut self.input).await?;
                left = left.saturating_sub(n);
                self.ended = n == 0;
            }
            Ok(())
        };
        timeout(LEFTOVER_PATIENCE, drain).await.unwrap_or(Ok(()))
    }

    async fn prompt<S: AsyncWrite + Unpin>(&self, io: &mut S) -> io::Result<()> {
        if self.mode != Mode::Prompt {
            return Ok(());
        }
        let text = match self.default {
            Target::Master => {
                let failed = self.ask(Ask::ReloadFailed).await.unwrap_or(false);
                if failed {
                    "master[ReloadFailed]> "
                } else {
                    "master> "
                }
                .to_owned()
            }
            _ => format!("{}> ", self.default_pid),
        };
        io.write_all(text.as_bytes()).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).ok()?;
        answered.await.ok()
    }

    /// The next line, without its end. What is longer than [`LINE_MAX`] is read to its end and thrown away.
    async fn line<S: AsyncRead + Unpin>(&mut self, io: &mut S) -> io::Result<Input> {
        let mut too_long = false;
        let mut searched = 0;
        loop {
            let new = self.input.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', new) {
                let mut line: Vec<u8> = self.input.drain(..=searched + at).collect();
                line.pop();
                if too_long || line.len() > LINE_MAX {
                    return Ok(Input::TooLong);
                }
                if line.ends_with(b"\r") {
                    line.pop();
                }
                return Ok(Input::Line(line));
            }
            searched = self.input.len();
            if searched > LINE_MAX {
                too_long = true;
                self.input.clear();
                searched = 0;
            }
            if self.ended {
                // Nobody waits for the answer to a line that never ended, unless it was refused.
                return Ok(if too_long { Input::TooLong } else { Input::End });
            }
            self.input.reserve(READ_SIZE);
            match timeout(IDLE_MAX, io.read_buf(&mut self.input)).await {
                Ok(n) => self.ended = n? == 0,
                Err(_) => return Ok(Input::End),
            }
        }
    }

    async fn command<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        command: &[u8],
    ) -> io::Result<Done> {
        let (target, rest) = match self.target(command) {
            Ok(found) => found,
            Err(word) => {
                let text = format!("Can't find the target PID matching the prefix '{word}'\n\n");
                io.write_all(text.as_bytes()).await?;
                return Ok(Done::Answered);
            }
        };
        let text = String::from_utf8_lossy(rest).trim().to_owned();
        let moved = text.is_empty() && command.starts_with(b"@");
        if target == Target::Master {
            if moved {
                self.default = Target::Master;
                return self.answer(io, "").await;
            }
            return self.own(io, &text).await;
        }
        let reached = self
            .ask(|answer| Ask::Reach {
                target,
                level: self.level,
                answer,
            })
            .await
            .flatten();
        let Some((pid, fd)) = reached else {
            let word = String::from_utf8_lossy(command);
            let word = word.split_whitespace().next().unwrap_or_default();
            let text = format!("Can't find the target PID matching the prefix '{word}'\n\n");
            io.write_all(text.as_bytes()).await?;
            return Ok(Done::Answered);
        };
        if moved {
            // The process itself, not whoever will be the current one later.
            self.default = Target::Pid(pid);
            self.default_pid = pid;
            return self.answer(io, "").await;
        }
        match text.as_str() {
            "" => return self.answer(io, "").await,
            "quit" => return Ok(Done::Quit),
            "prompt" => return self.own(io, "prompt").await,
            _ => {}
        }
        self.forward(io, UnixStream::from_std(fd.into())?, rest)
            .await?;
        Ok(Done::Answered)
    }

    /// The addressee of a command and the command; the prefix if it is none.
    fn target<'c>(&self, command: &'c [u8]) -> Result<(Target, &'c [u8]), String> {
        if command.first() != Some(&b'@') {
            return Ok((self.default, command));
        }
        let end = command
            .iter()
            .position(u8::is_ascii_whitespace)
            .unwrap_or(command.len());
        let (word, rest) = command.split_at(end);
        let word = String::from_utf8_lossy(word);
        // `@@1`: the whole rest of the line; taking it apart has been left out already.
        let name = word.strip_prefix("@@").or(word.strip_prefix('@'));
        let target = match name.unwrap_or_default() {
            "" | "master" => Target::Master,
            "1" => Target::Current,
            other => match other.strip_prefix('!').map(str::parse) {
                Some(Ok(pid)) => Target::Pid(pid),
                _ => return Err(word.into_owned()),
            },
        };
        Ok((target, rest))
    }

    /// Carries one command to a worker, with its payload, and the answer back.
    async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        mut worker: UnixStream,
        command: &[u8],
    ) -> io::Result<()> {
        worker.write_all(command.trim_ascii_start()).await?;
        worker.write_all(b"\n").await?;
        if let Some(until) = payload_until(command) {
            let mut fits = true;
            loop {
                if self.mode == Mode::Prompt {
                    io.write_all(b"+ ").await?;
                }
                let line = match self.line(io).await? {
                    Input::Line(line) => line,
                    Input::TooLong => {
                        fits = false;
                        continue;
                    }
                    Input::End => return Ok(()),
                };
                if fits {
                    worker.write_all(&line).await?;
                    worker.write_all(b"\n").await?;
                }
                if line == until {
                    break;
                }
            }
            if !fits {
                // The worker never sees the end, and so does nothing.
                self.answer(io, &too_long()).await?;
                return Ok(());
            }
        }
        worker.shutdown().await?;
        tokio::io::copy(&mut worker, io).await?;
        Ok(())
    }

    /// A command of the supervisor's own.
    async fn own<S: AsyncWrite + Unpin>(&mut self, io: &mut S, text: &str) -> io::Result<Done> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            [] => self.answer(io, "").await,
            ["help", ..] => self.answer(io, HELP).await,
            ["quit"] => Ok(Done::Quit),
            ["prompt"] | ["prompt", "p" | "timed"] => {
                self.mode = match self.mode {
                    Mode::Prompt => Mode::Once,
                    _ => Mode::Prompt,
                };
                self.answer(io, "").await
            }
            ["prompt", "i"] => {
                self.mode = Mode::Silent;
                self.answer(io, "").await
            }
            ["prompt", "n"] => {
                self.mode = Mode::Once;
                self.answer(io, "").await
            }
            ["expert-mode" | "experimental-mode" | "mcli-debug-mode", ..] => {
                self.answer(io, "").await
            }
            ["show", "version"] => self.answer(io, crate::VERSION).await,
            ["show", "cli", "level"] => self.answer(io, level_name(self.level)).await,
            ["show", "cli", "sockets"] => {
                let text = format!(
                    "# socket lvl processes\n{} {} master\n",
                    self.name,
                    level_name(self.level)
                );
                self.answer(io, &text).await
            }
            ["show", "env", name @ ..] => {
                let text = environment(name.first().copied());
                self.answer(io, &text).await
            }
            ["operator"] => self.lower(io, CliLevel::Operator).await,
            ["user"] => self.lower(io, CliLevel::User).await,
            ["show", "proc", ..] => {
                let text = self.ask(Ask::Processes).await.unwrap_or_default();
                self.answer(io, &text).await
            }
            ["show", "startup-logs"] => {
                let text = self.ask(Ask::StartupLogs).await.unwrap_or_default();
                self.answer(io, &text).await
            }
            ["reload" | "hard-reload"] if self.level < CliLevel::Admin => {
                self.answer(io, "Permission denied").await
            }
            [which @ ("reload" | "hard-reload")] => {
                let hard = *which == "hard-reload";
                let (fine, text) = self
                    .ask(|answer| Ask::Reload { hard, answer })
                    .await
                    .unwrap_or((false, String::from("the supervisor is about to end\n")));
                let text = format!("Success={}\n--\n{text}", u8::from(fine));
                self.answer(io, &text).await?;
                Ok(Done::Quit)
            }
            _ => {
                let text = format!(
                    "Unknown command: '{}', but maybe one of the following ones is a better match:\n{}",
                    text.escape_debug(),
                    HELP.split_once('\n').map_or("", |(_, rest)| rest)
                );
                self.answer(io, &text).await
            }
        }
    }

    async fn lower<S: AsyncWrite + Unpin>(&mut self, io: &mut S, to: CliLevel) -> io::Result<Done> {
        if self.level < to {
            return self.answer(io, "Permission denied").await;
        }
        self.level = to;
        self.answer(io, "").await
    }

    /// Text, and the empty line that ends every answer.
    async fn answer<S: AsyncWrite + Unpin>(&self, io: &mut S, text: &str) -> io::Result<Done> {
        let mut bytes = text.as_bytes().to_vec();
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        io.write_all(&bytes).await?;
        Ok(Done::Answered)
    }
}

fn too_long() -> String {
    format!("Line too long: at most {LINE_MAX} bytes.")
}

/// The commands of a line, separated by `;` unless it is escaped. They stay as typed: a worker reads them again.
fn commands(line: &[u8]) -> Vec<Vec<u8>> {
    if line.starts_with(b"@@") || payload_until(line).is_some() {
        return vec![line.to_vec()];
    }
    let mut all = vec![Vec::new()];
    let mut escaped = false;
    for &b in line {
        match b {
            b';' if !escaped => all.push(Vec::new()),
            _ => {
                if let Some(last) = all.last_mut() {
                    last.push(b);
                }
            }
        }
        escaped = b == b'\\' && !escaped;
    }
    let mut all: Vec<Vec<u8>> = all.iter().map(|c| c.trim_ascii().to_vec()).collect();
    if all.len() > 1 {
        all.retain(|c| !c.is_empty());
    }
    all
}

/// The line that ends the payload which this one announces.
fn payload_until(line: &[u8]) -> Option<&[u8]> {
    let at = line.iter().rposition(u8::is_ascii_whitespace)?;
    line.get(at + 1..)?.strip_prefix(b"<<")
}

fn environment(name: Option<&str>) -> String {
    let shown = |value: std::ffi::OsString| value.to_string_lossy().replace('\n', "\\n");
    match name {
        Some(name) => match std::env::var_os(name) {
            Some(value) => format!("{name}={}\n", shown(value)),
            None => "Variable not found\n".into(),
        },
        None => std::env::vars_os()
            .map(|(name, value)| format!("{}={}\n", name.to_string_lossy(), shown(value)))
            .collect(),
    }
}

/// `admin`, `operator`, `user`
pub fn level_name(level: CliLevel) -> &'static str {
    match level {
        CliLevel::User => "user",
        CliLevel::Operator => "operator",
        CliLevel::Admin => "admin",
    }
}

const HELP: &str = "\
The following commands are valid at this level:
  @!<pid>                                 : send a command to the <pid> process
  @<relative pid>                         : send a command to the <relative pid> process
  @master                                 : send a command to the master process
  hard-reload                             : reload, and kill the old workers at once
  operator                                : lower the level of this connection to operator
  reload                                  : load the configuration again in a new worker
  show cli level                          : show the level of this connection
  show cli sockets                        : list the CLI sockets
  show env [var]                          : show environment variables
  show proc                               : show the processes
  show startup-logs                       : show the messages of the last start of a worker
  show version                            : show the version of this process
  user                                    : lower the level of this connection to user
  help                                    : this list
  prompt                                  : toggle interactive mode with prompt
  quit                                    : disconnect
";

/// Longest line, as on a worker's CLI.
const LINE_MAX: usize = 16_384;
const READ_SIZE: usize = 4096;
/// Input that is read and thrown away after the last answer, and for how long.
const LEFTOVER_MAX: usize = 4 * 1024 * 1024;
const LEFTOVER_PATIENCE: Duration = Duration::from_millis(500);
/// Sessions at a time; others are turned away.
pub(super) const SESSIONS_MAX: usize = 16;
/// A session that says nothing for so long is closed; reloads and answers may take longer.
const IDLE_MAX: Duration = Duration::from_secs(600);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
