//! Which expressions, ACLs and formats are accepted, and what is said about the others. The texts are those of the
//! reference; most were captured from a running HAProxy.

mod expr_support;

use expr_support::{Bench, check};

#[test]
fn acl_values() {
    check(
        &mut Bench::default(),
        &[
            (
                "acl a src 10.0.0.0/8 ::/0 fe80::/10 1.2.3.4 10.1 10.0.0.0/255.255.0.0",
                "",
            ),
            ("acl a src host.example", ""),
            (
                "acl a src 10.0.0.0/33",
                "'10.0.0.0/33' is not a valid IPv4 or IPv6 address.",
            ),
            (
                "acl a src ::1/129",
                "'::1/129' is not a valid IPv4 or IPv6 address.",
            ),
            (
                "acl a src foo",
                "error detected while parsing ACL 'a' : 'foo' is not a valid IPv4 or IPv6 address.",
            ),
            (
                "acl a src -n host.example",
                "'host.example' is not a valid IPv4 or IPv6 address.",
            ),
            (
                "acl a src -n 10",
                "'10' is not a valid IPv4 or IPv6 address.",
            ),
            (
                "acl a src 0x10",
                "'0x10' is not a valid IPv4 or IPv6 address.",
            ),
            (
                "acl a src eq 1.1.1.1",
                "'eq' is not a valid IPv4 or IPv6 address.",
            ),
            (
                "acl a src 10.0.0.0/255.0.255.0",
                "a HAProxy feature that Remora does not support.",
            ),
            ("acl a dst_port 3 5:8 1: :9 gt 5 lt 4 eq 3:5", ""),
            ("acl a dst_port 5:3", "'5:3' is not a valid number range."),
            ("acl a dst_port foo", "'foo' is not a number."),
            ("acl a dst_port 0x10", "'0x10' is not a number."),
            ("acl a dst_port gte 3", "'gte' is not a number."),
            (
                "acl a dst_port gt foo",
                "'foo' is neither a number nor a supported operator.",
            ),
            ("acl a dst_port gt", ""),
            ("acl a int(-5) -- -5", ""),
            (
                "acl a dst_port -5",
                "'-5' is not a valid ACL option. Please use '--' before any pattern beginning with a '-'.",
            ),
            ("acl a path -m bin 00ff", ""),
            (
                "acl a path -m bin 0",
                "an even number of hex digit is expected.",
            ),
            (
                "acl a path -m bin 0g",
                "an hex digit is expected (found 'g').",
            ),
            ("acl a path_reg ^/a.*\\.php$", ""),
            ("acl a path_reg (", "regex '(' is invalid (error="),
            (
                "acl a path_reg (?=x)",
                "regex '(?=x)' is invalid (error=look-around",
            ),
            ("acl a method GET POST", ""),
        ],
    );
}

#[test]
fn acl_flags() {
    check(
        &mut Bench::default(),
        &[
            ("acl a path -i -f paths.lst /z", ""),
            ("acl a path -m beg -i -i -n -- -x", ""),
            ("acl a path_beg -i /x -m str", ""),
            (
                "acl a path -f paths.lst -m beg /z",
                "'-m' must only be specified before patterns and files in parsing ACL expression.",
            ),
            (
                "acl a path -f /nonexistent",
                "failed to open pattern file </nonexistent>.",
            ),
            ("acl a path -f", "failed to open pattern file <>."),
            (
                "acl a src -f nets.lst",
                "'foo' is not a valid IPv4 or IPv6 address at line 2 of file 'nets.lst'.",
            ),
            ("acl a path -z foo", "'-z' is not a valid ACL option."),
            (
                "acl a path -m foo bar",
                "unknown matching method 'foo' when parsing ACL expression.",
            ),
            ("acl a path -m reg -i x", ""),
            (
                "acl a path -M -f paths.lst",
                "'acl -M' is a HAProxy feature that Remora does not support.",
            ),
            ("acl a path -u 3 foo", ""),
            ("acl a src -m found", ""),
            ("acl a dst_port -m bool", ""),
        ],
    );
}

