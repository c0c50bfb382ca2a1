//! `bind`, `stats socket` and `admin bind`: addresses and their options (config-dialect 6.2, admin-cli 1).

use crate::ast::whole;
use crate::known::{self, Kind};
use crate::lexer::Word;
use crate::plan::{Bind, CliLevel, Place, StatsSocket};
use crate::scope::unsupported;
use crate::{Loader, address};

/// Owner and permissions of UNIX sockets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unix {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
}

impl Unix {
    /// Takes one of its options; `None` when the word is none of them.
    pub(crate) fn take(&mut self, name: &str, value: Option<&str>) -> Option<Result<(), String>> {
        let number = |what: &str| match value.map(str::parse::<u32>) {
            Some(Ok(n)) => Ok(Some(n)),
            _ => Err(format!(
                "'{name}' : missing or invalid {what} '{}'",
                value.unwrap_or_default()
            )),
        };
        let text = |what: &str| match value {
            Some(v) => Ok(Some(v.to_owned())),
            None => Err(format!("'{name}' : missing {what} name")),
        };
        let result = match name {
            "mode" => match u32::from_str_radix(value.unwrap_or_default(), 8) {
                Ok(m) if m <= 0o7777 => {
                    self.mode = Some(m);
                    Ok(())
                }
                _ => Err(format!(
                    "'mode' : missing or invalid mode '{}' (octal integer expected)",
                    value.unwrap_or_default()
                )),
            },
            "uid" => number("uid").map(|n| self.uid = n),
            "gid" => number("gid").map(|n| self.gid = n),
            "user" => text("user").map(|t| self.user = t),
            "group" => text("group").map(|t| self.group = t),
            _ => return None,
        };
        Some(result)
    }
}

/// What a `bind` line gives: one listener per address and port.
pub(crate) fn bind(
    args: &[Word],
    section: &str,
    place: Place,
    loader: &mut dyn Loader,
) -> Result<Vec<Bind>, String> {
    let Some(addresses) = args.first().map(whole) else {
        return Err(
            "'bind' expects {<path>|[addr1]:port1[-end1]}{,[addr]:port[-end]}... as arguments."
                .to_owned(),
        );
    };
    let mut binds = Vec::new();
    for item in addresses.split(',') {
        let item = item.trim();
        if item.is_empty() {
            return Err(format!("'bind' : missing address in '{addresses}'"));
        }
        let list = address::listen(item, "bind", loader).map_err(|e| prefixed("'bind' : ", e))?;
        binds.extend(list.into_iter().map(|(address, text)| Bind {
            address,
            name: None,
            id: None,
            maxconn: None,
            backlog: None,
            accept_proxy: false,
            v6only: false,
            v4v6: false,
            mode: None,
            uid: None,
            gid: None,
            user: None,
            group: None,
            place,
            text,
        }));
    }
    let front = format!("'bind {addresses}' in section '{section}' : ");
    let mut common = Bind {
        text: String::new(),
        ..match binds.first() {
            Some(b) => b.clone(),
            None => return Err(format!("'bind' : missing address in '{addresses}'")),
        }
    };
    let mut unix = Unix::default();
    let words: Vec<String> = args.iter().skip(1).map(whole).collect();
    let mut i = 0;
    while let Some(name) = words.get(i) {
        let value = words.get(i + 1).map(String::as_str);
        i += 1;
        let integer = || match value.map(str::parse::<i64>) {
            Some(Ok(n)) => Ok(n),
            Some(Err(_)) => Err(format!(
                "{front}'{name}' : '{}' is not a number",
                value.unwrap_or_default()
            )),
            None => Err(format!("{front}'{name}' : missing value")),
        };
        if let Some(result) = unix.take(name, value) {
            result.map_err(|e| format!("{front}{e}"))?;
            i += 1;
            continue;
        }
        match name.as_str() {
            "accept-proxy" => common.accept_proxy = true,
            "v4v6" => common.v4v6 = true,
            "v6only" => common.v6only = true,
            "name" => {
                let v = value.ok_or_else(|| format!("{front}'name' : missing name"))?;
                common.name = Some(v.to_owned());
                i += 1;
            }
            "id" => {
                let n = integer()?;
                common.id = Some(
                    u32::try_from(n)
                        .ok()
                        .filter(|n| *n > 0 && *n <= i32::MAX as u32)
                        .ok_or_else(|| format!("{front}'id' : custom id has to be > 0"))?,
                );
                i += 1;
            }
            "maxconn" => {
                let n = integer()?;
                let n = u32::try_from(n)
                    .map_err(|_| format!("{front}'maxconn' : invalid value {n}, must be >= 0"))?;
                // 0 is "no limit of its own".
                common.maxconn = (n > 0).then_some(n);
                i += 1;
            }
            "backlog" => {
                let n = integer()?;
                common.backlog =
                    Some(u32::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| {
                        format!("{front}'backlog' : invalid value {n}, must be > 0")
                    })?);
                i += 1;
            }
            _ => return Err(unknown("bind", name, &addresses, section)),
        }
    }
    if common.v4v6 && common.v6only {
        return Err(format!("{front}'v4v6' and 'v6only' exclude each other"));
    }
    if common.id.is_some() && binds.len() > 1 {
        return Err(format!(
            "{front}'id' : a custom id needs a line with a single address"
        ));
    }
    for b in &mut binds {
        *b = Bind {
            address: b.address.clone(),
            text: std::mem::take(&mut b.text),
            mode: unix.mode,
            uid: unix.uid,
            gid: unix.gid,
            user: unix.user.clone(),
            group: unix.group.clone(),
            ..common.clone()
        };
    }
    Ok(binds)
}

