//! Handlers of the commands, by subject.

mod filter;
pub(super) mod info;
pub(super) mod misc;
pub(super) mod peers;
pub(super) mod servers;
pub(super) mod sess;
pub(super) mod stat;
pub(super) mod table;
pub(super) mod tune;
pub(super) mod typed;

use std::future::Future;
use std::pin::Pin;

use crate::observe::log::Severity;
use crate::shared::Shared;

/// Appends the next slice of a long dump; `true` when that was the last.
pub(super) type Dump = Box<dyn FnMut(&Shared, &mut Vec<u8>) -> bool>;

/// What a command has to say.
pub(super) enum Answer {
    Empty,
    /// A dump.
    Text(Vec<u8>),
    /// Feedback, which may be shown with its severity.
    Message(Severity, String),
    /// A long dump, a slice per call, until one returns `true`.
    Slices(Dump),
    /// The answer has to wait for other threads.
    Later(Pin<Box<dyn Future<Output = Answer>>>),
    /// Disconnect without a word.
    Quit,
}

/// Feedback that something was wrong.
pub(super) fn err(text: impl Into<String>) -> Answer {
    Answer::Message(Severity::Err, text.into())
}
