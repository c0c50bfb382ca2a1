//! A thread's byte buffers: taken for a message, given back after it, so that waiting connections hold none.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use crate::proxy::socket;

/// Sizes a buffer grows through while a body flows. Index 0 is replaced by `tune.bufsize`.
const GROWN: [usize; 2] = [64 * 1024, 256 * 1024];
/// Free buffers kept per size.
const KEPT: [usize; 3] = [256, 32, 16];

/// Bytes in flight: `data[start..end]` is filled.
#[derive(Debug, Default)]
pub struct Buf {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buf {
    /// What is filled.
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }
    /// Number of filled bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }
    /// Nothing filled.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    /// Whole size.
    pub fn capacity(&self) -> usize {
        self.data.len()
    }
    /// Holds no memory.
    pub fn is_unallocated(&self) -> bool {
        self.data.is_empty()
    }
    /// Room behind the filled part.
    pub fn room(&self) -> usize {
        self.data.len() - self.end
    }
    /// Drops `n` bytes from the front.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }
    /// Forgets all bytes.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
    /// Moves the filled part to the front.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
    /// Appends as much of `bytes` as there is room for; returns how much.
    #[cfg(test)]
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        if self.room() < bytes.len() {
            self.compact();
        }
        let n = bytes.len().min(self.room());
        self.data[self.end..self.end + n].copy_from_slice(&bytes[..n]);
        self.end += n;
        n
    }
    /// One `recv` into the room behind the filled part; `Ok(0)` is the end of the stream. There must be room.
    pub fn poll_recv(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let n = ready!(socket::poll_recv(stream, &mut self.data[self.end..], cx))?;
        self.end += n;
        Poll::Ready(Ok(n))
    }
}

/// Free buffers of one thread.
#[derive(Debug)]
pub struct Buffers {
    sizes: [usize; 3],
    free: RefCell<[Vec<Box<[u8]>>; 3]>,
}

impl Buffers {
    /// `bufsize` = `tune.bufsize`.
    pub fn new(bufsize: usize) -> Buffers {
        let base = bufsize.max(1024);
        Buffers {
            sizes: [base, GROWN[0].max(base), GROWN[1].max(base)],
            free: RefCell::default(),
        }
    }

    /// Makes sure `buf` has memory (the smallest size).
    pub fn fill(&self, buf: &mut Buf) {
        if buf.data.is_empty() {
            *buf = Buf {
                data: self.take(0),
                start: 0,
                end: 0,
            };
        }
    }

    /// Gives an empty buffer's memory back.
    pub fn give_back(&self, buf: &mut Buf) {
        if !buf.is_unallocated() && buf.is_empty() {
            self.put(std::mem::take(&mut buf.data));
            buf.start = 0;
            buf.end = 0;
        }
    }

    /// Gives the memory back whatever it holds.
    pub fn discard(&self, buf: &mut Buf) {
        buf.clear();
        self.give_back(buf);
    }

    /// Replaces the memory by the next larger size, keeping the content. `false`: it is the largest.
    pub fn grow(&self, buf: &mut Buf) -> bool {
        let Some(class) = (0..3).find(|&class| self.sizes[class] > buf.capacity()) else {
            return false;
        };
        let mut data = self.take(class);
        let len = buf.len();
        data[..len].copy_from_slice(buf.filled());
        self.put(std::mem::replace(&mut buf.data, data));
        buf.start = 0;
        buf.end = len;
        true
    }

    fn take(&self, class: usize) -> Box<[u8]> {
        if let Some(data) = self.free.borrow_mut()[class].pop() {
            return data;
        }
        vec![0; self.sizes[class]].into_boxed_slice()
    }

    fn put(&self, data: Box<[u8]>) {
        let Some(class) = self.sizes.iter().position(|&size| size == data.len()) else {
            return;
        };
        let mut free = self.free.borrow_mut();
        if free[class].len() < KEPT[class] {
            free[class].push(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_its_content_and_memory_is_used_again() {
        let pool = Buffers::new(16384);
        let mut buf = Buf::default();
        pool.fill(&mut buf);
        assert_eq!(buf.append(b"hello world"), 11);
        buf.consume(6);
        assert!(pool.grow(&mut buf));
        assert_eq!(
            (buf.capacity(), buf.filled()),
            (64 * 1024, b"world".as_slice())
        );
        assert!(pool.grow(&mut buf));
        assert!(!pool.grow(&mut buf));
        assert_eq!(buf.filled(), b"world");
        buf.consume(5);
        pool.give_back(&mut buf);
        assert!(buf.is_unallocated());
        assert_eq!(
            pool.free.borrow().iter().map(Vec::len).collect::<Vec<_>>(),
            [1, 1, 1]
        );
    }

    #[test]
    fn append_makes_room_by_moving() {
        let pool = Buffers::new(1024);
        let mut buf = Buf::default();
        pool.fill(&mut buf);
        assert_eq!(buf.append(&[1; 2000]), 1024);
        buf.consume(1000);
        assert_eq!(buf.append(&[2; 500]), 500);
        assert_eq!(buf.len(), 524);
        assert_eq!(buf.filled()[23], 1);
        assert_eq!(buf.filled()[24], 2);
    }
}
