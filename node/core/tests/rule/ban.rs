//! The scenario stick tables were invented for: abusers found by one site are banned from all, and the ban runs out
//! while they keep knocking.

use crate::support::*;

fn ban_across_sites() -> World {
    let tables = vec![
        table("web type ip size 200000 expire 600000 store gpc0"),
        table(
            "shop type ip size 200000 expire 200000 store conn_rate(100000),bytes_out_rate(60000)",
        ),
    ];
    let mut world = world(
        tables,
        vec![
            proxy("web", "frontend", Some(0)),
            proxy("shop", "backend", Some(1)),
            proxy("penalty", "backend", None),
        ],
    );
    let mut names = Names::of(&world);

    names.own_table = Some(TableId(0));
    let web = &mut world.proxies[0].rules;
    web.tcp_connection = names.rules(&["track-sc1 src unless src_get_gpc0(web) gt 0"]);
    web.use_backend = Box::new([UseBackend {
        target: BackendRef::Static(ProxyId(2)),
        cond: Some((false, names.cond("if src_get_gpc0(web) gt 0"))),
    }]);
    web.default_backend = Some(ProxyId(1));

    names.own_table = Some(TableId(1));
    world.proxies[1].rules.tcp_content = names.rules(&[
        "track-sc2 src",
        "reject if sc2_conn_rate gt 3 && !src 10.0.0.0/8 && sc1_inc_gpc0 gt 0",
        "reject if sc2_bytes_out_rate gt 20000000 && sc1_inc_gpc0 gt 0",
    ]);
    world
}

/// One connection with one request, closed afterwards.
fn visit(world: &World, ip: &str, now_ms: u64) -> Said {
    let client = Client::connect(world, ip, now_ms).expect("connections are not refused here");
    let said = client.request(&mut get("/"), 200, now_ms);
    client.close(now_ms);
    said
}

#[test]
fn eight_quick_connections() {
    let world = ban_across_sites();
    let said: Vec<Said> = (0..8).map(|i| visit(&world, "192.0.2.7", i * 10)).collect();
    assert_eq!(
        said,
        [
            "-> shop 200",
            "-> shop 200",
            "-> shop 200",
            "reject by shop",
            "-> penalty 200",
            "-> penalty 200",
            "-> penalty 200",
            "-> penalty 200",
        ]
    );
    assert_eq!(row(&world, 0, "192.0.2.7", 100), "gpc0=1");
    assert_eq!(visit(&world, "192.0.2.8", 100), "-> shop 200");
}

#[test]
fn the_ban_expires_while_they_keep_knocking() {
    let world = ban_across_sites();
    for i in 0..4 {
        visit(&world, "192.0.2.7", i);
    }
    // banned at 3 ms, for 600 s; one request per second does not prolong it
    for second in 1..600 {
        let said = visit(&world, "192.0.2.7", second * 1000);
        assert_eq!(said, "-> penalty 200", "second {second}");
    }
    assert_eq!(visit(&world, "192.0.2.7", 600_003), "-> shop 200");
}

#[test]
fn the_office_may_and_is_not_counted_as_banned() {
    let world = ban_across_sites();
    for i in 0..10 {
        assert_eq!(visit(&world, "10.1.2.3", i), "-> shop 200");
    }
    // `!office` stands before the increment, so that the increment never happened
    assert_eq!(row(&world, 0, "10.1.2.3", 20), "gpc0=0");
}
