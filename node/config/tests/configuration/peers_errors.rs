//! What is wrong with a `peers` section, and what is said about it.

use crate::support::{World, errors, good, options, said};
use remora_config::diag::Level;
use remora_config::{Options, Source, load};

/// Errors of a section `p` on the node `a`; its first line is line 4.
pub fn section(lines: &str) -> Vec<String> {
    errors(&format!("global\n localpeer a\npeers p\n{lines}"))
}

const OK: &str = " bind 127.0.0.1:1000\n server a\n server b 127.0.0.1:1001\n";

/// A line after a section without mistakes, and its message.
pub fn check(cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        let got = section(&format!("{OK} {line}\n"));
        let want = format!("config : parsing [t.cfg:7] : {expected}");
        assert!(
            got.len() == 1 && got[0].starts_with(&want),
            "{line}\n  want: {want}\n  got:  {got:#?}"
        );
    }
}

#[test]
fn nothing_is_wrong() {
    assert_eq!(section(OK), [""; 0]);
}

#[test]
fn statements() {
    check(&[
        ("foo", "unknown keyword 'foo' in 'peers' section"),
        (
            "servr c 127.0.0.1:1",
            "unknown keyword 'servr' in 'peers' section; did you mean 'server' maybe ?",
        ),
        ("balance roundrobin", "unknown keyword 'balance'"),
        (
            "disabled x",
            "'disabled' cannot handle unexpected argument 'x'.",
        ),
        (
            "allow-plaintext x",
            "'allow-plaintext' cannot handle unexpected argument 'x'.",
        ),
        (
            "learn-timeout",
            "'learn-timeout' expects <time> as argument.",
        ),
        (
            "learn-timeout 5x",
            "unexpected character 'x' in 'learn-timeout'",
        ),
        ("cluster", "'cluster' expects a name as an argument."),
        (
            "cluster a/b",
            "character '/' is not permitted in cluster name 'a/b'.",
        ),
        (
            "log nope",
            "log : expects <address> and <facility> or global as arguments",
        ),
        ("log 127.0.0.1 foo", "log : unknown log facility 'foo'"),
        (
            "shards 3",
            "'shards' is a HAProxy feature that Remora does not support. Every node holds the sums",
        ),
        ("no server b", "'no' and 'default' only go with"),
    ]);
}

#[test]
fn binds() {
    check(&[
        ("bind", "'bind' expects [<address>]:<port>"),
        (
            "bind 127.0.0.1",
            "'bind 127.0.0.1' in section 'peers' : missing port specification in '127.0.0.1'",
        ),
        (
            "bind 127.0.0.1:1-5",
            "'bind 127.0.0.1:1-5' in section 'peers' : '127.0.0.1:1-5' : peers need one port",
        ),
        (
            "bind 127.0.0.1:1000",
            "'bind 127.0.0.1:1000' in section 'peers' : this address is already listened on",
        ),
        (
            "bind 127.0.0.1:5 foo",
            "'bind 127.0.0.1:5' in section 'peers' : unknown keyword 'foo'; did you mean 'tfo' maybe ?",
        ),
        (
            "bind 127.0.0.1:5 accept-proxy",
            "'peers bind accept-proxy' is a HAProxy feature",
        ),
        (
            "bind 127.0.0.1:5 ssl crt-list x",
            "'peers bind crt-list' is a HAProxy feature",
        ),
        (
            "bind 127.0.0.1:5 v4v6 v6only",
            "'bind 127.0.0.1:5' in section 'peers' : 'v4v6' and 'v6only' exclude each other",
        ),
        (
            "bind quic4@:5",
            "'bind quic4@' is a HAProxy feature that Remora does not support.",
        ),
        (
            "default-bind foo",
            "'default-bind' in section 'peers' : unknown keyword 'foo'",
        ),
    ]);
}

