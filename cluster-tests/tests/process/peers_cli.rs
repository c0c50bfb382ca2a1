//! What the CLI tells of peers and of whose counts a sum is made.

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::wait::until_true;

use crate::common::haproxy_lacks;

#[test]
fn peers_and_shares_are_shown() {
    if haproxy_lacks("shares of nodes") {
        return;
    }
    let cluster = Spec::of(2).start();
    let mut tally = Tally::default();
    cluster.node(0).hit("k", 7, &mut tally);
    cluster.node(1).hit("k", 5, &mut tally);
    cluster.settled(&Expected::of(&tally));

    let node = cluster.node(0);
    until_true("the peer is up and has acknowledged all", || {
        let shown = node.ask("show peers");
        shown.contains("id=node1(remote,active)") && shown.contains("lag_entries=0")
    });
    let shown = node.ask("show peers");
    for part in [
        "id=p disabled=0",
        "ready=1",
        "(local,active)",
        "last_error=",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(node.ask("show peers nobody").contains("No such peers"));
    assert!(
        node.ask("show peers - p").starts_with("id=p "),
        "- is no section"
    );
    let dict = node.ask("show peers dict p");
    for part in [
        "  lineages:",
        "node=node1 alive=1",
        "  tables:",
        "learned=1",
        "edicts_issued=0",
    ] {
        assert!(dict.contains(part), "{part} in {dict}");
    }

    let shares = node.ask("show table t key k origins");
    let share = |of: &str| {
        shares
            .lines()
            .find(|l| l.contains(of))
            .unwrap_or_else(|| panic!("{of} in {shares}"))
            .to_owned()
    };
    assert!(share("key=k").contains("http_req_cnt=12"), "{shares}");
    assert!(share("node=(here)").contains("http_req_cnt=7"), "{shares}");
    assert!(share("node=node1").contains("http_req_cnt=5"), "{shares}");
    assert_eq!(node.ask("show table t key nobody origins").trim(), "");
}
