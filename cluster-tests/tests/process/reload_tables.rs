//! What was counted before a reload is there after it, and what old workers still count is added.

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::scrape::{samples, scrape};
use cluster_tests::server::Gate;
use cluster_tests::wait::{PATIENCE, until_true, until_within};
use cluster_tests::{Client, Launch, Proxy, Server, get};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::house::serve_supervised;
use crate::supervisor::{Load, edit, kill, master, worker, workers};

pub(crate) const TABLES: &str = "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  stick-table type ip size 10k expire 10m store conn_cnt,conn_cur,http_req_cnt,http_req_rate(600s),bytes_out_cnt,gpc0,gpt0
  tcp-request connection track-sc0 src table conns
  http-request track-sc1 src
  http-request sc-inc-gpc0(1)
  http-request return status 200 content-type text/plain string one if { path / }
  default_backend be
backend conns
  stick-table type ip size 10k expire 10m store conn_cnt,conn_cur
backend be
  server s1 {{s1}}
";

fn start(server: &Server) -> Proxy {
    Launch::new(&format!("{HEAD}{TABLES}"))
        .set("s1", server.addr())
        .supervised()
        .start()
}

/// Reloads, and returns the worker that serves from then on: the one before accepts nothing any more.
pub(crate) fn reload(proxy: &Proxy) -> u32 {
    let said = master(proxy).ask("reload");
    assert!(said.starts_with("Success=1\n--\n"), "{said}");
    worker(proxy)
}

pub(crate) fn value(proxy: &Proxy, table: &str, name: &str) -> i64 {
    let entry = proxy.cli().entry(table, "127.0.0.1");
    entry.map_or(-1, |entry| entry.get(name))
}

pub(crate) fn becomes(proxy: &Proxy, table: &str, name: &str, wanted: i64) {
    let mut last = 0;
    let seen = until_within(PATIENCE, || {
        last = value(proxy, table, name);
        (last == wanted).then_some(())
    });
    assert!(
        seen.is_some(),
        "{name} of {table} is {last}, not {wanted}: {}",
        proxy.stderr()
    );
}

#[test]
fn reloads_under_load_keep_every_count() {
    if haproxy_lacks("loses counts without peers") {
        return;
    }
    let server = Server::http();
    let proxy = start(&server);
    let load = Load::on(proxy.addr("fe"));
    for _ in 0..20 {
        reload(&proxy);
        load.moves();
    }
    let (answered, failed) = load.finish();
    assert_eq!(failed, 0);
    let answered = answered as i64;
    becomes(&proxy, "fe", "http_req_cnt", answered);
    becomes(&proxy, "fe", "gpc0", answered);
    becomes(&proxy, "fe", "conn_cnt", answered);
    becomes(&proxy, "fe", "conn_cur", 0);
    becomes(&proxy, "conns", "conn_cur", 0);
    assert_eq!(value(&proxy, "fe", "http_req_rate"), answered);
    until_true("old workers end", || workers(&proxy).len() == 1);
    assert_eq!(value(&proxy, "fe", "http_req_cnt"), answered);
    let answered = answered.to_string();
    let wanted = ["req_tot", "hrsp_2xx"].map(|column| (column, answered.as_str()));
    proxy.cli().stat_becomes("fe", "FRONTEND", &wanted);
    proxy.says("hand-off: ");
}

#[test]
fn open_connections_are_counted_by_whoever_serves() {
    if haproxy_lacks("loses gauges") {
        return;
    }
    let gate = Gate::default();
    let server = Server::half_a_download(&gate);
    let proxy = start(&server);
    let mut clients = Vec::new();
    for round in 1..=5 {
        for _ in 0..round {
            let mut client = Client::connect(proxy.addr("fe"));
            client.get("/long");
            clients.push(client);
        }
        becomes(&proxy, "conns", "conn_cur", clients.len() as i64);
        becomes(&proxy, "fe", "conn_cur", clients.len() as i64);
        reload(&proxy);
        assert_eq!(value(&proxy, "conns", "conn_cur"), clients.len() as i64);
        assert_eq!(value(&proxy, "fe", "conn_cur"), clients.len() as i64);
    }
    assert_eq!(workers(&proxy).len(), 6);
    // One client goes, of the oldest process.
    drop(clients.remove(0));
    becomes(&proxy, "conns", "conn_cur", clients.len() as i64);
    gate.open();
    let many = clients.len() as i64;
    for mut client in clients {
        let answer = client.response().expect("the whole answer");
        assert_eq!(answer.body.len(), 200_000);
    }
    until_true("old workers end", || workers(&proxy).len() == 1);
    becomes(&proxy, "conns", "conn_cur", 0);
    becomes(&proxy, "fe", "conn_cur", 0);
    assert_eq!(value(&proxy, "conns", "conn_cnt"), many + 1);
    let bytes = value(&proxy, "fe", "bytes_out_cnt");
    // The one that went away got at least half.
    assert!(
        bytes >= many * 200_000 && bytes <= (many + 1) * 200_200,
        "{bytes}"
    );
}

