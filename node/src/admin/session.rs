//! One connection to the CLI: reads lines, runs their commands, writes the answers. Memory is bounded: a line by
//! [`LINE_MAX`], a payload by [`PAYLOAD_MAX`], an answer by what fits between two writes.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use remora_config::plan::CliLevel;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::cmd::Answer;
use super::line::{self, Line};
use super::registry;
use crate::observe::log::Severity;
use crate::proxy::clock;
use crate::shared::Shared;

pub(super) struct Session<S> {
    io: S,
    input: Vec<u8>,
    /// Bytes of `input` known to hold no line feed.
    searched: usize,
    ended: bool,
    out: Vec<u8>,
    context: Context,
}

/// What commands see and change of their connection.
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) sessions: Rc<Registry>,
    pub(super) level: CliLevel,
    pub(super) mode: Mode,
    /// The prompt shows the time since start.
    pub(super) timed: bool,
    pub(super) severity: SeverityOutput,
    /// Idle limit, `None` = none.
    pub(super) timeout: Option<Duration>,
    pub(super) quit: bool,
}

/// How long a connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// For one line.
    Once,
    /// Until the client leaves, silently.
    Interactive,
    /// Until the client leaves, with a prompt.
    Prompt,
}

/// `set severity-output`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeverityOutput {
    None,
    Number,
    String,
}

enum Input {
    Line(Vec<u8>),
    TooLong,
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(super) fn new(
        shared: Arc<Shared>,
        io: S,
        level: CliLevel,
        sessions: Rc<Registry>,
    ) -> Session<S> {
        let idle_ms = shared.plan.global.stats_timeout_ms;
        Session {
            io,
            input: Vec::new(),
            searched: 0,
            ended: false,
            out: Vec::with_capacity(4096),
            context: Context {
                shared,
                sessions,
                level,
                mode: Mode::Once,
                timed: false,
                severity: SeverityOutput::None,
                timeout: (idle_ms > 0).then(|| Duration::from_millis(u64::from(idle_ms))),
                quit: false,
            },
        }
    }

    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            let before = self.context.mode;
            match self.line(LINE_MAX).await? {
                // A line cut off by the end is not run: half a command may mean something else.
                Input::End => return Ok(()),
                Input::TooLong => {
                    self.message(
                        Severity::Err,
                        &format!("Line too long: at most {LINE_MAX} bytes."),
                    );
                    self.end_of_answer();
                }
                Input::Line(text) => self.commands(line::parse(&text)).await?,
            }
            self.write().await?;
            if self.context.quit || (before == Mode::Once && self.context.mode == Mode::Once) {
                return self.close().await;
            }
        }
    }

    async fn commands(&mut self, line: Line) -> io::Result<()> {
        if let Some(until) = line.payload_until {
            return self.payload(&until, &line.commands).await;
        }
        if line.commands.is_empty() {
            self.end_of_answer();
            return Ok(());
        }
        for words in &line.commands {
            let answer = registry::run(&mut self.context, words);
            self.answer(answer).await?;
            if self.context.quit {
                break;
            }
        }
        Ok(())
    }

    /// Takes the payload off the stream. No command of this release wants one.
    async fn payload(&mut self, until: &[u8], commands: &[line::Words]) -> io::Result<()> {
        let mut problem = None;
        if until.len() > PAYLOAD_TAG_MAX {
            problem = Some(format!(
                "The payload pattern is too long: at most {PAYLOAD_TAG_MAX} bytes."
            ));
        }
        let mut size = 0;
        loop {
            if self.context.mode == Mode::Prompt {
                self.out.extend_from_slice(b"+ ");
                self.write().await?;
            }
            match self.line(LINE_MAX).await? {
                Input::End => return Ok(()),
                Input::TooLong => size = PAYLOAD_MAX + 1,
                Input::Line(text) => {
                    let text = text.strip_suffix(b"\r").unwrap_or(&text);
                    if text == until {
                        break;
                    }
                    size += text.len() + 1;
                }
            }
            if size > PAYLOAD_MAX {
                problem = Some(format!(
                    "The payload is too large: at most {PAYLOAD_MAX} bytes."
                ));
                size = PAYLOAD_MAX;
            }
        }
        let problem = problem.unwrap_or_else(|| {
            let last = commands.last().map(|w| w.text(0)).unwrap_or_default();
            format!("This '{last}' command takes no payload.")
        });
        self.message(Severity::Err, &problem);
        self.end_of_answer();
        Ok(())
    }

    async fn answer(&mut self, mut answer: Answer) -> io::Result<()> {
        loop {
            match answer {
                Answer::Empty => {}
                Answer::Text(text) => self.text(&text),
                Answer::Message(severity, text) => self.message(severity, &text),
                Answer::Slices(mut next) => loop {
                    let done = next(&self.context.shared, &mut self.out);
                    if self.out.len() >= WRITE_AT {
                        self.write().await?;
                    }
                    if done {
                        break;
                    }
                },
                Answer::Later(future) => {
                    answer = future.await;
                    continue;
                }
                Answer::Quit => {
                    self.context.quit = true;
                    return Ok(());
                }
            }
            break;
        }
        self.end_of_answer();
        if self.out.len() >= WRITE_AT {
            self.write().await?;
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
        if !text.is_empty() && !text.ends_with(b"\n") {
            self.out.push(b'\n');
        }
    }

    fn message(&mut self, severity: Severity, text: &str) {
        match self.context.severity {
            SeverityOutput::None => {}
            SeverityOutput::Number => {
                let tag = format!("[{}]: ", severity as u8);
                self.out.extend_from_slice(tag.as_bytes());
            }
            SeverityOutput::String => {
                let tag = format!("[{}]: ", severity.name());
                self.out.extend_from_slice(tag.as_bytes());
            }
        }
        self.text(text.as_bytes());
    }

    /// The empty line that ends every answer, and the prompt.
    fn end_of_answer(&mut self) {
        self.out.push(b'\n');
        if self.context.mode == Mode::Prompt {
            if self.context.timed {
                let up_s = clock::read()
                    .mono_ms
                    .saturating_sub(self.context.shared.world.process.start_ms)
                    / 1000;
                let text = format!(
                    "[{}:{:02}:{:02}:{:02}]",
                    up_s / 86_400,
                    up_s / 3600 % 24,
                    up_s / 60 % 60,
                    up_s % 60
                );
                self.out.extend_from_slice(text.as_bytes());
            }
            self.out.extend_from_slice(b"> ");
        }
    }

    /// The next line, without its line feed. What is longer than `most` is read to its end and thrown away.
    async fn line(&mut self, most: usize) -> io::Result<Input> {
        let mut too_long = false;
        loop {
            let found = self
                .input
                .get(self.searched..)
                .and_then(|new| memchr::memchr(b'\n', new))
                .map(|at| self.searched + at);
            if let Some(at) = found {
                let mut line: Vec<u8> = self.input.drain(..=at).collect();
                line.pop();
                self.searched = 0;
                return Ok(if too_long || line.len() > most {
                    Input::TooLong
                } else {
                    Input::Line(line)
                });
            }
            self.searched = self.input.len();
            if self.input.len() > most {
                too_long = true;
                self.input.clear();
                self.searched = 0;
            }
            if self.ended {
                // Nobody waits for the answer to a line that never ended, unless it was refused.
                return Ok(if too_long { Input::TooLong } else { Input::End });
            }
            self.input.reserve(READ_SIZE);
            let read = self.io.read_buf(&mut self.input);
            let n = match self.context.timeout {
                Some(limit) => timeout(limit, read).await.map_err(io::Error::from)??,
                None => read.await?,
            };
            self.ended = n == 0;
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        let write = self.io.write_all(&self.out);
        match self.context.timeout {
            Some(limit) => timeout(limit, write).await.map_err(io::Error::from)??,
            None => write.await?,
        }
        self.out.clear();
        Ok(())
    }

    /// Ends the connection so that the client certainly gets the answer: closing a socket that holds unread input
    /// would reset it.
    async fn close(mut self) -> io::Result<()> {
        self.io.shutdown().await?;
        let drain = async {
            let mut left = LEFTOVER_MAX;
            while left > 0 && !self.ended {
                self.input.clear();
                self.input.reserve(READ_SIZE);
                let n = self.io.read_buf(&mut self.input).await?;
                left = left.saturating_sub(n);
                self.ended = n == 0;
            }
            Ok(())
        };
        timeout(LEFTOVER_PATIENCE, drain).await.unwrap_or(Ok(()))
    }
}

/// The CLI's own connections, for `show sess`.
#[derive(Debug, Default)]
pub(super) struct Registry {
    next: Cell<u64>,
    open: RefCell<Vec<OwnSession>>,
}

/// A connection to the CLI.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnSession {
    pub(super) id: u64,
    pub(super) proto: &'static str,
    pub(super) since_ms: u64,
}

