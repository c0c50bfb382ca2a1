//! Nodes with different configurations, as in every rolling change.

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::scrape::{samples, scrape};
use cluster_tests::wait::until_true;

/// Sizes, lifetimes and columns differ: what both have is synchronised.
#[test]
fn sizes_lifetimes_and_columns() {
    let cluster = Spec::of(2)
        .table_on(
            0,
            "type string len 32 size 10k expire 1h store http_req_cnt,gpc0,http_req_rate(10s),conn_cnt",
        )
        .table_on(
            1,
            "type string len 32 size 1k expire 30m store http_req_rate(20s),gpt0,gpc0,http_req_cnt,bytes_in_cnt",
        )
        .global(ADMIN)
        .start();
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("a", 10, &mut tally);
    }
    until_true("what both store is the sum", || {
        (0..2).all(|node| {
            ["http_req_cnt", "gpc0"].map(|column| cluster.node(node).value("a", column)) == [20, 20]
        })
    });
    // What only one has, and rates of different periods, stay its own.
    assert_eq!(cluster.node(0).value("a", "conn_cnt"), 10);
    assert_eq!(cluster.node(1).value("a", "gpt0"), 0);
    for node in 0..2 {
        let rate = cluster.node(node).value("a", "http_req_rate");
        assert!(rate <= 10, "rates of other periods were added: {rate}");
        let shown = cluster.node(node).ask("show peers");
        assert!(
            shown.contains("http_req_rate"),
            "the difference is not shown:\n{shown}"
        );
        // Two sets of columns, the lifetime, the size: once each, though both sessions find them.
        let line = "table t differs at peer node";
        let logged = cluster.node(node).proxy().says_times(4, line);
        assert_eq!(logged.matches(line).count(), 4, "{logged}");
        assert!(
            logged.contains("only node0 stores conn_cnt, http_req_rate(10000 ms)"),
            "{logged}"
        );
        assert!(
            logged.contains("size: 10240 at node0, 1024 at node1"),
            "{logged}"
        );
        assert_eq!(told(&cluster, node, 1 - node, "mismatches"), 4.0);
    }
}

/// An entry that is over at one node and lives at another is the whole sum again once it is hit anywhere.
#[test]
fn lifetimes_that_end_apart() {
    let cluster = Spec::of(2)
        .table_on(
            0,
            "type string len 32 size 1k expire 1500 store http_req_cnt,gpc0",
        )
        .table_on(
            1,
            "type string len 32 size 1k expire 1h store http_req_cnt,gpc0",
        )
        .start();
    let mut tally = Tally::default();
    let entries = |node: usize| cluster.node(node).dump("t").entries.len();
    for round in 1..=2 {
        for (node, key) in [(0, "a"), (1, "a"), (0, "b"), (1, "c")] {
            cluster.node(node).hit(key, 5, &mut tally);
        }
        let sums = |node: usize| ["a", "b", "c"].map(|key| cluster.node(node).value(key, "gpc0"));
        let all = [round * 10, round * 5, round * 5];
        until_true("the one that keeps them has all", || sums(1) == all);
        until_true("over at the other", || entries(0) == 0);
        assert_eq!(sums(1), all);
    }
    // Hit where they are over, and where they live.
    for (node, key) in [(0, "a"), (1, "b"), (0, "c")] {
        cluster.node(node).hit(key, 1, &mut tally);
        until_true("both show the sum", || {
            (0..2).all(|node| cluster.node(node).value(key, "gpc0") as u64 == tally.get(key))
        });
    }
}

/// What a node's metrics say of another one.
fn told(cluster: &Cluster, node: usize, other: usize, what: &str) -> f64 {
    let page = scrape(&cluster.node(node).proxy().dir().join("admin.sock"));
    let name = format!("remora_peer_{what}{{peers=\"p\",peer=\"node{other}\"}}");
    let value = samples(&page).get(name.as_str()).copied();
    value.unwrap_or_else(|| panic!("{name} in\n{page}"))
}

const ADMIN: &str = "  admin bind unix@{{dir}}/admin.sock\n";

