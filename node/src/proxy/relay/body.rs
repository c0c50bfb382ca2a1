//! One direction of a message body or tunnel: reads, checks the framing, sends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use remora_core::http1::{Body, Framing, ParseError};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::splice::Pipe;
use crate::proxy::buffers::Buf;
use crate::proxy::socket;
use crate::proxy::worker::Thread;

/// Data that must lie ahead before it goes through a pipe instead of a buffer.
const SPLICE_MIN: u64 = 48 * 1024;
/// What must have passed before data of unknown length goes through a pipe.
const SPLICE_AFTER: u64 = 128 * 1024;
/// Bodies up to this many bytes are copied behind their head, so that one buffer goes into one `send`.
pub(crate) const JOIN_MAX: usize = 4096;
/// Moves in one go before other connections get a turn.
const MOVES_MAX: u32 = 32;

/// Why a transfer stopped early.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The sender's connection broke.
    Source(#[allow(dead_code, reason = "for whoever prints it")] io::Error),
    /// The sender closed in the middle.
    SourceEnded,
    /// The receiver's connection broke.
    Sink(#[allow(dead_code, reason = "for whoever prints it")] io::Error),
    /// The sender's framing makes no sense.
    Invalid(ParseError),
}

/// Bytes that wait to be sent before a body: a message head.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sent: usize,
}

impl Outbox {
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }
    /// Sends what is pending.
    pub(crate) fn poll_send(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let n = ready!(socket::poll_send(stream, &self.bytes[self.sent..], cx))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        Poll::Ready(Ok(()))
    }
}

/// The state of one direction.
#[derive(Debug)]
pub(crate) struct Pump {
    body: Body,
    /// Valid bytes at the front of the buffer that have not been sent.
    ready: usize,
    /// Send the bare data of a chunked body.
    dechunk: bool,
    /// Keep sent head bytes in the outbox, for a retry.
    keep_sent: bool,
    ended: bool,
    splice_allowed: bool,
    pipe: Option<Pipe>,
    /// Bytes read from the source by this pump.
    pub(crate) received: u64,
    /// Bytes sent to the sink by this pump, what was in the outbox included.
    pub(crate) sent: u64,
    /// Of these, bytes that went through a pipe.
    pub(crate) spliced: u64,
}

impl Pump {
    /// For a body framed so.
    pub(crate) fn new(framing: Framing, from_server: bool, dechunk: bool) -> Pump {
        Pump {
            body: Body::new(framing, from_server),
            ready: 0,
            dechunk,
            keep_sent: false,
            ended: false,
            splice_allowed: true,
            pipe: None,
            received: 0,
            sent: 0,
            spliced: 0,
        }
    }

    /// Sent bytes of the outbox stay there.
    pub(crate) fn keeping_sent(mut self) -> Pump {
        self.keep_sent = true;
        self
    }

    /// The whole body has been read.
    pub(crate) fn all_read(&self) -> bool {
        self.ended || self.body.is_done()
    }

    /// Bytes of the body dealt with so far, framing included.
    pub(crate) fn taken(&self) -> u64 {
        self.body.taken()
    }

    /// Everything sent so far is still in the outbox.
    pub(crate) fn can_repeat(&self) -> bool {
        self.keep_sent
    }

    /// Takes bytes that the buffer already holds and that `ready` does not cover.
    pub(crate) fn absorb(&mut self, buf: &mut Buf, out: &mut Outbox) -> Result<(), ParseError> {
        if self.body.is_done() {
            return Ok(());
        }
        if self.dechunk {
            loop {
                let piece = self.body.decode(buf.filled())?;
                if piece.consumed == 0 {
                    return Ok(());
                }
                out.bytes.extend_from_slice(&buf.filled()[piece.data]);
                buf.consume(piece.consumed);
            }
        }
        let fresh = &buf.filled()[self.ready..];
        self.ready += self.body.advance(fresh)?;
        Ok(())
    }

    /// Drops what was read but not sent: the buffer then begins with what follows the body.
    pub(crate) fn forget(&mut self, buf: &mut Buf) {
        buf.consume(self.ready);
        self.ready = 0;
    }

    /// Everything that is to be sent is in the outbox, and stays there.
    pub(crate) fn is_all_kept(&self) -> bool {
        self.keep_sent && self.ready == 0 && self.all_read()
    }

    /// Moves valid bytes from the buffer behind the head in the outbox, so that one write takes both.
    pub(crate) fn join(&mut self, buf: &mut Buf, out: &mut Outbox, max: usize) {
        if self.ready > 0 && self.ready <= max {
            out.bytes.extend_from_slice(&buf.filled()[..self.ready]);
            buf.consume(self.ready);
            self.ready = 0;
        }
    }

    /// Sends what is in the outbox if there is nothing else to send or to receive, which is what most exchanges come down
    /// to. `false`: there is something left to do, or to find out, for [`Pump::poll`].
    pub(crate) fn send_at_once(&mut self, sink: &TcpStream, out: &mut Outbox) -> bool {
        if self.ready > 0 || out.is_empty() || !self.all_read() {
            return false;
        }
        let Ok(n) = socket::try_send(sink, out.pending()) else {
            return false;
        };
        out.sent += n;
        self.sent += n as u64;
        out.is_empty()
    }

