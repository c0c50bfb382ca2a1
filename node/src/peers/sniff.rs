//! Remembers how the other side began to speak, to be able to say what it is when it is no Remora.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As many bytes as the preface of HTTP/2 has.
const HEAD_BYTES: usize = 24;

/// The first bytes that were received on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Head(Arc<Mutex<Vec<u8>>>);

impl Head {
    /// What the other side speaks, unless it may well be what was expected.
    pub(super) fn stranger(&self, expected: Expected) -> Option<String> {
        stranger(&self.0.lock(), expected)
    }
    /// Whether a server of HTTP/1 answers that it does not understand. A balancer that finds nobody to pass a connection on to
    /// says 502, 503 or 504: that is no answer of who is asked for, who may be there in a moment.
    pub(super) fn refuses_http2(&self) -> bool {
        let head = self.0.lock();
        let Some(rest) = head.strip_prefix(b"HTTP/1.") else {
            return false;
        };
        matches!(
            rest,
            [_, b' ', b'4', b'0', b'0'..=b'7', ..] | [_, b' ', b'5', b'0', b'1' | b'5', ..]
        )
    }
}

/// What the other side should begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// A handshake, from either side.
    Tls,
    /// The preface of an HTTP/2 client.
    Http2Client,
    /// The settings frame of an HTTP/2 server.
    Http2Server,
}

/// A connection with its [`Head`].
#[derive(Debug)]
pub(super) struct Sniffed<S> {
    stream: S,
    head: Head,
    full: bool,
}

impl<S> Sniffed<S> {
    pub(super) fn new(stream: S) -> (Sniffed<S>, Head) {
        let head = Head::default();
        let sniffed = Sniffed {
            stream,
            head: head.clone(),
            full: false,
        };
        (sniffed, head)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if !self.full {
            let new = buf.filled().get(before..).unwrap_or_default();
            let mut head = self.head.0.lock();
            let room = HEAD_BYTES.saturating_sub(head.len()).min(new.len());
            head.extend_from_slice(new.get(..room).unwrap_or_default());
            let full = head.len() == HEAD_BYTES;
            drop(head);
            self.full = full;
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniffed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn stranger(head: &[u8], expected: Expected) -> Option<String> {
    let is_tls = matches!(head, [0x15 | 0x16, 3, ..]);
    let is_preface = !head.is_empty() && PREFACE.starts_with(head);
    // A settings frame: length, type 4, no flag, stream 0.
    let is_settings = matches!(head, [0, _, _, 4, 0, 0, 0, 0, 0, ..]);
    let fine = match expected {
        Expected::Tls => is_tls,
        Expected::Http2Client => is_preface,
        Expected::Http2Server => is_settings,
    };
    if fine || head.is_empty() {
        return None;
    }
    let line = || {
        let end = head.iter().position(|b| matches!(b, b'\r' | b'\n'));
        String::from_utf8_lossy(head.get(..end.unwrap_or(head.len())).unwrap_or(head))
    };
    Some(match head {
        _ if is_tls => "it speaks TLS, and this side plain text".into(),
        _ if is_preface || is_settings => "it speaks plain text, and this side TLS".into(),
        [b'H', b'A', b'P', b'r', b'o', b'x', b'y', b'S', ..] => format!(
            "it speaks HAProxy's own peers protocol ({}), which Remora does not",
            line()
        ),
        [b'2' | b'3' | b'5', b'0', b'0'..=b'4', b'\n', ..] => format!(
            "it speaks HAProxy's own peers protocol (status {}), which Remora does not",
            line()
        ),
        [b'H', b'T', b'T', b'P', b'/', ..] => format!("it speaks HTTP/1 ({})", line()),
        [b'P', b'R', b'O', b'X', b'Y', ..] | [b'\r', b'\n', b'\r', b'\n', 0, ..] => {
            "it speaks the PROXY protocol".into()
        }
        [b'S', b'S', b'H', b'-', ..] => format!("it speaks SSH ({})", line()),
        _ if METHODS.iter().any(|m| head.starts_with(m)) => {
            format!("it speaks HTTP/1 ({}...)", line())
        }
        _ => {
            let hex: String = head.iter().take(12).map(|b| format!("{b:02x}")).collect();
            format!("it speaks no known protocol (it began with {hex})")
        }
    })
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHODS: [&[u8]; 7] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"OPTIONS ",
    b"CONNECT ",
    b"DELETE ",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_understand_http2() {
        for (head, refuses) in [
            ("HTTP/1.1 400 Bad Request", true),
            ("HTTP/1.0 404 Not Found", true),
            ("HTTP/1.1 501 Unsupported", true),
            ("HTTP/1.1 505 HTTP Versio", true),
            ("HTTP/1.1 408 Request Tim", false),
            ("HTTP/1.1 429 Too Many Re", false),
            ("HTTP/1.1 500 Internal Se", false),
            ("HTTP/1.1 502 Bad Gateway", false),
            ("HTTP/1.0 503 Service Una", false),
            ("HTTP/1.1 504 Gateway Tim", false),
            ("HTTP/1.1 200 OK", false),
            ("HTTP/1.1 ", false),
            ("", false),
        ] {
            let (_, known) = Sniffed::new(());
            known.0.lock().extend_from_slice(head.as_bytes());
            assert_eq!(known.refuses_http2(), refuses, "{head}");
        }
    }

    #[test]
    fn what_was_expected_is_no_stranger() {
        for (head, expected) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM"[..], Expected::Http2Client),
            (b"PRI", Expected::Http2Client),
            (&[0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3], Expected::Http2Server),
            (&[0x16, 3, 1, 2, 0], Expected::Tls),
            (&[0x15, 3, 3, 0, 2], Expected::Tls),
            (b"", Expected::Http2Client),
        ] {
            assert_eq!(stranger(head, expected), None, "{head:?}");
        }
    }

    #[test]
    fn strangers_are_named() {
        for (head, expected, part) in [
            (
                &b"HAProxyS 2.1\nb\nvm 12 1\n"[..],
                Expected::Http2Client,
                "(HAProxyS 2.1)",
            ),
            (b"501\n", Expected::Http2Server, "(status 501)"),
            (
                b"GET /metrics HTTP/1.1\r\nH",
                Expected::Http2Client,
                "HTTP/1 (GET /metrics",
            ),
            (
                b"HTTP/1.1 400 Bad Request",
                Expected::Http2Server,
                "(HTTP/1.1 400 Bad Request)",
            ),
            (
                &[0x16, 3, 1, 2, 0],
                Expected::Http2Client,
                "speaks TLS, and this side plain",
            ),
            (
                &[0x15, 3, 3, 0, 2],
                Expected::Http2Server,
                "speaks TLS, and this side plain",
            ),
            (
                b"PRI * HTTP/2.0",
                Expected::Tls,
                "plain text, and this side TLS",
            ),
            (
                &[0, 0, 18, 4, 0, 0, 0, 0, 0],
                Expected::Tls,
                "plain text, and this side TLS",
            ),
            (
                b"PROXY TCP4 1.2.3.4",
                Expected::Http2Client,
                "PROXY protocol",
            ),
            (
                b"SSH-2.0-OpenSSH_9.2\r\n",
                Expected::Http2Server,
                "SSH (SSH-2.0-OpenSSH_9.2)",
            ),
            (&[1, 2, 0xff], Expected::Http2Client, "began with 0102ff)"),
        ] {
            let said = stranger(head, expected).unwrap_or_default();
            assert!(said.contains(part), "{said}");
        }
    }
}
