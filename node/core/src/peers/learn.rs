//! Catching up after a start: whom to ask for everything, and when the node is ready.

use super::event::{Action, Event, Learned, ReadyWhy, SessionId};
use super::hub::Hub;
use super::messages::Reply;
use super::peer::{Answer, Dial, Peer};
use super::receive::InSession;

/// How far the learning of a table has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learn {
    /// No teacher yet.
    Wanting,
    /// This session's pusher walks us through its table.
    From(SessionId),
    /// It was learned, or there is nobody to learn it from.
    Done,
}

/// What a process that goes on lacks of what the one before had read, for lack of columns or of room then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    Nothing,
    /// A peer that itself lacks columns was through with showing everything: one that has them all is asked, too.
    Columns,
    /// Nobody was.
    Everything,
}

/// What one peer teaches, for people.
#[derive(Clone, Debug)]
pub(super) struct Lesson {
    node: String,
    begun_at: u64,
    /// How many tables it was asked for, and how many it was through with.
    asked: usize,
    done: usize,
    /// Entries in the latter.
    entries: usize,
    /// Rows that came of the table it has not come to the end of.
    pub(super) rows: u64,
}

impl Lesson {
    fn over(&self, late_ms: u64, now: u64) -> Event {
        Event::Taught {
            node: self.node.clone(),
            tables: self.done,
            of: self.asked,
            entries: self.entries,
            rows: self.rows,
            ms: now.saturating_sub(self.begun_at),
            late_ms,
        }
    }
}

impl Hub {
    /// Whether this node has nothing to teach yet.
    pub(super) fn is_newcomer(&self) -> bool {
        !self.ready && self.before.is_none()
    }

    /// Finds a teacher for tables that want one, and starts the journals that need not wait for one.
    pub(super) fn learn(&mut self, now: u64) {
        for table in 0..self.tables.len() {
            self.learn_table(table, now);
        }
    }
    fn learn_table(&mut self, table: usize, now: u64) {
        if self.learning(table) == Some(Learn::Wanting) {
            self.find_teacher(table, now);
        }
        let learn = self.learning(table);
        let ready = self.ready;
        let Some(shared) = self.tables.get(table) else {
            return;
        };
        for (id, session) in &mut self.ins {
            // Who was born at the same time has only its own counts to give; others' journals wait, as the walk of the
            // teacher brings most of what they would.
            let waits = learn != Some(Learn::Done)
                && !session.newcomer
                && !(ready && learn != Some(Learn::From(*id)));
            if waits {
                continue;
            }
            // Who says everything says which trackers it has: what others have said of them may be long past.
            if session.start(table, shared) == Some(0)
                && let Some((lineage, store)) = session.pusher().zip(self.stores.store(shared.id))
                && store.highest(lineage) > 0
            {
                store.forget_held(lineage);
            }
        }
    }
    fn learning(&self, table: usize) -> Option<Learn> {
        self.tables.get(table).map(|shared| shared.learn)
    }

    fn find_teacher(&mut self, table: usize, now: u64) {
        // One that teaches another table already is as good as any, and then there is one less to be busy.
        let busy = |id: &SessionId| self.lessons.contains_key(id);
        let candidates = self.ins.iter().filter(|(_, s)| s.can_teach(table));
        // Who offers the lineage of one that has ended has all of it.
        let offers = self.claim.as_ref().map(|claim| claim.from);
        let rank = |id: &SessionId, s: &InSession| (s.pusher() != offers, !busy(id), *id);
        let Some((&id, _)) = candidates.min_by_key(|(id, s)| rank(id, s)) else {
            return;
        };
        let Some(shared) = self.tables.get_mut(table) else {
            return;
        };
        let Some(session) = self.ins.get_mut(&id) else {
            return;
        };
        let Some(theirs) = session.ask_for_all(table, now) else {
            return;
        };
        shared.learn = Learn::From(id);
        if let (Some(store), Some(taught)) = (self.stores.store(shared.id), session.table_of(table))
        {
            store.expect_entries(usize::try_from(taught.entries).unwrap_or(usize::MAX));
        }
        session.replies.push_back(Reply::Teach { table: theirs });
        let lesson = self.lessons.entry(id).or_insert_with(|| Lesson {
            node: session.node.clone(),
            begun_at: now,
            asked: 0,
            done: 0,
            entries: 0,
            rows: 0,
        });
        lesson.asked += 1;
    }

