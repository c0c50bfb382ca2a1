//! A process that drains tells the one that serves what it still counts. It keeps its tables until the other one has proved
//! that it does not need to be shown them once more, and then only what its own connections need of them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use remora_core::table::{Delta, Key, Op, TableId};
use tracing::warn;

use super::convert::{self, Deltas};
use super::teach::{self, Command, Newest, TOTALS_MAX};
use super::totals::Told;
use super::{PATIENCE, hear, say};
use crate::handoff::channel::Channel;
use crate::handoff::frames::Frame;
use crate::handoff::frames::tables::{Drain, Pass};
use crate::proxy::clock;
use crate::proxy::control::Ask;
use crate::shared::Shared;

/// The telling side.
pub(super) struct Drainer<'s> {
    shared: &'s Shared,
    told: Told,
    channel: Option<Channel>,
    /// The last number used.
    seq: u64,
    /// Said, and not confirmed.
    said: Option<Said>,
    /// To be said, by table.
    pending: Vec<Deltas>,
    /// When something was said last.
    last: Instant,
    /// How long it waits for somebody who listens, in the end.
    patience: Duration,
    /// What the tables' journals had come to when they were sealed.
    newest: Newest,
    /// Begins in the place of the process that listened, and has not asked yet.
    pupil: Option<Channel>,
    /// How often everything has been shown once more.
    times: u64,
    /// When everything was shown last.
    shown: Instant,
    /// A later process serves: if it dies, one that has newer tables than these shows them.
    spared: bool,
    /// The successor has been succeeded in turn: there is another copy of the tables.
    succeeded: bool,
    /// When it was looked last whether the tables are still needed.
    looked: Instant,
    /// They were not: only what connections here need is left of them.
    stripped: bool,
}

/// One message, in a form that can be said again.
struct Said {
    seq: u64,
    entries: Vec<(u16, Key, Delta)>,
    totals: Vec<crate::handoff::frames::tables::Total>,
}