#[test]
fn acl_methods_and_casts() {
    check(
        &mut Bench::default(),
        &[
            ("acl a str(abc) -m ip 1.1.1.1", ""),
            ("acl a str(a) a", ""),
            (
                "acl a bin(00) x",
                "'bin' is a HAProxy feature that Remora does not support.",
            ),
            (
                "acl a base32+src x",
                "matching method must be specified first (using '-m') when using a sample fetch of this type ('base32+src').",
            ),
            ("acl a base32+src -m bin 00", ""),
            ("acl a always_true", ""),
            ("acl a always_true -m str 1", ""),
            (
                "acl a always_true -m ip 1.1.1.1",
                "matching method 'ip' cannot be used with fetch keyword 'always_true'.",
            ),
            (
                "acl a method -m ip 1.1.1.1",
                "matching method 'ip' cannot be used with fetch keyword 'method'.",
            ),
            ("acl a src -m beg 10.", ""),
            ("acl a path -m len ge 3", ""),
            ("acl a path_beg,lower /a", ""),
            ("acl a hdr_beg(host) x", ""),
            ("acl a hdr(a),lower,length gt 3", ""),
            (
                "acl a always_true,ipmask(24) 1.1.1.1",
                "converter 'ipmask' cannot be applied in ACL expression 'always_true,ipmask(24)'.",
            ),
            (
                "acl a path",
                "W:parsing acl keyword 'path' : no pattern is given, so this ACL never matches",
            ),
            (
                "acl a src_conn_rate",
                "W:'-m bool' whether a number is not 0",
            ),
            ("acl a path --", ""),
        ],
    );
}

#[test]
fn acl_names() {
    check(
        &mut Bench::default(),
        &[
            ("acl a-b.c:d_e src 1.1.1.1", ""),
            (
                "acl a/b src 1.1.1.1",
                "character '/' is not permitted in acl name 'a/b'.",
            ),
            (
                "acl or src 1.1.1.1",
                "acl name 'or' will never match. 'or' is used to express a disjunctive condition.",
            ),
            ("acl if src 1.1.1.1", "acl name 'if' is reserved"),
            (
                "acl a",
                "error detected while parsing ACL 'a' : missing fetch method in ACL expression ''.",
            ),
        ],
    );
}

#[test]
fn names_of_fetches_and_converters() {
    check(
        &mut Bench::default(),
        &[
            (
                "acl a nosuchfetch 1",
                "error detected while parsing ACL 'a' : unknown fetch method 'nosuchfetch' in ACL expression 'nosuchfetch'.",
            ),
            (
                "acl a src_con_rate gt 1",
                "unknown fetch method 'src_con_rate' in ACL expression 'src_con_rate'. Did you mean 'src_conn_rate' maybe ?",
            ),
            (
                "acl a src,bogus 1",
                "unknown converter 'bogus' in ACL expression 'src,bogus'.",
            ),
            ("acl a path,lowr x", "Did you mean 'lower' maybe ?"),
            (
                "acl a req.ssl_sni x",
                "'req.ssl_sni' is a HAProxy feature that Remora does not support.",
            ),
            (
                "acl a path,jwt_verify(a,b) 1",
                "'jwt_verify' is a HAProxy feature that Remora does not support.",
            ),
            (
                "http-request set-header a %[foo]",
                "failed to parse sample expression <foo]> : unknown fetch method 'foo'.",
            ),
            (
                "http-request set-header a x%[foo]b%[path]",
                "failed to parse sample expression <foo]b%[path]> : unknown fetch method 'foo'.",
            ),
            (
                "http-request set-header a %[path_beg]",
                "unknown fetch method 'path_beg'.",
            ),
            (
                "http-request set-header a %[path,lua.x]",
                "'lua.x' is a HAProxy feature that Remora does not support.",
            ),
        ],
    );
}

