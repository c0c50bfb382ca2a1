//! Nodes whose own certificate stands in the others' `ca-file`, as `openssl req -x509` makes them: it says that it is an
//! authority (CA:TRUE), and rustls accepts no such certificate for a node, where OpenSSL does.
//!
//! It is accepted if `ca-file` holds that very certificate, byte for byte. That gives nobody a right: whoever has its key,
//! which every handshake proves, could sign a node's certificate with it, which would be accepted. Its dates have been
//! checked by then, and names are still compared.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

/// Whether a certificate was refused because it says that it is an authority's. rustls finds that out after it has looked
/// at the dates, and before it looks for an issuer.
pub(super) fn is_authority(error: &Error) -> bool {
    // webpki's error, of which there is nothing but its name: not part of rustls' interface.
    matches!(error, Error::InvalidCertificate(CertificateError::Other(OtherError(why)))
        if format!("{why:?}") == "CaUsedAsEndEntity")
}

/// The verdict on a certificate, but for one that is trusted itself.
pub(super) fn or_trusted(
    verdict: Result<(), Error>,
    certificate: &CertificateDer<'_>,
    trusted: &[CertificateDer<'static>],
) -> Result<(), Error> {
    match verdict {
        Err(e) if is_authority(&e) && trusted.contains(certificate) => Ok(()),
        verdict => verdict,
    }
}

/// Whether a certificate, if its dates are good, is an authority's.
pub(super) fn is_authority_at(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
        return false;
    };
    let nobody = RootCertStore::empty();
    let algorithms = ring::default_provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], now, algorithms.all)
        .is_err_and(|e| is_authority(&e))
}

/// Verifies clients as `usual` does, and accepts those that are trusted themselves.
pub(super) fn clients(
    usual: Arc<dyn ClientCertVerifier>,
    trusted: Vec<CertificateDer<'static>>,
) -> Arc<dyn ClientCertVerifier> {
    Arc::new(Clients { usual, trusted })
}

#[derive(Debug)]
struct Clients {
    usual: Arc<dyn ClientCertVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.usual.offer_client_auth()
    }
    fn client_auth_mandatory(&self) -> bool {
        self.usual.client_auth_mandatory()
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.usual.root_hint_subjects()
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verdict = self
            .usual
            .verify_client_cert(end_entity, intermediates, now);
        or_trusted(verdict.map(drop), end_entity, &self.trusted)?;
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual
            .verify_tls12_signature(message, certificate, signature)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual
            .verify_tls13_signature(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
