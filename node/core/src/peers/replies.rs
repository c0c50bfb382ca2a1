//! What comes back on a stream that this node dialed.

use std::collections::VecDeque;

use super::event::{Ended, Event, SessionId};
use super::hub::Hub;
use super::limits::{WALKS_MAX, WANT_KEYS};
use super::messages::{Refusal, Reply, VERSION, Welcome};
use super::push::{OutSession, Phase, Remote, Walk};
use super::store::{Store, WalkCursor};
use crate::table::{LINEAGES_MAX, Lineage};

impl Hub {
    /// A reply arrived. One that makes no sense closes the session.
    pub fn handle_reply(&mut self, id: SessionId, reply: Reply, now: u64) {
        if self.suspended {
            return;
        }
        let Some(out) = self.outs.get_mut(&id) else {
            return;
        };
        if out.phase == Phase::Left {
            return;
        }
        out.heard_at = now;
        let remote = out.remote.as_ref().map(|r| r.lineage);
        if let Some(lineage) = remote {
            self.hear(lineage, now);
        }
        if let Err(why) = self.reply(id, reply, now) {
            self.counters.note_fault(&why);
            self.end(id, why, now, true);
        }
    }
    fn reply(&mut self, id: SessionId, reply: Reply, now: u64) -> Result<(), Ended> {
        let Some(out) = self.outs.get_mut(&id) else {
            return Ok(());
        };
        match reply {
            Reply::Welcome(welcome) if out.phase == Phase::HelloSent => {
                return self.welcomed(id, welcome, now);
            }
            Reply::Refuse { why, text } if out.phase != Phase::Opened => {
                return Err(Ended::Refused(why, text));
            }
            Reply::Heartbeat { wall_ms, .. } if out.phase == Phase::Up => {
                out.skew_ms = Some(skew(wall_ms, now, self.wall_offset_ms));
            }
            Reply::Goodbye => return Err(Ended::PeerStops),
            Reply::Start { table, after } => self.start_journal(id, table, after)?,
            Reply::Ack { table, upto } => self.acknowledged(id, table, upto)?,
            Reply::Teach { table } => out.ask(table, None)?,
            Reply::Gap { table, after } => {
                if after.len() > LINEAGES_MAX {
                    return Err(Ended::Protocol("gap of too many lineages"));
                }
                out.ask(table, Some(after.into()))?;
            }
            Reply::Want { table, keys } => {
                let table = out.agreed(table)?;
                let count = keys.len();
                if count > WANT_KEYS || !out.asked(table, keys) {
                    return Err(Ended::Protocol("asks about too many keys"));
                }
                self.counters.keys_wanted_by_peers += count as u64;
            }
            Reply::Welcome(_) | Reply::Refuse { .. } | Reply::Heartbeat { .. } => {
                return Err(Ended::Protocol("reply out of place"));
            }
        }
        Ok(())
    }

    fn welcomed(&mut self, id: SessionId, welcome: Welcome, now: u64) -> Result<(), Ended> {
        if welcome.version != VERSION {
            let text = format!("it speaks version {}", welcome.version);
            return Err(Ended::Refused(Refusal::Version, text));
        }
        if !super::greet::is_name(&welcome.node) {
            return Err(Ended::Protocol("a name that cannot be one"));
        }
        if welcome.lineage == self.own {
            let text = "answered with our own lineage".to_owned();
            return Err(Ended::Refused(Refusal::Myself, text));
        }
        if welcome.cluster != self.config.cluster {
            let text = format!("it belongs to '{}'", welcome.cluster);
            return Err(Ended::Refused(Refusal::Cluster, text));
        }
        if welcome.tables.len() > self.tables.len() {
            return Err(Ended::Protocol(
                "welcome answers for tables that nobody has",
            ));
        }
        if self.greeted(welcome.lineage, &welcome.node, now).is_none() {
            let text = "no room for its lineage".to_owned();
            return Err(Ended::Refused(Refusal::Lineages, text));
        }
        // The receiver has closed the older of two sessions from one lineage, so it is the older one that has to go.
        let same = |other: &OutSession| {
            other
                .remote
                .as_ref()
                .is_some_and(|r| r.lineage == welcome.lineage)
        };
        let older: Vec<SessionId> = self
            .outs
            .iter()
            .filter(|(other, out)| **other != id && same(out))
            .map(|(other, _)| *other)
            .collect();
        let Some(out) = self.outs.get_mut(&id) else {
            return Ok(());
        };
        out.phase = Phase::Up;
        out.heartbeat_at = now;
        out.skew_ms = Some(skew(welcome.wall_ms, now, self.wall_offset_ms));
        out.remote = Some(Remote {
            node: welcome.node.clone(),
            lineage: welcome.lineage,
        });
        let mut differing = Vec::new();
        for ((table, answer), shared) in out.tables.iter_mut().zip(welcome.tables).zip(&self.tables)
        {
            table.agreed = answer.matched;
            let texts: Vec<String> = answer
                .mismatches
                .iter()
                .take(MISMATCHES_MAX)
                .map(|t| shown(t))
                .collect();
            differing.push((shared.def.name.clone(), texts.clone()));
            table.mismatches = texts;
        }
        let peer = out.peer;
        self.log(Event::Up {
            node: welcome.node.clone(),
            lineage: welcome.lineage,
            incoming: false,
        });
        for (table, texts) in differing {
            self.mismatched(welcome.lineage, &table, &texts);
        }
        if let Some(estate) = &welcome.estate {
            self.offered(welcome.lineage, estate);
        }
        self.peer_answered(peer, &welcome.node, welcome.lineage, welcome.newcomer);
        for older in older {
            self.end(older, Ended::Duplicate, now, true);
        }
        self.offer_again(id);
        self.check_ready(now);
        Ok(())
    }

