//! The side of a session that merges what a peer sends.

use std::collections::{BTreeMap, VecDeque};

use super::acks::Replies;
use super::batch::ColumnDef;
use super::delay::Delay;
use super::event::{Ended, Event, SessionId};
use super::hub::Hub;
use super::learn::Learn;
use super::limits::{HEARTBEAT_MS, REPLIES_MAX, SESSIONS_IN_MAX, SHORT_BREAK_MS, SILENCE_MS};
use super::messages::{Batch, BatchKind, Held, Push, Reply};
use super::replies::skew;
use super::report::{Dropped, Traffic};
use super::shared::Shared;
use super::wants::Wanted;
use crate::table::{LINEAGES_MAX, Lineage};

/// A stream that a peer dialed.
pub(super) struct InSession {
    /// Where it came from, for people.
    pub(super) remote: String,
    pub(super) opened_at: u64,
    pub(super) heard_at: u64,
    /// When the newest message that came was sent, by our clock: what waited while this process stood still, or on a slow
    /// way, is old when it comes.
    fed_at: u64,
    pub(super) phase: Phase,
    pub(super) node: String,
    pub(super) lineage: Lineage,
    /// The pusher had nothing to teach when it said hello.
    pub(super) newcomer: bool,
    /// By the pusher's numbers.
    pub(super) tables: Vec<InTable>,
    /// Our number to the pusher's.
    pub(super) theirs: Vec<Option<u32>>,
    pub(super) replies: Replies,
    /// Why the session ends once the replies are out.
    pub(super) ending: Option<Ended>,
    pub(super) delay: Delay,
    /// What the pusher hears itself.
    pub(super) vouched: Vec<Lineage>,
    pub(super) heartbeat_at: u64,
    pub(super) skew_ms: i64,
    pub(super) traffic: Traffic,
    pub(super) dropped: Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opened,
    Up,
    Refused,
}

/// One of the pusher's tables.
#[derive(Clone, Debug, Default)]
pub(super) struct InTable {
    /// Our number of it; `None`: it is not shared.
    pub(super) own: Option<usize>,
    pub(super) name: String,
    pub(super) columns: Vec<ColumnDef>,
    /// About how many entries it had when the session began.
    pub(super) entries: u64,
    /// It lacks columns of ours: it has what third parties counted and assigned only in part.
    pub(super) partial: bool,
    pub(super) started: bool,
    /// The last number of its journal that came.
    pub(super) position: u64,
    /// The walk that is under way.
    pub(super) asked: Option<Asked>,
    /// What the pusher says it holds of others.
    pub(super) claims: BTreeMap<Lineage, Held>,
    /// Keys to ask about.
    pub(super) wants: VecDeque<Wanted>,
    /// Questions that were asked and not answered.
    pub(super) asked_keys: VecDeque<Vec<Wanted>>,
    pub(super) mismatches: Vec<String>,
}

/// A walk that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// It shows cells of all lineages, else only of those in `claims`.
    pub(super) all: bool,
    /// The claims that made us ask.
    pub(super) claims: Vec<Held>,
    /// When.
    pub(super) at: u64,
    /// It has begun.
    pub(super) begun: bool,
    /// What it showed and was not taken: the lowest version of each lineage in each batch.
    pub(super) left: Vec<(Lineage, u64)>,
    /// It has brought something new.
    pub(super) news: bool,
}

