//! Mistakes in and between sections, and that all of them are reported.

use crate::support::{errors, good, load_text};

const UNSUPPORTED: &str = "is a HAProxy feature that Remora does not support.";

#[test]
fn sections() {
    let one = |text: &str| errors(text).into_iter().next().unwrap_or_default();
    for (text, expected) in [
        (
            "foo bar\n",
            "config : parsing [t.cfg:1] : unknown keyword 'foo' out of section",
        ),
        (
            "frontend\n",
            "config : parsing [t.cfg:1] : 'frontend' expects an <id> argument",
        ),
        (
            "frontend a/b\n",
            "config : parsing [t.cfg:1] : character '/' is not permitted in 'frontend' name 'a/b'.",
        ),
        (
            "frontend a 1.1.1.1:80\n",
            "config : parsing [t.cfg:1] : 'frontend' cannot handle unexpected argument '1.1.1.1:80'.",
        ),
        (
            "global x\n",
            "config : parsing [t.cfg:1] : 'global' cannot handle unexpected argument 'x'.",
        ),
        (
            "frontend a from zz\n",
            "config : parsing [t.cfg:1] : defaults section 'zz' not found for frontend 'a'.",
        ),
        (
            "defaults\ndefaults z from zz\n",
            "config : parsing [t.cfg:2] : defaults section 'zz' not found for defaults 'z'.",
        ),
        (
            "backend a\nbackend b\nbackend a\n",
            "config : parsing [t.cfg:3] : backend 'a' has the same name as backend 'a' declared at t.cfg:1.",
        ),
        (
            "frontend a\nbackend a\n",
            "config : parsing [t.cfg:2] : backend 'a' has the same name as frontend 'a' declared at t.cfg:1.",
        ),
        (
            "defaults x\ndefaults x\nbackend b from x\n",
            "config : parsing [t.cfg:3] : ambiguous defaults section name 'x' referenced by backend 'b' exists at least at t.cfg:1 and t.cfg:2.",
        ),
        (
            "userlist u\n user x password y\n",
            "config : parsing [t.cfg:1] : 'userlist' is a HAProxy feature that Remora does not support.",
        ),
        (
            "defaults\n tcp-request connection reject\n",
            "config : parsing [t.cfg:2] : tcp-request connection is not allowed in anonymous 'defaults' sections",
        ),
        (
            "defaults\n bind :1\n",
            "config : parsing [t.cfg:2] : 'bind' not allowed in 'defaults' section.",
        ),
        (
            "defaults d\n http-request deny\nlisten l from d\n",
            "config : parsing [t.cfg:3] : a listen section cannot inherit from a defaults section defining TCP/HTTP rules.",
        ),
        (
            "defaults d\n mode http\n http-request deny\nfrontend f from d\nbackend b from d\n",
            "config : parsing [t.cfg:5] : frontends and backends cannot inherit from the same defaults section",
        ),
        (
            "backend a\n stick-table type ip size 5\n stick-table type ip size 5\n",
            "config : parsing [t.cfg:3] : stick-table name 'a' conflicts with table declared in backend 'a' at t.cfg:2.",
        ),
        (
            "backend b\n server s 1.1.1.1:1\n server s 1.1.1.1:2\n",
            "config : parsing [t.cfg:3] : backend 'b', another server named 's' was already defined at line 2, please use a distinct name.",
        ),
        (
            "frontend f\n bind :1 id 5\n bind :2 id 5\n",
            "config : parsing [t.cfg:3] : 'bind :2' in section 'frontend' : 'id' : custom id 5 already used at t.cfg:2 ('bind :1')",
        ),
        (
            "backend t\n stick-table type ip size 5 write-to u\nbackend u\n stick-table type ipv6 size 5\n",
            "config : parsing [t.cfg:2] : stick-table: cannot 'write-to' table 'u': its key type",
        ),
    ] {
        let got = one(text);
        assert!(
            got.starts_with(expected),
            "{text}\n  want: {expected}\n  got:  {got}"
        );
    }
    // One message for a section that is not supported, not one per line in it.
    assert_eq!(
        errors("mailers m\n mailer a 1.1.1.1:1\n foo\nbackend b\n").len(),
        1
    );
}

