//! Tracking: which layer, which moment counts what, who wins a slot, and what readers give where nothing is.

use crate::support::*;

const ALL: &str = "type ip size 10 expire 10000 store \
    gpc0,conn_cnt,conn_cur,sess_cnt,http_req_cnt,http_err_cnt,bytes_in_cnt,bytes_out_cnt,http_fail_cnt";

/// A frontend with table `t` (0), a backend with table `b` (1), and a third table `s` of another key type.
fn setup(configure: impl FnOnce(&Names, &mut ProxyRules, &mut ProxyRules)) -> World {
    let mut world = world(
        vec![
            table(&format!("t {ALL}")),
            table(&format!("b {ALL}")),
            table("s type string size 10 store gpc0"),
        ],
        vec![
            proxy("fe", "frontend", Some(0)),
            proxy("be", "backend", Some(1)),
        ],
    );
    let mut names = Names::of(&world);
    names.own_table = Some(TableId(0));
    let (mut front, mut back) = (ProxyRules::default(), ProxyRules::default());
    front.default_backend = Some(ProxyId(1));
    configure(&names, &mut front, &mut back);
    world.proxies[0].rules = front;
    world.proxies[1].rules = back;
    world
}

const IP: &str = "192.0.2.1";

#[test]
fn connection_trackers_count_connections_and_all_their_requests() {
    let world = setup(|n, front, _| front.tcp_connection = n.rules(&["track-sc0 src"]));
    let client = Client::connect(&world, IP, 0).unwrap();
    client.request(&mut get("/"), 200, 1);
    client.request(&mut get("/"), 404, 2);
    client.request(&mut get("/"), 502, 3);
    client.request(&mut get("/"), 501, 4);
    track::count_bytes_in(&world, &client.conn, Some(&client.stream), 300, 5);
    track::count_bytes_out(&world, &client.conn, Some(&client.stream), 5000, 5);
    assert_eq!(
        row(&world, 0, IP, 6),
        "gpc0=0 conn_cnt=1 conn_cur=1 sess_cnt=1 http_req_cnt=4 http_err_cnt=1 bytes_in_cnt=300 \
         bytes_out_cnt=5000 http_fail_cnt=1"
    );
    client.close(7);
    assert!(row(&world, 0, IP, 8).contains("conn_cnt=1 conn_cur=0"));
}

#[test]
fn a_refused_connection_counts_but_is_no_session() {
    let world = setup(|n, front, _| {
        front.tcp_connection = n.rules(&["track-sc0 src", "reject if sc0_conn_cnt gt 2"]);
    });
    for i in 0..2 {
        Client::connect(&world, IP, i).unwrap().close(i);
    }
    for i in 2..5 {
        assert_eq!(Client::connect(&world, IP, i).err().unwrap(), "reject");
    }
    let row = row(&world, 0, IP, 9);
    assert!(row.contains("conn_cnt=5 conn_cur=0 sess_cnt=2"), "{row}");
}

#[test]
fn the_moment_a_request_is_counted() {
    // (what tracks, does a content rule see the request, does a http-request rule see it)
    let cases = [
        ("connection", "0", "1"),
        ("content", "0", "1"),
        ("http", "-", "1"),
    ];
    for (layer, in_content, in_http) in cases {
        let world = setup(|n, front, _| {
            let track = "track-sc0 src";
            let mut content = vec!["set-var(txn.c) sc0_http_req_cnt"];
            let mut http = vec!["set-var(txn.h) sc0_http_req_cnt"];
            match layer {
                "connection" => front.tcp_connection = n.rules(&[track]),
                "content" => content.insert(0, track),
                _ => http.insert(0, track),
            }
            front.tcp_content = n.rules(&content);
            front.http_request = n.rules(&http);
        });
        let names = Names::of(&world);
        let (c, h) = (names.var("txn.c"), names.var("txn.h"));
        let client = Client::connect(&world, IP, 0).unwrap();
        client.begin(&mut get("/"), 1);
        let get = |var: remora_core::rule::vars::VarRef| {
            let txn = client.stream.txn.borrow();
            txn.get(var.name)
                .map_or("-".to_string(), |v| show(Outcome::Value(v.clone())))
        };
        assert_eq!(get(c), in_content, "{layer}");
        assert_eq!(get(h), in_http, "{layer}");
        client.close(2);
        assert!(row(&world, 0, IP, 3).contains("http_req_cnt=1"), "{layer}");
    }
}

