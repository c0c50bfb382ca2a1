//! Configurations that must be refused: with the reference's words, the file and the line, and exit code 1.

use cluster_tests::locate::Kind;
use cluster_tests::ports::Port;
use cluster_tests::wait::until;
use cluster_tests::{Launch, Output, Server};

use crate::common::haproxy_lacks;
use crate::mistakes::{FE, MISTAKES, Mistake};

fn whole(mistake: &Mistake) -> String {
    mistake.config.replace("{FE}", FE)
}

/// Files are checked without a single port being opened.
fn check(config: &str) -> Output {
    Launch::new(config).check()
}

#[test]
fn every_documented_mistake_is_named_with_its_line() {
    let haproxy = cluster_tests::locate::kind_under_test() == Kind::Haproxy;
    let mut wrong = Vec::new();
    for mistake in MISTAKES {
        if haproxy && (mistake.config.contains("acl if") || mistake.config.contains("maxconn abc"))
        {
            continue; // not checked by 2.6
        }
        let config = whole(mistake);
        let done = check(&config);
        let place = mistake
            .line
            .map(|line| format!("[test.cfg:{line}]"))
            .unwrap_or_default();
        let good = (done.code == Some(1) || haproxy && done.code == Some(2))
            && done.stderr.lines().any(|line| {
                // 2.6 words some of them differently; the place and the blame are the same.
                let said = haproxy || line.contains(mistake.says);
                line.starts_with("[ALERT]    (") && line.contains(&place) && said
            });
        if !good {
            wrong.push(format!(
                "--- {config}wanted {place}{:?}\ngot {:?}:\n{}",
                mistake.says, done.code, done.stderr
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} mistakes:\n{}",
        wrong.len(),
        MISTAKES.len(),
        wrong.join("\n")
    );
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_one_run() {
    if haproxy_lacks("stops at some") {
        return;
    }
    let config = "\
frontend fe
  mode http
  bind 127.0.0.1:1
  http-request denyy
  acl a nosuchfetch
  option nosuchoption
backend be
  balanc roundrobin
  server s 127.0.0.1:80 chek
";
    let done = check(config);
    assert_eq!(done.code, Some(1));
    for line in [4, 5, 6, 8, 9] {
        assert!(
            done.stderr.contains(&format!("[test.cfg:{line}]")),
            "line {line} is not reported:\n{}",
            done.stderr
        );
    }
    assert!(
        done.stderr
            .contains("Error(s) found in configuration file : test.cfg"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("Fatal errors found in configuration."),
        "{}",
        done.stderr
    );
    assert_eq!(done.stdout, "");
}

#[test]
fn mistakes_are_shown_under_the_line_with_a_caret() {
    let done = check("frontend fe\n  mode http\n  acl a path \"unclosed\n");
    let lines: Vec<&str> = done.stderr.lines().collect();
    let caret = lines
        .iter()
        .position(|line| line.trim_start_matches(['|', ' ']) == "^");
    let caret = caret.unwrap_or_else(|| panic!("no caret in:\n{}", done.stderr));
    assert!(
        lines[caret - 1].contains("acl a path \"unclosed"),
        "{}",
        done.stderr
    );
}

#[test]
fn what_haproxy_knows_and_remora_does_not_is_refused_by_name() {
    if haproxy_lacks("nothing: it is the one that knows") {
        return;
    }
    for (config, line, name) in [
        ("global\n  lua-load x.lua\n", 2, "lua-load"),
        ("resolvers r\n", 1, "resolvers"),
        ("cache c\n", 1, "cache"),
        (
            "frontend fe\n  mode http\n  bind 127.0.0.1:1\n  http-request cache-use c\n",
            4,
            "cache-use",
        ),
        (
            "frontend fe\n  mode http\n  bind 127.0.0.1:1\n  http-request lua.x\n",
            4,
            "lua",
        ),
        (
            "frontend fe\n  mode http\n  bind quic4@127.0.0.1:1\n",
            3,
            "quic4@",
        ),
        (
            "frontend fe\n  mode http\n  bind 127.0.0.1:1\n  filter spoe engine x config y\n",
            4,
            "filter",
        ),
        (
            "frontend fe\n  mode http\n  bind 127.0.0.1:1\n  http-request set-var(txn.a) req.hdr(a),jwt_verify(x,y)\n",
            4,
            "jwt_verify",
        ),
        (
            "backend be\n  server s 127.0.0.1:80 agent-check\n",
            2,
            "agent-check",
        ),
    ] {
        let done = check(config);
        assert_eq!(done.code, Some(1), "{config}");
        let named = done.stderr.lines().any(|text| {
            text.contains(&format!("[test.cfg:{line}]"))
                && text.contains(name)
                && text.contains("is a HAProxy feature that Remora does not support.")
        });
        assert!(named, "{config}{}", done.stderr);
    }
}

#[test]
fn a_missing_file_is_named() {
    for name in ["/nonexist", "nonexist.cfg"] {
        let done = Launch::new("").arg("-c").arg("-f").arg(name).run();
        assert_eq!(done.code, Some(1));
        let text =
            format!("Cannot open configuration file/directory {name} : No such file or directory");
        assert!(done.stderr.contains(&text), "{}", done.stderr);
    }
}

#[test]
fn no_configuration_at_all_explains_itself() {
    let done = Launch::new("").arg("-f").run();
    assert_eq!(done.code, Some(1));
    assert!(!done.stderr.is_empty() || !done.stdout.is_empty());
}

#[test]
fn binary_junk_is_refused_in_good_order() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut junk = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    let random: Vec<u8> = (0..100_000).map(|_| junk()).collect();
    let elf = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 2000]].concat();
    let longline = [[b'x'; 1_000_000].as_slice(), b"\n"].concat();
    for (what, bytes) in [
        ("random", random),
        ("elf", elf),
        ("high", vec![0xff; 5000]),
        ("long", longline),
        ("zeroes", vec![0; 5000]),
    ] {
        let done = Launch::bytes(&bytes).check();
        assert_eq!(done.code, Some(1), "{what}: {}", done.stderr);
        assert!(done.stderr.contains("[ALERT]"), "{what}: {}", done.stderr);
        assert!(!done.stderr.contains("panicked"), "{what}: {}", done.stderr);
        assert!(
            done.stderr.len() < 3_000_000,
            "{what}: {} bytes of messages",
            done.stderr.len()
        );
    }
}

#[test]
fn a_file_cut_off_in_its_last_line_is_refused() {
    let done = check("frontend fe\n  mode http\n  bind 127.0.0.1:1");
    assert_eq!(done.code, Some(1));
    let text = "Missing LF on last line, file might have been truncated at position 19.";
    assert!(
        done.stderr.contains("[test.cfg:3]") && done.stderr.contains(text),
        "{}",
        done.stderr
    );
}

#[test]
fn an_empty_word_is_refused() {
    if haproxy_lacks("drops the rest of the line in silence") {
        return;
    }
    let done =
        check("global\nfrontend fe\n  mode http\n  bind 127.0.0.1:1 name \"${UNSET_FOR_SURE}\"\n");
    assert_eq!(done.code, Some(1));
    let text = "is empty and marks the end of the argument list";
    assert!(
        done.stderr.contains("[test.cfg:4]") && done.stderr.contains(text),
        "{}",
        done.stderr
    );
}

#[test]
fn names_twice_are_refused() {
    if haproxy_lacks("tolerates some of them") {
        return;
    }
    let done = check("backend a\n  mode http\nbackend a\n  mode http\n");
    assert_eq!(done.code, Some(1));
    let text = "backend 'a' has the same name as backend 'a' declared at test.cfg:1";
    assert!(
        done.stderr.contains("[test.cfg:3]") && done.stderr.contains(text),
        "{}",
        done.stderr
    );
}

#[test]
fn a_port_in_use_names_the_bind_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address");
    let done = Launch::new(&format!(
        "frontend web\n  mode http\n  timeout client 1s\n  bind {addr}\n  http-request return\n"
    ))
    .run();
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains(&addr.to_string()) && done.stderr.contains("web"),
        "{}",
        done.stderr
    );
    if !haproxy_lacks("names the proxy, not always the line") {
        assert!(done.stderr.contains("[test.cfg:4]"), "{}", done.stderr);
        assert!(done.stderr.contains("in use"), "{}", done.stderr);
    }
    // A failed start leaves nothing behind that listens.
    drop(taken);
    let port = Port::claim();
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = other.local_addr().expect("an address");
    let config = format!(
        "frontend web\n  mode http\n  timeout client 1s\n  bind 127.0.0.1:{}\n  bind {addr}\n  http-request return\n",
        port.number()
    );
    assert_eq!(Launch::new(&config).run().code, Some(1));
    assert!(!cluster_tests::ports::is_listening(port.number()));
}

