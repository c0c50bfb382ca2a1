//! Mistakes and what is said about them.

mod support;

use remora_config::diag::Level;
use support::{errors, good, load_bytes, said};

/// Statements inside a section, each wrong in one way, and the message expected of it.
fn check(section: &str, cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        let text = format!("{section}\n    {line}\n");
        let got = errors(&text);
        let want = format!(
            "config : parsing [t.cfg:{}] : {expected}",
            text.lines().count()
        );
        assert!(
            got.iter().any(|e| e.starts_with(&want)),
            "{line}\n  want: {want}\n  got:  {got:#?}"
        );
    }
}

const UNSUPPORTED: &str = "is a HAProxy feature that Remora does not support.";

#[test]
fn global_statements() {
    check(
        "global",
        &[
            (
                "maxconn abc",
                "cannot parse 'maxconn' value 'abc', an integer is expected.",
            ),
            ("maxconn", "'maxconn' expects an integer argument."),
            (
                "maxconn 5 6",
                "'maxconn' cannot handle unexpected argument '6'.",
            ),
            (
                "nbthread",
                "'nbthread' passed a missing or unparsable integer value in ''",
            ),
            (
                "nbthread 0",
                "'nbthread' value must be between 1 and 64 (was 0)",
            ),
            ("log", "log : expects <address> and <facility> as arguments"),
            (
                "log 127.0.0.1",
                "log : expects <address> and <facility> as arguments",
            ),
            ("log 127.0.0.1 foo", "log : unknown log facility 'foo'"),
            (
                "log 127.0.0.1 local0 foo",
                "log : unknown optional log level 'foo'",
            ),
            (
                "log 127.0.0.1 local0 info foo",
                "log : unknown optional minimum log level 'foo'",
            ),
            (
                "log stdout format foo local0",
                "log : unknown log format 'foo'",
            ),
            (
                "log 127.0.0.1 len 10 local0",
                "log : invalid log length '10', must be between 80 and 65535",
            ),
            ("log 127.0.0.1:99999 local0", "log : invalid port '99999'"),
            (
                "log ring@x local0",
                "'log ring@' is a HAProxy feature that Remora does not support.",
            ),
            (
                "stats",
                "'stats' only supports 'socket', 'maxconn', 'bind-process' and 'timeout' (got '')",
            ),
            (
                "stats socket",
                "'stats socket' in global section expects an address or a path to a UNIX socket",
            ),
            ("admin", "'admin' only supports 'bind' (got '')"),
            (
                "admin bind",
                "'admin bind' in global section expects an address or a path to a UNIX socket",
            ),
            (
                "admin bind 127.0.0.1",
                "'admin bind' : missing port specification in '127.0.0.1'",
            ),
            (
                "admin bind 127.0.0.1:8404-8405",
                "'admin bind' : only one address is possible",
            ),
            (
                "admin bind /x level admin",
                "'admin bind' : unknown keyword 'level'",
            ),
            (
                "admin bind /x mod 600",
                "'admin bind' : unknown keyword 'mod'; did you mean 'mode' maybe ?",
            ),
            (
                "stats socket /x level foo",
                "'stats socket' : 'level' only supports 'user', 'operator', and 'admin' (got 'foo')",
            ),
            (
                "stats socket /x mode",
                "'stats socket' : 'mode' : missing or invalid mode '' (octal integer expected)",
            ),
            (
                "stats socket /x expose-fd listeners",
                "'stats socket expose-fd' is a HAProxy feature that Remora does not support.",
            ),
            (
                "stats maxconn x",
                "'stats maxconn' expects a positive value",
            ),
            (
                "stats timeout 5x",
                "'stats timeout' : unexpected character 'x'",
            ),
            (
                "hard-stop-after 5x",
                "unexpected character 'x' in argument to <hard-stop-after>.",
            ),
            ("setenv a", "'setenv' expects a name and a value."),
            (
                "tune.http.maxhdr 0",
                "'tune.http.maxhdr' expects a numeric value between 1 and 32767",
            ),
            (
                "tune.bufsize -5",
                "'tune.bufsize' expects a positive integer argument.",
            ),
            (
                "tune.foo 5",
                "unknown keyword 'tune.foo' in 'global' section",
            ),
            (
                "nbtread 5",
                "unknown keyword 'nbtread' in 'global' section; did you mean 'nbthread' maybe ?",
            ),
            (
                "lua-load /x",
                "'lua-load' is a HAProxy feature that Remora does not support.",
            ),
            (
                "master-worker quickly",
                "'master-worker' only supports 'no-exit-on-failure' option (got 'quickly').",
            ),
            (
                "daemon x",
                "'daemon' cannot handle unexpected argument 'x'.",
            ),
            (
                "http-err-codes 99",
                "'http-err-codes' : invalid status code or range '99'",
            ),
            ("no maxconn 5", "'no' and 'default' only go with options"),
        ],
    );
}

