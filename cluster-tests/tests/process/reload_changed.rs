//! Reloads that change what a table is: what still fits stays, what does not is said.

use std::time::Duration;

use cluster_tests::cluster::Spec;
use cluster_tests::hits::Tally;
use cluster_tests::wait::{pace, until_true};
use cluster_tests::{Launch, Proxy, get};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::house::serve_supervised;
use crate::supervisor::{edit, master};

const KEYS: &str = "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request track-sc0 url_param(k) table t
  http-request sc-inc-gpc(1,0)
  http-request return status 200
backend t
  stick-table type string len 20 size 1k expire 1h store http_req_cnt,gpc(3)
";

/// Each in a millisecond of its own. Entries age from the moment nobody holds them, which may be a moment after the answer.
fn hit(proxy: &Proxy, key: &str) {
    pace(Duration::from_millis(3));
    let answer = get(proxy.addr("fe"), &format!("/?k={key}"));
    assert_eq!(answer.map(|a| a.status), Ok(200));
    proxy.cli().released("t");
}

fn keys(proxy: &Proxy) -> Vec<String> {
    let entries = proxy.cli().entries("t");
    let mut keys: Vec<String> = entries.iter().map(|e| e.key().to_owned()).collect();
    keys.sort();
    keys
}

/// What the master CLI says about a reload.
fn reload(proxy: &Proxy, from: &str, to: &str) -> String {
    edit(proxy, from, to);
    let said = master(proxy).ask("reload");
    assert!(said.starts_with("Success=1\n"), "{said}");
    said
}

#[test]
fn what_does_not_fit_any_more_is_said() {
    if haproxy_lacks("loses its tables") {
        return;
    }
    let proxy = Launch::new(&format!("{HEAD}{KEYS}")).supervised().start();
    for key in ["first", "second", "a-rather-long-key", "third"] {
        hit(&proxy, key);
    }
    hit(&proxy, "first");
    assert_eq!(keys(&proxy).len(), 4);
    let said = reload(&proxy, "size 1k", "size 3");
    let told = "table 't' is smaller now: 1 entry dropped, refreshed before the 3 that are kept.";
    assert!(said.contains(told), "{said}");
    assert_eq!(keys(&proxy), ["a-rather-long-key", "first", "third"]);
    let said = reload(&proxy, "len 20", "len 10");
    let told = "table 't': its keys are at most 10 bytes long now, and were 20: 1 entry with longer ones dropped.";
    assert!(said.contains(told), "{said}");
    assert_eq!(keys(&proxy), ["first", "third"]);
    let first = |column| {
        let entry = proxy.cli().entry("t", "first");
        entry.map_or(-1, |entry| entry.get(column))
    };
    assert_eq!(first("http_req_cnt"), 2);
    let said = reload(&proxy, "http_req_cnt,gpc(3)", "gpc(2)");
    let told = "table 't': not stored any more, or not in the same way: http_req_cnt, gpc[2].";
    assert!(said.contains(told), "{said}");
    assert_eq!(first("gpc1"), 2);
    // Nothing is lost here, and nothing said.
    for (from, to) in [("len 10", "len 30"), ("size 3", "size 100")] {
        let said = reload(&proxy, from, to);
        assert!(!said.contains("table 't'"), "{said}");
        assert_eq!(keys(&proxy), ["first", "third"]);
    }
    let said = reload(&proxy, "type string len 30", "type integer");
    let told = "table 't' begins empty, because its keys are of type integer now, and were string: its 2 entries are dropped.";
    assert!(said.contains(told), "{said}");
    assert_eq!(keys(&proxy), [""; 0]);
}

/// The section was there before, so both processes listen for the peers: each try, the new one learns before it accepts.
#[test]
fn a_first_shared_table_is_learned_from_peers() {
    if haproxy_lacks("sums over nodes") {
        return;
    }
    let mut cluster = Spec::of(2).peers("  learn-timeout 60s").prepare();
    let plain = |config: String| config.replacen(" peers p\n", " #peers p\n", 1);
    cluster.node_mut(0).reconfigure(plain);
    serve_supervised(&mut cluster, &[0]);
    let mut tally = Tally::default();
    for round in 0..8 {
        if round > 0 {
            cluster.node_mut(0).start();
        }
        let [here, there] = [cluster.node(0), cluster.node(1)];
        here.hit("a", 2, &mut tally);
        there.hit("a", 1, &mut tally);
        here.hit(&format!("here{round}"), 1, &mut tally);
        if round % 2 == 0 {
            // Otherwise they may just be about to meet.
            until_true("they have met", || {
                let said = here.said();
                said.contains("session from peer node1 is up")
                    && said.contains("session to peer node1 is up")
            });
        }
        reload(here.proxy(), " #peers p\n", " peers p\n");
        // At once, for every request.
        assert_eq!(here.value("a", "gpc0"), 3 * (round + 1), "{}", here.said());
        until_true("the others hear of it", || {
            there.value("a", "gpc0") == 3 * (round + 1)
                && there.value(&format!("here{round}"), "gpc0") == 1
        });
        cluster.node_mut(0).end_with(Signal::TERM);
    }
}
