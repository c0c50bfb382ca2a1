//! What rules, conditions and expressions compile to.

use crate::support::{Bench, Statement, declare, words};
use remora_config::expr;
use remora_config::plan::Place;
use remora_config::rules::{tcp_rule, track_needs_content, use_backend};
use remora_config::scope::Where;
use remora_core::rule::action::{
    Action, HeaderMatch, Operand, RedirectKind, ReplyBody, Rule, VarConditions,
};
use remora_core::rule::cond::{Cond, MatchMethod};
use remora_core::rule::expr::{Alias, Format, FormatFlags, FormatItem};
use remora_core::rule::proxy::BackendRef;
use remora_core::rule::sample::SampleType;
use remora_core::rule::vars::Scope as VarScope;
use remora_core::table::TableId;
use remora_core::world::ProxyId;

fn rule(line: &str) -> Rule {
    let got = Bench::default().line(line);
    match got.result {
        Ok(s) => s.rule(),
        Err(e) => panic!("{line}: {e}"),
    }
}

fn cond(text: &str) -> Cond {
    rule(&format!("http-request deny {text}"))
        .cond
        .expect("a condition")
}

/// `a !b | c`: terms of each alternative, `!` for negated ones.
fn shape(cond: &Cond) -> String {
    let alternatives: Vec<String> = cond
        .any_of
        .iter()
        .map(|all| {
            let terms: Vec<String> = all
                .iter()
                .map(|t| format!("{}{}", if t.negated { "!" } else { "" }, t.acl.name))
                .collect();
            terms.join(" ")
        })
        .collect();
    alternatives.join(" | ")
}

#[test]
fn shapes_of_conditions() {
    for (text, negated, want) in [
        ("if known TRUE", false, "known TRUE"),
        ("unless known or TRUE", true, "known | TRUE"),
        (
            "if known || TRUE FALSE or known",
            false,
            "known | TRUE FALSE | known",
        ),
        ("if ! known", false, "!known"),
        ("if !known !!TRUE ! ! FALSE", false, "!known TRUE FALSE"),
        ("if ! { src 1.1.1.1 } known", false, "!.noname known"),
        ("if !{ src 1.1.1.1 } or", false, "!.noname"),
        ("if or known OR", false, "known"),
        ("if", false, ""),
        ("unless", true, ""),
    ] {
        let c = cond(text);
        assert_eq!((c.negated, shape(&c).as_str()), (negated, want), "{text}");
    }
}

#[test]
fn methods_of_acls() {
    use MatchMethod::*;
    let mut bench = Bench::default();
    for (line, method, ignore_case) in [
        ("a src 1.1.1.1", Ip, false),
        ("a dst_port 80", Int, false),
        ("a always_true", Bool, false),
        ("a path /x", Str, false),
        ("a path -i /x", Str, true),
        ("a path_beg /x", Beg, false),
        ("a hdr_dom(host) -i x.com", Dom, true),
        ("a url_reg x", Reg, false),
        ("a method GET", Method, false),
        ("a path_beg,lower /x", Str, false), // a converter drops the keyword's method
        ("a path_beg,length 3", Int, false),
        ("a path_beg -m end /x", End, false),
        ("a str(x) x", Str, false),
        ("a path -m len 3", Len, false),
        ("a path -m found", Found, false),
        ("a src_conn_rate gt 3", Int, false),
        ("a src,in_table(be)", Bool, false),
        ("a var(txn.x) -m str abc", Str, false),
    ] {
        let got = bench.with(|scope| expr::parse_acl(&words(line), scope));
        let (_, compiled) = got.result.expect(line);
        assert_eq!(
            (compiled.method, compiled.ignore_case),
            (method, ignore_case),
            "{line}"
        );
    }
}

