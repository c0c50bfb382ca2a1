//! What happens, what is to be done, and what is known of a worker.

/// A worker, by the supervisor's own count: process ids may be used again.
pub type Id = u32;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// Begin.
    Start,
    /// The process that [`Action::Spawn`] asked for runs.
    Spawned { id: Id, pid: u32 },
    /// It could not be started.
    NotSpawned { id: Id, why: String },
    /// It has introduced itself.
    Hello { id: Id, version: String },
    /// It is ready to accept, and wants workers to survive so many reloads.
    Ready { id: Id, max_reloads: u32 },
    /// It accepts nothing any more.
    Held { id: Id },
    /// It has all that it needs to accept.
    Opens { id: Id },
    /// It accepts.
    Serving { id: Id },
    /// It was told to drain, and has closed the listening sockets that nobody took over.
    Closed { id: Id },
    /// It has handed over to a process of somebody else.
    Left { id: Id },
    /// That process has ended before it accepted: this worker serves on.
    Back { id: Id },
    /// The first worker takes over from a process of somebody else, which may be for good already.
    Taking { id: Id, sure: bool },
    /// That process says so itself: it has let go.
    Taken,
    /// It does not speak the protocol, or its channel broke.
    Broken { id: Id, why: String },
    /// A child has ended.
    Exited { pid: u32, status: Status },
    /// A signal has stopped a child.
    Stopped { pid: u32, signal: i32 },
    /// A child that was stopped goes on.
    Continued { pid: u32 },
    /// A reload was asked for.
    Reload { hard: bool },
    /// SIGTERM.
    Term,
    /// It serves, but this supervisor cannot do its own part.
    Unfit,
    /// SIGINT.
    Int,
    /// SIGUSR1.
    SoftStop,
    /// A signal for all workers.
    PassOn(Signal),
    /// `Machine::deadline` has come.
    Tick,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With this code.
    Exit(i32),
    /// From this signal.
    Signal(i32),
}

/// A signal for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Signal {
    Usr1,
    Term,
    Kill,
    Ttin,
    Ttou,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    /// Start a worker.
    Spawn { id: Id },
    /// Get what is missing, and ask.
    Go { id: Id },
    /// Accept.
    Open { id: Id },
    /// Accept nothing, keep the sockets.
    Hold { id: Id },
    /// Accept again.
    Resume { id: Id },
    /// Close the sockets, finish what runs.
    Drain { id: Id },
    /// Cut what runs in a worker that was told to drain.
    Cut { id: Id },
    /// Send a signal.
    Kill { id: Id, signal: Signal },
    /// This worker's listening sockets are the ones to keep duplicates of.
    Adopt { id: Id },
    /// Forget what this worker said it listens on.
    Forget { id: Id },
    /// A reload begins.
    Reloading,
    /// A reload is over. All reloads up to this number are answered.
    Reloaded {
        number: u32,
        outcome: Result<(), String>,
    },
    /// The first worker serves.
    Started,
    /// The end is near.
    Stopping,
    /// Close the duplicates of the listening sockets.
    CloseDuplicates,
    /// A message, and whether it is a warning.
    Say { warn: bool, text: String },
    /// Exit.
    Exit { code: u8 },
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    /// Reads its configuration, opens what is new.
    Starting { until_ms: u64 },
    /// Waits until the serving one is held.
    Ready { until_ms: u64 },
    /// Has been told to go, and does not accept yet.
    Going { until_ms: u64 },
    /// Has been told to accept, and may have served already: it is not given up for being late, which is said at this time.
    Opening { until_ms: u64 },
    /// Accepts.
    Serving,
    /// Accepts no more; another one may still give up.
    Old,
    /// Told to finish.
    Draining,
    /// Killed, and not yet gone.
    Dying,
}

/// A worker, as `show proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Worker {
    pub id: Id,
    pub pid: u32,
    pub phase: Phase,
    pub started_ms: u64,
    /// Successful reloads it has survived.
    pub reloads: u32,
    pub version: String,
    /// Why it has to go, if it was killed for it.
    pub fault: Option<String>,
}

/// Counters that `show proc` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    /// Reloads begun.
    pub reloads: u32,
    /// Reloads failed.
    pub failed: u32,
    /// The last one failed.
    pub last_failed: bool,
}

impl Status {
    /// `exited with code 1 (Exit)`, as HAProxy puts it.
    pub(super) fn describe(self) -> String {
        match self {
            Status::Exit(code) => format!("exited with code {code} (Exit)"),
            Status::Signal(n) => format!("exited with code {} (killed by signal {n})", 128 + n),
        }
    }

    /// What a shell reports.
    pub(super) fn shell_code(self) -> u8 {
        let code = match self {
            Status::Exit(code) => code,
            Status::Signal(n) => 128 + n,
        };
        u8::try_from(code).unwrap_or(1)
    }
}
