//! The log thread: takes lines from the queue, filters them per target, puts the wire format's header in front, cuts
//! to `len`, and hands them to the sinks.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use remora_config::plan::{LogTarget, LogWire};

use super::sink::Sinks;
use super::{FRAME_HEAD, FrameHead, Group, Queue, clock};

pub(super) struct Writer {
    queue: Arc<Queue>,
    groups: Arc<[Group]>,
    sinks: Sinks,
    names: Names,
}

/// What headers say about the sender.
struct Names {
    pid: u32,
    /// `log-send-hostname`
    hostname: Option<String>,
}

impl Writer {
    pub(super) fn new(
        queue: Arc<Queue>,
        groups: Arc<[Group]>,
        sinks: Sinks,
        pid: u32,
        hostname: Option<String>,
    ) -> Writer {
        Writer {
            queue,
            groups,
            sinks,
            names: Names { pid, hostname },
        }
    }

    /// Runs until the queue is stopped and empty.
    pub(super) fn run(mut self) {
        let mut batches = Vec::new();
        loop {
            // Read before the sweep: lines queued before the stop are then certainly seen.
            let stopping = self.queue.stopping.load(Ordering::SeqCst);
            let worked = self.sweep(&mut batches);
            if worked && !stopping {
                // More may follow soon: workers need not wake this thread for each line (a system call), and streams
                // are written in larger pieces.
                std::thread::park_timeout(GATHER_TIME);
                continue;
            }
            if stopping {
                if worked {
                    continue;
                }
                return;
            }
            self.queue.asleep.store(true, Ordering::SeqCst);
            // A line queued between the sweep and the flag found nobody to wake.
            if self.sweep(&mut batches) || self.queue.stopping.load(Ordering::SeqCst) {
                self.queue.asleep.store(false, Ordering::SeqCst);
            } else {
                std::thread::park();
            }
        }
    }

    /// Writes what all threads have queued, in the order of time. `batches` are the buffers to swap for full ones.
    fn sweep(&mut self, batches: &mut Vec<Vec<u8>>) -> bool {
        batches.resize_with(self.queue.parts.len(), Vec::new);
        for (part, batch) in self.queue.parts.iter().zip(batches.iter_mut()) {
            std::mem::swap(&mut *part.0.lock(), batch);
        }
        let mut line = Vec::with_capacity(1024);
        let worked = in_order(batches, |head, text| self.write(head, text, &mut line));
        for batch in batches {
            batch.clear();
        }
        if worked {
            let lost = self.sinks.flush();
            self.count_lost(lost);
        }
        worked
    }

