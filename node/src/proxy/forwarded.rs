//! `option forwardfor`.

use std::net::IpAddr;

use remora_config::plan::ForwardFor;
use remora_core::http1::Head;

use crate::proxy::client::Client;

/// Adds the client's address: the backend's header name wins; if either side lacks `if-none`, the header is added anyway.
pub(super) fn add_header(
    client: &Client,
    req: &mut Head,
    front: Option<&ForwardFor>,
    back: Option<&ForwardFor>,
) {
    let Some(address) = client.conn.src.get().map(|src| src.ip()) else {
        return;
    };
    let Some(rule) = back.or(front) else {
        return;
    };
    let inside = |rule: Option<&ForwardFor>| {
        rule.and_then(|rule| rule.except)
            .is_some_and(|(network, len)| is_inside(address, network, len))
    };
    if inside(front) || inside(back) {
        return;
    }
    let only_if_none =
        front.is_none_or(|rule| rule.if_none) && back.is_none_or(|rule| rule.if_none);
    let name = rule.header.as_bytes();
    if only_if_none && req.header(name).is_some() {
        return;
    }
    let mut text = [0u8; 48];
    let len = {
        use std::io::Write;
        let mut rest = &mut text[..];
        let _ = write!(rest, "{address}");
        48 - rest.len()
    };
    let _ = req.add_header(name, &text[..len]);
}

fn is_inside(address: IpAddr, network: IpAddr, len: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let shift = 32 - u32::from(len.min(32));
            (u64::from(a.to_bits()) >> shift) == (u64::from(n.to_bits()) >> shift)
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let shift = 128 - u32::from(len.min(128));
            shift == 128 || (a.to_bits() >> shift) == (n.to_bits() >> shift)
        }
        _ => false,
    }
}
