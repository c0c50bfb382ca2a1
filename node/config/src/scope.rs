//! What the expression and rule compilers may ask: names of tables, proxies, servers, variables and ACLs, the outside
//! world, and where to put messages.
//!
//! Names are complete before the first rule is compiled (a first pass over the statements collects them), so a lookup
//! that fails is a mistake in the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use remora_core::rule::cond::Acl;
use remora_core::rule::registry::Needs;
use remora_core::rule::vars::{Scope as VarScope, VarRef};
use remora_core::table::{DataType, TableId, TableSpec};
use remora_core::world::ProxyId;

use crate::diag::Diags;
use crate::env::Env;
use crate::plan::{Mode, Place};
use crate::{Loader, Options};

/// A proxy as other statements may refer to it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ProxyInfo {
    pub name: String,
    pub is_frontend: bool,
    pub is_backend: bool,
    pub mode: Mode,
    pub table: Option<TableId>,
    /// In order of declaration; the position is the index used by `Arg::Server`.
    pub servers: Vec<String>,
    pub place: Place,
}

/// The rule set (or statement) an expression is compiled for: decides which fetches make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Where {
    /// Nothing but the process: `global`, condition blocks.
    Config,
    TcpConnection,
    TcpSession,
    TcpContent,
    HttpRequest,
    /// `use_backend`, `redirect`.
    UseBackend,
    TcpResponse,
    HttpResponse,
    HttpAfterResponse,
    /// `log-format`: everything still known at the end.
    Log,
    /// ACL declarations, whose use decides.
    Anywhere,
}

impl Where {
    /// What exists there. (reference: config-dialect 4.1)
    pub fn available(self) -> Needs {
        const CONN: u16 = Needs::CONN.0;
        const STREAM: u16 = Needs::STREAM.0;
        const REQ: u16 = Needs::REQ_HEAD.0 | Needs::REQ_CONTENT.0;
        const RES: u16 = Needs::RES_HEAD.0 | Needs::RES_CONTENT.0;
        Needs(match self {
            Where::Config => 0,
            Where::TcpConnection | Where::TcpSession => CONN,
            Where::TcpContent | Where::HttpRequest | Where::UseBackend => CONN | STREAM | REQ,
            Where::TcpResponse | Where::HttpResponse | Where::HttpAfterResponse => {
                CONN | STREAM | RES
            }
            Where::Log | Where::Anywhere => CONN | STREAM | REQ | RES,
        })
    }
}

/// An ACL of the current proxy.
#[derive(Clone, Debug)]
pub struct NamedAcl {
    /// All its lines.
    pub acl: Arc<Acl>,
    /// Where its first line stands: it is unknown above.
    pub first: Place,
}

/// A rule that tracks, noted for the checks that follow compilation.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Tracked {
    pub slot: u8,
    pub table: TableId,
    /// The key is `src` itself.
    pub key_is_src: bool,
    pub place: Place,
    pub proxy: Option<ProxyId>,
}

/// A reader of what a slot tracks without naming a table (`sc0_conn_rate`), noted for the checks.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SlotRead {
    /// As written: `sc0_conn_rate`.
    pub name: String,
    pub slot: u8,
    pub data_type: DataType,
    /// Element of an array type, 0 for the others.
    pub index: u16,
    pub place: Place,
    pub proxy: Option<ProxyId>,
}

/// Everything a statement may refer to while it is compiled.
pub struct Scope<'a> {
    /// All tables; `TableId` is the index.
    pub tables: Vec<TableSpec>,
    /// All proxies; `ProxyId` is the index.
    pub proxies: Vec<ProxyInfo>,
    /// Interned variable names (without their scope).
    pub var_names: Vec<String>,
    /// ACLs of the current proxy (or defaults section).
    pub acls: HashMap<String, NamedAcl>,
    /// The proxy being compiled; `None` in `global` and for unused `defaults`.
    pub proxy: Option<ProxyId>,
    /// Type and name of the section being compiled, for messages: ("frontend", "web").
    pub section: (String, String),
    /// The statement being compiled.
    pub place: Place,
    /// `tune.stick-counters`
    pub stick_counters: u16,
    /// `tune.bufsize`, the bound of local replies.
    pub bufsize: usize,
    /// Mode of the current proxy.
    pub mode: Mode,
    /// Facts about the machine and the command line.
    pub options: &'a Options,
    /// Files, names, environment. `Scope::env` includes what `setenv` did.
    pub loader: &'a mut dyn Loader,
    /// What `setenv` and friends did; ask [`Scope::env`].
    pub environment: Env,
    /// Where messages go.
    pub diags: &'a mut Diags,
    /// All trackers seen so far.
    pub tracked: Vec<Tracked>,
    /// All readers of slots seen so far.
    pub slot_reads: Vec<SlotRead>,
}

