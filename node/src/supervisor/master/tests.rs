//! What a session of the master CLI reads and answers.

use super::*;

#[test]
fn lines_are_taken_apart_at_semicolons() {
    let texts = |line: &str| {
        commands(line.as_bytes())
            .into_iter()
            .map(|c| String::from_utf8(c).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        texts("show proc; @1 show info;"),
        ["show proc", "@1 show info"]
    );
    assert_eq!(texts(r"@1 echo a\;b;quit"), [r"@1 echo a\;b", "quit"]);
    assert_eq!(texts("@@1 a; b"), ["@@1 a; b"]);
    assert_eq!(texts(""), [""]);
    assert_eq!(payload_until(b"@1 add map x <<END"), Some(&b"END"[..]));
    assert_eq!(payload_until(b"show proc"), None);
}

/// A session of its own, without a supervisor; everything it answers to `input`.
async fn answers(input: &[u8]) -> String {
    let (asks, _none) = tokio::sync::mpsc::unbounded_channel();
    let session = Session {
        level: CliLevel::Admin,
        name: String::new(),
        asks,
        input: Vec::new(),
        ended: false,
        default: Target::Master,
        default_pid: 0,
        mode: Mode::Once,
    };
    let (client, server) = UnixStream::pair().unwrap();
    let (mut from, mut to) = client.into_split();
    let mut got = String::new();
    let (sent, received, served) = tokio::join!(
        async move {
            let sent = to.write_all(input).await;
            drop(to);
            sent
        },
        from.read_to_string(&mut got),
        session.run(server),
    );
    sent.unwrap();
    // A reset would be an error.
    received.unwrap();
    served.unwrap();
    got
}

#[tokio::test]
async fn a_line_that_is_too_long_is_answered() {
    let refused = format!("Line too long: at most {LINE_MAX} bytes.\n\n");
    for len in [LINE_MAX + 1, 70_000, 1_000_000] {
        let line = [vec![b'x'; len], b"\n".to_vec()].concat();
        assert_eq!(answers(&line).await, refused, "{len}");
        // What follows is another line.
        let more = [b"prompt i\n", &line[..], b"show version\nquit\n"].concat();
        let version = crate::VERSION;
        assert_eq!(answers(&more).await, format!("\n{refused}{version}\n\n"));
    }
    // Neither is what was not read.
    let rest = [b"show version\n".to_vec(), vec![b'x'; 200_000]].concat();
    assert_eq!(answers(&rest).await, format!("{}\n\n", crate::VERSION));
    let longest = [vec![b'x'; LINE_MAX], b"\n".to_vec()].concat();
    assert!(answers(&longest).await.starts_with("Unknown command"));
}
