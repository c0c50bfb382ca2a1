//! The order of rule sets on a request and a response: waits, restarts, backends, edits.

use crate::support::*;

fn world_with(configure: impl FnOnce(&Names, &mut World)) -> World {
    let mut world = world(
        vec![table("t type ip size 10 store gpc0,http_req_cnt,conn_cnt")],
        vec![
            proxy("fe", "frontend", Some(0)),
            proxy("be", "backend", None),
            proxy("other", "backend", None),
        ],
    );
    world.proxies[0].rules.default_backend = Some(ProxyId(1));
    let mut names = Names::of(&world);
    names.own_table = Some(TableId(0));
    configure(&names, &mut world);
    world
}

/// Runs a TCP session with the content seen so far; `tail` says whether that is all.
fn tcp(
    world: &World,
    client: &Client<'_>,
    progress: &mut Progress,
    bytes: &[u8],
    tail: bool,
) -> Said {
    let cx = cx(world, &client.conn, Some(&client.stream), 0);
    let mut msgs = Msgs {
        req_content: Content {
            bytes,
            is_final: tail,
            not_http: false,
        },
        ..Msgs::default()
    };
    match tcp_phase(&cx, &mut msgs, progress) {
        RequestOutcome::Wait { inspect_delay_ms } => format!("wait {inspect_delay_ms}"),
        RequestOutcome::Forward(be) => format!("-> {}", world.proxies[usize::from(be.0)].name),
        RequestOutcome::Final(_, verdict) => name_of(&verdict).to_string(),
        RequestOutcome::NoBackend => "no backend".to_string(),
    }
}

#[test]
fn what_is_unknown_waits() {
    // (rule, content so far, while more may come, once nothing will)
    let cases: &[(&str, &str, &str, &str)] = &[
        ("reject if req.len gt 3", "ab", "wait 5000", "-> be"),
        ("reject if req.len gt 3", "abcd", "reject", "reject"),
        ("reject unless req.len gt 3", "ab", "wait 5000", "reject"),
        ("reject if !req.len gt 3", "ab", "wait 5000", "reject"),
        (
            "reject if req.payload(0,3) -m bin 616263",
            "ab",
            "wait 5000",
            "-> be",
        ),
        (
            "reject if req.payload(0,3) -m bin 616263",
            "abc",
            "reject",
            "reject",
        ),
        (
            "reject if req.payload(0,3) -m bin 616263",
            "abd",
            "-> be",
            "-> be",
        ),
        (
            "reject if req.payload(1,0) -m sub c",
            "ab",
            "wait 5000",
            "-> be",
        ),
        (
            "reject if req.payload(1,0) -m sub c",
            "abc",
            "reject",
            "reject",
        ),
        ("reject if wait_end", "", "wait 5000", "reject"),
        ("reject if path_beg /", "GE", "wait 5000", "-> be"),
        ("reject if !path_beg /", "GE", "wait 5000", "reject"),
        ("reject if req.proto_http", "GE", "wait 5000", "-> be"),
        // decided without what has not arrived
        ("reject if always_false && wait_end", "", "-> be", "-> be"),
        ("reject if wait_end && always_false", "", "-> be", "-> be"),
        ("reject if wait_end || always_true", "", "reject", "reject"),
        (
            "track-sc0 req.payload(0,4) table t",
            "ab",
            "wait 5000",
            "-> be",
        ),
    ];
    for (rule, bytes, more, all) in cases {
        let world = world_with(|n, w| {
            w.proxies[0].rules.tcp_content = n.rules(&[rule]);
            w.proxies[0].rules.inspect_delay_ms = 5000;
        });
        let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
        let run = |tail| {
            tcp(
                &world,
                &client,
                &mut Progress::default(),
                bytes.as_bytes(),
                tail,
            )
        };
        assert_eq!(run(false), *more, "{rule} on {bytes:?}");
        assert_eq!(run(true), *all, "{rule} on {bytes:?}, all");
    }
}

