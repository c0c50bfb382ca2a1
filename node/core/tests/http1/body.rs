//! Body framing: every byte accounted for, however the input is cut.

use proptest::prelude::*;
use remora_core::http1::{Body, ErrorKind, Framing};

/// Outcome of a whole input: bytes taken, data, whether the body ended; or the fault and its place.
type Outcome = Result<(usize, Vec<u8>, bool), (ErrorKind, u64)>;

/// Feeds `input` in pieces of the given sizes (the last one repeats), through both ways to read.
fn run(framing: Framing, from_server: bool, input: &[u8], sizes: &[usize]) -> Outcome {
    let mut verbatim = Body::new(framing, from_server);
    let mut decoder = Body::new(framing, from_server);
    let (mut taken, mut data, mut rest) = (0, Vec::new(), input);
    let mut sizes = sizes
        .iter()
        .copied()
        .chain(std::iter::repeat(*sizes.last().expect("sizes")));
    while !rest.is_empty() && !decoder.is_done() {
        let piece = rest
            .get(..sizes.next().expect("endless").max(1))
            .unwrap_or(rest);
        let passed = verbatim.advance(piece).map_err(|e| (e.kind(), e.offset()));
        let mut at = 0;
        let decoded = loop {
            match decoder.decode(&piece[at..]) {
                Ok(step) if step.consumed == 0 => break Ok(at),
                Ok(step) => {
                    data.extend_from_slice(&piece[at..][step.data]);
                    at += step.consumed;
                }
                Err(e) => break Err((e.kind(), e.offset())),
            }
        };
        assert_eq!(passed, decoded, "both ways agree");
        let n = decoded?;
        assert!(n == piece.len() || decoder.is_done());
        assert_eq!(verbatim.is_done(), decoder.is_done());
        taken += n;
        rest = &rest[n..];
    }
    assert_eq!(decoder.taken(), taken as u64);
    Ok((taken, data, decoder.is_done()))
}

fn chunked(input: &str) -> Outcome {
    let whole = run(Framing::Chunked, false, input.as_bytes(), &[usize::MAX]);
    assert_eq!(
        run(Framing::Chunked, false, input.as_bytes(), &[1]),
        whole,
        "{}",
        input.escape_debug()
    );
    whole
}

#[test]
fn chunked_bodies() {
    let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(256));
    for (input, data) in [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        (
            "1\r\na\r\n2\r\n\r\n\r\n00000000000000B\r\nhello world\r\n0\r\n\r\n",
            "a\r\nhello world",
        ),
        ("3;a=b;c=\"d;e\"\r\nabc\r\n0;x\r\n\r\n", "abc"),
        ("3; \t a = b\r\nabc\r\n0;\r\n\r\n", "abc"),
        (
            "0\r\nX: y\r\nLong-Name-That-Is-Not-Known: \u{e9}\t\r\nz:\r\n\r\n",
            "",
        ),
        (long_extension.as_str(), "a"),
    ] {
        assert_eq!(
            chunked(input),
            Ok((input.len(), data.as_bytes().to_vec(), true)),
            "{input:?}"
        );
        // what follows is not touched
        let more = format!("{input}GET / HTTP/1.1\r\n");
        assert_eq!(
            chunked(&more),
            Ok((input.len(), data.as_bytes().to_vec(), true))
        );
        // every proper prefix is incomplete
        for cut in 0..input.len() {
            let bytes = &input.as_bytes()[..cut];
            let Ok((taken, _, false)) = run(Framing::Chunked, false, bytes, &[usize::MAX]) else {
                panic!("{}", bytes.escape_ascii())
            };
            assert_eq!(taken, cut);
        }
    }
}

