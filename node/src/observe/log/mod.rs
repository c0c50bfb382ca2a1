//! Traffic and event logs: formatted on the worker thread into that thread's own part of a bounded queue, rendered for
//! each target and written by one log thread. What does not fit is dropped and counted (`DroppedLogs`): a slow or
//! blocked log target never delays traffic.

mod clock;
pub(crate) use clock::load_time_zone;
mod line;
mod sink;
mod wire;

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::Thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use remora_config::plan::{LogFormat, LogTarget, Mode, Plan};
use remora_core::world::{ProxyId, World};

use crate::shared::Shared;
use sink::Sinks;
use wire::Writer;

/// Handle to the log thread. Cheap to share; dropping the last one lets the thread write what is queued and end.
pub struct Logs {
    queue: Arc<Queue>,
    /// By proxy, then by `peers` section; the last group is the process's own (`global`).
    groups: Arc<[Group]>,
    proxies: usize,
    finished: Option<Mutex<mpsc::Receiver<()>>>,
}

/// Syslog severities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Severity {
    Emerg,
    Alert,
    Crit,
    Err,
    Warning,
    Notice,
    Info,
    Debug,
}

impl Severity {
    /// Its name, as `set severity-output string` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Emerg => "emerg",
            Severity::Alert => "alert",
            Severity::Crit => "crit",
            Severity::Err => "err",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
            Severity::Info => "info",
            Severity::Debug => "debug",
        }
    }
}

/// Everything a traffic log line can say about an exchange or TCP session. Times in ms; -1 = did not happen.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Access<'a> {
    pub client: Option<SocketAddr>,
    /// Address the client connected to (`%fi:%fp`); only the default line format shows it.
    pub local: Option<SocketAddr>,
    pub accept_wall_us: u64,
    /// Wall time of the request's first byte (`%tr`); accept time in TCP mode.
    pub request_wall_us: u64,
    pub frontend: ProxyId,
    pub backend: Option<ProxyId>,
    pub server: Option<&'a str>,
    /// TR Tw Tc Tr Ta (HTTP), Tw Tc Tt (TCP: `ta` is Tt).
    pub tr_req: i64,
    pub tw: i64,
    pub tc: i64,
    pub tr_res: i64,
    pub ta: i64,
    /// -1 when none was sent.
    pub status: i32,
    /// Bytes sent to the client.
    pub bytes_out: u64,
    /// Bytes received from the client; `option dontlognull` drops the line when there were none.
    pub bytes_in: u64,
    /// Termination: two characters, `--` when normal.
    pub term: [u8; 2],
    pub actconn: u32,
    pub feconn: u32,
    pub beconn: u32,
    pub srvconn: u32,
    pub retries: u32,
    pub redispatched: bool,
    pub srv_queue: u32,
    pub be_queue: u32,
    /// "GET /x HTTP/1.1", `<BADREQ>` when it did not parse.
    pub request_line: &'a [u8],
}

impl Logs {
    /// Opens the targets of `plan` and starts the log thread (none when nothing is logged anywhere).
    ///
    /// # Errors
    /// A target that cannot be opened, with its address in the text.
    pub fn start(plan: &Plan, pid: u32) -> Result<Logs, String> {
        let mut sinks = Sinks::default();
        let mut groups = Vec::with_capacity(plan.proxies.len() + 1);
        let global_tag = plan.global.log_tag.as_deref().unwrap_or(DEFAULT_TAG);
        for p in &plan.proxies {
            let mut group = Group::new(
                &p.logs,
                p.log_tag.as_deref().unwrap_or(global_tag),
                &mut sinks,
            )?;
            group.format = match &p.log_format {
                LogFormat::Default => LineFormat::Default,
                LogFormat::Tcp => LineFormat::Tcp,
                LogFormat::Http if p.mode == Mode::Http => LineFormat::Http,
                // `option httplog` on a TCP proxy: HAProxy falls back to tcplog with a warning of its own.
                LogFormat::Http => LineFormat::Tcp,
            };
            group.skip_null = p.options.dontlognull;
            groups.push(group);
        }
        for section in &plan.peers {
            groups.push(Group::new(&section.logs, global_tag, &mut sinks)?);
        }
        groups.push(Group::new(&plan.global.logs, global_tag, &mut sinks)?);
        let proxies = plan.proxies.len();
        let groups: Arc<[Group]> = groups.into();

        let queue = Arc::new(Queue::default());
        if sinks.is_empty() {
            return Ok(Logs {
                queue,
                groups,
                proxies,
                finished: None,
            });
        }
        let writer = Writer::new(
            Arc::clone(&queue),
            Arc::clone(&groups),
            sinks,
            pid,
            plan.global.log_send_hostname.clone(),
        );
        let (done, finished) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("remora-log".into())
            .spawn(move || {
                writer.run();
                let _ = done.send(());
            })
            .map_err(|e| format!("cannot start the log thread: {e}"))?;
        *queue.thread.lock() = Some(thread.thread().clone());
        Ok(Logs {
            queue,
            groups,
            proxies,
            finished: Some(Mutex::new(finished)),
        })
    }

