//! Responses as the client gets them.

use remora_core::http1::{
    Body, Framing, Head, Limits, MethodKind, RequestFacts, ResponseForward, Version,
};

use super::{request, response, sent};

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