#[test]
fn servers() {
    check(&[
        ("server", "'server' expects <name> and <addr>:<port>"),
        (
            "peer i/j 127.0.0.1:1",
            "character '/' is not permitted in peer name 'i/j'.",
        ),
        (
            "server c",
            "'server p/c' : an address is missing. Only the line of this node itself, which is 'a',",
        ),
        (
            "server c 127.0.0.1",
            "'server p/c' : missing port specification in '127.0.0.1'",
        ),
        ("server c 127.0.0.1:0", "'server p/c' : invalid port '0'"),
        ("server c 127.0.0.1:+5", "'server p/c' : invalid port '+5'"),
        (
            "server c 0.0.0.0:5",
            "'server p/c' : '0.0.0.0:5' is an address to listen on",
        ),
        (
            "server c no!name:5 ssl verify none",
            "'server p/c' : invalid address: 'no!name' in 'no!name:5'",
        ),
        ("server c fd@5", "'server fd@' is a HAProxy feature"),
        (
            "server c 127.0.0.1:5 foo",
            "'server p/c' : unknown keyword 'foo'",
        ),
        (
            "peer c 127.0.0.1:5 weight 5",
            "'peer p/c' : 'weight' means nothing for a peer",
        ),
        (
            "server c 127.0.0.1:5 shard 2",
            "'shard' is a HAProxy feature that Remora does not support.",
        ),
        (
            "server c 127.0.0.1:5 send-proxy",
            "'peers server send-proxy' is a HAProxy feature",
        ),
        (
            "server c 127.0.0.1:5 id 0",
            "'server p/c' : 'id' : custom id",
        ),
        (
            "server a 127.0.0.1:5",
            "'server a' : local peer name already referenced at t.cfg:5.",
        ),
        (
            "server b 127.0.0.1:5",
            "'server b' : another peer of this name was already defined at t.cfg:6",
        ),
        (
            "server c 127.0.0.1:1001",
            "'c' and 'b' (t.cfg:6) have the same address.",
        ),
        (
            "server c 127.0.0.1:1000",
            "'c' has the address on which this node itself listens (t.cfg:4).",
        ),
        (
            "default-server foo",
            "'default-server' : unknown keyword 'foo'",
        ),
    ]);
    let warned = said(
        &format!("global\n localpeer a\npeers p\n{OK} server c 127.0.0.1:5 check init-addr none\n"),
        Level::Warning,
    );
    assert!(
        warned.len() == 2 && warned[0].contains("ignored for peers"),
        "{warned:?}"
    );
}

/// One address for two things, of which only one would be reached.
#[test]
fn addresses_used_twice() {
    let sections = "peers p\n server a unix@/r/a\n server b unix@/r/b\npeers q\n server a unix@/r/./a\n server b unix@/r//b\n";
    let got = errors(&format!("global\n localpeer a\n{sections}"));
    let want = [
        "config : parsing [t.cfg:7] : listening on 'unix@/r/./a' in peers section 'q' : this address is used already, for listening on 'unix@/r/a' in peers section 'p' (t.cfg:4). Each needs",
        "config : parsing [t.cfg:8] : peer 'b' of peers section 'q' : this address is used already, for peer 'b' of peers section 'p' (t.cfg:5).",
    ];
    assert_eq!(got.len(), want.len(), "{got:#?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want), "{got}\n{want}");
    }
    let disabled = sections.replace("peers q\n", "peers q\n disabled\n");
    assert_eq!(
        errors(&format!("global\n localpeer a\n{disabled}")),
        [""; 0]
    );

    let proxies = |binds: &str| {
        format!("defaults\n timeout client 1s\nfrontend f\n{binds} http-request deny\n mode http\n")
    };
    for (global, binds, line, expected) in [
        (
            " stats socket /r/a\n",
            "",
            5,
            "listening on 'unix@/r/a' in peers section 'p' : this address is used already, for 'stats socket /r/a' (t.cfg:3)",
        ),
        (
            " admin bind 127.0.0.1:99\n",
            " bind :80,127.0.0.1:99\n",
            10,
            "'bind 127.0.0.1:99' of frontend 'f' : this address is used already, for 'admin bind 127.0.0.1:99' (t.cfg:3)",
        ),
        (
            "",
            " bind unix@/r/b\n",
            9,
            "'bind unix@/r/b' of frontend 'f' : this address is used already, for peer 'b' of peers section 'p' (t.cfg:5)",
        ),
        (
            "",
            " bind [::]:80\n bind :::80 v6only\n",
            10,
            "'bind :::80' of frontend 'f' : this address is used already, for 'bind [::]:80' of frontend 'f' (t.cfg:9)",
        ),
    ] {
        let peers = "peers p\n server a unix@/r/a\n server b unix@/r/b\n";
        let config = format!("global\n localpeer a\n{global}{peers}{}", proxies(binds));
        let want = format!("config : parsing [t.cfg:{line}] : {expected}");
        let got = errors(&config);
        assert!(
            got.len() == 1 && got[0].starts_with(&want),
            "{config}{got:#?}\n{want}"
        );
    }
    // The kernel chooses other ports; a chroot makes other paths.
    let fine = format!(
        "global\n localpeer a\n chroot /j\n stats socket /r/b\npeers p\n server a unix@/r/a\n server b unix@/r/b\n{}",
        proxies(" bind 127.0.0.1:0\n bind 127.0.0.1:0\n")
    );
    assert_eq!(errors(&fine), [""; 0]);
}

