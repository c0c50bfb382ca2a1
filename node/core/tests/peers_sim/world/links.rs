//! Streams between the nodes of the simulated world: opened, lent, filled, broken and closed.

use remora_core::peers::messages::{Push, Reply};
use remora_core::peers::{PeerIx, SessionId};

use super::{Conn, End, EventKey, Item, Pipe, World, brief};

impl World {
    pub(super) fn has_room(&self, conn: u64, dialer: bool) -> bool {
        self.conns.get(&conn).is_some_and(|conn| {
            if dialer {
                conn.up.has_room()
            } else {
                conn.down.has_room()
            }
        })
    }
    pub(super) fn poll(
        &mut self,
        node: usize,
        id: SessionId,
        conn: u64,
        dialer: bool,
        mono: u64,
    ) -> bool {
        let delay = self.rng.between(self.delay.0, self.delay.1);
        let at = self.now + delay;
        let hub = &mut self.nodes[node].life.as_mut().unwrap().hub;
        if dialer {
            let Some(push) = hub.poll_push(id, mono) else {
                return false;
            };
            self.messages += 1;
            if matches!(push, Push::Batch(_) | Push::Taught { .. }) {
                self.busy_messages += 1;
            }
            self.log(|| format!("node{node} conn {conn} -> {}", brief(&push)));
            let at = self
                .conns
                .get_mut(&conn)
                .unwrap()
                .up
                .push(at, Item::Message(push));
            self.at(at, EventKey::Arrive { conn, up: true });
        } else {
            let Some(reply) = hub.poll_reply(id, mono) else {
                return false;
            };
            self.messages += 1;
            // An address of its own, or a second one of another node, is tried every minute.
            if !matches!(
                reply,
                Reply::Heartbeat { .. } | Reply::Refuse { .. } | Reply::Welcome(_)
            ) {
                self.busy_messages += 1;
            }
            self.log(|| format!("node{node} conn {conn} <- {}", brief(&reply)));
            let at = self
                .conns
                .get_mut(&conn)
                .unwrap()
                .down
                .push(at, Item::Message(reply));
            self.at(at, EventKey::Arrive { conn, up: false });
        }
        true
    }
    /// One side closes in good order: what it sent still arrives.
    pub(super) fn shut(&mut self, id: u64, dialer: bool) {
        let at = self.now + self.rng.between(self.delay.0, self.delay.1);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if dialer {
            conn.dialer.session = None;
            conn.down.items.clear();
            conn.down.closed = true;
            if !conn.up.closed {
                let at = conn.up.push(at, Item::End);
                conn.up.closed = true;
                self.at(at, EventKey::Arrive { conn: id, up: true });
            }
        } else {
            conn.acceptor.session = None;
            conn.up.items.clear();
            conn.up.closed = true;
            if !conn.down.closed {
                let at = conn.down.push(at, Item::End);
                conn.down.closed = true;
                self.at(
                    at,
                    EventKey::Arrive {
                        conn: id,
                        up: false,
                    },
                );
            }
        }
    }
    /// The stream breaks: what is on its way is lost from some point on, and each side notices in its own time.
    pub fn sever(&mut self, id: u64) {
        self.log(|| format!("conn {id} breaks"));
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let keep = self.rng.below(conn.up.items.len() as u64 + 1) as usize;
        conn.up.items.truncate(keep);
        let keep = self.rng.below(conn.down.items.len() as u64 + 1) as usize;
        conn.down.items.truncate(keep);
        conn.up.closed = true;
        conn.down.closed = true;
        for dialer in [true, false] {
            let wait = if self.rng.percent(20) { 4_000 } else { 100 };
            let at = self.now + self.rng.between(0, wait);
            self.at(at, EventKey::Notice { conn: id, dialer });
        }
    }

