//! `hard-reload`: what runs is cut, what was counted is there, and a worker that hangs is no obstacle.

use cluster_tests::cluster::Spec;
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::wait::{PATIENCE, until_true, until_within};
use rustix::process::Signal;

use crate::common::haproxy_lacks;
use crate::house::{House, MASTER, serve_supervised};
use crate::supervisor::{Load, kill, master, worker, workers};

#[test]
fn what_was_answered_was_counted() {
    if haproxy_lacks("hard-reload") {
        return;
    }
    let house = House::new("{{dir}}/handoff.sock", &MASTER);
    let load = Load::on(house.first.addr("fe"));
    for _ in 0..5 {
        let said = master(&house.first).ask("hard-reload");
        assert!(said.starts_with("Success=1\n"), "{said}");
        load.moves();
    }
    let (answered, failed) = load.finish();
    let (least, most) = (answered as i64, (answered + failed) as i64);
    let mut last = 0;
    let seen = until_within(PATIENCE, || {
        last = house.value("fe", "http_req_cnt");
        let there = (least..=most).contains(&last) && house.value("fe", "conn_cur") == 0;
        there.then_some(())
    });
    assert!(
        seen.is_some(),
        "{last} of {least}, and {failed} cut: {}",
        house.first.stderr()
    );
    until_true("old workers end", || workers(&house.first).len() == 1);
}

#[test]
fn peers_hear_of_it_from_one_process_only() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(2).prepare();
    serve_supervised(&mut cluster, &[0, 1]);
    let mut tally = Tally::default();
    for round in 0..3 {
        let node = cluster.node(0);
        node.hit("same", 10, &mut tally);
        node.hit(&format!("round{round}"), 2, &mut tally);
        let said = master(node.proxy()).ask("hard-reload");
        assert!(said.starts_with("Success=1\n"), "{said}");
        node.hit("same", 5, &mut tally);
        cluster.node(1).hit("same", 1, &mut tally);
        cluster.settled(&Expected::of(&tally));
    }
    for index in 0..2 {
        let said = cluster.node(index).proxy().stderr();
        for wrong in ["protocol error", "stops before"] {
            assert!(!said.contains(wrong), "{said}");
        }
    }
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    if haproxy_lacks("hard-reload") {
        return;
    }
    let house = House::new("{{dir}}/handoff.sock", &MASTER);
    house.get(3);
    let stuck = worker(&house.first);
    kill(stuck, Signal::STOP);
    let said = master(&house.first).ask("hard-reload");
    assert!(
        said.starts_with("Success=1\n") && said.contains("which begin empty"),
        "{said}"
    );
    house.get(2);
    assert_eq!(house.value("fe", "http_req_cnt"), 2);
    until_true("it is gone", || workers(&house.first).len() == 1);
}
