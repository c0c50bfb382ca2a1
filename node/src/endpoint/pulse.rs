//! Whether the worker threads live: each is asked something trivial when somebody asks for `/livez`, and has half a minute
//! to answer. Load alone must never fail this: whoever asks would kill the process when it is needed most.

use std::cell::RefCell;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::proxy::control::{Ask, SessionLine, WorkerHandle};

/// A worker that has not answered for so long is stuck.
const PATIENCE_MS: u64 = 30_000;

/// Questions that have not been answered yet.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    asked: RefCell<Vec<Option<Question>>>,
}

#[derive(Debug)]
struct Question {
    since_ms: u64,
    answer: oneshot::Receiver<Vec<SessionLine>>,
}

impl Pulse {
    /// Workers that do not answer, by number. Asks all others again.
    pub(super) fn stuck(&self, workers: &[WorkerHandle], now_ms: u64) -> Vec<usize> {
        let mut asked = self.asked.borrow_mut();
        asked.resize_with(workers.len(), || None);
        let mut stuck = Vec::new();
        for (i, (worker, question)) in workers.iter().zip(asked.iter_mut()).enumerate() {
            if let Some(open) = question
                && matches!(open.answer.try_recv(), Err(TryRecvError::Empty))
            {
                if now_ms.saturating_sub(open.since_ms) > PATIENCE_MS {
                    stuck.push(i);
                }
                continue;
            }
            let (answer, answered) = oneshot::channel();
            // The shortest answer there is: no session at all.
            let ask = Ask::Sessions {
                after: u64::MAX,
                limit: 0,
                answer,
            };
            // A worker that has ended has drained; had it died, the process would end too.
            *question = worker.ask.send(ask).is_ok().then_some(Question {
                since_ms: now_ms,
                answer: answered,
            });
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn only_silence_is_death() {
        let pulse = Pulse::default();
        let (ask, mut asks) = unbounded_channel();
        let (gone, ended) = unbounded_channel();
        drop(ended);
        let workers = [WorkerHandle { ask }, WorkerHandle { ask: gone }];
        let mut answer = || match asks.try_recv() {
            Ok(Ask::Sessions { answer, .. }) => answer.send(Vec::new()).is_ok(),
            _ => false,
        };
        assert!(pulse.stuck(&workers, 0).is_empty());
        assert!(pulse.stuck(&workers, PATIENCE_MS).is_empty());
        assert_eq!(pulse.stuck(&workers, PATIENCE_MS + 1), [0]);
        assert!(answer(), "asked once");
        assert!(!answer(), "and not again while it owes an answer");
        assert!(pulse.stuck(&workers, 2 * PATIENCE_MS).is_empty());
        assert!(pulse.stuck(&workers, 3 * PATIENCE_MS).is_empty());
        assert!(answer());
    }
}
