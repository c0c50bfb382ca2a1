//! The architecture page names every module that a newcomer meets first.

use std::fs;

use crate::root;

#[test]
fn is_complete() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the page");
    for (dir, from, to) in [
        (
            "node/core/src",
            "Inside `node/core/src`",
            "Inside `node/src`",
        ),
        ("node/src", "Inside `node/src`", "## One request"),
    ] {
        let start = page.find(from).expect(from);
        let end = page.find(to).expect(to);
        for entry in fs::read_dir(root().join(dir)).expect(dir) {
            let entry = entry.expect("an entry");
            let mut name = entry.file_name().into_string().expect("text");
            if entry.path().is_dir() {
                name.push('/');
            }
            if name != "lib.rs" {
                let quoted = format!("`{name}`");
                assert!(page[start..end].contains(&quoted), "{dir}/{name}");
            }
        }
    }
}
