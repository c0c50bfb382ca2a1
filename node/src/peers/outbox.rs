//! What waits to be written to one stream: nothing, as a rule. The hub is asked for the next message when the stream has
//! room for one, so that the tables' journals stay the only queue.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use remora_core::peers::{Hub, SessionId};
use remora_proto::peers::v1 as proto;
use tokio::sync::Notify;
use tonic::codegen::tokio_stream::Stream;

use super::greeting::{Parts, cut};
use super::section::Section;
use super::wire;

/// A kind of message that hubs give out.
pub(super) trait Outgoing: Parts + Send + 'static {
    /// The next one for this session.
    fn poll(hub: &mut Hub, id: SessionId, now: u64) -> Option<Self>;
    /// Nothing follows it: the stream ends behind it, and the other side, once it has read that, ends its own.
    fn is_last(&self) -> bool;
}

impl Outgoing for proto::PushMessage {
    fn poll(hub: &mut Hub, id: SessionId, now: u64) -> Option<Self> {
        hub.poll_push(id, now).map(wire::push_message)
    }
    fn is_last(&self) -> bool {
        matches!(self.kind, Some(proto::push_message::Kind::Goodbye(_)))
    }
}

impl Outgoing for proto::ReplyMessage {
    fn poll(hub: &mut Hub, id: SessionId, now: u64) -> Option<Self> {
        hub.poll_reply(id, now).map(wire::reply_message)
    }
    fn is_last(&self) -> bool {
        false
    }
}

/// The sending end of a session.
#[derive(Debug)]
pub(super) struct Outbox<M> {
    id: SessionId,
    state: Mutex<State<M>>,
    /// The hub has dropped the session.
    closed: Notify,
    /// The hub wants the connection to be lent to the peer.
    lend: Notify,
}

#[derive(Debug)]
struct State<M> {
    /// Put there while the stream waited.
    next: Option<M>,
    /// What follows the message before: parts of a greeting.
    rest: VecDeque<M>,
    /// The stream waits.
    waiting: Option<Waker>,
    /// Nothing more is to come.
    ending: bool,
    /// Why, if the other side should hear of it.
    fault: Option<String>,
}

impl<M: Outgoing> Outbox<M> {
    pub(super) fn new(id: SessionId) -> Arc<Outbox<M>> {
        Arc::new(Outbox {
            id,
            state: Mutex::new(State {
                next: None,
                rest: VecDeque::new(),
                waiting: None,
                ending: false,
                fault: None,
            }),
            closed: Notify::new(),
            lend: Notify::new(),
        })
    }

    /// Whose it is.
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// Hands a message to the stream if it waits for one and the hub has one.
    pub(super) fn fill(&self, hub: &mut Hub, now: u64) {
        let mut state = self.state.lock();
        if state.waiting.is_none() || state.next.is_some() || state.ending {
            return;
        }
        if let Some(message) = M::poll(hub, self.id, now) {
            state.ending |= message.is_last();
            state.next = Some(cut(message, &mut state.rest));
            if let Some(waker) = state.waiting.take() {
                waker.wake();
            }
        }
    }

    /// Ends the stream after what it has been given.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.ending = true;
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
        self.closed.notify_one();
    }

    /// The same, and tells the other side why, if the stream is one that can.
    pub(super) fn close_because(&self, why: String) {
        self.state.lock().fault = Some(why);
        self.close();
    }
    fn take_fault(&self) -> Option<String> {
        self.state.lock().fault.take()
    }

    /// Asks for a stream back on the same connection.
    pub(super) fn lend(&self) {
        self.lend.notify_one();
    }
    /// Completes when that is asked for.
    pub(super) async fn is_to_lend(&self) {
        self.lend.notified().await;
    }

    /// Completes once the session was closed from this side.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    fn poll_next(&self, section: &Section, cx: &mut Context<'_>) -> Poll<Option<M>> {
        {
            let mut state = self.state.lock();
            let state = &mut *state;
            if let Some(message) = state.next.take().or_else(|| state.rest.pop_front()) {
                return Poll::Ready(Some(message));
            }
            if state.ending {
                return Poll::Ready(None);
            }
        }
        if let Some(message) = section.next_message::<M>(self.id) {
            let mut state = self.state.lock();
            state.ending |= message.is_last();
            return Poll::Ready(Some(cut(message, &mut state.rest)));
        }
        // All of this happens on one thread, but for reports: nobody fills the outbox in between.
        let mut state = self.state.lock();
        if state.ending {
            return Poll::Ready(None);
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The stream of an [`Outbox`].
pub(super) struct Outflow<M> {
    pub(super) section: Arc<Section>,
    pub(super) outbox: Arc<Outbox<M>>,
}

impl<M: Outgoing> Outflow<M> {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<M>> {
        self.outbox.poll_next(&self.section, cx)
    }
}

/// What a client sends cannot fail.
pub(super) struct Requests<M>(pub(super) Outflow<M>);

impl<M: Outgoing> Stream for Requests<M> {
    type Item = M;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<M>> {
        self.0.poll(cx)
    }
}

/// What a server sends might.
pub(super) struct Responses<M>(pub(super) Outflow<M>);

impl<M: Outgoing> Stream for Responses<M> {
    type Item = Result<M, tonic::Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll(cx).map(|message| match message {
            Some(message) => Some(Ok(message)),
            None => Some(Err(tonic::Status::aborted(self.0.outbox.take_fault()?))),
        })
    }
}
