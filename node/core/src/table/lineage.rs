//! Who counted, and when something was assigned: the two names by which replicated tables merge.

/// One life of a node: a random number drawn at a cold start and continued across reloads. Counts belong to lineages;
/// names of nodes are for people and certificates, never for merging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub u64);

/// When an edict or a register was issued, and by whom. Ordered: the later one wins, the lineage decides between equals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Wall clock of the issuer in milliseconds since 1970, but always above every stamp it knew for that key.
    pub ms: u64,
    /// The issuer.
    pub lineage: Lineage,
}
