//! TLS options of `bind`, `server` and `discover` lines in `peers` sections. Files are looked at as soon as an option
//! names them, so that a missing one is an error of its line.

use rustls_pki_types::pem::{Error as PemError, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::plan::{Global, PeersTls, Verify};
use crate::scope::{Scope, Unusable, unsupported};

/// Which kind of line an option stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Bind,
    Server,
}

/// Options seen so far, those of `default-bind` or `default-server` first.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    ssl: bool,
    /// `no-ssl` was written: the other options may stay behind unused.
    off: bool,
    crt: Option<String>,
    key: Option<String>,
    /// `key` was written on this line, not inherited.
    own_key: bool,
    ca_file: Option<String>,
    pub(super) verify: Option<Verify>,
    verifyhost: Option<String>,
    sni: Option<String>,
    /// An option that needs `ssl`.
    needs_ssl: Option<String>,
    /// A line of defaults was wrong, which has been said: what is missing for it is no news.
    broken: bool,
}

/// Options that do nothing because they only limit or shape what peers do not speak: both ends are Remora, and Remora
/// peers speak TLS 1.3.
const IMPLIED: [&str; 5] = [
    "no-sslv3",
    "no-tlsv10",
    "no-tlsv11",
    "no-tlsv12",
    "force-tlsv13",
];

impl Tls {
    /// These options as the defaults of a line.
    pub(super) fn for_line(&self) -> Tls {
        Tls {
            own_key: false,
            ..self.clone()
        }
    }

    /// Notes that an option could not be read.
    pub(super) fn spoil(&mut self) {
        self.broken = true;
    }

    /// Takes an option if it is one of TLS; `Ok(true)` when it used the value behind it.
    pub(super) fn take(
        &mut self,
        side: Side,
        name: &str,
        value: Option<&str>,
        global: &Global,
        scope: &mut Scope<'_>,
    ) -> Option<Result<bool, String>> {
        let server = side == Side::Server;
        let known = match name {
            "ssl" | "crt" | "key" | "ca-file" | "verify" | "ssl-min-ver" | "ssl-max-ver"
            | "ciphers" => true,
            "no-ssl" | "verifyhost" | "no-verifyhost" | "sni" | "no-sni" => server,
            _ => IMPLIED.contains(&name),
        };
        known.then(|| self.option(side, name, value, global, scope))
    }

