//! The admin endpoint and the metrics page: health, formats, bounds, probes, and the page as a service of a frontend.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use cluster_tests::scrape::{documented, families, lint, samples};
use cluster_tests::server::Gate;
use cluster_tests::wait::{PATIENCE, until, until_true, until_within};
use cluster_tests::{Client, Launch, Output, Proxy, Response, Server, get, locate, tools};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks, measured};

/// The site, with an endpoint on a port and a socket.
fn site(server: &Server) -> Launch {
    let head = HEAD.replacen(
        "global\n",
        "global\n  admin bind 127.0.0.1:{{port:admin}}\n  admin bind unix@{{dir}}/admin.sock mode 600\n",
        1,
    );
    measured(&head, server)
}

/// The same, started and ready: the endpoint answers before every thread accepts.
fn ready_site(server: &Server) -> Proxy {
    let proxy = site(server).start();
    until_true("it is ready", || {
        ask(&proxy, "GET /readyz HTTP/1.1\r\nHost: x").status == 200
    });
    proxy
}

fn ask(proxy: &Proxy, request: &str) -> Response {
    let mut client = Client::connect(proxy.addr("admin"));
    let method = request.split(' ').next().unwrap_or_default();
    client.send(format!("{request}\r\n\r\n"));
    client.response_to(method).expect("an answer")
}

/// `remora --probe …`, beside the proxy.
fn probe(proxy: &Proxy, args: &[&str]) -> Output {
    let mut command = Command::new(locate::program(proxy.kind()));
    tools::run(command.arg("--probe").args(args).current_dir(proxy.dir()))
}

#[test]
fn pages_and_what_is_no_page() {
    if haproxy_lacks("has no admin endpoint") {
        return;
    }
    let server = Server::http();
    let proxy = ready_site(&server);
    for (request, status, body) in [
        ("GET /livez HTTP/1.1\r\nHost: x", 200, Some("live\n")),
        ("GET /readyz HTTP/1.1\r\nHost: x", 200, Some("ready\n")),
        (
            "GET /readyz?verbose HTTP/1.1\r\nHost: x",
            200,
            Some("ready\n"),
        ),
        ("HEAD /readyz HTTP/1.1\r\nHost: x", 200, Some("")),
        ("GET /livez HTTP/1.0", 200, Some("live\n")),
        ("GET / HTTP/1.1\r\nHost: x", 404, None),
        ("GET /metrics/ HTTP/1.1\r\nHost: x", 404, None),
        ("GET /../livez HTTP/1.1\r\nHost: x", 404, None),
        (
            "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0",
            405,
            None,
        ),
        ("DELETE /metrics HTTP/1.1\r\nHost: x", 405, None),
        ("GET /metrics?scope=foo HTTP/1.1\r\nHost: x", 400, None),
        ("GET /metrics?scope= HTTP/1.1\r\nHost: x", 200, Some("")),
        ("rubbish", 400, None),
    ] {
        let answer = ask(&proxy, request);
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        if let Some(body) = body {
            assert_eq!(answer.text(), body, "{request}");
        }
        assert!(
            answer.closes() || request.contains("HTTP/1.0"),
            "{answer:?}"
        );
    }
    let refused = ask(&proxy, "PUT /readyz HTTP/1.1\r\nHost: x");
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    // A head without end, and one of very many lines.
    let long = format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    let many = format!("GET /livez HTTP/1.1\r\nHost: x{}", "\r\nx: y".repeat(1000));
    for request in [long, many] {
        let mut client = Client::connect(proxy.addr("admin"));
        client.send(format!("{request}\r\n\r\n"));
        // The answer may be lost when more was sent than is read.
        if let Ok(answer) = client.response() {
            assert_eq!(answer.status, 431);
        }
        assert!(client.is_closed());
    }
    assert_eq!(ask(&proxy, "GET /livez HTTP/1.1\r\nHost: x").status, 200);
    let mut client = Client::connect_unix(&proxy.dir().join("admin.sock"));
    assert_eq!(
        client.get("/readyz").response().expect("an answer").status,
        200
    );
    if let Some(mut curl) = tools::tool("curl") {
        let url = format!("http://{}/readyz", proxy.addr("admin"));
        assert_eq!(tools::run(curl.args(["-fsS", &url])).stdout, "ready\n");
    }
}