/// Several threads listen with SO_REUSEPORT, which must not let two owners split the traffic unnoticed.
#[test]
fn two_owners_of_one_port_are_told() {
    let port = Port::claim();
    let front = |name: &str| {
        format!(
            "frontend {name}\n  mode http\n  timeout client 1s\n  bind 127.0.0.1:{}\n  http-request return\n",
            port.number()
        )
    };
    let config = format!("global\n  nbthread 2\n{}{}", front("a"), front("b"));
    let done = Launch::new(&config).run();
    if haproxy_lacks("lets two bind lines share a port") {
        return;
    }
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("is used already") && done.stderr.contains("[test.cfg:11]"),
        "{}",
        done.stderr
    );
}

#[test]
fn the_shipped_examples_are_accepted() {
    if haproxy_lacks("nothing, but the examples may use newer keywords") {
        return;
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let examples = root.join("docs/examples");
    let mut seen = 0;
    for file in std::fs::read_dir(&examples)
        .expect("docs/examples")
        .flatten()
    {
        let path = file.path();
        if path.extension().is_some_and(|ext| ext == "cfg") {
            seen += 1;
            // Files they mention count from the top of the project, or from beside them.
            let tried = [&root, &examples].map(|dir| {
                let dir = dir.canonicalize().expect("a directory");
                let name = path.canonicalize().expect("a file");
                // Those with peers name their nodes node1, node2, …
                let launch = Launch::new("")
                    .arg("-c")
                    .arg("-V")
                    .arg("-L")
                    .arg("node1")
                    .arg("-C")
                    .arg(&dir.to_string_lossy());
                launch.arg("-f").arg(&name.to_string_lossy()).run()
            });
            assert!(
                tried.iter().any(|done| done.code == Some(0)),
                "{}: {tried:?}",
                path.display()
            );
        }
    }
    assert!(seen >= 2, "the examples are there");
}

#[test]
fn warnings_are_fatal_only_when_asked() {
    let config = "defaults\n  mode http\n  timeout client 5\n  timeout connect 5s\n  timeout server 5s\nfrontend fe\n  bind 127.0.0.1:1\n  http-request return status 200\n  acl never path\n  http-request deny if never\n";
    let done = check(config);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let done = Launch::new(config).arg("-dW").check();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let quiet = "defaults\n  mode http\n  timeout client 5s\n  timeout connect 5s\n  timeout server 5s\nfrontend fe\n  bind 127.0.0.1:1\n  http-request return status 200\n";
    let done = Launch::new(quiet).arg("-dW").check();
    assert_eq!(
        (done.code, done.stderr.as_str()),
        (Some(0), ""),
        "nothing to warn about"
    );
}

#[test]
fn unusual_but_valid_text_is_accepted() {
    let server = Server::http();
    let config = "global # comment\r\n\r\n   \t \n  stats socket {{cli}} level admin#glued\ndefaults\n\tmode\thttp\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\nfrontend 'fe'\n  bind \"127.0.0.1:{{port:fe}}\"\n  http-request set-header X-A \"a\\x41\\tb\"\n  http-request set-header X-B 'x$HOME \"q\"'\n  http-request set-header X-C \"${NOPE-def}/$WHO\"\n  http-request set-header X-D a\\ b\n  .if defined(WHO) && !streq(\"$WHO\",nobody)\n  http-request set-header X-E yes\n  .else\n  http-request set-header X-E no\n  .endif\n  default_backend be\nbackend be\n  server s1 {{s1}}\n";
    let proxy = Launch::new(config)
        .set("s1", server.addr())
        .env("WHO", "me")
        .start();
    assert_eq!(
        cluster_tests::get(proxy.addr("fe"), "/").map(|r| r.status),
        Ok(200)
    );
    let request = &server.requests()[0];
    let got = ["x-a", "x-b", "x-c", "x-d", "x-e"].map(|name| request.header(name));
    assert_eq!(
        got,
        [
            Some("aA\tb"),
            Some("x$HOME \"q\""),
            Some("def/me"),
            Some("a b"),
            Some("yes")
        ]
    );
    until("it can be asked", || {
        proxy.ask("show info").contains("Name: ").then_some(())
    });
}

/// A stale socket is replaced; anything else that happens to have its name is not.
#[test]
fn a_file_in_the_place_of_a_socket_is_left_alone() {
    if haproxy_lacks("replaces it") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("precious");
    std::fs::write(&path, "data").expect("a file");
    let socket = format!("global\n  stats socket {}\n", path.display());
    let done = Launch::new(&socket).run();
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("precious") && done.stderr.contains("is not a socket"),
        "{}",
        done.stderr
    );
    assert_eq!(std::fs::read(&path).expect("still there"), b"data");
    std::fs::remove_file(&path).expect("removed");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let proxy = Launch::new(&format!(
        "{socket}frontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n"
    ))
    .start();
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    drop(proxy);
}
