//! A loader without a world, and short ways to load a text.

use remora_config::diag::Level;
use remora_config::plan::Plan;
use remora_config::{Loaded, Loader, Options, Source, load};

/// Armour around nothing: the configuration looks no deeper.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
const LOCKED: &str =
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";

/// Knows a few names, files and variables.
pub struct World;

impl Loader for World {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        match path {
            "503-slow-down.http" | "503.http" => {
                Ok(b"HTTP/1.0 503 Slow down\r\nContent-Length: 5\r\n\r\nslow\n".to_vec())
            }
            "/etc/site/page.http" | "etc/page.http" => {
                Ok(b"HTTP/1.0 503 X\r\n\r\nbeside\n".to_vec())
            }
            "/etc/site/nets" => Ok(b"not a net".to_vec()),
            "empty" => Ok(Vec::new()),
            "junk" => Ok(b"hello".to_vec()),
            "both.pem" | "/tls/both.pem" => Ok(format!("{CERTIFICATE}{KEY}").into_bytes()),
            "crt.pem" | "alone.pem" | "/tls/ca.pem" | "/etc/site/ca.pem" => {
                Ok(CERTIFICATE.as_bytes().to_vec())
            }
            "crt.pem.key" | "k.pem" => Ok(KEY.as_bytes().to_vec()),
            "locked.pem" => Ok(format!("{CERTIFICATE}{LOCKED}").into_bytes()),
            "torn.pem" => Ok(CERTIFICATE
                .replace("-----END CERTIFICATE-----\n", "")
                .into_bytes()),
            "nets" => Ok(b"10.0.0.0/8\n# comment\n192.168.0.0/16\n".to_vec()),
            _ => Err("No such file or directory".to_owned()),
        }
    }
    fn resolve(&mut self, name: &str) -> Result<Vec<std::net::IpAddr>, String> {
        match name {
            "localhost" => Ok(vec!["127.0.0.1".parse().unwrap()]),
            "lazy.invalid" => Ok(vec![]),
            _ => Err("not found".to_owned()),
        }
    }
    fn env(&self, name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/root".to_owned()),
            "LIST" => Some("a  b c".to_owned()),
            "EMPTY" => Some(String::new()),
            "PORT" => Some("8080".to_owned()),
            _ => None,
        }
    }
}

pub fn options() -> Options {
    Options {
        hostname: "host1".to_owned(),
        localpeer: None,
        cpus: 4,
        fd_limit: 20_100,
        maxconn: None,
        pid: 1,
    }
}

pub fn load_bytes(text: &[u8]) -> Loaded {
    let source = Source {
        name: "t.cfg".to_owned(),
        text: text.to_vec(),
    };
    load(&[source], &options(), &mut World)
}

pub fn load_text(text: &str) -> Loaded {
    load_bytes(text.as_bytes())
}

/// Loads what must be fine; nothing but notices may be said.
pub fn good(text: &str) -> Plan {
    let loaded = load_text(text);
    let said: Vec<_> = loaded
        .diags
        .iter()
        .filter(|d| d.level > Level::Notice)
        .map(|d| d.text.clone())
        .collect();
    assert!(said.is_empty(), "{text}\n{}", said.join("\n"));
    loaded.plan.expect("a plan")
}

/// Messages of a level, in order.
pub fn said(text: &str, level: Level) -> Vec<String> {
    load_text(text)
        .diags
        .into_iter()
        .filter(|d| d.level == level)
        .map(|d| d.text)
        .collect()
}

/// Errors of a configuration that must not load, without the closing lines.
pub fn errors(text: &str) -> Vec<String> {
    let loaded = load_text(text);
    let list: Vec<String> = loaded
        .diags
        .into_iter()
        .filter(|d| d.level == Level::Alert)
        .map(|d| d.text)
        .collect();
    assert_eq!(loaded.plan.is_none(), !list.is_empty(), "{text}");
    let closing = "config : Fatal errors found in configuration.";
    assert!(list.is_empty() || list.last().is_some_and(|l| l == closing));
    list.into_iter()
        .filter(|l| l != closing && !l.starts_with("config : Error(s) found"))
        .collect()
}
