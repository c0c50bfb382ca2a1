//! Nodes find and believe each other over plain text, TLS and UNIX sockets; strangers are shown the door and named.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::ports::Port;
use cluster_tests::tools;
use cluster_tests::wait::{PATIENCE, until, until_true};
use cluster_tests::{Launch, Proxy};

use crate::certificates::{Authority, says, tls_nodes};
use crate::common::{HEAD, haproxy_lacks};

#[test]
fn two_and_three_nodes_sum_what_each_counts() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    for count in [2, 3] {
        let cluster = Spec::of(count).start();
        let mut tally = Tally::default();
        for round in 1..=3 {
            for node in 0..count {
                cluster.node(node).hit("same", 10 * round, &mut tally);
                cluster.node(node).hit(&format!("of{node}"), 3, &mut tally);
            }
        }
        cluster.settled(&Expected::of(&tally));
    }
}

#[test]
fn processes_of_one_host_share_over_unix_sockets() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut cluster = Spec::of(2).prepare();
    for index in 0..2 {
        let dir = dir.path().display().to_string();
        cluster.node_mut(index).reconfigure(|config| {
            config
                .lines()
                .map(|line| match line.trim() {
                    l if l.starts_with("bind 127.0.0.1:")
                        && !l.contains("fe")
                        && line.ends_with(' ') =>
                    {
                        format!("  bind unix@{dir}/n{index}.sock")
                    }
                    l if l.starts_with("server node") && l.contains("127.0.0.1") => {
                        format!("  server node{} unix@{dir}/n{}.sock", 1 - index, 1 - index)
                    }
                    _ => line.to_owned(),
                })
                .collect::<Vec<_>>()
                .join("\n")
                + "\n"
        });
        assert!(cluster.node(index).config().contains("n0.sock"));
        assert!(cluster.node(index).config().contains("n1.sock"));
    }
    for index in 0..2 {
        cluster.node_mut(index).spawn();
    }
    for index in 0..2 {
        cluster.node_mut(index).ready();
    }
    let mut tally = Tally::default();
    cluster.node(0).hit("k", 7, &mut tally);
    cluster.node(1).hit("k", 5, &mut tally);
    cluster.settled(&Expected::of(&tally));
}

#[test]
fn nodes_with_the_right_certificates_agree_over_tls() {
    let Some(authority) = Authority::new() else {
        return;
    };
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = tls_nodes(3, &authority, "peers.test").start();
    let mut tally = Tally::default();
    for node in 0..3 {
        cluster.node(node).hit("k", 4, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));

    // A new certificate is used without a restart: the others want the new name after theirs, and find it.
    let renewed = authority.certificate("renewed.test");
    for node in 0..3 {
        let file = cluster.node(node).proxy().dir().join("node.pem");
        std::fs::write(file, &renewed).expect("a file");
    }
    cluster.node_mut(2).kill();
    cluster
        .node_mut(2)
        .reconfigure(|config| config.replace("verifyhost peers.test", "verifyhost renewed.test"));
    cluster.node_mut(2).spawn();
    let dir = cluster.node(2).proxy().dir().to_path_buf();
    until_true(
        "the restarted node dials the others by their new name",
        || {
            cluster
                .node(2)
                .proxy()
                .stderr()
                .matches("session to peer")
                .count()
                >= 2
        },
    );
    let file = std::fs::read_to_string(dir.join("node.pem")).expect("a file");
    assert!(file.contains("BEGIN"));
}

#[test]
fn a_wrong_certificate_is_refused_and_explained_on_both_sides() {
    let (Some(ours), Some(theirs)) = (Authority::new(), Authority::new()) else {
        return;
    };
    if haproxy_lacks("sums over nodes") {
        return;
    }
    // Node 1's certificate is of another authority, though it trusts the right one.
    let spec =
        tls_nodes(2, &ours, "peers.test").file("foreign.pem", theirs.certificate("peers.test"));
    let mut cluster = spec.prepare();
    cluster
        .node_mut(1)
        .reconfigure(|config| config.replace("node.pem", "foreign.pem"));
    // Node 1 listens before node 0 dials it: an unreachable peer is reported once, by its first error.
    cluster.node_mut(1).start();
    cluster.node_mut(0).start();
    let said = |node: usize, text: &str| says(cluster.node(node), text);
    said(
        0,
        "peer node1 is unreachable: TLS: its certificate was not issued by an authority of 'ca-file'",
    );
    said(
        0,
        "closed: TLS: its certificate was not issued by an authority of 'ca-file'",
    );
    said(
        1,
        "peer node0 is unreachable: TLS: the peer refuses this node's certificate ('",
    );
    let mut tally = Tally::default();
    cluster.node(0).hit("k", 1, &mut tally);
    assert_eq!(cluster.node(1).value("k", "http_req_cnt"), 0);
}

