//! `bind`, `server`, `peer` and `discover` lines: addresses and options.

use std::net::SocketAddr;

use super::tls::{Side, Tls};
use crate::ast::whole;
use crate::known::{self, Kind};
use crate::lexer::Word;
use crate::listen::{self, Unix};
use crate::plan::{Discover, Global, PeersBind, PeersTls, Place};
use crate::scope::{Scope, unsupported};
use crate::values::{self, Unit};
use crate::{address, plan};

/// `every` when it is not written.
const EVERY_MS: u32 = 5_000;
/// Asking more often would only load the name servers.
const EVERY_MIN_MS: u32 = 100;

/// Options of a `bind` line, `default-bind`'s first.
#[derive(Clone, Debug, Default)]
pub(super) struct BindOptions {
    unix: Unix,
    v4v6: bool,
    v6only: bool,
    pub(super) tls: Tls,
}

/// Options of a `server` line, `default-server`'s first.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerOptions {
    pub(super) disabled: bool,
    pub(super) tls: Tls,
}

/// Options that proxies' servers have and peers have no use for.
const NOT_FOR_PEERS: [&str; 4] = ["backup", "maxconn", "maxqueue", "weight"];
/// What the reference ignores on peers, with a warning: without and with a value.
const IGNORED: [&str; 4] = ["check", "no-check", "agent-check", "no-agent-check"];
const IGNORED_VALUES: [&str; 8] = [
    "init-addr",
    "resolvers",
    "resolve-prefer",
    "resolve-opts",
    "inter",
    "rise",
    "fall",
    "check-sni",
];

impl BindOptions {
    /// Reads options. The error lacks the line's name.
    pub(super) fn read(
        &mut self,
        words: &[Word],
        global: &Global,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        self.tls = self.tls.for_line();
        let words: Vec<String> = words.iter().map(whole).collect();
        let mut i = 0;
        while let Some(name) = words.get(i) {
            let value = words.get(i + 1).map(String::as_str);
            i += 1;
            if let Some(result) = self.unix.take(name, value) {
                result?;
                i += 1;
                continue;
            }
            if let Some(used) = self.tls.take(Side::Bind, name, value, global, scope) {
                i += usize::from(used?);
                continue;
            }
            match name.as_str() {
                "v4v6" => self.v4v6 = true,
                "v6only" => self.v6only = true,
                // Nothing refers to them.
                "name" | "id" => match value {
                    Some(_) => i += 1,
                    None => return Err(format!("'{name}' : missing value")),
                },
                _ if known::is_known(Kind::Bind, name) => {
                    return Err(unsupported(&format!("peers bind {name}")));
                }
                _ => {
                    let hint = known::hint(name, Kind::Bind);
                    return Err(format!("unknown keyword '{name}'{hint}"));
                }
            }
        }
        if self.v4v6 && self.v6only {
            return Err("'v4v6' and 'v6only' exclude each other".to_owned());
        }
        Ok(())
    }
}

impl ServerOptions {
    /// Reads options. The error lacks the line's name.
    pub(super) fn read(
        &mut self,
        words: &[String],
        global: &Global,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        self.tls = self.tls.for_line();
        let mut i = 0;
        while let Some(name) = words.get(i) {
            let value = words.get(i + 1).map(String::as_str);
            i += 1;
            if let Some(used) = self.tls.take(Side::Server, name, value, global, scope) {
                i += usize::from(used?);
                continue;
            }
            match name.as_str() {
                "disabled" => self.disabled = true,
                "enabled" => self.disabled = false,
                // Only `show servers` would tell.
                "id" => match value.and_then(|v| v.parse::<u32>().ok()) {
                    Some(n) if n > 0 => i += 1,
                    _ => return Err("'id' : custom id has to be > 0.".to_owned()),
                },
                "shard" => return Err(no_shards("shard")),
                n if NOT_FOR_PEERS.contains(&n) => {
                    return Err(format!("'{n}' means nothing for a peer: please remove it."));
                }
                n if IGNORED.contains(&n) => ignored(n, scope),
                n if IGNORED_VALUES.contains(&n) => {
                    ignored(n, scope);
                    i += 1;
                }
                _ if known::is_known(Kind::Server, name) => {
                    return Err(unsupported(&format!("peers server {name}")));
                }
                _ => {
                    let hint = known::hint(name, Kind::Server);
                    return Err(format!("unknown keyword '{name}'{hint}"));
                }
            }
        }
        Ok(())
    }
}

fn ignored(option: &str, scope: &mut Scope<'_>) {
    scope.warn(format!(
        "'{option}' : init-addr, resolvers, check and agent are ignored for peers."
    ));
}

/// Why there are no shards.
pub(super) fn no_shards(word: &str) -> String {
    format!(
        "{} Every node holds the sums of all keys, which is what its rules compare: remove 'shards' and each 'shard'.",
        unsupported(word)
    )
}