pub(crate) fn prefixed(front: &str, error: String) -> String {
    if error.contains("is a HAProxy feature") {
        error
    } else {
        format!("{front}{error}")
    }
}

fn unknown(keyword: &str, name: &str, addresses: &str, section: &str) -> String {
    if keyword == "admin bind" {
        // Not HAProxy's, so neither are its options.
        let hint = match known::closest(name, ["mode", "uid", "gid", "user", "group"]) {
            Some(near) => format!("; did you mean '{near}' maybe ?"),
            None => String::new(),
        };
        return format!("'admin bind' : unknown keyword '{name}'{hint}");
    }
    if known::is_known(Kind::Bind, name) {
        return unsupported(&format!("{keyword} {name}"));
    }
    let hint = known::hint(name, Kind::Bind);
    match keyword {
        "bind" => {
            format!("'bind {addresses}' in section '{section}': unknown keyword '{name}'{hint}")
        }
        _ => format!("'{keyword}' : unknown keyword '{name}'{hint}"),
    }
}

/// `stats socket ADDR [options]`; args follow `socket`.
pub(crate) fn stats_socket(
    args: &[Word],
    place: Place,
    loader: &mut dyn Loader,
) -> Result<StatsSocket, String> {
    socket("stats socket", args, place, loader)
}

/// `admin bind ADDR [options]`; args follow `bind`.
pub(crate) fn admin_bind(
    args: &[Word],
    place: Place,
    loader: &mut dyn Loader,
) -> Result<StatsSocket, String> {
    socket("admin bind", args, place, loader)
}

/// A socket of the process itself. `keyword` says which; only the CLI's has a level.
fn socket(
    keyword: &str,
    args: &[Word],
    place: Place,
    loader: &mut dyn Loader,
) -> Result<StatsSocket, String> {
    let Some(text) = args.first().map(whole) else {
        return Err(format!(
            "'{keyword}' in global section expects an address or a path to a UNIX socket"
        ));
    };
    // A relative path is a path here, although a bind would want a port.
    let plain_path = !text.contains([':', '@']) && !text.starts_with('/');
    let full = if plain_path && keyword == "stats socket" {
        format!("unix@{text}")
    } else {
        text.clone()
    };
    let front = format!("'{keyword}' : ");
    let mut list = address::listen(&full, keyword, loader).map_err(|e| prefixed(&front, e))?;
    let (Some((address, _)), true) = (list.pop(), list.is_empty()) else {
        return Err(format!("{front}only one address is possible"));
    };
    let mut socket = StatsSocket {
        address,
        level: CliLevel::Operator,
        mode: None,
        uid: None,
        gid: None,
        user: None,
        group: None,
        place,
        text,
    };
    let mut unix = Unix::default();
    let words: Vec<String> = args.iter().skip(1).map(whole).collect();
    let mut i = 0;
    while let Some(name) = words.get(i) {
        let value = words.get(i + 1).map(String::as_str);
        i += 1;
        if let Some(result) = unix.take(name, value) {
            result.map_err(|e| format!("{front}{e}"))?;
            i += 1;
            continue;
        }
        match name.as_str() {
            "level" if keyword == "stats socket" => {
                socket.level = match value.unwrap_or_default() {
                    "user" => CliLevel::User,
                    "operator" => CliLevel::Operator,
                    "admin" => CliLevel::Admin,
                    other => {
                        return Err(format!(
                            "{front}'level' only supports 'user', 'operator', and 'admin' (got '{other}')"
                        ));
                    }
                };
                i += 1;
            }
            _ => return Err(unknown(keyword, name, "", "global")),
        }
    }
    socket.mode = unix.mode;
    socket.uid = unix.uid;
    socket.gid = unix.gid;
    socket.user = unix.user;
    socket.group = unix.group;
    Ok(socket)
}
