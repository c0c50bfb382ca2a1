//! Heads that pass, what is read in them, and what their memory is used for next.

use remora_core::http1::{Framing, Head, Limits};

use super::parse;

#[test]
fn heads() {
    for text in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        b"get / HTTP/1.0\r\n\r\n",
        b"!#$%&'*+-.^_`|~09azAZ / HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: A\r\n\r\n",
        b"CONNECT [::1]:8080 HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
        b"GET http://a/x?y HTTP/1.1\r\nHost: A:80\r\n\r\n",
        b"GET HTTPS://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a HTTP/1.0\r\n\r\n",
        b"GET //a//b/../c?d?e=%zz&{|}\"<>^`\\ HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nhOsT: a\r\nX:\r\nY:  \t \r\nZ:\ta b\tc\t\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: caf\xc3\xa9 \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000000000000007\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:   Chunked\t\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: ,close ,, keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: x\r\nTransfer_Encoding: y\r\n\r\n",
    ] {
        if let Err(e) = parse(text) {
            panic!("{e:?}: {}", text.escape_ascii());
        }
    }
}

#[test]
fn parts() {
    for (line, path, query, authority) in [
        ("GET /a/b?c=d?e", "/a/b", Some("c=d?e"), None),
        ("GET /?", "/", Some(""), None),
        ("GET /", "/", None, None),
        ("OPTIONS *", "", None, None),
        ("GET http://a/b?c", "/b", Some("c"), Some("a")),
        ("GET http://a:80", "/", None, Some("a:80")),
        ("GET http://a?c", "/", Some("c"), Some("a")),
        ("OPTIONS http://a", "", None, Some("a")),
        ("CONNECT a:443", "", None, Some("a:443")),
    ] {
        let head = parse(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect(line);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        assert_eq!(text(head.path()), path, "{line}");
        assert_eq!(head.query().map(text).as_deref(), query, "{line}");
        assert_eq!(head.authority().map(text).as_deref(), authority, "{line}");
        let target = line.split(' ').nth(1).expect("target");
        assert_eq!(text(head.target()), target);
        let whole = query.map_or(path.to_owned(), |q| format!("{path}?{q}"));
        assert_eq!(text(head.path_and_query()), whole);
    }
}

/// A reused head shows nothing of its former life, and pipelined requests follow each other.
#[test]
fn reuse() {
    let pipeline =
        b"POST /1?a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close, x\r\n\r\n\
                     GET /2 HTTP/1.1\r\nHost: b\r\n\r\nGET / HT";
    let mut head = Head::default();
    let limits = Limits::default();
    let n = head
        .parse_request(pipeline, &limits)
        .expect("valid")
        .expect("complete");
    assert!(!head.keep_alive());
    head.add_header(b"x", b"y").expect("clean");
    let m = head
        .parse_request(&pipeline[n..], &limits)
        .expect("valid")
        .expect("complete");
    assert_eq!(
        (head.path(), head.query(), head.host()),
        (&b"/2"[..], None, Some(&b"b"[..]))
    );
    assert!(head.keep_alive() && head.headers().len() == 1);
    assert_eq!(head.request_framing(), Framing::None);
    assert_eq!(head.parse_request(&pipeline[n + m..], &limits), Ok(None));
    assert!(!head.is_complete());
}

/// Parsing a head of the same size again needs no new memory.
#[test]
fn memory_is_reused() {
    let text =
        b"GET /some/path?with=query HTTP/1.1\r\nHost: example.org\r\nA: b\r\nC: d\r\nE: f\r\n\r\n";
    let mut head = Head::default();
    let limits = Limits::default();
    head.parse_request(text, &limits)
        .expect("valid")
        .expect("complete");
    let memory = head.memory();
    for _ in 0..10 {
        head.clear();
        head.parse_request(text, &limits)
            .expect("valid")
            .expect("complete");
        assert_eq!(head.memory(), memory);
    }
}