#[test]
fn arguments() {
    check(
        &mut Bench::default(),
        &[
            (
                "acl a src_conn_rate(nope) gt 3",
                "unable to find table 'nope' referenced in arg 1 of ACL keyword 'src_conn_rate' in proxy 'fe'.",
            ),
            (
                "acl a src,table_conn_rate(nope) gt 3",
                "unable to find table 'nope' referenced in arg 1 of conversion keyword 'table_conn_rate' for ACL keyword 'src' in proxy 'fe'.",
            ),
            (
                "http-request set-header a %[path,table_conn_rate(nope)]",
                "unable to find table 'nope' referenced in arg 1 of conversion keyword 'table_conn_rate' for sample fetch keyword 'path' in http-request expression in proxy 'fe'.",
            ),
            (
                "http-request track-sc0 src,table_conn_rate(nope)",
                "for sample fetch keyword 'src' in tracking rule in proxy 'fe'.",
            ),
            (
                "use_backend %[src,table_conn_rate(nope)]",
                "for sample fetch keyword 'src' in use_backend expression in proxy 'fe'.",
            ),
            ("acl a src_conn_rate() gt 3", ""),
            (
                "acl a src_conn_rate( gt 3",
                "fetch method 'src_conn_rate' : expected ')' in ACL expression 'src_conn_rate('.",
            ),
            (
                "acl a src_conn_rate(fe,fe) gt 3",
                "fetch method 'src_conn_rate' : expected ')' before ',fe)' in ACL expression 'src_conn_rate(fe,fe)'.",
            ),
            (
                "acl a path(a) x",
                "ACL keyword 'path' : expected ')' before 'a)'.",
            ),
            (
                "acl a sc_conn_rate gt 3",
                "fetch method 'sc_conn_rate' : expected type 'integer' at position 1, but got nothing in ACL expression 'sc_conn_rate'.",
            ),
            (
                "acl a sc_conn_rate(a) gt 3",
                "fetch method 'sc_conn_rate' : failed to parse 'a' as type 'integer' at position 1 in ACL expression 'sc_conn_rate(a)'.",
            ),
            (
                "acl a sc_get_gpc(0) gt 3",
                "fetch method 'sc_get_gpc' : missing arguments (got 1/2), type 'integer' expected in ACL expression 'sc_get_gpc(0)'.",
            ),
            (
                "acl a var(foo) -m found",
                "invalid args in fetch method 'var' : invalid variable name 'foo': it must begin with its scope, one of 'proc', 'sess', 'txn', 'req', 'res' or 'check' in ACL expression 'var(foo)'.",
            ),
            (
                "acl a var() -m found",
                "Empty variable name cannot be accepted",
            ),
            (
                "acl a fe_conn(be) gt 1",
                "unable to find frontend 'be' referenced in arg 1 of ACL keyword 'fe_conn' in proxy 'fe'.",
            ),
            (
                "acl a be_conn(fe) gt 1",
                "unable to find backend 'fe' referenced in arg 1 of ACL keyword 'be_conn' in proxy 'fe'.",
            ),
            ("acl a srv_conn(be/s1) gt 1", ""),
            (
                "acl a srv_conn(be/s9) gt 1",
                "unable to find server 's9' in proxy 'be', referenced in arg 1 of ACL keyword 'srv_conn' in proxy 'fe'.",
            ),
            (
                "acl a srv_conn(nope/s9) gt 1",
                "unable to find proxy 'nope' referenced in arg 1 of ACL keyword 'srv_conn' in proxy 'fe'.",
            ),
            (
                "http-request set-header a %[src,ipmask(33)]",
                "failed to parse sample expression <src,ipmask(33)]> : invalid arg 1 in converter 'ipmask' : failed to parse '33' as type 'IPv4 mask' at position 1.",
            ),
            (
                "http-request set-header a %[src,ipmask]",
                "invalid arg 1 in converter 'ipmask' : expected type 'IPv4 mask' at position 1, but got nothing.",
            ),
            (
                "http-request set-header a %[src,ipmask(24,64,1)]",
                "invalid arg 2 in converter 'ipmask' : expected ')' before ',1)]'.",
            ),
            (
                "http-request set-header a %[src,lower(1)]",
                "invalid arg 1 in converter 'lower' : expected ')' before '1)]'.",
            ),
            (
                "http-request set-header a %[path,field(a,b)]",
                "invalid arg 1 in converter 'field' : failed to parse 'a' as type 'integer' at position 1.",
            ),
            (
                "http-request set-header a %[path,field(1)]",
                "invalid arg 2 in converter 'field' : missing arguments (got 1/2), type 'string' expected.",
            ),
            (
                "http-request set-header a %[int(a)]",
                "fetch method 'int' : failed to parse 'a' as type 'integer' at position 1.",
            ),
            (
                "http-request set-header a %[ipv4(x)]",
                "fetch method 'ipv4' : failed to parse 'x' as type 'IPv4 address' at position 1.",
            ),
            (
                "http-request set-header a %[bool(foo)]",
                "invalid args in fetch method 'bool' : Expects 'true', 'false', '0' or '1'.",
            ),
            (
                "http-request set-header a %[int(1),add(foo)]",
                "invalid args in converter 'add' : expects an integer or a variable name.",
            ),
            ("http-request set-header a %[int(1),add(txn.foo)]", ""),
            (
                "http-request set-header a %[method,add(3)]",
                "converter 'add' cannot be applied.",
            ),
            (
                "http-request set-header a %[src,iif(a,b)]",
                "converter 'iif' cannot be applied.",
            ),
            (
                "http-request set-header a %[base32+src,add(2)]",
                "converter 'add' cannot be applied.",
            ),
        ],
    );
}

