//! Which fetches, converters and arguments are accepted, and where; and what is said about the others. The texts are those
//! of the reference; most were captured from a running HAProxy.

use crate::support::{Bench, check};

#[test]
fn names() {
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