#[test]
fn refused_chunks() {
    use ErrorKind::*;
    let long_extension = format!("1;{}\r\n", "x".repeat(257));
    let many_trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(2000));
    let long_trailer = format!("0\r\nA: {}\r\n", "b".repeat(9000));
    for (input, kind, at) in [
        ("\r\n", ChunkSize, 0),
        ("x\r\n", ChunkSize, 0),
        ("-1\r\n", ChunkSize, 0),
        ("+1\r\n", ChunkSize, 0),
        (" 1\r\n", ChunkSize, 0),
        ("0x1\r\n", ChunkSize, 1),
        ("1 \r\na", ChunkSize, 1),
        ("1 ;a\r\n", ChunkSize, 1),
        ("1\t\r\na", ChunkSize, 1),
        ("1,\r\n", ChunkSize, 1),
        ("1\0\r\n", ChunkSize, 1),
        ("1g\r\n", ChunkSize, 1),
        ("1\n", ChunkSize, 1),
        ("1\rx", BareCr, 2),
        ("1\r\r\n", BareCr, 2),
        (";a\r\n", ChunkSize, 0),
        ("1000000000000000\r\n", ChunkSize, 15),
        ("ffffffffffffffff\r\n", ChunkSize, 15),
        ("fffffffffffffffff\r\n", ChunkSize, 15),
        ("0000000000000000\r\n", ChunkSize, 15),
        ("1;a\nb\r\n", ChunkExtension, 3),
        ("1;a\0\r\n", ChunkExtension, 3),
        ("1;a\x7f\r\n", ChunkExtension, 3),
        ("1;a\rb\r\n", BareCr, 4),
        (long_extension.as_str(), ChunkExtension, 258),
        ("1\r\nab\r\n", ChunkEnd, 4),
        ("1\r\na\n", ChunkEnd, 4),
        ("1\r\na\rb", ChunkEnd, 5),
        ("1\r\na0\r\n", ChunkEnd, 4),
        ("0\r\n\n", Trailer, 3),
        ("0\r\n\rx", BareCr, 4),
        ("0\r\n: a\r\n", Trailer, 3),
        ("0\r\n a\r\n", Trailer, 3),
        ("0\r\na : b\r\n", Trailer, 4),
        ("0\r\na\r\n", Trailer, 4),
        ("0\r\na: b\n", Trailer, 7),
        ("0\r\na: b\0", Trailer, 7),
        ("0\r\na: b\rc", BareCr, 8),
        ("0\r\na: b\r\n c\r\n", Trailer, 9),
        ("0\r\nContent-Length: 5\r\n", TrailerForbidden, 17),
        ("0\r\ntransfer-ENCODING: chunked\r\n", TrailerForbidden, 20),
        ("0\r\nHost: a\r\n", TrailerForbidden, 7),
        ("0\r\nAuthorization: a\r\n", TrailerForbidden, 16),
        (many_trailers.as_str(), TrailersTooLarge, 3 + 8192),
        (long_trailer.as_str(), TrailersTooLarge, 3 + 8192),
    ] {
        assert_eq!(chunked(input), Err((kind, at)), "{}", input.escape_debug());
    }
}

/// Some servers pad chunk sizes; clients must not.
#[test]
fn padded_sizes_from_servers() {
    for input in ["3 \r\nabc\r\n0  \t\r\n\r\n", "3 ;a\r\nabc\r\n0\r\n\r\n"] {
        let ok = Ok((input.len(), b"abc".to_vec(), true));
        assert_eq!(run(Framing::Chunked, true, input.as_bytes(), &[1]), ok);
        assert!(matches!(chunked(input), Err((ErrorKind::ChunkSize, 1))));
    }
    for input in ["3 3\r\n", "3 \n"] {
        let got = run(Framing::Chunked, true, input.as_bytes(), &[1]);
        assert_eq!(got, Err((ErrorKind::ChunkSize, 2)));
    }
    let endless = format!("3{}", " ".repeat(1000));
    assert!(run(Framing::Chunked, true, endless.as_bytes(), &[7]).is_err());
}

