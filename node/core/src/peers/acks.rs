//! What waits to be said on a stream that a peer dialed. Acknowledgements of what is not waited for are held a little, so
//! that several leave together: each would cost both sides a wake-up.

use std::collections::VecDeque;

use super::limits::{ACK_HOLD_MS, ACKS_HELD_MAX};
use super::messages::Reply;

/// Replies in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Replies {
    queue: VecDeque<Reply>,
    /// When they may leave; 0: at once.
    due_at: u64,
}

impl Default for Replies {
    fn default() -> Replies {
        Replies {
            queue: VecDeque::new(),
            due_at: NEVER,
        }
    }
}

impl Replies {
    /// Adds one that leaves at once, after those before it.
    pub(super) fn push_back(&mut self, reply: Reply) {
        self.queue.push_back(reply);
        self.due_at = 0;
    }
    /// Adds one that may wait for others.
    pub(super) fn hold(&mut self, reply: Reply, now: u64) {
        self.queue.push_back(reply);
        if self.queue.len() >= ACKS_HELD_MAX {
            self.due_at = 0;
        } else if self.due_at == NEVER {
            self.due_at = now + ACK_HOLD_MS;
        }
    }
    /// The next one to send now.
    pub(super) fn pop_front(&mut self, now: u64) -> Option<Reply> {
        if now < self.due_at {
            return None;
        }
        self.due_at = 0;
        let reply = self.queue.pop_front();
        if self.queue.is_empty() {
            self.due_at = NEVER;
        }
        reply
    }
    /// When there will be something to send that is still held now.
    pub(super) fn next_deadline(&self, now: u64) -> u64 {
        if self.due_at > now {
            self.due_at
        } else {
            NEVER
        }
    }
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

const NEVER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(upto: u64) -> Reply {
        Reply::Ack { table: 0, upto }
    }
    fn sent(replies: &mut Replies, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| replies.pop_front(now))
            .map(|reply| match reply {
                Reply::Ack { upto, .. } => upto,
                _ => 0,
            })
            .collect()
    }

    #[test]
    fn acknowledgements_leave_together() {
        let mut replies = Replies::default();
        assert_eq!(replies.next_deadline(1_000), NEVER);
        replies.hold(ack(1), 1_000);
        replies.hold(ack(2), 1_010);
        assert_eq!(sent(&mut replies, 1_000 + ACK_HOLD_MS - 1), []);
        assert_eq!(replies.next_deadline(1_010), 1_000 + ACK_HOLD_MS);
        assert_eq!(sent(&mut replies, 1_000 + ACK_HOLD_MS), [1, 2]);
        assert!(replies.is_empty());

        // A stream that takes nothing is no reason to look again and again.
        replies.hold(ack(3), 2_000);
        assert_eq!(replies.next_deadline(2_000 + ACK_HOLD_MS), NEVER);

        // Enough of them, or anything else, leave at once and take the others along.
        for upto in 4..3 + ACKS_HELD_MAX as u64 {
            replies.hold(ack(upto), 2_001);
        }
        assert_eq!(sent(&mut replies, 2_001).len(), ACKS_HELD_MAX);
        replies.hold(ack(9), 3_000);
        replies.push_back(Reply::Goodbye);
        assert_eq!(sent(&mut replies, 3_000), [9, 0]);
        assert_eq!(replies.next_deadline(3_000), NEVER);
    }
}
