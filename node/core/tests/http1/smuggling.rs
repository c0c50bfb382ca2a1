//! Whatever a client sends, servers of all tempers read what was forwarded in the same way: as many requests as the
//! proxy saw, with the same bodies. Known smuggling attempts are refused; random ones are mixed from suspicious parts.

use proptest::prelude::*;
use remora_core::http1::{Body, ErrorKind, Framing, Head, Limits, RequestForward};

/// What a proxy makes of a client's byte stream: the forwarded requests (head, body as forwarded, bare data).
#[derive(Debug, Default)]
struct Forwarded {
    requests: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>,
    refused: Option<ErrorKind>,
}

fn proxy(stream: &[u8]) -> Forwarded {
    let mut result = Forwarded::default();
    let mut rest = stream;
    let mut head = Head::default();
    loop {
        let n = match head.parse_request(rest, &Limits::default()) {
            Ok(Some(n)) => n,
            Ok(None) => return result,
            Err(e) => {
                result.refused = Some(e.kind());
                return result;
            }
        };
        rest = &rest[n..];
        let framing = head.request_framing();
        let last = head.wants_upgrade() || head.method() == b"CONNECT";
        head.prepare_request_for_server(&RequestForward { keep_alive: true })
            .expect("small");
        let mut sent = Vec::new();
        head.write(&mut sent);
        let (mut body, mut wire, mut data) = (Body::new(framing, false), Vec::new(), Vec::new());
        while !body.is_done() {
            match body.decode(rest) {
                Ok(step) if step.consumed == 0 => return result, // cut short: never completed
                Ok(step) => {
                    wire.extend_from_slice(&rest[..step.consumed]);
                    data.extend_from_slice(&rest[step.data]);
                    rest = &rest[step.consumed..];
                }
                Err(e) => {
                    result.refused = Some(e.kind());
                    return result;
                }
            }
        }
        result.requests.push((sent, wire, data));
        if last {
            return result; // what follows is no HTTP
        }
    }
}

/// A server that reads HTTP its own way.
#[derive(Clone, Copy, Debug)]
struct Server {
    /// A bare LF ends a line.
    bare_lf: bool,
    /// A line that starts with a blank continues the one before.
    folds: bool,
    /// With both, Content-Length wins.
    prefers_length: bool,
    /// Of several Content-Lengths, the last wins.
    last_length: bool,
    /// Reads `+5`, `5,6` and ` 5`.
    loose_numbers: bool,
    /// Any Transfer-Encoding that contains "chunked" counts.
    loose_chunked: bool,
    /// Blanks before the colon are cut off.
    trims_names: bool,
}

impl Server {
    fn all() -> Vec<Server> {
        (0..128u8)
            .map(|bits| Server {
                bare_lf: bits & 1 != 0,
                folds: bits & 2 != 0,
                prefers_length: bits & 4 != 0,
                last_length: bits & 8 != 0,
                loose_numbers: bits & 16 != 0,
                loose_chunked: bits & 32 != 0,
                trims_names: bits & 64 != 0,
            })
            .collect()
    }

    fn line(self, rest: &mut &[u8]) -> Option<Vec<u8>> {
        let mut at = 0;
        loop {
            let lf = at + rest[at..].iter().position(|&c| c == b'\n')?;
            let crlf = lf > 0 && rest[lf - 1] == b'\r';
            if crlf || self.bare_lf {
                let line = rest[..if crlf { lf - 1 } else { lf }].to_vec();
                *rest = &rest[lf + 1..];
                return Some(line);
            }
            at = lf + 1;
        }
    }

    fn number(self, text: &str) -> Option<usize> {
        if self.loose_numbers {
            let digits: String = text
                .trim_start_matches(['+', ' '])
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            return digits.parse().ok();
        }
        text.trim().parse().ok()
    }

