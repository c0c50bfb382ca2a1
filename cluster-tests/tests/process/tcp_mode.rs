//! TCP mode: bytes both ways, half-closes, time-outs, and the ways a connection can arrive (`accept-proxy`, unix sockets,
//! inherited descriptors).

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use cluster_tests::server::{Gate, pattern};
use cluster_tests::wait::until_true;
use cluster_tests::{Client, Gone, Launch, Server, get};

use crate::common::{HEAD, config};

fn relay(lines: &str, server: &Server) -> Launch {
    config(&format!(
        "
listen tcp
  mode tcp
  option tcplog
  bind 127.0.0.1:{{{{port:tcp}}}}
{lines}
  server s1 {{{{s1}}}}
"
    ))
    .set("s1", server.addr())
}

/// Sends everything back, and closes when the other side has.
fn echo() -> Server {
    Server::raw(|mut peer| {
        while let Some(piece) = peer.some() {
            if !peer.write(piece) {
                return;
            }
        }
    })
}

#[test]
fn bytes_flow_both_ways_and_arrive_unchanged() {
    let server = echo();
    let proxy = relay("", &server).start();
    let sent = pattern(8_000_000);
    let mut client = Client::connect(proxy.addr("tcp"));
    for piece in sent.chunks(100_000) {
        client.send(piece);
        assert!(client.take(piece.len()).is_ok_and(|got| got == piece));
    }
    client.half_close();
    assert!(client.is_closed());
    let line = proxy.log_line("of the connection", |line| line.contains(" tcp tcp/s1 "));
    assert!(line.contains(" 8000000 -- "), "{line}");
}

#[test]
fn each_side_may_finish_first() {
    let (gate, server) = {
        let gate = Gate::default();
        let held = gate.clone();
        let server = Server::raw(move |mut peer| {
            // Learns of the client's end, and only then answers.
            let mut got = Vec::new();
            while let Some(piece) = peer.some() {
                got.extend(piece);
            }
            held.wait();
            peer.write(got);
        });
        (gate, server)
    };
    let proxy = relay("", &server).start();
    let mut client = Client::connect(proxy.addr("tcp"));
    client.send("all I have to say").half_close();
    gate.open();
    assert_eq!(client.rest(), b"all I have to say");

    let server = Server::raw(|mut peer| {
        peer.write("farewell");
        peer.half_close();
        // Still listens.
        while peer.some().is_some() {}
    });
    let proxy = relay("", &server).start();
    let mut client = Client::connect(proxy.addr("tcp"));
    assert_eq!(client.take(8), Ok(b"farewell".to_vec()));
    assert!(client.is_closed());
    client.send("and yet more");
    until_true("it still reaches the server", || {
        server.bytes() == b"and yet more"
    });
}

#[test]
fn time_outs_have_their_own_termination_codes() {
    let server = Server::raw(|mut peer| peer.wait_closed());
    let proxy = relay("  timeout client 1s\n  timeout server 20s", &server).start();
    let mut client = Client::connect(proxy.addr("tcp"));
    assert!(matches!(client.ending().1, Gone::Closed | Gone::Reset));
    let line = proxy.log_line("of the connection", |line| line.contains(" tcp/s1 "));
    assert!(line.contains(" cD "), "{line}");

    let proxy = relay("  timeout client 20s\n  timeout server 1s", &server).start();
    let mut client = Client::connect(proxy.addr("tcp"));
    assert!(matches!(client.ending().1, Gone::Closed | Gone::Reset));
    drop(client);
    let line = proxy.log_line("of the connection", |line| line.contains(" tcp/s1 "));
    assert!(line.contains(" sD "), "{line}");
}

#[test]
fn an_unreachable_server_closes_the_connection() {
    let absent = Server::absent();
    let proxy = config(
        "
listen tcp
  mode tcp
  option tcplog
  retries 0
  bind 127.0.0.1:{{port:tcp}}
  server s1 {{gone}}
",
    )
    .set("gone", absent)
    .start();
    let mut client = Client::connect(proxy.addr("tcp"));
    assert!(matches!(client.ending().1, Gone::Closed | Gone::Reset));
    let line = proxy.log_line("of the connection", |line| line.contains(" tcp/s1 "));
    assert!(line.contains(" SC "), "{line}");
}

