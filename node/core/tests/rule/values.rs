//! Fetches and converters against values captured from HAProxy, and where it is differently done on purpose.

use crate::support::*;
use remora_core::rule::registry;

/// Renders `%[text]` for a request.
fn render(text: &str, target: &str, headers: &str) -> String {
    let world = world(Vec::new(), vec![proxy("fe", "listen", None)]);
    let names = Names::of(&world);
    let conn = conn("127.0.0.1", 0);
    let stream = StreamState::new(3);
    let mut lines = vec![format!("GET {target} HTTP/1.1")];
    if !headers.contains("Host: ") && !headers.ends_with('-') {
        lines.push("Host: h".to_string());
    }
    lines.extend(
        headers
            .split('|')
            .filter(|h| !h.is_empty() && *h != "-")
            .map(unescape),
    );
    lines.push("X-Case: 1".to_string());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut head = request(&lines);
    conn.requests.set(1);
    let msgs = Msgs {
        req: Some(&mut head),
        ..Msgs::default()
    };
    let mut out = Vec::new();
    let expr = names.expr(text);
    let format = Format {
        items: Box::new([FormatItem::Expr {
            expr,
            flags: Default::default(),
        }]),
    };
    format.render(&cx(&world, &conn, Some(&stream), 0), &msgs, &mut out);
    out.iter().map(|b| *b as char).collect()
}

fn unescape(text: &str) -> String {
    text.replace("<TAB>", "\t")
        .replace("<01>", "\u{1}")
        .replace("<7F>", "\u{7f}")
}

#[test]
fn values_are_those_of_haproxy() {
    let mut wrong = Vec::new();
    let rows = include_str!("captured/haproxy-2.6.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('\t').collect();
        let [expr, target, headers, expected] = cells[..] else {
            panic!("{row}")
        };
        // not supported here, but in the capture
        let name = expr.split(['(', ',']).next().unwrap();
        if registry::fetch(name).is_none() {
            continue;
        }
        count += 1;
        let got = render(expr, target, headers);
        if got != unescape(expected) {
            wrong.push(format!(
                "{expr} on {target} {headers}: expected <{expected}>, got <{got}>"
            ));
        }
    }
    assert!(count > 250, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
