//! Which ACLs and conditions are accepted, and what is said about the others. The texts are those of the reference; most
//! were captured from a running HAProxy.

use crate::support::{Bench, check};

#[test]
fn values() {
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
fn flags() {
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
fn methods_and_casts() {
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
fn names() {
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
