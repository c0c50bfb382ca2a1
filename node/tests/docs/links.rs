//! Links between pages lead to files, and to headings, that are there.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::{pages, parts, root};

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let (prose, _) = parts(text);
    let mut all = BTreeSet::new();
    for line in prose.lines().filter(|l| l.starts_with('#')) {
        let name = anchor(line.trim_start_matches('#'));
        let again = (1..).map(|n| format!("{name}-{n}"));
        let free = std::iter::once(name.clone())
            .chain(again)
            .find(|n| !all.contains(n));
        all.extend(free);
    }
    all
}

/// The targets of `[text](target)`.
fn targets(prose: &str) -> Vec<&str> {
    let behind = prose.split("](").skip(1);
    behind
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .collect()
}

/// Without `..` and `.`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[test]
fn lead_somewhere() {
    let pages = pages();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (path, text) in &pages {
        for target in targets(&parts(text).0) {
            if target.contains("://") {
                continue;
            }
            seen += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let there = if file.is_empty() {
                path.clone()
            } else {
                plain(&path.parent().expect("a directory").join(file))
            };
            let page = pages.iter().find(|(p, _)| *p == there);
            let known = match page {
                _ if !root().join(&there).exists() => false,
                Some((_, text)) => heading.is_empty() || anchors(text).contains(heading),
                None => heading.is_empty(),
            };
            if !known {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 20, "only {seen}");
}
