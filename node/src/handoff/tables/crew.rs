//! Threads that put the rows of large tables in place while the process that shows them goes on. All rows of a key come to the
//! same thread, in the order in which they were shown.
//!
//! A process that takes over on a busy machine competes with the one that serves: it gets done the sooner the more of its
//! threads want to run, and one that has idle cores uses them.

use std::io;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use remora_core::table::{Importer, Ledger, Settled, Slice, TableId};

/// Some threads.
pub(super) struct Crew<'s, 't> {
    hands: Vec<Hand<'s, 't>>,
}

struct Hand<'s, 't> {
    /// Position of a table there, and rows of it.
    slices: SyncSender<(usize, Slice)>,
    thread: ScopedJoinHandle<'s, io::Result<Done<'t>>>,
}

/// What one thread has come to.
#[derive(Default)]
struct Done<'t> {
    importers: Vec<Option<Importer<'t>>>,
    ledger: Ledger,
    entries: usize,
}

impl<'s, 't: 's> Crew<'s, 't> {
    /// `None`: so few entries are to come that one thread has them as soon. `positions`: where the tables are here.
    pub fn start(
        scope: &'s Scope<'s, '_>,
        importers: &[Option<Importer<'t>>],
        positions: &[Option<TableId>],
        entries: u64,
        shift_ms: i64,
    ) -> Option<Crew<'s, 't>> {
        let hands = hands();
        if entries < ENTRIES_MIN || hands == 1 {
            return None;
        }
        let mut crew = Crew { hands: Vec::new() };
        for _ in 0..hands {
            let (slices, come) = sync_channel(WAITING_MAX);
            let forks = importers
                .iter()
                .map(|i| i.as_ref().and_then(Importer::fork));
            let forks: Vec<_> = forks.collect();
            let positions = positions.to_vec();
            let thread = Builder::new()
                .name("remora-rows".into())
                .spawn_scoped(scope, move || work(forks, &positions, shift_ms, &come))
                .ok()?;
            crew.hands.push(Hand { slices, thread });
        }
        Some(crew)
    }
    /// Has a slice put in place. `false`: a thread has given up; [`Crew::finish`] tells why.
    pub fn give(&self, table: usize, slice: Slice) -> bool {
        // Who says nothing about keys shows the tables one after the other.
        let number = match slice.stripe {
            0 => table,
            stripe => stripe as usize,
        };
        let hand = self.hands.get(number % self.hands.len().max(1));
        hand.is_some_and(|hand| hand.slices.send((table, slice)).is_ok())
    }
    /// Waits until everything is in place. Returns how many entries were shown.
    pub fn finish(
        self,
        importers: &mut [Option<Importer<'t>>],
        ledger: &mut Ledger,
    ) -> io::Result<usize> {
        let mut entries = 0;
        for Hand { slices, thread } in self.hands {
            drop(slices);
            let done = thread
                .join()
                .map_err(|_| io::Error::other("a thread that took rows over has died"))??;
            entries += done.entries;
            ledger.extend(done.ledger);
            for (importer, fork) in importers.iter_mut().zip(done.importers) {
                if let (Some(importer), Some(fork)) = (importer, fork) {
                    importer.join(&fork);
                }
            }
        }
        Ok(entries)
    }
}

fn work<'t>(
    importers: Vec<Option<Importer<'t>>>,
    positions: &[Option<TableId>],
    shift_ms: i64,
    come: &Receiver<(usize, Slice)>,
) -> io::Result<Done<'t>> {
    let mut done = Done {
        importers,
        ..Done::default()
    };
    while let Ok((at, slice)) = come.recv() {
        let here = positions.get(at).copied().flatten();
        if let (Some(Some(importer)), Some(here)) = (done.importers.get_mut(at), here) {
            let ledger = &mut done.ledger;
            done.entries += importer
                .take(&slice, shift_ms, |key, uses, gauge| {
                    ledger.set(here, key, uses, gauge);
                })
                .map_err(io::Error::other)?;
        }
    }
    Ok(done)
}

/// As [`Importer::settle`], by several threads if the table is large.
pub(super) fn settle(importer: &mut Importer<'_>, entries: u64, now_ms: u64) {
    let parts = hands();
    if entries < ENTRIES_MIN || parts == 1 || !importer.is_divisible() {
        return importer.settle(now_ms);
    }
    let shared: &Importer<'_> = importer;
    let settled: Vec<Settled> = std::thread::scope(|scope| {
        let part = |part| move || shared.settle_part(part, parts, now_ms);
        let others: Vec<_> = (1..parts)
            .map(|n| (n, Builder::new().spawn_scoped(scope, part(n))))
            .collect();
        let mut settled = vec![part(0)()];
        for (n, thread) in others {
            let done = thread.ok().and_then(|thread| thread.join().ok());
            settled.push(done.unwrap_or_else(part(n)));
        }
        settled
    });
    importer.settled(settled);
}

/// How many threads there are to be.
fn hands() -> usize {
    let cores = std::thread::available_parallelism();
    cores.map_or(1, NonZero::get).min(HANDS_MAX)
}

/// More would wait for the process that shows the rows.
const HANDS_MAX: usize = 4;
/// With fewer entries, threads cost more than they bring.
const ENTRIES_MIN: u64 = 50_000;
/// Slices that wait for a thread, of 64 KiB at most.
const WAITING_MAX: usize = 24;
