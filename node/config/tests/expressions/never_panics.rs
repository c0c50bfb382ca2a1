//! No text makes a compiler panic, whatever it holds.

use crate::support::Bench;
use proptest::prelude::*;
use remora_config::lexer::Word;
use remora_config::scope::Where;
use remora_config::{expr, rules};

const PLACES: [Where; 9] = [
    Where::TcpConnection,
    Where::TcpSession,
    Where::TcpContent,
    Where::TcpResponse,
    Where::HttpRequest,
    Where::HttpResponse,
    Where::HttpAfterResponse,
    Where::UseBackend,
    Where::Log,
];

fn place() -> impl Strategy<Value = Where> {
    (0..PLACES.len()).prop_map(|i| PLACES[i])
}

/// Pieces that lead deep into the parsers, and noise between them.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "src", "path", "hdr(", "hdr(host,-1)", "sc_get_gpc(", "sc0_conn_rate", "src_conn_rate(be)", "var(txn.a",
            "int(", "str(\"", "')'", ",lower", ",field(1,\\,)", ",regsub(", ",ipmask(24", ",table_conn_rate(", ",add(",
            ",set-var(txn.x", "%[", "]", "%{+Q", "}", "%%", "%ci", "%", "{", "}", "!", "or", "||", "if", "unless", "known",
            "TRUE", "-i", "-m", "-f", "--", "-n", "-u", "str", "reg", "eq", "gt", "1:", ":", "10.0.0.0/8", "::1/64",
            "paths.lst", "deny", "deny_status", "429", "content-type", "string", "lf-string", "hdr", "errorfile", "return",
            "redirect", "location", "code", "301", "track-sc0", "track-sc", "table", "be", "sc-inc-gpc(", "sc-inc-gpc0(1)",
            "sc-add-gpc(0,0)", "set-var(", "set-var(sess.x,ifgt)", "set-header", "del-header", "silent-drop", "rst-ttl",
            "(", ")", ",", "\\", "\"", "'",
        ]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(piece(), 0..8).prop_map(|p| p.concat())
}

fn line() -> impl Strategy<Value = Vec<Word>> {
    prop::collection::vec(
        prop_oneof![4 => piece(), 1 => text()].prop_map(Word::new),
        0..9,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn expressions(text in text(), at in place()) {
        let _ = Bench::default().with(|s| expr::parse_sample(&text, at, s));
        let _ = Bench::default().with(|s| expr::parse_format(&text, at, s));
    }

    #[test]
    fn acls_and_conditions(words in line(), at in place()) {
        let _ = Bench::default().with(|s| expr::parse_acl(&words, s));
        let _ = Bench::default().with(|s| expr::parse_cond(&words, at, s));
    }

    #[test]
    fn rules_of_any_kind(words in line(), at in place()) {
        let _ = Bench::default().with(|s| rules::tcp_rule(at, &words, s));
        let _ = Bench::default().with(|s| rules::http_rule(at, &words, s));
        let _ = Bench::default().with(|s| rules::redirect(&words, s));
        let _ = Bench::default().with(|s| rules::use_backend(&words, s));
    }
}