    /// Bodies of all complete requests, or `None` where it would answer 400.
    fn read(self, stream: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut bodies = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let start = self.line(&mut rest)?;
            if start.is_empty() {
                continue;
            }
            let mut lines: Vec<Vec<u8>> = Vec::new();
            loop {
                let line = self.line(&mut rest)?;
                if line.is_empty() {
                    break;
                }
                if self.folds && line[0].is_ascii_whitespace() && !lines.is_empty() {
                    lines.last_mut()?.extend_from_slice(&line);
                } else {
                    lines.push(line);
                }
            }
            let (mut lengths, mut chunked) = (Vec::new(), false);
            for line in &lines {
                let colon = line.iter().position(|&c| c == b':')?;
                let name = String::from_utf8_lossy(&line[..colon]).to_lowercase();
                let name = if self.trims_names {
                    name.trim().to_owned()
                } else {
                    name
                };
                let value = String::from_utf8_lossy(&line[colon + 1..]).to_lowercase();
                match name.as_str() {
                    "content-length" => lengths.push(self.number(&value)?),
                    "transfer-encoding" if self.loose_chunked => {
                        chunked |= value.contains("chunked");
                    }
                    "transfer-encoding" => chunked |= value.trim() == "chunked",
                    _ => {}
                }
            }
            let length = if self.last_length {
                lengths.last()
            } else {
                lengths.first()
            }
            .copied();
            let body = match length {
                Some(n) if !chunked || self.prefers_length => {
                    let body = rest.get(..n)?.to_vec();
                    rest = &rest[n..];
                    body
                }
                _ if chunked => {
                    let mut body = Vec::new();
                    loop {
                        let line = self.line(&mut rest)?;
                        let size = String::from_utf8_lossy(&line)
                            .split(';')
                            .next()?
                            .trim()
                            .to_owned();
                        let n = usize::from_str_radix(&size, 16).ok()?;
                        if n == 0 {
                            break;
                        }
                        body.extend_from_slice(rest.get(..n)?);
                        rest = &rest[n..];
                        if !self.line(&mut rest)?.is_empty() {
                            return None;
                        }
                    }
                    while !self.line(&mut rest)?.is_empty() {}
                    body
                }
                _ => Vec::new(),
            };
            bodies.push(body);
        }
        Some(bodies)
    }
}

/// All servers read what the proxy forwarded in the proxy's way.
fn agrees(stream: &[u8]) -> Result<Forwarded, String> {
    let forwarded = proxy(stream);
    let wire: Vec<u8> = forwarded
        .requests
        .iter()
        .flat_map(|(head, body, _)| [head.as_slice(), body].concat())
        .collect();
    let expected: Vec<Vec<u8>> = forwarded
        .requests
        .iter()
        .map(|(_, _, data)| data.clone())
        .collect();
    for server in Server::all() {
        let read = server.read(&wire);
        if read.as_ref() != Some(&expected) {
            return Err(format!(
                "{server:?}\nread {read:?}\nof {}\nfrom {}",
                wire.escape_ascii(),
                stream.escape_ascii()
            ));
        }
    }
    Ok(forwarded)
}

/// Published attacks and their relatives: refused, and what was forwarded before is harmless.
#[test]
fn corpus() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        // CL.TE, TE.CL, TE.TE
        format!("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!(
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n{smuggled}\r\n0\r\n\r\n"
        ),
        format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: \x00chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n{smuggled}"),
        format!(
            "X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding\r\n: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("\r\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: identity, chunked, cow\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: cow\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        // lengths
        format!("Content-Length: 5\r\nContent-Length: 0\r\n\r\n{smuggled}"),
        format!("Content-Length: 5\r\nContent-Length: 5\r\n\r\n01234{smuggled}"),
        format!("Content-Length: 5, 0\r\n\r\n01234{smuggled}"),
        format!("Content-Length: +5\r\n\r\n01234{smuggled}"),
        format!("Content-Length: 0005 \x00\r\n\r\n01234{smuggled}"),
        format!("Content-Length: 5\x0b\r\n\r\n01234{smuggled}"),
        format!("Content-Length\t: 5\r\n\r\n01234{smuggled}"),
        format!("Content-Length: 18446744073709551621\r\n\r\n01234{smuggled}"),
        format!(" Content-Length: 5\r\n\r\n01234{smuggled}"),
        // chunks
        format!("Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n5;\nx\r\n01234\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n2\r\nab22\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n2\r\nab\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n2\r\rab\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0 \r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\nContent-Length: 9\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0\r\n\n{smuggled}"),
        // names and hosts
        format!(": x\r\nContent-Length: 5\r\n\r\n01234{smuggled}"),
        format!("Content-Length: 5\r\nFoo\r\n\r\n01234{smuggled}"),
        format!("Host: b\r\n\r\n{smuggled}"),
        format!("{{ Content-Length: 5\r\n\r\n01234{smuggled}"),
    ];
    for case in cases {
        let stream = format!("POST / HTTP/1.1\r\nHost: a\r\n{case}");
        let forwarded = agrees(stream.as_bytes()).unwrap_or_else(|why| panic!("{why}"));
        assert!(
            forwarded.refused.is_some(),
            "not refused: {}",
            stream.escape_debug()
        );
        let smuggled = forwarded
            .requests
            .iter()
            .any(|(head, ..)| head.starts_with(b"GET /smuggled"));
        assert!(!smuggled, "smuggled: {}", stream.escape_debug());
    }
}