impl InSession {
    pub(super) fn new(remote: String, now: u64) -> InSession {
        InSession {
            remote,
            opened_at: now,
            heard_at: now,
            fed_at: now,
            phase: Phase::Opened,
            node: String::new(),
            lineage: Lineage(0),
            newcomer: false,
            tables: Vec::new(),
            theirs: Vec::new(),
            replies: Replies::default(),
            ending: None,
            delay: Delay::default(),
            vouched: Vec::new(),
            heartbeat_at: u64::MAX,
            skew_ms: 0,
            traffic: Traffic::default(),
            dropped: Dropped::default(),
        }
    }
    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }
    /// The lineage whose journal this is, once it said hello.
    pub(super) fn pusher(&self) -> Option<Lineage> {
        self.is_up().then_some(self.lineage)
    }
    /// The pusher's number of one of our tables.
    pub(super) fn theirs(&self, own: usize) -> Option<u32> {
        self.theirs.get(own).copied().flatten()
    }
    pub(super) fn matches(&self, own: usize) -> bool {
        self.theirs(own).is_some()
    }
    pub(super) fn table_of(&self, own: usize) -> Option<&InTable> {
        self.tables.get(self.theirs(own)? as usize)
    }
    /// A table by the pusher's number, if it is shared.
    pub(super) fn table_mut(&mut self, theirs: u32) -> Option<&mut InTable> {
        self.tables
            .get_mut(theirs as usize)
            .filter(|t| t.own.is_some())
    }
    /// The pusher's tables with what differs there.
    pub(super) fn mismatches(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.tables.iter().map(|t| (&t.name[..], &t.mismatches[..]))
    }
    /// Whether a newcomer can learn this table here.
    pub(super) fn can_teach(&self, own: usize) -> bool {
        self.is_up()
            && !self.newcomer
            && self
                .table_of(own)
                .is_some_and(|t| !t.started && t.asked.is_none())
    }
    /// Marks that all cells of a table were asked for; returns the pusher's number of it.
    pub(super) fn ask_for_all(&mut self, own: usize, now: u64) -> Option<u32> {
        let theirs = self.theirs(own)?;
        let table = self.table_mut(theirs)?;
        table.asked = Some(Asked {
            all: true,
            claims: table.claims.values().copied().collect(),
            at: now,
            begun: false,
            left: Vec::new(),
            news: false,
        });
        Some(theirs)
    }
    /// Takes the keys that were not answered, by our number of the table.
    pub(super) fn take_wants(&mut self) -> Vec<(usize, Vec<Wanted>)> {
        let take = |table: &mut InTable| {
            let asked = std::mem::take(&mut table.asked_keys).into_iter().flatten();
            let keys = asked.chain(std::mem::take(&mut table.wants)).collect();
            Some((table.own?, keys))
        };
        self.tables.iter_mut().filter_map(take).collect()
    }
    /// Asks for the pusher's journal of a table, unless that was done or the table is being taught. Returns after which
    /// number.
    pub(super) fn start(&mut self, own: usize, shared: &Shared) -> Option<u64> {
        let lineage = self.lineage;
        let theirs = self.theirs(own).filter(|_| self.is_up())?;
        let table = self.table_mut(theirs)?;
        if table.started || table.asked.is_some() {
            return None;
        }
        table.started = true;
        table.position = shared.resume(lineage);
        let after = table.position;
        self.replies.push_back(Reply::Start {
            table: theirs,
            after,
        });
        Some(after)
    }
    pub(super) fn next_deadline(&self, now: u64) -> u64 {
        let heartbeat_at = if self.is_up() {
            self.heartbeat_at
        } else {
            u64::MAX
        };
        heartbeat_at
            .min(self.heard_at + SILENCE_MS)
            .min(self.replies.next_deadline(now))
    }
}

impl Hub {
    /// A peer opened a stream. `remote`: its address, for people and to recognise it.
    pub fn opened_in(&mut self, remote: String, now: u64) -> SessionId {
        let id = self.new_session();
        if self.ins.len() >= SESSIONS_IN_MAX {
            self.counters.sessions_refused += 1;
            self.act(super::event::Action::Close(id, Ended::TooMany));
        } else {
            self.ins.insert(id, InSession::new(remote, now));
        }
        id
    }

    /// The next message for a stream that a peer dialed; `None`: nothing for now.
    pub fn poll_reply(&mut self, id: SessionId, now: u64) -> Option<Reply> {
        if self.suspended {
            return None;
        }
        let wall_ms = self.wall_ms(now);
        let session = self.ins.get_mut(&id)?;
        let reply = session.replies.pop_front(now);
        if session.replies.is_empty()
            && reply.is_none()
            && let Some(why) = session.ending.take()
        {
            self.end(id, why, now, true);
            return None;
        }
        if reply.is_some() {
            return reply;
        }
        if !session.is_up() || now < session.heartbeat_at {
            return None;
        }
        session.heartbeat_at = now + HEARTBEAT_MS;
        Some(Reply::Heartbeat {
            mono_ms: now,
            wall_ms,
        })
    }

