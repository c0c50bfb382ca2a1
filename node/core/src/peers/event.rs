//! What a hub asks of the shell, and why sessions end.

use std::fmt;

use super::batch::BadBatch;
use super::messages::Refusal;
use crate::table::Lineage;

/// A peer to dial: a static line or a discovered address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIx(pub u32);

/// One stream, in either direction. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to this peer and open a stream, then call `Hub::opened_out` or `Hub::dial_failed`, within a bounded time.
    Dial(PeerIx),
    /// The peer that this session leads to has none to this node: open a stream in the other direction on the same connection,
    /// call `Hub::opened_in` for it here and `Hub::opened_back` there.
    Lend(SessionId),
    /// Drop the stream, after sending what was polled from it before. The hub has forgotten it.
    Close(SessionId, Ended),
    /// The node knows what the others know, as far as it can: it may accept traffic. Once.
    Ready,
    /// Something to log.
    Log(Event),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The stream broke.
    #[error("{0}")]
    Broken(String),
    /// The peer ended the stream in good order: it reloads, or has given this session up.
    #[error("the peer ended the stream")]
    ByPeer,
    /// Whoever answered is no peer.
    #[error("{0}")]
    Stranger(String),
    /// Nothing was heard for too long.
    #[error("silent for too long")]
    Silent,
    /// A message that has no place here; nothing of it was used.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// A batch that makes no sense; nothing of it was used.
    #[error("bad batch: {0}")]
    Batch(#[from] BadBatch),
    /// Refused, by either side.
    #[error("refused: {0}: {1}")]
    Refused(Refusal, String),
    /// The peer opened a newer one.
    #[error("replaced by a newer session")]
    Replaced,
    /// Another address leads to the same node.
    #[error("another session leads to the same node")]
    Duplicate,
    /// The node at this address has been restarted.
    #[error("the peer was restarted")]
    Restarted,
    /// The peer is no longer configured or discovered.
    #[error("peer removed")]
    Removed,
    /// The peer does not read what it is sent.
    #[error("peer does not read")]
    Unread,
    /// Too many sessions at a time.
    #[error("too many sessions")]
    TooMany,
    /// The peer stops.
    #[error("peer stops")]
    PeerStops,
    /// This node continues another lineage; the peer is to come again.
    #[error("this node goes on under another lineage")]
    Renamed,
    /// This node stops.
    #[error("stopping")]
    Stopping,
    /// Another process of this node goes on.
    #[error("another process of this node goes on")]
    HandedOver,
}

