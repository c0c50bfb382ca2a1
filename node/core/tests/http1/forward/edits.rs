//! What rules may change in a head, what they may not, and until when.

use remora_core::http1::{Limits, RequestFacts, RequestForward, ResponseForward};

use super::{request, response, sent};

#[test]
fn of_every_part() {
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
