//! The documentation against the parser: what it lists is accepted, what is accepted it lists, and what it shows loads.

use std::collections::BTreeSet;

use remora_config::diag::Level;
use remora_config::known::{Kind, names};
use remora_config::{Loader, Source, load};

use crate::support::{load_text, options};

const CONFIGURATION: &str = include_str!("../../../../docs/configuration.md");

/// Every page with configurations in it.
const PAGES: [(&str, &str); 6] = [
    ("README.md", include_str!("../../../../README.md")),
    ("guide.md", include_str!("../../../../docs/guide.md")),
    ("configuration.md", CONFIGURATION),
    ("metrics.md", include_str!("../../../../docs/metrics.md")),
    ("reload.md", include_str!("../../../../docs/reload.md")),
    (
        "kubernetes.md",
        include_str!("../../../../docs/kubernetes.md"),
    ),
];

/// The page from one text to another.
fn between(from: &str, to: &str) -> &'static str {
    let rest = CONFIGURATION.split_once(from).expect(from).1;
    rest.split_once(to).expect(to).0
}

/// The row of a table that begins with this.
fn row(start: &str) -> &'static str {
    let mut rows = CONFIGURATION.lines().filter(|l| l.starts_with(start));
    let row = rows.next().expect(start);
    assert_eq!(rows.next(), None, "one row");
    row.trim_start_matches(start)
}

/// What stands in backquotes there: whole, and what a statement begins with.
fn words(text: &'static str) -> BTreeSet<&'static str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .flat_map(|q| {
            let first = q.split([' ', '(', '[']).next().unwrap_or(q);
            [q, first]
        })
        .collect()
}

/// What the parser says to it.
fn said(line: &str) -> String {
    let texts = load_text(line).diags.into_iter().map(|d| d.text);
    texts.collect::<Vec<_>>().join("\n")
}

fn is_refused(said: &str) -> bool {
    said.contains("is a HAProxy feature that Remora does not support")
        || said.contains("unknown keyword")
        || said.contains("is no longer a keyword")
        || said.contains("unknown option")
}

/// Names of a kind that the parser takes are `listed`, and those that it refuses are not. `line` makes a configuration of
/// a name; `silent`: names that are taken for the sake of old files, and not recommended.
fn agree(
    kind: Kind,
    listed: &BTreeSet<&'static str>,
    silent: &[&str],
    line: impl Fn(&str) -> String,
) -> Vec<String> {
    let of_haproxy = names(kind).filter(|name| !silent.contains(name));
    let own = listed.iter().copied().filter(|l| !l.contains(' '));
    let all: BTreeSet<&str> = of_haproxy.chain(own).collect();
    all.into_iter()
        .filter_map(|name| {
            let said = said(&line(name));
            (is_refused(&said) == listed.contains(name)).then(|| format!("{name}: {said}"))
        })
        .collect()
}

