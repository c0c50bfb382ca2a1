//! The environment as lines of a configuration see it: what the process inherited, what `setenv` and friends did to it,
//! and names that are predefined (config-dialect 1.3).

use std::collections::{HashMap, HashSet};

use crate::lexer::{Variables, Word};
use crate::{Loader, Options, Source};

/// HAProxy version that Remora's dialect follows; what `version_atleast` compares with.
pub const DIALECT_VERSION: &str = "3.2.0";

/// Changes to the inherited environment.
#[derive(Clone, Debug, Default)]
pub struct Env {
    changed: HashMap<String, Option<String>>,
    /// After `resetenv`: the only inherited names that are left.
    kept: Option<HashSet<String>>,
    /// Names set by the program itself: not reported as changes.
    predefined: HashSet<String>,
    /// `-L` was given: it wins over `localpeer`.
    local_peer_fixed: bool,
}

const HTTP_LOG: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r";
const HTTP_CLF_LOG: &str = "%{+Q}o %{-Q}ci - - [%trg] %r %ST %B \"\" \"\" %cp %ms %ft %b %s %TR %Tw %Tc %Tr %Ta %tsc %ac %fc %bc %sc %rc %sq %bq %CC %CS %hrl %hsl";
const HTTPS_LOG: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r %[fc_err]/%[ssl_fc_err,hex]/%[ssl_c_err]/%[ssl_c_ca_err]/%[ssl_fc_is_resumed] %[ssl_fc_sni]/%sslv/%sslc";
const TCP_LOG: &str = "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";

impl Env {
    /// The environment in which the first line of the first file is read.
    pub fn predefined(sources: &[Source], options: &Options) -> Env {
        let mut env = Env {
            local_peer_fixed: options.localpeer.is_some(),
            ..Env::default()
        };
        let branch = DIALECT_VERSION.rsplit_once('.').map_or("", |v| v.0);
        let files: Vec<&str> = sources.iter().map(|s| s.name.as_str()).collect();
        for (name, value) in [
            (
                "HAPROXY_LOCALPEER",
                options
                    .localpeer
                    .as_ref()
                    .unwrap_or(&options.hostname)
                    .as_str(),
            ),
            ("HAPROXY_CFGFILES", &files.join(";")),
            ("HAPROXY_BRANCH", branch),
            ("HAPROXY_STARTUP_VERSION", DIALECT_VERSION),
            ("HAPROXY_HTTP_LOG_FMT", HTTP_LOG),
            ("HAPROXY_HTTP_CLF_LOG_FMT", HTTP_CLF_LOG),
            ("HAPROXY_HTTPS_LOG_FMT", HTTPS_LOG),
            ("HAPROXY_TCP_LOG_FMT", TCP_LOG),
            ("REMORA_VERSION", env!("CARGO_PKG_VERSION")),
        ] {
            env.set(name, value);
            env.predefined.insert(name.to_owned());
        }
        env
    }
    /// Value of a variable; `loader` knows the inherited ones.
    pub fn get(&self, name: &str, loader: &dyn Loader) -> Option<String> {
        if let Some(value) = self.changed.get(name) {
            return value.clone();
        }
        if self.kept.as_ref().is_some_and(|k| !k.contains(name)) {
            return None;
        }
        loader.env(name)
    }
    /// `setenv`
    pub fn set(&mut self, name: &str, value: &str) {
        self.changed.insert(name.to_owned(), Some(value.to_owned()));
    }
    /// `localpeer`: what the following lines see of it.
    pub fn local_peer(&mut self, name: &str) {
        if !self.local_peer_fixed {
            self.set("HAPROXY_LOCALPEER", name);
        }
    }
    /// What the configuration changed, sorted: new value, or `None` for unset.
    pub fn changes(&self) -> Vec<(String, Option<String>)> {
        let mut list: Vec<_> = self
            .changed
            .iter()
            .filter(|(name, _)| !self.predefined.contains(*name))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        list.sort();
        list
    }

    /// Carries out `setenv`, `presetenv`, `unsetenv`, `resetenv`; `None` when the statement is none of them.
    pub fn statement(&mut self, words: &[Word], loader: &dyn Loader) -> Option<Result<(), String>> {
        let (keyword, args) = words.split_first()?;
        let keyword = keyword.text();
        let names = args.iter().map(|w| w.text().into_owned());
        match keyword.as_ref() {
            "setenv" | "presetenv" => {
                let [name, value] = args else {
                    return Some(Err(format!("'{keyword}' expects a name and a value.")));
                };
                let (name, value) = (name.text(), value.text());
                if keyword == "setenv" || self.get(&name, loader).is_none() {
                    self.predefined.remove(name.as_ref());
                    self.set(&name, &value);
                }
            }
            "unsetenv" => {
                if args.is_empty() {
                    return Some(Err("'unsetenv' expects at least one name.".to_owned()));
                }
                for name in names {
                    self.predefined.remove(&name);
                    self.changed.insert(name, None);
                }
            }
            "resetenv" => {
                let keep: HashSet<String> = names.collect();
                self.changed.retain(|name, _| keep.contains(name));
                self.kept = Some(match self.kept.take() {
                    Some(before) => before.intersection(&keep).cloned().collect(),
                    None => keep,
                });
            }
            _ => return None,
        }
        Some(Ok(()))
    }
}

/// The environment at one line.
pub struct AtLine<'e> {
    /// What the configuration changed so far.
    pub env: &'e Env,
    /// The inherited environment.
    pub loader: &'e dyn Loader,
    /// `.FILE`
    pub file: &'e str,
    /// `.LINE`
    pub line: u32,
    /// `.SECTION`: the word that began the section, empty before the first.
    pub section: &'e str,
}

impl Variables for AtLine<'_> {
    fn value(&self, name: &str) -> Option<String> {
        match name {
            ".FILE" => Some(self.file.to_owned()),
            ".LINE" => Some(self.line.to_string()),
            ".SECTION" => Some(self.section.to_owned()),
            _ if name.starts_with('.') => None,
            _ => self.env.get(name, self.loader),
        }
    }
}