#[test]
fn backend_trackers_are_counted_when_the_backend_begins() {
    let world = setup(|n, front, back| {
        front.http_request = n.rules(&["track-sc0 src"]);
        back.tcp_content = n.rules(&["track-sc1 src table b", "reject if path_beg /rejected"]);
        back.http_request = n.rules(&["deny if path_beg /denied"]);
    });
    let client = Client::connect(&world, IP, 0).unwrap();
    assert_eq!(
        client.request(&mut get("/rejected"), 200, 1),
        "reject by be"
    );
    // the frontend's tracker counted it, the backend's did not get that far
    assert!(row(&world, 0, IP, 2).contains("http_req_cnt=1 http_err_cnt=0"));
    assert!(row(&world, 1, IP, 2).contains("conn_cnt=1 conn_cur=0 sess_cnt=0 http_req_cnt=0"));
    assert_eq!(client.request(&mut get("/denied"), 200, 3), "deny by be");
    assert!(row(&world, 0, IP, 4).contains("http_req_cnt=2 http_err_cnt=1"));
    assert!(row(&world, 1, IP, 4).contains("http_req_cnt=1 http_err_cnt=1"));
}

#[test]
fn what_is_a_clients_error() {
    for (action, errors) in [
        ("deny", 1),
        ("tarpit", 1),
        ("return", 0),
        ("reject", 0),
        ("silent-drop", 0),
    ] {
        let world = setup(|n, front, _| front.http_request = n.rules(&["track-sc0 src", action]));
        let client = Client::connect(&world, IP, 0).unwrap();
        client.request(&mut get("/"), 200, 1);
        let row = row(&world, 0, IP, 2);
        assert!(
            row.contains(&format!("http_req_cnt=1 http_err_cnt={errors}")),
            "{action}: {row}"
        );
        client.close(3);
    }
}

#[test]
fn tracking_by_http_response_counts_the_answer_at_once() {
    let world = setup(|n, _, back| back.http_response = n.rules(&["track-sc0 src"]));
    let client = Client::connect(&world, IP, 0).unwrap();
    client.request(&mut get("/"), 404, 1);
    client.request(&mut get("/"), 503, 2);
    client.request(&mut get("/"), 200, 3);
    let row = row(&world, 0, IP, 4);
    assert!(row.contains("http_req_cnt=3 http_err_cnt=1"), "{row}");
    assert!(row.contains("http_fail_cnt=1"), "{row}");
}

#[test]
fn the_first_to_track_a_slot_wins() {
    let world = setup(|n, front, _| {
        front.tcp_connection = n.rules(&["track-sc0 src"]);
        front.http_request = n.rules(&[
            "track-sc0 ipv4(10.0.0.1)", // the connection has it
            "track-sc1 ipv4(10.0.0.2)",
            "track-sc1 ipv4(10.0.0.3)", // taken just now
        ]);
    });
    let client = Client::connect(&world, IP, 0).unwrap();
    for i in 0..2 {
        client.begin(&mut get("/"), 1 + i);
        assert_eq!(client.show("sc0_key", 2), IP);
        assert_eq!(client.show("sc_key(1)", 2), "10.0.0.2");
        assert_eq!(client.show("sc2_tracked", 2), "0");
        client.end(3);
        // the request's slot is free again, the connection's is not
        assert_eq!(client.show("sc1_tracked", 4), "0");
        assert_eq!(client.show("sc0_tracked", 4), "1");
    }
    assert_eq!(row(&world, 0, "10.0.0.1", 5), "absent");
    assert_eq!(row(&world, 0, "10.0.0.3", 5), "absent");
    assert!(row(&world, 0, "10.0.0.2", 5).contains("conn_cnt=2 conn_cur=0"));
}