impl<'s> Drainer<'s> {
    pub fn new(
        shared: &'s Shared,
        mut told: Told,
        channel: Channel,
        newest: Newest,
    ) -> Drainer<'s> {
        told.drains();
        Drainer {
            told,
            channel: Some(channel),
            seq: 0,
            said: None,
            pending: shared.world.tables.iter().map(|_| Deltas::new()).collect(),
            last: Instant::now(),
            patience: FINISH_MAX,
            newest,
            pupil: None,
            times: 0,
            shown: Instant::now(),
            spared: false,
            succeeded: false,
            looked: Instant::now(),
            stripped: false,
            shared,
        }
    }

    /// Lets go of what nobody needs any more, when it is time.
    fn strip(&mut self) {
        let due = self.succeeded || self.shown.elapsed() >= COPY_KEPT;
        if self.stripped || !due || self.looked.elapsed() < LOOK_PAUSE {
            return;
        }
        self.looked = Instant::now();
        let alive = |channel: &Channel| channel.waits(Duration::ZERO).unwrap_or(false);
        if !self.channel.as_ref().is_some_and(alive) {
            return;
        }
        let Some(addresses) = clients(self.shared) else {
            return;
        };
        let now_ms = clock::read().mono_ms;
        for table in &self.shared.world.tables {
            let keys = addresses.iter().filter_map(|a| table.key_of_addr(*a));
            table.strip(&keys.collect::<Vec<_>>(), now_ms);
        }
        self.stripped = true;
    }

    /// Until the process ends.
    pub fn run(mut self, orders: &mpsc::Receiver<Command>) {
        loop {
            let waits = self.said.is_some() && self.channel.is_some();
            let pause = if waits {
                Duration::ZERO
            } else {
                PAUSE.saturating_sub(self.last.elapsed())
            };
            match orders.recv_timeout(pause) {
                Ok(Command::Heir(channel)) => self.follow(channel),
                Ok(Command::Again(channel)) => self.expect(channel),
                Ok(Command::Finish { clean, done }) => {
                    self.finish(clean, orders);
                    let _ = done.send(());
                    return;
                }
                Ok(Command::Last) => self.patience = LAST_PATIENCE,
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => self.step(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Says the next thing, or waits a little for the confirmation of the last.
    fn step(&mut self) {
        self.teach();
        if self.channel.is_none() {
            self.last = Instant::now();
        } else if self.said.is_some() {
            self.confirmed();
        } else {
            self.last = Instant::now();
            self.strip();
            if self.gather() {
                self.say();
            }
        }
    }

    /// The process that listened is dead. One that begins in its place will ask.
    fn expect(&mut self, channel: Channel) {
        self.channel = None;
        self.pupil = Some(channel);
    }

    /// Shows everything once more, if somebody has asked.
    fn teach(&mut self) {
        let asked = match self.pupil.as_ref().map(Channel::try_recv) {
            None => return,
            Some(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => return,
            Some(Ok(Some((Frame::Pass(pass), _)))) => *pass == Pass::Ask,
            Some(_) => false,
        };
        let Some(channel) = self.pupil.take().filter(|_| asked) else {
            return;
        };
        self.times += 1;
        if self.stripped {
            return self.remind(channel);
        }
        // All of it is in the tables.
        self.said = None;
        for pending in &mut self.pending {
            pending.clear();
        }
        match teach::again(self.shared, &channel, &self.newest, self.times) {
            Ok(mut told) => {
                told.drains();
                self.told = told;
                self.channel = Some(channel);
                self.shown = Instant::now();
            }
            Err(e) => {
                for table in &self.shared.world.tables {
                    table.note_deltas();
                }
                warn!("the tables could not be shown once more: {e}");
            }
        }
    }

    /// What others need of the tables is gone, so the process in the place of the dead one begins with empty ones. But it
    /// hears which lineage is over, and what runs here.
    fn remind(&mut self, channel: Channel) {
        if let Err(e) = teach::remind(self.shared, &channel) {
            warn!("the process that begins cannot be told what runs here: {e}");
            return;
        }
        warn!(
            "the process that took over has died, and its tables are gone: the next one begins with empty ones."
        );
        self.restate();
        self.channel = Some(channel);
        self.shown = Instant::now();
        self.say();
    }

    fn confirmed(&mut self) {
        let Some(channel) = &self.channel else { return };
        match hear(channel, PAUSE) {
            Ok(Some(Pass::Ack { seq })) => {
                if self.said.as_ref().is_some_and(|said| said.seq <= seq) {
                    self.said = None;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {}
            // There will be another one, or not.
            _ => self.channel = None,
        }
    }

    /// Collects what is to be said next. Returns whether there is anything.
    fn gather(&mut self) -> bool {
        let mut entries = Vec::new();
        let mut room = ENTRIES_BYTES;
        for (at, table) in self.shared.world.tables.iter().enumerate() {
            let Some(pending) = self.pending.get_mut(at) else {
                continue;
            };
            if pending.len() < ENTRIES_MAX {
                table.take_deltas(ENTRIES_MAX, pending);
            }
            while entries.len() < ENTRIES_MAX
                && room > 0
                && let Some((key, delta)) = pending.pop_first()
            {
                if !delta.is_empty() {
                    room = room.saturating_sub(weight(&key, &delta));
                    entries.push((at as u16, key, delta));
                }
            }
        }
        let totals = self.told.news(self.shared, TOTALS_MAX);
        if entries.is_empty() && totals.is_empty() {
            return false;
        }
        self.seq += 1;
        self.said = Some(Said {
            seq: self.seq,
            entries,
            totals,
        });
        true
    }

    /// Says what is not confirmed yet.
    fn say(&mut self) {
        let (Some(channel), Some(said)) = (&self.channel, &self.said) else {
            return;
        };
        let entries = said.entries.iter();
        let drain = Drain {
            seq: said.seq,
            entries: entries
                .map(|(table, key, delta)| convert::change(*table, key, delta))
                .collect(),
            totals: said.totals.clone(),
        };
        if say(channel, Pass::Drain(drain)).is_err() {
            self.channel = None;
        }
    }

    /// Goes on with another process.
    fn follow(&mut self, channel: Channel) {
        self.channel = None;
        self.spared = true;
        for (tables, more) in convert::infos(&self.shared.world.tables) {
            let child = self.shared.heritage.child;
            let hello = Pass::Child {
                child,
                tables,
                more,
            };
            if say(&channel, hello).is_err() {
                return;
            }
        }
        let Ok(Some(Pass::Heard { seq })) = hear(&channel, PATIENCE) else {
            return;
        };
        match (seq, &self.said) {
            (Some(seq), Some(said)) if said.seq <= seq => self.said = None,
            (Some(_), _) => {}
            // It began from nothing: it must hear of all trackers that run here.
            (None, _) => self.restate(),
        }
        self.succeeded |= seq.is_some();
        self.channel = Some(channel);
        self.say();
    }

    fn restate(&mut self) {
        if let Some(said) = &mut self.said {
            for (_, _, delta) in &mut said.entries {
                delta.forget_holders();
            }
        }
        for (table, pending) in self.shared.world.tables.iter().zip(&mut self.pending) {
            for delta in pending.values_mut() {
                delta.forget_holders();
            }
            table.restate_holders();
            while table.take_deltas(ENTRIES_MAX, pending) {}
        }
        // Those of others are theirs to tell.
        let pending = &mut self.pending;
        self.shared.heritage.shares(|TableId(at), key, gauge| {
            if let Some(deltas) = pending.get_mut(usize::from(at)) {
                let delta = deltas.entry(key.clone()).or_default();
                delta.uses -= 1;
                delta.push_gauge(-i64::from(gauge));
            }
        });
    }

    /// Says all that is left, and that this was all. Before that, it waits until the process that took over has served for a
    /// while: should it die, its successor has nobody else to learn from.
    fn finish(&mut self, clean: bool, orders: &mpsc::Receiver<Command>) {
        loop {
            self.tell_rest(orders);
            if !clean || !self.stand_by(orders) {
                break;
            }
        }
        if let Some(channel) = self.channel.as_ref().filter(|_| clean)
            && say(channel, Pass::Drained).is_ok()
        {
            let _ = hear(channel, PATIENCE);
        }
    }

    /// Whether somebody else listens now.
    fn stand_by(&mut self, orders: &mpsc::Receiver<Command>) -> bool {
        let mut lonely = None;
        while !self.spared && self.patience > LAST_PATIENCE {
            if let Some(channel) = &self.channel {
                match channel.try_recv() {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(Some(_)) => {}
                    _ => self.channel = None,
                }
                if self.shown.elapsed() >= STAND_BY {
                    break;
                }
            } else {
                let since = *lonely.get_or_insert_with(Instant::now);
                // Whoever has not asked yet reads its configuration, and hangs up if it ends.
                if self.pupil.is_none() && since.elapsed() >= self.patience {
                    break;
                }
            }
            match orders.recv_timeout(PAUSE) {
                Ok(Command::Heir(channel)) => {
                    self.follow(channel);
                    return true;
                }
                Ok(Command::Again(channel)) => self.expect(channel),
                Ok(Command::Last) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.patience = LAST_PATIENCE;
                }
                _ => {}
            }
            let times = self.times;
            self.teach();
            if self.times > times && self.channel.is_some() {
                return true;
            }
        }
        false
    }

    fn tell_rest(&mut self, orders: &mpsc::Receiver<Command>) {
        let until = Instant::now() + FINISH_MAX;
        let mut lonely = None;
        while Instant::now() < until {
            self.teach();
            if self.said.is_none() {
                if !self.gather() {
                    break;
                }
                self.say();
            }
            let pause = if self.channel.is_some() {
                lonely = None;
                Duration::ZERO
            } else {
                // Whoever heard it is being replaced, or is dead: its successor is on its way, if there will be one.
                let since = *lonely.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.patience {
                    break;
                }
                PAUSE
            };
            match orders.recv_timeout(pause) {
                Ok(Command::Heir(channel)) => self.follow(channel),
                Ok(Command::Again(channel)) => self.expect(channel),
                Ok(Command::Last) => self.patience = LAST_PATIENCE,
                Err(mpsc::RecvTimeoutError::Disconnected) if self.channel.is_none() => break,
                _ if self.said.is_some() => self.confirmed(),
                _ => {}
            }
        }
    }
}

/// Where the connections of this process come from. `None`: some may bring another request, whose rules may ask for any
/// entry; or nobody knows, because a thread is busy.
fn clients(shared: &Shared) -> Option<BTreeSet<IpAddr>> {
    let (answer, answers) = mpsc::channel();
    for worker in &shared.workers {
        // A thread that has ended has no connections.
        let _ = worker.ask.send(Ask::Clients {
            answer: answer.clone(),
        });
    }
    drop(answer);
    let mut all = BTreeSet::new();
    loop {
        match answers.recv_timeout(LOOK_PATIENCE) {
            Ok(clients) if clients.idle => return None,
            Ok(clients) => all.extend(clients.addresses),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Some(all),
            Err(mpsc::RecvTimeoutError::Timeout) => return None,
        }
    }
}

/// The tables are kept for so long after the successor has begun to serve, in case it dies at once.
const COPY_KEPT: Duration = Duration::from_secs(10);
/// How often it is looked whether they are still needed, and how long a thread may take to say so.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
const LOOK_PATIENCE: Duration = Duration::from_millis(100);
/// What is counted is told this often.
const PAUSE: Duration = Duration::from_millis(20);
/// Entries of one message; a frame is at most 64 KiB long.
const ENTRIES_MAX: usize = 400;
/// About how many bytes of a frame they may take: the last of them may go beyond, totals need room too.
const ENTRIES_BYTES: usize = 24 * 1024;
/// How long the rest may take: a busy machine, and a worker that is being replaced, are no reason to lose it.
const FINISH_MAX: Duration = Duration::from_secs(20);
/// A process that took over has proved itself when it has served for so long.
const STAND_BY: Duration = Duration::from_secs(2);
/// How long another worker may take to come when everything is about to end: it can only have been on its way.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// At most so many bytes go over the channel for one entry.
fn weight(key: &Key, delta: &Delta) -> usize {
    let ops = delta.ops.iter().map(|(_, _, op)| match op {
        Op::Name(name) => OP_BYTES + name.len(),
        Op::Add(_) | Op::Set(_) => OP_BYTES,
    });
    ENTRY_BYTES + key.as_bytes().len() + ops.sum::<usize>()
}
/// Table, lengths, holders, flags.
const ENTRY_BYTES: usize = 32;
/// Data type, element, kind and a 64-bit number as varints.
const OP_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use remora_core::table::DataType;

    /// Long keys and wide arrays are what once could outgrow a frame.
    #[test]
    fn weights_cover_what_is_sent() {
        let wide: Vec<_> = (0..100)
            .map(|i| (DataType::Gpc, i, Op::Add(i64::MIN)))
            .collect();
        for (len, ops) in [(0, vec![]), (1_000, wide.clone()), (4, wide)] {
            let key = Key::from_stored(&vec![b'k'; len]);
            let delta = Delta {
                uses: i64::MIN,
                touched: true,
                ops,
            };
            let size = |entries: Vec<_>| {
                let drain = Drain {
                    seq: 1,
                    entries,
                    totals: Vec::new(),
                };
                Frame::Pass(Box::new(Pass::Drain(drain)))
                    .encode()
                    .expect("it fits")
                    .len()
            };
            let one = size(vec![convert::change(u16::MAX, &key, &delta)]) - size(Vec::new());
            assert!(one <= weight(&key, &delta), "{one} bytes of a key of {len}");
        }
    }
}
