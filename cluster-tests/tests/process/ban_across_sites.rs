//! The scenario stick tables were invented for: a ban shared by all sites, rates per site.

use cluster_tests::wait::{until, until_true};
use cluster_tests::{Gone, Launch, Server, get};

/// The configuration as users have it; only the two addresses are the test's.
const CONFIG: &str = include_str!("../../../docs/examples/ban-across-sites.cfg");

const PAGE: &str = "HTTP/1.0 503 Slow Down\r\nCache-Control: no-cache\r\nContent-Type: text/plain\r\n\r\nslow down\n";

fn launch(config: &str, server: &Server) -> Launch {
    let config = config
        .replace(":8081", ":{{port:web}}")
        .replace("127.0.0.1:8000", "{{s1}}");
    Launch::new(&format!(
        "global\n  stats socket {{{{cli}}}} level admin\n{config}"
    ))
    .set("s1", server.addr())
    .file("503-slow-down.http", PAGE)
}

#[test]
fn three_pass_one_is_closed_the_rest_get_the_error_file() {
    let server = Server::http();
    let proxy = launch(CONFIG, &server).start();
    let web = proxy.addr("web");

    for _ in 0..3 {
        assert_eq!(get(web, "/").map(|r| r.status), Ok(200));
    }
    let fourth = get(web, "/").map(|r| r.status);
    assert!(
        matches!(fourth, Err(Gone::Closed | Gone::Reset)),
        "the fourth connection is closed: {fourth:?}"
    );
    for _ in 0..4 {
        let answer = get(web, "/").expect("the error file");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (503, "slow down\n")
        );
        let head = answer.head.to_ascii_lowercase();
        assert!(
            head.contains(" 503 slow down\r\ncache-control: no-cache\r\ncontent-type: text/plain"),
            "{head:?}"
        );
    }
    assert_eq!(
        server.requests().len(),
        3,
        "the server saw only the first three"
    );

    let banned = until("nobody holds the entry", || {
        let entry = proxy.cli().entry("web", "127.0.0.1").expect("an entry");
        (entry.get("use") == 0).then_some(entry)
    });
    assert_eq!(banned.get("gpc0"), 1);
    assert!((1..=600_000).contains(&banned.get("exp")));

    // The banned client's own requests must not prolong its ban.
    until_true("exp falls while the client keeps knocking", || {
        assert_eq!(get(web, "/").map(|r| r.status), Ok(503));
        let now = proxy.cli().entry("web", "127.0.0.1").expect("still banned");
        assert!(
            now.get("exp") <= banned.get("exp"),
            "refreshed: {}",
            now.line
        );
        assert_eq!(now.get("gpc0"), 1);
        now.get("exp") + 50 < banned.get("exp")
    });
    let shop = proxy.cli().entry("shop", "127.0.0.1").expect("an entry");
    assert_eq!(
        shop.get("conn_rate"),
        4,
        "the shop saw four connections: {}",
        shop.line
    );
}

#[test]
fn the_ban_runs_out_while_they_keep_knocking() {
    let server = Server::http();
    let config = CONFIG
        .replace("expire 10m", "expire 3s")
        .replace("conn_rate(100s)", "conn_rate(200ms)");
    let proxy = launch(&config, &server).start();
    let web = proxy.addr("web");

    until("the client to be banned", || {
        (get(web, "/").ok()?.status == 503).then_some(())
    });
    let mut refused = 0;
    until_true("the ban runs out", || {
        match get(web, "/").map(|r| r.status) {
            Ok(200) => true,
            other => {
                assert_eq!(other, Ok(503));
                refused += 1;
                false
            }
        }
    });
    assert!(refused > 0, "it did knock while banned");
}

#[test]
fn a_download_beyond_the_byte_rate_bans() {
    let server = Server::http();
    let config = CONFIG
        .replace("20000000", "100000")
        .replace("sc2_conn_rate gt 3", "sc2_conn_rate gt 30");
    let proxy = launch(&config, &server).start();
    let web = proxy.addr("web");

    assert_eq!(get(web, "/size/200000").map(|r| r.body.len()), Ok(200_000));
    until("the bytes to count", || {
        proxy
            .cli()
            .entry("shop", "127.0.0.1")
            .filter(|e| e.get("bytes_out_rate") > 200_000)
    });
    assert!(matches!(get(web, "/"), Err(Gone::Closed | Gone::Reset)));
    assert_eq!(get(web, "/").map(|r| r.status), Ok(503));
}
