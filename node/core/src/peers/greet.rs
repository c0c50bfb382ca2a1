//! The first message of a peer: who it is, whether it may stay, and which tables both have.

use std::collections::BTreeMap;

use super::event::{Ended, Event, SessionId};
use super::hub::Hub;
use super::limits::{HEARTBEAT_MS, NAME_MAX, SHORT_BREAK_MS, TABLES_MAX, TURNED_AWAY_MAX};
use super::matching::{compare, lacking};
use super::messages::{Hello, Refusal, Reply, TableAnswer, VERSION, Welcome};
use super::receive::{InSession, InTable, Phase};
use super::replies::skew;
use crate::table::LINEAGES_MAX;

/// Whether a text that a peer sent can be the name of a node or table: it is shown to people.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX && !text.chars().any(char::is_control)
}

impl Hub {
    /// A pusher says who it is: turns it away, or agrees with it on tables.
    pub(super) fn greet(&mut self, id: SessionId, hello: Hello, now: u64) -> Result<(), Ended> {
        if hello.tables.len() > TABLES_MAX {
            return Err(Ended::Protocol("too many tables"));
        }
        if !is_name(&hello.node) || !hello.tables.iter().all(|table| is_name(&table.name)) {
            return Err(Ended::Protocol("a name that cannot be one"));
        }
        let refusal = if hello.version != VERSION {
            Some((
                Refusal::Version,
                format!("version {} spoken, {VERSION} expected", hello.version),
            ))
        } else if hello.lineage == self.own {
            Some((Refusal::Myself, "the dialer reached itself".to_owned()))
        } else if hello.cluster != self.config.cluster {
            let text = format!("this is '{}', not '{}'", self.config.cluster, hello.cluster);
            Some((Refusal::Cluster, text))
        } else if self.stopping {
            Some((Refusal::Stopping, "this node stops".to_owned()))
        } else if self.greeted(hello.lineage, &hello.node, now).is_none() {
            let text = format!("all {LINEAGES_MAX} places for lives of nodes are taken");
            Some((Refusal::Lineages, text))
        } else {
            None
        };
        if let Some((why, text)) = refusal {
            self.counters.sessions_refused += 1;
            if let Some(session) = self.ins.get_mut(&id) {
                session.phase = Phase::Refused;
                session.node = hello.node;
                session.replies.push_back(Reply::Refuse {
                    why,
                    text: text.clone(),
                });
                session.ending = Some(Ended::Refused(why, text));
            }
            return Ok(());
        }
        // A peer that dials again knows better than we do what became of its old stream.
        let older: Vec<SessionId> = self
            .ins
            .iter()
            .filter(|(other, s)| **other != id && s.pusher() == Some(hello.lineage))
            .map(|(other, _)| *other)
            .collect();
        for older in older {
            self.replace(older, now);
        }
        self.agree(id, hello, now);
        Ok(())
    }

    /// Gives a session up for a newer one and says so: if the peer has two addresses for us, it should leave one alone.
    fn replace(&mut self, id: SessionId, now: u64) {
        let Some(remote) = self.ins.get(&id).map(|session| session.remote.clone()) else {
            return;
        };
        self.end(id, Ended::Replaced, now, false);
        let why = Refusal::Duplicate;
        let mut session = InSession::new(remote, now);
        session.phase = Phase::Refused;
        session.replies.push_back(Reply::Refuse {
            why,
            text: "there is a newer session".to_owned(),
        });
        session.ending = Some(Ended::Replaced);
        self.ins.insert(id, session);
    }

