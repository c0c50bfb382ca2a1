//! Which formats are accepted, and what is said about the others. The texts are those of the reference; most were captured
//! from a running HAProxy.

use crate::support::{Bench, check};

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