/// Takes the connection off the list when it ends.
pub(super) struct Listed {
    registry: Rc<Registry>,
    id: u64,
}

impl Registry {
    pub(super) fn enter(self: &Rc<Self>, proto: &'static str) -> Listed {
        let id = OWN_ID_BASE + self.next.get();
        self.next.set(self.next.get() + 1);
        self.open.borrow_mut().push(OwnSession {
            id,
            proto,
            since_ms: clock::read().mono_ms,
        });
        Listed {
            registry: Rc::clone(self),
            id,
        }
    }

    pub(super) fn list(&self) -> Vec<OwnSession> {
        self.open.borrow().clone()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.registry
            .open
            .borrow_mut()
            .retain(|own| own.id != self.id);
    }
}

/// Longest line, `tune.bufsize` of HAProxy.
const LINE_MAX: usize = 16_384;
/// `tune.cli.max-payload-size` of HAProxy.
const PAYLOAD_MAX: usize = 128 * 1024;
const PAYLOAD_TAG_MAX: usize = 64;
const READ_SIZE: usize = 4096;
/// An answer is written when so much of it is ready.
const WRITE_AT: usize = 16 * 1024;
/// Input that is read and thrown away after the last answer, and for how long.
const LEFTOVER_MAX: usize = 4 * 1024 * 1024;
const LEFTOVER_PATIENCE: Duration = Duration::from_millis(500);
/// Numbers of the CLI's own sessions start here, far from those of streams.
const OWN_ID_BASE: u64 = 0xc11_0000_0000_0000;