#[test]
fn readers_that_cannot_read() {
    check(
        &mut Bench::default(),
        &[
            (
                "acl a src_sess_rate gt 3",
                "'src_sess_rate' reads 'sess_rate', which table 'fe' does not store",
            ),
            (
                "acl a src_http_req_rate(be) gt 3",
                "which table 'be' does not store",
            ),
            (
                "acl a sc0_http_req_rate(be) gt 3",
                "which table 'be' does not store",
            ),
            ("acl a src,table_http_req_cnt(texts) gt 3", ""),
            (
                "acl a src,table_http_req_cnt gt 3",
                "'table_http_req_cnt' reads 'http_req_cnt', which table 'fe' does not store",
            ),
            // Array forms answer for the old names, within their size.
            ("acl a src_get_gpc0(arrays) gt 3", ""),
            ("acl a src_get_gpc(3,arrays) gt 3", ""),
            (
                "acl a src_get_gpc(4,arrays) gt 3",
                "reads 'gpc[4]', which table 'arrays' does not store",
            ),
            (
                "acl a src_get_gpc(100,arrays) gt 3",
                "invalid array index '100'",
            ),
            ("acl a src_inc_gpc0(arrays) gt 3", ""),
            (
                "acl a src_inc_gpc1(fe) gt 3",
                "reads 'gpc1', which table 'fe' does not store",
            ),
            (
                "acl a sc_conn_rate(3) gt 3",
                "invalid stick table track ID '3'. The max allowed ID is 2 (tune.stick-counters)",
            ),
            (
                "acl a sc_conn_rate(-1) gt 3",
                "invalid stick table track ID '-1'.",
            ),
            (
                "acl a sc7_conn_rate gt 3",
                "unknown fetch method 'sc7_conn_rate'",
            ),
            ("acl a src,in_table(texts)", ""),
            ("acl a src,table_idle(be) gt 3", ""),
            ("acl a table_cnt(texts) gt 3", ""),
        ],
    );
    // A proxy without a table of its own has nothing to fall back to.
    check(
        &mut Bench {
            proxy: 4,
            ..Bench::default()
        },
        &[
            (
                "acl a src_conn_rate gt 3",
                "unable to find table 'bare' referenced in arg 1 of ACL keyword 'src_conn_rate' in proxy 'bare'.",
            ),
            (
                "acl a src,in_table",
                "unable to find table 'bare' referenced in arg 1 of conversion keyword 'in_table'",
            ),
        ],
    );
}

