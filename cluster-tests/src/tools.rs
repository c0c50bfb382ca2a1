//! Programs of the machine that some tests use as clients or measure with. A test without its tool says so and passes, unless
//! `CLUSTER_TESTS_ALL` is set: then it fails.

use std::path::PathBuf;
use std::process::Command;

/// Where a program is, searched in `PATH` and the sbin directories.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A command for a program of the machine, or `None` after printing that the test is skipped and why.
pub fn tool(name: &str) -> Option<Command> {
    let found = find(name);
    if found.is_none() {
        lacks(&format!("{name} is not installed"));
    }
    found.map(Command::new)
}

/// Whether the tests run as root; prints that the test is skipped if not.
pub fn root() -> bool {
    let is = rustix::process::geteuid().is_root();
    if !is {
        skip("needs root");
    }
    is
}

/// Whether tests take the long form, where they have one: times and sizes of a real site instead of some that a CI run can
/// afford (`CLUSTER_TESTS_LONG`).
pub fn long() -> bool {
    std::env::var_os("CLUSTER_TESTS_LONG").is_some_and(|value| !value.is_empty())
}

/// Prints that (part of) a test is skipped for want of a tool.
///
/// # Panics
/// When all tests are to run (`CLUSTER_TESTS_ALL`).
#[track_caller]
pub fn lacks(why: &str) {
    let all = std::env::var_os("CLUSTER_TESTS_ALL").is_some_and(|value| !value.is_empty());
    assert!(!all, "{why}, and no test is to be skipped");
    skip(why);
}

/// As [`lacks`], of what only root can be expected to have.
///
/// # Panics
/// When all tests are to run, as root.
#[track_caller]
pub fn lacks_as_root(why: &str) {
    if rustix::process::geteuid().is_root() {
        lacks(why);
    } else {
        skip(why);
    }
}

/// Prints that (part of) a test is skipped.
#[expect(clippy::print_stderr, reason = "shown with the test's output")]
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run(command: &mut Command) -> super::Output {
    let done = command.output().expect("the program can be started");
    super::Output {
        code: done.status.code(),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}