/// Something worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was agreed on.
    Up {
        /// Name of the peer.
        node: String,
        /// Its lineage.
        lineage: Lineage,
        /// The peer dialed.
        incoming: bool,
    },
    /// A session ended.
    Down {
        /// Name or address of the peer.
        node: String,
        /// The peer dialed.
        incoming: bool,
        /// Why.
        why: Ended,
    },
    /// A session broke, and there is another one already: the node at the other end goes on, as in a reload.
    Renewed {
        /// Name or address of the peer.
        node: String,
        /// The peer dialed.
        incoming: bool,
        /// Why the one before ended.
        why: Ended,
    },
    /// A peer could not be reached; said again when the reason is another, or after it could.
    Unreachable {
        /// Name of the peer.
        node: String,
        /// What the shell said.
        error: String,
        /// It had said goodbye.
        stopped: bool,
    },
    /// The node at the address of a static line has another name than the line says: two nodes were started under one
    /// name, or addresses were mixed up. Said again when the name is another.
    Misnamed {
        /// Name of the line.
        peer: String,
        /// Its address.
        address: String,
        /// Name that the node gave.
        node: String,
    },
    /// This node has a session to a peer that has none to this node.
    OneWay {
        /// Name of the peer.
        node: String,
    },
    /// Tables differ.
    Mismatch {
        /// Name of the peer.
        node: String,
        /// Name of the table.
        table: String,
        /// How.
        text: String,
    },
    /// A peer that was asked for everything it knows is through with that, or its session has ended before.
    Taught {
        /// Name of the teacher.
        node: String,
        /// Tables that it was through with.
        tables: usize,
        /// Tables that it was asked for.
        of: usize,
        /// Entries in the former.
        entries: usize,
        /// Rows that came of the table it was not through with.
        rows: u64,
        /// How long it took, in milliseconds.
        ms: u64,
        /// For how long this node accepted before, in milliseconds: its learn-timeout was too short for this. 0: it was not.
        late_ms: u64,
    },
    /// The node is ready, and why.
    Ready {
        /// Why.
        why: ReadyWhy,
        /// What it has learned until then.
        learned: Learned,
    },
    /// This node continues the lineage of one that has ended.
    Succeeds(Lineage),
    /// This node was offered the lineage of one that has ended, and does not continue it.
    BeginsAnew {
        /// Which.
        lineage: Lineage,
        /// Why.
        why: &'static str,
    },
    /// A lineage's gauges count, or no longer do.
    Alive {
        /// Name of its node, as far as known.
        node: String,
        /// Which.
        lineage: Lineage,
        /// Whether they count.
        alive: bool,
        /// It said goodbye.
        ended: bool,
    },
    /// A peer's wall clock is more than a year away from this node's, or is not any more.
    Skewed {
        /// Name of the peer.
        node: String,
        /// How far it is ahead, in milliseconds.
        skew_ms: i64,
        /// Whether it is too far.
        is_far: bool,
    },
    /// Assignments that a peer told were dated more than a year ahead, and were refused.
    Misdated {
        /// Name of the peer.
        node: String,
    },
    /// This node's wall clock was set back: so many entries bore times that were more than a year ahead, and were set back, too.
    Mended(usize),
    /// So many lineages hold a place: there is not room for many more.
    Crowd(usize),
    /// Log lines were dropped.
    Dropped(u64),
}

/// What a node has learned since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Tables that peers were through with.
    pub tables: usize,
    /// Tables that are shared.
    pub of: usize,
    /// Entries in the former.
    pub entries: u64,
    /// Who might teach the others, and why that has not happened. Not all of them, if they are many.
    pub awaited: Vec<String>,
    /// How long this node waits at most, in milliseconds.
    pub timeout_ms: u64,
    /// A peer teaches now: to wait for longer would help.
    pub under_way: bool,
}