#[test]
fn modes_must_fit() {
    let text = "defaults\n timeout client 1s\n timeout connect 1s\n timeout server 1s\nfrontend f2\n mode http\n bind :1\n default_backend b\n\
                backend b\n mode tcp\n";
    let other = text
        .replace("mode http", "mode x")
        .replace("mode tcp", "mode http")
        .replace("mode x", "mode tcp");
    assert_eq!(
        errors(&other),
        [
            "config : parsing [t.cfg:5] : an http backend ('b') behind a tcp frontend is a HAProxy feature that Remora does not support."
        ]
    );
    assert_eq!(
        errors(text),
        [
            "config : http frontend 'f2' (t.cfg:5) tries to use incompatible tcp backend 'b' (t.cfg:9) as its default backend (see 'mode')."
        ]
    );
}

#[test]
fn all_errors_are_reported_in_one_run() {
    let got = errors(
        "global\n foo\n maxconn x\nfrontend f\n bind :x\n acl a nosuch\n http-request bar\n mode blah\n",
    );
    let lines: Vec<_> = got
        .iter()
        .filter_map(|e| {
            e.split("t.cfg:")
                .nth(1)?
                .split(']')
                .next()?
                .parse::<u32>()
                .ok()
        })
        .collect();
    assert_eq!(lines, [2, 3, 5, 6, 7, 8], "{got:#?}");
    let all = load_text("frontend f\n foo\n").diags;
    let tail: Vec<_> = all.iter().rev().take(2).map(|d| d.text.as_str()).collect();
    assert_eq!(
        tail,
        [
            "config : Fatal errors found in configuration.",
            "config : Error(s) found in configuration file : t.cfg"
        ]
    );
}

#[test]
fn readers_of_what_is_not_stored_are_refused() {
    let base = "frontend f\n mode http\n bind :1\n timeout client 1s\n stick-table type ip size 5 store gpc0\n http-request track-sc0 src\n";
    let got = errors(&format!(
        "{base} http-request deny if {{ sc0_conn_rate gt 5 }}\n"
    ));
    assert!(
        got[0].contains("'sc0_conn_rate' can never have a value") && got[0].contains("t.cfg:7"),
        "{got:?}"
    );
    let got = errors(&format!(
        "{base} http-request deny if {{ src_conn_rate gt 5 }}\n"
    ));
    assert_eq!(got.len(), 1, "{got:?}");
    good(&format!(
        "{base} http-request deny if {{ sc0_get_gpc0 gt 5 }}\n"
    ));
    // Nothing tracks in slot 1: the reference accepts that silently.
    good(&format!(
        "{base} http-request deny if {{ sc1_conn_rate gt 5 }}\n"
    ));
}

#[test]
fn unsupported_things_are_named() {
    for (section, list) in [
        ("global", remora_config::known::Kind::Global),
        ("listen l", remora_config::known::Kind::Proxy),
    ] {
        for name in remora_config::known::names(list) {
            let got = errors(&format!("{section}\n {name} x y z\n"));
            assert!(
                !got.iter()
                    .any(|e| e.contains(&format!("unknown keyword '{name}'"))),
                "{section} {name}: {got:?}"
            );
        }
    }
    for name in remora_config::known::names(remora_config::known::Kind::Option) {
        let got = errors(&format!("listen l\n option {name}\n"));
        assert!(
            got.iter().all(|e| e.contains(UNSUPPORTED)),
            "option {name}: {got:?}"
        );
    }
}

/// Whoever refers to what could not be read is not wrong for that.
#[test]
fn a_mistake_is_told_once() {
    let table = "frontend f\n mode http\n bind :1\n timeout client 1s\n stick-table type ip size 5 store gpc(3),gpc0,nope\n \
                 http-request track-sc0 src\n http-request deny if { sc0_conn_rate gt 5 } or { src,in_table(f) }\n\
                 backend b\n stick-table type ip size 5 write-to f\n";
    let got = errors(table);
    assert!(got.iter().all(|e| e.contains("[t.cfg:5]")), "{got:#?}");
    let peers = "peers p\n bind 127.0.0.1:1\n discover dns foo every 5s\n";
    let got = errors(peers);
    assert!(got.len() == 1 && got[0].contains("[t.cfg:3]"), "{got:#?}");
}