#[test]
fn frontend_statements() {
    check(
        "frontend f",
        &[
            ("foo", "unknown keyword 'foo' in 'frontend' section"),
            (
                "balanc",
                "unknown keyword 'balanc' in 'frontend' section; did you mean 'balance' maybe ?",
            ),
            ("mode foo", "unknown proxy mode 'foo'."),
            (
                "mode log",
                "'mode log' is a HAProxy feature that Remora does not support.",
            ),
            (
                "timeout client 5y",
                "unexpected character 'y' in 'timeout client'",
            ),
            (
                "timeout client",
                "'timeout client' expects an integer value (in milliseconds)",
            ),
            (
                "timeout foo 5s",
                "'timeout' supports 'client', 'server', 'connect'",
            ),
            (
                "timeout client 25d",
                "timer overflow in argument '25d' to 'timeout client' (maximum value is 2147483647 ms or ~24.8 days)",
            ),
            (
                "timeout client 5s 6s",
                "'timeout client' : unexpected extra argument '6s' after value '5s'.",
            ),
            (
                "clitimeout 5s",
                "'clitimeout' is no longer a keyword, please use 'timeout client' instead.",
            ),
            (
                "bind",
                "'bind' expects {<path>|[addr1]:port1[-end1]}{,[addr]:port[-end]}... as arguments.",
            ),
            ("bind :99999", "'bind' : invalid port '99999'"),
            (
                "bind 127.0.0.1",
                "'bind' : missing port specification in '127.0.0.1'",
            ),
            (
                "bind 127.0.0.1:80 foo",
                "'bind 127.0.0.1:80' in section 'frontend': unknown keyword 'foo'; did you mean 'tfo' maybe ?",
            ),
            (
                "bind 127.0.0.1:80 ssl crt x",
                "'bind ssl' is a HAProxy feature that Remora does not support.",
            ),
            (
                "bind quic4@:443",
                "'bind quic4@' is a HAProxy feature that Remora does not support.",
            ),
            (
                "bind fd@x",
                "'bind' : file descriptor 'x' is not a valid integer in 'fd@x'",
            ),
            (
                "bind :80 id 0",
                "'bind :80' in section 'frontend' : 'id' : custom id has to be > 0",
            ),
            (
                "bind :80 mode 999",
                "'bind :80' in section 'frontend' : 'mode' : missing or invalid mode '999' (octal integer expected)",
            ),
            ("option foo", "unknown option 'foo'."),
            ("option", "'option' expects an option name."),
            (
                "option dontlognull x",
                "'option dontlognull' cannot handle unexpected argument 'x'.",
            ),
            (
                "option httpchk",
                "'option httpchk' is a HAProxy feature that Remora does not support.",
            ),
            (
                "no option foo",
                "negation/default is not supported for option 'foo'.",
            ),
            (
                "default_backend",
                "'default_backend' expects a backend name.",
            ),
            (
                "default_backend a b",
                "'default_backend' cannot handle unexpected argument 'b'.",
            ),
            ("use_backend", "'use_backend' expects a backend name."),
            (
                "use_backend x foo",
                "unexpected keyword 'foo' after switching rule, only 'if' and 'unless' are allowed.",
            ),
            (
                "server s 1.1.1.1",
                "'server' not allowed because frontend 'f' has no backend capability.",
            ),
            (
                "errorfile 503",
                "errorfile : expects <status_code> and <file> as arguments.",
            ),
            (
                "errorfile 999 /x",
                "errorfile : status code '999' not handled.",
            ),
            (
                "errorfile 503 /nonexist",
                "errorfile : error opening file '/nonexist'.",
            ),
            (
                "errorfile 503 junk",
                "errorfile : 'junk': unable to parse headers",
            ),
            ("id 0", "custom id has to be > 0."),
            (
                "log",
                "log : expects <address> and <facility> or global as arguments",
            ),
            ("no log x", "log : 'no log' does not expect arguments"),
            (
                "tcp-request foo",
                "'tcp-request' expects 'inspect-delay', 'connection', 'session' or 'content' in frontend 'f' (got 'foo')",
            ),
            (
                "tcp-response content accept",
                "tcp-response content is only allowed in 'backend' sections or 'defaults' section with a name",
            ),
            ("stick-table type ip", "stick-table: missing size."),
            (
                "stats enable",
                "'stats enable' is a HAProxy feature that Remora does not support.",
            ),
            (
                "monitor-uri /x",
                "'monitor-uri' is a HAProxy feature that Remora does not support.",
            ),
            (
                "log-format %ci",
                "'log-format' is a HAProxy feature that Remora does not support.",
            ),
            (
                "option forwardfor except x",
                "'option forwardfor except' expects <address>[/mask] as argument.",
            ),
            (
                "option forwardfor foo",
                "'option forwardfor' only supports optional values: 'except', 'header' and 'if-none'.",
            ),
        ],
    );
}

