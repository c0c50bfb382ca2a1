//! The text of a traffic line: `option httplog`, `option tcplog`, and the line HAProxy writes when neither is set
//! (reference: config-dialect 4.3).

use std::io::Write as _;
use std::net::SocketAddr;

use remora_core::world::{ProxyId, World};

use super::{Access, LineFormat, clock};

/// Appends the line, without a line feed.
pub(super) fn render(format: &LineFormat, world: &World, a: &Access<'_>, out: &mut Vec<u8>) {
    match format {
        LineFormat::Default => default(world, a, out),
        LineFormat::Tcp => tcp(world, a, out),
        LineFormat::Http => http(world, a, out),
    }
}

fn default(world: &World, a: &Access<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Connect from ");
    endpoint(a.client, out);
    out.extend_from_slice(b" to ");
    endpoint(a.local, out);
    let frontend = world.proxies.get(usize::from(a.frontend.0));
    let mode = if frontend.is_some_and(|p| p.mode_http) {
        "HTTP"
    } else {
        "TCP"
    };
    let name = frontend.map_or("?", |p| p.name.as_str());
    let _ = write!(out, " ({name}/{mode})");
}

/// `%ci:%cp [%t] %f/`
pub(super) fn embryonic(
    world: &World,
    frontend: ProxyId,
    client: Option<SocketAddr>,
    accept_wall_us: u64,
    out: &mut Vec<u8>,
) {
    endpoint(client, out);
    out.extend_from_slice(b" [");
    clock::traffic(accept_wall_us, out);
    let frontend = world.proxies.get(usize::from(frontend.0));
    let name = frontend.map_or("?", |p| p.name.as_str());
    let _ = write!(out, "] {name}/");
}

/// `%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq`
fn tcp(world: &World, a: &Access<'_>, out: &mut Vec<u8>) {
    endpoint(a.client, out);
    out.extend_from_slice(b" [");
    clock::traffic(a.accept_wall_us, out);
    out.extend_from_slice(b"] ");
    route(world, a, out);
    let _ = write!(out, " {}/{}/{} {} ", a.tw, a.tc, a.ta, a.bytes_out);
    out.extend_from_slice(&a.term);
    counts(a, out);
}

/// `%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r`;
/// nothing is captured, so `%hr` and `%hs` are empty and leave no blank.
fn http(world: &World, a: &Access<'_>, out: &mut Vec<u8>) {
    endpoint(a.client, out);
    out.extend_from_slice(b" [");
    clock::traffic(a.request_wall_us, out);
    out.extend_from_slice(b"] ");
    route(world, a, out);
    let _ = write!(
        out,
        " {}/{}/{}/{}/{} {} {} - - ",
        a.tr_req, a.tw, a.tc, a.tr_res, a.ta, a.status, a.bytes_out
    );
    out.extend_from_slice(&a.term);
    out.extend_from_slice(b"--");
    counts(a, out);
    out.extend_from_slice(b" \"");
    encoded(a.request_line, out);
    out.push(b'"');
}

/// `%ft %b/%s`. Without a backend HAProxy names the frontend.
fn route(world: &World, a: &Access<'_>, out: &mut Vec<u8>) {
    name(world, Some(a.frontend), out);
    out.push(b' ');
    name(world, Some(a.backend.unwrap_or(a.frontend)), out);
    out.push(b'/');
    out.extend_from_slice(a.server.unwrap_or(NO_SERVER).as_bytes());
}

/// ` %ac/%fc/%bc/%sc/%rc %sq/%bq`
fn counts(a: &Access<'_>, out: &mut Vec<u8>) {
    let plus = if a.redispatched { "+" } else { "" };
    let _ = write!(
        out,
        " {}/{}/{}/{}/{plus}{} {}/{}",
        a.actconn, a.feconn, a.beconn, a.srvconn, a.retries, a.srv_queue, a.be_queue
    );
}

fn name(world: &World, id: Option<ProxyId>, out: &mut Vec<u8>) {
    let proxy = id.and_then(|id| world.proxies.get(usize::from(id.0)));
    out.extend_from_slice(proxy.map_or("<NONE>", |p| p.name.as_str()).as_bytes());
}

fn endpoint(addr: Option<SocketAddr>, out: &mut Vec<u8>) {
    ip(addr, out);
    out.push(b':');
    port(addr, out);
}

fn ip(addr: Option<SocketAddr>, out: &mut Vec<u8>) {
    match addr {
        Some(a) => {
            let _ = write!(out, "{}", a.ip());
        }
        None => out.extend_from_slice(b"unix"),
    }
}

fn port(addr: Option<SocketAddr>, out: &mut Vec<u8>) {
    // A UNIX client has no port; HAProxy shows the listener's number, 1 for the first.
    let _ = write!(out, "{}", addr.map_or(1, |a| a.port()));
}

/// Client-controlled text: what could break a line or a quoted field becomes `#XX`, as HAProxy does.
fn encoded(text: &[u8], out: &mut Vec<u8>) {
    for &b in text {
        if (0x20..0x7f).contains(&b) && b != b'"' && b != b'#' {
            out.push(b);
        } else {
            let _ = write!(out, "#{b:02X}");
        }
    }
}

const NO_SERVER: &str = "<NOSRV>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_quotes_and_high_bytes_are_encoded() {
        let mut out = Vec::new();
        encoded(b"GET /a\"#\n\xc3\xa9|{} HTTP/1.1", &mut out);
        assert_eq!(out, b"GET /a#22#23#0A#C3#A9|{} HTTP/1.1");
    }

    #[test]
    fn a_unix_client_is_unix_1() {
        let mut out = Vec::new();
        endpoint(None, &mut out);
        assert_eq!(out, b"unix:1");
    }
}
