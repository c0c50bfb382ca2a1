//! When the certificates of `peers` sections run out, so that somebody hears of it before nodes part. Read from the files
//! at every scrape: they are renewed while the process runs.

use super::text::Labels;
use crate::peers::expiry::{expiry, paths};
use crate::shared::Shared;

/// A file of certificates, and when it is of no use any more: seconds since 1970.
pub(super) fn files(shared: &Shared) -> Vec<(Labels, i64)> {
    let mut all = Vec::new();
    for section in shared.plan.peers.iter().filter(|s| !s.disabled) {
        for (path, holds) in paths(section) {
            if let Some(at) = expiry(path, holds) {
                let labels = Labels::new(&[("peers", &section.name), ("file", path)]);
                all.push((labels, at));
            }
        }
    }
    all
}
