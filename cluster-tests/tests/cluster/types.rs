//! Every kind of data adds up, or agrees, across nodes.

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::{Dump, Expected};
use cluster_tests::hits::{Entrance, Hits, Tally};
use cluster_tests::wait::until_true;
use cluster_tests::{Client, Server};

/// The value of `column` for `key` in a table of every node.
fn everywhere(cluster: &Cluster, table: &str, key: &str, column: &str) -> Vec<i64> {
    (0..cluster.len())
        .map(|node| {
            let entry = cluster.node(node).proxy().cli().entry(table, key);
            entry.map_or(0, |entry| entry.get(column))
        })
        .collect()
}

/// Counters of requests, errors, failures, bytes and general-purpose ones, and their rates.
#[test]
fn counters_and_rates_add_up() {
    let server = Server::http();
    let cluster = Spec::of(2)
        .table("type string len 32 size 1k expire 1h store gpt(2),gpc(3),gpc_rate(3,1h),conn_cnt,conn_rate(1h),conn_cur,sess_cnt,http_req_cnt,http_req_rate(1h),http_err_cnt,http_err_rate(1h),http_fail_cnt,http_fail_rate(1h),bytes_in_cnt,bytes_in_rate(1h),bytes_out_cnt,bytes_out_rate(1h)")
        .rules("  http-request sc-inc-gpc(0,0)\n  http-request sc-add-gpc(2,0) 10\n  http-request deny if { url_param(e) 1 }")
        .append(&format!(
            "frontend through\n  bind 127.0.0.1:{{{{port:through}}}}\n  http-request track-sc0 url_param(k) table t\n  default_backend be\nbackend be\n  server s1 {}\n",
            server.addr()
        ))
        .start();
    let ask = |node: usize, path: &str, status: u16| {
        let Entrance::Tcp(port) = cluster.node(node).entrance() else {
            unreachable!("not in a namespace");
        };
        let mut client = Client::connect(if path.starts_with("/status/") {
            cluster.node(node).proxy().addr("through")
        } else {
            ([127, 0, 0, 1], port).into()
        });
        assert_eq!(client.get(path).response().map(|r| r.status), Ok(status));
    };
    let request = Hits::request("a").len() as i64;
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("a", 5, &mut tally);
        ask(node, "/?k=e&e=1", 403);
        ask(node, "/status/404?k=e", 404);
        ask(node, "/status/500?k=f", 500);
    }
    cluster.settled(
        &Expected::nothing()
            .with("a", "http_req_cnt", 10)
            .with("a", "http_req_rate", 10)
            .with("a", "conn_cnt", 10)
            .with("a", "conn_rate", 10)
            .with("a", "conn_cur", 0)
            .with("a", "gpc0", 10)
            .with("a", "gpc2", 100)
            .with("a", "http_err_cnt", 0)
            .with("a", "bytes_in_cnt", 10 * request)
            .with("a", "bytes_in_rate", 10 * request)
            .with("e", "http_err_cnt", 4)
            .with("e", "http_err_rate", 4)
            .with("f", "http_fail_cnt", 2)
            .with("f", "http_fail_rate", 2)
            .with("f", "http_err_cnt", 0),
    );
}