    /// Moves on as far as possible. Ready when the whole body has been sent.
    pub(crate) fn poll(
        &mut self,
        th: &Thread,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        buf: &mut Buf,
        out: &mut Outbox,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        let mut moves = 0;
        loop {
            moves += 1;
            if moves > MOVES_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !out.is_empty() || self.ready > 0 {
                if let Err(err) = ready!(self.poll_send(sink, buf, out, cx)) {
                    return Poll::Ready(Err(Fault::Sink(err)));
                }
                continue;
            }
            if let Some(pipe) = &mut self.pipe
                && pipe.len() > 0
            {
                match ready!(pipe.poll_out(sink, cx)) {
                    Ok(n) => {
                        self.sent += n as u64;
                        self.spliced += n as u64;
                    }
                    Err(err) => return Poll::Ready(Err(Fault::Sink(err))),
                }
                continue;
            }
            if self.all_read() {
                self.release(th);
                return Poll::Ready(Ok(()));
            }
            match ready!(self.poll_receive(th, source, buf, out, cx)) {
                Ok(()) => {}
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
    }

    fn poll_send(
        &mut self,
        sink: &mut TcpStream,
        buf: &mut Buf,
        out: &mut Outbox,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let head = out.pending();
        let body = &buf.filled()[..self.ready];
        let n = if head.is_empty() {
            ready!(socket::poll_send(sink, body, cx))?
        } else if body.is_empty() {
            ready!(socket::poll_send(sink, head, cx))?
        } else {
            ready!(
                Pin::new(sink).poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)])
            )?
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_head = n.min(head.len());
        out.sent += of_head;
        if out.is_empty() && !self.keep_sent {
            out.clear();
        }
        if n > of_head {
            buf.consume(n - of_head);
            self.ready -= n - of_head;
            // The bytes are gone from the buffer: there is nothing to repeat.
            self.keep_sent = false;
        }
        self.sent += n as u64;
        Poll::Ready(Ok(()))
    }

    fn poll_receive(
        &mut self,
        th: &Thread,
        source: &mut TcpStream,
        buf: &mut Buf,
        out: &mut Outbox,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        let ahead = self.body.contiguous();
        if self.splice_allowed
            && !self.dechunk
            && ahead >= SPLICE_MIN
            && (ahead < u64::MAX || self.received >= SPLICE_AFTER)
        {
            if self.pipe.is_none() {
                self.pipe = th.pipes.take();
                self.splice_allowed = self.pipe.is_some();
                th.buffers.give_back(buf);
            }
            if let Some(pipe) = &mut self.pipe {
                return match ready!(pipe.poll_in(source, ahead, cx)) {
                    Ok(0) => Poll::Ready(self.end()),
                    Ok(n) => {
                        self.keep_sent = false;
                        self.body.skip(n as u64);
                        self.received += n as u64;
                        Poll::Ready(Ok(()))
                    }
                    // Not every kind of socket can be spliced.
                    Err(err) if err.kind() == io::ErrorKind::InvalidInput => {
                        self.splice_allowed = false;
                        self.pipe = None;
                        Poll::Ready(Ok(()))
                    }
                    Err(err) => Poll::Ready(Err(Fault::Source(err))),
                };
            }
        }
        match socket::poll_readable(source, cx) {
            Poll::Pending => {
                th.buffers.give_back(buf);
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(err)) => return Poll::Ready(Err(Fault::Source(err))),
        }
        if buf.is_unallocated() {
            th.buffers.fill(buf);
            if ahead > buf.capacity() as u64 && ahead < u64::MAX {
                th.buffers.grow(buf);
            }
        }
        match ready!(buf.poll_recv(source, cx)) {
            Ok(0) => Poll::Ready(self.end()),
            Ok(n) => {
                self.received += n as u64;
                let filled_up = buf.room() == 0;
                if let Err(err) = self.absorb(buf, out) {
                    return Poll::Ready(Err(Fault::Invalid(err)));
                }
                if filled_up && !self.all_read() {
                    th.buffers.grow(buf);
                }
                Poll::Ready(Ok(()))
            }
            Err(err) => Poll::Ready(Err(Fault::Source(err))),
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        if self.body.may_end_here() {
            self.ended = true;
            Ok(())
        } else {
            Err(Fault::SourceEnded)
        }
    }

    /// Gives the pipe back.
    pub(crate) fn release(&mut self, th: &Thread) {
        if let Some(pipe) = self.pipe.take() {
            th.pipes.give_back(pipe);
        }
    }

    /// Read but not sent yet: the sink is what holds the transfer up.
    pub(crate) fn is_stuck_on_sink(&self, out: &Outbox) -> bool {
        !out.is_empty() || self.ready > 0 || self.pipe.as_ref().is_some_and(|pipe| pipe.len() > 0)
    }
}