    /// A message of a pusher arrived. One that makes no sense closes the session, and nothing of it is used.
    pub fn handle_push(&mut self, id: SessionId, push: Push, now: u64) {
        if self.suspended {
            return;
        }
        let Some(session) = self.ins.get_mut(&id) else {
            return;
        };
        session.heard_at = now;
        session.traffic.messages += 1;
        if session.phase == Phase::Refused {
            return; // it may not have read yet that it is refused
        }
        let pusher = session.pusher();
        if let Some(lineage) = pusher {
            self.hear(lineage, now);
        }
        let result = match push {
            Push::Hello(hello) if pusher.is_none() => self.greet(id, hello, now),
            Push::Hello(_) => Err(Ended::Protocol("a second hello")),
            _ if pusher.is_none() => Err(Ended::Protocol("the first message is no hello")),
            Push::Batch(batch) => self.merge(id, &batch, now),
            Push::Taught { holdings, .. } if holdings.len() > LINEAGES_MAX + 1 => {
                Err(Ended::Protocol("holdings of too many lineages"))
            }
            Push::Taught { table, holdings } => self.taught(id, table, holdings, now),
            Push::Holdings { table, holdings } => self.claimed(id, table, holdings),
            Push::Heartbeat {
                mono_ms,
                wall_ms,
                vouched,
                over,
            } => {
                let result = self.vouch(id, mono_ms, wall_ms, vouched, now);
                if over.len() > LINEAGES_MAX {
                    Err(Ended::Protocol("too many lineages are over"))
                } else {
                    if !over.is_empty() {
                        self.are_over(id, &over, now);
                    }
                    result
                }
            }
            Push::Goodbye { numbers, heir } => {
                if let Some(lineage) = pusher {
                    if heir {
                        self.bequeathed(id, &numbers);
                    }
                    self.farewell(lineage, now);
                    self.ask_for_gaps(now);
                }
                // The end of the stream tells the peer that this has been read.
                Err(Ended::PeerStops)
            }
        };
        let unread = self
            .ins
            .get(&id)
            .is_some_and(|s| s.replies.len() > REPLIES_MAX + 2 * s.tables.len());
        let result = if unread { Err(Ended::Unread) } else { result };
        if let Err(why) = result {
            self.counters.note_fault(&why);
            self.end(id, why, now, true);
        }
    }

    fn merge(&mut self, id: SessionId, batch: &Batch, now: u64) -> Result<(), Ended> {
        let Some(session) = self.ins.get_mut(&id) else {
            return Ok(());
        };
        let from = session.lineage;
        let shift_ms = session.delay.excess_ms(batch.mono_ms, now);
        session.fed_at = now.saturating_sub(u64::from(shift_ms));
        if u64::from(shift_ms) > SHORT_BREAK_MS
            && let Some(life) = self.lives.get_mut(&from)
        {
            life.fed_since = life.fed_since.map(|since| since.max(now));
        }
        session.traffic.batch(&batch.columns);
        let Some(table) = session.table_mut(batch.table) else {
            return Err(Ended::Protocol("rows of a table that is not shared"));
        };
        let upto = match batch.kind {
            BatchKind::Journal { .. } if !table.started => {
                return Err(Ended::Protocol("a journal that was not asked for"));
            }
            BatchKind::Journal { upto, .. } if upto < table.position => {
                return Err(Ended::Protocol("a journal goes backwards"));
            }
            BatchKind::Journal { upto, .. } => upto,
            BatchKind::Walk if table.asked.is_none() => {
                return Err(Ended::Protocol("a walk that was not asked for"));
            }
            BatchKind::Answer if table.asked_keys.is_empty() => {
                return Err(Ended::Protocol("an answer to no question"));
            }
            BatchKind::Walk | BatchKind::Answer | BatchKind::Offer => 0,
        };
        let Some(own) = table.own else {
            return Ok(());
        };
        let (Some(shared), theirs) = (self.tables.get_mut(own), batch.table) else {
            return Ok(());
        };
        let Some(store) = self.stores.store(shared.id) else {
            return Ok(());
        };
        // Answers never lead to other questions, or two small tables could keep each other busy for ever; and a newcomer
        // that is shown everything need not ask. Who is shown everything later may miss what that one does not have.
        let curious = match batch.kind {
            BatchKind::Journal { .. } => true,
            BatchKind::Walk => shared.learn == Learn::Done,
            BatchKind::Answer | BatchKind::Offer => false,
        };
        // What others say of a lineage may be long past.
        for lineage in batch.columns.lineages.iter().map(|id| Lineage(*id)) {
            if lineage != from && lineage != self.own {
                store.set_followed(lineage, shared.resume(lineage));
            }
        }
        let acked = shared.acked.get(&from).copied().unwrap_or(0);
        let acked = curious.then_some(acked);
        let applied = store.apply(&batch.columns, &table.columns, from, shift_ms, acked, now)?;
        self.counters.note_applied(&applied);
        if let Some(target) = store.spec().write_to
            && !applied.tags.is_empty()
        {
            self.stores.write_tags(target, &applied.tags, now);
        }
        for (lineage, version) in &applied.untaken {
            shared.left(*lineage, *version);
        }
        match batch.kind {
            BatchKind::Journal { upto, whole } => {
                table.position = upto;
                shared.follow(from, upto, whole);
            }
            BatchKind::Walk => {
                if let Some(asked) = &mut table.asked {
                    asked.begun = true;
                    asked.news |= applied.news > 0;
                    for (lineage, version) in &applied.untaken {
                        match asked.left.iter_mut().find(|(of, _)| of == lineage) {
                            Some((_, lowest)) => *lowest = (*lowest).min(*version),
                            None => asked.left.push((*lineage, *version)),
                        }
                    }
                }
            }
            BatchKind::Answer | BatchKind::Offer if applied.news > 0 => {
                shared.holds_more(store, from, self.own, &batch.columns.lineages);
            }
            BatchKind::Answer | BatchKind::Offer => {}
        }
        if batch.kind == BatchKind::Walk
            && let Some(lesson) = self.lessons.get_mut(&id)
        {
            let rows = u64::from(batch.columns.rows);
            lesson.rows += rows;
            self.rows_learned += rows;
        }
        let ack = Reply::Ack {
            table: theirs,
            upto,
        };
        match batch.kind {
            // It has told all it had to tell: nobody waits for this.
            BatchKind::Journal { whole: true, .. } => session.replies.hold(ack, now),
            _ => session.replies.push_back(ack),
        }
        if batch.kind == BatchKind::Answer {
            session.answered(theirs)?;
        }
        self.note_dropped(
            from,
            Dropped {
                rows: applied.refused as u64,
                ..Dropped::default()
            },
        );
        if applied.misdated > 0 {
            let node = self.ins.get(&id).map(|session| session.node.clone());
            self.note_misdated(from, node.unwrap_or_default());
        }
        if curious && !applied.wants.is_empty() {
            self.want(id, own, applied.wants, now);
        }
        if curious && !applied.unsure.is_empty() && !self.is_settled(own, now) {
            self.want_of_all(own, &applied.unsure, now);
        }
        if !applied.wants_of_all.is_empty() {
            self.want_of_all(own, &applied.wants_of_all, now);
        }
        if curious && !applied.offers.is_empty() {
            self.offer(own, from, applied.offers);
        }
        Ok(())
    }

