//! What options of `peers` sections do: certificates that run out, verification and its absence, and services that are
//! mistaken for peers.

use std::io::Write as _;
use std::net::Ipv4Addr;

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::tools;
use cluster_tests::wait::until_true;
use rustix::process::Signal;

use crate::certificates::{Authority, TLS, says, tls_nodes};
use crate::common::haproxy_lacks;

/// A certificate that has run out is reported by its owner and by whoever refuses it, and a renewed one is used at once.
#[test]
fn a_certificate_that_runs_out_is_reported_in_time() {
    let Some(authority) = Authority::new() else {
        return;
    };
    if haproxy_lacks("it says nothing of certificates") {
        return;
    }
    let old = [40, 20].map(|days| authority.old_certificate("peers.test", days));
    let [Some(over), Some(soon)] = old else {
        return;
    };
    let spec = tls_nodes(2, &authority, "peers.test")
        .file("node.pem", over)
        .file("soon.pem", soon);
    let mut cluster = spec.prepare();
    cluster
        .node_mut(1)
        .reconfigure(|config| config.replace("node.pem", "soon.pem"));
    cluster.node_mut(1).start();
    cluster.node_mut(0).start();
    let file = cluster.node(0).proxy().dir().join("node.pem");
    says(
        cluster.node(0),
        &format!("[ALERT]    ({})", cluster.node(0).proxy().pid()),
    );
    says(
        cluster.node(0),
        &format!("certificate '{}' expired on 20", file.display()),
    );
    says(
        cluster.node(0),
        "the peer says that this node's certificate has expired",
    );
    says(
        cluster.node(1),
        "peer node0 is unreachable: TLS: its certificate has expired",
    );
    let soon = cluster.node(1).proxy().dir().join("soon.pem");
    says(
        cluster.node(1),
        &format!("certificate '{}' expires on 20", soon.display()),
    );
    std::fs::write(&file, authority.certificate("peers.test")).expect("a file");
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("k", 3, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
}

/// What `openssl req -x509` makes is an authority's certificate: a node's, too, if the others' `ca-file` holds it.
#[test]
fn self_signed_certificates() {
    let all = [Authority::new(), Authority::new(), Authority::new()];
    let [Some(first), Some(second), Some(stranger)] = all else {
        return;
    };
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(2)
        .options(TLS, TLS)
        .file("0.pem", first.itself())
        .file("1.pem", second.itself())
        .file("2.pem", stranger.itself())
        .file("0.crt", first.authority())
        .file("1.crt", second.authority())
        .prepare();
    for node in 0..2 {
        cluster.node_mut(node).reconfigure(|config| {
            let own = config.replace("node.pem", &format!("{node}.pem"));
            own.replace("ca.pem", &format!("{}.crt", 1 - node))
        });
    }
    for node in 0..2 {
        cluster.node_mut(node).spawn();
    }
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node_mut(node).ready();
        cluster.node(node).hit("k", 3, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    for node in 0..2 {
        let said = cluster.node(node).proxy().stderr();
        assert!(!said.contains("CA certificate"), "{said}");
    }
    // Another one of that kind is none that anybody knows.
    cluster.node_mut(1).stop();
    let node = cluster.node_mut(1);
    node.reconfigure(|config| config.replace("1.pem", "2.pem"));
    cluster.node_mut(1).spawn();
    for (node, text) in [
        (
            0,
            "closed: TLS: its certificate is a CA certificate (CA:TRUE)",
        ),
        (1, "the peer refuses this node's certificate"),
    ] {
        says(cluster.node(node), text);
    }
}

/// While an authority is being replaced, its file holds the old one and the new one.
#[test]
fn an_authority_that_has_expired_beside_a_valid_one_is_no_news() {
    let (Some(old), Some(new)) = (Authority::expired(), Authority::new()) else {
        return;
    };
    if haproxy_lacks("it says nothing of certificates") {
        return;
    }
    let both = old.authority() + &new.authority();
    let mut cluster = tls_nodes(2, &old, "peers.test")
        .file("both.pem", both)
        .prepare();
    let both = |config: String| config.replace("ca.pem", "both.pem");
    cluster.node_mut(0).reconfigure(both);
    cluster.node_mut(1).start();
    cluster.node_mut(0).start();
    // What it signed is valid itself.
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("k", 3, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    let file = cluster.node(1).proxy().dir().join("ca.pem");
    says(
        cluster.node(1),
        &format!(
            "the last authority of ca-file '{}' expired on 20",
            file.display()
        ),
    );
    assert!(!cluster.node(1).proxy().stderr().contains("[ALERT]"));
    assert!(!cluster.node(0).proxy().stderr().contains("expired"));
}

#[test]
fn each_way_to_verify_works() {
    let Some(authority) = Authority::new() else {
        return;
    };
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let (certificate, key) = authority.certificate_of("peers.test", &[]);
    for (bind, server) in [
        // Whoever answers will do, and whoever dials.
        ("ssl crt {{dir}}/c.pem key {{dir}}/k.pem", "ssl verify none"),
        // The key beside the certificate; no name is asked for.
        (
            "ssl crt {{dir}}/beside.pem ca-file {{dir}}/ca.pem verify optional",
            "ssl ca-file {{dir}}/ca.pem",
        ),
        (
            "ssl crt {{dir}}/c.pem key {{dir}}/k.pem ca-file {{dir}}/ca.pem verify required",
            "ssl ca-file {{dir}}/ca.pem verify required sni str(other.test) verifyhost peers.test",
        ),
    ] {
        let cluster = Spec::of(2)
            .options(bind, server)
            .file("c.pem", &certificate)
            .file("beside.pem", &certificate)
            .file("beside.pem.key", &key)
            .file("k.pem", &key)
            .file("ca.pem", authority.authority())
            .start();
        let mut tally = Tally::default();
        for node in 0..2 {
            cluster.node(node).hit("k", 3, &mut tally);
        }
        cluster.settled(&Expected::of(&tally));
    }
}

/// A client of HTTP/2 at the peers' port that wants something else.
#[test]
fn an_http2_client_is_named() {
    if haproxy_lacks("it speaks another protocol there") {
        return;
    }
    let Some(mut curl) = tools::tool("curl") else {
        return;
    };
    let cluster = Spec::of(2).start();
    let url = format!("http://127.0.0.1:{}/metrics", cluster.node(0).peers_port());
    tools::run(curl.args(["-s", "-m", "10", "--http2-prior-knowledge", &url]));
    says(
        cluster.node(0),
        "it speaks HTTP/2, but asks for GET /metrics, and not for the service of peers",
    );
}

/// Whoever answers as another service has nothing to teach: a newcomer does not wait for it.
#[test]
fn another_service_is_not_waited_for() {
    if haproxy_lacks("it speaks another protocol there") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let answer = http::Response::builder().status(404).body(());
                    let _gone_is_fine = respond.send_response(answer.expect("an answer"), true);
                }
            });
        }
    });
    let mut cluster = Spec::of(2).peers("  learn-timeout 10m").prepare();
    cluster.node_mut(0).reconfigure(|config| {
        let line = config.lines().find(|l| l.contains("server node1"));
        let line = line.expect("a line").to_owned();
        config.replace(&line, &format!("  server node1 {address}"))
    });
    cluster.node_mut(0).start();
    says(cluster.node(0), "session to peer node1 ended: it ");
    says(cluster.node(0), "ready: no peer has anything to teach");
    until_true("the error is shown", || {
        let shown = cluster.node(0).ask("show peers");
        shown.contains("last_error=\"it ")
    });
}

