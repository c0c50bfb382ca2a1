//! Who counted, and when something was assigned: the two names by which replicated tables merge.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use parking_lot::Mutex;

/// One life of a node: a random number drawn at a cold start and continued across reloads. Counts belong to lineages;
/// names of nodes are for people and certificates, never for merging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub u64);

impl fmt::Display for Lineage {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// When an edict or a register was issued, and by whom. Ordered: the later one wins, the lineage decides between equals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Wall clock of the issuer in milliseconds since 1970, but always above every stamp it knew for that key.
    pub ms: u64,
    /// The issuer.
    pub lineage: Lineage,
}

/// What may be forgotten of a lineage that is not alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: it may be back in a moment.
    Nothing,
    /// Cells that hold nothing. It said goodbye, and its successor may go on where it was.
    Blank,
    /// Cells that hold nothing but trackers. If it comes back after all, it is asked to say everything again.
    Trackers,
}

impl Rest {
    fn from_bits(bits: u8) -> Rest {
        match bits {
            0 => Rest::Nothing,
            1 => Rest::Blank,
            _ => Rest::Trackers,
        }
    }
}

/// Most lineages a process remembers, its own included.
pub const LINEAGES_MAX: usize = 1024;

/// The lineages that this process has met: a small index for each, and whether it is alive. Shared by all replicated
/// tables and the hubs that feed them.
pub struct Lineages {
    /// Index to lineage. Places below `met.len()` are set.
    ids: Box<[AtomicU64]>,
    /// Read whenever a gauge is evaluated.
    alive: Box<[AtomicBool]>,
    /// [`Rest`] of those that are not alive.
    rest: Box<[AtomicU8]>,
    /// Cells that tables store under each index: without any, the index of a dead lineage can be given to another.
    cells: Box<[AtomicU32]>,
    /// Lineage to index.
    met: Mutex<BTreeMap<Lineage, u16>>,
    refused: AtomicU64,
}

