//! The signals that the process reacts to.

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

impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            hup: signal(SignalKind::hangup())?,
            ttin: signal(SignalKind::from_raw(rustix::process::Signal::TTIN.as_raw()))?,
            ttou: signal(SignalKind::from_raw(rustix::process::Signal::TTOU.as_raw()))?,
        })
    }

    pub(super) async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.term.recv() => Caught::Term,
            _ = self.int.recv() => Caught::Int,
            _ = self.usr1.recv() => Caught::Usr1,
            _ = self.hup.recv() => Caught::Hup,
            _ = self.ttin.recv() => Caught::Ttin,
            _ = self.ttou.recv() => Caught::Ttou,
        }
    }
}