/// Open connections of all nodes count together, here and there, up to the moment they end or their node dies.
#[test]
fn open_connections_add_up() {
    let mut cluster = Spec::of(3)
        .append("frontend held\n  bind 127.0.0.1:{{port:held}}\n  timeout client 1h\n  tcp-request connection track-sc0 src table c\n  tcp-request connection reject if { sc0_conn_cur gt 6 }\n  http-request return status 200\nbackend c\n  stick-table type ip size 1k expire 1h store conn_cur,conn_cnt peers p\n")
        .start();
    let connect = |cluster: &Cluster, node: usize| {
        std::net::TcpStream::connect(cluster.node(node).proxy().addr("held")).expect("accepts")
    };
    let mut open = Vec::new();
    for node in 0..3 {
        open.push([connect(&cluster, node), connect(&cluster, node)]);
    }
    let current = |cluster: &Cluster, nodes: &[usize], wanted: i64| {
        nodes.iter().all(|&node| {
            let entry = cluster.node(node).proxy().cli().entry("c", "127.0.0.1");
            entry.map_or(0, |entry| entry.get("conn_cur")) == wanted
        })
    };
    until_true("six open connections", || current(&cluster, &[0, 1, 2], 6));
    // The limit holds for the cluster: a seventh is refused wherever it comes.
    for node in 0..3 {
        let mut seventh = Client::connect(cluster.node(node).proxy().addr("held"));
        assert!(
            seventh.get("/").response().is_err(),
            "a seventh on node {node}"
        );
    }
    // A node that is killed before it has told of its last event takes that one with it.
    until_true("all attempts are known", || {
        everywhere(&cluster, "c", "127.0.0.1", "conn_cnt") == [9; 3]
    });
    drop(open.pop());
    until_true("two have ended", || current(&cluster, &[0, 1, 2], 4));
    cluster.node_mut(1).kill();
    until_true("a dead node's connections vanish", || {
        current(&cluster, &[0, 2], 2)
    });
    cluster.node_mut(1).start();
    until_true("the newcomer knows", || current(&cluster, &[0, 1, 2], 2));
    drop(open);
    until_true("none", || current(&cluster, &[0, 1, 2], 0));
    let counts = everywhere(&cluster, "c", "127.0.0.1", "conn_cnt");
    assert_eq!(counts, [9, 9, 9]);
}

/// Tags agree: the last one set wins on every node.
#[test]
fn tags_agree() {
    let cluster = Spec::of(3)
        .table("type string len 32 size 1k expire 1h store gpt0,http_req_cnt")
        .rules("  http-request sc-set-gpt0(0) int(7) if { url_param(tag) 7 }\n  http-request sc-set-gpt0(0) int(8) if { url_param(tag) 8 }")
        .start();
    for (node, tag) in [(0, 7), (1, 8), (2, 7), (0, 8)] {
        let Entrance::Tcp(port) = cluster.node(node).entrance() else {
            unreachable!("not in a namespace");
        };
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        let answer = client.get(&format!("/?k=a&tag={tag}")).response();
        assert_eq!(answer.map(|r| r.status), Ok(200));
        until_true("the tag is everywhere", || {
            everywhere(&cluster, "t", "a", "gpt0") == [tag; 3]
        });
    }
}

/// The server a client sticks to is the same on every node.
#[test]
fn sticky_servers_agree() {
    let cluster = Spec::of(3)
        .table("type string len 32 size 1k expire 1h store server_id,http_req_cnt")
        .start();
    for (node, id) in [(0, 7), (1, 3), (2, 12), (0, 1)] {
        cluster
            .node(node)
            .order(&format!("set table t key a data.server_id {id}"));
        until_true("the server is the same everywhere", || {
            everywhere(&cluster, "t", "a", "server_id") == [id; 3]
        });
    }
}

