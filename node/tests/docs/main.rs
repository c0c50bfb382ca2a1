//! The documentation against the program and against itself.

mod commands;
mod links;
mod metrics;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page: its path below the root, and its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "helm/remora/README.md"]
        .map(PathBuf::from)
        .into();
    for entry in fs::read_dir(root().join("docs")).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        if Path::new(&name).extension().is_some_and(|e| e == "md") {
            paths.push(Path::new("docs").join(name));
        }
    }
    paths.sort();
    assert!(paths.len() > 8, "{paths:?}");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).expect("a page");
            (path, text)
        })
        .collect()
}

/// A page's prose, and what stands between lines of three backquotes: the language and the text.
fn parts(text: &str) -> (String, Vec<(&str, &str)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    for (i, part) in text.split("```").enumerate() {
        if i % 2 == 0 {
            prose.push_str(part);
        } else {
            blocks.push(part.split_once('\n').unwrap_or((part, "")));
        }
    }
    (prose, blocks)
}