impl Lineages {
    /// Knows the process's own lineage only, which has index 0 and is always alive.
    pub fn new(own: Lineage) -> Lineages {
        let lineages = Lineages {
            ids: (0..LINEAGES_MAX).map(|_| AtomicU64::new(0)).collect(),
            alive: (0..LINEAGES_MAX).map(|_| AtomicBool::new(false)).collect(),
            rest: (0..LINEAGES_MAX).map(|_| AtomicU8::new(0)).collect(),
            cells: (0..LINEAGES_MAX).map(|_| AtomicU32::new(0)).collect(),
            met: Mutex::new(BTreeMap::new()),
            refused: AtomicU64::new(0),
        };
        lineages.index(own);
        if let Some(own) = lineages.alive.first() {
            own.store(true, Relaxed);
        }
        lineages
    }
    /// The process's own.
    pub fn own(&self) -> Lineage {
        self.id(0)
    }
    /// The index of a lineage, which is added if it is new. When all places are used, the place of a lineage that is not
    /// alive and of which no table holds anything is taken: remember lineages, not indices. `None`: there is no place;
    /// counted.
    pub fn index(&self, lineage: Lineage) -> Option<u16> {
        self.index_locked(&mut self.met.lock(), lineage)
    }
    fn index_locked(&self, met: &mut BTreeMap<Lineage, u16>, lineage: Lineage) -> Option<u16> {
        if let Some(&index) = met.get(&lineage) {
            return Some(index);
        }
        let free = if met.len() < self.ids.len() {
            Some(met.len() as u16)
        } else {
            let unused = |index: &u16| {
                let cells = self.cells.get(usize::from(*index));
                !self.is_alive(*index) && cells.is_some_and(|n| n.load(Acquire) == 0)
            };
            (1..self.ids.len() as u16).find(unused)
        };
        let Some((index, id)) =
            free.and_then(|index| Some((index, self.ids.get(usize::from(index))?)))
        else {
            self.refused.fetch_add(1, Relaxed);
            return None;
        };
        if let Some(alive) = self.alive.get(usize::from(index)) {
            alive.store(index == 0, Relaxed);
        }
        self.set_rest(index, Rest::Nothing);
        if met.len() == self.ids.len() {
            met.remove(&Lineage(id.load(Relaxed)));
        }
        id.store(lineage.0, Relaxed);
        met.insert(lineage, index);
        Some(index)
    }
    /// The process goes on as `lineage`, of which no table holds a cell any more; the own one so far is dead from now on.
    /// Returns whether there was a place for that.
    pub fn become_lineage(&self, lineage: Lineage) -> bool {
        let mut met = self.met.lock();
        let own = self.own();
        let Some(index) = self.index_locked(&mut met, lineage) else {
            return false;
        };
        let (Some(first), Some(place)) = (self.ids.first(), self.ids.get(usize::from(index)))
        else {
            return false;
        };
        if index > 0 {
            place.store(own.0, Relaxed);
            first.store(lineage.0, Relaxed);
            met.insert(own, index);
            met.insert(lineage, 0);
            if let Some(alive) = self.alive.get(usize::from(index)) {
                alive.store(false, Relaxed);
            }
            self.set_rest(index, Rest::Nothing);
        }
        true
    }
    /// [`Lineages::index`], and one more cell is counted there until [`Lineages::let_go`].
    pub(super) fn hold(&self, lineage: Lineage) -> Option<u16> {
        let mut met = self.met.lock();
        let index = self.index_locked(&mut met, lineage)?;
        self.hold_index(index);
        Some(index)
    }
    /// One more cell under an index that is held already.
    pub(super) fn hold_index(&self, index: u16) {
        if let Some(cells) = self.cells.get(usize::from(index)) {
            cells.fetch_add(1, Relaxed);
        }
    }
    /// One cell less.
    pub(super) fn let_go(&self, index: u16) {
        if let Some(cells) = self.cells.get(usize::from(index)) {
            cells.fetch_sub(1, Release);
        }
    }
    /// The index of a lineage that was met before.
    pub fn find(&self, lineage: Lineage) -> Option<u16> {
        self.met.lock().get(&lineage).copied()
    }
    /// The lineage with this index; zero for an index that was never given out.
    pub fn id(&self, index: u16) -> Lineage {
        Lineage(
            self.ids
                .get(usize::from(index))
                .map_or(0, |id| id.load(Relaxed)),
        )
    }
    /// Lineages met so far.
    #[allow(clippy::len_without_is_empty)] // there is always the own one
    pub fn len(&self) -> usize {
        self.met.lock().len()
    }
    /// Places that another lineage cannot have: of the own one, of those that are alive, and of those that tables hold cells of.
    pub fn held(&self) -> usize {
        let held = |index: &usize| {
            let cells = self.cells.get(*index).map_or(0, |n| n.load(Relaxed));
            *index == 0 || cells > 0 || self.is_alive(*index as u16)
        };
        (0..self.len()).filter(held).count()
    }
    /// How often [`Lineages::index`] had no place for a new one.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
    /// The same, for another process that goes on with it.
    pub fn refused_total(&self) -> &AtomicU64 {
        &self.refused
    }
    /// Says whether the gauges of a lineage count. The own one's always do. Whatever was to be forgotten of one that is
    /// alive again is not any more.
    pub fn set_alive(&self, index: u16, alive: bool) {
        if index > 0
            && let Some(bit) = self.alive.get(usize::from(index))
        {
            if alive {
                self.set_rest(index, Rest::Nothing);
            }
            bit.store(alive, Relaxed);
        }
    }
    /// Says what tables may forget of a lineage while it is not alive.
    pub fn set_rest(&self, index: u16, rest: Rest) {
        if let Some(bits) = self.rest.get(usize::from(index)) {
            bits.store(rest as u8, Relaxed);
        }
    }
    /// What tables may forget of a lineage: nothing of one that is alive.
    pub fn rest(&self, index: u16) -> Rest {
        let bits = self.rest.get(usize::from(index));
        match bits.map_or(0, |bits| bits.load(Relaxed)) {
            0 => Rest::Nothing,
            _ if self.is_alive(index) => Rest::Nothing,
            bits => Rest::from_bits(bits),
        }
    }
    /// Whether the gauges of a lineage count.
    pub fn is_alive(&self, index: u16) -> bool {
        self.alive
            .get(usize::from(index))
            .is_some_and(|bit| bit.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_given_once_and_bounded() {
        let lineages = Lineages::new(Lineage(7));
        assert_eq!(lineages.own(), Lineage(7));
        assert_eq!(lineages.index(Lineage(7)), Some(0));
        assert_eq!(lineages.index(Lineage(9)), Some(1));
        assert_eq!(lineages.find(Lineage(9)), Some(1));
        assert_eq!(lineages.find(Lineage(8)), None);
        assert_eq!(lineages.id(1), Lineage(9));
        lineages.set_alive(1, true);
        lineages.set_alive(0, false);
        assert!(lineages.is_alive(0) && lineages.is_alive(1) && !lineages.is_alive(2));
        for more in 100..100 + LINEAGES_MAX as u64 {
            lineages.hold(Lineage(more));
        }
        assert_eq!(lineages.len(), LINEAGES_MAX);
        assert_eq!(lineages.refused(), 2);
        assert!(!lineages.is_alive(u16::MAX));
    }

    #[test]
    fn places_without_life_or_cells_are_used_again() {
        let lineages = Lineages::new(Lineage(7));
        for n in 1..LINEAGES_MAX as u64 {
            let index = lineages.hold(Lineage(100 + n)).unwrap();
            lineages.set_alive(index, n == 3);
        }
        assert_eq!(lineages.hold(Lineage(9)), None);
        lineages.let_go(3);
        assert_eq!(lineages.index(Lineage(9)), None, "alive");
        lineages.let_go(5);
        assert_eq!(lineages.index(Lineage(9)), Some(5));
        assert_eq!(
            (lineages.id(5), lineages.find(Lineage(105))),
            (Lineage(9), None)
        );
        assert_eq!(lineages.own(), Lineage(7));
    }
}
