//! Messages of the process on standard error, in the form `[NOTICE]   (PID) : text` (reference: config-dialect 9.1).

use std::collections::VecDeque;
use std::fmt;
use std::io::Write as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use parking_lot::{Condvar, Mutex};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// `-q`
    Silent,
    /// Notices, warnings, alerts.
    Normal,
    /// `-d`
    Debug,
}

/// Makes `tracing` events of this process appear on standard error. Only the first call has an effect.
pub fn start(volume: Volume) {
    let level = match volume {
        Volume::Silent => return,
        Volume::Normal => Level::INFO,
        Volume::Debug => Level::DEBUG,
    };
    // What libraries say of their own accord is for their authors; this program's parts report what matters of it.
    let own = Targets::new()
        .with_default(Level::ERROR)
        .with_target("remora", level);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| Output)
        .event_format(Format {
            pid: std::process::id(),
        })
        .with_filter(own);
    // A second call happens in tests only.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
}

/// From now on `copy` gets every message too, as it is written; `None` ends that.
pub fn copy_to(copy: Option<Copy>) {
    *COPY.lock() = copy;
}

/// Takes copies of messages. Must not write messages itself.
pub type Copy = Box<dyn Fn(&str) + Send>;

static COPY: Mutex<Option<Copy>> = Mutex::new(None);

/// From now on a thread of its own writes the messages: whoever reads standard error may stop reading, and nobody here
/// waits for it. What does not fit into the queue is lost and counted. To be called once privileges are given up, which
/// the kernel does thread by thread. Only the first call has an effect.
///
/// # Errors
/// There can be no more threads; messages are written as before.
pub fn in_background() -> std::io::Result<()> {
    if std::mem::replace(&mut QUEUE.lock().open, true) {
        return Ok(());
    }
    // The thread inherits this: signals are for those who wait for them.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = std::thread::Builder::new()
        .name("messages".into())
        .spawn(write_for_ever);
    before.thread_set_mask()?;
    if let Err(e) = started {
        QUEUE.lock().open = false;
        return Err(e);
    }
    Ok(())
}

/// Waits until everything said so far is written, at most a moment: before the process ends or changes what its standard
/// error is.
pub fn settle() {
    let until = Instant::now() + PATIENCE;
    let mut queue = QUEUE.lock();
    while queue.writing || !queue.lines.is_empty() {
        if CHANGED.wait_until(&mut queue, until).timed_out() {
            return;
        }
    }
}

/// How many messages were lost because nobody read standard error.
pub fn lost() -> u64 {
    QUEUE.lock().lost
}

/// Messages that wait for the thread that writes them.
struct Queue {
    /// There is such a thread.
    open: bool,
    lines: VecDeque<Vec<u8>>,
    /// It is at one.
    writing: bool,
    lost: u64,
    /// How many of these have been reported.
    told: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    open: false,
    lines: VecDeque::new(),
    writing: false,
    lost: 0,
    told: 0,
});
static CHANGED: Condvar = Condvar::new();

fn write_for_ever() {
    let mut queue = QUEUE.lock();
    loop {
        let line = if let Some(line) = queue.lines.pop_front() {
            line
        } else if queue.lost > queue.told {
            let lines = queue.lost - queue.told;
            queue.told = queue.lost;
            lost_line(lines).into_bytes()
        } else {
            queue.writing = false;
            CHANGED.notify_all();
            CHANGED.wait(&mut queue);
            continue;
        };
        queue.writing = true;
        drop(queue);
        // One that is closed takes nothing; there is no other place to say so.
        let _ = std::io::stderr().write_all(&line);
        queue = QUEUE.lock();
    }
}

fn lost_line(lines: u64) -> String {
    format!(
        "{}({}) : {lines} messages are lost: standard error was not read.\n",
        label(Level::WARN),
        std::process::id()
    )
}

/// So many messages wait at most.
const LINES_MAX: usize = 1024;
/// How long an end waits for whoever reads standard error.
const PATIENCE: Duration = Duration::from_millis(500);

/// Standard error, and whoever wants a copy. A message comes in one piece.
struct Output;

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(copy) = COPY.lock().as_ref() {
            copy(&String::from_utf8_lossy(bytes));
        }
        let mut queue = QUEUE.lock();
        if !queue.open {
            drop(queue);
            std::io::stderr().write_all(bytes)?;
        } else if queue.lines.len() >= LINES_MAX {
            queue.lost += 1;
        } else {
            queue.lines.push_back(bytes.to_vec());
            CHANGED.notify_all();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

struct Format {
    pid: u32,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        writeln!(
            writer,
            "{}({}) : {}{}",
            label(*event.metadata().level()),
            self.pid,
            text.message,
            text.fields
        )
    }
}

/// The level, padded to the width that HAProxy uses.
fn label(level: Level) -> &'static str {
    match level {
        Level::ERROR => "[ALERT]    ",
        Level::WARN => "[WARNING]  ",
        Level::INFO => "[NOTICE]   ",
        _ => "[DEBUG]    ",
    }
}

/// The parts of an event: its message, and ` name=value` for what else it carries.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_eleven_columns_wide() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
            assert_eq!(label(level).len(), 11);
        }
    }
}
