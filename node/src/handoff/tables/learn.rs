//! A new worker learns what the one that serves knows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::Scope;
use std::time::Instant;

use remora_core::table::{Delta, Importer, Key, Ledger, Lineage, Table, TableId, disown};
use tracing::{error, warn};

use super::crew::{self, Crew};
use super::fit::{holds, importers, report_lost};
use super::heritage::{From, Hubs, OnceShared, Stage, listen};
use super::{FOR_EVER, PATIENCE, convert, hear, say, totals};
use crate::handoff::channel::Channel;
use crate::handoff::frames::tables::{Pass, Tables};
use crate::proxy::clock;
use crate::shared::Shared;

/// The channel to the worker that serves, and what it has said about itself.
pub struct Learner {
    channel: Channel,
    there: Tables,
    begun: Instant,
    again: bool,
    unguarded: bool,
}

/// What was learned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Learned {
    /// Entries shown, each time they were.
    pub entries: usize,
    /// Tables.
    pub tables: usize,
    /// How long it took until all had been shown once.
    pub ms: u128,
}

impl Learner {
    /// Asks. `again`: the other side has handed over to a process that has died. `unguarded`: if the other side dies, nobody
    /// replaces it, so that what it has shown until then is all there is.
    ///
    /// # Errors
    /// The other side does not answer.
    pub fn begin(channel: Channel, again: bool, unguarded: bool) -> io::Result<Learner> {
        let begun = Instant::now();
        say(&channel, Pass::Ask)?;
        let mut there: Option<Tables> = None;
        loop {
            let part = match hear(&channel, PATIENCE)? {
                Some(Pass::Tables(part)) => part,
                other => return Err(unexpected(other)),
            };
            let last = !part.more;
            match &mut there {
                Some(there) => {
                    there.tables.extend(part.tables);
                    there.seeds.extend(part.seeds);
                    there.entries.extend(part.entries);
                    there.shared_as.extend(part.shared_as);
                    there.sizes.extend(part.sizes);
                }
                None => there = Some(part),
            }
            if last {
                break;
            }
        }
        let there = there.unwrap_or_default();
        Ok(Learner {
            channel,
            there,
            begun,
            again,
            unguarded,
        })
    }
    /// What the hash of a table is seeded with there, if this is told: one with the same seed is learned several times as
    /// fast, because entries come shard by shard.
    pub fn seed(&self, name: &str) -> Option<u64> {
        let at = self.there.tables.iter().position(|t| t.name == name)?;
        self.there.seeds.get(at).copied()
    }
    /// The lineage to continue. That of a process that has died went on there, and ended with it.
    pub fn lineage(&self) -> Option<Lineage> {
        let lineage = self.there.lineage;
        (lineage != 0 && !self.again).then_some(Lineage(lineage))
    }
}

/// Returns when all has been shown once. A thread goes on with what changes.
///
/// # Errors
/// It was broken off: this process must not serve, unless [`Heritage::bereave`](super::Heritage::bereave) says so.
pub fn learn(learner: Learner, shared: &Arc<Shared>) -> io::Result<Learned> {
    let (report, walked) = mpsc::sync_channel(1);
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("remora-learn".into())
        .spawn(move || {
            let mut lesson = Lesson::new(&shared, &learner);
            match lesson.hear(&report) {
                Ok(held_ms) => {
                    let from = lesson.seal(held_ms);
                    drop(report);
                    match from {
                        Ok(from) => listen(&shared, &learner.channel, Some(from)),
                        Err(_) => shared.heritage.reach(Stage::Failed),
                    }
                }
                Err(e) => {
                    let heritage = &shared.heritage;
                    if learner.unguarded {
                        heritage.reach(Stage::Broken);
                    }
                    // Before the report this is said by who waits for it.
                    if report.try_send(Err(e)).is_err() && !learner.unguarded {
                        error!("the tables of the process before have not arrived completely.");
                    }
                    drop(report);
                    let goes_on = learner.unguarded && heritage.wait_until_bereft();
                    let stage = if goes_on && lesson.salvage() {
                        Stage::Alone
                    } else {
                        Stage::Failed
                    };
                    heritage.reach(stage);
                }
            }
        })?;
    walked
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("it ended at once")))
}