    /// Logs nothing, anywhere. For tests and for `-c`.
    pub fn none() -> Logs {
        Logs {
            queue: Arc::new(Queue::default()),
            groups: Arc::new([]),
            proxies: 0,
            finished: None,
        }
    }

    /// Formats per the frontend's log-format and queues the line to its targets. Never blocks. No-op without targets.
    pub fn access(&self, shared: &Shared, a: &Access<'_>) {
        let index = usize::from(a.frontend.0);
        let Some(group) = self.groups.get(index) else {
            return;
        };
        if group.targets.is_empty() || (group.skip_null && a.bytes_in == 0) {
            return;
        }
        let queued = self.queue.push(index, Severity::Info, wall_us(), |out| {
            line::render(&group.format, &shared.world, a, out);
        });
        if !queued {
            shared
                .world
                .process
                .dropped_logs
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues an event line ("Proxy web started.") to a proxy's targets, or to those of `global` for `None`.
    pub fn event(&self, proxy: Option<ProxyId>, severity: Severity, text: fmt::Arguments<'_>) {
        let last = self.groups.len().wrapping_sub(1);
        self.queue_event(proxy.map_or(last, |p| usize::from(p.0)), severity, text);
    }

    /// The same for the targets of a `peers` section, by its position; without any, for those of `global`.
    pub fn peers_event(&self, section: usize, severity: Severity, text: fmt::Arguments<'_>) {
        let index = self.proxies + section;
        let own = self.groups.get(index).filter(|g| !g.targets.is_empty());
        match own {
            Some(_) => self.queue_event(index, severity, text),
            None => self.event(None, severity, text),
        }
    }

    fn queue_event(&self, index: usize, severity: Severity, text: fmt::Arguments<'_>) {
        if self.groups.get(index).is_none_or(|g| g.targets.is_empty()) {
            return;
        }
        let queued = self.queue.push(index, severity, wall_us(), |out| {
            let _ = out.write_fmt(text);
        });
        if !queued {
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A line about a connection that ended before it became a session: `10.0.0.1:1234 [date] web/1: text`.
    pub fn embryonic(
        &self,
        world: &World,
        frontend: ProxyId,
        client: Option<SocketAddr>,
        accept_wall_us: u64,
        text: fmt::Arguments<'_>,
    ) {
        let mut start = Vec::with_capacity(64);
        line::embryonic(world, frontend, client, accept_wall_us, &mut start);
        let start = String::from_utf8_lossy(&start);
        self.event(
            Some(frontend),
            Severity::Info,
            format_args!("{start}{text}"),
        );
    }

    /// Whether the frontend has any log target (to skip gathering).
    pub fn wanted(&self, frontend: ProxyId) -> bool {
        self.groups
            .get(usize::from(frontend.0))
            .is_some_and(|g| !g.targets.is_empty())
    }

    /// Lines the log thread could not write (target gone, datagram refused), and event lines that found the queue
    /// full. Traffic lines that found it full are in `ProcessState::dropped_logs`.
    pub fn lost(&self) -> u64 {
        self.queue.lost.load(Ordering::Relaxed)
    }

    /// Lets the log thread write what is queued and waits for it, at most `patience` (a blocked target must not keep
    /// the process from ending).
    pub fn finish(&self, patience: Duration) {
        self.queue.stop();
        if let Some(finished) = &self.finished {
            let _ = finished.lock().recv_timeout(patience);
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.queue.stop();
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs")
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}

/// Targets that get the same lines.
struct Group {
    targets: Vec<Target>,
    tag: String,
    format: LineFormat,
    skip_null: bool,
}

impl Group {
    fn new(targets: &[LogTarget], tag: &str, sinks: &mut Sinks) -> Result<Group, String> {
        let targets = targets
            .iter()
            .map(|t| {
                Ok(Target {
                    sink: sinks.open(&t.sink)?,
                    spec: t.clone(),
                })
            })
            .collect::<Result<_, String>>()?;
        Ok(Group {
            targets,
            tag: tag.to_owned(),
            format: LineFormat::Default,
            skip_null: false,
        })
    }
}

struct Target {
    sink: usize,
    spec: LogTarget,
}

enum LineFormat {
    Default,
    Tcp,
    Http,
}

/// The bounded queue: one part per producing thread (modulo [`PARTS`]), each a flat buffer of framed lines that the log
/// thread swaps for an empty one. Nothing is allocated once the buffers have grown.
#[derive(Default)]
struct Queue {
    parts: [Part; PARTS],
    thread: Mutex<Option<Thread>>,
    asleep: AtomicBool,
    stopping: AtomicBool,
    lost: AtomicU64,
}

/// On a cache line of its own, as each belongs to another thread.
#[derive(Default)]
#[repr(align(128))]
struct Part(Mutex<Vec<u8>>);

impl Queue {
    /// Appends a line written by `fill`; `false` when this thread's part is full.
    fn push(
        &self,
        group: usize,
        severity: Severity,
        wall_us: u64,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        {
            let mut part = self.parts[my_part()].0.lock();
            if part.len() > PART_BYTES_MAX {
                return false;
            }
            let start = part.len();
            part.extend_from_slice(&[0; FRAME_HEAD]);
            fill(&mut part);
            let len = part.len() - start - FRAME_HEAD;
            let head = FrameHead {
                group: group as u16,
                severity: severity as u8,
                len: len as u32,
                wall_us,
            };
            head.write(&mut part[start..start + FRAME_HEAD]);
        }
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        true
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }
}

/// Head of a line in the queue.
#[derive(Clone, Copy)]
struct FrameHead {
    group: u16,
    severity: u8,
    len: u32,
    wall_us: u64,
}

impl FrameHead {
    fn write(self, to: &mut [u8]) {
        to[0..8].copy_from_slice(&self.wall_us.to_le_bytes());
        to[8..12].copy_from_slice(&self.len.to_le_bytes());
        to[12..14].copy_from_slice(&self.group.to_le_bytes());
        to[14] = self.severity;
    }

    fn read(from: &[u8]) -> Option<FrameHead> {
        Some(FrameHead {
            wall_us: u64::from_le_bytes(from.get(0..8)?.try_into().ok()?),
            len: u32::from_le_bytes(from.get(8..12)?.try_into().ok()?),
            group: u16::from_le_bytes(from.get(12..14)?.try_into().ok()?),
            severity: *from.get(14)?,
        })
    }
}

fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as u64)
}

/// The part of the queue that the calling thread writes to.
fn my_part() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PARTS;
    }
    MINE.with(|m| *m)
}

/// Name in log lines when `log-tag` says nothing.
const DEFAULT_TAG: &str = "remora";
/// Parts of the queue; threads beyond share.
const PARTS: usize = 32;
/// A part that holds more takes no further line until the log thread has emptied it. Memory is at most twice this for
/// each thread that logs.
const PART_BYTES_MAX: usize = 256 * 1024;
const FRAME_HEAD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_recovers() {
        let queue = Queue::default();
        let line = [b'x'; 1000];
        let push = || queue.push(3, Severity::Info, 17, |out| out.extend_from_slice(&line));
        let mut taken = 0;
        while push() {
            taken += 1;
            assert!(taken < 10_000, "unbounded");
        }
        assert_eq!(taken, PART_BYTES_MAX / (line.len() + FRAME_HEAD) + 1);
        let part = std::mem::take(&mut *queue.parts[my_part()].0.lock());
        let head = FrameHead::read(&part).unwrap();
        assert_eq!(
            (head.group, head.severity, head.len, head.wall_us),
            (3, Severity::Info as u8, 1000, 17)
        );
        assert!(push());
    }

    #[test]
    fn without_targets_nothing_is_wanted() {
        let logs = Logs::none();
        assert!(!logs.wanted(ProxyId(0)));
        logs.event(None, Severity::Alert, format_args!("nobody listens"));
        logs.finish(Duration::from_secs(5));
        assert_eq!(logs.lost(), 0);
    }
}
