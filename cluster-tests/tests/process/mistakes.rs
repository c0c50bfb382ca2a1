//! One configuration for every documented mistake.

/// A configuration with one wrong line, and what must be said about it.
pub(crate) struct Mistake {
    pub(crate) config: &'static str,
    /// The line (from 1) of `config` that is to blame, if the message names one.
    pub(crate) line: Option<u32>,
    pub(crate) says: &'static str,
}

const fn at(line: u32, config: &'static str, says: &'static str) -> Mistake {
    Mistake {
        config,
        line: Some(line),
        says,
    }
}

const fn after_parsing(config: &'static str, says: &'static str) -> Mistake {
    Mistake {
        config,
        line: None,
        says,
    }
}

pub(crate) const FE: &str = "frontend fe\n  mode http\n  bind 127.0.0.1:1\n";

/// `{FE}` stands for a frontend's first three lines.
pub(crate) const MISTAKES: &[Mistake] = &[
    // The table of error messages, row by row.
    at(
        4,
        "{FE}  foo bar\n",
        "unknown keyword 'foo' in 'frontend' section",
    ),
    at(
        2,
        "backend be\n  balanc roundrobin\n",
        "unknown keyword 'balanc' in 'backend' section; did you mean 'balance' maybe ?",
    ),
    at(4, "{FE}  option foo\n", "unknown option 'foo'."),
    at(4, "{FE}  http-request foo\n", "but got 'foo'"),
    at(4, "{FE}  http-request denny\n", "'http-request' expects "),
    at(4, "{FE}  tcp-request content foo\n", "'foo'"),
    at(
        4,
        "{FE}  acl a nosuchfetch\n",
        "error detected while parsing ACL 'a' : unknown fetch method 'nosuchfetch' in ACL expression 'nosuchfetch'.",
    ),
    at(
        4,
        "{FE}  http-request set-header X %[foo]\n",
        "unknown fetch method 'foo'",
    ),
    at(
        4,
        "{FE}  http-request set-var(txn.a) path,bogus\n",
        "unknown converter 'bogus'",
    ),
    at(
        4,
        "{FE}  acl a path -m foo x\n",
        "unknown matching method 'foo' when parsing ACL expression.",
    ),
    at(
        4,
        "{FE}  acl a src 10.0.0.0/33\n",
        "'10.0.0.0/33' is not a valid IPv4 or IPv6 address.",
    ),
    at(
        4,
        "{FE}  acl a src -f /nonexist\n",
        "failed to open pattern file </nonexist>.",
    ),
    at(
        4,
        "{FE}  tcp-request connection track-sc3 src table fe\n",
        "track-sc number exceeding 2 (tune.stick-counters-1) value",
    ),
    after_parsing(
        "{FE}  acl a src_conn_rate(nope) gt 1\n  tcp-request connection reject if a\n",
        "unable to find table 'nope' referenced in arg 1 of ACL keyword 'src_conn_rate' in proxy 'fe'.",
    ),
    after_parsing(
        "backend be\n  stick-table type ip size 1k store gpc0 peers nope\n",
        "nope",
    ),
    at(2, "backend be\n  mode foo\n", "unknown proxy mode 'foo'."),
    at(
        2,
        "defaults\n  timeout client 5y\n",
        "unexpected character 'y' in 'timeout client'",
    ),
    // The lexer.
    at(
        4,
        "{FE}  acl a path \"unclosed\n",
        "unmatched quote at position ",
    ),
    at(1, "foo bar\n", "unknown keyword 'foo' out of section."),
    at(
        1,
        "frontend a/b\n",
        "character '/' is not permitted in 'frontend' name 'a/b'.",
    ),
    at(4, "{FE}  .if defined(X)\n", "non-terminated '.if' block."),
    at(4, "{FE}  .endif\n", "lone '.endif' with no matching '.if'."),
    // Conditions.
    at(
        4,
        "{FE}  http-request deny if { path /a\n",
        "missing closing '}' in condition.",
    ),
    at(
        4,
        "{FE}  http-request deny if nope\n",
        "no such ACL : 'nope'.",
    ),
    at(4, "{FE}  http-request deny foo\n", "'foo'"),
    at(
        4,
        "{FE}  tcp-request connection track-sc0 path table fe\n",
        "fetch method 'path' extracts information from 'HTTP request headers', none of which is available here",
    ),
    at(4, "{FE}  acl if src 1.2.3.4\n", "'if'"),
    // Tables.
    at(
        4,
        "{FE}  stick-table type ip store gpc0\n",
        "stick-table: missing size.",
    ),
    at(
        4,
        "{FE}  stick-table size 1k\n",
        "stick-table: missing type.",
    ),
    at(
        4,
        "{FE}  stick-table type foo size 1k\n",
        "stick-table: unknown type 'foo'.",
    ),
    at(
        4,
        "{FE}  stick-table type ip size 1k store foo\n",
        "stick-table: unknown store option 'foo'.",
    ),
    at(
        4,
        "{FE}  stick-table type ip size 1k store conn_rate\n",
        "stick-table: missing argument to store option 'conn_rate'.",
    ),
    at(
        4,
        "{FE}  stick-table type ip size 1k store conn_cnt(3)\n",
        "stick-table: unexpected argument to store option 'conn_cnt'.",
    ),
    at(
        4,
        "{FE}  stick-table type ip size 1k store gpc(101)\n",
        "stick-table: array size is out of allowed range (1-100) for store option 'gpc'.",
    ),
    at(
        4,
        "{FE}  stick-table type ip size 1k foo\n",
        "stick-table: unknown argument 'foo'.",
    ),
    at(
        4,
        "{FE}  stick-table type ip size 1k expire 1x\n",
        "stick-table: unexpected character 'x' in argument of 'expire'.",
    ),
    after_parsing(
        "{FE}  tcp-request connection track-sc0 src\n",
        "Proxy 'fe': unable to find table 'fe' referenced by track-sc0.",
    ),
    // Answers.
    at(
        4,
        "{FE}  http-request deny deny_status 418\n",
        "status code '418' not handled by default with 'default-errorfiles' argument.",
    ),
    at(
        4,
        "{FE}  http-request return status 999\n",
        "Unexpected status code '999'.",
    ),
    // Addresses, servers, backends.
    at(
        3,
        "frontend fe\n  mode http\n  bind 127.0.0.1:99999\n",
        "invalid port '99999'",
    ),
    at(
        3,
        "frontend fe\n  mode http\n  bind 127.0.0.1:80 foo\n",
        "unknown keyword 'foo'",
    ),
    at(
        2,
        "backend be\n  server s 127.0.0.1:80 chek\n",
        "unknown keyword 'chek'; did you mean 'check' maybe ?",
    ),
    at(
        4,
        "{FE}  server s 127.0.0.1:80\n",
        "'server' not allowed because frontend 'fe' has no backend capability.",
    ),
    at(
        3,
        "backend be\n  server s 127.0.0.1:80\n  server s 127.0.0.1:81\n",
        "another server named 's' was already defined at line 2, please use a distinct name.",
    ),
    at(
        2,
        "backend be\n  server s nosuch.invalid:80\n",
        "'server be/s' : could not resolve address 'nosuch.invalid'.",
    ),
    after_parsing(
        "{FE}  default_backend nope\n",
        "Proxy 'fe': unable to find required default_backend: 'nope'.",
    ),
    at(
        2,
        "global\n  maxconn abc\n",
        "cannot parse 'maxconn' value 'abc', an integer is expected.",
    ),
    at(
        2,
        "global\n  stats socket /tmp/x level foo\n",
        "'level' only supports 'user', 'operator', and 'admin' (got 'foo')",
    ),
    at(2, "defaults\n  timeout foo 5s\n", "'timeout' supports "),
    at(
        3,
        "backend be\n  balance roundrobin\n  balance foo\n",
        "balance only supports 'roundrobin'",
    ),
];
