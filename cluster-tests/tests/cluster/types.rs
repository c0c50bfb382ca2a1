//! Every kind of data adds up, or agrees, across nodes.

use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
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
            .with("a", "gpc[0]", 10)
            .with("a", "gpc[2]", 100)
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