    fn vouch(
        &mut self,
        id: SessionId,
        mono_ms: u64,
        wall_ms: u64,
        vouched: Vec<Lineage>,
        now: u64,
    ) -> Result<(), Ended> {
        if vouched.len() > LINEAGES_MAX {
            return Err(Ended::Protocol("vouches for too many lineages"));
        }
        let offset = self.wall_offset_ms;
        if let Some(session) = self.ins.get_mut(&id) {
            let late_ms = session.delay.excess_ms(mono_ms, now);
            session.fed_at = now.saturating_sub(u64::from(late_ms));
            session.skew_ms = skew(wall_ms, now, offset);
            if session.vouched != vouched {
                session.vouched = vouched;
                self.refresh_lives(now);
            }
        }
        Ok(())
    }

    /// A stream from a peer is over.
    pub(super) fn ended_in(
        &mut self,
        mut session: InSession,
        why: &Ended,
        now: u64,
        id: SessionId,
    ) {
        self.counters.add_received(&session.traffic);
        self.keep_wants(&mut session);
        if let Some(lineage) = session.pusher() {
            let fed = self.ins.values().any(|s| s.pusher() == Some(lineage));
            if let Some(life) = self.lives.get_mut(&lineage)
                && !fed
            {
                life.unfed_since = Some(session.fed_at);
            }
        }
        let is_up = session.is_up();
        let by_itself = matches!(why, Ended::Broken(_) | Ended::ByPeer);
        if *why != Ended::Replaced && (is_up || !by_itself) {
            let node = if session.node.is_empty() {
                session.remote
            } else {
                session.node
            };
            if is_up && matches!(why, Ended::Broken(_)) {
                self.broke(session.lineage, node, true, why.clone(), now);
            } else if is_up || self.is_first_refusal(&node, why) {
                self.log(Event::Down {
                    node,
                    incoming: true,
                    why: why.clone(),
                });
            }
        }
        self.lost_teacher(id, now);
        self.refresh_lives(now);
        self.check_ready(now);
    }

    /// Tells those who push to us that this is in vain.
    pub(super) fn say_goodbye_to_pushers(&mut self) {
        for session in self.ins.values_mut().filter(|s| s.phase == Phase::Up) {
            session.replies.push_back(Reply::Goodbye);
        }
    }
}
