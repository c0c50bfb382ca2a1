//! Newcomers that are taught over links that are far or narrow.

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::hits::{Hits, Tally, Traffic};
use cluster_tests::relay::Relay;
use cluster_tests::scrape::{samples, scrape};
use cluster_tests::wait::{until, until_true, until_within};

const ENTRIES: usize = 20_000;
const TABLE: &str =
    "type string len 32 size 100k expire 1h store http_req_cnt,http_req_rate(1h),gpc0";
const ADMIN: &str = "  admin bind unix@{{dir}}/admin.sock\n";

fn key(number: usize) -> String {
    format!("k{number}")
}

/// One request for each key, at one node.
#[track_caller]
fn fill(cluster: &Cluster, node: usize, tally: &mut Tally) {
    let keys: Vec<String> = (0..ENTRIES).map(key).collect();
    let mut hits = Hits::open(&cluster.node(node).entrance()).expect("it accepts");
    let sent = hits.send_each(keys.iter().map(String::as_str));
    assert_eq!(sent.ok(), Some(ENTRIES as u64));
    for key in keys {
        tally.add(&key, 1);
    }
}

/// The number of entries and the sum over them.
fn sum(cluster: &Cluster, node: usize) -> (usize, u64) {
    let text = cluster.node(node).ask("show table t");
    let lines = text.lines();
    let values =
        lines.filter_map(|line| line.split(" gpc0=").nth(1)?.split(' ').next()?.parse().ok());
    values.fold((0, 0), |(entries, sum), value: u64| {
        (entries + 1, sum + value)
    })
}

/// Until each node has all, exactly.
#[track_caller]
fn all_have(cluster: &Cluster, tally: &Tally) {
    let mut seen = Vec::new();
    let expected = (tally.iter().count(), tally.total());
    let same = until_within(cluster_tests::cluster::AGREE, || {
        seen = (0..cluster.len()).map(|node| sum(cluster, node)).collect();
        seen.iter().all(|seen| *seen == expected).then_some(())
    });
    assert!(same.is_some(), "{seen:?}, expected {expected:?}");
    for number in [0, 7, ENTRIES - 1] {
        for node in 0..cluster.len() {
            let (value, key) = (cluster.node(node).value(&key(number), "gpc0"), key(number));
            assert_eq!(value as u64, tally.get(&key), "{key} at node{node}");
        }
    }
}

/// A link that is too narrow for what there is to learn in that time: the node accepts, says how far it has come and what
/// would help, and what comes late adds up with what was counted meanwhile.
#[test]
fn what_comes_after_the_learn_timeout_adds_up() {
    let spec = Spec::of(2).relayed().table(TABLE).global(ADMIN);
    let mut cluster = spec.peers("  learn-timeout 4s").start();
    let mut tally = Tally::default();
    fill(&cluster, 0, &mut tally);
    cluster.node_mut(1).kill();
    cluster.relay(0, 1).slow(Some(30_000));
    cluster.node_mut(1).start();
    let metric = |name: &str| {
        let page = scrape(&cluster.node(1).proxy().dir().join("admin.sock"));
        let name = format!("remora_peers_{name}{{peers=\"p\"}}");
        *samples(&page).get(name.as_str()).expect("a number")
    };
    let line = |text: &'static str| {
        until(text, || {
            let said = cluster.node(1).proxy().stderr();
            let found = said.lines().find(|line| line.contains(text));
            found.map(str::to_owned)
        })
    };
    let said = line(
        "ready: the learn-timeout is over, tables may be incomplete: 0 of 1 table learned (0 entries)",
    );
    let awaited = "awaited from peer node0 (is not through with 1, ";
    let rows = said
        .split(awaited)
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    let rows: usize = rows.unwrap_or_else(|| panic!("how far it has come: {said}"));
    assert!(rows > 0 && rows < ENTRIES, "{said}");
    assert!(said.contains("WARNING"), "{said}");
    assert!(
        said.ends_with("a 'learn-timeout' longer than 4000 ms would wait for it"),
        "{said}"
    );
    assert!(metric("rows_learned") as usize >= rows);
    assert_eq!((metric("teachers"), metric("untaught")), (1.0, 1.0));
    let shown = cluster.node(1).ask("show peers");
    assert!(
        shown.contains("  learned: tables=0 of=1 entries=0 rows="),
        "{shown}"
    );
    assert!(shown.contains(" teachers=node0:"), "{shown}");
    // Both count before the rest comes: keys that have come, and keys that have not.
    for node in [1, 0] {
        for number in (0..ENTRIES).step_by(997).chain([ENTRIES - 1]) {
            cluster.node(node).hit(&key(number), 2, &mut tally);
        }
    }
    cluster.relay(0, 1).slow(None);
    all_have(&cluster, &tally);
    let said = line("learned 1 table with ");
    assert!(said.contains(" ms after the learn-timeout"), "{said}");
    until_true("nobody teaches any more", || metric("teachers") == 0.0);
    assert_eq!(metric("tables_learned"), 1.0);
    let shown = cluster.node(1).ask("show peers");
    assert!(
        shown.contains("  learned: tables=1 of=1 entries="),
        "{shown}"
    );
}

/// A newcomer far from those who teach it, under traffic: it has all before it accepts.
#[test]
fn taught_over_links_with_delay() {
    let spec = Spec::of(3)
        .relayed()
        .table(TABLE)
        .peers("  learn-timeout 10m");
    let mut cluster = spec.start();
    let mut tally = Tally::default();
    for node in 0..2 {
        fill(&cluster, node, &mut tally);
    }
    all_have(&cluster, &tally);
    cluster.node_mut(2).kill();
    for (ms, other) in [(40, 0), (100, 1)] {
        let delay = |relay: &Relay| relay.delay(Duration::from_millis(ms));
        cluster.between(other, 2).into_iter().for_each(delay);
    }
    let running: Vec<Traffic> = (0..2)
        .map(|node| {
            let keys = [key(1), key(ENTRIES / 2), format!("new{node}")];
            let keys = keys.each_ref().map(String::as_str);
            Traffic::start(
                cluster.node(node).entrance(),
                &keys,
                2,
                Duration::from_millis(2),
            )
        })
        .collect();
    cluster.node_mut(2).start();
    let (entries, total) = sum(&cluster, 2);
    assert!(
        entries >= ENTRIES && total >= 2 * ENTRIES as u64,
        "{entries} {total}"
    );
    cluster.node(2).hit(&key(ENTRIES / 2), 5, &mut tally);
    for traffic in running {
        let done = traffic.stop();
        assert_eq!(done.doubtful.total(), 0, "a request was not answered");
        tally.merge(&done.answered);
    }
    all_have(&cluster, &tally);
}
