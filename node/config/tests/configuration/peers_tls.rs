//! What a `peers` section must say before its nodes speak over a network: TLS, certificates, who may join.

use crate::peers_errors::{check, section};
use crate::support::said;
use remora_config::diag::Level;

#[test]
fn plain_text_stays_at_home() {
    for lines in [
        " bind 10.0.0.1:5\n server a\n",
        " bind :5\n server a\n",
        " bind [::]:5\n server a\n",
        " peer a 10.0.0.1:5\n",
        " bind 127.0.0.1:5\n server a\n server b 10.0.0.2:5\n",
        " bind 127.0.0.1:5\n server a\n server b node-b:5\n",
        " bind 127.0.0.1:5\n server a\n discover dns nodes:5\n",
        " default-server ssl verify none\n bind 127.0.0.1:5\n server a\n server b 10.0.0.2:5 no-ssl\n",
    ] {
        let got = section(lines);
        assert!(
            got.len() == 1 && got[0].contains("plain text over the network"),
            "{lines}: {got:#?}"
        );
        assert_eq!(
            section(&format!(" allow-plaintext\n{lines}")),
            [""; 0],
            "{lines}"
        );
        assert_eq!(section(&format!(" disabled\n{lines}")), [""; 0], "{lines}");
    }
    let got = section(" bind :5\n server a\n server b 10.0.0.2:5\n server c 10.0.0.3:5\n");
    assert!(
        got.len() == 1
            && got[0].contains("[t.cfg:4] : 'bind :5' (and 2 more lines of this section)"),
        "{got:?}"
    );
    for lines in [
        " bind [::1]:5\n server a\n server b localhost:6\n server c 127.9.9.9:6\n",
        " bind unix@/run/a\n server a\n server b unix@/run/b\n server c /run/c\n",
        " bind fd@5\n server a\n",
        " bind [::ffff:127.0.0.1]:5\n server a\n",
        " bind 127.0.0.1:5\n server a\n server b 10.0.0.2:5 disabled\n",
    ] {
        assert_eq!(section(lines), [""; 0], "{lines}");
    }
}