/// Why a node is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyWhy {
    /// It continues a process that was.
    Continues,
    /// It was taught.
    Taught,
    /// There was nobody to ask.
    Alone,
    /// It waited for the learn-timeout.
    TimedOut,
    /// A teacher went away before it was through, and there is no other.
    Forsaken,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = |incoming: bool| if incoming { "from" } else { "to" };
        match self {
            Event::Up {
                node,
                lineage,
                incoming,
            } => write!(
                f,
                "session {} peer {node} is up (lineage {:016x})",
                direction(*incoming),
                lineage.0
            ),
            Event::Down {
                node,
                incoming,
                why,
            } => write!(
                f,
                "session {} peer {node} ended: {why}",
                direction(*incoming)
            ),
            Event::Renewed {
                node,
                incoming,
                why,
            } => write!(
                f,
                "session {} peer {node} was renewed, the one before ended: {why}",
                direction(*incoming)
            ),
            Event::Unreachable {
                node,
                error,
                stopped: false,
            } => write!(f, "peer {node} is unreachable: {error}"),
            Event::Unreachable { node, error, .. } => {
                write!(f, "peer {node} has stopped, and is not back yet: {error}")
            }
            Event::Misnamed {
                peer,
                address,
                node,
            } => write!(f, "peer {peer} at {address} calls itself '{node}'"),
            Event::OneWay { node } => write!(
                f,
                "peer {node} is reached but does not reach this node, nor does it use its connection: what it counts comes late, \
                 through other nodes, or not at all; let it connect to the address of this node"
            ),
            Event::Skewed {
                node,
                skew_ms,
                is_far: true,
            } => write!(
                f,
                "clocks are more than a year apart: that of peer {node} is {} {} this node's; what is cleared or set by one of them is \
                 refused by the other until the clock that is wrong is set right",
                Count((skew_ms.unsigned_abs() / 86_400_000) as usize, "day", "days"),
                if *skew_ms < 0 { "behind" } else { "ahead of" }
            ),
            Event::Skewed { node, .. } => {
                write!(f, "the clock of peer {node} is near this node's again")
            }
            Event::Misdated { node } => write!(
                f,
                "peer {node} tells of something that was cleared or set more than a year from now: refused; a clock is, or was, wrong"
            ),
            Event::Mended(entries) => write!(
                f,
                "this node's clock was set back: {} that had been cleared or set more than a year ahead of it now bear the time \
                 that it would have been",
                Count(*entries, "entry", "entries")
            ),
            Event::Mismatch { node, table, text } => {
                write!(f, "table {table} differs at peer {node}: {text}")
            }
            Event::Taught {
                node,
                tables,
                of,
                entries,
                ms,
                late_ms,
                ..
            } if tables == of => {
                write!(
                    f,
                    "learned {} with {} from peer {node} in {ms} ms",
                    Count(*tables, "table", "tables"),
                    Count(*entries, "entry", "entries")
                )?;
                match late_ms {
                    0 => Ok(()),
                    late => write!(f, ", {late} ms after the learn-timeout"),
                }
            }
            Event::Taught {
                node,
                tables,
                of,
                entries,
                rows,
                ms,
                ..
            } => write!(
                f,
                "learned only {tables} of {} ({}) and {} of another from peer {node}, whose session ended after {ms} ms",
                Count(*of, "table", "tables"),
                Count(*entries, "entry", "entries"),
                Count(*rows as usize, "row", "rows"),
            ),
            Event::Ready {
                why: ReadyWhy::TimedOut,
                learned,
            } => {
                write!(
                    f,
                    "ready: the learn-timeout is over, tables may be incomplete: {} of {} learned ({} entries)",
                    learned.tables,
                    Count(learned.of, "table", "tables"),
                    learned.entries
                )?;
                if !learned.awaited.is_empty() {
                    write!(
                        f,
                        ", the rest was awaited from {}",
                        learned.awaited.join(", ")
                    )?;
                }
                if learned.under_way {
                    let ms = learned.timeout_ms;
                    write!(
                        f,
                        "; until that is over limits do not know everything: a 'learn-timeout' longer than {ms} ms would wait for it"
                    )?;
                }
                Ok(())
            }
            Event::Ready { why, .. } => f.write_str(match why {
                ReadyWhy::Continues => "ready: continues a process that was",
                ReadyWhy::Taught => "ready: all tables were learned",
                ReadyWhy::Alone => "ready: no peer has anything to teach",
                ReadyWhy::TimedOut => "ready: the learn-timeout is over",
                ReadyWhy::Forsaken => {
                    "ready: who taught this node went away before all was learned, and nobody else can: tables may be incomplete"
                }
            }),
            Event::Succeeds(lineage) => write!(
                f,
                "continues lineage {:016x}, whose node has ended",
                lineage.0
            ),
            Event::BeginsAnew { lineage, why } => write!(
                f,
                "begins a lineage of its own, and does not continue {:016x}, whose node has ended: {why}",
                lineage.0
            ),
            Event::Alive {
                node,
                lineage,
                alive,
                ended,
            } => write!(
                f,
                "lineage {:016x} of {} {}",
                lineage.0,
                if node.is_empty() {
                    "a node that was never met" // others hear it
                } else {
                    node
                },
                if *alive {
                    "is alive"
                } else if *ended {
                    "has ended"
                } else {
                    "is taken for dead: its gauges no longer count"
                }
            ),
            Event::Crowd(held) => write!(
                f,
                "{held} of {} places for lives of nodes are taken, most by killed ones that counted what still counts; when all \
                 are, new lives are refused: find what kills nodes, and the keys with 'show table ... origins'; 'set table' to \
                 its sum makes one share of a key, 'clear table' none",
                crate::table::LINEAGES_MAX
            ),
            Event::Dropped(n) => write!(f, "{n} earlier log lines were dropped"),
        }
    }
}

/// A number of things: `1 table`, `2 tables`.
struct Count(usize, &'static str, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, one, several) = self;
        let noun = if *number == 1 { one } else { several };
        write!(f, "{number} {noun}")
    }
}