    fn write(&mut self, head: FrameHead, text: &[u8], line: &mut Vec<u8>) {
        let Some(group) = self.groups.get(usize::from(head.group)) else {
            return;
        };
        for target in &group.targets {
            if head.severity > target.spec.level_max {
                continue;
            }
            line.clear();
            self.names.line(&target.spec, &group.tag, &head, text, line);
            let lost = self.sinks.send(target.sink, line);
            if lost > 0 {
                self.queue.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }

    fn count_lost(&self, lost: u64) {
        if lost > 0 {
            self.queue.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// Calls `take` with the lines of all batches, the oldest first; each batch is in order already. Whether there were any.
fn in_order(batches: &[Vec<u8>], mut take: impl FnMut(FrameHead, &[u8])) -> bool {
    let mut heads: Vec<(FrameHead, &[u8])> = batches
        .iter()
        .filter_map(|batch| Some((FrameHead::read(batch)?, batch.as_slice())))
        .collect();
    let any = !heads.is_empty();
    while let Some(at) = (0..heads.len()).min_by_key(|at| heads[*at].0.wall_us) {
        let (head, rest) = heads[at];
        let end = FRAME_HEAD + head.len as usize;
        if let Some(text) = rest.get(FRAME_HEAD..end) {
            take(head, text);
        }
        let rest = rest.get(end..).unwrap_or_default();
        match FrameHead::read(rest) {
            Some(next) => heads[at] = (next, rest),
            None => {
                heads.remove(at);
            }
        }
    }
    any
}

impl Names {
    /// One line for one target: header, text, line feed; `len` counts all of it.
    fn line(
        &self,
        target: &LogTarget,
        tag: &str,
        head: &FrameHead,
        text: &[u8],
        out: &mut Vec<u8>,
    ) {
        // More severe than the minimum is sent as the minimum.
        let level = head.severity.max(target.level_min);
        let priority = u16::from(target.facility) * 8 + u16::from(level);
        let pid = self.pid;
        match target.format {
            LogWire::Raw => {}
            LogWire::Short => {
                let _ = write!(out, "<{level}>");
            }
            LogWire::Priority => {
                let _ = write!(out, "<{priority}>");
            }
            LogWire::Timed => {
                let _ = write!(out, "<{level}>");
                clock::iso(head.wall_us, out);
                out.push(b' ');
            }
            LogWire::Iso => {
                clock::iso(head.wall_us, out);
                out.push(b' ');
            }
            LogWire::Default | LogWire::Rfc3164 | LogWire::Local => {
                let _ = write!(out, "<{priority}>");
                clock::bsd(head.wall_us, out);
                let host = match target.format {
                    LogWire::Local => None,
                    LogWire::Rfc3164 => Some(self.hostname.as_deref().unwrap_or("localhost")),
                    _ => self.hostname.as_deref(),
                };
                if let Some(host) = host {
                    let _ = write!(out, " {host}");
                }
                let _ = write!(out, " {tag}[{pid}]: ");
            }
            LogWire::Rfc5424 => {
                let _ = write!(out, "<{priority}>1 ");
                clock::iso(head.wall_us, out);
                let host = self.hostname.as_deref().unwrap_or("-");
                let _ = write!(out, " {host} {tag} {pid} - - ");
            }
        }
        out.extend_from_slice(text);
        out.truncate(target.len.max(1) - 1);
        out.push(b'\n');
    }
}

/// How long lines may wait for others.
const GATHER_TIME: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use remora_config::plan::LogSink;

    #[test]
    fn lines_of_several_threads_come_in_the_order_of_time() {
        let batch = |times: &[u64]| {
            let mut bytes = Vec::new();
            for wall_us in times {
                let text = wall_us.to_string();
                let head = FrameHead {
                    group: 0,
                    severity: 6,
                    len: text.len() as u32,
                    wall_us: *wall_us,
                };
                let at = bytes.len();
                bytes.resize(at + FRAME_HEAD, 0);
                head.write(&mut bytes[at..]);
                bytes.extend_from_slice(text.as_bytes());
            }
            bytes
        };
        let batches = [
            batch(&[5, 20, 21]),
            batch(&[]),
            batch(&[1, 7, 30]),
            batch(&[20]),
        ];
        let mut seen = Vec::new();
        assert!(in_order(&batches, |_, text| {
            seen.push(String::from_utf8(text.to_vec()).unwrap());
        }));
        assert_eq!(seen, ["1", "5", "7", "20", "20", "21", "30"]);
        assert!(!in_order(&[Vec::new()], |_, _| panic!("there is none")));
    }

    fn line(format: LogWire, len: usize, level_min: u8) -> String {
        line_from(None, format, len, level_min)
    }

    fn line_from(hostname: Option<&str>, format: LogWire, len: usize, level_min: u8) -> String {
        let names = Names {
            pid: 9464,
            hostname: hostname.map(str::to_owned),
        };
        let target = LogTarget {
            sink: LogSink::Stdout,
            format,
            facility: 3,
            level_max: 7,
            level_min,
            len,
        };
        let head = FrameHead {
            group: 0,
            severity: 4,
            len: 0,
            wall_us: 1_795_403_112_917_699,
        };
        let mut out = Vec::new();
        names.line(&target, "remora", &head, b"Proxy fe stopped.", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn wire_formats_are_those_of_the_reference() {
        // Captured from HAProxy 2.6; the hour depends on the zone of the machine and is not compared.
        let cases: [(LogWire, &str, &str); 9] = [
            (
                LogWire::Default,
                "<28>Nov 2",
                ":12 remora[9464]: Proxy fe stopped.\n",
            ),
            (LogWire::Raw, "Proxy fe stopped.\n", ""),
            (LogWire::Short, "<4>Proxy fe stopped.\n", ""),
            (LogWire::Priority, "<28>Proxy fe stopped.\n", ""),
            (LogWire::Timed, "<4>2026-11-2", ".917699"),
            (LogWire::Iso, "2026-11-2", ".917699"),
            (
                LogWire::Rfc3164,
                "<28>Nov 2",
                " localhost remora[9464]: Proxy fe stopped.\n",
            ),
            (
                LogWire::Local,
                "<28>Nov 2",
                ":12 remora[9464]: Proxy fe stopped.\n",
            ),
            (
                LogWire::Rfc5424,
                "<28>1 2026-11-2",
                " - remora 9464 - - Proxy fe stopped.\n",
            ),
        ];
        for (format, start, inside) in cases {
            let got = line(format, 1024, 0);
            assert!(got.starts_with(start), "{format:?}: {got}");
            assert!(got.contains(inside), "{format:?}: {got}");
        }
        // 'log-send-hostname'
        for (format, inside) in [
            (LogWire::Default, ":12 box remora[9464]: "),
            (LogWire::Rfc3164, ":12 box remora[9464]: "),
            (LogWire::Local, ":12 remora[9464]: "),
            (LogWire::Rfc5424, " box remora 9464 - - "),
        ] {
            let got = line_from(Some("box"), format, 1024, 0);
            assert!(got.contains(inside), "{format:?}: {got}");
        }
    }

    #[test]
    fn len_counts_header_and_line_feed_and_the_minimum_level_caps() {
        assert_eq!(line(LogWire::Short, 10, 0), "<4>Proxy \n");
        assert_eq!(line(LogWire::Short, 10, 5), "<5>Proxy \n");
        assert_eq!(line(LogWire::Raw, 0, 0), "\n");
    }
}