#[test]
fn a_download_is_counted_once_and_completely() {
    if haproxy_lacks("loses what old workers count") {
        return;
    }
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n");
        for _ in 0..4 {
            peer.write(vec![b'x'; 100_000]);
            held.wait();
        }
        true
    });
    let proxy = start(&server);
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/long");
    until_true("the server is asked", || server.accepted() == 1);
    let before = worker(&proxy);
    for _ in 0..3 {
        reload(&proxy);
        gate.open_once();
    }
    gate.open();
    let answer = client.response().expect("the whole answer");
    assert_eq!(answer.body.len(), 400_000);
    drop(client);
    until_true("old workers end", || workers(&proxy).len() == 1);
    assert_ne!(worker(&proxy), before);
    let once = value(&proxy, "fe", "bytes_out_cnt");
    assert!((400_000..400_200).contains(&once), "{once}");
    let bout = once.to_string();
    proxy
        .cli()
        .stat_becomes("be", "BACKEND", &[("bout", &bout)]);
}

#[test]
fn trackers_of_killed_workers_end() {
    if haproxy_lacks("loses gauges") {
        return;
    }
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        held.wait();
        peer.reply(200, "", "")
    });
    let proxy = start(&server);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.addr("fe"));
        client.get("/long");
        clients.push(client);
    }
    becomes(&proxy, "fe", "conn_cur", 3);
    let first = worker(&proxy);
    reload(&proxy);
    let second = worker(&proxy);
    let mut client = Client::connect(proxy.addr("fe"));
    client.get("/long");
    becomes(&proxy, "fe", "conn_cur", 4);
    reload(&proxy);
    becomes(&proxy, "fe", "conn_cur", 4);
    kill(second, Signal::KILL);
    becomes(&proxy, "fe", "conn_cur", 3);
    // The one that serves dies: the next one begins from nothing, but hears of what still runs.
    let serving = worker(&proxy);
    assert!(serving != first && serving != second);
    kill(serving, Signal::KILL);
    until_true("another worker serves", || worker(&proxy) != serving);
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    becomes(&proxy, "fe", "conn_cur", 3);
    becomes(&proxy, "conns", "conn_cur", 3);
    gate.open();
    drop(clients);
    becomes(&proxy, "fe", "conn_cur", 0);
    until_true("old workers end", || workers(&proxy).len() == 1);
}

#[test]
fn what_was_set_at_run_time_stays() {
    if haproxy_lacks("needs a state file") {
        return;
    }
    let server = Server::http();
    let proxy = start(&server);
    assert_eq!(get(proxy.addr("fe"), "/x").map(|r| r.status), Ok(200));
    let cli = proxy.cli();
    cli.ask("set table fe key 127.0.0.1 data.gpt0 7");
    cli.ask("set server be/s1 weight 3");
    cli.ask("set server be/s1 state maint");
    let said = master(&proxy).ask("reload");
    assert!(
        said.contains("set at run time, and so kept: ")
            && said.contains("weight 3 of be/s1 (configured: 1)"),
        "{said}"
    );
    assert_eq!(value(&proxy, "fe", "gpt0"), 7);
    assert_eq!(cli.stat("be", "s1", "status"), "MAINT");
    assert_eq!(get(proxy.addr("fe"), "/x").map(|r| r.status), Ok(503));
    cli.ask("set server be/s1 state ready");
    assert_eq!(cli.stat("be", "s1", "weight"), "3");
    reload(&proxy);
    assert_eq!(get(proxy.addr("fe"), "/x").map(|r| r.status), Ok(200));
    // Another definition: what still fits stays.
    edit(
        &proxy,
        "http_req_rate(600s),bytes_out_cnt,gpc0",
        "http_req_rate(60s),sess_cnt,gpc0",
    );
    let count = value(&proxy, "fe", "http_req_cnt");
    assert!(count >= 3);
    let said = master(&proxy).ask("reload");
    assert!(said.starts_with("Success=1\n"), "{said}");
    assert!(
        said.contains("table 'fe': not stored any more, or not in the same way: ")
            && said.contains("bytes_out_cnt"),
        "{said}"
    );
    assert_eq!(value(&proxy, "fe", "http_req_cnt"), count);
    assert_eq!(value(&proxy, "fe", "gpt0"), 7);
    edit(
        &proxy,
        "type ip size 10k expire 10m store conn_cnt,conn_cur,",
        "type ipv6 size 10k expire 10m store conn_cnt,conn_cur,",
    );
    let said = master(&proxy).ask("reload");
    assert!(
        said.contains("its keys are of type ipv6 now, and were ip"),
        "{said}"
    );
    assert_eq!(value(&proxy, "fe", "http_req_cnt"), -1);
}

