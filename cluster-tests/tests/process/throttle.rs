//! A request limit and a ban per client address, answered by the proxy itself, no server involved.

use std::net::Ipv4Addr;

use cluster_tests::wait::until_true;
use cluster_tests::{Client, get, get_from};

use crate::common::config;

const LIMIT: &str = "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  stick-table type ip size 100k expire 1h store http_req_rate(1h),gpc0
  http-request track-sc0 src
  http-request deny deny_status 429 hdr Retry-After 10 if { sc0_http_req_rate gt 5 }
  http-request return status 200 content-type text/plain string hello
";

#[test]
fn requests_beyond_the_limit_get_429() {
    let proxy = config(LIMIT).start();
    let mut client = Client::connect(proxy.addr("fe"));
    for _ in 0..5 {
        let answer = client.get("/").response().expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    }
    let refused = client.get("/").response().expect("an answer");
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("10"))
    );
    // Refused requests count too, and the limit is per client, not per connection.
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(429));
    assert_eq!(
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .expect("an entry")
            .get("http_req_rate"),
        7
    );
    let other = get_from(Ipv4Addr::new(127, 0, 0, 7), proxy.addr("fe"), "/");
    assert_eq!(
        other.map(|r| r.status),
        Ok(200),
        "another client is not affected"
    );
}

#[test]
fn the_limit_is_lifted_when_the_rate_has_fallen() {
    let proxy = config(&LIMIT.replace("(1h)", "(400ms)")).start();
    let fe = proxy.addr("fe");
    until_true("a refusal", || get(fe, "/").map(|r| r.status) == Ok(429));
    // One more request per period stays below the limit, so asking does not prolong it for ever.
    until_true("the rate falls", || {
        proxy
            .cli()
            .entry("fe", "127.0.0.1")
            .expect("an entry")
            .get("http_req_rate")
            < 5
    });
    assert_eq!(get(fe, "/").map(|r| r.status), Ok(200));
}

#[test]
fn a_ban_lasts_as_long_as_the_entry() {
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  stick-table type ip size 100k expire 3s store gpc0
  http-request deny deny_status 403 if { src_get_gpc0 gt 0 }
  http-request track-sc0 src
  http-request sc-inc-gpc0(0) if { path /abuse }
  http-request return status 200 content-type text/plain string hello
",
    )
    .start();
    let fe = proxy.addr("fe");
    assert_eq!(get(fe, "/").map(|r| r.status), Ok(200));
    assert_eq!(get(fe, "/abuse").map(|r| r.status), Ok(200));
    assert_eq!(get(fe, "/").map(|r| r.status), Ok(403));
    until_true("the ban expires although the client keeps asking", || {
        get(fe, "/").map(|r| r.status) == Ok(200)
    });
    let fresh = proxy.cli().entry("fe", "127.0.0.1").expect("a new entry");
    assert_eq!(fresh.get("gpc0"), 0);
}
