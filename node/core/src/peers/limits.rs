//! Every time and bound of the protocol, in one place.

use super::batch::Budget;

/// A lineage that nobody has heard for so long is taken for dead until it speaks again: its gauges stop counting.
pub const LEASE_MS: u64 = 5_000;
/// A session on which nothing arrived for so long is closed.
pub const SILENCE_MS: u64 = 5_000;
/// Time between heartbeats, and between comparisons of what nodes hold of others.
pub const HEARTBEAT_MS: u64 = 1_000;
/// Changes made while nothing is waiting leave at once; after that, no sooner than this after the last flush. A key that
/// is hit all the time costs one row per flush.
pub const FLUSH_MS: u64 = 20;
/// The same where flush after flush mostly repeats what the one before had told, as with a few keys that are hit all the time:
/// there a longer pause saves rows and wake-ups. It is reached step by step, see `next_pause`.
pub const FLUSH_REPEATED_MS: u64 = 50;
/// What a peer told that leaves it nothing more to tell is acknowledged within this, together with what follows. It shows as
/// lag on the peer's side, and a peer that ends waits for it. Longer than [`ACKS_HELD_MAX`] flushes: an acknowledgement that
/// answers a batch at once finds the peer still awake.
pub const ACK_HOLD_MS: u64 = 250;
/// So many acknowledgements are not held any longer. Well below [`WINDOW`], so that nobody is held up.
pub const ACKS_HELD_MAX: usize = 4;
/// First and longest pause between attempts to reach a peer.
pub const BACKOFF_MS: (u64, u64) = (100, 5_000);
/// An address at which this very node answered, or one that leads to a node which another address leads to as well, is
/// tried again after this.
pub const RETRY_SELF_MS: u64 = 60_000;
/// A process that did not run for longer than this gives everybody as much more time to be heard.
pub const STALL_MS: u64 = 1_000;
/// A break in a session no longer than this changes nothing: entries that expire meanwhile are kept that long.
pub const SHORT_BREAK_MS: u64 = 2_000;
/// What a lineage had acknowledged is remembered for so long after it was last heard.
pub const FORGET_LINEAGE_MS: u64 = 3_600_000;

/// Who has been silent for so long is taken for gone: tables forget cells of which nothing is read any more. Should it
/// come back, it says everything again, as after any long break.
pub const REST_MS: u64 = 10_000;

/// From so many lineages on that hold a place, the operator is warned: past [`LINEAGES_MAX`](crate::table::LINEAGES_MAX) none is
/// let in.
pub const LINEAGES_MANY: usize = crate::table::LINEAGES_MAX / 4 * 3;

/// The pause after a flush, when the pause before it was `last`. `follows`: the flush came at the end of that pause, because
/// something had changed in it. Of the `told` entries of the flush, `again` were in the one before it, too.
pub(super) fn next_pause(last: u64, follows: bool, told: usize, again: usize) -> u64 {
    if follows && again > 0 && again >= told - again.min(told) {
        (last + last / 4).clamp(FLUSH_MS, FLUSH_REPEATED_MS)
    } else {
        FLUSH_MS
    }
}

