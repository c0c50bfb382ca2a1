//! What a request says about its connection and its body.

use remora_core::http1::{Framing, Version as HttpVersion};

use super::parse;

#[test]
fn connection() {
    for (version, lines, keep, upgrade, expect) in [
        (HttpVersion::Http11, "", true, false, false),
        (HttpVersion::Http10, "", false, false, false),
        (
            HttpVersion::Http11,
            "Connection: close\r\n",
            false,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: foo, CLOSE\r\n",
            false,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: foo\r\nConnection: close\r\n",
            false,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: close, keep-alive\r\n",
            false,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: closed\r\n",
            true,
            false,
            false,
        ),
        (
            HttpVersion::Http10,
            "Connection: Keep-Alive\r\n",
            true,
            false,
            false,
        ),
        (
            HttpVersion::Http10,
            "Proxy-Connection: keep-alive\r\n",
            false,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Proxy-Connection: close\r\n",
            true,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            true,
            true,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: keep-alive, upgrade\r\nUpgrade: h2c, websocket\r\n",
            true,
            true,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            true,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Upgrade: websocket\r\n",
            true,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: Upgrade\r\n",
            true,
            false,
            false,
        ),
        (
            HttpVersion::Http10,
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            false,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
            true,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Expect: 100-Continue\r\nContent-Length: 1\r\n",
            true,
            false,
            true,
        ),
        (
            HttpVersion::Http11,
            "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
            true,
            false,
            true,
        ),
        (
            HttpVersion::Http11,
            "Expect: 100-continue\r\n",
            true,
            false,
            false,
        ),
        (
            HttpVersion::Http10,
            "Expect: 100-continue\r\nContent-Length: 1\r\n",
            false,
            false,
            false,
        ),
        (
            HttpVersion::Http11,
            "Expect: other\r\nContent-Length: 1\r\n",
            true,
            false,
            false,
        ),
    ] {
        let v = if version == HttpVersion::Http11 {
            "1.1"
        } else {
            "1.0"
        };
        let head =
            parse(format!("GET / HTTP/{v}\r\nHost: a\r\n{lines}\r\n").as_bytes()).expect(lines);
        assert_eq!(head.version(), version);
        assert_eq!(
            (
                head.keep_alive(),
                head.wants_upgrade(),
                head.expects_continue()
            ),
            (keep, upgrade, expect),
            "{v} {lines:?}"
        );
    }
}

#[test]
fn framing() {
    for (lines, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Sized(0)),
        ("Content-Length: 12\r\n", Framing::Sized(12)),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
    ] {
        let head =
            parse(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).expect(lines);
        assert_eq!(head.request_framing(), framing);
    }
}