#[test]
fn metrics_are_the_documented_ones_and_count() {
    if haproxy_lacks("has other names") {
        return;
    }
    let server = Server::http();
    let proxy = ready_site(&server);
    for path in ["/", "/", "/status/404", "/deny"] {
        get(proxy.addr("fe"), path).expect("an answer");
    }
    let expected = [
        ("remora_process_ready", 1.0),
        ("remora_process_requests_total", 4.0),
        ("remora_frontend_http_requests_total{proxy=\"fe\"}", 4.0),
        ("remora_frontend_requests_denied_total{proxy=\"fe\"}", 1.0),
        (
            "remora_frontend_http_responses_total{proxy=\"fe\",code=\"2xx\"}",
            2.0,
        ),
        (
            "remora_frontend_http_responses_total{proxy=\"fe\",code=\"4xx\"}",
            2.0,
        ),
        ("remora_frontend_status{proxy=\"fe\",state=\"UP\"}", 1.0),
        ("remora_backend_http_requests_total{proxy=\"be\"}", 3.0),
        ("remora_backend_active_servers{proxy=\"be\"}", 1.0),
        (
            "remora_server_limit_sessions{proxy=\"be\",server=\"s1\"}",
            10.0,
        ),
        (
            "remora_server_http_responses_total{proxy=\"be\",server=\"s1\",code=\"4xx\"}",
            1.0,
        ),
        ("remora_sticktable_size{name=\"fe\",type=\"ip\"}", 1024.0),
        ("remora_sticktable_used{name=\"fe\",type=\"ip\"}", 1.0),
        (
            "remora_rule_matches_total{proxy=\"fe\",ruleset=\"http-request\",action=\"track-sc0\",file=\"test.cfg\",line=\"17\"}",
            4.0,
        ),
        (
            "remora_rule_matches_total{proxy=\"fe\",ruleset=\"http-request\",action=\"deny\",file=\"test.cfg\",line=\"18\"}",
            1.0,
        ),
    ];
    // The last request is counted after it has been answered.
    let scrape = || ask(&proxy, "GET /metrics HTTP/1.1\r\nHost: x");
    let page = until_within(PATIENCE, || {
        let page = scrape().text();
        let got = samples(&page);
        expected
            .iter()
            .all(|(name, n)| got.get(name) == Some(n))
            .then(|| page.clone())
    });
    let page = page.unwrap_or_else(|| panic!("{expected:?} in\n{}", scrape().text()));
    assert_eq!(
        scrape().header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let documented: BTreeSet<&str> = documented()
        .into_iter()
        // What nodes with peers have besides is looked at where there are peers, and what reloads tell where there are some.
        .filter(|name| {
            let of_others = [
                "_reload",
                "_handoff_",
                "peer",
                "certificate",
                "edicts",
                "shares",
                "stamps",
                "releases",
                "lineages",
                "tombstones",
                "cells_forgotten",
                "remora_discovery_",
            ];
            !of_others.iter().any(|part| name.contains(part)) || name.starts_with("remora_process_")
        })
        .collect();
    let shown = families(&page);
    assert_eq!(shown, documented);
    lint(&page);
}

#[test]
fn scrapers_that_ask_get_openmetrics() {
    if haproxy_lacks("has no OpenMetrics") {
        return;
    }
    let server = Server::http();
    let proxy = ready_site(&server);
    let answer = ask(
        &proxy,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let page = answer.text();
    assert!(page.ends_with("# EOF\n"), "{page}");
    assert!(
        page.contains(
            "\n# TYPE remora_process_requests counter\nremora_process_requests_total 0\n"
        )
    );
    let python = Path::new("/usr/bin/python3");
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  print(len(list(read(sys.stdin.read()))))";
    let has = |what: &str| {
        let probe = tools::run(Command::new(python).args(["-c", what]));
        probe.code == Some(0)
    };
    if !python.is_file() || !has("import prometheus_client") {
        tools::lacks("python3-prometheus-client is not installed");
        return;
    }
    let path = proxy.dir().join("page");
    std::fs::write(&path, &page).expect("a file");
    let file = std::fs::File::open(&path).expect("just written");
    let done = tools::run(Command::new(python).args(["-c", script]).stdin(file));
    assert_eq!(
        done.stdout.trim(),
        families(&page).len().to_string(),
        "{}",
        done.stderr
    );
}

#[test]
fn a_frontend_serves_the_page_by_rule() {
    let server = Server::http();
    let launch = if haproxy_lacks("has no admin endpoint: only the service is looked at") {
        let config = format!(
            "{HEAD}\nfrontend fe\n  bind 127.0.0.1:{{{{port:fe}}}}\n  stick-table type ip size 1k\n  \
             http-request use-service prometheus-exporter if {{ path /metrics }}\n"
        );
        Launch::new(&config)
    } else {
        site(&server)
    };
    let proxy = launch.start();
    let fe = proxy.addr("fe");
    let prefix = if proxy.is_haproxy() {
        "haproxy"
    } else {
        "remora"
    };
    let mut client = Client::connect(fe);
    // Twice, because the connection goes on.
    for _ in 0..2 {
        let answer = client.get("/metrics").response().expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .header("content-type")
                .is_some_and(|t| t.starts_with("text/plain; version=0.0.4"))
        );
        let page = answer.text();
        assert!(
            page.contains(&format!(
                "\n{prefix}_frontend_http_requests_total{{proxy=\"fe\"}} "
            )),
            "{page}"
        );
        if !proxy.is_haproxy() {
            lint(&page);
        }
    }
    client.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.response_to("HEAD").expect("an answer");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let part = client
        .get("/metrics?scope=sticktable")
        .response()
        .expect("an answer")
        .text();
    assert!(
        part.contains(&format!(
            "{prefix}_sticktable_size{{name=\"fe\",type=\"ip\"}} 1024\n"
        )),
        "{part}"
    );
    assert!(!part.contains("_frontend_"), "{part}");
    assert_eq!(
        get(fe, "/metrics?scope=foo").expect("an answer").status,
        400
    );
    if proxy.is_haproxy() {
        return;
    }
    let both = |page: String| {
        let names: Vec<String> = families(&page).into_iter().map(String::from).collect();
        names
    };
    // Only now, as the frontend has to have answered something to have all families.
    get(fe, "/").expect("an answer");
    let served = get(fe, "/metrics").expect("an answer").text();
    let intercepted = samples(&served)["remora_frontend_intercepted_requests_total{proxy=\"fe\"}"];
    assert_eq!(intercepted, 6.0);
    until_true("both pages have the same families", || {
        let own = ask(&proxy, "GET /metrics HTTP/1.1\r\nHost: x").text();
        let served = get(fe, "/metrics").expect("an answer").text();
        both(own) == both(served)
    });
    let line = proxy.log_line("of the service", |line| {
        line.contains("\"GET /metrics HTTP/1.1\"")
    });
    assert!(
        line.contains(" fe/<NOSRV> ") && line.contains(" 200 ") && line.contains(" LR-- "),
        "{line}"
    );
}

#[test]
fn values_of_labels_are_escaped() {
    if haproxy_lacks("has no metrics of rules") {
        return;
    }
    let name = "a\"b\\c\nd é.cfg";
    let rest = "frontend fe\n  mode http\n  timeout client 5s\n  bind unix@fe.sock\n  http-request return status 200\n";
    let proxy = Launch::new("global\n  admin bind 127.0.0.1:{{port:admin}}\n")
        .file(name, rest)
        .arg("-db")
        .arg("-f")
        .arg("test.cfg")
        .arg("-f")
        .arg(name)
        .start();
    let page = ask(&proxy, "GET /metrics HTTP/1.1\r\nHost: x").text();
    assert!(
        page.contains(r#",file="a\"b\\c\nd é.cfg",line="5"} 0"#),
        "{page}"
    );
    lint(&page);
}

#[test]
fn a_draining_process_is_alive_and_not_ready() {
    if haproxy_lacks("has no admin endpoint") {
        return;
    }
    let gate = Gate::default();
    let waits = gate.clone();
    let server = Server::with(move |request, peer| {
        waits.wait();
        peer.serve("s", request)
    });
    let mut proxy = ready_site(&server);
    let mut held = Client::connect(proxy.addr("fe"));
    held.get("/");
    until_true("the request is at the server", || {
        !server.requests().is_empty()
    });
    assert_eq!(probe(&proxy, &["ready", "admin.sock"]).code, Some(0));
    proxy.signal(Signal::USR1);
    let answer = until("not ready", || {
        let answer = ask(&proxy, "GET /readyz HTTP/1.1\r\nHost: x");
        (answer.status == 503).then_some(answer)
    });
    assert!(answer.text().starts_with("draining: "), "{answer:?}");
    assert_eq!(ask(&proxy, "GET /livez HTTP/1.1\r\nHost: x").status, 200);
    let refused = probe(&proxy, &["ready", "admin.sock"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.starts_with("draining: "), "{refused:?}");
    assert_eq!(probe(&proxy, &["live", "admin.sock"]).code, Some(0));
    let page = ask(&proxy, "GET /metrics HTTP/1.1\r\nHost: x").text();
    let got = samples(&page);
    assert_eq!(
        (got["remora_process_ready"], got["remora_process_stopping"]),
        (0.0, 1.0)
    );
    gate.open();
    assert_eq!(held.response().expect("an answer").status, 200);
    assert_eq!(proxy.wait().code(), Some(0));
    let gone = probe(&proxy, &["live", "admin.sock"]);
    assert_eq!(gone.code, Some(1));
    assert!(
        gone.stdout
            .contains("no answer from admin.sock: Connection refused"),
        "{gone:?}"
    );
}

#[test]
fn probes_find_their_socket_and_say_what_is_wrong() {
    if haproxy_lacks("has no probes") {
        return;
    }
    let server = Server::http();
    let proxy = ready_site(&server);
    let dir = proxy.dir().to_string_lossy().into_owned();
    std::fs::write(
        proxy.dir().join("tcp.cfg"),
        "global\n admin bind 127.0.0.1:1\n",
    )
    .expect("a file");
    std::fs::write(
        proxy.dir().join("bad.cfg"),
        "global\n admin bind /x mode 9\n",
    )
    .expect("a file");
    let _mute = UnixListener::bind(proxy.dir().join("mute.sock")).expect("a socket");
    for (args, code, text) in [
        (&["ready", "admin.sock"][..], 0, "ready\n"),
        (&["ready", "unix@admin.sock"], 0, "ready\n"),
        (&["live", "-f", "test.cfg"], 0, "live\n"),
        (&["live", "-C", &dir, "-f", "test.cfg"], 0, "live\n"),
        (
            &["live", "-f", "tcp.cfg"],
            1,
            "has no 'admin bind' on a UNIX socket",
        ),
        (&["live", "-f", "bad.cfg"], 1, "bad.cfg:2"),
        (
            &["live", "-f", "none.cfg"],
            1,
            "none.cfg : No such file or directory",
        ),
        (
            &["live", "none.sock"],
            1,
            "no answer from none.sock: No such file or directory",
        ),
        (&["live", "cli.sock"], 1, "does not speak HTTP/1.1"),
        (&["live", "mute.sock"], 1, "nothing within 5 seconds"),
        (&["live", &"x".repeat(200)], 1, "no answer from"),
    ] {
        let done = probe(&proxy, args);
        assert_eq!(done.code, Some(code), "{args:?}: {done:?}");
        assert!(done.stdout.contains(text), "{args:?}: {done:?}");
    }
}

#[test]
fn scrapes_do_not_disturb_traffic() {
    if haproxy_lacks("has no admin endpoint") {
        return;
    }
    let server = Server::http();
    let proxy = ready_site(&server);
    let fe = proxy.addr("fe");
    let load = std::thread::spawn(move || {
        let mut wrk = tools::tool("wrk")?;
        Some(tools::run(wrk.args([
            "-t1",
            "-c8",
            "-d2s",
            &format!("http://{fe}/"),
        ])))
    });
    let mut before = -1.0;
    let mut scrapes = 0;
    while !load.is_finished() || scrapes < 10 {
        let page = if scrapes % 2 == 0 {
            ask(&proxy, "GET /metrics HTTP/1.1\r\nHost: x")
        } else {
            get(fe, "/metrics").expect("an answer")
        };
        assert_eq!(page.status, 200);
        let page = page.text();
        let requests = samples(&page)["remora_frontend_http_requests_total{proxy=\"fe\"}"];
        assert!(requests >= before, "{requests} after {before}");
        before = requests;
        scrapes += 1;
    }
    if let Some(done) = load.join().expect("it does not panic") {
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(
            !done.stdout.contains("Socket errors") && !done.stdout.contains("Non-2xx"),
            "{}",
            done.stdout
        );
        assert!(before > 0.0, "{before}");
    }
}

#[test]
fn slow_clients_take_no_place_for_long() {
    if haproxy_lacks("has no admin endpoint") {
        return;
    }
    let server = Server::http();
    let proxy = ready_site(&server);
    let mut slow: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = Client::connect(proxy.addr("admin"));
            client.send("GET /livez HTTP/1.1\r\n");
            client
        })
        .collect();
    // All places of the port are taken; the socket has its own.
    assert_eq!(probe(&proxy, &["ready", "admin.sock"]).stdout, "ready\n");
    assert_eq!(get(proxy.addr("fe"), "/").expect("an answer").status, 200);
    // They are thrown out, and who waited gets a place.
    until_true("the first is closed", || {
        slow.first_mut().is_none_or(Client::is_closed)
    });
    assert_eq!(ask(&proxy, "GET /livez HTTP/1.1\r\nHost: x").status, 200);
}
