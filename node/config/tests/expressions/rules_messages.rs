//! Which rules are accepted, and what is said about the others. The texts are those of the reference; most were captured
//! from a running HAProxy.

use crate::support::{Bench, check};
use remora_config::plan::Mode;

#[test]
fn actions() {
    check(
        &mut Bench::default(),
        &[
            (
                "http-request foo",
                "'http-request' expects 'allow', 'reject', 'deny', 'tarpit', 'return', 'use-service', 'redirect', 'silent-drop', 'track-sc(*)', ",
            ),
            ("http-request foo", ", but got 'foo'."),
            ("http-request", "but got '' (missing argument)."),
            (
                "http-response reject",
                "but got 'reject'. Did you mean 'redirect' maybe ?",
            ),
            (
                "tcp-request connection foo",
                "'tcp-request connection' expects 'accept', 'reject', ",
            ),
            (
                "tcp-request connection foo",
                " in frontend 'fe' (got 'foo').",
            ),
            (
                "tcp-request connection rejct",
                "(got 'rejct'). Did you mean 'reject' maybe ?",
            ),
            (
                "http-request cache-use x",
                "'http-request cache-use' is a HAProxy feature that Remora does not support.",
            ),
            (
                "http-request set-path /x",
                "'http-request set-path' is a HAProxy feature that Remora does not support.",
            ),
            (
                "http-request set-map(a) b c",
                "'http-request set-map' is a HAProxy feature that Remora does not support.",
            ),
            (
                "http-request lua.foo",
                "'http-request lua.foo' is a HAProxy feature that Remora does not support.",
            ),
            (
                "tcp-request connection expect-proxy layer4",
                "'tcp-request connection expect-proxy' is a HAProxy feature that Remora does not support.",
            ),
            (
                "tcp-request content switch-mode http",
                "'tcp-request content switch-mode' is a HAProxy feature that Remora does not support.",
            ),
            ("tcp-request connection accept if known", ""),
            ("tcp-request session accept if known", ""),
            ("tcp-request content accept", ""),
            ("http-request allow", ""),
            ("http-request reject", ""),
            (
                "http-request allow foo",
                "'http-request allow' expects either 'if' or 'unless' followed by a condition but found 'foo'.",
            ),
            (
                "tcp-request connection accept foo",
                "'tcp-request connection accept' only accepts 'if' or 'unless', in frontend 'fe' (got 'foo')",
            ),
            ("http-request use-service prometheus-exporter if known", ""),
            (
                "http-request use-service",
                "'use-service' expects a service name.",
            ),
            (
                "http-request use-service prometheus",
                "unknown service 'prometheus'; the only one is 'prometheus-exporter'.",
            ),
            (
                "http-request use-service lua.x",
                "'http-request use-service lua.x' is a HAProxy feature that Remora does not support.",
            ),
            (
                "tcp-request content use-service lua.x",
                "'tcp-request content use-service' is a HAProxy feature that Remora does not support.",
            ),
            ("tcp-request connection silent-drop", ""),
            ("http-request silent-drop rst-ttl 3 if known", ""),
            (
                "http-request silent-drop rst-ttl",
                "'rst-ttl' expects an integer between 1 and 255",
            ),
            (
                "http-request silent-drop rst-ttl 256",
                "'rst-ttl' expects an integer between 1 and 255, got '256'",
            ),
            (
                "http-request silent-drop foo",
                "'http-request silent-drop' expects either 'if' or 'unless' followed by a condition but found 'foo'.",
            ),
        ],
    );
    check(
        &mut Bench {
            mode: Mode::Tcp,
            ..Bench::default()
        },
        &[(
            "tcp-response content accept",
            "is a HAProxy feature that Remora does not support.",
        )],
    );
}