#[test]
fn a_full_table_fails_open() {
    let mut world = setup(|_, _, _| {});
    world.tables[0] = table("t type ip size 1 store http_req_cnt");
    let mut names = Names::of(&world);
    names.own_table = Some(TableId(0));
    world.proxies[0].rules.tcp_connection = names.rules(&["track-sc0 src"]);
    world.proxies[0].rules.http_request = names.rules(&["deny if sc0_http_req_cnt ge 0"]);
    let first = Client::connect(&world, "192.0.2.1", 0).unwrap();
    let second = Client::connect(&world, "192.0.2.2", 1).unwrap();
    assert_eq!(first.request(&mut get("/"), 200, 2), "deny by fe");
    assert_eq!(second.show("sc0_tracked", 3), "0");
    assert_eq!(second.show("sc0_http_req_cnt", 3), "-");
    assert_eq!(second.request(&mut get("/"), 200, 4), "-> be 200");
    first.close(5);
    second.close(5);
}

#[test]
fn where_nothing_is() {
    let world = setup(|n, front, _| front.tcp_connection = n.rules(&["track-sc0 src"]));
    let client = Client::connect(&world, IP, 0).unwrap();
    let cases = [
        // not tracked
        ("sc1_conn_cnt", "-"),
        ("sc1_conn_cnt(t)", "-"),
        ("sc1_tracked", "0"),
        ("sc1_key", "-"),
        ("sc1_inc_gpc0", "-"),
        // tracked, stored / not stored
        ("sc0_conn_cnt", "1"),
        ("sc0_gpc1_rate", "-"),
        ("sc_get_gpc(0,0)", "-"),
        ("sc0_trackers", "1"),
        // another table: not there yet, other key type
        ("sc0_conn_cnt(b)", "0"),
        ("sc0_gpc1_rate(b)", "0"),
        ("sc0_tracked(b)", "0"),
        ("sc0_get_gpc0(s)", "-"),
        // never created by a slot's reader
        ("sc0_inc_gpc0(b)", "0"),
        ("src_conn_cnt(b)", "0"),
        // src: key there / not there, stored or not
        ("src_conn_cnt(t)", "1"),
        ("src_gpc1_rate(t)", "-"),
        ("src_gpc1_rate(b)", "0"),
        ("ipv4(10.9.9.9),table_conn_cnt(t)", "0"),
        ("ipv4(10.9.9.9),in_table(t)", "0"),
        ("src,in_table(t)", "1"),
        ("src,table_conn_cnt(t)", "1"),
        ("src,table_trackers(t)", "1"),
        ("src,table_gpt0(t)", "-"),
        ("ipv4(10.9.9.9),table_expire(t)", "-"),
        ("ipv4(10.9.9.9),table_expire(t,77)", "77"),
        ("src,table_expire(t)", "10000"),
        ("src,table_idle(t)", "0"),
        ("src,table_server_id(t)", "-"),
        // no key at all
        ("ipv6(2001:db8::1),table_conn_cnt(t)", "0"),
        ("ipv6(2001:db8::1),in_table(t)", "0"),
        ("str(x),table_conn_cnt(t)", "0"),
        // these create
        ("src_inc_gpc0(b)", "1"),
        ("src_inc_gpc0(b)", "2"),
        ("src_clr_gpc0(b)", "2"),
        ("src_get_gpc0(b)", "0"),
        ("sc0_inc_gpc0(b)", "1"),
        ("src_updt_conn_cnt(b)", "1"),
        ("ipv4(10.9.9.9),table_inc_gpc0(t)", "1"),
        ("ipv4(10.9.9.9),table_clr_gpc0(t)", "1"),
        ("table_cnt(t)", "2"),
        ("table_avl(t)", "8"),
    ];
    for (text, expected) in cases {
        assert_eq!(client.show(text, 0), expected, "{text}");
    }
    client.close(1);
}

