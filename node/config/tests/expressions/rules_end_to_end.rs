//! Configuration text compiled and run through the rule pipeline on a request, against what HAProxy 2.6 answered to the
//! same configuration and the same bytes.

#[path = "../../../core/tests/rule/support/mod.rs"]
mod core_support;

use std::net::IpAddr;

use core_support::{cx, proxy, request, response, world};
use remora_config::{Loader, Options, Source, load};
use remora_core::http1::Head;
use remora_core::rule::action::Verdict;
use remora_core::rule::cx::{ConnState, Content, Msgs, StreamState};
use remora_core::rule::proxy::{Progress, RequestOutcome, request_phase, response_phase};
use remora_core::table::Table;
use remora_core::world::{ProxyId, ServerState, World};

/// The configuration that was captured, but for the address.
const CONFIG: &str = "
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend fe
  bind 127.0.0.1:8080
  acl twice path_beg /zzz
  acl twice path_end .php
  http-request track-sc0 src table tb
  http-request set-var(txn.v) str(/Path/To/b)
  http-request set-var(txn.n) int(10)
  RULES
  default_backend be
backend fe2
backend be
  server s1 127.0.0.1:1 weight 7
backend tb
  stick-table type ip size 1k expire 100s store conn_cnt,http_req_cnt,gpc0,bytes_out_cnt
";

const REQUEST: &[&str] = &[
    "GET /Path/To/a//file.php?x=1&y=2&x=3&e=&n=42;p=7&p=8 HTTP/1.1",
    "Host: www.Example.com:8080",
    "X-List: a, b ,c",
    "X-List: \"d,e\", f",
    "X-Num: 42",
    "X-Ip: 10.0.0.1, 192.0.2.1",
    "X-Empty: ",
    "Cookie: a=1; b=two; a=3",
    "Cookie: n=77",
];