/// A balancer that finds no server says nothing of the node behind it, which may be there in a moment.
#[test]
fn a_balancer_without_servers_is_waited_for() {
    if haproxy_lacks("it speaks another protocol there") {
        return;
    }
    let balancer = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = balancer.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in balancer.incoming() {
            let answer = b"HTTP/1.0 503 Service Unavailable\r\nconnection: close\r\n\r\n";
            let _gone_is_fine = stream.and_then(|mut stream| stream.write_all(answer));
        }
    });
    let mut cluster = Spec::of(2).peers("  learn-timeout 2s").prepare();
    cluster.node_mut(0).reconfigure(|config| {
        let line = config.lines().find(|l| l.contains("server node1"));
        let line = line.expect("a line").to_owned();
        config.replace(&line, &format!("  server node1 {address}"))
    });
    cluster.node_mut(0).start();
    says(cluster.node(0), "it speaks HTTP/1 (HTTP/1.0 503");
    says(cluster.node(0), "ready: the learn-timeout is over");
}

/// `recv-only` means nothing here, which is said.
#[test]
fn recv_only_is_pointed_out() {
    if haproxy_lacks("it has that option") {
        return;
    }
    let node = Spec::of(1)
        .table("type ip size 1k recv-only store conn_cur")
        .start();
    says(node.node(0), "'recv-only' has no effect");
}

/// A pause that is asked for while a node learns lasts when it has learned.
#[test]
fn a_pause_while_learning_stays() {
    if haproxy_lacks("accepts before it has learned") {
        return;
    }
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let mut cluster = Spec::of(2).peers("  learn-timeout 2s").prepare();
    let node = cluster.node_mut(0);
    node.reconfigure(|config| {
        let line = config.lines().find(|l| l.contains("server node1"));
        let line = line.expect("a line").to_owned();
        config.replace(&line, &format!("  server node1 {address}"))
    });
    node.spawn();
    let node = cluster.node(0);
    until_true("its CLI answers", || node.proxy().cli().try_open().is_ok());
    node.proxy().signal(Signal::TTOU);
    let said = "peers p: ready: the learn-timeout is over, tables may be incomplete: 0 of 1 table learned (0 entries), \
                the rest was awaited from peer node1 (no answer)";
    says(node, said);
    let logged = node.proxy().says(said);
    let warned = |line: &str| line.contains(said) && line.contains("WARNING");
    assert!(logged.lines().any(warned), "{logged}");
    until_true("it is shown", || {
        let shown = node.ask("show peers");
        shown.contains(" ready=1 untaught=1 ")
    });
    assert!(!node.accepts(), "it is paused");
    node.proxy().signal(Signal::TTIN);
    until_true("it is served", || node.accepts());
}