/// What has been shown so far.
struct Lesson<'w> {
    shared: &'w Shared,
    learner: &'w Learner,
    positions: Vec<Option<TableId>>,
    importers: Vec<Option<Importer<'w>>>,
    learned: Learned,
    /// What the other process holds.
    ledger: Ledger,
    /// What it holds on behalf of others.
    others: BTreeMap<u64, (u64, Ledger)>,
}

impl<'w> Lesson<'w> {
    fn new(shared: &'w Shared, learner: &'w Learner) -> Lesson<'w> {
        let positions = convert::positions(&shared.world.tables, &learner.there.tables);
        Lesson {
            importers: importers(shared, &learner.there, &positions, learner.again),
            shared,
            learner,
            positions,
            learned: Learned::default(),
            ledger: Ledger::new(),
            others: BTreeMap::new(),
        }
    }

    /// Until everything is sealed: since when nothing is accepted there.
    fn hear(&mut self, report: &mpsc::SyncSender<io::Result<Learned>>) -> io::Result<u64> {
        std::thread::scope(|scope| self.hear_with(scope, report))
    }

    /// The same, with threads that may help.
    fn hear_with<'s>(
        &mut self,
        scope: &'s Scope<'s, '_>,
        report: &mpsc::SyncSender<io::Result<Learned>>,
    ) -> io::Result<u64>
    where
        'w: 's,
    {
        let Learner {
            channel,
            there,
            begun,
            again,
            ..
        } = self.learner;
        let shared = self.shared;
        let tables = &shared.world.tables;
        // One machine has one monotonic clock, unless somebody made a namespace for it.
        let shift_ms = clock::read().mono_ms as i64 - there.mono_ms as i64;
        let shift_ms = if shift_ms.abs() < CLOCKS_SAME_MS {
            0
        } else {
            shift_ms
        };
        let Lesson {
            positions,
            importers,
            learned,
            ledger,
            others,
            ..
        } = self;
        let mut patience = PATIENCE;
        // What is taught again needs care with numbers, and is rare.
        let entries = match again {
            true => 0,
            false => there.entries.iter().sum(),
        };
        let mut crew = Crew::start(scope, importers, positions, entries, shift_ms);
        loop {
            let said = hear(channel, patience);
            if !matches!(said, Ok(Some(Pass::Rows(_) | Pass::Totals(_))))
                && let Some(crew) = crew.take()
            {
                learned.entries += crew.finish(importers, ledger)?;
            }
            match said? {
                Some(Pass::Rows(rows)) => {
                    let at = usize::from(rows.table);
                    let divisible = importers.get(at).and_then(Option::as_ref);
                    if let Some(busy) = &crew
                        && divisible.is_some_and(Importer::is_divisible)
                    {
                        if busy.give(at, convert::slice(rows)) {
                            continue;
                        }
                        if let Some(crew) = crew.take() {
                            crew.finish(importers, ledger)?;
                        }
                        return Err(io::Error::other("a thread that took rows over has ended"));
                    }
                    let here = positions.get(at).copied().flatten();
                    if let (Some(Some(importer)), Some(here)) = (importers.get_mut(at), here) {
                        let slice = convert::slice(rows);
                        learned.entries += importer
                            .take(&slice, shift_ms, |key, uses, gauge| {
                                ledger.set(here, key, uses, gauge);
                            })
                            .map_err(io::Error::other)?;
                    }
                }
                Some(Pass::Walked) => {
                    let now_ms = clock::read().mono_ms;
                    for (at, importer) in importers.iter_mut().enumerate() {
                        let Some(importer) = importer else { continue };
                        let entries = there.entries.get(at).copied().unwrap_or(0);
                        crew::settle(importer, entries, now_ms);
                        learned.tables += 1;
                    }
                    report_lost(tables, there, positions, importers);
                    learned.ms = begun.elapsed().as_millis();
                    patience = FOR_EVER;
                    let _ = report.send(Ok(*learned));
                }
                Some(Pass::Totals(all)) => totals::add(shared, &all),
                Some(Pass::Settings(all)) => totals::set(&shared.world, &all),
                Some(Pass::Shares(shares)) => {
                    let (seq, ledger) = others.entry(shares.child).or_default();
                    *seq = shares.seq;
                    // Keys that are too long here hold nothing.
                    for (table, key, uses, gauge) in &shares.shares {
                        let here = positions.get(usize::from(*table)).copied().flatten();
                        let table = here.and_then(|TableId(at)| tables.get(usize::from(at)));
                        if let (Some(here), Some(table)) = (here, table)
                            && table.fits(&Key::from_stored(key))
                        {
                            ledger.set(here, key, *uses, *gauge);
                        }
                    }
                }
                Some(Pass::Numbers(numbers)) => {
                    let here = positions.get(usize::from(numbers.table)).copied().flatten();
                    let table = here.and_then(|TableId(at)| tables.get(usize::from(at)));
                    let highest = numbers.highest.iter().map(|(id, n)| (Lineage(*id), *n));
                    let mut highest: Vec<_> = highest.collect();
                    let mut newest = numbers.newest;
                    if *again {
                        let importer = importers.get_mut(usize::from(numbers.table));
                        if let Some(importer) = importer.and_then(Option::as_mut) {
                            importer.limit(newest);
                        }
                        highest.push((Lineage(there.lineage), newest));
                        newest = 0;
                    }
                    if let Some(replica) = table.and_then(Table::replica) {
                        replica.inherit(newest, &highest);
                    } else if let Some(here) = here {
                        let how = if *again {
                            OnceShared::Lost
                        } else {
                            OnceShared::As(Lineage(there.lineage), newest)
                        };
                        shared.heritage.was_shared(here, how);
                    }
                }
                Some(Pass::Known(known)) => {
                    let here = positions.get(usize::from(known.table)).copied().flatten();
                    if let Some(here) = here {
                        let mut inheritance = convert::inheritance(&known);
                        let at = usize::from(known.table);
                        let importer = importers.get(at).and_then(Option::as_ref);
                        let before = there.sizes.get(at).copied().unwrap_or(0);
                        let size = tables.get(usize::from(here.0)).map_or(0, |t| t.spec().size);
                        if !holds(&inheritance, importer, before, size as u64) {
                            inheritance.void();
                        }
                        shared.heritage.hubs.lock().known.push((here, inheritance));
                    }
                }
                Some(Pass::Lives(lives)) => {
                    for (id, node) in lives {
                        let lineage = Lineage(id);
                        if let Some(replica) = tables.iter().find_map(Table::replica)
                            && let Some(index) = replica.lineages().index(lineage)
                        {
                            replica.lineages().set_alive(index, true);
                        }
                        shared.heritage.hubs.lock().lives.push((lineage, node));
                    }
                }
                Some(Pass::Found(found)) => shared.heritage.hubs.lock().found.push(found),
                Some(Pass::Sealed { held_ms }) => return Ok(held_ms),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// It was all.
    fn seal(self, held_ms: u64) -> io::Result<From> {
        let Learner {
            channel,
            there,
            again,
            ..
        } = self.learner;
        let shared = self.shared;
        let tables = &shared.world.tables;
        let Lesson {
            positions,
            importers,
            mut ledger,
            others,
            ..
        } = self;
        let now = clock::read();
        let now_ms = now.mono_ms;
        if there.lineage != 0 && !again {
            let shown = positions.iter().zip(&importers);
            let shown = shown.filter_map(|(here, importer)| importer.as_ref().and(*here));
            number_anew(tables, &shown.collect(), now.wall_us);
        }
        for (here, importer) in positions.iter().zip(importers) {
            let Some(importer) = importer else { continue };
            if importer.refused() > 0
                && let Some(TableId(at)) = here
                && let Some(table) = tables.get(usize::from(*at))
            {
                let name = &table.spec().name;
                warn!(
                    "table '{name}': no room for {} entries.",
                    importer.refused()
                );
            }
            importer.seal(now_ms);
        }
        if *again && there.lineage != 0 {
            shared.heritage.over.lock().push(Lineage(there.lineage));
        }
        // Cells of a lineage that has ended have no trackers.
        let ended = |id: TableId| {
            let table = tables.get(usize::from(id.0));
            let mut there = positions.iter().zip(&there.tables);
            let replicated = there.any(|(here, info)| *here == Some(id) && info.replicated);
            *again && replicated && table.is_some_and(|table| table.replica().is_some())
        };
        for (number, (seq, mut third)) in others {
            ledger.subtract(&third);
            if *again {
                // It will say itself what it holds.
                for (id, key, share) in third.iter().filter(|(id, ..)| !ended(*id)) {
                    add_gauge(tables, id, key, -i64::from(share.gauge), now_ms);
                }
                continue;
            }
            third.pin(tables, now_ms);
            shared.heritage.inherit(number, seq, third);
        }
        for (id, key, share) in ledger.iter().filter(|(id, ..)| ended(*id)) {
            add_gauge(tables, id, key, i64::from(share.gauge), now_ms);
        }
        ledger.pin(tables, now_ms);
        shared.heritage.inherit(there.child, 0, ledger);
        let before = (held_ms == 0).then(|| channel.try_clone());
        shared.heritage.sealed(held_ms, before.transpose()?);
        Ok(From {
            child: there.child,
            positions,
            connection: 0,
        })
    }

    /// It will not be all, and there is nobody else to ask: goes on with what there is. Its lineage went on in a process that may
    /// have told peers more. Whether that can be.
    fn salvage(self) -> bool {
        let (shared, there) = (self.shared, &self.learner.there);
        let tables = &shared.world.tables;
        let now_ms = clock::read().mono_ms;
        for importer in self.importers.into_iter().flatten() {
            importer.seal(now_ms);
        }
        for (here, info) in self.positions.iter().zip(&there.tables) {
            let Some(id) = here else { continue };
            let table = tables.get(usize::from(id.0));
            if info.replicated {
                if table.is_some_and(|table| table.replica().is_none()) {
                    shared.heritage.was_shared(*id, OnceShared::Lost);
                }
                continue;
            }
            // Its trackers are gone with it.
            for (_, key, share) in self.ledger.iter().filter(|(held, ..)| held == id) {
                add_gauge(tables, *id, key, -i64::from(share.gauge), now_ms);
            }
        }
        let continues = self.learner.lineage().is_some();
        if continues {
            let mut hubs = shared.heritage.hubs.lock();
            // Where names lead is as true as before.
            *hubs = Hubs {
                found: std::mem::take(&mut hubs.found),
                ..Hubs::default()
            };
            drop(hubs);
            if !disown(tables, Lineage(rand::random::<u64>().max(1)), now_ms) {
                return false;
            }
            let sections = shared.plan.peers.iter().filter(|section| !section.disabled);
            shared.ready.begin_again(sections.count());
        }
        let rest = match continues {
            true => "; what it had told its peers comes from them",
            false => "",
        };
        warn!(
            "the process before has ended before it had handed over everything: going on with {} entries that it had shown{rest}.",
            self.learned.entries,
        );
        true
    }
}

/// Replicated tables that begin empty in a lineage that goes on: an earlier process of it may have had one of the same name, of
/// which peers still have rows. Numbers from the wall clock's microseconds on are above all that it can have given, so that
/// rows of now replace those, and no peer takes them for what it has already.
fn number_anew(tables: &[Table], shown: &BTreeSet<TableId>, wall_us: u64) {
    for (at, table) in (0..=u16::MAX).zip(tables) {
        if let Some(replica) = table.replica()
            && !shown.contains(&TableId(at))
        {
            replica.resume_from(wall_us);
        }
    }
}

/// Changes the gauge of an entry that is there.
fn add_gauge(tables: &[Table], id: TableId, key: &Key, n: i64, now_ms: u64) {
    let table = tables.get(usize::from(id.0));
    if let Some(table) = table.filter(|table| table.peek(key, now_ms, |_| ()).is_some()) {
        let mut delta = Delta::default();
        delta.push_gauge(n);
        // It exists: nothing can be refused.
        let _ = table.apply_delta(key, &delta, now_ms);
    }
}

fn unexpected(what: Option<Pass>) -> io::Error {
    match what {
        Some(other) => {
            let text = format!("{other:?}");
            io::Error::other(format!("unexpected {}", text.get(..40).unwrap_or(&text)))
        }
        None => io::ErrorKind::UnexpectedEof.into(),
    }
}

/// Clock readings of two processes that are this close are of the same clock.
const CLOCKS_SAME_MS: i64 = 60_000;