#[test]
fn types_of_expressions() {
    use SampleType::*;
    let mut bench = Bench::default();
    for (text, want) in [
        ("src", Addr),
        ("src,ipmask(24)", Addr),
        ("src_port", Int),
        ("path", Str),
        ("path,length", Int),
        ("path,lower,sha1", Bin),
        ("path,lower,sha1,hex", Str),
        ("base32+src", Bin),
        ("method", Method),
        ("method,lower", Str),
        ("src,in_table(be)", Bool),
        ("src,table_conn_rate(be)", Int),
        ("path,set-var(txn.x)", Str),
        ("int(3),add(4)", Int),
        ("always_true,iif(a,b)", Str),
        ("ipv6(::1)", Ipv6),
    ] {
        let got = bench.with(|s| expr::parse_sample(text.as_bytes(), Where::HttpRequest, s));
        let compiled = got.result.expect(text);
        assert_eq!(compiled.output, want, "{text}");
        assert_eq!(compiled.text, text);
    }
}

#[test]
fn converters_in_words_of_their_own() {
    let Action::Track { key, .. } =
        rule("http-request track-sc0 path, lower upper table texts").action
    else {
        panic!("not a tracker");
    };
    assert_eq!(key.text, "path,lower,upper");
    assert_eq!(key.converters.len(), 2);
}

