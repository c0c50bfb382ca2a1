//! What is accepted with a warning or a notice.

use remora_config::diag::Level;

use crate::support::{good, load_text, said};

#[test]
fn warnings_are_the_reference_s() {
    for (text, expected) in [
        (
            "frontend f\n bind :1\n",
            "config : missing timeouts for frontend 'f'.",
        ),
        (
            "backend b\n server s 1.1.1.1:1\n",
            "config : missing timeouts for backend 'b'.",
        ),
        (
            "listen l\n bind :1\n",
            "config : missing timeouts for proxy 'l'.",
        ),
        (
            "frontend f\n timeout client 1s\n",
            "config : frontend 'f' has no 'bind' directive,",
        ),
        (
            "frontend f\n bind :1\n timeout client 1s\n timeout http-request 5\n",
            "config : parsing [t.cfg:4] : 'timeout http-request 5' is suspiciously small for a value in milliseconds",
        ),
        (
            "frontend f\n bind :1\n timeout client 1s\n http-request deny\n",
            "config : 'http-request' rules ignored for frontend 'f' as they require HTTP mode.",
        ),
        (
            "frontend f\n mode http\n bind :1\n timeout client 1s\n http-request deny\n tcp-request content accept\n",
            "config : parsing [t.cfg:6] : a 'tcp-request content' rule placed after an 'http-request' rule will still be processed before.",
        ),
        (
            "frontend f\n mode http\n bind :1\n timeout client 1s\n use_backend b\n http-request deny\nbackend b\n mode http\n",
            "config : parsing [t.cfg:6] : a 'http-request' rule placed after a 'use_backend' rule will still be processed before.",
        ),
        (
            "backend b\n bind :1\n",
            "config : parsing [t.cfg:2] : 'bind' ignored because backend 'b' has no frontend capability.",
        ),
        (
            "frontend f\n bind :1\n timeout client 1s\n fullconn 5\n",
            "config : parsing [t.cfg:4] : 'fullconn' ignored because frontend 'f' has no backend capability.",
        ),
        (
            "backend b\n timeout client 5s\n",
            "config : parsing [t.cfg:2] : 'timeout client' ignored because backend 'b' has no frontend capability.",
        ),
        (
            "backend b\n option httplog\n",
            "config : parsing [t.cfg:2] : backend 'b' : 'option httplog' directive is ignored in backends.",
        ),
        (
            "backend b\n stick-table type ip size 5 store conn_cnt,conn_cnt\n",
            "config : parsing [t.cfg:2] : stick-table: store option 'conn_cnt' already enabled, ignored.",
        ),
        (
            "frontend f\n bind :1\n timeout client 1s\n stick-table type string size 5\n tcp-request content track-sc0 req.payload(0,5)\n",
            "config : parsing [t.cfg:5] : frontend 'f' : this 'tcp-request content track-sc' rule reads contents",
        ),
        (
            "frontend f\n mode http\n bind :1\n timeout client 1s\n acl a path\n",
            "config : parsing [t.cfg:5] : parsing acl keyword 'path'",
        ),
        (
            "defaults d\n timeout client 1s\nfrontend f from d\n bind :1\nfrontend g\n bind :2\n",
            "config : parsing [t.cfg:5] : defaults section 'd'",
        ),
    ] {
        let loaded = load_text(text);
        assert!(loaded.plan.is_some(), "{text} {:#?}", loaded.diags);
        let got = said(text, Level::Warning);
        assert!(
            got.iter().any(|w| w.starts_with(expected)),
            "{text}\n  want: {expected}\n  got: {got:#?}"
        );
    }
}

#[test]
fn ipv6_clients_of_an_ipv4_table_are_noted() {
    let text = "frontend f\n bind ipv6@:1\n timeout client 1s\n stick-table type ip size 5 store gpc0\n tcp-request connection track-sc0 src\n";
    good(text);
    assert!(said(text, Level::Notice)[0].contains("table 'f' has keys of type 'ip'"));
    assert!(said(&text.replace("ipv6@", ""), Level::Notice).is_empty());
    assert!(said(&text.replace("type ip ", "type ipv6 "), Level::Notice).is_empty());
}