#[test]
fn discovery() {
    check(&[
        ("discover", "'discover' expects 'dns <name>:<port>"),
        ("discover mdns x:1", "'discover' : unknown method 'mdns'."),
        (
            "discover dns x",
            "'discover dns x' : missing port specification in 'x'",
        ),
        ("discover dns x:0", "'discover dns x:0' : invalid port '0'"),
        (
            "discover dns 10.0.0.1:5",
            "'discover dns 10.0.0.1:5' : '10.0.0.1' is no DNS name. Nodes with fixed addresses",
        ),
        (
            "discover dns x:1 every",
            "'discover dns x:1' : 'every' : missing value",
        ),
        (
            "discover dns x:1 every 10ms",
            "'discover dns x:1' : 'every' must be at least 100 ms.",
        ),
        (
            "discover dns x:1 every 5y",
            "'discover dns x:1' : unexpected character 'y' in 'every'",
        ),
        (
            "discover dns x:1 nameserver y",
            "'discover dns x:1' : 'nameserver' : 'y' is no IP address",
        ),
        (
            "discover dns x:1 evry 5s",
            "'discover dns x:1' : unknown keyword 'evry'",
        ),
        (
            "discover dns x:1 ssl verify required",
            "'discover dns x:1' : the other side's certificate is verified by default",
        ),
        (
            "discover dns x:1",
            "'discover dns x' : peers would speak plain text over the network",
        ),
    ]);
    let twice = " allow-plaintext\n bind :5\n discover dns x:1\n discover dns X:2\n";
    assert_eq!(
        section(twice),
        ["config : parsing [t.cfg:7] : 'discover dns x' is already at t.cfg:6."]
    );
}

#[test]
fn tables() {
    check(&[
        ("table", "'table' expects a name, and then"),
        ("table t", "table: missing size."),
        ("table t type ip", "table: missing size."),
        (
            "table t type ip size 1k foo",
            "table: unknown argument 'foo'.",
        ),
        (
            "table t type ip size 1k store foo",
            "table: unknown store option 'foo'.",
        ),
        (
            "table t/u type ip size 1k",
            "table: character '/' is not permitted in table name 't/u'.",
        ),
        (
            "table t type ip size 1k peers p",
            "table: unknown argument 'peers'",
        ),
    ]);
    let twice = format!("{OK} table t type ip size 1\n table t type ip size 2\n");
    assert_eq!(
        section(&twice),
        ["config : parsing [t.cfg:8] : table: 't' was already declared at t.cfg:7."]
    );
    let wrong = format!("{OK}backend b\n stick-table type ip size 1 peers pp\n");
    assert_eq!(
        section(&wrong),
        [
            "config : parsing [t.cfg:8] : Proxy 'b': unable to find sync peers 'pp'; did you mean 'p' maybe ?"
        ]
    );
}

