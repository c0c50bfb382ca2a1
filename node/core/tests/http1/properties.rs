//! The head parser against others: a naive one that reads the rules one by one, and httparse; and against itself, with
//! the input in pieces.

use proptest::prelude::*;
use remora_core::http1::{ErrorKind, Framing, Head, Limits, RequestForward, is_token};

const LIMITS: Limits = Limits {
    head_bytes_max: 400,
    headers_max: 6,
};

type Verdict = Result<Option<usize>, (ErrorKind, u64)>;

fn parse(head: &mut Head, input: &[u8], is_response: bool) -> Verdict {
    let result = if is_response {
        head.parse_response(input, &LIMITS)
    } else {
        head.parse_request(input, &LIMITS)
    };
    result.map_err(|e| (e.kind(), e.offset()))
}

/// As much of the head as an observer can see.
fn visible(head: &Head) -> String {
    let lines: Vec<String> = head
        .headers()
        .map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii()))
        .collect();
    format!(
        "{} {} {:?} {} {} | {lines:?} | {:?} {:?} {} {} {}",
        head.method().escape_ascii(),
        head.target().escape_ascii(),
        head.version(),
        head.status(),
        head.path_and_query().escape_ascii(),
        head.request_framing(),
        head.request_facts(),
        head.keep_alive(),
        head.expects_continue(),
        head.wants_upgrade(),
    )
}

/// Heads that are valid or nearly so.
fn nearly_valid(is_response: bool) -> impl Strategy<Value = Vec<u8>> {
    let start: Vec<&str> = if is_response {
        vec![
            "HTTP/1.1 200 OK",
            "HTTP/1.0 404 Not Found",
            "HTTP/1.1 204",
            "HTTP/1.1 101 Switching Protocols",
        ]
    } else {
        vec![
            "GET / HTTP/1.1",
            "POST /a?b HTTP/1.1",
            "GET /x HTTP/1.0",
            "GET http://a/b HTTP/1.1",
            "GET http://a HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "CONNECT a:80 HTTP/1.1",
            "\r\nGET / HTTP/1.1",
        ]
    };
    let line = prop::sample::select(vec![
        "Host: a",
        "Host: a:80",
        "host:b",
        "Content-Length: 12",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Connection: close, x",
        "Connection: keep-alive",
        "Connection: upgrade",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "X:  y \t",
        "Y:",
        "Z-\u{e9}: a",
        "Z: caf\u{e9}",
    ]);
    let damage = (
        any::<prop::sample::Index>(),
        prop::sample::select(b"\r\n \t:\0\x7f#,aG1/;\xff".to_vec()),
        0..3,
    );
    (
        prop::sample::select(start),
        prop::collection::vec(line, 0..8),
        prop::collection::vec(damage, 0..3),
        any::<bool>(),
    )
        .prop_map(move |(start, lines, damages, with_host)| {
            let host = if with_host && !is_response {
                "Host: a\r\n"
            } else {
                ""
            };
            let lines: String = lines.iter().map(|l| format!("{l}\r\n")).collect();
            let mut text = format!("{start}\r\n{host}{lines}\r\n").into_bytes();
            for (place, byte, how) in damages {
                let at = place.index(text.len());
                match how {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    _ => {
                        text.remove(at);
                    }
                }
            }
            text
        })
}

