//! Requests as the server gets them.

use remora_core::http1::RequestForward;

use super::{request, sent};

/// Received and sent header lines of a request to `/` of host `a`, 1.1, keep-alive to the server.
fn to_server(lines: &str) -> String {
    let mut head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    head.prepare_request_for_server(&RequestForward { keep_alive: true })
        .expect("fits");
    let out = sent(&head);
    let lines = out
        .strip_prefix("GET / HTTP/1.1\r\nHost: a\r\n")
        .expect("start");
    lines.strip_suffix("\r\n").expect("end").to_owned()
}

#[test]
fn request_headers() {
    for (received, forwarded) in [
        ("", ""),
        (
            "X-Case: Ab \r\nx:\t1\r\nEmpty:\r\n",
            "X-Case: Ab\r\nx: 1\r\nEmpty: \r\n",
        ),
        ("X:    many   \r\nY: z\r\n", "X: many\r\nY: z\r\n"),
        (
            "Connection: keep-alive\r\nKeep-Alive: 3\r\nProxy-Connection: x\r\nA: b\r\n",
            "A: b\r\n",
        ),
        ("Connection: close\r\nA: b\r\n", "A: b\r\n"),
        (
            "A: b\r\nConnection: X-Hop\r\nX-HOP: 1\r\nx-hop: 2\r\nX-Hops: 3\r\n",
            "A: b\r\nX-Hops: 3\r\n",
        ),
        (
            "X-Hop: 1\r\nA: b\r\nConnection: a\r\nConnection: c, x-hop\r\nC: d\r\nE: f\r\n",
            "E: f\r\n",
        ),
        // what a client may not take away
        (
            "Connection: Host, Content-Length, cookie, Authorization, X-Forwarded-For, X-Forwarded-Proto, Content-Type\r\n\
             Cookie: a=b\r\nAuthorization: c\r\nX-Forwarded-For: 1\r\nX-Forwarded-Proto: x\r\nContent-Type: t\r\nContent-Length: 3\r\n",
            "Cookie: a=b\r\nAuthorization: c\r\nX-Forwarded-For: 1\r\nX-Forwarded-Proto: x\r\nContent-Type: t\r\nContent-Length: 3\r\n",
        ),
        (
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        (
            "Transfer-Encoding: CHUNKED\r\nA: b\r\n",
            "A: b\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("TE: gzip\r\nConnection: TE\r\n", ""),
        (
            "TE: gzip, trailers\r\nConnection: TE\r\nA: b\r\n",
            "A: b\r\nTE: trailers\r\nconnection: TE\r\n",
        ),
        (
            "Trailer: X\r\nTransfer-Encoding: chunked\r\n",
            "Trailer: X\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n",
            "Upgrade: websocket\r\nSec-WebSocket-Key: k\r\nconnection: upgrade\r\n",
        ),
        (
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            "",
        ),
        ("Upgrade: websocket\r\n", ""),
        (
            "Expect: 100-continue\r\nContent-Length: 1\r\n",
            "Expect: 100-continue\r\nContent-Length: 1\r\n",
        ),
    ] {
        assert_eq!(to_server(received), forwarded, "{received:?}");
    }
}

#[test]
fn request_lines() {
    for (received, forwarded) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "get //x?y?z HTTP/1.1\r\nHost: a\r\n",
            "get //x?y?z HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "GET http://a/x?y HTTP/1.1\r\nHost: a:80\r\n",
            "GET /x?y HTTP/1.1\r\nHost: a:80\r\n",
        ),
        (
            "GET http://a HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "GET http://a?q HTTP/1.1\r\nHost: a\r\n",
            "GET /?q HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n",
            "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n",
        ),
        // 1.0 stays 1.0, and the server connection may still persist
        (
            "GET / HTTP/1.0\r\n",
            "GET / HTTP/1.0\r\nconnection: keep-alive\r\n",
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n",
            "GET / HTTP/1.0\r\nconnection: keep-alive\r\n",
        ),
        (
            "GET http://a:81/ HTTP/1.0\r\n",
            "GET / HTTP/1.0\r\nHost: a:81\r\nconnection: keep-alive\r\n",
        ),
    ] {
        let mut head = request(&format!("{received}\r\n"));
        let how = head
            .prepare_request_for_server(&RequestForward { keep_alive: true })
            .expect("fits");
        assert!(!how.close);
        assert_eq!(sent(&head), format!("{forwarded}\r\n"), "{received:?}");
    }
}

#[test]
fn closing_towards_servers() {
    for (received, line) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n", "connection: close\r\n"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n",
            "TE: trailers\r\nconnection: close, TE\r\n",
        ),
    ] {
        let mut head = request(&format!("{received}\r\n"));
        let how = head
            .prepare_request_for_server(&RequestForward { keep_alive: false })
            .expect("fits");
        assert!(how.close);
        assert!(
            sent(&head).ends_with(&format!("Host: a\r\n{line}\r\n")),
            "{}",
            sent(&head)
        );
    }
    let mut head = request("GET / HTTP/1.0\r\n\r\n");
    head.prepare_request_for_server(&RequestForward { keep_alive: false })
        .expect("fits");
    assert_eq!(sent(&head), "GET / HTTP/1.0\r\nconnection: close\r\n\r\n");
    // a rule may close, too
    let mut head = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    head.set_header(b"Connection", b"close").expect("clean");
    let how = head
        .prepare_request_for_server(&RequestForward { keep_alive: true })
        .expect("fits");
    assert!(how.close && sent(&head).ends_with("Host: a\r\nconnection: close\r\n\r\n"));
}

/// Headers that the proxy adds are not the client's to remove.
#[test]
fn own_headers_stay() {
    let mut head = request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-User, Z\r\nX-User: root\r\nZ: 1\r\n\r\n",
    );
    head.set_header(b"X-User", b"nobody").expect("clean");
    head.prepare_request_for_server(&RequestForward { keep_alive: true })
        .expect("fits");
    assert_eq!(
        sent(&head),
        "GET / HTTP/1.1\r\nHost: a\r\nX-User: nobody\r\n\r\n"
    );
}