#[test]
fn a_certificate_with_another_name_is_refused() {
    let Some(authority) = Authority::new() else {
        return;
    };
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let spec = tls_nodes(2, &authority, "peers.test")
        .file("other.pem", authority.certificate("other.test"));
    let mut cluster = spec.prepare();
    cluster
        .node_mut(1)
        .reconfigure(|config| config.replace("node.pem", "other.pem"));
    // Node 1 listens before node 0 dials it: an unreachable peer is reported once, by its first error.
    cluster.node_mut(1).start();
    cluster.node_mut(0).start();
    for text in [
        "its certificate does not carry the name 'peers.test', but 'other.test'",
        "its certificate carries none of the names that peers are verified by (peers.test)",
    ] {
        says(cluster.node(0), text);
    }
}

#[test]
fn strangers_are_named_and_do_no_harm() {
    if haproxy_lacks("its own protocol is no stranger to it") {
        return;
    }
    let cluster = Spec::of(2).start();
    let port = cluster.node(0).peers_port();
    let garbage: Vec<u8> = (0..4096u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend_from_slice(&garbage);
    for (bytes, named) in [
        (
            &b"HAProxyS 2.1\nnode0\nvm 42 1\n"[..],
            "it speaks HAProxy's own peers protocol (HAProxyS 2.1)",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "it speaks HTTP/1 (GET / HTTP/1.1",
        ),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "it speaks TLS, and this side plain text",
        ),
        (&garbage, "it speaks no known protocol (it began with "),
        (&preface, "closed: "),
    ] {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a peers port");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let _may_be_closed_already = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _reset_is_fine = stream.read_to_end(&mut answer);
        says(cluster.node(0), named);
    }
    let mut tally = Tally::default();
    cluster.node(0).hit("k", 3, &mut tally);
    cluster.node(1).hit("k", 4, &mut tally);
    cluster.settled(&Expected::of(&tally));
}

/// One that comes again and again is told of less and less, and another one all the same.
#[test]
fn a_noisy_stranger_hides_no_other() {
    if haproxy_lacks("its own protocol is no stranger to it") {
        return;
    }
    let Some(mut curl) = tools::tool("curl") else {
        return;
    };
    let cluster = Spec::of(1).start();
    let port = cluster.node(0).peers_port();
    for _ in 0..40 {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a peers port");
        let _may_be_closed_already = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    let shown = || cluster.node(0).ask("show peers");
    // 8, the one that says so, at 16 and at 32.
    until_true("all are counted", || {
        let shown = shown();
        shown.contains(" strangers=40 ") && shown.contains(" unreported=29\n")
    });
    let url = format!("http://127.0.0.1:{port}/other");
    tools::run(curl.args(["-s", "-m", "10", "--interface", "127.0.0.2", &url]));
    says(cluster.node(0), "connection from 127.0.0.2:");
    let said = cluster.node(0).proxy().stderr();
    assert_eq!(
        said.matches("connection from 127.0.0.1:").count(),
        11,
        "{said}"
    );
    let line = "from now on only every power of two of these from this address is reported";
    assert_eq!(said.matches(line).count(), 1, "{said}");
}

#[test]
fn a_peer_that_is_no_remora_is_named_by_who_dials_it() {
    if haproxy_lacks("its own protocol is no stranger to it") {
        return;
    }
    let mut cluster = Spec::of(2).prepare();
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = stranger.local_addr().expect("an address");
    cluster.node_mut(0).reconfigure(|config| {
        let line = config
            .lines()
            .find(|l| l.contains("server node1"))
            .expect("a line")
            .to_owned();
        config.replace(&line, &format!("  server node1 {address}"))
    });
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = stranger.accept().expect("a dialer");
        let mut some = [0; 24];
        let _any = stream.read(&mut some);
        stream.write_all(b"501\n").expect("written");
        let _gone_is_fine = stream.shutdown(Shutdown::Write);
        let _until_it_closes = stream.read_to_end(&mut Vec::new());
    });
    cluster.node_mut(0).start();
    let said = until("the stranger is named", || {
        let text = cluster.node(0).proxy().stderr();
        text.contains("HAProxy's own peers protocol (status 501)")
            .then_some(text)
    });
    assert!(said.contains("node1"), "{said}");
    answering.join().expect("no panic");
}