#[test]
fn replies() {
    check(
        &mut Bench::default(),
        &[
            ("http-request deny", ""),
            ("http-request deny deny_status 429", ""),
            (
                "http-request deny status 404 content-type text/plain string x",
                "",
            ),
            (
                "http-request deny deny_status",
                "error detected in frontend 'fe' while parsing 'http-request deny' rule : 'status' expects <status_code> as argument.",
            ),
            (
                "http-request deny deny_status 418",
                "status code '418' not handled by default with 'default-errorfiles' argument.",
            ),
            (
                "http-request deny deny_status 999",
                "error detected in frontend 'fe' while parsing 'http-request deny' rule : Unexpected status code '999'.",
            ),
            (
                "http-request deny deny_status 100",
                "Unexpected status code '100'.",
            ),
            (
                "http-request deny deny_status abc",
                "Unexpected status code 'abc'.",
            ),
            (
                "http-request deny status 404 string x",
                "a content type must be defined when non-empty payload is configured.",
            ),
            ("http-request deny status 418 content-type a/b string x", ""),
            ("http-request deny default-errorfiles", ""),
            ("http-request deny hdr a b", ""),
            (
                "http-request deny hdr a",
                "'hdr' expects <name> and <value> as arguments.",
            ),
            (
                "http-request deny hdr 'a b' c",
                "'a b' is not a valid header name",
            ),
            (
                "http-request deny hdr x %[foo]",
                "unknown fetch method 'foo'.",
            ),
            (
                "http-request deny errorfiles foo",
                "'errorfiles' is a HAProxy feature that Remora does not support.",
            ),
            ("http-request deny errorfile page.http", ""),
            (
                "http-request deny errorfile junk.http",
                "'junk.http': unable to parse headers (error offset: 0).",
            ),
            (
                "http-request deny errorfile nope",
                "error opening file 'nope'.",
            ),
            (
                "http-request deny errorfile page.http hdr a b",
                "W:hdr parameters ignored by the http reply when used with an errorfile.",
            ),
            (
                "http-request deny lf-string x content-type a/b errorfile /x",
                "unexpected 'errorfile' argument, 'lf-string' already defined.",
            ),
            ("http-request tarpit", ""),
            ("http-request tarpit deny_status 429", ""),
            (
                "http-request tarpit deny_status 418",
                "status code '418' not handled by default with 'default-errorfiles' argument.",
            ),
            ("http-request return", ""),
            ("http-request return status 418", ""),
            (
                "http-request return status 418 default-errorfiles",
                "status code '418' not handled by default with 'default-errorfiles' argument.",
            ),
            (
                "http-request return deny_status 201",
                "'http-request return' expects either 'if' or 'unless' followed by a condition but found 'deny_status'.",
            ),
            (
                "http-request return status 200 content-type a/b",
                "W:content-type 'a/b' ignored by the http reply because neither errorfile nor payload defined.",
            ),
            (
                "http-request return content-type a/b string x string y",
                "unexpected 'string' argument, 'string' already defined.",
            ),
            (
                "http-request return status 200 content-type a/b string",
                "'string' expects <str> as argument.",
            ),
            (
                "http-request return content-type a/b lf-file page.txt if known",
                "",
            ),
            (
                "http-request return content-type a/b file big.txt",
                "file 'big.txt' exceeds the buffer size (20000 > 16384).",
            ),
            (
                "http-request return status 204 content-type a/b string x",
                "No body expected for 204 responses.",
            ),
            (
                "http-request return foo",
                "'http-request return' expects either 'if' or 'unless' followed by a condition but found 'foo'.",
            ),
            ("http-response deny", ""),
            ("http-response deny deny_status 400", ""),
            ("http-response return status 200", ""),
        ],
    );
}

#[test]
fn redirects() {
    check(
        &mut Bench::default(),
        &[
            (
                "http-request redirect",
                "error detected in frontend 'fe' while parsing 'http-request redirect' rule : redirection type expected ('prefix', 'location', or 'scheme').",
            ),
            (
                "http-request redirect foo",
                "expects 'code', 'prefix', 'location', 'scheme', 'set-cookie', 'clear-cookie', 'drop-query', 'ignore-empty' or 'append-slash' (was 'foo').",
            ),
            (
                "http-request redirect location",
                "missing argument for 'location'.",
            ),
            (
                "http-request redirect location / code 305",
                "'code': unsupported HTTP code '305' (must be one of 301, 302, 303, 307 or 308).",
            ),
            (
                "http-request redirect location / code",
                "missing argument for 'code'.",
            ),
            (
                "http-request redirect prefix / code 307 drop-query append-slash if known",
                "",
            ),
            ("http-request redirect location /x set-cookie a=b", ""),
            (
                "http-request redirect location %[path,foo]",
                "unknown converter 'foo'.",
            ),
            ("http-request redirect scheme https if !known", ""),
            (
                "http-response redirect prefix /",
                "response only supports redirect type 'location'.",
            ),
            ("http-response redirect location /", ""),
            (
                "redirect foo",
                "error detected in frontend 'fe' while parsing redirect rule : expects 'code', 'prefix'",
            ),
            ("redirect location /%[foo]", ""),
            ("redirect scheme https code 301 if !{ src 1.1.1.1 }", ""),
            ("redirect location / if", ""),
        ],
    );
}

