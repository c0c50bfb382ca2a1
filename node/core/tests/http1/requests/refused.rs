//! Heads that are refused: as what, at which byte, with which status.

use remora_core::http1::{ErrorKind, Head, Limits};

use super::parse;

#[test]
fn heads() {
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
fn lengths_and_encodings() {
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
fn as_soon_as_it_is_seen() {
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
