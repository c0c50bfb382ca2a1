//! Nodes that start: what they must know before they accept, and how long they wait for it.

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::{Hits, Tally, Traffic};
use cluster_tests::relay::Relay;
use cluster_tests::scrape::fetch;
use cluster_tests::tools;
use cluster_tests::wait::{observe_for, until_true, until_within};

const LONG: &str = "  learn-timeout 10m\n";

/// Nobody to ask: all are new, or nobody is there. They are ready at once, whatever `learn-timeout` says.
#[test]
fn with_nobody_to_ask_a_node_is_ready_at_once() {
    drop(Spec::of(3).peers(LONG).start());
    let mut lone = Spec::of(3).peers(LONG).prepare();
    lone.node_mut(1).start();
}

/// A peer that cannot be reached is waited for, for `learn-timeout` and no longer.
#[test]
fn learn_timeout_ends_the_wait() {
    let mut cluster = Spec::of(2).relayed().peers("  learn-timeout 1s").prepare();
    cluster.relays().for_each(Relay::hold);
    cluster.node_mut(0).start();
    cluster.node(0).proxy().says("the learn-timeout is over");
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 3, &mut tally);
}

/// As long as it may still be taught, it does not accept; taught, it does at once, and has everything.
#[test]
fn a_newcomer_accepts_when_it_has_been_taught() {
    let mut cluster = Spec::of(2)
        .relayed()
        .peers(LONG)
        .global("  admin bind unix@{{dir}}/admin.sock\n")
        .start();
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 30, &mut tally);
    cluster.node_mut(1).kill();
    cluster.relays().for_each(Relay::hold);
    cluster.node_mut(1).spawn();
    until_true("it can be asked", || {
        let proxy = cluster.node(1).proxy();
        let admin = proxy.dir().join("admin.sock");
        proxy.cli().try_open().is_ok() && std::os::unix::net::UnixStream::connect(admin).is_ok()
    });
    observe_for(Duration::from_millis(500));
    assert!(!cluster.node(1).accepts(), "it accepts and knows nothing");
    let readiness = |cluster: &Cluster| {
        let socket = cluster.node(1).proxy().dir().join("admin.sock");
        let answer = fetch(&socket, "/readyz");
        (answer.status, answer.text())
    };
    let (status, text) = readiness(&cluster);
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("peers"), "{text}");
    cluster.relays().for_each(Relay::release);
    until_true("it accepts", || cluster.node(1).accepts());
    assert_eq!(cluster.node(1).value("a", "gpc0"), 30);
    until_true("it says so", || readiness(&cluster).0 == 200);
    cluster.node_mut(1).ready();
    cluster.node(1).hit("a", 1, &mut tally);
    cluster.settled(&Expected::of(&tally));
}

fn used(cluster: &Cluster, node: usize) -> u64 {
    let said = cluster.node(node).ask("show table");
    let used = said
        .lines()
        .find(|line| line.contains("table: t,"))
        .and_then(|line| line.rsplit("used:").next())
        .and_then(|number| number.trim().parse().ok());
    used.unwrap_or_else(|| panic!("no table t: {said}"))
}

/// A large table is taught to a newcomer while its entries change.
#[test]
fn a_large_table_is_taught_under_traffic() {
    let entries: u64 = if tools::long() { 1_000_000 } else { 150_000 };
    let columns = "type ip size 1200k expire 1h store http_req_cnt,http_req_rate(1h),gpc0";
    let mut cluster = Spec::of(3).table(columns).peers(LONG).prepare();
    cluster.node_mut(0).spawn();
    cluster.node_mut(1).spawn();
    cluster.node_mut(0).ready();
    cluster.node_mut(1).ready();
    let address = |number: u64| std::net::Ipv4Addr::from(0x0a00_0000 + number as u32).to_string();
    std::thread::scope(|scope| {
        for node in 0..2 {
            let entrance = cluster.node(node).entrance();
            scope.spawn(move || {
                // The middle third is counted by both.
                let range = if node == 0 {
                    0..entries * 2 / 3
                } else {
                    entries / 3..entries
                };
                let keys: Vec<String> = range.map(address).collect();
                let mut hits = Hits::open(&entrance).expect("accepts");
                let sent = hits.send_each(keys.iter().map(String::as_str));
                assert_eq!(sent.ok(), Some(keys.len() as u64));
            });
        }
    });
    let traffic: Vec<Traffic> = [0, 1]
        .map(|node| {
            let keys: Vec<String> = (0..100).map(|number| address(number * 1500)).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            Traffic::start(
                cluster.node(node).entrance(),
                &keys,
                2,
                Duration::from_millis(1),
            )
        })
        .into();
    cluster.node_mut(2).start();
    // Taught before it accepts: what its teacher had when it was asked.
    assert!(
        used(&cluster, 2) >= entries * 2 / 3,
        "{}",
        used(&cluster, 2)
    );
    let mut hot = Tally::default();
    for traffic in traffic {
        hot.merge(&traffic.stop().answered);
    }
    let total = entries * 4 / 3 + hot.total();
    let last = until_within(cluster_tests::cluster::AGREE * 2, || {
        let same = (0..3).all(|node| used(&cluster, node) == entries);
        let sums = same.then(|| [0, 1, 2].map(|node| sum(&cluster, node)));
        (sums == Some([total; 3])).then_some(())
    });
    assert!(
        last.is_some(),
        "sums {:?} of {:?} entries; expected {total} of {entries}",
        [0, 1, 2].map(|node| sum(&cluster, node)),
        [0, 1, 2].map(|node| used(&cluster, node))
    );
    for (key, count) in hot.iter().take(5) {
        let number =
            u64::from(u32::from(key.parse::<std::net::Ipv4Addr>().expect("a key"))) - 0x0a00_0000;
        let both = (entries / 3..entries * 2 / 3).contains(&number);
        let expected = count + 1 + u64::from(both);
        for node in 0..3 {
            assert_eq!(
                cluster.node(node).value(key, "gpc0") as u64,
                expected,
                "{key}"
            );
        }
    }
}

