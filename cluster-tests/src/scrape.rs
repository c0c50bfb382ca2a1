//! Metrics pages: fetching, reading and checking them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{Client, Response, tools};

/// The page at the `admin bind` on this UNIX socket.
///
/// # Panics
/// When there is no answer.
#[track_caller]
pub fn scrape(socket: &Path) -> String {
    fetch(socket, "/metrics").text()
}

/// Any page there.
///
/// # Panics
/// When there is no answer.
#[track_caller]
pub fn fetch(socket: &Path, path: &str) -> Response {
    let mut client = Client::connect_unix(socket);
    client.get(path).response().expect("an answer")
}

/// Values by name and labels, as they are written.
///
/// # Panics
/// When a line is no sample.
pub fn samples(page: &str) -> BTreeMap<&str, f64> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name, value.parse().expect("a number"))
        })
        .collect()
}

/// Families that a page declares.
pub fn families(page: &str) -> BTreeSet<&str> {
    types(page).into_keys().collect()
}

/// Families that a page declares, with their types.
pub fn types(page: &str) -> BTreeMap<&str, &str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|rest| rest.split_once(' '))
        .collect()
}

/// Names of the labels of each family that has samples.
pub fn labels(page: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in samples(page).into_keys() {
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let names = labels.split("\",").filter_map(|l| l.split('=').next());
        all.entry(name)
            .or_default()
            .extend(names.filter(|n| !n.is_empty() && *n != "}"));
    }
    all
}

/// Families that `docs/metrics.md` describes.
pub fn documented() -> BTreeSet<&'static str> {
    include_str!("../../docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|rest| rest.split('`').next())
        .filter(|name| name.starts_with("remora_"))
        .collect()
}

/// Lets promtool look at a page, where it is installed.
///
/// # Panics
/// When it has a remark.
#[track_caller]
pub fn lint(page: &str) {
    let Some(mut promtool) = tools::tool("promtool") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("page");
    std::fs::write(&path, page).expect("a file");
    let file = std::fs::File::open(&path).expect("just written");
    let done = tools::run(promtool.args(["check", "metrics"]).stdin(file));
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (Some(0), "", ""),
        "{page}"
    );
}
