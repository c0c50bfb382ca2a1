//! TLS between peers: version 1.3, both sides show a certificate when the configuration says so, and files that change on
//! disk are read again before the next connection.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use remora_config::plan::{PeersTls, Verify};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::{expiry, pinned};

/// The protocol inside.
const ALPN: &[u8] = b"h2";

/// Settings built from files, built again when one of the files is another than before.
pub(super) struct Reread<T> {
    tls: PeersTls,
    build: fn(&PeersTls) -> Result<T, String>,
    state: Mutex<State<T>>,
}

struct State<T> {
    files: Files,
    settings: Arc<T>,
}

/// What tells a file from the one that was there before, for each file.
type Files = [Option<Seen>; 3];
type Seen = (u64, u64, i64, i64);

impl<T> Reread<T> {
    fn new(tls: &PeersTls, build: fn(&PeersTls) -> Result<T, String>) -> Result<Reread<T>, String> {
        let files = files(tls);
        Ok(Reread {
            state: Mutex::new(State {
                files,
                settings: Arc::new(build(tls)?),
            }),
            tls: tls.clone(),
            build,
        })
    }

    /// The settings for the next connection. If files have changed and make no sense, those before stay in use and the
    /// mistake is reported, once per change.
    pub(super) fn current(&self, report: impl FnOnce(&str)) -> Arc<T> {
        let mut state = self.state.lock();
        let files = files(&self.tls);
        if BELOW_ROOT.load(Relaxed) && files.iter().zip(&state.files).any(lost) {
            return Arc::clone(&state.settings);
        }
        if files != state.files {
            state.files = files;
            match (self.build)(&self.tls) {
                Ok(settings) => {
                    state.settings = Arc::new(settings);
                    report("certificates have changed and were read again");
                }
                Err(why) => report(&format!(
                    "certificates have changed but cannot be used, the ones before stay in use: {why}"
                )),
            }
        }
        Arc::clone(&state.settings)
    }
}

/// The process runs, or is about to, where it does not see its files.
static BELOW_ROOT: AtomicBool = AtomicBool::new(false);

/// From now on, a file that is not there is one that cannot be seen, and what was read of it stays in use.
pub(super) fn expect_chroot() {
    BELOW_ROOT.store(true, Relaxed);
}

fn lost((now, before): (&Option<Seen>, &Option<Seen>)) -> bool {
    now.is_none() && before.is_some()
}

fn files(tls: &PeersTls) -> Files {
    [&tls.crt, &tls.key, &tls.ca_file].map(|path| {
        let found = std::fs::metadata(path.as_ref()?).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    })
}

/// What a `bind` line needs.
pub(super) fn for_bind(tls: &PeersTls) -> Result<Reread<ServerConfig>, String> {
    Reread::new(tls, server_config)
}

/// What a `server` or `discover` line needs.
pub(super) fn for_server(tls: &PeersTls) -> Result<Reread<ClientConfig>, String> {
    Reread::new(tls, client_config)
}

fn server_config(tls: &PeersTls) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| e.to_string())?;
    let builder = if tls.verify == Verify::None {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(tls)?), provider);
        let verifier = if tls.verify == Verify::Optional {
            verifier.allow_unauthenticated()
        } else {
            verifier
        };
        let verifier = verifier.build().map_err(|e| e.to_string())?;
        let trusted = trusted(tls)?;
        builder.with_client_cert_verifier(pinned::clients(verifier, trusted))
    };
    let mut config = shown(tls, |pair| {
        let (chain, key) = pair.ok_or("no certificate is configured ('crt')")?;
        let config = builder.clone().with_single_cert(chain, key);
        config.map_err(|e| own_error(tls, &e))
    })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Sessions last for days: resuming one saves nothing and would outlive a revoked certificate.
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(tls: &PeersTls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = CheckServer {
        roots: match tls.verify {
            Verify::None => None,
            Verify::Optional | Verify::Required => Some(roots(tls)?),
        },
        trusted: match tls.verify {
            Verify::None => Vec::new(),
            Verify::Optional | Verify::Required => trusted(tls)?,
        },
        name: match tls.verify {
            Verify::None => None,
            Verify::Optional | Verify::Required => {
                tls.verifyhost.as_deref().map(server_name).transpose()?
            }
        },
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| e.to_string())?
        .dangerous() // rustls' word for a verifier of one's own
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = shown(tls, |pair| {
        let builder = builder.clone();
        match pair {
            Some((chain, key)) => {
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|e| own_error(tls, &e))
            }
            None => Ok(builder.with_no_client_auth()),
        }
    })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| format!("'{name}' cannot be a server's name"))
}