/// The sum of a column over a large table, without keeping it.
fn sum(cluster: &Cluster, node: usize) -> u64 {
    let text = cluster.node(node).ask("show table t");
    text.lines()
        .filter_map(|line| line.split(" gpc0=").nth(1))
        .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// A teacher that dies in the middle is replaced by the next.
#[test]
fn a_teacher_that_dies() {
    let mut cluster = Spec::of(3).relayed().peers(LONG).start();
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("a", 10, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    // Both links deliver nothing yet, so the newcomer asks one and waits; that one goes away, and then the other answers.
    let links = [(0, 2), (2, 0), (1, 2), (2, 1)];
    cluster.node_mut(2).kill();
    for (from, to) in links {
        cluster.relay(from, to).hold();
    }
    let before = [0, 1].map(|to| cluster.relay(2, to).accepted());
    cluster.node_mut(2).spawn();
    until_true("it tries to reach them", || {
        (0..2).all(|to| cluster.relay(2, to).accepted() > before[to])
    });
    cluster.node_mut(0).kill();
    for (from, to) in links {
        cluster.relay(from, to).release();
    }
    cluster.node_mut(2).ready();
    assert_eq!(cluster.node(2).value("a", "gpc0"), 20);
    cluster.node(2).hit("a", 1, &mut tally);
    cluster.settled(&Expected::of(&tally));
}

/// Greetings of nodes with thousands of tables come in parts, and so do the answers.
#[test]
fn thousands_of_tables() {
    let table = |number: usize| {
        format!("a-table-with-a-name-of-sixty-letters-as-generated-files-have-{number:04}")
    };
    let store = "gpc0,gpc1,http_req_rate(10s),http_err_cnt,bytes_in_rate(1m),bytes_out_rate(1m),conn_cur,conn_rate(3s),gpt0";
    let lines = |count: usize, size: usize| {
        let line = |number| {
            format!(
                "  table {} type ip size {size} expire 1h store {store}\n",
                table(number)
            )
        };
        (0..count).map(line).collect::<String>()
    };
    // Node 1 has a few fewer, all of another size.
    let mut cluster = Spec::of(2)
        .peers(&format!("{LONG}{}", lines(TABLES, 10)))
        .peers_on(1, &format!("{LONG}{}", lines(TABLES - 3, 20)))
        .start();
    let set = |cluster: &Cluster, node: usize, number: usize, value: u64| {
        let command = format!(
            "set table p/{} key 192.0.2.1 data.gpc0 {value}",
            table(number)
        );
        cluster.node(node).order(&command);
    };
    let get = |cluster: &Cluster, node: usize, number: usize| {
        let entry = cluster
            .node(node)
            .proxy()
            .cli()
            .entry(&format!("p/{}", table(number)), "192.0.2.1");
        entry.map_or(0, |entry| entry.get("gpc0"))
    };
    set(&cluster, 0, 0, 5);
    set(&cluster, 1, TABLES - 4, 7);
    set(&cluster, 0, TABLES - 1, 9);
    until_true("both have what both share", || {
        get(&cluster, 1, 0) == 5 && get(&cluster, 0, TABLES - 4) == 7
    });
    let shown = cluster.node(1).ask("show peers");
    let lacking = format!("mismatch table=/{}: only node0 has it", table(TABLES - 1));
    assert!(shown.contains(&lacking), "{shown}");
    cluster.node_mut(1).kill();
    cluster.node_mut(1).start();
    assert_eq!((get(&cluster, 1, 0), get(&cluster, 1, TABLES - 4)), (5, 7));
    let line = format!(
        "learned {} tables with 2 entries from peer node0 in ",
        TABLES - 2
    );
    cluster.node(1).proxy().says(&line);
}

/// Some 700 kB, of which a message carries a quarter of a megabyte.
const TABLES: usize = 2_000;