    /// Asks a peer for everything where this process lacks what the one before had read. Journals are read from their
    /// beginnings all the same: this brings what peers hold of others, of the dead, and of this node's own.
    pub(super) fn learn_again(&mut self, now: u64) {
        for (own, shared) in self.tables.iter().enumerate() {
            if shared.lack == Lack::Nothing || shared.learn != Learn::Done {
                continue;
            }
            let tables = self.ins.values().filter_map(|s| s.table_of(own));
            if tables.filter_map(|t| t.asked.as_ref()).any(|a| a.all) {
                continue;
            }
            let partial = |session: &InSession| session.table_of(own).is_some_and(|t| t.partial);
            // Who was new when it came has learned by now, or will not.
            let patience_ms = self.config.learn_timeout_ms.min(NEWCOMER_LEARNS_MS);
            let knows = |session: &InSession| {
                !session.newcomer || now >= session.opened_at.saturating_add(patience_ms)
            };
            let candidates = self.ins.iter_mut().filter(|(_, session)| {
                let free = session.table_of(own).is_some_and(|t| t.asked.is_none());
                let helps = shared.lack == Lack::Everything || !partial(session);
                session.is_up() && knows(session) && free && helps
            });
            let best = candidates.min_by_key(|(id, s)| (partial(s), s.newcomer, **id));
            let Some((_, session)) = best else {
                continue;
            };
            if let Some(theirs) = session.ask_for_all(own, now) {
                session.replies.push_back(Reply::Teach { table: theirs });
            }
        }
    }

    /// Since when connections have been accepted by tables that were not learned: 0, if they were not.
    fn late_ms(&self, now: u64) -> u64 {
        let timeout_at = self.started_at + self.config.learn_timeout_ms;
        if self.untaught {
            now.saturating_sub(timeout_at).max(1)
        } else {
            0
        }
    }
    /// Who teaches now, with the rows that came of the table under way.
    pub(super) fn teachers(&self) -> Vec<(String, u64)> {
        let lessons = self.lessons.values();
        lessons.map(|l| (l.node.clone(), l.rows)).collect()
    }

    /// The teacher is through.
    pub(super) fn was_taught(&mut self, id: SessionId, table: usize, now: u64) {
        let Some(shared) = self.tables.get_mut(table) else {
            return;
        };
        if shared.learn == Learn::From(id) {
            shared.learn = Learn::Done;
            shared.taught = true;
            let store = self.stores.store(shared.id);
            let entries = store.map_or(0, |store| store.entries(now));
            self.entries_learned += entries as u64;
            let late_ms = self.late_ms(now);
            if let Some(lesson) = self.lessons.get_mut(&id) {
                lesson.done += 1;
                lesson.entries += entries;
                lesson.rows = 0;
                if lesson.done == lesson.asked {
                    let over = lesson.over(late_ms, now);
                    self.lessons.remove(&id);
                    self.log(over);
                }
            }
        }
        self.learn_table(table, now);
        self.check_ready(now);
    }
    /// A session is gone: who learned from it has to find another teacher. What was merged stays; it proves nothing.
    pub(super) fn lost_teacher(&mut self, id: SessionId, now: u64) {
        if let Some(lesson) = self.lessons.remove(&id) {
            self.log(lesson.over(self.late_ms(now), now));
        }
        for shared in &mut self.tables {
            if shared.learn == Learn::From(id) {
                self.forsaken = true;
                shared.learn = if self.ready {
                    Learn::Done
                } else {
                    Learn::Wanting
                };
            }
        }
        self.learn(now);
    }

