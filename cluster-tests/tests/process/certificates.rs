//! Certificates for nodes of a cluster.

use std::process::Command;

use cluster_tests::clocks::WallClock;
use cluster_tests::cluster::{Node, Spec};
use cluster_tests::tools;

/// Certificates of one authority, as PEM files in a directory.
pub(crate) struct Authority(tempfile::TempDir);

impl Authority {
    /// `None` when `openssl` is not installed.
    pub(crate) fn new() -> Option<Self> {
        Self::under(&[])
    }

    /// One that ran out ten days ago; `None` also when libfaketime is not installed.
    pub(crate) fn expired() -> Option<Self> {
        let clock = WallClock::new()?;
        clock.shift(-40 * 86_400);
        Self::under(&clock.env())
    }

    fn under(env: &[(&str, String)]) -> Option<Self> {
        let mut openssl = tools::tool("openssl")?;
        let dir = tempfile::tempdir().expect("a directory");
        openssl.envs(env.iter().map(|(k, v)| (k, v)));
        run(openssl.current_dir(dir.path()).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=authority",
            "-days",
            "30",
        ]));
        Some(Self(dir))
    }

    /// A certificate with this name, and its key, in one text.
    pub(crate) fn certificate(&self, name: &str) -> String {
        let (certificate, key) = self.certificate_of(name, &[]);
        certificate + &key
    }

    /// A certificate that was good for 30 days so many days ago, and its key; `None` when libfaketime is not installed.
    pub(crate) fn old_certificate(&self, name: &str, days: i64) -> Option<String> {
        let clock = WallClock::new()?;
        clock.shift(-days * 86_400);
        let (certificate, key) = self.certificate_of(name, &clock.env());
        Some(certificate + &key)
    }

    /// Certificate and key.
    pub(crate) fn certificate_of(&self, name: &str, env: &[(&str, String)]) -> (String, String) {
        let dir = self.0.path();
        let openssl = || {
            let mut command = Command::new("openssl");
            command
                .current_dir(dir)
                .envs(env.iter().map(|(k, v)| (k, v)));
            command
        };
        run(openssl().args([
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "request.pem",
            "-subj",
            "/CN=node",
        ]));
        let names = format!("subjectAltName=DNS:{name}\n");
        std::fs::write(dir.join("names"), names).expect("a file");
        run(openssl().args([
            "x509",
            "-req",
            "-in",
            "request.pem",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            "crt.pem",
            "-days",
            "30",
            "-extfile",
            "names",
        ]));
        (self.read("crt.pem"), self.read("key.pem"))
    }

    /// Its own certificate, which is an authority's, and its key.
    pub(crate) fn itself(&self) -> String {
        self.authority() + &self.read("ca.key")
    }

    pub(crate) fn authority(&self) -> String {
        self.read("ca.pem")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).expect("a file")
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let done = tools::run(command);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}

pub(crate) const TLS: &str = "ssl crt {{dir}}/node.pem ca-file {{dir}}/ca.pem verify required";

/// Nodes that speak TLS and show each other a certificate with this name.
pub(crate) fn tls_nodes(count: usize, authority: &Authority, name: &str) -> Spec {
    Spec::of(count)
        .options(TLS, &format!("{TLS} verifyhost {name}"))
        .file("node.pem", authority.certificate(name))
        .file("ca.pem", authority.authority())
}

/// Waits until a node has said this on standard error.
#[track_caller]
pub(crate) fn says(node: &Node, text: &str) {
    node.proxy().says(text);
}