    fn option(
        &mut self,
        side: Side,
        name: &str,
        value: Option<&str>,
        global: &Global,
        scope: &mut Scope<'_>,
    ) -> Result<bool, String> {
        match name {
            "ssl" => (self.ssl, self.off) = (true, false),
            "no-ssl" => (self.ssl, self.off) = (false, true),
            "no-verifyhost" => self.verifyhost = None,
            "no-sni" => self.sni = None,
            _ if IMPLIED.contains(&name) => {}
            _ => {
                let value = value
                    .filter(|v| !v.is_empty())
                    .ok_or_else(|| format!("'{name}' : missing value"))?;
                if !matches!(name, "ssl-min-ver" | "ssl-max-ver" | "ciphers") {
                    self.needs_ssl.get_or_insert_with(|| name.to_owned());
                }
                self.valued(side, name, value, global, scope)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn valued(
        &mut self,
        side: Side,
        name: &str,
        value: &str,
        global: &Global,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        match name {
            "crt" => {
                let path = based(value, global.crt_base.as_deref());
                let check = |pem: &[u8]| certificates(pem).and_then(|()| has_key(pem));
                let (path, inside) = scope.find_renewed(&path, check).map_err(|e| match e {
                    Unusable::Unread(e) => {
                        format!("unable to read the certificate from file '{path}' : {e}.")
                    }
                    Unusable::Wrong(path, e) => format!("'crt' : {e} in '{path}'."),
                })?;
                // An inherited key belongs to the inherited certificate.
                if !self.own_key {
                    self.key = inside.then(|| path.clone());
                }
                self.crt = Some(path);
            }
            "key" => {
                let path = based(value, global.crt_base.as_deref());
                self.key = Some(read_key(&path, scope)?);
                self.own_key = true;
            }
            "ca-file" => {
                if value.starts_with('@') {
                    return Err(format!(
                        "{} Peers trust nobody but the holders of certificates of an authority of their own: name its file.",
                        unsupported(&format!("ca-file {value}"))
                    ));
                }
                let path = based(value, global.ca_base.as_deref());
                let found = scope.find_renewed(&path, certificates);
                let (path, ()) = found.map_err(|e| match e {
                    Unusable::Unread(e) => format!("unable to read the ca-file '{path}' : {e}."),
                    Unusable::Wrong(path, e) => format!("'ca-file' : {e} in '{path}'."),
                })?;
                self.ca_file = Some(path);
            }
            "verify" => {
                self.verify = Some(match (value, side) {
                    ("none", _) => Verify::None,
                    ("optional", Side::Bind) => Verify::Optional,
                    ("required", _) => Verify::Required,
                    (_, Side::Bind) => {
                        return Err(format!(
                            "'verify' : unknown verify method '{value}', only 'none', 'optional', and 'required' are supported"
                        ));
                    }
                    (_, Side::Server) => {
                        return Err(format!(
                            "'verify' : unknown verify method '{value}', only 'none' and 'required' are supported"
                        ));
                    }
                });
            }
            "verifyhost" => self.verifyhost = Some(host("verifyhost", value)?),
            "sni" => {
                let name = value.strip_prefix("str(").and_then(|v| v.strip_suffix(')'));
                let name = name.ok_or_else(|| {
                    format!("'sni' : a peer's is always the same: 'str(NAME)' is expected, not '{value}'")
                })?;
                self.sni = Some(host("sni", name)?);
            }
            // Versions: what the limits leave must contain 1.3.
            "ssl-min-ver" | "ssl-max-ver" => match (name, value) {
                (_, "TLSv1.3") | ("ssl-min-ver", "SSLv3" | "TLSv1.0" | "TLSv1.1" | "TLSv1.2") => {}
                ("ssl-max-ver", "SSLv3" | "TLSv1.0" | "TLSv1.1" | "TLSv1.2") => {
                    return Err(format!(
                        "'ssl-max-ver {value}' : Remora's peers speak TLS 1.3 and nothing older."
                    ));
                }
                _ => {
                    return Err(format!(
                        "'{name}' : unknown version '{value}', for example 'TLSv1.3'"
                    ));
                }
            },
            // A list for TLS 1.2 and older.
            _ => {}
        }
        Ok(())
    }

    /// What the options amount to. `None` is plain text. The error says what is missing.
    pub(super) fn finish(
        &self,
        side: Side,
        scope: &mut Scope<'_>,
    ) -> Result<Option<PeersTls>, String> {
        if self.broken {
            // Never used: there is no plan after an error. It only keeps the checks quiet.
            return Ok(Some(PeersTls {
                crt: None,
                key: None,
                ca_file: None,
                verify: Verify::Required,
                verifyhost: None,
                sni: None,
            }));
        }
        if !self.ssl {
            return match &self.needs_ssl {
                Some(name) if !self.off => Err(format!("'{name}' does nothing without 'ssl'.")),
                _ => Ok(None),
            };
        }
        let key = match (&self.crt, &self.key) {
            (Some(crt), None) => Some(key_beside(crt, scope)?),
            (None, Some(_)) => return Err("'key' needs a 'crt' to go with.".to_owned()),
            (_, key) => key.clone(),
        };
        let verify = self.verify.unwrap_or(match side {
            Side::Bind => Verify::None,
            Side::Server => Verify::Required,
        });
        if side == Side::Bind && self.crt.is_none() {
            return Err("no SSL certificate specified (use 'crt').".to_owned());
        }
        if verify != Verify::None && self.ca_file.is_none() {
            return Err(match side {
                Side::Bind => "'verify' is enabled but no CA file specified (use 'ca-file').".to_owned(),
                Side::Server => "the other side's certificate is verified by default, but no 'ca-file' says whose certificates are good. Name one, or write 'verify none' if whoever answers may be believed.".to_owned(),
            });
        }
        if verify == Verify::None
            && let Some(name) = &self.verifyhost
        {
            return Err(format!(
                "'verifyhost {name}' does nothing with 'verify none'."
            ));
        }
        Ok(Some(PeersTls {
            crt: self.crt.clone(),
            key,
            ca_file: self.ca_file.clone(),
            verify,
            verifyhost: self.verifyhost.clone(),
            sni: self.sni.clone(),
        }))
    }
}

/// A relative name below the directory that `global` gives for its kind.
fn based(path: &str, base: Option<&str>) -> String {
    match base {
        Some(base) if !path.starts_with('/') => format!("{base}/{path}"),
        _ => path.to_owned(),
    }
}

/// A DNS name as certificates carry it.
fn host(option: &str, name: &str) -> Result<String, String> {
    if crate::address::is_host_name(name) {
        Ok(name.trim_end_matches('.').to_ascii_lowercase())
    } else {
        Err(format!("'{option}' : '{name}' is not a host name"))
    }
}

/// There is at least one certificate, and every one can be taken apart.
fn certificates(pem: &[u8]) -> Result<(), String> {
    let mut any = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificate.map_err(|e| format!("broken certificate ({})", pem_reason(&e)))?;
        any = true;
    }
    match any {
        true => Ok(()),
        false => Err("no certificate in PEM form".to_owned()),
    }
}

fn has_key(pem: &[u8]) -> Result<bool, String> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(_) => Ok(true),
        Err(PemError::NoItemsFound) => {
            const ENCRYPTED: &[u8] = b"ENCRYPTED";
            if pem.windows(ENCRYPTED.len()).any(|w| w == ENCRYPTED) {
                return Err("private key that wants a pass phrase".to_owned());
            }
            Ok(false)
        }
        Err(e) => Err(format!("broken private key ({})", pem_reason(&e))),
    }
}

/// What is wrong, in words for people rather than the library's.
fn pem_reason(e: &PemError) -> &'static str {
    match e {
        PemError::MissingSectionEnd { .. } => "its END line is missing",
        PemError::IllegalSectionStart { .. } => "its BEGIN line is malformed",
        PemError::Base64Decode(_) => "it is not base64",
        PemError::NoItemsFound => "there is none",
        _ => "it cannot be read",
    }
}

fn read_key(path: &str, scope: &mut Scope<'_>) -> Result<String, String> {
    let check = |pem: &[u8]| match has_key(pem) {
        Ok(true) => Ok(()),
        Ok(false) => Err("No Private Key found".to_owned()),
        Err(e) => Err(e),
    };
    match scope.find_renewed(path, check) {
        Ok((path, ())) => Ok(path),
        Err(Unusable::Unread(e)) => Err(format!(
            "unable to read the private key from file '{path}' : {e}."
        )),
        Err(Unusable::Wrong(path, e)) => Err(format!("{e} in '{path}'.")),
    }
}

/// The key of a certificate that does not hold it: in `CRT.key`, as in the reference.
fn key_beside(crt: &str, scope: &mut Scope<'_>) -> Result<String, String> {
    let path = format!("{crt}.key");
    match scope.find_renewed(&path, |_| Ok(())) {
        Ok(_) => read_key(&path, scope),
        Err(_) => Err(format!(
            "no private key in '{crt}', and no file '{path}'. Put it into one of them, or name its file with 'key'."
        )),
    }
}
