//! `tcp-request connection`, `session` and `content`: what is refused where, and what is counted for it.

use std::net::Ipv4Addr;

use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Gone, Server, get, get_from};

use crate::common::{config, site};

const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn connection_reject_resets_without_a_log_line() {
    let server = Server::http();
    let rules = "  tcp-request connection reject if { src 127.0.0.2 }";
    let proxy = site(rules, "", &server).start();
    let mut refused = Client::connect_from(OTHER, proxy.addr("fe"));
    let (got, gone) = refused.get("/").ending();
    assert!(got.is_empty());
    assert!(
        gone == Gone::Reset || proxy.is_haproxy() && gone == Gone::Closed,
        "{gone:?}"
    );
    assert_eq!(get(proxy.addr("fe"), "/seen").map(|r| r.status), Ok(200));
    proxy.log_line("of the accepted one", |line| line.contains("GET /seen"));
    assert!(
        !proxy.stdout().contains("127.0.0.2:"),
        "a refused connection is not logged:\n{}",
        proxy.stdout()
    );
    proxy.cli().stat_becomes("fe", "FRONTEND", &[("dcon", "1")]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn what_was_tracked_before_the_reject_counts() {
    let server = Server::http();
    let rules =
        "  stick-table type ip size 1k expire 1h store conn_cnt,conn_cur,conn_rate(1h),sess_cnt
  tcp-request connection track-sc0 src
  tcp-request connection reject if { sc0_conn_rate gt 2 }";
    let proxy = site(rules, "", &server).start();
    let outcomes: Vec<_> = (0..5)
        .map(|_| get(proxy.addr("fe"), "/").map(|r| r.status))
        .collect();
    assert_eq!(outcomes[..2], [Ok(200), Ok(200)]);
    assert!(outcomes[2..].iter().all(Result::is_err), "{outcomes:?}");
    until("conn_cur back to 0", || {
        let entry = proxy.cli().entry("fe", "127.0.0.1")?;
        (entry.get("conn_cur") == 0).then_some(())
    });
    until_true("all are counted", || {
        let entry = proxy.cli().entry("fe", "127.0.0.1").expect("tracked");
        ["conn_cnt", "conn_rate", "sess_cnt"].map(|name| entry.get(name)) == [5, 5, 2]
    });
    proxy.cli().stat_becomes("fe", "FRONTEND", &[("dcon", "3")]);
}

#[test]
fn session_reject_is_counted_apart() {
    let server = Server::http();
    let rules = "  stick-table type ip size 1k expire 1h store conn_cnt,sess_cnt
  tcp-request session track-sc0 src
  tcp-request session reject if { src 127.0.0.2 }";
    let proxy = site(rules, "", &server).start();
    assert!(get_from(OTHER, proxy.addr("fe"), "/").is_err());
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    let counts = |key: &str| {
        let entry = proxy.cli().entry("fe", key).expect("tracked");
        ["conn_cnt", "sess_cnt"].map(|name| entry.get(name))
    };
    assert_eq!((counts("127.0.0.2"), counts("127.0.0.1")), ([1, 0], [1, 1]));
    let wanted = [("dses", "1"), ("dcon", "0")];
    proxy.cli().stat_becomes("fe", "FRONTEND", &wanted);
}

#[test]
fn content_reject_closes_and_is_logged() {
    let server = Server::http();
    let rules = "  tcp-request content reject if { path /no }";
    let proxy = site(rules, "", &server).start();
    let refused = get(proxy.addr("fe"), "/no").map(|r| r.status);
    assert!(
        matches!(refused, Err(Gone::Closed | Gone::Reset)),
        "{refused:?}"
    );
    let line = proxy.log_line("of the reject", |line| line.contains(" PR-- "));
    assert!(line.contains(" fe fe/<NOSRV> "), "{line}");
    proxy.cli().stat_becomes("fe", "FRONTEND", &[("dreq", "1")]);
    assert_eq!(get(proxy.addr("fe"), "/yes").map(|r| r.status), Ok(200));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn accept_stops_its_own_set_only() {
    let server = Server::http();
    let rules = "  tcp-request connection accept if { src 127.0.0.1 }
  tcp-request connection reject
  tcp-request content accept if { path /front }
  tcp-request content reject if { path_beg /front }";
    let proxy = site(
        rules,
        "  tcp-request content reject if { path /front }",
        &server,
    )
    .start();
    assert!(
        get_from(OTHER, proxy.addr("fe"), "/").is_err(),
        "the first set goes on for others"
    );
    assert!(
        get(proxy.addr("fe"), "/front").is_err(),
        "the backend's set still runs"
    );
    assert!(get(proxy.addr("fe"), "/frontal").is_err());
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
}

#[test]
fn silent_drop_sends_nothing() {
    let server = Server::http();
    let proxy = site(
        "  tcp-request content silent-drop if { path /drop }",
        "",
        &server,
    )
    .start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.patience(std::time::Duration::from_millis(300));
    let (got, gone) = client.get("/drop").ending();
    assert!(got.is_empty(), "{:?}", String::from_utf8_lossy(&got));
    // With the privilege the connection just falls silent; without it a reset is the best that can be done.
    assert!(
        matches!(gone, Gone::Silent(_) | Gone::Reset | Gone::Closed),
        "{gone:?}"
    );
    assert!(server.requests().is_empty());
}

#[test]
fn inspect_delay_waits_for_content_in_tcp_mode() {
    let server = Server::raw(|mut peer| {
        while let Some(piece) = peer.some() {
            peer.write(piece);
        }
    });
    let proxy = config(
        "
listen tcp
  mode tcp
  bind 127.0.0.1:{{port:tcp}}
  tcp-request inspect-delay 10s
  tcp-request content reject if { req.payload(0,3) -m str BAD }
  tcp-request content accept if { req.len ge 3 }
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    let mut good = Client::connect(proxy.addr("tcp"));
    assert_eq!(
        good.send("GO").send("OD day").take(8),
        Ok(b"GOOD day".to_vec())
    );
    let mut bad = Client::connect(proxy.addr("tcp"));
    bad.send("B");
    until_true("the proxy holds the first byte back", || {
        server.accepted() == 1
    });
    assert!(matches!(
        bad.send("AD").ending().1,
        Gone::Closed | Gone::Reset
    ));
    assert_eq!(
        server.accepted(),
        1,
        "the refused one never reached the server"
    );
}

#[test]
fn inspect_delay_runs_out() {
    let server = Server::raw(|mut peer| {
        peer.write("server speaks first\n");
        peer.wait_closed();
    });
    let proxy = config(
        "
listen tcp
  mode tcp
  bind 127.0.0.1:{{port:tcp}}
  tcp-request inspect-delay 200ms
  tcp-request content reject if { req.payload(0,3) -m str BAD }
  tcp-request content accept if WAIT_END
  tcp-request content reject
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    let mut silent = Client::connect(proxy.addr("tcp"));
    assert_eq!(silent.take(20), Ok(b"server speaks first\n".to_vec()));
}

#[test]
fn variables_set_early_are_read_late() {
    let server = Server::http();
    let rules = "  tcp-request connection set-var(sess.who) src
  tcp-request session set-var(sess.n) int(41),add(1)
  tcp-request content set-var(txn.p) path
  http-request set-header X-Who %[var(sess.who)]
  http-request set-header X-N %[var(sess.n)]
  http-request set-header X-P %[var(txn.p),upper]";
    let proxy = site(rules, "", &server).start();
    assert_eq!(get(proxy.addr("fe"), "/abc").map(|r| r.status), Ok(200));
    let request = &server.requests()[0];
    let got = ["x-who", "x-n", "x-p"].map(|name| request.header(name));
    assert_eq!(got, [Some("127.0.0.1"), Some("42"), Some("/ABC")]);
}

#[test]
fn counters_of_the_general_purpose_kind() {
    let server = Server::http();
    let rules = "  stick-table type ip size 1k expire 1h store gpc(3),gpc_rate(3,1h),gpt(2)
  tcp-request connection track-sc0 src
  tcp-request connection sc-inc-gpc(0,0)
  tcp-request session sc-inc-gpc(1,0)
  tcp-request content sc-inc-gpc(2,0)
  tcp-request content sc-set-gpt(1,0) int(7)
  http-request sc-add-gpc(2,0) 40
  http-request sc-set-gpt(0,0) 5";
    let proxy = site(rules, "", &server);
    if crate::common::haproxy_lacks("sc-add-gpc") {
        return;
    }
    let proxy = proxy.start();
    let mut client = Client::connect(proxy.addr("fe"));
    for _ in 0..2 {
        assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
    }
    let entry = proxy.cli().entry("fe", "127.0.0.1").expect("tracked");
    let printed = entry
        .line
        .split("gpt0=")
        .nth(1)
        .map(|rest| format!("gpt0={rest}"));
    let expected = "gpt0=5 gpt1=7 gpc0=1 gpc1=1 gpc2=82 gpc0_rate(3600000)=1 gpc1_rate(3600000)=1 gpc2_rate(3600000)=82";
    assert_eq!(printed.as_deref(), Some(expected));
}

#[test]
fn increments_in_conditions_happen_only_when_reached() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  stick-table type ip size 1k expire 1h store gpc0
  http-request track-sc0 src
  http-request deny if { path /bad } { sc0_inc_gpc0 gt 2 }
  http-request deny deny_status 404 if { path /clear } { sc0_clr_gpc0 ge 0 }
  http-request return status 200 hdr N %[sc0_get_gpc0]
",
    )
    .start();
    let ask = |path: &str| {
        get(proxy.addr("fe"), path)
            .map(|r| (r.status, r.header("n").map(str::to_owned)))
            .expect("an answer")
    };
    let n = |count: &str| (200, Some(count.to_owned()));
    assert_eq!(ask("/"), n("0"));
    assert_eq!(ask("/bad"), n("1"));
    assert_eq!(ask("/"), n("1"), "the first term was false");
    assert_eq!(ask("/bad"), n("2"));
    assert_eq!(ask("/bad").0, 403);
    assert_eq!(ask("/"), n("3"));
    assert_eq!(ask("/clear").0, 404);
    assert_eq!(ask("/"), n("0"));
}
