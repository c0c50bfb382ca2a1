//! Fetches about proxies, servers, the connection and the process; variables' conditions; aliases.

use std::sync::atomic::Ordering::Relaxed;

use crate::support::*;
use remora_core::rule::expr::Alias;
use remora_core::rule::sample::Sample;
use remora_core::rule::vars::{self, VarConditions};

fn server(name: &str, maxconn: u32, maxqueue: u32, backup: bool) -> ServerState {
    let server = ServerState {
        name: name.to_string(),
        id: 1,
        weight_initial: 10,
        backup,
        maxconn: maxconn.into(),
        maxqueue,
        stats: Default::default(),
    };
    server.stats.weight.store(10, Relaxed);
    server
}

#[test]
fn live_counters() {
    let mut w = world(
        Vec::new(),
        vec![proxy("fe", "listen", None), proxy("be", "backend", None)],
    );
    w.proxies[0].servers = Box::new([server("own", 0, 0, false)]);
    w.proxies[1].servers = Box::new([
        server("a", 10, 4, false),
        server("b", 20, 4, false),
        server("c", 5, 4, true),
    ]);
    let be = &w.proxies[1];
    be.servers[0].stats.scur.store(7, Relaxed);
    be.servers[0].stats.qcur.store(3, Relaxed);
    be.servers[1].stats.scur.store(25, Relaxed); // above its limit: nothing is free
    be.back.qcur.store(2, Relaxed);
    be.back.scur.store(33, Relaxed);
    w.proxies[0].front.scur.store(9, Relaxed);
    w.proxies[0].front.sess_rate.add(5, 1000);
    w.proxies[0].bind_conns[0].store(4, Relaxed);
    w.process.curr_conns.store(12, Relaxed);
    let client = Client::connect(&w, "192.0.2.1", 1000).unwrap();
    for (text, expected) in [
        ("nbsrv(be)", "2"),
        ("nbsrv", "1"),
        ("str(be),nbsrv", "2"),
        ("str(nosuch),nbsrv", "-"),
        ("queue(be)", "5"),
        ("avg_queue(be)", "3"),
        ("be_conn(be)", "33"),
        ("be_conn_free(be)", "3"),
        ("be_conn_free", "-1"),
        ("connslots(be)", "17"), // 3 + 0 + 5 places, 1 + 4 + 4 in queues
        ("fe_conn", "9"),
        ("fe_conn(fe)", "9"),
        ("fe_sess_rate", "5"),
        ("fe_req_rate", "0"),
        ("act_conn", "12"),
        ("dst_conn", "4"),
        ("fe_name", "fe"),
        ("be_name", "fe"),
        ("srv_name", "-"),
        ("so_id", "1"),
        ("so_name", "-"),
        ("hostname", "box"),
        ("src_is_local", "0"),
        ("dst_is_local", "1"),
        ("fc_src", "192.0.2.1"),
        ("date", "1795000000"),
        ("date(-1)", "1794999999"),
        ("date(0,ms)", "1795000000123"),
        ("date_us", "123456"),
        ("str(be/a),srv_queue", "3"),
    ] {
        assert_eq!(client.show(text, 1000), expected, "{text}");
    }
    // a server that goes away
    be.servers[0].stats.admin.store(1, Relaxed);
    be.servers[1].stats.weight.store(0, Relaxed);
    assert_eq!(client.show("nbsrv(be)", 1000), "1", "the backup");
    be.servers[2].stats.admin.store(1, Relaxed);
    assert_eq!(client.show("nbsrv(be)", 1000), "0");
    assert_eq!(
        client.show("avg_queue(be)", 1000),
        "10",
        "twice the queue without servers"
    );
    client.stream.backend.set(Some(ProxyId(1)));
    client.stream.server.set(Some(2));
    assert_eq!(client.show("be_name", 1000), "be");
    assert_eq!(client.show("srv_name", 1000), "c");
}

#[test]
fn random_numbers_stay_in_range_and_uuids_are_version_4() {
    let w = world(Vec::new(), vec![proxy("fe", "listen", None)]);
    let client = Client::connect(&w, "192.0.2.1", 0).unwrap();
    let mut seen = [0; 10];
    for _ in 0..1000 {
        let n: usize = client.show("rand(10)", 0).parse().unwrap();
        seen[n] += 1;
    }
    assert!(seen.iter().all(|n| *n > 40), "{seen:?}");
    let uuid = client.show("uuid", 0);
    let parts: Vec<&str> = uuid.split('-').collect();
    assert_eq!(
        parts.iter().map(|p| p.len()).collect::<Vec<_>>(),
        [8, 4, 4, 4, 12]
    );
    assert!(
        parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]),
        "{uuid}"
    );
    assert_ne!(uuid, client.show("uuid", 0));
}