#[test]
fn tracking_and_counting() {
    check(
        &mut Bench::default(),
        &[
            ("tcp-request connection track-sc0 src", ""),
            (
                "tcp-request connection track-sc1 src table be if ! known",
                "",
            ),
            ("tcp-request connection track-sc0 src lower table texts", ""),
            (
                "tcp-request content track-sc2 hdr(x-forwarded-for,-1) if known",
                "",
            ),
            ("http-request track-sc0 path table texts", ""),
            ("http-response track-sc0 src", ""),
            (
                "tcp-request connection track-sc3 src",
                "'tcp-request connection track-sc3' : 3 track-sc number exceeding 2 (tune.stick-counters-1) value",
            ),
            (
                "http-request track-scx src",
                "error detected in frontend 'fe' while parsing 'http-request track-scx' rule : Wrong track-sc number 'x'.",
            ),
            (
                "tcp-request connection track-sc0",
                "'tcp-request connection track-sc0' : missing fetch method",
            ),
            (
                "tcp-request connection track-sc0 src table nope",
                "Proxy 'fe': unable to find table 'nope' referenced by track-sc0.",
            ),
            (
                "tcp-request connection track-sc0 src foo",
                "'tcp-request connection track-sc0' only accepts 'if' or 'unless', in frontend 'fe' (got 'foo')",
            ),
            (
                "tcp-request connection track-sc0 always_true",
                "Proxy 'fe': stick-table 'fe' uses a type incompatible with the 'track-sc0' rule.",
            ),
            (
                "tcp-request connection track-sc0 src,bogus",
                "'tcp-request connection track-sc0' : unknown converter 'bogus'",
            ),
            (
                "tcp-request connection track-sc0 src)x",
                "missing comma after fetch keyword 'src'",
            ),
            ("tcp-request connection sc-inc-gpc0", ""),
            ("tcp-request connection sc-inc-gpc0(2) if known", ""),
            ("tcp-request connection sc-inc-gpc0()", ""),
            (
                "tcp-request connection sc-inc-gpc0(3)",
                "invalid stick table track ID 'sc-inc-gpc0(3)'. The max allowed ID is 2 (tune.stick-counters)",
            ),
            (
                "tcp-request connection sc-inc-gpc0(x)",
                "invalid stick table track ID 'sc-inc-gpc0(x)'. Expects sc-inc-gpc0(<Track ID>)",
            ),
            (
                "http-request sc-inc-gpc(0)",
                "Missing gpc ID 'sc-inc-gpc(0)'. Expects sc-inc-gpc(<GPC ID>,<Track ID>).",
            ),
            (
                "http-request sc-inc-gpc",
                "invalid gpc ID 'sc-inc-gpc'. Expects sc-inc-gpc(<GPC ID>,<Track ID>).",
            ),
            (
                "http-request sc-inc-gpc(0,9)",
                "invalid stick table track ID 'sc-inc-gpc(0,9)'. The max allowed ID is 2",
            ),
            (
                "http-request sc-inc-gpc(100,0)",
                "invalid gpc ID 'sc-inc-gpc(100,0)'.",
            ),
            ("http-request sc-add-gpc(1,0) 5", ""),
            ("http-request sc-add-gpc(1,0) hdr_cnt(a) if known", ""),
            (
                "http-request sc-add-gpc(1,0)",
                "'sc-add-gpc(1,0)' expects an integer or an expression",
            ),
            ("http-request sc-set-gpt0(0) path", ""),
            (
                "http-request sc-set-gpt0(0) method",
                "expects an expression that gives an integer",
            ),
            (
                "http-request sc-set-gpt(3,1) 7 foo",
                "'http-request sc-set-gpt(3,1)' expects either 'if' or 'unless' followed by a condition but found 'foo'.",
            ),
        ],
    );
}