/// What the rules say about a request that is all there, one rule after the other, without a thought for speed.
fn naive(text: &[u8]) -> Option<(Framing, Vec<(String, String)>)> {
    let text: String = text.iter().map(|&b| char::from(b)).collect();
    let text = text.trim_start_matches("\r\n");
    let head = &text[..text.find("\r\n\r\n")? + 2];
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    if lines.pop() != Some("")
        || lines
            .iter()
            .any(|l| l.contains(|c: char| (c < ' ' && c != '\t') || c == '\x7f'))
    {
        return None;
    }
    let mut start = lines.first()?.split(' ');
    let (method, target, version) = (start.next()?, start.next()?, start.next()?);
    if start.next().is_some()
        || !is_token(method.as_bytes())
        || !["HTTP/1.1", "HTTP/1.0"].contains(&version)
    {
        return None;
    }
    if target.is_empty() || !target.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        return None;
    }
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let (name, value) = line.split_once(':')?;
        let is_name = !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c));
        if !is_name {
            return None;
        }
        fields.push((
            name.to_lowercase(),
            value.trim_matches([' ', '\t']).to_owned(),
        ));
    }
    if fields.len() > LIMITS.headers_max {
        return None;
    }
    let all = |name: &str| {
        fields
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .collect::<Vec<_>>()
    };
    let (hosts, lengths, codings) = (all("host"), all("content-length"), all("transfer-encoding"));
    // the hosts of this test are letters with an optional port; others are refused or tested elsewhere
    let host_ok = |h: &str| {
        let (name, port) = h.split_once(':').unwrap_or((h, "80"));
        name.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._~%!$&'()*+;=".contains(c))
            && (port.is_empty()
                || (port.len() <= 5
                    && port.chars().all(|c| c.is_ascii_digit())
                    && port.parse::<u32>().is_ok_and(|p| p <= 65535)))
    };
    if hosts.len() > 1
        || (hosts.is_empty() && version == "HTTP/1.1")
        || !hosts.iter().all(|h| host_ok(h))
    {
        return None;
    }
    let framing = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Framing::None,
        ([n], []) if !n.is_empty() && n.len() < 20 && n.chars().all(|c| c.is_ascii_digit()) => {
            Framing::Sized(n.parse().ok().filter(|n| *n <= i64::MAX as u64)?)
        }
        ([], [c]) if c.eq_ignore_ascii_case("chunked") && version == "HTTP/1.1" => Framing::Chunked,
        _ => return None,
    };
    let normal = |authority: &str, default: &str| {
        let (name, port) = authority.split_once(':').unwrap_or((authority, default));
        (
            name.to_lowercase(),
            (if port.is_empty() { default } else { port })
                .parse::<u32>()
                .ok(),
        )
    };
    match method {
        "CONNECT" => {
            let (name, port) = target.split_once(':')?;
            if name.is_empty()
                || port.is_empty()
                || !host_ok(target)
                || !matches!(framing, Framing::None | Framing::Sized(0))
            {
                return None;
            }
            let same = |h: &&str| {
                normal(h, "") == normal(target, "")
                    || (normal(h, "").1.is_none()
                        && ["80", "443"].contains(&port)
                        && normal(h, "").0 == normal(target, "").0)
            };
            if !hosts.iter().all(same) {
                return None;
            }
        }
        "OPTIONS" if target == "*" => {}
        _ if target.starts_with('/') => {}
        _ => {
            let (scheme, rest) = target.split_once("://")?;
            let default = match scheme.to_lowercase().as_str() {
                "http" => "80",
                "https" => "443",
                _ => return None,
            };
            let authority = rest.split(['/', '?']).next()?;
            if normal(authority, default).0.is_empty() || !host_ok(authority) {
                return None;
            }
            if !hosts
                .iter()
                .all(|h| normal(h, default) == normal(authority, default))
            {
                return None;
            }
        }
    }
    Some((framing, fields))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// The pieces in which a head arrives change neither the result nor the error and its place.
    #[test]
    fn any_split(
        (text, is_response) in any::<bool>().prop_flat_map(|r| (nearly_valid(r), Just(r))),
        steps in prop::collection::vec(1usize..30, 1..12),
        tail in prop::sample::select(vec!["", "GET / HTTP/1.1\r\n\r\n", "\0\0\n\r"]),
    ) {
        let mut input = text;
        input.extend_from_slice(tail.as_bytes());
        let mut whole = Head::default();
        let expected = parse(&mut whole, &input, is_response);
        let mut pieces = Head::default();
        let mut got = Ok(None);
        let mut seen = 0;
        for step in steps.iter().cycle() {
            seen = (seen + step).min(input.len());
            got = parse(&mut pieces, &input[..seen], is_response);
            if got != Ok(None) || seen == input.len() {
                break;
            }
        }
        prop_assert_eq!(&got, &expected, "{}", input.escape_ascii());
        if matches!(got, Ok(Some(_))) {
            prop_assert_eq!(visible(&pieces), visible(&whole));
        }
    }

    /// Byte by byte, as a slow attacker would.
    #[test]
    fn dripping((text, is_response) in any::<bool>().prop_flat_map(|r| (nearly_valid(r), Just(r)))) {
        let expected = parse(&mut Head::default(), &text, is_response);
        let mut head = Head::default();
        let got = (1..=text.len()).map(|n| parse(&mut head, &text[..n], is_response)).find(|v| *v != Ok(None));
        prop_assert_eq!(got.unwrap_or(Ok(None)), expected, "{}", text.escape_ascii());
    }

    /// Accepts what the naive parser accepts, and nothing else.
    #[test]
    fn like_the_naive_parser(text in nearly_valid(false)) {
        let mut head = Head::default();
        let ours = parse(&mut head, &text, false);
        let complete = matches!(ours, Ok(Some(_)));
        let expected = naive(&text);
        prop_assert_eq!(complete, expected.is_some(), "{:?} {}", ours, text.escape_ascii());
        if let Some((framing, fields)) = expected {
            prop_assert_eq!(head.request_framing(), framing);
            let seen: Vec<(String, String)> = head
                .headers()
                .map(|(n, v)| (String::from_utf8_lossy(n).to_lowercase(), v.iter().map(|&b| char::from(b)).collect()))
                .collect();
            prop_assert_eq!(seen, fields);
        }
    }

    /// What is accepted, httparse reads in the same way.
    #[test]
    fn like_httparse(text in nearly_valid(false)) {
        let mut head = Head::default();
        if let Ok(Some(n)) = parse(&mut head, &text, false) {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut headers);
            prop_assert_eq!(request.parse(&text), Ok(httparse::Status::Complete(n)), "{}", text.escape_ascii());
            prop_assert_eq!(request.method.map(str::as_bytes), Some(head.method()));
            prop_assert_eq!(request.path.map(str::as_bytes), Some(head.target()));
            prop_assert_eq!(request.version, Some(head.version() as u8));
            let theirs: Vec<(&[u8], &[u8])> = request.headers.iter().map(|h| (h.name.as_bytes(), h.value)).collect();
            prop_assert_eq!(theirs, head.headers().collect::<Vec<_>>());
        }
    }

    /// The same for responses.
    #[test]
    fn like_httparse_responses(text in nearly_valid(true)) {
        let mut head = Head::default();
        if let Ok(Some(n)) = parse(&mut head, &text, true) {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut headers);
            prop_assert_eq!(response.parse(&text), Ok(httparse::Status::Complete(n)), "{}", text.escape_ascii());
            prop_assert_eq!(response.code, Some(head.status()));
            prop_assert_eq!(response.version, Some(head.version() as u8));
            let theirs: Vec<(&[u8], &[u8])> = response.headers.iter().map(|h| (h.name.as_bytes(), h.value)).collect();
            prop_assert_eq!(theirs, head.headers().collect::<Vec<_>>());
        }
    }

    /// What is sent can be read again, says the same, and preparing it once more for the next server changes nothing.
    #[test]
    fn round_trip(text in nearly_valid(false), keep_alive in any::<bool>(), own in prop::option::of("[a-z]{1,5}")) {
        let mut head = Head::default();
        if let Ok(Some(_)) = parse(&mut head, &text, false) {
            if let Some(name) = &own {
                head.add_header(name.as_bytes(), b"value, of \"ours\"").expect("clean");
            }
            head.prepare_request_for_server(&RequestForward { keep_alive }).expect("small");
            let mut sent = Vec::new();
            head.write(&mut sent);
            let mut again = Head::default();
            let n = again.parse_request(&sent, &Limits::default());
            prop_assert_eq!(n, Ok(Some(sent.len())), "{}", sent.escape_ascii());
            prop_assert_eq!(again.method(), head.method());
            prop_assert_eq!(again.path_and_query(), head.path_and_query());
            prop_assert_eq!(again.host(), head.host());
            prop_assert_eq!(again.request_framing(), head.request_framing());
            prop_assert_eq!(again.wants_upgrade(), head.wants_upgrade());
            prop_assert_eq!(again.headers().collect::<Vec<_>>(), head.headers().collect::<Vec<_>>());
            again.prepare_request_for_server(&RequestForward { keep_alive }).expect("small");
            let mut twice = Vec::new();
            again.write(&mut twice);
            let sorted = |bytes: &[u8]| {
                let mut lines: Vec<Vec<u8>> = bytes.split(|&c| c == b'\n').map(<[u8]>::to_vec).collect();
                lines.sort();
                lines
            };
            prop_assert_eq!(sorted(&twice), sorted(&sent));
        }
    }

    /// No input whatever makes it panic.
    #[test]
    fn garbage(input in prop::collection::vec(any::<u8>(), 0..500), is_response in any::<bool>()) {
        let _ = parse(&mut Head::default(), &input, is_response);
    }
}

/// The work for a head that drips in is linear: no byte is looked at again because of where the pieces end. (Otherwise
/// this would look at 45 GB and take accordingly long.)
#[test]
fn dripping_is_linear() {
    let limits = Limits {
        head_bytes_max: 1 << 20,
        headers_max: 101,
    };
    let text = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "a".repeat(300_000)
    )
    .into_bytes();
    let mut head = Head::default();
    for n in 1..text.len() {
        assert_eq!(head.parse_request(&text[..n], &limits), Ok(None));
    }
    assert_eq!(head.parse_request(&text, &limits), Ok(Some(text.len())));
}
