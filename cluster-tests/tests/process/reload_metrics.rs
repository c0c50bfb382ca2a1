//! What becomes of reloads is on the metrics page.

use std::collections::BTreeMap;

use cluster_tests::cluster::Spec;
use cluster_tests::hits::Tally;
use cluster_tests::scrape::{samples, scrape};
use cluster_tests::wait::{observe_for, until_true};
use cluster_tests::{Proxy, get};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::common::{HEAD, haproxy_lacks};
use crate::house::serve_supervised;
use crate::supervisor::{edit, kill, master, supervised, worker, workers};

/// Successes, failures, whether the last one succeeded, hand-offs; -1 for what is not on the page.
fn told(proxy: &Proxy) -> [f64; 4] {
    let page = scrape(&proxy.dir().join("admin.sock"));
    let all = samples(&page);
    // A new worker is told a moment after it begins to answer.
    let value = |name: &str| all.get(name).copied().unwrap_or(-1.0);
    [
        value("remora_reloads_total{outcome=\"ok\"}"),
        value("remora_reloads_total{outcome=\"failed\"}"),
        value("remora_last_reload_ok"),
        value("remora_handoffs_total{outcome=\"ok\"}"),
    ]
}

fn becomes(proxy: &Proxy, wanted: [f64; 4]) {
    until_true(&format!("the page says {wanted:?}"), || {
        told(proxy) == wanted
    });
}

#[test]
fn outcomes_of_reloads_are_counted_across_them() {
    if haproxy_lacks("these metrics") {
        return;
    }
    let head = HEAD.replacen("global\n", "global\n  admin bind {{dir}}/admin.sock\n", 1);
    let proxy = supervised(&head).start();
    becomes(&proxy, [0.0, 0.0, 1.0, 0.0]);
    assert!(!scrape(&proxy.dir().join("admin.sock")).contains("remora_handoff_entries "));
    edit(&proxy, "bind 1", "bnid 1");
    master(&proxy).ask("reload");
    becomes(&proxy, [0.0, 1.0, 0.0, 0.0]);
    edit(&proxy, "bnid 1", "bind 1");
    for n in 1..=2 {
        assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
        becomes(&proxy, [f64::from(n), 1.0, 1.0, f64::from(n)]);
    }
    let page = scrape(&proxy.dir().join("admin.sock"));
    let all = samples(&page);
    for name in [
        "remora_last_reload_duration_seconds",
        "remora_handoff_duration_seconds",
        "remora_handoff_accept_gap_seconds",
    ] {
        let value = all.get(name).unwrap_or_else(|| panic!("no {name}: {page}"));
        assert!((0.0..30.0).contains(value), "{name}: {value}");
    }
    assert_eq!(all.get("remora_handoff_entries"), Some(&0.0));
    // Rules and tables go on, too.
    let rule = |page: &str| {
        let rule = samples(page).into_iter();
        rule.filter(|(name, _)| name.starts_with("remora_rule_matches_total{"))
            .map(|(_, n)| n)
            .sum::<f64>()
    };
    let matches = rule(&page);
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    assert!(master(&proxy).ask("reload").starts_with("Success=1\n"));
    becomes(&proxy, [3.0, 1.0, 1.0, 3.0]);
    until_true("what rules did goes on", || {
        rule(&scrape(&proxy.dir().join("admin.sock"))) == matches + 1.0
    });
    // What only the worker knew is gone with it; its supervisor goes on.
    until_true("old workers end", || workers(&proxy).len() == 1);
    let before = worker(&proxy);
    kill(before, Signal::KILL);
    until_true("another worker serves", || worker(&proxy) != before);
    assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    becomes(&proxy, [3.0, 1.0, 1.0, 0.0]);
}