/// Batches that may be on their way in one session without having been acknowledged, whatever they weigh; more, as long as all of
/// them weigh less than [`WINDOW_BYTES`]; but never more than [`WINDOW_MAX`].
pub const WINDOW: usize = 8;
/// At a round trip of 100 ms this is some 400,000 rows a second.
pub const WINDOW_BYTES: usize = 1 << 20;
/// See [`WINDOW`].
pub const WINDOW_MAX: usize = 256;
/// One batch. Receivers merge its rows shard by shard.
pub const BATCH: Budget = Budget {
    rows: 4_000,
    bytes: 128 << 10,
};
/// Slices of a walk that yields no rows, per poll.
pub const WALK_SLICES: usize = 16;
/// Entries given a number per flush before other work gets its turn.
pub const COLLECT: usize = 16_384;
/// Keys in one question or offer: with a cell of every lineage of each, the answer still fits a batch.
pub const WANT_KEYS: usize = 64;
/// Bytes of the keys in one question, unless it is about one key.
pub const WANT_BYTES: usize = 64 << 10;
/// Bytes in the name of a node or table that a peer tells.
pub const NAME_MAX: usize = 255;
/// Questions about keys that wait for their answers, per session and table.
pub const WANTS_OPEN: usize = 8;
/// Questions about keys that a peer may ask before the first is answered, per session.
pub const WANTS_PENDING_MAX: usize = 4_096;
/// Bytes of the keys in those questions, with [`KEY_BYTES`] more for each key.
pub const WANTED_BYTES_MAX: usize = 16 << 20;
/// What a key costs beside its own bytes.
pub const KEY_BYTES: usize = 64;
/// Keys to ask about or to offer that wait for their turn, in one session, or per table while there is no session for
/// them; more are dropped and counted.
pub const KEPT_KEYS_MAX: usize = 65_536;
/// Between two walks about a lineage that is alive but comes here only through others lies at least so much times what
/// the last one took, as that costs whoever walks; it is doubled each time that nothing new came, up to so long.
pub const GAP_PAUSE: (u64, u64) = (3, 30_000);
/// Follow-ups of one claim of which only the revision changes: tables that are too small lose and regain the same rows for
/// ever.
pub const REVISIONS_MAX: u8 = 6;
/// A peer to which this node has a session, and which has had none to this node for so long, is warned about.
pub const ONE_WAY_MS: u64 = 10_000;
/// That a session broke is reported after so long, if there is no other one by then: a node that reloads is back by then.
pub const RENEWAL_MS: u64 = 3_000;
/// Breaks that wait to be reported; more are reported at once.
pub const BROKEN_MAX: usize = 64;
/// Such a peer is lent the connection of this node's session after so long, and, if it does not take it, again after that.
pub const LEND_MS: (u64, u64) = (1_000, 5_000);
/// Walks that a peer may ask for at a time in one session, over all tables.
pub const WALKS_MAX: usize = 64;
/// Lacking this many lineages, a node asks for all cells rather than for those of each.
pub const TEACH_FROM: usize = 4;
/// Tables that nodes share: those of a hello.
pub const TABLES_MAX: usize = 32_768;
/// Replies that wait to be sent in one session, with two more for each of its tables: past this the peer does not read, and the
/// session is closed.
pub const REPLIES_MAX: usize = 4_096;
/// Sessions that peers opened.
pub const SESSIONS_IN_MAX: usize = 1_024;
/// Nodes and hosts of which is remembered why they were turned away.
pub const TURNED_AWAY_MAX: usize = 256;
/// Lineages left here that wait for a newcomer; the oldest make room.
pub const ESTATES_MAX: usize = 64;
/// Differences of tables that are logged per lineage.
pub const MISMATCHES_SAID_MAX: usize = 256;
/// Actions that wait for the shell before log lines are dropped.
pub const EVENTS_MAX: usize = 1_024;

// An acknowledgement leaves with the last of so many batches, at any pause, and before the window is full.
const _: () = assert!(ACKS_HELD_MAX as u64 * FLUSH_REPEATED_MS < ACK_HOLD_MS);
const _: () = assert!(ACKS_HELD_MAX < WINDOW);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repetition_makes_pauses_longer() {
        let run = |flushes: &[(bool, usize, usize)]| {
            flushes
                .iter()
                .fold(FLUSH_MS, |last, (follows, told, again)| {
                    next_pause(last, *follows, *told, *again)
                })
        };
        assert_eq!(run(&[(true, 1, 1)]), 25);
        assert_eq!(run(&[(true, 1, 1); 10]), FLUSH_REPEATED_MS);
        assert_eq!(run(&[(true, 2, 1); 10]), FLUSH_REPEATED_MS);
        // Others, none, or the first one after a rest.
        assert_eq!(run(&[(true, 1, 1), (true, 3, 1)]), FLUSH_MS);
        assert_eq!(run(&[(true, 1, 1), (true, 0, 0)]), FLUSH_MS);
        assert_eq!(run(&[(true, 1, 1), (false, 1, 1)]), FLUSH_MS);
    }
}
