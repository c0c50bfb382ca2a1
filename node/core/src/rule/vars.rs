//! Variables: `SCOPE.NAME`, names interned when the configuration is compiled.

use super::cx::Cx;
use super::sample::Sample;

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scope {
    Proc,
    Sess,
    Txn,
    Req,
    Res,
    Check,
}

impl Scope {
    /// The scope written before the dot.
    pub fn by_name(name: &str) -> Option<Scope> {
        Some(match name {
            "proc" => Scope::Proc,
            "sess" => Scope::Sess,
            "txn" => Scope::Txn,
            "req" => Scope::Req,
            "res" => Scope::Res,
            "check" => Scope::Check,
            _ => return None,
        })
    }
}

/// A variable: scope and interned name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct VarRef {
    pub scope: Scope,
    pub name: u16,
}

/// The variables of one scope. Few, so a linear list.
#[derive(Clone, Debug, Default)]
pub struct Vars {
    list: Vec<(u16, Sample<'static>)>,
}

impl Vars {
    /// The value, if set.
    pub fn get(&self, name: u16) -> Option<&Sample<'static>> {
        self.list.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
    /// Sets or replaces.
    pub fn set(&mut self, name: u16, value: Sample<'static>) {
        match self.list.iter_mut().find(|(n, _)| *n == name) {
            Some((_, v)) => *v = value,
            None => self.list.push((name, value)),
        }
    }
    /// Forgets it.
    pub fn unset(&mut self, name: u16) {
        self.list.retain(|(n, _)| *n != name);
    }
    /// Forgets all, keeping the memory.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}

/// Reads a variable through `f`; `None` when it is not set or its scope does not exist here.
pub fn read<R>(cx: &Cx<'_>, var: VarRef, f: impl FnOnce(&Sample<'static>) -> R) -> Option<R> {
    match var.scope {
        Scope::Proc => cx.world.proc_vars.lock().get(var.name).map(f),
        Scope::Sess => cx.conn.vars.borrow().as_ref()?.get(var.name).map(f),
        Scope::Txn => cx.stream?.txn.borrow().get(var.name).map(f),
        Scope::Req => cx.stream?.req.borrow().get(var.name).map(f),
        Scope::Res => cx.stream?.res.borrow().get(var.name).map(f),
        Scope::Check => None, // health checks have no client connection, so nothing here can see them
    }
}

/// Changes the variables of a scope through `f`; nothing when the scope does not exist here.
pub fn change(cx: &Cx<'_>, scope: Scope, f: impl FnOnce(&mut Vars)) {
    match scope {
        Scope::Proc => f(&mut cx.world.proc_vars.lock()),
        Scope::Sess => f(cx.conn.vars.borrow_mut().get_or_insert_default()),
        Scope::Txn => {
            if let Some(stream) = cx.stream {
                f(&mut stream.txn.borrow_mut());
            }
        }
        Scope::Req => {
            if let Some(stream) = cx.stream {
                f(&mut stream.req.borrow_mut());
            }
        }
        Scope::Res => {
            if let Some(stream) = cx.stream {
                f(&mut stream.res.borrow_mut());
            }
        }
        Scope::Check => {}
    }
}

/// Sets a variable if all `conditions` hold; `value` `None` (no sample) never sets.
pub fn set(cx: &Cx<'_>, var: VarRef, conditions: VarConditions, value: Sample<'static>) {
    if conditions == VarConditions::default() || conditions.hold(cx, var, &value) {
        change(cx, var.scope, |vars| vars.set(var.name, value));
    }
}

/// `set-var(V,ifexists,…)`: all must hold. Bits in the order ifexists ifnotexists ifempty ifnotempty ifset ifnotset ifgt iflt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VarConditions(pub u8);

impl VarConditions {
    /// Words of the conditions, by bit number.
    pub const NAMES: [&'static str; 8] = [
        "ifexists",
        "ifnotexists",
        "ifempty",
        "ifnotempty",
        "ifset",
        "ifnotset",
        "ifgt",
        "iflt",
    ];

    /// The condition of that name.
    pub fn by_name(name: &str) -> Option<VarConditions> {
        let bit = Self::NAMES.iter().position(|n| *n == name)?;
        Some(VarConditions(1 << bit))
    }

    fn hold(self, cx: &Cx<'_>, var: VarRef, value: &Sample<'static>) -> bool {
        // `set` and `exists` differ only for process variables, which exist from the moment the configuration names them.
        let set = read(cx, var, |_| ()).is_some();
        let exists = set || var.scope == Scope::Proc;
        let empty = match value {
            Sample::Str(s) | Sample::Bin(s) | Sample::Method(s) => s.is_empty(),
            _ => false, // numbers and addresses are never empty
        };
        // The stored value against the new one; only integers can be compared, anything else does not stand in the way.
        let order = match (read(cx, var, as_int).flatten(), as_int(value)) {
            (Some(stored), Some(new)) => Some(stored.cmp(&new)),
            _ => None,
        };
        let checks = [
            exists,
            !exists,
            empty,
            !empty,
            set,
            !set,
            order.is_none_or(std::cmp::Ordering::is_gt),
            order.is_none_or(std::cmp::Ordering::is_lt),
        ];
        checks
            .iter()
            .enumerate()
            .all(|(bit, ok)| self.0 & (1 << bit) == 0 || *ok)
    }
}

fn as_int(value: &Sample<'_>) -> Option<i64> {
    match value {
        Sample::Int(i) => Some(*i),
        _ => None,
    }
}