#[test]
fn backend_statements() {
    check(
        "backend x",
        &[
            (
                "server",
                "'server' expects <name> and <addr>[:<port>] as arguments.",
            ),
            (
                "server s",
                "'server' expects <name> and <addr>[:<port>] as arguments.",
            ),
            (
                "server s 1.1.1.1:80 chek",
                "'server x/s' : unknown keyword 'chek'; did you mean 'check' maybe ?",
            ),
            (
                "server s 1.1.1.1:80 check",
                "'server check' is a HAProxy feature that Remora does not support.",
            ),
            (
                "server s 1.1.1.1:80 ssl verify none",
                "'server ssl' is a HAProxy feature that Remora does not support.",
            ),
            (
                "server s 127.0.0.1:70000",
                "'server x/s' : invalid port '70000'",
            ),
            (
                "server s nosuch.invalid:80",
                "'server x/s' : could not resolve address 'nosuch.invalid'.",
            ),
            (
                "server s 1.1.1.1:80 weight 300",
                "'server x/s' : weight of server s is not within 0 and 256 (300).",
            ),
            (
                "server s/4 1.1.1.1:80",
                "character '/' is not permitted in server name 's/4'.",
            ),
            (
                "server s 1.1.1.1:80 id 0",
                "'server x/s' : 'id' : custom id has to be > 0.",
            ),
            (
                "balance foo",
                "balance only supports 'roundrobin', 'leastconn', 'source' and 'random[(draws)]'.",
            ),
            (
                "balance uri",
                "'balance uri' is a HAProxy feature that Remora does not support.",
            ),
            (
                "balance static-rr",
                "'balance static-rr' is a HAProxy feature that Remora does not support.",
            ),
            (
                "balance random(0)",
                "balance random : number of draws must be at least 1.",
            ),
            (
                "balance random(x)",
                "balance random : unexpected character 'x' after argument.",
            ),
            ("retries x", "'retries' expects an integer argument"),
            (
                "tcp-request connection reject",
                "tcp-request connection is not allowed because backend 'x' is not a frontend",
            ),
            (
                "tcp-request inspect-delay x",
                "'tcp-request inspect-delay' expects a positive delay in milliseconds, in backend 'x' (unexpected character 'x')",
            ),
            (
                "stick on src",
                "'stick on' is a HAProxy feature that Remora does not support.",
            ),
            (
                "cookie SRV insert",
                "'cookie' is a HAProxy feature that Remora does not support.",
            ),
            (
                "server-template s 5 x:80",
                "'server-template' is a HAProxy feature that Remora does not support.",
            ),
        ],
    );
}

