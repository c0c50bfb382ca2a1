//! How long threads were ready to run and got no processor (`/proc/PID/task/TID/schedstat`): on a machine with other work, a
//! reload can be late because the kernel lets others run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::memory::family;

/// What had been waited up to a moment, by all threads of a supervisor and of its workers.
pub(super) struct Waits {
    root: u32,
    before: BTreeMap<(u32, u32), Duration>,
}

impl Waits {
    pub(super) fn of(root: u32) -> Self {
        Self {
            root,
            before: all(root),
        }
    }

    /// What each has waited since then; new ones since they were started.
    pub(super) fn since(&self) -> Waited {
        let mut waited = Waited::default();
        for (thread, now) in all(self.root) {
            let before = self.before.get(&thread).copied().unwrap_or_default();
            let span = now.saturating_sub(before);
            if thread.0 == self.root {
                waited.supervisor = waited.supervisor.max(span);
            }
            waited.threads.push((span, thread.0, thread.1));
        }
        waited.threads.sort_unstable_by(|a, b| b.cmp(a));
        waited.threads.truncate(SHOWN);
        for (_, pid, thread) in &waited.threads {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm"));
            waited
                .names
                .push(comm.unwrap_or_default().trim().to_owned());
        }
        waited
    }
}

/// See the fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Waited {
    /// The supervisor.
    pub(super) supervisor: Duration,
    /// Those that waited longest, with their processes and numbers.
    threads: Vec<(Duration, u32, u32)>,
    names: Vec<String>,
}

impl Waited {
    /// Whoever waited longest.
    pub(super) fn longest(&self) -> Duration {
        self.threads
            .first()
            .map_or(Duration::ZERO, |(span, ..)| *span)
    }
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the supervisor {:.1?}", self.supervisor)?;
        for ((span, pid, _), name) in self.threads.iter().zip(&self.names) {
            write!(f, ", {name} of {pid} {span:.1?}")?;
        }
        Ok(())
    }
}

fn all(root: u32) -> BTreeMap<(u32, u32), Duration> {
    let mut all = BTreeMap::new();
    for pid in family(root) {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let name = task.file_name();
            if let Some(thread) = name.to_str().and_then(|name| name.parse().ok())
                && let Some(span) = waited(pid, thread)
            {
                all.insert((pid, thread), span);
            }
        }
    }
    all
}

/// The second number, in nanoseconds.
fn waited(pid: u32, thread: u32) -> Option<Duration> {
    let path = format!("/proc/{pid}/task/{thread}/schedstat");
    let text = std::fs::read_to_string(path).ok()?;
    let ns = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(ns))
}

/// So many of those that waited longest are told.
const SHOWN: usize = 4;
