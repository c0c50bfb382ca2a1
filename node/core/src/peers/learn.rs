//! Catching up after a start: whom to ask for everything, and when the node is ready.

use super::event::{Action, Event, ReadyWhy, SessionId};
use super::hub::Hub;
use super::messages::Reply;
use super::peer::{Answer, Dial};

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

impl Hub {
    /// Whether this node has nothing to teach yet.
    pub(super) fn is_newcomer(&self) -> bool {
        !self.ready && self.before.is_none()
    }

    /// Finds a teacher for tables that want one, and starts the journals that need not wait for one.
    pub(super) fn learn(&mut self, now: u64) {
        for table in 0..self.tables.len() {
            if self.learning(table) == Some(Learn::Wanting) {
                self.find_teacher(table, now);
            }
            let learn = self.learning(table);
            let ready = self.ready;
            let Some(shared) = self.tables.get(table) else {
                continue;
            };
            for (id, session) in &mut self.ins {
                // Who was born at the same time has only its own counts to give; others' journals wait, as the walk of
                // the teacher brings most of what they would.
                let waits = learn != Some(Learn::Done)
                    && !session.newcomer
                    && !(ready && learn != Some(Learn::From(*id)));
                if waits {
                    continue;
                }
                // Who says everything says which trackers it has: what others have said of them may be long past.
                if session.start(table, shared) == Some(0)
                    && let Some((lineage, store)) =
                        session.pusher().zip(self.stores.store(shared.id))
                    && store.highest(lineage) > 0
                {
                    store.forget_held(lineage);
                }
            }
        }
    }
    fn learning(&self, table: usize) -> Option<Learn> {
        self.tables.get(table).map(|shared| shared.learn)
    }

    fn find_teacher(&mut self, table: usize, now: u64) {
        // One that teaches another table already is as good as any, and then there is one less to be busy.
        let busy = |id: &SessionId| self.tables.iter().any(|t| t.learn == Learn::From(*id));
        let candidates = self.ins.iter().filter(|(_, s)| s.can_teach(table));
        let Some((&id, _)) = candidates.min_by_key(|(id, _)| (!busy(id), **id)) else {
            return;
        };
        let Some(shared) = self.tables.get_mut(table) else {
            return;
        };
        let name = shared.def.name.clone();
        let Some(session) = self.ins.get_mut(&id) else {
            return;
        };
        let Some(theirs) = session.ask_for_all(table, now) else {
            return;
        };
        shared.learn = Learn::From(id);
        session.replies.push_back(Reply::Teach { table: theirs });
        let node = session.node.clone();
        self.log(Event::Learning { node, table: name });
    }

    /// The teacher is through.
    pub(super) fn was_taught(&mut self, id: SessionId, table: usize, now: u64) {
        let Some(shared) = self.tables.get_mut(table) else {
            return;
        };
        if shared.learn == Learn::From(id) {
            shared.learn = Learn::Done;
            let name = shared.def.name.clone();
            let node = self
                .ins
                .get(&id)
                .map_or_else(String::new, |s| s.node.clone());
            self.log(Event::Taught { node, table: name });
        }
        self.learn(now);
        self.check_ready(now);
    }
    /// A session is gone: who learned from it has to find another teacher. What was merged stays; it proves nothing.
    pub(super) fn lost_teacher(&mut self, id: SessionId, now: u64) {
        for shared in &mut self.tables {
            if shared.learn == Learn::From(id) {
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
            ReadyWhy::Alone
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
        for shared in &mut self.tables {
            // A teacher that is under way may go on.
            if shared.learn == Learn::Wanting {
                shared.learn = Learn::Done;
            }
        }
        self.learn(now);
        self.act(Action::Ready);
        self.log(Event::Ready(why));
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
        self.peers.values().all(|peer| match peer.answer {
            Answer::Refused => matches!(peer.dial, Dial::Pause(_)),
            Answer::Newcomer | Answer::Myself | Answer::Duplicate => true,
            // It has dialed us and does not have the table, or had just started then: what it was taught since, its
            // teacher can teach us too.
            Answer::Teacher => peer.met.as_ref().is_some_and(|(_, lineage)| {
                self.ins
                    .values()
                    .any(|s| s.pusher() == Some(*lineage) && (s.newcomer || !s.matches(table)))
            }),
            Answer::None => self
                .ins
                .values()
                .any(|s| s.is_up() && s.newcomer && s.node == peer.name),
        })
    }
}