/// A certificate with its chain, and its key.
type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Builds something from this node's certificate. Tries twice: files that are being renewed may be of two certificates.
fn shown<T>(
    tls: &PeersTls,
    build: impl Fn(Option<Pair>) -> Result<T, String>,
) -> Result<T, String> {
    own(tls)
        .and_then(&build)
        .or_else(|_| own(tls).and_then(&build))
}

/// This node's certificate with its chain, and its key.
fn own(tls: &PeersTls) -> Result<Option<Pair>, String> {
    let Some(crt) = &tls.crt else {
        return Ok(None);
    };
    let chain = certificates(crt)?;
    let key = tls.key.as_ref().unwrap_or(crt);
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("private key '{key}': {e}"))?;
    Ok(Some((chain, key)))
}

fn own_error(tls: &PeersTls, why: &rustls::Error) -> String {
    let crt = tls.crt.as_deref().unwrap_or_default();
    match (why, &tls.key) {
        (rustls::Error::InconsistentKeys(_), Some(key)) if key != crt => {
            format!(
                "the private key in '{key}' belongs to another certificate than that in '{crt}'"
            )
        }
        (rustls::Error::InconsistentKeys(_), _) => {
            format!(
                "the private key in '{crt}' belongs to another certificate than the first one there"
            )
        }
        _ => format!("certificate '{crt}': {}", explain(why)),
    }
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("certificate '{path}': {e}"))?;
    if chain.is_empty() {
        return Err(format!("'{path}' holds no certificate"));
    }
    Ok(chain)
}

fn roots(tls: &PeersTls) -> Result<RootCertStore, String> {
    let path = tls.ca_file.as_ref().ok_or("no 'ca-file' is configured")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|e| format!("ca-file '{path}': {e}"))?;
    }
    Ok(roots)
}

/// What is wrong with a node's own certificate if it is an authority's that another one has issued: to have the issuer in
/// `ca-file` is not enough then. A self-signed one has to be in the others' `ca-file` anyway.
pub(super) fn issued_authority(crt: &str) -> Option<String> {
    let chain = certificates(crt).ok()?;
    let own = chain.first()?;
    if !pinned::is_authority_at(own, UnixTime::now()) || expiry::is_self_issued(own)? {
        return None;
    }
    Some(format!(
        "certificate '{crt}' is a CA certificate (CA:TRUE): nodes accept it only if their 'ca-file' holds that very certificate, not just its issuer"
    ))
}

/// What `ca-file` holds.
fn trusted(tls: &PeersTls) -> Result<Vec<CertificateDer<'static>>, String> {
    let path = tls.ca_file.as_ref().ok_or("no 'ca-file' is configured")?;
    certificates(path)
}

/// Whether a client's certificate carries one of these names; all do when there is none to compare with.
pub(super) fn client_is_one_of(
    certificate: Option<&CertificateDer<'_>>,
    names: &[ServerName<'static>],
) -> Result<(), String> {
    let Some(certificate) = certificate else {
        return Ok(()); // whether that may be was the handshake's business
    };
    if names.is_empty() {
        return Ok(());
    }
    let parsed = ParsedCertificate::try_from(certificate).map_err(|e| e.to_string())?;
    if names.iter().any(|n| verify_server_name(&parsed, n).is_ok()) {
        return Ok(());
    }
    let names: Vec<_> = names.iter().map(ServerName::to_str).collect();
    Err(format!(
        "its certificate carries none of the names that peers are verified by ({})",
        names.join(", ")
    ))
}

/// The names that lines of a section verify their servers by, when every verifying line has one: a client is one of those
/// servers, so its certificate must carry one of them.
pub(super) fn expected_names<'a>(
    lines: impl Iterator<Item = &'a PeersTls>,
) -> Result<Vec<ServerName<'static>>, String> {
    let mut names = Vec::new();
    for tls in lines {
        match &tls.verifyhost {
            Some(name) if tls.verify == Verify::Required => {
                let name = server_name(name)?;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            _ => return Ok(Vec::new()),
        }
    }
    Ok(names)
}

