//! Conditions: every matching method and flag, named and anonymous, with `or`, `!` and `unless`.

use cluster_tests::{Client, Launch};

use crate::common::HEAD;

/// A condition, what the request brings (query and header lines), and whether it holds.
struct Case(&'static str, &'static str, &'static str, bool);

const CASES: &[Case] = &[
    // Strings and their methods.
    Case("{ hdr(x) -m str a }", "", "X: a", true),
    Case("{ hdr(x) a }", "", "X: A", false),
    Case("{ hdr(x) -i a }", "", "X: A", true),
    Case("{ hdr(x) a b c }", "", "X: c", true),
    Case("{ hdr(x) a }", "", "X: b, a", true),
    Case("{ req.hdr(x) -m str a }", "", "X: a, b", true),
    Case("{ req.fhdr(x) -m str a }", "", "X: a, b", false),
    Case("{ hdr(x) -m beg ab }", "", "X: abc", true),
    Case("{ hdr_beg(x) ab }", "", "X: cab", false),
    Case("{ hdr_end(x) -i BC }", "", "X: abc", true),
    Case("{ hdr_sub(x) b }", "", "X: abc", true),
    Case("{ hdr_reg(x) ^a.c$ }", "", "X: abc", true),
    Case("{ hdr_reg(x) -i ^A.C$ }", "", "X: abc", true),
    Case("{ hdr_len(x) 3 }", "", "X: abc", true),
    Case("{ hdr_len(x) gt 3 }", "", "X: abc", false),
    Case("{ hdr_dom(x) example }", "", "X: www.example.org:80", true),
    Case("{ hdr_dom(x) exam }", "", "X: www.example.org", false),
    Case("{ hdr_dir(x) b }", "", "X: /a/b/c", true),
    Case("{ hdr_dir(x) b }", "", "X: /a/bb/c", false),
    Case("{ hdr(x) -m bin 6162 }", "", "X: ab", true),
    Case("{ hdr(x) -m found }", "", "X: anything", true),
    Case("{ hdr(x) -m found }", "", "Y: anything", false),
    Case("{ hdr(x) -i -m beg -- -f }", "", "X: -F1", true),
    Case("{ hdr(x) -f list.txt }", "", "X: second", true),
    Case("{ hdr(x) -f list.txt }", "", "X: # comment", false),
    Case("{ hdr(x) -i -f list.txt third }", "", "X: THIRD", true),
    Case("{ hdr(x) -m end -f list.txt }", "", "X: the second", true),
    Case("{ hdr(x),lower -m str abc }", "", "X: ABC", true),
    // Integers.
    Case("{ hdr_cnt(x) 2 }", "", "X: a, b", true),
    Case("{ hdr_cnt(x) 3:5 }", "", "X: a, b", false),
    Case("{ hdr_cnt(x) 2: }", "", "X: a, b", true),
    Case("{ hdr_cnt(x) :1 }", "", "X: a, b", false),
    Case("{ hdr_val(x) ge 10 }", "", "X: 10", true),
    Case("{ hdr_val(x) lt 10 }", "", "X: 10", false),
    Case("{ hdr_val(x) eq 1 7 9 }", "", "X: 7", true),
    Case("{ hdr_val(x) -m bool }", "", "X: 0", false),
    Case("{ hdr_val(x) le -5 }", "", "X: -6", true),
    Case("{ int(5) 5 }", "", "", true),
    Case("{ bool(true) }", "", "", true),
    Case("{ always_false }", "", "", false),
    // Addresses.
    Case("{ src 127.0.0.0/8 }", "", "", true),
    Case("{ src 10.0.0.0/8 192.168.0.0/255.255.0.0 }", "", "", false),
    Case("{ src ::ffff:127.0.0.1 }", "", "", true),
    Case("{ hdr_ip(x) 2001:db8::/32 }", "", "X: 2001:db8:1::1", true),
    Case("{ hdr_ip(x) 2001:db8::/32 }", "", "X: 2001:db9:1::1", false),
    Case("{ hdr(x) -m ip 10.0.0.0/8 }", "", "X: 10.1.2.3", true),
    Case("{ hdr_ip(x) 10.0.0.1 }", "", "X: no address", false),
    // Requests.
    Case("{ method GET }", "", "", true),
    Case("{ method POST PUT }", "", "", false),
    Case("{ url_param(a) 1 }", "?a=1&b=2", "", true),
    Case("{ urlp(b) 2 }", "?a=1&b=2", "", true),
    Case("{ urlp(b) 2 }", "?a=1", "", false),
    Case("{ urlp_beg(b) x }", "?b=xy", "", true),
    Case("{ query -m sub b=2 }", "?a=1&b=2", "", true),
    Case("{ query -m found }", "", "", false),
    Case("{ cook(c) v }", "", "Cookie: a=1; c=v", true),
    Case("{ cook_sub(c) v }", "", "Cookie: c=uvw", true),
    Case("{ cook_cnt(c) 2 }", "", "Cookie: c=1; c=2", true),
    Case("{ req.ver 1.1 }", "", "", true),
    Case("{ url_end =2 }", "?a=2", "", true),
    Case("{ path_reg ^/[0-9]+$ }", "?x", "", true),
    Case("{ base_beg test/ }", "", "", true),
    // Logic.
    Case("TRUE", "", "", true),
    Case("FALSE", "", "", false),
    Case("METH_GET !HTTP_1.0", "", "", true),
    Case("LOCALHOST", "", "", true),
    Case("!{ hdr(x) a }", "", "", true),
    Case("! { hdr(x) a }", "", "X: a", false),
    Case("{ hdr(x) a } { hdr(y) b }", "", "X: a", false),
    Case("{ hdr(x) a } or { hdr(y) b }", "", "Y: b", true),
    Case(
        "{ hdr(x) a } || { hdr(y) b } { hdr(z) c }",
        "",
        "Y: b",
        false,
    ),
    Case("{ hdr(x) a } { hdr(y) b } or TRUE", "", "", true),
    Case("named", "", "X: one", true),
    Case("named", "", "Y: two", true),
    Case("named", "", "Y: three", false),
    Case("!named TRUE", "", "X: one", false),
    Case("{ var(txn.none) -m found }", "", "", false),
    Case("!{ var(txn.none) -m str x }", "", "", true),
    Case("{ str(abc) -m len 3 }", "", "", true),
    Case("{ str(abc),length 3 }", "", "", true),
    Case("{ nbsrv(none) 0 }", "", "", true),
    Case("{ fe_conn ge 1 }", "", "", true),
    Case("{ table_cnt(none) 0 }", "", "", true),
    Case("{ src_conn_cnt(none) 0 }", "", "", true),
    Case("{ src,in_table(none) }", "", "", false),
    Case("{ src,table_conn_cnt(none) 0 }", "", "", true),
];

#[test]
fn conditions_hold_when_they_should() {
    let mut config = format!(
        "{HEAD}
backend none
  stick-table type ip size 10 store conn_cnt
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
  acl named hdr(x) one
  acl named hdr(y) two
"
    );
    for (i, Case(condition, ..)) in CASES.iter().enumerate() {
        config += &format!(
            "  http-request return status 200 hdr R yes if {{ path /{i} }} {}\n",
            spread(condition, i)
        );
        config += &format!("  http-request return status 200 hdr R no if {{ path /{i} }}\n");
    }
    let proxy = Launch::new(&config)
        .file("list.txt", "# comment\nfirst\n\n  second\nthird\n")
        .start();
    let mut wrong = Vec::new();
    let mut client = Client::connect(proxy.addr("fe"));
    for (i, Case(condition, query, header, expected)) in CASES.iter().enumerate() {
        let header = if header.is_empty() {
            String::new()
        } else {
            header.lines().map(|l| format!("{l}\r\n")).collect()
        };
        client.send(format!(
            "GET /{i}{query} HTTP/1.1\r\nHost: test\r\n{header}\r\n"
        ));
        let answer = client.response().expect("an answer");
        let said = answer.header("r").map(|value| value == "yes");
        if said != Some(*expected) {
            wrong.push(format!("{condition} with {query} {header:?}: {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `a or b` after `{ path /N }` must not bind it to `a` alone: repeats the guard after each `or`.
fn spread(condition: &str, i: usize) -> String {
    let guard = format!("or {{ path /{i} }} ");
    condition.replace("or ", &guard).replace("|| ", &guard)
}

#[test]
fn unless_negates_the_whole_condition() {
    let proxy = Launch::new(&format!(
        "{HEAD}
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
  http-request deny unless {{ hdr(x) a }} {{ hdr(y) b }} or {{ hdr(z) c }}
  http-request return status 200
"
    ))
    .start();
    for (headers, status) in [
        ("X: a\r\n", 403),
        ("X: a\r\nY: b\r\n", 200),
        ("Z: c\r\n", 200),
        ("", 403),
    ] {
        let mut client = Client::connect(proxy.addr("fe"));
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{headers}\r\n"));
        assert_eq!(
            client.response().map(|r| r.status),
            Ok(status),
            "{headers:?}"
        );
    }
}
