//! The ACLs that exist without being declared. (reference: config-dialect 4.2)

/// Name and criterion. `RDP_COOKIE` is absent: RDP cookies are not supported, and [`UNSUPPORTED`] says so by name.
pub(super) const PREDEFINED: &[(&str, &[&str])] = &[
    ("FALSE", &["always_false"]),
    ("HTTP", &["req.proto_http"]),
    ("HTTP_1.0", &["req_ver", "1.0"]),
    ("HTTP_1.1", &["req_ver", "1.1"]),
    ("HTTP_2.0", &["req_ver", "2.0"]),
    ("HTTP_3.0", &["req_ver", "3.0"]),
    ("HTTP_CONTENT", &["req.hdr_val(content-length)", "gt", "0"]),
    ("HTTP_URL_ABS", &["url_reg", "^[^/:]*://"]),
    ("HTTP_URL_SLASH", &["url_beg", "/"]),
    ("HTTP_URL_STAR", &["url", "*"]),
    ("LOCALHOST", &["src", "127.0.0.1/8", "::1"]),
    ("METH_CONNECT", &["method", "CONNECT"]),
    ("METH_DELETE", &["method", "DELETE"]),
    ("METH_GET", &["method", "GET", "HEAD"]),
    ("METH_HEAD", &["method", "HEAD"]),
    ("METH_OPTIONS", &["method", "OPTIONS"]),
    ("METH_POST", &["method", "POST"]),
    ("METH_PUT", &["method", "PUT"]),
    ("METH_TRACE", &["method", "TRACE"]),
    ("REQ_CONTENT", &["req.len", "gt", "0"]),
    ("TRUE", &["always_true"]),
    ("WAIT_END", &["wait_end"]),
];

/// Predefined in HAProxy only.
pub(super) const UNSUPPORTED: &[&str] = &["RDP_COOKIE"];

/// The criterion of a predefined ACL.
pub(super) fn criterion(name: &str) -> Option<&'static [&'static str]> {
    PREDEFINED
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, words)| *words)
}