#[test]
fn tcp_clients_are_tracked_and_their_bytes_counted_live() {
    let server = echo();
    let lines = "  stick-table type ip size 1k expire 1h store conn_cur,bytes_in_cnt,bytes_out_cnt,bytes_out_rate(1h)
  tcp-request connection track-sc0 src";
    let proxy = relay(lines, &server).start();
    let mut client = Client::connect(proxy.addr("tcp"));
    assert!(client.send(pattern(300_000)).take(300_000).is_ok());
    if !proxy.is_haproxy() {
        until_true("the bytes count while the connection lives", || {
            let entry = proxy.cli().entry("tcp", "127.0.0.1").expect("tracked");
            ["conn_cur", "bytes_in_cnt", "bytes_out_cnt"].map(|name| entry.get(name))
                == [1, 300_000, 300_000]
        });
    }
    drop(client);
    until_true("all is counted at the end", || {
        let entry = proxy.cli().entry("tcp", "127.0.0.1").expect("tracked");
        ["conn_cur", "bytes_in_cnt", "bytes_out_rate"].map(|name| entry.get(name))
            == [0, 300_000, 300_000]
    });
}

const SHOW_SRC: &str = "
frontend fe
  bind 127.0.0.1:{{port:fe}} accept-proxy
  stick-table type ip size 1k expire 1h store conn_cnt
  tcp-request connection track-sc1 src
  tcp-request session track-sc0 src
  http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_src] %[fc_rcvd_proxy]\"
";

#[test]
fn proxy_protocol_tells_the_true_client() {
    let proxy = config(SHOW_SRC).start();
    let fe = proxy.addr("fe");
    let ask = |header: &[u8]| {
        let mut client = Client::connect(fe);
        client.send(header).get("/");
        client.response().map(|r| r.text())
    };
    let v1 = ask(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n");
    assert_eq!(v1, Ok("192.0.2.1:1234 192.0.2.2:80 127.0.0.1 1".to_owned()));
    let v6 = ask(b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 80\r\n");
    assert_eq!(
        v6,
        Ok("2001:db8::1:1234 2001:db8::2:80 127.0.0.1 1".to_owned())
    );
    let unknown = ask(b"PROXY UNKNOWN\r\n").expect("an answer");
    assert!(unknown.starts_with("127.0.0.1:"), "{unknown}");
    let v2 =
        ask(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x01\xc6\x33\x64\x02\x04\xd2\0\x50");
    assert_eq!(
        v2,
        Ok("198.51.100.1:1234 198.51.100.2:80 127.0.0.1 1".to_owned())
    );
    let local = ask(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").expect("an answer");
    assert!(local.starts_with("127.0.0.1:"), "{local}");
    let table = proxy.cli().entries("fe");
    let mut keys: Vec<&str> = table.iter().map(cluster_tests::cli::Entry::key).collect();
    keys.sort_unstable();
    // The connection rules saw the peer's address, the session rules the announced one.
    assert_eq!(keys, ["127.0.0.1", "192.0.2.1", "198.51.100.1"]);
}

#[test]
fn a_proxy_header_may_come_in_pieces() {
    if crate::common::haproxy_lacks("takes the header in one piece only") {
        return;
    }
    let proxy = config(SHOW_SRC).start();
    let mut split = Client::connect(proxy.addr("fe"));
    for byte in b"PROXY TCP4 192.0.2.3 192.0.2.4 5 80\r\n" {
        split.send([*byte]);
    }
    let answer = split
        .get("/")
        .response()
        .map(|r| r.text())
        .expect("an answer");
    assert!(answer.starts_with("192.0.2.3:5 "), "{answer}");
}

#[test]
fn a_missing_or_wrong_proxy_header_closes() {
    let proxy = config(SHOW_SRC).start();
    for wrong in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PROXY TCP4 not.an.address x 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 80 and more than a hundred and seven characters without any line end at all, which cannot be",
        "\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c____________",
    ] {
        let mut client = Client::connect(proxy.addr("fe"));
        client.send(wrong).half_close();
        let (got, gone) = client.ending();
        assert!(
            got.is_empty() && matches!(gone, Gone::Closed | Gone::Reset),
            "{wrong:?}: {gone:?}"
        );
    }
    let line = proxy.log_line("of the first", |line| line.contains("does not look like"));
    assert!(
        line.starts_with("127.0.0.1:")
            && line.ends_with(
                "] fe/1: Received something which does not look like a PROXY protocol header"
            ),
        "{line}"
    );
    Client::connect(proxy.addr("fe")).half_close();
    proxy.log_line("of an empty connection", |line| {
        line.ends_with("fe/1: Connection closed while waiting for PROXY protocol header")
    });
}

const ANSWER: &str = "  http-request return status 200 content-type text/plain string here\n";

#[test]
fn unix_sockets_are_listened_on_and_connected_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.sock");
    let listener = UnixListener::bind(&path).expect("a unix socket");
    let serving = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("the proxy connects");
        let mut head = [0; 4096];
        let count = stream.read(&mut head).expect("a request");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .expect("an answer");
        String::from_utf8_lossy(&head[..count]).into_owned()
    });
    let proxy = config(
        "
frontend fe
  bind unix@{{dir}}/fe.sock mode 600
  bind /{{dir}}/plain.sock
  stick-table type ip size 10 store conn_cnt
  tcp-request connection track-sc0 src
  http-request return status 200 if { path /own }
  default_backend be
backend be
  server s1 unix@{{path}}
",
    )
    .set("path", path.display())
    .start();
    let fe = proxy.dir().join("fe.sock");
    assert_eq!(
        Client::connect_unix(&fe)
            .get("/")
            .response()
            .map(|r| r.text()),
        Ok("ok".to_owned())
    );
    assert!(
        serving
            .join()
            .expect("served")
            .starts_with("GET / HTTP/1.1\r\n")
    );
    assert_eq!(
        Client::connect_unix(&proxy.dir().join("plain.sock"))
            .get("/own")
            .response()
            .map(|r| r.status),
        Ok(200)
    );
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&fe)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        proxy.cli().entries("fe").is_empty(),
        "a unix client has no address to track"
    );
}