/// Harmless streams come through whole.
#[test]
fn honest_pipelines() {
    let stream = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
                  \r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
                  POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nA: b\r\n\r\n\
                  POST /4 HTTP/1.1\r\nhost:a\r\ncontent-length:0002\r\n\r\nok";
    let forwarded = agrees(stream.as_bytes()).unwrap_or_else(|why| panic!("{why}"));
    let data: Vec<&[u8]> = forwarded
        .requests
        .iter()
        .map(|(_, _, d)| d.as_slice())
        .collect();
    assert_eq!(data, [&b"hello"[..], b"", b"hi", b"ok"]);
    assert_eq!(forwarded.refused, None);
}

/// The body of a request whose framing headers a rule tried to change is still delimited as it was received.
#[test]
fn edits_cannot_change_framing() {
    for (framing, lines) in [
        (Framing::Sized(5), "Content-Length: 5\r\n"),
        (Framing::Chunked, "Transfer-Encoding: chunked\r\n"),
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut head = Head::default();
        head.parse_request(text.as_bytes(), &Limits::default())
            .expect("valid")
            .expect("complete");
        for (name, value) in [
            ("Content-Length", "0"),
            ("transfer-encoding", "chunked"),
            ("Host", "b"),
        ] {
            assert!(
                head.add_header(name.as_bytes(), value.as_bytes()).is_err(),
                "{name}"
            );
        }
        assert!(head.set_header(b"content-length", b"9").is_err());
        for (name, value) in [
            ("X", "a\r\nY: b"),
            ("X", "a\nb"),
            ("X", "a\0"),
            ("X Y", "a"),
            ("", "a"),
            ("X:", "a"),
        ] {
            assert!(
                head.add_header(name.as_bytes(), value.as_bytes()).is_err(),
                "{name:?} {value:?}"
            );
        }
        head.remove_headers(|_| true);
        head.add_header(b"host", b"b").expect("there is none left");
        assert_eq!(head.request_framing(), framing);
        head.prepare_request_for_server(&RequestForward { keep_alive: true })
            .expect("small");
        let mut out = Vec::new();
        head.write(&mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("POST / HTTP/1.1\r\nhost: b\r\n{lines}\r\n")
        );
    }
}

fn part() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a HTTP/1.1\r\n",
        "HEAD / HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 30\r\n",
        "content-length:3\r\n",
        "Content-Length : 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:\tChunked \r\n",
        "Transfer-Encoding: x, chunked\r\n",
        "Connection: Content-Length, Transfer-Encoding, Host, X\r\n",
        "Connection: close\r\n",
        "X: y\r\n",
        "X: y\n",
        " folded: z\r\n",
        "X: \"a\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "0\r\n\r\n",
        "5\r\nhello\r\n",
        "3;a=b\r\nabc\r\n",
        "0\r\nX: y\r\n\r\n",
        "5\r\n\r\n0\r\n\r\n",
        "hello",
        "a",
        ":",
        " ",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Anything at all, mixed from suspicious parts.
    #[test]
    fn mixed(parts in prop::collection::vec(part(), 0..24)) {
        agrees(parts.concat().as_bytes()).map_err(TestCaseError::fail)?;
    }

    /// The same behind a plausible beginning, so that more of it gets through.
    #[test]
    fn plausible(
        heads in prop::collection::vec((prop::sample::select(vec!["GET", "POST", "PUT"]), prop::collection::vec(part(), 0..3), prop::collection::vec(part(), 0..4)), 1..4),
    ) {
        let mut stream = String::new();
        for (method, lines, body) in heads {
            stream += &format!("{method} / HTTP/1.1\r\nHost: a\r\n{}\r\n{}", lines.concat(), body.concat());
        }
        agrees(stream.as_bytes()).map_err(TestCaseError::fail)?;
    }
}
