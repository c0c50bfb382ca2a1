use super::*;

struct Env;
impl Variables for Env {
    fn value(&self, name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/root".to_owned()),
            "LIST" => Some(" a  b c ".to_owned()),
            "EMPTY" => Some(String::new()),
            ".FILE" => Some("t.cfg".to_owned()),
            ".LINE" => Some("7".to_owned()),
            _ => None,
        }
    }
}

fn split(line: &str) -> Result<Vec<String>, LexError> {
    Ok(words(line.as_bytes(), &Env)?
        .iter()
        .map(|w| w.text().into_owned())
        .collect())
}

#[test]
fn quoting() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("   \t ", &[]),
        ("# comment", &[]),
        ("global#x", &["global"]),
        ("a b\t\tc", &["a", "b", "c"]),
        ("  a b  ", &["a", "b"]),
        ("a b\r", &["a", "b"]),
        ("a\"b c\"'d e'f", &["ab cd ef"]),
        ("\"x$HOME y\"", &["x/root y"]),
        ("'x$HOME'", &["x$HOME"]),
        ("x$HOME", &["x$HOME"]),
        ("\"${NOPE-def}\"", &["def"]),
        ("\"${HOME-def}\"", &["/root"]),
        ("\"${NOPE-}x\"", &["x"]),
        ("\"${EMPTY-def}x\"", &["x"]),
        (r"a\ b", &["a b"]),
        (r#""a\x41\tb""#, &["aA\tb"]),
        (r"\n\r\t\x41", &["\n\r\tA"]),
        (r#"\#\\\'\""#, &["#\\'\""]),
        (r#""\$HOME""#, &["$HOME"]),
        (r"\$HOME", &[r"\$HOME"]),
        (r"'a\ b'", &[r"a\ b"]),
        (r"\.php$ \1", &[r"\.php$", r"\1"]),
        ("\"a # b\" c#d", &["a # b", "c"]),
        ("\"it's\" 'say \"x\"'", &["it's", "say \"x\""]),
        ("\"${LIST[*]}\"", &["a", "b", "c"]),
        ("x\"${LIST[*]}\"y z", &["xa", "b", "cy", "z"]),
        ("a \"${NOPE[*]}\" b", &["a", "b"]),
        ("a \"${EMPTY[*]}\"", &["a"]),
        ("a \"${NOPE[*]-x}\" b", &["a", "x", "b"]),
        ("\"$LIST\"", &[" a  b c "]),
        ("\"${.FILE}:${.LINE}\"", &["t.cfg:7"]),
        ("\"${NOPE}\"", &[]),
        ("\"\"", &[]),
        ("trailing\\", &["trailing\\"]),
        ("a\0b c", &["a"]),
    ];
    for (line, expected) in cases {
        let got = split(line).unwrap_or_else(|e| panic!("{line}: {e:?}"));
        assert_eq!(got, *expected, "{line}");
    }
}

#[test]
fn mistakes_name_their_place() {
    use LexErrorKind::*;
    for (line, kind, at) in [
        ("a 'b", Quote, 2),
        ("a \"b", Quote, 2),
        ("\"${HOME", Brace, 2),
        ("\"${HOME-x\"", Brace, 2),
        ("\"${HOME}${X\"", Brace, 9),
        ("\"$-\"", VarName, 2),
        ("\"$\"", VarName, 2),
        ("\"${}\"", VarName, 3),
        ("\"${.NOPE}\"", VarName, 3),
        (r"a \x4g", Hex, 2),
        (r"a \x4", Hex, 2),
        ("\"${LIST[+]}\"", Expansion, 7),
        ("a \"\" b", EmptyWord(1), 2),
        ("a b ''", EmptyWord(2), 4),
        ("a \"${NOPE}\"", EmptyWord(1), 2),
        ("\"\" b", EmptyWord(0), 0),
    ] {
        assert_eq!(split(line), Err(LexError { kind, at }), "{line}");
    }
    assert_eq!(
        split("a \"\"").unwrap_err().message(),
        "argument number 1 at position 3 is empty and marks the end of the argument list:"
    );
    assert_eq!(
        split("http-request 'x").unwrap_err().message(),
        "unmatched quote at position 14:"
    );
}

#[test]
fn columns_are_where_words_begin() {
    let list = words(b"  acl 'a b' c\"d\"", &Env).unwrap();
    let cols: Vec<_> = list.iter().map(|w| w.col).collect();
    assert_eq!(cols, [2, 6, 12]);
}

#[test]
fn carets_point_at_the_place() {
    assert_eq!(caret(b"abc def", 4), "  abc def\n      ^");
    assert_eq!(caret(b"a\tb\x01c", 4), "  a b c\n      ^");
    let long = [b"x".repeat(300), b"HERE".to_vec(), b"y".repeat(300)].concat();
    let shown = caret(&long, 300);
    let (line, mark) = shown.split_once('\n').unwrap();
    let at = mark.find('^').unwrap();
    assert_eq!(&line[at..at + 4], "HERE");
    assert!(line.len() < 140);
}