#[test]
fn places() {
    check(
        &mut Bench::default(),
        &[
            ("http-response deny if METH_POST", ""),
            (
                "http-request set-header a %[be_name]",
                "because it needs 'backend' which is not available here.",
            ),
            (
                "http-request set-header a %[srv_name]",
                "because it needs 'server' which is not available here.",
            ),
            ("http-response set-header a %[be_name]-%[srv_name]", ""),
            ("tcp-request connection reject if WAIT_END", ""),
            (
                "acl a nbsrv gt 1",
                "proxy 'fe', referenced in arg 1 of ACL keyword 'nbsrv' in proxy 'fe', has not backend capability.",
            ),
            ("acl a fe_conn gt 1", ""),
            (
                "tcp-request connection track-sc0 path",
                "'tcp-request connection track-sc0' : fetch method 'path' extracts information from 'HTTP request headers', none of which is available here",
            ),
            (
                "tcp-request connection track-sc0 method",
                "extracts information from 'HTTP request', none of which is available here",
            ),
            (
                "tcp-request connection track-sc0 req.len",
                "extracts information from 'request buffer', none of which is available here",
            ),
            (
                "tcp-request content track-sc0 status",
                "extracts information from 'HTTP response', none of which is available here",
            ),
            (
                "http-request set-header a %[status]",
                "sample fetch <status]> may not be reliably used here because it needs 'HTTP response' which is not available here.",
            ),
            (
                "http-request set-header a %[res.hdr(a)]",
                "because it needs 'HTTP response headers' which is not available here.",
            ),
            (
                "http-response set-header a %[path]",
                "error detected in frontend 'fe' while parsing 'http-response set-header' rule : sample fetch <path]> may not be reliably used here because it needs 'HTTP request headers' which is not available here.",
            ),
            ("http-response set-header a %[hdr(a)]", ""),
            ("http-response set-header a %[src]", ""),
            (
                "http-response track-sc0 path",
                "fetch method 'path' extracts information from 'HTTP request headers', none of which is available here.",
            ),
            (
                "http-request deny if { status 3 }",
                "W:anonymous acl will never match because it uses keyword 'status' which is incompatible with 'frontend http-request header rule'",
            ),
            (
                "http-response deny if { path /x }",
                "W:anonymous acl will never match because it uses keyword 'path' which is incompatible with 'frontend http-response header rule'",
            ),
            (
                "tcp-request connection reject if { path x }",
                "W:anonymous acl will never match in 'tcp-request connection' because it uses keyword 'path' which is incompatible with 'frontend tcp-request connection rule'",
            ),
            (
                "tcp-request connection reject if HTTP",
                "W:acl 'HTTP' will never match in 'tcp-request connection' because it only involves keywords that are incompatible with 'frontend tcp-request connection rule'",
            ),
            (
                "use_backend be if { status 3 }",
                "W:incompatible with 'frontend use-backend rule'",
            ),
            ("tcp-request content reject if { path x }", ""),
            (
                "tcp-request connection reject if { src_conn_rate gt 3 }",
                "",
            ),
            (
                "tcp-request connection reject if { sc0_conn_rate gt 3 }",
                "",
            ),
        ],
    );
}

