//! Another process of this node continues the lineage: this hub falls silent, and that one's knows what this one knew.

use super::event::{Action, Ended, SessionId};
use super::hub::Hub;
use super::learn::Lack;
use super::limits::LEASE_MS;
use super::shared::Known;
use super::store::Store;
use crate::table::{Lineage, TableId};

/// What a hub knows of one table beside what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inheritance {
    /// Lineage, everything known up to, where reading is resumed, revision.
    pub known: Vec<(Lineage, u64, u64, u32)>,
    /// What others have acknowledged of this lineage's journal.
    pub acked: Vec<(Lineage, u64)>,
    /// Something that was read is not there: then `known` proves nothing, and a peer is asked for everything once more.
    pub lacks: bool,
    /// Entries had to go, or did not come in, for lack of room.
    pub crowded: bool,
}

impl Inheritance {
    /// Says that the table here does not hold what the one before read, or would have with the columns and the room of this one.
    pub fn void(&mut self) {
        self.known.clear();
        self.lacks = true;
    }
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
            let store = self.stores.store(shared.id);
            let inheritance = Inheritance {
                known: known
                    .map(|(lineage, k)| (*lineage, k.all, k.resumed_at(), k.revision))
                    .collect(),
                acked: shared
                    .acked
                    .iter()
                    .map(|(lineage, n)| (*lineage, *n))
                    .collect(),
                lacks: shared.lack == Lack::Everything,
                crowded: store.is_some_and(Store::is_crowded),
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
        if inheritance.lacks {
            shared.lack = Lack::Everything;
        }
        for (lineage, all, resume, revision) in &inheritance.known {
            let known = Known {
                all: *all,
                resume: *resume,
                revision: *revision,
                again: resume < all,
                limit: None,
            };
            shared.known.insert(*lineage, known);
        }
        shared.acked.extend(inheritance.acked.iter().copied());
    }
    /// Lineages that the other hub heard until a moment ago: they stay alive for a lease, though this one does not vouch for
    /// them before it has heard them.
    pub fn inherit_lives(&mut self, heard: &[(Lineage, String)], now: u64) {
        for (lineage, node) in heard {
            if let Some(life) = self.meet(*lineage, node, now) {
                life.inherited_until = now + LEASE_MS;
            }
        }
        self.refresh_lives(now);
    }
    /// Lineages that are alive, with the names of their nodes; not those of which this process only knows that from the one
    /// before it, or one reload after the other would keep a dead node alive.
    pub fn lives(&self) -> Vec<(Lineage, String)> {
        let known = self.lives.iter().filter(|(_, life)| life.is_known);
        known
            .map(|(lineage, life)| (*lineage, life.node.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::store::Stores;
    use super::{Hub, LEASE_MS, Store};
    use crate::peers::HubConfig;
    use crate::peers::messages::{Hello, Push, VERSION};
    use crate::table::{Key, Lineage, Lineages, TableId, Tag};

    struct NoTables;
    impl Stores for NoTables {
        fn store(&self, _: TableId) -> Option<&dyn Store> {
            None
        }
        fn write_tags(&self, _: TableId, _: &[(Key, Vec<Tag>)], _: u64) {}
    }

    const OTHER: Lineage = Lineage(7);

    fn hub(now: u64) -> Hub {
        let config = HubConfig {
            cluster: "c".into(),
            node: "a".into(),
            lineages: Arc::new(Lineages::new(Lineage(1))),
            newcomer: false,
            discovers: false,
            learn_timeout_ms: 0,
            sole: true,
            seed: 3,
        };
        Hub::new(config, Arc::new(NoTables), &[], now)
    }
    fn is_alive(hub: &Hub) -> bool {
        hub.lives.get(&OTHER).is_some_and(|life| life.alive)
    }

    #[test]
    fn reloads_do_not_keep_the_dead_alive() {
        let now = 100_000;
        let mut first = hub(now);
        first.greeted(OTHER, "b", now);
        assert_eq!(first.vouching, [OTHER]);
        let mut second = hub(now);
        second.inherit_lives(&first.lives(), now);
        second.tick(now + 2_000, now);
        assert!(is_alive(&second), "for a lease");
        assert_eq!(second.vouching, [], "it has not heard it");
        assert!(second.next_deadline(now + 2_000) <= now + LEASE_MS);
        let mut third = hub(now + 2_000);
        third.inherit_lives(&second.lives(), now + 2_000);
        third.tick(now + 2_000, now);
        assert!(!is_alive(&third), "the second one did not hear it either");
        second.tick(now + LEASE_MS, now);
        assert!(!is_alive(&second));
    }

    /// A later process says that the one before has died: it does not count, whoever has heard it, until it proves otherwise.
    #[test]
    fn who_is_said_to_be_over_does_not_count() {
        let now = 100_000;
        let mut hub = hub(now);
        hub.greeted(OTHER, "b", now);
        hub.greeted(Lineage(8), "b", now);
        hub.greeted(Lineage(9), "c", now);
        let id = hub.opened_in("b:1".into(), now);
        let hello = Hello {
            version: VERSION,
            cluster: "c".into(),
            node: "b".into(),
            lineage: Lineage(10),
            newcomer: true,
            mono_ms: now,
            wall_ms: now,
            tables: Vec::new(),
        };
        hub.handle_push(id, Push::Hello(hello), now);
        let heartbeat = |over: &[u64]| Push::Heartbeat {
            mono_ms: now,
            wall_ms: now,
            vouched: vec![OTHER],
            over: over.iter().map(|id| Lineage(*id)).collect(),
        };
        hub.handle_push(id, heartbeat(&[]), now);
        assert!(is_alive(&hub));
        hub.handle_push(id, heartbeat(&[OTHER.0]), now);
        assert!(
            !is_alive(&hub),
            "though it was heard, and somebody vouches for it"
        );
        assert_eq!(
            hub.vouching,
            [Lineage(9), Lineage(10)],
            "nor does another one of its name"
        );
        hub.tick(now + 10, now);
        assert!(!is_alive(&hub));
        hub.greeted(OTHER, "b", now + 20);
        assert!(is_alive(&hub), "it speaks");
    }

    /// One long sleep is forgiven; a process that is always late finds out all the same who is gone.
    #[test]
    fn silence_is_forgiven_once() {
        let now = 100_000;
        let mut hub = hub(now);
        hub.greeted(OTHER, "b", now);
        hub.tick(now, now);
        hub.tick(now + 40_000, now);
        assert!(is_alive(&hub), "what it said may be waiting");
        let mut at = now + 40_000;
        while is_alive(&hub) {
            at += 3_000;
            hub.tick(at, now);
        }
        assert!(at <= now + 40_000 + LEASE_MS + 3_000, "{at}");
    }
}