#[test]
fn variables_and_headers() {
    check(
        &mut Bench::default(),
        &[
            (
                "http-request set-var-fmt(txn.x) \"%[path]-%ci\" if known",
                "",
            ),
            ("http-request set-var-fmt(txn.x,ifnotexists) x", ""),
            ("http-request set-var-fmt(txn.x)", "missing format string."),
            (
                "http-request set-var-fmt(txn.x) %[foo]",
                "unknown fetch method 'foo'.",
            ),
            ("http-response unset-var(txn.x)", ""),
            (
                "http-request unset-var",
                "invalid or incomplete action 'unset-var'.",
            ),
            (
                "http-request unset-var(txn.x,ifexists)",
                "takes no conditions",
            ),
            ("http-request set-var(txn.x) path", ""),
            (
                "http-request set-var(txn.x,ifnotexists,iflt) int(3) if known",
                "",
            ),
            (
                "http-request set-var(txn.x,foo) path",
                "unknown condition \"foo\".",
            ),
            (
                "http-request set-var(x) path",
                "invalid variable name 'x': it must begin with its scope",
            ),
            (
                "http-request set-var() path",
                "Empty variable name cannot be accepted.",
            ),
            ("http-request set-var(txn.x)", "missing fetch method."),
            (
                "http-request set-var txn.x",
                "invalid or incomplete action 'set-var'. Expects 'set-var(<var-name>)'.",
            ),
            (
                "http-request set-var(txn.x,ifexists path",
                "incomplete argument after action 'set-var(txn.x,ifexists'.",
            ),
            (
                "http-request set-var(txn.x) path,foo",
                "error detected in frontend 'fe' while parsing 'http-request set-var(txn.x)' rule : unknown converter 'foo'.",
            ),
            (
                "http-request set-var(txn.x) path foo",
                "'http-request set-var(txn.x)' expects either 'if' or 'unless' followed by a condition but found 'foo'.",
            ),
            ("tcp-request connection set-var(sess.x) src", ""),
            (
                "tcp-request connection set-var(txn.x) src",
                "W:variable 'txn.x' cannot be set yet",
            ),
            (
                "tcp-request connection set-var(sess.x) path",
                "extracts information from 'HTTP request headers', none of which is available here",
            ),
            (
                "http-request set-header a",
                "error detected in frontend 'fe' while parsing 'http-request set-header' rule : expects exactly 2 arguments.",
            ),
            (
                "http-request set-header a b c",
                "'http-request set-header' expects either 'if' or 'unless' followed by a condition but found 'c'.",
            ),
            ("http-request add-header x-a %[src] if known", ""),
            (
                "http-request set-header a: b",
                "'a:' is not a valid header name",
            ),
            ("http-request del-header", "expects at least 1 argument."),
            (
                "http-request del-header a -m",
                "-m flag expects exactly 1 argument.",
            ),
            (
                "http-request del-header a -m foo",
                "-m with unsupported matching method 'foo'.",
            ),
            ("http-request del-header a( -m reg", "regex 'a(' is invalid"),
            ("http-request del-header x- -m beg if known", ""),
        ],
    );
}

#[test]
fn switching() {
    check(
        &mut Bench::default(),
        &[
            ("use_backend", "'use_backend' expects a backend name."),
            ("use_backend be", ""),
            ("use_backend be if known", ""),
            (
                "use_backend be foo",
                "unexpected keyword 'foo' after switching rule, only 'if' and 'unless' are allowed.",
            ),
            (
                "use_backend nope if known",
                "Proxy 'fe': unable to find required use_backend: 'nope'.",
            ),
            (
                "use_backend fe",
                "Proxy 'fe': unable to find required use_backend: 'fe'.",
            ),
            ("use_backend %[path] if known", ""),
            (
                "use_backend %[foo]",
                "failed to parse use_backend rule '%[foo]' : failed to parse sample expression <foo]> : unknown fetch method 'foo'.",
            ),
        ],
    );
}
