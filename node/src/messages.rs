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
        .with_writer(std::io::stderr)
        .event_format(Format {
            pid: std::process::id(),
        })
        .with_filter(own);
    // A second call happens in tests only.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
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