/// Verifies a server by its issuer and, where one is given, by a name that need not be the one that was dialed.
#[derive(Debug)]
struct CheckServer {
    /// `None`: whoever answers will do.
    roots: Option<RootCertStore>,
    /// The same certificates as they are.
    trusted: Vec<CertificateDer<'static>>,
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for CheckServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            let signed = verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            );
            pinned::or_trusted(signed, end_entity, &self.trusted)?;
            if let Some(name) = &self.name {
                verify_server_name(&parsed, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Why a handshake failed, for people.
pub(super) fn reason(error: &io::Error) -> String {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .map_or_else(|| plainer(error.to_string()), explain)
}

/// The same without advice to programmers.
pub(super) fn plainer(text: String) -> String {
    if text.contains("close_notify") || text.contains("broken pipe") {
        "the peer closed the connection".into()
    } else {
        text
    }
}

/// rustls' errors are for programmers.
fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as A, CertificateError as C, Error as E};
    match error {
        E::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "its certificate was not issued by an authority of 'ca-file'".into()
        }
        E::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "its certificate has expired".into()
        }
        E::NoCertificatesPresented => "it shows no certificate".into(),
        E::AlertReceived(A::CertificateExpired) => {
            "the peer says that this node's certificate has expired".into()
        }
        E::AlertReceived(A::CertificateRequired) => {
            "the peer wants this node to show a certificate".into()
        }
        E::AlertReceived(
            alert @ (A::UnknownCA
            | A::DecryptError
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateUnknown),
        ) => format!(
            "the peer refuses this node's certificate ('{}')",
            words(alert)
        ),
        E::AlertReceived(alert) => {
            format!("the peer ended the handshake ('{}')", words(alert))
        }
        E::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: one of the two clocks is wrong, or its issuer's".into()
        }
        E::InvalidCertificate(C::NotValidForNameContext {
            expected,
            presented,
        }) => {
            // In the form `DnsName("a")`.
            let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
            let names: Vec<String> = presented.iter().map(bare).collect();
            let names = match &names[..] {
                [] => "none at all".to_owned(),
                names => format!("'{}'", names.join("', '")),
            };
            format!(
                "its certificate does not carry the name '{}', but {names}",
                expected.to_str()
            )
        }
        E::InvalidCertificate(C::InvalidPurpose | C::InvalidPurposeContext { .. }) => {
            "its certificate may not be used for this (extendedKeyUsage): nodes need 'serverAuth' and 'clientAuth'".into()
        }
        _ if pinned::is_authority(error) => {
            "its certificate is a CA certificate (CA:TRUE), which is taken for a node's only if 'ca-file' holds that very certificate: put it there, or make one with CA:FALSE".into()
        }
        E::PeerIncompatible(why) => {
            format!("the two sides have no version or method in common ('{}')", words(why))
        }
        E::PeerMisbehaved(why) => {
            format!("the other side does not keep to the protocol ('{}')", words(why))
        }
        E::InvalidMessage(why) => {
            format!("a message that makes no sense ('{}')", words(why))
        }
        _ => {
            let text = error.to_string();
            if text.contains("UnsupportedCertVersion") {
                "it is a certificate of X.509 version 1: version 3 is needed, which any extension makes it (subjectAltName)".into()
            } else {
                text
            }
        }
    }
}

/// A name of rustls' as people write it: `UnknownCA` is "unknown CA".
fn words(name: &impl std::fmt::Debug) -> String {
    let name = format!("{name:?}");
    let mut out = String::with_capacity(name.len() + 8);
    let mut before = ' ';
    for (i, c) in name.char_indices() {
        let after = name[i + c.len_utf8()..].chars().next();
        let acronym = before.is_uppercase() || after.is_none_or(char::is_uppercase);
        if c.is_uppercase() && before.is_alphanumeric() && !before.is_uppercase() {
            out.push(' ');
        }
        if acronym {
            out.push(c);
        } else {
            out.extend(c.to_lowercase());
        }
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, PeerMisbehaved};

    use super::*;

    #[test]
    fn names_become_words() {
        for (name, expected) in [
            (words(&AlertDescription::UnknownCA), "unknown CA"),
            (
                words(&AlertDescription::UnsupportedCertificate),
                "unsupported certificate",
            ),
            (
                words(&PeerMisbehaved::SelectedUnofferedPsk),
                "selected unoffered psk",
            ),
            (
                words(&AlertDescription::Unknown(0xee)),
                "alert description(0xee)",
            ),
        ] {
            assert_eq!(name, expected);
        }
    }
}