/// Arrays of tags, counters and rates, element by element, and the server of a name.
#[test]
fn arrays_agree_element_by_element() {
    let cluster = Spec::of(2)
        .table("type string len 32 size 1k expire 1h store gpt(3),gpc(3),gpc_rate(3,1h),server_key,http_req_cnt")
        .rules("  http-request sc-inc-gpc(0,0)\n  http-request sc-add-gpc(2,0) 10\n  http-request sc-set-gpt(1,0) int(7) if { url_param(k) a }\n  http-request sc-set-gpt(2,0) int(9) if { url_param(k) b }")
        .start();
    let mut tally = Tally::default();
    for node in 0..2 {
        cluster.node(node).hit("a", 5, &mut tally);
        cluster.node(node).hit("b", 1 + node as u64, &mut tally);
    }
    let mut expected = Expected::nothing();
    for (key, count, tags) in [("a", 10, [0, 7, 0]), ("b", 3, [0, 0, 9])] {
        for (element, times) in [1, 0, 10].into_iter().enumerate() {
            expected = expected
                .with(key, &format!("gpc{element}"), count * times)
                .with(key, &format!("gpc{element}_rate"), count * times)
                .with(key, &format!("gpt{element}"), tags[element]);
        }
        expected = expected.with(key, "http_req_cnt", count);
    }
    let dumps = cluster.settled(&expected);
    for column in ["gpc2", "gpc2_rate", "gpt1", "server_key"] {
        let there = |dump: &Dump| {
            dump.entries["a"]
                .keys()
                .any(|name| name.starts_with(column))
        };
        assert!(dumps.iter().all(there), "{column}");
    }
    for (node, server) in [(0, "alpha"), (1, "beta"), (1, "gamma"), (0, "alpha")] {
        cluster
            .node(node)
            .order(&format!("set table t key a data.server_key {server}"));
        until_true("the server is the same everywhere", || {
            cluster
                .settled(&expected)
                .iter()
                .all(|dump| dump.entries["a"].get("server_key").map(String::as_str) == Some(server))
        });
    }
    cluster.node(1).order("set table t key b data.gpt[0] 4");
    cluster.settled(&expected.with("b", "gpt0", 4));
}

/// When nobody counts any more, the sum of a rate falls to nothing at all nodes alike.
#[test]
fn rates_fade_alike() {
    let cluster = Spec::of(3)
        .table("type string len 32 size 1k expire 1h store gpc0,http_req_rate(3s)")
        .start();
    let mut tally = Tally::default();
    for node in 0..3 {
        cluster.node(node).hit("a", 4, &mut tally);
    }
    until_true("all have heard of all", || {
        everywhere(&cluster, "t", "a", "gpc0") == [12; 3]
    });
    let rate = |node: usize| cluster.node(node).value("a", "http_req_rate");
    until_true("all are down to nothing", || {
        // It only falls: what others say in between lies in between, but for what the way took.
        let (before, others, after) = (rate(0), [rate(1), rate(2)], rate(0));
        assert!(before <= 12, "{before}");
        for other in others {
            let between = after - 1..=before + 1;
            assert!(between.contains(&other), "{before} {others:?} {after}");
        }
        (before, others, after) == (0, [0; 2], 0)
    });
    assert_eq!(everywhere(&cluster, "t", "a", "gpc0"), [12; 3]);
}

/// Lines that are disabled are not dialed, a section of which nothing else is left counts alone, and one that is disabled shares
/// nothing.
#[test]
fn what_is_disabled_shares_nothing() {
    let second = "peers q\n  disabled\n  server node0 127.0.0.1:1\n  server node1 127.0.0.1:2\nbackend u\n  stick-table type string len 32 size 1k store gpc0 peers q\n";
    let spec = Spec::of(3).append(second).peers("  learn-timeout 10m");
    // Nodes 0 and 1 share, node 2 is disabled at both, and so are they at node 2.
    let mut cluster = spec.options_on(2, "", "disabled").prepare();
    for node in 0..2 {
        cluster.node_mut(node).reconfigure(|config| {
            let lines = config.lines().map(|line| {
                let third = line.trim_start().starts_with("server node2 ");
                format!("{line}{}\n", if third { " disabled" } else { "" })
            });
            lines.collect()
        });
    }
    (0..3).for_each(|node| cluster.node_mut(node).spawn());
    (0..3).for_each(|node| cluster.node_mut(node).ready());
    for node in 0..3 {
        cluster.node(node).hit("a", 3, &mut Tally::default());
        cluster.node(node).order("set table u key x data.gpc0 1");
    }
    until_true("two of them share", || {
        everywhere(&cluster, "t", "a", "gpc0") == [6, 6, 3]
    });
    for node in 0..3 {
        let shown = cluster.node(node).ask("show peers");
        assert!(shown.contains("id=q disabled=1"), "{shown}");
        assert_eq!(
            shown.matches("(remote,").count(),
            [1, 1, 0][node],
            "{shown}"
        );
    }
    assert_eq!(everywhere(&cluster, "u", "x", "gpc0"), [1; 3]);
}