#[test]
fn conditions() {
    check(
        &mut Bench::default(),
        &[
            ("http-request deny if known", ""),
            ("http-request deny unless known or", ""),
            ("http-request deny if known or or known", ""),
            ("http-request deny if ! known", ""),
            ("http-request deny if !known !! known", ""),
            ("http-request deny if ! { src 1.1.1.1 } || known", ""),
            ("http-request deny if !{ src 1.1.1.1 } known OR TRUE", ""),
            ("http-request deny if", ""),
            ("http-request deny if !", ""),
            (
                "http-request deny if TRUE FALSE WAIT_END METH_GET METH_CONNECT METH_DELETE METH_HEAD METH_OPTIONS METH_POST METH_PUT METH_TRACE HTTP HTTP_1.0 HTTP_1.1 HTTP_2.0 HTTP_CONTENT HTTP_URL_ABS HTTP_URL_SLASH HTTP_URL_STAR LOCALHOST REQ_CONTENT",
                "",
            ),
            (
                "http-request deny if RDP_COOKIE",
                "'RDP_COOKIE' is a HAProxy feature that Remora does not support.",
            ),
            (
                "http-request deny if foo",
                "error detected while parsing an 'http-request deny' condition : no such ACL : 'foo'.",
            ),
            (
                "http-request deny if knwon",
                "no such ACL : 'knwon'. Did you mean 'known' maybe ?",
            ),
            (
                "http-request deny if { src 1.1.1.1",
                "missing closing '}' in condition.",
            ),
            (
                "http-request deny if { src 1.1.1.1 } }",
                "no such ACL : '}'.",
            ),
            (
                "http-request deny if { }",
                "missing fetch method in ACL expression ''.",
            ),
            (
                "http-request deny foo",
                "'http-request deny' expects either 'if' or 'unless' followed by a condition but found 'foo'.",
            ),
            (
                "tcp-request connection reject if foo",
                "'tcp-request connection reject' : error detected in frontend 'fe' while parsing 'if' condition : no such ACL : 'foo'",
            ),
            (
                "tcp-request connection reject foo",
                "'tcp-request connection reject' only accepts 'if' or 'unless', in frontend 'fe' (got 'foo')",
            ),
            (
                "redirect prefix / if foo",
                "error detected in frontend 'fe' while parsing redirect rule : error in condition: no such ACL : 'foo'.",
            ),
            (
                "use_backend be if nope",
                "error detected while parsing switching rule : no such ACL : 'nope'.",
            ),
        ],
    );
}

#[test]
fn formats() {
    check(
        &mut Bench::default(),
        &[
            ("http-request set-header a %ci%cp%b", ""),
            ("http-request set-header a a%b%%", ""),
            ("http-request set-header a %{+Q}[path]", ""),
            ("http-request set-header a %{+Q,-X,+E}[path]", ""),
            ("http-request set-header a %{+Q}o\\ %ci", ""),
            ("http-request set-header a %ci_x", ""),
            (
                "http-request set-header a %[path",
                "missing ']' after 'path'.",
            ),
            (
                "http-request set-header a %[path)]",
                "expected ']' after 'path', but found ')'.",
            ),
            (
                "http-request set-header a %[]",
                "failed to parse sample expression <]> : missing fetch method.",
            ),
            (
                "http-request set-header a %[path,lower,]",
                "failed to parse sample expression <path,lower,]> : unknown converter ''.",
            ),
            ("http-request set-header a %[path,,lower]", ""),
            (
                "http-request set-header a %{+Q]",
                "truncated line after '+Q]'.",
            ),
            ("http-request set-header a %{+Q}", "truncated line after"),
            (
                "http-request set-header a %{+Q}%ci",
                "parse argument modifier without variable name near '%{+Q}'.",
            ),
            (
                "http-request set-header a 100%",
                "truncated line after '%'.",
            ),
            (
                "http-request set-header a %1",
                "unexpected '1' after '%' at position 1 of '%1': a percent sign is written '%%'.",
            ),
            (
                "http-request set-header a %zz",
                "no such format alias 'zz' (a percent sign is written '%%').",
            ),
            (
                "http-request set-header a %Tr",
                "'%Tr' is a HAProxy feature that Remora does not support.",
            ),
            (
                "http-request set-header a %{+json}[path]",
                "'%{+json}' is a HAProxy feature that Remora does not support.",
            ),
            ("http-request set-header a %{+Z}[path]", "unknown flag '+Z'"),
            (
                "http-request set-header a %(x)[path]",
                "is a HAProxy feature that Remora does not support.",
            ),
            (
                "http-request set-header a '%[path,regsub(\"(a|b)\",x,g)]'",
                "",
            ),
            (
                "http-request set-header a %[path,regsub(\\\"(a|b)\\\",x,g)]",
                "",
            ),
            ("http-request set-header a %[str(\\\"a,b\\\"),upper]", ""),
            ("http-request set-header a '%[str(\"a)b\")]'", ""),
        ],
    );
}
