//! HTTP/1 on the wire: connections kept on both sides, pipelining, bodies, interim answers, tunnels.

use cluster_tests::server::{Gate, pattern};
use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Gone, Server, get};

use crate::common::{config, site};

#[test]
fn connections_are_kept_on_both_sides() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    for _ in 0..5 {
        let answer = client.get("/").response().expect("an answer");
        assert!(!answer.closes());
        assert_eq!(answer.text(), "hello");
    }
    assert_eq!(server.accepted(), 1, "one connection served all requests");
}

#[test]
fn the_client_decides_when_to_close() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let fe = proxy.addr("fe");
    let mut client = Client::connect(fe);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(client.response().expect("an answer").closes());
    assert!(client.is_closed());
    let mut old = Client::connect(fe);
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.response().map(|r| r.text()), Ok("hello".to_owned()));
    assert!(old.is_closed(), "HTTP/1.0 does not keep by default");
    let mut kept = Client::connect(fe);
    for _ in 0..2 {
        kept.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(kept.response().map(|r| r.text()), Ok("hello".to_owned()));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::http();
    let proxy = site(
        "  http-request return status 200 content-type text/plain string mine if { path /own }",
        "",
        &server,
    )
    .start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send(
        "GET /name HTTP/1.1\r\nHost: a\r\n\r\nGET /own HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbodyGET /size/3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    let bodies: Vec<_> = (0..4)
        .map(|_| client.response().map(|r| r.text()))
        .collect();
    let expected = [
        "".to_owned(),
        "mine".to_owned(),
        "body".to_owned(),
        String::from_utf8(pattern(3)).expect("text"),
    ];
    assert_eq!(bodies, expected.map(Ok));
    assert!(client.is_closed());
}

#[test]
fn bodies_of_every_shape_arrive_unchanged() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let fe = proxy.addr("fe");
    for count in [0, 1, 999, 16_384, 65_536, 1_048_576, 5_000_000] {
        for route in ["size", "chunked", "until-close"] {
            let answer = get(fe, &format!("/{route}/{count}")).expect("an answer");
            assert!(
                answer.body == pattern(count),
                "/{route}/{count}: {} bytes came",
                answer.body.len()
            );
        }
        let mut client = Client::connect(fe);
        client
            .send(format!(
                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {count}\r\n\r\n"
            ))
            .send(pattern(count));
        assert!(
            client.response().is_ok_and(|r| r.body == pattern(count)),
            "echo of {count}"
        );
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in pattern(count).chunks(70_000) {
            client
                .send(format!("{:X};ext=1\r\n", piece.len()))
                .send(piece)
                .send("\r\n");
        }
        client.send("0\r\nX-Trailer: x\r\n\r\n");
        assert!(
            client.response().is_ok_and(|r| r.body == pattern(count)),
            "chunked echo of {count}"
        );
        assert_eq!(
            client.get("/").response().map(|r| r.status),
            Ok(200),
            "the connection is in step"
        );
    }
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    if crate::common::haproxy_lacks("sends chunks to HTTP/1.0") {
        return;
    }
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("GET /chunked/3000 HTTP/1.0\r\n\r\n");
    let answer = client.response().expect("an answer");
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(answer.body == pattern(3000));
}

#[test]
fn a_head_in_many_pieces_is_one_head() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    for byte in b"\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nX-Long: v\r\nContent-Length: 3\r\n\r\nabc" {
        client.send([*byte]);
    }
    assert_eq!(client.response().map(|r| r.text()), Ok("abc".to_owned()));
}

#[test]
fn expect_100_continue_is_relayed() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send(
        "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(client.response().map(|r| r.status), Ok(100));
    assert_eq!(
        client.send("late").response().map(|r| r.text()),
        Ok("late".to_owned())
    );
}

