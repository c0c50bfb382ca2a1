//! The same requests through HAProxy and Remora: every expression must give the same text, every rule the same answer.
//! Needs HAProxy on the machine; what 2.6 does otherwise than the reference is not asked here.

use cluster_tests::locate::{Kind, kind_under_test};
use cluster_tests::{Client, Launch, Proxy, Server, tools};

/// Expressions whose text both must agree on.
const EXPRESSIONS: &[&str] = &[
    "src",
    "dst",
    "dst_port",
    "method",
    "path",
    "query",
    "url",
    "base",
    "req.ver",
    "path,length",
    "req.hdr(host)",
    "req.hdr(a)",
    "req.hdr(a,1)",
    "req.hdr(a,-2)",
    "req.hdr_cnt(a)",
    "req.fhdr(a)",
    "req.fhdr_cnt(a)",
    "req.hdr_val(n)",
    "req.hdr_ip(ip)",
    "req.cook(c)",
    "req.cook(d)",
    "cook(c)",
    "req.cook_val(c)",
    "always_true,hex",
    "always_false,base64",
    "req.cook_cnt()",
    "urlp(a)",
    "urlp(b)",
    "urlp_val(n)",
    "base32",
    "url32",
    "url32+src,hex",
    "base32+src,hex",
    "req.hdr(a),lower",
    "req.hdr(a),upper",
    "path,bytes(1)",
    "path,bytes(0,2)",
    "path,field(2,/)",
    "path,field(-1,/)",
    "path,field(2,/,2)",
    "path,field(2,/,0)",
    "path,word(1,/)",
    "path,word(-1,/)",
    "path,word(1,/,2)",
    "path,regsub(a,X)",
    "path,regsub(a,X,g)",
    "path,regsub(A,X,gi)",
    "query,url_dec",
    "query,url_dec(1)",
    "path,hex",
    "path,base64",
    "str(aGVsbG8=),b64dec",
    "path,crc32",
    "path,crc32(1)",
    "path,crc32c",
    "path,djb2",
    "path,djb2(1)",
    "path,sdbm",
    "path,sdbm(1)",
    "path,wt6",
    "path,wt6(1)",
    "path,xxh32",
    "path,xxh32(7)",
    "path,xxh64",
    "path,sha1,hex",
    "src,ipmask(24)",
    "src,ipmask(255.0.0.0)",
    "req.hdr_ip(ip6),ipmask(24,48)",
    "int(7),add(3)",
    "int(7),sub(9)",
    "int(7),mul(-3)",
    "int(-7),div(2)",
    "int(7),div(0)",
    "int(-7),mod(4)",
    "int(7),mod(0)",
    "int(6),and(3)",
    "int(6),or(1)",
    "int(6),xor(3)",
    "int(6),cpl",
    "int(6),neg",
    "int(6),not",
    "int(6),even",
    "int(6),odd",
    "int(6),bool",
    "int(9223372036854775807),add(1)",
    "int(-9223372036854775807),sub(9)",
    "int(4611686018427387904),mul(4)",
    "str(abc),concat(-,txn.v,+)",
    "var(txn.v)",
    "var(txn.nothing)",
    "str(12ab),add(1)",
    "str(0x10),add(1)",
    "str(),length",
    "bool(true)",
    "ipv4(10.1.2.3)",
    "ipv6(2001:DB8::0:1)",
    "str(10.0.0.1),ipmask(8)",
    "always_true",
    "always_false",
    "int(1),iif(yes,no)",
    "str(4142),hex2i",
    "path,length,mul(2)",
    "req.hdr(a),field(1,\",\")",
    "fe_name",
    "so_id",
    "http_first_req",
    "nbsrv(be)",
    "be_conn(be)",
    "srv_is_up(be/s1)",
    "table_cnt(t)",
    "table_avl(t)",
    "src,in_table(t)",
    "src_conn_cnt(t)",
    "src_inc_gpc0(t)",
    "src_get_gpc0(t)",
    "src_clr_gpc0(t)",
    "sc0_conn_cnt",
    "sc0_http_req_cnt",
    "sc_tracked(0)",
    "sc0_tracked",
    "sc1_tracked",
    "sc1_conn_cnt",
    "sc0_conn_cnt(t)",
    "sc_http_req_rate(0)",
    "sc0_kbytes_in",
    "wait_end",
    "env(DIFF)",
    "req.hdr_names(:)",
    "date,bool",
    "rand(1)",
    "req.proto_http",
    "str(a b),url_enc",
];

