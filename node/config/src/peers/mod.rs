//! `peers` sections (reload-and-peers 2): one row per statement, then the checks that need the whole section.
//!
//! A section that can not work as written is an error, never a section left out: nodes that count alone while their
//! operator believes that they share are the mistake this exists to prevent.

mod checks;
mod lines;
mod tls;

use remora_core::table::TableId;

use crate::ast::{self, Prefix, Statement, shown, whole};
use crate::known::{self, Kind};
use crate::logs;
use crate::parse::name_char;
use crate::plan::{Global, PeersSection, PeersServer, Place};
use crate::proxy::no_more;
use crate::scope::Scope;
use crate::values::{self, Unit};
use crate::{address, listen};
use lines::{BindOptions, ServerOptions};
use tls::Side;

/// `learn-timeout` when it is not written: as long as the reference waits for a lesson.
const LEARN_TIMEOUT_MS: u32 = 5_000;

/// Whether its last word about it is `disabled`.
pub(crate) fn is_disabled(section: &ast::Section) -> bool {
    section
        .statements
        .iter()
        .map(Statement::keyword)
        .rfind(|k| k == "disabled" || k == "enabled")
        .is_some_and(|k| k == "disabled")
}

/// Compiles a section. Mistakes go to the scope's messages.
pub(crate) fn build(
    section: &ast::Section,
    tables: Vec<TableId>,
    global: &Global,
    scope: &mut Scope<'_>,
) -> PeersSection {
    scope.section = (section.kind.word().to_owned(), section.name.clone());
    scope.proxy = None;
    let mut b = Builder {
        out: PeersSection {
            name: section.name.clone(),
            cluster: section.name.clone(),
            place: section.place,
            disabled: is_disabled(section),
            local: global.localpeer.clone(),
            binds: Vec::new(),
            servers: Vec::new(),
            discover: Vec::new(),
            logs: Vec::new(),
            learn_timeout_ms: LEARN_TIMEOUT_MS,
            allow_plaintext: false,
            tables,
        },
        global,
        default_bind: BindOptions::default(),
        default_server: ServerOptions::default(),
        names: Vec::new(),
        wrong_discover: false,
        listens: false,
        local_address: None,
        bind_line: None,
        no_address: Vec::new(),
        trusting_binds: Vec::new(),
    };
    for s in &section.statements {
        scope.place = s.place;
        if let Err(text) = b.statement(s, scope) {
            b.wrong_discover |= s.keyword() == "discover";
            scope.alert(text);
        }
    }
    scope.place = section.place;
    b.check(scope);
    b.out
}

/// A section being read.
struct Builder<'b> {
    out: PeersSection,
    global: &'b Global,
    default_bind: BindOptions,
    default_server: ServerOptions,
    /// Names on `server` and `peer` lines, wrong lines included.
    names: Vec<(String, Place)>,
    /// A `discover` line could not be read: who is there is not known.
    wrong_discover: bool,
    /// There is a line that says where to listen, maybe a wrong one.
    listens: bool,
    /// The address on this node's own `server` line.
    local_address: Option<Place>,
    /// Peers without address, and what to say about them.
    no_address: Vec<(Place, String)>,
    /// The first `bind` line.
    bind_line: Option<Place>,
    /// Lines that open a TLS listener and do not say whether they ask for certificates.
    trusting_binds: Vec<Place>,
}

