//! Memory of all processes of a node, looked at all the time.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait::pace;

/// Resident memory of a node's processes together, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Under load, before the first reload (median).
    pub steady: u64,
    /// The most while there were reloads.
    pub peak: u64,
    /// The most processes at a time.
    pub processes: usize,
}

#[derive(Debug, Default)]
struct Seen {
    calm: Mutex<Vec<u64>>,
    reloads: AtomicBool,
    peak: AtomicU64,
    processes: AtomicUsize,
    stop: AtomicBool,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(super) fn of(root: u32) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            while !shared.stop.load(Relaxed) {
                look(root, &shared);
                pace(PERIOD);
            }
        });
        Self {
            seen,
            thread: Some(thread),
        }
    }

    /// From now on there are reloads.
    pub(super) fn reloads(&self) {
        self.seen.reloads.store(true, Relaxed);
    }

    pub(super) fn memory(&self) -> Memory {
        let mut calm = self
            .seen
            .calm
            .lock()
            .expect("nobody panics with the lock")
            .clone();
        calm.sort_unstable();
        Memory {
            steady: calm.get(calm.len() / 2).copied().unwrap_or(0),
            peak: self.seen.peak.load(Relaxed),
            processes: self.seen.processes.load(Relaxed),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn look(root: u32, seen: &Seen) {
    let all = family(root);
    let bytes: u64 = all.iter().map(|pid| resident(*pid)).sum();
    if seen.reloads.load(Relaxed) {
        seen.peak.fetch_max(bytes, Relaxed);
        seen.processes.fetch_max(all.len(), Relaxed);
    } else {
        seen.calm
            .lock()
            .expect("nobody panics with the lock")
            .push(bytes);
    }
}

/// A process and all that descend from it.
pub(super) fn family(root: u32) -> BTreeSet<u32> {
    let mut all = BTreeSet::from([root]);
    let mut fresh = vec![root];
    while let Some(pid) = fresh.pop() {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        for child in children.split_ascii_whitespace() {
            if let Ok(child) = child.parse()
                && all.insert(child)
            {
                fresh.push(child);
            }
        }
    }
    all
}

fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

const PERIOD: Duration = Duration::from_millis(10);