#[test]
fn tls_options() {
    check(&[
        (
            "bind 127.0.0.1:5 ssl",
            "'bind 127.0.0.1:5' in section 'peers' : no SSL certificate specified (use 'crt').",
        ),
        (
            "bind 127.0.0.1:5 crt both.pem",
            "'bind 127.0.0.1:5' in section 'peers' : 'crt' does nothing without 'ssl'.",
        ),
        (
            "bind 127.0.0.1:5 ssl crt",
            "'bind 127.0.0.1:5' in section 'peers' : 'crt' : missing value",
        ),
        (
            "bind 127.0.0.1:5 ssl crt nope",
            "'bind 127.0.0.1:5' in section 'peers' : unable to read the certificate from file 'nope' : No such file or directory.",
        ),
        (
            "bind 127.0.0.1:5 ssl crt junk",
            "'bind 127.0.0.1:5' in section 'peers' : 'crt' : no certificate in PEM form in 'junk'.",
        ),
        (
            "bind 127.0.0.1:5 ssl crt torn.pem",
            "'bind 127.0.0.1:5' in section 'peers' : 'crt' : broken certificate (its END line is missing) in 'torn.pem'.",
        ),
        (
            "bind 127.0.0.1:5 ssl crt locked.pem",
            "'bind 127.0.0.1:5' in section 'peers' : 'crt' : private key that wants a pass phrase in 'locked.pem'.",
        ),
        (
            "bind 127.0.0.1:5 ssl crt alone.pem",
            "'bind 127.0.0.1:5' in section 'peers' : no private key in 'alone.pem', and no file 'alone.pem.key'.",
        ),
        (
            "bind 127.0.0.1:5 ssl crt alone.pem key both",
            "'bind 127.0.0.1:5' in section 'peers' : unable to read the private key from file 'both'",
        ),
        (
            "bind 127.0.0.1:5 ssl crt alone.pem key alone.pem",
            "'bind 127.0.0.1:5' in section 'peers' : No Private Key found in 'alone.pem'.",
        ),
        (
            "bind 127.0.0.1:5 ssl crt both.pem verify required",
            "'bind 127.0.0.1:5' in section 'peers' : 'verify' is enabled but no CA file specified (use 'ca-file').",
        ),
        (
            "bind 127.0.0.1:5 ssl crt both.pem verify maybe",
            "'bind 127.0.0.1:5' in section 'peers' : 'verify' : unknown verify method 'maybe', only 'none', 'optional', and 'required'",
        ),
        (
            "bind 127.0.0.1:5 ssl crt both.pem ciphersuites X",
            "'peers bind ciphersuites' is a HAProxy feature",
        ),
        (
            "bind 127.0.0.1:5 ssl crt both.pem verifyhost X",
            "'bind 127.0.0.1:5' in section 'peers' : unknown keyword 'verifyhost'",
        ),
        (
            "server c 127.0.0.1:5 ssl",
            "'server p/c' : the other side's certificate is verified by default, but no 'ca-file'",
        ),
        (
            "server c 127.0.0.1:5 ssl ca-file nope",
            "'server p/c' : unable to read the ca-file 'nope' : No such file or directory.",
        ),
        (
            "server c 127.0.0.1:5 ssl ca-file @system-ca",
            "'ca-file @system-ca' is a HAProxy feature that Remora does not support. Peers trust",
        ),
        (
            "server c 127.0.0.1:5 ssl ca-file k.pem",
            "'server p/c' : 'ca-file' : no certificate in PEM form in 'k.pem'.",
        ),
        (
            "server c 127.0.0.1:5 ssl verify optional",
            "'server p/c' : 'verify' : unknown verify method 'optional', only 'none' and 'required'",
        ),
        (
            "server c 127.0.0.1:5 ssl verify none verifyhost x",
            "'server p/c' : 'verifyhost x' does nothing with 'verify none'.",
        ),
        (
            "server c 127.0.0.1:5 ssl verify none key k.pem",
            "'server p/c' : 'key' needs a 'crt' to go with.",
        ),
        (
            "server c 127.0.0.1:5 ssl verify none sni req.hdr(host)",
            "'server p/c' : 'sni' : a peer's is always the same",
        ),
        (
            "server c 127.0.0.1:5 ssl verify none verifyhost a..b",
            "'server p/c' : 'verifyhost' : 'a..b' is not a host name",
        ),
        (
            "server c 127.0.0.1:5 ssl verify none ssl-max-ver TLSv1.2",
            "'server p/c' : 'ssl-max-ver TLSv1.2' : Remora's peers speak TLS 1.3",
        ),
        (
            "default-server ssl crt nope",
            "'default-server' : unable to read the certificate from file 'nope'",
        ),
    ]);
    let got = section(" default-server ssl verify none\n peer a 127.0.0.1:5\n");
    assert!(
        got.len() == 1 && got[0].contains("it would listen in plain text"),
        "{got:?}"
    );
}

#[test]
fn strangers_are_pointed_out() {
    let load = |lines: &str, level| said(&format!("global\n localpeer a\npeers p\n{lines}"), level);
    let weak = " bind :5 ssl crt both.pem\n server a\n";
    let warned = load(weak, Level::Warning);
    assert!(
        warned.len() == 1 && warned[0].contains("[t.cfg:4] : 'bind :5' : it does not insist"),
        "{warned:?}"
    );
    let written =
        " bind :5 ssl crt both.pem verify none\n server a\n server b 1.1.1.1:5 ssl verify none\n";
    assert_eq!(load(written, Level::Warning), [""; 0]);
    assert_eq!(load(written, Level::Notice).len(), 2);
    let strict =
        " default-bind ssl crt both.pem ca-file crt.pem verify required\n bind :5\n server a\n";
    assert_eq!(load(strict, Level::Notice), [""; 0]);
    let local = " bind 127.0.0.1:5 ssl crt both.pem\n server a\n";
    assert_eq!(load(local, Level::Warning), [""; 0]);
}