/// Addresses to listen on, of a `bind` line or of this node's own `server` line.
pub(super) fn binds(
    addresses: &str,
    options: &BindOptions,
    place: Place,
    scope: &mut Scope<'_>,
) -> Result<Vec<PeersBind>, String> {
    let tls = options.tls.finish(Side::Bind, scope)?;
    let mut all = Vec::new();
    for item in addresses.split(',') {
        let mut list = address::listen(item.trim(), "bind", scope.loader)?;
        let (Some((address, text)), true) = (list.pop(), list.is_empty()) else {
            return Err(format!(
                "'{item}' : peers need one port, not a range of them"
            ));
        };
        let unix = &options.unix;
        all.push(PeersBind {
            address,
            v4v6: options.v4v6,
            v6only: options.v6only,
            mode: unix.mode,
            uid: unix.uid,
            gid: unix.gid,
            user: unix.user.clone(),
            group: unix.group.clone(),
            tls: tls.clone(),
            place,
            text,
        });
    }
    Ok(all)
}

/// Puts the name of a `bind` line in front of an error.
pub(super) fn bind_error(addresses: &str, error: String) -> String {
    listen::prefixed(&format!("'bind {addresses}' in section 'peers' : "), error)
}

/// The words after `discover`.
pub(super) fn discover(
    args: &[Word],
    defaults: &ServerOptions,
    place: Place,
    global: &Global,
    scope: &mut Scope<'_>,
) -> Result<(Discover, ServerOptions), String> {
    const EXPECTED: &str = "'discover' expects 'dns <name>:<port> [every <time>] [nameserver <address>[:<port>]]' and options of a server.";
    let words: Vec<String> = args.iter().map(whole).collect();
    let (Some(method), Some(target)) = (words.first(), words.get(1)) else {
        return Err(EXPECTED.to_owned());
    };
    if method != "dns" {
        return Err(format!(
            "'discover' : unknown method '{method}'. {EXPECTED}"
        ));
    }
    let front = format!("'discover dns {target}' : ");
    let (name, port) = match target.rsplit_once(':') {
        Some((name, port)) => {
            let port = address::peer_port(port).map_err(|e| format!("{front}{e}"))?;
            (name, Some(port))
        }
        None if target.starts_with('_') => (target.as_str(), None),
        None => return Err(format!("{front}missing port specification in '{target}'")),
    };
    if !address::is_host_name(name) || name.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!(
            "{front}'{name}' is no DNS name. Nodes with fixed addresses go on 'server' lines."
        ));
    }
    let mut found = Discover {
        name: name.to_ascii_lowercase(),
        port,
        every_ms: EVERY_MS,
        nameserver: None,
        tls: None,
        place,
    };
    let mut options = defaults.clone();
    let mut rest = Vec::new();
    let mut i = 2;
    while let Some(word) = words.get(i) {
        let value = words.get(i + 1);
        i += 1;
        let missing = || format!("{front}'{word}' : missing value");
        match word.as_str() {
            "every" => {
                let value = value.ok_or_else(missing)?;
                found.every_ms = match values::time_ms(value, Unit::Ms) {
                    Ok(ms) if ms >= EVERY_MIN_MS => ms,
                    Ok(_) => {
                        return Err(format!(
                            "{front}'every' must be at least {EVERY_MIN_MS} ms."
                        ));
                    }
                    Err(e) => return Err(format!("{front}{}", e.message(value, "every"))),
                };
                i += 1;
            }
            "nameserver" => {
                let value = value.ok_or_else(missing)?;
                found.nameserver = Some(nameserver(value).ok_or_else(|| {
                    format!("{front}'nameserver' : '{value}' is no IP address with or without port")
                })?);
                i += 1;
            }
            _ => rest.push(word.clone()),
        }
    }
    options
        .read(&rest, global, scope)
        .map_err(|e| listen::prefixed(&front, e))?;
    found.tls = options
        .tls
        .finish(Side::Server, scope)
        .map_err(|e| format!("{front}{e}"))?;
    if let Some(PeersTls {
        verify: plan::Verify::Required,
        verifyhost: verifyhost @ None,
        ..
    }) = &mut found.tls
    {
        *verifyhost = Some(domain(&found.name).to_owned());
    }
    Ok((found, options))
}

/// The domain of a service name: `_peers._tcp.example.org` is what `example.org` has (RFC 6125, section 6.2.1).
fn domain(name: &str) -> &str {
    let mut rest = name.trim_end_matches('.');
    while rest.starts_with('_') {
        match rest.split_once('.') {
            Some((_, tail)) => rest = tail,
            None => break,
        }
    }
    rest
}

fn nameserver(text: &str) -> Option<SocketAddr> {
    const DNS_PORT: u16 = 53;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => Some(SocketAddr::new(text.parse().ok()?, DNS_PORT)),
    }
}
