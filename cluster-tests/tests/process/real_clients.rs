//! Programs people use, as clients: curl, wrk, h2load, Python's http.client, socat.

use cluster_tests::{Server, tools};

use crate::common::site;

#[test]
fn curl_downloads_uploads_and_follows() {
    let Some(mut curl) = tools::tool("curl") else {
        return;
    };
    let server = Server::http();
    let proxy = site(
        "  http-request redirect location /size/70000 if { path /moved }",
        "",
        &server,
    )
    .start();
    let fe = proxy.addr("fe");
    let done = tools::run(curl.args([
        "-s",
        "-S",
        "-L",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_download} %{num_redirects}",
        &format!("http://{fe}/moved"),
    ]));
    assert_eq!(done.stdout, "200 70000 1", "{}", done.stderr);
    let mut curl = tools::tool("curl").expect("found before");
    // A body this long makes curl wait for 100 Continue.
    let body = "x".repeat(2_000_000);
    std::fs::write(proxy.dir().join("body"), &body).expect("a file");
    curl.args([
        "-s",
        "-S",
        "--data-binary",
        "@body",
        &format!("http://{fe}/echo"),
    ])
    .current_dir(proxy.dir());
    assert!(tools::run(&mut curl).stdout == body);
}

#[test]
fn wrk_and_h2load_see_no_error() {
    let server = Server::http();
    let proxy = site("  stick-table type ip size 1k expire 1h store http_req_cnt,conn_cur\n  http-request track-sc0 src", "", &server).start();
    let url = format!("http://{}/", proxy.addr("fe"));
    if let Some(mut wrk) = tools::tool("wrk") {
        let done = tools::run(wrk.args(["-t2", "-c20", "-d1s", &url]));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(
            !done.stdout.contains("Socket errors") && !done.stdout.contains("Non-2xx"),
            "{}",
            done.stdout
        );
    }
    if let Some(mut h2load) = tools::tool("h2load") {
        let done = tools::run(h2load.args(["--h1", "-n500", "-c10", "-m1", &url]));
        assert!(
            done.stdout.contains("500 succeeded, 0 failed"),
            "{}",
            done.stdout
        );
    }
    cluster_tests::wait::until_true("every request is counted and released", || {
        let entry = proxy.cli().entry("fe", "127.0.0.1");
        entry.is_none_or(|entry| {
            entry.get("conn_cur") == 0
                && entry.get("http_req_cnt") as usize == server.requests().len()
        })
    });
}

#[test]
fn python_keeps_its_connection() {
    let Some(mut python) = tools::tool("python3") else {
        return;
    };
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let script = "
import http.client, sys
c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10)
for i in range(3):
    c.request('POST', '/echo', body=iter([b'a' * 1000, b'b' * 1000]), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
    r = c.getresponse()
    assert r.status == 200 and r.read() == b'a' * 1000 + b'b' * 1000
    c.request('GET', '/chunked/5000')
    assert len(c.getresponse().read()) == 5000
print('fine')
";
    let done = tools::run(python.args(["-c", script, &proxy.addr("fe").port().to_string()]));
    assert_eq!(done.stdout, "fine\n", "{}", done.stderr);
}

#[test]
fn socat_asks_the_cli() {
    let Some(socat) = tools::find("socat") else {
        tools::lacks("socat is not installed");
        return;
    };
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let line = format!(
        "echo 'show info' | {} - UNIX-CONNECT:{}",
        socat.display(),
        proxy.cli().path().display()
    );
    let done = tools::run(std::process::Command::new("sh").args(["-c", &line]));
    assert!(
        done.stdout.starts_with("Name: ") && done.stdout.ends_with("\n\n"),
        "{}{}",
        done.stdout,
        done.stderr
    );
}
