//! Request heads: what is accepted, what is refused, why and where.

mod accepted;
mod facts;
mod refused;

use remora_core::http1::{ErrorKind, Head, Limits};

fn parse(text: &[u8]) -> Result<Head, (ErrorKind, u64, u16)> {
    let mut head = Head::default();
    match head.parse_request(text, &Limits::default()) {
        Ok(Some(n)) => {
            assert_eq!(n, text.len(), "{}", text.escape_ascii());
            Ok(head)
        }
        Ok(None) => panic!("incomplete: {}", text.escape_ascii()),
        Err(e) => Err((e.kind(), e.offset(), e.status())),
    }
}
