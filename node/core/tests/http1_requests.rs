//! Request heads: what is accepted, what is refused, why and where.

use remora_core::http1::{ErrorKind, Framing, Head, Limits, Version as HttpVersion};

fn parse(text: &[u8]) -> Result<Head, (ErrorKind, u64, u16)> {
    let mut head = Head::default();
    match head.parse_request(text, &Limits::default()) {
        Ok(Some(n)) => {
            assert_eq!(n, text.len(), "{}", text.escape_ascii());
            Ok(head)
        }
        Ok(None) => panic!("incomplete: {}", text.escape_ascii()),
        Err(e) => Err((e.kind(), e.offset(), e.status())),
    }
}

#[test]
fn accepted() {
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
fn refused() {
    use ErrorKind::*;
    let h = "Host: a\r\n";
    for (text, kind, at) in [
        // start line
        ("GET /\r\n\r\n".into(), StartLine, 3),
        ("GET\r\n\r\n".into(), StartLine, 0),
        (" GET / HTTP/1.1\r\n\r\n".into(), Method, 0),
        ("GE(T / HTTP/1.1\r\n\r\n".into(), Method, 0),
        ("GET\t/ HTTP/1.1\r\n\r\n".into(), Method, 0),
        ("GET  / HTTP/1.1\r\n\r\n".into(), StartLine, 3),
        ("GET /  HTTP/1.1\r\n\r\n".into(), StartLine, 3),
        ("GET / HTTP/1.1 \r\n\r\n".into(), StartLine, 3),
        ("GET /a b HTTP/1.1\r\n\r\n".into(), StartLine, 3),
        ("GET /\tHTTP/1.1\r\n\r\n".into(), StartLine, 3),
        ("GET /\ta HTTP/1.1\r\n\r\n".into(), Target, 5),
        ("GET /é HTTP/1.1\r\n\r\n".into(), Target, 5),
        ("GET /#a HTTP/1.1\r\n\r\n".into(), Target, 5),
        (format!("GET a HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("GET * HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("GET ?a HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("GET a:80 HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("GET ftp://a/ HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("GET http:///x HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("GET http://u@a/x HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("GET http://a\\b/x HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("GET http:/a/x HTTP/1.1\r\n{h}\r\n"), Target, 4),
        (format!("CONNECT a HTTP/1.1\r\n{h}\r\n"), Target, 8),
        (format!("CONNECT a: HTTP/1.1\r\n{h}\r\n"), Target, 8),
        (format!("CONNECT :80 HTTP/1.1\r\n{h}\r\n"), Target, 8),
        (format!("CONNECT / HTTP/1.1\r\n{h}\r\n"), Target, 8),
        (
            format!("CONNECT http://a:80 HTTP/1.1\r\n{h}\r\n"),
            Target,
            8,
        ),
        (
            format!("CONNECT a:80 HTTP/1.1\r\n{h}Content-Length: 1\r\n\r\n"),
            ConnectBody,
            0,
        ),
        // version
        (format!("GET / HTTP/2.0\r\n{h}\r\n"), Version, 6),
        (format!("GET / HTTP/1.2\r\n{h}\r\n"), Version, 6),
        (format!("GET / HTTP/0.9\r\n{h}\r\n"), Version, 6),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Version, 6),
        (format!("GET / HTTP/1\r\n{h}\r\n"), StartLine, 3),
        (format!("GET / http/1.1\r\n{h}\r\n"), StartLine, 3),
        (format!("GET / HTTP/11\r\n{h}\r\n"), StartLine, 3),
        (format!("GET / HTTP/1.1x\r\n{h}\r\n"), StartLine, 3),
        (format!("GET / HTTP/01.1\r\n{h}\r\n"), StartLine, 3),
        (format!("GET / ICAP/1.1\r\n{h}\r\n"), StartLine, 3),
        // line ends and control characters
        (format!("GET / HTTP/1.1\n{h}\r\n"), BareLf, 14),
        (format!("GET / HTTP/1.1\r\n{h}X: a\n\r\n"), BareLf, 29),
        (format!("GET / HTTP/1.1\r\n{h}\n"), BareLf, 25),
        (format!("GET / HTTP/1.1\r\n{h}X: a\rb\r\n\r\n"), BareCr, 29),
        (format!("GET / HTTP/1.1\r\n{h}X: a\r\r\n\r\n"), BareCr, 29),
        (format!("GET / HTTP/1.1\r\r\n{h}\r\n"), BareCr, 14),
        (format!("GET / HTTP/1.1\r\n{h}\r\r\n\r\n"), BareCr, 25),
        (
            format!("GET / HTTP/1.1\r\n{h}X: a\0b\r\n\r\n"),
            ControlCharacter,
            29,
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}X: a\x0bb\r\n\r\n"),
            ControlCharacter,
            29,
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}X: \x7f\r\n\r\n"),
            ControlCharacter,
            28,
        ),
        (format!("GET /\0 HTTP/1.1\r\n{h}\r\n"), ControlCharacter, 5),
        (
            format!("GET / HTTP/1.1\r\n{h}X\x01: a\r\n\r\n"),
            ControlCharacter,
            26,
        ),
        (
            "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.0\r\n\r\n".into(),
            LeadingEmptyLines,
            8,
        ),
        ("\nGET / HTTP/1.0\r\n\r\n".into(), BareLf, 0),
        // header lines
        (format!("GET / HTTP/1.1\r\n{h}X\r\n\r\n"), NoColon, 26),
        (format!("GET / HTTP/1.1\r\n{h}: a\r\n\r\n"), EmptyName, 25),
        (
            format!("GET / HTTP/1.1\r\n{h}X : a\r\n\r\n"),
            BlankBeforeColon,
            26,
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}X\t: a\r\n\r\n"),
            BlankBeforeColon,
            26,
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}X a: a\r\n\r\n"),
            HeaderName,
            26,
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}X(: a\r\n\r\n"),
            HeaderName,
            26,
        ),
        (format!("GET / HTTP/1.1\r\n{h}é: a\r\n\r\n"), HeaderName, 25),
        (
            format!("GET / HTTP/1.1\r\n{h}X: a\r\n b\r\n\r\n"),
            ObsFold,
            31,
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}X: a\r\n\tb: c\r\n\r\n"),
            ObsFold,
            31,
        ),
        (format!("GET / HTTP/1.1\r\n {h}\r\n"), ObsFold, 16),
        (format!("GET / HTTP/1.1\r\n{h} \r\n\r\n"), ObsFold, 25),
        // Host
        ("GET / HTTP/1.1\r\n\r\n".into(), HostMissing, 0),
        ("GET http://a/ HTTP/1.1\r\n\r\n".into(), HostMissing, 0),
        (format!("GET / HTTP/1.1\r\n{h}{h}\r\n"), HostRepeated, 31),
        (
            format!("GET / HTTP/1.0\r\n{h}host: b\r\n\r\n"),
            HostRepeated,
            31,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(),
            HostInvalid,
            22,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(),
            HostInvalid,
            22,
        ),
        (
            "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n".into(),
            HostInvalid,
            22,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".into(),
            HostInvalid,
            22,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n".into(),
            HostInvalid,
            22,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into(),
            HostInvalid,
            22,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(),
            HostInvalid,
            22,
        ),
        (
            format!("GET http://b/ HTTP/1.1\r\n{h}\r\n"),
            HostMismatch,
            4,
        ),
        (
            format!("GET http://a:81/ HTTP/1.1\r\n{h}\r\n"),
            HostMismatch,
            4,
        ),
        (
            format!("GET https://a:80/ HTTP/1.1\r\n{h}\r\n"),
            HostMismatch,
            4,
        ),
        (
            "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n".into(),
            HostMismatch,
            4,
        ),
        (
            format!("CONNECT a:8080 HTTP/1.1\r\n{h}\r\n"),
            HostMismatch,
            8,
        ),
        (
            format!("CONNECT b:443 HTTP/1.1\r\n{h}\r\n"),
            HostMismatch,
            8,
        ),
    ] {
        let status = match kind {
            Version => 505,
            _ => 400,
        };
        assert_eq!(
            parse(text.as_bytes()).map(|_| ()),
            Err((kind, at, status)),
            "{}",
            text.escape_debug()
        );
    }
}

