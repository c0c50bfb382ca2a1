//! Texts that nobody wrote on purpose: the reader never panics, and quoting is undone exactly.

use proptest::prelude::*;
use remora_config::lexer::{self, Variables};

struct NoVars;
impl Variables for NoVars {
    fn value(&self, _: &str) -> Option<String> {
        None
    }
}

/// Pieces that are likely to get past the first checks.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("global\n".to_owned()),
        Just("defaults d\n".to_owned()),
        Just("frontend f from d\n".to_owned()),
        Just("backend b\n".to_owned()),
        Just("listen l\n".to_owned()),
        Just("peers p\n".to_owned()),
        Just("discover dns a:1 every ".to_owned()),
        Just("server host1 ".to_owned()),
        Just("table t type ip size 5 ".to_owned()),
        Just("ssl crt both.pem ca-file ".to_owned()),
        Just("mode http\n".to_owned()),
        Just("bind :".to_owned()),
        Just("server s 127.0.0.1:".to_owned()),
        Just("stick-table type ip size 5 store ".to_owned()),
        Just("timeout client ".to_owned()),
        Just("log ".to_owned()),
        Just("option ".to_owned()),
        Just("balance random(".to_owned()),
        Just("setenv ".to_owned()),
        Just("no ".to_owned()),
        Just(".if ".to_owned()),
        Just(".elif streq(".to_owned()),
        Just(".endif\n".to_owned()),
        Just("\"${HOME[*]}\"".to_owned()),
        Just("\\x4".to_owned()),
        Just("'".to_owned()),
        Just("\n".to_owned()),
        Just(" ".to_owned()),
        "[a-z0-9:,@/().%\\-]{0,8}",
        "\\PC{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_line_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(e) = lexer::words(&line, &NoVars) {
            prop_assert!(e.at <= line.len());
            let _ = (e.message(), lexer::caret(&line, e.at));
        }
    }

    #[test]
    fn quoted_words_come_back(list in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 1..6)) {
        // A NUL ends a line even inside quotes only when it is raw; quoted it is written as an escape.
        let line = list.iter().map(|w| lexer::quote(w)).collect::<Vec<_>>().join(&b' ');
        let words = lexer::words(&line, &NoVars).unwrap();
        let got: Vec<_> = words.into_iter().map(|w| w.bytes).collect();
        prop_assert_eq!(got, list);
    }

    #[test]
    fn any_file_is_loaded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let loaded = crate::support::load_bytes(&bytes);
        prop_assert_eq!(
            loaded.plan.is_none(),
            loaded.diags.iter().any(|d| d.level == remora_config::diag::Level::Alert)
        );
    }

    #[test]
    fn near_configurations_are_loaded_or_refused(parts in proptest::collection::vec(piece(), 0..40)) {
        let text = parts.concat();
        let loaded = crate::support::load_text(&text);
        prop_assert_eq!(
            loaded.plan.is_none(),
            loaded.diags.iter().any(|d| d.level == remora_config::diag::Level::Alert)
        );
    }

    #[test]
    fn conditions_never_panic(text in "[a-z0-9()!&|,\" ]{0,60}") {
        let _ = remora_config::eval_condition(&text, &|_| None);
    }
}