    /// The stream is gone with everything on its way.
    pub fn sever_all(&mut self, id: u64) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.up.items.clear();
            conn.down.items.clear();
        }
        self.sever(id);
    }
    pub(super) fn dialed(&mut self, node: usize, life: u64, ix: PeerIx, to: usize) {
        if !self.is_live(node, life) {
            return;
        }
        if self.nodes[node].frozen {
            let at = self.now + 100;
            self.at(
                at,
                EventKey::Dialed {
                    node,
                    life,
                    ix: ix.0,
                    to,
                },
            );
            return;
        }
        let mono = self.mono(node);
        let blocked = self.parted[node][to] || self.parted[to][node] || self.undialable[node][to];
        if blocked || self.nodes[to].frozen {
            self.life(node)
                .hub
                .dial_failed(ix, false, "no answer", mono);
        } else if self.nodes[to].life.is_none() {
            self.life(node).hub.dial_failed(ix, true, "refused", mono);
        } else {
            let id = self.next_conn;
            self.next_conn += 1;
            let to_life = self.life(to).number;
            let session = self.life(node).hub.opened_out(ix, mono);
            self.life(node).sessions.insert(session, (id, true));
            let to_mono = self.mono(to);
            let accepted = self
                .life(to)
                .hub
                .opened_in(format!("host{node}:99"), to_mono);
            self.life(to).sessions.insert(accepted, (id, false));
            self.log(|| format!("conn {id}: node{node} {session:?} -> node{to} {accepted:?}"));
            self.conns.insert(
                id,
                Conn {
                    dialer: End {
                        node,
                        life,
                        session: Some(session),
                    },
                    acceptor: End {
                        node: to,
                        life: to_life,
                        session: Some(accepted),
                    },
                    up: Pipe::new(),
                    down: Pipe::new(),
                },
            );
            self.pump(to);
        }
        self.pump(node);
    }
    /// A stream in the other direction on the connection of a session.
    pub(super) fn lend(&mut self, node: usize, session: SessionId) {
        let Some((id, true)) = self.life(node).sessions.get(&session).copied() else {
            return;
        };
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let (to, to_life, Some(theirs)) = (
            conn.acceptor.node,
            conn.acceptor.life,
            conn.acceptor.session,
        ) else {
            return;
        };
        if !self.is_live(to, to_life) || self.nodes[to].frozen || self.parted[node][to] {
            return;
        }
        let (mono, to_mono) = (self.mono(node), self.mono(to));
        let Some(pushes) = self.life(to).hub.opened_back(theirs, to_mono) else {
            return;
        };
        let id = self.next_conn;
        self.next_conn += 1;
        self.life(to).sessions.insert(pushes, (id, true));
        let accepted = self.life(node).hub.opened_in(format!("host{to}:1"), mono);
        let life = self.life(node).number;
        self.life(node).sessions.insert(accepted, (id, false));
        self.log(|| format!("conn {id}: node{to} {pushes:?} -> node{node} {accepted:?}, lent"));
        let conn = Conn {
            dialer: End {
                node: to,
                life: to_life,
                session: Some(pushes),
            },
            acceptor: End {
                node,
                life,
                session: Some(accepted),
            },
            up: Pipe::new(),
            down: Pipe::new(),
        };
        self.conns.insert(id, conn);
        self.pump(to);
    }
    pub(super) fn notice(&mut self, id: u64, dialer: bool) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let end = if dialer {
            &mut conn.dialer
        } else {
            &mut conn.acceptor
        };
        let (node, life) = (end.node, end.life);
        if self.nodes[node]
            .life
            .as_ref()
            .is_none_or(|l| l.number != life)
        {
            return;
        }
        if self.nodes[node].frozen {
            let at = self.now + 500;
            self.at(at, EventKey::Notice { conn: id, dialer });
            return;
        }
        let Some(session) = end.session.take() else {
            return;
        };
        // Whatever is still unread is lost with it.
        if dialer {
            conn.down.items.clear();
        } else {
            conn.up.items.clear();
        }
        if conn.dialer.session.is_none() && conn.acceptor.session.is_none() {
            self.conns.remove(&id);
        }
        let mono = self.mono(node);
        let life = self.life(node);
        life.sessions.remove(&session);
        life.hub.closed(session, "reset", mono);
        self.pump(node);
    }
    pub(super) fn arrive(&mut self, id: u64, up: bool) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (from, to) = if up {
            (&conn.dialer, &conn.acceptor)
        } else {
            (&conn.acceptor, &conn.dialer)
        };
        let (from_node, to_node, to_life, session) = (from.node, to.node, to.life, to.session);
        if self.parted[from_node][to_node] || self.nodes[to_node].frozen {
            return; // looked at again when that ends
        }
        let Some(session) = session.filter(|_| {
            self.nodes[to_node]
                .life
                .as_ref()
                .is_some_and(|l| l.number == to_life)
        }) else {
            return;
        };
        let now = self.now;
        let mono = self.mono(to_node);
        let mut ended = false;
        while let Some(conn) = self.conns.get_mut(&id) {
            let hub = &mut self.nodes[to_node].life.as_mut().unwrap().hub;
            if up {
                match conn.up.items.front() {
                    Some((at, _)) if *at <= now => match conn.up.items.pop_front() {
                        Some((_, Item::Message(push))) => hub.handle_push(session, push, mono),
                        _ => ended = true,
                    },
                    _ => break,
                }
            } else {
                match conn.down.items.front() {
                    Some((at, _)) if *at <= now => match conn.down.items.pop_front() {
                        Some((_, Item::Message(reply))) => hub.handle_reply(session, reply, mono),
                        _ => ended = true,
                    },
                    _ => break,
                }
            }
        }
        if ended {
            self.notice(id, !up);
        }
        if self.nodes[to_node].life.is_some() {
            self.pump(to_node);
        }
        if self.nodes[from_node].life.is_some() {
            self.pump(from_node); // there is room again
        }
    }
    /// Looks at all streams: something that held them up is over.
    pub fn flow_again(&mut self) {
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for conn in ids {
            for up in [true, false] {
                let at = self.now + self.rng.between(self.delay.0, self.delay.1.max(1));
                self.at(at, EventKey::Arrive { conn, up });
            }
        }
    }
}
