//! Another process of this node continues the lineage: this hub falls silent, and that one's knows what this one knew.

use super::event::{Action, Ended, SessionId};
use super::hub::{Hub, Known};
use crate::table::{Lineage, TableId};

/// What a hub knows of one table beside what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inheritance {
    /// Lineage, everything known up to, where reading is resumed, revision.
    pub known: Vec<(Lineage, u64, u64, u32)>,
    /// What others have acknowledged of this lineage's journal.
    pub acked: Vec<(Lineage, u64)>,
}

impl Hub {
    /// From now on nothing is sent, merged or stamped. Streams are closed without a goodbye: the peers will hear from the
    /// process that goes on. Shows what it needs to know.
    pub fn suspend(&mut self) -> Vec<(TableId, Inheritance)> {
        self.suspended = true;
        let sessions: Vec<SessionId> = self.outs.keys().chain(self.ins.keys()).copied().collect();
        for id in sessions {
            self.act(Action::Close(id, Ended::Stopping));
        }
        let tables = self.tables.iter().map(|shared| {
            let known = shared.known.iter();
            let inheritance = Inheritance {
                known: known
                    .map(|(lineage, k)| (*lineage, k.all, k.resumed_at(), k.revision))
                    .collect(),
                acked: shared
                    .acked
                    .iter()
                    .map(|(lineage, n)| (*lineage, *n))
                    .collect(),
            };
            (shared.id, inheritance)
        });
        tables.collect()
    }
    /// Whether another process goes on.
    pub fn is_suspended(&self) -> bool {
        self.suspended
    }
    /// The other process did not take over: this one goes on where it was.
    pub fn resume(&mut self, now: u64) {
        if !self.suspended {
            return;
        }
        self.suspended = false;
        let sessions: Vec<SessionId> = self.outs.keys().chain(self.ins.keys()).copied().collect();
        for id in sessions {
            self.closed(id, "interrupted", now);
        }
    }
    /// Continues what another hub has known.
    pub fn inherit(&mut self, table: TableId, inheritance: &Inheritance) {
        let Some(shared) = self.tables.iter_mut().find(|shared| shared.id == table) else {
            return;
        };
        for (lineage, all, resume, revision) in &inheritance.known {
            let known = Known {
                all: *all,
                resume: *resume,
                revision: *revision,
                limit: None,
            };
            shared.known.insert(*lineage, known);
        }
        shared.acked.extend(inheritance.acked.iter().copied());
    }
    /// Lineages that the other hub heard until a moment ago: they stay alive for a lease.
    pub fn inherit_lives(&mut self, heard: &[(Lineage, String)], now: u64) {
        for (lineage, node) in heard {
            if let Some(life) = self.meet(*lineage, node, now) {
                life.heard_at = Some(now);
            }
        }
        self.refresh_lives(now);
    }
    /// Lineages that are alive, with the names of their nodes.
    pub fn lives(&self) -> Vec<(Lineage, String)> {
        let alive = self.lives.iter().filter(|(_, life)| life.alive);
        alive
            .map(|(lineage, life)| (*lineage, life.node.clone()))
            .collect()
    }
}