#[test]
fn without_inspect_delay_nothing_waits() {
    let world = world_with(|n, w| {
        w.proxies[0].rules.tcp_content = n.rules(&["reject if req.len gt 3"]);
    });
    let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
    let said = tcp(&world, &client, &mut Progress::default(), b"ab", false);
    assert_eq!(said, "-> be");
}

#[test]
fn bytes_that_are_no_http_do_not_wait_for_it() {
    let world = world_with(|n, w| {
        w.proxies[0].rules.tcp_content = n.rules(&["reject unless req.proto_http"]);
        w.proxies[0].rules.inspect_delay_ms = 5000;
    });
    let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
    let cx = cx(&world, &client.conn, Some(&client.stream), 0);
    let mut msgs = Msgs {
        req_content: Content {
            bytes: b"\x16\x03\x01",
            is_final: false,
            not_http: true,
        },
        ..Msgs::default()
    };
    let outcome = tcp_phase(&cx, &mut msgs, &mut Progress::default());
    assert!(
        matches!(outcome, RequestOutcome::Final(_, Verdict::Reject)),
        "{outcome:?}"
    );
}

#[test]
fn a_waiting_set_starts_again_and_finished_sets_do_not() {
    let world = world_with(|n, w| {
        w.proxies[0].rules.tcp_content = n.rules(&["track-sc0 src", "sc-inc-gpc0(0)"]);
        w.proxies[1].rules.inspect_delay_ms = 700;
        w.proxies[1].rules.tcp_content = n.rules(&[
            "set-var(txn.n) sc0_inc_gpc0",
            "reject if req.len gt 100 && wait_end",
        ]);
    });
    let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
    let mut progress = Progress::default();
    for _ in 0..3 {
        assert_eq!(
            tcp(&world, &client, &mut progress, b"ab", false),
            "wait 700"
        );
    }
    assert_eq!(tcp(&world, &client, &mut progress, b"ab", true), "-> be");
    // the frontend's increment once, the backend's at each of four runs, one tracking
    assert_eq!(
        row(&world, 0, "192.0.2.1", 1),
        "gpc0=5 conn_cnt=1 http_req_cnt=0"
    );
    // asked again after the end: the same answer, nothing runs
    assert_eq!(tcp(&world, &client, &mut progress, b"ab", true), "-> be");
    assert_eq!(
        row(&world, 0, "192.0.2.1", 1),
        "gpc0=5 conn_cnt=1 http_req_cnt=0"
    );
}

#[test]
fn choosing_a_backend() {
    let world = world_with(|n, w| {
        let rule = |target, cond: Option<&str>| UseBackend {
            target,
            cond: cond.map(|c| (false, n.cond(c))),
        };
        w.proxies[0].rules.use_backend = Box::new([
            rule(BackendRef::Static(ProxyId(2)), Some("if path_beg /o")),
            rule(BackendRef::Dynamic(n.format("%[path,field(2,/)]")), None),
            rule(BackendRef::Static(ProxyId(2)), Some("unless path_beg /d")),
        ]);
    });
    let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
    for (path, said) in [
        ("/o", "-> other 200"),
        ("/be/x", "-> be 200"),      // by name
        ("/nosuch", "-> other 200"), // unknown name: on to the next rule
        ("/fe", "-> other 200"),     // a frontend is no backend
        ("/d", "-> be 200"),         // default
    ] {
        assert_eq!(client.request(&mut get(path), 200, 0), said, "{path}");
    }
}

#[test]
fn no_backend_and_listen() {
    let mut w = world(Vec::new(), vec![proxy("fe", "frontend", None)]);
    let client = Client::connect(&w, "192.0.2.1", 0).unwrap();
    assert_eq!(client.request(&mut get("/"), 200, 0), "no backend");
    drop(client);

    w = world(
        vec![table("l type ip size 5 store gpc0,http_req_cnt")],
        vec![proxy("l", "listen", Some(0))],
    );
    let mut names = Names::of(&w);
    names.own_table = Some(TableId(0));
    let rules = &mut w.proxies[0].rules;
    rules.tcp_content = names.rules(&["track-sc0 src"]);
    rules.http_request = names.rules(&["sc-inc-gpc0(0)"]);
    rules.http_response = names.rules(&["sc-inc-gpc0(0)"]);
    let client = Client::connect(&w, "192.0.2.1", 0).unwrap();
    assert_eq!(client.request(&mut get("/"), 200, 0), "-> l 200");
    assert_eq!(
        row(&w, 0, "192.0.2.1", 1),
        "gpc0=2 http_req_cnt=1",
        "each set ran once"
    );
}

