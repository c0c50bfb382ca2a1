//! Command lines that are shown are understood, and options that are named exist.

use remora::cli::{HELP, parse};

use crate::{pages, parts};

/// What stands behind the program's name where a line runs it.
fn arguments(line: &str) -> Option<&str> {
    const NAMES: [&str; 4] = [
        "remora ",
        "target/release/remora ",
        "/usr/bin/remora ",
        "cargo run --release -- ",
    ];
    let line = line.trim_start_matches("ExecStart=");
    let line = line.trim_start_matches("ExecStartPre=");
    NAMES.iter().find_map(|name| line.strip_prefix(name))
}

fn complaint(line: &str) -> Option<String> {
    // What a shell would put there, and what stands for the user's own.
    let words = arguments(line)?.replace("$(cat PIDFILE)", "1");
    let words = words.replace("ready|live", "ready");
    let why = parse(words.split_whitespace().map(Into::into)).err();
    Some(why.map(|w| w.0).unwrap_or_default())
}

#[test]
fn are_understood() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (path, text) in pages() {
        let (prose, blocks) = parts(&text);
        for line in blocks.iter().flat_map(|(_, block)| block.lines()) {
            let why = complaint(line);
            seen += usize::from(why.is_some());
            wrong.extend(why.filter(|w| !w.is_empty()));
        }
        // In a sentence they need not be complete.
        for line in prose.split('`').skip(1).step_by(2) {
            let why = complaint(line);
            seen += usize::from(why.is_some());
            wrong.extend(why.filter(|w| w.contains("unknown option")));
        }
        assert!(wrong.is_empty(), "{}: {wrong:#?}", path.display());
    }
    assert!(seen > 10, "only {seen}");
}

#[test]
fn options_in_tables_are_in_the_help() {
    for (path, text) in pages() {
        for row in text.lines().filter(|l| l.starts_with("| `-")) {
            let cell = row.split(" | ").next().unwrap_or_default();
            for quoted in cell.split('`').skip(1).step_by(2) {
                let option = quoted.split([' ', '|']).next().unwrap_or_default();
                let listed = HELP.lines().any(|l| {
                    l.split_whitespace()
                        .any(|w| w.trim_end_matches(',') == option)
                });
                assert!(listed, "{}: {option} is not in --help", path.display());
            }
        }
    }
}
