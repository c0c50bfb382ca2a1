//! Those who should not be listened to: garbage, other protocols, wrong certificates, other clusters.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::tools;
use cluster_tests::wait::until_true;
use remora_proto::peers::v1::push_message::Kind as Push;
use remora_proto::peers::v1::reply_message::Kind as Reply;
use remora_proto::peers::v1::{Batch, Refusal, Values};

use crate::impostor::{self, Impostor};

#[track_caller]
fn still_exact(cluster: &Cluster, tally: &mut Tally) {
    for node in 0..cluster.len() {
        cluster.node(node).hit("a", 10, tally);
    }
    cluster.settled(&Expected::of(tally));
}

/// Says something to a node's peers port and waits until it is hung up on.
fn say(cluster: &Cluster, node: usize, what: &[u8]) {
    let port = cluster.node(node).peers_port();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the peers port");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a time-out");
    // It may hang up before everything was said.
    let _gone = stream.write_all(what);
    let _gone = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(
        ended.as_ref().is_ok_and(|_| true) || ended.as_ref().is_err_and(reset),
        "{ended:?}: it neither answers nor hangs up"
    );
}

/// Whoever speaks something else is hung up on, and nothing comes of it.
#[test]
fn garbage_and_other_protocols() {
    let cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    still_exact(&cluster, &mut tally);
    let noise: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut spoiled = preface.to_vec();
    spoiled.extend_from_slice(&noise);
    for what in [
        &b"HAProxyS 2.1\nnode0\nnode1 1 1\n"[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"",
        preface,
        &noise,
        &spoiled,
    ] {
        say(&cluster, 0, what);
    }
    still_exact(&cluster, &mut tally);
    until_true("somebody is told that a HAProxy dialed", || {
        let out = cluster.node(0).proxy().stdout() + &cluster.node(0).proxy().stderr();
        out.to_ascii_lowercase().contains("haproxy")
    });
}

/// A stream that is spoiled in the middle is closed, nothing of it is believed, and a new one takes its place.
#[test]
fn a_stream_that_is_spoiled() {
    let cluster = Spec::of(2).relayed().start();
    let mut tally = Tally::default();
    still_exact(&cluster, &mut tally);
    for _ in 0..3 {
        let before = cluster.relay(0, 1).accepted();
        let noise: Vec<u8> = (0..5000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8)
            .collect();
        cluster.relay(0, 1).inject(&noise);
        cluster.node(0).hit("a", 5, &mut tally);
        // By one that it dials, or, if that takes long, by one that the other node lends it.
        until_true("the stream is replaced", || {
            let lent = || cluster.node(0).ask("show peers").contains(" lent=1 ");
            cluster.relay(0, 1).accepted() > before || lent()
        });
        still_exact(&cluster, &mut tally);
    }
}

/// A peer that speaks the protocol and lies: what is wrong with a batch ends the stream, nothing of it is merged.
#[test]
fn batches_with_something_wrong() {
    let cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    still_exact(&cluster, &mut tally);
    let port = cluster.node(0).peers_port();
    let wrongs: [fn(&mut Batch); 10] = [
        |batch| batch.table = 7,
        |batch| batch.rows = 2,
        |batch| batch.rows = u32::MAX,
        |batch| batch.key_width = 3,
        |batch| batch.key_width = u32::MAX,
        |batch| batch.heads.truncate(1),
        |batch| batch.heads = vec![16, 5, 2, 0],
        |batch| batch.lineages.clear(),
        |batch| batch.values[0].data = vec![0x80],
        |batch| batch.values[0].data = vec![0xff; 40],
    ];
    for (number, wrong) in wrongs.iter().enumerate() {
        let mut impostor = Impostor::dial(port);
        impostor.greet();
        let mut batch = impostor::row("false", 50, 1);
        wrong(&mut batch);
        impostor.push(Push::Batch(batch));
        assert_eq!(impostor.reply(), None, "mistake {number} was accepted");
    }
    let hasty = impostor::row("false", 50, 1);
    let mut impostor = Impostor::dial(port);
    impostor.push(Push::Batch(hasty));
    assert_eq!(impostor.reply(), None, "a batch without a greeting");
    let mut impostor = Impostor::dial(port);
    impostor.push_bytes(b"\xff\xff\xff\xff");
    assert_eq!(impostor.reply(), None, "not a message at all");
    still_exact(&cluster, &mut tally);
}

/// Other versions: what an older one lacks and what a newer one says in addition does no harm; one that cannot be
/// understood is refused with a reason.
#[test]
fn other_versions() {
    let cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    still_exact(&cluster, &mut tally);
    let port = cluster.node(0).peers_port();
    let mut impostor = Impostor::dial(port);
    impostor.push(Push::Hello(impostor::hello(2)));
    match impostor.reply() {
        Some(Reply::Refuse(refuse)) => assert_eq!(refuse.why(), Refusal::Version),
        other => panic!("{other:?}"),
    }
    // It stores one column only.
    let mut impostor = Impostor::dial(port);
    impostor.greet();
    // A message of a kind that does not exist yet: field 100, two bytes.
    impostor.push_bytes(&[0xa2, 0x06, 2, 1, 2]);
    let mut batch = impostor::row("old", 50, 1);
    batch.values.push(Values {
        number: 999 << 7,
        data: vec![1],
    });
    impostor.push(Push::Batch(batch));
    let acked = |reply| matches!(reply, Some(Reply::Ack(ack)) if ack.table == 0 && ack.upto == 1);
    assert!(acked(impostor.reply()), "no acknowledgement");
    assert_eq!(cluster.node(0).value("old", "gpc0"), 50);
    // An older state after a newer one makes no difference.
    impostor.push(Push::Batch(impostor::row("old", 60, 2)));
    let mut late = impostor::row("old", 50, 1);
    late.source = impostor::row("old", 50, 3).source;
    impostor.push(Push::Batch(late));
    until_true(
        "both are acknowledged",
        || matches!(impostor.reply(), Some(Reply::Ack(ack)) if ack.upto == 3),
    );
    assert_eq!(cluster.node(0).value("old", "gpc0"), 60);
    cluster.node(0).hit("old", 1, &mut tally);
    // When it has gone, those it told tell the others.
    drop(impostor);
    let expected = Expected::of(&tally).with("old", "gpc0", 61);
    cluster.settled(&expected);
}

/// A node of another cluster is refused by name, and counts for itself.
#[test]
fn another_cluster() {
    let cluster = Spec::of(2)
        .peers_on(0, "  cluster east")
        .peers_on(1, "  cluster west")
        .start();
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 3, &mut tally);
    cluster.node(1).hit("a", 4, &mut tally);
    until_true("the refusal is shown", || {
        let said = cluster.node(0).said() + &cluster.node(1).said();
        said.contains("cluster")
    });
    assert_eq!(cluster.node(0).value("a", "gpc0"), 3);
    assert_eq!(cluster.node(1).value("a", "gpc0"), 4);
}