#[test]
fn sections() {
    let one = |text: &str| errors(text).into_iter().next().unwrap_or_default();
    for (text, expected) in [
        ("peers\n", "[t.cfg:1] : missing name for peers section."),
        (
            "peers p q\n",
            "[t.cfg:1] : 'peers' cannot handle unexpected argument 'q'.",
        ),
        (
            "peers p from x\n",
            "[t.cfg:1] : 'peers' cannot handle unexpected argument 'from'.",
        ),
        (
            "peers a/b\n",
            "[t.cfg:1] : character '/' is not permitted in 'peers' name 'a/b'.",
        ),
        (
            "peers p\n disabled\npeers p\n disabled\n",
            "[t.cfg:3] : peers section 'p' has the same name as another peers section declared at t.cfg:1.",
        ),
        (
            "peers p\n disabled\nglobal\n localpeer x\n",
            "[t.cfg:4] : 'localpeer' stands below a 'peers' section, where HAProxy ignores it",
        ),
    ] {
        let got = one(text);
        let want = format!("config : parsing {expected}");
        assert!(
            got.starts_with(&want),
            "{text}\n  want: {want}\n  got:  {got}"
        );
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let all = section(" bind x\n server a\n foo\n server b 127.0.0.1\n server c 127.0.0.1:5 bar\n");
    let lines: Vec<&str> = all
        .iter()
        .filter_map(|e| e.split(['[', ']']).nth(1))
        .collect();
    assert_eq!(lines, ["t.cfg:4", "t.cfg:6", "t.cfg:7", "t.cfg:8"]);
}

#[test]
fn this_node_must_be_one_of_them() {
    let text = "peers p\n bind 127.0.0.1:5\n server hots1 127.0.0.1:1\n server b 127.0.0.1:2\n";
    let got = errors(text);
    assert_eq!(got.len(), 1, "{got:#?}");
    for part in [
        "[t.cfg:1] : peers section 'p': no peer named 'host1'",
        "the host name",
        "only 'hots1', 'b'",
        "did you mean 'hots1' maybe ?",
        "'localpeer' in 'global' or '-L'",
    ] {
        assert!(got[0].contains(part), "{part}: {}", got[0]);
    }
    let got = errors(&format!("global\n localpeer z\n{text}"));
    assert!(got[0].contains("'z' (this node's name, by 'localpeer')"));
    let source = Source {
        name: "t.cfg".into(),
        text: text.into(),
    };
    let named = |name: &str| {
        let options = Options {
            localpeer: Some(name.to_owned()),
            ..options()
        };
        load(std::slice::from_ref(&source), &options, &mut World)
    };
    let got = named("x").diags;
    assert!(got[0].text.contains("'x' (this node's name, by '-L')"));
    let fine = named("b");
    assert!(fine.plan.is_none(), "no address to be reached at");
    assert!(
        fine.diags[0]
            .text
            .contains("a 'bind' line (t.cfg:2) says already"),
        "{:?}",
        fine.diags
    );
    let empty = errors("peers p\n");
    assert!(empty.len() == 1 && empty[0].contains("no 'server' or 'peer' line at all"));
    // Switched off, it may be anything.
    good("peers p\n disabled\n server b 127.0.0.1:2\n");
}

#[test]
fn this_node_must_be_reachable() {
    assert_eq!(
        section(" server a\n server b 127.0.0.1:5\n"),
        [
            "config : parsing [t.cfg:4] : peers section 'p': this node ('a') listens nowhere, so no peer could reach it: add a 'bind' line, or an address on its own 'server' line."
        ]
    );
    let got = section(" bind 127.0.0.1:5\n peer a 127.0.0.1:6\n");
    assert!(
        got.len() == 1 && got[0].contains("[t.cfg:5]") && got[0].contains("(t.cfg:4)"),
        "{got:?}"
    );
    let got = section(" allow-plaintext\n discover dns x:5\n");
    assert!(got.len() == 1 && got[0].contains("listens nowhere"));
    let got = section(" peer a 127.0.0.1:5 disabled\n");
    assert!(
        got.len() == 1 && got[0].contains("this is the node itself"),
        "{got:?}"
    );
}

#[test]
fn one_mistake_is_one_message() {
    // What is wrong with the defaults is not repeated for every line that inherits them.
    let got = section(
        " default-bind ssl crt nope\n default-server ssl ca-file nope\n bind :5\n server a\n server b 10.0.0.2:5\n discover dns x:5\n",
    );
    assert_eq!(got.len(), 2, "{got:#?}");
    // A node under a wrong name is not also a peer without address.
    let got = section(" bind 127.0.0.1:5\n server aa\n server b 127.0.0.2:5\n");
    assert!(
        got.len() == 1 && got[0].contains("only 'aa', 'b'; did you mean 'aa' maybe ? Give"),
        "{got:?}"
    );
}

#[test]
fn a_chroot_needs_what_names_are_looked_up_with() {
    let text = |peer: &str| {
        format!("global\n localpeer a\n chroot /jail\npeers p\n allow-plaintext\n{OK} {peer}\n")
    };
    for (peer, expected) in [
        ("server c node-c:5", 1),
        ("discover dns nodes:5", 1),
        ("discover dns nodes:5 nameserver 10.0.0.53", 0),
        ("server c 10.0.0.3:5", 0),
        ("server c node-c:5 disabled", 0),
    ] {
        let said = said(&text(peer), Level::Notice);
        assert_eq!(said.len(), expected, "{peer}: {said:?}");
    }
}