struct Files;
impl Loader for Files {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        match path {
            "paths.lst" => Ok(b"# list\n\n/path/to/a//FILE.php\n/zzz\n".to_vec()),
            "nets.lst" => Ok(b"10.0.0.0/8\n127.0.0.0/8\n".to_vec()),
            _ => Err("no such file".to_owned()),
        }
    }
    fn resolve(&mut self, _name: &str) -> Result<Vec<IpAddr>, String> {
        Err("no names here".to_owned())
    }
    fn env(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Compiles a configuration into a world with its tables, proxies and rules.
fn compile(text: String) -> Result<World, String> {
    let sources = [Source {
        name: "x.cfg".to_owned(),
        text: text.into_bytes(),
    }];
    let options = Options {
        hostname: "box".to_owned(),
        localpeer: None,
        cpus: 1,
        fd_limit: 1024,
        maxconn: None,
        pid: 1,
    };
    let loaded = load(&sources, &options, &mut Files);
    let Some(plan) = loaded.plan else {
        let texts: Vec<String> = loaded.diags.into_iter().map(|d| d.text).collect();
        return Err(texts.join("\n"));
    };
    let tables = plan.tables.into_iter().map(|t| Table::new(t, 7)).collect();
    let proxies = plan
        .proxies
        .into_iter()
        .map(|p| {
            let kind = match (p.is_frontend, p.is_backend) {
                (true, true) => "listen",
                (true, false) => "frontend",
                _ => "backend",
            };
            let mut state = proxy(&p.name, kind, p.table.map(|t| t.0));
            state.rules = p.rules;
            state.servers = p
                .servers
                .iter()
                .map(|s| {
                    let server = ServerState {
                        name: s.name.clone(),
                        id: s.id,
                        weight_initial: s.weight,
                        backup: s.backup,
                        maxconn: s.maxconn.into(),
                        maxqueue: s.maxqueue,
                        stats: Default::default(),
                    };
                    server
                        .stats
                        .weight
                        .store(s.weight, std::sync::atomic::Ordering::Relaxed);
                    server
                })
                .collect();
            state
        })
        .collect();
    Ok(world(tables, proxies))
}

/// The body of the answer that the rules of `fe` give to the request.
fn answer(rules: &str) -> Result<String, String> {
    let world = compile(CONFIG.replace("RULES", rules))?;
    let client = "127.0.0.1:40000".parse().ok();
    let listener = "127.0.0.1:8080".parse().ok();
    let conn = ConnState::new(ProxyId(0), 0, client, listener, 3, core_support::at(1000));
    conn.requests.set(1);
    world.proxies[0]
        .front
        .scur
        .store(1, std::sync::atomic::Ordering::Relaxed);
    let stream = StreamState::new(3);
    let cx = cx(&world, &conn, Some(&stream), 1000);
    let mut head: Head = request(REQUEST);
    let mut msgs = Msgs {
        req: Some(&mut head),
        req_content: Content {
            is_final: true,
            ..Content::default()
        },
        ..Msgs::default()
    };
    let mut progress = Progress::default();
    match request_phase(&cx, &mut msgs, &mut progress) {
        RequestOutcome::Final(_, Verdict::Return(reply)) => {
            let mut out = Vec::new();
            reply.render(&cx, &msgs, false, false, &mut out);
            let at = out
                .windows(4)
                .position(|w| w == b"\r\n\r\n")
                .ok_or("no end of headers")?;
            Ok(String::from_utf8_lossy(&out[at + 4..]).into_owned())
        }
        other => Err(format!("{other:?}")),
    }
}

/// Where Remora answers otherwise on purpose: the text and its answer.
const ELSEWISE: &[(&str, &str)] = &[
    // A key that cannot be cast is in no table.
    ("str(bad),in_table(tb)", "<0>"),
    // HAProxy compares known methods by number, so that `-i` does nothing for them.
    ("if { method -i get }", "yes"),
];

/// Runs all lines of a captured list and reports every difference at once.
fn compare(captured: &str, rules: impl Fn(&str) -> String) {
    let mut wrong = String::new();
    let mut count = 0;
    for line in captured.lines().filter(|l| !l.starts_with('#')) {
        let (text, want) = line.split_once('\t').expect("text, tab, value");
        let own = ELSEWISE.iter().find(|(t, _)| *t == text);
        let want = own.map_or(want, |(_, ours)| ours);
        count += 1;
        match answer(&rules(text)) {
            Ok(got) if got == want => {}
            got => wrong += &format!("\n{text}\n  HAProxy: {want}\n  here:    {got:?}\n"),
        }
    }
    assert!(count > 50, "only {count} lines");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn values_of_expressions() {
    compare(include_str!("captured/expressions-2.6.txt"), |text| {
        // The expression is one word for the lexer, whatever quotes it holds for the second tokenizer.
        let quoted = if text.contains('\'') {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"<%[{escaped}]>\"")
        } else {
            format!("'<%[{text}]>'")
        };
        format!("http-request return status 200 content-type text/plain lf-string {quoted}")
    });
}

#[test]
fn truth_of_conditions() {
    compare(include_str!("captured/conditions-2.6.txt"), |text| {
        format!(
            "http-request return status 200 content-type text/plain string yes {text}\n  http-request return status 200 content-type text/plain string no"
        )
    });
}

/// On a response only the request line is left of the request.
#[test]
fn what_responses_know_of_the_request() {
    let rules = "http-response set-header x-line %HM:%HP:%[method]
  http-response set-header x-known %[var(txn.v)]:%[hdr(content-length)]:%[status] if METH_GET
  http-response set-header x-post 1 if METH_POST
  http-response set-header x-path 1 if { path -m found }";
    let world = compile(CONFIG.replace("RULES", rules)).expect("a good configuration");
    let client = "127.0.0.1:40000".parse().ok();
    let conn = ConnState::new(ProxyId(0), 0, client, client, 3, core_support::at(1000));
    let stream = StreamState::new(3);
    let cx = cx(&world, &conn, Some(&stream), 1000);
    let mut req = request(REQUEST);
    let mut msgs = Msgs {
        req: Some(&mut req),
        req_content: Content {
            is_final: true,
            ..Content::default()
        },
        ..Msgs::default()
    };
    let outcome = request_phase(&cx, &mut msgs, &mut Progress::default());
    assert!(matches!(outcome, RequestOutcome::Forward(ProxyId(2))));
    let mut res = response(200);
    msgs.res = Some(&mut res);
    let (_, verdict) = response_phase(&cx, &mut msgs);
    assert!(matches!(verdict, Verdict::Pass));
    let shown: Vec<String> = res
        .headers()
        .map(|(name, value)| {
            let text = String::from_utf8_lossy;
            format!("{}: {}", text(name), text(value))
        })
        .filter(|line| line.starts_with("x-"))
        .collect();
    assert_eq!(
        shown,
        [
            "x-line: GET:/Path/To/a//file.php:GET",
            "x-known: /Path/To/b:0:200"
        ]
    );
}
