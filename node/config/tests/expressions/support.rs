//! A small configuration for expressions and rules to stand in: a frontend `fe`, a backend `be`, and tables of several
//! shapes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use remora_config::diag::{Diag, Diags};
use remora_config::lexer::{self, Variables, Word};
use remora_config::plan::{Mode, Place};
use remora_config::scope::{NamedAcl, ProxyInfo, Scope, Where};
use remora_config::{Loader, Options, expr, rules};
use remora_core::rule::action::Rule;
use remora_core::rule::cond::Acl;
use remora_core::table::{DataType, KeyType, Stored, TableId, TableSpec};
use remora_core::world::ProxyId;

/// Files and names that exist.
#[derive(Default)]
pub struct World {
    pub files: HashMap<String, Vec<u8>>,
    pub names: HashMap<String, Vec<IpAddr>>,
}

impl Loader for World {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.files.get(path).cloned().ok_or("no such file".into())
    }
    fn resolve(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.names.get(name).cloned().ok_or("no such host".into())
    }
    fn env(&self, name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }
}

impl Variables for World {
    fn value(&self, name: &str) -> Option<String> {
        self.env(name)
    }
}

fn table(
    name: &str,
    key_type: KeyType,
    key_len: usize,
    store: &[(DataType, u16, u32)],
) -> TableSpec {
    TableSpec {
        key_len,
        size: 100,
        expire_ms: Some(60_000),
        store: store
            .iter()
            .map(|&(data_type, elements, period_ms)| Stored {
                data_type,
                elements,
                period_ms,
            })
            .collect(),
        ..TableSpec::new(name, key_type)
    }
}

/// The tables: `fe`, `be`, `arrays`, `texts`.
pub fn tables() -> Vec<TableSpec> {
    use DataType::*;
    vec![
        table(
            "fe",
            KeyType::Ip,
            4,
            &[
                (Gpt0, 1, 0),
                (Gpc0, 1, 0),
                (ConnCnt, 1, 0),
                (ConnRate, 1, 10_000),
                (HttpReqRate, 1, 10_000),
            ],
        ),
        table(
            "be",
            KeyType::Ipv6,
            16,
            &[(Gpc0, 1, 0), (ConnRate, 1, 10_000)],
        ),
        table(
            "arrays",
            KeyType::Integer,
            4,
            &[(Gpt, 4, 0), (Gpc, 4, 0), (GpcRate, 4, 10_000)],
        ),
        table("texts", KeyType::String, 32, &[(HttpReqCnt, 1, 0)]),
    ]
}

pub fn proxies() -> Vec<ProxyInfo> {
    let proxy = |name: &str, front: bool, table: Option<u16>, servers: &[&str], line| ProxyInfo {
        name: name.to_owned(),
        is_frontend: front,
        is_backend: !front,
        mode: Mode::Http,
        table: table.map(TableId),
        servers: servers.iter().map(|s| (*s).to_owned()).collect(),
        place: Place { file: 0, line },
    };
    vec![
        proxy("fe", true, Some(0), &[], 5),
        proxy("be", false, Some(1), &["s1", "s2"], 20),
        proxy("arrays", false, Some(2), &[], 30),
        proxy("texts", false, Some(3), &[], 40),
        proxy("bare", false, None, &[], 50),
    ]
}

/// Where lines are compiled.
pub struct Bench {
    pub world: World,
    pub options: Options,
    pub proxy: u16,
    pub mode: Mode,
}

impl Default for Bench {
    fn default() -> Bench {
        let mut world = World::default();
        let mut file = |name: &str, text: &[u8]| {
            world.files.insert(name.to_owned(), text.to_vec());
        };
        file("paths.lst", b"# comment\n/a\n\n  /b c\r\n");
        file("nets.lst", b"10.0.0.0/8\nfoo\n");
        file(
            "page.http",
            b"HTTP/1.0 503 x\r\nContent-Type: a/b\r\n\r\nbody\n",
        );
        file("junk.http", b"hello");
        file("page.txt", b"hello %[path]");
        file("big.txt", &[b'x'; 20_000]);
        world
            .names
            .insert("host.example".to_owned(), vec![[192, 0, 2, 7].into()]);
        Bench {
            world,
            options: Options {
                hostname: "host".to_owned(),
                localpeer: None,
                cpus: 1,
                fd_limit: 1024,
                maxconn: None,
                pid: 1,
            },
            proxy: 0,
            mode: Mode::Http,
        }
    }
}

/// What compiling lines gave.
pub struct Compiled<T> {
    pub result: Result<T, String>,
    pub diags: Vec<Diag>,
}

