//! Nodes that are reloaded with another definition of a table: what their peers have, they get.

use cluster_tests::cli::Cli;
use cluster_tests::cluster::{Cluster, Node, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::locate::{Kind, kind_under_test};
use cluster_tests::scrape::{samples, scrape};
use cluster_tests::tools;
use cluster_tests::wait::until_true;
use rustix::process::{Pid, Signal, kill_process};

/// Starts all nodes with a supervisor. `None` for a program that has no reloads of this kind.
fn supervised(spec: Spec) -> Option<Cluster> {
    if kind_under_test() == Kind::Haproxy {
        tools::skip("its workers learn tables from their peers anew");
        return None;
    }
    let mut cluster = spec.prepare();
    let head = "global\n  master-worker\n  admin bind unix@{{dir}}/admin.sock\n";
    for index in 0..cluster.len() {
        let node = cluster.node_mut(index);
        node.reconfigure(|config| config.replacen("global\n", head, 1));
        node.spawn();
    }
    for index in 0..cluster.len() {
        cluster.node_mut(index).ready();
    }
    Some(cluster)
}

/// Reloads a node with a changed configuration.
#[track_caller]
fn reload(node: &Node, from: &str, to: &str) {
    let dir = node.proxy().dir();
    let path = dir.join("test.cfg");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{from:?} in {text}");
    std::fs::write(path, text.replace(from, to)).expect("the configuration");
    let said = Cli::new(dir.join("master.sock")).ask("reload");
    assert!(said.starts_with("Success=1\n"), "{said}");
}

/// How many walks a node has asked for because a peer had more than it.
fn resyncs(node: &Node) -> f64 {
    let page = scrape(&node.proxy().dir().join("admin.sock"));
    let samples = samples(&page);
    let mut walks = samples
        .iter()
        .filter(|(name, _)| name.starts_with("remora_peers_resyncs_total{"));
    *walks.next().expect("a number").1
}

/// What one node counts in a new column before the others have it reaches them when they have.
#[test]
fn a_column_added_by_rolling_reloads() {
    let (before, after) = (
        "store http_req_cnt,gpc0_rate(1h)",
        "store http_req_cnt,gpc0_rate(2h),gpc0,gpt0",
    );
    let table = format!("type string len 32 size 10k expire 1h {before}");
    let Some(mut cluster) = supervised(Spec::of(3).table(&table)) else {
        return;
    };
    let columns = ["http_req_cnt", "gpc0", "gpc0_rate"];
    let mut old = Tally::default();
    cluster.node(2).hit("old", 3, &mut old);
    cluster.settled(&Expected::counted_in(&old, &columns[..1]).except("gpc0_rate"));
    let mut tally = Tally::default();
    let mut expected = Expected::nothing();
    for node in 0..3 {
        reload(cluster.node(node), before, after);
        // Only now, and never again.
        for key in 0..30 {
            cluster
                .node(node)
                .hit(&format!("of{node}-{key}"), 5, &mut tally);
        }
        let order = format!("set table t key ban{node} data.gpt0 {}", 40 + node);
        cluster.node(node).order(&order);
        expected = expected.with(&format!("ban{node}"), "gpt0", 40 + node as i64);
    }
    for (key, count) in tally.iter() {
        for column in columns {
            expected = expected.with(key, column, count as i64);
        }
    }
    // What was counted in a column of another definition is gone with it.
    expected = expected.with("old", "http_req_cnt", 3);
    cluster.settled(&expected);
    // Nor are third parties missed that have died since.
    let survivors = 2;
    cluster.node_mut(survivors).kill();
    cluster.settled(&expected);
    // It was not the supervisor that counted: its worker tells the last of it, and whoever hears less of that asks the other.
    let known = |node: usize| {
        let shown = cluster.node(node).ask("show peers dict p");
        let mut lines = shown.lines();
        let line =
            lines.find(|line| line.starts_with("    lineage=") && line.contains(" node=node2 "));
        let line = line.unwrap_or_else(|| panic!("{shown}"));
        let known = line.rsplit(" t=").next().and_then(|n| n.split_once('/'));
        let ended = line.contains(" ended=1 ");
        known
            .filter(|(known, highest)| ended && known == highest)
            .map(|(known, _)| known.to_owned())
    };
    until_true("both have all that the dead one told", || {
        known(0).is_some() && known(0) == known(1)
    });
    let walks = [0, 1].map(|node| resyncs(cluster.node(node)));
    for node in 0..survivors {
        reload(cluster.node(node), "size 10k", "size 20k");
    }
    cluster.settled(&expected);
    assert_eq!([0, 1].map(|node| resyncs(cluster.node(node))), walks);
}

/// The last that a dead node counted, in a column that a survivor had not yet: another one has it.
#[test]
fn a_column_added_after_the_death_of_who_counted_in_it() {
    let (before, after) = ("store http_req_cnt", "store http_req_cnt,gpc0,gpt0");
    let table = format!("type string len 32 size 10k expire 1h {before}");
    let Some(mut cluster) = supervised(Spec::of(3).table(&table)) else {
        return;
    };
    for node in [0, 2] {
        reload(cluster.node(node), before, after);
    }
    let mut tally = Tally::default();
    cluster.node(2).hit("a", 7, &mut tally);
    cluster.node(2).order("set table t key ban data.gpt0 42");
    let columns = ["http_req_cnt", "gpc0"];
    let expected = Expected::counted_in(&tally, &columns).with("ban", "gpt0", 42);
    let both = expected.and_others();
    until_true("the other one has it", || {
        cluster.node(0).value("a", "gpc0") == 7 && cluster.node(0).value("ban", "gpt0") == 42
    });
    cluster.node_mut(2).kill();
    reload(cluster.node(1), before, after);
    cluster.settled(&both);
}

/// Columns that one node drops and takes back: what it had counted in them comes back from the others.
#[test]
fn columns_dropped_and_taken_back() {
    let Some(cluster) = supervised(Spec::of(2)) else {
        return;
    };
    let mut tally = counted_by_both(&cluster);
    let expected = Expected::of(&tally);
    cluster.settled(&expected);
    let (all, few) = (
        "store http_req_cnt,http_req_rate(1h),conn_cnt,gpc0",
        "store gpc0",
    );
    for _ in 0..2 {
        reload(cluster.node(0), all, few);
        let shown = cluster.node(0).dump("t");
        assert_eq!(shown.get("k0", "conn_cnt"), None, "{shown:?}");
        reload(cluster.node(0), few, all);
        cluster.settled(&expected);
    }
    cluster.node(0).hit("k1", 1, &mut tally);
    cluster.settled(&Expected::of(&tally));
}

/// A table that a node does without for a while, in the lineage that goes on: what it counted there with others comes back, but
/// for keys that it counts anew before it has been told of them. Nobody takes new rows for those of before.
#[test]
fn a_table_that_is_gone_for_a_while() {
    let Some(cluster) = supervised(Spec::of(2)) else {
        return;
    };
    let mut tally = counted_by_both(&cluster);
    cluster.settled(&Expected::of(&tally));
    let (strings, numbers) = ("type string len 32", "type integer");
    for _ in 0..2 {
        reload(cluster.node(0), strings, numbers);
        cluster.node(1).hit("k1", 2, &mut tally);
        reload(cluster.node(0), numbers, strings);
        cluster.node(0).hit("k2", 2, &mut tally);
        // What the other one counted, and these two.
        let most = tally.get("k2");
        cluster.settled(&Expected::of(&tally).doubtful("k2", 3 + 2, most));
        let said = cluster.node(0).said();
        assert!(!said.contains("after its end"), "{said}");
    }
    let now = cluster.node(1).value("k2", "gpc0") as u64;
    let mut more = Tally::default();
    cluster.node(0).hit("k2", 5, &mut more);
    tally.forget("k2");
    tally.add("k2", now + 5);
    cluster.settled(&Expected::of(&tally));
}

/// Entries that a table had no room for come back when it has.
#[test]
fn a_table_that_is_small_for_a_while() {
    let Some(cluster) = supervised(Spec::of(2)) else {
        return;
    };
    let mut tally = Tally::default();
    for key in 0..50 {
        cluster.node(key % 2).hit(&format!("k{key}"), 7, &mut tally);
    }
    let expected = Expected::of(&tally);
    cluster.settled(&expected);
    for round in 0..2 {
        reload(cluster.node(1), "size 10k", "size 10");
        let few = cluster.node(1).dump("t");
        assert!(few.sum("gpc0") <= 70, "{few:?}");
        if round == 1 {
            // Through a process that has nothing to do with it.
            reload(cluster.node(1), "size 10 ", "size 10 nopurge ");
            reload(cluster.node(1), "size 10 nopurge ", "size 10 ");
        }
        reload(cluster.node(1), "size 10 ", "size 10k ");
        cluster.settled(&expected);
    }
}

/// Two nodes count the same keys.
fn counted_by_both(cluster: &Cluster) -> Tally {
    let mut tally = Tally::default();
    for key in 0..20 {
        for node in 0..2 {
            cluster.node(node).hit(&format!("k{key}"), 3, &mut tally);
        }
    }
    tally
}

/// The process that serves.
#[track_caller]
fn worker(node: &Node) -> i32 {
    let master = Cli::new(node.proxy().dir().join("master.sock"));
    master.worker() as i32
}

/// A new worker dies. What the one before it still holds counts once, long before the dead one's lease is over.
#[test]
fn a_connection_of_an_old_worker_counts_once_after_the_new_one_died() {
    let held = "frontend held\n  bind 127.0.0.1:{{port:held}}\n  timeout client 1h\n  tcp-request connection track-sc0 str(7x) table t\n  http-request return status 200\n";
    let Some(cluster) = supervised(Spec::of(3).append(held)) else {
        return;
    };
    let conn_cur = |node: usize| cluster.node(node).value("7x", "conn_cur");
    let all = || [0, 1, 2].map(conn_cur);
    let open = std::net::TcpStream::connect(cluster.node(0).proxy().addr("held"));
    let open = open.expect("the frontend accepts");
    until_true("all see it", || all() == [1; 3]);
    reload(cluster.node(0), "timeout server 60s", "timeout server 61s");
    until_true("all see it", || all() == [1; 3]);
    let mut tally = Tally::default();
    // Whoever is told by nobody finds out each time, and a machine that stalls does not.
    let mut late = Vec::new();
    for round in 0..3_u32 {
        let dead = worker(cluster.node(0));
        kill_process(Pid::from_raw(dead).expect("a process"), Signal::KILL).expect("it runs");
        until_true("another one serves", || {
            worker(cluster.node(0)) != dead && cluster.node(0).accepts()
        });
        // When this is known, so is the rest.
        let key = format!("after{round}");
        cluster.node(0).hit(&key, 1, &mut tally);
        until_true("the peers hear it", || {
            [1, 2].map(|node| cluster.node(node).value(&key, "gpc0")) == [1; 2]
        });
        until_true("it counts once everywhere", || all() == [1; 3]);
        if !is_told(cluster.node(1)) {
            late.push(round);
        }
    }
    assert!(late.len() < 2, "late in rounds {late:?}");
    drop(open);
    until_true("it is over everywhere", || all() == [0; 3]);
}

/// The same long after the reload, when the old worker has let go of its tables.
#[test]
fn a_connection_counts_once_after_the_tables_are_gone() {
    // A tunnel brings no other request, whose rules might ask for any entry.
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let held = format!(
        "frontend held\n  bind 127.0.0.1:{{{{port:held}}}}\n  mode tcp\n  timeout client 1h\n  tcp-request connection track-sc0 str(7x) table t\n  default_backend far\nbackend far\n  mode tcp\n  timeout connect 5s\n  timeout server 1h\n  server s {}\n",
        server.local_addr().expect("an address")
    );
    let Some(cluster) = supervised(Spec::of(2).append(&held)) else {
        return;
    };
    let all = || [0, 1].map(|node| cluster.node(node).value("7x", "conn_cur"));
    let open = std::net::TcpStream::connect(cluster.node(0).proxy().addr("held"));
    let open = open.expect("the frontend accepts");
    let (tunnel, _) = server.accept().expect("a connection");
    until_true("all see it", || all() == [1; 2]);
    let mut tally = Tally::default();
    cluster.node(0).hit("before", 3, &mut tally);
    let first = worker(cluster.node(0));
    reload(cluster.node(0), "timeout server 60s", "timeout server 61s");
    reload(cluster.node(0), "timeout server 61s", "timeout server 62s");
    let master = Cli::new(cluster.node(0).proxy().dir().join("master.sock"));
    until_true("it has let go of its tables", || {
        let shown = master.ask(&format!("@!{first} show table t"));
        shown.contains("key=7x") && !shown.contains("key=before")
    });
    let mut late = Vec::new();
    for round in 0..2_u32 {
        let dead = worker(cluster.node(0));
        kill_process(Pid::from_raw(dead).expect("a process"), Signal::KILL).expect("it runs");
        until_true("another one serves", || {
            worker(cluster.node(0)) != dead && cluster.node(0).accepts()
        });
        // When this is known, so is the rest.
        let key = format!("after{round}");
        cluster.node(0).hit(&key, 1, &mut tally);
        until_true("the peer hears it", || {
            cluster.node(1).value(&key, "gpc0") == 1
        });
        until_true("it counts once everywhere", || all() == [1; 2]);
        if !is_told(cluster.node(1)) {
            late.push(round);
        }
        cluster.settled(&Expected::of(&tally).with("7x", "conn_cur", 1).and_others());
    }
    assert!(late.len() < 2, "late in rounds {late:?}");
    drop((open, tunnel));
    until_true("it is over everywhere", || all() == [0; 2]);
}

/// Whether this node knows of one life of node 0 only, and that the one before it is over, though its lease is not.
#[track_caller]
fn is_told(node: &Node) -> bool {
    let shown = node.ask("show peers dict p");
    let lines = shown
        .lines()
        .filter(|line| line.starts_with("    lineage="));
    let (alive, over): (Vec<&str>, Vec<&str>) = lines
        .filter(|line| line.contains(" node=node0 "))
        .partition(|line| line.contains(" alive=1 "));
    let heard_ms = over.iter().filter_map(|line| {
        let rest = line.split(" heard=").nth(1)?;
        rest.split("ms ").next()?.parse::<u64>().ok()
    });
    let heard_ms = heard_ms.min();
    let heard_ms = heard_ms.unwrap_or_else(|| panic!("nobody is over: {shown}"));
    alive.len() == 1 && heard_ms < LEASE_MS
}

/// A little less than a lease, by which it would come right without being told.
const LEASE_MS: u64 = 4_500;
