//! Wall clocks that are wrong, and change while a program runs. Only the wall clock: the monotonic one stays as it is.

use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::tools;

/// The wall clock of one process (libfaketime, preloaded into that process only).
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    offset: NamedTempFile,
}

impl WallClock {
    /// A clock that is right so far; `None` after printing that the test is skipped when libfaketime is not installed.
    ///
    /// # Panics
    /// When no temporary file can be made.
    pub fn new() -> Option<Self> {
        let found = library();
        if found.is_none() {
            tools::lacks("libfaketime is not installed");
        }
        let clock = Self {
            library: found?,
            offset: NamedTempFile::with_prefix("ct-clock-").expect("a temporary file"),
        };
        clock.shift(0);
        Some(clock)
    }

    /// Sets it this many seconds ahead of the machine's clock, or behind it.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn shift(&self, seconds: i64) {
        // One write of a short text: a reader sees the old or the new one.
        std::fs::write(self.offset.path(), format!("{seconds:+}\n")).expect("a file");
    }

    /// The environment of the process.
    pub fn env(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            (
                "FAKETIME_TIMESTAMP_FILE",
                self.offset.path().display().to_string(),
            ),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

fn library() -> Option<PathBuf> {
    let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
    let machines = ["", "x86_64-linux-gnu", "aarch64-linux-gnu"];
    roots
        .iter()
        .flat_map(|root| {
            machines
                .iter()
                .map(move |machine| Path::new(root).join(machine))
        })
        .map(|dir| dir.join("faketime/libfaketimeMT.so.1"))
        .find(|file| file.is_file())
}