#[test]
fn a_restarted_node_learns_before_it_accepts() {
    if haproxy_lacks("it accepts before it has learned") {
        return;
    }
    let rules = "  http-request sc-inc-gpc0(0)\n  http-request deny deny_status 429 if { sc_http_req_cnt(0) gt 10 }";
    let mut cluster = Spec::of(2).rules(rules).start();
    let mut tally = Tally::default();
    cluster.node(0).hit("k", 6, &mut tally);
    cluster.node(1).hit("k", 4, &mut tally);
    cluster.settled(&Expected::of(&tally));
    cluster.node_mut(1).kill();
    cluster.node_mut(1).start();
    // The very first request after the restart is the eleventh.
    let entrance = cluster.node(1).entrance();
    let mut hits = cluster_tests::hits::Hits::open(&entrance).expect("the frontend accepts");
    assert!(
        hits.send("k", 1).is_err(),
        "the limit was not known after the restart"
    );
    until_true("the other node sees it", || {
        cluster.node(0).value("k", "http_req_cnt") == 11
    });
}

#[test]
fn a_clean_stop_loses_nothing() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    cluster.node(0).hit("k", 1, &mut tally);
    cluster.settled(&Expected::of(&tally));
    for i in 0..200 {
        cluster.node(0).hit(&format!("k{i}"), 1, &mut tally);
    }
    cluster.node_mut(0).stop();
    cluster.settled(&Expected::of(&tally));
}

/// Answers for one name what it is told to, to whoever asks on a port of its own.
struct NameServer {
    port: u16,
    addresses: Arc<Mutex<Vec<Ipv4Addr>>>,
}

impl NameServer {
    fn start(addresses: &[Ipv4Addr]) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let addresses = Arc::new(Mutex::new(addresses.to_vec()));
        let known = Arc::clone(&addresses);
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut query) {
                let known = known.lock().expect("no panic").clone();
                if let Some(answer) = answer(&query[..len], &known) {
                    let _lost_is_fine = socket.send_to(&answer, from);
                }
            }
        });
        Self { port, addresses }
    }

    fn set(&self, addresses: &[Ipv4Addr]) {
        *self.addresses.lock().expect("no panic") = addresses.to_vec();
    }
}

/// The addresses, to a question for A records; nothing to others.
fn answer(query: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let name_end = 12 + query.get(12..)?.iter().position(|b| *b == 0)?;
    let question = query.get(12..name_end + 5)?;
    let wanted: &[Ipv4Addr] = match question[question.len() - 4..] {
        [0, 1, ..] => addresses,
        _ => &[],
    };
    let mut out = query.get(..2)?.to_vec();
    out.extend([0x81, 0x80, 0, 1, 0, wanted.len() as u8, 0, 0, 0, 0]);
    out.extend_from_slice(question);
    for address in wanted {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}

#[test]
fn nodes_behind_a_name_find_each_other_and_a_newcomer() {
    if haproxy_lacks("discovery of peers") {
        return;
    }
    let at = |n: u8| Ipv4Addr::new(127, 0, 0, n);
    let names = NameServer::start(&[at(1), at(2)]);
    let port = Port::claim();
    let node = |n: u8| {
        Launch::new(&format!(
            "{HEAD}
peers p
  bind {}:{port}
  discover dns peers.test.:{port} every 200ms nameserver 127.0.0.1:{}
  allow-plaintext
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
  http-request track-sc0 url_param(k) table t
  http-request return status 200
backend t
  stick-table type string len 32 size 1k expire 1h store http_req_cnt peers p
",
            at(n),
            names.port,
            port = port.number(),
        ))
        .arg("-L")
        .arg(&format!("n{n}"))
        .start()
    };
    let hit = |node: &Proxy| {
        let answer = cluster_tests::get(node.addr("fe"), "/?k=k").expect("an answer");
        assert_eq!(answer.status, 200);
    };
    let count = |node: &Proxy| {
        node.cli()
            .entry("t", "k")
            .map_or(0, |e| e.get("http_req_cnt"))
    };
    let (one, two) = (node(1), node(2));
    hit(&one);
    hit(&two);
    for node in [&one, &two] {
        until_true("both see both", || count(node) == 2);
    }
    names.set(&[at(1), at(2), at(3)]);
    let three = node(3);
    hit(&three);
    for node in [&one, &two, &three] {
        until_true("all see all", || count(node) == 3);
    }
    // Each recognises itself behind the name, and makes no peer of it.
    let said = one.stderr();
    assert!(!said.contains("peer n1 is up"), "{said}");
}