const REQUESTS: &[&str] = &[
    "GET /a/b/c?a=1&b=x%20y&n=42 HTTP/1.1\r\nHost: Example.org:80\r\nA: One, two,three\r\na: four\r\nN: 7\r\nIp: 10.9.8.7\r\nIp6: 2001:db8:1:2::9\r\nCookie: c=1; d=\"q\"; e\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /aAaA//_x?+%41+&b=2;a=9 HTTP/1.1\r\nHost: h\r\nA:\r\nN: -5x\r\nIp: bogus\r\nIp6: ::ffff:1.2.3.4\r\nCookie: d=; c=2,c=3\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET http://h/abs?x HTTP/1.1\r\nHost: h\r\n\r\n",
];

fn both(config: &str, server: &Server) -> Option<(Proxy, Proxy)> {
    if tools::find("haproxy").is_none() || kind_under_test() == Kind::Haproxy {
        tools::skip("needs HAProxy and Remora side by side");
        return None;
    }
    let start = |kind| {
        Launch::of(kind, config)
            .set("s1", server.addr())
            .env("DIFF", "same")
            .start()
    };
    Some((start(Kind::Haproxy), start(Kind::Remora)))
}

/// Expressions this HAProxy cannot parse are left out, one by one.
fn known_to_haproxy(expression: &str) -> bool {
    let config = expressions(&[expression])
        .replace("{{port:fe}}", "1")
        .replace("{{s1}}", "127.0.0.1:1");
    Launch::of(Kind::Haproxy, &config).arg("-c").run().code == Some(0)
}

fn expressions(list: &[&str]) -> String {
    let headers: String = list
        .iter()
        .enumerate()
        .map(|(i, text)| format!(" hdr E{i} '%[{text}]'"))
        .collect();
    format!(
        "
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
backend t
  stick-table type ip size 100 expire 1h store conn_cnt,gpc0,http_req_cnt,http_req_rate(10s),bytes_in_cnt
backend be
  server s1 {{{{s1}}}}
frontend fe
  bind 127.0.0.1:{{{{port:fe}}}}
  http-request track-sc0 src table t
  http-request set-var(txn.v) str(value)
  http-request return status 200{headers}
"
    )
}

