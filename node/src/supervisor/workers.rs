//! Starting workers and connecting them with each other, and with processes of somebody else that come before or after
//! them; whose listening sockets are kept.

use std::os::fd::OwnedFd;

use super::links::Link;
use super::machine::{self, Event, Id};
use super::{Known, RELATIVES, Relative, Supervisor, now_ms};
use crate::handoff::channel::{Channel, Packet};
use crate::handoff::frames::{Begin, Frame};

impl Supervisor<'_> {
    pub(super) fn spawn(&mut self, id: Id) -> std::io::Result<u32> {
        let (ours, theirs) = Channel::pair()?;
        let link = Link::open(id, ours, self.to_inbox.clone())?;
        let pid = self.reaper.adopt(|| self.program.spawn_worker(theirs))?;
        link.send(Frame::hello());
        for packet in Packet::listeners(&self.duplicates) {
            link.send(packet);
        }
        // The worker that serves shows its tables to the new one.
        let serving = self.machine.workers.iter();
        let serving = serving
            .filter(|w| w.phase == machine::Phase::Serving)
            .find_map(|w| Some((w.id, self.known.get(&w.id)?.link.as_ref()?)));
        let taught_by = match serving {
            Some((teacher, there)) => {
                let (one, other) = Channel::pair()?;
                there.send(Packet::with(Frame::Teach, one.into()));
                link.send(Packet::with(Frame::Learn, other));
                Some(teacher)
            }
            None => self.remind(id, &link)?,
        };
        link.send(Frame::Begin(Begin {
            detach: self.start.detach,
            first: self.machine.is_first(),
            hard: self.machine.is_hard(),
            asks: true,
            ..Begin::default()
        }));
        let known = Known {
            link: Some(link),
            taught_by,
            ..Known::default()
        };
        self.known.insert(id, known);
        Ok(pid)
    }

    /// No worker serves. If one has died, the newest process that drains shows its tables once more. Its number.
    fn remind(&mut self, id: Id, link: &Link) -> std::io::Result<Option<Id>> {
        if self.machine.is_first() {
            return Ok(None);
        }
        let may = |number: &Id| self.in_vain.get(number).is_none_or(|n| *n < IN_VAIN_MAX);
        let draining = self.machine.workers.iter().rev();
        let mut draining = draining.filter(|w| w.phase == machine::Phase::Draining && may(&w.id));
        let own = draining.find_map(|w| Some((w.id, self.known.get(&w.id)?.link.as_ref()?)));
        // The first one handed over to this supervisor.
        let relative = self.relatives.iter_mut().find(|(number, _)| may(number));
        let (one, other) = Channel::pair()?;
        let again = Packet::with(Frame::TeachAgain, one.into());
        let number = match (own, relative) {
            (Some((number, there)), _) => {
                there.send(again);
                number
            }
            (None, Some((number, relative))) => {
                relative.way.send(again);
                relative.tells = Some(id);
                *number
            }
            (None, None) => return Ok(None),
        };
        link.send(Packet::with(Frame::LearnAgain, other));
        Ok(Some(number))
    }
    /// That worker has not come to serve. Nobody is asked for ever for what may be the reason.
    pub(super) fn forget_taught(&mut self, taught_by: Option<Id>) {
        if let Some(number) = taught_by {
            *self.in_vain.entry(number).or_default() += 1;
        }
    }

    /// What this worker listens on is kept from now on, and nothing else: before an old worker serves what waits in a queue
    /// for the last time and closes it, this process must have let go of it.
    pub(super) fn adopt(&mut self, id: Id) {
        for (_, known) in self.known.iter_mut().filter(|(other, _)| **other != id) {
            let offer = std::mem::take(&mut known.offer);
            known
                .left_behind
                .extend(offer.iter().map(|(info, _)| info.id));
        }
        if let Some(known) = self.known.get_mut(&id) {
            self.duplicates = known.offer.clone();
            self.startup_logs = std::mem::take(&mut known.said);
            let files = std::mem::take(&mut known.files);
            if let Some(watch) = &mut self.watch {
                watch.follow(files, now_ms());
            }
        }
    }

    /// Another process is ready to take over from this worker. It is told that everything is its own, or goes without.
    pub(super) fn leave(&mut self, id: Id, orphans: Vec<u64>, to: Option<OwnedFd>) {
        let serves = |w: &&machine::Worker| w.id == id && w.phase == machine::Phase::Serving;
        // Also when everything is about to stop: that waits for it.
        let may = self.machine.workers.iter().any(|w| serves(&w));
        match to.filter(|_| may).map(|fd| self.yield_to(id, fd)) {
            Some(Ok(())) => {
                self.machine.handle(Event::Left { id }, now_ms());
                self.parked.watch = self.watch.take();
                self.execute_ms = None;
                self.tell(id, Frame::Retire { orphans });
            }
            // It is gone.
            Some(Err(_)) | None => self.tell(id, Frame::Resume),
        }
    }

    pub(super) fn yield_to(&mut self, id: Id, fd: OwnedFd) -> std::io::Result<()> {
        let to = Channel::new(fd)?;
        for relative in self.relatives.values() {
            let way = relative.way.channel().as_fd().try_clone_to_owned()?;
            to.try_send(&Packet::with(Frame::Kin, way))?;
        }
        let draining = self.machine.workers.iter();
        let draining = draining.filter(|w| w.phase == machine::Phase::Draining && w.id != id);
        let mut ways = Vec::new();
        for worker in draining {
            let (one, other) = Channel::pair()?;
            to.try_send(&Packet::with(Frame::Kin, one.into()))?;
            ways.push((worker.id, other));
        }
        to.try_send(&Frame::Yours.into())?;
        self.parked.relatives = std::mem::take(&mut self.relatives);
        for (id, way) in ways {
            if let Some(link) = self.known.get(&id).and_then(|k| k.link.as_ref()) {
                link.send(Packet::with(Frame::Kin, way));
            }
        }
        Ok(())
    }

    /// The process that has been told that everything is its own has ended before it accepted, and nobody replaces it. This
    /// worker, which has said once more what it listens on, serves on.
    pub(super) fn come_back(&mut self, id: Id) {
        if !self.machine.has_left() || self.machine.is_stopping() {
            return;
        }
        self.machine.handle(Event::Back { id }, now_ms());
        if let Some(known) = self.known.get_mut(&id) {
            self.duplicates = known.offer.clone();
            // That one tells the dead one now what it counts.
            known.taught_by = None;
        }
        self.watch = self.parked.watch.take();
        if let Some(watch) = &mut self.watch {
            watch.stir(now_ms());
        }
        self.relatives = std::mem::take(&mut self.parked.relatives);
        for relative in self.relatives.values_mut() {
            relative.tells = None;
        }
        self.gather(id);
    }

    /// Keeps the way to a process of somebody else that drains. Its number.
    pub(super) fn relate(&mut self, fd: OwnedFd, tells: Option<Id>) -> Option<Id> {
        let last = self.relatives.keys().next_back();
        let number = last
            .map_or(RELATIVES, |last| last.wrapping_add(1))
            .max(RELATIVES);
        let way = Channel::new(fd)
            .and_then(|way| Link::open(number, way, self.to_inbox.clone()))
            .ok()?;
        self.relatives.insert(number, Relative { way, tells });
        Some(number)
    }

    /// From now on that process tells this worker what it counts.
    pub(super) fn introduce(&mut self, number: Id, id: Id) {
        let link = self.known.get(&id).and_then(|k| k.link.as_ref());
        let relative = self.relatives.get_mut(&number);
        let (Some(link), Some(relative), Ok((one, other))) = (link, relative, Channel::pair())
        else {
            return;
        };
        link.send(Packet::with(Frame::Child, other));
        relative.way.send(Packet::with(Frame::Heir, one.into()));
        relative.tells = Some(id);
    }

    /// Workers that drain tell this one from now on what they count.
    pub(super) fn gather(&mut self, id: Id) {
        let others = self.relatives.iter();
        let others = others.filter(|(_, r)| r.tells != Some(id));
        for number in others.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.introduce(number, id);
        }
        let Some(heir) = self.known.get(&id) else {
            return;
        };
        let Some(link) = &heir.link else { return };
        let draining = self.machine.workers.iter();
        let draining = draining.filter(|w| {
            matches!(w.phase, machine::Phase::Draining) && Some(w.id) != heir.taught_by
        });
        for worker in draining {
            let there = self.known.get(&worker.id).and_then(|k| k.link.as_ref());
            let (Some(there), Ok((one, other))) = (there, Channel::pair()) else {
                continue;
            };
            link.send(Packet::with(Frame::Child, other));
            there.send(Packet::with(Frame::Heir, one.into()));
        }
    }

    /// The listening sockets of an old worker that nobody took over.
    pub(super) fn orphans_of(&mut self, id: Id) -> Vec<u64> {
        let kept = |id: u64| self.duplicates.iter().any(|(info, _)| info.id == id);
        let Some(known) = self.known.get_mut(&id) else {
            return Vec::new();
        };
        let mut all = std::mem::take(&mut known.left_behind);
        all.sort_unstable();
        all.dedup();
        all.retain(|id| !kept(*id));
        all
    }
}

/// So often may workers fail that one and the same process has shown its tables to.
const IN_VAIN_MAX: u8 = 3;