#[test]
fn inherited_descriptors_are_listened_on() {
    for number in [0, 3, 7] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let proxy = Launch::new(&format!(
            "{HEAD}\nfrontend fe\n  bind fd@{number}\n{ANSWER}"
        ))
        .inherit(listener, number)
        .start();
        for _ in 0..4 {
            assert_eq!(
                get(addr, "/").map(|r| r.text()),
                Ok("here".to_owned()),
                "fd@{number}"
            );
        }
        drop(proxy);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("fe.sock");
    let listener = UnixListener::bind(&path).expect("a unix socket");
    let _proxy = Launch::new(&format!("{HEAD}\nfrontend fe\n  bind fd@3\n{ANSWER}"))
        .inherit(listener, 3)
        .start();
    assert_eq!(
        Client::connect_unix(&path)
            .get("/")
            .response()
            .map(|r| r.text()),
        Ok("here".to_owned())
    );
}

#[test]
fn several_addresses_and_ipv6() {
    let v6 = TcpListener::bind("[::1]:0").is_ok();
    let second = if v6 { ",[::1]:{{port:six}}" } else { "" };
    let proxy = config(&format!(
        "
frontend fe
  bind 127.0.0.1:{{{{port:a}}}},127.0.0.1:{{{{port:b}}}}{second}
  bind :{{{{port:any}}}} name any
{ANSWER}"
    ))
    .start();
    for name in ["a", "b", "any"] {
        assert_eq!(
            get(proxy.addr(name), "/").map(|r| r.status),
            Ok(200),
            "{name}"
        );
    }
    if v6 {
        let six =
            std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, proxy.addr("six").port()));
        assert_eq!(get(six, "/").map(|r| r.status), Ok(200));
    }
}

#[test]
fn a_tcp_connection_with_a_queue_waits_its_turn() {
    let server = echo();
    let proxy = relay("  timeout queue 20s", &server).start();
    drop(proxy);
    let proxy = config(
        "
listen tcp
  mode tcp
  timeout queue 20s
  bind 127.0.0.1:{{port:tcp}}
  server s1 {{s1}} maxconn 1
",
    )
    .set("s1", server.addr())
    .start();
    let mut first = Client::connect(proxy.addr("tcp"));
    assert_eq!(first.send("one").take(3), Ok(b"one".to_vec()));
    let mut second = Client::connect(proxy.addr("tcp"));
    second.send("two");
    until_true("the second waits", || {
        proxy.cli().stat("tcp", "BACKEND", "qcur") == "1"
            || proxy.cli().stat("tcp", "s1", "qcur") == "1"
    });
    drop(first);
    assert_eq!(second.take(3), Ok(b"two".to_vec()));
}