    /// Compares tables, says welcome, and asks for what is needed.
    fn agree(&mut self, id: SessionId, hello: Hello, now: u64) {
        let mut theirs = vec![None; self.tables.len()];
        let mut tables = Vec::with_capacity(hello.tables.len());
        let named = self.tables.iter().enumerate();
        let named: BTreeMap<String, usize> =
            named.map(|(own, t)| (t.def.name.clone(), own)).collect();
        let mut answers = Vec::with_capacity(hello.tables.len());
        for (number, table) in hello.tables.into_iter().enumerate() {
            let own = named.get(&table.name).copied();
            let ours = own.and_then(|own| self.tables.get(own));
            let here = (&self.config.node[..], ours.map(|t| &t.def));
            let answer = compare((&hello.node, &table), here);
            // A second table of the same name has no counterpart left.
            let own = own.filter(|&own| answer.matched && theirs.get(own) == Some(&None));
            if let Some(place) = own.and_then(|own| theirs.get_mut(own)) {
                *place = Some(number as u32);
            }
            let partial =
                ours.is_some_and(|ours| !lacking(&table.columns, &ours.def.columns).is_empty());
            self.mismatched(hello.lineage, &table.name, &answer.mismatches);
            tables.push(InTable {
                own,
                name: table.name,
                partial,
                columns: table.columns,
                entries: table.entries,
                mismatches: answer.mismatches.clone(),
                ..InTable::default()
            });
            answers.push(TableAnswer {
                matched: own.is_some(),
                ..answer
            });
        }
        // What it does not share any more it says nothing of: neither do its trackers count, nor would anybody end them.
        for (shared, theirs) in self.tables.iter().zip(&theirs) {
            if theirs.is_none()
                && let Some(store) = self.stores.store(shared.id)
                && store.highest(hello.lineage) > 0
            {
                store.forget_held(hello.lineage);
            }
        }
        self.estates.retain(|e| e.lineage != hello.lineage);
        let newcomer = hello.newcomer.then_some(&hello.node);
        let estate = newcomer.and_then(|node| self.estate_for(node, &theirs));
        let welcome = Welcome {
            version: VERSION,
            cluster: self.config.cluster.clone(),
            node: self.config.node.clone(),
            lineage: self.own,
            newcomer: self.is_newcomer(),
            mono_ms: now,
            wall_ms: self.wall_ms(now),
            tables: answers,
            estate,
        };
        let offset = self.wall_offset_ms;
        let Some(session) = self.ins.get_mut(&id) else {
            return;
        };
        session.phase = Phase::Up;
        session.node.clone_from(&hello.node);
        session.lineage = hello.lineage;
        session.newcomer = hello.newcomer;
        session.tables = tables;
        session.theirs = theirs;
        session.skew_ms = skew(hello.wall_ms, now, offset);
        session.delay.excess_ms(hello.mono_ms, now);
        session.heartbeat_at = now + HEARTBEAT_MS;
        session.replies.push_back(Reply::Welcome(welcome));
        let remote = session.remote.clone();
        self.turned_away.remove(&hello.node);
        let from_start =
            hello.newcomer || self.taught_at.is_some_and(|at| now <= at + SHORT_BREAK_MS);
        let life = self.lives.get_mut(&hello.lineage);
        let anew = life.as_ref().is_none_or(|life| life.comes_anew(now));
        if life.is_some_and(|life| life.feeds(from_start, now)) {
            for shared in &mut self.tables {
                shared.read_again(hello.lineage);
            }
        }
        self.log(Event::Up {
            node: hello.node.clone(),
            lineage: hello.lineage,
            incoming: true,
        });
        self.learn(now);
        self.learn_again(now);
        if anew {
            self.ask_too(id);
        }
        self.ask_again(now);
        self.dial_back(&hello.node, hello.lineage, hello.newcomer, &remote, now);
        self.check_ready(now);
    }

    /// Whether somebody was not turned away for the same reason the last time. `who`: a node, or an address, of which the
    /// port does not matter.
    pub(super) fn is_first_refusal(&mut self, who: &str, why: &Ended) -> bool {
        let who = match who.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => who,
        };
        let why = why.to_string();
        if self.turned_away.get(who) == Some(&why) {
            return false;
        }
        if self.turned_away.len() >= TURNED_AWAY_MAX {
            self.turned_away.pop_first();
        }
        self.turned_away.insert(who.to_owned(), why);
        true
    }
}
