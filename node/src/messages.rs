//! Messages of the process on standard error, in the form `[NOTICE]   (PID) : text` (reference: config-dialect 9.1).

use std::fmt;

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

static COPY: parking_lot::Mutex<Option<Copy>> = parking_lot::Mutex::new(None);

/// Standard error, and whoever wants a copy. A message comes in one piece.
struct Output;

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(copy) = COPY.lock().as_ref() {
            copy(&String::from_utf8_lossy(bytes));
        }
        std::io::stderr().write_all(bytes)?;
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
