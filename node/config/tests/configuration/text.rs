//! What happens before there are statements: quotes, directives, environment variables, files that are no text.

use remora_config::diag::Level;

use crate::support::{errors, good, load_bytes, said};

#[test]
fn text_mistakes_show_the_line() {
    assert_eq!(
        errors("global\n description \"a\n")[0],
        "config : parsing [t.cfg:2] : unmatched quote at position 14:\n   description \"a\n               ^"
    );
    assert!(errors("global\n description x \"${UNSET}\" y\n")[0].starts_with(
        "config : parsing [t.cfg:2] : argument number 2 at position 16 is empty and marks the end of the argument list"
    ));
    assert_eq!(
        errors("global\n daemon")[0],
        "config : parsing [t.cfg:2] : Missing LF on last line, file might have been truncated at position 8."
    );
    good("global\r\n daemon\r\n\r\n");
}

#[test]
fn conditions_and_directives() {
    let text = ".if feature(THREAD)\nglobal\n.else\nnonsense here \"\n.endif\n.if 0\n.if 1\nfoo\n.endif\n.elif streq(a,a)\n maxconn 7\n.else\nbar\n.endif\n";
    assert_eq!(good(text).global.maxconn, 7);
    for (text, expected) in [
        (
            "global\n.if 1\n",
            "parsing [t.cfg:2] : non-terminated '.if' block.",
        ),
        (
            ".endif\n",
            "parsing [t.cfg:1] : lone '.endif' with no matching '.if'.",
        ),
        (
            ".else\n",
            "parsing [t.cfg:1] : lone '.else' with no matching '.if'.",
        ),
        (
            ".elif 1\n",
            "parsing [t.cfg:1] : lone '.elif' with no matching '.if'.",
        ),
        (".foo\n", "parsing [t.cfg:1] : unknown directive '.foo'."),
        (
            ".if feature(THREAD\n.endif\n",
            "parsing [t.cfg:1] : expected ')' in argument 1 of predicate 'feature' used in conditional expression in '.if' at position 15:\n  .if feature(THREAD\n                    ^",
        ),
        (".alert \"no way\"\n", "parsing [t.cfg:1] : 'no way'."),
    ] {
        assert_eq!(errors(text)[0], format!("config : {expected}"), "{text}");
    }
    assert_eq!(
        said(".notice \"hello w\"\n", Level::Notice),
        ["config : parsing [t.cfg:1] : 'hello w'."]
    );
    assert_eq!(
        said(".warning x\n", Level::Warning),
        ["config : parsing [t.cfg:1] : 'x'."]
    );
}

#[test]
fn environment() {
    let text = "global\n setenv A \"b c\"\n presetenv A z\n presetenv P q\n setenv HOME \"$HOME/x\"\n description \"$A-$P-$HOME-${.LINE}-${.SECTION}-${.FILE}\"\n\
                \x20unsetenv P\n node \"${P-gone}\"\n resetenv A\n hostname \"${HOME-none}\"\n localpeer l1\n pidfile \"$HAPROXY_LOCALPEER\"\n";
    let g = good(text).global;
    assert_eq!(
        g.description.as_deref(),
        Some("b c-q-/root/x-6-global-t.cfg")
    );
    assert_eq!((g.node.as_str(), g.hostname.as_str()), ("gone", "none"));
    assert_eq!(
        (g.localpeer.as_str(), g.pidfile.as_deref()),
        ("l1", Some("l1"))
    );
    assert!(
        g.environment
            .contains(&("A".to_owned(), Some("b c".to_owned())))
    );
    good(
        ".if defined(HAPROXY_BRANCH)\n.if streq(\"$HAPROXY_CFGFILES\",t.cfg)\nglobal\n.endif\n.endif\n daemon\n",
    );
}

#[test]
fn junk_is_called_junk() {
    let elf = b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00>\x00\x01\x00";
    let texts: Vec<_> = load_bytes(elf).diags.into_iter().map(|d| d.text).collect();
    assert_eq!(
        texts[0],
        "config : parsing [t.cfg:1] : this is not a text file: it holds a NUL byte at position 8."
    );
    let junk = b"\x80\x81\x82 \xff\n".repeat(1000);
    let list = load_bytes(&junk).diags;
    assert!(list.len() < 60);
    assert!(
        list.iter()
            .all(|d| !d.text.contains('\u{81}') && d.text.len() < 200)
    );
}
