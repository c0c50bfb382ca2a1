//! From received to sent: hop-by-hop headers, persistence, versions, targets.

mod edits;
mod to_client;
mod to_server;

use remora_core::http1::{Head, Limits};

fn request(text: &str) -> Head {
    let mut head = Head::default();
    let n = head
        .parse_request(text.as_bytes(), &Limits::default())
        .expect("valid")
        .expect("complete");
    assert_eq!(n, text.len());
    head
}

fn response(text: &str) -> Head {
    let mut head = Head::default();
    let n = head
        .parse_response(text.as_bytes(), &Limits::default())
        .expect("valid")
        .expect("complete");
    assert_eq!(n, text.len());
    head
}

fn sent(head: &Head) -> String {
    let mut out = b"before".to_vec();
    head.write(&mut out);
    let mut again = Vec::new();
    head.write(&mut again);
    assert_eq!(&out[6..], again, "writing does not change the head");
    String::from_utf8(again).expect("text")
}
