//! The signals that the process reacts to.

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// All of them.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    usr1: Signal,
    hup: Signal,
    ttin: Signal,
    ttou: Signal,
}

/// Which one came.
pub(super) enum Caught {
    Term,
    Int,
    Usr1,
    Hup,
    Ttin,
    Ttou,
}

/// A pause that is asked for while the process starts, or learns, waits until it is caught: not caught, it would stop the
/// process itself. To be called before threads are started.
///
/// # Errors
/// None that is known.
pub fn postpone() -> std::io::Result<()> {
    Ok(pauses().thread_block()?)
}

/// The same for a soft stop and for a question, which, not caught, would end the process as if it had failed. To be called before
/// anything listens, and again after [`obey`].
///
/// # Errors
/// None that is known.
pub fn postpone_stops() -> std::io::Result<()> {
    Ok(stops().thread_block()?)
}

/// While this process waits for others, a soft stop ends it at once.
///
/// # Errors
/// None that is known.
pub fn obey() -> std::io::Result<()> {
    Ok(stops().thread_unblock()?)
}

fn stops() -> SigSet {
    [Number::SIGUSR1, Number::SIGHUP].into_iter().collect()
}

fn pauses() -> SigSet {
    [Number::SIGTTIN, Number::SIGTTOU].into_iter().collect()
}

impl Signals {
    /// Within the event loop of the main thread.
    pub(super) fn new() -> std::io::Result<Signals> {
        let signals = Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            hup: signal(SignalKind::hangup())?,
            ttin: signal(SignalKind::from_raw(rustix::process::Signal::TTIN.as_raw()))?,
            ttou: signal(SignalKind::from_raw(rustix::process::Signal::TTOU.as_raw()))?,
        };
        pauses().thread_unblock()?;
        stops().thread_unblock()?;
        Ok(signals)
    }

    pub(super) async fn next(&mut self) -> Caught {
        tokio::select! {
            // What came while the process stood still is not told in its order. Who asked it to refuse clients, and then to accept
            // them again because it has given up itself, must not leave it mute.
            biased;
            _ = self.term.recv() => Caught::Term,
            _ = self.int.recv() => Caught::Int,
            _ = self.usr1.recv() => Caught::Usr1,
            _ = self.hup.recv() => Caught::Hup,
            _ = self.ttou.recv() => Caught::Ttou,
            _ = self.ttin.recv() => Caught::Ttin,
        }
    }
}