/// Why a file that [`Scope::find_renewed`] should find cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It could not be read: why.
    Unread(String),
    /// Path, and what is wrong with the content.
    Wrong(String, String),
}

/// Says that HAProxy has this and Remora does not. `what` is the smallest unsupported thing, as written.
pub fn unsupported(what: &str) -> String {
    format!("'{what}' is a HAProxy feature that Remora does not support.")
}

impl Scope<'_> {
    /// A warning at the current statement: fatal under `-dW`, so only for what HAProxy warns about too.
    pub fn warn(&mut self, text: impl AsRef<str>) {
        self.diags.warn(self.place, text.as_ref());
    }
    /// A remark at the current statement.
    pub fn notice(&mut self, text: impl AsRef<str>) {
        self.diags.notice(self.place, text.as_ref());
    }
    /// An error at the current statement, for functions that go on after it; else return `Err(text)`.
    pub fn alert(&mut self, text: impl AsRef<str>) {
        self.diags.alert(self.place, text.as_ref());
    }

    /// Contents of a file that the current statement names: in the working directory, as HAProxy has it, else beside
    /// the configuration file that names it.
    ///
    /// # Errors
    /// Why the first of the two could not be read.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.find_file(path).map(|(_, bytes)| bytes)
    }

    /// As [`Scope::read`], with the path under which the file can be read again.
    ///
    /// # Errors
    /// Why the first of the two places could not be read.
    pub fn find_file(&mut self, path: &str) -> Result<(String, Vec<u8>), String> {
        self.locate(path, |loader, path| loader.read(path))
    }

    /// As [`Scope::find_file`], for a file that the running process reads again by itself: once it is used, a change of it is
    /// no change of the configuration. `check` says what is wrong with its content, if anything is.
    ///
    /// # Errors
    /// The path, and what `check` says or why the file could not be read.
    pub fn find_renewed<T>(
        &mut self,
        path: &str,
        check: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<(String, T), Unusable> {
        let found = self.locate(path, |loader, path| loader.read_renewed(path));
        let (found, bytes) = found.map_err(Unusable::Unread)?;
        match check(&bytes) {
            Ok(checked) => Ok((found, checked)),
            Err(why) => {
                // Nobody uses it, so whoever follows the configuration has to notice when it is mended.
                let _ = self.loader.read(&found);
                Err(Unusable::Wrong(found, why))
            }
        }
    }

    fn locate(
        &mut self,
        path: &str,
        read: impl Fn(&mut dyn Loader, &str) -> Result<Vec<u8>, String>,
    ) -> Result<(String, Vec<u8>), String> {
        let first = match read(self.loader, path) {
            Err(first) if !path.is_empty() && !path.starts_with('/') => first,
            read => return read.map(|bytes| (path.to_owned(), bytes)),
        };
        let beside = self
            .diags
            .files()
            .get(usize::from(self.place.file))
            .and_then(|config| config.rsplit_once('/'))
            .map(|(dir, _)| format!("{dir}/{path}"));
        beside
            .and_then(|path| {
                let bytes = read(self.loader, &path).ok()?;
                Some((path, bytes))
            })
            .ok_or(first)
    }

    /// A table by name.
    pub fn table(&self, name: &str) -> Option<TableId> {
        let i = self.tables.iter().position(|t| t.name == name)?;
        u16::try_from(i).ok().map(TableId)
    }
    /// A table's definition.
    pub fn spec(&self, id: TableId) -> Option<&TableSpec> {
        self.tables.get(usize::from(id.0))
    }
    /// The current proxy's own table: what `track-sc0 src` and `src_conn_rate` mean without a name.
    pub fn own_table(&self) -> Option<TableId> {
        self.current().and_then(|p| p.table)
    }
    /// Whether a table stores a data type: the array forms also answer for `gpc0`, `gpc1`, `gpt0`.
    pub fn stores(&self, id: TableId, what: DataType, index: u16) -> bool {
        self.spec(id).is_some_and(|s| spec_stores(s, what, index))
    }
    /// The current proxy.
    pub fn current(&self) -> Option<&ProxyInfo> {
        self.info(self.proxy?)
    }
    /// Name of the current section, for messages.
    pub fn section_name(&self) -> &str {
        &self.section.1
    }
    /// A proxy's facts.
    pub fn info(&self, id: ProxyId) -> Option<&ProxyInfo> {
        self.proxies.get(usize::from(id.0))
    }
    /// A proxy that has a frontend side.
    pub fn frontend(&self, name: &str) -> Option<ProxyId> {
        self.find(name, |p| p.is_frontend)
    }
    /// A proxy that has a backend side.
    pub fn backend(&self, name: &str) -> Option<ProxyId> {
        self.find(name, |p| p.is_backend)
    }
    /// Any proxy.
    pub fn any_proxy(&self, name: &str) -> Option<ProxyId> {
        self.find(name, |_| true)
    }
    fn find(&self, name: &str, want: impl Fn(&ProxyInfo) -> bool) -> Option<ProxyId> {
        let i = self
            .proxies
            .iter()
            .position(|p| p.name == name && want(p))?;
        u16::try_from(i).ok().map(ProxyId)
    }
    /// A server of a backend, by index.
    pub fn server(&self, backend: ProxyId, name: &str) -> Option<u16> {
        let i = self.info(backend)?.servers.iter().position(|s| s == name)?;
        u16::try_from(i).ok()
    }

    /// An ACL declared above the current statement.
    pub fn acl(&self, name: &str) -> Option<Arc<Acl>> {
        let named = self.acls.get(name)?;
        let declared = (named.first.file, named.first.line) <= (self.place.file, self.place.line);
        declared.then(|| named.acl.clone())
    }

    /// A variable as written, `txn.name`; interns the name.
    pub fn var(&mut self, text: &str) -> Result<VarRef, String> {
        let Some((scope, name)) = text.split_once('.') else {
            return Err(format!(
                "invalid variable name '{text}': it must begin with its scope, one of 'proc', 'sess', 'txn', 'req', 'res' or 'check'"
            ));
        };
        let scope = match scope {
            "proc" => VarScope::Proc,
            "sess" => VarScope::Sess,
            "txn" => VarScope::Txn,
            "req" => VarScope::Req,
            "res" => VarScope::Res,
            "check" => VarScope::Check,
            _ => {
                return Err(format!(
                    "invalid variable name '{text}': it must begin with its scope, one of 'proc', 'sess', 'txn', 'req', 'res' or 'check'"
                ));
            }
        };
        if name.is_empty() {
            return Err(format!("invalid variable name '{text}': the name is empty"));
        }
        if let Some(c) = name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.'))
        {
            return Err(format!("invalid syntax at char '{c}'"));
        }
        let index = match self.var_names.iter().position(|n| n == name) {
            Some(i) => i,
            None => {
                self.var_names.push(name.to_owned());
                self.var_names.len() - 1
            }
        };
        match u16::try_from(index) {
            Ok(name) => Ok(VarRef { scope, name }),
            Err(_) => Err("too many different variable names".to_owned()),
        }
    }

    /// An environment variable as the following lines see it.
    pub fn env(&self, name: &str) -> Option<String> {
        self.environment.get(name, &*self.loader)
    }

    /// Notes a tracking rule.
    pub fn note_track(&mut self, slot: u8, table: TableId, key_is_src: bool) {
        let (place, proxy) = (self.place, self.proxy);
        self.tracked.push(Tracked {
            slot,
            table,
            key_is_src,
            place,
            proxy,
        });
    }
    /// Notes a reader of what a slot tracks (no table named).
    pub fn note_slot_read(&mut self, name: &str, slot: u8, data_type: DataType, index: u16) {
        let (place, proxy) = (self.place, self.proxy);
        self.slot_reads.push(SlotRead {
            name: name.to_owned(),
            slot,
            data_type,
            index,
            place,
            proxy,
        });
    }
}

/// Whether a table of this definition stores a data type (see [`Scope::stores`]).
pub fn spec_stores(spec: &TableSpec, what: DataType, index: u16) -> bool {
    let has = |t: DataType, i: u16| {
        spec.store
            .iter()
            .any(|s| s.data_type == t && i < s.elements.max(1))
    };
    if has(what, index) {
        return true;
    }
    match what {
        DataType::Gpt0 => has(DataType::Gpt, 0),
        DataType::Gpc0 => has(DataType::Gpc, 0),
        DataType::Gpc1 => has(DataType::Gpc, 1),
        DataType::Gpc0Rate => has(DataType::GpcRate, 0),
        DataType::Gpc1Rate => has(DataType::GpcRate, 1),
        _ => false,
    }
}