#[test]
fn a_watched_file_that_is_away_or_a_pipe_is_tried_once() {
    if haproxy_lacks("--watch") {
        return;
    }
    let head = HEAD.replacen("global\n", "global\n  admin bind {{dir}}/admin.sock\n", 1);
    let proxy = supervised(&head).arg("--watch").start();
    becomes(&proxy, [0.0, 0.0, 1.0, 0.0]);
    let at = |name: &str| proxy.dir().join(name);
    let text = std::fs::read(at("test.cfg")).expect("the configuration");
    for (before, what) in [
        (0.0, "nothing"),
        (1.0, "a link to nothing"),
        (2.0, "a pipe"),
    ] {
        let after = before + 1.0;
        match what {
            "nothing" => std::fs::remove_file(at("test.cfg")).expect("it goes"),
            "a link to nothing" => {
                std::os::unix::fs::symlink("nowhere", at("odd")).expect("a link");
            }
            _ => mknodat(CWD, at("odd"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe"),
        }
        if what != "nothing" {
            std::fs::rename(at("odd"), at("test.cfg")).expect("it takes the place");
        }
        let failed = [before, after, 0.0, before];
        becomes(&proxy, failed);
        // Three times as long as it takes to look again.
        observe_for(std::time::Duration::from_millis(900));
        assert_eq!(told(&proxy), failed, "{what}: {}", proxy.stderr());
        // The same that is served: all is well again.
        std::fs::write(at("same"), &text).expect("a file");
        std::fs::rename(at("same"), at("test.cfg")).expect("it comes back");
        becomes(&proxy, [after, after, 1.0, after]);
    }
}

/// What is told of peers and of tables that nodes share goes on like all other totals.
#[test]
fn totals_of_what_nodes_share_never_go_back() {
    if haproxy_lacks("these metrics") {
        return;
    }
    let mut cluster = Spec::of(2)
        .global("  admin bind unix@{{dir}}/admin.sock")
        .prepare();
    serve_supervised(&mut cluster, &[0, 1]);
    let node = cluster.node(0);
    let admin = node.proxy().dir().join("admin.sock");
    let totals = || -> BTreeMap<String, f64> {
        let page = scrape(&admin);
        let all = samples(&page).into_iter();
        all.filter(|(name, _)| name.contains("_total") && !name.contains("_cpu_"))
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    };
    let of = |all: &BTreeMap<String, f64>, name: &str| -> f64 {
        let prefix = format!("remora_{name}_total{{");
        let some = all.iter().filter(|(key, _)| key.starts_with(&prefix));
        some.map(|(_, value)| value).sum()
    };
    let busy = [
        "sticktable_edicts_issued",
        "sticktable_edicts_applied",
        "peers_accepted",
        "peers_rows_merged",
        "peers_sent_rows",
        "peers_sent_bytes",
        "peers_received_rows",
        "peers_received_bytes",
        "peer_dials",
    ];
    let mut before = BTreeMap::new();
    for round in 0..4 {
        // A bit of each.
        let mut tally = Tally::default();
        let key = format!("round{round}");
        for index in 0..2 {
            cluster.node(index).hit(&key, 3, &mut tally);
        }
        until_true("both have all", || {
            (0..2).all(|node| cluster.node(node).value(&key, "http_req_cnt") == 6)
        });
        for (index, other) in [(0, 1), (1, 0)] {
            for node in 0..2 {
                cluster.node(node).proxy().cli().released("t");
            }
            cluster
                .node(index)
                .order(&format!("clear table t key {key}"));
            until_true("the other node clears it", || {
                cluster.node(other).value(&key, "http_req_cnt") <= 0
            });
            cluster.node(index).hit(&key, 1, &mut tally);
            until_true("both have it", || {
                (0..2).all(|node| cluster.node(node).value(&key, "http_req_cnt") == 1)
            });
        }
        until_true("all of that is on the page", || {
            let now = totals();
            let more = busy.iter().all(|name| of(&now, name) > of(&before, name));
            let begun = before.iter().all(|(name, value)| {
                let now = now.get(name);
                // Hubs begin a moment after the process serves.
                assert!(
                    now.is_none_or(|now| now >= value),
                    "{name}: {value}, then {now:?}"
                );
                now.is_some()
            });
            if more && begun {
                before = now;
                return true;
            }
            false
        });
        assert!(
            master(node.proxy())
                .ask("reload")
                .starts_with("Success=1\n")
        );
    }
}
