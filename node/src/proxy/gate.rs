//! Where accept loops wait while a connection limit is reached.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

/// Wakes waiting accept loops when a place becomes free. Passing by costs one load.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    waiting: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Gate {
    /// Completes once `free` says so; asked again each time the gate is opened.
    pub(crate) async fn wait(&self, mut free: impl FnMut() -> bool) {
        std::future::poll_fn(|cx| {
            {
                let mut wakers = self.wakers.lock();
                if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    wakers.push(cx.waker().clone());
                }
                self.waiting.store(true, Ordering::SeqCst);
            }
            // After registering: a place that becomes free from here on wakes this task.
            if free() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// A place has become free (its counter has been lowered with `SeqCst` before).
    pub(crate) fn open(&self) {
        if self.waiting.load(Ordering::SeqCst) {
            let mut wakers = self.wakers.lock();
            self.waiting.store(false, Ordering::SeqCst);
            for waker in wakers.drain(..) {
                waker.wake();
            }
        }
    }
}