#[test]
fn expressions_and_rules() {
    check(
        "frontend fe\n mode http",
        &[
            (
                "acl a nosuchfetch 5",
                "error detected while parsing ACL 'a' : unknown fetch method 'nosuchfetch' in ACL expression 'nosuchfetch'.",
            ),
            (
                "acl a path -m foo x",
                "error detected while parsing ACL 'a' : unknown matching method 'foo' when parsing ACL expression.",
            ),
            (
                "acl a src 10.0.0.0/33",
                "error detected while parsing ACL 'a' : '10.0.0.0/33' is not a valid IPv4 or IPv6 address.",
            ),
            (
                "acl a src -f /nonexist",
                "error detected while parsing ACL 'a' : failed to open pattern file </nonexist>.",
            ),
            (
                "acl a src_conn_rate(nope) gt 5",
                "unable to find table 'nope' referenced in arg 1 of ACL keyword 'src_conn_rate' in proxy 'fe'.",
            ),
            (
                "http-request set-header x %[foo]",
                "error detected in frontend 'fe' while parsing 'http-request set-header' rule : failed to parse sample expression <foo]> : unknown fetch method 'foo'.",
            ),
        ],
    );
    for (line, part) in [
        (
            "http-request set-header x %[src,bogus]",
            "unknown converter 'bogus'.",
        ),
        ("http-request foo", "but got 'foo'"),
        ("http-request deny if nope", "no such ACL : 'nope'."),
        (
            "http-request deny if { path /x",
            "missing closing '}' in condition.",
        ),
        (
            "http-request deny foo",
            "expects either 'if' or 'unless' followed by a condition but found 'foo'.",
        ),
        (
            "http-request deny deny_status 418",
            "status code '418' not handled by default with 'default-errorfiles' argument.",
        ),
        (
            "http-request deny deny_status 999",
            "Unexpected status code '999'.",
        ),
        (
            "http-request track-sc3 src",
            "3 track-sc number exceeding 2 (tune.stick-counters-1) value",
        ),
        (
            "http-request track-sc0 src",
            "unable to find table 'fe' referenced by track-sc0.",
        ),
        (
            "http-request cache-use x",
            "'http-request cache-use' is a HAProxy feature that Remora does not support.",
        ),
        (
            "use_backend nope",
            "Proxy 'fe': unable to find required use_backend: 'nope'.",
        ),
        (
            "default_backend nope",
            "Proxy 'fe': unable to find required default_backend: 'nope'.",
        ),
        (
            "stick-table type ip size 5 peers nope",
            "[t.cfg:5] : Proxy 'fe': unable to find sync peers 'nope'.",
        ),
        ("tcp-request connection reject if { path /x }", "path"),
    ] {
        let text = format!("frontend fe\n mode http\n bind :1\n timeout client 1s\n {line}\n");
        let loaded = support::load_text(&text);
        assert!(
            loaded.diags.iter().any(|d| d.text.contains(part)),
            "{line}: {:#?}",
            loaded.diags
        );
    }
}

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
    let all = support::load_text("frontend f\n foo\n").diags;
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
fn text_mistakes_show_the_line() {
    assert_eq!(
        errors("global\n description \"a\n")[0],
        "config : parsing [t.cfg:2] : unmatched quote at position 14:\n   description \"a\n               ^"
    );
    assert!(errors("global\n description x \"${UNSET}\" y\n")[0].starts_with(
        "config : parsing [t.cfg:2] : argument number 2 at position 16 is empty and marks the end of the argument list"
    ));
    assert_eq!(
        errors("global\n daemon")[0],
        "config : parsing [t.cfg:2] : Missing LF on last line, file might have been truncated at position 8."
    );
    good("global\r\n daemon\r\n\r\n");
}

