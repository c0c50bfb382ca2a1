//! `http-request` and `http-response` actions.

use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Gone, Server, get};

use crate::common::{config, site};

#[test]
fn deny_answers_with_the_chosen_status_and_counts() {
    let server = Server::http();
    let rules = "  http-request deny if { path /plain }
  http-request deny deny_status 429 if { path /429 }
  http-request deny status 404 if { path /404 }
  http-request deny deny_status 418 content-type text/plain string \"short and stout\" hdr X-Pot %[path] if { path /teapot }
  http-request deny deny_status 451 content-type text/plain lf-string \"no %[path] for %[src]\" if { path /lf }";
    let proxy = site(rules, "", &server).start();
    let fe = proxy.addr("fe");
    let plain = get(fe, "/plain").expect("an answer");
    assert_eq!(
        (plain.status, plain.header("content-type")),
        (403, Some("text/html"))
    );
    assert!(plain.text().contains("403 Forbidden"));
    assert_eq!(plain.header("cache-control"), Some("no-cache"));
    assert_eq!(get(fe, "/429").map(|r| r.status), Ok(429));
    assert_eq!(get(fe, "/404").map(|r| r.status), Ok(404));
    let pot = get(fe, "/teapot").expect("an answer");
    assert_eq!((pot.status, pot.text().as_str()), (418, "short and stout"));
    assert_eq!(
        (pot.header("content-type"), pot.header("x-pot")),
        (Some("text/plain"), Some("/teapot"))
    );
    assert_eq!(
        get(fe, "/lf").map(|r| (r.status, r.text())),
        Ok((451, "no /lf for 127.0.0.1".to_owned()))
    );
    assert!(server.requests().is_empty(), "nothing was forwarded");
    proxy.cli().stat_becomes("fe", "FRONTEND", &[("dreq", "5")]);
    proxy.log_line("of the deny", |line| {
        line.contains("PR--") && line.contains(" 403 ") && line.contains("GET /plain")
    });
}