#[test]
fn expressions_give_the_same_text() {
    if tools::find("haproxy").is_none() {
        return;
    }
    let server = Server::http();
    let whole: Vec<&str> = EXPRESSIONS.to_vec();
    let config = expressions(&whole)
        .replace("{{port:fe}}", "1")
        .replace("{{s1}}", "127.0.0.1:1");
    let asked: Vec<&str> = if Launch::of(Kind::Haproxy, &config).arg("-c").run().code == Some(0) {
        whole
    } else {
        whole
            .into_iter()
            .filter(|text| known_to_haproxy(text))
            .collect()
    };
    assert!(
        asked.len() > 100,
        "HAProxy understands only {}",
        asked.len()
    );
    let mut wrong = Vec::new();
    // A reply must fit a buffer, so they go in portions.
    for portion in asked.chunks(15) {
        let Some((theirs, ours)) = both(&expressions(portion), &server) else {
            return;
        };
        for request in REQUESTS {
            let ask = |proxy: &Proxy| Client::connect(proxy.addr("fe")).send(request).response();
            match (ask(&theirs), ask(&ours)) {
                (Ok(theirs), Ok(ours)) if theirs.status == ours.status => {
                    for (i, text) in portion.iter().enumerate() {
                        let name = format!("e{i}");
                        // HAProxy leaves out a header whose value is empty.
                        let value = |answer: &cluster_tests::Response| {
                            answer.header(&name).unwrap_or_default().to_owned()
                        };
                        let (a, b) = (value(&theirs), value(&ours));
                        let own = ["dst_port", "src_port"].contains(text);
                        if a != b && !own {
                            wrong.push(format!(
                                "{text} for {request:?}: HAProxy {a:?}, Remora {b:?}"
                            ));
                        }
                    }
                }
                (a, b) => wrong.push(format!(
                    "{request:?}: HAProxy {:?}, Remora {:?}",
                    a.map(|r| r.status),
                    b.map(|r| r.status)
                )),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

const PAGES: &str = "
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
  timeout tarpit 50ms
backend be
  http-response set-header Status %[status]
  http-response deny if { res.hdr(content-length) 13 }
  http-response set-header X-Blank \"%[res.hdr(nosuch)]\"
  http-response set-header Was-Http %[res.ver] if HTTP METH_GET
  server s1 {{s1}}
frontend fe
  bind 127.0.0.1:{{port:fe}}
  option forwardfor
  http-request deny if { path /deny }
  http-request deny deny_status 429 if { path /429 }
  http-request tarpit if { path /tarpit }
  http-request redirect location /x code 303 if { path /303 }
  http-request redirect prefix /p drop-query if { path /prefix }
  http-request redirect scheme https code 307 if { path /scheme }
  http-request return status 404 if { path /empty404 }
  http-request return status 200 content-type text/plain lf-string \"%[path] %[src] %HM %HU %HV\" hdr X-Empty %[req.hdr(nosuch)] hdr X-Full %[path] if { path /lf }
  http-request reject if { path /reject }
  http-request set-header Host changed.example if { path /host }
  http-request del-header X-Gone
  http-request add-header X-More %[req.hdr_cnt(x-more)]
  http-request set-header X-Two \"a  b\"
  default_backend be
";

#[test]
fn answers_and_forwarded_requests_are_the_same() {
    let server = Server::http();
    let Some((theirs, ours)) = both(PAGES, &server) else {
        return;
    };
    let mut wrong = Vec::new();
    for target in [
        "/",
        "/deny",
        "/429",
        "/tarpit",
        "/303",
        "/303?q=1",
        "/prefix?q=1",
        "/scheme?q=1",
        "/empty404",
        "/lf?a=b",
        "/reject",
        "/host",
        "/status/404",
        "/status/204",
        "/status/503",
        "/size/13",
        "/size/14",
        "/chunked/50",
        "/echo",
    ] {
        for (method, extra) in [
            ("GET", ""),
            ("HEAD", ""),
            ("POST", "Content-Length: 3\r\n\r\nabc"),
            (
                "PUT",
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
        ] {
            let end = if extra.is_empty() { "\r\n" } else { extra };
            let text = format!(
                "{method} {target} HTTP/1.1\r\nHost: test\r\nX-Gone: 1\r\nX-More: 1\r\nx-more: 2, 3\r\n{end}"
            );
            let ask = |proxy: &Proxy| {
                let before = server.requests().len();
                let answer = Client::connect(proxy.addr("fe"))
                    .send(&text)
                    .response_to(method);
                let seen = server.requests().into_iter().nth(before).map(|request| {
                    let mut headers: Vec<String> = request
                        .headers
                        .iter()
                        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
                        .collect();
                    headers.sort();
                    (request.method, request.target, headers)
                });
                let answer = answer.ok().map(|answer| {
                    let names = [
                        "location",
                        "status",
                        "was-http",
                        "x-empty",
                        "x-blank",
                        "x-full",
                        "x-server",
                        "content-type",
                        "cache-control",
                    ];
                    let headers = names.map(|name| answer.header(name).map(str::to_owned));
                    let generated = answer.header("cache-control").is_some();
                    let body = if generated { Vec::new() } else { answer.body };
                    (answer.status, headers, body)
                });
                (answer, seen)
            };
            let (theirs, ours) = (ask(&theirs), ask(&ours));
            if theirs != ours {
                wrong.push(format!(
                    "{method} {target}:\n  HAProxy {theirs:?}\n  Remora  {ours:?}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