    fn start_journal(&mut self, id: SessionId, table: u32, after: u64) -> Result<(), Ended> {
        let Some(out) = self.outs.get_mut(&id) else {
            return Ok(());
        };
        let number = out.agreed(table)?;
        let (Some(table), Some(shared), Some(remote)) = (
            out.tables.get_mut(number),
            self.tables.get_mut(number),
            out.remote.as_ref(),
        ) else {
            return Ok(());
        };
        let newest = self.stores.store(shared.id).map_or(0, Store::newest);
        if table.started {
            return Err(Ended::Protocol("a journal is started twice"));
        }
        if after > newest {
            return Err(Ended::Protocol("a journal is started after its end"));
        }
        table.started = true;
        table.sent = after;
        table.acked = after;
        shared.acked.insert(remote.lineage, after);
        Ok(())
    }

    fn acknowledged(&mut self, id: SessionId, table: u32, upto: u64) -> Result<(), Ended> {
        let Some(out) = self.outs.get_mut(&id) else {
            return Ok(());
        };
        let number = out.agreed(table)?;
        let Some(oldest) = out.arrived() else {
            return Err(Ended::Protocol("acknowledges what was not sent"));
        };
        self.confirmed += 1;
        if (oldest.table, oldest.upto) != (number, upto) {
            return Err(Ended::Protocol("acknowledges out of order"));
        }
        let (Some(table), Some(shared), Some(remote)) = (
            out.tables.get_mut(number),
            self.tables.get_mut(number),
            out.remote.as_ref(),
        ) else {
            return Ok(());
        };
        if upto > table.acked {
            table.acked = upto;
            shared.acked.insert(remote.lineage, upto);
        }
        Ok(())
    }
}

impl OutSession {
    /// The position of a table that the peer named and takes part in.
    fn agreed(&self, table: u32) -> Result<usize, Ended> {
        let number = table as usize;
        match self.tables.get(number) {
            Some(table) if table.agreed && self.is_up() => Ok(number),
            _ => Err(Ended::Protocol("reply about a table that is not shared")),
        }
    }
    fn ask(&mut self, table: u32, lineages: Option<VecDeque<(Lineage, u64)>>) -> Result<(), Ended> {
        let table = self.agreed(table)?;
        if self.walks.len() >= WALKS_MAX.max(self.tables.len()) {
            return Err(Ended::Protocol("asks for too many walks"));
        }
        self.walks.push_back(Walk {
            table,
            lineages,
            cursor: WalkCursor::default(),
            holdings: None,
        });
        Ok(())
    }
}

/// Differences of one table that are taken from a peer.
const MISMATCHES_MAX: usize = 16;

/// A peer's text, fit to be shown to people.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(1_024)
        .collect()
}

/// How far a peer's wall clock is ahead of ours, in milliseconds; the time its message took counts against it.
pub(super) fn skew(theirs_ms: u64, now: u64, offset_ms: i64) -> i64 {
    let ours = i128::from(now) + i128::from(offset_ms);
    i64::try_from(i128::from(theirs_ms) - ours).unwrap_or(i64::MAX)
}