impl Bench {
    /// Runs `f` with a scope in which ACL `known` (`src 10.0.0.1`) is declared.
    pub fn with<T>(&mut self, f: impl FnOnce(&mut Scope<'_>) -> Result<T, String>) -> Compiled<T> {
        let mut diags = Diags::default();
        diags.add_file("x.cfg");
        let proxies = proxies();
        let info = &proxies[usize::from(self.proxy)];
        let kind = if info.is_frontend {
            "frontend"
        } else {
            "backend"
        };
        let section = (kind.to_owned(), info.name.clone());
        let mut scope = Scope {
            tables: tables(),
            proxies,
            var_names: Vec::new(),
            acls: HashMap::new(),
            proxy: Some(ProxyId(self.proxy)),
            section,
            place: Place { file: 0, line: 10 },
            stick_counters: 3,
            bufsize: 16384,
            mode: self.mode,
            options: &self.options,
            loader: &mut self.world,
            environment: Default::default(),
            diags: &mut diags,
            tracked: Vec::new(),
            slot_reads: Vec::new(),
        };
        declare(&mut scope, "known src 10.0.0.1").expect("the known ACL");
        scope.place.line = 11;
        let result = f(&mut scope);
        drop(scope);
        Compiled {
            result,
            diags: diags.into_list(),
        }
    }

    /// Compiles one statement as a section would.
    pub fn line(&mut self, line: &str) -> Compiled<Statement> {
        let words = words(line);
        self.with(|scope| statement(&words, scope))
    }
}

/// Declares an ACL, adding to those of the same name.
pub fn declare(scope: &mut Scope<'_>, line: &str) -> Result<(), String> {
    let (name, line) = expr::parse_acl(&words(line), scope)?;
    let first = scope.place;
    let known = scope.acls.remove(&name);
    let mut lines = known.map_or(Vec::new(), |n| n.acl.lines.clone());
    lines.push(line);
    let acl = Arc::new(Acl {
        name: name.clone(),
        lines,
    });
    scope.acls.insert(name, NamedAcl { acl, first });
    Ok(())
}

/// A compiled statement.
#[derive(Debug)]
pub enum Statement {
    Rule(Box<Rule>),
    Switch(Box<remora_core::rule::proxy::UseBackend>),
    Acl,
}

impl Statement {
    pub fn rule(self) -> Rule {
        match self {
            Statement::Rule(r) => *r,
            other => panic!("not a rule: {other:?}"),
        }
    }
}

pub fn words(line: &str) -> Vec<Word> {
    lexer::words(line.as_bytes(), &World::default()).expect("a readable line")
}

fn statement(words: &[Word], scope: &mut Scope<'_>) -> Result<Statement, String> {
    let first = words[0].text().into_owned();
    let second = words
        .get(1)
        .map_or(String::new(), |w| w.text().into_owned());
    let set = match (first.as_str(), second.as_str()) {
        ("tcp-request", "connection") => Where::TcpConnection,
        ("tcp-request", "session") => Where::TcpSession,
        ("tcp-request", "content") => Where::TcpContent,
        ("tcp-response", "content") => Where::TcpResponse,
        ("http-request", _) => Where::HttpRequest,
        ("http-response", _) => Where::HttpResponse,
        ("redirect", _) => {
            return Ok(Statement::Rule(Box::new(rules::redirect(
                &words[1..],
                scope,
            )?)));
        }
        ("use_backend", _) => {
            return Ok(Statement::Switch(Box::new(rules::use_backend(
                &words[1..],
                scope,
            )?)));
        }
        ("acl", _) => {
            expr::parse_acl(&words[1..], scope)?;
            return Ok(Statement::Acl);
        }
        _ => panic!("no such statement: {first}"),
    };
    let rule = if first.starts_with("tcp") {
        rules::tcp_rule(set, &words[2..], scope)?
    } else {
        rules::http_rule(set, &words[1..], scope)?
    };
    Ok(Statement::Rule(Box::new(rule)))
}

/// Checks lines against the texts expected of them: empty = accepted in silence, `W:…` = accepted with that warning,
/// else refused with a message that contains the text.
pub fn check(bench: &mut Bench, cases: &[(&str, &str)]) {
    let mut wrong = String::new();
    for (line, want) in cases {
        let got = bench.line(line);
        let said: Vec<&str> = got.diags.iter().map(|d| d.text.as_str()).collect();
        let fine = match (&got.result, want.strip_prefix("W:")) {
            (Ok(_), Some(w)) => said.iter().any(|t| t.contains(w)),
            (Ok(_), None) => want.is_empty() && said.is_empty(),
            (Err(text), None) => !want.is_empty() && text.contains(want),
            (Err(_), Some(_)) => false,
        };
        if !fine {
            wrong += &format!(
                "\n{line}\n  wanted: {want}\n  got:    {:?} {said:?}\n",
                got.result.as_ref().map(|_| "accepted")
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
