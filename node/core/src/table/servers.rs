//! The dictionary behind `server_key`: entries store a small number instead of a name.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

/// Names a table can remember. They come from the configuration, so this is a guard, not a limit anyone should meet.
pub const SERVER_KEYS_MAX: usize = 65_535;

/// Names by number, from 1.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Arc<[u8]>>);

impl Names {
    pub fn name(&self, number: u32) -> Option<Arc<[u8]>> {
        self.0.get((number as usize).checked_sub(1)?).cloned()
    }
    fn find(&self, name: &[u8]) -> Option<u32> {
        // A table sticks to a handful of servers; the scan is shorter than a hash.
        self.0
            .iter()
            .position(|known| **known == *name)
            .map(|i| i as u32 + 1)
    }
}

#[derive(Debug, Default)]
pub(super) struct Servers(RwLock<Names>);

impl Servers {
    pub fn read(&self) -> RwLockReadGuard<'_, Names> {
        self.0.read()
    }
    /// The number of a name, new if need be. `None`: full.
    pub fn number(&self, name: &[u8]) -> Option<u32> {
        if let Some(number) = self.0.read().find(name) {
            return Some(number);
        }
        let mut names = self.0.write();
        if let Some(number) = names.find(name) {
            return Some(number);
        }
        if names.0.len() >= SERVER_KEYS_MAX {
            return None;
        }
        names.0.push(Arc::from(name));
        u32::try_from(names.0.len()).ok()
    }
    /// The same of what another node tells, where an empty name means that there is none: 0.
    pub fn number_or_none(&self, name: &[u8]) -> Option<u32> {
        if name.is_empty() {
            Some(0)
        } else {
            self.number(name)
        }
    }
}