#[test]
fn conditions_of_set_var() {
    let w = world(Vec::new(), vec![proxy("fe", "listen", None)]);
    let names = Names::of(&w);
    let client = Client::connect(&w, "192.0.2.1", 0).unwrap();
    let cx = cx(&w, &client.conn, Some(&client.stream), 0);
    let var = names.var("txn.v");
    let text = |t: &str| Sample::Str(t.as_bytes().to_vec().into());
    // (condition, value before, new value, whether it is set)
    let cases = [
        ("ifexists", None, text("n"), false),
        ("ifexists", Some(text("o")), text("n"), true),
        ("ifnotexists", None, text("n"), true),
        ("ifnotexists", Some(text("o")), text("n"), false),
        ("ifempty", None, text("n"), false),
        ("ifempty", None, text(""), true),
        ("ifempty", None, Sample::Int(0), false), // numbers are never empty
        ("ifnotempty", None, text(""), false),
        ("ifnotempty", None, Sample::Int(0), true),
        ("ifset", None, text("n"), false),
        ("ifnotset", None, text("n"), true),
        ("ifgt", Some(Sample::Int(5)), Sample::Int(4), true), // the stored one is greater
        ("ifgt", Some(Sample::Int(5)), Sample::Int(6), false),
        ("iflt", Some(Sample::Int(5)), Sample::Int(6), true),
        ("iflt", Some(text("5")), Sample::Int(4), true), // not two integers: no obstacle
        ("iflt", None, Sample::Int(4), true),
    ];
    for (condition, before, new, expected) in cases {
        vars::change(&cx, var.scope, |vars| {
            vars.clear();
            if let Some(before) = &before {
                vars.set(var.name, before.clone());
            }
        });
        let condition_bits = VarConditions::by_name(condition).unwrap();
        vars::set(&cx, var, condition_bits, new.clone());
        let set = vars::read(&cx, var, Sample::clone) == Some(new.clone());
        assert_eq!(set, expected, "{condition} {before:?} {new:?}");
    }
    assert!(VarConditions::by_name("ifever").is_none());
}

#[test]
fn aliases() {
    let mut w = world(Vec::new(), vec![proxy("fe", "listen", None)]);
    w.process.pid = 255;
    let client = Client::connect(&w, "192.0.2.1", 0).unwrap();
    let mut head = get("/a/b?c=\"d");
    let msgs = Msgs {
        req: Some(&mut head),
        ..Msgs::default()
    };
    let cx = cx(&w, &client.conn, Some(&client.stream), 0);
    let show = |name: &str, flags: FormatFlags| {
        let alias = Alias::by_name(name).unwrap();
        let format = Format {
            items: Box::new([FormatItem::Alias { alias, flags }]),
        };
        let mut out = Vec::new();
        format.render(&cx, &msgs, &mut out);
        String::from_utf8(out).unwrap()
    };
    let plain = FormatFlags::default();
    for (name, expected) in [
        ("ci", "192.0.2.1"),
        ("cp", "40000"),
        ("fi", "127.0.0.1"),
        ("fp", "8080"),
        ("f", "fe"),
        ("b", "fe"),
        ("s", "<NOSRV>"),
        ("HM", "GET"),
        ("HP", "/a/b"),
        ("HPO", "/a/b"),
        ("HU", "/a/b?c=\"d"),
        ("HQ", "?c=\"d"),
        ("HV", "HTTP/1.1"),
        ("r", "GET /a/b?c=\"d HTTP/1.1"),
        ("pid", "255"),
        ("H", "box"),
        ("Ts", "1795000000"),
        ("ms", "123"),
        ("T", "18/Nov/2026:11:06:40 +0000"),
    ] {
        assert_eq!(show(name, plain), expected, "%{name}");
    }
    let hex = FormatFlags { hex: true, ..plain };
    assert_eq!(show("ci", hex), "C0000201");
    assert_eq!(show("cp", hex), "9C40");
    assert_eq!(show("pid", hex), "00FF");
    let quote = FormatFlags {
        quote: true,
        ..plain
    };
    assert_eq!(show("HM", quote), "\"GET\"");
    let escape = FormatFlags {
        quote: true,
        escape: true,
        ..plain
    };
    assert_eq!(show("HQ", escape), "\"?c=\\\"d\"");
    assert!(Alias::by_name("nosuch").is_none());
}