/// Rates of bytes in units of their own are summed by nodes that have the same unit, and by no others.
#[test]
fn rates_of_bytes_in_other_units() {
    let plain = "type string len 32 size 1k expire 1h store gpc0,bytes_in_rate(1h)";
    let scaled =
        "type string len 32 size 1k expire 1h brates-factor 16 store gpc0,bytes_in_rate(1h)";
    let cluster = Spec::of(4)
        .table(plain)
        .table_on(2, scaled)
        .table_on(3, scaled)
        .global(ADMIN)
        .start();
    let mut tally = Tally::default();
    cluster.node(0).hit("a", 100, &mut tally);
    let rate = |node: usize| cluster.node(node).value("a", "bytes_in_rate");
    until_true("its equal adds it", || rate(0) > 0 && rate(0) == rate(1));
    let one = rate(0);
    cluster.node(2).hit("a", 100, &mut tally);
    cluster.node(3).hit("a", 200, &mut tally);
    until_true("what has no unit is summed by all", || {
        (0..4).all(|node| cluster.node(node).value("a", "gpc0") == 400)
    });
    // Three shares in whole units of 16 bytes per event.
    until_true("its equal adds it", || {
        rate(2) == rate(3) && (2 * one..4 * one).contains(&rate(2))
    });
    assert_eq!((rate(0), rate(1)), (one, one));
    for (node, other, expected) in [(0, 1, 0.0), (0, 2, 2.0), (2, 0, 2.0), (2, 3, 0.0)] {
        assert_eq!(told(&cluster, node, other, "mismatches"), expected);
    }
    let line = "only node2 stores bytes_in_rate(3600000 ms) in units of 16 bytes";
    cluster.node(0).proxy().says(line);
}

/// A table of the same name with other keys is not synchronised at all, nor is one that only one node has, which is said;
/// other tables are not harmed.
#[test]
fn tables_with_other_keys() {
    let second =
        "backend u\n  stick-table type string len 16 size 1k expire 1h store gpc0 peers p\n";
    let cluster = Spec::of(2)
        .table_on(1, "type integer size 1k expire 1h store http_req_cnt,gpc0")
        .append(second)
        .append_on(
            0,
            &format!("{second}backend alone\n  stick-table type ip size 1k store gpc0 peers p\n"),
        )
        .global(ADMIN)
        .start();
    let mut tally = Tally::default();
    cluster.node(0).hit("7", 10, &mut tally);
    cluster.node(1).hit("7", 3, &mut tally);
    cluster.node(0).order("set table u key x data.gpc0 4");
    until_true("the other table is synchronised", || {
        let entry = cluster.node(1).proxy().cli().entry("u", "x");
        entry.is_some_and(|entry| entry.get("gpc0") == 4)
    });
    assert_eq!(cluster.node(0).value("7", "gpc0"), 10);
    assert_eq!(cluster.node(1).value("7", "gpc0"), 3);
    for node in 0..2 {
        let shown = cluster.node(node).ask("show peers");
        for (table, what) in [
            (
                "t",
                "keys: string of 32 bytes at node0, integer of 4 bytes at node1",
            ),
            ("alone", "only node0 has it"),
        ] {
            let line = format!("mismatch table={table}: {what}");
            assert!(shown.contains(&line), "{line} in\n{shown}");
            let line = format!("table {table} differs at peer node{}: {what}", 1 - node);
            cluster.node(node).proxy().says(&line);
        }
        assert_eq!(told(&cluster, node, 1 - node, "mismatches"), 2.0);
    }
}

/// Rows for which there is no room are counted for the peer that they came from.
#[test]
fn rows_without_room() {
    let table =
        |size: usize| format!("type string len 32 size {size} expire 1h store conn_cur,gpc0");
    let cluster = Spec::of(2)
        .table(&table(100))
        .table_on(1, &table(1))
        .append(
            "frontend held\n  bind 127.0.0.1:{{port:held}}\n  timeout client 1h\n  tcp-request connection track-sc0 str(7x) table t\n  http-request return status 200\n",
        )
        .global(ADMIN)
        .start();
    let held = std::net::TcpStream::connect(cluster.node(1).proxy().addr("held"));
    until_true("its only entry is in use", || {
        cluster.node(1).value("7x", "conn_cur") == 1
    });
    cluster.node(0).hit("a", 3, &mut Tally::default());
    let dropped = || {
        let shown = cluster.node(1).ask("show peers");
        let line = shown.lines().find(|line| line.contains(" dropped: "));
        line.expect("a line").trim().to_owned()
    };
    until_true("the row is dropped", || {
        dropped() != "dropped: rows=0 messages=0 keys_wanted=0 keys_offered=0"
    });
    assert!(dropped().starts_with("dropped: rows="), "{}", dropped());
    assert!(told(&cluster, 1, 0, "dropped_rows_total") >= 1.0);
    assert_eq!(told(&cluster, 0, 1, "dropped_rows_total"), 0.0);
    drop(held);
}

/// A node that does not list another is dialed by it all the same or not; what must not happen is that sums differ.
#[test]
fn a_column_added_by_a_rolling_change() {
    let mut cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("a", 10, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    for node in 0..2 {
        cluster.node_mut(node).stop();
        cluster
            .node_mut(node)
            .reconfigure(|config| config.replace("store ", "store gpt0,http_err_cnt,"));
        cluster.node_mut(node).start();
        cluster.node(node).hit("a", 1, &mut tally);
    }
    cluster.settled(&Expected::of(&tally));
    cluster.node(0).order("set table t key a data.gpt0 9");
    cluster.settled(&Expected::of(&tally).with("a", "gpt0", 9));
}
