//! Response heads: framing that depends on the request, refusals that become 502.

use remora_core::http1::{ErrorKind, Framing, Head, Limits, MethodKind, RequestFacts};

fn parse(text: &str) -> Result<Head, (ErrorKind, u64, u16)> {
    let mut head = Head::default();
    match head.parse_response(text.as_bytes(), &Limits::default()) {
        Ok(Some(n)) => {
            assert_eq!(n, text.len());
            Ok(head)
        }
        Ok(None) => panic!("incomplete: {text:?}"),
        Err(e) => {
            assert!(e.is_from_server());
            Err((e.kind(), e.offset(), e.status()))
        }
    }
}

#[test]
fn start_lines() {
    for (line, status, reason) in [
        ("HTTP/1.1 200 OK", 200, "OK"),
        ("HTTP/1.0 404 Not Found", 404, "Not Found"),
        ("HTTP/1.1 200 ", 200, ""),
        ("HTTP/1.1 200", 200, ""),
        ("HTTP/1.1 999 caf\u{e9}\there", 999, "caf\u{e9}\there"),
        ("HTTP/1.1 200  two blanks", 200, " two blanks"),
    ] {
        let head = parse(&format!("{line}\r\n\r\n")).expect(line);
        assert_eq!((head.status(), head.reason()), (status, reason.as_bytes()));
        assert!(head.is_response());
    }
    use ErrorKind::*;
    for (line, kind, at) in [
        ("HTTP/1.1", StartLine, 0),
        ("HTTP/1.1 ", Status, 9),
        ("HTTP/1.1 20", Status, 9),
        ("HTTP/1.1 2000", Status, 12),
        ("HTTP/1.1 099 x", Status, 9),
        ("HTTP/1.1 +20 x", Status, 9),
        ("HTTP/1.1 2x0 x", Status, 9),
        ("HTTP/1.1 200\tOK", Status, 12),
        ("HTTP/1.1  200 OK", Status, 9),
        ("HTTP/2.0 200 OK", Version, 0),
        ("HTTP/1.2 200 OK", Version, 0),
        ("HTTP/1.1\t200 OK", StartLine, 0),
        ("ICY 200 OK", StartLine, 0),
        ("http/1.1 200 OK", StartLine, 0),
        ("SSH-2.0-OpenSSH_9.2", StartLine, 0),
        ("", LeadingEmptyLines, 0),
        ("HTTP/1.1 200 O\0K", ControlCharacter, 14),
        ("HTTP/1.1 200 O\rK", BareCr, 14),
    ] {
        let got = parse(&format!("{line}\r\n\r\n")).map(|_| ());
        assert_eq!(got, Err((kind, at, 502)), "{line:?}");
    }
}

/// The header rules are the same as for requests, but `Host` means nothing here.
#[test]
fn headers() {
    for (lines, kind) in [
        (
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            ErrorKind::ContentLengthRepeated,
        ),
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            ErrorKind::LengthAndEncoding,
        ),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            ErrorKind::TransferCoding,
        ),
        (
            "Transfer-Encoding: identity\r\n",
            ErrorKind::TransferEncoding,
        ),
        ("X : a\r\n", ErrorKind::BlankBeforeColon),
        ("X: a\r\n b\r\n", ErrorKind::ObsFold),
        ("X: \0\r\n", ErrorKind::ControlCharacter),
    ] {
        let got = parse(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"))
            .map(|_| ())
            .map_err(|e| (e.0, e.2));
        assert_eq!(got, Err((kind, 502)), "{lines:?}");
    }
    let old = parse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .map(|_| ())
        .map_err(|e| (e.0, e.2));
    assert_eq!(old, Err((ErrorKind::EncodingIn10, 502)));
    let many = "a: b\r\n".repeat(102);
    let got = parse(&format!("HTTP/1.1 200 OK\r\n{many}\r\n"))
        .map(|_| ())
        .map_err(|e| (e.0, e.2));
    assert_eq!(got, Err((ErrorKind::TooManyHeaders, 502)));
}

#[test]
fn framing() {
    let request = |method| RequestFacts {
        method,
        ..RequestFacts::default()
    };
    let (sized, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for (status, lines, method, framing) in [
        (200, sized, MethodKind::Get, Framing::Sized(5)),
        (200, chunked, MethodKind::Get, Framing::Chunked),
        (200, "", MethodKind::Get, Framing::UntilClose),
        (500, "", MethodKind::Post, Framing::UntilClose),
        (200, sized, MethodKind::Head, Framing::None),
        (200, chunked, MethodKind::Head, Framing::None),
        (200, "", MethodKind::Head, Framing::None),
        (404, sized, MethodKind::Head, Framing::None),
        (204, sized, MethodKind::Get, Framing::None),
        (204, chunked, MethodKind::Get, Framing::None),
        (304, sized, MethodKind::Get, Framing::None),
        (304, "", MethodKind::Get, Framing::None),
        (100, sized, MethodKind::Get, Framing::None),
        (103, "", MethodKind::Get, Framing::None),
        (205, "", MethodKind::Get, Framing::UntilClose),
        (200, sized, MethodKind::Connect, Framing::Tunnel),
        (200, chunked, MethodKind::Connect, Framing::Tunnel),
        (299, "", MethodKind::Connect, Framing::Tunnel),
        (407, sized, MethodKind::Connect, Framing::Sized(5)),
        (407, "", MethodKind::Connect, Framing::UntilClose),
    ] {
        let head = parse(&format!("HTTP/1.1 {status} x\r\n{lines}\r\n")).expect("valid");
        assert_eq!(
            head.response_framing(&request(method)),
            Ok(framing),
            "{status} {lines:?} {method:?}"
        );
        assert_eq!(head.is_interim(), status < 200);
    }
    let switch = parse("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        .expect("valid");
    assert!(!switch.is_interim());
    let asked = RequestFacts {
        upgrade: true,
        ..RequestFacts::default()
    };
    assert_eq!(switch.response_framing(&asked), Ok(Framing::Tunnel));
    let refused = switch
        .response_framing(&RequestFacts::default())
        .expect_err("was not asked for");
    assert_eq!(
        (refused.kind(), refused.status()),
        (ErrorKind::UnexpectedSwitch, 502)
    );
}

#[test]
fn persistence() {
    for (text, keep) in [
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", true),
    ] {
        assert_eq!(parse(text).expect("valid").keep_alive(), keep, "{text:?}");
    }
}