#[test]
fn accept_ends_its_own_set_only() {
    let world = world_with(|n, w| {
        w.proxies[0].rules.tcp_content = n.rules(&["accept", "reject"]);
        w.proxies[0].rules.http_request = n.rules(&["allow", "deny"]);
        w.proxies[1].rules.http_request = n.rules(&["return if path_beg /r"]);
        w.proxies[1].rules.http_response = n.rules(&["allow", "deny"]);
        w.proxies[0].rules.http_response = n.rules(&["deny if status 418"]);
    });
    let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
    assert_eq!(client.request(&mut get("/"), 200, 0), "-> be 200");
    assert_eq!(client.request(&mut get("/r"), 200, 0), "return by be");
    assert_eq!(client.request(&mut get("/"), 418, 0), "-> be deny");
}

#[test]
fn headers_are_computed_before_they_are_removed() {
    let world = world_with(|n, w| {
        w.proxies[0].rules.http_request = n.rules(&[
            "set-header X-A %[req.hdr(x-a)]+1",
            "add-header X-A second",
            "set-header X-B [%[req.hdr_cnt(x-a)]]",
            "set-header X-C %[urlp(v),url_dec]",
        ]);
    });
    let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
    let mut head = request(&[
        "GET /?v=a%0d%0aEvil:%20yes HTTP/1.1",
        "Host: h",
        "x-a: one",
        "X-A: two",
    ]);
    assert_eq!(client.begin(&mut head, 0), "-> be");
    let lines = |name: &str| -> Vec<String> {
        head.header_lines(name.as_bytes())
            .map(|v| String::from_utf8_lossy(v).into_owned())
            .collect()
    };
    assert_eq!(lines("x-a"), ["two+1", "second"]);
    assert_eq!(lines("x-b"), ["[2]"]);
    assert_eq!(lines("x-c"), ["a%0D%0AEvil: yes"], "no client adds lines");
    assert!(lines("evil").is_empty());
}

#[test]
fn an_edit_that_would_break_the_message_is_an_error() {
    let world = world_with(|_, w| {
        let rule = Rule::new(
            Action::SetHeader {
                name: b"X-A".to_vec(),
                value: Format {
                    items: Box::new([FormatItem::Text(b"a\r\nEvil: yes".to_vec())]),
                },
            },
            None,
            (0, 0),
        );
        w.proxies[0].rules.http_request = RuleSet {
            rules: Box::new([rule]),
        };
    });
    let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
    assert_eq!(client.begin(&mut get("/"), 0), "edit failed by fe");
}

#[test]
fn variables_live_as_long_as_their_scope() {
    let world = world_with(|n, w| {
        w.proxies[0].rules.http_request = n.rules(&[
            "set-var(sess.n) var(sess.n,0),add(1)",
            "set-var(txn.n) var(txn.n,0),add(1)",
            "set-var(proc.n) var(proc.n,0),add(1)",
            "set-header X %[var(sess.n)].%[var(txn.n)].%[var(proc.n)]",
        ]);
    });
    let seen = |client: &Client<'_>| {
        let mut head = get("/");
        client.request(&mut head, 200, 0);
        String::from_utf8_lossy(head.header_lines(b"x").next().unwrap()).into_owned()
    };
    let first = Client::connect(&world, "192.0.2.1", 0).unwrap();
    assert_eq!(
        (seen(&first), seen(&first)),
        ("1.1.1".into(), "2.1.2".into())
    );
    let second = Client::connect(&world, "192.0.2.1", 0).unwrap();
    assert_eq!(seen(&second), "1.1.3");
}