#[test]
fn conditions_and_directives() {
    let text = ".if feature(THREAD)\nglobal\n.else\nnonsense here \"\n.endif\n.if 0\n.if 1\nfoo\n.endif\n.elif streq(a,a)\n maxconn 7\n.else\nbar\n.endif\n";
    assert_eq!(good(text).global.maxconn, 7);
    for (text, expected) in [
        (
            "global\n.if 1\n",
            "parsing [t.cfg:2] : non-terminated '.if' block.",
        ),
        (
            ".endif\n",
            "parsing [t.cfg:1] : lone '.endif' with no matching '.if'.",
        ),
        (
            ".else\n",
            "parsing [t.cfg:1] : lone '.else' with no matching '.if'.",
        ),
        (
            ".elif 1\n",
            "parsing [t.cfg:1] : lone '.elif' with no matching '.if'.",
        ),
        (".foo\n", "parsing [t.cfg:1] : unknown directive '.foo'."),
        (
            ".if feature(THREAD\n.endif\n",
            "parsing [t.cfg:1] : expected ')' in argument 1 of predicate 'feature' used in conditional expression in '.if' at position 15:\n  .if feature(THREAD\n                    ^",
        ),
        (".alert \"no way\"\n", "parsing [t.cfg:1] : 'no way'."),
    ] {
        assert_eq!(errors(text)[0], format!("config : {expected}"), "{text}");
    }
    assert_eq!(
        said(".notice \"hello w\"\n", Level::Notice),
        ["config : parsing [t.cfg:1] : 'hello w'."]
    );
    assert_eq!(
        said(".warning x\n", Level::Warning),
        ["config : parsing [t.cfg:1] : 'x'."]
    );
}

#[test]
fn environment() {
    let text = "global\n setenv A \"b c\"\n presetenv A z\n presetenv P q\n setenv HOME \"$HOME/x\"\n description \"$A-$P-$HOME-${.LINE}-${.SECTION}-${.FILE}\"\n\
                \x20unsetenv P\n node \"${P-gone}\"\n resetenv A\n hostname \"${HOME-none}\"\n localpeer l1\n pidfile \"$HAPROXY_LOCALPEER\"\n";
    let g = good(text).global;
    assert_eq!(
        g.description.as_deref(),
        Some("b c-q-/root/x-6-global-t.cfg")
    );
    assert_eq!((g.node.as_str(), g.hostname.as_str()), ("gone", "none"));
    assert_eq!(
        (g.localpeer.as_str(), g.pidfile.as_deref()),
        ("l1", Some("l1"))
    );
    assert!(
        g.environment
            .contains(&("A".to_owned(), Some("b c".to_owned())))
    );
    good(
        ".if defined(HAPROXY_BRANCH)\n.if streq(\"$HAPROXY_CFGFILES\",t.cfg)\nglobal\n.endif\n.endif\n daemon\n",
    );
}

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
        let loaded = support::load_text(text);
        assert!(loaded.plan.is_some(), "{text} {:#?}", loaded.diags);
        let got = said(text, Level::Warning);
        assert!(
            got.iter().any(|w| w.starts_with(expected)),
            "{text}\n  want: {expected}\n  got: {got:#?}"
        );
    }
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
fn ipv6_clients_of_an_ipv4_table_are_noted() {
    let text = "frontend f\n bind ipv6@:1\n timeout client 1s\n stick-table type ip size 5 store gpc0\n tcp-request connection track-sc0 src\n";
    good(text);
    assert!(said(text, Level::Notice)[0].contains("table 'f' has keys of type 'ip'"));
    assert!(said(&text.replace("ipv6@", ""), Level::Notice).is_empty());
    assert!(said(&text.replace("type ip ", "type ipv6 "), Level::Notice).is_empty());
}

#[test]
fn junk_is_called_junk() {
    let elf = b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00>\x00\x01\x00";
    let texts: Vec<_> = load_bytes(elf).diags.into_iter().map(|d| d.text).collect();
    assert_eq!(
        texts[0],
        "config : parsing [t.cfg:1] : this is not a text file: it holds a NUL byte at position 8."
    );
    let junk = b"\x80\x81\x82 \xff\n".repeat(1000);
    let list = load_bytes(&junk).diags;
    assert!(list.len() < 60);
    assert!(
        list.iter()
            .all(|d| !d.text.contains('\u{81}') && d.text.len() < 200)
    );
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