/// A client may send its next request at the very moment at which its connection would be closed.
#[test]
fn idle_connections_are_served_once_more() {
    if haproxy_lacks("closes idle connections at once") {
        return;
    }
    let server = Server::http();
    let proxy = start(&server);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(proxy.addr("fe"))).collect();
    for client in &mut clients {
        assert!(client.get("/").response().is_ok_and(|r| !r.closes()));
    }
    reload(&proxy);
    reload(&proxy);
    let [first, second] = clients.as_mut_slice() else {
        panic!("two clients");
    };
    first.patience(std::time::Duration::from_millis(1500));
    assert!(!first.is_closed(), "it was closed under the client's feet");
    first.patience(PATIENCE);
    let answer = first.get("/").response().expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(answer.closes());
    assert!(first.is_closed());
    becomes(&proxy, "fe", "http_req_cnt", 3);
    becomes(&proxy, "conns", "conn_cur", 1);
    until_true("the worker between them ends", || {
        workers(&proxy).len() == 2
    });
    // When everything is to end, nobody waits for them.
    proxy.signal(Signal::USR1);
    until_true("it is closed", || second.is_closed());
}

#[test]
fn peers_notice_no_reload() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(3)
        .global("  admin bind unix@{{dir}}/admin.sock")
        .prepare();
    serve_supervised(&mut cluster, &[0, 1, 2]);
    let mut tally = Tally::default();
    cluster.node(0).hit("same", 1, &mut tally);
    cluster.settled(&Expected::of(&tally));
    let said = |index: usize| cluster.node(index).proxy().stderr();
    let before = [0, 1, 2].map(|index| said(index).len());
    let meets_all = |index: usize| {
        let shown = cluster.node(index).ask("show peers");
        shown.matches(" status=UP ").count() == 2 && !shown.contains(" incoming=- ")
    };
    let mut quiet = before;
    for round in 0..6 {
        for index in 0..3 {
            let node = cluster.node(index);
            node.hit("same", 10, &mut tally);
            node.hit(&format!("of{index}"), 3, &mut tally);
            node.hit(&format!("round{round}"), 2, &mut tally);
            if round % 3 == index || round == 5 {
                reload(node.proxy());
                node.hit("same", 4, &mut tally);
            }
        }
        if round == 2 {
            cluster.settled(&Expected::of(&tally));
        }
        // Whoever reloads while a new worker of another node dials it hangs up on that one.
        if round < 5 {
            until_true("all have met again", || (0..3).all(meets_all));
            quiet = [0, 1, 2].map(|index| said(index).len());
        }
    }
    cluster.settled(&Expected::of(&tally));
    // Nobody was taught anything again: the numbers went on.
    for index in 0..3 {
        let socket = cluster.node(index).proxy().dir().join("admin.sock");
        let page = scrape(&socket);
        let resyncs: Vec<f64> = samples(&page)
            .into_iter()
            .filter(|(name, _)| name.starts_with("remora_peers_resyncs_total{"))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(resyncs, [0.0], "{page}");
        let said = said(index);
        let mut since = said[before[index]..quiet[index]].lines();
        let complaint = since.find(|l| l.starts_with("[WARNING]") && l.contains("peers p:"));
        assert_eq!(complaint, None, "{said}");
    }
}

