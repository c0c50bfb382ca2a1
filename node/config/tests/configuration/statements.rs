//! Mistakes in the statements of a section, and what is said about them.

use crate::support::{self, errors};

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
                "handoff a\n    handoff b",
                "'handoff' already specified: a process has one.",
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