impl Builder<'_> {
    fn statement(&mut self, s: &Statement, scope: &mut Scope<'_>) -> Result<(), String> {
        let keyword = s.keyword();
        if s.prefix != Prefix::None && keyword != "log" {
            return Err(format!(
                "'no' and 'default' can not stand before '{keyword}'."
            ));
        }
        match keyword.as_str() {
            "disabled" | "enabled" => no_more(s, 0)?,
            "bind" => self.bind(s, scope)?,
            "default-bind" => {
                self.default_bind
                    .read(s.args(), self.global, scope)
                    .map_err(|e| {
                        self.default_bind.tls.spoil();
                        listen::prefixed("'default-bind' in section 'peers' : ", e)
                    })?;
            }
            "default-server" => {
                let words: Vec<String> = s.args().iter().map(whole).collect();
                self.default_server
                    .read(&words, self.global, scope)
                    .map_err(|e| {
                        self.default_server.tls.spoil();
                        listen::prefixed("'default-server' : ", e)
                    })?;
            }
            "server" | "peer" => self.server(s, scope)?,
            "discover" => {
                let (found, options) =
                    lines::discover(s.args(), &self.default_server, s.place, self.global, scope)?;
                if let Some(other) = self.out.discover.iter().find(|d| d.name == found.name) {
                    return Err(format!(
                        "'discover dns {}' is already at {}.",
                        found.name,
                        scope.diags.at(other.place)
                    ));
                }
                if !options.disabled {
                    self.out.discover.push(found);
                }
            }
            // Done in the first pass.
            "table" => {}
            "log" => self.log(s, scope)?,
            "learn-timeout" => {
                let value = one(s, "expects <time> as argument.")?;
                self.out.learn_timeout_ms = values::time_ms(&value, Unit::Ms)
                    .map_err(|e| e.message(&value, "learn-timeout"))?;
            }
            "allow-plaintext" => {
                no_more(s, 0)?;
                self.out.allow_plaintext = true;
            }
            "cluster" => {
                let name = one(s, "expects a name as an argument.")?;
                if let Some(c) = name.chars().find(|c| !name_char(*c)) {
                    return Err(format!(
                        "character '{}' is not permitted in cluster name '{}'.",
                        c.escape_default(),
                        s.words.get(1).map(shown).unwrap_or_default()
                    ));
                }
                self.out.cluster = name;
            }
            "shards" => return Err(lines::no_shards("shards")),
            _ => {
                let hint = known::hint(&keyword, Kind::Peers);
                return Err(format!(
                    "unknown keyword '{keyword}' in 'peers' section{hint}"
                ));
            }
        }
        Ok(())
    }

    fn bind(&mut self, s: &Statement, scope: &mut Scope<'_>) -> Result<(), String> {
        self.listens = true;
        self.bind_line.get_or_insert(s.place);
        let Some(addresses) = s.args().first().map(whole) else {
            return Err("'bind' expects [<address>]:<port> or a path as argument.".to_owned());
        };
        let mut options = self.default_bind.clone();
        options
            .read(s.args().get(1..).unwrap_or_default(), self.global, scope)
            .map_err(|e| lines::bind_error(&addresses, e))?;
        self.listen_at(&addresses, &options, s.place, scope)
            .map_err(|e| lines::bind_error(&addresses, e))
    }

    fn listen_at(
        &mut self,
        addresses: &str,
        options: &BindOptions,
        place: Place,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        let binds = lines::binds(addresses, options, place, scope)?;
        if options.tls.verify.is_none() {
            self.trusting_binds.push(place);
        }
        for bind in binds {
            if self.out.binds.iter().any(|b| b.address == bind.address) {
                return Err("this address is already listened on in this section".to_owned());
            }
            self.out.binds.push(bind);
        }
        Ok(())
    }

    fn server(&mut self, s: &Statement, scope: &mut Scope<'_>) -> Result<(), String> {
        let keyword = s.keyword();
        let Some(name) = s.args().first().map(whole) else {
            return Err(format!(
                "'{keyword}' expects <name> and <addr>:<port> as arguments."
            ));
        };
        if let Some(c) = name.chars().find(|c| !name_char(*c)) {
            return Err(format!(
                "character '{c}' is not permitted in peer name '{name}'."
            ));
        }
        let local = name == self.global.localpeer;
        if let Some((_, first)) = self.names.iter().find(|(n, _)| *n == name) {
            let at = scope.diags.at(*first);
            return Err(match local {
                true => format!("'{keyword} {name}' : local peer name already referenced at {at}."),
                false => format!(
                    "'{keyword} {name}' : another peer of this name was already defined at {at}, please use a distinct name."
                ),
            });
        }
        self.names.push((name.clone(), s.place));
        let front = format!("'{keyword} {}/{name}' : ", self.out.name);
        let words: Vec<String> = s.args().iter().skip(1).map(whole).collect();
        let (address, words) = match words.split_first() {
            Some((address, rest)) if looks_like_address(address) => (Some(address), rest),
            _ => (None, words.as_slice()),
        };
        let mut options = self.default_server.clone();
        if local && address.is_some() {
            // Wrong options are another matter than no address.
            self.listens = true;
        }
        options
            .read(words, self.global, scope)
            .map_err(|e| listen::prefixed(&front, e))?;
        if local {
            return self
                .own_line(address, &options, s.place, scope)
                .map_err(|e| listen::prefixed(&front, e));
        }
        let Some(address) = address else {
            let text = format!(
                "{front}an address is missing. Only the line of this node itself, which is '{}', may do without.",
                self.global.localpeer
            );
            self.no_address.push((s.place, text));
            return Ok(());
        };
        let address = address::peer(address).map_err(|e| listen::prefixed(&front, e))?;
        let tls = options
            .tls
            .finish(Side::Server, scope)
            .map_err(|e| format!("{front}{e}"))?;
        self.out.servers.push(PeersServer {
            name,
            address,
            disabled: options.disabled,
            tls,
            place: s.place,
        });
        Ok(())
    }

    /// The line of this node itself: where it listens, unless a `bind` line says so.
    fn own_line(
        &mut self,
        address: Option<&String>,
        options: &ServerOptions,
        place: Place,
        scope: &mut Scope<'_>,
    ) -> Result<(), String> {
        if options.disabled {
            return Err("this is the node itself: to switch off the whole section, write 'disabled' on a line of its own.".to_owned());
        }
        let dials_tls = options.tls.finish(Side::Server, scope)?.is_some();
        let Some(address) = address else {
            return Ok(());
        };
        self.local_address = Some(place);
        let listener = self.default_bind.clone();
        if dials_tls && listener.tls.finish(Side::Bind, scope)?.is_none() {
            return Err("the others would dial this node with TLS, but it would listen in plain text, because 'ssl' on a server line is for dialing: listen with 'bind <address> ssl crt <file> …', or put 'default-bind ssl crt <file> …' above this line.".to_owned());
        }
        self.listen_at(address, &listener, place, scope)
    }

    fn log(&mut self, s: &Statement, scope: &mut Scope<'_>) -> Result<(), String> {
        match s.prefix {
            Prefix::None if s.arg(0) == "global" => {
                no_more(s, 1)?;
                self.out.logs.extend(self.global.logs.iter().cloned());
            }
            Prefix::None => {
                let target = logs::parse(s.args(), false, scope.loader)?;
                self.out.logs.push(target);
            }
            _ if s.args().is_empty() => self.out.logs.clear(),
            _ => return Err("log : 'no log' does not expect arguments".to_owned()),
        }
        Ok(())
    }
}

/// The only argument of a statement.
fn one(s: &Statement, missing: &str) -> Result<String, String> {
    no_more(s, 1)?;
    match s.args().first() {
        Some(w) => Ok(whole(w)),
        None => Err(format!("'{}' {missing}", s.keyword())),
    }
}

/// Addresses hold a port, a path or a prefix; options do not.
fn looks_like_address(word: &str) -> bool {
    let is_option = known::is_known(Kind::Server, word);
    !is_option && word.contains([':', '/', '@', '.'])
}