/// Makes a certificate authority and certificates of `names`, each with its key in one file.
fn certificates(dir: &Path, authority: &str, names: &[&str]) -> bool {
    let Some(openssl) = tools::find("openssl") else {
        tools::lacks("openssl is not installed");
        return false;
    };
    let run = |words: &str| {
        let mut command = Command::new(&openssl);
        command
            .current_dir(dir)
            .args(words.split_ascii_whitespace());
        let done = tools::run(&mut command);
        assert_eq!(done.code, Some(0), "{words}: {}", done.stderr);
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    run(&format!(
        "req -x509 {key} -days 30 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
    ));
    for name in names {
        run(&format!(
            "req -new {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        std::fs::write(dir.join("ext"), format!("subjectAltName=DNS:{name}\n")).expect("a file");
        run(&format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 30 -extfile ext -out {name}.crt"
        ));
        let both = ["crt", "key"]
            .map(|end| std::fs::read_to_string(dir.join(format!("{name}.{end}"))).expect("a file"));
        std::fs::write(dir.join(format!("{name}.both")), both.concat()).expect("a file");
    }
    true
}

fn tls(crt: &str, ca: &str) -> (String, String) {
    let both = format!("ssl crt {{{{dir}}}}/{crt} ca-file {{{{dir}}}}/{ca} verify required");
    (both.clone(), both)
}

/// With certificates of one authority the nodes share; one with a certificate of another does not get in, in either
/// direction, and neither does one without TLS.
#[test]
fn certificates_decide_who_shares() {
    let dir = tempfile::tempdir().expect("a directory");
    if !certificates(dir.path(), "good-ca", &["node0", "node1"])
        || !certificates(dir.path(), "bad-ca", &["node2"])
    {
        return;
    }
    let mut spec = Spec::of(4);
    for (name, file) in [
        ("node0.pem", "node0.both"),
        ("node1.pem", "node1.both"),
        ("node2.pem", "node2.both"),
        ("good.pem", "good-ca.pem"),
        ("bad.pem", "bad-ca.pem"),
    ] {
        spec = spec.file(name, std::fs::read(dir.path().join(file)).expect("a file"));
    }
    for (node, crt, ca) in [
        (0, "node0.pem", "good.pem"),
        (1, "node1.pem", "good.pem"),
        // Believes the good ones, and is not believed.
        (2, "node2.pem", "good.pem"),
    ] {
        let (bind, server) = tls(crt, ca);
        spec = spec.options_on(node, &bind, &server);
    }
    let cluster = spec.peers("  learn-timeout 2s").start();
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("a", 10, &mut tally);
    }
    let mut outside = Tally::default();
    cluster.node(2).hit("a", 100, &mut outside);
    cluster.node(3).hit("a", 1000, &mut outside);
    until_true("the two share", || {
        (0..2).all(|node| cluster.node(node).value("a", "gpc0") == 20)
    });
    for refusal in [
        "closed: TLS: its certificate was not issued by an authority of 'ca-file'",
        "closed: TLS: it speaks plain text, and this side TLS",
        "peer node2 is unreachable: TLS: its certificate was not issued by an authority of 'ca-file'",
        "peer node3 is unreachable: it speaks plain text, and this side TLS",
    ] {
        cluster.node(0).proxy().says(refusal);
    }
    assert_eq!(cluster.node(2).value("a", "gpc0"), 100);
    assert_eq!(cluster.node(3).value("a", "gpc0"), 1000);
    assert_eq!(cluster.node(0).value("a", "gpc0"), 20);
}