#[test]
fn what_is_listed_is_what_is_taken() {
    let mut wrong = Vec::new();
    let global = words(between("### global\n", "`admin bind ADDR:PORT"));
    let old = ["nbproc", "expose-deprecated-directives"];
    wrong.extend(agree(Kind::Global, &global, &old, |n| {
        format!("global\n {n}\n")
    }));
    let mut proxy = BTreeSet::new();
    for line in between("### Proxies\n", "\nThese options are read").lines() {
        let first = line.trim_start_matches("| ").split(" | ").next();
        proxy.extend(words(first.expect("a cell")));
    }
    // Second words, and what may stand before a first one.
    for other in ["session", "content", "inspect-delay", "no"] {
        assert!(proxy.remove(other));
    }
    wrong.extend(agree(Kind::Proxy, &proxy, &[], |n| {
        format!("listen l\n {n}\n")
    }));
    let mut option = words(row("| `option` "));
    option.extend(words(between(
        "These options are read",
        "`contstats` changes",
    )));
    wrong.extend(agree(Kind::Option, &option, &[], |n| {
        format!("listen l\n option {n}\n")
    }));
    let mut bind = words(row("| `bind` "));
    bind.retain(|w| !w.contains(['@', '/']));
    wrong.extend(agree(Kind::Bind, &bind, &[], |n| {
        format!("listen l\n bind :1 {n}\n")
    }));
    let mut server = words(row("| `server`, `default-server` "));
    server.retain(|w| !w.contains('/'));
    assert!(server.remove("no-…"));
    let off: Vec<_> = names(Kind::Server)
        .filter(|n| n.starts_with("no-"))
        .collect();
    wrong.extend(agree(Kind::Server, &server, &off, |n| {
        format!("listen l\n server s 192.0.2.1:1 {n}\n")
    }));
    let mut balance = words(row("| `balance` "));
    balance.retain(|w| !w.contains('['));
    wrong.extend(agree(Kind::Balance, &balance, &[], |n| {
        format!("listen l\n balance {n}\n")
    }));
    let mut peers = BTreeSet::new();
    for line in between("### Statements\n", "\n`check`, ").lines() {
        let first = line.trim_start_matches("| ").split(" | ").next();
        peers.extend(words(first.expect("a cell")));
    }
    wrong.extend(agree(Kind::Peers, &peers, &[], |n| {
        format!("peers p\n {n}\n")
    }));
    for name in words(row("| `timeout` ")) {
        let said = said(&format!("listen l\n timeout {name} 5s\n"));
        if said.contains("'timeout' supports") {
            wrong.push(format!("timeout {name}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Actions, in every set of rules.
#[test]
fn actions_that_are_listed_are_taken() {
    let mut wrong = Vec::new();
    let mut listed = BTreeSet::new();
    let table = between("| action | in | notes |\n|---|---|---|\n", "\nConditions:");
    for line in table.lines() {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let (names, sets) = (cells.next().expect("names"), cells.next().expect("sets"));
        for set in names_of_sets(sets) {
            for name in words(names).into_iter().filter(|n| !n.contains([' ', '('])) {
                listed.insert(format!("{set} {}", name.trim_end_matches('N')));
            }
        }
    }
    for name in names(Kind::Action) {
        let said = said(&format!("listen l\n mode http\n {name}\n"));
        // A slot's number belongs to the word.
        let refused = is_refused(&said) && !name.ends_with(" track-sc")
            || said.contains("only allowed in")
            || name.starts_with("http-after-response");
        if refused == listed.contains(name) {
            wrong.push(format!("{name}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn names_of_sets(cell: &str) -> Vec<&'static str> {
    const TCP: [&str; 3] = [
        "tcp-request connection",
        "tcp-request session",
        "tcp-request content",
    ];
    let mut sets = Vec::new();
    for word in cell.split(", ") {
        match word {
            "tcp-request" => sets.extend(TCP),
            "tcp-response" => sets.push("tcp-response content"),
            "http-request" => sets.push("http-request"),
            "http-response" => sets.push("http-response"),
            "all" => {
                sets.extend(TCP);
                sets.extend(["tcp-response content", "http-request", "http-response"]);
            }
            other => panic!("what is {other}?"),
        }
    }
    sets
}

/// All files hold a certificate and a key, all names an address.
struct Anything;

impl Loader for Anything {
    fn read(&mut self, _: &str) -> Result<Vec<u8>, String> {
        let part = |what: &str| format!("-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n");
        Ok((part("CERTIFICATE") + &part("PRIVATE KEY")).into_bytes())
    }
    fn resolve(&mut self, _: &str) -> Result<Vec<std::net::IpAddr>, String> {
        Ok(vec![[192, 0, 2, 1].into()])
    }
    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

#[test]
fn what_is_shown_loads() {
    let sections = [
        "global",
        "defaults",
        "frontend ",
        "backend ",
        "listen ",
        "peers ",
    ];
    let mut shown = 0;
    for (page, text) in PAGES {
        for block in text.split("```").skip(1).step_by(2) {
            let (language, block) = block.split_once('\n').expect("a line");
            let is_configuration = match language {
                "haproxy" => true,
                "" => sections.iter().any(|s| block.starts_with(s)),
                _ => false,
            };
            if !is_configuration {
                continue;
            }
            shown += 1;
            let mut options = options();
            if block.contains("server blue") {
                options.localpeer = Some("blue".to_owned());
            }
            let source = Source {
                name: page.to_owned(),
                text: block.as_bytes().to_vec(),
            };
            let loaded = load(&[source], &options, &mut Anything);
            let said = loaded.diags.iter().filter(|d| d.level > Level::Notice);
            let said: Vec<&str> = said.map(|d| d.text.as_str()).collect();
            assert!(said.is_empty(), "{page}:\n{block}\n{said:#?}");
        }
    }
    assert!(shown > 8, "only {shown}");
}
