//! Local answers as bytes.

use crate::support::*;
use remora_core::rule::action::{
    PAGE_STATUSES, Redirect, RedirectKind, render_error_page, render_error_page_of,
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

fn reply(status: u16, body: ReplyBody, content_type: Option<&str>) -> Reply {
    Reply {
        status,
        body,
        content_type: content_type.map(|t| t.as_bytes().to_vec()),
        headers: Vec::new(),
    }
}

/// Renders a reply to a request for `target` of a client of frontend `fe` (0), backend `be` (1) chosen.
fn render(world: &World, reply: &Reply, target: &str, head_only: bool, close: bool) -> String {
    let client = Client::connect(world, "192.0.2.1", 0).unwrap();
    client.stream.backend.set(Some(ProxyId(1)));
    let mut head = get(target);
    let msgs = Msgs {
        req: Some(&mut head),
        ..Msgs::default()
    };
    let mut out = Vec::new();
    let cx = cx(world, &client.conn, Some(&client.stream), 0);
    reply.render(&cx, &msgs, head_only, close, &mut out);
    text(&out)
}

fn two() -> World {
    world(
        Vec::new(),
        vec![proxy("fe", "frontend", None), proxy("be", "backend", None)],
    )
}

#[test]
fn replies() {
    let world = two();
    let names = Names::of(&world);
    let bytes = |t: &str| ReplyBody::Bytes(t.as_bytes().into());
    assert_eq!(
        render(
            &world,
            &reply(200, ReplyBody::Empty, None),
            "/",
            false,
            false
        ),
        "HTTP/1.1 200 OK\ncontent-length: 0\n\n"
    );
    assert_eq!(
        render(
            &world,
            &reply(204, ReplyBody::Empty, None),
            "/",
            false,
            true
        ),
        "HTTP/1.1 204 No Content\nconnection: close\n\n"
    );
    let mut hello = reply(429, bytes("slow\n"), Some("text/plain"));
    hello.headers = vec![
        (b"retry-after".to_vec(), names.format("5")),
        (b"x-path".to_vec(), names.format("<%[path]>")),
    ];
    assert_eq!(
        render(&world, &hello, "/p", false, false),
        "HTTP/1.1 429 Too Many Requests\nretry-after: 5\nx-path: </p>\ncontent-length: 5\ncontent-type: text/plain\n\nslow\n"
    );
    assert!(
        render(&world, &hello, "/p", true, false)
            .ends_with("content-length: 5\ncontent-type: text/plain\n\n")
    );
    let format = reply(
        200,
        ReplyBody::Format(names.format("you are %[src]\n")),
        Some("text/plain"),
    );
    assert!(
        render(&world, &format, "/", false, false)
            .ends_with("content-length: 18\ncontent-type: text/plain\n\nyou are 192.0.2.1\n")
    );
}

#[test]
fn built_in_pages_are_well_formed() {
    let world = two();
    for &status in PAGE_STATUSES {
        let mut out = Vec::new();
        render_error_page(&world, ProxyId(0), status, false, true, &mut out);
        let (head, body) = text(&out)
            .split_once("\n\n")
            .map(|(h, b)| (h.to_string(), b.to_string()))
            .unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(
            head.contains(&format!("\ncontent-length: {}\n", body.len())),
            "{head}"
        );
        assert!(
            head.contains("\ncache-control: no-cache\ncontent-type: text/html\nconnection: close")
        );
        assert!(body.contains(&format!("<h1>{status} ")), "{body}");
    }
}

#[test]
fn errorfiles_of_backend_then_frontend() {
    let mut world = two();
    let file = |t: &str| std::sync::Arc::from(t.as_bytes());
    world.proxies[0].error_pages.files = vec![
        (503, file("HTTP/1.0 503 Frontend\r\nX: f\r\n\r\nfront")),
        (502, file("HTTP/1.1 502 Frontend\n\nfront")),
    ];
    world.proxies[1].error_pages.files = vec![(
        503,
        file(
            "HTTP/1.0 503 Slow Down\nCache-Control: no-cache\nConnection: close\nContent-Length: 99\n\n<p>slow\n\ndown",
        ),
    )];
    let page = |backend: Option<u16>, status, head_only| {
        let mut out = Vec::new();
        render_error_page_of(
            &world,
            backend.map(ProxyId),
            ProxyId(0),
            status,
            head_only,
            false,
            &mut out,
        );
        text(&out)
    };
    assert_eq!(
        page(Some(1), 503, false),
        "HTTP/1.1 503 Slow Down\nCache-Control: no-cache\ncontent-length: 13\n\n<p>slow\n\ndown"
    );
    assert_eq!(
        page(Some(1), 503, true),
        "HTTP/1.1 503 Slow Down\nCache-Control: no-cache\ncontent-length: 13\n\n"
    );
    assert_eq!(
        page(Some(1), 502, false),
        "HTTP/1.1 502 Frontend\ncontent-length: 5\n\nfront"
    );
    assert_eq!(
        page(None, 503, false),
        "HTTP/1.1 503 Frontend\nX: f\ncontent-length: 5\n\nfront"
    );
    assert!(page(Some(1), 504, false).starts_with("HTTP/1.1 504 Gateway Timeout\n"));
    // a deny uses them too
    let deny = reply(503, ReplyBody::ErrorPage, None);
    assert!(render(&world, &deny, "/", false, false).starts_with("HTTP/1.1 503 Slow Down\n"));
    // what is no message at all does not get out
    let raw = reply(403, ReplyBody::Raw(file("just text")), None);
    assert!(render(&world, &raw, "/", false, false).starts_with("HTTP/1.1 403 Forbidden\n"));
}

#[test]
fn redirects_as_haproxy_writes_them() {
    let world = two();
    let names = Names::of(&world);
    let redirect = |kind, target: &str, code| Redirect {
        kind,
        target: names.format(target),
        code,
        drop_query: false,
        append_slash: false,
        ignore_empty: false,
        set_cookie: None,
    };
    let run = |r: &Redirect, target: &str| {
        let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
        let mut head = get(target);
        let msgs = Msgs {
            req: Some(&mut head),
            ..Msgs::default()
        };
        let mut out = Vec::new();
        let cx = cx(&world, &client.conn, Some(&client.stream), 0);
        assert!(r.render(&cx, &msgs, false, false, &mut out));
        text(&out)
    };
    use RedirectKind::{Location, Prefix, Scheme};
    assert_eq!(
        run(&redirect(Location, "/x%[path]", 301), "/a"),
        "HTTP/1.1 301 Moved Permanently\ncontent-length: 0\nlocation: /x/a\n\n"
    );
    let mut cookie = redirect(Location, "/x", 302);
    cookie.set_cookie = Some(b"A=1; path=/;".to_vec());
    assert_eq!(
        run(&cookie, "/a"),
        "HTTP/1.1 302 Found\ncontent-length: 0\nlocation: /x\ncache-control: no-cache\nset-cookie: A=1; path=/;\n\n"
    );
    let location = |r: &Redirect, target: &str| {
        let said = run(r, target);
        let line = said.lines().find(|l| l.starts_with("location")).unwrap();
        line["location: ".len()..].to_string()
    };
    assert_eq!(
        location(&redirect(Prefix, "https://p.x", 302), "/a?b=1"),
        "https://p.x/a?b=1"
    );
    assert_eq!(
        location(&redirect(Scheme, "https", 302), "/a?b"),
        "https://h/a?b"
    );
    let mut bare = redirect(Prefix, "https://p.x", 302);
    bare.drop_query = true;
    assert_eq!(location(&bare, "/a?b=1"), "https://p.x/a");
    bare.append_slash = true;
    assert_eq!(location(&bare, "/a?b=1"), "https://p.x/a/");
    assert_eq!(location(&bare, "/a/?b"), "https://p.x/a/");
    let mut root = redirect(Prefix, "/", 302);
    root.drop_query = true;
    assert_eq!(location(&root, "/root/a?b"), "/root/a");
    assert_eq!(
        location(
            &redirect(Location, "/%[urlp(u),url_dec]", 302),
            "/?u=a%0d%0ab"
        ),
        "/a%0D%0Ab"
    );
}

#[test]
fn an_empty_redirect_may_be_passed_over() {
    let mut world = two();
    let names = Names::of(&world);
    let redirect = Redirect {
        kind: RedirectKind::Location,
        target: names.format("%[urlp(to)]"),
        code: 302,
        drop_query: false,
        append_slash: false,
        ignore_empty: true,
        set_cookie: None,
    };
    let rule = Rule::new(Action::Redirect(Box::new(redirect)), None, (0, 0));
    world.proxies[0].rules.redirects = RuleSet {
        rules: Box::new([rule]),
    };
    world.proxies[0].rules.default_backend = Some(ProxyId(1));
    let client = Client::connect(&world, "192.0.2.1", 0).unwrap();
    assert_eq!(
        client.request(&mut get("/?to=/x"), 200, 0),
        "redirect by fe"
    );
    assert_eq!(client.request(&mut get("/"), 200, 0), "-> be 200");
}