/// However often a survivor is reloaded, it neither counts a dead node's connections nor vouches for it.
#[test]
fn reloads_do_not_keep_a_dead_node_alive() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(3)
        .table("type string len 32 size 10k expire 1h store conn_cur")
        .append(
            "frontend held\n  bind 127.0.0.1:{{port:held}}\n  timeout client 1h\n  tcp-request connection track-sc0 str(7x) table t\n  http-request return status 200\n",
        )
        .prepare();
    serve_supervised(&mut cluster, &[0]);
    let held = std::net::TcpStream::connect(cluster.node(2).proxy().addr("held"))
        .expect("the frontend accepts");
    until_true("all see the connection", || {
        (0..3).all(|node| cluster.node(node).value("7x", "conn_cur") == 1)
    });
    cluster.node_mut(2).kill();
    let mut counted = [0; 2];
    let over = until_within(PATIENCE, || {
        reload(cluster.node(0).proxy());
        counted = [0, 1].map(|node| cluster.node(node).value("7x", "conn_cur"));
        (counted == [0, 0]).then_some(())
    });
    assert!(over.is_some(), "it is still counted: {counted:?}");
    drop(held);
}

/// A table that is not shared for a while and then is again counts nothing twice.
#[test]
fn peers_are_taken_off_a_table_and_put_back() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(2).prepare();
    serve_supervised(&mut cluster, &[0]);
    let mut tally = Tally::default();
    for round in 0..2 {
        for index in 0..2 {
            cluster.node(index).hit("a", 3, &mut tally);
            cluster
                .node(index)
                .hit(&format!("round{round}"), 3, &mut tally);
        }
        cluster.settled(&Expected::of(&tally));
        let node = cluster.node(0);
        let before = node.value("a", "gpc0");
        edit(node.proxy(), " peers p\n", " #peers p\n");
        reload(node.proxy());
        assert!(node.value("a", "gpc0") < before, "it is shared");
        node.hit("a", 1, &mut tally);
        node.hit("meanwhile", 2, &mut tally);
        // What has to be known goes through more than one process.
        reload(node.proxy());
        node.hit("a", 1, &mut tally);
        edit(node.proxy(), " #peers p\n", " peers p\n");
        reload(node.proxy());
        cluster.node(0).hit("a", 1, &mut tally);
        cluster.node(1).hit("a", 1, &mut tally);
        cluster.settled(&Expected::of(&tally));
    }
}

/// What an old worker counts after everything was told to finish reaches the peers.
#[test]
fn a_soft_stop_waits_for_what_old_workers_count() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::with(move |_, peer| {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n");
        peer.write(vec![b'x'; 100_000]);
        held.wait();
        peer.write(vec![b'x'; 300_000])
    });
    let mut cluster = Spec::of(2)
        .append(&format!(
            "
frontend down
  bind unix@{{{{dir}}}}/down.sock
  http-request track-sc0 str(down) table downs
  default_backend origin
backend downs
  stick-table type string size 100 expire 10m store conn_cur,bytes_out_cnt peers p
backend origin
  server s1 {}
",
            server.addr()
        ))
        .prepare();
    serve_supervised(&mut cluster, &[0, 1]);
    let entry = |name| {
        let entry = cluster.node(1).proxy().cli().entry("downs", "down");
        entry.map_or(-1, |entry| entry.get(name))
    };
    let proxy = cluster.node(0).proxy();
    let mut client = Client::connect_unix(&proxy.dir().join("down.sock"));
    client.get("/");
    until_true("the peer hears of it", || entry("conn_cur") == 1);
    reload(cluster.node(0).proxy());
    proxy.signal(Signal::USR1);
    until_true("the worker that served stops", || {
        proxy.stderr().contains("Proxy down stopped")
    });
    assert_eq!(entry("conn_cur"), 1, "{}", proxy.stderr());
    gate.open();
    let answer = client.response().expect("the whole answer");
    assert_eq!(answer.body.len(), 400_000);
    drop(client);
    until_true("all of it is known", || {
        entry("conn_cur") == 0 && (400_000..400_200).contains(&entry("bytes_out_cnt"))
    });
    assert!(
        cluster
            .node_mut(0)
            .end_with(Signal::USR1)
            .contains("All workers exited")
    );
}
