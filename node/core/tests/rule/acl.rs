//! ACL matching against answers captured from HAProxy; large lists; three values; the order of side effects.

use crate::support::*;

fn ask(text: &str, target: &str, headers: &str) -> bool {
    let world = world(Vec::new(), vec![proxy("fe", "listen", None)]);
    let names = Names::of(&world);
    let mut conn = conn("127.0.0.1", 0);
    conn.dst = std::cell::Cell::new("127.0.0.1:18080".parse().ok());
    conn.requests.set(1);
    let stream = StreamState::new(3);
    let mut lines = vec![format!("GET {target} HTTP/1.1"), "Host: h".to_string()];
    lines.extend(
        headers
            .split('|')
            .filter(|h| !h.is_empty())
            .map(String::from),
    );
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut head = request(&lines);
    let msgs = Msgs {
        req: Some(&mut head),
        ..Msgs::default()
    };
    let cond = names.cond(&format!("if {text}"));
    cond.eval(&cx(&world, &conn, Some(&stream), 0), &msgs) == Ternary::True
}

#[test]
fn lines_match_as_in_haproxy() {
    let mut wrong = Vec::new();
    for row in include_str!("captured/acl-2.6.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let cells: Vec<&str> = row.split('\t').collect();
        let [text, target, headers, expected] = cells[..] else {
            panic!("{row}")
        };
        if ask(text, target, headers) != (expected == "yes") {
            wrong.push(row);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The values of one line, compared with the naive meaning of each method.
#[test]
fn large_lists_match_like_small_ones() {
    // overlapping, nested, unsorted; some a prefix of another
    let words: Vec<String> = (0..2_000u64)
        .map(|i| {
            let n = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            format!("{:x}", n % (if i % 3 == 0 { 0xfff } else { 0x00ff_ffff }))
        })
        .collect();
    let probes: Vec<String> = (0..3_000u64)
        .map(|i| format!("{:x}", i.wrapping_mul(0xd134_2543_de82_ef95) >> 42))
        .chain(words.iter().take(50).cloned())
        .collect();
    let list = words.join(" ");
    let names = Names::of(&world(Vec::new(), Vec::new()));
    for (method, naive) in [
        ("str", (|t, w| t == w) as fn(&str, &str) -> bool),
        ("beg", |t, w| t.starts_with(w)),
        ("end", |t, w| t.ends_with(w)),
        ("sub", |t, w| t.contains(w)),
    ] {
        let world = world(Vec::new(), vec![proxy("fe", "listen", None)]);
        let conn = conn("127.0.0.1", 0);
        let line = names.acl(&format!("var(proc.x) -m {method} {list}"));
        for probe in &probes {
            let value = remora_core::rule::sample::Sample::Str(probe.clone().into_bytes().into());
            let var = names.var("proc.x");
            world.proc_vars.lock().set(var.name, value);
            let got = line.eval(&cx(&world, &conn, None, 0), &Msgs::default());
            let expected = words.iter().any(|w| naive(probe, w));
            assert_eq!(got == Ternary::True, expected, "{method} {probe}");
        }
    }
}

#[test]
fn networks_of_any_size() {
    let names = Names::of(&world(Vec::new(), Vec::new()));
    let world = world(Vec::new(), vec![proxy("fe", "listen", None)]);
    let list: Vec<String> = (0..5_000u32)
        .map(|i| {
            let addr = std::net::Ipv4Addr::from(i.wrapping_mul(2_654_435_761));
            format!("{addr}/{}", 12 + i % 21)
        })
        .collect();
    let line = names.acl(&format!("src {} 2001:db8::/32 ::/128", list.join(" ")));
    let nets: Vec<(u32, u32)> = list
        .iter()
        .map(|n| {
            let (addr, len) = n.split_once('/').unwrap();
            let mask = u32::MAX << (32 - len.parse::<u32>().unwrap());
            (
                u32::from(addr.parse::<std::net::Ipv4Addr>().unwrap()) & mask,
                mask,
            )
        })
        .collect();
    let matches = |ip: &str| {
        let conn = conn(ip, 0);
        line.eval(&cx(&world, &conn, None, 0), &Msgs::default()) == Ternary::True
    };
    for i in 0..3_000u32 {
        let raw = i.wrapping_mul(0x9e37_79b1);
        let ip = std::net::Ipv4Addr::from(raw);
        let expected = nets.iter().any(|(net, mask)| raw & mask == *net);
        assert_eq!(matches(&ip.to_string()), expected, "{ip}");
        assert_eq!(matches(&format!("::ffff:{ip}")), expected, "::ffff:{ip}");
    }
    assert!(matches("2001:db8:1::1"));
    assert!(!matches("2001:db9::1"));
}

#[test]
fn edges_of_networks() {
    assert!(ask("src 0.0.0.0/0", "/", ""));
    assert!(ask("ipv4(255.255.255.255) 255.255.255.255", "/", ""));
    assert!(ask("ipv4(0.0.0.0) 0.0.0.0", "/", ""));
    assert!(ask("ipv6(::) ::/0", "/", ""));
    assert!(!ask("src", "/", ""), "a line without values never matches");
}

#[test]
fn acl_fetch_is_the_and_of_its_terms() {
    let w = world(Vec::new(), vec![proxy("fe", "listen", None)]);
    let names = Names::of(&w);
    let terms = |text: &str| names.cond(&format!("if {text}")).any_of[0].clone();
    let conn = conn("127.0.0.1", 0);
    let cx = cx(&w, &conn, None, 0);
    for (text, expected) in [
        ("src 127.0.0.1", "1"),
        ("src 127.0.0.1 && !src 10.0.0.1", "1"),
        ("src 127.0.0.1 && src 10.0.0.1", "0"),
        ("wait_end && always_true", "?"),
        ("wait_end && always_false", "0"),
    ] {
        let mut expr = names.expr("always_true");
        expr.fetch = remora_core::rule::registry::Fetch::Acl(terms(text));
        let more_may_come = Msgs {
            req_content: Content {
                is_final: false,
                ..Content::default()
            },
            ..Msgs::default()
        };
        assert_eq!(show(expr.eval(&cx, &more_may_come)), expected, "{text}");
    }
}
