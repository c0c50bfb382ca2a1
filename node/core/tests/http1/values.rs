//! Reading inside values. Expectations that look odd were checked against HAProxy 2.6.

use remora_core::http1::values::{cookie_pairs, list, query_param, url_params};
use remora_core::http1::{Head, Limits};

fn head(lines: &str) -> Head {
    let mut head = Head::default();
    let text = format!("GET /p?a=1 HTTP/1.1\r\nHost: Ho.st:80\r\n{lines}\r\n");
    head.parse_request(text.as_bytes(), &Limits::default())
        .expect("valid")
        .expect("complete");
    head
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn lists() {
    for (value, expected) in [
        ("a,b", &["a", "b"][..]),
        ("a", &["a"]),
        ("", &[""]),
        (",", &["", ""]),
        ("a,,b,", &["a", "", "b", ""]),
        ("\"a,b\",c", &["\"a,b\"", "c"]),
        ("\"a\\\",b\",c", &["\"a\\\",b\"", "c"]),
        ("a\"b,c\"d,e", &["a\"b,c\"d", "e"]),
        ("a b , c", &["a b", "c"]),
        ("\"a,b", &["\"a,b"]),
        ("a\\,b", &["a\\", "b"]),
        ("x,\"y\"", &["x", "\"y\""]),
    ] {
        assert_eq!(
            list(value.as_bytes()).map(text).collect::<Vec<_>>(),
            expected,
            "{value}"
        );
    }
}

#[test]
fn occurrences() {
    let head = head("X: a,b\r\nY: z\r\nx: c\r\n");
    let value = |nth| head.header_value(b"X", nth).map(text);
    let line = |nth| head.header_line(b"x", nth).map(text);
    for (nth, v, l) in [
        (1, Some("a"), Some("a,b")),
        (2, Some("b"), Some("c")),
        (3, Some("c"), None),
        (4, None, None),
        (0, None, None),
        (-1, Some("c"), Some("c")),
        (-2, Some("b"), Some("a,b")),
        (-3, Some("a"), None),
        (-4, None, None),
        (i32::MIN, None, None),
        (i32::MAX, None, None),
    ] {
        assert_eq!(
            (value(nth).as_deref(), line(nth).as_deref()),
            (v, l),
            "{nth}"
        );
    }
    assert_eq!(head.header_values(b"x").count(), 3);
    assert_eq!(head.header_lines(b"X").count(), 2);
    assert_eq!(
        head.header_lines(b"X").next_back().map(text).as_deref(),
        Some("c")
    );
    assert_eq!(
        head.headers()
            .map(|(name, _)| text(name))
            .collect::<Vec<_>>(),
        ["Host", "X", "Y", "x"]
    );
    assert!(head.header(b"Z").is_none());
}

#[test]
fn cookies() {
    for (line, expected) in [
        ("a=1; b=2; a=3", &[("a", "1"), ("b", "2"), ("a", "3")][..]),
        ("a = 1 ;b=2", &[("a", "1"), ("b", "2")]),
        ("a=\"x;y\"; a=2", &[("a", "\"x;y\""), ("a", "2")]),
        ("a; b=2, a=7", &[("b", "2"), ("a", "7")]),
        ("a=; a=5", &[("a", ""), ("a", "5")]),
        ("=v; a=5;", &[("", "v"), ("a", "5")]),
        ("a=x y =z; A=9", &[("a", "x y =z"), ("A", "9")]),
        ("", &[]),
    ] {
        let pairs: Vec<_> = cookie_pairs(line.as_bytes())
            .map(|(n, v)| (text(n), text(v)))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect();
        assert_eq!(pairs, expected, "{line}");
    }
    let head = head("Cookie: a=1; b=2\r\nX: y\r\ncookie: a=3\r\n");
    assert_eq!(
        head.cookies()
            .map(|(n, v)| text(n) + &text(v))
            .collect::<Vec<_>>(),
        ["a1", "b2", "a3"]
    );
    let mut response = Head::default();
    let bytes = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/; b=2\r\nset-cookie: c=3\r\nSet-Cookie: x\r\n\r\n";
    response
        .parse_response(bytes, &Limits::default())
        .expect("valid")
        .expect("complete");
    assert_eq!(
        response
            .set_cookies()
            .map(|(n, v)| text(n) + &text(v))
            .collect::<Vec<_>>(),
        ["a1", "c3"]
    );
}

#[test]
fn url_parameters() {
    let find = |target: &str, name: Option<&str>, delimiter: u8, ignore_case: bool| {
        url_params(target.as_bytes(), delimiter)
            .find(|(n, _)| {
                name.is_none_or(|w| {
                    if ignore_case {
                        n.eq_ignore_ascii_case(w.as_bytes())
                    } else {
                        *n == w.as_bytes()
                    }
                })
            })
            .map(|(_, v)| text(v))
    };
    for (target, a, any, after_slash) in [
        ("/p?a=1&b=2&a=3", Some("1"), Some("1"), Some("3")),
        ("/p?A=1;a=2", Some("2"), Some("1"), Some("2")),
        ("/p?b&a=2", Some("2"), Some("2"), Some("2")),
        ("/p?b&aa=2&a", None, Some("2"), None),
        ("/p?a=", Some(""), Some(""), None),
        ("/a=7?q", None, None, Some("7?q")),
        ("/p?x=1?a=2", Some("2"), Some("1"), None),
        ("/p?=3&a=3", Some("3"), Some("3"), Some("3")),
        ("/a=1/a=2&a=3", None, None, Some("1")),
        ("/p?%61=1&a=2", Some("2"), Some("1"), Some("2")),
        ("/p", None, None, None),
        ("*", None, None, None),
    ] {
        assert_eq!(
            find(target, Some("a"), b'?', false).as_deref(),
            a,
            "{target}"
        );
        assert_eq!(find(target, None, b'?', false).as_deref(), any, "{target}");
        assert_eq!(
            find(target, Some("a"), b'/', false).as_deref(),
            after_slash,
            "{target}"
        );
    }
    assert_eq!(
        find("/p?A=1&a=2", Some("a"), b'?', true).as_deref(),
        Some("1")
    );
    assert_eq!(query_param(b"a=1&B=2", Some(b"b"), true), Some(&b"2"[..]));
    assert_eq!(query_param(b"a=1&B=2", Some(b"b"), false), None);
    let head = head("");
    assert_eq!(head.url_param(Some(b"a"), b'?', false), Some(&b"1"[..]));
    let mut base = Vec::new();
    head.write_base(&mut base);
    assert_eq!(text(&base), "Ho.st:80/p");
}
