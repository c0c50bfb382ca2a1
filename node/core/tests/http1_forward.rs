//! From received to sent: hop-by-hop headers, persistence, versions, targets.

use remora_core::http1::{
    Body, Framing, Head, Limits, MethodKind, RequestFacts, RequestForward, ResponseForward, Version,
};

fn request(text: &str) -> Head {
    let mut head = Head::default();
    let n = head
        .parse_request(text.as_bytes(), &Limits::default())
        .expect("valid")
        .expect("complete");
    assert_eq!(n, text.len());
    head
}

fn sent(head: &Head) -> String {
    let mut out = b"before".to_vec();
    head.write(&mut out);
    let mut again = Vec::new();
    head.write(&mut again);
    assert_eq!(&out[6..], again, "writing does not change the head");
    String::from_utf8(again).expect("text")
}

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

#[test]
fn edits() {
    let mut head = request("GET /p?q HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\na: 3\r\n\r\n");
    head.add_header(b"C", b"  4 ").expect("clean");
    head.set_header(b"a", b"5").expect("clean");
    head.set_header(b"HOST", b"b:8080").expect("clean");
    assert_eq!(head.remove_headers(|name| name == b"B"), 1);
    assert_eq!(head.remove_header(b"nothing"), 0);
    head.set_method(b"POST").expect("token");
    head.set_path(b"/new").expect("clean");
    head.set_query(b"x=y").expect("clean");
    assert_eq!(
        sent(&head),
        "POST /new?x=y HTTP/1.1\r\nC: 4\r\na: 5\r\nHOST: b:8080\r\n\r\n"
    );
    head.set_query(b"").expect("clean");
    head.set_path(b"/z").expect("clean");
    assert_eq!(
        (head.path(), head.query(), head.target()),
        (&b"/z"[..], None, &b"/z"[..])
    );
    for bad in [
        &b""[..],
        b"x",
        b"/a b",
        b"/a\r\nX: y",
        b"/a#b",
        b"http://b/",
        b"/\xff",
    ] {
        assert!(head.set_target(bad).is_err(), "{}", bad.escape_ascii());
    }
    assert!(head.set_path(b"/a?b").is_err());
    assert!(
        head.set_method(b"HEAD").is_err()
            && head.set_method(b"A B").is_err()
            && head.set_method(b"CONNECT").is_err()
    );
    assert!(head.set_header(b"Host", b"a b").is_err());
    assert_eq!(head.host(), Some(&b"b:8080"[..]));
    let mut head = response("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
    head.set_status(503, b"Busy").expect("both have bodies");
    assert!(head.set_status(204, b"x").is_err() && head.set_status(100, b"x").is_err());
    assert!(head.set_status(200, b"a\r\nb").is_err() && head.set_status(600, b"x").is_err());
    assert_eq!(
        sent(&head),
        "HTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\n"
    );
}

fn response(text: &str) -> Head {
    let mut head = Head::default();
    let n = head
        .parse_response(text.as_bytes(), &Limits::default())
        .expect("valid")
        .expect("complete");
    assert_eq!(n, text.len());
    head
}

/// What a client of that version, wishing to keep its connection or not, gets: header lines, close, dechunk.
fn to_client(
    start: &str,
    lines: &str,
    request: RequestFacts,
    keep_alive: bool,
) -> (String, bool, bool) {
    let mut head = response(&format!("{start}\r\n{lines}\r\n"));
    let framing = head.response_framing(&request).expect("asked for");
    let how = head
        .prepare_response_for_client(&ResponseForward {
            request,
            framing,
            keep_alive,
        })
        .expect("fits");
    let out = sent(&head);
    let (first, rest) = out.split_once("\r\n").expect("lines");
    assert_eq!(
        first.split_once(' ').map(|p| p.1),
        start.split_once(' ').map(|p| p.1)
    );
    assert!(first.starts_with("HTTP/1.1 "));
    (
        rest.strip_suffix("\r\n").expect("end").to_owned(),
        how.close,
        how.dechunk,
    )
}

#[test]
fn responses() {
    let new = RequestFacts {
        keep_alive: true,
        ..RequestFacts::default()
    };
    let closing = RequestFacts {
        keep_alive: false,
        ..new
    };
    let old = RequestFacts {
        version: Version::Http10,
        ..new
    };
    let old_closing = RequestFacts {
        version: Version::Http10,
        ..closing
    };
    let head = RequestFacts {
        method: MethodKind::Head,
        ..new
    };
    let connect = RequestFacts {
        method: MethodKind::Connect,
        ..new
    };
    let upgrade = RequestFacts {
        upgrade: true,
        ..new
    };
    let ok = "HTTP/1.1 200 OK";
    let sized = "Content-Length: 2\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let with = |a: &str, b: &str| format!("{a}{b}");
    for (start, received, request, keep_alive, forwarded, close, dechunk) in [
        (
            ok,
            sized.to_owned(),
            new,
            true,
            sized.to_owned(),
            false,
            false,
        ),
        (
            ok,
            sized.into(),
            new,
            false,
            with(sized, "connection: close\r\n"),
            true,
            false,
        ),
        (
            ok,
            sized.into(),
            closing,
            true,
            with(sized, "connection: close\r\n"),
            true,
            false,
        ),
        (
            ok,
            sized.into(),
            old,
            true,
            with(sized, "connection: keep-alive\r\n"),
            false,
            false,
        ),
        (
            ok,
            sized.into(),
            old_closing,
            true,
            with(sized, "connection: close\r\n"),
            true,
            false,
        ),
        (
            "HTTP/1.0 200 OK",
            sized.into(),
            new,
            true,
            sized.into(),
            false,
            false,
        ),
        // the server's own connection is its own matter
        (
            ok,
            with("Connection: close\r\n", sized),
            new,
            true,
            sized.into(),
            false,
            false,
        ),
        (
            ok,
            with(
                "Keep-Alive: x\r\nProxy-Connection: y\r\nConnection: X, keep-alive\r\nX: z\r\n",
                sized,
            ),
            new,
            true,
            sized.into(),
            false,
            false,
        ),
        (
            ok,
            with("Connection: Set-Cookie\r\nSet-Cookie: a=b\r\n", sized),
            new,
            true,
            with("Set-Cookie: a=b\r\n", sized),
            false,
            false,
        ),
        (
            ok,
            with("Upgrade: h2,h2c\r\nConnection: Upgrade\r\n", sized),
            new,
            true,
            sized.into(),
            false,
            false,
        ),
        (
            "HTTP/1.1 426 Upgrade",
            with("Upgrade: x\r\nConnection: upgrade\r\n", sized),
            new,
            true,
            with(
                "Upgrade: x\r\n",
                "Content-Length: 2\r\nconnection: upgrade\r\n",
            ),
            false,
            false,
        ),
        // chunked
        (
            ok,
            with(chunked, "Trailer: T\r\n"),
            new,
            true,
            with(chunked, "Trailer: T\r\n"),
            false,
            false,
        ),
        (
            ok,
            with(chunked, "Trailer: T\r\n"),
            old,
            true,
            "connection: close\r\n".into(),
            true,
            true,
        ),
        (
            ok,
            chunked.into(),
            old_closing,
            true,
            "connection: close\r\n".into(),
            true,
            true,
        ),
        // until close
        (
            ok,
            String::new(),
            new,
            true,
            "connection: close\r\n".into(),
            true,
            false,
        ),
        (
            "HTTP/1.0 200 OK",
            String::new(),
            old,
            true,
            "connection: close\r\n".into(),
            true,
            false,
        ),
        // no body
        (
            "HTTP/1.1 204 No Content",
            sized.into(),
            new,
            true,
            String::new(),
            false,
            false,
        ),
        (
            "HTTP/1.1 204 No Content",
            chunked.into(),
            new,
            true,
            String::new(),
            false,
            false,
        ),
        (
            "HTTP/1.1 304 Not Modified",
            sized.into(),
            new,
            true,
            sized.into(),
            false,
            false,
        ),
        (ok, sized.into(), head, true, sized.into(), false, false),
        (ok, chunked.into(), head, true, chunked.into(), false, false),
        (ok, String::new(), head, true, String::new(), false, false),
        // interim
        (
            "HTTP/1.1 100 Continue",
            with("X: y\r\n", sized),
            new,
            true,
            "X: y\r\n".into(),
            false,
            false,
        ),
        (
            "HTTP/1.1 103 Early Hints",
            "Link: x\r\nConnection: close\r\n".into(),
            closing,
            false,
            "Link: x\r\n".into(),
            false,
            false,
        ),
        // tunnels
        (
            "HTTP/1.1 101 Switching",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n".into(),
            upgrade,
            false,
            "Upgrade: websocket\r\nconnection: upgrade\r\n".into(),
            false,
            false,
        ),
        (
            ok,
            with(sized, "X: y\r\n"),
            connect,
            true,
            "X: y\r\n".into(),
            false,
            false,
        ),
    ] {
        let got = to_client(start, &received, request, keep_alive);
        assert_eq!(
            got,
            (forwarded, close, dechunk),
            "{start} {received:?} {request:?} {keep_alive}"
        );
    }
}

#[test]
fn a_rule_may_close_the_client_connection() {
    let request = RequestFacts {
        keep_alive: true,
        ..RequestFacts::default()
    };
    let mut head =
        response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n");
    head.set_header(b"Connection", b"Close").expect("clean");
    let framing = head.response_framing(&request).expect("plain");
    let how = head
        .prepare_response_for_client(&ResponseForward {
            request,
            framing,
            keep_alive: true,
        })
        .expect("fits");
    assert!(how.close);
    assert_eq!(
        sent(&head),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\n"
    );
}

/// A chunked response for an HTTP/1.0 client, end to end.
#[test]
fn dechunking() {
    let facts = request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").request_facts();
    let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n";
    let mut head = Head::default();
    let n = head
        .parse_response(text, &Limits::default())
        .expect("valid")
        .expect("complete");
    let framing = head.response_framing(&facts).expect("plain");
    assert_eq!(framing, Framing::Chunked);
    let (mut body, mut rest, mut data) = (Body::new(framing, true), &text[n..], Vec::new());
    while !body.is_done() {
        let piece = body.decode(rest).expect("valid");
        data.extend_from_slice(&rest[piece.data]);
        rest = &rest[piece.consumed..];
    }
    assert_eq!((data.as_slice(), rest.len()), (&b"abcde"[..], 0));
}

/// A rule that takes `Upgrade` or `Expect` away prevents what they ask for.
#[test]
fn rules_may_refuse_upgrades() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut head = request(text);
    assert!(head.request_facts().upgrade);
    head.remove_header(b"upgrade");
    assert!(!head.request_facts().upgrade);
    head.prepare_request_for_server(&RequestForward { keep_alive: true })
        .expect("fits");
    assert_eq!(sent(&head), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut head =
        request("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    head.remove_header(b"Expect");
    assert!(!head.expects_continue());
}

/// After a head was prepared, edits cannot undo what was decided.
#[test]
fn prepared_heads_are_sealed() {
    let request = RequestFacts {
        keep_alive: true,
        ..RequestFacts::default()
    };
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\n";
    let mut head = response(text);
    let framing = head.response_framing(&request).expect("plain");
    head.prepare_response_for_client(&ResponseForward {
        request,
        framing,
        keep_alive: false,
    })
    .expect("fits");
    assert_eq!(head.remove_headers(|_| true), 1);
    assert_eq!(
        head.remove_header(b"content-length") + head.remove_header(b"connection"),
        0
    );
    assert!(head.set_header(b"Connection", b"keep-alive").is_err());
    assert!(head.add_header(b"Connection", b"keep-alive").is_err());
    assert!(head.add_header(b"Z", b"a\n").is_err());
    assert_eq!(
        sent(&head),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\n"
    );
    // a new life
    head.parse_response(text.as_bytes(), &Limits::default())
        .expect("valid")
        .expect("complete");
    assert_eq!(head.remove_headers(|_| true), 2);
}