#[test]
fn other_framings() {
    for (framing, input, taken, done) in [
        (Framing::None, "abc", 0, true),
        (Framing::Sized(0), "abc", 0, true),
        (Framing::Sized(2), "abc", 2, true),
        (Framing::Sized(3), "abc", 3, true),
        (Framing::Sized(4), "abc", 3, false),
        (Framing::Sized(u64::MAX), "abc", 3, false),
        (Framing::UntilClose, "abc", 3, false),
        (Framing::Tunnel, "abc", 3, false),
    ] {
        for sizes in [&[usize::MAX][..], &[1], &[2]] {
            let expected = input.as_bytes()[..taken].to_vec();
            assert_eq!(
                run(framing, true, input.as_bytes(), sizes),
                Ok((taken, expected, done)),
                "{framing:?}"
            );
        }
    }
    assert!(Body::new(Framing::UntilClose, true).may_end_here());
    assert!(!Body::new(Framing::Sized(1), true).may_end_here());
    assert!(!Body::new(Framing::Chunked, true).may_end_here());
}

/// Data may be moved past the decoder.
#[test]
fn spliced_data() {
    let mut body = Body::new(Framing::Sized(10), true);
    assert_eq!(body.contiguous(), 10);
    assert_eq!(body.advance(b"abc").expect("valid"), 3);
    body.skip(6);
    assert_eq!(
        (body.contiguous(), body.is_done(), body.taken()),
        (1, false, 9)
    );
    body.skip(99);
    assert_eq!(
        (body.contiguous(), body.is_done(), body.taken()),
        (0, true, 10)
    );

    let mut body = Body::new(Framing::Chunked, false);
    assert_eq!(body.contiguous(), 0);
    assert_eq!(body.advance(b"a\r\n12").expect("valid"), 5);
    assert_eq!(body.contiguous(), 8);
    body.skip(8);
    assert_eq!(body.contiguous(), 0);
    assert_eq!(body.advance(b"\r\n0\r\n\r\n").expect("valid"), 7);
    assert!(body.is_done());

    let mut body = Body::new(Framing::Tunnel, false);
    body.skip(1 << 40);
    assert_eq!((body.contiguous(), body.taken()), (u64::MAX, 1 << 40));
}

fn encode(chunks: &[Vec<u8>], extension: &str, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in chunks.iter().filter(|c| !c.is_empty()) {
        out.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0{extension}\r\n{trailers}\r\n").as_bytes());
    out
}

proptest! {
    /// What was encoded is decoded, in any pieces, and not a byte more is taken.
    #[test]
    fn any_split(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        extension in prop::sample::select(vec!["", ";a", ";a=\"b\""]),
        trailers in prop::sample::select(vec!["", "A: b\r\n", "A: b\r\nC:\r\n"]),
        sizes in prop::collection::vec(1usize..9, 1..20),
    ) {
        let body = encode(&chunks, extension, trailers);
        let mut input = body.clone();
        input.extend_from_slice(b"0\r\n\r\nGET");
        let expected = Ok((body.len(), chunks.concat(), true));
        prop_assert_eq!(run(Framing::Chunked, false, &input, &sizes), expected);
    }

    /// Damage gives the same verdict whatever the pieces.
    #[test]
    fn damage_is_seen_the_same_way(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        sizes in prop::collection::vec(1usize..9, 1..20),
        from_server in any::<bool>(),
    ) {
        let mut input = encode(&chunks, ";x", "A: b\r\n");
        let at = place.index(input.len());
        input[at] = byte;
        let whole = run(Framing::Chunked, from_server, &input, &[usize::MAX]);
        let pieces = run(Framing::Chunked, from_server, &input, &sizes);
        prop_assert_eq!(whole, pieces);
    }

    /// No input makes it panic or take more than there is.
    #[test]
    fn garbage(input in prop::collection::vec(prop::sample::select(b"0123fF;\r\n a:\0".to_vec()), 0..60), sizes in prop::collection::vec(1usize..9, 1..5)) {
        let whole = run(Framing::Chunked, false, &input, &[usize::MAX]);
        prop_assert_eq!(whole, run(Framing::Chunked, false, &input, &sizes));
    }
}