#[test]
fn formats() {
    let mut bench = Bench::default();
    let mut parse = |text: &str, at| {
        bench
            .with(|s| expr::parse_format(text.as_bytes(), at, s))
            .result
            .expect(text)
    };
    let show = |f: &Format| {
        f.items
            .iter()
            .map(|i| match i {
                FormatItem::Text(t) => format!("'{}'", String::from_utf8_lossy(t)),
                FormatItem::Expr { expr, flags } => format!("[{}]{}", expr.text, letters(*flags)),
                FormatItem::Alias { alias, flags } => format!("{alias:?}{}", letters(*flags)),
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    fn letters(f: FormatFlags) -> String {
        let mut s = String::new();
        for (on, c) in [(f.quote, 'Q'), (f.hex, 'X'), (f.escape, 'E')] {
            if on {
                s.push(c);
            }
        }
        s
    }
    for (text, want) in [
        ("", ""),
        ("plain  text", "'plain  text'"),
        ("100%%", "'100%'"),
        ("a%[path]b", "'a' [path] 'b'"),
        ("%[path,lower]%[src]", "[path,lower] [src]"),
        ("%{+Q}[path]%{+X,+E}[src]", "[path]Q [src]XE"),
        ("%ci:%cp", "ClientIp ':' ClientPort"),
        ("%{+Q}o%[path] %{-Q}[src]", "[path]Q ' ' [src]"),
        ("%[str(\"a]b\")]", "[str(\"a]b\")]"),
        (
            "%[path,regsub(\"(a|b)\",x,g)]!",
            "[path,regsub(\"(a|b)\",x,g)] '!'",
        ),
    ] {
        assert_eq!(show(&parse(text, Where::HttpRequest)), want, "{text}");
    }
    // Runs of blanks are one in log lines.
    assert_eq!(show(&parse("a   b", Where::Log)), "'a b'");
    let alias = parse("%HM", Where::HttpRequest);
    assert!(matches!(
        alias.items.first(),
        Some(FormatItem::Alias {
            alias: Alias::Method,
            ..
        })
    ));
}

#[test]
fn tracking_rules() {
    let mut bench = Bench::default();
    let got = bench.with(|scope| {
        let args = words("track-sc1 src table be if known");
        let rule = tcp_rule(Where::TcpConnection, &args, scope)?;
        Ok((rule, scope.tracked.clone()))
    });
    let (rule, tracked) = got.result.expect("a rule");
    let Action::Track { slot, table, key } = &rule.action else {
        panic!("not a tracker");
    };
    assert_eq!((*slot, *table, key.text.as_str()), (1, TableId(1), "src"));
    assert_eq!(rule.place, (0, 11));
    assert!(rule.cond.is_some());
    assert_eq!(track_needs_content(&rule), Some(false));
    assert_eq!(tracked.len(), 1);
    assert!(tracked[0].key_is_src);
    assert_eq!(tracked[0].place, Place { file: 0, line: 11 });

    let by_path = self::rule("tcp-request content track-sc0 path table texts");
    assert_eq!(track_needs_content(&by_path), Some(true));
    assert_eq!(track_needs_content(&self::rule("http-request deny")), None);
}

#[test]
fn slot_readers_are_noted() {
    let got = Bench::default().with(|scope| {
        expr::parse_acl(&words("a sc_get_gpc(2,1) gt 0"), scope)?;
        expr::parse_acl(&words("b sc0_conn_rate gt 0"), scope)?;
        expr::parse_acl(&words("c sc0_conn_rate(be) gt 0"), scope)?;
        Ok(scope.slot_reads.clone())
    });
    let reads = got.result.expect("ACLs");
    let seen: Vec<_> = reads
        .iter()
        .map(|r| (r.name.as_str(), r.slot, r.index))
        .collect();
    assert_eq!(seen, [("sc_get_gpc", 1, 2), ("sc0_conn_rate", 0, 0)]);
}

#[test]
fn counter_actions() {
    assert!(matches!(
        rule("http-request sc-inc-gpc1(2)").action,
        Action::IncGpc {
            index: 1,
            slot: 2,
            ..
        }
    ));
    assert!(matches!(
        rule("http-request sc-inc-gpc(7,1)").action,
        Action::IncGpc {
            index: 7,
            slot: 1,
            ..
        }
    ));
    assert!(matches!(
        rule("http-request sc-add-gpc(7,1) 5").action,
        Action::AddGpc {
            index: 7,
            slot: 1,
            value: Operand::Int(5),
            ..
        }
    ));
    assert!(matches!(
        rule("http-request sc-set-gpt0 4294967297").action,
        Action::SetGpt {
            index: 0,
            slot: 0,
            value: Operand::Int(1),
            ..
        }
    ));
    assert!(matches!(
        rule("http-request sc-set-gpt(3,1) hdr_cnt(a),add(1)").action,
        Action::SetGpt {
            index: 3,
            slot: 1,
            value: Operand::Expr(_),
            ..
        }
    ));
}

#[test]
fn variables() {
    let Action::SetVar {
        var, conditions, ..
    } = rule("http-request set-var(txn.x,ifnotexists,ifgt) path").action
    else {
        panic!("not set-var");
    };
    assert_eq!(var.scope, VarScope::Txn);
    assert_eq!(conditions, VarConditions(0b0100_0010));
}

#[test]
fn replies() {
    let deny = |line: &str| match rule(line).action {
        Action::Deny(r) | Action::Tarpit(r) | Action::Return(r) => *r,
        other => panic!("{other:?}"),
    };
    let r = deny("http-request deny");
    assert!(r.status == 403 && matches!(r.body, ReplyBody::ErrorPage));
    let r = deny("http-response deny");
    assert!(r.status == 502 && matches!(r.body, ReplyBody::ErrorPage));
    let r = deny("http-request tarpit deny_status 429");
    assert!(r.status == 429 && matches!(r.body, ReplyBody::ErrorPage));
    let r = deny("http-request return");
    assert!(r.status == 200 && matches!(r.body, ReplyBody::Empty));
    // Own headers ask for an answer without a page.
    let r = deny("http-request deny deny_status 429 hdr retry-after 10");
    assert!(matches!(r.body, ReplyBody::Empty));
    assert_eq!(r.headers[0].0, b"retry-after");
    let r = deny("http-request return status 418 content-type text/plain string \"I am\"");
    assert!(matches!(&r.body, ReplyBody::Bytes(b) if &**b == b"I am"));
    assert_eq!(r.content_type.as_deref(), Some(&b"text/plain"[..]));
    let r = deny("http-request return content-type a/b lf-file page.txt");
    assert!(matches!(&r.body, ReplyBody::Format(f) if f.items.len() == 2));
    let r = deny("http-request deny errorfile page.http");
    assert!(matches!(&r.body, ReplyBody::Raw(b) if b.ends_with(b"body\n")));
}

#[test]
fn redirects_and_headers() {
    let Action::Redirect(r) =
        rule("http-request redirect prefix /%[path] code 301 drop-query set-cookie a=b").action
    else {
        panic!("not a redirect");
    };
    assert_eq!((r.kind, r.code), (RedirectKind::Prefix, 301));
    assert!(r.drop_query && !r.append_slash && !r.ignore_empty);
    assert_eq!(r.target.items.len(), 2);
    assert_eq!(r.set_cookie.as_deref(), Some(&b"a=b; path=/;"[..]));

    // The statement takes plain text.
    let Action::Redirect(r) = rule("redirect location /%[path] clear-cookie a=").action else {
        panic!("not a redirect");
    };
    assert!(matches!(&*r.target.items, [FormatItem::Text(t)] if t == b"/%[path]"));
    assert_eq!(
        r.set_cookie.as_deref(),
        Some(&b"a=; path=/; Max-Age=0;"[..])
    );

    assert!(matches!(
        rule("http-request silent-drop rst-ttl 3").action,
        Action::SilentDrop { rst_ttl: 3 }
    ));
    assert!(matches!(
        rule("http-request del-header x- -m beg").action,
        Action::DelHeader { matches: HeaderMatch::Beg(n) } if n == b"x-"
    ));
}

#[test]
fn switching() {
    let got = Bench::default().line("use_backend be unless known");
    let Ok(Statement::Switch(s)) = got.result else {
        panic!("not compiled");
    };
    assert!(matches!(s.target, BackendRef::Static(ProxyId(1))));
    assert!(s.cond.is_some());
    let got = Bench::default().with(|scope| use_backend(&words("%[req.hdr(host),lower]"), scope));
    assert!(matches!(
        got.result.expect("compiled").target,
        BackendRef::Dynamic(_)
    ));
}

/// An ACL is known from its first line on; what is added to it later counts too.
#[test]
fn acls_are_known_from_their_line_on() {
    let got = Bench::default().with(|scope| {
        scope.place.line = 20;
        declare(scope, "late src 1.1.1.1")?;
        scope.place.line = 15;
        expr::parse_cond(&words("if late"), Where::HttpRequest, scope)
    });
    assert_eq!(
        got.result.unwrap_err(),
        "no such ACL : 'late'. It is declared further down, at x.cfg:20"
    );
}

/// The ban that all sites share: the classic two-tracker configuration.
#[test]
fn ban_across_sites() {
    let mut front = Bench::default();
    for line in [
        "acl banned src_get_gpc0(fe) gt 0",
        "tcp-request connection track-sc1 src if ! known",
        "use_backend be if known",
    ] {
        let got = front.line(line);
        assert!(got.result.is_ok(), "{line}: {:?}", got.result.err());
        assert!(got.diags.is_empty(), "{line}");
    }
    let mut back = Bench {
        proxy: 1,
        ..Bench::default()
    };
    let got = back.with(|scope| {
        for acl in [
            "office src 10.0.0.0/8",
            "too_many_conns sc2_conn_rate gt 3",
            "too_many_bytes sc2_bytes_out_rate gt 20000000",
            "ban sc1_inc_gpc0 gt 0",
        ] {
            declare(scope, acl)?;
        }
        let mut shapes = Vec::new();
        for line in [
            "track-sc2 src",
            "reject if too_many_conns !office ban",
            "reject if too_many_bytes ban",
        ] {
            let rule = tcp_rule(Where::TcpContent, &words(line), scope)?;
            shapes.push(rule.cond.as_ref().map(shape).unwrap_or_default());
        }
        Ok(shapes)
    });
    assert_eq!(
        got.result.expect("compiled"),
        ["", "too_many_conns !office ban", "too_many_bytes ban"]
    );
    assert!(got.diags.is_empty(), "{:?}", got.diags);
}