#[test]
fn refused_lengths() {
    use ErrorKind::*;
    for (lines, kind, status) in [
        ("Content-Length: \r\n", ContentLength, 400),
        ("Content-Length: +5\r\n", ContentLength, 400),
        ("Content-Length: -5\r\n", ContentLength, 400),
        ("Content-Length: 5 5\r\n", ContentLength, 400),
        ("Content-Length: 5,5\r\n", ContentLength, 400),
        ("Content-Length: 5, 5\r\n", ContentLength, 400),
        ("Content-Length: 0x5\r\n", ContentLength, 400),
        ("Content-Length: 5.0\r\n", ContentLength, 400),
        ("Content-Length: \"5\"\r\n", ContentLength, 400),
        (
            "Content-Length: 9223372036854775808\r\n",
            ContentLength,
            400,
        ),
        (
            "Content-Length: 18446744073709551616\r\n",
            ContentLength,
            400,
        ),
        (
            "Content-Length: 00000000000000000000005\r\n",
            ContentLength,
            400,
        ),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            ContentLengthRepeated,
            400,
        ),
        (
            "Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n",
            ContentLengthRepeated,
            400,
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            LengthAndEncoding,
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            LengthAndEncoding,
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            LengthAndEncoding,
            400,
        ),
        ("Transfer-Encoding:\r\n", TransferEncoding, 400),
        ("Transfer-Encoding: identity\r\n", TransferEncoding, 400),
        ("Transfer-Encoding: chunke\r\n", TransferEncoding, 400),
        ("Transfer-Encoding: xchunked\r\n", TransferEncoding, 400),
        ("Transfer-Encoding: chunkedx\r\n", TransferEncoding, 400),
        ("Transfer-Encoding: \"chunked\"\r\n", TransferEncoding, 400),
        ("Transfer-Encoding: chunked;q=1\r\n", TransferEncoding, 400),
        (
            "Transfer-Encoding: chunked, chunked\r\n",
            TransferEncoding,
            400,
        ),
        ("Transfer-Encoding: chunked,\r\n", TransferEncoding, 400),
        ("Transfer-Encoding: ,chunked\r\n", TransferEncoding, 400),
        (
            "Transfer-Encoding: chunked, gzip\r\n",
            TransferEncoding,
            400,
        ),
        ("Transfer-Encoding: cow, chunked\r\n", TransferEncoding, 400),
        (
            "Transfer-Encoding: identity, chunked\r\n",
            TransferEncoding,
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            TransferEncoding,
            400,
        ),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            TransferEncoding,
            400,
        ),
        ("Transfer-Encoding: gzip, chunked\r\n", TransferCoding, 501),
        (
            "Transfer-Encoding: gzip , deflate, CHUNKED\r\n",
            TransferCoding,
            501,
        ),
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let got = parse(text.as_bytes())
            .map(|_| ())
            .map_err(|(kind, _, status)| (kind, status));
        assert_eq!(got, Err((kind, status)), "{lines:?}");
    }
    let old = parse(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old.map(|_| ()), Err((EncodingIn10, 17, 400)));
}

