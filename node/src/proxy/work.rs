//! What a connection needs while it works on a message, and only then: heads, buffers, stream state. Lent by the thread.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use remora_core::http1::Head;
use remora_core::rule::cx::StreamState;

use crate::proxy::relay::tunnel::Ways;
use crate::proxy::streams::Info;
use crate::proxy::worker::Thread;

/// Sets kept per thread for the next message.
const KEPT: usize = 256;
/// A set that has grown beyond this is not kept.
const BYTES_KEPT: usize = 32 * 1024;

/// Memory of one exchange.
pub(crate) struct Work {
    pub(crate) req: Head,
    pub(crate) res: Head,
    pub(crate) ways: Ways,
    pub(crate) stream: StreamState,
    pub(crate) info: Rc<Info>,
    /// The request line as received, for the log.
    pub(crate) request_line: Vec<u8>,
}

/// Work memory on loan. Dropping it ends the stream's tracking and gives everything back.
pub(crate) struct Lease {
    th: Rc<Thread>,
    work: Option<Box<Work>>,
}

/// Free sets of one thread.
#[derive(Default)]
pub(crate) struct Works {
    #[allow(clippy::vec_box)] // moved in and out as boxes
    free: RefCell<Vec<Box<Work>>>,
}

impl Lease {
    /// Borrows a set.
    pub(crate) fn take(th: &Rc<Thread>) -> Lease {
        let free = th.works.free.borrow_mut().pop();
        let work = free.unwrap_or_else(|| {
            Box::new(Work {
                req: Head::default(),
                res: Head::default(),
                ways: Ways::default(),
                stream: StreamState::new(th.shared.world.process.stick_counters),
                info: Rc::default(),
                request_line: Vec::new(),
            })
        });
        th.streams.enter(&work.info);
        Lease {
            th: Rc::clone(th),
            work: Some(work),
        }
    }
}

impl Deref for Lease {
    type Target = Work;
    fn deref(&self) -> &Work {
        // Present until `drop`.
        self.work
            .as_ref()
            .expect("work is there until the lease ends")
    }
}
impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Work {
        self.work
            .as_mut()
            .expect("work is there until the lease ends")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut work) = self.work.take() else {
            return;
        };
        let th = &self.th;
        work.stream.reset(&th.shared.world, th.clock.now());
        th.streams.leave(&work.info);
        th.buffers.discard(&mut work.ways.from_client);
        th.buffers.discard(&mut work.ways.from_server);
        work.ways.to_client.clear();
        work.ways.to_server.clear();
        work.request_line.clear();
        let memory = work.req.memory()
            + work.res.memory()
            + work.ways.to_client.bytes.capacity()
            + work.ways.to_server.bytes.capacity()
            + work.request_line.capacity();
        let mut free = th.works.free.borrow_mut();
        if free.len() < KEPT && memory < BYTES_KEPT {
            work.req.clear();
            work.res.clear();
            free.push(work);
        }
    }
}