#[test]
fn expect_may_be_answered_without_the_body() {
    let server = Server::with(|_, peer| {
        peer.reply(417, "Connection: close\r\n", "no");
        false
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(
        client.response().map(|r| (r.status, r.text())),
        Ok((417, "no".to_owned()))
    );
}

#[test]
fn answers_without_a_body_keep_the_connection_in_step() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("HEAD /size/4000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_to("HEAD").expect("an answer");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("4000"))
    );
    for status in [204, 304] {
        assert_eq!(
            client
                .get(&format!("/status/{status}"))
                .response()
                .map(|r| r.status),
            Ok(status)
        );
    }
    assert_eq!(
        client.get("/").response().map(|r| r.text()),
        Ok("hello".to_owned())
    );
    assert_eq!(server.accepted(), 1);
}

#[test]
fn interim_answers_are_relayed() {
    let server = Server::with(|_, peer| {
        peer.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        peer.write("HTTP/1.1 102 Processing\r\n\r\n");
        peer.reply(200, "", "done")
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    let early = client.response().expect("an answer");
    assert_eq!(
        (early.status, early.header("link")),
        (103, Some("</a.css>"))
    );
    assert_eq!(client.response().map(|r| r.status), Ok(102));
    assert_eq!(client.response().map(|r| r.text()), Ok("done".to_owned()));
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let server = Server::with(|request, peer| {
        assert_eq!(request.header("upgrade"), Some("websocket"));
        peer.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\nhi!");
        while let Some(piece) = peer.some() {
            peer.write(piece.to_ascii_uppercase());
        }
        false
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    let switched = client.response().expect("an answer");
    assert_eq!(
        (switched.status, switched.header("upgrade")),
        (101, Some("websocket"))
    );
    assert_eq!(client.take(3), Ok(b"hi!".to_vec()));
    for _ in 0..3 {
        assert_eq!(
            client.send("ping\r\n\r\n\0").take(9),
            Ok(b"PING\r\n\r\n\0".to_vec())
        );
    }
    client.half_close();
    assert!(client.is_closed());
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let server = Server::http();
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    assert_eq!(client.response().map(|r| r.text()), Ok("hello".to_owned()));
    assert_eq!(
        client.get("/size/10").response().map(|r| r.body.len()),
        Ok(10)
    );
}

#[test]
fn connect_becomes_a_tunnel() {
    let server = Server::with(|request, peer| {
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("CONNECT", "far:443")
        );
        peer.write("HTTP/1.1 200 Established\r\n\r\n");
        while let Some(piece) = peer.some() {
            peer.write(piece.to_ascii_uppercase());
        }
        false
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("CONNECT far:443 HTTP/1.1\r\nHost: far:443\r\n\r\n");
    assert_eq!(client.response_to("CONNECT").map(|r| r.status), Ok(200));
    assert_eq!(client.send("raw bytes").take(9), Ok(b"RAW BYTES".to_vec()));
    client.half_close();
    assert!(client.is_closed());
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |request, peer| {
        held.wait();
        peer.serve("", request)
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/size/100000").half_close();
    until_true("the request arrives", || server.requests().len() == 1);
    gate.open();
    assert_eq!(client.response().map(|r| r.body.len()), Ok(100_000));
}

#[test]
fn hop_by_hop_headers_stay_on_their_hop() {
    let server = Server::with(|_, peer| {
        peer.body();
        peer.reply(
            200,
            "Connection: keep-alive, X-Mine\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\nX-End: 1\r\n",
            "",
        )
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 300\r\nX-Hop: 1\r\nProxy-Connection: keep-alive\r\nX-End: 1\r\nTE: trailers\r\n\r\n");
    let answer = client.response().expect("an answer");
    assert_eq!(answer.header("x-end"), Some("1"));
    let request = &server.requests()[0];
    assert_eq!(request.header("x-end"), Some("1"));
    if crate::common::haproxy_lacks("removes only what it must") {
        return;
    }
    for name in ["keep-alive", "proxy-connection", "x-hop"] {
        assert_eq!(request.header(name), None, "{name} went on to the server");
    }
    for name in ["keep-alive", "x-mine"] {
        assert_eq!(answer.header(name), None, "{name} went on to the client");
    }
}

#[test]
fn a_pooled_connection_that_died_is_replaced() {
    if crate::common::haproxy_lacks("closes and leaves the retry to the client") {
        return;
    }
    // The server closes each connection right after its first answer, without saying so.
    let server = Server::with(|_, peer| {
        peer.body();
        peer.reply(200, "", "ok");
        false
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    for _ in 0..20 {
        let answer = client.get("/").response().expect("an answer");
        assert_eq!(answer.status, 200);
    }
    assert_eq!(server.accepted(), 20);
}

#[test]
fn a_request_that_may_not_be_repeated_is_not() {
    let server = Server::raw(|mut peer| {
        // Takes a second request on the same connection and dies on it.
        let Some(_first) = peer.request() else { return };
        peer.reply(200, "", "ok");
        let Some(_second) = peer.request() else {
            return;
        };
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
    client.send("POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let answer = client.response().map(|r| r.status);
    // Unknown whether the server acted on it: an error for the client, never a second try.
    assert!(
        matches!(answer, Ok(502) | Err(Gone::Closed | Gone::Reset)),
        "{answer:?}"
    );
    let posts = server
        .requests()
        .iter()
        .filter(|request| request.method == "POST")
        .count();
    assert_eq!(posts, 1);
}

#[test]
fn a_slow_reader_slows_the_server_down() {
    let server = Server::with(|_, peer| {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let piece = vec![b'x'; 100_000];
        (0..1000).all(|_| peer.write(&piece))
    });
    let proxy = site("", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/");
    let head = client.take(1000).expect("it begins");
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let resident = || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it lives");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a line")
            .to_owned();
        line.split_ascii_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse::<u64>().ok())
            .expect("kilobytes")
    };
    cluster_tests::wait::observe_for(std::time::Duration::from_millis(300));
    assert!(
        resident() < 80_000,
        "the proxy swallows the answer: {} kB",
        resident()
    );
    client.leave();
    until_true("the server is told that the client left", || {
        server.open() == 0
    });
}

#[test]
fn errorfile_replaces_a_page_and_forwardfor_tells_the_client() {
    let server = Server::http();
    let proxy = config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  errorfile 403 403.http
  option forwardfor except 127.0.0.9
  http-request deny if { path /no }
  use_backend named if { path_beg /named }
  use_backend gentle if { path_beg /gentle }
  default_backend be
backend be
  server s1 {{s1}}
backend named
  option forwardfor header X-Client
  server s1 {{s1}}
backend gentle
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .file(
        "403.http",
        "HTTP/1.1 403 Go Away\r\nContent-Type: text/plain\r\nX-Page: mine\r\n\r\ngo away",
    )
    .start();
    let fe = proxy.addr("fe");
    let page = get(fe, "/no").expect("an answer");
    assert_eq!(
        (page.status, page.text().as_str(), page.header("x-page")),
        (403, "go away", Some("mine"))
    );
    for path in ["/", "/named"] {
        assert_eq!(get(fe, path).map(|r| r.status), Ok(200));
    }
    let own = std::net::Ipv4Addr::new(127, 0, 0, 9);
    assert_eq!(
        cluster_tests::get_from(own, fe, "/").map(|r| r.status),
        Ok(200)
    );
    let mut chain = Client::connect(fe);
    chain.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n");
    assert_eq!(chain.response().map(|r| r.status), Ok(200));
    let requests = server.requests();
    assert_eq!(requests[0].all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(
        (
            requests[1].header("x-forwarded-for"),
            requests[1].header("x-client")
        ),
        (None, Some("127.0.0.1"))
    );
    assert_eq!(
        requests[2].header("x-forwarded-for"),
        None,
        "an excepted client"
    );
    assert_eq!(requests[3].all("x-forwarded-for"), ["1.2.3.4", "127.0.0.1"]);
}

#[test]
fn keep_alive_time_out_closes_in_silence_and_activity_postpones_it() {
    let server = Server::http();
    let proxy = site("  timeout http-keep-alive 2s", "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    for _ in 0..3 {
        assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
    }
    assert_eq!(client.ending(), (Vec::new(), Gone::Closed));
    until("the log knows of the good ones only", || {
        (proxy.stdout().lines().count() == 3).then_some(())
    });
}