#[test]
fn limits() {
    let limits = Limits {
        head_bytes_max: 64,
        headers_max: 3,
    };
    let kind = |text: &[u8]| {
        Head::default()
            .parse_request(text, &limits)
            .map_err(|e| (e.kind(), e.status()))
    };
    // exactly at the limit
    let fits = format!(
        "GET / HTTP/1.0\r\nX: {}\r\n\r\n",
        "a".repeat(64 - 16 - 3 - 4)
    );
    assert_eq!(fits.len(), 64);
    assert_eq!(kind(fits.as_bytes()), Ok(Some(64)));
    let over = format!(
        "GET / HTTP/1.0\r\nX: {}\r\n\r\n",
        "a".repeat(64 - 16 - 3 - 4 + 1)
    );
    assert_eq!(kind(over.as_bytes()), Err((ErrorKind::HeadTooLarge, 431)));
    assert_eq!(
        kind(&over.as_bytes()[..64]),
        Err((ErrorKind::HeadTooLarge, 431))
    );
    assert_eq!(kind(&over.as_bytes()[..63]), Ok(None));
    let long = format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(64));
    assert_eq!(kind(long.as_bytes()), Err((ErrorKind::TargetTooLong, 414)));
    assert_eq!(
        kind(b"GET / HTTP/1.0\r\na:\r\nb:\r\nc:\r\n\r\n"),
        Ok(Some(30))
    );
    assert_eq!(
        kind(b"GET / HTTP/1.0\r\na:\r\nb:\r\nc:\r\nd:\r\n"),
        Err((ErrorKind::TooManyHeaders, 431))
    );
    // HAProxy's default
    let many = |n: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "a:\r\n".repeat(n));
    assert!(parse(many(101).as_bytes()).is_ok());
    assert_eq!(
        parse(many(102).as_bytes()).map(|_| ()).map_err(|e| e.2),
        Err(431)
    );
    assert_eq!(
        parse(many(10_000).as_bytes()).map(|_| ()).map_err(|e| e.2),
        Err(431)
    );
}

/// Garbage is refused as soon as it is seen, without waiting for a line end that may never come.
#[test]
fn early_refusals() {
    for (text, kind) in [
        (
            &b"\x16\x03\x01\x02\x00\x01"[..],
            ErrorKind::ControlCharacter,
        ), // a TLS handshake
        (b"GET /\0", ErrorKind::ControlCharacter),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01",
            ErrorKind::ControlCharacter,
        ),
        (b"GET / HTTP/1.1\rX", ErrorKind::BareCr),
    ] {
        let mut head = Head::default();
        assert_eq!(
            head.parse_request(text, &Limits::default())
                .map_err(|e| e.kind()),
            Err(kind)
        );
    }
    let mut head = Head::default();
    assert_eq!(
        head.parse_request(b"GET / HTTP/1.1\r", &Limits::default()),
        Ok(None)
    );
    assert_eq!(head.parse_request(b"", &Limits::default()), Ok(None));
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

#[test]
fn connection_facts() {
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