#[test]
fn array_counters_and_their_old_names() {
    let mut world = setup(|_, _, _| {});
    world.tables[0] = table("t type ip size 9 store gpc(3),gpc_rate(3,1000),gpt(2)");
    let mut names = Names::of(&world);
    names.own_table = Some(TableId(0));
    world.proxies[0].rules.tcp_connection = names.rules(&[
        "track-sc0 src",
        "sc-inc-gpc0(0)",
        "sc-inc-gpc(2,0)",
        "sc-add-gpc(1,0) 5",
        "sc-add-gpc(1,0) int(4294967298)", // cut to 32 bits: 2
        "sc-add-gpc(9,0) 1",               // not stored: nothing
        "sc-inc-gpc(0,2)",                 // not tracked: nothing
        "sc-set-gpt0(0) 7",
    ]);
    let client = Client::connect(&world, IP, 0).unwrap();
    assert_eq!(
        row(&world, 0, IP, 0),
        "gpt[0]=7 gpt[1]=0 gpc[0]=1 gpc[1]=7 gpc[2]=1 gpc_rate[0]=1 gpc_rate[1]=7 gpc_rate[2]=1"
    );
    for (text, expected) in [
        ("sc0_get_gpc0", "1"),
        ("sc0_get_gpc1", "7"),
        ("sc_get_gpc(2,0)", "1"),
        ("sc_gpc_rate(1,0)", "7"),
        ("sc0_gpc0_rate", "1"),
        ("sc0_get_gpt0", "7"),
        ("sc_get_gpt(1,0)", "0"),
        ("sc_get_gpt(2,0)", "-"),
        ("sc_inc_gpc(2,0)", "2"),
        ("sc_clr_gpc(2,0)", "2"),
        ("src_get_gpc(2,t)", "0"),
        ("src,table_gpc(1,t)", "7"),
        ("src,table_gpc1(t)", "7"),
    ] {
        assert_eq!(client.show(text, 0), expected, "{text}");
    }
    client.close(1);
}

#[test]
fn increments_happen_when_their_term_is_reached() {
    let world = setup(|n, front, _| {
        front.tcp_connection = n.rules(&["track-sc0 src"]);
        front.http_request = n.rules(&[
            "deny if path_beg /bad && sc0_inc_gpc0 gt 2",
            "return if path_beg /clear && sc0_clr_gpc0 ge 0",
            // decided by its first half: the second is not evaluated
            "return if path_beg /ok || sc0_inc_gpc0 gt 1000",
        ]);
    });
    let client = Client::connect(&world, IP, 0).unwrap();
    let gpc0 = || client.show("sc0_get_gpc0", 0);
    for (path, said, count) in [
        ("/ok", "return by fe", "0"),
        ("/bad", "-> be 200", "2"), // the first rule's increment, then the last one's
        ("/bad", "deny by fe", "3"),
        ("/clear", "return by fe", "0"),
        ("/x", "-> be 200", "1"),
    ] {
        assert_eq!(client.request(&mut get(path), 200, 1), said, "{path}");
        assert_eq!(gpc0(), count, "{path}");
    }
    client.close(2);
}

#[test]
fn readers_do_not_refresh_writers_do() {
    let world = setup(|_, _, _| {});
    let client = Client::connect(&world, IP, 0).unwrap();
    assert_eq!(client.show("src_inc_gpc0(t)", 0), "1");
    assert_eq!(client.show("src_get_gpc0(t)", 6_000), "1");
    assert_eq!(client.show("src,table_expire(t)", 6_000), "4000");
    assert_eq!(client.show("src_inc_gpc0(t)", 9_999), "2");
    assert_eq!(client.show("src,table_expire(t)", 9_999), "10000");
    assert_eq!(client.show("src_get_gpc0(t)", 19_999), "0"); // expired
    client.close(20_000);
}
