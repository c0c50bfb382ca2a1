//! Command lines that nobody would type: the CLI answers each of them, and goes on.

use cluster_tests::wait::until_true;

use crate::cli_tables::tables;
use crate::common::haproxy_lacks;

/// What leads deep into the commands.
const WORDS: &[&str] = &[
    "show",
    "set",
    "clear",
    "table",
    "t_str",
    "t_ip",
    "key",
    "ptr",
    "data.gpc0",
    "data.http_req_rate",
    "data.",
    "gt",
    "eq",
    "info",
    "stat",
    "sess",
    "peers",
    "errors",
    "servers",
    "state",
    "conn",
    "backend",
    "weight",
    "maxconn",
    "server",
    "frontend",
    "global",
    "disable",
    "enable",
    "be/s1",
    "help",
    "typed",
    "json",
    "desc",
    "env",
    "version",
    "timeout",
    "cli",
    "level",
    "operator",
    "user",
    "counters",
    "all",
    "activity",
    "tasks",
    "threads",
    "-1",
    "0",
    "4294967296",
    "99999999999999999999",
    "0x0",
    "0x100000000",
    "1.2.3.4",
    "::1",
    "1.2.3.4/33",
    "a\\;b",
    "\\",
    "\"",
    "'",
    "#",
    "%",
    "@1",
    "@!2",
    "<<",
    "\u{e4}",
    "\u{1}",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

#[test]
fn any_line_is_answered() {
    if haproxy_lacks("these commands") {
        return;
    }
    let proxy = tables();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    for _ in 0..1_500 {
        let words: Vec<&str> = (0..=random(8))
            .map(|_| WORDS[random(WORDS.len())])
            .collect();
        let line = words.join(if random(8) == 0 { ";" } else { " " });
        // `<<` waits for a payload; half-closing ends it.
        proxy.cli().ask(&line);
    }
    until_true("an answer", || {
        proxy.cli().ask("show info").contains("Name: Remora")
    });
}