#[test]
fn deny_keeps_the_connection_when_the_body_is_read() {
    let server = Server::http();
    let proxy = site("  http-request deny if { path /no }", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let refused = client.response().expect("an answer");
    assert_eq!(refused.status, 403);
    if !refused.closes() {
        assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn return_answers_from_the_proxy() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request return if { path /empty }
  http-request return status 201 content-type text/plain string made hdr X-A 1 hdr X-A 2 if { path /made }
  http-request return content-type text/plain file page.txt if { path /file }
  http-request return status 404 default-errorfiles if { path /errorfile }
  http-request return status 200 content-type text/plain lf-string \"%[method] %[path] %[query] %[req.hdr(host)]\"
",
    )
    .file("page.txt", "from a file\n")
    .start();
    let fe = proxy.addr("fe");
    let empty = get(fe, "/empty").expect("an answer");
    assert_eq!(
        (empty.status, empty.header("content-length")),
        (200, Some("0"))
    );
    let made = get(fe, "/made").expect("an answer");
    assert_eq!(
        (made.status, made.text().as_str(), made.all("x-a")),
        (201, "made", vec!["1", "2"])
    );
    assert_eq!(
        get(fe, "/file").map(|r| r.text()),
        Ok("from a file\n".to_owned())
    );
    assert_eq!(get(fe, "/errorfile").map(|r| r.status), Ok(404));
    assert_eq!(
        get(fe, "/x?a=b").map(|r| r.text()),
        Ok("GET /x a=b test".to_owned())
    );
    let mut head = Client::connect(fe);
    head.send("HEAD /made HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.response_to("HEAD").map(|r| r.status), Ok(201));
    assert_eq!(
        head.get("/made").response().map(|r| r.text()),
        Ok("made".to_owned()),
        "HEAD had no body"
    );
    proxy.log_line("of the return", |line| {
        line.contains("LR--") && line.contains("GET /made")
    });
}

#[test]
fn reject_closes_without_an_answer() {
    let server = Server::http();
    let proxy = site("  http-request reject if { path /no }", "", &server).start();
    let outcome = get(proxy.addr("fe"), "/no").map(|r| r.status);
    assert!(
        matches!(outcome, Err(Gone::Closed | Gone::Reset)),
        "{outcome:?}"
    );
    proxy.log_line("of the reject", |line| {
        line.contains("PR--") && line.contains("/no")
    });
    proxy.cli().stat_becomes("fe", "FRONTEND", &[("dreq", "1")]);
}

#[test]
fn tarpit_holds_then_answers() {
    let server = Server::http();
    let rules = "  timeout tarpit 300ms
  stick-table type ip size 1k store http_err_cnt
  http-request track-sc0 src
  http-request tarpit deny_status 429 if { path /pit }
  http-request tarpit if { path /default }";
    let proxy = site(rules, "", &server).start();
    let mut held = Client::connect(proxy.addr("fe"));
    held.get("/pit");
    until("the error counts at the start", || {
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .filter(|entry| entry.get("http_err_cnt") == 1)
    });
    assert_eq!(held.response().map(|r| r.status), Ok(429));
    let line = proxy.log_line("of the tarpit", |line| line.contains("GET /pit"));
    assert!(line.contains("PT--"), "{line}");
    let total: u64 = timers(&line).last().copied().expect("timers");
    assert!(total >= 300, "it was held for {total} ms: {line}");
    assert_eq!(get(proxy.addr("fe"), "/default").map(|r| r.status), Ok(500));
    assert!(server.requests().is_empty());
}

/// The `TR/Tw/Tc/Tr/Ta` of a log line; negative ones as 0.
fn timers(line: &str) -> Vec<u64> {
    let words = line
        .split(' ')
        .find(|word| word.matches('/').count() == 4)
        .expect("the timers");
    words
        .split('/')
        .map(|word| word.parse().unwrap_or(0))
        .collect()
}

#[test]
fn redirect_in_its_three_forms() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request redirect location /new code 301 if { path /old }
  http-request redirect prefix https://other.example code 307 if { path_beg /prefix }
  http-request redirect scheme https if { path_beg /scheme }
  http-request redirect location /q?x=%[path] drop-query code 308 if { path /fmt }
  http-request return status 200
",
    )
    .start();
    let ask = |path: &str| {
        let answer = get(proxy.addr("fe"), path).expect("an answer");
        (
            answer.status,
            answer.header("location").unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(ask("/old"), (301, "/new".to_owned()));
    assert_eq!(
        ask("/prefix/a?b=c"),
        (307, "https://other.example/prefix/a?b=c".to_owned())
    );
    assert_eq!(
        ask("/scheme/a?b=c"),
        (302, "https://test/scheme/a?b=c".to_owned())
    );
    assert_eq!(ask("/fmt"), (308, "/q?x=/fmt".to_owned()));
    proxy.log_line("of the redirect", |line| {
        line.contains("LR--") && line.contains("GET /old")
    });
}

#[test]
fn request_headers_are_set_added_and_deleted() {
    let server = Server::http();
    let rules = "  http-request set-header X-Set \"%[req.hdr(x-set)]+new\"
  http-request add-header X-Add second
  http-request del-header X-Del
  http-request del-header ^x-re -m reg
  http-request del-header x-beg -m beg
  http-request set-header X-Src %[src]:%[src_port]
  http-request set-header X-Alias \"%ci %HM %HP\"";
    let proxy = site(
        rules,
        "  http-request set-header X-Back %[be_name]",
        &server,
    )
    .start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("GET /p?q HTTP/1.1\r\nHost: a\r\nX-Set: one\r\nx-set: two\r\nX-Add: first\r\nX-Del: gone\r\nX-Rex: gone\r\nX-Begin: gone\r\nX-Keep: kept\r\n\r\n");
    assert_eq!(client.response().map(|r| r.status), Ok(200));
    let request = &server.requests()[0];
    assert_eq!(
        request.all("x-set"),
        ["two+new"],
        "the value is computed before the old ones go"
    );
    assert_eq!(request.all("x-add"), ["first", "second"]);
    assert_eq!(
        [
            request.header("x-del"),
            request.header("x-rex"),
            request.header("x-begin")
        ],
        [None; 3]
    );
    assert_eq!(request.header("x-keep"), Some("kept"));
    let local = client.local().expect("TCP").to_string();
    assert_eq!(request.header("x-src"), Some(local.as_str()));
    assert_eq!(request.header("x-alias"), Some("127.0.0.1 GET /p"));
    assert_eq!(request.header("x-back"), Some("be"));
}

#[test]
fn response_rules_see_and_change_the_answer() {
    let server = Server::with(|request, peer| {
        peer.body();
        let status = request
            .target
            .trim_start_matches('/')
            .parse()
            .unwrap_or(200);
        peer.reply(status, "X-Old: a\r\nServer: secret\r\n", "body")
    });
    let front = "  http-request set-var(txn.path) path
  http-response set-header X-Path %[var(txn.path)]
  http-response add-header X-Order front
  http-response deny if { status 500 }
  http-response deny deny_status 503 if { status 501 }
  http-response return status 299 content-type text/plain string other if { status 499 }";
    let back = "  http-response del-header server
  http-response set-header X-Old %[res.hdr(x-old)]b
  http-response add-header X-Order back
  http-response set-header X-Status %[status]";
    let proxy = site(front, back, &server).start();
    let fe = proxy.addr("fe");
    let answer = get(fe, "/200").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    assert_eq!(answer.header("server"), None);
    let got = ["x-old", "x-path", "x-status"].map(|name| answer.header(name));
    assert_eq!(got, [Some("ab"), Some("/200"), Some("200")]);
    assert_eq!(
        answer.all("x-order"),
        ["back", "front"],
        "the backend's rules run first"
    );
    assert_eq!(
        get(fe, "/500").map(|r| r.status),
        Ok(502),
        "a denied response is 502 by default"
    );
    assert_eq!(get(fe, "/501").map(|r| r.status), Ok(503));
    assert_eq!(
        get(fe, "/499").map(|r| (r.status, r.text())),
        Ok((299, "other".to_owned()))
    );
    let line = proxy.log_line("of the denied response", |line| line.contains("GET /500"));
    assert!(line.contains(" 502 ") && line.contains("PH--"), "{line}");
    proxy
        .cli()
        .stat_becomes("fe", "FRONTEND", &[("dresp", "2")]);
}

#[test]
fn response_tracking_counts_errors_of_paths() {
    let server = Server::http();
    let rules = "  http-request set-var(txn.path) path";
    let back = "  stick-table type string len 32 size 1k expire 1h store http_req_cnt,http_err_cnt,http_fail_cnt
  http-response track-sc0 var(txn.path) if { status ge 400 }";
    let proxy = site(rules, back, &server).start();
    for path in ["/", "/status/404", "/status/404", "/status/500"] {
        assert!(get(proxy.addr("fe"), path).is_ok());
    }
    let counts = |key: &str| {
        proxy
            .cli()
            .entry("be", key)
            .map(|e| ["http_req_cnt", "http_err_cnt", "http_fail_cnt"].map(|name| e.get(name)))
    };
    until_true("errors and failures count", || {
        counts("/status/404") == Some([2, 2, 0]) && counts("/status/500") == Some([1, 0, 1])
    });
    assert_eq!(counts("/"), None);
}

#[test]
fn allow_stops_its_own_set_only() {
    let server = Server::http();
    let rules = "  http-request allow if { path_beg /open }
  http-request deny if { path_beg / } !{ path_beg /free }";
    let proxy = site(
        rules,
        "  http-request deny deny_status 404 if { path /open/backend }",
        &server,
    )
    .start();
    let status = |path| get(proxy.addr("fe"), path).map(|r| r.status);
    assert_eq!(
        [status("/open"), status("/x"), status("/free")],
        [Ok(200), Ok(403), Ok(200)]
    );
    assert_eq!(status("/open/backend"), Ok(404));
}

#[test]
fn set_var_and_converters_compute() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request set-var(txn.x) path,field(2,/)
  http-request set-var(txn.sum) int(5),add(3),mul(2),sub(1),div(3),mod(4)
  http-request set-var(txn.big) int(9223372036854775807),add(1)
  http-request set-header X-A %[var(txn.x),lower]
  http-request return status 200 hdr field %[path,field(3,/)] hdr word %[path,word(2,/)] hdr lower %[req.hdr(x-a)] hdr sum %[var(txn.sum)] hdr big %[var(txn.big)] hdr len %[path,length] hdr hex %[path,hex] hdr b64 %[path,base64] hdr mask %[src,ipmask(8)] hdr dec %[urlp(u),url_dec] hdr sub '%[path,regsub(\"/+\",-,g)]' hdr cat %[path,concat(<,txn.x,>)] hdr xxh %[str(abc),xxh32] hdr crc %[str(abc),crc32] hdr djb %[str(abc),djb2] hdr sdbm %[str(abc),sdbm] hdr wt6 %[str(abc),wt6] hdr sha %[str(abc),sha1,hex] hdr cook %[req.cook(c)] hdr bytes %[path,bytes(1,3)]
",
    )
    .start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("GET /Ab/cd//e?u=a%20b%2Bc HTTP/1.1\r\nHost: a\r\nCookie: a=1; c=two\r\n\r\n");
    let answer = client.response().expect("an answer");
    for (name, value) in [
        ("field", "cd"),
        ("word", "cd"),
        ("lower", "ab"),
        ("sum", "1"),
        ("big", "9223372036854775807"),
        ("len", "9"),
        ("hex", "2F41622F63642F2F65"),
        ("b64", "L0FiL2NkLy9l"),
        ("mask", "127.0.0.0"),
        ("dec", "a b+c"),
        ("sub", "-Ab-cd-e"),
        ("cat", "/Ab/cd//e<Ab>"),
        ("xxh", "852579327"),
        ("crc", "891568578"),
        ("djb", "193485963"),
        ("sdbm", "807794786"),
        ("wt6", "2483038440"),
        ("sha", "A9993E364706816ABA3E25717850C26C9CD0D89D"),
        ("cook", "two"),
        ("bytes", "Ab/"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
}
