//! Finding the program under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Which program a test runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This project's proxy.
    Remora,
    /// The distribution's HAProxy, to check a test's expectation against the original.
    Haproxy,
}

/// The program tests run against: HAProxy if `CLUSTER_TESTS_PROXY=haproxy`, else Remora.
pub fn kind_under_test() -> Kind {
    match std::env::var("CLUSTER_TESTS_PROXY").as_deref() {
        Ok("haproxy") => Kind::Haproxy,
        _ => Kind::Remora,
    }
}

/// The path of a program of this kind.
///
/// Remora: `REMORA_BIN`, else the binary of the profile the caller was built with, brought up to date by cargo first.
///
/// # Panics
/// When it cannot be built or is not there.
pub fn program(kind: Kind) -> PathBuf {
    match kind {
        Kind::Remora => remora(),
        Kind::Haproxy => super::tools::find("haproxy")
            .unwrap_or_else(|| panic!("haproxy is not installed, but was asked for")),
    }
}

fn remora() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("REMORA_BIN") {
            // Proxies run in directories of their own.
            return std::path::absolute(&path).unwrap_or_else(|_| PathBuf::from(path));
        }
        build(if cfg!(debug_assertions) {
            "dev"
        } else {
            "release"
        })
    })
    .clone()
}

/// Builds Remora with this cargo profile (a no-op when it is fresh) and returns the binary's path.
///
/// # Panics
/// When cargo fails.
pub fn build(profile: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace");
    let target = target_dir(workspace);
    let done = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "remora",
            "--bin",
            "remora",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(workspace)
        .status()
        .expect("cargo can be started");
    assert!(done.success(), "cargo build of remora failed");
    let dir = if profile == "dev" { "debug" } else { profile };
    target.join(dir).join("remora")
}

/// The target directory this executable was built in: `TARGET/PROFILE/deps/NAME` or `TARGET/PROFILE/NAME`.
fn target_dir(workspace: &Path) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| workspace.join("target"), Path::to_path_buf)
}
