//! HAProxy's exporter as the oracle of ours: what has the same name has the same type and the same labels, so that a
//! dashboard or an alert is taken over by replacing the prefix.

use cluster_tests::locate::Kind;
use cluster_tests::scrape::{labels, types};
use cluster_tests::{Server, get, tools};

use crate::common::{HEAD, measured};

#[test]
fn what_haproxy_has_is_called_the_same() {
    if tools::tool("haproxy").is_none() {
        return;
    }
    let server = Server::http();
    let [ours, theirs] = [Kind::Remora, Kind::Haproxy].map(|kind| {
        let proxy = measured(HEAD, &server).kind(kind).start();
        let fe = proxy.addr("fe");
        for path in ["/", "/status/404", "/deny", "/"] {
            get(fe, path).expect("an answer");
        }
        let page = get(fe, "/metrics").expect("an answer").text();
        page.replace("haproxy_", "remora_")
    });
    let (our_types, our_labels) = (types(&ours), labels(&ours));
    let (their_types, their_labels) = (types(&theirs), labels(&theirs));
    let common: Vec<&str> = our_types
        .keys()
        .copied()
        .filter(|name| their_types.contains_key(name))
        .collect();
    for name in &common {
        assert_eq!(our_types[name], their_types[name], "{name}");
        assert_eq!(our_labels[name], their_labels[name], "{name}");
    }
    assert!(
        common.len() > 80,
        "only {} are common: {common:?}",
        common.len()
    );
    // Of the main groups nothing is missing but what does not exist here.
    let absent = [
        "comp_",
        "cache_",
        "check",
        "agent",
        "average",
        "_time_",
        "rewriting",
        "internal_errors",
        "rate_limit",
    ];
    let known = [
        "limit_session_rate",
        "downtime",
        "agg_",
        "throttle",
        "idle_connections",
        "need_connections",
    ];
    let missing: Vec<&str> = their_types
        .keys()
        .copied()
        .filter(|name| !name.starts_with("remora_process_") && !our_types.contains_key(name))
        .filter(|name| !absent.iter().chain(&known).any(|part| name.contains(part)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