    /// Whether the node is ready by now, and if so, says so.
    pub(super) fn check_ready(&mut self, now: u64) {
        let over = now >= self.started_at + self.config.learn_timeout_ms;
        if self.ready || !(self.rejoining.is_empty() || over) {
            return;
        }
        let why = if self.tables.iter().all(|t| t.learn == Learn::Done) && !self.tables.is_empty() {
            ReadyWhy::Taught
        } else if (0..self.tables.len()).all(|table| self.nobody_teaches(table)) {
            if self.forsaken {
                ReadyWhy::Forsaken
            } else {
                ReadyWhy::Alone
            }
        } else if over {
            ReadyWhy::TimedOut
        } else {
            return;
        };
        self.succeed(why, now);
        // Closing sessions may have come here already.
        if !self.ready && (self.rejoining.is_empty() || over) {
            self.become_ready(why, now);
        }
    }
    pub(super) fn become_ready(&mut self, why: ReadyWhy, now: u64) {
        self.ready = true;
        self.untaught = matches!(why, ReadyWhy::TimedOut | ReadyWhy::Forsaken);
        let learned = self.learned();
        for shared in &mut self.tables {
            // A teacher that is under way may go on.
            if shared.learn == Learn::Wanting {
                shared.learn = Learn::Done;
            }
        }
        self.learn(now);
        self.act(Action::Ready);
        self.log(Event::Ready { why, learned });
    }

    fn learned(&self) -> Learned {
        let mut awaited = Vec::new();
        for lesson in self.lessons.values() {
            let (left, node) = (lesson.asked - lesson.done, &lesson.node);
            let rows = match lesson.rows {
                0 => String::new(),
                rows => format!(", {rows} rows of that have come"),
            };
            awaited.push(format!("peer {node} (is not through with {left}{rows})"));
        }
        let mut tables = 0..self.tables.len();
        let wanting = tables.find(|table| self.learning(*table) == Some(Learn::Wanting));
        if let Some(table) = wanting {
            if self.discovering {
                awaited.push("names that are not found yet".to_owned());
            }
            for peer in self.peers.values().filter(|p| self.may_teach(p, table)) {
                let why = match (peer.answer, &peer.last_error) {
                    (Answer::Teacher, _) => "it has opened no session to this node",
                    (_, Some(error)) => error,
                    _ => "no answer",
                };
                awaited.push(format!("peer {} ({why})", peer.name));
            }
        }
        if awaited.len() > AWAITED_MAX {
            let more = awaited.split_off(AWAITED_MAX).len();
            awaited.push(format!("{more} more"));
        }
        Learned {
            tables: self.tables.iter().filter(|shared| shared.taught).count(),
            of: self.tables.len(),
            entries: self.entries_learned,
            awaited,
            timeout_ms: self.config.learn_timeout_ms,
            under_way: !self.lessons.is_empty(),
        }
    }

    /// Whether nobody can be asked about this table: every peer refuses, is as new as we are, does not have the table,
    /// or the table is learned already.
    fn nobody_teaches(&self, table: usize) -> bool {
        match self.learning(table) {
            Some(Learn::Done) | None => return true,
            Some(Learn::From(_)) => return false,
            Some(Learn::Wanting) => {}
        }
        if self.discovering || self.ins.values().any(|s| s.can_teach(table)) {
            return false;
        }
        !self.peers.values().any(|peer| self.may_teach(peer, table))
    }
    /// Whether it is too early to say that this peer will not teach the table.
    fn may_teach(&self, peer: &Peer, table: usize) -> bool {
        match peer.answer {
            Answer::Refused => !matches!(peer.dial, Dial::Pause(_)),
            Answer::Newcomer | Answer::Myself | Answer::Duplicate => false,
            // It has dialed us and does not have the table, or had just started then: what it was taught since, its
            // teacher can teach us too.
            Answer::Teacher => !peer.met.as_ref().is_some_and(|(_, lineage)| {
                self.ins
                    .values()
                    .any(|s| s.pusher() == Some(*lineage) && (s.newcomer || !s.matches(table)))
            }),
            Answer::None => !self
                .ins
                .values()
                .any(|s| s.is_up() && s.newcomer && s.node == peer.name),
        }
    }
}

/// Who is awaited when the time to learn is over, as far as it is told.
const AWAITED_MAX: usize = 8;
/// A node that was new when its session began has learned after so long, or has given it up.
const NEWCOMER_LEARNS_MS: u64 = 10_000;
