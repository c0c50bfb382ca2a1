//! `server` and `default-server` (config-dialect 6.5).

use crate::Loader;
use crate::address::{self, ServerError};
use crate::ast::whole;
use crate::known::{self, Kind};
use crate::lexer::Word;
use crate::parse::name_char;
use crate::plan::{Place, Server};
use crate::scope::unsupported;

/// Options that `default-server` sets and a server inherits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    weight: u32,
    maxconn: u32,
    maxqueue: u32,
    backup: bool,
    disabled: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults {
            weight: 1,
            maxconn: 0,
            maxqueue: 0,
            backup: false,
            disabled: false,
        }
    }
}

const WEIGHT_MAX: u32 = 256;

/// Reads options; `id` is only known to a server itself.
fn options(
    words: &[Word],
    front: &str,
    name: &str,
    d: &mut Defaults,
    mut id: Option<&mut Option<u32>>,
) -> Result<(), String> {
    let words: Vec<String> = words.iter().map(whole).collect();
    let mut i = 0;
    while let Some(word) = words.get(i) {
        let value = words.get(i + 1);
        i += 1;
        let integer = || match value.map(|v| v.parse::<u32>()) {
            Some(Ok(n)) => Ok(n),
            Some(Err(_)) => Err(format!(
                "{front}'{word}' expects a positive integer, not '{}'.",
                value.map_or("", String::as_str)
            )),
            None => Err(format!("{front}'{word}' expects an argument.")),
        };
        match word.as_str() {
            "weight" => {
                let n = integer()?;
                if n > WEIGHT_MAX {
                    return Err(format!(
                        "{front}weight of server {name} is not within 0 and {WEIGHT_MAX} ({n})."
                    ));
                }
                d.weight = n;
                i += 1;
            }
            "maxconn" => {
                d.maxconn = integer()?;
                i += 1;
            }
            "maxqueue" => {
                d.maxqueue = integer()?;
                i += 1;
            }
            "backup" => d.backup = true,
            "no-backup" => d.backup = false,
            "disabled" => d.disabled = true,
            "enabled" => d.disabled = false,
            // What they would undo does not exist.
            "no-check"
            | "no-ssl"
            | "no-send-proxy"
            | "no-send-proxy-v2"
            | "no-agent-check"
            | "no-tfo"
            | "no-check-ssl"
            | "no-check-send-proxy" => {}
            "id" => {
                let Some(id) = id.as_deref_mut() else {
                    return Err(format!("{front}'id' is not possible in 'default-server'."));
                };
                let n = value.and_then(|v| v.parse::<u32>().ok());
                match n.filter(|n| *n > 0 && *n <= i32::MAX as u32) {
                    Some(n) => *id = Some(n),
                    None => return Err(format!("{front}'id' : custom id has to be > 0.")),
                }
                i += 1;
            }
            _ if known::is_known(Kind::Server, word) => {
                return Err(unsupported(&format!("server {word}")));
            }
            _ => {
                let hint = known::hint(word, Kind::Server);
                return Err(format!("{front}unknown keyword '{word}'{hint}"));
            }
        }
    }
    Ok(())
}

/// The words after `default-server`.
pub(crate) fn default_server(args: &[Word], d: &mut Defaults) -> Result<(), String> {
    if args.is_empty() {
        return Err("'default-server' expects options of a server.".to_owned());
    }
    options(args, "'default-server' : ", "", d, None)
}

/// A server, and a remark about it if there is one.
pub(crate) struct Parsed {
    pub(crate) server: Server,
    pub(crate) has_id: bool,
    pub(crate) notice: Option<String>,
}

/// The words after `server`.
pub(crate) fn server(
    args: &[Word],
    proxy: &str,
    defaults: Defaults,
    place: Place,
    loader: &mut dyn Loader,
) -> Result<Parsed, String> {
    let (Some(name), Some(addr)) = (args.first(), args.get(1)) else {
        return Err("'server' expects <name> and <addr>[:<port>] as arguments.".to_owned());
    };
    let (name, addr) = (whole(name), whole(addr));
    if let Some(c) = name.chars().find(|c| !name_char(*c)) {
        return Err(format!(
            "character '{c}' is not permitted in server name '{name}'."
        ));
    }
    let front = format!("'server {proxy}/{name}' : ");
    let mut notice = None;
    let mut d = defaults;
    let mut id = None;
    // Wrong options are reported even when the address is wrong too: the first error wins, so look at them first.
    options(
        args.get(2..).unwrap_or_default(),
        &front,
        &name,
        &mut d,
        Some(&mut id),
    )?;
    let found = match address::server(&addr, loader) {
        Ok(found) => found,
        Err(ServerError::Bad(e)) if e.contains("is a HAProxy feature") => return Err(e),
        Err(ServerError::Bad(e)) => return Err(format!("{front}{e}")),
        Err(ServerError::Unresolved(host, found)) => {
            notice = Some(format!(
                "{front}could not resolve address '{host}', disabling server."
            ));
            d.disabled = true;
            found
        }
    };
    Ok(Parsed {
        server: Server {
            name,
            id: id.unwrap_or(0),
            address: found.address,
            port_offset: found.port_offset,
            weight: d.weight,
            maxconn: d.maxconn,
            maxqueue: d.maxqueue,
            backup: d.backup,
            disabled: d.disabled,
            place,
        },
        has_id: id.is_some(),
        notice,
    })
}
